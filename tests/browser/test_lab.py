"""A learner opens JupyterLab, runs the chat lesson, and talks to the model."""

import json
import re

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed.")

from playwright.sync_api import Page, expect

from .lab import SECONDS, Lab, open_notebook, run_all, tab_to, tracebacks

LESSON = "notebooks/02_chat.ipynb"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


def errors_that_the_lesson_shows(lab: Lab) -> int:
    """Count the cells whose exception is part of the lesson."""
    cells = json.loads((lab.folder / LESSON).read_text(encoding="utf-8"))["cells"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    return sum("raises-exception" in names for names in tags)


def test_the_chat_lesson_runs_and_its_widget_answers(page: Page, lab: Lab):
    """Cells that run without a browser say nothing about what a learner can use.

    A widget whose half in the browser is missing, a button without a name, an answer
    printed where nobody sees it, a control that only a mouse reaches: every one of
    them passes when the notebook is run by its kernel alone.
    """
    panel = open_notebook(page, lab, LESSON)
    run_all(page)
    last_prompt = panel.locator(".jp-CodeCell .jp-InputPrompt").last
    expect(last_prompt).to_have_text(re.compile(r"\[\d+\]:"))
    found = tracebacks(page)
    assert len(found) == errors_that_the_lesson_shows(lab), "\n".join(found)

    transcript = panel.locator(".qwen-course-chat").last
    expect(transcript).not_to_contain_text("42")
    panel.get_by_placeholder("Ask the model").last.focus()
    page.keyboard.type("What is 12 + 30?")
    tab_to(page, panel.get_by_role("button", name="Send").last)
    page.keyboard.press("Enter")
    expect(transcript).to_contain_text("42", timeout=60 * SECONDS)

    # Enter at once after the last letter: the text must not be cut or left behind.
    box = panel.get_by_placeholder("Ask the model").last
    box.focus()
    page.keyboard.type("What is 47 + 36?")
    page.keyboard.press("Enter")
    expect(transcript).to_contain_text("You: What is 47 + 36?", timeout=60 * SECONDS)
    expect(transcript).to_contain_text("83", timeout=60 * SECONDS)
    expect(box).to_have_value("")
