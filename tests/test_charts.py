"""Charts and printed words: pictures that show what is asked, and fair grading."""

import random

import pytest
from PIL import Image, ImageChops

from qwen_course.tasks import charts, printed_words
from qwen_course.tasks.charts import Chart, Style, draw, drawing, examples
from qwen_course.tasks.charts.chart import draw_chart
from qwen_course.tasks.charts.questions import WORDINGS, ask
from qwen_course.tasks.problem import split_of

FIVE = Chart("bar", ("A", "B", "C", "D", "E"), (20, 35, 50, 65, 90))


def test_every_answer_is_right_and_typical_wrong_ones_are_not():
    for kind in charts.KINDS:
        for problem in charts.problems(25, kind=kind):
            assert problem.grade(problem.answer), (kind, problem.answer)
            assert not problem.grade("")
            assert not problem.grade("I do not know.")
    for kind in printed_words.KINDS:
        for problem in printed_words.problems(25, kind=kind):
            assert problem.grade(problem.answer)
            assert problem.grade(problem.answer.lower())
            assert not problem.grade(problem.answer[:-1])


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("read", "A 20, B 35, C 50, D 65"),  # one is missing
        ("read", "A 20, C 50, B 35, D 65, E 90"),  # out of order
        ("read", "A 20, B 35, C 50, D 60, E 90"),
        ("highest", "E with 95"),
        ("highest", "D with 65"),
        ("lowest", "A"),
        ("trend", "The trend is falling."),
        ("count", "15"),
        ("form", "A line chart."),
    ],
)
def test_a_wrong_answer_is_graded_as_wrong(kind, wrong):
    problem = ask(random.Random(0), FIVE, Style(), kind)
    assert problem.grade(problem.answer)
    assert not problem.grade(wrong)


def test_an_answer_in_other_words_with_the_same_facts_is_right():
    problem = ask(random.Random(0), FIVE, Style(), "highest")
    assert problem.answer == "E with 90"
    assert problem.grade("E is the highest value with 90.")


def test_a_value_is_right_with_its_label_and_without():
    problem = ask(random.Random(0), FIVE, Style(), "value")
    label, value = problem.answer.split()
    assert FIVE.values[FIVE.labels.index(label)] == int(value)
    assert problem.grade(value)
    assert not problem.grade(f"{label} {int(value) + 5}")


def test_some_values_are_asked_in_any_order_and_told_in_the_same():
    asked = [ask(random.Random(n), FIVE, Style(), "some values") for n in range(20)]
    told = [tuple(problem.answer.replace(",", "").split()[::2]) for problem in asked]
    assert any(labels != tuple(sorted(labels)) for labels in told)
    for problem, labels in zip(asked, told, strict=True):
        assert f"{', '.join(labels[:-1])} and {labels[-1]}" in problem.question
        assert not problem.grade(problem.answer.rpartition(",")[0])


def test_who_is_higher_is_asked_of_the_winner_not_of_the_order_of_reading():
    problem = charts.problems(1, kind="compare")[0]
    read, _, verdict = problem.answer.partition(": ")
    winner = verdict.split()[0]
    loser = next(word for word in read.replace(",", "").split()[::2] if word != winner)
    assert not problem.grade(f"{read}: {verdict.replace(winner, loser)}")


def test_no_test_chart_is_seen_in_training():
    """By content: whatever the seed and the look, a chart is on one side only."""
    tested = {problem.content for problem in charts.problems(400, seed=1)}
    rng = random.Random(0)
    trained = {charts.questions(rng, 2)[0].content for _ in range(1500)}
    assert not tested & trained
    assert all(split_of(content) == "test" for content in tested)


def test_no_test_word_is_seen_in_training_alone_or_beside_others():
    tested = {w for p in printed_words.problems(300, seed=1) for w in p.words}
    rng = random.Random(0)
    trained = {
        w for _ in range(1500) for p in printed_words.questions(rng) for w in p.words
    }
    assert not tested & trained
    assert len(trained & set(printed_words.WORDS)) > 100


