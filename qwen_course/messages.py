"""Check a conversation and turn it into token ids, user text staying text."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qwen_course.errors import suggest
from qwen_course.processors import text_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
PARTS = ("text", "image", "audio")
PART = '{"type": "text", "text": ...}, {"type": "image", "image": ...} or the like'
EXAMPLE = '[{"role": "user", "content": "Hello"}]'
# Stand-ins for control tokens while the template runs; no text of Unicode uses them.
_MARK = "\ufdd0{}\ufdd1"


def check_messages(messages: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return the conversation as a list of dicts; a text is one user message.

    Raises ValueError that names the message and the key that is wrong.

    >>> check_messages("Hi")
    [{'role': 'user', 'content': 'Hi'}]
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list | tuple):
        raise ValueError(f"messages must be a text or a list such as {EXAMPLE}.")
    if not messages:
        raise ValueError(f"messages is empty. Give at least one, such as {EXAMPLE}.")
    checked = [_check_message(number, item) for number, item in enumerate(messages)]
    if all(message["role"] in ("system", "assistant") for message in checked):
        raise ValueError("messages hold no question. Add one with the role user.")
    return checked


def _check_message(number: int, message: Mapping[str, Any]) -> Message:
    where = f"message {number}"
    if not isinstance(message, Mapping):
        raise ValueError(f"{where} is {message!r}; it must be like {EXAMPLE[1:-1]}.")
    for key in ("role", "content"):
        if key not in message and not (key == "content" and "tool_calls" in message):
            raise ValueError(f'{where} has no key "{key}". Write it {EXAMPLE[1:-1]}.')
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise ValueError(
            f'{where} has the role "{role}", which is not one of {", ".join(ROLES)}.'
            + suggest(str(role), ROLES)
        )
    if isinstance(content, list) and role == "user":
        _check_parts(where, content)
    elif not isinstance(content, str) and not ("tool_calls" in message and not content):
        raise ValueError(
            f'{where} has a "content" of type {type(content).__name__}; it must be '
            "text (str)."
        )
    if role == "system" and number > 0:
        raise ValueError(f"{where} is a system message; it must be the first message.")
    return dict(message)


def _check_parts(where: str, parts: list[Any]) -> None:
    """Check the parts of a message: texts, images, sounds."""
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in PARTS or kind not in part:
            raise ValueError(f"{where} holds the part {part!r:.80}; write it {PART}.")
        if kind == "text" and not isinstance(part["text"], str):
            raise ValueError(f"{where} has a text part that is no text (str).")
    if not any(part["type"] == "text" for part in parts):
        raise ValueError(
            f"{where} asks nothing: add a part such as "
            '{"type": "text", "text": "What do you see?"}.'
        )


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    thinking: bool = True,
    tools: list | None = None,
) -> list[int]:
    """Render the conversation with the model's template and return its token ids.

    Control tokens written inside a message, a call or the description of a tool, such
    as <|im_end|>, reach the model as ordinary characters: they cannot end a turn or
    forge one. `tools` are functions or JSON schemas. `tokenizer` may be a processor; an
    image or a sound gives one placeholder, see `media.expand`.
    """
    text = text_tokenizer(tokenizer)
    marks = _marks(text)
    masked = [_masked(message, text, marks) for message in messages]
    schemas = tools and _hide([tool_schema(tool) for tool in tools], marks)
    switches: dict[str, Any] = (
        {"enable_thinking": thinking} if text is tokenizer else {}
    )
    rendered = tokenizer.apply_chat_template(
        masked, tools=schemas, tokenize=False, add_generation_prompt=True, **switches
    )
    return _encode_masked(str(rendered), text, marks)


def _marks(tokenizer) -> dict[str, str]:
    """Map each control token to its stand-in, longest first."""
    tokens = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    return {token: _MARK.format(number) for number, token in enumerate(tokens)}


def tool_schema(tool: Any) -> Any:
    """Return the JSON schema of a tool that is a function; a schema is one already."""
    if not (inspect.isfunction(tool) or inspect.ismethod(tool)):
        return tool
    from transformers.utils import get_json_schema

    return get_json_schema(tool)


def _masked(message: Message, tokenizer, marks: dict[str, str]) -> Message:
    """Replace control tokens in every text of a message, calls and names included.

    What an assistant said keeps the ones that belong to its format, such as <think>.
    """
    keep = message["role"] == "assistant"
    every = tokenizer.added_tokens_decoder.values()
    special = {str(token) for token in every if token.special or not keep}
    said = {token: mark for token, mark in marks.items() if token in special}
    own = ("content", "reasoning_content")
    return {
        key: _hide_content(value, said) if key in own else _hide(value, marks)
        for key, value in message.items()
    }


def _hide_content(content: Any, hidden: dict[str, str]) -> Any:
    """Put stand-ins into a content: a text, or the texts among its parts.

    Of an image or a sound the template needs to know only that it is there.
    """
    if not isinstance(content, list):
        return _hide(content, hidden)
    return [
        {"type": "text", "text": _hide(part["text"], hidden)}
        if part["type"] == "text"
        else {"type": part["type"]}
        for part in content
    ]


def _hide(value: Any, hidden: dict[str, str]) -> Any:
    """Put stand-ins for control tokens into a text, or into all that JSON holds."""
    if isinstance(value, dict):
        return {_hide(key, hidden): _hide(item, hidden) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(item, hidden) for item in value]
    if not isinstance(value, str):
        return value
    text = value.replace("\ufdd0", "").replace("\ufdd1", "")
    for token, mark in hidden.items():
        text = text.replace(token, mark)
    return text


def _encode_masked(text: str, tokenizer, marks: dict[str, str]) -> list[int]:
    """Encode rendered text, each stand-in as the plain characters it stands for."""
    plain = {mark: token for token, mark in marks.items()}
    head, *rest = text.split("\ufdd0")
    parts = [head]
    for piece in rest:
        number, _, tail = piece.partition("\ufdd1")
        token = plain[_MARK.format(number)]
        # subtle: cut inside the token, so that no half of it is a control token.
        parts += [token[:1], token[1:], tail]
    # Not verbose: who uses the ids says what is too long, and what to do.
    options = {"add_special_tokens": False, "verbose": False}
    return [id for part in parts for id in tokenizer(part, **options)["input_ids"]]
