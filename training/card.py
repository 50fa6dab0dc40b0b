"""Measure a finished pocket model and write its card: `python -m training.card MODEL`.

Every figure of the card is measured here, on questions that no training data holds,
greedily (but for the votes) and in fp32, and kept in `training/results/`.
"""

import argparse
import importlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import qwen_course as qc
from qwen_course import experts, tasks
from qwen_course.evaluation import Score, Vote, budget_curve, evaluate, evaluate_vote
from qwen_course.loading import BUNDLED
from qwen_course.models import checksums
from qwen_course.scorecard import PARTS, PROBLEMS, SEED, Scorecard, scorecard
from qwen_course.tasks.problem import Problem
from qwen_course.tools import calculator, chat_with_tools
from training.figures import Figures, about, percent, share

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BATCH = 96


def _counts(score: Score) -> list[int]:
    return [score.right, score.total]


def mixed(n: int) -> list[Problem]:
    """Return `n` sums, products and word problems, a third each."""
    return [problem for part in PROBLEMS for problem in PARTS[part](n // 3)]


def _switched(problem: Problem, switch: str) -> Problem:
    return replace(problem, question=f"{problem.question} {switch}")


def soft_switches(model, tokenizer, n: int) -> Figures:
    """Count how often /think and /no_think are obeyed, first and later in a talk."""
    places = {"in the first question": mixed(n), "later": PARTS["new questions"](n)}
    figures = {}
    for place, problems in places.items():
        for switch in ("/think", "/no_think"):
            asked = [_switched(problem, switch) for problem in problems]
            replies = evaluate(model, tokenizer, asked, batch_size=BATCH).replies
            thought = [reply.thinking != "" for reply in replies]
            obeyed = [did == (switch == "/think") for did in thought]
            figures[f"{switch} {place}"] = share(obeyed)
    return figures


def hard_switch(model, tokenizer, n: int) -> list[int]:
    """Count how often enable_thinking is obeyed, half of the time each way."""
    obeyed = []
    for thinking in (True, False):
        problems = mixed(n // 2)
        replies = evaluate(model, tokenizer, problems, thinking, batch_size=BATCH)
        obeyed += [(reply.thinking != "") == thinking for reply in replies.replies]
    return share(obeyed)


def budgets(model, tokenizer, n: int) -> list[Figures]:
    """Measure accuracy and well-formed answers for each thinking budget."""
    return [
        {
            "budget": point.budget,
            "right": _counts(point.score),
            "parsed": _counts(point.parsed),
        }
        for point in budget_curve(model, tokenizer, mixed(n))
    ]


def votes(model, tokenizer, n: int, samples: int = 8) -> dict[str, Figures]:
    """Compare one sample at Qwen's temperature with the majority of eight."""

    def figures(vote: Vote) -> Figures:
        return {"one": _counts(vote.one), "majority": _counts(vote.majority)}

    return {
        part: figures(
            evaluate_vote(
                model, tokenizer, PARTS[part](n), samples, seed=SEED, thinking=False,
                batch_size=BATCH,
            )
        )
        for part in PROBLEMS
    }  # fmt: skip


def tool_talks(model, tokenizer, n: int) -> dict[str, list[int]]:
    """Ask, run the calls and grade the last answer, for one call and for two."""
    kinds = {"one call": "answer after one call", "two calls": "answer after two calls"}
    figures = {}
    for name, kind in kinds.items():
        right = []
        for problem in tasks.tool_calls.problems(n, seed=SEED, kind=kind):
            question = problem.prompt[0]["content"]
            try:
                reply = chat_with_tools(
                    model, tokenizer, question, [calculator], sampling="greedy"
                )
                right.append(problem.grade(reply.answer))
            except ValueError:  # a call that is no JSON, or one too many
                right.append(False)
        figures[name] = share(right)
    return figures


SKILLS = (*PROBLEMS, "course questions", "tool calls")


def load_of_experts(model, tokenizer, n: int) -> experts.ExpertLoad:
    """Count the experts' work on each skill."""
    problems = {part: PARTS[part](n) for part in SKILLS}
    return experts.expert_load(model, tokenizer, problems)


def measure(model, tokenizer, n: int) -> Figures:
    """Return every figure of the card; `n` questions of each main part."""
    some = min(n, 300)
    main = (*PROBLEMS, "course questions")
    rest = tuple(part for part in PARTS if part not in main)
    rows = [
        row
        for parts, number in ((main, n), (rest, some))
        for row in scorecard(model, tokenizer, number, parts, batch_size=BATCH).rows
    ]
    figures = {
        "scorecard": Scorecard(tuple(rows)).to_json(),
        "hard_switch": hard_switch(model, tokenizer, some),
        "soft_switch": soft_switches(model, tokenizer, some),
        "budget": budgets(model, tokenizer, some),
        "votes": votes(model, tokenizer, some),
        "tools": tool_talks(model, tokenizer, some // 3),
    }
    if experts.is_mixture(model):
        load = load_of_experts(model, tokenizer, some // 3)
        figures["least_load"] = round(float(load.fair_shares.min()), 3)
        figures["most_load"] = round(float(load.fair_shares.max()), 3)
    return figures


def _budget_table(rows: list[Figures]) -> str:
    head = " | ".join(str(row["budget"]) for row in rows)
    right = " | ".join(percent(row["right"]) for row in rows)
    rule = "---|" * (len(rows) + 1)
    return f"| thinking budget (tokens) | {head} |\n|{rule}\n| right | {right} |"


def _vote_table(figures: dict[str, Figures]) -> str:
    lines = ["| without thinking | one sample | majority of 8 |", "|---|---|---|"]
    for part, vote in figures.items():
        one, majority = percent(vote["one"]), percent(vote["majority"])
        lines.append(f"| {part} | {one} | {majority} |")
    return "\n".join(lines)


def card(name: str, figures: Figures) -> str:
    """Return the model card, in the Hub's format."""
    template = HERE / f"card_{name.replace('-', '_')}.md"
    values = (specialist(name) or sys.modules[__name__]).values(figures)
    return template.read_text("utf-8").format(**values)


def values(figures: Figures) -> dict[str, Any]:
    """Return what stands in the card of a general model."""
    return {
        "parameters": f"{figures['parameters'] / 1e6:.1f}",
        "scorecard": Scorecard.from_json(figures["scorecard"]).markdown(),
        "budgets": _budget_table(figures["budget"]),
        "parsed": min(percent(row["parsed"]) for row in figures["budget"]),
        "hard_switch": percent(figures["hard_switch"]),
        "soft_switch": ", ".join(
            f"{percent(counts)} (`{name.partition(' ')[0]}` {name.partition(' ')[2]})"
            for name, counts in figures["soft_switch"].items()
        ),
        "votes": _vote_table(figures["votes"]),
        "one_call": percent(figures["tools"]["one call"]),
        "two_calls": percent(figures["tools"]["two calls"]),
        "talks": figures["tools"]["one call"][1],
        "torch": figures["torch"],
        "machine": figures["machine"],
        "least_load": figures.get("least_load"),
        "most_load": figures.get("most_load"),
    }


def specialist(name: str) -> ModuleType | None:
    """Return the module that measures a specialist, None for a general model.

    `training/measure_coder.py` for pocket-coder: its `measure(model, tokenizer, n)`
    returns the figures, its `values(figures)` what stands in the card.
    """
    module = f"training.measure_{name.removeprefix('pocket-').replace('-', '_')}"
    if importlib.util.find_spec(module) is None:
        return None
    return importlib.import_module(module)


def kept_figures(name: str) -> Figures:
    """Return the figures of a model's last measurement."""
    return json.loads((RESULTS / name / "evaluation.json").read_text("utf-8"))


def _keep(name: str, figures: Figures) -> None:
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1)
    (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Measure, keep the figures, write card and checksums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pocket-qwen3")
    parser.add_argument(
        "--folder", help="measure a model that the course does not ship"
    )
    parser.add_argument("--write-only", action="store_true", help="use kept figures")
    parser.add_argument("-n", type=int, default=1000, help="questions a main part")
    options = parser.parse_args()
    name = options.model
    if not options.write_only:
        model, tokenizer = qc.load(options.folder or name)
        measured = (specialist(name) or sys.modules[__name__]).measure
        _keep(name, about(model) | measured(model, tokenizer, options.n))
        if experts.is_mixture(model):
            load = load_of_experts(model, tokenizer, 40)
            picture = RESULTS / name / "experts.png"
            load.plot(model.config.num_hidden_layers // 2).savefig(picture, dpi=110)
    if not options.folder:
        text = card(name, kept_figures(name))
        path = BUNDLED / name / "README.md"
        path.write_text(text, encoding="utf-8", newline="\n")
        checksums.write(BUNDLED / name)


if __name__ == "__main__":
    main()
