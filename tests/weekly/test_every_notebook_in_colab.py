"""Every notebook in a simulated Colab, in its versions: it runs and replaces nothing.

The packages of `constraints-colab.txt` are installed once, into a folder that is kept;
each notebook gets a Python over them, whose first cell installs the course as Colab
does: with pip and from a git repository, here the working tree. What it adds comes from
the package index, so this tier needs a network; the checkpoints are the Hub's stand-in.

QWEN_COURSE_COLAB_PYTHON names a Python that has Colab's packages already, the course
not; else python3.13, which is Colab's, or this Python gets them.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from nbformat.v4 import new_code_cell
from packaging.utils import canonicalize_name
from simulated_colab import ROOT, make_runtime, repository, text_of

from qwen_course import environment, notebooks
from qwen_course.exercises import rules

PINS = ROOT / "constraints-colab.txt"
# What an extra asks for beyond what Colab has; no other package may change. TRL needs
# datasets 4.7 or newer, which needs the two others.
REPLACED = {
    "engines": {"protobuf"},
    "finetune": {"datasets", "huggingface-hub", "pyarrow"},
    "serve": {"huggingface-hub", "tokenizers", "transformers"},
}
KEPT = (
    *("HF_HOME", "QWEN_COURSE_CACHE", "QWEN_COURSE_TEST", "TOKENIZERS_PARALLELISM"),
    *("PIP_CACHE_DIR", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL"),
    *("PIP_FIND_LINKS", "PIP_INDEX_URL"),
)
VERSIONS = """\
import importlib.metadata, json
found = reversed(list(importlib.metadata.distributions()))  # the first is imported
versions = {one.name: one.version for one in found}
print(json.dumps(versions))"""

pytestmark = [
    pytest.mark.weekly,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(sys.platform == "win32", reason="Colab is Linux"),
]


def in_order() -> list[Path]:
    """Return every notebook: lessons first, and those that take longest last."""
    slow = ("08", "09", "05", "07")

    def place(path: Path) -> tuple[bool, int]:
        number = path.stem[:2]
        rank = slow.index(number) + 1 if number in slow else 0
        return path.parent.name != "notebooks", rank

    return sorted([*notebooks.lessons(), *notebooks.exercises()], key=place)


@pytest.fixture(scope="session")
def packages(request):
    """The Python of a Colab without the course, and the folder of its packages."""
    if named := os.environ.get("QWEN_COURSE_COLAB_PYTHON"):
        return named, _site(named)
    python = shutil.which("python3.13") or sys.executable
    key = hashlib.sha256(PINS.read_bytes() + python.encode()).hexdigest()[:16]
    folder = Path(request.config.cache.mkdir("qwen-course")) / f"colab-{key}"
    made = folder / "bin" / "python"
    with FileLock(folder.with_suffix(".lock")):  # one worker makes it, all use it
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([python, "-m", "venv", str(folder)], check=True)
            words = ["-m", "pip", "install", "--quiet", *_pins()]
            if subprocess.run([str(made), *words], check=False).returncode:
                pytest.fail(
                    "Colab's packages could not be installed; pip's reason is above. "
                    "This tier needs a network and about 6 GB of disk."
                )
            (folder / "complete").touch()
    return str(made), _site(str(made))


def _pins() -> list[str]:
    """Return Colab's packages, torch as the course pins it unless there is a GPU.

    Colab's torch computes with CUDA; on Linux its files take 5 GB.
    """
    pins = environment.read_pins(PINS.read_text(encoding="utf-8"))
    if not shutil.which("nvidia-smi"):
        ours = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        pins["torch"] = environment.read_pins(ours)["torch"]
    return [str(pin) for pin in pins.values()]


def _site(python: str) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    words = [python, "-c", code]
    return Path(subprocess.check_output(words, encoding="utf-8").strip())


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return repository(tmp_path_factory.mktemp("source") / "repository")


@pytest.fixture
def colab(packages, source, tmp_path):
    python, site = packages
    more = {name: os.environ[name] for name in KEPT if name in os.environ}
    return make_runtime(tmp_path / "colab", site, source, more, python)


@pytest.mark.parametrize(
    "path", in_order(), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_notebook_runs_in_colab_and_replaces_nothing(path, colab):
    notebook = notebooks.read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    before = new_code_cell(VERSIONS, id="before")
    after = new_code_cell(VERSIONS, id="after")
    ran = colab.run([before, *cells, after], timeout=1800)
    said = [rules.unexpected(path, cell, cell.outputs) for cell in ran.cells]
    assert not any(said), "\n".join(filter(None, said))
    old, new = (_versions(ran, name) for name in ("before", "after"))
    changed = {name for name in old if new[name] != old[name]}
    extra = notebook.metadata.get("qwen_course", {}).get("extra", "")
    allowed = {name for one in extra.split(",") for name in REPLACED.get(one, ())}
    assert changed <= allowed, {name: (old[name], new[name]) for name in changed}


def _versions(ran, name: str) -> dict[str, str]:
    (cell,) = (cell for cell in ran.cells if cell.get("id") == name)
    found = json.loads(text_of(cell))
    return {canonicalize_name(one): version for one, version in found.items()}
