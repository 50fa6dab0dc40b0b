"""Right and wrong answers to the exercises of lesson 06."""

import heapq
import math
import statistics
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy
import torch

from answers import lazy
from qwen_course.exercises.judges import lesson_06 as judge
from qwen_course.exercises.probes import lesson_06 as probe

# Question 1


def speeds(sent, moments):
    steps = len(moments) - 1
    return moments[0] - sent, steps / (moments[-1] - moments[0])


def speeds_by_gaps(sent, moments):
    gaps = [after - before for before, after in pairwise(moments)]
    return [moments[0] - sent, 1 / statistics.mean(gaps)]


def speeds_with_arrays(sent, moments):
    times = numpy.array([sent, *moments])
    return numpy.array([times[1] - times[0], 1 / numpy.diff(times[1:]).mean()])


def speeds_that(
    first: Callable[..., Any] = lambda sent, moments: speeds(sent, moments)[0],
    speed: Callable[..., Any] = lambda sent, moments: speeds(sent, moments)[1],
) -> Callable[..., Any]:
    return lambda sent, moments: (first(sent, moments), speed(sent, moments))


# Question 2


def attend(cache, layer, query, key, value):
    keys, values = cache.setdefault(layer, ([], []))
    keys.append(key)
    values.append(value)
    scores = torch.stack(keys) @ query / math.sqrt(len(query))
    return scores.softmax(0) @ torch.stack(values)


def attend_by_cat(cache, layer, query, key, value):
    """As the lesson does, with the library's attention."""
    keys, values = key[None, None, None], value[None, None, None]
    if layer in cache:
        keys = torch.cat([cache[layer][0], keys], dim=2)
        values = torch.cat([cache[layer][1], values], dim=2)
    cache[layer] = keys, values
    asked = query[None, None, None]
    return torch.nn.functional.scaled_dot_product_attention(asked, keys, values)[
        0, 0, 0
    ]


def attend_with_numbers(cache, layer, query, key, value):
    past = cache.get(f"layer {layer}", ())
    past = cache[f"layer {layer}"] = (*past, (key.tolist(), value.tolist()))
    asked = query.tolist()
    root = len(asked) ** 0.5
    powers = [
        math.exp(sum(a * b for a, b in zip(asked, key, strict=True)) / root)
        for key, _ in past
    ]
    return [
        sum(
            power * value[place] for power, (_, value) in zip(powers, past, strict=True)
        )
        / sum(powers)
        for place in range(len(asked))
    ]


def attend_that(
    scale: Callable[[Any], float] = lambda keys: math.sqrt(keys.shape[1]),
    shares: Callable[[Any], Any] = lambda scores: scores.softmax(0),
    name: Callable[[Any, int], Any] = lambda cache, layer: (cache, layer),
    scored: str = "key",
    taken: str = "value",
) -> Callable[..., Any]:
    """Return an attention with one of its parts done wrong."""

    def answer(cache, layer, query, key, value):
        store, place = name(cache, layer)
        past = store.setdefault(place, [])
        past.append({"query": query, "key": key, "value": value})
        keys = torch.stack([one[scored] for one in past])
        values = torch.stack([one[taken] for one in past])
        return shares(keys @ query / scale(keys)) @ values

    return answer


def attend_keeping_elsewhere():
    kept: dict[int, Any] = {}
    return attend_that(name=lambda cache, layer: (kept, layer))


def attend_overwriting(cache, layer, query, key, value):
    cache[layer] = [key], [value]
    keys, values = map(torch.stack, cache[layer])
    return (keys @ query / len(query) ** 0.5).softmax(0) @ values


def attend_keeping_the_first(cache, layer, query, key, value):
    keys, values = cache.setdefault(layer, (key[None], value[None]))
    return (keys @ query / len(query) ** 0.5).softmax(0) @ values


def attend_to_earlier_ones(cache, layer, query, key, value):
    keys, values = cache.setdefault(layer, ([], []))
    mix = value
    if keys:
        scores = torch.stack(keys) @ query / len(query) ** 0.5
        mix = scores.softmax(0) @ torch.stack(values)
    keys.append(key)
    values.append(value)
    return mix


def attend_twice(cache, layer, query, key, value):
    attend(cache, layer, query, key, value)
    mix = attend(cache, layer, query, key, value)
    for part in cache[layer]:
        part.pop()
    return mix


