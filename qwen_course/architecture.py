"""The architecture of the family in numbers: true configurations, counted by hand.

A configuration is built from the dimensions in the catalogue. Its parameters are
counted twice: with the formulas of this module, and in a model that `transformers`
builds on the "meta" device, where a tensor has a shape and no memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from qwen_course import catalog
from qwen_course.checkpoint import Checkpoint
from qwen_course.tables import Row, Table, as_html, as_text

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from transformers import PretrainedConfig, PreTrainedModel

# The text decoder of each architecture in the catalogue, as transformers names it. The
# first Qwen has no class there; its decoder has the parts of Qwen2.
MODEL_TYPES = {
    "qwen": "qwen2",
    "qwen2": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3_vl": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "qwen3_vl_moe": "qwen3_moe",
    "qwen3_next": "qwen3_next",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
# In the catalogue, but no argument of a configuration: they follow from the others.
COMPUTED = {
    "parameters",
    "active_parameters",
    "non_embedding_parameters",
    "full_attention_layers",
}
HYBRID = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")


@dataclass(frozen=True, repr=False)
class Parts:
    """The parameters of a text decoder, part by part.

    `idle` are those of the experts that one token does not visit; they are a share of
    `feed_forward`, not a part of their own.
    """

    embedding: int
    attention: int
    feed_forward: int
    norms: int
    output: int
    idle: int = 0

    @property
    def total(self) -> int:
        """All parameters: what must lie in memory."""
        return sum(getattr(self, f.name) for f in fields(self)) - self.idle

    @property
    def active(self) -> int:
        """The parameters that one token visits: what is computed with."""
        return self.total - self.idle

    def _rows(self) -> list[Row]:
        names = [f.name for f in fields(self) if f.name != "idle"] + ["total"]
        names += ["active"] if self.idle else []
        sizes = [(name, getattr(self, name)) for name in names]
        return [(name.replace("_", " "), f"{size:,}", f"{size / self.total:.1%}")
                for name, size in sizes]  # fmt: skip

    def __repr__(self) -> str:
        return as_text(("part", "parameters", "share"), self._rows())

    def _repr_html_(self) -> str:
        return as_html("", ("part", "parameters", "share"), self._rows())


@dataclass(frozen=True)
class Counted:
    """A checkpoint with the parameters of its text decoder, counted."""

    checkpoint: Checkpoint
    parts: Parts

    @property
    def deviation(self) -> float:
        """Counted against published: 0.1 is a tenth more than published."""
        return self.parts.total / self.checkpoint.published_billions / 1e9 - 1

    @property
    def point(self) -> tuple[float, float]:
        """Billions of parameters and the deviation in percent: a dot in the plot."""
        return self.parts.total / 1e9, 100 * self.deviation

    @property
    def is_text(self) -> bool:
        """Whether the text decoder is the whole model."""
        return self.checkpoint.modalities == ("text",)


class Comparison(Table[Counted]):
    """What was counted, beside what Qwen published."""

    columns = ("id", "published", "counted", "deviation")
    noun = "checkpoints counted"

    def cells(self, item: Counted) -> Row:
        """Return the id, both sizes in billions, and how far they are apart."""
        published = f"{item.checkpoint.published_billions:g}B"
        counted = f"{item.parts.total / 1e9:.3f}B"
        return (item.checkpoint.id, published, counted, f"{item.deviation:+.1%}")

    def plot(self, named: Iterable[str] = ()) -> "Figure":
        """Draw the deviation in percent against the size; `named` are labelled."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.5, 3), layout="constrained")
        axes = figure.subplots()
        for is_text, colour, marker, label in (
            (True, "#0072B2", "o", "text: the whole model"),
            (False, "#D55E00", "^", "sees too: its text decoder"),
        ):
            shown = [item.point for item in self if item.is_text == is_text]
            axes.scatter([size for size, _ in shown], [off for _, off in shown],
                         s=26, c=colour, marker=marker, label=label)  # fmt: skip
        for item in self:
            if item.checkpoint.name in named:
                axes.annotate(item.checkpoint.name, item.point, (7, -3),
                              textcoords="offset points", fontsize=8)  # fmt: skip
        axes.axhline(0, color="grey", linewidth=0.8)
        close = sum(abs(item.deviation) < 0.03 for item in self)
        axes.set_title(f"{close} of {len(self)} within 3% of the published size")
        axes.set(xscale="log", xlabel="counted parameters (billions)",
                 ylabel="counted against\npublished (%)")  # fmt: skip
        axes.legend(fontsize=8, loc="lower right")
        return figure


def configuration(model: str | Checkpoint) -> "PretrainedConfig":
    """Return the configuration of a checkpoint's text decoder, from the catalogue.

    Every dimension is the true one. What changes no size (`rope_theta`, the epsilon of
    a norm) keeps the default of transformers.

    Raises ValueError for a checkpoint that is not in the catalogue, and for one whose
    dimensions it does not know.

    >>> configuration("Qwen3-8B").num_key_value_heads
    8
    """
    from transformers import AutoConfig

    checkpoint = model if isinstance(model, Checkpoint) else catalog.get(model)
    if not is_known(checkpoint):
        raise ValueError(
            f"the catalogue does not know all dimensions of {checkpoint.name}. Its "
            f"config.json has them: AutoConfig.from_pretrained({checkpoint.id!r})."
        )
    known = {k: v for k, v in vars(checkpoint.shape).items() if v is not None}
    sizes = {k: v for k, v in known.items() if k not in COMPUTED}
    return AutoConfig.for_model(MODEL_TYPES[checkpoint.architecture], **sizes)


