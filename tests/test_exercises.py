"""Checks, limits, progress and the builder, tried on a question of their own."""

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import qwen_course as qc
from qwen_course import notebook_rules, notebooks, settings
from qwen_course.exercises import (
    build,
    checking,
    keeping,
    limits,
    mistakes,
    picture,
    question,
    rules,
)
from qwen_course.exercises.feedback import Feedback
from qwen_course.exercises.question import Mistake, NotPlain, Question

ROOT = Path(__file__).resolve().parent.parent


# A question of their own: double three numbers


def judge(seen, seed):
    if not isinstance(seen, list):
        return Mistake("no-function", "Give a function.")
    wrong = mistakes.of_calls(seen, ["double(2)", "double([1])"])
    if wrong:
        return wrong
    if [one["value"] for one in seen] != [4, [1, 1]]:
        return Mistake("halves", "You halved it: <2>.")
    return None


def probe(answer, seed):
    if not callable(answer):
        return answer
    return [limits.call(answer, 2), limits.call(answer, [1])]


TRIAL = Question(
    id="01.q1",
    title="Double it",
    outcome=1,
    difficulty="core",
    minutes=5,
    judge=judge,
    hints=("Think of a sum.", "Add it to itself."),
    look=("3. Counting parameters", "01_family.ipynb#3.-Counting-parameters"),
    why="Doubling is half of everything.",
)


@pytest.fixture(autouse=True)
def trial(monkeypatch, tmp_path):
    """One question, an empty file of progress, and little patience."""
    monkeypatch.setattr(question, "lessons", lambda: ["01"])
    monkeypatch.setattr(question, "questions", lambda lesson=None: [TRIAL])
    monkeypatch.setattr(question, "probe_of", lambda id: probe)
    monkeypatch.setattr(limits, "SECONDS", 0.3)
    monkeypatch.setattr(checking, "_hints_given", {})
    monkeypatch.setattr(keeping, "_unsaved", {})
    monkeypatch.setattr(keeping, "_told", set())
    monkeypatch.setenv("QWEN_COURSE_PROGRESS", str(tmp_path / "progress.json"))


def double(x):
    return x * 2


def status(answer):
    return checking.verdict("01.q1", answer).status


def mistake(answer):
    return checking.verdict("01.q1", answer).mistake


class Liar:
    """Claims to equal everything and to be of any type."""

    __class__ = list
    __module__ = "numpy"
    shape = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0

    def __repr__(self):
        raise RuntimeError

    def __len__(self):
        return 2

    def __getitem__(self, at):
        return {"value": 4}

    def tolist(self):
        return self


# What a check says


def test_a_check_tells_to_do_from_not_yet_from_right(capsys):
    qc.check("01.q1")
    qc.check("01.q1", lambda x: x / 2 if x == 2 else x)
    qc.check("01.q1", double)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("○ 01.q1 Double it: to do. Replace the ...")
    assert second == "✗ 01.q1 Double it: not yet. You halved it: <2>."
    assert third == "✓ 01.q1 Double it: right. Doubling is half of everything."


@pytest.mark.parametrize("stub", [..., "...", " ", lambda x: ...])
def test_the_stub_of_the_learner_edition_is_to_do(stub):
    assert status(stub) == "to do"


def test_a_function_that_answers_some_cases_only_is_not_to_do():
    assert status(lambda x: ... if x == 2 else [1, 1]) == "not yet"


def test_an_answer_shows_as_html_with_a_word_beside_its_colour():
    html = Feedback("01.q1", "Double it", "not yet", "a < b")._repr_html_()
    assert "✗ 01.q1 · not yet" in html
    assert "a &lt; b" in html


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("01.q9", 'There is no question "01.q9". Did you mean "01.q1"?'),
        (double, 'qc.check("01.q1", answer)'),
        ([1], 'qc.check("01.q1", answer)'),
        (Liar(), 'qc.check("01.q1", answer)'),
        ("../x", "There is no question"),
    ],
)
def test_a_question_that_is_not_there_is_named(capsys, id, words):
    qc.check(id, 3)
    qc.hint(id)
    assert capsys.readouterr().out.count(words) == 2
    assert keeping.load() == {}


def test_a_broken_check_does_not_blame_the_learner(capsys, monkeypatch):
    monkeypatch.setattr(question, "get", lambda id: 1 / 0)
    qc.check("01.q1", double)
    assert "broken, not your answer: ZeroDivisionError" in capsys.readouterr().out
    assert keeping.load() == {}


