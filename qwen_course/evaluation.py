"""Measure a model on problems: how many answers are right, and how sure that is."""

import functools
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course.chat import Reply, chat_batch, complete_batch
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Score:
    """How many of `total` problems were answered right."""

    right: int
    total: int

    @property
    def accuracy(self) -> float:
        """The share of right answers, from 0 to 1."""
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the accuracy (Wilson, 1927).

        >>> [round(limit, 3) for limit in Score(98, 100).interval]
        [0.93, 0.994]
        """
        if not self.total:
            return (math.nan, math.nan)
        z, n, p = 1.96, self.total, self.accuracy
        middle = p + z * z / (2 * n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        low, high = (middle - half) / scale, (middle + half) / scale
        return (max(0.0, low), min(1.0, high))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:.1%} of {self.total} (95%: {low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`: every problem with its reply, scores and cost.

    `seconds` is the time of the whole evaluation, all batches together; a part of one
    does not know its own.
    """

    problems: list[Problem]
    replies: list[Reply]
    seconds: float = math.nan

    @functools.cached_property
    def right(self) -> list[bool]:
        """For each problem, whether its reply is right."""
        graded: dict[int, bool] = {}
        for kind in {type(problem) for problem in self.problems}:
            chosen = [n for n, p in enumerate(self.problems) if type(p) is kind]
            answers = [self.replies[n].answer for n in chosen]
            right = kind.grade_all([self.problems[n] for n in chosen], answers)
            graded.update(zip(chosen, right, strict=True))
        return [graded[n] for n in range(len(self.problems))]

    @property
    def score(self) -> Score:
        """The score over all problems."""
        return Score(sum(self.right), len(self.problems))

    @property
    def accuracy(self) -> float:
        """The share of right answers, from 0 to 1."""
        return self.score.accuracy

    @property
    def tokens(self) -> int:
        """How many tokens the model wrote, thinking and answers together."""
        used = [reply.usage for reply in self.replies]
        return sum(usage.thinking_tokens + usage.answer_tokens for usage in used)

    @property
    def tokens_per_right(self) -> float:
        """How many tokens were written for each right answer, infinite if none is.

        Wrong answers cost as well: all tokens are divided by the right answers only.
        """
        right = self.score.right
        return self.tokens / right if right else math.inf

    def parts(self) -> dict[str, "Evaluation"]:
        """The evaluation of each kind of problem, in the order of their names."""
        rows = list(zip(self.problems, self.replies, strict=True))
        groups: dict[str, Evaluation] = {}
        for kind in sorted({problem.kind for problem in self.problems}):
            chosen = [row for row in rows if row[0].kind == kind]
            groups[kind] = Evaluation([p for p, _ in chosen], [r for _, r in chosen])
        return groups

    def by_kind(self) -> dict[str, Score]:
        """The score of each kind of problem, in the order of their names."""
        return {kind: part.score for kind, part in self.parts().items()}

    def mistakes(self) -> list[tuple[Problem, Reply]]:
        """The problems that were answered wrong, with their replies."""
        rows = zip(self.problems, self.replies, self.right, strict=True)
        return [(problem, reply) for problem, reply, right in rows if not right]

    def __str__(self) -> str:
        rows = [f"{kind:20} {score}" for kind, score in self.by_kind().items()]
        return "\n".join([*rows, f"{'all':20} {self.score}"])

    def _repr_html_(self) -> str:
        rows = [*self.by_kind().items(), ("all", self.score)]
        cells = "".join(
            f"<tr><td>{kind}</td><td>{score.right} of {score.total}</td>"
            f"<td>{score.accuracy:.1%}</td>"
            f"<td>{score.interval[0]:.1%} to {score.interval[1]:.1%}</td></tr>"
            for kind, score in rows
        )
        return (
            "<table><thead><tr><th>kind</th><th>right</th><th>accuracy</th>"
            f"<th>95% interval</th></tr></thead><tbody>{cells}</tbody></table>"
        )


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Sequence[Problem],
    thinking: bool = True,
    thinking_budget: int | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 256,
    progress: bool = True,
    sampling: str | dict[str, Any] = "greedy",
    seed: int | None = None,
) -> Evaluation:
    """Ask every problem in batches, greedily unless told otherwise; grade the answers.

    Raises ValueError when there are no problems or `batch_size` is below 1.

    Example:
        evaluate(model, tokenizer, tasks.sums.problems(100), thinking=True).accuracy
    """
    from tqdm.auto import tqdm

    problems = list(problems)
    if not problems:
        raise ValueError("there are no problems to evaluate; give at least one.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more.")
    started = time.perf_counter()
    replies: dict[int, Reply] = {}
    with tqdm(total=len(problems), disable=not progress, unit="problem") as bar:
        for start, chosen in _batches(problems, batch_size):
            if problems[chosen[0]].bare:
                texts = [problems[i].question for i in chosen]
                answered = complete_batch(model, tokenizer, texts, max_new_tokens)
            else:
                answered = chat_batch(
                    model,
                    tokenizer,
                    [problems[i].prompt for i in chosen],
                    thinking=thinking,
                    thinking_budget=thinking_budget,
                    max_new_tokens=max_new_tokens,
                    sampling=sampling,
                    seed=None if seed is None else seed + start,
                    tools=[list(problems[i].tools) or None for i in chosen],
                )
            replies.update(zip(chosen, answered, strict=True))
            bar.update(len(chosen))
    in_order = [replies[i] for i in range(len(problems))]
    return Evaluation(problems, in_order, time.perf_counter() - started)


