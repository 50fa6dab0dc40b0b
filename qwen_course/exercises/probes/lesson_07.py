"""What the checks of lesson 07 look at: functions, and what a trained model replies."""

import functools
import random
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from qwen_course import training_memory
from qwen_course.exercises import limits
from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe
from qwen_course.tasks import sums
from qwen_course.tasks.problem import Problem

MODEL = "pocket-qwen3"  # what the learners train, whatever the setting is
SECONDS = 60.0  # of computing, for a trained model to reply to one set of questions

# Question 1


class Row(NamedTuple):
    """A training row, as ids: the end token is also the pad token in one."""

    prompt: list[int]
    answer: list[int]
    end: int
    pad: int
    length: int


def rows(seed: int) -> list[Row]:
    """Return rows with much padding, with none, and with the end token in a prompt."""
    rng = random.Random(seed)
    end, pad = rng.sample(range(90, 100), 2)

    def row(prompt: int, answer: int, more: int, pad: int = pad) -> Row:
        ids = rng.sample(range(3, 90), prompt + answer)
        length = prompt + answer + 1 + more
        return Row(ids[:prompt], ids[prompt:], end, pad, length)

    turns = row(5, 3, 2)
    turns.prompt[2] = end  # of an earlier turn
    return [
        row(3, 2, rng.randint(2, 4)),
        row(2, rng.randint(3, 4), 0),
        turns,
        row(4, 1, rng.randint(3, 5)),
        row(2, 3, 3, pad=end),
        row(3, 2, 1, pad=end),
    ]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for ids and labels of each row."""
    return [call(answer, *row) for row in rows(seed)]


# Question 2

Matrix = list[list[float]]


class Layer(NamedTuple):
    """A linear layer with its LoRA: x, W, A, B and alpha."""

    x: Matrix
    weight: Matrix
    a: Matrix
    b: Matrix
    alpha: float


def layers(seed: int) -> list[Layer]:
    """Return layers of all ranks, one of them as before the first step."""
    rng = random.Random(seed)

    def matrix(height: int, width: int) -> Matrix:
        return [
            [round(rng.gauss(0, 1), 2) for _ in range(width)] for _ in range(height)
        ]

    def layer(tokens: int, inputs: int, outputs: int, rank: int, alpha: float) -> Layer:
        return Layer(
            matrix(tokens, inputs),
            matrix(outputs, inputs),
            matrix(rank, inputs),
            matrix(outputs, rank),
            alpha,
        )

    new = layer(2, 5, 3, 2, 16.0)
    new.b[:] = [[0.0, 0.0] for _ in new.b]
    return [
        layer(3, 4, 2, 2, rng.choice((3.0, 5.0))),
        layer(3, 5, 6, 3, rng.choice((1.0, 2.0))),
        layer(1, 6, 4, 1, rng.choice((4.0, 8.0))),
        layer(2, 4, 4, 4, rng.choice((6.0, 7.0))),
        new,
    ]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the output and the merged weight of each layer."""
    import torch

    return [
        call(answer, *map(torch.tensor, layer[:4]), layer.alpha)
        for layer in layers(seed)
    ]


# Question 3 and 7: a trained model is asked


