"""The edge capstone: a translator in a process with a ceiling, and what it doubts."""

import importlib.util
import json

import pytest

from qwen_course import adapters
from qwen_course.capstones import edge
from qwen_course.evaluation import evaluate
from qwen_course.isolation import namespaces
from qwen_course.platforms import gguf_files, llama_cpp
from qwen_course.tasks import phrases, sums

missing = (
    gguf_files.why_not()
    or llama_cpp.why_not()
    or (None if importlib.util.find_spec("xllamacpp") else "xllamacpp is missing")
)
installed = pytest.mark.skipif(missing is not None, reason=f"{missing}")


@pytest.fixture(scope="module")
def translator():
    """The merged model and its tokenizer, as they are before the export."""
    model, tokenizer = adapters.load_adapter(edge.adapter_folder(), "fp32", "cpu")
    return adapters.merge(model), tokenizer


@pytest.fixture(scope="module")
def device():
    with edge.EdgeAssistant(memory_mb=128) as running:
        yield running


# What the adapter can do


def test_unseen_phrases_come_out_right_to_the_letter(translator):
    unseen = phrases.problems(64, seed=8)

    result = evaluate(*translator, unseen, thinking=False, max_new_tokens=48)

    assert result.accuracy >= 0.65  # the card says 81% of 480


def test_sums_with_thinking_are_not_forgotten(translator):
    result = evaluate(*translator, sums.problems(16, seed=8, count=3), thinking=True)

    assert result.accuracy >= 0.8


def test_the_adapter_is_small_and_names_its_base():
    folder = edge.adapter_folder()

    assert (folder / "adapter_model.safetensors").stat().st_size < 6e6
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pocket-qwen3"
    assert (folder / "README.md").is_file()


# What speaks against a translation


@pytest.mark.parametrize(
    ("text", "language", "numbers"),
    [
        ("Two coffees and a tea, please.", "en", [2]),
        ("The bus leaves at half past nine.", "en", [9.5]),
        ("Der Bus fährt um halb zehn ab.", "de", [9.5]),
        ("Otobüs saat dokuz buçukta kalkıyor.", "tr", [9.5]),
        ("Le bus part à neuf heures et demie.", "fr", [9.5]),
        ("El autobús sale a las nueve y media.", "es", [9.5]),
        ("İki gece için on iki oda, lütfen.", "tr", [2, 12]),
        ("Tren saat on birde kalkıyor.", "tr", [11]),
        ("Der Zug fährt um halb zwei ab.", "de", [1.5]),
        ("Le train part à une heure et demie.", "fr", [1.5]),
        ("El tren sale a la una y media.", "es", [1.5]),
        ("The train leaves at one on Monday.", "en", []),
        ("Die Suppe kostet 35 Euro.", "de", [35]),
    ],
)
def test_numbers_are_read_as_words_and_as_digits(text, language, numbers):
    assert edge.numbers_in(text, language) == numbers


def test_right_translations_have_the_same_numbers_in_all_languages():
    for problem in phrases.problems(400, seed=9):
        source, target = problem.kind.split("-")
        text = problem.question.partition(": ")[2]
        assert edge.numbers_agree(text, problem.answer, source, target), text


def test_another_number_is_doubted():
    found = edge.doubts(
        "Two coffees, please.", "Drei Kaffee, bitte.", "Three coffees, please.",
        "en", "de",
    )  # fmt: skip

    assert found == [
        "the numbers of the two sentences differ.",
        'translated back it says "Three coffees, please."',
    ]


def test_the_same_sentence_back_leaves_no_doubt():
    text = "The egg costs 35 euros."

    assert edge.doubts(text, "Das Ei kostet 35 Euro.", text, "en", "de") == []


# The device


@installed
def test_it_translates_and_says_nothing_against_it(device):
    found = device.translate("Two coffees, please.", to="de")

    assert found.text == "Zwei Kaffee, bitte."
    assert found.warnings == ()


