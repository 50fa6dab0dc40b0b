"""How a model writes: prefill and decoding, the KV cache, batches, drafts, long texts.

What `generate` does inside, in functions short enough to read. They decode greedily, so
that every way to be faster can be held against the plain way, token by token.
"""

import contextlib
import copy
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_course.chat import left_pad

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Cache = dict[int, tuple["torch.Tensor", "torch.Tensor"]]  # a layer: keys and values
Propose = Callable[[list[int], int], list[int]]  # the text so far, how many to draft


# One sequence


@dataclass(frozen=True)
class Written:
    """What a model wrote, and when: seconds from the start to each token."""

    ids: list[int]
    moments: tuple[float, ...]

    @property
    def time_to_first_token(self) -> float:
        """The seconds of the prefill and the first token."""
        return self.moments[0]

    @property
    def gaps(self) -> list[float]:
        """The seconds between each token and the one before it."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return [after - before for before, after in pairs]

    @property
    def tokens_per_second(self) -> float:
        """The speed of decoding, prefill and first token left out."""
        seconds = self.moments[-1] - self.moments[0]
        return (len(self.ids) - 1) / seconds if seconds > 0 else 0.0


def end_ids(model: "PreTrainedModel") -> set[int]:
    """Return the ids at which a model ends its text."""
    ends: Any = getattr(model.generation_config, "eos_token_id", None)
    return set(ends if isinstance(ends, list) else [ends]) - {None}


def write(
    model: "PreTrainedModel",
    ids: Sequence[int],
    max_new_tokens: int = 64,
    use_cache: bool = True,
    stop: bool = True,
) -> Written:
    """Write greedily after a prompt, one token at a time, and note when each was there.

    Without the cache the whole text is read again for every token. `stop=False` goes on
    after the end token, for measuring.

    Example:
        write(model, prompt).tokens_per_second
    """
    started, ends = time.perf_counter(), end_ids(model) if stop else set()
    new: list[int] = []
    moments: list[float] = []
    for token in itertools.islice(tokens(model, ids, use_cache), max_new_tokens):
        new.append(token)
        moments.append(time.perf_counter() - started)
        if token in ends:
            break
    return Written(new, tuple(moments))


def tokens(
    model: "PreTrainedModel", ids: Sequence[int], use_cache: bool = True
) -> Iterator[int]:
    """Yield one token after another, always the most likely one, without end."""
    import torch
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache(config=model.config) if use_cache else None
    text, unread = list(ids), list(ids)
    while True:
        row = torch.tensor([unread], device=model.device)
        with torch.no_grad():
            logits = model(
                row, past_key_values=cache, use_cache=use_cache, logits_to_keep=1
            ).logits
        token = int(logits[0, -1].argmax())
        yield token
        text.append(token)
        unread = [token] if use_cache else text


def stream(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[int],
    max_new_tokens: int = 64,
) -> Iterator[str]:
    """Yield the text piece by piece while it is written, every character whole.

    A character of several bytes may need several tokens: its first ones are held back
    until it is complete.
    """
    ends, new, shown = end_ids(model), list[int](), ""
    for token in itertools.islice(tokens(model, ids), max_new_tokens):
        if token in ends:
            return
        new.append(token)
        text = str(tokenizer.decode(new))
        if not text.endswith("\ufffd") and len(text) > len(shown):
            yield text[len(shown) :]
            shown = text


# The forward pass of Qwen3 with a cache that is a dictionary


def forward(
    model: "PreTrainedModel", ids: "torch.Tensor", cache: Cache
) -> "torch.Tensor":
    """Read `ids` (batch, tokens) after what is in `cache`; return the logits.

    `cache` holds the keys and values of each layer, (batch, heads, tokens, head_dim),
    and is extended; an empty one begins a text. Rows must be of one length. Raises
    ValueError for a model that is no dense Qwen3.

    Example:
        cache = {}
        forward(model, prompt, cache)   # prefill
        forward(model, token, cache)    # one step of decoding
    """
    import torch

    if model.config.model_type != "qwen3":
        raise ValueError(
            "this forward pass is made for qwen3 and not for "
            f"{model.config.model_type}. Call model(ids, past_key_values=...) instead."
        )
    body: Any = model.model
    start = cached_tokens(cache)
    positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
    states = body.embed_tokens(ids)
    angles = body.rotary_emb(states, positions)
    for number, layer in enumerate(body.layers):
        normed = layer.input_layernorm(states)
        states = states + attend(layer.self_attn, normed, angles, cache, number)
        states = states + layer.mlp(layer.post_attention_layernorm(states))
    head: Any = model.lm_head
    return head(body.norm(states))


def attend(
    layer: Any,
    states: "torch.Tensor",
    angles: tuple["torch.Tensor", "torch.Tensor"],
    cache: Cache,
    number: int,
) -> "torch.Tensor":
    """Return the attention of layer `number`, its new keys and values kept in `cache`.

    `states` are the new tokens, (batch, tokens, hidden); `angles` the cosines and sines
    of their positions.
    """
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

    shape = (*states.shape[:2], -1, layer.head_dim)
    queries = layer.q_norm(layer.q_proj(states).view(shape)).transpose(1, 2)
    keys = layer.k_norm(layer.k_proj(states).view(shape)).transpose(1, 2)
    values = layer.v_proj(states).view(shape).transpose(1, 2)
    queries, keys = apply_rotary_pos_emb(queries, keys, *angles)
    keys, values = _extend(cache, number, keys, values)
    mask = _causal(queries.shape[2], keys.shape[2], states.device)
    mixed = scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, enable_gqa=True
    )
    return layer.o_proj(mixed.transpose(1, 2).flatten(2))


def _extend(cache: Cache, number: int, keys, values):
    """Put new keys and values at the end of those of a layer; return them all."""
    import torch

    if number in cache:
        keys = torch.cat([cache[number][0], keys], dim=2)
        values = torch.cat([cache[number][1], values], dim=2)
    cache[number] = keys, values
    return keys, values


def _causal(new: int, total: int, device) -> "torch.Tensor":
    """Return (new, total): a new token sees what was cached and itself, none later."""
    import torch

    every = torch.ones(new, total, dtype=torch.bool, device=device)
    return every.tril(total - new)


def cached_tokens(cache: Cache) -> int:
    """Return how many tokens a cache holds."""
    return cache[0][0].shape[2] if cache else 0


# Many sequences: continuous batching


@dataclass(frozen=True)
class Stay:
    """When a request was in the batch: its place, its first pass, the one after it."""

    slot: int
    begin: int
    end: int


@dataclass(frozen=True)
class Served:
    """The answers to a queue of requests, and how the places of the batch were used.

    `passes` counts the steps of the batch: each writes one token for every request in
    it. A request that has ended but still takes its place is not counted in `used`.
    """

    outputs: list[list[int]]
    stays: list[Stay]
    places: int
    passes: int
    seconds: float

    @property
    def tokens(self) -> int:
        """How many tokens were written for all requests together."""
        return sum(map(len, self.outputs))

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all requests together, prefill included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def used(self) -> float:
        """The share of all places in all passes that wrote a token that was wanted."""
        return self.tokens / (self.places * self.passes)

    def plot(self) -> "Figure":
        """Draw each place as a row, each request as a bar from its first pass on."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 0.9 + 0.26 * self.places), layout="constrained")
        axes = figure.subplots()
        for number, stay in enumerate(self.stays):
            colour = ("#0072B2", "#56B4E9", "#E69F00", "#CC79A7")[number % 4]
            length = len(self.outputs[number])
            bar: dict[str, Any] = {"height": 0.85, "edgecolor": "white"}
            axes.barh(stay.slot, length, left=stay.begin, color=colour, **bar)
            axes.barh(stay.slot, stay.end - stay.begin - length,
                      left=stay.begin + length, color="#DDDDDD", **bar)  # fmt: skip
        axes.set_yticks(range(self.places))
        axes.set(xlabel="pass of the model", ylabel="place in the batch",
                 ylim=(self.places - 0.4, -0.6), xlim=(0, self.passes),
                 title=f"{self.passes} passes, {self.used:.0%} of the places "
                       "wrote a token")  # fmt: skip
        return figure


