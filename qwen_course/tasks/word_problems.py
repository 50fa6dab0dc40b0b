"""Short word problems of eight kinds; each needs two to six steps."""

import random
from collections.abc import Callable

from qwen_course.tasks import products
from qwen_course.tasks.problem import Problem, distinct

SKILL = "word_problems"
NAMES = (
    "Ada", "Ali", "Ana", "Ben", "Carla", "Deniz", "Elif", "Emma", "Hugo", "Ines",
    "Jin", "Kaya", "Lena", "Leo", "Lin", "Maria", "Mei", "Mia", "Nadia", "Noah",
    "Omar", "Paul", "Rosa", "Sam", "Sofia", "Tom", "Yuki", "Zeynep",
)  # fmt: skip
THINGS = (
    "apples", "balls", "books", "cards", "coins", "cookies", "eggs", "flowers",
    "marbles", "oranges", "pencils", "shells", "stamps", "stickers", "sweets",
)  # fmt: skip
GOODS = ("bag", "book", "coat", "hat", "jacket", "lamp", "shirt", "toy")
GOODS_PLURAL = ("bags", "books", "cups", "hats", "lamps", "pens", "plates", "toys")
GROWING = (
    ("people", "A village"), ("bees", "A hive"), ("trees", "A forest"),
    ("visitors", "A museum"), ("members", "A club"), ("birds", "An island"),
    ("fish", "A lake"), ("pupils", "A school"),
)  # fmt: skip
TRAVELLERS = ("bus", "car", "cyclist", "plane", "ship", "train", "truck")


def _word_problem(
    kind: str, numbers: tuple[int, ...], question: str, steps: list[str], answer: str
) -> Problem:
    return Problem(
        skill=SKILL,
        kind=kind,
        content=(kind, *numbers),
        question=question,
        thinking="\n".join(steps),
        answer=answer,
        expected=steps[-1].rsplit(" ", 1)[-1],
    )


def divide(total: int, by: int) -> list[str]:
    """Return a division without remainder in steps: the tens, then what is left.

    >>> divide(84, 6)
    ['6 × 10 = 60', '84 - 60 = 24', '24 / 6 = 4', '10 + 4 = 14']
    """
    tens, ones = total // by // 10 * 10, total // by % 10
    if not tens or not ones:
        return [f"{total} / {by} = {total // by}"]
    rest = total - by * tens
    return [
        f"{by} × {tens} = {by * tens}",
        f"{total} - {by * tens} = {rest}",
        f"{rest} / {by} = {ones}",
        f"{tens} + {ones} = {tens + ones}",
    ]


def subtract(number: int, taken: int) -> list[str]:
    """Return a subtraction in steps: the hundreds, then the rest.

    >>> subtract(832, 347)
    ['832 - 300 = 532', '532 - 47 = 485']
    """
    hundreds, rest = taken // 100 * 100, taken % 100
    between = number - hundreds
    steps = [f"{number} - {hundreds} = {between}"] if hundreds else []
    return steps + ([f"{between} - {rest} = {number - taken}"] if rest else [])


def give_away(rng: random.Random) -> Problem:
    """Two gifts out of one stock: two subtractions."""
    first, second = rng.randint(5, 49), rng.randint(5, 49)
    start = rng.randint(first + second + 1, 199)
    who, to, other = rng.sample(NAMES, 3)
    things = rng.choice(THINGS)
    question = rng.choice(
        (
            f"{who} has {start} {things}. {who} gives {first} to {to} and {second} to "
            f"{other}. How many {things} are left?",
            f"{who} had {start} {things} and gave away {first} of them to {to}, then "
            f"{second} to {other}. How many {things} does {who} have now?",
            f"There are {start} {things} in a box. {to} takes {first} and {other} "
            f"takes {second}. How many {things} are still in the box?",
        )
    )
    left = start - first - second
    return _word_problem(
        "give away",
        (start, first, second),
        question,
        [
            f"{start} - {first} = {start - first}",
            f"{start - first} - {second} = {left}",
        ],
        f"There are {left} {things} left.",
    )