def test_a_judge_that_stumbles_shows_the_example_to_follow(monkeypatch):
    said = checking.judge(TRIAL, {"seen": [{"value": 1}]})
    assert (said.status, said.mistake) == ("not yet", "odd-form")
    assert "Compare it with the example" in said.text


def test_a_probe_that_stumbles_is_no_verdict_on_the_answer(monkeypatch):
    monkeypatch.setattr(question, "probe_of", lambda id: lambda answer, seed: answer.x)
    assert mistake([1]) == "odd-form"


def test_hints_come_one_by_one_and_then_the_place_in_the_lesson(capsys):
    for _ in range(4):
        qc.hint("01.q1")
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first == "Hint 1: Think of a sum."
    assert second == "Hint 2: Add it to itself."
    assert third == fourth
    assert "notebooks/01_family.ipynb#3.-Counting-parameters" in third
    assert keeping.load()["01.q1"].hints == 4


def test_the_place_in_the_lesson_is_a_link_also_in_colab(monkeypatch):
    place = checking._Hint(TRIAL, 2)
    link = '<a href="../notebooks/01_family.ipynb#3.-Counting-parameters">'
    assert link in place._repr_mimebundle_()["text/html"]
    monkeypatch.setitem(sys.modules, "google.colab", None)
    html = place._repr_mimebundle_()["text/html"]
    assert '<a href="https://colab.research.google.com/' in html
    assert '/notebooks/01_family.ipynb">' in html


# Answers that never end, lie, or are too much


def forever(x):
    while True:
        pass


def deaf(x):
    while True:
        try:  # noqa: SIM105
            time.sleep(0.05)
        except:  # noqa: E722
            pass


def chatty(x):
    while True:
        print("again " * 1000)


def itself(x):
    return itself


def deep(x):
    lists = []
    for _ in range(10_000):
        lists = [lists]
    return lists


def endless_recursion(x):
    return endless_recursion(x)


def selfish(x):
    x = [x]
    x.append(x)
    return x


def stops(x):
    sys.exit()


def interrupts(x):
    raise KeyboardInterrupt


def speechless(x):
    class Speechless(Exception):
        def __str__(self):
            raise RuntimeError

    raise Speechless


def numbers(x):
    yield x


class Text(str):
    """A text that claims to equal every other."""

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


class Lazy(dict):
    def items(self):
        time.sleep(60)


BAD = [
    (forever, "endless", "was not done in time"),
    (deaf, "endless", "way out"),
    (chatty, "endless", "way out"),
    (lambda x: time.sleep(5), "endless", "way out"),
    (endless_recursion, "raises", "RecursionError"),
    (itself, "odd-type", "a function"),
    (deep, "odd-type", "more than 50 lists inside each other"),
    (selfish, "odd-type", "more than 50 lists inside each other"),
    (stops, "raises", "SystemExit at the line: sys.exit()"),
    (interrupts, "raises", "KeyboardInterrupt"),
    (speechless, "raises", "Speechless: (its text cannot be read)"),
    (numbers, "odd-type", "put list(...) around it"),
    (lambda x: [0] * 10**6, "odd-type", "more than 20,000 parts"),
    (lambda x: "x" * 10**6, "odd-type", "more than 200,000 characters"),
    (lambda x: torch.zeros(10**6), "odd-type", "more than 20,000 parts"),
    (lambda x: 10**1000, "odd-type", "more than 300 digits"),
    (lambda x: Liar(), "odd-type", "more than 50 lists"),
    (lambda x: Lazy(), "endless", "not done in time"),
    (lambda x: print(x), "prints", "Return it instead"),
    (lambda x: None, "returns-none", "Is a return missing?"),
    (lambda x: float("nan"), "halves", ""),
    (lambda x: 1 / 0, "raises", "ZeroDivisionError: division by zero at the line: "),
    (lambda: 1, "raises", "TypeError"),
]


@pytest.mark.parametrize(
    ("answer", "name", "words"), BAD, ids=[f"{n}-{bad[1]}" for n, bad in enumerate(BAD)]
)
def test_whatever_a_function_does_ends_in_a_clear_report(answer, name, words):
    said = checking.verdict("01.q1", answer)
    assert (said.status, said.mistake) == ("not yet", name), said
    assert words in said.text
    assert len(said.text) < 1500
    assert "Speechless object" not in said.text


