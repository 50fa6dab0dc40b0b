"""Serve thousands of requests with faults among them: `python -m benchmarks.soak`.

Clients that go away, readers that are slow, malformed, oversized and half bodies, a
full queue, and replicas that are killed and started again while the others go on. What
must hold: no accepted request is lost, every answer is the greedy one that the model
gives alone, no reply is a 5xx, and after its warm-up no process grows by more than 5%.
Two servers run as processes of their own, and a request that meets a dead one is sent
to the other, as a load balancer does. The result goes into `benchmarks/results.json`;
the exit status is 1 where something did not hold.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import keep
from benchmarks.serving import questions
from qwen_course.platforms.wire import free_port

LIMIT = 96  # tokens of an answer
PATIENCE = (
    400  # seconds after which a request counts as lost; the server gives up at 300
)
MOST_GROWTH = 0.05
# What comes in, in parts of a hundred; the rest asks and reads as it should.
FAULTS = {
    "leaves": 10, "leaves a stream": 5, "slow reader": 5, "malformed": 5,
    "oversized": 2, "unknown field": 3, "half a body": 2,
}  # fmt: skip
STREAMS = ("stream", "slow reader", "leaves a stream")
WANTED = {"malformed": 400, "oversized": 413, "unknown field": 400}
LEAVES = {"leaves": 0, "half a body": 0, "leaves a stream": 900}  # after these bytes
PAUSES = {"slow reader": 0.05, "leaves": 0.1}  # seconds


@dataclass
class Life:
    """One process of a replica: `looks` are (requests sent so far, bytes held)."""

    replica: int
    killed: bool = False
    looks: list[tuple[int, int]] = field(default_factory=list)

    def as_row(self, warm: int) -> dict[str, Any]:
        """Return its memory, in MiB, after a warm-up of `warm` requests and at its end.

        Medians of the first ten looks after the warm-up and of the last ten; None for a
        process that was killed before there were enough.
        """
        row: dict[str, Any] = {"replica": self.replica, "killed": self.killed}
        if not self.looks:
            return row | {"growth": None}
        row |= {"from_request": self.looks[0][0], "to_request": self.looks[-1][0]}
        held = [b for count, b in self.looks if count >= self.looks[0][0] + warm]
        if len(held) < 20:
            return row | {"growth": None}
        first, last = statistics.median(held[:10]), statistics.median(held[-10:])
        mib = {"mib_warm": round(first / 2**20), "mib_end": round(last / 2**20)}
        return row | mib | {"growth": round(last / first - 1, 4)}


@dataclass
class Replica:
    """A server in a process of its own, and in another one after it was killed."""

    number: int
    port: int
    process: Any = None
    lives: list[Life] = field(default_factory=list)

    def start(self) -> None:
        """Start it, and wait until it says where it listens. Its queue is short."""
        command = [sys.executable, "-m", "qwen_course", "serve", "--port",
                   str(self.port), "--threads", "1", "--max-waiting", "4",
                   "--timeout", "300"]  # fmt: skip
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        if not self.process.stdout.readline():
            raise OSError("a server did not start. Type: qwen-course serve")
        self.lives.append(Life(self.number))

    def kill(self) -> None:
        """Kill it, and start it again."""
        self.lives[-1].killed = True
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.start()

    def stop(self) -> int:
        """End it gently; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        with self.process.stdout:
            return self.process.wait(120)

    def look(self, count: int) -> None:
        """Note the memory it holds, if it lives."""
        import psutil

        life = self.lives[-1]
        with contextlib.suppress(psutil.Error):
            held = psutil.Process(self.process.pid).memory_info().rss
            if held and not life.killed:
                life.looks.append((count, held))


class Gone(Exception):
    """The server went away in the middle of an answer."""


async def post(
    port: int,
    content: bytes,
    length: int,
    leave_after: int | None = None,
    pause: float = 0.0,
) -> tuple[int, bytes]:
    """Send a body that is said to have `length` bytes; return status and answer.

    A client that leaves, after `leave_after` bytes, gets the status 0.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        raise Gone from error
    try:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
        answer = b""
        while leave_after != 0 and (part := await reader.read(256)):
            answer += part
            if leave_after is not None and len(answer) > leave_after:
                break
            await asyncio.sleep(pause)
        if leave_after is not None:
            await asyncio.sleep(pause)
            return 0, b""
    except ConnectionError as error:
        raise Gone from error
    finally:
        writer.close()
    return _read(answer)


def _read(answer: bytes) -> tuple[int, bytes]:
    """Return status and body of an answer; raise Gone where its end is missing."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        raise Gone
    status = int(head.split()[1])
    whole = b"[DONE]" in body if b"event-stream" in head else _is_json(body)
    if status == 200 and not whole:
        raise Gone
    return status, body


def _is_json(body: bytes) -> bool:
    with contextlib.suppress(ValueError):
        json.loads(body)
        return True
    return False


def answer_in(body: bytes) -> tuple[str, str]:
    """Return thinking and answer, of a stream or a whole answer."""
    if body.lstrip()[:1] == b"{":
        message = json.loads(body)["choices"][0]["message"]
        return message.get("reasoning_content", ""), message["content"]
    said = {"reasoning_content": "", "content": ""}
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                for name in said:
                    said[name] += choice["delta"].get(name) or ""
    return said["reasoning_content"], said["content"]


def draw(chance: random.Random) -> str:
    """Return what the next client is like."""
    place = chance.random() * 100
    for kind, share in FAULTS.items():
        if (place := place - share) < 0:
            return kind
    return chance.choice(["whole", "stream"])


