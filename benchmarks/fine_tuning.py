"""Measure training on this machine: `python -m benchmarks.fine_tuning`.

`speed`: tokens a second of the course's settings against TRL's defaults, on the same
rows, with the right answers after the same number of rows. `memory`: the peak of
full training, LoRA and QLoRA on Qwen3-0.6B (true shape, random weights). Each in a
fresh process; kept in `benchmarks/results.json` with the machine's name.

    python -m benchmarks.fine_tuning speed     # 8 minutes on two cores
    python -m benchmarks.fine_tuning memory    # 2 minutes, 12 GB for full training
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.measure import keep, kept
from qwen_course import chat_data, fine_tuning, loading, meters
from qwen_course.benchmark import RETURN_BLOCKS, random_checkpoint
from qwen_course.evaluation import evaluate
from qwen_course.fine_tuning import Settings
from qwen_course.tasks import roman_numerals

REPEATS = 3  # odd, so that one run is the median
ROWS = 4096  # of the speed run, once through
RATE, RANK = 2.5e-3, 32  # of both, since the rows are seen once only


def material() -> list[dict[str, Any]]:
    """Return the rows of the speed run: the new skill alone, in two rounds of seeds."""
    half = ROWS // 2
    problems = [
        problem
        for seed in (1, 2)
        for problem in roman_numerals.problems(half, seed, "train", kind="to Roman")
    ]
    return chat_data.from_problems(problems)


def with_course(model, tokenizer, rows) -> tuple[int, float]:
    """Train as the course does; return tokens and seconds."""
    examples = chat_data.encode(rows, tokenizer)
    packed = chat_data.pack(examples, Settings().row_length)
    steps = -(-len(packed) // Settings().rows)
    settings = Settings(steps=steps, learning_rate=RATE)
    result = fine_tuning.train(model, tokenizer, examples, settings, live=False)
    return result.tokens, result.seconds


def with_defaults(model, tokenizer, rows) -> tuple[int, float]:
    """Train as TRL does when only the learning rate is set; one time through.

    The rows are a prompt and a completion, the form in which TRL masks the prompt.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(
        [
            {"prompt": row["messages"][:-1], "completion": row["messages"][-1:],
             "chat_template_kwargs": {"enable_thinking": False}}
            for row in rows
        ]
    )  # fmt: skip
    config = SFTConfig(
        "benchmark-trl", num_train_epochs=1, learning_rate=RATE, save_strategy="no",
        use_cpu=model.device.type == "cpu", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=data, processing_class=tokenizer
    )
    started = time.perf_counter()
    logged = fine_tuning.run(trainer)
    return int(logged[-1]["num_tokens"]), time.perf_counter() - started


def speed_of(way: str) -> dict[str, Any]:
    """Train the pocket model in one way; return its speed and what it learnt."""
    model, tokenizer = loading.load("pocket-qwen3")
    model = fine_tuning.attach_lora(model, rank=RANK)
    run = {"course": with_course, "trl": with_defaults}[way]
    tokens, seconds = run(model, tokenizer, material())
    problems = roman_numerals.problems(200, seed=7, kind="to Roman")
    score = evaluate(model, tokenizer, problems, thinking=False, progress=False).score
    return {"way": way, "tokens": tokens, "seconds": round(seconds, 1),
            "tokens_per_second": round(tokens / seconds), "right": score.right,
            "of": score.total}  # fmt: skip


def memory_of(method: str) -> dict[str, Any]:
    """Train two steps of 512 tokens; return the peaks without Python and libraries.

    Loading in 4 bits has a peak of its own: the weights arrive in bf16.
    """
    folder = random_checkpoint("Qwen3-0.6B")
    import peft  # noqa: F401
    import torch
    import trl  # noqa: F401

    examples = [
        chat_data.Example(ids, ids)
        for ids in torch.randint(0, 150_000, (4, 512)).tolist()
    ]
    base = meters.process_bytes()
    precision = "nf4" if method == "qlora" else "bf16"
    model, tokenizer = loading.load(folder, precision)
    if method == "full":
        model.float().requires_grad_(True)  # fp32 weights, computed in bf16
    else:
        model = fine_tuning.attach_lora(model, rank=16)
    loaded = meters.process_peak() - base
    meters.leave_weight_files()
    meters.reset_peaks()
    settings = Settings(steps=2, rows=1, row_length=512, learning_rate=1e-4,
                        checkpointing=True, log_every=1)  # fmt: skip
    result = fine_tuning.train(model, tokenizer, examples, settings, live=False)
    return {"method": method, "loading_peak_bytes": loaded,
            "training_peak_bytes": meters.process_peak() - base,
            "trained": fine_tuning.trained_parameters(model),
            "tokens_per_second": round(result.tokens_per_second, 1)}  # fmt: skip


PARTS = {"speed": (speed_of, ("trl", "course")),
         "memory": (memory_of, ("lora", "qlora", "full"))}  # fmt: skip


def main() -> None:
    """Measure the parts that are asked for, each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure, _ = PARTS[options.parts[0]]
        print("RESULT", json.dumps(measure(options.one)))
        return
    for part in options.parts or PARTS:
        found = median(part) if part == "speed" else once(part)
        print(json.dumps(found, indent=1))
        rows = {part: found, "machine": meters.machine()}
        keep(fine_tuning=kept().get("fine_tuning", {}) | rows)


def once(part: str) -> list[dict[str, Any]]:
    """Measure each way of a part."""
    return [_apart(part, way) for way in PARTS[part][1]]


def median(part: str) -> list[dict[str, Any]]:
    """Measure the ways in turn, several times; return the run of median speed of each.

    In turn, because a shared machine is faster in one minute than in the next.
    """
    rounds = [once(part) for _ in range(REPEATS)]
    found = []
    for runs in zip(*rounds, strict=True):
        speeds = sorted(run["tokens_per_second"] for run in runs)
        middle = next(
            run for run in runs if run["tokens_per_second"] == speeds[REPEATS // 2]
        )
        found.append(middle | {"all_tokens_per_second": speeds})
    return found


def _apart(part: str, way: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.fine_tuning", part, "--one", way]
    environment = os.environ | (RETURN_BLOCKS if part == "memory" else {})
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr.strip().splitlines()[-1]}")
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


if __name__ == "__main__":
    main()
