"""A new question in the middle of a conversation: what came before must not matter."""

import random
from dataclasses import replace

from qwen_course.tasks import course_questions, products, sums, word_problems
from qwen_course.tasks.problem import Problem, distinct, draw, earlier

SKILL = "new_questions"
ASKED = (sums, products, word_problems)


def _earlier_turn(rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    """Return a question and its answer; the answer only, as the template keeps it."""
    skill = rng.choice((sums, products, word_problems, course_questions))
    problem = skill.make(rng) if skill is course_questions else earlier(skill, rng)
    return (
        {"role": "user", "content": problem.question},
        {"role": "assistant", "content": problem.answer},
    )


def make(rng: random.Random, split: str = "train") -> Problem:
    """Make a problem or a course question that follows one or two other turns."""
    turns = [_earlier_turn(rng) for _ in range(rng.choice((1, 1, 2)))]
    history = tuple(message for turn in turns for message in turn)
    if rng.random() < 0.4:
        problem, kind = course_questions.make(rng, split), "new course question"
    else:
        problem, kind = draw(rng.choice(ASKED).make, rng, split), "new problem"
    return replace(problem, skill=SKILL, kind=kind, history=history, split=split)


def problems(n: int, seed: int = 0, split: str = "test") -> list[Problem]:
    """Return `n` questions with a history that has nothing to do with them.

    >>> len(problems(1, seed=0)[0].history) in (2, 4)
    True
    """
    return distinct(lambda rng: make(rng, split), n, seed, split)
