"""The instructor's plans, minute by minute: they are read, checked and printed.

A plan is a YAML file in `workshop/plans/`; the page beside it is made from it.

    python -m qwen_course.plans                 # writes the pages
    python -m qwen_course.plans --check         # what the tests check
    python -m qwen_course.plans --html slides   # for a printer, a page a half day
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from qwen_course.errors import suggest
from qwen_course.notebooks import ROOT, lessons, numbered
from qwen_course.notebooks import read as read_notebook

KINDS = {
    "talk": "Talk",
    "show": "You show",
    "run": "They run",
    "exercise": "Exercise",
    "break": "Break",
}
SITTING = 90  # minutes that people sit without a break, at most
PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
@page {{ size: A4; margin: 12mm }}
body {{ font: 14px/1.35 sans-serif; max-width: 50em; margin: auto }}
h1 {{ font-size: 1.3em; margin: 0 }} h2 {{ font-size: 1.1em; break-before: page }}
h1 + p + h2, h1 + p + p + h2 {{ break-before: auto }}
table {{ border-collapse: collapse }} tr {{ break-inside: avoid }}
th, td {{ border-bottom: 1px solid #bbb; padding: 2px 8px 2px 0; text-align: left;
         vertical-align: top; font-size: .87em }}
td:nth-child(-n + 3) {{ white-space: nowrap }}
</style></head><body>
{body}</body></html>
"""


@dataclass(frozen=True)
class Part:
    """Some minutes of a plan.

    `sections` are headings of the `lesson`. `running` names a lesson whose cells run
    meanwhile, as in a break.
    """

    minutes: int
    do: str
    what: str = ""
    aim: str = ""
    lesson: str = ""
    sections: tuple[str, ...] = ()
    exercise: str = ""
    running: str = ""
    start: int = 0  # minutes after midnight, counted from the block's start


@dataclass(frozen=True)
class Block:
    """A half day: `start` and `end` in minutes after midnight, and what fills it."""

    name: str
    day: int
    start: int
    end: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Plan:
    """A workshop: for whom, and its half days."""

    name: str
    title: str
    audience: str
    blocks: tuple[Block, ...]

    @property
    def parts(self) -> list[Part]:
        """Return the parts of all half days."""
        return [part for block in self.blocks for part in block.parts]

    @property
    def minutes(self) -> int:
        """Return how long all half days are together, without what lies between."""
        return sum(block.end - block.start for block in self.blocks)


@dataclass(frozen=True)
class Lesson:
    """What a plan may say of a lesson."""

    title: str
    file: str
    headings: tuple[str, ...]
    run_minutes: float


@dataclass(frozen=True)
class Course:
    """Lessons by number, such as "03"; minutes and titles of exercises by name."""

    lessons: dict[str, Lesson]
    exercises: dict[str, int]
    titles: dict[str, str]

    @classmethod
    def read(cls, root: Path = ROOT) -> "Course":
        """Read what the notebooks of a clone say of themselves."""
        found = {path.stem[:2]: _lesson(path) for path in lessons(root)}
        minutes, titles = {}, {}
        for path in numbered(root / "exercises"):
            for cell in read_notebook(path).cells:
                about = cell.metadata.get("qwen_course", {})
                if "question" in about:
                    minutes[about["question"]] = about["minutes"]
                if title := re.match(r"## Question (\d+) · (.+)", cell.source):
                    titles[f"{path.stem[:2]}.q{title[1]}"] = title[2]
        return cls(found, minutes, titles)


def _lesson(path: Path) -> Lesson:
    notebook = read_notebook(path)
    headings = [
        line.lstrip("# ").replace("`", "")
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith(("## ", "### "))
    ]
    about = notebook.metadata["qwen_course"]
    seconds = about["measured"]["seconds"]
    return Lesson(about["title"], path.name, tuple(headings), seconds / 60)


# Reading


def clock(minutes: int) -> str:
    """Say a time of the day.

    >>> clock(555)
    '09:15'
    """
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _minutes(text: Any, where: str) -> int:
    """Return the minutes after midnight of a time such as "09:15"."""
    found = re.fullmatch(r"(\d\d):([0-5]\d)", str(text))
    if not found:
        raise ValueError(f'{where}: {text!r} is no time. Write it as in "09:15".')
    return 60 * int(found[1]) + int(found[2])


