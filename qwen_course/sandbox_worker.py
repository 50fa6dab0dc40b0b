"""Runs model-written code in a process that `sandbox` started.

Reads one task from stdin, a JSON object, and writes one JSON line for each job. Where
the system can fork, every job has a process of its own, whose limits the kernel keeps.
Standard library only: it runs as a file, in a Python that finds no other package.
"""

import ast
import contextlib
import functools
import io
import json
import math
import os
import select
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from typing import Any

LONGEST_VALUE = 80  # characters of a value in an error message
LONGEST_OUTPUT = 10_000  # characters of what the code prints
LONGEST_REPORT = 200_000  # bytes


def define(code: str) -> tuple[dict[str, Any], str]:
    """Run the code itself and return its names, and what went wrong ("" if nothing)."""
    space: dict[str, Any] = {"__name__": "answer"}
    try:
        exec(compile(code, "answer.py", "exec"), space)
    except SyntaxError as error:
        return space, f"SyntaxError: {error.msg} (line {error.lineno})."
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return space, f"The code raised {_named(error)}."
    return space, ""


def first_failure(space: dict[str, Any], tests: list[str]) -> str:
    """Return what the first failing test shows, or "" when all pass.

    >>> space, _ = define("def add(a, b): return a - b")
    >>> first_failure(space, ["assert add(2, 3) == 5"])
    'add(2, 3) returned -1, expected 5.'
    """
    return next(filter(None, (run_test(space, test) for test in tests)), "")


def run_test(space: dict[str, Any], test: str) -> str:
    """Run one test, such as `assert f(2) == 5`; return how it failed, or ""."""
    equation = equation_of(test)
    if equation is None:
        return _run_statements(space, test)
    call, expected = equation
    wanted = eval(expected, dict(space))
    try:
        value = eval(call, space)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return f"{_short(call)} raised {_named(error)}, expected {_short(expected)}."
    if same(value, wanted):
        return ""
    return f"{_short(call)} returned {_shown(value)}, expected {_short(expected)}."


def equation_of(test: str) -> tuple[str, str] | None:
    """Return both sides of `assert CALL == VALUE`; None for any other test."""
    statements = ast.parse(test).body
    if len(statements) != 1 or not isinstance(statements[0], ast.Assert):
        return None
    claim = statements[0].test
    if not isinstance(claim, ast.Compare) or len(claim.ops) != 1:
        return None
    if not isinstance(claim.ops[0], ast.Eq):
        return None
    left = ast.get_source_segment(test, claim.left)
    right = ast.get_source_segment(test, claim.comparators[0])
    return (left, right) if left and right else None


def same(value: Any, wanted: Any) -> bool:
    """Return whether two values are equal, floats up to rounding."""
    if isinstance(value, float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-12)
    return type(value == wanted) is bool and value == wanted


def too_long(test: str, seconds: float) -> str:
    """Return the error of a test that was ended; "" stands for the code itself."""
    return f"{_running(test)} took longer than {seconds:g} seconds."


def _running(test: str) -> str:
    return _short((equation_of(test) or (test, ""))[0]) if test else "The code"


def _run_statements(space: dict[str, Any], test: str) -> str:
    try:
        exec(compile(test, "test.py", "exec"), dict(space))
    except AssertionError as error:
        return f"{_short(test)} failed{f': {error}' if str(error) else ''}."
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return f"{_short(test)} raised {_named(error)}."
    return ""


