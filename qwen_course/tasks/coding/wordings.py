"""How a coding task is put into words; what is marked UNSEEN is asked in tests only."""

import random
import re

from qwen_course.tasks.coding.families import Task, families
from qwen_course.tasks.problem import put_around

FRAMES = (
    "Write a Python function `{signature}` that {does}.",
    "Write a Python function `{signature}` to {do}.",
    "Write a function `{signature}` that {does}.",
    "Write `{signature}` in Python. It should {do}.",
    "Implement `{signature}`: {do}.",
    "Create a Python function {signature} that {does}.",
    "I need a Python function `{signature}`. It {does}.",
    "Please write a function {signature} which {does}.",
    "Define a function called {name} that takes {arguments} and {does}.",
    "{Do}. Call the function {name} with the arguments {arguments}.",
    "{Do}. The signature is `{signature}`.",
    "Complete this function so that it {does}:\n```python\ndef {signature}:\n```",
    "Can you write Python code for `{signature}`, which {does}?",
    "Python function {signature}: {do}.",
    "Here is what `{signature}` does: it {does}. Write it.",
    "Help me with `{signature}`. It has to {do}.",
    "I want to {do}. Write `{signature}` for that.",
    "Show me a function {signature} that {does}.",
    "{Do}, in a Python function `{signature}`.",
    "Exercise: {do}. Name it {name} and let it take {arguments}.",
)
UNSEEN_FRAMES = (
    "Give me a Python function `{signature}` that {does}.",
    "Code a function {signature} to {do}.",
    "Your task: `{signature}` must {do}.",
)
# Without a signature the function has the names that the family prefers.
BARE_FRAMES = (
    "Write a Python function that {does}.",
    "Write a function to {do}.",
    "Create a Python function to {do}.",
    "Please write a Python function that {does}.",
    "{Do} in Python.",
    "How do I {do} in Python?",
)
ADDED = {
    ("docstring",): ("Add a docstring.", "Include a docstring.", "With a docstring.",
                     "Give it a docstring."),
    ("hints",): ("Use type hints.", "Add type hints.", "With type hints.",
                 "Include type hints."),
    ("docstring", "hints"): ("Add a docstring and type hints.",
                             "Use type hints and a docstring.",
                             "With type hints and a docstring.",
                             "Include a docstring and type hints."),
}  # fmt: skip
UNSEEN_ADDED = {
    ("docstring",): ("Write a docstring too.",),
    ("hints",): ("Annotate the types with type hints.",),
    ("docstring", "hints"): ("Document it with a docstring and type hints.",),
}
FIX_FRAMES = (
    "Fix the bug in this function:\n{code}\nIt should {do}.{error}",
    "This function should {do}, but it has a bug.{error}\n{code}",
    "Find and fix the bug.{error}\n{code}\nThe function should {do}.",
    "{code}\nThis function {does}, or should.{error} Fix it.",
    "My function does not work. It should {do}.{error}\n{code}",
)
# A function with a docstring says by itself what it should do.
SELF_EXPLAINING_FRAMES = (
    "Fix this function:\n{code}{error}",
    "{code}\nThere is a bug in it.{error}",
)
UNSEEN_FIX_FRAMES = ("Please debug this code. It is meant to {do}.{error}\n{code}",)
RETRIES = (
    "{error} Fix the function.",
    "{error}",
    "A test fails: {error} Please fix it.",
    "That is wrong. {error} Try again.",
    "Your function fails a test: {error} Write it again.",
    "The test says: {error} Correct the function.",
)
UNSEEN_RETRIES = ("I ran it. {error} Can you repair that?",)
# What only training puts around a question, as in mathematics.
OPENINGS = (
    "Now: ", "Next. ", "Exercise 3. ", "I need help. ", "Hello! ", "Python question. ",
    "For my homework: ", "Quick one. ",
)  # fmt: skip
ENDINGS = (
    " Thanks!", " Only the code, please.", " Keep it short.", " Use plain Python.",
    " No explanation.",
)  # fmt: skip
SECOND_VERBS = (
    "return", "keep", "add", "list", "count", "ignore", "join", "replace", "leave",
    "map", "find", "mark", "move", "put", "combine", "give", "collect", "gather",
    "total", "sort", "take", "pair", "begin", "stop", "write", "multiply", "connect",
    "attach", "convert", "answer", "cut",
)  # fmt: skip


