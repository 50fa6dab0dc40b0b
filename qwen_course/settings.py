"""The course's settings: which model the lessons use, where progress is kept."""

import os
from pathlib import Path

MODEL_VARIABLE = "QWEN_COURSE_MODEL"
DEFAULT_MODEL = "pocket-qwen3"
PROGRESS_VARIABLE = "QWEN_COURSE_PROGRESS"


def model_name() -> str:
    """Return the model the lessons use: `QWEN_COURSE_MODEL`, or the pocket model.

    >>> model_name()
    'pocket-qwen3'
    """
    return os.environ.get(MODEL_VARIABLE, "").strip() or DEFAULT_MODEL


def progress_file() -> Path:
    """Return the file of `qc.progress()`: `QWEN_COURSE_PROGRESS`, or one at home.

    Raises RuntimeError where the user has no home folder.
    """
    chosen = os.environ.get(PROGRESS_VARIABLE, "").strip()
    return Path(chosen or "~/.qwen-course/progress.json").expanduser()
