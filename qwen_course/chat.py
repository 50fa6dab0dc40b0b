"""Talk to a model: one call from messages to a reply that shows its thinking."""

import contextlib
import html
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_course import media
from qwen_course.messages import Message, check_messages, encode
from qwen_course.processors import text_tokenizer
from qwen_course.thinking import budget_processor, check_budget, split_thinking

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Qwen3 documentation, quickstart: (with thinking, without).
QWEN3_SAMPLING = {
    True: {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
    False: {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
}
GREEDY = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}

OnText = Callable[[str, str], None]  # called with the thinking and answer so far


@dataclass(frozen=True)
class Usage:
    """What a reply cost, in tokens and seconds.

    `time_to_first_token` counts from the call; `seconds` is the whole call. In a
    batch both are those of the batch.
    """

    prompt_tokens: int
    thinking_tokens: int
    answer_tokens: int
    seconds: float
    time_to_first_token: float

    @property
    def tokens_per_second(self) -> float:
        """The speed of decoding, the first token and the prompt left out."""
        decoded = self.thinking_tokens + self.answer_tokens - 1
        seconds = self.seconds - self.time_to_first_token
        return decoded / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{self.prompt_tokens} prompt + {self.thinking_tokens} thinking + "
            f"{self.answer_tokens} answer tokens, {self.seconds:.2f} s, "
            f"first token after {self.time_to_first_token:.2f} s"
        )


@dataclass(frozen=True)
class Reply:
    """A model's reply: its thinking, its answer, what it cost.

    `messages` is the conversation with the reply at its end: append the next question
    and call `chat` again. `stopped` is "end" when the model ended its turn and
    "length" when `max_new_tokens` cut it off.
    """

    answer: str
    thinking: str
    usage: Usage
    stopped: str
    messages: list[Message] = field(repr=False)

    def __str__(self) -> str:
        head = f"[thinking]\n{self.thinking}\n[answer]\n" if self.thinking else ""
        cut = "\n[cut off: raise max_new_tokens]" if self.stopped == "length" else ""
        return f"{head}{self.answer}{cut}\n[{self.usage}]"

    def _repr_html_(self) -> str:
        return reply_html(self.thinking, self.answer, str(self.usage), self.stopped)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def reply_html(
    thinking: str,
    answer: str,
    note: str = "",
    stopped: str = "end",
    opened: bool = False,
) -> str:
    """Return a reply as HTML: thinking folded, answer, a small last line.

    All text is escaped: what a model writes never becomes part of the page.
    """
    parts = []
    if thinking:
        tag = "<details open>" if opened else "<details>"
        steps = f'<pre style="margin:4px 0 4px 16px">{html.escape(thinking)}</pre>'
        parts.append(f"{tag}<summary>Thinking</summary>{steps}</details>")
    parts.append(f'<p style="white-space:pre-wrap">{html.escape(answer)}</p>')
    if stopped == "length":
        parts.append("<p><em>Cut off: raise <code>max_new_tokens</code>.</em></p>")
    if note:
        parts.append(f'<p style="font-size:85%;opacity:.75">{html.escape(note)}</p>')
    return f'<div class="qwen-course-reply">{"".join(parts)}</div>'


def chat(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    messages: str | Sequence[Message],
    thinking: bool = True,
    thinking_budget: int | None = None,
    max_new_tokens: int = 256,
    sampling: str | dict[str, Any] = "recommended",
    seed: int | None = None,
    tools: list | None = None,
    stream: bool | OnText = False,
) -> Reply:
    """Send `messages` and return the reply.

    `messages` is a text or a list of `{"role": ..., "content": ...}`; with a processor
    in the tokenizer's place, its content may hold images and sounds. `thinking`
    switches Qwen3's thinking mode; `thinking_budget` closes it after so many tokens.
    `sampling` is "recommended" (Qwen's published values for the mode), "greedy", or a
    dict of `generate` arguments; a `seed` makes sampling repeatable. `stream=True`
    shows the text as it is written; a function is called with
    `(thinking_so_far, answer_so_far)`.

    Raises ValueError for malformed messages, a bad budget, an unknown sampling and a
    prompt that is longer than the model's context.

    Example:
        reply = chat(model, tokenizer, "What is 12 + 30?", thinking=True)
        reply.answer  ->  "42"
    """
    conversation = check_messages(messages)
    on_text = _live_display() if stream is True else (stream or None)
    replies = _reply_to(
        model, tokenizer, [conversation], thinking, thinking_budget,
        max_new_tokens, sampling, seed, [tools], on_text,
    )  # fmt: skip
    return replies[0]


