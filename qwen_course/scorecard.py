"""The table of a model's skills, as its model card shows it.

Everything is asked in questions that no training data holds, with and without
thinking. `qwen-course evaluate MODEL` prints the same table.
"""

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Row:
    """The scores of one kind of question in both modes."""

    part: str
    kind: str
    thinking: Score
    plain: Score


@dataclass(frozen=True)
class Scorecard:
    """All rows of one model."""

    rows: tuple[Row, ...]

    def total(self, *parts: str) -> Row:
        """Return the sum of all rows of the named parts."""
        chosen = [row for row in self.rows if row.part in parts]
        thinking, plain = (
            Score(sum(s.right for s in scores), sum(s.total for s in scores))
            for scores in zip(*[(r.thinking, r.plain) for r in chosen], strict=True)
        )
        return Row(", ".join(parts), "all", thinking, plain)

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
        return as_text(HEADER, self.cells())

    def _repr_html_(self) -> str:
        return as_html("right answers", HEADER, self.cells())

    def markdown(self) -> str:
        """Return the table for a model card; totals are bold."""
        lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
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
                "with": [row.thinking.right, row.thinking.total],
                "without": [row.plain.right, row.plain.total],
            }
            for row in self.rows
        ]

    @classmethod
    def from_json(cls, data: Sequence[dict[str, Any]]) -> "Scorecard":
        """Return the scorecard that `to_json` wrote."""
        return cls(
            tuple(
                Row(row["part"], row["kind"], Score(*row["with"]),
                    Score(*row["without"]))
                for row in data
            )
        )  # fmt: skip


HEADER = ("what", "kind", "number", "with thinking", "without")


def _cells(row: Row) -> tuple[str, ...]:
    number = f"{row.thinking.total:,}"
    shares = (f"{row.thinking.accuracy:.1%}", f"{row.plain.accuracy:.1%}")
    return (row.part, row.kind, number, *shares)


def _check(parts: Sequence[str]) -> None:
    for part in parts:
        if part not in PARTS:
            near = suggest(part, PARTS)
            raise ValueError(f'"{part}" is not one of {", ".join(PARTS)}.{near}')


def scorecard(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    n: int = 100,
    parts: Sequence[str] = tuple(PARTS),
    progress: bool = True,
    batch_size: int = 32,
) -> Scorecard:
    """Measure a model on `n` questions of each part, greedily, in both modes.

    Raises ValueError for a part that does not exist.

    Example:
        print(scorecard(model, tokenizer, n=50, parts=["sums", "products"]))
    """
    _check(parts)
    rows: list[Row] = []
    for part in parts:
        problems = PARTS[part](n)
        scores = {
            mode: evaluate(
                model, tokenizer, problems, thinking, progress=progress,
                batch_size=batch_size,
            ).by_kind()
            for mode, thinking in MODES.items()
        }  # fmt: skip
        rows += [
            Row(part, kind.rpartition(", ")[2], score, scores["without"][kind])
            for kind, score in scores["with"].items()
        ]
    return Scorecard(tuple(rows))
