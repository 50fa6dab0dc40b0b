"""What is right in the exercises of lesson 10."""

import hashlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from qwen_course import deployment
from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_10 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import Outcomes, Way, compared, no_numbers, short
from qwen_course.platforms.modelfile import parse


def _place(heading: str) -> tuple[str, str]:
    return section("10_deployment", heading)


# Question 1

BLOCK = 32
BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / BLOCK, "q4_0": 18 / BLOCK}  # a weight


def gguf_bytes(
    rows: int, columns: int, form: str, each: dict[str, float] = BYTES
) -> float:
    """Return the bytes of a matrix; one whose rows are no whole blocks stays in f16."""
    if columns % BLOCK and form.startswith("q"):
        form = "f16"
    return rows * columns * each[form]


def _pressed(rows: int, columns: int, form: str) -> float:
    """Count as if every matrix could be cut into blocks."""
    return rows * columns * BYTES[form]


def _padded(rows: int, columns: int, form: str) -> float:
    blocks = math.ceil(columns / BLOCK)
    return rows * (blocks * BLOCK if form.startswith("q") else columns) * BYTES[form]


def _bytes_with(**changed: float) -> Callable[..., float]:
    """Return the count with other bytes a weight."""
    return lambda rows, columns, form: gguf_bytes(rows, columns, form, BYTES | changed)


SIZES = (
    Way("no-scale", _bytes_with(q8_0=1, q4_0=0.5),
        "The scales are missing: each block of 32 weights has one, of 2 bytes."),
    Way("scale-of-four", _bytes_with(q8_0=36 / 32, q4_0=20 / 32),
        "A scale here takes 4 bytes. GGUF keeps it in f16, in 2."),
    Way("one-scale", lambda rows, columns, form: (
            rows * columns * {"q8_0": 1, "q4_0": 0.5}[form] + 2
            if form.startswith("q") and not columns % BLOCK
            else gguf_bytes(rows, columns, form)),
        "There is one scale for the whole matrix here. Each block of 32 has its own."),
    Way("scale-a-row", lambda rows, columns, form: (
            rows * columns * {"q8_0": 1, "q4_0": 0.5}[form] + 2 * rows
            if form.startswith("q") and not columns % BLOCK
            else gguf_bytes(rows, columns, form)),
        "There is one scale for each row here. Each block of 32 weights has its own."),
    Way("bits", lambda *case: 8 * gguf_bytes(*case),
        "Those are bits. Return bytes."),
    Way("always-blocks", _pressed,
        "A row whose length is no multiple of 32 cannot be cut into blocks: such a "
        "matrix stays in f16."),
    Way("pads-rows", _padded,
        "Rows are not filled up to whole blocks: such a matrix stays in f16."),
    Way("stays-in-f32", lambda rows, columns, form: (
            4 * rows * columns if columns % BLOCK and form.startswith("q")
            else gguf_bytes(rows, columns, form)),
        "What cannot be cut into blocks stays in f16, not in f32."),
    Way("four-bits-in-a-byte", _bytes_with(q4_0=34 / 32),
        "Two weights of 4 bits share a byte."),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the bytes of each matrix."""
    cases: list[Any] = probe.matrices(seed)
    shown = [f'gguf_bytes({r}, {c}, "{form}")' for r, c, form in cases]
    right = [gguf_bytes(*case) for case in cases]
    advice = "Count blocks: rows * columns / 32, each of 2 + 32 or 2 + 16 bytes."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, SIZES, mistakes.close, advice),
    )


# Question 2

Ids = Sequence[int]


def parted(plain: Ids, other: Ids) -> list[Any]:
    """Return how many tokens agree at the beginning, and how the two part."""
    pairs = zip(plain, other, strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
    if same is not None:
        return [same, "later" if same else "at once"]
    if len(plain) == len(other):
        return [len(plain), "equal"]
    same = min(len(plain), len(other))
    return [same, "stopped" if len(other) < len(plain) else "went on"]


def _anywhere(plain: Ids, other: Ids) -> int:
    return sum(a == b for a, b in zip(plain, other, strict=False))


def _of_sets(plain: Ids, other: Ids) -> list[Any]:
    return [len(set(plain) & set(other)), parted(plain, other)[1]]


def _two_ends(plain: Ids, other: Ids) -> list[Any]:
    """See no difference between an end that came early and other tokens."""
    same, how = parted(plain, other)
    return [same, {"stopped": "later", "went on": "later"}.get(how, how)]


def _as_far_as_it_goes(plain: Ids, other: Ids) -> list[Any]:
    same, how = parted(plain, other)
    return [same, {"stopped": "equal", "went on": "equal"}.get(how, how)]


def _swapped(plain: Ids, other: Ids) -> list[Any]:
    same, how = parted(plain, other)
    return [same, {"stopped": "went on", "went on": "stopped"}.get(how, how)]


PARTINGS = (
    Way("anywhere", lambda a, b: [_anywhere(a, b), parted(a, b)[1]],
        "You count tokens that agree anywhere. After the first difference the two "
        "read different texts, so what follows agrees by chance. Stop there."),
    Way("as-sets", _of_sets,
        "You count tokens that both contain, in any place. Compare place by place, "
        "and stop at the first difference."),
    Way("one-off", lambda a, b: [parted(a, b)[0] + 1, parted(a, b)[1]],
        "One too many: if the first difference is at index n, n tokens agree."),
    Way("from-one", lambda a, b: [max(parted(a, b)[0] - 1, 0), parted(a, b)[1]],
        "One too few: if the first difference is at index n, n tokens agree."),
    Way("ignores-ends", _as_far_as_it_goes,
        "One of the two is longer. Whoever compares with zip alone does not see the "
        "rest, and takes an answer that was cut off for an equal one."),
    Way("an-end-is-a-difference", _two_ends,
        "No token differs here: one answer ended where the other went on. That has "
        "other causes, a limit or an end token, and gets its own word."),
    Way("wrong-way-round", _swapped,
        'You mixed up the two: "stopped" says that the other one is shorter.'),
    Way("at-once-is-later", lambda a, b: [
            parted(a, b)[0],
            "later" if parted(a, b)[1] == "at once" else parted(a, b)[1]],
        'Not one token agrees: that is "at once", and says look at the prompt.'),
    Way("empty-at-once", lambda a, b: (
            [0, "at once"] if not b else parted(a, b)),
        "An empty answer has no wrong token: it stopped before the first one."),
)  # fmt: skip
HOW = ("equal", "at once", "later", "stopped", "went on")


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what is said of each pair."""
    cases: list[Any] = probe.answers(seed)
    shown = [f"parted({short(a)}, {short(b)})" for a, b in cases]
    right = [parted(*case) for case in cases]
    advice = "Go along both until they differ; only then look at their lengths."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_parting(seen, shown),
        lambda: compared(cases, seen, shown, right, PARTINGS, operator.eq, advice),
    )


