"""What may reach a chat template: the form of a request, and its texts cleaned."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from qwen_course.messages import Message, check_messages
from qwen_course.safe_text import NO_TEXT, neutralise

# The fields of a message that are kept: what chat templates read, and our seal.
_TEXTS = ("name", "tool_call_id", "reasoning_content", "seal")
_DEPTH = 16  # of JSON inside tools and calls
POLICIES = ("neutralise", "refuse")


class Refused(Exception):
    """A request that is not let through: why, what to do, and the HTTP status.

    `code` is a short name for logs: it holds nothing of the request. `retry_after` is
    in seconds, where waiting helps.
    """

    def __init__(
        self,
        reason: str,
        remedy: str = "",
        status: int = 400,
        code: str = "refused",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{reason} {remedy}".strip())
        self.reason, self.remedy, self.status = reason, remedy, status
        self.code, self.retry_after = code, retry_after


def malformed(why: str) -> Refused:
    """Return the refusal of a request that has a wrong form."""
    return Refused(f"The request is malformed: {why}", code="malformed")


def too_much(what: str, found: int, most: int) -> Refused:
    """Return the refusal of a request that is too large."""
    return Refused(
        f"The request has {found} {what}.",
        f"Send {most} at most: shorten the text, or drop old messages.",
        413, f"too-many-{what}",
    )  # fmt: skip


class Cleaner:
    """Checks the form of messages and tools, and neutralises their control tokens.

    `control` are the control tokens, `policy` is "neutralise", or "refuse" for a text
    that holds one. What an assistant said is never refused for its letters, but made
    harmless: a model may write anything. Raises ValueError for another policy.

    >>> cleaner = Cleaner(["<|im_end|>"])
    >>> cleaner.messages("Hi<|im_end|>")
    [{'role': 'user', 'content': 'Hi‹|im_end|›'}]
    """

    def __init__(
        self,
        control: Sequence[str],
        policy: str = "neutralise",
        max_characters: int = 16_000,
        max_messages: int = 64,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f'policy "{policy}" is not one of {", ".join(POLICIES)}.')
        self.control, self.policy = tuple(control), policy
        self.max_characters, self.max_messages = max_characters, max_messages

    def messages(self, messages: Any) -> list[Message]:
        """Return a conversation of known fields and clean texts, or refuse."""
        if isinstance(messages, list | tuple) and len(messages) > self.max_messages:
            raise too_much("messages", len(messages), self.max_messages)
        self._check_size(messages)
        try:
            checked = check_messages(messages)
        except (ValueError, TypeError) as error:
            raise malformed(str(error)) from error
        return [self.message(message) for message in checked]

    def tools(self, tools: Any) -> list | None:
        """Return tools' schemas with clean texts, or refuse: a template prints them."""
        if not tools:
            return None
        self._check_size(tools)
        _check_functions(tools, "tools")
        return self._walk(tools)

    def message(self, message: Message) -> Message:
        """Return one message of right form, its fields known and its texts clean."""
        kept = {name: message[name] for name in _TEXTS if message.get(name)}
        for name, text in kept.items():
            if not isinstance(text, str):
                raise malformed(f'"{name}" must be a text.')
        if calls := message.get("tool_calls"):
            _check_functions(calls, "tool_calls")
            kept["tool_calls"] = calls
        content = _only_text(message.get("content") or "")
        cleaned = {"role": message["role"], "content": content, **kept}
        return self._walk(cleaned, own=message["role"] == "assistant")

    def _check_size(self, value: Any) -> None:
        """Refuse what is far too long before any work is done on it."""
        characters = sum(_sizes(value))
        if characters > self.max_characters:
            raise too_much("characters", characters, self.max_characters)

    def _walk(self, value: Any, depth: int = 0, own: bool = False) -> Any:
        """Clean every text inside lists and dicts, names of fields included."""
        if depth > _DEPTH:
            raise malformed(f"its JSON is nested more than {_DEPTH} deep.")
        if isinstance(value, str):
            return self._text(value, own)
        if isinstance(value, list | tuple):
            return [self._walk(item, depth + 1, own) for item in value]
        if isinstance(value, dict):
            return {
                self._walk(name, depth + 1, own): self._walk(item, depth + 1, own)
                for name, item in value.items()
            }
        if value is None or isinstance(value, bool | int | float):
            return value
        raise malformed(f"a {type(value).__name__} is no part of JSON.")

    def _text(self, text: str, own: bool) -> str:
        if own:
            text = NO_TEXT.sub("\ufffd", text)
        if NO_TEXT.search(text):
            raise malformed("a text holds code points that are no characters.")
        cleaned = neutralise(text, self.control)
        if cleaned != text and self.policy == "refuse" and not own:
            raise Refused(
                "A text holds control tokens of the model, or hidden letters.",
                "Take them out.", code="control-tokens",
            )  # fmt: skip
        return cleaned


def _sizes(value: Any) -> Iterator[int]:
    """Yield the characters of each text and number, and 2 for each pair of brackets.

    Without recursion, so at any depth.
    """
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            todo += item
        yield 2 if isinstance(item, dict | list | tuple) else len(str(item))


def _only_text(content: Any) -> str:
    """Join the parts of a content; a picture is a path that we would have to open."""
    if isinstance(content, str):
        return content
    if any(part["type"] != "text" for part in content):
        raise Refused(
            "This service reads text alone.", "Leave pictures and sounds out.",
            code="media",
        )  # fmt: skip
    return "".join(part["text"] for part in content)


def _check_functions(items: Any, name: str) -> None:
    """Check the form that tools and calls share: a function with a name."""
    for item in items if isinstance(items, list) else [items]:
        function = item.get("function") if isinstance(item, dict) else None
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not isinstance(function.get("arguments", {}), str | dict)
        ):
            raise malformed(f'"{name}" is a list of {{"function": {{"name": ...}}}}.')


# The wire


def read_body(body: bytes, max_bytes: int = 1_000_000) -> dict[str, Any]:
    """Return the JSON object in a request's body, or refuse.

    Refuses a body that is too large, no JSON, nested too deep, or that says a thing
    twice: two programs might not agree which one counts.

    >>> read_body(b'{"messages": "Hi"}')
    {'messages': 'Hi'}
    """
    if len(body) > max_bytes:
        raise too_much("bytes", len(body), max_bytes)
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        raise malformed(
            f"the body is no JSON: {'nested too deep' if deep else error}."
        ) from error
    if not isinstance(value, dict):
        raise malformed("the body is JSON, but no object {...}.")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)
