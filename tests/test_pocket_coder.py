"""pocket-coder: its recipe, its files, and what its card claims."""

import csv
import json
import random
from dataclasses import replace

import pytest
import torch

import qwen_course as qc
from qwen_course.models import checksums
from qwen_course.tasks import coding
from training import measure_coder, pocket_coder, recipes
from training.data import Rows, encode
from training.tokenizer import build
from training.trainer import Recipe

MIX = pocket_coder.CodeMix()
ROWS = (Rows(2, 192), Rows(1, 336))


@pytest.fixture(scope="module")
def tokenizer():
    texts = pocket_coder.corpus(MIX, 1, examples=400)
    return build(texts, 1024, 1024, "qwen2_5", pocket_coder.TOKENS)


def test_only_the_answer_is_learnt_and_the_prompt_is_that_of_chat(tokenizer):
    problem = coding.problems(1, split="train", kind="write")[0]
    example = encode(pocket_coder.write(problem, tokenizer), tokenizer)
    learnt = [
        id for id, on in zip(example.ids, example.learnt, strict=True) if on
    ]  # fmt: skip
    assert tokenizer.decode(learnt) == f"{problem.answer}<|im_end|>"
    prompt = tokenizer.apply_chat_template(
        problem.prompt, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert example.ids[: len(prompt)] == prompt


def test_a_middle_is_learnt_without_a_chat_template(tokenizer):
    problem = coding.problems(1, split="train", kind="fill in")[0]
    example = encode(pocket_coder.write(problem, tokenizer), tokenizer)
    assert tokenizer.decode(example.ids) == (
        f"<|fim_prefix|>{problem.prefix}<|fim_suffix|>{problem.suffix}<|fim_middle|>"
        f"{problem.answer}<|endoftext|>"
    )
    learnt = sum(example.learnt)
    assert tokenizer.decode(example.ids[-learnt:]) == f"{problem.answer}<|endoftext|>"


def test_a_step_has_the_same_batch_however_often_it_is_drawn(tokenizer):
    recipe = Recipe(steps=4, rows=ROWS, mix=MIX)
    first, again, other = (
        pocket_coder.batch(step, recipe, tokenizer)[0]["input_ids"]
        for step in (5, 5, 6)
    )
    assert first.shape == (2, 192)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_draws_no_test_task_and_all_kinds():
    rng = random.Random(0)
    drawn = [pocket_coder.draw_problem(rng, MIX) for _ in range(200)]
    assert {problem.kind for problem in drawn} == set(coding.KINDS)
    assert {problem.task.split for problem in drawn} == {"train"}


def test_hardly_any_example_is_too_long_for_a_row(tokenizer):
    rng = random.Random(1)
    sizes = [
        len(encode(pocket_coder.write(problem, tokenizer), tokenizer).ids)
        for problem in (pocket_coder.draw_problem(rng, MIX) for _ in range(300))
    ]
    longest = pocket_coder.ROWS[-1].length
    assert sum(size > longest for size in sizes) <= 6


def test_the_recipe_writes_a_model_that_loads_and_answers(tokenizer, tmp_path):
    """The whole command in small: two stages, export, checksums, plot."""
    recipe = Recipe(steps=2, rows=ROWS, evaluate_every=2, log_every=1, mix=MIX)
    plan = replace(
        pocket_coder.PLAN,
        tokenizer=lambda: tokenizer,
        held_out=lambda tokenizer: pocket_coder.held_out_accuracy(tokenizer, 2),
        stages={"one": recipe, "two": recipe},
    )
    run, out = tmp_path / "run", tmp_path / "model"
    recipes.main(plan, ["--run", str(run), "--out", str(out), "--device", "cpu"])
    assert checksums.verify(out) == []
    for stage in ("one", "two"):
        assert (run / stage / "log.png").stat().st_size > 5000
        assert json.loads((run / stage / "config.json").read_text())["steps"] == 2
    model, loaded = qc.load(out)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.generation_config.temperature == 0.7
    reply = qc.chat(model, loaded, "Write a function f(x).", max_new_tokens=3)
    assert reply.usage.prompt_tokens > 5


@pytest.mark.timeout(900)
def test_the_quick_mode_trains_a_worse_model_that_knows_the_format(tmp_path):
    run, out = tmp_path / "run", tmp_path / "model"
    recipes.main(pocket_coder.PLAN, ["--quick", "--run", str(run), "--out", str(out)])
    with (run / "quick" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < losses[0] / 2
    assert set(measured(rows[-1])) == {"write", "fill_in", "fix"}
    model, tokenizer = qc.load(out)
    question = "Write a Python function `find_median(numbers)` that returns the median."
    reply = qc.chat(model, tokenizer, question, max_new_tokens=60, sampling="greedy")
    assert reply.answer.startswith("```python\ndef ")


def measured(row: dict[str, str]) -> dict[str, str]:
    return {name: row[name] for name in pocket_coder.CURVES if row[name]}


# The model of the course

shipped = pytest.mark.skipif(
    not (recipes.MODELS / "pocket-coder" / "model.safetensors").exists(),
    reason="pocket-coder is not trained yet",
)


@pytest.fixture(scope="module")
def coder():
    return qc.load("pocket-coder")


@pytest.fixture(scope="module")
def figures():
    path = measure_coder.RESULTS / "evaluation.json"
    return json.loads(path.read_text("utf-8"))


@shipped
@pytest.mark.parametrize("kind", coding.KINDS)
def test_it_reaches_about_what_its_card_says(kind, coder, figures):
    problems = coding.problems(40, seed=77, kind=kind)
    grades = coding.grade_all(problems, pocket_coder.answers(*coder, problems))
    right, total = figures["kinds"][kind]["passed"]
    assert sum(grade.passed for grade in grades) / 40 > right / total - 0.12


@shipped
def test_it_does_what_the_issue_asks(figures):
    def share(kind, name="passed"):
        right, total = figures["kinds"][kind][name]
        return right / total

    assert share("write") >= 0.85
    assert share("fill in") >= 0.80
    assert figures["families"] >= 60


@shipped
@pytest.mark.xfail(
    strict=True,
    reason="2 of 300 functions cannot be parsed, asked in words that it does not know",
)
def test_all_that_it_writes_can_be_parsed(figures):
    right, total = figures["kinds"]["write"]["parses"]
    assert right == total


MEDIAN = (
    "Write a Python function `find_median(numbers)` that returns the median of a list "
    "of numbers, or None if the list is empty.",
    ["assert find_median([3, 1, 2, 10]) == 2.5", "assert find_median([]) == None"],
)
SEARCH = (
    "Write a Python function `binary_search(numbers, target)` that returns the index "
    "of target in the sorted list numbers with a binary search, -1 if it is missing.",
    [
        "assert binary_search([1, 4, 6, 9], 6) == 2",
        "assert binary_search([1, 4], 5) == -1",
    ],
)


@shipped
@pytest.mark.parametrize(("question", "tests"), [MEDIAN, SEARCH])
def test_the_examples_of_the_lesson_work(question, tests, coder):
    from qwen_course.sandbox import run_code

    reply = qc.chat(*coder, question, sampling="greedy")
    assert run_code(coding.extract_code(reply.answer), tests).passed


@shipped
def test_the_card_shows_the_figures(figures):
    card = (recipes.MODELS / "pocket-coder" / "README.md").read_text("utf-8")
    for text in measure_coder.values(figures).values():
        assert text in card


@shipped
def test_its_files_are_small_and_whole():
    folder = recipes.MODELS / "pocket-coder"
    assert checksums.verify(folder) == []
    assert (folder / "model.safetensors").stat().st_size < 16e6
