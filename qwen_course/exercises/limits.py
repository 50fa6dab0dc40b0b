"""Call a learner's code: with a time limit, its mistakes caught, its inputs watched.

All of it runs in a thread of the learner's own process: this works in every notebook
and on every system, and an endless loop is ended without harm to the kernel. It guards
against mistakes, not against malice. Beyond it stay: one call into C that never
returns, code that catches every error at three levels, and `os._exit`.
"""

import contextlib
import copy
import ctypes
import io
import random
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from qwen_course.exercises.question import NotPlain, is_stub, plain

SECONDS = 10.0  # of computing, for one call of a learner's function
PATIENCE = 4  # times as long on the clock, for code that waits, or a busy machine
PROBE_SECONDS = 120.0  # for all calls of one check
GRACE = 1.0  # to wait for an endless loop to notice that it is over
MEMORY_GB = 4.0  # how much the process may grow during a call
MAX_PRINTED = 500  # characters of what a call prints
_PACKAGE = str(Path(__file__).parent.parent)
_LIBRARIES = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
_NOT_OWN = (_PACKAGE, *_LIBRARIES)


@dataclass
class Outcome:
    """What one call gave, as plain data.

    `value` is the result; `error` is "TypeError: ..." with `line` of the learner's
    code; `late` tells that it was stopped; `changed` that it altered its arguments;
    `printed` what it printed; `stub` that it returned the `...` of the stub.
    """

    value: Any = None
    error: str = ""
    line: str = ""
    late: bool = False
    changed: bool = False
    printed: str = ""
    stub: bool = False


# One call


def call(
    function: Any, *arguments: Any, seconds: float | None = None
) -> dict[str, Any]:
    """Call `function(*arguments)` and return an Outcome as a dict; never raises.

    Lists, dicts, arrays and configurations are handed over as copies, and compared
    afterwards. After `seconds` (default: SECONDS) the call is stopped, later where it
    computes less than half of the time; a function that was stopped once is not called
    again in the same check.

    >>> call(lambda x: x + 1, 2)["value"]
    3
    """
    if not callable(function):
        return asdict(Outcome(error=f"it is no function: its type is {kind(function)}"))
    if _stopped_before(function):
        return asdict(Outcome(late=True))
    given = [_copy(one) for one in arguments]
    outcome, printed = Outcome(), _Printed()

    def work() -> None:
        result = function(*given)
        outcome.stub = is_stub(result)
        outcome.value = None if outcome.stub else plain(result)

    with contextlib.redirect_stdout(printed):
        error = within(SECONDS if seconds is None else seconds, work)
    outcome.printed = printed.kept
    if isinstance(error, TooLate):
        outcome.late = not isinstance(error, TooMuch)
        outcome.error = f"MemoryError: {error}" if not outcome.late else ""
        _stopped.append(function)
    elif isinstance(error, NotPlain):
        outcome.error = f"it returned {error}"
    elif error is not None:
        outcome.error, outcome.line = words(error), _line_of(error)
    else:
        pairs = zip(given, arguments, strict=True)
        outcome.changed = any(_differs(one, original) for one, original in pairs)
    return asdict(outcome)


class _Printed(io.TextIOBase):
    """Keeps the beginning of what is printed, so that endless printing is no harm."""

    kept = ""

    def write(self, text: str) -> int:
        self.kept += text[: MAX_PRINTED - len(self.kept)]
        return len(text)


_stopped: list[Any] = []  # the functions that this check had to stop


def _stopped_before(function: Any) -> bool:
    return any(one is function for one in _stopped)


# A time limit


class TooLate(SystemExit):
    """Raised in code that runs too long.

    No Exception, so that `except Exception` lets it by; a SystemExit, so that a thread
    it ends does so in silence.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # subtle: this runs in the thread that is to end. A bare `except:` would
        # swallow the error; with the trace, the next line there raises it again.
        if getattr(threading.current_thread(), "ending", False):
            _raise_at_every_line()


class TooMuch(TooLate):
    """Raised in code that takes too much memory."""


_running: list["_Work"] = []  # the outermost first
_cancelled = threading.Event()  # tells the inner ones that the outermost must end


def within(seconds: float, work: Callable[[], None]) -> BaseException | None:
    """Run `work()` for at most some seconds; return what it raised, or None.

    TooLate and TooMuch stand for work that was stopped.
    """
    thread = _Work(work)
    _running.append(thread)  # before the work in it can begin an inner one
    thread.start()
    try:
        reason = _wait(thread, seconds)
    except BaseException:  # the learner pressed stop
        _end(thread, TooLate)
        raise
    if reason is None:
        _running.remove(thread)
        return thread.error
    _end(thread, reason)
    return reason(f"it took more than {MEMORY_GB:.0f} GB")


class _Work(threading.Thread):
    """Work that can be ended from outside, and keeps what it raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.error: BaseException | None = None
        self._lock, self._finished, self.ending = threading.Lock(), False, False

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # a learner's mistake, of whatever kind
            sys.settrace(None)
            self.error = error
        while not self._finished:
            try:
                with self._lock:
                    sys.settrace(None)
                    self._finished = True
            except TooLate:
                continue  # it came when the work was done already

    def raise_in_it(self, error: type[BaseException]) -> bool:
        """Raise an error in the work; return False if it is done.

        subtle: without the lock it could be raised in another thread, which the
        system gave the same number after this one ended.
        """
        with self._lock:
            if not self._finished:
                number = ctypes.c_ulong(self.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    number, ctypes.py_object(error)
                )
            return not self._finished and self.is_alive()


