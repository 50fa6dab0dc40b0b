"""Bar and line charts to be read: 2 to 8 points, in many styles, drawn with PIL.

>>> problem = problems(1, seed=0, kind="highest")[0]
>>> problem.grade(problem.answer)
True
"""

from qwen_course.tasks.charts.chart import COLOURS, Chart, best_quarter, trend
from qwen_course.tasks.charts.drawing import LOOKS, SIZES, Style, draw, draw_style
from qwen_course.tasks.charts.questions import (
    KINDS,
    SKILL,
    ChartProblem,
    ask,
    make,
    problems,
    questions,
)

__all__ = [
    "COLOURS",
    "KINDS",
    "LOOKS",
    "SIZES",
    "SKILL",
    "Chart",
    "ChartProblem",
    "Style",
    "ask",
    "best_quarter",
    "draw",
    "draw_style",
    "make",
    "problems",
    "questions",
    "trend",
]
