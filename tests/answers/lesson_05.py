"""Right and wrong answers to the exercises of lesson 05."""

import bisect
import itertools
import math
import statistics
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy
import torch

from qwen_course import quantization
from qwen_course.exercises.judges import lesson_05 as judge

# Question 1


def bits_per_weight(bits, group, scale_bits, zero_bits):
    return bits + (scale_bits + zero_bits) / group


def bits_per_weight_of_a_group(bits, group, scale_bits, zero_bits):
    whole = sum([bits] * group) + scale_bits + zero_bits
    return numpy.float64(whole) / group


def bits_per_weight_with_fractions(bits, group, *shared):
    return float(bits + sum(Fraction(one, group) for one in shared))


# Question 2


def checkpoint_bytes(parameters, vocabulary, hidden, tied, bits):
    tables = vocabulary * hidden * (1 if tied else 2)
    return tables * 2 + (parameters - tables) * bits / 8


def checkpoint_bytes_as_whole(parameters, vocabulary, hidden, tied, bits):
    table = vocabulary * hidden
    layers = parameters - table
    size = table * 2
    if not tied:
        layers -= table
        size *= 2
    return size + math.ceil(layers * bits / 8)


def checkpoint_bytes_by_saving(parameters, vocabulary, hidden, tied, bits):
    """From all in 16 bits, less what the layers save."""
    tables = torch.tensor([vocabulary * hidden] * (2 - tied)).sum()
    return 2 * parameters - (parameters - tables).double() * (16 - bits) / 8


# Question 3


def quantize(row, bits, group):
    codes, scales = [], []
    for start in range(0, len(row), group):
        part = row[start : start + group]
        scale = max(map(abs, part)) / (2 ** (bits - 1) - 1)
        scales.append(scale)
        codes += [round(weight / scale) if scale else 0 for weight in part]
    return codes, scales


def quantize_with_arrays(row, bits, group):
    groups = numpy.array(row).reshape(-1, group)
    scales = numpy.abs(groups).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    scales[scales == 0] = 1
    return numpy.rint(groups / scales).astype(int), scales


def quantize_with_the_course(row, bits, group):
    found = quantization.absmax(torch.tensor(row), bits, group)
    return found.codes.flatten(), found.scales.flatten()


def quantize_that(**parts: Any) -> Callable[..., Any]:
    return lambda row, bits, group: judge.absmax(row, bits, group, **parts)


def quantize_dividing_by_zero(row, bits, group):
    groups = numpy.array(row).reshape(-1, group)
    scales = numpy.abs(groups).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    with numpy.errstate(all="ignore"):
        return numpy.round(groups / scales), scales


def quantize_one_scale(row, bits, group):
    scale = max(map(abs, row)) / (2 ** (bits - 1) - 1)
    return [round(weight / scale) for weight in row], [scale]


def quantize_affine(row, bits, group):
    codes, scales = [], []
    for start in range(0, len(row), group):
        part = row[start : start + group]
        scale = (max(part) - min(part)) / (2**bits - 1) or 1
        codes += [round((weight - min(part)) / scale) for weight in part]
        scales.append(scale)
    return codes, scales


def quantize_every_nth(row, bits, group):
    groups = numpy.array(row).reshape(group, -1)
    scales = numpy.abs(groups).max(axis=0) / (2 ** (bits - 1) - 1)
    return numpy.rint(groups / scales), scales


def quantize_changing(row, bits, group):
    codes, scales = quantize(row, bits, group)
    row[:] = codes
    return row, scales


def changed(codes=lambda codes, scales: codes, scales=lambda scale, bits: scale):
    """Return a quantize whose codes or scales are something else in the end."""

    def answer(row, bits, group):
        found, each = quantize(row, bits, group)
        spread = [scale for scale in each for _ in range(group)]
        return codes(found, spread), [scales(scale, bits) for scale in each]

    return answer


# Question 4


