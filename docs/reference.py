"""The pages of the reference: one for each module that a lesson or `qc` uses."""

import importlib
import importlib.util
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import qwen_course as qc
from qwen_course.notebooks import ROOT, numbered, read

FROM = re.compile(r"^from (qwen_course[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
ATTRIBUTE = re.compile(r"\bqc\.(\w+)(?:\.(\w+))?")
LATER = ("PerformanceMetrics", "QwenMonitor", "QwenService", "SecureQwenService")
PAGE = """\
# {name}

{used}

```{{eval-rst}}
.. automodule:: {module}
   :members:
```
"""


def names_used(source: str) -> Iterator[tuple[str, str]]:
    """Yield (package, name) for each name of the course in some code.

    >>> list(names_used("from qwen_course.tools import calculator as c\\nqc.load()"))
    [('qwen_course.tools', 'calculator'), ('qwen_course', 'load')]
    """
    for package, names in FROM.findall(source):
        for name in filter(str.strip, names.strip("()").split(",")):
            yield package, name.split()[0]
    for first, second in ATTRIBUTE.findall(source):
        yield "qwen_course", first
        if first == "tasks" and second:
            yield "qwen_course.tasks", second


def module_of(package: str, name: str) -> str:
    """Return the module in which a name is defined: itself, if it is a module.

    >>> module_of("qwen_course", "load"), module_of("qwen_course", "memory")
    ('qwen_course.loading', 'qwen_course.memory')
    """
    imported = importlib.import_module(package)
    if hasattr(imported, "__path__") and importlib.util.find_spec(f"{package}.{name}"):
        return f"{package}.{name}"
    place = getattr(getattr(imported, name), "__module__", "")
    return place if place.startswith("qwen_course") else package


@cache
def modules() -> dict[str, list[str]]:
    """Return the modules of the reference, each with the lessons that use it.

    A lesson is named by its file: {"qwen_course.memory": ["01_family.ipynb", ...]}.
    """
    found = defaultdict(list)
    for name in (*qc.__all__, *LATER):
        found[module_of("qwen_course", name)] = []
    for path in numbered(ROOT / "notebooks"):
        cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
        names = set(names_used("\n".join(cell.source for cell in cells)))
        for module in sorted({module_of(*name) for name in names} - {"qwen_course"}):
            found[module].append(path.name)
    return dict(sorted(found.items()))


def short(module: str) -> str:
    """Return the name of a module within the course: "tasks.sums"."""
    return module.removeprefix("qwen_course.")


def written() -> dict[str, str]:
    """Return the text of each module's page by its file."""
    return {
        f"reference/{short(module)}.md": PAGE.format(
            name=short(module), module=module, used=used_in(lessons)
        )
        for module, lessons in modules().items()
    }


def used_in(lessons: list[str]) -> str:
    """Say which lessons use a module, each a link, or nothing.

    >>> used_in(["02_chat.ipynb"])
    'Used in lesson [02](../notebooks/02_chat.ipynb).'
    """
    if not lessons:
        return ""
    links = ", ".join(f"[{name[:2]}](../notebooks/{name})" for name in lessons)
    return f"Used in lesson{'s' if len(lessons) > 1 else ''} {links}."


def modules_table() -> str:
    """Return a Markdown table of the modules, each with its first sentence."""
    lines = ["| module | what it holds |", "|---|---|"]
    for module in modules():
        link = f"[{short(module)}](reference/{short(module)}.md)"
        lines.append(f"| {link} | {first_sentence(importlib.import_module(module))} |")
    return "\n".join(lines)


def names_table() -> str:
    """Return a Markdown table of the functions and classes of `qc`."""
    lines = ["| name | what it does |", "|---|---|"]
    for name in sorted((*qc.__all__, *LATER), key=str.lower):
        thing = getattr(qc, name)
        if not inspect.ismodule(thing):
            role = "class" if inspect.isclass(thing) else "func"
            target = f"{thing.__module__}.{name}"
            link = f"{{py:{role}}}`qc.{name} <{target}>`"
            lines.append(f"| {link} | {first_sentence(thing)} |")
    return "\n".join(lines)


def first_sentence(thing: object) -> str:
    """Return the first line of a docstring, fit for a cell of a table."""
    return (inspect.getdoc(thing) or "").splitlines()[0].replace("|", r"\|")
