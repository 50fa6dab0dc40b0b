"""A probe for the tests of the grader: cheap, and of no real lesson."""

import random

from qwen_course.exercises.limits import call


def numbers(seed: int) -> list[int]:
    return random.Random(seed).sample(range(1, 1000), 3)


def q1(answer, seed):
    return [call(answer, number) for number in numbers(seed)]


PROBES = {"90.q1": q1, "90.q2": q1}
