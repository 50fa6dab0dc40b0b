"""Make the phrases adapter: `python -m training.phrases`.

A LoRA adapter that teaches pocket-qwen3 to translate the sentences of a phrasebook,
English to Turkish, German, French and Spanish and back. Kill it whenever you like: the
same command goes on. It ends with the adapter and its scores in the run's folder.

    python -m training.phrases                 # the full run: 40 minutes on one core
    python -m training.phrases --quick         # a worse adapter in minutes
"""

import argparse
import json
import os
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from qwen_course import fine_tuning, loading
from qwen_course.evaluation import evaluate
from qwen_course.tasks import phrases
from qwen_course.tasks.problem import draw
from training.data import Example, Mix, Rows, draw_problem, fill_rows, render
from training.trainer import (
    IGNORE,
    Logger,
    Material,
    Recipe,
    describe,
    forward_of,
    learning_rate,
    load_checkpoint,
    losses,
    save_checkpoint,
)

HERE = Path(__file__).parent
RANK = 64  # 2.3 million numbers, a third of the model: a new vocabulary needs room
AT_ONCE = Mix(thinking=0.0, soft_switch=0.0, system=0.0)


@dataclass(frozen=True)
class PhraseMix:
    """What the training data is made of: phrases, and a share of the old skills."""

    replayed: float = 0.1
    old: Mix = field(
        default_factory=lambda: Mix(
            sums=0.5, products=0.08, word_problems=0.1, course_questions=0.16,
            instructions=0.05, dialogues=0.05, new_questions=0.06, tool_calls=0.0,
            thinking=0.75, system=0.0,
        )
    )  # fmt: skip


def batch(step: int, recipe: Recipe, tokenizer: Any) -> list[dict]:
    """Return the packed batch of a step, drawn from seed and step alone."""
    rng = random.Random(f"{recipe.seed}/{step}")

    def one() -> Example:
        if rng.random() < recipe.mix.replayed:
            old = recipe.mix.old
            return render(draw_problem(rng, old), tokenizer, rng, old)
        return render(draw(phrases.make, rng, "train"), tokenizer, rng, AT_ONCE)

    return fill_rows(one, recipe.rows, tokenizer.pad_token_id)


MATERIAL = Material(batch=batch, measured=("unseen_exact",))
FULL = Recipe(
    steps=1600, rows=(Rows(12, 160),), adamw_lr=2e-3, warm_up=40, decay_share=0.6,
    evaluate_every=200, mix=PhraseMix(),
)  # fmt: skip
QUICK = replace(FULL, steps=120, evaluate_every=60)


def learn(
    model: Any, tokenizer: Any, recipe: Recipe, folder: Path, measured: int = 96
) -> None:
    """Train the adapter of a PEFT model in place, going on from `folder`.

    The frozen weights below it have no gradient; a step moves the adapter alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(describe(recipe), indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    base = fine_tuning.inner(model)
    forward = forward_of(base, compiled=False)
    moved = [p for p in model.parameters() if p.requires_grad]
    opts = [torch.optim.AdamW(moved, lr=recipe.adamw_lr, betas=(0.9, 0.98),
                              weight_decay=0.0)]  # fmt: skip
    opts[0].param_groups[0]["base_lr"] = recipe.adamw_lr
    checkpoint = folder / "checkpoint.safetensors"
    first = load_checkpoint(checkpoint, model, opts)
    log = Logger(folder / "log.csv", first, MATERIAL.measured)
    started = time.perf_counter() - log.seconds_before
    unseen = phrases.problems(measured, seed=1)
    mean = None
    for step in range(first, recipe.steps):
        model.train()
        loss = one_step(base, forward, tokenizer, recipe, opts[0], step)
        mean = loss if mean is None else 0.95 * mean + 0.05 * loss
        done = step + 1
        evaluate_now = done % recipe.evaluate_every == 0 or done == recipe.steps
        if not evaluate_now and done % recipe.log_every:
            continue
        row = {"step": done, "tokens": done * recipe.rows[0].number
               * recipe.rows[0].length, "loss": round(mean, 4),
               "seconds": round(time.perf_counter() - started)}  # fmt: skip
        if evaluate_now:
            save_checkpoint(checkpoint, model, opts, done)
            row["unseen_exact"] = exact(model, tokenizer, unseen)
        log.write(row)
        print(row, flush=True)


def one_step(base, forward, tokenizer, recipe: Recipe, optimizer, step: int) -> float:
    """Move the adapter by one batch, and return its mean loss a learnt token."""
    packed = batch(step, recipe, tokenizer)[0]
    packed = {name: value.to(base.device) for name, value in packed.items()}
    total, _ = losses(base, forward, packed)
    loss = total / int((packed["labels"] != IGNORE).sum())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(base.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * learning_rate(step, recipe)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def exact(model: Any, tokenizer: Any, problems: list) -> float:
    """Return the share of translations that are right to the letter."""
    model.eval()
    result = evaluate(model, tokenizer, problems, thinking=False, max_new_tokens=48,
                      progress=False)  # fmt: skip
    return round(result.accuracy, 4)


def keep(model: Any, tokenizer: Any, folder: Path) -> int:
    """Save the adapter in bf16, half the bytes; return them.

    Merged into bf16 weights nothing finer would be left of it.
    """
    fine_tuning.save_adapter(model, tokenizer, folder)
    path = folder / "adapter_model.safetensors"
    halved = {name: value.bfloat16() for name, value in load_file(path).items()}
    save_file(halved, path, metadata={"format": "pt"})
    path.chmod(0o644)
    return path.stat().st_size


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Teach pocket-qwen3 a phrasebook.")
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "phrases")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, help="other than the recipe's")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Train, and save the adapter beside the run's log."""
    options = arguments(given)
    recipe = QUICK if options.quick else FULL
    recipe = replace(recipe, steps=options.steps or recipe.steps)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    model, tokenizer = loading.load("pocket-qwen3", "fp32", options.device)
    model = fine_tuning.attach_lora(model, RANK, seed=recipe.seed)
    learn(model, tokenizer, recipe, options.run)
    size = keep(model, tokenizer, options.run / "adapter")
    print(f"the adapter is in {options.run / 'adapter'}: {size:,} bytes.")


if __name__ == "__main__":
    main()
