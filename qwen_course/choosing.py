"""Choose a checkpoint for given needs: what fits, in which order, and what does not.

The order is simple, so that you can argue with it: the newest generation first, in it
the largest model that fits, of two like it the later one. A larger model in 4 bits
comes before a smaller one in 16. Qwen's own figures say so (Qwen2, greedy;
documentation, quantization benchmark): the 7B in 4 bits has 64.1 points, the 1.5B in
16 bits 48.4.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from qwen_course import catalog, memory
from qwen_course.checkpoint import Checkpoint
from qwen_course.errors import suggest
from qwen_course.tables import Row, Table

PRECISIONS = ("bf16", "int8", "nf4")  # those `qc.load` offers, the best first
SPARE = 0.9  # of the memory; the rest is for Python, the libraries and CUDA
CONTEXT = 4096  # tokens that are counted on if no context is asked for
AT_ONCE = 8192  # tokens of a prompt; servers read a longer one in pieces


def _chats(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind in ("instruct", "hybrid", "omni", "vl", "thinking")


TASKS: dict[str, Callable[[Checkpoint], bool]] = {
    "chat": lambda c: c.kind in ("instruct", "hybrid"),
    "reasoning": lambda c: c.kind in ("hybrid", "thinking"),
    "math": lambda c: c.kind in ("math", "hybrid", "thinking"),
    "code": lambda c: c.kind in ("coder", "hybrid"),
    "vision": lambda c: "image" in c.modalities and _chats(c),
    "audio": lambda c: "audio" in c.modalities,
    "speech": lambda c: "speech-out" in c.modalities,
    "embedding": lambda c: c.kind == "embedding" and "Reranker" not in c.name,
    "reranking": lambda c: "Reranker" in c.name,
    "base": lambda c: c.is_base,
}


@dataclass(frozen=True)
class Needs:
    """What a checkpoint must do, and where it must fit."""

    task: str = "chat"
    memory_gb: float | None = None
    licence: str | None = None
    context: int | None = None
    thinking: bool | None = None
    modality: str | None = None


@dataclass(frozen=True)
class Choice:
    """A checkpoint that meets the needs, the best precision that fits, and why."""

    checkpoint: Checkpoint
    precision: str
    memory: memory.Estimate
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class RuledOut:
    """A checkpoint made for the task that fails a need."""

    checkpoint: Checkpoint
    reason: str


class Rejections(Table[RuledOut]):
    """What was ruled out, and why."""

    columns = ("id", "ruled out because")
    noun = "ruled out"

    def cells(self, item: RuledOut) -> Row:
        """Return the id and the reason."""
        return (item.checkpoint.id, item.reason)


class Recommendation(Table[Choice]):
    """Checkpoints that meet the needs, the best first; `ruled_out` has the others.

    `other_tasks` counts the checkpoints that are made for something else.
    """

    columns = ("id", "precision", "memory", "why")
    noun = "checkpoints meet the needs"

    def __init__(self, choices: Iterable[Choice] = ()) -> None:
        super().__init__(choices)
        self.ruled_out = Rejections()
        self.other_tasks = 0

    def __getitem__(self, index: Any) -> Any:
        chosen = super().__getitem__(index)
        if isinstance(chosen, Recommendation):
            chosen.ruled_out, chosen.other_tasks = self.ruled_out, self.other_tasks
        return chosen

    def cells(self, item: Choice) -> Row:
        """Return the id, how to load it, what it takes, and the reasons."""
        size = memory.gib(item.memory.total)
        return (item.checkpoint.id, item.precision, size, "; ".join(item.reasons))


def recommend(
    task: str = "chat",
    memory_gb: float | None = None,
    licence: str | None = None,
    context: int | None = None,
    thinking: bool | None = None,
    modality: str | None = None,
) -> Recommendation:
    """Rank the checkpoints that meet your needs, and say why the others do not.

    `memory_gb` is what the machine has (GiB of GPU memory, or of RAM without a GPU);
    a tenth of it is left for Python and the libraries. `context` counts the tokens of
    prompt and answer (None: 4,096 to reckon with, and no condition). `thinking` True
    or False wants a model that can, or need not, think. `licence` is one of the
    catalogue's names, such as "Apache-2.0".

    Raises ValueError for an unknown task, licence or modality and for impossible sizes.

    Example:
        recommend("code", memory_gb=8, licence="Apache-2.0")[0].checkpoint.id
    """
    needs = Needs(task, memory_gb, licence, context, thinking, modality)
    _check(needs)
    made_for = TASKS[task]
    suited = [c for c in catalog.models() if made_for(c) and _no_base(c, task)]
    found = Recommendation()
    found.other_tasks = len(catalog.models()) - len(suited)
    for checkpoint in suited:
        outcome = _judge(checkpoint, needs)
        if isinstance(outcome, Choice):
            found.append(outcome)
        else:
            found.ruled_out.append(RuledOut(checkpoint, outcome))
    found.sort(key=_rank, reverse=True)
    return found


@dataclass(frozen=True)
class Download:
    """A checkpoint the lessons can run on, how to load it, and what fetching costs."""

    choice: Choice
    bytes: int
    minutes: float


class Downloads(Table[Download]):
    """Real checkpoints for the lessons, the largest first."""

    columns = ("id", "precision", "memory", "download", "time")
    noun = "checkpoints for the lessons fit"

    def cells(self, item: Download) -> Row:
        """Return the id, how to load it, its memory, and what fetching it costs."""
        minutes = max(1, round(item.minutes))
        return (
            item.choice.checkpoint.id,
            item.choice.precision,
            memory.gib(item.choice.memory.total),
            f"{item.bytes / 1e9:.1f} GB",
            f"{minutes} minute{'s' * (minutes != 1)}",
        )


def lesson_models(
    memory_gb: float | None = None, connection_mbit: float = 100
) -> Downloads:
    """Return the real checkpoints that the lessons can run on here.

    They are the hybrid Qwen3, from which the pocket model is built. `memory_gb` is
    what a model may have (None: what is free now); `connection_mbit` is the speed of
    the network in megabits a second, from which the time of the download follows.

    Raises ValueError for sizes and speeds that are not positive.

    Example:
        lesson_models(memory_gb=8)[0].choice.checkpoint.id  ->  "Qwen/Qwen3-8B"
    """
    if memory_gb is None:
        from qwen_course.doctor import model_memory_gb

        memory_gb = max(0.1, model_memory_gb() * 1e9 / memory.GIB)
    if not connection_mbit > 0:
        raise ValueError(
            f"connection_mbit is {connection_mbit!r}; give megabits a second, such as "
            "100."
        )
    fitting = recommend("chat", memory_gb=memory_gb, thinking=True)
    found = Downloads()
    for choice in fitting:
        if choice.checkpoint.series == "Qwen3":
            size = 2 * choice.checkpoint.total_parameters  # the files are in bf16
            found.append(Download(choice, size, 8 * size / connection_mbit / 6e7))
    return found


def _no_base(checkpoint: Checkpoint, task: str) -> bool:
    return task == "base" or not checkpoint.is_base


def _rank(choice: Choice) -> tuple:
    item = choice.checkpoint
    return (float(item.generation), item.total_parameters, item.released or "")


def _judge(checkpoint: Checkpoint, needs: Needs) -> Choice | str:
    """Return the choice, or the reason why the checkpoint is none."""
    for reason in (
        _wrong_licence(checkpoint, needs.licence),
        _wrong_thinking(checkpoint, needs.thinking),
        _wrong_modality(checkpoint, needs.modality),
        _wrong_context(checkpoint, needs.context),
    ):
        if reason:
            return reason
    return _fit(checkpoint, needs)


def _wrong_licence(checkpoint: Checkpoint, wanted: str | None) -> str | None:
    if wanted is None or (checkpoint.licence or "").lower() == wanted.lower():
        return None
    if checkpoint.licence is None:
        return "its licence was not seen in any source: read it on its page"
    return f"its licence is {checkpoint.licence_name}"


def _wrong_thinking(checkpoint: Checkpoint, wanted: bool | None) -> str | None:
    if wanted is True and checkpoint.thinking == "none":
        return "it never thinks"
    if wanted is False and checkpoint.thinking == "only":
        return "it always thinks"
    return None


def _wrong_modality(checkpoint: Checkpoint, wanted: str | None) -> str | None:
    if wanted is None or wanted.lower() in checkpoint.modalities:
        return None
    return f"it takes only {', '.join(checkpoint.modalities)}"


def _wrong_context(checkpoint: Checkpoint, wanted: int | None) -> str | None:
    if wanted is None:
        return None
    longest = checkpoint.extended_context_tokens or checkpoint.native_context_tokens
    if longest is None:
        return "its context length is not known"
    if longest < wanted:
        return f"its context ends at {longest:,} tokens"
    return None


def _fit(checkpoint: Checkpoint, needs: Needs) -> Choice | str:
    """Find the best precision that fits into the memory."""
    room = (needs.memory_gb or float("inf")) * SPARE * memory.GIB
    sizes = _sizes(checkpoint, needs.context or CONTEXT)
    for size in sizes:
        if size.total <= room:
            reasons = tuple(_reasons(checkpoint, needs, size))
            return Choice(checkpoint, size.precision, size, reasons)
    least = sizes[-1]
    return (
        f"even in {least.precision} it needs {memory.gib(least.total)}, and "
        f"{memory.gib(room)} are free"
    )


def has_dimensions(checkpoint: Checkpoint) -> bool:
    """Return whether the catalogue knows enough to estimate a checkpoint's memory."""
    try:
        memory.dimensions(checkpoint)
    except ValueError:
        return False
    return True


