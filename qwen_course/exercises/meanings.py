"""What the name of a misconception means, in the words that the checks use.

A progress file and a live message hold names alone: the words of a check quote the
answer. Here they are read from the source of the judges, with "…" for what is quoted.
"""

import ast
import functools
import importlib
import inspect
import re
from typing import Any

from qwen_course.exercises import mistakes, question

MOST = 160  # characters
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SPECIAL = {
    "raises": "The function fails with an error.",
    "odd-type": "The answer is of a type that no check can look at.",
    "odd-form": "The answer has a form that the check does not understand.",
    "check-fails": "The cell with the check fails in the submission.",
}
# For names whose own text says little more than what the answer was.
_PLAIN = {
    "other": "The result is wrong, and none of the known mistakes makes it so.",
    "no-number": "The answer is no number.",
    "no-bool": "The answer is neither True nor False.",
    "no-text": "The answer is no text.",
    "no-list": "The answer is no list.",
    "no-pair": "The answer is no pair of values.",
    "no-dict": "The answer is no dictionary.",
    "swapped": "The values are right and in the wrong order.",
    "missing": "A part of the answer is missing.",
}
# What a sentence goes on with behind what was filled in: as its subject, or as a place.
_VERBS = (
    r"(?:always|began|begins|changed|computes|counts|divide[ds]|does|ends|failed|gave|ha[ds]|"
    r"holds|is|lets|made|masks|must|never|printed|raised|reads|repeats|returned|rounds|sets|"
    r"sorts|stands|strips|takes|thinks|was)\b"
)
_CLAUSE = (
    r"(?:a(?:ll)?|at|both|each|every|find|give|in|its?|no|nobody|not|nothing|of|one|only|return|"
    r"sizes|the|there|these|this|to|until|what|where|which|with|your?)\b"
)
Texts = dict[str, list[tuple[int, str]]]  # by name: (line, text)


def meaning(id: str, mistake: str) -> str:
    """Return in a sentence or two what a mistake of a question is, "" if unknown.

    >>> meaning("01.q1", "no-keys")
    'You left out the matrices of keys and values.'
    """
    if mistake in _SPECIAL:
        return _SPECIAL[mistake]
    asked = question.get(id)
    module = inspect.getmodule(asked.judge)
    texts = _texts(module.__name__).get(mistake) if module else None
    if not texts:
        texts = _texts(mistakes.__name__).get(mistake)
    if not texts:
        return _PLAIN.get(mistake, "")
    # Two questions of a lesson may share a name: the nearest text is this one's.
    line = inspect.unwrap(asked.judge).__code__.co_firstlineno
    return min(texts, key=lambda one: abs(one[0] - line))[1]


@functools.lru_cache
def _texts(module: str) -> Texts:
    """Return the texts of all mistakes that a module's source names."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    found: Texts = {}

    def keep(name: Any, text: ast.expr, scope: ast.AST) -> None:
        named = isinstance(name, ast.Constant) and _NAME.fullmatch(str(name.value))
        if named and (words := _tidy(_words(text, scope))):
            found.setdefault(name.value, []).append((text.lineno, words))

    for scope in [*(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)), tree]:
        for node in ast.walk(scope):
            if isinstance(node, ast.Dict):
                for name, text in zip(node.keys, node.values, strict=True):
                    keep(name, text, scope)
            elif isinstance(node, ast.Call | ast.Tuple):
                parts = node.args if isinstance(node, ast.Call) else node.elts
                if len(parts) > 1:
                    keep(parts[0], parts[-1], scope)
    return found


def _words(node: ast.expr, scope: ast.AST) -> str:
    """Return a text as it stands in the source, with "…" for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part, scope) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _words(node.left, scope) + _words(node.right, scope)
    if isinstance(node, ast.Tuple) and node.elts:
        return _words(node.elts[-1], scope)
    if isinstance(node, ast.Name):
        before = [
            one for one in ast.walk(scope)
            if isinstance(one, ast.Assign) and one.lineno < node.lineno
            and any(getattr(target, "id", "") == node.id for target in one.targets)
        ]  # fmt: skip
        if before:
            return _words(max(before, key=lambda one: one.lineno).value, scope)
    return "…"


def _tidy(text: str) -> str:
    """Return the whole sentences that fit, "" where too little is left to read.

    What was filled in says nothing without the answer: a place before a colon goes, the
    subject becomes "It", and a sentence that only quotes goes where another follows.

    >>> _tidy("…: … gave {value!r}, no list. Return one text.")
    'It gave …, no list. Return one text.'
    >>> _tidy("{where}: you returned {value}. Return the number, not billions.")
    'Return the number, not billions.'
    """
    text = re.sub(r"\{[^}]*\}", "…", text)
    text = re.sub(r"…(?: …)+|……+", "…", text)
    text = re.sub(r"^…[:.]? ?(?=[A-Z])|^…: ?|^…(?=[a-z])", "", text).strip()
    text = re.sub(r"(?<=[.?!]) …$", "", text)
    text = re.sub(rf"^(?:… )?(?={_VERBS})", "It ", text)
    text = re.sub(rf"^… (?={_CLAUSE})", "", text)
    text = re.sub(rf"^{_CLAUSE}(?![._(])", _capital, text)
    quotes = r"(?:It|You) (?:gave|returned|say|ends in|needs|was) …(?: GiB)?\. "
    text = re.sub(rf"^{quotes}(?=(?:\W*\w+){{4}})", "", text)
    if len(re.findall(r"\w{2,}", text)) < 4 or text.count("…") > 2:
        return ""
    if len(text) <= MOST:
        return text
    whole = re.match(rf".{{40,{MOST}}}?[.?!](?= )", text)
    return whole[0] if whole else text[:MOST].rsplit(" ", 1)[0] + " …"


def _capital(found: re.Match[str]) -> str:
    return found[0].capitalize()
