"""Olive: Microsoft's tool that takes a model through a list of passes to a device.

A recipe is data: the model to begin with, the passes, the device. This one begins with
the ONNX files of `onnx.export` and ends with smaller ones that ONNX Runtime GenAI and
Foundry Local run. It needs no data set, no network and no account.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from qwen_course.engines import CONFIG
from qwen_course.errors import suggest
from qwen_course.platforms import common, onnx

PACKAGES = {"olive": "olive-ai", "requests": "requests", "datasets": "datasets"}
BITS = {"int4": 4, "int8": 8}
PRECISIONS = tuple(BITS)
QUIET = {"OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}


def why_not() -> str | None:
    """Return why the platform cannot be used here, what to type; None if it can."""
    return common.why_missing("Olive", PACKAGES, "olive")


def recipe(
    model_folder: str | Path, out: str | Path, bits: int = 4, group: int = 32
) -> dict[str, Any]:
    """Return the recipe: round the weights of an exported folder to `bits`.

    Rounding to nearest needs no data; each `group` weights share a scale.

    >>> recipe("model", "out")["passes"]["round"]["bits"]
    4
    """
    device = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "input_model": {
            "type": "ONNXModel",
            "model_path": str(Path(model_folder) / "model.onnx"),
        },
        "systems": {"here": {"type": "LocalSystem", "accelerators": [device]}},
        "host": "here",
        "target": "here",
        "passes": {
            "round": {
                "type": "OnnxBlockWiseRtnQuantization",
                "bits": bits,
                "block_size": group,
                "save_as_external_data": True,
                "external_data_name": "model.onnx.data",
            },
            # The pass before gives the output a new name; the engine asks for the old.
            "name": {
                "type": "GraphSurgeries",
                "surgeries": [
                    {
                        "surgeon": "RenameOutputs",
                        "old_names": [f"logits_Q{bits}"],
                        "new_names": ["logits"],
                    }
                ],
                "save_as_external_data": True,
                "external_data_name": "model.onnx.data",
            },
        },
        "cache_dir": str(Path(out).parent / "cache"),
        "output_dir": str(out),
    }


def export(
    model: str | Path,
    precision: str = "int4",
    folder: str | Path | None = None,
    python: str | Path | None = None,
) -> Path:
    """Run the recipe on a model, once, and return a folder for `onnx.Runner`.

    `python` is the interpreter that has Olive, which may stand in an environment of its
    own; this one by default. Without `folder` the result goes to the course's cache
    folder, and is written again only when something changed.

    Raises ImportError when packages are missing, ValueError for an unknown precision,
    RuntimeError when Olive fails.

    Example:
        onnx.Runner(export("pocket-qwen3", "int4"))
    """
    if precision not in BITS:
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(BITS)}.'
            f"{suggest(str(precision), PRECISIONS)}"
        )
    if python is None:
        common.need(why_not())
    whole = onnx.export(model, "fp32")
    target = Path(folder) if folder else common.cached(whole, "olive", precision)
    if not (target / CONFIG).is_file():
        _run(whole, BITS[precision], target, str(python or sys.executable))
    return target


def _run(whole: Path, bits: int, target: Path, python: str) -> None:
    """Run Olive in a process of its own, and lay the engine's settings beside it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        draft, path = Path(place) / "model", Path(place) / "recipe.json"
        path.write_text(json.dumps(recipe(whole, draft, bits)), encoding="utf-8")
        done = subprocess.run(
            [python, "-m", "olive", "run", "--config", str(path)],
            capture_output=True,
            text=True,
            cwd=place,
            env={**os.environ, **QUIET},
        )
        if done.returncode or not (draft / "model.onnx").is_file():
            raise RuntimeError(
                f"Olive could not run the recipe; it ended with code {done.returncode}:"
                f" {(done.stderr or done.stdout).strip()[-400:]}"
            )
        for one in whole.iterdir():
            if one.suffix in (".json", ".jinja"):
                shutil.copy(one, draft)
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
