"""A server around a service: HTTP in the OpenAI form, which every client speaks.

`create_app` returns a FastAPI application; `serve` runs it until it is told to stop,
and then finishes the answers it has begun.
"""

import asyncio
import contextlib
import json
import math
import signal
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qwen_course.chat import Reply
from qwen_course.cleaning import Refused, read_body
from qwen_course.errors import suggest
from qwen_course.messages import Message
from qwen_course.service import (
    Piece,
    QwenService,
    Sampling,
    ServiceClosed,
    ServiceFull,
    in_one_sentence,
)
from qwen_course.tools import ToolCall, split_tool_calls

try:
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response, StreamingResponse
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
except ImportError as error:
    raise ImportError(
        f"the server needs {error.name}, which is not installed here. "
        'Type: python -m pip install "qwen-course[serve]"'
    ) from error

if TYPE_CHECKING:
    from qwen_course.monitoring import QwenMonitor
    from qwen_course.security import Guard

MAX_BODY = 1_000_000  # bytes
BODY_SECONDS = 30  # a client that sends a byte a minute must not stay for days
OWNER = "qwen-course"
Result = TypeVar("Result")

# Fields of the OpenAI form that this server does not have. With the value that changes
# nothing they are accepted; those that never change the answer are not even looked at.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "top_logprobs": (0,),
}
IGNORED = (
    "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store",
    "user",
)  # fmt: skip


# What comes in


class Switches(BaseModel):
    """What the chat template gets: the switch of thinking, and a budget beside it."""

    model_config = ConfigDict(extra="forbid")

    enable_thinking: bool = True
    thinking_budget: int | None = None


class StreamOptions(BaseModel):
    """Whether the last piece of a stream tells the tokens."""

    include_usage: bool = False


class ChatMessage(BaseModel):
    """A message of a conversation; the content is a text, or parts of type text."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatRequest(BaseModel):
    """The body of a request for an answer, as the OpenAI form has it."""

    model_config = ConfigDict(extra="allow")

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    chat_template_kwargs: Switches | None = None

    def conversation(self) -> list[Message]:
        """Return the messages as the chat template wants them."""
        return [_message(number, one) for number, one in enumerate(self.messages)]

    def sampling(self) -> Sampling:
        """Return how the answer is to be written; raises ValueError."""
        switches = self.chat_template_kwargs or Switches()
        limit = self.max_completion_tokens or self.max_tokens
        wishes: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": limit,
            "seed": self.seed,
            "stop": self.stop,
            "thinking": switches.enable_thinking,
            "thinking_budget": switches.thinking_budget,
        }
        return Sampling(**{name: v for name, v in wishes.items() if v is not None})

    def check(self) -> None:
        """Raise ValueError for a field that would silently not be obeyed."""
        if self.max_tokens == 0 or self.max_completion_tokens == 0:
            raise ValueError("max_tokens is 0; give 1 or more.")
        known = [*type(self).model_fields, *NEUTRAL, *IGNORED]
        fields = {**(self.model_extra or {}), "tool_choice": self.tool_choice}
        for name, value in fields.items():
            if name not in known:
                near = suggest(name, known)
                raise ValueError(f'the field "{name[:80]}" is not known here.{near}')
            if value is not None and value not in NEUTRAL.get(name, (value,)):
                usual = " or ".join(map(json.dumps, NEUTRAL[name]))
                raise ValueError(
                    f'"{name}" is not supported, except {usual}. Leave it out.'
                )


def _message(number: int, given: ChatMessage) -> Message:
    message: Message = {"role": given.role, "content": _text(number, given.content)}
    if given.role == "developer":  # OpenAI's later name for it
        message["role"] = "system"
    for name in ("name", "tool_call_id", "reasoning_content", "seal"):
        value = (given.model_extra or {}).get(name)
        if value is not None:
            if not isinstance(value, str):
                raise ValueError(f'message {number} has a "{name}" that is no text.')
            message[name] = value
    if given.tool_calls:
        message["tool_calls"] = [_call(number, call) for call in given.tool_calls]
    return message


def _text(number: int, content: str | list[dict[str, Any]] | None) -> str:
    """Return a content as one text; parts that are no text are refused."""
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(
                f"message {number} holds a part that is no text. This server reads "
                'text alone: {"type": "text", "text": ...}.'
            )
    return "".join(part["text"] for part in content)


def _call(number: int, call: dict[str, Any]) -> dict[str, Any]:
    """Return a call of the wire as the template wants it: its arguments read."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f'message {number} has a call without {{"function": ...}}.')
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    named = {"name": function["name"], "arguments": arguments}
    return {"type": "function", "function": named}


