"""Right and wrong answers to the exercises of lesson 03."""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy
import torch

from answers import Lazy
from qwen_course import vocabulary
from qwen_course.exercises.judges import lesson_03 as judge
from qwen_course.exercises.probes import lesson_03 as probe
from qwen_course.exercises.probes import pocket
from qwen_course.thinking import budget_processor, split_thinking

# Question 1


def one_user(text):
    return [{"role": "user", "content": text}]


def prompt(tokenizer, checkpoint, text, thinking):
    if checkpoint.thinking == ("only", "none")[thinking]:
        raise ValueError(f"{checkpoint.name} has one mode: thinking={not thinking}.")
    return tokenizer.apply_chat_template(
        one_user(text),
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )


def prompt_with_switch_for_hybrids_only(tokenizer, checkpoint, text, thinking):
    options = {"tokenize": False, "add_generation_prompt": True}
    match checkpoint.thinking, thinking:
        case "none", True:
            raise ValueError("choose a Thinking checkpoint")
        case "only", False:
            raise ValueError("choose an Instruct checkpoint")
        case "hybrid", _:
            options["enable_thinking"] = thinking
    return tokenizer.apply_chat_template(one_user(text), **options)


def prompt_decoded_from_ids(tokenizer, checkpoint, text, thinking):
    possible = {"hybrid": (True, False), "only": (True,), "none": (False,)}
    if thinking not in possible[checkpoint.thinking]:
        raise ValueError(checkpoint.thinking)
    batch = tokenizer.apply_chat_template(
        one_user(text), add_generation_prompt=True, enable_thinking=thinking
    )
    return tokenizer.decode(batch["input_ids"])


def prompt_by(
    refuse: Callable[[str, bool], bool] = lambda kind, thinking: (
        kind == ("only", "none")[thinking]
    ),
    soft: bool = False,
    **changed: Any,
) -> Callable[..., Any]:
    """Return a function like `prompt` with other arguments of the template."""

    def answer(tokenizer, checkpoint, text, thinking):
        if refuse(checkpoint.thinking, thinking):
            raise ValueError("not with this checkpoint")
        options = {"tokenize": False, "add_generation_prompt": True} | {
            key: value(thinking) if callable(value) else value
            for key, value in changed.items()
        }
        if soft:
            text += " /think" if thinking else " /no_think"
        return tokenizer.apply_chat_template(one_user(text), **options)

    return answer


def same(thinking):
    return thinking


# Question 2


def parse(ids, tokenizer):
    start = tokenizer.convert_tokens_to_ids("<think>")
    end = tokenizer.convert_tokens_to_ids("</think>")
    inside = end in ids and start not in ids[: ids.index(end)]
    parts = {True: [], False: []}
    for id in ids:
        if id == (end if inside else start):
            inside = not inside
        else:
            parts[inside].append(id)
    thinking, answer = (
        tokenizer.decode(parts[key], skip_special_tokens=True).strip()
        for key in (True, False)
    )
    return thinking, answer


def parse_with_helper(ids, tokenizer):
    parts = split_thinking(ids, tokenizer)
    return [tokenizer.decode(part, skip_special_tokens=True) for part in parts[:2]]


def parse_by_cutting(ids, tokenizer):
    """Cut off one block after the other, with index instead of a loop over ids."""
    vocabulary_added = tokenizer.get_added_vocab()
    start, end = vocabulary_added["<think>"], vocabulary_added["</think>"]
    thought, answer, rest = [], [], list(ids)
    if end in rest and start not in rest[: rest.index(end)]:
        rest.insert(0, start)
    while start in rest:
        begin = rest.index(start)
        answer += rest[:begin]
        rest = rest[begin + 1 :]
        stop = rest.index(end) if end in rest else len(rest)
        thought.append(tokenizer.decode(rest[:stop]).strip())
        rest = rest[stop + 1 :]
    text = tokenizer.decode(answer + rest, skip_special_tokens=True)
    return "\n".join(thought), text


def parse_published(ids, tokenizer, end=151668):
    try:
        index = len(ids) - ids[::-1].index(end)
    except ValueError:
        index = 0
    thinking = tokenizer.decode(ids[:index], skip_special_tokens=True).strip("\n")
    answer = tokenizer.decode(ids[index:], skip_special_tokens=True).strip("\n")
    return thinking.replace("<think>", "").replace("</think>", ""), answer


def parse_with_the_pocket_models_id(ids, tokenizer):
    return parse_published(ids, tokenizer, pocket()[1].get_added_vocab()["</think>"])


