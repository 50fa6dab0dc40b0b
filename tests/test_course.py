"""course.py: what it does on a good computer, and what it says on a bad one.

Nothing is installed here and no network is used. A .venv is a folder with the names
that pip would leave in it.
"""

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from packaging.markers import default_environment

from qwen_course import environment

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "course.py").read_text(encoding="utf-8")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The program as a module, working on a copy of the course in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "a course"
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "02_chat.ipynb").write_text("{}")
    (root / "notebooks" / "03_thinking_mode.ipynb").write_text("{}")
    for name in ("course.py", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    monkeypatch.setattr(module, "ROOT", root)
    return module


@pytest.fixture
def complete(course, monkeypatch):
    """The same with a .venv that holds the tested versions."""
    text = (course.ROOT / "constraints.txt").read_text()
    for name, version in course.read_pins(text).items():
        add_package(course, name, version)
    link_course(course, course.ROOT)
    monkeypatch.setattr(course, "broken", lambda venv: False)
    return course


@pytest.fixture
def ready(complete, monkeypatch):
    """The same, where to install anything fails the test."""
    monkeypatch.setattr(complete, "install", lambda *_: pytest.fail("It installed."))
    return complete


def add_package(course, name, version):
    lib = "Lib" if os.name == "nt" else "lib/python3.12"
    packages = course.ROOT / ".venv" / lib / "site-packages"
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("")
    return info


def find_package(course, name):
    return next((course.ROOT / ".venv").rglob(f"{name}-*.dist-info"))


def link_course(course, folder):
    info = add_package(course, "qwen_course", "0.1.0")
    (info / "direct_url.json").write_text(json.dumps({"url": folder.as_uri()}))


def make_bundle(course, **changes):
    """Write a bundle of empty wheels for this computer, and return its folder."""
    folder = course.ROOT.parent / "a bundle"
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    pins = course.course_pins(course.ROOT)
    wheels = {
        name: f"{name.replace('-', '_')}-{pin}-py3-none-any.whl"
        for name, pin in pins.items()
    }
    target = course.this_target(course.ROOT / ".venv")
    content = {"complete": True, "extras": course.EXTRAS, "targets": {target: wheels}}
    content |= changes
    (folder / "bundle.json").write_text(json.dumps(content))
    sums = ""
    for file in wheels.values():
        (folder / "wheels" / file).write_text(file)
        sums += f"{hashlib.sha256(file.encode()).hexdigest()}  wheels/{file}\n"
    (folder / "SHA256SUMS").write_text(sums)
    return folder


def run(*words, folder=ROOT, cwd=None, **variables):
    return subprocess.run(
        [sys.executable, folder / "course.py", *words],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def one_sentence(capsys):
    """Return what was said on stderr, after checking that it is one short paragraph."""
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert said.endswith(".")
    return said


# Before anything is installed


def test_help_names_the_commands_and_works_from_any_folder(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("test", "site", "doctor", "--port", "--fresh", "--offline"):
        assert word in done.stdout


def test_an_unknown_command_is_refused():
    done = run("tset")
    assert done.returncode == 2
    assert "invalid choice" in done.stderr


def test_an_old_python_can_read_the_file_as_far_as_the_sentence():
    tree = ast.parse(SOURCE, feature_version=(3, 6))
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    before = tree.body[: tree.body.index(guard)]
    functions = [node for node in before if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == ["python_problem"]
    arguments = functions[0].args.args
    assert not any(argument.annotation for argument in arguments)
    imported = {node.names[0].name for node in before if isinstance(node, ast.Import)}
    assert "tomllib" not in imported


@pytest.mark.parametrize("version", [(3, 6), (3, 10), (3, 14)])
def test_a_wrong_python_is_named_with_what_to_type(course, version):
    said = course.python_problem(version, which=lambda name: name == "python3.13")
    assert f"This is Python {version[0]}.{version[1]}" in said
    assert "python3.13 course.py" in said
    said = course.python_problem(version, which=lambda name: None)
    assert "install Python 3.12" in said


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_a_right_python_is_no_problem(course, version):
    assert course.python_problem(version) == ""


def test_a_computer_without_a_build_of_pytorch_is_refused(course):
    assert "Intel" in course.machine_problem("Darwin", "x86_64", 64)
    assert "32-bit" in course.machine_problem("Windows", "x86", 32)
    assert course.machine_problem("Darwin", "arm64", 64) == ""
    assert course.machine_problem("Linux", "x86_64", 64) == ""


def test_a_disk_too_small_stops_before_anything_is_made(course, monkeypatch, capsys):
    monkeypatch.setattr(course.shutil, "disk_usage", lambda _: Usage(9e9, 8e9, 1e9))
    assert course.main([]) == 1
    said = one_sentence(capsys)
    assert "1.0 GB free" in said
    assert f"needs {course.FIRST_INSTALL_GB} GB" in said
    assert not (course.ROOT / ".venv").exists()


def test_a_taken_port_is_named_and_a_free_one_is_offered(course, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert course.main(["--port", str(port)]) == 1
    said = one_sentence(capsys)
    assert f"Port {port} is in use" in said
    offered = int(said.rstrip(".").split()[-1])
    assert course.port_problem(offered) == ""


def test_a_number_that_is_no_port_is_refused(course, capsys):
    assert course.main(["--port", "99999"]) == 1
    assert "99999 is no port" in one_sentence(capsys)


def test_a_copy_without_lessons_is_refused(course, capsys):
    shutil.rmtree(course.ROOT / "notebooks")
    assert course.main([]) == 1
    assert "holds no lesson" in one_sentence(capsys)


def test_a_python_without_venv_is_told_which_package_to_install(course, monkeypatch):
    def fail(command, **options):
        (course.ROOT / ".venv").mkdir()
        return subprocess.CompletedProcess(command, 1, "ensurepip is not available", "")

    monkeypatch.setattr(course.subprocess, "run", fail)
    with pytest.raises(course.CourseError, match="python3-venv"):
        course.make_venv(course.ROOT / ".venv")
    assert not (course.ROOT / ".venv").exists(), "half a .venv stays behind"


# The installation


def test_a_failed_install_is_one_sentence_with_pips_reason(
    complete, monkeypatch, capsys
):
    """A true pip is asked for a torch that nobody has, with no place to look."""
    monkeypatch.setattr(complete, "venv_python", lambda venv: Path(sys.executable))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    pins = complete.ROOT / "constraints.txt"
    pins.write_text(pins.read_text().replace("torch==2.13.0", "torch==0.0.1"))
    assert complete.main(["test"]) == 1
    said = one_sentence(capsys)
    assert said.startswith("The installation failed: pip found no torch==0.0.1")
    assert "type the same again" in said
    assert "torch" in (complete.ROOT / ".venv" / "install.log").read_text()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken\n"
            "ERROR: No matching distribution found for torch==2.13.0\n",
            "pip could not reach the place it takes packages from",
        ),
        (
            "ERROR: Cannot install torch==2.13.0 because these package versions have "
            "conflicting dependencies.\nERROR: ResolutionImpossible: for help visit\n",
            "pip found no torch==2.13.0 for this computer",
        ),
        ("ERROR: Could not build wheels.\n", "Could not build wheels"),
        ("Killed\n\n", "Killed"),
    ],
)
def test_what_pip_says_is_put_in_plain_words(course, output, reason):
    assert course.pip_reason(output) == reason


def test_a_disk_that_fills_during_the_install_is_recognised(course):
    output = "Collecting torch\nERROR: [Errno 28] No space left on device\n"
    assert "The disk is full" in course.failure(output, course.ROOT)


def test_torch_is_installed_first_and_everything_is_constrained(course):
    first, second = course.pip_commands(course.ROOT)
    assert first[-2] == "torch==2.13.0"
    extras = "lab,engines,finetune,serve,monitor,harness,deploy,capstones"
    assert second[-1] == f".[{extras},workshop,site,test]"
    for command in (first, second):
        assert command[command.index("--constraint") + 1] == "constraints.txt"


def test_the_extras_are_those_of_environment_yml(course):
    assert course.EXTRAS == environment.EXTRAS


def test_a_broken_venv_is_refused_with_the_command_that_mends_it(course):
    (course.ROOT / ".venv").mkdir()
    done = run("--port", str(course.free_port()), folder=course.ROOT)
    assert done.returncode == 1
    assert "is broken" in done.stderr
    assert "python course.py --fresh" in done.stderr
    assert "Traceback" not in done.stderr


def test_fresh_deletes_the_venv_but_not_the_one_it_runs_in(ready, monkeypatch, capsys):
    venv = ready.ROOT / ".venv"
    monkeypatch.setattr(ready.sys, "prefix", str(venv))
    assert ready.main(["--fresh", "--port", str(ready.free_port())]) == 1
    assert "deactivate" in one_sentence(capsys)
    assert venv.exists()
    monkeypatch.setattr(ready.sys, "prefix", str(ROOT))
    ready.remove_venv(venv)
    assert not venv.exists()


def test_a_second_run_installs_nothing(ready):
    assert ready.to_install(ready.ROOT) == []
    python = ready.set_up(ready.ROOT)
    assert python == ready.venv_python(ready.ROOT / ".venv")


def test_a_local_version_of_torch_satisfies_its_pin(ready):
    find_package(ready, "torch").rename(
        find_package(ready, "torch").with_name("torch-2.13.0+cpu.dist-info")
    )
    assert ready.to_install(ready.ROOT) == []


def test_another_version_is_named_and_put_right(ready, monkeypatch, capsys):
    installs = []
    monkeypatch.setattr(ready, "install", lambda *words: installs.append(words))
    folder = find_package(ready, "transformers")
    folder.rename(folder.with_name("transformers-4.57.0.dist-info"))
    ready.set_up(ready.ROOT)
    assert installs == [(ready.ROOT, None)]
    assert "transformers 4.57.0 (tested: 5." in capsys.readouterr().out


def test_a_package_whose_installation_was_cut_off_is_missing(ready):
    (find_package(ready, "nbval") / "RECORD").unlink()
    assert ready.to_install(ready.ROOT) == ["nbval is missing"]


def test_a_moved_course_is_linked_again(ready, tmp_path):
    shutil.rmtree(find_package(ready, "qwen_course"))
    link_course(ready, tmp_path / "where the course was")
    assert ready.to_install(ready.ROOT) == ["qwen-course is another folder's"]


def test_an_install_that_leaves_another_version_is_an_error(complete, monkeypatch):
    monkeypatch.setattr(complete, "run_logged", lambda *_: 0)
    folder = find_package(complete, "peft")
    folder.rename(folder.with_name("peft-0.1.0.dist-info"))
    with pytest.raises(complete.CourseError, match=r"peft 0\.1\.0 .* --fresh"):
        complete.install(complete.ROOT)


def test_pins_are_read_as_pip_reads_them(course):
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = environment.read_pins(text)
    for system in environment.SYSTEMS:
        for python in environment.PYTHONS:
            values = {
                **default_environment(),
                **environment.marker_environment(system, python),
            }
            true = {
                name: str(pin.specifier).removeprefix("==")
                for name, pin in pins.items()
                if pin.marker is None or pin.marker.evaluate(values)
            }
            version = tuple(map(int, python.split(".")))
            assert course.read_pins(text, system, version) == true


def test_a_marker_it_cannot_read_is_an_error(course):
    with pytest.raises(course.CourseError, match="cannot read"):
        course.read_pins('x==1 ; platform_machine == "riscv64"')


# Opening and testing


def test_jupyterlab_opens_at_the_first_lesson_and_asks_for_no_news(ready, monkeypatch):
    commands = []
    monkeypatch.setattr(
        ready, "run", lambda command, *_, **__: commands.append(command) or 0
    )
    port = ready.free_port()
    assert ready.main(["--no-browser", "--port", str(port)]) == 0
    (command,) = commands
    assert "--LabApp.default_url=/lab/tree/notebooks/02_chat.ipynb" in command
    assert f"--port={port}" in command
    assert "--no-browser" in command
    file = ready.ROOT / ".venv/share/jupyter/lab/settings/overrides.json"
    settings = json.loads(file.read_text())
    news = settings["@jupyterlab/apputils-extension:notification"]
    assert news == {"fetchNews": "false", "checkForUpdates": False}


def test_a_jupyterlab_that_fails_is_reported(ready, monkeypatch, capsys):
    monkeypatch.setattr(ready, "run", lambda *_, **__: 3)
    assert ready.main(["--port", str(ready.free_port())]) == 1
    assert "JupyterLab ended with status 3" in one_sentence(capsys)


def test_words_behind_test_go_to_pytest(course):
    options = course.read_arguments(["--fresh", "test", "-k", "template", "--port"])
    assert options.fresh
    assert options.rest == ["-k", "template", "--port"]


def test_the_suite_is_everything_unless_files_are_named(course):
    command = course.pytest_command(ROOT, ["-k", "template"])
    assert command[-2:] == ["-k", "template"]
    assert {"tests", "notebooks", "--nbval-lax"} <= set(command)
    command = course.pytest_command(ROOT, ["tests/test_course.py::test_x"])
    assert "tests" not in command
    assert "notebooks" not in command


def test_a_failed_style_check_fails_the_run_but_not_before_the_tests(
    ready, monkeypatch, capsys
):
    ran = []

    def run(command, *_):
        ran.append(command[2])
        return command[2] == "mypy"

    monkeypatch.setattr(ready, "run", run)
    assert ready.main(["test"]) == 1
    assert ran == ["ruff", "ruff", "mypy", "pytest"]
    assert "Failed: mypy" in one_sentence(capsys)


def test_a_run_in_which_all_passes_ends_well(ready, monkeypatch):
    monkeypatch.setattr(ready, "run", lambda *_: 0)
    assert ready.main(["test", "-x"]) == 0


def test_the_site_is_built_by_its_own_program_with_the_words_behind_it(
    ready, monkeypatch
):
    commands = []
    monkeypatch.setattr(ready, "run", lambda command, *_: commands.append(command) or 5)
    assert ready.main(["site", "--out", "here"]) == 5
    python = ready.venv_python(ready.ROOT / ".venv")
    assert commands == [[str(python), "-m", "docs.build", "--out", "here"]]


# From a bundle, with no network


def test_a_bundle_is_the_only_place_that_pip_looks_into(course, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "elsewhere")
    monkeypatch.setenv("PIP_CONFIG_FILE", "pip.conf")
    bundle = course.read_bundle(make_bundle(course), course.ROOT / ".venv")
    for command in course.pip_commands(course.ROOT, bundle):
        assert "--no-index" in command
        place = command[command.index("--find-links") + 1]
        assert place == str(bundle.folder / "wheels")
    settings = course.pip_settings(bundle)
    assert settings["PIP_CONFIG_FILE"] == os.devnull
    assert "PIP_FIND_LINKS" not in settings
    assert course.pip_settings(None)["PIP_FIND_LINKS"] == "elsewhere"


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("nothing", "holds no bundle"),
        ("not finished", "is not complete"),
        ("half", "bundle.json is damaged"),
    ],
)
def test_a_folder_that_is_no_whole_bundle_is_refused(course, capsys, folder, said):
    place = make_bundle(course, complete=folder != "not finished")
    if folder == "nothing":
        place = course.ROOT.parent
    if folder == "half":
        (place / "bundle.json").write_text('{"complete": tr')
    assert course.main(["--offline", str(place), "test"]) == 1
    assert said in one_sentence(capsys)
    assert not (course.ROOT / ".venv").exists()