def _named(error: BaseException) -> str:
    text = _short(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shown(value: Any) -> str:
    try:
        return _short(repr(value))
    except Exception as error:
        return f"something whose repr raised {type(error).__name__}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


# The process of a job


class Output(io.StringIO):
    """Keeps what is printed, up to a length."""

    def write(self, text: str) -> int:
        """Keep what still fits."""
        super().write(text[: max(0, LONGEST_OUTPUT - self.tell())])
        return len(text)


REFUSED = {
    "files": (
        "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod",
        "os.chown", "os.link", "os.symlink", "os.utime", "os.mkfifo", "os.mknod",
        "sqlite3.connect", "_winapi.CreateFile", "winreg.CreateKey", "winreg.SetValue",
        "winreg.DeleteKey", "winreg.DeleteValue",
    ),
    "network": (
        "socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo",
        "socket.gethostbyname", "urllib.Request",
    ),
    "processes": (
        "subprocess.Popen", "_winapi.CreateProcess", "os.system", "os.exec", "os.fork",
        "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill",
        "os.killpg", "ctypes.dlopen", "ctypes.dlsym", "pty.spawn",
        "signal.pthread_kill",
    ),
}  # fmt: skip
WHAT = {
    "files": "use files",
    "network": "use the network",
    "processes": "start or end a process",
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


@functools.cache
def readable_folders() -> tuple[str, ...]:
    """Return where Python's own files are."""
    folders = [*sysconfig.get_paths().values(), *sys.path]
    return tuple({os.path.realpath(folder) for folder in folders})


def forbid(refused: list[str]) -> None:
    """Refuse Python's calls that reach beyond the process; note them in `refused`.

    A hook cannot be taken away again, so this belongs into a process of its own.
    """
    limits = {event: limit for limit, events in REFUSED.items() for event in events}
    readable = readable_folders()

    def hook(event: str, arguments: tuple) -> None:
        limit = limits.get(event, "")
        if event == "ctypes.dlopen" and arguments[0] is None:
            limit = ""  # every import of ctypes does this
        if event == "open" and not _may_open(arguments[0], arguments[2], readable):
            limit = "files"
        if limit:
            refused.append(limit)
            raise PermissionError(f"this code may not {WHAT[limit]}")

    sys.addaudithook(hook)


def _may_open(path: Any, flags: Any, readable: tuple[str, ...]) -> bool:
    """Return whether a file is one of Python's own, and opened for reading.

    What does not exist may be opened, and is not found: Python itself looks for the
    source of a syntax error.
    """
    if isinstance(flags, int) and flags & WRITES:
        return False
    if not isinstance(path, str | bytes):
        return isinstance(path, int)
    real = os.path.realpath(os.fsdecode(path))
    return real.startswith(readable) or not os.path.exists(real)


def limit_process(seconds: float, memory_bytes: int) -> None:
    """Set the limits that the kernel keeps, where the system has them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = {
        resource.RLIMIT_CPU: math.ceil(seconds) + 1,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # macOS does not limit the address space
            continue


def carry_out(job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """Run the code of a job and its tests; report each test begun, then the result."""
    refused: list[str] = []
    sys.stdout = sys.stderr = output = Output()
    sys.stdin = io.StringIO()
    forbid(refused)
    try:
        space, error = define(job["code"])
        for number, test in enumerate(job["tests"]):
            if error:
                break
            report({"test": number})
            error = run_test(space, test)
    except BaseException as raised:
        error = f"The code raised {_named(raised)}."
    limit = refused[0] if refused else "memory" if "MemoryError" in error else ""
    if refused and "may not" not in error:  # the code went on as if nothing were
        error = f"The code tried to {WHAT[limit]}, which it may not."
    report({"passed": not error, "error": error, "limit": limit,
            "output": output.getvalue()})  # fmt: skip


def run_here(job: dict[str, Any], seconds: float) -> None:
    """Run one job where nothing can fork: in this very process, and end it."""
    begun = ""

    def report(what: dict[str, Any]) -> None:
        nonlocal begun
        begun = job["tests"][what["test"]] if "test" in what else begun
        _say(what)

    def give_up() -> None:
        error = too_long(begun, seconds)
        _say({"passed": False, "error": error, "limit": "time", "seconds": seconds})
        os._exit(0)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    carry_out(job, report)
    os._exit(0)


# The worker


def run_in_fork(
    job: dict[str, Any], seconds: float, memory_bytes: int
) -> dict[str, Any]:
    """Run a job in a forked process and return its result; it is killed when late."""
    began = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _be_a_job(job, seconds, memory_bytes, reader, writer)
    os.close(writer)
    said, late = _read(reader, began + seconds)
    os.close(reader)
    ending = _end(child)
    result = _result(job, said, late, ending, seconds)
    return {**result, "seconds": round(time.monotonic() - began, 3)}


def _be_a_job(job, seconds: float, memory_bytes: int, reader: int, writer: int) -> None:
    """Be the process of a job, from its beginning to its end."""
    try:
        os.setsid()
        os.close(reader)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        signal.setitimer(signal.ITIMER_REAL, seconds + 1)  # if the worker is no more
        limit_process(seconds, memory_bytes)
        write, dumps = os.write, json.dumps

        def report(what: dict[str, Any]) -> None:
            write(writer, dumps(what).encode() + b"\n")

        carry_out(job, report)
    finally:
        os._exit(0)


def _read(reader: int, until: float) -> tuple[bytes, bool]:
    """Return what a job said, and whether the time was over before its end."""
    said = b""
    while len(said) < LONGEST_REPORT:
        ready, _, _ = select.select([reader], [], [], max(0, until - time.monotonic()))
        if not ready:
            return said, True
        piece = os.read(reader, 65536)
        if not piece:
            break
        said += piece
    return said, False


def _end(child: int) -> int:
    """Kill a job and what it started; return the signal that it ended with, or 0."""
    for kill, whom in ((os.killpg, child), (os.kill, child)):
        try:
            kill(whom, signal.SIGKILL)
        except OSError:
            continue
    status = os.waitpid(child, 0)[1]
    if os.getpid() == 1:  # in a namespace of our own: nobody else is here
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _result(
    job: dict[str, Any], said: bytes, late: bool, ending: int, seconds: float
) -> dict[str, Any]:
    lines = [json.loads(line) for line in said.splitlines() if line.endswith(b"}")]
    if lines and "passed" in lines[-1]:
        return lines[-1]
    test = job["tests"][lines[-1]["test"]] if lines else ""
    if late or ending in (signal.SIGALRM, signal.SIGXCPU):
        error, limit = too_long(test, seconds), "time"
    else:
        error, limit = f"{_running(test)} ended the process.", "processes"
    return {"passed": False, "error": error, "limit": limit}


def main() -> None:
    """Carry out the task on stdin."""
    task = json.load(sys.stdin)
    limits = task["seconds"], task["memory_bytes"]
    readable_folders()  # found once, for all the jobs
    if not task.get("fork", True):
        run_here(task["jobs"][0], task["seconds"])
    for job in task["jobs"]:
        _say(run_in_fork(job, *limits))


def _say(what: dict[str, Any]) -> None:
    if "passed" in what:
        os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