@pytest.mark.parametrize("answer", [forever, deaf, chatty])
def test_an_endless_loop_leaves_nothing_running(answer):
    before = set(threading.enumerate())
    began = time.monotonic()
    checking.verdict("01.q1", answer)
    assert time.monotonic() - began < 3
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) - before == set()
    assert sys.gettrace() is None


def test_a_function_is_not_waited_for_twice_in_one_check():
    calls = []

    def slow(x):
        calls.append(x)
        forever(x)

    assert mistake(slow) == "endless"
    assert len(calls) == 1
    assert mistake(slow) == "endless"
    assert len(calls) == 2


def test_a_slow_call_is_no_endless_one():
    seen = limits.call(lambda: time.sleep(0.5) or 3, seconds=5)
    assert (seen["value"], seen["late"]) == (3, False)


def test_code_that_fills_the_memory_is_stopped(monkeypatch):
    monkeypatch.setattr(limits, "MEMORY_GB", 0.05)

    def greedy(x):
        kept = []
        while True:
            kept.append(bytearray(10**6))
            time.sleep(0.001)

    seen = limits.call(greedy, 1, seconds=20)
    assert seen["error"].startswith("MemoryError: it took more than")
    assert not seen["late"]


VALUES = [
    (Liar(), "odd-type"),
    (Lazy(), "endless"),
    (itertools.count(), "odd-type"),
    ([[]] * 20_001, "odd-type"),
    (deep(0), "odd-type"),
    (object(), "odd-type"),
    (Fraction(1, 2), "odd-type"),
    (float("nan"), "no-function"),
    (type, "odd-type"),
]


@pytest.mark.parametrize(("answer", "name"), VALUES, ids=range(len(VALUES)))
def test_a_value_of_any_kind_ends_in_a_clear_report(monkeypatch, answer, name):
    monkeypatch.setattr(limits, "PROBE_SECONDS", 2)
    said = checking.verdict("01.q1", answer)
    assert (said.status, said.mistake) == ("not yet", name), said


def test_pressing_stop_ends_the_check_and_the_answer(capsys, monkeypatch):
    wait, before = limits._wait, set(threading.enumerate())

    def stop(thread, seconds):
        if threading.current_thread() is threading.main_thread():
            thread.join(0.2)
            raise KeyboardInterrupt
        return wait(thread, seconds)

    monkeypatch.setattr(limits, "SECONDS", 60)
    monkeypatch.setattr(limits, "_wait", stop)
    qc.check("01.q1", forever)
    assert "You stopped this check" in capsys.readouterr().out
    assert keeping.load() == {}
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) - before == set()


# What a check leaves alone


def test_changed_inputs_are_noticed():
    assert mistake(lambda x: x.append(1) or [1, 1] if x != 2 else 4) == "changes-input"


CHANGES = [
    ([1, [2]], lambda x: x[1].append(3)),
    ([1], lambda x: x.append(x)),
    ([1], lambda x: x.append(object())),
    ({"a": 1}, lambda x: x.pop("a")),
    ({1, 2}, lambda x: x.clear()),
    (torch.zeros(2), lambda x: x.add_(1)),
    (numpy.zeros(2), lambda x: x.sort() or x.fill(1)),
]


@pytest.mark.parametrize(("given", "change"), CHANGES, ids=range(len(CHANGES)))
def test_a_change_in_place_is_noticed_and_reaches_nobody(given, change):
    before = repr(given)
    assert limits.call(lambda x: (change(x), 1)[1], given)["changed"]
    assert repr(given) == before


def test_a_configuration_that_was_changed_is_noticed():
    config = qc.architecture.configuration("Qwen/Qwen3-0.6B")

    def shrink(config):
        config.num_hidden_layers = 1
        return 1

    assert limits.call(shrink, config)["changed"]
    assert config.num_hidden_layers == 28


def test_a_check_leaves_random_numbers_as_they_were():
    def draw(x):
        return [random.random(), numpy.random.rand(), torch.rand(1).item()]

    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
    expected = draw(0)
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
    checking.verdict("01.q1", draw)
    assert draw(0) == expected


def test_a_check_of_random_numbers_is_repeatable():
    looked = [checking.look("01.q1", lambda x: random.random()) for _ in range(2)]
    assert looked[0] == looked[1]
    first, second = looked[0]["seen"]
    assert first["value"] != second["value"]


def test_printing_works_again_after_a_check(capsys):
    before = sys.stdout
    checking.verdict("01.q1", chatty)
    assert sys.stdout is before
    assert capsys.readouterr().out == ""


