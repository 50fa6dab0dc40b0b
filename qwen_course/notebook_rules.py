"""The rules that every notebook of the course keeps, each a function.

A rule takes the notebook's path and content and returns one sentence for each place
that breaks it. `tests/test_hygiene.py` tells why each rule is there.
"""

import ast
import contextlib
import functools
import getpass
import importlib
import inspect
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from qwen_course.errors import suggest
from qwen_course.exercises.rules import asks_as_every_exercise_does
from qwen_course.notebooks import (
    ANSI,
    KERNELSPEC,
    WIDGET,
    Cell,
    LessonError,
    Notebook,
    clean,
    generated_cells,
    is_exercise,
    known_places,
    read,
)

MAX_BYTES = 300_000
MAX_LINES = 25
MAX_COLUMNS = 88
MAX_MEDIAN_LINES = 8
MAX_CODE_CELLS_IN_A_ROW = 2
CELL_ID = re.compile(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
RANDOM_ID = re.compile(r"^(?=.*\d)[0-9a-f]{6,}(-[0-9a-f]+)*$|^[0-9a-f]{8}$")
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~>-])/(?:home|Users|root|tmp|var|opt|mnt|usr|srv|media|private|content)"
    r"/[\w.-]+|\b[A-Za-z]:\\{1,2}(?:Users|Windows|Program Files)\b"
)
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
SECRET = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|AKIA[A-Z0-9]{16}|xox[abp]-[A-Za-z0-9-]{10,})"
)
ORDINARY_USERS = {
    "admin", "codespace", "jovyan", "model", "nobody", "qwen", "root", "runner",
    "student", "ubuntu", "user", "vscode",
}  # fmt: skip
CHECKED_PACKAGES = ("qwen_course", "transformers", "torch", "peft", "trl")
LINK = re.compile(
    r"(!?)\[((?:[^\[\]]|\[[^\]]*\]\([^)]*\))*)\]\(\s*<?([^)\s>]+)>?[^)]*\)"
)

Rule = Callable[[Path, Notebook], Iterator[str]]


def where(path: Path, cell: Cell) -> str:
    """Name a cell: `02_chat.ipynb, cell "template-by-hand"`."""
    return f'{path.name}, cell "{cell.get("id", "?")}"'


def code_cells(notebook: Notebook) -> list[Cell]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def own_code_cells(notebook: Notebook) -> list[Cell]:
    """Return the code cells that an author wrote."""
    return [cell for cell in code_cells(notebook) if cell.id != "bootstrap"]


def output_texts(cell: Cell) -> Iterator[str]:
    """Yield every text among a cell's outputs."""
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join([output.evalue, *output.traceback])
        else:
            for value in output.data.values():
                yield value if isinstance(value, str) else json.dumps(value)


def tags(cell: Cell) -> list[str]:
    return cell.metadata.get("tags", [])


# The file


def is_valid(path: Path, notebook: Notebook) -> Iterator[str]:
    """Notebook format 4.5, as its schema says."""
    import nbformat

    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        version = f"{notebook.nbformat}.{notebook.nbformat_minor}"
        yield f"{path.name}: its notebook format is {version}, not 4.5."
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"{path.name}: {str(error).splitlines()[0]}"


def names_the_python3_kernel(path: Path, notebook: Notebook) -> Iterator[str]:
    """The kernelspec is the plain python3, and no version of Python is recorded."""
    if notebook.metadata.get("kernelspec") != KERNELSPEC:
        spec = dict(notebook.metadata.get("kernelspec", {}))
        yield f"{path.name}: its kernelspec is {spec}, not {KERNELSPEC['name']}."
    if notebook.metadata.get("language_info") != {"name": "python"}:
        yield f'{path.name}: language_info holds more than {{"name": "python"}}.'


def has_named_cells(path: Path, notebook: Notebook) -> Iterator[str]:
    """Every cell id is unique and says what the cell does."""
    seen = set()
    for position, cell in enumerate(notebook.cells):
        if cell.id in seen:
            yield f"{where(path, cell)}: an earlier cell has the same id."
        if not CELL_ID.match(cell.id) or RANDOM_ID.match(cell.id):
            yield (
                f"{where(path, cell)} (number {position} in the file): the id is no "
                'name. Use small letters and hyphens, such as "template-by-hand".'
            )
        seen.add(cell.id)


