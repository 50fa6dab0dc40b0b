"""Measure pocket-audio on clips that no training data holds, greedily."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from qwen_course import media
from qwen_course.audio import RATE
from qwen_course.chat import chat_batch
from qwen_course.tasks import spoken_digits, tones
from qwen_course.tasks.problem import Problem
from qwen_course.tasks.spoken_digits import ClipProblem, add_noise, count_errors
from training.figures import Counts, percent, share

SEED = 20_000
NOISE_DB = (0, 5, 10, 20, 30)


class About(NamedTuple):
    """A conversation that holds a clip, where there is nothing to grade."""

    prompt: list[dict[str, Any]]


def answers(
    model, processor, problems: Sequence[Problem | About], batch_size: int = 48
) -> list[str]:
    """Return the greedy answer of a model to each problem about a clip."""
    written: list[str] = []
    for start in range(0, len(problems), batch_size):
        asked = [problem.prompt for problem in problems[start : start + batch_size]]
        replies = chat_batch(
            model, processor, asked, thinking=False, sampling="greedy",
            max_new_tokens=96,
        )  # fmt: skip
        written += [reply.answer for reply in replies]
    return written


def right(problems: Sequence[Problem], given: Sequence[str]) -> Counts:
    """Return how many answers are right, and how many there are."""
    graded = [p.grade(answer) for p, answer in zip(problems, given, strict=True)]
    return share(graded)


class _Noise(ClipProblem):
    """The same question about a clip that holds noise alone."""

    @property
    def samples(self) -> np.ndarray:
        rng = np.random.default_rng(self.clip_seed)
        return add_noise(np.zeros(2 * RATE), rng, 0)


@dataclass(frozen=True)
class _Swapped(ClipProblem):
    """The same question about the clip of another problem."""

    other: ClipProblem | None = None

    @property
    def samples(self) -> np.ndarray:
        assert self.other is not None
        return self.other.samples


class _Follow(ClipProblem):
    """A question about a clip after another one, which was answered right."""

    @property
    def prompt(self) -> list[dict]:
        said = spoken_digits.work("transcribe", self.content[1])
        return [
            media.question("audio", self.samples, "What digits do you hear?"),
            {"role": "assistant", "content": said},
            {"role": "user", "content": self.question},
        ]


def _as(kind: type[ClipProblem], problems: Sequence[ClipProblem]) -> list[ClipProblem]:
    return [kind(**vars(problem)) for problem in problems]


def without_ears(problems: Sequence[Problem]) -> Counts:
    """Return how many pocket-qwen3 answers right: it reads the question and no more."""
    import qwen_course as qc

    model, tokenizer = qc.load("pocket-qwen3")
    replies = qc.chat_batch(
        model, tokenizer, [problem.question for problem in problems],
        thinking=False, sampling="greedy", max_new_tokens=64,
    )  # fmt: skip
    return right(problems, [reply.answer for reply in replies])


def measure(model, processor, n: int = 1000) -> dict:
    """Return the figures of the card; `n` clips of each main part.

    Digit errors are [wrong, missing and extra digits, digits said]; all else is
    [right, total].
    """
    some = max(1, n // 3)

    def asked(make: Callable, number: int, **options) -> Counts:
        problems = make(number, seed=SEED, **options)
        return right(problems, answers(model, processor, problems))

    digits = spoken_digits.problems
    kinds = {
        f"{kind}, {voices} voices": asked(digits, some, kind=kind, voices=voices)
        for kind in ("count", "sum")
        for voices in spoken_digits.VOICES
    }
    few = min(some, 100)  # about 200 sequences of tones are in the test split
    kinds |= {
        f"tones: {kind}": asked(tones.problems, few, kind=kind) for kind in tones.KINDS
    }
    mixed = digits(some, seed=SEED)
    noise = _as(_Noise, mixed)
    guessed = answers(model, processor, noise)
    swapped = [
        _Swapped(**vars(problem), other=mixed[number - 1])
        for number, problem in enumerate(mixed)
    ]
    follow = _as(
        _Follow, [*digits(few, SEED, kind="sum"), *digits(few, 1, kind="count")]
    )
    return {
        "errors": {
            voices: _errors(model, processor, n, voices=voices)
            for voices in spoken_digits.VOICES
        },
        "voices": _by_voice(model, processor, some),
        "noise": {
            voices: {
                str(db): _errors(model, processor, some, voices=voices, noise_db=db)
                for db in NOISE_DB
            }
            for voices in spoken_digits.VOICES
        },
        "kinds": kinds,
        "new_wordings": asked(digits, some, new_wordings=True),
        "new_wordings_tones": asked(tones.problems, few, new_wordings=True),
        "follow_up": right(follow, answers(model, processor, follow)),
        "another_clip": right(swapped, answers(model, processor, swapped)),
        "general": without_ears(mixed),
        "says_nothing": [sum("no digits" in text for text in guessed), len(guessed)],
    }


def _errors(model, processor, n: int, **options) -> Counts:
    """Count the digit errors of `n` transcriptions."""
    problems = spoken_digits.problems(n, seed=SEED, kind="transcribe", **options)
    return count_errors(problems, answers(model, processor, problems))


def _by_voice(model, processor, n: int) -> dict[str, Counts]:
    """Count the digit errors of each voice, on the same strings."""
    problems = spoken_digits.problems(min(n, 60), seed=SEED, kind="transcribe")
    return {
        voice: count_errors(same, answers(model, processor, same))
        for voice in spoken_digits.voices("all")
        for same in [[replace(problem, voice=voice) for problem in problems]]
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def values(figures: dict) -> dict[str, str]:
    """Return what the template of the card is filled with."""
    errors, noise = figures["errors"], figures["noise"]
    unseen = set(spoken_digits.voices("unseen"))
    return {
        "parameters": f"{figures['parameters'] / 1e6:.1f}",
        "torch": figures["torch"],
        "seen": percent(errors["seen"]),
        "unseen": percent(errors["unseen"]),
        "digits": f"{errors['seen'][1]:,}",
        "noise_table": _table(
            ["voice above the noise (dB)", *map(str, NOISE_DB)],
            [
                [f"{voices} voices", *map(percent, noise[voices].values())]
                for voices in spoken_digits.VOICES
            ],
        ),
        "voice_table": _table(
            ["voice", "in training", "digit error rate"],
            [
                [voice, "no" if voice in unseen else "yes", percent(counts)]
                for voice, counts in figures["voices"].items()
            ],
        ),
        "kind_table": _table(
            ["question", "right", "of"],
            [
                [kind, percent(counts), str(counts[1])]
                for kind, counts in figures["kinds"].items()
            ],
        ),
        "new_wordings": percent(figures["new_wordings"]),
        "new_wordings_tones": percent(figures["new_wordings_tones"]),
        "follow_up": percent(figures["follow_up"]),
        "another_clip": percent(figures["another_clip"]),
        "general": percent(figures["general"]),
        "says_nothing": percent(figures["says_nothing"]),
    }
