"""llama.cpp: a program without Torch that runs a GGUF file on nearly every machine.

Two packages bring it into Python. `xllamacpp` comes built, and holds llama.cpp's whole
server inside this process; `llama-cpp-python` is built while it is installed, for
exactly this processor, and runs the model without a server. Both are used here the
same way, and the server is asked as any `llama-server` is: over HTTP.
"""

import contextlib
import http.client
import importlib.util
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qwen_course import catalog
from qwen_course.errors import suggest
from qwen_course.inference import Written
from qwen_course.platforms import common
from qwen_course.platforms.gguf_files import write_gguf as export

__all__ = ["PACKAGES", "Runner", "export", "server_command", "why_not"]

PACKAGES = {"llama-cpp-python": "llama_cpp", "xllamacpp": "xllamacpp"}
# Asked with every prompt: a penalty or a prompt kept from before would change answers.
GREEDY = {
    "temperature": 0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dry_multiplier": 0.0,
    "cache_prompt": False,
    "return_tokens": True,
}
LONGER = "Runner(path, context=...) says how many tokens a text may have."


def why_not() -> str | None:
    """Return why llama.cpp cannot run here, and what to type; None if it can."""
    if installed():
        return None
    return common.why_missing("llama.cpp", {"xllamacpp": "xllamacpp"}, "gguf")


def installed() -> list[str]:
    """Return the packages of llama.cpp that are here, the faster one first."""
    found = importlib.util.find_spec
    return [package for package, module in PACKAGES.items() if found(module)]


class Runner(common.Runner):
    """A GGUF file run by llama.cpp. Close it, or use `with`.

    `threads` None takes all cores; `context` is the number of tokens that each text may
    have, prompt and answer together; `slots` how many prompts `answers` has in work at
    once. `package` None takes llama-cpp-python where it is installed, else xllamacpp.
    With xllamacpp, a server listens on this machine at `address`, in the OpenAI form,
    for whoever sends `key`.

    Raises ImportError when neither package is installed, ValueError for an unknown
    package, OSError for a file that llama.cpp cannot load.

    Example:
        with Runner(export("pocket-qwen3", "q8_0")) as runner:
            runner.write(ids, max_new_tokens=64).ids
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        slots: int = 4,
        context: int = 1024,
        package: str | None = None,
    ) -> None:
        self.package = _chosen(package)
        self.path = Path(path)
        if not self.path.is_file():
            raise OSError(
                f"there is no file {path}. Write one: "
                'llama_cpp.export("pocket-qwen3", "q8_0").'
            )
        made = _Server if self.package == "xllamacpp" else _Library
        self._inside: Any = made(self.path, threads, slots, context)

    @property
    def address(self) -> str:
        """The address of the server, for clients in the OpenAI form."""
        return f"http://{self._inside.place}/v1"

    @property
    def key(self) -> str:
        """What a client of the server must send as its API key."""
        return self._inside.key

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write greedily after a prompt of token ids, as `inference.write` does.

        With `stop=False` the end token is never chosen. Raises ValueError for a prompt
        longer than the context.
        """
        started = time.perf_counter()
        new: list[int] = []
        moments: list[float] = []
        for token in self._inside.tokens(list(ids), max_new_tokens, stop):
            new.append(token)
            moments.append(time.perf_counter() - started)
        return Written(new, tuple(moments))

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer several prompts, `slots` of them at once where there is a server."""
        if self.package != "xllamacpp":
            return super().answers(rows, max_new_tokens)
        return self._inside.answers([list(row) for row in rows], max_new_tokens)

    def close(self) -> None:
        """Give back the model's memory, and the server's port."""
        self._inside.close()


def _chosen(package: str | None) -> str:
    """Return the package to use, or say why there is none."""
    if package is not None and package not in PACKAGES:
        raise ValueError(
            f'package "{package}" is not one of {", ".join(PACKAGES)}.'
            f"{suggest(str(package), PACKAGES)}"
        )
    common.need(why_not())
    here = installed()
    if package and package not in here:
        raise ImportError(
            f"{package} is not installed here; {', '.join(here)} is. "
            f"Type: python -m pip install {package}"
        )
    return package or here[0]


class _Server:
    """llama.cpp's server inside this process, by xllamacpp."""

    def __init__(
        self, path: Path, threads: int | None, slots: int, context: int
    ) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.n_ctx = slots, slots * context
        for cores in (params.cpuparams, params.cpuparams_batch):
            cores.n_threads = threads or cores.n_threads
        # The log is silent, nothing is fetched, no page in a browser may ask.
        params.verbosity, params.offline, params.ui = 0, True, False
        self.key = secrets.token_urlsafe(16)
        params.api_keys = [self.key]
        params.cache_ram_mib = 0
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise OSError(f"llama.cpp could not load {path.name}: {error}") from error
        self.place = self._server.listening_address.removeprefix("http://")
        # Not urllib: it would send even this through a proxy that the system names.
        self._line = http.client.HTTPConnection(self.place)
        self._answered = False

    def tokens(self, ids: list[int], limit: int, stop: bool) -> Iterator[int]:
        """Yield the tokens of one answer as the server sends them."""
        asked = {"prompt": ids, "n_predict": limit, "ignore_eos": not stop}
        written = 0
        for line in self._ask(asked | {"stream": True}):
            if not line.startswith(b"data: {"):
                continue
            said = json.loads(line[6:])
            # subtle: the token that begins a character of several bytes is never sent,
            # only counted. Then ask once more, for all of it at once.
            if said["tokens_predicted"] > written + len(said["tokens"]):
                yield from json.load(self._ask(asked))["tokens"][written:]
                return
            yield from said["tokens"]
            written += len(said["tokens"])

    def answers(self, rows: list[list[int]], limit: int) -> list[list[int]]:
        """Send all prompts at once; the server shares them among its slots."""
        if not rows:
            return []
        said = json.load(self._ask({"prompt": rows, "n_predict": limit}))
        found = said if isinstance(said, list) else [said]
        return [one["tokens"] for one in sorted(found, key=lambda one: one["index"])]

    def _ask(self, body: dict[str, Any]) -> http.client.HTTPResponse:
        head = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.key}",
        }
        self._line.close()  # an answer that was not read to its end ends here
        self._line.request("POST", "/completion", json.dumps(GREEDY | body), head)
        answer = self._line.getresponse()
        if answer.status != http.client.OK:
            said = json.load(answer)["error"]["message"]
            raise ValueError(f"llama.cpp refuses this prompt: {said}. {LONGER}")
        self._answered = True
        return answer

    def close(self) -> None:
        """End the server: it ends when nothing holds it."""
        # subtle: a server that is told to end before its loop has begun never ends. An
        # answer shows that it has.
        if not self._answered:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._ask({"prompt": [0], "n_predict": 1}).read()
        self._line.close()
        self._server = None


