"""Python functions to write, fill in and fix, graded by running hidden tests.

>>> from qwen_course.tasks import coding
>>> coding.problems(1, kind="write")[0].skill
'coding'
"""

from qwen_course.tasks.coding.families import Task, families
from qwen_course.tasks.coding.fim import HOLES, fim_prompt, make_hole
from qwen_course.tasks.coding.grading import Grade, grade_all
from qwen_course.tasks.coding.problems import (
    KINDS,
    SKILL,
    CodingProblem,
    extract_code,
    make,
    problems,
)

__all__ = [
    "HOLES",
    "KINDS",
    "SKILL",
    "CodingProblem",
    "Grade",
    "Task",
    "extract_code",
    "families",
    "fim_prompt",
    "grade_all",
    "make",
    "make_hole",
    "problems",
]
