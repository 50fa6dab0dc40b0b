"""Take pictures of a notebook as JupyterLab shows it.

    python -m tests.browser.screenshot notebooks/02_chat.ipynb lesson.png
    python -m tests.browser.screenshot notebooks/02_chat.ipynb lesson.png --run --full

The first takes the top of the notebook; `--full` all of it, in pages lesson-01.png,
lesson-02.png ...; `--run` runs the cells first; `--at CELL` begins at
that cell. The notebook itself is not changed.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, Page

from .lab import (
    chromium,
    command,
    find_chromium,
    jupyterlab,
    open_notebook,
    run_all,
)


def cells_height(panel: Locator) -> int:
    """Return the height of all cells together, in pixels."""
    cells = panel.locator(".jp-Cell")
    first, last = cells.first.bounding_box(), cells.last.bounding_box()
    assert first is not None
    assert last is not None
    return math.ceil(last["y"] + last["height"] - first["y"]) + 20


def scroll_to(page: Page, panel: Locator, pixels: float) -> float:
    """Scroll the cells down from the top; return how far that went."""
    outer = panel.locator(".jp-WindowedPanel-outer")
    outer.evaluate("(element, top) => { element.scrollTop = top; }", pixels)
    page.wait_for_timeout(700)  # pictures and formulas are still being drawn
    return outer.evaluate("element => element.scrollTop")


def place_of(panel: Locator, notebook: Path, cell_id: str | None) -> float:
    """Return how many pixels below the first cell a named cell begins."""
    if cell_id is None:
        return 0
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    names = [cell["id"] for cell in cells]
    if cell_id not in names:
        raise SystemExit(f'No cell "{cell_id}". The cells: {", ".join(names)}.')
    first = panel.locator(".jp-Cell").first.bounding_box()
    cell = panel.locator(".jp-Cell").nth(names.index(cell_id)).bounding_box()
    assert first is not None
    assert cell is not None
    return cell["y"] - first["y"]


def take_pages(page: Page, panel: Locator, out: Path) -> list[Path]:
    """Save all cells, a windowful a picture, as out-01.png, out-02.png ..."""
    box = panel.locator(".jp-WindowedPanel-outer").bounding_box()
    assert box is not None
    height, files = cells_height(panel), []
    for number in range(math.ceil(height / box["height"])):
        top = number * box["height"]
        hidden = top - scroll_to(page, panel, top)  # the end does not scroll further
        shown = min(box["height"] - hidden, height - top)
        clip = {**box, "y": box["y"] + hidden, "height": max(shown, 1)}
        file = out.with_stem(f"{out.stem}-{number + 1:02d}")
        page.screenshot(path=file, clip=clip)
        files.append(file)
    return files


def take(given: argparse.Namespace) -> list[Path]:
    """Save the pictures that the command line asks for; return their files."""
    path = find_chromium()
    if path is None:
        raise SystemExit('No Chromium found. On Debian: "apt-get install chromium".')
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "course", given.notebook.resolve().parent.name)
        folder.mkdir(parents=True)
        shutil.copy(given.notebook, folder)
        with (
            jupyterlab(folder.parent, Path(scratch, "home")) as lab,
            chromium(path) as browser,
        ):
            size = {"width": given.width, "height": given.height}
            page = browser.new_page(viewport=size)
            panel = open_notebook(page, lab, f"{folder.name}/{given.notebook.name}")
            command(page, "application:toggle-left-area")  # the list of files
            if given.run:
                run_all(page)
            if given.full:
                return take_pages(page, panel, given.out)
            scroll_to(page, panel, place_of(panel, given.notebook, given.at))
            page.screenshot(path=given.out)
            return [given.out]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.browser.screenshot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path, help="a .png file")
    parser.add_argument("--run", action="store_true", help="run the cells first")
    parser.add_argument("--full", action="store_true", help="all cells, in pages")
    parser.add_argument("--at", metavar="CELL", help="scroll to the cell of this id")
    parser.add_argument(
        "--width", type=int, default=1000, help="of the window, in pixels"
    )
    parser.add_argument("--height", type=int, default=1600, help="of the window")
    given = parser.parse_args()
    print(*take(given), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
