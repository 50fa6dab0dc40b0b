"""What the checks of lesson 06 look at: functions on numbers, no model is loaded."""

import random
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe, plain

MOST_CALLS = 60  # of a function that a learner's code calls


class TooMany(Exception):
    """A learner's code called a function again and again."""


# Question 1


def runs(seed: int) -> list[tuple[float, list[float]]]:
    """Return runs of a model, (sent, moments): short and long, quick and slow to start.

    The gaps between the tokens differ.
    """
    rng = random.Random(seed)

    def run(sent: float, first: float, count: int) -> tuple[float, list[float]]:
        gaps = [
            rng.choice((0.04, 0.06, 0.15, 0.2)) + rng.random() / 100
            for _ in range(count - 2)
        ]
        steps = [sent + first, 0.03 + rng.random() / 100, *gaps]
        return sent, [round(moment, 4) for moment in accumulate(steps)]

    return [
        run(rng.randint(20, 90), 0.3 + rng.random() / 10, rng.randint(8, 12)),
        run(rng.randint(20, 90) + 0.5, 5 + rng.random(), rng.randint(5, 7)),
        run(rng.randint(5, 9), 0.2, 2),
        run(0.0, 1 + rng.random(), rng.randint(15, 25)),
    ]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the two speeds of each run."""
    return [call(answer, *run) for run in runs(seed)]


# Question 2

Vectors = tuple[list[float], list[float], list[float]]  # query, key, value
TEXTS, LAYERS, TOKENS, HEAD_DIM = 2, 2, 5, 6


class Token(NamedTuple):
    """A token on its way through one layer of one text."""

    text: int
    layer: int
    number: int
    vectors: Vectors


def steps(seed: int) -> list[Token]:
    """Return the tokens of two texts in turn, each in two layers."""
    rng = random.Random(seed)

    def vector() -> list[float]:
        return [round(rng.gauss(0, 1.2), 3) for _ in range(HEAD_DIM)]

    return [
        Token(text, layer, number, (vector(), vector(), vector()))
        for number in range(TOKENS)
        for text in range(TEXTS)
        for layer in range(LAYERS)
    ]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Hand over one token after another, with the cache of its text."""
    import torch

    if not callable(answer):
        return [call(answer)]
    caches: list[dict[Any, Any]] = [{} for _ in range(TEXTS)]
    seen: list[dict[str, Any]] = []
    for token in steps(seed):
        # subtle: `call` would copy the cache, and what is put there would be lost.
        function = partial(answer, caches[token.text], token.layer)
        seen.append(call(function, *map(torch.tensor, token.vectors)))
        if seen[-1]["late"]:
            break
    return seen


# Question 3


def queues(seed: int) -> list[tuple[list[int], int]]:
    """Return queues, (lengths, places): of all kinds of lengths, long last, short."""
    rng = random.Random(seed)

    def some(count: int, low: int = 2, high: int = 60) -> list[int]:
        return [rng.randint(low, high) for _ in range(count)]

    long = rng.randint(120, 150)
    return [
        ([*some(3), rng.randint(61, 80), *some(4)], 3),
        ([*some(4, 2, 20), long, *some(6, 2, 20)], 4),
        ([*some(5, 2, 20), long], 2),
        (some(rng.randint(3, 4)), 1),
        (some(3), 5),
        (some(13), 4),
        ([rng.randint(30, 50), *some(7, 3, 9)], 2),
    ]


