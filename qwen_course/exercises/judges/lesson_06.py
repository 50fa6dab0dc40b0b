"""What is right in the exercises of lesson 06."""

import functools
import heapq
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_06 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import (
    Outcomes,
    Way,
    compared,
    compared_half,
    short,
)

# Pairs: several answers are two numbers, or two lists


def _pairs(seen: Outcomes, shown: Sequence[str], what: str) -> Mistake | None:
    """Return the mistake of a value that is no pair of numbers."""
    for outcome, text in zip(seen, shown, strict=True):
        if not mistakes.is_pair(outcome["value"]):
            value = short(outcome["value"])
            return Mistake("no-pair", f"{text} gave {value}. Return {what}.")
    return None


def _swapped(seen: Outcomes, right: Sequence[Any], text: str) -> Mistake | None:
    """Return the mistake of a pair in the other order."""
    turned = [outcome["value"][::-1] for outcome in seen]
    pairs = zip(turned, right, strict=True)
    if all(mistakes.close(a[n], b[n]) for a, b in pairs for n in (0, 1)):
        return Mistake("swapped", text)
    return None


# Question 1


def two_speeds(sent: float, moments: list[float]) -> tuple[float, float]:
    """Return the seconds to the first token, and the tokens a second after it."""
    return moments[0] - sent, (len(moments) - 1) / (moments[-1] - moments[0])


def _gaps(moments: list[float]) -> list[float]:
    return [b - a for a, b in zip(moments, moments[1:], strict=False)]


