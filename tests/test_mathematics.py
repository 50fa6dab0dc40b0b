"""Mathematics problems: every step is right, every program prints what is written."""

import doctest
import random
import subprocess
import sys
from string import Formatter

import pytest

from qwen_course.steps import boxed, check_steps
from qwen_course.tasks import mathematics
from qwen_course.tasks.mathematics import (
    COT,
    KINDS,
    OUTPUT,
    TIR,
    calculus,
    equations,
    growth,
    programs,
    wordings,
    writing,
)

FORMS = [(kind, hard) for kind in KINDS for hard in (False, True)]


@pytest.mark.parametrize(
    "module", [mathematics, calculus, equations, programs, writing]
)
def test_the_examples_in_the_docstrings_are_true(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def drawn(n: int, **options) -> list:
    """Return problems of both splits."""
    return [
        problem
        for split in ("train", "test")
        for problem in mathematics.problems(n, seed=7, split=split, **options)
    ]


@pytest.mark.parametrize(("kind", "hard"), FORMS)
def test_every_answer_is_graded_as_right_and_every_line_of_it_is_right(kind, hard):
    for problem in drawn(12, kind=kind, hard=hard):
        assert problem.grade(problem.answer), problem
        steps = check_steps(problem.answer)
        assert [step for step in steps if step.right is False] == []
        # The first line is given; what no solution means is not computed.
        assert sum(step.right is None for step in steps) <= 1, steps


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_with_a_program_is_graded_as_right(kind):
    for problem in drawn(25, kind=kind, tools=True):
        assert problem.grade(problem.answer), problem
        assert problem.system == TIR
        assert f"{OUTPUT}{problem.output}\n```" in problem.answer


def test_the_programs_print_what_the_answers_say():
    """The outputs are worked out without running anything; here all are run."""
    problems = [
        problem
        for kind, hard in FORMS
        for problem in mathematics.problems(9, kind=kind, tools=True, hard=hard)
    ]
    script = "\n".join(f"exec({p.program!r})\nprint('---')" for p in problems)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    outputs = [text.strip() for text in result.stdout.split("---\n")[:-1]]
    assert outputs == [problem.output for problem in problems]


def test_training_and_test_share_no_problem_and_no_polynomial():
    """A polynomial to differentiate may not return with its critical points."""
    sides: dict[str, set] = {}
    for split in ("train", "test"):
        problems = mathematics.problems(1500, seed=1, split=split)
        sides[split] = {
            ("polynomial", *problem.content[1:-1])
            if problem.content[0] in ("derivative", "critical")
            else problem.content[:-1]
            for problem in problems
        }
    assert not sides["train"] & sides["test"]


def test_half_of_the_test_questions_have_words_of_their_own():
    test = mathematics.problems(300, seed=2)
    assert 0.35 < sum(problem.new_wording for problem in test) / 300 < 0.65
    train = mathematics.problems(300, seed=2, split="train")
    assert not any(problem.new_wording for problem in train)
    for kind, texts in wordings.TEST.items():
        assert not set(texts) & {*wordings.TRAIN[kind], *wordings.COMPOSED[kind]}


@pytest.mark.parametrize("kind", wordings.COMPOSED)
def test_composed_wordings_are_whole_sentences_with_all_that_the_others_name(kind):
    def names(text):
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    needed = set.intersection(*map(names, wordings.TRAIN[kind]))
    for text in wordings.COMPOSED[kind]:
        assert names(text) >= needed
        assert names(text) <= {*needed, "name", "is_", "poly"}
        assert text.endswith((".", "?"))
        assert "  " not in text


def test_half_of_the_training_questions_are_composed():
    rng = random.Random(1)
    drawn = [wordings.choose("derivative", rng, "train", False) for _ in range(400)]
    composed = set(wordings.COMPOSED["derivative"])
    assert 150 < sum(text in composed for text in drawn) < 250
    tested = {wordings.choose("derivative", rng, "test", new) for new in (0, 1) * 200}
    assert tested == {*wordings.TRAIN["derivative"], *wordings.TEST["derivative"]}


def test_the_example_of_the_course_is_worked_to_the_end():
    worked = calculus.worked_cubic((1, 2, -5, 3))
    text = mathematics.answer(worked, terms=True)
    for line in (
        "d/dx(2x^2) = 2*2x = 4x",
        "f'(x) = 3x^2 + 4x - 5",
        "D = 4^2 - 4*3*(-5) = 16 - 12*(-5) = 16 + 60 = 76",
        "sqrt(76) = sqrt(4*19) = 2*sqrt(19)",
        "x = (-4 ± 2*sqrt(19))/6 = (-2 ± sqrt(19))/3",
        "f''(x1) = 2*(-2 - sqrt(19)) + 4 = -2*sqrt(19) < 0: maximum at x1",
        "f''(x2) = 2*(-2 + sqrt(19)) + 4 = 2*sqrt(19) > 0: minimum at x2",
    ):
        assert line in text
    assert boxed(text) == "x = (-2 ± sqrt(19))/3"


@pytest.mark.parametrize(
    ("f", "answer"),
    [
        ((1, 3, -9, 1), "x = -3, x = 1"),
        ((1, 0, 0, 5), "x = 0"),
        ((1, 0, 1, 0), "no critical points"),
        ((-1, 0, 12, 0), "x = -2, x = 2"),
        ((1, 0, -6, 0), "x = ±sqrt(2)"),
        ((2, -3, -1, 0), "x = (3 ± sqrt(15))/6"),
    ],
)
def test_cubics_of_every_sort(f, answer):
    worked = calculus.worked_cubic(f)
    assert worked.boxed == answer
    assert all(s.right is not False for s in check_steps(mathematics.answer(worked)))


@pytest.mark.parametrize(
    ("left", "right", "answer"),
    [
        ((5, 3), (2, -9), "x = -4"),
        ((2, 1), (2, 3), "no solution"),
        ((2, 1), (2, 1), "all real numbers"),
        ((-3, 0), (0, 7), "x = -7/3"),
        ((2, 1), (1, 1), "x = 0"),
    ],
)
def test_linear_equations_of_every_sort(left, right, answer):
    worked = equations.worked_linear(left, right)
    assert worked.boxed == answer
    assert all(s.right is not False for s in check_steps(mathematics.answer(worked)))


def test_every_line_of_a_drill_is_right():
    rng = random.Random(3)
    for _ in range(60):
        problem = mathematics.make_drill(rng)
        assert {step.right for step in check_steps(problem.answer)} == {True}
    single = mathematics.make_drill(rng, number=1)
    assert single.grade(single.answer)


def test_growth_is_compound():
    worked = growth.worked_compound([20_000, 21_000, 22_050], 5)
    assert worked.boxed == "22050"
    assert "21000*5/100 = 105000/100 = 1050" in worked.steps[2]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("derivative", "The derivative is \\boxed{x^7}."),
        ("critical points, cubic", "\\boxed{x = 1000}"),
        ("critical points, cubic", "\\boxed{}"),
        ("quadratic equation", "\\boxed{x = 17, x = 18}"),
        ("linear equation", "\\boxed{no solution}"),
        ("growth", "\\boxed{1}"),
    ],
)
def test_typical_wrong_answers_are_wrong(kind, wrong):
    for problem in mathematics.problems(20, kind=kind):
        if problem.expected == boxed(wrong):
            continue
        assert not problem.grade(wrong)
        # The right value without its box, and one of two solutions, do not count.
        assert not problem.grade(problem.expected)
        if ", " in problem.expected:
            assert not problem.grade(f"\\boxed{{{problem.expected.split(', ')[0]}}}")


