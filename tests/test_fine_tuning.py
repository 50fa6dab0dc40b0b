"""Fine-tuning: rows checked one by one, labels that mean it, runs that survive."""

import copy
import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qwen_course as qc
from qwen_course import chat_data, fine_tuning
from qwen_course.chat_data import IGNORE, BadData
from qwen_course.evaluation import Score
from qwen_course.fine_tuning import Settings
from qwen_course.tasks import roman_numerals, sums

QUICK = {"log_every": 1, "rows": 2, "row_length": 64, "learning_rate": 1e-2}


def row(*messages, **more):
    """A row from pairs of role and content."""
    return {"messages": [{"role": r, "content": c} for r, c in messages], **more}


GOOD = row(("user", "What is 2 + 2?"), ("assistant", "4"))


@pytest.fixture
def tiny(make_speaker):
    """A model for one test alone, which may change it."""
    return make_speaker()


@pytest.fixture(scope="session")
def tokenizer(pocket):
    return pocket[1]


@pytest.fixture
def examples(tokenizer):
    rows = chat_data.from_problems(sums.problems(24, split="train", count=2))
    return chat_data.encode(rows, tokenizer)


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()
            if p.requires_grad}  # fmt: skip


def same(some, others):
    return all(torch.equal(some[name], others[name]) for name in some)


# The skill


def test_every_numeral_is_written_and_read_back():
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    for number in range(1, roman_numerals.LARGEST + 1):
        worth = [values[letter] for letter in roman_numerals.roman(number)]
        pairs = zip(worth, [*worth[1:], 0], strict=True)
        assert sum(-a if a < b else a for a, b in pairs) == number


def test_a_number_is_of_one_split_in_both_directions():
    seen = {p.content for p in roman_numerals.problems(2000, split="train")}
    for kind in ("to Roman", "from Roman"):
        held_out = roman_numerals.problems(300, split="test", kind=kind)
        assert not seen & {p.content for p in held_out}
        assert all(p.grade(p.answer) for p in held_out)


def test_a_numeral_inside_another_is_not_the_answer():
    problem = roman_numerals.problems(1, kind="to Roman")[0]
    letters = problem.expected
    assert problem.grade(f"It is {letters}.")
    assert not problem.grade(f"X{letters}")
    assert not problem.grade(problem.question)
    assert not problem.grade("")


def test_the_steps_of_a_conversion_add_up():
    for problem in roman_numerals.problems(100, kind="to Roman"):
        lines = [line.split(" = ") for line in problem.thinking.splitlines()]
        assert "".join(part for _, part in lines) == problem.answer


# Bad rows: which row, which key, what to do


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"mesages": []}, r'row 2: has no key messages.*Did you mean "messages"'),
        ({}, "row 2: has no key messages; it has no keys"),
        ("text", "row 2: has no key messages"),
        ({"messages": []}, "row 2, messages: must be a list of messages, not empty"),
        ({"messages": ["Hi"]}, r"row 2, messages\[0\]: must be .*role"),
        ({"messages": [{"content": "Hi"}]}, r"messages\[0\]: has no key role.*user"),
        ({"messages": [{"from": "human", "value": "Hi"}]}, 'has "from"; rename it'),
        (row(("human", "Hi"), ("assistant", "x")), r'"human" is no role. Write "user"'),
        (row(("user", "Hi"), ("asistant", "x")), 'Did you mean "assistant"'),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: has no key content"),
        (row(("user", ["Hi"]), ("assistant", "x")), "must be a text, not list"),
        (row(("user", "Hi"), ("assistant", "  ")), r"\[1\].content: is empty"),
        (row(("user", ""), ("assistant", "x")), r"\[0\].content: is empty"),
        (row(("user", "Hi")), "has no answer; the last message must be of the assist"),
        (row(("assistant", "x")), "has no question"),
        (row(("user", "a"), ("user", "b"), ("assistant", "x")), "join the two"),
        (row(("user", "a"), ("system", "b"), ("assistant", "x")), "system must be the"),
        (row(("user", "a<|im_end|>"), ("assistant", "x")), "control tokens"),
    ],
)  # fmt: skip
def test_a_bad_row_says_where_it_is_and_what_to_do(bad, message):
    with pytest.raises(BadData, match=message):
        chat_data.check([GOOD, bad])


