"""A Modelfile: the text from which Ollama makes a model. Read, checked and written.

Each instruction begins a line: FROM names the weights, TEMPLATE turns messages into a
prompt, PARAMETER sets how the model writes. A value goes on to the end of its line, or
from three quotes to the next three.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from qwen_course.errors import suggest

Value = int | float | bool | str | list[str]

QUOTES = '"""'
INSTRUCTIONS = (
    *("FROM", "TEMPLATE", "PARAMETER", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE"),
    *("REQUIRES", "RENDERER", "PARSER", "DRAFT"),
)
ROLES = ("system", "user", "assistant")
_WHOLE = (
    *("num_ctx", "num_predict", "num_keep", "num_batch", "num_gpu", "num_thread"),
    *("main_gpu", "draft_num_predict", "repeat_last_n", "seed", "top_k"),
)
_REAL = (
    *("temperature", "top_p", "min_p", "typical_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty"),
)
PARAMETERS: Mapping[str, type] = {
    **dict.fromkeys(_WHOLE, int),
    **dict.fromkeys(_REAL, float),
    "use_mmap": bool,
    "stop": list,
}
_LINE = re.compile(r"\s*(\S+)[ \t]*(.*)")
# One {{ action }} of a template: a comment, or anything with its texts in quotes.
_ACTION = re.compile(
    r"\{\{-?\s*(/\*.*?\*/|(?:\"(?:[^\"\\]|\\.)*\"|`[^`]*`|[^\"`])*?)\s*-?\}\}", re.S
)
_OPENS = ("if", "range", "with", "define", "block")


@dataclass(frozen=True)
class Modelfile:
    """What a Modelfile says; `str()` writes it.

    `base` is the name of a model that Ollama has, or the path of a GGUF file, best
    written "./name.gguf". `parameters` maps Ollama's names to values, "stop" to a list.
    """

    base: str
    template: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    system: str = ""
    adapter: str = ""
    licenses: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    requires: str = ""
    renderer: str = ""
    parser: str = ""
    draft: str = ""

    def __str__(self) -> str:
        lines = [f"FROM {self.base}"]
        for name in ("template", "system", "adapter", "requires", "renderer", "parser"):
            if value := getattr(self, name):
                lines.append(f"{name.upper()} {_quoted(value)}")
        lines += [f"DRAFT {self.draft}"] if self.draft else []
        for name, value in self.parameters.items():
            many = value if isinstance(value, list) else [value]
            lines += [f"PARAMETER {name} {_shown(one)}" for one in many]
        lines += [f"MESSAGE {role} {_quoted(text)}" for role, text in self.messages]
        lines += [f"LICENSE {_quoted(text)}" for text in self.licenses]
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Write a value so that it is read back the same."""
    if QUOTES in text:
        raise ValueError(
            "a Modelfile cannot hold three double quotes in a value: they end it."
        )
    plain = "\n" not in text and text == text.strip() and not text.startswith('"')
    return text if plain else f"{QUOTES}{text}{QUOTES}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


# Reading


def parse(text: str) -> Modelfile:
    """Read a Modelfile.

    Raises ValueError that names the line, what is wrong there, and what to write.

    >>> parse('FROM qwen3:8b\\nPARAMETER temperature 0').parameters
    {'temperature': 0.0}
    >>> parse('FROM qwen3:8b\\nPARAMTER temperature 0')
    Traceback (most recent call last):
    ...
    ValueError: line 2: PARAMTER is no instruction. Did you mean "PARAMETER"?
    """
    found: dict[str, object] = {}
    parameters: dict[str, Value] = {}
    licenses: list[str] = []
    messages: list[tuple[str, str]] = []
    for number, name, value in _instructions(text):
        if name == "PARAMETER":
            _add_parameter(parameters, number, value)
        elif name == "MESSAGE":
            messages.append(_message(number, value))
        elif name == "LICENSE":
            licenses.append(value)
        else:
            key = "base" if name == "FROM" else name.lower()
            if key in found:
                raise ValueError(f"line {number}: {name} stands there a second time.")
            found[key] = value
    if "base" not in found:
        raise ValueError(
            "there is no FROM line. Begin with the weights: FROM ./model.gguf, or the "
            "name of a model that Ollama has, FROM qwen3:8b."
        )
    check_template(str(found.get("template", "")))
    return Modelfile(
        **found,  # type: ignore[arg-type]
        parameters=parameters,
        licenses=tuple(licenses),
        messages=tuple(messages),
    )


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the name and the value of each instruction."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    at, before = 0, ""
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, rest = _LINE.match(line).groups()  # type: ignore[union-attr]
        name = word.upper()
        if name not in INSTRUCTIONS:
            raise ValueError(f"line {start + 1}: {_unknown(word, before)}")
        value = rest.strip()
        while (quote := _open_quote(value)) and at < len(lines):
            rest += "\n" + lines[at]
            value, at = rest.strip(), at + 1
        if quote:
            raise ValueError(
                f"line {start + 1}: the {quote} after {name} is never closed; all that "
                "follows would belong to it."
            )
        if not (value := _unquoted(value)):
            raise ValueError(f"line {start + 1}: {name} says nothing.")
        yield start + 1, name, value
        before = "" if "\n" in value else name


def _unknown(word: str, before: str) -> str:
    """Say what a line is that begins with no instruction."""
    near = suggest(word, INSTRUCTIONS)
    if before in ("TEMPLATE", "SYSTEM", "LICENSE") and not near:
        return (
            f"{word[:20]} is no instruction. A {before} of several lines stands "
            f"between {QUOTES} and {QUOTES}; without them it ends with its first line."
        )
    return f"{word[:20]} is no instruction.{near or ' There are ' + _listed()}"


def _listed() -> str:
    return ", ".join(INSTRUCTIONS) + "."


def _open_quote(value: str) -> str:
    """Return the quote that a value opens and does not close, or nothing."""
    if value.startswith(QUOTES):
        return "" if len(value) >= 6 and value.endswith(QUOTES) else QUOTES
    if value.startswith('"'):
        return "" if len(value) >= 2 and value.endswith('"') else '"'
    return ""


def _unquoted(value: str) -> str:
    if value.startswith(QUOTES):
        return value[3:-3]
    return value[1:-1] if value.startswith('"') else value


def _add_parameter(parameters: dict[str, Value], number: int, text: str) -> None:
    name, _, value = text.partition(" ")
    value = _unquoted(value.strip())
    kind = PARAMETERS.get(name)
    if kind is None:
        raise ValueError(
            f"line {number}: Ollama has no parameter {name}.{suggest(name, PARAMETERS)}"
        )
    if kind is list:
        stops = parameters.setdefault(name, [])
        stops.append(value)  # type: ignore[union-attr]
        return
    parameters[name] = _number(number, name, kind, value)


def _number(number: int, name: str, kind: type, value: str) -> Value:
    """Read the value of a parameter. Raises ValueError when it is of another kind."""
    if kind is bool and value in ("true", "false"):
        return value == "true"
    try:
        return kind(value) if kind is not bool else _never(value)
    except ValueError:
        kinds = {int: "a whole number", float: "a number", bool: "true or false"}
        comment = " A comment needs a line of its own." if "#" in value else ""
        raise ValueError(
            f'line {number}: {name} is "{value}"; it must be {kinds[kind]}.{comment}'
        ) from None


def _never(value: str) -> Value:
    raise ValueError(value)


def _message(number: int, text: str) -> tuple[str, str]:
    role, _, content = text.partition(" ")
    if role not in ROLES:
        raise ValueError(
            f'line {number}: the role "{role}" of a MESSAGE is not one of '
            f"{', '.join(ROLES)}.{suggest(role, ROLES)}"
        )
    return role, _unquoted(content.strip())


def check_template(template: str) -> None:
    """Raise ValueError for a template that Go could not read, or that shows no message.

    It counts what opens and closes; it does not run the template.

    >>> check_template("{{ range .Messages }}{{ .Content }}")
    Traceback (most recent call last):
    ...
    ValueError: the TEMPLATE opens 1 block (if, range, with, define) and closes 0 with \
{{ end }}.
    """
    if not template:
        return
    if "{{" in _ACTION.sub("", template):
        raise ValueError("the TEMPLATE opens a {{ and does not close it with }}.")
    words = [(found[1].split() or [""])[0] for found in _ACTION.finditer(template)]
    opened, closed = sum(word in _OPENS for word in words), words.count("end")
    if opened != closed:
        raise ValueError(
            f"the TEMPLATE opens {opened} block{'s' * (opened != 1)} (if, range, with, "
            f"define) and closes {closed} with {{{{ end }}}}."
        )
    if not re.search(r"\.(Messages|Prompt)\b", template):
        raise ValueError(
            "the TEMPLATE shows neither .Messages nor .Prompt: the model would never "
            "see the question."
        )
