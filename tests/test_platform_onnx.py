"""ONNX Runtime GenAI as a platform: the engine of lesson 06 behind the common face."""

import importlib.util

import pytest

from qwen_course import engines
from qwen_course.platforms import onnx

installed = pytest.mark.skipif(bool(onnx.why_not()), reason=str(onnx.why_not()))
LIMIT = 96  # the longest answer needs 85


@pytest.fixture(scope="module")
def asked(sums_asked):
    """Prompts, and what transformers writes after each in fp32."""
    rows, outputs = sums_asked
    return rows[:6], [ids[:LIMIT] for ids in outputs[:6]]


def test_without_its_packages_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[engines\]"'):
        onnx.export("pocket-qwen3")
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[engines\]"'):
        onnx.Runner("anywhere")


@installed
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_writes_what_transformers_writes_alone_and_in_a_batch(asked, precision):
    rows, outputs = asked
    with onnx.Runner(onnx.export("pocket-qwen3", precision), threads=1) as runner:
        alone = [runner.write(row, LIMIT).ids for row in rows]
        together = runner.answers(rows, LIMIT)
    assert alone == outputs
    assert together == outputs


@installed
def test_four_bits_write_nearly_the_same(asked):
    rows, outputs = asked
    with onnx.Runner(onnx.export("pocket-qwen3", "int4"), threads=1) as runner:
        assert engines.compare(outputs, runner.answers(rows, LIMIT)).equal >= 5


@installed
def test_the_export_is_the_one_that_lesson_06_made():
    assert onnx.export("pocket-qwen3", "fp32") == engines.export("pocket-qwen3", "fp32")


@installed
def test_a_closed_runner_says_that_it_is_closed(asked):
    runner = onnx.Runner(onnx.export("pocket-qwen3", "fp32"), threads=1)
    runner.close()
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.write(asked[0][0], 4)