def is_small(path: Path, notebook: Notebook) -> Iterator[str]:
    """No file over 300 kB."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        largest = max(notebook.cells, key=lambda cell: len(json.dumps(cell)))
        yield (
            f"{path.name}: {size / 1000:.0f} kB, more than {MAX_BYTES / 1000:.0f} kB. "
            f'The largest cell is "{largest.id}".'
        )


def has_no_traces_of_a_run(path: Path, notebook: Notebook) -> Iterator[str]:
    """No timing, widget state or front-end metadata, no colour code in an output."""
    if "widgets" in notebook.metadata:
        yield f"{path.name}: it stores widget state."
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "colab"):
            if key in cell.metadata:
                yield f"{where(path, cell)}: it stores the metadata {key}."
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                yield f"{where(path, cell)}: it stores the view of a widget."
        if any(ANSI.search(text) for text in output_texts(cell)):
            yield f"{where(path, cell)}: an output holds colour codes."


def is_as_the_tool_writes_it(path: Path, notebook: Notebook) -> Iterator[str]:
    """Cleaning the notebook changes nothing."""
    cleaned = clean(notebook)
    pairs = zip(notebook.cells, cleaned.cells, strict=True)
    changed = [where(path, before) for before, after in pairs if before != after]
    if notebook.metadata != cleaned.metadata:
        changed.append(f"{path.name}, its metadata")
    for place in changed:
        yield f'{place}: not clean. Type "python -m qwen_course.notebooks tidy".'


def opens_with_the_generated_cells(path: Path, notebook: Notebook) -> Iterator[str]:
    """Header and bootstrap are the first two cells and what the generator makes."""
    try:
        generated = generated_cells(path, notebook)
    except LessonError as error:
        yield str(error)
        return
    for position, expected in enumerate(generated):
        cell = notebook.cells[position] if position < len(notebook.cells) else None
        same = cell is not None and all(
            cell.get(key) == expected[key] for key in ("id", "cell_type", "source")
        )
        if not same:
            yield (
                f'{path.name}: cell {position} is not the generated "{expected.id}". '
                'Type "python -m qwen_course.notebooks tidy".'
            )
    if is_exercise(path):
        return
    if "measured" not in notebook.metadata["qwen_course"]:
        yield f'{path.name}: not measured. Type "python -m qwen_course.notebooks run".'


# What it gives away


def tells_nothing_of_a_machine(path: Path, notebook: Notebook) -> Iterator[str]:
    """No absolute path, user name or memory address, in sources or outputs."""
    places = [place.rstrip("/\\") for place, _ in known_places()]
    ours = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, places))})(?![\w-])")
    for cell in notebook.cells:
        for text in (cell.source, *output_texts(cell)):
            for found in [*ours.finditer(text), *MACHINE_PATH.finditer(text)]:
                yield f"{where(path, cell)}: the path {found[0]} of one machine."
        for text in output_texts(cell):
            if address := ADDRESS.search(text):
                yield f"{where(path, cell)}: the output holds an object {address[0]}."
            if (name := user_name()) and re.search(rf"\b{re.escape(name)}\b", text):
                yield f"{where(path, cell)}: the output holds the user name {name}."


def user_name() -> str:
    """Return the user's name where it is one that no sentence would hold, else ''."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return ""
    return name if len(name) > 3 and name.lower() not in ORDINARY_USERS else ""


def holds_no_secret(path: Path, notebook: Notebook) -> Iterator[str]:
    """Nothing that looks like an access token."""
    for cell in notebook.cells:
        for text in (cell.source, *output_texts(cell)):
            for found in SECRET.finditer(text):
                yield f"{where(path, cell)}: {found[0][:7]}... looks like a token."


# Outputs


def was_run_from_top_to_bottom(path: Path, notebook: Notebook) -> Iterator[str]:
    """A lesson's counts are 1, 2, 3 ...; exercises and solutions store no outputs."""
    if is_exercise(path):
        for cell in code_cells(notebook):
            if cell.outputs or cell.execution_count is not None:
                yield f"{where(path, cell)}: it stores outputs or a count."
        return
    expected = 1
    for cell in code_cells(notebook):
        if not cell.source.strip() or "skip-execution" in tags(cell):
            continue
        if cell.execution_count != expected:
            count = cell.execution_count
            yield f"{where(path, cell)}: its count is {count}, not {expected}."
        expected += 1


def has_errors_only_where_announced(path: Path, notebook: Notebook) -> Iterator[str]:
    """An error output stands in a cell tagged raises-exception, and the reverse."""
    for cell in code_cells(notebook):
        errors = [out.ename for out in cell.outputs if out.output_type == "error"]
        announced = "raises-exception" in tags(cell)
        if errors and not announced:
            yield f"{where(path, cell)}: it ended in {errors[0]}."
        if announced and not errors and cell.execution_count is not None:
            yield f"{where(path, cell)}: tagged raises-exception, but nothing failed."


def images_have_words(path: Path, notebook: Notebook) -> Iterator[str]:
    """Every picture has alt text, and text follows a plotted one.

    In Markdown: ![what it shows](file). For a plot: the cell's metadata key "alt".
    """
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            yield from (
                f"{where(path, cell)}: the picture {target} has no alt text."
                for target in pictures_without_words(cell.source)
            )
            continue
        if not any("image/" in str(list(o.get("data", {}))) for o in cell.outputs):
            continue
        if not cell.metadata.get("alt", "").strip():
            yield f'{where(path, cell)}: it draws, and has no metadata "alt".'
        after = notebook.cells[position + 1 : position + 2]
        if not after or after[0].cell_type != "markdown":
            yield f"{where(path, cell)}: no text after the picture says what it shows."


