"""Tools: calls are read, run and answered; nothing a model writes can do harm."""

import dataclasses
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils import get_json_schema

import qwen_course as qc
from qwen_course import tasks, tools
from qwen_course.chat import Usage
from qwen_course.tools import ToolCall, calculator, chat_with_tools, parse_tool_calls

CALL = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "2 * 3"}}\n'
CALL += "</tool_call>"
marks = st.sampled_from(["<tool_call>", "</tool_call>", "<think>", '"', "\\"])


def test_calls_are_read_in_order():
    text = f"Let me see. {CALL}\n{CALL.replace('2 * 3', '4 * 5')}"
    first, second = parse_tool_calls(text)
    assert first == ToolCall("calculator", {"expression": "2 * 3"})
    assert second.arguments == {"expression": "4 * 5"}
    assert parse_tool_calls("The answer is 6.") == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("calculator(2 * 3)", "no JSON"),
        ("[1, 2]", "name"),
        ('{"name": "calculator"}', "arguments"),
        ('{"name": 3, "arguments": {}}', "name"),
        ('{"name": "a", "arguments": {}} {"name": "b"}', "more than one JSON object"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_malformed_call_is_shown_in_the_error(body, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_tool_calls(f"<tool_call>{body}</tool_call>")
    assert body in str(caught.value)


arguments = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.text() | marks
)
calls_made = st.builds(ToolCall, st.text(), arguments)
said = st.text().filter(lambda text: "<tool_call>" not in text)


def as_text(call):
    return f"<tool_call>\n{json.dumps(dataclasses.asdict(call))}\n</tool_call>"


@given(st.lists(st.tuples(said, calls_made)), said)
def test_any_calls_between_any_words_come_back_and_nothing_is_lost(parts, last):
    text = "".join(words + as_text(call) for words, call in parts) + last
    words, calls = tools.split_tool_calls(text)
    assert calls == [call for _, call in parts] == parse_tool_calls(text)
    assert words == "".join(words for words, _ in parts) + last


def outcome(parse, text):
    """Return the value and "", or None and the words of the error."""
    try:
        return parse(text), ""
    except ValueError as error:
        return None, str(error)


@given(st.lists(marks | st.sampled_from(['{"name": "f", "arguments": {', "}", "}}"])))
def test_every_text_gives_calls_or_an_error_with_words(pieces):
    text = "".join(pieces)
    calls, fault = outcome(parse_tool_calls, text)
    assert "call" in fault or (not fault and bool(calls) == ("<tool_call>" in text))


def test_a_call_that_was_cut_off_is_an_error_not_an_answer():
    with pytest.raises(ValueError, match="cut off.*Raise max_new_tokens"):
        parse_tool_calls(CALL[: CALL.index("2 * 3")])


def test_a_whole_call_needs_no_closing_tag_at_the_end():
    assert parse_tool_calls(CALL.removesuffix("</tool_call>")) == parse_tool_calls(CALL)


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="text is None; give the answer as a text"):
        parse_tool_calls(None)
    assert calculator(12).startswith("error: the expression is 12; give a text")


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("12 * 30", "360"), ("7 / 2", "3.5"), ("6 / 2", "3"), ("-4 + 1", "-3"),
        ("(1 + 2) * 3", "9"), ("10 / 3", "3.333333"), (" 1+1 ", "2"),
    ],
)  # fmt: skip
def test_the_calculator_works_out_the_four_operations(expression, result):
    assert calculator(expression) == result


@pytest.mark.parametrize(
    "expression",
    ["1 / 0", "2 ** 9999999", "__import__('os')", "a + 1", "1 +", "", "True + 1",
     "9" * 300, "(" * 100, "1e308 * 10", "'a' * 9"],
)  # fmt: skip
def test_the_calculator_refuses_all_else_in_words(expression):
    assert calculator(expression).startswith("error")


def test_the_model_is_trained_on_the_schema_that_transformers_makes():
    """Another wording of the schema at inference would be another prompt."""
    kind = tasks.tool_calls
    trained = kind.schema(kind.NAMES[0], kind.ARGUMENTS[0], kind.DESCRIPTIONS[0])
    assert get_json_schema(calculator) == trained


@pytest.mark.parametrize("thinking", [True, False])
def test_the_pocket_model_calls_the_calculator_and_uses_its_result(pocket, thinking):
    reply = chat_with_tools(
        *pocket, "What is 4821 × 37?", thinking=thinking, sampling="greedy"
    )
    roles = [message["role"] for message in reply.messages]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert str(4821 * 37) in reply.answer


