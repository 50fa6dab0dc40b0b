"""Let N learners come at once: log in, start a server, run every cell of a lesson.

    python -m workshop.simulate --learners 10 --lesson 00_start_here
    python -m workshop.simulate --hub http://192.168.1.20:8000 --password tuvo-nabe-diku

Each does what a browser does: the login form with its cookies, the pull of the course's
folder, JupyterLab's page, and the kernel's websocket. Without `--hub` a hub of its own
runs in a temporary folder. It prints the seconds of each step, the memory and the CPU
time of a seat, and how many seats a machine has.
"""

import argparse
import asyncio
import contextlib
import json
import math
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from tornado.httpclient import HTTPClientError

from qwen_course.tables import as_text
from workshop.jupyterhub import handout, settings
from workshop.jupyterhub.learner import Learner

STEPS = {
    "logged_in": "logged in",
    "spawned": "server there",
    "opened": "lesson open",
    "first_cell": "first cell run",
    "done": "all cells run",
}
SYSTEM_GB, USED_SHARE = 1.5, 0.9  # what the system needs; how full memory may get
BASE = "00_start_here, 10 at once, warm"  # the run that seats are counted from
WAITS = (60, 120, 300)  # seconds that a room may wait when all begin at once


@dataclass
class Seat:
    """What one learner saw: when each step was done, in seconds, and what failed."""

    name: str
    seconds: dict[str, float] = field(default_factory=dict)
    cells: int = 0
    errors: list[str] = field(default_factory=list)
    pss_mb: float = 0.0  # memory that is shared counts in parts
    uss_mb: float = 0.0  # what would be free without this seat
    cpu_seconds: float = 0.0


# One lesson, all learners


async def attend(learner: Learner, lesson: str, began: float) -> Seat:
    """Be one learner from the login form to the last cell."""
    seat = Seat(learner.name)
    path = f"{handout.TARGET}/notebooks/{lesson}.ipynb"

    def note(step: str) -> None:
        seat.seconds[step] = round(time.monotonic() - began, 2)

    try:
        await learner.log_in()
        note("logged_in")
        await learner.wait_for_server()
        note("spawned")
        await learner.pull(await learner.default_path())
        notebook = await learner.read(path)
        kernel = await learner.start_kernel(path)
        note("opened")
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            _, error = await kernel.run("".join(cell["source"]))
            if error and "raises-exception" not in cell["metadata"].get("tags", []):
                seat.errors.append(f"cell {seat.cells + 1}: {error}")
            seat.cells += 1
            if "first_cell" not in seat.seconds:
                note("first_cell")
        note("done")
    except (httpx.HTTPError, HTTPClientError, RuntimeError, OSError) as error:
        seat.errors.append(f"{type(error).__name__}: {error}")
    return seat


async def attend_all(
    hub: str, names: list[str], password: str, lesson: str
) -> list[Seat]:
    """Let all learners come at the same moment; return their seats."""
    learners = [Learner(hub, name, password) for name in names]
    began = time.monotonic()
    try:
        return await asyncio.gather(*(attend(one, lesson, began) for one in learners))
    finally:
        for one in learners:
            await one.close()


# A hub of its own


@contextlib.contextmanager
def own_hub(folder: Path, **chosen: Any) -> Iterator[tuple[str, psutil.Process]]:
    """Run a hub on three free ports of this machine; yield its address and process.

    `chosen` are settings of workshop.yaml. Raises OSError, with the end of its log,
    when it does not answer.
    """
    settings.write_first(folder)
    port = three_free_ports()
    said = {"password": settings.new_password(), "address": "127.0.0.1", "port": port}
    (folder / settings.FILE).write_text(json.dumps(said | chosen), encoding="utf-8")
    words = [sys.executable, "-m", "workshop.hub", "--folder", str(folder)]
    log = folder / "hub.log"
    with log.open("wb") as out:
        process = psutil.Popen(
            words, cwd=settings.ROOT, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(process, log, lambda: _answers(f"{address}/hub/api/"))
        if settings.read(folder).spawner == "simple":
            _wait(process, log, (folder / "warm").exists)
        yield address, process
    finally:
        _end(process)


def _wait(
    process: psutil.Popen, log: Path, ready: Callable[[], bool], patience: float = 180
) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return
        time.sleep(0.2)
    last = log.read_text("utf-8", "replace").splitlines()[-15:]
    raise OSError("the hub does not answer. It said:\n" + "\n".join(last))


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address, trust_env=False).is_success
    return False


