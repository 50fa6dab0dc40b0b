"""The monitor: right definitions, and health that names the fault and the remedy."""

import math
import threading

import pytest

from qwen_course import monitoring
from qwen_course.doctor import Check
from qwen_course.monitoring import (
    Limits,
    QwenMonitor,
    Spread,
    growth,
    percentile,
    summarize,
)
from qwen_course.service import Served

MB = 10**6


def request(
    queued=0.0, wait=0.1, prefill=0.2, gap=0.01, answer=11, thinking=0, prompt=40,
    finish_reason="stop", error=None,
):  # fmt: skip
    """A finished request, by the seconds of its phases."""
    started = queued + wait
    first = started + prefill
    return Served(
        "r", "pocket-qwen3", False, queued, started, first,
        first + gap * (answer + thinking - 1), prompt, thinking, answer, finish_reason,
        error,
    )  # fmt: skip


def unstarted(queued=0.0, ended=60.0, finish_reason="timeout", error=None):
    """A request that the model never began with."""
    return Served("r", "m", False, queued, None, None, ended, 40, 0, 0, finish_reason,
                  error)  # fmt: skip


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


def monitor(held=lambda: 100 * MB, **options):
    return QwenMonitor(clock=Clock(), held=held, **options)


# Definitions


def test_a_percentile_is_a_value_that_was_measured():
    values = [5, 1, 4, 2, 3]
    assert percentile(values, 0.5) == 3
    assert percentile(values, 0.95) == percentile(values, 1.0) == 5
    assert percentile(range(1, 101), 0.95) == 95
    assert (
        percentile(range(1, 101), 0.07) == 7
    )  # though 0.07 * 100 is 7.000000000000001
    assert math.isnan(percentile([], 0.5))
    with pytest.raises(ValueError, match="such as 0.95"):
        percentile(values, 95)


def test_the_tail_is_seen_where_the_mean_hides_it():
    spread = Spread.of([0.1] * 94 + [9.0] * 6)
    assert (spread.p50, spread.p95) == (0.1, 9.0)
    assert spread.mean < 1


def test_the_phases_of_a_request_are_kept_apart():
    metrics = summarize([request(wait=0.5, prefill=0.2, gap=0.01, answer=11)], 10)
    assert metrics.queue_seconds.p50 == pytest.approx(0.5)
    assert metrics.time_to_first_token.p50 == pytest.approx(0.7)
    assert metrics.time_per_output_token.p50 == pytest.approx(0.01)
    assert metrics.seconds.p50 == pytest.approx(0.8)
    assert metrics.prefill_rate.p50 == pytest.approx(40 / 0.2)
    assert metrics.decode_rate.p50 == pytest.approx(100)


def test_a_longer_prompt_does_not_change_the_decode_rate():
    short, long = (
        summarize([request(prefill=seconds)], 10).decode_rate for seconds in (0.1, 9.0)
    )
    assert short.p50 == pytest.approx(long.p50)


def test_throughput_counts_the_tokens_of_all_requests_together():
    metrics = summarize([request(answer=20, thinking=30) for _ in range(8)], 4.0)
    assert metrics.tokens_per_second == 100
    assert metrics.requests_per_second == 2
    assert metrics.thinking_share == pytest.approx(0.6)


def test_a_request_that_ran_out_of_time_counts_with_its_wait():
    metrics = summarize([request(), unstarted(ended=60.0)], 60)
    assert metrics.time_to_first_token.p99 == 60
    assert metrics.queue_seconds.p99 == 60
    assert metrics.finished == {"stop": 1, "timeout": 1}


def test_refused_and_cancelled_requests_do_not_make_a_service_look_quick():
    turned_away = [unstarted(ended=0.001, finish_reason="refused") for _ in range(99)]
    metrics = summarize([request(wait=3.0), *turned_away], 60)
    assert metrics.time_to_first_token.count == 1
    assert metrics.share("refused") == 0.99


def test_a_table_shows_no_percentile_that_so_few_requests_cannot_have():
    row = summarize([request() for _ in range(30)], 60).rows()[0]
    assert row[0] == "time to first token"
    assert "-" not in row[1:3]
    assert row[3] == "-"  # the 99th of 30 would be the largest one


def test_a_window_without_requests_is_no_error():
    metrics = monitor().metrics()
    assert metrics.requests == 0
    assert metrics.tokens_per_second == 0
    assert "0 requests" in str(metrics)
    assert "<table>" in metrics._repr_html_()
    assert monitor().health().status == "healthy"


# Over time


