"""Evaluation: counts what is right, and says how sure the figure is."""

import math
from dataclasses import replace

import pytest

import qwen_course as qc
from qwen_course.evaluation import (
    Evaluation,
    Score,
    budget_curve,
    evaluate,
    evaluate_vote,
    final_answer,
    majority_vote,
)


def test_thinking_pays_on_unseen_problems(pocket):
    """A sample of the model card's table; the whole table takes minutes."""
    problems = [
        problem
        for skill in (qc.tasks.sums, qc.tasks.products, qc.tasks.word_problems)
        for problem in skill.problems(40, seed=77)
    ]
    with_thinking = evaluate(*pocket, problems, progress=False)
    without = evaluate(*pocket, problems, thinking=False, progress=False)
    assert with_thinking.accuracy >= 0.9
    assert with_thinking.accuracy - without.accuracy >= 0.4


def test_the_order_of_problems_is_kept_whatever_the_batches(pocket):
    problems = qc.tasks.sums.problems(7, seed=5)
    result = evaluate(*pocket, problems, batch_size=3, progress=False)
    assert result.problems == problems
    for problem, reply in zip(result.problems, result.replies, strict=True):
        assert reply.messages[0]["content"] == problem.question


def test_the_table_has_a_row_a_kind_and_one_for_all(pocket):
    problems = [*qc.tasks.sums.problems(3, count=2), *qc.tasks.products.problems(2)]
    result = evaluate(*pocket, problems, progress=False)
    assert list(result.by_kind()) == ["product", "sum of 2"]
    assert "all" in str(result)
    assert result._repr_html_().count("<tr>") == 4
    assert len(result.mistakes()) == result.right.count(False)


def test_the_cost_of_a_right_answer_counts_the_wrong_ones_too(pocket):
    problems = qc.tasks.sums.problems(6, seed=1, count=2)
    result = evaluate(*pocket, problems, progress=False)
    used = [reply.usage for reply in result.replies]
    assert result.tokens == sum(u.thinking_tokens + u.answer_tokens for u in used)
    assert result.seconds > 0
    wrong = [replace(problem, expected="-1") for problem in problems[:3]]
    half = Evaluation([*wrong, *problems[3:]], result.replies)
    right = half.score.right
    assert right <= 3
    assert half.tokens_per_right == (result.tokens / right if right else math.inf)
    assert Evaluation(wrong, result.replies[:3]).tokens_per_right == math.inf


def test_the_parts_of_an_evaluation_are_its_kinds_and_lose_no_reply(pocket):
    problems = [*qc.tasks.sums.problems(3, count=2), *qc.tasks.products.problems(2)]
    result = evaluate(*pocket, problems, progress=False)
    parts = result.parts()
    assert {kind: part.score for kind, part in parts.items()} == result.by_kind()
    assert sum(part.tokens for part in parts.values()) == result.tokens
    assert [len(part.replies) for part in parts.values()] == [2, 3]


def test_the_interval_holds_the_accuracy_and_narrows_with_more_problems():
    few, many = Score(9, 10), Score(900, 1000)
    for score in (few, many, Score(0, 5), Score(5, 5)):
        low, high = score.interval
        assert 0 <= low <= score.accuracy <= high <= 1
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    assert math.isnan(Score(0, 0).accuracy)


def test_nothing_to_evaluate_is_an_error_that_says_so(pocket):
    with pytest.raises(ValueError, match="give at least one"):
        evaluate(*pocket, [])
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate(*pocket, qc.tasks.sums.problems(1), batch_size=0)


def test_an_evaluation_without_replies_scores_nothing():
    assert Evaluation([], []).score == Score(0, 0)


@pytest.mark.parametrize(
    ("answer", "final"),
    [("It is 1,692.", "1692"), ("12 + 30 = 42", "42"), ("Yes", "yes"), ("0.5", "0.5"),
     ("", "")],
)  # fmt: skip
def test_the_last_number_of_an_answer_is_what_counts(answer, final):
    assert final_answer(answer) == final


def test_a_majority_counts_answers_that_say_the_same_in_other_words():
    assert majority_vote(["41", "It is 42.", "42", "40"]) == "It is 42."
    assert majority_vote(["41", "42"]) == "41"  # the first of two equals
    with pytest.raises(ValueError, match="give at least one"):
        majority_vote([])


def test_a_vote_is_compared_with_every_single_sample(pocket):
    problems = qc.tasks.sums.problems(4, count=2)
    vote = evaluate_vote(*pocket, problems, samples=3, progress=False)
    assert (vote.one.total, vote.majority.total) == (12, 4)
    again = evaluate_vote(*pocket, problems, samples=3, progress=False)
    assert vote == again
    assert vote.tokens >= 12
    with pytest.raises(ValueError, match="samples is 0"):
        evaluate_vote(*pocket, problems, samples=0)


def test_accuracy_rises_with_the_budget_and_every_answer_is_well_formed(pocket):
    problems = qc.tasks.sums.problems(12, count=5)
    few, many = budget_curve(*pocket, problems, budgets=(8, 96), progress=False)
    assert few.score.accuracy < many.score.accuracy
    assert few.parsed.accuracy == many.parsed.accuracy == 1


def test_bare_texts_are_continued_and_the_others_are_asked(pocket):
    """In one evaluation; filling in the middle has no chat template."""
    asked = qc.tasks.coding.problems(3, kind="fill in") + qc.tasks.sums.problems(
        2, count=2
    )
    result = evaluate(*pocket, asked, max_new_tokens=8, progress=False)
    assert [problem.bare for problem in asked] == [True] * 3 + [False] * 2
    # A bare text ends where the prompt ends: no turn is opened for an answer.
    ids = pocket[1](asked[0].question)["input_ids"]
    assert result.replies[0].usage.prompt_tokens == len(ids)
    assert result.right == [False] * 3 + result.right[3:]


def test_a_class_of_problems_is_graded_at_once(monkeypatch, pocket):
    calls = []
    asked = qc.tasks.coding.problems(4, kind="write")
    whole = qc.tasks.coding.CodingProblem.grade_all

    def counted(problems, answers):
        calls.append(len(problems))
        return whole(problems, answers)

    monkeypatch.setattr(qc.tasks.coding.CodingProblem, "grade_all", counted)
    result = evaluate(*pocket, asked, max_new_tokens=4, progress=False)
    assert result.accuracy == result.score.accuracy == 0
    assert calls == [4]
