"""Set up the course and open it. Type one of

    python course.py           make .venv, install the tested versions, open JupyterLab
    python course.py test      the same set-up, then the whole test suite
    python course.py site      the same set-up, then the course as a website
    python course.py doctor    look for problems, change nothing

With --offline DIR it takes everything from the bundle in DIR and uses no network. It
uses the standard library alone, on Linux, macOS and Windows, and is safe to run again:
it compares what .venv holds with constraints.txt and installs what differs.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 11), (3, 13)
EXTRAS = (
    *("lab", "engines", "finetune", "serve", "monitor", "harness", "deploy"),
    *("capstones", "workshop", "site", "test"),
)
DEFAULT_PORT = 8888
FIRST_INSTALL_GB, UPDATE_GB, START_GB = 4.5, 1.5, 0.2  # .venv took 3.3 GB
GB = 1e9
STOPPED = 130  # what a shell reports for a program ended by Ctrl-C
NO_POPUPS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    }
}
STYLE_PATHS = (
    *("course.py", "qwen_course", "tests", "training", "benchmarks"),
    *("docs", "workshop"),
)
NOTEBOOK_PATHS = ("notebooks", "solutions", "exercises")


class CourseError(Exception):
    """What is wrong and what to type, in a sentence for the learner."""


# Is this computer fit for the course?


def python_problem(version=sys.version_info[:2], which=shutil.which):
    """Return a sentence when this Python is too old or too new, else "".

    >>> python_problem((3, 12))
    ''
    """
    major, minor = version
    if OLDEST <= (major, minor) <= NEWEST:
        return ""
    better = [
        name for name in ("python3.12", "python3.13", "python3.11") if which(name)
    ]
    remedy = f"type: {better[0]} course.py" if better else "install Python 3.12"
    return (
        f"This is Python {major}.{minor}, "
        f"and the course needs 3.11, 3.12 or 3.13: {remedy}"
    )


# subtle: this stands above the rest because an older Python stops at the first
# annotation below, before it could say what is wrong.
if __name__ == "__main__" and python_problem():
    sys.exit(python_problem() + ".")


def machine_problem(system: str, machine: str, bits: int) -> str:
    """Return a sentence when PyTorch has no build for this computer, else ""."""
    if bits < 64:
        return (
            "This is a 32-bit Python, and PyTorch needs a 64-bit one: "
            "install the 64-bit Python 3.12"
        )
    if system == "Darwin" and machine == "x86_64":
        return (
            "PyTorch has no build for Macs with an Intel processor (nor for an Intel "
            "Python on Apple silicon): use the course in Google Colab"
        )
    return ""


def disk_problem(folder: Path, needed_gb: float) -> str:
    """Return a sentence when the disk of `folder` has too little room, else ""."""
    free_gb = shutil.disk_usage(folder).free / GB
    if free_gb >= needed_gb:
        return ""
    return (
        f"The disk has {free_gb:.1f} GB free and the course needs {needed_gb:.1f} GB: "
        "delete what you no longer need, or move this folder to a larger disk"
    )


def port_problem(port: int) -> str:
    """Return a sentence when no server can be started on `port`, else ""."""
    if not 1 <= port <= 65535:
        return f"{port} is no port: choose a number from 1024 to 65535"
    error = bind_error(port)
    if error is None:
        return ""
    if isinstance(error, PermissionError):
        return f"Port {port} is kept for the system: type --port {free_port()}"
    return (
        f"Port {port} is in use, perhaps by a JupyterLab that is still open: "
        f"close it, or type: python course.py --port {free_port()}"
    )


def bind_error(port: int) -> OSError | None:
    """Return the error of listening on `port` of this computer, or None."""
    with socket.socket() as probe:
        if os.name == "posix":  # a port left a moment ago is free again
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error
    return None


def free_port() -> int:
    """Return a port that nobody uses, near JupyterLab's own where possible."""
    for port in range(DEFAULT_PORT + 1, DEFAULT_PORT + 50):
        if bind_error(port) is None:
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What .venv holds, and what it should hold


