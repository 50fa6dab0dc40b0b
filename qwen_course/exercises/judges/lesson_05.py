"""What is right in the exercises of lesson 05."""

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_05 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import Outcomes, Way, compared, no_numbers, short

Weights = Sequence[float]

# Question 1


def bits_each(bits: float, group: int, scale: float, zero: float) -> float:
    """Return the bits of a weight, with its share of a scale and a zero point."""
    return bits + (scale + zero) / group


COSTS = (
    Way("no-scales", lambda b, g, s, z: b,
        "You counted the code alone. Without its scale it says nothing: the scale is "
        "stored, too."),
    Way("no-zero-points", lambda b, g, s, z: b + s / g,
        "The scale is in it, the zero point is not."),
    Way("not-shared", lambda b, g, s, z: b + s + z,
        "Every weight would have a scale and a zero of its own. A group shares them: "
        "divide by its weights."),
    Way("zero-not-shared", lambda b, g, s, z: b + s / g + z,
        "The zero point is shared as well as the scale."),
    Way("scale-not-shared", lambda b, g, s, z: b + s + z / g,
        "Write brackets: scale and zero point together are divided by the group."),
    Way("whole-group", lambda b, g, s, z: b * g + s + z,
        "Those are the bits of a whole group. Divide by its weights."),
    Way("code-shared", lambda b, g, s, z: (b + s + z) / g,
        "You divided the code as well. Every weight has a code of its own; only scale "
        "and zero point are shared."),
    Way("scales-only", lambda b, g, s, z: (s + z) / g,
        "That is what scale and zero point add. The code comes on top."),
    Way("turned-around", lambda b, g, s, z: b + g / (s + z),
        "You divided the group by the bits. Turn it around."),
    Way("bytes", lambda b, g, s, z: bits_each(b, g, s, z) / 8,
        "Those are bytes. The question is about bits."),
    *(Way("rounded", lambda *one, by=by: by(bits_each(*one)),
          "You rounded it. A weight does not take whole bits: only a group does.")
      for by in (round, math.floor, math.ceil,
                 lambda n: round(n, 1), lambda n: round(n, 2))),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the bits of each format."""
    cases = probe.formats(seed)
    shown = [f"bits_per_weight{one}" for one in cases]
    right = [bits_each(*one) for one in cases]
    advice = "Count the bits of one whole group, then divide by its weights."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, COSTS, mistakes.close, advice),
    )


# Question 2


def stored(
    parameters: int,
    vocabulary: int,
    hidden: int,
    tied: bool,
    bits: float,
    *,
    tables: Callable[[bool], int] = lambda tied: 1 if tied else 2,
    table_bits: float = 16,
) -> float:
    """Return the bytes of a checkpoint; other numbers of tables make mistakes."""
    rest = vocabulary * hidden * tables(tied)
    return (rest * table_bits + (parameters - rest) * bits) / 8


SIZES = (
    Way("tables-quantized", lambda *m: m[0] * m[4] / 8,
        "You quantized everything. The tables keep their 16 bits: that is why a small "
        "model, which is mostly table, gains little."),
    Way("one-table", lambda *m: stored(*m, tables=lambda tied: 1),
        "You counted one table. A model that is not tied has an output layer of the "
        "same size, and that keeps its 16 bits as well."),
    Way("two-tables", lambda *m: stored(*m, tables=lambda tied: 2),
        "You counted two tables. A tied model stores one, for input and output."),
    Way("tied-turned", lambda *m: stored(*m, tables=lambda tied: 2 if tied else 1),
        "Tied means that one table serves twice, so it is stored once. You have it "
        "the other way round."),
    Way("tables-on-top", lambda p, v, h, t, b: p * b / 8 + stored(p, v, h, t, 0),
        "You added the tables to all parameters, which hold them already. Take them "
        "out of the part that is quantized."),
    Way("no-tables", lambda *m: stored(*m, table_bits=0),
        "The tables are missing. They are stored as well, in 16 bits."),
    Way("only-tables", lambda p, v, h, t, b: stored(p, v, h, t, 0),
        "Those are the tables alone. The other weights are stored as well."),
    Way("tables-in-32-bits", lambda *m: stored(*m, table_bits=32),
        "Your tables take 4 bytes a number. 16 bits are 2."),
    Way("bits-for-bytes", lambda *m: 8 * stored(*m),
        "Those are bits. A byte has eight."),
    Way("bits-for-bytes", lambda p, v, h, t, b: stored(p, v, h, t, 8 * b),
        "The bits of a weight were not divided by 8, as if each were a byte."),
    Way("bits-for-bytes", lambda *m: stored(*m, table_bits=128),
        "The 16 bits of the tables were not divided by 8: they are 2 bytes."),
    Way("whole-bits", lambda p, v, h, t, b: stored(p, v, h, t, int(b)),
        "You dropped the fraction of the bits: 4.25 are more than 4. Those are the "
        "scales."),
    *(Way("other-unit", lambda *m, unit=unit: stored(*m) / unit,
          "Return bytes, not GB, GiB or MiB.")
      for unit in (1e9, 2**30, 1e6, 2**20)),
)  # fmt: skip


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each size."""
    cases = probe.checkpoints(seed)
    shown = [f"checkpoint_bytes{one}" for one in cases]
    right = [round(stored(*one)) for one in cases]
    advice = "Two parts: the tables in 16 bits, and all the rest in fewer."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, SIZES, mistakes.close, advice),
    )


