"""Read mathematics that a model or a learner wrote, and compare it by value.

Such text is never evaluated as Python. A small parser reads it: numbers, letters,
+ - * / ^, brackets, sqrt and ±, with limits on length, depth and powers, so that no
text can take long; only what it has read is handed to sympy.
"""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sympy import Expr

LONGEST = 300  # characters of an expression
LONGEST_NUMBER = 18  # digits
DEEPEST = 12  # brackets in brackets
HEAVIEST = 32  # factors, powers multiplied: (x^4)^4 weighs 16, (x^9)^9 is refused
MOST_LETTERS = 3

TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|sqrt|[A-Za-z]\d?|\*\*|[-+*/^()±])")
NONE = re.compile(
    r"(there (are|is) )?(none|no( real)? (solutions?|roots?|critical points?))", re.I
)
ALL = re.compile(r"(all|every)( real)? (numbers?|x)|R", re.I)


class Unreadable(ValueError):
    """The text is no expression of the kind this module reads."""


class _Value(NamedTuple):
    """What a piece of text stands for: two values when it holds a ±."""

    values: "tuple[Expr, ...]"
    weight: int


def _tokens(text: str) -> list[str]:
    text, place, found = text.strip(), 0, []
    if len(text) > LONGEST:
        raise Unreadable(f"it has more than {LONGEST} characters")
    while place < len(text):
        match = TOKEN.match(text, place)
        if not match or len(match[1]) > LONGEST_NUMBER:
            raise Unreadable(f'"{text[place : place + 10]}" is no part of a formula')
        found.append(match[1])
        place = match.end()
    if len({token for token in found if token.isalpha()}) > MOST_LETTERS:
        raise Unreadable(f"it has more than {MOST_LETTERS} letters")
    return found


class _Parser:
    """A recursive descent over sums, products, powers and brackets."""

    def __init__(self, text: str, known: "dict[str, Expr]") -> None:
        self.tokens = _tokens(text)
        self.known = known
        self.depth = 0

    def take(self, *wanted: str) -> str:
        """Take the next token if it is one of `wanted`; else return ""."""
        return self.tokens.pop(0) if self.tokens[:1] and self._is(wanted) else ""

    def _is(self, wanted: tuple[str, ...]) -> bool:
        return self.tokens[0] in wanted

    def whole(self) -> _Value:
        value = self.sum()
        if self.tokens:
            raise Unreadable(f'"{self.tokens[0]}" is not expected there')
        return value

    def sum(self) -> _Value:
        sign = self.take("-", "+", "±")
        total = self.product()
        if sign in ("-", "±"):
            total = _signed(total, sign)
        while sign := self.take("+", "-", "±"):
            other = self.product()
            total = _added(total, other if sign == "+" else _signed(other, sign))
        return total

    def product(self) -> _Value:
        value = self.power()
        while self.tokens:
            sign = self.take("*", "/")
            if not sign and not re.match(r"[A-Za-z(]", self.tokens[0]):
                break
            minus = self.take("-") if sign else ""
            other = self.power()
            value = _multiplied(value, _signed(other, "-") if minus else other, sign)
        return value

    def power(self) -> _Value:
        base = self.atom()
        if not self.take("^", "**"):
            return base
        bracket = self.take("(")
        exponent = self.tokens.pop(0) if self.tokens else ""
        if not re.fullmatch(r"\d\d?", exponent) or (bracket and not self.take(")")):
            raise Unreadable("an exponent must be a whole number")
        weight = _checked(base.weight * int(exponent))
        return _Value(tuple(v ** int(exponent) for v in base.values), max(1, weight))

    def atom(self) -> _Value:
        from sympy import Rational, Symbol, sqrt

        token = self.tokens.pop(0) if self.tokens else "the end"
        if token == "(":
            return self.bracket()
        if token == "sqrt" and self.take("("):
            inside = self.bracket()
            return _Value(tuple(map(sqrt, inside.values)), inside.weight)
        if token[0].isdigit():
            return _Value((Rational(token),), 1)
        if token in self.known:
            return _Value((self.known[token],), 1)
        if len(token) == 1 and token.isalpha():
            return _Value((Symbol(token, real=True),), 1)
        raise Unreadable(f'"{token}" is not expected there')

    def bracket(self) -> _Value:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable(f"it has more than {DEEPEST} brackets in brackets")
        inside = self.sum()
        if not self.take(")"):
            raise Unreadable("a bracket is not closed")
        self.depth -= 1
        return inside


def _checked(weight: int) -> int:
    if weight > HEAVIEST:
        raise Unreadable("its powers are too high")
    return weight


def _signed(value: _Value, sign: str) -> _Value:
    """Return a value with - in front, or with ±: the upper sign first."""
    minus = tuple(-v for v in value.values)
    if sign == "-":
        return _Value(minus, value.weight)
    if len(minus) > 1:
        raise Unreadable("it has ± in ±")
    return _Value((*value.values, *minus), value.weight)


