"""The recipe of pocket-qwen3: `python -m training.pocket_qwen3`.

Trains the tokenizer and a Qwen3ForCausalLM from nothing and writes a checkpoint that
`AutoModelForCausalLM.from_pretrained` loads with no code of ours. Kill it whenever
you like: the same command goes on from the last checkpoint.

    python -m training.pocket_qwen3                 # the full run
    python -m training.pocket_qwen3 --quick         # a worse model in minutes
"""

import argparse
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from qwen_course import tasks
from qwen_course.evaluation import evaluate
from qwen_course.models import checksums
from training import tokenizer as tokenizers
from training.data import SYSTEM_PROMPTS, Mix, Rows, draw_problem, write
from training.trainer import Log, Recipe, describe, train

HERE = Path(__file__).parent
MODEL = HERE.parent / "qwen_course" / "models" / "pocket-qwen3"
CONTEXT = 1024
VOCABULARY = 5120  # entries at most; seven languages share them
FULL = Recipe(steps=7500, evaluate_every=500)
QUICK = replace(
    FULL, steps=120, evaluate_every=120, rows=(Rows(16, 128), Rows(2, 416)), warm_up=10
)


def shape(vocab_size: int, tokenizer) -> Qwen3Config:
    """Return the architecture: Qwen3's, 8 layers of width 256."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def corpus(mix: Mix, seed: int, examples: int = 30_000) -> list[str]:
    """Return the texts that the tokenizer learns from: rendered like the training data.

    Rendered, so that the words of the template, "assistant" for one, are words of the
    vocabulary too.
    """
    plain = tokenizers.build([], 300, CONTEXT)  # bytes and added tokens
    rng = random.Random(f"tokenizer/{seed}")
    texts = list(SYSTEM_PROMPTS)
    for _ in range(examples):
        problem = draw_problem(rng, mix)
        parts, _ = write(problem, plain, rng, mix)
        texts += [parts[0][0], problem.thinking, problem.answer]
    return texts


def held_out_accuracy(tokenizer, per_skill: int = 32):
    """Return a function that measures a model on unseen problems and course questions.

    The problems are solved in both modes, the course questions with thinking.
    """
    problems = [
        problem
        for skill in (tasks.sums, tasks.products, tasks.word_problems)
        for problem in skill.problems(per_skill, seed=12345)
    ]
    facts = tasks.course_questions.problems(2 * per_skill, seed=12345)
    measured = {
        "with_thinking": (problems, True),
        "without_thinking": (problems, False),
        "facts": (facts, True),
    }

    def measure(model) -> Log:
        model.eval()
        accuracy = {
            name: round(
                evaluate(model, tokenizer, asked, thinking, batch_size=96,
                         max_new_tokens=160, progress=False).accuracy, 4)
            for name, (asked, thinking) in measured.items()
        }  # fmt: skip
        model.train()
        return accuracy

    return measure


def export(model, tokenizer, folder: Path) -> None:
    """Write the checkpoint in bf16, with generation config and checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        top_k=20,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    checksums.write(folder)


def plot(log: Path, picture: Path) -> None:
    """Draw the loss and the held-out accuracy of a run from its CSV log."""
    import csv

    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    left.plot(tokens, [float(row["loss"]) for row in rows], color="#0072B2")
    left.set(xlabel="tokens seen (millions)", ylabel="loss (nats a token)",
             yscale="log", title="Training loss")  # fmt: skip
    for name, colour, label in (
        ("with_thinking", "#0072B2", "problems, with thinking"),
        ("without_thinking", "#D55E00", "problems, without"),
        ("facts", "#009E73", "course questions"),
    ):
        measured = [row for row in rows if row[name]]
        seen = [int(row["tokens"]) / 1e6 for row in measured]
        shares = [100 * float(row[name]) for row in measured]
        right.plot(seen, shares, "o-", color=colour, label=label, markersize=3)
    right.set(xlabel="tokens seen (millions)", ylabel="right answers (%)",
              ylim=(0, 100), title="Unseen questions")  # fmt: skip
    right.legend()
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="train minutes, not hours")
    parser.add_argument("--run", type=Path, help="folder of the run (log, checkpoint)")
    parser.add_argument("--out", type=Path, help="folder of the finished model")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu"
    )
    options = parser.parse_args()
    name = "pocket-qwen3-quick" if options.quick else "pocket-qwen3"
    run = options.run or HERE / "runs" / name
    out = options.out or (run / "model" if options.quick else MODEL)
    stages = {"quick": QUICK} if options.quick else {"main": FULL}
    run_recipe(stages, run, out, options.device)


def can_compile() -> bool:
    """Return whether torch.compile finds what it needs: a compiler, or a GPU."""
    compilers = ("g++", "clang++", "cl")
    return torch.cuda.is_available() or any(map(shutil.which, compilers))


def run_recipe(stages: dict[str, Recipe], run: Path, out: Path, device: str) -> None:
    """Train (or go on training) stage after stage in `run`; write the model to `out`.

    The tokenizer learns from the data of the first stage.
    """
    first = next(iter(stages.values()))
    torch.manual_seed(first.seed)
    tokenizer = tokenizers.build(corpus(first.mix, first.seed), VOCABULARY, CONTEXT)
    rows = 64 * -(-len(tokenizer) // 64)  # whole multiples of 64 compute faster
    model = Qwen3ForCausalLM(shape(rows, tokenizer)).to(device)
    for name, recipe in stages.items():
        folder = run / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(describe(recipe), indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        train(
            model, tokenizer, recipe, folder, held_out_accuracy(tokenizer), can_compile()
        )
        plot(folder / "log.csv", folder / "log.png")
    export(model, tokenizer, out)


if __name__ == "__main__":
    main()
