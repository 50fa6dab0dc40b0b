"""Exercises: instant checks, hints, progress, and grading.

One folder, three kinds of files: `probes/` looks at an answer and knows no right one,
`judges/` knows what is right and which mistake leads where, and the modules beside
them show, keep, build and grade.
"""

from qwen_course.exercises.checking import check, hint
from qwen_course.exercises.picture import progress
from qwen_course.exercises.sharing import raise_hand, share

__all__ = ["check", "hint", "progress", "raise_hand", "share"]
