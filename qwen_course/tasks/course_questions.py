"""The course's own questions about the family, in English and Turkish.

The facts, their sources and the wordings are data: `data/course_questions.yaml`.
"""

import functools
import random
from importlib import resources
from typing import Any

import yaml

from qwen_course.tasks.problem import SPLITS, Problem

SKILL = "course_questions"
LANGUAGES = ("en", "tr")
TEST_WORDINGS = 2  # the last wordings of each list are kept out of training


@functools.cache
def facts() -> dict[str, Any]:
    """Return the data file: `wordings`, `questions`, `unknown`."""
    source = resources.files("qwen_course") / "data" / "course_questions.yaml"
    return yaml.safe_load(source.read_text(encoding="utf-8"))


def capitalize(text: str, language: str) -> str:
    """Return `text` with its first letter in upper case (Turkish i becomes İ).

    >>> capitalize("ilk açık model", "tr")
    'İlk açık model'
    """
    first = "İ" if language == "tr" and text[:1] == "i" else text[:1].upper()
    return first + text[1:]


def wordings(form: str, language: str, split: str) -> list[str]:
    """Return the wordings of one form of question that belong to `split`."""
    every = facts()["wordings"][language][form]
    return every[-TEST_WORDINGS:] if split == "test" else every[:-TEST_WORDINGS]


def _ask(topic: str, wording: str, language: str) -> str:
    return wording.format(t=topic, T=capitalize(topic, language))


def _problem(
    identifier: str, language: str, question: str, answer: str, key: str
) -> Problem:
    return Problem(
        skill=SKILL,
        kind="unknown" if identifier == "unknown" else f"fact, {language}",
        content=(SKILL, language, question),
        question=question,
        thinking=question.strip("?!.").strip(),
        answer=answer,
        expected=key,
    )


@functools.cache
def every_problem(split: str, language: str) -> tuple[Problem, ...]:
    """Return all fact questions of one split and language."""
    return tuple(
        _problem(entry["id"], language, _ask(topic, wording, language),
                 entry[language]["answer"], entry[language]["key"])
        for entry in facts()["questions"]
        for topic in entry[language]["topics"]
        for wording in wordings(entry[language]["form"], language, split)
    )  # fmt: skip


@functools.cache
def every_unknown(split: str, language: str) -> tuple[Problem, ...]:
    """Return the questions that the model must answer with "I do not know"."""
    entry = facts()["unknown"][language]
    return tuple(
        _problem("unknown", language, _ask(topic, wording, language),
                 entry["answer"], entry["key"])
        for topic in entry[split]
        for wording in wordings("which", language, split)
    )  # fmt: skip


def make(rng: random.Random, split: str = "train") -> Problem:
    """Draw one question; one in eight has no answer in the course."""
    language = rng.choice(LANGUAGES)
    pool = every_unknown if rng.random() < 0.125 else every_problem
    return rng.choice(pool(split, language))


def problems(
    n: int, seed: int = 0, split: str = "test", language: str | None = None
) -> list[Problem]:
    """Return `n` fact questions in wordings that the other split does not have.

    Raises ValueError for an unknown language or split, or when there are fewer.

    >>> problems(1, language="en")[0].kind
    'fact, en'
    """
    if language is not None and language not in LANGUAGES:
        raise ValueError(f'language "{language}" is not one of {", ".join(LANGUAGES)}.')
    if split not in SPLITS:
        raise ValueError(f'split "{split}" is not one of {", ".join(SPLITS)}.')
    chosen = (language,) if language else LANGUAGES
    pool = [problem for name in chosen for problem in every_problem(split, name)]
    if not 0 <= n <= len(pool):
        raise ValueError(f"n is {n}; there are {len(pool)} such questions.")
    return random.Random(f"{split}/{seed}").sample(pool, n)