def test_two_calls_follow_one_another_when_the_second_needs_the_first(pocket):
    question = "What is 4821 × 37? Then subtract 1250."
    reply = chat_with_tools(*pocket, question, sampling="greedy")
    results = [m["content"] for m in reply.messages if m["role"] == "tool"]
    assert results == [str(4821 * 37), str(4821 * 37 - 1250)]
    assert results[-1] in reply.answer


def scripted(monkeypatch, *answers):
    """Let `chat` write the given answers, one a call; return what it was sent."""
    sent, waiting = [], iter(answers)

    def chat(model, tokenizer, messages, **options):
        sent.append(messages)
        usage = Usage(1, 0, 1, 1.0, 1.0)
        return qc.Reply(next(waiting), "", usage, "end", list(messages))

    monkeypatch.setattr(tools, "chat", chat)
    return sent


def test_a_tool_that_fails_is_reported_to_the_model(monkeypatch):
    def calculator(expression: str) -> str:
        """Fail.

        Args:
            expression: anything.
        """
        raise RuntimeError("out of order")

    sent = scripted(monkeypatch, CALL, "It is broken.")
    reply = chat_with_tools(None, None, "Hi", [calculator])
    assert reply.answer == "It is broken."
    assert sent[1][-1]["content"] == "error: RuntimeError: out of order"


def test_an_unknown_tool_and_wrong_arguments_are_reported_to_the_model(monkeypatch):
    wrong = CALL.replace("calculator", "calculater")
    other = CALL.replace("expression", "formula")
    sent = scripted(monkeypatch, wrong, other, "Sorry.")
    chat_with_tools(None, None, "Hi")
    assert 'Did you mean "calculator"' in sent[1][-1]["content"]
    assert "formula" in sent[2][-1]["content"]


def test_a_call_that_cannot_be_read_is_reported_to_the_model(monkeypatch):
    broken = CALL.replace('"2 * 3"', "2 * 3")
    sent = scripted(monkeypatch, broken, CALL, "It is 6.")
    assert chat_with_tools(None, None, "Hi").answer == "It is 6."
    assert sent[1][-1]["role"] == "tool"
    assert sent[1][-1]["content"].startswith("error: the model wrote a call that is no")
    assert sent[2][-1]["content"] == "6"


def test_calls_that_cannot_be_read_do_not_go_on_for_ever(monkeypatch):
    scripted(monkeypatch, *["<tool_call>no</tool_call>"] * 9)
    with pytest.raises(ValueError, match="max_calls=4"):
        chat_with_tools(None, None, "Hi")


def test_an_endless_loop_of_calls_ends_in_an_error(monkeypatch):
    scripted(monkeypatch, *[CALL] * 9)
    with pytest.raises(ValueError, match="max_calls=4"):
        chat_with_tools(None, None, "Hi")


def test_a_call_keeps_its_thinking_for_the_next_round(monkeypatch):
    scripted(monkeypatch, CALL)
    reply = tools.chat(None, None, [])
    reply = dataclasses.replace(reply, thinking="6")
    message = tools.as_message(reply, parse_tool_calls(reply.answer))
    assert message["reasoning_content"] == "6"
    assert message["tool_calls"][0]["function"]["name"] == "calculator"


def test_a_batch_takes_the_tools_of_each_conversation(pocket):
    problems = [
        tasks.tool_calls.problems(1, seed=4, kind="one call")[0],
        tasks.sums.problems(1, seed=4)[0],
    ]
    together = qc.evaluate(*pocket, problems, progress=False).replies
    alone = [qc.evaluate(*pocket, [p], progress=False).replies[0] for p in problems]
    assert [r.answer for r in together] == [r.answer for r in alone]
    with pytest.raises(ValueError, match="tools has 1 entries for 2"):
        qc.chat_batch(*pocket, ["Hi", "Ho"], tools=[[calculator]])


def test_generated_calls_are_the_text_the_template_writes(pocket):
    """What is learnt as an answer must be what a history with that call shows."""
    _, tokenizer = pocket
    rng = random.Random(0)
    problem = tasks.tool_calls.make(rng, "train", "answer after one call")
    rendered = tokenizer.apply_chat_template(
        problem.prompt, tools=list(problem.tools), tokenize=False
    )
    call = problem.prompt[1]["tool_calls"][0]["function"]
    assert tasks.tool_calls._as_text(call) in rendered
