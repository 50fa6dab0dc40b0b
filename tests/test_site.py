"""The site: what a reader finds in the pages, looked at without a browser."""

import os
import re
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from built_site import ROOT, built_site

import qwen_course as qc
from qwen_course.notebooks import numbered, read

pytest.importorskip("sphinx", reason='The site needs the extra "site".')

from docs import build, conf, links, reference

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src"}
LOADS |= {"video": "src", "audio": "src", "embed": "src", "object": "data"}


class Page(HTMLParser):
    """What the tests ask of a page: tags with attributes, headings, text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.headings: list[int] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {key: value or "" for key, value in attributes}))
        # Before the article stands a title for the printer alone.
        if re.fullmatch("h[1-6]", tag) and self.all("article"):
            self.headings.append(int(tag[1]))

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    @cached_property
    def anchors(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.tags if "id" in attributes}


@pytest.fixture(scope="module", autouse=True)
def site() -> Path:
    """The built site. Every warning stops the build, so that there is one says much."""
    return built_site()


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {
        path.relative_to(site).as_posix(): Page(path)
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.relative_to(site).parts
    }


def test_every_kind_of_page_is_there(pages):
    for name in ("index", "catalogue", "calculator", "glossary", "troubleshooting",
                 "exercises", "models", "reference", "teachers", "search"):  # fmt: skip
        assert f"{name}.html" in pages
    for path in build.documents():
        assert path.with_suffix(".html").as_posix() in pages


def test_no_solution_is_in_the_site(site, pages):
    assert not [name for name in pages if "solutions" in name]
    assert "### BEGIN SOLUTION" not in "".join(page.text for page in pages.values())


def test_no_page_loads_anything_from_another_machine(pages):
    for name, page in pages.items():
        loaded = [
            attributes.get(LOADS[tag], "")
            for tag, attributes in page.tags
            if tag in LOADS
        ]
        loaded += [
            link["href"]
            for link in page.all("link")
            if link.get("rel") not in ("next", "prev", "canonical")
        ]
        assert not [one for one in loaded if re.match(r"(https?:)?//", one)], name


def test_no_style_loads_anything_from_another_machine(site):
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')]+)", text)
        assert not found, path.name


def test_every_link_within_the_site_leads_to_its_place(site, pages):
    broken = []
    for name, page in pages.items():
        for link in page.all("a"):
            parts = urlsplit(link.get("href", ""))
            if parts.scheme or parts.netloc:
                continue
            target = name
            if parts.path:
                target = os.path.normpath(Path(name).parent / unquote(parts.path))
            place = Path(target).as_posix()
            if place in pages:
                # A model's name opens the calculator on it.
                named = {"", *pages[place].anchors}
                if place == "calculator.html":
                    named |= {checkpoint.name for checkpoint in qc.catalog.models()}
                if unquote(parts.fragment) not in named:
                    broken.append(f"{name}: {link['href']}")
            elif not (site / place).is_file():
                broken.append(f"{name}: {link['href']}")
    assert not broken, "\n".join(broken)


def test_every_picture_has_words(pages):
    for name, page in pages.items():
        missing = [
            img.get("src", "")[:80] for img in page.all("img") if not img.get("alt")
        ]
        assert not missing, name


def test_headings_follow_one_another_and_one_is_the_title(pages):
    for name, page in pages.items():
        if name == "search.html":  # the theme's own, and no article
            continue
        assert page.headings.count(1) == 1, name
        steps = zip(page.headings, page.headings[1:], strict=False)
        assert not [step for step in steps if step[1] > step[0] + 1], name


def test_every_page_has_its_language_a_main_part_and_a_way_past_the_navigation(pages):
    for name, page in pages.items():
        assert page.all("html")[0]["lang"] == "en", name
        assert len(page.all("main")) == 1, name
        assert "Skip to main content" in page.text, name
        assert [one for one in page.all("meta") if one.get("name") == "viewport"], name


@pytest.mark.parametrize("lesson", numbered(ROOT / "notebooks"), ids=lambda p: p.stem)
def test_a_lesson_shows_every_cell_and_every_output_as_it_was_stored(pages, lesson):
    code = [cell for cell in read(lesson).cells if cell.cell_type == "code"]
    page = pages[f"notebooks/{lesson.stem}.html"]
    classes = [one.get("class", "") for one in page.all("div")]
    assert sum("cell_input" in one for one in classes) == len(code)
    assert sum("cell_output" in one for one in classes) == sum(
        bool(cell.outputs) for cell in code
    )
    drawn = [
        output
        for cell in code
        for output in cell.outputs
        if {"image/png", "image/jpeg"} & set(output.get("data", ()))
    ]
    # The same picture twice is one file, and is shown twice all the same.
    shown = [img for img in page.all("img") if "_images/" in img["src"]]
    assert len(shown) == len(drawn)


def test_an_exercise_is_shown_without_outputs_and_its_questions_are_linked(pages):
    for path in numbered(ROOT / "exercises"):
        page = pages[f"exercises/{path.stem}.html"]
        assert not [d for d in page.all("div") if "cell_output" in d.get("class", "")]
        questions = [
            a["href"] for a in page.all("a") if "#question-" in a.get("href", "")
        ]
        assert questions, path.name


def test_every_word_of_the_glossary_has_an_anchor_and_a_lesson(pages):
    page = pages["glossary.html"]
    words = [dt["id"] for dt in page.all("dt") if dt.get("id", "").startswith("term-")]
    assert len(words) == len(set(words)) == len(qc.glossary.terms())
    lessons = [a["href"] for a in page.all("a") if "notebooks/" in a.get("href", "")]
    for term in qc.glossary.terms():
        assert any(f"notebooks/{term.lesson:02}_" in link for link in lessons)


def test_the_catalogue_has_a_row_for_every_checkpoint(pages):
    page = pages["catalogue.html"]
    links = [a["href"] for a in page.all("a")]
    for checkpoint in qc.catalog.models():
        assert links.count(checkpoint.url) == 1
    assert len([row for row in page.all("tr") if "data-kind" in row]) == len(
        qc.catalog.models()
    )


def test_every_name_of_the_course_leads_to_its_text(pages):
    anchors = {place for page in pages.values() for place in page.anchors}
    for name in (*qc.__all__, *reference.LATER):
        thing = getattr(qc, name)
        place = getattr(thing, "__module__", None)
        place = f"{place}.{name}" if place else f"module-{thing.__name__}"
        assert place in anchors, name


def test_docstrings_of_the_reference_show_no_marks_of_their_source(pages):
    for name, page in pages.items():
        if name.startswith("reference/"):
            assert "system-message" not in page.text, name
            assert "problematic" not in page.text, name


def test_colab_is_a_link_and_no_picture(pages):
    page = pages["notebooks/03_thinking_mode.html"]
    assert [
        a for a in page.all("a") if "colab.research.google.com" in a.get("href", "")
    ]
    assert "colab-badge.svg" not in page.text


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path, monkeypatch, capfd):
    def gather(source: Path) -> None:
        build.write_all(source, {"index.md": "# Title\n\n[a page](nowhere.md)\n"})

    monkeypatch.setattr(build, "gather", gather)
    assert build.main(["--out", str(tmp_path)]) != 0
    assert "nowhere.md" in capfd.readouterr().err


def test_gathering_keeps_what_is_the_same_and_removes_what_is_gone(tmp_path):
    build.write_all(tmp_path, {"a/one.md": "one", "two.md": "two"})
    os.utime(tmp_path / "a" / "one.md", (1, 1))
    build.write_all(tmp_path, {"a/one.md": "one", "three.md": b"three"})
    assert (tmp_path / "a" / "one.md").stat().st_mtime == 1
    assert sorted(path.name for path in tmp_path.rglob("*.md")) == [
        "one.md",
        "three.md",
    ]


REPOSITORY = "https://github.com/qwen-course/qwen-course"


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("02_chat.ipynb", "02_chat.ipynb"),
        ("../exercises/02_chat.ipynb", "../exercises/02_chat.ipynb"),
        ("#Question-1-·-Switch,-and-know-%28x%29", "#question-1--switch-and-know-x"),
        ("02_chat.ipynb#3.-A-prompt", "02_chat.ipynb#3-a-prompt"),
        ("../README.md", "../index.md"),
        ("../exercises", "../exercises.md"),
        ("../workshop/monitoring", "../workshop/monitoring/README.md"),
        ("../course.py", f"{REPOSITORY}/blob/{links.TAG}/course.py"),
        ("../tests", f"{REPOSITORY}/tree/{links.TAG}/tests"),
        ("../solutions/02_chat.ipynb",
         f"{REPOSITORY}/blob/{links.TAG}/solutions/02_chat.ipynb"),
        ("no_such_file.md", "no_such_file.md"),
        ("../../elsewhere.md", "../../elsewhere.md"),
    ],
)  # fmt: skip
def test_a_link_of_the_repository_finds_its_place_in_the_site(target, leads_to):
    shown = frozenset(build.documents())
    resolver = links.Resolver(ROOT, Path("notebooks/01_family.ipynb"), shown)
    assert resolver.resolve(target) == leads_to


def test_a_picture_beside_a_page_comes_with_it():
    resolver = links.Resolver(ROOT, Path("workshop/a.md"), frozenset())
    assert resolver.resolve("../docs/lesson.png") == "../docs/lesson.png"
    assert resolver.pictures == {Path("docs/lesson.png")}


def test_links_in_code_are_not_links():
    text = "[a](x.md) `[b](x.md)`\n```\n[c](x.md)\n```\n[`d`](x.md) [e](https://x.md)\n"
    done = links.rewrite(text, lambda target: "y.md")
    assert done == text.replace("[a](x", "[a](y").replace("[`d`](x", "[`d`](y")


def test_a_badge_becomes_its_words():
    text = "[![Open in Colab](https://x/badge.svg)](https://x/lesson)"
    assert links.rewrite(text, str) == "[Open in Colab](https://x/lesson)"


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("Return `n` rows.", "Return ``n`` rows."),
        ("in `group`s", "in ``group``\\ s"),
        ("such as <|im_end|>, *args", "such as <\\|im_end\\|>, \\*args"),
        ('after "```output"', 'after "\\`\\`\\`output"'),
        ("Example:\n    load()", "Example::\n\n    load()"),
        ("    python -m x", "::\n\n    python -m x"),
        (">>> gib(1)\n'1 *'", ">>> gib(1)\n'1 *'"),
    ],
)
def test_a_docstring_is_read_as_the_course_writes_it(written, read_as):
    assert conf.block_as_rst(written) == read_as


def test_the_search_takes_chinese_apart_and_leaves_turkish_whole():
    words = conf.Search({}).split("Qwen模型 düşünme, 32K")
    assert words == ["Qwen", "模", "型", "düşünme", "32K"]


def test_the_reference_knows_the_names_that_code_uses():
    source = (
        "from qwen_course.tools import (\n    calculator as c,\n)\nqc.tasks.sums.x()"
    )
    assert set(reference.names_used(source)) == {
        ("qwen_course.tools", "calculator"),
        ("qwen_course", "tasks"),
        ("qwen_course.tasks", "sums"),
    }
    assert reference.module_of("qwen_course", "load") == "qwen_course.loading"
    assert (
        reference.module_of("qwen_course.loading", "BUNDLED") == "qwen_course.loading"
    )
