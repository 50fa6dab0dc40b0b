"""Run code that a model wrote, in a process of its own with limits, and test it.

Never run such code in the kernel: it may loop for ever, fill the memory, delete files
or read your keys, and it need not mean to. `run_code` starts Python afresh (`-I -S`:
the standard library alone), without your environment's variables and in an empty
folder that is deleted afterwards, and kills it when a limit is reached.

    result = run_code("def add(a, b): return a - b", ["assert add(2, 3) == 5"])
    result.passed, result.error  ->  False, "add(2, 3) returned -1, expected 5."

This is no security boundary: it keeps accidents and clumsy tricks away from you. For
code that somebody might have written to harm you, use a container or a virtual machine
without a network. `limited_here()` says what is limited on your system.
"""

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qwen_course.isolation import bare_environment, namespaces

WORKER = Path(__file__).with_name("sandbox_worker.py")
PATIENCE = 20.0  # seconds that a worker may take to start, on a busy machine
NO_BOUNDARY = (
    "This is no security boundary. It keeps accidents and clumsy tricks away from you; "
    "for code that might want to harm you, use a container or a virtual machine."
)


@dataclass(frozen=True)
class RunResult:
    """What came of one run.

    `error` says in a sentence what went wrong, short enough for a prompt that asks the
    model to try again; "" when all tests passed. `output` is what the code printed, cut
    at 10,000 characters. `limit` names the limit that ended the run: "time", "memory",
    "files", "network", "processes" or "".
    """

    passed: bool
    error: str = ""
    output: str = ""
    limit: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """Code to run, and the tests that decide: each is such as `assert f(2) == 4`."""

    code: str
    tests: tuple[str, ...] = ()


def run_code(
    code: str,
    tests: str | Sequence[str] = (),
    seconds: float = 2.0,
    memory_mb: int = 256,
    packages: bool = False,
) -> RunResult:
    """Run `code`, then each of `tests`, and return how it went; never raises for them.

    A test is Python: `assert f(2) == 4` gives the best message. One text holds one test
    a statement. Without tests the code has passed when it ran to its end. `packages`
    lets it import what is installed, such as sympy; that takes time and memory. Raises
    ValueError for limits in which nothing can run, TypeError for code that is no text.

    >>> run_code("while True: pass", seconds=0.3).limit
    'time'
    """
    return run_many([(code, tests)], seconds, memory_mb, packages)[0]


def run_many(
    jobs: Sequence[tuple[str, str | Sequence[str]]],
    seconds: float = 2.0,
    memory_mb: int = 256,
    packages: bool = False,
) -> list[RunResult]:
    """Run many `(code, tests)`, each with the limits of `run_code` to itself.

    On Linux and macOS one warm worker forks for each job, which takes a few
    milliseconds; on Windows each job starts Python anew.
    """
    _check(seconds, memory_mb)
    prepared = [_job(code, tests) for code, tests in jobs]
    shares = [prepared] if can_fork() else [[job] for job in prepared]
    return [
        result
        for share in shares
        for result in _in_worker(share, seconds, memory_mb, packages)
    ]


def can_fork() -> bool:
    """Return whether this system copies a warm process: all but Windows do."""
    return hasattr(os, "fork")


def limited_here() -> list[str]:
    """Say what is limited on this system; a sentence with NOT says what isn't."""
    said = [
        "Wall time, the length of the output, and what is passed on: no variables of "
        "your environment, no installed packages.",
        "Python's own calls that write files, read files of yours, open connections "
        "or start processes are refused. Code that gets around Python is not.",
    ]
    if sys.platform == "darwin":
        said.append("The system limits CPU time, and lets no file grow.")
        said.append("NOT limited here: memory. Linux limits it.")
    elif can_fork():
        said.append("The system limits CPU time and memory, and lets no file grow.")
    else:
        said.append("NOT limited here: memory and CPU time. Linux limits them.")
    if namespaces():
        said.append("No network at all, no sight of other processes, none left behind.")
    else:
        said.append(
            "NOT limited here by the system: the network, signals to other processes. "
            "Linux limits these where it allows unshare."
        )
    return [*said, NO_BOUNDARY]


def _check(seconds: float, memory_mb: int) -> None:
    for name, most in (("seconds", seconds), ("memory_mb", memory_mb)):
        if isinstance(most, bool) or not isinstance(most, int | float) or most <= 0:
            raise ValueError(f"{name} is {most!r}: give a number above 0.")


def _job(code: str, tests: str | Sequence[str]) -> Job:
    if not isinstance(code, str):
        raise TypeError(
            f"the code is of type {type(code).__name__}; give it as text, such as "
            "reply.answer without its fence."
        )
    return Job(code, tuple(_statements(tests) if isinstance(tests, str) else tests))


def _statements(text: str) -> list[str]:
    """Cut a text of tests into its statements; what cannot be parsed stays whole."""
    try:
        found = ast.parse(text).body
    except SyntaxError:
        return [text]
    return [ast.get_source_segment(text, one) or "" for one in found]


def _in_worker(
    jobs: list[Job], seconds: float, memory_mb: int, packages: bool
) -> list[RunResult]:
    """Run jobs in one worker; what it leaves undone was ended by a limit."""
    task = {
        "jobs": [asdict(job) for job in jobs],
        "seconds": seconds,
        "memory_bytes": int(memory_mb * 2**20),
        "fork": can_fork(),
    }
    lines = _said(json.dumps(task), PATIENCE + seconds * len(jobs), packages)
    results = [RunResult(**json.loads(line)) for line in lines]
    late = RunResult(False, f"The code took longer than {seconds:g} seconds.",
                     limit="time", seconds=seconds)  # fmt: skip
    return results + [late] * (len(jobs) - len(results))


def _said(task: str, seconds: float, packages: bool) -> list[str]:
    """Start a worker, give it its task, and return its whole lines within the time."""
    isolated = ["-I"] if packages else ["-I", "-S"]
    with (
        tempfile.TemporaryDirectory(
            prefix="qwen-course-run-", ignore_cleanup_errors=True
        ) as folder,
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
    ):
        process = subprocess.Popen(
            [*namespaces(), sys.executable, *isolated, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=bare_environment(folder) | {"PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        try:
            process.communicate(task.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process)
        said.seek(0)
        return [line for line in said.read().splitlines(True) if line.endswith("\n")]


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