def wordings(task: Task, unseen: bool) -> list[str]:
    """Return what the task asks, as imperatives of training or of tests."""
    family = families()[task.family]
    return [task.fill(text) for text in (family.unseen if unseen else family.wordings)]


def third_person(text: str) -> str:
    """Turn an imperative into what the function does.

    >>> third_person("search a list and return the index")
    'searches a list and returns the index'
    """
    first, _, rest = text.partition(" ")
    verbs = "|".join(SECOND_VERBS)
    joined = rf"\b(and|or|then|otherwise) ({verbs})\b"
    rest = re.sub(joined, lambda m: f"{m[1]} {_with_s(m[2])}", rest)
    return f"{_with_s(first)} {rest}"


def _with_s(verb: str) -> str:
    if re.search(r"(s|sh|ch|x|o)$", verb):
        return f"{verb}es"
    if re.search(r"[^aeiou]y$", verb):
        return f"{verb[:-1]}ies"
    return f"{verb}s"


def ask(task: Task, do: str, style: tuple[str, ...], rng: random.Random,
        named: bool = True, unseen: bool = False) -> str:  # fmt: skip
    """Put a task into a question; `style` may hold "docstring" and "hints".

    Type hints may stand in the signature, instead of being asked for.
    """
    frames = UNSEEN_FRAMES if unseen else FRAMES
    typed = "hints" in style and named and rng.random() < 0.3
    frame = rng.choice(frames if named else BARE_FRAMES)
    if typed and "signature" not in frame:
        frame = frames[0]
    asked = tuple(wish for wish in style if not (typed and wish == "hints"))
    question = _fill(frame, task, do, typed)
    if asked:
        added = (UNSEEN_ADDED if unseen else ADDED)[asked]
        question = f"{question} {rng.choice(added)}"
    return question


def _fill(frame: str, task: Task, do: str, typed: bool = False, **values: str) -> str:
    text = frame.format(
        signature=task.signature(typed),
        name=task.name,
        arguments=" and ".join(task.arguments),
        do=do,
        does=third_person(do),
        Do=capital(do),
        **values,
    )
    return text.replace("..", ".") if text.endswith("..") else text


def dress(question: str, rng: random.Random) -> str:
    """Put words around a question, or none: an opening, an ending, or both."""
    return put_around(question, rng, OPENINGS, ENDINGS)


def capital(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[0].upper() + text[1:]


def docstring_of(do: str) -> str:
    """Return the docstring for what a function is to do."""
    return f"{capital(do)}."


def fenced(code: str) -> str:
    """Return code as Qwen2.5-Coder writes it in an answer."""
    return f"```python\n{code}\n```"


def ask_to_fix(task: Task, do: str, wrong: str, error: str, rng: random.Random,
               unseen: bool = False) -> str:  # fmt: skip
    """Put a function with a bug into a question, with the failure if there is one."""
    frame = rng.choice(UNSEEN_FIX_FRAMES if unseen else FIX_FRAMES)
    if '"""' in wrong and not unseen and rng.random() < 0.4:
        frame = rng.choice(SELF_EXPLAINING_FRAMES)
    error = f" {error}" if error else ""
    return _fill(frame, task, do, code=fenced(wrong), error=error)


def ask_again(error: str, rng: random.Random, unseen: bool = False) -> str:
    """Answer a wrong function with the failure that it showed."""
    return rng.choice(UNSEEN_RETRIES if unseen else RETRIES).format(error=error)
