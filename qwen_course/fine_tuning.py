"""Teach a model something new: LoRA, a run that survives a kill, the adapter after it.

The training itself is TRL's `SFTTrainer`, the adapters are PEFT's. Ours is what a
lesson looks into: rows and labels (`chat_data`), a checkpoint that is whole or not
there, and the measuring before, during (`training_curve`) and after. Adapters are
attached, saved and merged by `adapters`, whose functions are offered here as well.
"""

import contextlib
import dataclasses
import errno
import functools
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import chat_data
from qwen_course.adapters import (
    attach_lora,
    disk_full,
    inner,
    load_adapter,
    merge,
    name_the_base,
    quiet,
    save_adapter,
    save_checkpoint,
    target_names,
    trained_parameters,
)
from qwen_course.chat_data import Example
from qwen_course.evaluation import Score, evaluate
from qwen_course.loading import cpu_has_bf16, fast_dtype
from qwen_course.processors import text_tokenizer
from qwen_course.tables import Row, Table
from qwen_course.tasks.problem import Problem
from qwen_course.training_curve import Point, Training, watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Change", "Changes", "Point", "Settings", "Training", "as_examples", "attach_lora",
    "compare", "latest_checkpoint", "load_adapter", "make_trainer", "measure", "merge",
    "name_the_base", "replay", "run", "save_adapter", "save_checkpoint",
    "shared_options", "target_names",
    "train", "trained_parameters",
]  # fmt: skip


# A run


@dataclass(frozen=True)
class Settings:
    """What decides a run: how many steps of how many rows, and how large they are.

    A step reads `rows` rows of `row_length` tokens, `accumulate` times. The learning
    rate rises over `warm_up` of the steps and falls over the last half. The values suit
    LoRA on pocket-qwen3; for a real model take a learning rate of 1e-4 to 2e-4, and
    rows of 1,024 tokens or more.
    """

    steps: int = 600
    learning_rate: float = 1.5e-3
    rows: int = 3
    row_length: int = 192
    accumulate: int = 1
    packing: bool = True
    warm_up: float = 0.06
    max_gradient: float = 1.0
    checkpointing: bool = False  # less memory, about a third more time
    precision: str = "auto"  # or "fp32", "bf16", "fp16": what is computed in
    log_every: int = 20
    evaluate_every: int = 100
    save_every: int = 100
    keep: int = 2  # the newest checkpoints
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "row_length", "accumulate", "log_every",
                     "evaluate_every", "save_every", "keep"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more.")
        if self.learning_rate <= 0:
            raise ValueError(
                f"learning_rate is {self.learning_rate}; give a number above 0."
            )
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ValueError(
                f'precision "{self.precision}" is not one of auto, fp32, bf16, fp16. '
                'A quantized model is loaded so: qc.load(precision="nf4").'
            )


def train(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    data: Sequence[dict[str, Any]] | Sequence[Example],
    settings: Settings | None = None,
    held_out: Sequence[Problem] = (),
    folder: str | Path | None = None,
    resume: bool = True,
    live: bool = True,
    **evaluation: Any,
) -> Training:
    """Train a model in place on rows, or on examples from `encode`.

    With a `folder` the run is saved every `save_every` steps, and goes on from there
    when it was killed, to the same result; `resume=False` starts anew. `held_out`
    problems are asked every `evaluate_every` steps, with the options of `evaluate`
    (default: thinking off). `live` draws loss and accuracy in a notebook and writes
    lines elsewhere. Raises BadData for faulty rows, ValueError when nothing is to be
    trained or the folder holds another run, OSError when the disk is full.

    Example:
        train(attach_lora(model), tokenizer, rows, Settings(steps=150))
    """
    settings = settings or Settings()
    if not trained_parameters(model):
        raise ValueError(
            "every parameter of this model is frozen. Call attach_lora(model) first, "
            "or model.requires_grad_(True) to train all of it."
        )
    examples = as_examples(data, tokenizer, settings.row_length)
    result = Training(total_steps=settings.steps)
    watcher = watch(
        result, model, tokenizer, held_out, settings.evaluate_every, live, evaluation
    )
    with _forward_kept(model), _run_folder(folder) as run:
        saved = _start(run, settings, model, examples, resume) if folder else None
        with quiet():
            trainer = make_trainer(
                model, tokenizer, examples, settings, run if folder else None, [watcher]
            )
            rows = settings.rows * settings.accumulate / len(trainer.train_dataset)
            watcher.tokens_a_step = round(rows * sum(map(len, examples)))
            trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    return result


