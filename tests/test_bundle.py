"""The offline bundle: made once, mended where it is damaged, enough without a network.

Packages are wheels of a few bytes in a folder that pip is told to look into; only
setuptools is the true one, packed again from what is installed here.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub

from qwen_course import bundle, environment
from qwen_course.bundle import commit, folder, targets, wheels
from qwen_course.bundle.folder import BundleError, check
from qwen_course.cli import main
from qwen_course.platforms import hub_sources

ROOT = Path(__file__).resolve().parent.parent
HERE = "{}.{}".format(*sys.version_info)
SETUPTOOLS = importlib.metadata.version("setuptools")
WEIGHTS = "model.safetensors"
Usage = namedtuple("Usage", "total used free")

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "qwen-course"
version = "0.1.0"
dependencies = ["torch>=2.6", "needs-windows; sys_platform == 'win32'"]

[project.optional-dependencies]
lab = ["fake-lab[more]"]
test = ["fake-test"]
{others}

[tool.setuptools.packages.find]
include = ["qwen_course"]
"""
PINS = """\
fake-lab==1.0
fake-more==1.0
fake-source==1.0
fake-test==1.0
needs-windows==1.0 ; sys_platform == "win32"
setuptools=={setuptools}
torch==2.13.0
"""
# What docs/build.py of this course does: it says what it was started with.
SITE = """\
import fake_lab, os, sys
print(fake_lab.__name__, sys.argv[1:], os.environ["HF_HUB_OFFLINE"])
"""


def write_wheel(place, name, version="1.0", needs=(), tag="py3-none-any", files=None):
    """Write a wheel; by default of one empty module."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "Provides-Extra: more\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = files or {f"{module}.py": "", f"{info}/METADATA": metadata}
    files |= {f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: x\nTag: {tag}\n"}
    record = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(place / f"{module}-{version}-{tag}.whl", "w") as made:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            made.writestr(path, content)


def write_source(place):
    """Write a package that is published as source alone, as three of the true ones."""
    home = place / "fake_source-1.0"
    home.mkdir()
    (home / "setup.py").write_text(
        "from setuptools import setup\n"
        "setup(name='fake-source', version='1.0', py_modules=['fake_source'])\n"
    )
    (home / "fake_source.py").write_text("")
    (home / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\n')
    (home / "PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: fake-source\nVersion: 1.0\n"
    )
    shutil.make_archive(str(home), "gztar", place, home.name)
    shutil.rmtree(home)


def pack_setuptools(place):
    """Write the wheel that the installed setuptools came from, without its tests."""
    files = {}
    for path in importlib.metadata.files("setuptools") or []:
        where = path.as_posix()
        if (
            not {"tests", "__pycache__", ".."} & set(path.parts)
            and path.locate().is_file()
        ):
            files[where] = path.read_binary()
    write_wheel(place, "setuptools", SETUPTOOLS, files=files)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The folder that stands for a package index."""
    place = tmp_path_factory.mktemp("index")
    pack_setuptools(place)
    write_source(place)
    write_wheel(place, "torch", "2.13.0+cpu")
    write_wheel(place, "torch", "2.15.0")
    more = ["fake-more; extra == 'more'", "fake-source", "fake-lab[more]"]
    write_wheel(place, "fake-lab", needs=[*more, "never; python_version < '3'"])
    write_wheel(place, "fake-more")
    write_wheel(place, "fake-test")
    write_wheel(place, "needs-windows", tag="cp312-cp312-win_amd64")
    return place


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course in git that has what a set-up reads, and a change that is not in git."""
    root = tmp_path_factory.mktemp("git") / "a course"
    (root / "notebooks").mkdir(parents=True)
    (root / "docs").mkdir()
    shutil.copy(ROOT / "course.py", root)
    empty = [one for one in environment.EXTRAS if one not in ("lab", "test")]
    others = "\n".join(f"{extra} = []" for extra in empty)
    (root / "pyproject.toml").write_text(PYPROJECT.format(others=others))
    (root / "constraints.txt").write_text(PINS.format(setuptools=SETUPTOOLS))
    (root / "notebooks" / "00_start.ipynb").write_text("{}")
    (root / "docs" / "build.py").write_text(SITE)
    (root / "qwen_course").mkdir()
    (root / "qwen_course" / "__init__.py").write_text("")
    git = ["git", "-C", root, "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    (root / "notes.txt").write_text("mine")
    return root


@pytest.fixture
def no_index(monkeypatch, course):
    """pip has no index and no settings; the course is the small one."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(environment, "ROOT", course)
    monkeypatch.setattr(wheels, "is_pure", lambda name: name == "fake-source")