def attend_without_beginning(cache, layer, query, key, value):
    cache[layer] = [*cache[layer], (key, value)]
    return value


# Question 3


def passes(lengths, places):
    starts = range(0, len(lengths), places)
    plain = sum(max(lengths[start : start + places]) for start in starts)
    free = [0] * places
    for length in lengths:
        place = free.index(min(free))
        free[place] += length
    return plain, max(free)


def passes_step_by_step(lengths, places):
    def run(flowing):
        waiting, work, count = deque(lengths), [], 0
        while waiting or work:
            if flowing or not work:
                work += [
                    waiting.popleft() for _ in range(places - len(work)) if waiting
                ]
            count += 1
            work = [left - 1 for left in work]
            if flowing or max(work) == 0:
                work = [left for left in work if left > 0]
        return count

    return [run(False), run(True)]


def passes_with_a_heap(lengths, places):
    row = list(lengths)
    plain = 0
    while row:
        plain, row = plain + max(row[:places]), row[places:]
    ends: list[int] = []
    for length in lengths:
        begin = heapq.heappop(ends) if len(ends) == places else 0
        heapq.heappush(ends, begin + length)
    return torch.tensor([plain, max(ends)])


def passes_that(
    plain: Callable[..., Any] = judge.plain,
    flowing: Callable[..., Any] = judge.continuous,
) -> Callable[..., Any]:
    return lambda lengths, places: (plain(lengths, places), flowing(lengths, places))


# Question 4


def exchange(mask, row, length):
    counts = [sum(one) for one in mask]
    counts[row] = length
    width = max(counts)
    return [[0] * (width - count) + [1] * count for count in counts], counts


def exchange_with_tensors(mask, row, length):
    counts = torch.tensor(mask).sum(1)
    counts[row] = length
    columns = torch.arange(int(counts.max()))
    return (columns >= (counts.max() - counts)[:, None]).long(), counts


def exchange_by_columns(mask, row, length):
    width = max(len(mask[0]), length)
    new = [[0] * (width - len(line)) + line for line in mask]
    new[row] = [0] * (width - length) + [1] * length
    kept = [column for column in zip(*new, strict=True) if any(column)]
    rows = list(map(list, zip(*kept, strict=True)))
    return {0: rows, 1: [line.count(1) for line in rows]}.values()


def exchange_that(
    mask: Callable[..., Any] = lambda lengths, row, length: probe.padded(
        judge.exchanged(lengths, row, length)
    ),
    positions: Callable[..., Any] = judge.exchanged,
) -> Callable[..., Any]:
    """Return an exchange with one of its parts done wrong."""

    def answer(given, row, length):
        lengths = [sum(one) for one in given]
        return mask(lengths, row, length), positions(lengths, row, length)

    return answer


def exchange_in_place(mask, row, length):
    width = len(mask[0])
    mask[row] = [0] * (width - length) + [1] * length
    return mask, [sum(one) for one in mask]


def exchange_without_widening(mask, row, length):
    width = len(mask[0])
    new = [*mask]
    new[row] = [0] * (width - length) + [1] * length
    return new, [sum(one) for one in new]


# Question 5

ORIGINAL = "original_max_position_embeddings"


def rope_for(rope, trained, prompt, answer):
    tokens = prompt + answer
    if tokens <= trained:
        return rope
    return {
        **rope,
        "rope_type": "yarn",
        "factor": math.ceil(2 * tokens / trained) / 2,
        ORIGINAL: trained,
    }


def rope_step_by_step(rope, trained, prompt, answer):
    new, factor = dict(rope), 1.0
    while factor * trained < prompt + answer:
        factor += 0.5
    if factor > 1:
        new.update(rope_type="yarn", factor=factor)
        new[ORIGINAL] = trained
    return new


def rope_with_arrays(rope, trained, prompt, answer):
    steps = numpy.arange(1, 50, 0.5)
    factor = steps[steps * trained >= prompt + answer].min()
    if factor == 1:
        return {"rope_theta": rope["rope_theta"], "rope_type": "default"}
    return {ORIGINAL: numpy.int64(trained), "factor": numpy.float32(factor),
            "rope_theta": rope["rope_theta"], "rope_type": "yarn"}  # fmt: skip


