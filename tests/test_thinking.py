"""The think block: found by looked-up ids, closed at the budget."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_course import vocabulary
from qwen_course.thinking import EARLY_STOP, budget_processor, split_thinking, token_id

# Qwen3 report, section 4.3.
OFFICIAL_EARLY_STOP = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on"
    " the thinking directly now.\n</think>\n\n"
)


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.qwen3_tokenizer()


def ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


def plain(tokenizer, text):
    """Encode what a person typed: the markers in it are characters, not tokens."""
    pieces = text.replace("think>", "\0think>").split("\0")
    return [token for piece in pieces for token in ids(tokenizer, piece)]


def drive(processor, wish, start=(7, 7, 7), steps=60):
    """Generate greedily from a model that would write `wish`, step by step."""
    row = list(start)
    for step in range(steps):
        scores = torch.zeros(1, 151_936)
        scores[0, wish[min(step, len(wish) - 1)]] = 1.0
        row.append(int(processor(torch.tensor([row]), scores)[0].argmax()))
    return row[len(start) :]


@pytest.mark.parametrize(
    ("text", "thinking", "answer", "closed"),
    [
        ("<think>\nadd\n</think>\n\n4", "\nadd\n", "\n\n4", True),
        ("4", "", "4", True),
        ("<think>\nadd", "\nadd", "", False),
        ("add\n</think>\n\n4", "add\n", "\n\n4", True),
        ("<think>a</think>b</think>c", "a", "b</think>c", True),
        ("<think></think>", "", "", True),
        ("Well. <think>a</think>4", "a", "Well. 4", True),
        ("<think>a</think>4<think>b</think>!", "ab", "4!", True),
        ("<think>a</think>4<think>b", "ab", "4", False),
        ("<think>a<think>b</think>4", "a<think>b", "4", True),
        ("", "", "", True),
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


def test_a_tokenizer_without_thinking_makes_everything_an_answer(tokenizer):
    class Qwen25:
        get_added_vocab = staticmethod(dict)

    parts = split_thinking(ids(tokenizer, "<think>a</think>4"), Qwen25())
    assert not parts.thinking
    assert len(parts.answer) == 4


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(
        st.one_of(st.integers(0, 151_668), st.sampled_from([151_667, 151_668])),
        max_size=40,
    ),
    opened=st.booleans(),
)
def test_splitting_loses_nothing_but_the_markers_it_read(tokenizer, tokens, opened):
    parts = split_thinking(tokens, tokenizer, opened)
    start, end = (token_id(tokenizer, name) for name in ("<think>", "</think>"))
    kept = parts.thinking + parts.answer
    removed = len(tokens) - len(kept)
    assert removed <= tokens.count(start) + tokens.count(end)
    others = [token for token in tokens if token not in (start, end)]
    assert sorted(token for token in kept if token not in (start, end)) == sorted(
        others
    )
    # In order, and no marker on the wrong side of its own.
    for part in parts[:2]:
        rest = iter(tokens)
        assert all(token in rest for token in part)
    assert end not in parts.thinking
    assert start not in parts.answer


@settings(max_examples=200, deadline=None)
@given(thinking=st.text(max_size=30), answer=st.text(max_size=30))
def test_any_text_comes_back_from_a_reply_made_of_it(tokenizer, thinking, answer):
    """Also where the text spells a marker: typed, it is characters and no token."""
    thought, answered = plain(tokenizer, thinking), plain(tokenizer, answer)
    start, end = (token_id(tokenizer, name) for name in ("<think>", "</think>"))
    parts = split_thinking([start, *thought, end, *answered], tokenizer)
    assert parts == (thought, answered, True)
    unfinished = split_thinking([start, *thought], tokenizer)
    assert unfinished == (thought, [], False)
    in_the_prompt = split_thinking([*thought, end, *answered], tokenizer, opened=True)
    assert in_the_prompt == (thought, answered, True)


def test_a_marker_that_somebody_typed_ends_no_block(tokenizer):
    typed = plain(tokenizer, "the tag </think> ends it")
    reply = [*ids(tokenizer, "<think>"), *typed, *ids(tokenizer, "</think>4")]
    parts = split_thinking(reply, tokenizer)
    assert tokenizer.decode(parts.thinking) == "the tag </think> ends it"
    assert tokenizer.decode(parts.answer) == "4"


def test_a_row_of_a_tensor_is_split_like_a_list(tokenizer):
    row = ids(tokenizer, "<think>add</think>4")
    assert split_thinking(torch.tensor(row), tokenizer) == split_thinking(
        row, tokenizer
    )


@pytest.mark.parametrize(
    "wrong", ["<think>add</think>4", torch.tensor([[1, 2]]), [[1]]]
)
def test_text_or_a_batch_is_refused_with_what_to_pass(tokenizer, wrong):
    with pytest.raises(
        TypeError, match=r"give it the ids of one reply, such as output"
    ):
        split_thinking(wrong, tokenizer)


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(1, 12),
    natural=st.integers(0, 20),
    second=st.integers(0, 6),
    opened=st.booleans(),
)
def test_a_row_never_thinks_past_its_budget(tokenizer, budget, natural, second, opened):
    """A model that would think for `natural` tokens, and then again for `second`."""
    start, end = (token_id(tokenizer, name) for name in ("<think>", "</think>"))
    wish = [start] * (not opened) + [1000] * natural + [end, 2000]
    if second:
        wish += [start, *[1000] * second, end, 2000]
    processor = budget_processor(tokenizer, budget, prompt_tokens=3, opened=opened)
    parts = split_thinking(drive(processor, wish), tokenizer, opened)
    forced = len(ids(tokenizer, EARLY_STOP.split("</think>")[0]))
    assert parts.closed
    assert len(parts.thinking) <= budget + forced
    if natural + second < budget:
        assert len(parts.thinking) == natural + second
    assert parts.answer[-1] == 2000


@settings(max_examples=40, deadline=None)
@given(budget=st.integers(1, 20), natural=st.integers(0, 30))
def test_the_whole_early_stop_text_is_written_and_nothing_before_it_is_changed(
    tokenizer, budget, natural
):
    start, end = (token_id(tokenizer, name) for name in ("<think>", "</think>"))
    wish = [start, *range(1000, 1000 + natural), end, 2000]
    stop = ids(tokenizer, OFFICIAL_EARLY_STOP)
    processor = budget_processor(tokenizer, budget, 3, early_stop=OFFICIAL_EARLY_STOP)
    written = drive(processor, wish)
    if natural < budget:
        assert written[: len(wish)] == wish
    else:
        kept = [start, *range(1000, 1000 + budget)]
        assert written[: len(kept) + len(stop)] == kept + stop


def test_each_row_of_a_batch_has_its_own_budget_to_spend(tokenizer):
    start, end = (token_id(tokenizer, name) for name in ("<think>", "</think>"))
    processor = budget_processor(tokenizer, budget=2, prompt_tokens=1)
    rows = [[7, start, 1000, 1000], [7, start, 1000, end], [7, 2000, 2000, 2000]]
    scores = processor(torch.tensor(rows), torch.zeros(3, 151_936))
    assert scores[0].argmax() == ids(tokenizer, EARLY_STOP)[0]
    assert scores[0].isinf().sum() == 151_935
    assert not scores[1:].any()


def test_qwens_own_early_stop_text_has_the_24_tokens_that_its_documentation_says(
    tokenizer,
):
    assert len(ids(tokenizer, OFFICIAL_EARLY_STOP)) == 24


def test_two_calls_write_what_the_processor_writes(pocket):
    """What lesson 03 shows; a batch of one, greedy, on the pocket model."""
    model, tokenizer = pocket
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 38 + 47 + 59 + 86?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    used = prompt["input_ids"].shape[1]
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    processor = budget_processor(tokenizer, 20, used)
    one = model.generate(
        **prompt, max_new_tokens=40, logits_processor=[processor], **greedy
    )
    thought = model.generate(**prompt, max_new_tokens=21, **greedy)
    stop = torch.tensor([ids(tokenizer, EARLY_STOP)])
    whole = torch.cat([thought, stop], dim=1)
    two = model.generate(
        input_ids=whole,
        attention_mask=torch.ones_like(whole),
        max_new_tokens=10,
        **greedy,
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize("budget", [0, -3, 1.5, "64", True])
def test_a_budget_that_is_no_positive_number_is_refused(tokenizer, budget):
    with pytest.raises(ValueError, match="thinking_budget is"):
        budget_processor(tokenizer, budget, prompt_tokens=1)


def test_an_early_stop_text_that_closes_nothing_is_refused(tokenizer):
    with pytest.raises(ValueError, match="must hold </think>"):
        budget_processor(tokenizer, 8, prompt_tokens=1, early_stop="\nEnough.\n")
