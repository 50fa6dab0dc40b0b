"""The recipe: batches that repeat, masks that hold, runs that survive a kill."""

import csv
import json
import random
import re
from dataclasses import replace

import pytest
import torch

from qwen_course import tasks
from training import compare, data, muon, pocket_qwen3, recipes, trainer
from training import pocket_qwen3_moe as moe
from training.data import IGNORE, Mix, Rows
from training.tokenizer import build

ROWS = (Rows(2, 96), Rows(1, 288))
QUICK = trainer.Recipe(steps=4, rows=ROWS, evaluate_every=2, log_every=1)


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
        data.batch(step, 1, tokenizer, Mix(), ROWS) for step in (5, 5, 6)
    )
    same = []
    for number, group in enumerate(ROWS):
        ids = first[number]["input_ids"]
        assert ids.shape == (group.number, group.length)
        assert torch.equal(ids, again[number]["input_ids"])
        same.append(torch.equal(ids, other[number]["input_ids"]))
    assert not all(same)  # the long rows of so small a step may be empty in both


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


def test_the_masked_loss_is_the_loss_of_each_example_alone(make_model):
    """The mask the trainer builds: causal, and blind to the neighbours."""
    model = make_model()
    forward = trainer.forward_of(model, compiled=False)
    examples = [
        data.Example(list(range(10, 22)), [True] * 12),
        data.Example(list(range(40, 49)), [False] * 4 + [True] * 5),
    ]
    losses = [
        trainer.losses(model, forward, data.pack(chosen, 1, 32, pad=0))[0].item()
        for chosen in (examples, examples[:1], examples[1:])
    ]
    # subtle: the first token of the second example is predicted by nothing.
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=0.02)


def drawn(skill: str, **shares: float) -> list:
    """Return problems of one skill, drawn for training with these shares."""
    others = dict.fromkeys(tasks.SKILLS, 0.0) | {skill: 1.0}
    rng, mix = random.Random(0), Mix(**others, **shares)
    return [data.draw_problem(rng, mix) for _ in range(60)]


def test_a_mix_can_practise_what_is_weak():
    near = [problem.thinking for problem in drawn("sums", near_hundreds=1.0)]
    assert all(re.search(r"= \d*(98|99|00|01)$", text, re.M) for text in near)
    small = drawn("sums", small_sums=1.0)
    assert all(max(problem.content[1:]) < 20 for problem in small)
    hard = drawn("word_problems", hard_words=1.0)
    assert {problem.kind for problem in hard} == set(data.HARD_WORDS)
    greetings = drawn("dialogues", hello=1.0)
    assert {problem.kind for problem in greetings} == {
        f"fact, {language}" for language in tasks.course_questions.LANGUAGES
    }


def test_a_switch_in_the_question_overrules_an_earlier_one():
    talk = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    written = {
        tuple(m["content"] for m in data._with_switch(talk, "/think", random.Random(n)))
        for n in range(60)
    }
    assert written == {
        ("a", "b", "c /think"),
        ("a /think", "b", "c"),
        ("a /no_think", "b", "c /think"),
    }


def test_without_thinking_earlier_calls_show_none(tokenizer):
    problem = tasks.tool_calls.problems(1, kind="second of two calls")[0]
    for share, shown in ((1.0, True), (0.0, False)):
        mix = Mix(thinking=share, soft_switch=0.0, cut_short=0.0)
        parts, thinking = data.write(problem, tokenizer, random.Random(0), mix)
        assert ("the calculator does that" in parts[0][0]) is shown
        assert (thinking is not None) is shown


def test_an_example_that_fits_nowhere_is_left_out():
    examples = [data.Example([5] * 20, [True] * 20)] * 3
    packed = data.pack(examples, rows=2, length=32, pad=0)
    assert (packed["input_ids"] == 5).sum() == 40


def test_the_learning_rate_warms_up_stays_and_decays():
    recipe = trainer.Recipe(steps=1000, warm_up=50, decay_share=0.5)
    rates = [trainer.learning_rate(step, recipe) for step in (0, 50, 499, 750, 999)]
    assert rates == [0.02, 1.0, 1.0, 0.5, 0.02]


def no_measure(model):
    return {"with_thinking": 0.0, "without_thinking": 0.0, "facts": 0.0}


@pytest.mark.parametrize("kind", ["dense", "mixture"])
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    kind, tokenizer, make_model, make_mixture, tmp_path
):
    make_model = make_model if kind == "dense" else make_mixture
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


