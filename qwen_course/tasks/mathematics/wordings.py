"""How the questions are worded: most for training, some for the test alone.

{poly} is the polynomial, {name} the name of the function, {is_} the equals sign.
A wording that begins with "!" asks for the derivative term by term as well.
"""

import random

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


def dress(question: str, rng: random.Random) -> str:
    """Put words around a question, or none: an opening, an ending, or both."""
    return put_around(question, rng, OPENINGS, ENDINGS)