def as_examples(
    data: Sequence[Any], tokenizer: Any, max_length: int
) -> Sequence[Example]:
    """Encode rows; return examples as they are."""
    if data and all(isinstance(item, Example) for item in data):
        return data
    return chat_data.encode(data, tokenizer, max_length)


def make_trainer(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    settings: Settings,
    folder: Path | None = None,
    callbacks: Sequence[Any] = (),
    **overrides: Any,
) -> Any:
    """Return TRL's SFTTrainer, set up for these examples; `train` calls it.

    The rows come tokenized, labelled and packed, so TRL prepares nothing. `overrides`
    are fields of SFTConfig. Raises ImportError where trl is not installed.
    """
    _need_trl()
    import torch
    from datasets import Dataset

    pad = text_tokenizer(tokenizer).pad_token_id
    arrange = functools.partial(chat_data.pack, length=settings.row_length)
    rows = arrange(examples) if settings.packing else chat_data.one_a_row(examples)
    trainer = _trainer_class()(
        model=model,
        args=_config(settings, model, folder, overrides),
        train_dataset=Dataset.from_list(rows),
        data_collator=functools.partial(chat_data.collate, pad=pad),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    _print_nothing(trainer)
    # TRL turns the adapters of a quantized model to bf16, whose 8 digits lose most of a
    # small step. DeepSpeed wants one precision for all weights, and keeps its own copy.
    wanted = model.dtype if trainer.is_deepspeed_enabled else torch.float32
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(wanted)
    return trainer


def run(trainer: Any) -> list[dict[str, Any]]:
    """Run any trainer of TRL without its printing, and return what it logged.

    Raises what the trainer raises. The model is left with its own `forward` and with
    its own adapter alone, ready to answer.

    Example:
        rewards = [row["reward"] for row in run(GRPOTrainer(...))]
    """
    _print_nothing(trainer)
    with _forward_kept(trainer.model), quiet():
        trainer.train()
    # DPO and GRPO put a copy of the adapter beside it, to compare with
    if "ref" in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter("ref")
    kept = ("loss", "reward")
    return [row for row in trainer.state.log_history if any(k in row for k in kept)]


def _print_nothing(trainer: Any) -> None:
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


def shared_options(
    model: Any,
    folder: str | Path,
    log_every: int = 5,
    checkpointing: bool = False,
    precision: str = "auto",
) -> dict[str, Any]:
    """Return what every configuration of TRL is given here: no printing, no saving.

    Left alone TRL computes in bf16 everywhere, though few laptops have it, nor a T4.

    Example:
        DPOConfig(max_steps=30, **shared_options(model, "run"))
    """
    computed_in = _computed_in(precision, model.device.type)
    return {
        "output_dir": str(folder),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": log_every,
        "use_cpu": model.device.type == "cpu",
        "bf16": computed_in == "bf16",
        "fp16": computed_in == "fp16",
        "dataloader_pin_memory": False,
        "seed": 0,
        _checkpointing_name(): checkpointing,
    }


@functools.cache
def _checkpointing_name() -> str:
    """Return what the installed transformers calls it; later versions renamed it."""
    from transformers import TrainingArguments

    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    new = "activation_checkpointing"
    return new if new in names else "gradient_checkpointing"


def _config(
    settings: Settings, model: Any, folder: Path | None, overrides: dict[str, Any]
) -> Any:
    from trl import SFTConfig

    steps = settings.steps
    warm = max(1, round(settings.warm_up * steps))
    fall = max(1, steps // 2)
    place = folder or Path(tempfile.gettempdir()) / "qwen-course-run"
    options: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": settings.rows,
        "gradient_accumulation_steps": settings.accumulate,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {
            "num_decay_steps": fall,
            "decay_type": "linear",
            "min_lr_ratio": 0.02,
        },
        "warmup_steps": warm,
        "weight_decay": 0.0,
        "adam_beta2": 0.98,  # 0.999 looks back a thousand steps, longer than most runs
        "max_grad_norm": settings.max_gradient,
        "save_strategy": "steps" if folder else "no",
        "save_steps": settings.save_every,
        "save_total_limit": settings.keep,
        "seed": settings.seed,
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
    }
    shared = shared_options(
        model, place, settings.log_every, settings.checkpointing, settings.precision
    )
    return SFTConfig(**shared | options | overrides)


def _computed_in(precision: str, device: str) -> str:
    """Return the precision of the products: bf16 where the hardware computes in it."""
    import torch

    if precision != "auto":
        return precision
    if device == "cpu":
        return "bf16" if cpu_has_bf16() else "fp32"
    if device == "cuda":
        return "bf16" if fast_dtype(device) is torch.bfloat16 else "fp16"
    return "fp32"


def _need_trl() -> None:
    for package in ("trl", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"fine-tuning needs the package {package}, which is not installed. "
                'Type: python -m pip install "trl>=1.0,<2" "datasets>=4.0"'
            )


@contextlib.contextmanager
def _forward_kept(model: Any) -> Iterator[None]:
    """Take back what the libraries put in the place of `forward`.

    TRL's fused output layer and accelerate's autocast stay on the model after a run. A
    deep copy of it would then compute with the weights of the original.
    """
    try:
        yield
    finally:
        model.eval()
        for part in (model, inner(model)):
            for name in ("forward", "_original_forward"):
                vars(part).pop(name, None)
            if "_hf_hook" in vars(part):  # spread over several devices
                from accelerate.hooks import add_hook_to_module

                add_hook_to_module(part, part._hf_hook)


# Checkpoints: whole, or not there


@functools.cache
def _trainer_class() -> Any:
    from transformers.trainer_utils import rotate_checkpoints
    from trl import SFTTrainer

    class WholeCheckpoints(SFTTrainer):
        """An SFTTrainer whose checkpoints are written aside and moved when complete.

        The library writes into `checkpoint-50` itself: a kill or a full disk in the
        middle leaves half of one, and the next start would take it for the newest.
        """

        aside: str | None = None

        def _get_output_dir(self, trial: Any) -> str:
            return self.aside or super()._get_output_dir(trial)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            run = Path(str(self.args.output_dir))
            aside = run / "unfinished"
            main = self.accelerator.is_main_process
            if main:
                shutil.rmtree(aside, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            self.aside = str(aside)
            try:
                super()._save_checkpoint(model, trial)
            except Exception as why:
                shutil.rmtree(aside, ignore_errors=True)
                if (reason := disk_full(why)) is None:
                    raise
                before = latest_checkpoint(run)
                kept = f"{before.name} is whole" if before else "none was before it"
                raise OSError(
                    errno.ENOSPC,
                    f"the disk is full: step {self.state.global_step} was not saved; "
                    f"{kept}. Make room and call train again with the same folder: it "
                    f"goes on from there. ({reason})",
                ) from why
            finally:
                self.aside = None
            self.accelerator.wait_for_everyone()
            if main:
                name = f"checkpoint-{self.state.global_step}"
                shutil.rmtree(run / name, ignore_errors=True)
                (aside / name).rename(run / name)
                aside.rmdir()
                rotate_checkpoints(str(run), self.args.save_total_limit)
            self.accelerator.wait_for_everyone()

        def create_model_card(self, *arguments: Any, **options: Any) -> None:
            """Write no card: the one of TRL would name a run, not what was taught."""

    return WholeCheckpoints


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest checkpoint of a run that is complete, None if there is none."""
    whole = [
        path
        for path in Path(folder).glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit()
        and (path / "trainer_state.json").is_file()  # what is written last
    ]
    return max(whole, key=lambda path: int(path.name[11:]), default=None)


@contextlib.contextmanager
def _run_folder(folder: str | Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="qwen-course-") as temporary:
            yield Path(temporary)
        return
    run = Path(folder)
    run.mkdir(parents=True, exist_ok=True)
    yield run


def _start(
    run: Path,
    settings: Settings,
    model: Any,
    examples: Sequence[Example],
    resume: bool,
) -> Path | None:
    """Return the checkpoint to go on from; refuse one of another run."""
    note = run / "run.json"
    told = vars(settings) | {
        "examples": len(examples),
        "tokens": sum(map(len, examples)),
        "trained_parameters": trained_parameters(model),
    }
    saved = latest_checkpoint(run)
    if saved and not resume:
        for path in run.glob("checkpoint-*"):
            shutil.rmtree(path)
        saved = None
    if saved and note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        free = {"log_every", "evaluate_every", "save_every", "keep"}
        changed = [k for k in told if k not in free and before.get(k) != told[k]]
        if changed:
            differ = ", ".join(f"{k} {before.get(k)} then, {told[k]} now"
                               for k in changed)  # fmt: skip
            raise ValueError(
                f"{run} holds another run ({differ}). Give another folder, or "
                "resume=False to throw it away."
            )
    note.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return saved


# Before and after


def measure(
    model: Any,
    tokenizer: Any,
    problems: Mapping[str, Sequence[Problem]],
    thinking: bool | Mapping[str, bool] = True,
    **options: Any,
) -> dict[str, Score]:
    """Return the score of each named set of problems; `options` go to `evaluate`.

    `thinking` may be given for each set.
    """
    options = {"progress": False, **options}
    scores = {}
    for name, chosen in problems.items():
        switch = thinking if isinstance(thinking, bool) else thinking.get(name, True)
        scores[name] = evaluate(
            model, tokenizer, chosen, thinking=switch, **options
        ).score
    return scores


@dataclass(frozen=True)
class Change:
    """One skill before and after; the share of right answers and its change."""

    skill: str
    before: Score
    after: Score

    @property
    def points(self) -> float:
        """The change in percentage points."""
        return 100 * (self.after.accuracy - self.before.accuracy)


class Changes(Table[Change]):
    """What a training changed, one row a skill."""

    columns = ("skill", "before", "after", "points")
    noun = "skills"

    def cells(self, item: Change) -> Row:
        """Return the two shares and their difference."""
        return (
            item.skill,
            f"{item.before.accuracy:.1%}",
            f"{item.after.accuracy:.1%}",
            f"{item.points:+.1f}",
        )


def compare(before: Mapping[str, Score], after: Mapping[str, Score]) -> Changes:
    """Put two measurements side by side. Raises ValueError when no set is in both."""
    both = [name for name in before if name in after]
    if not both:
        raise ValueError(
            f"nothing to compare: measured were {', '.join(before)} before, "
            f"{', '.join(after)} after. Measure the same sets."
        )
    return Changes(Change(name, before[name], after[name]) for name in both)


def replay(
    skills: Mapping[str, int], seed: int = 0, thinking: float = 0.5
) -> list[dict[str, Any]]:
    """Return old training problems, so many of each skill, a share with thinking.

    What a model does not see while it learns, it forgets: mix these among new rows.

    >>> len(replay({"sums": 3, "products": 2}))
    5
    """
    from qwen_course import tasks

    rows = []
    for name, count in skills.items():
        problems = getattr(tasks, name).problems(count, seed=seed, split="train")
        cut = round(thinking * count)
        rows += chat_data.from_problems(problems[:cut], thinking=True)
        rows += chat_data.from_problems(problems[cut:])
    return rows