def test_a_bundle_for_others_says_for_whom_and_what_to_type(course, capsys):
    targets = {"linux-3.10": {}, "windows-3.10": {}, "macos-3.10": {}}
    place = make_bundle(course, targets=targets)
    assert course.main(["--offline", str(place), "test"]) == 1
    said = one_sentence(capsys)
    assert "has nothing for" in said
    assert "linux-3.10, windows-3.10, macos-3.10" in said
    said = course.not_for_this("linux-3.13", ["linux-3.11"], which=lambda name: True)
    assert "type python3.11 course.py" in said
    said = course.not_for_this("linux-3.13", ["linux-3.11"], which=lambda name: None)
    assert "install Python 3.11" in said
    assert "install" not in course.not_for_this("linux-3.13", ["macos-3.13"])


def test_the_python_of_a_venv_decides_which_wheels_fit(course):
    venv = course.ROOT / ".venv"
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.9\n")
    assert course.this_target(venv).endswith("-3.12")


def test_a_damaged_package_stops_the_set_up_before_pip(complete, monkeypatch, capsys):
    monkeypatch.setattr(complete, "install", lambda *_: pytest.fail("It installed."))
    (find_package(complete, "peft") / "RECORD").unlink()
    place = make_bundle(complete)
    next((place / "wheels").glob("peft-*")).write_text("other bytes")
    assert complete.main(["--offline", str(place), "test"]) == 1
    said = one_sentence(capsys)
    assert "damaged in the bundle: wheels/peft-" in said
    assert "Copy the bundle once more" in said