def chat_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: Sequence[str | Sequence[Message]],
    thinking: bool = True,
    thinking_budget: int | None = None,
    max_new_tokens: int = 256,
    sampling: str | dict[str, Any] = "recommended",
    seed: int | None = None,
    tools: Sequence[list | None] | None = None,
) -> list[Reply]:
    """Answer several conversations in one left-padded batch; see `chat`.

    With greedy sampling each reply equals the one `chat` gives alone. `tools` holds
    one list of tools a conversation. Raises ValueError when their numbers differ.
    """
    checked = [check_messages(messages) for messages in conversations]
    each = list(tools) if tools is not None else [None] * len(checked)
    if len(each) != len(checked):
        raise ValueError(
            f"tools has {len(each)} entries for {len(checked)} conversations; give one "
            "list of tools (or None) for each."
        )
    if not checked:
        return []
    return _reply_to(
        model, tokenizer, checked, thinking, thinking_budget,
        max_new_tokens, sampling, seed, each, None,
    )  # fmt: skip


def complete_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    max_new_tokens: int = 256,
) -> list[Reply]:
    """Go on writing after bare texts, greedily, in one left-padded batch.

    There is no template and no turn: control tokens in a prompt count as such, as those
    of filling in the middle must. A reply ends where the model ends text or turn.
    """
    if not prompts:
        return []
    if hasattr(type(model), "reply_to"):
        raise ValueError(
            "a model behind a server answers conversations, no bare texts. Load the "
            "model here for these problems."
        )
    started = time.perf_counter()
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    room = _room(model, max(map(len, rows)), max_new_tokens)
    ids, mask = left_pad(rows, tokenizer.pad_token_id)
    ends = _end_ids(model, tokenizer)
    watch = _streamer(tokenizer, None)
    output: Any = model.generate(  # type: ignore[operator]
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=room,
        streamer=watch,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        **GREEDY,
    )
    seconds, first = time.perf_counter() - started, watch.first - started
    return [
        _completion(tokenizer, prompt, len(row), new.tolist(), ends, seconds, first)
        for prompt, row, new in zip(
            prompts, rows, output[:, ids.shape[1] :], strict=True
        )
    ]


def _completion(tokenizer, prompt, prompt_tokens, ids, ends, seconds, first) -> Reply:
    written, stopped = _until_end(ids, ends)
    usage = Usage(prompt_tokens, 0, len(written), seconds, first)
    message = {"role": "user", "content": prompt}
    return Reply(tokenizer.decode(written), "", usage, stopped, [message])


def _until_end(ids: list[int], ends: set[int]) -> tuple[list[int], str]:
    """Return the ids before the first end, and "end", or "length" if there is none."""
    length = next((n for n, token in enumerate(ids) if token in ends), len(ids))
    return ids[:length], "end" if length < len(ids) else "length"


def sampling_arguments(
    model: "PreTrainedModel", thinking: bool, sampling: str | dict[str, Any]
) -> dict[str, Any]:
    """Return the `generate` arguments for a sampling choice.

    Qwen3's own generation config holds the values for thinking only, so both modes
    are written down here; other generations bring theirs with the model.
    """
    if isinstance(sampling, dict):
        return {"do_sample": True, **sampling}
    if sampling == "greedy":
        return GREEDY
    if sampling == "recommended":
        if model.config.model_type in ("qwen3", "qwen3_moe"):
            return {"do_sample": True, **QWEN3_SAMPLING[thinking]}
        return {}
    raise ValueError(
        f'sampling "{sampling}" is not one of recommended, greedy; or give a dict such '
        'as {"temperature": 0.6, "top_p": 0.95}.'
    )


