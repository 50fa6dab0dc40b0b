"""Questions about a chart, each with the answer that the model is to write."""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen_course import media
from qwen_course.errors import suggest
from qwen_course.tasks.charts.chart import (
    QUARTERS,
    Chart,
    best_quarter,
    draw_chart,
    trend,
)
from qwen_course.tasks.charts.drawing import Style, draw, draw_style
from qwen_course.tasks.problem import Problem, distinct, split_of

if TYPE_CHECKING:
    from PIL.Image import Image

SKILL = "charts"


class Asked(NamedTuple):
    """What fills the gaps of a wording, the answer, and what is graded."""

    gaps: dict[str, str]
    answer: str
    expected: str


# The first wordings are trained; the last of each is only asked in tests.
WORDINGS = {
    "read": (
        "Read the chart.", "Read all values of the chart.", "List the values.",
        "What are the values in this chart?", "What does the chart say?",
        "Read every value you see.",
    ),
    "value": (
        "What is the value of {label}?", "How much is {label}?",
        "Read the value of {label}.", "What value does {label} have?", "{label}?",
        "Tell me the value of {label}.",
    ),
    "some values": (
        "What are the values of {labels}?", "Read {labels}.",
        "How much are {labels}?",
        "Tell me the values of {labels}.",
    ),
    "highest": (
        "What is the highest value?", "Which one is the highest?",
        "Where is the maximum?", "Find the highest point.", "Where is the peak?",
        "Find the maximum.",
    ),
    "lowest": (
        "What is the lowest value?", "Which one is the lowest?",
        "Where is the minimum?", "Find the lowest point.", "Where is the low?",
        "Find the minimum.",
    ),
    "trend": (
        "What is the trend?", "What trends do you see in this chart?",
        "Is the trend rising or falling?", "Describe the trend.",
        "How do the values develop?",
        "Which trend do you see?",
    ),
    "season": (
        "Which quarter is the strongest?", "What is the seasonal pattern?",
        "Is there a season?", "Which quarter is the best in both years?",
        "Describe the seasonal pattern.",
    ),
    "compare": (
        "Which is {more}, {one} or {other}?",
        "Compare {one} and {other}: which is {more}?",
        "{one} or {other}: which is {more}?",
        "Is {one} or {other} {more}?",
    ),
    "colour": (
        "What colour {is} {label}?", "Which colour {does} {label} have?",
        "What is the colour of {label}?",
        "Tell me the colour of {label}.",
    ),
    "colours": (
        "Which colours do the bars have?", "List the colours of the bars.",
        "Name the colours from left to right.",
        "Which colours do you see?",
    ),
    "by colour": (
        "Which one is {colour}?", "What is the label of the {colour} bar?",
        "Which bar is {colour}?",
        "Find the {colour} bar.",
    ),
    "title": (
        "What is the title?", "Read the title.", "What is the chart about?",
        "Tell me the title.",
    ),
    "count": (
        "How many values are there?", "How many points does the chart have?",
        "Count the values.",
        "How many points are there?",
    ),
    "form": (
        "Is this a bar chart or a line chart?", "What kind of chart is this?",
        "Is it a line chart or a bar chart?",
        "Which kind of chart is this?",
    ),
}  # fmt: skip
KINDS = tuple(WORDINGS)
# How often training asks each, beside "read".
WEIGHTS = {
    "value": 3.0, "some values": 8.0, "highest": 2.0, "lowest": 2.0, "trend": 1.5,
    "season": 3.0, "compare": 2.0, "colour": 2.5, "colours": 3.0, "by colour": 2.0,
    "title": 2.0, "count": 0.7, "form": 0.3,
}  # fmt: skip


def _all_values(chart: Chart, rng: random.Random) -> Asked:
    pairs = zip(chart.labels, chart.values, strict=True)
    text = ", ".join(f"{label} {value}" for label, value in pairs)
    return Asked({}, text, text)


def _one_value(chart: Chart, rng: random.Random) -> Asked | None:
    if chart.repeats:
        return None
    n = rng.randrange(len(chart.labels))
    label, value = chart.labels[n], str(chart.values[n])
    # The label first: to find what belongs to it is easier than to find both at once.
    return Asked({"label": label}, f"{label} {value}", value)


