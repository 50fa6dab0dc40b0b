"""The table of a model's skills, as its model card shows it.

Everything is asked in questions that no training data holds, with and without
thinking. `qwen-course evaluate MODEL` prints the same table.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course import tasks
from qwen_course.errors import suggest
from qwen_course.evaluation import Score, evaluate
from qwen_course.tables import as_html, as_text
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SEED = 2026
MODES = {"with": True, "without": False}
PROBLEMS = ("sums", "products", "word problems")  # what thinking is for
Draw = Callable[[int], list[Problem]]


def _course(kind: str) -> Draw:
    """Return a function that draws so many course questions, all of them at most."""
    course = tasks.course_questions

    def draw(n: int) -> list[Problem]:
        there = sum(len(course.every(kind, "test", name)) for name in course.LANGUAGES)
        return course.problems(min(n, there), seed=SEED, kind=kind)

    return draw


def _skill(module: Any) -> Draw:
    return lambda n: module.problems(n, seed=SEED)


PARTS: dict[str, Draw] = {
    "sums": _skill(tasks.sums),
    "products": _skill(tasks.products),
    "word problems": _skill(tasks.word_problems),
    "course questions": _course("fact"),
    "unknown questions": _course("unknown"),
    "open prompts": _course("open"),
    "instructions": _skill(tasks.instructions),
    "dialogues": _skill(tasks.dialogues),
    "new questions": _skill(tasks.new_questions),
    "tool calls": _skill(tasks.tool_calls),
}


def _each_kind(task: str, **options: Any) -> Draw:
    """Return a function that draws problems of a specialist's task, so many a kind."""

    def draw(n: int) -> list[Problem]:
        module = getattr(tasks, task)
        return [
            problem
            for kind in module.KINDS
            for problem in module.problems(n, seed=SEED, kind=kind, **options)
        ]

    return draw


# What a specialist is measured on. Tones have about 200 different test sequences.
SPECIALIST_PARTS: dict[str, dict[str, Draw]] = {
    "coder": {"coding": _each_kind("coding")},
    "math": {"mathematics": _each_kind("mathematics")},
    "vl": {
        "charts": _each_kind("charts"),
        "charts, new looks": _each_kind("charts", looks="unseen"),
        "printed words": _each_kind("printed_words"),
    },
    "audio": {
        "digits, known voices": _each_kind("spoken_digits", voices="seen"),
        "digits, other voices": _each_kind("spoken_digits", voices="unseen"),
        "tones": lambda n: _each_kind("tones")(min(n, 80)),
    },
}


def parts_of(name: str) -> dict[str, Draw]:
    """Return what a model of this name is measured on: a specialist's own, or all.

    >>> list(parts_of("Qwen/Qwen2.5-Coder-0.5B-Instruct"))
    ['coding']
    """
    last = name.rstrip("/").rpartition("/")[2].lower()
    words = set(re.split(r"[^a-z]+", last))
    found = (part for task, part in SPECIALIST_PARTS.items() if task in words)
    return next(found, PARTS)


@dataclass(frozen=True)
class Row:
    """The scores of one kind of question in both modes.

    `thinking` is None for a model that has no thinking mode.
    """

    part: str
    kind: str
    thinking: Score | None
    plain: Score


@dataclass(frozen=True)
class Scorecard:
    """All rows of one model."""

    rows: tuple[Row, ...]

    def total(self, *parts: str) -> Row:
        """Return the sum of all rows of the named parts."""
        chosen = [row for row in self.rows if row.part in parts]
        thought = [row.thinking for row in chosen if row.thinking]
        return Row(
            ", ".join(parts),
            "all",
            _sum(thought) if thought else None,
            _sum([row.plain for row in chosen]),
        )

    @property
    def header(self) -> tuple[str, ...]:
        """The heads of the columns."""
        return HEADER if any(row.thinking for row in self.rows) else PLAIN_HEADER

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that were measured, in order."""
        return tuple(dict.fromkeys(row.part for row in self.rows))

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table: a row a kind, a total for each part with several."""
        lines = []
        for part in self.parts:
            rows = [row for row in self.rows if row.part == part]
            lines += [_cells(row) for row in rows]
            if len(rows) > 1:
                lines.append(_cells(self.total(part)))
        if set(PROBLEMS) <= set(self.parts):
            whole = self.total(*PROBLEMS)
            lines.append(_cells(Row("all problems", "", whole.thinking, whole.plain)))
        return lines

    def __str__(self) -> str:
        return as_text(self.header, self.cells())

    def _repr_html_(self) -> str:
        return as_html("right answers", self.header, self.cells())

    def markdown(self) -> str:
        """Return the table for a model card; totals are bold."""
        header = self.header
        lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        for cells in self.cells():
            bold = cells[1] in ("all", "")
            texts = [f"**{cell}**" if bold and cell else cell for cell in cells]
            lines.append("| " + " | ".join(texts) + " |")
        return "\n".join(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the counts as plain data."""
        return [
            {
                "part": row.part,
                "kind": row.kind,
                **({"with": _counts(row.thinking)} if row.thinking else {}),
                "without": _counts(row.plain),
            }
            for row in self.rows
        ]

    @classmethod
    def from_json(cls, data: Sequence[dict[str, Any]]) -> "Scorecard":
        """Return the scorecard that `to_json` wrote."""
        return cls(
            tuple(
                Row(row["part"], row["kind"],
                    Score(*row["with"]) if "with" in row else None,
                    Score(*row["without"]))
                for row in data
            )
        )  # fmt: skip


HEADER = ("what", "kind", "number", "with thinking", "without")
PLAIN_HEADER = ("what", "kind", "number", "right")


def _sum(scores: Sequence[Score]) -> Score:
    return Score(sum(s.right for s in scores), sum(s.total for s in scores))


def _counts(score: Score) -> list[int]:
    return [score.right, score.total]


def _cells(row: Row) -> tuple[str, ...]:
    scores = [score for score in (row.thinking, row.plain) if score]
    shares = [f"{score.accuracy:.1%}" for score in scores]
    return (row.part, row.kind, f"{row.plain.total:,}", *shares)


def _check(parts: Sequence[str], known: Iterable[str]) -> None:
    for part in parts:
        if part not in known:
            near = suggest(part, known)
            raise ValueError(f'"{part}" is not one of {", ".join(known)}.{near}')


def scorecard(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    n: int = 100,
    parts: Sequence[str] | None = None,
    progress: bool = True,
    batch_size: int = 32,
) -> Scorecard:
    """Measure a model on `n` questions of each part, greedily, in both modes.

    A specialist, known by its name, has parts of its own, `n` questions a kind, and one
    mode. None means all parts. Raises ValueError for a part that does not exist.

    Example:
        print(scorecard(model, tokenizer, n=50, parts=["sums", "products"]))
    """
    known = parts_of(model.config.name_or_path or "")
    chosen = tuple(known) if parts is None else parts
    _check(chosen, known)
    modes = MODES if known is PARTS else {"without": False}
    rows: list[Row] = []
    for part in chosen:
        problems = known[part](n)
        scores = {
            mode: evaluate(
                model, tokenizer, problems, thinking, progress=progress,
                batch_size=batch_size,
            ).by_kind()
            for mode, thinking in modes.items()
        }  # fmt: skip
        thought = scores.get("with", {})
        rows += [
            Row(part, kind.rpartition(", ")[2], thought.get(kind), score)
            for kind, score in scores["without"].items()
        ]
    return Scorecard(tuple(rows))
