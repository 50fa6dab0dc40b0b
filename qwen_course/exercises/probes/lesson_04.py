"""What the checks of lesson 04 look at: plain Python, no model is loaded."""

import copy
import random
from typing import Any, NamedTuple

from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe

MOST_CALLS = 9  # of a function that a learner's code calls


class TooMany(Exception):
    """A learner's code called a function again and again."""


# Question 1


def sizes(seed: int) -> list[tuple[int, int]]:
    """Return pictures, (wide, high): that fit, that are cut, enlarged, very small.

    No side is just between two multiples of 28.
    """
    rng = random.Random(seed)
    a, b, c, d, e, f = (28 * n for n in rng.sample(range(3, 40), 6))
    small, smaller, more, less = (rng.randint(3, 13) for _ in range(4))
    return [
        (a, b),
        (c + 14 + more, d + 14 + less),
        (d + 7 + more // 2, e + 7 + less // 2),
        (e + less, f + 14 + more),
        (small, a + more),
        (f + 14 + less, smaller),
        (smaller, small),
    ]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the tokens of each picture."""
    return [call(answer, *size) for size in sizes(seed)]


# Question 2


class Said(NamedTuple):
    """A reply of a coder; `name` says what is special about it."""

    name: str
    reply: str


def replies(seed: int) -> list[Said]:
    """Return replies with a fence, half a fence, two of them, or none."""
    rng = random.Random(seed)
    name, times = rng.choice(("scaled", "summed", "folded")), rng.randint(2, 9)
    head = f"def {name}(numbers):\n"
    body = f"    total = 0\n    for x in numbers:\n        total += {times} * x"
    program = f"{head}{body}\n    return total"
    short = f"n = {times}\nprint(n * n)"
    word = f'language = "python"\nprint(language * {times})'
    tests = f"assert {name}([1]) == {times}"
    said = f"Here is `{name}` in Python:\n\n"
    return [
        Said("python", f"{said}```python\n{program}\n```\n\nIt adds, {times} times."),
        Said("bare", f"```\n{program}\n```\nCall it with a list."),
        Said("py", f"```py\n{short}\n```"),
        Said("word", f"{said}```python\n{word}\n```"),
        Said("indented", f"The body is\n```python\n{body}\n```\nas you asked."),
        Said("cut off", f"{said}```python\n{head}{body}"),
        Said("two", f"```python\n{program}\n```\nTest it:\n```python\n{tests}\n```"),
        Said("no fence", program),
    ]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the code of each reply."""
    return [call(answer, said.reply) for said in replies(seed)]


# Question 3


class Hole(NamedTuple):
    """A place in a program, and what the model writes when it is asked rightly."""

    prefix: str
    suffix: str
    written: str


def holes(seed: int) -> list[Hole]:
    """Return holes in a line and between lines, with every way to end."""
    rng = random.Random(seed)
    n = rng.randint(2, 9)
    head = f"def times_{n}(numbers):\n"
    loop = f"    result = []\n    for x in numbers:\n        result.append({n} * x)\n"
    rest = "    return result\n"
    tests = f"assert times_{n}([1]) == [{n}]"
    return [
        Hole(f"def f(x):\n    return {n} * ", "\n", "x<|endoftext|>"),
        Hole(head, rest, f"{loop}<|endoftext|>"),
        Hole(head, rest, f"{loop}<|file_sep|>{tests}\n<|endoftext|>"),
        Hole(f"    y = {n} + ", f"\n    return y\n\n{tests}", "x<|fim_pad|>"),
        Hole(f"\n\n{head}", "", f"    return [{n} * x for x in numbers]<|im_end|>\n"),
        Hole(head, rest, f"    result = {n} * num"),
    ]


def q3(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Let each hole be filled, and keep the prompts that were sent."""
    return [_filled(answer, hole) for hole in holes(seed)]


def _filled(answer: Any, hole: Hole) -> dict[str, Any]:
    prompts: list[Any] = []

    def write(prompt: Any) -> str:
        _keep(prompts, prompt)
        return hole.written

    return {**call(answer, hole.prefix, hole.suffix, write), "prompts": prompts}


def _keep(log: list[Any], what: Any) -> None:
    """Keep what a learner's code hands over, as it is at this moment."""
    if len(log) == MOST_CALLS:
        raise TooMany
    log.append(copy.deepcopy(what))


# Question 4


def samples(seed: int) -> list[tuple[int, int, int]]:
    """Return measured tasks, (n, c, k): k of 1, none right, all right, few wrong."""
    rng = random.Random(seed)
    n, many = rng.randint(8, 12), rng.randint(100, 200)
    return [
        (n, rng.randint(2, 5), 1),
        (n, 3, rng.randint(2, 4)),
        (many, rng.randint(5, 20), 10),
        (n, 0, 3),
        (n, n, 2),
        (n, n - 2, rng.randint(3, 5)),
    ]


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the estimate of each task."""
    return [call(answer, *task) for task in samples(seed)]


# Question 5


def ballots(seed: int) -> list[list[str]]:
    """Return the replies of some samples to one question, a list for each question."""
    rng = random.Random(seed)
    # Their order as numbers and as letters is the same.
    low, some, high = map(str, sorted(rng.sample(range(11, 99), 3)))
    p, q = rng.choice(((1, 2), (3, 4), (7, 5), (9, 4)))

    def box(*values: str) -> list[str]:
        return [f"So it is \\boxed{{{value}}}." for value in values]

    fractions = (f"{p}/{q}", f"\\frac{{{p}}}{{{q}}}", f"x = {p / q}")
    roots, turned = f"x = -{some}, x = {low}", f"x = {low}, x = -{some}"
    silent = [f"It is {high}."] * 3
    return [
        box(some, high, some),
        box(high, low, high, *fractions),
        [*silent, *box(low, some, some)],
        box(low, high, low, some, high, low, low, some, high),
        box(high, low, high, low),
        box(low, high, high, low),
        [f"First \\boxed{{{some}}}. No: \\boxed{{{low}}}.", *box(some, low)],
        box(roots, high, turned, high, turned),
        silent,
        [],
    ]


def q5(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Hold each vote."""
    import sympy  # noqa: F401  so that importing it is not on the learner's time

    return [call(answer, replies) for replies in ballots(seed)]


# Question 6


class Job(NamedTuple):
    """A task, the tries allowed, and what becomes of the model's drafts, in turn.

    `drafts` are (code, error) with "" for code that passes.
    """

    task: str
    tries: int
    drafts: tuple[tuple[str, str], ...]


def jobs(seed: int) -> list[Job]:
    """Return jobs that succeed at once, at the last try, in between, and never."""
    rng = random.Random(seed)

    def job(name: str, tries: int, fails: int) -> Job:
        drafts = [
            (f"def {name}(x):\n    return x + {n}", f"{name}(1) returned {n + 1}.")
            for n in rng.sample(range(10, 99), fails + 1)
        ]
        good = (f"def {name}(x):\n    return 2 * x", "")
        return Job(f"Write {name}(x).", tries, (*drafts[:fails], good))

    return [job("double", 3, 0), job("twice", 3, 2), job("both", 4, 1),
            job("pair", 2, 5), job("scale", 1, 5)]  # fmt: skip


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Let each job be done, and keep what was asked and what was run."""
    return [_watched(answer, job) for job in jobs(seed)]


def _watched(answer: Any, job: Job) -> dict[str, Any]:
    asked: list[Any] = []
    ran: list[Any] = []

    def ask(messages: Any) -> str:
        _keep(asked, messages)
        return job.drafts[min(len(asked), len(job.drafts)) - 1][0]

    def run(code: Any) -> str:
        _keep(ran, code)
        errors = dict(job.drafts)
        return errors.get(code, "SyntaxError: that is no code.")

    seen = call(answer, ask, run, job.task, job.tries)
    return {**seen, "asked": asked, "ran": ran}


# Question 7


class Clips(NamedTuple):
    """What was said in some clips, and what was heard: the digits of each."""

    said: list[str]
    heard: list[str]


def clips(seed: int) -> list[Clips]:
    """Return clips with digits replaced, lost and added; letters stand for digits."""
    rng = random.Random(seed)
    digits = str.maketrans("abcdefghij", "".join(rng.sample("0123456789", 10)))

    def some(*pairs: str) -> Clips:
        said, heard = zip(*(pair.translate(digits).split(">") for pair in pairs))  # noqa: B905
        return Clips(list(said), list(heard))

    return [
        some("abcdefg>abchefg"),
        some("abc>abc", "de>de"),
        some("abcdef>bcdef"),
        some("abc>abbc", "cde>cdea"),
        some("abc>acb", "deef>edef"),
        some("a>b", "cdefghij>cdefghij"),
        some("ab>a", "bc>bbc"),
        some("a>abcd", "b>b"),
        some(">c", "ab>ab"),
        some("abcdefg>hbdefgij", "bcaac>acdcbd"),
    ]


def q7(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the error rate of each group of clips."""
    return [call(answer, *group) for group in clips(seed)]


PROBES: dict[str, Probe] = {
    "04.q1": q1,
    "04.q2": q2,
    "04.q3": q3,
    "04.q4": q4,
    "04.q5": q5,
    "04.q6": q6,
    "04.q7": q7,
}