@pytest.fixture(scope="module")
def first(tmp_path_factory, course, index):
    """A whole bundle for this computer's Python, made once."""
    place = tmp_path_factory.mktemp("stick") / "a bundle"
    with pytest.MonkeyPatch.context() as patch:
        no_index.__wrapped__(patch, course)
        assert make(place, index) == 0
    return place


@pytest.fixture
def made(first, no_index, tmp_path):
    """A copy of it, where nothing may be fetched."""
    return Path(shutil.copytree(first, tmp_path / "a bundle"))


@pytest.fixture
def fetched(monkeypatch):
    """The requirements that pip is asked to fetch from now on."""
    asked, pip = [], wheels._pip

    def note(command, *words):
        asked.extend(word for word in words if "==" in word and word[0] != "-")
        return pip(command, *words)

    monkeypatch.setattr(wheels, "_pip", note)
    return asked


def make(place, index, *words):
    command = ["bundle", "--out", str(place), "--find-links", str(index)]
    return main([*command, "--platform", "linux", *words])


def names(place):
    return sorted(path.name.split("-")[0] for path in (place / "wheels").iterdir())


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


# A bundle is made


def test_a_bundle_holds_what_the_course_needs_and_no_more(first, index):
    expected = ["fake_lab", "fake_more", "fake_source", "fake_test", "setuptools"]
    assert names(first) == [*expected, "torch"]
    about = json.loads((first / "bundle.json").read_text())
    assert about["complete"]
    wheel = about["targets"][f"linux-{HERE}"]["torch"]
    assert wheel == "torch-2.13.0+cpu-py3-none-any.whl"
    assert check(first) == []
    assert not (first / "part").exists()


def test_the_course_in_it_is_what_is_committed(first, course):
    assert (first / "course" / "notebooks" / "00_start.ipynb").exists()
    assert not (first / "course" / "notes.txt").exists()
    assert not (first / "course" / ".git").exists()
    head = subprocess.run(
        ["git", "-C", course, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    about = json.loads((first / "bundle.json").read_text())
    assert about["commit"] == head.stdout.strip()


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="sha256sum is not here")
def test_the_system_s_own_tool_can_check_every_file(first):
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=first, capture_output=True, text=True
    )
    assert done.returncode == 0
    listed = {line.rpartition(": ")[0] for line in done.stdout.splitlines()}
    there = {file.relative_to(first).as_posix() for file in folder.files_in(first)}
    assert listed == there - {"SHA256SUMS"}


def test_the_start_page_says_what_to_type_and_needs_no_network(first):
    page = (first / "START.html").read_text(encoding="utf-8")
    assert "python3 course.py --offline" in page
    assert "On Windows:" not in page
    assert f"with Python {HERE}" in page
    assert "6 package files" in page
    assert "not complete" not in page
    assert "http" not in page
    assert "src=" not in page


def test_made_again_nothing_is_fetched(made, index, fetched):
    before = (made / "SHA256SUMS").read_text()
    assert make(made, index) == 0
    assert fetched == []
    assert (made / "SHA256SUMS").read_text() == before