def _some_values(chart: Chart, rng: random.Random) -> Asked | None:
    """Ask for two or more values, in any order."""
    if chart.repeats:
        return None
    count = len(chart.labels)
    places = rng.sample(range(count), rng.randint(2, count))
    *first, last = (chart.labels[n] for n in places)
    text = ", ".join(f"{chart.labels[n]} {chart.values[n]}" for n in places)
    return Asked({"labels": f"{', '.join(first)} and {last}"}, text, text)


def _extreme(chart: Chart, sign: int) -> Asked | None:
    """Return the highest point (or the lowest, `sign` -1), unless it is too close."""
    first, second = sorted((sign * value for value in chart.values), reverse=True)[:2]
    if first - second < chart.gap:
        return None
    n = chart.values.index(sign * first)
    answer = f"{chart.labels[n]} with {chart.values[n]}"
    return Asked({}, answer, answer)


def _highest(chart: Chart, rng: random.Random) -> Asked | None:
    return _extreme(chart, 1)


def _lowest(chart: Chart, rng: random.Random) -> Asked | None:
    return _extreme(chart, -1)


def _trend(chart: Chart, rng: random.Random) -> Asked | None:
    found = trend(chart.values)
    if found is None:
        return None
    if found == "no clear trend":
        return Asked({}, "There is no clear trend.", found)
    return Asked({}, f"The trend is {found}.", found)


def _season(chart: Chart, rng: random.Random) -> Asked | None:
    if chart.labels != QUARTERS * 2:
        return None
    best = best_quarter(chart.values)
    if best is None:
        return None
    quarter = QUARTERS[best]
    return Asked({}, f"{quarter} is the highest in both years.", quarter)


def _compare(chart: Chart, rng: random.Random) -> Asked | None:
    if chart.repeats:
        return None
    one, other = rng.sample(range(len(chart.values)), 2)
    difference = chart.values[one] - chart.values[other]
    if abs(difference) < chart.gap:
        return None
    more = rng.choice(("higher", "lower"))
    chosen = one if (difference > 0) == (more == "higher") else other
    read = ", ".join(f"{chart.labels[n]} {chart.values[n]}" for n in (one, other))
    gaps = {"more": more, "one": chart.labels[one], "other": chart.labels[other]}
    winner = f"{chart.labels[chosen]} is {more}"
    return Asked(gaps, f"{read}: {winner}.", winner)


def _colour(chart: Chart, rng: random.Random) -> Asked | None:
    one = {"is": "is", "does": "does"}
    several = {"is": "are", "does": "do"}
    if len(chart.colours) == 1:
        line = chart.kind == "line"
        gaps = {"label": "the line"} | one if line else {"label": "the bars"} | several
        what = f"The {'line is' if line else 'bars are'}"
        return Asked(gaps, f"{what} {chart.colours[0]}.", chart.colours[0])
    if chart.repeats:
        return None
    n = rng.randrange(len(chart.labels))
    gaps = {"label": chart.labels[n]} | one
    return Asked(gaps, f"{chart.labels[n]} is {chart.colours[n]}.", chart.colours[n])


def _colours(chart: Chart, rng: random.Random) -> Asked | None:
    if len(chart.colours) == 1:
        return None
    text = ", ".join(chart.colours)
    return Asked({}, text, text)


def _by_colour(chart: Chart, rng: random.Random) -> Asked | None:
    if len(chart.colours) == 1:
        return None
    n = rng.randrange(len(chart.labels))
    colour, label = chart.colours[n], chart.labels[n]
    return Asked({"colour": colour}, f"The {colour} bar is {label}.", label)


def _title(chart: Chart, rng: random.Random) -> Asked | None:
    return Asked({}, chart.title, chart.title) if chart.title else None


def _count(chart: Chart, rng: random.Random) -> Asked:
    count = str(len(chart.values))
    return Asked({}, count, count)


def _form(chart: Chart, rng: random.Random) -> Asked:
    return Asked({}, f"A {chart.kind} chart.", f"{chart.kind} chart")


ASK: dict[str, Callable[[Chart, random.Random], Asked | None]] = {
    "read": _all_values,
    "value": _one_value,
    "some values": _some_values,
    "highest": _highest,
    "lowest": _lowest,
    "trend": _trend,
    "season": _season,
    "compare": _compare,
    "colour": _colour,
    "colours": _colours,
    "by colour": _by_colour,
    "title": _title,
    "count": _count,
    "form": _form,
}