async def read_request(request: Request, most: int = MAX_BODY) -> ChatRequest:
    """Read and check a body; refuse one that is wrong, too large or too slow."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request, most)
    except TimeoutError as error:
        raise Refused(
            f"The body did not arrive within {BODY_SECONDS} seconds.",
            "Send it at once.", 408, "too-slow",
        ) from error  # fmt: skip
    asked = ChatRequest.model_validate(read_body(body, most))
    asked.check()
    return asked


async def _body(request: Request, most: int) -> bytes:
    """Return a body; of one that is too large no more than `most` bytes are kept."""
    body, size = b"", 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= most:
            body += chunk
        elif size > 16 * most:
            break  # until here it is read to its end, or the refusal would not arrive
    if size > most:
        raise Refused(
            f"The body has more than {most} bytes.", "Send less.", 413, "too-large"
        )
    return body


# What goes out


class Wire:
    """Writes replies in the OpenAI form, whole or in pieces."""

    def __init__(self, model: str, tools: bool) -> None:
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex[:24]}", int(time.time())
        self.model, self.tools, self._held = model, tools, ""

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return a whole answer."""
        text, calls = self._calls(reply.answer)
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if not calls:
            message["content"] = text
        if reply.thinking:
            message["reasoning_content"] = reply.thinking
        if calls:
            message["tool_calls"] = [_wired(call) for call in calls]
        if seal := reply.messages[-1].get("seal"):
            message["seal"] = seal
        choice = {"index": 0, "message": message, "logprobs": None,
                  "finish_reason": _finish(reply, calls)}  # fmt: skip
        return {**self._head("chat.completion"), "choices": [choice],
                "usage": usage(reply)}  # fmt: skip

    def pieces(self, piece: Piece, include_usage: bool) -> list[dict[str, Any]]:
        """Return the chunks for a piece of an answer."""
        if piece.reply is None:
            delta = {}
            if piece.thinking:
                delta["reasoning_content"] = piece.thinking
            if text := self._outside_calls(piece.answer):
                delta["content"] = text
            return [self._chunk(delta)] if delta else []
        reply = piece.reply
        text, calls = self._calls(reply.answer)
        last: list[dict[str, Any]] = []
        if self._held:  # a call began and is none: it is text after all
            last.append({"content": self._held} if not calls else {})
        last += [{"tool_calls": [{"index": n, **_wired(call)}]}
                 for n, call in enumerate(calls)]  # fmt: skip
        if seal := reply.messages[-1].get("seal"):
            last.append({"seal": seal})
        chunks = [self._chunk(delta) for delta in last if delta]
        chunks.append(self._chunk({}, _finish(reply, calls)))
        if include_usage:
            end = self._head("chat.completion.chunk")
            chunks.append({**end, "choices": [], "usage": usage(reply)})
        return chunks

    def first(self) -> dict[str, Any]:
        """Return the chunk that opens a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def _head(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created}
        return {**head, "model": self.model}

    def _chunk(
        self, delta: dict[str, Any], finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _calls(self, answer: str) -> tuple[str, list[ToolCall]]:
        """Return the words and the calls of an answer; a broken call is text."""
        if self.tools:
            with contextlib.suppress(ValueError):
                words, calls = split_tool_calls(answer)
                return words.strip(), calls
        return answer, []

    def _outside_calls(self, text: str) -> str:
        """Return the text that certainly belongs to no call, and hold the rest back."""
        if not self.tools:
            return text
        text = self._held + text
        place = text.find("<")
        tag = "<tool_call>"
        while place >= 0 and not tag.startswith(text[place : place + len(tag)]):
            place = text.find("<", place + 1)
        sure = len(text) if place < 0 else len(text[:place].rstrip())
        self._held = text[sure:]
        return text[:sure]


def _wired(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    id = f"call_{uuid.uuid4().hex[:24]}"
    return {"id": id, "type": "function", "function": function}


def _finish(reply: Reply, calls: Sequence[ToolCall]) -> str:
    if calls:
        return "tool_calls"
    return "stop" if reply.stopped == "end" else "length"


def usage(reply: Reply) -> dict[str, Any]:
    """Return the tokens of a reply in the OpenAI form."""
    used = reply.usage
    written = used.thinking_tokens + used.answer_tokens
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": used.prompt_tokens + written,
        "completion_tokens_details": {"reasoning_tokens": used.thinking_tokens},
    }


# What goes wrong


def failure(
    status: int, message: str, code: str, retry_after: int | None = None
) -> JSONResponse:
    """Return an error in the OpenAI form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "code": code, "param": None}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": body}, status, headers)


