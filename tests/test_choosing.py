"""Recommendations: what fits, in which order, and why the rest does not."""

import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_course import catalog, choosing, cli
from qwen_course.choosing import recommend


def names(found):
    return [choice.checkpoint.name for choice in found]


def reason(found, name):
    return next(r.reason for r in found.ruled_out if r.checkpoint.name == name)


def test_every_checkpoint_is_recommended_ruled_out_or_made_for_something_else():
    for task in choosing.TASKS:
        found = recommend(task, memory_gb=16, licence="Apache-2.0", context=32768)
        assert len(found) + len(found.ruled_out) + found.other_tasks == 147


def test_every_task_has_a_model_when_nothing_is_limited():
    assert all(recommend(task) for task in choosing.TASKS)


def test_the_newest_generation_comes_first_and_in_it_the_largest():
    found = recommend("chat", memory_gb=8)
    order = [
        (float(c.checkpoint.generation), c.checkpoint.total_parameters) for c in found
    ]
    assert order == sorted(order, reverse=True)
    assert names(found)[0] == "Qwen3.5-4B"


def test_everything_recommended_fits_with_a_tenth_to_spare():
    found = recommend("code", memory_gb=24, context=16384)
    assert found
    assert all(choice.memory.total <= 0.9 * 24 * 2**30 for choice in found)
    assert {choice.precision for choice in found} == {"bf16", "int8", "nf4"}


def test_what_is_too_large_says_by_how_much():
    found = recommend("chat", memory_gb=8)
    assert reason(found, "Qwen3-32B").startswith("even in nf4 it needs 1")
    assert reason(found, "Qwen3-32B").endswith("and 7.20 GiB are free")


def test_a_licence_that_was_never_seen_is_no_licence():
    found = recommend("code", licence="apache-2.0")
    assert "was not seen" in reason(found, "Qwen3-Coder-480B-A35B-Instruct")
    assert "non-commercial" in reason(found, "Qwen2.5-Coder-3B-Instruct")
    assert {choice.checkpoint.licence for choice in found} == {"Apache-2.0"}


def test_without_a_licence_wanted_every_other_one_is_named():
    found = recommend("vision")
    qwen = next(c for c in found if c.checkpoint.licence == "Qwen-Research")
    assert "licence: Qwen-Research" in qwen.reasons


def test_a_context_beyond_the_native_one_names_what_it_needs():
    found = recommend("chat", context=100_000, thinking=True)
    qwen3 = next(c for c in found if c.checkpoint.name == "Qwen3-8B")
    assert "needs YaRN factor 4 for 100,000 tokens" in qwen3.reasons
    assert "ends at 32,768" in reason(found, "Qwen3-0.6B")


def test_thinking_is_wanted_or_not():
    never = recommend("reasoning", thinking=False)
    assert "QwQ-32B" not in names(never)
    assert reason(never, "QwQ-32B") == "it always thinks"
    always = recommend("chat", thinking=True)
    assert reason(always, "Qwen2.5-7B-Instruct") == "it never thinks"


def test_a_modality_the_model_lacks_rules_it_out():
    found = recommend("chat", modality="image")
    assert all("image" in c.checkpoint.modalities for c in found)
    assert reason(found, "Qwen3-8B") == "it takes only text"


def test_the_math_specialists_fall_to_their_short_context():
    found = recommend("math", memory_gb=8, context=8192)
    assert "4,096" in reason(found, "Qwen2.5-Math-7B-Instruct")
    assert "a specialist" in recommend("math", memory_gb=8)[-1].reasons


def test_a_base_checkpoint_is_recommended_only_as_one():
    assert not any(c.checkpoint.is_base for c in recommend("chat"))
    assert all(c.checkpoint.is_base for c in recommend("base"))


def test_unknown_dimensions_are_said():
    best = recommend("embedding")[0]
    assert "weights alone, its dimensions are not known" in best.reasons
    assert best.memory.weights == 2 * best.checkpoint.total_parameters


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(list(choosing.TASKS)),
    st.floats(0.5, 2000),
    st.none() | st.integers(1, 1_000_000),
)
def test_more_memory_never_takes_a_recommendation_away(task, memory_gb, context):
    small = recommend(task, memory_gb=memory_gb, context=context)
    large = recommend(task, memory_gb=2 * memory_gb, context=context)
    assert set(names(small)) <= set(names(large))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"task": "maths"}, 'Did you mean "math"'),
        ({"licence": "MIT"}, 'licence "MIT" is not one of Apache-2.0'),
        ({"modality": "smell"}, 'modality "smell" is not one of audio'),
        ({"memory_gb": -1}, "give the GiB your machine has"),
        ({"context": 0}, "give a number of tokens"),
    ],
)
def test_wrong_needs_name_the_remedy(needs, message):
    with pytest.raises(ValueError, match=message):
        recommend(**needs)


def test_it_shows_itself_as_a_table_with_reasons():
    found = recommend("chat", memory_gb=8)
    assert str(found).splitlines()[0].split() == ["id", "precision", "memory", "why"]
    assert "checkpoints meet the needs" in str(found)
    assert "ruled out because" in str(found.ruled_out)
    assert found._repr_html_().count("<tr>") == len(found) + 1


def test_the_catalogue_and_the_command_recommend_the_same(capsys):
    assert cli.main(["models", "--task", "math", "--memory", "8"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == str(catalog.recommend("math", memory_gb=8))


def test_the_command_says_why_nothing_is_left(capsys):
    assert cli.main(["models", "--task", "speech", "--memory", "1"]) == 0
    assert "ruled out because" in capsys.readouterr().out
    assert cli.main(["models", "--task", "smell"]) == 1


# Real checkpoints for the lessons


def test_the_lessons_run_on_the_hybrid_qwen3_that_fits():
    found = choosing.lesson_models(memory_gb=8)
    ids = [item.choice.checkpoint.name for item in found]
    assert ids == ["Qwen3-8B", "Qwen3-4B", "Qwen3-1.7B", "Qwen3-0.6B"]
    assert found[-1].bytes == 2 * 596_049_920


def test_a_download_takes_its_bits_over_the_speed():
    fast, slow = (
        choosing.lesson_models(memory_gb=4, connection_mbit=speed)[-1]
        for speed in (100, 10)
    )
    assert fast.minutes == pytest.approx(596_049_920 * 16 / 100e6 / 60)
    assert slow.minutes == pytest.approx(10 * fast.minutes)
    assert "1.2 GB    2 minutes" in str(choosing.lesson_models(memory_gb=4))


def test_without_a_number_the_free_memory_of_this_machine_counts(monkeypatch):
    doctor = importlib.import_module("qwen_course.doctor")
    monkeypatch.setattr(doctor, "model_memory_gb", lambda: 0.0)
    assert not choosing.lesson_models()


def test_a_connection_without_speed_is_refused():
    with pytest.raises(ValueError, match="such as 100"):
        choosing.lesson_models(memory_gb=8, connection_mbit=0)
