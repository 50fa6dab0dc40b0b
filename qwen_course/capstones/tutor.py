"""Capstone: a tutor that poses problems, checks answers by computing, and explains.

The model writes explanations and nothing else. Whether an answer is right is computed,
never asked; what the model explains is checked line by line before it is shown. What
the learner types never reaches the model.
"""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import expressions, tasks
from qwen_course.chat import Reply, chat_batch
from qwen_course.errors import suggest
from qwen_course.evaluation import Score
from qwen_course.steps import Step, boxed, check_steps
from qwen_course.tables import Row, Table
from qwen_course.tasks import mathematics
from qwen_course.tasks.problem import Problem, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pair = tuple["PreTrainedModel", "PreTrainedTokenizerBase"]
Make = Callable[[random.Random], Problem]


# Problems, from easy to hard


@dataclass(frozen=True)
class Rung:
    """One kind of problem of a skill; a higher `difficulty` (in logits) is harder."""

    skill: str
    name: str
    difficulty: float
    make: Make = field(repr=False)


def _ladder(skill: str, *kinds: tuple[str, Make]) -> tuple[Rung, ...]:
    """Return rungs from -2 to 2: an order we are sure of, distances that we guess."""
    step = 4 / (len(kinds) - 1)
    return tuple(
        Rung(skill, name, round(step * place - 2, 2), make)
        for place, (name, make) in enumerate(kinds)
    )


def _sum_of(count: int) -> tuple[str, Make]:
    """Return sums asked in English; their generator knows seven languages."""

    def make(rng: random.Random) -> Problem:
        while not ENGLISH.match((problem := tasks.sums.make(rng, count)).question):
            pass
        return problem

    return f"{count} numbers", make


ENGLISH = re.compile(r"(What|Add|Calculate|How|Find) |[\d+ ]+( = \?)?$")


def _story(kind: str) -> tuple[str, Make]:
    return kind, lambda rng: tasks.word_problems.make(rng, kind)


def _worked(name: str, kind: str, fits: Callable[[Problem], Any]) -> tuple[str, Make]:
    """Return problems of a kind of mathematics, of those only that fit."""

    def make(rng: random.Random) -> Problem:
        while not fits(problem := mathematics.make(rng, kind)):
            pass
        return problem

    return name, make


def _whole(problem: Problem) -> bool:
    return re.fullmatch(r"x = -?\d+(, x = -?\d+)?", problem.expected) is not None


def _degree(number: int) -> Callable[[Problem], bool]:
    # content: the name, the coefficients, whether a program is asked for
    return lambda problem: len(problem.content) - 3 == number


LADDERS: dict[str, tuple[Rung, ...]] = {
    "sums": _ladder("sums", *map(_sum_of, range(2, 8))),
    "word problems": _ladder(
        "word problems", *map(_story, ("give away", "share", "rate and time", "ages",
                                       "change", "discount", "two steps")),
    ),
    "equations": _ladder(
        "equations",
        _worked("linear, whole", "linear equation", _whole),
        _worked("linear, fraction", "linear equation", lambda p: "/" in p.expected),
        _worked("quadratic, whole", "quadratic equation", _whole),
        _worked("quadratic, none", "quadratic equation", lambda p: "no" in p.expected),
        _worked("quadratic, roots", "quadratic equation",
                lambda p: "sqrt" in p.expected),
    ),
    "derivatives": _ladder(
        "derivatives",
        *(_worked(f"degree {n}", "derivative", _degree(n)) for n in range(1, 5)),
    ),
    "critical points": _ladder(
        "critical points",
        _worked("quadratic, whole", "critical points, quadratic", _whole),
        _worked("quadratic, fraction", "critical points, quadratic",
                lambda p: "/" in p.expected),
        _worked("cubic, whole", "critical points, cubic", _whole),
        _worked("cubic, roots", "critical points, cubic",
                lambda p: "sqrt" in p.expected),
    ),
}  # fmt: skip
BY_MATH = ("equations", "derivatives", "critical points")  # for a mathematics model
# The first hint: what to do, with no number of the problem in it.
STRATEGIES = {
    "sums": "Add the first two numbers. Then add the next one to what you have.",
    "give away": "Start from what there was, and take away one gift after the other.",
    "share": "How many are there altogether? Only then divide.",
    "rate and time": "How far does each part of the journey go? Then add the parts.",
    "ages": "How old are both today? Each of them gets older by the same years.",
    "change": "What does each kind of goods cost? Add, then take it from the money.",
    "discount": "How much is taken off one piece? Find its new price, then multiply.",
    "two steps": "Multiply first. Then compare with the whole number you are given.",
    "linear equation": "Bring everything with x to one side and all else to the other.",
    "quadratic equation": "Bring it into the form ax^2 + bx + c = 0 and look at the "
    "discriminant b^2 - 4ac.",
    "derivative": "Take one term at a time: multiply by the exponent, then lower it.",
    "critical points, quadratic": "Differentiate, and set the derivative to zero.",
    "critical points, cubic": "Differentiate, and set the derivative to zero: that is "
    "a quadratic equation.",
}


