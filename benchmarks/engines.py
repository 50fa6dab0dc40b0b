"""Time the ways to decode: `python -m benchmarks.engines`.

On a checkpoint of true Qwen3-0.6B shape: `generate` and the engine, each against the
limit of this machine's memory. On the pocket model: 16 requests one after the other, in
one batch, in continuous batches, and in the engine. Run nothing else beside it.
The rows go to `qwen_course/data/measured/`, the ratios that the course is held to into
`benchmarks/results.json`. About 15 minutes on two cores; 8 GB of memory and of disk.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from benchmarks.measure import ROOT, keep

MEASURED = ROOT / "qwen_course" / "data" / "measured"
CHILD = "import sys; from benchmarks.engines import child; child(sys.argv[1])"
FORMS = (("fp32", 32), ("int8", 32), ("int4", 32), ("int4", 128))
REQUESTS = 16


def full_size(name: str, threads: Sequence[int], repeats: int, tokens: int):
    """Return what decoding gives on a model of full size, and the bandwidth."""
    from qwen_course import benchmark, engines

    bandwidth = benchmark.memory_bandwidth()
    folder = benchmark.random_checkpoint(name)
    size = {"new_tokens": tokens, "repeats": repeats}
    rows = benchmark.Measurements()
    for precision in ("bf16", "fp32"):
        for number in threads:
            rows.append(benchmark.benchmark(folder, precision, threads=number, **size))
            show(rows[-1], bandwidth)
    for precision, group in FORMS:
        exported = engines.export(folder, precision, group)
        label = f"{precision} engine" + (f", groups of {group}" if group != 32 else "")
        for number in threads:
            request = {"folder": str(exported), "name": name, "precision": label,
                       "threads": number, **size}  # fmt: skip
            rows.append(in_a_fresh_process(request))
            show(rows[-1], bandwidth)
    # Readers elsewhere need the limit of this memory, not of their own.
    limit = {"bandwidth_gb_per_second": round(bandwidth / 1e9, 1)}
    named = [replace(row, machine={**row.machine, **limit}) for row in rows]
    return benchmark.Measurements(named), bandwidth


def in_a_fresh_process(request: dict[str, Any]):
    """Measure an exported model in a process of its own."""
    from qwen_course.benchmark import Measurement

    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(request)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    row = json.loads(done.stdout.strip().splitlines()[-1])
    lists = ("first_token_seconds", "tokens_per_second")
    return Measurement(**{**row, **{key: tuple(row[key]) for key in lists}})


def child(request: str) -> None:
    """Measure as a request in JSON says, and print the result as JSON."""
    from qwen_course.engines import measure

    print(json.dumps(asdict(measure(**json.loads(request)))))


def show(row, bandwidth: float) -> None:
    """Print one row while the rest is still to come."""
    share = f"{row.share(bandwidth):.0%} of the limit"
    name = f"{row.precision}, {row.threads} threads"
    print(f"{row.model} {name:38} {row.decode:7.1f} tokens/s, {share}", flush=True)


def together(repeats: int) -> dict[str, list[float]]:
    """Return tokens a second for 16 short requests on the pocket model, way by way."""
    import qwen_course as qc
    from qwen_course.messages import check_messages, encode

    _, tokenizer = qc.load("pocket-qwen3")
    problems = qc.tasks.sums.problems(REQUESTS, seed=6)
    rows = [encode(tokenizer, check_messages(p.question), True) for p in problems]
    ways = {**in_transformers(rows), **in_the_engine(rows)}
    found = {}
    for way, run in ways.items():
        found[way] = speeds(run, repeats)
        print(f"{way:42} {statistics.median(found[way]):7.0f} tokens/s", flush=True)
    return found


def in_transformers(rows) -> dict[str, Callable[[], int]]:
    """Return the ways of transformers to answer, each returning its tokens."""
    import qwen_course as qc
    from qwen_course.inference import serve

    ways = {}
    for precision in ("fp32", "bf16"):
        model, _ = qc.load("pocket-qwen3", precision=precision)
        alone = partial(total, lambda row, model=model: generate(model, [row]), rows)
        ways[f"one after the other, {precision}"] = alone
        ways[f"one batch, {precision}"] = partial(written, generate, model, rows)
        ways[f"continuous batch, {precision}"] = partial(
            lambda model: serve(model, rows, 96, places=len(rows)).tokens, model
        )
    # It changes the attention of its model for good, so it gets one of its own.
    model, _ = qc.load("pocket-qwen3")
    return {**ways, "generate_batch, fp32": partial(library, model, rows)}


def in_the_engine(rows) -> dict[str, Callable[[], int]]:
    """Return the ways of the engine to answer, each returning its tokens."""
    from qwen_course.engines import Engine, export

    ways = {}
    for precision in ("fp32", "int4"):
        engine = Engine(export("pocket-qwen3", precision))
        ways[f"engine, one after the other, {precision}"] = partial(
            total, lambda row, engine=engine: [engine.write(row, 96).ids], rows
        )
        ways[f"engine, one batch, {precision}"] = partial(
            lambda engine: engine.serve(rows, 96).tokens, engine
        )
    return ways


def compiled_whole(tokens: int = 128) -> dict[str, float]:
    """Compile the pocket model as a whole, with a static cache: cost and gain."""
    from transformers import CompileConfig

    import qwen_course as qc

    model, _ = qc.load("pocket-qwen3")
    everywhere = CompileConfig(mode="default")
    everywhere._compile_all_devices = True  # by itself it compiles on a GPU only
    static = {"cache_implementation": "static"}
    found = {"static cache": speed_of(model, tokens, static)}
    began = time.perf_counter()
    compiled = {**static, "compile_config": everywhere}
    speed_of(model, tokens, compiled)
    found["seconds to compile"] = time.perf_counter() - began
    found["static cache, compiled"] = speed_of(model, tokens, compiled)
    found["growing cache"] = speed_of(model, tokens, {})
    return {way: round(number, 1) for way, number in found.items()}


def speed_of(model, tokens: int, options: dict[str, Any]) -> float:
    """Return tokens a second of one text, prefill included, the best of three."""
    import torch

    from qwen_course.chat import GREEDY

    ids, best = torch.arange(10, 42)[None], 0.0
    for _ in range(3):
        began = time.perf_counter()
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0,
            min_new_tokens=tokens, max_new_tokens=tokens, **options, **GREEDY,
        )  # fmt: skip
        best = max(best, tokens / (time.perf_counter() - began))
    return best


def total(answer: Callable, rows) -> int:
    """Answer one row after the other and count the tokens."""
    return sum(written(answer, row) for row in rows)


def written(answer: Callable, *arguments: Any) -> int:
    """Count the tokens of all answers."""
    return sum(map(len, answer(*arguments)))


def generate(model, rows: list[list[int]]) -> list[list[int]]:
    """Answer greedily with `generate`, each answer up to its end."""
    from qwen_course.chat import GREEDY, left_pad

    pad = model.generation_config.pad_token_id
    ids, mask = left_pad(rows, pad)
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=96,
        pad_token_id=pad,
        **GREEDY,
    )
    return [
        [id for id in row if id != pad] for row in output[:, ids.shape[1] :].tolist()
    ]


def library(model, rows: list[list[int]]) -> int:
    """Answer with the continuous batching of transformers, its cache kept small."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    small = ContinuousBatchingConfig(num_blocks=256, page_size=32, max_batch_tokens=512)
    greedy = GenerationConfig(
        max_new_tokens=96, do_sample=False,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=model.generation_config.pad_token_id,
    )  # fmt: skip
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        found = model.generate_batch(
            inputs=rows, generation_config=greedy, continuous_batching_config=small
        )
    return sum(len(one.generated_tokens) for one in found.values())


