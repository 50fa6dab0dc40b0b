"""The checker of steps: finds what is wrong, and no text can hurt it."""

import doctest
import time

import pytest

from qwen_course import expressions, steps
from qwen_course.steps import boxed, check_steps, majority_box, same_value, wrong_steps


@pytest.mark.parametrize("module", [expressions, steps])
def test_the_examples_in_the_docstrings_are_true(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = -3, x = 1", "x = 1, x = -3"),
        ("x = -3 or x = 1", "x = 1, x = -3"),
        (r"\{-3, 1\}", "x = -3, x = 1"),
        ("[-3, 1]", "x = -3, x = 1"),
        ("0.5", "1/2"),
        (r"\frac{1}{2}", "x = 1/2"),
        (r"x = \dfrac{-2 \pm \sqrt{19}}{3}", "x = (-2 ± sqrt(19))/3"),
        ("x = -2/3 + sqrt(19)/3, x = -sqrt(19)/3 - 2/3", "x = (-2 ± sqrt(19))/3"),
        ("x = ±√2", "x = -sqrt(2), x = sqrt(2)"),
        ("sqrt(8)", "2*sqrt(2)"),
        ("f'(x) = 3x² + 4x − 5", "3x^2 + 4x - 5"),
        ("3*x**2 + 4*x - 5", "4x - 5 + 3x^2"),
        ("(x - 1)(x + 3)", "x^2 + 2x - 3"),
        ("23,152", "23152"),
        ("No real solutions", "no real solution"),
        (r"\text{no solution}", "no solution"),
        ("all real numbers", "all real x"),
        ("x = 2, x = 2", "x = 2"),
    ],
)
def test_answers_of_one_value_in_several_notations(one, other):
    assert same_value(one, other)
    assert same_value(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = -3", "x = -3, x = 1"),
        ("x = -3, x = 1, x = 2", "x = -3, x = 1"),
        ("3x^2 + 4x", "3x^2 + 4x - 5"),
        ("no real solution", "x = 1"),
        ("x = 1", "all real numbers"),
        ("sqrt(2)", "1.41421356"),
        ("1/3", "0.3333333333"),
        ("", "0"),
        ("x", "y"),
        ("the answer", "3"),
    ],
)
def test_answers_of_another_value(one, other):
    assert not same_value(one, other)
    assert not same_value(other, one)


