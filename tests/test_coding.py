"""Coding tasks: right references, tests that tell right from wrong, disjoint splits."""

import ast
import builtins
import random
import re
from dataclasses import replace

import pytest

from qwen_course.tasks import coding
from qwen_course.tasks import problem as problems
from qwen_course.tasks.coding import bugs, fim, wordings
from qwen_course.tasks.coding.families import Task, draw_task
from qwen_course.tasks.coding.grading import last_function, styled
from qwen_course.tasks.coding.inputs import KINDS

FAMILIES = coding.families()


def first_task(name: str) -> Task:
    """Return the task of a family with the first option of each parameter."""
    family = FAMILIES[name]
    options = {key: some[0] for key, some in family.parameters.items()}
    choices = tuple((key, option["text"]) for key, option in options.items())
    names = tuple(family.arguments)
    return Task(name, family.functions[0], names, choices, tuple(options.values()))


def test_there_are_the_families_of_the_course_and_many_more():
    assert len(FAMILIES) >= 60
    assert {"median", "binary search", "group words", "prime"} <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_gives_what_the_example_says(name):
    """The example is written by hand: the reference is not its own judge."""
    task, space = first_task(name), {}
    given, expected = FAMILIES[name].example.rsplit(" -> ", 1)
    exec(task.code(hints=True), space)
    assert space[task.name](*ast.literal_eval(f"({given},)")) == eval(expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_wording_says_all_that_the_solution_depends_on(name):
    family = FAMILIES[name]
    assert len(family.wordings) >= 4
    assert family.unseen
    assert not set(family.wordings) & set(family.unseen)
    for text in (*family.wordings, *family.unseen):
        for parameter in family.parameters:
            assert re.search(rf"\${parameter}(_\w+)?\b", text), text


def test_the_median_of_an_empty_list_is_what_was_asked_for():
    task = first_task("median")
    assert "    if not numbers:\n        return None" in task.code()
    assert f"assert {task.name}([]) == None" in task.tests()


def test_names_never_hide_what_the_solution_uses():
    rng = random.Random(0)
    for _ in range(600):
        task = draw_task(rng, "train")
        names = {task.name, *task.arguments}
        assert len(names) == 1 + len(task.arguments)
        assert not names & FAMILIES[task.family].reserved
        assert not any(hasattr(builtins, name) for name in names)


def test_tests_tell_a_task_from_its_neighbours():
    """The solution for another number or another condition must not pass."""
    rng, passed, tried = random.Random(1), [], 0
    for name, family in FAMILIES.items():
        for parameter in family.parameters.keys() - {"how"}:
            task = draw_task(rng, "train", name)
            place = list(family.parameters).index(parameter)
            option = rng.choice(family.parameters[parameter])
            choices, options = list(task.choices), list(task.options)
            choices[place], options[place] = (parameter, option["text"]), option
            other = replace(task, choices=tuple(choices), options=tuple(options))
            if other.code() != task.code():
                tried += 1
                if not bugs.failure(other.code(), task.tests()):
                    passed.append((name, task.choices, other.choices))
    assert tried > 60
    assert len(passed) <= 0.05 * tried, passed


def test_every_task_has_several_hidden_tests_with_different_results():
    rng = random.Random(2)
    for name in FAMILIES:
        tests = draw_task(rng, "test", name).tests()
        assert len(tests) >= 6
        assert len({test.rsplit(" == ", 1)[1] for test in tests}) > 1, name


@pytest.mark.parametrize("kind", coding.KINDS)
def test_training_and_test_problems_are_disjoint(kind):
    """By the content of the task, whatever is asked about it, and in other wordings."""
    rng = random.Random(3)
    trained = [coding.make(rng, kind, "train") for _ in range(300)]
    tested = coding.problems(150, seed=4, kind=kind)
    assert all(problems.split_of(one.task.content) == "train" for one in trained)
    assert all(problems.split_of(one.task.content) == "test" for one in tested)
    assert not {str(one.prompt) for one in trained} & {
        str(one.prompt) for one in tested
    }
    assert not any(one.unseen for one in trained)


def test_unseen_wordings_are_asked_in_tests_alone():
    rng = random.Random(5)
    for problem in (coding.make(rng, "write", "train") for _ in range(500)):
        for text in FAMILIES[problem.task.family].unseen:
            assert problem.task.fill(text) not in problem.question
    asked = coding.problems(200, seed=1, kind="write")
    assert 30 < sum(problem.unseen for problem in asked) < 110


def test_a_problem_depends_on_its_seed_alone():
    first, again = (coding.problems(20, seed=8) for _ in range(2))
    assert [one.question for one in first] == [one.question for one in again]
    assert [one.answer for one in first] == [one.answer for one in again]


@pytest.mark.parametrize("kind", coding.KINDS)
def test_every_worked_answer_is_right(kind):
    asked = coding.problems(60, seed=6, kind=kind)
    grades = coding.grade_all(asked, [problem.answer for problem in asked])
    assert all(grade.right and grade.parses for grade in grades)


def wrong_answers(problem) -> dict[str, str]:
    """Return typical wrong answers to a problem that asks for everything."""
    code = problem.code_of(problem.answer)
    return {
        "no code": "I do not know.",
        "empty": "",
        "cut off": problem.answer[: len(problem.answer) // 2],
        "another name": wordings.fenced(code.replace(problem.task.name, "other")),
        "returns nothing": wordings.fenced(code.replace("return", "print")),
        "a loop": wordings.fenced(code.replace(":\n", ":\n    while True: pass\n", 1)),
    }


@pytest.mark.parametrize("name", ["median", "keep words", "unique"])
def test_typical_wrong_answers_are_wrong(name):
    problem = next(
        one
        for one in coding.problems(40, kind="write", family=name)
        if one.named and len(one.style) == 2
    )
    wrong = wrong_answers(problem)
    grades = coding.grade_all([problem] * len(wrong), list(wrong.values()), seconds=1)
    assert [
        name for name, grade in zip(wrong, grades, strict=True) if grade.right
    ] == []
    assert all(grade.error for grade in grades)


def test_a_function_without_what_was_asked_for_passes_but_is_not_right():
    problem = next(
        one for one in coding.problems(60, kind="write") if len(one.style) == 2
    )
    bare = wordings.fenced(problem.task.code())
    (grade,) = coding.grade_all([problem], [bare])
    assert (grade.passed, grade.styled, grade.right) == (True, False, False)
    assert not problem.grade(bare)
    assert problem.grade(problem.answer)


def test_without_a_signature_any_name_will_do():
    problem = next(one for one in coding.problems(80, kind="write") if not one.named)
    own = problem.answer.replace(problem.task.name, "my_own_name")
    assert problem.grade(own)


def test_prose_around_the_code_does_no_harm():
    problem = coding.problems(1, kind="write")[0]
    assert problem.grade(f"Here you are:\n\n{problem.answer}\n\nIt is quick.")
    assert coding.extract_code("```\nx = 1\n```") == "x = 1"
    assert coding.extract_code("```python\nx = 1") == "x = 1"
    assert coding.extract_code("x = 1") == "x = 1"


def test_a_planted_bug_shows_in_the_error_that_is_quoted():
    for problem in coding.problems(40, seed=2, kind="retry"):
        wrong = coding.extract_code(problem.history[1]["content"])
        error = bugs.failure(wrong, problem.tests)
        assert error
        assert error in problem.question
        assert wrong != coding.extract_code(problem.answer)


def test_the_error_is_what_the_sandbox_says():
    """Training on other words than those of the lesson's loop would be wasted."""
    from qwen_course.sandbox import run_many

    chosen = [
        one for one in coding.problems(40, kind="retry") if "longer" not in one.question
    ]
    jobs = [
        (coding.extract_code(one.history[1]["content"]), one.tests) for one in chosen
    ]
    for problem, result in zip(chosen, run_many(jobs), strict=True):
        assert result.error in problem.question


def test_our_own_loop_without_an_end_is_over_soon():
    code = "def f(n):\n    while n != 1:\n        n += 1\n    return n"
    assert (
        bugs.failure(code, ["assert f(2) == 1"]) == "f(2) took longer than 2 seconds."
    )


@pytest.mark.parametrize("kind", coding.HOLES)
def test_a_hole_is_cut_out_of_the_body_and_fits_back(kind):
    rng = random.Random(0)
    for _ in range(100):
        task = draw_task(rng, "train")
        code = task.code("What it does.", hints=True)
        prefix, middle, suffix = coding.make_hole(code, rng, kind)
        assert prefix + middle + suffix == code
        assert middle.strip()
        assert prefix.startswith(
            f'def {task.signature(True)}:\n    """What it does."""'
        )


def test_the_prompt_for_a_middle_has_the_order_of_qwen():
    prompt = coding.fim_prompt("before", "after")
    assert prompt == "<|fim_prefix|>before<|fim_suffix|>after<|fim_middle|>"
    problem = coding.problems(1, kind="fill in")[0]
    assert problem.question == fim.fim_prompt(problem.prefix, problem.suffix)


def test_docstring_and_hints_are_looked_for_in_the_last_function():
    code = 'def f(x: int) -> int:\n    """Do."""\n    return x'
    assert styled(code, ("docstring", "hints"))
    assert not styled("def f(x): return x", ("hints",))
    assert not styled("def f(x): return x", ("docstring",))
    assert not styled("x = 1", ())
    assert last_function("def a(): pass\ndef b(): pass") == "b"


def test_types_of_arguments_and_results_are_types():
    space = {}
    for name in FAMILIES:
        task = first_task(name)
        for text in (*task.types, task.result):
            eval(text, space)
    assert all(eval(kind.type, space) for kind in KINDS.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coding.problems(1, kind="sing"), "write, fill in, fix, retry"),
        (lambda: coding.problems(1, family="sing"), "median"),
        (lambda: coding.problems(1, split="dev"), "train, test"),
        (lambda: coding.problems(-1), "0 problems or more"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_can(call, message):
    with pytest.raises(ValueError, match=message):
        call()
