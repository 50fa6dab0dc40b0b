"""A service around a model: many users at once, a queue, limits, and an end.

`QwenService` takes requests from any number of tasks, lets transformers answer them in
one continuous batch, and tells its observers of every request that ended.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qwen_course.chat import Reply, Usage, sampling_arguments
from qwen_course.continuous import CACHE_BYTES, Batch, Request, check_model
from qwen_course.errors import suggest
from qwen_course.growing import Growing, Piece, opened_by, stop_processor
from qwen_course.inference import end_ids
from qwen_course.messages import Message, check_messages, encode
from qwen_course.thinking import budget_processor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

try:
    from pydantic import (
        BaseModel,
        ConfigDict,
        ValidationError,
        field_validator,
        model_validator,
    )
except ImportError as error:
    raise ImportError(
        "the service needs pydantic, which is not installed here. "
        'Type: python -m pip install "qwen-course[serve]"'
    ) from error

PACE = 0.02  # seconds between two pieces of a stream: nobody reads faster
log = logging.getLogger("qwen_course.service")
Result = TypeVar("Result")
Finish = Literal[
    "stop", "length", "tool_calls", "cancelled", "timeout", "refused", "error"
]


# What a request may ask for


class Sampling(BaseModel):
    """How one request is answered. What is None is what the model's authors recommend.

    `temperature` 0 is greedy; `top_k` 0 takes all tokens; `seed` makes sampling
    repeatable; the answer ends before the first text of `stop`. Raises ValueError for a
    value outside its range.

    Example:
        Sampling(temperature=0, thinking_budget=64)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_new_tokens: int = 256
    thinking: bool = True
    thinking_budget: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __init__(self, **wishes: Any) -> None:
        try:
            super().__init__(**wishes)
        except ValidationError as error:
            raise ValueError(in_one_sentence(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                fields = list(cls.model_fields)
                raise ValueError(
                    f'"{name}" is not one of {", ".join(fields)}.'
                    f"{suggest(str(name), fields)}"
                )
        return values

    @field_validator("temperature")
    @classmethod
    def _temperature(cls, value: float | None) -> float | None:
        return _between("temperature", value, 0, 2, "0 is greedy, 0.6 usual")

    @field_validator("top_p")
    @classmethod
    def _top_p(cls, value: float | None) -> float | None:
        return _between("top_p", value, 0, 1, "0.95 is usual, 1 takes all tokens")

    @field_validator("top_k")
    @classmethod
    def _top_k(cls, value: int | None) -> int | None:
        return _between("top_k", value, 0, 10**6, "20 is usual, 0 takes all tokens")

    @field_validator("max_new_tokens")
    @classmethod
    def _max_new_tokens(cls, value: int) -> int:
        if not 1 <= value <= 10**6:
            raise ValueError(f"max_new_tokens is {value}; give a number from 1 up.")
        return value

    @field_validator("seed")
    @classmethod
    def _seed(cls, value: int | None) -> int | None:
        return _between("seed", value, -(2**63), 2**64, "any whole number of 64 bits")

    @field_validator("stop", mode="before")
    @classmethod
    def _stop(cls, value: Any) -> Any:
        texts = (value,) if isinstance(value, str) else tuple(value or ())
        if len(texts) > 4 or not all(isinstance(t, str) and 0 < len(t) <= 64
                                     for t in texts):  # fmt: skip
            raise ValueError("stop must be at most 4 texts of 1 to 64 characters each.")
        return texts

    @model_validator(mode="after")
    def _budget(self) -> "Sampling":
        if self.thinking_budget is None:
            return self
        if self.thinking_budget < 1:
            raise ValueError(
                f"thinking_budget is {self.thinking_budget}; give a number of tokens "
                "from 1 up, or thinking=False to answer at once."
            )
        if not self.thinking:
            raise ValueError("thinking_budget needs thinking=True; you passed False.")
        return self


def in_one_sentence(error: ValidationError) -> str:
    """Return the first thing that is wrong: where, and what.

    pydantic quotes what was sent; an error and a log do better without.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    ours = "Value error, "  # a sentence of our own, which names the field
    if first["msg"].startswith(ours):
        return first["msg"].removeprefix(ours)
    where = ".".join(map(str, first["loc"]))[:80]
    return f"{where}: {first['msg']}" if where else first["msg"]


def _between(name: str, value: Any, low: float, high: float, words: str) -> Any:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} is {value}; give {low} to {high} ({words}).")
    return value


# What is told of a request


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


@dataclass(eq=False)
class _Job:
    """A request from its arrival to its end."""

    id: str
    talk: list[Message]
    sampling: Sampling
    stream: bool
    tools: bool
    loop: asyncio.AbstractEventLoop
    queued: float
    event: asyncio.Event = field(default_factory=asyncio.Event)
    ids: list[int] = field(default_factory=list)
    growing: Growing | None = None
    started: float | None = None
    first_token: float | None = None
    shown: float = 0.0  # when its reader last got something
    ended: float | None = None
    timer: asyncio.TimerHandle | None = None
    reply: Reply | None = None
    failure: Exception | None = None

    @property
    def done(self) -> bool:
        return self.reply is not None or self.failure is not None


# The service


class QwenService:
    """Answer many users at once with one model, in one continuous batch.

    At most `max_batch` requests are in work and `max_waiting` wait; one more is refused
    with ServiceFull. A request that is not finished `timeout` seconds after it came
    ends with TimeoutError. Each of `observers` is called with a `Served` when a request
    has ended, in the thread of the event loop that asked.

    It may be used from one event loop or several, and from ordinary code. Close it, or
    use it in a `with` or `async with` block, which does.

    Example:
        async with QwenService(*qc.load("pocket-qwen3")) as service:
            reply = await service.generate_async("What is 12 + 30?")
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        name: str | None = None,
        max_waiting: int = 64,
        max_batch: int = 16,
        timeout: float = 60,
        cache_bytes: int = CACHE_BYTES,
        observers: Sequence[Observer] = (),
    ) -> None:
        if max_batch < 1 or max_waiting < 0 or timeout <= 0:
            raise ValueError(
                f"max_batch is {max_batch}, max_waiting {max_waiting}, timeout "
                f"{timeout}; give 1 or more places, 0 or more waiting, some seconds."
            )
        check_model(model)
        self.model, self.tokenizer = model, tokenizer
        self.name = name or _name(model)
        self.max_waiting, self.max_batch, self.timeout = max_waiting, max_batch, timeout
        self.observers = list(observers)
        self._ends = end_ids(model) | ({tokenizer.eos_token_id} - {None})
        self._batch = Batch(model, self._ends, self._deliver, max_batch, cache_bytes)
        self._jobs: dict[str, _Job] = {}
        self._lock, self._closed = threading.Lock(), False
        # One thread renders and encodes prompts: a long one must not hold up the loop.
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="qwen-prompts")

    # Its state

    @property
    def running(self) -> int:
        """How many requests are in work."""
        return min(self._batch.running, len(self._jobs))

    @property
    def waiting(self) -> int:
        """How many requests were accepted and wait for a place."""
        return max(0, len(self._jobs) - self.running)

    @property
    def closed(self) -> bool:
        """Whether new requests are refused because the service is being closed."""
        return self._closed

    @property
    def context(self) -> int:
        """How many tokens a request may have, prompt and answer together."""
        return self._batch.longest

    # Asking

    async def generate_async(
        self,
        messages: str | Sequence[Message],
        sampling: Sampling | None = None,
        *,
        tools: list | None = None,
        request_id: str | None = None,
    ) -> Reply:
        """Answer one conversation while other tasks go on.

        Cancelling the task takes the request out of the batch. Raises ValueError for a
        request that cannot be answered, ServiceFull, ServiceClosed, TimeoutError, and
        RuntimeError when the model failed.
        """
        job = self._job(messages, sampling, tools, request_id, stream=False)
        try:
            await self._accept(job, tools)
            await job.event.wait()
            return _result(job)
        finally:
            self._leave(job)

    async def stream(
        self,
        messages: str | Sequence[Message],
        sampling: Sampling | None = None,
        *,
        tools: list | None = None,
        request_id: str | None = None,
    ) -> AsyncIterator[Piece]:
        """Yield the answer piece by piece; the last piece holds the reply.

        The pieces add up to `reply.thinking` and `reply.answer`. A reader that is slow
        gets larger ones and holds nobody up; one that leaves ends the request. Raises
        what `generate_async` raises, before the first piece or after any.
        """
        job = self._job(messages, sampling, tools, request_id, stream=True)
        try:
            await self._accept(job, tools)
            while not job.done:
                await job.event.wait()
                job.event.clear()
                piece = _growing(job).news(whole=job.done)
                if (piece.thinking or piece.answer) and not job.failure:
                    yield piece
            yield Piece(reply=_result(job))
        finally:
            self._leave(job)

    def generate_batch(
        self,
        conversations: Sequence[str | Sequence[Message]],
        sampling: Sampling | Sequence[Sampling | None] | None = None,
    ) -> list[Reply]:
        """Answer several conversations and wait for all of them, in ordinary code.

        `sampling` is one for all or one for each. With greedy sampling every reply is
        the one that the conversation gets alone. Raises what `generate_async` raises,
        and ValueError when the numbers differ.
        """
        each = (
            list(sampling)
            if isinstance(sampling, list | tuple)
            else [sampling] * len(conversations)
        )
        if len(each) != len(conversations):
            raise ValueError(
                f"sampling has {len(each)} entries for {len(conversations)} "
                "conversations; give one for all, or one for each."
            )
        return _run(self._answer_all(conversations, each))

    async def _answer_all(self, conversations, each) -> list[Reply]:
        places = asyncio.Semaphore(
            self.max_batch
        )  # a long list must not fill the queue

        async def one(messages, sampling) -> Reply:
            async with places:
                return await self.generate_async(messages, sampling)

        pairs = zip(conversations, each, strict=True)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*pair)) for pair in pairs]
        return [task.result() for task in tasks]

    def prompt_tokens(
        self,
        messages: str | Sequence[Message],
        thinking: bool = True,
        tools: list | None = None,
    ) -> int:
        """Return how many tokens a conversation has when the model reads it."""
        talk = check_messages(messages)
        return len(encode(self.tokenizer, talk, thinking, tools))

    # Its end

    def close(self) -> None:
        """Take no more requests, finish those that were accepted, and end.

        It waits for them, so call it outside the event loop that awaits them; `aclose`
        is for inside. To call it again does nothing. Raises RuntimeError where it would
        wait for itself.
        """
        with self._lock:
            self._closed = True
        while loops := {job.loop for job in self._open() if job.loop.is_running()}:
            if _running_loop() in loops:
                raise RuntimeError(
                    "close() would wait for requests of this event loop, and so for "
                    "ever. Type: await service.aclose()"
                )
            time.sleep(0.01)
        self._encoder.shutdown()
        self._batch.stop()

    async def aclose(self) -> None:
        """Close as `close` does, without holding up the event loop."""
        self._closed = True
        while self._jobs:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(self.close)

    def __enter__(self) -> "QwenService":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> "QwenService":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # From arrival to end

    def _open(self) -> list[_Job]:
        return list(self._jobs.values())

    def _job(self, messages, sampling, tools, request_id, stream: bool) -> _Job:
        """Check a request and give it a place in the queue, or refuse it."""
        job = _Job(
            id=request_id or f"chatcmpl-{uuid.uuid4().hex[:24]}",
            talk=[],
            sampling=sampling or Sampling(),
            stream=stream,
            tools=bool(tools),
            loop=asyncio.get_running_loop(),
            queued=time.perf_counter(),
        )
        with self._refusing(job):
            job.talk = check_messages(messages)
            with self._lock:
                self._check_room(job)
                self._jobs[job.id] = job
        return job

    def _check_room(self, job: _Job) -> None:
        if self._closed:
            raise ServiceClosed(
                "the service is closed. Start a new one: QwenService(model, tokenizer)."
            )
        if len(self._jobs) >= self.max_batch + self.max_waiting:
            raise ServiceFull(
                f"{self.max_batch} requests are in work and {self.max_waiting} wait. "
                "Try again in a moment, or raise max_waiting."
            )
        if job.id in self._jobs:
            raise ValueError(f'request_id "{job.id}" is in use; leave it out.')

    @contextlib.contextmanager
    def _refusing(self, job: _Job):
        """Tell the observers of a request that is refused."""
        try:
            yield
        except (ValueError, ServiceFull, ServiceClosed) as error:
            if self._jobs.get(job.id) is job:
                del self._jobs[job.id]
            self._tell(job, "refused", type(error).__name__)
            raise

    async def _accept(self, job: _Job, tools: list | None) -> None:
        """Encode the prompt of a request and put it into the batch."""
        job.timer = job.loop.call_later(self.timeout, self._expire, job)
        with self._refusing(job):
            try:
                job.ids = await job.loop.run_in_executor(
                    self._encoder, _encoded,
                    self.tokenizer, job.talk, job.sampling.thinking, tools,
                )  # fmt: skip
            except RuntimeError as error:  # the thread that encodes was ended
                raise ServiceClosed("the service is closed.") from error
            room = _room(len(job.ids), job.sampling.max_new_tokens, self.context)
            request = self._request(job, room)
        if job.done:  # its time is over
            return
        self._batch.add(request)

    def _request(self, job: _Job, room: int) -> Request:
        """Translate the wishes of a request into those of the batch."""
        wish = job.sampling
        opened = opened_by(job.ids, self.tokenizer)
        job.growing = Growing(self.tokenizer, opened, wish.stop)
        processors: list[Any] = []
        if wish.thinking_budget is not None:
            budget = wish.thinking_budget
            processors.append(
                budget_processor(self.tokenizer, budget, 0, opened=opened)
            )
        if wish.stop:
            end = min(self._ends)
            processors.append(stop_processor(self.tokenizer, opened, wish.stop, end))
        chosen = _sampling(self.model, wish)
        return Request(
            job.id, job.ids, room, **chosen, seed=wish.seed, processors=processors,
            stream=job.stream,
        )  # fmt: skip

    def _deliver(self, outputs: list[Any]) -> None:
        """Hand new outputs to the loops that wait for them; in the model's thread."""
        now = time.perf_counter()
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Any]]] = {}
        for output in outputs:
            if output.is_finished():
                self._batch.forget(output.request_id)
            job = self._jobs.get(output.request_id)
            if job and (output.is_finished() or now - job.shown >= PACE):
                # What is passed over comes with the next: an output holds all before.
                job.first_token, job.shown = job.first_token or now, now
                by_loop.setdefault(job.loop, []).append((job, output))
        for loop, pairs in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._feed, pairs)
            except RuntimeError:  # the loop was closed: nobody waits any more
                for job, _ in pairs:
                    self._jobs.pop(job.id, None)
                    self._batch.cancel(job.id)

    def _feed(self, pairs: list[tuple[_Job, Any]]) -> None:
        """Take in outputs; in the event loop of their requests."""
        for job, output in pairs:
            if job.done or job.growing is None:
                continue
            self._note(job, output)
            if output.is_finished():
                self._finish(job, output)
            job.event.set()

    def _note(self, job: _Job, output: Any) -> None:
        ids = itertools.takewhile(
            lambda t: t not in self._ends, output.generated_tokens
        )
        _growing(job).add(list(ids))
        if output.lifespan[0] > 0:
            job.started = output.lifespan[0]
        if output.timestamps:
            job.first_token = output.timestamps[0]

    def _finish(self, job: _Job, output: Any) -> None:
        if output.error:
            job.failure = RuntimeError(
                f"the model failed ({output.error}). The other requests go on; send "
                "this one again."
            )
            self._end(job, "error", "RuntimeError")
            return
        job.ended, growing = output.lifespan[1], _growing(job)
        last = output.generated_tokens[-1:]
        ended = bool(last) and last[0] in self._ends or growing.stopped
        job.reply = self._reply(job, "end" if ended else "length", job.ended)
        calls = job.tools and "<tool_call>" in job.reply.answer
        self._end(job, "tool_calls" if calls else "stop" if ended else "length")

    def _reply(self, job: _Job, stopped: str, ended: float) -> Reply:
        growing = _growing(job)
        thinking, answer = growing.text(True), growing.text(False)
        message: Message = {"role": "assistant", "content": answer}
        if thinking:
            message["reasoning_content"] = thinking
        usage = Usage(
            len(job.ids), growing.tokens[True], growing.tokens[False],
            ended - job.queued, (job.first_token or ended) - job.queued,
        )  # fmt: skip
        return Reply(answer, thinking, usage, stopped, [*job.talk, message])

    def _expire(self, job: _Job) -> None:
        """End a request whose time is over."""
        if job.done:
            return
        job.failure = TimeoutError(
            f"the answer took longer than {self.timeout:g} seconds, the wait included. "
            "Ask for fewer tokens, come back when fewer wait, or raise timeout."
        )
        self._take_out(job, "timeout")
        job.event.set()

    def _leave(self, job: _Job) -> None:
        """Take out a request that nobody waits for any more."""
        if not job.done:
            job.failure = asyncio.CancelledError()  # type: ignore[assignment]
            self._take_out(job, "cancelled")

    def _take_out(self, job: _Job, reason: Finish) -> None:
        if job.growing and (output := self._batch.so_far(job.id)):
            self._note(job, output)
        self._batch.cancel(job.id)
        self._end(job, reason, "TimeoutError" if reason == "timeout" else None)

    def _end(self, job: _Job, reason: Finish, error: str | None = None) -> None:
        """Forget a request and tell the observers; once."""
        if job.timer:
            job.timer.cancel()
        if self._jobs.pop(job.id, None) is job:
            self._tell(job, reason, error)

    def _tell(self, job: _Job, reason: Finish, error: str | None) -> None:
        tokens = job.growing.tokens if job.growing else {True: 0, False: 0}
        served = Served(
            job.id, self.name, job.stream, job.queued, job.started, job.first_token,
            job.ended or time.perf_counter(), len(job.ids),
            tokens[True], tokens[False], reason, error,
        )  # fmt: skip
        for observer in list(self.observers):
            try:
                observer(served)
            except Exception:  # whatever it raises, the answer must get out
                log.exception("an observer of the service failed")