def _batches(problems: Sequence[Problem], size: int) -> Iterator[tuple[int, list[int]]]:
    """Yield where each batch starts and the problems in it, bare texts by themselves.

    Rows of similar length share a batch, so that little of it is padding.
    """
    start = 0
    for bare in (False, True):
        kind = [i for i, problem in enumerate(problems) if problem.bare is bare]
        kind.sort(key=lambda i: _length(problems[i]))
        for first in range(0, len(kind), size):
            chosen = kind[first : first + size]
            yield start, chosen
            start += len(chosen)


def _length(problem: Problem) -> int:
    """Return about how long the prompt is, in characters."""
    return len(str(problem.tools)) + sum(len(str(turn)) for turn in problem.prompt)


def final_answer(answer: str) -> str:
    """Return what counts in an answer: its last number, or else its text.

    >>> final_answer("The total is 1,692 euros.")
    '1692'
    """
    numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
    return numbers[-1] if numbers else answer.strip().casefold()


def majority_vote(answers: Sequence[str]) -> str:
    """Return the first of the answers that agree with most others.

    Two answers agree when their `final_answer` is the same. Raises ValueError when
    there are none. Wang et al., 2022 (arXiv 2203.11171) call it self-consistency.

    >>> majority_vote(["It is 42.", "41", "42"])
    'It is 42.'
    """
    if not answers:
        raise ValueError("there are no answers to vote on; give at least one.")
    counts = Counter(map(final_answer, answers))
    winner = max(counts, key=lambda final: counts[final])
    return next(answer for answer in answers if final_answer(answer) == winner)


@dataclass(frozen=True)
class Vote:
    """Sampled answers against their majority: `one` counts every sample.

    `tokens` were written for all samples of all problems together.
    """

    one: Score
    majority: Score
    samples: int
    tokens: int


def evaluate_vote(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Sequence[Problem],
    samples: int = 8,
    seed: int = 0,
    **options: Any,
) -> Vote:
    """Sample each problem several times and compare one sample with the majority.

    `options` are those of `evaluate`. Raises ValueError when `samples` is below 1.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; give 1 or more.")
    problems = list(problems)
    repeated = [problem for problem in problems for _ in range(samples)]
    options = {"sampling": "recommended", **options}
    result = evaluate(model, tokenizer, repeated, seed=seed, **options)
    answers = [reply.answer for reply in result.replies]
    groups = [answers[i : i + samples] for i in range(0, len(answers), samples)]
    won = [
        problem.grade(majority_vote(group))
        for problem, group in zip(problems, groups, strict=True)
    ]
    return Vote(result.score, Score(sum(won), len(won)), samples, result.tokens)


@dataclass(frozen=True)
class BudgetPoint:
    """One point of the curve accuracy over thinking budget.

    `parsed` counts the replies that hold an answer and ended by themselves.
    """

    budget: int
    score: Score
    parsed: Score


def budget_curve(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Sequence[Problem],
    budgets: Sequence[int] = (4, 8, 16, 32, 48, 64, 96, 128),
    progress: bool = True,
) -> list[BudgetPoint]:
    """Measure the accuracy at each thinking budget, in tokens, greedily."""
    points = []
    for budget in budgets:
        result = evaluate(
            model, tokenizer, problems, thinking_budget=budget, progress=progress
        )
        whole = [r.answer != "" and r.stopped == "end" for r in result.replies]
        parsed = Score(sum(whole), len(whole))
        points.append(BudgetPoint(budget, result.score, parsed))
    return points