def test_only_the_window_counts():
    watch = monitor(window=60)
    watch(request(queued=0))
    watch.clock.now = 100
    watch(request(queued=99))
    assert watch.metrics().requests == 1
    assert watch.metrics(window=200).requests == 2
    assert watch.metrics(window=200, last=1).requests == 1


def test_a_window_ends_where_the_service_began():
    watch = monitor(window=300)
    watch.clock.now = 2.0
    for _ in range(4):
        watch(request(queued=0, answer=50))
    assert watch.metrics().tokens_per_second == 100


def test_many_threads_may_tell_at_once():
    watch = QwenMonitor()
    ended = request(queued=watch.clock())

    def tell():
        for _ in range(200):
            watch(ended)

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(watch.served()) == 1600


def test_no_more_requests_are_kept_than_fit(monkeypatch):
    monkeypatch.setattr(monitoring, "KEPT", 10)
    watch = monitor()
    for _ in range(50):
        watch(request())
    assert len(watch.served()) == 10


def test_memory_is_looked_at_seldom():
    looks = []
    watch = monitor(held=lambda: looks.append(1) or MB)
    for _ in range(100):
        watch(request())
    assert len(looks) == 1
    watch.clock.now += monitoring.SAMPLE_SECONDS
    watch(request())
    assert len(looks) == 2


# A leak, and what is none


def test_a_warm_up_is_no_leak_and_a_leak_is_one():
    warm_up = [200, 300, 380, 400, *[400] * 12]
    leak = [400 + 5 * number for number in range(16)]
    assert growth([(n, size * MB) for n, size in enumerate(warm_up)]).share == 0
    found = growth([(n, size * MB) for n, size in enumerate(leak)])
    assert found.bytes == 40 * MB
    assert found.share > 0.05
    assert growth([(0, MB)] * 7) is None


def test_one_large_request_is_no_leak():
    sizes = [400] * 15 + [900]
    assert growth([(n, size * MB) for n, size in enumerate(sizes)]).share == 0


# Health


def health(requests, limits=None, sizes=(), sources=()):
    """What a monitor says after these requests."""
    watch = monitor(limits=limits)
    watch.sources += sources
    for served in requests:
        watch(served)
    for number, size in enumerate(sizes):
        watch._samples.append((float(number), size))
    return watch.health()


def wrong(report):
    return {check.name: check for check in report.wrong}


def test_a_good_service_is_healthy_and_every_check_says_what_it_saw():
    report = health([request() for _ in range(20)])
    assert report.status == "healthy"
    assert all(check.detail for check in report.checks)


def test_timeouts_make_it_unhealthy_and_the_remedy_is_fewer_or_more_machines():
    report = health([request() for _ in range(9)] + [unstarted()])
    assert report.status == "unhealthy"
    assert "max_waiting" in wrong(report)["failures"].remedy


def test_errors_point_to_the_latest_of_them():
    failed = request(finish_reason="error", error="RuntimeError")
    report = health([request(), failed])
    assert "latest_error" in wrong(report)["failures"].remedy
    watch = monitor()
    watch(failed)
    assert watch.latest_error() == "RuntimeError"


@pytest.mark.parametrize(
    ("phases", "word"),
    [
        ({"wait": 5.0, "prefill": 0.1}, "queue"),
        ({"wait": 0.1, "prefill": 5.0}, "prompts"),
    ],
)
def test_a_late_first_token_is_blamed_on_the_queue_or_on_the_prompt(phases, word):
    report = health([request(**phases) for _ in range(20)])
    assert list(wrong(report)) == ["first token"]
    assert word in wrong(report)["first token"].remedy


def test_a_late_start_of_a_slow_model_is_no_matter_of_the_queue():
    report = health([request(wait=5.0, gap=0.3) for _ in range(20)])
    assert list(wrong(report)) == ["first token", "writing"]
    assert "see writing" in wrong(report)["first token"].remedy


def test_slow_writing_is_told_apart_from_a_late_start():
    report = health([request(gap=0.3) for _ in range(20)])
    assert list(wrong(report)) == ["writing"]


def test_answers_that_are_cut_off_make_the_template_suspicious():
    report = health([request(finish_reason="length") for _ in range(20)])
    assert "template" in wrong(report)["cut off"].remedy
    assert health([request(finish_reason="length")]).status == "healthy"  # one is none


def test_a_full_queue_is_a_warning_and_a_bad_request_is_the_client_s():
    full = unstarted(ended=0.001, finish_reason="refused", error="ServiceFull")
    bad = unstarted(ended=0.001, finish_reason="refused", error="ValueError")
    good = [request() for _ in range(9)]
    assert list(wrong(health([*good, full]))) == ["refusals"]
    assert health([*good, bad]).status == "healthy"


