"""Inference by hand: every faster way writes what the plain way writes."""

import itertools

import pytest
import torch
from transformers.cache_utils import DynamicCache

import qwen_course as qc
from qwen_course import inference, memory, meters
from qwen_course.chat import GREEDY
from qwen_course.messages import check_messages, encode

LIMIT = 48


def prompt(tokenizer, text):
    return encode(tokenizer, check_messages(text), True)


@pytest.fixture(scope="module")
def asked(pocket):
    """Prompts of several lengths, and what `generate` writes after each alone."""
    model, tokenizer = pocket
    problems = [
        *(qc.tasks.sums.problems(1, seed=4, count=n)[0] for n in (2, 5, 3)),
        *qc.tasks.word_problems.problems(2, seed=4),
        qc.tasks.sums.problems(1, seed=5, count=2)[0],
    ]
    rows = [prompt(tokenizer, problem.question) for problem in problems]
    outputs = [
        model.generate(
            input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row)),
            max_new_tokens=LIMIT, pad_token_id=tokenizer.pad_token_id, **GREEDY,
        )[0, len(row) :].tolist()
        for row in rows
    ]  # fmt: skip
    return rows, outputs


# One sequence


def test_writing_by_hand_gives_what_generate_gives(pocket, asked):
    for row, output in zip(*asked, strict=True):
        assert inference.write(pocket[0], row, LIMIT).ids == output


def test_without_the_cache_the_same_is_written(pocket, asked):
    rows, outputs = asked
    assert inference.write(pocket[0], rows[0], LIMIT, use_cache=False).ids == outputs[0]


def test_each_token_has_its_moment_and_the_first_is_the_prefill(pocket, asked):
    written = inference.write(pocket[0], asked[0][1], 9, stop=False)
    assert len(written.ids) == len(written.moments) == 9
    assert all(gap > 0 for gap in written.gaps)
    assert len(written.gaps) == 8
    assert written.time_to_first_token == written.moments[0]
    expected = 8 / (written.moments[-1] - written.moments[0])
    assert written.tokens_per_second == pytest.approx(expected)


def test_measuring_does_not_stop_at_the_end_token(pocket, asked):
    rows, outputs = asked
    written = inference.write(pocket[0], rows[0], len(outputs[0]) + 5, stop=False)
    assert len(written.ids) == len(outputs[0]) + 5
    assert written.ids[: len(outputs[0])] == outputs[0]


def test_a_stream_adds_up_to_the_text_and_never_cuts_a_character(pocket):
    model, tokenizer = pocket
    row = prompt(tokenizer, "谁创造了Qwen？")
    pieces = list(inference.stream(model, tokenizer, row, LIMIT))
    new = inference.write(model, row, LIMIT).ids
    whole = tokenizer.decode([id for id in new if id != tokenizer.eos_token_id])
    assert "".join(pieces) == whole
    assert any(ord(letter) > 0x4E00 for letter in whole)
    assert not any("\ufffd" in piece for piece in pieces)


# The cache as a dictionary


def test_the_dictionary_holds_what_the_librarys_cache_holds(pocket, asked):
    model, rows = pocket[0], asked[0]
    ids, theirs, ours = torch.tensor([rows[1]]), DynamicCache(config=model.config), {}
    with torch.no_grad():
        expected = model(ids, past_key_values=theirs).logits
        assert torch.allclose(inference.forward(model, ids, ours), expected, atol=1e-4)
        token = expected[:, -1:].argmax(-1)
        expected = model(token, past_key_values=theirs).logits
        found = inference.forward(model, token, ours)
    assert torch.allclose(found, expected, atol=1e-4)
    assert len(ours) == model.config.num_hidden_layers
    for number, layer in enumerate(theirs.layers):
        assert torch.allclose(ours[number][0], layer.keys, atol=1e-4)
        assert torch.allclose(ours[number][1], layer.values, atol=1e-4)


def test_a_prompt_may_be_read_in_pieces(pocket, asked):
    model, row = pocket[0], asked[0][1]
    whole, pieces = {}, {}
    with torch.no_grad():
        once = inference.forward(model, torch.tensor([row]), whole)[0, -1]
        for part in (row[:5], row[5:6], row[6:]):
            last = inference.forward(model, torch.tensor([part]), pieces)[0, -1]
    assert torch.allclose(once, last, atol=1e-4)
    assert inference.cached_tokens(pieces) == inference.cached_tokens(whole) == len(row)


