"""The words of the course in plain English, and where the course explains them."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from qwen_course.datafiles import read_yaml
from qwen_course.tables import Row, Table

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PLANNED = "(planned)"
ELSEWHERE = "(see the course's page)"


@dataclass(frozen=True)
class Term:
    """A word of the course, what it means, and the lesson that explains it.

    `also` holds other spellings, plurals and short forms.
    """

    name: str
    meaning: str
    lesson: int
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} (lesson {self.lesson:02}): {self.meaning}"

    def _repr_html_(self) -> str:
        return (
            f"<p><strong>{escape(self.name)}</strong> (lesson {self.lesson:02}): "
            f"{escape(self.meaning)}</p>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


class Terms(Table[Term]):
    """Terms by name, with their meanings."""

    columns = ("term", "lesson", "what it means")
    noun = "terms"

    def cells(self, item: Term) -> Row:
        """Return the name, the number of the lesson and the meaning."""
        return (item.name, f"{item.lesson:02}", item.meaning)


@dataclass(frozen=True)
class Lesson:
    """A lesson of the course; `notebook` is its file, or why there is none here."""

    number: int
    topic: str
    notebook: str = PLANNED
    time: str = ""


class Lessons(Table[Lesson]):
    """The lessons in their order, those that are still to come among them."""

    columns = ("lesson", "topic", "notebook", "your time")
    noun = "lessons"

    def cells(self, item: Lesson) -> Row:
        """Return number, topic, notebook and reading time."""
        return (f"{item.number:02}", item.topic, item.notebook, item.time)


def lookup(word: str) -> Term:
    """Return what a word of the course means; capitals, plurals, short forms are fine.

    Raises ValueError with the nearest terms when the glossary does not have the word.

    >>> lookup("GQA").name, lookup("Tokens").name
    ('grouped-query attention', 'token')
    """
    found = _by_name().get(_plain(word))
    if found is None:
        raise ValueError(f'"{word}" is not in the glossary.{_nearest(_plain(word))}')
    return found


def terms(lesson: int | None = None) -> Terms:
    """Return the terms in alphabetical order, or those of one lesson.

    Raises ValueError for a lesson that the course does not have.

    Example:
        terms(lesson=2)  ->  a table: chat template, control token, ...
    """
    data = read_yaml("glossary")
    if lesson is not None and lesson not in data["lessons"]:
        last = max(data["lessons"])
        raise ValueError(
            f"lesson {lesson!r} does not exist; give a number from 0 to {last}."
        )
    chosen = [term for term in _read() if lesson in (None, term.lesson)]
    return Terms(sorted(chosen, key=lambda term: term.name.lower()))


def lessons(folder: Path = NOTEBOOKS) -> Lessons:
    """Return the lessons of the course, with the notebooks found in its folder.

    An installed course has no such folder (in Colab, for example): then nothing says
    which lessons are written, and the table sends you to the course's page.

    Example:
        lessons()  ->  a table: 00 Start here 00_start_here.ipynb 10 minutes, ...
    """
    planned = read_yaml("glossary")["lessons"]
    return Lessons(_lesson(folder, number, topic) for number, topic in planned.items())


def _lesson(folder: Path, number: int, topic: str) -> Lesson:
    path = next(iter(sorted(folder.glob(f"{number:02}_*.ipynb"))), None)
    if path is None:
        return Lesson(number, topic, PLANNED if folder.is_dir() else ELSEWHERE)
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    time = metadata.get("qwen_course", {}).get("reading", "")
    return Lesson(number, topic, path.name, time)


@cache
def _read() -> tuple[Term, ...]:
    return tuple(
        Term(name, entry["meaning"], entry["lesson"], tuple(entry.get("also", ())))
        for name, entry in read_yaml("glossary")["terms"].items()
    )


@cache
def _by_name() -> dict[str, Term]:
    return {_plain(name): term for term in _read() for name in (term.name, *term.also)}


def _plain(word: str) -> str:
    """Return a word as it is compared: small letters, hyphens and _ as spaces.

    >>> _plain("KV-Cache ")
    'kv cache'
    """
    return " ".join(str(word).lower().replace("-", " ").replace("_", " ").split())


def _nearest(word: str) -> str:
    """Return a sentence that names up to three terms like the word.

    >>> _nearest("cache")
    ' The nearest terms are: KV cache, static cache, patch.'
    """
    names = list(dict.fromkeys(_candidates(word)))[:3]
    if not names:
        return " glossary.terms() lists all terms."
    ending = "s are" if len(names) > 1 else " is"
    return f" The nearest term{ending}: {', '.join(names)}."


def _candidates(word: str) -> Iterator[str]:
    """Yield the terms that hold the word or one of its parts, then those like it."""
    spellings = _by_name()
    yield from (spellings[part].name for part in word.split() if part in spellings)
    if len(word) > 2:
        yield from (term.name for name, term in spellings.items() if word in name)
    for name in difflib.get_close_matches(word, spellings, n=9, cutoff=0.6):
        yield spellings[name].name
