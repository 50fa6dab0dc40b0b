"""Take the numbers of a service elsewhere: Prometheus, traces, the GPU's own counters.

The names are those of OpenTelemetry for generative AI where it has one, in the spelling
of Prometheus (dots become underscores, units stand at the end). The conventions are
still in development, so the names stand here once. What they lack begins with `qwen_`.
Every package is optional; where one is missing, an error says how to install it.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course import meters

if TYPE_CHECKING:
    from qwen_course.monitoring import QwenMonitor
    from qwen_course.service import Served

ANSWERED = ("stop", "length", "tool_calls")
OPERATION, PROVIDER = "chat", "qwen_course"
MAX_MODELS = 20  # names that become a label; a label of free text fills the memory

# Buckets in seconds, as OpenTelemetry's conventions for generative AI give them. For
# the time per output token we add finer ones: theirs begin at 0.01 s, and a pocket
# model writes several tokens in that time.
DURATION = tuple(0.01 * 2**power for power in range(14))
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0,
               2.5, 5.0, 7.5, 10.0)  # fmt: skip
OUTPUT_TOKEN = (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.025, 0.05, 0.075, 0.1,
                0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)  # fmt: skip
TOKENS = tuple(4**power for power in range(10))


def _need(module: str, package: str, what: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"{what} needs {package}, not installed here. "
            f"Type: python -m pip install {package}"
        )


def error_type(served: "Served") -> str:
    """Return why a request got no answer, as one of a few words, or ""."""
    return "" if served.finish_reason in ANSWERED else served.finish_reason


# Prometheus


class Prometheus:
    """What Prometheus reads of one monitor, in a registry of its own.

    Raises ImportError where prometheus_client is missing.
    """

    def __init__(self, monitor: "QwenMonitor") -> None:
        _need("prometheus_client", "prometheus-client", "the export to Prometheus")
        from prometheus_client import CollectorRegistry, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, open files
        self._models: set[str] = set()
        self._histograms()
        self._counters()
        self._gauges(monitor)
        self._device_gauges()

    @classmethod
    def where_installed(cls, monitor: "QwenMonitor") -> "Prometheus | None":
        """Return an export, or None where the package is missing."""
        there = importlib.util.find_spec("prometheus_client")
        return cls(monitor) if there else None

    def _histograms(self) -> None:
        from prometheus_client import Histogram

        common = ("gen_ai_operation_name", "gen_ai_provider_name",
                  "gen_ai_request_model")  # fmt: skip

        def histogram(name: str, text: str, buckets: tuple, *labels: str) -> Any:
            return Histogram(
                name, text, (*common, *labels), buckets=buckets, registry=self.registry
            )

        self._seconds = histogram(
            "gen_ai_server_request_duration_seconds",
            "Time to the last token, by error (empty if answered).",
            DURATION, "error_type",
        )  # fmt: skip
        self._first = histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to the first token of answered requests, the queue included.",
            FIRST_TOKEN,
        )
        self._each = histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time per token after the first one, of answered requests.",
            OUTPUT_TOKEN,
        )
        self._queue = histogram(
            "qwen_queue_seconds",
            "Time before the model began with a request.",
            DURATION,
        )
        self._tokens = histogram(
            "gen_ai_client_token_usage", "Tokens of a request, input or output.",
            TOKENS, "gen_ai_token_type",
        )  # fmt: skip

    def _counters(self) -> None:
        from prometheus_client import Counter

        def counter(name: str, text: str, label: str) -> Any:
            return Counter(name, text, (label,), registry=self.registry)

        self._finished = counter(
            "qwen_requests", "Requests, by the reason of their end.", "finish_reason"
        )
        self._written = counter(
            "qwen_tokens", "Tokens: of prompts, of thinking, of answers.", "kind"
        )
        self._busy = counter(
            "qwen_phase_seconds",
            "Seconds of single requests in a phase: queue, prefill, decode.", "phase",
        )  # fmt: skip

    def _gauges(self, monitor: "QwenMonitor") -> None:
        from prometheus_client import Gauge

        def of_service(name: str) -> Callable[[], float]:
            return lambda: getattr(monitor.service, name, 0)

        self._gauge("qwen_requests_waiting", "Requests in the queue.",
                    of_service("waiting"))  # fmt: skip
        self._gauge("qwen_requests_running", "Requests in work.",
                    of_service("running"))  # fmt: skip
        self._gauge("qwen_process_peak_bytes",
                    "The most memory that the process held.",
                    meters.process_peak)  # fmt: skip
        self.canaries = Gauge(
            "qwen_canaries_right_ratio", "Canary questions answered right.",
            registry=self.registry,
        )  # fmt: skip

    def _device_gauges(self) -> None:
        if device_peak() is not None:
            self._gauge("qwen_device_peak_bytes",
                        "The most memory that PyTorch took from the GPU.",
                        lambda: device_peak() or 0)  # fmt: skip
        if current_device():
            self._gauge("qwen_device_memory_bytes",
                        "GPU memory in use, by its driver.",
                        lambda: _of_device("memory_used"))  # fmt: skip
            self._gauge("qwen_device_utilization_ratio",
                        "Part of the time in which a program ran on the GPU.",
                        lambda: _of_device("utilization"))  # fmt: skip

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a number that is read when Prometheus asks for it."""
        from prometheus_client import Gauge

        Gauge(name, text, registry=self.registry).set_function(read)

    def observe(self, served: "Served") -> None:
        """Count a finished request."""
        common = (OPERATION, PROVIDER, self._label(served.model))
        error = error_type(served)
        self._seconds.labels(*common, error).observe(served.seconds)
        self._queue.labels(*common).observe(served.queue_seconds)
        if not error:
            _observe(self._first.labels(*common), served.time_to_first_token)
            _observe(self._each.labels(*common), served.time_per_output_token)
        self._tokens.labels(*common, "input").observe(served.prompt_tokens)
        self._tokens.labels(*common, "output").observe(served.output_tokens)
        self._finished.labels(served.finish_reason).inc()
        for kind in ("prompt", "thinking", "answer"):
            self._written.labels(kind).inc(getattr(served, f"{kind}_tokens"))
        for phase, (start, end) in phases(served).items():
            self._busy.labels(phase).inc(max(0.0, end - start))

    def _label(self, model: str) -> str:
        """Return a model's name, or "other" when there have been too many names."""
        if model not in self._models and len(self._models) < MAX_MODELS:
            self._models.add(model)
        return model if model in self._models else "other"

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text of all metrics and its content type."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


