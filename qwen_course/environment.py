"""The files that say what the course installs: read, compared and written.

    python -m qwen_course.environment write   # environment.yml from these files
    python -m qwen_course.environment check   # fails when environment.yml differs
    python -m qwen_course.environment pin     # constraints.txt from what is installed

A tool for the course's authors; `qwen_course.doctor` uses its comparison.
"""

import functools
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "qwen-course"
EXTRAS = (
    *("lab", "engines", "finetune", "serve", "monitor", "harness", "deploy"),
    *("capstones", "workshop", "site", "test"),
)
PYTHONS = ("3.11", "3.12", "3.13")
# What a marker may ask of a system; the processors are those PyTorch has builds for.
SYSTEMS = {
    "linux": ("Linux", "posix", "x86_64"),
    "win32": ("Windows", "nt", "AMD64"),
    "darwin": ("Darwin", "posix", "arm64"),
}
NOT_PINNED = {PROJECT, "pip"}
# What a torch built for CUDA asks for, a torch for CPUs does not; torch itself pins it.
OF_CUDA = ("cuda-", "nvidia-", "triton")

CONSTRAINTS_HEAD = """\
# The versions this course is tested with, on Linux, macOS and Windows.
# Made by: python -m qwen_course.environment pin
"""
ENVIRONMENT = """\
# Made by: python -m qwen_course.environment write
# Conda brings Python and pip; pip installs the tested versions. The list of pip is what
# the course's tests run on. That conda itself resolves this file is not tested.
name: {project}
channels:
  - conda-forge
dependencies:
  - python=3.12
  - pip
  - pip:
      - --constraint constraints.txt
      - --editable .[{extras}]
"""


def read_pins(text: str) -> dict[str, "Requirement"]:
    """Return the pin of every package in the text of constraints.txt, by name.

    Raises ValueError when a line is not `name==version`, with or without a marker.

    >>> str(read_pins("torch==2.13.0")["torch"].specifier)
    '==2.13.0'
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    pins: dict[str, Requirement] = {}
    for line in filter(None, (line.partition("#")[0] for line in text.splitlines())):
        try:
            pin = Requirement(line)
        except InvalidRequirement as error:
            raise ValueError(f"constraints.txt: {line!r} is no pin: {error}") from None
        if not str(pin.specifier).startswith("=="):
            raise ValueError(
                f"constraints.txt: {line!r} pins no version: write name==version"
            )
        pins[canonicalize_name(pin.name)] = pin
    return pins


def wanted() -> list["Requirement"]:
    """Return what must be installed here: the pins, or outside a clone the ranges."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    constraints = ROOT / "constraints.txt"
    if constraints.exists():
        found = [*read_pins(constraints.read_text(encoding="utf-8")).values()]
    else:
        found = [
            Requirement(line) for line in importlib.metadata.requires(PROJECT) or []
        ]
    part = smaller_part()
    return [
        one
        for one in found
        if (not one.marker or one.marker.evaluate({"extra": ""}))
        and (part is None or canonicalize_name(one.name) in part)
    ]


def smaller_part() -> set[str] | None:
    """Return the packages of a .venv made from a smaller bundle, None for the whole."""
    note = Path(sys.prefix) / "bundle.json"
    if not note.exists():
        return None
    return set(json.loads(note.read_text("utf-8"))["packages"])


def differences() -> list[str]:
    """Return a phrase for each package that is missing or outside what is wanted.

    Example:
        differences()  ->  ["peft 0.17.0 (the course needs >=0.18)"]
    """
    phrases = []
    for requirement in wanted():
        try:
            have = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            phrases.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            phrases.append(
                f"{requirement.name} {have} (the course needs {requirement.specifier})"
            )
    return phrases


# What the authors write


def environment_yml() -> str:
    """Return the text of environment.yml.

    >>> environment_yml().splitlines()[3]
    'name: qwen-course'
    """
    return ENVIRONMENT.format(project=PROJECT, extras=",".join(EXTRAS))


