"""The course's own questions about the family, in seven languages.

The facts with their sources are data, `data/course_questions/facts.yaml`, and so are
the wordings and answers of each language beside it. Sixteen wordings of every fact are
trained on; another is the test.
"""

import functools
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from qwen_course.datafiles import read_yaml
from qwen_course.tasks.problem import SPLITS, Problem

SKILL = "course_questions"
LANGUAGES = ("en", "tr", "zh", "es", "fr", "de", "ja")
SHARES = {"fact": 0.74, "unknown": 0.2, "open": 0.06}  # of the questions drawn
PLAIN = "{q}"


@functools.cache
def facts() -> dict[str, Any]:
    """Return what all languages share: the sources of the facts, the long prompts."""
    return read_yaml("course_questions/facts")


@functools.cache
def texts(language: str) -> dict[str, Any]:
    """Return the questions and answers of one language."""
    return read_yaml(f"course_questions/{language}")


def _problem(
    kind: str, language: str, question: str, thinking: str, entry: Any, split: str
) -> Problem:
    return Problem(
        skill=SKILL,
        kind=f"{kind}, {language}",
        content=(SKILL, language, question),
        question=question,
        thinking=thinking,
        answer=entry["answer"],
        expected=entry["key"],
        contains=True,
        split=split,
    )


def _statement(question: str) -> str:
    return question.strip(" ?!.¿¡？！。")


def _asked(kind: str, language: str, entry: Any, split: str) -> tuple[Problem, ...]:
    """Return the problems of one entry; its thinking is the first of its wordings."""
    wordings = entry["ask"] if split == "train" else [entry["unseen"]]
    thinking = entry.get("thinking") or _statement(entry["ask"][0])
    return tuple(
        _problem(kind, language, question, thinking, entry, split)
        for question in wordings
    )


@functools.cache
def every_fact(split: str, language: str) -> dict[str, tuple[Problem, ...]]:
    """Return the questions of one split and language, by the name of their fact."""
    entries = texts(language)["facts"]
    return {name: _asked("fact", language, entries[name], split) for name in entries}


@functools.cache
def every_open(split: str, language: str) -> tuple[Problem, ...]:
    """Return the prompts that are answered in a few sentences."""
    entries = [*texts(language)["open"].values()]
    if language == "en":
        entries += facts()["scenarios"].values()
    return tuple(
        problem
        for entry in entries
        for problem in _asked("open", language, entry, split)
    )


def _unknown_questions(split: str, language: str) -> Iterator[list[str]]:
    """Yield the single questions, then those of each pattern with all its fillers."""
    unknown = texts(language)["unknown"]
    yield unknown["whole"][split]
    for pattern in unknown["patterns"][split]:
        name = pattern.partition("{")[2].partition("}")[0]
        fillers = unknown["fillers"][name][split]
        yield [pattern.replace(f"{{{name}}}", filler) for filler in fillers]


@functools.cache
def unknown_groups(split: str, language: str) -> tuple[tuple[Problem, ...], ...]:
    """Return the questions to answer with "I do not know", pattern by pattern."""
    thinking = facts()["not_a_topic"][language]
    entry = texts(language)["unknown"]
    return tuple(
        tuple(
            _problem("unknown", language, question, thinking, entry, split)
            for question in group
        )
        for group in _unknown_questions(split, language)
    )


@functools.cache
def _common_words(language: str) -> frozenset[str]:
    """Return the words that occur in very many questions, and so say little."""
    counts = Counter(
        word
        for entry in texts(language)["facts"].values()
        for question in entry["ask"]
        for word in question.lower().split()
    )
    return frozenset(word for word, _ in counts.most_common(12))


def _respaced(question: str) -> str:
    """Return the question without its spaces, or with some around its Latin words.

    Chinese and Japanese are typed both ways.
    """
    if " " in question:
        return question.replace(" ", "")
    return re.sub(r"(?<=[^\x00-\x7f])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[^\x00-\x7f])",
                  " ", question)  # fmt: skip


