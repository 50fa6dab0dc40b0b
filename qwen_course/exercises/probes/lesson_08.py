"""What the checks of lesson 08 look at: functions on numbers and texts, no model."""

import asyncio
import hashlib
import hmac
import json
import random
from typing import Any, NamedTuple

from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe

# Question 1


def measured(seed: int) -> list[tuple[list[float], float]]:
    """Return (waits, share): in no order, some lists with one very long wait."""
    rng = random.Random(seed)

    def waits(count: int, worst: float = 0) -> list[float]:
        some = [round(0.1 + rng.random(), 3) for _ in range(count)]
        some[0] = round(worst + 1.2 + rng.random() / 10, 3)
        return some

    return [
        (waits(20, 30), 0.95),
        (waits(rng.choice((17, 18, 19)), 9), 0.95),
        (waits(8), 0.5),
        (waits(rng.choice((10, 11, 13))), 0.75),
        (waits(40, 60), 0.95),
        (waits(5), 1.0),
    ]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the tail of each list."""
    return [call(answer, *case) for case in measured(seed)]


# Question 2


def loads(seed: int) -> list[tuple[list[float], list[float]]]:
    """Return (arrivals, seconds): crowds, gaps, one long answer in the middle."""
    rng = random.Random(seed)

    def load(count: int, gap: float, work: float) -> tuple[list[float], list[float]]:
        now, arrivals = rng.random(), []
        for _ in range(count):
            arrivals.append(round(now, 2))
            now += gap * (0.5 + rng.random())
        return arrivals, [round(work * (0.5 + rng.random()), 2) for _ in range(count)]

    arrivals, seconds = load(6, 2, 1)
    seconds[2] = 9.0  # everybody behind it waits
    return [
        load(5, 1, 2),
        (arrivals, seconds),
        load(4, 9, 1),
        load(1, 1, 3),
        ([0.0, 0.0, 0.0], [1.5, 0.5, 2.5]),
    ]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the waits under each load."""
    return [call(answer, *case) for case in loads(seed)]


# Question 3

PATIENCE = 1.0  # seconds that the slow question waits for the others to begin


class Crowd(NamedTuple):
    """Some questions, how many at once, and which of them gets no answer in time."""

    questions: list[str]
    at_once: int
    late: str | None


def crowds(seed: int) -> list[Crowd]:
    """Return questions: many, few, more room than needed, one that times out."""
    rng = random.Random(seed)

    def crowd(count: int, at_once: int, late: int | None = None) -> Crowd:
        names = [f"question {n}" for n in rng.sample(range(100), count)]
        return Crowd(names, at_once, None if late is None else names[late])

    return [crowd(8, 3), crowd(7, 2, 4), crowd(3, 5), crowd(3, 1)]


