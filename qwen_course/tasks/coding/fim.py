"""Fill in the middle: the bare prompt of Qwen2.5-Coder, without a chat template.

Order and tokens as in the QwenLM/Qwen2.5-Coder README: prefix, suffix, then the model
writes the middle and ends with <|endoftext|>.
"""

import random
import re
from typing import NamedTuple


class Hole(NamedTuple):
    """A text with a part taken out."""

    prefix: str
    middle: str
    suffix: str


HOLES = ("lines", "rest of a line", "inside a line", "body")
# Where a person stops to think: before a word, behind a word or a bracket.
BEGINS = re.compile(r"(?<=[\s(\[{])(?=\S)")
ENDS = re.compile(r"(?<=[\w)\]}\"])(?!\w)")


def fim_prompt(prefix: str, suffix: str) -> str:
    """Return the prompt that asks for what belongs between `prefix` and `suffix`.

    >>> fim_prompt("def f(x):\\n    return ", "\\n")
    '<|fim_prefix|>def f(x):\\n    return <|fim_suffix|>\\n<|fim_middle|>'
    """
    return f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"


def make_hole(code: str, rng: random.Random, kind: str | None = None) -> Hole:
    """Take a part out of the body of a function, behind its docstring.

    `kind` is one of HOLES, drawn when None.
    """
    kind = kind or rng.choice(HOLES)
    start = _body(code)
    if kind == "body":
        return _cut(code, start + _indent(code, start), len(code))
    lines = [match.span() for match in re.finditer(r"[^\n]+", code)]
    lines = [span for span in lines if span[0] >= start]
    first = rng.randrange(len(lines))
    left, right = lines[first]
    left += _indent(code, left)
    if kind == "lines":
        last = min(len(lines) - 1, first + rng.choice((0, 0, 1, 2)))
        if rng.random() < 0.3:  # the indentation is to be written as well
            left = lines[first][0]
        return _cut(code, left, lines[last][1])
    line = code[left:right]
    begins = [left, *(left + match.start() for match in BEGINS.finditer(line))]
    begin = rng.choice(begins[: len(begins) // 2 + 1])
    if kind == "rest of a line":
        return _cut(code, begin, right)
    ends = [left + match.start() for match in ENDS.finditer(line)]
    return _cut(
        code, begin, rng.choice([end for end in ends if end > begin] or [right])
    )


def _body(code: str) -> int:
    """Return where the first line after signature and docstring begins."""
    docstring = code.rfind('"""\n')
    return docstring + 4 if docstring >= 0 else code.index("\n") + 1


def _indent(code: str, start: int) -> int:
    return len(code) - start - len(code[start:].lstrip(" "))


def _cut(code: str, left: int, right: int) -> Hole:
    return Hole(code[:left], code[left:right], code[right:])