# The level of a learner


@dataclass
class Level:
    """How able a learner is in one skill, in logits, after so many answers.

    An Elo rating: learner and problem play against each other. The step becomes
    smaller with the answers, 1 / (1 + 0.05 n) (Pelánek, 2016, "Applications of the Elo
    rating system in adaptive educational systems"). Unlike in his system the problems
    keep their difficulty: one learner alone cannot tell which of the two is off.
    """

    rating: float = 0.0
    answered: int = 0

    def chance(self, difficulty: float) -> float:
        """Return how likely a right answer is.

        >>> Level(1.0).chance(1.0)
        0.5
        """
        return 1 / (1 + math.exp(difficulty - self.rating))

    def update(self, difficulty: float, score: float) -> None:
        """Take in a result: 1 is right, 0 wrong, 0.5 right with a hint."""
        step = 1 / (1 + 0.05 * self.answered)
        self.rating += step * (score - self.chance(difficulty))
        self.answered += 1

    def choose(self, ladder: Sequence[Rung], target: float = 0.75) -> Rung:
        """Return the rung whose chance is nearest to `target`, the easier of two.

        Klinkenberg et al., 2011 (Computers & Education 57, 1813) pose problems that
        are solved in 75 of 100 cases: hard enough, and not discouraging.
        """
        return min(ladder, key=lambda rung: abs(self.chance(rung.difficulty) - target))


# Marking by computing


@dataclass(frozen=True)
class Mark:
    """Whether an answer is right, and why not; None where there is nothing to mark."""

    right: bool | None
    why: str = ""


NOTHING = Mark(None, "I cannot read that. Write a value, such as 12, 3/4 or x = -2.")
ROUNDED = Mark(None, "That is rounded. Give the exact value: a fraction or a root.")
UNFINISHED = Mark(None, "That is a calculation. Give its result.")
CALCULATION = re.compile(r"\d ?[-+*×·^−] ?\d")
HEDGED = re.compile(
    r"\b(about|almost|less|least|maybe|more|most|never|not|nearly|than)\b|n't|[<>≈~?]",
    re.IGNORECASE,
)
OPENING = re.compile(
    r"^(so |it is |the )*(answers?|results?|solutions?)?( is| are)?:? +", re.IGNORECASE
)
KEPT_WORDS = r"(?!(?:sqrt|or|and)\b)[^\W\d_]{2,}"
LONGEST_ANSWER = 200  # characters


def mark(problem: Problem, answer: str) -> Mark:
    """Mark an answer by its value, never by a model.

    Reads fractions, roots, decimals with a point or a comma, "x = 3", several values,
    a unit behind the number, and "no solution". A rounded value is sent back unmarked.

    >>> problem = tasks.sums.problems(1, seed=0)[0]
    >>> mark(problem, f"it is {problem.expected}.").right
    True
    """
    if not answer.strip() or len(answer) > LONGEST_ANSWER:
        return NOTHING
    expected = expressions.solutions(problem.expected)
    found = _readings(answer)
    if not found:
        return NOTHING
    if any(_same(reading, expected) for reading in found):
        return UNFINISHED if _unfinished(answer, expected) else Mark(True)
    if any(_rounded(reading, expected, answer) for reading in found):
        return ROUNDED
    return Mark(False, _what_is_wrong(found[0], expected))


def _readings(answer: str) -> list[Any]:
    """Return each way to read an answer: 1,234 may be large, or have three decimals."""
    text = answer.strip().translate(_WIDE).replace("\u00a0", " ").replace("\u202f", " ")
    text = re.sub(r"(?<=\d)[ '’](?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\bminus +", "-", OPENING.sub("", text), flags=re.IGNORECASE)
    text = re.sub(r"^(-?)(\d+) (\d+)/(\d+)$", r"\1(\2 + \3/\4)", text)
    variants = [text]
    if re.search(r"\d,\d", text):
        variants.append(re.sub(r"(?<=\d),(?=\d)", ".", text))
    if re.search(r"\d\.\d{3}(?!\d)", text):
        variants.append(re.sub(r"(?<=\d)\.(?=\d{3}(?!\d))", "", text))
    if HEDGED.search(text):
        found = [expressions.solutions(text)]
        return [value for value in found if isinstance(value, str)]
    variants += [_without_words(variant) for variant in variants]
    found = [expressions.solutions(variant) for variant in variants]
    return [value for value in found if value is not None and value != []]