def small_plan(plan, tokenizer):
    """Return a plan of two tiny stages, with what takes minutes left out.

    What starts from pocket-qwen3 keeps its tokenizer.
    """
    if plan.build is not pocket_qwen3.build:
        tokenizer = plan.tokenizer()
    recipe = trainer.Recipe(steps=2, rows=ROWS, evaluate_every=2, log_every=1)
    return replace(
        plan,
        tokenizer=lambda: tokenizer,
        held_out=lambda tokenizer: no_measure,
        stages={"one": recipe, "two": recipe},
        quick=recipe,
    )


@pytest.mark.timeout(900)
def test_the_quick_mode_trains_a_worse_model_that_knows_the_format(tmp_path):
    """The command as anybody types it: minutes, not hours, and no toy at the end."""
    import qwen_course as qc

    out = tmp_path / "model"
    recipes.main(
        pocket_qwen3.PLAN,
        ["--quick", "--run", str(tmp_path / "run"), "--out", str(out)],
    )
    with (tmp_path / "run" / "quick" / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 2
    model, tokenizer = qc.load(out)
    replies = qc.chat_batch(
        model, tokenizer, ["What is 12 + 30?", "What is Qwen?"], sampling="greedy"
    )
    assert all(reply.thinking for reply in replies)


@pytest.mark.parametrize(
    "plan", [pocket_qwen3.PLAN, moe.PLAN, moe.DENSE], ids=lambda plan: plan.name
)
def test_the_recipe_writes_a_model_that_loads_and_answers(plan, tokenizer, tmp_path):
    """The whole command in small: training, export, checksums, plot."""
    import qwen_course as qc
    from qwen_course.models import checksums

    run, out = tmp_path / "run", tmp_path / "model"
    plan = small_plan(plan, tokenizer)
    recipes.main(plan, ["--run", str(run), "--out", str(out), "--device", "cpu"])
    assert checksums.verify(out) == []
    assert not list(out.glob("*.bin"))
    for stage in ("one", "two"):
        assert (run / stage / "log.png").stat().st_size > 5000
        config = json.loads((run / stage / "config.json").read_text())
        assert config["steps"] == 2
    model, tokenizer = qc.load(out)
    assert qc.chat(model, tokenizer, "Hi", max_new_tokens=3).usage.prompt_tokens > 5


def test_a_model_for_comparison_stays_in_its_run_folder(
    tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(recipes, "MODELS", tmp_path / "models")
    plan = small_plan(moe.DENSE, tokenizer)
    recipes.main(plan, ["--run", str(tmp_path / "run"), "--device", "cpu"])
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert not (tmp_path / "models").exists()


def test_a_third_of_the_mixture_is_active_and_the_dense_model_is_as_large():
    """A third of what is no embedding: pocket models are too small to neglect it."""
    mixture, dense = moe.build(), moe.build_dense()
    sizes = {name: w.numel() for name, w in mixture.named_parameters()}
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    whole = sum(sizes.values())
    active = whole - experts + experts * moe.ACTIVE / moe.EXPERTS
    embedding = mixture.model.embed_tokens.weight.numel()
    assert 0.25 < (active - embedding) / (whole - embedding) < 0.4
    assert active / whole < 0.45
    assert dense.num_parameters() == pytest.approx(active, rel=0.02)
    assert whole * 2 < 16e6  # bytes in bf16


@pytest.fixture
def make_mixture():
    def make():
        torch.manual_seed(0)
        return moe.build()

    return make


def test_upcycling_deals_the_best_neurons_to_all_experts_and_the_next_to_one():
    mlp = pocket_qwen3.build(moe.make_tokenizer()).model.layers[0].mlp
    hands = moe.deal(mlp, torch.Generator().manual_seed(0))
    best = moe.importance(mlp).argsort(descending=True)
    own = [hand[moe.COMMON :] for hand in hands]
    assert all(torch.equal(hand[: moe.COMMON], best[: moe.COMMON]) for hand in hands)
    dealt = torch.cat(own).sort().values
    assert torch.equal(dealt, best[moe.COMMON :][: len(dealt)].sort().values)


def test_an_upcycled_expert_computes_what_its_neurons_did(make_mixture):
    """Two experts, each of weight 1/2: the common neurons count once, as before."""
    dense = moe.AutoModelForCausalLM.from_pretrained(moe.SOURCE, dtype=torch.float32)
    mlp, experts = dense.model.layers[3].mlp, make_mixture().model.layers[3].mlp.experts
    common = moe.importance(mlp).argsort(descending=True)[: moe.COMMON]
    x = torch.randn(5, 256)
    inner = torch.nn.functional.silu(x @ mlp.gate_proj.weight[common].T)
    inner = inner * (x @ mlp.up_proj.weight[common].T)
    expected = inner @ mlp.down_proj.weight[:, common].T
    for number in (0, 7):
        gate, up = (x @ experts.gate_up_proj[number].T).chunk(2, dim=-1)
        inner = (torch.nn.functional.silu(gate) * up)[:, : moe.COMMON]
        found = inner @ experts.down_proj[number][:, : moe.COMMON].T
        assert torch.allclose(found, expected, atol=1e-4)


def test_the_dense_model_starts_from_the_best_neurons_of_pocket_qwen3():
    source = moe.AutoModelForCausalLM.from_pretrained(moe.SOURCE, dtype=torch.float32)
    model = moe.build_dense()
    kept = moe.importance(model.model.layers[2].mlp).sort().values
    best = moe.importance(source.model.layers[2].mlp).sort().values
    assert torch.allclose(kept, best[-len(kept) :])
    assert torch.equal(model.model.embed_tokens.weight, source.lm_head.weight)


@pytest.mark.parametrize("shape", [(64, 24), (24, 64), (32, 32)])
def test_our_muon_moves_a_matrix_as_that_of_torch_does(shape, monkeypatch):
    """In bf16, which torch always computes in; three steps of changing gradients."""
    monkeypatch.setattr(muon, "fast_precision", lambda device: torch.bfloat16)
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    options = {"lr": 0.02, "weight_decay": 0.01}
    steppers = [muon.Muon([ours], **options), torch.optim.Muon([theirs], **options)]
    for _ in range(3):
        ours.grad = theirs.grad = torch.randn(shape)
        for stepper in steppers:
            stepper.step()
    # bf16 has three digits, and the two order their products differently.
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_muon_takes_a_stack_of_matrices_one_by_one():
    torch.manual_seed(0)
    stack = torch.nn.Parameter(torch.randn(3, 16, 40))
    single = [torch.nn.Parameter(part.clone()) for part in stack.data]
    stack.grad = torch.randn(3, 16, 40)
    for part, gradient in zip(single, stack.grad, strict=True):
        part.grad = gradient.clone()
    muon.Muon([stack]).step()
    muon.Muon(single).step()
    assert torch.allclose(stack, torch.stack(single), atol=1e-6)


def test_orthogonalized_matrices_treat_every_direction_alike(monkeypatch):
    monkeypatch.setattr(muon, "fast_precision", lambda device: torch.float32)
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonalize(torch.randn(4, 60, 20)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_every_expert_is_trained_by_muon_as_the_matrix_it_is(make_mixture, tokenizer):
    """After one step all experts have moved, and no gradient is left for the next."""
    model = make_mixture()
    before = {n: w.clone() for n, w in model.named_parameters() if ".experts." in n}
    opts = trainer.optimizers(model, QUICK)
    trained = {id(weight) for weight in opts[0].param_groups[0]["params"]}
    named = dict(model.named_parameters())
    assert all(id(named[name]) in trained for name in before)
    forward = trainer.forward_of(model, compiled=False)
    trainer._one_step(model, forward, tokenizer, QUICK, opts, step=0)
    for name, weight in model.named_parameters():
        assert weight.grad is None
        if name in before:
            moved = (weight - before[name]).abs().amax(dim=(1, 2))
            assert (moved > 0).all(), name


def test_a_dense_model_has_no_balance_to_keep(make_model, make_mixture):
    packed = data.pack([data.Example(list(range(10, 40)), [True] * 30)], 1, 32, pad=0)
    balances = {}
    for name, model in (("dense", make_model()), ("mixture", make_mixture())):
        forward = trainer.forward_of(model, compiled=False)
        balances[name] = trainer.losses(model, forward, packed)[1].item()
    assert balances["dense"] == 0
    assert balances["mixture"] >= moe.ACTIVE  # its least value: an even load


@pytest.mark.parametrize(
    "choice",
    [choice for choice in compare.CHOICES if not choice.only_speed],
    ids=lambda choice: choice.name,
)
def test_every_choice_of_the_comparison_can_be_run(choice, tokenizer):
    recipe = replace(choice.recipe, steps=2, rows=ROWS)
    small = replace(choice, recipe=recipe, compiled=False)
    losses = compare.measure(small, tokenizer, examples=2).loss
    assert set(losses) == set(compare.TRIED_ON)
    assert all(loss > 1 for loss in losses.values())  # nothing is learnt in two steps


def test_a_padded_row_holds_one_example(tokenizer):
    choice = compare.Choice("packing", "one", padded=True)
    with compare.as_chosen(choice):
        drawn = [data.batch(step, 1, tokenizer, Mix(), ROWS)[0] for step in range(9)]
    short = next(packed for packed in drawn if packed["real"].any(dim=1).all())
    starts = (short["position_ids"] == 0).sum(dim=1)
    assert starts.tolist() == [1, 1]