def why_no_server() -> str | None:
    """Return why `qwen_course.server` cannot run here, and what to type; or None."""
    needed = ("fastapi", "uvicorn")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return (
        f"the server needs {' and '.join(missing)}, not installed here. "
        'Type: python -m pip install "qwen-course[serve]"'
    )


def _encoded(tokenizer, talk, thinking: bool, tools: list | None) -> list[int]:
    """Return the ids of a conversation; raise ValueError where the template fails."""
    from jinja2 import TemplateError

    try:
        return encode(tokenizer, talk, thinking, tools)
    except (
        TemplateError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"the chat template cannot render this conversation ({error}). Check its "
            "tools, its tool_calls, and that every text is made of whole characters."
        ) from error


def _result(job: _Job) -> Reply:
    if job.failure is not None:
        raise job.failure
    assert job.reply is not None
    return job.reply


def _growing(job: _Job) -> Growing:
    assert job.growing is not None
    return job.growing


def _room(prompt: int, max_new_tokens: int, context: int) -> int:
    """Return how many tokens may be written; refuse a prompt without room for any."""
    if prompt >= context:
        raise ValueError(
            f"the prompt has {prompt} tokens, but this service takes at most "
            f"{context}, the answer included. Shorten the text or drop old messages."
        )
    return min(max_new_tokens, context - prompt)


def _sampling(model, wish: Sampling) -> dict[str, Any]:
    """Return temperature, top_p and top_k: those that are asked for, or the model's."""
    names = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    usual = sampling_arguments(model, wish.thinking, "recommended")
    config = model.generation_config
    chosen: dict[str, Any] = {}
    for name, neutral in names.items():
        asked = getattr(wish, name)
        if asked is None:
            asked = usual.get(name, getattr(config, name, None))
        chosen[name] = neutral if asked is None else asked
    greedy = not usual.get("do_sample", config.do_sample)
    if greedy and wish.temperature is None:
        chosen["temperature"] = 0.0
    return chosen


def _name(model) -> str:
    """Return the name of a model: its Hub id, or its folder's name."""
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    return Path(name).name if Path(name).is_dir() else name


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, also inside a notebook, whose loop is running."""
    if _running_loop() is None:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