def test_all_bad_rows_are_told_at_once():
    bad = [row(("user", "Hi")), GOOD, row(("user", "Hi"), ("assistant", ""))]
    with pytest.raises(BadData) as caught:
        chat_data.check(bad)
    assert [fault.row for fault in caught.value.faults] == [1, 3]
    assert "2 faults" in str(caught.value)


def test_a_thousand_bad_rows_make_a_short_message():
    with pytest.raises(BadData, match="1000 faults") as caught:
        chat_data.check([row(("user", "Hi"))] * 1000)
    assert len(str(caught.value)) < 2000


def test_good_rows_of_every_form_are_accepted():
    call = {"function": {"name": "add", "arguments": {}}}
    with_tools = {"messages": [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "4", "reasoning_content": "It says 4."},
    ]}  # fmt: skip
    chat_data.check([GOOD, with_tools, row(("system", "Be brief."), *[
        (m["role"], m["content"]) for m in GOOD["messages"]])])  # fmt: skip


def test_a_file_tells_every_line_that_cannot_be_read(tmp_path):
    good = json.dumps(GOOD, ensure_ascii=False).encode()
    latin = json.dumps(row(("user", "Où?"), ("assistant", "Là.")), ensure_ascii=False)
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join([
        good, b'{"messages": [', latin.encode("latin-1"), b"", b"[1, 2]",
        json.dumps(row(("user", "Hi"))).encode(), good,
    ]))  # fmt: skip
    with pytest.raises(BadData) as caught:
        chat_data.read_jsonl(path)
    text = str(caught.value)
    assert [fault.row for fault in caught.value.faults] == [2, 3, 5, 6]
    for told in ("data.jsonl: 4 faults", "column 15", "is not UTF-8 near", "Latin-1",
                 "is no object", "has no answer"):  # fmt: skip
        assert told in text


def test_a_file_of_good_rows_is_read_with_its_accents(tmp_path):
    rows = [row(("user", "Où?"), ("assistant", "Là. 你好")), GOOD]
    lines = "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "rows.jsonl").write_text(lines, encoding=encoding)
        assert chat_data.read_jsonl(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(GOOD).encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"\n\n", "holds no rows"),
    ],
)
def test_a_whole_file_that_is_wrong_says_so(tmp_path, content, message):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(BadData, match=message):
        chat_data.read_jsonl(tmp_path / "rows.jsonl")


def test_a_row_that_is_too_long_is_named_and_can_be_left_out(tokenizer):
    long = row(("user", "word " * 300), ("assistant", "x"))
    with pytest.raises(BadData, match=r"row 2: has \d+ tokens, more than 100"):
        chat_data.encode([GOOD, long], tokenizer, max_length=100)
    kept = chat_data.encode([GOOD, long], tokenizer, max_length=100, drop_long=True)
    assert len(kept) == 1


def test_the_same_question_is_never_in_both_parts():
    rows = [row(("user", f"q{n % 20}"), ("assistant", f"{n}")) for n in range(100)]
    train, aside = chat_data.split(rows, held_out=0.25, seed=1)
    questions = [{r["messages"][0]["content"] for r in part} for part in (train, aside)]
    assert not questions[0] & questions[1]
    assert (len(train), len(aside)) == (75, 25)
    with pytest.raises(ValueError, match="leaves one part empty"):
        chat_data.split(rows[:3], held_out=0.01)


# Labels


def learnt_text(example, tokenizer):
    return tokenizer.decode([i for i in example.labels if i != IGNORE])


def test_the_answer_and_its_end_are_learnt_and_nothing_else(tokenizer):
    example = chat_data.encode([GOOD], tokenizer)[0]
    assert learnt_text(example, tokenizer) == "4<|im_end|>"
    read = tokenizer.decode(example.ids[: example.labels.index(example.ids[-2])])
    asked = tokenizer.apply_chat_template(
        GOOD["messages"][:1], tokenize=False, add_generation_prompt=True,
        enable_thinking=False,
    )  # fmt: skip
    assert read == asked  # to the letter what generation will ask with


