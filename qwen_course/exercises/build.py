"""Write the exercises that learners get from the solution notebooks.

A tool for the course's authors. `solutions/` is the only source.

    python -m qwen_course.exercises.build            # solutions/ -> exercises/
    python -m qwen_course.exercises.build --check    # say which are not up to date

In a code cell, the lines from `### BEGIN SOLUTION` to `### END SOLUTION` are left out,
and `### STUB: code` above them becomes `code`. A cell tagged "solution" is left out
whole. The header and the bootstrap cell of both editions are made anew.
"""

import argparse
import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwen_course import notebooks
from qwen_course.exercises.question import OUTCOMES
from qwen_course.notebooks import Cell, LessonError, Notebook

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = re.compile(r"( *)### STUB: (.*\S)")
# What an author may have meant as a marker: refused, for it would leak the solution.
NEARLY = re.compile(r"\s*(###|#+\W*(begin|end)\W*sol|#+\W*stub\b)", re.IGNORECASE)
KEYS = ("question", "difficulty", "minutes", "outcome")


class BuildError(LessonError):
    """A solution notebook that makes no exercise; the message names the cell."""


# A cell


def learner_source(source: str) -> str:
    """Return a cell's source with each solution replaced by its stub.

    Raises BuildError for a marker that is misspelt, missing or out of place.

    >>> learner_source("### STUB: x = ...\\n### BEGIN SOLUTION\\nx = 1\\n### END SOLUTION")
    'x = ...'
    """  # noqa: E501
    kept: list[str] = []
    stubs, inside = 0, False
    for number, line in enumerate(source.splitlines(), 1):
        stub, word = STUB.fullmatch(line.rstrip()), line.strip()
        if NEARLY.match(line) and not stub and word not in (BEGIN, END):
            raise BuildError(f'line {number}: "{word}" is no marker; see build.py')
        if (word == BEGIN or stub) and inside:
            raise BuildError(f'line {number}: "{word}" inside a solution')
        if word == END and not inside:
            raise BuildError(f'line {number}: "{END}" before its "{BEGIN}"')
        if word == BEGIN and not stubs:
            raise BuildError(f'line {number}: no "### STUB: ..." above this solution')
        if stub:
            kept.append(stub[1] + stub[2])
            stubs += 1
        elif word in (BEGIN, END):
            inside, stubs = word == BEGIN, 0
        elif not inside:
            kept.append(line)
    if inside or stubs:
        raise BuildError(f'"{END if inside else BEGIN}" is missing')
    return "\n".join(kept).rstrip()


def learner_cell(path: Path, cell: Cell) -> Cell:
    """Return a copy of a cell as a learner gets it."""
    cell = copy.deepcopy(cell)
    try:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            source, cell.source = cell.source, learner_source(cell.source)
            if "question" in about(cell) and source == cell.source:
                raise BuildError(f'an answer without "{BEGIN}"')
        elif BEGIN in cell.source:
            raise BuildError('markers in a text; tag the whole cell "solution" instead')
    except BuildError as error:
        raise BuildError(f'{path.name}, cell "{cell.id}": {error}.') from error
    return cell


def about(cell: Cell) -> dict[str, Any]:
    """Return what the course keeps in a cell's metadata."""
    return cell.metadata.get("qwen_course", {})


def for_authors(cell: Cell) -> bool:
    """Return whether a whole cell is left out of the learner edition."""
    return "solution" in cell.metadata.get("tags", [])


# The header


def questions(path: Path, notebook: Notebook) -> Iterator[dict[str, Any]]:
    """Yield the metadata of each answer cell, and the heading above it as "title".

    Raises BuildError for a question without its number, heading, or one of KEYS.
    """
    texts = {cell.id: cell.source for cell in notebook.cells}
    for cell in notebook.cells:
        if not cell.id.endswith("-answer") and "question" not in about(cell):
            continue
        where, name = f'{path.name}, cell "{cell.id}"', cell.id.removesuffix("-answer")
        if missing := [key for key in KEYS if not about(cell).get(key)]:
            raise BuildError(
                f'{where}: its metadata qwen_course has no "{missing[0]}".'
            )
        if about(cell)["outcome"] not in OUTCOMES:
            raise BuildError(f'{where}: its "outcome" is {about(cell)["outcome"]}.')
        if about(cell)["question"] != f"{path.stem[:2]}.{name}":
            raise BuildError(f"{where}: it holds {about(cell)['question']}.")
        title = re.match(r"## (Question \d+ · .*\S)", texts.get(name, ""))
        if title is None:
            raise BuildError(f'{where}: no cell "{name}" with "## Question 1 · ...".')
        yield {**about(cell), "title": title[1]}


def anchor(heading: str) -> str:
    """Return a heading as JupyterLab links to it.

    >>> anchor("Question 1 · The `config` (again)")
    'Question-1-·-The-config-%28again%29'
    """
    plain = re.sub(r"[`*]", "", heading).replace(" ", "-")
    return plain.replace("(", "%28").replace(")", "%29")


