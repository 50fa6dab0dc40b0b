"""Whatever a submission does, it costs nobody else points, and wins none for itself.

One run grades all the bad submissions below, in real processes with short limits; the
tests then look at what became of each. Their questions are those of a lesson 90, which
exists only here: double a number.
"""

import csv
import importlib.util
import os
import re
import shutil
import socket
import time
from pathlib import Path

import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, writes

from qwen_course import cli
from qwen_course.exercises import grade, mistakes, question, report, sandbox
from qwen_course.exercises.question import Mistake, Question
from qwen_course.exercises.sandbox import Limits, Run

ROOT = Path(__file__).resolve().parent.parent
PROBES = Path(__file__).parent / "data" / "grading"
TRUE_QUESTIONS = question.questions
SEED = 7
SECONDS = 20.0
MEMORY_GB = 0.5

IMPORTS = """
import os, time
import qwen_course as qc
from qwen_course.exercises import checking
"""
RIGHT = "def double(number):\n    return 2 * number"
WRONG = "def double(number):\n    return number ** 2"
CHECK = 'qc.check("90.q1", double)'

needs_namespaces = pytest.mark.skipif(
    not sandbox.namespaces(), reason="unshare is missing, or not allowed here"
)


def when(condition: str) -> str:
    """Return an answer that is right if a condition holds where it is run."""
    return f"{RIGHT}\nif not ({condition}):\n    double = abs"


def claim(observation: str) -> str:
    """Return a cell that hands an observation in by itself."""
    return f'checking.recorder("90.q1", {observation})'


LEFT_ALIVE = """
import subprocess, sys
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
command = [sys.executable, "-c", "import time; time.sleep(600)", "left-alive"]
subprocess.Popen(command, env={}, start_new_session=True)
time.sleep(1)
"""
DELETES = """
import shutil
for folder in (os.environ["HOME"], os.getcwd(), SUBMISSIONS):
    shutil.rmtree(folder, ignore_errors=True)
"""
LYING = """
class Any(int):
    __eq__ = lambda self, other: True
    __hash__ = int.__hash__

double = Any
"""
WRITES = """
line = '{"id": "90.q1", "looked": {"stub": true}, "nonce": ""}'
for name in os.listdir("/dev/fd"):
    try:
        if not os.isatty(int(name)):
            os.write(int(name), f"\\n{line}\\n{line}".encode())
    except OSError:
        pass
"""
CONNECTS = """
import socket

def connects():
    try:
        return socket.create_connection(("127.0.0.1", PORT), timeout=2)
    except OSError:
        return None
"""
JUDGES = "os.path.join(os.path.dirname(qc.__file__), 'exercises', 'judges')"