def _observe(histogram: Any, value: float | None) -> None:
    if value is not None:
        histogram.observe(value)


def phases(served: "Served") -> dict[str, tuple[float, float]]:
    """Return where each phase of a request began and ended, in `perf_counter` seconds.

    Example:
        phases(served)  ->  {"queue": (0.0, 0.2), "prefill": (0.2, 0.3), "decode": ...}
    """
    if served.started is None:
        return {"queue": (served.queued, served.ended)}
    found = {"queue": (served.queued, served.started)}
    if served.first_token is None:
        return {**found, "prefill": (served.started, served.ended)}
    return {
        **found,
        "prefill": (served.started, served.first_token),
        "decode": (served.first_token, served.ended),
    }


# Traces


class Traces:
    """An observer that writes a span for each request, with a span for each phase.

    `provider` is a TracerProvider of OpenTelemetry, None the one that was set for the
    process. Spans hold numbers and names, no prompt and no answer. Raises ImportError
    where opentelemetry-sdk is missing.

    Example:
        service.observers.append(Traces(provider))
    """

    def __init__(self, provider: Any = None) -> None:
        _need("opentelemetry", "opentelemetry-sdk", "tracing")
        from opentelemetry import trace

        self.tracer = trace.get_tracer(PROVIDER, tracer_provider=provider)

    def __call__(self, served: "Served") -> None:
        """Write the spans of a finished request."""
        from opentelemetry import trace

        # The clock of a request has no date: that of the system gives it one.
        offset = time.time_ns() - time.perf_counter_ns()

        def moment(seconds: float) -> int:
            return offset + round(seconds * 1e9)

        span = self.tracer.start_span(
            f"{OPERATION} {served.model}",
            kind=trace.SpanKind.SERVER,
            start_time=moment(served.queued),
            attributes=attributes(served),
        )
        inside = trace.set_span_in_context(span)
        for phase, (start, end) in phases(served).items():
            part = self.tracer.start_span(phase, inside, start_time=moment(start))
            part.end(moment(end))
        if error := error_type(served):
            span.set_status(trace.StatusCode.ERROR, served.error or error)
        span.end(moment(served.ended))


def attributes(served: "Served") -> dict[str, Any]:
    """Return what a span tells of a request, by the names of the conventions."""
    known = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": served.model,
        "gen_ai.request.stream": served.stream,
        "gen_ai.response.id": served.request_id,
        "gen_ai.response.finish_reasons": (served.finish_reason,),
        "gen_ai.usage.input_tokens": served.prompt_tokens,
        "gen_ai.usage.output_tokens": served.output_tokens,
        "gen_ai.usage.reasoning.output_tokens": served.thinking_tokens,
        "gen_ai.response.time_to_first_chunk": served.time_to_first_token,
        "error.type": error_type(served) or None,
    }
    return {name: value for name, value in known.items() if value is not None}


# The GPU's own counters


@dataclass(frozen=True)
class Device:
    """What the driver of a GPU says: bytes of memory, and how much of the time it ran.

    `utilization` is the part of the last moments in which at least one program ran on
    the GPU. It says nothing of how much of the GPU that program used.
    """

    name: str
    memory_used: int
    memory_total: int
    utilization: float

    def __str__(self) -> str:
        used, total = self.memory_used / 2**30, self.memory_total / 2**30
        return (
            f"{self.name}: {used:.1f} of {total:.1f} GiB in use, busy "
            f"{self.utilization:.0%} of the time"
        )


def current_device() -> Device | None:
    """Ask the driver of the GPU that torch uses; None without one or without NVML."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml
    import torch

    if not torch.cuda.is_available():
        return None

    try:
        pynvml.nvmlInit()
        # By its number the driver may mean another GPU than torch does.
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        name = pynvml.nvmlDeviceGetName(handle)
    except pynvml.NVMLError:  # in a container without it, or a part of a GPU (MIG)
        return None
    return Device(str(name), int(memory.used), int(memory.total), busy)


def device_peak() -> int | None:
    """Return the most bytes that PyTorch took from the GPU, or None without one.

    Its free blocks are included: no other program can have them.
    `meters.device_peak` counts tensors only.
    """
    import torch

    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None


def _of_device(name: str) -> float:
    device = current_device()
    return getattr(device, name) if device else float("nan")
