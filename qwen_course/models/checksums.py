"""SHA-256 of a model's files: an altered file is found before it is used."""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path) -> None:
    """Write `SHA256SUMS` (the format of the tool sha256sum) for a folder's files."""
    files = sorted(path for path in folder.iterdir() if path.name != NAME)
    lines = [f"{digest(path)}  {path.name}\n" for path in files if path.is_file()]
    (folder / NAME).write_text("".join(lines), encoding="utf-8", newline="\n")


def verify(folder: Path) -> list[str]:
    """Return what is wrong with a folder's files, one sentence a file.

    An empty list means that every listed file is there and unchanged.
    """
    listing = folder / NAME
    if not listing.exists():
        return [f"{NAME} is missing."]
    problems = []
    for line in listing.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.exists():
            problems.append(f"{name} is missing.")
        elif digest(path) != expected:
            problems.append(f"{name} is not the file that was published.")
    return problems
