"""Tones: the right pitch, splits that hold, grades that are fair."""

import numpy as np
import pytest

from qwen_course.audio import RATE, check_clip
from qwen_course.tasks import tones as task


def test_no_sequence_of_the_test_is_ever_one_of_the_training():
    train = {p.content for p in task.problems(400, 1, "train")}
    test = {p.content for p in task.problems(150, 2, "test")}
    assert not train & test


def test_every_worked_answer_is_graded_as_right():
    for problem in task.problems(100, 3):
        assert problem.grade(problem.answer), problem.answer


def test_typical_mistakes_are_wrong():
    first = task.problems(1, kind="transcribe", count=3)[0]
    low, high = "low low low low", first.answer.rsplit(" ", 1)[0]
    assert not any(first.grade(answer) for answer in (low, high, "", "3 tones"))
    assert first.grade(first.answer.replace(" ", ", ").title() + ".")
    count = task.problems(1, kind="count", count=3)[0]
    assert not any(count.grade(answer) for answer in ("4 tones", "low high", ""))
    assert count.grade("There are 3.")


@pytest.mark.parametrize(("name", "hertz"), task.HERTZ.items())
def test_a_tone_has_its_frequency_and_soft_edges(name, hertz):
    sound = task.tone(name, 0.5)
    loudest = np.abs(np.fft.rfft(sound)).argmax() / 0.5
    assert loudest == pytest.approx(hertz, abs=2)
    assert np.abs(sound[[0, -1]]).max() < 1e-6


def test_every_clip_is_one_that_the_model_takes():
    for problem in task.problems(60, seed=1):
        check_clip(problem.samples, RATE, 4.0)
        assert np.array_equal(problem.samples, problem.samples)


def test_unseen_wordings_are_new():
    asked = {p.question for p in task.problems(40, new_wordings=True)}
    known = {w for words in task.WORDINGS.values() for w in words}
    assert not asked & known


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "sum"}, 'kind "sum" is not one of transcribe, count'),
        ({"count": 7}, "count is 7"),
        ({"n": 300}, "Ask for fewer"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        task.problems(**{"n": 1} | options)


@pytest.mark.parametrize("names", [[], ["low"] * 7, ["loud"]])
def test_only_known_tones_are_played(names):
    with pytest.raises(ValueError, match="is not 1 to 6 of the tones"):
        task.play(names)