def _wait(thread: _Work, seconds: float) -> type[TooLate] | None:
    """Wait for a thread; return why it must end before it is done, or None."""
    import psutil

    process, began = psutil.Process(), time.monotonic()
    before, computed = process.memory_info().rss, time.process_time()
    while thread.is_alive():
        spent = time.monotonic() - began
        busy = time.process_time() - computed > seconds / 2
        left = (seconds if busy else PATIENCE * seconds) - spent
        if left <= 0 or (_cancelled.is_set() and thread is not _running[0]):
            return TooLate
        if process.memory_info().rss - before > MEMORY_GB * 1e9:
            return TooMuch
        thread.join(min(left, 0.1))
    return None


def _end(thread: _Work, reason: type[TooLate]) -> None:
    """Raise TooLate in a thread until it ends; return after GRACE at the latest.

    A thread that waits in C, such as a long sleep, is ended as soon as it returns. One
    that waits for an inner one is first given the time to end that.
    """
    if thread is not _running[-1]:
        _cancelled.set()
        thread.join(2 * GRACE)
    _running.remove(thread)
    if thread.is_alive():
        threading.Thread(target=_insist, args=(thread, reason), daemon=True).start()
        thread.join(GRACE)


def _insist(thread: _Work, reason: type[TooLate]) -> None:
    thread.ending = True
    for _ in range(100):
        if not thread.raise_in_it(reason):
            return
        thread.join(0.3)


def _raise_at_every_line() -> None:
    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            raise TooLate
        return trace

    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if not frame.f_code.co_filename.startswith((_PACKAGE, threading.__file__)):
            frame.f_trace = trace
    sys.settrace(trace)


# A whole check


@contextlib.contextmanager
def apart(seed: int) -> Iterator[None]:
    """Keep a check from leaving traces, and make it repeatable.

    Random numbers start from `seed` inside, and go on outside as if nothing had
    happened; printing works again afterwards, whatever the code in between did.
    """
    _stopped.clear()
    _running.clear()
    _cancelled.clear()
    with (
        contextlib.ExitStack() as stack,
        contextlib.redirect_stdout(sys.stdout),
    ):
        stack.callback(random.setstate, random.getstate())
        random.seed(seed)
        if numpy := sys.modules.get("numpy"):
            stack.callback(numpy.random.set_state, numpy.random.get_state())
            numpy.random.seed(seed)
        if torch := sys.modules.get("torch"):
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(seed)
        yield


# Words and copies


def kind(value: Any) -> str:
    """Return the name of a value's type, whatever the type says of itself.

    >>> kind(2.5)
    'float'
    """
    return type.__dict__["__name__"].__get__(type(value))


def words(error: BaseException) -> str:
    """Return "TypeError: ..." in at most 500 characters; never raises."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be read)"
    return f"{kind(error)}: {text}"[:500].removesuffix(": ")


def _copy(value: Any) -> Any:
    if isinstance(value, list | dict | set) or _state(value) is not value:
        return copy.deepcopy(value)
    return value


def _state(value: Any) -> Any:
    """Return what can be compared of an array or a configuration."""
    if isinstance(value, str | int | float | list | dict | set | tuple):
        return value
    for name in ("tolist", "to_dict"):
        if hasattr(value, name) and not isinstance(value, type):
            return getattr(value, name)()
    return value


def _differs(value: Any, original: Any) -> bool:
    try:
        before = plain(_state(original))
    except NotPlain:
        return False  # a model, a tokenizer: no data
    try:
        return plain(_state(value)) != before
    except NotPlain:
        return True


def _line_of(error: BaseException) -> str:
    """Return the line of the learner's code where an error came up."""
    frames = traceback.extract_tb(error.__traceback__, limit=-50)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_OWN)]
    return ((own or frames)[-1].line or "")[:200] if frames else ""
