"""Batches of pictures, each with several questions that share what was seen.

A picture is the expensive part of an example: half a hundred tokens in the language
model, and two hundred patches before. So each row holds it once, and its questions
side by side after it. Every question sees the picture and itself, and none of the
others, just as if it had been asked alone.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch.nn import functional as F
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen2_5_vl
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
)

from training.data import IGNORE, Example
from training.muon import fast_precision

PATCH, MERGE = 14, 2
FRAMES = 2  # a picture is a film of two equal frames
PAD = "<|image_pad|>"
SMALLEST, LARGEST = 168 * 112, 224 * 168  # pixels; a picture outside is resized


# White becomes 0, and what is drawn stands out. With the usual mean of photos the paper
# would be the loudest part of a picture, and the model learns to look far later.
MEAN, STD = 0.95, 0.25


def image_processor() -> Qwen2VLImageProcessorPil:
    """Return Qwen2-VL's image processor on PIL, for pictures of our size."""
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": SMALLEST, "longest_edge": LARGEST},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
        patch_size=PATCH,
        merge_size=MERGE,
    )


class Seen(NamedTuple):
    """One picture and the questions about it, each with its answer."""

    image: Image
    turns: list[tuple[str, str]]


def patches(images: list[Image]) -> np.ndarray:
    """Return pictures of one size as patches: (images, patches, 2 x 3 x 14 x 14).

    The same numbers as the image processor's, all pictures at once.
    """
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    pixels = (pixels / 255 - MEAN) / STD
    count, height, width, _ = pixels.shape
    rows, columns = height // PATCH, width // PATCH
    cut = pixels.reshape(
        count, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3
    ).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    flat = cut.reshape(count, rows * columns, 3, 1, PATCH * PATCH)
    return flat.repeat(FRAMES, 3).reshape(count, rows * columns, -1)


