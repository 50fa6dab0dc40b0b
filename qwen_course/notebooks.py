"""Run the lessons, write their outputs back, and check that they are clean.

A tool for the course's authors. Learners never need it.

    python -m qwen_course.notebooks run                         # every lesson
    python -m qwen_course.notebooks run notebooks/02_chat.ipynb
    python -m qwen_course.notebooks tidy                        # run, minus running
    python -m qwen_course.notebooks check                       # what the tests check
    python -m qwen_course.notebooks run solutions/02_chat.ipynb # writes nothing
"""

import argparse
import copy
import math
import os
import re
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qwen_course import __version__
from qwen_course.errors import suggest
from qwen_course.settings import PROGRESS_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "qwen-course/qwen-course"
TAG = f"v{__version__}"

BOOTSTRAP = f"""\
# Set-up: the same cell works in JupyterLab, in Google Colab and in the tests.
import importlib.util
import sys

if importlib.util.find_spec("qwen_course") is None:
    if "google.colab" not in sys.modules:
        raise ModuleNotFoundError('Start Jupyter with "python course.py".')
    %pip install -q "qwen-course @ git+https://github.com/{REPOSITORY}@{TAG}"

import qwen_course as qc

qc.about()"""

REQUIRED = ("title", "goals", "download", "gpu")
OPTIONAL = ("reading", "measured", "extra")
CELL_METADATA = ("alt", "jupyter", "qwen_course", "slideshow", "tags")
NOTEBOOK_METADATA = ("accelerator", "colab", "qwen_course")
KERNELSPEC = {
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "name": "python3",
}
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_TEXT = "(an interactive widget: run this cell to use it)"

Notebook = Any  # nbformat's NotebookNode: a dict whose keys are also attributes
Cell = Any


class LessonError(RuntimeError):
    """A lesson that cannot be run or written; the message names notebook and cell."""


@dataclass(frozen=True)
class Measured:
    """What one run of a lesson cost: wall `seconds` and the kernel's peak memory."""

    seconds: float
    memory_gb: float
    cores: int


# Reading and writing


def read(path: Path) -> Notebook:
    """Return the notebook in a file.

    Raises LessonError when the file is missing or is no notebook of format 4.5.
    """
    import nbformat

    if not path.is_file():
        raise LessonError(f"{path}: there is no such notebook.")
    try:
        # Not nbformat.read, which repairs: the rules would not see what is wrong.
        notebook = nbformat.reader.reads(path.read_text(encoding="utf-8"))
    except (ValueError, AttributeError, nbformat.ValidationError) as error:
        raise LessonError(f"{path.name} is not a notebook: {error}") from error
    version = (notebook.get("nbformat", 0), notebook.get("nbformat_minor", 0))
    if version < (4, 5):
        raise LessonError(
            f"{path.name} has notebook format {version[0]}.{version[1]}, which has no "
            "cell ids. Save it once in JupyterLab 4, then give its cells names."
        )
    return notebook


def write(path: Path, notebook: Notebook) -> bool:
    """Write a notebook if its text changes; return whether it did."""
    if is_stored(path, notebook):
        return False
    unfinished = path.with_suffix(".ipynb.part")
    unfinished.write_text(as_text(notebook), encoding="utf-8", newline="\n")
    unfinished.replace(path)
    return True


def is_stored(path: Path, notebook: Notebook) -> bool:
    """Return whether a file holds just the text of a notebook."""
    return path.is_file() and path.read_text(encoding="utf-8") == as_text(notebook)


def as_text(notebook: Notebook) -> str:
    """Return a notebook as its file holds it."""
    import nbformat

    return nbformat.v4.writes(notebook) + "\n"


