"""MLX on a CPU: the checkpoint's folder as it is, the same greedy answers."""

import importlib.util

import pytest

from qwen_course.platforms import mlx

installed = pytest.mark.skipif(bool(mlx.why_not()), reason=str(mlx.why_not()))
LIMIT = 96  # the longest answer needs 85


@pytest.fixture(scope="module")
def asked(sums_asked):
    """Prompts, and what transformers writes after each in fp32."""
    rows, outputs = sums_asked
    return rows[:4], [ids[:LIMIT] for ids in outputs[:4]]


@pytest.fixture(scope="module")
def runner():
    with mlx.Runner("pocket-qwen3") as runner:
        yield runner


def test_without_its_packages_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[mlx\]"'):
        mlx.Runner("pocket-qwen3")


def test_a_slip_in_the_precision_names_those_there_are():
    with pytest.raises(ValueError, match='"fp31" is not one of fp32, fp16, bf16'):
        mlx.Runner("pocket-qwen3", "fp31")


@installed
def test_it_writes_what_transformers_writes(runner, asked):
    for row, output in zip(*asked, strict=True):
        written = runner.write(row, LIMIT)
        assert written.ids == output
        assert len(written.moments) == len(output)


@installed
def test_prompts_asked_together_get_the_answers_they_get_alone(runner, asked):
    rows, outputs = asked
    assert runner.answers(rows, LIMIT) == outputs
    assert runner.answers(rows, 5) == [output[:5] for output in outputs]


@installed
def test_it_goes_on_after_the_end_token_when_measured(runner, asked):
    rows, outputs = asked
    written = runner.write(rows[0], len(outputs[0]) + 4, stop=False)
    assert len(written.ids) == len(outputs[0]) + 4


@installed
def test_a_closed_runner_says_that_it_is_closed(asked):
    runner = mlx.Runner("pocket-qwen3")
    runner.close()
    for use in (
        lambda: runner.write(asked[0][0], 4),
        lambda: runner.answers(asked[0], 4),
    ):
        with pytest.raises(ValueError, match="the runner is closed"):
            use()
