"""Measure the ways to serve under the same load: `python -m benchmarks.serving`.

A closed loop of 16 users shows the most each way can do, an open loop of Poisson
arrivals what it feels like at a given load. Servers run in processes of their own, and
are asked in turn; vLLM is one of them where `--vllm` names a Python that has it. Run
nothing else beside it. The rows go to `qwen_course/data/measured/serving.json`, the
ratios that the course is held to into `benchmarks/results.json`. About 15 minutes on
two cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure import ROOT, keep

POCKET = "pocket-qwen3"
MEASURED = ROOT / "qwen_course" / "data" / "measured"
# What the published service is: see lesson 08. Its threads all compute at once.
PUBLISHED = "a thread each, no lock"
ONE_THREAD = ", torch on one"
ALONE, OURS = "one after the other", "continuous"
Wanted = Callable[[str], bool]
WHOLE = ", whole answers"  # not streamed
SERVER, WORKERS = "qwen-course serve", "qwen-course serve, a worker a core"
WORKERS_BF16 = f"{WORKERS}, bf16"
THEIRS = "transformers serve"
CONTINUOUS = [
    "--continuous-batching", "--attn-implementation", "sdpa", "--cb-block-size", "32",
    "--cb-num-blocks", "512", "--cb-max-batch-tokens", "512",
]  # fmt: skip
SERVING = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
TRANSFORMERS = "from transformers.cli.transformers import main; main()"


def questions(number: int = 64) -> list[str]:
    """Return questions of several kinds and lengths, the same each time."""
    import qwen_course as qc

    kinds = (qc.tasks.sums, qc.tasks.word_problems, qc.tasks.products)
    rows = [kind.problems(number // 3 + 1, seed=8) for kind in kinds]
    return [one.question for group in zip(*rows, strict=True) for one in group]


def load(name: str, precision: str = "auto") -> tuple[Any, Any]:
    """Return a model and a tokenizer; "random:Qwen3-8B" has that shape and no values.

    Its tokenizer is the pocket model's: speed depends on the number of tokens alone.
    """
    import torch

    import qwen_course as qc
    from qwen_course import architecture

    if not name.startswith("random:"):
        return qc.load(name, precision)
    _, tokenizer = qc.load(POCKET)
    shape = architecture.configuration(name.removeprefix("random:"))
    model = architecture.random_model(shape, torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def inside(wanted: Wanted, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the ways inside this process, torch on the threads that suit each.

    The published service leaves torch its usual number, so it is measured with that,
    and with the one thread that suits it better.
    """
    import torch

    from qwen_course import loading, traffic
    from qwen_course.service import QwenService

    loaded, usual = load(name), torch.get_num_threads()

    def on(threads: int, name: str, make: Callable[..., Any], *arguments: Any):
        torch.set_num_threads(threads)
        if wanted(name):
            way = make(*arguments)
            yield name, way
            getattr(way, "close", int)()

    yield from on(1, ALONE, traffic.one_by_one, *loaded)
    yield from on(usual, PUBLISHED, traffic.in_threads, *loaded)
    yield from on(1, PUBLISHED + ONE_THREAD, traffic.in_threads, *loaded)
    yield from on(usual, "batches of 16", traffic.in_batches, *loaded)
    with QwenService(*loaded, max_waiting=1000, timeout=600) as service:
        yield from on(usual, OURS, traffic.through, service)
    if name == POCKET and loading.cpu_has_bf16():
        quick = load(name, "bf16")
        with QwenService(*quick, max_waiting=1000, timeout=600) as service:
            yield from on(usual, f"{OURS}, bf16", traffic.through, service)


def commands(vllm: str | None, port: str) -> dict[str, tuple[list[str], str]]:
    """Return how each server is started, and what it calls the model."""
    from qwen_course.loading import BUNDLED

    folder = str(BUNDLED / POCKET)
    own = [sys.executable, "-m", "qwen_course", "serve", "--port", port,
           "--max-waiting", "1000", "--timeout", "600"]  # fmt: skip
    theirs = [sys.executable, "-c", TRANSFORMERS, "serve", folder, "--port", port,
              *CONTINUOUS]  # fmt: skip
    workers, bf16 = ["--workers", str(os.cpu_count())], ["--precision", "bf16"]
    found = {
        SERVER: (own, POCKET),
        f"{SERVER}, bf16": ([*own, *bf16], POCKET),
        WORKERS: ([*own, *workers], POCKET),
        WORKERS_BF16: ([*own, *workers, *bf16], POCKET),
        THEIRS: ([*theirs, "--dtype", "float32"], folder),
        f"{THEIRS}, bf16": ([*theirs, "--dtype", "bfloat16"], folder),
    }
    if vllm:
        found["vLLM"] = (
            [vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", folder,
             "--port", port, "--dtype", "float32", "--max-num-seqs", "16"],
            folder,
        )  # fmt: skip
    return found


