"""What every recipe shares: its command line, its stages, the finished folder."""

import argparse
import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from qwen_course.models import checksums
from qwen_course.processors import text_tokenizer
from training.trainer import TEXT, Log, Material, Recipe, describe, train

HERE = Path(__file__).parent
MODELS = HERE.parent / "qwen_course" / "models"
Measure = Callable[[PreTrainedModel], Log]


Curves = dict[str, tuple[str, str]]  # column of the log: its label and colour
THINKING: Curves = {
    "with_thinking": ("problems, with thinking", "#0072B2"),
    "without_thinking": ("problems, without", "#D55E00"),
    "facts": ("course questions", "#009E73"),
}


# The values of Qwen3's own generation config, made for thinking.
QWEN3_THINKING = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}


@dataclass(frozen=True)
class Plan:
    """One model: its tokenizer, its shape, the stages of its training.

    `tokenizer` is a processor for a model that sees or hears. `held_out(tokenizer)`
    returns a function that measures a model on unseen questions; its columns, those of
    `curves`, go into the log. `material` is what it learns from, `generation` what the
    checkpoint's generation config says of sampling.
    """

    name: str
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    build: Callable[[PreTrainedTokenizerBase], PreTrainedModel]
    stages: dict[str, Recipe]
    quick: Recipe
    held_out: Callable[[PreTrainedTokenizerBase], Measure]
    compiled: bool = True  # False: torch.compile would gain less than it takes
    shipped: bool = True  # False: trained for a comparison, not for the course
    material: Material = TEXT
    curves: Curves = field(default_factory=lambda: THINKING)
    generation: dict[str, Any] = field(default_factory=lambda: QWEN3_THINKING)
    load: Callable[[Path], Any] = AutoTokenizer.from_pretrained  # or AutoProcessor's


def vocabulary_rows(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the rows of the embedding: whole multiples of 64 compute faster."""
    return 64 * -(-len(tokenizer) // 64)


def small_qwen2(
    tokenizer: PreTrainedTokenizerBase, context: int, intermediate_size: int
) -> Qwen2Config:
    """Return the shape of a specialist for text: a Qwen2 of 6 layers, 256 wide."""
    return Qwen2Config(
        vocab_size=vocabulary_rows(tokenizer),
        hidden_size=256,
        intermediate_size=intermediate_size,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def pays_to_compile(recipe: Recipe) -> bool:
    """Return whether torch.compile finds a compiler (or a GPU) and the run is long.

    It takes about a minute before the first step, and saves a third of every step.
    """
    compilers = ("g++", "clang++", "cl")
    found = torch.cuda.is_available() or any(map(shutil.which, compilers))
    return found and recipe.steps >= 500


def run_plan(plan: Plan, stages: dict[str, Recipe], run: Path, device: str):
    """Train (or go on training) stage after stage in `run`.

    Returns the model and its tokenizer, which a run keeps from its beginning.
    """
    tokenizer = _tokenizer_of(plan, run / "tokenizer")
    torch.manual_seed(next(iter(stages.values())).seed)
    model = plan.build(tokenizer).to(device)
    for name, recipe in stages.items():
        folder = run / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(describe(recipe), indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        measure = plan.held_out(tokenizer)
        compiled = plan.compiled and pays_to_compile(recipe)
        train(model, tokenizer, recipe, folder, measure, compiled, plan.material)
        plot(folder / "log.csv", folder / "log.png", plan.curves)
    return model, tokenizer


def _tokenizer_of(plan: Plan, folder: Path) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.json").exists():
        plan.tokenizer().save_pretrained(folder)
    return plan.load(folder)


def export(model, tokenizer, folder: Path, generation: dict[str, Any]) -> None:
    """Write the checkpoint in bf16, with generation config and checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    text = text_tokenizer(tokenizer)
    # A turn ends with <|im_end|>, a bare text with the token that also pads.
    ends = [text.eos_token_id, text.pad_token_id]
    copy.generation_config = GenerationConfig(
        **generation, eos_token_id=ends, pad_token_id=text.pad_token_id
    )
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    checksums.write(folder)


def plot(log: Path, picture: Path, curves: Curves = THINKING) -> None:
    """Draw the loss and the held-out accuracy of a run from its CSV log."""
    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    left.plot(tokens, [float(row["loss"]) for row in rows], color="#0072B2")
    left.set(xlabel="tokens seen (millions)", ylabel="loss (nats a token)",
             yscale="log", title="Training loss")  # fmt: skip
    for name, (label, colour) in curves.items():
        measured = [row for row in rows if row[name]]
        seen = [int(row["tokens"]) / 1e6 for row in measured]
        shares = [100 * float(row[name]) for row in measured]
        right.plot(seen, shares, "o-", color=colour, label=label, markersize=3)
    right.set(xlabel="tokens seen (millions)", ylabel="right answers (%)",
              ylim=(0, 100), title="Unseen questions")  # fmt: skip
    right.legend()
    figure.savefig(picture, dpi=110)


def main(plan: Plan, arguments: list[str] | None = None) -> None:
    """Run a plan from the command line."""
    parser = argparse.ArgumentParser(description=f"Train {plan.name}.")
    parser.add_argument("--quick", action="store_true", help="train minutes, not hours")
    parser.add_argument("--run", type=Path, help="folder of the run (log, checkpoint)")
    parser.add_argument("--out", type=Path, help="folder of the finished model")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu"
    )
    options = parser.parse_args(arguments)
    name = f"{plan.name}-quick" if options.quick else plan.name
    run = options.run or HERE / "runs" / name
    kept = plan.shipped and not options.quick
    out = options.out or (MODELS / plan.name if kept else run / "model")
    stages = {"quick": plan.quick} if options.quick else plan.stages
    model, tokenizer = run_plan(plan, stages, run, options.device)
    export(model, tokenizer, out, plan.generation)
    print(f"The model is in {out}.")
