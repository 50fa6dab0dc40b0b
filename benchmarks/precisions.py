"""Measure every precision on this machine: `python -m benchmarks.precisions`.

Speed and memory of the pocket model and of Qwen3-0.6B and 1.7B (true shapes, random
weights), each in a fresh process, with short and long contexts; then the right answers
of the pocket model. Kept in `qwen_course/data/measured/`, where lesson 05 reads them. A
row that is there already, from this machine, is not measured again: `--again` does.

    python -m benchmarks.precisions speed              # 10 to 20 minutes on two cores
    python -m benchmarks.precisions memory             # contexts of 1k and 8k: an hour
    python -m benchmarks.precisions accuracy           # 10 minutes
    python -m benchmarks.precisions speed --models pocket-qwen3 --precisions bf16 nf4
"""

import argparse
import json
from functools import partial
from pathlib import Path

from qwen_course import loading, precision_costs
from qwen_course.benchmark import (
    Measurement,
    Measurements,
    against_estimate,
    benchmark,
    in_words,
    machine,
    memory_bandwidth,
    peak,
    random_checkpoint,
)

DATA = Path(loading.__file__).parent / "data" / "measured"
SPEED, ACCURACY = DATA / "precisions.json", DATA / "accuracy.json"
BANDWIDTH = Path(__file__).parent / "bandwidth.json"
MODELS = ("pocket-qwen3", "Qwen3-0.6B", "Qwen3-1.7B")
PRECISIONS = ("fp32", "bf16", "int8", "nf4", "nf4-single")
SHORT = {"prompt_tokens": 32, "new_tokens": 32, "repeats": 5}


def folder_of(model: str) -> str | Path:
    """Return what `benchmark` loads for a model: real shapes get random weights."""
    return model if model.startswith("pocket-") else random_checkpoint(model)


def key(row: Measurement) -> tuple:
    """Return what makes two rows the same measurement."""
    return (row.model, row.precision, row.prompt_tokens, in_words(row.machine))


def place(row: Measurement) -> tuple:
    """Return where a row stands in the file: by model, context and precision."""
    known = [*PRECISIONS, row.precision]
    return MODELS.index(row.model), row.prompt_tokens, known.index(row.precision)


def measure(models, precisions, tokens: int, again: bool, run) -> None:
    """Measure each model at each precision; keep every row as soon as it is there."""
    rows = Measurements.read(SPEED) if SPEED.exists() else Measurements()
    here = in_words(machine())
    for model in models:
        for precision in precisions:
            wanted = (model, precision, tokens, here)
            if reason := loading.why_not(precision):
                print(f"{precision}: not here: {reason}")
                continue
            if wanted in map(key, rows) and not again:
                continue
            row = run(folder_of(model), precision, name=model)
            rows = Measurements([r for r in rows if key(r) != wanted] + [row])
            rows.sort(key=place)
            rows.save(SPEED)
            print(Measurements([row]), flush=True)


def bandwidth() -> float:
    """Measure how fast the memory is read, and keep it with the machine's name."""
    found = memory_bandwidth()
    kept = {"bytes_per_second": round(found), "machine": machine()}
    BANDWIDTH.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return found


def speed(options: argparse.Namespace) -> None:
    """Measure loading, memory and speed with a short context, and the limit."""
    found = bandwidth()
    print(f"memory is read at {found / 1e9:.1f} GB/s")
    run = partial(benchmark, **SHORT)
    measure(options.models, options.precisions, SHORT["prompt_tokens"],
            options.again, run)  # fmt: skip
    for row in Measurements.read(SPEED):
        if row.prompt_tokens == SHORT["prompt_tokens"]:
            print(f"{row.model} {row.precision}: {row.share(found):.0%} of the limit")


def memory(options: argparse.Namespace) -> None:
    """Measure the peak with long contexts, and hold it against the estimate.

    No time of it is kept, so it may run beside other work.
    """
    models = [model for model in options.models if not model.startswith("pocket-")]
    for context in options.contexts:
        run = partial(peak, context=context)
        measure(models, options.precisions, context - 4, options.again, run)
    print(against_estimate(Measurements.read(SPEED)))


def accuracy(options: argparse.Namespace) -> None:
    """Measure the right answers of the pocket model at every precision."""
    problems = precision_costs.skill_problems(options.problems, seed=2026)
    costs = precision_costs.compare(
        "pocket-qwen3", problems, options.precisions, max_new_tokens=160
    )
    costs.save(ACCURACY)
    print(costs, costs.skills(), sep="\n\n")


PARTS = {"speed": speed, "memory": memory, "accuracy": accuracy}


def main() -> None:
    """Measure the parts that are asked for, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS)
    parser.add_argument("--contexts", nargs="+", type=int, default=[1024, 8192])
    parser.add_argument("--problems", type=int, default=300, help="of each skill")
    parser.add_argument("--again", action="store_true", help="also what is there")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{unknown.pop()} is not one of {', '.join(PARTS)}")
    DATA.mkdir(exist_ok=True)
    for part in options.parts or PARTS:
        PARTS[part](options)


if __name__ == "__main__":
    main()