def test_a_damaged_file_is_found_and_only_that_is_fetched_again(
    made, index, fetched, capsys
):
    damage(next((made / "wheels").glob("fake_more-*")))
    (made / "course" / "constraints.txt").unlink()
    assert main(["bundle", "--check", str(made)]) == 1
    said = capsys.readouterr().out
    assert "wheels/fake_more-1.0-py3-none-any.whl is damaged." in said
    assert "course/constraints.txt is missing." in said
    assert "2 faults" in said
    assert make(made, index) == 0
    assert fetched == ["fake-more==1.0"]
    assert main(["bundle", "--check", str(made)]) == 0


def test_a_run_that_is_cut_off_says_so_and_goes_on(
    first, no_index, tmp_path, monkeypatch, fetched
):
    place, source = tmp_path / "bundle", first / "wheels"
    whole = wheels._pip

    def stop(command, *words):
        if "torch==2.13.0" not in words:
            (place / "wheels" / "half-1.0-py3-none-any.whl").write_text("half")
            raise KeyboardInterrupt
        return whole(command, *words)

    monkeypatch.setattr(wheels, "_pip", stop)
    assert make(place, source) == 130
    assert "not complete" in (place / "START.html").read_text(encoding="utf-8")
    assert check(place) == ["It was not finished."]
    monkeypatch.setattr(wheels, "_pip", whole)
    fetched.clear()
    assert make(place, source) == 0
    assert "fake-more==1.0" in fetched
    assert "torch==2.13.0" not in fetched
    assert not (place / "wheels" / "half-1.0-py3-none-any.whl").exists()
    assert check(place) == []


def test_a_smaller_bundle_lets_go_of_what_it_does_not_need(made, index, fetched):
    assert make(made, index, "--only", "lab") == 0
    assert fetched == []
    assert "fake_test" not in names(made)
    assert json.loads((made / "bundle.json").read_text())["extras"] == ["lab"]
    assert "Left out: engines" in (made / "START.html").read_text(encoding="utf-8")


def test_installers_put_into_it_are_listed_and_hashed(made, index):
    (made / "python").mkdir()
    (made / "python" / "python-3.12-amd64.exe").write_bytes(b"MZ")
    assert make(made, index) == 0
    assert "python-3.12-amd64.exe" in (made / "START.html").read_text(encoding="utf-8")
    damage(made / "python" / "python-3.12-amd64.exe")
    assert check(made) == ["python/python-3.12-amd64.exe is damaged."]


def test_another_platform_gets_the_wheels_that_its_markers_ask_for(made, index):
    words = ["--platform", "linux,windows", "--python", "3.12"]
    assert make(made, index, *words) == 0
    about = json.loads((made / "bundle.json").read_text())
    assert set(about["targets"]) == {"linux-3.12", "windows-3.12"}
    assert "needs-windows" in about["targets"]["windows-3.12"]
    assert "needs-windows" not in about["targets"]["linux-3.12"]
    page = (made / "START.html").read_text(encoding="utf-8")
    assert "py course.py --offline" in page
    assert "Windows 10 or newer, 64 bits, with Python 3.12" in page


def test_a_package_that_no_wheel_is_published_of_is_named(made, index, capsys):
    assert make(made, index, "--platform", "windows", "--python", "3.13") == 1
    said = capsys.readouterr().err
    assert "There is no wheel of needs-windows==1.0 for windows-3.13" in said
    assert "Leave that Python or platform out" in said
    assert check(made) == ["It was not finished."]


def test_what_has_no_pin_comes_in_the_version_that_suits_all_who_ask(
    no_index, tmp_path
):
    """As NVIDIA's packages with PyTorch: one asks for any version, one for this."""
    course, index = tmp_path / "course", tmp_path / "index"
    course.mkdir()
    index.mkdir()
    (course / "constraints.txt").write_text("")
    text = '[project]\ndependencies = ["first", "second"]\n'
    (course / "pyproject.toml").write_text(f"{text}optional-dependencies = {{}}\n")
    write_wheel(index, "setuptools")
    write_wheel(index, "first", needs=["cublas"])
    write_wheel(index, "second", needs=["third"])
    write_wheel(index, "third", needs=["cublas==1.0.*"])
    write_wheel(index, "cublas")
    write_wheel(index, "cublas", "2.0")
    made = folder.Bundle(tmp_path, {})
    target = targets.Target("linux", "3.12")
    found = wheels.add_wheels(made, target, (), [str(index)])
    assert found["cublas"] == "cublas-1.0-py3-none-any.whl"


