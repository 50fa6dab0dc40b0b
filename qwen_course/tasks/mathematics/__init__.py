"""Mathematics worked step by step, for pocket-math: one small computation a line.

>>> from qwen_course.tasks import mathematics
>>> mathematics.problems(2, seed=3, kind="linear equation")[0].kind
'linear equation'
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from qwen_course.errors import suggest
from qwen_course.tasks.mathematics import (
    calculus,
    drills,
    equations,
    growth,
    wordings,
)
from qwen_course.tasks.mathematics.worked import Worked
from qwen_course.tasks.problem import Problem, distinct, split_of

SKILL = "mathematics"
# The two system prompts of Qwen2.5-Math (QwenLM/Qwen2.5-Math, README).
COT = "Please reason step by step, and put your final answer within \\boxed{}."
TIR = (
    "Please integrate natural language reasoning with programs to solve the problem "
    "above, and put your final answer within \\boxed{}."
)
NAMES = ("f", "f", "f", "g", "h")  # of the functions
KINDS: dict[str, tuple[Callable[..., Worked], ...]] = {
    "derivative": (calculus.derivative,),
    "critical points, quadratic": (calculus.critical_quadratic,),
    "critical points, cubic": (calculus.critical_cubic,),
    "linear equation": (equations.linear,),
    "quadratic equation": (equations.quadratic,),
    "growth": (growth.compound, growth.doubling),
}
OUTPUT = "```output\n"  # opens the block that the interpreter fills in


@dataclass(frozen=True)
class MathProblem(Problem):
    """A problem whose answer stands in a box and is compared by its value.

    `system` is the system message, empty for none. With tools, `program` is what the
    model is to run and `output` what that prints.
    """

    system: str = ""
    program: str = ""
    output: str = ""
    hard: bool = False  # with numbers beyond those of the training
    new_wording: bool = False  # in words of which no training question is made

    @property
    def prompt(self) -> list[dict[str, str]]:
        """The messages to send: a system message, if there is one, and the question."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *super().prompt]

    def grade(self, answer: str) -> bool:
        """Return whether the last box of the answer holds the right value."""
        from qwen_course.steps import boxed, same_value

        found = boxed(answer)
        return found is not None and same_value(found, self.expected)


def make(
    rng: random.Random,
    kind: str | None = None,
    tools: bool = False,
    hard: bool = False,
) -> MathProblem:
    """Make one problem of `kind` (drawn at random when None).

    With `tools` it is solved by a program, else step by step. `hard` draws larger
    numbers than training has.
    """
    while True:
        makers = KINDS[kind or rng.choice(tuple(KINDS))]
        worked = rng.choice(makers)(rng, hard)
        if worked.program or not tools:
            return word(worked, rng, tools, hard)


def word(
    worked: Worked, rng: random.Random, tools: bool = False, hard: bool = False
) -> MathProblem:
    """Put an item into words.

    The split comes from its numbers alone: a polynomial to differentiate and the same
    one to find the critical points of are on one side. Half of the test questions have
    wordings of their own.
    """
    side = split_of(("polynomial", *worked.content[1:]) if _is_calculus(worked)
                    else worked.content)  # fmt: skip
    new = side == "test" and rng.random() < 0.5
    wording = wordings.choose(_words(worked), rng, side, new)
    name = rng.choice(NAMES) if "{name}" in wording else "f"
    wording = wording.replace("{name}", name)
    terms = wording.startswith("!") and not tools
    system = TIR if tools else rng.choice((COT, COT, ""))
    question = worked.ask(wording.removeprefix("!"), rng)
    output = worked.output() if tools else ""
    text = tool_answer(worked, output) if tools else answer(worked, terms)
    return MathProblem(
        skill=SKILL,
        kind=worked.kind,
        content=(*worked.content, tools),
        question=wordings.dress(question, rng) if side == "train" else question,
        thinking="",
        answer=_renamed(text, name),
        expected=worked.boxed,
        split=side,
        system=system,
        program="\n".join(worked.program) if tools else "",
        output=output,
        hard=hard,
        new_wording=new,
    )


def make_drill(rng: random.Random, number: int | None = None) -> MathProblem:
    """Make an exercise of `number` single computations (1, or 6 to 14, when None).

    The box holds the result where there is one computation, and there is none else.
    """
    number = number or (1 if rng.random() < 0.15 else rng.randint(6, 14))
    question, text, results = drills.drill(rng, number)
    return MathProblem(
        skill=SKILL,
        kind="computations",
        content=("computations", question),
        question=question,
        thinking="",
        answer=text,
        expected=results[-1],
        system=rng.choice((COT, "", "")),
    )


def _renamed(text: str, name: str) -> str:
    """Call the function f by another name, where it is applied: f(x), f'(x)."""
    return re.sub(r"\bf(?='*\()", name, text)


def _is_calculus(worked: Worked) -> bool:
    return worked.content[0] in ("derivative", "critical")


def _words(worked: Worked) -> str:
    return worked.story or worked.kind


def answer(worked: Worked, terms: bool = False) -> str:
    """Return the worked answer: the steps, and the result in a box.

    `terms` puts the derivative of every term before that of the function.
    """
    steps = list(worked.steps)
    if terms:
        steps[1:1] = worked.terms
    return "\n".join([*steps, _boxed(worked.sentence, worked.boxed)])


def tool_answer(worked: Worked, output: str) -> str:
    """Return the answer with a program: the code, what it prints, and the box."""
    code = "\n".join((worked.plan, "```python", *worked.program, "```"))
    box = _boxed(worked.sentence, worked.read(output))
    return f"{code}\n{OUTPUT}{output}\n```\n{box}"


def _boxed(sentence: str, value: str) -> str:
    return sentence.replace("{}", f"\\boxed{{{value}}}")


def problems(
    n: int,
    seed: int = 0,
    split: str = "test",
    kind: str | None = None,
    tools: bool = False,
    hard: bool = False,
) -> list[MathProblem]:
    """Return `n` problems of `kind` (all kinds mixed when None).

    `tools` asks for a program in the place of steps; `hard` for numbers larger than
    training has. Raises ValueError for an unknown kind or split.

    >>> problems(1, seed=0, kind="growth")[0].kind
    'growth'
    """
    if kind is not None and kind not in KINDS:
        near = suggest(kind, KINDS)
        raise ValueError(f'kind "{kind}" is not one of {", ".join(KINDS)}.{near}')

    def draw(rng: random.Random) -> Problem:
        return make(rng, kind, tools, hard)

    return distinct(draw, n, seed, split)  # type: ignore[return-value]


__all__ = [
    "COT",
    "KINDS",
    "OUTPUT",
    "TIR",
    "MathProblem",
    "make",
    "make_drill",
    "problems",
]
