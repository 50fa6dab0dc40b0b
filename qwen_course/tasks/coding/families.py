"""Task families: a text, a reference solution, and all that may vary in both."""

import ast
import builtins
import functools
import keyword
import random
import re
from dataclasses import dataclass
from string import Template
from typing import Any

from qwen_course.datafiles import read_yaml
from qwen_course.tasks.coding.inputs import KINDS, draw_calls
from qwen_course.tasks.problem import split_of

VERBS = (
    "get", "make", "find", "build", "do", "run", "calc", "process", "handle", "work",
    "solve", "compute", "my", "new", "check", "simple",
)  # fmt: skip
THINGS = (
    "result", "thing", "stuff", "task", "answer", "output", "job", "case", "step",
    "part", "piece", "list", "text", "value", "item", "box", "node", "bag", "entry",
)  # fmt: skip
ARGUMENTS = (
    "source", "given", "raw", "inputs", "things", "stuff", "sample", "pile", "bag",
    "src", "content", "thing", "param", "arg", "part", "info", "start", "group",
)  # fmt: skip
SYLLABLES = (
    "ba", "co", "di", "fu", "ga", "hel", "im", "jo", "ka", "lu", "mo", "ne", "or", "pi",
    "qu", "ra", "su", "ti", "ur", "vo", "wi", "xe", "ya", "zo",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One kind of function; `data/coding_families.yaml` shows the form of its texts."""

    name: str
    functions: tuple[str, ...]
    arguments: dict[str, str]  # placeholder: kind
    parameters: dict[str, list[dict[str, str]]]
    result: str
    wordings: tuple[str, ...]
    unseen: tuple[str, ...]
    body: str | dict[str, str]
    example: str

    @functools.cached_property
    def reserved(self) -> frozenset[str]:
        """The names that the body uses itself; no argument may be called so."""
        texts = [str(self.body), self.result, str(self.parameters)]
        bare = re.sub(r"\$\w+", " ", " ".join(texts))
        return frozenset(re.findall(r"[A-Za-z_]\w*", bare))


@dataclass(frozen=True)
class Task:
    """One member of a family: its parameters and its names are chosen."""

    family: str
    name: str
    arguments: tuple[str, ...]
    choices: tuple[tuple[str, str], ...]  # parameter: text of the option
    options: tuple[dict[str, str], ...]

    @property
    def content(self) -> tuple:
        """What makes the task what it is, without its wording."""
        chosen = tuple(text for _, text in self.choices)
        return (self.family, *chosen, self.name, *self.arguments)

    @property
    def split(self) -> str:
        """The side that the task is on, from a hash of its content."""
        return split_of(self.content)

    @property
    def _family(self) -> Family:
        return families()[self.family]

    def fill(self, text: str) -> str:
        """Return a text of the family with all placeholders filled in."""
        values = {"name": self.name}
        values |= dict(zip(self._family.arguments, self.arguments, strict=True))
        for (name, _), option in zip(self.choices, self.options, strict=True):
            values[name] = option["text"]
            values |= {f"{name}_{key}": value for key, value in option.items()}
        while "$" in text:  # an option may hold placeholders itself
            text = Template(text).substitute(values)
        return text

    @property
    def types(self) -> list[str]:
        """The types of the arguments."""
        return [KINDS[kind].type for kind in self._family.arguments.values()]

    @property
    def result(self) -> str:
        """The type of the result."""
        return self.fill(self._family.result)

    def signature(self, hints: bool = False) -> str:
        """Return such as `find_median(numbers)`, with type hints if wanted."""
        if not hints:
            return f"{self.name}({', '.join(self.arguments)})"
        pairs = zip(self.arguments, self.types, strict=True)
        typed = ", ".join(f"{name}: {type}" for name, type in pairs)
        return f"{self.name}({typed}) -> {self.result}"

    def code(self, docstring: str = "", hints: bool = False) -> str:
        """Return the reference solution."""
        body = self._family.body
        if isinstance(body, dict):
            body = body[dict(self.choices)["how"]]
        lines = self.fill(body).rstrip().splitlines()
        if docstring:
            lines.insert(0, f'"""{docstring}"""')
        head = f"def {self.signature(hints)}:"
        return "\n".join([head, *(f"    {line}" for line in lines)])

    def tests(self, seed: int = 0) -> list[str]:
        """Return the hidden tests: assertions on drawn calls and on edge cases.

        The expected values are those of the reference solution; calls that it
        refuses are not asked.
        """
        kinds = list(self._family.arguments.values())
        space: dict[str, Any] = {}
        exec(self.code(), space)
        tests = []
        for call in draw_calls(kinds, random.Random(f"{self.content}/{seed}")):
            written = f"{self.name}({', '.join(map(repr, call))})"
            try:
                value = space[self.name](*ast.literal_eval(repr(call)))
            except (ValueError, IndexError, TypeError, ZeroDivisionError):
                continue
            tests.append(f"assert {written} == {value!r}")
        return list(dict.fromkeys(tests))


@functools.cache
def families() -> dict[str, Family]:
    """Return all task families by name.

    >>> len(families()) > 60
    True
    """
    data = read_yaml("coding_families")
    return {row["name"]: _family(row, data["tables"]) for row in data["families"]}


def _family(row: dict[str, Any], tables: dict[str, list]) -> Family:
    parameters = {
        name: _options(tables[given] if isinstance(given, str) else given)
        for name, given in row.get("parameters", {}).items()
    }
    return Family(
        name=row["name"],
        functions=tuple(row["functions"].split()),
        arguments=row["arguments"],
        parameters=parameters,
        result=row["result"],
        wordings=tuple(row["wordings"]),
        unseen=tuple(row["unseen"]),
        body=row["body"],
        example=row["example"],
    )


def _options(given: list[Any]) -> list[dict[str, str]]:
    """Return the options of a parameter, those with a list of numbers one by one."""
    options = []
    for option in given:
        if not isinstance(option, dict):
            option = {"text": option}
        whole = {key: str(value) for key, value in option.items() if key != "k"}
        whole.setdefault("code", whole["text"])
        for k in option.get("k", [None]):
            options.append(
                {key: text.replace("$k", str(k)) if k is not None else text
                 for key, text in whole.items()}
            )  # fmt: skip
    return options


def draw_task(
    rng: random.Random, split: str, family: str | None = None, plain: bool = False
) -> Task:
    """Draw a task of `split`; a `plain` one has the family's first names."""
    while True:
        chosen = families()[family or rng.choice(list(families()))]
        task = _draw(rng, chosen, plain)
        if task.split == split:
            return task
        if plain and rng.random() < 0.3:  # some families have no plain task there
            plain = False


def _draw(rng: random.Random, family: Family, plain: bool) -> Task:
    options = {name: rng.choice(some) for name, some in family.parameters.items()}
    if plain:
        name = family.functions[0]
        arguments = tuple(family.arguments)  # the names that stand in the texts
    else:
        name = _function_name(rng, family)
        arguments = _argument_names(rng, family, name)
    choices = tuple((key, option["text"]) for key, option in options.items())
    return Task(family.name, name, arguments, choices, tuple(options.values()))


def _free(name: str, family: Family, taken: set[str]) -> bool:
    used = name in family.reserved or name in taken
    return not (used or keyword.iskeyword(name) or hasattr(builtins, name))


def _function_name(rng: random.Random, family: Family) -> str:
    while True:
        kind = rng.random()
        if kind < 0.65:
            name = rng.choice(family.functions)
        elif kind < 0.92:
            name = f"{rng.choice(VERBS)}_{rng.choice(THINGS)}"
        else:
            name = invented(rng)
        if _free(name, family, set()):
            return name


def invented(rng: random.Random) -> str:
    """Return a name that nobody would choose, such as `kaka_urdi`."""
    parts = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 2))) for _ in range(2)]
    return "_".join(parts[: rng.randint(1, 2)])


def _argument_names(rng: random.Random, family: Family, name: str) -> tuple[str, ...]:
    names: list[str] = []
    for kind in family.arguments.values():
        while True:
            source = rng.random()
            if source < 0.8:
                drawn = rng.choice(KINDS[kind].names)
            elif source < 0.95:
                drawn = rng.choice(ARGUMENTS)
            else:
                drawn = invented(rng)
            if _free(drawn, family, {name, *names}):
                names.append(drawn)
                break
    return tuple(names)
