"""What a cell of a lesson is on a slide: pieces of HTML, and how high they will be.

The heights are guesses, in pixels of a slide of 1280 by 720. They decide what shares a
slide; what is too full all the same, the page itself sets in smaller type.
"""

import base64
import functools
import html
import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

WORDS = 40  # of one text
CODE_LINES = 13
OUTPUT_LINES, ALONE = 11, 20  # of an output beside its code, and on its own slide
ROWS = 7  # of a table; of an output's with a slide of its own, `ALONE` / 2
DRAWING = 5  # a figure's code is shown if it has no more lines than this
FIGURE = 340  # the least height of a figure
UNSAID = re.compile(
    r"^(%matplotlib|import matplotlib|plt\.rcParams).*\n?", re.MULTILINE
)

# Pixels of a slide of 1280 by 720, and what of it is there for its blocks.
WIDTH, ROOM = 1160, 560
PROSE, CODE, OUTPUT, TABLE = 40, 27, 25, 36  # the height of a line
COLUMNS = {"prose": 84, "code": 92, "output": 98}  # letters in a line

NO_SLIDES = (
    "slides need {}, not installed here. Type: "
    'python -m pip install "qwen-course[site]"'
)


@dataclass
class Block:
    """A piece of a slide: its HTML, and how many pixels high it will be, about.

    A figure takes what is free in the end: its `html` has places for two numbers.
    """

    html: str
    height: float
    size: tuple[int, int] | None = None  # of a figure, in its own pixels

    def grow(self, room: float) -> None:
        """Write the size of a figure into its HTML, so that it fits into `room`."""
        if self.size:
            width, height = self.size
            scale = min(WIDTH / width, (room - 16) / height, 2.4)
            self.html = self.html.format(width * scale, height * scale)


# Text


@functools.cache
def markdown() -> Any:
    """Return the parser; a link to another file of the course becomes plain text."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise ImportError(NO_SLIDES.format("markdown-it-py")) from error
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")

    def without_files(state: Any) -> None:
        for token in state.tokens:
            if token.type == "inline":
                token.children = list(_without_files(token.children))

    parser.core.ruler.push("without_files", without_files)
    return parser


def _without_files(tokens: Iterable[Any]) -> Iterator[Any]:
    """Leave out pictures from the network and links that lead into the course."""
    dropped = False
    for token in tokens:
        if token.type == "link_open":
            dropped = not str(token.attrs["href"]).startswith("http")
        if token.type == "image" or (token.type.startswith("link_") and dropped):
            continue
        yield token


def first_sentences(text: str, words: int) -> str:
    """Return the first sentences of a paragraph, the first one in any case.

    >>> first_sentences("One two. Three four five. Six.", 5)
    'One two. Three four five.'
    """
    kept = ""
    for end in re.finditer(r"[.!?][)*\"]*(?=\s|$)", text):
        upto = text[: end.end()]
        if upto.count("**") % 2 or upto.count("`") % 2:
            continue  # inside of something
        if upto.count("(") > upto.count(")"):
            continue
        if kept and len(upto.split()) > words:
            break
        kept = upto
    return kept if kept and len(text.split()) > words else text


def text_blocks(source: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, the text's own lines) of each block, such as ("paragraph", "Hi")."""
    lines = source.splitlines()
    for token in markdown().parse(source):
        if token.level or token.map is None or token.nesting < 0:
            continue
        yield token.type.removesuffix("_open"), "\n".join(lines[slice(*token.map)])


def shortened(kind: str, part: str, words: int) -> list[str]:
    """Return what of a block is shown: one text, or several for as many slides.

    A long table goes on with its heading on the next slide.
    """
    if kind == "paragraph":
        return [first_sentences(part, words)]
    if kind == "table":
        head, rows = part.splitlines()[:2], part.splitlines()[2:]
        pages = range(0, len(rows), ROWS)
        return ["\n".join([*head, *rows[n : n + ROWS]]) for n in pages]
    return [part]


def text_block(kind: str, part: str) -> Block:
    """Render Markdown, and guess its height."""
    lines, columns = part.splitlines(), COLUMNS["prose"]
    if kind == "table":
        # The longest cell of a row decides; columns share the width.
        cells = [line.strip("| ").split("|") for line in lines]
        share = 1.2 * columns / max(map(len, cells))
        wraps = sum(max(math.ceil(len(c) / share) for c in row) for row in cells)
        height = 0.8 * TABLE * wraps
    elif kind in ("code_block", "fence"):
        height = CODE * len(lines) + 20.0
    else:
        texts = lines if kind.endswith("list") else [part]
        height = PROSE * sum(math.ceil(len(text) / columns) for text in texts) + 0.0
    return Block(f'<div class="text">{markdown().render(part)}</div>', height + 16)


def text_parts(source: str) -> Iterator[tuple[str, list[Block], list[str]]]:
    """Yield (heading, blocks, what only the notes have) of a cell, part by part.

    The heading keeps its signs, as in "## 1. One"; "" stands for none.
    """
    heading, blocks, notes, words = "", list[Block](), list[str](), WORDS
    for kind, part in text_blocks(source):
        if kind == "heading":
            yield heading, blocks, notes
            heading, blocks, notes, words = part, [], [], WORDS
            continue
        shown = shortened(kind, part, words) if words > 0 else []
        if shown != [part] and kind == "paragraph":
            notes.append(part)
        words -= len(" ".join(shown).split()) if kind == "paragraph" else 0
        blocks += [text_block(kind, page) for page in shown]
    yield heading, blocks, notes


