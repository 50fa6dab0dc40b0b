"""What a precision costs: memory, speed, perplexity, right answers by skill."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import loading, memory, tasks
from qwen_course.benchmark import benchmark, machines
from qwen_course.chat import left_pad
from qwen_course.datafiles import data_file
from qwen_course.evaluation import Score, evaluate
from qwen_course.messages import encode
from qwen_course.processors import text_tokenizer
from qwen_course.settings import model_name
from qwen_course.tables import Row, Table
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def worked(
    tokenizer: "PreTrainedTokenizerBase", problem: Problem, thinking: bool = True
) -> tuple[list[int], list[int]]:
    """Return the ids of a problem's prompt, and those of its worked solution."""
    thought = f"<think>\n{problem.thinking}\n</think>\n\n" if thinking else ""
    text = f"{thought}{problem.answer}<|im_end|>"
    solution = text_tokenizer(tokenizer)(text, add_special_tokens=False)["input_ids"]
    prompt = encode(tokenizer, problem.prompt, thinking, list(problem.tools) or None)
    return prompt, solution


def perplexity(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Sequence[Problem],
    thinking: bool = True,
    batch_size: int = 4,
) -> float:
    """Return how surprised a model is by the worked solutions: 1 is not at all.

    The exponential of the mean negative log-likelihood of a solution's token. Raises
    ValueError when there are no problems.
    """
    import torch

    if not problems:
        raise ValueError("there are no problems to read; give at least one.")
    loss, count = 0.0, 0
    for start in range(0, len(problems), batch_size):
        pairs = [
            worked(tokenizer, problem, thinking)
            for problem in problems[start : start + batch_size]
        ]
        ids, mask = left_pad([a + b for a, b in pairs], 0)
        labels = ids.clone()
        for row, (_, solution) in enumerate(pairs):
            labels[row, : -len(solution)] = -100  # the prompt is read, not scored
        with torch.no_grad():
            logits = model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device)
            ).logits[:, :-1]
        targets = labels[:, 1:].to(logits.device)
        loss += float(
            torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(),
                ignore_index=-100, reduction="sum",
            )
        )  # fmt: skip
        count += sum(len(solution) for _, solution in pairs)
    return math.exp(loss / count)


SKILLS = ("sums", "products", "word_problems", "course_questions", "tool_calls")


def skill_problems(
    n: int, seed: int = 0, skills: Sequence[str] = SKILLS
) -> dict[str, list[Problem]]:
    """Return `n` unseen problems of each skill of the pocket model, by its name."""
    return {name: getattr(tasks, name).problems(n, seed=seed) for name in skills}


@dataclass(frozen=True)
class Cost:
    """What one precision costs one model; `missing` says why there is nothing else."""

    model: str
    precision: str
    weights_bytes: int = 0
    tokens_per_second: float = math.nan
    perplexity: float = math.nan
    scores: Mapping[str, Score] | None = None
    missing: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> Score:
        """The right answers of all skills together."""
        parts = (self.scores or {}).values()
        return Score(sum(s.right for s in parts), sum(s.total for s in parts))


