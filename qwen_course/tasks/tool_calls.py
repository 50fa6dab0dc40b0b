"""Questions for a calculator: write the call, read the response, know when not to."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qwen_course.tasks import course_questions
from qwen_course.tasks.problem import Problem, distinct, draw, split_of

SKILL = "tool_calls"
NAMES = ("calculator", "calculate", "compute", "arithmetic")
ARGUMENTS = ("expression", "formula")
DESCRIPTIONS = (
    "Work out an arithmetic expression.",
    "Compute the value of an expression.",
    "A calculator for large numbers.",
)
# How one operation is asked for, by its sign.
ASKED = {
    "+": ("What is {a} + {b}?", "Add {a} and {b}.", "{a} + {b} = ?"),
    "-": ("What is {a} - {b}?", "Subtract {b} from {a}.", "{a} - {b} = ?"),
    "*": ("What is {a} × {b}?", "Multiply {a} by {b}.", "What is {a} times {b}?",
          "{a} * {b} = ?", "{a} × {b} kaç eder?"),
    "/": ("What is {a} / {b}?", "Divide {a} by {b}.", "What is {a} divided by {b}?"),
}  # fmt: skip
THEN = {
    "+": ("{first} Then add {c}.", "{first} Add {c} to the result."),
    "-": ("{first} Then subtract {c}.", "{first} Take {c} away from the result."),
    "*": ("{first} Then multiply by {c}.", "{first} Multiply the result by {c}."),
}
STORIES = (
    "A factory makes {a} lamps a day for {b} days and sells {c} of them. How many "
    "lamps are left?",
    "A theatre has {a} seats and is full on {b} evenings. {c} of the tickets were "
    "free. How many were paid for?",
)


def schema(name: str, argument: str, description: str) -> dict[str, Any]:
    """Return the tool as the JSON schema that transformers makes of a function."""
    about = 'Numbers with +, -, * and /, such as "12 * 30".'
    properties = {argument: {"type": "string", "description": about}}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": [argument],
            },
            "return": {"type": "string", "description": "The result."},
        },
    }


def _draw_tool(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    if rng.random() < 0.5:  # the course's own calculator
        name, argument, description = NAMES[0], ARGUMENTS[0], DESCRIPTIONS[0]
    else:
        name, argument = rng.choice(NAMES), rng.choice(ARGUMENTS)
        description = rng.choice(DESCRIPTIONS)
    return name, argument, schema(name, argument, description)


def _operation(rng: random.Random) -> tuple[int, str, int, int]:
    """Draw two numbers and a sign, with their result; too large for the head."""
    sign = rng.choice("+-**/")
    a, b = rng.randint(100, 9999), rng.randint(12, 999)
    if sign in "+-":
        b = rng.randint(100, a)
    if sign == "/":
        a = (rng.randint(12, 999)) * b
    return a, sign, b, {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]


def _call(name: str, argument: str, expression: str) -> dict[str, Any]:
    return {"name": name, "arguments": {argument: expression}}


def _as_text(call: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


def _plan(expression: str) -> str:
    return f"{expression}: the calculator does that."


def _turns(
    question: str, done: list[tuple[dict[str, Any], str, str]]
) -> tuple[dict[str, Any], ...]:
    """Return the conversation so far: the question, each call and its response."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    for call, thinking, result in done:
        messages += [
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": thinking,
                "tool_calls": [{"type": "function", "function": call}],
            },
            {"role": "tool", "name": call["name"], "content": result},
        ]
    return tuple(messages)