def rope_that(
    factor: Callable[[int, int, int], Any] = lambda trained, prompt, answer: (
        math.ceil(2 * (prompt + answer) / trained) / 2
    ),
    short: Callable[[int, int, int], bool] = lambda trained, prompt, answer: (
        prompt + answer <= trained
    ),
    made: Callable[..., Any] = lambda rope, factor, trained: {
        **rope,
        "rope_type": "yarn",
        "factor": factor,
        ORIGINAL: trained,
    },
) -> Callable[..., Any]:
    """Return settings with one of their parts done wrong."""

    def answer(rope, trained, prompt, answer):
        if short(trained, prompt, answer):
            return rope
        return made(rope, factor(trained, prompt, answer), trained)

    return answer  # fmt: skip


def rope_in_place(rope, trained, prompt, answer):
    rope.update(rope_for(rope, trained, prompt, answer))
    return rope


def rope_without(*names: str) -> Callable[..., Any]:
    def answer(*given):
        return {
            name: value for name, value in rope_for(*given).items() if name not in names
        }

    return answer


# Question 6


def speculate(prompt, read, guess, end, limit):
    new: list[int] = []
    while len(new) < limit and end not in new:
        text = prompt + new
        draft = guess(text)
        own = read(text + draft)[len(text) - 1 :]
        right = 0
        while right < len(draft) and draft[right] == own[right]:
            right += 1
        for token in own[: right + 1]:
            if len(new) < limit and end not in new:
                new.append(token)
    return new


def speculate_with_tensors(prompt, read, guess, end, limit):
    text = torch.tensor(prompt)
    while True:
        draft = torch.tensor(guess(text.tolist()), dtype=torch.long)
        own = torch.tensor(read(torch.cat([text, draft])))[len(text) - 1 :]
        right = int((own[:-1] == draft).long().cumprod(0).sum())
        text = torch.cat([text, own[: right + 1]])
        new = text[len(prompt) :][:limit]
        ends = (new == end).nonzero()
        if len(ends):
            return new[: int(ends[0]) + 1]
        if len(new) == limit:
            return new


def speculate_by_calling_itself(prompt, read, guess, end, limit):
    draft = list(guess(prompt))[: limit - 1]
    new = []
    says = read([*prompt, *draft])[len(prompt) - 1 :]
    for drafted, own in zip([*draft, None], says, strict=True):
        new.append(own)
        if own == end:
            return new
        if drafted != own:
            break
    left = limit - len(new)
    if not left:
        return new
    return new + speculate_by_calling_itself(prompt + new, read, guess, end, left)


def speculate_that(
    choose: judge.Choose = judge.kept,
    before: int = 1,
    text_of: Callable[[Any, Any], Any] = lambda prompt, new: prompt + new,
    seen: Callable[[Any, Any], Any] = lambda prompt, new: prompt + new,
    cut: Callable[[Any, Any, Any], Any] = lambda new, end, limit: new[
        : min(limit, (new.index(end) if end in new else limit) + 1)
    ],
    rounds: int = 1000,
) -> Callable[..., Any]:
    """Return a loop with one of its parts done wrong."""

    def answer(prompt, read, guess, end, limit):
        new: list[int] = []
        for _ in range(rounds):
            if len(new) >= limit or end in new:
                break
            draft, text = guess(seen(prompt, new)), text_of(prompt, new)
            own = read(text + draft)[len(text) - before :]
            new = new + choose(draft, own)
        return cut(new, end, limit)

    return answer


def plain_decoding(prompt, read, guess, end, limit):
    new: list[int] = []
    while len(new) < limit and end not in new:
        new.append(read(prompt + new)[-1])
    return new


def speculate_reading_again(prompt, read, guess, end, limit):
    new: list[int] = []
    while len(new) < limit and end not in new:
        for token in [*guess(prompt + new), None]:
            new.append(read(prompt + new)[-1])
            if new[-1] != token or new[-1] == end or len(new) == limit:
                break
    return new


def speculate_changing_the_prompt(prompt, read, guess, end, limit):
    new = speculate(prompt, read, guess, end, limit)
    prompt += new
    return new


def speculate_looking_everywhere(prompt, read, guess, end, limit):
    text = list(prompt)
    while end not in text:
        text.append(read(text)[-1])
    return text[len(prompt) :]


def agreeing(draft, own):
    return [a for a, b in zip(draft, own, strict=False) if a == b]


