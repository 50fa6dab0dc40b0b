"""What is right in the exercises of lesson 09."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_09 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import (
    Outcomes,
    Way,
    compared,
    no_bool,
    no_numbers,
    same_truth,
    short,
)
from qwen_course.monitoring import percentile
from qwen_course.quality import sign_test


def _place(heading: str) -> tuple[str, str]:
    return section("09_monitoring", heading)


# Question 1


def clocks(
    queued: float, started: float, first_token: float, ended: float, tokens: int
) -> list[float]:
    """Return queue, first token, each further token and whole request, in seconds."""
    each = (ended - first_token) / (tokens - 1)
    return [started - queued, first_token - queued, each, ended - queued]


CLOCKS = ("the queue", "the first token", "each further token", "the whole request")
PARTS: tuple[tuple[Way, ...], ...] = (
    (
        Way("queue-to-first-token", lambda q, s, f, e, n: f - q,
            "The wait in the queue ends when the model begins with the prompt."),
    ),
    (
        Way("without-queue", lambda q, s, f, e, n: f - s,
            "A user does not know when the model began: the wait counts from the "
            "arrival, the queue with it."),
        Way("to-the-end", lambda q, s, f, e, n: e - q,
            "That is the time until all is there."),
    ),
    (
        Way("counts-first-token", lambda q, s, f, e, n: (e - f) / n,
            "Between n tokens there are n - 1 gaps."),
        Way("prefill-counted-in", lambda q, s, f, e, n: (e - s) / n,
            "The prefill is in it: a long prompt would make the writing look slow."),
        Way("prefill-counted-in", lambda q, s, f, e, n: (e - s) / (n - 1),
            "The prefill is in it: a long prompt would make the writing look slow."),
        Way("queue-counted-in", lambda q, s, f, e, n: (e - q) / n,
            "The wait and the prefill are in it. Begin at the first token."),
        Way("queue-counted-in", lambda q, s, f, e, n: (e - q) / (n - 1),
            "The wait and the prefill are in it. Begin at the first token."),
        Way("tokens-per-second", lambda q, s, f, e, n: (n - 1) / (e - f),
            "Those are tokens a second. Seconds a token are asked for."),
    ),
    (
        Way("only-decode", lambda q, s, f, e, n: e - f,
            "That is the decode alone. The user has been there since `queued`."),
        Way("only-work", lambda q, s, f, e, n: e - s,
            "The queue is missing: the user has been there since `queued`."),
    ),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the four clocks of each request, one clock after the other."""
    cases: list[Any] = [tuple(request) for request in probe.requests(seed)]
    shown = [f"clocks({', '.join(map(str, case))})" for case in cases]
    right = [clocks(*case) for case in cases]
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_four(seen, shown),
        *(lambda part=part: _clock(part, cases, seen, shown, right)
          for part in range(4)),
    )  # fmt: skip


