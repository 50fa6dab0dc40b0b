"""How much memory a model needs: its weights, its KV cache, its activations.

Every part is a product that can be done by hand. What Python, torch and CUDA take for
themselves comes on top, and is no property of the model.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from qwen_course import catalog
from qwen_course.checkpoint import Checkpoint, Shape
from qwen_course.datafiles import read_yaml
from qwen_course.errors import suggest
from qwen_course.tables import Row, Table, as_html, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PretrainedConfig

Model = Union[str, Checkpoint, "PretrainedConfig"]
GIB = 2**30
LINEAR_HEAD_DIM = 128  # of the linear attention in Qwen3-Next and Qwen3.5


@dataclass(frozen=True)
class Precision:
    """How a weight is stored: bits of one in the layers, and of one in the tables.

    Quantization leaves the embedding and the output layer (the tables) in 16 bits. The
    bits of a layer weight include its share of the scales of its group. `product_bytes`
    is what a product needs for a moment, for each of its outputs, beside the output.
    """

    name: str
    layer_bits: float
    table_bits: int = 16
    cache_bytes: int = 2
    why: str = ""
    product_bytes: int = 0


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", 32, 32, 4, "32 bits for everything"),
        Precision("bf16", 16, why="16 bits for everything"),
        Precision("fp16", 16, why="16 bits for everything"),
        Precision("fp8", 8 + 32 / 128**2, why="a scale for each 128 x 128 block"),
        # On a CPU a product in int8 is a tensor of int32, then twice fp32, then fp16.
        Precision("int8", 8, why="bitsandbytes: a scale for each row",
                  product_bytes=14),
        Precision("gptq-int8", 8 + 24 / 128, why="scale and zero for 128 weights"),
        Precision("gptq-int4", 4 + 20 / 128, why="scale and zero for 128 weights"),
        Precision("awq", 4 + 20 / 128, why="scale and zero for 128 weights"),
        Precision("nf4", 4 + 8 / 64 + 32 / (64 * 256),
                  why="bitsandbytes: a scale for 64 weights, itself in 8 bits"),
        Precision("nf4-single", 4 + 32 / 64,
                  why="bitsandbytes: a scale of 32 bits for 64 weights"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Dimensions:
    """The numbers of a model that its memory follows from.

    `tables` counts the parameters of embedding and output layer together, once if they
    are tied. `feed_forward` is the width that one token passes through: in a mixture
    of experts, that of the experts it visits.
    """

    name: str
    parameters: int
    tables: int
    tied: bool
    attention_layers: int
    linear_layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    feed_forward: int
    linear_value_heads: int = 0


@dataclass(frozen=True, repr=False)
class Estimate:
    """The memory of a model in use, in bytes."""

    model: str
    precision: str
    context: int
    batch: int
    weights: int
    kv_cache: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of the three parts, in bytes."""
        return self.weights + self.kv_cache + self.activations

    def _rows(self) -> list[tuple[str, ...]]:
        parts = ("weights", "kv_cache", "activations", "total")
        return [
            (name.replace("_", " ").replace("kv", "KV"), gib(getattr(self, name)))
            for name in parts
        ]

    def _title(self) -> str:
        times = f" x {self.batch}" if self.batch > 1 else ""
        return f"{self.model}, {self.precision}, {self.context:,} tokens{times}"

    def __repr__(self) -> str:
        return f"{self._title()}\n{as_text(('part', 'memory'), self._rows())}"

    def _repr_html_(self) -> str:
        return as_html(self._title(), ("part", "memory"), self._rows())


@dataclass(frozen=True)
class Published:
    """A row of a table of Qwen: bytes measured there, and the estimate for it."""

    model: str
    precision: str
    tokens: int
    measured: float
    estimate: Estimate

    @property
    def error(self) -> float:
        """Estimated against measured: 0.1 is a tenth too much."""
        return self.estimate.total / self.measured - 1


