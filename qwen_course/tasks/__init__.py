"""Problems with graders: what the pocket models learn and are measured on.

>>> from qwen_course import tasks
>>> tasks.sums.problems(2, seed=0, count=3)[0].kind
'sum of 3'
"""

import importlib
from types import ModuleType

from qwen_course.tasks import (
    course_questions,
    dialogues,
    instructions,
    new_questions,
    products,
    sums,
    tool_calls,
    word_problems,
)
from qwen_course.tasks.problem import Problem, split_of

# Every skill is the module of its name, with `make` and `problems`. The order is part
# of the training recipe: the draws of a seed depend on it.
SKILLS = (
    "sums",
    "products",
    "word_problems",
    "course_questions",
    "instructions",
    "dialogues",
    "new_questions",
    "tool_calls",
)

# The skills of specialists, imported when first used: some need numpy.
SPECIALIST_SKILLS = (
    "charts",
    "coding",
    "mathematics",
    "printed_words",
    "spoken_digits",
    "tones",
)

# What no pocket model has learnt: lesson 07 teaches it.
NEW_SKILLS = ("phrases", "roman_numerals")


def __getattr__(name: str) -> ModuleType:
    if name in (*SPECIALIST_SKILLS, *NEW_SKILLS):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "NEW_SKILLS",
    "SKILLS",
    "SPECIALIST_SKILLS",
    "Problem",
    "course_questions",
    "dialogues",
    "instructions",
    "new_questions",
    "products",
    "split_of",
    "sums",
    "tool_calls",
    "word_problems",
]
