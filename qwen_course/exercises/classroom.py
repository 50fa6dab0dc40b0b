"""A class at a glance: who is stuck where, and what to take up again in the room.

`read` collects what learners handed in: exported progress, the table of the grader, or
notebooks, which it grades first. A `Classroom` sums up, whoever made it: the live page
of `qwen_course.room` does so too. It shows itself as text, and `html` fits an A4 page.
"""

import csv
import math
import statistics
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qwen_course.errors import suggest
from qwen_course.exercises import keeping, meanings, question, report
from qwen_course.exercises.feedback import LOOK
from qwen_course.exercises.keeping import Kept
from qwen_course.exercises.question import OUTCOMES, Question
from qwen_course.exercises.sharing import clean_name
from qwen_course.safe_text import for_terminal
from qwen_course.tables import as_text

MANY_TRIES = 3  # from here on a right answer was no easy one
STUCK_TRIES = 4  # from here on a learner who is not there yet needs somebody
MOST = 6  # topics to take up again
FORMS = (
    'The folder holds what qc.progress().export("NAME.json") writes, the results.csv '
    "of qwen-course grade, or notebooks, which are graded then."
)


@dataclass(frozen=True)
class Learner:
    """One of the class, and what is known of each question."""

    name: str
    book: keeping.Book

    def of(self, id: str) -> Kept:
        """Return what is known of a question."""
        return self.book.get(id, Kept())


@dataclass(frozen=True)
class Topic:
    """How a class did on one question.

    `tries` is the mean of those who tried, 0 where nobody's are known; `mistakes` are
    (name, learners who met it), the most common first.
    """

    question: Question
    right: int
    not_yet: int
    slow: int
    tries: float
    mistakes: tuple[tuple[str, int], ...]

    @property
    def trouble(self) -> float:
        """How many are stuck; who needed many tries until it was right counts half."""
        return self.not_yet + self.slow / 2

    @property
    def common(self) -> str:
        """What the most common misconception means, "" for none, or none known."""
        met = self.mistakes
        return meanings.meaning(self.question.id, met[0][0]) if met else ""

    @property
    def words(self) -> str:
        """What to tell of it: "9 not yet, 4 right after 3 tries or more"."""
        parts = [f"{self.not_yet} not yet" if self.not_yet else ""]
        if self.slow:
            parts.append(f"{self.slow} right after {MANY_TRIES} tries or more")
        return ", ".join(filter(None, parts))


