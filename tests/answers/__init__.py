"""Right and wrong answers to every question: what the checks themselves are held to.

A module a lesson: `RIGHT` has at least three answers for each question, written in
different ways, `WRONG` at least three typical wrong ones by the name of the mistake
that the check must find.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Lazy(NamedTuple):
    """An answer that takes a while to make: a call without arguments makes it."""

    make: Callable[[], Any]


def lazy(make: Callable[[], Any]) -> Lazy:
    """Put off making an answer until its test runs."""
    return Lazy(make)


def made(answer: Any) -> Any:
    """Return an answer itself, or what a lazy one makes.

    >>> made(lazy(lambda: 3)), made(3)
    (3, 3)
    """
    return answer.make() if isinstance(answer, Lazy) else answer
