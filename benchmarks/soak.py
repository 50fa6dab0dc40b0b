"""Serve thousands of requests with faults among them: `python -m benchmarks.soak`.

Clients that go away, readers that are slow, malformed and oversized bodies, a full
queue, and a replica that is killed and started again. What must hold: no accepted
request is lost, every answer is the greedy one that the model gives alone, no reply is
a 5xx, and after the warm-up memory stays within 5%. Two servers run as processes of
their own, and a request that meets a dead one is sent to the other, as a load balancer
does. The result goes into `benchmarks/results.json`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import RESULTS
from benchmarks.serving import free_port, questions

LIMIT = 96
# What comes in, in parts of a hundred.
FAULTS = {
    "leaves": 10, "leaves a stream": 5, "slow reader": 5, "malformed": 5,
    "oversized": 2, "unknown field": 3,
}  # fmt: skip
WANTED = {"malformed": 400, "oversized": 413, "unknown field": 400}


@dataclass
class Replica:
    """A server in a process of its own."""

    port: int
    process: Any = None

    def start(self) -> None:
        """Start it, and wait until it says where it listens."""
        command = [sys.executable, "-m", "qwen_course", "serve", "--port",
                   str(self.port), "--timeout", "300"]  # fmt: skip
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self.process.stdout.readline()

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it, gently or not."""
        self.process.send_signal(how)
        self.process.wait(120)

    def memory(self) -> int:
        """Return the bytes it holds."""
        import psutil

        return psutil.Process(self.process.pid).memory_info().rss


@dataclass
class Ledger:
    """What came of all requests."""

    counts: Counter = field(default_factory=Counter)
    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    memory: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # pid, count, bytes


class Gone(Exception):
    """The server went away in the middle of an answer."""