@dataclass
class _Batch:
    """The requests that are in work: one row each, padded on the left."""

    model: Any
    numbers: list[int] = field(default_factory=list)  # of the requests, row by row
    cache: Any = None
    mask: Any = None  # (rows, columns): 1 where a column holds a token of the row
    tokens: Any = None  # (rows,): the last token of each row, not yet read

    def join(self, numbers: list[int], rows: list[list[int]], pad: int) -> None:
        """Read new prompts and put them beside the rows that are in work."""
        import torch
        from transformers.cache_utils import DynamicCache

        ids, mask = (tensor.to(self.model.device) for tensor in left_pad(rows, pad))
        cache = DynamicCache(config=self.model.config)
        tokens = self._pass(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        if self.numbers:
            width = max(mask.shape[1], self.mask.shape[1])
            mask = torch.cat([_widen(self.mask, width, 1), _widen(mask, width, 1)])
            _stack(self.cache, cache, width)
            tokens = torch.cat([self.tokens, tokens])
        else:
            self.cache = cache
        self.numbers, self.mask, self.tokens = self.numbers + numbers, mask, tokens

    def step(self) -> None:
        """Read the last token of every row and write the next."""
        import torch

        places = self.mask.sum(1, keepdim=True)  # where the new token stands in its row
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        ids = self.tokens[:, None]
        self.tokens = self._pass(ids, self.mask, places, self.cache)

    def keep(self, rows: list[int]) -> None:
        """Let the other rows go, and with them the columns that nobody needs now."""
        import torch

        chosen = torch.tensor(rows, dtype=torch.long, device=self.tokens.device)
        self.numbers = [self.numbers[row] for row in rows]
        self.mask, self.tokens = self.mask[chosen], self.tokens[chosen]
        self.cache.batch_select_indices(chosen)
        if rows:
            first = int(self.mask.any(0).int().argmax())
            self.mask = self.mask[:, first:]
            for layer in self.cache.layers:
                layer.keys = layer.keys[:, :, first:]
                layer.values = layer.values[:, :, first:]

    def _pass(self, ids, mask, positions, cache):
        import torch

        with torch.no_grad():
            output = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions,
                past_key_values=cache, logits_to_keep=1,
            )  # fmt: skip
        return output.logits[:, -1].argmax(-1)


