"""From problems to batches: render, mark what is learnt, pack.

Everything is drawn from the seed and the step number alone, so a resumed run sees
exactly the batches that an unbroken one would have seen.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from qwen_course import tasks
from qwen_course.tasks import problem as problems
from qwen_course.tasks.problem import Problem

IGNORE = -100  # label of a token that is read but not learnt


@dataclass(frozen=True)
class Mix:
    """What the training data is made of: weights of the skills, shares of the forms."""

    sums: float = 0.23
    products: float = 0.23
    word_problems: float = 0.28
    course_questions: float = 0.14
    instructions: float = 0.06
    dialogues: float = 0.06
    new_questions: float = 0.0
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


def draw_problem(rng: random.Random, mix: Mix) -> Problem:
    """Draw one training problem; a test content is never returned."""
    skill = rng.choices(tasks.SKILLS, [getattr(mix, name) for name in tasks.SKILLS])[0]
    if skill == "course_questions":
        return tasks.course_questions.make(rng, "train")
    module = getattr(tasks, skill)
    easy = skill == "products" and rng.random() < 0.2
    make = (lambda r: module.make(r, smallest=2)) if easy else module.make
    return problems.draw(make, rng, "train")


def _messages(
    problem: Problem, rng: random.Random, mix: Mix, switch: str | None
) -> list[dict[str, str]]:
    messages = problem.prompt
    if switch:
        last = messages[-1]
        messages[-1] = {**last, "content": f"{last['content']} {switch}"}
    if messages[0]["role"] != "system" and rng.random() < mix.system:
        system = {"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}
        messages = [system, *messages]
    return messages


def render(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, rng: random.Random, mix: Mix
) -> Example:
    """Return one example; only what the model itself must write is learnt.

    Three forms: thinking, no thinking (the template closes the block in the prompt,
    or the model does it after /no_think), and thinking closed before its end, where
    the closing was not the model's choice and is not learnt.
    """
    think = rng.random() < mix.thinking
    soft = rng.random() < mix.soft_switch
    switch = ("/think" if think else "/no_think") if soft else None
    hard_off = not think and not soft
    prompt = tokenizer.apply_chat_template(
        _messages(problem, rng, mix, switch),
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=not hard_off,
    )
    parts = [(prompt, False)]
    if not think and soft:
        parts += [("<think>\n\n</think>\n\n", True)]
    answer = (f"{problem.answer}<|im_end|>", True)
    if not think:
        return _encode([*parts, answer], tokenizer)
    if rng.random() < mix.cut_short:
        return _cut(problem.thinking, parts, answer, tokenizer, rng)
    whole = (f"<think>\n{problem.thinking}\n</think>\n\n", True)
    return _encode([*parts, whole, answer], tokenizer)


def _cut(thinking, parts, answer, tokenizer, rng) -> Example:
    """Close the thinking after a random number of its tokens."""
    head = _encode([*parts, ("<think>\n", True)], tokenizer)
    body = tokenizer(thinking)["input_ids"]
    body = body[: rng.randint(0, len(body))]
    tail = _encode([("\n</think>\n\n", False), answer], tokenizer)
    return Example(
        head.ids + body + tail.ids, head.learnt + [True] * len(body) + tail.learnt
    )


def _encode(parts: list[tuple[str, bool]], tokenizer) -> Example:
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
    positions restart with each example, and `attention_mask` of shape (rows, 1,
    length, length): causal, and blind to the neighbours in the row. Examples that
    fit nowhere are left out.
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
            "attention_mask": mask}  # fmt: skip


def batch(
    step: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    mix: Mix,
    rows: int,
    length: int,
) -> dict:
    """Return the packed batch of one training step."""
    rng = random.Random(f"{seed}/{step}")
    examples: list[Example] = []
    waiting = 0
    while waiting < rows * length:
        example = render(draw_problem(rng, mix), tokenizer, rng, mix)
        if len(example.ids) <= length:
            examples.append(example)
            waiting += len(example.ids)
    return pack(examples, rows, length, tokenizer.pad_token_id)
