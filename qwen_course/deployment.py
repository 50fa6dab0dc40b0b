"""Where a model runs: the platforms, what they are for, and which suits given needs.

One checkpoint, many programs. `platforms()` lists them, `choose` goes from needs to a
platform with reasons, `export` writes the files that one of them reads, and `stored()`
is what each of them did with the same pocket model on one machine.
"""

import functools
import importlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from qwen_course.datafiles import data_file, read_yaml
from qwen_course.errors import suggest
from qwen_course.tables import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USES = ("python", "app", "chat", "server")
HARDWARE = ("none", "cpu", "nvidia", "amd", "intel", "apple", "npu")
SYSTEMS = ("linux", "macos", "windows")
CROWDS = {"one": 1, "few": 16, "many": 1000}  # users at once, up to
OPERATIONS = {"none": 1, "some": 2, "team": 3}  # the effort that somebody can make
EFFORTS = {
    2: "somebody must choose its files and settings",
    3: "a team must look after it",
}

# Colours that a colour-blind reader can tell apart, and marks for everybody.
COLOURS = ("#D55E00", "#E69F00", "#009E73", "#0072B2", "#CC79A7", "#000000")
MARKS = "osD^vP*Xd<>h"

# Forms that `export` writes: the module that does it, and its usual precision.
FORMS = {
    "gguf": ("gguf_files", "q8_0"),
    "onnx": ("onnx", "int4"),
    "openvino": ("openvino", "q8_0"),
}


# The platforms


@dataclass(frozen=True)
class Platform:
    """A program that runs models, and what is to be known before choosing it."""

    id: str
    name: str
    purpose: str
    uses: tuple[str, ...]
    users: int
    hardware: tuple[str, ...]
    best_on: tuple[str, ...]
    systems: tuple[str, ...]
    effort: int
    weights: str
    commands: tuple[str, ...]
    trap: str
    source: str
    extra: str | None = None
    run: str | None = None
    leaves: bool = False

    def why_not(self) -> str | None:
        """Return why it does not run on this computer, or None when it does."""
        return self.module().why_not() if self.run else None

    def module(self) -> ModuleType:
        """Return the module of `qwen_course.platforms` that runs it.

        Raises ValueError for a platform that the course only describes.
        """
        if not self.run:
            raise ValueError(
                f"the course has no runner for {self.name}: {self.commands[0]}"
            )
        return importlib.import_module(f"qwen_course.platforms.{self.run}")


class Platforms(Table[Platform]):
    """Platforms, and what each is for."""

    columns = ("platform", "for", "users at once", "reads")
    noun = "platforms"

    def cells(self, item: Platform) -> Row:
        """Return the name, the purpose, the crowd and the form of the weights."""
        crowd = next(name for name, most in CROWDS.items() if most == item.users)
        return (item.name, item.purpose, crowd, item.weights)


def platforms() -> Platforms:
    """Return all platforms of the lesson, in its order.

    >>> [one.name for one in platforms()][:3]
    ['Transformers', 'transformers serve', 'vLLM']
    """
    return Platforms(_listed())


@functools.cache
def _listed() -> tuple[Platform, ...]:
    """Read the list once: a table of runs asks for a platform in each row."""
    entries = read_yaml("platforms")["platforms"]
    return tuple(_platform(name, entry) for name, entry in entries.items())


def _platform(name: str, entry: dict[str, Any]) -> Platform:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry.items()
    }
    fields["purpose"] = fields.pop("for")
    return Platform(id=name, **{**fields, "users": CROWDS[entry["users"]]})


def platform(name: str) -> Platform:
    """Return one platform by its id or its name.

    Raises ValueError, with the nearest name, for one that is not listed.

    >>> platform("llama.cpp").weights
    'gguf'
    """
    known = {one.id: one for one in platforms()}
    known |= {one.name: one for one in known.values()}
    if name not in known:
        ids = [one.id for one in platforms()]
        raise ValueError(
            f'platform "{name}" is not one of {", ".join(ids)}.{suggest(name, known)}'
        )
    return known[name]


def find(word: str) -> Platform | None:
    """Return the platform of an id or name in any capitals, or None.

    >>> find(" mlx ").name
    'MLX'
    """
    wanted = word.strip().lower()
    names = ((one, (one.id.lower(), one.name.lower())) for one in platforms())
    return next((one for one, both in names if wanted in both), None)