def share(rng: random.Random) -> Problem:
    """Boxes of things shared equally: a product, then a division in steps."""
    people = rng.randint(2, 12)
    each = rng.randint(3, 40)
    boxes = rng.choice([b for b in range(2, 13) if people * each % b == 0] or [1])
    if boxes == 1:
        return share(rng)
    total = people * each
    per_box = total // boxes
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    question = rng.choice(
        (
            f"{who} has {boxes} boxes with {per_box} {things} each and shares them "
            f"equally among {people} children. How many {things} does each child get?",
            f"{boxes} bags hold {per_box} {things} each. {who} divides all of them "
            f"equally among {people} friends. How many does each friend get?",
            f"{people} children share {boxes} boxes of {per_box} {things} equally. How "
            f"many {things} are there for each child?",
        )
    )
    return _word_problem(
        "share",
        (boxes, per_box, people),
        question,
        [f"{boxes} × {per_box} = {total}", *divide(total, people)],
        f"Each one gets {each} {things}.",
    )


def rate_and_time(rng: random.Random) -> Problem:
    """Two legs of a journey: two products and a sum."""
    speed, later = (5 * rng.randint(4, 24) + rng.choice((0, 0, 1, 2)) for _ in range(2))
    hours, more = rng.randint(2, 9), rng.randint(2, 9)
    what = rng.choice(TRAVELLERS)
    question = rng.choice(
        (
            f"A {what} travels at {speed} km per hour for {hours} hours and then at "
            f"{later} km per hour for {more} hours. How far does it go?",
            f"A {what} goes {speed} km every hour for {hours} hours, then {later} km "
            f"every hour for {more} hours. How many km is that in total?",
            f"How many km does a {what} cover in {hours} hours at {speed} km per hour "
            f"followed by {more} hours at {later} km per hour?",
        )
    )
    one, two = speed * hours, later * more
    return _word_problem(
        "rate and time",
        (speed, hours, later, more),
        question,
        [
            f"{speed} × {hours} = {one}",
            f"{later} × {more} = {two}",
            f"{one} + {two} = {one + two}",
        ],
        f"The {what} goes {one + two} km.",
    )


def discount(rng: random.Random) -> Problem:
    """Several goods at a reduced price: a percentage, a subtraction, a product."""
    percent = 5 * rng.randint(1, 15)
    price = rng.randint(2, 200)
    while price * percent % 100:
        price = rng.randint(2, 200)
    pieces = rng.randint(2, 9)
    who, good = rng.choice(NAMES), rng.choice(GOODS)
    question = rng.choice(
        (
            f"A {good} costs {price} euros. Today it is {percent}% off. {who} buys "
            f"{pieces} of them. How many euros does {who} pay?",
            f"{who} buys {pieces} pieces of a {good} that costs {price} euros, with a "
            f"discount of {percent}%. What is the total in euros?",
            f"The price of a {good} is {price} euros, less {percent}%. How much do "
            f"{pieces} of them cost?",
        )
    )
    off = price * percent // 100
    return _word_problem(
        "discount",
        (price, percent, pieces),
        question,
        [
            f"{price} × {percent} = {price * percent}",
            f"{price * percent} / 100 = {off}",
            f"{price} - {off} = {price - off}",
            f"{price - off} × {pieces} = {(price - off) * pieces}",
        ],
        f"The total is {(price - off) * pieces} euros.",
    )


def yearly_growth(rng: random.Random) -> Problem:
    """Two years of growth by a percentage: what was added grows too."""
    percent = rng.choice((10, 20, 25, 50, 50, 100, 100))
    unit, largest = (20, 200) if percent < 25 else (4, 450)
    start = unit * rng.randint(2, largest)
    while start * (100 + percent) * percent % 10_000:  # people come in whole numbers
        start = unit * rng.randint(2, largest)
    what, where = rng.choice(GROWING)
    question = rng.choice(
        (
            f"{where} has {start} {what} and grows by {percent}% each year. How many "
            f"{what} are there after two years?",
            f"The number of {what} is {start} and rises by {percent}% every year. What "
            "is it in two years?",
            f"There are {start} {what} today. Each year there are {percent}% more. How "
            f"many {what} are there two years from now?",
        )
    )
    steps, now = [], start
    for _ in range(2):
        more = now * percent // 100
        steps += [
            f"{now} × {percent} = {now * percent}",
            f"{now * percent} / 100 = {more}",
            f"{now} + {more} = {now + more}",
        ]
        now += more
    answer = f"After two years there are {now} {what}."
    return _word_problem("yearly growth", (start, percent), question, steps, answer)


