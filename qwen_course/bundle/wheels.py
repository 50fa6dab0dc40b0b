"""The wheels in a bundle: pip fetches each, and each says what else is needed."""

import functools
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from qwen_course import environment
from qwen_course.bundle.folder import (
    AGAIN,
    COURSE,
    PART,
    WHEELS,
    Bundle,
    BundleError,
    disk_full,
)
from qwen_course.bundle.targets import PLATFORMS, Target

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

BATCH = 10  # packages; a run that is cut off loses what its last batch has fetched


def add_wheels(
    made: Bundle, target: Target, extras: tuple[str, ...], places: list[str]
) -> dict[str, str]:
    """Fetch the wheels of a target that are not there; return file names by package.

    Each wheel says what it needs; so round by round nothing else is fetched. pip could
    find that out, but reads all markers as for the computer that it runs on.
    """
    course = made.folder / COURSE
    pins = environment.read_pins((course / "constraints.txt").read_text("utf-8"))
    lines = direct_lines(course, extras)
    have: dict[str, str] = {}  # from a name to a file
    taken: dict[str, str] = {}  # from a name to what was asked for, as "numpy==2.4.6"
    while True:
        asks = functools.partial(_asked_by, made.folder / WHEELS, have)
        needed = reachable(lines, target, asks)
        exact = {
            name: f"{name}{pins[name].specifier if name in pins else versions}"
            for name, versions in sorted(needed.items())
        }
        new = [one for name, one in exact.items() if taken.get(name) != one]
        if not new:
            return {name: have[name] for name in exact}
        have |= _take(made, target, new, len(have), places)
        taken = exact


def direct_lines(course: Path, extras: tuple[str, ...]) -> list[str]:
    """Return what the set-up of a course asks for, with what it is installed by."""
    text = (course / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    more = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in more]:
        raise BundleError(
            f"The committed pyproject.toml has no extra {', '.join(unknown)}, and the "
            "course here has. Commit your changes first."
        )
    lines = ["setuptools", *project["dependencies"]]
    return lines + [line for extra in extras for line in more[extra]]


def reachable(
    lines: list[str], target: Target, asks: "Callable[[str], list[Requirement]]"
) -> "dict[str, SpecifierSet]":
    """Return what some requirements need on a target, as far as `asks` knows it.

    `asks` takes a package's name and returns what that package asks for. The answer is
    the versions that suit all who ask, by name.
    """
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    waiting = [one for one in map(Requirement, lines) if target.holds(one)]
    needed: dict[str, SpecifierSet] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        needed[name] = needed.get(name, SpecifierSet()) & requirement.specifier
        for extra in {"", *requirement.extras} - {one for n, one in seen if n == name}:
            seen.add((name, extra))
            waiting += [one for one in asks(name) if target.holds(one, extra)]
    return needed


def _asked_by(folder: Path, have: dict[str, str], name: str) -> "list[Requirement]":
    return asked_by_wheel(folder / have[name]) if name in have else []