def _unfinished(answer: str, expected: Any) -> bool:
    """Return whether 12 + 30 was given where 42 is asked: the question, repeated."""
    if isinstance(expected, str) or not all(value.is_Rational for value in expected):
        return False
    return CALCULATION.search(answer.rpartition("=")[2]) is not None


_WIDE = {ord("０") + digit: str(digit) for digit in range(10)}


def _without_words(text: str) -> str:
    """Drop words and units around a value: "There are 12 apples." becomes 12."""
    text = re.sub(KEPT_WORDS, " ", re.sub(r"[€$£°%:]", " ", text))
    text = re.sub(r"(?<=\d) ?[hmgls]\b", " ", text).strip(" .!,")
    return " ".join(text.split())


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, str) or isinstance(expected, str):
        return found == expected
    return expressions.same_set(found, expected)


def _rounded(found: Any, expected: Any, answer: str) -> bool:
    """Return whether decimals are near to an expected value that has more of them."""
    if isinstance(found, str) or isinstance(expected, str):
        return False
    decimals = max(map(len, re.findall(r"\d[.,](\d+)", answer)), default=0)
    if not decimals or len(found) != len(expected):
        return False
    numbers = [*found, *expected]
    if any(value.free_symbols for value in numbers):
        return False
    pairs = zip(sorted(map(float, found)), sorted(map(float, expected)), strict=True)
    return all(abs(one - other) < 10**-decimals for one, other in pairs)


def _what_is_wrong(found: Any, expected: Any) -> str:
    """Say what can be said without giving the answer away."""
    if isinstance(found, str) or isinstance(expected, str):
        return "That is not it. How many solutions are there?"
    right = [any(expressions.equal(v, e) for e in expected) for v in found]
    if all(right):
        return "That is right, and not all: there is another one."
    if any(right):
        return "One value is right, and one is not."
    if _same([-value for value in found], expected):
        return "Look at the signs."
    return "That is not it."


def check_working(problem: Problem, text: str) -> list[Step]:
    """Check the lines of a solution, also against what the question gives.

    >>> problem = tasks.sums.problems(1, seed=0)[0]
    >>> [step.right for step in check_working(problem, "2 + 2 = 5")]
    [False]
    """
    given = _given(problem)
    return check_steps(f"{given}\n{text}" if given else text)[bool(given) :]


def _given(problem: Problem) -> str:
    """Return the function or the equation that a question gives, "" if there is none.

    Only questions of mathematics do; those of sums and stories hold plain numbers.
    """
    question = problem.question.replace("d/dx", " ")
    if found := re.search(rf"[fgh]\(x\) ?= ?{FORMULA}", question):
        return found[0].strip(" .")
    if problem.kind.endswith("equation"):
        found = re.search(rf"{FORMULA}= ?{FORMULA}", question)
        return found[0].strip(" .") if found else ""
    if not problem.kind.startswith(("derivative", "critical")):
        return ""
    longest = max(re.findall(FORMULA, question), key=len).strip(" .")
    return f"f(x) = {longest}" if expressions.read(longest) else ""


FORMULA = r"[-+*/^().\dx²³⁴− ]+"


# Explanations


@dataclass(frozen=True)
class Explanation:
    """A worked solution: `by` the "model", or "computed" where its own was withheld.

    Every line was checked. `withheld` says why the model's was not shown.
    """

    text: str
    by: str
    withheld: str = ""

    def __str__(self) -> str:
        if self.by == "model":
            return f"{self.text}\n[written by the model, every line checked]"
        return f"{self.text}\n[computed; the model's was withheld: {self.withheld}]"


def fault(problem: Problem, text: str, answer: str, stopped: str = "end") -> str:
    """Return why an explanation must not be shown; "" if it may.

    It must be whole, no line of it wrong, its last value the answer, and that answer
    right. `text` are the steps and `answer` is where the result stands.
    """
    if stopped == "length":
        return "it was cut off"
    if not problem.grade(answer):
        return "its answer is wrong"
    try:
        steps = check_working(problem, text)
    except ValueError:
        return "it is too long to check"
    if wrong := [step for step in steps if step.right is False]:
        return f"a line is wrong: {wrong[0].line}"
    checked = [step for step in steps if step.right]
    if not checked:
        return "it has no line that can be checked"
    if claims := [s for s in steps if s.right is None and _claims(problem, s.line)]:
        return f"a line cannot be checked: {claims[0].line}"
    last = re.split(r"[=:]", checked[-1].line)[-1]
    if boxed(text) is None and mark(problem, last).right is not True:
        return "its steps do not lead to its answer"
    return ""


