"""A chat dataset for training: read it, check every row, mask the prompt, pack.

A row is a dictionary with `messages`, as `apply_chat_template` takes them; the last one
is the answer that the model learns. Thinking stands in `reasoning_content` of that
answer. `tools`, if any, are JSON schemas.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.errors import suggest
from qwen_course.processors import text_tokenizer
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORE = -100  # label of a token that is read, not learnt: the loss leaves it out
ROLES = ("system", "user", "assistant", "tool")
OTHER_NAMES = {"human": "user", "bot": "assistant", "gpt": "assistant",
               "model": "assistant", "function": "tool"}  # fmt: skip
Row = dict[str, Any]
TokenRow = dict[str, list[int]]  # input_ids, labels, position_ids


# Reading and checking


@dataclass(frozen=True)
class Fault:
    """What is wrong with one row: where, what, and what to do."""

    row: int
    where: str
    remedy: str

    def __str__(self) -> str:
        return f"row {self.row}{self.where and ', '}{self.where}: {self.remedy}"


class BadData(ValueError):
    """The rows that cannot be learnt from, all of them at once."""

    def __init__(self, faults: Sequence[Fault], source: str = "the data") -> None:
        self.faults = list(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}"
        shown = "\n".join(f"  {fault}" for fault in self.faults[:10])
        more = len(self.faults) - 10
        rest = f"\n  and {more} more" if more > 0 else ""
        super().__init__(f"{source}: {count}, rows counted from 1.\n{shown}{rest}")


def read_jsonl(path: str | Path) -> list[Row]:
    """Read one row from each line of a JSONL file, and check them all.

    Raises BadData, a ValueError, that lists every faulty line: wrong encoding, wrong
    JSON, and whatever `check` finds. Empty lines are skipped.

    Example:
        rows = read_jsonl("support.jsonl")
    """
    raw = Path(path).read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        fault = Fault(1, "", "the file is UTF-16; save it as UTF-8.")
        raise BadData([fault], Path(path).name)
    rows: list[tuple[int, Row]] = []
    faults: list[Fault] = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        found = _parse(number, line)
        if isinstance(found, Fault):
            faults.append(found)
        else:
            rows.append((number, found))
    for number, row in rows:
        faults += _faults(number, row)
    if not rows and not faults:
        faults = [Fault(1, "", "the file holds no rows; write one object a line.")]
    if faults:
        raise BadData(sorted(faults, key=lambda f: f.row), Path(path).name)
    return [row for _, row in rows]


def _parse(number: int, line: bytes) -> Row | Fault:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as why:
        around = line[max(0, why.start - 10) : why.start + 10].decode("latin-1")
        return Fault(
            number,
            f"byte {why.start + 1}",
            f"is not UTF-8 near {around!r}. It looks like Latin-1 or Windows-1252; "
            "save the file as UTF-8.",
        )
    try:
        row = json.loads(text)
    except json.JSONDecodeError as why:
        near = text[max(0, why.pos - 12) : why.pos + 12]
        return Fault(
            number,
            f"column {why.colno}",
            f"is not JSON near {near!r} ({why.msg}). Write rows with json.dumps.",
        )
    if not isinstance(row, dict):
        return Fault(number, "", 'is no object; write {"messages": [...]}.')
    return row


def check(rows: Sequence[Row], source: str = "the data") -> None:
    """Check every row; raise BadData with all that is wrong, else do nothing.

    >>> check([{"messages": [{"role": "user", "content": "Hi"}]}])
    Traceback (most recent call last):
    qwen_course.chat_data.BadData: the data: 1 fault, rows counted from 1.
      row 1, messages: has no answer; the last message must be of the assistant.
    """
    if not rows:
        raise BadData([Fault(1, "", "there are no rows; give at least one.")], source)
    faults = [f for number, row in enumerate(rows, 1) for f in _faults(number, row)]
    if faults:
        raise BadData(faults, source)


def _faults(number: int, row: Any) -> Iterator[Fault]:
    """Yield everything that is wrong with one row."""
    if not isinstance(row, dict) or "messages" not in row:
        keys = ", ".join(map(str, row)) if isinstance(row, dict) else ""
        near = "".join(suggest(str(key), ["messages"]) for key in row if keys)
        yield Fault(
            number, "", f"has no key messages; it has {keys or 'no keys'}.{near}"
        )
        return
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        yield Fault(number, "messages", "must be a list of messages, not empty.")
        return
    before = len(messages)
    for place, message in enumerate(messages):
        wrong = list(_message_faults(number, place, message))
        yield from wrong
        before -= bool(wrong)
    if before == len(messages):  # the order of broken messages means nothing
        yield from _order_faults(number, messages)


def _message_faults(number: int, place: int, message: Any) -> Iterator[Fault]:
    where = f"messages[{place}]"
    if not isinstance(message, dict):
        yield Fault(number, where, 'must be {"role": ..., "content": ...}.')
        return
    role = message.get("role")
    if role is None:
        other = ' It has "from"; rename it.' if "from" in message else ""
        roles = ", ".join(ROLES)
        yield Fault(number, where, f"has no key role; it is one of {roles}.{other}")
    elif role not in ROLES:
        name = OTHER_NAMES.get(str(role))
        near = f' Write "{name}".' if name else suggest(str(role), ROLES)
        yield Fault(number, f"{where}.role", f'"{role}" is no role.{near}')
    content, calls = message.get("content"), message.get("tool_calls")
    if content is None and calls:
        return
    if "content" not in message:
        other = ' It has "value"; rename it.' if "value" in message else ""
        yield Fault(number, where, f"has no key content.{other}")
    elif not isinstance(content, str):
        kind = type(content).__name__
        yield Fault(number, f"{where}.content", f"must be a text, not {kind}.")
    elif not content.strip() and not calls:
        yield Fault(
            number, f"{where}.content", "is empty. Write the text or drop the row."
        )
    elif "<|im_" in content:
        yield Fault(
            number,
            f"{where}.content",
            "holds control tokens. Leave them to the chat template: text alone.",
        )


def _order_faults(number: int, messages: list[dict[str, Any]]) -> Iterator[Fault]:
    roles = [message["role"] for message in messages]
    if "system" in roles[1:]:
        place = roles.index("system", 1)
        yield Fault(number, f"messages[{place}]", "system must be the first message.")
    if roles[-1] != "assistant":
        yield Fault(
            number,
            "messages",
            "has no answer; the last message must be of the assistant.",
        )
    if "user" not in roles:
        yield Fault(number, "messages", "has no question; add a message of the user.")
    for place, pair in enumerate(zip(roles, roles[1:], strict=False), 1):
        if pair in (("user", "user"), ("assistant", "assistant")):
            yield Fault(
                number,
                f"messages[{place}]",
                f"is the second {pair[0]} message in a row; join the two.",
            )


def from_problems(problems: Sequence[Problem], thinking: bool = False) -> list[Row]:
    """Return a row for each problem: its question, its worked answer.

    `thinking` puts the solution into `reasoning_content`.

    >>> from qwen_course.tasks import sums
    >>> from_problems(sums.problems(1, split="train"))[0]["messages"][1]["role"]
    'assistant'
    """
    rows = []
    for problem in problems:
        answer = {"role": "assistant", "content": problem.answer}
        if thinking:
            answer["reasoning_content"] = problem.thinking
        row: Row = {"messages": [*problem.prompt, answer]}
        if problem.tools:
            row["tools"] = list(problem.tools)
        rows.append(row)
    return rows


def every_turn(rows: Sequence[Row]) -> list[Row]:
    """Return one row for every answer of every conversation.

    `encode` learns the last answer alone: Qwen3's template drops the thinking of the
    earlier ones, so an earlier answer looks different while it is the last.
    """
    return [
        {**row, "messages": row["messages"][: place + 1]}
        for row in rows
        for place, message in enumerate(row["messages"])
        if message["role"] == "assistant"
    ]


def split(
    rows: Sequence[Row], held_out: float = 0.1, seed: int = 0
) -> tuple[list[Row], list[Row]]:
    """Shuffle the rows, and put a share of them aside; the same question never in both.

    Raises ValueError when one of the two would be empty.
    """
    questions: dict[str, list[Row]] = {}
    for row in rows:
        questions.setdefault(json.dumps(row["messages"][:-1]), []).append(row)
    groups = list(questions.values())
    random.Random(seed).shuffle(groups)
    count = round(held_out * len(groups))
    if not 0 < count < len(groups):
        raise ValueError(
            f"{held_out:g} of {len(groups)} different questions leaves one part empty. "
            "Give more rows or another share."
        )
    aside = [row for group in groups[:count] for row in group]
    return [row for group in groups[count:] for row in group], aside


# Masking the prompt


@dataclass(frozen=True)
class Example:
    """Token ids, and the label of each: itself where it is learnt, else -100."""

    ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.ids)


def encode(
    rows: Sequence[Row],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int = 512,
    learn_empty_thinking: bool = False,
    drop_long: bool = False,
) -> list[Example]:
    """Check and tokenize rows; the prompt is read, the last answer is learnt.

    A row without `reasoning_content` is asked with thinking off: its empty think block
    is part of the prompt and not learnt. `learn_empty_thinking` does what most recipes
    do, and teaches the model not to think. Raises BadData for faulty rows, and for rows
    of more than `max_length` tokens unless `drop_long`.

    Example:
        examples = encode(rows, tokenizer)
    """
    check(rows)
    examples = [_encode(row, tokenizer, learn_empty_thinking) for row in rows]
    long = [
        Fault(
            number,
            "",
            f"has {len(example)} tokens, more than {max_length}. Shorten it, allow "
            "more (max_length, or row_length in Settings), or leave long rows out: "
            "encode(..., drop_long=True).",
        )  # fmt: skip
        for number, example in enumerate(examples, 1)
        if len(example) > max_length
    ]
    if long and not drop_long:
        raise BadData(long)
    return [example for example in examples if len(example) <= max_length]


def _encode(row: Row, tokenizer: Any, learn_empty_thinking: bool) -> Example:
    prompt, answer = prompt_and_answer(row, tokenizer, learn_empty_thinking)
    tokenize = text_tokenizer(tokenizer)
    # subtle: apart, as in generation; together, tokens could merge over the border
    read = tokenize(prompt, add_special_tokens=False)["input_ids"]
    learnt = tokenize(answer, add_special_tokens=False)["input_ids"]
    return Example(read + learnt, [IGNORE] * len(read) + learnt)


def prompt_and_answer(
    row: Row, tokenizer: Any, learn_empty_thinking: bool = False
) -> tuple[str, str]:
    """Return what the model reads and what it is to write, control tokens included.

    The answer ends with the end token: without it the model never learns to stop.
    """
    messages, tools = row["messages"], row.get("tools")
    thinks = bool(messages[-1].get("reasoning_content"))
    thinks = thinks or "</think>" in (messages[-1].get("content") or "")
    options = {"tools": tools, "tokenize": False}
    prompt = tokenizer.apply_chat_template(
        messages[:-1],
        add_generation_prompt=True,
        enable_thinking=thinks or learn_empty_thinking,
        **options,
    )
    whole = tokenizer.apply_chat_template(messages, **options)
    if not whole.startswith(prompt):
        raise ValueError(
            "the chat template writes a prompt with its answer differently from the "
            "prompt alone, so the answer cannot be found. Use the template that came "
            "with the model."
        )
    return prompt, whole[len(prompt) :].rstrip("\n")


def learnt_share(examples: Sequence[Example]) -> float:
    """Return the share of all tokens whose label is not -100."""
    learnt = sum(label != IGNORE for e in examples for label in e.labels)
    return learnt / sum(map(len, examples))


# Packing


def pack(examples: Sequence[Example], length: int) -> list[TokenRow]:
    """Put examples side by side into rows of at most `length` tokens, longest first.

    A row has `input_ids`, `labels` and `position_ids`; the positions restart with each
    example, and by that the model keeps neighbours apart. Raises ValueError when an
    example is longer than a row.

    >>> rows = pack([Example([1, 2], [-100, 2]), Example([3], [3])], length=4)
    >>> rows[0]["input_ids"], rows[0]["labels"], rows[0]["position_ids"]
    ([1, 2, 3], [-100, 2, -100], [0, 1, 0])
    """
    rows: list[TokenRow] = []
    room: list[int] = []
    for example in sorted(examples, key=len, reverse=True):
        size = len(example)
        if size > length:
            raise ValueError(
                f"an example has {size} tokens, a row only {length}. Give a length of "
                f"at least {size}."
            )
        fitting = [n for n, left in enumerate(room) if left >= size]
        place = min(fitting, key=lambda n: room[n], default=len(rows))
        if place == len(rows):
            rows.append({"input_ids": [], "labels": [], "position_ids": []})
            room.append(length)
        rows[place]["input_ids"] += example.ids
        # the first token of an example has no token before it to be told from
        rows[place]["labels"] += [IGNORE, *example.labels[1:]]
        rows[place]["position_ids"] += range(size)
        room[place] -= size
    return rows


def one_a_row(examples: Sequence[Example]) -> list[TokenRow]:
    """Return each example as a row of its own, unpacked."""
    return [
        {"input_ids": e.ids, "labels": [IGNORE, *e.labels[1:]],
         "position_ids": list(range(len(e)))}
        for e in examples
    ]  # fmt: skip


def collate(rows: Sequence[TokenRow], pad: int) -> "dict[str, torch.Tensor]":
    """Fill rows up to the longest with `pad`, and stack them: (rows, tokens) each.

    There is no attention mask: transformers sees from the positions where an example
    begins, and lets no token look over that border. What fills up has the position 0
    and the label -100, whichever token it is.
    """
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": pad, "labels": IGNORE, "position_ids": 0}
    return {
        key: torch.tensor(
            [row[key] + [value] * (longest - len(row[key])) for row in rows]
        )
        for key, value in fill.items()
    }


def filled(rows: Sequence[TokenRow], length: int) -> float:
    """Return the share of places that hold a token when rows have `length` places."""
    return sum(len(row["input_ids"]) for row in rows) / (length * len(rows))
