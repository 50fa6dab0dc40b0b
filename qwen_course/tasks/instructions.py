"""Simple instructions with exactly one right answer."""

import random
from collections.abc import Callable

from qwen_course.tasks.problem import Problem, distinct

SKILL = "instructions"
WORDS = (
    "apple", "bird", "boat", "bread", "cat", "chair", "cloud", "dog", "door", "egg",
    "fish", "flower", "garden", "hand", "house", "key", "lamp", "milk", "moon",
    "mouse", "night", "paper", "rain", "river", "road", "school", "shoe", "snow",
    "star", "stone", "sun", "table", "tree", "water", "wind", "window",
)  # fmt: skip


def _instruction(kind: str, content: tuple, question: str, answer: str) -> Problem:
    return Problem(
        skill=SKILL,
        kind=kind,
        content=(kind, *content),
        question=question,
        thinking=kind,
        answer=answer,
        expected=answer,
        exact=True,
    )


def repeat(rng: random.Random) -> Problem:
    """Write a word several times."""
    word, times = rng.choice(WORDS), rng.randint(2, 6)
    wording = rng.choice(
        ("Write the word {} {} times.", 'Repeat "{}" {} times.', "Say {} {} times.")
    )
    question = wording.format(word, times)
    return _instruction("repeat", (word, times), question, " ".join([word] * times))


def count_up(rng: random.Random) -> Problem:
    """List the numbers from one to another."""
    first = rng.randint(1, 60)
    last = first + rng.randint(2, 9)
    wording = rng.choice(
        ("Count from {} to {}.", "List the numbers from {} to {}.", "Go from {} to {}.")
    )
    answer = ", ".join(map(str, range(first, last + 1)))
    return _instruction("count up", (first, last), wording.format(first, last), answer)


def sort_numbers(rng: random.Random) -> Problem:
    """Sort a few numbers, smallest first."""
    numbers = rng.sample(range(1, 100), rng.randint(3, 5))
    wording = rng.choice(
        ("Sort {}.", "Sort the numbers {}.", "Put {} in order, smallest first.")
    )
    answer = ", ".join(map(str, sorted(numbers)))
    question = wording.format(", ".join(map(str, numbers)))
    return _instruction("sort", tuple(sorted(numbers)), question, answer)


def larger(rng: random.Random) -> Problem:
    """Name the larger of two numbers."""
    a, b = rng.sample(range(1, 200), 2)
    wording = rng.choice(
        ("Which is larger, {} or {}?", "Which number is bigger: {} or {}?")
    )
    content = tuple(sorted((a, b)))
    return _instruction("larger", content, wording.format(a, b), str(max(a, b)))


def pick(rng: random.Random) -> Problem:
    """Name the first or the last word of a list."""
    words = rng.sample(WORDS, rng.randint(3, 6))
    which = rng.choice(("first", "last"))
    wording = rng.choice(
        ("What is the {} word of this list: {}?", "Name the {} word: {}.")
    )
    answer = words[0] if which == "first" else words[-1]
    question = wording.format(which, ", ".join(words))
    return _instruction("pick", (which, *words), question, answer)


KINDS: dict[str, Callable[[random.Random], Problem]] = {
    "repeat": repeat,
    "count up": count_up,
    "sort": sort_numbers,
    "larger": larger,
    "pick": pick,
}


def make(rng: random.Random, kind: str | None = None) -> Problem:
    """Make one instruction of `kind` (drawn at random when None)."""
    return KINDS[kind or rng.choice(tuple(KINDS))](rng)


def problems(
    n: int, seed: int = 0, split: str = "test", kind: str | None = None
) -> list[Problem]:
    """Return `n` instructions of `kind` (all kinds mixed when None).

    >>> problems(1, seed=0, kind="sort")[0].kind
    'sort'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f'kind "{kind}" is not one of {", ".join(KINDS)}.')
    return distinct(lambda rng: make(rng, kind), n, seed, split)
