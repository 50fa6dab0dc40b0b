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
    tasks.tool_calls,
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
    rng, mix = random.Random(7), Mix()
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
            assert {p.split or problems.split_of(p.content) for p in drawn} == {split}


def test_the_order_of_summands_makes_no_new_content():
    rng = random.Random(0)
    contents = [tasks.sums.make(rng).content[1:] for _ in range(500)]
    assert all(list(numbers) == sorted(numbers) for numbers in contents)


def test_a_product_is_in_the_split_of_its_mirror_image():
    tested = [problem.content for problem in tasks.products.problems(1000)]
    mirrored = {(skill, b, a) for skill, a, b in tested}
    trained = tasks.products.problems(1000, split="train")
    assert not mirrored & {problem.content for problem in trained}


course = tasks.course_questions


@pytest.mark.parametrize("kind", course.SHARES)
def test_course_questions_are_tested_in_wordings_that_training_lacks(kind):
    def plain(question):
        return re.sub(r"[\W_]", "", question.casefold())

    for language in course.LANGUAGES:
        trained = course.every(kind, "train", language)
        tested = course.every(kind, "test", language)
        assert not {plain(p.question) for p in trained} & {
            plain(p.question) for p in tested
        }
        if kind == "fact":
            assert {p.expected for p in trained} == {p.expected for p in tested}


def test_every_language_knows_the_same_facts_and_each_has_a_source():
    sources = course.facts()["sources"]
    assert len(sources) >= 120
    assert all(sources.values())
    for language in course.LANGUAGES:
        assert list(course.texts(language)["facts"]) == list(sources)


@pytest.mark.parametrize("language", course.LANGUAGES)
def test_every_course_answer_holds_its_key_and_no_question_is_asked_twice(language):
    questions = []
    for split in problems.SPLITS:
        for kind in course.SHARES:
            every = course.every(kind, split, language)
            assert all(problem.grade(problem.answer) for problem in every)
            questions += [problem.question for problem in every]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("language", course.LANGUAGES)
def test_every_pattern_of_an_unknown_question_has_one_gap(language):
    unknown = course.texts(language)["unknown"]
    for split in problems.SPLITS:
        for pattern in unknown["patterns"][split]:
            gaps = re.findall(r"\{(\w+)\}", pattern)
            assert len(gaps) == 1
            assert unknown["fillers"][gaps[0]][split]


def test_training_never_sees_a_test_wording_of_the_course():
    """Draws roughen and wrap a question; what is asked must still be of training."""
    rng = random.Random(3)
    for language in course.LANGUAGES:
        tested = {p.question for p in course.every("fact", "test", language)}
        for _ in range(300):
            problem = course.make(rng, "train")
            assert problem.split == "train"
            assert problem.question not in tested


def test_a_roughened_question_keeps_every_word_that_says_what_is_asked():
    rng = random.Random(0)
    question = "What is the recommended temperature for thinking mode?"
    for _ in range(100):
        rough = course.roughen(question, "en", rng).lower()
        assert {"recommended", "temperature", "thinking"} <= set(rough.split())


def test_a_question_for_several_languages_is_answered_in_each_of_them():
    problem = course.multilingual(random.Random(1))
    names = course.facts()["language_names"]
    asked = [code for code, name in names.items() if name in problem.question]
    assert len(asked) >= 2
    assert all(f"{names[code]}: " in problem.answer for code in asked)


def test_a_tool_problem_goes_on_from_what_its_history_holds():
    kinds = {kind: tasks.tool_calls.problems(1, kind=kind)[0]
             for kind in tasks.tool_calls.KINDS}  # fmt: skip
    roles = {kind: [message["role"] for message in problem.prompt]
             for kind, problem in kinds.items()}  # fmt: skip
    assert roles["one call"] == ["user"]
    assert roles["second of two calls"] == ["user", "assistant", "tool"]
    assert roles["answer after two calls"][-3:] == ["tool", "assistant", "tool"]
    response = kinds["answer after two calls"].prompt[-1]["content"]
    assert kinds["answer after two calls"].expected == response


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
        ("It has 128 layers.", "28 layers", False),
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
        (lambda: tasks.course_questions.problems(1, kind="joke"), "fact, unknown"),
        (lambda: tasks.tool_calls.problems(1, kind="phone"), "not one of"),
        (lambda: tasks.course_questions.problems(99_999), "such questions"),
        (lambda: tasks.course_questions.problems(1, split="dev"), "train, test"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_can(call, message):
    with pytest.raises(ValueError, match=message):
        call()
