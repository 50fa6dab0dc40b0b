"""What a model that sees makes of a picture: patches, tokens, attention, drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course import media
from qwen_course.messages import Message, check_messages

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ImageCost:
    """How a picture is cut: patches of `patch` pixels, `merge` by `merge` a token.

    `wide`, `high` are the pixels after the picture was made to fit the grid.
    """

    wide: int
    high: int
    patch: int
    merge: int

    @property
    def patches(self) -> int:
        """How many patches the vision tower reads."""
        return self.wide * self.high // self.patch**2

    @property
    def tokens(self) -> int:
        """How many tokens the language model reads."""
        return self.patches // self.merge**2

    @property
    def grid(self) -> tuple[int, int]:
        """The tokens as (rows, columns)."""
        side = self.patch * self.merge
        return self.high // side, self.wide // side


def image_cost(
    processor: Any,
    image: Any,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> ImageCost:
    """Return what a picture costs; `min_pixels`, `max_pixels` bound its size.

    The picture is scaled, its sides rounded to whole tokens. None takes the bounds of
    the processor. Raises ValueError for a model that sees nothing, a picture that
    cannot be read, or bounds in the wrong order.

    Example:
        image_cost(processor, "chart.png", max_pixels=28 * 28 * 16).tokens
    """
    media.check_readable(processor, [("image", image)])
    tool = processor.image_processor
    low = min_pixels or tool.size["shortest_edge"]
    high = max_pixels or tool.size["longest_edge"]
    if low > high:
        raise ValueError(f"min_pixels is {low}, above max_pixels, which is {high}.")
    size = {"shortest_edge": low, "longest_edge": high}
    image = media.open_image(image)
    grid = tool(images=[image], size=size, return_tensors="pt")["image_grid_thw"]
    _, rows, columns = grid[0].tolist()
    patch = tool.patch_size
    return ImageCost(columns * patch, rows * patch, patch, tool.merge_size)


def show_patches(processor: Any, image: Any, **bounds: int) -> "Figure":
    """Draw the picture as the model gets it, with thin patches and thick tokens."""
    from matplotlib.figure import Figure

    cost = image_cost(processor, image, **bounds)
    seen = media.open_image(image).resize((cost.wide, cost.high))
    figure = Figure(figsize=(6, 6 * cost.high / cost.wide + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(seen)
    for step, width, colour in ((cost.patch, 0.4, "#888888"),
                                (cost.patch * cost.merge, 1.4, "#D55E00")):  # fmt: skip
        axes.vlines(range(0, cost.wide + 1, step), 0, cost.high, colour, lw=width)
        axes.hlines(range(0, cost.high + 1, step), 0, cost.wide, colour, lw=width)
    axes.set(xlabel="pixels", ylabel="pixels", xlim=(0, cost.wide),
             ylim=(cost.high, 0))  # fmt: skip
    axes.set_title(f"{cost.patches} patches, merged into {cost.tokens} tokens")
    return figure


@dataclass(frozen=True)
class ImageAttention:
    """Where a model looked while it wrote its answer.

    `tokens` are those of the answer, `maps` their attention to the picture, (tokens,
    rows, columns): the share of each place among all places of the picture.
    """

    image: "Image"
    tokens: tuple[str, ...]
    maps: "torch.Tensor"

    def plot(self, chosen: Sequence[int] | None = None) -> "Figure":
        """Draw the picture under the attention of some answer tokens, all by default.

        Raises ValueError for numbers that are none of the tokens'.
        """
        from matplotlib.figure import Figure

        numbers = list(range(len(self.tokens)) if chosen is None else chosen)
        wrong = [n for n in numbers if not 0 <= n < len(self.tokens)]
        if wrong or not numbers:
            raise ValueError(
                f"chosen is {numbers}; the answer has the tokens 0 to "
                f"{len(self.tokens) - 1}."
            )
        wide, high = self.image.size
        figure = Figure(
            figsize=(3.1 * len(numbers), 3.1 * high / wide + 0.5), layout="constrained"
        )
        rows = figure.subplots(1, len(numbers), squeeze=False)[0]
        for axes, number in zip(rows, numbers, strict=True):
            axes.imshow(self.image, alpha=0.6)
            axes.imshow(self.maps[number].numpy(), cmap="magma_r", alpha=0.55,
                        extent=(0, wide, high, 0))  # fmt: skip
            axes.set_title(repr(self.tokens[number]))
            axes.set_axis_off()
        return figure


def image_attention(
    model: "PreTrainedModel",
    processor: Any,
    messages: Sequence[Message],
    answer: str,
    layers: slice | None = None,
) -> ImageAttention:
    """Return where `answer` attends to the picture of the last question.

    The mean of all heads and of `layers`, by default the second half. Raises ValueError
    when the messages hold no picture, or more than one.
    """
    import torch

    talk = check_messages(messages)
    found = media.media(talk)
    if [kind for kind, _ in found] != ["image"]:
        raise ValueError(
            f"the messages hold {len(found)} pictures; attention is drawn for one."
        )
    inputs = _with_answer(processor, talk, found, answer)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others keep no attention
    try:
        with torch.no_grad():
            output = model(**inputs.tensors.to(model.device), output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    half = layers or slice(len(output.attentions) // 2, None)
    mean = torch.stack(output.attentions[half]).float().mean(dim=(0, 2))[0].cpu()
    # subtle: a token is written from the state of the one before it.
    looking = mean[inputs.first - 1 : -1][:, inputs.places]
    shares = looking / looking.sum(-1, keepdim=True)
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs.answer)
    words = [processor.tokenizer.convert_tokens_to_string([token]) for token in tokens]
    return ImageAttention(
        media.open_image(found[0][1]), tuple(words), shares.unflatten(1, inputs.grid)
    )


@dataclass(frozen=True)
class _Inputs:
    tensors: Any  # what the model is called with
    answer: list[int]
    first: int  # place of the first answer token
    places: "torch.Tensor"  # of the image tokens
    grid: tuple[int, int]


def _with_answer(processor: Any, talk, found, answer: str) -> _Inputs:
    import torch
    from transformers import BatchFeature

    from qwen_course.messages import encode

    seen = media.prepare(processor, found)
    counts = media.token_counts(processor, seen)
    [row] = media.expand([encode(processor, talk)], processor, counts)
    written = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not written:
        raise ValueError("the answer is empty; give the text that the model wrote.")
    ids = torch.tensor([row + written])
    types = media.token_types(ids, processor)
    merge = processor.image_processor.merge_size
    rows, columns = (int(n) // merge for n in seen["image_grid_thw"][0][1:])
    tensors = BatchFeature({"input_ids": ids, "mm_token_type_ids": types, **seen})
    places = types[0].nonzero().flatten()
    return _Inputs(tensors, written, len(row), places, (rows, columns))
