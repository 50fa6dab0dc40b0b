"""Grade answers to coding problems: parse them, look at them, run the hidden tests."""

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_course.sandbox import run_many

if TYPE_CHECKING:
    from qwen_course.tasks.coding.problems import CodingProblem


@dataclass(frozen=True)
class Grade:
    """What an answer is worth.

    `styled` tells whether docstring and type hints are there as far as they were asked
    for; `error` is what the first failing test shows.
    """

    parses: bool
    passed: bool
    styled: bool
    error: str = ""

    @property
    def right(self) -> bool:
        """Whether the answer passes all tests and has what was asked for."""
        return self.passed and self.styled


def grade_all(
    problems: Sequence["CodingProblem"], answers: Sequence[str], seconds: float = 2.0
) -> list[Grade]:
    """Grade many answers, all of them run in one sandbox."""
    pairs = zip(problems, answers, strict=True)
    codes = [problem.code_of(answer) for problem, answer in pairs]
    jobs = [
        (code, _tests(problem, code))
        for problem, code in zip(problems, codes, strict=True)
    ]
    runs = run_many(jobs, seconds)
    return [
        Grade(parses(code), run.passed, styled(code, problem.style), run.error)
        for problem, code, run in zip(problems, codes, runs, strict=True)
    ]


def _tests(problem: "CodingProblem", code: str) -> list[str]:
    """Return the tests, under the name that the answer chose where that was free."""
    if problem.named:
        return problem.tests
    name = last_function(code)
    call, own = f"assert {problem.task.name}(", f"assert {name}("
    return [own + test.removeprefix(call) for test in problem.tests]


def parses(code: str) -> bool:
    """Return whether Python can read the code."""
    return _tree(code) is not None


def _tree(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of "2else", for one
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _functions(code: str) -> list[ast.FunctionDef]:
    tree = _tree(code)
    body = tree.body if tree else []
    return [node for node in body if isinstance(node, ast.FunctionDef)]


def last_function(code: str) -> str:
    """Return the name of the last function of a program, "" if it has none."""
    return next((node.name for node in reversed(_functions(code))), "")


def styled(code: str, style: Sequence[str]) -> bool:
    """Return whether the last function has the docstring and type hints of `style`.

    >>> styled("def f(x: int) -> int:\\n    return x", ("hints",))
    True
    """
    functions = _functions(code)
    if not functions:
        return False
    node = functions[-1]
    documented = "docstring" not in style or bool(ast.get_docstring(node))
    typed = all(one.annotation for one in node.args.args) and node.returns is not None
    return documented and ("hints" not in style or typed)
