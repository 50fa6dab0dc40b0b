"""What the catalogue knows about one checkpoint: a record, and its display."""

import re
from dataclasses import dataclass, fields
from typing import Any

from qwen_course.tables import as_html, as_text


@dataclass(frozen=True)
class Shape:
    """The dimensions of a text decoder, named as in `config.json`.

    The three parameter counts are computed from the dimensions: exact, without vision
    or audio towers and without a multi-token prediction head.
    """

    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    tie_word_embeddings: bool | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    shared_expert_intermediate_size: int | None = None
    full_attention_layers: int | None = None
    linear_num_key_heads: int | None = None
    linear_num_value_heads: int | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    non_embedding_parameters: int | None = None


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """One set of published weights: an id on the Hub and what is known about it.

    `thinking` is "none", "hybrid" (a switch) or "only". `released` is an ISO month or
    day. The published counts are Qwen's own, in billions of parameters.
    """

    id: str
    series: str
    generation: str
    kind: str
    architecture: str
    released: str | None
    published_billions: float
    published_active_billions: float | None
    published_non_embedding_billions: float | None
    native_context_tokens: int | None
    extended_context_tokens: int | None
    context_extension: str | None
    licence: str | None
    licence_name: str | None
    thinking: str
    languages: str | None
    training_tokens: str | None
    modalities: tuple[str, ...]
    verified: bool
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    shape: Shape

    @property
    def name(self) -> str:
        """The id without its owner: "Qwen3-0.6B"."""
        return self.id.partition("/")[2]

    @property
    def url(self) -> str:
        """The page of the checkpoint on the Hugging Face Hub."""
        return f"https://huggingface.co/{self.id}"

    @property
    def is_moe(self) -> bool:
        """Whether a token visits only some of the experts (mixture of experts)."""
        return self.published_active_billions is not None

    @property
    def is_base(self) -> bool:
        """Whether the weights were pre-trained only, and not taught to chat."""
        return self.kind == "base" or "Base checkpoint." in self.notes

    @property
    def total_parameters(self) -> int:
        """All parameters: computed for text models, else the published number."""
        computed = self.shape.parameters if self.modalities == ("text",) else None
        return computed or round(self.published_billions * 1e9)

    @property
    def active_parameters(self) -> int:
        """The parameters that one token visits; all of them in a dense model."""
        if self.published_active_billions is None:
            return self.total_parameters
        text_only = self.modalities == ("text",)
        computed = self.shape.active_parameters if text_only else None
        return computed or round(self.published_active_billions * 1e9)

    @property
    def size_label(self) -> str:
        """The size as the name says it, "0.6B" or "30B-A3B"; else from the counts."""
        found = re.search(r"(?<![\w.])\d+([._]\d+)?[BT](-A[\d.]+B)?", self.name)
        if found:
            return found[0].replace("_", ".")
        active = self.published_active_billions
        return f"{self.published_billions:g}B" + (f"-A{active:g}B" if active else "")

    def _facts(self) -> list[tuple[str, str]]:
        """List every known fact as words, those of the shape last."""
        pairs = [(f.name, getattr(self, f.name)) for f in fields(self)[:-1]]
        pairs += [(f.name, getattr(self.shape, f.name)) for f in fields(self.shape)]
        return [(key, _words(value)) for key, value in pairs if value not in (None, ())]

    def __repr__(self) -> str:
        return as_text(("fact", "value"), self._facts())

    def _repr_html_(self) -> str:
        return as_html(self.id, ("fact", "value"), self._facts())


def _words(value: Any) -> str:
    """Write a fact for reading: lists with semicolons, counts with commas."""
    if isinstance(value, tuple):
        return "; ".join(value)
    counted = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if counted else str(value)
