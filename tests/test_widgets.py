"""The chat panel: its logic without a screen, then the widget itself."""

import pytest

from qwen_course.widgets import ChatSession, chat_panel


def test_a_session_keeps_the_conversation(pocket):
    session = ChatSession(*pocket)
    session.send("My name is Ada.")
    assert "Ada" in session.send("What is my name?").answer
    assert len(session.turns) == 2
    session.clear()
    assert session.messages == []
    assert "Nothing said yet" in session.to_html()


def test_the_transcript_escapes_what_people_and_models_write(pocket):
    session = ChatSession(*pocket)
    session.send("<script>alert(1)</script>")
    page = session.to_html(pending=("<b>", "<i>", "<u>"))
    for tag in ("<script", "<b>", "<i>", "<u>"):
        assert tag not in page


def test_an_empty_question_or_a_bad_budget_loses_nothing(pocket):
    session = ChatSession(*pocket)
    session.send("hello")
    for arguments in ({"text": "  "}, {"text": "Hi", "thinking_budget": 0}):
        with pytest.raises(ValueError, match="Write a question|thinking_budget"):
            session.send(**arguments)
    assert len(session.turns) == 1


def parts(panel):
    """The widgets inside the panel, by type and label."""
    screen, row, switches = panel.children
    box, send, clear = row.children
    return screen, box, send, clear, *switches.children


def test_pressing_send_answers_in_the_transcript(pocket):
    screen, box, send, clear, *_ = parts(chat_panel(*pocket))
    box.value = "What is 12 + 30?"
    send.click()
    assert "42" in screen.value
    assert (box.value, send.disabled) == ("", False)
    clear.click()
    assert "42" not in screen.value


def test_the_thinking_switch_and_the_budget_reach_the_model(pocket):
    screen, box, send, _, thinking, budget = parts(chat_panel(*pocket))
    box.value, thinking.value = "What is 12 + 30?", False
    send.click()
    assert "0 thinking" in screen.value
    box.value, thinking.value, budget.value = "What is 12 + 30?", True, 3
    send.click()
    assert "4 thinking" in screen.value  # three and the newline that closes


def test_an_empty_box_sends_nothing_and_a_long_text_is_explained(pocket):
    screen, box, send, *_ = parts(chat_panel(*pocket))
    send.click()
    assert "Nothing said yet" in screen.value
    box.value = "word " * 2000
    send.click()
    assert "reads at most" in screen.value
    assert send.disabled is False


def test_enter_sends_and_leaving_the_box_does_not(pocket):
    screen, box, *_ = parts(chat_panel(*pocket))
    box.value = "What is 12 + 30?"
    assert "42" not in screen.value
    box._handle_string_msg(box, {"event": "submit"}, [])
    assert "42" in screen.value
