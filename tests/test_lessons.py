"""The lessons with a real checkpoint's id: the same cells, unchanged, on the stand-in.

nbval runs each lesson on the pocket model. Here the setting is switched, as a learner
with a GPU does it, and every cell must still run.
"""

import nbformat
import pytest
from nbclient import NotebookClient

from qwen_course import notebooks


@pytest.mark.timeout(1500)  # ends what hangs; slow machines take minutes
@pytest.mark.parametrize("path", notebooks.lessons(), ids=lambda path: path.stem)
def test_a_lesson_runs_on_a_real_checkpoint_by_one_setting(path, monkeypatch, hub_home):
    monkeypatch.setenv("QWEN_COURSE_MODEL", "Qwen/Qwen3-0.6B")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    )
    client.execute()
    first = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert "Qwen/Qwen3-0.6B (a real checkpoint" in first
