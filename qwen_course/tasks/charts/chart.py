"""What a chart shows: its points, and how they are drawn at random."""

import random
from dataclasses import dataclass

MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
QUARTERS = ("Q1", "Q2", "Q3", "Q4")
NAMES = (
    "Ada", "Ali", "Ben", "Eva", "Ida", "Jon", "Kim", "Leo", "Lin",
    "Mia", "Noa", "Pia", "Rui", "Sam", "Tom", "Uma", "Yan", "Zoe",
)  # fmt: skip
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
TITLES = (
    "Books", "Calls", "Costs", "Energy", "Income", "Orders", "Output", "Points",
    "Profit", "Rain", "Sales", "Score", "Stock", "Sun", "Trips", "Users",
    "Visitors", "Votes", "Water", "Wind",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
KINDS = ("bar", "line")
LARGEST = 100  # the axis always ends here
STEP = 5  # values that are not printed are multiples of this


@dataclass(frozen=True)
class Chart:
    """One series: 2 to 8 labels and, for each, a whole number from 0 to 100.

    `colours` has one name a bar, or a single name for all of them and for a line.
    `printed` says that each value stands beside its point; otherwise it must be read
    off the axis, and is a multiple of 5.
    """

    kind: str
    labels: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[str, ...] = ("blue",)
    title: str = ""
    printed: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a chart that cannot be drawn."""
        if self.kind not in KINDS:
            raise ValueError(f'kind "{self.kind}" is not one of {", ".join(KINDS)}.')
        if len(self.labels) != len(self.values) or not 2 <= len(self.values) <= 8:
            raise ValueError(
                f"a chart has 2 to 8 points, each with a label and a value; got "
                f"{len(self.labels)} labels and {len(self.values)} values."
            )
        if min(self.values) < 0 or max(self.values) > LARGEST:
            raise ValueError(f"values go from 0 to {LARGEST}; got {self.values}.")
        if len(self.colours) not in (1, len(self.values)):
            raise ValueError("give one colour, or one for each bar.")
        if unknown := set(self.colours) - set(COLOURS):
            raise ValueError(
                f"colour {sorted(unknown)} is not one of {', '.join(COLOURS)}."
            )

    @property
    def content(self) -> tuple:
        """What makes it this chart, whatever it looks like."""
        return ("charts", self.kind, self.labels, self.values)

    @property
    def repeats(self) -> bool:
        """Whether two points have the same label, so that it names neither."""
        return len(set(self.labels)) < len(self.labels)

    @property
    def gap(self) -> int:
        """The least difference that the eye can see: one step of the axis, or 1."""
        return 2 if self.printed else STEP


def draw_labels(rng: random.Random, count: int) -> tuple[str, ...]:
    """Draw `count` different labels of one sort: months, days, years, names, ..."""
    sort = rng.choice(("months", "months", "days", "quarters", "years", "names", "abc"))
    if sort == "months":
        start = rng.randrange(13 - count)
        return MONTHS[start : start + count]
    if sort == "days" and count <= 7:
        start = rng.randrange(8 - count)
        return DAYS[start : start + count]
    if sort == "quarters" and count <= 4:
        return QUARTERS[:count]
    if sort == "years":
        start = rng.randint(1990, 2031 - count)
        return tuple(str(year) for year in range(start, start + count))
    if sort == "names":
        return tuple(rng.sample(NAMES, count))
    if rng.random() < 0.5:
        start = rng.randrange(27 - count)
        return LETTERS[start : start + count]
    return tuple(rng.sample(LETTERS, count))


def _snap(value: float, step: int) -> int:
    lowest = step if step > 1 else 2
    return int(min(LARGEST, max(lowest, step * round(value / step))))


def draw_values(rng: random.Random, count: int, step: int) -> tuple[int, ...]:
    """Draw values that rise, fall or do neither; a third each."""
    form = rng.choice(("rising", "falling", "any"))
    if form == "any":
        return tuple(_snap(rng.uniform(0, LARGEST), step) for _ in range(count))
    low, high = rng.uniform(5, 35), rng.uniform(55, 100)
    ends = (low, high) if form == "rising" else (high, low)
    noise = rng.choice((0, 4, 8))
    return tuple(
        _snap(
            ends[0] + (ends[1] - ends[0]) * n / (count - 1) + rng.gauss(0, noise), step
        )
        for n in range(count)
    )


def draw_two_years(rng: random.Random, step: int) -> tuple[int, ...]:
    """Draw eight quarters whose best quarter is the same in both years."""
    while True:
        season = [rng.uniform(10, 70) for _ in range(4)]
        best = rng.randrange(4)
        season[best] = max(season) + rng.uniform(8, 25)
        growth = rng.choice((-15, 0, 0, 10, 20))
        values = [
            _snap(height + year * growth + rng.gauss(0, 3), step)
            for year in range(2)
            for height in season
        ]
        if best_quarter(tuple(values)) is not None:
            return tuple(values)


def best_quarter(values: tuple[int, ...]) -> int | None:
    """Return the place of the quarter that is highest in both years, or None.

    >>> best_quarter((10, 20, 15, 60, 20, 30, 25, 80))
    3
    """
    years = values[:4], values[4:]
    best = [max(range(4), key=lambda n: year[n]) for year in years]
    clear = all(sorted(year)[-1] - sorted(year)[-2] >= STEP for year in years)
    return best[0] if best[0] == best[1] and clear else None


def draw_chart(
    rng: random.Random, two_years: bool | None = None, most: int = 8
) -> Chart:
    """Draw a chart of at most `most` points; one in ten shows two years of quarters."""
    kind = rng.choice(KINDS)
    printed = rng.random() < 0.4
    step = 1 if printed else STEP
    labels: tuple[str, ...]
    if two_years is None:
        two_years = most == 8 and rng.random() < 0.1
    if two_years:
        labels, values = QUARTERS * 2, draw_two_years(rng, step)
    else:
        counts = (2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8)
        count = rng.choice([count for count in counts if count <= most])
        labels, values = draw_labels(rng, count), draw_values(rng, count, step)
    several = kind == "bar" and rng.random() < 0.5
    colours = tuple(rng.sample(COLOURS, len(values) if several else 1))
    title = rng.choice(TITLES) if rng.random() < 0.7 else ""
    return Chart(kind, labels, values, colours, title, printed)


def trend(values: tuple[int, ...]) -> str | None:
    """Return "rising", "falling", "no clear trend", or None where it is debatable.

    A line is fitted. It must change by 20 or more over the chart and explain the values
    well (correlation of 0.85 or more); below 0.4 there is no trend.

    >>> trend((10, 25, 30, 55, 70))
    'rising'
    """
    count = len(values)
    if count < 4:
        return None
    mean_x, mean_y = (count - 1) / 2, sum(values) / count
    across = sum((n - mean_x) ** 2 for n in range(count))
    shared = sum((n - mean_x) * (v - mean_y) for n, v in enumerate(values))
    spread = sum((v - mean_y) ** 2 for v in values)
    if not spread:
        return "no clear trend"
    fit = shared / (across * spread) ** 0.5
    change = shared / across * (count - 1)
    if abs(fit) >= 0.85 and abs(change) >= 20:
        return "rising" if change > 0 else "falling"
    return "no clear trend" if abs(fit) <= 0.4 else None