def _sizes(checkpoint: Checkpoint, context: int) -> list[memory.Estimate]:
    """Estimate every precision; for unknown dimensions, the weights in bf16 alone."""
    if not has_dimensions(checkpoint):
        weights = 2 * checkpoint.total_parameters
        return [memory.Estimate(checkpoint.name, "bf16", context, 1, weights, 0, 0)]
    prompt = min(context, AT_ONCE)
    return [
        memory.estimate(checkpoint, precision, context, prompt=prompt)
        for precision in PRECISIONS
    ]


def _reasons(
    checkpoint: Checkpoint, needs: Needs, size: memory.Estimate
) -> Iterable[str]:
    yield f"generation {checkpoint.generation}, {checkpoint.size_label}"
    if checkpoint.is_moe:
        active = checkpoint.active_parameters / 1e9
        yield f"reads {active:.1f}B of its parameters a token, so it is fast"
    if checkpoint.kind in ("coder", "math"):
        yield "a specialist"
    if checkpoint.thinking != "none":
        hybrid = checkpoint.thinking == "hybrid"
        yield "thinking can be switched" if hybrid else "always thinks"
    if (checkpoint.native_context_tokens or 0) < (needs.context or 0):
        how = checkpoint.context_extension or "an extension"
        yield f"needs {how} for {needs.context:,} tokens"
    if size.precision != "bf16":
        yield f"fits only in {size.precision}"
    if size.kv_cache == 0:
        yield "weights alone, its dimensions are not known"
    if needs.licence is None and checkpoint.licence != "Apache-2.0":
        yield f"licence: {checkpoint.licence or 'not seen, read it'}"


def _check(needs: Needs) -> None:
    everything = catalog.models()
    licences = {c.licence for c in everything if c.licence}
    modalities = {m for c in everything for m in c.modalities}
    for name, value, options in (
        ("task", needs.task, set(TASKS)),
        ("licence", needs.licence, licences),
        ("modality", needs.modality, modalities),
    ):
        if value is not None and str(value).lower() not in map(str.lower, options):
            listed = ", ".join(sorted(options))
            near = suggest(str(value), options)
            raise ValueError(f'{name} "{value}" is not one of {listed}.{near}')
    if needs.memory_gb is not None and not needs.memory_gb > 0:
        raise ValueError(
            f"memory_gb is {needs.memory_gb!r}; give the GiB your machine has, such as "
            "8, or leave it out."
        )
    if needs.context is not None and not needs.context >= 1:
        raise ValueError(
            f"context is {needs.context!r}; give a number of tokens, such as 8192."
        )
