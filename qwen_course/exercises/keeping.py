"""What a learner has done: a small file at home, and what others may read of it.

The file is replaced as a whole, so a crash leaves the old one; a lock lets two kernels
write in turn. Nothing is sent anywhere.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qwen_course import settings
from qwen_course.exercises.feedback import Feedback
from qwen_course.exercises.question import Status

FORMAT = "qwen-course progress"
VERSION = 1
WAIT_SECONDS = 3.0  # for another kernel to finish writing
MAX_BYTES = 5_000_000
_ID = re.compile(r"\d\d\.q\d+")
_ORDER: tuple[Status, ...] = ("to do", "not yet", "right")


@dataclass
class Kept:
    """What is kept of one question.

    `tries` and `mistakes` (name -> how often) count until it is right for the first
    time; `first_right` and `last` are times as ISO texts, "" for never.
    """

    status: Status = "to do"
    tries: int = 0
    hints: int = 0
    mistakes: dict[str, int] = field(default_factory=dict)
    first_right: str = ""
    last: str = ""


Book = dict[str, Kept]  # by the question's id


# What happens to a question


def record(feedback: Feedback) -> None:
    """Keep what a check said; never raises. "to do" and no verdict leave no trace."""
    if feedback.status == "to do" or not _ID.fullmatch(feedback.id):
        return

    update(lambda book: note(book, feedback))


def note(book: Book, feedback: Feedback) -> None:
    """Write a verdict, right or not yet, into a book."""
    one, now = book.setdefault(feedback.id, Kept()), _now()
    one.last = now
    if one.status == "right":
        return
    one.status = feedback.status
    one.tries += 1
    if feedback.status == "right":
        one.first_right = now
    elif feedback.mistake:
        one.mistakes[feedback.mistake] = one.mistakes.get(feedback.mistake, 0) + 1


def record_hint(id: str) -> None:
    """Keep that a hint was asked for; never raises."""

    def change(book: Book) -> None:
        book.setdefault(id, Kept()).hints += 1

    update(change)


def merge(book: Book, other: Book) -> None:
    """Add what another machine knows: right wins, and the higher of two counts."""
    for id, new in other.items():
        old = book.get(id, Kept())
        names = [*old.mistakes, *(set(new.mistakes) - set(old.mistakes))]
        book[id] = Kept(
            status=max(old.status, new.status, key=_ORDER.index),
            tries=max(old.tries, new.tries),
            hints=max(old.hints, new.hints),
            mistakes={
                name: max(old.mistakes.get(name, 0), new.mistakes.get(name, 0))
                for name in sorted(names)
            },
            first_right=min(
                filter(None, (old.first_right, new.first_right)), default=""
            ),
            last=max(old.last, new.last),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# The file

_unsaved: Book = {}  # of this session, where the file cannot be written
_told: set[str] = set()


def update(change: Callable[[Book], None]) -> None:
    """Change what is kept; where that is impossible, say so once and go on."""
    try:
        with _locked() as file:
            book = _opened(file)
            change(book)
            _store(file, book)
    except (OSError, RuntimeError, ValueError) as error:
        change(_unsaved)
        reason = str(error) or type(error).__name__
        _tell_once(
            f"Your progress is kept for this session only: {reason}. Set "
            f"{settings.PROGRESS_VARIABLE} to a file that you may write."
        )


def load() -> Book:
    """Return what is kept, with what could not be written; never raises."""
    book: Book = {}
    try:
        if settings.progress_file().exists():
            with _locked() as file:
                book = _opened(file)
    except (OSError, RuntimeError, ValueError) as error:
        # To read needs no lock, and may be all that is allowed.
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            book = parse(_text(settings.progress_file()))
        _tell_once(f"Your progress can be read, not written: {error}.")
    merge(book, _unsaved)
    return book


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """Yield the file, which nobody else writes meanwhile."""
    from filelock import FileLock, Timeout

    file = settings.progress_file().resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{file}.lock", timeout=WAIT_SECONDS):
            yield file
    except Timeout as error:
        raise OSError(f"another program holds {file.name}.lock") from error


def _opened(file: Path) -> Book:
    """Return what a file holds; a damaged one is set aside, and an empty one begun.

    Raises ValueError for a file of a newer course, which stays as it is.
    """
    if not file.exists():
        return {}
    try:
        return parse(_text(file))
    except NewerFile:
        raise
    except ValueError as error:
        aside = _free_name(file.with_name(file.name + ".damaged"))
        os.replace(file, aside)
        _tell_once(
            f"The file of your progress was damaged ({error}); it is kept as "
            f"{aside}, and a new one is begun."
        )
        return {}


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _store(file: Path, book: Book) -> None:
    """Write a file as a whole or not at all."""
    text = as_json(book)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".part")
    try:
        with open(handle, "w", encoding="utf-8") as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _tell_once(sentence: str) -> None:
    if sentence not in _told:
        _told.add(sentence)
        print(sentence)


# The format, which a teacher reads too


class NewerFile(ValueError):
    """A file that a later version of the course wrote."""


def as_json(book: Book, learner: str = "") -> str:
    """Return the text of a file."""
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if learner:
        content["learner"] = learner
    content["questions"] = {id: asdict(one) for id, one in sorted(book.items())}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _text(file: Path) -> str:
    """Return a file's text. Raises ValueError when it is too long or no text."""
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES / 1e6:.0f} MB")
    return file.read_text(encoding="utf-8")


