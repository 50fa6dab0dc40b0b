"""Quality: canaries, drift, and a gate that is not fooled by chance."""

import importlib.util
import random

import pytest
import yaml

from qwen_course import quality, tasks
from qwen_course.chat import Reply, Usage
from qwen_course.evaluation import Evaluation
from qwen_course.monitoring import QwenMonitor
from qwen_course.quality import Canaries, compare, drift, language, permutation_test
from qwen_course.service import Served

PROBLEMS = tasks.sums.problems(12, seed=3)


def reply(answer="42", question="What is 12 + 30?", thinking=0, stopped="end"):
    usage = Usage(10, thinking, len(answer), 0.1, 0.05)
    talk = [{"role": "user", "content": question}]
    return Reply(answer, "", usage, stopped, talk)


def served(answer=10, thinking=20, finish_reason="stop"):
    return Served("r", "m", False, 0.0, 0.1, 0.2, 1.0, 10, thinking, answer,
                  finish_reason)  # fmt: skip


def evaluation(wrong=(), problems=PROBLEMS):
    """An evaluation whose answers are right but for some."""
    answers = ["no idea" if n in wrong else p.expected for n, p in enumerate(problems)]
    return Evaluation(list(problems), [reply(answer) for answer in answers])


# The gate


def test_a_drop_that_chance_explains_is_unclear_and_says_how_many_questions_it_takes():
    found = quality.gate(evaluation(), evaluation(wrong=[3]))
    assert found.verdict == "unclear"
    assert (found.lost, found.won) == (1, 0)
    assert found.needed > 500
    assert f"ask about {found.needed:,}" in str(found)


def test_a_drop_beyond_chance_is_worse():
    found = quality.gate(evaluation(), evaluation(wrong=range(6)))
    assert found.verdict == "worse"
    assert found.p_value == 1 / 64
    assert found.change == -0.5


def test_enough_questions_without_losses_pass():
    assert compare([True] * 400, [True] * 400).verdict == "pass"
    assert compare([True] * 12, [True] * 12).verdict == "unclear"  # too few to know


def test_a_sure_drop_within_what_is_allowed_passes():
    before = [True] * 3000
    after = [True] * 2980 + [False] * 20
    assert compare(before, after, allowed=0.02).verdict == "pass"
    assert compare(before, after, allowed=0.0).verdict == "worse"


def test_what_both_get_right_or_wrong_says_nothing_of_the_difference():
    few = compare([True] * 6, [False] * 6)
    many = compare([True] * 6 + [False] * 900, [False] * 906)
    assert few.p_value == many.p_value


def test_the_same_accuracy_with_other_answers_is_no_drop():
    found = compare([True, False] * 50, [False, True] * 50)
    assert found.change == 0
    assert found.p_value > 0.4


def test_the_gate_cries_wolf_as_seldom_as_it_says():
    rng, alarms = random.Random(1), 0
    for _ in range(300):
        before, after = ([rng.random() < 0.8 for _ in range(150)] for _ in range(2))
        alarms += compare(before, after).verdict == "worse"
    assert alarms / 300 < 0.08


def test_different_questions_cannot_be_compared():
    other = tasks.sums.problems(12, seed=4)
    with pytest.raises(ValueError, match="different questions"):
        quality.gate(evaluation(), evaluation(problems=other))
    with pytest.raises(ValueError, match="one or more"):
        compare([], [])
    with pytest.raises(ValueError, match="such as 0.02"):
        compare([True], [True], allowed=2)


# Drift


def test_shuffles_tell_a_difference_from_chance():
    rng = random.Random(0)
    one, same, other = (
        [rng.gauss(mean, 5) for _ in range(80)] for mean in (40, 40, 48)
    )
    assert permutation_test(one, same) > 0.05
    assert permutation_test(one, other) < 0.001
    assert permutation_test(one, other, seed=1) < 0.001
    assert permutation_test([], one) != permutation_test([], one)  # not a number


def test_the_requests_alone_tell_length_thinking_and_cut_off_answers():
    rng = random.Random(2)
    before = [served(rng.randint(5, 15), rng.randint(10, 30)) for _ in range(60)]
    after = [served(rng.randint(200, 256), 0, "length") for _ in range(60)]
    found = {trait.name for trait in drift(before, after).found}
    assert found == {"answer tokens", "thinking tokens", "thinking share", "cut off"}
    again = [served(rng.randint(5, 15), rng.randint(10, 30)) for _ in range(60)]
    assert drift(before, again).found == []


