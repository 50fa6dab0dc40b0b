"""From problems to batches: render, mark what is learnt, pack.

Everything is drawn from the seed and the step number alone, so a resumed run sees
exactly the batches that an unbroken one would have seen.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from qwen_course import tasks
from qwen_course.tasks import course_questions
from qwen_course.tasks import problem as problems
from qwen_course.tasks.problem import Problem

IGNORE = -100  # label of a token that is read but not learnt


@dataclass(frozen=True)
class Mix:
    """What the training data is made of: weights of the skills, shares of the forms."""

    sums: float = 0.13
    products: float = 0.16
    word_problems: float = 0.22
    course_questions: float = 0.28
    instructions: float = 0.04
    dialogues: float = 0.05
    new_questions: float = 0.07
    tool_calls: float = 0.045
    small_sums: float = 0.0  # of the sums: two to four numbers below 20
    near_hundreds: float = 0.0  # of the sums: with a total just below or above one
    hard_words: float = 0.0  # of the word problems: of the kinds learnt last, at least
    hello: float = 0.0  # of the dialogues: a greeting without a name
    unknown: float = 0.0  # of the course questions: to answer with "I do not know"
    thinking: float = 0.65  # the rest is answered at once
    cut_short: float = 0.15  # of the thinking ones: closed early, as by a budget
    soft_switch: float = 0.10  # /think or /no_think written in the question
    system: float = 0.15  # a general system prompt in front


SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a friendly teacher.",
    "Be brief.",
    "Help the user.",
)


class Example(NamedTuple):
    """Token ids and, for each, whether the loss counts it."""

    ids: list[int]
    learnt: list[bool]


# The kinds with the most steps, or with the largest numbers.
HARD_WORDS = ("share", "two steps", "discount", "yearly growth", "give away")


def _near_hundred(rng: random.Random) -> Problem:
    """Make a sum in which 199 and 299, or 198 and 201, are easily mistaken.

    The first digit is written first, and a carry from the last one decides it.
    """
    while True:
        problem = tasks.sums.make(rng)
        totals = [int(line.rsplit(" ", 1)[1]) for line in problem.thinking.splitlines()]
        if any((total + 2) % 100 <= 3 for total in totals):
            return problem


def _greeting(rng: random.Random) -> Problem:
    """Greet in one of the languages, as people type it."""
    language = rng.choice(course_questions.LANGUAGES)
    problem = rng.choice(course_questions.every_fact("train", language)["hello"])
    question = course_questions.roughen(problem.question, language, rng)
    return replace(problem, question=question)


def draw_problem(rng: random.Random, mix: Mix) -> Problem:
    """Draw one training problem; a test content is never returned."""
    skill = rng.choices(tasks.SKILLS, [getattr(mix, name) for name in tasks.SKILLS])[0]
    make = getattr(tasks, skill).make
    if skill == "products" and rng.random() < 0.2:
        make = functools.partial(make, smallest=2)
    elif skill == "sums" and rng.random() < mix.small_sums:
        largest = rng.choice((9, 19))
        make = functools.partial(make, count=rng.randint(2, 4), largest=largest)
    elif skill == "sums" and rng.random() < mix.near_hundreds:
        make = _near_hundred
    elif skill == "word_problems" and rng.random() < mix.hard_words:
        make = functools.partial(make, kind=rng.choice(HARD_WORDS))
    elif skill == "dialogues" and rng.random() < mix.hello:
        make = _greeting
    elif skill == "course_questions" and rng.random() < mix.unknown:
        make = functools.partial(make, kind="unknown")
    return problems.draw(make, rng, "train")


def _with_switch(
    messages: list[dict[str, Any]], switch: str, rng: random.Random
) -> list[dict[str, Any]]:
    """Write /think or /no_think into the conversation; the last one counts.

    It stands in the question, in an earlier one, or in both with the question's
    overruling an opposite one.
    """
    asked = [n for n, message in enumerate(messages) if message["role"] == "user"]
    places = {asked[-1]: switch}
    if len(asked) > 1 and rng.random() < 0.5:
        opposite = "/think" if switch == "/no_think" else "/no_think"
        earlier = rng.choice(asked[:-1])
        places = {earlier: switch}
        if rng.random() < 0.5:
            places = {earlier: opposite, asked[-1]: switch}
    return [
        {**message, "content": f"{message['content']} {places[n]}"}
        if n in places
        else message
        for n, message in enumerate(messages)
    ]


def _messages(
    problem: Problem, rng: random.Random, mix: Mix, think: bool, switch: str | None
) -> list[dict[str, Any]]:
    messages = problem.prompt
    if not think:  # then the calls of this question were made without thinking too
        messages = [
            {key: value for key, value in message.items() if key != "reasoning_content"}
            for message in messages
        ]
    if switch:
        messages = _with_switch(messages, switch, rng)
    if messages[0]["role"] != "system" and rng.random() < mix.system:
        system = {"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}
        messages = [system, *messages]
    return messages


Parts = list[tuple[str, bool]]  # a text and whether it is learnt


def write(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, rng: random.Random, mix: Mix
) -> tuple[Parts, str | None]:
    """Return the parts of one example, and its thinking unless that is switched off.

    The prompt is read; what the model itself must write is learnt. The template
    closes the think block in the prompt, or the model does it after /no_think.
    """
    think = rng.random() < mix.thinking
    soft = rng.random() < mix.soft_switch
    switch = ("/think" if think else "/no_think") if soft else None
    prompt = tokenizer.apply_chat_template(
        _messages(problem, rng, mix, think, switch),
        tools=list(problem.tools) or None,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=think or soft,
    )
    closed: Parts = [("<think>\n\n</think>\n\n", True)] if soft and not think else []
    return [(prompt, False), *closed], problem.thinking if think else None


def render(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, rng: random.Random, mix: Mix
) -> Example:
    """Return one example, in one of three forms.

    Thinking, no thinking, and thinking closed before its end, where the closing was
    not the model's choice and is not learnt.
    """
    parts, thinking = write(problem, tokenizer, rng, mix)
    answer = (f"{problem.answer}<|im_end|>", True)
    if thinking is None:
        return encode([*parts, answer], tokenizer)
    if rng.random() < mix.cut_short:
        return _cut(thinking, parts, answer, tokenizer, rng)
    whole = (f"<think>\n{thinking}\n</think>\n\n", True)
    return encode([*parts, whole, answer], tokenizer)


def _cut(thinking, parts, answer, tokenizer, rng) -> Example:
    """Close the thinking after a random number of its tokens."""
    head = encode([*parts, ("<think>\n", True)], tokenizer)
    body = tokenizer(thinking)["input_ids"]
    body = body[: rng.randint(0, len(body))]
    tail = encode([("\n</think>\n\n", False), answer], tokenizer)
    return Example(
        head.ids + body + tail.ids, head.learnt + [True] * len(body) + tail.learnt
    )


def encode(parts: Parts, tokenizer: PreTrainedTokenizerBase) -> Example:
    """Return the token ids of the parts, each marked as learnt or only read."""
    ids: list[int] = []
    learnt: list[bool] = []
    for text, is_learnt in parts:
        piece = tokenizer(text)["input_ids"]
        ids += piece
        learnt += [is_learnt] * len(piece)
    return Example(ids, learnt)


def pack(examples: list[Example], rows: int, length: int, pad: int) -> dict:
    """Put examples side by side into `rows` rows of `length` tokens, first fit.

    Returns `input_ids`, `labels`, `position_ids` of shape (rows, length), where the
    positions restart with each example; `real`, false where a row is filled up; and
    `attention_mask` of shape (rows, 1, length, length): causal, and blind to the
    neighbours in the row. Examples that fit nowhere are left out.
    """
    ids = torch.full((rows, length), pad)
    labels = torch.full((rows, length), IGNORE)
    positions = torch.zeros((rows, length), dtype=torch.long)
    owner = torch.full((rows, length), -1)
    used = [0] * rows
    for number, example in enumerate(examples):
        size = len(example.ids)
        row = next((r for r in range(rows) if used[r] + size <= length), None)
        if row is None:
            continue
        place = slice(used[row], used[row] + size)
        ids[row, place] = torch.tensor(example.ids)
        learnt = torch.tensor(example.learnt)
        labels[row, place] = torch.where(learnt, ids[row, place], IGNORE)
        positions[row, place] = torch.arange(size)
        owner[row, place] = number
        used[row] += size
    same = owner[:, :, None] == owner[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (same & causal)[:, None]
    return {"input_ids": ids, "labels": labels, "position_ids": positions,
            "real": owner >= 0, "attention_mask": mask}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """So many rows of so many tokens."""

    number: int
    length: int


# Most examples are short, and attention over short rows is cheap; the few long ones
# (tools, conversations) have rows of their own.
ROWS = (Rows(32, 128), Rows(3, 416))


def batch(
    step: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    mix: Mix,
    rows: tuple[Rows, ...] = ROWS,
) -> list[dict]:
    """Return the packed batches of one training step, one for each length of row."""
    rng = random.Random(f"{seed}/{step}")

    def draw() -> Example:
        return render(draw_problem(rng, mix), tokenizer, rng, mix)

    return fill_rows(draw, rows, tokenizer.pad_token_id)


def fill_rows(
    draw: Callable[[], Example], rows: tuple[Rows, ...], pad: int
) -> list[dict]:
    """Draw examples until one of the batches is full; pack each length of row.

    An example goes where it fits best; one that is longer than all rows is left out.
    """
    waiting: list[list[Example]] = [[] for _ in rows]
    room = [group.number * group.length for group in rows]
    while min(room) > 0:
        example = draw()
        size = len(example.ids)
        place = next((n for n, group in enumerate(rows) if size <= group.length), None)
        if place is not None:
            waiting[place].append(example)
            room[place] -= size
    return [
        pack(examples, group.number, group.length, pad)
        for examples, group in zip(waiting, rows, strict=True)
    ]
