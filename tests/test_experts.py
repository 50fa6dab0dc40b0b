"""Experts: every choice of the router is counted, and belongs to a skill."""

import pytest
import torch

import qwen_course as qc
from qwen_course import experts
from qwen_course.experts import ExpertLoad, expert_counts, expert_load


@pytest.fixture(scope="module")
def mixture(pocket):
    """An untrained mixture with the pocket model's tokenizer."""
    from training import pocket_qwen3_moe

    torch.manual_seed(0)
    return pocket_qwen3_moe.build(pocket[1]).eval()


def test_every_token_is_served_by_two_experts_of_each_layer(mixture):
    counts = expert_counts(mixture, range(50, 90))
    assert counts.shape == (8, 16)
    assert counts.sum(dim=1).tolist() == [80] * 8


def test_a_dense_model_has_no_experts_to_count(pocket):
    with pytest.raises(ValueError, match="this model is dense"):
        expert_counts(pocket[0], [1, 2])


def test_the_load_tells_the_skills_apart():
    counts = torch.tensor([[[8, 0]], [[2, 6]]])  # two skills, one layer, two experts
    load = ExpertLoad(("sums", "facts"), counts)
    assert load.fair_shares.tolist() == [[1.25, 0.75]]
    assert load.shares("sums").tolist() == [[2.0, 0.0]]
    assert load.specialists(0) == {"sums": 0, "facts": 1}


def test_the_load_of_real_problems_can_be_drawn(mixture, pocket):
    skills = {
        "sums": qc.tasks.sums.problems(2),
        "tools": qc.tasks.tool_calls.problems(2),
    }
    load = expert_load(mixture, pocket[1], skills)
    assert load.counts.shape == (2, 8, 16)
    axes = load.plot(3).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(skills)


def test_a_worked_text_holds_thinking_and_answer(pocket):
    problem = qc.tasks.sums.problems(1)[0]
    text = experts.worked_text(problem, pocket[1])
    assert problem.thinking in text
    assert text.rstrip().endswith(f"{problem.answer}<|im_end|>")


def test_the_mixture_of_the_course_uses_all_experts_and_each_skill_some_more():
    skills = {
        name: getattr(qc.tasks, name).problems(30, seed=5)
        for name in ("sums", "course_questions", "tool_calls")
    }
    load = expert_load(*qc.load("pocket-qwen3-moe"), skills)
    assert load.fair_shares.min() > 0.25
    ways = [load.specialists(layer) for layer in range(load.counts.shape[1])]
    assert any(len(set(way.values())) == len(skills) for way in ways)
