"""pocket-math: its recipe, its measuring, and the weights that the course carries."""

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import qwen_course as qc
from qwen_course.models import checksums
from qwen_course.steps import boxed, same_value, wrong_steps
from qwen_course.tasks import mathematics
from qwen_course.tasks.mathematics import OUTPUT
from training import card, measure_math, pocket_math, recipes, tokenizer, trainer
from training.data import IGNORE, Rows
from training.pocket_math import CONTEXT, FULL, TOKENS
from training.trainer import Recipe

FOLDER = Path(qc.__file__).parent / "models" / "pocket-math"
shipped = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").exists(), reason="pocket-math is not trained yet"
)


@pytest.fixture(scope="module")
def small_tokenizer():
    texts = pocket_math.corpus(FULL.mix, 1, examples=200)
    return tokenizer.build(texts, 640, CONTEXT, "qwen2_5", TOKENS)


@pytest.fixture(scope="module")
def plan(small_tokenizer):
    """Return the plan with two tiny stages and a tiny model."""
    recipe = Recipe(
        steps=2, rows=(Rows(1, 448),), evaluate_every=2, log_every=1, mix=FULL.mix
    )

    def build(tokenizer):
        config = recipes.small_qwen2(tokenizer, CONTEXT, intermediate_size=512)
        config.update({"num_hidden_layers": 2, "hidden_size": 64})
        config.layer_types = config.layer_types[:2]
        return pocket_math.Qwen2ForCausalLM(config)

    return replace(
        pocket_math.PLAN,
        tokenizer=lambda: small_tokenizer,
        build=build,
        held_out=lambda tokenizer: lambda model: {"steps": 0.5, "critical": 0.25},
        stages={"one": recipe, "two": recipe},
        quick=recipe,
    )


@pytest.mark.parametrize("options", [[], ["--quick"]], ids=["full", "quick"])
def test_the_recipe_writes_a_model_that_loads_and_answers(plan, options, tmp_path):
    """The whole command in small: training, export, checksums, plot."""
    run, out = tmp_path / "run", tmp_path / "model"
    places = ["--run", str(run), "--out", str(out), "--device", "cpu"]
    recipes.main(plan, [*options, *places])
    assert checksums.verify(out) == []
    for stage in ["quick"] if options else ["one", "two"]:
        assert (run / stage / "log.png").stat().st_size > 5000
        assert json.loads((run / stage / "config.json").read_text())["steps"] == 2
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    model, tokenizer = qc.load(out)
    assert not model.generation_config.do_sample
    reply = qc.chat(model, tokenizer, "Solve 2x = 6", max_new_tokens=3)
    assert reply.usage.prompt_tokens > 5