def _steps(rng: random.Random, count: int) -> tuple[str, list[tuple[str, str]], tuple]:
    """Return a question, its expressions with their results, and its content."""
    a, sign, b, result = _operation(rng)
    if count == 1:
        question = rng.choice(ASKED[sign]).format(a=a, b=b)
        return question, [(f"{a} {sign} {b}", str(result))], (a, sign, b)
    then = rng.choice(tuple(THEN))
    c = rng.randint(11, 99) if then == "*" else rng.randint(2, max(3, result))
    question = rng.choice(ASKED[sign][:2]).format(a=a, b=b)
    question = rng.choice(THEN[then]).format(first=question, c=c)
    if sign == "*" and then == "-" and rng.random() < 0.6:
        question = rng.choice(STORIES).format(a=a, b=b, c=c)
    last = {"+": result + c, "-": result - c, "*": result * c}[then]
    steps = [(f"{a} {sign} {b}", str(result)), (f"{result} {then} {c}", str(last))]
    return question, steps, (a, sign, b, then, c)


def _at_step(rng: random.Random, kind: str, count: int, step: int) -> Problem:
    """Make the problem of writing call number `step`, or the answer after the last."""
    question, steps, content = _steps(rng, count)
    name, argument, tool = _draw_tool(rng)
    calls = [_call(name, argument, expression) for expression, _ in steps]
    done = [
        (calls[n], _plan(steps[n][0]), steps[n][1]) for n in range(min(step, count))
    ]
    if step < count:
        thinking, answer = _plan(steps[step][0]), _as_text(calls[step])
    else:
        result = steps[-1][1]
        thinking, answer = f"The calculator says {result}.", f"The result is {result}."
    return Problem(
        skill=SKILL,
        kind=kind,
        content=(SKILL, *content),
        question="",
        thinking=thinking,
        answer=answer,
        expected=answer if step < count else steps[-1][1],
        history=_turns(question, done),
        exact=step < count,
        tools=(tool,),
        split=split_of((SKILL, *content[:3])),  # by its first operation
    )


def one_call(rng: random.Random) -> Problem:
    """Write the only call that is needed."""
    return _at_step(rng, "one call", 1, 0)


def answer_after_one(rng: random.Random) -> Problem:
    """Answer from the response to the only call."""
    return _at_step(rng, "answer after one call", 1, 1)


def first_of_two(rng: random.Random) -> Problem:
    """Write the first of two calls; the second needs its result."""
    return _at_step(rng, "first of two calls", 2, 0)


def second_of_two(rng: random.Random) -> Problem:
    """Write the second call, with the response to the first in it."""
    return _at_step(rng, "second of two calls", 2, 1)


def answer_after_two(rng: random.Random) -> Problem:
    """Answer from the response to the second call."""
    return _at_step(rng, "answer after two calls", 2, 2)


KINDS: dict[str, Callable[[random.Random], Problem]] = {
    "one call": one_call,
    "answer after one call": answer_after_one,
    "first of two calls": first_of_two,
    "second of two calls": second_of_two,
    "answer after two calls": answer_after_two,
}


def no_call(rng: random.Random, split: str = "train") -> Problem:
    """A question about the course, with a calculator at hand that does not help."""
    problem = course_questions.make(rng, split)
    _, _, tool = _draw_tool(rng)
    return replace(problem, skill=SKILL, kind="no call needed", tools=(tool,))


def make(rng: random.Random, split: str = "train", kind: str | None = None) -> Problem:
    """Make one problem of `kind` (drawn at random when None)."""
    kind = kind or rng.choice((*KINDS, "no call needed"))
    if kind == "no call needed":
        return no_call(rng, split)
    return draw(KINDS[kind], rng, split)


def problems(
    n: int, seed: int = 0, split: str = "test", kind: str | None = None
) -> list[Problem]:
    """Return `n` problems of `kind` (all kinds mixed when None).

    >>> problems(1, seed=0, kind="one call")[0].exact
    True
    """
    if kind is not None and kind not in (*KINDS, "no call needed"):
        kinds = ", ".join((*KINDS, "no call needed"))
        raise ValueError(f'kind "{kind}" is not one of {kinds}.')
    return distinct(lambda rng: make(rng, split, kind), n, seed, split)