def test_the_cache_is_as_large_as_the_formula_says(pocket, asked):
    model, row = pocket[0], asked[0][0]
    cache = {}
    with torch.no_grad():
        inference.forward(model, torch.tensor([row]), cache)
    size = memory.dimensions(model.config)
    assert meters.cache_bytes(cache) == memory.kv_cache_bytes(size, len(row), 4)


def test_the_forward_pass_says_which_models_it_is_made_for():
    model, _ = qc.load("pocket-qwen3-moe")
    with pytest.raises(ValueError, match="made for qwen3 and not for qwen3_moe"):
        inference.forward(model, torch.tensor([[1]]), {})


# Many sequences


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("places", [1, 3, 8])
def test_each_request_gets_the_answer_it_gets_alone(pocket, asked, places, continuous):
    rows, outputs = asked
    served = inference.serve(
        pocket[0], rows, LIMIT, places=places, continuous=continuous
    )
    assert served.outputs == outputs
    assert served.tokens == sum(map(len, outputs))


def test_a_place_holds_one_request_at_a_time_and_never_idles_in_a_queue(pocket, asked):
    served = inference.serve(pocket[0], asked[0], LIMIT, places=2)
    for place in range(2):
        stays = sorted(stay.begin for stay in served.stays if stay.slot == place)
        ends = sorted(stay.end for stay in served.stays if stay.slot == place)
        assert all(
            begin == end for begin, end in zip(stays[1:], ends[:-1], strict=True)
        )
    for stay, output in zip(served.stays, served.outputs, strict=True):
        assert stay.end - stay.begin == len(output)


def test_a_batch_that_waits_for_its_longest_needs_more_passes(pocket, asked):
    rows = asked[0]
    limits = [4, 40, 4, 4, 40, 4]
    waits, flows = (
        inference.serve(pocket[0], rows, limits, places=2, continuous=way)
        for way in (False, True)
    )
    assert waits.outputs == flows.outputs
    lengths = [len(output) for output in flows.outputs]
    assert all(a <= b for a, b in zip(lengths, limits, strict=True))
    assert flows.passes < waits.passes
    assert flows.used > waits.used


def test_the_picture_shows_a_bar_for_each_request(pocket, asked):
    served = inference.serve(pocket[0], asked[0], 6, places=3)
    axes = served.plot().axes[0]
    assert len(axes.patches) == 2 * len(asked[0])
    assert f"{served.passes} passes" in axes.get_title()


def test_an_empty_queue_is_served_at_once(pocket):
    assert inference.serve(pocket[0], []).outputs == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"places": 0}, "must be 1 or more"),
        ({"max_new_tokens": 0}, "must be 1 or more"),
        ({"max_new_tokens": [3, 4]}, "2 numbers for 1 requests"),
    ],
)
def test_wrong_numbers_are_refused_with_a_remedy(pocket, given, message):
    with pytest.raises(ValueError, match=message):
        inference.serve(pocket[0], [[1, 2]], **given)


# Drafts


def nothing(text, drafted):
    return []


def nonsense(text, drafted):
    return [7] * drafted


@pytest.mark.parametrize("propose", [inference.lookup, nothing, nonsense])
def test_drafts_change_the_number_of_passes_and_not_the_text(pocket, asked, propose):
    for row, output in zip(*asked, strict=True):
        found = inference.speculate(pocket[0], row, propose, 4, LIMIT)
        assert found.ids == output
        assert sum(written for _, _, written in found.rounds) == len(output)
        if propose is nothing:
            assert found.tokens_per_pass == 1


def test_looking_back_is_right_where_the_text_repeats_itself(pocket, asked):
    rows, outputs = asked
    found = inference.speculate(pocket[0], rows[1], inference.lookup, 4, LIMIT)
    assert found.tokens_per_pass > 1.1
    assert len(found.rounds) < len(outputs[1])


def test_a_model_agrees_with_itself(pocket, asked):
    draft = inference.Draft(pocket[0])
    for row, output in zip(*asked, strict=True):  # its cache follows to each text
        found = inference.speculate(pocket[0], row, draft, 3, LIMIT)
        assert found.ids == output
        assert set(found.rounds[:-1]) == {(3, 3, 4)}


def test_another_model_of_the_same_vocabulary_may_draft(pocket, asked):
    draft = inference.Draft(qc.load("pocket-qwen3-moe")[0])
    rows, outputs = asked
    found = inference.speculate(pocket[0], rows[1], draft, 4, LIMIT)
    assert found.ids == outputs[1]
    assert 0 < found.acceptance <= 1


