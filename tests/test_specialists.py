"""The loops around a specialist, with scripted models: what is sent, what is run."""

from types import SimpleNamespace

import pytest

import qwen_course as qc
from qwen_course import specialists
from qwen_course.specialists import complete_middle, solve_with_tools, write_code

TASK = "Write a Python function `double(x)` that returns twice x."
TESTS = ["assert double(4) == 8", "assert double(0) == 0"]


def fenced(code):
    return f"```python\n{code}\n```"


@pytest.fixture
def script(monkeypatch):
    """Let `chat` answer from a list; returns the list and what it was sent."""
    replies, sent = [], []

    def chat(model, tokenizer, talk, **options):
        sent.append((talk, options))
        answer = replies.pop(0)
        message = {"role": "assistant", "content": answer}
        return SimpleNamespace(answer=answer, messages=[*talk, message])

    monkeypatch.setattr(specialists, "chat", chat)
    return replies, sent


def test_a_first_answer_that_passes_ends_the_loop(script):
    replies, sent = script
    replies += [fenced("def double(x):\n    return 2 * x"), "never asked for"]
    [only] = write_code(None, None, TASK, TESTS)
    assert only.result.passed
    assert len(sent) == 1
    assert sent[0][1] == {"sampling": "greedy"}
    assert str(only).endswith("# all tests pass")


def test_the_error_goes_back_with_the_model_s_own_answer(script):
    replies, sent = script
    wrong = fenced("def double(x):\n    return x + 2")
    replies += [wrong, fenced("def double(x):\n    return 2 * x")]
    tries = write_code(None, None, TASK, TESTS)
    assert [one.result.passed for one in tries] == [False, True]
    talk = sent[1][0]
    assert [message["role"] for message in talk] == ["user", "assistant", "user"]
    assert talk[1]["content"] == wrong
    assert "double(4) returned 6, expected 8." in talk[2]["content"]


def test_the_tries_run_out(script):
    replies, _ = script
    replies += ["I cannot do that."] * 3
    tries = write_code(None, None, TASK, TESTS, tries=2)
    assert len(tries) == 2
    assert not tries[-1].result.passed


def test_endless_code_costs_a_try_and_not_the_kernel(script):
    replies, _ = script
    replies += [fenced("while True: pass"), fenced("def double(x): return 2 * x")]
    first, second = write_code(None, None, TASK, TESTS)
    assert first.result.limit == "time"
    assert second.result.passed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "  "}, "task is empty"),
        ({"tests": []}, "no tests"),
        ({"tries": 0}, "tries is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        write_code(None, None, **({"task": TASK, "tests": TESTS} | arguments))


@pytest.fixture
def written(monkeypatch):
    """Let `continue_ids` write from a list; returns the list and the prompts' ends."""
    texts, prompts = [], []

    def continue_ids(model, tokenizer, ids, max_new_tokens=256, stop=None):
        prompts.append(tokenizer.decode(ids))
        return texts.pop(0)

    monkeypatch.setattr(specialists, "continue_ids", continue_ids)
    return texts, prompts


@pytest.fixture(scope="module")
def tokenizer():
    return qc.load("Qwen/Qwen2.5-Math-1.5B-Instruct")[1]


def test_a_program_is_run_and_its_output_is_what_the_model_goes_on_from(
    written, tokenizer
):
    texts, prompts = written
    texts += [
        "Let us compute.\n```python\nprint(12 * 30)\n```\n```output",
        "It is \\boxed{360}.<|im_end|>",
    ]
    worked = solve_with_tools(None, tokenizer, "What is 12 * 30?")
    assert worked.programs == (("print(12 * 30)\n", "360"),)
    assert prompts[1].endswith("```output\n360\n```\n")
    assert worked.text.endswith("```output\n360\n```\nIt is \\boxed{360}.")


def test_what_goes_wrong_in_a_program_is_put_there_in_words(written, tokenizer):
    texts, _ = written
    texts += ["```python\nprint(1 / 0)\n```\n```output", "I cannot say.<|im_end|>"]
    worked = solve_with_tools(None, tokenizer, "What is 1 / 0?")
    assert "ZeroDivisionError" in worked.programs[0][1]


def test_programs_end_after_so_many_rounds(written, tokenizer):
    texts, _ = written
    texts += ["```python\nprint(1)\n```\n```output"] * 9
    assert len(solve_with_tools(None, tokenizer, "Loop.", rounds=2).programs) == 2


def test_sympy_can_be_used_in_a_program(written, tokenizer):
    texts, _ = written
    program = 'from sympy import symbols, diff\nx = symbols("x")\nprint(diff(x**3, x))'
    texts += [f"```python\n{program}\n```\n```output", "\\boxed{3x^2}<|im_end|>"]
    assert solve_with_tools(None, tokenizer, "?").programs[0][1] == "3*x**2"


def test_a_middle_ends_at_its_first_control_token(written, tokenizer):
    texts, prompts = written
    texts += ["2 * x<|endoftext|>def more", "  y<|fim_pad|>"]
    assert complete_middle(None, tokenizer, "return ", "\n") == "2 * x"
    assert prompts[0] == "<|fim_prefix|>return <|fim_suffix|>\n<|fim_middle|>"
    assert complete_middle(None, tokenizer, "return ", "") == "  y"
    with pytest.raises(ValueError, match="no code"):
        complete_middle(None, tokenizer, " ", "\n")


def test_all_of_it_runs_on_the_real_checkpoints_ids():
    """Random weights: what comes out is noise, and is taken as such."""
    coder = qc.load("Qwen/Qwen2.5-Coder-0.5B-Instruct")
    tries = write_code(*coder, TASK, TESTS, tries=2, max_new_tokens=8)
    assert not tries[-1].result.passed
    assert isinstance(complete_middle(*coder, "a = ", "\n", max_new_tokens=4), str)
    math = qc.load("Qwen/Qwen2.5-Math-1.5B-Instruct")
    assert solve_with_tools(*math, "2 + 2?", max_new_tokens=8).programs == ()