HOSTILE = [
    "9^9^9^9",
    "9**9**9**9",
    "((((9^16)^16)^16)^16)",
    "(x + y + z)^99",
    "(a+b+c+d+e+f+g+h)^16",
    "(" * 5000,
    "((((((((((((((((1))))))))))))))))",
    "9" * 5000,
    "1" * 100 + "^2",
    "x" * 5000,
    "sqrt(" * 40 + "2" + ")" * 40,
    "__import__('os').system('true')",
    "lambda: 0",
    "1/0",
    "1/(x - x)",
    "0/0",
    "sqrt(-1)",
    "± ± ±",
    "2 ± 3 ± 4",
    "factorial(99999999)",
    "x = " * 100,
    "\\frac{" * 400,
    "{" * 3000 + "}" * 3000,
    "\x00\ufdd0\u202e",
    "🙂",
    "1 = 2 = 3 = 4",
    "+".join(f"sqrt({n})" for n in range(2, 40)),
    "*".join(f"(1+sqrt({n}))" for n in range(2, 30)),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_takes_long_or_raises(text):
    started = time.process_time()
    assert not same_value(text, "3")
    assert not same_value(f"x = {text}, x = 1", "x = 3, x = 1")
    lines = ("f(x) = {}", "f'(x) = {}", "{} = {}", "D = {}", "x = {}", "f''({}) = 1",
             "d/dx({}) = 1", "\\boxed{{{}}}")  # fmt: skip
    check_steps("\n".join(line.format(text, text) for line in lines))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("answer", "inside"),
    [
        (r"So \boxed{3}.", "3"),
        (r"\boxed{1} and then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3", None),
        ("no box", None),
        ("", None),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_box_is_read(answer, inside):
    assert boxed(answer) == inside


def test_a_wrong_line_is_found_and_what_follows_from_it_is_not_blamed():
    answer = "16 + 60 = 66\nsqrt(66) = sqrt(66)\n8 - 2 = 6"
    assert [step.right for step in check_steps(answer)] == [False, True, True]


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("d/dx(2x^2) = 2*2x = 4x^2", "d/dx(2x^2) = 2*2x = 4x^2"),
        ("f(x) = x^3\nf'(x) = 3x", "f'(x) = 3x"),
        ("f(x) = x^2 - 6x\nf'(x) = 2x - 6\nf''(x) = 3", "f''(x) = 3"),
        ("x^2 - 5x + 6 = 0\nD = 25 - 25 = 0", "D = 25 - 25 = 0"),
        ("x^2 - 5x + 6 = 0\nx1 = 4/2 = 2\nx2 = 8/2 = 4", "x2 = 8/2 = 4"),
        ("5x + 3 = 18\n5x = 18 + 3 = 21", "5x = 18 + 3 = 21"),
        ("5x + 3 = 18\n5x = 18 - 3 = 14", "5x = 18 - 3 = 14"),
        ("3x = 12\nx = 12/3 = 3", "x = 12/3 = 3"),
        ("sqrt(76) = 2*sqrt(38)", "sqrt(76) = 2*sqrt(38)"),
        ("Year 1: 200*5/100 = 1000/100 = 100", "Year 1: 200*5/100 = 1000/100 = 100"),
        ("2x + 1 = 2x + 3\n0 = 0", "0 = 0"),
        ("2 + 2 = 4 < 3", "2 + 2 = 4 < 3"),
        ("2x = 6\nx = 3\n\\boxed{x = 4}", "\\boxed{x = 4}"),
        ("x^2 - 4 = 0\nx1 = -2\n\\boxed{x = -2}", "\\boxed{x = -2}"),
        ("f(x) = x^2\nf'(x) = 2x\n\\boxed{x^2}", "\\boxed{x^2}"),
        ("3*4 = 12\n\\boxed{13}", "\\boxed{13}"),
        (
            "f(x) = x^2\nf'(x) = 2x\nf''(x) = 2 > 0: maximum at x = 0",
            "f''(x) = 2 > 0: maximum at x = 0",
        ),
        (
            "x^2 + 1 = 0\nD = 0 - 4 = -4 < 0: no real solution\n\\boxed{x = 1}",
            "\\boxed{x = 1}",
        ),
    ],
)
def test_the_mistakes_that_are_made(lines, wrong):
    assert [step.line for step in wrong_steps(lines)] == [wrong]
    assert all(step.why for step in wrong_steps(lines))


def test_what_cannot_be_checked_is_said_to_be_so():
    answer = "Let us see.\nf(x) = x^2\n```python\nprint(1 + 1 == 3)\n1 + 1 = 3\n```"
    assert [step.right for step in check_steps(answer)] == [None] * 6


def test_an_answer_in_the_words_of_a_large_model_is_checked():
    answer = """For f(x) = x³ + 2x² - 5x + 3, we need f'(x).
- d/dx(x³) = 3x²
- d/dx(2x²) = 2 · 2x¹ = 4x
- d/dx(-5x) = -4
Therefore: f'(x) = 3x² + 4x - 5
\\[ f'(x) = 0 \\]
\\[ x = \\frac{-4 \\pm \\sqrt{76}}{6} \\]"""
    assert [step.right for step in check_steps(answer)] == [
        None, True, True, False, True, None, True
    ]  # fmt: skip


def test_an_equation_in_latex_is_checked_too():
    answer = "x^2 = 4\n$x = \\pm 2$\n\\boxed{x = \\pm 2}"
    assert [step.right for step in check_steps(answer)] == [None, True, True]


def test_an_endless_answer_is_refused():
    with pytest.raises(ValueError, match="at most 200"):
        check_steps("1 = 1\n" * 1000)


def test_the_vote_goes_by_value():
    answers = [r"\boxed{3}", r"\boxed{1/2}", r"\boxed{0.5}", "no box"]
    assert majority_box(answers) == "1/2"
    assert majority_box(["", "nothing"]) is None
    assert majority_box([r"\boxed{1}", r"\boxed{2}"]) == "1"
    assert majority_box([r"\boxed{a?}", r"\boxed{a?}", r"\boxed{2}"]) == "a?"
