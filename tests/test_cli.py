"""The command `qwen-course`: every subcommand, and one sentence for every mistake."""

import subprocess
import sys

import pytest

from qwen_course import cli


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in (
        *("doctor", "models", "download", "chat", "evaluate", "export", "serve"),
        *("grade", "class", "room", "slides", "bundle", "explain"),
    ):
        assert f"    {name}" in text


def test_chat_answers_one_question(capsys):
    assert cli.main(["chat", "What is 12 + 30?", "--model", "pocket-qwen3"]) == 0
    assert "12 + 30 = 42" in capsys.readouterr().out


def test_chat_holds_a_conversation_until_an_empty_line(monkeypatch, capsys):
    lines = iter(["My name is Ada.", "What is my name?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert cli.main(["chat"]) == 0
    assert "Your name is Ada" in capsys.readouterr().out


def test_models_lists_the_pocket_model_and_the_family(capsys):
    assert cli.main(["models", "--series", "QwQ"]) == 0
    text = capsys.readouterr().out
    assert "pocket-qwen3" in text
    assert "Qwen/QwQ-32B" in text
    assert "Qwen/Qwen3-8B" not in text


def test_evaluate_prints_both_modes(capsys):
    assert cli.main(["evaluate", "--parts", "sums,word_problems", "-n", "8"]) == 0
    text = capsys.readouterr().out
    assert "with thinking  without" in text
    assert "word problems  all" in text
    assert "products" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chat", "Hi", "--model", "pocket-qwen"], 'Did you mean "pocket-qwen3"'),
        (["chat", "Hi", "--precision", "nf5"], 'Did you mean "nf4"'),
        (["chat", "Hi", "--thinking-budget", "0"], "thinking_budget is 0"),
        (["models", "--series", "Qwen33"], 'Did you mean "Qwen3"'),
        (["download", "Qwen/Qwen3-8BB"], 'Did you mean "Qwen/Qwen3-8B"'),
        (["evaluate", "--parts", "sums", "-n", "0"], "give at least one"),
        (["evaluate", "--parts", "sum"], 'Did you mean "sums"'),
        (["evaluate", "pocket-qwen"], 'Did you mean "pocket-qwen3"'),
        (["serve", "--model", "pocket-vl"], "reads text alone"),
        (["serve", "--max-batch", "0"], "1 or more places"),
        (["serve", "--log", "requests.log"], "--keys"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_1(arguments, message, capsys):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_ctrl_c_ends_in_a_sentence(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "models", interrupted)
    interrupted.__name__ = "models"
    assert cli.main(["models"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_the_module_runs_as_a_program():
    command = [sys.executable, "-m", "qwen_course", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.strip() == "0.1.0"
