"""A bundle as a folder of files: what is finished in it, and what is damaged."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_course.models.checksums import NAME as SUMS
from qwen_course.models.checksums import digest

ABOUT, START = "bundle.json", "START.html"
# Its folders. In "python" you may put installers of Python; HUB is a Hub cache.
COURSE, WHEELS, HUB, PYTHON, PART = "course", "wheels", "hub", "python", "part"
AGAIN = "type the same command again: it goes on where it stopped"


class BundleError(OSError):
    """A bundle was not made, or is not whole; the text says why and what to do."""


@dataclass
class Bundle:
    """A bundle that is being made: its folder, the SHA-256 of its finished files."""

    folder: Path
    about: dict[str, Any]
    sums: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Count a file as finished."""
        self.sums[path] = digest(self.folder / path)

    def under(self, *folders: str) -> list[str]:
        """Return the finished files in a folder of the bundle, or in all of it."""
        start = "".join(f"{folder}/" for folder in folders)
        return [path for path in self.sums if path.startswith(start)]

    def size(self, *folders: str) -> int:
        """Return the bytes of these files."""
        files = [self.folder / path for path in self.under(*folders)]
        return sum(file.stat().st_size for file in files)

    def keep_only(self, folder: str, paths: set[str]) -> None:
        """Remove the finished files of a folder that are not among `paths`."""
        for path in set(self.under(folder)) - paths:
            (self.folder / path).unlink(missing_ok=True)
            del self.sums[path]

    def save(self) -> None:
        """Write what is finished, so that the next run knows it."""
        replace_text(self.folder / ABOUT, json.dumps(self.about, indent=1) + "\n")
        lines = [f"{self.sums[path]}  {path}\n" for path in sorted(self.sums)]
        replace_text(self.folder / SUMS, "".join(lines))


def read_about(folder: Path) -> dict[str, Any]:
    """Return bundle.json of a folder, {} where there is none."""
    file = folder / ABOUT
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a bundle, by its path."""
    file = folder / SUMS
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return {line[66:]: line[:64] for line in lines}


def faults(folder: Path, sums: dict[str, str]) -> list[tuple[str, str]]:
    """Return (path, what is wrong) of each file that is not what SHA256SUMS says."""
    found = []
    for path, right in sums.items():
        if not (folder / path).is_file():
            found.append((path, "is missing"))
        elif digest(folder / path) != right:
            found.append((path, "is damaged"))
    return found


def check(folder: Path) -> list[str]:
    """Return what is wrong with a bundle, a sentence each; [] when it is whole."""
    about = read_about(folder)
    if not about:
        raise ValueError(f"{folder} holds no bundle: {ABOUT} is not there.")
    found = [f"{path} {fault}." for path, fault in faults(folder, read_sums(folder))]
    if not about["complete"]:
        found.insert(0, "It was not finished.")
    return found


def print_check(folder: Path) -> int:
    """Print what is wrong with a bundle; return 0 when nothing is."""
    wrong = check(folder)
    for sentence in wrong:
        print(sentence)
    if wrong:
        print(
            f"{len(wrong)} faults. Copy the bundle again; or, with a network, type the "
            "command that made it: only what is missing or damaged is fetched."
        )
        return 1
    print(f"Every one of its {len(read_sums(folder))} files is whole.")
    return 0


def replace_text(file: Path, text: str) -> None:
    """Write a file in one step, so that a run that is cut off leaves the old one."""
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(text, encoding="utf-8", newline="\n")
    draft.replace(file)


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def disk_full(folder: Path) -> str:
    """Return the sentence for a disk that is full."""
    free = shutil.disk_usage(folder).free / 1e9
    return (
        f"The disk of {folder} is full ({free:.1f} GB free). Make room, or leave out "
        f"extras (--only, see --sizes) or platforms; then {AGAIN}."
    )
