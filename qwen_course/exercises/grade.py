"""Grade submitted notebooks: find them, run each apart, judge what was seen, report.

A submission runs in `worker`, which `sandbox` starts and watches, and only observations
come back: what the probes saw, as plain data. They are judged here, with the same seed.
So nothing that a submission does to its own process makes a wrong answer right. Judges
have no time limit: one must not take long whatever plain data it is given.
"""

import contextlib
import json
import os
import random
import re
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qwen_course
from qwen_course.exercises import checking, question, report, sandbox
from qwen_course.exercises.feedback import Feedback
from qwen_course.exercises.question import Question
from qwen_course.exercises.sandbox import Limits, Run

CHECK = re.compile(r"""\bcheck\(\s*(?:id\s*=\s*)?["'](\d\d)\.(\w+)["']""")
COPY = re.compile(r"( ?\(\d+\)|-Copy\d+)$")
LARGEST = 20_000_000  # bytes of a notebook

FORMS = (
    "The folder holds LEARNER/NN_name.ipynb (also deeper inside), "
    "LEARNER_NN_name.ipynb or NN_name_LEARNER.ipynb. A renamed notebook is known by "
    "the ids of its checks: LEARNER.ipynb and LEARNER/anything.ipynb will do. Of two "
    "notebooks of one learner and lesson the newer one counts."
)


@dataclass(frozen=True)
class Submission:
    """One notebook that was handed in; `problem` says why it can't be run."""

    learner: str
    lesson: str
    path: Path
    cells: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Graded:
    """A submission with the verdict on each question of its lesson."""

    submission: Submission
    run: Run
    verdicts: tuple[Feedback, ...]


@dataclass
class Grades:
    """What a run of the grader gave; `refused` are sentences about other files."""

    graded: list[Graded] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    seed: int = 0
    limited: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdicts = [one for graded in self.graded for one in graded.verdicts]
        learners = {graded.submission.learner for graded in self.graded}
        right = sum(one.status == "right" for one in verdicts)
        return (
            f"Notebooks: {len(self.graded)}. Learners: {len(learners)}. "
            f"Right answers: {right} of {len(verdicts)}."
        )

    def warnings(self) -> list[str]:
        """Return what whoever grades should know before reading the results."""
        open_doors = [one for one in self.limited if one.startswith("NOT")]
        return [*open_doors, *(f"not graded: {one}" for one in self.refused)]


def grade(
    folder: Path,
    out: Path,
    jobs: int | None = None,
    limits: Limits | None = None,
    seed: int | None = None,
) -> Grades:
    """Grade the notebooks in `folder`, write results.csv and a report to `out`.

    `jobs` run at once (all cores); `seed` makes the cases, drawn anew by default.

    Raises ValueError when there is nothing to grade, or no job to do it.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}: give at least one.")
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    submissions, refused = find(folder)
    if not submissions:
        why = " ".join(refused) or "It holds no notebook."
        raise ValueError(f"there is nothing to grade in {folder}. {why} {FORMS}")
    grades = Grades([], refused, seed, sandbox.limited_here())
    running = _run_all(submissions, seed, jobs, limits or Limits(), _hidden(folder))
    with contextlib.closing(running) as runs:
        for submission, run in zip(submissions, runs, strict=True):
            verdicts = [
                verdict(asked, submission, run, seed)
                for asked in question.questions(submission.lesson)
            ]
            grades.graded.append(Graded(submission, run, tuple(verdicts)))
    if sandbox.namespaces() and not all(_was_apart(one) for one in grades.graded):
        grades.limited.append(
            "NOT limited in some of these runs: files of yours could be changed."
        )
    report.write(grades, out)
    return grades


def _was_apart(graded: Graded) -> bool:
    """Return whether a submission could change no file, or did not run."""
    return graded.run.read_only or graded.run.cell is None


def notes() -> str:
    """Return the end of the command's help: files, limits on this system, a warning."""
    texts = [FORMS, "Limited on this system:"]
    texts += [f"- {sentence}" for sentence in sandbox.limited_here()]
    texts.append(sandbox.NO_BOUNDARY)
    return "\n".join(textwrap.fill(text, 79) for text in texts) + "\n"


# Finding


