"""A model behind a server: one address in place of a model's name.

`qc.load("http://localhost:8000/v1")` gives a model that `qc.chat` and `qc.evaluate` use
like any other. The server may be this course's own, vLLM, SGLang, llama.cpp, Ollama,
`transformers serve` or Foundry Local: whatever speaks the OpenAI form.
"""

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from qwen_course.chat import QWEN3_SAMPLING, OnText, Reply, Usage
from qwen_course.messages import Message, tool_schema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEY_VARIABLE = "QWEN_COURSE_API_KEY"
OWN = "qwen-course"  # what our own server calls itself
AT_ONCE = 16
TIMEOUT = 120.0  # seconds without a byte
BLOCK = ("<think>", "</think>")
NOT_HERE = (
    "the model is behind a server, and only its answers come here. For cells that look "
    'inside a model, load a small one beside it: qc.load("pocket-qwen3").'
)


def connect(address: str) -> "tuple[RemoteModel, PreTrainedTokenizerBase]":
    """Return the model behind an address, and the tokenizer that belongs to it.

    `address` ends in /v1; a model's name may follow after # where a server has several.
    A key is read from `QWEN_COURSE_API_KEY`. Raises OSError, with what to try, when
    nothing answers, ValueError for a model that the server does not have.

    Example:
        model, tokenizer = connect("http://localhost:11434/v1#qwen3:0.6b")
    """
    address, _, wanted = address.partition("#")
    base = address.rstrip("/")
    base = base if base.endswith("/v1") else f"{base}/v1"
    found = _get(f"{base}/models").get("data") or []
    names = [str(one.get("id")) for one in found]
    if not names:
        raise OSError(
            f"the server at {base} has no model loaded. Load one there first."
        )
    if wanted and wanted not in names:
        raise ValueError(
            f'the server at {base} has no model "{wanted}". It has {", ".join(names)}.'
        )
    name = wanted or names[0]
    own = found[names.index(name)].get("owned_by") == OWN
    return RemoteModel(base, name, own), tokenizer_for(name)


def tokenizer_for(name: str) -> "PreTrainedTokenizerBase":
    """Return a model's tokenizer if it is on this computer, else Qwen3's own."""
    from transformers import AutoTokenizer

    from qwen_course.loading import locate
    from qwen_course.vocabulary import qwen3_tokenizer

    try:
        return AutoTokenizer.from_pretrained(locate(name)[0], local_files_only=True)
    except (OSError, ValueError):
        return qwen3_tokenizer()


