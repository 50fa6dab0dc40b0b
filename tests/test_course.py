"""course.py: what it does on a good computer, and what it says on a bad one.

Nothing is installed here and no network is used. A .venv is a folder with the names
that pip would leave in it.
"""

import ast
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
    monkeypatch.setattr(complete, "install", lambda root: pytest.fail("It installed."))
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
    for word in ("test", "doctor", "--no-browser", "--port", "--fresh"):
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
    extras = "lab,engines,finetune,serve,monitor,harness,deploy,capstones,test"
    assert second[-1] == f".[{extras}]"
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
    assert ready.set_up(ready.ROOT) == ready.venv_python(ready.ROOT / ".venv")


def test_a_local_version_of_torch_satisfies_its_pin(ready):
    find_package(ready, "torch").rename(
        find_package(ready, "torch").with_name("torch-2.13.0+cpu.dist-info")
    )
    assert ready.to_install(ready.ROOT) == []


def test_another_version_is_named_and_put_right(ready, monkeypatch, capsys):
    installs = []
    monkeypatch.setattr(ready, "install", installs.append)
    folder = find_package(ready, "transformers")
    folder.rename(folder.with_name("transformers-4.57.0.dist-info"))
    ready.set_up(ready.ROOT)
    assert installs == [ready.ROOT]
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
    assert options.pytest == ["-k", "template", "--port"]


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
