"""Spoken digits: clips that repeat, splits that hold, grades that are fair."""

import random
import re

import numpy as np
import pytest

from qwen_course.audio import RATE, check_clip
from qwen_course.tasks import spoken_digits as task
from qwen_course.tasks.problem import split_of


def test_no_string_of_the_test_is_ever_one_of_the_training():
    train = {p.content for p in task.problems(600, 1, "train")}
    test = {p.content for p in task.problems(300, 2, "test")}
    assert not train & test
    assert all(split_of(content) == "test" for content in test)


def test_every_worked_answer_is_graded_as_right():
    for problem in task.problems(120, 3):
        assert problem.grade(problem.answer), problem.answer


@pytest.mark.parametrize(
    ("kind", "digits", "right", "wrong"),
    [
        (
            "transcribe",
            "471",
            ["4 7 1", "471", "4, 7, 1.", "Four seven one."],
            ["4 7", "4 7 1 1", "4 1 7", "", "seven", "I hear no digits and no tones."],
        ),
        ("count", "471", ["4 7 1: 3 digits", "3"], ["4 7 1: 4 digits", "4 7 1", ""]),
        ("sum", "471", ["4 + 7 = 11\n11 + 1 = 12", "12"], ["11", "4 7 1", "", "112"]),
    ],
)
def test_answers_are_right_in_several_forms_and_typical_mistakes_are_wrong(
    kind, digits, right, wrong
):
    problem = task.ClipProblem(
        skill=task.SKILL,
        kind=kind,
        content=(task.SKILL, digits),
        question="",
        thinking="",
        answer=task.work(kind, digits),
        expected={"count": "3", "sum": "12"}.get(kind, "4 7 1"),
    )
    assert [problem.grade(answer) for answer in right] == [True] * len(right)
    assert [problem.grade(answer) for answer in wrong] == [False] * len(wrong)


def test_one_digit_is_counted_and_added_as_well():
    assert task.work("count", "7") == "7: 1 digit"
    assert task.work("sum", "7") == "7"


def test_a_problem_has_the_same_clip_however_often_it_is_asked():
    problem, again = (task.problems(1, seed=5)[0] for _ in range(2))
    assert np.array_equal(problem.samples, again.samples)
    clip, text = problem.prompt[0]["content"]
    assert np.array_equal(clip["audio"], problem.samples)
    assert text == {"type": "text", "text": problem.question}


@pytest.mark.parametrize("voices", task.VOICES)
def test_every_clip_is_one_that_the_model_takes(voices):
    for problem in task.problems(40, seed=1, voices=voices):
        samples = check_clip(problem.samples, RATE, task.SECONDS)
        assert samples.dtype == np.float32
        assert len(samples) > 0.2 * RATE


def test_six_slow_digits_are_spoken_faster_to_fit():
    slow = [np.ones(RATE)] * 6
    clip = task.compose(slow, np.random.default_rng(0), 20)
    assert 3.8 * RATE < len(clip) <= 4 * RATE


@pytest.mark.parametrize("noise_db", [0, 10, 20, 40])
def test_the_noise_is_as_far_below_the_voice_as_asked(noise_db):
    sound = 0.3 * np.sin(np.arange(RATE) / 5)
    mixed = task.add_noise(sound, np.random.default_rng(0), noise_db).astype(float)
    # What of the mixture is the sound, by least squares; the rest is noise.
    scale = mixed @ sound / (sound @ sound)
    noise = mixed - scale * sound
    measured = 10 * np.log10(np.mean((scale * sound) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(noise_db, abs=0.5)


def test_seen_and_unseen_voices_are_apart_and_have_ten_digits_each():
    seen, unseen = task.voices("seen"), task.voices("unseen")
    assert len(seen) >= 6
    assert len(unseen) >= 6
    assert not set(seen) & set(unseen)
    assert {"rms", "slt"} < set(unseen)
    for name in task.voices("all"):
        pieces = task.recordings()[name]
        assert len(pieces) == 10
        assert all(0.15 * RATE < len(piece) < RATE for piece in pieces), name


def test_mu_law_keeps_the_error_small_beside_the_sound():
    sound = 0.5 * np.sin(np.arange(4000) / 7)
    error = task.expand(task.compress(sound)) - sound
    assert 10 * np.log10(np.mean(sound**2) / np.mean(error**2)) > 35


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("471", "471", 0),
        ("471", "", 3),
        ("47", "74", 2),
        ("12345", "2346", 2),
    ],
)
def test_the_edit_distance_counts_the_fewest_changes(one, other, distance):
    assert task.edit_distance(one, other) == distance
    assert task.edit_distance(other, one) == distance


def test_the_digit_error_rate_is_over_all_digits_together():
    problems = task.problems(2, count=4, kind="transcribe")
    answers = [problems[0].answer, problems[1].answer[:-2]]
    assert task.count_errors(problems, answers) == [1, 8]
    assert task.digit_error_rate(problems, answers) == 1 / 8
    with pytest.raises(ValueError, match="no digits were spoken"):
        task.digit_error_rate([], [])


def words(wordings: dict) -> set[str]:
    text = " ".join(words for group in wordings.values() for words in group)
    return set(re.findall(r"[a-z]+", text.casefold()))


def test_unseen_wordings_are_new_and_made_of_known_words():
    for kind in task.KINDS:
        assert not set(task.NEW_WORDINGS[kind]) & set(task.WORDINGS[kind])
    assert words(task.NEW_WORDINGS) <= words(task.WORDINGS)
    asked = {p.question for p in task.problems(60, new_wordings=True)}
    assert asked <= {text for group in task.NEW_WORDINGS.values() for text in group}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "add"}, 'kind "add" is not one of transcribe'),
        ({"count": 7}, "count is 7"),
        ({"count": 0}, "count is 0"),
        ({"voices": "mine"}, 'voices "mine" is not one of seen'),
        ({"split": "dev"}, 'split "dev"'),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        task.problems(1, **options)


def test_a_problem_can_be_made_with_any_number_of_digits():
    rng = random.Random(0)
    for count in range(1, task.LONGEST + 1):
        assert len(task.make(rng, count=count).content[1]) == count


def test_anybody_can_have_a_string_said():
    clip = task.say("471", voice="slt", noise_db=30, seed=1)
    assert np.array_equal(clip, task.say("471", voice="slt", noise_db=30, seed=1))
    assert not np.array_equal(clip, task.say("417", voice="slt", noise_db=30, seed=1))
    for digits in ("", "1234567", "four", "4 7"):
        with pytest.raises(ValueError, match="is not 1 to 6 digits"):
            task.say(digits)
    with pytest.raises(ValueError, match='Did you mean "slt"'):
        task.say("1", voice="stl")