class _Library:
    """llama.cpp as a library, by llama-cpp-python."""

    def __init__(
        self, path: Path, threads: int | None, slots: int, context: int
    ) -> None:
        import llama_cpp

        try:
            self._model = llama_cpp.Llama(
                str(path), n_ctx=context, n_threads=threads, n_threads_batch=threads,
                verbose=False,
            )  # fmt: skip
        except ValueError as error:
            raise OSError(f"llama.cpp could not load {path.name}: {error}") from error
        self._end = self._model.token_eos()
        self._context = context

    def tokens(self, ids: list[int], limit: int, stop: bool) -> Iterator[int]:
        """Yield the tokens of one answer; the library itself would never end it."""
        if len(ids) >= self._context:
            raise ValueError(
                f"the prompt has {len(ids)} tokens, the context "
                f"{self._context}. {LONGER}"
            )
        self._model.reset()
        options = {"temp": 0.0, "top_k": 1, "repeat_penalty": 1.0}
        room = min(limit, self._context - len(ids))
        written = self._model.generate(ids, **options)
        for _, token in zip(range(room), written, strict=False):
            yield int(token)
            if stop and token == self._end:
                return

    def close(self) -> None:
        """Give the memory back."""
        self._model.close()


def server_command(
    model: str | Path = "Qwen/Qwen3-8B-GGUF:Q4_K_M",
    port: int = 8080,
    thinking: bool = True,
    context: int = 40960,
) -> list[str]:
    """Return the command that serves a model in the OpenAI form, word by word.

    `model` is a repository of GGUF files on the Hub, a colon and the type wanted, or a
    file. The sampling is what Qwen recommends with or without thinking, and stands
    until a request asks for something else; `context` counts for all requests together.

    Example:
        " ".join(server_command())
    """
    source = "-m" if Path(model).suffix == ".gguf" else "-hf"
    values = catalog.sampling("Qwen3-8B", thinking)
    template = json.dumps({"enable_thinking": thinking}, separators=(",", ":"))
    return [
        *("llama-server", source, str(model), "--port", str(port), "-c", str(context)),
        *("-ngl", "99", "-fa", "on", "--jinja", "--chat-template-kwargs", template),
        *("--temp", str(values["temperature"]), "--top-k", str(values["top_k"])),
        *("--top-p", str(values["top_p"]), "--min-p", f"{values['min_p']:g}"),
    ]