def canonical(name: str) -> str:
    """Return a package name in its one spelling.

    >>> canonical("Jupyter_Core")
    'jupyter-core'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(
    text: str,
    system: str = sys.platform,
    python: tuple[int, int] = sys.version_info[:2],
) -> dict[str, str]:
    """Return the versions that constraints.txt asks of this system and Python.

    >>> read_pins('torch==2.13.0\\ncolorama==0.4.6 ; sys_platform == "win32"', "linux")
    {'torch': '2.13.0'}
    """
    pins = {}
    for line in text.splitlines():
        requirement, _, marker = line.partition("#")[0].partition(";")
        name, _, version = requirement.partition("==")
        if version and marker_holds(marker.strip(), system, python):
            pins[canonical(name.strip())] = version.strip()
    return pins


def marker_holds(marker: str, system: str, python: tuple[int, int]) -> bool:
    """Say whether the marker of a pin is true; "" is.

    The course's own pins use three comparisons, and no others are read.

    >>> marker_holds('sys_platform != "win32" and python_version < "3.12"', "linux",
    ...              (3, 11))
    True
    """
    for part in filter(None, marker.split(" and ")):
        name, comparison, value = (part.split() + ["", ""])[:3]
        value = value.strip('"')
        if (name, comparison) == ("python_version", "<"):
            true = python < tuple(map(int, value.split(".")))
        elif name == "sys_platform" and comparison in ("==", "!="):
            true = (comparison == "==") == (value == system)
        else:
            raise CourseError(
                f"constraints.txt holds a marker that course.py cannot read: {part}"
            )
        if not true:
            return False
    return True


def package_folder(venv: Path) -> Path | None:
    """Return the folder of a .venv where packages lie, or None."""
    places = [venv / "Lib" / "site-packages", *venv.glob("lib/python3*/site-packages")]
    return next((place for place in places if place.is_dir()), None)


def installed(venv: Path) -> dict[str, str]:
    """Return the version of every package whose installation in `venv` was finished.

    A package is finished when pip has written its RECORD, which it does last.
    """
    folder = package_folder(venv)
    if folder is None:
        return {}
    versions = {}
    for record in folder.glob("*.dist-info/RECORD"):
        name, _, version = record.parent.name[: -len(".dist-info")].rpartition("-")
        versions[canonical(name)] = version
    return versions


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return a phrase for each package that is missing or has another version.

    A local version satisfies its pin, as it does for pip: 2.13.0+cpu is 2.13.0.

    >>> differences({"torch": "2.13.0"}, {"torch": "2.13.0+cpu"})
    []
    >>> differences({"torch": "2.13.0"}, {"torch": "2.12.0"})
    ['torch 2.12.0 (tested: 2.13.0)']
    """
    phrases = []
    for name, version in wanted.items():
        have = found.get(name)
        if have is None:
            phrases.append(f"{name} is missing")
        elif have != version and have.partition("+")[0] != version:
            phrases.append(f"{name} {have} (tested: {version})")
    return phrases


def course_link(venv: Path) -> Path | None:
    """Return the folder from which `venv` takes qwen_course, or None."""
    folder = package_folder(venv)
    files = folder.glob("qwen_course-*.dist-info/direct_url.json") if folder else ()
    for file in files:
        url = json.loads(file.read_text(encoding="utf-8"))["url"]
        return Path(url2pathname(urlsplit(url).path))
    return None


def course_pins(root: Path) -> dict[str, str]:
    """Return the versions that the course asks of this computer."""
    return read_pins((root / "constraints.txt").read_text(encoding="utf-8"))


def to_install(root: Path, bundle: "Bundle | None" = None) -> list[str]:
    """Return a phrase for everything in .venv that is not as the course needs it."""
    venv = root / ".venv"
    part = bundle or smaller_part(venv)
    pins = part.of(course_pins(root)) if part else course_pins(root)
    phrases = differences(pins, installed(venv))
    link = course_link(venv)
    if link is None:
        phrases.append("qwen-course is missing")
    elif not link.exists() or not link.samefile(root):
        phrases.append("qwen-course is another folder's")
    return phrases


# A bundle: all that the course needs in one folder, for a computer with no network


class Bundle(NamedTuple):
    """What a bundle has for this computer, or what a .venv made from it holds."""

    folder: Path
    extras: tuple[str, ...]
    wheels: dict[str, str]  # from a package's name to the file in the folder "wheels"

    def of(self, pins: dict[str, str]) -> dict[str, str]:
        """Return the pins of the packages that are in this bundle."""
        return {name: pins[name] for name in pins if name in self.wheels}


