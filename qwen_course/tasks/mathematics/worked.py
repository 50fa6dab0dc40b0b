"""What the generators of the kinds hand over: one worked item, not yet worded."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Worked:
    """One item: what it asks, how it is worked, and the program that solves it.

    `ask` is called with a wording and returns the question; a function is f here, and
    gets another name with the wording. `terms` are the lines of the term-by-term
    derivative, written only where the question asks for them. `plan` is the sentence
    before the program; without a `program` there is none for the item.
    """

    kind: str
    content: tuple
    ask: Callable[[str, random.Random], str]
    steps: tuple[str, ...]
    boxed: str
    sentence: str  # with {} for the box
    plan: str = ""
    program: tuple[str, ...] = ()
    output: Callable[[], str] = str  # what the program prints
    read: Callable[[str], str] = str  # from the output to what goes into the box
    story: str = ""  # which wordings fit, where a kind has several
    terms: tuple[str, ...] = field(default=())
