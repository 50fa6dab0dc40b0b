"""Teach a model something new: LoRA, a run that survives a kill, the adapter after it.

The training itself is TRL's `SFTTrainer`, the adapters are PEFT's. Ours is what a
lesson looks into: rows and labels (`chat_data`), a checkpoint that is whole or not
there, and the measuring before, during and after.
"""

import contextlib
import copy
import errno
import functools
import importlib.util
import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import chat_data, loading
from qwen_course.chat_data import Example
from qwen_course.errors import suggest
from qwen_course.evaluation import Score, evaluate
from qwen_course.processors import text_tokenizer
from qwen_course.quantization import linear_layers
from qwen_course.tables import Row, Table
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# LoRA


def target_names(model: Any) -> list[str]:
    """Return the names that a LoRA can be attached to: the linear layers of a block.

    Example:
        target_names(model)  ->  ['down_proj', 'gate_proj', 'k_proj', ...]
    """
    return sorted({name.rpartition(".")[2] for name in linear_layers(model)})


def attach_lora(
    model: "PreTrainedModel",
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    rslora: bool = False,
    dora: bool = False,
    seed: int = 0,
) -> "PeftModel":
    """Freeze a model and attach LoRA matrices; they alone will be trained.

    `alpha` None is twice the rank; the output of the matrices is scaled by alpha / rank
    (rsLoRA: alpha / sqrt(rank)). `targets` None takes every linear layer of the blocks.
    The model itself is changed, quantized ones too (QLoRA); `model.unload()` undoes it.
    Raises ValueError for a wrong target, rank or dropout, and for a quantized model
    that cannot be trained any more.

    Example:
        model = attach_lora(model, rank=16, targets=["q_proj", "v_proj"])
    """
    import torch
    from peft import LoraConfig, get_peft_model

    names = target_names(model)
    for target in targets or ():
        if target not in names:
            raise ValueError(
                f'target "{target}" is no linear layer of this model. It has '
                f"{', '.join(names)}.{suggest(target, names)}"
            )
    if rank < 1:
        raise ValueError(f"rank is {rank}; give 1 or more. 8 to 32 is usual.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; give a share from 0 to below 1.")
    _prepare_quantized(model)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=list(targets or names),
        use_rslora=rslora,
        use_dora=dora,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():  # the first values of A are random
        torch.manual_seed(seed)
        return get_peft_model(model, config)  # type: ignore[return-value]


