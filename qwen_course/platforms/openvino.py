"""OpenVINO GenAI: Intel's runtime, for its CPUs, built-in GPUs and NPUs.

It reads its own form, the IR: a graph (`openvino_model.xml`), the weights
(`openvino_model.bin`) and the tokenizer as two more graphs. It can make the IR from a
GGUF file itself, so neither torch nor a converter is needed to write it here.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.engines import source_folder
from qwen_course.errors import suggest
from qwen_course.inference import Written
from qwen_course.platforms import common, gguf_files

if TYPE_CHECKING:
    import openvino

PACKAGES = {"openvino_genai": "openvino-genai", "openvino": "openvino"}
PRECISIONS = ("f16", "q8_0", "q4_0")
IR = "openvino_model.xml"
# Left alone it computes in bf16 where the CPU has it and keeps the KV cache in 8 bits:
# then answers are not those of the weights, and 2026.4.1 with AMX, one thread and f16
# weights ended the whole process (SIGFPE).
ACCURATE = {"EXECUTION_MODE_HINT": "ACCURACY"}


def why_not() -> str | None:
    """Return why the platform cannot be used here, what to type; None if it can."""
    packages = {**PACKAGES, **gguf_files.PACKAGES}
    return common.why_missing("OpenVINO GenAI", packages, "openvino")


def export(
    model: str | Path, precision: str = "f16", folder: str | Path | None = None
) -> Path:
    """Write a model as an OpenVINO IR with its tokenizer, once, and return the folder.

    The model is first written as GGUF (`gguf_files.export`), which OpenVINO GenAI then
    reads and saves. `precision` is one of `PRECISIONS`, those of GGUF that its reader
    knows: f32 and bf16 it refuses. Without `folder` the IR goes to the course's cache
    folder, and is written again only when something changed.

    Raises ImportError when its packages are missing, ValueError for an unknown
    precision and a model that GGUF or OpenVINO's reader does not know.

    Example:
        export("pocket-qwen3", "q8_0")
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(PRECISIONS)}, which '
            f"OpenVINO GenAI reads.{suggest(str(precision), PRECISIONS)}"
        )
    common.need(why_not())
    source = source_folder(model)
    target = (
        Path(folder)
        if folder
        else common.cached(source, "openvino", precision, package="openvino-genai")
    )
    if not (target / IR).is_file():
        _convert(source, precision, target)
    return target


def _convert(source: Path, precision: str, target: Path) -> None:
    """Let the runtime save what it read, and lay the model's settings beside it."""
    genai = _runtime()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        path = gguf_files.export(source, precision, folder=Path(place) / "model")
        try:
            genai.LLMPipeline(str(path), "CPU", enable_save_ov_model=True)
        except (RuntimeError, IndexError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"OpenVINO GenAI cannot read {source.name} as GGUF in {precision}: "
                f"{reason}. It reads dense Qwen2 and Qwen3."
            ) from error
        path.unlink()
        for name in ("config.json", "generation_config.json"):
            if (source / name).is_file():
                shutil.copy(source / name, path.parent)
        if target.exists():
            shutil.rmtree(target)
        path.parent.rename(target)


def _runtime() -> Any:
    """Import the runtime without its telemetry.

    subtle: importing it tells the vendor so, with an id kept at home, unless `CI` is
    "true" or you typed `opt_in_out --opt_out`. Where the package that does it cannot be
    imported, the vendor's own stub takes its place.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino_genai

    return openvino_genai


def bytes_on_disk(folder: str | Path) -> int:
    """Return the bytes of an exported model's weights."""
    return (Path(folder) / IR).with_suffix(".bin").stat().st_size


class Runner(common.Runner):
    """An IR's folder or a GGUF file, ready to write; `threads` None lets it choose.

    It computes in fp32 on what the weights say. Raises ImportError when its packages
    are missing, OSError for a path that is neither form.

    Example:
        with Runner(export("pocket-qwen3")) as runner:
            runner.write(ids, max_new_tokens=64).ids
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        common.need(why_not())
        path = Path(path)
        known = (path / IR).is_file() or (path.suffix == ".gguf" and path.is_file())
        if not known:
            raise OSError(
                f"{path} is neither an OpenVINO folder nor a GGUF file. Write one: "
                'openvino.export("pocket-qwen3").'
            )
        genai = self._genai = _runtime()
        settings: dict[str, Any] = dict(ACCURATE)
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._pipeline: Any = genai.LLMPipeline(str(path), "CPU", **settings)
        own = self._pipeline.get_generation_config()
        self.ends = {own.eos_token_id, *own.stop_token_ids} - {-1}

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write greedily after a prompt of token ids."""
        started = time.perf_counter()
        clock = _clock(self._genai)
        found = self._generate(_tensor([ids]), max_new_tokens, stop, clock)
        moments = [moment - started for moment in clock.moments]
        return Written(list(found[0]), tuple(moments))

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer several prompts together: inside it batches continuously."""
        width = max(map(len, rows))
        ids = [[0] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        inputs = self._genai.TokenizedInputs(_tensor(ids), _tensor(mask))
        return [list(found) for found in self._generate(inputs, max_new_tokens)]

    def _generate(
        self, inputs: Any, limit: int, stop: bool = True, streamer: Any = None
    ) -> list[list[int]]:
        if self._pipeline is None:
            raise ValueError("the runner is closed. Make another one: Runner(folder).")
        settings = self._genai.GenerationConfig()  # a new one samples nothing
        settings.max_new_tokens, settings.ignore_eos = limit, not stop
        settings.stop_token_ids = self.ends
        return self._pipeline(inputs, settings, streamer).tokens

    def close(self) -> None:
        """Let the model go, and its memory."""
        self._pipeline = None


def _tensor(rows: Sequence[Sequence[int]]) -> "openvino.Tensor":
    import numpy
    import openvino

    return openvino.Tensor(numpy.array(rows, dtype=numpy.int64))


def _clock(genai: Any) -> Any:
    """Return a listener that notes when each token came: one or several at a time."""

    class Clock(genai.StreamerBase):
        def __init__(self) -> None:
            super().__init__()
            self.moments: list[float] = []

        def write(self, token: int | list[int]) -> Any:
            several = len(token) if isinstance(token, list) else 1
            self.moments += [time.perf_counter()] * several
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    return Clock()
