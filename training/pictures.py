"""Batches of pictures, each with several questions that share what was seen.

A picture is the expensive part of an example: half a hundred tokens in the language
model, and two hundred patches before. So each row holds it once, and its questions
side by side after it. Every question sees the picture and itself, and none of the
others, just as if it had been asked alone.
"""

import functools
import re
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch.nn import functional as F
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen2_5_vl
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
)

from qwen_course.tasks import printed_words
from qwen_course.tasks.charts import Chart, ChartProblem, Style, drawing
from qwen_course.tasks.charts.chart import (
    COLOURS,
    DAYS,
    LETTERS,
    MONTHS,
    NAMES,
    QUARTERS,
    TITLES,
)
from qwen_course.tasks.charts.drawing import CELL
from qwen_course.tasks.printed_words import Print
from training.data import IGNORE, Example
from training.muon import fast_precision
from training.trainer import BALANCE, cap

PATCH, MERGE = 14, 2
FRAMES = 2  # a picture is a film of two equal frames
PAD = "<|image_pad|>"
SMALLEST, LARGEST = 168 * 112, 252 * 196  # pixels; a picture outside is resized


# White becomes 0, and what is drawn stands out. With the usual mean of photos the paper
# would be the loudest part of a picture, and the model learns to look far later.
MEAN, STD = 0.95, 0.25
# The cap for text, 0.07, is too low here: half of a head turns fast with the place, and
# the rest has to tell one image token from fifty others.
LARGEST_RMS = 0.14


def image_processor() -> Qwen2VLImageProcessorPil:
    """Return Qwen2-VL's image processor on PIL, for pictures of our size."""
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": SMALLEST, "longest_edge": LARGEST},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
        patch_size=PATCH,
        merge_size=MERGE,
    )


class Look(NamedTuple):
    """Where a piece of an answer stands in the picture."""

    start: int  # of the piece, in characters of the answer
    end: int
    cells: tuple[tuple[int, int], ...]  # rows and columns of image tokens


class Seen(NamedTuple):
    """One picture, the questions about it, each with its answer, and what stands in it.

    `things` is (rows, columns, PARTS) of the image tokens, see `things_of_chart`;
    `looks` says for each answer where its pieces are read.
    """

    image: Image
    turns: list[tuple[str, str]]
    things: np.ndarray
    looks: list[list[Look]]

    @classmethod
    def of(cls, asked: list) -> "Seen":
        """Return the picture of some problems, which all are about the same one."""
        one, turns = asked[0], [(each.question, each.answer) for each in asked]
        if isinstance(one, ChartProblem):
            things = things_of_chart(one.chart, one.style)
            return cls(one.image, turns, things, [looks_of(each) for each in asked])
        things = things_of_words(one.words, one.look)
        return cls(one.image, turns, things, [[] for _ in asked])


# What an image token may stand for, in six parts. The first of each means: nothing.
NOTHING = ""
YEARS = tuple(map(str, range(1990, 2031)))
PARTS: dict[str, tuple[str, ...]] = {
    "text": tuple(dict.fromkeys(
        (NOTHING, *MONTHS, *DAYS, *QUARTERS, *YEARS, *NAMES, *LETTERS, *TITLES)
    )),
    "tens": (NOTHING, *map(str, range(11))),
    "ones": (NOTHING, *map(str, range(10))),
    "colour": (NOTHING, *COLOURS),
    "letter": (NOTHING, *LETTERS),
    "next letter": (NOTHING, *LETTERS),
}  # fmt: skip
PLACES = [{thing: n for n, thing in enumerate(part)} for part in PARTS.values()]
TEXT, TENS, ONES, COLOUR, LETTER, NEXT_LETTER = range(len(PARTS))


