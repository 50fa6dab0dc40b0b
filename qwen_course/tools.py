"""Tools: read the calls a model writes, run them, and give it the results.

Qwen writes a call as JSON between two control tokens:
<tool_call>{"name": "calculator", "arguments": {"expression": "12 * 30"}}</tool_call>
"""

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course.chat import Reply, chat
from qwen_course.errors import suggest
from qwen_course.messages import Message, check_messages
from qwen_course.prompts import read_value

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_LONGEST = 200  # characters of an expression


@dataclass(frozen=True)
class ToolCall:
    """One call that a model asks for."""

    name: str
    arguments: dict[str, Any]


def parse_tool_calls(text: str) -> list[ToolCall]:
    """Return the calls in an answer, in order; an answer without any gives [].

    Raises ValueError, with the faulty text, for a call that was cut off or is no JSON
    object with a name and arguments.

    >>> parse_tool_calls('<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>')
    [ToolCall(name='f', arguments={'x': 1})]
    """
    return split_tool_calls(text)[1]


def split_tool_calls(text: str) -> tuple[str, list[ToolCall]]:
    """Return the words of an answer and its calls, apart; errors as above.

    >>> split_tool_calls('Wait. <tool_call>{"name": "f", "arguments": {}}</tool_call>')
    ('Wait. ', [ToolCall(name='f', arguments={})])
    """
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r}; give the answer as a text: reply.answer.")
    words, opened, rest = text.partition(_OPEN)
    calls = []
    while opened:
        call, rest = _read_call(rest)
        calls.append(call)
        between, opened, rest = rest.partition(_OPEN)
        words += between
    return words, calls


def _read_call(rest: str) -> tuple[ToolCall, str]:
    """Return the call that a text begins with, and the text behind it."""
    body, closed, _ = rest.partition(_CLOSE)
    shown = body.strip()
    try:
        # subtle: an argument may hold the closing tag, so JSON says where it ends.
        call, end = read_value(rest, len(rest) - len(rest.lstrip()))
    except ValueError as error:
        if not closed:
            raise ValueError(
                f"the call was cut off: {shown}. Raise max_new_tokens."
            ) from error
        raise ValueError(f"the model wrote a call that is no JSON: {shown}") from error
    after = rest[end:].lstrip()
    if after and not after.startswith(_CLOSE):
        raise ValueError(f"more than one JSON object stands in a call: {shown}")
    whole = isinstance(call, dict) and isinstance(call.get("name"), str)
    if not whole or not isinstance(call.get("arguments"), dict):
        raise ValueError(f'a call needs a "name" and "arguments" in braces: {shown}')
    return ToolCall(call["name"], call["arguments"]), after.removeprefix(_CLOSE)


def calculator(expression: str) -> str:
    """Work out an arithmetic expression.

    Args:
        expression: Numbers with +, -, * and /, such as "12 * 30".

    Returns:
        The result.
    """
    if not isinstance(expression, str):
        return f"error: the expression is {expression!r}; give a text such as '12 * 30'"
    try:
        if len(expression) > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} characters")
        value = _value(ast.parse(expression.strip(), mode="eval").body)
        return str(int(value)) if value == int(value) else str(round(value, 6))
    except (ValueError, SyntaxError, ZeroDivisionError, OverflowError) as error:
        return f"error: {expression[:40]!r} cannot be worked out ({error})"


def _value(node: ast.expr) -> int | float:
    number = node.value if isinstance(node, ast.Constant) else None
    if isinstance(number, int | float) and not isinstance(number, bool):
        return number
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("use numbers with +, -, * and / only")


def chat_with_tools(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    messages: str | Sequence[Message],
    functions: Sequence[Callable[..., Any]] = (calculator,),
    max_calls: int = 4,
    **options: Any,
) -> Reply:
    """Chat, run the calls the model asks for, and return its last reply.

    `functions` have type hints and a docstring with an `Args:` part: transformers
    makes the tools' schemas from them. What goes wrong with a call is told to the
    model as the result, so that it can go on. `reply.messages` shows every step;
    `options` are those of `chat`. Raises ValueError when the model still asks for
    calls after `max_calls` of them.
    """
    talk = check_messages(messages)
    by_name = {function.__name__: function for function in functions}
    calls_made = 0
    while True:
        reply = chat(model, tokenizer, talk, tools=list(functions), **options)
        try:
            calls = parse_tool_calls(reply.answer)
        except ValueError as error:  # no call that can be run, but one all the same
            calls_made += 1
            said = [reply.messages[-1], {"role": "tool", "content": f"error: {error}"}]
        else:
            if not calls:
                return reply
            calls_made += len(calls)
            said = [as_message(reply, calls)]
            said += [_run(call, by_name) for call in calls]
        if calls_made > max_calls:
            raise ValueError(
                f"the model asks for more than max_calls={max_calls} calls; it last "
                f"wrote {reply.answer!r}. Raise max_calls, or look for a loop."
            )
        talk = [*talk, *said]


def as_message(reply: Reply, calls: Sequence[ToolCall]) -> Message:
    """Return a reply with calls as the assistant message that belongs in a history."""
    message: Message = {
        "role": "assistant",
        "content": split_tool_calls(reply.answer)[0].strip(),
        "tool_calls": [
            {"type": "function",
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ],
    }  # fmt: skip
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    return message


def _run(call: ToolCall, by_name: dict[str, Callable[..., Any]]) -> Message:
    """Run one call; an unknown name or a failure becomes the text of the result."""
    function = by_name.get(call.name)
    if function is None:
        result = f"error: there is no tool {call.name!r}.{suggest(call.name, by_name)}"
    else:
        try:
            result = function(**call.arguments)
        except Exception as error:  # whatever a tool raises, the model must hear of it
            result = f"error: {type(error).__name__}: {error}"
    return {"role": "tool", "name": call.name, "content": str(result)}
