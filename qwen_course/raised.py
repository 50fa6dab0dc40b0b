"""Every message that the course's own code can raise, read from its source.

A message is found where an exception is made with a text, where a warning or a check of
the doctor says one, and in the functions that write sentences for others to raise.
What varies in it stands as "…". `python -m qwen_course.raised` prints what the
troubleshooting page lacks, in the form of its entries.
"""

import ast
import builtins
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("qwen_course", "workshop", "docs")
GAP = "…"
# Functions and classes that take a sentence for a person, and the place of it.
SAYS = {
    "warn": 0,
    "malformed": 0,
    "_tell_once": 0,
    "_why": 0,
    "kind": 0,
    "failure": 1,
    "Fault": 2,
}
# Functions that return such sentences, or lists of them, by their names.
SENTENCES = re.compile(
    r"_?why_(not|missing|no)(_\w+)?|\w+_problem|pip_reason|_?refusal|failure|verify|"
    r"sentence|wrong_bytes|unsafe_files|_faults?|_unknown|_gated|_no_\w+|_broken|"
    r"_problems|disk_full"
)
# The project's own exceptions end in one of these; Python's are known by themselves.
OURS = (
    *("Refused", "Error", "TooLow", "Full", "Closed"),
    *("Plain", "Unreadable", "NewerFile", "NotLocal", "Refusal"),
)
FEWEST = 2  # words that a message has at least

Inside = tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]


@dataclass(frozen=True, order=True)
class Message:
    """A text with gaps, and the module that can raise it, as in "qwen_course.chat".

    `line` is where it stands. A message that is all gaps has the text "".
    """

    text: str
    module: str
    line: int = field(compare=False, default=0)


@cache
def messages(root: Path = ROOT) -> tuple[Message, ...]:
    """Return all messages of the project, sorted, each once for a module.

    Where the text is "" an error is made whose words come from somewhere else.
    """
    found: set[Message] = set()
    for path in sources(root):
        found.update(read(path.read_text("utf-8"), module_name(path, root)))
    return tuple(sorted(found))