def pictures_without_words(markdown: str) -> list[str]:
    """Return the targets of pictures, Markdown or HTML, that have no alt text."""
    text = without_code(markdown)
    bare = re.findall(r"!\[\s*\]\(([^)]*)\)", text)
    for tag in re.findall(r"<img\b[^>]*>", text):
        if not re.search(r"alt=[\"'][^\"']*\w", tag):
            bare.append(tag)
    return bare


# Rhythm


def has_short_cells(path: Path, notebook: Notebook) -> Iterator[str]:
    """No code cell over 25 lines, no line over 88 columns, half of the cells up to 8.

    Empty lines count for nothing.
    """
    lengths = []
    for cell in own_code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        lengths.append(len(lines))
        if len(lines) > MAX_LINES:
            yield f"{where(path, cell)}: {len(lines)} lines, more than {MAX_LINES}."
        for line in lines:
            if len(line) > MAX_COLUMNS:
                yield f"{where(path, cell)}: {len(line)} columns: {line[:40]} ..."
    if lengths and statistics.median(lengths) > MAX_MEDIAN_LINES:
        yield (
            f"{path.name}: half of its code cells have more than {MAX_MEDIAN_LINES} "
            f"lines (median {statistics.median(lengths):g})."
        )


def has_text_between_code(path: Path, notebook: Notebook) -> Iterator[str]:
    """At most two code cells follow each other without a sentence."""
    in_a_row = 0
    for cell in notebook.cells:
        in_a_row = in_a_row + 1 if cell.cell_type == "code" else 0
        if in_a_row > MAX_CODE_CELLS_IN_A_ROW:
            yield f"{where(path, cell)}: {in_a_row} code cells without text between."


# Code


def python_source(cell: Cell) -> str:
    """Return a cell's code with magics and shell lines replaced by `pass`.

    Kept as long as before, so that line numbers stay.
    """
    if cell.source.lstrip().startswith("%%"):
        return "pass"
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)


def binds_every_name(path: Path, notebook: Notebook) -> Iterator[str]:
    """Every name a cell uses was bound by that cell or an earlier one (ruff F821)."""
    sources = [python_source(cell) for cell in code_cells(notebook)]
    owners = [
        (cell, line)
        for cell, source in zip(code_cells(notebook), sources, strict=True)
        for line in range(1, source.count("\n") + 2)
    ]
    for message in ruff_messages("\n".join(sources)):
        cell, line = owners[min(message["location"]["row"], len(owners)) - 1]
        yield f"{where(path, cell)}, line {line}: {message['message']}."


@functools.cache
def ruff_messages(source: str) -> list[dict[str, Any]]:
    """Return what ruff says about undefined names and bad syntax in Python source."""
    command = [
        sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache",
        "--select=F821,F823", "--target-version=py311", "--output-format=json",
        "--stdin-filename=lesson.py", "-",
    ]  # fmt: skip
    done = subprocess.run(
        command, input=source, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode not in (0, 1):
        raise LessonError(f"ruff could not run: {done.stderr.strip()}")
    return json.loads(done.stdout)


def calls_what_is_installed(path: Path, notebook: Notebook) -> Iterator[str]:
    """Every function used exists, and takes the arguments it is given.

    Looks at names that lead, through the notebook's imports, into the course's package
    and the libraries it teaches. Values of variables are not known, so their methods
    are not looked at.
    """
    parsed = [(cell, parse(cell)) for cell in code_cells(notebook)]
    imports: dict[str, str] = {}
    for cell, tree in parsed:
        import_modules(tree)
        imports |= imported_names(tree)
        for name in assigned_names(tree):
            imports.pop(name, None)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Name):
                problem = missing(dotted(node, imports))
            elif isinstance(node, ast.Call):
                problem = misfit(node, dotted(node.func, imports))
            else:
                continue
            if problem:
                yield f"{where(path, cell)}, line {node.lineno}: {problem}"


def parse(cell: Cell) -> ast.Module:
    """Return a cell's syntax tree; an empty one when `binds_every_name` complains."""
    try:
        return ast.parse(python_source(cell))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Return what each name that a cell imports stands for.

    `import qwen_course as qc` gives {"qc": "qwen_course"}; `from transformers import
    AutoTokenizer` gives {"AutoTokenizer": "transformers.AutoTokenizer"}.
    """
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def assigned_names(tree: ast.Module) -> set[str]:
    """Return every name that a cell binds other than by an import."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def dotted(node: ast.expr, imports: dict[str, str]) -> str | None:
    """Return the full name an expression such as `qc.tasks.sums` stands for, or None.

    None also for a name outside the packages that are looked at.
    """
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in imports:
        return None
    name = ".".join([imports[node.id], *attributes])
    return name if name.split(".")[0] in CHECKED_PACKAGES else None


