"""The bootstrap cell in a simulated Colab: it adds what is missing, and nothing else.

Colab is a Python of its own that has all of this one's packages but the course and
bitsandbytes (Colab has none), a stand-in for `google.colab`, and numpy in the kernel
before the first cell. The course comes from a git repository on the disk, bitsandbytes
from a wheel that holds nothing: no network is needed.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from qwen_course import notebooks

ROOT = Path(__file__).resolve().parent.parent
MISSING = "bitsandbytes"
ADDRESS = f"https://github.com/{notebooks.REPOSITORY}"
SOURCES = (".gitattributes", ".gitignore", "LICENSE", "README.md", "pyproject.toml",
           "qwen_course")  # fmt: skip

STATE = """
import importlib.metadata, json, sys
versions = {one.name: one.version for one in importlib.metadata.distributions()}
json.dumps([versions, id(sys.modules["numpy"]), sys.modules["numpy"].__file__])
"""
ANSWER = """
from qwen_course import architecture

def count_parameters(config):
    return architecture.count(config).total
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("git"),
    reason="needs git, and links to files, which Windows allows administrators only",
)


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
        ["add", "--all"],
        [*author, "commit", "--quiet", "--message", "The package"],
        ["tag", notebooks.TAG],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def wheel(folder: Path, name: str) -> Path:
    """Write a wheel that claims to be the installed version of a package."""
    folder.mkdir()
    version = importlib.metadata.version(name)
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", about)
        file.writestr(f"{info}/WHEEL", kind)
        file.writestr(f"{info}/RECORD", "")
    return folder


def colab_packages(folder: Path) -> Path:
    """Fill a folder with links to this Python's packages, and with google.colab."""
    folder.mkdir()
    absent = ("__editable__", "__pycache__", "qwen_course", MISSING)
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if not entry.name.startswith(absent) and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    stand_in = folder / "google" / "colab" / "__init__.py"
    stand_in.parent.mkdir(parents=True, exist_ok=True)
    stand_in.write_text("")
    return folder


def colab_python(folder: Path, packages: Path) -> str:
    """Make a Python that has the packages, but can't change them."""
    venv.create(folder, with_pip=False)
    places = {"base": str(folder), "platbase": str(folder)}
    site = sysconfig.get_path("purelib", scheme="venv", vars=places)
    Path(site, "colab.pth").write_text(str(packages))
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The simulated Colab: its folder, its Python and the variables it runs with."""
    folder = tmp_path_factory.mktemp("colab")
    python = colab_python(folder / "python", colab_packages(folder / "packages"))
    startup = folder / "ipython" / "profile_default" / "startup" / "00-colab.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import google.colab, numpy")
    source = repository(folder / "repository").as_uri()
    kept = ("LANG", "OMP_NUM_THREADS", "PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        # Takes the place of the address, so that the cell stays as lessons have it.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{source}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(wheel(folder / "wheels", MISSING)),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's word for: without isolation
        "PIP_NO_INDEX": "1",
        "PIP_REPORT": str(folder / "report.json"),
        "QWEN_COURSE_PROGRESS": str(folder / "progress.json"),
    }
    return folder, python, environment


def run(colab, cells):
    """Run cells in Colab's kernel, in a folder that holds nothing else."""
    folder, python, environment = colab
    place = folder / "content"
    place.mkdir(exist_ok=True)
    kernel = notebooks.this_interpreter()
    kernel.kernel_spec.argv[0] = python
    notebook = new_notebook(cells=cells)
    client = NotebookClient(
        notebook, km=kernel, timeout=240, resources={"metadata": {"path": str(place)}}
    )
    client.owns_km = True
    client.execute(env=environment)
    return notebook


@pytest.fixture(scope="module")
def session(colab):
    """A learner opens an exercise in Colab, under another name, and answers it."""
    exercise = notebooks.read(ROOT / "exercises" / "01_family.ipynb")
    cells = [cell for cell in exercise.cells if cell.cell_type == "code"]
    assert cells[0].source == notebooks.BOOTSTRAP
    assert ADDRESS in cells[0].source
    added = [ANSWER, 'qc.check("01.q1", count_parameters)', 'qc.hint("01.q1")']
    return run(
        colab,
        [
            new_code_cell(STATE, id="before"),
            *cells,
            *(new_code_cell(source) for source in added),
            new_code_cell(STATE, id="after"),
        ],
    )


def text_of(cell) -> str:
    """Return all that a cell printed and showed, as text."""
    texts = [one.get("text", "") for one in cell.outputs]
    texts += [one.get("data", {}).get("text/plain", "") for one in cell.outputs]
    return "\n".join(texts)


def state(session, name: str):
    (cell,) = (cell for cell in session.cells if cell.id == name)
    return json.loads(text_of(cell).strip().strip("'"))


def test_only_what_is_missing_is_installed(session, colab):
    report = json.loads((colab[0] / "report.json").read_text(encoding="utf-8"))
    names = sorted(one["metadata"]["name"] for one in report["install"])
    assert names == [MISSING, "qwen-course"]


def test_what_colab_has_stays_as_it_was(session):
    before, after = state(session, "before")[0], state(session, "after")[0]
    assert set(after) - set(before) == {MISSING, "qwen-course"}
    assert {name: after[name] for name in before} == before
    assert before["numpy"] == importlib.metadata.version("numpy")


def test_numpy_is_the_one_that_was_imported_before(session):
    assert state(session, "before")[1:] == state(session, "after")[1:]


def test_the_bootstrap_cell_ends_with_what_the_lesson_runs_on(session):
    (cell,) = (cell for cell in session.cells if cell.id == "bootstrap")
    assert "model: pocket-qwen3 (a pocket model" in text_of(cell)


def test_every_check_of_the_exercise_says_to_do(session):
    checks = [cell for cell in session.cells if cell.id.endswith("-check")]
    assert len(checks) >= 4
    assert all("to do" in text_of(cell) for cell in checks)


def test_an_answer_in_colab_is_checked_and_a_hint_is_given(session):
    check, hint = session.cells[-3], session.cells[-2]
    assert "01.q1" in text_of(check)
    assert "right" in text_of(check)
    assert "Hint 1" in text_of(hint)
