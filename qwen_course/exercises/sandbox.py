"""Run a submission in a process of its own, watch it, and end all that is left of it.

Three layers, each used where the system has it:

- Linux namespaces (`unshare`): no network, no sight of other processes, a file system
  that can only be read, but for a small folder in memory. Whatever the submission
  started dies with it.
- Limits that the kernel keeps for a process (`resource`): CPU time, memory, file size.
- A watch from outside (`psutil`), on every system: wall time, memory and number of the
  whole family of processes, length of the output. At the end it kills the family, and
  everything that carries the submission's mark in its environment.

The result channel is an open file without a name, not a pipe: nobody has to read while
the submission runs, and a child that outlives it can't keep the grader waiting.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from qwen_course.isolation import bare_environment, namespaces

WORKER = f"{__package__}.worker"
MARK = "QWEN_COURSE_SUBMISSION"
LONGEST_OUTPUT = 16_000_000  # bytes
MOST_PROCESSES = 40
LOOK_EVERY = 0.1  # seconds
# Of the memory of a submission, what one process may hold as its own. The rest is for
# what the watch counts and the kernel's limit does not, such as the pages of libraries:
# without it the watch may end a whole notebook before its cell gets a MemoryError.
OF_ONE_PROCESS = 7 / 8

NO_BOUNDARY = (
    "This is no security boundary. It keeps accidents and clumsy tricks from costing "
    "anybody else points. For code that you do not trust, run this command in a "
    "container or a virtual machine without a network, and throw that away afterwards."
)


@dataclass(frozen=True)
class Limits:
    """What one submission may use: wall time, and memory of all its processes."""

    seconds: float = 120
    memory_gb: float = 3

    def __post_init__(self) -> None:
        for name, most in vars(self).items():
            if most <= 0:
                raise ValueError(f"{name} is {most}: nothing can run in that.")


@dataclass
class Run:
    """What came of one submission.

    `seen` holds the last observation of each question, `errors` the errors by cell,
    `limit` the limit it ran into or "", `cell` the last one begun.
    """

    seconds: float = 0.0
    limit: str = ""
    cell: int | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    read_only: bool = False


def run(
    cells: Sequence[str],
    seed: int,
    limits: Limits,
    hidden: Sequence[str] = (),
    fonts: str = "",
    stop: threading.Event | None = None,
) -> Run:
    """Run a notebook's code cells under limits and return what came of it.

    `hidden` are folders that it must not see, `fonts` is matplotlib's cache; `stop`
    ends it early from another thread.
    """
    mark, nonce = secrets.token_hex(16), secrets.token_hex(16)
    task = {
        "cells": list(cells), "seed": seed, "nonce": nonce, "hidden": list(hidden),
        "fonts": fonts, "seconds": limits.seconds,
        "memory_bytes": int(OF_ONE_PROCESS * limits.memory_gb * 2**30),
    }  # fmt: skip
    began = time.monotonic()
    with _folder() as work, tempfile.TemporaryFile() as said:
        process = _start(task, work, said, mark)
        known: set[psutil.Process] = set()
        try:
            limit = _watch(process, known, said, limits, stop or threading.Event())
        finally:
            _end_all(process, known, mark)
        result = _read(said, nonce)
    result.seconds = time.monotonic() - began
    result.limit = limit or result.limit
    return result


def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(
        prefix="qwen-course-grade-", ignore_cleanup_errors=True
    )


def _start(
    task: dict[str, Any], work: str, said: IO[bytes], mark: str
) -> subprocess.Popen:
    """Start a worker: its task in stdin, what it says in `said`."""
    with tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps(task).encode())
        stdin.seek(0)
        return subprocess.Popen(
            [*namespaces(), sys.executable, "-m", WORKER],
            stdin=stdin,
            stdout=said,
            stderr=said,  # until it is ready; says why it did not start
            cwd=work,
            env=_environment(work, mark),
            start_new_session=True,
        )


def _environment(work: str, mark: str) -> dict[str, str]:
    """Return the variables of a submission: a home of its own, one thread, no Hub."""
    bare = bare_environment(work, also=("PYTHONPATH",))
    package = str(Path(__file__).parents[2])  # also where it is not installed
    paths = [package, *filter(None, [bare.get("PYTHONPATH")])]
    return bare | {
        MARK: mark,
        "CUDA_VISIBLE_DEVICES": "",  # the same for everybody, whatever is in use
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": os.path.join(work, ".ipython"),
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": os.path.join(work, ".matplotlib"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip


def _watch(
    process: subprocess.Popen,
    known: set[psutil.Process],
    said: IO[bytes],
    limits: Limits,
    stop: threading.Event,
) -> str:
    """Wait for the end of a worker; return the limit that it ran into, or "".

    Adds to `known` whatever process is seen in its family.
    """
    until = time.monotonic() + limits.seconds
    while process.poll() is None:
        if stop.wait(LOOK_EVERY):
            return "stopped"
        family = _family(process.pid)
        known.update(family)
        if time.monotonic() > until:
            return "time"
        if len(family) > MOST_PROCESSES:
            return "processes"
        if sum(map(_memory, family)) > limits.memory_gb * 2**30:
            return "memory"
        if os.fstat(said.fileno()).st_size > LONGEST_OUTPUT:
            return "output"
    return ""


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _marked(mark: str) -> Iterator[psutil.Process]:
    """Find what a submission started, also if it went away from its family."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                yield process
        except (psutil.Error, OSError):
            continue  # another user's, or gone


