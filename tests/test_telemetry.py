"""What leaves the process: Prometheus, traces, the GPU's counters, and their files."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
import types
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from qwen_course import monitoring, telemetry
from qwen_course.monitoring import QwenMonitor
from qwen_course.platforms.wire import free_port
from qwen_course.service import Served
from qwen_course.telemetry import Traces, phases

FOLDER = Path(__file__).parent.parent / "workshop" / "monitoring"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: apt-get install prometheus)",
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed (Debian: apt-get install prometheus)",
)


def served(finish_reason="stop", model="pocket-qwen3", begun=True, **changes):
    """A finished request of 1.5 seconds: 0.25 queue, 0.25 prefill, 1.0 decode."""
    now = time.perf_counter()
    fields = {
        "request_id": "chatcmpl-1",
        "model": model,
        "stream": True,
        "queued": now - 1.5,
        "started": now - 1.25 if begun else None,
        "first_token": now - 1.0 if begun else None,
        "ended": now,
        "prompt_tokens": 40,
        "thinking_tokens": 30 if begun else 0,
        "answer_tokens": 11 if begun else 0,
        "finish_reason": finish_reason,
    }
    return Served(**{**fields, **changes})


def samples(monitor):
    """Every exported sample as {(name, labels): value}."""
    from prometheus_client.parser import text_string_to_metric_families

    text = monitor.exposition()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(found, name, **labels):
    """The sum of all samples of a name that have these labels."""
    return sum(
        value
        for (sample, its), value in found.items()
        if sample == name and labels.items() <= dict(its).items()
    )


# Prometheus


def test_every_request_is_counted_by_its_end_and_its_tokens():
    monitor = QwenMonitor()
    for reason in ("stop", "stop", "length", "timeout"):
        monitor(served(reason, begun=reason != "timeout"))
    found = samples(monitor)
    assert total(found, "qwen_requests_total", finish_reason="stop") == 2
    assert total(found, "qwen_requests_total") == 4
    assert total(found, "qwen_tokens_total", kind="thinking") == 90
    assert total(found, "qwen_tokens_total", kind="prompt") == 160
    assert total(found, "qwen_phase_seconds_total", phase="decode") == pytest.approx(3)


def test_only_answers_have_a_time_to_first_token_and_failures_an_error_type():
    monitor = QwenMonitor()
    for reason in ("stop", "cancelled", "error"):
        monitor(served(reason))
    found = samples(monitor)
    first = "gen_ai_server_time_to_first_token_seconds_count"
    whole = "gen_ai_server_request_duration_seconds_count"
    assert total(found, first) == 1
    assert total(found, whole) == 3
    assert total(found, whole, error_type="") == 1
    assert total(found, whole, error_type="error") == 1


def test_waiting_and_running_are_read_when_prometheus_asks():
    service = types.SimpleNamespace(waiting=3, running=2)
    monitor = QwenMonitor(service=service)
    assert total(samples(monitor), "qwen_requests_waiting") == 3
    service.waiting = 7
    assert total(samples(monitor), "qwen_requests_waiting") == 7
    monitor.service = None
    assert total(samples(monitor), "qwen_requests_waiting") == 0


def test_names_that_clients_invent_do_not_fill_the_memory():
    monitor = QwenMonitor()
    for number in range(100):
        monitor(served(model=f"model-{number}"))
    labels = {dict(its).get("gen_ai_request_model") for _, its in samples(monitor)} - {
        None
    }
    assert len(labels) == telemetry.MAX_MODELS + 1
    assert "other" in labels


def test_two_monitors_do_not_count_for_each_other():
    first, second = QwenMonitor(), QwenMonitor()
    first(served())
    assert total(samples(second), "qwen_requests_total") == 0


def test_the_names_are_those_of_the_conventions():
    semconv = pytest.importorskip("opentelemetry.semconv._incubating.metrics")
    module = importlib.import_module(f"{semconv.__name__}.gen_ai_metrics")
    known = {value.replace(".", "_") for name, value in vars(module).items()
             if name.startswith("GEN_AI") and isinstance(value, str)}  # fmt: skip
    monitor = QwenMonitor()
    monitor(served())
    ours = {
        re.sub(r"(_seconds)?_(bucket|count|sum|created)$", "", name)
        for name, _ in samples(monitor)
        if name.startswith("gen_ai")
    }
    assert ours
    assert ours <= known


def test_the_form_is_the_one_that_is_asked_for():
    monitor = QwenMonitor()
    monitor(served())
    plain, kind = monitor.exposition()
    assert kind.startswith("text/plain")
    assert b"# TYPE qwen_requests_total counter" in plain
    text, kind = monitor.exposition("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_without_the_package_all_but_the_export_works(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monitor = QwenMonitor()
    monitor(served())
    assert monitor.metrics().requests == 1
    with pytest.raises(ImportError, match="pip install prometheus-client"):
        monitor.exposition()


# Traces


@pytest.fixture
def traced():
    """Traces, and what they exported."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    memory = importlib.import_module(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter"
    )
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    provider, exporter = sdk.TracerProvider(), memory.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    return Traces(provider), exporter


