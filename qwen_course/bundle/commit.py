"""The course in a bundle: as it is committed, or a copy of its folder."""

import shutil
import subprocess
import tarfile
from pathlib import Path

from qwen_course import environment
from qwen_course.bundle.folder import COURSE, PART, Bundle, BundleError, files_in

# Where there is no git: what lies in a working folder besides the course.
NOT_THE_COURSE = (
    *(".git", ".venv", "venv", "__pycache__", "*.egg-info", ".*_cache", "runs"),
    *(".hypothesis", ".ipynb_checkpoints", ".jupyter", "build", "_build", "dist"),
)


def add_course(made: Bundle) -> None:
    """Copy the course as it is committed; where there is no git, as it lies here."""
    goal = made.folder / COURSE
    root = environment.ROOT
    if not (root / "course.py").exists():
        raise BundleError(
            "This is an installed copy of the course, without its lessons. Type the "
            "command in a folder of the course, with the Python of its .venv."
        )
    if (root / ".git").exists():
        paths = unpack_commit(made, goal)
    else:
        ignore = shutil.ignore_patterns(*NOT_THE_COURSE)
        shutil.copytree(root, made.folder / PART, ignore=ignore)
        parts = [*files_in(made.folder / PART)]
        paths = [file.relative_to(made.folder / PART).as_posix() for file in parts]
        shutil.copytree(made.folder / PART, goal, dirs_exist_ok=True)
        shutil.rmtree(made.folder / PART)
    now = {f"{COURSE}/{path}" for path in paths}
    made.keep_only(COURSE, now)
    for path in now:
        made.add(path)
    made.save()


def unpack_commit(made: Bundle, goal: Path) -> list[str]:
    """Unpack git's HEAD into a folder, and return the paths of its files."""
    if _git("status", "--porcelain", "--untracked-files=no").strip():
        print("Changes that are not committed are left out of the bundle.", flush=True)
    made.about["commit"] = _git("rev-parse", "HEAD").decode().strip()
    part = made.folder / PART
    part.mkdir()
    _git("archive", "--format=tar", f"--output={part / 'course.tar'}", "HEAD")
    with tarfile.open(part / "course.tar") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(goal)
        paths = [member.name for member in tar if member.isfile()]
    shutil.rmtree(part)
    return paths


def _git(*words: str) -> bytes:
    try:
        command = ["git", "-C", str(environment.ROOT), *words]
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        why = "git is not installed"
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode(errors="replace").strip()
    raise BundleError(
        f"The course could not be taken from git: {why}. Put that right; or copy the "
        "folder without its .git, and make the bundle there."
    )
