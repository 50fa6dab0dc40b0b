"""The panels: their logic without a screen, then the widgets themselves."""

import pytest

from qwen_course import choosing, deployment, memory
from qwen_course.widgets import (
    ChatSession,
    chart_reader,
    chat_panel,
    lesson_model_chooser,
    memory_calculator,
    model_chooser,
    panel,
    platform_chooser,
    thinking_lab,
    try_chart,
    try_sum,
)


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


# The panels of inputs and a table


def inputs(panel):
    """The inputs of a panel by their labels, and its screen."""
    row, screen = panel.children
    return {box.description: box for box in row.children}, screen


def test_the_memory_calculator_shows_what_estimate_returns():
    boxes, screen = inputs(memory_calculator("Qwen3-0.6B"))
    assert screen.value == memory.estimate("Qwen3-0.6B")._repr_html_()
    boxes["Context"].value = 32768
    boxes["Precision"].value = "nf4"
    wanted = memory.estimate("Qwen3-0.6B", "nf4", context=32768)
    assert screen.value == wanted._repr_html_()


def test_the_model_chooser_shows_what_recommend_returns():
    boxes, screen = inputs(model_chooser("math", memory_gb=8))
    best = choosing.recommend("math", memory_gb=8, context=4096)
    assert screen.value == best[:5]._repr_html_()
    boxes["Thinking"].value = "no"
    boxes["Licence"].value = "Apache-2.0"
    assert "always thinks" not in screen.value
    assert screen.value != best[:5]._repr_html_()


def test_the_platform_chooser_shows_what_choose_returns():
    boxes, screen = inputs(platform_chooser("server"))
    assert screen.value == deployment.choose("server")._repr_html_()
    boxes["Hardware"].value, boxes["Help"].value = "nvidia", "team"
    boxes["Users"].value = 200
    assert "vLLM" in screen.value
    boxes["Hardware"].value = "none"
    assert "0 platforms meet the needs" in screen.value
    boxes["Private"].value = "no"
    assert "hosted" in screen.value


def test_the_chooser_of_a_real_model_begins_with_this_machine_s_memory():
    boxes, screen = inputs(lesson_model_chooser(memory_gb=8))
    assert screen.value == choosing.lesson_models(memory_gb=8)._repr_html_()
    boxes["GiB"].value = 0.5
    assert "0 checkpoints for the lessons fit" in screen.value
    assert lesson_model_chooser().children[0].children[0].value > 0


def test_every_position_of_the_inputs_gives_a_table():
    boxes, screen = inputs(model_chooser())
    for box in boxes.values():
        for option in box.options:
            box.value = option[1] if isinstance(option, tuple) else option
            assert "<table>" in screen.value
    boxes, screen = inputs(memory_calculator())
    for name in boxes["Model"].options:
        boxes["Model"].value = name
        assert "<table>" in screen.value


def test_a_panel_shows_an_error_as_text_and_goes_on():
    import ipywidgets

    def show(number):
        if number < 0:
            raise ValueError("<b>no</b>")
        return memory.estimate("Qwen3-0.6B", batch=number + 1)

    box = ipywidgets.IntText(value=0, description="Number")
    _, screen = inputs(panel({"number": box}, show))
    box.value = -1
    assert screen.value == "<p><strong>&lt;b&gt;no&lt;/b&gt;</strong></p>"
    box.value = 1
    assert "<table>" in screen.value


def test_without_a_front_end_a_panel_is_its_table():
    bundle = memory_calculator("Qwen3-0.6B")._repr_mimebundle_()
    assert bundle["text/plain"] == str(memory.estimate("Qwen3-0.6B"))
    assert "<table>" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_the_thinking_lab_answers_the_sum_its_sliders_describe(pocket):
    boxes, screen = inputs(thinking_lab(*pocket))
    assert "right" in screen.value
    boxes["Budget"].value = 6
    assert "wrong: it is" in screen.value
    boxes["Thinking"].value = False
    trial = try_sum(*pocket, thinking=False)
    assert trial.question in screen.value
    assert trial.reply.answer in screen.value
    assert "<details" not in screen.value


def test_a_trial_says_the_right_answer_when_the_reply_is_wrong(pocket):
    trial = try_sum(*pocket, numbers=7, problem=2, budget=4)
    assert not trial.right
    assert str(trial).endswith(f"wrong: it is {trial.expected}")


def test_the_chart_reader_asks_about_the_chart_that_its_inputs_describe(seeing):
    boxes, screen = inputs(chart_reader(*seeing))
    boxes["Values"].value = "10, 90"
    boxes["Question"].value = "What is the <b>trend</b>?"
    trial = try_chart(*seeing, "10, 90", question="What is the <b>trend</b>?")
    assert "What is the &lt;b&gt;trend&lt;/b&gt;?" in screen.value
    assert f"{trial.image_tokens} of them for the picture" in screen.value
    assert trial._repr_html_() == screen.value
    before = screen.value
    boxes["Picture"].value = "votes"
    assert screen.value != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": "ten, 20"}, "no list of whole numbers; write it as 20, 35, 50"),
        ({"values": "20"}, "2 to 8 points"),
        ({"values": "20, 400"}, "values go from 0 to 100"),
        ({"labels": "weeks"}, "labels .* is not one of months"),
        ({"form": "pie"}, "is not one of bar, line"),
        ({"picture": "sails"}, "is not one of drawn from the values, sales"),
    ],
)
def test_a_chart_that_cannot_be_drawn_says_what_is_wrong(options, message, seeing):
    with pytest.raises(ValueError, match=message):
        try_chart(*seeing, **options)