def body_of(kind: str, question: str) -> tuple[bytes, int]:
    """Return what a client sends, and how many bytes it says that these are."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": question}],
        "temperature": 0, "max_tokens": LIMIT, "stream": kind in STREAMS,
    }  # fmt: skip
    if kind == "unknown field":
        body["top_kk"] = 1
    content = json.dumps(body).encode()
    if kind == "half a body":
        return content[:40], len(content)
    content = {"malformed": b'{"messages": [', "oversized": b" " * 1_100_000}.get(
        kind, content
    )
    return content, len(content)


@dataclass
class Soak:
    """The replicas, the questions with their right answers, and what came of it."""

    replicas: list[Replica]
    asked: list[str]
    expected: list[tuple[str, str]]
    counts: Counter = field(default_factory=Counter)
    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def client(self, number: int, kind: str) -> None:
        """Be one client, from its question to what it makes of the answer."""
        which = number % len(self.asked)
        try:
            async with asyncio.timeout(PATIENCE):
                status, answer = await self.deliver(number, kind, self.asked[which])
        except TimeoutError:
            self.lost.append(f"{kind}: {self.asked[which]}")
            return
        self.counts[kind] += 1
        if kind in LEAVES:
            return
        self.statuses[status] += 1
        if status != WANTED.get(kind, 200):
            self.wrong.append(f"{kind}: {status} {answer[:200]!r}")
        elif status == 200 and answer_in(answer) != self.expected[which]:
            self.wrong.append(f"{kind}: {self.asked[which]}: {answer_in(answer)}")

    async def deliver(self, number: int, kind: str, asked: str) -> tuple[int, bytes]:
        """Send a request until a replica has taken it and answered."""
        content, length = body_of(kind, asked)
        leave, pause = LEAVES.get(kind), PAUSES.get(kind, 0.0)
        while True:
            replica = self.replicas[number % len(self.replicas)]
            number += 1
            try:
                status, answer = await post(replica.port, content, length, leave, pause)
            except Gone:  # this one was killed: the other takes the request
                self.counts["sent again"] += 1
                await asyncio.sleep(0.05)
                continue
            if status != 429:
                return status, answer
            self.counts["told to come back"] += 1
            await asyncio.sleep(0.25)

    async def run(self, requests: int, at_once: int, kills: int) -> None:
        """Send all requests, `at_once` open at a time; kill a replica now and then.

        The kills come in the first fifth: the rest shows whether memory grows.
        """
        chance, places = random.Random(9), asyncio.Semaphore(at_once)
        moments = [requests * (n + 1) // (5 * kills) for n in range(kills)]
        async with asyncio.TaskGroup() as group:
            for number in range(requests):
                await places.acquire()
                job = group.create_task(self.client(number, draw(chance)))
                job.add_done_callback(lambda _: places.release())
                self.look(number, requests)
                if number in moments:
                    which = moments.index(number) % len(self.replicas)
                    kill = asyncio.to_thread(self.replicas[which].kill)
                    group.create_task(kill)
                    self.counts["killed"] += 1

    def look(self, number: int, requests: int) -> None:
        """Note the memory a hundred times, and say ten times how far it is."""
        if number % max(1, requests // 100) == 0:
            for replica in self.replicas:
                replica.look(number)
        if number % max(1, requests // 10) == 0:
            print(number, dict(self.counts), len(self.wrong), "wrong", flush=True)


def alone(asked: Sequence[str]) -> list[tuple[str, str]]:
    """Return thinking and answer to each question, the model asked one at a time."""
    import qwen_course as qc

    pocket = qc.load("pocket-qwen3")
    replies = [qc.chat(*pocket, question, sampling="greedy", max_new_tokens=LIMIT)
               for question in asked]  # fmt: skip
    return [(reply.thinking, reply.answer) for reply in replies]


def measure(requests: int, at_once: int, kills: int) -> tuple[dict[str, Any], Soak]:
    """Soak two replicas; return the result, and all that came of it."""
    from qwen_course.meters import machine

    asked = questions(192)
    soak = Soak([Replica(n, free_port()) for n in range(2)], asked, alone(asked))
    for replica in soak.replicas:
        replica.start()
    began = time.perf_counter()
    try:
        asyncio.run(soak.run(requests, at_once, kills))
    finally:
        seconds = time.perf_counter() - began
        ended = [replica.stop() for replica in soak.replicas]
    lives = [life for replica in soak.replicas for life in replica.lives]
    processes = [life.as_row(warm=requests // 20) for life in lives]
    growths = [row["growth"] for row in processes if row["growth"] is not None]
    result = {
        "machine": machine(),
        "requests": requests,
        "at_once": at_once,
        "seconds": round(seconds),
        "counts": dict(soak.counts),
        "statuses": {str(code): n for code, n in sorted(soak.statuses.items())},
        "lost": len(soak.lost),
        "wrong": len(soak.wrong),
        "processes": processes,
        "most_growth": max(growths, default=None),
        "exit_statuses": ended,
    }
    return result, soak


def held(result: dict[str, Any]) -> bool:
    """Return whether all that must hold did; growth counts where it was measured."""
    growth = result["most_growth"] or 0
    lost = result["lost"] or result["wrong"] or any(result["exit_statuses"])
    return not lost and growth <= MOST_GROWTH


def main() -> int:
    """Soak, print what came of it, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    # Both together have 40 places, so that some clients meet a full queue.
    parser.add_argument("--at-once", type=int, default=44)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args()
    result, soak = measure(options.requests, options.at_once, options.kills)
    print(json.dumps(result, indent=1), *soak.lost[:5], *soak.wrong[:5], sep="\n")
    if not options.dry:
        keep(soak=result)
    return 0 if held(result) else 1


if __name__ == "__main__":
    sys.exit(main())