# From needs to a platform


@dataclass(frozen=True)
class Fit:
    """A platform that meets the needs, and why it stands where it stands."""

    platform: Platform
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Unfit:
    """A platform that fails a need."""

    platform: Platform
    reason: str


class Unfits(Table[Unfit]):
    """Platforms that fail a need, and which."""

    columns = ("platform", "ruled out because")
    noun = "ruled out"

    def cells(self, item: Unfit) -> Row:
        """Return the name and the reason."""
        return (item.platform.name, item.reason)


class Choices(Table[Fit]):
    """Platforms that meet the needs, the best first; `ruled_out` has the others."""

    columns = ("platform", "why")
    noun = "platforms meet the needs"

    def __init__(self, fits: Iterable[Fit] = ()) -> None:
        super().__init__(fits)
        self.ruled_out = Unfits()

    def why_not(self, one: Platform) -> str | None:
        """Return the need that a platform fails, or None when it meets all."""
        reasons = (out.reason for out in self.ruled_out if out.platform == one)
        return next(reasons, None)

    def cells(self, item: Fit) -> Row:
        """Return the name and the reasons."""
        return (item.platform.name, "; ".join(item.reasons))


def choose(
    use: str,
    users: int = 1,
    hardware: str = "cpu",
    system: str = "linux",
    operations: str = "some",
    private: bool = True,
) -> Choices:
    """Rank the platforms that meet your needs, and say why the others do not.

    `use` is "python" (a library), "app" (inside a program that others install), "chat"
    (a person types) or "server"; `users` counts those who ask at the same moment;
    `hardware` is what computes ("none": you own nothing that could); `operations` is
    who looks after it: "none", "some" or a "team". `private` True keeps every text on
    your machines.

    What meets all needs is ordered so that you can argue with it: made for this
    hardware first, then the less effort, then the order of `platforms()`.

    Raises ValueError for an unknown word and for users under 1.

    Example:
        choose("server", users=200, hardware="nvidia", operations="team")[0].platform
    """
    for word, known in ((use, USES), (hardware, HARDWARE), (system, SYSTEMS)):
        _check(word, known)
    _check(operations, tuple(OPERATIONS))
    if users < 1:
        raise ValueError(f"{users} users cannot ask; give the number at one moment.")
    found = Choices()
    for one in platforms():
        reason = _unfit(one, use, users, hardware, system, operations, private)
        if reason:
            found.ruled_out.append(Unfit(one, reason))
        else:
            found.append(Fit(one, _reasons(one, users, hardware)))
    found.sort(key=lambda fit: _rank(fit.platform, hardware))
    return found


