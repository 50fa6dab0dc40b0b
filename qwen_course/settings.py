"""The course's settings: which model the lessons use, where progress is kept."""

import os
from pathlib import Path

from qwen_course.errors import suggest

MODEL_VARIABLE = "QWEN_COURSE_MODEL"
DEFAULT_MODEL = "pocket-qwen3"
PROGRESS_VARIABLE = "QWEN_COURSE_PROGRESS"
TEST_VARIABLE = "QWEN_COURSE_TEST"  # set by the tests


def model_name() -> str:
    """Return the model the lessons use: `QWEN_COURSE_MODEL`, or the pocket model.

    >>> model_name()
    'pocket-qwen3'
    """
    return os.environ.get(MODEL_VARIABLE, "").strip() or DEFAULT_MODEL


# A task: the pocket model, and the smallest real checkpoint for it.
SPECIALISTS = {
    "coder": ("pocket-coder", "Qwen/Qwen2.5-Coder-0.5B-Instruct"),
    "math": ("pocket-math", "Qwen/Qwen2.5-Math-1.5B-Instruct"),
    "vl": ("pocket-vl", "Qwen/Qwen2.5-VL-3B-Instruct"),
    "audio": ("pocket-audio", "Qwen/Qwen2-Audio-7B-Instruct"),
}


def specialist(task: str) -> str:
    """Return the model for "coder", "math", "vl" or "audio" that the lessons use.

    The pocket model, or the real one where `QWEN_COURSE_MODEL` names a real one too. A
    variable such as `QWEN_COURSE_VL` chooses for one task. Raises ValueError for an
    unknown task.

    >>> specialist("coder")
    'pocket-coder'
    """
    if task not in SPECIALISTS:
        near = suggest(str(task), SPECIALISTS)
        raise ValueError(f'"{task}" is not one of {", ".join(SPECIALISTS)}.{near}')
    chosen = os.environ.get(f"QWEN_COURSE_{task.upper()}", "").strip()
    pocket, real = SPECIALISTS[task]
    return chosen or (pocket if model_name().startswith("pocket-") else real)


def effort(full: int, tested: int) -> int:
    """Return `full`, or `tested` where the course's own tests only run the cells.

    Example:
        steps = effort(300, 4)
    """
    return tested if os.environ.get(TEST_VARIABLE) else full


def progress_file() -> Path:
    """Return the file of `qc.progress()`: `QWEN_COURSE_PROGRESS`, or one at home.

    Raises RuntimeError where the user has no home folder.
    """
    chosen = os.environ.get(PROGRESS_VARIABLE, "").strip()
    return Path(chosen or "~/.qwen-course/progress.json").expanduser()
