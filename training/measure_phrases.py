"""Measure the phrases adapter and write its card: `python -m training.measure_phrases`.

The figures are kept in `training/results/phrases/`.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch

from qwen_course import adapters, loading, tasks
from qwen_course.capstones import edge
from qwen_course.chat import chat_batch
from qwen_course.evaluation import evaluate
from qwen_course.tasks import phrases
from training.figures import Figures
from training.phrases import FULL

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "phrases"
OLD = {  # a skill, and whether it thinks
    "sums, thinking": ("sums", True),
    "sums, at once": ("sums", False),
    "products, thinking": ("products", True),
    "word problems, thinking": ("word_problems", True),
    "course questions, at once": ("course_questions", False),
}
UNKNOWN = "Two bananas, please."


def translations(model: Any, tokenizer: Any, number: int) -> Figures:
    """Return exact and chrF of each pair, and exact of each pattern, on unseen phrases.

    Each pair has a seed of its own: one would ask the same few phrases in all of them.
    """
    problems = [
        problem
        for seed, pair in enumerate(phrases.PAIRS)
        for problem in phrases.problems(number, seed=60 + seed, pair=pair)
    ]
    found = evaluate(model, tokenizer, problems, thinking=False, max_new_tokens=48)
    answers = [reply.answer for reply in found.replies]
    patterns: dict[str, list[int]] = {}
    for problem, answer in zip(problems, answers, strict=True):
        counts = patterns.setdefault(problem.content[1], [0, 0])
        counts[0] += problem.grade(answer)
        counts[1] += 1
    pairs = edge.score(problems, answers)
    return {
        "pairs": [[p.pair, p.number, p.exact, round(p.chrf, 1)] for p in pairs],
        "patterns": patterns,
    }


def old_skills(model: Any, tokenizer: Any, number: int) -> dict[str, list[int]]:
    """Return how many of each old skill are right, and of how many."""
    found = {}
    for name, (skill, thinking) in OLD.items():
        problems = getattr(tasks, skill).problems(number, seed=6)
        score = evaluate(model, tokenizer, problems, thinking=thinking).score
        found[name] = [score.right, score.total]
    return found


def measure(folder: Path, number: int, old: int) -> Figures:
    """Measure the adapter, merged as the application uses it, and what it cost."""
    model, tokenizer = loading.load("pocket-qwen3", "fp32", "cpu")
    before = old_skills(model, tokenizer, old)
    model, tokenizer = adapters.load_adapter(folder, "fp32", "cpu")
    model = adapters.merge(model)
    asked = [{"role": "user", "content": phrases.question(UNKNOWN, "de")}]
    reply = chat_batch(model, tokenizer, [asked], thinking=False,
                       max_new_tokens=48, sampling="greedy")[0]  # fmt: skip
    return {
        **translations(model, tokenizer, number),
        "before": before,
        "after": old_skills(model, tokenizer, old),
        "invented": reply.answer,
        "torch": torch.__version__,
    }


def card(figures: Figures, log: list[dict[str, str]]) -> str:
    """Return the text of the card."""
    book = phrases.book()
    words = [group for name, group in book.items() if name not in
             ("languages", "patterns", "turkish_hours")]  # fmt: skip
    pairs = [
        f"| {pair} | {exact / number:.1%} | {chrf:.1f} |"
        for pair, number, exact, chrf in figures["pairs"]
    ]
    exact = sum(row[2] for row in figures["pairs"])
    number = sum(row[1] for row in figures["pairs"])
    old = [
        f"| {name} | {right / total:.1%} | {figures['after'][name][0] / total:.1%} |"
        for name, (right, total) in figures["before"].items()
    ]
    patterns = sorted(
        figures["patterns"].items(), key=lambda one: one[1][0] / one[1][1]
    )
    text = (HERE / "card_phrases.md").read_text(encoding="utf-8")
    return text.format(
        patterns=len(book["patterns"]),
        words=sum(map(len, words)),
        share=f"{FULL.mix.replayed:.0%}",
        steps=f"{int(log[-1]['step']):,}",
        tokens=f"{int(log[-1]['tokens']) / 1e6:.1f}",
        minutes=round(float(log[-1]["seconds"]) / 60),
        number=figures["pairs"][0][1],
        pairs="\n".join(["| pair | exact | chrF |", "|---|---|---|", *pairs,
                         f"| **all** | **{exact / number:.1%}** | |"]),
        old="\n".join(["| skill | before | after |", "|---|---|---|", *old]),
        weakest=", ".join(f"{name} {right} of {total}"
                          for name, (right, total) in patterns[:6]),
        unknown=UNKNOWN,
        invented=figures["invented"],
    )  # fmt: skip


def main(given: list[str] | None = None) -> None:
    """Measure, keep the figures, and write the card into the adapter's folder."""
    parser = argparse.ArgumentParser(description="Measure the phrases adapter.")
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "phrases")
    parser.add_argument("--number", type=int, default=100, help="of each pair")
    parser.add_argument("--old", type=int, default=100, help="of each old skill")
    options = parser.parse_args(given)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (options.run / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    figures = measure(options.run / "adapter", options.number, options.old)
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "evaluation.json").write_text(text, encoding="utf-8")
    (RESULTS / "log.csv").write_text((options.run / "log.csv").read_text())
    written = card(figures, log)
    (options.run / "adapter" / "README.md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
