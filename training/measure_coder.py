"""What pocket-coder can do, by running what it writes: for `training.card`.

Every function is run against the hidden tests of its task; the general pocket-qwen3 is
asked the same.
"""

from collections.abc import Sequence
from pathlib import Path

import qwen_course as qc
from qwen_course.chat import chat_batch
from qwen_course.tasks import coding
from qwen_course.tasks.coding import wordings
from qwen_course.tasks.coding.problems import CodingProblem
from training.figures import Figures, percent, share
from training.pocket_coder import answers

SEED = 2026
GENERAL = "pocket-qwen3"
RESULTS = Path(__file__).parent / "results" / "pocket-coder"


def measure(model, tokenizer, n: int) -> Figures:
    """Return every figure of the card; `n` problems of each kind, none seen before."""
    asked = {kind: coding.problems(n, SEED, kind=kind) for kind in coding.KINDS}
    written = {
        kind: answers(model, tokenizer, problems) for kind, problems in asked.items()
    }
    grades = {
        kind: coding.grade_all(problems, written[kind])
        for kind, problems in asked.items()
    }
    return {
        "families": len(coding.families()),
        "kinds": {kind: _by_property(some) for kind, some in grades.items()},
        "exact": share([p.answer == text for p, text in
                         zip(asked["fill in"], written["fill in"], strict=True)]),
        "wordings": _by_wording(asked["write"], grades["write"]),
        "styles": _by_style(asked["write"], grades["write"]),
        "weakest": _weakest(asked["write"], grades["write"]),
        "again": second_try(
            model, tokenizer, asked["write"], written["write"], grades["write"]
        ),
        "general": general(asked, min(n, 100)),
    }  # fmt: skip


def _by_property(grades: Sequence[coding.Grade]) -> dict[str, list[int]]:
    names = ("passed", "parses", "styled", "right")
    return {name: share([getattr(grade, name) for grade in grades]) for name in names}


def _by_wording(problems: Sequence[CodingProblem], grades) -> dict[str, list[int]]:
    """Split by what the wording was: of training, of tests alone, without a name."""
    groups: dict[str, list[bool]] = {"trained": [], "new": [], "no signature": []}
    for problem, grade in zip(problems, grades, strict=True):
        name = "new" if problem.unseen else "trained" if problem.named else None
        groups[name or "no signature"].append(grade.passed)
    return {name: share(passed) for name, passed in groups.items() if passed}


def _by_style(problems: Sequence[CodingProblem], grades) -> dict[str, list[int]]:
    groups: dict[str, list[bool]] = {}
    for problem, grade in zip(problems, grades, strict=True):
        groups.setdefault(" and ".join(problem.style), []).append(grade.styled)
    return {name: share(kept) for name, kept in sorted(groups.items()) if name}


def _weakest(problems: Sequence[CodingProblem], grades, most: int = 8) -> Figures:
    """Return the families that fail most often, with their counts."""
    groups: dict[str, list[bool]] = {}
    for problem, grade in zip(problems, grades, strict=True):
        groups.setdefault(problem.task.family, []).append(grade.passed)
    shares = {name: sum(passed) / len(passed) for name, passed in groups.items()}
    worst = sorted((part, name) for name, part in shares.items() if part < 1)
    return {name: share(groups[name]) for _, name in worst[:most]}


def second_try(model, tokenizer, problems, texts, grades) -> list[int]:
    """Show each wrong function's own error to the model; count what is right then."""
    failed = [
        row for row in zip(problems, texts, grades, strict=True) if not row[2].passed
    ]
    if not failed:
        return [0, 0]
    talks = [
        [*problem.prompt, {"role": "assistant", "content": text},
         {"role": "user", "content": wordings.RETRIES[2].format(error=grade.error)}]
        for problem, text, grade in failed
    ]  # fmt: skip
    replies = chat_batch(
        model, tokenizer, talks, thinking=False, max_new_tokens=200, sampling="greedy"
    )
    again = coding.grade_all(
        [problem for problem, _, _ in failed], [reply.answer for reply in replies]
    )
    return share([grade.passed for grade in again])


def general(asked: dict[str, list[CodingProblem]], n: int) -> dict[str, list[int]]:
    """Ask the general pocket model the first `n` problems of each kind."""
    model, tokenizer = qc.load(GENERAL)
    figures = {}
    for kind, problems in asked.items():
        some = problems[:n]
        grades = coding.grade_all(some, answers(model, tokenizer, some))
        figures[kind] = share([grade.passed for grade in grades])
    return figures


# The card


KIND_NAMES = {
    "write": "write a function",
    "fill in": "fill in the middle",
    "fix": "fix a planted bug",
    "retry": "right it after a failed test",
}


def table(figures: Figures) -> str:
    """Return the figures of the kinds as a Markdown table, with the general model."""
    lines = [
        f"| what | number | passes the tests | can be parsed | {GENERAL} passes |",
        "|---|---|---|---|---|",
    ]
    for kind, name in KIND_NAMES.items():
        row = figures["kinds"][kind]
        shares = [row["passed"], row["parses"], figures["general"][kind]]
        cells = " | ".join(map(percent, shares))
        lines.append(f"| {name} | {row['passed'][1]:,} | {cells} |")
    return "\n".join(lines)


def values(figures: Figures) -> dict[str, str]:
    """Return the texts that the card's template takes."""
    weakest = ", ".join(
        f"{name} ({right} of {total})"
        for name, (right, total) in figures["weakest"].items()
    )
    styles = ", ".join(
        f"{percent(kept)} ({name.replace('hints', 'type hints')})"
        for name, kept in figures["styles"].items()
    )
    return {
        "parameters": f"{figures['parameters'] / 1e6:.1f}",
        "families": str(figures["families"]),
        "table": table(figures),
        "exact": percent(figures["exact"]),
        "trained_wordings": percent(figures["wordings"]["trained"]),
        "new_wordings": percent(figures["wordings"]["new"]),
        "no_signature": percent(figures["wordings"]["no signature"]),
        "styles": styles,
        "weakest": weakest or "none",
        "again": "{} of {}".format(*figures["again"]),
        "general_number": str(figures["general"]["write"][1]),
        "torch": figures["torch"],
        "machine": figures["machine"],
    }
