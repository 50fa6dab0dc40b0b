"""A real engine on the same weights: ONNX Runtime GenAI, a program made to run models.

transformers is made to be read and changed; an engine is made to be fast. It needs the
weights in a form of its own, which `export` writes once. Where its packages are
missing, every function here says how to install them.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.benchmark import Measurement, random_ids
from qwen_course.errors import suggest
from qwen_course.inference import Served, Stay, Written, agreed
from qwen_course.loading import locate
from qwen_course.meters import machine, process_bytes, process_peak, reset_peaks
from qwen_course.tables import Row, Table
from qwen_course.vocabulary import cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGES = {"onnxruntime_genai": "onnxruntime-genai", "onnx_ir": "onnx-ir"}
PRECISIONS = ("fp32", "int8", "int4")
KNOWN = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")  # that the builder and we have tried
CONFIG = "genai_config.json"


def why_not() -> str | None:
    """Return why the engine cannot be used here, and what to type; None if it can."""
    missing = [
        package
        for module, package in PACKAGES.items()
        if importlib.util.find_spec(module) is None
    ]
    if not missing:
        return None
    return (
        f"the engine needs {' and '.join(missing)}, not installed here. "
        f"Type: python -m pip install {' '.join(missing)}"
    )


def _need() -> None:
    if reason := why_not():
        raise ImportError(reason)


# Weights in the engine's form


def export(
    model: str | Path, precision: str = "int4", group: int = 32, folder: Any = None
) -> Path:
    """Write a model in the engine's form, once, and return the folder.

    `model` is a pocket model, a Hub id or a folder; `precision` "fp32", "int8" or
    "int4", the last two with a scale for each `group` weights. Without `folder` it goes
    to the course's cache folder, and is written again only when something changed.

    Raises ImportError when the engine's packages are missing, ValueError for an unknown
    precision and for a model the engine does not know, RuntimeError when its builder
    fails.

    Example:
        export("pocket-qwen3", "int4")
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(PRECISIONS)}, which the '
            f"engine computes with on a CPU.{suggest(str(precision), PRECISIONS)}"
        )
    _need()
    source = source_folder(model)
    _check_architecture(source)
    target = Path(folder) if folder else _cached(source, precision, group)
    if not (target / CONFIG).is_file():
        _build(source, precision, group, target)
    return target


def source_folder(model: str | Path) -> Path:
    """Return the folder with a model's files; a Hub id is downloaded if need be."""
    source, _ = locate(str(model))
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{source} is not on this computer and could not be downloaded. With a "
            f"network, type: qwen-course download {source}"
        ) from error


def _check_architecture(source: Path) -> None:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    found = (config.get("architectures") or ["unknown"])[0]
    if found not in KNOWN:
        raise ValueError(
            f"the engine's builder was not tried with {found}; with {', '.join(KNOWN)} "
            "it works. Mixtures of experts of Qwen3 it does not know."
        )


def _cached(source: Path, precision: str, group: int) -> Path:
    """Name a folder after everything that the exported files depend on."""
    digest = hashlib.sha256()
    for path in sorted([*source.glob("*.safetensors"), *source.glob("*.json")]):
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    digest.update(f"{precision} {group} {version('onnxruntime-genai')}".encode())
    name = f"{source.name[:40]}-{precision}-{digest.hexdigest()[:12]}"
    return cache_folder() / "engines" / name