# Plain data


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (numpy.float32(0.5), 0.5),
        (numpy.arange(3), [0, 1, 2]),
        (torch.tensor([[1.5]]), [[1.5]]),
        (torch.tensor(True), True),
        (torch.Size([2, 3]), [2, 3]),
        ({"b": 1, 2: (3,)}, {"b": 1, "2": [3]}),
        ({3, 1}, [1, 3]),
        (range(3), [0, 1, 2]),
        ({"a": 1}.values(), [1]),
        (float("inf"), "inf"),
        ("\ud800", "?"),
        (Text("a"), "a"),
    ],
)
def test_answers_become_plain_data(value, expected):
    made = question.plain(value)
    assert made == expected
    assert type(made) is type(expected)
    json.dumps(made).encode()


def test_a_text_that_lies_becomes_a_text_that_does_not():
    assert question.plain(Text("a")) != "b"


@pytest.mark.parametrize(
    "value", [object(), int, len, b"", 1j, iter([]), torch.float32]
)
def test_what_is_no_data_is_refused(value):
    with pytest.raises(NotPlain):
        question.plain(value)


# Progress


def fed(status="not yet", mistake="", id="01.q1"):
    return Feedback(id, "Double it", status, "text", mistake)


def test_right_stays_right_and_tries_are_counted_until_then():
    for said in (fed("to do"), fed(mistake="a"), fed(mistake="a"), fed(mistake="b")):
        keeping.record(said)
    keeping.record(fed("right"))
    once = keeping.load()["01.q1"]
    keeping.record(fed(mistake="c"))
    kept = keeping.load()["01.q1"]
    assert (kept.status, kept.tries, kept.mistakes) == ("right", 4, {"a": 2, "b": 1})
    assert kept.first_right == once.first_right != ""
    assert kept.last >= once.last


def test_the_file_lies_where_the_setting_says(monkeypatch, tmp_path):
    place = tmp_path / "new folder" / "mine.json"
    monkeypatch.setenv(settings.PROGRESS_VARIABLE, str(place))
    keeping.record(fed())
    assert json.loads(place.read_text())["questions"]["01.q1"]["tries"] == 1
    monkeypatch.delenv(settings.PROGRESS_VARIABLE)
    assert settings.progress_file() == Path.home() / ".qwen-course" / "progress.json"