def _no_parting(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        good = isinstance(value, list) and len(value) == 2 and value[1] in HOW
        if not good or not mistakes.is_number(value[0]):
            said = f"{text} gave {short(value)}. Return a number and one of "
            return Mistake("no-parting", f"{said}{', '.join(HOW)}.")
    return None


# Question 3

FILE = "./qwen3-8b-q4_k_m.gguf"
# As in Qwen3's generation_config.json; the penalty of 1 is none.
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0}
LEAST, MOST = 16384, 40960  # tokens of a conversation: asked for, and what it can


def q3(seen: Any, seed: int) -> Mistake | None:
    """Read the Modelfile as Ollama does, and look at what it says and leaves out."""
    if not isinstance(seen, str):
        said = f"Your answer is {short(seen)}. Give the Modelfile as one text."
        return Mistake("no-text", said)
    try:
        read = parse(seen)
    except ValueError as error:
        return Mistake("no-modelfile", f"Ollama would not read it: {error}")
    return mistakes.first(
        lambda: _other_file(read.base, read.template),
        lambda: _stops(read.parameters),
        lambda: _sampling(read.parameters),
        lambda: _penalty(read.parameters),
        lambda: _context(read.parameters),
    )


def _other_file(source: str, template: str) -> Mistake | None:
    if source != FILE:
        return Mistake("other-file", f"It begins with {source}. Keep FROM {FILE}.")
    if "im_start" not in template:
        return Mistake(
            "template",
            "The template is gone or has no <|im_start|>. It was right: without it the "
            "model reads bare text, and goes on writing it.",
        )
    return None


def _value(parameters: Mapping[str, Any], name: str) -> Any:
    """Return the last value of a parameter, which is the one that counts."""
    values = parameters.get(name)
    return values[-1] if isinstance(values, list) and values else values


def _stops(parameters: Mapping[str, Any]) -> Mistake | None:
    stops = parameters.get("stop") or []
    if "<|im_end|>" in stops:
        return None
    return Mistake(
        "stop",
        f"It stops at {short(stops)}. A turn of Qwen ends with <|im_end|>; at </s> "
        "other families end.",
    )