@dataclass(frozen=True)
class RemoteModel:
    """A model behind a server, in the place of one that is loaded here.

    `qc.chat`, `qc.chat_batch` and `qc.evaluate` take it. What looks inside a model says
    that it cannot. `own` is whether the server is this course's.
    """

    base: str
    name: str
    own: bool = False

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute.startswith("__"):  # Python and Jupyter look for many of these
            raise AttributeError(attribute)
        raise AttributeError(f"model.{attribute} is not here: {NOT_HERE}")

    def reply_to(
        self,
        conversations: Sequence[list[Message]],
        thinking: bool,
        thinking_budget: int | None,
        max_new_tokens: int,
        sampling: str | dict[str, Any],
        seed: int | None,
        tools: Sequence[list | None],
        on_text: OnText | None,
    ) -> list[Reply]:
        """Answer conversations, several at once; what `chat` and `chat_batch` call."""
        self._check_budget(thinking_budget)
        options = {
            "max_tokens": max_new_tokens,
            "chat_template_kwargs": {"enable_thinking": thinking},
            **self._sampling(thinking, sampling),
        }
        if thinking_budget is not None:
            options["chat_template_kwargs"]["thinking_budget"] = thinking_budget
        if seed is not None:
            options["seed"] = seed
        if on_text:
            return [self._streamed(conversations[0], options, tools[0], on_text)]

        def one(pair) -> Reply:
            return self._whole(pair[0], options, pair[1])

        pairs = list(zip(conversations, tools, strict=True))
        with ThreadPoolExecutor(min(AT_ONCE, len(pairs))) as pool:
            return list(pool.map(one, pairs))

    def _check_budget(self, budget: int | None) -> None:
        if budget is not None and not self.own:
            raise ValueError(
                f"the server at {self.base} knows no thinking_budget. Leave it out, or "
                "use the course's own server: qwen-course serve."
            )

    def _sampling(self, thinking: bool, sampling: Any) -> dict[str, Any]:
        """Return the sampling in the words of the wire."""
        if isinstance(sampling, dict):
            names = ("temperature", "top_p", "top_k")
            unknown = [name for name in sampling if name not in (*names, "do_sample")]
            if unknown:
                raise ValueError(
                    f"a server takes {', '.join(names)}, not {', '.join(unknown)}."
                )
            return {name: sampling[name] for name in names if name in sampling}
        if sampling == "greedy":
            return {"temperature": 0}
        if sampling != "recommended":
            raise ValueError(f'sampling "{sampling}" is not recommended or greedy.')
        known = "qwen3" in self.name.lower().replace("-", "") and not self.own
        return dict(QWEN3_SAMPLING[thinking]) if known else {}

    def _body(self, talk, options, tools) -> dict[str, Any]:
        body = {"model": self.name, "messages": [_wired(m) for m in talk], **options}
        if tools:
            body["tools"] = [tool_schema(tool) for tool in tools]
        return body

    def _whole(self, talk, options, tools) -> Reply:
        started = time.perf_counter()
        url = f"{self.base}/chat/completions"
        with _open(url, self._body(talk, options, tools)) as response:
            answer = _json(response.read(), url)
        seconds = time.perf_counter() - started
        choice = answer["choices"][0]
        parts = _parts(choice["message"])
        calls = choice["message"].get("tool_calls") or []
        return _reply(
            talk, parts, calls, choice.get("finish_reason"), answer.get("usage"),
            seconds, seconds,
        )  # fmt: skip

    def _streamed(self, talk, options, tools, on_text: OnText) -> Reply:
        started, first = time.perf_counter(), 0.0
        body = self._body(talk, options, tools)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        said = {"content": "", "reasoning_content": ""}
        usage, finish = None, None
        calls: dict[int, dict[str, Any]] = {}
        for chunk in _events(f"{self.base}/chat/completions", body):
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices") or []:
                delta = choice.get("delta") or {}
                said["content"] += delta.get("content") or ""
                said["reasoning_content"] += _reasoning(delta)
                _add_calls(calls, delta.get("tool_calls") or [])
                finish = choice.get("finish_reason") or finish
            if any(said.values()):
                first = first or time.perf_counter() - started
                on_text(*_parts(said))
        if finish is None:  # every server says in its last piece why it ended
            raise OSError(
                f"the answer of {self.base} broke off. Is it running? Ask again."
            )
        seconds = time.perf_counter() - started
        parts, whole = _parts(said), list(calls.values())
        return _reply(talk, parts, whole, finish, usage, seconds, first or seconds)


def _wired(message: Message) -> Message:
    """Return a message in the form of the wire, the arguments of calls as text."""
    kept = {k: v for k, v in message.items() if k != "reasoning_content"}
    if not message.get("tool_calls"):
        return kept
    calls = []
    for number, call in enumerate(message["tool_calls"]):
        function = dict(call["function"])
        if not isinstance(function.get("arguments"), str):
            function["arguments"] = json.dumps(function.get("arguments", {}))
        id = call.get("id") or f"call_{number}"
        calls.append({"id": id, "type": "function", "function": function})
    return {**kept, "tool_calls": calls}