def numbered(folder: Path) -> list[Path]:
    """Return the notebooks of a folder, in the order of their numbers."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def lessons(root: Path = ROOT) -> list[Path]:
    """Return the notebooks of `notebooks/`."""
    return numbered(root / "notebooks")


def exercises(root: Path = ROOT) -> list[Path]:
    """Return the notebooks of `solutions/`, then those of `exercises/`."""
    return numbered(root / "solutions") + numbered(root / "exercises")


def is_exercise(path: Path) -> bool:
    """Return whether a notebook is an exercise or a solution, and no lesson."""
    return path.parent.name in ("exercises", "solutions")


# The generated cells


def lesson_metadata(path: Path, notebook: Notebook) -> dict[str, Any]:
    """Return what the author wrote under `qwen_course` in the notebook's metadata.

    An author writes {"title": "Talk to Qwen", "goals": ["read a chat template"],
    "download": "0 MB", "gpu": "not needed"}; "reading" (such as "45 minutes") and
    "extra" (what Colab must install besides, such as "finetune") may be added, and
    `run` adds "measured".

    Raises LessonError for a missing, empty or unknown key.
    """
    metadata = dict(notebook.metadata.get("qwen_course", {}))
    for key in metadata:
        if key not in REQUIRED + OPTIONAL:
            raise LessonError(
                f"{path.name}: the metadata key qwen_course.{key} is not one of "
                f"{', '.join(REQUIRED + OPTIONAL)}.{suggest(key, REQUIRED + OPTIONAL)}"
            )
    for key in REQUIRED:
        if not metadata.get(key):
            raise LessonError(
                f'{path.name}: the metadata "qwen_course" has no "{key}". The header '
                f"cell is made from {', '.join(REQUIRED)}; add it to the notebook."
            )
    return metadata


def duration(seconds: float) -> str:
    """Say a run time the way a header does.

    >>> duration(40), duration(100)
    ('about 40 seconds', 'about 2 minutes')
    """
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    return f"about {math.ceil(seconds / 60)} minutes"


def colab_link(path: Path) -> str:
    """Return the address that opens a lesson of this release in Colab."""
    place = f"{REPOSITORY}/blob/{TAG}/{path.parent.name}/{path.name}"
    return f"https://colab.research.google.com/github/{place}"


def colab_badge(path: Path) -> str:
    """Return the Markdown of the button that opens a notebook in Colab."""
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({picture})]({colab_link(path)})"


def header_source(path: Path, notebook: Notebook) -> str:
    """Return the Markdown of a lesson's header: title, goals, and what it needs."""
    about = lesson_metadata(path, notebook)
    columns = {"Run time": "not measured", "Memory": "not measured"}
    if measured := about.get("measured"):
        columns["Run time"] = (
            f"{duration(measured['seconds'])} on {measured['cores']} CPU cores"
        )
        columns["Memory"] = f"{measured['memory_gb']:.1f} GB"
    columns |= {"Download": about["download"], "GPU": about["gpu"]}
    if "reading" in about:
        columns = {"Your time": about["reading"], **columns}
    return "\n".join(
        [
            f"# {path.stem[:2]} · {about['title']}",
            "",
            colab_badge(path),
            "",
            "**After this lesson you can**",
            "",
            *(f"- {goal}" for goal in about["goals"]),
            "",
            "| " + " | ".join(columns) + " |",
            "|" + " --- |" * len(columns),
            "| " + " | ".join(columns.values()) + " |",
            "",
            "Run time and memory were measured with the course's own small model,"
            " from starting Python to the last cell.",
        ]
    )


def generated_cells(path: Path, notebook: Notebook) -> tuple[Cell, Cell]:
    """Return the two cells that every notebook opens with, header and bootstrap."""
    from nbformat.v4 import new_code_cell, new_markdown_cell

    tags = {"tags": ["generated"]}
    source = header_source
    if is_exercise(path):
        from qwen_course.exercises.build import header_source as source
    header = new_markdown_cell(source(path, notebook), id="header", metadata=tags)
    tags = {"tags": ["bootstrap", "generated"]}
    return header, new_code_cell(
        bootstrap_source(notebook), id="bootstrap", metadata=tags
    )


def bootstrap_source(notebook: Notebook) -> str:
    """Return the first code cell; in Colab it installs the notebook's extra as well."""
    extra = notebook.metadata.get("qwen_course", {}).get("extra")
    return BOOTSTRAP.replace("qwen-course @", f"qwen-course[{extra}] @", bool(extra))


