"""The desk of seven languages: it keeps the language of a request, or says so."""

import importlib.util
from datetime import date

import pytest

import qwen_course as qc
from qwen_course import quality
from qwen_course.capstones import languages
from qwen_course.capstones.languages import LOCALES, GlobalDesk
from qwen_course.chat import Reply, Usage

library = pytest.mark.skipif(
    languages.why_not() is not None, reason=f"{languages.why_not()}"
)
babel = pytest.mark.skipif(
    importlib.util.find_spec("babel") is None,
    reason='needs Babel. Type: python -m pip install "qwen-course[capstones]"',
)
SENTENCES = {
    "en": "The team answers every question.",
    "tr": "Bu soru için bir cevap yok ve ne olacak?",
    "zh": "我们回答每一个问题。",
    "es": "El equipo y la empresa responden con una carta para los clientes.",
    "fr": "Le service répond avec une lettre pour les clients.",
    "de": "Die Firma ist groß und das Team antwortet mit einer E-Mail.",
    "ja": "私たちはすべての質問に答えます。",
}


@pytest.fixture
def desk(pocket):
    return GlobalDesk(*pocket, detect=quality.language)


@pytest.fixture
def scripted(desk, monkeypatch):
    """A desk whose model says the given texts, one after the other."""

    def saying(*texts):
        left, asked = list(texts), []

        def say(model, tokenizer, messages, **options):
            asked.append((messages, options))
            return Reply(left.pop(0), "", Usage(5, 0, 5, 0.1, 0.1), "end", [])

        monkeypatch.setattr(languages, "chat", say)
        desk.asked = asked
        return desk

    return saying


# Telling languages


@pytest.mark.parametrize("detect", [quality.language, languages.detector()])
def test_a_sentence_in_each_language_is_told(detect):
    assert {code: detect(text) for code, text in SENTENCES.items()} == {
        code: code for code in LOCALES
    }


@library
@pytest.mark.parametrize("text", ["", "42", "12 + 30 = 42", "Qwen2.5-7B", "a_b?"])
def test_what_holds_no_words_has_no_language(text):
    assert languages.by_library(text) is None


@library
@pytest.mark.parametrize("text", ["Кто разработал Qwen?", "Qwen을 누가 개발했나요?"])
def test_a_script_that_the_seven_do_not_use_is_no_language_of_the_desk(text):
    assert languages.by_library(text) is None


@library
def test_the_library_tells_what_the_rule_of_lesson_09_cannot():
    texts = {code: some[::9] for code, some in languages.course_texts().items()}
    kept = languages.measure_detector(languages.by_library, texts)
    rule = languages.measure_detector(quality.language, texts)
    assert kept.accuracy > 0.97
    assert kept.right > rule.right


def test_without_the_library_it_says_what_to_type_and_uses_the_rule(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "py3langid" else find(name, package),
    )
    languages._identifier.cache_clear()
    assert "qwen-course[capstones]" in languages.why_not()
    with pytest.raises(ImportError, match="py3langid"):
        languages.by_library("Which team makes it?")
    assert languages.detector() is quality.language


# Tokens


def test_the_same_content_takes_more_tokens_in_turkish_than_in_english():
    factors = languages.factors(qc.vocabulary.qwen3_tokenizer())
    assert factors["en"] == 1
    assert factors["tr"] == max(factors.values()) > 1.5
    assert factors["zh"] < 1


def test_a_vocabulary_made_of_all_languages_alike_is_fairer(pocket):
    answers = languages.parallel_texts()["answers"]
    qwen = languages.factors(qc.vocabulary.qwen3_tokenizer(), answers)
    own = languages.factors(pocket[1], answers)
    assert max(own.values()) < max(qwen.values())


def test_a_language_that_needs_more_tokens_gets_a_larger_budget():
    budgets = languages.budgets(qc.vocabulary.qwen3_tokenizer(), 100)
    assert budgets["en"] == 100
    assert budgets["tr"] > 150
    assert min(budgets.values()) == 100


