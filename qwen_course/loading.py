"""Load a model and its tokenizer: a pocket model, a Hub id or a folder."""

import importlib.util
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import catalog
from qwen_course.errors import suggest
from qwen_course.models import checksums
from qwen_course.processors import load_processor
from qwen_course.settings import DEFAULT_MODEL, is_address, model_name

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = Path(__file__).parent / "models"
BITSANDBYTES = ("int8", "nf4", "nf4-single")
TORCHAO = ("torchao-int8", "torchao-int4")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", *BITSANDBYTES, *TORCHAO)

# bitsandbytes says at each product in 8 bits that it casts to fp16, and on some CPUs
# that an optional kernel is not there: thousands of lines that would hide a real one.
for _name in ("autograd._functions", "backends.cpu.ops"):
    logging.getLogger(f"bitsandbytes.{_name}").setLevel(logging.ERROR)


def bundled_models() -> list[str]:
    """Return the names of the pocket models that come with the course.

    >>> "pocket-qwen3" in bundled_models()
    True
    """
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def load(
    name: str | None = None, precision: str = "auto", device: str | None = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Return `(model, tokenizer)`, ready to generate.

    `name` is a pocket model, a Hub id such as "Qwen/Qwen3-0.6B", a folder, the address
    of a server (see `remote`), or None for the setting `QWEN_COURSE_MODEL`. `precision`
    "auto" means fp32 for a pocket model on a CPU, else bf16 (fp16 on older GPUs);
    "int8", "nf4" and "nf4-single" (scales not quantized themselves) are those of
    bitsandbytes, "torchao-int8" and "torchao-int4" the weight-only methods of torchao.
    `device` None takes a GPU if there is one. A model that sees or hears comes with a
    processor in the tokenizer's place.

    Raises ValueError for an unknown name, precision or device and for a precision this
    machine cannot do; OSError for files that are missing, damaged or not downloaded.

    Example:
        model, tokenizer = load("pocket-qwen3")
        model, tokenizer = load("Qwen/Qwen3-0.6B", precision="nf4")
    """
    name = str(name) if name else model_name()
    if is_address(name):
        from qwen_course.remote import connect

        return connect(name)  # type: ignore[return-value]
    device = choose_device(device)
    source, bundled = locate(name)
    settings = precision_settings(precision, device, bundled)
    if bundled:
        _check_files(name, Path(source))
    elif Path(source).is_dir():
        _check_folder(Path(source))
    return _from_pretrained(name, source, device, settings)


def locate(name: str) -> tuple[str, bool]:
    """Return where the model is (a folder or a Hub id) and whether it is bundled.

    Raises ValueError, with the nearest name, when it is none of these.
    """
    if name in bundled_models():
        return str(BUNDLED / name), True
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser()), False
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return name, False
    known = [*bundled_models(), *(item.id for item in catalog.models())]
    raise ValueError(
        f'model "{name}" is not known. The pocket models are: '
        f"{', '.join(bundled_models())}. A checkpoint on the Hub is written "
        f"owner/name, as in Qwen/Qwen3-0.6B.{suggest(name, known)}"
    )


def cpu_has_bf16() -> bool:
    """Return whether this CPU computes in bf16, by AVX-512 or AMX, as few laptops do.

    Elsewhere bf16 is emulated, and far slower than fp32.
    """
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_device(device: str | None = None) -> str:
    """Return `device` if this machine has it, or the best one it has.

    Raises ValueError for a device that torch does not find here.
    """
    import torch

    have = ["cpu"]
    if torch.cuda.is_available():
        have.insert(0, "cuda")
    elif torch.backends.mps.is_available():
        have.insert(0, "mps")
    if device is None:
        return have[0]
    if device.partition(":")[0] not in have:
        raise ValueError(
            f'device "{device}" is not available here; this machine has '
            f"{', '.join(have)}. Leave device out to take the first."
        )
    return device


def precision_settings(precision: str, device: str, bundled: bool) -> dict[str, Any]:
    """Return the `from_pretrained` arguments of a precision on a device.

    Raises ValueError for an unknown precision and for one this machine cannot do.
    """
    import torch

    if precision not in PRECISIONS:
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(PRECISIONS)}.'
            + suggest(str(precision), PRECISIONS)
        )
    fast = fast_dtype(device)
    compute = torch.float32 if bundled and device == "cpu" else fast
    if precision == "auto":
        return {"dtype": compute}
    if precision in TORCHAO:
        return {"dtype": compute, "quantization_config": _torchao(precision, device)}
    if precision in BITSANDBYTES:
        _check_bitsandbytes(precision, device)
        config = _bitsandbytes(precision, compute)
        return {"dtype": compute, "quantization_config": config}
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return {"dtype": names[precision]}


def why_not(precision: str, device: str | None = None) -> str | None:
    """Return why this machine cannot load at a precision, or None when it can.

    Example:
        why_not("torchao-int4")  ->  'precision "torchao-int4" needs the package ...'
    """
    try:
        precision_settings(precision, choose_device(device), bundled=False)
    except ValueError as error:
        return str(error)
    return None


def fast_dtype(device: str) -> "torch.dtype":
    """Return bf16 where the hardware computes in it, fp16 on older GPUs and on Macs."""
    import torch

    if device == "cpu":
        return torch.bfloat16
    modern = device.startswith("cuda") and torch.cuda.get_device_capability()[0] >= 8
    return torch.bfloat16 if modern else torch.float16


def _check_bitsandbytes(precision: str, device: str) -> None:
    _check_package("bitsandbytes", precision)
    if device == "mps":
        raise ValueError(
            f'precision "{precision}" does not run on a Mac\'s GPU. Add device="cpu", '
            'or use precision="fp16".'
        )


def _check_package(package: str, precision: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f'precision "{precision}" needs the package {package}, which is not '
            f"installed. Type: python -m pip install {package}"
        )


def _bitsandbytes(precision: str, compute: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=precision == "nf4",
        bnb_4bit_compute_dtype=compute,
    )


def _torchao(precision: str, device: str) -> Any:
    _check_package("torchao", precision)
    if precision == "torchao-int4" and not device.startswith("cuda"):
        raise ValueError(
            'precision "torchao-int4" has no fast product on this device: torchao '
            'brings it for NVIDIA GPUs. Use precision="nf4".'
        )
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    if precision == "torchao-int8":
        return TorchAoConfig(Int8WeightOnlyConfig())
    return TorchAoConfig(Int4WeightOnlyConfig(group_size=32))


def _check_files(name: str, folder: Path) -> None:
    """Raise OSError when a file of a pocket model is missing or altered."""
    wrong = checksums.verify(folder)
    if wrong:
        raise OSError(
            f"the files of {name} are damaged: {' '.join(wrong)} Bring them back: "
            f"git checkout -- qwen_course/models/{name}   (or clone the course again)"
        )


def _check_folder(folder: Path) -> None:
    """Raise OSError when a folder lacks a file that every checkpoint has."""
    needed = ("config.json", "tokenizer_config.json", "*.safetensors")
    missing = [pattern for pattern in needed if not any(folder.glob(pattern))]
    if missing:
        raise OSError(
            f"the folder {folder} holds no model that can be loaded: it lacks "
            f"{', '.join(missing)}. Name the folder that save_pretrained wrote, model "
            "and tokenizer together."
        )


def _from_pretrained(name: str, source: str, device: str, settings: dict[str, Any]):
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        multimodal = is_multimodal(source)
        auto = AutoModelForMultimodalLM if multimodal else AutoModelForCausalLM
        tokenizer = _tokenizer(source, multimodal)
        model = auto.from_pretrained(source, device_map=device, **settings)
    except OSError as error:
        raise OSError(_why_not(name, error)) from error
    finally:
        logging.enable_progress_bar()
    return model.eval(), tokenizer


def is_multimodal(source: str) -> bool:
    """Return whether a checkpoint sees or hears and has no class for text alone."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    kind = AutoConfig.from_pretrained(source).model_type
    only_text = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return (
        kind in modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
        and kind not in only_text
    )


def _tokenizer(source: str, multimodal: bool):
    from transformers import AutoTokenizer

    if multimodal:
        return load_processor(source)
    return AutoTokenizer.from_pretrained(source)


def _why_not(name: str, error: OSError) -> str:
    """Explain in one paragraph why the files of `name` could not be read."""
    if Path(name).expanduser().is_dir():
        return f"the folder {name} could not be loaded: {_first_line(error)}"
    known = [item.id for item in catalog.models()]
    unlisted = "" if name in known else suggest(name, known)
    return (
        f"{name} is not on this computer and could not be downloaded.{unlisted} With "
        f"a network, type: qwen-course download {name}   Without one, the pocket model "
        f'works now: qc.load("{DEFAULT_MODEL}"). ({_first_line(error)})'
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160]