# name: (cells, status, mistake, limit or limits)
SUBMISSIONS = {
    "right": ([RIGHT, CHECK], "right", "", ""),
    "wrong": ([WRONG, CHECK], "not yet", "squares", ""),
    "stub": (["def double(number):\n    return ...", CHECK], "to do", "", ""),
    "last-check-right": ([WRONG, CHECK, RIGHT, CHECK], "right", "", ""),
    "last-check-wrong": ([RIGHT, CHECK, WRONG, CHECK], "not yet", "squares", ""),
    "asks-for-a-hint": (
        [RIGHT, f'qc.hint("90.q1"); qc.progress()\n{CHECK}'], "right", "", ""
    ),
    # Code that breaks
    "raises": (["1 / 0", "def (", RIGHT, CHECK], "right", "", ""),
    "check-raises": (["doubel = 2", CHECK], "not yet", "check-fails", ""),
    "error-without-text": (
        ["class Bad(Exception):\n    __str__ = None\nraise Bad", RIGHT, CHECK],
        "right", "", "",
    ),
    "sys-exit": (["import sys\nsys.exit(1)", "quit()", RIGHT, CHECK], "right", "", ""),
    "reads-stdin": (["input('now? ')", RIGHT, CHECK], "right", "", ""),
    # Code that does not end, or too soon
    "loop": ([RIGHT, CHECK, "while True:\n    pass"], "right", "", "time"),
    "exit-after": ([RIGHT, CHECK, "os._exit(0)"], "right", "", "ended early"),
    "exit-before": ([RIGHT, "os._exit(0)", CHECK], "to do", "", "ended early"),
    "exit-inside": (["double = os._exit", CHECK], "to do", "", "ended early"),
    # Code that takes all there is
    "memory": (
        ["hoard = []\nwhile True:\n    hoard.append(b'x' * 10**6)",
         "time.sleep(0.5)\ndel hoard", RIGHT, CHECK],
        "right", "", "",
    ),
    "memory-of-children": (
        ["for _ in range(4):\n    if os.fork() == 0:\n"
         "        hoard = b'x' * (200 * 2**20)\n        time.sleep(600)",
         "time.sleep(600)", RIGHT, CHECK],
        "to do", "", "memory",
    ),
    "processes": (
        ["for _ in range(60):\n    if os.fork() == 0:\n        time.sleep(600)",
         "time.sleep(600)", RIGHT, CHECK],
        "to do", "", "processes or memory",
    ),
    "gigabyte-printed": (
        ["for _ in range(1000):\n    print('x' * 10**6)", RIGHT, CHECK],
        "right", "", "",
    ),
    "gigabyte-printed-inside": (
        ["def double(number):\n    for _ in range(1000):\n        print('x' * 10**6)\n"
         "    return 2 * number", CHECK],
        "right", "", "",
    ),
    "large-file": (
        ["with open('large', 'wb') as file:\n    for _ in range(100):\n"
         "        file.write(bytes(10**6))",
         when("os.path.getsize('large') < 60e6"), CHECK],
        "right", "", "",
    ),
    "large-results": (
        [RIGHT, CHECK, "while True:\n    checking.recorder('90.q2', 'x' * 10**6)"],
        "right", "", "output",
    ),
    # Forks
    "forks": ([WRONG, "os.fork(); os.fork()", CHECK], "not yet", "squares", ""),
    "child-answers-again": (
        [WRONG, CHECK, "child = os.fork() == 0",
         f"if child:\n    double = lambda number: 2 * number\n    {CHECK}\n"
         "else:\n    os.wait()"],
        "not yet", "squares", "",
    ),
    "left-alive": ([LEFT_ALIVE, RIGHT, CHECK], "right", "", ""),
    # Other people's files
    "deletes": ([DELETES, RIGHT, CHECK], "right", "", ""),
    # Forgeries
    "equals-all": ([LYING, CHECK], "not yet", "odd-type", ""),
    "claims-right": ([claim("{'status': 'right'}")], "not yet", "odd-form", ""),
    "claims-more": (
        [claim("{'seen': [], 'status': 'right'}")], "not yet", "odd-form", ""
    ),
    "claims-seen": (
        [claim("{'seen': [{'value': True}] * 3}")], "not yet", "odd-form", ""
    ),
    "claims-nan": ([claim("{'seen': float('nan')}")], "to do", "", ""),
    "claims-object": ([claim("object()")], "to do", "", ""),
    "claims-much": ([claim("{'seen': 'x' * 5_000_000}")], "not yet", "odd-type", ""),
    "writes-results": ([WRONG, CHECK, WRITES], "not yet", "squares", ""),
    "writes-results-first": ([WRITES, RIGHT, CHECK], "right", "", ""),
    "replaces-check": (["qc.check = print", RIGHT, CHECK], "to do", "", ""),
    "replaces-json": (
        ["import json\njson.dumps = lambda *a, **k: '{}'\nos.write = print",
         RIGHT, CHECK],
        "right", "", "",
    ),
    "replaces-look": (
        ["checking.look = lambda *a: {'seen': 'right'}", RIGHT, CHECK],
        "not yet", "odd-form", "",
    ),
    "ends-recording": (["checking.recorder = None", RIGHT, CHECK], "to do", "", ""),
    # What it sees
    "imports-judges": (
        ["from qwen_course.exercises.judges import lesson_01 as double", CHECK],
        "not yet", "check-fails", "",
    ),
    "sees-token": ([when("'HF_TOKEN' not in os.environ"), CHECK], "right", "", ""),
    "sees-judges": ([when(f"not os.listdir({JUDGES})"), CHECK], "right", "", ""),
    "sees-neighbours": ([when("not os.listdir(SUBMISSIONS)"), CHECK], "right", "", ""),
    "sees-network": ([CONNECTS, when("not connects()"), CHECK], "right", "", ""),
    "sees-processes": (
        [when("all(int(p) < 50 for p in os.listdir('/proc') if p.isdigit())"), CHECK],
        "right", "", "",
    ),
}  # fmt: skip
NOT_EVERYWHERE = ("deletes", "sees-judges", "sees-neighbours", "sees-network",
                  "sees-processes")  # fmt: skip
BROKEN = {
    "no-json": "{",
    "no-cells": '{"cells": 3}',
    "old-format": '{"nbformat": 3, "worksheets": []}',
    "deep": "[" * 100_000,
}


