"""Every notebook of the course is clean; each test tells what went wrong without it.

The rules are functions of `qwen_course.notebook_rules`. The first half of this file
holds the notebooks against them, the second half holds bad notebooks against them.
"""

import copy
from pathlib import Path

import pytest
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

from qwen_course import notebook_rules as rules
from qwen_course import notebooks

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("notebooks", "exercises", "solutions")
NOTEBOOKS = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.ipynb"))
    if ".ipynb_checkpoints" not in path.parts
]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def path(request) -> Path:
    return request.param


def broken_by(rule: rules.Rule, path: Path) -> str:
    return "\n".join(rule(path, notebooks.read(path)))


def test_the_course_has_lessons():
    """A moved folder would make every other test here pass on nothing."""
    assert notebooks.lessons()


def test_a_notebook_is_valid(path):
    """A merge left a cell without an id; Colab opened the file, JupyterLab did not."""
    assert not broken_by(rules.is_valid, path)


def test_a_notebook_names_the_python3_kernel(path):
    """Saved in an author's environment, a lesson asked learners to "Select Kernel"."""
    assert not broken_by(rules.names_the_python3_kernel, path)


def test_cells_have_names_that_speak(path):
    """With random ids every save changed the file, and no report could be read."""
    assert not broken_by(rules.has_named_cells, path)


def test_a_notebook_is_small(path):
    """Three megabytes of pictures: the web page showed "unable to render" instead."""
    assert not broken_by(rules.is_small, path)


def test_a_notebook_holds_no_traces_of_a_run(path):
    """Timestamps hid the one changed line among fifty; a stored widget without its
    kernel showed "model not found" in the place of the lesson."""
    assert not broken_by(rules.has_no_traces_of_a_run, path)


def test_a_notebook_is_as_the_tool_writes_it(path):
    """Saved by hand, a lesson showed figures that no clean run gives."""
    assert not broken_by(rules.is_as_the_tool_writes_it, path)


def test_a_notebook_opens_with_the_generated_cells(path):
    """Install lines copied from lesson to lesson drifted apart, and half of them
    installed a version that the lesson did not know."""
    assert not broken_by(rules.opens_with_the_generated_cells, path)


def test_a_notebook_tells_nothing_of_its_author_s_machine(path):
    """A cell that opened a file under the author's home failed for everybody else."""
    assert not broken_by(rules.tells_nothing_of_a_machine, path)


def test_a_notebook_holds_no_secret(path):
    """Tokens typed "only for a moment" are in public notebooks by the thousand."""
    assert not broken_by(rules.holds_no_secret, path)


def test_a_lesson_was_run_from_top_to_bottom(path):
    """Cells run out of order printed numbers that a learner never got."""
    assert not broken_by(rules.was_run_from_top_to_bottom, path)


def test_errors_stand_only_where_the_lesson_shows_one(path):
    """A traceback left in a lesson makes a learner search for a mistake of theirs; and
    a cell that is to fail but does not teaches the opposite of its text."""
    assert not broken_by(rules.has_errors_only_where_announced, path)


def test_pictures_have_words(path):
    """With a screen reader a plot without words is "image", and nothing more."""
    assert not broken_by(rules.images_have_words, path)


def test_code_cells_are_short(path):
    """Learners gave up at cells of a hundred lines; long lines scroll sideways."""
    assert not broken_by(rules.has_short_cells, path)


def test_text_stands_between_code(path):
    """Five cells in a row were run, and nobody could say which idea they showed."""
    assert not broken_by(rules.has_text_between_code, path)


def test_every_name_is_bound_before_it_is_used(path):
    """A renamed variable lived on in the author's kernel; learners had NameError."""
    assert not broken_by(rules.binds_every_name, path)


def test_every_call_fits_the_installed_version(path):
    """`torch_dtype=` became `dtype=`, and lessons broke or quietly took fp32."""
    assert not broken_by(rules.calls_what_is_installed, path)


def test_every_link_leads_somewhere(path):
    """The link to the exercise was right until the file got its number."""
    assert not broken_by(rules.has_links_that_lead_somewhere, path)


# The rules themselves, on notebooks that break them


def code(name: str, source: str, **metadata):
    return new_code_cell(source, id=name, metadata=metadata)


def text(name: str, source: str):
    return new_markdown_cell(source, id=name)


def printed(words: str):
    return new_output("stream", name="stdout", text=words)


