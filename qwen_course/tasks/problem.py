"""What one problem is, and how training and test problems are kept apart."""

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "test")
TEST_SHARE = 5  # one content in five belongs to the test split


@dataclass(frozen=True)
class Problem:
    """One question with its worked solution and the answer that is graded.

    `content` holds what makes the problem what it is, without its wording: two
    problems with the same content are the same problem. `prompt` is the
    conversation that asks it.
    """

    skill: str
    kind: str
    content: tuple
    question: str
    thinking: str
    answer: str
    expected: str
    history: tuple[dict[str, Any], ...] = field(default=())
    exact: bool = False  # the answer must be `expected` to the letter
    contains: bool = False  # `expected` must occur in the answer, also if a number
    tools: tuple[dict[str, Any], ...] = ()  # what the model may call, as JSON schemas
    split: str | None = None  # given where wordings, not contents, are kept apart

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The messages to send: `history`, then the question.

        A problem without a question goes on after its history, as after a tool's
        response.
        """
        if not self.question:
            return list(self.history)
        return [*self.history, {"role": "user", "content": self.question}]

    @property
    def bare(self) -> bool:
        """Whether the question is sent as a bare text, without a chat template."""
        return False

    @classmethod
    def grade_all(
        cls, problems: "Sequence[Problem]", answers: Sequence[str]
    ) -> list[bool]:
        """Return for each of these problems whether its answer is right."""
        pairs = zip(problems, answers, strict=True)
        return [problem.grade(answer) for problem, answer in pairs]

    def grade(self, answer: str) -> bool:
        """Return whether `answer` is right.

        A number must be the last number of the answer and a text must occur in it,
        unless the problem asks for an exact answer.
        """
        if self.exact:
            return answer.strip() == self.expected
        if self.contains:
            return holds(answer, self.expected)
        return grade_text(answer, self.expected)


def grade_text(answer: str, expected: str) -> bool:
    """Compare the last number (if `expected` is one) or look for the key fact.

    >>> grade_text("12 + 30 = 42", "42")
    True
    >>> grade_text("I think it is Alibaba Cloud.", "alibaba cloud")
    True
    """
    if re.fullmatch(r"-?\d+", expected):
        numbers = re.findall(r"-?\d+", answer.replace(",", ""))
        return bool(numbers) and int(numbers[-1]) == int(expected)
    return holds(answer, expected)


def holds(answer: str, fact: str) -> bool:
    """Return whether `fact` occurs in the answer; a number in it must be whole.

    >>> holds("It has 128 experts and uses 8.", "128")
    True
    >>> holds("It has 128 experts and uses 8.", "28")
    False
    """
    before = r"(?<![\d.,])" if fact[0].isdigit() else ""
    after = r"(?!\d)" if fact[-1].isdigit() else ""
    pattern = before + re.escape(fact.casefold()) + after
    return re.search(pattern, answer.casefold()) is not None


def put_around(
    question: str, rng: random.Random, openings: Sequence[str], endings: Sequence[str]
) -> str:
    """Return a training question with an opening, an ending, both, or as it is.

    A model that has seen too few first words takes an unknown one for another problem.
    """
    if rng.random() < 0.25:
        question = rng.choice(openings) + question
    if rng.random() < 0.2 and question.endswith((".", "?")):
        question += rng.choice(endings)
    return question


def split_of(content: tuple) -> str:
    """Return "train" or "test" for a content, from a hash of the content itself.

    This keeps the splits apart by construction: whatever the seed, a content that
    training may see never occurs in a test.

    >>> split_of(("sum", 12, 30)) == split_of(("sum", 12, 30))
    True
    """
    digest = hashlib.sha256(repr(content).encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


def draw(
    make: Callable[[random.Random], Problem], rng: random.Random, split: str
) -> Problem:
    """Call `make(rng)` until the problem it makes belongs to `split`."""
    while True:
        problem = make(rng)
        if (problem.split or split_of(problem.content)) == split:
            return problem


def earlier(skill: Any, rng: random.Random, *arguments: Any) -> Problem:
    """Draw a problem for an earlier turn, always of the training split.

    So no test content is even read in training, as part of a history.
    """
    return draw(lambda source: skill.make(source, *arguments), rng, "train")


def distinct(
    make: Callable[[random.Random], Problem], n: int, seed: int, split: str
) -> list[Problem]:
    """Return `n` problems of `split`, no two with the same content.

    Raises ValueError for an unknown split, a negative `n`, or when the skill has
    fewer than `n` different problems.
    """
    if split not in SPLITS:
        raise ValueError(f'split "{split}" is not one of {", ".join(SPLITS)}.')
    if n < 0:
        raise ValueError(f"n is {n}; ask for 0 problems or more.")
    rng = random.Random(f"{split}/{seed}")
    return list(_distinct(make, rng, n, split))


def _distinct(
    make: Callable[[random.Random], Problem], rng: random.Random, n: int, split: str
) -> Iterator[Problem]:
    seen: set[tuple] = set()
    misses = 0
    while len(seen) < n:
        problem = draw(make, rng, split)
        if problem.content in seen:
            misses += 1
            if misses > 1000 + 20 * n:
                raise ValueError(
                    f"this skill has about {len(seen)} different {split} problems; "
                    f"you asked for {n}. Ask for fewer."
                )
            continue
        seen.add(problem.content)
        yield problem