def things_of_chart(chart: Chart, style: Style) -> np.ndarray:
    """Return what each image token of a chart stands for, (rows, columns, PARTS).

    The token where a bar ends or a point stands is one of a value and a colour, and so
    is that of a printed value; that of the label below is one of text, value and
    colour: who asks for "May" finds all there.
    """
    things = np.zeros((style.size[1] // CELL, style.size[0] // CELL, len(PARTS)), int)
    labels, ends = drawing.labels(chart, style), drawing.points(chart, style)
    printed = drawing.printed(chart, style)
    for n, (label, (x, y)) in enumerate(zip(labels, ends, strict=True)):
        tens, ones = divmod(chart.values[n], 10)
        colour = PLACES[COLOUR][chart.colours[n % len(chart.colours)]]
        foot, end = _cell(*label.place), _cell(x, y)
        shown = [_cell(*text.place) for text in printed[n : n + 1]]
        for cell in (foot, end, *shown):
            things[cell][[TENS, ONES, COLOUR]] = tens + 1, ones + 1, colour
        things[foot][TEXT] = PLACES[TEXT][label.text]
    for cell in _title_cells(chart, style):
        things[cell][TEXT] = PLACES[TEXT][chart.title]
    return things


BY_LABEL = ("value", "some values", "compare", "colour")


def looks_of(problem: ChartProblem) -> list[Look]:
    """Return where the labels, values, colours and the title of an answer stand.

    A value and a colour are read where the label is, the token of which holds all.
    Answers that say none of them, such as a trend, are read nowhere in particular.
    """
    chart, answer = problem.chart, problem.answer
    assert chart is not None
    feet = [_cell(*text.place) for text in drawing.labels(chart, problem.style)]
    if problem.kind == "title":
        return [Look(0, len(answer), _title_cells(chart, problem.style))]
    if problem.kind in ("read", "colours"):
        places = range(len(feet))  # one after the other
        pieces = re.finditer(r"[^,]+", answer)
    elif problem.kind in ("highest", "lowest"):
        places = [chart.values.index(int(answer.split()[-1]))]
        pieces = re.finditer(r".+", answer)
    elif problem.kind == "by colour":
        places = [chart.colours.index(answer.split()[1])]
        pieces = re.finditer(r"\w+(?=\.$)", answer)
    elif chart.repeats or problem.kind not in BY_LABEL:
        return []
    else:
        known = "|".join(map(re.escape, chart.labels))
        pieces = list(re.finditer(rf"\b({known})\b(?: is \w+| \d+)?", answer))
        places = [chart.labels.index(piece[1]) for piece in pieces]
    return [
        Look(*piece.span(), (feet[n],)) for n, piece in zip(places, pieces, strict=True)
    ]


def _title_cells(chart: Chart, style: Style) -> tuple[tuple[int, int], ...]:
    """Return rows and columns of the image tokens under the title."""
    cells = []
    for text in drawing.title(chart, style):
        left, top, right, bottom = text.box
        row = _cell(0, (top + bottom) / 2)[0]
        first, last = round(left / CELL), max(1, round(right / CELL))
        cells += [(row, column) for column in range(first, last)]
    return tuple(cells)


def things_of_words(words: tuple[str, ...], look: Print) -> np.ndarray:
    """Return what each image token of printed words stands for: one or two letters."""
    things = np.zeros((look.size[1] // CELL, look.size[0] // CELL, len(PARTS)), int)
    for line in printed_words.letters(words, look):
        for letter in line:
            left, top, right, bottom = letter.box
            cell = _cell(letter.place[0], (top + bottom) / 2)
            part = NEXT_LETTER if things[cell][LETTER] else LETTER
            things[cell][part] = PLACES[part][letter.text]
    return things


def _cell(x: float, y: float) -> tuple[int, int]:
    """Return row and column of the image token with a pixel in it."""
    return int(y // CELL), int(x // CELL)


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


class Written(NamedTuple):
    """A question and its answer as tokens, and the characters of each of the answer."""

    example: Example
    places: list[tuple[int, int]]


def write(pictures: list[Seen], tokenizer: Any) -> list[list[Written]]:
    """Return one example a question, for each picture.

    All texts go through the tokenizer in one call, ten times as fast as one by one.
    """
    after = _frame(tokenizer)[1]
    turns = [turn for seen in pictures for turn in seen.turns]
    asked = tokenizer([question + after for question, _ in turns])["input_ids"]
    told = tokenizer(
        [f"{answer}<|im_end|>" for _, answer in turns], return_offsets_mapping=True
    )
    examples = (
        Written(Example(one + other, [False] * len(one) + [True] * len(other)), places)
        for one, other, places in zip(
            asked, told["input_ids"], told["offset_mapping"], strict=True
        )
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

    `input_ids`, `labels`, `real` and `weights` are (rows, tokens), `position_ids` is
    (3, rows, tokens), `attention_mask` (rows, 1, tokens, tokens), `looks` (rows,
    tokens, image tokens) and `patches` (rows, patches, numbers); `grid` holds the rows
    and columns of image tokens. Every answer has the same weight, however long: a title
    is one token among a hundred, and was never learnt.
    """
    shown = _shown(pictures)
    grid = tuple(shown["grid"].tolist())
    head = _before(tokenizer, grid[0] * grid[1])
    first = place(head, tokenizer.convert_tokens_to_ids(PAD), grid)
    written = write(pictures, tokenizer)
    sizes = [len(head) + sum(len(b.example.ids) for b in rest) for rest in written]
    length = multiple * -(-max(sizes) // multiple)
    count = len(pictures)
    ids = torch.full((count, length), tokenizer.pad_token_id)
    labels = torch.full((count, length), IGNORE)
    positions = torch.zeros((3, count, length), dtype=torch.long)
    owner = torch.full((count, length), -1)  # 0 the picture, then one a question
    looks = torch.zeros((count, length, grid[0] * grid[1]), dtype=torch.bool)
    weights = torch.zeros((count, length))
    after = int(first.max()) + 1
    ids[:, : len(head)] = torch.tensor(head)
    positions[:, :, : len(head)] = first[:, None]
    owner[:, : len(head)] = 0
    for row, branches in enumerate(written):
        used = len(head)
        for number, (branch, places) in enumerate(branches, start=1):
            size = len(branch.ids)
            at = used + size - len(places) - 1  # a token is read where it is foretold
            read = _reads(pictures[row].looks[number - 1], places, grid)
            looks[row, at : at + len(places)] = read
            here = slice(used, used + size)
            ids[row, here] = torch.tensor(branch.ids)
            learnt = torch.tensor(branch.learnt)
            labels[row, here] = torch.where(learnt, ids[row, here], IGNORE)
            weights[row, here] = learnt / len(places)
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
        "looks": looks,
        "weights": weights * (labels != IGNORE).sum() / weights.sum(),
        **shown,
    }


def _reads(
    looks: list[Look], places: list[tuple[int, int]], grid: tuple[int, int]
) -> torch.Tensor:
    """Return which image tokens each token of an answer is read from, as booleans."""
    read = torch.zeros((len(places), *grid), dtype=torch.bool)
    for look in looks:
        for n, (start, end) in enumerate(places):
            if max(start, look.start) < min(end, look.end):
                for row, column in look.cells:
                    read[n, row, column] = True
    return read.flatten(1)


def _shown(pictures: list[Seen]) -> dict:
    """Return what every batch of pictures holds: patches, things and grid."""
    things = torch.from_numpy(np.stack([seen.things for seen in pictures]))
    return {
        "patches": torch.from_numpy(patches([seen.image for seen in pictures])),
        "things": things.flatten(1, 2),
        "grid": torch.tensor(things.shape[1:3]),
    }


def pack_things(pictures: list[Seen]) -> dict:
    """Return one batch of pictures of one size, with what their image tokens are.

    There is no text. `labels` and `real`, which every batch has, are of those tokens.
    """
    shown = _shown(pictures)
    things = shown["things"]
    return {
        "labels": torch.where(things > 0, things, IGNORE),
        "real": torch.ones(things.shape[:2], dtype=torch.bool),
        **shown,
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


def add_thing_embeddings(model, tokenizer) -> None:
    """Give the model an embedding of every thing of PARTS, for the training alone.

    They are kept with the run, but are no part of the model: its `state_dict`, and so
    its checkpoint, is without them. As embeddings they are left to AdamW. A text or
    colour that is one token has that token's own embedding in their place: what is
    printed and what is written are then one thing, to be copied and to be found.
    """
    width = model.config.text_config.hidden_size
    names = token_names(tokenizer)
    model.thing_embeddings = torch.nn.Embedding(len(names), width)
    torch.nn.init.normal_(model.thing_embeddings.weight, std=0.02)
    model.register_buffer("thing_names", names, persistent=False)
    model.register_state_dict_post_hook(_without_thing_embeddings)


def token_names(tokenizer) -> torch.Tensor:
    """Return which tokens name a thing by themselves: 0 or 1, (things, vocabulary).

    A name at the start of a text and one after a space are two tokens; most things
    have both.
    """
    things = [(part, thing) for part, all in PARTS.items() for thing in all]
    names = torch.zeros(len(things), len(tokenizer))
    for n, (part, thing) in enumerate(things):
        if thing and part in ("text", "colour"):
            for ids in tokenizer([thing, f" {thing}"])["input_ids"]:
                if len(ids) == 1:
                    names[n, ids[0]] = 1
    return names


def _without_thing_embeddings(model, state, prefix, metadata) -> None:
    state.pop("thing_embeddings.weight", None)


def score_things(model, features: torch.Tensor) -> list[torch.Tensor]:
    """Return the scores of the things of each part, (images, tokens, things)."""
    names = model.thing_names
    tokens = model.get_input_embeddings().weight[: names.shape[1]]
    named = names.any(1, keepdim=True)
    known = torch.where(named, names @ tokens, model.thing_embeddings.weight)
    scores = F.linear(features, known)
    return list(scores.split([len(part) for part in PARTS.values()], dim=-1))


def seeing_loss(model, features: torch.Tensor, things: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropies of what each image token stands for, summed.

    `features` is (images, tokens, width), `things` (images, tokens, PARTS).
    """
    scores = score_things(model, features)
    return sum(
        F.cross_entropy(
            part.float().flatten(0, 1), things[..., n].flatten(), reduction="sum"
        )
        for n, part in enumerate(scores)
    )


@torch.no_grad()
def count_seen(model, packed: dict) -> tuple[int, int]:
    """Return how many tokens that stand for a thing are right, and how many do."""
    things = packed["things"].to(model.device)
    features = see(
        model.model.visual, packed["patches"].to(model.device), packed["grid"]
    )
    guesses = torch.stack([s.argmax(-1) for s in score_things(model, features)], -1)
    full = things.any(-1)
    right = (guesses == things).all(-1) & full
    return int(right.sum()), int(full.sum())


def _keep_products_small(model) -> None:
    """Cap the matrices for queries and keys, which Qwen2 does not normalize."""
    for layer in model.model.language_model.layers:
        cap(layer.self_attn.q_proj.weight, LARGEST_RMS)
        cap(layer.self_attn.k_proj.weight, LARGEST_RMS)
    for block in model.model.visual.blocks:
        for part in block.attn.qkv.weight.detach().chunk(3)[:2]:
            cap(part, LARGEST_RMS)


SEEING = 0.5  # weight of what the image tokens stand for, beside the text's losses
LOOKING = 0.3  # and of where the text is read
LOOKING_LAYER, LOOKING_HEADS = 2, 3  # where attention is told so: three of six heads


def losses(model, forward, packed: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross-entropies of the answers' tokens, and what seeing adds.

    Pictures without a text teach the vision tower alone. With one, both parts go on
    learning together; with a tower held still, reading came later.
    """
    _keep_products_small(model)
    precision = fast_precision(model.device)
    halved = precision != torch.float32
    with torch.autocast(model.device.type, precision, enabled=halved):
        features = see(forward.visual, packed["patches"], packed["grid"])
        seeing = seeing_loss(model, features, packed["things"])
        if "input_ids" not in packed:  # the language model is not trained yet
            return seeing, seeing.new_zeros(())
        loss, looking = reading_loss(model, forward, features, packed)
    # subtle: the trainer divides the first by the learnt tokens, and takes BALANCE
    # times the second.
    seeing = SEEING * seeing / packed["things"].count_nonzero()
    return loss, (seeing + LOOKING * looking) / BALANCE


def reading_loss(
    model, forward, features: torch.Tensor, packed: dict
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighed cross-entropies of the answers' tokens, and that of looking.

    Looking is the mean over what is read in the picture of -log of the attention that
    three heads of the third layer pay to the image tokens where it stands.
    """
    labels = packed["labels"][:, 1:]
    learnt = labels != IGNORE
    precision = fast_precision(model.device)
    blind = torch.finfo(precision).min
    mask = torch.where(packed["attention_mask"], 0.0, blind).to(precision)
    embedded = model.get_input_embeddings()(packed["input_ids"])
    is_image = packed["input_ids"] == model.config.image_token_id
    embedded = embedded.masked_scatter(is_image[..., None], features.to(embedded.dtype))
    output = forward.language_model(
        inputs_embeds=embedded,
        attention_mask=mask,
        position_ids=packed["position_ids"],
        use_cache=False,
        output_attentions=True,
    )
    logits = model.lm_head(output.last_hidden_state[:, :-1][learnt])
    each = F.cross_entropy(logits.float(), labels[learnt], reduction="none")
    loss = (each * packed["weights"][:, 1:][learnt]).sum()
    looks = packed["looks"]
    if not looks.any():
        return loss, loss.new_zeros(())
    first = int(is_image[0].nonzero()[0])
    paid = output.attentions[LOOKING_LAYER][:, :LOOKING_HEADS, :, first:]
    right = (paid[..., : looks.shape[-1]].float() * looks[:, None]).sum(-1)
    looked = right.transpose(1, 2)[looks.any(-1)]
    return loss, -looked.clamp_min(1e-6).log().mean()