FIRST = (
    Way("clock-time", lambda sent, moments: moments[0],
        "That is a time of the clock. The user has been waiting since `sent`."),
    Way("to-the-last", lambda sent, moments: moments[-1] - sent,
        "That is the time until all is there. Which token is the first?"),
    *(Way("gap-of-decode", lambda sent, moments, gap=gap: moments[gap + 1] -
          moments[gap], "That is the time between two tokens, a step of decode. The "
          "first token waits for the prefill, which begins at `sent`.")
      for gap in (0, -2)),
    *(Way("mean-of-all", lambda sent, moments, n=n: (moments[-1] - sent) /
          (len(moments) - n), "That is the mean time of all tokens. The first one "
          "waits for the prefill, the others do not: keep it apart.")
      for n in (0, 1)),
    Way("milliseconds", lambda sent, moments: 1000 * (moments[0] - sent),
        "Those are milliseconds. Return seconds."),
    Way("backwards", lambda sent, moments: sent - moments[0],
        "It is below 0: take the earlier time from the later one."),
)  # fmt: skip
DECODE = (
    Way("counts-first-token", lambda sent, moments:
        len(moments) / (moments[-1] - moments[0]),
        "You counted the first token, and its time is left out. Between n tokens there "
        "are n - 1 steps of decode."),
    *(Way("prefill-counted-in", lambda sent, moments, n=n:
          (len(moments) - n) / (moments[-1] - sent),
          "The time of the prefill is in it, so the same model looks slow after a long "
          "prompt. Decode begins when the first token is there.") for n in (0, 1)),
    *(Way("clock-time", lambda sent, moments, n=n:
          (len(moments) - n) / (moments[-1] or 1),
          "You divided by a time of the clock. How long did decode take?")
      for n in (0, 1)),
    Way("seconds-per-token", lambda sent, moments:
        (moments[-1] - moments[0]) / (len(moments) - 1),
        "Those are seconds for each token. Turn it around."),
    *(Way("mean-of-speeds", lambda sent, moments, by=by:
          by([1 / gap for gap in _gaps(moments)]),
          "You averaged the speed of each step. One quick step then hides a slow one: "
          "divide all tokens by all their time.")
      for by in (statistics.mean, statistics.median)),
    Way("typical-gap", lambda sent, moments: 1 / statistics.median(_gaps(moments)),
        "That is the speed of the median step: slow steps are left out. Here all count."
        ),
    Way("one-gap", lambda sent, moments: 1 / _gaps(moments)[0],
        "That is the speed of one step. Take all of them."),
    Way("one-gap", lambda sent, moments: 1 / _gaps(moments)[-1],
        "That is the speed of one step. Take all of them."),
    Way("steps-only", lambda sent, moments: len(moments) - 1,
        "That is the number of steps. Divide by their time."),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare both numbers of each run."""
    cases = probe.runs(seed)
    shown = [f"speeds({sent}, {short(moments)})" for sent, moments in cases]
    right = [two_speeds(*case) for case in cases]
    what = "two numbers: the time to first token, and the tokens per second"
    order = "The time to first token comes first, then the tokens per second."
    one = "The first moment, less the time when the prompt was sent."
    two = "Count the steps after the first token, and divide by their time."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _pairs(seen, shown, what),
        lambda: _swapped(seen, right, order),
        lambda: compared_half(0, cases, seen, shown, right, FIRST, one),
        lambda: compared_half(1, cases, seen, shown, right, DECODE, two),
    )


# Question 2


class Past(NamedTuple):
    """The tokens before one and itself: in its text and layer, and in others.

    Each is (query, key, value); its own are the last ones of every list.
    """

    own: list[probe.Vectors]
    text: list[probe.Vectors]  # all layers
    layer: list[probe.Vectors]  # all texts
    every: list[probe.Vectors]


def _pasts(seed: int) -> list[Past]:
    pasts, before = [], list[probe.Token]()
    for token in probe.steps(seed):
        before.append(token)
        in_text = [one for one in before if one.text == token.text]
        in_layer = [one for one in before if one.layer == token.layer]
        own = [one for one in in_text if one.layer == token.layer]
        lists = (own, in_text, in_layer, before)
        pasts.append(Past(*([one.vectors for one in part] for part in lists)))
    return pasts


def _softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def mixed(
    tokens: list[probe.Vectors],
    scale: float = math.sqrt(probe.HEAD_DIM),
    shares: Callable[[list[float]], list[float]] = _softmax,
    asked: int = 1,
    taken: int = 2,
) -> list[float]:
    """Return the attention of the last of some tokens to all; changes are mistakes.

    `asked` and `taken` say what is scored and what is mixed: 1 keys, 2 values.
    """
    if not tokens:
        return []
    query = tokens[-1][0]
    scores = [
        sum(a * b for a, b in zip(query, token[asked], strict=True)) / scale
        for token in tokens
    ]
    weights = shares(scores)
    columns = zip(*(token[taken] for token in tokens), strict=True)
    return [
        round(sum(w * x for w, x in zip(weights, column, strict=True)), 3)
        for column in columns
    ]


def _without_itself(past: Past) -> list[float]:
    """Return the mix of the tokens before, asked by the query of this one."""
    query = past.own[-1][0]
    earlier = [(query, key, value) for _, key, value in past.own[:-1]]
    return mixed(earlier)


SCALE = "Divide the scores by the root of head_dim, before softmax."
WRONG_PART = (
    "Keys and values are mixed up: the query is compared with keys, and what is mixed "
    "are values."
)
MIXES = (
    Way("forgets-the-past", lambda past: past.own[-1][2],
        "The token sees itself only. Its keys and values have to be put *behind* those "
        "in the cache, and the cache must keep all of them."),
    Way("keeps-the-first-only", lambda past: past.own[0][2],
        "Only the first token is in the cache. Every new one is put behind it."),
    Way("not-itself", _without_itself,
        "The new token is not in it. It also looks at itself: append first, then mix."),
    Way("no-scale", lambda past: mixed(past.own, 1), SCALE),
    Way("wrong-scale", lambda past: mixed(past.own, probe.HEAD_DIM),
        SCALE + " You divided by head_dim itself."),
    Way("wrong-scale", lambda past: mixed(past.own, math.sqrt(len(past.own))),
        SCALE + " You took the root of the number of tokens."),
    Way("no-softmax", lambda past: mixed(past.own, shares=list),
        "You mixed with the scores. softmax makes shares of them that sum to 1."),
    Way("equal-shares", lambda past: mixed(
            past.own, shares=lambda scores: [1 / len(scores)] * len(scores)),
        "Every token has the same share. The query decides: compare it with the keys."),
    Way("wrong-part", lambda past: mixed(past.own, asked=2), WRONG_PART),
    Way("wrong-part", lambda past: mixed(past.own, taken=1), WRONG_PART),
    Way("wrong-part", lambda past: mixed(past.own, asked=2, taken=1), WRONG_PART),
    Way("old-queries", lambda past: mixed(past.own, asked=0),
        "You compared the query with other queries. They are not needed again; keep "
        "keys and values."),
    Way("mixes-layers", lambda past: mixed(past.text),
        "Tokens of another layer are in it. Each layer has keys and values of its own: "
        "keep them apart, by `layer`."),
    *(Way("mixes-texts", lambda past, part=part: mixed(getattr(past, part)),
          "Tokens of another text are in it. Keep nothing outside of `cache`: every "
          "text has its own.") for part in ("layer", "every")),
    Way("counts-itself-twice", lambda past: mixed([*past.own, past.own[-1]]),
        "The new token is in it twice: it was already in the cache when you added it."),
)  # fmt: skip


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what each token was given."""
    steps = probe.steps(seed)[: len(seen)]
    pasts = _pasts(seed)[: len(seen)]
    shown = [
        f"Text {'AB'[one.text]}, layer {one.layer}, token {one.number}: attend"
        for one in steps
    ]
    return mistakes.first(
        lambda: _empty(seen[0], shown[0]),
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_vector(seen, shown),
        lambda: _mixes(pasts, seen, shown),
    )


def _mixes(pasts: list[Past], seen: Outcomes, shown: list[str]) -> Mistake | None:
    rounded = [
        {"value": [round(number, 3) for number in outcome["value"]]} for outcome in seen
    ]
    right = [mixed(past.own) for past in pasts]
    advice = "Softmax of its query with all keys of its text and layer, times values."
    if not _near(rounded[0]["value"], right[0]):
        advice = (
            "The cache is empty here, so it should be its value. Is something kept "
            "outside of `cache`, from an earlier call?"
        )
    cases = [(past,) for past in pasts]
    return compared(cases, rounded, shown, right, MIXES, _near, advice)


def _empty(outcome: dict[str, Any], shown: str) -> Mistake | None:
    """Name what fails because nothing is in the cache yet."""
    error = outcome["error"]
    if error.partition(":")[0] not in ("KeyError", "IndexError", "RuntimeError"):
        return None
    return Mistake(
        "empty-cache",
        f"{shown} failed with {error}. At the first token the cache is empty, and has "
        "nothing under this layer yet. The token then looks at itself alone: append "
        "first, then mix.",
    )


def _no_vector(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        good = isinstance(value, list) and all(map(mistakes.is_number, value))
        if not good or len(value) != probe.HEAD_DIM:
            return Mistake(
                "no-vector",
                f"{text} gave {short(value)}. Return one vector of the shape "
                f"(head_dim,), here {probe.HEAD_DIM} numbers.",
            )
    return None


def _near(value: list[float], expected: list[float]) -> bool:
    """Compare vectors that were rounded to 3 places."""
    return len(value) == len(expected) and all(
        abs(a - b) < 0.0025 for a, b in zip(value, expected, strict=True)
    )


# Question 3


def plain(lengths: list[int], places: int) -> int:
    """Return the passes of batches that wait for their longest."""
    starts = range(0, len(lengths), places)
    return sum(max(lengths[start : start + places]) for start in starts)


def continuous(lengths: list[int], places: int, between: int = 0) -> int:
    """Return the passes when each place is given on at once, or after `between`."""
    free = [0] * places
    for length in lengths:
        heapq.heapreplace(free, free[0] + length + between)
    return max(free) - between


def _ends(lengths: list[int], places: int) -> list[tuple[int, int]]:
    """Return when each request begins and ends, in continuous batches."""
    free, stays = [0] * places, []
    for length in lengths:
        begin = heapq.heapreplace(free, free[0] + length)
        stays.append((begin, begin + length))
    return stays


def _batches(lengths: list[int], places: int) -> int:
    return math.ceil(len(lengths) / places)


SORTED = (
    "You sorted the queue. Requests start in the order in which they came; who is "
    "short is only known at the end."
)
SHARED = (
    "You shared all tokens evenly. A request stays in one place, so at the end places "
    "are empty while the last one is still writing."
)
PLAIN = (
    Way("longest-for-all", lambda lengths, places: _batches(lengths, places) *
        max(lengths), "You took the longest of the whole queue for every batch. Each "
        "waits for its own longest."),
    Way("full-batches-only", lambda lengths, places: plain(
            lengths[: len(lengths) // places * places] or [0], places),
        "The last batch is missing: it is not full, and runs all the same."),
    *(Way("sorts-the-queue", lambda lengths, places, down=down: plain(
          sorted(lengths, reverse=down), places), SORTED) for down in (True, False)),
    Way("one-by-one", lambda lengths, places: sum(lengths),
        "That is one request after the other. A pass serves the whole batch."),
    *(Way("shares-evenly", lambda lengths, places, by=by: by(sum(lengths) / places),
          SHARED) for by in (math.ceil, float, int, round)),
    Way("only-the-longest", lambda lengths, places: max(lengths),
        "That is the longest request. Not all fit into one batch."),
    Way("counts-batches", _batches,
        "That is the number of batches. Each takes as many passes as its longest "
        "request."),
    Way("waits-for-shortest", lambda lengths, places: sum(
            min(lengths[n : n + places]) for n in range(0, len(lengths), places)),
        "A plain batch is done when its *longest* request is, not its shortest."),
    Way("already-continuous", continuous,
        "Those are continuous batches. In plain ones nobody joins until all of the "
        "batch have ended."),
    Way("strides", lambda lengths, places: sum(
            max(lengths[n :: _batches(lengths, places)])
            for n in range(_batches(lengths, places))),
        "Your batches take requests from all over the queue. They take the next ones."),
)  # fmt: skip
FLOWING = (
    *(Way("shares-evenly", lambda lengths, places, by=by: by(sum(lengths) / places),
          SHARED) for by in (math.ceil, float, int, round)),
    *(Way("shares-evenly", lambda lengths, places, by=by: max(
          by(sum(lengths) / places), max(lengths)), SHARED)
      for by in (math.ceil, float, int, round)),
    Way("still-waits", plain,
        "Those are plain batches. In continuous ones the next request takes a place as "
        "soon as it is free."),
    Way("fixed-places", lambda lengths, places: max(
            sum(lengths[n::places]) for n in range(places)),
        "You gave every place its requests beforehand, in turn. The next one takes the "
        "place that is free *first*."),
    Way("fixed-places", lambda lengths, places: max(
            sum(lengths[n : n + _batches(lengths, places)])
            for n in range(0, len(lengths), _batches(lengths, places))),
        "You cut the queue into a piece for each place. The next one takes the place "
        "that is free *first*."),
    *(Way("sorts-the-queue", lambda lengths, places, down=down: continuous(
          sorted(lengths, reverse=down), places), SORTED) for down in (True, False)),
    *(Way("pass-between", lambda lengths, places, off=off: continuous(
          lengths, places, 1) + off, "You lost a pass at each change. A request that "
          "ended in one pass has made room for the next one.") for off in (0, 1)),
    Way("end-of-the-last", lambda lengths, places: _ends(lengths, places)[-1][1],
        "That is when the last one of the queue has ended. An earlier one may still be "
        "writing."),
    Way("last-begins", lambda lengths, places: max(b for b, _ in
            _ends(lengths, places)),
        "That is when the last one begins. It still has to be written."),
    Way("first-free", lambda lengths, places: min(sorted(
            end for _, end in _ends(lengths, places))[-places:]),
        "That is when the first place has nothing more to do. Wait for all places."),
    Way("only-the-longest", lambda lengths, places: max(lengths),
        "That is the longest request. It need not be the first to start."),
    Way("one-by-one", lambda lengths, places: sum(lengths),
        "That is one request after the other. A pass serves the whole batch."),
)  # fmt: skip


def q3(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare both counts of each queue."""
    cases = probe.queues(seed)
    shown = [f"passes({lengths}, {places})" for lengths, places in cases]
    right = [(plain(*case), continuous(*case)) for case in cases]
    what = "two numbers: the passes of plain and of continuous batches"
    order = "Plain batches come first, then continuous ones."
    one = "Cut the queue into batches, and add up the longest of each."
    two = "Draw a row for each place; the next request goes to the row that ends first."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _pairs(seen, shown, what),
        lambda: _swapped(seen, right, order),
        lambda: compared_half(0, cases, seen, shown, right, PLAIN, one),
        lambda: compared_half(1, cases, seen, shown, right, FLOWING, two),
    )


# Question 4

Mask = list[list[int]]


def exchanged(lengths: list[int], row: int, length: int) -> list[int]:
    """Return the lengths of the rows after a change."""
    return [*lengths[:row], length, *lengths[row + 1 :]]


def _filled(lengths: list[int], width: int) -> Mask:
    """Return a mask of any width; what is too long loses its beginning."""
    return [[0] * (width - n) + [1] * min(n, width) for n in lengths]


def _on_the_right(lengths: list[int], row: int, length: int) -> Mask:
    new = exchanged(lengths, row, length)
    return [[1] * n + [0] * (max(new) - n) for n in new]


def _newcomer_right(lengths: list[int], row: int, length: int) -> Mask:
    """Return the mask with the newcomer alone padded on the right."""
    mask = probe.padded(exchanged(lengths, row, length))
    mask[row].reverse()
    return mask


def _without(lengths: list[int], row: int) -> list[int]:
    return [*lengths[:row], *lengths[row + 1 :]]


MASKS = (
    Way("pads-right", _on_the_right,
        "The padding stands on the right. Every row is written on at its right end, so "
        "its last token must be in the last column."),
    Way("pads-right", _newcomer_right,
        "The new row has its padding on the right. It is written on at its right end, "
        "so its last token must be in the last column."),
    *(Way("keeps-the-width", lambda lengths, row, length, more=more: _filled(
          exchanged(lengths, row, length), max(*lengths, length) + more),
          "There are columns that are padding in every row. They are read in every "
          "pass, for nothing: take them out.") for more in (0, 1)),
    Way("joins-at-the-end", lambda lengths, row, length: probe.padded(
            [*_without(lengths, row), length]),
        "The new request stands in the last row. It takes the row of the one that "
        "ended."),
    Way("nobody-leaves", lambda lengths, row, length: probe.padded([*lengths, length]),
        "The request that has ended is still in the batch."),
    Way("nobody-joins", lambda lengths, row, length: probe.padded(
            _without(lengths, row) or [1]),
        "The new request is missing. It takes the row of the one that ended."),
    Way("cuts-the-newcomer", lambda lengths, row, length: _filled(
            exchanged(lengths, row, length), max(lengths)),
        "The new prompt is longer than the batch was wide, and its beginning is lost. "
        "Widen the other rows."),
    Way("adds-the-next-token", lambda lengths, row, length: probe.padded(
            [n + 1 for n in exchanged(lengths, row, length)]),
        "You made room for the next token. It is not written yet."),
    Way("one-token", lambda lengths, row, length: probe.padded(
            exchanged(lengths, row, 1)),
        "The new row has one token. All of its prompt has been read, and counts."),
    Way("inverted", lambda lengths, row, length: [
            [1 - one for one in line]
            for line in probe.padded(exchanged(lengths, row, length))],
        "It is the other way round: 1 is a token, 0 is padding."),
)  # fmt: skip
PLACES = (
    Way("columns", lambda lengths, row, length: [max(exchanged(lengths, row, length))]
        * len(lengths), "That is the column in which it will stand, the same for "
        "all. A position counts in its own text: padding does not count."),
    Way("last-column", lambda lengths, row, length: [
            max(exchanged(lengths, row, length)) - 1] * len(lengths),
        "That is the last column. A position counts in its own text: padding does not "
        "count."),
    Way("last-token", lambda lengths, row, length: [
            n - 1 for n in exchanged(lengths, row, length)],
        "That is the position of the last token that was read. Which one comes next?"),
    Way("from-1", lambda lengths, row, length: [
            n + 1 for n in exchanged(lengths, row, length)],
        "Positions begin at 0: after three tokens, at 0, 1 and 2, comes 3."),
    *(Way("newcomer-starts-over", lambda lengths, row, length, at=at: exchanged(
          lengths, row, at), "The prompt of the new request has been read: it goes on "
          "behind it.") for at in (0, 1)),
    Way("old-positions", lambda lengths, row, length: lengths,
        "In the row of the new request stands the position of the one that ended."),
    Way("counts-padding", lambda lengths, row, length: [
            max(exchanged(lengths, row, length)) - n
            for n in exchanged(lengths, row, length)],
        "You counted the padding. Count the tokens."),
)  # fmt: skip


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare mask and positions after each change."""
    cases = probe.changes(seed)
    shown = [
        f"exchange({short(probe.padded(one.lengths))}, {one.row}, {one.length})"
        for one in cases
    ]
    lengths = [exchanged(*case) for case in cases]
    right = [(probe.padded(one), one) for one in lengths]
    one = "Each row is padding, then tokens; the longest row has no padding."
    two = "Count the tokens of each row."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_change(seen, shown),
        lambda: compared_half(0, cases, seen, shown, right, MASKS, one, _equal),
        lambda: compared_half(1, cases, seen, shown, right, PLACES, two, _equal),
    )


def _equal(value: Any, expected: Any) -> bool:
    return bool(value == expected)


def _no_change(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    """Return the mistake of a value that is no mask with a list of positions."""
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        pair = isinstance(value, list) and len(value) == 2
        if not (pair and _is_mask(value[0]) and isinstance(value[1], list)):
            return Mistake(
                "no-pair",
                f"{text} gave {short(value)}. Return two lists: the mask, a list of 0 "
                "and 1 for each row, and the positions.",
            )
        mask, positions = value
        widths = {len(row) for row in mask}
        if len(widths) > 1:
            return Mistake(
                "ragged",
                f"{text} gave rows of {min(widths)} to {max(widths)} columns. A batch "
                "is a rectangle: fill all rows up to the longest one.",
            )
        if not all(map(mistakes.is_number, positions)) or len(positions) != len(mask):
            return Mistake(
                "no-positions",
                f"{text}[1] gave {short(positions)}. Return one position for each row.",
            )
    return None


def _is_mask(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and all(one in (0, 1) for one in row) for row in value
    )


# Question 5


def _needed(plan: probe.Plan) -> int:
    return plan.prompt + plan.answer


def factor(plan: probe.Plan) -> float:
    """Return the smallest factor, in steps of 0.5, that makes room for a text."""
    return math.ceil(2 * _needed(plan) / plan.trained) / 2


SMALLEST = "Take the smallest one that makes room: each step more costs quality. "
FACTORS = (
    Way("forgets-the-answer", lambda plan: math.ceil(
            2 * plan.prompt / plan.trained) / 2,
        "You made room for the prompt only. What is written stands in the same text."),
    Way("whole-steps", lambda plan: math.ceil(_needed(plan) / plan.trained),
        SMALLEST + "Steps are of 0.5."),
    Way("always-4", lambda plan: 4, SMALLEST + "4 is a published example."),
    Way("always-2", lambda plan: 2, SMALLEST + "It depends on the text."),
    *(Way("too-small", lambda plan, by=by: by(2 * _needed(plan) / plan.trained) / 2,
          "That is too small: the end of the text does not fit. Round up.")
      for by in (math.floor, round)),
    *(Way("too-small", lambda plan, by=by: by(_needed(plan) / plan.trained),
          "That is too small: the end of the text does not fit. Round up, in steps of "
          "0.5.") for by in (math.floor, round)),
    Way("not-in-steps", lambda plan: _needed(plan) / plan.trained,
        "That is the quotient itself. Round it up to a step of 0.5."),
    Way("one-step-more", lambda plan: math.floor(
            2 * _needed(plan) / plan.trained + 1) / 2,
        SMALLEST + "A text that just fits needs no more."),
    Way("upside-down", lambda plan: plan.trained / _needed(plan),
        "It is below 1 and would shorten the context. Turn the quotient around."),
    Way("only-what-is-too-long", lambda plan: math.ceil(
            2 * (_needed(plan) - plan.trained) / plan.trained) / 2,
        "You divided what is too long. The factor stretches the whole context: divide "
        "the whole text."),
)  # fmt: skip


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Look at the short texts first, then at the settings of long ones."""
    cases = probe.plans(seed)
    shown = [
        f"rope_for(rope, {one.trained}, {one.prompt}, {one.answer})" for one in cases
    ]
    pairs = list(zip(cases, seen, shown, strict=True))
    long = [pair for pair in pairs if _needed(pair[0]) > pair[0].trained]
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: next(filter(None, (_settings(*pair) for pair in pairs)), None),
        lambda: _factors(long),
        lambda: next(filter(None, (_rest(*pair) for pair in long)), None),
    )


def _settings(plan: probe.Plan, outcome: dict[str, Any], shown: str) -> Mistake | None:
    """Look whether the right texts are stretched."""
    rope = outcome["value"]
    if not isinstance(rope, dict):
        return Mistake(
            "no-dict",
            f"{shown} gave {short(rope)}. Return the whole dictionary, with the keys "
            'of the example: "rope_type", "rope_theta" and so on.',
        )
    if len(rope) == 1 and isinstance(next(iter(rope.values())), dict):
        return Mistake(
            "nested",
            f"{shown} gave {short(rope)}. Return what stands inside, without a name "
            "around it.",
        )
    if _needed(plan) > plan.trained:
        return _long(plan, rope, shown)
    if rope == plan.rope:
        return None
    said = f"{shown} gave {short(rope)}. {_needed(plan)} tokens fit into {plan.trained}"
    if _needed(plan) == plan.trained and rope.get("rope_type") == "yarn":
        return Mistake("just-fits", f"{said}: no token is too many.")
    return Mistake(
        "stretches-short-texts",
        f"{said}: return the dictionary as it is. With YaRN the model reads short "
        "texts a little worse.",
    )


def _long(plan: probe.Plan, rope: dict[str, Any], shown: str) -> Mistake | None:
    """Look whether a long text gets YaRN at all."""
    if rope == plan.rope:
        said = f"{shown} gave the dictionary as it was. "
        if plan.prompt <= plan.trained:
            return Mistake(
                "forgets-the-answer",
                f"{said}The prompt fits, and the answer does not: what is written "
                "stands in the same text.",
            )
        return Mistake(
            "no-yarn",
            f"{said}{_needed(plan)} tokens are more than {plan.trained}. Without YaRN "
            "the model meets angles that its training never showed.",
        )
    if "rope_type" not in rope and "type" in rope:
        return Mistake(
            "old-name",
            f'{shown}: the key is "rope_type". "type" is its name in old configs.',
        )
    if rope.get("rope_type") != "yarn":
        return Mistake(
            "wrong-type",
            f'{shown}: "rope_type" is {rope.get("rope_type")!r}, it should be "yarn". '
            "The other settings do nothing without it.",
        )
    if not mistakes.is_number(rope.get("factor")):
        return Mistake(
            "no-factor", f'{shown}: "factor" is {rope.get("factor")!r}. Give a number.'
        )
    return None


def _factors(long: list[tuple[probe.Plan, dict[str, Any], str]]) -> Mistake | None:
    """Compare the factors of all long texts."""
    cases = [(plan,) for plan, _, _ in long]
    values = [{"value": outcome["value"]["factor"]} for _, outcome, _ in long]
    shown = [f'{text}["factor"]' for _, _, text in long]
    right = [factor(plan) for plan, _, _ in long]
    advice = "Prompt and answer, divided by what was trained, rounded up to 0.5."
    return compared(cases, values, shown, right, FACTORS, mistakes.close, advice)


def _rest(plan: probe.Plan, outcome: dict[str, Any], shown: str) -> Mistake | None:
    """Look at everything but the factor."""
    rope, key = outcome["value"], "original_max_position_embeddings"
    if rope.get("rope_theta") != plan.rope["rope_theta"]:
        return Mistake(
            "loses-theta",
            f'{shown}: "rope_theta" is {rope.get("rope_theta")!r}, it should be '
            f"{plan.rope['rope_theta']}: the angles that were trained. Keep what is in "
            "`rope`.",
        )
    if key not in rope:
        return Mistake(
            "no-original",
            f'{shown}: "{key}" is missing. The library would take the length in the '
            "configuration, which may be longer than the training.",
        )
    if rope[key] != plan.trained:
        return Mistake(
            "wrong-original",
            f'{shown}: "{key}" is {rope[key]!r}, it should be {plan.trained}: the '
            "length *before* stretching.",
        )
    known = {"rope_type", "rope_theta", "factor", key}
    if strange := sorted(set(rope) - known):
        return Mistake(
            "extra-keys", f'{shown} has the key "{strange[0]}". Leave it out.'
        )  # fmt: skip
    return None


# Question 6

Choose = Callable[[list[int], list[int]], list[int]]
PASSES = 60  # after which a way is taken to go on for ever


def agreed(draft: list[int], own: list[int]) -> int:
    """Return how many tokens at the beginning are the same."""
    number = 0
    while number < min(len(draft), len(own)) and draft[number] == own[number]:
        number += 1
    return number


def kept(draft: list[int], own: list[int]) -> list[int]:
    """Return what a round writes: what was guessed rightly, and one token more."""
    return own[: agreed(draft, own) + 1]


def written(
    job: probe.Job,
    choose: Choose = kept,
    before: int = 1,
    to_end: bool = True,
    to_limit: bool = True,
) -> tuple[list[int], int]:
    """Return what is written and in how many passes; changes make mistakes."""
    new, passes = list[int](), 0
    while len(new) < job.limit and job.end not in new and passes < PASSES:
        draft, text = job.drafted(len(new)), job.prompt + new
        own = job.follows(text + draft)[len(text) - before :]
        new, passes = new + choose(draft, own), passes + 1
    if to_end and job.end in new:
        new = new[: new.index(job.end) + 1]
    return (new[: job.limit] if to_limit else new), passes


def _same_places(draft: list[int], own: list[int]) -> list[int]:
    return [a for a, b in zip(draft, own, strict=False) if a == b]


def _way(choose: Choose) -> Callable[[probe.Job], list[int]]:
    return lambda job: written(job, choose)[0]


def _all_or_nothing(draft: list[int], own: list[int]) -> list[int]:
    return own if agreed(draft, own) == len(draft) else own[:1]


NO_BONUS: tuple[Choose, ...] = (
    lambda draft, own: draft[: agreed(draft, own)] or own[:1],
    lambda draft, own: kept(draft, own[:-1] or own),
)
LATE = "Nothing is written after the end token, though the draft may go on."
TEXTS = (
    *(Way("trusts-the-draft", _way(choose),
          "A wrong draft was written. Take a drafted token only if the model writes "
          "the same at its place.")
      for choose in (lambda draft, own: draft + own[len(draft) :],
                     lambda draft, own: draft or own[:1])),
    *(Way("place-by-place", _way(choose),
          "You took every drafted token that agrees. Behind the first wrong one the "
          "model has read a wrong text: what it says there is worth nothing.")
      for choose in (
          lambda draft, own: _same_places(draft, own) + own[len(draft) :],
          lambda draft, own: _same_places(draft, own) or own[:1],
          lambda draft, own: own[: len(_same_places(draft, own)) + 1],
          lambda draft, own: _same_places(draft, own) + own[agreed(draft, own) :][:1],
          lambda draft, own: _same_places(draft, own)
          + own[len(_same_places(draft, own)) :][:1])),
    Way("takes-all-its-tokens", _way(lambda draft, own: own),
        "You took all that the model says. Behind the first difference it has read a "
        "wrong draft: its tokens there belong to another text."),
    *(Way("keeps-the-wrong-token", _way(choose),
          "The first wrong token of a draft was kept. In its place stands the model's "
          "own token.")
      for choose in (
          lambda draft, own: draft[: agreed(draft, own) + 1] or own[:1],
          lambda draft, own: draft[: agreed(draft, own) + 1]
          + own[agreed(draft, own) + 1 :][:1])),
    Way("one-place-off", lambda job: written(job, before=0)[0],
        "You compared with the place itself. What follows a token stands at *its* "
        "place: the first drafted token is foretold by the last token of the text."),
    Way("one-place-off", lambda job: written(job, before=2)[0],
        "You compared one place too early: the last token of the text foretells the "
        "first drafted one."),
    Way("returns-the-prompt", lambda job: job.prompt + written(job)[0],
        "The prompt is in it. Return the new tokens only."),
    Way("stops-at-once", lambda job: [],
        "Nothing was written. The prompt holds the end token, too: it ends each turn. "
        "Look for it among the new tokens only."),
    Way("one-round-only", lambda job: kept(job.drafted(0), job.follows(
            job.prompt + job.drafted(0))[len(job.prompt) - 1 :]),
        "That is one round. Go on until the end token or the limit."),
    Way("drops-the-end", lambda job: [
            token for token in written(job)[0] if token != job.end],
        "The end token is missing. It is written, too, as the last one."),
    Way("writes-after-the-end", lambda job: written(job, to_end=False)[0], LATE),
    Way("too-long", lambda job: written(job, to_limit=False)[0],
        "These are more tokens than `limit`. A round may write several: cut the last."),
    Way("too-long", lambda job: written(job, to_limit=False, to_end=False)[0],
        "A round may write several tokens: cut it at `limit`, and after the end token."
        ),
)  # fmt: skip


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the texts, up to a job that failed, then count the passes."""
    cases = probe.jobs(seed)
    shown = [f"With {job.name}, speculate" for job in cases]
    pairs = zip(cases, seen, shown, strict=False)
    failed = [_failed(*pair) for pair in pairs]
    done = next((n for n, wrong in enumerate(failed) if wrong), len(failed))
    whole = [(cases[n], seen[n], shown[n]) for n in range(done)]
    return mistakes.first(
        lambda: _texts(whole),
        lambda: next(filter(None, failed), None),
        lambda: _passes(whole),
    )


Call = tuple[probe.Job, dict[str, Any], str]  # what it gave, and how it is named


def _failed(job: probe.Job, outcome: dict[str, Any], shown: str) -> Mistake | None:
    """Return what is wrong with a call whatever the text."""
    if outcome["error"].startswith("TooMany"):
        return _endless(job, outcome, shown)
    if outcome["error"].startswith("TypeError: read takes"):
        return Mistake("reads-no-list", f"{shown}: {outcome['error'][11:]}.")
    if wrong := mistakes.of_call(outcome, shown):
        return wrong
    value = outcome["value"]
    if not isinstance(value, list) or not all(map(mistakes.is_number, value)):
        return Mistake(
            "no-ids", f"{shown} gave {short(value)}. Return the list of new ids."
        )  # fmt: skip
    return None


def _endless(job: probe.Job, outcome: dict[str, Any], shown: str) -> Mistake:
    """Name what went on for ever, by the text so far if that is wrong already."""
    right = written(job)[0]
    new = outcome["begun"][-1][len(job.prompt) :] if outcome["begun"] else []
    if new != right[: len(new)]:
        for way in TEXTS:
            if way.made(job)[: len(new)] == new:
                said = f"{shown} wrote {short(new)}, it is {short(right)}. "
                return Mistake(way.name, said + way.text)
    return Mistake(
        "never-ends",
        f"{shown} called read or guess {probe.MOST_CALLS} times for {len(right)} "
        "tokens. Each round has to write at least one, the model's own, also where the "
        "draft is wrong or empty.",
    )


def _texts(whole: list[Call]) -> Mistake | None:
    """Compare what was written with what the model alone writes."""
    if not whole:
        return None
    jobs, seen, shown = zip(*whole, strict=True)
    right = [written(job)[0] for job in jobs]
    for job, outcome, text, expected in zip(jobs, seen, shown, right, strict=True):
        part = next((one for one in outcome["texts"] if not _begins(one, job)), None)
        if part is not None and outcome["value"] != expected:
            return Mistake(
                "reads-a-part",
                f"{text} let the model read {short(part)}. It keeps no cache here: "
                "each pass reads the prompt, what is written, and the draft.",
            )
    advice = "Follow one round by hand: what was drafted, what does the model say?"
    cases = [(job,) for job in jobs]
    return compared(cases, list(seen), shown, right, TEXTS, _equal, advice)


def _begins(text: list[int], job: probe.Job) -> bool:
    return text[: len(job.prompt)] == job.prompt


def _passes(whole: list[Call]) -> Mistake | None:
    """Name what makes more passes than are needed."""

    def taken(choose: Choose) -> bool:
        return all(len(o["texts"]) == written(job, choose)[1] for job, o, _ in whole)

    slow = [one for one in whole if len(one[1]["texts"]) > written(one[0])[1]]
    if not slow:
        return None
    job, outcome, shown = slow[0]
    done, drafts = len(outcome["texts"]), len(outcome["begun"])
    said = f"{shown} gave the right text, in {done} passes and not {written(job)[1]}. "
    if not drafts:
        return Mistake(
            "no-drafts", f"{said}guess was never called: that is plain decoding."
        )
    strange = [text for text in outcome["begun"] if not _begins(text, job)]
    if strange or outcome["begun"].count(job.prompt) > 1:
        return Mistake(
            "guesses-from-a-part",
            f"{said}guess has to get the whole text so far, prompt and new tokens.",
        )
    if done > drafts:
        return Mistake(
            "reads-again",
            f"{said}There were {drafts} drafts. One pass over text and draft says what "
            "the model writes at every place: check them all with it.",
        )
    if any(map(taken, NO_BONUS)):
        return Mistake(
            "drops-the-free-token",
            f"{said}Behind the last token that was right stands one more of the "
            "model's own, in the same pass. It is right, too.",
        )
    if taken(_all_or_nothing):
        return Mistake(
            "all-or-nothing",
            f"{said}A draft with one wrong token is not lost: what stands before it is "
            "right.",
        )
    return Mistake(
        "too-many-passes",
        f"{said}Each pass reads the text *and* the draft, and writes all that agrees, "
        "and one token more.",
    )


_place = functools.partial(section, "06_inference")

QUESTIONS = (
    Question(
        id="06.q1",
        title="Two speeds",
        outcome=4,
        difficulty="warm-up",
        minutes=8,
        judge=q1,
        hints=(
            "What does a user wait for before the first token, and what before each of "
            "the others?",
            "The first number is a difference of two times. For the second, count the "
            "steps from the first token to the last, one fewer than tokens, and divide "
            "by the time between these two.",
        ),
        look=_place("1. Two phases: reading and writing"),
        why="Prefill and decode are limited by different things: one number for both "
        "says more about the length of the prompt than about the model.",
    ),
    Question(
        id="06.q2",
        title="Attention with a cache",
        outcome=1,
        difficulty="core",
        minutes=12,
        judge=q2,
        hints=(
            "What of the earlier tokens does this one need: queries, keys, values? And "
            "what will a later token need of this one?",
            "cache.setdefault(layer, ([], [])) gives two lists. Append the key and the "
            "value; stack each; softmax of keys times query by the root of head_dim; "
            "these shares times values.",
        ),
        look=_place("2. The KV cache, built by hand"),
        why="Keys and values of a token never change once it is read: that is what "
        "lets decode compute one token and not the whole text.",
    ),
    Question(
        id="06.q3",
        title="Waiting for the longest",
        outcome=4,
        difficulty="core",
        minutes=12,
        judge=q3,
        hints=(
            "Draw a row for each place and a bar for each request, as the lesson does. "
            "Where does the next bar begin, in either way?",
            "Plain: cut the queue into pieces of `places`, add the longest of each. "
            "Continuous: keep the pass at which each place is free; every request goes "
            "to the smallest; the answer is the largest.",
        ),
        look=_place("Nobody waits for the longest"),
        why="Answers differ in length, with thinking most of all, and in a plain batch "
        "the short ones hold their places and write nothing.",
    ),
    Question(
        id="06.q4",
        title="One leaves, one joins",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q4,
        hints=(
            "Every row is padding, then tokens. Which single number says all about it?",
            "Count the ones of each row, and put `length` in the place of the one that "
            "ended. The largest count is the width; what a row lacks are zeros on its "
            "left. And how many tokens stand before the next one?",
        ),
        look=_place("Nobody waits for the longest"),
        why="RoPE turned each cached key by its position in its own text, so a key may "
        "move to another column, and the next token must go on counting there.",
    ),
    Question(
        id="06.q5",
        title="Room for a long text",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q5,
        hints=(
            "Three decisions: does the text need stretching, by how much, and counted "
            "from which length? Prompt and answer stand in one text.",
            "Add prompt and answer. At most `trained`: return rope. Otherwise divide, "
            "double, round up with math.ceil, halve; and make a new dictionary: "
            "{**rope, ...} keeps what is not named again.",
        ),
        look=_place("7. Long texts"),
        why="YaRN stretches every text, so it is switched on for long ones only, with "
        "the smallest factor, counted from the length of the training.",
    ),
    Question(
        id="06.q6",
        title="Drafts, checked in one pass",
        outcome=4,
        difficulty="stretch",
        minutes=20,
        judge=q6,
        hints=(
            "Begin with one round, for a draft of two tokens. At which places of what "
            "read returns stand the model's own tokens for them, and the one after?",
            "read(text + draft)[len(text) - 1:] is one token longer than the draft. "
            "Count how many agree from the beginning, and write that many and one more "
            "of them. Cut at the end token and at limit; then the next round.",
        ),
        look=_place("6. Drafts: several tokens in one pass"),
        why="The text is the model's own, token for token: a draft changes only how "
        "many passes it takes.",
    ),
)
