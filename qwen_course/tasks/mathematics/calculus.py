"""Derivatives of polynomials, and critical points of quadratics and cubics."""

import random
from fractions import Fraction

from qwen_course.tasks.mathematics import equations, programs
from qwen_course.tasks.mathematics.equations import Roots, pick, signed
from qwen_course.tasks.mathematics.worked import Worked
from qwen_course.tasks.mathematics.writing import (
    Coefficients,
    bracket,
    derive,
    join_terms,
    plus,
    polynomial,
    power_of_x,
)

STYLES = ("caret", "superscript", "tight", "python")


def derivative(rng: random.Random, hard: bool = False) -> Worked:
    """The derivative of a polynomial of degree 1 to 4, term by term."""
    degree = rng.choice((1, 2, 2, 3, 3, 3, 4, 4))
    low, high = (13, 60) if hard else (1, 12)
    lead = signed(rng, low, 25 if hard else 9)
    rest = [0 if rng.random() < 0.15 else signed(rng, low, high) for _ in range(degree)]
    f = (lead, *rest)
    d = derive(f)
    return Worked(
        "derivative",
        ("derivative", *f),
        lambda wording, rng: _ask(wording, rng, f),
        (f"f(x) = {polynomial(f)}", *term_by_term(f),
         f"f'(x) = {polynomial(d)}"),
        polynomial(d),
        "The derivative is {}.",
        "I differentiate with sympy.",
        programs.derivative(f),
        lambda: programs.printed(d),
        programs.to_caret,
    )  # fmt: skip


def _ask(wording: str, rng: random.Random, f: Coefficients) -> str:
    """Word a question on a function, written in one of the usual ways."""
    style = rng.choices(STYLES, (60, 18, 14, 8))[0]
    degree = len(f) - 1
    terms = [(number, degree - place) for place, number in enumerate(f) if number]
    if rng.random() < 0.06:
        rng.shuffle(terms)
    text = join_terms(terms, style)
    equals = "=" if style == "tight" and rng.random() < 0.5 else " = "
    if rng.random() < 0.04:
        text = text.replace("-", "\N{MINUS SIGN}")
    return wording.format(poly=text, is_=equals)


def term_by_term(f: Coefficients) -> tuple[str, ...]:
    """Return the power rule, one line a term.

    >>> print(*term_by_term((1, 2, -5, 3)), sep="\\n")
    d/dx(x^3) = 3x^2
    d/dx(2x^2) = 2*2x = 4x
    d/dx(-5x) = -5
    d/dx(3) = 0
    """
    degree = len(f) - 1
    terms = [(number, degree - place) for place, number in enumerate(f) if number]
    return tuple(_one_term(number, power) for number, power in terms)


def _one_term(number: int, power: int) -> str:
    head = f"d/dx({join_terms([(number, power)])})"
    if power < 2:
        return f"{head} = {number if power else 0}"
    result = join_terms([(number * power, power - 1)])
    if number in (1, -1):
        return f"{head} = {result}"
    return f"{head} = {number}*{power}{power_of_x(power - 1)} = {result}"


def critical_quadratic(rng: random.Random, hard: bool = False) -> Worked:
    """The critical point of a quadratic, from one linear equation."""
    low, high = (13, 70) if hard else (1, 12)
    a = signed(rng, low if hard else 1, 30 if hard else 6)
    b = 0 if rng.random() < 0.05 else signed(rng, low, high)
    f = (a, b, signed(rng, low, high) if rng.random() < 0.9 else 0)
    x = Fraction(-b, 2 * a)
    kind = "minimum" if a > 0 else "maximum"
    steps = (
        f"f(x) = {polynomial(f)}",
        f"f'(x) = {polynomial(derive(f))}",
        f"{polynomial(derive(f))} = 0",
        *([f"{2 * a}x = {-b}"] if b else []),
        equations.divided("x", -b, 2 * a),
        f"f''(x) = {2 * a} {'>' if a > 0 else '<'} 0: {kind} at x = {x}",
    )
    return Worked(
        "critical points, quadratic",
        ("critical", *f),
        lambda wording, rng: _ask(wording, rng, f),
        steps,
        f"x = {x}",
        "Critical point: {}",
        "I solve f'(x) = 0 with sympy.",
        programs.critical(f),
        lambda: f"[{x}]",
        programs.to_solutions,
        "critical",
        term_by_term(f),
    )