def _add_calls(calls: dict[int, dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    """Add the pieces of calls in a stream: most servers cut their arguments up."""
    for piece in pieces:
        place = piece.get("index", len(calls))
        call = calls.setdefault(place, {"function": {"name": "", "arguments": ""}})
        for name, text in (piece.get("function") or {}).items():
            if name in call["function"]:
                call["function"][name] += text or ""


def _reasoning(message: dict[str, Any]) -> str:
    """Return the thinking: servers call it reasoning_content, or reasoning."""
    return message.get("reasoning_content") or message.get("reasoning") or ""


def _parts(message: dict[str, Any]) -> tuple[str, str]:
    """Return thinking and answer, also of a server that leaves both in one text."""
    content, thinking = message.get("content") or "", _reasoning(message)
    if not thinking and BLOCK[1] in content:
        thinking, _, content = content.partition(BLOCK[1])
        thinking = thinking.replace(BLOCK[0], "", 1)
    elif not thinking and content.lstrip().startswith(BLOCK[0]):  # cut off inside
        thinking, content = content.lstrip()[len(BLOCK[0]) :], ""
    return thinking.strip(), content.strip()


def _reply(talk, parts, calls, finish, used, seconds, first) -> Reply:
    """Build a reply; calls are written as the model wrote them, for the parsers."""
    thinking, answer = parts
    for call in calls:
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        text = f'{{"name": {json.dumps(function["name"])}, "arguments": {arguments}}}'
        answer = f"{answer}\n<tool_call>\n{text}\n</tool_call>".strip()
    used = used or {}
    written = used.get("completion_tokens") or 0
    details = used.get("completion_tokens_details") or {}
    inside = details.get("reasoning_tokens")
    if inside is None:  # most servers do not say: share them by length
        inside = round(written * len(thinking) / max(1, len(thinking) + len(answer)))
    usage = Usage(
        used.get("prompt_tokens") or 0, inside, written - inside, seconds, first
    )
    message: Message = {"role": "assistant", "content": answer}
    if thinking:
        message["reasoning_content"] = thinking
    stopped = "length" if finish == "length" else "end"
    return Reply(answer, thinking, usage, stopped, [*talk, message])


# The wire


def _get(url: str) -> dict[str, Any]:
    with _open(url) as response:
        return _json(response.read(), url)


@contextlib.contextmanager
def _open(url: str, body: dict[str, Any] | None = None) -> Iterator[Any]:
    """Send a request; what goes wrong becomes a sentence that says what to do.

    That holds for what goes wrong while the answer is read, too.
    """
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            yield response
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from error
    except (
        urllib.error.URLError,
        ConnectionError,
        TimeoutError,
        http.client.HTTPException,
    ) as error:
        reason = getattr(error, "reason", error)
        raise OSError(
            f"no server answers at {url} ({reason}). Is it running? Start one with: "
            "qwen-course serve   and check the address in QWEN_COURSE_MODEL."
        ) from error


def _refused(url: str, error: urllib.error.HTTPError) -> Exception:
    """Return the error for a status that is none of success."""
    said = _message(error.read()) or error.reason
    if error.code in (401, 403):
        return OSError(
            f"the server wants a key ({said}). Put it into {KEY_VARIABLE} and start "
            "Jupyter again."
        )
    if error.code == 404:
        return OSError(
            f"there is nothing at {url} ({said}). The address ends in /v1, as in "
            "http://localhost:8000/v1; a model follows after #."
        )
    if error.code == 429:
        wait = error.headers.get("Retry-After") or "a few"
        return OSError(f"the server is full ({said}). Try again in {wait} seconds.")
    kind = ValueError if error.code in (400, 413, 422) else OSError
    return kind(f"the server answers {error.code}: {said}")


def _message(content: bytes) -> str:
    """Return the sentence in an error of the OpenAI form, else its beginning."""
    text = content.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200]


def _json(content: bytes, url: str) -> dict[str, Any]:
    try:
        return json.loads(content)
    except ValueError as error:
        raise OSError(
            f"what answers at {url} is no model server: it sent no JSON. Check the "
            "address; it ends in /v1."
        ) from error


def _events(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the JSON of a stream of server-sent events."""
    try:
        yield from _data(url, body)
    except ValueError as error:
        if "stream_options" not in str(error):
            raise
        # transformers serve refuses the field, and counts the tokens without it.
        yield from _data(url, {k: body[k] for k in body if k != "stream_options"})


def _data(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with _open(url, body) as response:
        for line in response:
            data = line.decode().strip().removeprefix("data:").strip()
            if data == "[DONE]":
                return
            if data.startswith("{"):
                event = _json(data.encode(), url)
                if "error" in event:
                    raise OSError(f"the server failed: {_message(data.encode())}")
                yield event
