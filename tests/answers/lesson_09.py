"""Right and wrong answers to the exercises of lesson 09."""

import math
import statistics
from itertools import accumulate
from typing import Any

import numpy
import torch

from qwen_course.exercises.judges import lesson_09 as judge

# Question 1


def clocks(queued, started, first_token, ended, tokens):
    each = (ended - first_token) / (tokens - 1)
    return started - queued, first_token - queued, each, ended - queued


def clocks_with_arrays(queued, started, first_token, ended, tokens):
    moments = numpy.array([started, first_token, ended]) - queued
    each = (moments[2] - moments[1]) / (tokens - 1)
    return numpy.array([moments[0], moments[1], each, moments[2]])


def clocks_by_phases(queued, started, first_token, ended, tokens):
    queue, prefill, decode = (
        started - queued, first_token - started, ended - first_token,
    )  # fmt: skip
    return [queue, queue + prefill, decode / (tokens - 1), queue + prefill + decode]


def clocks_that(place, made):
    """Clocks of which one is made otherwise."""

    def answer(*request):
        found = list(clocks(*request))
        found[place] = made(*request)
        return found

    return answer


# Question 2


def p95(users):
    waits = sorted(s for why, s in users if why in ("stop", "length", "timeout"))
    return waits[math.ceil(0.95 * len(waits)) - 1]


def p95_by_counting(users):
    waits = [s for why, s in users if why not in ("refused", "cancelled")]
    return min(w for w in waits if sum(o <= w for o in waits) >= 0.95 * len(waits))


def p95_with_numpy(users):
    waits = [s for why, s in users if why in {"stop", "length", "timeout"}]
    return numpy.percentile(waits, 95, method="inverted_cdf")


def p95_that(*reasons, rank=judge.rank):
    def answer(users):
        waits = [s for why, s in users if why in reasons]
        return rank(waits or [s for _, s in users])

    return answer


COUNTED = ("stop", "length", "timeout")

# Question 3


def from_buckets(buckets, share):
    wanted, low, below = share * buckets[-1][1], 0.0, 0
    for limit, count in buckets:
        if count >= wanted:
            if limit == math.inf:
                return low
            return low + (limit - low) * (wanted - below) / (count - below)
        low, below = limit, count
    return low


def from_buckets_with_numpy(buckets, share):
    limits, counts = numpy.array([[0.0, 0], *buckets]).T
    place = numpy.searchsorted(counts[1:], share * counts[-1]) + 1
    if numpy.isinf(limits[place]):
        return limits[place - 1]
    part = (share * counts[-1] - counts[place - 1]) / (
        counts[place] - counts[place - 1]
    )
    return limits[place - 1] + part * (limits[place] - limits[place - 1])


def from_buckets_by_index(buckets, share):
    wanted = buckets[-1][1] * share
    place = next(i for i, (_, count) in enumerate(buckets) if count >= wanted)
    low, below = buckets[place - 1] if place else (0, 0)
    limit, count = buckets[place]
    if math.isinf(limit):
        return torch.tensor(low)
    return low + (wanted - below) / (count - below) * (limit - low)


def estimate_that(part):
    """An estimate that goes another way into the bucket."""

    def answer(buckets, share):
        wanted, low, below = share * buckets[-1][1], 0.0, 0
        for limit, count in buckets:
            if count >= wanted:
                if limit == math.inf:
                    return low
                return low + (limit - low) * part(wanted, below, count)
            low, below = limit, count
        return low

    return answer


def estimate_adding_up(buckets, share):
    sums = accumulate(count for _, count in buckets)
    return from_buckets([[b[0], s] for b, s in zip(buckets, sums, strict=True)], share)


def estimate_without_infinity(buckets, share):
    wanted, low, below = share * buckets[-1][1], 0.0, 0
    for limit, count in buckets:
        if count >= wanted:
            return low + (limit - low) * (wanted - below) / (count - below)
        low, below = limit, count
    return low


# Question 4