def speeds(run: Callable[[], int], repeats: int) -> list[float]:
    """Return tokens a second of each repeat, one run before them not counted."""
    run()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        tokens = run()
        found.append(tokens / (time.perf_counter() - started))
    return found


def summary(rows, bandwidth: float, found: dict[str, list[float]]) -> dict[str, Any]:
    """Return the two ratios the course is held to, each from one run on one machine."""
    medians = {way: statistics.median(speed) for way, speed in found.items()}
    plain = max((r for r in rows if r.precision == "bf16"), key=lambda r: r.decode)
    best = max((r for r in rows if "engine" in r.precision), key=lambda r: r.decode)
    slow = medians["one after the other, fp32"]
    fast = max(medians, key=lambda way: medians[way])
    return {
        "machine": best.machine,
        "generate_bf16_tokens_per_second": round(plain.decode, 1),
        "best_engine": best.precision,
        "best_engine_tokens_per_second": round(best.decode, 1),
        "times_generate": round(best.decode / plain.decode, 2),
        "share_of_limit": round(best.share(bandwidth), 3),
        "requests": REQUESTS,
        "tokens_per_second": {way: round(speed) for way, speed in medians.items()},
        "best_together": fast,
        "times_one_after_the_other": round(medians[fast] / slow, 2),
    }


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="Qwen3-0.6B", help="of the catalogue")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32, help="new tokens of a run")
    options = parser.parse_args()
    rows, bandwidth = full_size(
        options.model, options.threads, options.repeats, options.tokens
    )
    found = together(options.repeats)
    results = {**summary(rows, bandwidth, found), "compile": compiled_whole()}
    MEASURED.mkdir(exist_ok=True)
    rows.save(MEASURED / "engines.json")
    keep(engines=results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
