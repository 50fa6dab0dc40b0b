"""The open weights of the Qwen family as data: what exists, how large, on which terms.

The facts are in `data/catalog.yaml` and `data/sampling.yaml`, each with its source;
`None` means that no source gave the fact. Nothing here loads or downloads a model, and
the course's own pocket models are not listed: `qc.load` knows those.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

from qwen_course.checkpoint import Checkpoint, Shape
from qwen_course.datafiles import read_yaml
from qwen_course.errors import suggest
from qwen_course.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qwen_course.choosing import Recommendation


@dataclass(frozen=True)
class Series:
    """One step of the family: when it began, which sizes it has, what was new."""

    name: str
    generation: str
    first_released: str | None
    sizes: tuple[str, ...]
    new: str
    sources: tuple[str, ...]


class Catalog(Table[Checkpoint]):
    """Checkpoints, oldest first."""

    columns = ("id", "released", "parameters", "context", "licence", "thinking")
    noun = "checkpoints"

    def cells(self, item: Checkpoint) -> tuple[str, ...]:
        """Return the id, the date and the four facts that decide a choice."""
        active = item.published_active_billions
        size = f"{item.published_billions:g}B"
        size += f", {active:g}B active" if active else ""
        spans = (item.native_context_tokens, item.extended_context_tokens)
        context = " to ".join(_tokens(n) for n in spans if n)
        known = (item.released, size, context, item.licence, item.thinking)
        return (item.id, *(text or "unknown" for text in known))

    def plot(self, named: Iterable[str] = ()) -> "Figure":
        """Draw the family in time: release against parameters, a dot a checkpoint.

        Squares are mixtures of experts. `named` are the checkpoints to label.
        Checkpoints without a known date are left out.

        Example:
            models().plot(named=["Qwen-7B", "Qwen3.8-2.4T-A95B"])
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.5, 3.8), layout="constrained")
        axes = figure.subplots()
        for label, colour in _COLOURS.items():
            for marker, mixture in (("o", False), ("s", True)):
                shown = [c for c in self if _group(c) == label and c.is_moe == mixture]
                points = [_point(c) for c in shown if c.released]
                days: list[Any] = [day for day, _ in points]
                axes.scatter(days, [size for _, size in points],
                             s=26, c=colour, marker=marker,
                             label=None if mixture else label)  # fmt: skip
        axes.scatter([], [], c="grey", marker="s", s=26, label="square: mixture")
        dated = [c.total_parameters / 1e9 for c in self if c.released] or [0]
        axes.set(xlabel="release", ylabel="parameters (billions)", yscale="log",
                 ylim=(0.25, 6000), title=f"From {min(dated):.1f} to {max(dated):,.0f} "
                 "billion parameters")  # fmt: skip
        ticks = [0.5, 1, 3, 10, 30, 100, 300, 1000]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.legend(loc="upper left", fontsize=8)
        axes.margins(x=0.09)  # room for the names at both ends
        for checkpoint in map(get, named):
            axes.annotate(checkpoint.name.removesuffix("-Instruct"),
                          _point(checkpoint), (0, 5), textcoords="offset points",
                          ha="center", fontsize=8)  # fmt: skip
        return figure


class Timeline(Table[Series]):
    """The series of the family, oldest first; those without a known date stand last."""

    columns = ("series", "first release", "sizes", "what was new")
    noun = "series"

    def cells(self, item: Series) -> tuple[str, ...]:
        """Return the name, the date, the sizes and what the series brought."""
        sizes = ", ".join(item.sizes)
        return (item.name, item.first_released or "unknown", sizes, item.new)


