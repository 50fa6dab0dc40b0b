"""What judges share: the ways any function goes wrong, and a look at numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from qwen_course.exercises.question import Mistake


def of_call(outcome: dict[str, Any], shown: str) -> Mistake | None:
    """Return what is wrong with one call whatever the question, or None.

    `shown` says which call it was, such as 'f("Qwen3-8B")'.
    """
    if outcome["late"]:
        return Mistake(
            "endless",
            f"{shown} was stopped: it was not done in time. Does your loop have a way "
            "out? If the cell stays busy, restart the kernel.",
        )
    if outcome["error"]:
        return _of_error(outcome["error"], outcome["line"], shown)
    if outcome["changed"]:
        return Mistake(
            "changes-input",
            f"{shown} changed the list or dict it was given. Whoever calls it still "
            "needs it: work on a copy, or build a new one.",
        )
    if outcome["value"] is None:
        if outcome["printed"]:
            return Mistake(
                "prints", f"{shown} printed its result. Return it instead: a print "
                "shows a value to you and gives None to the program."
            )  # fmt: skip
        return Mistake("returns-none", f"{shown} returned None. Is a return missing?")
    return None


def _of_error(error: str, line: str, shown: str) -> Mistake:
    if error.startswith("it is no function"):
        return Mistake(
            "no-function",
            f"{shown} cannot be called: {error}. Give the function itself, "
            "without brackets behind its name.",
        )
    if error.startswith("it returned"):
        text = f"{shown} cannot be checked: {error}. "
        if error.endswith(("generator", "map", "filter", "zip")):
            text += "It has not computed anything yet: put list(...) around it."
        else:
            text += "Return numbers, texts, lists or dicts."
        return Mistake("odd-type", text)
    at = f" at the line: {line}" if line else ""
    return Mistake("raises", f"{shown} failed with {error}{at}")


def is_number(value: Any) -> bool:
    """Return whether a value is a number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_pair(value: Any) -> bool:
    """Return whether a value is a list of two numbers."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def close(value: Any, expected: float, tolerance: float = 1e-6) -> bool:
    """Return whether a value is a number within a relative tolerance."""
    return is_number(value) and math.isclose(value, expected, rel_tol=tolerance)


def first(*tests: Callable[[], Mistake | None]) -> Mistake | None:
    """Return the first mistake that a row of tests finds."""
    return next(filter(None, (test() for test in tests)), None)


def of_calls(
    outcomes: Sequence[dict[str, Any]], shown: Sequence[str]
) -> Mistake | None:
    """Return the first mistake of some calls that any function can make, or None."""
    pairs = zip(outcomes, shown, strict=True)
    return next(filter(None, (of_call(one, text) for one, text in pairs)), None)