def with_generated_cells(path: Path, notebook: Notebook) -> Notebook:
    """Return a copy that opens with a fresh header and bootstrap cell.

    The outputs of a bootstrap cell whose source is unchanged are kept.
    """
    notebook = copy.deepcopy(notebook)
    header, bootstrap = generated_cells(path, notebook)
    own = []
    for cell in notebook.cells:
        if cell.id == "bootstrap" and cell.source == bootstrap.source:
            bootstrap.outputs = cell.outputs
            bootstrap.execution_count = cell.execution_count
        elif cell.id not in ("header", "bootstrap"):
            own.append(cell)
    notebook.cells = [header, bootstrap, *own]
    return notebook


# Cleaning

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
KERNEL_FILE = re.compile(r"[^\s\"'<>]*ipykernel_\d+[\\/]\d+\.py")
PROGRESS_LINE = re.compile(r"^.*\d+%\|.*\|.*\[\d+:\d\d<.*(\n|$)", re.MULTILINE)


def known_places() -> list[tuple[str, str]]:
    """Return folders of this machine with the words that stand for them in outputs."""
    python = {sysconfig.get_path(key) for key in ("purelib", "platlib", "stdlib")}
    places = [(str(ROOT) + os.sep, ""), (str(ROOT), ".")]
    places += [(str(folder), "...") for folder in python]
    places += [(sys.prefix, "..."), (tempfile.gettempdir(), "...")]
    places += [(str(Path.home()), "~")]
    # The longest first: a virtual environment often lies inside the repository.
    places = [place for place in places if len(place[0]) > 3]
    return sorted(places, key=lambda place: -len(place[0]))


def clean_text(text: str) -> str:
    r"""Take colour codes, progress bars and this machine's folders out of an output.

    >>> clean_text("\x1b[31mred\x1b[0m")
    'red'
    """
    text = KERNEL_FILE.sub("cell", ANSI.sub("", text))
    for folder, word in known_places():
        end = "" if folder.endswith(os.sep) else r"(?![\w-])"
        text = re.sub(rf"(?<![\w.-]){re.escape(folder)}{end}", word, text)
    return PROGRESS_LINE.sub("", text)


def clean_output(output: Cell, alt: str) -> Cell | None:
    """Return one output as it is stored, or None if nothing worth storing is left."""
    if output.output_type == "stream":
        output.text = clean_text(output.text)
        return output if output.text else None
    if output.output_type == "error":
        output.evalue = clean_text(output.evalue)
        output.traceback = [clean_text(line) for line in output.traceback]
        return output
    if WIDGET in output.data:
        return clean_widget(output)
    for mime, value in output.data.items():
        if mime.startswith("text/"):
            output.data[mime] = clean_text(value)
        if mime.startswith("image/") and alt:
            output.metadata[mime] = {**output.metadata.get(mime, {}), "alt": alt}
    return output


def clean_widget(output: Cell) -> Cell | None:
    """Return a widget's place as a sentence; a progress bar leaves nothing.

    A widget lives in the kernel. Stored in a file it shows as "model not found". One
    that brings a table to stand for it (`qc.widgets.panel`) is stored as that.
    """
    text = output.data.get("text/plain", "")
    if re.search(r"\d+%\||it/s", text):
        return None
    table = output.data.get("text/html")
    if table:
        output.data = {"text/html": clean_text(table), "text/plain": clean_text(text)}
    else:
        output.data = {"text/plain": WIDGET_TEXT}
    return output


def clean_cell(cell: Cell) -> None:
    """Strip one cell, in place, of what one run differs from the next in."""
    kept = {key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata}
    cell.metadata = type(cell.metadata)(kept)
    if cell.cell_type != "code":
        return
    stored = (clean_output(output, kept.get("alt", "")) for output in cell.outputs)
    cell.outputs = [output for output in stored if output is not None]