@contextlib.contextmanager
def servers(vllm: str | None, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Run all servers and yield the ways to them; who is not asked does not compute."""
    from qwen_course import traffic
    from qwen_course.platforms.wire import Started

    ways: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for name in filter(wanted, commands(vllm, "")):
            server = Started(
                lambda port, name=name: commands(vllm, str(port))[name][0], SERVING
            )
            stack.enter_context(server)
            _, model = commands(vllm, "")[name]
            # transformers refuses the field, and counts the tokens without it.
            usage = {"stream_options": {"include_usage": True}}
            count = {} if name.startswith(THEIRS) else usage
            ways[name] = traffic.over_http(server.address, model, **count)
            ways[name + WHOLE] = traffic.over_http(server.address, model, stream=False)
        yield ways


async def in_turn(ways: dict[str, Any], options, asked: list[str]) -> list[Any]:
    """Return the load of as many users for each way: the median of several turns."""
    from qwen_course.traffic import closed_loop

    found: dict[str, list[Any]] = {name: [] for name in ways}
    for turn in range(options.repeats + 1):  # the first one is a warm-up
        for name, way in ways.items():
            each = options.each if turn else 1
            load = await closed_loop(name, way, asked, options.users, each)
            found[name] += [load] if turn else []
            print(f"  {name}: {load.tokens_per_second:.0f}", flush=True)
    return [middle(loads) for loads in found.values()]


def middle(loads: list[Any]) -> Any:
    """Return the load with the median of tokens a second."""
    return sorted(loads, key=lambda load: load.tokens_per_second)[len(loads) // 2]


async def measure(name: str, way: Any, options, asked: list[str]) -> list[Any]:
    """Return the loads of one way: users (the median of several), then rates.

    A warm-up comes first and is dropped.
    """
    from qwen_course.traffic import closed_loop, open_loop

    await closed_loop(name, way, asked, min(4, options.users), 1)
    slow = name == ALONE or name.startswith(PUBLISHED)
    each = 2 if slow else options.each
    full = [
        await closed_loop(name, way, asked, options.users, each)
        for _ in range(1 if slow else options.repeats)
    ]
    found = [middle(full)]
    for rate in options.rates:
        if found[-1].rate and found[-1].latency(0.95) > options.patience:
            break  # it does not keep up: more users only wait longer
        found.append(await open_loop(name, way, asked, rate, options.seconds))
        print(f"  {rate:g}/s done", flush=True)
    return found


# What the course is held to: so many times the tokens a second of another way.
RATIOS = {
    "continuous_times_one_after_the_other": (OURS, ALONE),
    "continuous_times_published": (OURS, PUBLISHED),
    "continuous_times_published_on_one": (OURS, PUBLISHED + ONE_THREAD),
    "workers_times_one_after_the_other": (WORKERS, ALONE),
    "workers_times_published": (WORKERS, PUBLISHED),
    "continuous_bf16_times_one_after_the_other": (f"{OURS}, bf16", ALONE),
    "workers_bf16_times_one_after_the_other": (WORKERS_BF16, ALONE),
    "workers_bf16_times_published": (WORKERS_BF16, PUBLISHED),
    "server_times_transformers_serve": (SERVER, THEIRS),
    "server_times_transformers_serve_whole": (SERVER + WHOLE, THEIRS + WHOLE),
    "workers_times_transformers_serve": (WORKERS, THEIRS),
    "server_bf16_times_transformers_serve_bf16": (f"{SERVER}, bf16", f"{THEIRS}, bf16"),
    "workers_bf16_times_transformers_serve_bf16": (WORKERS_BF16, f"{THEIRS}, bf16"),
    "workers_times_vllm": (WORKERS, "vLLM"),
    "workers_bf16_times_vllm": (WORKERS_BF16, "vLLM"),
}


def summary(loads) -> dict[str, Any]:
    """Return what the course is held to, from one run on one machine."""
    from qwen_course.meters import machine

    full = {load.way: load for load in loads if load.users}
    speed = {way: load.tokens_per_second for way, load in full.items()}

    def times(way: str, than: str) -> float | None:
        both = way in speed and than in speed
        return round(speed[way] / speed[than], 2) if both else None

    first = {way: load.first_token(0.95) for way, load in full.items()}

    def shorter(way: str) -> float | None:
        both = way in first and PUBLISHED in first
        return round(first[way] / first[PUBLISHED], 3) if both else None

    return {
        "machine": machine(),
        "users": loads[0].users,
        "tokens_per_second": {way: round(one) for way, one in speed.items()},
        **{name: times(*pair) for name, pair in RATIOS.items()},
        "first_token_p95_of_published": shorter(OURS),
        "first_token_p95_of_published_bf16": shorter(f"{OURS}, bf16"),
    }


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", help="names that contain one of these, by commas")
    parser.add_argument("--model", default=POCKET, help="or random:Qwen3-8B, one shape")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--each", type=int, default=12, help="questions a user")
    parser.add_argument("--repeats", type=int, default=3, help="of the closed loop")
    parser.add_argument("--seconds", type=float, default=12, help="of one open loop")
    parser.add_argument("--rates", type=float, nargs="*", default=[2, 8, 16, 32])
    parser.add_argument("--patience", type=float, default=5, help="seconds of p95")
    parser.add_argument("--vllm", help="a Python that has vLLM")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args()
    from qwen_course.traffic import Loads

    loads, asked = Loads(), questions()

    def wanted(name: str) -> bool:
        return not options.ways or any(one in name for one in options.ways.split(","))

    for name, way in inside(wanted, options.model):
        print(name, flush=True)
        loads += asyncio.run(measure(name, way, options, asked))
    if options.model == POCKET:
        with servers(options.vllm, wanted) as ways:
            loads += asyncio.run(in_turn(ways, options, asked))
    print(loads)
    results = {"model": options.model, **summary(loads)}
    print(json.dumps(results, indent=1))
    if options.model == POCKET and not options.dry:
        store(loads, results)


def store(loads, results: dict[str, Any]) -> None:
    """Write the rows and the ratios where the lesson and the README find them."""
    MEASURED.mkdir(exist_ok=True)
    rows = {"machine": results["machine"], "loads": [load.as_row() for load in loads]}
    text = json.dumps(rows, indent=1) + "\n"
    (MEASURED / "serving.json").write_text(text, encoding="utf-8")
    keep(serving=results)


if __name__ == "__main__":
    main()
