"""The pages for teachers in a real browser: the class on paper, the room live."""

import re
from collections.abc import Iterator

import pytest

from qwen_course.exercises import classroom, keeping, question, sharing
from qwen_course.exercises.classroom import Classroom, Learner
from qwen_course.exercises.feedback import Feedback

pytestmark = pytest.mark.browser
TAG = "<img src=x onerror=alert(1)>"


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_thirty_learners_and_five_lessons_fit_on_one_page_of_paper(page, tmp_path):
    asked = [one for n in "12345" for one in question.questions(f"0{n}")]
    learners = []
    for number in range(30):
        book: keeping.Book = {}
        for place, one in enumerate(asked[: 10 + number % 20]):
            for _ in range((place * number) % 7):
                wrong = Feedback(one.id, "", "not yet", "", "changes-input")
                keeping.note(book, wrong)
            if (place + number) % 3:
                keeping.note(book, Feedback(one.id, "", "right", ""))
        name = f"Learner with a rather long name {number}"
        learners.append(Learner(name, book))
    found = Classroom(learners, asked)
    assert len(found.take_up()) == classroom.MOST
    classroom.write(found, tmp_path / "class.html")
    page.goto((tmp_path / "class.html").as_uri())
    assert pages(page.pdf(prefer_css_page_size=True)) == 1
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.fixture
def live() -> Iterator[tuple]:
    from qwen_course.room import Room, create_app
    from qwen_course.server import in_background

    room = Room("K7QM2P")
    for name in ("Ada", TAG):
        body = sharing.message(name, room.code, "01.q1", "not yet", "no-keys", True)
        room.hear(body, "127.0.0.1")
    with in_background(create_app(room)) as address:
        yield room, address.removesuffix("/v1")


def test_the_live_page_shows_names_as_text_and_lowers_a_hand(page, live):
    room, address = live
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(f"{address}/#{room.key}")
    page.wait_for_selector("#learners li")
    assert TAG in page.inner_text("#learners")
    assert page.locator("#learners img").count() == 0
    assert "2 hands up" in page.inner_text("#sum")
    assert "keys and values" in page.inner_text("#now")
    page.get_by_label("hand down: Ada").click()
    page.locator("#sum", has_text="1 hand up").wait_for()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.check("#big")
    assert not page.locator("#learners").is_visible()
    assert "Ada" not in page.inner_text("body")
    assert said == []


def test_the_live_page_without_its_key_shows_nobody(page, live):
    page.goto(live[1])
    page.wait_for_selector("#lost:not([hidden])")
    assert "needs its key" in page.inner_text("#lost")
    assert "Ada" not in page.inner_text("body")
