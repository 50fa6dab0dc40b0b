"""Fixtures of the browser test: a JupyterLab on a copy of the lessons, and a page."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed.")

from playwright.sync_api import Browser, Page

from .lab import ROOT, SECONDS, Lab, chromium, find_chromium, jupyterlab


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The path of Chromium; without one the test is skipped, but fails in CI."""
    if path := find_chromium():
        return path
    reason = 'no Chromium: on Debian and Ubuntu type "apt-get install chromium"'
    if os.environ.get("CI"):
        pytest.fail(f"The browser test cannot run: {reason}.")
    pytest.skip(reason)


# Not longer than its module: while it lives, an event loop runs in this thread, and the
# widgets under test in another module would take it for that of a notebook.
@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with chromium(chromium_path) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    context.set_default_timeout(30 * SECONDS)
    yield context.new_page()
    context.close()


@pytest.fixture
def lab(chromium_path: str, tmp_path: Path) -> Iterator[Lab]:
    """A JupyterLab on a copy of the lessons: running one here changes no file."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "course" / "notebooks")
    with jupyterlab(tmp_path / "course", tmp_path / "home") as lab:
        yield lab
