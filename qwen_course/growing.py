"""The text of a reply while it grows: thinking and answer, piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_course.chat import Reply
from qwen_course.thinking import token_id

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_BLOCK = ("<think>", "</think>")


@dataclass(frozen=True)
class Piece:
    """A piece of an answer while it is written: new text, and at the end the reply."""

    thinking: str = ""
    answer: str = ""
    reply: Reply | None = None


class Growing:
    """The text of a reply while it grows: thinking and answer, every character whole.

    `opened` says that the prompt already opened the think block. A text of `stop` ends
    the answer before it.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", opened: bool, stop: Sequence[str]
    ) -> None:
        self._tokenizer, self._stop, self._inside = tokenizer, stop, opened
        self._start, self._end = (token_id(tokenizer, t) for t in _BLOCK)
        self._pending: list[int] = []
        self._text = {True: "", False: ""}
        self._shown = {True: 0, False: 0}
        self._read = 0
        self.tokens = {True: 0, False: 0}  # inside the think block, outside

    def add(self, ids: Sequence[int]) -> None:
        """Take in the ids written so far, of which the first ones are known."""
        for token in ids[self._read :]:
            if token == (self._end if self._inside else self._start):
                self._flush()
                self._inside = not self._inside
            else:
                self._pending.append(token)
                self.tokens[self._inside] += 1
        self._read = len(ids)
        if not self._decoded().endswith("\ufffd"):
            self._flush()

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._pending, skip_special_tokens=True))

    def _flush(self) -> None:
        self._text[self._inside] += self._decoded()
        self._pending = []

    @property
    def stopped(self) -> bool:
        """Whether a stop text was written."""
        return any(text in self._text[False] for text in self._stop)

    def text(self, inside: bool, whole: bool = True) -> str:
        """Return the thinking or the answer; unless `whole`, what is sure to stay."""
        if whole:
            self._flush()
        text = self._text[inside]
        return (text if inside else _before(text, self._stop, whole)).strip()

    def news(self, whole: bool = False) -> Piece:
        """Return the text that was not returned before."""
        new = {}
        for inside in (True, False):
            text = self.text(inside, whole)
            new[inside] = text[self._shown[inside] :]
            self._shown[inside] = max(self._shown[inside], len(text))
        return Piece(new[True], new[False])


def _before(text: str, stop: Sequence[str], whole: bool) -> str:
    """Cut a text before the first stop text; unless `whole`, before half of one too."""
    text = text[: min((text.find(one) for one in stop if one in text), default=None)]
    if whole:
        return text
    held = max(
        (n for one in stop for n in range(1, len(one)) if text.endswith(one[:n])),
        default=0,
    )
    return text[: len(text) - held]


def stop_processor(
    tokenizer: "PreTrainedTokenizerBase", opened: bool, stop: Sequence[str], end: int
) -> Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]:
    """Return a logits processor that ends the answer once it holds a stop text."""
    growing = Growing(tokenizer, opened, stop)

    def process(input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        growing.add(input_ids[0].tolist())
        if growing.stopped:
            scores = scores.new_full(scores.shape, -float("inf"))
            scores[:, end] = 0.0
        return scores

    return process


def opened_by(ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether a prompt ends inside a think block that it opened itself."""
    start, end = (token_id(tokenizer, text) for text in _BLOCK)
    for token in reversed(ids):
        if token in (start, end):
            return token == start
    return False
