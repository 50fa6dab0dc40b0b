"""The course's one setting: which model the lessons use."""

import os

MODEL_VARIABLE = "QWEN_COURSE_MODEL"
DEFAULT_MODEL = "pocket-qwen3"


def model_name() -> str:
    """Return the model the lessons use: `QWEN_COURSE_MODEL`, or the pocket model.

    >>> model_name()
    'pocket-qwen3'
    """
    return os.environ.get(MODEL_VARIABLE, "").strip() or DEFAULT_MODEL