def test_a_sure_but_tiny_change_is_no_drift():
    before = [served(100 + n % 3) for n in range(3000)]
    after = [served(102 + n % 3) for n in range(3000)]
    trait = drift(before, after)[0]
    assert trait.p_value < 0.01
    assert not trait.drifted


def test_an_answer_in_another_language_is_seen():
    question = "Wie viele Parameter hat das Modell und was kostet es?"
    german = [reply("Das Modell hat sieben Millionen und ist frei.", question)] * 20
    english = [reply("The model has seven million and it is free.", question)] * 20
    found = drift(german, english).found
    assert "language kept" in [trait.name for trait in found]
    assert drift(german, german).found == []


@pytest.mark.parametrize("code", tasks.course_questions.LANGUAGES)
def test_the_language_of_a_sentence_is_seldom_mistaken(code):
    asked = tasks.course_questions.every_fact("test", code).values()
    seen = [language(problem.question) for problems in asked for problem in problems]
    wrong = [found for found in seen if found not in (code, None)]
    assert len(wrong) <= 0.05 * len(seen)
    assert seen.count(code) >= 0.6 * len(seen)


def test_a_number_has_no_language():
    assert language("1,692") is None
    assert quality.same_language(reply("42")) is None
    assert quality.same_language(served()) is None


def test_a_monitor_tells_of_drift():
    then = [served() for _ in range(30)]
    now = [served(answer=200, finish_reason="length") for _ in range(30)]
    assert quality.watch_drift(lambda: then, then)()[0].status == "ok"
    check = quality.watch_drift(lambda: now, then)()[0]
    assert check.status == "warning"
    assert "answer tokens 10 -> 200" in check.detail
    assert "canary" in check.remedy
    assert quality.watch_drift(list, then)()[0].status == "ok"  # nothing came yet


# Canaries


def answering(wrong=()):
    """A way to ask that answers every canary right but some."""

    def ask(talks):
        right = quality.canaries()
        return [
            reply("no idea" if n in wrong else right[n].expected)
            for n in range(len(talks))
        ]

    return ask


def test_canaries_are_always_the_same_and_nobody_was_trained_on_them():
    first, again = quality.canaries(), quality.canaries()
    assert [p.question for p in first] == [p.question for p in again]
    for problem in first:
        split = problem.split or tasks.split_of(problem.content)
        assert split == "test"


def test_a_model_that_loses_canaries_makes_the_service_unhealthy():
    watch = QwenMonitor()
    found = Canaries(answering(), monitor=watch)
    watch.sources.append(found.checks)
    assert watch.health().checks[-1].detail == "not asked yet"
    assert found.run().accuracy == 1
    assert watch.health().status == "healthy"
    found.ask = answering(wrong=range(7))
    found.run()
    report = watch.health()
    assert report.status == "unhealthy"
    assert "7 lost and 0 won since the first" in report.checks[-1].detail
    exported = watch.exposition()[0].decode()
    assert f"qwen_canaries_right_ratio {12 / 19}" in exported


def test_one_canary_more_or_less_is_no_alarm():
    found = Canaries(answering())
    found.run()
    found.ask = answering(wrong=[0])
    found.run()
    assert found.checks()[0].status == "ok"
    assert found.gate().lost == 1


def test_a_comparison_needs_two_runs():
    found = Canaries(answering())
    found.run()
    with pytest.raises(ValueError, match="twice first"):
        found.gate()


def test_the_pocket_model_knows_the_canaries(pocket):
    from qwen_course.chat import chat_batch

    found = Canaries(lambda talks: chat_batch(*pocket, talks, sampling="greedy"))
    assert found.run().accuracy > 0.8


# lm-evaluation-harness


def test_every_task_of_the_harness_names_functions_that_exist():
    folder = quality.harness_tasks()
    names = {path.stem for path in folder.glob("*.yaml")}
    assert names == {"pocket_sums", "pocket_products", "pocket_word_problems"}
    functions = (folder / "problems.py").read_text(encoding="utf-8")
    for path in folder.glob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("!function ", "")
        task = yaml.safe_load(text)
        assert task["task"] == path.stem
        for key in ("custom_dataset", "process_results"):
            assert f"def {task[key].removeprefix('problems.')}(" in functions


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-eval is not installed: python -m pip install lm-eval",
)
def test_the_harness_measures_the_pocket_model_offline(pocket):
    found = quality.harness(*pocket, ["sums"], limit=8)
    assert found["sums"] > 0.8
    without = quality.harness(*pocket, ["sums"], limit=8, thinking=False)
    assert without["sums"] < found["sums"]


def test_a_missing_harness_says_what_to_type(monkeypatch, pocket):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install lm-eval"):
        quality.harness(*pocket)