@functools.cache
def asked_by_wheel(wheel: Path) -> "list[Requirement]":
    """Return what a wheel asks for, with markers."""
    from packaging.requirements import Requirement

    with ZipFile(wheel) as file:
        inner = next(n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(file.read(inner))
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


def _take(
    made: Bundle, target: Target, wanted: list[str], count: int, places: list[str]
) -> dict[str, str]:
    """Return the wheels of some requirements, by name; fetch those not there yet."""
    found = find_wheels(made, target, wanted)
    missing = [one for one in wanted if one not in found]
    # subtle: torch comes alone, and its exact pin decides which build is taken: from a
    # place that has 2.13.0+cpu that one, as it counts as newer than 2.13.0.
    torch = [one for one in missing if one.startswith("torch==")]
    others = [one for one in missing if one not in torch]
    for batch in [*_batches(torch), *_batches(others)]:
        more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
        said = f"{target.name}: {count + len(found)} packages are there"
        print(f"{said}; fetching {batch[0]}{more} ...", flush=True)
        fetch(made, target, batch, places)
        found |= find_wheels(made, target, batch)
    lost = [one for one in wanted if one not in found]
    if lost:
        raise BundleError(
            f"pip fetched nothing for {', '.join(lost)}. To try again {AGAIN}."
        )
    return {re.split("[=<>!~ ]", one)[0]: file for one, file in found.items()}


def _batches(words: list[str]) -> Iterator[list[str]]:
    return (words[start : start + BATCH] for start in range(0, len(words), BATCH))


def find_wheels(made: Bundle, target: Target, wanted: list[str]) -> dict[str, str]:
    """Return the finished wheels that meet requirements on a target."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename

    shelf: dict[str, list[tuple[Any, str]]] = {}
    for path in made.sums:
        if path.startswith(f"{WHEELS}/"):
            file = path.removeprefix(f"{WHEELS}/")
            name, version, _, tags = parse_wheel_filename(file)
            if tags & target.tags:
                shelf.setdefault(name, []).append((version, file))
    found = {}
    for one in wanted:
        asked = Requirement(one)
        fit = [
            pair
            for pair in shelf.get(canonicalize_name(asked.name), [])
            if asked.specifier.contains(pair[0], prereleases=True)
        ]
        if fit:
            found[one] = max(fit)[1]
    return found


def fetch(made: Bundle, target: Target, batch: list[str], places: list[str]) -> None:
    """Let pip fetch wheels; build those that are offered as source and are pure."""
    part = made.folder / PART
    part.mkdir(exist_ok=True)
    links = [word for place in places for word in ("--find-links", place)]
    tags = PLATFORMS[target.platform].tags
    platforms = [word for tag in tags for word in ("--platform", tag)]
    # 3.12 alone would be 3.12.0 to pip, and some packages ask for a later one.
    python = ["--python-version", f"{target.python}.9", "--implementation", "cp"]
    while batch:
        options = ["--only-binary=:all:", *python, *platforms, *links]
        output = _pip("download", *options, "--dest", str(part), *batch)
        if not output:
            break
        source = without_wheel(output)
        if source not in batch:
            raise BundleError(_refusal(output, made.folder, target))
        build(source, part, links, target)
        batch = [one for one in batch if one != source]
    (made.folder / WHEELS).mkdir(exist_ok=True)
    for wheel in part.glob("*.whl"):
        wheel.replace(made.folder / WHEELS / wheel.name)
        made.add(f"{WHEELS}/{wheel.name}")
    made.save()


def _pip(command: str, *words: str) -> str:
    """Run pip without dependencies; return "", or all that it said when it failed."""
    head = [sys.executable, "-m", "pip", command, "--no-deps", "--no-input"]
    head.append("--disable-pip-version-check")
    done = subprocess.run([*head, *words], capture_output=True, text=True)
    return (done.stdout + done.stderr or command) if done.returncode else ""


def without_wheel(output: str) -> str:
    """Return the requirement that pip found no wheel for, or "".

    >>> without_wheel("ERROR: No matching distribution found for sqlitedict==2.1.0")
    'sqlitedict==2.1.0'
    """
    found = re.search(r"No matching distribution found for (\S+)", output)
    if not found or "Retrying (" in output:
        return ""
    return found[1]


def build(source: str, part: Path, links: list[str], target: Target) -> None:
    """Make a wheel of a package that is published as source only, if it is pure."""
    name = source.partition("==")[0]
    if not is_pure(name):
        raise BundleError(
            f"There is no wheel of {source} for {target.name}. Leave that Python or "
            "platform out, or name a place that has one with --find-links."
        )
    print(f"{target.name}: making a wheel of {source} ...", flush=True)
    output = _pip("wheel", *links, "--wheel-dir", str(part), source)
    if output:
        raise BundleError(_refusal(output, part.parent, target))


def is_pure(name: str) -> bool:
    """Say whether a package, as it is installed here, runs on every system."""
    try:
        text = importlib.metadata.distribution(name).read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(re.search(r"^Tag: \S+-none-any$", text, re.MULTILINE))


def _refusal(output: str, folder: Path, target: Target) -> str:
    """Return the sentence for pip's failure."""
    if "No space left" in output:
        return disk_full(folder)
    if "Retrying (" in output:
        return f"pip could not reach the place it takes packages from: {AGAIN}."
    errors = re.findall(r"^ *ERROR: (.+)$", output, re.MULTILINE)
    why = errors[-1] if errors else output.splitlines()[-1]
    why = why.strip().rstrip(".")
    return f"pip fetched no packages for {target.name}: {why}. To try again {AGAIN}."
