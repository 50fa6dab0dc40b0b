"""The figures of a model card: counts, shares, and where they were measured."""

import platform
from collections.abc import Sequence
from typing import Any

import torch

Figures = dict[str, Any]
Counts = list[int]  # how many are right, or wrong; and of how many


def share(right: Sequence[bool]) -> Counts:
    """Return how many are right, and how many there are.

    >>> share([True, False, True])
    [2, 3]
    """
    return [sum(right), len(right)]


def percent(counts: Sequence[int]) -> str:
    """Return a count as a share, "none" where nothing was counted.

    >>> percent([967, 1000])
    '96.7%'
    """
    return f"{counts[0] / counts[1]:.1%}" if counts[1] else "none"


def about(model) -> Figures:
    """Return what was measured and where: every card says so."""
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__.partition("+")[0],
        "parameters": model.num_parameters(),
    }