def test_a_crash_while_writing_leaves_the_old_file(monkeypatch):
    keeping.record(fed("right"))
    monkeypatch.setattr(keeping.os, "fsync", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keeping.record(fed(id="01.q2"))
    assert list(keeping.load()) == ["01.q1"]
    names = {path.name for path in settings.progress_file().parent.iterdir()}
    assert names <= {"progress.json", "progress.json.lock"}


WRITER = """
from qwen_course.exercises import keeping
def change(book):
    book.setdefault("01.q1", keeping.Kept()).tries += 1
for _ in range(40):
    keeping.update(change)
"""


def test_two_kernels_lose_nothing():
    command = [sys.executable, "-c", WRITER]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait(60) == 0
    assert keeping.load()["01.q1"].tries == 120


DAMAGED = [
    "",
    "{",
    "[]",
    "[" * 100_000,
    '{"format": "qwen-course progress", "version": 1, "questions": []}',
    '{"format": "qwen-course progress", "version": true, "questions": {}}',
    keeping.as_json({"01.q1": keeping.Kept(tries=-1)}),
    keeping.as_json({"01.q1": keeping.Kept(status="perfect")}),
    keeping.as_json({"01.q1": keeping.Kept(last="yesterday")}),
    keeping.as_json({"<b>": keeping.Kept()}),
    "\x00" * 100,
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_set_aside_and_told_once(text, capsys):
    file = settings.progress_file()
    file.write_text(text)
    keeping.record(fed("right"))
    keeping.load()
    assert keeping.load()["01.q1"].status == "right"
    assert file.with_name("progress.json.damaged").read_text() == text
    assert capsys.readouterr().out.count("was damaged") == 1
    file.write_text("again")
    keeping.load()
    assert file.with_name("progress.json.damaged").read_text() == text
    assert file.with_name("progress.json.damaged-2").read_text() == "again"


def test_a_file_that_is_no_text_is_set_aside():
    settings.progress_file().write_bytes(b"\xff\xfe\x00")
    assert keeping.load() == {}
    assert settings.progress_file().with_name("progress.json.damaged").exists()


def test_a_newer_course_s_file_is_left_alone(capsys):
    text = keeping.as_json({}).replace('"version": 1', '"version": 2')
    settings.progress_file().write_text(text)
    keeping.record(fed("right"))
    assert settings.progress_file().read_text() == text
    assert "update the course" in capsys.readouterr().out
    assert keeping.load()["01.q1"].status == "right"


def test_a_home_that_cannot_be_written_is_told_once_and_stops_nobody(
    capsys, monkeypatch, tmp_path
):
    (tmp_path / "a file").write_text("")
    place = tmp_path / "a file" / "progress.json"
    monkeypatch.setenv(settings.PROGRESS_VARIABLE, str(place))
    qc.check("01.q1", double)
    qc.check("01.q1", double)
    qc.hint("01.q1")
    out = capsys.readouterr().out
    assert out.count("for this session only") == 1
    assert settings.PROGRESS_VARIABLE in out
    assert "1 of 1 right" in str(qc.progress())


def test_a_lock_that_stays_closed_stops_nobody(capsys, monkeypatch):
    from filelock import FileLock

    keeping.record(fed())
    monkeypatch.setattr(keeping, "WAIT_SECONDS", 0.1)
    with FileLock(f"{settings.progress_file()}.lock"):
        keeping.record(fed("right"))
        assert keeping.load()["01.q1"].status == "right"
    assert "another program holds progress.json.lock" in capsys.readouterr().out


def test_no_home_at_all_stops_nobody(capsys, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(settings, "progress_file", homeless)
    keeping.record(fed("right"))
    assert keeping.load()["01.q1"].status == "right"
    assert capsys.readouterr().out.count("Could not determine home") == 2


# Its picture


def test_progress_is_a_picture_of_lessons_and_outcomes():
    keeping.record(fed(mistake="a"))
    shown = qc.progress()
    text, html = str(shown), shown._repr_mimebundle_()["text/html"]
    assert "Your exercises: 0 of 1 right, 1 not yet." in text
    assert "lesson 01" in text
    assert "outcome 5: weigh size, quality and speed" in text
    assert "no question yet" in text
    assert 'aria-label="lesson 01: 0 of 1 right, 1 not yet. 01.q1 not yet"' in html
    assert "01.q1 Double it: not yet, tries: 1, hints: 0" in html
    assert html.count("✗") == 2


def luminance(colour):
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["to do", "not yet", "right"])
def test_white_signs_can_be_read_on_every_colour(name):
    """4.5 to 1, as the guidelines of the web ask for small text."""
    colour, _ = picture.LOOK[name]
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_progress_travels_to_another_machine(monkeypatch, tmp_path):
    for said in (fed(mistake="a"), fed(mistake="a"), fed("right"), fed(id="01.q2")):
        keeping.record(said)
    qc.progress().export(tmp_path / "ada.json", learner="Ada")
    exported = json.loads((tmp_path / "ada.json").read_text(encoding="utf-8"))
    assert exported["learner"] == "Ada"
    monkeypatch.setenv(settings.PROGRESS_VARIABLE, str(tmp_path / "other.json"))
    for said in (fed(mistake="b"), fed("right", id="01.q2")):
        keeping.record(said)
    keeping.record_hint("01.q1")
    assert "1 of 1 right" in str(qc.progress().import_from(tmp_path / "ada.json"))
    kept = keeping.load()
    first = kept["01.q1"]
    assert (first.status, first.tries, first.hints) == ("right", 3, 1)
    assert first.mistakes == {"a": 2, "b": 1}
    assert first.first_right == exported["questions"]["01.q1"]["first_right"]
    assert kept["01.q2"].status == "right"
    assert keeping.read_file(tmp_path / "ada.json")["01.q2"].status == "not yet"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "it is no JSON"),
        ("{}", 'its "format" is not "qwen-course progress"'),
        (
            keeping.as_json({"01.q1": keeping.Kept(tries="3")}),
            "01.q1: \"tries\" is '3'",
        ),
        (keeping.as_json({"q1": keeping.Kept()}), '"q1" is no question such as'),
        (keeping.as_json({}).replace(": 1", ": 2"), "update the course"),
        ("x" * 5_000_001, "more than 5 MB"),
    ],
)
def test_a_file_that_is_no_progress_is_refused(tmp_path, text, words):
    file = tmp_path / "ada.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match="ada.json") as raised:
        qc.progress().import_from(file)
    assert words in str(raised.value)
    assert keeping.load() == {}


