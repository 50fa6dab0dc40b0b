"""Measure a model on this machine: loading, memory, first token, decoding, its limit.

Loading and memory are measured in a fresh process, because Python keeps what earlier
cells used: `benchmark("pocket-qwen3", "nf4")`. A model that is loaded already is
measured where it is: `benchmark(model)`.
"""

import html
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import architecture, loading, memory
from qwen_course.chat import GREEDY
from qwen_course.datafiles import data_file
from qwen_course.meters import (
    device_peak,
    in_words,
    leave_weight_files,
    machine,
    process_bytes,
    process_peak,
    reset_peaks,
    step_bytes,
    storage_bytes,
)
from qwen_course.settings import model_name
from qwen_course.tables import Row, Table
from qwen_course.vocabulary import cache_folder, qwen3_tokenizer, read_template

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel

FRESH = "import sys; from qwen_course.benchmark import child; child(sys.argv[1])"
RETURN_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": "262144"}  # glibc: of 256 KiB and more
COLOURS = {
    "fp32": "#999999", "bf16": "#0072B2", "fp16": "#56B4E9", "int8": "#E69F00",
    "nf4": "#D55E00", "nf4-single": "#CC79A7",
}  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One model at one precision on one machine; every list holds one number a run.

    `first_token_seconds` is prefill and the first token; `tokens_per_second` is the
    decoding after it, all rows of the batch together; both are empty where only memory
    was measured. `step_bytes` is what one step of decoding must read. Loading is known
    in a fresh process only: `base_bytes` is the process before it, `load_peak_bytes`
    the most that loading and the first use took. A device without an own memory has no
    `device_peak_bytes`.
    """

    model: str
    precision: str
    device: str
    threads: int
    batch: int
    prompt_tokens: int
    new_tokens: int
    weights_bytes: int
    step_bytes: int
    first_token_seconds: tuple[float, ...]
    tokens_per_second: tuple[float, ...]
    process_peak_bytes: int
    device_peak_bytes: int | None = None
    base_bytes: int | None = None
    load_seconds: float | None = None
    load_peak_bytes: int | None = None
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def first_token(self) -> float:
        """The median time to the first token, in seconds."""
        return _median(self.first_token_seconds)

    @property
    def decode(self) -> float:
        """The median speed of decoding, in tokens a second."""
        return _median(self.tokens_per_second)

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that the model took in use, without Python and libraries.

        On a GPU, its tensors there. On a CPU, known in a fresh process only.
        """
        if self.device_peak_bytes is not None:
            return self.device_peak_bytes
        if self.base_bytes is None:
            return None
        return self.process_peak_bytes - self.base_bytes

    @property
    def estimate(self) -> memory.Estimate | None:
        """What `memory.estimate` says for it, or None for what the catalogue lacks."""
        context = self.prompt_tokens + self.new_tokens
        try:
            return memory.estimate(
                self.model, self.precision, context, self.batch, self.prompt_tokens
            )
        except ValueError:
            return None

    def limit(self, bandwidth: float) -> float:
        """Return how many tokens a second the memory allows, at `bandwidth` bytes/s.

        A step of decoding cannot end before everything it needs was read once. This is
        the flat part of the roofline model (Williams et al., 2009).
        """
        return self.batch * bandwidth / self.step_bytes

    def share(self, bandwidth: float) -> float:
        """Return the part of that limit which was reached, from 0 to 1."""
        return self.decode / self.limit(bandwidth)


def _median(numbers: tuple[float, ...]) -> float:
    return statistics.median(numbers) if numbers else math.nan