def as_failure(error: Exception) -> JSONResponse:
    """Return the answer for an error; one that nobody foresaw is raised again."""
    if isinstance(error, Refused):
        return failure(error.status, str(error), error.code, error.retry_after)
    if isinstance(error, ValidationError):
        return failure(400, in_one_sentence(error), "malformed")
    if isinstance(error, ServiceFull):
        return failure(429, str(error), "overloaded", 1)
    if isinstance(error, ServiceClosed):
        return failure(503, str(error), "closed", 5)
    if isinstance(error, TimeoutError):
        return failure(504, str(error), "timeout")
    if isinstance(error, ClientDisconnect):
        return failure(499, "The client has gone away.", "gone")
    if isinstance(error, ValueError):
        return failure(400, str(error), "malformed")
    raise error


# The application


def create_app(
    service: QwenService,
    guard: "Guard | None" = None,
    monitor: "QwenMonitor | None" = None,
    max_body: int = MAX_BODY,
) -> FastAPI:
    """Return the application that serves `service` in the OpenAI form.

    With a `guard` every request needs a key and is checked first; with a `monitor`
    `/health` gives its judgement and `/metrics` its numbers. Whoever made the service
    closes it.

    Example:
        app = create_app(QwenService(*qc.load("pocket-qwen3")))
    """
    app = FastAPI(title="qwen-course", docs_url=None, redoc_url=None)
    asked: Any = service
    if guard is not None:
        from qwen_course.security import SecureQwenService

        asked = SecureQwenService(service, guard)
    if monitor is not None:
        monitor.service = service
        if monitor not in service.observers:
            service.observers.append(monitor)
    _add_answers(app, service, asked, guard, max_body)
    _add_state(app, service, guard, monitor)
    app.add_exception_handler(HTTPException, _not_found)
    return app


def _add_answers(app, service, asked, guard, max_body) -> None:
    errors = {code: {"description": "refused, with the reason and a remedy"}
              for code in (400, 401, 403, 404, 408, 413, 429, 503, 504)}  # fmt: skip
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    content = {"application/json": {"schema": schema}}
    body = {"requestBody": {"required": True, "content": content}}
    _add_schemas(app, parts)

    @app.post("/v1/chat/completions", responses=errors, openapi_extra=body)
    async def complete(request: Request) -> Response:
        """Answer a conversation, whole or as a stream."""
        try:
            if guard is not None:  # before anything is read
                guard.authenticate(*_caller(request).values())
            wanted = await read_request(request, max_body)
            return await _answer(request, wanted, service, asked, guard)
        except Exception as error:
            return as_failure(error)


async def _answer(request, wanted: ChatRequest, service, asked, guard) -> Response:
    if wanted.model not in (None, service.name):
        raise Refused(
            f'The model "{wanted.model[:80]}" is not served here.',
            f'Send "model": "{service.name}".', 404, "model_not_found",
        )  # fmt: skip
    conversation, sampling = wanted.conversation(), wanted.sampling()
    tools = wanted.tools if wanted.tool_choice != "none" else None
    extra: dict[str, Any] = {"tools": tools or None}
    if guard is not None:
        extra |= _caller(request)
    wire = Wire(service.name, bool(tools))
    if not wanted.stream:
        work = asked.generate_async(conversation, sampling, **extra)
        return JSONResponse(wire.whole(await _unless_gone(request, work)))
    pieces = asked.stream(conversation, sampling, **extra)
    # The first piece comes before the status does: a refusal must be seen in it.
    first = await _unless_gone(request, anext(pieces))
    options = wanted.stream_options or StreamOptions()
    events = _events(wire, first, pieces, options.include_usage)
    return StreamingResponse(events, media_type="text/event-stream")


def _caller(request: Request) -> dict[str, Any]:
    """Return what the guard wants to know of who is asking."""
    address = request.client.host if request.client else ""
    return {"header": request.headers.get("authorization"), "address": address}


