"""How large a set-up is, with and without each extra."""

import functools
import importlib.metadata

from qwen_course import environment, tables
from qwen_course.bundle.targets import Target
from qwen_course.bundle.wheels import direct_lines, reachable


class Sizes(tables.Table[tuple[str, int, int]]):
    """What each extra adds to a set-up: packages, and bytes on this computer."""

    columns = ("extra", "packages only it needs", "MB unpacked")
    noun = "lines"

    def cells(self, item: tuple[str, int, int]) -> tables.Row:
        """Return the texts of one row."""
        return item[0], f"{item[1]}", f"{item[2] / 1e6:,.0f}"


def sizes(target: Target) -> Sizes:
    """Return what leaving out each extra saves, measured on what is installed here."""

    def needed(extras: tuple[str, ...]) -> set[str]:
        lines = direct_lines(environment.ROOT, extras)
        return set(reachable(lines, target, environment.asked_by))

    every = needed(environment.EXTRAS)
    rows = [("all together", every)]
    for extra in environment.EXTRAS:
        others = tuple(one for one in environment.EXTRAS if one != extra)
        rows.append((extra, every - needed(others)))
    return Sizes((name, len(one), sum(map(installed_bytes, one))) for name, one in rows)


@functools.cache
def installed_bytes(name: str) -> int:
    """Return the bytes of a package's files as they are installed here, or 0."""
    try:
        paths = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return 0
    return sum(path.size or 0 for path in paths)