def header_source(path: Path, notebook: Notebook) -> str:
    """Return the Markdown of an exercise's header: how it works, and its questions."""
    title = notebook.metadata.get("qwen_course", {}).get("title")
    if not title:
        raise BuildError(f'{path.name}: its metadata "qwen_course" has no "title".')
    rows = [
        f"| [{one['title']}](#{anchor(one['title'])}) | {one['difficulty']} "
        f"| {one['minutes']} | {one['outcome']}: {OUTCOMES[one['outcome']]} |"
        for one in questions(path, notebook)
    ]
    edition = ""
    if path.parent.name == "solutions":
        edition = f" These are the solutions; [try it first](../exercises/{path.name})."
    return "\n".join(
        [
            f"# {path.stem[:2]} · {title}",
            "",
            notebooks.colab_badge(path),
            "",
            f"For [lesson {path.stem[:2]}](../notebooks/{path.name}).{edition}",
            "",
            "Put your answer in the place of each `...`, run the cell, then run its"
            " `qc.check`; stuck? `qc.hint` with the question's number helps, and helps"
            " more each time.",
            "",
            "| question | difficulty | minutes | outcome |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


# A notebook


def solution_edition(path: Path) -> Notebook:
    """Return a solution notebook as it should be stored."""
    notebook = notebooks.without_outputs(notebooks.read(path))
    return notebooks.clean(notebooks.with_generated_cells(path, notebook))


def learner_edition(path: Path) -> Notebook:
    """Return the exercise that a solution notebook makes.

    Raises BuildError, also where a line of a solution would be left in it.
    """
    solution = solution_edition(path)
    learner = copy.deepcopy(solution)
    kept = [cell for cell in solution.cells if not for_authors(cell)]
    learner.cells = [learner_cell(path, cell) for cell in kept]
    learner = notebooks.with_generated_cells(target(path), learner)
    if leaked := leaks(solution, learner) + strangers(solution, learner):
        raise BuildError(f"{path.name}: " + f"\n{path.name}: ".join(leaked))
    return learner


def leaks(solution: Notebook, learner: Notebook) -> list[str]:
    """Name each line of a solution that can be read in a learner edition.

    Lines that the notebook's other code has too, such as an import, are no secret.
    """
    secret: set[str] = set()
    known: set[str] = set()
    for cell in solution.cells:
        inside = for_authors(cell)
        for line in map(str.strip, cell.source.splitlines()):
            inside = (inside or line == BEGIN) and line != END
            if cell.cell_type == "code" or inside:
                (secret if inside else known).add(line)
    secret = {line for line in secret - known - {BEGIN} if re.search(r"\w", line)}
    found = []
    for cell in learner.cells:
        lines = [line.strip() for line in cell.source.splitlines()]
        rest = json.dumps([cell.metadata, cell.get("outputs")], ensure_ascii=False)
        text = rest if cell.cell_type == "code" else cell.source + rest
        for line in sorted(secret):
            if line in lines or (len(line) > 15 and line in text):
                found.append(f'cell "{cell.id}" gives away a solution: {line}')
    return found


def strangers(solution: Notebook, learner: Notebook) -> list[str]:
    """Name each line of a learner's code that its solution cell does not have."""
    sources = {cell.id: cell.source.splitlines() for cell in solution.cells}
    return [
        f'cell "{cell.id}" has a line that its solution has not: {line}'
        for cell in learner.cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if line.strip() and line not in map(_unmarked, sources.get(cell.id, []))
    ]


def _unmarked(line: str) -> str:
    return STUB.sub(r"\1\2", line.rstrip()) if "### STUB" in line else line


# The command


def solutions(root: Path = notebooks.ROOT) -> list[Path]:
    """Return the notebooks of `solutions/`."""
    return notebooks.numbered(root / "solutions")


def target(path: Path) -> Path:
    """Return where the exercise of a solution notebook is written."""
    return path.parent.parent / "exercises" / path.name


def editions(root: Path = notebooks.ROOT) -> dict[Path, Notebook]:
    """Return every solution and exercise of the course as it should be stored."""
    made: dict[Path, Notebook] = {}
    for path in solutions(root):
        made |= {path: solution_edition(path), target(path): learner_edition(path)}
    return made


def differing(root: Path = notebooks.ROOT) -> list[str]:
    """Return the notebooks that `build` would write, or that have no solution."""
    made = editions(root)
    there = {*made, *(root / "exercises").glob("*.ipynb")}
    return [
        path.relative_to(root).as_posix()
        for path in sorted(there)
        if path not in made or not notebooks.is_stored(path, made[path])
    ]


def build(root: Path = notebooks.ROOT) -> list[Path]:
    """Write every solution and exercise; return those that changed."""
    made = editions(root)
    (root / "exercises").mkdir(exist_ok=True)
    return [path for path, notebook in made.items() if notebooks.write(path, notebook)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m qwen_course.exercises.build", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    root = notebooks.ROOT
    try:
        if not given.check:
            for path in build(root):
                print(f"{path.relative_to(root).as_posix()}: written")
            return 0
        found = differing(root)
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    for name in found:
        print(f"{name} differs from its solution notebook.", file=sys.stderr)
    if found:
        print("Type: python -m qwen_course.exercises.build", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
