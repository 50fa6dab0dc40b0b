"""What functions are called with: names, types and drawn values for each kind."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WORDS = (
    "tea", "stone", "river", "level", "apple", "see", "noon", "bread", "light", "radar",
    "pepper", "train", "city", "sister", "moon", "at", "be", "to", "kayak", "yellow",
    "mother", "cloud", "day", "table", "garden", "eye", "paper", "dad", "sun", "window",
    "east", "planet", "a", "computer", "mountain", "art", "elephant", "deed", "pen",
    "street", "bottle", "cat", "year", "friendship", "kingdom", "law", "rug", "blink",
    "helicopter", "weather", "kick", "glow",
)  # fmt: skip
LISTS = ("numbers", "values", "nums", "items", "data", "scores", "arr", "xs", "series")
NOUNS = (
    "words", "names", "texts", "strings", "tokens", "terms", "entries", "labels",
    "titles",
)  # fmt: skip
TEXTS = ("text", "s", "string", "sentence", "line", "message", "phrase", "content")
WHOLE = ("n", "number", "num", "m", "amount", "k", "limit", "size")
TABLES = ("table", "d", "mapping", "stock", "points", "ages", "prices", "votes")


@dataclass(frozen=True)
class Kind:
    """One kind of argument.

    `draw(rng, earlier)` gives a value, which may depend on the arguments before it;
    `edges` are asked as well.
    """

    type: str
    names: tuple[str, ...]
    draw: Callable[[random.Random, list[Any]], Any]
    edges: tuple[Any, ...] = ()


def _ints(rng: random.Random, low: int, high: int, fewest: int, most: int) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(fewest, most))]


def ints(rng: random.Random, earlier: list[Any]) -> list[int]:
    """Draw numbers, some of them twice."""
    drawn = _ints(rng, -9, 24, 2, 6)
    return drawn + rng.sample(drawn, min(len(drawn), rng.randint(0, 2)))


def _maybe_sorted(rng: random.Random, earlier: list[Any]) -> list[int]:
    drawn = ints(rng, earlier)
    order = rng.choice((None, False, True))
    return drawn if order is None else sorted(drawn, reverse=order)


def _item(rng: random.Random, earlier: list[Any]) -> int:
    """Draw an element of the list before, its neighbour, or the sum of two."""
    if not earlier[0] or rng.random() < 0.2:
        return rng.randint(-9, 24)
    if rng.random() < 0.3:
        return rng.choice(earlier[0]) + rng.choice(earlier[0])
    return rng.choice(earlier[0])


def _matrix(rng: random.Random, earlier: list[Any]) -> list[list[int]]:
    width = rng.randint(1, 4)
    return [_ints(rng, 0, 20, width, width) for _ in range(rng.randint(1, 4))]


def _words(rng: random.Random, earlier: list[Any]) -> list[str]:
    return rng.sample(WORDS, rng.randint(2, 6))


def _text(rng: random.Random, earlier: list[Any]) -> str:
    words = [*rng.sample(WORDS, rng.randint(1, 4)), str(rng.randint(1, 99))]
    rng.shuffle(words)
    return " ".join(w.capitalize() if rng.random() < 0.4 else w for w in words)


def _palindrome(rng: random.Random, earlier: list[Any]) -> str:
    half = rng.choice(WORDS)
    whole = half + half[::-1]
    return rng.choice((whole, whole.title(), f"{half} {half[::-1]}", half, f"{whole}!"))


def _anagram(rng: random.Random, earlier: list[Any]) -> str:
    letters = list(earlier[0])
    rng.shuffle(letters)
    return "".join(letters) + rng.choice(("", "", "a"))


def _runs(rng: random.Random, earlier: list[Any]) -> str:
    return "".join(rng.choice("abcx") * rng.randint(1, 4) for _ in range(4))


def _table(rng: random.Random, earlier: list[Any]) -> dict[str, int]:
    keys = rng.sample(WORDS[:12], rng.randint(2, 5))
    drawn = rng.sample(range(-9, 25), len(keys))
    return dict(zip(keys, drawn, strict=True))


def _names(separator: str) -> Callable[[random.Random, list[Any]], str]:
    def draw(rng: random.Random, earlier: list[Any]) -> str:
        first, *rest = rng.sample(WORDS[:30], rng.randint(1, 3))
        if separator:
            return separator.join([first, *rest])
        return first + "".join(w.capitalize() for w in rest)

    return draw


def _whole(low: int, high: int) -> Callable[[random.Random, list[Any]], int]:
    return lambda rng, earlier: rng.randint(low, high)


MANY = [101, 60, 45, 35, 28, *range(24, -10, -1), 7, 3, 3]
MANY_KEYS = dict(zip(WORDS, MANY[:-2], strict=False))
KINDS = {
    "ints": Kind("list[int]", LISTS, ints, ([], [4], MANY)),
    # Whether any or all of many numbers pass shows little of the condition.
    "single_ints": Kind("list[int]", LISTS, ints, ([], *([x] for x in MANY), MANY)),
    "maybe_sorted": Kind(
        "list[int]", LISTS, _maybe_sorted, ([], [4], [1, 2, 3], [3, 2, 1], [2, 2, 1])
    ),
    "long_ints": Kind("list[int]", LISTS, lambda r, e: _ints(r, -9, 24, 6, 9)),
    "short_ints": Kind("list[int]", LISTS, lambda r, e: _ints(r, -4, 9, 1, 5), ([],)),
    "nonempty": Kind("list[int]", LISTS, ints, ([-3], [-5, -2])),
    "repeated": Kind(
        "list[int]", LISTS, lambda r, e: _ints(r, 1, 3, 3, 8), ([], [2, 2])
    ),
    "sorted_ints": Kind(
        "list[int]",
        LISTS,
        lambda r, e: sorted(set(_ints(r, -9, 30, 3, 8))),
        ([], [4], list(range(-9, 25, 3))),
    ),
    "item": Kind("int", ("target", "wanted", "goal", "needle", "sought"), _item),
    "matrix": Kind("list[list[int]]", ("rows", "matrix", "grid", "board"), _matrix),
    "words": Kind("list[str]", NOUNS, _words, ([], ["tea"], list(WORDS))),
    "repeated_words": Kind(
        "list[str]", NOUNS, lambda r, e: r.choices(WORDS[:4], k=6), ([],)
    ),
    "text": Kind("str", TEXTS, _text, ("", "A", "aA eE  iI oO UU 0123 !?._-Zz ee")),
    "palindromes": Kind("str", TEXTS, _palindrome, ("", "Abba", "a ba", "a,ba", "ab")),
    "word": Kind("str", ("word", "first", "a", "one"), lambda r, e: r.choice(WORDS)),
    "anagram": Kind("str", ("other", "second", "b", "two"), _anagram),
    "lower": Kind("str", TEXTS, lambda r, e: r.choice(WORDS), ("", "xyz", "abc")),
    "runs": Kind("str", TEXTS, _runs, ("", "a", "abc")),
    "camel": Kind("str", TEXTS, _names("")),
    "snake": Kind("str", TEXTS, _names("_")),
    "brackets": Kind(
        "str",
        TEXTS,
        lambda r, e: "".join(r.choices("()[]{}a", k=r.randint(2, 8))),
        ("", "()", "[]", "{}", ")(", "][", "}{", "(a(b))", "[a[b]]", "{a{b}}", "(["),
    ),
    "bits": Kind(
        "str", TEXTS, lambda r, e: "1" + "".join(r.choices("01", k=4)), ("0", "11")
    ),
    "table": Kind("dict[str, int]", TABLES, _table, ({}, MANY_KEYS)),
    "small": Kind("int", WHOLE, _whole(1, 300), (0, 7, 49, 100)),
    "tiny": Kind("int", WHOLE, _whole(2, 15), (0, 1)),
    "limit": Kind("int", WHOLE, _whole(10, 80), (0, 1)),
    "positive": Kind("int", WHOLE, _whole(1, 40), (1, 6, 28)),
    "digit": Kind("int", ("base", "number", "n", "factor"), _whole(-3, 9), (0, 2)),
    "signed": Kind("int", WHOLE, _whole(-30, 120), (0, -7, 10)),
    "score": Kind("int", ("score", "points", "marks", "n"), _whole(40, 100),
                  (60, 70, 75, 85, 90, 95, 59, 89)),
    "seconds": Kind("int", ("seconds", "n", "duration", "time"), _whole(0, 20_000)),
    "year": Kind("int", ("year", "y", "n"), _whole(1890, 2110), (1900, 2000, 2024)),
}  # fmt: skip


def draw_calls(
    kinds: list[str], rng: random.Random, number: int = 8
) -> list[list[Any]]:
    """Draw argument lists for calls: drawn ones first, then edge cases, short to long.

    >>> draw_calls(["tiny"], random.Random(0), 2)
    [[15], [8], [0], [1]]
    """
    calls = [_call(kinds, rng) for _ in range(number)]
    edges = [
        _call(kinds, rng, {place: edge})
        for place, kind in enumerate(kinds)
        for edge in KINDS[kind].edges
    ]
    return calls + sorted(edges, key=lambda call: len(repr(call)))


def _call(
    kinds: list[str], rng: random.Random, fixed: dict[int, Any] | None = None
) -> list[Any]:
    values: list[Any] = []
    for place, kind in enumerate(kinds):
        chosen = (fixed or {}).get(place)
        values.append(KINDS[kind].draw(rng, values) if chosen is None else chosen)
    return values
