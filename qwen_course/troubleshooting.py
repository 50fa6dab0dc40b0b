"""What an error means and what to type: every message of the course, and others' too.

The entries lie in `data/troubleshooting/`, a file a topic. A test pairs them with the
messages that `raised` reads from the source, so that none is without an entry.
"""

import re
import sys
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

from qwen_course.datafiles import data_file, read_yaml

GAP = "…"  # in a message: what varies
LEAST = 10  # letters of a message that must be in a text, to be looked for inside it
LONGEST = 400  # characters that a gap stands for
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# The line in which Python says what went wrong, "ValueError: rank is 0; ...".
RAISED = re.compile(
    r"^[ \t]*(?:\w+\.)*(?:[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit)|Refused|"
    r"BadData|ServiceFull|ServiceClosed|CeilingTooLow|NotPlain|Unreadable)\b:[ \t]*",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Entry:
    """One thing that goes wrong: how it looks, why it comes, what to type.

    `messages` are the course's own, with "…" for what varies; `signs` are what other
    programs print. `room` says that a whole class may meet it.
    """

    title: str
    when: str
    why: str
    do: str
    topic: str = ""
    messages: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    room: bool = False

    @property
    def anchor(self) -> str:
        """The entry's name in a link.

        >>> Entry("The port is taken", "", "", "").anchor
        'the-port-is-taken'
        """
        return _slug(self.title)

    def __str__(self) -> str:
        parts = (self.title, f"When: {self.when}", f"Why: {self.why}", f"Do: {self.do}")
        return "\n".join(parts)

    __repr__ = __str__

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        html = f"<p><strong>{escape(self.title)}</strong></p>" + "".join(
            f"<p><em>{name}:</em> {_code(escape(text))}</p>"
            for name, text in (("When", self.when), ("Why", self.why), ("Do", self.do))
        )
        return {"text/plain": str(self), "text/html": html}


UNKNOWN = Entry(
    "No entry fits this",
    "A message comes from a package that the course uses, or from your own code.",
    "The page knows the course's own messages and the most frequent ones of others.",
    "Read the last line of the traceback first: it names the error. Then look for the "
    "last line above it that is in a cell of yours. `qwen-course doctor` looks for "
    "what is wrong with the computer. To ask for help send both, and the cell.",
)


def _code(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", text)


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


# Reading the entries


@cache
def entries() -> tuple[Entry, ...]:
    """Return all entries, by topic, in the order of the page."""
    return tuple(entry for name in _files() for entry in _entries(name))


def topics() -> dict[str, str]:
    """Return the topics in their order, and what each is about."""
    read = [read_yaml(f"troubleshooting/{name}") for name in _files()]
    return {one["topic"]: one["about"] for one in read}


def _files() -> list[str]:
    folder = data_file("catalog.yaml").parent / "troubleshooting"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _entries(name: str) -> list[Entry]:
    content = read_yaml(f"troubleshooting/{name}")
    lists = ("messages", "signs")
    return [
        Entry(
            **{**one, **{key: tuple(one.get(key, ())) for key in lists}},
            topic=content["topic"],
        )
        for one in content["entries"]
    ]


def entry_of() -> dict[str, Entry]:
    """Return the entry of each of the course's own messages."""
    return {text: entry for entry in entries() for text in entry.messages}


# Finding


def explain(error: BaseException | str | None = None) -> Entry:
    """Return the entry for an error, or for a text that holds its message.

    With nothing given it is the last error of this notebook or session. Where no entry
    fits, the one that says how to go on.

    Example:
        explain("rank is 0; give 1 or more.").do  ->  'Pass a number from 1 up, ...'
    """
    if error is None:
        error = getattr(sys, "last_value", None) or ""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return find(text) or UNKNOWN


def find(text: str) -> Entry | None:
    """Return the entry whose message a text holds; None when there is none.

    The text may be a traceback, or the end of a log: what stands behind the name of
    the last error counts first, then all of it. Of several that fit the one wins that
    says most.
    """
    text = COLOURS.sub("", text)
    last = RAISED.split(text)[-1]
    for where, whole in ((last, True), (last, False), (text, False)):
        where = _squeezed(where)
        said = [one for one in _said() if whole or one.letters >= LEAST]
        if fitting := [one for one in said if one.fits(where, whole)]:
            return max(fitting, key=lambda one: one.letters).entry
    return None


@dataclass(frozen=True)
class _Said:
    """A message or a sign: the texts between its gaps, and how many letters it has."""

    parts: tuple[str, ...]
    letters: int
    entry: Entry

    def fits(self, text: str, whole: bool) -> bool:
        """Return whether a text is this message, or holds it if not `whole`."""
        if not all(part in text for part in self.parts):  # spares most of the work
            return False
        between = f".{{0,{LONGEST}}}?"
        inner = between.join(map(re.escape, self.parts if whole else self._inner()))
        if whole:  # "Did you mean ...?" may stand behind it
            return bool(re.fullmatch(inner + r"\.?(?: .*)?", text))
        return bool(re.search(inner, text))

    def _inner(self) -> list[str]:
        """Return the parts without the gaps at both ends: around it stands more."""
        return GAP.join(self.parts).strip(f"{GAP} ").split(GAP)


@cache
def _said() -> tuple[_Said, ...]:
    return tuple(
        _Said(tuple(_squeezed(text).split(GAP)), len(re.sub(r"\W", "", text)), entry)
        for entry in entries()
        for text in (*entry.messages, *entry.signs)
    )


def _squeezed(text: str) -> str:
    return " ".join(text.split()).lower()


# The page


def page() -> str:
    """Return the page of the site in Markdown (MyST): contents, then every entry."""
    parts = [
        "# Troubleshooting\n",
        "Every message of the course stands here, with what it means and what to type, "
        "and so do the most frequent ones of other programs. In a terminal "
        '`qwen-course explain "THE MESSAGE"` finds the entry; in a notebook '
        "`qc.troubleshooting.explain()` explains the last error. `…` stands for what "
        "varies.\n",
        "".join(f"- [{topic}](#{_place(topic)})\n" for topic in topics()),
    ]
    for topic, about in topics().items():
        mine = [entry for entry in entries() if entry.topic == topic]
        parts.append(f"({_place(topic)})=\n## {topic}\n\n{about.strip()}\n")
        parts.append("".join(f"- [{one.title}](#{one.anchor})\n" for one in mine))
        parts += map(_section, mine)
    return "\n".join(parts)


def _place(topic: str) -> str:
    return f"trouble-{_slug(topic)}"


def _section(entry: Entry) -> str:
    said = "".join(f"- `` {text} ``\n" for text in (*entry.messages, *entry.signs))
    return (
        f"({entry.anchor})=\n### {entry.title}\n\n{said}\n{entry.when}\n\n"
        f"**Why.** {entry.why}\n\n**What to do.** {entry.do}\n"
    )


def for_teachers() -> str:
    """Return the short list for whoever stands in front of a class, in Markdown."""
    rows = "\n".join(
        f"- **{entry.title}.** {entry.do}" for entry in entries() if entry.room
    )
    return f"# What goes wrong in a room\n\n{rows}\n"
