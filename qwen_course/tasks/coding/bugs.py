"""Plant one bug in a right function, and find the call that shows it."""

import random
import re
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from qwen_course.sandbox_worker import define, run_test, too_long

# What people mistype or mix up: a pattern, and what stands there instead.
MISTAKES = (
    (r"<=", "<"), (r"(?<!<)<(?!=)", "<="), (r">=", ">"), (r"(?<!-)>(?!=)", ">="),
    (r"==", "!="), (r"!=", "=="), (r" \+ 1\b", ""), (r" - 1\b", ""),
    (r" \+ (?!1\b)", " - "), (r" - (?!1\b)", " + "), (r" \* ", " + "), (r" // ", " % "),
    (r" % ", " // "), (r" / ", " // "), (r" \+= ", " -= "), (r" \*\* ", " * "),
    (r"\bmax\b", "min"), (r"\bmin\b", "max"), (r" and ", " or "), (r" or ", " and "),
    (r" not in ", " in "), (r"\bnot ", ""), (r"\bTrue\b", "False"),
    (r"\bFalse\b", "True"), (r"\[0\]", "[1]"), (r"\[-1\]", "[0]"), (r"\[::-1\]", ""),
    (r", reverse=True", ""), (r", key=[\w.]+(?=[,)])", ""), (r"\bupper\b", "lower"),
    (r"\blower\b", "upper"), (r"\bstartswith\b", "endswith"),
    (r"\bendswith\b", "startswith"), (r"\bany\b", "all"), (r"\ball\b", "any"),
    (r"\brange\(1, ", "range("), (r"\blow\b", "high"), (r"\bi\b", "j"),
)  # fmt: skip
SLIPS = ((r":$", ""), (r"\)$", ""), (r"^(\s+)return ", r"\1"))  # of whole lines
MOST_LINES = 20_000  # that all tests of a function with a bug may run


class _TooLong(BaseException):
    """Not an Exception, which the function itself, or its test, might catch."""


def variants(code: str, rng: random.Random, slips: bool = True) -> Iterator[str]:
    """Yield the code with one mistake each, in random order; not all of them matter.

    The signature stays. With `slips` some cannot even be parsed.
    """
    start = code.index("\n")
    end_of_docstring = code.rfind('"""\n')
    start = max(start, end_of_docstring + 3 if end_of_docstring >= 0 else 0)
    patterns = [*MISTAKES, *(SLIPS if slips and rng.random() < 0.3 else ())]
    found = [
        (match, instead)
        for pattern, instead in patterns
        for match in re.finditer(pattern, code[start:], re.MULTILINE)
    ]
    found += [(match, _other(match, rng)) for match in
              re.finditer(r"(?<![\w.])\d+\b", code[start:])]  # fmt: skip
    found += [(match, "") for match in
              re.finditer(r"^    if [^\n]*:\n        return [^\n]*\n(?=    \w)",
                          code[start:], re.MULTILINE)]  # fmt: skip
    rng.shuffle(found)
    for match, instead in found:
        left, right = start + match.start(), start + match.end()
        yield code[:left] + match.expand(instead) + code[right:]


def _other(number: re.Match, rng: random.Random) -> str:
    return str(max(0, int(number[0]) + rng.choice((-1, 1))))


def plant(code: str, tests: list[str], rng: random.Random) -> tuple[str, str] | None:
    """Return the code with one bug, and the failure that shows it; None if none fits.

    >>> right = "def add(a, b):\\n    return a + b"
    >>> plant(right, ["assert add(2, 3) == 5"], random.Random(0))[1]
    'add(2, 3) returned -1, expected 5.'
    """
    for wrong in variants(code, rng):
        if error := failure(wrong, tests):
            return wrong, error
    return None


def failure(code: str, tests: list[str]) -> str:
    """Return how our own code, with a bug in it, fails its tests; "" if it does not.

    Only for code that this package made: it runs here and now, with nothing but a
    limit on the lines, so that a loop without an end is over soon.
    """
    left, begun = MOST_LINES, ""

    def count(frame: FrameType, event: str, argument: Any) -> Callable:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooLong
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        space, error = define(code)
        for begun in () if error else tests:
            if error := run_test(space, begun):
                break
        return error
    except _TooLong:
        return too_long(begun, 2)
    finally:
        sys.settrace(before)
