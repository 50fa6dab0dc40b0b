"""Slides made of a lesson: one HTML file each, which needs no network.

    qwen-course slides 03 05 --out slides

A slide never says what its lesson does not. What goes onto one is a rule:

- A heading starts a slide. One of a section (`##`) starts a column: the right arrow
  goes from section to section, the space bar from slide to slide.
- Of a text the first sentences are shown, `WORDS` at most; all of it is in the speaker
  notes (key S).
- A code cell shares a slide with its output, or shows it on the next one. Of long ones
  the beginning is shown, and how much is left out. The code that only draws a figure is
  left out; the figure is the stored one, byte by byte.
- A text goes with the code below it if both fit, else with the output above it.
- A cell's metadata `slideshow` overrides this with Jupyter's own words: "slide" and
  "subslide" start a slide, "-" stays on the one before, "notes" is for the speaker
  alone, and "skip" is left out.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_course import slide_blocks
from qwen_course.errors import suggest
from qwen_course.notebooks import ROOT, LessonError, lessons, read
from qwen_course.slide_blocks import (
    NO_SLIDES,
    ROOM,
    Block,
    figure_blocks,
    height,
    height_of,
    markdown,
    output_blocks,
    source_blocks,
)


@dataclass
class Slide:
    """One screen: a heading, some blocks, and what only the speaker sees."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_output: bool = False
    continued: bool = False

    @property
    def room(self) -> float:
        """Return the pixels that are still free."""
        two_lines = 46 * (len(self.title) > 54)
        return ROOM - two_lines - sum(block.height for block in self.blocks)


class Deck:
    """The slides of a lesson, in columns; one column a section."""

    def __init__(self) -> None:
        self.columns: list[list[Slide]] = []

    @property
    def last(self) -> Slide:
        """Return the slide that is being filled."""
        return self.columns[-1][-1]

    def begin(self, title: str, column: bool = False) -> None:
        """Start a slide, in a new column or below the last one."""
        if column or not self.columns:
            self.columns.append([])
        self.columns[-1].append(Slide(title))

    def go_on(self) -> None:
        """Start a slide that goes on with the heading of the last one."""
        if self.last.blocks:
            self.begin(self.last.title)
            self.last.continued = True

    def add(self, block: Block) -> None:
        """Put a block on the last slide, or on a new one where it does not fit."""
        if block.height > self.last.room:
            self.go_on()
        self.last.blocks.append(block)

    def __iter__(self) -> Iterator[Slide]:
        return (slide for column in self.columns for slide in column)

    def finish(self) -> "Deck":
        """Leave out empty slides, and let figures grow; return the deck."""
        for column in self.columns:
            column[:] = [slide for slide in column if slide.blocks]
        self.columns = [column for column in self.columns if column]
        for slide in self:
            figures = [block for block in slide.blocks if block.size]
            free = max(0, slide.room) / max(1, len(figures))
            for block in figures:
                block.grow(block.height + free)
        return self


def add_text(deck: Deck, source: str, below: float | None, stays: bool) -> None:
    """Put a Markdown cell on slides.

    `below` is the height of the code under it, None where there is no code.
    """
    parts = list(slide_blocks.text_parts(source))
    for heading, blocks, notes in parts:
        needed = height(blocks)
        last = heading == parts[-1][0]
        together = last and below is not None and needed + below <= ROOM
        moves = together or needed > deck.last.room
        if heading:
            deck.begin(_plain(heading), column=heading.startswith("## "))
        elif deck.last.has_output and moves and not stays:
            deck.go_on()
        for block in blocks:
            deck.add(block)
        deck.last.notes += notes


def _plain(title: str) -> str:
    """Return a heading without Markdown's signs."""
    return title.lstrip("# ").replace("`", "").replace("**", "")


def add_code(deck: Deck, cell: Any, stays: bool) -> None:
    """Put a code cell on a slide, and its outputs there or on the next one."""
    code, outputs = source_blocks(cell), output_blocks(cell) + figure_blocks(cell)
    if deck.last.has_output and not stays:
        deck.go_on()
    if height(code) > deck.last.room and not stays:
        deck.go_on()
    for block in code:
        deck.add(block)
    if height(outputs) > deck.last.room and not stays:
        deck.go_on()
        outputs = output_blocks(cell, alone=True) + figure_blocks(cell)
    for block in outputs:
        deck.add(block)
    deck.last.has_output |= bool(outputs)


# The whole lesson


