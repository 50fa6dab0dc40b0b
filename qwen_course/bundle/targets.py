"""What a bundle can be for: the systems and Pythons that the course runs on."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_course import environment

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.tags import Tag


@dataclass(frozen=True)
class Platform:
    """A system: its name for people, its `sys.platform`, pip's names for its builds."""

    title: str
    system: str
    tags: tuple[str, ...]


PLATFORMS = {
    "linux": Platform(
        "Linux (x86-64, glibc 2.28 or newer: Debian 10, Ubuntu 20.04, RHEL 8)",
        "linux",
        # The build for the newest glibc comes first, as for pip on such a computer.
        tuple(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1))
        + ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
    ),
    "macos": Platform(
        "macOS 14 or newer, Apple silicon",
        "darwin",
        tuple(
            f"macosx_{major}_{minor}_{kind}"
            for major, minor in ((14, 0), (13, 0), (12, 0), (11, 0))
            for kind in ("arm64", "universal2")
        )
        + tuple(f"macosx_10_{minor}_universal2" for minor in range(16, 3, -1)),
    ),
    "windows": Platform("Windows 10 or newer, 64 bits", "win32", ("win_amd64",)),
}


@dataclass(frozen=True)
class Target:
    """A platform and a Python that a bundle is for.

    >>> Target("linux", "3.12").name
    'linux-3.12'
    """

    platform: str
    python: str

    @property
    def name(self) -> str:
        """Return the name that course.py looks for."""
        return f"{self.platform}-{self.python}"

    @functools.cached_property
    def tags(self) -> "frozenset[Tag]":
        """Return the tags of all wheels that can be installed there."""
        from packaging.tags import compatible_tags, cpython_tags

        major, minor = map(int, self.python.split("."))
        platforms = PLATFORMS[self.platform].tags
        pure = compatible_tags((major, minor), f"cp{major}{minor}", platforms)
        return frozenset([*cpython_tags((major, minor), None, platforms), *pure])

    def holds(self, requirement: "Requirement", extra: str = "") -> bool:
        """Say whether the marker of a requirement is true there."""
        if requirement.marker is None:
            return True
        return requirement.marker.evaluate({**self._values, "extra": extra})

    @functools.cached_property
    def _values(self) -> dict[str, str]:
        system = PLATFORMS[self.platform].system
        return environment.marker_environment(system, self.python)
