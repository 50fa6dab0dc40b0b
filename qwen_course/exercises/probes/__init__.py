"""What the checks look at, a module a lesson: functions that turn answers into data.

A probe calls a learner's function on cases, or takes a value apart. It may be run
where nothing right must be known, so it imports nothing of `judges`.
"""

import functools
from typing import Any


@functools.cache
def pocket() -> tuple[Any, Any]:
    """Return the pocket model and its tokenizer, whatever the setting says.

    Loaded once for all lessons, for their judges too.
    """
    from qwen_course.loading import load

    return load("pocket-qwen3")
