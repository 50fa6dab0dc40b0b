"""A stand-in for Google Colab: a Python that has all but the course, and a git address.

`test_colab.py` uses it with this Python's own packages, at no cost and with no network;
`weekly/test_every_notebook_in_colab.py` with the versions of Colab itself.
"""

import os
import shutil
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat.v4 import new_notebook

from qwen_course import notebooks

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = f"https://github.com/{notebooks.REPOSITORY}"
SOURCES = (".gitattributes", ".gitignore", "LICENSE", "README.md", "pyproject.toml",
           "qwen_course")  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """One Colab: its folder, its Python, and the variables its kernel runs with."""

    folder: Path
    python: str
    environment: dict[str, str]

    @property
    def report(self) -> Path:
        """Where pip writes what it installed."""
        return self.folder / "report.json"

    def run(self, cells: list[Any], timeout: int = 240) -> Any:
        """Run cells in its kernel, in a folder that holds nothing else."""
        place = self.folder / "content"
        place.mkdir(exist_ok=True)
        kernel = notebooks.this_interpreter()
        kernel.kernel_spec.argv[0] = self.python
        notebook = new_notebook(cells=cells)
        resources = {"metadata": {"path": str(place)}}
        client = NotebookClient(
            notebook, km=kernel, timeout=timeout, resources=resources
        )
        client.owns_km = True
        client.execute(env=self.environment)
        return notebook


def repository(folder: Path) -> Path:
    """Put the package as it is now into a git repository with the release's tag."""
    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (
        ["init", "--quiet"],
        # A clone need not be small here: most of the files are weights.
        ["config", "core.compression", "0"],
        ["config", "pack.window", "0"],
        ["add", "--all"],
        [*author, "commit", "--quiet", "--message", "The package"],
        ["tag", notebooks.TAG],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def make_runtime(
    folder: Path,
    packages: Path,
    source: Path,
    more: dict[str, str],
    python: str | None = None,
) -> Runtime:
    """Make a Colab whose Python reads `packages` and never writes there.

    `python` is another one than this; `source` is a `repository`, `more` are variables.
    """
    own = _python_over(folder / "python", packages, python)
    startup = folder / "ipython" / "profile_default" / "startup" / "00-colab.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import google.colab, numpy")
    kept = ("LANG", "OMP_NUM_THREADS", "PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        # Takes the place of the address, so that the cell stays as lessons have it.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{source.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "PIP_REPORT": str(folder / "report.json"),
        "QWEN_COURSE_PROGRESS": str(folder / "progress.json"),
    }
    return Runtime(folder, own, environment | more)


def _python_over(folder: Path, packages: Path, python: str | None) -> str:
    """Make a Python that has the packages, but can't change them, and google.colab."""
    if python:
        words = ["-m", "venv", "--without-pip", str(folder)]
        subprocess.run([python, *words], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
    else:
        venv.create(folder, with_pip=False)
        places = {"base": str(folder), "platbase": str(folder)}
        site = Path(sysconfig.get_path("purelib", scheme="venv", vars=places))
    (site / "colab.pth").write_text(str(packages))
    stand_in = site / "google" / "colab" / "__init__.py"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text("")
    return str(folder / "bin" / "python")


def text_of(cell: Any) -> str:
    """Return all that a cell printed and showed, as text."""
    texts = [one.get("text", "") for one in cell.outputs]
    texts += [one.get("data", {}).get("text/plain", "") for one in cell.outputs]
    return "\n".join(texts)
