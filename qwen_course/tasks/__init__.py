"""Problems with graders: what the pocket models learn and are measured on.

>>> from qwen_course import tasks
>>> tasks.sums.problems(2, seed=0, count=3)[0].kind
'sum of 3'
"""

from qwen_course.tasks import (
    course_questions,
    dialogues,
    instructions,
    new_questions,
    products,
    sums,
    word_problems,
)
from qwen_course.tasks.problem import Problem, split_of

__all__ = [
    "Problem",
    "course_questions",
    "dialogues",
    "instructions",
    "new_questions",
    "products",
    "split_of",
    "sums",
    "word_problems",
]
