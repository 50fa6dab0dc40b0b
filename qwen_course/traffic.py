"""Users for a service: the same load for every way to answer, and what they felt.

Two kinds. With an *open loop* users come at random moments, whether or not the service
keeps up, as people do: only so does a queue show. With a *closed loop* a fixed number
of users each ask again as soon as they are answered: that shows the most it can do.

A way to answer is an async function of a question and a callback, which it calls at the
first token; it returns how many tokens it wrote. One with threads of its own has a
`close`: threads that only wait slow down OpenMP in all others.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qwen_course.datafiles import data_file
from qwen_course.monitoring import percentile
from qwen_course.tables import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qwen_course.service import QwenService

Way = Callable[[str, Callable[[], None]], Awaitable[int]]
LIMIT = 96  # new tokens of an answer


@dataclass(frozen=True)
class Visit:
    """One user's visit, in seconds from the beginning of the load.

    `due` is when it should begin: a service that blocks its own door is measured from
    there, and not from when it opened. `failed` names the error of a visit in vain.
    """

    due: float
    first: float | None
    ended: float
    tokens: int
    failed: str | None = None

    @property
    def latency(self) -> float:
        """How long the user waited for the whole answer."""
        return self.ended - self.due


@dataclass(frozen=True)
class Load:
    """What a load did to one way to answer.

    `rate` is in requests a second, or None where `users` asked again and again.
    """

    way: str
    visits: list[Visit] = field(repr=False)
    seconds: float
    rate: float | None = None
    users: int | None = None

    @property
    def answered(self) -> list[Visit]:
        """The visits that got an answer."""
        return [visit for visit in self.visits if visit.failed is None]

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all answers together, over the whole time."""
        return sum(visit.tokens for visit in self.answered) / self.seconds

    def latency(self, share: float) -> float:
        """Return the seconds that a share of the users did not wait longer than."""
        return percentile([visit.latency for visit in self.answered], share)

    def first_token(self, share: float) -> float:
        """Return the same for the wait until the first token."""
        waits = [v.first - v.due for v in self.answered if v.first is not None]
        return percentile(waits, share)

    def as_row(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return {
            "way": self.way,
            "rate": self.rate,
            "users": self.users,
            "requests": len(self.visits),
            "failed": len(self.visits) - len(self.answered),
            "tokens_per_second": round(self.tokens_per_second, 1),
            **{f"{name}_p{share:.0%}"[:-1]: round(getattr(self, name)(share), 4)
               for name in ("latency", "first_token") for share in (0.5, 0.95)},
        }  # fmt: skip


class Loads(Table[Load]):
    """Loads as a table, and as a picture of tokens and waits over the load."""

    columns = (
        "way", "load", "answered", "tokens/s", "first token p50", "p95", "answer p50",
        "p95",
    )  # fmt: skip
    noun = "loads"

    def cells(self, item: Load) -> Row:
        """Return the numbers of a load as texts."""
        load = f"{item.users} users" if item.users else f"{item.rate:g}/s"
        waits = [item.first_token(0.5), item.first_token(0.95), item.latency(0.5),
                 item.latency(0.95)]  # fmt: skip
        answered = f"{len(item.answered)} of {len(item.visits)}"
        return (item.way, load, answered, f"{item.tokens_per_second:.0f}",
                *(f"{wait:.2f} s" for wait in waits))  # fmt: skip

    def plot(self) -> "Figure":
        """Draw tokens a second, and the 95th percentile of the wait, over the load."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        colours = ("#D55E00", "#E69F00", "#009E73", "#0072B2", "#CC79A7", "#000000")
        ways = list(dict.fromkeys(load.way for load in self))
        for way, colour, mark in zip(ways, colours * 2, "osD^vP" * 2, strict=False):
            rows = [load for load in self if load.way == way and load.rate]
            rates = [load.rate for load in rows]
            style = {"color": colour, "marker": mark, "label": way}
            left.plot(rates, [load.tokens_per_second for load in rows], **style)
            right.plot(rates, [load.latency(0.95) for load in rows], **style)
        left.set(xlabel="requests a second", ylabel="tokens a second", ylim=(0, None))
        right.set(xlabel="requests a second", ylabel="95% wait at most, seconds",
                  yscale="log")  # fmt: skip
        left.legend(fontsize=8)
        return figure


def stored() -> list[dict[str, Any]]:
    """Return the loads that the course's authors measured, one row each.

    Raises ValueError where the course brings none: `python -m benchmarks.serving`
    measures them.
    """
    return json.loads(data_file("measured/serving.json").read_text("utf-8"))["loads"]


# Users


async def open_loop(
    name: str,
    way: Way,
    questions: Sequence[str],
    rate: float,
    seconds: float,
    seed: int = 0,
) -> Load:
    """Let users come at random for some seconds, `rate` a second in the mean.

    The gaps between them are exponential (a Poisson process), the same for the same
    seed, so that every way gets the same users. It returns when all were answered.

    Example:
        await open_loop("continuous", through(service), questions, rate=8, seconds=10)
    """
    chance, moments, moment = random.Random(seed), [], 0.0
    while (moment := moment + chance.expovariate(rate)) < seconds:
        moments.append(moment)
    begun = time.perf_counter()

    async def user(number: int, due: float) -> Visit:
        await asyncio.sleep(due - (time.perf_counter() - begun))
        return await visit(way, questions[number % len(questions)], begun, due)

    visits = await asyncio.gather(*(user(*one) for one in enumerate(moments)))
    return Load(name, list(visits), time.perf_counter() - begun, rate=rate)


async def closed_loop(
    name: str, way: Way, questions: Sequence[str], users: int, each: int = 4
) -> Load:
    """Let a number of users each ask `each` times, one question after the other."""
    begun = time.perf_counter()

    async def user(number: int) -> list[Visit]:
        found: list[Visit] = []
        for turn in range(each):
            question = questions[(number + turn * users) % len(questions)]
            # subtle: all come at once, even if the first one blocks the door.
            due = found[-1].ended if found else 0.0
            found.append(await visit(way, question, begun, due))
        return found

    visits = await asyncio.gather(*map(user, range(users)))
    flat = [one for found in visits for one in found]
    return Load(name, flat, time.perf_counter() - begun, users=users)


async def visit(way: Way, question: str, begun: float, due: float) -> Visit:
    """Ask once and note the moments; a failure is noted, too."""
    first: list[float] = []

    def now() -> float:
        return time.perf_counter() - begun

    def at_first() -> None:
        first[:] = first or [now()]

    try:
        tokens = await way(question, at_first)
    except Exception as error:  # a load counts what goes wrong, whatever it is
        return Visit(due, None, now(), 0, type(error).__name__)
    return Visit(due, first[0] if first else now(), now(), tokens)


# Ways to answer


def one_by_one(model, tokenizer, limit: int = LIMIT) -> Way:
    """Return the naive way: it holds up everything until an answer is done."""
    from qwen_course.chat import chat

    async def way(question: str, first: Callable[[], None]) -> int:
        reply = chat(model, tokenizer, question, sampling="greedy",
                     max_new_tokens=limit, stream=lambda *_: first())  # fmt: skip
        return _tokens(reply)

    return way


def in_threads(model, tokenizer, threads: int = 16, limit: int = LIMIT) -> Way:
    """Return the published way: a thread for each request, and no order among them."""
    from qwen_course.chat import chat

    pool = ThreadPoolExecutor(threads)

    async def way(question: str, first: Callable[[], None]) -> int:
        def work() -> int:
            reply = chat(model, tokenizer, question, sampling="greedy",
                         max_new_tokens=limit, stream=lambda *_: first())  # fmt: skip
            return _tokens(reply)

        return await asyncio.get_running_loop().run_in_executor(pool, work)

    way.close = pool.shutdown  # type: ignore[attr-defined]
    return way


def in_batches(model, tokenizer, places: int = 16, limit: int = LIMIT) -> Way:
    """Return the way of batches: who waits when one ends makes up the next."""
    from qwen_course.chat import chat_batch

    pool = ThreadPoolExecutor(1)
    waiting: list[tuple[str, asyncio.Future, Callable[[], None]]] = []

    def work(questions: list[str]):
        return chat_batch(model, tokenizer, questions, sampling="greedy",
                          max_new_tokens=limit)  # fmt: skip

    async def run() -> None:
        while waiting:
            chosen = waiting[:places]
            questions = [question for question, _, _ in chosen]
            job = asyncio.get_running_loop().run_in_executor(pool, work, questions)
            replies = await job
            for (_, future, first), reply in zip(chosen, replies, strict=True):
                first()  # nobody sees a token before all are done
                if not future.done():
                    future.set_result(_tokens(reply))
            del waiting[: len(chosen)]

    async def way(question: str, first: Callable[[], None]) -> int:
        future = asyncio.get_running_loop().create_future()
        waiting.append((question, future, first))
        if len(waiting) == 1:
            way.task = asyncio.create_task(run())  # type: ignore[attr-defined]
        return await future

    way.close = pool.shutdown  # type: ignore[attr-defined]
    return way


def through(service: "QwenService", limit: int = LIMIT) -> Way:
    """Return the way through a `QwenService`."""
    from qwen_course.service import Sampling

    greedy = Sampling(temperature=0, max_new_tokens=limit)

    async def way(question: str, first: Callable[[], None]) -> int:
        tokens = 0
        async for piece in service.stream(question, greedy):
            first()
            tokens = _tokens(piece.reply) if piece.reply else 0
        return tokens

    return way


def over_http(address: str, model: str, limit: int = LIMIT, **more: Any) -> Way:
    """Return the way over the network to any server in the OpenAI form.

    It streams unless `more`, which goes into the body, says `stream=False`. Every
    request has a connection of its own, and no more is done with an answer than to
    count it: the client must not be what is slow.
    """
    place = urlsplit(address)
    body = {
        "model": model,
        "stream": True,
        "temperature": 0,
        "max_tokens": limit,
        **more,
    }

    async def way(question: str, first: Callable[[], None]) -> int:
        asked = {**body, "messages": [{"role": "user", "content": question}]}
        return await _post(place, asked, first)

    return way


async def _post(place: Any, body: dict[str, Any], first: Callable[[], None]) -> int:
    content = json.dumps(body).encode()
    head = (
        f"POST {place.path}/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        "Connection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(head.encode() + content)
        status = int((await reader.readline()).split()[1])
        if status != 200:
            raise OSError(f"HTTP {status}")
        usage: dict[str, Any] = {}
        async for line in reader:
            if line.startswith(b"data:") and b"[DONE]" not in line:
                usage = _read(line, first) or usage
            elif line.startswith(b"{"):  # a whole answer
                usage = json.loads(line)["usage"]
                first()
        return usage.get("completion_tokens", 0)
    finally:
        writer.close()


def _read(line: bytes, first: Callable[[], None]) -> dict[str, Any]:
    """Look at one event: is it text, or the count of the tokens?"""
    event = json.loads(line[5:])
    if "error" in event:
        raise OSError(str(event["error"])[:100])
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or {}
        if any(delta.get(n) for n in ("content", "reasoning_content", "reasoning")):
            first()
    return event.get("usage") or {}


def _tokens(reply: Any) -> int:
    return reply.usage.thinking_tokens + reply.usage.answer_tokens
