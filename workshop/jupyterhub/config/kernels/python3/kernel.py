"""A notebook's kernel: one of the warm ones where there are any, or an ordinary one.

This process stays while the kernel lives: each ends with the other.
"""

import json
import os
import socket
import sys

WARM_VARIABLE = "QWEN_COURSE_WARM"  # the socket of warm.py


def connect() -> socket.socket | None:
    """Return a connection to the process that forks kernels, or None."""
    warm = socket.socket(socket.AF_UNIX)
    try:
        warm.connect(os.environ[WARM_VARIABLE])
    except (KeyError, OSError):  # there is none, or not yet
        warm.close()
        return None
    return warm


def wait(warm: socket.socket, server: int) -> int:
    """Return the kernel's exit code when it has ended, or 1 when its server is gone."""
    warm.settimeout(2)
    while os.getppid() == server:
        try:
            return 0 if warm.recv(1) else 1  # nothing comes when the kernel is killed
        except TimeoutError:
            continue
    return 1


def main() -> None:
    """Ask for a warm kernel and wait for its end; else become a cold one."""
    words = sys.argv[1:]
    warm = connect()
    if warm is None:
        os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *words])
    asked = {"words": words, "environment": dict(os.environ), "folder": os.getcwd()}
    socket.send_fds(warm, [b"."], [1, 2])  # what it prints goes where this would
    warm.sendall(json.dumps(asked).encode() + b"\n")
    sys.exit(wait(warm, os.getppid()))


if __name__ == "__main__":
    main()
