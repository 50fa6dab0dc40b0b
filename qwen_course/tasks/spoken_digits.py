"""Spoken digit strings: write them down, count them, add them up.

The recordings come from two speech synthesizers, digit by digit (`training/speech.py`
makes them), and are put together here: so every string can be spoken, also those that
no training data holds, with no synthesizer installed. "seen" voices are those that
pocket-audio was trained on (other recordings of them), "unseen" ones it never heard.
"""

import functools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from qwen_course import media
from qwen_course.audio import RATE
from qwen_course.errors import suggest
from qwen_course.tasks.problem import Problem, distinct
from qwen_course.tasks.sums import solve

SKILL = "spoken_digits"
KINDS = ("transcribe", "count", "sum")
VOICES = ("seen", "unseen")
Wordings = dict[str, tuple[str, ...]]
LONGEST = 6  # digits
SECONDS = 4.0  # what pocket-audio hears
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDINGS: Wordings = {
    "transcribe": (
        "What digits do you hear?",
        "Which digits are spoken?",
        "Write down the digits.",
        "Write down what you hear.",
        "What do you hear?",
        "Transcribe the audio.",
        "Transcribe this.",
        "Transcribe the digits.",
        "What is said?",
        "What does the speaker say?",
        "Please write down the digits that you hear.",
        "Listen and write down the digits.",
        "Which numbers do you hear?",
        "What is spoken in the audio?",
    ),
    "count": (
        "How many digits do you hear?",
        "How many digits are spoken?",
        "Count the digits.",
        "How many digits does the speaker say?",
        "How many numbers do you hear?",
        "Please count the digits that you hear.",
        "Listen and count the digits.",
        "How many digits are in the audio?",
        "Count the spoken digits.",
    ),
    "sum": (
        "What is the sum of the digits?",
        "Add the digits.",
        "Add up the digits that you hear.",
        "What do the digits add up to?",
        "What is the sum of the digits that you hear?",
        "What is the total of the digits?",
        "Please add up the spoken digits.",
        "Listen and add up the digits.",
        "Find the sum.",
        "What is the sum?",
        "Add up the numbers.",
    ),
}
# Never in training: whether a question is understood, or only recognised.
NEW_WORDINGS: Wordings = {
    "transcribe": (
        "Please transcribe what is spoken.",
        "Listen. Which digits does the speaker say?",
        "Write down the numbers that are spoken.",
    ),
    "count": (
        "Please count the numbers.",
        "How many spoken digits are in the audio?",
        "Count what you hear.",
    ),
    "sum": (
        "Please find the total of the digits.",
        "What is the sum of the spoken digits?",
        "What do the numbers that you hear add up to?",
    ),
}


