"""Thinking mode: take a reply apart, and close the thinking at a budget."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessor, PreTrainedTokenizerBase

# What is forced through the model when the budget is used up.
EARLY_STOP = "\n</think>\n\n"


class Split(NamedTuple):
    """The two parts of generated ids: inside the think block and after it."""

    thinking: list[int]
    answer: list[int]
    closed: bool


def token_id(tokenizer: "PreTrainedTokenizerBase", text: str) -> int | None:
    """Return the id of an added token such as "</think>", None if there is none.

    The id differs between generations (151668 in Qwen3, 248069 in Qwen3.5), so it
    is looked up, never written down.
    """
    return tokenizer.get_added_vocab().get(text)


def split_thinking(
    ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase", opened: bool = False
) -> Split:
    """Split generated ids into what is inside a think block and what is outside.

    Only the markers are left out: no block means all answer, an open block is thinking
    to its end, of two blocks both are thinking. A <think> inside a block and a
    </think> outside one stay where they are. `opened` says that the prompt already
    opened the block, as in Qwen3.5 and later. Raises TypeError for text or for a batch.

    Example:
        split_thinking(tokenizer("<think>add</think>4")["input_ids"], tokenizer)
        ->  the ids of "add", the ids of "4", closed=True
    """
    ids = _as_ids(ids)
    start, end = (token_id(tokenizer, text) for text in ("<think>", "</think>"))
    # An end without a start before it: the start stood in the prompt.
    inside = opened or (end in ids and start not in ids[: ids.index(end)])
    thinking: list[int] = []
    answer: list[int] = []
    for id in ids:
        if id == (end if inside else start):
            inside = not inside
        else:
            (thinking if inside else answer).append(id)
    return Split(thinking, answer, closed=not inside)


def _as_ids(ids: Sequence[int]) -> list[int]:
    """Return one row of ids as a list, also if it is a tensor; refuse anything else."""
    row = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(row, str) or not all(isinstance(id, int) for id in row):
        kind = "text" if isinstance(row, str) else "rows of ids"
        raise TypeError(
            f"split_thinking got {kind}; give it the ids of one reply, such as "
            "output[0, prompt_length:]. In text the markers can no longer be told from "
            "the same characters typed by someone."
        )
    return list(row)


def check_budget(budget: int | None) -> None:
    """Raise ValueError unless `budget` is None or a positive whole number."""
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ValueError(
            f"thinking_budget is {budget!r}; give a whole number of tokens from 1 up, "
            "or None for no limit. To answer without thinking, pass thinking=False."
        )


def budget_processor(
    tokenizer: "PreTrainedTokenizerBase",
    budget: int,
    prompt_tokens: int,
    early_stop: str = EARLY_STOP,
    opened: bool = False,
) -> "LogitsProcessor":
    """Return a logits processor that closes each row's thinking after `budget` tokens.

    `prompt_tokens` is the padded length of the prompt, shape (batch, tokens). Once a
    row has thought for `budget` tokens, the tokens of `early_stop` are forced, one a
    step; a row that closes its thinking earlier is left alone. `opened` says that the
    prompt already opened the block. Raises ValueError for a budget that is not a
    positive whole number, and for an `early_stop` that does not close the block.
    """
    check_budget(budget)
    end = token_id(tokenizer, "</think>")
    if end is None or token_id(tokenizer, "<think>") is None:
        raise ValueError(
            "this tokenizer has no <think> token, so its model cannot think within a "
            "budget. Leave thinking_budget out."
        )
    stop = tokenizer(early_stop, add_special_tokens=False)["input_ids"]
    if end not in stop:
        raise ValueError(
            f"early_stop is {early_stop!r}; it must hold </think>, which ends the "
            f"thinking. The course uses {EARLY_STOP!r}."
        )

    def process(input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        for row, ids in enumerate(input_ids[:, prompt_tokens:].tolist()):
            token = _forced(
                ids, split_thinking(ids, tokenizer, opened), budget, stop, end
            )
            if token is not None:
                scores[row] = -float("inf")
                scores[row, token] = 0.0
        return scores

    return _as_processor(process)


def _forced(
    ids: list[int], parts: Split, budget: int, stop: list[int], end: int
) -> int | None:
    """Return the token of `stop` that must come next, None where the model is free."""
    over = len(parts.thinking) - budget
    if over < 0:
        return None
    close = stop.index(end)
    if not parts.closed:  # min: a second block, opened with nothing left, ends at once
        return stop[min(over, close)]
    since = close + 1 + ids[::-1].index(end)
    return stop[since] if since < len(stop) else None


def _as_processor(process) -> "LogitsProcessor":
    from transformers import LogitsProcessor

    class ThinkingBudget(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return process(input_ids, scores)

    return ThinkingBudget()
