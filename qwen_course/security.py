"""A guard before a service: who may ask, how much, and what reaches the model.

Every check stands where the damage would happen: keys before work, tokens before the
queue, control tokens before the template, escapes where a browser shows the answer.
What no check here can do is tell a lie from the truth: a text that talks the model into
something passes. Lesson 08 measures how often.

A server needs one line a request, `with guard.request(...) as admitted:`; it raises
`Refused`, which says the HTTP status.
"""

import contextlib
import dataclasses
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.api_keys import ApiKeys, Key, Meter, rates
from qwen_course.cleaning import Cleaner, Refused, read_body
from qwen_course.cleaning import too_much as _too_much
from qwen_course.messages import Message, encode
from qwen_course.safe_files import load_safely, unsafe_files
from qwen_course.safe_text import (
    control_strings,
    for_browser,
    for_markdown,
    for_terminal,
    neutralise,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qwen_course.chat import Reply
    from qwen_course.service import Piece, QwenService, Sampling, Served

__all__ = [
    "Admitted",
    "ApiKeys",
    "Guard",
    "Key",
    "Refused",
    "RequestLog",
    "SecureQwenService",
    "control_strings",
    "for_browser",
    "for_markdown",
    "for_terminal",
    "load_safely",
    "neutralise",
    "read_body",
    "unsafe_files",
]

_CHARACTERS = 16  # a token; a text with more of them is not even tokenized


@dataclass(frozen=True)
class Admitted:
    """A request that was let through, ready for the service.

    `tokens` is what was charged: those of the prompt, and all that may be written.
    """

    id: str
    key_id: str
    messages: list[Message]
    sampling: "Sampling"
    tools: list | None
    tokens: int


class Guard:
    """Checks every request: key, form, control tokens, length in tokens, rates.

    `max_input_tokens` counts the whole rendered prompt, `max_new_tokens` what may be
    written. `store` is where rates are counted: "memory://", or "redis://host" for
    several processes. `control` says what happens to control tokens in a text:
    "neutralise" or "refuse". `secret` (bytes) keys the hashes in logs and the seals of
    histories; without one it lasts as long as the process. `failures` is how often one
    address may show a wrong key.

    Raises ImportError when the package limits is missing, ValueError for an unknown
    `control`.

    Example:
        keys = ApiKeys()
        key = keys.add("ada", requests="30/minute", tokens="20000/hour")
        guard = Guard(tokenizer, keys)
        with guard.request(f"Bearer {key}", "What is 12 + 30?") as admitted:
            reply = await service.generate_async(admitted.messages, admitted.sampling)
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        keys: ApiKeys,
        *,
        max_input_tokens: int = 768,
        max_new_tokens: int = 256,
        failures: str = "20/minute",
        store: str = "memory://",
        control: str = "neutralise",
        secret: bytes | None = None,
    ) -> None:
        self.tokenizer, self.keys, self.failures = tokenizer, keys, failures
        self.max_input_tokens, self.max_new_tokens = max_input_tokens, max_new_tokens
        self.meter = Meter(store)
        self.cleaner = Cleaner(
            control_strings(tokenizer), control, _CHARACTERS * max_input_tokens
        )
        self._secret = secret or secrets.token_bytes(32)
        self.log = RequestLog(self._secret)

    @contextlib.contextmanager
    def request(
        self,
        header: str | None,
        messages: str | Sequence[Message],
        sampling: "Sampling | None" = None,
        tools: list | None = None,
        address: str = "",
    ) -> Iterator[Admitted]:
        """Let a request through, cleaned and charged, or raise Refused.

        It holds one of the key's places until the block ends. `header` is the value of
        the HTTP header Authorization, `address` where the request came from. What costs
        least is checked first, and a request that is refused later counts as one.
        """
        key_id = "-"
        with contextlib.ExitStack() as stack:
            try:
                key_id = self.authenticate(header, address)
                stack.enter_context(self.meter.place(self.keys.get(key_id)))
                self.charge(key_id, "requests", 1)
                admitted = self._check(key_id, messages, sampling, tools)
            except Refused as refused:
                self.log.refused(key_id, refused)
                raise
            self.log.admitted(admitted)
            yield admitted

    def _check(self, key_id, messages, sampling, tools) -> Admitted:
        conversation = self.clean(messages, key_id)
        schemas = self.cleaner.tools(tools)
        wanted = self.output(sampling)
        tokens = self.count(conversation, schemas) + wanted.max_new_tokens
        self.charge(key_id, "tokens", tokens)
        id = f"req-{secrets.token_hex(8)}"
        return Admitted(id, key_id, conversation, wanted, schemas, tokens)

    def authenticate(self, header: str | None, address: str = "") -> str:
        """Return the name of the key in an Authorization header, or refuse with 401.

        All that can be wrong with a key gives the same answer: no hint for guessing. A
        right key is never locked out by wrong ones from the same address.
        """
        scheme, _, presented = (header or "").partition(" ")
        key = self.keys.find(presented) if scheme.lower() == "bearer" else None
        if key:
            return key.id
        if seconds := self.meter.use(self.failures, "failures", address):
            raise Refused(
                "Too many wrong keys came from here.",
                f"Try again in {seconds} seconds.", 429, "key-guessing", seconds,
            )  # fmt: skip
        raise Refused(
            "The request has no valid key.",
            'Send the header "Authorization: Bearer YOUR-KEY".', 401, "no-key",
        )  # fmt: skip

    def charge(self, key_id: str, what: str, cost: int) -> None:
        """Charge a key, or refuse with 429; with 413 what it could never pay.

        `what` is "requests" or "tokens": those of the prompt and all that may be
        written, so that a request never costs more than it was charged.
        """
        rate = getattr(self.keys.get(key_id), what)
        most = min(one.amount for one in rates(rate))
        if cost > most:
            raise _too_much(what, cost, most)
        if seconds := self.meter.use(rate, what, key_id, cost):
            raise Refused(
                f"The key has used its {what}: {rate}.",
                f"Try again in {seconds} seconds.", 429, f"rate-{what}", seconds,
            )  # fmt: skip

    def clean(
        self, messages: str | Sequence[Message], key_id: str | None = None
    ) -> list[Message]:
        """Return the conversation without control tokens, or raise Refused.

        Whoever may not speak as the assistant may send back what it said, with its
        seal. Without a key only the role user may speak.
        """
        cleaned = self.cleaner.messages(messages)
        roles = self.keys.get(key_id).roles if key_id else ("user",)
        for number, message in enumerate(cleaned):
            if message["role"] not in roles:
                self._check_seal(key_id, cleaned[: number + 1])
                for unsealed in ("reasoning_content", "name", "tool_call_id"):
                    message.pop(unsealed, None)
        return [
            {name: value for name, value in message.items() if name != "seal"}
            for message in cleaned
        ]

    def output(self, sampling: "Sampling | None") -> "Sampling":
        """Return the sampling of a request, or refuse one that may write too much."""
        from qwen_course.service import Sampling

        if sampling is None:
            return Sampling(max_new_tokens=self.max_new_tokens)
        if sampling.max_new_tokens > self.max_new_tokens:
            raise Refused(
                f"max_new_tokens is {sampling.max_new_tokens}.",
                f"Ask for {self.max_new_tokens} at most.", code="too-much-output",
            )  # fmt: skip
        return sampling

    def count(self, messages: Sequence[Message], tools: list | None = None) -> int:
        """Return the tokens of the rendered prompt, or refuse with 413."""
        tokens = len(encode(self.tokenizer, messages, tools=tools))
        if tokens > self.max_input_tokens:
            raise _too_much("tokens", tokens, self.max_input_tokens)
        return tokens

    # What the model said, and nobody else

    def seal(self, key_id: str | None, conversation: Sequence[Message]) -> str:
        """Return the seal of the last message: a keyed hash of all up to it.

        With it a caller can send an answer back, but can neither change it, nor put it
        into another conversation, nor use that of somebody else.
        """
        said = [
            [message["role"], message["content"], message.get("tool_calls")]
            for message in conversation
        ]
        return _keyed(self._secret, "seal", json.dumps([key_id, said]))

    def sealed(self, key_id: str, reply: "Reply") -> "Reply":
        """Return a reply whose messages may come back with the next question."""
        cleaned = [self.cleaner.message(message) for message in reply.messages]
        messages = [
            {**message, "seal": self.seal(key_id, cleaned[: number + 1])}
            if message["role"] == "assistant"
            else message
            for number, message in enumerate(reply.messages)
        ]
        return dataclasses.replace(reply, messages=messages)

    def _check_seal(self, key_id: str | None, conversation: list[Message]) -> None:
        last = conversation[-1]
        expected = self.seal(key_id, conversation)
        found = last.get("seal", "").encode()
        if last["role"] == "assistant" and hmac.compare_digest(
            found, expected.encode()
        ):
            return
        raise Refused(
            f"This key may not speak as {last['role']}.",
            "Send the conversation as the service returned it, or ask for a key whose "
            "roles allow it.", 403, "role",
        )  # fmt: skip


def _keyed(secret: bytes, purpose: str, text: str) -> str:
    """Return a hash that nobody without the secret can compute, or try words with."""
    data = f"{purpose}\0{text}".encode("utf-8", "backslashreplace")
    return hmac.new(secret, data, hashlib.sha256).hexdigest()


# Logs: who, when, how much; never what


class RequestLog:
    """Writes one line of JSON for each event, to the logger "qwen_course.requests".

    Prompts do not occur, and no part of them: an unkeyed hash would give short ones
    away to anybody who tries words. The same prompt has the same `prompt` hash as long
    as the secret is the same. It is an observer of a service: `service.observers`.
    """

    def __init__(self, secret: bytes, logger: logging.Logger | None = None) -> None:
        self.secret = secret
        self.logger = logger or logging.getLogger("qwen_course.requests")

    def __call__(self, served: "Served") -> None:
        """Note the end of a request."""
        # subtle: an error's text may quote the prompt, the name of its class cannot.
        error = re.match(r"\w+", served.error or "")
        self._write(
            "served", request=served.request_id, finish=served.finish_reason,
            prompt_tokens=served.prompt_tokens, output_tokens=served.output_tokens,
            seconds=round(served.seconds, 3), error=error and error[0],
        )  # fmt: skip

    def to_file(self, path: str | Path) -> None:
        """Append the lines to a file too. Raises OSError where it cannot be written."""
        self.logger.addHandler(logging.FileHandler(path, encoding="utf-8"))
        self.logger.setLevel(logging.INFO)

    def admitted(self, request: Admitted) -> None:
        """Note a request that was let through."""
        self._write(
            "admitted", request=request.id, key=request.key_id,
            tokens=request.tokens, prompt=self.fingerprint(request.messages),
        )  # fmt: skip

    def refused(self, key_id: str, refused: Refused) -> None:
        """Note a request that was not."""
        self._write("refused", key=key_id, status=refused.status, code=refused.code)

    def fingerprint(self, messages: Sequence[Message]) -> str:
        """Return a keyed hash of a conversation, 16 hexadecimal digits."""
        return _keyed(self.secret, "log", json.dumps(messages, sort_keys=True))[:16]

    def _write(self, event: str, **fields: Any) -> None:
        # JSON in ASCII: a line break or a terminal code cannot forge a second line.
        self.logger.info(json.dumps({"event": event, **fields}))


# The service behind the guard


class SecureQwenService:
    """A `QwenService` that every request reaches through a guard.

    The calls are those of the service, with the `header` Authorization in addition;
    all of them raise Refused. Replies come sealed: append the next question to
    `reply.messages` and send it.

    Example:
        secure = SecureQwenService(service, guard)
        reply = await secure.generate_async("What is 12 + 30?", header=f"Bearer {key}")
    """

    def __init__(self, service: "QwenService", guard: Guard) -> None:
        self.service, self.guard = service, guard
        service.observers.append(guard.log)

    async def generate_async(
        self,
        messages: str | Sequence[Message],
        sampling: "Sampling | None" = None,
        *,
        header: str | None = None,
        tools: list | None = None,
        address: str = "",
    ) -> "Reply":
        """Answer one conversation."""
        asked = (header, messages, sampling, tools, address)
        with self.guard.request(*asked) as request:
            reply = await self.service.generate_async(
                request.messages, request.sampling,
                tools=request.tools, request_id=request.id,
            )  # fmt: skip
            return self.guard.sealed(request.key_id, reply)

    def generate_batch(
        self,
        conversations: Sequence[str | Sequence[Message]],
        sampling: "Sampling | None" = None,
        *,
        header: str | None = None,
        address: str = "",
    ) -> "list[Reply]":
        """Answer several conversations; each one counts as a request of its own."""
        with contextlib.ExitStack() as stack:
            requests = [
                stack.enter_context(
                    self.guard.request(header, messages, sampling, None, address)
                )
                for messages in conversations
            ]
            if not requests:
                return []
            replies = self.service.generate_batch(
                [request.messages for request in requests], requests[0].sampling
            )
            return [
                self.guard.sealed(request.key_id, reply)
                for request, reply in zip(requests, replies, strict=True)
            ]

    async def stream(
        self,
        messages: str | Sequence[Message],
        sampling: "Sampling | None" = None,
        *,
        header: str | None = None,
        tools: list | None = None,
        address: str = "",
    ) -> "AsyncIterator[Piece]":
        """Yield pieces of the answer; a reader who leaves ends the request."""
        asked = (header, messages, sampling, tools, address)
        with self.guard.request(*asked) as request:
            pieces: Any = self.service.stream(
                request.messages, request.sampling,
                tools=request.tools, request_id=request.id,
            )  # fmt: skip
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if piece.reply:
                        reply = self.guard.sealed(request.key_id, piece.reply)
                        piece = dataclasses.replace(piece, reply=reply)
                    yield piece

    def close(self) -> None:
        """Close the service: it finishes what was accepted."""
        self.service.close()

    async def aclose(self) -> None:
        """Close it without holding up the event loop."""
        await self.service.aclose()

    def __enter__(self) -> "SecureQwenService":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    async def __aenter__(self) -> "SecureQwenService":
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.aclose()