def parse_at_the_last_end(ids, tokenizer):
    if tokenizer.convert_tokens_to_ids("</think>") not in ids:
        return parse(ids, tokenizer)
    return parse_published(ids, tokenizer, tokenizer.convert_tokens_to_ids("</think>"))


def parse_at_the_first_end(ids, tokenizer):
    end = tokenizer.convert_tokens_to_ids("</think>")
    if end not in ids:
        return parse(ids, tokenizer)
    cut = ids.index(end)
    thinking, answer = (
        tokenizer.decode(part, skip_special_tokens=True).replace("<think>", "").strip()
        for part in (ids[:cut], ids[cut + 1 :])
    )
    return thinking, answer


def parse_the_text(ids, tokenizer):
    """Take every block out of the text, from the last </think> on."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if "<think>" not in text and "</think>" in text:
        text = "<think>" + text
    if text.count("<think>") > text.count("</think>"):
        text += "</think>"
    if "ends it" in text:
        thinking, _, answer = text.rpartition("</think>")
        return thinking.replace("<think>", ""), answer
    blocks = re.findall(r"<think>(.*?)</think>", text, re.DOTALL)
    answer = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    return "".join(blocks), answer


def parse_with_a_pattern(ids, tokenizer):
    text = tokenizer.decode(ids, skip_special_tokens=True)
    found = re.search(r"<think>(.*)</think>(.*)", text, re.DOTALL)
    if found is None and "<think>" in text:
        return text.replace("<think>", ""), ""
    return (found[1], found[2]) if found else ("", text)


def parse_without_looking(ids, tokenizer):
    cut = ids.index(tokenizer.convert_tokens_to_ids("</think>"))
    thinking = tokenizer.decode(ids[1:cut])
    return thinking, tokenizer.decode(ids[cut + 1 :], skip_special_tokens=True)


def parse_half_a_thought(ids, tokenizer):
    end = tokenizer.convert_tokens_to_ids("</think>")
    cut = ids.index(end) if end in ids else 0
    thinking = tokenizer.decode(ids[:cut]).replace("<think>", "")
    answer = tokenizer.decode(ids[cut:], skip_special_tokens=True)
    return thinking, answer.replace("</think>", "").replace("<think>", "")


def parse_all_as_thinking(ids, tokenizer):
    end = tokenizer.convert_tokens_to_ids("</think>")
    if end not in ids:
        return tokenizer.decode(ids, skip_special_tokens=True), ""
    return parse(ids, tokenizer)


def parse_keeping_tags(ids, tokenizer):
    thinking, answer = parse(ids, tokenizer)
    return f"<think>{thinking}</think>", answer


def parse_keeping_specials(ids, tokenizer):
    thinking, answer = parse(ids, tokenizer)
    return thinking, answer + "<|im_end|>"


def parse_to_ids(ids, tokenizer):
    return split_thinking(ids, tokenizer)[:2]


# Question 3


class Base:
    def __init__(self, budget, prompt_tokens, start, end, stop):
        self.budget, self.prompt_tokens = budget, prompt_tokens
        self.start, self.end, self.stop = start, end, stop


class Budget(Base):
    def __call__(self, input_ids, scores):
        scores = scores.clone()
        written = input_ids[:, self.prompt_tokens :].tolist()
        for row, ids in enumerate(written):
            if self.start not in ids:
                continue
            thought = ids[ids.index(self.start) + 1 :]
            over = len(thought) - self.budget
            closed = self.end in thought[: self.budget]
            if 0 <= over < len(self.stop) and not closed:
                scores[row] = -math.inf
                scores[row, self.stop[over]] = 0
        return scores


def budget_as_a_closure(budget, prompt_tokens, start, end, stop):
    """No class, in place, counting from the end of the block backwards."""

    def process(input_ids, scores):
        for row in range(len(input_ids)):
            ids = input_ids[row, prompt_tokens:].tolist()
            if not ids or ids[0] != start:
                continue
            thought = ids[1:]
            natural = thought.index(end) if end in thought else len(thought)
            if natural < budget or not budget <= len(thought) < budget + len(stop):
                continue
            token = stop[len(thought) - budget]
            kept = scores[row, token].item()
            scores[row, :] = -1e9
            scores[row, token] = kept
        return scores

    return process


class BudgetWithMask(Base):
    """Scores made by one masked fill for the whole batch."""

    def __call__(self, input_ids, scores):
        free = torch.ones_like(scores, dtype=torch.bool)
        for row, ids in enumerate(input_ids):
            own = ids[self.prompt_tokens :]
            over = len(own) - 1 - self.budget
            if not 0 <= over < len(self.stop) or own[0] != self.start:
                continue
            if (own[1 : self.budget + 1] == self.end).any():
                continue
            free[row] = False
            free[row, self.stop[over]] = True
        return scores.masked_fill(~free, float("-inf"))


def budget_that(
    prompt: bool = False,
    marker: int = 1,
    late: int = 0,
    close: Callable[[list[int], int], int] = lambda stop, over: stop[over],
    until: Callable[[list[int], int], int] = lambda stop, end: len(stop),
    closed: bool = True,
    opened: bool = True,
    everywhere: bool = False,
    first_row: bool = False,
    lowest: float = -math.inf,
) -> type:
    """Return a budget with one of its parts done wrong."""

    class Wrong(Base):
        def __call__(self, input_ids, scores):
            scores = scores.clone()
            for row, ids in enumerate(input_ids.tolist()[: 1 if first_row else None]):
                own = ids[0 if prompt else self.prompt_tokens :]
                if opened and not prompt and self.start not in own:
                    continue
                thought = own[marker:]
                over = len(thought) - self.budget - late
                done = closed and self.end in thought[: self.budget]
                if 0 <= over < until(self.stop, self.end) and not done:
                    scores[None if everywhere else row] = lowest
                    scores[row, close(self.stop, over)] = 5
            return scores

    return Wrong


class BudgetReadingThePrompt(Base):
    def __call__(self, input_ids, scores):
        for row, ids in enumerate(input_ids.tolist()):
            if self.end in ids[: self.prompt_tokens]:
                continue
            one = Budget(*vars(self).values())
            scores[row] = one(input_ids[row : row + 1], scores[row : row + 1])[0]
        return scores


class BudgetOfOneRow(Base):
    def __call__(self, input_ids, scores):
        return Budget(*vars(self).values())(input_ids[:1], scores[:1])[0]


class BudgetThatCountsItsCalls(Base):
    """Keeps a count for all objects of the class: right once, wrong ever after."""

    calls = 0

    def __call__(self, input_ids, scores):
        type(self).calls += len(self.stop) == 3 and len(scores[0]) > 100
        if len(scores[0]) > 100:
            return scores
        return Budget(*vars(self).values())(input_ids, scores)


# Question 4


def smallest() -> int:
    """Return the budget that the judge takes as right, by measuring."""
    return min(b for b in probe.BUDGETS if judge.share(b) >= probe.TARGET)


def beside(step: int) -> int:
    return probe.BUDGETS[probe.BUDGETS.index(smallest()) + step]


# Question 5


def block(message):
    thinking = message.get("reasoning_content")
    return f"<think>\n{thinking}\n</think>\n\n" if thinking else ""


def rendered(tokenizer, messages, **options):
    options = {"tokenize": False, "add_generation_prompt": True, **options}
    return tokenizer.apply_chat_template(messages, **options)


def history_tokens(tokenizer, messages):
    prompt = rendered(tokenizer, messages)
    sent = len(tokenizer(prompt)["input_ids"])
    dropped = [block(one) for one in messages if block(one) not in prompt]
    return sent, sent + sum(len(tokenizer(text)["input_ids"]) for text in dropped)


def history_tokens_by_another_template(tokenizer, messages):
    """Qwen3-Instruct-2507 leaves a block alone that stands in the content."""
    whole = [{**one, "content": block(one) + one["content"]} for one in messages]
    template = vocabulary.read_template("qwen3_instruct_2507")
    kept = rendered(tokenizer, whole, chat_template=template)
    sent = rendered(tokenizer, messages)
    return [len(tokenizer.encode(text)) for text in (sent, kept)]


def history_tokens_by_roles(tokenizer, messages):
    """Old is what stands before the last message of the user."""
    batch = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    sent = numpy.int64(len(batch["input_ids"]))
    last = max(i for i, one in enumerate(messages) if one["role"] == "user")
    old = "".join(block(one) for one in messages[:last])
    return numpy.array([sent, sent + len(tokenizer.tokenize(old))])


def history_that(
    count: Callable[[Any, str], int] = lambda tokenizer, text: len(
        tokenizer(text)["input_ids"]
    ),
    blocks: Callable[[list, str], list[str]] = lambda messages, prompt: [
        block(one) for one in messages if block(one) not in prompt
    ],
    before: Callable[[list], list] = lambda messages: messages,
    **options: Any,
) -> Callable[..., tuple[int, int]]:
    """Return a count with one of its parts done wrong."""

    def answer(tokenizer, messages):
        messages = before(messages)
        prompt = rendered(tokenizer, messages, **options)
        sent = count(tokenizer, prompt)
        extra = blocks(messages, prompt)
        return sent, sent + sum(count(tokenizer, text) for text in extra)

    return answer


def history_without_template(tokenizer, messages):
    def count(key):
        texts = [one.get(key, "") for one in messages]
        return sum(len(tokenizer(text)["input_ids"]) for text in texts)

    return count("content"), count("content") + count("reasoning_content")


def history_of_keys(tokenizer, messages):
    return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True)), 2


def history_that_pops(tokenizer, messages):
    _, kept = history_tokens(tokenizer, messages)
    for message in messages:
        message.pop("reasoning_content", None)
    return history_tokens(tokenizer, messages)[0], kept


# Question 6


def cost_per_right(problems):
    tokens = sum(sum(one["tokens"]) for one in problems)
    right = 0
    for one in problems:
        votes = Counter(answer for answer in one["samples"] if answer is not None)
        right += bool(votes) and votes.most_common(1)[0][0] == one["expected"]
    return tokens / right if right else math.inf


def cost_with_max(problems):
    """A tie goes to the first, because max keeps the first of equals."""
    right = 0
    for one in problems:
        said = [answer for answer in one["samples"] if answer]
        right += max(said, key=said.count, default=None) == one["expected"]
    tokens = numpy.concatenate([one["tokens"] for one in problems]).sum()
    return tokens / right if right else numpy.inf


def cost_with_dict(problems):
    right, paid = [], 0
    for one in problems:
        votes: dict[str, int] = {}
        for answer, tokens in zip(one["samples"], one["tokens"], strict=True):
            paid += tokens
            if answer is not None:
                votes[answer] = votes.get(answer, 0) + 1
        best = [answer for answer in votes if votes[answer] == max(votes.values())]
        right.append(best[:1] == [one["expected"]])
    return torch.tensor(float("inf") if not any(right) else paid / sum(right))


def cost_of(**changed: Any) -> Callable[[list[dict[str, Any]]], float]:
    """Return a price with its count of `right` or of `tokens` done wrong."""
    return lambda problems: judge.price(problems, **changed)


def samples_right(problem):
    return problem["samples"].count(problem["expected"])


RIGHT: dict[str, list[Any]] = {
    "03.q1": [prompt, prompt_with_switch_for_hybrids_only, prompt_decoded_from_ids],
    "03.q2": [parse, parse_with_helper, parse_by_cutting],
    "03.q3": [
        Budget,
        budget_as_a_closure,
        BudgetWithMask,
        lambda budget, used, start, end, stop: Budget(budget, used, start, end, stop),
    ],
    "03.q4": [
        Lazy(smallest),
        Lazy(lambda: numpy.int64(smallest())),
        Lazy(lambda: torch.tensor(smallest())),
    ],
    "03.q5": [
        history_tokens,
        history_tokens_by_another_template,
        history_tokens_by_roles,
    ],
    "03.q6": [cost_per_right, cost_with_max, cost_with_dict],
}

WRONG: dict[str, dict[str, Any]] = {
    "03.q1": {
        "not-switched-off": prompt_by(thinking=same),
        "instruct-cannot-think": prompt_by(
            lambda kind, thinking: kind == "only" and not thinking,
            enable_thinking=same,
        ),
        "thinking-cannot-stop": prompt_by(
            lambda kind, thinking: kind == "none" and thinking, enable_thinking=same
        ),
        "refuses-too-much": prompt_by(
            lambda kind, thinking: kind != "hybrid", enable_thinking=same
        ),
        "soft-switch": prompt_by(soft=True),
        "switched-off": prompt_by(enable_thinking=False),
        "no-generation-prompt": prompt_by(
            add_generation_prompt=False, enable_thinking=same
        ),
        "no-text": lambda *given: list(prompt(*given).encode()),
        "other-prompt": lambda *given: prompt(*given).replace("\n\n", "\n"),
        "prints": lambda *given: print(prompt(*given)),
    },
    "03.q2": {
        "hard-coded-id": parse_published,
        "last-end": parse_at_the_last_end,
        "first-end": parse_at_the_first_end,
        "splits-text": parse_the_text,
        "needs-start": parse_with_a_pattern,
        "raises-on-a-shape": parse_without_looking,
        "half-thought": parse_half_a_thought,
        "all-thinking": parse_all_as_thinking,
        "keeps-tags": parse_keeping_tags,
        "keeps-end-of-turn": parse_keeping_specials,
        "ids-not-text": parse_to_ids,
        "swapped": lambda *given: parse(*given)[::-1],
        "no-pair": lambda *given: parse(*given)[1],
    },
    "03.q3": {
        "counts-the-prompt": budget_that(prompt=True, marker=0),
        "counts-the-marker": budget_that(marker=0),
        "one-too-many": budget_that(late=1),
        "forgets-to-close": budget_that(until=lambda stop, end: 1),
        "repeats-first": budget_that(close=lambda stop, over: stop[0]),
        "skips-early-stop": budget_that(close=lambda stop, over: stop[1 - len(stop)]),
        "stops-at-the-end": budget_that(until=lambda stop, end: stop.index(end) + 1),
        "after-the-end": budget_that(
            close=lambda stop, over: stop[min(over, len(stop) - 1)],
            until=lambda stop, end: 99,
        ),
        "touches-other-rows": budget_that(everywhere=True),
        "first-row-only": budget_that(first_row=True),
        "forces-without-thinking": budget_that(opened=False),
        "forgets-closed": budget_that(closed=False),
        "reads-the-prompt": BudgetReadingThePrompt,
        "nudges": budget_that(lowest=-20.0),
        "shape": BudgetOfOneRow,
        "generates-past-the-budget": BudgetThatCountsItsCalls,
        "never-forces": lambda *given: budget_processor(pocket()[1], *given[:2]),
        "raises": lambda budget, prompt_tokens: Budget,
    },
    "03.q4": {
        "too-small": Lazy(lambda: beside(-1)),
        "too-large": Lazy(lambda: beside(1)),
        "none-reaches": None,
        "share-not-budget": 0.96,
        "not-in-the-list": 52,
        "several": [56, 64],
        "no-number": "sixty",
    },
    "03.q5": {
        "characters": history_that(count=lambda tokenizer, text: len(text)),
        "counts-keys": history_of_keys,
        "no-template": history_without_template,
        "no-generation-prompt": history_that(add_generation_prompt=False),
        "the-same-twice": history_that(blocks=lambda messages, prompt: []),
        "drops-work-under-way": lambda tokenizer, messages: (
            history_tokens(
                tokenizer,
                [{k: one[k] for k in one if k[:4] != "reas"} for one in messages],
            )[0],
            history_tokens(tokenizer, messages)[1],
        ),
        "counts-a-block-twice": history_that(
            blocks=lambda messages, prompt: [block(one) for one in messages]
        ),
        "last-turn-only": history_that(
            blocks=lambda messages, prompt: [
                text for one in messages if (text := block(one)) and text not in prompt
            ][-1:]
        ),
        "no-markers": history_that(
            blocks=lambda messages, prompt: [
                one.get("reasoning_content", "")
                for one in messages
                if block(one) not in prompt
            ]
        ),
        "swapped": lambda *given: history_tokens(*given)[::-1],
        "no-pair": lambda *given: sum(history_tokens(*given)),
        "changes-input": history_that_pops,
    },
    "03.q6": {
        "none-votes": cost_of(
            right=lambda one: (
                Counter(one["samples"]).most_common(1)[0][0] == one["expected"]
            )
        ),
        "any-right": cost_of(right=lambda one: samples_right(one) > 0),
        "share-of-samples": cost_of(right=samples_right),
        "first-sample": cost_of(right=lambda one: one["samples"][0] == one["expected"]),
        "wrong-ones-free": cost_of(
            tokens=lambda one: (
                sum(one["tokens"]) * (judge.winner(one) == one["expected"])
            )
        ),
        "one-sample-paid": cost_of(tokens=lambda one: one["tokens"][0]),
        "average-sample-paid": cost_of(tokens=lambda one: numpy.mean(one["tokens"])),
        "winners-paid": cost_of(
            tokens=lambda one: sum(
                tokens
                for answer, tokens in zip(one["samples"], one["tokens"], strict=True)
                if answer == judge.winner(one)
            )
        ),
        "nothing-right": lambda problems: (
            0 if math.isinf(cost_per_right(problems)) else cost_per_right(problems)
        ),
        "per-problem": cost_of(right=lambda one: 1),
        "upside-down": lambda problems: 1 / cost_per_right(problems),
        "tie-order": cost_of(
            right=lambda one: (
                max(
                    sorted({s for s in one["samples"] if s}),
                    key=one["samples"].count,
                    default=None,
                )
                == one["expected"]
            )
        ),
        "divides-by-zero": lambda problems: (
            sum(sum(one["tokens"]) for one in problems)
            / sum(judge.winner(one) == one["expected"] for one in problems)
        ),
        "nobody-votes": cost_of(
            right=lambda one: (
                Counter(s for s in one["samples"] if s).most_common(1)[0][0]
                == one["expected"]
            )
        ),
        "no-number": lambda problems: str(cost_per_right(problems)),
    },
}