def test_accepted_tokens_stand_in_brackets(pocket, asked):
    model, tokenizer = pocket
    found = inference.speculate(model, asked[0][0], inference.lookup, 4, LIMIT)
    marked = found.marked(tokenizer)
    assert marked.replace("[", "").replace("]", "") == tokenizer.decode(found.ids)
    assert marked.count("[") == sum(right > 0 for _, right, _ in found.rounds)


def test_looking_back_takes_the_longest_and_latest_match():
    assert inference.lookup([1, 2, 3, 8, 2, 3, 9, 2, 3], 2) == [9, 2]
    assert inference.lookup([1, 2, 3, 9, 5, 3, 7, 1, 2, 3], 1) == [9]
    assert inference.lookup([1, 2, 3], 4) == []
    assert inference.lookup([1], 4) == []


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_expected_tokens_are_the_mean_of_many_rounds(share):
    """Counted over every outcome of three guesses, each right with this probability."""
    mean = 0.0
    for outcome in itertools.product((True, False), repeat=3):
        chance = share ** sum(outcome) * (1 - share) ** (3 - sum(outcome))
        right = next((n for n, good in enumerate(outcome) if not good), 3)
        mean += chance * (right + 1)
    assert inference.expected_tokens(share, 3) == pytest.approx(mean)


def test_a_draft_as_dear_as_the_model_never_pays():
    for share in (0.5, 0.9, 1.0):
        assert inference.expected_speedup(share, 4, cost=1.0) <= 1
    assert inference.expected_speedup(0.8, 4, cost=0.1) > 2


# Settings of torch


def test_the_number_of_threads_comes_back_after_an_error():
    before = torch.get_num_threads()
    seen = []

    def fail():
        with inference.threads(before + 1):
            seen.append(torch.get_num_threads())
            raise KeyError

    pytest.raises(KeyError, fail)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_one_compilation_serves_every_layer_and_writes_the_same(pocket, asked):
    from torch._dynamo.utils import counters

    model, rows, outputs = pocket[0], *asked
    counters.clear()
    with inference.compiled_feed_forward(model, backend="eager", dynamic=True):
        assert inference.write(model, rows[0], 8).ids == outputs[0][:8]
        assert counters["stats"]["unique_graphs"] <= 2  # the prompt, one token
    plain = model.model.layers[0].mlp.forward
    assert not hasattr(plain, "_torchdynamo_orig_callable")


# Long texts


def long_prompt(tokenizer, turns):
    """Return a long conversation that ends in a question, and the answer to it."""
    talk = []
    for problem in qc.tasks.sums.problems(turns, seed=77, count=3):
        talk.append({"role": "user", "content": problem.question})
        talk.append({"role": "assistant", "content": problem.answer})
    last = qc.tasks.sums.problems(1, seed=5, count=4)[0]
    ids = encode(tokenizer, [*talk, {"role": "user", "content": last.question}], True)
    answer = f"<think>\n{last.thinking}\n</think>\n\n{last.answer}<|im_end|>"
    return ids, tokenizer(answer)["input_ids"]


def test_yarn_helps_beyond_the_length_of_the_training_and_costs_little_before(pocket):
    model, tokenizer = pocket
    longer = inference.with_yarn(model, 2.0, trained=416)
    near, far = (long_prompt(tokenizer, turns) for turns in (0, 16))
    assert len(far[0]) + len(far[1]) > 416
    assert inference.loss_after(longer, *far) < inference.loss_after(model, *far)
    assert inference.loss_after(longer, *near) < 0.1


def test_yarn_shares_the_weights_and_leaves_the_model_as_it_was(pocket, asked):
    model, rows, outputs = pocket[0], *asked
    longer = inference.with_yarn(model, 4.0, trained=416)
    assert longer.config.max_position_embeddings == 1664
    assert model.config.rope_parameters["rope_type"] == "default"
    ours, theirs = dict(model.named_parameters()), dict(longer.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[key].data_ptr() == theirs[key].data_ptr() for key in ours)
    assert inference.write(model, rows[0], 8).ids == outputs[0][:8]


def test_a_factor_of_one_changes_nothing(pocket, asked):
    same = inference.with_yarn(pocket[0], 1.0)
    rows, outputs = asked
    assert inference.write(same, rows[1], LIMIT).ids == outputs[1]


def test_a_factor_below_one_is_refused(pocket):
    with pytest.raises(ValueError, match="factor of 1 or more"):
        inference.with_yarn(pocket[0], 0.5)


def test_the_loss_of_a_certain_answer_is_near_nought(pocket, asked):
    model, rows, outputs = pocket[0], *asked
    assert inference.loss_after(model, rows[0], outputs[0]) < 0.05
    assert inference.loss_after(model, rows[0], outputs[0][::-1]) > 1