def nf4_bytes(block, levels):
    peak = max(map(abs, block))
    codes = [
        min(range(16), key=lambda place: abs(levels[place] - weight / peak))
        for weight in block
    ]
    return [16 * a + b for a, b in zip(codes[::2], codes[1::2], strict=True)]


def nf4_bytes_with_tensors(block, levels):
    weights, table = torch.tensor(block), torch.tensor(levels)
    between = (table[1:] + table[:-1]) / 2
    codes = torch.bucketize(weights / weights.abs().max(), between)
    return quantization.pack(codes.to(torch.uint8))


def nf4_bytes_as_bytes(block, levels):
    peak = max(max(block), -min(block))
    between = [(a + b) / 2 for a, b in itertools.pairwise(levels)]
    codes = [f"{bisect.bisect(between, weight / peak):x}" for weight in block]
    return bytes.fromhex("".join(codes))


def nf4_bytes_that(
    size: Callable[[Any], float] = judge.peak,
    code: Callable[..., int] = judge.nearest,
    pack: Callable[[list[int]], Any] = judge.packed,
) -> Callable[..., Any]:
    return lambda block, levels: pack(judge.codes_of(block, levels, size, code))


def level_below(part, levels):
    return max(place for place in range(16) if levels[place] <= part)


def low_half_first(codes):
    return [a + (b << 4) for a, b in zip(codes[::2], codes[1::2], strict=True)]


def half_and_half(codes):
    middle = len(codes) // 2
    return [16 * a + b for a, b in zip(codes[:middle], codes[middle:], strict=True)]


def nf4_levels_found(block, levels):
    return [levels[code] for code in judge.codes_of(block, levels)]


# Question 5


def most_tokens(weights, cache, context, bandwidth):
    return bandwidth * 1e9 / (weights + cache * context)


def most_tokens_by_time(weights, cache, context, bandwidth):
    seconds = weights / (bandwidth * 10**9) + context * cache / (bandwidth * 10**9)
    return 1 / seconds


def most_tokens_with_tensors(weights, cache, context, bandwidth):
    read = torch.tensor([weights, cache * context], dtype=torch.float64).sum()
    return (bandwidth * 1e9 / read).reciprocal().reciprocal()


def most_tokens_adding(weights, cache, context, bandwidth):
    rates = [bandwidth * 1e9 / size for size in (weights, cache * context) if size]
    return sum(rates)


# Question 6


