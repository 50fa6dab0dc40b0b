"""Watch a service: how long its users wait, how fast it writes, what it holds.

`QwenMonitor` is told of every finished request and keeps the latest of them, numbers
only: no prompt and no answer. `metrics` sums a window of them up, `health` says what is
wrong and what to do. `telemetry` takes the same numbers to Prometheus and to traces.
"""

import math
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course import meters
from qwen_course.chat import chat
from qwen_course.doctor import COLUMNS, Check
from qwen_course.memory import gib
from qwen_course.tables import Row, as_html, as_text
from qwen_course.telemetry import (
    ANSWERED,
    Device,
    Prometheus,
    current_device,
    device_peak,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from qwen_course.messages import Message
    from qwen_course.service import Served

FAILED = ("timeout", "error")
KEPT = 10_000  # requests, the latest ones
SAMPLE_SECONDS = 0.5  # between two looks at the process's memory
LEAST_SAMPLES = 8  # of memory, to tell a leak from a warm-up
LEAST_REQUESTS = 5  # to speak of a share of them

Samples = Sequence[tuple[float, int]]  # moments in seconds, bytes


# Numbers of many requests


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that a `share` of all values does not exceed.

    This is the nearest rank: always a value that was measured, never one between two.
    NaN without values. Raises ValueError for a share outside 0 to 1.

    >>> percentile([1, 2, 3, 4], 0.5), percentile([1, 2, 3, 4], 0.95)
    (2, 4)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; give a part of 1, such as 0.95.")
    ranked = sorted(values)
    if not ranked:
        return math.nan
    return ranked[math.ceil(round(share * len(ranked), 9)) - 1]


@dataclass(frozen=True)
class Spread:
    """A number of many requests in short; NaN where none has it."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        """Sum up the values that are there.

        >>> Spread.of([0.1, None, 0.3]).mean
        0.2
        """
        known = sorted(value for value in values if value is not None)
        mean = statistics.fmean(known) if known else math.nan
        shares = [percentile(known, share) for share in (0.5, 0.95, 0.99)]
        return cls(len(known), mean, *shares)


@dataclass(frozen=True)
class Memory:
    """Bytes that the process holds and held at most, and the same of its GPU.

    subtle: `device_peak` is what PyTorch took from the GPU at most, its free blocks
    included, but not what CUDA itself and other programs hold. The driver counts all
    (`device`), but keeps no peak.
    """

    process: int
    process_peak: int
    device_peak: int | None = None
    device: Device | None = None

    @classmethod
    def now(cls) -> "Memory":
        """Look at this process and its GPU."""
        held, most = meters.process_bytes(), meters.process_peak()
        return cls(held, most, device_peak(), current_device())


@dataclass(frozen=True, repr=False)
class PerformanceMetrics:
    """What the requests of a window amount to.

    `finished` counts how they ended, `errors` why those without an answer did. The
    times are seconds; the rates, tokens a second of single requests: `prefill_rate`
    reads the prompt, `decode_rate` writes after the first token. `tokens_per_second` is
    the throughput of all together.
    """

    window: float
    finished: dict[str, int]
    errors: dict[str, int]
    time_to_first_token: Spread
    time_per_output_token: Spread
    seconds: Spread
    queue_seconds: Spread
    prefill_rate: Spread
    decode_rate: Spread
    prompt_tokens: int
    thinking_tokens: int
    answer_tokens: int
    tokens_per_second: float
    memory: Memory | None = None

    @property
    def requests(self) -> int:
        """How many requests ended in the window."""
        return sum(self.finished.values())

    @property
    def requests_per_second(self) -> float:
        """How many requests ended a second, however they ended."""
        return self.requests / self.window if self.window > 0 else 0.0

    @property
    def thinking_share(self) -> float:
        """Which part of the written tokens was thinking; NaN if none was written."""
        written = self.thinking_tokens + self.answer_tokens
        return self.thinking_tokens / written if written else math.nan

    def share(self, *reasons: str) -> float:
        """Return which part of the requests ended for one of these reasons."""
        ended = sum(self.finished.get(reason, 0) for reason in reasons)
        return ended / self.requests if self.requests else 0.0

    def rows(self) -> list[Row]:
        """Return a row of texts for each measure: its median and its percentiles."""
        times = {
            "time to first token": self.time_to_first_token,
            "time per output token": self.time_per_output_token,
            "whole request": self.seconds,
            "in the queue": self.queue_seconds,
        }
        rates = {"prefill": self.prefill_rate, "decode": self.decode_rate}
        rows = [_row(name, spread, 1000, "ms") for name, spread in times.items()]
        return rows + [_row(name, rate, 1, "tokens/s") for name, rate in rates.items()]

    def totals(self) -> str:
        """Return the numbers of all requests together, as one line."""
        ended = ", ".join(f"{number} {why}" for why, number in self.finished.items())
        line = (
            f"{self.requests} requests in {self.window:.0f} s ({ended or 'none'}), "
            f"{self.tokens_per_second:.0f} tokens/s"
        )
        if self.memory:
            line += f", process {gib(self.memory.process)}"
            line += f", at most {gib(self.memory.process_peak)}"
        if self.memory and self.memory.device_peak is not None:
            line += f"; PyTorch on the GPU at most {gib(self.memory.device_peak)}"
        if self.memory and self.memory.device:
            line += f"; {self.memory.device}"
        return line

    def __str__(self) -> str:
        return f"{as_text(HEADER, self.rows())}\n{self.totals()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.totals(), HEADER, self.rows())


HEADER = ("measure", "p50", "p95", "p99", "unit", "requests")


def _row(name: str, spread: Spread, scale: float, unit: str) -> Row:
    """Write a spread; of too few values a high percentile is only their largest."""

    def shown(value: float, least: int) -> str:
        return f"{scale * value:,.1f}" if spread.count >= least else "-"

    texts = shown(spread.p50, 1), shown(spread.p95, 20), shown(spread.p99, 100)
    return (name, *texts, unit, f"{spread.count}")


def summarize(
    served: "Iterable[Served]", window: float, memory: Memory | None = None
) -> PerformanceMetrics:
    """Sum up finished requests; `window` is the seconds that they came from.

    A request that ran out of time counts with the time it waited: without it, a
    service that answers nobody for a minute would look quick. Refused and cancelled
    ones have no time that says anything about the service.
    """
    served = list(served)
    answered = [one for one in served if one.finish_reason in ANSWERED]
    late = [one for one in served if one.finish_reason == "timeout"]
    first = [one.time_to_first_token for one in answered]
    first += [one.time_to_first_token or one.seconds for one in late]
    written = sum(one.output_tokens for one in served)
    return PerformanceMetrics(
        window=window,
        finished=dict(Counter(one.finish_reason for one in served)),
        errors=dict(Counter(one.error for one in served if one.error)),
        time_to_first_token=Spread.of(first),
        time_per_output_token=Spread.of(one.time_per_output_token for one in answered),
        seconds=Spread.of(one.seconds for one in answered + late),
        queue_seconds=Spread.of(one.queue_seconds for one in answered + late),
        prefill_rate=Spread.of(one.prefill_rate for one in answered),
        decode_rate=Spread.of(one.decode_rate for one in answered),
        prompt_tokens=sum(one.prompt_tokens for one in served),
        thinking_tokens=sum(one.thinking_tokens for one in served),
        answer_tokens=sum(one.answer_tokens for one in served),
        tokens_per_second=written / window if window > 0 else 0.0,
        memory=memory,
    )


# Memory over time


@dataclass(frozen=True)
class Growth:
    """How much memory grew after the warm-up: bytes, and the part of what was held."""

    bytes: int
    share: float
    seconds: float


def growth(samples: Samples) -> Growth | None:
    """Compare the second quarter of some samples with the last one, by their medians.

    The first quarter is the warm-up: caches fill, threads start. None with too few.

    >>> growth([(second, 100 + second) for second in range(12)])
    Growth(bytes=6, share=0.057692307692307696, seconds=6)
    """
    if len(samples) < LEAST_SAMPLES:
        return None
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    before, after = (
        round(statistics.median(size for _, size in part)) for part in (early, late)
    )
    moments = [
        statistics.median(moment for moment, _ in part) for part in (early, late)
    ]
    seconds = round(moments[1] - moments[0], 3)
    return Growth(after - before, (after - before) / max(before, 1), seconds)


# Health


@dataclass(frozen=True)
class Limits:
    """What a service should keep to: seconds at the 95th percentile, and shares.

    The defaults suit a chat: nobody likes to wait two seconds for the first word, and
    people read some ten tokens a second.
    """

    time_to_first_token: float = 2.0
    time_per_output_token: float = 0.1
    failed: float = 0.01
    refused: float = 0.05
    cut_off: float = 0.2
    memory_growth: float = 0.05
    device_memory: float = 0.95


@dataclass(frozen=True, repr=False)
class Health:
    """All checks, each with its reason and a remedy; a table in a notebook."""

    checks: list[Check]

    @property
    def status(self) -> str:
        """Return "healthy", "degraded" (a warning) or "unhealthy" (a problem)."""
        found = {check.status for check in self.checks}
        if "problem" in found:
            return "unhealthy"
        return "degraded" if "warning" in found else "healthy"

    @property
    def wrong(self) -> list[Check]:
        """The checks that found something."""
        return [check for check in self.checks if check.status != "ok"]

    def __str__(self) -> str:
        cells = ((one.name, one.status, one.detail) for one in self.checks)
        remedies = [f"{one.name}: {one.remedy}" for one in self.wrong]
        return "\n".join([as_text(COLUMNS[:3], cells), "", self.status, *remedies])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(one.name, one.status, one.detail, one.remedy) for one in self.checks]
        return as_html(self.status, COLUMNS, rows)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, as `/health` of a server sends it."""
        return {"status": self.status, "checks": [vars(one) for one in self.checks]}


def check_failures(metrics: PerformanceMetrics, limits: Limits) -> Check:
    """Are there requests that got no answer, and through whose fault?"""
    share, name = metrics.share(*FAILED), "failures"
    detail = f"{share:.1%} of {metrics.requests} requests"
    if share <= limits.failed:
        return Check(name, "ok", detail)
    if metrics.finished.get("timeout", 0) > metrics.finished.get("error", 0):
        remedy = (
            "Most ran out of time: let fewer in (max_waiting), or add a replica. "
            "If nothing is answered at all, restart the service."
        )
    else:
        remedy = "Look at the error of the latest one: monitor.latest_error()."
    return Check(name, "problem", detail, remedy)


def check_refusals(metrics: PerformanceMetrics, limits: Limits) -> Check:
    """Is the queue so full that requests are turned away?

    Refusals of requests that nobody could answer, too long ones for instance, say
    nothing of the service.
    """
    full, name = metrics.errors.get("ServiceFull", 0), "refusals"
    detail = f"{full} of {metrics.requests} requests found the queue full"
    if full <= limits.refused * metrics.requests:
        return Check(name, "ok", detail)
    remedy = "More arrives than can be answered: add a replica, or lower the limits."
    return Check(name, "warning", detail, remedy)


def check_first_token(metrics: PerformanceMetrics, limits: Limits) -> Check:
    """Do users wait too long for the first word, and is it the queue or the prompt?"""
    name, spread = "first token", metrics.time_to_first_token
    if not spread.count:
        return Check(name, "ok", "no request has one yet")
    waits = metrics.queue_seconds.p95
    detail = f"p95 {spread.p95:.2f} s, of it {waits:.2f} s in the queue"
    if spread.p95 <= limits.time_to_first_token:
        return Check(name, "ok", detail)
    if metrics.time_per_output_token.p95 > limits.time_per_output_token:
        remedy = "Every pass of the model takes long, so all wait: see writing."
    elif waits > spread.p95 / 2:
        remedy = "They wait in the queue: more at once (max_batch), or a replica."
    else:
        remedy = (
            "Reading the prompts takes long: shorten them, or look who keeps the "
            "processor busy."
        )
    return Check(
        name, "warning", f"{detail}, limit {limits.time_to_first_token:.2g} s", remedy
    )


def check_writing(metrics: PerformanceMetrics, limits: Limits) -> Check:
    """Does the text come too slowly?"""
    name, spread = "writing", metrics.time_per_output_token
    if not spread.count:
        return Check(name, "ok", "no request wrote two tokens yet")
    detail = f"p95 {1000 * spread.p95:.1f} ms a token"
    if spread.p95 <= limits.time_per_output_token:
        return Check(name, "ok", detail)
    remedy = (
        "Each step takes long: a smaller max_batch, fewer bits, a faster machine; or "
        "something else is using it."
    )
    limit = f"limit {1000 * limits.time_per_output_token:.0f} ms"
    return Check(name, "warning", f"{detail}, {limit}", remedy)


def check_cut_off(metrics: PerformanceMetrics, limits: Limits) -> Check:
    """Are answers cut off because the model does not come to an end?"""
    share, name = metrics.share("length"), "cut off"
    detail = f"{share:.0%} of {metrics.requests} requests"
    if share <= limits.cut_off or metrics.requests < LEAST_REQUESTS:
        return Check(name, "ok", detail)
    remedy = (
        "Answers reach max_new_tokens: raise it. If that is new, suspect the chat "
        "template or the end token: a model that sees a wrong one does not stop."
    )
    return Check(name, "warning", detail, remedy)


def check_growth(found: Growth | None, limits: Limits) -> Check:
    """Does the process hold more and more?"""
    name = "memory"
    if found is None:
        return Check(name, "ok", "watched too shortly to tell")
    detail = (
        f"{found.bytes / 2**20:+,.0f} MiB ({found.share:+.1%}) in {found.seconds:.0f} s"
    )
    if found.share <= limits.memory_growth:
        return Check(name, "ok", detail)
    remedy = (
        "It grows with the requests: look for a list or a dictionary that keeps every "
        "one (tracemalloc names the line). Until then restart in turn."
    )
    return Check(name, "problem", detail, remedy)


def check_device(memory: Memory, limits: Limits) -> Check | None:
    """Is the GPU's memory nearly full? None without a GPU that tells."""
    device = memory.device
    if device is None:
        return None
    share, name = device.memory_used / device.memory_total, "device"
    if share <= limits.device_memory:
        return Check(name, "ok", str(device))
    remedy = "Nearly full: smaller batches or a smaller KV cache (lesson 06)."
    return Check(name, "warning", str(device), remedy)


# The monitor


class QwenMonitor:
    """Keeps what a service tells of its requests, and sums it up.

    It is an observer: `QwenService(..., observers=[monitor])`. `window` is in seconds.
    `service` gives it the number of waiting requests. `sources` are functions that
    return further checks, as `quality` has them. `clock` and `held` (the bytes of the
    process) can be replaced, for trying it out.

    Example:
        monitor = QwenMonitor()
        service = QwenService(model, tokenizer, observers=[monitor])
        monitor.metrics().time_to_first_token.p95
        monitor.health().status  ->  "healthy"
    """

    def __init__(
        self,
        window: float = 300.0,
        limits: Limits | None = None,
        service: Any = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        held: Callable[[], int] = meters.process_bytes,
    ) -> None:
        if window <= 0:
            raise ValueError(
                f"window is {window}; give the seconds to sum up, above 0."
            )
        self.window, self.limits, self.service = window, limits or Limits(), service
        self.clock, self.held = clock, held
        self.sources: list[Callable[[], Sequence[Check]]] = []
        self._served: deque[Served] = deque(maxlen=KEPT)
        self._samples: deque[tuple[float, int]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self.prometheus = Prometheus.where_installed(self)

    def __call__(self, served: "Served") -> None:
        """Note a finished request; it may come from any thread."""
        with self._lock:
            self._served.append(served)
            self._sample()
        if self.prometheus:
            self.prometheus.observe(served)

    def _sample(self) -> None:
        """Look at the memory, not more often than SAMPLE_SECONDS allow."""
        now = self.clock()
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((now, self.held()))

    def served(self, window: float | None = None) -> "list[Served]":
        """Return the requests that ended in the last `window` seconds."""
        since = self.clock() - (window or self.window)
        with self._lock:
            return [one for one in self._served if one.ended >= since]

    def samples(self, window: float | None = None) -> list[tuple[float, int]]:
        """Return (moment, bytes of the process) of the last `window` seconds."""
        since = self.clock() - (window or self.window)
        with self._lock:
            self._sample()
            return [one for one in self._samples if one[0] >= since]

    def metrics(
        self, window: float | None = None, last: int | None = None
    ) -> PerformanceMetrics:
        """Sum up the last `window` seconds, or of them the `last` requests.

        A window that is longer than the service has been at work ends where that began.
        """
        chosen = self.served(window)[-last if last else 0 :]
        now = self.clock()
        began = min((one.queued for one in chosen), default=now)
        covered = now - began if last else min(window or self.window, now - began)
        return summarize(chosen, covered, Memory.now())

    def health(self, window: float | None = None) -> Health:
        """Look at everything; every check has a reason, and a remedy where needed."""
        metrics, limits = self.metrics(window), self.limits
        checks = [
            check(metrics, limits)
            for check in (check_failures, check_refusals, check_first_token,
                          check_writing, check_cut_off)
        ]  # fmt: skip
        checks.append(check_growth(growth(self.samples(window)), limits))
        if metrics.memory and (device := check_device(metrics.memory, limits)):
            checks.append(device)
        for source in self.sources:
            checks += source()
        return Health(checks)

    def latest_error(self) -> str | None:
        """Return what the latest failed request said, or None."""
        failed = [one for one in self.served() if one.finish_reason in FAILED]
        return (failed[-1].error or failed[-1].finish_reason) if failed else None

    def measure(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        messages: "str | Sequence[Message]",
        **options: Any,
    ) -> "Served":
        """Ask a model once with `chat`, note it like any request, and return it.

        `options` are those of `chat`. For a model without a service around it.
        """
        from qwen_course.service import Served

        queued = self.clock()
        reply = chat(model, tokenizer, messages, **options)
        usage = reply.usage
        served = Served(
            request_id=f"measure-{len(self._served)}",
            model=str(model.config.name_or_path).rpartition("/")[2] or "model",
            stream=False,
            queued=queued,
            started=queued,
            first_token=queued + usage.time_to_first_token,
            ended=queued + usage.seconds,
            prompt_tokens=usage.prompt_tokens,
            thinking_tokens=usage.thinking_tokens,
            answer_tokens=usage.answer_tokens,
            finish_reason="stop" if reply.stopped == "end" else "length",
        )
        self(served)
        return served

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return what Prometheus reads, and its content type, as `/metrics` sends it.

        `accept` is the header of the request. Raises ImportError where
        prometheus_client is missing.
        """
        if self.prometheus is None:
            self.prometheus = Prometheus(self)  # tells what to install
        return self.prometheus.exposition(accept)

    def plot(self, window: float | None = None) -> "Figure":
        """Draw the waits of each request over time, and the memory under them."""
        return plot(self.served(window), self.samples(window))


COLOURS = {"stop": "#0072B2", "tool_calls": "#56B4E9", "length": "#E69F00",
           "timeout": "#D55E00", "error": "#000000", "refused": "#CC79A7",
           "cancelled": "#999999"}  # fmt: skip


def plot(served: "Sequence[Served]", samples: Samples) -> "Figure":
    """Draw each request by its end and its seconds, and the memory of the process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    moments = [one.ended for one in served] + [moment for moment, _ in samples]
    zero = min(moments, default=0.0)
    for reason in dict.fromkeys(one.finish_reason for one in served):
        chosen = [one for one in served if one.finish_reason == reason]
        ends = [one.ended - zero for one in chosen]
        upper.scatter(ends, [one.seconds for one in chosen], s=12, label=reason,
                      color=COLOURS[reason])  # fmt: skip
    upper.set(ylabel="whole request (s)", ylim=(0, None))
    if served:
        upper.set_title(_finding(served), fontsize=10)
        upper.legend(fontsize=8)
    sizes = [size / 2**20 for _, size in samples]
    lower.plot([moment - zero for moment, _ in samples], sizes, color="#009E73")
    top = 1.2 * max(sizes, default=1)  # a flat line must not hide under the frame
    lower.set(xlabel="seconds", ylabel="memory (MiB)", ylim=(0, top))
    return figure


def _finding(served: "Sequence[Served]") -> str:
    answered = [one for one in served if one.finish_reason in ANSWERED]
    slowest = percentile([one.seconds for one in answered], 0.95)
    return (
        f"{len(answered)} of {len(served)} requests answered, 95% of them within "
        f"{slowest:.2f} s"
    )
