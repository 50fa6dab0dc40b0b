"""The training loop: bf16 where it is fast, packed batches, a CSV log, safe to kill.

A run is a folder: `config.json` of the recipe, `log.csv`, and `checkpoint.safetensors`
(weights, optimizer and step, written whole or not at all). Starting it again continues.
"""

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from training.data import IGNORE, ROWS, Mix, Rows, batch
from training.muon import Muon, fast_precision

Log = dict[str, float | int]
Packed = dict[str, torch.Tensor]
LARGEST_RMS = 0.07  # of the matrices for queries and keys, where they have no norm
BALANCE = 0.02  # weight of the load-balancing loss (Fedus et al., arXiv 2101.03961)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a run."""

    steps: int
    rows: tuple[Rows, ...] = ROWS
    seed: int = 1
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    weight_decay: float = 0.01
    warm_up: int = 50
    decay_share: float = 0.5  # of the steps, at the end: linear to a fiftieth
    log_every: int = 25
    evaluate_every: int = 250
    mix: Any = field(default_factory=Mix)  # what the batches are made of


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the factor on the learning rate: warm-up, stable, linear decay.

    >>> learning_rate(0, Recipe(steps=1000, warm_up=50))
    0.02
    """
    warm = min(1.0, (step + 1) / recipe.warm_up)
    left = (recipe.steps - step) / (recipe.decay_share * recipe.steps)
    return warm * min(1.0, max(0.02, left))


def _is_matrix(name: str, weight: torch.nn.Parameter) -> bool:
    """Return whether Muon takes a weight: matrices of the layers, no router.

    The experts of a layer are a stack of matrices; the kernel of a convolution is not.
    """
    inside = "embed" not in name and not name.endswith(".gate.weight")
    matrix = weight.ndim == 2 or (weight.ndim == 3 and ".experts." in name)
    return matrix and inside


def optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the layers, AdamW for all the rest."""
    matrices, rest = [], []
    for name, weight in model.named_parameters():
        (matrices if _is_matrix(name, weight) else rest).append(weight)
    muon = Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)
    adamw = torch.optim.AdamW(
        rest, lr=recipe.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0
    )
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return [muon, adamw]


def forward_of(model: PreTrainedModel, compiled: bool) -> Callable:
    """Return the layers of the model as a function, compiled if wanted.

    Only training runs through it: compiling fixes the shapes, and those of
    generation change with every token.
    """
    # The plain attention fuses well; sdpa's CPU kernel took 40% of a step.
    model.set_attn_implementation("eager")
    return torch.compile(model.model, dynamic=False) if compiled else model.model