class Talk(NamedTuple):
    """Problems that are asked in one way; `system` "" is no system message."""

    name: str
    problems: list[Problem]
    thinking: bool
    system: str = ""

    def messages(self) -> list[list[dict[str, Any]]]:
        """Return the conversation of each problem."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [first + problem.prompt for problem in self.problems]


@functools.cache
def tokenizer() -> Any:
    """Return the tokenizer of the pocket model."""
    from qwen_course import loading

    return loading.load(MODEL)[1]


def replies(student: Any, talk: Talk) -> list[tuple[str, str, bool]]:
    """Return (thinking, answer, ended by itself) for each problem, greedily."""
    from qwen_course.chat import chat_batch

    answered = chat_batch(
        student,
        tokenizer(),
        talk.messages(),
        thinking=talk.thinking,
        max_new_tokens=96 if talk.thinking else 20,
        sampling="greedy",
    )
    return [(one.thinking, one.answer, one.stopped == "end") for one in answered]


def _asked(answer: Any, talks: Sequence[Talk]) -> Any:
    """Return what a model replies in each talk, or of which kind another answer is."""
    import torch

    tokenizer()
    if not isinstance(answer, torch.nn.Module) or not hasattr(answer, "generate"):
        return {"kind": limits.kind(answer)}
    return [call(partial(replies, answer, talk), seconds=SECONDS) for talk in talks]


SENTENCE = "Answer in a sentence."  # the system message of question 7


def short_talks(seed: int) -> list[Talk]:
    """Return sums that are asked at once, and longer ones to think about."""
    return [
        Talk("at once", sums.problems(24, seed, count=2), False),
        Talk("thinking", sums.problems(12, seed, count=3), True),
    ]


def both_talks(seed: int) -> list[Talk]:
    """Return sums that are asked with and without the system message, four ways."""
    two = sums.problems(32, seed, count=2)
    three = sums.problems(24, seed, count=3)
    return [
        Talk("told, at once", two[:16], False, SENTENCE),
        Talk("told, thinking", three[:12], True, SENTENCE),
        Talk("not told, at once", two[16:], False),
        Talk("not told, thinking", three[12:], True),
    ]


def q3(answer: Any, seed: int) -> Any:
    """Ask the model both kinds of questions."""
    return _asked(answer, short_talks(seed))


def q7(answer: Any, seed: int) -> Any:
    """Ask the model in all four ways."""
    return _asked(answer, both_talks(seed))


# Question 4


class Offer(NamedTuple):
    """GPUs to rent: memory of each in GiB, price of each for an hour."""

    name: str
    gpus: int
    gib: int
    price: float


def markets(seed: int) -> list[tuple[str, list[Offer]]]:
    """Return models, each with offers: too small ones, ones that just fit, large."""
    rng = random.Random(seed)
    need = training_memory.need

    def just(model: str, method: str, gpus: int, more: int = 1) -> int:
        """Return a memory in GiB that is enough by less than one, or lacks `more`."""
        return need(model, method, gpus).total // 2**30 + more

    def market(model: str, *sizes: tuple[int, int]) -> tuple[str, list[Offer]]:
        """Many GPUs together cost less each, and more in all."""
        names = rng.sample("abcdefgh", len(sizes))
        offers = list[Offer]()
        while len({round(one.gpus * one.price, 2) for one in offers}) < len(sizes):
            offers = [
                Offer(name, gpus, gib, round(rng.uniform(1.5, 2.5) / gpus**0.5, 2))
                for name, (gpus, gib) in zip(names, sizes, strict=True)
            ]
        return model, rng.sample(offers, len(offers))

    small, middle, large = "Qwen3-1.7B", "Qwen3-8B", "Qwen3-32B"
    return [
        market(middle, (1, just(middle, "qlora", 1)), (1, just(middle, "lora", 1)),
               (8, 80), (2, 8)),
        market(large, (1, just(large, "lora", 1, 0)), (4, just(large, "lora", 4)),
               (8, just(large, "full", 8)), (2, 24), (4, 16)),
        market(small, (1, just(small, "full", 1)), (1, just(small, "full", 1, 0)),
               (2, just(small, "lora", 2)), (1, 4)),
        market(large, (1, 8), (2, 10)),
    ]  # fmt: skip


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask what can be trained on the offers of each market."""
    return [
        call(answer, model, [one._asdict() for one in offers])
        for model, offers in markets(seed)
    ]


# Question 5


class Sampled(NamedTuple):
    """A question, its right number, and what a model answered to it."""

    question: str
    right: int
    answers: list[str]