def test_a_file_that_cannot_be_exported_is_named(tmp_path):
    with pytest.raises(ValueError, match="name a file in a folder that is there"):
        qc.progress().export(tmp_path / "no" / "ada.json")


# The builder

ANSWER = '''\
import math


def double(x):
    """Return twice x."""
    ### STUB: return ...
    ### BEGIN SOLUTION
    twice = math.fsum([x, x])
    return twice
    ### END SOLUTION'''
ABOUT = {"question": "02.q1", "difficulty": "core", "minutes": 12, "outcome": 1}


def cell(name, source, **metadata):
    return new_code_cell(source, id=name, metadata=metadata)


def text(name, source, **metadata):
    return new_markdown_cell(source, id=name, metadata=metadata)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write a course with one lesson and its solution notebook; return that."""
    monkeypatch.setattr(notebooks, "BOOTSTRAP", "import qwen_course as qc")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)

    def make(*more, answer=ANSWER, about=ABOUT, task="## Question 1 · Double it"):
        path = tmp_path / "solutions" / "02_trial.ipynb"
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        (tmp_path / "notebooks" / path.name).touch()
        cells = [
            text("q1", task),
            cell("q1-answer", answer, qwen_course=about),
            cell("q1-check", 'qc.check("02.q1", double)'),
            text("q1-why", "Because it is so.", tags=["solution"]),
            *more,
            text("done", "Done."),
            cell("progress", "qc.progress()"),
        ]
        notebook = new_notebook(cells=cells)
        notebook.metadata["qwen_course"] = {"title": "Exercises: a trial"}
        printed = new_output("stream", name="stdout", text="return twice")
        notebook.cells[1].outputs = [printed]
        notebook.cells[1].execution_count = 3
        notebooks.write(path, notebook)
        return path

    return make


def test_a_learner_gets_the_stub_in_the_place_of_the_solution(make, tmp_path):
    path = make()
    assert build.build(tmp_path) == [path, build.target(path)]
    assert build.build(tmp_path) == []
    solution, learner = notebooks.read(path), notebooks.read(build.target(path))
    cells = {one.id: one for one in learner.cells}
    assert cells["q1-answer"].source == (
        'import math\n\n\ndef double(x):\n    """Return twice x."""\n    return ...'
    )
    assert [one.id for one in solution.cells if one.id != "q1-why"] == list(cells)
    assert cells["q1-answer"].metadata == {"qwen_course": ABOUT}
    for one in (*solution.cells, *learner.cells):
        if one.cell_type == "code":
            assert (one.outputs, one.execution_count) == ([], None)
    for edition in (path, build.target(path)):
        assert notebook_rules.problems(edition) == []


def test_the_header_says_how_it_works_and_lists_the_questions(make, tmp_path):
    path = make()
    build.build(tmp_path)
    solution, learner = (
        notebooks.read(one).cells[0].source for one in (path, build.target(path))
    )
    row = "| [Question 1 · Double it](#Question-1-·-Double-it) | core | 12 | 1: explain"
    for header in (solution, learner):
        assert header.startswith("# 02 · Exercises: a trial\n")
        assert "(../notebooks/02_trial.ipynb)" in header
        assert row in header
        assert "qc.check" in header
        assert "qc.hint" in header
    assert "/exercises/02_trial.ipynb)" in learner
    assert "(../exercises/02_trial.ipynb)" in solution


def test_several_stub_lines_keep_their_indentation():
    source = (
        "x = 1\n### STUB: for _ in ...:\n### STUB:     pass\n### BEGIN SOLUTION\n"
        "x = 2\n\n### END SOLUTION\nprint(x)\n"
    )
    made = build.learner_source(source)
    assert made == "x = 1\nfor _ in ...:\n    pass\nprint(x)"


S, B, E = "### STUB: x = ...", build.BEGIN, build.END
MALFORMED = [
    (f"{S}\n{B}\nx = 1", f'"{E}" is missing'),
    (f"{S}\n{B}\n{S}\n{B}\nx = 1\n{E}", "inside a solution"),
    (f"{S}\n{B}\n{B}\nx = 1\n{E}\n{E}", f'line 3: "{B}" inside a solution'),
    (f"{E}\n{S}\n{B}\nx = 1\n{E}", f'line 1: "{E}" before its'),
    (f"{S}\n{B}\nx = 1\n{E}\n{E}", f'line 5: "{E}" before its'),
    (f"{B}\nx = 1\n{E}", "above this solution"),
    (f"{S}\n{B}\nx = 1\n{E}\n{B}\ny = 1\n{E}", "line 5: no"),
    (f"{S}\nx = 1", f'"{B}" is missing'),
    ("x = 1", f'an answer without "{B}"'),
    (f"{S}\n### BEGIN SOLUTIONS\nx = 1\n{E}", '"### BEGIN SOLUTIONS" is no marker'),
    (f"{S}\n# BEGIN SOLUTION\nx = 1\n# END SOLUTION", "is no marker"),
    (f"{S}\n###BEGIN SOLUTION\nx = 1\n{E}", "is no marker"),
    (f"{S}\n### begin solution\nx = 1\n{E}", "is no marker"),
    (f"{S}\n#### BEGIN SOLUTION\nx = 1\n{E}", "is no marker"),
    (f"{S}\n{B}\nx = 1\n### END", "is no marker"),
    (f"### STUB x = ...\n{B}\nx = 1\n{E}", "is no marker"),
    (f"# STUB: x = ...\n{B}\nx = 1\n{E}", "is no marker"),
    (f"### STUB:\n{B}\nx = 1\n{E}", "is no marker"),
    (f"{S}\n{B}: all of it\nx = 1\n{E}", "is no marker"),
]


@pytest.mark.parametrize(
    ("answer", "words"), MALFORMED, ids=[str(n) for n in range(len(MALFORMED))]
)
def test_malformed_markers_are_refused_with_notebook_and_cell(make, answer, words):
    with pytest.raises(build.BuildError) as raised:
        build.learner_edition(make(answer=answer))
    assert str(raised.value).startswith('02_trial.ipynb, cell "q1-answer": ')
    assert words in str(raised.value)


def test_a_solution_in_a_text_is_refused(make):
    words = 'cell "note": markers in a text; tag the whole cell'
    with pytest.raises(build.BuildError, match=words):
        build.learner_edition(make(text("note", f"{B}\nIt is 3.\n{E}")))


@pytest.mark.parametrize(
    "leak",
    [
        text("note", "Write `twice = math.fsum([x, x])`."),
        text("note", "Like this:\n\n    return twice"),
        cell("more", "print(3)", alt="twice = math.fsum([x, x])"),
    ],
)
def test_a_line_of_a_solution_elsewhere_is_a_leak(make, leak):
    with pytest.raises(build.BuildError, match="gives away a solution"):
        build.learner_edition(make(leak))


def test_the_leak_guard_looks_for_itself(make):
    """It does not trust the code that takes the solutions out."""
    solution = build.solution_edition(make())
    learner = build.learner_edition(make())
    assert build.leaks(solution, learner) == []
    assert build.strangers(solution, learner) == []
    leaked = build.leaks(solution, solution)
    assert 'cell "q1-answer" gives away a solution: return twice' in leaked
    assert 'cell "q1-why" gives away a solution: Because it is so.' in leaked
    learner.cells[3].source += "\n    return 3"
    assert "return 3" in "".join(build.strangers(solution, learner))


def test_lines_that_other_code_has_too_are_no_secret(make):
    other = cell("other", "import json\nprint(json)")
    answer = f"{S}\n{B}\nimport json\nx = [\n    1,\n]\n{E}\ndouble = x"
    build.learner_edition(make(other, answer=answer))


@pytest.mark.parametrize(
    ("about", "task", "words"),
    [
        ({}, None, 'has no "question"'),
        ({**ABOUT, "minutes": 0}, None, 'has no "minutes"'),
        ({**ABOUT, "outcome": 6}, None, '"outcome" is 6'),
        ({**ABOUT, "question": "03.q1"}, None, "it holds 03.q1"),
        (ABOUT, "# Double it", 'no cell "q1" with "## Question 1'),
    ],
)
def test_a_question_without_its_facts_is_refused(make, about, task, words):
    given = {"about": about} | ({"task": task} if task else {})
    with pytest.raises(build.BuildError) as raised:
        build.learner_edition(make(**given))
    assert words in str(raised.value)
    assert '02_trial.ipynb, cell "q1-answer"' in str(raised.value)


def test_check_names_what_differs(make, tmp_path, capsys):
    path = make()
    assert build.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "solutions/02_trial.ipynb" in said
    assert "exercises/02_trial.ipynb" in said
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    build.target(path).with_name("03_stray.ipynb").write_text("{}")
    capsys.readouterr()
    assert build.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines()[0] == (
        "exercises/03_stray.ipynb differs from its solution notebook."
    )


def test_the_command_names_a_notebook_that_makes_no_exercise(make, capsys):
    make(answer="x = 1")
    assert build.main([]) == 1
    assert '02_trial.ipynb, cell "q1-answer"' in capsys.readouterr().err


# How exercise notebooks ask


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda cells: cells.pop(4), "question 02.q1 is not q1, q1-answer, q1-check"),
        (lambda cells: cells.pop(5), "question 02.q1 is not"),
        (lambda cells: cells[4].update(source='qc.check("02.q2", x)'), "q1-check"),
        (lambda cells: cells.pop(), 'does not end in "done" and "progress"'),
        (lambda cells: cells[2].metadata.update(tags=["solution"]), 'cell "q1"'),
    ],
)
def test_a_question_that_is_not_asked_like_the_others_is_found(
    make, tmp_path, spoil, words
):
    path = make()
    build.build(tmp_path)
    notebook = notebooks.read(path)
    spoil(notebook.cells)
    found = "\n".join(rules.asks_as_every_exercise_does(path, notebook))
    assert words in found


def said(words):
    return [{"output_type": "display_data", "data": {"text/plain": words}}]


@pytest.mark.parametrize(
    ("folder", "outputs", "fine"),
    [
        ("solutions", said("✓ 02.q1 Double it: right. Yes."), True),
        ("solutions", said("✓ 02.q2 Double it: right. Yes."), False),
        ("solutions", said("✗ 02.q1 Double it: not yet. No."), False),
        ("solutions", [], False),
        ("exercises", said("○ 02.q1 Double it: to do. Go."), True),
        ("exercises", said("✓ 02.q1 Double it: right. Yes."), False),
        ("notebooks", [], True),
    ],
)
def test_a_check_says_right_in_a_solution_and_to_do_in_an_exercise(
    folder, outputs, fine
):
    check = cell("q1-check", 'qc.check("02.q1", double)')
    problem = rules.unexpected(Path(folder) / "02_trial.ipynb", check, outputs)
    assert (problem is None) == fine


# The stored notebooks


@pytest.fixture
def real(monkeypatch):
    monkeypatch.undo()


def test_every_lesson_with_exercises_has_both_editions(real):
    names = [path.name[:2] for path in build.solutions()]
    assert names == question.lessons()
    assert [path.name for path in (ROOT / "exercises").glob("*.ipynb")] != []
    for path in build.solutions():
        assert build.target(path).is_file()
        assert (ROOT / "notebooks" / path.name).is_file()


def test_the_stored_editions_are_what_the_builder_writes(real):
    assert build.differing() == []


NBVAL = ["--nbval-lax", "--nbval-current-env", "-q", "-p", "no:cacheprovider"]


def test_nbval_fails_where_a_check_says_something_else(make, tmp_path):
    """The real question 01.q1, in a kernel: not answered, so a solution fails."""
    paths = [tmp_path / name / "01_trial.ipynb" for name in rules.EXPECTED]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        check = cell("q1-check", 'import qwen_course as qc\nqc.check("01.q1", ...)')
        notebooks.write(path, notebooks.clean(new_notebook(cells=[check])))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "pytest", "-p", "verdicts", *NBVAL]
    done = subprocess.run(
        [*command, *map(str, paths)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=200,
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert '"q1-check" is not "right" but says: ○ 01.q1' in done.stdout


def test_the_plugin_that_reads_the_checks_is_there(pytestconfig):
    assert any(
        getattr(plugin, "__name__", "") == "verdicts"
        for plugin in pytestconfig.pluginmanager.get_plugins()
    )


LOOP = """
import time, qwen_course as qc
from qwen_course.exercises import limits
limits.SECONDS = 0.5
def count_parameters(config):
    while True:
        try:
            time.sleep(0.1)
        except:
            pass
qc.check("01.q1", count_parameters)
"""


def test_an_endless_loop_in_a_notebook_leaves_the_kernel_alive(make, tmp_path):
    path = tmp_path / "notebooks" / "01_trial.ipynb"
    path.parent.mkdir()
    notebook = new_notebook(cells=[cell("loop", LOOP), cell("after", "print(1 + 1)")])
    notebooks.write(path, notebook)
    done, _ = notebooks.execute(path, notebooks.read(path), timeout=250)
    (shown,) = done.cells[0].outputs
    assert "was not done in time" in shown.data["text/plain"]
    assert "not yet</b>" in shown.data["text/html"]
    assert done.cells[1].outputs[0].text == "2\n"