def test_a_bundle_of_another_state_of_the_course_is_refused(complete, capsys):
    place = make_bundle(complete)
    pins = complete.ROOT / "constraints.txt"
    pins.write_text(pins.read_text().replace("torch==2.13.0", "torch==2.13.1"))
    assert complete.main(["--offline", str(place), "test"]) == 1
    said = one_sentence(capsys)
    assert "another state of the course (torch 2.13.0 (tested: 2.13.1))" in said
    assert "use the folder course" in said


def test_what_a_smaller_bundle_lacks_is_not_missing_afterwards(
    ready, monkeypatch, capsys
):
    shutil.rmtree(find_package(ready, "ruff"))
    assert ready.to_install(ready.ROOT) == ["ruff is missing"]
    place = make_bundle(ready, extras=["lab"])
    bundle = ready.read_bundle(place, ready.ROOT / ".venv")
    del bundle.wheels["ruff"]
    ready.note_part(ready.ROOT / ".venv", bundle)
    assert ready.to_install(ready.ROOT) == []
    assert ready.pip_commands(ready.ROOT)[1][-1] == ".[lab]"
    assert ready.main(["test"]) == 1
    assert 'has no "test", only lab' in one_sentence(capsys)
    assert ready.main(["site"]) == 1
    assert "--fresh site" in one_sentence(capsys)
    ready.note_part(ready.ROOT / ".venv", bundle._replace(extras=ready.EXTRAS))
    assert ready.to_install(ready.ROOT) == ["ruff is missing"]