def slides(path: Path) -> Deck:
    """Return the slides of a lesson; the first slide, its title, is the template's.

    Raises LessonError when there is no such notebook.
    """
    deck, notebook = Deck(), read(path)
    cells = [
        cell
        for cell in notebook.cells
        if "generated" not in cell.metadata.get("tags", [])
    ]
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        wish = cell.metadata.get("slideshow", {}).get("slide_type", "")
        if wish in ("slide", "subslide") or not deck.columns:
            lesson = notebook.metadata["qwen_course"]["title"]
            title = deck.last.title if deck.columns else lesson
            deck.begin(title, column=wish == "slide")
        if wish == "notes":
            deck.last.notes.append(cell.source)
        elif cell.cell_type == "code" and wish != "skip":
            add_code(deck, cell, stays=wish == "-")
        elif wish != "skip":
            code = after is not None and after.cell_type == "code"
            below = height_of(after) if code else None
            add_text(deck, cell.source, below, stays=wish == "-")
    return deck.finish()


def guide(path: Path, root: Path = ROOT) -> dict[str, str]:
    """Return what the instructor's guide says of a lesson: by section, and under "".

    The guide's three things to show each begin with **Section "..."**; they become
    notes of that section's slide. All before "Questions" is for the title's.
    """
    page = root / "workshop" / "guide" / f"{path.stem}.md"
    if not page.is_file():
        return {}
    text = page.read_text(encoding="utf-8")
    said = {"": text.partition("\n## Questions")[0].partition("\n")[2].strip()}
    for item in re.split(r"\n(?=\d\. )", said[""]):
        if found := re.match(r"\d\. \*\*Section \"(.+?)\"\.\*\*", item, re.DOTALL):
            section = _plain(" ".join(found[1].split()))
            said[section] = item.partition("\n\n")[0]
    return said


def reveal() -> dict[str, str]:
    """Return the text of reveal.js's files, by name.

    Raises ImportError where sphinx-revealjs, which carries them, is missing.
    """
    found = importlib.util.find_spec("sphinx_revealjs")
    if found is None or found.origin is None:
        raise ImportError(NO_SLIDES.format("sphinx-revealjs"))
    folder = Path(found.origin).parent / "_static" / "revealjs"
    names = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js")
    files = {name: folder / name for name in (*names, "plugin/notes/notes.js")}
    return {Path(n).name: file.read_text("utf-8") for n, file in files.items()}


def render(path: Path, root: Path = ROOT) -> str:
    """Return a lesson's slides as one page of HTML."""
    from jinja2 import Environment, FileSystemLoader
    from pygments.formatters import HtmlFormatter

    about = read(path).metadata["qwen_course"]
    loader = FileSystemLoader(Path(__file__).parent / "data")
    environment = Environment(autoescape=True, loader=loader, trim_blocks=True)
    deck, said = slides(path), guide(path, root)
    for slide in deck:
        if not slide.continued and slide.title in said:
            slide.notes.insert(0, said[slide.title])
    return environment.get_template("slides.html.jinja").render(
        number=path.stem[:2],
        about=about,
        columns=deck.columns,
        notes=markdown().render(said.get("", "")),
        markdown=markdown().render,
        files=reveal(),
        colours=HtmlFormatter().get_style_defs(".code"),
    )


def find(names: Iterable[str], root: Path = ROOT) -> list[Path]:
    """Return the lessons that are named, such as "03" or "03_thinking_mode"; or all.

    Raises ValueError for a name that is no lesson, and where there are no lessons.
    """
    there = {path.stem: path for path in lessons(root)}
    if not there:
        raise ValueError(
            "There is no lesson in notebooks/. Slides are made of the lessons: go to a "
            "clone of the course."
        )
    found = []
    for name in names:
        plain = Path(name).stem
        matching = [path for stem, path in there.items() if plain in (stem, stem[:2])]
        if not matching:
            near = suggest(plain, there)
            raise ValueError(
                f'"{name}" is no lesson. There are {", ".join(there)}.{near}'
            )
        found += matching
    return found or list(there.values())


def write(names: Iterable[str], out: Path, root: Path = ROOT) -> list[Path]:
    """Write the slides of the named lessons, or of all, into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in find(names, root):
        file = out / f"{path.stem}.html"
        try:
            page = render(path, root)
        except LessonError as error:  # a notebook that was spoilt
            raise ValueError(str(error)) from error
        file.write_text(page, encoding="utf-8", newline="\n")
        written.append(file)
    return written