@dataclass
class Classroom:
    """Learners and the questions that are looked at; `notes` are about files."""

    learners: list[Learner]
    questions: Sequence[Question]
    notes: list[str] = field(default_factory=list)

    # What it says

    def topics(self) -> list[Topic]:
        """Return how each question went, in the order of the course."""
        return [self._topic(asked) for asked in self.questions]

    def _topic(self, asked: Question) -> Topic:
        all_kept = [one.of(asked.id) for one in self.learners]
        states = Counter(kept.status for kept in all_kept)
        tries = [kept.tries for kept in all_kept if kept.tries]
        met = Counter(name for kept in all_kept for name in kept.mistakes)
        slow = [k for k in all_kept if k.status == "right" and k.tries >= MANY_TRIES]
        return Topic(
            asked, states["right"], states["not yet"], len(slow),
            statistics.fmean(tries) if tries else 0.0,
            tuple(sorted(met.items(), key=lambda one: (-one[1], one[0]))),
        )  # fmt: skip

    def take_up(self) -> list[Topic]:
        """Return what gave most trouble, the worst first, six at most."""
        hard = [topic for topic in self.topics() if topic.trouble]
        return sorted(hard, key=lambda one: (-one.trouble, -one.tries))[:MOST]

    def outcomes(self) -> list[tuple[int, str, int, int]]:
        """Return (number, words, right answers, answers asked for) of each outcome."""
        rows, topics = [], self.topics()
        for number, words in OUTCOMES.items():
            mine = [one for one in topics if one.question.outcome == number]
            right = sum(topic.right for topic in mine)
            rows.append((number, words, right, len(mine) * len(self.learners)))
        return rows

    def right(self, learner: Learner) -> int:
        """Return how many of the questions a learner has right."""
        return sum(learner.of(one.id).status == "right" for one in self.questions)

    def need_a_word(self) -> list[tuple[str, str]]:
        """Return (name, reason) of learners to go to, the most urgent first."""
        counts = [self.right(learner) for learner in self.learners]
        middle = math.ceil(statistics.median(counts)) if counts else 0
        found = []
        for learner in self.learners:
            stuck = self._stuck(learner)
            right = self.right(learner)
            if stuck:
                found.append((len(stuck), learner.name, _stuck_on(stuck)))
            elif not self._begun(learner) and middle:
                found.append((1, learner.name, "has not begun"))
            elif right < middle / 2:
                why = f"{right} right, where half the class has {middle} or more"
                found.append((0, learner.name, why))
        found.sort(key=lambda one: -one[0])
        return [(name, reason) for _, name, reason in found]

    def _begun(self, learner: Learner) -> bool:
        return any(learner.of(one.id).status != "to do" for one in self.questions)

    def _stuck(self, learner: Learner) -> dict[str, Kept]:
        """Return the questions on which a learner has tried in vain for long."""
        kept = {one.id: learner.of(one.id) for one in self.questions}
        return {
            id: one
            for id, one in kept.items()
            if one.status == "not yet" and one.tries >= STUCK_TRIES
        }

    # How it looks

    def __str__(self) -> str:
        parts = [self.headline(), self._grid()]
        if topics := self.take_up():
            parts.append("Take up again in the room:\n" + _numbered(topics))
        outcomes = (
            (f"{number} {words}", f"{right} of {of} right")
            for number, words, right, of in self.outcomes()
            if of
        )
        parts.append(as_text(("outcome", ""), outcomes))
        if words := self.need_a_word():
            lines = (f"- {for_terminal(name)}: {reason}" for name, reason in words)
            parts.append("A word with:\n" + "\n".join(lines))
        return "\n\n".join(parts)

    def headline(self) -> str:
        """Return the class in one line."""
        right = sum(map(self.right, self.learners))
        asked = len(self.learners) * len(self.questions)
        return (
            f"Learners: {len(self.learners)}. Questions: {len(self.questions)}. "
            f"Right answers: {right} of {asked}."
        )

    def _grid(self) -> str:
        """Return a line a learner, with a sign for each question of each lesson."""
        lessons = sorted({one.lesson for one in self.questions})
        rows = []
        for learner in self.learners:
            signs = [
                "".join(
                    LOOK[learner.of(one.id).status][1]
                    for one in self.questions
                    if one.lesson == lesson
                )
                for lesson in lessons
            ]
            count = f"{self.right(learner)} of {len(self.questions)}"
            rows.append((for_terminal(learner.name), *signs, count))
        legend = ", ".join(f"{look[1]} {status}" for status, look in LOOK.items())
        return f"{as_text(('learner', *lessons, 'right'), rows)}\n({legend})"

    def html(self) -> str:
        """Return the page; it needs nothing but itself."""
        from jinja2 import Environment, FileSystemLoader

        loader = FileSystemLoader(report.TEMPLATES)
        environment = Environment(autoescape=True, loader=loader, trim_blocks=True)
        page = environment.get_template("class.html.jinja", globals={"looks": LOOK})
        return page.render(room=self, topics=self.topics(), shown=shown)

    def anonymous(self) -> "Classroom":
        """Return the same class with numbers for names, the most advanced first."""

        def place(one: Learner) -> tuple[int, str]:  # names play no part in it
            return -self.right(one), keeping.as_json(one.book)

        order = sorted(self.learners, key=place)
        learners = [Learner(f"{n}", one.book) for n, one in enumerate(order, 1)]
        return Classroom(learners, self.questions, self.notes)