def _take(data: Any, known: tuple[str, ...], where: str) -> dict[str, Any]:
    """Return a mapping whose keys are all known."""
    if not isinstance(data, dict):
        raise ValueError(f"{where}: give the keys {', '.join(known)}, not {data!r}.")
    for key in data:
        if key not in known:
            raise ValueError(
                f'{where}: the key "{key}" is not one of {", ".join(known)}.'
                f"{suggest(str(key), known)}"
            )
    return data


def parse(data: Any, name: str) -> Plan:
    """Return the plan in what was read from YAML.

    Raises ValueError for a key that is unknown or missing, with its place.
    """
    top = _take(data, ("title", "audience", "blocks"), name)
    blocks = []
    try:
        for given in top["blocks"]:
            given = _take(given, ("name", "day", "start", "end", "parts"), name)
            blocks.append(_block(given, f"{name}, {given['name']}"))
        return Plan(name, top["title"], top["audience"], tuple(blocks))
    except KeyError as missing:
        raise ValueError(f"{name}: the key {missing} is missing.") from missing


def _block(given: dict[str, Any], where: str) -> Block:
    known = tuple(field.name for field in fields(Part) if field.name != "start")
    start = now = _minutes(given["start"], where)
    parts = []
    for one in given["parts"]:
        one = _take(one, known, f"{where}, {clock(now)}")
        if not isinstance(one["minutes"], int) or not one["do"]:
            raise ValueError(f"{where}, {clock(now)}: minutes are a whole number.")
        sections = tuple(one.get("sections", ()))
        parts.append(Part(**{**one, "sections": sections, "start": now}))
        now += one["minutes"]
    end = _minutes(given["end"], where)
    return Block(given["name"], given.get("day", 1), start, end, tuple(parts))


def files(root: Path = ROOT) -> list[Path]:
    """Return the files of the plans, the shortest plan first."""
    found = (root / "workshop" / "plans").glob("*.yaml")
    return sorted(found, key=lambda path: read(path).minutes)