def sources(root: Path = ROOT) -> list[Path]:
    """Return the Python files that a learner or a teacher runs."""
    files = {path for place in PLACES for path in (root / place).rglob("*.py")}
    return sorted({root / "course.py", *files})


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return a file's dotted name below the project's folder.

    >>> module_name(ROOT / "qwen_course/tasks/__init__.py")
    'qwen_course.tasks'
    """
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(source: str, module: str = "") -> Iterator[Message]:
    """Yield the messages in one file's source.

    >>> [one.text for one in read("raise ValueError(f'rank is {rank}; give 1 or 2.')")]
    ['rank is …; give 1 or 2.']
    """
    tree = ast.parse(source)
    constants = _constants(tree)
    for node, inside in _walk(tree):
        for parts in _said(node, inside):
            texts = _readable(parts, constants, inside, False)
            texts = texts or _readable(parts, constants, inside, True)
            if not texts and isinstance(node, ast.Call) and _is_error(node):
                texts = {""}
            for text in texts:
                yield Message(text, module, getattr(node, "lineno", 0))


def _walk(tree: ast.AST) -> Iterator[tuple[ast.AST, Inside]]:
    """Yield every node with the functions around it, the nearest last."""
    waiting: list[tuple[ast.AST, Inside]] = [(tree, ())]
    while waiting:
        node, inside = waiting.pop()
        yield node, inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*inside, node)
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def _said(node: ast.AST, inside: Inside) -> Iterator[list[ast.expr]]:
    """Yield the parts of each message that stands at a node."""
    if isinstance(node, ast.Call):
        name = _name(node.func)
        if name == "Refused":  # what is wrong, and what to do
            yield [part for part in node.args[:2] if _is_text(part)] or node.args[:1]
        elif _is_error(node) and node.args:  # OSError(errno, text) too
            yield next(([part] for part in node.args if _is_text(part)), node.args[:1])
        elif name in SAYS and len(node.args) > SAYS[name]:
            yield [node.args[SAYS[name]]]
        elif name == "Check" and len(node.args) > 3:
            yield [_joined(node.args[0], ":"), node.args[3]]
    if not inside or not SENTENCES.fullmatch(inside[-1].name):
        return
    match node:
        case ast.Return(value=ast.List(elts=listed)):
            yield from ([one] for one in listed)
        case ast.Return(value=ast.expr() as said) | ast.Yield(value=ast.expr() as said):
            yield [said]
        case ast.ListComp(elt=said):
            yield [said]
        case ast.Call(func=ast.Attribute(attr="append"), args=[said]):
            yield [said]


def _name(function: ast.expr) -> str:
    """Return the last part of the name of what is called."""
    if isinstance(function, ast.IfExp):  # (ValueError if asked else OSError)(said)
        return _name(function.body)
    return getattr(function, "id", getattr(function, "attr", ""))


def _is_error(call: ast.Call) -> bool:
    """Return whether a call makes an exception."""
    name = _name(call.func)
    known = getattr(builtins, name, None)
    if isinstance(known, type):
        return issubclass(known, BaseException)
    return name[:1].isupper() and name.endswith(OURS)


def _is_text(part: ast.expr) -> bool:
    if isinstance(part, ast.Constant):
        return isinstance(part.value, str)
    return isinstance(part, ast.JoinedStr | ast.BinOp | ast.IfExp)


def _has_words(text: str) -> bool:
    return len(re.findall(r"[^\W\d_]{2,}", text)) >= FEWEST


def _joined(part: ast.expr, end: str) -> ast.expr:
    return ast.BinOp(part, ast.Add(), ast.Constant(end))


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return what the module's names in capitals were given."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.strip("_").isupper()
    }


# What an expression can say


def _readable(
    parts: list[ast.expr], constants: dict[str, ast.expr], inside: Inside, deep: bool
) -> set[str]:
    """Return the texts of a message that have words, not gaps alone."""
    each = [_texts(part, constants, inside, deep) for part in parts]
    texts = {tidy(" ".join(chosen)) for chosen in itertools.product(*each)}
    return {text for text in texts if _has_words(text)}


def _texts(
    node: ast.expr,
    constants: dict[str, ast.expr],
    inside: Inside = (),
    deep: bool = False,
) -> list[str]:
    """Return the texts that an expression can have; GAP is what only a run can tell.

    A local name is followed where it is the whole text, and inside others if `deep`.
    """

    def of(part: ast.expr, around: Inside = ()) -> list[str]:
        return _texts(part, constants, around, deep)

    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            each = [of(value, inside if deep else ()) for value in values]
            return ["".join(one) for one in itertools.product(*each)]
        case ast.FormattedValue(value=ast.Name() as name, conversion=-1):
            return of(name, inside)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a, b in itertools.product(of(left, inside), of(right))]
        case ast.IfExp(body=body, orelse=other):
            return [*of(body, inside), *of(other, inside)]
        case ast.Name(id=name):
            if given := _given(name, inside):
                return [text for one in given for text in of(one)]
            value = constants.get(name)
            return of(value) if value is not None and _is_text(value) else [GAP]
        case ast.Subscript(value=ast.Name(id=name)):
            table = constants.get(name)
            if isinstance(table, ast.Dict):
                return [text for value in table.values for text in of(value)]
        case ast.Call(func=ast.Attribute(value=what, attr="format")):
            return [re.sub(r"\{\w*\}", GAP, text) for text in of(what)]
    return [GAP]


def _given(name: str, inside: Inside) -> list[ast.expr]:
    """Return the texts that a name is given in the function around it."""
    return [
        node.value
        for node in (ast.walk(inside[-1]) if inside else ())
        if isinstance(node, ast.Assign) and _is_text(node.value)
        if any(getattr(target, "id", "") == name for target in node.targets)
    ]


def tidy(text: str) -> str:
    """Return a text in one line, with one gap where several meet.

    A gap behind the last full stop is dropped: it is a name that was meant, or nothing.

    >>> tidy("it has …….  Take\\n ….…")
    'it has …. Take ….'
    """
    text = re.sub(rf"(?:{GAP} ?)*{GAP}", GAP, " ".join(text.split()))
    return re.sub(rf"\.{GAP}$", ".", text)


def main() -> int:
    """Print an entry to fill in for each message that the page lacks."""
    from qwen_course import troubleshooting

    known = troubleshooting.entry_of()
    bare: dict[str, set[str]] = {}
    for one in messages():
        if one.text and one.text not in known:
            bare.setdefault(one.text, set()).add(one.module)
    print("\n".join(stub(text, modules) for text, modules in sorted(bare.items())))
    return int(bool(bare))


def stub(text: str, modules: Iterable[str]) -> str:
    """Return an entry in YAML for a message, with what is still to be written."""
    quoted = "'" + text.replace("'", "''") + "'"
    return (
        f"# {', '.join(sorted(modules))}\n- title:\n  messages:\n  - {quoted}\n"
        "  when:\n  why:\n  do:\n"
    )


if __name__ == "__main__":
    sys.exit(main())
