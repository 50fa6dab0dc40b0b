"""Ollama: a program that keeps models and answers over HTTP, in two commands.

It takes a GGUF file and a Modelfile. Here the Modelfile is written from a checkpoint:
the model's chat template in Ollama's language, its sampling values, its stop tokens.
The Python package `ollama` is the client alone; the program comes from ollama.com.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from qwen_course.chat import Reply, Usage
from qwen_course.engines import source_folder
from qwen_course.errors import suggest
from qwen_course.inference import Written
from qwen_course.messages import Message, check_messages
from qwen_course.platforms.common import Runner as BaseRunner
from qwen_course.platforms.common import need, why_missing
from qwen_course.platforms.modelfile import PARAMETERS, Modelfile, Value, parse

PACKAGES = {"ollama": "ollama"}
# The forms of chat templates, and what only a template of that form contains.
FORMS = {
    "qwen3": "enable_thinking",
    "qwen2_5": "You are Qwen, created by Alibaba Cloud",
}
JSON_CALLS = "<function-name>"  # later Qwen models write their calls in XML
GREEDY: Mapping[str, Value] = {"temperature": 0.0, "repeat_penalty": 1.0}
START = "Start it in a terminal of its own: ollama serve"


def why_not(host: str | None = None) -> str | None:
    """Return why Ollama cannot be used here, and what to do; None if it can.

    `host` is an address such as "127.0.0.1:11434"; None means the variable OLLAMA_HOST,
    or that very address.
    """
    if reason := why_missing("Ollama", PACKAGES, "ollama"):
        return reason
    try:
        with _client(host, timeout=2.0) as client:
            client.list()
    except (ConnectionError, RuntimeError) as error:
        return str(error)
    except ValueError:
        return f"what answers at {_at(host)} is no Ollama. {START}"
    return None


# The model's form in Ollama


def template(model: str | Path) -> str:
    """Return the Go template that renders what a model's own chat template renders.

    Raises ValueError for a chat template of another form than Qwen2.5's and Qwen3's.

    Example:
        print(template("pocket-qwen3"))
    """
    form = _form(source_folder(model))
    folder = files("qwen_course").joinpath("data/ollama")
    parts = [folder.joinpath(f"{name}.gotmpl") for name in ("tools", form)]
    return "".join(part.read_text("utf-8").rstrip("\n") for part in parts)


def _form(source: Path) -> str:
    """Return the name of the form of a checkpoint's chat template."""
    path = source / "chat_template.jinja"
    text = path.read_text("utf-8") if path.is_file() else ""
    text = text or _json(source, "tokenizer_config.json").get("chat_template", "")
    text = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)  # comments
    found = [form for form, mark in FORMS.items() if mark in text]
    if not found or JSON_CALLS not in text:
        raise ValueError(
            f"the chat template of {source.name} is none that the course has in "
            f"Ollama's language; it has those of {' and '.join(FORMS)}. Take the model "
            "from Ollama's own library instead."
        )
    return found[0]


def parameters(
    model: str | Path,
    sampling: str | Mapping[str, Value] | None = None,
    context: int | None = None,
) -> dict[str, Value]:
    """Return Ollama's parameters for a model, from its checkpoint folder.

    What generation_config.json leaves open gets the default of transformers, because
    Ollama would take another one. `sampling` "greedy" asks for the most likely token
    each time; a mapping changes single parameters by Ollama's names. `context` is the
    room for prompt and answer in tokens; without it all that the model has.

    Raises ValueError for an unknown parameter and for more room than the model has.

    >>> parameters("pocket-math")["temperature"]
    0.0
    """
    source = source_folder(model)
    given = _json(source, "generation_config.json")
    values: dict[str, Value] = {"num_ctx": _context(source, context)}
    if sampling == "greedy" or not given.get("do_sample", False):
        values["temperature"] = 0.0
    else:
        values["temperature"] = given.get("temperature", 1.0)
        values |= {"top_k": given.get("top_k", 50), "top_p": given.get("top_p", 1.0)}
        values["min_p"] = given.get("min_p", 0.0)
    penalty = given.get("repetition_penalty", 1.0)
    values["repeat_penalty"] = 1.0 if sampling == "greedy" else penalty
    values["stop"] = _ends(source, given)
    return values | _checked(sampling)


def _context(source: Path, context: int | None) -> int:
    room = _json(source, "config.json")["max_position_embeddings"]
    if context is not None and not 1 <= context <= room:
        raise ValueError(
            f"context is {context}; {source.name} was made for 1 to {room} tokens."
        )
    return context or room


