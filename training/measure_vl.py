"""What pocket-vl reads in pictures it never saw, and what it gets without looking.

Called by `python -m training.card pocket-vl`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import qwen_course as qc
from qwen_course import media
from qwen_course.evaluation import evaluate
from qwen_course.tasks import charts, printed_words
from qwen_course.tasks.problem import Problem
from training.figures import Counts, Figures, percent
from training.pictures import MERGE, PATCH

HERE = Path(__file__).parent
SEED = 2026
BATCH = 64
LOOKS = {
    "trained": "styles of the training",
    "unseen": "new combinations of theme, font and grid",
    "new": "a theme and a font it never saw",
}
ASKED = ("read", "value", "highest", "lowest", "trend", "season", "compare")
WIDTHS = (84, 168, 224, 252, 280, 336)  # pixels, of charts drawn 252 wide and 168 high


@dataclass(frozen=True)
class Shown:
    """A problem whose picture is replaced, or left out when `image` is None."""

    problem: Problem
    image: Image.Image | None

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The question, with the other picture or as text alone."""
        text = self.problem.question
        if self.image is None:
            return [{"role": "user", "content": text}]
        return [media.question("image", self.image, text)]

    @classmethod
    def grade_all(cls, shown: Sequence["Shown"], answers: Sequence[str]) -> list[bool]:
        """Return which answers are right."""
        return [s.problem.grade(a) for s, a in zip(shown, answers, strict=True)]

    def __getattr__(self, name: str) -> Any:
        """Grade, kind and all the rest are those of the problem."""
        return getattr(self.problem, name)


def counts(model, processor, problems: Sequence) -> Counts:
    """Return how many of the problems are answered right, and how many there are."""
    score = evaluate(
        model, processor, problems, thinking=False, batch_size=BATCH,
        max_new_tokens=64, progress=False,
    ).score  # fmt: skip
    return [score.right, score.total]


def chart_problems(kind: str, n: int, looks: str = "trained") -> list[Problem]:
    """Return the `n` questions of a kind that the card is about."""
    return charts.problems(n, seed=SEED, kind=kind, looks=looks)


def word_problems(kind: str, n: int, looks: str = "trained") -> list[Problem]:
    """Return the `n` pictures of words that the card is about."""
    return printed_words.problems(n, seed=SEED, kind=kind, looks=looks)


def by_kind(model, processor, n: int, looks: str) -> dict[str, Counts]:
    """Measure every kind of question on pictures of these looks."""
    problems = {kind: chart_problems(kind, n, looks) for kind in charts.KINDS}
    problems |= {kind: word_problems(kind, n, looks) for kind in printed_words.KINDS}
    return {kind: counts(model, processor, asked) for kind, asked in problems.items()}


def new_wordings(model, processor, n: int) -> dict[str, Counts]:
    """Measure questions in words that no training question has."""
    return {
        kind: counts(
            model, processor,
            charts.problems(n, seed=SEED, kind=kind, new_wording=True),
        )
        for kind in ASKED
    }  # fmt: skip


def without_looking(model, processor, n: int) -> dict[str, Counts]:
    """Measure the same questions with a grey picture in the place of the chart."""
    grey = Image.new("RGB", charts.SIZES[0], (128, 128, 128))
    return {
        kind: counts(
            model, processor, [Shown(p, grey) for p in chart_problems(kind, n)]
        )
        for kind in ASKED
    }


def general(n: int) -> dict[str, Counts]:
    """Measure pocket-qwen3, which takes no picture: it gets the question alone."""
    model, tokenizer = qc.load("pocket-qwen3")
    return {
        kind: counts(
            model, tokenizer, [Shown(p, None) for p in chart_problems(kind, n)]
        )
        for kind in ASKED
    }


