"""Products of two-digit numbers, worked by partial products."""

import random

from qwen_course.tasks.problem import Problem, distinct, split_of

SKILL = "products"
WORDINGS = (
    "What is {a} * {b}?",
    "What is {a} × {b}?",
    "{a} × {b} = ?",
    "Multiply {a} by {b}.",
    "Calculate {a} * {b}.",
    "How much is {a} times {b}?",
    "{a} * {b}",
    "{a}*{b}",
    "What is the product of {a} and {b}?",
    "{a} × {b} kaç eder?",
    "{a} ile {b} çarpımı kaçtır?",
    "{a} × {b} 等于多少？",
    "¿Cuánto es {a} × {b}?",
    "Combien font {a} × {b} ?",
    "Wie viel ist {a} × {b}?",
    "{a} × {b} はいくつですか？",
)


def solve(a: int, b: int) -> str:
    """Return the product by the tens and the ones of `b`.

    >>> print(solve(47, 36))
    47 × 30 = 1410
    47 × 6 = 282
    1410 + 282 = 1692
    """
    tens, ones = b - b % 10, b % 10
    if not (tens and ones):
        return f"{a} × {b} = {a * b}"
    parts = [f"{a} × {tens} = {a * tens}", f"{a} × {ones} = {a * ones}"]
    return "\n".join([*parts, f"{a * tens} + {a * ones} = {a * b}"])


def make(rng: random.Random, smallest: int = 10) -> Problem:
    """Make one product of two numbers from `smallest` to 99.

    47 × 36 and 36 × 47 are two problems with other steps, but in one split: who has
    learnt the one has nearly learnt the other.
    """
    a, b = rng.randint(smallest, 99), rng.randint(smallest, 99)
    product = str(a * b)
    return Problem(
        skill=SKILL,
        kind="product",
        content=(SKILL, a, b),
        question=rng.choice(WORDINGS).format(a=a, b=b),
        thinking=solve(a, b),
        answer=product,
        expected=product,
        split=split_of((SKILL, *sorted((a, b)))),
    )


def problems(n: int, seed: int = 0, split: str = "test") -> list[Problem]:
    """Return `n` products of two two-digit numbers.

    >>> problems(1, seed=0)[0].kind
    'product'
    """
    return distinct(make, n, seed, split)