def _sampling(parameters: Mapping[str, Any]) -> Mistake | None:
    if _value(parameters, "temperature") == 0:
        return Mistake(
            "greedy",
            "Temperature 0 is greedy. Qwen3's card warns of it for thinking: thoughts "
            "run in circles. Take the values of its generation_config.json.",
        )
    for name, right in SAMPLING.items():
        given = _value(parameters, name)
        if given is None or not math.isclose(float(given), right):
            said = f"{name} is {given}, and Qwen3's own value {right}. What is left "
            return Mistake("sampling", said + "out gets Ollama's default, not Qwen's.")
    return None


def _penalty(parameters: Mapping[str, Any]) -> Mistake | None:
    given = _value(parameters, "repeat_penalty")
    if given is not None and float(given) == 1:
        return None
    left_out = "is left to Ollama, which took 1.1 until August 2026"
    said = left_out if given is None else f"is {given}"
    return Mistake(
        "penalty",
        f"repeat_penalty {said}. It punishes every repeated token, also the digits of "
        "a sum. 1 turns it off.",
    )


def _context(parameters: Mapping[str, Any]) -> Mistake | None:
    given = _value(parameters, "num_ctx")
    if given is None:
        return Mistake(
            "context",
            "num_ctx is missing. Ollama then takes a default of its own, and cuts what "
            "is longer without a word.",
        )
    if LEAST <= int(given) <= MOST:
        return None
    said = f"num_ctx is {given}. Asked for are {LEAST:,} tokens; the model was made "
    return Mistake("context-size", f"{said}for at most {MOST:,}.")


# Question 4