@functools.lru_cache(maxsize=4)
def _frame(tokenizer: Any) -> tuple[str, str]:
    """Return what the template writes before the question, and after it."""
    content = [{"type": "image"}, {"type": "text", "text": "QUESTION"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=False,
        add_generation_prompt=True,
    )
    before, _, after = text.partition("QUESTION")
    return before, after


@functools.lru_cache(maxsize=32)
def _before(tokenizer: Any, tokens: int) -> list[int]:
    """Return the ids of what stands before a question, a picture's tokens included."""
    before = _frame(tokenizer)[0]
    return tokenizer(before.replace(PAD, PAD * tokens))["input_ids"]


def write(pictures: list[Seen], tokenizer: Any) -> list[list[Example]]:
    """Return one example a question, for each picture.

    All texts go through the tokenizer in one call, ten times as fast as one by one.
    """
    after = _frame(tokenizer)[1]
    turns = [turn for seen in pictures for turn in seen.turns]
    asked = tokenizer([question + after for question, _ in turns])["input_ids"]
    told = tokenizer([f"{answer}<|im_end|>" for _, answer in turns])["input_ids"]
    examples = (
        Example(one + other, [False] * len(one) + [True] * len(other))
        for one, other in zip(asked, told, strict=True)
    )
    return [[next(examples) for _ in seen.turns] for seen in pictures]


def place(ids: list[int], image_token: int, grid: tuple[int, int]) -> torch.Tensor:
    """Return the positions of M-RoPE, (3, tokens): time, row and column.

    Text counts on in all three; the tokens of a picture stand at one time, in its rows
    and columns; after it, counting goes on behind its longer side.
    """
    rows, columns = grid
    first = ids.index(image_token)
    after = len(ids) - first - rows * columns
    text = torch.arange(first).expand(3, -1)
    row, column = torch.meshgrid(
        torch.arange(rows), torch.arange(columns), indexing="ij"
    )
    zero = torch.zeros_like(row)
    picture = torch.stack([zero, row, column]).flatten(1) + first
    rest = torch.arange(after).expand(3, -1) + first + max(grid)
    return torch.cat([text, picture, rest], dim=1)


def pack(pictures: list[Seen], tokenizer: Any, multiple: int = 8) -> dict:
    """Return one batch of pictures of one size, with all their questions.

    `input_ids`, `labels` and `real` are (rows, tokens), `position_ids` is (3, rows,
    tokens), `attention_mask` (rows, 1, tokens, tokens) and `patches` (rows, patches,
    numbers); `grid` holds the rows and columns of image tokens.
    """
    width, height = pictures[0].image.size
    grid = height // (PATCH * MERGE), width // (PATCH * MERGE)
    head = _before(tokenizer, grid[0] * grid[1])
    first = place(head, tokenizer.convert_tokens_to_ids(PAD), grid)
    written = write(pictures, tokenizer)
    sizes = [len(head) + sum(len(b.ids) for b in rest) for rest in written]
    length = multiple * -(-max(sizes) // multiple)
    count = len(pictures)
    ids = torch.full((count, length), tokenizer.pad_token_id)
    labels = torch.full((count, length), IGNORE)
    positions = torch.zeros((3, count, length), dtype=torch.long)
    owner = torch.full((count, length), -1)  # 0 the picture, then one a question
    after = int(first.max()) + 1
    ids[:, : len(head)] = torch.tensor(head)
    positions[:, :, : len(head)] = first[:, None]
    owner[:, : len(head)] = 0
    for row, branches in enumerate(written):
        used = len(head)
        for number, branch in enumerate(branches, start=1):
            size = len(branch.ids)
            here = slice(used, used + size)
            ids[row, here] = torch.tensor(branch.ids)
            learnt = torch.tensor(branch.learnt)
            labels[row, here] = torch.where(learnt, ids[row, here], IGNORE)
            positions[:, row, here] = torch.arange(after, after + size)
            owner[row, here] = number
            used += size
    shared = (owner[:, :, None] == owner[:, None, :]) | (owner == 0)[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": positions,
        "real": owner >= 0,
        "attention_mask": (shared & causal)[:, None],
        "patches": torch.from_numpy(patches([seen.image for seen in pictures])),
        "grid": torch.tensor(grid),
    }


def see(visual: torch.nn.Module, pixels: torch.Tensor, grid: torch.Tensor):
    """Return the image tokens, (images, tokens, width), of pictures of one size.

    What the vision tower computes itself, but for all pictures at once: its own loop
    over each window of each picture takes as long as the arithmetic. A window is a mask
    here, so that nothing need be put in order.
    """
    hidden = F.linear(pixels, visual.patch_embed.proj.weight.flatten(1))
    rows, columns = grid.tolist()
    row, column = (axis.flatten() for axis in _patch_places(rows, columns, grid.device))
    cos, sin = visual.rotary_pos_emb(hidden, torch.stack([row, column], dim=1))
    side = visual.window_size // PATCH
    window = row // side * columns + column // side
    blind = torch.finfo(hidden.dtype).min
    mask = torch.where(window[:, None] == window[None, :], 0.0, blind).to(hidden.dtype)
    for number, block in enumerate(visual.blocks):
        near = None if number in visual.fullatt_block_indexes else mask
        hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin, near)
        hidden = hidden + block.mlp(block.norm2(hidden))
    return visual.merger(hidden).view(len(pixels), rows * columns, -1)


def _patch_places(rows: int, columns: int, device) -> list[torch.Tensor]:
    """Return row and column of each patch, in the order of the processor.

    The four patches that become one token stand together.
    """
    shape = (rows, columns, MERGE, MERGE)
    axes = [torch.arange(size, device=device) for size in shape]
    row, column, inner_row, inner_column = torch.meshgrid(*axes, indexing="ij")
    return [MERGE * row + inner_row, MERGE * column + inner_column]


def _attend(attention, hidden, cos, sin, mask) -> torch.Tensor:
    images, count, _ = hidden.shape
    parts = attention.qkv(hidden).view(images, count, 3, attention.num_heads, -1)
    query, key, value = parts.unbind(2)
    query, key = qwen2_5_vl.apply_rotary_pos_emb_vision(query, key, cos, sin)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    scores = query @ key.mT * attention.scaling
    scores = scores if mask is None else scores + mask
    weights = scores.softmax(-1).to(value.dtype)
    return attention.proj((weights @ value).transpose(1, 2).flatten(2))


def losses(model, forward, packed: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the cross-entropies of the answers' tokens, and no balance."""
    labels = packed["labels"][:, 1:]
    learnt = labels != IGNORE
    precision = fast_precision(model.device)
    blind = torch.finfo(precision).min
    mask = torch.where(packed["attention_mask"], 0.0, blind).to(precision)
    halved = precision != torch.float32
    with torch.autocast(model.device.type, precision, enabled=halved):
        features = see(forward.visual, packed["patches"], packed["grid"])
        embedded = model.get_input_embeddings()(packed["input_ids"])
        is_image = packed["input_ids"] == model.config.image_token_id
        embedded = embedded.masked_scatter(
            is_image[..., None], features.to(embedded.dtype)
        )
        output = forward.language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=packed["position_ids"],
            use_cache=False,
        )
        logits = model.lm_head(output.last_hidden_state[:, :-1][learnt])
    loss = F.cross_entropy(logits.float(), labels[learnt], reduction="sum")
    return loss, loss.new_zeros(())