def clean(notebook: Notebook) -> Notebook:
    """Return a copy without timings, widget state, colour codes or machine paths.

    Cell ids, tags and outputs stay. Cleaning twice changes nothing more.
    """
    notebook = copy.deepcopy(notebook)
    node = type(notebook.metadata)
    kept = {
        key: notebook.metadata[key]
        for key in NOTEBOOK_METADATA
        if key in notebook.metadata
    }
    notebook.metadata = node(
        kept, kernelspec=node(KERNELSPEC), language_info=node(name="python")
    )
    for cell in notebook.cells:
        clean_cell(cell)
    return notebook


# Running


class PeakMemory(threading.Thread):
    """Watches one process and keeps the most memory it held, in bytes.

    Linux and Windows know a process's true peak; elsewhere, and for child processes,
    the highest of the samples, ten a second, counts.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._pid: int | None = None
        self._finished = threading.Event()

    def watch(self, pid: int) -> None:
        """Begin to watch the process `pid`; called again, look once more."""
        if self._pid is None:
            self._pid = pid
            self.start()
        self._look()

    def run(self) -> None:
        while not self._finished.wait(0.1):
            self._look()

    def _look(self) -> None:
        import psutil

        try:
            process = psutil.Process(self._pid)
            family = [process, *process.children(recursive=True)]
            now = sum(member.memory_info().rss for member in family)
            self.bytes = max(self.bytes, now, peak_of(process))
        except psutil.NoSuchProcess:
            pass  # it ended between two looks; what was seen stays

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finished.set()


def peak_of(process: Any) -> int:
    """Return the operating system's own record of a process's peak, in bytes, or 0."""
    status = Path(f"/proc/{process.pid}/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[1]) * 1024 if found else 0
    return getattr(process.memory_info(), "peak_wset", 0)


def this_interpreter() -> Any:
    """Return a kernel manager for the Python that runs this, whatever is installed.

    A notebook may name a kernel of somebody's machine; its name is not looked at.
    """
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class OnlyThisInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

    return AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=OnlyThisInterpreter()
    )


def kernel_environment(ipython_folder: str) -> dict[str, str]:
    """Return the variables a lesson runs with: this package, the default model, an
    empty progress, and none of the user's IPython start-up files."""
    environment = {**os.environ, "IPYTHONDIR": ipython_folder}
    environment[PROGRESS_VARIABLE] = str(Path(ipython_folder, "progress.json"))
    environment.pop("QWEN_COURSE_MODEL", None)
    paths = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def execute(
    path: Path, notebook: Notebook, timeout: int = 300
) -> tuple[Notebook, Measured]:
    """Run every cell in a fresh kernel; return the notebook with outputs, and the cost.

    `timeout` is in seconds, for one cell.

    Raises LessonError, with the notebook and the cell, for an exception in a cell that
    has no tag "raises-exception", a cell over the time, and a kernel that died.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    notebook, kernel = without_outputs(notebook), this_interpreter()
    current = ""
    with tempfile.TemporaryDirectory() as ipython_folder, PeakMemory() as peak:

        def look(cell: Cell, **_: Any) -> None:
            nonlocal current
            current = cell.id
            peak.watch(kernel.provisioner.pid)

        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=timeout,
            record_timing=False,
            coalesce_streams=True,
            store_widget_state=False,
            resources={"metadata": {"path": str(path.resolve().parent)}},
            on_cell_execute=look,
            on_cell_executed=look,
        )
        client.owns_km = True  # so that the kernel ends with the run
        began = time.perf_counter()
        try:
            client.execute(env=kernel_environment(ipython_folder))
        except (CellControlSignal, DeadKernelError) as error:
            reason = failure(error, timeout)
            raise LessonError(f'{path.name}, cell "{current}": {reason}') from error
        seconds = time.perf_counter() - began
    return notebook, Measured(seconds, peak.bytes / 1e9, os.cpu_count() or 1)


def failure(error: Exception, timeout: int) -> str:
    """Say in a sentence why a run ended."""
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {ANSI.sub('', error.evalue)}"
    if isinstance(error, DeadKernelError):
        return "the kernel died. Most often the memory was full."
    return f"not done after {timeout} seconds."


def without_outputs(notebook: Notebook) -> Notebook:
    """Return a copy whose code cells have neither outputs nor counts."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def settled(old: dict[str, Any] | None, new: Measured) -> dict[str, Any]:
    """Round new figures up, and keep each old one that is within a quarter of the new.

    Two runs of one lesson never take the same time; without this every run would
    change the file.

    >>> settled({"seconds": 40, "memory_gb": 0.8, "cores": 2}, Measured(35.2, 0.83, 2))
    {'seconds': 40, 'memory_gb': 0.8, 'cores': 2}
    """
    step = 10 if new.seconds < 90 else 60
    fresh = {
        "seconds": math.ceil(new.seconds / step) * step,
        "memory_gb": math.ceil(new.memory_gb * 10) / 10,
        "cores": new.cores,
    }
    if old is None or old.get("cores") != new.cores:
        return fresh
    for key, exact in (("seconds", new.seconds), ("memory_gb", new.memory_gb)):
        if key in old and abs(exact - old[key]) <= 0.25 * old[key]:
            fresh[key] = old[key]
    return fresh