def test_unseen_looks_are_never_drawn_for_training():
    rng = random.Random(0)
    trained = {drawing.draw_style(rng).combination for _ in range(2000)}
    unseen = {drawing.draw_style(rng, looks="unseen").combination for _ in range(500)}
    new = {drawing.draw_style(rng, looks="new").combination[:2] for _ in range(50)}
    assert not trained & unseen
    assert len(unseen) >= 5
    assert new == {(drawing.NEW_THEME, drawing.NEW_FONT)}
    assert new.isdisjoint({look[:2] for look in trained})
    parts = [{look[n] for look in trained} for n in range(2)]
    assert drawing.NEW_THEME not in parts[0]
    assert drawing.NEW_FONT not in parts[1]


def test_new_wordings_are_never_trained():
    rng = random.Random(0)
    trained = {p.question for _ in range(400) for p in charts.questions(rng, 6)}
    for kind in charts.KINDS:
        for problem in charts.problems(10, kind=kind, new_wording=True):
            assert problem.question not in trained, kind
        assert len(WORDINGS[kind]) >= 4


def test_a_chart_gives_the_same_picture_each_time_and_another_look_another():
    style = Style(jitter=7)
    assert draw(FIVE, style).tobytes() == draw(FIVE, style).tobytes()
    assert draw(FIVE, style).tobytes() != draw(FIVE, Style(jitter=8)).tobytes()


def test_every_size_is_whole_tokens_so_that_no_picture_is_resized():
    for size in charts.SIZES:
        assert size[0] % 28 == 0
        assert size[1] % 28 == 0


@pytest.mark.parametrize("font", drawing.FONTS)
@pytest.mark.parametrize("theme", drawing.THEMES)
def test_a_bar_is_as_high_as_its_value_in_every_look(theme, font):
    """Counts the pixels of the bar's colour, where nothing is written over it."""
    style = Style(theme, font, "none", bar_width=0.5)
    chart = Chart("bar", ("A", "B"), (20, 80), ("red",))
    image, red = draw(chart, style), drawing.THEMES[theme].shades["red"]
    frame = drawing._frame(chart, style)
    for n, value in enumerate(chart.values):
        x = frame.x(n)
        high = sum(image.getpixel((x, y)) == red for y in range(image.height))
        assert abs(high * 100 / (frame.bottom - frame.top) - value) < 2


def test_every_text_is_drawn_where_its_box_says():
    """Without its texts, a chart differs from itself in the boxes and nowhere else."""
    rng = random.Random(5)
    for _ in range(30):
        chart, style = draw_chart(rng), drawing.draw_style(rng)
        with pytest.MonkeyPatch.context() as patch:
            image = draw(chart, style)
            patch.setattr(drawing, "texts", lambda chart, style: [])
            bare = draw(chart, style)
        changed = ImageChops.difference(image, bare).convert("L")
        for text in drawing.texts(chart, style):
            left, top, right, bottom = (round(side) for side in text.box)
            box = (left - 1, top - 1, right + 1, bottom + 1)
            assert changed.crop(box).getbbox(), text.text
            changed.paste(0, box)
        assert changed.getbbox() is None


def test_every_label_keeps_to_its_column():
    """Neighbours that touch cannot be read by anybody."""
    rng = random.Random(2)
    for _ in range(300):
        chart, style = draw_chart(rng), drawing.draw_style(rng)
        boxes = [label.box for label in drawing.labels(chart, style)]
        assert all(right - left <= drawing.CELL for left, _, right, _ in boxes)
        assert all(
            one[2] < other[0] for one, other in zip(boxes, boxes[1:], strict=False)
        )
        assert boxes[0][0] >= drawing.CELL - 4
        assert boxes[-1][2] <= style.size[0]


def test_every_letter_of_a_word_is_inside_the_picture():
    rng = random.Random(6)
    for _ in range(300):
        words = printed_words.questions(rng)[0].words
        look = printed_words.draw_print(rng)
        for line in printed_words.letters(words, look):
            for letter in line:
                left, top, right, bottom = letter.box
                assert left >= -3
                assert right <= look.size[0] + 3
                assert top >= 0
                assert bottom <= look.size[1] + 4  # the tail of a Q