def test_a_request_is_a_span_and_its_phases_are_spans_inside(traced):
    traces, exporter = traced
    traces(served())
    *parts, whole = exporter.get_finished_spans()
    assert whole.name == "chat pocket-qwen3"
    assert [part.name for part in parts] == ["queue", "prefill", "decode"]
    assert all(part.parent.span_id == whole.context.span_id for part in parts)
    seconds = [(part.end_time - part.start_time) / 1e9 for part in parts]
    assert seconds == pytest.approx([0.25, 0.25, 1.0])
    assert (whole.start_time, whole.end_time) == (
        parts[0].start_time, parts[-1].end_time,
    )  # fmt: skip
    assert abs(whole.end_time - time.time_ns()) < 60e9  # it has a date


def test_a_span_tells_tokens_and_reasons_by_the_names_of_the_conventions(traced):
    traces, exporter = traced
    traces(served("length"))
    found = dict(exporter.get_finished_spans()[-1].attributes)
    assert found["gen_ai.usage.output_tokens"] == 41
    assert found["gen_ai.usage.reasoning.output_tokens"] == 30
    assert found["gen_ai.response.finish_reasons"] == ("length",)
    module = importlib.import_module(
        "opentelemetry.semconv._incubating.attributes.gen_ai_attributes"
    )
    known = {text for name, text in vars(module).items() if name.startswith("GEN_AI_")
             and isinstance(text, str)}  # fmt: skip
    assert set(found) <= {*known, "error.type"}


def test_a_request_that_failed_is_an_error_without_what_it_never_had(traced):
    traces, exporter = traced
    traces(served("timeout", begun=False, error="TimeoutError"))
    part, whole = exporter.get_finished_spans()
    assert part.name == "queue"
    assert whole.status.status_code.name == "ERROR"
    assert whole.attributes["error.type"] == "timeout"
    assert "gen_ai.response.time_to_first_chunk" not in whole.attributes


def test_a_request_that_ended_in_its_prefill_has_no_decode():
    one = served("cancelled", first_token=None)
    assert list(phases(one)) == ["queue", "prefill"]


# The GPU


class NoDriver(Exception):
    pass


@pytest.fixture
def driver(monkeypatch):
    """A GPU and its driver, as far as they are asked."""
    import torch

    asked = []
    nvml = types.ModuleType("pynvml")
    nvml.NVMLError = NoDriver
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: asked.append(uuid) or "handle"
    nvml.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(
        used=2**30, total=4 * 2**30
    )
    nvml.nvmlDeviceGetUtilizationRates = lambda handle: types.SimpleNamespace(gpu=37)
    nvml.nvmlDeviceGetName = lambda handle: "Some GPU"
    nvml.__spec__ = importlib.util.spec_from_loader("pynvml", None)
    nvml.asked = asked
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    properties = types.SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 2**29)
    return nvml


def test_the_driver_is_asked_about_the_gpu_that_torch_uses(driver):
    found = telemetry.current_device()
    assert driver.asked == ["GPU-1234"]
    assert (found.memory_used, found.utilization) == (2**30, 0.37)
    assert str(found) == "Some GPU: 1.0 of 4.0 GiB in use, busy 37% of the time"
    monitor = QwenMonitor()
    assert total(samples(monitor), "qwen_device_utilization_ratio") == 0.37


def test_the_peak_of_the_gpu_counts_what_pytorch_keeps_for_the_next_tensor(driver):
    monitor = QwenMonitor()
    assert total(samples(monitor), "qwen_device_peak_bytes") == 2**29
    assert "PyTorch on the GPU at most 0.50 GiB" in monitor.metrics().totals()


def test_a_driver_that_does_not_answer_is_no_error(driver):
    def fail():
        raise NoDriver

    driver.nvmlInit = fail
    assert telemetry.current_device() is None


def test_without_a_gpu_there_is_none(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert telemetry.current_device() is None
    assert not any("device" in name for name, _ in samples(QwenMonitor()))


# The files for Prometheus and Grafana


def promtool(*arguments, given=None):
    done = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, cwd=FOLDER
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return (done.stdout + done.stderr).decode()


@needs_promtool
def test_promtool_accepts_the_configuration_and_the_rules():
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "rules_test.yml")


@needs_promtool
def test_promtool_finds_nothing_odd_in_what_is_exported():
    monitor = QwenMonitor()
    monitor(served())
    assert promtool("check", "metrics", given=monitor.exposition()[0]).strip() == ""