def test_growing_memory_makes_it_unhealthy():
    sizes = [(400 + 10 * number) * MB for number in range(16)]
    report = health([request()], sizes=sizes)
    assert report.status == "unhealthy"
    assert "tracemalloc" in wrong(report)["memory"].remedy


def test_a_gpu_that_is_nearly_full_is_told(monkeypatch):
    from qwen_course.telemetry import Device

    gib = 2**30
    device = Device("Some GPU", 79 * gib, 80 * gib, 0.5)
    monkeypatch.setattr(monitoring, "current_device", lambda: device)
    report = health([request()])
    assert wrong(report)["device"].detail.startswith("Some GPU: 79.0 of 80.0 GiB")


def test_limits_can_be_set_and_other_sources_join_in():
    strict = Limits(time_to_first_token=0.05)
    report = health([request()], strict, sources=[lambda: [Check("own", "ok", "fine")]])
    assert list(wrong(report)) == ["first token"]
    assert report.checks[-1].name == "own"


def test_health_shows_itself_and_is_plain_data_for_a_server():
    report = health([request(gap=0.3) for _ in range(20)])
    assert str(report).endswith(wrong(report)["writing"].remedy)
    assert "degraded" in report._repr_html_()
    plain = report.as_dict()
    assert plain["status"] == "degraded"
    assert {check["name"] for check in plain["checks"]} >= {"failures", "memory"}


def test_a_window_of_no_length_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        QwenMonitor(window=0)


# With a model, with a service


def test_one_question_is_measured_without_a_service(pocket):
    watch = QwenMonitor()
    served = watch.measure(*pocket, "What is 12 + 30?", sampling="greedy")
    assert served.model == "pocket-qwen3"
    assert served.finish_reason == "stop"
    assert served.thinking_tokens > 0
    assert 0 < served.time_to_first_token < served.seconds
    assert watch.metrics().requests == 1
    assert watch.metrics().memory.process > 0


def test_a_monitor_sees_what_a_service_serves(pocket):
    from qwen_course.service import QwenService, Sampling

    watch = QwenMonitor()
    greedy = Sampling(temperature=0, max_new_tokens=64)
    with QwenService(*pocket, observers=[watch], max_batch=4, timeout=600) as service:
        watch.service = service
        replies = service.generate_batch(["What is 12 + 30?"] * 6, greedy)
    metrics = watch.metrics()
    assert metrics.finished == {"stop": 6}
    used = [reply.usage for reply in replies]
    assert metrics.answer_tokens == sum(usage.answer_tokens for usage in used)
    assert metrics.thinking_tokens == sum(usage.thinking_tokens for usage in used)
    assert metrics.time_to_first_token.p50 >= metrics.queue_seconds.p50 >= 0


def test_a_plot_shows_requests_and_memory():
    figure = monitoring.plot(
        [request(), request(finish_reason="length"), unstarted()],
        [(0.0, MB), (1.0, MB)],
    )
    upper, lower = figure.axes
    assert "2 of 3 requests answered" in upper.get_title()
    assert {text.get_text() for text in upper.get_legend().get_texts()} == {
        "stop", "length", "timeout",
    }  # fmt: skip
    assert lower.get_xlabel() == "seconds"
    assert lower.get_ylim()[1] > 1.1 * MB / 2**20
    monitoring.plot([], [])
    monitoring.plot([unstarted()], [])


# The live panel


def test_the_live_panel_shows_the_monitor_at_each_beat():
    from qwen_course.widgets import live_monitor

    watch = monitor()
    panel = live_monitor(watch)
    row, screen = panel.children
    play, seconds = row.children
    assert "healthy: 0 in work, 0 waiting" in screen.value
    for _ in range(10):
        watch(request(gap=0.3))
    play.value += 1
    assert "degraded" in screen.value
    assert "10 requests" in screen.value
    watch.clock.now = 30.0
    seconds.value = 5
    assert "0 requests" in screen.value


def test_without_a_front_end_the_panel_is_its_text():
    from qwen_course.widgets import live_monitor, monitor_view

    watch = monitor()
    watch(unstarted())
    bundle = live_monitor(watch)._repr_mimebundle_()
    assert bundle["text/plain"] == str(monitor_view(watch))
    assert bundle["text/plain"].startswith("unhealthy")
    assert "max_waiting" in bundle["text/plain"]