# Code and outputs


def cut(text: str, most: int, columns: int) -> tuple[str, int]:
    """Return the first lines of a text, as many as fit, and how many are left out.

    >>> cut("a\\nb\\nc\\nd\\ne", 2, 80)
    ('a\\nb', 3)
    """
    lines = text.strip("\n").splitlines()
    heights = [max(1, math.ceil(len(line) / columns)) for line in lines]
    if sum(heights) <= most + 2:  # to say that two are left out takes a line as well
        return "\n".join(lines), 0
    taken = sum(1 for upto in accumulate(heights) if upto <= most) or 1
    return "\n".join(lines[:taken])[: most * columns], len(lines) - taken


def _left_out(lines: int, what: str) -> str:
    if lines <= 0:
        return ""
    several = "s" * (lines != 1)
    return f'<p class="more">{lines} more {what}{several} in the lesson</p>'


@functools.cache
def coloured(source: str) -> str:
    """Return Python code as HTML whose classes name the colours."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))


def code_block(source: str) -> Block:
    """Colour the first lines of a code cell."""
    shown, left = cut(source, CODE_LINES, COLUMNS["code"])
    height = CODE * (shown.count("\n") + 1) + 34 + 26 * bool(left)
    code = f'<pre class="code">{coloured(shown)}</pre>{_left_out(left, "line")}'
    return Block(code, height)


def output_block(text: str, kind: str = "stdout", most: int = OUTPUT_LINES) -> Block:
    """Show the first lines of what a cell printed."""
    columns = COLUMNS["output"]
    shown, left = cut(text, most, columns)
    lines = sum(max(1, math.ceil(len(i) / columns)) for i in shown.splitlines())
    body = f'<pre class="output {kind}">{html.escape(shown)}</pre>'
    return Block(body + _left_out(left, "line"), OUTPUT * lines + 28 + 26 * bool(left))


def html_block(page: str, text: str, most: int = ROWS) -> Block:
    """Show the HTML of an output; of a long table the first rows.

    `text` is the same output as plain text: it tells how high the HTML will be.
    """
    rows = list(re.finditer(r"<tr>.*?</tr>", page, re.DOTALL))
    left = max(0, len(rows) - 1 - most)
    left = 0 if left == 1 else left  # saying so takes a row as well
    if left:
        page = page[: rows[-left].start()] + page[rows[-1].end() :]
    lines = text.splitlines()
    if rows:
        wraps = math.ceil(max(map(len, lines[: 1 + most]), default=1) / 110)
        height = TABLE * wraps * (len(rows) - left) + 36
    else:
        height = TABLE * max(2, sum(math.ceil(len(line) / 70) for line in lines))
    body = f'<div class="html">{page}</div>{_left_out(left, "row")}'
    return Block(body, min(height + 16 + 26 * bool(left), ROOM))


def figure_block(mime: str, data: str, alt: str) -> Block:
    """Show a stored picture; `Deck.finish` says how large."""
    encoded = "".join(data.split())
    told = html.escape(alt).replace("{", "{{").replace("}", "}}")
    body = (
        f'<img class="figure" alt="{told}" width="{{:.0f}}" height="{{:.0f}}" '
        f'src="data:{mime};base64,{encoded}">'
    )
    size = _size(base64.b64decode(encoded)) or (1000, 450)
    return Block(body, FIGURE, size)


def _size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG, from its header."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def pictures(cell: Any) -> list[tuple[str, str, str]]:
    """Return (type, base64, alternative text) of the stored pictures of a cell."""
    found = []
    for output in cell.get("outputs", []):
        for mime in ("image/png", "image/jpeg"):
            if data := output.get("data", {}).get(mime):
                told = output.get("metadata", {}).get(mime, {}).get("alt", "")
                found.append((mime, data, told or cell.metadata.get("alt", "figure")))
                break
    return found


def output_blocks(cell: Any, alone: bool = False) -> list[Block]:
    """Return the outputs of a cell that are no pictures; more of them if `alone`."""
    lines, rows = (ALONE, ALONE // 2) if alone else (OUTPUT_LINES, ROWS)
    blocks = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output.output_type == "stream":
            blocks.append(output_block(output.text, output.name, lines))
        elif output.output_type == "error":
            said = f"{output.ename}: {output.evalue}"
            blocks.append(output_block(said, "stderr", lines))
        elif any(mime.startswith("image/") for mime in data):
            continue
        elif page := data.get("text/html"):
            blocks.append(html_block(page, data.get("text/plain", ""), rows))
        elif text := data.get("text/plain"):
            blocks.append(output_block(text, most=lines))
    return blocks


def figure_blocks(cell: Any) -> list[Block]:
    """Return the stored pictures of a cell."""
    return [figure_block(*picture) for picture in pictures(cell)]


def source_blocks(cell: Any) -> list[Block]:
    """Return the code of a cell; none where all it does is draw, or set drawing up."""
    source = UNSAID.sub("", cell.source).strip()
    draws = pictures(cell) and source.count("\n") >= DRAWING
    return [] if draws or not source else [code_block(source)]


def height(blocks: Iterable[Block]) -> float:
    """Return how many pixels some blocks need together."""
    return sum(block.height for block in blocks)


def height_of(cell: Any) -> float:
    """Return how many pixels a code cell needs with its outputs."""
    return height(source_blocks(cell) + output_blocks(cell) + figure_blocks(cell))