@dataclass(frozen=True)
class ChartProblem(Problem):
    """A question about a chart; the prompt holds the drawn chart and the question.

    Values are graded to the digit: those that are not printed are multiples of 5, and a
    step of the axis is five pixels or more.
    """

    chart: Chart | None = None
    style: Style | None = None

    @property
    def image(self) -> "Image":
        """The chart as a picture, drawn anew each time."""
        assert self.chart is not None
        return draw(self.chart, self.style)

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The messages to send: one user turn, the picture and then the question."""
        return [media.question("image", self.image, self.question)]

    def grade(self, answer: str) -> bool:
        """Return whether every label and number that was asked for is right, in order.

        >>> problem = problems(1, kind="compare")[0]
        >>> problem.grade(problem.answer)
        True
        """
        if self.kind in ("read", "some values", "highest", "lowest"):
            return _facts(answer) == _facts(self.expected)
        return super().grade(answer)


def _facts(answer: str) -> list[str]:
    """Return the labels and numbers of an answer, without the words around them.

    >>> _facts("May with 35.")
    ['may', '35']
    """
    filler = {"with", "is", "the", "highest", "lowest", "value", "at", "and"}
    words = re.findall(r"\w+", answer.casefold())
    return [word for word in words if word not in filler]


def ask(
    rng: random.Random, chart: Chart, style: Style, kind: str, new_wording: bool = False
) -> ChartProblem | None:
    """Ask a question of `kind`; None where this chart has no clear answer to it."""
    asked = ASK[kind](chart, rng)
    if asked is None:
        return None
    *trained, new = WORDINGS[kind]
    wording = new if new_wording else rng.choice(trained)
    return ChartProblem(
        skill=SKILL,
        kind=kind,
        content=chart.content,
        question=wording.format(**asked.gaps),
        thinking="",
        answer=asked.answer,
        expected=asked.expected,
        chart=chart,
        style=style,
    )


def make(
    rng: random.Random,
    kind: str | None = None,
    looks: str = "trained",
    new_wording: bool = False,
    size: tuple[int, int] | None = None,
) -> ChartProblem:
    """Make one question of `kind` (drawn by weight when None) about a new chart.

    `looks` is "trained", "unseen" or "new", see `draw_style`; `size` is that of the
    picture, in pixels.
    """
    chosen = kind or rng.choices(KINDS, [3.0, *WEIGHTS.values()])[0]
    while True:
        chart = draw_chart(rng, two_years=True if chosen == "season" else None)
        style = draw_style(rng, size, looks)
        problem = ask(rng, chart, style, chosen, new_wording)
        if problem is not None:
            return problem


def questions(
    rng: random.Random,
    count: int,
    size: tuple[int, int] | None = None,
    split: str = "train",
    most: int = 8,
    style: Style | None = None,
    often: Mapping[str, float] | None = None,
) -> list[ChartProblem]:
    """Return "read" and `count` other questions about one chart of `split`.

    There are fewer when the chart answers fewer. The chart has at most `most` points
    and, unless `style` is given, any look of the training. `often` changes how often a
    kind is asked, by its name.
    """
    chart = draw_chart(rng, most=most)
    while split_of(chart.content) != split:
        chart = draw_chart(rng, most=most)
    style = style or draw_style(rng, size)
    first = ask(rng, chart, style, "read")
    assert first is not None
    asked = [first]
    weights = {**WEIGHTS, **(often or {})}
    while weights and len(asked) <= count:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        problem = ask(rng, chart, style, kind)
        if problem:
            asked.append(problem)
        if problem is None or kind not in ("value", "compare"):
            del weights[kind]  # a second value is another question; a title is not
    return asked


def problems(
    n: int,
    seed: int = 0,
    split: str = "test",
    kind: str | None = None,
    looks: str = "trained",
    new_wording: bool = False,
) -> list[Problem]:
    """Return `n` questions, each about another chart.

    `kind` is one of `KINDS` (mixed when None). `looks` "trained" has styles that
    training shows, "unseen" new combinations of theme, font and grid, "new" a theme and
    a font that it never shows. `new_wording` asks in words that training never uses.
    Raises ValueError for an unknown kind, split or looks.

    >>> problems(1, seed=0, kind="trend")[0].kind
    'trend'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(
            f'kind "{kind}" is not one of {", ".join(KINDS)}.{suggest(kind, KINDS)}'
        )
    return distinct(lambda rng: make(rng, kind, looks, new_wording), n, seed, split)