@dataclass(frozen=True)
class ClipProblem(Problem):
    """A question about a clip, which is put together whenever it is asked for.

    `voice` names who speaks, `noise_db` how much louder the voice is than the noise
    (decibels), and `clip_seed` draws pauses, loudness and noise.
    """

    voice: str = ""
    noise_db: float = 20.0
    clip_seed: int = 0

    @property
    def samples(self) -> np.ndarray:
        """The clip: float32 samples (n,) at 16,000 a second, at most 4 seconds."""
        return say(self.content[1], self.voice, self.noise_db, self.clip_seed)

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The message to send: the clip, then the question."""
        return [media.question("audio", self.samples, self.question)]

    def grade(self, answer: str) -> bool:
        """Return whether all digits are right, or the last number for count and sum."""
        if self.kind == "transcribe":
            return digits_in(answer) == self.content[1]
        return super().grade(answer)


def digits_in(answer: str) -> str:
    """Return the digits of an answer, figures or English words.

    >>> digits_in("four, 7 and one")
    '471'
    """
    found = re.findall(rf"\d|{'|'.join(WORDS)}", answer.casefold())
    return "".join(str(WORDS.index(f)) if f in WORDS else f for f in found)


def edit_distance(one: Sequence, other: Sequence) -> int:
    """Return how many items to insert, delete or replace (Levenshtein, 1966).

    >>> edit_distance("471", "4711"), edit_distance("471", "41"), edit_distance("1", "")
    (1, 1, 1)
    """
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            cheapest = min(before + (left != right), row[j] + 1, row[j - 1] + 1)
            before, row[j] = row[j], cheapest
    return row[-1]


def digit_error_rate(problems: Sequence[Problem], answers: Sequence[str]) -> float:
    """Return wrong, missing and extra digits, divided by the digits that were spoken.

    Above 1 when more is heard than was said. Speech recognition counts words in this
    way and calls it the word error rate. Raises ValueError without a spoken digit.
    """
    errors, digits = count_errors(problems, answers)
    if not digits:
        raise ValueError("no digits were spoken; give problems of spoken_digits.")
    return errors / digits


def count_errors(problems: Sequence[Problem], answers: Sequence[str]) -> list[int]:
    """Return how many digits are wrong, missing or too many, and how many were said."""
    pairs = [
        (problem.content[1], digits_in(answer))
        for problem, answer in zip(problems, answers, strict=True)
    ]
    errors = sum(edit_distance(said, heard) for said, heard in pairs)
    return [errors, sum(len(said) for said, _ in pairs)]


@functools.cache
def _bank() -> tuple[dict[str, list[np.ndarray]], tuple[str, ...]]:
    """Return the recordings of every voice, and which voices are unseen ones."""
    path = files("qwen_course").joinpath("data/digits.npz")
    with path.open("rb") as file, np.load(file) as kept:
        voices, unseen = kept["voices"].tolist(), kept["unseen"].tolist()
        pieces = np.split(expand(kept["sound"]), np.cumsum(kept["lengths"])[:-1])
    spoken = {v: pieces[10 * n : 10 * n + 10] for n, v in enumerate(voices)}
    return spoken, tuple(unseen)


def recordings() -> dict[str, list[np.ndarray]]:
    """Return the ten digits of every voice of the course, each of shape (n,).

    >>> len(recordings()["en-us+m1"])
    10
    """
    return _bank()[0]


def voices(which: str) -> list[str]:
    """Return the names of the "seen" or of the "unseen" voices, or of "all"."""
    if which not in (*VOICES, "all"):
        raise ValueError(f'voices "{which}" is not one of {", ".join(VOICES)}, all.')
    spoken, unseen = _bank()
    return [v for v in spoken if which == "all" or (v in unseen) == (which == "unseen")]


def say(
    digits: str, voice: str = "en-us+f2", noise_db: float = 20.0, seed: int = 0
) -> np.ndarray:
    """Return a clip of a voice saying the digits: float32 samples (n,), 16 kHz.

    `voices("all")` lists the voices; `noise_db` says how many decibels the voice is
    above the noise. Raises ValueError for an unknown voice, and for anything but 1 to 6
    digits.

    >>> say("471", voice="slt").dtype
    dtype('float32')
    """
    if not re.fullmatch(rf"[0-9]{{1,{LONGEST}}}", digits):
        raise ValueError(f'"{digits}" is not 1 to {LONGEST} digits, such as "471".')
    spoken = recordings()
    if voice not in spoken:
        known = ", ".join(spoken)
        raise ValueError(
            f'voice "{voice}" is not one of {known}.{suggest(voice, spoken)}'
        )
    pieces = [spoken[voice][int(digit)] for digit in digits]
    return compose(pieces, np.random.default_rng(seed), noise_db)


def compress(samples: np.ndarray) -> np.ndarray:
    """Return samples from -1 to 1 as one byte each: mu-law, as telephones have it.

    Small values keep small steps (G.711), so the error stays 38 dB below the sound.
    """
    scaled = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
    return np.round(127 * scaled + 128).astype(np.uint8)


def expand(codes: np.ndarray) -> np.ndarray:
    """Return the samples that `compress` made into bytes.

    >>> expand(compress(np.array([-1.0, 0.0, 0.5]))).round(2).tolist()
    [-1.0, 0.0, 0.5]
    """
    scaled = (codes.astype(np.float32) - 128) / 127
    return np.sign(scaled) * np.expm1(np.abs(scaled) * np.log(256)) / 255


def compose(
    pieces: Sequence[np.ndarray],
    rng: np.random.Generator,
    noise_db: float,
    pauses: tuple[float, float] = (0.02, 0.25),
) -> np.ndarray:
    """Return a clip of the pieces with pauses around them (seconds), in noise.

    The pieces are float arrays (n,). The pauses get shorter, and at last the speech
    faster, when all of it would last longer than 4 seconds.
    """
    room, gaps = int(SECONDS * RATE), len(pieces) + 1
    shortest, longest = pauses[0] * RATE, pauses[1] * RATE
    spoken, left = sum(map(len, pieces)), room - shortest * gaps
    if spoken > left:
        pieces = [faster(piece, spoken / left) for piece in pieces]
        spoken = sum(map(len, pieces))
    longest = max(shortest, min(longest, (room - spoken) / gaps))
    silences = [np.zeros(int(rng.uniform(shortest, longest))) for _ in range(gaps)]
    parts = [silences[0]]
    for piece, silence in zip(pieces, silences[1:], strict=True):
        parts += [piece, silence]
    return add_noise(np.concatenate(parts), rng, noise_db)


def faster(samples: np.ndarray, factor: float) -> np.ndarray:
    """Return samples (n,) played `factor` times as fast, and so much higher."""
    places = np.arange(0, len(samples) - 1, factor)
    return np.interp(places, np.arange(len(samples)), samples)


def add_noise(
    sound: np.ndarray, rng: np.random.Generator, noise_db: float
) -> np.ndarray:
    """Return a sound (n,) of some loudness in noise, as float32 from -1 to 1.

    The noise is white or falls towards the high frequencies, at random. Its power is
    `noise_db` decibels below that of the sound, where there is any.
    """
    spectrum = np.fft.rfft(rng.standard_normal(len(sound)))
    falls = rng.uniform(0, 0.6)  # 0: white; 0.5: pink
    spectrum /= np.arange(1, len(spectrum) + 1) ** falls
    noise = np.fft.irfft(spectrum, len(sound))
    loud = sound[np.abs(sound) > 1e-3]
    power = np.mean(loud**2) if loud.size else 1e-2
    noise *= np.sqrt(power / np.mean(noise**2) / 10 ** (noise_db / 10))
    mixed = sound + noise
    return (mixed * rng.uniform(0.3, 0.9) / np.abs(mixed).max()).astype(np.float32)


def work(kind: str, digits: str) -> str:
    """Return the answer that the model is to write.

    >>> print(work("sum", "471"))
    4 7 1
    4 + 7 = 11
    11 + 1 = 12
    """
    written = " ".join(digits)
    if kind == "count":
        return f"{written}: {len(digits)} {'digits' if len(digits) > 1 else 'digit'}"
    if kind == "sum" and len(digits) > 1:
        return f"{written}\n{solve([int(digit) for digit in digits])}"
    return written


def make(
    rng: random.Random,
    kind: str | None = None,
    count: int | None = None,
    among: Sequence[str] = (),
    noise_db: float = 20.0,
    wordings: Wordings = WORDINGS,
) -> ClipProblem:
    """Make a question about `count` digits (1 to 6), spoken by a voice of `among`."""
    kind = kind or rng.choice(KINDS)
    digits = "".join(rng.choices("0123456789", k=count or rng.randint(1, LONGEST)))
    expected = {"count": str(len(digits)), "sum": str(sum(map(int, digits)))}
    return ClipProblem(
        skill=SKILL,
        kind=kind,
        content=(SKILL, digits),
        question=rng.choice(wordings[kind]),
        thinking="",
        answer=work(kind, digits),
        expected=expected.get(kind, " ".join(digits)),
        voice=rng.choice(among or voices("seen")),
        noise_db=noise_db,
        clip_seed=rng.getrandbits(32),
    )


def problems(
    n: int,
    seed: int = 0,
    split: str = "test",
    voices: str = "seen",
    noise_db: float = 20.0,
    kind: str | None = None,
    count: int | None = None,
    new_wordings: bool = False,
) -> list[ClipProblem]:
    """Return `n` questions about spoken digits, from "seen" or "unseen" voices.

    `noise_db`: how many decibels the voice is above the noise (20 is a quiet room).
    `kind`: transcribe, count or sum; mixed when None. `count`: how many digits, 1 to 6.

    >>> problems(1, voices="unseen", kind="sum")[0].skill
    'spoken_digits'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f'kind "{kind}" is not one of {", ".join(KINDS)}.')
    if count is not None and not 1 <= count <= LONGEST:
        raise ValueError(f"count is {count}; a clip has 1 to {LONGEST} digits.")
    among = _voices(voices)
    words = NEW_WORDINGS if new_wordings else WORDINGS

    def draw(rng: random.Random) -> Problem:
        return make(rng, kind, count, among, noise_db, words)

    return distinct(draw, n, seed, split)  # type: ignore[return-value]


_voices = voices  # `problems` has an argument of that name