def _pairs(a: _Value, b: _Value) -> list[tuple[Any, Any]]:
    """Pair the values; with ± in both, the upper signs belong together."""
    size = max(len(a.values), len(b.values))
    return list(zip((a.values * 2)[:size], (b.values * 2)[:size], strict=True))


def _added(a: _Value, b: _Value) -> _Value:
    return _Value(tuple(p + q for p, q in _pairs(a, b)), max(a.weight, b.weight))


def _multiplied(a: _Value, b: _Value, sign: str) -> _Value:
    if sign == "/" and any(value == 0 for value in b.values):
        raise Unreadable("it divides by zero")
    values = tuple(p / q if sign == "/" else p * q for p, q in _pairs(a, b))
    return _Value(values, _checked(a.weight + b.weight))


# LaTeX and Unicode in the notation above; from the inside out, so three times over.
NOTATION = (
    (r"\\(left|right|displaystyle|[][(),;! ])", ""),
    (r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1"),
    (r"\\(cdot|times)\b ?|[·×⋅]", "*"),
    (r"\\pm\b ?|\+-|\+/-", "±"),
    (r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))"),
    (r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)"),
    (r"√(\d+)", r"sqrt(\1)"),
    (r"√(?=\()", "sqrt"),
    (r"\\in\b|∈", "="),
    (r"[−–]", "-"),
    (r"\^\{([^{}]*)\}", r"^(\1)"),
    (r"\$", ""),
)
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def plain(text: str) -> str:
    r"""Return mathematics in LaTeX or Unicode in the plain notation.

    >>> plain(r"\frac{-2 \pm \sqrt{19}}{3}"), plain("x³ − 1")
    ('((-2 ±sqrt(19))/(3))', 'x^3 - 1')
    """
    text = text[: 4 * LONGEST]
    for _ in range(3):
        for pattern, by in NOTATION:
            text = re.sub(pattern, by, text)
    raised = "[⁰¹²³⁴⁵⁶⁷⁸⁹]+"
    return re.sub(raised, lambda m: "^" + m[0].translate(SUPERSCRIPTS), text).strip()


def read(
    text: str, known: "dict[str, Expr] | None" = None
) -> "tuple[Expr, ...] | None":
    """Return the value of an expression, both values with ±; None if it is none.

    `known` gives names a value, as in {"x1": Rational(1, 2)}.

    >>> read("2*(3 + 4)"), read("9^9^9")
    ((14,), None)
    """
    try:
        return _Parser(plain(text), known or {}).whole().values
    except Unreadable:
        return None


def solutions(text: str) -> "list[Expr] | str | None":
    """Return the values that an answer names; "none" or "all" where it says so.

    Reads "3", "x = -3, x = 1", "x = -3 or x = 1", "{-3, 1}" and ±; None if it cannot.

    >>> solutions("x = -3 or x = 1"), solutions("no real solutions")
    ([-3, 1], 'none')
    """
    text = plain(text).strip(" .\\{}[]")
    if NONE.fullmatch(text) or text in ("∅", "\\emptyset"):
        return "none"
    if ALL.fullmatch(text):
        return "all"
    values: list[Any] = []
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)  # 23,152 is one number
    for part in re.split(r",|;|\bor\b|\band\b", text[: 2 * LONGEST]):
        found = read(part.rpartition("=")[2].strip(" \\{}[]"))
        if found is None:
            return None
        values += [v for v in found if not any(equal(v, other) for other in values)]
    return values


def same_value(answer: str, expected: str) -> bool:
    r"""Return whether two answers have the same value; False if one cannot be read.

    >>> same_value(r"\frac{-2 \pm \sqrt{19}}{3}", "x = (-2 ± sqrt(19))/3")
    True
    >>> same_value("x = 1, x = -3", "x = -3, x = 2")
    False
    """
    one, other = solutions(answer), solutions(expected)
    if not isinstance(one, list) or not isinstance(other, list):
        return one is not None and one == other
    return same_set(one, other)


def same_set(one: "list[Expr]", other: "list[Expr]") -> bool:
    """Return whether two lists without repetition hold the same values."""
    return len(one) == len(other) and all(
        any(equal(value, v) for v in other) for value in one
    )


def equal(a: "Expr", b: "Expr") -> bool:
    """Return whether two expressions are equal, whatever their letters stand for.

    Numbers with roots are compared to 40 digits.
    """
    from sympy import expand

    difference = expand(a - b)
    if difference == 0 or difference.free_symbols or difference.is_Rational:
        return difference == 0
    return bool(difference.is_finite) and bool(abs(difference.evalf(50)) < 10**-40)
