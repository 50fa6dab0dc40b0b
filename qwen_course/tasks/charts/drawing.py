"""Charts as small pictures, drawn with PIL alone: about two milliseconds each."""

import functools
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen_course.tasks.charts.chart import LARGEST, Chart
from qwen_course.tasks.problem import split_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]
# An image token of the model is 28 x 28 pixels, two by two patches of 14. What is drawn
# keeps to columns as wide and to lines as high as a patch, so that no text is cut.
CELL, LINE = 28, 14
SIZES = ((252, 168), (252, 196))  # width and height: nine columns, whole cells
GRIDS = ("none", "lines", "dots")
FONTS = {
    "default": "",  # comes with Pillow
    "sans": "DejaVuSans.ttf",  # the others come with matplotlib
    "bold": "DejaVuSans-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "mono": "DejaVuSansMono.ttf",
}


@dataclass(frozen=True)
class Theme:
    """Background, ink, grid, and one shade for each colour name."""

    background: Colour
    ink: Colour
    grid: Colour
    shades: dict[str, Colour] = field(hash=False)


def _shades(*values: int) -> dict[str, Colour]:
    names = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
    rgb = [(value >> 16, value >> 8 & 255, value & 255) for value in values]
    return dict(zip(names, rgb, strict=True))


THEMES = {
    "paper": Theme(
        (255, 255, 255), (20, 20, 20), (210, 210, 210),
        _shades(0xD62728, 0xFF7F0E, 0xE8C81E, 0x2CA02C, 0x1F77B4, 0x7E4FB8, 0xF781BF,
                0x8C564B),
    ),
    "grey": Theme(
        (232, 232, 232), (50, 50, 50), (255, 255, 255),
        _shades(0xE24A33, 0xF28E2B, 0xEDC948, 0x59A14F, 0x348ABD, 0x8064A2, 0xFF9DA7,
                0x7B5A3A),
    ),
    "night": Theme(
        (28, 30, 42), (230, 230, 230), (75, 78, 95),
        _shades(0xFF5555, 0xFFA040, 0xF1E05A, 0x50E070, 0x58A6FF, 0xA074F0, 0xFF8AD8,
                0xA9744F),
    ),
    "sand": Theme(
        (250, 243, 224), (70, 50, 30), (222, 208, 176),
        _shades(0xB3202A, 0xE07B18, 0xE0B818, 0x4C8C2B, 0x2A5CAA, 0x6A3D9A, 0xEE7FA8,
                0x80502A),
    ),
    "sky": Theme(
        (232, 242, 252), (20, 40, 80), (190, 210, 230),
        _shades(0xE6194B, 0xF58231, 0xFFD92F, 0x3CB44B, 0x4363D8, 0x911EB4, 0xF49AC2,
                0x9A6324),
    ),
    "mint": Theme(
        (226, 244, 232), (10, 60, 50), (180, 215, 195),
        _shades(0xC8102E, 0xF36B1C, 0xF0D03C, 0x157F3B, 0x0072B2, 0x7B3FA0, 0xFF77AA,
                0x7A4A20),
    ),
}  # fmt: skip
NEW_THEME, NEW_FONT = "mint", "mono"  # no picture of the training has them
TRAINED_THEMES = tuple(name for name in THEMES if name != NEW_THEME)
TRAINED_FONTS = tuple(name for name in FONTS if name != NEW_FONT)


@dataclass(frozen=True)
class Style:
    """How a chart looks. `size` is in pixels, `bar_width` a share of the free width."""

    theme: str = "paper"
    font: str = "default"
    grid: str = "lines"
    size: tuple[int, int] = SIZES[0]
    font_size: int = 10
    bar_width: float = 0.7
    ticks: int = 20  # from one number of the axis to the next
    jitter: int = 0  # seed of small changes in colours and places; 0 for none

    @property
    def combination(self) -> tuple[str, str, str]:
        """What makes a style a new one: theme, font and grid together."""
        return self.theme, self.font, self.grid


LOOKS = ("trained", "unseen", "new")


