"""What the checks of lesson 01 look at."""

import copy
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen_course import architecture
from qwen_course.checkpoint import Checkpoint
from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe, is_stub

if TYPE_CHECKING:
    import torch

Seen = list[dict[str, Any]]
DENSE = ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B")
MIXTURES = ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B",
            "Qwen/Qwen3-Coder-480B-A35B-Instruct")  # fmt: skip


def counted(seed: int) -> list[str]:
    """Return the checkpoints to count, the one that is asked for first."""
    return ["Qwen/Qwen3-8B", *random.Random(seed).sample(DENSE, 2), "Qwen/Qwen3-0.6B"]


def q1(answer: Any, seed: int) -> Seen:
    """Call the learner's count on configurations with and without tied embeddings."""
    configs = [architecture.configuration(id) for id in counted(seed)]
    _import_models(configs[0])
    return [call(answer, config) for config in configs]


def memories(seed: int) -> list[int]:
    """Return the GiB of the machines to fill, the one that is asked for first."""
    return [8, 24, 6, random.Random(seed).choice((2, 3, 5, 12, 16))]


def q2(answer: Any, seed: int) -> Seen:
    """Ask the learner's search for machines of several sizes."""
    search = _after(answer, _names)
    return [call(search, gib) for gib in memories(seed)]


class Text(NamedTuple):
    """A context to keep: of which model, and how many tokens."""

    id: str
    tokens: int


def contexts(seed: int) -> list[Text]:
    """Return the contexts to keep, the one that is asked for first.

    In the second, heads times head_dim is not hidden_size.
    """
    draw = random.Random(seed)
    others = (*DENSE, "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-14B-Instruct")
    return [
        Text("Qwen/Qwen3-8B", 32_768),
        Text("Qwen/Qwen3-4B", draw.choice((4_096, 100_000))),
        Text(draw.choice(others), draw.choice((1_000, 8_192, 131_072))),
    ]


def q3(answer: Any, seed: int) -> Seen:
    """Call the learner's size of the KV cache."""
    return [
        call(answer, architecture.configuration(text.id), text.tokens)
        for text in contexts(seed)
    ]


def q4(answer: Any, seed: int) -> Seen:
    """Call the learner's function with each mixture and its number of parameters."""
    configs = [architecture.configuration(id) for id in MIXTURES]
    _import_models(configs[0])
    return [call(answer, one, architecture.count(one).total) for one in configs]


def q5(answer: Any, seed: int) -> Any:
    """Return the choices, without the briefs that are not answered yet."""
    if not isinstance(answer, dict):
        return answer
    return {
        str(brief): _names(choice)
        for brief, choice in answer.items()
        if not is_stub(choice)
    }


COLUMNS = ("smallest", "largest", "context", "licence", "thinking")
Claims = dict[str, dict[str, Any]]
# The table that the exercise prints. Cells are as published tables have them.
PUBLISHED = {
    "Qwen2.5": ("0.5B", "72B", 32_768, "Apache-2.0", "none"),
    "Qwen2.5-Math": ("1.5B", "72B", 131_072, "Apache-2.0, Qwen", "none"),
    "Qwen3": ("0.6B", "235B-A22B", 32_768, "Apache-2.0", "hybrid"),
    "Qwen3-2507": ("4B", "235B-A22B", 262_144, "Apache-2.0", "hybrid"),
    "Qwen3.5": ("0.8B", "397B-A17B", 262_144, "Apache-2.0", "hybrid"),
}
# What can be read about each series somewhere, cell by cell.
SAID: dict[str, tuple[tuple[Any, ...], ...]] = {
    "Qwen2": (("0.5B",), ("72B",), (32_768, 131_072),
              ("Apache-2.0", "Apache-2.0, Qianwen"), ("none",)),
    "Qwen2.5": (("0.5B",), ("72B", "32B"), (32_768, 131_072),
                ("Apache-2.0, Qwen, Qwen-Research",), ("none",)),
    "Qwen2.5-Coder": (("0.5B", "1.5B"), ("32B",), (32_768, 131_072),
                      ("Apache-2.0", "Apache-2.0, Qwen-Research"), ("none",)),
    "Qwen2.5-Math": (("1.5B",), ("72B",), (4_096,),
                     ("Apache-2.0", "Apache-2.0, Qwen"), ("none",)),
    "Qwen3": (("0.5B", "0.6B"), ("235B-A22B", "32B"), (32_768, 131_072),
              ("Apache-2.0",), ("hybrid",)),
    "Qwen3-Next": (("80B-A3B",), ("80B-A3B",), (262_144,), ("Apache-2.0",),
                   ("hybrid", "none, only")),
    "Qwen3.5": (("0.8B", "27B"), ("397B-A17B",), (262_144, 1_010_000),
                ("Apache-2.0",), ("hybrid",)),
}  # fmt: skip


