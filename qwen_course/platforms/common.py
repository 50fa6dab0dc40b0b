"""What the platforms share: the face of a runner, folders, what is missing."""

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

from qwen_course.inference import Written
from qwen_course.vocabulary import cache_folder


class Runner:
    """A model on a platform, ready to write greedily. Close it, or use `with`.

    Example:
        with llama_cpp.Runner(folder) as runner:
            runner.write(ids, max_new_tokens=64).ids
    """

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write after a prompt of token ids, as `inference.write` does.

        `stop=False` goes on after the end token, for measuring, where the platform can.
        """
        raise NotImplementedError

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer several prompts the way the platform does it best: token ids a row."""
        return [self.write(row, max_new_tokens).ids for row in rows]

    def close(self) -> None:
        """Give back memory, processes and ports."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def why_missing(what: str, packages: Mapping[str, str], extra: str) -> str | None:
    """Return which packages are missing and what to type; None when all are there.

    `packages` maps the name to import to the name to install.

    >>> why_missing("the engine", {"json": "json"}, "engines") is None
    True
    """
    missing = [
        package
        for module, package in packages.items()
        if importlib.util.find_spec(module) is None
    ]
    if not missing:
        return None
    return (
        f"{what} needs {' and '.join(missing)}, not installed here. "
        f'Type: python -m pip install "qwen-course[{extra}]"'
    )


def need(reason: str | None) -> None:
    """Raise ImportError with the reason, if there is one."""
    if reason:
        raise ImportError(reason)


def cached(source: Path, kind: str, *what: str, package: str | None = None) -> Path:
    """Name a place after everything that an exported model depends on.

    The same files, settings (`what`) and version of `package` give the same place.
    """
    digest = hashlib.sha256()
    for path in sorted([*source.glob("*.safetensors"), *source.glob("*.json")]):
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    for text in (*what, version(package) if package else ""):
        digest.update(f"{text}\n".encode())
    name = "-".join([source.name[:40], *what, digest.hexdigest()[:12]])
    return cache_folder() / kind / name
