"""Foundry Local: our exported model as a model of its own, offline, same answers."""

import importlib.util
import json

import pytest

import qwen_course as qc
from qwen_course import inference
from qwen_course.messages import check_messages, encode
from qwen_course.platforms import foundry, onnx

reason = foundry.why_not() or onnx.why_not()
installed = pytest.mark.skipif(bool(reason), reason=str(reason))
LIMIT = 96  # the longest answer needs 85


@pytest.fixture(scope="module")
def asked(pocket):
    """Prompts with and without thinking, and what transformers writes after each."""
    model, tokenizer = pocket
    problems = qc.tasks.sums.problems(4, seed=6)
    rows = [
        encode(tokenizer, check_messages(problem.question), number != 3)
        for number, problem in enumerate(problems)
    ]
    return rows, [inference.write(model, row, LIMIT).ids for row in rows]


@pytest.fixture(scope="module")
def runner():
    with foundry.Runner(onnx.export("pocket-qwen3", "fp32")) as runner:
        yield runner


def test_without_its_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[foundry\]"'):
        foundry.Runner("anywhere")


@installed
def test_a_folder_without_an_exported_model_says_how_to_write_one(tmp_path):
    with pytest.raises(OSError, match=r'onnx.export\("pocket-qwen3"\)'):
        foundry.Runner(tmp_path)


@installed
def test_it_writes_what_transformers_writes(runner, asked):
    for row, output in zip(*asked, strict=True):
        written = runner.write(row, LIMIT)
        assert written.ids == output
        assert list(written.moments) == sorted(written.moments)


@installed
def test_prompts_asked_at_once_get_the_answers_they_get_alone(runner, asked):
    rows, outputs = asked
    assert runner.answers(rows, LIMIT) == outputs


@installed
def test_an_answer_that_is_cut_off_has_no_end_token(runner, asked):
    rows, outputs = asked
    assert runner.write(rows[0], 5).ids == outputs[0][:5]


@installed
def test_the_switch_for_thinking_reaches_the_models_template(runner):
    question = "How much is 12 + 30?"
    assert runner.chat(question).startswith("<think>")
    assert "<think>" not in runner.chat(question, thinking=False)


@installed
def test_a_conversation_of_several_turns_is_put_to_it_whole(runner, pocket):
    model, tokenizer = pocket
    talk = [
        {"role": "user", "content": "How much is 12 + 30?"},
        {"role": "assistant", "content": "42"},
        {"role": "user", "content": "How much is 5 + 6?"},
    ]
    row = encode(tokenizer, check_messages(talk), True)
    plain = inference.write(model, row, LIMIT).ids
    assert runner.write(row, LIMIT).ids == plain
    assert runner.chat(talk, LIMIT) == tokenizer.decode(plain[:-1])


@installed
def test_tokens_that_are_no_conversation_are_refused(runner, pocket):
    with pytest.raises(ValueError, match="answers conversations, and these tokens are"):
        runner.write(pocket[1]("12 + 30 =")["input_ids"], 4)


@installed
def test_closing_takes_the_model_off_the_list_and_leaves_its_files():
    from foundry_local_sdk import CatalogType, FoundryLocalManager

    folder = onnx.export("pocket-qwen3", "fp32")
    runner = foundry.Runner(folder)
    catalogue = FoundryLocalManager.instance.get_catalog(CatalogType.LOCAL)
    assert runner._name in [model.id for model in catalogue.list_models()]
    runner.close()
    assert runner._name not in [model.id for model in catalogue.list_models()]
    assert json.loads((folder / "genai_config.json").read_text())["model"]
    with pytest.raises(ValueError, match="the runner is closed"):
        runner.chat("Hi")