@pytest.mark.timeout(900)
def test_the_quick_mode_learns_the_format(small_tokenizer, tmp_path):
    """The command as anybody types it, but for the measuring at its end."""
    plan = replace(
        pocket_math.PLAN,
        tokenizer=lambda: small_tokenizer,
        held_out=lambda tokenizer: lambda model: {"steps": 0.0, "critical": 0.0},
    )
    run, out = tmp_path / "run", tmp_path / "model"
    recipes.main(plan, ["--quick", "--run", str(run), "--out", str(out)])
    with (run / "quick" / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 2
    model, tokenizer = qc.load(out)
    reply = qc.chat(model, tokenizer, "Solve 2x = 6", max_new_tokens=60)
    assert "x" in reply.answer


def test_a_step_has_the_same_batch_however_often_it_is_drawn(small_tokenizer):
    recipe = replace(FULL, rows=(Rows(2, 448),))
    first, again, other = (
        pocket_math.batch(step, recipe, small_tokenizer)[0]["input_ids"]
        for step in (3, 3, 4)
    )
    assert first.shape == (2, 448)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_what_the_interpreter_prints_is_read_and_not_learnt(small_tokenizer):
    problem = mathematics.problems(1, split="train", kind="growth", tools=True)[0]
    example = pocket_math.render(problem, small_tokenizer)
    learnt = small_tokenizer.decode(
        [id for id, on in zip(example.ids, example.learnt, strict=True) if on]
    )
    head, _, tail = problem.answer.partition(f"{problem.output}\n```\n")
    assert learnt == f"{head}{tail}<|im_end|>"
    assert head.endswith(OUTPUT)


def test_only_the_answer_is_learnt_and_training_sees_what_chat_sends(small_tokenizer):
    problem = mathematics.problems(1, split="train", kind="derivative")[0]
    example = pocket_math.render(problem, small_tokenizer)
    prompt = small_tokenizer.apply_chat_template(
        problem.prompt, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert example.ids[: len(prompt)] == prompt
    assert not any(example.learnt[: len(prompt)])
    assert all(example.learnt[len(prompt) :])


def test_no_training_example_is_of_the_test_split():
    rng = random.Random(0)
    drawn = [pocket_math.draw_problem(rng, FULL.mix) for _ in range(300)]
    assert {problem.split for problem in drawn} == {"train", None}  # None: a drill
    assert not any(problem.hard or problem.new_wording for problem in drawn)
    assert 0.07 < sum(problem.program != "" for problem in drawn) / 300 < 0.3


def test_queries_and_keys_are_kept_small():
    weight = torch.full((8, 8), 0.5)
    trainer.cap(weight, 0.07)
    assert weight.pow(2).mean().sqrt().item() == pytest.approx(0.07)
    small = torch.full((8, 8), 0.01)
    trainer.cap(small, 0.07)
    assert (small == 0.01).all()


def test_a_mix_can_ask_for_drills():
    rng = random.Random(0)
    mix = replace(FULL.mix, drills=1.0)
    assert pocket_math.draw_problem(rng, mix).kind == "computations"


def test_most_examples_fit_their_row(small_tokenizer):
    """The longest are the source's own example worked with all terms."""
    length = max(group.length for group in FULL.rows)
    rng = random.Random(0)
    sizes = [
        len(
            pocket_math.render(
                pocket_math.draw_problem(rng, FULL.mix), small_tokenizer
            ).ids
        )
        for _ in range(300)
    ]
    assert sum(size > length for size in sizes) <= 3


def test_padding_is_never_learnt(small_tokenizer):
    packed = pocket_math.batch(0, replace(FULL, rows=(Rows(2, 448),)), small_tokenizer)
    assert (packed[0]["labels"][~packed[0]["real"]] == IGNORE).all()


def test_the_vocabulary_has_every_digit_as_one_token(small_tokenizer):
    ids = small_tokenizer("1234567890")["input_ids"]
    assert len(ids) == 10
    assert "<think>" not in small_tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("x = 3", "x - 1 = 2\nx = 3", True),
        ("x = -3, x = 1", "\\boxed{-3, 1}", True),
        ("22050", "There are 22050 people.", True),
        ("x = -3, x = 1", "x = 1", False),
    ],
)
def test_a_model_without_boxes_is_graded_leniently(expected, answer, right):
    problem = replace(mathematics.problems(1)[0], expected=expected)
    assert measure_math.lenient(problem, answer) is right


def test_the_card_is_filled_with_kept_figures():
    counts = dict.fromkeys([*mathematics.KINDS, "all"], [9, 10])
    steps = {
        "right": counts, "whole": counts, "known wordings": [9, 10],
        "new wordings": [8, 10], "lines": {"right": 90, "wrong": 8, "not checked": 2},
        "wrong answers found": [2, 2], "right answers doubted": [0, 18],
    }  # fmt: skip
    figures = {
        "parameters": 3_500_000, "machine": "x86_64", "torch": "2.13.0",
        "example": {"answer": "f(x) = {x}", "right": True, "wrong lines": 0},
        "steps": steps,
        "programs": {"right": counts, "ran": [10, 10]}, "general": counts,
        "hard": {"greedy": counts, "majority": counts, "programs": counts,
                 "one sample": [70, 80], "any": [10, 10]},
        "elsewhere": {"sums": [0, 10], "word problems": [1, 10]},
    }  # fmt: skip
    text = card.card("pocket-math", figures)
    assert "| **all** | **90.0%** |" in text
    assert "8 are wrong" in text
    assert "finds no wrong lines, and the box of which is right" in text
    assert r"\boxed{}" in text


@pytest.fixture(scope="module")
def pocket():
    return qc.load("pocket-math")


@shipped
def test_the_shipped_model_agrees_with_its_card(pocket):
    """A few dozen unseen problems reach a level somewhat below the card's."""
    kept = card.kept_figures("pocket-math")
    right, total = kept["steps"]["right"]["all"]
    problems = measure_math.unseen(36)
    result = measure_math.ask(*pocket, problems, progress=False)
    assert result.accuracy > right / total - 0.1
    assert kept["parameters"] == pocket[0].num_parameters()


@shipped
def test_it_works_the_example_of_the_course(pocket):
    answer = measure_math.example(*pocket)["answer"]
    assert wrong_steps(answer) == []
    assert "f'(x) = 3x^2 + 4x - 5" in answer
    assert "16 + 60 = 76" in answer
    assert "maximum at x1" in answer
    assert same_value(boxed(answer) or "", "x = (-2 ± sqrt(19))/3")


@shipped
def test_its_programs_are_run_and_their_output_is_used(pocket):
    problems = measure_math.unseen(12, tools=True)
    answers, ran = measure_math.with_programs(*pocket, problems)
    assert sum(ran) >= 11
    assert sum(p.grade(a) for p, a in zip(problems, answers, strict=True)) >= 10


@shipped
def test_its_files_are_small_and_whole():
    assert checksums.verify(FOLDER) == []
    assert (FOLDER / "model.safetensors").stat().st_size < 16e6
