"""Right and wrong answers to the exercises of lesson 10."""

import hashlib
import math
from itertools import takewhile
from typing import Any

import numpy

from qwen_course.exercises.judges import lesson_10 as judge

# Question 1


def gguf_bytes(rows, columns, form):
    each = {"f32": 4, "f16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32}
    whole = columns % 32 == 0
    return rows * columns * each[form if whole or form == "f32" else "f16"]


def gguf_bytes_by_blocks(rows, columns, form):
    if form in ("q8_0", "q4_0") and columns % 32 == 0:
        blocks = rows * (columns // 32)
        return blocks * (2 + (32 if form == "q8_0" else 16))
    return rows * columns * (4 if form == "f32" else 2)


def gguf_bytes_in_bits(rows, columns, form):
    bits = {"f32": 32, "f16": 16, "q8_0": 8.5, "q4_0": 4.5}[form]
    return (
        numpy.float64(rows * columns * (16 if columns % 32 and bits < 16 else bits)) / 8
    )


def bytes_that(**changed):
    def answer(rows, columns, form):
        return judge.gguf_bytes(rows, columns, form, judge.BYTES | changed)

    return answer


def with_scales(number):
    """Bytes with another number of scales than one a block."""

    def answer(rows, columns, form):
        if form.startswith("q") and columns % 32 == 0:
            bits = 8 if form == "q8_0" else 4
            return rows * columns * bits // 8 + 2 * number(rows)
        return gguf_bytes(rows, columns, form)

    return answer


def ragged_that(made):
    """Bytes of which those of a ragged matrix are made otherwise."""

    def answer(rows, columns, form):
        if form.startswith("q") and columns % 32:
            return made(rows, columns, form)
        return gguf_bytes(rows, columns, form)

    return answer


# Question 2


def parted(plain, other):
    same = 0
    while same < min(len(plain), len(other)) and plain[same] == other[same]:
        same += 1
    if same == len(plain) == len(other):
        return same, "equal"
    if same == len(other):
        return same, "stopped"
    if same == len(plain):
        return same, "went on"
    return same, "later" if same else "at once"


def parted_with_takewhile(plain, other):
    pairs = zip(plain, other, strict=False)
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    rest = len(plain) - same, len(other) - same
    if 0 in rest:
        return [
            same,
            "equal" if rest == (0, 0) else "went on" if not rest[0] else "stopped",
        ]
    return [same, ("at once", "later")[same > 0]]


def parted_with_numpy(plain, other):
    width = min(len(plain), len(other))
    wrong = numpy.flatnonzero(numpy.array(plain[:width]) != numpy.array(other[:width]))
    if wrong.size:
        return numpy.int64(wrong[0]), "later" if wrong[0] else "at once"
    return width, ("stopped", "equal", "went on")[
        (len(other) > len(plain)) - (len(other) < len(plain)) + 1
    ]


def parted_that(change):
    def answer(plain, other):
        return change(*parted(plain, other), plain, other)

    return answer


# Question 3

TEMPLATE = '''TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""'''
MODELFILE = f"""FROM ./qwen3-8b-q4_k_m.gguf
{TEMPLATE}
PARAMETER temperature 0.6
PARAMETER top_p 0.95
PARAMETER top_k 20
PARAMETER min_p 0
PARAMETER repeat_penalty 1
PARAMETER num_ctx 16384
PARAMETER stop "<|im_end|>"
"""
WITH_COMMENTS = "# Qwen3-8B\n" + MODELFILE.replace("penalty 1\n", "penalty 1.0\n")
OTHER_ORDER = f"""FROM ./qwen3-8b-q4_k_m.gguf
PARAMETER stop "<|endoftext|>"
PARAMETER stop "<|im_end|>"
PARAMETER num_ctx 32768
PARAMETER repeat_penalty 1
PARAMETER min_p 0.0
PARAMETER top_k 20
PARAMETER top_p 0.95
PARAMETER temperature 0.6
{TEMPLATE}
"""


def without(start):
    return "\n".join(
        line for line in MODELFILE.splitlines() if not line.startswith(start)
    )


# Question 4


def faults(files, record):
    found = {}
    for name in {**files, **record}:
        if name not in record:
            found[name] = "unknown"
        elif name not in files:
            found[name] = "missing"
        elif len(files[name]) != record[name]["size"]:
            found[name] = "size"
        elif hashlib.sha256(files[name]).hexdigest() != record[name]["sha256"].lower():
            found[name] = "sha256"
    return found


def faults_by_bytes(files, record):
    found = dict.fromkeys(set(files) - set(record), "unknown")
    found.update(dict.fromkeys(set(record) - set(files), "missing"))
    for name in set(files) & set(record):
        digest = hashlib.sha256()
        for start in range(0, len(files[name]), 16):
            digest.update(files[name][start : start + 16])
        if digest.digest() != bytes.fromhex(record[name]["sha256"]):
            cut = len(files[name]) != record[name]["size"]
            found[name] = "size" if cut else "sha256"
    return found


def faults_in_one_expression(files, record):
    def word(name):
        if name not in files or name not in record:
            return "missing" if name in record else "unknown"
        said, content = record[name], files[name]
        if said["size"] - len(content):
            return "size"
        same = hashlib.sha256(content).hexdigest().upper() == said["sha256"].upper()
        return "" if same else "sha256"

    return {name: word(name) for name in [*files, *record] if word(name)}


def faults_that(change):
    def answer(files, record):
        found = faults(files, record)
        return {n: w for n, w in change(found, files, record).items() if w}

    return answer


def exact(found, files, record):
    def same(name):
        return hashlib.sha256(files[name]).hexdigest() == record[name]["sha256"]

    wrong = {n: "sha256" for n in files if n in record and not same(n)}
    return wrong | found


# Question 5

NAMED = {"A": "vllm", "B": "ollama", "C": "foundry", "D": "mlx", "E": "llama_cpp",
         "F": "hosted"}  # fmt: skip
BY_NAME = {"A": "SGLang", "B": "Foundry Local", "C": "ONNX Runtime GenAI",
           "D": "Transformers", "E": "Ollama", "F": "a hosted API"}  # fmt: skip

# Question 6


def layout(heads, need, gpu, per_machine):
    room = 0.9 * gpu
    useful = [n for n in range(1, per_machine + 1) if heads % n == 0]
    for number in useful:
        if number * room >= need:
            return number, 1
    return useful[-1], math.ceil(need / (useful[-1] * room))


def layout_by_counting(heads, need, gpu, per_machine):
    best = 0
    for number in range(1, per_machine + 1):
        if heads % number:
            continue
        best = number
        if number * gpu * 0.9 >= need:
            return [number, 1]
    machines = 1
    while machines * best * gpu * 0.9 < need:
        machines += 1
    return [best, machines]


def layout_with_numpy(heads, need, gpu, per_machine):
    numbers = numpy.arange(1, per_machine + 1)
    numbers = numbers[heads % numbers == 0]
    fits = numbers[numbers * gpu * 0.9 >= need]
    chosen = fits[0] if fits.size else numbers[-1]
    return numpy.array([chosen, max(1, math.ceil(need / (chosen * gpu * 0.9)))])


RIGHT: dict[str, list[Any]] = {
    "10.q1": [gguf_bytes, gguf_bytes_by_blocks, gguf_bytes_in_bits],
    "10.q2": [parted, parted_with_takewhile, parted_with_numpy],
    "10.q3": [MODELFILE, WITH_COMMENTS, OTHER_ORDER],
    "10.q4": [faults, faults_by_bytes, faults_in_one_expression],
    "10.q5": [NAMED, BY_NAME, {key.lower(): one.upper() for key, one in NAMED.items()}],
    "10.q6": [layout, layout_by_counting, layout_with_numpy],
}

WRONG: dict[str, dict[str, Any]] = {
    "10.q1": {
        "no-scale": bytes_that(q8_0=1, q4_0=0.5),
        "scale-of-four": bytes_that(q8_0=36 / 32, q4_0=20 / 32),
        "one-scale": with_scales(lambda rows: 1),
        "scale-a-row": with_scales(lambda rows: rows),
        "bits": lambda *case: 8 * gguf_bytes(*case),
        "always-blocks": ragged_that(lambda r, c, form: r * c * judge.BYTES[form]),
        "pads-rows": ragged_that(
            lambda r, c, form: r * math.ceil(c / 32) * (34 if form == "q8_0" else 18)
        ),
        "stays-in-f32": ragged_that(lambda r, c, form: 4 * r * c),
        "four-bits-in-a-byte": bytes_that(q4_0=34 / 32),
        "no-number": lambda rows, columns, form: f"{rows * columns} bytes",
    },
    "10.q2": {
        "anywhere": lambda a, b: [
            sum(x == y for x, y in zip(a, b, strict=False)),
            parted(a, b)[1],
        ],
        "as-sets": lambda a, b: [len(set(a) & set(b)), parted(a, b)[1]],
        "one-off": parted_that(lambda same, how, a, b: [same + 1, how]),
        "from-one": parted_that(lambda same, how, a, b: [max(0, same - 1), how]),
        "ignores-ends": parted_that(
            lambda same, how, a, b: [
                same,
                "equal" if how in ("stopped", "went on") else how,
            ]
        ),
        "an-end-is-a-difference": parted_that(
            lambda same, how, a, b: [
                same,
                "later" if how in ("stopped", "went on") else how,
            ]
        ),
        "wrong-way-round": lambda a, b: [
            parted(a, b)[0],
            {"stopped": "went on", "went on": "stopped"}.get(
                parted(a, b)[1], parted(a, b)[1]
            ),
        ],
        "at-once-is-later": parted_that(
            lambda same, how, a, b: [same, "later" if how == "at once" else how]
        ),
        "empty-at-once": parted_that(
            lambda same, how, a, b: [same, how if b else "at once"]
        ),
        "no-parting": lambda a, b: parted(a, b)[0],
    },
    "10.q3": {
        "no-text": {"temperature": 0.6},
        "no-modelfile": MODELFILE.replace("FROM", "FORM"),
        "other-file": MODELFILE.replace("./qwen3-8b-q4_k_m.gguf", "qwen3:8b"),
        "template": MODELFILE.replace(TEMPLATE, ""),
        "greedy": MODELFILE.replace("temperature 0.6", "temperature 0"),
        "sampling": without("PARAMETER top_k"),
        "penalty": without("PARAMETER repeat_penalty"),
        "context": without("PARAMETER num_ctx"),
        "context-size": MODELFILE.replace("16384", "131072"),
        "stop": MODELFILE.replace('stop "<|im_end|>"', 'stop "</s>"'),
    },
    "10.q4": {
        "only-sizes": faults_that(
            lambda found, f, r: {n: w for n, w in found.items() if w != "sha256"}
        ),
        "capitals": faults_that(exact),
        "no-missing": faults_that(
            lambda found, f, r: {n: w for n, w in found.items() if w != "missing"}
        ),
        "no-unknown": faults_that(
            lambda found, f, r: {n: w for n, w in found.items() if w != "unknown"}
        ),
        "one-word": faults_that(
            lambda found, f, r: {
                n: "sha256" if w == "size" else w for n, w in found.items()
            }
        ),
        "other-digest": faults_that(
            lambda found, f, r: {n: "sha256" for n in f if n in r} | found
        ),
        "right-ones-too": faults_that(
            lambda found, f, r: dict.fromkeys(r, "ok") | found
        ),
        "all-is-well": lambda files, record: {},
        "no-dict": lambda files, record: list(faults(files, record)),
    },
    "10.q5": {
        "no-dict": list(NAMED.values()),
        "missing": {"A": "vllm"},
        "unknown-platform": {**NAMED, "A": "TensorFlow"},
        "misfit-a": {**NAMED, "A": "ollama"},
        "misfit-b": {**NAMED, "B": "llama_cpp"},
        "misfit-c": {**NAMED, "C": "mlx"},
        "misfit-d": {**NAMED, "D": "vllm"},
        "misfit-e": {**NAMED, "E": "vllm"},
        "misfit-f": {**NAMED, "F": "ollama"},
    },
    "10.q6": {
        "whole-memory": lambda *case: judge.layout(*case, 1.0),
        "any-number": lambda h, need, gpu, each: judge._spread(
            range(1, each + 1), need, 0.9 * gpu
        ),
        "powers-of-two": lambda h, need, gpu, each: judge._spread(
            [n for n in (1, 2, 4, 8) if n <= each and h % n == 0], need, 0.9 * gpu
        ),
        "over-the-border": lambda h, need, gpu, each: judge._spread(
            [n for n in range(1, h + 1) if h % n == 0], need, 0.9 * gpu
        ),
        "layers-first": lambda h, need, gpu, each: [1, math.ceil(need / gpu / 0.9)],
        "all-of-a-machine": lambda h, need, gpu, each: [
            max(n for n in range(1, each + 1) if h % n == 0),
            layout(h, need, gpu, each)[1],
        ],
        "machines-too-few": lambda *case: [
            layout(*case)[0],
            max(1, int(case[1] / (layout(*case)[0] * 0.9 * case[2]))),
        ],
        "counts-gpus": lambda *case: [
            layout(*case)[0],
            layout(*case)[0] * layout(*case)[1],
        ],
        "swapped": lambda *case: layout(*case)[::-1],
        "no-pair": lambda *case: layout(*case)[0],
    },
}