def read_bundle(folder: Path, venv: Path) -> Bundle:
    """Return what the bundle in `folder` has for the Python of `venv`.

    Raises CourseError when there is no bundle, only a part of one, or one for others.
    """
    file = folder / BUNDLE_FILE
    if not file.is_file():
        raise CourseError(
            f"{folder.resolve()} holds no bundle: behind --offline name the folder in "
            "which START.html and the folder wheels lie"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        complete, targets = content["complete"], content["targets"]
        extras = tuple(content["extras"])
    except (ValueError, KeyError, TypeError):
        raise CourseError(f"{file.resolve()} is damaged. {COPY_AGAIN}") from None
    if not complete:
        raise CourseError(
            f"The bundle in {folder.resolve()} is not complete, as the program that "
            f"makes it was stopped: {ASK_FOR_ANOTHER}"
        )
    target = this_target(venv)
    if target not in targets:
        raise CourseError(not_for_this(target, list(targets)))
    return Bundle(folder.resolve(), extras, targets[target])


def this_target(venv: Path) -> str:
    """Return the name that bundles have for this system and Python: "linux-3.12"."""
    system = {"linux": "linux", "darwin": "macos", "win32": "windows"}
    arm = platform.machine().lower() in ("arm64", "aarch64")
    name = system.get(sys.platform, sys.platform)
    if arm != (name == "macos"):
        name += f" on {platform.machine()}"
    return f"{name}-{venv_version(venv)}"


def venv_version(venv: Path) -> str:
    """Return the version of the Python in a .venv, or of this one, as in "3.12"."""
    file = venv / "pyvenv.cfg"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    found = re.search(r"^version(?:_info)? *= *(\d+\.\d+)", text, re.MULTILINE)
    return found[1] if found else "{}.{}".format(*sys.version_info)


def not_for_this(target: str, targets: list[str], which=shutil.which) -> str:
    """Return the sentence for a bundle that was made for other computers.

    >>> not_for_this("linux-3.13", ["linux-3.11"], which=lambda name: True)[:41]
    'The bundle has nothing for linux-3.13, it'
    """
    system = target.rpartition("-")[0]
    ours = [one.rpartition("-")[2] for one in targets if one.startswith(f"{system}-")]
    said = f"The bundle has nothing for {target}, it is for {', '.join(targets)}"
    if not ours:
        return f"{said}: {ASK_FOR_ANOTHER}"
    have = [f"python{version}" for version in ours if which(f"python{version}")]
    if have:
        return f"{said}: type {have[0]} course.py with the same words, and add --fresh"
    return f"{said}: install Python {ours[-1]}, or {ASK_FOR_ANOTHER}"


def bundle_problem(bundle: Bundle, root: Path) -> str:
    """Return a sentence when a bundle's wheels are not those the course needs, else "".

    Every byte of them is read, as pip will do.
    """
    versions = {name: file.split("-")[1] for name, file in bundle.wheels.items()}
    others = differences(bundle.of(course_pins(root)), versions)
    if others:
        return (
            f"The bundle was made for another state of the course ({shorten(others)}): "
            f"use the folder course in {bundle.folder}"
        )
    print(f"Checking {len(bundle.wheels)} packages in {bundle.folder} ...", flush=True)
    sums = bundle.folder / "SHA256SUMS"
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else ()
    known = {line.partition("  ")[2]: line.partition("  ")[0] for line in lines}
    names = [f"wheels/{file}" for file in bundle.wheels.values()]
    wrong = [name for name in names if digest(bundle.folder / name) != known.get(name)]
    if wrong:
        return f"Missing or damaged in the bundle: {shorten(wrong)}. {COPY_AGAIN}"
    return ""


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, "" of one that is not there."""
    total = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            for block in iter(lambda: opened.read(2**20), b""):
                total.update(block)
    except FileNotFoundError:
        return ""
    return total.hexdigest()


def note_part(venv: Path, bundle: Bundle) -> None:
    """Write down which part of the course a .venv has when it is not the whole."""
    file = venv / BUNDLE_FILE
    if set(bundle.extras) >= set(EXTRAS):
        file.unlink(missing_ok=True)
        return
    note = {"extras": bundle.extras, "packages": sorted(bundle.wheels)}
    file.write_text(json.dumps(note), encoding="utf-8")


def smaller_part(venv: Path) -> Bundle | None:
    """Return the part of the course that a .venv has, or None for the whole."""
    file = venv / BUNDLE_FILE
    if not file.exists():
        return None
    note = json.loads(file.read_text(encoding="utf-8"))
    return Bundle(venv, tuple(note["extras"]), dict.fromkeys(note["packages"], ""))


def need_extra(root: Path, extra: str) -> None:
    """Raise CourseError when .venv was made from a bundle without `extra`."""
    part = smaller_part(root / ".venv")
    if part and extra not in part.extras:
        raise CourseError(
            f'The bundle this .venv was made from has no "{extra}", only '
            f"{', '.join(part.extras)}: with a network type python course.py --fresh "
            f"{extra}"
        )


def stay_offline(bundle: Bundle) -> None:
    """Let what is started now ask no network, and find the bundle's checkpoints."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    hub = bundle.folder / "hub"
    if hub.is_dir():
        os.environ["HF_HUB_CACHE"] = str(hub)


# Make .venv and install


def venv_python(venv: Path) -> Path:
    """Return the path of the Python in a virtual environment."""
    windows = os.name == "nt"
    return venv / ("Scripts/python.exe" if windows else "bin/python")


def broken(venv: Path) -> bool:
    """Say whether the Python of `venv` does not start, is too old, or lacks pip."""
    command = [
        str(venv_python(venv)),
        "-c",
        "import pip, sys; print(*sys.version_info[:2])",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return True
    if done.returncode != 0:
        return True
    return bool(python_problem(tuple(map(int, done.stdout.split()))))


def make_venv(venv: Path) -> None:
    """Make a virtual environment, or none at all: half of one is removed."""
    print(f"Making {venv.name} with Python {platform.python_version()} ...", flush=True)
    command = [sys.executable, "-m", "venv", str(venv)]
    finished = False
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        finished = done.returncode == 0
    finally:
        if not finished:
            shutil.rmtree(venv, ignore_errors=True)
    if finished:
        return
    if "ensurepip" in done.stdout + done.stderr:
        raise CourseError(
            "This Python cannot make virtual environments: on Debian and Ubuntu type "
            '"sudo apt install python3-venv", elsewhere install Python from python.org'
        )
    reason = last_line(done.stderr or done.stdout)
    raise CourseError(f"{venv} could not be made: {reason}. Check the folder's rights")


def remove_venv(venv: Path) -> None:
    """Delete the virtual environment, unless this program runs in it."""
    if Path(sys.prefix).resolve() == venv.resolve():
        raise CourseError(
            f"This Python is the one in {venv.name}, which --fresh would delete: "
            'type "deactivate", then the same command again'
        )
    shutil.rmtree(venv)


def pip_commands(root: Path, bundle: Bundle | None = None) -> list[list[str]]:
    """Return the two pip commands of the set-up.

    torch comes first and alone, so that its pin decides which build is taken and no
    other package's range can ask for a newer one.
    """
    pins, venv = course_pins(root), root / ".venv"
    part = bundle or smaller_part(venv)
    pip = [str(venv_python(venv)), "-m", "pip", "install"]
    pip += ["--disable-pip-version-check", "--constraint", "constraints.txt"]
    if bundle:
        pip += ["--no-index", "--find-links", str(bundle.folder / "wheels")]
    first = [f"{name}=={pins[name]}" for name in ("torch", "setuptools")]
    extras = part.extras if part else EXTRAS
    course = ["--no-build-isolation", "--editable", f".[{','.join(extras)}]"]
    return [[*pip, *first], [*pip, *course]]


def install(root: Path, bundle: Bundle | None = None) -> None:
    """Bring .venv to the tested versions, and say what happens meanwhile."""
    venv, start = root / ".venv", time.monotonic()
    log = venv / "install.log"
    log.write_text("", encoding="utf-8")
    for command in pip_commands(root, bundle):
        if run_logged(command, root, log, pip_settings(bundle)) != 0:
            raise CourseError(failure(log.read_text(encoding="utf-8"), root, bundle))
    if bundle:
        note_part(venv, bundle)
    wrong = [phrase for phrase in to_install(root) if "missing" not in phrase]
    if wrong:
        again = what_to_type(bundle and bundle.folder, "--fresh")
        raise CourseError(f"{shorten(wrong)} after the installation: type {again}")
    seconds = time.monotonic() - start
    print(f"Installed {len(installed(venv))} packages in {seconds:.0f} seconds.")


def pip_settings(bundle: Bundle | None) -> dict[str, str]:
    """Return the environment of pip: with a bundle, without this computer's settings.

    A place for packages that they name would help by accident, and not elsewhere.
    """
    if bundle is None:
        return dict(os.environ)
    kept = {name: os.environ[name] for name in os.environ if name[:4] != "PIP_"}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


def run_logged(
    command: list[str], folder: Path, log: Path, environment: dict[str, str]
) -> int:
    """Run a command, append its output to `log`, and show the line it is at."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    with process, log.open("a", encoding="utf-8") as file:
        for line in process.stdout or ():
            file.write(line)
            show_step(line)
    show_step("")
    return process.returncode


def show_step(line: str) -> None:
    """Show one line of pip in place of the one before it, on a terminal only."""
    if not sys.stdout.isatty():
        return
    width = shutil.get_terminal_size().columns - 1
    text = line.strip().encode("ascii", "replace").decode()
    print("\r" + text[:width].ljust(width), end="" if text else "\r", flush=True)


def failure(output: str, root: Path, bundle: Bundle | None = None) -> str:
    """Return the sentence for an installation that pip gave up."""
    if "No space left" in output or disk_problem(root, START_GB):
        return (
            "The disk is full: the installation needs about "
            f"{FIRST_INSTALL_GB:.0f} GB, and about 7 GB where pip takes PyTorch's "
            "NVIDIA build. Delete what you no longer need, then type the same again"
        )
    remedy = "Check the network, then type the same again"
    if bundle:
        remedy = f"The bundle in {bundle.folder} lacks something: {ASK_FOR_ANOTHER}"
    return (
        f"The installation failed: {pip_reason(output)}. {remedy}; "
        "all that pip said is in .venv/install.log"
    )


def pip_reason(output: str) -> str:
    """Return why pip gave up, in plain words where its own would mislead.

    subtle: where pip finds no package at all it may speak of conflicting dependencies,
    and of a package it "cannot install", though only the network is missing.
    """
    if "Retrying (" in output:
        return "pip could not reach the place it takes packages from"
    missing = (
        r"ERROR: (?:No matching distribution found for|Cannot install) ([\w.=+-]+)"
    )
    found = re.search(missing, output)
    if found:
        return f"pip found no {found[1]} for this computer"
    errors = re.findall(r"^ *ERROR: (.+)$", output, re.MULTILINE)
    return (errors[-1] if errors else last_line(output)).rstrip(".")


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"


def shorten(phrases: list[str], most: int = 3) -> str:
    """Return the first phrases and a count of the rest.

    >>> shorten(["a", "b", "c"], most=1)
    'a, and 2 more'
    """
    shown = ", ".join(phrases[:most])
    rest = len(phrases) - most
    return f"{shown}, and {rest} more" if rest > 0 else shown


def set_up(root: Path, fresh: bool = False, offline: Path | None = None) -> Path:
    """Make .venv what the course needs, if it is not, and return its Python."""
    venv = root / ".venv"
    if fresh and venv.exists():
        remove_venv(venv)
    bundle = read_bundle(offline, venv) if offline else None
    if not venv.exists():
        stop_at(machine_problem(*this_machine()))
        stop_at(disk_problem(root, FIRST_INSTALL_GB))
        make_venv(venv)
    elif broken(venv):
        again = what_to_type(offline, "--fresh")
        raise CourseError(f"{venv} is broken; to make it anew type: {again}")
    reasons = to_install(root, bundle)
    if reasons:
        stop_at(disk_problem(root, UPDATE_GB))
        if bundle:
            stop_at(bundle_problem(bundle, root))
        print(f"Installing what the course needs: {shorten(reasons)}.", flush=True)
        install(root, bundle)
    if bundle:
        stay_offline(bundle)
    stop_at(disk_problem(root, START_GB))
    return venv_python(venv)


def what_to_type(bundle: Path | None, *options: str) -> str:
    """Return what to type, for one who uses a bundle or not.

    >>> what_to_type(None, "--fresh")
    'python course.py --fresh'
    """
    offline = (f'--offline "{bundle.resolve()}"',) if bundle else ()
    return " ".join(("python course.py", *options, *offline))


def this_machine() -> tuple[str, str, int]:
    """Return the system, the processor and the bits of this Python."""
    return platform.system(), platform.machine(), 64 if sys.maxsize > 2**32 else 32


def stop_at(problem: str) -> None:
    """Raise CourseError when there is a problem."""
    if problem:
        raise CourseError(problem)


# The commands


def open_lab(root: Path, options: argparse.Namespace) -> int:
    """Set up, then run JupyterLab on the first lesson until it is closed."""
    lesson = first_notebook(root)
    stop_at(port_problem(options.port))
    python = set_up(root, options.fresh, options.offline)
    turn_off_popups(root / ".venv")
    print(f"Opening {lesson}. To stop JupyterLab press Ctrl-C here.", flush=True)
    status = run(lab_command(python, root, lesson, options), root, patient=True)
    if status > 0:
        raise CourseError(
            f"JupyterLab ended with status {status}; its reason is above. "
            "To look for problems type: python course.py doctor"
        )
    return 0


def first_notebook(root: Path) -> str:
    """Return the lesson with the lowest number, as in "notebooks/02_chat.ipynb"."""
    lessons = sorted(root.glob("notebooks/[0-9][0-9]_*.ipynb"))
    if not lessons:
        raise CourseError(
            f"{root / 'notebooks'} holds no lesson: this copy of the course is not "
            "complete, fetch it again"
        )
    return lessons[0].relative_to(root).as_posix()


def turn_off_popups(venv: Path) -> None:
    """Tell this .venv's JupyterLab to ask the network for neither news nor updates."""
    file = venv / "share/jupyter/lab/settings/overrides.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**settings, **NO_POPUPS}, indent=2), "utf-8")


def lab_command(
    python: Path, root: Path, lesson: str, options: argparse.Namespace
) -> list[str]:
    """Return the command that opens JupyterLab at a lesson."""
    command = [str(python), "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command += [f"--LabApp.default_url=/lab/tree/{lesson}"]
    command += [f"--port={options.port}", "--ServerApp.port_retries=0"]
    if options.no_browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return command


def run_tests(root: Path, options: argparse.Namespace) -> int:
    """Set up, check the style, run every test, and return 0 when all is well.

    The style comes first, so that the last line is pytest's summary.
    """
    python = set_up(root, options.fresh, options.offline)
    need_extra(root, "test")
    failed = []
    for arguments in [*style_commands(root), pytest_command(root, options.rest)]:
        print("$ python -m " + " ".join(arguments), flush=True)
        if run([str(python), "-m", *arguments], root) != 0:
            failed.append(arguments[0])
    if failed:
        raise CourseError(f"Failed: {', '.join(failed)}; the reasons are above")
    return 0


def style_commands(root: Path) -> list[list[str]]:
    """Return the commands that check style and types."""
    paths = [path for path in (*STYLE_PATHS, *NOTEBOOK_PATHS) if (root / path).exists()]
    return [
        ["ruff", "check", *paths],
        ["ruff", "format", "--check", *paths],
        ["mypy", "qwen_course"],
    ]


def pytest_command(root: Path, extra: list[str]) -> list[str]:
    """Return pytest's command: everything, unless `extra` names files of its own."""
    command = ["pytest", "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"]
    command += ["--doctest-modules"]
    command += ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=240"]
    named = [word for word in extra if (root / word.partition("::")[0]).exists()]
    paths = () if named else ("tests", "qwen_course", *NOTEBOOK_PATHS)
    return command + [path for path in paths if (root / path).exists()] + extra


def build_site(root: Path, options: argparse.Namespace) -> int:
    """Set up, then let docs/build.py make the website, and return its status."""
    python = set_up(root, options.fresh, options.offline)
    need_extra(root, "site")
    return run([str(python), "-m", "docs.build", *options.rest], root)


def run(command: list[str], folder: Path, patient: bool = False) -> int:
    """Run a command to its end and return its status.

    Ctrl-C reaches the command too. A `patient` wait leaves it to the command what to
    do then: JupyterLab asks whether it should stop.
    """
    process = subprocess.Popen(command, cwd=folder)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            if not patient:
                end(process)
                raise


def end(process: subprocess.Popen) -> None:
    """Give a program ten seconds to stop by itself, then end it."""
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def doctor(root: Path, options: argparse.Namespace) -> int:
    """Look at this computer, then let qwen_course.doctor look from inside .venv."""
    problems = 0
    for name, good, problem in outer_checks(root, options):
        problems += bool(problem)
        print(f"{'problem' if problem else 'ok':9} {name:12} {problem or good}")
    python = venv_python(root / ".venv")
    if not python.exists():
        return 1
    print(flush=True)
    return run([str(python), "-m", "qwen_course", "doctor"], root) or int(problems > 0)


def outer_checks(root: Path, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Return (name, what is good, what is wrong or "") of each check without .venv."""
    port, offline = options.port, options.offline
    system, machine, bits = this_machine()
    free_gb = shutil.disk_usage(root).free / GB
    needed_gb = START_GB if (root / ".venv").exists() else FIRST_INSTALL_GB
    wrong = machine_problem(system, machine, bits)
    checks = [
        ("Python", platform.python_version(), python_problem()),
        ("computer", f"{system} {machine}, {bits} bits", wrong),
        ("disk", f"{free_gb:.1f} GB free", disk_problem(root, needed_gb)),
        ("port", f"{port} is free", port_problem(port)),
        (".venv", "holds the tested versions", venv_problem(root, offline)),
    ]
    if offline:
        checks.append(("bundle", f"{offline.resolve()} is whole", ""))
        try:
            bundle = read_bundle(offline, root / ".venv")
            stop_at(bundle_problem(bundle, root))
            stay_offline(bundle)
        except CourseError as error:
            checks[-1] = (*checks[-1][:2], str(error))
    return checks


def venv_problem(root: Path, offline: Path | None) -> str:
    """Return a sentence when .venv is missing, broken or differs, else ""."""
    if not (root / ".venv").exists():
        return f"The course is not installed yet: type {what_to_type(offline)}"
    if broken(root / ".venv"):
        return f"It is broken; to make it anew type: {what_to_type(offline, '--fresh')}"
    reasons = to_install(root)
    if reasons:
        remedy = f"to install the tested versions type: {what_to_type(offline)}"
        return f"{shorten(reasons)}; {remedy}"
    return ""


BUNDLE_FILE = "bundle.json"
ASK_FOR_ANOTHER = "ask the person who made it for one that fits"
COPY_AGAIN = "Copy the bundle once more; to check a copy open its START.html"
COMMANDS = {"open": open_lab, "test": run_tests, "site": build_site, "doctor": doctor}


# The command line


def read_arguments(words: list[str]) -> argparse.Namespace:
    """Return the options; what stands behind "test" or "site" is for these two."""
    ends = [words.index(word) + 1 for word in ("test", "site") if word in words]
    cut = min(ends, default=len(words))
    parser = argparse.ArgumentParser(
        prog="python course.py",
        description="Set up the course in .venv, then open it in JupyterLab.",
        epilog="Options of this program stand before the command. Everything behind "
        '"test" goes to pytest: python course.py test -k chat',
        allow_abbrev=False,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=list(COMMANDS),
        default="open",
        help="open: JupyterLab at the first lesson (the default); "
        "test: the whole test suite; site: the course as a website; "
        "doctor: look for problems",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the link")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: 8888")
    parser.add_argument("--fresh", action="store_true", help="make .venv anew")
    bundle = "take all packages from this bundle, and use no network"
    parser.add_argument("--offline", type=Path, metavar="DIR", help=bundle)
    options = parser.parse_args(words[:cut])
    options.rest = words[cut:]
    return options


def main(words: list[str]) -> int:
    """Carry out a command; a problem is one sentence and a status that is not 0."""
    options = read_arguments(words)
    try:
        return COMMANDS[options.command](ROOT, options)
    except CourseError as error:
        print(f"\n{error}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. To go on type the same again.", file=sys.stderr)
        return STOPPED
    except OSError as error:
        print(f"\n{refusal(error)}.", file=sys.stderr)
    return 1


def refusal(error: OSError) -> str:
    """Return the sentence for something that the system would not do."""
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return (
        f"The system refused ({what}): check that the folder is yours to write in "
        "and the disk is not full, then type the same again"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
