"""Any server in the OpenAI form: start it, ask it greedily, hear when tokens come.

A server is a program of its own. `Started` runs one beside this process and ends it
with all its children; `Runner` asks one, wherever it runs, with the official client.
"""

import atexit
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from qwen_course.datafiles import read_yaml
from qwen_course.errors import suggest
from qwen_course.inference import Written
from qwen_course.messages import Message, encode
from qwen_course.platforms import common
from qwen_course.remote import BLOCK, KEY_VARIABLE

if TYPE_CHECKING:
    import psutil
    from transformers import PreTrainedTokenizerBase

PATIENCE = 300.0  # seconds until a server must answer
GOODBYE = 10.0  # seconds that a server has to end by itself
FORMS = ("ids", "text", "chat")
TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n", re.DOTALL)
Command = Callable[[int], Sequence[str]]


# Starting one


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Started:
    """A server in a process of its own, from its start until `close`.

    `command` gets a free port and returns the words of the command line. The server is
    up when /health answers, or /v1/models where there is no such path. What it prints
    is in the file `log`, which stays. It ends with this program at the latest, unless
    that is killed.

    Raises OSError, with its last lines and the `remedy`, when the program is not there,
    ends, or does not answer within `patience` seconds.

    Example:
        with Started(lambda port: ["my-server", "--port", str(port)]) as server:
            Runner(server.address, "my-model", tokenizer)
    """

    def __init__(
        self,
        command: Command,
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
        remedy: str = "",
    ) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}/v1"
        self.command, self.remedy = list(command(self.port)), remedy
        self._tree: set[psutil.Process] = set()
        self._process = self._start({**os.environ, **(environment or {})})
        atexit.register(self.close)
        try:
            self._wait(patience)
        except BaseException:  # an interrupt too: nothing may stay behind
            self.close()
            raise

    def _start(self, environment: dict[str, str]) -> "psutil.Popen":
        import psutil

        # A group of its own: an interrupt in the notebook must not reach the server.
        windows = sys.platform == "win32"
        group: dict[str, Any] = (
            {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
            if windows
            else {"start_new_session": True}
        )
        handle, name = tempfile.mkstemp(prefix="qwen-course-server-", suffix=".log")
        self.log = Path(name)
        with os.fdopen(handle, "wb") as log:
            try:
                return psutil.Popen(
                    self.command, env=environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, **group,
                )  # fmt: skip
            except OSError as error:
                raise OSError(self._why(f"could not start ({error})")) from error

    def _wait(self, patience: float) -> None:
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if (code := self._process.poll()) is not None:
                raise OSError(self._why(f"ended with code {code}"))
            if _is_up(f"http://127.0.0.1:{self.port}"):
                self.processes()
                return
            time.sleep(0.1)
        raise TimeoutError(self._why(f"did not answer within {patience:g} seconds"))

    def _why(self, what: str) -> str:
        said = self.last_lines()
        parts = (f"the server {self.command[0]} {what}.", self.remedy)
        return " ".join(filter(None, parts)) + (f" It said:\n{said}" if said else "")

    def last_lines(self, number: int = 10) -> str:
        """Return the last lines that the server printed, each to its 300th letter."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(line[:300] for line in lines[-number:])

    def processes(self) -> "list[psutil.Process]":
        """Return the server's processes that are alive, its children's children too."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            self._tree |= {self._process, *self._process.children(recursive=True)}
        return [one for one in self._tree if _is_alive(one)]

    def memory(self) -> int:
        """Return the bytes that all its processes hold now.

        On Linux memory that processes share counts once (PSS), elsewhere in each (RSS).
        """
        import psutil

        total = 0
        for one in self.processes():
            with contextlib.suppress(psutil.Error):
                found = one.memory_full_info() if sys.platform == "linux" else None
                total += getattr(found, "pss", 0) or one.memory_info().rss
        return total

    def close(self) -> None:
        """End the server and all its processes; the log stays."""
        import psutil

        atexit.unregister(self.close)
        tree = self.processes()
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        _wait_for(tree)
        for one in filter(_is_alive, tree):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        if sys.platform != "win32":  # children whose parent was gone before we looked
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        _wait_for(tree)
        with contextlib.suppress(psutil.TimeoutExpired):
            self._process.wait(GOODBYE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def _is_alive(process: "psutil.Process") -> bool:
    """Return whether a process runs; one that nobody has waited for does not."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _wait_for(processes: "Sequence[psutil.Process]") -> None:
    """Wait until the processes have ended, or have had time to."""
    end = time.monotonic() + GOODBYE
    while any(map(_is_alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)


def _is_up(root: str) -> bool:
    """Return whether a server answers; one that still loads says 503 at /health."""
    here = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("/health", "/v1/models"):
        try:
            with here.open(root + path, timeout=2):
                return True
        except urllib.error.HTTPError as error:
            if error.code not in (404, 405):
                return False
        except OSError:
            return False
    return False


# The words of its command line


def check_options(words: Sequence[str], file: str) -> None:
    """Raise ValueError for an option that a server's documentation does not know.

    `file` is one of the course's data files: `vllm_options`, `sglang_options`. Options
    without their value, and values that an option does not take, are refused too.

    >>> check_options(["vllm", "serve", "m", "--port", "8000"], "vllm_options")
    """
    known = read_yaml(file)
    valued, choices = known["takes_a_value"], known["choices"]
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        if word not in (*valued, *known["flags"]):
            raise ValueError(
                f"version {known['version']} has no option {word}."
                + suggest(word, [*valued, *known["flags"]])
            )
        value = words[place + 1] if place + 1 < len(words) else ""
        if word in valued and (not value or value.startswith("--")):
            raise ValueError(f"{word} takes a value. Write it after it.")
        if value not in choices.get(word, [value]):
            raise ValueError(
                f"{word} {value} is not one of {', '.join(choices[word])}."
                + suggest(value, choices[word])
            )


# Asking one


class Runner(common.Runner):
    """A model behind an address that ends in /v1, asked for its greedy answers.

    `form` is how a prompt is sent: "ids" and "text" to /v1/completions, as token ids or
    as the text they stand for, "chat" to /v1/chat/completions, as messages from which
    the server renders the prompt again. None takes the first that the server accepts.

    `extra` goes into every request. `no_stop` is what makes this server go on after
    the end token. A server that was `started` for it ends with `close`.

    Most servers send text. Its tokens are found by encoding it again: the same text,
    though in rare cases in other pieces than the model wrote.

    Raises OSError when nothing answers, ValueError, in the server's words, when it does
    not know the model or refuses the request.

    Example:
        Runner("http://localhost:8000/v1", "Qwen/Qwen3-0.6B", tokenizer).write(ids).ids
    """

    def __init__(
        self,
        address: str,
        model: str,
        tokenizer: "PreTrainedTokenizerBase",
        form: str | None = None,
        extra: Mapping[str, Any] | None = None,
        no_stop: Mapping[str, Any] | None = None,
        started: Started | None = None,
    ) -> None:
        if form not in (None, *FORMS):
            raise ValueError(
                f'form "{form}" is not one of {", ".join(FORMS)}.'
                + suggest(str(form), FORMS)
            )
        self.address, self.model, self.tokenizer = address, model, tokenizer
        self.started, self.extra, self.no_stop = started, dict(extra or {}), no_stop
        self._client: Any = None
        try:
            self._client = client(address)
            self.form = form or self._accepted()
        except BaseException:
            self.close()
            raise

    def _accepted(self) -> str:
        """Return the first form that the server takes, after a token in each."""
        talk: list[Message] = [{"role": "user", "content": "1"}]
        ids = encode(self.tokenizer, talk, False)
        for form in FORMS[:-1]:
            self.form = form
            with contextlib.suppress(ValueError, NotImplementedError):
                self._whole(ids, 1, True)
                return form
        self.form = "chat"
        self._whole(ids, 1, True)
        return self.form

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write after a prompt; each moment is that of a piece's arrival.

        Servers that send several tokens in a piece have fewer moments than tokens.
        `stop=False` needs a server with `no_stop`, else it is a ValueError.
        """
        begun, said = time.perf_counter(), Said()
        moments: list[float] = []
        with _spoken(self.address):
            for chunk in self._ask(ids, max_new_tokens, stop, stream=True):
                for choice in chunk.choices[:1]:
                    new = said.hear(choice, getattr(choice, "delta", choice))
                    moments += [time.perf_counter() - begun] * new
        return Written(said.ids(self.tokenizer, max_new_tokens), tuple(moments))

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Send all prompts at once, each in a connection of its own."""
        if not rows:
            return []
        with ThreadPoolExecutor(len(rows)) as pool:
            return list(pool.map(lambda row: self._whole(row, max_new_tokens), rows))

    def memory(self) -> int | None:
        """Return the bytes that the server holds; None for one that is not ours."""
        return self.started.memory() if self.started else None

    def close(self) -> None:
        """End the server, if it was started for this."""
        if self._client:
            self._client.close()
        if self.started:
            self.started.close()

    def _whole(
        self, ids: Sequence[int], max_new_tokens: int, stop: bool = True
    ) -> list[int]:
        said = Said()
        with _spoken(self.address):
            answer = self._ask(ids, max_new_tokens, stop, stream=False)
            choice = answer.choices[0]
            said.hear(choice, getattr(choice, "message", choice))
        return said.ids(self.tokenizer, max_new_tokens)

    def _ask(
        self, ids: Sequence[int], max_new_tokens: int, stop: bool, stream: bool
    ) -> Any:
        if not stop and self.no_stop is None:
            raise ValueError(
                f"the server at {self.address} always stops at the end token. Leave "
                "stop=False out."
            )
        extra = self.extra | ({} if stop else dict(self.no_stop or {}))
        options: dict[str, Any] = {
            "model": self.model, "max_tokens": max_new_tokens, "temperature": 0,
            "top_p": 1, "seed": 0, "stream": stream, "extra_body": extra,
        }  # fmt: skip
        if self.form != "chat":
            text = self.form == "text"
            prompt = str(self.tokenizer.decode(list(ids))) if text else list(ids)
            return self._client.completions.create(prompt=prompt, **options)
        messages, thinking = conversation(self.tokenizer, ids)
        switch = {"chat_template_kwargs": {"enable_thinking": thinking}}
        options["extra_body"] = switch | extra
        return self._client.chat.completions.create(messages=messages, **options)


def client(address: str) -> Any:
    """Return the official client of an address; a key is read from the environment.

    Raises ImportError where the package is missing.
    """
    reason = common.why_missing("asking a server", {"openai": "openai"}, "serve")
    common.need(reason)
    import openai

    # A proxy that is set for the internet does not know this machine.
    own = urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
    key = os.environ.get(KEY_VARIABLE, "").strip() or "none"
    return openai.OpenAI(
        base_url=address, api_key=key, max_retries=0, timeout=600,
        http_client=openai.DefaultHttpxClient(trust_env=not own),
    )  # fmt: skip


@contextlib.contextmanager
def _spoken(address: str) -> Iterator[None]:
    """Turn the client's errors into the course's."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        asked = error.status_code in (400, 404, 422)
        said = f"the server at {address} answers {error.status_code}: {_words(error)}"
        raise (ValueError if asked else OSError)(said) from error
    except openai.APIError as error:
        raise OSError(f"no answer from {address}: {error}. Is it running?") from error


def _words(error: Any) -> str:
    """Return the sentence in a server's refusal, wherever this server puts it."""
    body = error.body if isinstance(error.body, dict) else {}
    found = body.get("message") or body.get("detail") or body.get("error")
    return str(found or error.response.text).strip()[:300]


def conversation(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]
) -> tuple[list[Message], bool]:
    """Return the messages, and whether to think, that a prompt was rendered from.

    For servers that take messages only. Raises ValueError for a prompt that does not
    come out again when the messages are rendered: such a server would answer another.

    Example:
        conversation(tokenizer, encode(tokenizer, messages, True)) -> (messages, True)
    """
    text = str(tokenizer.decode(list(ids)))
    turns = TURN.findall(text)
    messages: list[Message] = [{"role": role, "content": said} for role, said in turns]
    for thinking in (True, False) if messages else ():
        if encode(tokenizer, messages, thinking) == list(ids):
            return messages, thinking
    raise ValueError(
        f"the prompt {text[:60]!r} is not one that the chat template makes of messages,"
        " and this server takes messages only. Encode it with messages.encode."
    )


@dataclass
class Said:
    """What a server has said so far, in the words of whichever server it is."""

    content: str = ""
    reasoning: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None

    def hear(self, choice: Any, part: Any) -> int:
        """Add a piece of an answer, or a whole one; return how many tokens it was.

        A piece of text counts as one token, and so does the end.
        """
        thought = _field(part, "reasoning_content") or _field(part, "reasoning") or ""
        content = _field(part, "content") or _field(part, "text") or ""
        tokens = _field(choice, "token_ids") or []
        ended = self.finish is None and choice.finish_reason == "stop"
        self.content, self.reasoning = self.content + content, self.reasoning + thought
        self.tokens += tokens
        self.finish = choice.finish_reason or self.finish
        return len(tokens) or bool(content or thought) + ended

    def text(self) -> str:
        """Return what the model wrote; servers cut the marks of thinking out."""
        if not self.reasoning:
            return self.content
        thought = f"{BLOCK[0]}\n" + self.reasoning.strip("\n")
        answer = self.content.lstrip("\n")
        return f"{thought}\n{BLOCK[1]}\n\n{answer}" if answer else thought

    def ids(self, tokenizer: "PreTrainedTokenizerBase", limit: int) -> list[int]:
        """Return the tokens, at most `limit`, with the end token where it came."""
        end: Any = tokenizer.eos_token_id
        ids = self.tokens or tokenizer(self.text(), add_special_tokens=False).input_ids
        ids = list(ids)
        if self.finish == "stop" and ids[-1:] != [end]:
            ids.append(end)
        return ids[:limit]


def _field(part: Any, name: str) -> Any:
    return getattr(part, name, None)
