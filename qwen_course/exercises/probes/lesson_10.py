"""What the checks of lesson 10 look at: functions on numbers and bytes, no model."""

import hashlib
import random
from typing import Any, NamedTuple

from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe, plain

# Question 1


def matrices(seed: int) -> list[tuple[int, int, str]]:
    """Return rows, columns and form of matrices; the last ones do not fit in blocks."""
    rng = random.Random(seed)

    def rows() -> int:
        return rng.randint(3, 40)

    def whole() -> int:
        return 32 * rng.randint(2, 9)

    forms = ("f32", "f16", "q8_0", "q4_0")
    ragged = [(rows(), whole() + rng.randint(1, 31), form) for form in forms[2:]]
    return [*((rows(), whole(), form) for form in forms), *ragged]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the bytes of each matrix."""
    return [call(answer, *one) for one in matrices(seed)]


# Question 2


def answers(seed: int) -> list[tuple[list[int], list[int]]]:
    """Return pairs of answers: equal, parted at once or later, too short, too long."""
    rng = random.Random(seed)

    def row(number: int) -> list[int]:
        return rng.sample(range(100, 900), number)

    def changed(ids: list[int], place: int) -> list[int]:
        return [*ids[:place], ids[place] + 1000, *ids[place + 1 :]]

    long = row(rng.randint(12, 20))
    place = rng.randint(4, 8)
    again = [*changed(long, place)[: place + 1], *row(5)]
    moved = [long[1], long[0], *long[2:]]
    return [
        (long, list(long)),
        (long, changed(long, place)),
        (long, again),
        (long, moved),
        (long, long[: rng.randint(3, 7)]),
        (long, [*long, *row(4)]),
        (long, [*changed(long, 0), *row(2)]),
        (long, []),
    ]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for what each pair of answers has in common."""
    return [call(answer, list(one), list(other)) for one, other in answers(seed)]


# Question 3


def q3(answer: Any, seed: int) -> Any:
    """Return the text of the Modelfile."""
    return plain(answer)


# Question 4


class Download(NamedTuple):
    """The bytes that arrived, and what the source says of each file."""

    files: dict[str, bytes]
    record: dict[str, dict[str, Any]]


def downloads(seed: int) -> list[Download]:
    """Return downloads: whole, cut off, with a wrong byte, too few or many files."""
    rng = random.Random(seed)
    names = ("config.json", "model.safetensors", "tokenizer.json")
    good = {name: rng.randbytes(rng.randint(40, 90)) for name in names}
    record = {name: said_of(content) for name, content in good.items()}
    weights = good["model.safetensors"]
    place = rng.randrange(len(weights))
    flipped = bytes([*weights[:place], weights[place] ^ 1, *weights[place + 1 :]])
    without = {name: good[name] for name in names[:2]}
    capitals = {
        name: {**said, "sha256": said["sha256"].upper()}
        for name, said in record.items()
    }
    return [
        Download(good, record),
        Download(good | {"model.safetensors": flipped}, record),
        Download(good | {"model.safetensors": weights[:-7]}, record),
        Download(without, record),
        Download(good | {"modeling_qwen.py": b"print('hello')"}, record),
        Download(good, capitals),
        Download(
            without | {"config.json": b"", "model.safetensors": flipped}, capitals
        ),
    ]


def said_of(content: bytes) -> dict[str, Any]:
    """Return what a source says of a file."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask what is wrong with each download."""
    return [
        call(answer, dict(one.files), {name: dict(said) for name, said in record})
        for one in downloads(seed)
        for record in [one.record.items()]
    ]


# Question 5


def q5(answer: Any, seed: int) -> Any:
    """Return which platform was named for each situation."""
    return plain(answer)


# Question 6


class Machines(NamedTuple):
    """A model and the GPUs to serve it with, sizes in GB."""

    heads: int
    need: float
    gpu: float
    per_machine: int


def machines(seed: int) -> list[Machines]:
    """Return models that fit on one GPU, on some, only over the border of machines."""
    rng = random.Random(seed)
    some = round(rng.uniform(0.1, 0.4), 1)
    return [
        Machines(32, round(20 + some, 1), 80.0, 8),
        Machines(64, round(75 + some, 1), 80.0, 8),
        Machines(40, round(2.5 * 72 + some, 1), 80.0, 8),
        Machines(28, round(4.4 * 21.6 + some, 1), 24.0, 8),
        Machines(64, round(500 + some, 1), 80.0, 4),
        Machines(20, round(6.5 * 72 + some, 1), 80.0, 8),
        Machines(64, round(8.2 * 72 + some, 1), 80.0, 8),
    ]


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask how to spread each model."""
    return [call(answer, *one) for one in machines(seed)]


PROBES: dict[str, Probe] = {
    "10.q1": q1,
    "10.q2": q2,
    "10.q3": q3,
    "10.q4": q4,
    "10.q5": q5,
    "10.q6": q6,
}
