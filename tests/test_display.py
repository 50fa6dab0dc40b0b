"""Tokens as boxes: nothing hidden, nothing executed."""

import qwen_course as qc


def test_tokens_join_to_the_text_and_control_tokens_are_marked(pocket):
    _, tokenizer = pocket
    text = "<|im_start|>user\nWhat is 12 + 30?<|im_end|>"
    tokens = qc.show_tokens(tokenizer, text)
    assert "".join(tokens.texts) == text
    assert [t for t, on in zip(tokens.texts, tokens.control, strict=True) if on] == [
        "<|im_start|>",
        "<|im_end|>",
    ]


def test_spaces_and_newlines_can_be_seen(pocket):
    shown = str(qc.show_tokens(pocket[1], "a b\n"))
    assert "␣" in shown
    assert "↵" in shown


def test_ids_are_shown_like_the_text_they_came_from(pocket):
    _, tokenizer = pocket
    ids = tokenizer("Qwen is a model.")["input_ids"]
    assert qc.show_tokens(tokenizer, ids) == qc.show_tokens(
        tokenizer, "Qwen is a model."
    )


def test_text_that_looks_like_html_stays_text(pocket):
    page = qc.show_tokens(pocket[1], "<script>alert(1)</script>")._repr_html_()
    assert "<script" not in page