def _checked(sampling: str | Mapping[str, Value] | None) -> dict[str, Value]:
    """Return what `sampling` changes. Raises ValueError for a wrong parameter."""
    if sampling is None or sampling == "greedy":
        return {}
    if isinstance(sampling, str):
        raise ValueError(f'sampling is "{sampling}"; it may be "greedy", or a mapping.')
    for name in sampling:
        if name not in PARAMETERS:
            raise ValueError(
                f"Ollama has no parameter {name}.{suggest(str(name), PARAMETERS)}"
            )
    return dict(sampling)


def _ends(source: Path, given: Mapping[str, Any]) -> list[str]:
    """Return the texts of the tokens at which the model ends its text."""
    ids = given.get("eos_token_id", [])
    added = _json(source, "tokenizer.json")["added_tokens"]
    texts = {token["id"]: token["content"] for token in added}
    return [texts[id] for id in (ids if isinstance(ids, list) else [ids])]


def _json(source: Path, name: str) -> Any:
    path = source / name
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _licenses(source: Path) -> tuple[str, ...]:
    """Return the licence of a checkpoint: its text, or the name in its model card."""
    for path in sorted(source.glob("LICENSE*")):
        return (path.read_text("utf-8"),)
    card = source / "README.md"
    lines = card.read_text("utf-8").splitlines()[:30] if card.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if "license:" in line]
    return tuple(named[:1])


def modelfile(
    model: str | Path,
    gguf: str | Path,
    sampling: str | Mapping[str, Value] | None = None,
    context: int | None = None,
) -> str:
    """Return the Modelfile of a checkpoint whose weights are in a GGUF file beside it.

    It has no SYSTEM: a default system message, where the model has one, is part of its
    template. See `parameters` for `sampling`, `context` and the errors.

    >>> modelfile("pocket-qwen3", "pocket-qwen3-q8_0.gguf").splitlines()[0]
    'FROM ./pocket-qwen3-q8_0.gguf'
    """
    written = Modelfile(
        f"./{Path(gguf).name}",
        template(model),
        parameters(model, sampling, context),
        licenses=_licenses(source_folder(model)),
    )
    return str(written)


def write(
    model: str | Path,
    folder: str | Path,
    precision: str = "q8_0",
    sampling: str | Mapping[str, Value] | None = None,
    context: int | None = None,
) -> Path:
    """Write a model's GGUF file and its Modelfile into a folder; return the Modelfile.

    After it, `ollama create NAME -f FOLDER/Modelfile` makes the model. Raises what
    `modelfile` and `gguf_files.export` raise.

    Example:
        write("pocket-qwen3", "for-ollama")
    """
    from qwen_course.platforms import gguf_files

    text = modelfile(model, "later.gguf", sampling, context)
    weights = gguf_files.export(model, precision, folder)
    path = Path(folder) / "Modelfile"
    path.write_text(text.replace("later.gguf", weights.name, 1), encoding="utf-8")
    return path


# The client


def _at(host: str | None) -> str:
    return host or os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"


@contextmanager
def _plain_errors(host: str | None, model: str = "") -> Iterator[None]:
    """Turn the errors of the client into one sentence that says what to do."""
    import httpx
    import ollama

    try:
        yield
    # subtle: the client makes a ConnectionError of the first only without a stream.
    except (ConnectionError, httpx.TransportError) as error:
        start = START
        if not shutil.which("ollama"):
            start = (
                "The program `ollama` is not on this computer's path: the package of "
                f"that name is its client alone. Get it from ollama.com. {START}"
            )
        raise ConnectionError(f"no Ollama answers at {_at(host)}. {start}") from error
    except ollama.ResponseError as error:
        if error.status_code == 404 and model:
            raise ValueError(
                f'Ollama has no model "{model}". Make it from a Modelfile: ollama '
                f"create {model} -f Modelfile   or fetch one: ollama pull qwen3:8b"
            ) from error
        raise RuntimeError(f"Ollama refused: {error.error}") from error


@contextmanager
def _client(host: str | None, timeout: float | None = None) -> Iterator[Any]:
    need(why_missing("Ollama", PACKAGES, "ollama"))
    import ollama

    with _plain_errors(host), ollama.Client(host, timeout=timeout) as client:
        yield client


def create(path: str | Path, name: str, host: str | None = None) -> None:
    """Make a model in Ollama from a Modelfile and the GGUF file that it names.

    The same as `ollama create NAME -f PATH`, over HTTP: the file is uploaded under its
    SHA-256, the rest goes with the request. Ollama keeps the model as `name`.

    Raises ValueError for a wrong Modelfile, OSError for a missing GGUF file,
    ConnectionError when no Ollama answers, RuntimeError when it refuses.
    """
    path = Path(path)
    made = parse(path.read_text("utf-8"))
    weights = path.parent / made.base
    if not weights.is_file():
        raise OSError(f"{path} says FROM {made.base}, and there is no such file.")
    with _client(host) as client:
        digest = client.create_blob(weights)
        client.create(
            name,
            files={weights.name: digest},
            template=made.template or None,
            system=made.system or None,
            license=list(made.licenses) or None,
            parameters=dict(made.parameters) or None,
        )