def draw_style(
    rng: random.Random, size: tuple[int, int] | None = None, looks: str = "trained"
) -> Style:
    """Draw a style.

    "trained" ones are those that training may show. "unseen" are combinations of theme,
    font and grid that training never shows together; "new" have a theme and a font that
    it never shows at all. Raises ValueError for any other name.
    """
    if looks not in LOOKS:
        raise ValueError(f'looks "{looks}" is not one of {", ".join(LOOKS)}.')
    new = looks == "new"
    while True:
        style = Style(
            theme=NEW_THEME if new else rng.choice(TRAINED_THEMES),
            font=NEW_FONT if new else rng.choice(TRAINED_FONTS),
            grid=rng.choice(GRIDS),
            size=size or rng.choice(SIZES),
            font_size=rng.choice((9, 10, 11)),
            bar_width=rng.uniform(0.45, 0.9),
            ticks=rng.choice((20, 25, 50)),
            jitter=rng.randrange(1, 1_000_000),
        )
        held_out = split_of(("style", *style.combination)) == "test"
        if new or held_out == (looks == "unseen"):
            return style


@functools.lru_cache(maxsize=64)
def font(name: str, size: int) -> Any:
    """Return a font that is there wherever Pillow and matplotlib are."""
    from PIL import ImageFont

    if not FONTS[name]:
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(_font_folder() / FONTS[name]), size)


@functools.lru_cache(maxsize=1)
def _font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def fitting_font(name: str, size: int, texts: tuple[str, ...], width: float) -> Any:
    """Return the largest font, up to `size`, in which every text is `width` wide."""
    while size > 7 and max(_widths(name, size, texts)) > width:
        size -= 1
    return font(name, size)


@functools.lru_cache(maxsize=4096)
def _widths(name: str, size: int, texts: tuple[str, ...]) -> list[float]:
    return [font(name, size).getlength(text) for text in texts]


def shade(colour: Colour, rng: random.Random | None, spread: int = 14) -> Colour:
    """Return the colour, changed by a little when there is a generator."""
    if rng is None:
        return colour
    red, green, blue = (
        min(255, max(0, part + rng.randint(-spread, spread))) for part in colour
    )
    return red, green, blue


class Text(NamedTuple):
    """A text of the picture: its anchor in pixels, as PIL names it, and its font."""

    text: str
    place: tuple[float, float]
    anchor: str
    font: Any

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Where it stands: left, top, right, bottom, in pixels."""
        left, top, right, bottom = self.font.getbbox(self.text, anchor=self.anchor)
        x, y = self.place
        return x + left, y + top, x + right, y + bottom


@dataclass(frozen=True)
class _Frame:
    """Where the chart stands in the picture, in pixels."""

    left: int
    top: int
    right: int
    bottom: int
    first: int  # column of the first point
    step: int  # columns from one point to the next
    down: int  # pixels that all is moved down by

    def x(self, place: int) -> int:
        """Return the middle of a point's column."""
        return self.left + CELL * (self.first + self.step * place) + CELL // 2

    def y(self, value: float) -> float:
        """Return the height of a value."""
        return self.bottom - (self.bottom - self.top) * value / LARGEST