@pytest.mark.parametrize("name", targets.PLATFORMS)
def test_a_target_takes_what_pip_would_take_there(name):
    from packaging.utils import parse_wheel_filename

    fits = {
        "linux": "x-1-cp310-abi3-manylinux_2_26_x86_64.manylinux_2_28_x86_64.whl",
        "macos": "x-1-cp312-cp312-macosx_10_13_universal2.whl",
        "windows": "x-1-cp312-cp312-win_amd64.whl",
    }
    for platform, file in fits.items():
        tags = parse_wheel_filename(file)[3]
        fit = bool(tags & targets.Target(name, "3.12").tags)
        assert fit == (name == platform)
    assert parse_wheel_filename("x-1-py3-none-any.whl")[3] <= (
        targets.Target(name, "3.13").tags
    )


# What can go wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--platform", "window"], 'Did you mean "windows"?'),
        (["--python", "3.9"], "is not one of 3.11, 3.12, 3.13"),
        (["--only", "tets"], 'Did you mean "test"?'),
    ],
)
def test_a_wrong_word_is_named_before_anything_is_made(words, said, tmp_path, capsys):
    assert main(["bundle", "--out", str(tmp_path / "x"), *words]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_no_other_folder_is_touched(no_index, course, tmp_path, capsys):
    (tmp_path / "thesis.odt").write_text("mine")
    assert main(["bundle", "--out", str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert main(["bundle", "--out", str(course / "bundle")]) == 1
    assert "inside of the course" in capsys.readouterr().err
    assert main(["bundle", "--check", str(tmp_path)]) == 1
    assert "holds no bundle" in capsys.readouterr().err
    assert main(["bundle"]) == 1
    assert "--out DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("ERROR: [Errno 28] No space left on device\n", "is full (1.0 GB free)"),
        ("WARNING: Retrying (Retry(total=4))\nERROR: No matching ...\n", "not reach"),
        ("ERROR: Wheel 'x' is invalid.\n", "linux-3.12: Wheel 'x' is invalid."),
    ],
)
def test_what_pip_says_is_put_in_plain_words(output, said, tmp_path, monkeypatch):
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: Usage(9e9, 8e9, 1e9))
    monkeypatch.setattr(wheels, "_pip", lambda *_: output)
    made = folder.Bundle(tmp_path, {})
    with pytest.raises(BundleError) as error:
        wheels.fetch(made, targets.Target("linux", "3.12"), ["x==1"], [])
    assert said in str(error.value)
    assert "type the same command again" in str(error.value)


def test_a_disk_that_fills_while_the_course_is_copied_is_recognised(
    made, monkeypatch, capsys
):
    def fill(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "add_course", fill)
    assert main(["bundle", "--out", str(made)]) == 1
    assert "Make room, or leave out extras" in capsys.readouterr().err


def test_without_git_the_folder_is_copied_as_it_lies(
    tmp_path, course, monkeypatch, capsys
):
    plain = tmp_path / "plain"
    shutil.copytree(course, plain, ignore=shutil.ignore_patterns(".git"))
    (plain / ".venv").mkdir()
    (plain / ".venv" / "large").write_text("")
    monkeypatch.setattr(environment, "ROOT", plain)
    made = folder.Bundle(tmp_path / "bundle", {})
    made.folder.mkdir()
    commit.add_course(made)
    assert "course/notes.txt" in made.sums
    assert not [path for path in made.sums if ".venv" in path]
    (plain / ".git").mkdir()
    with pytest.raises(BundleError, match="not be taken from git"):
        commit.add_course(made)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    with pytest.raises(BundleError, match="installed copy"):
        commit.add_course(made)