def test_an_answer_with_thinking_is_learnt_with_it(tokenizer):
    thinking = copy.deepcopy(GOOD)
    thinking["messages"][1]["reasoning_content"] = "2 + 2 = 4"
    example = chat_data.encode([thinking], tokenizer)[0]
    expected = "<think>\n2 + 2 = 4\n</think>\n\n4<|im_end|>"
    assert learnt_text(example, tokenizer) == expected


def test_the_empty_think_block_is_learnt_only_if_asked_for(tokenizer):
    plain = chat_data.encode([GOOD], tokenizer)[0]
    usual = chat_data.encode([GOOD], tokenizer, learn_empty_thinking=True)[0]
    assert plain.ids == usual.ids
    expected = "<think>\n\n</think>\n\n4<|im_end|>"
    assert learnt_text(usual, tokenizer) == expected


def test_every_answer_of_a_conversation_can_be_a_row():
    talk = row(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    rows = chat_data.every_turn([talk])
    assert [r["messages"][-1]["content"] for r in rows] == ["b", "d"]
    assert [len(r["messages"]) for r in rows] == [2, 4]


def test_pad_as_eos_hides_the_end_from_the_usual_collator_and_not_from_ours(tokenizer):
    """The published `pad_token = eos_token`: the model is never taught to stop."""
    from transformers import DataCollatorForLanguageModeling

    pairs = chat_data.encode([GOOD, row(("user", "Hi"), ("assistant", "Hello!"))],
                             tokenizer)  # fmt: skip
    eos = tokenizer.eos_token_id
    shifted = copy.deepcopy(tokenizer)
    shifted.pad_token = shifted.eos_token
    for chosen, ends in ((tokenizer, True), (shifted, False)):
        usual = DataCollatorForLanguageModeling(chosen, mlm=False)
        labels = usual([{"input_ids": e.ids} for e in pairs])["labels"]
        assert bool((labels == eos).any()) is ends
    ours = chat_data.collate(chat_data.one_a_row(pairs), pad=eos)
    assert (ours["labels"] == eos).sum() == 2


# Packing


def test_packing_loses_no_token_and_no_label(examples):
    rows = chat_data.pack(examples, length=96)
    assert sum(len(r["input_ids"]) for r in rows) == sum(map(len, examples))
    learnt = sum(i != IGNORE for r in rows for i in r["labels"])
    assert learnt == sum(i != IGNORE for e in examples for i in e.labels)
    assert max(len(r["input_ids"]) for r in rows) <= 96
    assert chat_data.filled(rows, 96) > 0.85
    with pytest.raises(ValueError, match="a length of at least"):
        chat_data.pack(examples, length=8)


def test_neighbours_in_a_packed_row_do_not_see_each_other(tiny, examples):
    rows = chat_data.pack(examples[:6], length=96)
    packed = chat_data.collate(rows, pad=0)
    packed.pop("labels")
    with torch.no_grad():
        together = tiny(**packed, use_cache=False).logits
        for number, line in enumerate(rows):
            starts = [n for n, p in enumerate(line["position_ids"]) if p == 0]
            ends = [*starts[1:], len(line["input_ids"])]
            for start, end in zip(starts, ends, strict=True):
                ids = torch.tensor([line["input_ids"][start:end]])
                alone = tiny(ids, use_cache=False).logits[0]
                assert torch.allclose(together[number, start:end], alone, atol=1e-5)


def test_packed_and_unpacked_rows_have_the_same_loss(tiny, examples, tokenizer):
    losses = {}
    for packing in (True, False):
        model = fine_tuning.attach_lora(copy.deepcopy(tiny), rank=2)
        # all examples in one step, so that the batches are the same
        rows = len(chat_data.pack(examples, 64)) if packing else len(examples)
        settings = Settings(**QUICK | {"steps": 1, "rows": rows, "packing": packing,
                                       "precision": "fp32"})  # fmt: skip
        losses[packing] = fine_tuning.train(model, tokenizer, examples, settings,
                                            live=False).loss  # fmt: skip
    assert losses[True] == pytest.approx(losses[False], abs=1e-3)


# LoRA


def test_a_new_adapter_changes_nothing_and_little_is_trained(tiny):
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = tiny(ids).logits
        model = fine_tuning.attach_lora(tiny, rank=4)
        assert torch.equal(model(ids).logits, before)
    share = fine_tuning.trained_parameters(model) / tiny.num_parameters()
    assert 0 < share < 0.2
    assert all("lora_" in n for n, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 2), ({"alpha": 4}, 1), ({"alpha": 4, "rslora": True}, 2)],
)
def test_the_scale_is_alpha_by_rank_or_by_its_root(tiny, options, scale):
    model = fine_tuning.attach_lora(tiny, rank=4, **options)
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    assert layer.scaling["default"] == scale