def _check(word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        near = suggest(str(word), known)
        raise ValueError(f'"{word}" is not one of {", ".join(known)}.{near}')


def _unfit(
    one: Platform,
    use: str,
    users: int,
    hardware: str,
    system: str,
    operations: str,
    private: bool,
) -> str:
    """Return the first need that a platform fails, or an empty string."""
    if private and one.leaves:
        return "every text leaves your machines"
    if use not in one.uses:
        return f"made for {' and '.join(one.uses)}, not for {use}"
    if hardware not in one.hardware:
        return f"computes on {', '.join(one.hardware)}"
    if system not in one.systems:
        return f"runs on {', '.join(one.systems)}"
    if users > one.users:
        crowd = "one user" if one.users == 1 else f"some {one.users} users"
        return f"made for {crowd} at once"
    if one.effort > OPERATIONS[operations]:
        return EFFORTS[one.effort]
    return ""


def _reasons(one: Platform, users: int, hardware: str) -> tuple[str, ...]:
    reasons = [one.purpose]
    if hardware in one.best_on:
        reasons.append(f"made for {hardware}")
    if one.users >= 1000 and users > 1:
        reasons.append(f"{users} at once fit in its batches")
    if one.effort == 1:
        reasons.append("install and go")
    return tuple(reasons)


def _rank(one: Platform, hardware: str) -> tuple[bool, int]:
    return (hardware not in one.best_on, one.effort)


# Files for a platform


def export(
    model: str | Path,
    to: str,
    precision: str | None = None,
    folder: str | Path | None = None,
) -> Path:
    """Write a model in another form and return where it is.

    `to` is "gguf" (llama.cpp, Ollama, OpenVINO), "onnx" (ONNX Runtime GenAI, Foundry
    Local) or "openvino". `precision` None takes the form's usual one. Without `folder`
    it goes to the course's cache folder, and is written again only when something
    changed.

    Raises ValueError for an unknown form, precision or model; ImportError, with the
    line to type, when the form's packages are missing.

    Example:
        export("pocket-qwen3", "gguf", "q8_0")
    """
    if to not in FORMS:
        raise ValueError(
            f'"{to}" is not one of {", ".join(FORMS)}.{suggest(str(to), FORMS)}'
        )
    name, usual = FORMS[to]
    module = importlib.import_module(f"qwen_course.platforms.{name}")
    return module.export(model, precision or usual, folder=folder)


# What each platform did with the same model


@dataclass(frozen=True)
class Run:
    """What one platform did with the same questions, on one machine.

    `same` of `questions` greedy answers equal those of Transformers in fp32 to the
    last token. Speeds are medians in tokens a second, of one question after the other
    and of all at once; memory is the most that all processes together held, bytes;
    `ready_seconds` goes from the start of Python to the first answer.
    """

    platform: str
    form: str
    version: str
    questions: int = 0
    same: int = 0
    one: float = 0.0
    together: float = 0.0
    memory: int = 0
    disk: int = 0
    ready_seconds: float = 0.0
    not_run: str | None = None


class Runs(Table[Run]):
    """Platforms side by side, with the machine they ran on."""

    columns = (
        *("platform", "form", "same answers", "one by one", "all at once"),
        *("memory", "files", "ready"),
    )
    noun = "runs"

    def __init__(
        self, runs: Iterable[Run] = (), machine: dict[str, Any] | None = None
    ) -> None:
        super().__init__(runs)
        self.machine = machine or {}

    def __getitem__(self, index: Any) -> Any:
        chosen = super().__getitem__(index)
        if isinstance(chosen, Runs):
            chosen.machine = self.machine
        return chosen

    def cells(self, item: Run) -> Row:
        """Return name, form, agreement, both speeds, memory, size and start."""
        name = platform(item.platform).name
        if item.not_run:
            return (name, item.form, "not run here", *["-"] * 5)
        return (
            *(name, item.form, f"{item.same} of {item.questions}"),
            *(f"{item.one:,.0f}", f"{item.together:,.0f}"),
            *(f"{item.memory / 2**20:,.0f} MB", f"{item.disk / 1e6:.1f} MB"),
            f"{item.ready_seconds:.1f} s",
        )

    @property
    def why_not(self) -> dict[str, str]:
        """Why some did not run, by their names."""
        return {platform(r.platform).name: r.not_run for r in self if r.not_run}

    def of(self, *names: str) -> "Runs":
        """Return the runs of some platforms."""
        return Runs((run for run in self if run.platform in names), self.machine)

    def plot(self) -> "Figure":
        """Draw tokens a second against memory, one dot a run, both on log scales."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        ran = [run for run in self if not run.not_run]
        names = list(dict.fromkeys(run.platform for run in ran))
        for name, colour, mark in zip(names, COLOURS * 2, MARKS, strict=False):
            own = [run for run in ran if run.platform == name]
            memory = [run.memory / 2**20 for run in own]
            speed = [run.together for run in own]
            label = platform(name).name
            axes.plot(memory, speed, mark, color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="memory of all its processes, MB",
                 ylabel="tokens a second, 16 questions at once",
                 title="What is made to run models takes less memory")  # fmt: skip
        axes.grid(alpha=0.3, which="both")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
        return figure

    def save(self, path: Path) -> None:
        """Write the rows as JSON, with the machine."""
        rows = {"machine": self.machine, "runs": [asdict(run) for run in self]}
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def stored() -> Runs:
    """Return the rows that `python -m benchmarks.platforms` measured, all in one run.

    Speeds are of a pocket model on two CPU cores: they rank the programs' overhead, not
    what they do with 8 billion parameters on a GPU.
    """
    path = data_file("measured/platforms.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    return Runs((Run(**row) for row in content["runs"]), content["machine"])