def fewest_bits(matrix, choices, most):
    def error(bits, group):
        lost = whole = 0
        for row in matrix:
            codes, scales = quantize(row, bits, group)
            for place, weight in enumerate(row):
                lost += (weight - codes[place] * scales[place // group]) ** 2
                whole += weight**2
        return math.sqrt(lost / whole)

    fitting = [choice for choice in choices if error(*choice) <= most]
    return min(fitting, key=lambda pair: pair[0] + 16 / pair[1], default=None)


def fewest_bits_with_the_course(matrix, choices, most):
    weights = torch.tensor(matrix)
    best = None
    for bits, group in choices:
        found = quantization.absmax(weights, bits, group)
        if quantization.relative_error(weights, found.dequantize()) > most:
            continue
        if best is None or found.bits_per_weight < best[0]:
            best = (found.bits_per_weight, [bits, group])
    return best and best[1]


def fewest_bits_by_trying_in_order(matrix, choices, most):
    weights = numpy.array(matrix)
    for bits, group in sorted(choices, key=lambda pair: pair[0] + 16 / pair[1]):
        groups = weights.reshape(-1, group)
        scales = numpy.abs(groups).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
        lost = groups - numpy.round(groups / scales) * scales
        if numpy.linalg.norm(lost) <= most * numpy.linalg.norm(groups):
            return numpy.array([bits, group])
    return None


def fewest_bits_that(**parts: Any) -> Callable[..., Any]:
    return lambda matrix, choices, most: judge.found(matrix, choices, most, **parts)


def mean_of_rows(matrix, again):
    pairs = zip(matrix, again, strict=True)
    return statistics.mean(judge.relative([a], [b]) for a, b in pairs)


def mean_square(matrix, again):
    return numpy.sqrt(numpy.mean((numpy.array(matrix) - numpy.array(again)) ** 2))


def no_root(matrix, again):
    lost = numpy.array(matrix) - numpy.array(again)
    return (lost**2).sum() / (numpy.array(matrix) ** 2).sum()


def least_error(matrix, choices, most):
    fine = max(choices, key=lambda pair: (pair[0], -pair[1]))
    return fine if fewest_bits(matrix, [fine], most) else None


def fewest_bits_without_default(matrix, choices, most):
    fitting = [one for one in choices if fewest_bits(matrix, [one], most)]
    return min(fitting, key=lambda pair: pair[0] + 16 / pair[1])


def one_scale(matrix, bits, group):
    row = [weight for row in matrix for weight in row]
    codes, (scale,) = quantize_one_scale(row, bits, len(row))
    return numpy.reshape([code * scale for code in codes], (len(matrix), -1)).tolist()


RIGHT: dict[str, list[Any]] = {
    "05.q1": [
        bits_per_weight,
        bits_per_weight_of_a_group,
        bits_per_weight_with_fractions,
    ],
    "05.q2": [checkpoint_bytes, checkpoint_bytes_as_whole, checkpoint_bytes_by_saving],
    "05.q3": [quantize, quantize_with_arrays, quantize_with_the_course],
    "05.q4": [nf4_bytes, nf4_bytes_with_tensors, nf4_bytes_as_bytes],
    "05.q5": [most_tokens, most_tokens_by_time, most_tokens_with_tensors],
    "05.q6": [
        fewest_bits,
        fewest_bits_with_the_course,
        fewest_bits_by_trying_in_order,
    ],
}

WRONG: dict[str, dict[str, Any]] = {
    "05.q1": {
        "no-scales": lambda bits, group, scale, zero: bits,
        "no-zero-points": lambda bits, group, scale, zero: bits + scale / group,
        "not-shared": lambda bits, group, scale, zero: bits + scale + zero,
        "scale-not-shared": lambda bits, group, scale, zero: (
            bits + scale + zero / group
        ),
        "zero-not-shared": lambda bits, group, scale, zero: bits + scale / group + zero,
        "whole-group": lambda bits, group, scale, zero: bits * group + scale + zero,
        "code-shared": lambda bits, group, scale, zero: (bits + scale + zero) / group,
        "scales-only": lambda bits, group, scale, zero: (scale + zero) / group,
        "turned-around": lambda bits, group, scale, zero: bits + group / (scale + zero),
        "bytes": lambda *given: bits_per_weight(*given) / 8,
        "rounded": lambda *given: round(bits_per_weight(*given), 2),
        "other": lambda *given: bits_per_weight(*given) ** 2,
        "no-number": lambda *given: f"{bits_per_weight(*given)} bits",
        "prints": lambda *given: print(bits_per_weight(*given)),
    },
    "05.q2": {
        "tables-quantized": lambda n, vocabulary, hidden, tied, bits: n * bits / 8,
        "one-table": lambda n, vocabulary, hidden, tied, bits: (
            checkpoint_bytes(n, vocabulary, hidden, True, bits)
        ),
        "two-tables": lambda n, vocabulary, hidden, tied, bits: (
            checkpoint_bytes(n, vocabulary, hidden, False, bits)
        ),
        "tied-turned": lambda n, vocabulary, hidden, tied, bits: (
            checkpoint_bytes(n, vocabulary, hidden, not tied, bits)
        ),
        "tables-on-top": lambda n, vocabulary, hidden, tied, bits: (
            n * bits / 8 + vocabulary * hidden * (2 - tied) * 2
        ),
        "no-tables": lambda n, vocabulary, hidden, tied, bits: (
            (n - vocabulary * hidden * (2 - tied)) * bits / 8
        ),
        "only-tables": lambda n, vocabulary, hidden, tied, bits: (
            vocabulary * hidden * (2 - tied) * 2
        ),
        "tables-in-32-bits": lambda n, vocabulary, hidden, tied, bits: (
            checkpoint_bytes(n, vocabulary, hidden, tied, bits)
            + vocabulary * hidden * (2 - tied) * 2
        ),
        "bits-for-bytes": lambda *given: 8 * checkpoint_bytes(*given),
        "whole-bits": lambda *given: checkpoint_bytes(*given[:4], given[4] // 1),
        "other-unit": lambda *given: checkpoint_bytes(*given) / 1e9,
        "other": lambda *given: checkpoint_bytes(*given) + given[2],
        "no-number": lambda *given: f"{checkpoint_bytes(*given) / 1e9:.1f} GB",
        "returns-none": lambda *given: None,
    },
    "05.q3": {
        "one-scale": quantize_one_scale,
        "no-absolute-value": quantize_that(size=max),
        "one-code-too-many": quantize_that(
            largest=lambda bits: 2 ** (bits - 1), limit=judge.top
        ),
        "no-sign": quantize_that(largest=lambda bits: 2**bits - 1),
        "always-8-bits": lambda row, bits, group: quantize(row, 8, group),
        "affine": quantize_affine,
        "cuts-off": quantize_that(whole=int),
        "rounds-down": quantize_that(whole=lambda number: number // 1),
        "rounds-up": quantize_that(whole=math.ceil),
        "not-rounded": quantize_that(whole=lambda number: number),
        "peaks-for-scales": changed(
            scales=lambda scale, bits: scale * (2 ** (bits - 1) - 1)
        ),
        "scales-turned": changed(scales=lambda scale, bits: 1 / (scale or 1)),
        "weights-for-codes": changed(
            lambda codes, scales: numpy.multiply(codes, scales)
        ),
        "every-nth": quantize_every_nth,
        "group-is-a-number": lambda row, bits, group: (
            quantize(row, bits, max(1, len(row) // group))
        ),
        "divides-by-zero": quantize_dividing_by_zero,
        "number-of-codes": lambda row, bits, group: quantize(row[:group], bits, group),
        "scale-for-each": lambda row, bits, group: (
            quantize(row, bits, group)[0],
            numpy.repeat(quantize(row, bits, group)[1], group),
        ),
        "swapped": lambda row, bits, group: quantize(row, bits, group)[::-1],
        "no-pair": lambda row, bits, group: quantize(row, bits, group)[0],
        "no-numbers": changed(lambda codes, scales: [f"{code:b}" for code in codes]),
        "changes-input": quantize_changing,
        "other": changed(scales=lambda scale, bits: scale / 3),
        "prints": lambda *given: print(quantize(*given)),
    },
    "05.q4": {
        "not-packed": nf4_bytes_that(pack=list),
        "low-half-first": nf4_bytes_that(pack=low_half_first),
        "half-and-half": nf4_bytes_that(pack=half_and_half),
        "adds-codes": nf4_bytes_that(
            pack=lambda codes: [sum(codes[i : i + 2]) for i in range(0, len(codes), 2)]
        ),
        "times-10": nf4_bytes_that(
            pack=lambda codes: [
                10 * a + b for a, b in zip(codes[::2], codes[1::2], strict=True)
            ]
        ),
        "times-15": nf4_bytes_that(
            pack=lambda codes: [
                15 * a + b for a, b in zip(codes[::2], codes[1::2], strict=True)
            ]
        ),
        "pairs": nf4_bytes_that(
            pack=lambda codes: list(zip(codes[::2], codes[1::2], strict=True))
        ),
        "no-bytes": nf4_bytes_that(pack=lambda codes: "".join(map(hex, codes))),
        "not-scaled": nf4_bytes_that(lambda block: 1),
        "no-absolute-value": nf4_bytes_that(max),
        "range-for-peak": nf4_bytes_that(lambda block: max(block) - min(block)),
        "level-below": nf4_bytes_that(code=level_below),
        "level-above": nf4_bytes_that(
            code=lambda part, levels: bisect.bisect_left(levels, part)
        ),
        "no-distance": nf4_bytes_that(
            code=lambda part, levels: numpy.argmin(numpy.array(levels) - part).item()
        ),
        "even-steps": nf4_bytes_that(
            code=lambda part, levels: round((part + 1) / 2 * 15)
        ),
        "counts-from-1": nf4_bytes_that(
            code=lambda part, levels: judge.nearest(part, levels) + 1
        ),
        "levels-for-codes": nf4_levels_found,
        "weights-for-codes": lambda block, levels: (
            numpy.array(nf4_levels_found(block, levels)) * max(map(abs, block))
        ),
        "other": lambda block, levels: nf4_bytes(block[::-1], levels),
        "raises": lambda block, levels: levels.index(block[0]),
    },
    "05.q5": {
        "no-cache": lambda weights, cache, context, bandwidth: (
            bandwidth * 1e9 / weights
        ),
        "cache-of-one-token": lambda weights, cache, context, bandwidth: (
            bandwidth * 1e9 / (weights + cache)
        ),
        "only-cache": lambda weights, cache, context, bandwidth: (
            bandwidth * 1e9 / (cache * context or 1)
        ),
        "seconds": lambda *given: 1 / most_tokens(*given),
        "milliseconds": lambda *given: 1000 / most_tokens(*given),
        "other-unit": lambda weights, cache, context, bandwidth: (
            bandwidth * 2**30 / (weights + cache * context)
        ),
        "bits": lambda *given: most_tokens(*given) * 8,
        "adds-limits": most_tokens_adding,
        "slower-of-two": lambda weights, cache, context, bandwidth: (
            bandwidth * 1e9 / max(weights, cache * context)
        ),
        "weights-for-each": lambda weights, cache, context, bandwidth: (
            bandwidth * 1e9 / ((weights + cache) * context or 1)
        ),
        "all-tokens": lambda weights, cache, context, bandwidth: (
            context * most_tokens(weights, cache, context, bandwidth)
        ),
        "rounded": lambda *given: round(most_tokens(*given), 1),
        "no-text-yet": lambda weights, cache, context, bandwidth: (
            bandwidth * 1e9 / context / (weights / context + cache)
        ),
        "other": lambda *given: most_tokens(*given) / 3,
        "no-number": lambda *given: [most_tokens(*given)],
        "prints": lambda *given: print(most_tokens(*given)),
    },
    "05.q6": {
        "scales-not-counted": fewest_bits_that(cost=lambda bits, group: bits),
        "scales-of-other-size": fewest_bits_that(
            cost=lambda bits, group: bits + 32 / group
        ),
        "least-error": least_error,
        "most-bits": fewest_bits_that(best=max),
        "first-fitting": lambda matrix, choices, most: next(
            (one for one in choices if fewest_bits(matrix, [one], most)), None
        ),
        "error-not-looked-at": lambda matrix, choices, most: (
            fewest_bits(matrix, choices, 10)
        ),
        "error-turned": fewest_bits_that(fits=lambda error, most: error >= most),
        "not-relative": fewest_bits_that(error=mean_square),
        "no-root": fewest_bits_that(error=no_root),
        "mean-of-rows": fewest_bits_that(error=mean_of_rows),
        "worst-row": fewest_bits_that(
            error=lambda matrix, again: max(
                judge.relative([a], [b]) for a, b in zip(matrix, again, strict=True)
            )
        ),
        "other-error": fewest_bits_that(
            error=lambda matrix, again: (
                numpy.abs(numpy.array(matrix) - again).sum() / numpy.abs(matrix).sum()
            )
        ),
        "groups-not-used": fewest_bits_that(again=one_scale),
        "nothing-fits": fewest_bits_without_default,
        "no-choice": lambda *given: (fewest_bits(*given) or [None])[0],
        "returns-none": lambda *given: None,
    },
}  # fmt: skip