def tables(seed: int) -> list[Claims]:
    """Return the tables to check: the one of the exercise, and two that are drawn."""
    draw = random.Random(seed)
    drawn = [_table(draw, tuple(SAID)), _table(draw, draw.sample(tuple(SAID), 4))]
    first = {
        series: dict(zip(COLUMNS, row, strict=True))
        for series, row in PUBLISHED.items()
    }
    return [first, *drawn]


def _table(draw: random.Random, names: Any) -> Claims:
    """Draw a cell for each column of some series, out of what is said."""
    return {
        series: dict(zip(COLUMNS, map(draw.choice, SAID[series]), strict=True))
        for series in names
    }


def q6(answer: Any, seed: int) -> Seen:
    """Give the learner's check each table of claims."""
    return [call(answer, claims) for claims in tables(seed)]


class Sizes(NamedTuple):
    """The shapes of queries, keys and values."""

    batch: int
    heads: int
    groups: int
    tokens: int
    head_dim: int


SIZES = (Sizes(1, 4, 2, 5, 8), Sizes(2, 6, 2, 4, 4), Sizes(1, 3, 3, 6, 4))
Heads = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


def heads(sizes: Sizes, seed: int) -> Heads:
    """Return random queries, keys and values: (batch, heads, tokens, head_dim)."""
    import torch

    noise = torch.Generator().manual_seed(seed)

    def draw(count: int) -> "torch.Tensor":
        shape = (sizes.batch, count, sizes.tokens, sizes.head_dim)
        return torch.randn(shape, generator=noise)

    return draw(sizes.heads), draw(sizes.groups), draw(sizes.groups)


def q7(answer: Any, seed: int) -> Seen:
    """Call the learner's attention on random heads."""
    attend = _after(answer, _without_gradient)
    return [call(attend, *heads(sizes, seed)) for sizes in SIZES]


def _import_models(config: Any) -> None:
    """Import what a learner may use to count, outside of the time limit of a call.

    An import that is stopped half-way leaves a broken module behind.
    """
    small = copy.copy(config)
    small.num_hidden_layers = 1
    architecture.build(small)


def _names(value: Any) -> Any:
    """Put a name in the place of each entry of the catalogue."""
    if isinstance(value, Checkpoint):
        return value.name
    if isinstance(value, list | tuple | set | frozenset):
        return [_names(one) for one in value]
    return value


def _without_gradient(value: Any) -> Any:
    return value.detach() if hasattr(value, "detach") else value


def _after(answer: Any, change: Callable[[Any], Any]) -> Any:
    """Return the learner's function, with a change made to what it returns."""
    if not callable(answer):
        return answer

    def changed(*arguments: Any) -> Any:
        return change(answer(*arguments))

    return changed


PROBES: dict[str, Probe] = {
    "01.q1": q1,
    "01.q2": q2,
    "01.q3": q3,
    "01.q4": q4,
    "01.q5": q5,
    "01.q6": q6,
    "01.q7": q7,
}
