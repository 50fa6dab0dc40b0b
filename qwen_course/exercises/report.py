"""Write grades down: a table for a spreadsheet, and pages for a browser.

The pages need nothing but themselves. Names and outputs are other people's: jinja2
escapes them, and a learner's page has a number for a name.
"""

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.exercises.feedback import LOOK
from qwen_course.exercises.sandbox import NO_BOUNDARY

if TYPE_CHECKING:
    from qwen_course.exercises.grade import Graded, Grades

TEMPLATES = Path(__file__).parent.parent / "data"
COLUMNS = ("learner", "lesson", "question", "status", "mistake", "seconds", "limit")
MOST_COMMON = 15


def write(grades: "Grades", out: Path) -> None:
    """Write results.csv, index.html and a page a learner into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_csv(grades, out / "results.csv")
    template = _template()
    rows = _rows(grades)
    for row in rows:
        html = template.render(learner=row["learner"], mine=row["mine"])
        (out / row["page"]).write_text(html, encoding="utf-8")
    html = template.render(
        grades=grades,
        rows=rows,
        columns=_columns(grades),
        mistakes=common_mistakes(grades),
        no_boundary=NO_BOUNDARY,
    )
    (out / "index.html").write_text(html, encoding="utf-8")


def write_csv(grades: "Grades", file: Path) -> None:
    """Write a line for each question of each submission.

    `seconds` and `limit` are those of the whole notebook.
    """
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(COLUMNS)
        for graded in grades.graded:
            one, run = graded.submission, graded.run
            for verdict in graded.verdicts:
                row = [one.learner, one.lesson, verdict.id, verdict.status]
                row += [verdict.mistake, f"{run.seconds:.1f}", run.limit]
                table.writerow(map(_no_formula, row))


def _no_formula(text: str) -> str:
    """Keep a spreadsheet from computing what a learner chose to be called.

    >>> _no_formula("=1+1")
    "'=1+1"
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def common_mistakes(grades: "Grades") -> list[tuple[tuple[str, str], int, str]]:
    """Return ((question, mistake), how many, an example) from the most common down."""
    verdicts = [one for graded in grades.graded for one in graded.verdicts]
    wrong = [one for one in verdicts if one.mistake]
    counts = Counter((one.id, one.mistake) for one in wrong)
    example = {(one.id, one.mistake): one.text for one in reversed(wrong)}
    common = counts.most_common(MOST_COMMON)
    return [(which, count, example[which]) for which, count in common]


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(autoescape=True, loader=loader, trim_blocks=True)
    return environment.get_template("grades.html.jinja", globals={"looks": LOOK})


def _columns(grades: "Grades") -> dict[str, str]:
    """Return the questions of all submitted lessons, with their titles."""
    verdicts = [one for graded in grades.graded for one in graded.verdicts]
    return {one.id: one.title for one in sorted(verdicts, key=lambda one: one.id)}


def _rows(grades: "Grades") -> list[dict[str, Any]]:
    """Return what the pages say of each learner."""
    learners: dict[str, list[Graded]] = {}
    for graded in grades.graded:
        learners.setdefault(graded.submission.learner, []).append(graded)
    rows = []
    for number, (learner, mine) in enumerate(learners.items(), 1):
        verdicts = {one.id: one for graded in mine for one in graded.verdicts}
        right = sum(one.status == "right" for one in verdicts.values())
        limits = ", ".join(graded.run.limit for graded in mine if graded.run.limit)
        page = f"learner-{number:03}.html"
        rows.append(
            {"learner": learner, "page": page, "mine": mine, "verdicts": verdicts,
             "right": f"{right} of {len(verdicts)}", "limits": limits}
        )  # fmt: skip
    return rows
