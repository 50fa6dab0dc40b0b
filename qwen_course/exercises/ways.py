"""Judging by typical mistakes: the judge makes them too, and compares.

So a wrong answer is named by what was done, not only by what came out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from qwen_course.exercises import mistakes
from qwen_course.exercises.question import Mistake

Outcomes = list[dict[str, Any]]
Same = Callable[[Any, Any], bool]


class Way(NamedTuple):
    """A typical mistake: its name, what it gives for a case, what to say."""

    name: str
    made: Callable[..., Any]
    text: str


def _named(
    cases: Sequence[Any],
    values: Sequence[Any],
    wrong: Sequence[int],
    ways: Iterable[Way],
    same: Same,
) -> Way | None:
    """Return the way that leads to these values.

    One that explains every value is preferred to one that explains all wrong values,
    and that to one that explains the first wrong one.
    """
    for places in (range(len(cases)), wrong, wrong[:1]):
        for way in ways:
            if all(same(values[i], way.made(*cases[i])) for i in places):
                return way
    return None


def compared(
    cases: Sequence[tuple[Any, ...]],
    seen: Outcomes,
    shown: Sequence[str],
    right: Sequence[Any],
    ways: Iterable[Way],
    same: Same,
    advice: str,
) -> Mistake | None:
    """Return the mistake in some values, by its name where a way leads to them."""
    values = [outcome["value"] for outcome in seen]
    pairs = enumerate(zip(values, right, strict=True))
    wrong = [i for i, (value, expected) in pairs if not same(value, expected)]
    if not wrong:
        return None
    at = wrong[0]
    said = f"{shown[at]} gave {short(values[at])}, it is {short(right[at])}. "
    way = _named(cases, values, wrong, ways, same)
    name, why = (way.name, way.text) if way else ("other", advice)
    return Mistake(name, said + why)


def compared_half(
    number: int,
    cases: Sequence[tuple[Any, ...]],
    seen: Outcomes,
    shown: Sequence[str],
    right: Sequence[Any],
    ways: Iterable[Way],
    advice: str,
    same: Same = mistakes.close,
) -> Mistake | None:
    """Compare one half of values that are pairs, as `compared` does."""
    halves = [{"value": outcome["value"][number]} for outcome in seen]
    texts = [f"{text}[{number}]" for text in shown]
    expected = [pair[number] for pair in right]
    return compared(cases, halves, texts, expected, ways, same, advice)


def no_numbers(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    """Return the mistake of a value that is no number."""
    for outcome, text in zip(seen, shown, strict=True):
        if not mistakes.is_number(outcome["value"]):
            value = short(outcome["value"])
            return Mistake("no-number", f"{text} gave {value}. Return one number.")
    return None


def no_bool(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    """Return the mistake of a value that is neither true nor false."""
    for outcome, text in zip(seen, shown, strict=True):
        if outcome["value"] not in (True, False):
            value = short(outcome["value"])
            return Mistake("no-bool", f"{text} gave {value}. Return True or False.")
    return None


def same_truth(value: Any, expected: Any) -> bool:
    """Return whether two values are both true, or both false."""
    return bool(value) == bool(expected)


def short(value: Any, head: int = 56, tail: int = 26) -> str:
    """Show a value, a long one by its beginning and its end."""
    shown = f"{value:.5g}" if isinstance(value, float) else repr(value)
    whole = len(shown) <= head + tail + 5
    return shown if whole else f"{shown[:head]} ... {shown[-tail:]}"