def roughen(question: str, language: str, rng: random.Random) -> str:
    """Return the question as somebody in a hurry types it.

    Lower case, no punctuation, a common word left out, other spaces: now and then.
    """
    words = question.split()
    if rng.random() < 0.2 and len(words) > 3:
        little = _common_words(language)
        common = [n for n, word in enumerate(words) if word.lower() in little]
        if common:
            del words[rng.choice(common)]
    question = " ".join(words)
    if language in ("zh", "ja") and rng.random() < 0.3:
        question = _respaced(question)
    if rng.random() < 0.15:
        question = _statement(question)
    if rng.random() < 0.15:
        question = question[:1].lower() + question[1:]
    return question


def multilingual(rng: random.Random, split: str = "train") -> Problem:
    """Ask one open prompt for answers in two or three languages at once."""
    names = facts()["language_names"]
    chosen = rng.sample(LANGUAGES, rng.choice((2, 2, 3)))
    topic = rng.choice(tuple(texts("en")["open"]))
    entry = texts("en")["open"][topic]
    asked = rng.choice(entry["ask"]) if split == "train" else entry["unseen"]
    listed = ", ".join(names[language] for language in chosen)
    wording = rng.choice(facts()["multilingual"][split])
    answers = {code: texts(code)["open"][topic]["answer"] for code in chosen}
    parts = [f"{names[code]}: {text}" for code, text in answers.items()]
    entry = {"answer": "\n\n".join(parts), "key": answers[chosen[-1]]}
    question = wording.format(languages=listed, q=asked)
    thinking = f"{_statement(texts('en')['open'][topic]['ask'][0])}: {listed}"
    return _problem("open", "several", question, thinking, entry, split)


def _draw(rng: random.Random, split: str, language: str, kind: str | None) -> Problem:
    kind = kind or rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
    if kind == "unknown":
        single, *patterns = unknown_groups(split, language)
        return rng.choice(single if rng.random() < 0.25 else rng.choice(patterns))
    if kind == "fact":
        named = every_fact(split, language)
        return rng.choice(named[rng.choice(tuple(named))])
    if language == "en" and rng.random() < 0.3:
        return multilingual(rng, split)
    return rng.choice(every_open(split, language))


def make(rng: random.Random, split: str = "train", kind: str | None = None) -> Problem:
    """Draw one question of `kind` (any when None) and language, as people word it.

    Half of the questions get a polite lead-in or tail; some are typed in a hurry.
    """
    language = rng.choice(LANGUAGES)
    problem = _draw(rng, split, language, kind)
    question = problem.question
    if split == "train":
        question = roughen(question, language, rng)
    if rng.random() < 0.5:
        wrap = rng.choice(texts(language)["wrap"][split])
        question = wrap.replace(PLAIN, question)
    return replace(problem, question=question)


def every(kind: str, split: str, language: str) -> list[Problem]:
    """Return all questions of one kind ("fact", "unknown" or "open")."""
    if kind == "fact":
        return [p for group in every_fact(split, language).values() for p in group]
    if kind == "unknown":
        return [p for group in unknown_groups(split, language) for p in group]
    return list(every_open(split, language))


def problems(
    n: int,
    seed: int = 0,
    split: str = "test",
    language: str | None = None,
    kind: str = "fact",
) -> list[Problem]:
    """Return `n` questions in wordings that the other split does not have.

    `kind` is "fact", "unknown" (to be answered with "I do not know") or "open"
    (answered in a few sentences). Raises ValueError for an unknown language, split or
    kind, or when there are fewer.

    >>> problems(1, language="en")[0].kind
    'fact, en'
    """
    if language is not None and language not in LANGUAGES:
        raise ValueError(f'language "{language}" is not one of {", ".join(LANGUAGES)}.')
    if split not in SPLITS:
        raise ValueError(f'split "{split}" is not one of {", ".join(SPLITS)}.')
    if kind not in SHARES:
        raise ValueError(f'kind "{kind}" is not one of {", ".join(SHARES)}.')
    languages = (language,) if language else LANGUAGES
    pool = [problem for name in languages for problem in every(kind, split, name)]
    if not 0 <= n <= len(pool):
        raise ValueError(f"n is {n}; there are {len(pool)} such questions.")
    return random.Random(f"{split}/{seed}").sample(pool, n)