def test_dora_adds_a_magnitude_for_each_output(tiny):
    model = fine_tuning.attach_lora(tiny, rank=2, dora=True, targets=["q_proj"])
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert sum("magnitude" in name for name in names) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["q_prj"]}, r'"q_prj" is no linear layer.*k_proj.*mean "q_proj"'),
        ({"targets": ["q_proj", "c_attn"]}, '"c_attn" is no linear layer'),
        ({"targets": ["lm_head"]}, '"lm_head" is no linear layer'),
        ({"rank": 0}, "rank is 0; give 1 or more"),
        ({"dropout": 1.5}, "dropout is 1.5"),
    ],
)
def test_a_wrong_adapter_names_the_right_one(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        fine_tuning.attach_lora(tiny, **options)
    assert not hasattr(tiny, "peft_config")  # and the model is as it was


def test_peft_alone_is_silent_about_one_wrong_name_among_right_ones(tiny, recwarn):
    """What the lesson says of it: the reason for a check of our own."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny, LoraConfig(target_modules=["q_proj", "k_prj"]))
    assert fine_tuning.trained_parameters(model) > 0
    assert not [w for w in recwarn if "k_prj" in str(w.message)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"precision": "nf4"}, 'qc.load\\(precision="nf4"\\)'),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


# A run


def test_training_lowers_the_loss_and_leaves_the_frozen_weights(
    tiny, examples, tokenizer, capsys
):
    before = {n: p.clone() for n, p in tiny.named_parameters()}
    model = fine_tuning.attach_lora(tiny, rank=8)
    settings = Settings(**QUICK | {"steps": 12})
    result = fine_tuning.train(model, tokenizer, examples, settings)
    # so small a random model, its table frozen, can say little
    assert result.points[-1].loss < result.points[0].loss - 0.1
    assert result.steps == 12
    assert result.tokens_per_second > 0
    assert "step 12 of 12: loss" in capsys.readouterr().out
    for name, parameter in model.get_base_model().named_parameters():
        if "lora_" not in name:
            plain = name.replace(".base_layer", "")
            assert torch.equal(parameter, before[plain]), name


def test_a_frozen_model_is_refused(tiny, examples, tokenizer):
    tiny.requires_grad_(False)
    with pytest.raises(ValueError, match="attach_lora"):
        fine_tuning.train(tiny, tokenizer, examples)


def test_bad_rows_stop_a_run_before_it_begins(tiny, tokenizer):
    model = fine_tuning.attach_lora(tiny, rank=2)
    with pytest.raises(BadData, match="row 2"):
        fine_tuning.train(model, tokenizer, [GOOD, {}])


def test_the_held_out_accuracy_is_measured_and_drawn(tiny, examples, tokenizer):
    model = fine_tuning.attach_lora(tiny, rank=2)
    settings = Settings(steps=4, evaluate_every=2, **QUICK)
    result = fine_tuning.train(
        model, tokenizer, examples, settings, held_out=sums.problems(2, count=2),
        max_new_tokens=2, live=False,
    )  # fmt: skip
    measured = [p.step for p in result.points if p.accuracy is not None]
    assert measured == [2, 4]
    assert result.accuracy == 0
    left, right = result.plot().axes
    assert "tokens" not in right.get_ylabel()
    assert left.get_xlabel() == "step"


def test_a_copy_of_a_trained_model_computes_with_its_own_weights(
    tiny, examples, tokenizer
):
    """TRL leaves a forward on the model that knows the original alone."""
    model = fine_tuning.attach_lora(tiny, rank=2)
    settings = Settings(steps=1, **QUICK)
    fine_tuning.train(model, tokenizer, examples, settings, live=False)
    merged = fine_tuning.merge(model)
    twin = copy.deepcopy(merged)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(torch.arange(5)[None]).logits.any()
    assert "forward" not in vars(merged)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    tiny, examples, tokenizer, tmp_path
):
    settings = Settings(steps=6, save_every=2, keep=3, **QUICK)

    def run(folder):
        model = fine_tuning.attach_lora(copy.deepcopy(tiny), rank=4, dropout=0.1)
        result = fine_tuning.train(model, tokenizer, examples, settings, folder=folder,
                                   live=False)  # fmt: skip
        return trained(model), result

    whole, unbroken = run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    # killed while it wrote the last checkpoint, and once before, by an older program
    shutil.rmtree(tmp_path / "killed" / "checkpoint-6")
    half = tmp_path / "killed" / "unfinished" / "checkpoint-6"
    shutil.copytree(tmp_path / "killed" / "checkpoint-4", half)
    (tmp_path / "killed" / "checkpoint-5").mkdir()
    again, resumed = run(tmp_path / "killed")
    assert same(whole, again)
    assert [p.loss for p in resumed.points] == [p.loss for p in unbroken.points]
    assert [p.step for p in resumed.points] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "killed" / "unfinished").exists()


def test_a_folder_with_another_run_is_not_mixed_up(tiny, examples, tokenizer, tmp_path):
    model = fine_tuning.attach_lora(tiny, rank=2)
    settings = Settings(steps=2, save_every=1, **QUICK)
    options = {"folder": tmp_path / "run", "live": False}
    fine_tuning.train(model, tokenizer, examples, settings, **options)
    other = Settings(steps=2, save_every=1, **QUICK | {"learning_rate": 1e-3})
    with pytest.raises(ValueError, match=r"learning_rate 0.01 then, 0.001 now"):
        fine_tuning.train(model, tokenizer, examples, other, **options)
    fine_tuning.train(model, tokenizer, examples, other, resume=False, **options)


def test_a_full_disk_while_saving_leaves_the_checkpoint_before(
    tiny, examples, tokenizer, tmp_path, monkeypatch
):
    settings = Settings(steps=4, save_every=1, **QUICK)
    save, calls = torch.save, []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) > 5:  # in the middle of the third checkpoint or so
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*arguments, **options)

    monkeypatch.setattr(torch, "save", full)
    model = fine_tuning.attach_lora(tiny, rank=2)
    with pytest.raises(OSError, match="the disk is full.*is whole. Make room") as why:
        fine_tuning.train(model, tokenizer, examples, settings, folder=tmp_path,
                          live=False)  # fmt: skip
    kept = fine_tuning.latest_checkpoint(tmp_path)
    assert kept.name in str(why.value)
    assert (kept / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "unfinished").exists()
    monkeypatch.undo()
    result = fine_tuning.train(model, tokenizer, examples, settings, folder=tmp_path,
                               live=False)  # fmt: skip
    assert result.steps == 4


# After the run


def test_an_adapter_is_saved_read_again_and_merged(pocket, examples, tmp_path):
    model, tokenizer = qc.load("pocket-qwen3", device="cpu")
    adapted = fine_tuning.attach_lora(model, rank=2, targets=["q_proj"])
    settings = Settings(**QUICK | {"steps": 2})
    fine_tuning.train(adapted, tokenizer, examples, settings, live=False)
    size = fine_tuning.save_adapter(adapted, tokenizer, tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == "pocket-qwen3"  # no path of this machine
    assert size < 200_000

    again, its_tokenizer = fine_tuning.load_adapter(tmp_path / "adapter", device="cpu")
    ids = its_tokenizer("What is 2 + 2?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = adapted(ids).logits
        assert torch.allclose(again(ids).logits, expected, atol=1e-4)
        merged = fine_tuning.merge(again)
        assert torch.allclose(merged(ids).logits, expected, atol=1e-3)
    saved = fine_tuning.save_checkpoint(merged, its_tokenizer, tmp_path / "merged")
    assert saved == pytest.approx(13_900_000, rel=0.02)  # bf16, the table once
    whole, _ = qc.load(tmp_path / "merged", device="cpu")
    with torch.no_grad():
        # whole weights in bf16: three digits
        near = (whole(ids).logits.float() - expected).abs().max() / expected.abs().max()
    assert near < 0.05


def test_a_full_disk_leaves_the_adapter_that_was_there(tiny, tokenizer, tmp_path,
                                                       monkeypatch):  # fmt: skip
    model = fine_tuning.attach_lora(tiny, rank=2)
    fine_tuning.save_adapter(model, tokenizer, tmp_path / "mine")
    before = (tmp_path / "mine" / "adapter_model.safetensors").read_bytes()

    def full(folder, **options):
        (Path(folder) / "adapter_config.json").write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OSError, match="what was there is untouched"):
        fine_tuning.save_adapter(model, tokenizer, tmp_path / "mine")
    assert (tmp_path / "mine" / "adapter_model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_cannot_be_saved_or_loaded_says_what_to_call(tiny, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="save_checkpoint"):
        fine_tuning.save_adapter(tiny, tokenizer, tmp_path)
    with pytest.raises(OSError, match="holds no adapter"):
        fine_tuning.load_adapter(tmp_path)
    model = fine_tuning.attach_lora(tiny, rank=2)
    with pytest.raises(ValueError, match="merge"):
        fine_tuning.save_checkpoint(model, tokenizer, tmp_path / "x")


# QLoRA on a CPU


@pytest.fixture
def quantized():
    pytest.importorskip("bitsandbytes")
    return qc.load("pocket-qwen3", "nf4", device="cpu")


def gradients(model, ids):
    model.zero_grad()
    model.train()
    model(ids, labels=ids).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()
            if p.grad is not None}  # fmt: skip


def test_answering_in_between_does_not_cut_the_gradients(quantized):
    """bitsandbytes repacks a 4-bit layer that answers, and then passes no gradient."""
    model = fine_tuning.attach_lora(quantized[0], rank=2)
    ids = torch.tensor([[10, 20, 30, 40, 50]])
    before = gradients(model, ids)
    model.eval()
    with torch.no_grad():
        model(ids)
    after = gradients(model, ids)
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        assert torch.allclose(gradient, after[name], atol=1e-5), name


def test_a_quantized_model_that_has_answered_is_refused(quantized):
    functional = pytest.importorskip("bitsandbytes.functional")
    if not functional.has_avx512bf16():
        pytest.skip("this CPU has no bf16 instructions, so nothing is repacked")
    with torch.no_grad():
        quantized[0](torch.tensor([[1, 2, 3]]))
    with pytest.raises(ValueError, match="Load the model again, and attach LoRA"):
        fine_tuning.attach_lora(quantized[0])


def test_qlora_trains_small_matrices_over_four_bits(quantized, tmp_path):
    model, tokenizer = quantized
    rows = chat_data.from_problems(roman_numerals.problems(24, split="train"))
    examples = chat_data.encode(rows, tokenizer)
    adapted = fine_tuning.attach_lora(model, rank=4)
    settings = Settings(**QUICK | {"steps": 4, "learning_rate": 3e-3})
    result = fine_tuning.train(adapted, tokenizer, examples, settings, live=False)
    assert result.points[-1].loss < result.points[0].loss
    kinds = {p.dtype for p in adapted.parameters() if p.requires_grad}
    assert kinds == {torch.float32}  # bf16 would lose small steps
    with pytest.raises(ValueError, match="load_adapter"):
        fine_tuning.merge(adapted)
    fine_tuning.save_adapter(adapted, tokenizer, tmp_path / "q")
    whole, _ = fine_tuning.load_adapter(tmp_path / "q", device="cpu")
    assert fine_tuning.merge(whole).dtype == torch.float32


# Before and after


def test_a_comparison_shows_what_was_won_and_lost():
    changes = fine_tuning.compare(
        {"new": Score(0, 100), "old": Score(97, 100)},
        {"new": Score(96, 100), "old": Score(95, 100), "other": Score(1, 1)},
    )
    assert [round(change.points) for change in changes] == [96, -2]
    assert re.search(r"new\s+0.0%\s+96.0%\s+\+96.0", repr(changes))
    with pytest.raises(ValueError, match="Measure the same sets"):
        fine_tuning.compare({"new": Score(0, 1)}, {"old": Score(0, 1)})


def test_replay_mixes_thinking_and_direct_answers():
    rows = fine_tuning.replay({"sums": 4, "products": 2}, thinking=0.5)
    thought = ["reasoning_content" in r["messages"][-1] for r in rows]
    assert thought == [True, True, False, False, True, False]
    chat_data.check(rows)


# Without the extra packages


def test_the_module_is_read_without_torch_and_trl_is_named_when_missing(monkeypatch):
    code = (
        "import sys; sys.modules['trl'] = sys.modules['datasets'] = None; "
        "from qwen_course import chat_data, fine_tuning; "
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs the package trl.*pip install"):
        fine_tuning._need_trl()


def test_a_preference_run_leaves_one_adapter_and_the_models_own_forward(
    tiny, tokenizer, tmp_path
):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    problems = sums.problems(4, split="train", count=2)

    def said(text):
        return [{"role": "assistant", "content": text}]

    pairs = Dataset.from_list([
        {"prompt": p.prompt, "chosen": said(f"It is {p.answer}."),
         "rejected": said(p.answer), "chat_template_kwargs": {"enable_thinking": False}}
        for p in problems
    ])  # fmt: skip
    config = DPOConfig(
        str(tmp_path), max_steps=1, per_device_train_batch_size=2, save_strategy="no",
        use_cpu=True, report_to="none", logging_steps=1, gradient_checkpointing=False,
    )  # fmt: skip
    model = fine_tuning.attach_lora(tiny, rank=2)
    trainer = DPOTrainer(
        model=model, args=config, train_dataset=pairs, processing_class=tokenizer
    )
    logged = fine_tuning.run(trainer)
    assert logged[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: no preference
    assert list(model.peft_config) == ["default"]
    assert "forward" not in vars(tiny)
    assert not model.training


# Real checkpoints: the same calls


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("Qwen/Qwen3-0.6B", "<think>"),
        ("Qwen/Qwen2.5-7B-Instruct", "You are Qwen, created by Alibaba Cloud"),
    ],
)
def test_a_real_checkpoint_is_trained_saved_and_merged_by_the_same_calls(
    name, read, hub_home, tmp_path
):
    model, tokenizer = qc.load(name, precision="fp32")
    rows = chat_data.from_problems(sums.problems(6, split="train", count=2))
    prompt, answer = chat_data.prompt_and_answer(rows[0], tokenizer)
    assert read in prompt
    assert answer == rows[0]["messages"][-1]["content"] + "<|im_end|>"
    adapted = fine_tuning.attach_lora(model, rank=2)
    settings = Settings(**QUICK | {"steps": 2, "learning_rate": 2e-4})
    told = fine_tuning.train(adapted, tokenizer, rows, settings, live=False)
    assert told.steps == 2
    fine_tuning.save_adapter(adapted, tokenizer, tmp_path / "adapter")
    again, _ = fine_tuning.load_adapter(tmp_path / "adapter", precision="fp32")
    assert again.peft_config["default"].base_model_name_or_path == name
    merged = fine_tuning.merge(again)
    fine_tuning.save_checkpoint(merged, tokenizer, tmp_path / "merged")
    assert qc.load(tmp_path / "merged")[0].num_parameters() == merged.num_parameters()
