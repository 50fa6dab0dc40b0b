"""The scorecard: the table of the model card, measured and written the same way."""

import pytest

from qwen_course.evaluation import Score
from qwen_course.scorecard import PARTS, Row, Scorecard, scorecard

CARD = Scorecard(
    (
        Row("sums", "sum of 2", Score(4, 4), Score(2, 4)),
        Row("sums", "sum of 3", Score(3, 4), Score(1, 4)),
        Row("products", "product", Score(8, 8), Score(1, 8)),
        Row("word problems", "share", Score(6, 8), Score(0, 8)),
    )
)


def test_a_part_with_several_kinds_and_all_problems_have_totals():
    cells = CARD.cells()
    assert cells[2] == ("sums", "all", "8", "87.5%", "37.5%")
    assert cells[-1] == ("all problems", "", "24", "87.5%", "16.7%")
    assert len(cells) == 6


def test_a_card_without_all_three_parts_has_no_grand_total():
    part = Scorecard(CARD.rows[:2])
    assert "all problems" not in str(part)


def test_totals_are_bold_in_a_model_card():
    lines = CARD.markdown().splitlines()
    assert lines[1] == "|---|---|---|---|---|"
    assert lines[4] == "| **sums** | **all** | **8** | **87.5%** | **37.5%** |"


def test_it_survives_being_written_and_read():
    assert Scorecard.from_json(CARD.to_json()) == CARD


def test_it_shows_itself_as_a_table():
    assert "with thinking" in str(CARD)
    assert CARD._repr_html_().count("<tr>") == 7


@pytest.mark.parametrize("part", PARTS)
def test_every_part_draws_questions_with_their_answers(part):
    problems = PARTS[part](20)
    assert len(problems) == 20
    assert all(problem.grade(problem.answer) for problem in problems)


def test_an_unknown_part_names_the_nearest(pocket):
    with pytest.raises(ValueError, match='Did you mean "products"'):
        scorecard(*pocket, parts=["product"])


@pytest.mark.parametrize(
    "part",
    [part for part in PARTS if part not in ("open prompts", "instructions")],
)
def test_a_sample_agrees_with_the_figures_of_the_model_card(pocket, part):
    """The committed figure must lie in the 95% interval of a fresh sample, widened."""
    from training.card import kept_figures

    committed = Scorecard.from_json(kept_figures("pocket-qwen3")["scorecard"])
    sample = scorecard(*pocket, n=60, parts=[part], progress=False).total(part)
    whole = committed.total(part)
    for fresh, kept in ((sample.thinking, whole.thinking), (sample.plain, whole.plain)):
        low, high = fresh.interval
        assert low - 0.05 <= kept.accuracy <= high + 0.05
