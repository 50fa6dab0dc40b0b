"""What the harness asks the tasks of this folder: the course's problems as rows.

They are made from a seed, so there is nothing to download. The course's own graders
decide what is right, not a comparison of texts.
"""

from typing import Any

from datasets import Dataset

from qwen_course import tasks

SEED, MOST = 91, 1000


def _rows(skill: str) -> dict[str, Dataset]:
    found = getattr(tasks, skill).problems(MOST, seed=SEED)
    rows = [
        {"skill": skill, "number": number, "question": p.question, "answer": p.expected}
        for number, p in enumerate(found)
    ]
    return {"test": Dataset.from_list(rows)}


def sums(**_: Any) -> dict[str, Dataset]:
    """Return the rows of sums; the harness passes settings that nobody needs here."""
    return _rows("sums")


def products(**_: Any) -> dict[str, Dataset]:
    """Return the rows of products."""
    return _rows("products")


def word_problems(**_: Any) -> dict[str, Dataset]:
    """Return the rows of word problems."""
    return _rows("word_problems")


def grade(row: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Judge one answer; what stands before </think> is thinking and does not count.

    An answer that was cut off while thinking is none.
    """
    text = results[0]
    thought, closed, answer = text.rpartition("</think>")
    if not closed:
        answer = "" if text.lstrip().startswith("<think>") else text
    return {"right": float(tasks.problem.grade_text(answer, str(row["answer"])))}
