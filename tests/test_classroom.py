"""The class report: who is stuck where, what to take up; every odd file is said."""

import csv
import importlib
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from qwen_course import cli
from qwen_course.exercises import classroom, grade, keeping, meanings, question, report
from qwen_course.exercises.classroom import Classroom, Learner
from qwen_course.exercises.feedback import Feedback
from qwen_course.exercises.keeping import Kept
from qwen_course.exercises.sandbox import Run

LESSON = question.questions("01")


def book(**answers):
    """Return a book: q1=2 is right at the second try, q2="tied tied" met that twice."""
    kept: keeping.Book = {}
    for name, said in answers.items():
        names = said.split() if isinstance(said, str) else [""] * (said - 1)
        for mistake in names:
            keeping.note(kept, Feedback(f"01.{name}", "", "not yet", "", mistake))
        if isinstance(said, int):
            keeping.note(kept, Feedback(f"01.{name}", "", "right", ""))
    return kept


def hand_in(folder, name, kept, learner=""):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(keeping.as_json(kept, learner), encoding="utf-8")


def room(*books):
    return Classroom([Learner(f"L{n}", one) for n, one in enumerate(books)], LESSON)


def names(found):
    return [one.name for one in found.learners]


# What it says of a class


def test_what_most_are_stuck_at_comes_first():
    stuck, slow = book(q1=1, q3="tied tied"), book(q1=1, q2=4, q3=1)
    found = room(stuck, stuck, slow, slow, slow, book(q4="weights"))
    assert [(one.question.id, one.trouble) for one in found.take_up()] == [
        ("01.q3", 2), ("01.q2", 1.5), ("01.q4", 1)
    ]  # fmt: skip


def test_a_misconception_counts_the_learners_who_met_it_also_those_who_got_over_it():
    over_it = book(q1="untied untied")
    keeping.note(over_it, Feedback("01.q1", "", "right", ""))
    found = room(over_it, book(q1="norms untied"), book(q1="norms"))
    topic = found.topics()[0]
    assert topic.mistakes == (("norms", 2), ("untied", 2))
    assert (topic.right, topic.not_yet, topic.slow) == (1, 2, 1)
    assert topic.tries == pytest.approx(2)
    assert topic.common.startswith("You left out norms")


def test_an_outcome_counts_what_was_asked_for_too():
    found = room(book(q1=1, q2=1), book(q2=1), book())
    outcomes = {number: (right, of) for number, _, right, of in found.outcomes()}
    assert outcomes[1] == (1, 12)  # q1, q3, q6 and q7 of three learners
    assert outcomes[2] == (2, 6)
    assert outcomes[3] == (0, 0)


def test_a_word_is_for_who_is_stuck_then_who_has_not_begun_then_who_is_far_behind():
    found = room(
        book(q1=1, q2=1, q3=1, q4=1), book(q1=1, q2=1, q3=1, q4=1), book(q1=1), book(),
        book(q1=1, q2=1, q3="a a a a", q4="a a a a a"),
    )  # fmt: skip
    reasons = "stuck on 01.q3 (4 tries), 01.q4 (5 tries), no hint asked for"
    assert found.need_a_word() == [
        ("L4", reasons), ("L3", "has not begun"),
    ]  # fmt: skip
    found.learners += found.learners[:2]
    assert ("L2", "1 right, where half the class has 4 or more") in found.need_a_word()
    asked = found.learners[4].book
    asked["01.q3"].hints = 1
    assert found.need_a_word()[0] == ("L4", reasons.partition(", no hint")[0])


def test_where_nobody_has_begun_nobody_is_late():
    assert room(book(), book()).need_a_word() == []
    assert "Right answers: 0 of 0" in str(Classroom([], LESSON))


# Files


def test_a_learner_is_named_by_the_export_or_by_its_file(tmp_path):
    hand_in(tmp_path, "x.json", book(q1=1), "  Ada\u202e ")
    hand_in(tmp_path, "bo.json", book(q1=2))
    hand_in(tmp_path, "Çelik/progress.json", book(q1=3))
    found = classroom.read(tmp_path)
    assert names(found) == ["Ada", "bo", "Çelik"]
    assert found.notes == []
    assert [one.lesson for one in found.questions] == ["01"] * 7


def test_lessons_can_be_chosen_and_a_wrong_one_is_said(tmp_path):
    hand_in(tmp_path, "ada.json", book(q1=1))
    found = classroom.read(tmp_path, ["2", "01"])
    assert {one.lesson for one in found.questions} == {"01", "02"}
    with pytest.raises(ValueError, match='"42" is no lesson'):
        classroom.read(tmp_path, ["42"])


