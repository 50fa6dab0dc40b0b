"""Roman numerals, both ways: a skill that pocket-qwen3 lacks, for lesson 07."""

import random
import re
from dataclasses import dataclass

from qwen_course.tasks.problem import Problem, distinct

SKILL = "roman_numerals"
LARGEST = 3999  # larger ones need a line above the letters
PARTS = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
    (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
TO_ROMAN = (
    "Write {number} as a Roman numeral.",
    "What is {number} in Roman numerals?",
    "{number} in Roman numerals",
    "Convert {number} to a Roman numeral.",
    "How did the Romans write {number}?",
)
FROM_ROMAN = (
    "Write {roman} as a number.",
    "What number is {roman}?",
    "{roman} in digits",
    "Convert {roman} to a number.",
    "Which number did the Romans write as {roman}?",
)


@dataclass(frozen=True)
class RomanProblem(Problem):
    """A conversion; the last numeral of the asked kind in the answer counts."""

    def grade(self, answer: str) -> bool:
        """Return whether the last Roman numeral, or the last number, is the right one.

        So a model may answer with a whole sentence.
        """
        if self.kind == "from Roman":
            return super().grade(answer)
        found = re.findall(r"\b[MDCLXVI]+\b", answer)
        return bool(found) and found[-1] == self.expected


def roman(number: int) -> str:
    """Return a number from 1 to 3999 in Roman numerals.

    >>> roman(1994)
    'MCMXCIV'
    """
    if not 1 <= number <= LARGEST:
        raise ValueError(f"{number} has no Roman numeral; give 1 to {LARGEST}.")
    letters = ""
    for value, part in PARTS:
        letters += part * (number // value)
        number %= value
    return letters


def solve(number: int) -> str:
    """Return the places of a number with their letters, the largest first.

    >>> print(solve(1904))
    1000 = M
    900 = CM
    4 = IV
    """
    digits = str(number)
    values = [int(digit) * 10 ** (len(digits) - n) for n, digit in enumerate(digits, 1)]
    return "\n".join(f"{value} = {roman(value)}" for value in values if value)


def make(rng: random.Random, kind: str | None = None) -> Problem:
    """Make one conversion: "to Roman" or "from Roman" (drawn at random when None).

    Both ways of one number are of one split: who has learnt the one knows the other.
    """
    number = rng.randint(1, LARGEST)
    kind = kind or rng.choice(("to Roman", "from Roman"))
    wordings = TO_ROMAN if kind == "to Roman" else FROM_ROMAN
    letters = roman(number)
    answer = letters if kind == "to Roman" else str(number)
    lines = solve(number)
    if kind == "from Roman":  # read letters first, then what they are worth
        lines = "\n".join(
            " = ".join(reversed(line.split(" = "))) for line in lines.splitlines()
        )
    return RomanProblem(
        skill=SKILL,
        kind=kind,
        content=(SKILL, number),
        question=rng.choice(wordings).format(number=number, roman=letters),
        thinking=lines,
        answer=answer,
        expected=answer,
    )


def problems(
    n: int, seed: int = 0, split: str = "test", kind: str | None = None
) -> list[Problem]:
    """Return `n` conversions, one for a number: "to Roman", "from Roman", or mixed.

    >>> problems(1, seed=0, kind="to Roman")[0].kind
    'to Roman'
    """
    if kind not in (None, "to Roman", "from Roman"):
        raise ValueError(f'kind "{kind}" is not one of to Roman, from Roman.')
    return distinct(lambda rng: make(rng, kind), n, seed, split)