def _claims(problem: Problem, line: str) -> bool:
    """Return whether a line that was not checked says something that may be wrong."""
    if "=" not in line and boxed(line) is None:
        return False
    return not _restates(problem, line) and not re.match(r"([fgh]\(x\)|y) =", line)


def _restates(problem: Problem, line: str) -> bool:
    """Return whether a line only repeats a formula of the question."""
    bare = re.sub(r"^[fgh]\(x\) *=|[\s*]", "", expressions.plain(line))
    return bare in re.sub(r"[\s*]", "", expressions.plain(problem.question))


def steps_of(reply: Reply) -> str:
    """Return the part of a reply that works the problem: answer, or else thinking."""
    return reply.answer if reply.answer.count("=") > 1 else reply.thinking.strip()


def computed(problem: Problem) -> str:
    """Return the solution that the generator of the problem computed."""
    return problem.thinking or problem.answer


def gives_away(problem: Problem, text: str) -> bool:
    """Return whether a text holds the answer, or one of several.

    >>> problem = tasks.sums.problems(1, seed=0, count=2)[0]
    >>> gives_away(problem, problem.thinking)
    True
    """
    expected = expressions.solutions(problem.expected)
    if isinstance(expected, str):
        return expressions.plain(problem.expected) in expressions.plain(text)
    for part in re.split(r"[=\n:<>]", text.replace("\\boxed", "")):
        found = expressions.read(part.strip(" .{}"))
        found = found or expressions.read(re.sub(r"^.*? at ", "", part).strip())
        for value in found or ():
            if any(expressions.equal(value, known) for known in expected or ()):
                return True
    return False


def hints(problem: Problem, solution: str) -> list[str]:
    """Return what to do, then the first checked step that gives nothing away."""
    first = STRATEGIES[problem.kind if problem.skill != "sums" else "sums"]
    checked = check_working(problem, solution)
    steps = [s.line for s in checked if s.right and not _restates(problem, s.line)]
    if steps and not gives_away(problem, steps[0]):
        return [first, f"It begins so: {steps[0]}"]
    return [first]


# The record


@dataclass(frozen=True)
class Entry:
    """One problem that a learner answered: the first answer counts, all are counted."""

    day: str
    skill: str
    rung: str
    difficulty: float
    question: str
    answer: str
    score: float
    hints: int = 0


class Record(Table[Entry]):
    """What a learner did; a JSONL file, a line each, if it is to outlive the program.

    The file is the learner's: readable with any editor, sent nowhere, and gone after
    `delete`. Raises ValueError for a file that is no record.

    Example:
        Record("tutor.jsonl").delete()
    """

    columns = ("day", "skill", "rung", "question", "answer", "score", "hints")
    noun = "problems"

    def __init__(self, path: str | Path | Sequence[Entry] | None = None) -> None:
        self.path = Path(path) if isinstance(path, str | Path) else None
        super().__init__(() if isinstance(path, str | Path | None) else path)
        if self.path and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            self += [self._entry(n, line) for n, line in enumerate(lines, 1) if line]

    def _entry(self, number: int, line: str) -> Entry:
        try:
            return Entry(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path}, line {number}, is no entry of a tutor's record. Delete "
                "that line, or give the tutor another file."
            ) from error

    def cells(self, item: Entry) -> Row:
        """Return what the learner sees of one problem."""
        texts = (item.day, item.skill, item.rung, item.question, item.answer)
        return (*texts, f"{item.score:g}", str(item.hints))

    def keep(self, entry: Entry) -> None:
        """Add an entry, in the file too."""
        self.append(entry)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")

    def delete(self) -> None:
        """Forget everything, and remove the file."""
        self.clear()
        if self.path:
            self.path.unlink(missing_ok=True)

    def levels(self) -> dict[str, Level]:
        """Return the level in each skill: all that the tutor knows of a learner."""
        levels = {skill: Level() for skill in LADDERS}
        for entry in self:
            level = levels.setdefault(entry.skill, Level())
            level.update(entry.difficulty, entry.score)
        return levels


# The tutor