@installed
def test_a_word_it_never_saw_raises_a_doubt(device):
    found = device.translate("Two bananas, please.", to="de")

    assert found.warnings
    assert "Careful: " in str(found)


@installed
def test_it_thinks_about_a_sum_within_its_budget(device):
    assert device.answer("What is 12 + 47 + 85?", thinking_budget=128) == "144"
    assert device.answer("What is 12 + 47 + 85?", thinking_budget=4) != ""


@installed
def test_the_memory_stays_under_the_ceiling_and_the_start_is_timed(device):
    assert 0 < device.peak_mb < 128
    assert device.start_seconds > 0
    assert any("128 MB" in line for line in device.limits())


@installed
def test_a_ceiling_too_low_ends_the_process_and_says_what_to_give(device):
    file = edge.model_file()
    for ceiling in (20, 60):
        with pytest.raises(edge.CeilingTooLow, match="give memory_mb=") as told:
            edge.EdgeAssistant(file, memory_mb=ceiling)
        assert f"the ceiling of {ceiling} MB is too low" in str(told.value)

    assert device.answer("What is 2 + 3?", thinking_budget=64) == "5"


@installed
def test_what_the_sentence_advises_is_enough():
    with pytest.raises(edge.CeilingTooLow) as told:
        edge.EdgeAssistant(memory_mb=20)
    advised = float(str(told.value).partition("memory_mb=")[2].split()[0])

    with edge.EdgeAssistant(memory_mb=advised) as device:
        assert device.answer("What is 2 + 3?", thinking_budget=64) == "5"


@installed
def test_an_answer_too_late_ends_the_process_and_the_next_has_a_new_one():
    with edge.EdgeAssistant(memory_mb=128) as device:
        first = device._start().process.pid
        device.seconds = 1e-6
        with pytest.raises(TimeoutError, match="seconds="):
            device.answer("What is 12 + 47?")
        device.seconds = 60
        assert device.answer("What is 2 + 3?", thinking_budget=64) == "5"
        assert device._start().process.pid != first


@installed
@pytest.mark.skipif(not namespaces(), reason="this system allows no namespaces")
def test_the_process_has_no_network_where_the_system_allows_it(device):
    assert device._start().ready["network"] is False
    assert "The process has no network." in device.limits()


@installed
def test_an_overlong_question_is_refused_and_the_process_lives_on(device):
    with pytest.raises(ValueError, match="refused"):
        device.answer("What is 2 + 3? " * 200)

    assert device.answer("What is 2 + 3?", thinking_budget=64) == "5"


@installed
def test_pairs_that_were_not_taught_are_named(device):
    with pytest.raises(ValueError, match="go through English"):
        device.translate("Zwei Kaffee, bitte.", to="fr", source="de")


def test_a_machine_without_llama_cpp_says_what_to_type(monkeypatch):
    monkeypatch.setattr(llama_cpp, "why_not", lambda: 'pip install "qwen-course[gguf]"')

    with pytest.raises(ImportError, match="gguf"):
        edge.EdgeAssistant("anywhere")


def test_wrong_settings_are_told():
    with pytest.raises(ValueError, match="torch"):
        edge.EdgeAssistant("anywhere", engine="tors")
    with pytest.raises(ValueError, match="above 0"):
        edge.EdgeAssistant("anywhere", memory_mb=0)


def test_the_estimate_for_a_phone_is_the_size_of_the_published_file():
    (row,) = edge.on_a_phone(["Qwen3-4B"])

    assert row.file == pytest.approx(2.50e9, rel=0.02)  # Qwen3-4B-Q4_K_M.gguf
    assert "Qwen3-4B" in str(edge.Phones([row]))


@installed
def test_torch_does_not_fit_where_llama_cpp_does():
    with_torch = edge.fit("torch", 300)
    with_llama_cpp = edge.fit("llama.cpp", 128)

    assert (with_torch.answer, with_torch.why_not) == ("", "ended")
    assert with_llama_cpp.answer == "Zwei Kaffee, bitte."
    assert "ended" in str(edge.Fits([with_torch, with_llama_cpp]))
