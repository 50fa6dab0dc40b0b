"""`qc.check` and `qc.hint`: never an exception, never an endless loop."""

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from qwen_course.exercises import keeping, limits, question, sharing
from qwen_course.exercises.feedback import Feedback, show
from qwen_course.exercises.question import Mistake, NotPlain, Question

SEED = 0  # of the cases; the grader draws another
_TO_DO = "Replace the ... with your answer, run the cell again, then this one."
_hints_given: dict[str, int] = {}
# In the grader's process of a submission: takes (id, what the probe saw).
recorder: Callable[[str, dict[str, Any]], None] | None = None
recorder_seed = SEED


def check(id: str, answer: Any = ...) -> None:
    """Say whether an answer is right, and if not, what is wrong and why.

    `answer` is a value or a function; `...` is not answered yet. Shows *to do*, *not
    yet* or *right*, and keeps it for `qc.progress()`. It never raises.

    Example:
        qc.check("01.q1", count_parameters)
    """
    if recorder is not None:
        recorder(str(id), look(str(id), answer, recorder_seed))
        return
    feedback = _stoppable(id, lambda: verdict(id, answer))
    keeping.record(feedback)
    show(feedback)
    sharing.tell(feedback)  # to the teacher, where the learner asked for it


def _stoppable(id: Any, said: Callable[[], Feedback]) -> Feedback:
    """Return what a check says, also when the learner presses stop, or it is broken."""
    try:
        return said()
    except KeyboardInterrupt:
        text = "You stopped this check before it was done."
    except Exception as error:
        text = f"This check is broken, not your answer: {limits.words(error)}."
    return Feedback(_name(id), "no verdict", "to do", text)


def _name(id: Any) -> str:
    return id if type(id) is str else "?"


def verdict(id: str, answer: Any = ..., seed: int = SEED) -> Feedback:
    """Return what `check` shows, without showing or keeping it."""
    try:
        asked = question.get(id)
    except ValueError as error:
        return _unknown(id, error)
    return judge(asked, look(id, answer, seed), seed)


def look(id: str, answer: Any, seed: int = SEED) -> dict[str, Any]:
    """Return what the probe of a question sees in an answer, as plain data.

    A dict with one key: "stub", "seen", "odd" (an answer of a kind that can't be
    looked at), "late" (it was not done in time) or "failed" (the probe itself). Needs
    no judge.
    """
    if question.is_stub(answer):
        return {"stub": True}
    seen: list[Any] = []

    def work() -> None:
        seen.append(question.plain(question.probe_of(id)(answer, seed)))

    # A value may be lazy: to look at it may run code of the learner's.
    with limits.apart(seed):
        error = limits.within(limits.PROBE_SECONDS, work)
    if isinstance(error, limits.TooLate):
        return {"late": True}
    if isinstance(error, NotPlain):
        return {"odd": str(error)}
    return {"failed": limits.words(error)} if error else {"seen": seen[0]}


def judge(asked: Question, looked: dict[str, Any], seed: int = SEED) -> Feedback:
    """Return the verdict on what a probe saw."""
    if "stub" in looked or _all_stubs(looked.get("seen")):
        return Feedback(asked.id, asked.title, "to do", _TO_DO)
    if "odd" in looked:
        text = f"Your answer is {looked['odd']}. Give numbers, texts, lists or dicts."
        return Feedback(asked.id, asked.title, "not yet", text, "odd-type")
    if "late" in looked:
        text = "Your answer was stopped: it was not done in time."
        return Feedback(asked.id, asked.title, "not yet", text, "endless")
    if "failed" in looked:
        return _odd_form(asked, looked["failed"])
    try:
        mistake = asked.judge(looked["seen"], seed)
    except Exception as error:  # a gap in the judge must not stop a learner
        return _odd_form(asked, limits.words(error))
    if isinstance(mistake, Mistake):
        return Feedback(asked.id, asked.title, "not yet", mistake.text, mistake.name)
    return Feedback(asked.id, asked.title, "right", asked.why)


def _odd_form(asked: Question, reason: str) -> Feedback:
    text = (
        f"This answer has a form that the check does not understand ({reason}). "
        "Compare it with the example in the question."
    )
    return Feedback(asked.id, asked.title, "not yet", text, "odd-form")


def _all_stubs(seen: Any) -> bool:
    """Return whether every call of a function gave the `...` of its stub."""
    calls = seen if isinstance(seen, list) else [seen]
    outcomes = [one for one in calls if isinstance(one, dict) and "stub" in one]
    return bool(outcomes) and all(one["stub"] for one in outcomes)


def hint(id: str) -> None:
    """Show the first hint, at the next call the second, then where to look."""
    try:
        asked = question.get(id)
    except ValueError as error:
        show(_unknown(id, error))
        return
    number = _hints_given.get(id, 0)
    _hints_given[id] = number + 1
    keeping.record_hint(id)
    show(_Hint(asked, min(number, len(asked.hints))))


def _unknown(id: Any, error: Exception) -> Feedback:
    text = str(error)
    sentence = text[:1].upper() + text[1:]
    return Feedback(_name(id), "unknown question", "to do", sentence)


def _address(target: str) -> str:
    """Return where a lesson lies, seen from an exercise."""
    if "google.colab" not in sys.modules:
        return f"../notebooks/{target}"
    from qwen_course.notebooks import colab_link

    return colab_link(Path("notebooks", target.partition("#")[0]))


class _Hint:
    """One hint, or the place in the lesson; shows itself."""

    def __init__(self, asked: Question, number: int) -> None:
        self.asked, self.number = asked, number

    def __str__(self) -> str:
        if self.number < len(self.asked.hints):
            return f"Hint {self.number + 1}: {self.asked.hints[self.number]}"
        return (
            f"Look in the lesson: {self.asked.look[0]} (notebooks/{self.asked.look[1]})"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        html = f"<div>{escape(str(self))}</div>"
        if self.number >= len(self.asked.hints):
            text, target = self.asked.look
            link = f'<a href="{escape(_address(target))}">{escape(text)}</a>'
            html = f"<div>Look in lesson {self.asked.lesson}: {link}</div>"
        return {"text/plain": str(self), "text/html": html}
