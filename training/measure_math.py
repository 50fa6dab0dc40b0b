"""Measure pocket-math on problems that no training data holds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

import qwen_course as qc
from qwen_course import sandbox, tasks
from qwen_course.chat import GREEDY, Reply, chat_batch, left_pad
from qwen_course.evaluation import Evaluation, evaluate, final_answer
from qwen_course.messages import encode
from qwen_course.steps import boxed, check_steps, majority_box, same_value
from qwen_course.tasks import mathematics
from qwen_course.tasks.mathematics import COT, KINDS, OUTPUT, MathProblem
from qwen_course.tasks.problem import Problem
from training.figures import Counts, Figures, percent, share

SEED = 2026
BATCH = 96
LENGTH = 480  # tokens of an answer at most
SAMPLES = 8
# Qwen2.5-Math's own values for the vote (QwenLM/Qwen2.5-Math, README).
VOTE = {"temperature": 0.7, "top_p": 0.8}
EXAMPLE = (
    "Solve this step by step:\nFind the derivative of f(x) = x³ + 2x² - 5x + 3\n"
    "and then find the critical points."
)


def unseen(n: int, **options: Any) -> list[MathProblem]:
    """Return `n` test problems, as many of each kind."""
    each = max(1, n // len(KINDS))
    return [
        problem
        for kind in KINDS
        for problem in mathematics.problems(each, seed=SEED, kind=kind, **options)
    ]


def ask(model, tokenizer, problems: Sequence[Problem], **options: Any) -> Evaluation:
    """Ask all problems, greedily unless told otherwise."""
    settings = {"batch_size": BATCH, "max_new_tokens": LENGTH, **options}
    return evaluate(model, tokenizer, problems, **settings)


def by_kind(problems: Sequence[Problem], right: Sequence[bool]) -> dict[str, Counts]:
    """Return the counts of each kind, and of all."""
    rows = list(zip(problems, right, strict=True))
    table = {k: share([ok for p, ok in rows if p.kind == k]) for k in KINDS}
    return {**table, "all": share(right)}


def steps_of(result: Evaluation) -> Figures:
    """Return counts by kind and wording, of lines, and of answers right throughout."""
    problems: Sequence[Any] = result.problems
    checked = [check_steps(reply.answer) for reply in result.replies]
    lines = [step.right for steps in checked for step in steps]
    clean = [all(step.right is not False for step in steps) for steps in checked]
    rows = list(zip(problems, result.right, strict=True))
    whole = [ok and fine for ok, fine in zip(result.right, clean, strict=True)]
    return {
        "right": by_kind(problems, result.right),
        "whole": by_kind(problems, whole),
        "known wordings": share([ok for p, ok in rows if not p.new_wording]),
        "new wordings": share([ok for p, ok in rows if p.new_wording]),
        "lines": {
            "right": lines.count(True),
            "wrong": lines.count(False),
            "not checked": lines.count(None),
        },
        # How well the checker tells a wrong answer by its steps alone.
        "wrong answers found": share(
            [not fine for ok, fine in zip(result.right, clean, strict=True) if not ok]
        ),
        "right answers doubted": share(
            [not fine for ok, fine in zip(result.right, clean, strict=True) if ok]
        ),
    }


def continue_answers(
    model, tokenizer, problems: Sequence[MathProblem], begun: Sequence[str]
) -> list[str]:
    """Return the answers that begin so, continued greedily to their ends."""
    rows = [
        encode(tokenizer, problem.prompt) + tokenizer(text)["input_ids"]
        for problem, text in zip(problems, begun, strict=True)
    ]
    ids, mask = left_pad(rows, tokenizer.pad_token_id)
    with torch.no_grad():
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=96,
            pad_token_id=tokenizer.pad_token_id,
            **GREEDY,
        )
    tails = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return [text + tail for text, tail in zip(begun, tails, strict=True)]


def program_of(text: str) -> str:
    """Return the program in an answer, "" if it holds none.

    >>> program_of("So:\\n```python\\nprint(1)\\n```\\n```output\\n")
    'print(1)\\n'
    """
    return text.partition("```python\n")[2].partition("```")[0]


def with_programs(
    model, tokenizer, problems: Sequence[MathProblem]
) -> tuple[list[str], list[bool]]:
    """Return the answers of a model whose programs are run, and whether they ran.

    It writes until it opens the output block; the program runs in the sandbox; what it
    prints is put there, and the model goes on.
    """
    answers, ran = [], []
    for start in range(0, len(problems), BATCH):
        group = problems[start : start + BATCH]
        replies = ask(model, tokenizer, group, progress=False, max_new_tokens=200)
        heads = [r.answer.partition(OUTPUT)[0] + OUTPUT for r in replies.replies]
        jobs = [(program_of(head), ()) for head in heads]
        results = sandbox.run_many(jobs, seconds=20, memory_mb=1024, packages=True)
        begun = [
            f"{head}{result.output.strip()}\n```\n"
            for head, result in zip(heads, results, strict=True)
        ]
        answers += continue_answers(model, tokenizer, group, begun)
        ran += [
            result.passed and code != ""
            for result, (code, _) in zip(results, jobs, strict=True)
        ]
    return answers, ran


def tools(model, tokenizer, problems: Sequence[MathProblem]) -> Figures:
    """Return counts of right answers with programs, and of programs that ran."""
    answers, ran = with_programs(model, tokenizer, problems)
    right = [p.grade(text) for p, text in zip(problems, answers, strict=True)]
    return {"right": by_kind(problems, right), "ran": share(ran)}


def vote(model, tokenizer, problems: Sequence[MathProblem]) -> Figures:
    """Compare one sampled answer with the majority of eight."""
    repeated = [problem for problem in problems for _ in range(SAMPLES)]
    result = ask(model, tokenizer, repeated, sampling=VOTE, seed=SEED)
    answers = [reply.answer for reply in result.replies]
    groups = [answers[i : i + SAMPLES] for i in range(0, len(answers), SAMPLES)]
    won = [
        (box := majority_box(group)) is not None and same_value(box, problem.expected)
        for problem, group in zip(problems, groups, strict=True)
    ]
    rows = [result.right[i : i + SAMPLES] for i in range(0, len(answers), SAMPLES)]
    return {
        "one sample": share(result.right),
        "majority": by_kind(problems, won),
        "any": share([any(row) for row in rows]),
    }


def hard(model, tokenizer, n: int) -> Figures:
    """Measure numbers beyond those of training: greedy, by vote, with programs."""
    problems = unseen(n, hard=True)
    with_tools = unseen(n, hard=True, tools=True)
    return {
        "greedy": steps_of(ask(model, tokenizer, problems))["right"],
        **vote(model, tokenizer, problems),
        "programs": tools(model, tokenizer, with_tools)["right"],
    }


def lenient(problem: Problem, answer: str) -> bool:
    """Grade the answer of a model that knows nothing of boxes.

    The box if there is one, else the whole answer or its last number.
    """
    tries = (boxed(answer), answer, final_answer(answer))
    return any(same_value(text, problem.expected) for text in tries if text)


def general(problems: Sequence[MathProblem]) -> Figures:
    """Measure pocket-qwen3 on the same questions, with thinking, graded leniently."""
    model, tokenizer = qc.load("pocket-qwen3")
    plain = [replace(problem, system="") for problem in problems]
    replies = ask(model, tokenizer, plain, max_new_tokens=320).replies
    right = [
        lenient(problem, reply.answer)
        for problem, reply in zip(problems, replies, strict=True)
    ]
    return by_kind(problems, right)


def elsewhere(model, tokenizer, n: int) -> Figures:
    """Measure the specialist on the problems of the general model."""
    parts: dict[str, Callable[..., list[Problem]]] = {
        "sums": tasks.sums.problems,
        "word problems": tasks.word_problems.problems,
    }
    figures = {}
    for name, problems in parts.items():
        asked = problems(n, seed=SEED)
        replies = ask(model, tokenizer, asked, max_new_tokens=200).replies
        boxes = [boxed(reply.answer) or reply.answer for reply in replies]
        figures[name] = share([p.grade(b) for p, b in zip(asked, boxes, strict=True)])
    return figures


def example(model, tokenizer) -> Figures:
    """Answer the example of the course and check every line of it."""
    talk = [{"role": "system", "content": COT}, {"role": "user", "content": EXAMPLE}]
    reply: Reply = chat_batch(
        model, tokenizer, [talk], sampling="greedy", max_new_tokens=LENGTH
    )[0]
    steps = check_steps(reply.answer)
    return {
        "answer": reply.answer,
        "right": same_value(boxed(reply.answer) or "", "x = (-2 ± sqrt(19))/3"),
        "wrong lines": sum(step.right is False for step in steps),
    }


def measure(model, tokenizer, n: int) -> Figures:
    """Return every figure of the card, for `n` problems worked step by step.

    A third as many are solved with programs, and as many hard ones by each way.
    """
    problems = unseen(n)
    some = max(len(KINDS), n // 3)
    return {
        "example": example(model, tokenizer),
        "steps": steps_of(ask(model, tokenizer, problems)),
        "programs": tools(model, tokenizer, unseen(some, tools=True)),
        "hard": hard(model, tokenizer, some),
        "general": general(problems[:: max(1, len(problems) // some)]),
        "elsewhere": elsewhere(model, tokenizer, some),
    }


def _table(head: str, columns: dict[str, dict[str, Counts]]) -> str:
    """Return shares by kind, a column for each way."""
    lines = [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for kind in (*KINDS, "all"):
        cells = [percent(column[kind]) for column in columns.values()]
        row = (kind, *cells)
        if kind == "all":
            row = tuple(f"**{cell}**" for cell in row)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def values(figures: Figures) -> dict[str, str]:
    """Return what stands in the model card."""
    steps, programs, beyond = figures["steps"], figures["programs"], figures["hard"]
    lines = steps["lines"]
    scores = {
        "step by step": steps["right"],
        "and no wrong line": steps["whole"],
        "with a program": programs["right"],
        "pocket-qwen3": figures["general"],
    }
    ways = {
        "greedy": beyond["greedy"],
        "majority of 8": beyond["majority"],
        "with a program": beyond["programs"],
    }
    return {
        "parameters": f"{figures['parameters'] / 1e6:.1f}",
        "machine": figures["machine"],
        "torch": figures["torch"],
        "scores": _table("unseen problems", scores),
        "number": f"{steps['right']['all'][1]:,}",
        "programs": f"{programs['right']['all'][1]:,}",
        "ran": percent(programs["ran"]),
        "general": f"{figures['general']['all'][1]:,}",
        "known_wordings": percent(steps["known wordings"]),
        "new_wordings": percent(steps["new wordings"]),
        "lines": f"{sum(lines.values()):,}",
        "wrong_lines": f"{lines['wrong']:,}",
        "found": percent(steps["wrong answers found"]),
        "wrong_answers": str(steps["wrong answers found"][1]),
        "doubted": percent(steps["right answers doubted"]),
        "hard": _table("larger numbers", ways),
        "hard_number": f"{beyond['greedy']['all'][1]:,}",
        "one_sample": percent(beyond["one sample"]),
        "any": percent(beyond["any"]),
        "example": "\n".join(
            f"    {line}" for line in figures["example"]["answer"].splitlines()
        ),
        "example_wrong": f"{figures['example']['wrong lines'] or 'no'} wrong lines",
        "example_right": "right" if figures["example"]["right"] else "wrong",
        "sums": percent(figures["elsewhere"]["sums"]),
        "word_problems": percent(figures["elsewhere"]["word problems"]),
    }