def find(folder: Path) -> tuple[list[Submission], list[str]]:
    """Return the submissions in a folder, and a sentence for each file that is none.

    All files are read here, before any of them runs.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}.")
    found: dict[tuple[str, str], Submission] = {}
    refused = []
    files = [path for path in folder.rglob("*.ipynb") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.stat().st_mtime, path)):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        try:
            one = _submission(path, inside)
        except ValueError as error:
            refused.append(f"{inside}: {error}")
            continue
        older = found.get((one.learner, one.lesson))
        if older:
            refused.append(f"{older.path.relative_to(folder)}: {inside} is newer.")
        found[one.learner, one.lesson] = one
    return [found[key] for key in sorted(found)], refused


def _submission(path: Path, inside: Path) -> Submission:
    """Return what a file is, by its place, its name and its checks."""
    names = _exercise_names()
    learner = _learner(inside, names.values())
    named = [lesson for lesson, name in names.items() if name in path.stem.lower()]
    try:
        cells, problem = code_cells(path), ""
    except ValueError as error:
        cells, problem = (), str(error)
    ids = Counter(lesson for cell in cells for lesson, _ in CHECK.findall(cell))
    known = [lesson for lesson, _ in ids.most_common() if lesson in names]
    if not learner:
        raise ValueError(f"whose is it? Name it LEARNER_{path.name}.")
    if not known and not named:
        raise ValueError(
            problem or 'no exercise: it has no qc.check("NN.qN", ...) of the course.'
        )
    return Submission(learner, (known or named)[0], path, cells, problem)


def _exercise_names() -> dict[str, str]:
    """Return the name of each exercise by its lesson, as in "01": "01_family"."""
    asked = question.questions()
    return {one.lesson: one.look[1].partition(".ipynb")[0].lower() for one in asked}


def _learner(inside: Path, names: Iterable[str]) -> str:
    """Return the learner that a path names, or "".

    >>> _learner(Path("Ada/x.ipynb"), []), _learner(Path("01_a_Bo.ipynb"), ["01_a"])
    ('Ada', 'Bo')
    """
    if len(inside.parts) > 1:
        return inside.parts[0]
    rest = COPY.sub("", inside.stem)
    for name in names:
        rest = re.sub(re.escape(name), "", rest, flags=re.IGNORECASE)
    return rest.strip(" _-.")


def code_cells(path: Path) -> tuple[str, ...]:
    """Return the sources of a notebook's code cells.

    Raises ValueError for a file that is no notebook; what its metadata says is not
    looked at.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST / 1e6:.0f} MB.")
    try:
        content = json.loads(path.read_bytes())
        cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        return tuple("".join(cell["source"]) for cell in cells)
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise ValueError(
            f"it is no notebook of format 4 ({type(error).__name__})."
        ) from error


# Running


def _run_all(
    submissions: Sequence[Submission],
    seed: int,
    jobs: int | None,
    limits: Limits,
    hidden: list[str],
) -> Generator[Run, None, None]:
    """Yield what came of each submission, in order; some run at the same time."""
    stop, fonts = threading.Event(), _fonts()

    def one(submission: Submission) -> Run:
        if submission.problem or stop.is_set():
            return Run(limit=submission.problem or "stopped")
        return sandbox.run(submission.cells, seed, limits, hidden, fonts, stop)

    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        try:
            yield from pool.map(one, submissions)
        finally:  # of Ctrl-C too: the pool waits for those that run
            stop.set()


def _fonts() -> str:
    """Return matplotlib's cache, with its list of fonts in it."""
    import matplotlib
    import matplotlib.font_manager  # noqa: F401  makes the list

    return matplotlib.get_cachedir()


def _hidden(folder: Path) -> list[str]:
    """Return the folders that no submission needs to see, but for what all need."""
    package = Path(qwen_course.__file__).resolve().parent
    needed = [package, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    wanted = [package / "exercises" / "judges", folder.resolve()]
    wanted += [package.parent / name for name in ("solutions", "tests")]
    return [
        str(one)
        for one in wanted
        if one.is_dir() and not any(path.is_relative_to(one) for path in needed)
    ]


# Judging


def verdict(asked: Question, submission: Submission, run: Run, seed: int) -> Feedback:
    """Return the verdict on one question of a submission."""
    looked = run.seen.get(asked.id)
    if looked is not None:
        if not well_formed(looked):
            looked = {"failed": "no form that a check writes"}
        return checking.judge(asked, looked, seed)
    mine = [n for n, cell in enumerate(submission.cells) if asked.id in _ids(cell)]
    errors = [run.errors[number] for number in mine if number in run.errors]
    if errors:
        text = f"The cell with its check failed: {errors[-1]}"
        return Feedback(asked.id, asked.title, "not yet", text, "check-fails")
    return Feedback(asked.id, asked.title, "to do", _unseen(submission, run, mine))


def well_formed(looked: Any) -> bool:
    """Return whether an observation has exactly a form that `checking.look` gives.

    >>> well_formed({"seen": 42}), well_formed({"seen": 42, "status": "right"})
    (True, False)
    """
    if not isinstance(looked, dict) or len(looked) != 1:
        return False
    ((kind, value),) = looked.items()
    kinds = {"stub": bool, "seen": object, "odd": str, "late": bool, "failed": str}
    return isinstance(value, kinds.get(kind, ()))


def _ids(cell: str) -> list[str]:
    return [".".join(found) for found in CHECK.findall(cell)]


def _unseen(submission: Submission, run: Run, mine: list[int]) -> str:
    """Say why there is no observation of a question."""
    if submission.problem:
        return f"The file could not be run: {submission.problem}"
    if not mine:
        return "The notebook has no check of this question."
    if run.limit:
        where = "" if run.cell is None else f" in code cell {run.cell + 1}"
        return f"The notebook was over{where}, before this check ({run.limit})."
    return "The check of this question did not report."