RIGHT: dict[str, list[Any]] = {
    "06.q1": [speeds, speeds_by_gaps, speeds_with_arrays],
    "06.q2": [attend, attend_by_cat, attend_with_numbers],
    "06.q3": [passes, passes_step_by_step, passes_with_a_heap],
    "06.q4": [exchange, exchange_with_tensors, exchange_by_columns],
    "06.q5": [rope_for, rope_step_by_step, rope_with_arrays],
    "06.q6": [speculate, speculate_with_tensors, speculate_by_calling_itself],
}

WRONG: dict[str, dict[str, Any]] = {
    "06.q1": {
        "clock-time": speeds_that(lambda sent, moments: moments[0]),
        "to-the-last": speeds_that(lambda sent, moments: moments[-1] - sent),
        "gap-of-decode": speeds_that(lambda sent, moments: moments[1] - moments[0]),
        "mean-of-all": speeds_that(
            lambda sent, moments: (moments[-1] - sent) / len(moments)
        ),
        "milliseconds": lambda sent, moments: (1000 * (moments[0] - sent), 0.0),
        "backwards": speeds_that(lambda sent, moments: sent - moments[0]),
        "counts-first-token": speeds_that(
            speed=lambda sent, moments: len(moments) / (moments[-1] - moments[0])
        ),
        "prefill-counted-in": speeds_that(
            speed=lambda sent, moments: len(moments) / (moments[-1] - sent)
        ),
        "seconds-per-token": speeds_that(
            speed=lambda sent, moments: 1 / speeds(sent, moments)[1]
        ),
        "mean-of-speeds": speeds_that(
            speed=lambda sent, moments: numpy.mean(1 / numpy.diff(moments))
        ),
        "typical-gap": speeds_that(
            speed=lambda sent, moments: 1 / numpy.median(numpy.diff(moments))
        ),
        "one-gap": speeds_that(
            speed=lambda sent, moments: 1 / (moments[-1] - moments[-2])
        ),
        "steps-only": speeds_that(speed=lambda sent, moments: len(moments) - 1),
        "swapped": lambda sent, moments: speeds(sent, moments)[::-1],
        "no-pair": lambda sent, moments: speeds(sent, moments)[1],
        "other": speeds_that(speed=lambda sent, moments: 77),
        "prints": lambda sent, moments: print(*speeds(sent, moments)),
    },
    "06.q2": {
        "forgets-the-past": attend_overwriting,
        "keeps-the-first-only": attend_keeping_the_first,
        "not-itself": attend_to_earlier_ones,
        "no-scale": attend_that(scale=lambda keys: 1),
        "wrong-scale": attend_that(scale=lambda keys: keys.shape[1]),
        "no-softmax": attend_that(shares=lambda scores: scores),
        "equal-shares": attend_that(
            shares=lambda scores: torch.ones(len(scores)) / len(scores)
        ),
        "wrong-part": attend_that(scored="value"),
        "old-queries": attend_that(scored="query"),
        "mixes-layers": attend_that(name=lambda cache, layer: (cache, 0)),
        "mixes-texts": lazy(attend_keeping_elsewhere),
        "counts-itself-twice": attend_twice,
        "empty-cache": attend_without_beginning,
        "no-vector": lambda *given: attend(*given)[None],
        "other": lambda *given: 2 * attend(*given),
        "raises": lambda cache, layer, query: query,
        "returns-none": lambda *given: None,
    },
    "06.q3": {
        "longest-for-all": passes_that(
            lambda lengths, places: -(-len(lengths) // places) * max(lengths)
        ),
        "full-batches-only": passes_that(
            lambda lengths, places: sum(
                max(lengths[n * places : (n + 1) * places])
                for n in range(len(lengths) // places)
            )
        ),
        "one-by-one": passes_that(lambda lengths, places: sum(lengths)),
        "only-the-longest": passes_that(lambda lengths, places: max(lengths)),
        "counts-batches": passes_that(
            lambda lengths, places: math.ceil(len(lengths) / places)
        ),
        "waits-for-shortest": passes_that(
            lambda lengths, places: sum(
                min(lengths[n : n + places]) for n in range(0, len(lengths), places)
            )
        ),
        "already-continuous": passes_that(judge.continuous),
        "sorts-the-queue": lambda lengths, places: passes(
            sorted(lengths, reverse=True), places
        ),
        "shares-evenly": passes_that(
            flowing=lambda lengths, places: math.ceil(sum(lengths) / places)
        ),
        "still-waits": passes_that(flowing=judge.plain),
        "fixed-places": passes_that(
            flowing=lambda lengths, places: max(
                sum(lengths[n::places]) for n in range(places)
            )
        ),
        "pass-between": passes_that(
            flowing=lambda lengths, places: judge.continuous(lengths, places, 1)
        ),
        "end-of-the-last": passes_that(
            flowing=lambda lengths, places: judge._ends(lengths, places)[-1][1]
        ),
        "last-begins": passes_that(
            flowing=lambda lengths, places: max(judge._ends(lengths, places))[0]
        ),
        "swapped": lambda lengths, places: passes(lengths, places)[::-1],
        "no-pair": lambda lengths, places: dict(enumerate(passes(lengths, places))),
        "other": passes_that(flowing=lambda lengths, places: len(lengths) + 1),
        "raises": lambda lengths: passes(lengths, 4),
    },
    "06.q4": {
        "pads-right": exchange_that(judge._on_the_right),
        "keeps-the-width": exchange_that(
            lambda lengths, row, length: judge._filled(
                judge.exchanged(lengths, row, length), max(*lengths, length)
            )
        ),
        "joins-at-the-end": exchange_that(
            lambda lengths, row, length: probe.padded(
                [*lengths[:row], *lengths[row + 1 :], length]
            )
        ),
        "nobody-leaves": lambda mask, row, length: exchange(
            [*mask, [1]], len(mask), length
        ),
        "nobody-joins": exchange_that(
            lambda lengths, row, length: probe.padded(
                lengths[:row] + lengths[row + 1 :] or [1]
            ),
            lambda lengths, row, length: lengths[:row] + lengths[row + 1 :] or [1],
        ),
        "cuts-the-newcomer": exchange_that(
            lambda lengths, row, length: [
                one[-max(lengths) :]
                for one in probe.padded(judge.exchanged(lengths, row, length))
            ]
        ),
        "adds-the-next-token": exchange_that(
            lambda lengths, row, length: [
                [*one, 1] for one in probe.padded(judge.exchanged(lengths, row, length))
            ]
        ),
        "one-token": lambda mask, row, length: exchange(mask, row, 1),
        "inverted": exchange_that(
            lambda lengths, row, length: (
                1 - numpy.array(probe.padded(judge.exchanged(lengths, row, length)))
            )
        ),
        "columns": exchange_that(
            positions=lambda lengths, row, length: [
                max(judge.exchanged(lengths, row, length))
            ]
            * len(lengths)
        ),
        "last-column": exchange_that(
            positions=lambda lengths, row, length: [
                max(judge.exchanged(lengths, row, length)) - 1
            ]
            * len(lengths)
        ),
        "last-token": exchange_that(
            positions=lambda *given: [n - 1 for n in judge.exchanged(*given)]
        ),
        "from-1": exchange_that(
            positions=lambda *given: [n + 1 for n in judge.exchanged(*given)]
        ),
        "newcomer-starts-over": exchange_that(
            positions=lambda lengths, row, length: judge.exchanged(lengths, row, 0)
        ),
        "old-positions": exchange_that(positions=lambda lengths, row, length: lengths),
        "counts-padding": exchange_that(
            positions=lambda *given: [
                max(judge.exchanged(*given)) - n for n in judge.exchanged(*given)
            ]
        ),
        "ragged": exchange_without_widening,
        "changes-input": exchange_in_place,
        "no-positions": exchange_that(positions=lambda *given: [[0, 1, 2]]),
        "no-pair": lambda *given: exchange(*given)[0],
        "other": exchange_that(
            positions=lambda lengths, row, length: [99] * len(lengths)
        ),
    },
    "06.q5": {
        "forgets-the-answer": lambda rope, trained, prompt, answer: rope_for(
            rope, trained, prompt, 0
        ),
        "whole-steps": rope_that(
            lambda trained, prompt, answer: math.ceil((prompt + answer) / trained)
        ),
        "always-4": rope_that(lambda trained, prompt, answer: 4.0),
        "always-2": rope_that(lambda trained, prompt, answer: 2),
        "too-small": rope_that(
            lambda trained, prompt, answer: round(2 * (prompt + answer) / trained) / 2
        ),
        "not-in-steps": rope_that(
            lambda trained, prompt, answer: (prompt + answer) / trained
        ),
        "one-step-more": rope_that(
            lambda trained, prompt, answer: (2 * (prompt + answer) // trained + 1) / 2
        ),
        "upside-down": rope_that(
            lambda trained, prompt, answer: trained / (prompt + answer)
        ),
        "only-what-is-too-long": rope_that(
            lambda trained, prompt, answer: (
                math.ceil(2 * (prompt + answer - trained) / trained) / 2
            )
        ),
        "other": rope_that(lambda trained, prompt, answer: 17.0),
        "stretches-short-texts": rope_that(short=lambda *given: False),
        "just-fits": rope_that(
            short=lambda trained, prompt, answer: prompt + answer < trained
        ),
        "no-yarn": lambda rope, *given: rope if given[1] > given[0] else rope_for(
            rope, *given
        ),
        "old-name": lambda *given: {
            {"rope_type": "type"}.get(name, name) if "factor" in rope_for(*given)
            else name: value
            for name, value in rope_for(*given).items()
        },
        "wrong-type": rope_that(
            made=lambda rope, factor, trained: {**rope, "factor": factor}
        ),
        "no-factor": rope_without("factor"),
        "loses-theta": rope_that(
            made=lambda rope, factor, trained: {
                "rope_type": "yarn", "factor": factor, ORIGINAL: trained,
            }
        ),
        "no-original": rope_without(ORIGINAL),
        "wrong-original": rope_that(
            made=lambda rope, factor, trained: {
                **rope, "rope_type": "yarn", "factor": factor,
                ORIGINAL: int(factor * trained),
            }
        ),
        "extra-keys": rope_that(
            made=lambda rope, factor, trained: {
                **rope, "rope_type": "yarn", "factor": factor, ORIGINAL: trained,
                "max_position_embeddings": int(factor * trained),
            }
        ),
        "nested": lambda *given: {"rope_parameters": rope_for(*given)},
        "no-dict": lambda *given: rope_for(*given).get("factor", 1.0),
        "changes-input": rope_in_place,
    },
    "06.q6": {
        "trusts-the-draft": speculate_that(
            lambda draft, own: draft + own[len(draft) :]
        ),
        "place-by-place": speculate_that(
            lambda draft, own: agreeing(draft, own) + own[len(draft) :]
        ),
        "takes-all-its-tokens": speculate_that(lambda draft, own: own),
        "keeps-the-wrong-token": speculate_that(
            lambda draft, own: draft[: judge.agreed(draft, own) + 1] or own[:1]
        ),
        "one-place-off": speculate_that(before=0),
        "returns-the-prompt": lambda prompt, *given: prompt + speculate(prompt, *given),
        "stops-at-once": speculate_looking_everywhere,
        "one-round-only": speculate_that(rounds=1),
        "drops-the-end": lambda prompt, read, guess, end, limit: [
            one for one in speculate(prompt, read, guess, end, limit) if one != end
        ],
        "writes-after-the-end": speculate_that(
            cut=lambda new, end, limit: new[:limit]
        ),
        "too-long": speculate_that(
            cut=lambda new, end, limit: new[: new.index(end) + 1] if end in new else new
        ),
        "never-ends": speculate_that(
            lambda draft, own: own[: judge.agreed(draft, own)]
        ),
        "no-drafts": plain_decoding,
        "reads-again": speculate_reading_again,
        "drops-the-free-token": speculate_that(judge.NO_BONUS[0]),
        "all-or-nothing": speculate_that(
            lambda draft, own: own if draft == own[:-1] else own[:1]
        ),
        "guesses-from-a-part": speculate_that(seen=lambda prompt, new: new),
        "reads-a-part": speculate_that(
            text_of=lambda prompt, new: new or prompt[-1:]
        ),
        "reads-no-list": lambda prompt, read, guess, end, limit: read([prompt]),
        "changes-input": speculate_changing_the_prompt,
        "too-many-passes": speculate_that(
            lambda draft, own: judge.kept(draft, own)[:2]
        ),
        "no-ids": lambda *given: str(speculate(*given)),
        "raises": lambda prompt, read, guess: read(prompt),
    },
}  # fmt: skip
