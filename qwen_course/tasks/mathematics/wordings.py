"""How the questions are worded: most for training, some for the test alone.

{poly} is the polynomial, {name} the name of the function, {is_} the equals sign.
A wording that begins with "!" asks for the derivative term by term as well.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from qwen_course.tasks.problem import put_around

# What people write around a question. Only training has it: a model that has seen too
# few first words takes an unknown one for another kind of problem.
OPENINGS = (
    "Now: ", "Next. ", "Exercise: ", "Question: ", "I need help. ", "Hello! ",
    "Can you do this? ", "Homework. ",
)  # fmt: skip
ENDINGS = (
    " Show every step.", " Step by step, please.", " Thanks!", " Show your work.",
    " Explain each step.",
)  # fmt: skip

TRAIN: dict[str, tuple[str, ...]] = {
    "derivative": (
        "Find the derivative of {name}(x){is_}{poly}",
        "Find the derivative of {name}(x){is_}{poly}.",
        "Find the derivative of {poly}.",
        "What is the derivative of {name}(x){is_}{poly}?",
        "What is the derivative of {poly}?",
        "Differentiate {name}(x){is_}{poly}.",
        "Differentiate {poly} with respect to x.",
        "Differentiate {poly}",
        "{name}(x){is_}{poly}. Find {name}'(x).",
        "Let {name}(x){is_}{poly}. What is {name}'(x)?",
        "Compute the derivative of {name}(x){is_}{poly} step by step.",
        "Calculate the derivative of {poly} using the power rule.",
        "Use the power rule to differentiate {name}(x){is_}{poly}.",
        "Solve this step by step: Find the derivative of {name}(x){is_}{poly}",
        "Given {name}(x){is_}{poly}, find its derivative.",
        "d/dx({poly})",
        "What is d/dx({poly})?",
        "derivative of {poly}",
        "Please give me the derivative of y{is_}{poly}.",
        "Find y' if y{is_}{poly}.",
        "Determine the first derivative of the function {name}(x){is_}{poly}.",
        "Find the slope function of {name}(x){is_}{poly}.",
    ),
    "critical": (
        "Find the critical points of {name}(x){is_}{poly}",
        "Find the critical points of {name}(x){is_}{poly}.",
        "Find the critical points of {poly}.",
        "What are the critical points of {name}(x){is_}{poly}?",
        "Where does {name}(x){is_}{poly} have critical points?",
        "Determine the critical points of {name}(x){is_}{poly} and their kind.",
        "Find all critical points of {name}(x){is_}{poly} and classify them.",
        "Let {name}(x){is_}{poly}. Find the critical points.",
        "{name}(x){is_}{poly}. Where is {name}'(x) = 0?",
        "Where is the derivative of {name}(x){is_}{poly} equal to zero?",
        "Find the local maximum and minimum points of {name}(x){is_}{poly}.",
        "At which x does {name}(x){is_}{poly} have a maximum or a minimum?",
        "Find the extrema of {name}(x){is_}{poly}.",
        "Compute the stationary points of {poly}.",
        "critical points of {poly}",
        "Given {name}(x){is_}{poly}, find its critical points.",
        "!Find the derivative of {name}(x){is_}{poly} and then find the critical "
        "points.",
        "!Solve this step by step: Find the derivative of {name}(x){is_}{poly} and "
        "then find the critical points.",
        "!Solve this step by step:\nFind the derivative of {name}(x){is_}{poly}\nand "
        "then find the critical points.",
        "!Differentiate {name}(x){is_}{poly} and find its critical points.",
        "!Find {name}'(x) and the critical points of {name}(x){is_}{poly}.",
        "!First find the derivative of {poly}, then its critical points.",
    ),
    "linear equation": (
        "Solve {equation}",
        "Solve {equation}.",
        "Solve for x: {equation}",
        "Solve {equation} for x.",
        "Solve the equation {equation}.",
        "Solve the linear equation {equation}.",
        "Find x if {equation}.",
        "Find x: {equation}",
        "What is x if {equation}?",
        "For which x is {equation}?",
        "{equation}",
        "{equation}, x = ?",
        "If {equation}, what is x?",
        "Determine x: {equation}",
        "Solve step by step: {equation}",
        "What is the solution of {equation}?",
        "Please solve {equation} for x.",
    ),
    "quadratic equation": (
        "Solve {equation}",
        "Solve {equation}.",
        "Solve for x: {equation}",
        "Solve {equation} for x.",
        "Solve the equation {equation}.",
        "Solve the quadratic equation {equation}.",
        "Find all solutions of {equation}.",
        "Find all real solutions of {equation}.",
        "Find x if {equation}.",
        "Find x: {equation}",
        "What are the solutions of {equation}?",
        "What are the roots of {equation}?",
        "For which x is {equation}?",
        "{equation}",
        "{equation}, x = ?",
        "Solve {equation} with the quadratic formula.",
        "Use the discriminant to solve {equation}.",
        "How many real solutions does {equation} have? Find them.",
        "Solve step by step: {equation}",
        "Please solve {equation} for x.",
    ),
    "growth": (
        "A town has {n} people and grows by {p}% every year. How many people live "
        "there after {t} years?",
        "The population of a city is {n}. It grows by {p}% a year. What is it after "
        "{t} years?",
        "{n} euros are invested at {p}% interest per year, compounded yearly. What is "
        "the amount after {t} years?",
        "You put {n} euros into a savings account at {p}% a year. How much is it "
        "after {t} years?",
        "A company has {n} customers. The number grows by {p}% each year. How many "
        "are there in {t} years?",
        "A forest has {n} trees and grows by {p}% each year. How many trees are there "
        "after {t} years?",
        "Start with {n} and increase it by {p}% a year for {t} years. What do you "
        "get?",
        "Sales of {n} euros rise by {p}% per year. What are they after {t} years?",
        "A value of {n} grows by {p}% a year. What is it in {t} years?",
        "Calculate the compound growth of {n} at {p}% per year over {t} years.",
        "A website has {n} visitors, {p}% more every year. How many after {t} years?",
        "A colony of {n} bees grows {p}% per year. How large is it after {t} years?",
    ),
    "loss": (
        "A car is worth {n} euros and loses {p}% of its value every year. What is it "
        "worth after {t} years?",
        "A town of {n} people shrinks by {p}% a year. How many people live there "
        "after {t} years?",
        "A lake has {n} fish. The number falls by {p}% every year. How many are left "
        "after {t} years?",
        "A machine costs {n} euros and loses {p}% of its value per year. What is its "
        "value after {t} years?",
        "Start with {n} and decrease it by {p}% a year for {t} years. What do you "
        "get?",
        "A value of {n} falls by {p}% a year. What is it in {t} years?",
        "Sales of {n} euros drop by {p}% per year. What are they after {t} years?",
    ),
    "doubling": (
        "A colony has {n} bacteria and doubles every {e} hours. How many are there "
        "after {t} hours?",
        "There are {n} bacteria. Their number doubles every {e} hours. How many are "
        "there in {t} hours?",
        "A population of {n} doubles every {e} years. How large is it after {t} "
        "years?",
        "A value of {n} doubles every {e} days. What is it after {t} days?",
        "{n} cells double every {e} minutes. How many cells are there after {t} "
        "minutes?",
        "The number of users, now {n}, doubles every {e} months. How many are there "
        "in {t} months?",
        "An investment of {n} euros doubles every {e} years. What is it worth after "
        "{t} years?",
        "Every {e} hours a number doubles. It starts at {n}. What is it after {t} "
        "hours?",
    ),
    "doubling time": (
        "A colony of {n} bacteria doubles every {e} hours. How many hours until "
        "there are {g}?",
        "A population of {n} doubles every {e} years. After how many years is it "
        "{g}?",
        "{n} cells double every {e} minutes. How long does it take to reach {g}?",
        "A value of {n} doubles every {e} days. When is it {g}?",
        "The number of users, now {n}, doubles every {e} months. How many months "
        "until it is {g}?",
        "There are {n} bacteria. Their number doubles every {e} hours. When are there "
        "{g}?",
        "An investment of {n} euros doubles every {e} years. How many years until it "
        "is worth {g} euros?",
    ),
}  # fmt: skip

# Words of these occur in training too, but not in these sentences.
TEST: dict[str, tuple[str, ...]] = {
    "derivative": (
        "Please differentiate {name}(x){is_}{poly} step by step.",
        "What do you get if you differentiate {poly}?",
        "Find {name}'(x) for {name}(x){is_}{poly}.",
        "Determine the derivative of {poly}.",
    ),
    "critical": (
        "Please find the critical points of the function {name}(x){is_}{poly}.",
        "Find all x where the derivative of {name}(x){is_}{poly} is zero.",
        "Determine the stationary points of {name}(x){is_}{poly}.",
        "!Differentiate {poly}, then find the critical points.",
    ),
    "linear equation": (
        "Find the solution of {equation}.",
        "Please find x: {equation}",
        "Determine x if {equation}.",
    ),
    "quadratic equation": (
        "Find the solutions of {equation}.",
        "Please find x: {equation}",
        "Find the real roots of {equation}.",
    ),
    "growth": (
        "The value of a house is {n} euros and grows by {p}% every year. What is it "
        "after {t} years?",
        "A club has {n} members. Their number grows by {p}% a year. How many are "
        "there after {t} years?",
    ),
    "loss": (
        "A house is worth {n} euros and loses {p}% of its value per year. What is it "
        "worth in {t} years?",
        "A club of {n} members shrinks by {p}% every year. How many are left after "
        "{t} years?",
    ),
    "doubling": (
        "A number of {n} doubles every {e} hours. What is it after {t} hours?",
        "There are {n} cells. They double every {e} days. How many are there after "
        "{t} days?",
    ),
    "doubling time": (
        "There are {n} cells. They double every {e} days. How many days until there "
        "are {g}?",
        "A number of {n} doubles every {e} hours. After how many hours is it {g}?",
    ),
}


def _composed(*parts: Sequence[str]) -> Iterator[str]:
    """Make a wording of each choice from these parts, as a sentence."""
    for chosen in itertools.product(*parts):
        text = "".join(chosen)
        asks = text.removeprefix("!").startswith(("Can ", "Could ", "How ", "What "))
        yield text if text.endswith((".", "?")) else text + ("?" if asks else ".")


_WISHES = (
    "Find", "Compute", "Calculate", "Determine", "Work out", "Give", "Give me",
    "Tell me", "Write down", "Show me", "State", "I need", "I am looking for",
    "Please compute", "Please work out", "Can you find", "Could you work out",
    "Help me find", "I want to know", "Let us find",
)  # fmt: skip
_TO_SOLVE = (
    "Solve", "Please solve", "Can you solve", "Could you solve", "Help me solve",
    "Let us solve", "I have to solve", "Try to solve", "How do I solve", "Now solve",
)  # fmt: skip
_FUNCTIONS = (
    " {poly}", " {name}(x){is_}{poly}", " the function {name}(x){is_}{poly}",
    " the polynomial {poly}", " y{is_}{poly}",
)  # fmt: skip
_GIVEN = (
    " if {name}(x){is_}{poly}", " when {name}(x){is_}{poly}",
    " where {name}(x){is_}{poly}", " given that {name}(x){is_}{poly}",
)  # fmt: skip
_EQUATIONS = (
    " {equation}", " the equation {equation}", " for x: {equation}",
    " this: {equation}", " {equation} for x", " this equation: {equation}",
)  # fmt: skip
_UNDER = (
    ": {equation}", " if {equation}", " when {equation}", " from {equation}",
    " such that {equation}", " with {equation}",
)  # fmt: skip
_GROWING = (
    "A village has {n} inhabitants", "A library has {n} books",
    "A school has {n} pupils", "A herd has {n} animals",
    "A shop has {n} customers", "A city has {n} cars",
    "An orchard has {n} trees", "A channel has {n} viewers",
)  # fmt: skip
_AMOUNTS = (
    "A fund holds {n} euros", "A debt is {n} euros", "The rent is {n} euros",
    "A budget is {n} euros",
)  # fmt: skip
_LATER = (
    " What is the number in {t} years?", " How large is it {t} years later?",
    " Compute the number after {t} years.", " And after {t} years?",
)  # fmt: skip
_DOUBLING = (
    "A pond holds {n} algae", "A file has {n} lines", "A sample has {n} yeast cells",
    "A rumour has reached {n} people", "A chain letter has {n} readers",
)  # fmt: skip
_DOUBLES = (
    ". That doubles every {e} UNIT.", " and doubles in {e} UNIT.",
    ", twice as many every {e} UNIT.", ". It takes {e} UNIT to double.",
)  # fmt: skip
_UNITS = ("days", "hours", "weeks", "months", "years")


def _in_units(*asked: str) -> tuple[str, ...]:
    """Return these questions about what doubles, in each unit of time."""
    texts = list(_composed(_DOUBLING, _DOUBLES, asked))
    return tuple(text.replace("UNIT", unit) for unit in _UNITS for text in texts)


# Many more, put together of parts. Half of the training questions have them: with only
# two dozen to a kind the model knew them by heart, and took new ones for another kind.
COMPOSED: dict[str, tuple[str, ...]] = {
    "derivative": (
        *_composed(
            _WISHES,
            (" the derivative of", " the first derivative of", " the slope of"),
            _FUNCTIONS,
        ),
        *_composed(_WISHES, (" {name}'(x)", " the derivative"), _GIVEN),
        *_composed(
            ("Differentiate", "Now differentiate", "Can you differentiate",
             "How do I differentiate", "I have to differentiate",
             "Let us differentiate", "Take the derivative of",
             "What does one get by differentiating"),
            _FUNCTIONS,
            ("", " term by term", " with the power rule", " with respect to x"),
        ),
    ),
    "critical": (
        *_composed(
            _WISHES,
            (" the critical points of", " all critical points of", " the extrema of",
             " the stationary points of", " the turning points of",
             " every maximum and minimum of", " the zeros of the derivative of",
             " where the slope is zero on", " the x with a horizontal tangent to",
             " all maxima and minima of", " which x make the slope zero for"),
            _FUNCTIONS,
        ),
        *_composed(
            _WISHES,
            (" each x with {name}'(x) = 0", " where {name}'(x) is zero",
             " where the derivative vanishes", " the x at which the slope is 0",
             " for which x the derivative equals zero"),
            _GIVEN,
        ),
        *_composed(
            ("!Differentiate", "!Take the derivative of", "!Find the derivative of",
             "!Compute the derivative of", "!Work out the derivative of"),
            _FUNCTIONS,
            (" and then determine the critical points", ". Then look for the extrema",
             ", then tell me where it is zero", ". Where is it zero?",
             " and use it to find the critical points"),
        ),
    ),
    "linear equation": (
        *_composed(_TO_SOLVE, _EQUATIONS),
        *_composed(
            _WISHES, (" x", " the value of x", " the solution", " the number x"), _UNDER
        ),
    ),
    "quadratic equation": (
        *_composed(_TO_SOLVE, _EQUATIONS),
        *_composed(
            _WISHES,
            (" x", " all x", " the solutions", " every real solution", " both roots"),
            _UNDER,
        ),
    ),
    "growth": tuple(
        _composed(
            (*_GROWING, *_AMOUNTS),
            (". It grows by {p}% every year.", " and increases by {p}% annually.",
             ", {p}% more each year.", ". Each year it is {p}% more.",
             " and gains {p}% a year."),
            _LATER,
        )
    ),
    "loss": tuple(
        _composed(
            (*_GROWING, *_AMOUNTS),
            (". It falls by {p}% every year.", " and decreases by {p}% annually.",
             ", {p}% less each year.", ". Each year it is {p}% less.",
             " and loses {p}% a year."),
            _LATER,
        )
    ),
    "doubling": _in_units(
        " How many is that after {t} UNIT?", " What is it {t} UNIT later?",
        " Compute the number after {t} UNIT.",
    ),
    "doubling time": _in_units(
        " After how many UNIT are there {g}?", " When is the number {g}?",
        " How many UNIT does it take to get {g}?",
    ),
}  # fmt: skip
COMPOSED = {
    kind: tuple(text for text in texts if text not in TEST[kind])
    for kind, texts in COMPOSED.items()
}


def choose(kind: str, rng: random.Random, side: str, new: bool) -> str:
    """Draw a wording of a kind: a `new` one of the test, or one that is trained.

    Only training has the composed ones; a test in known words asks in those above.
    """
    if side == "train" and rng.random() < 0.5:
        return rng.choice(COMPOSED[kind])
    return rng.choice((TEST if new else TRAIN)[kind])


def dress(question: str, rng: random.Random) -> str:
    """Put words around a question, or none: an opening, an ending, or both."""
    return put_around(question, rng, OPENINGS, ENDINGS)
