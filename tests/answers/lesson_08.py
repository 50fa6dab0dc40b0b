"""Right and wrong answers to the exercises of lesson 08."""

import asyncio
import html
import math
import re
import statistics
from collections import defaultdict, deque
from hmac import compare_digest
from typing import Any

import numpy

from qwen_course.exercises.judges import lesson_08 as judge
from qwen_course.exercises.probes import lesson_08 as probe

# Question 1


def tail(waits, share):
    return sorted(waits)[math.ceil(share * len(waits)) - 1]


def tail_by_counting(waits, share):
    enough = [
        wait
        for wait in waits
        if sum(other <= wait for other in waits) >= share * len(waits)
    ]
    return min(enough)


def tail_with_numpy(waits, share):
    return numpy.quantile(waits, share, method="inverted_cdf")


# Question 2


def waits(arrivals, seconds):
    free, found = 0.0, []
    for arrival, work in zip(arrivals, seconds, strict=True):
        free = max(free, arrival) + work
        found.append(free - arrival)
    return found


def waits_recursive(arrivals, seconds):
    """Lindley's rule: what is left of the wait before, when the next one comes."""
    found: list[float] = []
    for number, work in enumerate(seconds):
        left = 0.0
        if number:
            gap = arrivals[number] - arrivals[number - 1]
            left = max(0.0, found[-1] - gap)
        found.append(left + work)
    return found


def waits_with_arrays(arrivals, seconds):
    ends = numpy.zeros(len(arrivals))
    for n in range(len(arrivals)):
        before = ends[n - 1] if n else arrivals[0]
        ends[n] = max(before, arrivals[n]) + seconds[n]
    return ends - numpy.array(arrivals)


# Question 3


