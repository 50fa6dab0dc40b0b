"""Kernels that have imported the course's libraries before a learner asks for one.

torch and transformers take seconds of CPU to import, and thirty learners begin at once.
This process, a service of the hub, imports them once and forks a kernel for each who
asks; the forks share the memory too. It serves learners who share one account of the
operating system (the spawner "simple"); config/kernels/python3/kernel.py asks for them.
"""

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

MODULES = (
    "IPython",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "ipywidgets",
    "numpy",
    "matplotlib.figure",
    "matplotlib.font_manager",
    "torch",
    "transformers.generation",
    "transformers.masking_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
    "qwen_course.chat",
    "qwen_course.doctor",
    "qwen_course.exercises",
    "qwen_course.inference",
    "qwen_course.loading",
    "qwen_course.widgets",
)


def serve(path: Path) -> None:
    """Fork a kernel for everyone who connects to the socket at `path`, for ever."""
    # subtle: Matplotlib reads this when it is imported, and that is before the fork.
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, every page of a fork
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        old = os.umask(0o077)  # for this account alone
        door.bind(str(path))
        os.umask(old)
        door.listen(128)
        print(f"warm kernels at {path}", flush=True)
        while True:
            learner, _ = door.accept()
            with learner, contextlib.suppress(OSError):
                answer(learner, door)


def answer(learner: socket.socket, door: socket.socket) -> None:
    """Read what a learner's kernel.py asks for, and fork."""
    learner.settimeout(10)
    _, files, _, _ = socket.recv_fds(learner, 1, 2)
    try:
        asked = json.loads(learner.makefile("rb").readline())
        if os.fork() == 0:
            door.close()
            learner.settimeout(None)
            status = 1
            try:
                become_kernel(asked, files, learner)
                learner.sendall(b".")  # it ended by itself
                status = 0
            finally:
                os._exit(status)
    finally:
        for file in files:
            os.close(file)


def become_kernel(
    asked: dict[str, Any], files: list[int], learner: socket.socket
) -> None:
    """Be the kernel of one notebook until it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for place, file in enumerate(files, start=1):
        os.dup2(file, place)
    asked["environment"].pop("JPY_PARENT_PID", None)  # our parent is another
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.path[:] = ["", *(one for one in sys.path if one)]
    sys.argv = ["ipykernel_launcher", *asked["words"]]
    random.seed()  # else all learners would draw the same numbers
    importlib.import_module("numpy").random.seed()
    threading.Thread(target=_end_with, args=(learner,), daemon=True).start()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(asked["words"])


def _end_with(learner: socket.socket) -> None:
    """End this kernel when the other side of the connection is gone."""
    with contextlib.suppress(OSError):
        learner.recv(1)
    os._exit(1)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
