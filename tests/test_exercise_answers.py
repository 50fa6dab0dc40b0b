"""The checks are checked: every question, with right answers and with wrong ones.

`tests/answers/lesson_NN.py` holds the answers. A lesson with questions and without
answers fails here.
"""

import ast
import functools
import importlib
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
from answers import made

from qwen_course import notebook_rules, notebooks
from qwen_course.exercises import build, checking, judges, probes, question

ROOT = Path(__file__).resolve().parent.parent
LESSONS = question.lessons()
QUESTIONS = question.questions()


def answers_of(lesson):
    return importlib.import_module(f"answers.lesson_{lesson}")


def cases(kind):
    """Return (id, mistake or None, answer) of every answer in RIGHT or WRONG."""
    found = []
    for lesson in LESSONS:
        for id, group in getattr(answers_of(lesson), kind).items():
            pairs = group.items() if kind == "WRONG" else ((None, a) for a in group)
            for number, (mistake, answer) in enumerate(pairs):
                name = f"{id}-{mistake or number}"
                found.append(pytest.param(id, mistake, answer, id=name))
    return found


# The answers


@pytest.mark.parametrize(("id", "mistake", "answer"), cases("RIGHT"))
def test_a_right_answer_is_right_however_it_is_written(id, mistake, answer):
    said = checking.verdict(id, made(answer))
    assert (said.status, said.mistake) == ("right", ""), said
    assert said.text == question.get(id).why


@pytest.mark.parametrize(("id", "mistake", "answer"), cases("WRONG"))
def test_a_wrong_answer_is_told_which_mistake_it_is(id, mistake, answer):
    said = said_of(id, mistake)
    assert (said.status, said.mistake) == ("not yet", mistake), said
    assert len(said.text) > 20


@functools.cache
def said_of(id, mistake):
    answer = answers_of(id.partition(".")[0]).WRONG[id][mistake]
    return checking.verdict(id, made(answer))


@pytest.mark.parametrize("lesson", LESSONS)
def test_mistakes_of_one_question_have_messages_of_their_own(lesson):
    for id, group in answers_of(lesson).WRONG.items():
        counts = Counter(said_of(id, mistake).text for mistake in group)
        assert not [text for text, count in counts.items() if count > 1], id


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.id)
def test_the_grader_s_own_cases_lead_to_the_same_verdict(asked):
    answers = answers_of(asked.lesson)
    right = made(answers.RIGHT[asked.id][0])
    assert checking.verdict(asked.id, right, seed=7).status == "right"
    for mistake, answer in answers.WRONG[asked.id].items():
        said = checking.verdict(asked.id, made(answer), seed=7)
        assert said.status == "not yet", (mistake, said)


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_question_has_enough_answers_to_test_it_with(lesson):
    answers = answers_of(lesson)
    ids = {one.id for one in question.questions(lesson)}
    assert set(answers.RIGHT) == ids == set(answers.WRONG)
    assert {id for id in ids if len(answers.RIGHT[id]) < 3} == set()
    assert {id for id in ids if len(answers.WRONG[id]) < 3} == set()


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.id)
def test_an_unanswered_question_is_to_do(asked):
    assert checking.verdict(asked.id).status == "to do"
    assert checking.verdict(asked.id, ...).status == "to do"


class Strange:
    """An object that lies about itself."""

    __hash__ = None
    __class__ = str

    def __eq__(self, other):
        return True

    def __repr__(self):
        raise RuntimeError("no words")

    def __iter__(self):
        raise RuntimeError("no parts")


STRANGE = [None, True, -1, 2.5, float("nan"), "x" * 10_000, [], {}, [[]], [None] * 9]
STRANGE += [object(), int, {"a": {}}, {1: 2}, b"bytes", Strange(), ..., lambda: 1]
STRANGE += [lambda *given: None, lambda *given: given, lambda *given: Strange()]
STRANGE += [lambda *given: 1 / 0, lambda *given: "", lambda *given: [{}, [], None]]


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.id)
def test_no_strange_answer_is_right_or_breaks_a_check(asked):
    for answer in STRANGE:
        said = checking.verdict(asked.id, answer)
        assert said.status != "right", (answer, said)
        assert said.text


# The questions


@pytest.mark.parametrize("lesson", LESSONS)
def test_probes_judges_and_the_notebook_name_the_same_questions(lesson):
    ids = [one.id for one in question.questions(lesson)]
    module = importlib.import_module(f"{probes.__name__}.lesson_{lesson}")
    assert list(module.PROBES) == ids
    assert [about["question"] for about in notebook_of(lesson)] == ids
    assert len(ids) == len(set(ids))
    assert 4 <= len(ids) <= 7


def notebook_of(lesson):
    (path,) = (one for one in build.solutions() if one.name.startswith(lesson))
    return list(build.questions(path, notebooks.read(path)))


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.id)
def test_a_question_is_the_same_in_its_notebook_and_in_its_check(asked):
    (about,) = (one for one in notebook_of(asked.lesson) if one["question"] == asked.id)
    assert about.pop("title").partition(" · ")[2] == asked.title
    assert about == {
        "question": asked.id,
        "difficulty": asked.difficulty,
        "minutes": asked.minutes,
        "outcome": asked.outcome,
    }


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.id)
def test_a_question_says_what_it_asks_of_the_learner(asked):
    """The line under its heading repeats the metadata, in words."""
    (path,) = (one for one in build.solutions() if one.name.startswith(asked.lesson))
    name = asked.id.partition(".")[2]
    (text,) = (c.source for c in notebooks.read(path).cells if c.id == name)
    line = f"*{asked.difficulty} · {asked.minutes} minutes · outcome {asked.outcome}*"
    assert line in text.splitlines()


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.id)
def test_a_question_has_what_helps_with_it(asked):
    first, second = asked.hints
    assert first
    assert second
    assert first != second
    assert asked.why.endswith(".")
    assert asked.outcome in question.OUTCOMES
    assert asked.difficulty in ("warm-up", "core", "stretch")
    assert 1 <= asked.minutes <= 60
    assert re.fullmatch(r"\d\d\.q\d", asked.id)


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.id)
def test_the_place_to_look_at_is_there(asked):
    text, target = asked.look
    assert text
    assert target.partition("#")[2], "no heading is named"
    lesson = ROOT / "notebooks" / target.partition("#")[0]
    problem = notebook_rules.broken(lesson, notebooks.read(lesson), target)
    assert not problem, f"{target} {problem}"


def test_every_lesson_s_questions_go_from_warm_up_to_stretch():
    order = ("warm-up", "core", "stretch")
    for lesson in LESSONS:
        steps = [order.index(one.difficulty) for one in question.questions(lesson)]
        assert {steps[0], steps[-1]} == {0, 2}, lesson


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_probe_knows_nothing_of_what_is_right(lesson):
    """It runs where a submission runs: whatever it imports can be read there."""
    module = importlib.import_module(f"{probes.__name__}.lesson_{lesson}")
    imported = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom):
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
    assert not [name for name in imported if name.startswith(judges.__name__)]
    assert not [name for name in imported if name.startswith("answers")]