def test_every_odd_file_is_a_sentence_and_the_rest_is_reported(tmp_path):
    hand_in(tmp_path, "ada.json", book(q1=1))
    hand_in(tmp_path, "copy of ada.json", book())
    (tmp_path / "copy of ada.json").write_bytes((tmp_path / "ada.json").read_bytes())
    (tmp_path / "torn.json").write_text('{"format": "qwen-cou')
    (tmp_path / "foreign.json").write_text('{"name": "other-app"}')
    (tmp_path / "list.csv").write_text("name,age\nAda,36\n")
    (tmp_path / "essay.docx").write_bytes(b"PK")
    (tmp_path / "huge.json").write_text(" " * (keeping.MAX_BYTES + 1))
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "class.html").write_text("an earlier report")
    newer = {"format": keeping.FORMAT, "version": 99, "questions": {}}
    (tmp_path / "newer.json").write_text(json.dumps(newer))
    hand_in(tmp_path, "other.json", {"77.q1": Kept("right", 1)})
    found = classroom.read(tmp_path)
    assert names(found) == ["ada", "other"]
    said = "\n".join(found.notes)
    for words in (
        "copy of ada.json: it is a copy of ada.json, which was counted.",
        "torn.json: no progress of this course: it is no JSON",
        'foreign.json: no progress of this course: its "format"',
        "list.csv: it is no results.csv of qwen-course grade",
        "essay.docx: no file of progress",
        "huge.json: no progress of this course: it has more than 5 MB",
        "a newer qwen-course wrote it",
        "other.json: this course has no question 77.q1.",
    ):
        assert words in said
    assert len(found.notes) == 8


def test_two_files_of_one_learner_are_added_together_and_that_is_said(tmp_path):
    hand_in(tmp_path, "laptop.json", book(q1="tied tied", q2=1), "Ada")
    hand_in(tmp_path, "colab.json", book(q1=1), "ADA")
    found = classroom.read(tmp_path)
    (one,) = found.learners
    assert (one.of("01.q1").status, one.of("01.q1").tries) == ("right", 2)
    assert one.of("01.q2").status == "right"
    assert "If these are two people" in found.notes[0]


def test_several_who_have_done_nothing_are_no_copies(tmp_path):
    for name in ("a.json", "b.json"):
        hand_in(tmp_path, name, book())
    found = classroom.read(tmp_path)
    assert (names(found), found.notes) == (["a", "b"], [])
    assert len(found.questions) == len(question.questions())


