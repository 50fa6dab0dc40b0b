"""What the checks of lesson 05 look at: plain Python, no model is loaded."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe

# Question 1


def formats(seed: int) -> list[tuple[int, int, int, int]]:
    """Return formats, (bits, group, scale_bits, zero_bits): with a zero and without."""
    rng = random.Random(seed)
    small, middle, large = rng.sample((24, 32, 48, 64, 96, 128), 3)
    return [
        (4, small, 16, 4),
        (4, middle, 32, 0),
        (8, 256 * rng.randint(4, 20), 16, 0),
        (3, 16, 16, 3),
        (2, large, 8, 2),
    ]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the bits of each format."""
    return [call(answer, *one) for one in formats(seed)]


# Question 2

VOCABULARY = 151_936  # the rows of Qwen's tables


def checkpoints(seed: int) -> list[tuple[int, int, int, bool, float]]:
    """Return models, (parameters, vocabulary, hidden, tied, bits): both kinds."""
    rng = random.Random(seed)

    def model(
        tied: bool, bits: float, hidden: int, vocabulary: int = VOCABULARY
    ) -> Any:
        tables = vocabulary * hidden * (1 if tied else 2)
        layers = 1024 * rng.randint(tables // 1000, tables // 200)
        return (tables + layers, vocabulary, hidden, tied, bits)

    one, two, three, four = (128 * n for n in rng.sample(range(6, 40), 4))
    return [
        model(True, 4, one),
        model(False, 8, two),
        model(True, 4.25, three),
        model(False, 4.5, four),
        model(False, 16, one),
        model(True, 3, 512, 1024 * rng.randint(2, 9)),
    ]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the size of each checkpoint."""
    return [call(answer, *model) for model in checkpoints(seed)]


# Question 3

TOP = {8: 127, 4: 7, 3: 3}  # the largest code


class Row(NamedTuple):
    """Weights, the bits of a code, and how many weights share a scale."""

    row: list[float]
    bits: int
    group: int


def rows(seed: int) -> list[Row]:
    """Return rows: short, with a negative peak, an outlier, tiny weights, zeros.

    No weight is near the middle between two codes.
    """
    rng = random.Random(seed)

    def group(bits: int, size: int, unit: float, sign: int) -> list[float]:
        """Return weights in so many units a code; the largest is the top code."""
        top = TOP[bits]
        whole = [rng.randint(1 - top, top - 1) for _ in range(size - 3)]
        codes = [n + rng.choice((-1, 1)) * rng.uniform(0.1, 0.35) for n in whole]
        codes += [1.7, -1.7, sign * top]
        rng.shuffle(codes)
        return [float(f"{code * unit:.5g}") for code in codes]

    def unit() -> float:
        return rng.uniform(0.002, 0.02)

    return [
        Row(group(4, 4, unit(), 1), 4, 4),
        Row(group(4, 4, 0.01, -1) + group(4, 4, 0.03, 1), 4, 4),
        Row(group(8, 8, unit(), -1), 8, 8),
        Row([*group(8, 8, 0.0004, 1), *group(8, 8, 0.05, -1),
             *group(8, 8, 0.0007, -1)], 8, 8),
        Row(group(3, 16, 1e-5, 1) + group(3, 16, 3e-5, -1), 3, 16),
        Row(group(4, 4, unit(), 1) + [0.0] * 4 + group(4, 4, unit(), -1), 4, 4),
    ]  # fmt: skip


def q3(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Have each row quantized."""
    return [call(answer, *one) for one in rows(seed)]


# Question 4

LEVELS = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
          0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1.0]  # fmt: skip


def blocks(seed: int) -> list[list[float]]:
    """Return blocks: short, long, of small and large weights, with both kinds of peak.

    No weight is near the middle between two levels.
    """
    rng = random.Random(seed)

    def block(size: int, peak: float) -> list[float]:
        parts = [_near(rng, rng.randrange(16)) for _ in range(size - 1)]
        parts.insert(rng.randrange(size), 1.0)
        # 1.0 stands for the peak, which may be negative; all others are nearer to 0.
        return [peak if p == 1 else float(f"{p * abs(peak):.5g}") for p in parts]

    return [
        block(4, 0.25),
        block(6, -0.4),
        block(8, rng.choice((2.5, 3.5))),
        block(16, -round(rng.uniform(0.02, 0.06), 4)),
        block(64, round(rng.uniform(0.05, 0.09), 4)),
        block(64, -round(rng.uniform(0.05, 0.09), 4)),
    ]


