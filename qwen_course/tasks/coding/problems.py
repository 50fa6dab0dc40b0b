"""Coding problems: write a function, fill in its middle, fix it, try again."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen_course.tasks.coding import bugs, fim
from qwen_course.tasks.coding import wordings as words
from qwen_course.tasks.coding.families import Task, draw_task, families
from qwen_course.tasks.coding.grading import grade_all
from qwen_course.tasks.problem import Problem, distinct

SKILL = "coding"
KINDS = ("write", "fill in", "fix", "retry")
UNSEEN_SHARE = 0.3  # of the test questions: in wordings that training never saw


@dataclass(frozen=True)
class CodingProblem(Problem):
    """A coding task; its answer is run against hidden tests.

    `style` holds "docstring" and "hints" where they were asked for. With `named` the
    function must have the task's name. A "fill in" problem has `prefix` and `suffix`
    and is a bare text for the model, not a conversation. `unseen` tells that it is
    worded as nothing in training is.
    """

    task: Task = field(default=None)  # type: ignore[assignment]
    style: tuple[str, ...] = ()
    named: bool = True
    prefix: str = ""
    suffix: str = ""
    unseen: bool = False

    @property
    def tests(self) -> list[str]:
        """The hidden tests, as assertions; made anew from the reference solution."""
        return self.task.tests()

    @property
    def bare(self) -> bool:
        """Whether it is a hole to fill, which is sent without a chat template."""
        return self.kind == "fill in"

    @classmethod
    def grade_all(
        cls, problems: Sequence[Problem], answers: Sequence[str]
    ) -> list[bool]:
        """Return which answers pass all tests; they are run in one sandbox."""
        chosen: Any = problems
        return [grade.right for grade in grade_all(chosen, answers)]

    def grade(self, answer: str) -> bool:
        """Return whether the answer passes all tests and has what was asked for."""
        return grade_all([self], [answer])[0].right

    def code_of(self, answer: str) -> str:
        """Return the program that an answer makes: its code, or the filled hole."""
        if self.kind == "fill in":
            return self.prefix + answer + self.suffix
        return extract_code(answer)


def extract_code(answer: str) -> str:
    """Return the code of the first fence in an answer, or all of it.

    >>> extract_code("Here it is:\\n```python\\nx = 1\\n```")
    'x = 1'
    """
    found = re.search(r"```(?:python|py)?[ ]*\n(.*?)(?:\n?```|\Z)", answer, re.DOTALL)
    return found[1] if found else answer


def _style(rng: random.Random) -> tuple[str, ...]:
    choices = ((), ("docstring",), ("hints",), ("docstring", "hints"))
    return rng.choices(choices, (0.5, 0.18, 0.16, 0.16))[0]


def make(
    rng: random.Random,
    kind: str | None = None,
    split: str = "train",
    family: str | None = None,
) -> CodingProblem:
    """Make one problem of `split`; `kind` and `family` are drawn when None."""
    kind = kind or rng.choice(KINDS)
    bare = kind == "write" and rng.random() < 0.1
    unseen = split == "test" and not bare and rng.random() < UNSEEN_SHARE
    task = draw_task(rng, split, family, plain=bare)
    do = rng.choice(words.wordings(task, unseen))
    parts = _MAKERS[kind](task, do, rng, unseen, bare)
    if parts is None:  # no bug was found that shows
        return make(rng, kind, split, family)
    if split == "train" and kind != "fill in":
        parts["question"] = words.dress(parts["question"], rng)
    return CodingProblem(
        skill=SKILL,
        kind=kind,
        content=(kind, *task.content),
        thinking="",
        expected=task.code(),
        split=task.split,
        task=task,
        unseen=unseen,
        named=not bare,
        **parts,
    )


def _write(task, do, rng, unseen, bare) -> dict[str, Any]:
    style = _style(rng)
    question = words.ask(task, do, style, rng, not bare, unseen)
    code = _code(task, style)
    return {"question": question, "answer": words.fenced(code), "style": style}


def _code(task: Task, style: Sequence[str], do: str = "") -> str:
    """Return the reference; its docstring has words of its own unless given `do`."""
    do = do or words.wordings(task, unseen=False)[0]
    docstring = words.docstring_of(do) if "docstring" in style else ""
    return task.code(docstring, "hints" in style)


def _fill_in(task, do, rng, unseen, bare) -> dict[str, Any]:
    style = ("docstring", *rng.choice(((), ("hints",))))
    hole = fim.make_hole(_code(task, style, do), rng)
    hole = hole._replace(suffix=hole.suffix + rng.choice(("", "\n")))
    return {
        "question": fim.fim_prompt(hole.prefix, hole.suffix),
        "answer": hole.middle,
        "prefix": hole.prefix,
        "suffix": hole.suffix,
    }


def _fix(task, do, rng, unseen, bare) -> dict[str, Any] | None:
    style = _style(rng)
    right = _code(task, style)
    planted = bugs.plant(right, task.tests(), rng)
    if planted is None:
        return None
    wrong, error = planted
    shown = error if rng.random() < 0.75 else ""
    question = words.ask_to_fix(task, do, wrong, shown, rng, unseen)
    return {"question": question, "answer": words.fenced(right), "style": style}


def _retry(task, do, rng, unseen, bare) -> dict[str, Any] | None:
    style = _style(rng)
    right = _code(task, style)
    planted = bugs.plant(right, task.tests(), rng)
    if planted is None:
        return None
    wrong, error = planted
    asked = words.ask(task, do, style, rng, unseen=unseen)
    history = (
        {"role": "user", "content": asked},
        {"role": "assistant", "content": words.fenced(wrong)},
    )
    return {
        "question": words.ask_again(error, rng, unseen),
        "answer": words.fenced(right),
        "style": style,
        "history": history,
    }


_MAKERS = {"write": _write, "fill in": _fill_in, "fix": _fix, "retry": _retry}


def problems(
    n: int,
    seed: int = 0,
    split: str = "test",
    kind: str | None = None,
    family: str | None = None,
) -> list[CodingProblem]:
    """Return `n` coding problems of one kind, or of all kinds.

    Raises ValueError for an unknown kind, family or split.

    >>> problems(1, kind="write", family="median")[0].task.family
    'median'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f'kind "{kind}" is not one of {", ".join(KINDS)}.')
    if family is not None and family not in families():
        raise ValueError(
            f'family "{family}" is not one of {", ".join(sorted(families()))}.'
        )
    return distinct(  # type: ignore[return-value]
        lambda rng: make(rng, kind, split, family), n, seed, split
    )
