"""What a benchmark reads off: bytes of a model, peaks of memory, the machine's name."""

import gc
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import memory
from qwen_course.doctor import ram_gb

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PAGE_OUT = 21  # MADV_PAGEOUT of Linux


# Of a model


def storage_bytes(model: "torch.nn.Module") -> int:
    """Return the bytes of every tensor a model holds, scales included, each once.

    transformers' `get_memory_footprint` counts a tensor as shape times type, which is
    wrong for tensors that carry packed weights and scales inside.
    """
    sizes = {}
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _tensors(model: "torch.nn.Module") -> Iterator["torch.Tensor"]:
    for tensor in [*model.parameters(), *model.buffers()]:
        yield from plain_tensors(tensor)


def plain_tensors(tensor: Any) -> Iterator["torch.Tensor"]:
    """Yield the plain tensors that a weight consists of."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao, quanto
        for name in tensor.__tensor_flatten__()[0]:
            yield from plain_tensors(getattr(tensor, name))
        return
    yield tensor
    if getattr(tensor, "SCB", None) is not None:  # bitsandbytes, 8 bits: row scales
        yield tensor.SCB
    state = getattr(tensor, "quant_state", None)  # bitsandbytes, 4 bits
    while state is not None:
        yield from (part for part in (state.absmax, state.code) if part is not None)
        state = getattr(state, "state2", None)


def cache_bytes(cache: Any) -> int:
    """Return the bytes of every tensor that a KV cache keeps between two steps.

    `cache` is one of transformers, or a dictionary of tensors as lesson 06 builds it.
    """
    kept = cache if isinstance(cache, dict) else [vars(one) for one in cache.layers]
    return sum(tensor.nbytes for tensor in _tensors_in(kept))


def _tensors_in(thing: Any) -> Iterator["torch.Tensor"]:
    import torch

    if isinstance(thing, torch.Tensor):
        yield from plain_tensors(thing)
    elif isinstance(thing, dict | list | tuple):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from _tensors_in(part)


def step_bytes(model: "PreTrainedModel", context: int = 0, batch: int = 1) -> int:
    """Return what one step of decoding must read: weights, and `context` cached tokens.

    Of the input table a step needs one row. A table that is also the output layer is
    read in full. Of a mixture's experts it counts those one token visits.
    """
    config: Any = model.config.get_text_config()
    weights = storage_bytes(model)
    table: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    if head is None or table.weight.data_ptr() != head.weight.data_ptr():
        weights -= table.weight.nbytes
    if visited := getattr(config, "num_experts_per_tok", None):
        idle = 1 - visited / config.num_experts
        experts = [p for n, p in model.named_parameters() if ".experts." in n]
        weights -= round(idle * sum(parameter.nbytes for parameter in experts))
    size = memory.dimensions(model.config)
    cache = memory.kv_cache_bytes(size, context, model.dtype.itemsize) if context else 0
    return weights + batch * cache


# Of the process and the device


def process_bytes() -> int:
    """Return the memory that this process holds now, in bytes."""
    import psutil

    return psutil.Process().memory_info().rss


def process_peak() -> int:
    """Return the most memory this process held, in bytes, since `reset_peaks`.

    Only Linux can reset it; elsewhere it is the peak since the process began.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        return int(found[1]) * 1024 if found else process_bytes()
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def device_peak() -> int | None:
    """Return the most bytes that tensors took on the GPU, or None without CUDA."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def reset_peaks() -> None:
    """Let both peaks begin again from what is held now."""
    import torch

    gc.collect()
    _give_back_free_memory()
    peak = Path("/proc/self/clear_refs")
    if peak.exists() and os.access(peak, os.W_OK):
        peak.write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _give_back_free_memory() -> None:
    """Ask the C library to return freed memory: it keeps blocks for the next tensor."""
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:  # glibc has it, musl has not
            trim(0)


def leave_weight_files() -> None:
    """Take the pages of weight files out of this process; those in use come back.

    Loading reads a checkpoint through a map of its file (Linux counts such pages as
    held). What was quantized or converted since needs its pages no more.
    """
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return
    import ctypes

    advise = ctypes.CDLL(None).madvise
    for line in maps.read_text(encoding="utf-8").splitlines():
        if line.endswith(".safetensors"):
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            advise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), PAGE_OUT)


# The machine


def machine() -> dict[str, Any]:
    """Name the machine: processor, cores, memory, GPU, and the versions in use."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(ram_gb()[1]),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch").partition("+")[0],
        "transformers": version("transformers"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def in_words(machine: dict[str, Any]) -> str:
    """Write a machine as one line.

    >>> in_words({"processor": "AMD EPYC", "cores": 2, "memory_gb": 24, "gpu": None})
    'AMD EPYC, 2 cores, 24 GB'
    """
    if not machine:
        return "machine unknown"
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    known = [f"{key} {machine[key]}" for key in ("torch", "transformers")
             if key in machine]  # fmt: skip
    words = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    )
    return ", ".join([words + gpu, *known])
