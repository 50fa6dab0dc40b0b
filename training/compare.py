"""What each choice of the recipe gives: `python -m training.compare`.

Short runs that differ in one choice each, measured the same way: tokens a second, or
the loss on unseen problems after the same number of steps. Kept, with the name of the
machine, in `training/results/choices.json`; what is there is not measured again.
"""

import argparse
import contextlib
import json
import platform
import random
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from transformers import AutoTokenizer

from qwen_course.loading import BUNDLED
from qwen_course.scorecard import PARTS
from training import data, muon, pocket_qwen3, trainer
from training.data import Mix, Rows
from training.trainer import Recipe

RESULTS = Path(__file__).parent / "results" / "choices.json"
BASE = Recipe(steps=200, rows=pocket_qwen3.SMALL_ROWS, warm_up=20)
SPEED_STEPS = 8  # of a run that measures speed alone
TRIED_ON = ("sums", "products", "word problems", "course questions", "tool calls")


@dataclass(frozen=True)
class Choice:
    """One run: what it tries, and how it differs from the base."""

    what: str
    name: str
    recipe: Recipe = BASE
    first: Mix | None = None  # what the first half of the steps learns from
    adamw: bool = False
    precision: torch.dtype | None = None  # None: the one the machine is fast in
    attention: str = "eager"
    compiled: bool = True  # only where speed is measured: it changes no loss
    padded: bool = False  # one example a row
    only_speed: bool = False


ARITHMETIC = Mix(word_problems=0, course_questions=0, instructions=0, dialogues=0,
                 new_questions=0, tool_calls=0)  # fmt: skip
CHOICES = (
    Choice("base", "all as in the recipe"),
    Choice("speed", "all as in the recipe", only_speed=True),
    Choice("precision", "fp32", precision=torch.float32, only_speed=True),
    Choice("precision", "bf16", precision=torch.bfloat16, only_speed=True),
    Choice("attention", "sdpa instead of eager", attention="sdpa", only_speed=True),
    Choice("compiling", "none", compiled=False, only_speed=True),
    Choice("compiling", "none, and sdpa", compiled=False, attention="sdpa",
           only_speed=True),
    Choice("rows", "8 of 256, 2 of 416", only_speed=True,
           recipe=replace(BASE, rows=(Rows(8, 256), Rows(2, 416)))),
    Choice("packing", "one example a row, filled up", padded=True),
    Choice("optimizer", "AdamW 1.5e-3", adamw=True,
           recipe=replace(BASE, adamw_lr=1.5e-3)),
    Choice("optimizer", "AdamW 4e-3", adamw=True, recipe=replace(BASE, adamw_lr=4e-3)),
    Choice("schedule", "constant, no decay", recipe=replace(BASE, decay_share=1e-6)),
    Choice("schedule", "linear decay from the start",
           recipe=replace(BASE, decay_share=1.0)),
    Choice("curriculum", "first half only sums and products", first=ARITHMETIC),
    Choice("data mix", "a third of the word problems, more sums and products",
           recipe=replace(BASE, mix=Mix(sums=0.21, products=0.23, word_problems=0.07))),
)  # fmt: skip


@dataclass
class Result:
    """What a run gave: its speed, or the loss on unseen examples of each skill."""

    what: str
    name: str
    tokens_per_second: int | None = None
    loss: dict[str, float] = field(default_factory=dict)


def unseen_batch(tokenizer, part: str, number: int) -> list[dict]:
    """Return packed unseen examples of one part, worked with thinking."""
    mix = Mix(thinking=1.0, cut_short=0.0, soft_switch=0.0, system=0.0)
    rng = random.Random("compare")
    problems = PARTS[part](number)
    examples = [data.render(problem, tokenizer, rng, mix) for problem in problems]
    return [data.pack(examples, 16, 416, tokenizer.pad_token_id)]


def loss_of(model, packs: list[dict]) -> float:
    """Return the mean loss of the learnt tokens."""
    model.eval()
    with torch.no_grad():
        total = sum(trainer.losses(model, model.model, p)[0].item() for p in packs)
    model.train()
    learnt = sum(int((p["labels"][:, 1:] != data.IGNORE).sum()) for p in packs)
    return round(total / learnt, 4)


def only_adamw(model, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return AdamW for every weight."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.adamw_lr, betas=(0.9, 0.95), weight_decay=0.01
    )
    optimizer.param_groups[0]["base_lr"] = recipe.adamw_lr
    return [optimizer]


@contextlib.contextmanager
def as_chosen(choice: Choice):
    """Change what the trainer does, for the time of one run."""
    fast, pack = muon.fast_precision, data.pack
    if choice.precision:
        trainer.fast_precision = muon.fast_precision = lambda device: choice.precision
    if choice.padded:
        data.pack = _one_a_row
    try:
        yield
    finally:
        trainer.fast_precision = muon.fast_precision = fast
        data.pack = pack


def _one_a_row(examples, rows, length, pad):
    """Pack so that a second example never fits: each is as long as its row."""
    filled = [
        data.Example(
            example.ids + [pad] * (length - len(example.ids)),
            example.learnt + [False] * (length - len(example.ids)),
        )
        for example in examples[:rows]
    ]
    return _pack(filled, rows, length, pad)


_pack = data.pack


def measure(choice: Choice, tokenizer, examples: int = 48) -> Result:
    """Run one choice; its loss is that of so many unseen examples a skill."""
    recipe = choice.recipe
    torch.manual_seed(recipe.seed)
    model = pocket_qwen3.build(tokenizer)
    opts = (only_adamw if choice.adamw else trainer.optimizers)(model, recipe)
    compiled = choice.compiled and choice.only_speed
    forward = trainer.forward_of(model, compiled)
    model.set_attn_implementation(choice.attention)
    tokens = sum(group.number * group.length for group in recipe.rows)
    seconds = []
    with as_chosen(choice):
        for step in range(SPEED_STEPS if choice.only_speed else recipe.steps):
            now = recipe
            if choice.first and step < recipe.steps // 2:
                now = replace(recipe, mix=choice.first)
            started = time.perf_counter()
            trainer._one_step(model, forward, tokenizer, now, opts, step)
            seconds.append(time.perf_counter() - started)
    result = Result(choice.what, choice.name)
    if choice.only_speed:
        usual = statistics.median(seconds[len(seconds) // 4 :])  # the first warm up
        result.tokens_per_second = round(tokens / usual)
    else:
        model.set_attn_implementation("eager")
        result.loss = {
            part: loss_of(model, unseen_batch(tokenizer, part, examples))
            for part in TRIED_ON
        }
    torch.compiler.reset()
    return result


def main() -> None:
    """Measure the choices that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="measure all again")
    parser.add_argument(
        "--only", choices=("losses", "speed"), help="speed wants an idle machine"
    )
    options = parser.parse_args()
    kept = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "torch": torch.__version__.partition("+")[0], "results": []}  # fmt: skip
    if RESULTS.exists() and not options.again:
        kept = json.loads(RESULTS.read_text("utf-8"))
    done = {(row["what"], row["name"]) for row in kept["results"]}
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "pocket-qwen3")
    for choice in CHOICES:
        unwanted = options.only == ("losses" if choice.only_speed else "speed")
        if unwanted or (choice.what, choice.name) in done:
            continue
        result = measure(choice, tokenizer)
        print(result, flush=True)
        kept["results"].append(asdict(result))
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