def _build(source: Path, precision: str, group: int, target: Path) -> None:
    """Run the builder in a process of its own: it prints much and takes much memory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        draft = Path(place) / "model"
        command = [
            *(sys.executable, "-m", "onnxruntime_genai.models.builder"),
            *("-i", str(source), "-o", str(draft), "-p", precision, "-e", "cpu"),
            *("-c", str(Path(place) / "cache")),
        ]
        if precision != "fp32":
            command += ["--extra_options", f"block_size={group}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=place)
        if done.returncode or not (draft / CONFIG).is_file():
            raise RuntimeError(
                f"the engine's builder could not write {source.name} in {precision}; "
                f"it ended with code {done.returncode}: {done.stderr.strip()[-300:]}"
            )
        _greedy_by_default(draft / CONFIG)
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)


def _greedy_by_default(path: Path) -> None:
    """Take the model's sampling out: the engine would sample without being asked to."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["search"] |= {"do_sample": False, "top_k": 1}
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def bytes_on_disk(folder: Path) -> int:
    """Return the bytes of an exported model's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.onnx*"))


def step_bytes(folder: Path) -> int:
    """Return what one step of decoding must read: the weights of all products.

    Tables of which a step needs one row, of tokens or of angles, do not count, unless
    the token table is the output layer too.
    """
    import onnx_ir

    graph = onnx_ir.load(folder / "model.onnx").graph
    rows_only = ("embed_tokens", "cos_cache", "sin_cache")
    return sum(
        one.const_value.nbytes
        for name, one in graph.initializers.items()
        if one.const_value is not None and not any(part in name for part in rows_only)
    )


# Running it


class Engine:
    """An exported model, ready to write. `threads` None lets the engine choose.

    Raises ImportError when the engine's packages are missing, OSError for a folder that
    holds no exported model.

    Example:
        engine = Engine(export("pocket-qwen3"))
        engine.write(ids, max_new_tokens=64).ids
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        _need()
        self.folder = Path(folder)
        if not (self.folder / CONFIG).is_file():
            raise OSError(
                f"the folder {folder} holds no exported model. Write one: "
                'engines.export("pocket-qwen3").'
            )
        # The package ends the whole process when it does not find ONNX Runtime.
        import onnxruntime  # noqa: F401
        import onnxruntime_genai as genai

        genai.disable_telemetry_events()
        config = genai.Config(str(self.folder))
        if threads:
            options = {"session_options": {"intra_op_num_threads": threads}}
            config.overlay(json.dumps({"model": {"decoder": options}}))
        self.threads = threads
        self._genai, self._model = genai, genai.Model(config)
        read = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        ends, self.pad = read["model"]["eos_token_id"], read["model"]["pad_token_id"]
        self.ends = set(ends if isinstance(ends, list) else [ends])
        self.context = read["model"]["context_length"]

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write greedily after a prompt, as `inference.write` does."""
        started = time.perf_counter()
        generator = self._generator(len(ids) + max_new_tokens, 1, stop)
        generator.append_tokens(list(ids))
        new: list[int] = []
        moments: list[float] = []
        while not generator.is_done() and len(new) < max_new_tokens:
            generator.generate_next_token()
            new.append(int(generator.get_next_tokens()[0]))
            moments.append(time.perf_counter() - started)
        return Written(new, tuple(moments))

    def serve(self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64) -> Served:
        """Answer several prompts in one batch, padded on the left."""
        import numpy

        started = time.perf_counter()
        width = max(map(len, rows))
        generator = self._generator(width + max_new_tokens, len(rows), True)
        padded = [[self.pad] * (width - len(row)) + list(row) for row in rows]
        generator.append_tokens(numpy.array(padded, dtype=numpy.int32))
        outputs: list[list[int]] = [[] for _ in rows]
        passes = 0
        while not generator.is_done():
            generator.generate_next_token()
            passes += 1
            for output, token in zip(outputs, generator.get_next_tokens(), strict=True):
                if not output or output[-1] not in self.ends:
                    output.append(int(token))
        stays = [Stay(place, 0, passes) for place in range(len(rows))]
        seconds = time.perf_counter() - started
        return Served(outputs, stays, len(rows), passes, seconds)

    def _generator(self, length: int, rows: int, stop: bool) -> Any:
        params = self._genai.GeneratorParams(self._model)
        length = min(length, self.context)
        least = 0 if stop else length
        params.set_search_options(
            do_sample=False, max_length=length, min_length=least, batch_size=rows
        )
        return self._genai.Generator(self._model, params)


# Comparing and measuring


@dataclass(frozen=True)
class Pair:
    """What two ways wrote after the same prompt."""

    plain: list[int]
    other: list[int]

    @property
    def same(self) -> int:
        """How many tokens at the beginning are the same."""
        return agreed(self.plain, self.other)

    @property
    def equal(self) -> bool:
        """Whether all of it is the same."""
        return self.plain == self.other


class Pairs(Table[Pair]):
    """Answers of two ways side by side, token by token."""

    columns = ("request", "tokens", "the same", "first difference")
    noun = "requests compared"

    def __init__(
        self, pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase | None" = None
    ) -> None:
        super().__init__(pairs)
        self.tokenizer = tokenizer

    def cells(self, item: Pair) -> Row:
        """Return the number, the lengths, and what stands where they part."""
        number = next(n for n, one in enumerate(self) if one is item)
        parted = "-"
        if not item.equal:
            a, b = (self._token(ids, item.same) for ids in (item.plain, item.other))
            parted = f"{a} against {b}"
        return (f"{number}", f"{len(item.plain)}", f"{item.same}", parted)

    def _token(self, ids: list[int], place: int) -> str:
        if place >= len(ids):
            return "nothing"
        return (
            repr(self.tokenizer.decode(ids[place]))
            if self.tokenizer
            else f"{ids[place]}"
        )

    @property
    def equal(self) -> int:
        """How many answers are the same to the last token."""
        return sum(pair.equal for pair in self)


def compare(
    plain: Sequence[Sequence[int]],
    other: Sequence[Sequence[int]],
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> Pairs:
    """Put the answers of two ways side by side, token by token.

    Raises ValueError when their numbers differ.

    >>> compare([[1, 2, 3]], [[1, 2, 4]])[0].same
    2
    """
    if len(plain) != len(other):
        raise ValueError(
            f"{len(plain)} answers cannot be compared with {len(other)}. "
            "Give the same questions to both."
        )
    both = zip(plain, other, strict=True)
    return Pairs([Pair(list(a), list(b)) for a, b in both], tokenizer)


def measure(
    folder: str | Path,
    name: str | None = None,
    precision: str = "engine",
    prompt_tokens: int = 32,
    new_tokens: int = 32,
    repeats: int = 5,
    warmup: int = 1,
    threads: int | None = None,
) -> Measurement:
    """Measure an exported model as `benchmark` measures one of transformers.

    The same random prompt, no end before `new_tokens`. `name` and `precision` are shown
    in the table. It runs in this process, so that the memory is right once only.

    Example:
        measure(export("pocket-qwen3"), "pocket-qwen3", "int4").decode
    """
    _need()
    import onnxruntime_genai  # noqa: F401  (its own memory is not the model's)

    folder, prompt = Path(folder), random_ids(1, prompt_tokens)[0].tolist()

    reset_peaks()
    base, started = process_bytes(), time.perf_counter()
    engine = Engine(folder, threads)
    seconds, peak = time.perf_counter() - started, process_peak() - base
    runs = [
        engine.write(prompt, new_tokens, stop=False) for _ in range(warmup + repeats)
    ][warmup:]
    return Measurement(
        model=name or folder.name,
        precision=precision,
        device="cpu",
        threads=threads or os.cpu_count() or 1,
        batch=1,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        weights_bytes=bytes_on_disk(folder),
        step_bytes=step_bytes(folder),
        first_token_seconds=tuple(run.time_to_first_token for run in runs),
        tokens_per_second=tuple(run.tokens_per_second for run in runs),
        process_peak_bytes=process_peak(),
        base_bytes=base,
        load_seconds=seconds,
        load_peak_bytes=peak,
        machine={**machine(), "onnxruntime-genai": version("onnxruntime-genai")},
    )
