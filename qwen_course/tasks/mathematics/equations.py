"""Linear and quadratic equations, worked line by line."""

import random
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from qwen_course.tasks.mathematics import programs
from qwen_course.tasks.mathematics.worked import Worked
from qwen_course.tasks.mathematics.writing import (
    Coefficients,
    Surd,
    bracket,
    plus,
    polynomial,
    square_part,
)


def signed(rng: random.Random, low: int, high: int) -> int:
    """Draw a number from low to high, or its negative."""
    return rng.choice((1, -1)) * rng.randint(low, high)


def pick(rng: random.Random, reach: int) -> int:
    """Draw a number from -reach to reach."""
    return rng.randint(-reach, reach)


def divided(name: str, above: int, below: int) -> str:
    """Return a division as a line.

    >>> divided("x", -14, 6), divided("x", 5, 1)
    ('x = -14/6 = -7/3', 'x = 5')
    """
    value = Fraction(above, below)
    fraction = f"{above}/{bracket(below)}"
    if below == 1 or fraction == str(value):
        return f"{name} = {value}"
    return f"{name} = {fraction} = {value}"


@dataclass(frozen=True)
class Roots:
    """The real roots of a quadratic, with the lines that lead to them."""

    steps: tuple[str, ...]
    rational: tuple[Fraction, ...] = ()
    surd: Surd | None = None

    @property
    def number(self) -> int:
        """How many real roots there are."""
        return 2 if self.surd else len(self.rational)

    @property
    def boxed(self) -> str:
        """The roots as an answer; empty when there are none."""
        if self.surd:
            return f"x = {self.surd}"
        return ", ".join(f"x = {x}" for x in self.rational)

    @classmethod
    def of(cls, a: int, b: int, c: int) -> "Roots":
        """Solve a*x^2 + b*x + c = 0 by the discriminant.

        >>> print(*Roots.of(3, 4, -5).steps, sep="\\n")
        D = 4^2 - 4*3*(-5) = 16 - 12*(-5) = 16 + 60 = 76
        sqrt(76) = sqrt(4*19) = 2*sqrt(19)
        x = (-4 ± 2*sqrt(19))/6 = (-2 ± sqrt(19))/3
        """
        common = gcd(a, b, c) * (1 if a > 0 else -1)
        a, b, c = a // common, b // common, c // common
        head = () if common == 1 else (f"{polynomial((a, b, c))} = 0",)
        d = b * b - 4 * a * c
        steps = (*head, _discriminant(a, b, c))
        if d < 0:
            return cls((*steps[:-1], f"{steps[-1]} < 0: no real solution"))
        if d == 0:
            x = Fraction(-b, 2 * a)
            return cls((*steps, divided("x", -b, 2 * a)), (x,))
        s, m = square_part(d)
        if m > 1:
            return _irrational(steps, a, b, d, s, m)
        return _rational(steps, a, b, s)


def _discriminant(a: int, b: int, c: int) -> str:
    product = 4 * a * c
    return (
        f"D = {bracket(b)}^2 - 4*{a}*{bracket(c)} = {b * b} - {4 * a}*{bracket(c)} = "
        f"{b * b} {plus(-product)} = {b * b - product}"
    )


def _rational(steps: tuple[str, ...], a: int, b: int, s: int) -> Roots:
    lines = [f"sqrt({s * s}) = {s}"]
    roots = []
    for number, sign in ((1, "-"), (2, "+")):
        above = -b - s if sign == "-" else -b + s
        line = f"x{number} = ({-b} {sign} {s})/{2 * a} = {above}/{2 * a}"
        value = Fraction(above, 2 * a)
        roots.append(value)
        lines.append(line if line.endswith(f"= {value}") else f"{line} = {value}")
    return Roots((*steps, *lines), tuple(roots))


def _irrational(
    steps: tuple[str, ...], a: int, b: int, d: int, s: int, m: int
) -> Roots:
    plain = Surd(-b, s, m, 2 * a)
    surd = Surd.reduced(-b, s, m, 2 * a)
    lines = [f"sqrt({d}) = sqrt({s * s}*{m}) = {s}*sqrt({m})"] if s > 1 else []
    last = f"x = {plain}"
    if surd != plain:
        last += f" = {surd}"
    return Roots((*steps, *lines, last), surd=surd)


def _draw_quadratic(rng: random.Random, hard: bool) -> Coefficients:
    """Draw a quadratic in reach of the training, or beyond it when `hard`."""
    while True:
        if rng.random() < 0.55:
            reach = 24 if hard else 9
            p, q = rng.choice((1, 1, 1, 2, 3)), rng.choice((1, 1, 1, 2))
            r, s = pick(rng, reach), pick(rng, reach)
            a, b, c = p * q, -(p * s + q * r), r * s
            factor = rng.choice((1, 1, 1, 1, -1, 2, 3))
            a, b, c = a * factor, b * factor, c * factor
        elif hard:
            a, b, c = signed(rng, 3, 9), signed(rng, 10, 25), signed(rng, 10, 25)
        else:
            a, b, c = signed(rng, 1, 4), pick(rng, 9), pick(rng, 12)
        beyond = abs(b) > 24 or abs(c) > 54 or abs(a) > 6
        if beyond == hard or (hard and abs(c) > 12 and abs(b) > 9):
            return a, b, c


def quadratic(rng: random.Random, hard: bool = False) -> Worked:
    """A quadratic equation: rational, irrational or no real solutions."""
    f = _draw_quadratic(rng, hard)
    # A fifth is not sorted yet: what is moved to the right must come back.
    moved = rng.choice(((0, 0), (0, 1), (1, 1))) if rng.random() < 0.3 else (0, 0)
    right = (-f[1] * moved[0], -f[2] * moved[1])
    left = (f[0], f[1] * (1 - moved[0]), f[2] * (1 - moved[1]))
    return worked_quadratic(left, right)