async def post(port: int, content: bytes, leave_after: int | None = None,
               pause: float = 0.0) -> tuple[int, bytes]:  # fmt: skip
    """Send a body; return status and answer. `leave_after` bytes the client goes."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        raise Gone from error
    try:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        if leave_after == 0:
            await asyncio.sleep(pause)
            return 0, b""
        answer = b""
        while part := await reader.read(256):
            answer += part
            if leave_after is not None and len(answer) > leave_after:
                return 0, b""
            await asyncio.sleep(pause)
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise Gone from error
    finally:
        writer.close()
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    if not head_bytes:
        raise Gone
    status = int(head_bytes.split()[1])
    if status == 200 and not _whole(head_bytes, body):
        raise Gone
    return status, body


def _whole(head: bytes, body: bytes) -> bool:
    """Return whether an answer came to its end."""
    if b"event-stream" in head:
        return b"[DONE]" in body
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


async def one(number: int, kind: str, asked: str, expected, replicas, ledger) -> None:
    """Send one request of a kind, to another replica where one is gone."""
    stream = kind in ("stream", "slow reader", "leaves a stream")
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": asked}],
        "temperature": 0, "max_tokens": LIMIT, "stream": stream,
    }  # fmt: skip
    content = json.dumps(body | ({"top_kk": 1} if kind == "unknown field" else {}))
    sent = {"malformed": b'{"messages": [', "oversized": b" " * 1_100_000}.get(
        kind, content.encode()
    )
    leave = {"leaves": 0, "leaves a stream": 900}.get(kind)
    pause = {"slow reader": 0.05, "leaves": 0.1}.get(kind, 0.0)
    for turn in range(2000):
        replica = replicas[(number + turn) % len(replicas)]
        try:
            status, answer = await post(replica.port, sent, leave, pause)
        except Gone:  # this one was killed: the other takes the request
            ledger.counts["sent again"] += 1
            await asyncio.sleep(0.05)
            continue
        if status != 429:
            break
        ledger.counts["told to come back"] += 1
        await asyncio.sleep(0.05)
    else:
        ledger.lost.append(asked)
        return
    ledger.counts[kind] += 1
    ledger.statuses[status] += 1
    if status != WANTED.get(kind, 200) and leave is None:
        ledger.wrong.append(f"{kind}: {status} {answer[:200]!r}")
    if status == 200 and answer_in(answer) != expected:
        ledger.wrong.append(f"{kind}: {asked}: {answer_in(answer)}")


def draw(chance: random.Random) -> str:
    """Return what the next client is like."""
    place = chance.random() * 100
    for kind, share in FAULTS.items():
        if (place := place - share) < 0:
            return kind
    return chance.choice(["whole", "stream"])


async def soak(replicas, requests: int, at_once: int, kills: int) -> Ledger:
    """Send all requests, `at_once` open at a time; kill a replica now and then.

    The kills come in the first fifth, so that the rest shows whether memory grows.
    """
    import qwen_course as qc

    asked = questions(192)
    pocket = qc.load("pocket-qwen3")
    replies = [qc.chat(*pocket, question, sampling="greedy", max_new_tokens=LIMIT)
               for question in asked]  # fmt: skip
    expected = [(reply.thinking, reply.answer) for reply in replies]
    ledger, chance, places = Ledger(), random.Random(9), asyncio.Semaphore(at_once)
    moments = [requests * (n + 1) // (5 * kills) for n in range(kills)]
    jobs: set[asyncio.Task] = set()

    async def guarded(number: int) -> None:
        which = number % len(asked)
        try:
            await one(
                number, draw(chance), asked[which], expected[which], replicas, ledger
            )
        finally:
            places.release()

    for number in range(requests):
        await places.acquire()
        job = asyncio.create_task(guarded(number))
        jobs.add(job)
        job.add_done_callback(jobs.discard)
        if number % 100 == 99:
            note(replicas, number + 1, ledger)
        if number in moments:
            victim = replicas[moments.index(number) % len(replicas)]
            ledger.counts["killed"] += 1
            await asyncio.to_thread(victim.stop, signal.SIGKILL)
            await asyncio.to_thread(victim.start)
    await asyncio.gather(*jobs)
    note(replicas, requests, ledger)
    return ledger


def note(replicas, count: int, ledger: Ledger) -> None:
    """Note the memory, and say how far it is."""
    for replica in replicas:
        ledger.memory.append((replica.process.pid, count, replica.memory()))
    if count % 1000 == 0:
        print(count, dict(ledger.counts), len(ledger.wrong), "wrong", flush=True)


def growth(memory: list[tuple[int, int, int]], warm: int = 500) -> float:
    """Return by how much the longest-lived replica grew after its warm-up.

    The median of its last ten looks against that of the first ten after the warm-up.
    """
    import statistics

    lives: dict[int, list[tuple[int, int]]] = {}
    for pid, count, held in memory:
        lives.setdefault(pid, []).append((count, held))
    longest = max(lives.values(), key=len)
    after = [held for count, held in longest if count >= longest[0][0] + warm]
    if len(after) < 4:
        return float("nan")
    part = min(10, len(after) // 2)
    first, last = statistics.median(after[:part]), statistics.median(after[-part:])
    return last / first - 1


def main() -> None:
    """Soak two replicas, print what came of it, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args()
    replicas = [Replica(free_port()) for _ in range(2)]
    for replica in replicas:
        replica.start()
    began = time.perf_counter()
    try:
        ledger = asyncio.run(
            soak(replicas, options.requests, options.at_once, options.kills)
        )
    finally:
        for replica in replicas:
            replica.stop()
    from qwen_course.meters import machine

    result = {
        "machine": machine(),
        "requests": options.requests,
        "seconds": round(time.perf_counter() - began),
        "counts": dict(ledger.counts),
        "statuses": {str(k): v for k, v in sorted(ledger.statuses.items())},
        "lost": len(ledger.lost),
        "wrong": len(ledger.wrong),
        "memory_growth_after_warm_up": round(growth(ledger.memory), 4),
    }
    print(json.dumps(result, indent=1), *ledger.wrong[:5], sep="\n")
    if not options.dry:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept["soak"] = result
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