def samples(seed: int) -> list[list[Sampled]]:
    """Return lists of sampled answers: some have a pair for style, some have none."""
    rng = random.Random(seed)

    def sampled(problem: Problem, *forms: str) -> Sampled:
        right = int(problem.expected)
        answers = [form.format(right=right, wrong=right + rng.choice((1, 10, -1)),
                               longer=f"1{right}") for form in forms]  # fmt: skip
        return Sampled(problem.question, right, answers)

    said, bare = "It is {right}.", "{right}"
    bad, worse = "It is {wrong}.", "{wrong}"
    first = [
        (worse, bad, said, bare),
        (bad, bare, worse),
        (worse, "It is {longer}.", said, bare),
        (bad, said, worse),
        (said, bare),
    ]
    second = [
        (bare, "{longer}", bad, said, worse),
        ("{longer}", worse, said),
        (bare, bare),
        ("It is {longer}.", bare, "{longer}"),
    ]
    problems = sums.problems(len(first) + len(second), seed, count=2)
    made = [
        sampled(problem, *forms)
        for problem, forms in zip(problems, first + second, strict=True)
    ]
    return [made[: len(first)], made[len(first) :]]


def q5(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the pairs of each list."""
    return [
        call(answer, [one._asdict() for one in sampled]) for sampled in samples(seed)
    ]


# Question 6


def completions(seed: int) -> list[tuple[str, str, str]]:
    """Return (what it is, completion, right number): honest ones and tricks."""
    rng = random.Random(seed)
    forms = {
        "right": '{{"answer": {n}}}',
        "right, without spaces": '{{"answer":{n}}}',
        "right, with more spaces": '  {{ "answer" : {n} }}\n',
        "wrong number": '{{"answer": {m}}}',
        "number alone": "{n}",
        "sentence": "The answer is {n}.",
        "text before": 'Here it is: {{"answer": {n}}}',
        "text after": '{{"answer": {n}}} I hope this helps.',
        "several objects": '{{"answer": {m}}} {{"answer": {n}}}',
        "list of guesses": '{{"answer": [{m}, {n}, {k}]}}',
        "digits around it": '{{"answer": 1{n}0}}',
        "guesses beside it": '{{"answer": {n}, "or": {m}}}',
        "guess in another key": '{{"answer": {m}, "note": {n}}}',
        "number as text": '{{"answer": "{n}"}}',
        "guesses as text": '{{"answer": "{m} or {n}"}}',
        "another key": '{{"result": {n}}}',
        "bare string": '"answer: {n}"',
        "no end": '{{"answer": {n}',
        "nothing": "",
        "list": '["answer", {n}]',
        "null": '{{"answer": null}}',
    }
    found = []
    for name, form in forms.items():
        n = rng.randint(100, 4000)
        m, k = n + rng.randint(1, 9), n - rng.randint(1, 9)
        found.append((name, form.format(n=n, m=m, k=k), str(n)))
    found.append(("true for 1", '{"answer": true}', "1"))
    return found


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the reward of each completion alone, and of all at once."""
    cases = completions(seed)

    def rewarded(*chosen: tuple[str, str, str]) -> dict[str, Any]:
        said = [[{"role": "assistant", "content": text}] for _, text, _ in chosen]
        return call(_with_names(answer), said, [number for _, _, number in chosen])

    alone = []
    for case in cases:
        alone.append(rewarded(case))
        if alone[-1]["late"]:
            return alone
    return [*alone, rewarded(*cases)]


def _with_names(answer: Any) -> Any:
    """Return a function that passes its arguments by name, as TRL does."""
    if not callable(answer):
        return answer
    return lambda said, numbers: answer(
        completions=said, expected=numbers, prompts=[""] * len(said)
    )


PROBES: dict[str, Probe] = {
    "07.q1": q1,
    "07.q2": q2,
    "07.q3": q3,
    "07.q4": q4,
    "07.q5": q5,
    "07.q6": q6,
    "07.q7": q7,
}