class Costs(Table[Cost]):
    """One row a precision: memory, speed, perplexity, right answers."""

    columns = ("precision", "weights", "tokens/s", "perplexity", "right",
               "95% interval")  # fmt: skip
    noun = "precisions"

    def cells(self, item: Cost) -> Row:
        """Return what was measured, or why it was not."""
        if item.missing:
            return (item.precision, "-", "-", "-", "-", f"not here: {item.missing}")
        low, high = item.score.interval
        return (
            item.precision,
            memory.gib(item.weights_bytes),
            f"{item.tokens_per_second:.0f}",
            f"{item.perplexity:.4f}",
            f"{item.score.accuracy:.1%}",
            f"{low:.1%} to {high:.1%}",
        )

    def __repr__(self) -> str:
        return f"{super().__repr__()}\n{machines(self.measured)}"

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}<p>{escape(machines(self.measured))}</p>"

    @property
    def measured(self) -> "Costs":
        """Only the precisions that this machine can do."""
        return Costs(item for item in self if not item.missing)

    def save(self, path: str | Path) -> None:
        """Write every number, the machine with it, as JSON."""
        rows = [asdict(item) for item in self]
        Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Costs":
        """Read what `save` wrote."""
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        for row in rows:
            scores = row["scores"] or {}
            row["scores"] = {name: Score(**score) for name, score in scores.items()}
        return cls(Cost(**row) for row in rows)

    def skills(self) -> "SkillCosts":
        """Return the share of right answers in each skill, one row a precision."""
        return SkillCosts(self.measured)

    def plot(self) -> "Figure":
        """Draw the right answers of each skill over the size of the weights."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        rows = self.measured
        names = list(rows[0].scores or {}) if rows else []
        colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
        for number, name in enumerate(names):
            scores = [(row.scores or {})[name] for row in rows]
            shares = [100 * score.accuracy for score in scores]
            bars = [[100 * abs(score.interval[side] - score.accuracy)
                     for score in scores] for side in (0, 1)]  # fmt: skip
            places = [place + 0.08 * number for place in range(len(rows))]
            axes.errorbar(places, shares, bars, fmt="osD^v*"[number % 6], capsize=2,
                          color=colours[number % 6], label=name)  # fmt: skip
        labels = [f"{row.precision}\n{memory.gib(row.weights_bytes)}" for row in rows]
        axes.set_xticks(range(len(rows)), labels)
        axes.set(ylabel="right (%)", xlabel="precision, and the size of the weights",
                 ylim=(-3, 103), title=_finding(rows))  # fmt: skip
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure


def _finding(rows: Costs) -> str:
    """Say in a title what the smallest precision costs."""
    if len(rows) < 2:
        return "one precision alone: nothing to compare"
    full, small = rows[0], min(rows, key=lambda row: row.weights_bytes)
    lost = 100 * (full.score.accuracy - small.score.accuracy)
    saved = 1 - small.weights_bytes / full.weights_bytes
    pair = f"{small.precision} against {full.precision}"
    return f"{pair}: {saved:.0%} less memory, {lost:.1f} points lost"


class SkillCosts(Table[Cost]):
    """The same rows, by skill."""

    noun = "precisions"

    @property
    def columns(self) -> Row:  # type: ignore[override]
        """The precision, and one column a skill."""
        return ("precision", *(list(self[0].scores or {}) if self else []))

    def cells(self, item: Cost) -> Row:
        """Return the share of right answers in each skill."""
        shares = (f"{score.accuracy:.1%}" for score in (item.scores or {}).values())
        return (item.precision, *shares)


def cost(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Mapping[str, Sequence[Problem]],
    precision: str = "auto",
    new_tokens: int = 48,
    **options: Any,
) -> Cost:
    """Measure one loaded model: memory, speed, perplexity, right answers by skill.

    `options` are those of `evaluate`.
    """
    options = {"progress": False, "batch_size": 64, **options}
    everything = [problem for part in problems.values() for problem in part]
    speed = benchmark(model, precision, new_tokens=new_tokens, repeats=3)
    right = evaluate(model, tokenizer, everything, **options).right
    scores = {}
    for name, part in problems.items():
        scores[name] = Score(sum(right[: len(part)]), len(part))
        right = right[len(part) :]
    return Cost(
        model=speed.model,
        precision=speed.precision,
        weights_bytes=speed.weights_bytes,
        tokens_per_second=speed.decode,
        perplexity=perplexity(model, tokenizer, everything),
        scores=scores,
        machine=speed.machine,
    )


def compare(
    name: str | None,
    problems: Mapping[str, Sequence[Problem]],
    precisions: Sequence[str] = ("fp32", "bf16", "int8", "nf4", "nf4-single"),
    **options: Any,
) -> Costs:
    """Measure a model at several precisions; one this machine lacks says why.

    Example:
        compare("pocket-qwen3", skill_problems(50))
    """
    name, found = name or model_name(), Costs()
    for precision in precisions:
        reason = loading.why_not(precision)
        try:
            loaded = None if reason else loading.load(name, precision)
        except (ImportError, NotImplementedError, RuntimeError) as error:
            loaded, reason = None, str(error).splitlines()[0]  # also: out of memory
        if loaded is None:
            found.append(Cost(name, precision, missing=reason or ""))
        else:
            found.append(cost(*loaded, problems, precision, **options))
    return found


def stored_costs() -> Costs:
    """Return what the course's authors measured on the pocket model."""
    return Costs.read(data_file("measured/accuracy.json"))


def choose(
    costs: Sequence[Cost], memory_mib: float, least_right: float = 0.0
) -> Cost | None:
    """Return the fastest precision within the memory that is right often enough.

    `memory_mib` is for the weights, in MiB; `least_right` a share from 0 to 1. None
    when no precision does both.
    """
    fitting = [
        item
        for item in costs
        if not item.missing
        and item.weights_bytes <= memory_mib * 2**20
        and item.score.accuracy >= least_right
    ]
    return max(fitting, key=lambda item: item.tokens_per_second, default=None)


class Fitting(Table[tuple[Cost, str]]):
    """Precisions, each with a verdict."""

    columns = (*Costs.columns, "verdict")
    noun = "precisions"

    def cells(self, item: tuple[Cost, str]) -> Row:
        """Return what was measured, and the verdict."""
        return (*Costs().cells(item[0]), item[1])


def fitting(
    costs: Sequence[Cost], memory_mib: float, least_right: float = 0.0
) -> Fitting:
    """Say of each precision whether it fits, and which of those that fit is fastest.

    Example:
        fitting(costs, memory_mib=12, least_right=0.9)
    """
    best = choose(costs, memory_mib, least_right)
    found = Fitting()
    for item in costs:
        if item.missing:
            verdict = "not here"
        elif item.weights_bytes > memory_mib * 2**20:
            verdict = "too large"
        elif item.score.accuracy < least_right:
            verdict = "wrong too often"
        else:
            verdict = "fits, and is the fastest" if item is best else "fits"
        found.append((item, verdict))
    return found