@dataclass(frozen=True)
class Task:
    """A problem as the learner sees it, without its answer."""

    skill: str
    rung: str
    question: str
    chance: float

    def __str__(self) -> str:
        return f"{self.question}\n[{self.skill}, {self.rung}]"


@dataclass(frozen=True)
class Feedback:
    """The mark of an answer, and the check of each line of working, if there is any."""

    mark: Mark
    working: list[Step]
    counted: bool

    @property
    def right(self) -> bool | None:
        """Whether the answer is right."""
        return self.mark.right

    @property
    def wrong_line(self) -> Step | None:
        """The first line of the working that is wrong."""
        return next((step for step in self.working if step.right is False), None)

    def __str__(self) -> str:
        text = "Right." if self.right else self.mark.why
        if self.wrong_line is None:
            return text
        but = "Right, but look at this line" if self.right else f"{text} Look at this"
        return f"{but}: {self.wrong_line.line}"


class Tutor:
    """Poses problems at the learner's level, marks, hints and explains.

    `model` explains; with `general`, a second (model, tokenizer), that one explains
    sums and word problems. `instruction` is put before a problem for a model that does
    not work step by step by itself. `record` names a file; None remembers nothing
    beyond the session. Of each problem the first answer moves the level.

    Example:
        tutor = Tutor(model, tokenizer, record="tutor.jsonl")
        print(tutor.pose("equations"))
        print(tutor.answer("x = 3", working="2x = 6"))
        print(tutor.explain())
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        general: Pair | None = None,
        instruction: str = "",
        record: str | Path | None = None,
        target: float = 0.75,
        seed: int | None = None,
    ) -> None:
        if not 0 < target < 1:
            raise ValueError(f"target is {target}; give a share between 0 and 1.")
        self.math: Pair = (model, tokenizer)
        self.general: Pair = general or self.math
        self.instruction, self.target = instruction, target
        self.record = Record(record)
        self._rng = random.Random(seed)
        self._problem: Problem | None = None
        self._rung: Rung | None = None
        self._hints = 0
        self._attempts = 0
        self._known: Explanation | None = None

    def pose(self, skill: str | None = None) -> Task:
        """Pose a problem of a skill; None takes the one that was practised least."""
        levels = self.record.levels()
        if skill is None:
            skill = min(LADDERS, key=lambda name: levels[name].answered)
        if skill not in LADDERS:
            near = suggest(skill, LADDERS)
            raise ValueError(f'"{skill}" is not one of {", ".join(LADDERS)}.{near}')
        self._rung = levels[skill].choose(LADDERS[skill], self.target)
        self._problem = draw(self._rung.make, self._rng, "test")
        self._hints, self._attempts, self._known = 0, 0, None
        chance = levels[skill].chance(self._rung.difficulty)
        return Task(skill, self._rung.name, self._problem.question, chance)

    def answer(self, text: str, working: str = "") -> Feedback:
        """Mark an answer and check the working, one step a line.

        An answer that cannot be read is no attempt. Raises ValueError before `pose`.
        """
        problem, result = self._posed(), mark(self._posed(), text)
        steps = check_working(problem, working) if working.strip() else []
        counted = result.right is not None and not self._attempts
        if counted:
            self._keep(text, (0.5 if self._hints else 1.0) if result.right else 0.0)
        self._attempts += result.right is not None
        return Feedback(result, steps, counted)

    def give_up(self) -> None:
        """Say "I do not know": it counts as a wrong answer and opens the solution."""
        self._posed()
        if not self._attempts:
            self._keep("", 0.0)
        self._attempts += 1

    def hint(self) -> str:
        """Return the next hint; none of them holds the answer."""
        known = hints(self._posed(), self._explanation().text)
        if self._hints == len(known):
            return "That was the last hint. Try, or give up and read the solution."
        self._hints += 1
        return known[self._hints - 1]

    def explain(self) -> Explanation:
        """Return the worked solution. Raises ValueError before the first attempt."""
        self._posed()
        if not self._attempts:
            raise ValueError(
                "there is no attempt yet. Try first: tutor.answer(...). A wrong one "
                "teaches more than a solution that was read. tutor.hint() helps; "
                "tutor.give_up() opens the solution."
            )
        return self._explanation()

    def _posed(self) -> Problem:
        if self._problem is None:
            raise ValueError("there is no problem yet. Type: tutor.pose()")
        return self._problem

    def _keep(self, answer: str, score: float) -> None:
        rung, problem = self._rung, self._posed()
        assert rung is not None
        self.record.keep(
            Entry(date.today().isoformat(), rung.skill, rung.name, rung.difficulty,
                  problem.question, answer[:LONGEST_ANSWER], score, self._hints)
        )  # fmt: skip

    def _explanation(self) -> Explanation:
        if self._known is None:
            self._known = self.explanations([self._posed()])[0]
        return self._known

    def explanations(self, problems: Sequence[Problem]) -> list[Explanation]:
        """Let the model explain problems, and return for each what may be shown."""
        found: dict[int, Explanation] = {}
        for mine in (True, False):
            chosen = [n for n, p in enumerate(problems) if _is_mathematics(p) is mine]
            pair = self.math if mine else self.general
            asked = [self._messages(problems[n]) for n in chosen]
            replies = chat_batch(*pair, asked, sampling="greedy", max_new_tokens=320)
            for n, reply in zip(chosen, replies, strict=True):
                found[n] = _shown(problems[n], reply)
        return [found[n] for n in range(len(problems))]

    def _messages(self, problem: Problem) -> list[dict[str, Any]]:
        system = mathematics.COT if _is_mathematics(problem) else self.instruction
        head = [{"role": "system", "content": system}] if system else []
        return [*head, {"role": "user", "content": problem.question}]


def _is_mathematics(problem: Problem) -> bool:
    return problem.skill == mathematics.SKILL


def _shown(problem: Problem, reply: Reply) -> Explanation:
    text = steps_of(reply)
    why = fault(problem, text, reply.answer, reply.stopped)
    if why:
        return Explanation(computed(problem), "computed", why)
    return Explanation(text, "model")


def load_tutor(**options: Any) -> Tutor:
    """Return a tutor on the models of the setting: pocket ones, or real ones.

    `options` are those of `Tutor`. A real Qwen3 is told to work step by step; the
    pocket model does so by itself, and knows no such instruction.
    """
    from qwen_course.loading import load
    from qwen_course.settings import model_name, specialist

    pocket = model_name().startswith("pocket-")
    options.setdefault("instruction", "" if pocket else STEPWISE)
    return Tutor(*load(specialist("math")), general=load(), **options)


STEPWISE = (
    "Work the problem with one small computation a line, such as 12 + 30 = 42. "
    "The last line is the answer alone."
)


# How good is it? Simulated learners, written forms, planted slips

ZONE = (0.65, 0.85)  # of the chance of success: 10 points around the target


@dataclass(frozen=True)
class Simulation:
    """Learners who are no people: an ability, and luck.

    For each learner `chances` holds the true chance of each problem posed, `right` the
    answers, and `reachable` whether any rung would have been in the zone.
    """

    chances: list[list[float]]
    right: list[list[bool]]
    reachable: list[bool]

    def success(self, start: int = 0, end: int | None = None) -> Score:
        """Return the right answers to the problems from `start` to `end`."""
        answers = [one for row in self.right for one in row[start:end]]
        return Score(sum(answers), len(answers))

    def in_zone(self, start: int = 0, end: int | None = None) -> Score:
        """Return how many problems had a true chance in the zone, where one could."""
        rows = zip(self.chances, self.reachable, strict=True)
        found = [one for row, can in rows if can for one in row[start:end]]
        return Score(sum(ZONE[0] <= one <= ZONE[1] for one in found), len(found))

    def needed(self, window: int = 5) -> list[int | None]:
        """Return after how many problems each learner was in the zone, None if never.

        That is: the mean chance of the next `window` problems lies in it.
        """
        return [
            next((n for n in range(len(row) - window + 1)
                  if ZONE[0] <= sum(row[n : n + window]) / window <= ZONE[1]), None)
            for row, can in zip(self.chances, self.reachable, strict=True) if can
        ]  # fmt: skip

    def needed_by(self, share: float = 0.5) -> float:
        """Return after how many problems this share of the learners was in the zone."""
        found = sorted(math.inf if n is None else n for n in self.needed())
        return found[math.ceil(share * len(found)) - 1]

    def __str__(self) -> str:
        return (
            f"{len(self.right)} simulated learners, {sum(self.reachable)} of them in "
            f"reach of the problems\nright answers, second half: "
            f"{self.success(len(self.right[0]) // 2)}\nproblems in the zone, second "
            f"half: {self.in_zone(len(self.right[0]) // 2)}\nproblems until the zone: "
            f"{self.needed_by(0.5):g} for half of them, {self.needed_by(0.9):g} for "
            "nine of ten"
        )


def simulate(
    learners: int = 200,
    problems: int = 40,
    skill: str = "equations",
    seed: int = 0,
    misfit: float = 0.5,
    learning: float = 0.0,
    adaptive: bool = True,
) -> Simulation:
    """Let learners who are made up practise one skill, without any model.

    True abilities are drawn from a normal distribution, in logits. `misfit` is how far
    the true difficulty of each rung is from the assumed one (standard deviation),
    `learning` what one problem adds to an ability. Without `adaptive` every problem is
    of the middle rung, as on a sheet for a whole class.
    """
    rng, ladder = random.Random(seed), LADDERS[skill]
    chances, right, reachable = [], [], []
    for _ in range(learners):
        true = Level(rng.gauss(0, 1.5))
        real = {rung.name: rung.difficulty + rng.gauss(0, misfit) for rung in ladder}
        level, met, answers = Level(), list[float](), list[bool]()
        for _ in range(problems):
            rung = level.choose(ladder) if adaptive else ladder[len(ladder) // 2]
            met.append(true.chance(real[rung.name]))
            answers.append(rng.random() < met[-1])
            level.update(rung.difficulty, answers[-1])
            true.rating += learning
        chances.append(met)
        right.append(answers)
        reach = (true.chance(hardness) for hardness in real.values())
        reachable.append(any(ZONE[0] <= chance <= ZONE[1] for chance in reach))
    return Simulation(chances, right, reachable)


def plot(runs: dict[str, Simulation]) -> "Figure":
    """Draw how the share of right answers goes from problem to problem."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(*ZONE, color="#009E73", alpha=0.15, label="zone")
    looks = (("#0072B2", "-"), ("#D55E00", "--"), ("#999999", ":"))
    for (name, run), (colour, style) in zip(runs.items(), looks, strict=False):
        count = range(1, len(run.chances[0]) + 1)
        shares = [run.in_zone(n - 1, n).accuracy for n in count]
        axes.plot(count, shares, color=colour, linestyle=style, label=name)
    axes.set(xlabel="problem", ylabel="learners in the zone (share)", ylim=(0, 1))
    name, run = next(iter(runs.items()))
    axes.set_title(_finding(name, run), fontsize=10)
    axes.legend(fontsize=8)
    return figure


