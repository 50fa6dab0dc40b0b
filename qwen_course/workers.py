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
    if number < 1:
        raise ValueError(f"workers is {number}; give 1 or more.")
    context = multiprocessing.get_context("spawn")
    listening = socket.create_server((host, port), backlog=2048)
    posts = [_post() for _ in range(number)]
    ready = context.Semaphore(0)

    def start(which: int) -> Any:
        arguments = (build, which, listening, posts, ready)
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    processes = [start(which) for which in range(number)]
    told = False
    while not stop.wait(0.1):
        told = told or _announce(ready, number, listening)
        for which, process in enumerate(processes):
            if process.is_alive():
                continue
            if not told:  # the next one would not start either
                stop.set()
                break
            processes[which] = start(which)
    for process in processes:
        process.terminate()  # uvicorn takes it as: finish, then end
    for process in processes:
        process.join()
    if not told:
        raise OSError("a worker did not start; what it says stands above.")


def _post() -> socket.socket:
    """Return a socket of this machine alone, on which a worker hears of the others."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    return one


def _announce(ready: Any, number: int, listening: socket.socket) -> bool:
    """Print the address once all workers are up; return whether they are."""
    with contextlib.suppress(NotImplementedError):  # macOS cannot count
        if ready.get_value() < number:
            return False
    found = listening.getsockname()
    print(f"listening on http://{found[0]}:{found[1]}/v1", flush=True)
    return True


def work(
    build: Build,
    which: int,
    listening: socket.socket,
    posts: Sequence[socket.socket],
    ready: Any,
) -> None:
    """Be one worker: serve on the shared socket, tell the others, hear from them."""
    import uvicorn

    from qwen_course.monitoring import QwenMonitor
    from qwen_course.server import create_app

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group
    # uvicorn listens to the signal later, and sends it again when it has finished.
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    service, guard = build()
    monitor = QwenMonitor()
    others = [post.getsockname() for n, post in enumerate(posts) if n != which]
    service.observers.append(lambda served: tell(posts[which], others, served))
    hearing = threading.Thread(target=hear, args=(posts[which], monitor), daemon=True)
    hearing.start()

    class Ready(uvicorn.Server):
        async def startup(self, sockets: list | None = None) -> None:
            await super().startup(sockets=sockets)
            ready.release()
            self.should_exit |= told.is_set()

    app = create_app(service, guard, monitor)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    try:
        Ready(config).run(sockets=[listening])
    finally:
        service.close()


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
