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
    """Split generated ids at the think block, the markers left out.

    Without a block everything is answer; an open block is all thinking. `opened`
    says that the prompt already ends inside a block, as in Qwen3.5 and later.
    """
    start, end = (token_id(tokenizer, text) for text in ("<think>", "</think>"))
    ids = list(ids)
    first = ids.index(start) + 1 if start in ids else 0
    if end in ids[first:]:
        last = ids.index(end, first)
        return Split(ids[first:last], ids[last + 1 :], closed=True)
    if opened or start in ids:
        return Split(ids[first:], [], closed=False)
    return Split([], ids, closed=True)


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
) -> "LogitsProcessor":
    """Return a logits processor that closes each row's thinking after `budget` tokens.

    `prompt_tokens` is the padded length of the prompt, shape (batch, tokens). Once a
    row has thought for `budget` tokens (counted after <think>), the tokens of
    `early_stop` are forced, one a step; a row that closes its thinking itself is left
    alone. Raises ValueError for a budget that is not a positive whole number.
    """
    check_budget(budget)
    start, end = (token_id(tokenizer, text) for text in ("<think>", "</think>"))
    if start is None or end is None:
        raise ValueError(
            "this tokenizer has no <think> token, so its model cannot think within a "
            "budget. Leave thinking_budget out."
        )
    forced = tokenizer(early_stop, add_special_tokens=False)["input_ids"]

    def process(input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        for row, ids in enumerate(input_ids[:, prompt_tokens:].tolist()):
            if start not in ids:
                continue
            thought = ids[ids.index(start) + 1 :]
            over = len(thought) - budget
            # subtle: only the first `budget` tokens decide; those after are ours.
            if 0 <= over < len(forced) and end not in thought[:budget]:
                scores[row] = -float("inf")
                scores[row, forced[over]] = 0.0
        return scores

    return _as_processor(process)


def _as_processor(process) -> "LogitsProcessor":
    from transformers import LogitsProcessor

    class ThinkingBudget(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return process(input_ids, scores)

    return ThinkingBudget()
