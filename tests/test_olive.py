"""Olive: a recipe that is data, and a smaller model that the engine still runs."""

import importlib.util
import json
import os
import sys

import pytest

import qwen_course as qc
from qwen_course import engines, inference
from qwen_course.messages import check_messages, encode
from qwen_course.platforms import olive, onnx

# Olive may stand in an environment of its own: this names its interpreter.
PYTHON = os.environ.get("QWEN_COURSE_OLIVE_PYTHON") or None
reason = onnx.why_not() or (None if PYTHON else olive.why_not())
installed = pytest.mark.skipif(bool(reason), reason=str(reason))
LIMIT = 96  # the longest answer needs 85


def test_without_its_packages_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[olive\]"'):
        olive.export("pocket-qwen3")


def test_a_slip_in_the_precision_names_those_there_are():
    with pytest.raises(ValueError, match='"int3" is not one of int4, int8'):
        olive.export("pocket-qwen3", "int3")


def test_the_recipe_is_data_that_survives_json():
    recipe = olive.recipe("model", "out", bits=8, group=64)
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe["passes"]["round"]["block_size"] == 64
    assert recipe["input_model"]["model_path"].endswith("model.onnx")


@pytest.mark.skipif(bool(onnx.why_not()), reason=str(onnx.why_not()))
def test_an_interpreter_without_olive_is_quoted_and_leaves_nothing(tmp_path):
    python = sys.executable
    if importlib.util.find_spec("olive"):
        pytest.skip("this interpreter has Olive")
    with pytest.raises(RuntimeError, match="No module named olive"):
        olive.export("pocket-qwen3", folder=tmp_path / "out", python=python)
    assert not list(tmp_path.iterdir())


@installed
def test_four_bits_by_olive_are_smaller_and_write_nearly_the_same(pocket):
    model, tokenizer = pocket
    problems = qc.tasks.sums.problems(6, seed=6)
    rows = [encode(tokenizer, check_messages(p.question), True) for p in problems]
    outputs = [inference.write(model, row, LIMIT).ids for row in rows]
    small = olive.export("pocket-qwen3", "int4", python=PYTHON)
    whole = onnx.export("pocket-qwen3", "fp32")
    assert engines.bytes_on_disk(small) < engines.bytes_on_disk(whole) / 2.5
    with onnx.Runner(small, threads=1) as runner:
        found = runner.answers(rows, LIMIT)
    assert engines.compare(outputs, found).equal >= 5


@installed
def test_the_recipe_is_run_once(monkeypatch):
    folder = olive.export("pocket-qwen3", "int4", python=PYTHON)
    monkeypatch.setattr(olive, "_run", None)
    assert olive.export("pocket-qwen3", "int4", python=PYTHON) == folder