def test_lessons_started_from_a_bundle_stay_offline(ready, monkeypatch):
    place = make_bundle(ready)
    (place / "hub").mkdir()
    seen = {}
    monkeypatch.setattr(ready, "run", lambda *_, **__: seen.update(os.environ) or 0)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_CACHE", "elsewhere")
    words = ["--offline", str(place), "--port", str(ready.free_port())]
    assert ready.main(words) == 0
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["HF_HUB_CACHE"] == str(place / "hub")


def test_a_failed_installation_from_a_bundle_does_not_blame_the_network(course):
    bundle = course.read_bundle(make_bundle(course), course.ROOT / ".venv")
    output = "ERROR: No matching distribution found for peft==0.21.2\n"
    said = course.failure(output, course.ROOT, bundle)
    assert "pip found no peft==0.21.2" in said
    assert "network" not in said
    assert str(bundle.folder) in said


def test_the_doctor_reads_the_bundle_too(ready, capsys):
    place = make_bundle(ready)
    port = str(ready.free_port())
    words = ["--offline", str(place), "--port", port, "doctor"]
    ready.main(words)
    assert f"{place} is whole" in capsys.readouterr().out
    next((place / "wheels").glob("torch-*")).unlink()
    assert ready.main(words) == 1
    said = capsys.readouterr().out
    assert "Missing or damaged in the bundle: wheels/torch-" in said


def test_ctrl_c_is_a_sentence(course, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(course, "set_up", interrupt)
    assert course.main(["test"]) == course.STOPPED
    assert "Stopped" in one_sentence(capsys)


def test_what_the_system_refuses_is_a_sentence(course, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", ".venv")

    monkeypatch.setattr(course, "set_up", refuse)
    assert course.main(["test"]) == 1
    assert ".venv: Permission denied" in one_sentence(capsys)


def test_the_doctor_says_that_nothing_is_installed_yet(course, capsys):
    assert course.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "not installed yet: type python course.py" in said


def test_the_doctor_asks_the_doctor_inside(ready, monkeypatch, capsys):
    python = ready.venv_python(ready.ROOT / ".venv")
    python.parent.mkdir(parents=True)
    python.write_text("")
    commands = []
    monkeypatch.setattr(ready, "run", lambda command, *_: commands.append(command) or 0)
    assert ready.main(["doctor", "--port", str(ready.free_port())]) == 0
    assert commands == [[str(python), "-m", "qwen_course", "doctor"]]
    assert "holds the tested versions" in capsys.readouterr().out
