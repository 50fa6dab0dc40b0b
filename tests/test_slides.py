"""Slides say what their lesson says, show its own figures, and fit the screen."""

import base64
import functools
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from browser import conftest
from browser.lab import chromium

from qwen_course import cli, notebooks, slide_blocks, slides

chromium_path = conftest.chromium_path  # skips without Chromium; fails in CI
LESSONS = notebooks.lessons()
MEASURED = ("05_quantization", "11_capstones")


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    """Return the folder with the slides of all lessons."""
    out = tmp_path_factory.mktemp("slides")
    slides.write([], out)
    return out


@functools.cache
def deck_of(path):
    return slides.slides(path)


class Loads(HTMLParser):
    """Note every address that a browser would load by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster") or (
                tag == "link" and name == "href"
            ):
                self.found.append(value)


def lesson(tmp_path, *cells, name="90_small"):
    """Write a small lesson and return its path."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    about = {"title": "Small", "goals": ["one"], "download": "0", "gpu": "no"}
    notebook.metadata["qwen_course"] = about
    path = tmp_path / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def text(source, **metadata):
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def code(source, printed="", **metadata):
    outputs = [nbformat.v4.new_output("stream", text=printed)] if printed else []
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata=metadata)


# All lessons


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_stored_figure_is_there_byte_by_byte(path, decks):
    page = (decks / f"{path.stem}.html").read_text("utf-8")
    shown = re.findall(r'src="data:(image/\w+);base64,([^"]+)"', page)
    there = {(mime, base64.b64decode(data)) for mime, data in shown}
    stored = set()
    for cell in notebooks.read(path).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            forms = [mime for mime in ("image/png", "image/jpeg") if mime in data]
            # One picture may be stored in two forms: a browser shows the first.
            stored |= {(mime, base64.b64decode(data[mime])) for mime in forms[:1]}
    assert stored <= there


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_nothing_is_loaded_from_anywhere(path, decks):
    page = (decks / f"{path.stem}.html").read_text("utf-8")
    loads = Loads()
    loads.feed(page)
    assert [one for one in loads.found if not one.startswith("data:")] == []
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "@import" not in styles
    assert not re.search(r"url\((?![\"']?data:)", styles)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_section_is_a_column_with_its_heading(path):
    sections = [
        line.lstrip("# ").replace("`", "")
        for cell in notebooks.read(path).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    titles = [column[0].title for column in deck_of(path).columns]
    assert titles[-len(sections) :] == sections


@pytest.fixture(scope="module")
def browser(chromium_path):
    with chromium(chromium_path) as opened:
        yield opened


MEASURE = """() => {
  const page = Reveal.getCurrentSlide().querySelector(":scope > .page");
  const inner = [...page.children].filter(one => one.className !== "foot");
  return {
    title: page.querySelector("h1, h2").innerText,
    over: [page.scrollHeight - 720, page.scrollWidth - 1280],
    bottom: Math.max(...inner.map(one => one.getBoundingClientRect().bottom)),
    size: parseFloat(page.style.fontSize),
  };
}"""


@pytest.mark.parametrize("name", MEASURED)
def test_every_slide_fits_the_screen_in_type_that_can_be_read(name, decks, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((decks / f"{name}.html").as_uri())
    page.wait_for_function("Reveal.isReady()")
    total = page.evaluate("Reveal.getTotalSlides()")
    for _ in range(total):
        slide = page.evaluate(MEASURE)
        assert max(slide["over"]) <= 0, slide
        assert slide["bottom"] <= 720, slide
        assert slide["size"] >= 20, slide
        page.evaluate("Reveal.next()")
    assert page.evaluate("Reveal.isLastSlide()")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    page.close()


# The rule


def test_a_text_shares_a_slide_with_the_code_below_it(tmp_path):
    path = lesson(tmp_path, text("## 1. One\n\nLook."), code("1 + 1", "2\n"))
    [slide] = slides.slides(path)
    assert (slide.title, len(slide.blocks)) == ("1. One", 3)


def test_only_the_first_sentences_of_a_long_text_are_shown(tmp_path):
    sentence = "Ten words stand in this sentence that is no longer. "
    [slide] = slides.slides(lesson(tmp_path, text("## 1. One\n\n" + sentence * 9)))
    assert slide.blocks[0].html.count("Ten words") == 4
    assert slide.notes[0].count("Ten words") == 9


def test_a_long_output_says_how_much_is_left_out(tmp_path):
    cells = text("## 1. One"), code("print()", "line\n" * 60)
    page = slides.render(lesson(tmp_path, *cells))
    assert "49 more lines in the lesson" in page


def test_a_long_table_goes_on_with_its_head(tmp_path):
    rows = "".join(f"| a{n} | b |\n" for n in range(9))
    path = lesson(tmp_path, text(f"## 1. One\n\n| x | y |\n|---|---|\n{rows}"))
    tables = "".join(
        block.html for slide in slides.slides(path) for block in slide.blocks
    )
    assert tables.count("<th>x</th>") == 2
    assert tables.count("<td>a") == 9


@pytest.mark.parametrize(
    ("wish", "shown"),
    [("skip", []), ("notes", []), ("slide", ["1. One"]), ("-", [])],
)
def test_metadata_of_a_cell_overrides_the_rule(tmp_path, wish, shown):
    path = lesson(
        tmp_path,
        text("## 1. One\n\nFirst."),
        code("1 + 1", "2\n"),
        text("Secret.", slideshow={"slide_type": wish}),
    )
    deck = list(slides.slides(path))
    visible = ["Secret" in "".join(b.html for b in slide.blocks) for slide in deck]
    assert any(visible) == (wish in ("slide", "-"))
    assert [slide.title for slide in deck[1:]] == shown
    assert ("Secret." in deck[0].notes) == (wish == "notes")


def test_links_into_the_course_become_text_and_pictures_from_the_network_go():
    parser = slide_blocks.markdown()
    made = parser.render(
        "[a](../exercises/x.ipynb) [b](https://b.org) ![c](http://c.org)"
    )
    assert made == '<p>a <a href="https://b.org">b</a> </p>\n'


@pytest.mark.parametrize(
    ("given", "words", "kept"),
    [
        ("One. Two three. Four.", 3, "One. Two three."),
        ("One **two. Three** four. Five.", 3, "One **two. Three** four."),
        ("See `a. b` now. Then.", 2, "See `a. b` now."),
        ("No stop at all here", 2, "No stop at all here"),
        ("A (b. c) d. E.", 2, "A (b. c) d."),
        ("Call it like this: one. Two.", 3, "Call it like this: one."),
    ],
)
def test_a_text_is_cut_between_sentences_only(given, words, kept):
    assert slide_blocks.first_sentences(given, words) == kept


def test_what_the_guide_says_is_in_the_speakers_notes(tmp_path):
    page = tmp_path / "workshop" / "guide" / "90_small.md"
    page.parent.mkdir(parents=True)
    page.write_text(
        "# 90\n\n**The one idea.** It is small.\n\n## Three things to show\n\n"
        '1. **Section "1. One".** Point at it.\n\n## Questions you will get\n\nNone.\n',
        "utf-8",
    )
    said = slides.guide(Path("90_small.ipynb"), tmp_path)
    assert "It is small." in said[""]
    assert "Point at it." in said["1. One"]
    assert "None." not in said[""]
    made = slides.render(lesson(tmp_path, text("## 1. One\n\nHi.")), tmp_path)
    assert made.count("Point at it.") == 2  # with the title, and with the section


def test_every_guide_note_finds_its_slide():
    for path in LESSONS:
        titles = {slide.title for slide in deck_of(path)}
        assert set(slides.guide(path)) - {""} <= titles, path.stem


# The command


def test_the_command_writes_the_named_lessons(tmp_path, capsys):
    assert cli.main(["slides", "03", "00_start_here", "--out", str(tmp_path)]) == 0
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["00_start_here.html", "03_thinking_mode.html"]
    assert capsys.readouterr().out.count(".html") == 2


def test_an_unknown_lesson_is_named_with_those_that_are_there(tmp_path, capsys):
    assert cli.main(["slides", "03_thinking", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert '"03_thinking" is no lesson' in said
    assert 'Did you mean "03_thinking_mode"?' in said


def test_a_notebook_that_was_spoilt_is_one_sentence(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_x.ipynb").write_text("{", "utf-8")
    with pytest.raises(ValueError, match="01_x.ipynb is not a notebook"):
        slides.write([], tmp_path / "out", root=tmp_path)


def test_without_lessons_the_message_says_where_to_go(tmp_path):
    with pytest.raises(ValueError, match="go to a clone of the course"):
        slides.write([], tmp_path / "out", root=tmp_path)


def test_without_reveal_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(slides.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"sphinx-revealjs.*qwen-course\[site\]"):
        slides.reveal()
