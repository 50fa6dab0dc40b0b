"""Load model files that are data, and nothing but data."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAFE_FILES = (
    *("*.safetensors", "*.json", "*.jinja", "*.txt", "*.md"),
    *("LICENSE*", "NOTICE*", "SHA256SUMS", ".gitattributes"),
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def load_safely(
    name: str, revision: str | None = None, **options: Any
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a model as `qc.load` does, if its files are nothing but data.

    A checkpoint on the Hub needs a `revision`: the 40 digits of a commit, so that
    nobody can change the files after you looked at them. Of its files only those of
    SAFE_FILES are fetched, and no code in them is run.

    Raises ValueError for a revision that can move, and for files that are programs;
    else as `qc.load`.
    """
    from qwen_course.loading import load, locate

    source, bundled = locate(name)
    if not bundled:
        source = source if Path(source).is_dir() else _pinned(source, revision)
        if found := unsafe_files(source):
            raise ValueError(
                f"{name} is not loaded: {' '.join(found)} Take a checkpoint of "
                "safetensors and JSON, from somebody you trust."
            )
    return load(name if bundled else source, **options)


def unsafe_files(folder: str | Path) -> list[str]:
    """Return what in a model's folder could run code when loaded, a sentence each.

    An allow-list: what is not known to be data counts as a program.
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    found = [
        f"{path.relative_to(root)} may run code."
        for path in files
        if not any(path.match(pattern) for pattern in SAFE_FILES)
    ]
    for path in files:
        if path.suffix == ".json":
            found += _faults(path)
        elif path.suffix == ".safetensors" and not _is_safetensors(path):
            found.append(f"{path.name} is no file of safetensors.")
    if not any(path.suffix == ".safetensors" for path in files):
        found.append("It has no weights in safetensors.")
    return found


def _is_safetensors(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return True
    except SafetensorError:
        return False


def _faults(path: Path) -> list[str]:
    """Return what a JSON file asks for that it must not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return [f"{path.name} is no JSON."]
    if not isinstance(content, dict):
        return []
    found = []
    if "auto_map" in content:
        found.append(f"{path.name} names code to run (auto_map).")
    shards = content.get("weight_map", {})
    names = shards.values() if isinstance(shards, dict) else [shards]
    if any(Path(str(name)).name != name for name in names):
        found.append(f"{path.name} points outside of the folder.")
    return found


def _pinned(name: str, revision: str | None) -> str:
    """Return the folder of a Hub checkpoint at a commit, fetched if need be."""
    if not _COMMIT.fullmatch(revision or ""):
        raise ValueError(
            f"revision {revision!r} can move: its files may be others tomorrow. Give "
            "the 40 digits of a commit; the model's page on the Hub lists them under "
            '"Files and versions".'
        )
    from huggingface_hub import snapshot_download

    return snapshot_download(name, revision=revision, allow_patterns=list(SAFE_FILES))
