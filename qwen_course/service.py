"""A service around a model: many users at once, a queue, limits, and an end."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qwen_course.chat import Reply
from qwen_course.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Finish = Literal[
    "stop", "length", "tool_calls", "cancelled", "timeout", "refused", "error"
]


@dataclass(frozen=True)
class Served:
    """One finished request, as every observer is told of it.

    Times are seconds of `time.perf_counter()`: when the request was `queued`, `started`
    (its prompt began to be read; None if never), wrote its `first_token`, and `ended`.
    A request that its reader cancelled, or that was refused, is told of too.
    """

    request_id: str
    model: str
    stream: bool
    queued: float
    started: float | None
    first_token: float | None
    ended: float
    prompt_tokens: int
    thinking_tokens: int
    answer_tokens: int
    finish_reason: Finish
    error: str | None = None

    @property
    def output_tokens(self) -> int:
        """The tokens written, thinking and answer together."""
        return self.thinking_tokens + self.answer_tokens

    @property
    def seconds(self) -> float:
        """From the arrival of the request to its end."""
        return self.ended - self.queued

    @property
    def queue_seconds(self) -> float:
        """How long the request waited before the model began with it."""
        return (self.ended if self.started is None else self.started) - self.queued

    @property
    def time_to_first_token(self) -> float | None:
        """From the arrival to the first token, the wait included; None without one."""
        return None if self.first_token is None else self.first_token - self.queued

    @property
    def time_per_output_token(self) -> float | None:
        """The mean gap between two tokens; None with fewer than two."""
        if self.first_token is None or self.output_tokens < 2:
            return None
        return (self.ended - self.first_token) / (self.output_tokens - 1)

    @property
    def prefill_rate(self) -> float | None:
        """Prompt tokens a second, from the start to the first token."""
        if self.started is None or self.first_token is None:
            return None
        seconds = self.first_token - self.started
        return self.prompt_tokens / seconds if seconds > 0 else None

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second after the first one; None with fewer than two."""
        gap = self.time_per_output_token
        return 1 / gap if gap else None


Observer = Callable[[Served], Any]


class ServiceFull(RuntimeError):
    """The queue is full: the request was refused and costs nothing; try again later."""


class ServiceClosed(RuntimeError):
    """The service takes no more requests: it is being closed."""


@dataclass(frozen=True)
class Piece:
    """A piece of an answer while it is written: new text, and at the end the reply."""

    thinking: str = ""
    answer: str = ""
    reply: Reply | None = None


class QwenService:
    """The contract; the work is being written.

    `sampling` is a `Sampling`, or None for the model's recommended values; `tools` are
    functions or JSON schemas, as in `chat`.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_waiting: int = 64,
        max_batch: int = 16,
        timeout: float = 60,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.observers = list(observers)
        self.waiting = self.running = 0

    async def generate_async(
        self,
        messages: str | Sequence[Message],
        sampling: Any = None,
        *,
        tools: list | None = None,
        request_id: str | None = None,
    ) -> Reply:
        """Answer one conversation; raises ServiceFull, ServiceClosed, TimeoutError."""
        raise NotImplementedError

    def generate_batch(
        self,
        conversations: Sequence[str | Sequence[Message]],
        sampling: Any = None,
    ) -> list[Reply]:
        """Answer several conversations and wait for all; from ordinary code."""
        raise NotImplementedError

    def stream(
        self,
        messages: str | Sequence[Message],
        sampling: Any = None,
        *,
        tools: list | None = None,
        request_id: str | None = None,
    ) -> AsyncIterator[Piece]:
        """Yield pieces; the last one holds the whole reply."""
        raise NotImplementedError

    def close(self) -> None:
        """Take no more requests, and finish what was accepted."""
        raise NotImplementedError
