"""The charts that the lesson carries as files: none was seen in training.

`python -m qwen_course.tasks.charts.examples` draws them again.
"""

from pathlib import Path

from qwen_course.tasks.charts.chart import MONTHS, QUARTERS, Chart
from qwen_course.tasks.charts.drawing import Style, draw

FOLDER = Path(__file__).parents[2] / "data" / "charts"
YEARS = ("2019", "2020", "2021", "2022", "2023", "2024")
EXAMPLES = {
    "sales": (
        Chart("bar", MONTHS[4:], (30, 35, 25, 40, 45, 55, 70, 95), title="Sales"),
        Style(),
    ),
    "two_years": (
        Chart(
            "line",
            QUARTERS * 2,
            (30, 45, 40, 75, 40, 65, 50, 90),
            ("orange",),
            "Orders",
        ),
        Style("night", "sans", "lines"),
    ),
    "energy": (
        Chart("line", YEARS, (88, 79, 70, 54, 42, 37), ("green",), "Energy", True),
        Style("sand", "default", "none"),
    ),
    "votes": (
        Chart(
            "bar",
            ("Ada", "Ben", "Kim", "Leo", "Zoe"),
            (62, 48, 91, 18, 55),
            ("blue", "orange", "green", "red", "purple"),
            "Votes",
            printed=True,
        ),
        Style("grey", "bold", "lines"),
    ),
    "rain": (
        Chart("bar", MONTHS[:6], (80, 65, 65, 45, 30, 10), ("blue",), "Rain"),
        Style("sky", "serif", "dots", (252, 196)),
    ),
}  # fmt: skip


def save(folder: Path = FOLDER) -> list[Path]:
    """Draw the examples into a folder, as PNG of a few kilobytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (chart, style) in EXAMPLES.items():
        path = folder / f"{name}.png"
        draw(chart, style).save(path, optimize=True)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for path in save():
        print(path.name)