def q3(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the passes of each queue."""
    return [call(answer, *queue) for queue in queues(seed)]


# Question 4


class Change(NamedTuple):
    """A batch by the lengths of its rows; the request in `row` makes room."""

    lengths: list[int]
    row: int
    length: int


def padded(lengths: list[int]) -> list[list[int]]:
    """Return the mask of texts of these lengths, as it is given to a learner."""
    width = max(lengths)
    return [[0] * (width - length) + [1] * length for length in lengths]


def changes(seed: int) -> list[Change]:
    """Return changes after which the batch is as wide, wider, narrower."""
    rng = random.Random(seed)
    short, middle, long = rng.randint(2, 3), rng.randint(5, 6), rng.randint(8, 9)
    return [
        Change([long, short, middle], 1, middle - 1),
        Change([middle, middle - 1, short], 1, long + rng.randint(1, 3)),
        Change([short, long, middle], 1, short + 1),
        Change([middle, long, short, short], 3, 1),
        Change([middle], 0, short),
        Change([long, long - 1], 0, long),
    ]


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Let each change be made."""
    return [
        call(answer, padded(change.lengths), change.row, change.length)
        for change in changes(seed)
    ]


# Question 5


class Plan(NamedTuple):
    """A model and a text for it, all lengths in tokens."""

    rope: dict[str, Any]
    trained: int
    prompt: int
    answer: int


def plans(seed: int) -> list[Plan]:
    """Return texts that fit, that fit but for the answer, and longer ones."""
    rng = random.Random(seed)
    qwen: dict[str, Any] = {"rope_type": "default", "rope_theta": 1_000_000.0}
    small: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0}
    more = rng.randint(100, 900)
    return [
        Plan(qwen, 32_768, 30_000 + more, 1_000),
        Plan(qwen, 32_768, 32_768 - more, more),
        Plan(qwen, 32_768, 32_768 - more, more + 200),
        Plan(qwen, 32_768, 60_000 + more, 2_000),
        Plan(qwen, 32_768, 78_000 + more, 4_096),
        Plan(qwen, 32_768, 98_304, 32_768),
        Plan(small, 416, 480 + more // 50, 200),
        Plan(small, 416, 900 + more // 10, 64),
    ]


def q5(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the settings of each plan."""
    return [call(answer, *plan) for plan in plans(seed)]


# Question 6

WRONG, ASTRAY = 250, 500  # added to a token that is drafted wrongly, and after one
DRAFTED = 4


class Job(NamedTuple):
    """A text to write, and how well it can be guessed, which `name` says.

    `truth` is what the model writes, the end token somewhere in it, and what it would
    write after that. `wrong` are the places in it that drafts get wrong, `silent`
    those at which there is no draft.
    """

    name: str
    prompt: list[int]
    truth: list[int]
    end: int
    limit: int
    wrong: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()

    def drafted(self, written: int) -> list[int]:
        """Return the draft for the tokens after the first `written` ones."""
        if written in self.silent:
            return []
        draft, added = list[int](), 0
        for place in range(written, min(written + DRAFTED, len(self.truth))):
            added = ASTRAY if added else WRONG * (place in self.wrong)
            draft.append(self.truth[place] + added)
        return draft

    def follows(self, text: list[int]) -> list[int]:
        """Return the next token after each place of a text, as the model writes it.

        After a wrong token it goes astray, as the drafts do.
        """
        known = [*self.prompt, *self.truth]
        right = [a == b for a, b in zip(text, known, strict=False)]
        same = right.index(False) if False in right else len(right)
        known += [1] * (len(text) + 1)
        return [
            known[place + 1] + (ASTRAY if place >= same else 0)
            for place in range(len(text))
        ]


def jobs(seed: int) -> list[Job]:
    """Return jobs whose drafts are right, wrong, missing, or go on after the end."""
    rng = random.Random(seed)
    end = 2

    def job(
        name: str, count: int, limit: int, wrong: str = "", silent: str = ""
    ) -> Job:
        before = rng.sample(range(10, 120), 5)
        truth = [*rng.sample(range(120, 240), count), end]
        after = rng.sample(range(120, 240), 9)
        places = (tuple(map(int, text.split())) for text in (wrong, silent))
        prompt = [before[0], end, *before[1:]]
        return Job(name, prompt, truth + after, end, limit, *places)

    return [
        job("all drafts right", 14, 40),
        job("all drafts wrong", 9, 40, "0 1 2 3 4 5 6 7 8 9"),
        job("some drafts wrong", 16, 40, "2 3 8 13"),
        job("some drafts empty", 11, 40, "6", "0 1 2 7"),
        job("a draft that goes on after the end", 6, 40, "4"),
        job("limit 7", 20, 7),
        job("limit 12, some drafts wrong", 20, 12, "1 9"),
    ]


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Let each text be written, and keep what was read and what drafts began with."""
    seen: list[dict[str, Any]] = []
    for job in jobs(seed):
        seen.append(_watched(answer, job))
        if seen[-1]["late"]:
            break
    return seen


def _watched(answer: Any, job: Job) -> dict[str, Any]:
    texts: list[list[int]] = []
    begun: list[list[int]] = []

    def read(text: Any) -> list[int]:
        texts.append(_ids(text, "read", len(texts)))
        return job.follows(texts[-1])

    def guess(text: Any) -> list[int]:
        begun.append(_ids(text, "guess", len(begun)))
        return job.drafted(max(0, len(begun[-1]) - len(job.prompt)))

    seen = call(answer, job.prompt, read, guess, job.end, job.limit)
    return {**seen, "texts": texts, "begun": begun}


def _ids(text: Any, name: str, before: int) -> list[int]:
    """Return a text as a list of ids.

    Raises TypeError for what is no list of ids, TooMany after MOST_CALLS calls.
    """
    if before == MOST_CALLS:
        raise TooMany
    ids = plain(text)
    if not isinstance(ids, list) or any(type(token) is not int for token in ids):
        raise TypeError(f"{name} takes one list of token ids")
    return ids


PROBES: dict[str, Probe] = {
    "06.q1": q1,
    "06.q2": q2,
    "06.q3": q3,
    "06.q4": q4,
    "06.q5": q5,
    "06.q6": q6,
}