def notebook(*cells: str) -> str:
    return writes(new_notebook(cells=[new_code_cell(cell) for cell in cells]))


def hand_in(folder: Path, learner: str, text: str, name: str = "90_double") -> Path:
    path = folder / learner / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load_probes():
    spec = importlib.util.spec_from_file_location("lesson_90", PROBES / "lesson_90.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


probes = load_probes()


def judge(seen, seed):
    """Judge question 90.q1; never runs where a submission runs."""
    for number, outcome in zip(probes.numbers(seed), seen, strict=True):
        if wrong := mistakes.of_call(outcome, f"double({number})"):
            return wrong
        if outcome["value"] == number**2:
            return Mistake("squares", "You squared it: <b>2</b> times is not **2.")
        if outcome["value"] != 2 * number:
            return Mistake("other", "That is not the double.")
    return None


def questions(lesson=None):
    asked = [
        Question(f"90.{name}", f"Double <b>{name}</b>", 1, "core", 5, judge,
                 ("First hint.", "Second hint."), ("Doubling", "90_double.ipynb#D"),
                 "It is the first multiplication.")
        for name in ("q1", "q2")
    ]  # fmt: skip
    return asked if lesson in (None, "90") else []


@pytest.fixture(scope="module")
def lesson_90(tmp_path_factory):
    """Lesson 90 is the only one, here and in every Python that starts."""
    place = tmp_path_factory.mktemp("lesson") / "90"  # no submission sees tests/
    shutil.copytree(PROBES, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(place))
        patch.setattr(question, "questions", questions)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("submissions")


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def grades(lesson_90, folder, out):
    """One run over all submissions, next to a server that none should reach."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("HF_TOKEN", "hf_secret")
        port = server.getsockname()[1]
        known = f"{IMPORTS}\nSUBMISSIONS, PORT = {str(folder)!r}, {port}"
        for name, (cells, *_) in SUBMISSIONS.items():
            if name not in NOT_EVERYWHERE or sandbox.namespaces():
                hand_in(folder, name, notebook(known, *cells))
        for name, text in BROKEN.items():
            hand_in(folder, name, text)
        limits = Limits(SECONDS, MEMORY_GB)
        return grade.grade(folder, out, jobs=2, limits=limits, seed=SEED)


@pytest.fixture
def of(grades):
    """A function from a learner to (the verdict on 90.q1, the run)."""
    graded = {one.submission.learner: one for one in grades.graded}
    return lambda learner: (graded[learner].verdicts[0], graded[learner].run)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_submission_gets_what_it_deserves(name, of):
    if name in NOT_EVERYWHERE and not sandbox.namespaces():
        pytest.skip("unshare is missing, or not allowed here")
    _, status, mistake, limit = SUBMISSIONS[name]
    verdict, run = of(name)
    told = (verdict.text, run.limit, run.errors)
    assert (verdict.status, verdict.mistake) == (status, mistake), told
    assert run.limit in limit.split(" or "), told


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_notebook_is_a_submission_without_points(name, of):
    verdict, run = of(name)
    assert verdict.status == "to do"
    assert "no notebook of format 4" in verdict.text
    assert "no notebook of format 4" in run.limit


def test_a_verdict_says_why_nothing_was_seen(of):
    assert (
        "in code cell 3, before this check (ended early)" in of("exit-before")[0].text
    )
    assert "NameError: name 'double'" in of("check-raises")[0].text
    assert "did not report" in of("replaces-check")[0].text
    other = Question("90.q3", "", 1, "core", 5, judge, ("", ""), ("", ""), "")
    empty = grade.Submission("ada", "90", Path("x.ipynb"))
    text = grade.verdict(other, empty, Run(), SEED).text
    assert text == "The notebook has no check of this question."


def processes_with(word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ()]
        except (psutil.Error, OSError):
            continue
        if word in told:
            found.append(process)
    return found


def test_nothing_is_left_running(grades):
    assert not processes_with(sandbox.MARK)
    assert not processes_with("left-alive")


def test_all_submissions_are_still_there(grades, folder):
    left = {path.parent.name for path in folder.glob("*/90_double.ipynb")}
    assert left == {one.submission.learner for one in grades.graded}


@needs_namespaces
def test_no_submission_could_change_a_file(grades):
    assert all(grade._was_apart(one) for one in grades.graded)
    assert grades.warnings() == []


# Where the system has no namespaces


@pytest.fixture
def no_namespaces(monkeypatch):
    monkeypatch.setattr(sandbox, "namespaces", tuple)


def test_without_namespaces_a_child_that_hid_is_killed_too(lesson_90, no_namespaces):
    run = sandbox.run([IMPORTS, LEFT_ALIVE, RIGHT, CHECK], SEED, Limits(SECONDS))
    assert [one["value"] for one in run.seen["90.q1"]["seen"]] == [
        2 * number for number in probes.numbers(SEED)
    ]
    assert not run.read_only
    assert not processes_with(sandbox.MARK)
    assert not processes_with("left-alive")


def test_without_namespaces_the_report_says_what_was_open(no_namespaces):
    (warning,) = grade.Grades(limited=sandbox.limited_here()).warnings()
    assert "the network" in warning
    assert "files of yours" in warning
    assert warning in grade.notes().replace("\n", " ")


def test_a_worker_that_cannot_start_is_no_empty_notebook(monkeypatch):
    monkeypatch.setattr(sandbox, "WORKER", "qwen_course.no_such_module")
    run = sandbox.run(["1"], SEED, Limits(SECONDS))
    assert run.limit.startswith("did not start: ")
    assert "qwen_course.no_such_module" in run.limit


def test_stopping_the_grader_ends_what_runs(lesson_90, tmp_path, monkeypatch):
    hand_in(tmp_path, "ada", notebook(IMPORTS, RIGHT, CHECK))
    for learner in ("bo", "cy", "di"):
        hand_in(tmp_path, learner, notebook(CHECK, "while True:\n    pass"))

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(grade, "verdict", stopped)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        grade.grade(tmp_path, tmp_path / "out", jobs=2, limits=Limits(600))
    assert time.monotonic() - began < 60
    assert not processes_with(sandbox.MARK)


# Finding


@pytest.mark.parametrize(
    ("place", "learner"),
    [
        ("Ada Lovelace/90_double.ipynb", "Ada Lovelace"),
        ("Ada/week 3/renamed.ipynb", "Ada"),
        ("ada_90_double.ipynb", "ada"),
        ("90_double_ada.ipynb", "ada"),
        ("90_Double-ada (1).ipynb", "ada"),
        ("ada_90_double-Copy2.ipynb", "ada"),
        ("ada.ipynb", "ada"),
    ],
)
def test_a_submission_is_known_by_place_name_and_checks(
    lesson_90, tmp_path, place, learner
):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook(RIGHT, CHECK))
    ((one,), refused) = grade.find(tmp_path)
    assert (one.learner, one.lesson, refused) == (learner, "90", [])


def test_what_is_no_submission_is_refused_in_a_sentence(lesson_90, tmp_path):
    hand_in(tmp_path, ".ipynb_checkpoints", notebook(CHECK))
    hand_in(tmp_path, "ada", notebook("print(1)"), "notes")
    hand_in(tmp_path, "", notebook(CHECK))
    hand_in(tmp_path, "bo", "{", "homework")
    submissions, refused = grade.find(tmp_path)
    assert submissions == []
    assert sorted(refused) == [
        "90_double.ipynb: whose is it? Name it LEARNER_90_double.ipynb.",
        f"{Path('ada/notes.ipynb')}: no exercise: it has no "
        'qc.check("NN.qN", ...) of the course.',
        f"{Path('bo/homework.ipynb')}: it is no notebook of format 4 "
        "(JSONDecodeError).",
    ]


def test_of_two_notebooks_the_newer_one_counts(lesson_90, tmp_path):
    for name, age in (("new", 10), ("old", 1000)):
        path = hand_in(tmp_path, "ada", notebook(CHECK), name)
        os.utime(path, (time.time() - age, time.time() - age))
    ((one,), refused) = grade.find(tmp_path)
    assert one.path.stem == "new"
    assert refused == [f"{Path('ada/old.ipynb')}: {Path('ada/new.ipynb')} is newer."]


def test_what_metadata_a_notebook_has_does_not_matter(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text('{"cells": [{"cell_type": "code", "source": ["a\\n", "b"]}]}')
    assert grade.code_cells(path) == ("a\nb",)


# The report


def test_the_table_has_a_line_a_question(grades, out):
    with (out / "results.csv").open(encoding="utf-8-sig") as file:
        rows = {(row["learner"], row["question"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * len(grades.graded)
    loop = rows["loop", "90.q1"]
    assert (loop["lesson"], loop["status"], loop["limit"]) == ("90", "right", "time")
    assert float(loop["seconds"]) >= SECONDS
    assert rows["wrong", "90.q1"]["mistake"] == "squares"


def test_the_page_shows_everybody_and_the_most_common_mistakes(grades, out):
    page = (out / "index.html").read_text(encoding="utf-8")
    for graded in grades.graded:
        assert f">{graded.submission.learner}</a>" in page
    assert "<td>90.q1</td><td>squares</td>" in page
    assert f"--seed {SEED}" in page
    assert "no security boundary" in page


def test_every_link_leads_to_a_page(grades, out):
    pages = re.findall(r'href="([^"]+)"', (out / "index.html").read_text("utf-8"))
    assert len(pages) == len(grades.graded)
    assert all((out / page).is_file() for page in pages)


def test_no_name_and_no_output_becomes_html(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    asked = questions()[0]
    verdict = grade.checking.Feedback(asked.id, evil, "not yet", evil, evil)
    one = grade.Submission(evil, "90", Path(f"{evil}.ipynb"))
    graded = grade.Graded(one, Run(limit=evil), (verdict,))
    report.write(grade.Grades([graded], [evil]), tmp_path)
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")]
    assert len(pages) == 2
    for page in pages:
        assert "<img" not in page
        assert "&lt;img" in page


def test_the_pages_need_nothing_else(grades, out):
    for path in out.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert not re.search(r"https?:|<script|<link|\bsrc=|url\(", page)


def test_a_spreadsheet_computes_no_name(tmp_path):
    verdict = grade.checking.Feedback("90.q1", "", "right", "")
    one = grade.Submission("=1+1", "90", Path("x.ipynb"))
    report.write_csv(
        grade.Grades([grade.Graded(one, Run(), (verdict,))]), tmp_path / "a.csv"
    )
    assert "\n'=1+1,90," in (tmp_path / "a.csv").read_text("utf-8-sig")


# The command


def test_the_command_grades(lesson_90, tmp_path, capsys):
    hand_in(tmp_path, "ada", notebook(IMPORTS, RIGHT, CHECK))
    options = ["--out", str(tmp_path / "out"), "--jobs", "1", "--seed", "3"]
    assert cli.main(["grade", str(tmp_path), *options]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Notebooks: 1. Learners: 1. Right answers: 1 of 2.")
    assert (tmp_path / "out" / "index.html").is_file()


def test_its_help_says_what_is_limited_and_that_this_is_no_boundary(capsys):
    with pytest.raises(SystemExit):
        cli.main(["grade", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "no security boundary" in text
    assert "container or a virtual machine" in text
    assert "Limited on this system" in text
    assert "LEARNER_NN_name.ipynb" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "holds no notebook"),
        (["--seconds", "0"], "seconds is 0"),
        (["--memory-gb", "-1"], "memory_gb is -1"),
        (["--jobs", "0"], "jobs is 0"),
    ],
)
def test_a_mistake_of_the_teacher_is_one_sentence(options, message, tmp_path, capsys):
    assert cli.main(["grade", str(tmp_path), *options]) == 1
    assert message in capsys.readouterr().err
    assert cli.main(["grade", str(tmp_path / "gone")]) == 1
    assert "there is no folder" in capsys.readouterr().err


# The course's own exercises


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The solutions, handed in by a solver, and the exercises, by a beginner."""
    folder = tmp_path_factory.mktemp("own")
    for learner, source in (("solver", "solutions"), ("beginner", "exercises")):
        shutil.copytree(ROOT / source, folder / learner)
    with pytest.MonkeyPatch.context() as patch:  # lesson 90 may still be the only one
        patch.setattr(question, "questions", TRUE_QUESTIONS)
        return grade.grade(folder, folder / "out", jobs=2)


def test_every_solution_is_right_for_cases_drawn_anew(own):
    solver = [one for one in own.graded if one.submission.learner == "solver"]
    verdicts = [verdict for one in solver for verdict in one.verdicts]
    assert len(solver) == len(list(ROOT.glob("solutions/*.ipynb")))
    assert [str(one) for one in verdicts if one.status != "right"] == []
    assert [one.run.limit for one in solver if one.run.limit] == []


def test_every_question_of_a_new_exercise_is_to_do(own):
    beginner = [one for one in own.graded if one.submission.learner == "beginner"]
    verdicts = [verdict for one in beginner for verdict in one.verdicts]
    assert {one.status for one in verdicts} == {"to do"}
    assert [one.run.limit for one in beginner if one.run.limit] == []
