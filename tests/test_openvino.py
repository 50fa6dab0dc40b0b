"""OpenVINO GenAI: an IR written without torch, and the answers of transformers."""

import importlib.util
import os
import subprocess
import sys

import pytest

from qwen_course.platforms import gguf_files, openvino

installed = pytest.mark.skipif(bool(openvino.why_not()), reason=str(openvino.why_not()))
LIMIT = 96  # the longest answer needs 85


@pytest.fixture(scope="module")
def asked(sums_asked):
    """Prompts, and what transformers writes after each in fp32."""
    rows, outputs = sums_asked
    return rows[:4], [ids[:LIMIT] for ids in outputs[:4]]


@pytest.fixture(scope="module")
def runner():
    with openvino.Runner(openvino.export("pocket-qwen3"), threads=1) as runner:
        yield runner


# Where it is missing, and wrong input


def test_without_its_packages_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[openvino\]"'):
        openvino.export("pocket-qwen3")
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[openvino\]"'):
        openvino.Runner("anywhere")


def test_a_precision_that_its_reader_refuses_is_said_at_once():
    with pytest.raises(ValueError, match='"f32" is not one of f16, q8_0, q4_0'):
        openvino.export("pocket-qwen3", "f32")


@installed
def test_a_path_without_a_model_says_how_to_write_one(tmp_path):
    with pytest.raises(OSError, match=r'openvino.export\("pocket-qwen3"\)'):
        openvino.Runner(tmp_path)


@installed
def test_a_mixture_of_experts_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(
        ValueError, match="OpenVINO GenAI cannot read pocket-qwen3-moe as"
    ):
        openvino.export("pocket-qwen3-moe", folder=tmp_path / "out")
    assert not list(tmp_path.iterdir())


# The same weights


@installed
def test_it_writes_what_transformers_writes(runner, asked):
    for row, output in zip(*asked, strict=True):
        written = runner.write(row, LIMIT)
        assert written.ids == output
        assert len(written.moments) == len(output)
        assert list(written.moments) == sorted(written.moments)


@installed
def test_prompts_asked_together_get_the_answers_they_get_alone(runner, asked):
    rows, outputs = asked
    assert runner.answers(rows, LIMIT) == outputs


@installed
def test_it_goes_on_after_the_end_token_when_measured(runner, asked):
    rows, outputs = asked
    written = runner.write(rows[0], len(outputs[0]) + 4, stop=False)
    assert len(written.ids) == len(outputs[0]) + 4
    assert written.ids[: len(outputs[0])] == outputs[0]


@installed
def test_a_gguf_file_is_read_as_it_is(asked):
    rows, outputs = asked
    path = gguf_files.export("pocket-qwen3", "q8_0")
    with openvino.Runner(path, threads=1) as runner:
        assert runner.answers(rows, LIMIT) == outputs


@installed
def test_the_tokenizer_in_the_folder_is_the_models_own(pocket):
    import openvino_genai

    folder = openvino.export("pocket-qwen3")
    text = "<|im_start|>user\nWhat is 12 + 345? Was ist 7 × 8? 你好<|im_end|>\n"
    found = openvino_genai.Tokenizer(str(folder)).encode(text).input_ids.data[0]
    assert found.tolist() == pocket[1](text)["input_ids"]


@installed
def test_four_bits_are_a_third_of_sixteen_and_keep_the_answers(asked):
    small, whole = (openvino.export("pocket-qwen3", kind) for kind in ("q4_0", "f16"))
    assert openvino.bytes_on_disk(small) < openvino.bytes_on_disk(whole) / 2.9
    rows, outputs = asked
    with openvino.Runner(small, threads=1) as runner:
        found = runner.answers(rows, LIMIT)
    assert sum(a == b for a, b in zip(found, outputs, strict=True)) >= 3


@installed
def test_the_folder_carries_the_models_settings_and_is_written_once(monkeypatch):
    folder = openvino.export("pocket-qwen3")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "openvino_tokenizer.xml"} <= names
    monkeypatch.setattr(openvino, "_convert", None)
    assert openvino.export("pocket-qwen3") == folder


@installed
def test_running_it_needs_no_torch_and_tells_the_vendor_nothing(tmp_path):
    """The vendor's telemetry, where it speaks, first makes itself an id at home."""
    folder = openvino.export("pocket-qwen3")
    code = (
        "import sys; from qwen_course.platforms import openvino; "
        f"openvino.Runner({str(folder)!r}, threads=1).write([1, 2], 2); "
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    home = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=home,
    )
    assert done.stdout.strip() == "set()"
    assert not list(tmp_path.iterdir())


@installed
def test_a_closed_runner_says_that_it_is_closed(asked):
    runner = openvino.Runner(openvino.export("pocket-qwen3"), threads=1)
    runner.close()
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.write(asked[0][0], 4)