def _stuck_on(stuck: dict[str, Kept]) -> str:
    """Return a reason such as "01.q3 (6 tries), 01.q5 (4 tries), no hint asked for"."""
    reason = ", ".join(f"{id} ({one.tries} tries)" for id, one in stuck.items())
    hints = any(one.hints for one in stuck.values())
    return f"stuck on {reason}{'' if hints else ', no hint asked for'}"


def _numbered(topics: Iterable[Topic]) -> str:
    lines = []
    for number, topic in enumerate(topics, 1):
        asked = topic.question
        line = f"{number}. {asked.id} {asked.title}: {topic.words}"
        if topic.mistakes:
            name, learners = topic.mistakes[0]
            line += f"; most common: {name} ({learners}). {topic.common}"
        lines.append(f'{line.rstrip(". ")}. See "{asked.look[0]}".')
    return "\n".join(lines)


# Reading what was handed in


def read(folder: Path, lessons: Iterable[str] = ()) -> Classroom:
    """Return the class whose files a folder holds.

    `lessons` such as ["01", "02"] are looked at, by default those in which anybody has
    done something. A file that is of no use becomes one of the `notes`.

    Raises ValueError for a folder with nothing of use, and for an unknown lesson.
    """
    wanted = _lessons(lessons)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}. {FORMS}")
    pile = _Pile(folder)
    pile.read()
    if not pile.books:
        why = " ".join(pile.notes)
        raise ValueError(f"there is no learner in {folder}. {why} {FORMS}".strip())
    learners = sorted(
        (Learner(*one) for one in pile.books.values()),
        key=lambda one: unicodedata.normalize("NFKD", one.name).casefold(),
    )
    done = {id[:2] for one in learners for id, kept in one.book.items() if kept.tries
            or kept.status != "to do"}  # fmt: skip
    chosen = wanted or [one for one in question.lessons() if one in done]
    questions = [
        asked
        for number in chosen or question.lessons()
        for asked in question.questions(number)
    ]
    return Classroom(learners, questions, pile.notes)


def _lessons(given: Iterable[str]) -> list[str]:
    """Return the numbers of lessons, "1" as "01"; raises ValueError."""
    known, numbers = question.lessons(), [one.strip().zfill(2) for one in given]
    for number in numbers:
        if number not in known:
            raise ValueError(
                f'"{number}" is no lesson with exercises; there are '
                f"{', '.join(known)}.{suggest(number, known)}"
            )
    return sorted(set(numbers))