def leaks(sizes):
    quarter = len(sizes) // 4
    before = statistics.median(sizes[quarter : 2 * quarter])
    return statistics.median(sizes[-quarter:]) > 1.05 * before


def leaks_with_numpy(sizes):
    quarter = len(sizes) // 4
    late = numpy.median(sizes[len(sizes) - quarter :])
    return late / numpy.median(sizes[quarter : quarter + quarter]) - 1 > 0.05


def leaks_by_sorting(sizes):
    def middle(part):
        ranked = sorted(part)
        return (ranked[len(part) // 2] + ranked[(len(part) - 1) // 2]) / 2

    size = len(sizes) // 4
    return int(middle(sizes[-size:]) > middle(sizes[size : 2 * size]) * 1.05)


def leaks_that(middle=statistics.median, first=lambda q: slice(q, 2 * q), limit=0.05):
    def answer(sizes):
        quarter = len(sizes) // 4
        before, after = middle(sizes[first(quarter)]), middle(sizes[-quarter:])
        return after > (1 + limit) * before

    return answer


# Question 5

NAMED = {"A": "checkpoint", "B": "load", "C": "leak", "D": "template", "E": "slow",
         "F": "prompts"}  # fmt: skip

# Question 6


def chance(before, after):
    pairs = list(zip(before, after, strict=True))
    lost = sum(a and not b for a, b in pairs)
    changes = lost + sum(b and not a for a, b in pairs)
    ways = sum(math.comb(changes, k) for k in range(lost, changes + 1))
    return ways / 2**changes


def chance_by_multiplying(before, after):
    lost = sum(a > b for a, b in zip(before, after, strict=True))
    won = sum(b > a for a, b in zip(before, after, strict=True))
    shares = [1.0]  # of each number of losses, one change after the other
    for _ in range(lost + won):
        shares = [(a + b) / 2 for a, b in zip([*shares, 0], [0, *shares], strict=True)]
    return sum(shares[lost:])


def chance_with_tensors(before, after):
    change = torch.tensor(before).int() - torch.tensor(after).int()
    lost, changes = int((change > 0).sum()), int((change != 0).sum())
    terms = [math.comb(changes, k) * 0.5**changes for k in range(lost, changes + 1)]
    return torch.tensor(terms, dtype=torch.float64).sum()


def chance_that(made):
    """Return a chance that is made of `lost` and `won` in another way."""

    def answer(before, after):
        pairs = list(zip(before, after, strict=True))
        lost = sum(a and not b for a, b in pairs)
        won = sum(b and not a for a, b in pairs)
        return made(lost, won)

    return answer


sign = judge.sign_test

RIGHT: dict[str, list[Any]] = {
    "09.q1": [clocks, clocks_with_arrays, clocks_by_phases],
    "09.q2": [p95, p95_by_counting, p95_with_numpy],
    "09.q3": [from_buckets, from_buckets_with_numpy, from_buckets_by_index],
    "09.q4": [leaks, leaks_with_numpy, leaks_by_sorting],
    "09.q5": [
        NAMED,
        {name.lower(): fault.upper() for name, fault in NAMED.items()},
        dict(reversed(NAMED.items())),
    ],
    "09.q6": [chance, chance_by_multiplying, chance_with_tensors],
}

WRONG: dict[str, dict[str, Any]] = {
    "09.q1": {
        "queue-to-first-token": clocks_that(0, lambda q, s, f, e, n: f - q),
        "without-queue": clocks_that(1, lambda q, s, f, e, n: f - s),
        "to-the-end": clocks_that(1, lambda q, s, f, e, n: e - q),
        "counts-first-token": clocks_that(2, lambda q, s, f, e, n: (e - f) / n),
        "prefill-counted-in": clocks_that(2, lambda q, s, f, e, n: (e - s) / n),
        "queue-counted-in": clocks_that(2, lambda q, s, f, e, n: (e - q) / n),
        "tokens-per-second": clocks_that(2, lambda q, s, f, e, n: (n - 1) / (e - f)),
        "only-decode": clocks_that(3, lambda q, s, f, e, n: e - f),
        "only-work": clocks_that(3, lambda q, s, f, e, n: e - s),
        "milliseconds": lambda *request: [1000 * one for one in clocks(*request)],
        "other-order": lambda *request: clocks(*request)[::-1],
        "no-four-numbers": lambda *request: clocks(*request)[:3],
    },
    "09.q2": {
        "survivors": p95_that("stop", "length"),
        "drops-cut-off": p95_that("stop", "timeout"),
        "only-stop": p95_that("stop"),
        "counts-everybody": lambda users: judge.rank([s for _, s in users]),
        "counts-refused": p95_that(*COUNTED, "refused"),
        "counts-cancelled": p95_that(*COUNTED, "cancelled"),
        "mean": p95_that(*COUNTED, rank=statistics.mean),
        "median": p95_that(*COUNTED, rank=statistics.median),
        "one-place-off": p95_that(
            *COUNTED, rank=lambda w: sorted(w)[min(int(0.95 * len(w)), len(w) - 1)]
        ),
        "between-two": p95_that(*COUNTED, rank=lambda w: numpy.percentile(w, 95)),
        "slowest": p95_that(*COUNTED, rank=max),
        "from-the-top": p95_that(
            *COUNTED,
            rank=lambda w: sorted(w, reverse=True)[math.ceil(0.95 * len(w)) - 1],
        ),
    },
    "09.q3": {
        "upper-limit": estimate_that(lambda wanted, below, count: 1),
        "lower-limit": estimate_that(lambda wanted, below, count: 0),
        "middle": estimate_that(lambda wanted, below, count: 0.5),
        "forgets-those-below": estimate_that(lambda w, below, count: w / count),
        "not-cumulative": estimate_adding_up,
        "infinite": estimate_without_infinity,
        "drops-the-slow": lambda buckets, share: from_buckets(buckets[:-1], share),
        "share-from-the-top": lambda buckets, share: from_buckets(buckets, 1 - share),
    },
    "09.q4": {
        "one-peak": leaks_that(statistics.mean),
        "counts-warm-up": leaks_that(first=lambda q: slice(0, q)),
        "two-values": lambda sizes: sizes[-1] > 1.05 * sizes[0],
        "any-growth": leaks_that(limit=0),
        "peak-over-start": lambda sizes: max(sizes) > 1.05 * min(sizes),
        "other-way-round": lambda sizes: not leaks(sizes),
        "always-the-same": lambda sizes: False,
        "no-bool": lambda sizes: sizes[-1] - sizes[0],
    },
    "09.q5": {
        "no-dict": ["checkpoint", "load", "leak", "template", "slow", "prompts"],
        "missing": {"A": "checkpoint"},
        "unknown-fault": {**NAMED, "A": "bad luck"},
        "missed-checkpoint": {**NAMED, "A": "template"},
        "missed-load": {**NAMED, "B": "slow"},
        "missed-leak": {**NAMED, "C": "load"},
        "missed-template": {**NAMED, "D": "checkpoint"},
        "missed-slow": {**NAMED, "E": "load"},
        "missed-prompts": {**NAMED, "F": "slow"},
    },
    "09.q6": {
        "two-sided": chance_that(lambda lost, won: min(1.0, 2 * sign(lost, won))),
        "more-than": chance_that(
            lambda lost, won: (
                sign(lost, won) - math.comb(lost + won, lost) / 2 ** (lost + won)
            )
        ),
        "exactly": chance_that(
            lambda lost, won: math.comb(lost + won, lost) / 2 ** (lost + won)
        ),
        "won-for-lost": lambda before, after: chance(after, before),
        "counts-unchanged": lambda before, after: sign(
            sum(a and not b for a, b in zip(before, after, strict=True)),
            sum(b or not a for a, b in zip(before, after, strict=True)),
        ),
        "unpaired": lambda before, after: sign(after.count(False), before.count(False)),
        "difference": lambda a, b: (sum(a) - sum(b)) / len(a),
        "certainty": lambda before, after: 1 - chance(before, after),
    },
}
