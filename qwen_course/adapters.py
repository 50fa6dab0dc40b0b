"""LoRA adapters: attach, save, load and merge them; what is written is whole.

The adapters are PEFT's. Ours is what it leaves silent: a misspelt target, a base that
another machine cannot find, a disk that is full in the middle of a file.
"""

import contextlib
import copy
import errno
import importlib.metadata
import json
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import loading
from qwen_course.errors import suggest
from qwen_course.quantization import linear_layers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TORCHAO = (0, 16)  # the oldest that PEFT 0.18 to 0.21 works beside


def hide_old_torchao() -> bool:
    """Let PEFT work beside a torchao that is too old for it; return whether one is.

    Colab has one. PEFT then raises ImportError at every adapter, though none here needs
    torchao. A module that is None counts as not installed.
    """
    try:
        version = importlib.metadata.version("torchao").split(".")
    except importlib.metadata.PackageNotFoundError:
        return False
    if (int(version[0]), int(version[1])) >= TORCHAO:
        return False
    sys.modules["torchao"] = None  # type: ignore[assignment]
    return True


hide_old_torchao()


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
    with torch.random.fork_rng(), quiet():  # the first values of A are random
        torch.manual_seed(seed)
        return get_peft_model(model, config)


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


def inner(model: Any) -> Any:
    """Return the model below an adapter; a model without one is returned as it is."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the libraries warn of and the learner cannot change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


# Saving


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
        if (reason := disk_full(why)) is None:
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
        model.save_pretrained(str(new))
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
    with quiet():
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    return adapted.eval(), AutoTokenizer.from_pretrained(folder)


def merge(model: "PeftModel") -> "PreTrainedModel":
    """Add the adapter to the weights, and return the model without it.

    It answers the same, as fast as the plain model. Raises ValueError for a quantized
    model: the sum would be rounded to 4 bits again.
    """
    if getattr(inner(model), "is_quantized", False):
        raise ValueError(
            "the weights of this model are quantized, and the sum with the adapter "
            "would be rounded again. Save the adapter, load it on whole weights, and "
            'merge that: merge(load_adapter(folder, precision="bf16")[0]).'
        )
    return model.merge_and_unload()


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
    written: Any = copy.deepcopy(model) if wide else model
    if wide:
        written = written.to(torch.bfloat16)
    transformers_logging.disable_progress_bar()
    with _whole(folder) as new:
        written.save_pretrained(new)
        tokenizer.save_pretrained(new)
    transformers_logging.enable_progress_bar()
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def disk_full(error: BaseException) -> str | None:
    """Return what an error says when it is, or hides, that the disk is full."""
    text = str(error)
    codes = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
    full = isinstance(error, OSError) and error.errno in codes
    # safetensors and torch wrap it in errors of their own
    hidden = re.search(
        r"No space left|os error 28|file write failed|unexpected pos", text
    )
    return text.strip().splitlines()[0][:160] if full or hidden else None
