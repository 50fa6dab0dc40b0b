"""Prompts for kinds of tasks, as messages; and answers in JSON, checked and repaired.

A prompt here is a list of messages. The chat template of the model writes the control
tokens, so the same prompt works with every generation, and no text of a user can end a
turn.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qwen_course.chat import chat
from qwen_course.errors import suggest
from qwen_course.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LANGUAGES = {
    "en": "English",
    "tr": "Turkish (Türkçe)",
    "zh": "Chinese (中文)",
    "es": "Spanish (Español)",
    "fr": "French (Français)",
    "de": "German (Deutsch)",
    "ja": "Japanese (日本語)",
}
Schema = dict[str, Any]
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
# Where a JSON object or list can begin; {x, y} in running text cannot be one.
_START = re.compile(r'\{(?=\s*["}])|\[(?=\s*(?:["{\[\]\d-]|true|false|null))')


def reasoning(problem: str, context: str = "") -> list[Message]:
    """Return messages that ask for a solution in checked steps.

    `context` holds facts that the solution may rely on. With a thinking model leave
    the steps to its thinking; this prompt is for answers without it.

    >>> [message["role"] for message in reasoning("What is 12 + 30?")]
    ['system', 'user']
    """
    return _messages(
        [
            "Solve problems in steps.",
            "First name what is given and what is asked.",
            "Then work it out, one step a line, and check the result.",
            "End with a line that begins with: Answer:",
        ],
        problem=problem,
        context=context,
    )


def code(
    task: str, language: str = "Python", context: str = "", constraints: str = ""
) -> list[Message]:
    """Return messages that ask for code with types, documentation and an example.

    `context` holds code or facts to build on, `constraints` what the solution must
    keep to.
    """
    return _messages(
        [
            f"Write {_text('language', language)} that can be used as it is.",
            "Give every function types and one sentence of documentation.",
            "Handle empty and wrong input. Show one example of use.",
        ],
        task=task,
        constraints=constraints,
        context=context,
    )


def multilingual(
    question: str, languages: Sequence[str] = ("en", "zh", "es")
) -> list[Message]:
    """Return messages that ask one question and want it answered in each language.

    `languages` are codes of LANGUAGES. Raises ValueError for an unknown code.

    >>> multilingual("What is AI?", ["en", "tr"])[0]["content"].splitlines()[0]
    'Answer in English and Turkish (Türkçe), one after the other.'
    """
    names = [_language(name) for name in _some("languages", languages)]
    *first, last = names
    listed = f"{', '.join(first)} and {last}" if first else last
    return _messages(
        [
            f"Answer in {listed}, one after the other.",
            "Begin each part with the name of its language.",
            "Say the same in each, as a native speaker would say it.",
        ],
        question=question,
    )


def structured(question: str, schema: Schema) -> list[Message]:
    """Return messages that want the answer as JSON that fits a JSON schema.

    Raises ValueError when `schema` itself is no JSON schema.
    """
    _validator(schema)
    return _messages(
        [
            "Answer with one JSON value and nothing else: no words, no code fence.",
            f"It must fit this JSON schema: {json.dumps(schema)}",
        ],
        question=question,
    )


def parse_json(text: str, schema: Schema | None = None) -> Any:
    """Return the JSON value in an answer, checked against `schema` if one is given.

    Finds it bare, in a code fence, in a tool call, behind thinking or between other
    words; of several values, the first that fits. Raises ValueError that says what is
    wrong in words that a model can act on, too.

    >>> parse_json('Here it is: {"sum": 42}')
    {'sum': 42}
    """
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r}; give the answer as a text: reply.answer.")
    validator = None if schema is None else _validator(schema)
    faults: list[str] = []
    for value in _find_json(text):
        found = [] if validator is None else list(validator.iter_errors(value))
        if not found:
            return value
        faults = faults or [f"{error.json_path}: {error.message}" for error in found]
    raise ValueError(f"the JSON does not fit the schema: {'; '.join(faults)}")


def ask_json(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    messages: str | Sequence[Message],
    schema: Schema,
    **options: Any,
) -> Any:
    """Ask, check the answer against the schema, and let the model mend it once.

    A text becomes the messages of `structured`. `options` are those of `chat`. Raises
    ValueError when the second answer is wrong too; it names both faults.
    """
    talk = structured(messages, schema) if isinstance(messages, str) else messages
    reply = chat(model, tokenizer, talk, **options)
    try:
        return parse_json(reply.answer, schema)
    except ValueError as error:
        fault = str(error)
    wish = f"That cannot be used: {fault}. Write the corrected JSON and nothing else."
    again = [*reply.messages, {"role": "user", "content": wish}]
    second = chat(model, tokenizer, again, **options)
    try:
        return parse_json(second.answer, schema)
    except ValueError as error:
        raise ValueError(
            f"the model gave no usable JSON in two tries. First: {fault}. Then: "
            f"{error}. Make the schema simpler, or use a larger model."
        ) from error


def _messages(rules: Sequence[str], **parts: str) -> list[Message]:
    """Put the rules into a system message, and the parts, the first bare, below."""
    (name, first), *rest = parts.items()
    lines = [_text(name, first)]
    lines += [
        f"{name.capitalize()}:\n{_text(name, text)}"
        for name, text in rest
        if text != ""
    ]
    return [
        {"role": "system", "content": "\n".join(rules)},
        {"role": "user", "content": "\n\n".join(lines)},
    ]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r}; give a text.")
    return value.strip()


def _some(name: str, values: Sequence[str]) -> Sequence[str]:
    if isinstance(values, str) or not values:
        raise ValueError(f'{name} is {values!r}; give a list such as ["en", "zh"].')
    return values


def _language(code: str) -> str:
    if code not in LANGUAGES:
        raise ValueError(
            f'language "{code}" is not one of {", ".join(LANGUAGES)}.'
            + suggest(str(code), LANGUAGES)
        )
    return LANGUAGES[code]


def _validator(schema: Schema) -> Any:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(
            f"this is no JSON schema: {error.message}. Give one such as "
            '{"type": "object", "properties": {"sum": {"type": "integer"}}}.'
        ) from error
    return Draft202012Validator(schema)


def _find_json(text: str) -> Iterator[Any]:
    """Yield the value that the text is, or else the objects and lists in it.

    What is broken is not searched for whole parts: half an answer is none.
    """
    whole = _value_of(text)
    if whole is not None:
        yield whole[0]
        return
    body = _without_thinking(text)
    fenced = _FENCED.search(body)
    body = (fenced[1] if fenced else body).strip()
    whole = _value_of(body)
    if whole is not None:
        yield whole[0]
        return
    start = _START.search(body) or re.search(r"[{\[]", body)
    if start is None:
        raise ValueError(f"there is no JSON in {(body or text.strip())[:80]!r}")
    while start is not None:
        value, end = read_value(body, start.start())
        yield value
        start = _START.search(body, end)


def _value_of(text: str) -> tuple[Any] | None:
    """Return the value that the whole text is; None when it is no JSON."""
    try:
        value, end = read_value(text, len(text) - len(text.lstrip()))
    except ValueError:
        return None
    return None if text[end:].strip() else (value,)


def _without_thinking(text: str) -> str:
    """Return what follows a think block that the text begins with."""
    if not text.lstrip().startswith("<think>"):
        return text
    return text.partition("</think>")[2]


def read_value(text: str, start: int = 0) -> tuple[Any, int]:
    """Return the JSON value that begins at `start`, and where it ends.

    Raises ValueError that says where the text stops being JSON.

    >>> read_value('[1, 2] and more')
    ([1, 2], 6)
    """
    try:
        return json.JSONDecoder(parse_constant=_no_constant).raw_decode(text, start)
    except json.JSONDecodeError as error:
        there = text[error.pos : error.pos + 20]
        raise ValueError(
            f"the JSON is broken: {error.msg} at {there!r}"
            if there
            else "the JSON is broken: it ends too early"
        ) from error
    except RecursionError as error:
        raise ValueError("the JSON is broken: it is nested too deep") from error
    except ValueError as error:  # Python reads no number of over 4,300 digits
        raise ValueError(f"the JSON is broken: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