class _Pile:
    """The files of a folder, as one book a learner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.books: dict[str, tuple[str, keeping.Book]] = {}
        self.notes: list[str] = []
        self._whose: dict[str, Path] = {}  # the first file of a learner
        self._seen: dict[str, Path] = {}
        self._known = {one.id for one in question.questions()}

    def read(self) -> None:
        """Read every file; one that is of no use becomes a note."""
        files = [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not _is_hidden(path.relative_to(self.folder))
        ]
        notebooks = [path for path in files if path.suffix == ".ipynb"]
        tables = [path for path in files if path.suffix == ".csv"]
        for path in files:
            try:
                if path.suffix == ".json":
                    self._progress(path)
                elif path.suffix == ".csv":
                    self._table(path)
                elif path.suffix not in (".ipynb", ".html"):
                    raise ValueError("no file of progress, of grades, or notebook.")
            except ValueError as error:
                self._note(path, str(error))
        if notebooks and tables:
            text = "Notebooks were not graded again: the folder holds grades (.csv)."
            self.notes.append(text)
        elif notebooks:
            self._notebooks()

    def _note(self, path: Path, sentence: str) -> None:
        inside = path.relative_to(self.folder)
        self.notes.append(f"{inside}: {sentence.replace(f'{path} is ', '', 1)}")

    def _add(self, name: str, book: keeping.Book, path: Path) -> None:
        """Add what one file tells of a learner."""
        if strange := sorted(set(book) - self._known):
            self._note(path, f"this course has no question {', '.join(strange[:5])}.")
        key = name.casefold()
        shown, mine = self.books.setdefault(key, (name, {}))
        first = self._whose.setdefault(key, path)
        if first != path:
            self._note(
                path,
                f"{first.relative_to(self.folder)} is {shown}'s too; they were added "
                'together. If these are two people, change "learner" in one of them.',
            )
        keeping.merge(mine, book)

    def _progress(self, path: Path) -> None:
        learner, book = keeping.read_export(path)
        same = self._seen.setdefault(keeping.as_json(book), path)
        if book and same != path:
            inside = same.relative_to(self.folder)
            raise ValueError(f"it is a copy of {inside}, which was counted.")
        inside = path.relative_to(self.folder)
        name = clean_name(learner) or clean_name(_name_of(inside))
        self._add(name, book, path)

    def _table(self, path: Path) -> None:
        """Read a table that the grader wrote."""
        if path.stat().st_size > keeping.MAX_BYTES:
            raise ValueError(f"it has more than {keeping.MAX_BYTES / 1e6:.0f} MB.")
        books: dict[str, keeping.Book] = {}
        try:
            with path.open(encoding="utf-8-sig", newline="") as opened:
                for row in csv.DictReader(opened):
                    one = keeping.kept_from(row["question"], {"status": row["status"]})
                    if row["mistake"]:
                        one.mistakes[row["mistake"]] = 1
                    name = clean_name(_without_mark(row["learner"]))
                    books.setdefault(name, {})[row["question"]] = one
        except (KeyError, TypeError, csv.Error, UnicodeError, ValueError) as error:
            raise ValueError(
                f"it is no results.csv of qwen-course grade ({error})."
            ) from error
        for name, book in books.items():
            self._add(name, book, path)

    def _notebooks(self) -> None:
        """Grade the notebooks of the folder."""
        from qwen_course.exercises import grade

        with tempfile.TemporaryDirectory() as out:
            try:
                grades = grade.grade(self.folder, Path(out))
            except ValueError as error:
                self.notes.append(str(error))
                return
        self.notes += grades.warnings()
        for graded in grades.graded:
            book = {}
            for verdict in graded.verdicts:
                one = book[verdict.id] = Kept(verdict.status)
                if verdict.mistake:
                    one.mistakes[verdict.mistake] = 1
            submission = graded.submission
            self._add(clean_name(submission.learner), book, submission.path)


def _is_hidden(inside: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in inside.parts)


def _name_of(inside: Path) -> str:
    """Return the learner that a path names: its file, or the folder of a progress.json.

    >>> _name_of(Path("ada.json")), _name_of(Path("Bo/progress.json"))
    ('ada', 'Bo')
    """
    in_folder = inside.stem.lower() == "progress" and len(inside.parts) > 1
    return inside.parts[-2] if in_folder else inside.stem


def _without_mark(name: str) -> str:
    """Return a name without the mark that kept a spreadsheet from computing it."""
    return name[1:] if name[:1] == "'" and name[1:2] in "=+-@\t" else name


def write(room: Classroom, out: Path) -> None:
    """Write the page of a class.

    Example:
        write(read(Path("handed-in")), Path("class.html"))
    """
    out.write_text(room.html(), encoding="utf-8")


def shown(kept: Kept) -> str:
    """Return a cell of the grid in words: "not yet, 4 tries, met: untied, norms"."""
    words: list[str] = [kept.status]
    if kept.tries:
        words.append(f"{kept.tries} tries" if kept.tries > 1 else "1 try")
    if kept.mistakes:
        words.append(f"met: {', '.join(kept.mistakes)}")
    return ", ".join(words)
