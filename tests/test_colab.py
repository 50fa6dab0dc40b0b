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
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell
from simulated_colab import ADDRESS, ROOT, make_runtime, repository, text_of

from qwen_course import notebooks

MISSING = "bitsandbytes"

STATE = """
import importlib.metadata, json, sys
found = reversed(list(importlib.metadata.distributions()))  # the first is imported
versions = {one.name: one.version for one in found}
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
    """Fill a folder with links to this Python's packages."""
    folder.mkdir()
    absent = ("__editable__", "__pycache__", "qwen_course", MISSING)
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if not entry.name.startswith(absent) and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The simulated Colab, with no network."""
    folder = tmp_path_factory.mktemp("colab")
    more = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(wheel(folder / "wheels", MISSING)),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's word for: without isolation
        "PIP_NO_INDEX": "1",
    }
    packages = colab_packages(folder / "packages")
    return make_runtime(folder, packages, repository(folder / "repository"), more)


@pytest.fixture(scope="module")
def session(colab):
    """A learner opens an exercise in Colab, under another name, and answers it."""
    exercise = notebooks.read(ROOT / "exercises" / "01_family.ipynb")
    cells = [cell for cell in exercise.cells if cell.cell_type == "code"]
    assert cells[0].source == notebooks.BOOTSTRAP
    assert ADDRESS in cells[0].source
    added = [ANSWER, 'qc.check("01.q1", count_parameters)', 'qc.hint("01.q1")']
    return colab.run(
        [
            new_code_cell(STATE, id="before"),
            *cells,
            *(new_code_cell(source) for source in added),
            new_code_cell(STATE, id="after"),
        ],
    )


def state(session, name: str):
    (cell,) = (cell for cell in session.cells if cell.id == name)
    return json.loads(text_of(cell).strip().strip("'"))


def test_only_what_is_missing_is_installed(session, colab):
    report = json.loads((colab.report).read_text(encoding="utf-8"))
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


@pytest.mark.parametrize(
    "path",
    [*notebooks.lessons(), *notebooks.numbered(ROOT / "exercises")],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_a_notebook_opens_with_the_button_of_its_own_address_in_colab(path):
    header = notebooks.read(path).cells[0].source
    place = (
        f"{notebooks.REPOSITORY}/blob/{notebooks.TAG}/{path.parent.name}/{path.name}"
    )
    assert f"](https://colab.research.google.com/github/{place})" in header
    assert header.count("colab.research.google.com/github") == 1