def _with_rational_roots(rng: random.Random, hard: bool) -> Coefficients | None:
    """Return a cubic whose derivative has rational roots, or None for a bad draw."""
    a = signed(rng, 1, 4 if hard else 3)
    reach = 15 if hard else 7
    below = rng.choice((1, 1, 1, 2, 3))
    first = Fraction(rng.randint(-reach * below, reach * below), below)
    second = Fraction(rng.randint(-reach, reach))
    if rng.random() < 0.05:
        second = first
    double_b, c = -3 * a * (first + second), 3 * a * first * second
    if double_b.denominator != 1 or c.denominator != 1 or double_b % 2:
        return None
    return (a, int(double_b) // 2, int(c), pick(rng, 12))


def _with_any_roots(rng: random.Random, hard: bool) -> Coefficients:
    """Return a cubic whose derivative mostly has irrational or complex roots."""
    if hard:
        return (signed(rng, 1, 5), signed(rng, 7, 20), signed(rng, 13, 40),
                pick(rng, 40))  # fmt: skip
    return (signed(rng, 1, 3), pick(rng, 6), signed(rng, 1, 12), pick(rng, 12))


def _draw_cubic(rng: random.Random, hard: bool) -> Coefficients:
    """Draw a cubic in reach of the training, or beyond it when `hard`."""
    while True:
        rational = rng.random() < 0.6
        f = _with_rational_roots(rng, hard) if rational else _with_any_roots(rng, hard)
        if f is None:
            continue
        beyond = abs(f[1]) > 15 or abs(f[2]) > 60
        if beyond == hard or (hard and not rational):
            return f


def critical_cubic(rng: random.Random, hard: bool = False) -> Worked:
    """The critical points of a cubic, with the kind of each."""
    f = _draw_cubic(rng, hard)
    return worked_cubic(f)


def worked_cubic(f: Coefficients) -> Worked:
    """Return the critical points of a cubic, worked step by step.

    >>> worked_cubic((1, 2, -5, 3)).boxed
    'x = (-2 ± sqrt(19))/3'
    """
    d = derive(f)
    roots = Roots.of(*d)
    steps = (
        f"f(x) = {polynomial(f)}",
        f"f'(x) = {polynomial(d)}",
        f"{polynomial(d)} = 0",
        *roots.steps,
        *(_second_derivative(f, roots) if roots.number else ()),
    )
    plural = "Critical point: {}" if roots.number == 1 else "Critical points: {}"
    return Worked(
        "critical points, cubic",
        ("critical", *f),
        lambda wording, rng: _ask(wording, rng, f),
        steps,
        roots.boxed or "no critical points",
        plural if roots.number else "There are {}.",
        "I solve f'(x) = 0 with sympy.",
        programs.critical(f),
        lambda: programs.printed_roots(*d),
        lambda output: programs.to_solutions(output, "no critical points"),
        "critical",
        term_by_term(f),
    )


def _second_derivative(f: Coefficients, roots: Roots) -> tuple[str, ...]:
    slope, constant = derive(derive(f))
    head = f"f''(x) = {polynomial((slope, constant))}"
    if roots.surd:
        lines = _at_surds(roots, slope, constant)
    else:
        lines = tuple(_at(x, slope, constant) for x in roots.rational)
    return (head, *lines)


def _at(x: Fraction, slope: int, constant: int) -> str:
    """Return the second derivative at a rational point, and what that means."""
    product = slope * x
    value = product + constant
    head = f"f''({x}) = {slope}*{bracket(x)}"
    if constant:
        head += f" {plus(constant)} = {product} {plus(constant)}"
    return f"{head} = {value}{verdict(value, f'x = {x}')}"


def verdict(value: int | Fraction, where: str) -> str:
    """Return what the sign of the second derivative says.

    >>> verdict(-12, "x = 1")
    ' < 0: maximum at x = 1'
    """
    if value == 0:
        return ": no maximum or minimum"
    sign, kind = (">", "minimum") if value > 0 else ("<", "maximum")
    return f" {sign} 0: {kind} at {where}"


def _at_surds(roots: Roots, slope: int, constant: int) -> tuple[str, ...]:
    surd = roots.surd
    assert surd
    factor = slope // surd.q
    lines = []
    for number, sign in ((1, "-"), (2, "+")):
        size = factor * surd.s if sign == "+" else -factor * surd.s
        value = f"{'' if size == 1 else '-' if size == -1 else f'{size}*'}"
        value += f"sqrt({surd.m})"
        added = f" {plus(constant)}" if constant else ""
        text = f"{factor}*({surd.numerator(sign)}){added} = {value}"
        lines.append(f"f''(x{number}) = {text}{verdict(size, f'x{number}')}")
    named = (f"x1 = {surd.text('-')}", f"x2 = {surd.text('+')}")
    return (*named, *lines)
