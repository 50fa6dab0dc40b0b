"""ONNX Runtime GenAI: the engine of `qwen_course.engines`, with the face of a platform.

For applications on Windows, Linux, macOS and phones: one form of the weights, and a
runtime for each kind of processor. Olive and Foundry Local build on it.
"""

from collections.abc import Sequence
from pathlib import Path

from qwen_course import engines
from qwen_course.inference import Written
from qwen_course.platforms import common

PRECISIONS = engines.PRECISIONS


def why_not() -> str | None:
    """Return why the platform cannot be used here, what to type; None if it can."""
    packages = {**engines.PACKAGES, "onnxruntime": "onnxruntime"}
    return common.why_missing("ONNX Runtime GenAI", packages, "engines")


def export(
    model: str | Path, precision: str = "fp32", folder: str | Path | None = None
) -> Path:
    """Write a model's ONNX files, once, and return their folder.

    `precision` is one of `PRECISIONS`; "int8" and "int4" keep a scale for each 32
    weights. Raises what `engines.export` raises.

    Example:
        export("pocket-qwen3", "int4")
    """
    common.need(why_not())
    return engines.export(model, precision, folder=folder)


class Runner(common.Runner):
    """An exported folder, ready to write; `threads` None lets the engine choose.

    Raises ImportError when its packages are missing, OSError for a folder that holds no
    exported model.

    Example:
        with Runner(export("pocket-qwen3")) as runner:
            runner.write(ids, max_new_tokens=64).ids
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        common.need(why_not())
        self._engine: engines.Engine | None = engines.Engine(folder, threads)

    @property
    def engine(self) -> engines.Engine:
        """The engine itself. Raises ValueError when the runner is closed."""
        if self._engine is None:
            raise ValueError("the runner is closed. Make another one: Runner(folder).")
        return self._engine

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write greedily after a prompt of token ids."""
        return self.engine.write(ids, max_new_tokens, stop)

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer several prompts in one batch, padded on the left."""
        return self.engine.serve(rows, max_new_tokens).outputs

    def close(self) -> None:
        """Let the model go, and its memory."""
        self._engine = None