def _frame(chart: Chart, style: Style) -> _Frame:
    """Return the frame: below a line for the title, above the row of the labels.

    The axis stands in the first column. Jitter moves all by up to two pixels.
    """
    width, height = style.size
    rng = random.Random(style.jitter)
    right = rng.randint(-2, 2) if style.jitter else 0
    down = rng.randint(-2, 1) if style.jitter else 0
    columns, gaps = width // CELL - 1, len(chart.values) - 1
    if columns <= gaps:
        raise ValueError(
            f"{gaps + 1} points and the axis need a column of {CELL} pixels each; give "
            f"a width of {CELL * (gaps + 2)} or more, not {width}."
        )
    step = min(3, (columns - 1) // gaps)
    first = (columns - step * gaps - 1) // 2
    left = CELL + right
    end = width - 3 + min(0, right)
    return _Frame(left, 32 + down, end, height - 20 + down, first, step, down)


def draw(chart: Chart, style: Style | None = None) -> "Image":
    """Return the chart as a PIL image of `style.size` pixels.

    >>> draw(Chart("bar", ("Jan", "Feb"), (20, 80))).size
    (252, 168)
    """
    from PIL import Image, ImageDraw

    style = style or Style()
    theme = THEMES[style.theme]
    rng = random.Random(style.jitter) if style.jitter else None
    image = Image.new("RGB", style.size, shade(theme.background, rng, 5))
    pen = ImageDraw.Draw(image)
    frame = _frame(chart, style)
    _draw_axis(pen, frame, style)
    colours = [shade(theme.shades[name], rng) for name in chart.colours]
    if chart.kind == "bar":
        _draw_bars(pen, frame, chart, style, colours)
    else:
        _draw_line(pen, chart, style, colours[0])
    for text in printed(chart, style):
        left, top, right, bottom = text.box
        pen.rectangle((left - 1, top - 1, right, bottom), fill=image.getpixel((0, 0)))
    for text in texts(chart, style):
        pen.text(text.place, text.text, theme.ink, text.font, text.anchor)
    return image


def _draw_axis(pen: "ImageDraw", frame: _Frame, style: Style) -> None:
    theme = THEMES[style.theme]
    letters = font(style.font, 8)
    for value in range(0, LARGEST + 1, style.ticks):
        y = round(frame.y(value))
        if style.grid == "lines":
            pen.line((frame.left, y, frame.right, y), fill=theme.grid)
        elif style.grid == "dots":
            places = range(frame.left, frame.right, 4)
            pen.point([(x, y) for x in places], fill=theme.ink)
        pen.line((frame.left - 3, y, frame.left, y), fill=theme.ink)
        pen.text((frame.left - 4, y), str(value), theme.ink, letters, anchor="rm")
    pen.line((frame.left, frame.top, frame.left, frame.bottom), fill=theme.ink)
    pen.line((frame.left, frame.bottom, frame.right, frame.bottom), fill=theme.ink)


def _draw_bars(pen: "ImageDraw", frame: _Frame, chart, style, colours) -> None:
    half = CELL * style.bar_width / 2
    for n, (x, y) in enumerate(points(chart, style)):
        corners = (round(x - half), round(y), round(x + half), frame.bottom)
        pen.rectangle(corners, fill=colours[n % len(colours)])


def _draw_line(pen: "ImageDraw", chart, style, colour) -> None:
    thick, corners = style.bar_width > 0.6, points(chart, style)
    pen.line(corners, fill=colour, width=2 if thick else 1)
    size = 3 if thick else 2
    for x, y in corners:
        pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)


def points(chart: Chart, style: Style) -> list[tuple[float, float]]:
    """Return where each bar ends, or each point of the line stands, in pixels."""
    frame = _frame(chart, style)
    return [(frame.x(n), frame.y(value)) for n, value in enumerate(chart.values)]


def labels(chart: Chart, style: Style) -> list[Text]:
    """Return the label under each point."""
    frame = _frame(chart, style)
    letters = fitting_font(style.font, style.font_size, chart.labels, CELL - 2)
    foot = style.size[1] - 4 + frame.down
    return [
        Text(label, (frame.x(n), foot), "ms", letters)
        for n, label in enumerate(chart.labels)
    ]


def title(chart: Chart, style: Style) -> list[Text]:
    """Return the title, above the axis; no text for a chart that has none."""
    frame = _frame(chart, style)
    letters = font(style.font, style.font_size + 2)
    place = (frame.left, 2 + frame.down)
    return [Text(chart.title, place, "lt", letters)] if chart.title else []


def printed(chart: Chart, style: Style) -> list[Text]:
    """Return the printed values: each on the first line above its point."""
    if not chart.printed:
        return []
    down, letters = _frame(chart, style).down, font(style.font, style.font_size)
    return [
        Text(str(value), (x, (y - down) // LINE * LINE - 3 + down), "ms", letters)
        for (x, y), value in zip(points(chart, style), chart.values, strict=True)
    ]


def texts(chart: Chart, style: Style) -> list[Text]:
    """Return every text of the chart but the numbers of its axis."""
    return [*labels(chart, style), *printed(chart, style), *title(chart, style)]
