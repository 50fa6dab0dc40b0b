"""What the pages of `docs/` are filled with: the course's data, by name."""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from docs import reference
from qwen_course import catalog, glossary, memory, troubleshooting
from qwen_course.checkpoint import Checkpoint
from qwen_course.exercises.build import questions
from qwen_course.notebooks import ROOT, duration, numbered, read

# What the folders of workshop/ hold, in the order of the page for teachers.
HEADINGS = {
    "workshop": "The workshop",
    "plans": "Plans by the minute",
    "guide": "Lesson by lesson",
    "jupyterhub": "A JupyterHub for the room",
    "monitoring": "Watching a service",
}


class Lesson(NamedTuple):
    """A lesson as the home page lists it; `page` is its file in the site."""

    page: str
    number: str
    topic: str
    your_time: str
    run_time: str
    memory: str


class Exercise(NamedTuple):
    """An exercise as its page lists it; `minutes` are those of all its questions."""

    page: str
    number: str
    topic: str
    questions: int
    minutes: int


def data(shown: list[Path]) -> dict[str, Any]:
    """Return what a page may name in double braces; `shown` are the other pages."""
    first = {
        name: [path.as_posix() for path in shown if path.parts[0] == name]
        for name in ("qwen_course", "training")
    }
    return {
        "lessons": list(lessons()),
        "exercises": list(exercises()),
        "terms": glossary.terms(),
        "letters": letters(),
        "checkpoints": newest_first(),
        "context": context,
        "other_names": other_names,
        "memory_of": memory_of,
        "gib": memory.gib,
        "precisions": memory.PRECISIONS.values(),
        "dimensions": dimensions(),
        "by_series": by_series(),
        "memory_data": memory_data(),
        "modules": reference.modules_table(),
        "names": reference.names_table(),
        "troubleshooting": troubleshooting.page(),
        "card_pages": first["qwen_course"] + first["training"],
        "workshop": workshop(shown),
    }


def workshop(shown: list[Path]) -> dict[str, list[str]]:
    """Return the pages for teachers under their headings."""
    groups: dict[str, list[str]] = {heading: [] for heading in HEADINGS.values()}
    for path in shown:
        if path.parts[0] == "workshop":
            heading = HEADINGS.get(path.parent.name, HEADINGS["workshop"])
            groups[heading].append(path.as_posix())
    return {heading: found for heading, found in groups.items() if found}


def lessons() -> Iterator[Lesson]:
    """Yield the lessons with their times, as measured when they were run."""
    for lesson in glossary.lessons():
        path = ROOT / "notebooks" / lesson.notebook
        about = read(path).metadata["qwen_course"]["measured"]
        yield Lesson(
            f"notebooks/{path.name}",
            f"{lesson.number:02}",
            lesson.topic,
            lesson.time,
            duration(about["seconds"]).removeprefix("about "),
            f"{about['memory_gb']:.1f} GB",
        )


def exercises() -> Iterator[Exercise]:
    """Yield the exercises with their number of questions and minutes."""
    topics = {f"{lesson.number:02}": lesson.topic for lesson in glossary.lessons()}
    for path in numbered(ROOT / "exercises"):
        asked = list(questions(path, read(path)))
        minutes = sum(question["minutes"] for question in asked)
        number = path.name[:2]
        page = f"exercises/{path.name}"
        yield Exercise(page, number, topics[number], len(asked), minutes)


def letters() -> dict[str, list[glossary.Term]]:
    """Return the terms of the glossary by their first letter."""
    groups = groupby(glossary.terms(), key=lambda term: term.name[0].upper())
    return {letter: list(terms) for letter, terms in groups}


def other_names(term: glossary.Term) -> str:
    """Return the other spellings of a term, without plurals: "gibibyte, MiB"."""
    return ", ".join(name for name in term.also if name != f"{term.name}s")


def newest_first() -> list[Checkpoint]:
    """Return all checkpoints, those without a known date at the end."""
    return sorted(catalog.models(), key=lambda one: one.released or "", reverse=True)


def context(checkpoint: Checkpoint) -> str:
    """Return the context of a checkpoint as the course's own table writes it."""
    return catalog.Catalog().cells(checkpoint)[3]


@cache
def dimensions() -> dict[str, memory.Dimensions]:
    """Return, by name, the dimensions of each checkpoint that has them all."""
    found = {}
    for checkpoint in catalog.models():
        try:
            found[checkpoint.name] = memory.dimensions(checkpoint)
        except ValueError:
            continue  # the catalogue does not know its shape
    return found


def by_series() -> dict[str, list[Checkpoint]]:
    """Return the checkpoints whose memory can be computed, the newest series first."""
    found = defaultdict(list)
    for checkpoint in newest_first():
        if checkpoint.name in dimensions():
            found[checkpoint.series].append(checkpoint)
    return found


def memory_of(checkpoint: Checkpoint) -> int | None:
    """Return the bytes of the weights in bf16, or None where the shape is unknown."""
    size = dimensions().get(checkpoint.name)
    return size and memory.weights_bytes(size, memory.PRECISIONS["bf16"])


def memory_data() -> str:
    """Return, as JSON, the factors with which the page computes `memory.estimate`.

    Of a model: parameters in tables and layers; bytes of the KV cache a token, for each
    byte of an entry; bytes of a sequence's linear attention; entries of activations a
    token; and the width of the widest product.
    """
    models = {
        name: {
            "tables": size.tables,
            "layers": size.parameters - size.tables,
            "cache": memory.kv_cache_bytes(size, 1, 1) - memory.kv_cache_bytes(size, 0),
            "state": memory.kv_cache_bytes(size, 0),
            "rows": memory.activation_bytes(size, 1, 1),
            "product": size.feed_forward,
        }
        for name, size in dimensions().items()
    }
    precisions = {
        kind.name: {
            "tables": kind.table_bits,
            "layers": kind.layer_bits,
            "cache": kind.cache_bytes,
            "product": kind.product_bytes,
        }
        for kind in memory.PRECISIONS.values()
    }
    return json.dumps({"models": models, "precisions": precisions})
