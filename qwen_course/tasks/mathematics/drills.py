"""Single computations, of the kinds that stand in the steps: for practice in training.

A step is only as good as its arithmetic, and a worked problem holds few computations
for its length. Here are a dozen in one example.
"""

import random
from fractions import Fraction

from qwen_course.tasks.mathematics.equations import signed
from qwen_course.tasks.mathematics.writing import bracket, plus, square_part

ASK = ("Compute {}.", "Compute {}", "Calculate {}.", "Work out {}.", "What is {}?")


def _sum(rng: random.Random) -> tuple[str, str]:
    reach = rng.choice((20, 60, 150, 400))
    a, b = signed(rng, 0, reach), signed(rng, 1, rng.choice((20, reach)))
    return f"{a} {plus(b)}", str(a + b)


def _large_sum(rng: random.Random) -> tuple[str, str]:
    unit = rng.choice((1, 10, 10, 100))
    a = unit * rng.randint(10, 2000)
    b = unit * rng.randint(1, a // unit)
    return (
        (f"{a} + {b}", str(a + b)) if rng.random() < 0.6 else (f"{a} - {b}", str(a - b))
    )


def _product(rng: random.Random) -> tuple[str, str]:
    a = rng.choice((4, 8, 12, 16, 20, 24, 36, rng.randint(2, 12), rng.randint(2, 40)))
    b = signed(rng, 1, rng.choice((9, 15, 60 if a < 13 else 20)))
    a *= rng.choice((1, 1, 1, -1))
    return f"{a}*{bracket(b)}", str(a * b)


def _square(rng: random.Random) -> tuple[str, str]:
    a = signed(rng, 0, 30)
    return f"{bracket(a)}^2", str(a * a)


def _fraction(rng: random.Random) -> tuple[str, str]:
    factor = rng.choice((1, 1, 2, 3, 4, 5, 6))
    below = signed(rng, 2, 12) * (1 if factor > 3 else rng.choice((1, 2)))
    above = signed(rng, 1, 15) * factor
    return f"{above}/{bracket(below)}", str(Fraction(above, below))


def _root(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        root = rng.randint(0, 40)
        return f"sqrt({root * root})", str(root)
    number = rng.randint(2, 600)
    s, m = square_part(number)
    if s == 1 or m == 1:
        return _root(rng)
    return f"sqrt({number}) = sqrt({s * s}*{m})", f"{s}*sqrt({m})"


def _percentage(rng: random.Random) -> tuple[str, str]:
    rate = rng.choice((2, 4, 5, 10, 20, 30, 40, 50))
    n = rng.choice((10, 100, 100)) * rng.randint(1, 300)
    while n * rate % 100:
        n *= 10
    return f"{n}*{rate}/100 = {n * rate}/100", str(n * rate // 100)


def _double(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(1, 99) * rng.choice((1, 1, 2, 4, 5, 8, 10, 16, 20, 50, 100))
    return f"{n}*2", str(2 * n)


COMPUTATIONS = (
    _sum, _sum, _sum, _sum, _large_sum, _large_sum, _product, _product, _square,
    _fraction, _fraction, _root, _percentage, _double,
)  # fmt: skip


def drill(rng: random.Random, number: int) -> tuple[str, str, tuple[str, ...]]:
    """Return a question for `number` computations, its answer, and the results."""
    drawn = [rng.choice(COMPUTATIONS)(rng) for _ in range(number)]
    asked = [text.partition(" = ")[0] for text, _ in drawn]
    lines = [f"{text} = {result}" for text, result in drawn]
    results = tuple(result for _, result in drawn)
    if number == 1:
        lines.append(f"Result: \\boxed{{{results[0]}}}")
    question = rng.choice(ASK).format(", ".join(asked))
    return question, "\n".join(lines), results