def ages(rng: random.Random) -> Problem:
    """Two people, one several times as old: their ages together, some years later."""
    age, times, years = rng.randint(3, 25), rng.randint(2, 4), rng.randint(2, 12)
    young, old = rng.sample(NAMES, 2)
    question = rng.choice(
        (
            f"{young} is {age} years old and {old} is {times} times as old. How old "
            f"are they together in {years} years?",
            f"{old} is {times} times as old as {young}, who is {age}. What is the sum "
            f"of their ages in {years} years?",
            f"{young} is {age}. {old} is {times} times as old. Add their ages as they "
            f"will be in {years} years.",
        )
    )
    older, both = age * times, age * times + age
    return _word_problem(
        "ages",
        (age, times, years),
        question,
        [
            f"{age} × {times} = {older}",
            f"{age} + {older} = {both}",
            f"{years} × 2 = {2 * years}",
            f"{both} + {2 * years} = {both + 2 * years}",
        ],
        f"Together they are {both + 2 * years} years old.",
    )


def change(rng: random.Random) -> Problem:
    """Two kinds of goods, paid with one note: two products, a sum, what is left."""
    price, other = rng.randint(2, 29), rng.randint(2, 29)
    pieces, more = rng.randint(2, 9), rng.randint(2, 9)
    one, two = price * pieces, other * more
    note = rng.choice([note for note in (50, 100, 200, 500, 1000) if note > one + two])
    first, second = rng.sample(GOODS_PLURAL, 2)
    who = rng.choice(NAMES)
    question = rng.choice(
        (
            f"{who} buys {pieces} {first} at {price} euros each and {more} {second} at "
            f"{other} euros each and pays with {note} euros. How much change is there?",
            f"{first.capitalize()} cost {price} euros each, {second} {other} euros "
            f"each. {who} takes {pieces} {first} and {more} {second} and gives {note} "
            "euros. How many euros come back?",
            f"{who} has {note} euros and buys {pieces} {first} for {price} euros each "
            f"and {more} {second} for {other} euros each. How many euros are left?",
        )
    )
    left = note - one - two
    return _word_problem(
        "change",
        (price, pieces, other, more, note),
        question,
        [
            f"{pieces} × {price} = {one}",
            f"{more} × {other} = {two}",
            f"{one} + {two} = {one + two}",
            f"{note} - {one + two} = {left}",
        ],
        f"The change is {left} euros.",
    )


def two_steps(rng: random.Random) -> Problem:
    """A product and what is missing from it or left of it."""
    each, times = rng.randint(12, 49), rng.randint(11, 29)
    total = each * times
    goal = total + rng.randint(11, 499)
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    question = rng.choice(
        (
            f"{who} reads {each} pages a day. The book has {goal} pages. How many "
            f"pages are left after {times} days?",
            f"{who} needs {goal} {things} and collects {each} a day for {times} days. "
            f"How many {things} are missing?",
            f"A store has {goal} {things}. It sells {times} bags of {each} {things}. "
            f"How many {things} are left?",
        )
    )
    thing = "pages" if "pages" in question else things
    worked = products.solve(each, times)
    return _word_problem(
        "two steps",
        (each, times, goal),
        question,
        [*worked.splitlines(), *subtract(goal, total)],
        f"It is {goal - total} {thing}.",
    )


KINDS: dict[str, Callable[[random.Random], Problem]] = {
    "give away": give_away,
    "share": share,
    "rate and time": rate_and_time,
    "discount": discount,
    "yearly growth": yearly_growth,
    "ages": ages,
    "change": change,
    "two steps": two_steps,
}


def make(rng: random.Random, kind: str | None = None) -> Problem:
    """Make one word problem of `kind` (drawn at random when None)."""
    return KINDS[kind or rng.choice(tuple(KINDS))](rng)


def problems(
    n: int, seed: int = 0, split: str = "test", kind: str | None = None
) -> list[Problem]:
    """Return `n` word problems of `kind` (all kinds mixed when None).

    >>> problems(1, seed=0, kind="share")[0].kind
    'share'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f'kind "{kind}" is not one of {", ".join(KINDS)}.')
    return distinct(lambda rng: make(rng, kind), n, seed, split)
