"""JupyterLab and Chromium for the browser test and for screenshots.

Both run on this machine alone: JupyterLab on 127.0.0.1, on a copy of the notebooks and
with settings of its own, so that neither a lesson nor the user's workspace changes.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from qwen_course.platforms.wire import free_port

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 1000  # Playwright counts in milliseconds

NO_POPUPS = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    # Every cell is rendered at once; else cells out of sight are not in the page.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, its secret token, and the folder it shows."""

    address: str
    token: str
    folder: Path

    def url(self, notebook: str) -> str:
        """Return the address of a notebook, named relative to the folder.

        Each notebook gets a workspace of its own; `reset` forgets earlier tabs.
        """
        workspace = Path(notebook).stem
        return (
            f"{self.address}/lab/workspaces/{workspace}/tree/{notebook}"
            f"?reset&token={self.token}"
        )


def lab_environment(home: Path) -> dict[str, str]:
    """Return the variables that keep JupyterLab and its kernels to themselves."""
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    paths = {name: home / folder for name, folder in folders.items()}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    python_path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **{name: str(path) for name, path in paths.items()},
        "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
        "NO_PROXY": "127.0.0.1,localhost",
    }


def write_settings(home: Path) -> None:
    """Write JupyterLab's settings: no news, no updates, nothing that pops up."""
    for name, settings in NO_POPUPS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding="utf-8")


def lab_command(folder: Path, port: int, token: str) -> list[str]:
    """Return the command that starts JupyterLab with this interpreter."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    command += [f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}"]
    command += ["--expose-app-in-browser", "--LabApp.news_url=None"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return command


@contextmanager
def jupyterlab(folder: Path, home: Path) -> Iterator[Lab]:
    """Run JupyterLab on `folder`, with its own settings under `home`.

    Raises RuntimeError with the end of its log when it does not answer.
    """
    environment = lab_environment(home)
    write_settings(home)
    port, token, log = free_port(), secrets.token_hex(16), home / "jupyterlab.log"
    with log.open("w", encoding="utf-8") as log_file:
        server = subprocess.Popen(
            lab_command(folder, port, token),
            env=environment,
            stdout=log_file,
            stderr=subprocess.STDOUT,
        )
    lab = Lab(f"http://127.0.0.1:{port}", token, folder)
    try:
        wait_until_it_answers(lab, server, log)
        yield lab
    finally:
        stop(server)


def wait_until_it_answers(lab: Lab, server: subprocess.Popen, log: Path) -> None:
    """Return when JupyterLab answers; RuntimeError after a minute, or if it ended."""
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        if server.poll() is not None:
            break
        try:
            with straight.open(f"{lab.address}/api?token={lab.token}", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"JupyterLab did not start. The end of its log:\n{tail}")


def stop(server: subprocess.Popen) -> None:
    """End JupyterLab, and with it the kernels it started."""
    server.terminate()
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """Run a headless Chromium that asks nothing of the network."""
    flags = ["--disable-background-networking", "--disable-component-update"]
    flags += ["--disable-sync", "--no-first-run", "--no-proxy-server"]
    flags += ["--disable-dev-shm-usage", "--disable-gpu", "--font-render-hinting=none"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


# What a learner does


def command(page: Page, name: str) -> None:
    """Carry out one of JupyterLab's commands, such as "notebook:run-all-cells".

    subtle: the command's promise must not be returned. It may never be kept, and
    Playwright would wait for it without end.
    """
    page.evaluate("name => { window.jupyterapp.commands.execute(name); }", name)


def open_notebook(page: Page, lab: Lab, notebook: str) -> Locator:
    """Open a notebook, wait for its kernel, and return the notebook's panel."""
    page.goto(lab.url(notebook))
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    expect(panel).to_be_visible(timeout=60 * SECONDS)
    wait_idle(page)
    return panel


def wait_idle(page: Page, seconds: float = 120) -> None:
    """Wait until the status bar says that the kernel is idle.

    subtle: the toolbar says "idle" before there is a kernel; the status bar does not.
    """
    status = page.locator("#jp-bottom-panel, #jp-main-statusbar").get_by_text("| Idle")
    expect(status.first).to_be_visible(timeout=seconds * SECONDS)


def run_all(page: Page, seconds: float = 300) -> None:
    """Empty all outputs, run every cell from the top, and wait until none waits."""
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    command(page, "notebook:clear-all-cell-outputs")
    expect(prompts.filter(has_text=re.compile(r"\d"))).to_have_count(0)
    command(page, "notebook:run-all-cells")
    # All cells show [*] before the first one shows its number.
    first = prompts.filter(has_text=re.compile(r"\[1\]:"))
    expect(first).to_have_count(1, timeout=seconds * SECONDS)
    waiting = prompts.filter(has_text="[*]")
    expect(waiting).to_have_count(0, timeout=seconds * SECONDS)
    wait_idle(page, seconds)


def tracebacks(page: Page) -> list[str]:
    """Return the text of every traceback in the page."""
    shown = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    return shown.all_inner_texts()


def tab_to(page: Page, target: Locator, at_most: int = 12) -> None:
    """Move to a control with the Tab key, as somebody without a mouse does.

    Raises AssertionError when it is not reached.
    """
    for _ in range(at_most):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{target} is not reached with {at_most} presses of Tab.")
