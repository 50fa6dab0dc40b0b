"""Fewer bits a weight: by hand, with a library, and in the KV cache."""

import contextlib
import copy
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.chat import chat
from qwen_course.processors import text_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


# By hand: from weights to whole numbers and back


@dataclass(frozen=True)
class Quantized:
    """A tensor in few bits: a code for each number, a scale (and zero) for each group.

    `codes` are (..., groups, size), whole numbers; `scales` and `zeros` (..., groups,
    1). With `levels`, a code is a place in that table instead.
    """

    codes: "torch.Tensor"
    scales: "torch.Tensor"
    shape: tuple[int, ...]
    bits: int
    zeros: "torch.Tensor | None" = None
    levels: "torch.Tensor | None" = None

    def dequantize(self) -> "torch.Tensor":
        """Return the numbers that the codes stand for, in the tensor's own shape."""
        if self.levels is not None:
            values = self.levels[self.codes.long()]
        else:
            values = self.codes.to(self.scales.dtype)
        if self.zeros is not None:
            values = values - self.zeros
        return (values * self.scales).reshape(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """What one number takes: its code, and its part of a 16-bit scale and zero."""
        each = 16 if self.zeros is None else 16 + self.bits
        return self.bits + each / self.codes.shape[-1]


def in_groups(weights: "torch.Tensor", size: int | None = None) -> "torch.Tensor":
    """Cut every row into groups: (..., row) becomes (..., groups, size).

    None keeps a row whole. Raises ValueError when the rows cannot be cut evenly.
    """
    row = weights.shape[-1]
    size = row if size is None else size
    if size < 1 or row % size:
        fitting = [n for n in (16, 32, 64, 128, 256) if row % n == 0]
        raise ValueError(
            f"a row of {row} weights cannot be cut into groups of {size}. Sizes that "
            f"fit: {', '.join(map(str, [*fitting, row]))}."
        )
    return weights.reshape(*weights.shape[:-1], row // size, size)


def absmax(
    weights: "torch.Tensor", bits: int = 8, group: int | None = None
) -> Quantized:
    """Round to whole multiples of a scale; the largest of a group sets its scale.

    Without `group` a row is one, as in bitsandbytes' int8. Raises ValueError for bits
    other than 2 to 8.

    >>> import torch
    >>> absmax(torch.tensor([[0.5, -2.0, 1.0]]), bits=4).codes.tolist()
    [[[2, -7, 4]]]
    """
    import torch

    rows = in_groups(weights, group).float()
    largest = 2 ** (_bits(bits) - 1) - 1  # 127 with 8 bits: -127 to 127
    peaks = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
    codes = torch.round(rows * (largest / peaks)).to(torch.int8)
    return Quantized(codes, peaks / largest, tuple(weights.shape), bits)


def affine(weights: "torch.Tensor", bits: int = 4, group: int | None = 64) -> Quantized:
    """Spread the codes from the smallest to the largest weight of a group.

    A zero point says which code means 0, so that no code is wasted where a group lies
    to one side. Raises ValueError for bits other than 2 to 8.

    >>> import torch
    >>> affine(torch.tensor([[0.0, 1.0, 3.0]]), bits=2, group=None).codes.tolist()
    [[[0, 1, 3]]]
    """
    import torch

    rows = in_groups(weights, group).float()
    steps = 2 ** _bits(bits) - 1
    low = rows.amin(dim=-1, keepdim=True).clamp(max=0)  # 0 must stay exact
    high = rows.amax(dim=-1, keepdim=True).clamp(min=0)
    scales = ((high - low) / steps).clamp(min=1e-30)
    zeros = torch.round(-low / scales)
    codes = (torch.round(rows / scales) + zeros).clamp(0, steps).to(torch.uint8)
    return Quantized(codes, scales, tuple(weights.shape), bits, zeros)


def nf4(weights: "torch.Tensor", group: int = 64) -> Quantized:
    """Take the nearest of 16 levels that lie dense where normal weights are.

    NormalFloat, from QLoRA (Dettmers et al., 2023, arXiv 2305.14314). The groups run
    through the whole tensor, as in bitsandbytes.
    """
    import torch

    rows = in_groups(weights.reshape(-1), group).float()
    peaks = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
    levels = nf4_levels().to(weights.device)
    between = (levels[1:] + levels[:-1]) / 2  # a weight above goes to the next level
    codes = torch.bucketize(rows * (1 / peaks), between).to(torch.uint8)
    return Quantized(codes, peaks, tuple(weights.shape), 4, levels=levels)


@functools.cache
def nf4_levels() -> "torch.Tensor":
    """Return the 16 levels of NF4, from -1 to 1.

    They are quantiles of a normal distribution: 8 above zero, 7 below, and zero. So
    each is used about equally often.

    >>> [round(level, 3) for level in nf4_levels().tolist()[6:9]]
    [-0.091, 0.0, 0.08]
    """
    import torch

    def quantiles(count: int) -> "torch.Tensor":
        # 0.9677083: how far out the last level lies, chosen by QLoRA.
        places = torch.linspace(0.9677083, 0.5, count + 1)[:-1]
        return torch.special.ndtri(places.double()).float()

    above, below = quantiles(8), -quantiles(7)
    levels = torch.cat([below, torch.zeros(1), above]).sort().values
    return levels / levels.max()


def pack(codes: "torch.Tensor") -> "torch.Tensor":
    """Put two codes of 4 bits into each byte, the first into the upper half.

    >>> import torch
    >>> pack(torch.tensor([1, 2, 15, 0], dtype=torch.uint8)).tolist()
    [18, 240]
    """
    return (codes[..., ::2] << 4) | codes[..., 1::2]


def unpack(packed: "torch.Tensor") -> "torch.Tensor":
    """Undo `pack`."""
    import torch

    return torch.stack([packed >> 4, packed & 15], dim=-1).flatten(-2)


def relative_error(weights: "torch.Tensor", restored: "torch.Tensor") -> float:
    """Return the error of restored weights against their size, both as RMS.

    >>> import torch
    >>> round(relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])), 3)
    0.1
    """
    return float((weights - restored).norm() / weights.norm())


def _bits(bits: int) -> int:
    if bits not in range(2, 9):
        raise ValueError(f"bits is {bits!r}; give a whole number from 2 to 8.")
    return bits


# A whole model


def linear_layers(model: "torch.nn.Module") -> dict[str, "torch.nn.Linear"]:
    """Return the linear layers that quantization changes, by name: not the output."""
    import torch

    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and not name.endswith("lm_head")
    }


def rounded(
    model: "PreTrainedModel",
    bits: int = 4,
    group: int | None = 64,
    method: Callable[..., Quantized] = affine,
) -> "PreTrainedModel":
    """Return a copy whose weights went to few bits and back.

    It answers as the quantized model would, at the speed and size of the old one: for
    measuring what any number of bits costs. The tables stay as they are.
    """
    result = copy.deepcopy(model)
    for layer in linear_layers(result).values():
        weight = layer.weight.data
        layer.weight.data = method(weight, bits, group).dequantize().to(weight.dtype)
    return result


def import_libraries(precision: str) -> None:
    """Import what loading at a precision needs, so that loading alone is timed."""
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    if "nf4" in precision or precision == "int8":
        with contextlib.suppress(ImportError):  # `load` says what is missing
            import bitsandbytes  # noqa: F401


def export(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: str | Path
) -> int:
    """Save a quantized model with its tokenizer; return the bytes of its weight files.

    `qc.load(folder)` reads it again: the precision is in its config.json. Raises
    ValueError where the saved file would be wrong: on a CPU with bf16 instructions,
    bitsandbytes repacks 4-bit weights when they are first used, and undoes that in
    saving only with double quantization.
    """
    from transformers.utils import logging as transformers_logging

    for name, parameter in model.named_parameters():
        state: Any = getattr(parameter, "quant_state", None)
        packed = getattr(state, "packing_format_for_cpu", False)
        if packed and not state.original_nested:
            raise ValueError(
                f"{name} was repacked for this CPU when the model was first used, and "
                "bitsandbytes would save it wrong. Load the model again and export it "
                'before it generates, or use precision="nf4".'
            )
    folder = Path(folder)
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    transformers_logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


# The KV cache in few bits


def quantized_cache(bits: int = 8, group: int | None = None) -> "Cache":
    """Return an empty KV cache for `generate` that keeps its numbers in few bits.

    Each key and each value of a head is quantized when it comes, in `group`s (None: the
    whole vector); two codes of 4 bits share a byte. A step restores all of them, so
    memory is saved and time is lost. Raises ValueError for bits other than 4 and 8.

    Example:
        model.generate(**inputs, past_key_values=quantized_cache(bits=4))
    """
    import torch
    from transformers.cache_utils import Cache, DynamicLayer

    if bits not in (4, 8):
        raise ValueError(f"bits is {bits!r}; this cache knows 4 and 8.")

    class Layer(DynamicLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            """Store what is new, and return everything; the new is still exact."""
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.stored: list[list[torch.Tensor]] = [[], []]
            both = []
            for number, new in enumerate((key_states, value_states)):
                old = self.stored[number]
                both.append(
                    torch.cat([_restore(old, new), new], dim=-2) if old else new
                )
                fresh = _store(affine(new, bits, group))
                self.stored[number] = [
                    torch.cat(pair, dim=2)
                    for pair in zip(
                        old or [f[:, :, :0] for f in fresh], fresh, strict=True
                    )
                ]
            return both[0], both[1]

        def get_seq_length(self) -> int:
            return self.stored[0][0].shape[2] if self.is_initialized else 0

    def _store(part: Quantized) -> list[torch.Tensor]:
        codes = pack(part.codes) if bits == 4 else part.codes
        zeros: Any = part.zeros  # a code itself, so it fits into a byte
        return [codes, part.scales.to(torch.float16), zeros.to(torch.uint8)]

    def _restore(stored: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        codes, scales, zeros = stored
        codes = unpack(codes) if bits == 4 else codes
        values = (codes.float() - zeros) * scales
        return values.flatten(-2).to(like.dtype)

    return Cache(layer_class_to_replicate=Layer)


@contextlib.contextmanager
def cached_in(model: "PreTrainedModel", make: Callable[[], "Cache"]) -> Iterator[None]:
    """Inside the block, `model.generate` uses a new cache of `make` at each call.

    Example:
        with cached_in(model, lambda: quantized_cache(bits=4)):
            evaluate(model, tokenizer, problems)
    """
    plain: Any = model.generate

    def generate(**arguments: Any) -> Any:
        return plain(past_key_values=make(), **arguments)

    model.generate = generate  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.generate


# On a small device


@dataclass(frozen=True)
class ShortReply:
    """An answer on a small device, and what of the question was read."""

    answer: str
    question_tokens: int
    dropped_tokens: int
    seconds: float


def mobile_inference(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    max_prompt_tokens: int = 512,
    max_new_tokens: int = 100,
    thinking: bool = False,
    **options: Any,
) -> ShortReply:
    """Answer within a small budget of tokens; a long question loses its middle.

    The question is cut before the template is laid around it, so that no control token
    is lost, and its end, where most people ask, stays. `options` go to `chat`. Raises
    ValueError for a budget below 1 and for an empty question.

    Example:
        mobile_inference(model, tokenizer, "What is 12 + 30?").answer  ->  "42"
    """
    if max_prompt_tokens < 1:
        raise ValueError(f"max_prompt_tokens is {max_prompt_tokens}; give 1 or more.")
    started = time.perf_counter()
    ids = text_tokenizer(tokenizer)(prompt, add_special_tokens=False)["input_ids"]
    dropped = max(0, len(ids) - max_prompt_tokens)
    if dropped:
        half = max_prompt_tokens // 2
        head, tail = ids[:half], ids[half - max_prompt_tokens :]
        prompt = f"{tokenizer.decode(head)} ... {tokenizer.decode(tail)}"
    reply = chat(
        model, tokenizer, prompt, thinking=thinking, max_new_tokens=max_new_tokens,
        **options,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return ShortReply(reply.answer, len(ids), dropped, seconds)
