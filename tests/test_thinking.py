"""The think block: found by looked-up ids, closed at the budget."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_course import vocabulary
from qwen_course.thinking import EARLY_STOP, budget_processor, split_thinking, token_id


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.qwen3_tokenizer()


def ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("text", "thinking", "answer", "closed"),
    [
        ("<think>\nadd\n</think>\n\n4", "\nadd\n", "\n\n4", True),
        ("4", "", "4", True),
        ("<think>\nadd", "\nadd", "", False),
        ("add\n</think>\n\n4", "add\n", "\n\n4", True),
        ("<think>a</think>b</think>c", "a", "b</think>c", True),
        ("<think></think>", "", "", True),
    ],
)
def test_a_reply_is_split_whatever_became_of_its_block(
    tokenizer, text, thinking, answer, closed
):
    parts = split_thinking(ids(tokenizer, text), tokenizer)
    assert tokenizer.decode(parts.thinking) == thinking
    assert tokenizer.decode(parts.answer) == answer
    assert parts.closed is closed


def test_a_prompt_that_already_opened_the_block_is_thinking_from_the_start(tokenizer):
    parts = split_thinking(ids(tokenizer, "still adding"), tokenizer, opened=True)
    assert not parts.answer
    assert not parts.closed


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 151_668), max_size=40))
def test_splitting_loses_nothing_but_the_two_markers(tokenizer, tokens):
    parts = split_thinking(tokens, tokenizer)
    kept = len(parts.thinking) + len(parts.answer)
    before = len(tokens) - kept
    start = token_id(tokenizer, "<think>")
    prefix = tokens.index(start) if start in tokens else 0
    assert 0 <= before - prefix <= 2


@settings(max_examples=60, deadline=None)
@given(budget=st.integers(1, 12), natural=st.integers(0, 20))
def test_a_row_never_thinks_past_its_budget(tokenizer, budget, natural):
    """A model that would think for `natural` tokens, driven step by step."""
    start, end = (token_id(tokenizer, name) for name in ("<think>", "</think>"))
    wish = [start, *[1000] * natural, end, 2000]
    processor = budget_processor(tokenizer, budget, prompt_tokens=3)
    row = [7, 7, 7]
    for step in range(40):
        scores = torch.zeros(1, len(tokenizer))
        scores[0, wish[min(step, len(wish) - 1)]] = 1.0
        row.append(int(processor(torch.tensor([row]), scores)[0].argmax()))
    parts = split_thinking(row[3:], tokenizer)
    forced = len(ids(tokenizer, EARLY_STOP.split("</think>")[0]))
    assert parts.closed
    assert len(parts.thinking) == (natural if natural < budget else budget + forced)


@pytest.mark.parametrize("budget", [0, -3, 1.5, "64", True])
def test_a_budget_that_is_no_positive_number_is_refused(tokenizer, budget):
    with pytest.raises(ValueError, match="thinking_budget is"):
        budget_processor(tokenizer, budget, prompt_tokens=1)
