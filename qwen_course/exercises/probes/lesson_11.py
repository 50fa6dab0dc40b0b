"""What the checks of lesson 11 look at: plain choices, and functions on numbers."""

import random
from typing import Any, NamedTuple

from qwen_course.exercises.limits import call
from qwen_course.exercises.question import Probe, plain

# Question 1


class Load(NamedTuple):
    """A checkpoint's configuration, and who uses it."""

    config: dict[str, Any]
    users: int
    context: int


def loads(seed: int) -> list[Load]:
    """Return dense models with and without head_dim, and a hybrid."""
    rng = random.Random(seed)

    def config(layers: int, heads: int, groups: int, **more: Any) -> dict[str, Any]:
        made = {"num_hidden_layers": layers, "num_attention_heads": heads}
        return made | {"num_key_value_heads": groups, "hidden_size": 64 * heads} | more

    layers = 4 * rng.randint(5, 12)
    mixed = ["linear_attention"] * 3 + ["full_attention"]
    return [
        Load(config(layers, 32, 8, head_dim=128), rng.randint(2, 9), 4096),
        Load(config(layers, 14, 2), rng.randint(2, 9), 8192),
        Load(config(layers, 16, 4, head_dim=256, layer_types=mixed * (layers // 4)),
             rng.randint(2, 9), 32768),
        Load(config(layers, 8, 8, head_dim=80), 1, rng.randint(100, 900)),
    ]  # fmt: skip


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the bytes of each cache."""
    return [call(answer, dict(one.config), *one[1:]) for one in loads(seed)]


# Questions 2, 3 and 7: what was chosen


def chosen(answer: Any, seed: int) -> Any:
    """Return the learner's choice."""
    return plain(answer)


# Question 4

Runs = dict[str, list[bool]]


class Adapter(NamedTuple):
    """The new skill, and right or wrong before and after, skill by skill."""

    new: str
    before: Runs
    after: Runs


def adapters(seed: int) -> list[Adapter]:
    """Return adapters that gain, lose, gain a little, lose a little, and trade."""
    rng = random.Random(seed)

    def runs(both: int, neither: int, lost: int, won: int) -> list[tuple[bool, bool]]:
        rows = [(True, True)] * both + [(False, False)] * neither
        rows += [(True, False)] * lost + [(False, True)] * won
        rng.shuffle(rows)
        return rows

    def adapter(**skills: tuple[int, int, int, int]) -> Adapter:
        made = {name: runs(*numbers) for name, numbers in skills.items()}
        return Adapter(
            "phrases",
            {name: [old for old, _ in rows] for name, rows in made.items()},
            {name: [new for _, new in rows] for name, rows in made.items()},
        )

    keeps = (rng.randint(20, 30), rng.randint(2, 5), 0, 0)
    some = (rng.randint(20, 30), rng.randint(2, 5), 3, 2)
    gains = (rng.randint(1, 4), rng.randint(2, 5), 0, rng.randint(20, 30))
    return [
        adapter(phrases=gains, sums=keeps, chat=some),
        adapter(phrases=gains, sums=(rng.randint(9, 15), 2, 11, 0), chat=keeps),
        adapter(phrases=(20, 4, 1, 3), sums=keeps),
        adapter(phrases=(20, 2, 6, 7), sums=(12, 3, 0, 9)),
        adapter(phrases=(3, 20, 4, 14), sums=some, chat=(25, 3, 2, 0)),
        adapter(phrases=(9, 3, 15, 0), sums=keeps),
        adapter(phrases=gains, sums=(20, 0, 5, 0)),
        adapter(phrases=gains, chat=(rng.randint(20, 30), 4, 2, 4)),
    ]


def q4(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask of each adapter whether it ships."""
    return [
        call(answer, one.new, _copied(one.before), _copied(one.after))
        for one in adapters(seed)
    ]


def _copied(runs: Runs) -> Runs:
    return {name: list(rows) for name, rows in runs.items()}


# Question 5

REFUSAL = "The documents do not say."


class Cited(NamedTuple):
    """An answer, and the passages that were in its prompt."""

    answer: str
    passages: list[str]


def replies(seed: int) -> list[Cited]:
    """Return replies: sound, from another passage, uncited, refused, out of range."""
    rng = random.Random(seed)
    days, euros, room = rng.randint(20, 29), rng.randint(200, 399), rng.randint(40, 99)
    passages = [
        f"Holidays: each employee has {days} days a year.",
        f"Travel: a train ticket up to {euros} euros needs no signature.",
        f"Keys are at the desk in room {room}, floor 3.",
    ]
    return [
        Cited(f"You have {days} days a year [1].", passages),
        Cited(f"You have {days} days a year [2].", passages),
        Cited(f"You have {days} days a year.", passages),
        Cited(f"Up to {euros} euros [2]; the keys are in room {room} [3].", passages),
        Cited(f"You have {days // 10} days a year [1].", passages),
        Cited(f"The desk is in room {room} [4].", passages),
        Cited(REFUSAL, passages),
        Cited("At the desk [3].", passages),
        Cited("At the desk.", passages),
        Cited(f"On floor 3, room {room} [1].", passages),
        Cited(f"You have {days} days [1][4].", passages),
    ]  # fmt: skip


def q5(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask of each reply whether it is grounded."""
    return [call(answer, one.answer, list(one.passages)) for one in replies(seed)]


# Question 6

Week = dict[str, list[float]]


def weeks(seed: int) -> list[tuple[Week, Week]]:
    """Return pairs of a good week and this one."""
    rng = random.Random(seed)

    def around(value: float, number: int = 20) -> list[float]:
        return [round(value * rng.uniform(0.97, 1.03), 4) for _ in range(number)]

    def late(value: float, number: int) -> list[float]:
        values = [*around(value, 20 - number), *around(5 * value, number)]
        rng.shuffle(values)
        return values

    good = {
        "first_token": around(0.2),
        "memory": around(14.0),
        "right_canaries": around(0.95),
        "queue": around(0.05),
    }
    return [
        (good, {name: around(values[0]) for name, values in good.items()}),
        (good, {**_of(good, around), "first_token": around(0.7)}),
        (good, {**_of(good, around), "first_token": late(0.2, 2)}),
        (good, {**_of(good, around), "queue": late(0.05, 4)}),
        (good, {**_of(good, around), "memory": late(14.0, 1)}),
        (good, {**_of(good, around), "right_canaries": around(0.55)}),
        (good, {**_of(good, around), "memory": around(18.0)}),
        (
            good,
            {
                "queue": around(0.9),
                "right_canaries": around(0.5),
                "first_token": around(1.0),
            },
        ),
    ]


def _of(good: Week, around: Any) -> Week:
    return {name: around(values[0]) for name, values in good.items()}


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for the alarms of each week."""
    return [call(answer, _lists(good), _lists(now)) for good, now in weeks(seed)]


def _lists(week: Week) -> Week:
    return {name: list(values) for name, values in week.items()}


PROBES: dict[str, Probe] = {
    "11.q1": q1,
    "11.q2": chosen,
    "11.q3": chosen,
    "11.q4": q4,
    "11.q5": q5,
    "11.q6": q6,
    "11.q7": chosen,
}