def _widen(tensor, width: int, dim: int):
    """Fill a tensor with zeros at its left along `dim`, up to `width`."""
    from torch.nn.functional import pad

    after = 2 * (tensor.dim() - 1 - dim)
    return pad(tensor, (0,) * after + (width - tensor.shape[dim], 0))


def _stack(cache, other, width: int) -> None:
    """Put the rows of `other` under those of `cache`, in every layer.

    subtle: keys were turned to their position when they were read, so it does not
    matter in which column they are kept. That is why padding may be added later.
    """
    import torch

    for mine, new in zip(cache.layers, other.layers, strict=True):
        for name in ("keys", "values"):
            both = [_widen(getattr(one, name), width, 2) for one in (mine, new)]
            setattr(mine, name, torch.cat(both))


def serve(
    model: "PreTrainedModel",
    rows: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int] = 64,
    places: int = 8,
    continuous: bool = True,
) -> Served:
    """Answer a queue of prompts with at most `places` of them in work, greedily.

    With `continuous`, a request that has ended leaves and the next one takes its place
    at once; without, a batch is full until its longest answer ends. Each request may
    have its own `max_new_tokens`. In fp32 every answer is the one `generate` gives
    alone. Raises ValueError for numbers below 1 and for limits that do not match.

    Example:
        serve(model, prompts, places=4).used  ->  0.93
    """
    limits = _limits(max_new_tokens, len(rows), places)
    pad, begun = model.generation_config.pad_token_id or 0, time.perf_counter()
    queue, batch = _Queue(limits, end_ids(model), places), _Batch(model)
    while queue.waiting or batch.numbers:
        new = queue.take() if continuous or not batch.numbers else []
        if batch.numbers:
            batch.step()
        if new:
            batch.join(new, [list(rows[number]) for number in new], pad)
        done = queue.note(batch.numbers, batch.tokens.tolist())
        if done and (continuous or len(done) == len(batch.numbers)):
            queue.release(done)
            batch.keep([r for r, n in enumerate(batch.numbers) if n not in done])
    seconds = time.perf_counter() - begun
    stays = [queue.stays[number] for number in range(len(rows))]
    return Served(queue.outputs, stays, places, queue.passes, seconds)


class _Queue:
    """The requests of `serve`: who waits, who is where, what was written."""

    def __init__(self, limits: list[int], ends: set[int], places: int) -> None:
        self.limits, self.ends, self.passes = limits, ends, 0
        self.outputs: list[list[int]] = [[] for _ in limits]
        self.waiting = deque(range(len(limits)))
        self.free = set(range(places))
        self.stays: dict[int, Stay] = {}

    def take(self) -> list[int]:
        """Give every free place to the next request; return those that were taken."""
        number = min(len(self.free), len(self.waiting))
        taken = [self.waiting.popleft() for _ in range(number)]
        for request in taken:
            slot = min(self.free)
            self.free.remove(slot)
            self.stays[request] = Stay(slot, self.passes, self.passes)
        return taken

    def note(self, numbers: list[int], tokens: list[int]) -> set[int]:
        """Keep the tokens of a pass; return the requests that have ended."""
        self.passes += 1
        for number, token in zip(numbers, tokens, strict=True):
            if not self._ended(number):
                self.outputs[number].append(token)
        return {number for number in numbers if self._ended(number)}

    def release(self, done: set[int]) -> None:
        """Free the places of requests that leave."""
        for number in done:
            stay = self.stays[number]
            self.stays[number] = Stay(stay.slot, stay.begin, self.passes)
            self.free.add(stay.slot)

    def _ended(self, number: int) -> bool:
        output = self.outputs[number]
        full = len(output) >= self.limits[number]
        return full or (bool(output) and output[-1] in self.ends)


