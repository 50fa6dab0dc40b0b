"""SGLang: its command holds against its own options; why it is not run here."""

import pytest

from qwen_course.datafiles import read_yaml
from qwen_course.platforms import sglang


@pytest.fixture
def bare(monkeypatch):
    """A Linux machine with neither a GPU, nor AMX, nor SGLang."""
    monkeypatch.setattr(sglang.sys, "platform", "linux")
    monkeypatch.setattr(sglang, "has_gpu", lambda: False)
    monkeypatch.setattr(sglang, "has_amx", lambda: False)
    monkeypatch.setattr(sglang.importlib.util, "find_spec", lambda name: None)


def test_it_says_which_hardware_it_needs(bare):
    assert "needs a GPU of NVIDIA or AMD, or a Xeon with AMX" in sglang.why_not()


def test_on_other_systems_it_names_the_way_round(bare, monkeypatch):
    for system, way in (("win32", "WSL"), ("darwin", "mlx")):
        monkeypatch.setattr(sglang.sys, "platform", system)
        assert way in sglang.why_not()


def test_where_it_could_run_it_says_how_to_install_it(bare, monkeypatch):
    monkeypatch.setattr(sglang, "has_amx", lambda: True)
    assert "--device cpu" in sglang.why_not()
    monkeypatch.setattr(sglang, "has_gpu", lambda: True)
    assert "pip install sglang" in sglang.why_not()
    monkeypatch.setattr(sglang.importlib.util, "find_spec", lambda name: object())
    assert sglang.why_not() is None


def test_the_command_of_a_real_model_parses_its_thinking_and_its_tools():
    assert sglang.command("Qwen/Qwen3-8B", context=32768) == [
        "sglang", "serve", "--model-path", "Qwen/Qwen3-8B", "--port", "30000",
        "--reasoning-parser", "qwen3", "--tool-call-parser", "qwen",
        "--context-length", "32768",
    ]  # fmt: skip
    coder = sglang.command("Qwen/Qwen3-Coder-30B-A3B-Instruct")
    assert coder[-2:] == ["--tool-call-parser", "qwen3_coder"]


def test_each_node_gets_a_line_with_its_number():
    lines = [
        sglang.command("Qwen/Qwen3-235B-A22B", gpus=8, nodes=2, node=node)
        for node in (0, 1)
    ]
    assert lines[1][-8:] == [
        "--pp-size", "2", "--nnodes", "2", "--node-rank", "1",
        "--dist-init-addr", "10.0.0.1:20000",
    ]  # fmt: skip
    assert [a for a, b in zip(*lines, strict=True) if a != b] == ["0"]
    with pytest.raises(ValueError, match="count from 0 to 1"):
        sglang.command("Qwen/Qwen3-235B-A22B", nodes=2, node=2)


def test_options_of_vllm_are_none_of_its_own():
    for extra in (["--max-model-len", "4096"], ["--enable-auto-tool-choice"]):
        with pytest.raises(ValueError, match=f"no option {extra[0]}"):
            sglang.command("Qwen/Qwen3-8B", extra=extra)


def test_its_options_name_the_version_that_they_are_of():
    known = read_yaml("sglang_options")
    assert known["version"]
    assert "--mem-fraction-static" in known["takes_a_value"]
    assert "--disable-radix-cache" in known["flags"]
