"""Measuring a model: what is counted and kept. No test asserts a time."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from qwen_course import architecture, benchmark, memory
from qwen_course.benchmark import Measurement, Measurements


def measured(**given) -> Measurement:
    row = {
        "model": "m", "precision": "bf16", "device": "cpu", "threads": 2, "batch": 1,
        "prompt_tokens": 4, "new_tokens": 3, "weights_bytes": 1000, "step_bytes": 500,
        "first_token_seconds": (0.3, 0.1, 0.2), "tokens_per_second": (10.0, 30.0, 20.0),
        "process_peak_bytes": 5000, "base_bytes": 2000,
        "machine": {"processor": "P", "cores": 2, "memory_gb": 8, "gpu": None},
    }  # fmt: skip
    return Measurement(**{**row, **given})


def test_a_loaded_model_is_measured_where_it_is(tiny):
    found = benchmark.benchmark(tiny, new_tokens=5, repeats=3, name="tiny")
    assert (found.model, found.precision, found.device) == ("tiny", "fp32", "cpu")
    assert len(found.first_token_seconds) == len(found.tokens_per_second) == 3
    assert found.weights_bytes == 4 * tiny.num_parameters() + 4 * 2 * 16  # and RoPE
    assert found.process_peak_bytes > found.weights_bytes
    assert found.load_seconds is None
    assert found.machine["cores"] >= 1


def test_exactly_as_many_tokens_are_written_as_asked_for(tiny):
    tiny.generation_config.eos_token_id = list(range(0, 512, 2))  # half of them
    try:
        moments = benchmark.generate(tiny, prompt_tokens=4, new_tokens=6)
    finally:
        tiny.generation_config.eos_token_id = None
    assert len(moments) == 6
    assert moments == sorted(moments)


def test_a_fresh_process_knows_loading_and_peak():
    found = benchmark.benchmark("pocket-qwen3", "bf16", new_tokens=2, repeats=1)
    assert found.load_seconds > 0
    assert found.base_bytes < found.process_peak_bytes
    if torch.cuda.is_available():
        assert found.peak_bytes == found.device_peak_bytes
    else:
        assert found.peak_bytes == found.process_peak_bytes - found.base_bytes


def test_a_peak_grows_with_the_text_and_keeps_no_time():
    short, long = (benchmark.peak("pocket-qwen3", "bf16", context=n) for n in (16, 900))
    assert short.peak_bytes < long.peak_bytes
    assert long.tokens_per_second == ()
    assert (long.prompt_tokens, long.new_tokens) == (896, 4)
    with pytest.raises(ValueError, match="5 tokens or more"):
        benchmark.peak("pocket-qwen3", context=4)


def test_what_fails_in_the_fresh_process_is_told_here():
    with pytest.raises(ValueError, match='Did you mean "pocket-qwen3"'):
        benchmark.benchmark("pocket-qwen")


def test_a_process_that_is_killed_says_what_that_means(monkeypatch):
    monkeypatch.setattr(benchmark, "FRESH", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match="not enough memory"):
        benchmark.benchmark("pocket-qwen3")


@pytest.mark.parametrize("given", [{"new_tokens": 1}, {"repeats": 0}, {"batch": 0}])
def test_numbers_that_are_too_low_are_refused(tiny, given):
    with pytest.raises(ValueError, match="is too low"):
        benchmark.benchmark(tiny, **given)


def test_the_number_of_threads_is_put_back(tiny):
    before = torch.get_num_threads()
    found = benchmark.benchmark(tiny, new_tokens=2, repeats=1, threads=1)
    assert found.threads == 1
    assert torch.get_num_threads() == before


# Reading the numbers


def test_medians_and_shares_are_what_one_computes_by_hand():
    row = measured()
    assert (row.first_token, row.decode, row.peak_bytes) == (0.2, 20, 3000)
    assert row.limit(bandwidth=20_000) == 40
    assert row.share(bandwidth=20_000) == 0.5
    assert measured(batch=4).limit(bandwidth=20_000) == 160
    assert measured(device_peak_bytes=7).peak_bytes == 7
    assert measured(base_bytes=None).peak_bytes is None


def test_a_row_of_memory_alone_shows_no_times_and_can_be_drawn():
    rows = Measurements([measured(first_token_seconds=(), tokens_per_second=())])
    assert rows.cells(rows[0])[-3:] == ("-", "-", "-")
    assert rows.plot(bandwidth=20_000) is not None


def test_the_bandwidth_of_this_machine_is_a_number_of_bytes_a_second():
    assert benchmark.memory_bandwidth(megabytes=16, repeats=1) > 1e6


def test_a_peak_is_held_against_the_estimate_where_the_model_is_known():
    known = measured(
        model="Qwen3-0.6B", prompt_tokens=1000, new_tokens=24,
        process_peak_bytes=2000 + 1_192_099_840, load_peak_bytes=2**30,
        first_token_seconds=(), tokens_per_second=(),
    )  # fmt: skip
    check = benchmark.against_estimate([known, measured(), measured(base_bytes=None)])
    assert len(check) == 1
    assert check.cells(check[0])[:3] == ("Qwen3-0.6B", "bf16", "1,024")
    expected = memory.estimate("Qwen3-0.6B", "bf16", context=1024, prompt=1000).total
    assert check[0].estimate.total == expected
    assert check.cells(check[0])[-1] == "1.00 GiB"
    assert check.cells(check[0])[-2] == f"{expected / 1_192_099_840 - 1:+.1%}"


def test_every_stored_peak_is_within_a_tenth_of_the_estimate():
    check = benchmark.against_estimate(benchmark.stored())
    assert len(check) == 20  # two models, five precisions, two contexts
    for row in check:
        assert check.estimated(row) == pytest.approx(row.peak_bytes, rel=0.1), row


def test_measurements_are_kept_with_the_machine_and_come_back(tmp_path):
    rows = Measurements([measured(), measured(precision="nf4", load_seconds=1.5)])
    rows.save(tmp_path / "rows.json")
    assert Measurements.read(tmp_path / "rows.json") == rows
    assert json.loads((tmp_path / "rows.json").read_text())[0]["machine"]["cores"] == 2


def test_the_table_shows_medians_spread_and_machine():
    text = str(Measurements([measured(), measured(base_bytes=None)]))
    assert "20.0" in text
    assert "10.0 to 30.0" in text
    assert text.splitlines()[-1] == "P, 2 cores, 8 GB"


def test_the_picture_names_the_fastest_and_the_smallest_and_marks_the_limit():
    rows = Measurements(
        [measured(), measured(precision="nf4", weights_bytes=300,
                              tokens_per_second=(5.0,))]
    )  # fmt: skip
    left, right = rows.plot(bandwidth=20_000).axes
    assert left.get_title() == "fastest: bf16"
    assert right.get_title() == "smallest: nf4"
    assert "limit of the memory" in [t.get_text() for t in left.get_legend().texts]
    assert "tokens a second" in left.get_xlabel()


# Random checkpoints of true shape


@pytest.fixture
def small_catalogue(monkeypatch, tiny_config, tmp_path):
    """A catalogue whose one model is tiny, and an empty cache folder."""
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(architecture, "configuration", lambda name: tiny_config)


def test_a_random_checkpoint_has_the_true_shape_and_loads(small_catalogue, tiny_config):
    import qwen_course as qc

    folder = benchmark.random_checkpoint("Qwen/Tiny")
    model, tokenizer = qc.load(folder, precision="bf16", device="cpu")
    assert folder.name == "Tiny"
    assert model.config.num_hidden_layers == 3
    assert model.num_parameters() == architecture.count(tiny_config).total
    assert set(model.model.norm.weight.tolist()) == {1.0}
    assert tokenizer.convert_tokens_to_ids("</think>") == 151668


def test_a_random_checkpoint_is_written_once_and_may_have_fewer_layers(small_catalogue):
    first = benchmark.random_checkpoint("Tiny", layers=1)
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert benchmark.random_checkpoint("Tiny", layers=1) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    assert json.loads((first / "config.json").read_text())["num_hidden_layers"] == 1
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_full_disk_is_said_before_anything_is_written(small_catalogue, monkeypatch):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(OSError, match=r"needs .* GB on the disk.*layers=4"):
        benchmark.random_checkpoint("Tiny")


def test_importing_it_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from qwen_course import benchmark, quantization; "
        "print(sorted({'torch', 'transformers', 'bitsandbytes'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