def worked_quadratic(left: Coefficients, right: Coefficients = (0, 0)) -> Worked:
    """Return a quadratic equation, worked step by step."""
    a, b, c = left[0], left[1] - right[0], left[2] - right[1]
    roots = Roots.of(a, b, c)
    first = f"{polynomial(left)} = {polynomial(right)}"
    sorted_ = f"{polynomial((a, b, c))} = 0"
    return Worked(
        "quadratic equation",
        ("quadratic", a, b, c),
        lambda wording, rng: _ask(wording, rng, left, right),
        (*dict.fromkeys((first, sorted_)), *roots.steps),
        roots.boxed or "no real solution",
        "Solution: {}" if roots.number == 1 else
        "Solutions: {}" if roots.number else "There is {}.",
        "I solve the equation with sympy.",
        programs.equation(left, right),
        lambda: programs.printed_roots(a, b, c),
        lambda output: programs.to_solutions(output, "no real solution"),
    )  # fmt: skip


def _ask(
    wording: str, rng: random.Random, left: Coefficients, right: Coefficients
) -> str:
    style = rng.choices(("caret", "superscript", "tight", "python"), (60, 18, 14, 8))[0]
    equals = "=" if style == "tight" and rng.random() < 0.7 else " = "
    text = equals.join((polynomial(left, style), polynomial(right, style)))
    return wording.format(equation=text, left=polynomial(left, style))


def linear(rng: random.Random, hard: bool = False) -> Worked:
    """A linear equation: x on one side, on both, or in brackets."""
    low, high = (25, 99) if hard else (1, 20)
    a = signed(rng, 13 if hard else 2, 40 if hard else 12)
    b, d = signed(rng, low, high), signed(rng, low, high)
    form = rng.choice(("one side", "one side", "both sides", "both sides", "brackets"))
    c = 0 if form == "one side" else signed(rng, 13 if hard else 1, 40 if hard else 12)
    if rng.random() < 0.6:  # a whole number as the solution, where that is possible
        d = _whole(rng, a, b, c, 2 * high) or d
    if form == "brackets":
        b = signed(rng, 13 if hard else 1, 30 if hard else 9)
        return worked_brackets(a, b, c * rng.randint(0, 1), d)
    if form == "both sides" and not hard and rng.random() < 0.08:
        c = a
        d = b if rng.random() < 0.4 else d
    return worked_linear((a, b), (c, d))


def _whole(rng: random.Random, a: int, b: int, c: int, reach: int) -> int | None:
    """Return d such that a*x + b = c*x + d has a whole solution, None if too large."""
    d = (a - c) * pick(rng, 9) + b
    return d if abs(d) <= reach else None


def _tail(left: Coefficients, right: Coefficients) -> tuple[tuple[str, ...], str]:
    """Return the lines from a*x + b = c*x + d to the solution, and the solution."""
    (a, b), (c, d) = left, right
    lines = []
    if c:
        lines.append(f"{polynomial((a, 0))} {_moved(c)} = {d} {plus(-b)}")
        lines.append(f"{polynomial((a - c, 0))} = {d - b}")
        if a == c:
            return tuple(lines), "all real numbers" if b == d else "no solution"
    elif b:
        lines.append(f"{polynomial((a, 0))} = {d} {plus(-b)} = {d - b}")
    if a - c != 1:
        lines.append(divided("x", d - b, a - c))
    return tuple(lines), f"x = {Fraction(d - b, a - c)}"


def _moved(c: int) -> str:
    """Return a term in x that is taken to the other side."""
    return f"{'+' if c < 0 else '-'} {polynomial((abs(c), 0))}"


def _linear(
    question: str, content: tuple, lines: tuple, answer: str, program: tuple
) -> Worked:
    sentences = {"all real numbers": "Solution: {}", "no solution": "There is {}."}
    return Worked(
        "linear equation",
        content,
        lambda wording, rng: wording.format(equation=_roughen(question, rng)),
        (question, *lines),
        answer,
        sentences.get(answer, "Solution: {}"),
        "I solve the equation with sympy.",
        # subtle: sympy's solve prints [] for both, so a program cannot tell them apart.
        () if answer in sentences else program,
        lambda: f"[{answer.removeprefix('x = ')}]",
        programs.to_solutions,
    )


def _roughen(equation: str, rng: random.Random) -> str:
    """Return the equation as some people type it."""
    share = rng.random()
    if share < 0.15:
        return equation.replace(" ", "")
    return equation.replace("x", "*x") if share < 0.2 else equation


def worked_linear(left: Coefficients, right: Coefficients) -> Worked:
    """Return a*x + b = c*x + d, worked step by step.

    >>> print(*worked_linear((5, 3), (2, -9)).steps, sep="\\n")
    5x + 3 = 2x - 9
    5x - 2x = -9 - 3
    3x = -12
    x = -12/3 = -4
    """
    lines, answer = _tail(left, right)
    return _linear(
        f"{polynomial(left)} = {polynomial(right)}",
        ("linear", *left, *right),
        lines,
        answer,
        programs.equation(left, right),
    )


def worked_brackets(a: int, b: int, c: int, d: int) -> Worked:
    """Return a*(x + b) = c*x + d, worked step by step."""
    left, right = (a, a * b), (c, d)
    lines, answer = _tail(left, right)
    return _linear(
        f"{a}(x {plus(b)}) = {polynomial(right)}",
        ("linear", *left, *right),
        (f"{polynomial(left)} = {polynomial(right)}", *lines),
        answer,
        programs.lines_of_equation(f"{a}*(x {plus(b)})", polynomial(right, "python")),
    )