def run(path: Path, timeout: int = 300) -> Measured:
    """Run one lesson from a clean kernel and write its outputs and header back.

    Returns what it cost. Nothing is written when a cell fails, and nothing to an
    exercise or a solution, which store no outputs.

    Raises LessonError as `execute` does, for metadata that lacks a key, and where a
    check of a solution is not right.
    """
    notebook = with_generated_cells(path, read(path))
    notebook, measured = execute(path, notebook, timeout)
    if is_exercise(path):
        stop_at_unexpected_checks(path, notebook)
        return measured
    about = notebook.metadata["qwen_course"]
    about["measured"] = settled(about.get("measured"), measured)
    write(path, clean(with_generated_cells(path, notebook)))
    return measured


def stop_at_unexpected_checks(path: Path, notebook: Notebook) -> None:
    """Raise LessonError unless a solution is right and an exercise is to do."""
    from qwen_course.exercises.rules import unexpected

    said = [unexpected(path, cell, cell.get("outputs", [])) for cell in notebook.cells]
    if found := list(filter(None, said)):
        raise LessonError("\n".join(found))


def tidy(path: Path) -> bool:
    """Write a lesson's header, bootstrap and metadata anew; return if it changed."""
    notebook = read(path)
    if is_exercise(path):
        notebook = without_outputs(notebook)
    return write(path, clean(with_generated_cells(path, notebook)))


# The command


def run_all(paths: Iterable[Path], timeout: int) -> None:
    for path in paths:
        print(f"{path.name}: running ...", flush=True)
        measured = run(path, timeout)
        print(
            f"{path.name}: {measured.seconds:.1f} s, "
            f"{measured.memory_gb:.2f} GB at its peak"
        )


def tidy_all(paths: Iterable[Path], timeout: int) -> None:
    for path in paths:
        print(f"{path.name}: {'written' if tidy(path) else 'as it was'}")


def check_all(paths: Iterable[Path], timeout: int) -> None:
    from qwen_course.notebook_rules import problems

    found = [problem for path in paths for problem in problems(path)]
    if found:
        raise LessonError("\n".join(found))
    print("The notebooks are clean.")


COMMANDS: dict[str, Callable[[Iterable[Path], int], None]] = {
    "run": run_all,
    "tidy": tidy_all,
    "check": check_all,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m qwen_course.notebooks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all lessons")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one cell")
    given = parser.parse_args(arguments)
    paths = given.notebooks or lessons()
    if given.command == "check" and not given.notebooks:
        paths += exercises()
    try:
        if not paths:
            raise LessonError(
                "There is no lesson in notebooks/. This tool works on a clone of the"
                " course: run it from there, or name a notebook."
            )
        COMMANDS[given.command](paths, given.timeout)
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
