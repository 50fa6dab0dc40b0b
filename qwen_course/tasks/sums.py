"""Sums of two to seven numbers, worked as a running total."""

import random

from qwen_course.tasks.problem import Problem, distinct

SKILL = "sums"
WORDINGS = (
    "What is {plus}?",
    "{plus} = ?",
    "Add {commas}.",
    "Calculate {plus}.",
    "How much is {plus}?",
    "Find the sum of {commas}.",
    "{plus}",
    "{tight}",
    "What is {tight}?",
    "{plus} kaç eder?",
    "{plus} işleminin sonucu nedir?",
    "{plus} 等于多少？",
    "¿Cuánto es {plus}?",
    "Combien font {plus} ?",
    "Wie viel ist {plus}?",
    "{plus} はいくつですか？",
)


def solve(numbers: list[int]) -> str:
    """Return the running total, one line a step.

    >>> print(solve([12, 47, 85]))
    12 + 47 = 59
    59 + 85 = 144
    """
    lines, total = [], numbers[0]
    for number in numbers[1:]:
        lines.append(f"{total} + {number} = {total + number}")
        total += number
    return "\n".join(lines)


def make(rng: random.Random, count: int | None = None, largest: int = 99) -> Problem:
    """Make one sum of `count` numbers (2 to 7; drawn at random when None).

    Most start at 10; all start at 1 when `largest` is lower than 20.
    """
    count = count or rng.randint(2, 7)
    smallest = 1 if rng.random() < 0.15 or largest < 20 else 10
    numbers = [rng.randint(smallest, largest) for _ in range(count)]
    question = rng.choice(WORDINGS).format(
        plus=" + ".join(map(str, numbers)),
        tight="+".join(map(str, numbers)),
        commas=", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}",
    )
    total = str(sum(numbers))
    return Problem(
        skill=SKILL,
        kind=f"sum of {count}",
        content=(SKILL, *sorted(numbers)),
        question=question,
        thinking=solve(numbers),
        answer=total,
        expected=total,
    )


def problems(
    n: int, seed: int = 0, split: str = "test", count: int | None = None
) -> list[Problem]:
    """Return `n` sums, `count` numbers each (2 to 7; mixed when None).

    >>> problems(1, seed=0)[0].skill
    'sums'
    """
    if count is not None and not 2 <= count <= 7:
        raise ValueError(f"count is {count}; a sum has 2 to 7 numbers.")
    return distinct(lambda rng: make(rng, count), n, seed, split)