def by_image_tokens(model, processor, n: int) -> list[Figures]:
    """Measure "read" on the same charts, made smaller or larger.

    The processor may resize them no more: each size is passed on as it is.
    """
    problems = [p for p in chart_problems("read", 3 * n) if _full_size(p)][:n]
    settings = dict(processor.image_processor.size)
    rows = []
    try:
        for width in WIDTHS:
            size = width, round(width * 2 / 3 / 28) * 28
            pixels = size[0] * size[1]
            limits = {"shortest_edge": pixels, "longest_edge": pixels}
            processor.image_processor.size = limits
            shown = [Shown(p, p.image.resize(size, Image.BICUBIC)) for p in problems]
            tokens = pixels // (PATCH * MERGE) ** 2
            right = counts(model, processor, shown)
            rows.append({"pixels": list(size), "tokens": tokens, "right": right})
    finally:
        processor.image_processor.size = settings
    return rows


def _full_size(problem: Any) -> bool:
    return problem.style.size == charts.SIZES[0]


def measure(model, processor, n: int) -> Figures:
    """Return every figure of the card; `n` questions of each kind on trained styles."""
    some = max(20, n // 3)
    return {
        "vision_parameters": model.model.visual.num_parameters(),
        "looks": {
            looks: by_kind(model, processor, n if looks == "trained" else some, looks)
            for looks in LOOKS
        },
        "new_wordings": new_wordings(model, processor, some),
        "without_looking": without_looking(model, processor, some),
        "general": general(some),
        "image_tokens": by_image_tokens(model, processor, some),
    }


NAMES = {
    "read": "all values of a chart, in order",
    "value": "the value of one label",
    "some values": "the values of several labels, in any order",
    "highest": "highest: label and value",
    "lowest": "lowest: label and value",
    "trend": "trend",
    "season": "best quarter of two years",
    "compare": "which of two is higher or lower",
    "colour": "colour of a bar or line",
    "colours": "the colours of all bars, in order",
    "by colour": "which bar has a colour",
    "title": "title",
    "count": "how many points",
    "form": "bar or line chart",
    "word": "one printed word",
    "words": "two or three printed words, all right",
    "nth word": "one of several words",
}


def _looks_table(looks: dict[str, dict[str, Counts]]) -> str:
    head = " | ".join(f"{LOOKS[name]} ({_total(looks[name])} each)" for name in LOOKS)
    lines = [f"| question | {head} |", "|---" * (len(LOOKS) + 1) + "|"]
    for kind in looks["trained"]:
        cells = " | ".join(percent(looks[name][kind]) for name in LOOKS)
        lines.append(f"| {NAMES[kind]} | {cells} |")
    return "\n".join(lines)


def _total(kinds: dict[str, Counts]) -> int:
    return next(iter(kinds.values()))[1]


def _sight_table(figures: Figures) -> str:
    heads = (
        "| question | sees the chart | sees a grey picture | pocket-qwen3, no picture |"
    )
    lines = [heads, "|---|---|---|---|"]
    for kind in ASKED:
        cells = (
            figures["looks"]["trained"][kind],
            figures["without_looking"][kind],
            figures["general"][kind],
        )
        lines.append(f"| {NAMES[kind]} | {' | '.join(map(percent, cells))} |")
    return "\n".join(lines)


def _token_table(rows: list[Figures]) -> str:
    sizes = " | ".join(f"{row['pixels'][0]} x {row['pixels'][1]}" for row in rows)
    tokens = " | ".join(str(row["tokens"]) for row in rows)
    right = " | ".join(percent(row["right"]) for row in rows)
    rule = "---|" * (len(rows) + 1)
    return (
        f"| pixels | {sizes} |\n|{rule}\n| image tokens | {tokens} |\n"
        f"| all values right | {right} |"
    )


def values(figures: Figures) -> dict[str, str]:
    """Return the strings that the card's template is filled with."""
    wordings = figures["new_wordings"].values()
    return {
        "parameters": f"{figures['parameters'] / 1e6:.1f}",
        "vision_parameters": f"{figures['vision_parameters'] / 1e6:.1f}",
        "looks": _looks_table(figures["looks"]),
        "sight": _sight_table(figures),
        "image_tokens": _token_table(figures["image_tokens"]),
        "new_wordings": percent([sum(pair) for pair in zip(*wordings, strict=True)]),
        "torch": figures["torch"],
        "machine": figures["machine"],
    }