def _finding(name: str, run: Simulation) -> str:
    half = len(run.right[0]) // 2
    return (
        f"{name}: {run.success(half).accuracy:.0%} right in the second half, nine of "
        f"ten learners in the zone after {run.needed_by(0.9):g} problems"
    )


def right_forms(problem: Problem) -> list[str]:
    """Return ways in which a learner may write the right answer.

    >>> right_forms(tasks.sums.problems(1, seed=0)[0])[0].isdigit()
    True
    """
    given = problem.expected
    bare = given.replace("x = ", "")
    forms = [given, f"  {given} ", given.replace("x = ", "x="), f"{given}.",
             given.replace("-", "\N{MINUS SIGN}"), f"The answer is {bare}"]  # fmt: skip
    forms += _other_numbers(bare)
    if ", " in given:
        first, second = bare.split(", ")
        forms += [f"{second}; {first}", f"x = {first} or x = {second}",
                  f"x1={first}, x2={second}", f"{{{first}, {second}}}"]  # fmt: skip
    if "sqrt" in given:
        forms += [given.replace("sqrt", "√"), f"x = {bare.replace('±', '+/-')}"]
    if "x^" in given:
        forms += [given.replace("^2", "²").replace("^3", "³"), f"y' = {given}",
                  re.sub(r"(?<=\d)x", "*x", given)]  # fmt: skip
    return list(dict.fromkeys(forms))


