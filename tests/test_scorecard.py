"""The scorecard: the table of the model card, measured and written the same way."""

import pytest

import qwen_course as qc
from qwen_course.evaluation import Score
from qwen_course.scorecard import (
    PARTS,
    SPECIALIST_PARTS,
    Row,
    Scorecard,
    parts_of,
    scorecard,
)

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


def test_a_specialist_is_measured_on_its_own_ground_in_one_mode():
    coder = qc.load("Qwen/Qwen2.5-Coder-0.5B-Instruct")
    card = scorecard(*coder, n=1, progress=False)
    assert card.header == ("what", "kind", "number", "right")
    assert [row.kind for row in card.rows] == sorted(qc.tasks.coding.KINDS)
    assert card.cells()[-1] == ("coding", "all", "4", "0.0%")  # random weights
    assert Scorecard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pocket-vl", ["charts", "charts, new looks", "printed words"]),
        ("Qwen/Qwen2-Audio-7B-Instruct",
         ["digits, known voices", "digits, other voices", "tones"]),
        ("some/folder/pocket-math/", ["mathematics"]),
        ("Qwen/Qwen3-0.6B", list(PARTS)),
    ],
)  # fmt: skip
def test_the_name_says_what_a_model_is_for(name, parts):
    assert list(parts_of(name)) == parts


SPECIAL = {
    part: draw for parts in SPECIALIST_PARTS.values() for part, draw in parts.items()
}


@pytest.mark.parametrize("part", SPECIAL)
def test_the_worked_answers_of_a_specialist_s_questions_are_right(part):
    problems = SPECIAL[part](2)
    answers = [problem.answer for problem in problems]
    assert all(type(problems[0]).grade_all(problems, answers))


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
    agrees_with_its_card("pocket-qwen3", pocket, part)


@pytest.mark.parametrize("part", ["sums", "word problems", "course questions"])
def test_the_mixture_agrees_with_its_card_too(part):
    agrees_with_its_card("pocket-qwen3-moe", qc.load("pocket-qwen3-moe"), part)


def agrees_with_its_card(name, loaded, part):
    """The committed figure must lie in the 95% interval of a fresh sample, widened."""
    from training.card import kept_figures

    committed = Scorecard.from_json(kept_figures(name)["scorecard"])
    sample = scorecard(*loaded, n=60, parts=[part], progress=False).total(part)
    whole = committed.total(part)
    for fresh, kept in ((sample.thinking, whole.thinking), (sample.plain, whole.plain)):
        low, high = fresh.interval
        assert low - 0.05 <= kept.accuracy <= high + 0.05
