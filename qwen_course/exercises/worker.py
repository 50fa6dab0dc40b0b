"""Runs one submitted notebook, in a process that `sandbox` started and watches.

Reads its task from stdin: one JSON object. Writes to stdout what happened: one JSON
object a line, each with the nonce of the task. A submission's own prints go nowhere.

The expected values never enter this process: it imports probes and refuses to import
judges. What that does not stop: a submission runs in this very process, and code that
searches it finds the recorder and the nonce. With them it can claim that a probe saw
something, and the grader judges the claim like any other. So a forger still has to know
the right values, for cases made from a seed that was drawn when grading began.
"""

import contextlib
import ctypes
import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import qwen_course
from qwen_course.exercises import checking, limits

JUDGES = f"{__package__}.judges"
LONGEST_LINE = 4_000_000  # characters
FILE_BYTES = 50_000_000  # of any one file
DISK = b"size=256m"  # of the working folder, where it is one of our own

Say = Callable[[dict[str, Any]], None]


class NoJudges(MetaPathFinder):
    """Refuses to import what knows the right answers."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Raise ImportError for judges; for the rest let others look."""
        if fullname == JUDGES or fullname.startswith(f"{JUDGES}."):
            raise ImportError(f"{fullname} is not there while a submission is graded.")


def recorder(channel: int, nonce: str) -> Say:
    """Return a function that writes one line to the grader.

    It keeps what it needs, so that a submission that replaces `json.dumps` or
    `os.write` loses nothing. A forked child has a copy of it, but no say.
    """
    write, dumps, my_pid, owner = os.write, json.dumps, os.getpid, os.getpid()

    def say(what: dict[str, Any]) -> None:
        if my_pid() != owner:
            return
        line = dumps({**what, "nonce": nonce})
        if len(line) > LONGEST_LINE:
            odd = {"odd": "too long to be handed in"}
            line = dumps({"id": what.get("id"), "looked": odd, "nonce": nonce})
        # The leading break ends a line that somebody else left open.
        write(channel, f"\n{line}\n".encode())

    return say


# Limits of this process and its children


def limit(seconds: float, memory_bytes: int) -> None:
    """Limit CPU time, memory and the size of files, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = {
        resource.RLIMIT_CPU: int(seconds) + 5,  # ends a loop whose grader was killed
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def make_read_only(work: str, hidden: Sequence[str]) -> bool:
    """Leave nothing to write to but `work`, and empty folders in place of `hidden`.

    Only in namespaces of its own, where a process is number 1: elsewhere this would
    change the whole machine. Returns whether it worked.
    """
    if os.getpid() != 1:
        return False
    nosuid_nodev, read_only, remount, bind = 2 | 4, 1, 32, 4096
    own = [work] + [folder for folder in ("/dev/shm",) if os.path.isdir(folder)]
    for point in _mount_points():
        kept = os.statvfs(point).f_flag & 0b1110  # nosuid, nodev, noexec
        _mount(None, point, kept | read_only | remount | bind)
    for folder in own:
        _mount(b"tmpfs", folder, nosuid_nodev, DISK)
    for folder in hidden:
        _mount(b"tmpfs", folder, nosuid_nodev | read_only)
    return not any(os.access(folder, os.W_OK) for folder in ("/", __file__, *hidden))


def _mount_points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points = [_unescaped(line.split()[4]) for line in lines]
    return [point for point in points if os.path.exists(point)]


def _unescaped(path: bytes) -> str:
    r"""Return a path of mountinfo, which writes a space as three octal digits.

    >>> _unescaped(rb"/mnt/a\040disk")
    '/mnt/a disk'
    """
    return os.fsdecode(re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), path))


def _mount(
    kind: bytes | None, target: str, flags: int, data: bytes | None = None
) -> None:
    """Mount, or leave it as it was: `make_read_only` looks at what came of it."""
    libc = ctypes.CDLL(None)
    libc.mount(kind, os.fsencode(target), kind, ctypes.c_ulong(flags), data)


# Running a notebook


def shell() -> Any:
    """Return an IPython that keeps no history and formats errors quickly."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def _tee(self, channel: str) -> Any:
            # IPython 9 keeps all that is printed: a gigabyte, if need be.
            return contextlib.nullcontext()

    quiet = Config()
    quiet.HistoryManager.enabled = False
    quiet.InteractiveShell.xmode = "Minimal"
    return Shell.instance(config=quiet)


def run(cells: Sequence[str], say: Say) -> None:
    """Run the cells in order, and go on after one that fails."""
    ipython = shell()
    for number, source in enumerate(cells):
        say({"cell": number})
        result = ipython.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            say({"cell": number, "error": limits.words(error)})


def main() -> None:
    """Carry out the task on stdin."""
    task = json.load(sys.stdin)
    channel = os.dup(1)  # closed in whatever program the submission starts
    sys.meta_path.insert(0, NoJudges())
    limit(task["seconds"], task["memory_bytes"])
    work = os.getcwd()
    read_only = make_read_only(work, task["hidden"])
    os.chdir(work)  # what is mounted there now
    _bring_fonts(task["fonts"], os.environ["MPLCONFIGDIR"])

    say = recorder(channel, task["nonce"])
    checking.recorder = lambda id, looked: say({"id": id, "looked": looked})
    checking.recorder_seed = task["seed"]
    for name in ("hint", "progress"):  # they ask the judges
        setattr(qwen_course, name, _nothing)
    say({"ready": True, "read_only": read_only})
    _be_silent()
    run(task["cells"], say)
    say({"end": True})
    os._exit(0)  # without waiting for threads that the submission left


def _bring_fonts(source: str, target: str) -> None:
    """Copy matplotlib's list of fonts, which takes seconds to make."""
    os.makedirs(target, exist_ok=True)
    for file in glob.glob(f"{glob.escape(source)}/fontlist-*.json"):
        shutil.copy(file, target)


def _nothing(*arguments: Any, **named: Any) -> None:
    """Do nothing."""


def _be_silent() -> None:
    """Put nothing in the place of stdin, stdout and stderr."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


if __name__ == "__main__":
    main()
