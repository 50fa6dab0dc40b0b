"""Transformers itself, with the face of the other platforms: what they are held to."""

from collections.abc import Sequence
from pathlib import Path

from qwen_course import inference
from qwen_course.chat import left_pad
from qwen_course.inference import Written
from qwen_course.loading import load
from qwen_course.platforms import common


def why_not() -> str | None:
    """Return None: the course needs Transformers for all else."""
    return None


class Runner(common.Runner):
    """A model in Transformers. `threads` None takes all cores.

    Raises as `qc.load`.

    Example:
        Runner("pocket-qwen3").write(ids, 64).ids
    """

    def __init__(
        self,
        model: str | Path = "pocket-qwen3",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.model, self.tokenizer = load(str(model), precision)

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write as `inference.write` does."""
        return inference.write(self.model, ids, max_new_tokens, stop=stop)

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer all prompts in one batch, padded on the left."""
        ends = inference.end_ids(self.model)
        ids, mask = left_pad(rows, self.tokenizer.pad_token_id)
        device, width = self.model.device, ids.shape[1]
        out = self.model.generate(  # type: ignore[operator]
            input_ids=ids.to(device), attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens, do_sample=False,
        )  # fmt: skip
        return [_until(row[width:].tolist(), ends) for row in out]


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """Cut what a batch wrote behind the end token."""
    place = next((n for n, token in enumerate(ids) if token in ends), len(ids))
    return ids[: place + 1]
