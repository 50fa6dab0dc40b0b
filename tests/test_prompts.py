"""Prompts are messages, never control tokens; JSON is found, checked, mended once."""

import json
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from qwen_course import prompts
from qwen_course.messages import check_messages
from qwen_course.vocabulary import read_template

SUM = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
}
EVERY = [
    prompts.reasoning("What is 12 + 30?", context="Use base ten."),
    prompts.code("Sort a list.", constraints="No imports.", context="A list of ints."),
    prompts.multilingual("What is AI?", ["en", "tr", "ja"]),
    prompts.structured("What is 12 + 30?", SUM),
]


@pytest.mark.parametrize("messages", EVERY)
def test_every_prompt_is_a_system_and_a_user_message(messages):
    assert check_messages(messages) == messages
    assert [message["role"] for message in messages] == ["system", "user"]


@pytest.mark.parametrize("messages", EVERY)
def test_no_prompt_writes_a_control_token(messages):
    assert not re.search(r"<\|.*?\|>|</?think>|</?tool", json.dumps(messages))


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5"])
def test_every_template_renders_every_prompt_as_it_stands(name):
    rendered, _ = render_jinja_template(EVERY, chat_template=read_template(name))
    for messages, text in zip(EVERY, rendered, strict=True):
        for message in messages:
            turn = f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>"
            assert turn in text


def test_the_task_comes_first_and_what_belongs_to_it_below():
    assert EVERY[0][1]["content"] == "What is 12 + 30?\n\nContext:\nUse base ten."
    parts = EVERY[1][1]["content"].split("\n\n")
    assert parts == [
        "Sort a list.",
        "Constraints:\nNo imports.",
        "Context:\nA list of ints.",
    ]


def test_empty_parts_leave_no_empty_lines():
    assert prompts.code("Sort a list.")[1]["content"] == "Sort a list."


def test_languages_are_named_in_english_and_in_themselves():
    head = prompts.multilingual("Hi", ["zh"])[0]["content"].splitlines()[0]
    assert head == "Answer in Chinese (中文), one after the other."


def test_the_schema_is_in_the_prompt():
    assert json.dumps(SUM) in EVERY[3][0]["content"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prompts.reasoning(""), "problem is ''; give a text"),
        (lambda: prompts.code("Sort", language=3), "language is 3; give a text"),
        (lambda: prompts.multilingual("Hi", "en"), "give a list such as"),
        (lambda: prompts.multilingual("Hi", []), "give a list such as"),
        (lambda: prompts.multilingual("Hi", ["eng"]), 'Did you mean "en"'),
        (lambda: prompts.structured("Hi", {"type": 3}), "this is no JSON schema.*Give"),
        (lambda: prompts.code("Sort", context=3), "context is 3; give a text"),
        (lambda: prompts.reasoning("Why?", context=None), "context is None; give"),
        (lambda: prompts.parse_json(None), "text is None; give the answer as a text"),
    ],
)
def test_wrong_input_names_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# JSON


@pytest.mark.parametrize(
    "text",
    [
        '{"sum": 42}',
        'Of course! {"sum": 42} is the answer.',
        '```json\n{"sum": 42}\n```',
        'Here:\n```\n{"sum": 42}\n```\nDone.',
        '<tool_call>\n{"sum": 42}\n</tool_call>',
        '<think>Is {"sum": 41} right? No.</think>\n\n{"sum": 42}',
        '<think>\n\n</think>\n```json\n{"sum": 42}\n```',
        'The set {12, 30} has [a note] and gives {"sum": 42}.',
        'See [1] and [2]: {"sum": 42}',
    ],
)
def test_json_is_found_wherever_a_model_puts_it(text):
    assert prompts.parse_json(text, SUM) == {"sum": 42}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)
# Strings that mean something to the parser, where they are no more than text.
marked = st.sampled_from(
    ["```json\n{}\n```", "<think>{", "</think>", '{"a": 1}', "[", "</tool_call>"]
)
words = st.text(st.characters(exclude_characters="{[`<"))


@given(json_values)
def test_any_json_comes_back_as_it_was(value):
    assert prompts.parse_json(json.dumps(value)) == value
    assert prompts.parse_json(json.dumps({"value": value}))["value"] == value


