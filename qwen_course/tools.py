"""Tools: read the calls a model writes, run them, and give it the results.

Qwen writes a call as JSON between two control tokens:
<tool_call>{"name": "calculator", "arguments": {"expression": "12 * 30"}}</tool_call>
"""

import ast
import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course.chat import Reply, chat
from qwen_course.errors import suggest
from qwen_course.messages import Message, check_messages

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
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

    Raises ValueError, with the faulty text, for a call that is no JSON object with a
    name and arguments.

    >>> parse_tool_calls('<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>')
    [ToolCall(name='f', arguments={'x': 1})]
    """
    return [_parse(body.strip()) for body in _CALL.findall(text)]


def _parse(body: str) -> ToolCall:
    try:
        call = json.loads(body)
    except json.JSONDecodeError as error:
        raise ValueError(f"the model wrote a call that is no JSON: {body}") from error
    whole = isinstance(call, dict) and isinstance(call.get("name"), str)
    if not whole or not isinstance(call.get("arguments"), dict):
        raise ValueError(f'a call needs a "name" and "arguments" in braces: {body}')
    return ToolCall(call["name"], call["arguments"])


def calculator(expression: str) -> str:
    """Work out an arithmetic expression.

    Args:
        expression: Numbers with +, -, * and /, such as "12 * 30".

    Returns:
        The result.
    """
    try:
        if len(expression) > _LONGEST:
            raise ValueError("it is too long")
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
    makes the tools' schemas from them. What goes wrong inside a call is told to the
    model as the result, so that it can go on. `reply.messages` shows every step;
    `options` are those of `chat`. Raises ValueError when the model still asks for
    calls after `max_calls` of them.
    """
    talk = check_messages(messages)
    by_name = {function.__name__: function for function in functions}
    calls_made = 0
    while True:
        reply = chat(model, tokenizer, talk, tools=list(functions), **options)
        calls = parse_tool_calls(reply.answer)
        if not calls:
            return reply
        calls_made += len(calls)
        if calls_made > max_calls:
            raise ValueError(
                f"the model asks for more than max_calls={max_calls} calls; the last "
                f"was {calls[-1]}. Raise max_calls, or look for a loop."
            )
        results = [_run(call, by_name) for call in calls]
        talk = [*talk, as_message(reply, calls), *results]


def as_message(reply: Reply, calls: Sequence[ToolCall]) -> Message:
    """Return a reply with calls as the assistant message that belongs in a history."""
    message: Message = {
        "role": "assistant",
        "content": _CALL.sub("", reply.answer).strip(),
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
