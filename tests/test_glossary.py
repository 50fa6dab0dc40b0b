"""The glossary knows the words of the course, and says so when it does not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_course import glossary, notebooks
from qwen_course.datafiles import read_yaml


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("token", "token"),
        (" Tokens ", "token"),
        ("GQA", "grouped-query attention"),
        ("Grouped Query Attention", "grouped-query attention"),
        ("kv-cache", "KV cache"),
        ("top-p", "top_p"),
        ("/no_think", "soft switch"),
        ("license", "licence"),
    ],
)
def test_a_word_is_found_in_any_usual_spelling(word, name):
    assert glossary.lookup(word).name == name


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("tokan", "The nearest terms are: token"),
        ("cache", "KV cache"),
        ("temprature", "temperature"),
        ("logits processor", "logit"),
        ("xyzzy", "glossary.terms() lists all terms"),
        ("", "glossary.terms() lists all terms"),
    ],
)
def test_an_unknown_word_names_the_nearest_terms(word, near):
    with pytest.raises(ValueError, match="is not in the glossary") as raised:
        glossary.lookup(word)
    assert near in str(raised.value)


@given(st.text())
def test_any_text_is_a_term_or_a_clear_error(word):
    known = {glossary._plain(n) for t in glossary.terms() for n in (t.name, *t.also)}
    if glossary._plain(word) in known:
        assert glossary.lookup(word).meaning
    else:
        with pytest.raises(ValueError, match="is not in the glossary"):
            glossary.lookup(word)


def test_every_spelling_belongs_to_one_term():
    """A short form given to two terms would hide one of them without a word."""
    spellings = [
        glossary._plain(name)
        for term in glossary.terms()
        for name in {glossary._plain(one) for one in (term.name, *term.also)}
    ]
    assert len(spellings) == len(set(spellings))


def test_every_meaning_is_one_or_two_short_sentences():
    for term in glossary.terms():
        assert term.meaning.endswith("."), term.name
        assert term.meaning.count(". ") <= 1, term.name
        assert len(term.meaning.split()) <= 40, term.name


def test_terms_stand_in_alphabetical_order_and_can_be_limited_to_a_lesson():
    names = [term.name.lower() for term in glossary.terms()]
    assert names == sorted(names)
    assert {term.lesson for term in glossary.terms(lesson=2)} == {2}


def test_a_lesson_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="lesson 12 does not exist"):
        glossary.terms(lesson=12)


def test_a_written_lesson_0_uses_every_word_that_the_glossary_says_it_does():
    path = glossary.NOTEBOOKS / "00_start_here.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = " ".join("".join(cell["source"]) for cell in cells).lower()
    for term in glossary.terms(lesson=0):
        assert term.name.lower() in text, term.name


def test_a_term_shows_its_meaning_as_text_and_escaped_in_a_notebook():
    term = glossary.lookup("control token")
    shown = term._repr_mimebundle_()
    assert "<|im_start|>" in shown["text/plain"]
    assert "&lt;|im_start|&gt;" in shown["text/html"]
    assert str(term).startswith("control token (lesson 02): ")


def test_the_terms_are_a_table():
    assert "<caption>" in glossary.terms()._repr_html_()
    assert repr(glossary.terms(lesson=4)).splitlines()[-1].endswith(" terms")


def test_lessons_that_are_written_name_their_file_and_others_say_planned():
    table = glossary.lessons()
    written = {one.notebook for one in table if one.notebook != glossary.PLANNED}
    assert written == {path.name for path in notebooks.lessons()}
    assert [lesson.number for lesson in table] == list(read_yaml("glossary")["lessons"])


def test_an_installed_course_does_not_call_a_lesson_planned(tmp_path):
    """In Colab the notebooks lie elsewhere: that they are missing says nothing."""
    table = glossary.lessons(tmp_path / "notebooks")
    assert {lesson.notebook for lesson in table} == {glossary.ELSEWHERE}


def test_a_lesson_tells_the_time_that_its_notebook_states(tmp_path):
    metadata = {"qwen_course": {"reading": "10 minutes"}}
    path = tmp_path / "00_start_here.ipynb"
    path.write_text(json.dumps({"metadata": metadata}), encoding="utf-8")
    assert glossary.lessons(tmp_path)[0] == glossary.Lesson(
        0, "Start here", "00_start_here.ipynb", "10 minutes"
    )
