"""Measure the course on this machine: `python -m benchmarks.measure`.

Import and load times are medians over fresh processes, reply times medians over calls
in one process. The figures are kept in `benchmarks/results.json` with the machine's
name; `--setup` also clones the course, sets it up from nothing and times that, and
`--suite` times the whole test suite.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results.json"

IMPORT = "import time; t = time.perf_counter(); import qwen_course; "
IMPORT += "print(time.perf_counter() - t)"
LOAD = "import time, torch{more}; import qwen_course as qc; t = time.perf_counter(); "
LOAD += "qc.load('pocket-qwen3'); print(time.perf_counter() - t)"
REPLIES = """
import json, statistics
import qwen_course as qc
model, tokenizer = qc.load("pocket-qwen3")
question = "What is 38 + 47 + 59 + 86 + 24?"
cold = qc.chat(model, tokenizer, question, sampling="greedy").usage
warm = [qc.chat(model, tokenizer, question, sampling="greedy").usage for _ in range(9)]
print(json.dumps({
    "time_to_first_token_cold_seconds": cold.time_to_first_token,
    "time_to_first_token_seconds": statistics.median(
        u.time_to_first_token for u in warm),
    "decode_tokens_per_second": statistics.median(u.tokens_per_second for u in warm),
}))
"""


def in_a_fresh_process(code: str) -> str:
    """Run `code` in a new Python and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def median_seconds(code: str, repeats: int = 7) -> dict[str, float]:
    """Return median and spread of the seconds that `code` prints, one process each."""
    in_a_fresh_process(code)  # fills the disk cache
    times = [float(in_a_fresh_process(code)) for _ in range(repeats)]
    return {
        "median_seconds": round(statistics.median(times), 3),
        "fastest": round(min(times), 3),
        "slowest": round(max(times), 3),
    }


def machine() -> dict[str, str | int | None]:
    """Name the machine the figures were taken on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((x.split(": ")[1] for x in lines if "model name" in x), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def lessons() -> dict[str, dict]:
    """Return what the notebook tool measured of each lesson (seconds, peak memory)."""
    from qwen_course import notebooks

    return {
        path.stem: notebooks.read(path).metadata["qwen_course"]["measured"]
        for path in notebooks.lessons()
    }


def set_up_from_nothing() -> dict[str, float]:
    """Clone the course into an empty folder, set it up, and time both runs."""
    sys.path.insert(0, str(ROOT))
    import course

    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "course"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            course.set_up(clone)
            times.append(time.perf_counter() - start)
        files = (clone / ".venv").rglob("*")
        size = sum(f.stat().st_size for f in files if f.is_file())
    return {
        "first_run_seconds": round(times[0], 1),
        "second_run_seconds": round(times[1], 2),
        "venv_megabytes": round(size / 1e6),
    }


def suite_seconds() -> float:
    """Return how long `python course.py test` takes once everything is installed."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "course.py", "test"], cwd=ROOT, check=True)
    return round(time.perf_counter() - start)


def kept() -> dict[str, Any]:
    """Return all figures that were kept before, by name."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}


def keep(**figures: Any) -> None:
    """Keep figures under their names, beside all others."""
    text = json.dumps(kept() | figures, indent=1) + "\n"
    RESULTS.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", action="store_true", help="set-up from nothing")
    parser.add_argument("--suite", action="store_true", help="the test suite")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "machine": machine(),
        "import_qwen_course": median_seconds(IMPORT),
        "load_after_torch": median_seconds(LOAD.format(more="")),
        "load_after_transformers": median_seconds(
            LOAD.format(more="; from transformers import Qwen3ForCausalLM")
        ),
        "replies": json.loads(in_a_fresh_process(REPLIES)),
        "lessons": lessons(),
    }
    if options.setup:
        results["set_up"] = set_up_from_nothing()
    if options.suite:
        results["test_suite_seconds"] = suite_seconds()
    keep(**results)
    print(json.dumps(kept(), indent=1))


if __name__ == "__main__":
    main()
