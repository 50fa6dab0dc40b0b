"""What training takes on each GPU, before you rent one.

The sums are those of a plain run: AdamW, bf16 products, activations recomputed in the
backward pass (checkpointing), everything dealt out among the GPUs (FSDP, ZeRO-3).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qwen_course import catalog, memory
from qwen_course.errors import suggest
from qwen_course.tables import Row, Table

METHODS = ("full", "lora", "qlora")
# For each trained weight: itself and its gradient in bf16, and in fp32 a master copy
# and the two moments of Adam (Rajbhandari et al., 2020, arXiv 1910.02054).
BYTES_A_TRAINED_WEIGHT = 2 + 2 + 4 + 4 + 4


@dataclass(frozen=True)
class Need:
    """The bytes that one GPU must hold, by part."""

    model: str
    method: str
    gpus: int
    trained: int
    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of the parts, in bytes."""
        return self.weights + self.optimizer + self.activations


class Needs(Table[Need]):
    """What training takes, one row a model, a method and a number of GPUs."""

    columns = ("model", "method", "GPUs", "trained", "weights", "optimizer",
               "activations", "each GPU")  # fmt: skip
    noun = "runs"

    def cells(self, item: Need) -> Row:
        """Return the parts for reading."""
        sizes = (item.weights, item.optimizer, item.activations, item.total)
        millions = f"{item.trained / 1e6:,.1f} M"
        row = (item.model, item.method, str(item.gpus), millions)
        return (*row, *map(memory.gib, sizes))


def lora_parameters(model: str, rank: int = 16) -> int:
    """Return the size of a LoRA on all linear layers of a block, by hand.

    In a mixture of experts on those of the attention alone: an adapter for each of
    hundreds of experts would be as large as a model. Raises ValueError for a model
    whose dimensions the catalogue does not know.

    >>> lora_parameters("Qwen3-0.6B", rank=16)
    10092544
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; give 1 or more.")
    shape = catalog.get(model).shape
    hidden, layers = shape.hidden_size, shape.num_hidden_layers
    heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
    if not (hidden and layers and heads and kv_heads):
        raise ValueError(
            f"the dimensions of {model} are not in the catalogue. Take another model."
        )
    head = shape.head_dim or hidden // heads
    queries, keys = heads * head, kv_heads * head
    widths = [hidden + queries, hidden + keys, hidden + keys, queries + hidden]
    if shape.intermediate_size and not shape.num_experts:
        widths += 3 * [hidden + shape.intermediate_size]
    return layers * rank * sum(widths)


def need(
    model: str, method: str = "lora", gpus: int = 1, rank: int = 16, tokens: int = 4096
) -> Need:
    """Estimate what each of `gpus` must hold to train on `tokens` at a time.

    `method` is "full", "lora" (weights in bf16) or "qlora" (weights in nf4); `tokens`
    are those of one step on one GPU, all rows together. Raises ValueError for another
    method, for numbers below 1, and for a model of unknown dimensions.

    Example:
        need("Qwen3-8B", "qlora").total
    """
    if method not in METHODS:
        raise ValueError(
            f'method "{method}" is not one of {", ".join(METHODS)}.'
            + suggest(str(method), METHODS)
        )
    for name, value in (("gpus", gpus), ("tokens", tokens)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give 1 or more.")
    size = memory.dimensions(model)
    layers = size.attention_layers + size.linear_layers
    full = method == "full"
    trained = size.parameters if full else lora_parameters(model, rank)
    kind = memory.stored_as("nf4" if method == "qlora" else "bf16")
    frozen = 0 if full else memory.weights_bytes(size, kind)
    # kept for each layer: its input; then one layer at a time, whole
    kept = layers * tokens * size.hidden * 2
    one_layer = tokens * (10 * size.hidden + 4 * size.feed_forward) * 2
    gathered = 2 * size.parameters // layers if gpus > 1 else 0
    return Need(
        size.name,
        method,
        gpus,
        trained,
        frozen // gpus,
        BYTES_A_TRAINED_WEIGHT * trained // gpus,
        kept + one_layer + gathered,
    )


def table(
    models: Iterable[str],
    methods: Sequence[str] = METHODS,
    gpus: Sequence[int] = (1, 8),
    **options: int,
) -> Needs:
    """Return what every combination takes; `options` are those of `need`.

    Example:
        table(["Qwen3-0.6B", "Qwen3-8B"], gpus=(1,))
    """
    return Needs(
        need(model, method, count, **options)
        for model in models
        for method in methods
        for count in gpus
    )