def _prepare_quantized(model: Any) -> None:
    """Make the frozen 4-bit layers ready for gradients.

    On a CPU with bf16 instructions bitsandbytes repacks a layer when it first answers,
    and a repacked layer passes no gradient on, without a word.
    """
    for name, layer in model.named_modules():
        if not hasattr(layer, "support_avx512bf16_for_cpu"):
            continue
        state = getattr(layer.weight, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise ValueError(
                f"{name} was repacked for this CPU when the model first answered, and "
                "would pass no gradient on. Load the model again, and attach LoRA "
                "before its first use."
            )
        layer.support_avx512bf16_for_cpu = False
    if getattr(model, "is_quantized", False):
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def trained_parameters(model: Any) -> int:
    """Return how many parameters the optimizer changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# A run


@dataclass(frozen=True)
class Settings:
    """What decides a run: how many steps of how many rows, and how large they are.

    A step reads `rows` rows of `row_length` tokens, `accumulate` times. The learning
    rate rises over `warm_up` of the steps and falls over the last half. The values suit
    LoRA on pocket-qwen3; for a real model take a learning rate of 1e-4 to 2e-4, and
    rows of 1,024 tokens or more.
    """

    steps: int = 150
    learning_rate: float = 3e-3
    rows: int = 16
    row_length: int = 128
    accumulate: int = 1
    packing: bool = True
    warm_up: float = 0.06
    max_gradient: float = 1.0
    checkpointing: bool = False  # less memory, about a third more time
    precision: str = "auto"  # or "fp32", "bf16", "fp16": what is computed in
    log_every: int = 10
    evaluate_every: int = 50
    save_every: int = 50
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


@dataclass(frozen=True)
class Point:
    """One moment of a run: the mean loss since the last one; accuracy if measured."""

    step: int
    tokens: int
    seconds: float
    loss: float
    accuracy: float | None = None


@dataclass
class Training:
    """What a run gave: a loss every few steps, the accuracy on held-out problems.

    `seconds` and `tokens` count this call alone; a resumed run brings its old points.
    """

    points: list[Point] = field(default_factory=list)
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    total_steps: int = 0

    @property
    def loss(self) -> float:
        """The last loss, a mean over `log_every` steps."""
        return self.points[-1].loss if self.points else math.nan

    @property
    def accuracy(self) -> float | None:
        """The last accuracy on held-out problems, None if none were given."""
        measured = [p.accuracy for p in self.points if p.accuracy is not None]
        return measured[-1] if measured else None

    @property
    def tokens_per_second(self) -> float:
        """Tokens read a second, the measuring left out."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f", {self.accuracy:.0%} right"
        return f"step {self.steps} of {self.total_steps}: loss {self.loss:.3f}{right}"

    def plot(self) -> "Figure":
        """Draw the loss and, where it was measured, the accuracy over the steps."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = [p.step for p in self.points]
        left.plot(steps, [p.loss for p in self.points], color="#0072B2")
        left.set(xlabel="step", ylabel="loss (nats a token)", yscale="log",
                 title=f"Training loss, now {self.loss:.3f}")  # fmt: skip
        measured = [p for p in self.points if p.accuracy is not None]
        shares = [100 * (p.accuracy or 0) for p in measured]
        right.plot([p.step for p in measured], shares, "o-", color="#D55E00")
        title = f"Held out, now {shares[-1]:.0f}%" if shares else "Held out"
        right.set(xlabel="step", ylabel="right answers (%)", ylim=(-3, 103),
                  title=title)  # fmt: skip
        for axes in (left, right):
            axes.set_xlim(0, max(1, self.total_steps))
        return figure


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
    watcher = _watch(result, model, tokenizer, held_out, settings, live, evaluation)
    with _forward_kept(model), _run_folder(folder) as run:
        saved = _start(run, settings, model, examples, resume) if folder else None
        with _quiet():
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
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

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
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
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
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    with _forward_kept(trainer.model), _quiet():
        trainer.train()
    # DPO and GRPO put a copy of the adapter beside it, to compare with
    if "ref" in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter("ref")
    kept = ("loss", "reward")
    return [row for row in trainer.state.log_history if any(k in row for k in kept)]


def _config(
    settings: Settings, model: Any, folder: Path | None, overrides: dict[str, Any]
) -> Any:
    from trl import SFTConfig

    device = model.device.type
    steps = settings.steps
    warm = max(1, round(settings.warm_up * steps))
    fall = max(1, steps // 2)
    precision = _computed_in(settings.precision, device)
    options: dict[str, Any] = {
        "output_dir": str(folder or Path(tempfile.gettempdir()) / "qwen-course-run"),
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
        "max_grad_norm": settings.max_gradient,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "gradient_checkpointing": settings.checkpointing,
        "logging_steps": settings.log_every,
        "save_strategy": "steps" if folder else "no",
        "save_steps": settings.save_every,
        "save_total_limit": settings.keep,
        "seed": settings.seed,
        "use_cpu": device == "cpu",
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return SFTConfig(**options | overrides)


def _computed_in(precision: str, device: str) -> str:
    """Return the precision of the products: bf16 where the hardware computes in it."""
    import torch

    if precision != "auto":
        return precision
    if device == "cpu":  # needs AVX-512 with bf16 or AMX; emulated it is far slower
        return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"
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
        for part in (model, _inner(model)):
            for name in ("forward", "_original_forward"):
                vars(part).pop(name, None)
            if "_hf_hook" in vars(part):  # spread over several devices
                from accelerate.hooks import add_hook_to_module

                add_hook_to_module(part, part._hf_hook)


def _inner(model: Any) -> Any:
    """Return the model below an adapter; a model without one is returned as it is."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the libraries warn of and the learner cannot change."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


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
            run = Path(self.args.output_dir)
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
                if (reason := _disk_full(why)) is None:
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


def _disk_full(error: BaseException) -> str | None:
    """Return what an error says when it is, or hides, that the disk is full."""
    text = str(error)
    codes = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
    full = isinstance(error, OSError) and error.errno in codes
    # safetensors and torch wrap it in errors of their own
    hidden = re.search(
        r"No space left|os error 28|file write failed|unexpected pos", text
    )
    return text.strip().splitlines()[0][:160] if full or hidden else None


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


# Watching


def _watch(result, model, tokenizer, held_out, settings, live, evaluation) -> Any:
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        """Keeps the points of a run, measures, and shows both as it goes."""

        tokens_a_step = 0  # without what only fills up

        def on_train_begin(self, args, state, control, **others):
            self.view = _View() if live else None
            self.started = time.perf_counter()
            self.first, self.measuring = state.global_step, 0.0
            result.steps = self.first
            old = [row for row in state.log_history if "qwen_course" in row]
            result.points = [Point(**row["qwen_course"]) for row in old]

        def on_step_end(self, args, state, control, **others):
            if self._due(state.global_step):
                control.should_log = True

        def on_log(self, args, state, control, logs=None, **others):
            if "loss" not in (logs or {}):
                return
            step, seconds = state.global_step, self._seconds()
            each = self.tokens_a_step * args.world_size
            result.steps, result.seconds = step, seconds
            result.tokens = (step - self.first) * each
            point = Point(step, step * each, round(seconds, 2), float(logs["loss"]),
                          self._accuracy(step))  # fmt: skip
            result.points.append(point)
            state.log_history.append({"step": step, "qwen_course": vars(point)})
            if self.view and state.is_world_process_zero:
                self.view.show(result)

        def _seconds(self) -> float:
            return time.perf_counter() - self.started - self.measuring

        def _due(self, step: int) -> bool:
            return step % settings.evaluate_every == 0 or step == settings.steps

        def _accuracy(self, step: int) -> float | None:
            if not held_out or not self._due(step):
                return None
            before = time.perf_counter()
            model.eval()
            options = {"thinking": False, "progress": False, **evaluation}
            accuracy = evaluate(model, tokenizer, held_out, **options).accuracy
            model.train()
            self.measuring += time.perf_counter() - before
            return accuracy

        def on_train_end(self, args, state, control, **others):
            if self.view and state.is_world_process_zero:
                self.view.close(result)

    return Watcher()


class _View:
    """A plot redrawn in place in a notebook; a line for each point elsewhere."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.notebook = _in_notebook()

    def show(self, result: Training) -> None:
        if not self.notebook:
            print(result, flush=True)
            return
        from IPython.display import display

        figure = result.plot()
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)

    def close(self, result: Training) -> None:
        if self.notebook:
            print(result)


def _in_notebook() -> bool:
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")


# The adapter after the run


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Give a new folder to write into, and put it in place only when all is written."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
    except Exception as why:
        shutil.rmtree(new, ignore_errors=True)
        if (reason := _disk_full(why)) is None:
            raise
        raise OSError(
            errno.ENOSPC,
            f"the disk is full: nothing was saved to {folder}, and what was there is "
            f"untouched. Make room and save again. ({reason})",
        ) from why
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_adapter(model: "PeftModel", tokenizer: Any, folder: str | Path) -> int:
    """Save the adapter alone, with the tokenizer; return the bytes of its weights.

    It names the model it belongs to; a pocket model by its name, so that the folder can
    go to another machine. Raises ValueError for a model without adapter, OSError when
    the disk is full: what was in the folder is then untouched.
    """
    if not hasattr(model, "peft_config"):
        raise ValueError(
            "this model has no adapter. Save it whole: "
            "save_checkpoint(model, tokenizer, folder)."
        )
    folder = Path(folder)
    with _whole(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        name_the_base(new)
    return (folder / "adapter_model.safetensors").stat().st_size


def name_the_base(folder: Path) -> None:
    """Write a pocket model's name, not its place on this machine, into an adapter."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    base = Path(config["base_model_name_or_path"] or "")
    if base.parent == loading.BUNDLED:
        config["base_model_name_or_path"] = base.name
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(
    folder: str | Path,
    precision: str = "auto",
    device: str | None = None,
    trainable: bool = False,
) -> "tuple[PeftModel, PreTrainedTokenizerBase]":
    """Load the model that an adapter belongs to, and the adapter on top.

    Raises OSError when the folder holds no adapter, and what `load` raises.

    Example:
        model, tokenizer = load_adapter("romans")
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    config = Path(folder) / "adapter_config.json"
    if not config.is_file():
        raise OSError(
            f"the folder {folder} holds no adapter: it lacks adapter_config.json. Name "
            "the folder that save_adapter wrote; qc.load reads a whole model."
        )
    base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    model, _ = loading.load(base, precision, device)
    adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    return adapted.eval(), AutoTokenizer.from_pretrained(folder)


def merge(model: "PeftModel") -> "PreTrainedModel":
    """Add the adapter to the weights, and return the model without it.

    It answers the same, as fast as the plain model. Raises ValueError for a quantized
    model: the sum would be rounded to 4 bits again.
    """
    if getattr(_inner(model), "is_quantized", False):
        raise ValueError(
            "the weights of this model are quantized, and the sum with the adapter "
            "would be rounded again. Save the adapter, load it on whole weights, and "
            'merge that: merge(load_adapter(folder, precision="bf16")[0]).'
        )
    return model.merge_and_unload()  # type: ignore[operator]


def save_checkpoint(
    model: "PreTrainedModel", tokenizer: Any, folder: str | Path
) -> int:
    """Save a whole model, fp32 as bf16, for `qc.load`; return the bytes of its weights.

    Raises ValueError for a model with an adapter, OSError when the disk is full: what
    was in the folder is then untouched.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    if hasattr(model, "peft_config"):
        raise ValueError("this model has an adapter; call merge(model) first.")
    folder = Path(folder)
    wide = model.dtype == torch.float32
    half = copy.deepcopy(model).to(torch.bfloat16) if wide else model
    transformers_logging.disable_progress_bar()
    with _whole(folder) as new:
        half.save_pretrained(new)
        tokenizer.save_pretrained(new)
    transformers_logging.enable_progress_bar()
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


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


def scaled(settings: Settings, share: float) -> Settings:
    """Return the same run with a share of its steps, at least one."""
    return replace(settings, steps=max(1, round(share * settings.steps)))
