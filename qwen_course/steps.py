r"""Check a worked answer line by line: which steps are right, which are wrong.

>>> for step in check_steps("f(x) = x^2 - 6x\nf'(x) = 2x - 6\n2x = 6\nx = 2"):
...     print(step)
(given) f(x) = x^2 - 6x
right   f'(x) = 2x - 6
right   2x = 6
WRONG   x = 2   [2 does not solve 2x - 6 = 0]
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_course.expressions import equal, plain, read, same_set, same_value, solutions

if TYPE_CHECKING:
    from sympy import Expr

__all__ = ["Step", "boxed", "check_steps", "majority_box", "same_value", "wrong_steps"]

MOST_LINES = 200
Verdict = tuple[bool | None, str]  # whether it is right, and why not
NOT_CHECKED: Verdict = (None, "")
RIGHT: Verdict = (True, "")


@dataclass(frozen=True)
class Step:
    """One line of an answer.

    `right` is True, False, or None where nothing can be checked: text, a formula that
    is given, a line of a program. `why` says what is wrong.
    """

    line: str
    right: bool | None
    why: str = ""

    def __str__(self) -> str:
        head = {True: "right  ", False: "WRONG  ", None: "(given)"}[self.right]
        return f"{head} {self.line}" + (f"   [{self.why}]" if self.why else "")


def boxed(answer: str) -> str | None:
    r"""Return what stands in the last \boxed{...}, or None if there is none.

    >>> boxed(r"So \boxed{x = \frac{1}{2}}.")
    'x = \\frac{1}{2}'
    """
    place = _box(answer)
    return answer[place[0] : place[1]].strip() if place else None


def _box(text: str) -> tuple[int, int] | None:
    """Return where the inside of the last box begins and ends."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start, depth = start + len("\\boxed{"), 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return start, place
    return None


def check_steps(answer: str) -> list[Step]:
    r"""Check every line of an answer, each against the lines before it.

    Derivatives, discriminants, roots, equations that follow from each other, sums and
    products, the kind of a critical point and the box at the end. Raises ValueError
    for an answer of more than 200 lines.

    >>> [step.right for step in check_steps("12*(-5) = -60\n16 + 60 = 66")]
    [True, False]
    """
    lines = [line for line in answer.splitlines() if line.strip()]
    if len(lines) > MOST_LINES:
        raise ValueError(
            f"the answer has {len(lines)} lines; check at most {MOST_LINES} at a time."
        )
    page, steps, program = _Page(), [], False
    for line in lines:
        fence = line.lstrip().startswith("```")
        verdict = NOT_CHECKED if program or fence else page.check(line)
        program ^= fence
        steps.append(Step(line, *verdict))
    return steps


def majority_box(answers: Sequence[str]) -> str | None:
    r"""Return the boxed value that most answers agree on; None if there is no box.

    Values are compared by what they are worth: 1/2 and 0.5 agree. Of two with as many
    votes the first wins.

    >>> majority_box([r"\boxed{1/2}", r"\boxed{3}", r"\boxed{0.5}"])
    '1/2'
    """
    groups: list[list[str]] = []
    for found in map(boxed, answers):
        if found is None:
            continue
        group = next((g for g in groups if _agree(g[0], found)), None)
        if group is None:
            groups.append([found])
        else:
            group.append(found)
    return max(groups, key=len)[0] if groups else None


def _agree(one: str, other: str) -> bool:
    return one == other or same_value(one, other)


def wrong_steps(answer: str) -> list[Step]:
    """Return the lines of an answer that are wrong.

    >>> wrong_steps("2 + 2 = 4")
    []
    """
    return [step for step in check_steps(answer) if step.right is False]


class _Page:
    """What the lines so far have said: functions, the equation, the named values."""

    def __init__(self) -> None:
        self.functions: dict[str, Expr] = {}
        self.slope: Expr | None = None  # the last derivative
        self.equation: Expr | None = None  # what is to be 0
        self.known: dict[str, Expr] = {}  # D, x1, x2
        self.last: Expr | None = None  # the value of the last chain

    def check(self, line: str) -> Verdict:
        """Check one line; it is right if nothing in it is wrong."""
        box = boxed(line)
        if box is not None:
            return self._box(box)
        text = re.sub(r"^\s*([-*•]|\d+\.)\s+", "", plain(line))  # an item of a list
        verdicts = [self._claim(claim) for claim in text.split(": ")]
        self._look_for_function(text)
        wrong = [verdict for verdict in verdicts if verdict[0] is False]
        return wrong[0] if wrong else RIGHT if RIGHT in verdicts else NOT_CHECKED

    def _look_for_function(self, text: str) -> None:
        """Note a function that a sentence gives: "For f(x) = x^2 + 1, we find ..."."""
        for name, formula in re.findall(r"\b([fgh])\(x\) = ([^,:=]+)", text):
            value = read(formula.strip().rstrip("."))
            if value and name not in self.functions:
                self.functions[name] = value[0]

    def _claim(self, text: str) -> Verdict:
        text = text.strip().rstrip(".")
        if found := re.fullmatch(r"(maximum|minimum) at (?:x = )?(.+)", text):
            return self._extremum(*found.groups())
        if text == "no maximum or minimum":
            return _verdict(self.last == 0, "the second derivative is not 0")
        if text == "no real solution" and "D" in self.known:
            return _verdict(self.known["D"] < 0, "the discriminant is not negative")
        parts = [part.strip() for part in re.split(r"(=|<|>)", text)]
        return self._chain(parts) if len(parts) > 1 else NOT_CHECKED

    def _chain(self, parts: list[str]) -> Verdict:
        """Check a = b = c > 0, by what stands first."""
        head, values = parts[0], [read(part, self.known) for part in parts[2::2]]
        if None in values:
            return NOT_CHECKED
        chain = [value for value in values if value is not None]
        if found := re.fullmatch(r"([fghpy])('*)(?:\((.+)\))?", head):
            return self._function(
                found[1], len(found[2]), found[3] or "x", chain, parts
            )
        if found := re.fullmatch(r"d/dx ?\((.+)\)", head):
            return self._derivative(found[1], chain)
        if head == "D":
            return self._discriminant(chain, parts)
        if re.fullmatch(r"x\d?", head):
            return self._root(head, chain, parts)
        first = read(head, self.known)
        return NOT_CHECKED if first is None else self._formula(first, chain, parts)

    def _function(
        self, name: str, order: int, at: str, chain: list, parts: list[str]
    ) -> Verdict:
        """f(x) = ... is given; f'(x) = ... and f''(3) = ... are checked."""
        from sympy import Symbol, diff

        x = Symbol("x", real=True)
        function = self.functions.get(name)
        if function is None:
            if not order and at == "x":
                self.functions[name] = chain[0][0]
            return NOT_CHECKED
        target = diff(function, x, order)
        if order and chain == [(0,)] and at == "x":
            self.slope = self.equation = target
            return NOT_CHECKED
        if at != "x":
            point = read(at, self.known)
            if point is None:
                return NOT_CHECKED
            target = target.subs(x, point[0])
        elif order == 1:
            self.slope = self.equation = target
        return self._values([(target,), *chain], parts)

    def _derivative(self, inside: str, chain: list) -> Verdict:
        from sympy import Symbol, diff

        function = read(inside)
        if function is None:
            return NOT_CHECKED
        target = diff(function[0], Symbol("x", real=True))
        return self._values([(target,), *chain], [])

    def _discriminant(self, chain: list, parts: list[str]) -> Verdict:
        verdict = self._values(chain, parts)
        if self.last is not None:
            self.known["D"] = self.last
        if verdict[0] and self.equation is not None:
            a, b, c = _coefficients(self.equation)
            right = equal(self.known["D"], b * b - 4 * a * c)
            return _verdict(right, f"b^2 - 4ac is {b * b - 4 * a * c}")
        return verdict

    def _root(self, name: str, chain: list, parts: list[str]) -> Verdict:
        """x = ... must solve the equation, and its forms must be one value."""
        from sympy import Symbol, expand

        if name != "x":
            self.known[name] = chain[-1][0]
        verdict = self._values(chain, parts)
        if verdict[0] is False or self.equation is None:
            return verdict if len(chain) > 1 else NOT_CHECKED
        for value in chain[-1]:
            if not equal(expand(self.equation.subs(Symbol("x", real=True), value)), 0):
                equation = _written(self.equation)
                return False, f"{_written(value)} does not solve {equation} = 0"
        return RIGHT

    def _formula(self, first: tuple, chain: list, parts: list[str]) -> Verdict:
        """Check an equation in x against the one before it, or a chain of numbers."""
        side = first[0] - chain[0][0]
        settled = self.equation is not None and not self.equation.free_symbols
        if not settled and "x" not in parts[0] + parts[2]:
            return self._values([first, *chain], parts)
        verdict = self._values(chain, parts) if len(chain) > 1 else RIGHT
        before, self.equation = self.equation, _left(side)
        if before is None or verdict[0] is False:
            return verdict if verdict[0] is False else NOT_CHECKED
        right = _equivalent(before, self.equation)
        return _verdict(right, f"it does not follow from {_written(before)} = 0")

    def _values(self, chain: list, parts: list[str]) -> Verdict:
        """Check that all values of a chain are equal, and a comparison at its end."""
        *values, end = chain
        sign = parts[-2] if len(parts) > 2 else "="
        if sign == "=":
            values = chain
        self.last = values[-1][0]
        for before, after in zip(values, values[1:], strict=False):
            if not same_set(list(before), list(after)):
                return False, f"{_list(before)} is not {_list(after)}"
        if sign == "=":
            return RIGHT
        right = self.last < end[0] if sign == "<" else self.last > end[0]
        return _verdict(bool(right), f"{self.last} {sign} {end[0]} does not hold")

    def _extremum(self, kind: str, where: str) -> Verdict:
        from sympy import Symbol, diff

        point = read(where, self.known)
        if point is None or self.slope is None:
            return NOT_CHECKED
        x = Symbol("x", real=True)
        bend = diff(self.slope, x).subs(x, point[0])
        critical = equal(self.slope.subs(x, point[0]), 0)
        right = critical and bool(bend < 0 if kind == "maximum" else bend > 0)
        return _verdict(right, f"there is no {kind}")

    def _box(self, text: str) -> Verdict:
        """Check the box: all solutions, the derivative, or the last value."""
        found = solutions(text)
        if found is None:
            return NOT_CHECKED
        if self.equation is not None and (isinstance(found, str) or "x =" in text):
            right = _real_solutions(self.equation)
            same = found == right if isinstance(found, str) else (
                isinstance(right, list) and same_set(found, right))  # fmt: skip
            return _verdict(same, "these are not the solutions of the equation")
        target = self.slope if self.slope is not None else self.last
        if target is None or isinstance(found, str):
            return NOT_CHECKED
        return _verdict(equal(found[0], target), f"it should be {_written(target)}")


def _verdict(right: bool, why: str) -> Verdict:
    return RIGHT if right else (False, why)


def _coefficients(equation: "Expr") -> "tuple[Expr, Expr, Expr]":
    """Return a, b, c of a*x^2 + b*x + c."""
    from sympy import Symbol

    x = Symbol("x", real=True)
    return equation.coeff(x, 2), equation.coeff(x, 1), equation.coeff(x, 0)


def _left(side: "Expr") -> "Expr":
    from sympy import expand

    return expand(side)


def _equivalent(before: "Expr", after: "Expr") -> bool:
    """Return whether one polynomial is a multiple of the other.

    For linear and quadratic ones that decides whether their zeros are the same. Two
    numbers, neither of them 0, are both never 0.
    """
    if not before.free_symbols and not after.free_symbols:
        return (before == 0) == (after == 0)
    if before.free_symbols != after.free_symbols:
        return False
    from sympy import LC, expand

    return expand(before * LC(after) - after * LC(before)) == 0


def _real_solutions(equation: "Expr") -> "list[Expr] | str":
    """Return the real zeros of a polynomial in x; "none" or "all" if there are such."""
    from sympy import Symbol, roots

    if not equation.free_symbols:
        return "all" if equation == 0 else "none"
    found = roots(equation, Symbol("x", real=True))
    return [root for root in found if root.is_real] or "none"


def _list(values: tuple) -> str:
    return ", ".join(map(_written, values))


def _written(value: "Expr") -> str:
    """Return an expression in the notation of the answers."""
    return str(value).replace("**", "^").replace("*x", "x")
