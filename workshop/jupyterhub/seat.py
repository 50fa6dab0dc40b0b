"""A learner's server: the limits first, then JupyterHub's own single-user server.

The hub starts this file for every learner, and it ends up as `jupyterhub-singleuser`.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path

FONTS_VARIABLE = "QWEN_COURSE_FONTS"
WARM = Path(__file__).resolve().with_name("warm.py")
NICENESS = 5  # the hub and its proxy go first


def limit_memory(size: int) -> None:
    """Let no process of this learner hold more than `size` bytes of its own.

    subtle: RLIMIT_DATA counts what a process may write. RLIMIT_AS would count torch's
    libraries and reserved addresses too, some gigabytes that are no memory. A cell
    that asks for more gets a MemoryError, and its kernel lives on.
    """
    import resource  # not on Windows, where there is no JupyterHub either

    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def copy_fonts(made: Path, home: Path) -> None:
    """Give a new home Matplotlib's list of fonts, which takes seconds to make."""
    cache = home / ".cache" / "matplotlib"
    if made.is_dir() and not cache.exists():
        shutil.copytree(made, cache)


def main() -> None:
    """Become the learner's server, or with the path of warm.py the warm kernels."""
    if size := os.environ.get("MEM_LIMIT"):  # JupyterHub sets it, in bytes
        limit_memory(int(size))
    os.nice(NICENESS)
    # subtle: jsonschema imports this one where it is installed, only to check addresses
    # with foreign letters, and it takes two to three seconds of CPU.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    if sys.argv[1:2] == [str(WARM)]:  # the same limits, for the forks of one process
        sys.argv.pop(0)
        runpy.run_path(str(WARM), run_name="__main__")
        return
    if fonts := os.environ.pop(FONTS_VARIABLE, ""):
        copy_fonts(Path(fonts), Path.home())
    runpy.run_module("jupyterhub.singleuser", run_name="__main__")


if __name__ == "__main__":
    main()