def _no_four(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        good = isinstance(value, list) and all(map(mistakes.is_number, value))
        if not good or len(value) != 4:
            said = f"{text} gave {short(value)}. Return four numbers, in this order: "
            return Mistake("no-four-numbers", f"{said}{', '.join(CLOCKS)}.")
    return None


def _clock(part: int, cases, seen: Outcomes, shown, right) -> Mistake | None:
    values = [{"value": outcome["value"][part]} for outcome in seen]
    texts = [f"{text}[{part}]" for text in shown]
    expected = [clock[part] for clock in right]
    milliseconds = Way(
        "milliseconds", lambda *case: 1000 * clocks(*case)[part],
        "Those are milliseconds. Return seconds.",
    )  # fmt: skip
    other = [
        Way("other-order", lambda *case, n=n: clocks(*case)[n],
            f"That is {CLOCKS[n]}; here {CLOCKS[part]} is asked for.")
        for n in range(4) if n != part
    ]  # fmt: skip
    ways = (*PARTS[part], milliseconds, *other)
    advice = f"Which two moments are the ends of {CLOCKS[part]}?"
    return compared(cases, values, texts, expected, ways, mistakes.close, advice)


# Question 2


def rank(values: Sequence[float], share: float = 0.95) -> float:
    """Return the nearest rank of some values."""
    return percentile(values, share)


Users = list[probe.Wait]
COUNTED = ("stop", "length", "timeout")


def _of(users: Users, *reasons: str) -> list[float]:
    """Return the waits of users that ended so; of all if nobody did."""
    chosen = [seconds for reason, seconds in users if reason in reasons]
    return chosen or [seconds for _, seconds in users]


def p95(users: Users) -> float:
    """Return what 95% of those waited at most who were answered or gave up."""
    return rank(_of(users, *COUNTED))


def _between(values: Sequence[float]) -> float:
    """Return the percentile that lies between two values, as numpy's does."""
    ranked, place = sorted(values), 0.95 * (len(values) - 1)
    low, part = int(place), place % 1
    high = ranked[min(low + 1, len(ranked) - 1)]
    return ranked[low] + part * (high - ranked[low])


def _floor(values: Sequence[float]) -> float:
    return sorted(values)[min(int(0.95 * len(values)), len(values) - 1)]


WAITS = (
    Way("survivors", lambda users: rank(_of(users, "stop", "length")),
        "Those who ran out of time are missing. Without them, a service that answers "
        "half of its users looks quick. They waited at least as long as they did."),
    Way("drops-cut-off", lambda users: rank(_of(users, "stop", "timeout")),
        "Requests that were cut off (length) got their first token like the others."),
    Way("only-stop", lambda users: rank(_of(users, "stop")),
        "Only those with a complete answer are in it. Cut off (length) had a first "
        "token, too, and who ran out of time had a wait."),
    Way("counts-everybody", lambda users: rank([seconds for _, seconds in users]),
        "Refused requests are quick, and cancelled ones ended by their user's wish: "
        "neither tells how long the service lets people wait."),
    Way("counts-refused", lambda users: rank(_of(users, *COUNTED, "refused")),
        "Refused requests are in it. They are over at once, and that is no merit."),
    Way("counts-cancelled", lambda users: rank(_of(users, *COUNTED, "cancelled")),
        "Cancelled requests are in it: when they ended was up to their user."),
    Way("mean", lambda users: statistics.mean(_of(users, *COUNTED)),
        "That is the mean. It hides those who waited longest."),
    Way("median", lambda users: rank(_of(users, *COUNTED), 0.5),
        "That is the median: half of the users waited longer."),
    Way("median", lambda users: statistics.median(_of(users, *COUNTED)),
        "That is the median: half of the users waited longer."),
    Way("one-place-off", lambda users: _floor(_of(users, *COUNTED)),
        "That is one place too far where 95% of the number is whole. The 19th of 20 "
        "already has 95% at or below it; lists begin at 0."),
    Way("between-two", lambda users: _between(_of(users, *COUNTED)),
        "That value lies between two waits, nobody had it (numpy.percentile does so by "
        "default). Take the nearest rank."),
    Way("slowest", lambda users: max(_of(users, *COUNTED)),
        "That is the longest wait."),
    Way("from-the-top", lambda users: sorted(_of(users, *COUNTED), reverse=True)[
        math.ceil(round(0.95 * len(_of(users, *COUNTED)), 9)) - 1],
        "The waits are in falling order here. Sort them with the shortest first."),
)  # fmt: skip


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the percentile of each crowd."""
    crowds = probe.crowds(seed)
    shown = [f"p95 of {_counted(crowd)}" for crowd in crowds]
    cases, right = [(crowd,) for crowd in crowds], [p95(crowd) for crowd in crowds]
    advice = "Choose who counts, sort, and take the place ceil(0.95 * number)."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, WAITS, mistakes.close, advice),
    )


def _counted(users: Users) -> str:
    """Say of whom a crowd consists, as in "20 stop, 3 timeout"."""
    reasons = [reason for reason, _ in users]
    return ", ".join(f"{reasons.count(one)} {one}" for one in dict.fromkeys(reasons))


# Question 3


def from_buckets(
    buckets: list[list[float]], share: float, part: Callable[..., float] | None = None
) -> float:
    """Return the estimate as Prometheus makes it; `part` says where in the bucket."""
    wanted, low, below = share * buckets[-1][1], 0.0, 0.0
    for limit, count in buckets:
        if count >= wanted:
            if math.isinf(limit):
                return low
            where = part or (
                lambda wanted, below, count: (wanted - below) / (count - below)
            )
            return low + (limit - low) * where(wanted, below, count)
        low, below = limit, count
    return low


def _rough(buckets: list[list[float]], share: float, fraction: float) -> float:
    return from_buckets(buckets, share, lambda *_: fraction)


def _not_cumulative(buckets: list[list[float]], share: float) -> float:
    """Estimate as if each bucket held its own requests only."""
    total, sums = 0.0, []
    for limit, count in buckets:
        total += count
        sums.append([limit, total])
    return from_buckets(sums, share)


def _infinite(buckets: list[list[float]], share: float) -> Any:
    value = from_buckets(buckets, share)
    return (
        "inf"
        if value == buckets[-2][0] and buckets[-2][1] < share * buckets[-1][1]
        else value
    )


def _of_finite(buckets: list[list[float]], share: float) -> float:
    """Estimate for the requests within the last finite limit only."""
    return from_buckets(buckets[:-1], share)


ESTIMATES = (
    Way("upper-limit", lambda buckets, share: _rough(buckets, share, 1.0),
        "That is the upper limit of the bucket. Draw a straight line through it."),
    Way("lower-limit", lambda buckets, share: _rough(buckets, share, 0.0),
        "That is the lower limit of the bucket. Draw a straight line through it."),
    Way("middle", lambda buckets, share: _rough(buckets, share, 0.5),
        "That is the middle of the bucket, wherever the wanted request lies in it."),
    Way("forgets-those-below",
        lambda buckets, share: from_buckets(
            buckets, share, lambda wanted, below, count: wanted / count),
        "Take off those below the bucket, of what is wanted and of the count: only "
        "what is in the bucket is spread over it."),
    Way("forgets-those-below",
        lambda buckets, share: from_buckets(
            buckets, share, lambda wanted, below, count: (wanted - below) / count),
        "The counts are cumulative: in the bucket are `count` less those below it."),
    Way("not-cumulative", _not_cumulative,
        "You added the counts up. They are cumulative already: each bucket holds "
        "everything up to its limit."),
    Way("infinite", _infinite,
        "Beyond the last finite limit nothing is known. Return that limit."),
    Way("drops-the-slow", _of_finite,
        "The requests in the last bucket, beyond all limits, are requests, too: the "
        "share is of all of them."),
    Way("share-from-the-top", lambda buckets, share: from_buckets(buckets, 1 - share),
        "You counted from the slowest. The share is that of the quickest."),
)  # fmt: skip


def _near(value: Any, expected: Any) -> bool:
    if "inf" in (value, expected):
        return value == expected
    return mistakes.close(value, expected)


def q3(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the estimate of each histogram."""
    cases: list[Any] = [tuple(each) for each in probe.histograms(seed)]
    shown = [f"from_buckets({short(case[0])}, {case[1]})" for case in cases]
    right = [from_buckets(*case) for case in cases]
    advice = (
        "Find the first bucket whose count reaches share * total, and go as far into "
        "it as the wanted request lies among those in it."
    )
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_estimate(seen, shown),
        lambda: compared(cases, seen, shown, right, ESTIMATES, _near, advice),
    )


