"""MLX: Apple's library for its own chips, and mlx-lm, the language models on it.

On a Mac it computes on the GPU, in memory that CPU and GPU share. On Linux there is a
build for the CPU: slower than the others, but the same code runs. It reads checkpoint
folders as they are.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen_course.engines import source_folder
from qwen_course.errors import suggest
from qwen_course.inference import Written
from qwen_course.platforms import common

PACKAGES = {"mlx": "mlx[cpu]", "mlx_lm": "mlx-lm"}
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def why_not() -> str | None:
    """Return why the platform cannot be used here, what to type; None if it can."""
    return common.why_missing("MLX", PACKAGES, "mlx")


class Runner(common.Runner):
    """A checkpoint's folder, a pocket model or a Hub id, ready to write.

    `precision` is what it computes in. Raises ImportError when the packages are
    missing, ValueError for an unknown precision, OSError for files that are not there.

    Example:
        with Runner("pocket-qwen3") as runner:
            runner.write(ids, max_new_tokens=64).ids
    """

    def __init__(self, model: str | Path, precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f'precision "{precision}" is not one of {", ".join(PRECISIONS)}.'
                f"{suggest(str(precision), tuple(PRECISIONS))}"
            )
        common.need(why_not())
        import mlx.core
        import mlx_lm

        found = mlx_lm.load(str(source_folder(model)))
        self._model: Any = found[0]
        self._tokenizer: Any = found[1]
        self._model.set_dtype(getattr(mlx.core, PRECISIONS[precision]))
        self.ends = set(self._tokenizer.eos_token_ids)

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write greedily after a prompt of token ids."""
        import mlx.core
        from mlx_lm.generate import generate_step

        self._check_open()
        started, new, moments = time.perf_counter(), list[int](), list[float]()
        prompt = mlx.core.array(list(ids))
        for token, _ in generate_step(prompt, self._model, max_tokens=max_new_tokens):
            new.append(int(token))
            moments.append(time.perf_counter() - started)
            if stop and new[-1] in self.ends:
                break
        return Written(new, tuple(moments))

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer several prompts together: a row that has ended leaves the batch."""
        from mlx_lm.generate import BatchGenerator

        self._check_open()
        batch = BatchGenerator(self._model, stop_tokens=[[end] for end in self.ends])
        places = batch.insert([list(row) for row in rows], [max_new_tokens] * len(rows))
        outputs: dict[int, list[int]] = {place: [] for place in places}
        while found := batch.next_generated():
            for one in found:
                outputs[one.uid].append(int(one.token))
        batch.close()
        return [outputs[place] for place in places]

    def _check_open(self) -> None:
        if self._model is None:
            raise ValueError("the runner is closed. Make another one: Runner(model).")

    def close(self) -> None:
        """Let the model go, and its memory."""
        self._model = None
