"""What the checks of lesson 09 look at: functions on numbers, no model is loaded."""

import random
from typing import Any, NamedTuple

from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe, plain

# Question 1


class Request(NamedTuple):
    """The moments of a request, in seconds of one clock, and the tokens it wrote."""

    queued: float
    started: float
    first_token: float
    ended: float
    tokens: int


def requests(seed: int) -> list[Request]:
    """Return requests that wait long, read long, write long; one of two tokens."""
    rng = random.Random(seed)

    def request(wait: float, prefill: float, decode: float, tokens: int) -> Request:
        moment, moments = float(rng.randint(20, 90)), list[float]()
        for step in (0.0, wait, prefill, decode):
            moment += step * (1 + rng.random() / 10)
            moments.append(round(moment, 4))
        queued, started, first, ended = moments
        return Request(queued, started, first, ended, tokens)

    return [
        request(0.3, 0.5, 2.0, rng.randint(20, 30)),
        request(8.0, 0.2, 1.0, rng.randint(40, 60)),
        request(0.1, 6.0, 0.5, rng.randint(5, 9)),
        request(0.2, 0.3, 0.05, 2),
    ]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the four clocks of each request."""
    return [call(answer, *request) for request in requests(seed)]


# Question 2


class Wait(NamedTuple):
    """How a request ended, and the seconds to its first token or to its end."""

    reason: str
    seconds: float


def crowds(seed: int) -> list[list[Wait]]:
    """Return users in random order: all answered, some given up, many refused."""
    rng = random.Random(seed)

    def crowd(**numbers: int) -> list[Wait]:
        ranges = {"stop": (0.2, 3.0), "length": (0.3, 4.0), "timeout": (60.0, 61.0),
                  "refused": (0.001, 0.01), "cancelled": (5.0, 9.0)}  # fmt: skip
        users = [
            Wait(reason, round(rng.uniform(*ranges[reason]), 3))
            for reason, number in numbers.items()
            for _ in range(number)
        ]
        rng.shuffle(users)
        return users

    return [
        crowd(stop=20),
        crowd(stop=30, length=9),
        crowd(stop=17, timeout=4, length=2),
        crowd(stop=12, refused=40, length=1),
        crowd(stop=15, cancelled=8, refused=3, timeout=1, length=6),
        crowd(stop=1),
        crowd(timeout=5, refused=30),
    ]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the 95th percentile of each crowd, given as [reason, seconds] pairs."""
    return [call(answer, [list(user) for user in crowd]) for crowd in crowds(seed)]


# Question 3

LIMITS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, float("inf"))


class Histogram(NamedTuple):
    """Cumulative buckets, [limit, requests up to it], and which part is asked for."""

    buckets: list[list[float]]
    share: float


def histograms(seed: int) -> list[Histogram]:
    """Return histograms: wide, narrow, in the first bucket, beyond the last one."""
    rng = random.Random(seed)

    def histogram(counts: list[int], share: float) -> Histogram:
        total, buckets = 0, list[list[float]]()
        for limit, count in zip(LIMITS, counts, strict=True):
            total += count
            buckets.append([limit, total])
        return Histogram(buckets, share)

    def some(low: int = 3, high: int = 40) -> int:
        return rng.randint(low, high)

    wide = [some() for _ in LIMITS[:-1]]
    return [
        histogram([*wide, 0], 0.5),
        histogram([*wide, 0], 0.95),
        histogram([0, 0, some(), some(30, 60), 0, 0, some(1, 3), 0, 0], 0.5),
        histogram([some(80, 90), some(1, 5), 0, 0, 0, 0, 0, 0, 0], 0.5),
        histogram([0, 0, 0, 0, 0, some(), some(), some(), some(80, 90)], 0.95),
    ]


def q3(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the estimate of each histogram."""
    return [
        call(answer, [list(one) for one in each.buckets], each.share)
        for each in histograms(seed)
    ]


# Question 4

LIMIT = 0.05


def histories(seed: int) -> list[list[float]]:
    """Return memory over time in MiB: flat, warming up, leaking, with one peak."""
    rng = random.Random(seed)
    base = rng.randint(400, 900)

    def noisy(sizes: list[float]) -> list[float]:
        return [round(size + rng.uniform(-1, 1), 1) for size in sizes]

    step = base * rng.uniform(0.02, 0.03)
    return [
        noisy([base] * 16),
        noisy([base * 0.3, base * 0.6, base * 0.9, *[base] * 17]),
        noisy([base + step * n for n in range(24)]),
        noisy([*[base] * 18, base * 1.9, base]),
        noisy([*[base] * 12, *[base * 1.3] * 4]),
        noisy([*[base] * 5, base * 1.8, base * 1.7, *[base] * 14]),
        noisy([base + base * 0.001 * n for n in range(20)]),
        noisy([base * 1.6, base * 1.4, *[base + step * n for n in range(14)]]),
    ]


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask about each history whether it is a leak."""
    return [call(answer, list(history)) for history in histories(seed)]


# Question 5


def q5(answer: Any, seed: int) -> Any:
    """Return which fault was named for each service."""
    return plain(answer)


# Question 6


def runs(seed: int) -> list[tuple[list[bool], list[bool]]]:
    """Return two runs on the same questions: worse, better, equal, much in common."""
    rng = random.Random(seed)

    def pair(both: int, neither: int, lost: int, won: int):
        rows = [(True, True)] * both + [(False, False)] * neither
        rows += [(True, False)] * lost + [(False, True)] * won
        rng.shuffle(rows)
        return [old for old, _ in rows], [new for _, new in rows]

    return [
        pair(rng.randint(20, 40), rng.randint(2, 9), 6, 0),
        pair(rng.randint(20, 40), rng.randint(2, 9), 9, 3),
        pair(rng.randint(60, 90), 0, 4, 4),
        pair(rng.randint(5, 9), rng.randint(5, 9), 1, 6),
        pair(rng.randint(9, 20), rng.randint(1, 4), 0, 0),
    ]


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the chance of each pair of runs."""
    return [call(answer, *pair) for pair in runs(seed)]


PROBES: dict[str, Probe] = {
    "09.q1": q1,
    "09.q2": q2,
    "09.q3": q3,
    "09.q4": q4,
    "09.q5": q5,
    "09.q6": q6,
}