@given(st.lists(marked | st.text()), marked | st.text())
def test_marks_inside_the_strings_of_an_answer_are_text(texts, key):
    value = {key: texts}
    for spaces in (None, 2):
        text = json.dumps(value, ensure_ascii=False, indent=spaces)
        assert prompts.parse_json(text) == value
        assert prompts.parse_json(f"\n{text}\n") == value


@given(words, json_values, words)
def test_nothing_is_lost_between_words(before, value, after):
    text = f"{before}{json.dumps({'value': value})}{after}"
    assert prompts.parse_json(text) == {"value": value}
    thought = f"<think>{before}[1]</think>{text}"
    assert prompts.parse_json(thought) == {"value": value}


@given(st.dictionaries(st.text(), json_values, min_size=1), st.data())
def test_half_an_answer_is_an_error_and_never_a_part_of_it(value, data):
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(ValueError, match="the JSON is broken"):
        prompts.parse_json(text[:cut])


def outcome(parse, text):
    """Return the value and "", or None and the words of the error."""
    try:
        return parse(text), ""
    except ValueError as error:
        return None, str(error)


@given(st.lists(marked | st.sampled_from('{}[]":,0-tfn\\') | st.text()).map("".join))
def test_every_text_gives_a_value_or_an_error_with_words(text):
    value, fault = outcome(prompts.parse_json, text)
    assert "JSON" in fault or (not fault and json.loads(json.dumps(value)) == value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"sum": ' + "9" * 5000 + "}", "the JSON is broken: Exceeds the limit"),
        ('{"sum": NaN}', "NaN is no JSON number"),
        ("{'sum': 42}", "the JSON is broken: Expecting property name"),
        ("{sum: 42}", "the JSON is broken: Expecting property name"),
        ('{"sum": 42,}', "the JSON is broken"),
        ('<think>It is {"sum": 42}', "there is no JSON"),
        ("", "there is no JSON"),
    ],
)
def test_what_a_json_reader_trips_over_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        prompts.parse_json(text)


def test_of_several_values_the_first_that_fits_is_taken():
    text = '{"total": 1} or {"sum": 2} or {"sum": 3}'
    assert prompts.parse_json(text, SUM) == {"sum": 2}
    assert prompts.parse_json(text) == {"total": 1}


@given(st.text("abc {[<>`\n", min_size=1))
def test_any_other_text_is_an_error_with_words(text):
    with pytest.raises(ValueError, match="JSON"):
        prompts.parse_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I do not know.", "there is no JSON in 'I do not know.'"),
        ('{"sum": }', "the JSON is broken: Expecting value at '}'"),
        ('{"sum": {"a": 1}, ', "ends too early"),
        ('{"sum": "many"}', r"\$.sum: 'many' is not of type 'integer'"),
        ('{"total": 42}', "'sum' is a required property"),
    ],
)
def test_the_fault_is_named_so_that_a_model_can_mend_it(text, message):
    with pytest.raises(ValueError, match=message):
        prompts.parse_json(text, SUM)


@pytest.fixture
def answering(monkeypatch):
    """Let a stand-in model give the answers in turn, and keep what it was asked."""

    def use(*answers):
        waiting, asked = list(answers), []

        def chat(model, tokenizer, messages, **options):
            asked.append(messages)
            answer = waiting.pop(0)
            said = [*messages, {"role": "assistant", "content": answer}]
            return SimpleNamespace(answer=answer, messages=said)

        monkeypatch.setattr(prompts, "chat", chat)
        return asked

    return use


def test_a_right_answer_is_asked_for_once(answering):
    asked = answering('{"sum": 42}')
    assert prompts.ask_json(None, None, "What is 12 + 30?", SUM) == {"sum": 42}
    assert len(asked) == 1


def test_a_wrong_answer_is_mended_with_the_fault_in_view(answering):
    asked = answering('{"sum": "42"}', '{"sum": 42}')
    assert prompts.ask_json(None, None, "What is 12 + 30?", SUM) == {"sum": 42}
    assert asked[1][2] == {"role": "assistant", "content": '{"sum": "42"}'}
    assert "is not of type 'integer'" in asked[1][3]["content"]


def test_two_wrong_answers_are_an_error_that_names_both(answering):
    answering("forty-two", '{"sum": "42"}')
    with pytest.raises(ValueError, match="First: there is no JSON.*Then: the JSON"):
        prompts.ask_json(None, None, "What is 12 + 30?", SUM)