def is_known(checkpoint: Checkpoint) -> bool:
    """Return whether the catalogue has every dimension of a checkpoint's decoder."""
    counted = checkpoint.shape.parameters is not None
    return counted and checkpoint.architecture in MODEL_TYPES


def build(
    config: "PretrainedConfig", dtype: "torch.dtype | None" = None
) -> "PreTrainedModel":
    """Return a model of a configuration on the meta device: shapes without memory.

    `dtype` is the type of its weights (None: that of the configuration).

    >>> build(configuration("Qwen3-235B-A22B")).num_parameters()
    235093634560
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def random_model(config: "PretrainedConfig", dtype: "torch.dtype") -> "PreTrainedModel":
    """Return a model of a configuration in real memory, with random weights.

    Memory and speed do not depend on the values, so it is good for measuring them; any
    text it writes is noise. A million random numbers are repeated: that is quick.
    """
    import torch

    model = build(config, dtype).to_empty(device="cpu")
    model.tie_weights()
    # No weight, so `to_empty` left it without a value: the angles of RoPE.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    generator = torch.Generator().manual_seed(0)
    noise = torch.empty(2**20).uniform_(-0.02, 0.02, generator=generator).to(dtype)
    for parameter in model.parameters():
        for piece in parameter.data.view(-1).split(len(noise)):
            piece.copy_(noise[: len(piece)])
    return model.eval()


def count(config: "PretrainedConfig") -> Parts:
    """Count the parameters of a text decoder by hand, from its dimensions alone.

    Knows Qwen2, Qwen3, their mixtures of experts, Qwen3-Next and Qwen3.5. Raises
    ValueError for any other model type.

    >>> count(configuration("Qwen3-0.6B")).total
    596049920
    """
    if config.model_type not in MODEL_TYPES.values():
        raise ValueError(
            f'model type "{config.model_type}" is not one of '
            f"{', '.join(dict.fromkeys(MODEL_TYPES.values()))}. Build it and count: "
            "architecture.build(config).num_parameters()."
        )
    layers, hidden = config.num_hidden_layers, config.hidden_size
    table = config.vocab_size * hidden
    linear = _linear_layers(config)
    attention = (layers - linear) * _attention(config)
    attention += linear * _linear_attention(config) if linear else 0
    return Parts(
        embedding=table,
        attention=attention,
        feed_forward=layers * _feed_forward(config),
        norms=(2 * layers + 1) * hidden,
        output=0 if config.tie_word_embeddings else table,
        idle=layers * _idle(config),
    )


def compare() -> Comparison:
    """Count every checkpoint whose dimensions the catalogue knows, oldest first.

    Example:
        max(compare(), key=lambda item: abs(item.deviation)).checkpoint.name
    """
    found = [c for c in catalog.models() if is_known(c)]
    return Comparison(Counted(c, count(configuration(c))) for c in found)


def _linear_layers(config: Any) -> int:
    kinds = getattr(config, "layer_types", None) or []
    return sum(kind == "linear_attention" for kind in kinds)


def _attention(config: Any) -> int:
    """Queries, keys, values and the way back, plus what each generation adds."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    queries, keys = heads * head, config.num_key_value_heads * head
    weights = 2 * hidden * queries + 2 * hidden * keys
    if config.model_type in ("qwen2", "qwen2_moe"):
        return weights + queries + 2 * keys  # biases of q, k and v
    gate = hidden * queries if config.model_type in HYBRID else 0
    return weights + gate + 2 * head  # QK-norm: one weight a place in a head


def _linear_attention(config: Any) -> int:
    """Gated DeltaNet: queries, keys, values, a gate, and two numbers a head."""
    hidden, heads = config.hidden_size, config.linear_num_value_heads
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    values = heads * config.linear_value_head_dim
    projections = hidden * (2 * keys + 2 * values + 2 * heads) + values * hidden
    convolution = (2 * keys + values) * config.linear_conv_kernel_dim
    return projections + convolution + 2 * heads + config.linear_value_head_dim


def _feed_forward(config: Any) -> int:
    """Three matrices: gate, up, down. A mixture has them once an expert."""
    hidden = config.hidden_size
    experts = getattr(config, "num_experts", 0)
    if not experts:
        return 3 * hidden * config.intermediate_size
    router = experts * hidden
    shared = getattr(config, "shared_expert_intermediate_size", 0)
    beside = 3 * hidden * shared + hidden if shared else 0  # with a gate of its own
    return experts * _expert(config) + router + beside


def _expert(config: Any) -> int:
    return 3 * config.hidden_size * config.moe_intermediate_size


def _idle(config: Any) -> int:
    """Return the parameters of one layer's experts that a token does not visit."""
    experts = getattr(config, "num_experts", 0)
    return (experts - config.num_experts_per_tok) * _expert(config) if experts else 0
