"""Where the links of the repository lead in the site."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from qwen_course.notebooks import REPOSITORY, TAG

Resolve = Callable[[str], str]

BADGE = re.compile(r"\[!\[([^\]]*)\]\([^)]*\)\](?=\()")  # a picture that is a link
TARGET = re.compile(r"(?<=\]\()(?![a-z]+:)<?([^)\s>]+)>?")
CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
PICTURES = (".png", ".jpg", ".jpeg", ".svg", ".gif")
# What stands in the site for something that is no page of it.
INSTEAD = {
    "README.md": "index.md",
    "notebooks": "index.md",
    "exercises": "exercises.md",
    "workshop": "teachers.md",
}


def rewrite(text: str, resolve: Resolve) -> str:
    """Return Markdown whose relative links are resolved; code stays as it is.

    A badge, a picture on another machine, becomes its words.
    """
    words = BADGE.sub(r"[\1]", text)
    parts = CODE.split(words)  # the odd ones are code
    parts[::2] = [TARGET.sub(lambda m: resolve(m[1]), part) for part in parts[::2]]
    return "".join(parts)


def anchor(text: str) -> str:
    """Return the anchor of a heading: as on GitHub, also for one made by Jupyter.

    >>> anchor("Question-3-·-A-budget,-and-more"), anchor("Question 3 · A budget, and")
    ('question-3--a-budget-and-more', 'question-3--a-budget-and')
    """
    return re.sub(r"[^\w\- ]", "", unquote(text).lower()).replace(" ", "-")


@dataclass
class Resolver:
    """Resolves the links of one page, and notes the pictures that it shows.

    `page` and `shown`, the pages of the site, are paths within the repository `root`.
    """

    root: Path
    page: Path
    shown: frozenset[Path]
    pictures: set[Path] = field(default_factory=set)

    def resolve(self, target: str) -> str:
        """Return where a link of the page leads in the site.

        A file that is no page of the site is a link to the repository on the web. What
        does not exist stays as it is: then Sphinx names the page and the link.
        """
        path, mark, heading = target.partition("#")
        ending = mark + anchor(heading)
        if not path:
            return ending
        place = Path(os.path.normpath(self.page.parent / unquote(path)))
        if place / "README.md" in self.shown:
            place /= "README.md"
        place = Path(INSTEAD.get(place.as_posix(), place))
        if place in self.shown or place.as_posix() in INSTEAD.values():
            return self._from_here(place) + ending
        if place.suffix in PICTURES and (self.root / place).is_file():
            self.pictures.add(place)
            return self._from_here(place)
        if not (self.root / place).exists() or place.parts[:1] == ("..",):
            return target
        kind = "tree" if (self.root / place).is_dir() else "blob"
        address = f"https://github.com/{REPOSITORY}/{kind}/{TAG}"
        return f"{address}/{quote(place.as_posix())}{mark}{heading}"

    def _from_here(self, place: Path) -> str:
        return quote(Path(os.path.relpath(place, self.page.parent)).as_posix())