def losses(
    model: PreTrainedModel, forward: Callable, packed: Packed
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the cross-entropies of the learnt tokens, and the balance.

    The vocabulary projection is computed for those tokens alone; the others would
    cost time and memory and count for nothing. The balance is the load-balancing loss
    of a mixture of experts, 0 for a dense model.
    """
    labels = packed["labels"][:, 1:]
    learnt = labels != IGNORE
    precision = fast_precision(model.device)
    blind = torch.finfo(precision).min
    mask = torch.where(packed["attention_mask"], 0.0, blind).to(precision)
    routed = {"output_router_logits": True} if _experts(model) else {}
    halved = precision != torch.float32
    with torch.autocast(model.device.type, precision, enabled=halved):
        output = forward(
            input_ids=packed["input_ids"],
            attention_mask=mask,
            position_ids=packed["position_ids"],
            use_cache=False,
            **routed,
        )
        logits = model.lm_head(output.last_hidden_state[:, :-1][learnt])
    loss = F.cross_entropy(logits.float(), labels[learnt], reduction="sum")
    if not routed:
        return loss, loss.new_zeros(())
    # subtle: given all layers at once, the function balances their sum, and each layer
    # may send everything to a few experts as long as the next one takes others.
    experts = model.config.num_experts, model.config.num_experts_per_tok
    balances = [
        load_balancing_loss_func((logits,), *experts, packed["real"])
        for logits in output.router_logits
    ]
    return loss, torch.stack(balances).mean()


@torch.no_grad()
def cap(weight: torch.Tensor, largest: float) -> None:
    """Scale a matrix down to a root mean square of `largest`, in place."""
    size = weight.pow(2).mean().sqrt()
    weight.mul_((largest / size).clamp(max=1.0))


def capped_losses(
    model: PreTrainedModel, forward: Callable, packed: "Packed"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of a Qwen2, whose queries and keys are kept small.

    Qwen3 normalizes them, Qwen2 does not: without this cap their products grew to 100,
    where bf16 has steps of a half, and the loss fell no further.
    """
    for layer in model.model.layers:
        cap(layer.self_attn.q_proj.weight, LARGEST_RMS)
        cap(layer.self_attn.k_proj.weight, LARGEST_RMS)
    return losses(model, forward, packed)


def _experts(model: PreTrainedModel) -> int:
    return getattr(model.config, "num_experts", 0)


def _named_state(opts: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Return what the optimizers remember, named such as "optimizer.0.12.step"."""
    return {
        f"optimizer.{number}.{weight}.{key}": torch.as_tensor(value)
        for number, optimizer in enumerate(opts)
        for weight, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def save_checkpoint(path: Path, model, opts, step: int) -> None:
    """Write the state of the run; a kill while writing leaves the old file."""
    weights = {f"model.{name}": w.detach() for name, w in model.named_parameters()}
    state = {**weights, **_named_state(opts), "step": torch.tensor(step)}
    new = path.with_suffix(".new")
    save_file({name: value.contiguous() for name, value in state.items()}, new)
    new.replace(path)


def load_checkpoint(path: Path, model, opts) -> int:
    """Restore the state of the run and return the step to go on with."""
    if not path.exists():
        return 0
    state = load_file(path, device=str(model.device))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(state[f"model.{name}"])
    for number, optimizer in enumerate(opts):
        remembered: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer" and rest.startswith(f"{number}."):
                _, weight, key = rest.split(".")
                remembered.setdefault(int(weight), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": remembered, "param_groups": groups})
    return int(state["step"])


def text_batch(step: int, recipe: Recipe, tokenizer) -> list[Packed]:
    """Return what a general text model learns from in a step."""
    return batch(step, recipe.seed, tokenizer, recipe.mix, recipe.rows)


@dataclass(frozen=True)
class Material:
    """What a model learns from: the packed batches of a step, and the loss of one.

    `batch(step, recipe, tokenizer)` draws from seed and step alone. A batch holds at
    least `labels` and `real`, both (rows, tokens). `loss(model, forward, packed)`
    returns the sum of the cross-entropies and the balance of experts, see `losses`.
    `measured` names the columns that held-out measurements add to the log.
    """

    batch: Callable[[int, Recipe, Any], list[Packed]] = text_batch
    loss: Callable[..., tuple[torch.Tensor, torch.Tensor]] = losses
    measured: tuple[str, ...] = ("with_thinking", "without_thinking", "facts")


TEXT = Material()


class Logger:
    """A CSV file with one row for each logged step; rows after a resume are redone."""

    def __init__(self, path: Path, first_step: int, measured: Sequence[str]) -> None:
        self.columns = ("step", "tokens", "seconds", "loss", *measured)
        kept = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            kept = [row for row in rows if int(row["step"]) <= first_step]
        self.seconds_before = float(kept[-1]["seconds"]) if kept else 0.0
        self.path = path
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(kept)

    def write(self, row: Log) -> None:
        """Append one row."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    folder: Path,
    held_out: Callable[[PreTrainedModel], Log],
    compiled: bool = False,
    material: Material = TEXT,
) -> None:
    """Train `model` in place for `recipe.steps`, resuming from `folder`.

    `held_out(model)` is called every `evaluate_every` steps and returns columns for
    the log. `compiled` uses torch.compile, which needs a C++ compiler on a CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opts = optimizers(model, recipe)
    checkpoint = folder / "checkpoint.safetensors"
    first = load_checkpoint(checkpoint, model, opts)
    log = Logger(folder / "log.csv", first, material.measured)
    started = time.perf_counter() - log.seconds_before
    forward = forward_of(model, compiled)
    tokens = sum(group.number * group.length for group in recipe.rows)
    model.train()
    bar = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps)
    mean_loss = None
    for step in bar:
        loss = _one_step(model, forward, tokenizer, recipe, opts, step, material)
        mean_loss = loss if mean_loss is None else 0.95 * mean_loss + 0.05 * loss
        bar.set_postfix(loss=f"{mean_loss:.3f}")
        done = step + 1
        evaluate_now = done % recipe.evaluate_every == 0 or done == recipe.steps
        if evaluate_now or done % recipe.log_every == 0:
            row: Log = {
                "step": done,
                "tokens": done * tokens,
                "loss": round(mean_loss, 4),
                "seconds": round(time.perf_counter() - started),
            }
            log.write(row | (held_out(model) if evaluate_now else {}))
        if evaluate_now:
            save_checkpoint(checkpoint, model, opts, done)


def _one_step(
    model, forward, tokenizer, recipe: Recipe, opts, step: int, material=TEXT
) -> float:
    packs = [
        {name: value.to(model.device) for name, value in packed.items()}
        for packed in material.batch(step, recipe, tokenizer)
    ]
    packs = [packed for packed in packs if packed["real"].any()]
    learnt = sum(int((packed["labels"] != IGNORE).sum()) for packed in packs)
    total = 0.0
    for packed in packs:
        loss, balance = material.loss(model, forward, packed)
        loss = loss / learnt
        (loss + BALANCE * balance / len(packs)).backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    factor = learning_rate(step, recipe)
    for optimizer in opts:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.step()
        optimizer.zero_grad()
    return total


def describe(recipe: Recipe) -> dict:
    """Return the recipe as plain data, for `config.json` of the run."""
    return asdict(recipe)
