"""The support package of the Qwen course.

Importing it is cheap: its modules import torch and transformers inside the functions
that need them, never at the top.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

from qwen_course import (
    architecture,
    catalog,
    glossary,
    memory,
    prompts,
    tasks,
    troubleshooting,
    vocabulary,
    widgets,
)
from qwen_course.about import about
from qwen_course.chat import Reply, chat, chat_batch
from qwen_course.display import show_tokens
from qwen_course.doctor import doctor
from qwen_course.evaluation import evaluate
from qwen_course.exercises import check, hint, progress, raise_hand, share
from qwen_course.loading import load
from qwen_course.scorecard import scorecard
from qwen_course.settings import specialist
from qwen_course.tools import chat_with_tools

__all__ = [
    "Reply",
    "about",
    "architecture",
    "catalog",
    "chat",
    "chat_batch",
    "chat_with_tools",
    "check",
    "doctor",
    "evaluate",
    "glossary",
    "hint",
    "load",
    "memory",
    "progress",
    "prompts",
    "raise_hand",
    "scorecard",
    "share",
    "show_tokens",
    "specialist",
    "tasks",
    "troubleshooting",
    "vocabulary",
    "widgets",
]

# Their modules need more than the base of the course, so they come when asked for.
_LATER = {
    "PerformanceMetrics": "monitoring",
    "QwenMonitor": "monitoring",
    "QwenService": "service",
    "SecureQwenService": "security",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"qwen_course.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