def _other_numbers(text: str) -> list[str]:
    """Write a number with a unit, separators, or as a decimal, where that is exact."""
    if re.fullmatch(r"\d+", text):
        number = int(text)
        forms = [f"{number:,}".replace(",", sign) for sign in (",", " ", ".")]
        return [*forms, f"{text} km", f"= {text}", f"{text}.0"]
    if found := re.fullmatch(r"(-?\d+)/(\d+)", text):
        above, below = map(int, found.groups())
        forms = [f"\\frac{{{above}}}{{{below}}}", f"{above} / {below}"]
        if 10**4 * above % below == 0:
            decimal = f"{above / below:.4f}".rstrip("0")
            forms += [decimal, decimal.replace(".", ","), f"x = {decimal}"]
        return forms
    return []


def wrong_forms(problem: Problem) -> list[str]:
    """Return answers that must not be accepted: slips, half answers, two at once."""
    given = problem.expected
    bare = given.replace("x = ", "")
    slipped = _slip(bare, random.Random(given))
    forms = [slipped, f"x = {slipped}", f"{bare} or {slipped}", f"not {bare}", "?"]
    if re.fullmatch(r"-?\d+", bare):
        number = int(bare)
        forms += [str(number + 1), str(number - 1), f"about {number}"]
        forms += [str(-number), f"{number}0"] if number else []
    if problem.skill == "sums":
        forms.append(" + ".join(map(str, problem.content[1:])))
    if found := re.fullmatch(r"(-?\d+)/(\d+)", bare):
        above, below = map(int, found.groups())
        forms.append(f"{below}/{above}")
        if 10 * above % below:
            forms.append(f"{above / below:.1f}")
    if ", " in bare:
        forms += [bare.split(", ")[0], f"{bare}, 97"]
    if "x" in bare and "±" not in bare and "=" not in given:
        forms += [f"{bare} + 1", f"-({bare})"]
    if "no" in bare:
        forms = ["x = 0", "all", "1", "x = 2, x = -2"]
    return list(dict.fromkeys(forms))