@pytest.fixture
def lesson(tmp_path) -> Path:
    """A lesson in a folder of its own that breaks no rule."""
    path = tmp_path / "notebooks" / "02_trial.ipynb"
    path.parent.mkdir()
    about = {
        "title": "A trial",
        "goals": ["add two numbers"],
        "download": "0 MB",
        "gpu": "not needed",
        "measured": {"seconds": 10, "memory_gb": 0.2, "cores": 2},
    }
    notebook = new_notebook(metadata={"qwen_course": about})
    notebook.cells = [
        text("adding", "## Adding\n\nThe sum of two numbers."),
        code("sum-by-hand", "total = 12 + 30\nprint(total)"),
        text("reading-the-sum", "It is 42. See [above](#Adding)."),
    ]
    notebook = notebooks.clean(notebooks.with_generated_cells(path, notebook))
    notebook.cells[1].execution_count = 1
    notebook.cells[3].execution_count = 2
    notebook.cells[3].outputs = [printed("42\n")]
    notebooks.write(path, notebook)
    return path


def test_a_clean_lesson_breaks_no_rule(lesson):
    assert rules.problems(lesson) == []


def append_source(line):
    def spoil(notebook):
        notebook.cells[3].source += f"\n{line}"

    return spoil


def replace_text(words):
    def spoil(notebook):
        notebook.cells[4].source = words

    return spoil


def add_output(output):
    def spoil(notebook):
        notebook.cells[3].outputs.append(output)

    return spoil


def picture():
    return new_output("display_data", data={"image/png": "iVBORw0KGgo="})


def failure():
    return new_output("error", ename="ValueError", evalue="no", traceback=["no"])


def set_cell(**fields):
    def spoil(notebook):
        notebook.cells[3].update(copy.deepcopy(fields))

    return spoil


def add_cells(*cells):
    def spoil(notebook):
        notebook.cells += copy.deepcopy(cells)

    return spoil


def forget_a_goal(notebook):
    notebook.metadata["qwen_course"]["goals"] = []


def drop_the_header(notebook):
    del notebook.cells[0]


def edit_the_bootstrap(notebook):
    notebook.cells[1].source += "\nimport os"


def name_another_kernel(notebook):
    notebook.metadata["kernelspec"] = {"name": "my-env", "display_name": "my env"}


def store_widget_state(notebook):
    notebook.metadata["widgets"] = {}


def view():
    return new_output("display_data", data={notebooks.WIDGET: {"model_id": "a1"}})