def needed(system: str, python: str) -> set[str]:
    """Return the names of all packages the course needs on a system and a Python.

    Follows what the packages installed here ask for; one that is not installed here
    is named, and taken to ask for nothing. CUDA's packages, which one build of torch
    brings, are left out.

    >>> "pywinpty" in needed("win32", "3.12"), "pywinpty" in needed("linux", "3.12")
    (True, False)
    """
    from packaging.utils import canonicalize_name

    environment = marker_environment(system, python)
    waiting, seen = [(PROJECT, extra) for extra in EXTRAS], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in asked_by(name):
            marker = requirement.marker
            if name == "torch" and requirement.name.startswith(OF_CUDA):
                continue
            if marker is None or marker.evaluate({**environment, "extra": extra}):
                asked = canonicalize_name(requirement.name)
                waiting += [(asked, one) for one in {"", *requirement.extras}]
    return {name for name, _ in seen} - NOT_PINNED


def marker_environment(system: str, python: str) -> dict[str, str]:
    """Return the values that markers see on a system and a Python."""
    from packaging.markers import default_environment

    platform_system, os_name, machine = SYSTEMS[system]
    return {
        **{name: str(value) for name, value in default_environment().items()},
        "sys_platform": system,
        "platform_system": platform_system,
        "os_name": os_name,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.9",
    }


@functools.cache
def asked_by(name: str) -> list["Requirement"]:
    """Return what an installed package asks for; nothing when it is not installed."""
    from packaging.requirements import Requirement

    try:
        return [Requirement(line) for line in importlib.metadata.requires(name) or []]
    except importlib.metadata.PackageNotFoundError:
        return []


@functools.cache
def where() -> dict[str, set[tuple[str, str]]]:
    """Return, for each package, the systems and Pythons on which it is needed."""
    places: dict[str, set[tuple[str, str]]] = {}
    for place in itertools.product(SYSTEMS, PYTHONS):
        for name in needed(*place):
            places.setdefault(name, set()).add(place)
    return places


def marker(places: set[tuple[str, str]]) -> str:
    """Return the marker that is true in these places, "" for everywhere.

    >>> marker({("win32", python) for python in PYTHONS})
    'sys_platform == "win32"'
    """
    systems = {system for system, _ in places}
    pythons = sorted({python for _, python in places})
    parts = []
    if len(systems) == 1:
        parts.append(f'sys_platform == "{systems.pop()}"')
    elif len(systems) == 2:
        parts.append(f'sys_platform != "{(set(SYSTEMS) - systems).pop()}"')
    if tuple(pythons) != PYTHONS:
        parts.append(f'python_version < "{PYTHONS[len(pythons)]}"')
    return " and ".join(parts)


def constraints_txt(old: str = "") -> str:
    """Return the text of constraints.txt for what is installed here.

    A package needed on another system only keeps the version it has in `old`.
    Raises ValueError when `old` names none.
    """
    pins, lines = read_pins(old), []
    for name, places in sorted(where().items()):
        condition = marker(places)
        line = f"{name}=={version(name, pins)}"
        lines.append(f"{line} ; {condition}" if condition else line)
    return CONSTRAINTS_HEAD + "\n".join(lines) + "\n"


def version(name: str, pins: dict[str, "Requirement"]) -> str:
    """Return a package's version as installed here, without "+cpu", or its old pin."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        if name in pins:
            return str(pins[name].specifier).removeprefix("==")
        raise ValueError(
            f"{name} is needed on another system and not installed here: "
            f"write {name}==VERSION into constraints.txt, then run this again"
        ) from None


def read_pyproject() -> dict[str, Any]:
    """Return the [project] table of pyproject.toml."""
    import tomllib

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def requirements() -> Iterator["Requirement"]:
    """Yield the ranges that the set-up installs: the base ones, then its extras."""
    from packaging.requirements import Requirement

    project = read_pyproject()
    extras = [project["optional-dependencies"][extra] for extra in EXTRAS]
    yield from map(Requirement, itertools.chain(project["dependencies"], *extras))


def main(words: list[str]) -> int:
    """Carry out write, check or pin; return 0 when all is well."""
    file, constraints = ROOT / "environment.yml", ROOT / "constraints.txt"
    if words == ["write"]:
        file.write_text(environment_yml(), encoding="utf-8")
    elif words == ["check"]:
        if file.read_text(encoding="utf-8") != environment_yml():
            print(
                "environment.yml is not what its generator writes. "
                "Type: python -m qwen_course.environment write"
            )
            return 1
    elif words == ["pin"]:
        old = constraints.read_text(encoding="utf-8") if constraints.exists() else ""
        constraints.write_text(constraints_txt(old), encoding="utf-8")
    else:
        print("Type: python -m qwen_course.environment write, check or pin")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
