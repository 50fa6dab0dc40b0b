"""Watch what a service says: a quick answer may be wrong, and no clock notices.

Canary questions have known answers and are asked again and again. Drift compares what
is written now with a good time, by its length, its thinking and its language. A gate
compares two checkpoints on the same questions, and says how sure it is.
"""

import contextlib
import importlib.util
import logging
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from qwen_course import tasks
from qwen_course.chat import Reply
from qwen_course.datafiles import data_file
from qwen_course.doctor import Check
from qwen_course.evaluation import Evaluation, Score
from qwen_course.messages import Message
from qwen_course.tables import Row, Table
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    from qwen_course.service import Served

ALPHA = 0.05  # how often a test may cry wolf
ROUNDS = 2000  # shuffles of a permutation test
LEAST_CHANGE = 0.1  # a smaller change of a mean is no drift, however sure
Z95, Z80 = 1.959964, 0.841621  # of the normal distribution
Item = Union[Reply, "Served"]
Ask = Callable[[list[list[Message]]], list[Reply]]


# Two runs on the same questions: did it become worse?


@dataclass(frozen=True)
class Gate:
    """Two checkpoints on the same questions.

    `lost` were right before and are wrong now, `won` the other way round; what both
    have in common says nothing of the difference. `p_value` is how often so many or
    more of the changes would be losses if both were equally good (the exact test of
    McNemar, 1947, one-sided). `interval` is that of the change in accuracy, at 95%.
    """

    before: Score
    after: Score
    lost: int
    won: int
    allowed: float

    @property
    def change(self) -> float:
        """The change in accuracy, below 0 if it became worse."""
        return (self.won - self.lost) / self.before.total

    @property
    def p_value(self) -> float:
        """How likely so many losses are by chance alone."""
        return sign_test(self.lost, self.won)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the change.

        Agresti and Min, 2005 ("Simple improved confidence intervals for comparing
        matched proportions"): half a question is added to each kind of outcome.
        """
        total, lost, won = self.before.total + 2, self.lost + 0.5, self.won + 0.5
        middle = (won - lost) / total
        spread = math.sqrt(lost + won - (won - lost) ** 2 / total) / total
        return (max(-1.0, middle - Z95 * spread), min(1.0, middle + Z95 * spread))

    @property
    def verdict(self) -> str:
        """Return "pass", "worse", or "unclear" where more questions are needed."""
        if self.interval[0] >= -self.allowed:
            return "pass"
        return "worse" if self.p_value < ALPHA else "unclear"

    @property
    def needed(self) -> int:
        """How many questions it takes to see a drop of `allowed`, four times of five.

        Connor, 1987, for questions that change as often as these did.
        """
        changed = max((self.lost + self.won) / self.before.total, self.allowed)
        drop = max(self.allowed, 0.001)
        root = Z95 * math.sqrt(changed) + Z80 * math.sqrt(changed - drop * drop)
        return math.ceil((root / drop) ** 2)

    def __str__(self) -> str:
        low, high = self.interval
        chance = f"p = {self.p_value:.3f}" if self.p_value >= 0.001 else "p < 0.001"
        text = (
            f"{self.verdict}: {self.before.accuracy:.1%} -> {self.after.accuracy:.1%} "
            f"({self.change:+.1%}, 95%: {low:+.1%} to {high:+.1%})\n"
            f"of {self.before.total} questions {self.lost} were lost and {self.won} "
            f"won, {chance}"
        )
        if self.verdict == "unclear":
            text += f"\nto see a drop of {self.allowed:.0%}, ask about {self.needed:,}"
        return text

    __repr__ = __str__


def sign_test(lost: int, won: int) -> float:
    """Return how likely `lost` or more losses among all changes are, by chance.

    Each change is the throw of a coin if both sides are equally good.

    >>> sign_test(5, 0)
    0.03125
    """
    changes = lost + won
    heads = sum(math.comb(changes, number) for number in range(lost, changes + 1))
    return heads / 2**changes


def gate(before: Evaluation, after: Evaluation, allowed: float = 0.02) -> Gate:
    """Compare two evaluations of the same questions, question by question.

    `allowed` is the drop in accuracy that you would accept. Raises ValueError when the
    questions differ, or there are none.

    Example:
        gate(evaluate(old, ...), evaluate(new, ...)).verdict  ->  "worse"
    """
    if [p.content for p in before.problems] != [p.content for p in after.problems]:
        raise ValueError(
            "the two evaluations have different questions. Ask both the same ones, in "
            "the same order."
        )
    return compare(before.right, after.right, allowed)


def compare(
    before: Sequence[bool], after: Sequence[bool], allowed: float = 0.02
) -> Gate:
    """Compare right and wrong of two runs, question by question.

    >>> compare([True] * 10, [True] * 4 + [False] * 6).verdict
    'worse'
    """
    if not before or len(before) != len(after):
        raise ValueError(
            f"{len(before)} answers cannot be compared with {len(after)}; give the "
            "same questions to both, one or more."
        )
    if not 0 <= allowed < 1:
        raise ValueError(f"allowed is {allowed}; give a part of 1, such as 0.02.")
    pairs = list(zip(before, after, strict=True))
    return Gate(
        before=Score(sum(before), len(pairs)),
        after=Score(sum(after), len(pairs)),
        lost=sum(old and not new for old, new in pairs),
        won=sum(new and not old for old, new in pairs),
        allowed=allowed,
    )


# Drift: is it written as in a good time?


def permutation_test(
    before: Sequence[float], after: Sequence[float], rounds: int = ROUNDS, seed: int = 0
) -> float:
    """Return how often chance alone makes two means differ as much as these do.

    If both came from one source, it would not matter which value is in which group: so
    they are shuffled again and again. NaN without values in both.

    >>> permutation_test([1, 2, 3, 4], [1, 2, 3, 4])
    1.0
    """
    import numpy

    if not before or not after:
        return math.nan
    rng = numpy.random.default_rng(seed)
    values, size = numpy.array([*before, *after], dtype=float), len(before)
    seen = abs(values[:size].mean() - values[size:].mean())
    total, hits = values.sum(), 0
    for _ in range(rounds):
        first = rng.permutation(values)[:size].sum()
        apart = abs(first / size - (total - first) / (len(values) - size))
        hits += apart >= seen - 1e-12
    return float((hits + 1) / (rounds + 1))  # the order we saw is one of them


@dataclass(frozen=True)
class Trait:
    """One property of what is written, as means of two times."""

    name: str
    before: float
    after: float
    p_value: float
    drifted: bool


class Drift(Table[Trait]):
    """What changed between two times, property by property."""

    columns = ("property", "then", "now", "p", "drift")
    noun = "properties"

    def cells(self, item: Trait) -> Row:
        """Return both means, and how sure it is that they differ."""
        means = (f"{item.before:.3g}", f"{item.after:.3g}", f"{item.p_value:.4f}")
        return (item.name, *means, "yes" if item.drifted else "-")

    @property
    def found(self) -> list[Trait]:
        """The properties that drifted."""
        return [trait for trait in self if trait.drifted]


def answer_tokens(item: Item) -> float:
    """Return the tokens of the answer, its thinking left out."""
    return (item.usage if isinstance(item, Reply) else item).answer_tokens


def thinking_tokens(item: Item) -> float:
    """Return the tokens of the thinking."""
    return (item.usage if isinstance(item, Reply) else item).thinking_tokens


def thinking_share(item: Item) -> float | None:
    """Return which part of the tokens was thinking; None if nothing was written."""
    thought = thinking_tokens(item)
    written = thought + answer_tokens(item)
    return thought / written if written else None


def cut_off(item: Item) -> float:
    """Return 1 for an answer that was cut off, else 0."""
    ended = item.stopped if isinstance(item, Reply) else item.finish_reason
    return float(ended == "length")


def same_language(item: Item) -> float | None:
    """Return 1 if the answer has the language of its question, else 0.

    None where one of them is too short to tell, or no text was kept.
    """
    if not isinstance(item, Reply):
        return None
    users = [m["content"] for m in item.messages if m["role"] == "user"]
    asked, answered = language(str(users[-1])), language(item.answer)
    return None if None in (asked, answered) else float(asked == answered)


TRAITS: dict[str, Callable[[Item], float | None]] = {
    "answer tokens": answer_tokens,
    "thinking tokens": thinking_tokens,
    "thinking share": thinking_share,
    "cut off": cut_off,
    "language kept": same_language,
}


def drift(before: Sequence[Item], after: Sequence[Item], alpha: float = ALPHA) -> Drift:
    """Compare two times, property by property.

    A property drifted when chance is ruled out (`alpha`, shared among the properties,
    so that five looks do not raise five false alarms) and its mean changed by a tenth.
    Requests tell the first four; the language needs replies, for it needs text.

    Example:
        drift(monitor_then.served(), monitor_now.served()).found
    """
    seen = {name: (_values(trait, before), _values(trait, after))
            for name, trait in TRAITS.items()}  # fmt: skip
    there = {name: pair for name, pair in seen.items() if all(pair)}
    return Drift(
        _trait(name, *pair, alpha / len(there)) for name, pair in there.items()
    )


def _values(
    trait: Callable[[Item], float | None], items: Sequence[Item]
) -> list[float]:
    values = (trait(item) for item in items)
    return [value for value in values if value is not None]


def _trait(
    name: str, before: Sequence[float], after: Sequence[float], alpha: float
) -> Trait:
    then, now = sum(before) / len(before), sum(after) / len(after)
    p_value = permutation_test(before, after)
    # Of a share that was near 0, a tenth is nothing: there the share itself counts.
    least = LEAST_CHANGE * max(abs(then), 1.0 if max(then, now) <= 1 else 0.0)
    return Trait(name, then, now, p_value, p_value < alpha and abs(now - then) >= least)


# Words that are frequent in a language and rare in the others.
WORDS = {
    "en": "the is are was of and to what which how does with for it this that many by",
    "tr": "ve bir bu ne için ile mi mı kaç nedir hangi olarak kim değil da var",
    "es": "el la los las es un una qué cuál y por con para cuántos del que en",
    "fr": "le la les est un une quel quelle et pour avec combien du des qui dans au",
    "de": "der die das den ist sind ein eine und wie was wer welche welches mit für "
    "von nicht viele ich zu im auf kann hat",
}
LETTERS = {"tr": "ğışİ", "es": "ñ¿¡", "de": "ßäö", "fr": "êèàœù"}
KANA, HAN = re.compile(r"[\u3040-\u30ff]"), re.compile(r"[\u4e00-\u9fff]")


def language(text: str) -> str | None:
    """Return the language of a text: en, tr, zh, es, fr, de, ja; None if unclear.

    Chinese and Japanese by their script, the others by frequent words and by letters
    that only they have. Two words decide nothing; a whole sentence usually does.

    >>> language("What is the capital of the country?"), language("42")
    ('en', None)
    """
    if KANA.search(text):
        return "ja"
    if HAN.search(text):
        return "zh"
    words = re.findall(r"[^\W\d_]+", text.replace("İ", "i").lower())
    points = {
        code: sum(words.count(word) for word in known.split())
        + 2 * sum(letter in text for letter in LETTERS.get(code, ""))
        for code, known in WORDS.items()
    }
    first, second = sorted(points, key=lambda code: points[code], reverse=True)[:2]
    return first if points[first] > points[second] else None


def watch_drift(
    now: Callable[[], Sequence[Item]], reference: Sequence[Item]
) -> Callable[[], list[Check]]:
    """Return a source of checks for `monitor.sources`: is it written as it was?

    `now` returns what is compared with the reference, such as `monitor.served`.
    """

    def checks() -> list[Check]:
        found = drift(reference, now()).found
        if not found:
            return [Check("drift", "ok", f"as in {len(reference)} requests before")]
        told = "; ".join(f"{t.name} {t.before:.3g} -> {t.after:.3g}" for t in found)
        remedy = (
            "The users ask otherwise, or the model answers otherwise: ask the canary "
            "questions. If they are right, it is the users."
        )
        return [Check("drift", "warning", told, remedy)]

    return checks


# Canary questions


def canaries(each: int = 5) -> list[Problem]:
    """Return questions with known answers, always the same: some of every skill.

    They are none that the pocket models were trained on. `each` is how many of a skill.
    """
    sums = tasks.sums.problems(each, seed=90)
    products = tasks.products.problems(each, seed=90)
    words = tasks.word_problems.problems(each, seed=90)
    facts = [
        next(iter(tasks.course_questions.every_fact("test", code)["maker"]))
        for code in ("en", "zh", "tr", "es")
    ]
    return [*sums, *products, *words, *facts[:each]]


class Canaries:
    """Asks questions with known answers again and again, and compares the results.

    `ask` gets a list of conversations and returns a reply to each. The first run is
    what later ones are held against: a model that never knew an answer has not become
    worse. `monitor` shows the share of right answers to Prometheus, too.

    Example:
        canaries = Canaries(service.generate_batch, monitor=monitor)
        monitor.sources.append(canaries.checks)
        canaries.run()
    """

    def __init__(
        self, ask: Ask, problems: Sequence[Problem] = (), monitor: Any = None
    ) -> None:
        self.ask, self.monitor = ask, monitor
        self.problems = list(problems) or canaries()
        self.runs: list[Evaluation] = []

    def run(self) -> Evaluation:
        """Ask every question once, and keep the result."""
        replies = self.ask([problem.prompt for problem in self.problems])
        self.runs.append(Evaluation(self.problems, list(replies)))
        if self.monitor is not None and self.monitor.prometheus:
            self.monitor.prometheus.canaries.set(self.runs[-1].accuracy)
        return self.runs[-1]

    def gate(self) -> Gate:
        """Compare the last run with the first one. Raises ValueError before both."""
        if len(self.runs) < 2:
            raise ValueError("ask the canaries twice first: canaries.run().")
        return compare(self.runs[0].right, self.runs[-1].right)

    def checks(self) -> list[Check]:
        """Return what `monitor.health()` shows of the last run."""
        if not self.runs:
            return [Check("canaries", "ok", "not asked yet")]
        score, name = self.runs[-1].score, "canaries"
        detail = f"{score.right} of {score.total} right"
        if len(self.runs) < 2 or self.gate().verdict != "worse":
            return [Check(name, "ok", detail)]
        changed = f"{self.gate().lost} lost and {self.gate().won} won since the first"
        remedy = (
            "The model, its precision, its template or its settings changed: compare "
            "with the last version that was good, and go back to it."
        )
        return [Check(name, "problem", f"{detail}, {changed}", remedy)]


# lm-evaluation-harness


def harness_tasks() -> Path:
    """Return the folder with the course's tasks for lm-evaluation-harness.

    Its problems are made by the course, so nothing is downloaded. In a terminal, with
    FOLDER that of a model and TASKS this one:

        lm-eval run --model hf --model_args pretrained=FOLDER,device=cpu \\
            --include_path TASKS --tasks pocket --apply_chat_template --limit 100
    """
    return data_file("harness/pocket_sums.yaml").parent


def harness(
    model: Any,
    tokenizer: Any,
    skills: Sequence[str] = ("sums", "products", "word_problems"),
    limit: int = 100,
    thinking: bool = True,
) -> dict[str, float]:
    """Let lm-evaluation-harness measure a loaded model on some of the course's tasks.

    Raises ImportError where the harness is missing.

    Example:
        harness(model, tokenizer, ["sums"], limit=20)  ->  {"sums": 1.0}
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ImportError(
            "the harness needs lm-eval, not installed here. "
            "Type: python -m pip install lm-eval"
        )
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        found = _harness(model, tokenizer, skills, limit, thinking)
    return {skill: found[f"pocket_{skill}"]["right,none"] for skill in skills}


def _harness(
    model: Any, tokenizer: Any, skills: Sequence[str], limit: int, thinking: bool
) -> dict[str, dict[str, Any]]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    wrapped = HFLM(
        model, tokenizer=tokenizer, batch_size=16, enable_thinking=thinking,
        think_end_token="</think>",
    )  # fmt: skip
    found = simple_evaluate(
        wrapped,
        tasks=[f"pocket_{skill}" for skill in skills],
        limit=limit,
        # Without its own tasks: to look through their thousands of files takes long.
        task_manager=TaskManager(
            include_path=str(harness_tasks()), include_defaults=False
        ),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    return found["results"]
