"""Plans add up, and what instructors read says what the lessons say."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from browser import conftest
from browser.lab import chromium

from qwen_course import cli, notebooks, plans

ROOT = Path(__file__).parent.parent
WORKSHOP = ROOT / "workshop"
PAGES = sorted((WORKSHOP / "guide").glob("[0-9][0-9]_*.md"))
chromium_path = conftest.chromium_path  # skips without Chromium; fails in CI
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


# The plans


@pytest.fixture(scope="module")
def course():
    return plans.Course.read()


@pytest.fixture
def half_day():
    return yaml.safe_load((WORKSHOP / "plans" / "half_day.yaml").read_text("utf-8"))


@pytest.mark.parametrize("path", plans.files(), ids=lambda path: path.stem)
def test_every_plan_adds_up(path, course):
    plan = plans.read(path)
    assert plans.problems(plan, course) == []


def test_there_is_a_plan_for_half_a_day_for_one_and_for_two():
    hours = {path.stem: plans.read(path).minutes / 60 for path in plans.files()}
    assert hours == {"half_day": 3.5, "one_day": 7, "two_days": 14}


def test_the_printed_plans_are_those_of_the_data():
    assert plans.main(["--check"]) == 0, "type: python -m qwen_course.plans"


def test_two_days_have_something_of_every_lesson(course):
    plan = plans.read(WORKSHOP / "plans" / "two_days.yaml")
    assert {part.lesson for part in plan.parts if part.lesson} == set(course.lessons)


def _changed(data, **change):
    """Return a half day whose second part differs."""
    data = copy.deepcopy(data)
    data["blocks"][0]["parts"][1].update(change)
    return plans.parse(data, "half_day")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"minutes": 20},
            "parts take 215 minutes, but from 09:00 to 12:30 there are 210",
        ),
        ({"lesson": "42"}, '09:10: there is no lesson "42"'),
        ({"sections": ["2. A fist answer"]}, 'Did you mean "2. A first answer"'),
        (
            {"lesson": "07", "sections": [], "minutes": 10},
            "lesson 07 takes 14 minutes to run, and the plan gives it 10",
        ),
        ({"do": "sing"}, '09:10: "sing" is not one of talk, show, run, exercise'),
        ({"aim": ""}, "09:10: has no aim"),
    ],
)
def test_a_wrong_plan_is_told_what_is_wrong(half_day, course, change, said):
    assert said in "\n".join(plans.problems(_changed(half_day, **change), course))


def test_an_exercise_gets_just_the_minutes_of_its_metadata(half_day, course):
    change = {"do": "exercise", "exercise": "02.q2", "lesson": "", "sections": []}
    found = plans.problems(_changed(half_day, **change, minutes=12), course)
    assert "09:10: 02.q2 is made for 15 minutes, and gets 12." in found


def test_an_unknown_exercise_is_named_with_the_nearest(half_day, course):
    change = {"do": "exercise", "exercise": "02.q9"}
    found = "\n".join(plans.problems(_changed(half_day, **change), course))
    assert '09:10: there is no exercise "02.q9". Did you mean "02.q' in found


def test_nobody_sits_for_more_than_ninety_minutes(half_day, course):
    for part in half_day["blocks"][0]["parts"]:
        part["do"] = "talk" if part["do"] == "break" else part["do"]
    found = plans.problems(plans.parse(half_day, "half_day"), course)
    assert any("210 minutes without a break" in problem for problem in found)


def test_blocks_do_not_overlap(half_day, course):
    half_day["blocks"].append(copy.deepcopy(half_day["blocks"][0]))
    found = plans.problems(plans.parse(half_day, "half_day"), course)
    assert any("begins at 09:00, before the one above ends" in one for one in found)


def test_a_key_with_a_slip_is_named(half_day):
    half_day["blocks"][0]["parts"][0]["minuets"] = 5
    with pytest.raises(ValueError, match='"minuets".*Did you mean "minutes"'):
        plans.parse(half_day, "half_day")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"minutes": "ten", "do": "talk"},
            "Morning, 09:00: minutes are a whole number",
        ),
        ({"minutes": 5}, "the key 'do' is missing"),
        ("a talk", "give the keys minutes, do"),
    ],
)
def test_a_part_without_what_it_needs_is_named(half_day, part, said):
    half_day["blocks"][0]["parts"][0] = part
    with pytest.raises(ValueError, match=said):
        plans.parse(half_day, "half_day")


def test_a_time_that_is_none_is_named(half_day):
    half_day["blocks"][0]["start"] = 810  # what YAML makes of 13:30 without quotes
    with pytest.raises(ValueError, match='810 is no time. Write it as in "09:15"'):
        plans.parse(half_day, "half_day")


def test_the_command_says_what_is_wrong_and_fails(monkeypatch, tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text("title: x\naudience: y\nblocks: [{nam: z}]\n", "utf-8")
    monkeypatch.setattr(plans, "files", lambda: [path])
    assert plans.main([]) == 1
    assert 'the key "nam" is not one of name' in capsys.readouterr().err


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("title: [", "utf-8")
    with pytest.raises(ValueError, match=r"bad\.yaml"):
        plans.read(path)


def test_a_half_day_prints_on_one_page(tmp_path, chromium_path):
    assert plans.main(["--html", str(tmp_path)]) == 0
    with chromium(chromium_path) as browser:
        page = browser.new_page()
        for file in plans.files():
            page.goto((tmp_path / f"{file.stem}.html").as_uri())
            pdf = page.pdf(prefer_css_page_size=True)
            pages = len(re.findall(rb"/Type /Page\b", pdf))
            assert pages == len(plans.read(file).blocks), file.stem


# The guide


def _texts(path):
    """Return all that a lesson and its exercises say: text, code, outputs, metadata."""
    for folder in ("notebooks", "exercises"):
        file = ROOT / folder / path.with_suffix(".ipynb").name
        if not file.is_file():
            continue
        notebook = notebooks.read(file)
        yield json.dumps(notebook.metadata)
        for cell in notebook.cells:
            yield from (cell.source, json.dumps(cell.metadata))
            for output in cell.get("outputs", []):
                yield output.get("text", "") + output.get("evalue", "")
                yield output.get("data", {}).get("text/plain", "")


def _numbers(text):
    return {number.replace(",", "") for number in NUMBER.findall(text)}


@pytest.fixture(scope="module", params=PAGES, ids=lambda path: path.stem)
def page(request):
    return request.param


def test_there_is_a_page_for_every_lesson():
    assert [path.stem for path in PAGES] == [path.stem for path in notebooks.lessons()]


def test_a_page_has_its_parts(page):
    text = page.read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Three things to show", "What to say", "Questions you will get",
                        "Where learners get stuck", "To shorten it"]  # fmt: skip
    assert len(re.findall(r"^\d\. \*\*Section", text, re.MULTILINE)) == 3
    questions = text.partition("## Questions")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\*\*.+\?\*\*", questions, re.MULTILINE)) >= 5
    said = text.partition("## What to say")[2].partition("\n## ")[0]
    assert 8 <= len(re.findall(r"[.?!](?:\s|$)", said)) <= 20


def test_every_number_of_a_page_stands_in_its_lesson(page):
    there = _numbers("\n".join(_texts(page)))
    prose = page.read_text("utf-8").partition("\n")[2]
    prose = re.sub(r"^\d\. |\d\d\.q\d|[Ll]esson \d\d|[Ss]ections? \d+( (and|to) \d+)?"
                   r"|, \d+ (and|to) \d+", "", prose, flags=re.MULTILINE)  # fmt: skip
    assert _numbers(prose) - there == set()


def test_what_a_page_shows_is_a_heading_of_its_lesson(page, course):
    shown = re.findall(r"\*\*Section \"(.+?)\"\.\*\*", page.read_text("utf-8"))
    assert len(shown) == 3
    assert set(shown) <= set(course.lessons[page.stem[:2]].headings)


def test_the_mistakes_of_a_page_are_those_that_the_checks_name(page):
    judge = ROOT / "qwen_course/exercises/judges" / f"lesson_{page.stem[:2]}.py"
    stuck = page.read_text("utf-8").partition("## Where learners get stuck")[2]
    named = re.findall(r"`([a-z]+(?:-[a-z]+)*)`(?=[^`\n]*\((\d\d\.q\d)|)", stuck)
    source = judge.read_text("utf-8") if judge.is_file() else ""
    names = {name for name, _ in named if "-" in name}
    assert all(f'"{name}"' in source for name in names), names


def test_the_exercises_of_a_page_exist(page, course):
    asked = set(re.findall(r"\d\d\.q\d", page.read_text("utf-8")))
    assert asked <= set(course.exercises)


@pytest.mark.parametrize(
    "path", sorted(WORKSHOP.glob("*.md")) + PAGES, ids=lambda path: path.stem
)
def test_what_a_page_links_to_is_there(path):
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        assert link.startswith("http") or (path.parent / link).exists(), link


def test_the_commands_that_instructors_are_told_exist(capsys):
    told = set()
    for path in [*WORKSHOP.glob("*.md"), *PAGES]:
        told |= set(re.findall(r"qwen-course ([a-z]+)", path.read_text("utf-8")))
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    there = set(re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE))
    assert told <= there