def test_the_prompt_carries_one_of_the_system_prompts_of_qwen_math():
    systems = {problem.system for problem in mathematics.problems(80)}
    assert systems == {COT, ""}
    problem = next(p for p in mathematics.problems(20) if p.system == COT)
    assert [message["role"] for message in problem.prompt] == ["system", "user"]


def test_a_function_keeps_the_name_it_has_in_the_question():
    problems = mathematics.problems(60, kind="derivative")
    named = [problem for problem in problems if "g(x)" in problem.question]
    assert named
    assert all("g'(x) = " in problem.answer for problem in named)
    assert all("f(x)" not in problem.answer for problem in named)


def test_the_same_seed_gives_the_same_problems():
    one, again = (mathematics.problems(30, seed=5) for _ in range(2))
    assert one == again
    assert one != mathematics.problems(30, seed=6)


def test_an_unknown_kind_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match="derivative, critical points"):
        mathematics.problems(1, kind="integral")
    with pytest.raises(ValueError, match="train, test"):
        mathematics.problems(1, split="dev")


def test_hard_problems_go_beyond_the_numbers_of_training():
    for kind in set(KINDS) - {"growth"}:
        train = mathematics.problems(300, seed=1, split="train", kind=kind)
        largest = max(_size(problem) for problem in train)
        hard = mathematics.problems(60, seed=1, kind=kind, hard=True)
        assert max(_size(problem) for problem in hard) > largest


def test_hard_growth_has_other_rates_or_more_doublings():
    for problem in mathematics.problems(40, kind="growth", hard=True):
        name, _, size, times = problem.content[:4]
        assert times > 5 if name != "compound" else abs(size) in growth.HARD_RATES
    assert not set(growth.HARD_RATES) & set(growth.RATES)


def _size(problem) -> int:
    return max(abs(n) for n in problem.content if isinstance(n, int))


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("caret", "-x^3 + 2x - 5"),
        ("superscript", "-x³ + 2x - 5"),
        ("tight", "-x^3+2x-5"),
        ("python", "-x**3 + 2*x - 5"),
    ],
)
def test_polynomials_are_written_as_people_write_them(style, text):
    assert writing.polynomial((-1, 0, 2, -5), style) == text


def test_square_parts():
    for number in range(1, 400):
        root, rest = writing.square_part(number)
        assert root * root * rest == number
        assert all(rest % (n * n) for n in range(2, 20))


def test_drawing_needs_no_sympy(monkeypatch):
    """Light: sympy is asked for irrational roots of a program alone."""
    monkeypatch.setitem(sys.modules, "sympy", None)
    rng = random.Random(0)
    for kind in KINDS:
        mathematics.make(rng, kind)
    assert programs.printed_roots(1, 2, -3) == "[-3, 1]"


def test_words_around_a_question_are_of_training_alone():
    def dressed(split):
        asked = [one.question for one in mathematics.problems(200, split=split)]
        opened = sum(text.startswith(wordings.OPENINGS) for text in asked)
        return opened, sum(text.endswith(wordings.ENDINGS) for text in asked)

    opened, ended = dressed("train")
    assert opened > 20
    assert ended > 10
    assert dressed("test") == (0, 0)
