"""Growth: by a percentage each year, and by doubling."""

import random

from qwen_course.tasks.mathematics.worked import Worked

RATES = (2, 4, 5, 10, 10, 20, 20, 30, 40, 50)
HARD_RATES = (12, 15, 25, 35, 45, 60)
LARGEST = 99_999  # of the numbers in training


def _whole_years(start: int, factor: int, years: int) -> list[int] | None:
    """Return the number after each year, None unless all are whole."""
    numbers = [start]
    for _ in range(years):
        if numbers[-1] * factor % 100:
            return None
        numbers.append(numbers[-1] * factor // 100)
    return numbers


def compound(rng: random.Random, hard: bool = False) -> Worked:
    """Growth (or loss) by a given percentage over two to four years."""
    while True:
        rate = rng.choice(HARD_RATES if hard else RATES)
        years = rng.choice((3, 4) if hard else (2, 2, 3))
        start = rng.randint(1, 99) * rng.choice((10, 100, 100, 1000))
        grows = rng.random() < 0.75
        numbers = _whole_years(start, 100 + rate if grows else 100 - rate, years)
        if numbers and max(numbers) * rate <= (100 if hard else 20) * LARGEST:
            return worked_compound(numbers, rate if grows else -rate)


def worked_compound(numbers: list[int], rate: int) -> Worked:
    """Return the growth from `numbers[0]`, year by year."""
    years, size = len(numbers) - 1, abs(rate)
    sign = "+" if rate > 0 else "-"
    steps = []
    for year, (before, after) in enumerate(zip(numbers, numbers[1:], strict=False), 1):
        part = before * size // 100
        steps.append(f"Year {year}: {before}*{size}/100 = {before * size}/100 = {part}")
        steps.append(f"{before} {sign} {part} = {after}")
    return Worked(
        "growth",
        ("compound", numbers[0], rate, years),
        lambda wording, rng: wording.format(n=numbers[0], p=size, t=years),
        tuple(steps),
        str(numbers[-1]),
        f"After {years} years: {{}}",
        "I compute it year by year.",
        (
            f"n = {numbers[0]}",
            f"for year in range({years}):",
            f"    n = n * {100 + rate} // 100",
            "print(n)",
        ),
        lambda: str(numbers[-1]),
        story="growth" if rate > 0 else "loss",
    )


def doubling(rng: random.Random, hard: bool = False) -> Worked:
    """What doubles every so often: how many there are later, or how long it takes."""
    times = rng.randint(6, 9) if hard else rng.randint(2, 5)
    every = rng.randint(2, 12)
    small = (
        rng.randint(2, 30),
        5 * rng.randint(1, 30),
        50 * rng.randint(1, 20),
    )
    start = rng.randint(130, 999) if hard else rng.choice(small)
    worked = _how_long if rng.random() < 0.4 else _how_many
    return worked(start, every, times)


def _doublings(start: int, times: int) -> list[str]:
    return [
        f"Doubling {n}: {start << (n - 1)}*2 = {start << n}"
        for n in range(1, times + 1)
    ]


def _how_many(start: int, every: int, times: int) -> Worked:
    span = every * times
    return Worked(
        "growth",
        ("doubling", start, every, times),
        lambda wording, rng: wording.format(n=start, e=every, t=span),
        (f"{span}/{every} = {times}", *_doublings(start, times)),
        str(start << times),
        f"After {times} doublings: {{}}",
        "I compute it with Python.",
        (f"print({start} * 2 ** ({span} // {every}))",),
        lambda: str(start << times),
        story="doubling",
    )


def _how_long(start: int, every: int, times: int) -> Worked:
    goal = start << times
    return Worked(
        "growth",
        ("doubling time", start, every, times),
        lambda wording, rng: wording.format(n=start, e=every, g=goal),
        (*_doublings(start, times), f"{times}*{every} = {times * every}"),
        str(times * every),
        "Time: {}",
        "I double until it is reached.",
        (
            f"n, time = {start}, 0",
            f"while n < {goal}:",
            f"    n, time = 2 * n, time + {every}",
            "print(time)",
        ),
        lambda: str(times * every),
        story="doubling time",
    )
