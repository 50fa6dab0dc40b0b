"""Sequences of low, middle and high tones: write them down, count them."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_course import media
from qwen_course.audio import RATE
from qwen_course.tasks.problem import Problem, distinct
from qwen_course.tasks.spoken_digits import Wordings, compose

SKILL = "tones"
KINDS = ("transcribe", "count")
HERTZ = {"low": 220.0, "middle": 440.0, "high": 880.0}  # an octave apart
LONGEST = 6
WORDINGS: Wordings = {
    "transcribe": (
        "Which tones do you hear?",
        "What tones do you hear?",
        "Write down the tones.",
        "Write down what you hear.",
        "What do you hear?",
        "Transcribe the audio.",
        "Transcribe the tones.",
        "Which tones are played?",
        "Listen and write down the tones.",
        "Are the tones low, middle or high?",
        "Please write down the tones that you hear.",
    ),
    "count": (
        "How many tones do you hear?",
        "How many tones are played?",
        "Count the tones.",
        "Please count the tones that you hear.",
        "Listen and count the tones.",
        "How many tones are in the audio?",
    ),
}
NEW_WORDINGS: Wordings = {
    "transcribe": (
        "Listen. Which tones are played?",
        "Please transcribe the tones that you hear.",
    ),
    "count": (
        "Count the tones that are played.",
        "Please listen and count the tones.",
    ),
}


@dataclass(frozen=True)
class ToneProblem(Problem):
    """A question about a clip of tones, which is made whenever it is asked for."""

    noise_db: float = 20.0
    clip_seed: int = 0

    @property
    def samples(self) -> np.ndarray:
        """The clip: float32 samples (n,) at 16,000 a second, at most 4 seconds."""
        return play(self.content[1:], self.noise_db, self.clip_seed)

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The message to send: the clip, then the question."""
        return [media.question("audio", self.samples, self.question)]

    def grade(self, answer: str) -> bool:
        """Return whether all tones are right, or their number."""
        if self.kind == "transcribe":
            return tones_in(answer) == list(self.content[1:])
        return super().grade(answer)


def tones_in(answer: str) -> list[str]:
    """Return the tones that an answer names, in order.

    >>> tones_in("Low, high, low.")
    ['low', 'high', 'low']
    """
    return re.findall("|".join(HERTZ), answer.casefold())


def tone(name: str, seconds: float, detune: float = 1.0, bright: float = 0.0):
    """Return one tone as samples (n,) with soft edges.

    `detune` multiplies the frequency; `bright` is the strength of the overtones, each
    weaker than the one below it by that factor.
    """
    time = np.arange(int(seconds * RATE)) / RATE
    turn = 2 * np.pi * HERTZ[name] * detune * time
    sound = sum(bright**n * np.sin((n + 1) * turn) for n in range(4))
    edge = np.clip(np.minimum(time, time[-1] - time) / 0.01, 0, 1)  # 10 ms: no click
    return 0.5 * sound * edge


def play(names: Sequence[str], noise_db: float = 20.0, seed: int = 0) -> np.ndarray:
    """Return a clip of tones, a little out of tune, with pauses and in noise.

    Float32 samples (n,), 16,000 a second. Raises ValueError for an unknown tone, and
    for anything but 1 to 6 of them.

    >>> play(["low", "high"]).dtype
    dtype('float32')
    """
    if not 1 <= len(names) <= LONGEST or not set(names) <= set(HERTZ):
        raise ValueError(
            f"{list(names)} is not 1 to {LONGEST} of the tones {', '.join(HERTZ)}."
        )
    rng = np.random.default_rng(seed)
    bright = rng.uniform(0, 0.5)
    length = rng.uniform(0.12, 0.35)
    pieces = [
        tone(name, length * rng.uniform(0.7, 1.3), rng.uniform(0.96, 1.04), bright)
        for name in names
    ]
    return compose(pieces, rng, noise_db, pauses=(0.06, 0.25))


def work(kind: str, names: Sequence[str]) -> str:
    """Return the answer that the model is to write.

    >>> work("count", ["low", "high"])
    'low high: 2 tones'
    """
    written = " ".join(names)
    if kind == "count":
        return f"{written}: {len(names)} {'tones' if len(names) > 1 else 'tone'}"
    return written


def make(
    rng: random.Random,
    kind: str | None = None,
    count: int | None = None,
    noise_db: float = 20.0,
    wordings: Wordings = WORDINGS,
) -> ToneProblem:
    """Make a question about `count` tones (1 to 6; drawn at random when None)."""
    kind = kind or rng.choice(KINDS)
    names = rng.choices(list(HERTZ), k=count or rng.randint(1, LONGEST))
    return ToneProblem(
        skill=SKILL,
        kind=kind,
        content=(SKILL, *names),
        question=rng.choice(wordings[kind]),
        thinking="",
        answer=work(kind, names),
        expected=str(len(names)) if kind == "count" else " ".join(names),
        noise_db=noise_db,
        clip_seed=rng.getrandbits(32),
    )


def problems(
    n: int,
    seed: int = 0,
    split: str = "test",
    noise_db: float = 20.0,
    kind: str | None = None,
    count: int | None = None,
    new_wordings: bool = False,
) -> list[ToneProblem]:
    """Return `n` questions about tones; about 200 test sequences exist.

    `kind`: transcribe or count; mixed when None. `count`: how many tones, 1 to 6.

    >>> problems(1, kind="count")[0].kind
    'count'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f'kind "{kind}" is not one of {", ".join(KINDS)}.')
    if count is not None and not 1 <= count <= LONGEST:
        raise ValueError(f"count is {count}; a clip has 1 to {LONGEST} tones.")
    words = NEW_WORDINGS if new_wordings else WORDINGS

    def draw(rng: random.Random) -> Problem:
        return make(rng, kind, count, noise_db, words)

    return distinct(draw, n, seed, split)  # type: ignore[return-value]