async def ask_all(ask, questions, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one(question):
        async with gate:
            try:
                return await ask(question)
            except TimeoutError:
                return None

    return list(await asyncio.gather(*map(one, questions)))


async def ask_all_with_workers(ask, questions, at_once):
    left = deque(enumerate(questions))
    answers: list[str | None] = [None] * len(questions)

    async def worker():
        while left:
            place, question = left.popleft()
            try:
                answers[place] = await ask(question)
            except TimeoutError:
                continue

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return answers


async def ask_all_with_exceptions(ask, questions, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one(question):
        async with gate:
            return await ask(question)

    found = await asyncio.gather(*map(one, questions), return_exceptions=True)
    return [None if isinstance(answer, TimeoutError) else answer for answer in found]


async def without_gate(ask, questions, at_once):
    return await ask_all(ask, questions, len(questions))


async def in_a_row(ask, questions, at_once):
    return await ask_all(ask, questions, 1)


async def by_batches(ask, questions, at_once):
    answers: list[str | None] = []
    for start in range(0, len(questions), at_once):
        part = questions[start : start + at_once]
        answers += await ask_all(ask, part, at_once)
    return answers


async def as_they_come(ask, questions, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one(question):
        async with gate:
            try:
                return await ask(question)
            except TimeoutError:
                return None

    tasks = [asyncio.ensure_future(one(question)) for question in questions]
    return [await task for task in asyncio.as_completed(tasks)]


async def without_catching(ask, questions, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one(question):
        async with gate:
            return await ask(question)

    return list(await asyncio.gather(*map(one, questions)))


async def with_errors(ask, questions, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one(question):
        async with gate:
            return await ask(question)

    return await asyncio.gather(*map(one, questions), return_exceptions=True)


async def without_the_late(ask, questions, at_once):
    answers = await ask_all(ask, questions, at_once)
    return [answer for answer in answers if answer is not None]


async def joined(ask, questions, at_once):
    return str(await ask_all(ask, questions, at_once))


async def with_words_for_none(ask, questions, at_once):
    return [one or "late" for one in await ask_all(ask, questions, at_once)]


def no_coroutine(ask, questions, at_once):
    return [f"answer to {question}" for question in questions]


# Question 4


def neutral(text, control):
    for token in control:
        turned = token.replace("<", "\u2039").replace(">", "\u203a")
        text = text.replace(token, turned)
    return text


def neutral_by_pattern(text, control):
    pattern = "|".join(map(re.escape, control))
    return re.sub(pattern, lambda found: f"\u2039{found[0][1:-1]}\u203a", text)


def neutral_by_splitting(text, control):
    for token in control:
        text = f"\u2039{token[1:-1]}\u203a".join(text.split(token))
    return text


# Question 5


def admitted(requests, most, seconds):
    charged: list[tuple[float, str, int]] = []
    let = []
    for now, key, prompt, limit in requests:
        used = sum(
            tokens for then, owner, tokens in charged
            if owner == key and then > now - seconds
        )  # fmt: skip
        let.append(used + prompt + limit <= most)
        if let[-1]:
            charged.append((now, key, prompt + limit))
    return let


def admitted_with_queues(requests, most, seconds):
    queues: dict[str, deque] = defaultdict(deque)
    used: dict[str, int] = defaultdict(int)
    let = []
    for now, key, prompt, limit in requests:
        while queues[key] and queues[key][0][0] <= now - seconds:
            used[key] -= queues[key].popleft()[1]
        fits = used[key] + prompt + limit <= most
        if fits:
            used[key] += prompt + limit
            queues[key].append((now, prompt + limit))
        let.append(fits)
    return let


def admitted_with_arrays(requests, most, seconds):
    let = numpy.zeros(len(requests), dtype=bool)
    times = numpy.array([request[0] for request in requests])
    keys = numpy.array([request[1] for request in requests])
    costs = numpy.array([request[2] + request[3] for request in requests])
    for n in range(len(requests)):
        same = let & (keys == keys[n]) & (times > times[n] - seconds)
        let[n] = costs[same].sum() + costs[n] <= most
    return let


def admitted_that(**changes: Any):
    return lambda *given: judge.admitted(*given, **changes)


# Question 6


def genuine(secret, conversation):
    for number, message in enumerate(conversation):
        if message["role"] == "assistant":
            expected = probe.seal(secret, conversation[: number + 1])
            if not compare_digest(message.get("seal", ""), expected):
                return False
        elif message["role"] != "user":
            return False
    return True


def genuine_in_one_line(secret, conversation):
    return all(
        message["role"] == "user"
        or (
            message["role"] == "assistant"
            and message.get("seal") == probe.seal(secret, conversation[: number + 1])
        )
        for number, message in enumerate(conversation)
    )


def genuine_from_behind(secret, conversation):
    if not conversation:
        return True
    *earlier, last = conversation
    if last["role"] not in ("user", "assistant"):
        return False
    sealed = "seal" in last and last["seal"] == probe.seal(secret, conversation)
    return (last["role"] == "user" or sealed) and genuine_from_behind(secret, earlier)


def genuine_that(**changes: Any):
    return lambda *given: judge.genuine(*given, **changes)


def genuine_changing(secret, conversation):
    kept = judge.genuine(secret, conversation)
    for message in conversation:
        message.pop("seal", None)
    return kept


RIGHT = {
    "08.q1": [tail, tail_by_counting, tail_with_numpy],
    "08.q2": [waits, waits_recursive, waits_with_arrays],
    "08.q3": [ask_all, ask_all_with_workers, ask_all_with_exceptions],
    "08.q4": [neutral, neutral_by_pattern, neutral_by_splitting],
    "08.q5": [admitted, admitted_with_queues, admitted_with_arrays],
    "08.q6": [genuine, genuine_in_one_line, genuine_from_behind],
}
WRONG = {
    "08.q1": {
        "mean": lambda waits, share: statistics.mean(waits),
        "longest": lambda waits, share: max(waits),
        "median": lambda waits, share: statistics.median(waits),
        "not-sorted": lambda waits, share: waits[math.ceil(share * len(waits)) - 1],
        "other-end": lambda waits, share: tail([-wait for wait in waits], share) * -1,
        "one-rank-too-high": lambda waits, share: sorted([*waits, max(waits)])[
            int(share * len(waits))
        ],
        "one-rank-too-low": lambda waits, share: sorted(waits)[
            int(share * len(waits)) - 1
        ],
        "between-two": lambda waits, share: numpy.quantile(waits, share),
        "the-rank": lambda waits, share: math.ceil(share * len(waits)),
        "no-number": lambda waits, share: sorted(waits),
        "changes-input": lambda waits, share: waits.sort() or tail(waits, share),
        "other": lambda waits, share: 99.0,
    },
    "08.q2": {
        "from-the-start-of-work": lambda arrivals, seconds: seconds,
        "queue-only": lambda arrivals, seconds: [
            wait - work
            for wait, work in zip(waits(arrivals, seconds), seconds, strict=True)
        ],
        "clock-time": lambda arrivals, seconds: [
            wait + arrival
            for wait, arrival in zip(waits(arrivals, seconds), arrivals, strict=True)
        ],
        "never-idle": lambda arrivals, seconds: (
            arrivals[0] + numpy.cumsum(seconds) - arrivals
        ),
        "from-the-one-before": lambda arrivals, seconds: numpy.diff(
            [arrivals[0], *numpy.add(waits(arrivals, seconds), arrivals)]
        ),
        "all-the-work": lambda arrivals, seconds: numpy.cumsum(seconds),
        "no-list": lambda arrivals, seconds: sum(waits(arrivals, seconds)),
        "other": lambda arrivals, seconds: [7.0] * len(arrivals),
    },
    "08.q3": {
        "too-many-at-once": without_gate,
        "one-after-the-other": in_a_row,
        "waits-for-the-batch": by_batches,
        "order-of-answers": as_they_come,
        "one-error-loses-all": without_catching,
        "no-answers": with_errors,
        "leaves-out": without_the_late,
        "no-list": joined,
        "other": with_words_for_none,
        "no-coroutine": no_coroutine,
    },
    "08.q4": {
        "removes": lambda text, control: re.sub(
            "|".join(map(re.escape, control)), "", text
        ),
        "nothing": lambda text, control: text,
        "escapes-everything": lambda text, control: html.escape(text),
        "turns-every-bracket": lambda text, control: text.translate(judge.QUOTES),
        "first-only": lambda text, control: [
            text := text.replace(token, token.translate(judge.QUOTES), 1)
            for token in control
        ][-1],
        "one-side": lambda text, control: [
            text := text.replace(token, token.replace("<", "\u2039"))
            for token in control
        ][-1],
        "special-only": lambda text, control: neutral(
            text, [token for token in control if token.startswith("<|")]
        ),
        "own-list": lambda text, control: neutral(text, probe.TOKENS),
        "escapes-tokens": lambda text, control: [
            text := text.replace(token, html.escape(token)) for token in control
        ][-1],
        "whole-token": lambda text, control: [
            text := text.replace(token, "\u2039\u203a") for token in control
        ][-1],
        "no-text": lambda text, control: [neutral(text, control)],
        "other": lambda text, control: "refused",
    },
    "08.q5": {
        "prompt-only": admitted_that(cost=lambda request: request[2]),
        "answer-only": admitted_that(cost=lambda request: request[3]),
        "all-keys-together": admitted_that(whose=lambda request: "all"),
        "charges-refused": admitted_that(charge_refused=True),
        "fixed-window": admitted_that(
            counts=lambda then, now, window: int(then / window) == int(now / window)
        ),
        "never-forgets": admitted_that(counts=lambda *given: True),
        "counts-nothing": lambda requests, most, seconds: [
            request[2] + request[3] <= most for request in requests
        ],
        "just-fits": admitted_that(fits=lambda used, most: used < most),
        "looks-before-only": lambda requests, *given: [True] * len(requests),
        "upside-down": lambda *given: [not one for one in admitted(*given)],
        "no-list": lambda *given: sum(admitted(*given)),
        "other": lambda requests, *given: [False] * len(requests),
    },
    "08.q6": {
        "accepts-all": lambda secret, conversation: True,
        "refuses-all": lambda secret, conversation: False,
        "seal-may-be-missing": genuine_that(must=False),
        "any-role": genuine_that(roles=("system", "user", "assistant")),
        "last-only": genuine_that(looked_at=lambda numbers: numbers[-1:]),
        "first-only": genuine_that(looked_at=lambda numbers: numbers[:1]),
        "answer-alone": genuine_that(said=lambda talk, n: [talk[n]]),
        "whole-conversation": genuine_that(said=lambda talk, n: talk),
        "without-the-answer": genuine_that(said=lambda talk, n: talk[:n]),
        "no-bool": lambda *given: int(genuine(*given)),
        "changes-input": genuine_changing,
    },
}