def faults(
    files: dict[str, bytes], record: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """Return a word for each file that is not as the record says."""
    found = {name: "unknown" for name in files if name not in record}
    for name, said in record.items():
        if name not in files:
            found[name] = "missing"
        elif len(files[name]) != said["size"]:
            found[name] = "size"
        elif _digest(files[name]) != said["sha256"].lower():
            found[name] = "sha256"
    return found


def _digest(content: bytes, kind: str = "sha256") -> str:
    return hashlib.new(kind, content).hexdigest()


def _with(change: Any) -> Any:
    """Return `faults` whose verdict on each file goes through `change`."""

    def made(files: Any, record: Any) -> dict[str, str]:
        found = faults(files, record)
        changed = {
            name: change(name, found.get(name), files, record)
            for name in {**files, **record}
        }
        return {name: word for name, word in changed.items() if word}

    return made


def _exact_case(name: str, word: Any, files: Any, record: Any) -> Any:
    here = word is None and record[name]["sha256"] != _digest(files[name])
    return "sha256" if here else word


def _only_sha(name: str, word: Any, files: Any, record: Any) -> Any:
    return "sha256" if word == "size" else word


CHECKS = (
    Way("only-sizes", _with(lambda n, word, f, r: None if word == "sha256" else word),
        "Only sizes are compared. A wrong byte does not change the size."),
    Way("capitals", _with(_exact_case),
        "The digests differ in capitals only. Hexadecimal digits mean the same in both "
        "cases, and sources write them either way: compare in lower case."),
    Way("no-missing", _with(lambda n, word, f, r: None if word == "missing" else word),
        "A file that never arrived is not noticed: go through the record, not only "
        "through what is there."),
    Way("no-unknown", _with(lambda n, word, f, r: None if word == "unknown" else word),
        "A file that the source does not list is not noticed. It may be a program."),
    Way("one-word", _with(_only_sha),
        "A file that is cut off has a wrong digest, too, but its size says more: "
        "loading again from where it stopped mends it. Look at the size first."),
    Way("one-word", _with(lambda n, word, f, r: (
            "sha256" if word == "size" and len(f[n]) else word)),
        "Look at the size first: a download that is cut off can go on."),
    Way("other-digest", lambda files, record: {
            **faults(files, record),
            **{n: "sha256" for n in files if n in record and n not in
               faults(files, record)}},
        "Every whole file is called wrong. Is it SHA-256, over the bytes, as "
        "hexadecimal digits?"),
    Way("right-ones-too", lambda files, record: {
            **{n: "ok" for n in record}, **faults(files, record)},
        "Files that are as they should be are in it. Leave them out."),
    Way("all-is-well", lambda files, record: {}, "Nothing is ever found."),
)  # fmt: skip


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what is said of each download."""
    cases: list[Any] = [tuple(one) for one in probe.downloads(seed)]
    kinds = ("all as recorded", "one bit wrong", "weights cut off", "no tokenizer",
             "a program more", "digests in capitals", "several faults")  # fmt: skip
    shown = [f"faults(...), {kind}," for kind in kinds]
    right = [faults(*case) for case in cases]
    advice = "Missing, then size, then sha256, file by file of the record."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_dict(seen, shown),
        lambda: compared(cases, seen, shown, right, CHECKS, operator.eq, advice),
    )


def _no_dict(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        if not isinstance(outcome["value"], dict):
            value = short(outcome["value"])
            said = f'{text} gave {value}. Return a dict such as {{"a.json": "size"}}.'
            return Mistake("no-dict", said)
    return None


# Question 5

SITUATIONS: dict[str, dict[str, Any]] = {
    "A": {"use": "server", "users": 150, "hardware": "nvidia", "operations": "team"},
    "B": {"use": "chat", "system": "windows", "operations": "none"},
    "C": {"use": "app", "system": "windows", "hardware": "npu"},
    "D": {"use": "python", "system": "macos", "hardware": "apple"},
    "E": {"use": "server", "users": 10},
    "F": {"use": "chat", "hardware": "none", "private": False},
}


def q5(seen: Any, seed: int) -> Mistake | None:
    """Hold each platform against the needs of its situation."""
    if not isinstance(seen, dict):
        said = f'Your answer is {short(seen)}. Give a dict such as {{"A": "MLX", ...}}.'
        return Mistake("no-dict", said)
    named = {str(key).strip().upper(): str(value) for key, value in seen.items()}
    if missing := [name for name in SITUATIONS if name not in named]:
        return Mistake("missing", f"Situations {', '.join(missing)} are missing.")
    return next(_misfits(named), None)


def _misfits(named: dict[str, str]) -> Iterator[Mistake]:
    for name, needs in SITUATIONS.items():
        given = deployment.find(named[name])
        if given is None:
            ids = ", ".join(one.id for one in deployment.platforms())
            said = f'{name}: "{named[name]}" is not one of {ids}.'
            yield Mistake("unknown-platform", said)
            continue
        if reason := deployment.choose(**needs).why_not(given):
            said = f"{name}: {given.name} does not suit: {reason}."
            yield Mistake(f"misfit-{name.lower()}", said)


# Question 6

SHARE = 0.9


def layout(
    heads: int, need: float, gpu: float, per_machine: int, share: float = SHARE
) -> list[int]:
    """Return over how many GPUs of a machine, and over how many machines."""
    useful = [n for n in range(1, per_machine + 1) if heads % n == 0]
    return _spread(useful, need, gpu * share)


def _spread(useful: Sequence[int], need: float, room: float) -> list[int]:
    for tensor in useful:
        if tensor * room >= need:
            return [tensor, 1]
    return [useful[-1], math.ceil(need / (useful[-1] * room))]


def _powers(heads: int, need: float, gpu: float, per_machine: int) -> list[int]:
    powers = [2**n for n in range(9) if heads % 2**n == 0 and 2**n <= per_machine]
    return _spread(powers, need, gpu * SHARE)


def _any_number(heads: int, need: float, gpu: float, per_machine: int) -> list[int]:
    return _spread(range(1, per_machine + 1), need, gpu * SHARE)


def _over_the_border(heads: int, need: float, gpu: float, each: int) -> list[int]:
    useful = [n for n in range(1, heads + 1) if heads % n == 0]
    return _spread(useful, need, gpu * SHARE)


def _machines_too_few(heads: int, need: float, gpu: float, each: int) -> list[int]:
    tensor, machines = layout(heads, need, gpu, each)
    if machines == 1:
        return [tensor, 1]
    return [tensor, int(need / (tensor * gpu * SHARE))]


def _all_of_them(heads: int, need: float, gpu: float, each: int) -> list[int]:
    tensor, machines = layout(heads, need, gpu, each)
    return [tensor, tensor * machines]


LAYOUTS = (
    Way("whole-memory", lambda h, need, gpu, each: layout(h, need, gpu, each, 1.0),
        "All of a GPU's memory is counted. A tenth is left for CUDA and buffers."),
    Way("any-number", _any_number,
        "Each GPU computes whole heads, so the number must divide the heads."),
    Way("powers-of-two", _powers,
        "Only powers of two are tried. Every number that divides the heads will do."),
    Way("over-the-border", _over_the_border,
        "The heads are spread over more GPUs than a machine has. Each layer would "
        "wait for the network, twice; between machines the layers are split instead."),
    Way("layers-first", lambda h, need, gpu, each: [
            1, math.ceil(need / (gpu * SHARE))],
        "You split the layers only. Within a machine split the heads: then all GPUs "
        "work on the same token, and each token is ready sooner."),
    Way("all-of-a-machine", lambda h, need, gpu, each: [
            [n for n in range(1, each + 1) if h % n == 0][-1],
            layout(h, need, gpu, each)[1]],
        "All GPUs of a machine are taken, also where fewer hold the model. The rest "
        "could serve a second copy."),
    Way("machines-too-few", _machines_too_few,
        "The last part of the model needs a machine, too: round up."),
    Way("counts-gpus", _all_of_them,
        "The second number counts machines, not GPUs."),
    Way("swapped", lambda *case: layout(*case)[::-1],
        "You mixed up the two: GPUs within a machine first, then machines."),
)  # fmt: skip


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare how each model is spread."""
    cases: list[Any] = [tuple(one) for one in probe.machines(seed)]
    shown = [f"layout{case}" for case in cases]
    right = [layout(*case) for case in cases]
    advice = "Try the divisors of heads, from 1 to per_machine, on 0.9 of each GPU."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_pair(seen, shown),
        lambda: compared(cases, seen, shown, right, LAYOUTS, operator.eq, advice),
    )