def test_the_picture_states_its_finding():
    costs = {"Qwen": {"en": 1.0, "tr": 1.5}, "pocket": {"en": 1.0, "tr": 1.2}}
    title = languages.plot(costs).axes[0].get_title()
    assert title == "Turkish takes 1.5 times the tokens of English (Qwen)"


# The desk


def test_a_question_is_answered_in_its_own_language(desk):
    found = desk.answer("Qwen'i hangi şirket geliştiriyor ve bu ne için?")
    assert found.asked == "tr"
    assert not found.fallback
    assert "Alibaba Cloud" in found.answer


def test_an_answer_in_another_language_gets_a_second_try(scripted):
    desk = scripted(SENTENCES["en"], SENTENCES["de"])
    found = desk.answer(SENTENCES["de"])
    assert (found.language, found.calls, found.fallback) == ("de", 2, False)
    again = desk.asked[1][0][-1]["content"]
    assert again.endswith(LOCALES["de"].ask)


def test_after_two_tries_english_comes_with_a_note_in_the_readers_language(scripted):
    desk = scripted(SENTENCES["es"], SENTENCES["fr"], SENTENCES["en"])
    found = desk.answer(SENTENCES["de"])
    assert (found.language, found.calls, found.fallback) == ("en", 3, True)
    assert str(found).endswith(LOCALES["de"].note)


def test_an_english_second_try_is_not_asked_for_again(scripted):
    found = scripted(SENTENCES["es"], SENTENCES["en"]).answer(SENTENCES["de"])
    assert (found.calls, found.fallback) == (2, True)


def test_a_number_for_an_answer_belongs_to_every_language(scripted):
    found = scripted("42").answer(SENTENCES["tr"])
    assert (found.language, found.calls, found.fallback) == (None, 1, False)


def test_a_real_model_is_told_the_language_in_its_system_message(scripted):
    desk = scripted(SENTENCES["ja"])
    desk.instruct = True
    desk.answer(SENTENCES["ja"])
    assert desk.asked[0][0][0] == {"role": "system", "content": LOCALES["ja"].ask}


def test_a_question_asked_twice_costs_one_call_and_is_recorded_twice(scripted):
    desk = scripted("42")
    first, second = desk.answer("12 + 30?"), desk.answer(" 12  + 30? ")
    assert (first.cached, second.cached) == (False, True)
    assert len(desk.asked) == 1
    assert len(desk.record) == 2


def test_an_empty_question_is_refused(desk):
    with pytest.raises(ValueError, match="empty"):
        desk.answer("  ")


# The same in every language


def test_the_same_questions_exist_in_every_language():
    facts, sums = languages.same_facts(3, seed=1), languages.same_sums(3, seed=1)
    assert set(facts) == set(sums) == set(LOCALES)
    for numbers in zip(*sums.values(), strict=True):
        assert len({problem.expected for problem in numbers}) == 1
        assert len({problem.question for problem in numbers}) == len(LOCALES)


def test_a_row_counts_right_answers_kept_languages_and_tokens(desk):
    facts = languages.same_facts(2, seed=1)
    few = {code: facts[code] for code in ("en", "zh")}
    english, chinese = languages.measure(desk, few)
    assert english.p_value == 1
    assert chinese.right.total == 2
    assert chinese.prompt_tokens > 5
    assert 0 <= chinese.thinking_share < 1
    assert "Chinese" in repr(languages.Comparison([chinese]))


def test_languages_with_other_numbers_of_questions_are_refused(desk):
    facts = languages.same_facts(2)
    with pytest.raises(ValueError, match="as many problems"):
        languages.measure(desk, {"en": facts["en"], "tr": facts["tr"][:1]})


@babel
def test_numbers_and_dates_follow_the_habit_of_a_language():
    assert languages.local_number(1234.5, "en") == "1,234.5"
    assert languages.local_number(1234.5, "de") == "1.234,5"
    assert languages.local_date(date(2025, 4, 29), "ja") == "2025年4月29日"
    with pytest.raises(ValueError, match="is not one of"):
        languages.local_number(1, "xx")


def test_what_the_desk_says_is_in_its_own_language():
    detect = languages.detector()
    for code, locale in LOCALES.items():
        assert detect(locale.article) == code