BAD = [
    (rules.names_the_python3_kernel, name_another_kernel, "my-env"),
    (rules.has_named_cells, set_cell(id="a1b2c3d4"), "the id is no name"),
    (rules.has_named_cells, set_cell(id="Sum_1"), "the id is no name"),
    (rules.has_named_cells, set_cell(id="adding"), "an earlier cell has the same"),
    (rules.is_small, add_output(printed("x" * 300_001)), 'cell is "sum-by-hand"'),
    (rules.has_no_traces_of_a_run, store_widget_state, "widget state"),
    (rules.has_no_traces_of_a_run, add_output(view()), "the view of a widget"),
    (rules.has_no_traces_of_a_run, add_output(printed("\x1b[31mred")), "colour codes"),
    (
        rules.has_no_traces_of_a_run,
        set_cell(metadata={"execution": {}}),
        "the metadata execution",
    ),
    (rules.is_as_the_tool_writes_it, set_cell(metadata={"x": 1}), "tidy"),
    (rules.opens_with_the_generated_cells, drop_the_header, 'the generated "header"'),
    (rules.opens_with_the_generated_cells, edit_the_bootstrap, "bootstrap"),
    (rules.opens_with_the_generated_cells, forget_a_goal, 'has no "goals"'),
    (rules.tells_nothing_of_a_machine, append_source("'/home/ada/x'"), "/home/ada"),
    (
        rules.tells_nothing_of_a_machine,
        append_source(r"r'C:\Users\ada'"),
        r"C:\Users",
    ),
    (rules.tells_nothing_of_a_machine, add_output(printed(str(ROOT))), "one machine"),
    (
        rules.tells_nothing_of_a_machine,
        add_output(printed("<object at 0x7f3a12345678>")),
        "0x7f3a",
    ),
    (rules.holds_no_secret, append_source(f"'hf_{'a' * 34}'"), "hf_aaaa..."),
    (rules.was_run_from_top_to_bottom, set_cell(execution_count=7), "is 7, not 2"),
    (rules.has_errors_only_where_announced, add_output(failure()), "ValueError"),
    (
        rules.has_errors_only_where_announced,
        set_cell(metadata={"tags": ["raises-exception"]}),
        "nothing failed",
    ),
    (rules.images_have_words, add_output(picture()), 'no metadata "alt"'),
    (rules.images_have_words, replace_text("![](a.png)"), "no alt text"),
    (rules.images_have_words, replace_text("<img src='a.png'>"), "no alt text"),
    (rules.has_short_cells, append_source("\n".join(["x = 1"] * 30)), "32 lines"),
    (rules.has_short_cells, append_source("x" * 89), "89 columns"),
    (rules.has_short_cells, append_source("\n".join(["x = 1"] * 8)), "median 10"),
    (
        rules.has_text_between_code,
        add_cells(code("one", "1"), code("two", "2"), code("three", "3")),
        '"three": 3 code cells',
    ),
    (rules.binds_every_name, append_source("print(totl)"), "Undefined name `totl`"),
    (rules.binds_every_name, append_source("print(later)"), "line 3: Undefined"),
    (rules.binds_every_name, append_source("print("), "line 3"),
    (rules.calls_what_is_installed, append_source("qc.lode()"), "lode does not exist"),
    (
        rules.calls_what_is_installed,
        append_source("qc.notebooks.duration(second=3)"),
        'no argument "second". Did you mean "seconds"?',
    ),
    (
        rules.calls_what_is_installed,
        append_source("qc.notebooks.duration()"),
        "missing a required argument: 'seconds'",
    ),
    (
        rules.calls_what_is_installed,
        append_source("from qwen_course.errors import sugest\nsugest('a', [])"),
        "sugest does not exist",
    ),
    (rules.calls_what_is_installed, append_source("qc.errors()"), "is a module"),
    (
        rules.has_links_that_lead_somewhere,
        replace_text("[next](03_gone.ipynb)"),
        "03_gone.ipynb leads to no file",
    ),
    (
        rules.has_links_that_lead_somewhere,
        replace_text("[![a](x.svg)](gone.ipynb)"),
        "gone.ipynb leads to no file",
    ),
    (
        rules.has_links_that_lead_somewhere,
        replace_text("[up](02_trial.ipynb#Subtracting)"),
        "a heading that is not there",
    ),
]


@pytest.mark.parametrize(
    ("rule", "spoil", "words"),
    BAD,
    ids=[f"{rule.__name__}-{number}" for number, (rule, _, _) in enumerate(BAD)],
)
def test_a_rule_finds_what_breaks_it(lesson, rule, spoil, words):
    notebook = notebooks.read(lesson)
    spoil(notebook)
    notebooks.write(lesson, notebook)
    found = "\n".join(rule(lesson, notebook))
    assert words in found
    assert "02_trial.ipynb" in found


@pytest.mark.parametrize(
    "source",
    [
        "%pip install -q something",
        "%%time\nnot python",
        "if total:\n    %matplotlib inline",
        "def twice(x):\n    return 2 * x\ntwice(total)",
        "options = {}\nqc.notebooks.duration(**options)",
        "qc.errors.suggest(*['a', ['b']])",
        "qc = total\nqc.anything(at='all')",
        "from math import hypot\nhypot(3, 4)",
        "print('https://example.org/home/page', 'a/root/b', 'and/or')",
    ],
)
def test_rules_let_good_code_pass(lesson, source):
    notebook = notebooks.read(lesson)
    notebook.cells[3].source += f"\n{source}"
    if source.startswith("%%"):
        notebook.cells[3].source = source
    for rule in (
        rules.binds_every_name,
        rules.calls_what_is_installed,
        rules.tells_nothing_of_a_machine,
    ):
        assert list(rule(lesson, notebook)) == []


@pytest.mark.parametrize(
    "words",
    [
        "`[not](a_link)` and\n```\n[nor](this)\n```",
        "[itself](02_trial.ipynb#Adding), [web](https://example.org/x)",
        "![a rising line](attachment:line.png)",
    ],
)
def test_rules_let_good_text_pass(lesson, words):
    notebook = notebooks.read(lesson)
    notebook.cells[4].source = words
    assert list(rules.has_links_that_lead_somewhere(lesson, notebook)) == []
    assert list(rules.images_have_words(lesson, notebook)) == []