def _near(rng: random.Random, code: int) -> float:
    """Return a number from -1 to 1 that is not just at a level, nor between two."""
    sign = 1 if code == 0 else -1 if code == 15 else rng.choice((-1, 1))
    gap = abs(LEVELS[code + sign] - LEVELS[code])
    return LEVELS[code] + sign * gap * rng.uniform(0.15, 0.4)


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Have each block packed."""
    function = _bytes_as_list(answer) if callable(answer) else answer
    return [call(function, block, list(LEVELS)) for block in blocks(seed)]


def _bytes_as_list(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, which gives a list where it gave bytes."""

    def function(*given: Any) -> Any:
        value = answer(*given)
        return list(value) if isinstance(value, bytes | bytearray) else value

    return function


# Question 5


def loads(seed: int) -> list[tuple[int, int, int, int]]:
    """Return loads, (weights, cache, context, bandwidth): short texts and long ones."""
    rng = random.Random(seed)

    def load(context: int) -> tuple[int, int, int, int]:
        weights, cache = rng.randint(10, 300) * 10**8, rng.randint(20, 300) * 1024
        return weights, cache, context, rng.randint(20, 900)

    return [
        load(100 * rng.randint(50, 90)),
        load(0),
        load(1000 * rng.randint(30, 120)),
        load(1000 * rng.randint(200, 900)),
        load(1),
    ]


def q5(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the limit of each load."""
    return [call(answer, *load) for load in loads(seed)]


# Question 6


class Search(NamedTuple):
    """A matrix, the choices (bits, group), and the most error that is allowed."""

    rows: list[list[float]]
    choices: list[tuple[int, int]]
    most: float


def searches(seed: int) -> list[Search]:
    """Return searches: over even weights, small and large ones, and with outliers."""
    rng = random.Random(seed)

    def matrix(spread: float, outlier: int = 0, quiet: float = 1) -> list[list[float]]:
        """Return 4 rows; one has the outlier, and may be quieter than the others."""
        spreads, at = [spread] * 4, rng.randrange(1, 4)
        spreads[at] *= quiet
        made = [[rng.gauss(0, each) for _ in range(64)] for each in spreads]
        if outlier:
            made[at][rng.randrange(64)] = outlier * spreads[at]
        return [[float(f"{weight:.5g}") for weight in row] for row in made]

    def mixed(*choices: tuple[int, int]) -> list[tuple[int, int]]:
        return rng.sample(choices, len(choices))

    return [
        Search(matrix(0.05), [(8, 64), (4, 64), (3, 64)], 0.15),
        Search(matrix(0.05), [(3, 4), (4, 64), (8, 64)], 0.2),
        Search(matrix(0.05), [(8, 16), (4, 16), (4, 32), (4, 64), (2, 64)], 0.14),
        Search(matrix(0.05), mixed((8, 64), (6, 32), (4, 32), (5, 2)), 0.05),
        Search(matrix(0.05, 20), [(4, 64), (8, 64), (4, 8), (3, 8)], 0.2),
        Search(matrix(0.05, -25), mixed((4, 64), (8, 64), (5, 8)), 0.1),
        Search(matrix(0.05, 60), mixed((4, 64), (8, 64), (6, 32)), 0.18),
        Search(matrix(0.05, 20, 0.1), mixed((4, 64), (8, 64), (5, 32)), 0.15),
        Search(matrix(0.004), mixed((4, 64), (3, 64), (2, 64), (5, 64)), 0.14),
        Search(matrix(6.0), mixed((8, 64), (4, 32), (2, 16)), 0.16),
        Search(matrix(0.05), [(8, 32), (4, 16), (6, 64)], 0.001),
    ]


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Let each search be done."""
    return [call(answer, *search) for search in searches(seed)]


PROBES: dict[str, Probe] = {
    "05.q1": q1,
    "05.q2": q2,
    "05.q3": q3,
    "05.q4": q4,
    "05.q5": q5,
    "05.q6": q6,
}
