"""Measure what watching costs: `python -m benchmarks.monitoring`.

Two ways. The observer alone, called again and again with the same finished request; and
the service with and without it, in turn, on the same requests. The first is exact and
small; the second shows that nothing was forgotten, within the noise of the machine. A
request counts as the seconds from one to the next while many are in work: that is less
than any of them takes, so the shares are the highest there are. The results are kept in
`benchmarks/results.json` with the machine's name.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import keep

CALLS = 20_000
PLACES = 16  # requests at once


def observer_seconds(observer: Callable[[Any], Any], served: Any) -> float:
    """Return the seconds of one call, the median of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(CALLS // 5):
            observer(served)
        rounds.append((time.perf_counter() - began) / (CALLS // 5))
    return statistics.median(rounds)


def seconds_of(work: Callable[[], Any], repeats: int = 20) -> float:
    """Return the median seconds of a piece of work."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def in_turn(
    observers: Sequence[Any], repeats: int, requests: int
) -> dict[str, list[float]]:
    """Return the seconds a request takes "without" and "with" observers, run by run."""
    import qwen_course as qc
    from qwen_course.service import QwenService, Sampling

    model, tokenizer = qc.load("pocket-qwen3")
    problems = qc.tasks.sums.problems(requests, seed=9)
    questions = [problem.question for problem in problems]
    greedy = Sampling(temperature=0, max_new_tokens=96)
    found: dict[str, list[float]] = {"without": [], "with": []}
    with QwenService(model, tokenizer, max_batch=PLACES, timeout=600) as service:
        service.generate_batch(questions[:PLACES], greedy)
        for turn in range(repeats):
            names = ("without", "with") if turn % 2 else ("with", "without")
            for name in names:
                service.observers[:] = observers if name == "with" else ()
                began = time.perf_counter()
                service.generate_batch(questions, greedy)
                found[name].append((time.perf_counter() - began) / requests)
    return found


def measure(repeats: int, requests: int) -> dict[str, Any]:
    """Return all figures."""
    from qwen_course.meters import machine
    from qwen_course.monitoring import QwenMonitor

    monitor = QwenMonitor()
    found = in_turn([monitor], repeats, requests)
    served = monitor.served(3600)[-1]
    each = {
        "monitor": observer_seconds(monitor, served),
        "monitor_that_looks_at_memory": observer_seconds(looking(), served),
    }
    if traces := _traces():
        each["traces"] = observer_seconds(traces, served)
    per_request = statistics.median(found["without"])
    pairs = zip(found["without"], found["with"], strict=True)
    return {
        "machine": machine(),
        "requests_at_once": PLACES,
        "seconds_per_request": per_request,
        "observer_microseconds": {n: round(1e6 * s, 1) for n, s in each.items()},
        "share_of_a_request": {n: round(s / per_request, 5) for n, s in each.items()},
        "slower_with_monitor": round(statistics.median(b / a - 1 for a, b in pairs), 4),
        "spread_of_single_runs": round(
            max(found["without"]) / min(found["without"]) - 1, 4
        ),
        "scrape_milliseconds": round(1e3 * seconds_of(monitor.exposition), 2),
        "health_milliseconds": round(1e3 * seconds_of(monitor.health), 2),
    }


def looking() -> Any:
    """Return a monitor that looks at the memory at every request, as at rare ones."""
    from qwen_course.monitoring import QwenMonitor

    seconds = itertools.count()  # a clock that goes on by a second a look
    return QwenMonitor(clock=lambda: float(next(seconds)))


def _traces() -> Any:
    """Return the observer that writes spans and throws them away, or None."""
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
    except ImportError:
        return None
    from qwen_course.telemetry import Traces

    class Nowhere(SpanExporter):
        def export(self, spans):
            return None

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Nowhere()))
    return Traces(provider)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each way, in turn")
    parser.add_argument("--requests", type=int, default=64, help="of one run")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args()
    results = measure(options.repeats, options.requests)
    print(json.dumps(results, indent=1))
    if not options.dry:
        keep(monitoring=results)


if __name__ == "__main__":
    main()