def _limits(limit: int | Sequence[int], number: int, places: int) -> list[int]:
    limits = [limit] * number if isinstance(limit, int) else list(limit)
    if len(limits) != number:
        raise ValueError(
            f"max_new_tokens has {len(limits)} numbers for {number} requests; give one "
            "number, or one for each."
        )
    if places < 1 or min(limits, default=1) < 1:
        raise ValueError("places and max_new_tokens must be 1 or more.")
    return limits


# Drafts that the model checks: speculative decoding and prompt lookup


@dataclass(frozen=True)
class Speculation:
    """What was written with drafts: each round is (drafted, accepted, written)."""

    ids: list[int]
    rounds: list[tuple[int, int, int]]

    @property
    def tokens_per_pass(self) -> float:
        """How many tokens one pass of the model gave; without drafts it is 1."""
        return len(self.ids) / len(self.rounds)

    @property
    def acceptance(self) -> float:
        """The share of the drafted tokens that the model agreed with."""
        drafted = sum(one[0] for one in self.rounds)
        return sum(one[1] for one in self.rounds) / drafted if drafted else 0.0

    def marked(self, tokenizer: "PreTrainedTokenizerBase") -> str:
        """Return the text, what was accepted from drafts in [brackets].

        Outside stands what the model itself wrote, one token for each pass.
        """
        pieces, place = [], 0
        for _, accepted, written in self.rounds:
            taken = self.ids[place : place + min(accepted, written)]
            own = self.ids[place + len(taken) : place + written]
            pieces += [f"[{tokenizer.decode(taken)}]"] if taken else []
            pieces += [str(tokenizer.decode(own))] if own else []
            place += written
        return "".join(pieces)


def speculate(
    model: "PreTrainedModel",
    ids: Sequence[int],
    propose: Propose,
    drafted: int = 4,
    max_new_tokens: int = 64,
) -> Speculation:
    """Write greedily, letting `propose` draft tokens that one pass of the model checks.

    The model reads a whole draft at once, as it reads a prompt. What it would have
    written itself is kept, so in fp32 the text is that of plain greedy decoding.

    Example:
        speculate(model, prompt, lookup).tokens_per_pass  ->  1.7
    """
    import torch
    from transformers.cache_utils import DynamicCache

    cache, ends = DynamicCache(config=model.config), end_ids(model)
    text, rounds, read = list(ids), list[tuple[int, int, int]](), 0
    while len(text) - len(ids) < max_new_tokens and text[-1] not in ends:
        guess = propose(list(text), drafted)
        unread = torch.tensor([text[read:] + guess], device=model.device)
        with torch.no_grad():
            logits = model(
                unread, past_key_values=cache, logits_to_keep=len(guess) + 1
            ).logits[0]
        own = logits.argmax(-1).tolist()  # own[n] is what follows n guesses
        right = agreed(guess, own)
        if right < len(guess):
            cache.crop(right - len(guess))  # forget the guesses that were wrong
        new = _until(own[: right + 1], ends)[: max_new_tokens + len(ids) - len(text)]
        read = len(text) + right
        text += new
        rounds.append((len(guess), right, len(new)))
    return Speculation(text[len(ids) :], rounds)


def agreed(guess: Sequence[int], own: Sequence[int]) -> int:
    """Return how many tokens at the beginning are the same.

    >>> agreed([5, 6, 7], [5, 6, 8, 9])
    2
    """
    pairs = enumerate(zip(guess, own, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(guess), len(own)))


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """Return the ids up to the first end, the end with them."""
    end = next((n for n, token in enumerate(ids) if token in ends), len(ids))
    return ids[: end + 1]


def lookup(text: Sequence[int], drafted: int, longest: int = 3) -> list[int]:
    """Draft by looking back: what followed the last few tokens when they came before?

    Tries the last `longest` tokens first, then fewer; an empty list if none did.

    >>> lookup([1, 2, 3, 9, 1, 2], 2)
    [3, 9]
    """
    text = list(text)
    for size in range(min(longest, len(text) - 1), 0, -1):
        end = text[-size:]
        for start in range(len(text) - size - 1, -1, -1):
            if text[start : start + size] == end:
                return text[start + size : start + size + drafted]
    return []