def _end(process: psutil.Popen, patience: float = 40) -> None:
    """End a hub and all that it started."""
    tree = process.children(recursive=True)
    process.terminate()
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(patience)
    for one in [*tree, process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def three_free_ports() -> int:
    """Return a port that is free and followed by two free ones."""
    while True:
        first = 20_000 + secrets.randbelow(20_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


# What a seat costs


def seats_processes(
    hub: psutil.Process, homes: Path
) -> dict[str, list[psutil.Process]]:
    """Return the processes of each learner's seat: they work in the learner's home.

    A warm kernel is no child of its learner's server, so descent would not tell.
    """
    found: dict[str, list[psutil.Process]] = {}
    for one in hub.children(recursive=True):
        with contextlib.suppress(psutil.Error, ValueError):
            name = Path(one.cwd()).relative_to(homes).parts[0]
            found.setdefault(name, []).append(one)
    return found


def weigh(
    seats: list[Seat], hub: psutil.Process, homes: Path, before: float = 0.0
) -> dict[str, float]:
    """Note the memory and the CPU time of each seat; return those of the hub itself.

    `before` are the seconds of CPU that the hub had used when the learners came.
    """
    found = seats_processes(hub, homes)
    for seat in seats:
        seat.pss_mb, seat.uss_mb, seat.cpu_seconds = _cost(found.get(seat.name, []))
    taken = {one.pid for processes in found.values() for one in processes}
    own = [hub, *(o for o in hub.children(recursive=True) if o.pid not in taken)]
    pss, _, cpu = _cost(own)
    return {"hub_mb": pss, "hub_cpu_seconds": round(cpu - before, 1)}


def _cost(processes: list[psutil.Process]) -> tuple[float, float, float]:
    """Return PSS and USS in MB, and seconds of CPU, of some processes together."""
    pss = uss = cpu = 0.0
    for one in processes:
        with contextlib.suppress(psutil.Error):
            memory, times = one.memory_full_info(), one.cpu_times()
            pss += getattr(memory, "pss", memory.rss) / 1e6
            uss += memory.uss / 1e6
            cpu += times.user + times.system
    return round(pss), round(uss), round(cpu, 1)


# What it all says


def summary(seats: list[Seat], own: dict[str, float], lesson: str) -> dict[str, Any]:
    """Put a run into a few figures; seconds are from the start of all learners."""
    steps = {
        step: [one.seconds[step] for one in seats if step in one.seconds]
        for step in STEPS
    }
    return {
        "lesson": lesson,
        "learners": len(seats),
        "cells": sum(one.cells for one in seats),
        "errors": [f"{one.name}: {error}" for one in seats for error in one.errors],
        "seconds": {
            step: {"median": round(statistics.median(found), 1), "last": max(found)}
            for step, found in steps.items()
            if found
        },
        "seat_mb": round(statistics.mean(one.pss_mb for one in seats)),
        "seat_uss_mb": round(statistics.mean(one.uss_mb for one in seats)),
        "seat_cpu_seconds": round(statistics.mean(one.cpu_seconds for one in seats), 1),
        **own,
    }


def seats_by_memory(figures: dict[str, Any], memory_gb: float) -> int:
    """Return how many such seats fit into the memory of a machine.

    What 90% of it hold beside the system and the hub, over the memory of a seat (PSS).

    >>> seats_by_memory({"seat_mb": 300, "hub_mb": 700}, 16)
    40
    """
    free = USED_SHARE * memory_gb - SYSTEM_GB - figures["hub_mb"] / 1000
    return max(0, math.floor(free * 1000 / figures["seat_mb"]))


def seats_by_cores(figures: dict[str, Any], cores: int, wait: float) -> int:
    """Return how many can begin at once and have run the lesson after `wait` seconds.

    The hub's share of each is counted too.

    >>> figures = {"seat_cpu_seconds": 5.0, "hub_cpu_seconds": 10.0, "learners": 10}
    >>> seats_by_cores(figures, 4, 60)
    40
    """
    hub = figures["hub_cpu_seconds"] / figures["learners"]
    return math.floor(cores * wait / (figures["seat_cpu_seconds"] + hub))


def table(figures: dict[str, Any]) -> str:
    """Write a run as a text: seconds, errors, and what a seat takes."""
    rows = [
        (STEPS[step], f"{found['median']:.1f}", f"{found['last']:.1f}")
        for step, found in figures["seconds"].items()
    ]
    lines = [
        f"{figures['learners']} learners at once, lesson {figures['lesson']}",
        as_text(("seconds until", "half of them", "all"), rows),
        f"cells run: {figures['cells']}, errors: {len(figures['errors'])}",
        *figures["errors"],
    ]
    if figures["seat_mb"]:
        lines += [
            f"a seat: {figures['seat_mb']} MB ({figures['seat_uss_mb']} not shared), "
            f"{figures['seat_cpu_seconds']} s of CPU",
            f"hub, proxy and warm kernels: {figures['hub_mb']:.0f} MB",
        ]
    return "\n".join(lines)


def table_row(figures: dict[str, Any]) -> str:
    """Write a run as a row of the README's table."""
    seconds = figures["seconds"]
    lasts = [
        f"{seconds[step]['last']:.0f}" for step in ("spawned", "first_cell", "done")
    ]
    cells = (
        *(figures["lesson"], str(figures["learners"]), figures["kernels"], *lasts),
        *(str(figures["seat_mb"]), str(figures["seat_cpu_seconds"])),
    )
    return "| " + " | ".join(cells) + " |"


def seats_table(figures: dict[str, Any]) -> str:
    """Write how many seats machines have, by memory and by cores."""
    header = ("memory", "seats", "cores", *(f"in {wait} s" for wait in WAITS))
    rows = [
        (f"{memory} GB", str(seats_by_memory(figures, memory)), str(cores))
        + tuple(str(seats_by_cores(figures, cores, wait)) for wait in WAITS)
        for memory, cores in ((8, 2), (16, 4), (32, 8), (64, 16))
    ]
    return as_text(header, rows)


def run(learners: int, lesson: str, **chosen: Any) -> dict[str, Any]:
    """Start a hub in a temporary folder, let learners come, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="qwen-course-room-") as name:
        folder = Path(name).resolve()
        with own_hub(folder, **chosen) as (address, process):
            room, names = settings.read(folder), learner_names(learners)
            before = weigh([], process, room.homes)["hub_cpu_seconds"]
            seats = asyncio.run(attend_all(address, names, room.password, lesson))
            own = weigh(seats, process, room.homes, before)
    return summary(seats, own, lesson)


def visit(hub: str, learners: int, lesson: str, password: str) -> dict[str, Any]:
    """Let learners come to a hub that runs, here or elsewhere; return the figures."""
    names = learner_names(learners)
    seats = asyncio.run(attend_all(hub, names, password, lesson))
    nothing = {"hub_mb": 0.0, "hub_cpu_seconds": 0.0}
    return summary(seats, nothing, lesson)


def learner_names(learners: int) -> list[str]:
    """Return the names of the learners: learner-01 and so on."""
    return [f"learner-{number:02}" for number in range(1, learners + 1)]


def main(words: list[str] | None = None) -> int:
    """Run the command line; return 1 when a learner met an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learners", type=int, default=10)
    parser.add_argument("--lesson", default="00_start_here")
    parser.add_argument("--hub", help="the address of a hub that runs")
    parser.add_argument("--password", default="", help="of that hub")
    parser.add_argument(
        "--runs", type=int, default=1, help="a fresh hub each; the median"
    )
    parser.add_argument("--cold", action="store_true", help="no warm kernels")
    parser.add_argument("--keep", type=Path, help="add the figures to this JSON file")
    options = parser.parse_args(words)
    if options.hub:
        figures = visit(options.hub, options.learners, options.lesson, options.password)
        print(table(figures))
        return int(bool(figures["errors"]))
    chosen = {"environment": {"QWEN_COURSE_WARM": ""}} if options.cold else {}
    runs = [
        run(options.learners, options.lesson, **chosen) for _ in range(options.runs)
    ]
    figures = median_run(runs)
    print(table(figures), seats_table(figures), sep="\n\n")
    if options.keep:
        figures["kernels"] = "cold" if options.cold else "warm"
        keep(options.keep, figures, runs)
    return int(any(one["errors"] for one in runs))


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run in the middle, by the time that all were done."""
    ended = sorted(runs, key=lambda one: one["seconds"].get("done", {}).get("last", 0))
    return ended[len(ended) // 2]


def keep(path: Path, figures: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Add the figures of a lesson to a file, with the machine's name."""
    from benchmarks.measure import machine

    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    lasts = [one["seconds"]["done"]["last"] for one in runs]
    name = "{lesson}, {learners} at once, {kernels}".format(**figures)
    rooms = known.get("rooms", {}) | {name: {**figures, "all_runs": lasts}}
    known |= {"machine": machine(), "rooms": rooms}
    path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
