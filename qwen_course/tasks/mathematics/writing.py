"""Write polynomials, fractions and roots as people (and as sympy) write them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isqrt

Coefficients = tuple[int, ...]  # of the highest power first: (1, 2, -5, 3)
SUPERSCRIPTS = {2: "²", 3: "³", 4: "⁴"}


def polynomial(coefficients: Sequence[int], style: str = "caret") -> str:
    """Return a polynomial in x as text.

    `style` is "caret" (3x^2 - 5), "superscript" (3x² - 5), "tight" (3x^2-5) or
    "python" (3*x**2 - 5).

    >>> polynomial((1, 2, -5, 3))
    'x^3 + 2x^2 - 5x + 3'
    >>> polynomial((-1, 0, 3), "python")
    '-x**2 + 3'
    """
    degree = len(coefficients) - 1
    terms = [
        (number, degree - place) for place, number in enumerate(coefficients) if number
    ]
    return join_terms(terms, style)


def join_terms(terms: Sequence[tuple[int, int]], style: str = "caret") -> str:
    """Return a sum of terms (coefficient, power), in the given order; "0" if empty.

    >>> join_terms([(3, 0), (-5, 1)])
    '3 - 5x'
    """
    text = ""
    for number, power in terms:
        sign = "-" if number < 0 else "+"
        sign = f" {sign} " if text else sign.strip("+")
        text += sign + _unsigned(abs(number), power, style)
    text = text or "0"
    return text.replace(" ", "") if style == "tight" else text


def _unsigned(number: int, power: int, style: str) -> str:
    if not power:
        return str(number)
    times = "*" if style == "python" else ""
    head = "" if number == 1 else f"{number}{times}"
    return head + power_of_x(power, style)


def power_of_x(power: int, style: str = "caret") -> str:
    """Return x to a power of 1 or more.

    >>> power_of_x(3), power_of_x(1), power_of_x(2, "superscript")
    ('x^3', 'x', 'x²')
    """
    if power == 1:
        return "x"
    if style == "superscript":
        return f"x{SUPERSCRIPTS[power]}"
    return f"x**{power}" if style == "python" else f"x^{power}"


def bracket(number: int | Fraction) -> str:
    """Return a number as a factor: in brackets if it is negative or a fraction.

    >>> bracket(-5), bracket(5), bracket(Fraction(2, 3))
    ('(-5)', '5', '(2/3)')
    """
    return str(number) if number >= 0 and number == int(number) else f"({number})"


def plus(number: int) -> str:
    """Return a number with its sign, as it is added.

    >>> plus(-5), plus(5)
    ('- 5', '+ 5')
    """
    return f"- {-number}" if number < 0 else f"+ {number}"


def derive(coefficients: Sequence[int]) -> Coefficients:
    """Return the coefficients of the derivative.

    >>> derive((1, 2, -5, 3))
    (3, 4, -5)
    """
    degree = len(coefficients) - 1
    return tuple(
        (degree - place) * number for place, number in enumerate(coefficients[:-1])
    )


@dataclass(frozen=True)
class Surd:
    """The two numbers (p ± s*sqrt(m))/q, in lowest terms, with s and q positive."""

    p: int
    s: int
    m: int
    q: int

    @classmethod
    def reduced(cls, p: int, s: int, m: int, q: int) -> "Surd":
        """Return the surd in lowest terms.

        >>> str(Surd.reduced(-4, 2, 19, 6))
        '(-2 ± sqrt(19))/3'
        """
        common = gcd(p, s, q)
        return cls(p // common, s // common, m, q // common)

    def numerator(self, sign: str = "±") -> str:
        """Return what stands above the line; `sign` is "±", "-" or "+"."""
        root = f"{'' if self.s == 1 else f'{self.s}*'}sqrt({self.m})"
        if self.p:
            return f"{self.p} {sign} {root}"
        return f"{sign.strip('+')}{root}"

    def text(self, sign: str = "±") -> str:
        """Return one of the two numbers, or both with "±"."""
        above = self.numerator(sign)
        if self.q == 1:
            return above
        return f"({above})/{self.q}" if self.p else f"{above}/{self.q}"

    def __str__(self) -> str:
        return self.text()


def square_part(number: int) -> tuple[int, int]:
    """Return (s, m) with number = s^2 * m and m free of squares.

    >>> square_part(76), square_part(169)
    ((2, 19), (13, 1))
    """
    for root in range(isqrt(number), 1, -1):
        if number % (root * root) == 0:
            return root, number // (root * root)
    return 1, number