def test_a_folder_of_nothing_is_one_sentence(tmp_path, capsys):
    assert cli.main(["class", str(tmp_path / "no")]) == 1
    (tmp_path / "torn.json").write_text("{")
    assert cli.main(["class", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "there is no folder" in said
    assert "torn.json" in said
    assert 'export("NAME.json")' in said


def test_grades_are_read_from_the_table_of_the_grader(tmp_path):
    rows = [("Ada", "01", "01.q1", "not yet", "tied", "1.0", ""),
            ("'=Bo", "01", "01.q1", "right", "", "1.0", ""),
            ("'=Bo", "01", "01.q2", "to do", "", "1.0", "")]  # fmt: skip
    with (tmp_path / "results.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([report.COLUMNS, *rows])
    hand_in(tmp_path, "ada.json", book(q2=1), "Ada")
    (tmp_path / "index.html").write_text("the grader's own page")
    (tmp_path / "Ada_01.ipynb").write_text("{}")
    found = classroom.read(tmp_path)
    assert names(found) == ["=Bo", "Ada"]
    ada = found.learners[1]
    assert ada.of("01.q1").mistakes == {"tied": 1}
    assert ada.of("01.q2").status == "right"
    assert any("not graded again" in note for note in found.notes)


def test_notebooks_are_graded_first(tmp_path, monkeypatch):
    """What the grader makes of a notebook is tested with the grader."""
    (tmp_path / "Ada_01_family.ipynb").write_text(json.dumps({"cells": []}))
    submission = grade.Submission("Ada", "01", tmp_path / "Ada_01_family.ipynb")
    verdicts = (Feedback("01.q1", "", "not yet", "text", "tied"),
                Feedback("01.q2", "", "right", "text"))  # fmt: skip
    graded = grade.Graded(submission, Run(), verdicts)
    grades = grade.Grades([graded], ["b.ipynb: whose is it?"])
    monkeypatch.setattr(grade, "grade", lambda folder, out: grades)
    found = classroom.read(tmp_path)
    assert names(found) == ["Ada"]
    assert found.topics()[0].mistakes == (("tied", 1),)
    assert found.notes == ["not graded: b.ipynb: whose is it?"]
    assert found.topics()[0].tries == 0  # a notebook does not tell


# How it looks


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class")
    hand_in(folder, "a.json", book(q1=1, q2="tied tied gigabytes gigabytes"), "Ada")
    hand_in(folder, "b.json", book(q1=3), '<script>alert("b")</script>')
    hand_in(folder, "c.json", book(q1=1, q2=1), "\x1b[2J Çem")
    return folder


def test_the_command_writes_a_page_and_prints_the_same(handed_in, tmp_path, capsys):
    out = tmp_path / "report.html"
    arguments = ["class", str(handed_in), "--out", str(out), "--lessons", "01"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "Ada" in said
    assert "✓✗○○○○○" in said
    assert "1. 01.q2 Find what fits your laptop: 1 not yet" in said
    assert "most common: gigabytes (1). A GiB has" in said
    assert "- Ada: stuck on 01.q2 (4 tries), no hint asked for" in said
    assert "\x1b" not in said
    page = Page(out.read_text(encoding="utf-8"))
    assert "stuck on 01.q2 (4 tries)" in page.text
    assert "Learners: 3. Questions: 7. Right answers: 4 of 21." in page.text


def test_a_page_needs_no_network_and_no_script_and_lets_no_name_become_one(handed_in):
    html = classroom.read(handed_in).html()
    page = Page(html)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(", html)
    assert '<script>alert("b")</script>' in page.text


def test_a_page_can_be_read_without_eyes_and_without_colours(handed_in):
    page = Page(classroom.read(handed_in).html())
    assert all("scope" in given for tag, given in page.tags if tag == "th")
    assert "not yet, 4 tries, met: gigabytes, tied" in page.text
    assert ("html", {"lang": "en"}) in page.tags
    assert {"○", "✗", "✓"} <= set(page.text)
    assert sum(tag == "td" for tag, _ in page.tags) > 3 * 7


def test_anonymous_gives_numbers_by_what_is_done_not_by_the_alphabet(
    handed_in, tmp_path, capsys
):
    out = tmp_path / "report.html"
    assert cli.main(["class", str(handed_in), "--anonymous", "--out", str(out)]) == 0
    said = capsys.readouterr().out + out.read_text(encoding="utf-8")
    for name in ("Ada", "Çem", "script&gt;", "a.json"):
        assert name not in said
    rows = re.findall(r"^(\d) +[✓✗○]{7} +(\d) of 7$", said, re.MULTILINE)
    assert rows == [("1", "2"), ("2", "1"), ("3", "1")]


def test_many_questions_lie_across_the_paper():
    few, all_of_them = room(book()), Classroom([], question.questions())
    assert "size: A4 portrait" in few.html()
    assert "size: A4 landscape" in all_of_them.html()


# Words for the names of misconceptions


@pytest.mark.parametrize(
    ("id", "name", "words"),
    [
        ("01.q1", "no-keys", "You left out the matrices of keys and values."),
        ("01.q2", "other-licence", "Its licence is …. Not the whole family is "),
        ("02.q5", "removed-once", "Cut the text into pieces instead of deleting."),
        ("08.q2", "queue-only", "That is the wait until the model begins."),
        ("01.q1", "endless", "Does your loop have a way out?"),
        ("09.q1", "raises", "The function fails with an error."),
        ("05.q2", "never-heard-of", ""),
    ],
)
def test_a_name_is_told_in_the_words_of_the_check(id, name, words):
    said = meanings.meaning(id, name)
    assert words in said
    assert bool(words) == bool(said)


def test_a_name_of_two_questions_has_the_words_of_the_nearer_one():
    told = {meanings.meaning(id, "hidden-size") for id in ("01.q1", "01.q3")}
    assert len(told) == 2


def test_meanings_have_no_gaps_of_the_source_in_them_and_are_short():
    texts = meanings._texts("qwen_course.exercises.judges.lesson_03")
    said = [text for found in texts.values() for _, text in found]
    assert len(said) > 60
    assert all("{" not in text and len(text) <= meanings.MOST + 2 for text in said)


def test_the_mistakes_of_all_sample_answers_are_told_without_what_was_filled_in():
    answers = [importlib.import_module(f"answers.lesson_{lesson}").WRONG
               for lesson in question.lessons()]  # fmt: skip
    told = {
        (id, mistake): meanings.meaning(id, mistake)
        for wrong in answers
        for id, group in wrong.items()
        for mistake in group
    }
    assert len(told) > 900
    assert sum(not words for words in told.values()) < 0.05 * len(told)
    assert sum(words.startswith("…") for words in told.values()) < 0.01 * len(told)


def test_an_export_that_names_nobody_or_oddly_has_no_name(tmp_path):
    for learner in ("", 7, ["x"]):
        content = {"format": keeping.FORMAT, "version": 1, "learner": learner,
                   "questions": {}}  # fmt: skip
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert keeping.read_export(tmp_path / "a.json") == ("", {})
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match=r"a\.json"):
        keeping.read_export(tmp_path / "a.json")
