"""What a question is, in two halves that can run in different processes.

A *probe* looks at an answer and returns plain data; it knows no right answer. A
*judge* gets that data and says what is wrong with it. In a notebook one runs after the
other. The grader runs the probe where the submission runs, and the judge at home.
Both get the same seed, so that both make the same cases.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, MappingView
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["to do", "not yet", "right"]
# What the course is held to: a learner can, in a few words each.
OUTCOMES = {
    1: "explain the architectures",
    2: "choose a variant",
    3: "run it with the right settings",
    4: "optimize, and measure what it costs",
    5: "weigh size, quality and speed",
}
MAX_ITEMS = 20_000  # of one answer
MAX_CHARACTERS = 200_000
MAX_DEPTH = 50

Probe = Callable[[Any, int], Any]  # (answer, seed) -> plain data
Judge = Callable[[Any, int], "Mistake | None"]  # (plain data, seed) -> what is wrong


@dataclass(frozen=True)
class Mistake:
    """What is wrong with an answer.

    `name` is short and stable ("counts-every-head"): a class report counts it. `text`
    tells the learner what was seen and the misconception behind it.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Question:
    """One question of an exercise; `outcome` is one of the course's five.

    `why` is a sentence for whoever got it right; `look` says where in the lesson the
    answer is taught, as (text, link target below notebooks/).
    """

    id: str
    title: str
    outcome: int
    difficulty: Literal["warm-up", "core", "stretch"]
    minutes: int
    judge: Judge
    hints: tuple[str, str]
    look: tuple[str, str]
    why: str

    @property
    def lesson(self) -> str:
        """The number of its lesson, such as "03"."""
        return self.id.partition(".")[0]


class NotPlain(TypeError):
    """A part of an answer that is no number, text, list or dict."""


def plain(value: Any) -> Any:
    """Return a value as plain data: None, bool, int, float, str, list or dict.

    Arrays, tensors and views of a dict become lists, sets sorted lists, keys texts.
    Types are compared exactly, so an object that only claims to equal everything does
    not get through. A NaN becomes the text "nan".

    Raises NotPlain for other objects, and for data that is too long or too deep.

    >>> plain((1, {"a": 2.5}))
    [1, {'a': 2.5}]
    """
    return _plain(value, _Left(), 0)


class _Left:
    """What an answer may still hold."""

    def __init__(self) -> None:
        self.items, self.characters = MAX_ITEMS, MAX_CHARACTERS

    def take(self, items: int = 1, characters: int = 0) -> None:
        self.items -= items
        self.characters -= characters
        if self.items < 0:
            raise NotPlain(f"an answer of more than {MAX_ITEMS:,} parts")
        if self.characters < 0:
            raise NotPlain(f"an answer of more than {MAX_CHARACTERS:,} characters")


def _plain(value: Any, left: _Left, depth: int) -> Any:
    left.take()
    if depth > MAX_DEPTH:
        raise NotPlain(f"an answer with more than {MAX_DEPTH} lists inside each other")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return _integer(value)
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if issubclass(kind, str):
        left.take(characters=str.__len__(value))
        return str.encode(value, "utf-8", "replace").decode()
    if issubclass(kind, list | tuple | set | frozenset | range | MappingView):
        parts = [_plain(one, left, depth + 1) for one in value]
        return sorted(parts, key=repr) if issubclass(kind, set | frozenset) else parts
    if issubclass(kind, Mapping):
        return {
            _plain(str(key), left, depth): _plain(one, left, depth + 1)
            for key, one in value.items()
        }
    if str(kind.__module__).partition(".")[0] in ("numpy", "torch"):
        return _plain(_listed(value, left), left, depth + 1)
    raise NotPlain(f"a {type.__dict__['__name__'].__get__(kind)}")


def _integer(value: int) -> int:
    if value.bit_length() > 1000:
        raise NotPlain("a number of more than 300 digits")
    return value


def _listed(value: Any, left: _Left) -> Any:
    """Return an array or a tensor as a list."""
    if not hasattr(value, "tolist"):
        raise NotPlain(f"a {type(value).__name__}")
    if math.prod(value.shape) > left.items:
        left.take(items=math.prod(value.shape))
    return value.tolist()


def is_stub(answer: Any) -> bool:
    """Return whether an answer is the `...` of the learner's edition."""
    if issubclass(type(answer), str):
        return str.strip(answer) in ("", "...")
    return answer is Ellipsis


def lessons() -> list[str]:
    """Return the numbers of the lessons that have exercises.

    >>> "01" in lessons()
    True
    """
    from importlib.resources import files

    names = (entry.name for entry in files(f"{__package__}.judges").iterdir())
    return sorted(name[7:9] for name in names if name.startswith("lesson_"))


def questions(lesson: str | None = None) -> list[Question]:
    """Return the questions of a lesson, or of all lessons, in their order."""
    numbers = lessons() if lesson is None else [lesson]
    found: list[Question] = []
    for number in numbers:
        module = importlib.import_module(f"{__package__}.judges.lesson_{number}")
        found += module.QUESTIONS
    return found


def get(id: str) -> Question:
    """Return one question.

    Raises ValueError when there is none of that id.

    >>> get("01.q1").outcome
    1
    """
    from qwen_course.errors import suggest

    if not isinstance(id, str):
        raise ValueError(
            "a question is named by its number in quotes, and the answer comes second: "
            'qc.check("01.q1", answer).'
        )
    lesson = id.partition(".")[0]
    # One lesson alone, so that a fault in another's checks stops nobody.
    for question in questions(lesson) if lesson in lessons() else []:
        if question.id == id:
            return question
    known = [question.id for question in questions()]
    raise ValueError(f'there is no question "{id}".{suggest(id, known)}')


def section(lesson: str, heading: str) -> tuple[str, str]:
    """Return `look` of a question: a heading, and its link as JupyterLab makes it.

    >>> section("05_quantization", "7. On a small device")
    ('7. On a small device', '05_quantization.ipynb#7.-On-a-small-device')
    """
    return heading, f"{lesson}.ipynb#{heading.replace(' ', '-')}"


def probe_of(id: str) -> Probe:
    """Return the probe of a question; needs nothing of the judges.

    Raises ValueError when there is none of that id.
    """
    lesson = str(id).partition(".")[0]
    name = f"{__package__}.probes.lesson_{lesson}"
    if not lesson.isdigit() or importlib.util.find_spec(name) is None:
        raise ValueError(f'there is no question "{id}".')
    probes: dict[str, Probe] = importlib.import_module(name).PROBES
    if id not in probes:
        raise ValueError(f'there is no question "{id}".')
    return probes[id]