def _end_all(process: subprocess.Popen, known: set[psutil.Process], mark: str) -> None:
    """Kill a worker and all that it started, until nothing is left."""
    for _ in range(20):
        known.update(_family(process.pid), _marked(mark))
        left = {one for one in known if _lives(one)}
        for one in left:
            try:
                one.kill()
            except psutil.Error:
                continue
        process.poll()
        if not left:
            return
        psutil.wait_procs(left, timeout=1)


def _read(said: IO[bytes], nonce: str) -> Run:
    """Read what a worker said; lines without the nonce are nobody's."""
    result, ended, ready = Run(), False, False
    said.seek(0)
    raw = said.read(LONGEST_OUTPUT)
    for line in map(_parsed, raw.split(b"\n")):
        if line.get("nonce") != nonce:
            continue
        ready = ready or "ready" in line
        ended = ended or "end" in line
        _keep(result, line)
    if not ready:
        result.limit = f"did not start: {_last_line(raw)}"
    elif not ended:
        result.limit = "ended early"
    return result


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no plain number")


def _keep(result: Run, line: dict[str, Any]) -> None:
    """Put one line of a worker in its place; what has no known form has none."""
    cell, error, id = line.get("cell"), line.get("error"), line.get("id")
    if isinstance(id, str):
        result.seen[id] = line.get("looked")
    elif type(cell) is int:
        result.cell = cell
        if isinstance(error, str):
            result.errors[cell] = error
    elif "ready" in line:
        result.read_only = line.get("read_only") is True


def _last_line(raw: bytes) -> str:
    lines = raw.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no reason given"


def limited_here() -> list[str]:
    """Say what is limited on this system; a sentence with NOT says what isn't."""
    said = [
        "Wall time, memory of all processes together, their number and the output.",
        "Each submission has a working folder and a home of its own.",
    ]
    kept_by_the_kernel = "CPU time and the size of a file."
    if os.name == "posix":
        said.append(kept_by_the_kernel)
    else:
        said.append(f"NOT limited here: {kept_by_the_kernel}")
    if namespaces():
        return [
            *said,
            "No network, no sight of other processes, none left at the end.",
            "Files outside the working folder can be read only; submissions, "
            "solutions and judges can't be seen.",
        ]
    return [
        *said,
        "NOT limited here: the network (only the Hub is switched off), files of yours "
        "(they can be read, changed and deleted), signals to other processes. Linux "
        "limits these where it allows unshare.",
    ]