def parse(text: str) -> Book:
    """Return what a file's text holds.

    Raises ValueError with what is wrong and where; NewerFile for a later version.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'its "format" is not "{FORMAT}"')
    version: Any = content.get("version")
    if not _is_count(version):
        raise ValueError(f'its "version" is {version!r}, no number')
    if version > VERSION:
        raise NewerFile(
            f"a newer qwen-course wrote it (version {version}); update the course"
        )
    questions = content.get("questions")
    if not isinstance(questions, dict):
        raise ValueError('its "questions" are no object')
    return {id: kept_from(id, one) for id, one in questions.items()}


def kept_from(id: str, given: Any) -> Kept:
    """Return what is kept of one question, from JSON.

    Raises ValueError with the field that is wrong.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f'"{id}" is no question such as "01.q1"')
    if not isinstance(given, dict):
        raise ValueError(f"{id} is no object")
    one = {key: given[key] for key in asdict(Kept()) if key in given}
    mistakes = one.get("mistakes", {})
    right = {
        "status": one.get("status") in _ORDER,
        "tries": _is_count(one.get("tries", 0)),
        "hints": _is_count(one.get("hints", 0)),
        "mistakes": isinstance(mistakes, dict)
        and all(map(_is_count, mistakes.values())),
        "first_right": _is_time(one.get("first_right", "")),
        "last": _is_time(one.get("last", "")),
    }
    for key, fine in right.items():
        if not fine:
            raise ValueError(f'{id}: "{key}" is {one.get(key)!r:.60}')
    return Kept(**one)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**6


def _is_time(value: Any) -> bool:
    if value == "":
        return True
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def read_file(path: str | Path) -> Book:
    """Return what an exported file holds. Raises ValueError with what is wrong."""
    return read_export(path)[1]


def read_export(path: str | Path) -> tuple[str, Book]:
    """Return whose an exported file is, "" if it does not say, and what it holds.

    Raises ValueError with what is wrong.
    """
    file = Path(path).expanduser()
    try:
        text = _text(file)
        book = parse(text)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}.") from error
    except NewerFile as error:
        raise ValueError(f"{file}: {error}.") from error
    except ValueError as error:
        raise ValueError(f"{file} is no progress of this course: {error}.") from error
    learner = json.loads(text).get("learner")
    return (learner if isinstance(learner, str) else ""), book