class Runner(BaseRunner):
    """A model that a running Ollama keeps as `name`.

    `model` is the checkpoint it was made from: its tokenizer turns token ids into the
    text that Ollama takes, and Ollama's text back. Without `name` it is called like the
    checkpoint.

    Raises ImportError without the client, ConnectionError when no Ollama answers.

    Example:
        create(write("pocket-qwen3", "for-ollama"), "pocket-qwen3")
        with Runner("pocket-qwen3") as runner:
            runner.chat("2 + 3 = ?", think=False).answer
    """

    def __init__(
        self, model: str | Path, name: str | None = None, host: str | None = None
    ) -> None:
        need(why_not(host))
        import ollama
        from transformers import AutoTokenizer

        source = source_folder(model)
        self.name, self.host = name or Path(str(model)).name.lower(), host
        self.tokenizer = AutoTokenizer.from_pretrained(source)
        self.context = _context(source, None)
        self._end = _json(source, "generation_config.json").get("eos_token_id", [])
        self._client = ollama.Client(host)

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write greedily after a prompt, as `inference.write` does.

        Ollama takes and gives text: the ids of the answer are those that the tokenizer
        makes of it. It always stops at the end token. Raises ValueError for a prompt
        that comes back from text as other tokens, such as one with control tokens in
        the words of a user.
        """
        prompt = str(self.tokenizer.decode(list(ids)))
        if self._encoded(prompt) != list(ids):
            raise ValueError(
                "this prompt cannot go through Ollama: read back from its text it has "
                "other tokens. Are there control tokens in the user's words?"
            )
        options = self._options({**GREEDY, "num_predict": max_new_tokens})
        text, moments, last = "", [], None
        started = time.perf_counter()
        with _plain_errors(self.host, self.name):
            for last in self._client.generate(
                self.name, prompt, raw=True, stream=True, options=options
            ):
                text += last.response or ""
                moments.append(time.perf_counter() - started)
        new = self._encoded(text)
        if last is not None and last.done_reason == "stop":
            new.append(self._end[0] if isinstance(self._end, list) else self._end)
        at = [moments[n * len(moments) // len(new)] for n in range(len(new))]
        return Written(new, tuple(at))

    def _encoded(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _options(self, options: Mapping[str, Value]) -> dict[str, Value]:
        """Return the options of a request; the whole context, where none is given."""
        return {"num_ctx": self.context, "seed": 0, **_checked(options)}

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        think: bool | None = None,
        tools: Sequence[Any] | None = None,
        **options: Value,
    ) -> Reply:
        """Ask as `qc.chat` does, the template and the parser being Ollama's.

        `think` None leaves it to Ollama. `options` are Ollama's parameters for this
        call alone, such as temperature=0 or num_predict=256. Append to the reply's
        `messages` to go on. Raises ValueError for an unknown model or option,
        ConnectionError when no Ollama answers, RuntimeError when it refuses.
        """
        talk = check_messages(messages)
        started = time.perf_counter()
        with _plain_errors(self.host, self.name):
            answer = self._client.chat(
                self.name,
                [_sent(message) for message in talk],
                tools=tools,
                think=think,
                options=self._options(options),
            )
        return _reply(talk, answer, time.perf_counter() - started)

    def close(self) -> None:
        """Close the connection; Ollama goes on, and unloads the model by itself."""
        self._client.close()


def _sent(message: Message) -> dict[str, Any]:
    """Return a message in Ollama's form: thinking has a name of its own there."""
    sent = {key: message[key] for key in ("role", "content") if message.get(key)}
    if thinking := message.get("reasoning_content"):
        sent["thinking"] = thinking
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [
            {"function": {"name": one["name"], "arguments": one["arguments"]}}
            for one in (call.get("function", call) for call in calls)
        ]
    return sent


def _reply(talk: list[Message], answer: Any, seconds: float) -> Reply:
    """Build a reply; Ollama counts all new tokens together, so they are shared."""
    said = answer.message
    thinking, content = (said.thinking or "").strip(), (said.content or "").strip()
    written = answer.eval_count or 0
    inside = round(written * len(thinking) / max(1, len(thinking) + len(content)))
    decoding = (answer.eval_duration or 0) / 1e9
    usage = Usage(
        answer.prompt_eval_count or 0,
        inside,
        written - inside,
        seconds,
        max(0.0, seconds - decoding),
    )
    message: Message = {"role": "assistant", "content": content}
    if thinking:
        message["reasoning_content"] = thinking
    if said.tool_calls:
        message["tool_calls"] = [call.model_dump() for call in said.tool_calls]
    stopped = "length" if answer.done_reason == "length" else "end"
    return Reply(content, thinking, usage, stopped, [*talk, message])
