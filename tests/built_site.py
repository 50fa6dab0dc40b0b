"""The site, built once for all tests and all workers."""

import hashlib
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
READ = ("docs", "notebooks", "exercises", "workshop", "training", "qwen_course")
KINDS = {".py", ".md", ".ipynb", ".yaml", ".js", ".css", ".png", ".jinja", ".json"}
TOOLS = ("sphinx", "myst-nb", "sphinx-book-theme", "sphinx-design")


def built_site() -> Path:
    """Return the folder of the built site; AssertionError with what stopped the build.

    It is kept between runs, and built anew, from nothing, when anything that it is made
    from has changed. Only a build without a warning is kept.
    """
    kept = Path(os.environ["QWEN_COURSE_CACHE"]) / "site"
    kept.mkdir(parents=True, exist_ok=True)
    mark = kept / "made-from"
    with FileLock(kept / "lock"):
        key = made_from()
        if not mark.is_file() or mark.read_text() != key:
            mark.unlink(missing_ok=True)
            build(kept / "build")
            mark.write_text(key)
    return kept / "build" / "html"


def made_from() -> str:
    """Return a digest of everything that the site is made from."""
    digest = hashlib.sha256(" ".join(map(version, TOOLS)).encode())
    for folder in READ:
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT)
            if path.suffix in KINDS and "_build" not in inside.parts:
                digest.update(f"{inside.as_posix()}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def build(out: Path) -> None:
    command = [sys.executable, "-m", "docs.build", "--fresh", f"--out={out}"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    assert (out / "html" / "index.html").is_file(), done.stdout