def rules():
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))
    return [rule for group in groups["groups"] for rule in group["rules"]]


def test_every_alert_is_tried_out_or_named_as_not_and_has_a_remedy():
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    tried = (FOLDER / "rules_test.yml").read_text(encoding="utf-8")
    untried = {name for name in alerts if f"alertname: {name}\n" not in tried}
    assert untried == {"QwenWritesSlowly", "QwenRefuses"}
    for alert in alerts.values():
        assert alert["annotations"]["remedy"]
        assert alert["labels"]["severity"] in ("warning", "problem")


def test_the_alerts_have_the_limits_of_the_monitor():
    limits = monitoring.Limits()
    wanted = {
        "QwenFails": limits.failed,
        "QwenSlowToStart": limits.time_to_first_token,
        "QwenWritesSlowly": limits.time_per_output_token,
        "QwenCutOff": limits.cut_off,
        "QwenRefuses": limits.refused,
    }
    there = {rule["alert"]: rule["expr"] for rule in rules() if "alert" in rule}
    for name, limit in wanted.items():
        assert float(there[name].rpartition(">")[2]) == limit


def board():
    return json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))


def questions():
    """Every question of the dashboard and of the rules, as Prometheus gets it."""
    found = [t["expr"] for panel in board()["panels"] for t in panel["targets"]]
    found += [rule["expr"] for rule in rules()]
    return [one.replace("$__rate_interval", "10s").replace("[5m]", "[10s]")
            for one in found]  # fmt: skip


def test_every_metric_that_is_asked_for_is_exported():
    monitor = QwenMonitor()
    monitor(served())
    exported = {name for name, _ in samples(monitor)}
    gpu = {"qwen_device_utilization_ratio", "qwen_device_memory_bytes"}
    named = re.compile(r"\b(?:gen_ai|qwen|process)_[a-z_]+")
    for question in questions():
        assert set(named.findall(question)) - {"process_start_time_seconds"} <= (
            exported | gpu | {"gen_ai_request_model"}
        ), question


def test_every_panel_says_what_it_shows_and_none_covers_another():
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        assert panel["title"]
        assert len(panel["description"]) > 20
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


# A real Prometheus


def ask(port, path, **options):
    query = urllib.parse.urlencode(options)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}?{query}") as answer:
        return json.load(answer)["data"]


@pytest.fixture
def scraped(tmp_path, pocket):
    """A service that works, its monitor at /metrics, and a Prometheus that reads it."""
    from prometheus_client import start_http_server

    from qwen_course.service import QwenService

    monitor = QwenMonitor()
    server, thread = start_http_server(0, "127.0.0.1", monitor.prometheus.registry)
    target = f"127.0.0.1:{server.server_port}"
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(FOLDER / "rules.yml")],
        "scrape_configs": [
            {"job_name": "qwen", "static_configs": [{"targets": [target]}]}
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    process = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
         f"--web.listen-address=127.0.0.1:{port}"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with QwenService(
            *pocket, observers=[monitor], max_batch=4, timeout=600
        ) as service:
            monitor.service = service
            yield service, port
    finally:
        process.terminate()
        process.wait(timeout=60)
        server.shutdown()
        server.server_close()
        thread.join()


def until(condition, seconds=90):
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except OSError:
            pass  # Prometheus is still starting
        time.sleep(0.2)
    raise AssertionError(f"{condition.__name__} did not hold within {seconds} s")


@needs_prometheus
def test_a_real_prometheus_reads_a_real_run_and_answers_the_dashboard(scraped):
    from qwen_course.service import Sampling

    service, port = scraped
    greedy = Sampling(temperature=0, max_new_tokens=64)

    def up():
        found = ask(port, "/api/v1/query", query='up{job="qwen"}')["result"]
        return found and found[0]["value"][1] == "1"

    until(up)

    def answered():
        service.generate_batch(["What is 12 + 30?"] * 4, greedy)
        found = ask(
            port, "/api/v1/query",
            query='sum(rate(qwen_requests_total{finish_reason="stop"}[10s]))',
        )["result"]  # fmt: skip
        return found and float(found[0]["value"][1]) > 0

    until(answered)
    for question in questions():  # a question that Prometheus cannot read is a 400
        ask(port, "/api/v1/query", query=question)
    p95 = ask(
        port, "/api/v1/query",
        query="histogram_quantile(0.95, sum by (le) "
        "(rate(gen_ai_server_time_to_first_token_seconds_bucket[10s])))",
    )["result"]  # fmt: skip
    assert float(p95[0]["value"][1]) > 0
    loaded = ask(port, "/api/v1/rules")["groups"]
    assert {rule["health"] for group in loaded for rule in group["rules"]} <= {
        "ok", "unknown",
    }  # fmt: skip