async def _events(
    wire: Wire, first: Piece, pieces: Any, include_usage: bool
) -> AsyncIterator[str]:
    """Yield a stream as server-sent events; a reader that leaves ends the request."""
    async with contextlib.aclosing(pieces):
        yield _event(wire.first())
        for chunk in wire.pieces(first, include_usage):
            yield _event(chunk)
        try:
            async for piece in pieces:
                chunks = wire.pieces(piece, include_usage)
                if chunks:
                    yield "".join(map(_event, chunks))
        except (TimeoutError, RuntimeError) as error:  # the status is out already
            body = {"message": str(error), "type": "server_error", "code": "failed"}
            yield _event({"error": body})
            return
        yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for `work`, and cancel it when the client has gone away."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()  # type: ignore[return-value]
        raise Refused("The client has gone away.", "", 499, "gone")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _add_state(app, service, guard, monitor) -> None:
    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        """Name the model that is served."""
        try:
            if guard is not None:
                guard.authenticate(*_caller(request).values())
        except Refused as refused:
            return as_failure(refused)
        one = {"id": service.name, "object": "model", "created": 0, "owned_by": OWNER,
               "context": service.context}  # fmt: skip
        return JSONResponse({"object": "list", "data": [one]})

    @app.get("/health", responses={503: {"description": "not able to answer"}})
    async def health() -> Response:
        """Say whether the service answers, and why not."""
        state: dict[str, Any] = {"status": "healthy", "checks": []}
        if monitor is not None:
            state = (await asyncio.to_thread(monitor.health)).as_dict()
        if service.closed:
            state["status"] = "unhealthy"
        state |= {"model": service.name, "running": service.running,
                  "waiting": service.waiting}  # fmt: skip
        return JSONResponse(state, 503 if state["status"] == "unhealthy" else 200)

    @app.get("/metrics", responses={404: {"description": "there is no monitor"}})
    async def metrics(request: Request) -> Response:
        """Return the numbers of the monitor, as Prometheus reads them."""
        if monitor is None:
            remedy = (
                "Start the server with a monitor: create_app(service, monitor=...)."
            )
            return failure(404, f"There are no metrics. {remedy}", "no-monitor")
        text, kind = monitor.exposition(request.headers.get("accept", ""))
        return Response(text, media_type=kind)


def _add_schemas(app: FastAPI, parts: dict[str, Any]) -> None:
    """Describe the body in the schema too: it is not FastAPI that reads it."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        schema = made()
        schema.setdefault("components", {}).setdefault("schemas", {}).update(parts)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


async def _not_found(request: Request, error: Any) -> Response:
    paths = "/v1/chat/completions, /v1/models, /health, /metrics"
    reason = f"{request.method} {request.url.path[:80]}: {error.detail}."
    response = failure(error.status_code, f"{reason} There are {paths}.", "not_found")
    response.headers.update(error.headers or {})
    return response


# Running it


def serve(
    app: FastAPI, service: QwenService, host: str = "127.0.0.1", port: int = 8000
) -> None:
    """Serve until Ctrl+C or SIGTERM, then finish the answers that were begun.

    Port 0 takes a free one; the address is printed once the server listens. Raises
    OSError when it cannot have the port.
    """
    listening = listen(host, port)
    run(app, service, listening, lambda: announce(listening))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise OSError, with a remedy, where none can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"the server cannot listen on {host}, port {port} ({reason}). Choose "
            "another port with --port; 0 takes a free one."
        ) from error


def address_of(listening: socket.socket) -> str:
    """Return the address of a server that listens, as QWEN_COURSE_MODEL wants it."""
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/v1"


def announce(listening: socket.socket) -> None:
    """Print where a server listens."""
    print(f"listening on {address_of(listening)}", flush=True)


def run(
    app: FastAPI, service: QwenService, listening: socket.socket, up: Callable[[], Any]
) -> None:
    """Serve on a socket until Ctrl+C or SIGTERM, then finish and close the service.

    `up` is called once requests are answered. At the end nobody is waited for longer
    than a request may last: a client may send half a body and then nothing.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False,
        timeout_graceful_shutdown=math.ceil(service.timeout) + 1,
    )  # fmt: skip
    server = _Server(config, up)
    # The signal may come before uvicorn listens to it, and uvicorn sends it once more
    # when all is done, which would end the process here.
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        server.run(sockets=[listening])
    finally:
        service.close()
        signal.signal(signal.SIGTERM, before)


class _Server(uvicorn.Server):
    """A server that says when it is up."""

    def __init__(self, config: uvicorn.Config, up: Callable[[], Any]) -> None:
        super().__init__(config)
        self.up = up

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up()


@contextlib.contextmanager
def in_background(app: FastAPI, host: str = "127.0.0.1", port: int = 0):
    """Serve in a thread while the block runs; yields the address, ending in /v1.

    For notebooks and tests. The service itself is closed by whoever made it.

    Example:
        with in_background(create_app(service)) as address:
            model, tokenizer = qc.load(address)
    """
    listening, up = listen(host, port), threading.Event()
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    server = _Server(config, up.set)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        while not up.wait(0.1):
            if not thread.is_alive():
                raise OSError("the server did not start; what it says stands above.")
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join()