class Measurements(Table[Measurement]):
    """Measurements as a table and a picture, kept as JSON."""

    columns = ("model", "precision", "weights", "peak", "load", "first token",
               "tokens/s", "slowest to fastest")  # fmt: skip
    noun = "measurements"

    def cells(self, item: Measurement) -> Row:
        """Return the medians, and how far the runs spread."""
        peak, load = item.peak_bytes, item.load_seconds
        speeds = item.tokens_per_second
        return (
            item.model,
            item.precision,
            memory.gib(item.weights_bytes),
            "-" if peak is None else memory.gib(peak),
            "-" if load is None else f"{load:.2f} s",
            f"{item.first_token * 1000:.0f} ms" if speeds else "-",
            f"{item.decode:.1f}" if speeds else "-",
            f"{min(speeds):.1f} to {max(speeds):.1f}" if speeds else "-",
        )

    def __repr__(self) -> str:
        return f"{super().__repr__()}\n{machines(self)}"

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}<p>{html.escape(machines(self))}</p>"

    def save(self, path: str | Path) -> None:
        """Write every number, the machine with it, as JSON."""
        rows = [asdict(item) for item in self]
        Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Measurements":
        """Read what `save` wrote."""
        return cls(map(_restored, json.loads(Path(path).read_text(encoding="utf-8"))))

    def plot(self, bandwidth: float | None = None) -> "Figure":
        """Draw speed with its spread, and memory; with a bandwidth, the limit too."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.5, 1.2 + 0.42 * len(self)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        colours = [COLOURS.get(item.precision, "#009E73") for item in self]
        names = [f"{item.model}, {item.precision}" for item in self]
        rows = range(len(self))
        speeds = [item.decode for item in self]
        lows = [
            item.decode - min(item.tokens_per_second, default=math.nan) for item in self
        ]
        highs = [
            max(item.tokens_per_second, default=math.nan) - item.decode for item in self
        ]
        left.barh(rows, speeds, xerr=[lows, highs], color=colours, ecolor="grey",
                  capsize=3)  # fmt: skip
        if bandwidth:
            limits = [item.limit(bandwidth) for item in self]
            left.plot(limits, rows, "k|", markersize=14, label="limit of the memory")
            left.legend(fontsize=8, loc="lower right")
        sizes = [(item.peak_bytes or item.weights_bytes) / memory.GIB for item in self]
        right.barh(rows, sizes, color=colours)
        left.set_yticks(rows, names)
        left.invert_yaxis()
        left.set(xlabel="decoding (tokens a second)")
        whole = all(item.peak_bytes is not None for item in self)
        right.set(xlabel=f"{'peak memory' if whole else 'weights'} (GiB)")
        if self:
            fastest = max(self, key=lambda item: item.decode)
            smallest = min(self, key=lambda item: item.weights_bytes)
            left.set_title(f"fastest: {fastest.precision}", fontsize=9)
            right.set_title(f"smallest: {smallest.precision}", fontsize=9)
        return figure


class MemoryCheck(Table[Measurement]):
    """Measured peaks beside the estimates of `qc.memory`, and what loading took."""

    columns = ("model", "precision", "tokens", "measured", "estimated", "error",
               "while loading")  # fmt: skip
    noun = "peaks"

    def cells(self, item: Measurement) -> Row:
        """Return the most that was held, what was estimated, and how far it is off."""
        measured, estimated = item.peak_bytes or 0, self.estimated(item)
        return (
            item.model,
            item.precision,
            f"{item.prompt_tokens + item.new_tokens:,}",
            memory.gib(measured),
            memory.gib(estimated),
            f"{estimated / measured - 1:+.1%}",
            "-" if item.load_peak_bytes is None else memory.gib(item.load_peak_bytes),
        )

    def estimated(self, item: Measurement) -> int:
        """Return the estimate of a row in bytes."""
        return item.estimate.total if item.estimate else 0


def against_estimate(rows: Iterable[Measurement]) -> MemoryCheck:
    """Return the rows of `peak` whose model the catalogue knows."""
    return MemoryCheck(
        row
        for row in rows
        if row.peak_bytes and row.estimate and not row.tokens_per_second
    )


def machines(rows: Iterable[Any]) -> str:
    """Return every machine that these rows were measured on, one a line."""
    return "\n".join(dict.fromkeys(in_words(row.machine) for row in rows))


def _restored(row: dict[str, Any]) -> Measurement:
    lists = ("first_token_seconds", "tokens_per_second")
    return Measurement(**{**row, **{name: tuple(row[name]) for name in lists}})


def stored(name: str = "precisions") -> Measurements:
    """Return what the course's authors measured, each row with the machine's name.

    Raises ValueError for a name that is not among the course's data.
    """
    return Measurements.read(data_file(f"measured/{name}.json"))


def benchmark(
    model: "PreTrainedModel | str | Path | None" = None,
    precision: str = "auto",
    prompt_tokens: int = 32,
    new_tokens: int = 32,
    batch: int = 1,
    repeats: int = 5,
    warmup: int = 1,
    threads: int | None = None,
    device: str | None = None,
    name: str | None = None,
) -> Measurement:
    """Generate `new_tokens` after a random prompt, several times, and measure it.

    `model` is a loaded model, or what `qc.load` takes (None: the setting): then a fresh
    process loads it at `precision` on `device` and tells loading and peak memory too.
    `threads` are those of the CPU (None: as they are). `name` is shown in the table.

    Raises ValueError for numbers that are not positive, and for a model or a precision
    that cannot be loaded.

    Example:
        benchmark("pocket-qwen3", "nf4", new_tokens=64).decode
    """
    numbers = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens - 1,
               "batch": batch, "repeats": repeats, "warmup": warmup + 1}  # fmt: skip
    if low := [key for key, value in numbers.items() if value < 1]:
        raise ValueError(
            f"{low[0]} is too low: decoding is measured on 2 new tokens or more, a "
            "prompt of 1 or more, in 1 run or more."
        )
    how = {
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "batch": batch,
        "repeats": repeats,
        "warmup": warmup,
        "threads": threads,
        "name": name,
    }
    if model is None:
        model = model_name()
    if isinstance(model, str | Path):
        return _in_a_fresh_process(str(model), precision, device, how)
    return _measure(model, precision, **how)


def peak(
    model: str | Path,
    precision: str = "auto",
    context: int = 1024,
    device: str | None = None,
    name: str | None = None,
) -> Measurement:
    """Measure the memory that a text of `context` tokens takes, in a fresh process.

    All but four of the tokens are read as a prompt; no time is kept. Loading and the
    first use come before (`load_peak_bytes`). glibc keeps freed blocks and, once they
    lie between others, cannot give them back: here it is told to return large ones at
    once, so that the peak is what tensors took. Raises what `benchmark` raises.

    Example:
        peak("pocket-qwen3", "nf4", context=1000).peak_bytes
    """
    if context < 5:
        raise ValueError(f"context is {context}; give 5 tokens or more.")
    how = {"prompt_tokens": context - 4, "new_tokens": 4, "batch": 1, "repeats": 1,
           "warmup": 0, "threads": None, "name": name}  # fmt: skip
    found = _in_a_fresh_process(str(model), precision, device, how, RETURN_BLOCKS)
    return replace(found, first_token_seconds=(), tokens_per_second=())


def _measure(
    model, precision, prompt_tokens, new_tokens, batch, repeats, warmup, threads, name
) -> Measurement:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        for _ in range(warmup):
            generate(model, prompt_tokens, new_tokens, batch)
        reset_peaks()
        runs = [
            generate(model, prompt_tokens, new_tokens, batch) for _ in range(repeats)
        ]
    finally:
        torch.set_num_threads(before)
    decoded = batch * (new_tokens - 1)
    return Measurement(
        model=name or Path(model.config.name_or_path or "model").name,
        precision=_precision_of(model) if precision == "auto" else precision,
        device=model.device.type,
        threads=threads or before,
        batch=batch,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        weights_bytes=storage_bytes(model),
        step_bytes=step_bytes(model, prompt_tokens + new_tokens // 2, batch),
        first_token_seconds=tuple(times[0] for times in runs),
        tokens_per_second=tuple(decoded / (times[-1] - times[0]) for times in runs),
        process_peak_bytes=process_peak(),
        device_peak_bytes=device_peak(),
        machine=machine(),
    )


def generate(model, prompt_tokens: int, new_tokens: int, batch: int = 1) -> list[float]:
    """Generate from random ids; return when each token was there, in seconds.

    Exactly `new_tokens` are written: an end before that is not allowed.
    """
    import torch

    ids = random_ids(batch, prompt_tokens).to(model.device)
    clock = _clock()
    model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), streamer=clock,
        min_new_tokens=new_tokens, max_new_tokens=new_tokens, pad_token_id=0, **GREEDY,
    )  # fmt: skip
    return [moment - clock.started for moment in clock.moments]


def random_ids(batch: int, tokens: int) -> "torch.Tensor":
    """Return (batch, tokens), the same each time: ids that every vocabulary has."""
    import torch

    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, tokens), generator=source)


def _clock():
    """Return a streamer that notes when each token came."""
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):
        def __init__(self) -> None:
            self.started = time.perf_counter()
            self.moments: list[float] = []
            self.prompt_seen = False

        def put(self, value) -> None:
            if self.prompt_seen:
                self.moments.append(time.perf_counter())
            self.prompt_seen = True

        def end(self) -> None:
            pass

    return Clock()


def _precision_of(model) -> str:
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    dtype = str(model.dtype).removeprefix("torch.")
    config = getattr(model.config, "quantization_config", None)
    return config.quant_method.value if config else short.get(dtype, dtype)


# What is measured beside it: the memory's speed


def memory_bandwidth(
    device: str = "cpu", megabytes: int = 512, repeats: int = 7
) -> float:
    """Return how many bytes a second this machine reads from its memory, at best.

    A tensor too large for any cache is read whole, by a sum and by a product with a
    vector, as decoding does; the fastest reading counts.
    """
    import torch

    matrix = torch.ones(megabytes * 2**18 // 1024, 1024, device=device)
    vector = torch.ones(1024, device=device)
    best = 0.0
    for read in (matrix.sum, lambda: matrix @ vector):
        for _ in range(repeats):
            started = time.perf_counter()
            read()[..., None].cpu()  # the GPU is waited for
            best = max(best, matrix.nbytes / (time.perf_counter() - started))
    return best


# Checkpoints of full size, with random weights


def random_checkpoint(name: str, layers: int | None = None) -> Path:
    """Return a folder with a checkpoint of true shape and random weights in bf16.

    The shape is the catalogue's, `layers` of its layers (None: all). It is written
    once, to the course's cache folder. Memory and speed do not depend on the values;
    any text it writes is noise. Raises ValueError for a checkpoint whose dimensions the
    catalogue does not know, OSError when the disk has no room for it.

    Example:
        benchmark(random_checkpoint("Qwen3-0.6B"), "bf16")
    """
    config = architecture.configuration(name)
    if layers is not None:
        sizes = {**config.to_dict(), "num_hidden_layers": layers, "layer_types": None}
        config = type(config)(**sizes)
    short = name.rpartition("/")[2]
    label = short if layers is None else f"{short}-{layers}-layers"
    target = cache_folder() / "random" / label
    if not target.is_dir():
        _check_room(target, 2 * architecture.build(config).num_parameters())
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            draft = Path(folder) / label
            _write_random(config, draft)
            if not target.is_dir():  # another process may have been faster
                draft.rename(target)
    return target


def _check_room(target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < 1.1 * size:
        raise OSError(
            f"{target.name} needs {size / 1e9:.1f} GB on the disk, and "
            f"{free / 1e9:.1f} GB are free. Make room, or ask for fewer layers: "
            'random_checkpoint("Qwen3-0.6B", layers=4).'
        )


def _write_random(config: Any, folder: Path) -> None:
    import torch
    from transformers.utils import logging

    model = architecture.random_model(config, torch.bfloat16)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # a norm: one, as in a real checkpoint
            parameter.data.fill_(1)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    tokenizer = qwen3_tokenizer()
    tokenizer.chat_template = read_template("qwen3")
    tokenizer.save_pretrained(folder)


# A fresh process: what was loaded before does not count


def _in_a_fresh_process(
    model: str,
    precision: str,
    device: str | None,
    how: dict[str, Any],
    settings: dict[str, str] | None = None,
) -> Measurement:
    request = {"model": model, "precision": precision, "device": device, "how": how}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(request)],
        capture_output=True, text=True, env={**os.environ, **(settings or {})},
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(
            f"the process that measured {model} at {precision} ended with code "
            f"{done.returncode}. Code -9 means: not enough memory. It wrote: "
            f"{done.stderr.strip()[-300:]}"
        ) from None
    if "error" in answer:
        raise ValueError(answer["error"])
    return _restored(answer)


def child(request: str) -> None:
    """Load and measure as a request in JSON says, and print the result as JSON."""
    try:
        print(json.dumps(asdict(_load_and_measure(**json.loads(request)))))
    except (ValueError, ImportError, OSError, NotImplementedError) as error:
        print(json.dumps({"error": f"{error}"}))


def _load_and_measure(model, precision, device, how) -> Measurement:
    from qwen_course import quantization

    quantization.import_libraries(precision)  # their memory is not the model's
    _use_libraries_once()
    reset_peaks()
    base, started = process_bytes(), time.perf_counter()
    loaded = loading.load(model, precision, device)[0]  # without its tokenizer
    seconds = time.perf_counter() - started
    generate(loaded, 8, 2)  # bitsandbytes repacks weights when they are first used
    load_peak = process_peak() - base
    leave_weight_files()
    generate(loaded, 8, 2)  # what is in use comes back
    found = _measure(
        loaded, precision, **{**how, "name": how["name"] or Path(model).name}
    )
    return replace(
        found, base_bytes=base, load_seconds=seconds, load_peak_bytes=load_peak
    )


def _use_libraries_once() -> None:
    """Let torch and transformers take what they take once, whatever the model is."""
    import torch
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=256, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32,
    )  # fmt: skip
    for dtype in (torch.bfloat16, torch.float32):
        generate(architecture.random_model(config, dtype), 8, 3)