# Question 3


def top(bits: int) -> int:
    """Return the largest code."""
    return int(2 ** (bits - 1) - 1)


def peak(weights: Weights) -> float:
    """Return the largest absolute value."""
    return max(map(abs, weights))


def cut(row: Weights, group: int) -> list[Weights]:
    """Return a row in groups of weights that stand side by side."""
    return [row[i : i + group] for i in range(0, len(row), group)]


def absmax(
    row: Weights,
    bits: int,
    group: int,
    size: Callable[[Weights], float] = peak,
    largest: Callable[[int], float] = top,
    whole: Callable[[float], float] = round,
    limit: Callable[[int], float] = lambda bits: math.inf,
) -> tuple[list[float], list[float]]:
    """Return codes and scales; other parts make mistakes."""
    codes: list[float] = []
    scales = [size(part) / largest(bits) for part in cut(row, group)]
    for part, scale in zip(cut(row, group), scales, strict=True):
        found = [whole(weight / scale) if scale else 0 for weight in part]
        most = limit(bits)
        codes += [max(-most, min(most, code)) for code in found]
    return codes, scales


def _one_scale(row: Weights, bits: int, group: int) -> Any:
    codes, scales = absmax(row, bits, len(row))
    return codes, scales * (len(row) // group)


def _every_nth(row: Weights, bits: int, group: int) -> Any:
    """Return what comes out where groups are dealt like cards."""
    n = len(row) // group
    codes, scales = absmax([w for i in range(n) for w in row[i::n]], bits, group)
    return [codes[i % n * group + i // n] for i in range(len(row))], scales


def _many_groups(row: Weights, bits: int, group: int) -> Any:
    return absmax(row, bits, max(1, len(row) // group))


def _affine(row: Weights, bits: int, group: int) -> Any:
    codes: list[float] = []
    scales = []
    for part in cut(row, group):
        scale = (max(part) - min(part)) / (2**bits - 1)
        codes += [round((w - min(part)) / scale) if scale else 0 for w in part]
        scales.append(scale)
    return codes, scales


def _changed_scales(change: Callable[[float, int], float]) -> Callable[..., Any]:
    def way(row: Weights, bits: int, group: int) -> Any:
        codes, scales = absmax(row, bits, group)
        return codes, [change(scale, bits) for scale in scales]

    return way


def _restored(row: Weights, bits: int, group: int) -> Any:
    codes, scales = absmax(row, bits, group)
    return [code * scales[i // group] for i, code in enumerate(codes)], scales


def _repeated(row: Weights, bits: int, group: int) -> Any:
    codes, scales = absmax(row, bits, group)
    return codes, [scale for scale in scales for _ in range(group)]


SYMMETRIC = (
    "The scale belongs to the largest code: 127 with 8 bits, 7 with 4 bits, 3 with 3 "
    "bits. So the codes go as far below zero as above. "
)
ROUNDS = "Round to the *nearest* whole number. "
QUANTIZED = (
    Way("one-scale", _one_scale,
        "You took one scale for the whole row, so one outlier makes all its steps "
        "wide. Each group has a peak of its own."),
    Way("one-scale", lambda r, b, g: absmax(r, b, len(r)),
        "You took one scale for the whole row. Each group has one of its own."),
    *(Way("no-absolute-value", lambda r, b, g, size=size, limit=limit: absmax(
            r, b, g, size, limit=limit),
          "The largest weight is not always the one farthest from zero: that may be "
          "negative. Take absolute values first.")
      for size in (max, lambda part: abs(max(part)))
      for limit in (lambda bits: math.inf, top)),
    *(Way("one-code-too-many", lambda r, b, g, limit=limit: absmax(
            r, b, g, largest=lambda bits: 2 ** (bits - 1), limit=limit),
          SYMMETRIC + "You divided by one more.")
      for limit in (lambda bits: math.inf, top)),
    *(Way("no-sign", lambda r, b, g, largest=largest: absmax(r, b, g, largest=largest),
          SYMMETRIC + "You divided by all codes there are, as if no weight were "
          "negative.")
      for largest in (lambda bits: 2**bits - 1, lambda bits: 2**bits)),
    Way("always-8-bits", lambda r, b, g: absmax(r, 8, g),
        "127 is the largest code with 8 bits. Make it from `bits`."),
    Way("affine", _affine,
        "That is affine quantization, which starts at the smallest weight and needs a "
        "zero point. With absmax the code 0 means 0."),
    Way("cuts-off", lambda r, b, g: absmax(r, b, g, whole=int),
        ROUNDS + "int cuts off what is behind the point, always towards zero."),
    Way("rounds-down", lambda r, b, g: absmax(r, b, g, whole=math.floor),
        ROUNDS + "// and floor always go down."),
    Way("rounds-up", lambda r, b, g: absmax(r, b, g, whole=math.ceil),
        ROUNDS + "ceil always goes up."),
    Way("not-rounded", lambda r, b, g: absmax(r, b, g, whole=float),
        "Your codes are no whole numbers, and would not fit into few bits. Round "
        "them."),
    Way("peaks-for-scales", _changed_scales(lambda scale, bits: scale * top(bits)),
        "Those are the peaks. The scale is what one step is worth: the peak divided "
        "by the largest code."),
    Way("scales-turned", _changed_scales(lambda scale, bits: scale and 1 / scale),
        "Your scales are upside down. A code times its scale gives the weight back."),
    Way("weights-for-codes", _restored,
        "Those are the restored weights. Return the whole numbers themselves: they "
        "are what is stored."),
    Way("scale-for-each", _repeated,
        "You returned a scale for each weight, and nothing would be saved. Return one "
        "for each group."),
    Way("every-nth", _every_nth,
        "Your groups take every n-th weight. A group stands side by side in the row."),
    Way("group-is-a-number", _many_groups,
        "You cut the row into `group` groups. `group` is how many weights are in one."),
)  # fmt: skip


def _flat(value: Any) -> list[Any]:
    return (
        [v for one in value for v in _flat(one)] if isinstance(value, list) else [value]
    )


def _same_codes(value: Any, expected: tuple[list[float], list[float]]) -> bool:
    """Compare codes and scales, in groups or not; the scale of zeros may be any."""
    (codes, scales), (right, steps) = map(_flat, value), expected
    return (
        len(codes) == len(right)
        and len(scales) == len(steps)
        and all(abs(a - b) < 1e-4 for a, b in zip(codes, right, strict=True))
        and all(
            mistakes.close(a, b, 1e-4) or not b
            for a, b in zip(scales, steps, strict=True)
        )
    )


def q3(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the codes and scales of each row."""
    cases = probe.rows(seed)
    shown = [f"quantize({short(one.row)}, {one.bits}, {one.group})" for one in cases]
    for one, outcome, text in zip(cases, seen, shown, strict=True):
        if wrong := _no_codes(one, outcome, text):
            return wrong
    right = [absmax(*one) for one in cases]
    advice = "For each group: peak, scale, then every weight divided and rounded."
    return compared(cases, seen, shown, right, QUANTIZED, _same_codes, advice)


def _no_codes(one: probe.Row, outcome: dict[str, Any], shown: str) -> Mistake | None:
    """Return what is wrong with a call whatever its codes."""
    value, error = outcome["value"], outcome["error"]
    undefined = error.startswith("ZeroDivision") or "NaN" in error
    if 0.0 in one.row and (undefined or {"nan", "inf"} & set(map(str, _flat(value)))):
        return Mistake(
            "divides-by-zero",
            f"{shown} divided by 0: {error or short(value)}. One group is all zeros, "
            "as padding and dead weights are. Its codes are 0.",
        )
    if wrong := mistakes.of_call(outcome, shown):
        return wrong
    if not isinstance(value, list) or len(value) != 2:
        return Mistake(
            "no-pair", f"{shown} gave {short(value)}. Return two lists: the codes, and "
            "the scales."
        )  # fmt: skip
    codes, scales = map(_flat, value)
    if not all(map(mistakes.is_number, codes + scales)):
        return Mistake("no-numbers", f"{shown} gave {short(value)}: not all numbers.")
    if len(scales) == len(one.row) > len(codes):
        return Mistake(
            "swapped", f"{shown} gave {short(value)}. The codes come first, then the "
            "scales."
        )  # fmt: skip
    if len(codes) != len(one.row):
        return Mistake(
            "number-of-codes",
            f"{shown} gave {len(codes)} codes for {len(one.row)} weights. All groups "
            "of the row are needed.",
        )
    return None


# Question 4


def nearest(part: float, levels: Weights) -> int:
    """Return the code of the nearest level."""
    return min(range(len(levels)), key=lambda code: abs(levels[code] - part))


def codes_of(
    block: Weights,
    levels: Weights,
    size: Callable[[Weights], float] = peak,
    code: Callable[[float, Weights], int] = nearest,
) -> list[int]:
    """Return the code of each weight; other parts make mistakes."""
    return [code(weight / size(block), levels) for weight in block]


def packed(codes: Sequence[int]) -> list[int]:
    """Return two codes a byte, the first in the upper half."""
    return [16 * a + b for a, b in zip(codes[::2], codes[1::2], strict=True)]


def _swapped(codes: Sequence[int]) -> list[int]:
    return packed([code for pair in zip(codes[1::2], codes[::2], strict=True)
                   for code in pair])  # fmt: skip


def _half_and_half(codes: Sequence[int], swapped: bool = False) -> list[int]:
    """Return bytes that hold a code of each half of the block."""
    middle = len(codes) // 2
    pairs = zip(codes[:middle], codes[middle:], strict=True)
    return [16 * b + a if swapped else 16 * a + b for a, b in pairs]


def _below(part: float, levels: Weights) -> int:
    return min(15, max(0, bisect.bisect_right(levels, part) - 1))


def _above(part: float, levels: Weights) -> int:
    return min(15, bisect.bisect_left(levels, part))


def _clipped(number: float, low: int = 0) -> int:
    return max(low, min(15, round(number)))


LOW_FIRST = "The first code belongs into the upper half: times 16, or << 4."
HALVES = (
    "You paired the first half of the block with the second. Two neighbours share a "
    "byte."
)
Packing = Callable[[Sequence[int]], list[Any]]


def _packing(name: str, how: Packing, text: str) -> Way:
    return Way(name, lambda block, levels: how(codes_of(block, levels)), text)


def _coding(name: str, text: str, **parts: Any) -> Way:
    return Way(
        name, lambda block, levels: packed(codes_of(block, levels, **parts)), text
    )


PACKED = (
    _packing("not-packed", list,
             "Those are the codes, one a byte: as large as int8. Put two into each "
             "byte."),
    _packing("low-half-first", _swapped, LOW_FIRST),
    _packing("half-and-half", _half_and_half, HALVES),
    _packing("half-and-half", lambda codes: _half_and_half(codes, True), HALVES),
    _packing("adds-codes", lambda codes: [a + b for a, b in zip(
                 codes[::2], codes[1::2], strict=True)],
             "You added two codes, and from a sum nobody gets both back. The first is "
             "moved up by 4 bits before."),
    _packing("times-10", lambda codes: [10 * a + b for a, b in zip(
                 codes[::2], codes[1::2], strict=True)],
             "A code goes up to 15, so the first one is worth 16, not 10."),
    _packing("times-15", lambda codes: [15 * a + b for a, b in zip(
                 codes[::2], codes[1::2], strict=True)],
             "There are 16 codes, 0 to 15, so the first one is worth 16, not 15."),
    _coding("not-scaled", "You compared the weights themselves. The levels go from -1 "
            "to 1: divide by the peak of the block first.", size=lambda block: 1.0),
    *(_coding("no-absolute-value", "You divided by the largest weight. The one "
              "farthest from zero may be negative: take absolute values.", size=size)
      for size in (max, lambda block: abs(max(block)))),
    _coding("range-for-peak", "You divided by the distance from the smallest weight to "
            "the largest. Divide by the largest absolute value.",
            size=lambda block: max(block) - min(block)),
    _coding("level-below", "You took the level below each weight. The level above may "
            "be nearer.", code=_below),
    _coding("level-above", "You took the level above each weight. The level below may "
            "be nearer.", code=_above),
    _coding("no-distance", "You looked for the smallest difference, and a negative one "
            "is smaller than 0. The distance is its absolute value.",
            code=lambda part, levels: 0),
    _coding("no-distance", "You looked for the smallest difference, and a negative one "
            "is smaller than 0. The distance is its absolute value.",
            code=lambda part, levels: 15),
    *(_coding("even-steps", "You put the codes at equal steps. The levels of NF4 lie "
              "close together near 0: look for the nearest one.", code=code)
      for code in (lambda part, levels: _clipped((part + 1) * 7.5),
                   lambda part, levels: _clipped(7 * part + 7),
                   lambda part, levels: _clipped(7 * part + 8),
                   lambda part, levels: _clipped(8 * part + 8))),
    _coding("counts-from-1", "Your codes go from 1 to 16, and 16 does not fit into 4 "
            "bits. Codes are places in the list: they begin at 0.",
            code=lambda part, levels: nearest(part, levels) + 1),
    Way("levels-for-codes", lambda block, levels: [
            levels[code] for code in codes_of(block, levels)],
        "Those are the levels. Stored is the place of a level in the list, 0 to 15."),
    Way("weights-for-codes", lambda block, levels: [
            levels[code] * peak(block) for code in codes_of(block, levels)],
        "Those are the restored weights. Stored is the place of a level in the list."),
)  # fmt: skip


def _same_list(value: Any, expected: list[float]) -> bool:
    return len(value) == len(expected) and all(
        mistakes.close(a, b) for a, b in zip(value, expected, strict=True)
    )


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the bytes of each block."""
    cases = [(block, probe.LEVELS) for block in probe.blocks(seed)]
    shown = [f"nf4_bytes({short(block)}, levels)" for block, _ in cases]
    for outcome, text in zip(seen, shown, strict=True):
        if wrong := mistakes.of_call(outcome, text) or _no_bytes(outcome, text):
            return wrong
    right = [packed(codes_of(*one)) for one in cases]
    advice = "Divide by the peak, take the nearest level, and pack two codes a byte."
    return compared(cases, seen, shown, right, PACKED, _same_list, advice)


def _no_bytes(outcome: dict[str, Any], shown: str) -> Mistake | None:
    value = outcome["value"]
    if isinstance(value, list) and all(map(mistakes.is_number, value)):
        return None
    if isinstance(value, list) and value and all(map(mistakes.is_pair, value)):
        return Mistake(
            "pairs", f"{shown} gave {short(value)}. Make one number of each pair: the "
            "first code times 16, and the second."
        )  # fmt: skip
    return Mistake(
        "no-bytes",
        f"{shown} gave {short(value)}. Return a list of whole numbers, 0 to 255.",
    )


# Question 5


def limit(weights: float, cache: float, context: float, bandwidth: float) -> float:
    """Return the tokens a second that the memory allows."""
    return bandwidth * 1e9 / (weights + cache * context)


LIMITS = (
    Way("no-cache", lambda w, c, n, b: limit(w, 0, n, b),
        "You counted the weights alone. Each step also reads a key and a value for "
        "every token so far."),
    Way("cache-of-one-token", lambda w, c, n, b: limit(w, c, 1, b),
        "You counted the cache of one token. Attention reads that of the whole text: "
        "times the context."),
    Way("only-cache", lambda w, c, n, b: limit(0, c, n, b) if n else math.inf,
        "You counted the cache alone. Each step reads all weights, too."),
    *(Way("seconds", lambda w, c, n, b, unit=unit: unit / limit(w, c, n, b),
          "Those are seconds a token. Turn it around: tokens a second.")
      for unit in (1, 1e9)),
    Way("milliseconds", lambda w, c, n, b: 1000 / limit(w, c, n, b),
        "Those are milliseconds a token. The question is tokens a second."),
    Way("other-unit", lambda w, c, n, b: limit(w, c, n, b) / 1e9,
        "The weights are in bytes, the bandwidth in GB: multiply it by 10^9."),
    Way("other-unit", lambda w, c, n, b: limit(w, c, n, b) * 2**30 / 1e9,
        "You took 2^30 bytes for a GB. Bandwidth is given in units of 10^9."),
    *(Way("other-unit", lambda w, c, n, b, unit=unit: limit(w, c, n, b) * unit / 1e9,
          "1 GB is 10^9 bytes. You took another number.") for unit in (1e6, 1e12)),
    *(Way("bits", lambda w, c, n, b, times=times: limit(w, c, n, b) * times,
          "Weights, cache and bandwidth are all in bytes: there is no 8 in it.")
      for times in (8, 1 / 8)),
    Way("adds-limits", lambda w, c, n, b: (
            limit(w, 0, n, b) + (limit(0, c, n, b) if n else 0)),
        "You added two speeds. Both have to be read for one token: add the bytes."),
    Way("slower-of-two", lambda w, c, n, b: limit(max(w, c * n), 0, 0, b),
        "You took the larger of the two. The memory reads one after the other: add "
        "the bytes."),
    Way("weights-for-each", lambda w, c, n, b: limit((w + c) * n, 0, 0, b)
            if n else math.inf,
        "You multiplied the weights by the context, too. They are read once a step, "
        "however long the text is."),
    Way("all-tokens", lambda w, c, n, b: limit(w, c, n, b) * n,
        "You multiplied by the context: as if every step gave the whole text. It "
        "gives one token."),
    *(Way("rounded", lambda *one, by=by: by(limit(*one)),
          "You rounded it. The limit need not be a whole number.")
      for by in (int, round, math.ceil, lambda n: round(n, 1), lambda n: round(n, 2))),
)  # fmt: skip


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each limit."""
    cases = probe.loads(seed)
    shown = [f"most_tokens{one}" for one in cases]
    for (_, _, context, _), outcome, text in zip(cases, seen, shown, strict=True):
        if not context and outcome["error"].startswith("ZeroDivision"):
            return Mistake(
                "no-text-yet",
                f"{text} divided by 0. At the start there is no text, and the weights "
                "are read all the same: add the bytes first, then divide once.",
            )
    right = [limit(*one) for one in cases]
    advice = "How many bytes does one step read? How often can that be read a second?"
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, LIMITS, mistakes.close, advice),
    )


# Question 6

Matrix = Sequence[Weights]
Measure = Callable[[Matrix, Matrix], float]


def norm(numbers: Weights) -> float:
    """Return the root of the sum of squares."""
    return math.sqrt(sum(n * n for n in numbers))


def _all(matrix: Matrix) -> Weights:
    return [weight for row in matrix for weight in row]


def _lost(matrix: Matrix, again: Matrix) -> Weights:
    pairs = zip(_all(matrix), _all(again), strict=True)
    return [a - b for a, b in pairs]


def relative(matrix: Matrix, again: Matrix) -> float:
    """Return the error of a whole matrix against its size."""
    return norm(_lost(matrix, again)) / norm(_all(matrix))


def _mean_of_rows(matrix: Matrix, again: Matrix) -> float:
    pairs = zip(matrix, again, strict=True)
    return sum(relative([a], [b]) for a, b in pairs) / len(matrix)


def _worst_row(matrix: Matrix, again: Matrix) -> float:
    pairs = zip(matrix, again, strict=True)
    return max(relative([a], [b]) for a, b in pairs)


def _absolute(matrix: Matrix, again: Matrix) -> float:
    lost = _lost(matrix, again)
    return norm(lost) / math.sqrt(len(lost))


def _squares(matrix: Matrix, again: Matrix) -> float:
    return relative(matrix, again) ** 2


def _first_row(matrix: Matrix, again: Matrix) -> float:
    return relative(matrix[:1], again[:1])


def _of_sizes(matrix: Matrix, again: Matrix) -> float:
    return sum(map(abs, _lost(matrix, again))) / sum(map(abs, _all(matrix)))


def _of_peaks(matrix: Matrix, again: Matrix) -> float:
    return peak(_lost(matrix, again)) / peak(_all(matrix))


def _worst_weight(matrix: Matrix, again: Matrix) -> float:
    pairs = zip(_all(matrix), _lost(matrix, again), strict=True)
    return max(abs(lost / weight) for weight, lost in pairs if weight)


def rounded(matrix: Matrix, bits: int, group: int) -> Matrix:
    """Return a matrix that went to few bits and back."""
    return [_restored(row, bits, group)[0] for row in matrix]


def _in_one_group(matrix: Matrix, bits: int, group: int) -> Matrix:
    return cut(rounded([_all(matrix)], bits, len(_all(matrix)))[0], len(matrix[0]))


def _in_rows(matrix: Matrix, bits: int, group: int) -> Matrix:
    return rounded(matrix, bits, len(matrix[0]))


def found(
    matrix: Matrix,
    choices: list[tuple[int, int]],
    most: float,
    error: Measure = relative,
    cost: Callable[[int, int], float] = lambda bits, group: bits + 16 / group,
    again: Callable[..., Matrix] = rounded,
    best: Callable[..., Any] = min,
    fits: Callable[[float, float], bool] = lambda error, most: error <= most,
) -> list[int] | None:
    """Return the cheapest choice that is exact enough; other parts make mistakes."""
    errors = {one: error(matrix, again(matrix, *one)) for one in choices}
    fitting = [one for one in choices if fits(errors[one], most)]
    chosen = best(fitting, key=lambda one: cost(*one), default=None)
    return list(chosen) if chosen else None


def _first_fitting(options: list[Any], key: Any, default: Any) -> Any:
    return options[0] if options else default


def _least_error(matrix: Any, choices: Any, most: float) -> list[int] | None:
    errors = {one: relative(matrix, rounded(matrix, *one)) for one in choices}
    best = min(errors, key=lambda one: errors[one])
    return list(best) if errors[best] <= most else None


def _searching(name: str, text: str, **parts: Any) -> Way:
    return Way(name, lambda *search: found(*search, **parts), text)


ROOTS = (
    "The error is the root of all squared differences, divided by the root of all "
    "squared weights. "
)
SEARCHES = (
    _searching("scales-not-counted", "You took the fewest bits of a code. In small "
               "groups the scales cost more than they save: add 16 bits for each "
               "group.", cost=lambda bits, group: bits),
    *(_searching("scales-not-counted", "You took the fewest bits of a code, and of "
                 "equal ones a small or a large group. Add 16 bits for each group.",
                 cost=lambda bits, group, sign=sign: (bits, sign * group))
      for sign in (1, -1)),
    *(_searching("scales-of-other-size", "A scale takes 16 bits here, 2 bytes.",
                 cost=lambda bits, group, scale=scale: bits + scale / group)
      for scale in (32, 8)),
    Way("least-error", _least_error,
        "That is the one with the least error. It need only be exact enough: take the "
        "one with the fewest bits."),
    _searching("most-bits", "That has the most bits of all that are exact enough. The "
               "fewest are asked.", best=max),
    _searching("first-fitting", "That is the first in the list that is exact enough. A "
               "later one may have fewer bits.", best=_first_fitting),
    _searching("error-not-looked-at", "That has the fewest bits of all, and its error "
               "is too large.", fits=lambda error, most: True),
    *(_searching("error-turned", "You took those whose error is too large. At most so "
                 "much is allowed.", fits=fits)
      for fits in (lambda error, most: error >= most,)),
    _searching("not-relative", ROOTS + "You left out the division: then 1 is much for "
               "small weights and little for large ones.", error=_absolute),
    _searching("not-relative", ROOTS + "You left out the division.",
               error=lambda one, again: norm(_lost(one, again))),
    _searching("no-root", ROOTS + "You compared the squares: 0.01 is the square of "
               "0.1.", error=_squares),
    _searching("mean-of-rows", ROOTS + "You took the mean of the rows' errors. It "
               "hides a row that is lost.", error=_mean_of_rows),
    _searching("worst-row", ROOTS + "You took the row with the largest error. The "
               "matrix has one error, over all its weights.", error=_worst_row),
    _searching("first-row", ROOTS + "You looked at the first row only.",
               error=_first_row),
    _searching("other-error", ROOTS + "You added absolute values, without squares.",
               error=_of_sizes),
    _searching("other-error", ROOTS + "You took the largest difference only.",
               error=_of_peaks),
    _searching("other-error", ROOTS + "You compared weight by weight: one near 0 would "
               "decide.", error=_worst_weight),
    _searching("groups-not-used", "You rounded the matrix with one scale. Each group "
               "of each row has its own.", again=_in_one_group),
    _searching("groups-not-used", "You rounded with one scale a row. Each group has "
               "its own.", again=_in_rows),
)  # fmt: skip


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what each search found."""
    cases = probe.searches(seed)
    right = [found(*one) for one in cases]
    shown = [f"fewest_bits(matrix, {one.choices}, {one.most})" for one in cases]
    answered = any(outcome["value"] for outcome in seen)
    for one, outcome, expected, text in zip(cases, seen, right, shown, strict=True):
        if wrong := _no_choice(one, outcome, expected, answered, text):
            return wrong
    advice = "Round with each choice, measure, drop what is too coarse, take the least."
    return compared(cases, seen, shown, right, SEARCHES, _equal, advice)


def _equal(value: Any, expected: Any) -> bool:
    return bool(value == expected)


def _no_choice(
    one: probe.Search,
    outcome: dict[str, Any],
    expected: list[int] | None,
    answered: bool,
    shown: str,
) -> Mistake | None:
    """Return what is wrong with a call whatever it found."""
    value, failed = outcome["value"], outcome["error"]
    if expected is None and (failed or value in ([], "", 0)):
        return Mistake(
            "nothing-fits",
            f"{shown} gave {failed or short(value)}. Nothing is exact enough here: "
            "return None.",
        )
    stopped = failed or outcome["late"] or outcome["changed"] or outcome["printed"]
    if value is None and answered and not stopped:
        return None  # compared later
    if wrong := mistakes.of_call(outcome, shown):
        return wrong
    if value not in [list(choice) for choice in one.choices]:
        return Mistake(
            "no-choice",
            f"{shown} gave {short(value)}. Return one of the pairs, (bits, group), or "
            "None.",
        )
    return None


_place = functools.partial(section, "05_quantization")

QUESTIONS = (
    Question(
        id="05.q1",
        title="The true bits of a weight",
        outcome=4,
        difficulty="warm-up",
        minutes=6,
        judge=q1,
        hints=(
            "Draw one group as it lies in memory: its codes, then one scale and one "
            "zero point. How many bits is that?",
            "Scale and zero point are there once for the whole group: divide their "
            "bits by its weights, and add them to the bits of a code.",
        ),
        look=_place("A scale for each row, or for each group"),
        why="This sum, not the number in a file's name, says what will be in memory.",
    ),
    Question(
        id="05.q2",
        title="What a checkpoint weighs",
        outcome=5,
        difficulty="core",
        minutes=10,
        judge=q2,
        hints=(
            "Split the parameters in two: those in tables, and the others. How many "
            "tables does a tied model store, and how many one that is not?",
            "A table has vocabulary times hidden numbers of 2 bytes. The parameters "
            "that are not in tables take bits / 8 bytes each.",
        ),
        look=_place("3. The whole model, with a library"),
        why="The smaller a model, the more of it is table, and the less it gains from "
        "few bits.",
    ),
    Question(
        id="05.q3",
        title="Absmax in groups",
        outcome=4,
        difficulty="core",
        minutes=15,
        judge=q3,
        hints=(
            "Do one group on paper. Which weight gets the largest code, and what is "
            "one step worth then?",
            "The largest code is 2 to the power of (bits - 1), minus 1. The largest "
            "absolute value of a group, divided by it, is the scale; where that is 0, "
            "all codes are 0. Walk through the row with range(0, len(row), group).",
        ),
        look=_place("A scale for each row, or for each group"),
        why="All formats with 8 or 4 bits are variations of these few lines: other "
        "groups, a zero point, other levels.",
    ),
    Question(
        id="05.q4",
        title="NF4, down to the bytes",
        outcome=4,
        difficulty="core",
        minutes=15,
        judge=q4,
        hints=(
            "The levels go from -1 to 1, and your weights do not. What makes them fit? "
            "Then: which of 16 numbers is nearest?",
            "Divide by the largest absolute value. min over range(16), with the "
            "distance as its key, gives a code. Codes 0, 2, 4 ... times 16, plus codes "
            "1, 3, 5 ..., are the bytes.",
        ),
        look=_place("Steps where the weights are: NF4"),
        why="Only here memory goes down: 4-bit codes in a byte each would be as large "
        "as int8.",
    ),
    Question(
        id="05.q5",
        title="How fast can it be at most?",
        outcome=5,
        difficulty="core",
        minutes=10,
        judge=q5,
        hints=(
            "How many bytes does the machine have to read before one new token is "
            "there?",
            "All weights once, and the cache of one token as often as there are "
            "tokens. Divide the bytes that are read in a second by that sum.",
        ),
        look=_place("5. What it does to speed"),
        why="A limit that takes a minute to compute tells whether a slow program or "
        "the machine is to blame.",
    ),
    Question(
        id="05.q6",
        title="The fewest bits for an error",
        outcome=5,
        difficulty="stretch",
        minutes=20,
        judge=q6,
        hints=(
            "Two numbers belong to each choice: what it takes and what it loses. You "
            "wrote the first in question 1, and half of the second in question 3.",
            "For each choice quantize every row, multiply codes by scales, and sum "
            "the squared differences of all rows. Keep the choices whose error is "
            "small enough, and take min with bits + 16 / group as its key.",
        ),
        look=_place("2. One matrix, by hand"),
        why="This is how a quantized checkpoint is chosen: not the fewest bits, but "
        "the fewest that lose no more than you accept.",
    ),
)