def _slip(text: str, rng: random.Random) -> str:
    """Change one digit of a text."""
    places = [n for n, letter in enumerate(text) if letter.isdigit()]
    if not places:
        return f"{text} 1"
    place = rng.choice(places)
    other = rng.choice([d for d in "123456789" if d != text[place]])
    return text[:place] + other + text[place + 1 :]


def sample(each: int = 2, seed: int = 0) -> list[Problem]:
    """Return `each` unseen problems of every rung of every ladder."""
    rng = random.Random(seed)
    rungs = [rung for ladder in LADDERS.values() for rung in ladder]
    return [draw(rung.make, rng, "test") for rung in rungs for _ in range(each)]


@dataclass(frozen=True)
class Marking:
    """How the marks are: `accepted` of right answers, `refused` of wrong ones."""

    accepted: Score
    refused: Score
    missed: list[tuple[str, str]]  # what was expected, what was marked wrongly

    def __str__(self) -> str:
        return f"right, accepted: {self.accepted}\nwrong, refused: {self.refused}"


def measure_marking(problems: Sequence[Problem]) -> Marking:
    """Mark right and wrong answers in many forms, and count the mistakes."""
    good = [(p, form) for p in problems for form in right_forms(p)]
    bad = [(p, form) for p in problems for form in wrong_forms(p)]
    accepted = [mark(p, form).right is True for p, form in good]
    refused = [mark(p, form).right is not True for p, form in bad]
    pairs = zip([*good, *bad], [*accepted, *refused], strict=True)
    return Marking(
        Score(sum(accepted), len(accepted)),
        Score(sum(refused), len(refused)),
        [(problem.expected, form) for (problem, form), fine in pairs if not fine],
    )


def measure_slips(problems: Sequence[Problem], seed: int = 0) -> Score:
    """Plant a wrong digit into a true solution: how often is it noticed?

    A check that lets slips pass would make "every line checked" an empty promise.
    """
    rng, caught = random.Random(seed), list[bool]()
    has_digit = re.compile(r"\d").search
    for problem in problems:
        lines = computed(problem).splitlines()
        place = rng.choice([n for n, line in enumerate(lines) if has_digit(line)])
        lines[place] = _slip(lines[place], rng)
        text = "\n".join(lines)
        if text != computed(problem):
            answer = text if _is_mathematics(problem) else problem.answer
            caught.append(fault(problem, text, answer) != "")
    return Score(sum(caught), len(caught))


def measure_hints(problems: Sequence[Problem]) -> Score:
    """Count the problems whose hints do not hold the answer."""
    kept = [
        not any(gives_away(problem, hint) for hint in hints(problem, computed(problem)))
        for problem in problems
    ]
    return Score(sum(kept), len(kept))


@dataclass(frozen=True)
class Explaining:
    """How many of the model's explanations could be shown, and why not the others."""

    shown: Score
    reasons: dict[str, int]

    def __str__(self) -> str:
        told = "".join(f"\n  {n} x {why}" for why, n in self.reasons.items())
        return f"explanations of the model shown: {self.shown}{told}"


def measure_explanations(tutor: Tutor, problems: Sequence[Problem]) -> Explaining:
    """Let the model explain problems, and count what passes the check."""
    found = tutor.explanations(problems)
    reasons = Counter(e.withheld.partition(":")[0] for e in found if e.withheld)
    shown = sum(e.by == "model" for e in found)
    return Explaining(Score(shown, len(found)), dict(reasons.most_common()))