def left_pad(
    rows: Sequence[Sequence[int]], pad: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return `input_ids` and `attention_mask`, both (batch, tokens), padded left.

    Left, because generation goes on at the right end of every row.
    """
    import torch

    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def _reply_to(
    model, tokenizer, conversations, thinking, thinking_budget,
    max_new_tokens, sampling, seed, tools, on_text,
) -> list[Reply]:  # fmt: skip
    check_budget(thinking_budget)
    if thinking_budget is not None and not thinking:
        raise ValueError("thinking_budget needs thinking=True; you passed False.")
    if answer := getattr(type(model), "reply_to", None):  # it is behind a server
        return answer(
            model, conversations, thinking, thinking_budget, max_new_tokens,
            sampling, seed, tools, on_text,
        )  # fmt: skip
    started = time.perf_counter()
    rows = [
        encode(tokenizer, talk, thinking, its_tools)
        for talk, its_tools in zip(conversations, tools, strict=True)
    ]
    processor, tokenizer = tokenizer, text_tokenizer(tokenizer)
    seen, rows = _with_media(processor, conversations, rows)
    room = _room(model, max(map(len, rows)), max_new_tokens)
    ids, mask = left_pad(rows, tokenizer.pad_token_id)
    if "pixel_values" in seen:
        seen["mm_token_type_ids"] = media.token_types(ids, processor)
    watch = _streamer(tokenizer, on_text)
    processors = []
    if thinking_budget is not None:
        processors = [budget_processor(tokenizer, thinking_budget, ids.shape[1])]
    with _seeded(seed):
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            **{name: value.to(model.device) for name, value in seen.items()},
            max_new_tokens=room,
            logits_processor=processors,
            streamer=watch,
            pad_token_id=tokenizer.pad_token_id,
            **sampling_arguments(model, thinking, sampling),
        )
    seconds = time.perf_counter() - started
    first = watch.first - started
    ends = _end_ids(model, tokenizer)
    return [
        _reply(tokenizer, talk, len(row), generated.tolist(), ends, seconds, first)
        for talk, row, generated in zip(
            conversations, rows, output[:, ids.shape[1] :], strict=True
        )
    ]


def _with_media(processor, conversations, rows) -> tuple[dict[str, Any], list]:
    """Return the input of pictures and sounds, and the token ids with their tokens."""
    found = [item for talk in conversations for item in media.media(talk)]
    media.check_readable(processor, found)
    seen = media.prepare(processor, found)
    return seen, media.expand(rows, processor, media.token_counts(processor, seen))


def _room(model, prompt_tokens: int, max_new_tokens: int) -> int:
    """Return how many tokens may be generated; refuse a prompt without room for any."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise ValueError(f"max_new_tokens is {max_new_tokens!r}; give a whole number.")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; give 1 or more.")
    context = model.config.get_text_config().max_position_embeddings
    if prompt_tokens >= context:
        raise ValueError(
            f"the prompt has {prompt_tokens} tokens, but this model reads at most "
            f"{context}, the answer included. Shorten the text or drop old messages."
        )
    return min(max_new_tokens, context - prompt_tokens)


def _end_ids(model, tokenizer) -> set[int]:
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return {*ends, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}


def _reply(tokenizer, talk, prompt_tokens, ids, ends, seconds, first) -> Reply:
    written, stopped = _until_end(ids, ends)
    parts = split_thinking(written, tokenizer)
    thinking, answer = (
        tokenizer.decode(part, skip_special_tokens=True).strip() for part in parts[:2]
    )
    message: Message = {"role": "assistant", "content": answer}
    if thinking:
        message["reasoning_content"] = thinking
    usage = Usage(prompt_tokens, len(parts.thinking), len(parts.answer), seconds, first)
    return Reply(answer, thinking, usage, stopped, [*talk, message])


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Use `seed` inside the block and leave torch's own random state untouched."""
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _streamer(tokenizer, on_text: OnText | None):
    """Return a streamer that notes when the first token came and passes text on."""
    from transformers.generation.streamers import BaseStreamer

    class Watch(BaseStreamer):
        first = 0.0

        def __init__(self) -> None:
            self.ids: list[int] | None = None

        def put(self, value) -> None:
            if self.ids is None:  # the prompt comes first
                self.ids = []
                return
            self.first = self.first or time.perf_counter()
            if on_text:
                self.ids += value.flatten().tolist()
                parts = split_thinking(self.ids, tokenizer)
                text = [tokenizer.decode(part, skip_special_tokens=True).strip()
                        for part in parts[:2]]  # fmt: skip
                # A character cut in the middle of its bytes is shown when whole.
                on_text(*(piece.rstrip("\ufffd") for piece in text))

        def end(self) -> None:
            pass

    return Watch()


def _live_display() -> OnText:
    """Return a function that shows the text so far, in a notebook or a terminal."""
    from IPython.core.getipython import get_ipython

    if get_ipython() is None:
        return _print_new_text()
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)

    def update(thinking: str, answer: str) -> None:
        handle.update(HTML(reply_html(thinking, answer, opened=True)))

    return update


def _print_new_text() -> OnText:
    shown = {"thinking": 0, "answer": 0}

    def update(thinking: str, answer: str) -> None:
        if answer and not shown["answer"] and thinking:
            print("\n---")
        for name, text in (("thinking", thinking), ("answer", answer)):
            print(text[shown[name] :], end="", flush=True)
            shown[name] = max(shown[name], len(text))

    return update
