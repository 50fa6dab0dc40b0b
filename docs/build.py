"""Build the course's site from the notebooks as they were run.

    python -m docs.build                       # into docs/_build/html
    python -m docs.build --out DIR --fresh

No cell is run, and neither the build nor a reader needs the network. The pages are
gathered in `docs/_build/source`, each where it lies in the repository, so that links
between them lead where they lead there.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from sphinx.cmd.build import build_main

from docs import links, pages, reference
from qwen_course.notebooks import ROOT, Notebook, as_text, numbered, read

DOCS = ROOT / "docs"
# Folders whose Markdown the site shows as it is.
SHOWN = ("workshop", "training", "qwen_course/models", "qwen_course/data/adapters")


def documents(root: Path = ROOT) -> list[Path]:
    """Return the files that become pages, besides those of `docs/`, by their place.

    Solutions do not: a learner's search would find them.
    """
    found = [*numbered(root / "notebooks"), *numbered(root / "exercises")]
    for folder in SHOWN:
        found += sorted((root / folder).rglob("*.md"))
    return [path.relative_to(root) for path in found]


def prepared(notebook: Notebook, resolve: links.Resolve) -> Notebook:
    """Return a notebook for the site: links resolved, pictures with their words.

    The set-up cell is folded: it says nothing to somebody who reads.
    """
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = links.rewrite(cell.source, resolve)
        if alt := cell.metadata.get("alt"):
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
        if cell.id == "bootstrap":
            cell.metadata["tags"] = ["hide-cell"]
    notebook.metadata["language_info"]["pygments_lexer"] = "ipython3"  # "!" and "%"
    return notebook


def gather(source: Path, root: Path = ROOT) -> None:
    """Write everything that Sphinx reads into `source`, and leave nothing else there.

    A file that is there with the same content keeps its date: Sphinx reads it from its
    cache.
    """
    shown = documents(root)
    files: dict[str, str | bytes] = dict(reference.written())
    data = pages.data(shown)
    jinja = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    for page in DOCS.glob("*.md"):
        text = jinja.from_string(page.read_text(encoding="utf-8")).render(data)
        files[page.name] = text
    for path in shown:
        resolver = links.Resolver(root, path, frozenset(shown))
        if path.suffix == ".ipynb":
            text = as_text(prepared(read(root / path), resolver.resolve))
        else:
            words = (root / path).read_text(encoding="utf-8")
            text = links.rewrite(words, resolver.resolve)
        files[path.as_posix()] = text
        for picture in resolver.pictures:
            files[picture.as_posix()] = (root / picture).read_bytes()
    files["lesson.png"] = (DOCS / "lesson.png").read_bytes()
    write_all(source, files)


def write_all(folder: Path, files: dict[str, str | bytes]) -> None:
    """Make a folder hold these files and no others; unchanged ones are not touched."""
    for name, content in files.items():
        path = folder / name
        data = content.encode("utf-8") if isinstance(content, str) else content
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()


def build(out: Path, fresh: bool = False) -> int:
    """Build the site into `out`/html; return Sphinx's exit status.

    Every warning is an error, as a link that leads nowhere is; all of them are shown.
    """
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    source, html = out / "source", out / "html"
    gather(source)
    options = ["--builder=html", f"--conf-dir={DOCS}", f"--doctree-dir={out}/doctrees"]
    options += ["--quiet", "--fail-on-warning", "--keep-going"]
    return build_main([*options, str(source), str(html)])


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.build", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=DOCS / "_build", help="folder")
    parser.add_argument("--fresh", action="store_true", help="forget earlier builds")
    given = parser.parse_args(None if arguments is None else list(arguments))
    status = build(given.out.resolve(), given.fresh)
    if status:
        print("The site was not built: see the lines above.", file=sys.stderr)
        return status
    print(f"The site is built. Open {given.out / 'html' / 'index.html'} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
