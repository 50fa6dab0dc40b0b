"""The offline bundle: the course and all it needs in one folder, for a room.

    qwen-course bundle --out DIR      make it; typed again, go on where it stopped
    qwen-course bundle --check DIR    read every byte of it, after it was copied

On a computer without a network `python course.py --offline DIR` sets the course up from
it. The folder holds the course as it is committed, wheels, real checkpoints if you name
some, the SHA-256 of every file, and START.html, which says what to do.
"""

import errno
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from qwen_course import __version__, environment
from qwen_course.bundle.checkpoints import add_checkpoints
from qwen_course.bundle.commit import add_course
from qwen_course.bundle.folder import (
    ABOUT,
    HUB,
    PART,
    PYTHON,
    START,
    WHEELS,
    Bundle,
    BundleError,
    disk_full,
    faults,
    files_in,
    print_check,
    read_about,
    read_sums,
    replace_text,
)
from qwen_course.bundle.sizes import sizes
from qwen_course.bundle.targets import PLATFORMS, Target
from qwen_course.bundle.wheels import add_wheels
from qwen_course.errors import suggest

ALWAYS = "lab"  # without this extra JupyterLab does not open


def run(options: Any) -> int:
    """Make a bundle, check one, or print sizes, as the command line says."""
    if options.check:
        return print_check(options.check)
    if options.sizes:
        print(sizes(read_targets(None, None)[0]))
        return 0
    if options.out is None:
        raise ValueError("say where the bundle goes: qwen-course bundle --out DIR")
    targets = read_targets(options.platform, options.python)
    extras = read_extras(options.only)
    folder = options.out.expanduser().resolve()
    try:
        print(make(folder, targets, extras, options))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BundleError(disk_full(folder)) from error
        raise
    return 0


def read_targets(platforms: str | None, pythons: str | None) -> list[Target]:
    """Return the systems and Pythons that a command line names; by default these here.

    Raises ValueError for one that the course does not run on.

    >>> [target.name for target in read_targets("windows", "3.12,3.13")]
    ['windows-3.12', 'windows-3.13']
    """
    names = _words(platforms) or [_this_platform()]
    versions = _words(pythons) or ["{}.{}".format(*sys.version_info)]
    _all_known("--platform", names, PLATFORMS)
    _all_known("--python", versions, environment.PYTHONS)
    return [Target(name, version) for name in names for version in versions]


def read_extras(only: str | None) -> tuple[str, ...]:
    """Return the extras that `--only` names, in the course's order; by default all.

    >>> read_extras("test")
    ('lab', 'test')
    """
    names = _words(only)
    _all_known("--only", names, environment.EXTRAS)
    chosen = {ALWAYS, *names} if names else environment.EXTRAS
    return tuple(extra for extra in environment.EXTRAS if extra in chosen)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _this_platform() -> str:
    found = [name for name, one in PLATFORMS.items() if one.system == sys.platform]
    return found[0] if found else sys.platform


def _all_known(option: str, words: list[str], known: Collection[str]) -> None:
    for word in words:
        if word not in known:
            raise ValueError(
                f'{option} "{word}" is not one of {", ".join(known)}.'
                f"{suggest(word, known)} Write several with commas between them."
            )


def make(
    folder: Path, targets: list[Target], extras: tuple[str, ...], options: Any
) -> str:
    """Make the bundle, and return a sentence; an error leaves it marked as a part."""
    if folder.is_relative_to(environment.ROOT):
        raise ValueError(f"{folder} is inside of the course. Choose another folder.")
    made = begin(folder, targets, extras)
    add_course(made)
    for target in targets:
        wheels = add_wheels(made, target, extras, options.find_links or [])
        made.about["targets"][target.name] = wheels
        made.save()
    add_checkpoints(made, options.checkpoint or [], options.mirror)
    return finish(made)


def begin(folder: Path, targets: list[Target], extras: tuple[str, ...]) -> Bundle:
    """Keep what an earlier run finished and is whole; mark the bundle as a part."""
    earlier, sums = read_about(folder), read_sums(folder)
    if not earlier and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files. Name an empty or a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for path in (ABOUT, START):  # both are about to change
        sums.pop(path, None)
    for path, fault in faults(folder, sums):
        if path.startswith((f"{WHEELS}/", f"{HUB}/")):
            print(f"{path} {fault}: it is fetched again.", flush=True)
            (folder / path).unlink(missing_ok=True)
        del sums[path]
    shutil.rmtree(folder / PART, ignore_errors=True)
    for wheel in (folder / WHEELS).glob("*"):
        if f"{WHEELS}/{wheel.name}" not in sums:  # perhaps half of it
            wheel.unlink()
    about = {
        "complete": False,
        "version": __version__,
        "extras": extras,
        "asked": [target.name for target in targets],
        "targets": {},
        "checkpoints": earlier.get("checkpoints", {}),
    }
    made = Bundle(folder, about, sums)
    made.save()
    write_start(made)
    return made


def finish(made: Bundle) -> str:
    """Remove what no target needs, hash what is not hashed, and call it complete."""
    needed = {file for one in made.about["targets"].values() for file in one.values()}
    made.keep_only(WHEELS, {f"{WHEELS}/{file}" for file in needed})
    for file in files_in(made.folder / PYTHON):
        made.add(file.relative_to(made.folder).as_posix())
    shutil.rmtree(made.folder / PART, ignore_errors=True)
    made.about["complete"] = True
    write_start(made)
    made.save()
    for path in (ABOUT, START):
        made.add(path)
    made.save()
    what = f"{len(made.sums)} files, {made.size() / 1e9:.2f} GB"
    return f"{made.folder} is complete: {what}, {len(needed)} wheels. Open {START}."


def write_start(made: Bundle) -> None:
    """Write START.html, which says what is here and what to type."""
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent.parent / "data")
    pages = Environment(autoescape=True, loader=loader, trim_blocks=True)
    about = made.about
    targets: dict[str, list[str]] = {}
    for platform, _, python in (name.rpartition("-") for name in about["asked"]):
        targets.setdefault(platform, []).append(python)
    html = pages.get_template("bundle.html.jinja").render(
        about=about,
        targets=targets,
        platforms=PLATFORMS,
        wheels=len(made.under(WHEELS)),
        gigabytes=lambda folder: f"{made.size(folder) / 1e9:.2f} GB",
        installers=[file.name for file in files_in(made.folder / PYTHON)],
        left_out=[one for one in environment.EXTRAS if one not in about["extras"]],
    )
    replace_text(made.folder / START, html)
