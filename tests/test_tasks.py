"""Problems: right by construction, and never both trained on and tested on."""

import ast
import operator
import random
import re

import pytest

from qwen_course import tasks
from qwen_course.tasks import problem as problems
from training.data import Mix, draw_problem

GENERATED = [
    tasks.sums,
    tasks.products,
    tasks.word_problems,
    tasks.instructions,
    tasks.dialogues,
    tasks.new_questions,
]
EVERY = [*GENERATED, tasks.course_questions]
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def compute(text: str) -> float:
    """Evaluate one operation between two numbers, such as "12 × 3"."""
    tree = ast.parse(text.replace("×", "*"), mode="eval").body
    assert isinstance(tree, ast.BinOp)
    left, right = (ast.literal_eval(side) for side in (tree.left, tree.right))
    return OPERATORS[type(tree.op)](left, right)


@pytest.mark.parametrize("skill", EVERY, ids=lambda module: module.SKILL)
def test_the_same_seed_gives_the_same_problems(skill):
    assert skill.problems(20, seed=3) == skill.problems(20, seed=3)
    assert skill.problems(20, seed=3) != skill.problems(20, seed=4)


@pytest.mark.parametrize("skill", GENERATED, ids=lambda module: module.SKILL)
def test_no_two_problems_of_a_set_have_the_same_content(skill):
    contents = [problem.content for problem in skill.problems(200, seed=1)]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize("skill", EVERY, ids=lambda module: module.SKILL)
def test_every_answer_of_the_generator_is_graded_right(skill):
    assert all(p.grade(p.answer) for p in skill.problems(100, seed=2))


@pytest.mark.parametrize("skill", [tasks.sums, tasks.products, tasks.word_problems])
def test_every_worked_step_is_true_and_the_last_is_the_answer(skill):
    for problem in skill.problems(300, seed=5):
        for step in problem.thinking.splitlines():
            left, _, right = step.partition(" = ")
            assert compute(left) == int(right) if left.count(" ") == 2 else True
        assert step.endswith(f" {problem.expected}")


def test_no_test_problem_is_ever_drawn_for_training():
    """Ten thousand training draws against all test sets the course uses."""
    rng, mix = random.Random(7), Mix(new_questions=0.2)
    trained = {draw_problem(rng, mix).content for _ in range(10_000)}
    for skill in EVERY:
        tested = {problem.content for problem in skill.problems(300, seed=0)}
        assert not trained & tested


def test_no_test_problem_is_even_read_in_training_as_an_earlier_turn():
    """A history's numbers, in any order, against those of the test problems.

    The sign tells a sum from a product; a question in words is a word problem.
    """

    def numbers(text):
        sign = "*" if re.search(r"[*×]|times|product|ultipl|çarp", text) else "+"
        return sign, *sorted(map(int, re.findall(r"\d+", text)))

    rng, mix = random.Random(8), Mix(dialogues=1.0, new_questions=1.0)
    read = {
        numbers(message["content"])
        for _ in range(4000)
        for message in draw_problem(rng, mix).history
        if message["role"] == "user"
    }
    for skill in (tasks.sums, tasks.products):
        for problem in skill.problems(300, seed=0):
            assert numbers(problem.question) not in read


def test_generated_problems_are_split_by_content_whatever_the_seed():
    for skill in GENERATED:
        for split in problems.SPLITS:
            drawn = skill.problems(100, seed=9, split=split)
            assert {problems.split_of(p.content) for p in drawn} == {split}


def test_the_order_of_summands_and_factors_makes_no_new_content():
    rng = random.Random(0)
    contents = {tuple(sorted(tasks.products.make(rng).content[1:])) for _ in range(500)}
    assert all(a <= b for a, b in contents)


def test_course_questions_are_tested_in_wordings_that_training_lacks():
    for language in tasks.course_questions.LANGUAGES:
        trained = tasks.course_questions.every_problem("train", language)
        tested = tasks.course_questions.every_problem("test", language)
        assert not {p.question for p in trained} & {p.question for p in tested}
        assert {p.expected for p in trained} == {p.expected for p in tested}


def test_every_course_fact_has_a_source_and_holds_its_key():
    for fact in tasks.course_questions.facts()["questions"]:
        assert fact["source"]
        for language in tasks.course_questions.LANGUAGES:
            assert fact[language]["key"] in fact[language]["answer"]


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("She has 14 apples left.", "14", True),
        ("12 + 30 = 42", "42", True),
        ("42 of 50", "42", False),
        ("1,692", "1692", True),
        ("", "42", False),
        ("It is Alibaba cloud.", "Alibaba Cloud", True),
        ("It is somebody else.", "Alibaba Cloud", False),
    ],
)
def test_grading_reads_the_last_number_or_looks_for_the_fact(answer, expected, right):
    assert problems.grade_text(answer, expected) is right


def test_an_instruction_must_be_followed_to_the_letter():
    problem = tasks.instructions.problems(1, kind="count up")[0]
    assert problem.grade(problem.answer)
    assert not problem.grade(problem.answer + ", 99")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.sums.problems(1, count=8), "2 to 7 numbers"),
        (lambda: tasks.sums.problems(-1), "0 problems or more"),
        (lambda: tasks.sums.problems(1, split="dev"), "train, test"),
        (lambda: tasks.products.problems(10_000), "different test problems"),
        (lambda: tasks.word_problems.problems(1, kind="ages?"), "not one of"),
        (lambda: tasks.instructions.problems(1, kind="sing"), "not one of"),
        (lambda: tasks.dialogues.problems(1, kind="sing"), "not one of"),
        (lambda: tasks.course_questions.problems(1, language="xx"), "en, tr"),
        (lambda: tasks.course_questions.problems(99_999), "such questions"),
        (lambda: tasks.course_questions.problems(1, split="dev"), "train, test"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_can(call, message):
    with pytest.raises(ValueError, match=message):
        call()