class Draft:
    """A smaller model of the same vocabulary that drafts; keeps a cache of its own.

    Example:
        speculate(model, prompt, Draft(small_model)).acceptance
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        from transformers.cache_utils import DynamicCache

        self.model = model
        self.cache = DynamicCache(config=model.config)
        self.read: list[int] = []

    def __call__(self, text: list[int], drafted: int) -> list[int]:
        import torch

        same = min(agreed(self.read, text), len(text) - 1)
        if same < len(self.read):
            self.cache.crop(same - len(self.read))
        unread, guess = text[same:], list[int]()
        with torch.no_grad():
            for _ in range(drafted):
                row = torch.tensor([unread], device=self.model.device)
                logits = self.model(row, past_key_values=self.cache).logits
                unread = [int(logits[0, -1].argmax())]
                guess += unread
        self.read = text + guess[:-1]
        return guess


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Return the tokens of one pass if each drafted one is right with `acceptance`.

    The first wrong guess ends a round: 1 + a + a^2 + ... (Leviathan et al., 2023,
    arXiv 2211.17192, equation 1).

    >>> round(expected_tokens(0.8, 4), 2)
    3.36
    """
    return sum(acceptance**n for n in range(drafted + 1))


def expected_speedup(acceptance: float, drafted: int, cost: float) -> float:
    """Return how many times faster drafting is; `cost` is a draft token in passes.

    >>> round(expected_speedup(0.8, 4, 0.1), 2), round(expected_speedup(0.8, 4, 1.0), 2)
    (2.4, 0.67)
    """
    return expected_tokens(acceptance, drafted) / (1 + drafted * cost)


# Settings of torch


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute with so many threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def compiled_feed_forward(model: "PreTrainedModel", **options: Any) -> Iterator[None]:
    """Compile the feed-forward blocks of a model with `torch.compile` in the block.

    They hold most weights of a layer and have the same code in each, so it is compiled
    once for all. subtle: a whole layer would be compiled anew for each number, because
    it names its number to the cache. `options` are those of `torch.compile`.
    """
    import torch

    inner: Any = model.model
    blocks = [layer.mlp for layer in inner.layers]
    before = [block.forward for block in blocks]
    try:
        for block in blocks:
            block.forward = torch.compile(block.forward, **options)
        yield
    finally:
        for block, plain in zip(blocks, before, strict=True):
            block.forward = plain
        torch._dynamo.reset()


# Long texts


def with_yarn(
    model: "PreTrainedModel", factor: float, trained: int | None = None
) -> "PreTrainedModel":
    """Return a model that reads texts `factor` times as long: YaRN, without training.

    `trained` is the longest text of the training, in tokens (None: what the
    configuration says). Slow angles of RoPE are slowed down by the factor, quick ones
    are left as they are (Peng et al., 2023, arXiv 2309.00071). The weights are shared
    with `model`, so it takes no memory. Raises ValueError for a factor below 1.

    Example:
        with_yarn(model, 2.0, trained=416).config.max_position_embeddings  ->  832
    """
    import torch

    if factor < 1:
        raise ValueError(f"factor is {factor}; YaRN needs a factor of 1 or more.")
    config = copy.deepcopy(model.config)
    trained = trained or config.max_position_embeddings
    config.rope_parameters = {
        "rope_type": "yarn",
        "rope_theta": config.rope_parameters["rope_theta"],
        "factor": float(factor),
        "original_max_position_embeddings": trained,
    }
    config.max_position_embeddings = int(factor * trained)
    with torch.device("meta"):
        longer: Any = type(model)(config)
    longer.load_state_dict(model.state_dict(), assign=True)
    longer.tie_weights()
    longer.model.rotary_emb = type(longer.model.rotary_emb)(config).to(model.device)
    longer.generation_config = copy.deepcopy(model.generation_config)
    return longer.eval()


def loss_after(
    model: "PreTrainedModel", prompt: Sequence[int], answer: Sequence[int]
) -> float:
    """Return how badly a model expects `answer` after `prompt`: nats for one token.

    0 is certainty; the logarithm of the vocabulary's size is a blind guess.
    """
    import torch

    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    with torch.no_grad():
        logits = model(ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
    target = torch.tensor(list(answer), device=model.device)
    return float(torch.nn.functional.cross_entropy(logits.float(), target))