def import_modules(tree: ast.Module) -> None:
    """Import the modules that a cell imports, as running it would, where it can be."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        if name.split(".")[0] in CHECKED_PACKAGES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


@functools.cache
def resolve(name: str) -> Any:
    """Return the object that a dotted name stands for.

    Raises AttributeError when it does not exist, ImportError when its package is not
    installed.
    """
    root, *attributes = name.split(".")
    return functools.reduce(getattr, attributes, importlib.import_module(root))


def missing(name: str | None) -> str | None:
    """Return a sentence when a name does not exist in the installed packages."""
    try:
        if name:
            resolve(name)
    except AttributeError:
        return f"{name} does not exist in the installed version."
    except ImportError:
        return None  # an optional package; the lesson itself says how to add it
    return None


def misfit(call: ast.Call, name: str | None) -> str | None:
    """Return a sentence when a call's arguments do not fit the installed signature."""
    if name is None or missing(name):
        return None
    try:
        if inspect.ismodule(resolve(name)):
            return f"{name} is a module, which cannot be called."
        signature = inspect.signature(resolve(name))
    except (ImportError, TypeError, ValueError):
        return None  # not installed, or written in C without a signature
    keywords = {word.arg: None for word in call.keywords if word.arg is not None}
    if unknown := unknown_keyword(signature, list(keywords)):
        return f"{name}(...): {unknown}"
    positional = [None for v in call.args if not isinstance(v, ast.Starred)]
    complete = len(positional) + len(keywords) == len(call.args) + len(call.keywords)
    try:
        bind = signature.bind if complete else signature.bind_partial
        bind(*positional, **keywords)
    except TypeError as error:
        return f"{name}(...): {error}."
    return None


def unknown_keyword(signature: inspect.Signature, keywords: list[str]) -> str | None:
    """Return a sentence for the first keyword that a signature has no place for."""
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    for keyword in keywords:
        if keyword not in signature.parameters:
            near = suggest(keyword, signature.parameters)
            return f'there is no argument "{keyword}".{near}'
    return None


# Links


def without_code(markdown: str) -> str:
    """Return Markdown without fenced blocks and `code`, where brackets are no links."""
    text = re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(notebook: Notebook) -> set[str]:
    """Return what a link can point at: headings as JupyterLab names them, and ids."""
    found = set()
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.M | re.S)
        for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
            found.add(re.sub(r"[`*]", "", heading).replace(" ", "-"))
        found |= set(re.findall(r"<\w+[^>]*\b(?:id|name)=[\"']([^\"']+)", text))
    return found


def has_links_that_lead_somewhere(path: Path, notebook: Notebook) -> Iterator[str]:
    """Every link to a file or a heading of the course finds it."""
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for target in link_targets(cell.source):
            if problem := broken(path, notebook, target):
                yield f"{where(path, cell)}: the link {target} {problem}."


def link_targets(markdown: str) -> list[str]:
    """Return the targets of all links and pictures, those inside a link's text too."""
    targets = []
    for match in LINK.finditer(without_code(markdown)):
        targets.append(match[3])
        targets += link_targets(match[2])
    return targets


def broken(path: Path, notebook: Notebook, target: str) -> str | None:
    """Say what is wrong with a link from the notebook at `path`, or return None."""
    if re.match(r"^(https?|mailto|attachment):", target):
        return None
    file, _, anchor = target.partition("#")
    there = (path.parent / unquote(file)).resolve() if file else path
    if Path(file).is_absolute() or not there.exists():
        return "leads to no file"
    if anchor and there.suffix == ".ipynb":
        known = anchors(read(there) if file else notebook)
        if unquote(anchor) not in known:
            return "names a heading that is not there"
    return None


RULES: tuple[Rule, ...] = (
    is_valid,
    names_the_python3_kernel,
    has_named_cells,
    is_small,
    has_no_traces_of_a_run,
    is_as_the_tool_writes_it,
    opens_with_the_generated_cells,
    asks_as_every_exercise_does,
    tells_nothing_of_a_machine,
    holds_no_secret,
    was_run_from_top_to_bottom,
    has_errors_only_where_announced,
    images_have_words,
    has_short_cells,
    has_text_between_code,
    binds_every_name,
    calls_what_is_installed,
    has_links_that_lead_somewhere,
)


def problems(path: Path) -> list[str]:
    """Return a sentence for every place where a notebook breaks a rule."""
    notebook = read(path)
    return [problem for rule in RULES for problem in rule(path, notebook)]