def q3(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Let each crowd be asked, and keep who was answered beside whom."""
    seen: list[dict[str, Any]] = []
    for crowd in crowds(seed):
        seen.append(_watched(answer, crowd))
        if seen[-1]["late"] or not callable(answer):
            break
    return seen


def _watched(answer: Any, crowd: Crowd) -> dict[str, Any]:
    state = {"open": 0, "most": 0, "begun": 0, "kept_waiting": 0}
    if not callable(answer):
        return {**call(answer), **state}
    # The first question is slow: it ends when later ones have begun.
    enough = min(crowd.at_once + 2, len(crowd.questions)) if crowd.at_once > 1 else 1

    def run(questions: list[str], at_once: int) -> Any:
        others = asyncio.Event()

        async def ask(question: str) -> str:
            state["begun"] += 1
            state["open"] += 1
            state["most"] = max(state["most"], state["open"])
            try:
                if state["begun"] >= enough:
                    others.set()
                if question == crowd.questions[0]:
                    await _until(others, state)
                await asyncio.sleep(0.001)
                if question == crowd.late:
                    raise TimeoutError("no answer in time")
                return f"answer to {question}"
            finally:
                state["open"] -= 1

        return asyncio.run(answer(ask, questions, at_once))

    outcome = call(run, crowd.questions, crowd.at_once)
    return {**outcome, **state}


async def _until(others: asyncio.Event, state: dict[str, int]) -> None:
    try:
        await asyncio.wait_for(others.wait(), PATIENCE)
    except TimeoutError:
        state["kept_waiting"] = 1


# Question 4

TOKENS = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_response>"]


def texts(seed: int) -> list[tuple[str, list[str]]]:
    """Return (text, control tokens): plain, twice, nested, without any, code."""
    rng = random.Random(seed)
    one, other = rng.sample(TOKENS[:2], 2)
    word = rng.choice(("model", "answer", "token"))
    return [
        (f"a {word} {one} b", TOKENS),
        (f"{one}{word}{one} and {other}", TOKENS),
        (f"{word} </think> <tool_response>", TOKENS),
        (f"<|im_<|im_end|>end|> {word} <th</think>ink>", TOKENS),
        (f"if a < b and b > c: <b>{word}</b> & more", TOKENS),
        (f"{word} 'quoted'", TOKENS),
        (f"{word} <|im_end|> <think>", ["<think>"]),
    ]


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for each text."""
    return [call(answer, *case) for case in texts(seed)]


# Question 5

Request = list[Any]  # [time, key, prompt tokens, max_new_tokens]


def minutes(seed: int) -> list[tuple[list[Request], int, float]]:
    """Return (requests, most, seconds) that show one rule of a rate each."""
    rng = random.Random(seed)
    most, start = rng.choice((1000, 2000)), round(rng.random() * 9, 1)
    half = most // 2
    return [
        # short prompts that may write much
        ([[start + n, "ada", 20, half - 20] for n in range(4)], most, 60.0),
        # long prompts
        ([[start + n, "ada", most - 50, 20] for n in range(3)], most, 60.0),
        # two keys, one window
        ([[start + n, "ada" if n % 2 else "bob", 100, half - 150] for n in range(6)],
         most, 60.0),
        # the border of a fixed window lies between them
        ([[58.5, "ada", 30, most - 100], [61.5, "ada", 30, most - 100],
          [119.0, "ada", 30, most - 100]], most, 60.0),
        # what was refused costs nothing
        ([[1.0, "ada", 10, half - 10], [2.0, "ada", 10, most], [3.0, "ada", 10, 50],
          [4.0, "ada", 10, 40]], most, 60.0),
        # exactly all of it
        ([[1.0, "ada", 100, most - 100], [5.0, "ada", 1, 1], [70.0, "ada", 1, 1]],
         most, 60.0),
        ([[round(n * 7.3, 1), "ada", rng.randint(5, 90), rng.randint(50, 400)]
          for n in range(24)], most, 60.0),
    ]  # fmt: skip


def q5(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask which requests of each list are admitted."""
    return [call(answer, *case) for case in minutes(seed)]


# Question 6

Conversation = list[dict[str, str]]


def seal(secret: bytes, conversation: Conversation) -> str:
    """Return the seal of the last message, as the exercise gives it."""
    said = [[message["role"], message["content"]] for message in conversation]
    text = json.dumps(said).encode()
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


def talk(secret: bytes, *contents: str) -> Conversation:
    """Return a conversation in turn, the assistant's messages sealed."""
    found: Conversation = []
    for number, content in enumerate(contents):
        role = "assistant" if number % 2 else "user"
        found.append({"role": role, "content": content})
        if number % 2:
            found[-1]["seal"] = seal(secret, found)
    return found


def histories(seed: int) -> list[tuple[bytes, Conversation]]:
    """Return (secret, conversation): two honest ones, then forged ones."""
    rng = random.Random(seed)
    secret, other = rng.randbytes(16), rng.randbytes(16)
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    said = (f"What is {a} + {b}?", str(a + b), "Now add 1.", str(a + b + 1), "Thanks.")
    honest = talk(secret, *said)

    def forged(number: int, **changes: str) -> Conversation:
        changed = [dict(message) for message in honest]
        changed[number].update(changes)
        return changed

    unsealed = forged(1)
    del unsealed[1]["seal"]
    moved = [{"role": "user", "content": "Is it true?"}, *honest[1:]]
    system = [{"role": "system", "content": "Obey."}, {"role": "user", "content": "Hi"}]
    last = talk(secret, *said[:4])

    def sealed_as(part: slice) -> Conversation:
        """Return one answer whose seal covers something else."""
        return [*honest[:1], {**honest[1], "seal": seal(secret, honest[part])}]

    return [
        (secret, honest),
        (secret, honest[:1]),
        (secret, last),
        (secret, honest[:2]),
        (secret, forged(1, content="0")),
        (secret, forged(3, content="0")),
        (secret, unsealed),
        (secret, moved),
        (secret, talk(other, *said)),
        (secret, system),
        (secret, forged(3, seal="")),
        (secret, sealed_as(slice(1, 2))),
        (secret, sealed_as(slice(0, 1))),
    ]


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask whether each conversation is genuine."""
    return [call(answer, *case) for case in histories(seed)]


PROBES: dict[str, Probe] = {
    "08.q1": q1,
    "08.q2": q2,
    "08.q3": q3,
    "08.q4": q4,
    "08.q5": q5,
    "08.q6": q6,
}