class Rows(Table[Published]):
    """Published measurements beside their estimates."""

    columns = ("model", "precision", "tokens", "measured", "estimated", "error")
    noun = "published rows"

    def cells(self, item: Published) -> Row:
        """Return what was measured, what is estimated, and how far they are apart."""
        sizes = (gib(item.measured), gib(item.estimate.total))
        tokens = f"{item.tokens:,}"
        return (item.model, item.precision, tokens, *sizes, f"{item.error:+.1%}")

    def plot(self) -> "Figure":
        """Draw the error in percent against the measured memory, within 10% shaded."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.5, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.axhspan(-10, 10, color="#E5F3EE", label="within 10%")
        for label, colour, marker, bits in (
            ("16 bits", "#0072B2", "o", (16, 32)),
            ("8 bits", "#E69F00", "s", (8, 9)),
            ("4 bits", "#D55E00", "^", (4, 5)),
        ):
            kind = [
                row
                for row in self
                if bits[0] <= PRECISIONS[row.precision].layer_bits <= bits[1]
            ]
            axes.scatter([row.measured / GIB for row in kind],
                         [100 * row.error for row in kind],
                         s=26, c=colour, marker=marker, label=label)  # fmt: skip
        axes.axhline(0, color="grey", linewidth=0.8)
        worst = max((abs(row.error) for row in self), default=0)
        axes.set(xscale="log", xlabel="memory that Qwen measured (GiB)",
                 ylabel="estimate against\nmeasured (%)", ylim=(-17, 17),
                 title=f"{len(self)} rows, at most {worst:.1%} off")  # fmt: skip
        axes.legend(ncols=4, fontsize=8, loc="upper center")
        return figure


def published() -> Rows:
    """Return every memory figure that Qwen published, each with the estimate for it.

    Example:
        max(published(), key=lambda row: abs(row.error)).model
    """
    found = Rows()
    for block in read_yaml("published")["memory"]:
        unit = {"GiB": GIB, "MiB": 2**20}[block["unit"]]
        prompt, tokens = block["prompt"], block["prompt"] + block["generated"]
        for model, row in block["rows"].items():
            apart = block.get("separate_head", {}).get(model, [])
            for precision, size in row.items():
                ours = estimate(model, precision, tokens, prompt=prompt,
                                separate_head=precision in apart)  # fmt: skip
                found.append(Published(model, precision, tokens, size * unit, ours))
    return found


def gib(size: float) -> str:
    """Write bytes for reading, in binary units.

    >>> gib(1_192_099_840), gib(14_000_000)
    ('1.11 GiB', '13.4 MiB')
    """
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def estimate(
    model: Model,
    precision: str = "bf16",
    context: int = 4096,
    batch: int = 1,
    prompt: int | None = None,
    separate_head: bool = False,
) -> Estimate:
    """Estimate the memory of a model in use.

    `model` is an id of the catalogue, a pocket model, a folder, or a configuration.
    `context` counts the tokens in the KV cache of each of `batch` sequences, prompt and
    answer together; `prompt`, those read at once at the beginning (None: all of them,
    the most it can be). Some published quantized files of a small model hold the tied
    output layer a second time: that is `separate_head`.

    Raises ValueError for an unknown model or precision, for a checkpoint whose
    dimensions the catalogue does not know, and for numbers that are not positive.

    >>> estimate("Qwen3-0.6B", "bf16", context=2048, prompt=1).weights
    1192099840
    """
    context = _positive("context", context)
    batch = _positive("batch", batch)
    prompt = context if prompt is None else _positive("prompt", prompt)
    if prompt > context:
        raise ValueError(
            f"prompt is {prompt}, more than the context of {context}: the prompt is a "
            "part of the context. Raise context or lower prompt."
        )
    kind, size = stored_as(precision), dimensions(model)
    return Estimate(
        size.name,
        kind.name,
        context,
        batch,
        weights_bytes(size, kind, separate_head),
        batch * kv_cache_bytes(size, context, kind.cache_bytes),
        batch * activation_bytes(size, prompt, kind.cache_bytes, kind.product_bytes),
    )


def weights_bytes(
    size: Dimensions, kind: Precision, separate_head: bool = False
) -> int:
    """Return parameters times bits: tables and layers have their own.

    Nothing is quantized in 16 or 32 bits, so a tied output layer is stored once.
    """
    tables = size.tables * (2 if separate_head and size.tied else 1)
    layers = size.parameters - size.tables
    return math.ceil((tables * kind.table_bits + layers * kind.layer_bits) / 8)


def kv_cache_bytes(size: Dimensions, tokens: int, bytes_each: int = 2) -> int:
    """Return the cache of one sequence: a key and a value a head, layer and token.

    A layer with linear attention keeps one matrix a head instead (128 x 128, in fp32),
    however long the text is.
    """
    per_token = 2 * size.attention_layers * size.kv_heads * size.head_dim * bytes_each
    state = size.linear_layers * size.linear_value_heads * LINEAR_HEAD_DIM**2 * 4
    return tokens * per_token + state


def activation_bytes(
    size: Dimensions, prompt: int, bytes_each: int = 2, product_bytes: int = 0
) -> int:
    """Return what reading a prompt takes for a moment, in the widest place of a layer.

    That is the feed-forward block: gate, up and their product of the feed-forward
    width, and four rows of the hidden width (input, residual, normed, output); with
    `product_bytes`, as much more for each output of the widest product.
    """
    rows = (3 * size.feed_forward + 4 * size.hidden) * bytes_each
    return prompt * (rows + product_bytes * size.feed_forward)


def stored_as(precision: str) -> Precision:
    """Return a precision by its name; raises ValueError with the nearest one."""
    if precision not in PRECISIONS:
        # A digit says more than letters do: "int4" is nearer to nf4 than to int8.
        digits = {c for c in str(precision) if c.isdigit()}
        same_bits = [name for name in PRECISIONS if digits and digits <= set(name)]
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(PRECISIONS)}.'
            + suggest(str(precision), same_bits or PRECISIONS)
        )
    return PRECISIONS[precision]


def dimensions(model: Model) -> Dimensions:
    """Return the numbers that the memory of a model follows from.

    Raises ValueError when the catalogue does not know them all.
    """
    if isinstance(model, Checkpoint):
        return _of_checkpoint(model)
    if not isinstance(model, str | Path):
        return _of_config(model)
    from qwen_course.loading import BUNDLED, bundled_models

    name = str(model)
    if name in bundled_models() or Path(name).expanduser().is_dir():
        from transformers import AutoConfig

        folder = BUNDLED / name if name in bundled_models() else Path(name).expanduser()
        return _of_config(AutoConfig.from_pretrained(folder), Path(name).name)
    return _of_checkpoint(catalog.get(name))


def _of_checkpoint(checkpoint: Checkpoint) -> Dimensions:
    shape = checkpoint.shape
    needed = {
        "num_hidden_layers": shape.num_hidden_layers,
        "hidden_size": shape.hidden_size,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tie_word_embeddings,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise ValueError(
            f"the catalogue does not know {', '.join(missing)} of {checkpoint.name}. "
            "Pass its configuration: AutoConfig.from_pretrained(...)."
        )
    layers, hidden = _int(shape.num_hidden_layers), _int(shape.hidden_size)
    attention = shape.full_attention_layers or layers
    copies = 1 if shape.tie_word_embeddings else 2
    return Dimensions(
        name=checkpoint.name,
        parameters=checkpoint.total_parameters,
        tables=copies * _int(shape.vocab_size) * hidden,
        tied=bool(shape.tie_word_embeddings),
        attention_layers=attention,
        linear_layers=layers - attention,
        kv_heads=_int(shape.num_key_value_heads),
        head_dim=_int(shape.head_dim),
        hidden=hidden,
        feed_forward=feed_forward_width(shape),
        linear_value_heads=shape.linear_num_value_heads or 0,
    )


def feed_forward_width(shape: Shape) -> int:
    """Return the feed-forward width that one token passes through.

    >>> feed_forward_width(catalog.get("Qwen3-30B-A3B").shape)
    6144
    """
    if not shape.num_experts:
        return _int(shape.intermediate_size)
    routed = _int(shape.num_experts_per_tok) * _int(shape.moe_intermediate_size)
    return routed + _int(shape.shared_expert_intermediate_size)


def _of_config(config: Any, name: str = "") -> Dimensions:
    """Read a configuration of transformers; the parameters are counted, not guessed."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or []
    linear = sum(kind == "linear_attention" for kind in kinds)
    heads = text.num_attention_heads
    copies = 1 if text.tie_word_embeddings else 2
    known = {key: getattr(text, key, None) for key in Shape.__dataclass_fields__}
    return Dimensions(
        name=name or config.name_or_path or config.model_type,
        parameters=count_parameters(config),
        tables=copies * text.vocab_size * text.hidden_size,
        tied=text.tie_word_embeddings,
        attention_layers=text.num_hidden_layers - linear,
        linear_layers=linear,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        hidden=text.hidden_size,
        feed_forward=feed_forward_width(Shape(**known)),
        linear_value_heads=getattr(text, "linear_num_value_heads", None) or 0,
    )


def count_parameters(config: Any) -> int:
    """Count the parameters of a configuration: built without memory, then counted."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; give a whole number from 1 up.")
    return value


def _int(value: int | None) -> int:
    return value or 0
