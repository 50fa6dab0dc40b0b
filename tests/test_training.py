"""The recipe: batches that repeat, masks that hold, runs that survive a kill."""

import csv
import json
import random

import pytest
import torch

from qwen_course import tasks
from training import data, pocket_qwen3, trainer
from training.data import IGNORE, Mix
from training.tokenizer import build

QUICK = trainer.Recipe(steps=4, rows=2, length=128, evaluate_every=2, log_every=1)


@pytest.fixture(scope="module")
def tokenizer():
    return build(pocket_qwen3.corpus(Mix(), 1, examples=400), 1024, 1024)


@pytest.fixture
def make_model(tokenizer):
    def make():
        torch.manual_seed(0)
        config = pocket_qwen3.shape(64 * -(-len(tokenizer) // 64), tokenizer)
        config.update({"num_hidden_layers": 2, "hidden_size": 64})
        config.layer_types = config.layer_types[:2]
        return pocket_qwen3.Qwen3ForCausalLM(config)

    return make


def test_a_step_has_the_same_batch_however_often_it_is_drawn(tokenizer):
    first, again, other = (
        data.batch(step, 1, tokenizer, Mix(), rows=4, length=128) for step in (5, 5, 6)
    )
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert not torch.equal(first["input_ids"], other["input_ids"])


def test_only_what_the_model_must_write_is_learnt(tokenizer):
    rng, mix = random.Random(0), Mix(thinking=1.0, cut_short=0.0, soft_switch=0.0)
    problem = tasks.sums.problems(1, split="train")[0]
    example = data.render(problem, tokenizer, rng, mix)
    learnt = [
        id for id, on in zip(example.ids, example.learnt, strict=True) if on
    ]  # fmt: skip
    expected = f"<think>\n{problem.thinking}\n</think>\n\n{problem.answer}<|im_end|>"
    assert tokenizer.decode(learnt) == expected


def test_what_is_rendered_is_what_the_template_gives_at_inference(tokenizer):
    """Training on another text than the one chat sends would waste the training."""
    rng, mix = random.Random(0), Mix(thinking=0.0, soft_switch=0.0, system=0.0)
    problem = tasks.products.problems(1, split="train")[0]
    example = data.render(problem, tokenizer, rng, mix)
    prompt = tokenizer.apply_chat_template(
        problem.prompt,
        add_generation_prompt=True,
        enable_thinking=False,
        return_dict=True,
    )["input_ids"]
    assert example.ids[: len(prompt)] == prompt
    assert not any(example.learnt[: len(prompt)])


def test_the_end_of_a_cut_thinking_is_read_but_not_learnt(tokenizer):
    rng, mix = random.Random(3), Mix(thinking=1.0, cut_short=1.0, soft_switch=0.0)
    close = tokenizer.convert_tokens_to_ids("</think>")
    for problem in tasks.sums.problems(20, split="train"):
        example = data.render(problem, tokenizer, rng, mix)
        assert not example.learnt[example.ids.index(close)]


def test_packed_neighbours_do_not_see_each_other(make_model):
    """The logits of an example must not depend on who shares its row."""
    model = make_model().eval()
    one = data.Example(list(range(10, 22)), [True] * 12)
    two = data.Example(list(range(40, 49)), [True] * 9)
    packed = data.pack([one, two], rows=1, length=32, pad=0)
    labels = packed.pop("labels")
    with torch.no_grad():
        together = model(**packed).logits[0, 12:21]
        alone = model(torch.tensor([two.ids])).logits[0]
    assert torch.allclose(together, alone, atol=1e-5)
    assert (labels[0, 21:] == IGNORE).all()


def test_an_example_that_fits_nowhere_is_left_out():
    examples = [data.Example([5] * 20, [True] * 20)] * 3
    packed = data.pack(examples, rows=2, length=32, pad=0)
    assert (packed["input_ids"] == 5).sum() == 40


def test_the_learning_rate_warms_up_stays_and_decays():
    recipe = trainer.Recipe(steps=1000, warm_up=50, decay_share=0.5)
    rates = [trainer.learning_rate(step, recipe) for step in (0, 50, 499, 750, 999)]
    assert rates == [0.02, 1.0, 1.0, 0.5, 0.02]


def no_measure(model):
    return {"with_thinking": 0.0, "without_thinking": 0.0}


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    tokenizer, make_model, tmp_path
):
    whole, broken = make_model(), make_model()
    trainer.train(whole, tokenizer, QUICK, tmp_path / "whole", no_measure)

    def killed(model):
        raise KeyboardInterrupt

    calls = iter([no_measure, killed])

    def measure(model):
        return next(calls)(model)

    with pytest.raises(KeyboardInterrupt):
        trainer.train(broken, tokenizer, QUICK, tmp_path / "b", measure)
    resumed = make_model()
    trainer.train(resumed, tokenizer, QUICK, tmp_path / "b", no_measure)
    for (name, a), b in zip(
        whole.named_parameters(), resumed.parameters(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6), name
    with (tmp_path / "b" / "log.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [1, 2, 3, 4]


def test_the_recipe_writes_a_model_that_loads_and_answers(tmp_path, monkeypatch):
    """The whole command in small: tokenizer, training, export, checksums, plot."""
    import qwen_course as qc
    from qwen_course.models import checksums

    monkeypatch.setattr(pocket_qwen3, "held_out_accuracy", lambda tokenizer: no_measure)
    recipe = trainer.Recipe(steps=2, rows=2, evaluate_every=2, log_every=1)
    run, out = tmp_path / "run", tmp_path / "model"
    pocket_qwen3.run_recipe({"one": recipe, "two": recipe}, run, out, "cpu")
    assert checksums.verify(out) == []
    for stage in ("one", "two"):
        assert (run / stage / "log.png").stat().st_size > 5000
        config = json.loads((run / stage / "config.json").read_text())
        assert config["steps"] == 2
    model, tokenizer = qc.load(out)
    assert qc.chat(model, tokenizer, "Hi", max_new_tokens=3).usage.prompt_tokens > 5