def test_one_line_is_asked_about_otherwise_than_several_bars():
    rng = random.Random(0)
    line = Chart("line", ("A", "B"), (10, 50), ("green",))
    bars = Chart("bar", ("A", "B"), (10, 50), ("green",))
    asked = {
        chart.kind: {ask(rng, chart, Style(), "colour").question for _ in range(40)}
        for chart in (line, bars)
    }
    assert "What colour is the line?" in asked["line"]
    assert "Which colour does the line have?" in asked["line"]
    assert "What colour are the bars?" in asked["bar"]
    assert "Which colour do the bars have?" in asked["bar"]


def test_values_that_are_not_printed_are_steps_of_the_axis():
    rng = random.Random(0)
    drawn = [draw_chart(rng) for _ in range(500)]
    assert all(
        value % 5 == 0 for chart in drawn if not chart.printed for value in chart.values
    )
    assert any(value % 5 for chart in drawn if chart.printed for value in chart.values)


def test_a_question_with_two_right_answers_is_not_asked():
    two_years = Chart("bar", ("Q1", "Q2", "Q3", "Q4") * 2, (10, 20, 30, 60) * 2)
    tie = Chart("line", ("A", "B", "C"), (50, 50, 10))
    rng = random.Random(0)
    for kind in ("value", "some values", "compare"):
        assert ask(rng, two_years, Style(), kind) is None
    assert ask(rng, two_years, Style(), "season").answer.startswith("Q4")
    assert ask(rng, tie, Style(), "highest") is None
    assert ask(rng, tie, Style(), "lowest").answer == "C with 10"
    assert ask(rng, tie, Style(), "title") is None
    assert ask(rng, tie, Style(), "by colour") is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((10, 25, 30, 55, 70), "rising"),
        ((90, 70, 75, 40, 10), "falling"),
        ((50, 80, 20, 80, 50), "no clear trend"),
        ((50, 50, 50, 50), "no clear trend"),
        ((10, 90), None),  # two points are no trend
        ((50, 52, 54, 55), None),  # too little to be called one
    ],
)
def test_a_trend_is_called_one_only_where_it_is_clear(values, expected):
    assert charts.trend(values) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chart("pie", ("A", "B"), (1, 2)), "bar, line"),
        (lambda: Chart("bar", ("A",), (1,)), "2 to 8 points"),
        (lambda: Chart("bar", ("A", "B"), (1, 2, 3)), "2 labels and 3 values"),
        (lambda: Chart("bar", ("A", "B"), (1, 101)), "0 to 100"),
        (lambda: Chart("bar", ("A", "B"), (1, 2), ("red",) * 3), "one for each"),
        (lambda: Chart("bar", ("A", "B"), (1, 2), ("teal",)), "teal"),
        (lambda: draw(FIVE, Style(size=(140, 112))), "width of 168 or more"),
        (lambda: charts.problems(1, kind="hihgest"), "highest"),
        (lambda: charts.problems(1, split="dev"), "train, test"),
        (lambda: charts.problems(1, looks="odd"), "trained, unseen, new"),
        (lambda: printed_words.problems(1, kind="wrod"), "word"),
    ],
)
def test_what_cannot_be_drawn_or_asked_says_what_can(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_lesson_carries_its_charts_as_small_files_of_unseen_charts(tmp_path):
    drawn = examples.save(tmp_path)
    assert len(drawn) == len(examples.EXAMPLES) >= 4
    for path in drawn:
        kept = examples.FOLDER / path.name
        assert kept.stat().st_size < 8000
        chart, style = examples.EXAMPLES[path.stem]
        assert split_of(chart.content) == "test"
        with Image.open(kept) as image:
            assert image.size == style.size
            # Another version of Pillow may draw a letter a little differently.
            other = Image.open(path).convert("RGB").tobytes()
            pairs = zip(image.convert("RGB").tobytes(), other, strict=True)
            differing = sum(abs(one - two) > 40 for one, two in pairs)
            assert differing / len(other) < 0.05


def test_drawing_is_quick_enough_to_train_from():
    import time

    rng = random.Random(0)
    draw(draw_chart(rng), drawing.draw_style(rng))  # fonts are opened once
    started = time.process_time()
    for _ in range(50):
        draw(draw_chart(rng), drawing.draw_style(rng))
    assert (time.process_time() - started) / 50 < 0.02