def _no_pair(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        if not mistakes.is_pair(outcome["value"]):
            said = f"{text} gave {short(outcome['value'])}. Return two numbers: "
            return Mistake("no-pair", f"{said}GPUs of a machine, and machines.")
    return None


QUESTIONS = (
    Question(
        id="10.q1",
        title="Bytes of a matrix",
        outcome=4,
        difficulty="warm-up",
        minutes=10,
        judge=q1,
        hints=(
            "How many blocks of 32 weights are in the matrix, and how many bytes does "
            "one take: its scale, and its whole numbers?",
            "A block takes 2 + 32 bytes in q8_0, 2 + 16 in q4_0. If columns % 32 is "
            "not 0, count 2 bytes a weight.",
        ),
        look=_place("3. One file for llama.cpp"),
        why="8.5 and 4.5 bits a weight: that is why a file in q4_0 is a little larger "
        "than half of one in q8_0.",
    ),
    Question(
        id="10.q2",
        title="Where two answers part",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q2,
        hints=(
            "Go along both at once, and stop at the first difference. What is left to "
            "tell apart when there was none?",
            "No difference and equal lengths: equal. Else one of them ended early. A "
            'difference at index 0 is "at once", any other one "later".',
        ),
        look=_place("2. The yardstick"),
        why="Each word has its own cause: the prompt, rounding, a limit, an end token "
        "that one of the two does not know.",
    ),
    Question(
        id="10.q3",
        title="Repair a Modelfile",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q3,
        hints=(
            "Which lines of the broken file belong to another family, and which "
            "settings get Ollama's own default because nobody names them?",
            "PARAMETER stop, temperature, top_p, top_k, min_p, repeat_penalty, "
            "num_ctx: seven lines, each with a value of Qwen3.",
        ),
        look=_place("5. Ollama: a file and a recipe"),
        why="A platform's defaults are made for no model in particular. What the "
        "checkpoint says about itself has to come along.",
    ),
    Question(
        id="10.q4",
        title="What arrived",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q4,
        hints=(
            "Which files do you look at: those that are there, those that should be, "
            "or both?",
            "hashlib.sha256(content).hexdigest() against said['sha256'].lower(), after "
            "missing files and sizes; then the files that the record does not name.",
        ),
        look=_place("10. Files that arrive whole"),
        why="A file that is cut off can go on, a wrong byte has to be fetched again, "
        "and a file that nobody announced is not to be loaded at all.",
    ),
    Question(
        id="10.q5",
        title="Six situations",
        outcome=2,
        difficulty="core",
        minutes=10,
        judge=q5,
        hints=(
            "For each: how many ask at once, what computes, who looks after it? Which "
            "platforms does that rule out?",
            "deployment.choose(...) takes these needs as arguments, and its ruled_out "
            "says why not.",
        ),
        look=_place("11. Which one?"),
        why="Users at once, hardware and hands decide; the speed of one stream rarely.",
    ),
    Question(
        id="10.q6",
        title="How many GPUs",
        outcome=5,
        difficulty="stretch",
        minutes=18,
        judge=q6,
        hints=(
            "Which numbers of GPUs can share the heads evenly, within one machine? "
            "Which of them is the smallest that has room for the model?",
            "If none has: keep the largest one, and round need / (number * 0.9 * gpu) "
            "up to whole machines.",
        ),
        look=_place("8. Many users: vLLM and SGLang"),
        why="Heads are split where GPUs are joined by fast links, layers where only a "
        "network is: --tensor-parallel-size and --pipeline-parallel-size.",
    ),
)
