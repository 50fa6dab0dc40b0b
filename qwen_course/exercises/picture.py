"""`qc.progress()`: a picture of lessons and outcomes, and the file for a teacher."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from qwen_course.exercises import keeping, question
from qwen_course.exercises.feedback import LOOK
from qwen_course.exercises.keeping import Kept
from qwen_course.exercises.question import OUTCOMES, Question

# Name, squares, count. In a narrow output names and squares wrap; the count never does.
COLUMNS = "minmax(6em,max-content) minmax(6em,max-content) max-content"


@dataclass(frozen=True, repr=False)
class Progress:
    """What is done, by lesson and by outcome; shows itself as a picture or as text."""

    kept: keeping.Book
    questions: tuple[Question, ...]

    def export(self, path: str | Path, learner: str = "") -> None:
        """Write it to a JSON file, for a teacher or for another machine.

        Raises ValueError when the file cannot be written.

        Example:
            qc.progress().export("ada.json", learner="Ada")
        """
        file = Path(path).expanduser()
        try:
            file.write_text(keeping.as_json(self.kept, learner), encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"{file} cannot be written ({error.strerror or error}): "
                "name a file in a folder that is there and is yours."
            ) from error

    def import_from(self, path: str | Path) -> "Progress":
        """Add an exported file to what this machine knows; return the new picture.

        What is right on one of the two is right.

        Raises ValueError when the file is no progress of this course.
        """
        other = keeping.read_file(path)
        keeping.update(lambda book: keeping.merge(book, other))
        return progress()

    # The picture

    def _rows(self) -> list[tuple[str, list[Question]]]:
        """Return a name and the questions of each lesson, then of each outcome."""
        lessons = sorted({one.lesson for one in self.questions})
        rows = [
            (f"lesson {n}", [q for q in self.questions if q.lesson == n])
            for n in lessons
        ]
        rows += [
            (f"outcome {n}: {words}", [q for q in self.questions if q.outcome == n])
            for n, words in OUTCOMES.items()
        ]
        return rows

    def _of(self, asked: Question) -> Kept:
        return self.kept.get(asked.id, Kept())

    def _count(self, row: list[Question]) -> str:
        """Say how many are right and not yet: "2 of 5 right, 1 not yet"."""
        states = [self._of(one).status for one in row]
        text = f"{states.count('right')} of {len(row)} right"
        if states.count("not yet"):
            text += f", {states.count('not yet')} not yet"
        return text if row else "no question yet"

    def __str__(self) -> str:
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        wide = max(len(row) for _, row in rows)
        lines = [f"Your exercises: {self._count(list(self.questions))}."]
        for name, row in rows:
            signs = "".join(LOOK[self._of(one).status][1] for one in row)
            lines.append(f"{name:{width}}  {signs:{wide}}  {self._count(row)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = "".join(self._html_row(name, row) for name, row in self._rows())
        head = f"Your exercises: {self._count(list(self.questions))}."
        return (
            f"<div><b>{escape(head)}</b>"
            '<div role="list" style="display:grid;align-items:center;gap:4px 12px;'
            f'grid-template-columns:{COLUMNS}">{rows}</div></div>'
        )

    def _html_row(self, name: str, row: list[Question]) -> str:
        """Return a row: for the eye squares, for a screen reader one sentence."""
        states = [f"{one.id} {self._of(one).status}" for one in row]
        label = escape(f"{name}: {self._count(row)}. {', '.join(states)}", quote=True)
        squares = "".join(map(self._square, row))
        return (
            f'<span aria-hidden="true">{escape(name)}</span>'
            f'<span role="listitem" aria-label="{label}">{squares}</span>'
            f'<span aria-hidden="true">{escape(self._count(row))}</span>'
        )

    def _square(self, asked: Question) -> str:
        one = self._of(asked)
        colour, sign = LOOK[one.status]
        title = f"{asked.id} {asked.title}: {one.status}"
        title += f", tries: {one.tries}, hints: {one.hints}"
        if one.mistakes:
            title += ", met: " + ", ".join(one.mistakes)
        return (
            f'<span aria-hidden="true" title="{escape(title, quote=True)}" '
            f'style="background:{colour};color:#fff;display:inline-block;width:1.4em;'
            f'line-height:1.4em;text-align:center;margin:1px">{sign}</span>'
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def progress() -> Progress:
    """Return what you have done, from a file on this machine alone.

    Shows itself: a square for each question, by lesson and by outcome. `export` writes
    it for a teacher, `import_from` adds what another machine knows.

    Example:
        qc.progress().export("ada.json", learner="Ada")
    """
    return Progress(keeping.load(), tuple(question.questions()))
