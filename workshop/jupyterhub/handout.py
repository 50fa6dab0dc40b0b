"""What learners are handed: a git repository made of some of the course's folders.

nbgitpuller pulls from it into every learner's home, and where both changed the same
lines the learner's stay. The teacher's copy needs no git of its own, so the course may
come from a USB stick.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlencode

from qwen_course import notebooks
from qwen_course.notebook_rules import link_targets
from workshop.jupyterhub.settings import ROOT, Settings

BRANCH, TARGET = "main", "course"  # the folder in a learner's home
WHOLE = ("notebooks", "exercises", "solutions")  # whole, or not at all
NEVER = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")
AUTHOR = ("-c", "user.name=workshop", "-c", "user.email=workshop@localhost")


def publish(settings: Settings, course: Path = ROOT) -> bool:
    """Bring the handout to what the course's folders hold; return whether it changed.

    Other files that the notebooks in those folders link to come with them.

    Raises FileNotFoundError when git is not installed, subprocess.CalledProcessError
    when it fails.
    """
    repository = settings.handed_out
    if not shutil.which("git"):
        raise FileNotFoundError(
            "git is not installed, and learners' folders are made with it: "
            'on Debian and Ubuntu type "sudo apt install git".'
        )
    if not (repository / ".git").is_dir():
        repository.mkdir(parents=True, exist_ok=True)
        _git(repository, "init", "--quiet", "--initial-branch", BRANCH)
    for old in repository.iterdir():
        if old.name != ".git":
            shutil.rmtree(old)
    for name in settings.hand_out:
        shutil.copytree(
            course / name, repository / name, ignore=NEVER, dirs_exist_ok=True
        )
        for linked in _linked(course, course / name):
            (repository / linked).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(course / linked, repository / linked)
    _git(repository, "add", "--all")
    if not _git(repository, "status", "--porcelain"):
        return False
    _git(repository, *AUTHOR, "commit", "--quiet", "--message", "The course's folders")
    return True


def pull_path(settings: Settings, lesson: str = "") -> str:
    """Return the address, behind a learner's own, that pulls and opens a lesson."""
    query = {
        "repo": settings.handed_out.as_uri(),
        "branch": BRANCH,
        "targetpath": TARGET,
        "urlpath": f"lab/tree/{TARGET}/{lesson or settings.lesson}",
    }
    return "/git-pull?" + urlencode(query)


def _linked(course: Path, folder: Path) -> Iterator[Path]:
    """Yield what a folder's notebooks link to, as paths in the course."""
    for path in sorted(folder.glob("*.ipynb")):
        try:
            cells = notebooks.read(path).cells
        except notebooks.LessonError:  # a teacher's own, of an older format
            continue
        for cell in cells:
            if cell.cell_type != "markdown":
                continue
            for target in link_targets(cell.source):
                if re.match(r"[a-z]+:", target):  # https, data and so on
                    continue
                file = (folder / unquote(target.partition("#")[0])).resolve()
                if file.is_file() and file.is_relative_to(course.resolve()):
                    linked = file.relative_to(course.resolve())
                    if linked.parts[0] not in WHOLE:
                        yield linked


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