def _no_estimate(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    known = [one for one in seen if one["value"] != "inf"]
    texts = [text for one, text in zip(seen, shown, strict=True) if one in known]
    return no_numbers(known, texts)


# Question 4


def leaks(sizes: Sequence[float], middle: Callable = statistics.median) -> bool:
    """Say whether the last quarter holds over 5% more than the second one."""
    quarter = len(sizes) // 4
    before, after = middle(sizes[quarter : 2 * quarter]), middle(sizes[-quarter:])
    return after > (1 + probe.LIMIT) * before


def _over(before: float, after: float, limit: float = probe.LIMIT) -> bool:
    return after > (1 + limit) * before


LEAKS = (
    Way("one-peak", lambda sizes: leaks(sizes, statistics.mean),
        "One large request moves a mean. Take medians: a leak does not come down."),
    Way("one-peak", lambda sizes: leaks(sizes, max),
        "One large request is no leak: what was taken came back. Take medians."),
    Way("counts-warm-up", lambda sizes: _over(
            statistics.median(sizes[: len(sizes) // 4]),
            statistics.median(sizes[-(len(sizes) // 4) :])),
        "The first quarter is the warm-up: caches fill, threads start. Leave it out."),
    Way("two-values", lambda sizes: _over(sizes[0], sizes[-1]),
        "Two single values decide here, the first one before the warm-up. Compare "
        "quarters, by their medians."),
    Way("two-values", lambda sizes: _over(sizes[len(sizes) // 4], sizes[-1]),
        "Two single values decide here. Compare quarters, by their medians."),
    Way("any-growth", lambda sizes: _over(
            statistics.median(sizes[len(sizes) // 4 : 2 * (len(sizes) // 4)]),
            statistics.median(sizes[-(len(sizes) // 4) :]), 0.0),
        "Any growth is a leak here. A little noise must not ring an alarm: allow 5%."),
    Way("peak-over-start", lambda sizes: _over(min(sizes), max(sizes)),
        "Smallest against largest: warm-up and single peaks are in it."),
    Way("other-way-round", lambda sizes: not leaks(sizes),
        "It is the other way round: True is a leak."),
    Way("always-the-same", lambda sizes: False, "No history is a leak to it."),
    Way("always-the-same", lambda sizes: True, "Every history is a leak to it."),
)  # fmt: skip


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what is said of each history."""
    histories = probe.histories(seed)
    shown = [f"leaks({short(one)})" for one in histories]
    cases, right = [(one,) for one in histories], [leaks(one) for one in histories]
    advice = "Median of the second quarter against median of the last one, 5% allowed."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_bool(seen, shown),
        lambda: compared(cases, seen, shown, right, LEAKS, same_truth, advice),
    )


# Question 5

FAULTS = {
    "A": "checkpoint",
    "B": "load",
    "C": "leak",
    "D": "template",
    "E": "slow",
    "F": "prompts",
}
CLUES = {
    "checkpoint": "All clocks and lengths are as in the good time. What is not?",
    "load": "Each pass is as quick as before. Where do its users wait?",
    "leak": "Its users see nothing. What grows, after the warm-up?",
    "template": "The clocks are fine. The answers are long, cut off and wrong: the "
    "model does not find its end. Weights that are a little worse still end.",
    "slow": "The first token is late, and each further one too, though nobody queues.",
    "prompts": "The first token is late, but not for the queue, and each further token "
    "is as quick as before. What is read before the first token?",
}


def q5(seen: Any, seed: int) -> Mistake | None:
    """Compare the faults that were named, one service after the other."""
    if not isinstance(seen, dict):
        text = (
            f'Your answer is {short(seen)}. Give a dict such as {{"A": "leak", ...}}.'
        )
        return Mistake("no-dict", text)
    named = {str(key).strip().upper(): value for key, value in seen.items()}
    if missing := [name for name in FAULTS if name not in named]:
        return Mistake("missing", f"Services {', '.join(missing)} are missing.")
    for name, fault in FAULTS.items():
        given = str(named[name]).strip().lower()
        if given not in CLUES:
            known = ", ".join(sorted(CLUES))
            return Mistake("unknown-fault", f'{name}: "{given}" is not one of {known}.')
        if given != fault:
            return Mistake(f"missed-{fault}", f"{name} is not {given}. {CLUES[fault]}")
    return None


# Question 6

Run = Sequence[bool]


def _changes(before: Run, after: Run) -> tuple[int, int]:
    pairs = list(zip(before, after, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def chance(before: Run, after: Run) -> float:
    """Return how likely so many losses or more among the changes are by chance."""
    return sign_test(*_changes(before, after))


def _exactly(before: Run, after: Run) -> float:
    lost, won = _changes(before, after)
    return math.comb(lost + won, lost) / 2 ** (lost + won)


def _among_all(before: Run, after: Run) -> float:
    lost, _ = _changes(before, after)
    return sign_test(lost, len(before) - lost)


def _all_wrong(before: Run, after: Run) -> float:
    """Compare the wrong answers of both runs, as if they were the changes."""
    return sign_test(len(after) - sum(after), len(before) - sum(before))


CHANCES = (
    Way("two-sided", lambda before, after: min(1.0, 2 * chance(before, after)),
        "That is twice as much: you asked for a change in any direction. Here only "
        "becoming worse counts."),
    Way("more-than", lambda *runs: chance(*runs) - _exactly(*runs),
        "You counted *more* losses than these. So many *or* more are asked for."),
    Way("exactly", _exactly,
        "That is the chance of exactly so many losses. Add those of more."),
    Way("won-for-lost", lambda before, after: chance(after, before),
        "That is the chance of so many losses or *fewer*. Or lost and won are "
        "exchanged: lost were right before and are wrong now."),
    Way("counts-unchanged", _among_all,
        "Questions that did not change are throws of the coin here. What both runs "
        "have in common tells nothing of the difference."),
    Way("unpaired", _all_wrong,
        "You compared the numbers of wrong answers. Most of them may be the same "
        "questions: go through both runs question by question."),
    Way("difference", lambda before, after: (sum(before) - sum(after)) / len(before),
        "That is the drop in accuracy. How likely is it by chance?"),
    Way("certainty", lambda before, after: 1 - chance(before, after),
        "That is one minus the chance."),
)  # fmt: skip


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the chance of each pair of runs."""
    cases = probe.runs(seed)
    changes = [_changes(*case) for case in cases]
    shown = [
        f"chance of {lost} lost and {won} won among {len(case[0])} questions"
        for case, (lost, won) in zip(cases, changes, strict=True)
    ]
    right = [chance(*case) for case in cases]
    advice = "Sum comb(changes, k) for k from lost to changes, by 2 ** changes."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, CHANCES, mistakes.close, advice),
    )


QUESTIONS = (
    Question(
        id="09.q1",
        title="Four clocks",
        outcome=4,
        difficulty="warm-up",
        minutes=8,
        judge=q1,
        hints=(
            "Draw the four moments on a line, and the four times as arrows below it. "
            "Which of them begin when the user came?",
            "Three are differences to `queued`. For each further token, take the time "
            "from the first token to the end, by the number of gaps.",
        ),
        look=_place("1. One request, four clocks"),
        why="Each clock has its own remedy: more places, shorter prompts, a faster "
        "model, shorter answers.",
    ),
    Question(
        id="09.q2",
        title="Who counts",
        outcome=4,
        difficulty="core",
        minutes=10,
        judge=q2,
        hints=(
            "Go through the five reasons: does this wait tell how long the service "
            "lets people wait?",
            "stop, length and timeout count. Sort their seconds; the place is "
            "math.ceil(0.95 * number), counted from 1.",
        ),
        look=_place("2. Numbers that mislead"),
        why="Whoever gave up has waited as well; whoever was refused has not.",
    ),
    Question(
        id="09.q3",
        title="A percentile from buckets",
        outcome=4,
        difficulty="core",
        minutes=15,
        judge=q3,
        hints=(
            "Which request is wanted, counted from the quickest? In which bucket is "
            "it, and how many of those in this bucket come before it?",
            "low + (limit - low) * (wanted - below) / (count - below), with low and "
            "below from the bucket before; 0 for the first. At inf, return low.",
        ),
        look=_place("4. Out of the process: Prometheus and traces"),
        why="Buckets of all replicas can be added before this line is drawn; "
        "percentiles of replicas cannot be averaged.",
    ),
    Question(
        id="09.q4",
        title="A leak, or a warm-up",
        outcome=4,
        difficulty="core",
        minutes=12,
        judge=q4,
        hints=(
            "Draw a warm-up, one large request and a leak. Where in time do the three "
            "differ, and which kind of mean ignores a single peak?",
            "quarter = len(sizes) // 4; statistics.median of "
            "sizes[quarter : 2 * quarter] and of sizes[-quarter:].",
        ),
        look=_place("6. Break it, four times"),
        why="A warm-up ends, a peak comes back, a leak does neither.",
    ),
    Question(
        id="09.q5",
        title="Which fault is it?",
        outcome=3,
        difficulty="core",
        minutes=10,
        judge=q5,
        hints=(
            "Mark in each row what differs from the good time by a lot. Begin with the "
            "rows in which only one number does.",
            "Late first tokens have three causes: the queue, the prompt, slow passes. "
            "The columns beside tell which. Wrong answers have two: do they end?",
        ),
        look=_place("6. Break it, four times"),
        why="No single number sees all faults, and each fault leaves most numbers as "
        "they were.",
    ),
    Question(
        id="09.q6",
        title="Lost and won",
        outcome=5,
        difficulty="stretch",
        minutes=18,
        judge=q6,
        hints=(
            "Which questions tell a difference between the runs at all? If both were "
            "equally good, how would each of those fall?",
            "With c changes, of which l are lost: the sum of math.comb(c, k) for k "
            "from l to c, divided by 2 ** c. No changes give 1.",
        ),
        look=_place("7. Is the new checkpoint worse, or unlucky?"),
        why="This is the exact test of McNemar: what both runs have in common cancels "
        "out, so that small differences show with fewer questions.",
    ),
)
