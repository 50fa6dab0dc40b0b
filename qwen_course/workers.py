"""Several servers on one machine and one port: a process for each core.

A small model gains little from a second thread; a second process has a core of its own.
The workers share a listening socket: whoever is free takes the next user. One that dies
is started again. Each tells the others of its finished requests, so that `/health` and
`/metrics` speak of all of them, whichever answers.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_course.service import Served

Build = Callable[[], tuple[Any, Any]]  # returns the service and its guard, or None


def serve(build: Build, number: int, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve with `number` workers until Ctrl+C or SIGTERM; answers are finished.

    `build` is called in each worker and must be a function that can be pickled. Port 0
    takes a free one. Raises ValueError for fewer than one worker, OSError when the port
    is taken or a worker does not start.
    """
    from qwen_course.server import listen

    if number < 1:
        raise ValueError(f"workers is {number}; give 1 or more.")
    context = multiprocessing.get_context("spawn")
    listening, ready = listen(host, port), context.Semaphore(0)
    posts = [_post() for _ in range(number)]

    def start(which: int) -> Any:
        arguments = (build, which, listening, posts, ready)
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    # subtle: a list, since the lock of an Event may be held where the signal comes in.
    told: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda which, _: told.append(which))
    processes = [start(which) for which in range(number)]
    try:
        _watch(processes, start, told, ready, listening)
    finally:
        for process in processes:
            process.terminate()  # one that serves finishes first, see server.run
        for process in processes:
            process.join()


def _post() -> socket.socket:
    """Return a socket of this machine alone, on which a worker hears of the others."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    return one


def _watch(
    processes: list[Any],
    start: Callable[[int], Any],
    told: list[int],
    ready: Any,
    listening: socket.socket,
) -> None:
    """Print the address when all workers are up, and replace one that dies.

    Returns when a signal was told. Raises OSError where a worker does not even start:
    the next one would not either.
    """
    from qwen_course.server import announce

    up = 0
    while not told:
        time.sleep(0.1)
        while up < len(processes) and ready.acquire(block=False):
            up += 1
            if up == len(processes):
                announce(listening)
        for which, process in enumerate(processes):
            if process.is_alive():
                continue
            if up < len(processes) and not told:
                raise OSError("a worker did not start; what it says stands above.")
            processes[which] = start(which)


def work(
    build: Build,
    which: int,
    listening: socket.socket,
    posts: Sequence[socket.socket],
    ready: Any,
) -> None:
    """Be one worker: serve on the shared socket, tell the others, hear from them.

    Until it serves, SIGTERM ends it at once: there is nothing yet to finish.
    """
    from qwen_course.monitoring import QwenMonitor
    from qwen_course.server import create_app, run

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group
    threading.Thread(target=_end_with_parent, daemon=True).start()
    service, guard = build()
    monitor = QwenMonitor()
    others = [post.getsockname() for n, post in enumerate(posts) if n != which]
    service.observers.append(lambda served: tell(posts[which], others, served))
    hearing = threading.Thread(target=hear, args=(posts[which], monitor), daemon=True)
    hearing.start()
    run(create_app(service, guard, monitor), service, listening, ready.release)


def _end_with_parent() -> None:
    """Do not stay behind when the parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def tell(
    post: socket.socket, others: Sequence[tuple[str, int]], served: "Served"
) -> None:
    """Send the numbers of a finished request to the other workers."""
    data = json.dumps(asdict(served)).encode()
    for address in others:
        with contextlib.suppress(OSError):  # it has died: nobody hears
            post.sendto(data, address)


def hear(post: socket.socket, observer: Callable[["Served"], Any]) -> None:
    """Hand the numbers that other workers send to an observer, for ever."""
    from qwen_course.service import Served

    while True:
        try:
            data = post.recv(65536)
        except ConnectionError:  # Windows: somebody was told who has died
            time.sleep(0.01)
            continue
        with contextlib.suppress(ValueError, TypeError):  # no message of ours
            observer(Served(**json.loads(data)))
