"""What every exercise notebook keeps to, in both editions, stored and when it runs."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from qwen_course.exercises import build
from qwen_course.exercises.feedback import LOOK
from qwen_course.exercises.question import Status
from qwen_course.notebooks import Cell, LessonError, Notebook, is_exercise

EXPECTED: dict[str, Status] = {"solutions": "right", "exercises": "to do"}
CHECK = r'qc\.check\("%s", \w+\)'


def asks_as_every_exercise_does(path: Path, notebook: Notebook) -> Iterator[str]:
    """Each question has its text, its answer and its check, one after the other; the
    reason follows in a solution; a notebook ends with `qc.progress()`."""
    if not is_exercise(path):
        return
    try:
        asked = [one["question"] for one in build.questions(path, notebook)]
    except LessonError as error:
        yield str(error)
        return
    ids = [cell.id for cell in notebook.cells]
    sources = {cell.id: cell.source for cell in notebook.cells}
    for id in asked:
        name = id.partition(".")[2]
        expected = [f"{name}-answer", f"{name}-check"]
        if path.parent.name == "solutions":
            expected.append(f"{name}-why")
        at = ids.index(expected[0])
        if ids.index(name) > at or ids[at : at + len(expected)] != expected:
            yield f"{path.name}: question {id} is not {name}, {', '.join(expected)}."
        if not re.fullmatch(CHECK % re.escape(id), sources.get(expected[1], "")):
            yield f'{path.name}, cell "{expected[1]}": not qc.check("{id}", name).'
    if ids[-2:] != ["done", "progress"] or sources["progress"] != "qc.progress()":
        yield f'{path.name}: it does not end in "done" and "progress".'
    yield from _wrong_tags(path, notebook)


def _wrong_tags(path: Path, notebook: Notebook) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.id.endswith("-why") != build.for_authors(cell):
            yield f'{path.name}, cell "{cell.id}": no "-why" tagged "solution".'
        if build.for_authors(cell) and path.parent.name == "exercises":
            yield f'{path.name}, cell "{cell.id}": it belongs to the solution.'


def unexpected(path: Path, cell: Cell, outputs: Iterable[Cell]) -> str | None:
    """Say what is wrong with the outputs of a check, or return None.

    A solution is right; an exercise as it is handed out is to do.
    """
    asked = re.search(r'qc\.check\("([^"]*)"', cell.source)
    if asked is None or not is_exercise(path):
        return None
    status = EXPECTED[path.parent.name]
    texts = [output.get("data", {}).get("text/plain", "") for output in outputs]
    if any(text.startswith(f"{LOOK[status][1]} {asked[1]} ") for text in texts):
        return None
    said = "\n".join(filter(None, texts)) or "nothing"
    return f'{path.name}, cell "{cell.id}" is not "{status}" but says: {said}'
