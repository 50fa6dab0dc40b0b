"""Work with specialists: code that is run and repaired, mathematics with programs.

What a model writes is never run in this process: `sandbox` does it, in another one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course import sandbox
from qwen_course.chat import GREEDY, chat
from qwen_course.messages import check_messages, encode
from qwen_course.tasks.coding import extract_code, fim_prompt
from qwen_course.tasks.mathematics import OUTPUT, TIR

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What ends a filled middle: the end of the text, or another control token.
ENDS = re.compile(r"<\|(endoftext|im_end|fim_\w+|file_sep|repo_name)\|>")


def continue_ids(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[int],
    max_new_tokens: int = 256,
    stop: str | None = None,
) -> str:
    """Go on writing after some token ids, greedily, and return the new text.

    Control tokens stay in the text. With `stop` writing ends as soon as that text has
    been written.
    """
    import torch

    stopping: dict[str, Any] = {}
    if stop:
        stopping = {"stop_strings": [stop], "tokenizer": tokenizer}
    row = torch.tensor([list(ids)], device=model.device)
    output: Any = model.generate(  # type: ignore[operator]
        input_ids=row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        **stopping,
        **GREEDY,
    )
    return str(tokenizer.decode(output[0, len(ids) :]))


# Code


def complete_middle(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prefix: str,
    suffix: str,
    max_new_tokens: int = 128,
) -> str:
    """Return what belongs between two pieces of code, as Qwen2.5-Coder writes it.

    Raises ValueError when there is nothing on either side.

    Example:
        complete_middle(model, tokenizer, "def f(x):\\n    return ", "\\n")  ->  "2 * x"
    """
    if not prefix.strip() and not suffix.strip():
        raise ValueError("there is no code on either side; give a prefix or a suffix.")
    ids = tokenizer(fim_prompt(prefix, suffix))["input_ids"]
    text = continue_ids(model, tokenizer, ids, max_new_tokens)
    return ENDS.split(text)[0]


@dataclass(frozen=True)
class Attempt:
    """One try at a task: the code, and what came of its tests."""

    code: str
    result: sandbox.RunResult

    def __str__(self) -> str:
        verdict = "all tests pass" if self.result.passed else self.result.error
        return f"{self.code}\n# {verdict}"


AGAIN = "A test fails: {error} Please fix it."


def write_code(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    tests: Sequence[str],
    tries: int = 3,
    **options: Any,
) -> list[Attempt]:
    """Ask for code, run its tests, and ask again with what failed: `tries` at most.

    Returns every attempt; the last one has passed, or the tries are used up. `options`
    are those of `chat`, greedy by default. Raises ValueError for an empty task, for no
    tests and for no tries.

    Example:
        write_code(model, tokenizer, "Write a function double(x) ...",
                   ["assert double(2) == 4"])[-1].result.passed
    """
    if not task.strip():
        raise ValueError("the task is empty. Say what the function is to do.")
    if not tests:
        raise ValueError('there are no tests; give some, as ["assert f(2) == 4"].')
    if tries < 1:
        raise ValueError(f"tries is {tries}; give 1 or more.")
    talk, attempts = check_messages(task), []
    for _ in range(tries):
        reply = chat(model, tokenizer, talk, **{"sampling": "greedy", **options})
        code = extract_code(reply.answer)
        attempts.append(Attempt(code, sandbox.run_code(code, tests)))
        if attempts[-1].result.passed:
            break
        again = AGAIN.format(error=attempts[-1].result.error)
        talk = [*reply.messages, {"role": "user", "content": again}]
    return attempts


# Mathematics

PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class ToolSolution:
    """An answer that was written together with an interpreter.

    `text` is all of it, `programs` those that were run, with what they printed.
    """

    text: str
    programs: tuple[tuple[str, str], ...]


def solve_with_tools(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    question: str,
    rounds: int = 3,
    max_new_tokens: int = 256,
) -> ToolSolution:
    """Let the model write programs, run them, and go on from what they print.

    Qwen2.5-Math calls it tool-integrated reasoning: after "```output" the model stops,
    the output is put there, and it goes on. `rounds` is the most programs that are run.
    Raises ValueError for an empty question.
    """
    if not question.strip():
        raise ValueError("the question is empty. Write one.")
    messages = [
        {"role": "system", "content": TIR},
        {"role": "user", "content": question},
    ]
    prompt = encode(tokenizer, messages, thinking=False)
    text = ""
    programs: list[tuple[str, str]] = []
    for _ in range(rounds + 1):
        ids = prompt + tokenizer(text, add_special_tokens=False)["input_ids"]
        new = continue_ids(model, tokenizer, ids, max_new_tokens, stop=OUTPUT.rstrip())
        text += ENDS.split(new)[0].removesuffix("\n")
        code = PROGRAM.findall(text)
        if not text.endswith(OUTPUT.rstrip()) or len(programs) == rounds or not code:
            break
        result = sandbox.run_code(code[-1], seconds=20, memory_mb=1024, packages=True)
        printed = (result.output if result.passed else result.error).strip()
        programs.append((code[-1], printed))
        text += f"\n{printed}\n```\n"
    return ToolSolution(text, tuple(programs))