def test_sizes_are_those_of_what_is_installed_here(monkeypatch, capsys):
    monkeypatch.setattr(environment, "EXTRAS", ("lab", "monitor"))
    assert main(["bundle", "--sizes"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line for line in lines if line[0] in environment.EXTRAS}
    assert set(rows) == {"lab", "monitor"}
    assert int(rows["lab"][1]) > 5
    every = next(line for line in lines if line[0] == "all")
    assert float(every[3].replace(",", "")) > 500


# Real checkpoints


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on this machine with a small checkpoint."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_sources, "WAITS", (0, 0, 0))
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(tmp_path / "cache"))
    files = {WEIGHTS: bytes(100_000), "config.json": b"{}", "README.md": b"Hello"}
    with Hub(files, model="course/tiny") as hub:
        yield hub


def test_a_checkpoint_is_found_by_its_name_and_comes_once(made, index, hub, capsys):
    from huggingface_hub import snapshot_download

    words = ["--mirror", hub.address, "--checkpoint", "course/tiny"]
    assert make(made, index, *words) == 0
    assert f"course/tiny is at commit {COMMIT} today" in capsys.readouterr().out
    place = snapshot_download(
        "course/tiny", cache_dir=made / "hub", local_files_only=True
    )
    assert (Path(place) / WEIGHTS).read_bytes() == bytes(100_000)
    assert not any(path.is_symlink() for path in (made / "hub").rglob("*"))
    assert "<code>course/tiny</code>" in (made / "START.html").read_text("utf-8")
    sent = hub.sent.total()
    assert make(made, index, *words) == 0
    assert hub.sent.total() == sent
    damage(Path(place) / WEIGHTS)
    assert check(made) == [f"{(Path(place) / WEIGHTS).relative_to(made)} is damaged."]
    assert make(made, index, *words) == 0
    assert hub.sent.total() == sent + 100_000
    assert check(made) == []
    assert make(made, index) == 0
    assert not [path for path in (made / "hub").rglob("*") if path.is_file()]


def test_a_checkpoint_that_nobody_has_is_a_sentence(made, index, hub, capsys):
    words = ["--mirror", hub.address, "--checkpoint", "course/none"]
    assert make(made, index, *words) == 1
    assert "has no course/none" in capsys.readouterr().err


# And used


def cut_off():
    """Return the words that start a program without any network, or skip the test."""
    for options in ("-n", "-rn") if shutil.which("unshare") else ():
        words = ["unshare", options]
        if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            return words
    return pytest.skip("this system makes no network namespaces: unshare fails")


@pytest.mark.timeout(600)  # it makes a .venv, and builds a package
@pytest.mark.skipif(sys.platform != "linux", reason="the bundle is one for Linux")
def test_the_course_is_set_up_from_a_smaller_bundle_without_a_network(
    made, index, tmp_path
):
    """The folder is copied out of the bundle, and started twice where no network is."""
    start = cut_off()
    assert make(made, index, "--only", "site") == 0
    copy = Path(shutil.copytree(made / "course", tmp_path / "my course"))

    def run(*words):
        command = [*start, sys.executable, "course.py", *words]
        return subprocess.run(command, cwd=copy, capture_output=True, text=True)

    done = run("--offline", "../a bundle", "site", "--here")
    assert done.stderr == ""
    assert "Checking 5 packages" in done.stdout
    assert "fake_lab ['--here'] 1" in done.stdout
    for words in (["--offline", "../a bundle"], []):  # the second time
        done = run(*words, "site")
        assert "Checking" not in done.stdout + done.stderr
        assert "Installing" not in done.stdout + done.stderr
    done = run("test")
    assert 'has no "test", only lab, site' in done.stderr
    done = run("--offline", "..", "site")
    assert "holds no bundle" in done.stderr