def read(path: Path) -> Plan:
    """Return the plan in a file; ValueError names the file that is none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML: {error}") from error
    return parse(data, path.stem)


# Checking


def problems(plan: Plan, course: Course) -> list[str]:
    """Return what is wrong with a plan, a sentence each; an empty list is well."""
    found = [*_of_blocks(plan)]
    for block in plan.blocks:
        found += [*_of_sitting(block)]
        for part in block.parts:
            told = clock(part.start)
            found += [f"{told}: {wrong}" for wrong in _of_part(part, course)]
    return found + [*_of_runs(plan, course)]


def _of_blocks(plan: Plan) -> Iterator[str]:
    """Half days are as long as their parts, and follow each other."""
    before = (0, 0)
    for block in plan.blocks:
        given, there = sum(p.minutes for p in block.parts), block.end - block.start
        if given != there:
            yield (
                f"{block.name}: its parts take {given} minutes, but from "
                f"{clock(block.start)} to {clock(block.end)} there are {there}."
            )
        if (block.day, block.start) < before:
            yield (
                f"{block.name}: begins at {clock(block.start)}, before the one above "
                "ends."
            )
        before = (block.day, block.end)


def _of_sitting(block: Block) -> Iterator[str]:
    """Nobody sits for more than 90 minutes."""
    since = 0
    for part in (*block.parts, Part(0, "break", start=block.end)):
        if part.do != "break":
            since += part.minutes
        elif since > SITTING:
            yield (
                f"{block.name}: {since} minutes without a break before "
                f"{clock(part.start)}; {SITTING} are the most."
            )
        since = 0 if part.do == "break" else since


def _of_part(part: Part, course: Course) -> Iterator[str]:
    """What a part names exists, and an exercise has its time."""
    if part.do not in KINDS:
        yield f'"{part.do}" is not one of {", ".join(KINDS)}.{suggest(part.do, KINDS)}'
    if part.do != "break" and not part.aim:
        yield "has no aim. Say what people can do after it."
    for number in filter(None, (part.lesson, part.running)):
        if number not in course.lessons:
            there_are = ", ".join(course.lessons)
            yield f'there is no lesson "{number}". There are {there_are}.'
    if part.do in ("show", "run") and not part.lesson:
        yield f'"{part.do}" needs a lesson.'
    if there := course.lessons.get(part.lesson):
        for section in set(part.sections) - set(there.headings):
            near = suggest(section, there.headings)
            yield f'lesson {part.lesson} has no section "{section}".{near}'
    if part.do == "exercise":
        yield from _of_exercise(part, course)


def _of_exercise(part: Part, course: Course) -> Iterator[str]:
    wanted = course.exercises.get(part.exercise)
    if wanted is None:
        near = suggest(part.exercise, course.exercises)
        yield f'there is no exercise "{part.exercise}".{near}'
    elif wanted != part.minutes:
        yield (
            f"{part.exercise} is made for {wanted} minutes, and gets {part.minutes}."
        )


def _of_runs(plan: Plan, course: Course) -> Iterator[str]:
    """A lesson that is shown or run gets at least the time that its cells take."""
    given: dict[str, int] = {}
    for part in plan.parts:
        for name in {part.lesson, part.running} - {""}:
            given[name] = given.get(name, 0) + part.minutes
    for number, minutes in given.items():
        lesson = course.lessons.get(number)
        if lesson and lesson.run_minutes > minutes:
            yield (
                f"lesson {number} takes {lesson.run_minutes:.0f} minutes to run, and "
                f"the plan gives it {minutes}. Let it run in a break: running."
            )


# Printing


def render(plan: Plan, course: Course | None = None) -> str:
    """Return a plan as a page of Markdown, a table for each half day."""
    course = course or Course.read()
    lines = [f"# {plan.title}", "", plan.audience.strip(), ""]
    for block in plan.blocks:
        lines += [f"## {block.name}, {clock(block.start)} to {clock(block.end)}", ""]
        lines += ["| time | min | who | what | aim |", "|---|---|---|---|---|"]
        for part in block.parts:
            row = (
                clock(part.start), str(part.minutes), KINDS[part.do],
                _what(part, course), part.aim,
            )  # fmt: skip
            lines.append(f"| {' | '.join(row)} |")
        lines.append("")
    made = f"Made from `{plan.name}.yaml` by `python -m qwen_course.plans`."
    return "\n".join([*lines, made, ""])


def _what(part: Part, course: Course) -> str:
    """Return what happens, with the lesson and its sections, or the exercise."""
    said = [part.what] if part.what else []
    if part.exercise:
        said.insert(0, f"**{part.exercise}** {course.titles[part.exercise]}.")
    if part.lesson:
        where = " · ".join(part.sections)
        said.append(f"**{part.lesson}**: {where}" if where else f"**{part.lesson}**")
    return " ".join(said)


def as_html(plan: Plan, course: Course | None = None) -> str:
    """Return a plan as a page of HTML, made for a printer: A4, a page a half day."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(render(plan, course))
    return PAGE.format(title=plan.title, body=body)


def main(arguments: list[str] | None = None) -> int:
    """Check the plans and write their pages; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m qwen_course.plans", description="Print the instructor's plans."
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--html", type=Path, metavar="DIR", help="pages for a printer")
    options = parser.parse_args(arguments)
    try:
        wrong = _print_all(options.check, options.html)
    except ValueError as error:
        wrong = [str(error)]
    print("\n".join(wrong) or "The plans add up.", file=sys.stderr if wrong else None)
    return 1 if wrong else 0


def _print_all(only_check: bool, folder: Path | None) -> list[str]:
    """Check every plan and write its page; return what is wrong."""
    course, wrong = Course.read(), []
    for path in files():
        plan = read(path)
        if found := problems(plan, course):
            wrong += [f"{path.name}: {problem}" for problem in found]
        elif folder:
            folder.mkdir(parents=True, exist_ok=True)
            page = folder / f"{plan.name}.html"
            page.write_text(as_html(plan, course), encoding="utf-8", newline="\n")
        else:
            wrong += _written(path, render(plan, course), only_check)
    return wrong


def _written(path: Path, text: str, only_check: bool) -> list[str]:
    """Write the page of a plan, or say that it is out of date."""
    page = path.with_suffix(".md")
    if not only_check:
        page.write_text(text, encoding="utf-8", newline="\n")
    elif not page.is_file() or page.read_text(encoding="utf-8") != text:
        return [f"{page.name} is out of date. Type: python -m qwen_course.plans"]
    return []


if __name__ == "__main__":
    sys.exit(main())
