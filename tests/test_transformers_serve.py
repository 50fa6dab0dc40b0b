"""`transformers serve`: the model's own tokens over its wire, and its traps."""

import importlib.util

import pytest

from qwen_course import engines, inference
from qwen_course.messages import check_messages, encode
from qwen_course.platforms import transformers_serve

installed = pytest.mark.skipif(
    bool(transformers_serve.why_not()), reason=str(transformers_serve.why_not())
)


@pytest.fixture(scope="module")
def asked(sums_asked):
    """Prompts, and what transformers writes after each in fp32."""
    rows, outputs = sums_asked
    return rows, [ids[:64] for ids in outputs]


@pytest.fixture(scope="module")
def runner():
    with transformers_serve.Runner("pocket-qwen3", "fp32") as runner:
        yield runner


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = r'fastapi and openai and uvicorn.*pip install "qwen-course\[serve\]"'
    with pytest.raises(ImportError, match=line):
        transformers_serve.started("pocket-qwen3")


def test_the_command_of_a_real_model_bounds_the_cache():
    words = transformers_serve.command("Qwen/Qwen3-8B", cache_tokens=1000)
    assert words[:3] == ["transformers", "serve", "Qwen/Qwen3-8B"]
    assert words[words.index("--cb-num-blocks") + 1] == "32"
    free = transformers_serve.command("Qwen/Qwen3-8B", cache_tokens=None)
    assert "--cb-num-blocks" not in free


def test_a_slip_in_the_precision_names_the_nearest():
    with pytest.raises(ValueError, match='"bf61" is not one of .*Did you mean "bf16"'):
        transformers_serve.command("pocket-qwen3", precision="bf61")


def test_a_folder_that_it_would_read_as_a_revision_is_refused(tmp_path):
    folder = tmp_path / "model@home"
    folder.mkdir()
    with pytest.raises(ValueError, match="takes what follows @"):
        transformers_serve.command(str(folder))


@installed
@pytest.mark.timeout(900)
def test_sixteen_prompts_at_once_get_the_models_own_tokens(runner, asked):
    rows, plain = asked
    assert engines.compare(plain, runner.answers(rows, 64)).equal == 16
    assert runner.memory() > 1e8


@installed
@pytest.mark.timeout(900)
def test_a_stream_has_a_moment_for_each_token(runner, asked):
    rows, plain = asked
    found = [runner.write(row, 64) for row in rows[:2]]
    assert [one.ids for one in found] == plain[:2]
    assert [len(one.moments) for one in found] == [len(one.ids) for one in found]


@installed
@pytest.mark.timeout(900)
def test_messages_and_the_switch_of_thinking_give_the_same_tokens(runner, pocket):
    model, tokenizer = pocket
    talk = check_messages("How much is 10 + 53 + 74 + 30?")
    rows = [encode(tokenizer, talk, thinking) for thinking in (True, False)]
    runner.form = "chat"
    found = runner.answers(rows, 64)
    runner.form = "text"
    assert found == [inference.write(model, row, 64).ids for row in rows]


@installed
@pytest.mark.timeout(900)
def test_its_wire_refuses_other_names_and_fields(runner, asked):
    row = asked[0][0]
    runner.extra = {"top_k": 1}
    with pytest.raises(ValueError, match="422.*Unexpected fields"):
        runner.write(row)
    runner.extra, name = {}, runner.model
    runner.model = "pocket-qwen3"
    with pytest.raises(ValueError, match="400.*pinned"):
        runner.write(row)
    runner.model = name
