"""Second turns that can only be answered with the history, and system prompts."""

import random
from dataclasses import replace

from qwen_course.tasks import sums
from qwen_course.tasks.problem import Problem, distinct, earlier

SKILL = "dialogues"
NAMES = (
    "Ada", "Ali", "Ben", "Carla", "Deniz", "Elif", "Emma", "Hugo", "Jin", "Lena",
    "Leo", "Maria", "Mei", "Noah", "Omar", "Rosa", "Sam", "Sofia", "Tom", "Zeynep",
)  # fmt: skip
# A system prompt and what it turns a number into.
STYLES = {
    "Answer with the number only.": "{}",
    "Answer in a full sentence.": "The answer is {}.",
    "Answer in Turkish.": "Cevap {}.",
    "Answer in capital letters.": "THE ANSWER IS {}.",
}


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def follow_up(rng: random.Random) -> Problem:
    """Ask for a sum, then add, subtract or double: "that" is the last answer."""
    first = earlier(sums, rng, rng.choice((2, 2, 3)))
    total = int(first.answer)
    most = rng.choice((9, 99))  # small numbers are asked for as often as large ones
    number = rng.randint(2, max(2, min(total - 1, most)))
    sign, result, wordings = rng.choice(
        (
            ("+", total + number, ("Add {} to that.", "Now add {}.", "Plus {}?")),
            ("-", total - number, ("Subtract {} from that.", "Now take away {}.")),
        )
    )
    return Problem(
        skill=SKILL,
        kind="follow-up",
        content=("follow-up", total, sign, number),
        question=rng.choice(wordings).format(number),
        thinking=f"{total} {sign} {number} = {result}",
        answer=str(result),
        expected=str(result),
        history=(_turn("user", first.question), _turn("assistant", first.answer)),
    )


def remember_name(rng: random.Random) -> Problem:
    """Tell a name, talk of something else or not, and ask for the name."""
    name = rng.choice(NAMES)
    told = rng.choice(("My name is {}.", "Hello, I am {}.", "Call me {}."))
    history = [
        _turn("user", told.format(name)),
        _turn("assistant", f"Nice to meet you, {name}!"),
    ]
    between = rng.choice((None, earlier(sums, rng, 2)))
    if between:
        history += [*between.prompt, _turn("assistant", between.answer)]
    return Problem(
        skill=SKILL,
        kind="name",
        content=("name", name, between.content if between else ()),
        question=rng.choice(("What is my name?", "Who am I?", "Do you know my name?")),
        thinking=f"The user said: {name}",
        answer=f"Your name is {name}.",
        expected=name,
        history=tuple(history),
    )


def greet(rng: random.Random) -> Problem:
    """Answer somebody who says a name, or asks for one that was never said."""
    name = rng.choice(NAMES)
    told = rng.choice(("My name is {}.", "Hello, I am {}.", "Call me {}.", None))
    asked = rng.choice(("What is my name?", "Who am I?", "Do you know my name?"))
    answer = f"Nice to meet you, {name}!" if told else "You did not tell me your name."
    return Problem(
        skill=SKILL,
        kind="greeting",
        content=("greeting", name if told else asked, rng.random()),
        question=told.format(name) if told else asked,
        thinking=f"The user said: {name}" if told else "No name was said.",
        answer=answer,
        expected=name if told else answer,
    )


def styled(rng: random.Random) -> Problem:
    """A sum under a system prompt that sets the form of the answer."""
    system, form = rng.choice(tuple(STYLES.items()))
    problem = sums.make(rng, rng.choice((2, 2, 3)))
    return replace(
        problem,
        skill=SKILL,
        kind="system prompt",
        answer=form.format(problem.answer),
        expected=form.format(problem.answer),
        exact=True,
        history=(_turn("system", system),),
    )


KINDS = {
    "follow-up": follow_up,
    "name": remember_name,
    "greeting": greet,
    "system prompt": styled,
}


def make(rng: random.Random, kind: str | None = None) -> Problem:
    """Make one dialogue of `kind` (drawn at random when None)."""
    return KINDS[kind or rng.choice(tuple(KINDS))](rng)


def problems(
    n: int, seed: int = 0, split: str = "test", kind: str | None = None
) -> list[Problem]:
    """Return `n` dialogues of `kind` (all kinds mixed when None).

    >>> problems(1, seed=0, kind="name")[0].question.endswith("?")
    True
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f'kind "{kind}" is not one of {", ".join(KINDS)}.')
    return distinct(lambda rng: make(rng, kind), n, seed, split)
