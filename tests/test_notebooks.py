"""The tool that runs the lessons, tried on tiny ones."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from qwen_course import __version__, notebooks
from qwen_course.notebooks import LessonError, Measured

ABOUT = {
    "title": "A trial",
    "goals": ["add two numbers"],
    "download": "0 MB",
    "gpu": "not needed",
}


BOOTSTRAP = notebooks.BOOTSTRAP


@pytest.fixture(autouse=True)
def _light_bootstrap(monkeypatch):
    """The true bootstrap cell imports torch; these lessons need none."""
    monkeypatch.setattr(notebooks, "BOOTSTRAP", "import qwen_course as qc")


@pytest.fixture
def make(tmp_path):
    """Write a lesson whose code cells are given by name."""

    def make(about=None, tags=(), **cells: str) -> Path:
        path = tmp_path / "notebooks" / "02_trial.ipynb"
        path.parent.mkdir(exist_ok=True)
        notebook = new_notebook(
            metadata={
                "qwen_course": ABOUT if about is None else about,
                "kernelspec": {"name": "no-such", "display_name": "x"},
            }
        )
        notebook.cells = [new_markdown_cell("Some words.", id="words")]
        for name, source in cells.items():
            name = name.replace("_", "-")
            metadata = {"tags": list(tags)}
            notebook.cells.append(new_code_cell(source, id=name, metadata=metadata))
        notebooks.write(path, notebook)
        return path

    return make


def cell(path: Path, name: str):
    return next(cell for cell in notebooks.read(path).cells if cell.id == name)


def test_a_run_writes_outputs_header_and_bootstrap(make):
    path = make(
        sum_by_hand="total = 12 + 30\ntotal",
        interpreter="import os, sys\nprint(sys.executable, os.getcwd())",
    )
    measured = notebooks.run(path)
    notebook = notebooks.read(path)
    assert [one.id for one in notebook.cells] == [
        "header", "bootstrap", "words", "sum-by-hand", "interpreter",
    ]  # fmt: skip
    assert cell(path, "sum-by-hand").outputs[0].data["text/plain"] == "42"
    counts = [one.execution_count for one in notebook.cells if "outputs" in one]
    assert counts == [1, 2, 3]
    assert "about 10 seconds" in cell(path, "header").source
    assert notebook.metadata.kernelspec.name == "python3"
    assert measured.memory_gb > 0.01


def test_a_second_run_changes_nothing(make):
    path = make(sum_by_hand="print(12 + 30)")
    notebooks.run(path)
    before = path.read_text(encoding="utf-8")
    notebooks.run(path)
    assert path.read_text(encoding="utf-8") == before


def test_the_kernel_is_this_python_in_the_lesson_s_folder(make):
    path = make(where="import os, sys\nprint(sys.executable)\nprint(os.getcwd())")
    notebook, _ = notebooks.execute(path, notebooks.read(path))
    output = notebook.cells[-1].outputs[0].text.split()
    assert output == [sys.executable, str(path.parent.resolve())]


def test_the_user_s_own_set_up_does_not_reach_a_lesson(make, tmp_path, monkeypatch):
    start_up = tmp_path / "ipython" / "profile_default" / "startup"
    start_up.mkdir(parents=True)
    (start_up / "mine.py").write_text("mine = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("QWEN_COURSE_MODEL", "another-model")
    path = make(
        look="import os\nprint('mine' in dir(), 'QWEN_COURSE_MODEL' in os.environ)"
    )
    notebook, _ = notebooks.execute(path, notebooks.read(path))
    assert notebook.cells[-1].outputs[0].text == "False False\n"


def test_the_peak_counts_memory_that_was_given_back(make):
    path = make(much="much = b'x' * 300_000_000", gone="del much")
    _, measured = notebooks.execute(path, notebooks.read(path))
    assert measured.memory_gb > 0.3


def test_a_failing_cell_is_named_and_nothing_is_written(make):
    path = make(fine="1", divides="1 / 0")
    before = path.read_text(encoding="utf-8")
    named = r'02_trial.ipynb, cell "divides": ZeroDivisionError: division by zero'
    with pytest.raises(LessonError, match=named):
        notebooks.run(path)
    assert path.read_text(encoding="utf-8") == before


def test_an_announced_error_is_part_of_the_lesson(make):
    path = make(tags=["raises-exception"], divides="1 / 0")
    notebooks.run(path)
    (output,) = cell(path, "divides").outputs
    assert output.ename == "ZeroDivisionError"
    assert "\x1b" not in "".join(output.traceback)


@pytest.mark.timeout(60)
def test_a_dead_kernel_is_reported_at_once(make):
    path = make(dies="import os\nos._exit(1)")
    with pytest.raises(LessonError, match='cell "dies": the kernel died'):
        notebooks.run(path, timeout=1000)


def test_a_cell_over_the_time_is_named(make):
    path = make(sleeps="import time\ntime.sleep(60)")
    with pytest.raises(LessonError, match='cell "sleeps": not done after 1 seconds'):
        notebooks.run(path, timeout=1)


def test_cleaning_takes_out_what_differs_between_runs():
    bar = " 40%|####      | 2/5 [00:01<00:02,  1.5it/s]"
    notebook = new_notebook(metadata={"widgets": {}, "language_info": {"name": "x"}})
    show = new_code_cell("show", id="show", metadata={"execution": {}, "tags": ["a"]})
    show.outputs = [
        new_output("stream", name="stderr", text=f"\x1b[31mred\x1b[0m\n{bar}\n"),
        new_output("stream", name="stderr", text=bar),
        new_output("display_data", data={notebooks.WIDGET: {}, "text/plain": bar}),
        new_output("display_data", data={notebooks.WIDGET: {}, "text/plain": "Box()"}),
    ]
    notebook.cells = [show]
    cleaned = notebooks.clean(notebook)
    stream, widget = cleaned.cells[0].outputs
    assert stream.text == "red\n"
    assert widget.data == {"text/plain": notebooks.WIDGET_TEXT}
    assert cleaned.cells[0].metadata == {"tags": ["a"]}
    assert "widgets" not in cleaned.metadata
    assert cleaned.metadata.language_info == {"name": "python"}
    assert notebooks.clean(cleaned) == cleaned


def test_a_widget_that_brings_a_table_is_stored_as_the_table():
    show = new_code_cell("show", id="show")
    data = {notebooks.WIDGET: {}, "text/plain": "a b", "text/html": "<table></table>"}
    show.outputs = [new_output("display_data", data=data)]
    cleaned = notebooks.clean(new_notebook(cells=[show]))
    kept = {"text/plain": "a b", "text/html": "<table></table>"}
    assert cleaned.cells[0].outputs[0].data == kept
    assert notebooks.clean(cleaned) == cleaned


def test_this_machine_s_folders_are_taken_out_of_outputs():
    inside = notebooks.ROOT / "qwen_course" / "models"
    assert notebooks.clean_text(f"from {inside}.") == (
        f"from {Path('qwen_course', 'models')}."
    )
    assert notebooks.clean_text(f"in {notebooks.ROOT}") == "in ."
    assert notebooks.clean_text(f"{notebooks.ROOT}-old") != ".-old"


def test_a_table_of_percentages_is_no_progress_bar():
    assert notebooks.clean_text("thinking 98%| plain 28%|\n").startswith("thinking")


def test_alt_text_reaches_the_picture():
    draw = new_code_cell("draw", id="draw", metadata={"alt": "A rising line"})
    draw.outputs = [new_output("display_data", data={"image/png": "iVBORw0KGgo="})]
    cleaned = notebooks.clean(new_notebook(cells=[draw]))
    (output,) = cleaned.cells[0].outputs
    assert output.metadata["image/png"]["alt"] == "A rising line"


def test_tidying_makes_the_header_anew_and_keeps_the_outputs(make):
    path = make(sum_by_hand="print(12 + 30)")
    notebooks.run(path)
    notebook = notebooks.read(path)
    notebook.metadata["qwen_course"]["title"] = "Another title"
    notebooks.write(path, notebook)
    assert notebooks.tidy(path)
    assert cell(path, "header").source.startswith("# 02 · Another title")
    assert cell(path, "sum-by-hand").outputs[0].text == "42\n"
    assert not notebooks.tidy(path)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({}, 'has no "title"'),
        ({**ABOUT, "goals": []}, 'has no "goals"'),
        ({**ABOUT, "goal": "x"}, 'Did you mean "goals"?'),
    ],
)
def test_metadata_that_makes_no_header_is_refused(make, about, words):
    with pytest.raises(LessonError) as raised:
        notebooks.run(make(about=about, fine="1"))
    assert words in str(raised.value)
    assert "02_trial.ipynb" in str(raised.value)


@pytest.fixture
def bootstrap(monkeypatch):
    """Run the true bootstrap cell; return the magics it called."""

    def bootstrap(installed: bool, in_colab: bool) -> list[tuple[str, str]]:
        called = []
        shell = SimpleNamespace(run_line_magic=lambda *words: called.append(words))
        course = SimpleNamespace(about=lambda: None)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: course if installed else None
        )
        monkeypatch.setitem(sys.modules, "qwen_course", course)
        if in_colab:
            monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
        source = TransformerManager().transform_cell(BOOTSTRAP)
        exec(source, {"get_ipython": lambda: shell})
        return called

    return bootstrap


@pytest.mark.parametrize("in_colab", [False, True])
def test_the_bootstrap_installs_nothing_that_is_there(bootstrap, in_colab):
    assert bootstrap(installed=True, in_colab=in_colab) == []


def test_the_bootstrap_installs_this_release_in_colab(bootstrap):
    ((magic, words),) = bootstrap(installed=False, in_colab=True)
    assert magic == "pip"
    assert words.startswith('install -q "qwen-course @ git+https://')
    assert words.endswith(f'@v{__version__}"')


def test_the_bootstrap_says_what_to_type_outside_colab(bootstrap):
    with pytest.raises(ModuleNotFoundError, match=r"python course\.py"):
        bootstrap(installed=False, in_colab=False)


OLD = {"seconds": 40, "memory_gb": 0.8, "cores": 2}


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        (Measured(31, 0.95, 2), OLD),
        (Measured(71, 0.8, 2), {**OLD, "seconds": 80}),
        (Measured(130, 0.8, 2), {**OLD, "seconds": 180}),
        (Measured(40, 1.23, 2), {**OLD, "memory_gb": 1.3}),
        (Measured(33, 0.72, 8), {"seconds": 40, "memory_gb": 0.8, "cores": 8}),
    ],
)
def test_figures_change_only_when_they_are_a_quarter_off(new, kept):
    assert notebooks.settled(OLD, new) == kept


def test_the_command_says_which_notebook_is_missing(tmp_path, capsys):
    assert notebooks.main(["run", str(tmp_path / "07_gone.ipynb")]) == 1
    assert "07_gone.ipynb: there is no such notebook." in capsys.readouterr().err


def test_a_text_file_is_no_notebook(tmp_path, capsys):
    path = tmp_path / "02_words.ipynb"
    path.write_text("just words")
    assert notebooks.main(["check", str(path)]) == 1
    assert "02_words.ipynb is not a notebook" in capsys.readouterr().err


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"nbformat": 3}', b"\xff\xfe"])
def test_what_is_no_notebook_is_refused_by_name(tmp_path, text):
    (tmp_path / "odd.ipynb").write_bytes(text)
    with pytest.raises(notebooks.LessonError, match="odd.ipynb"):
        notebooks.read(tmp_path / "odd.ipynb")


def test_check_passes_after_run_and_fails_after_an_edit(make, capsys):
    path = make(sum_by_hand="print(12 + 30)")
    assert notebooks.main(["run", str(path)]) == 0
    assert notebooks.main(["check", str(path)]) == 0
    notebook = notebooks.read(path)
    notebook.cells[0].source += "\nA line by hand."
    notebooks.write(path, notebook)
    assert notebooks.main(["check", str(path)]) == 1
    assert 'the generated "header"' in capsys.readouterr().err


def test_a_notebook_with_an_extra_installs_it_in_colab_and_others_do_not(monkeypatch):
    monkeypatch.setattr(notebooks, "BOOTSTRAP", BOOTSTRAP)
    plain, tuned = new_notebook(), new_notebook()
    tuned.metadata["qwen_course"] = {"extra": "finetune"}
    assert notebooks.bootstrap_source(plain) == BOOTSTRAP
    assert '"qwen-course[finetune] @ git+' in notebooks.bootstrap_source(tuned)
