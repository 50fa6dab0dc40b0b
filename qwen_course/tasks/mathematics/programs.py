"""Tool-integrated reasoning: the programs a model writes, and what they print.

Qwen2.5-Math writes a ```python block, is shown what it prints in an ```output block,
and goes on. What our programs print is worked out here without running them, a
thousand times as fast; a test runs a sample of them and compares.
"""

import functools
from collections.abc import Sequence
from math import isqrt

from qwen_course.tasks.mathematics.writing import join_terms, polynomial


def derivative(f: Sequence[int]) -> tuple[str, ...]:
    """Return a program that prints the derivative."""
    return (
        "from sympy import diff, symbols",
        'x = symbols("x")',
        f"print(diff({polynomial(f, 'python')}, x))",
    )


def critical(f: Sequence[int]) -> tuple[str, ...]:
    """Return a program that prints where the derivative is zero."""
    return (
        "from sympy import diff, solve, symbols",
        'x = symbols("x", real=True)',
        f"f = {polynomial(f, 'python')}",
        "print(solve(diff(f, x), x))",
    )


def equation(left: Sequence[int], right: Sequence[int]) -> tuple[str, ...]:
    """Return a program that prints the real solutions of an equation."""
    return lines_of_equation(polynomial(left, "python"), polynomial(right, "python"))


def lines_of_equation(left: str, right: str) -> tuple[str, ...]:
    """Return the same for two sides that are Python already."""
    return (
        "from sympy import Eq, solve, symbols",
        'x = symbols("x", real=True)',
        f"print(solve(Eq({left}, {right}), x))",
    )


def printed(f: Sequence[int]) -> str:
    """Return a polynomial as sympy prints it: 5 - 3*x**2, but -3*x**2 + 4*x.

    >>> printed((-3, 0, 5)), printed((-3, 4, 5))
    ('5 - 3*x**2', '-3*x**2 + 4*x + 5')
    """
    degree = len(f) - 1
    terms = [(number, degree - place) for place, number in enumerate(f) if number]
    if len(terms) == 2 and terms[0][0] < 0 < f[-1]:
        terms.reverse()
    return join_terms(terms, "python")


@functools.lru_cache(maxsize=4096)
def printed_roots(a: int, b: int, c: int) -> str:
    """Return the real roots of a quadratic as sympy's solve prints them.

    >>> printed_roots(1, 2, -3), printed_roots(1, 0, 1)
    ('[-3, 1]', '[]')
    """
    d = b * b - 4 * a * c
    if d < 0:
        return "[]"
    if isqrt(d) ** 2 == d:
        from fractions import Fraction

        roots = {Fraction(-b + sign * isqrt(d), 2 * a) for sign in (1, -1)}
        return f"[{', '.join(map(str, sorted(roots)))}]"
    from sympy import solve, symbols  # its order of irrational roots is its own

    x = symbols("x", real=True)
    return str(solve(a * x**2 + b * x + c, x))


def to_caret(output: str) -> str:
    """Return a polynomial that Python printed in our notation.

    >>> to_caret("3*x**2 + 4*x - 5")
    '3x^2 + 4x - 5'
    """
    return output.replace("**", "^").replace("*", "")


def to_solutions(output: str, none: str = "no solution") -> str:
    """Return a printed list of solutions as an answer.

    >>> to_solutions("[-3, 1]")
    'x = -3, x = 1'
    """
    inside = output.strip("[]")
    if not inside:
        return none
    return ", ".join(f"x = {part}" for part in inside.split(", "))
