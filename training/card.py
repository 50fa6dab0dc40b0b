"""Measure a finished pocket model and write its card: `python -m training.card`.

Every figure of the card is measured here, on problems that no training data holds,
greedily and in fp32, and kept in `training/results/` beside the name of the machine.
"""

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path

import torch

import qwen_course as qc
from qwen_course import tasks
from qwen_course.evaluation import Evaluation, Score, evaluate
from qwen_course.loading import BUNDLED
from qwen_course.models import checksums
from qwen_course.tasks.problem import Problem

RESULTS = Path(__file__).parent / "results"
SEED = 2026
BUDGETS = (4, 8, 16, 32, 48, 64, 96, 128)
Figures = dict


def _figure(score: Score) -> dict[str, float]:
    return {"right": score.right, "total": score.total}


def _both_modes(model, tokenizer, problems: list[Problem]) -> Figures:
    """Measure one set of problems with and without thinking, kind by kind."""
    figures = {}
    for name, thinking in (("with", True), ("without", False)):
        result = evaluate(model, tokenizer, problems, thinking)
        kinds = {kind: _figure(score) for kind, score in result.by_kind().items()}
        figures[name] = {"all": _figure(result.score), "kinds": kinds}
    return figures


def _parsed(result: Evaluation) -> Score:
    """Count the replies that hold an answer and ended by themselves."""
    whole = [r.answer != "" and r.stopped == "end" for r in result.replies]
    return Score(sum(whole), len(whole))


def budget_curve(model, tokenizer, problems: list[Problem]) -> list[Figures]:
    """Measure accuracy for each thinking budget in tokens."""
    rows = []
    for budget in BUDGETS:
        result = evaluate(model, tokenizer, problems, thinking_budget=budget)
        parsed = _figure(_parsed(result))
        rows.append({"budget": budget, **_figure(result.score), "parsed": parsed})
    return rows


def soft_switches(model, tokenizer, problems: list[Problem]) -> Figures:
    """Count how often /think and /no_think, written in the question, are obeyed."""
    figures = {}
    for switch in ("/think", "/no_think"):
        asked = [replace(p, question=f"{p.question} {switch}") for p in problems]
        replies = evaluate(model, tokenizer, asked).replies
        obeyed = [(reply.thinking != "") == (switch == "/think") for reply in replies]
        figures[switch] = _figure(Score(sum(obeyed), len(obeyed)))
    return figures


def measure(model, tokenizer, n: int = 1000) -> Figures:
    """Return every figure of the card; `n` problems in the main table."""
    share = [n - 2 * (n // 3), n // 3, n // 3]
    skills = (tasks.sums, tasks.products, tasks.word_problems)
    main = [p for skill, k in zip(skills, share, strict=True)
            for p in skill.problems(k, seed=SEED)]  # fmt: skip
    small = main[:: max(1, n // 300)]
    course = tasks.course_questions
    unknown = [p for language in course.LANGUAGES
               for p in course.every_unknown("test", language)]  # fmt: skip
    facts = [p for language in course.LANGUAGES
             for p in course.every_problem("test", language)]  # fmt: skip
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "main": _both_modes(model, tokenizer, main),
        "course_questions": _both_modes(model, tokenizer, facts),
        "unknown": _both_modes(model, tokenizer, unknown),
        "instructions": _both_modes(
            model, tokenizer, tasks.instructions.problems(min(n, 300), seed=SEED)
        ),
        "dialogues": _both_modes(
            model, tokenizer, tasks.dialogues.problems(min(n, 300), seed=SEED)
        ),
        "new_questions": _both_modes(
            model, tokenizer, tasks.new_questions.problems(min(n, 300), seed=SEED)
        ),
        "soft_switch": soft_switches(model, tokenizer, small),
        "budget": budget_curve(model, tokenizer, small),
    }


def percent(figure: dict[str, float]) -> str:
    """Return a count as a share.

    >>> percent({"right": 967, "total": 1000})
    '96.7%'
    """
    return f"{figure['right'] / figure['total']:.1%}"


def _table(figures: Figures) -> str:
    lines = ["| problems | number | with thinking | without |", "|---|---|---|---|"]
    both = figures["with"], figures["without"]
    for kind, first in both[0]["kinds"].items():
        second = both[1]["kinds"][kind]
        row = f"| {kind} | {first['total']} | {percent(first)} | {percent(second)} |"
        lines.append(row)
    first, second = both[0]["all"], both[1]["all"]
    total = f"**{percent(first)}** | **{percent(second)}**"
    lines.append(f"| **all** | **{first['total']}** | {total} |")
    return "\n".join(lines)


def _others(figures: Figures) -> str:
    names = {
        "course_questions": "facts of the course, in wordings unseen in training",
        "unknown": 'questions it cannot know, answered "I do not know"',
        "instructions": "simple instructions, followed to the letter",
        "dialogues": "second turns and system prompts",
        "new_questions": "new questions in the middle of a conversation",
    }
    lines = ["| what | number | with thinking | without |", "|---|---|---|---|"]
    for key, name in names.items():
        first, second = (figures[key][mode]["all"] for mode in ("with", "without"))
        lines.append(
            f"| {name} | {first['total']} | {percent(first)} | {percent(second)} |"
        )
    return "\n".join(lines)


def _budgets(figures: Figures) -> str:
    rows = figures["budget"]
    head = " | ".join(str(row["budget"]) for row in rows)
    body = " | ".join(percent(row) for row in rows)
    rule = "---|" * (len(rows) + 1)
    return f"| thinking budget (tokens) | {head} |\n|{rule}\n| right | {body} |"


def card(figures: Figures, parameters: int) -> str:
    """Return the model card, in the Hub's format."""
    text = (Path(__file__).parent / "card_pocket_qwen3.md").read_text("utf-8")
    parsed = figures["budget"]
    return text.format(
        parameters=f"{parameters / 1e6:.1f}",
        main=_table(figures["main"]),
        others=_others(figures),
        budgets=_budgets(figures),
        problems=parsed[0]["total"],
        parsed_low=min(percent(row["parsed"]) for row in parsed),
        think=percent(figures["soft_switch"]["/think"]),
        no_think=percent(figures["soft_switch"]["/no_think"]),
        torch=figures["torch"].partition("+")[0],
        machine=figures["machine"],
    )


def main() -> None:
    """Measure, keep the figures, write card and checksums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write-only", action="store_true", help="use kept figures")
    options = parser.parse_args()
    name = "pocket-qwen3"
    kept = RESULTS / name / "evaluation.json"
    model, tokenizer = qc.load(name)
    if not options.write_only:
        kept.parent.mkdir(parents=True, exist_ok=True)
        figures = measure(model, tokenizer)
        kept.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    text = card(json.loads(kept.read_text("utf-8")), model.num_parameters())
    (BUNDLED / name / "README.md").write_text(text, encoding="utf-8", newline="\n")
    checksums.write(BUNDLED / name)


if __name__ == "__main__":
    main()