class Sampling(dict[str, Any]):
    """Arguments for `model.generate`, with their origin as attributes.

    `presence_penalty` stands apart: servers take it, `generate` refuses it. It is None
    where no value was found. `status` is "verified", "card copy" or "secondary".
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(entry["generate"])
        self.task: str = entry["task"]
        self.presence_penalty: float | None = entry["presence_penalty"]
        self.status: str = entry["status"]
        self.source: str = entry["source"]
        self.note: str | None = entry["note"]


def models(
    series: str | None = None,
    kind: str | None = None,
    thinking: str | None = None,
    modality: str | None = None,
    licence: str | None = None,
) -> Catalog:
    """Return the checkpoints that match every filter given; upper or lower case.

    Raises ValueError for a value that no checkpoint has. Unknown licences match
    `licence="unknown"`.

    >>> [checkpoint.name for checkpoint in models(series="QwQ")]
    ['QwQ-32B-Preview', 'QwQ-32B']
    """
    wanted = {"series": series, "kind": kind, "thinking": thinking}
    wanted |= {"modality": modality, "licence": licence}
    found: Iterable[Checkpoint] = _checkpoints()
    for label, value in wanted.items():
        if value is not None:
            of = _FILTERS[label]
            options = dict.fromkeys(x for c in _checkpoints() for x in of(c))
            option = _one_of(label, value, options)
            found = [c for c in found if option in of(c)]
    return Catalog(found)


def get(id: str) -> Checkpoint:
    """Return the checkpoint of this id, with or without "Qwen/", in any letter case.

    Raises ValueError with the nearest name if there is none.

    >>> get("qwen3-0.6b").total_parameters
    596049920
    """
    by_name = {c.name.lower(): c for c in _checkpoints()}
    name = str(id).strip().lower().removeprefix("qwen/")
    if name not in by_name:
        near = suggest(name, [c.name for c in by_name.values()])
        if name.startswith("pocket"):
            near = " The course's own models are not Qwen releases: see qc.load."
        raise ValueError(
            f'checkpoint "{id}" is not in the catalogue.{near} '
            "qc.catalog.models() lists all of them."
        )
    return by_name[name]


def sampling(id_or_series: str, thinking: bool, task: str = "general") -> Sampling:
    """Return the sampling values that Qwen recommends for a checkpoint or a series.

    Raises ValueError for a mode or task that the checkpoint lacks, and where no
    recommendation was found: the values of another size are not a substitute.

    >>> sampling("Qwen3-0.6B", thinking=True)
    {'do_sample': True, 'temperature': 0.6, 'top_p': 0.95, 'top_k': 20, 'min_p': 0.0}
    """
    series, checkpoint = _series_or_checkpoint(id_or_series)
    if checkpoint:
        _check_mode(checkpoint, thinking)
    entries = {
        e["task"]: e
        for e in _read("sampling")
        if (e["series"], e["thinking"]) == (series, bool(thinking))
        and (not checkpoint or checkpoint.id in e.get("models", [checkpoint.id]))
    }
    if not entries:
        mode = "with" if thinking else "without"
        raise ValueError(
            f'no recommended sampling values are known for "{id_or_series}" {mode} '
            "thinking. Its generation_config.json on the Hub may hold some."
        )
    return Sampling(entries[_one_of("task", task, entries)])


def recommend(*args: Any, **needs: Any) -> "Recommendation":
    """Rank the checkpoints that meet your needs: see `choosing.recommend`.

    >>> recommend("math", memory_gb=4)[0].checkpoint.name
    'Qwen3.5-4B'
    """
    from qwen_course import choosing  # which looks things up here

    return choosing.recommend(*args, **needs)


def generations() -> Timeline:
    """Return the family's timeline: each series, its first release, sizes and news.

    >>> generations()[0].name
    'Qwen'
    """
    timeline = Timeline()
    for name, facts in _read("catalog")["series"].items():
        members = sorted(models(series=name), key=lambda c: c.total_parameters)
        dates = [c.released for c in members if c.released]
        sizes = tuple(dict.fromkeys(c.size_label for c in members))
        sources = tuple(dict.fromkeys(s for c in members for s in c.sources))
        first = min(dates, default=None)
        generation = facts["generation"]
        timeline.append(Series(name, generation, first, sizes, facts["new"], sources))
    return timeline


_FILTERS: dict[str, Callable[[Checkpoint], tuple[str, ...]]] = {
    "series": lambda c: (c.series,),
    "kind": lambda c: (c.kind,),
    "thinking": lambda c: (c.thinking,),
    "modality": lambda c: c.modalities,
    "licence": lambda c: (c.licence or "unknown",),
}


_read = cache(read_yaml)


@cache
def _checkpoints() -> tuple[Checkpoint, ...]:
    data = _read("catalog")
    return tuple(_checkpoint(entry, data) for entry in data["models"])


def _checkpoint(entry: dict[str, Any], data: dict[str, Any]) -> Checkpoint:
    """Join what an entry, its series and its shape say."""
    series = data["series"][entry["series"]]
    facts = {key: value for key, value in (series | entry).items() if key != "new"}
    for key in ("sources", "notes"):
        names = series.get(key, []) + entry.get(key, [])
        facts[key] = tuple(data[key][name] for name in names)
    billions, context = facts.pop("billions"), facts.pop("context")
    return Checkpoint(
        **facts
        | {"shape": Shape(**data["shapes"].get(entry["shape"], {}))}
        | {"modalities": tuple(facts["modalities"])},
        published_billions=billions["total"],
        published_active_billions=billions.get("active"),
        published_non_embedding_billions=billions.get("non_embedding"),
        native_context_tokens=context["native"],
        extended_context_tokens=context["extended"],
        context_extension=context.get("method"),
        licence_name=data["licences"].get(facts["licence"]),
    )


def _one_of(label: str, value: str, options: Iterable[str]) -> str:
    """Return the option that equals the value but for letter case, or raise."""
    by_lower = {option.lower(): option for option in options}
    if str(value).lower() not in by_lower:
        names = ", ".join(by_lower.values())
        near = suggest(str(value), by_lower.values())
        raise ValueError(f'{label} "{value}" is not one of {names}.{near}')
    return by_lower[str(value).lower()]


def _series_or_checkpoint(name: str) -> tuple[str, Checkpoint | None]:
    """Tell a series from a checkpoint: "Qwen3" is a series, "Qwen3-8B" is not."""
    for series in _read("catalog")["series"]:
        if series.lower() == str(name).lower():
            return series, None
    return get(name).series, get(name)


def _check_mode(checkpoint: Checkpoint, thinking: bool) -> None:
    """Refuse a mode that the checkpoint does not have."""
    if checkpoint.is_base:
        raise ValueError(
            f'"{checkpoint.name}" is a base checkpoint: it was not taught to chat, and '
            "Qwen recommends no sampling values for it."
        )
    if checkpoint.thinking == "none" and thinking:
        raise ValueError(f'"{checkpoint.name}" never thinks: use thinking=False.')
    if checkpoint.thinking == "only" and not thinking:
        raise ValueError(f'"{checkpoint.name}" always thinks: use thinking=True.')


_COLOURS = {
    "text": "#0072B2",
    "code, mathematics, search": "#E69F00",
    "also sees or hears": "#009E73",
}


def _group(checkpoint: Checkpoint) -> str:
    """Return the colour group of a checkpoint in the timeline."""
    text, special, more = _COLOURS
    if checkpoint.modalities != ("text",):
        return more
    return special if checkpoint.kind in ("coder", "math", "embedding") else text


def _point(checkpoint: Checkpoint) -> tuple[date, float]:
    """Return the day of release (the first, if only the month is known) and the size.

    Raises ValueError for a checkpoint without a known date.
    """
    if not checkpoint.released:
        raise ValueError(f"the release of {checkpoint.name} is not known.")
    day = date.fromisoformat(f"{checkpoint.released}-01"[:10])
    return day, checkpoint.total_parameters / 1e9


def _tokens(count: int) -> str:
    """Shorten a context length: 32768 is "32K", 1010000 is "1M"."""
    return f"{count // 1024}K" if count < 1_000_000 else f"{count // 1_000_000}M"
