"""What is right in the exercises of lesson 03."""

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from qwen_course.evaluation import evaluate
from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_03 as probe
from qwen_course.exercises.probes import pocket
from qwen_course.exercises.question import Mistake, Question
from qwen_course.thinking import EARLY_STOP, split_thinking, token_id

Outcomes = list[dict[str, Any]]
Talk = list[dict[str, Any]]


# Question 1


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each prompt with what the template writes when told rightly."""
    for wish, outcome in zip(probe.wishes(seed), seen, strict=True):
        possible = wish.checkpoint.thinking != ("only", "none")[wish.thinking]
        look = _prompt if possible else _refusal
        if wrong := look(wish, outcome):
            return wrong
    return None


def _asked(wish: probe.Wish) -> str:
    return f"prompt(tokenizer, {wish.checkpoint.name}, ..., thinking={wish.thinking})"


def _refusal(wish: probe.Wish, outcome: dict[str, Any]) -> Mistake | None:
    """Say what is wrong unless the call raised ValueError."""
    if outcome["error"].startswith("ValueError"):
        return None
    if outcome["error"] or outcome["late"]:
        return mistakes.of_call(outcome, _asked(wish))
    said = f"{_asked(wish)} raised no ValueError. "
    if wish.thinking:
        return Mistake(
            "instruct-cannot-think",
            said + "Instruct-2507 was never taught to think, and its template does not "
            "read the switch: nothing happens, and nobody is told.",
        )
    return Mistake(
        "thinking-cannot-stop",
        said + "Thinking-2507 always thinks: no switch turns that off. Whoever wants "
        "an answer at once needs another checkpoint.",
    )


def _prompt(wish: probe.Wish, outcome: dict[str, Any]) -> Mistake | None:
    if outcome["error"].startswith("ValueError"):
        return Mistake(
            "refuses-too-much",
            f"{_asked(wish)} raised {outcome['error']}. But a checkpoint whose "
            f'`thinking` is "{wish.checkpoint.thinking}" can do this.',
        )
    if wrong := mistakes.of_call(outcome, _asked(wish)):
        return wrong
    given = outcome["value"]
    if not isinstance(given, str):
        return Mistake(
            "no-text",
            f"{_asked(wish)} returned no text. Without tokenize=False the template "
            "gives token ids.",
        )
    expected = _rendered(wish)
    if given == expected:
        return None
    return _wrong_prompt(wish, given, expected)


def _rendered(wish: probe.Wish, generation: bool = True, thinking: Any = None) -> str:
    text = probe.small_tokenizer(wish.template).apply_chat_template(
        [{"role": "user", "content": wish.text}],
        tokenize=False,
        add_generation_prompt=generation,
        enable_thinking=wish.thinking if thinking is None else thinking,
    )
    return str(text)


def _wrong_prompt(wish: probe.Wish, given: str, expected: str) -> Mistake:
    """Name the switch that was not set, or set at the wrong place."""
    said = f"{_asked(wish)} ends in {given[-40:]!r}. "
    if "/no_think" in given or "/think" in given.replace("</think", ""):
        return Mistake(
            "soft-switch",
            said + "/think and /no_think are words that Qwen3 was trained on: a habit, "
            "no rule, and later models do not know them. Set the hard switch.",
        )
    if given == _rendered(wish, generation=False):
        return Mistake(
            "no-generation-prompt",
            said + "It stops before the assistant's turn, so the model may go on as "
            "the user, and the switch has no place. Pass add_generation_prompt=True.",
        )
    if given == _rendered(wish, thinking=not wish.thinking):
        if wish.thinking:
            return Mistake(
                "switched-off",
                said + "The closed block tells the model that it has finished "
                "thinking. This prompt was to let it think.",
            )
        return Mistake(
            "not-switched-off",
            said + "The empty block is missing: the model will think. A template "
            "ignores arguments that it does not know, and takes only a plain False: "
            "enable_thinking=False.",
        )
    return Mistake("other-prompt", said + f"It should end in {expected[-40:]!r}.")


# Question 2


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare both parts with those of the course's helper, blank space left out."""
    for (shape, tokenizer), outcome in zip(probe.parsed(seed), seen, strict=True):
        if outcome["error"] and shape.name != "closed":
            return Mistake(
                "raises-on-a-shape",
                f"{shape.reply!r} made your function fail with {outcome['error']}. "
                "Not every reply has both markers: look before you cut.",
            )
        if wrong := mistakes.of_call(outcome, f"parse(ids of {shape.reply!r}, ...)"):
            return wrong
        if wrong := _parts(shape, tokenizer, outcome["value"]):
            return wrong
    return None


def _bare(text: str) -> str:
    return "".join(text.split())


def _parts(shape: probe.Shape, tokenizer: Any, value: Any) -> Mistake | None:
    if not (isinstance(value, list) and len(value) == 2):
        return Mistake(
            "no-pair", f"You returned {str(value)[:60]!r}. Return two texts: thinking, "
            "answer."
        )  # fmt: skip
    if not all(isinstance(part, str) for part in value):
        return Mistake(
            "ids-not-text",
            f"You returned {str(value)[:60]}, which are no texts. Split the ids, then "
            "decode each part.",
        )
    split = split_thinking(probe.encoded(shape.reply, tokenizer), tokenizer)
    expected = [tokenizer.decode(part, skip_special_tokens=True) for part in split[:2]]
    if list(map(_bare, value)) == list(map(_bare, expected)):
        return None
    name, text = _misread(shape, tokenizer, value, expected)
    reply = shape.reply.replace("</ think>", "</think>")
    said = f"{reply!r}: you returned {value[0]!r} and {value[1]!r}. "
    return Mistake(name, said + text)


def _misread(
    shape: probe.Shape, tokenizer: Any, value: list[str], expected: list[str]
) -> tuple[str, str]:
    """Name what went wrong with one reply, from its parts without blank space."""
    thinking, answer = map(_bare, value)
    wanted, final = map(_bare, expected)
    if wanted and final and (thinking, answer) == (final, wanted):
        return "swapped", "That is the answer first: return (thinking, answer)."
    if shape.name == "closed" and not thinking and "</think>" in answer:
        number = token_id(tokenizer, "</think>")
        return "hard-coded-id", (
            f"The end of the block was not found. Here </think> is {number}; 151668 is "
            "its number in Qwen3 only. Look the number up by name."
        )
    if shape.name == "typed" and "Thetag" not in answer:
        return "splits-text", (
            "The user's word </think> was taken for the end of the block. In the text "
            "both look alike; in the ids only one is the token. Split the ids."
        )
    strip = functools.partial(_without, ("<think>", "</think>"))
    if "<|im_end|>" in thinking + answer:
        return "keeps-end-of-turn", (
            "<|im_end|> is in it. Decode with skip_special_tokens=True."
        )
    if shape.name == "two blocks" and "Iamsure" in answer:
        if "Itis" not in answer:
            return "last-end", (
                "What was said between the two blocks is part of the answer. You cut "
                "at the last </think>: everything before it became thinking."
            )
        if _bare(expected[0].strip().splitlines()[-1]) in answer:
            return "first-end", (
                "You cut at the first </think>: the second block is still in the "
                "answer. Walk through the ids and note whether you are inside."
            )
    if (strip(thinking), strip(answer)) == (wanted, final):
        return "keeps-tags", (
            "The markers are still in it. They are not special tokens, so "
            "skip_special_tokens leaves them: leave out their ids."
        )
    if shape.name == "cut off" and answer:
        return "half-thought", (
            "This reply was cut off inside its block, so it has no answer yet. You "
            "hand out half a thought as one."
        )
    if shape.name == "opened" and not thinking:
        return "needs-start", (
            "The prompt opened this block (Qwen3.5 does so), so the reply holds only "
            "its end. You looked for <think> as well."
        )
    if shape.name in ("no block", "empty block") and thinking:
        return "all-thinking", "Nothing was thought here: it is all answer."
    return "parts", f"It should be {expected[0]!r} and {expected[1]!r}."


def _without(words: tuple[str, ...], text: str) -> str:
    for word in words:
        text = text.replace(word, "")
    return text


# Question 3


def q3(seen: Outcomes, seed: int) -> Mistake | None:
    """Follow every row step by step; then look at what was generated."""
    for run, outcome in zip(probe.runs(seed), seen, strict=False):
        if wrong := mistakes.of_call(outcome, f"The processor (run {run.name!r})"):
            return wrong
        if wrong := _followed(run, outcome["value"]):
            return wrong
    return _generated(seen[-1])


def _forced_at(run: probe.Run, row: int, step: int) -> int | None:
    """Return the token that must come next in a row, None where it is free."""
    ids = run.written[row][:step]
    if run.start not in ids:
        return None
    since = step - 1 - run.budget  # <think> itself is no thinking
    closed = run.end in ids[1 : 1 + run.budget]
    return run.stop[since] if not closed and 0 <= since < len(run.stop) else None


def _allowed(scores: list[Any]) -> list[int]:
    """Return the tokens that have not been ruled out ("-inf", or far below zero)."""
    return [
        id
        for id, score in enumerate(scores)
        if not isinstance(score, str) and score > -1e4
    ]


def _followed(run: probe.Run, made: Any) -> Mistake | None:
    """Return what the first wrong step of a run shows."""
    rows = len(run.prompts)
    for step, scores in enumerate(made):
        before = probe.scores_at(run, step)
        shaped = isinstance(scores, list) and len(scores) == rows
        if not shaped or not all(
            isinstance(row, list) and len(row) == probe.WORDS for row in scores
        ):
            return Mistake(
                "shape",
                "The scores came back in another shape. Return all of them, (batch, "
                "vocabulary), with only the rows changed that must close.",
            )
        for row, (given, new) in enumerate(zip(before, scores, strict=True)):
            token = _forced_at(run, row, step)
            same = all(map(mistakes.close, new, given))
            if token is None and same or token is not None and _allowed(new) == [token]:
                continue
            if run.name == "alone" and all(
                now == probe.scores_at(run, i) for i, now in enumerate(made)
            ):
                return _never(run)
            name, text = _misstep(run, row, step, same, scores)
            return Mistake(name, _where(run, row, step) + text)
    return None


def _never(run: probe.Run) -> Mistake:
    return Mistake(
        "never-forces",
        f"In {len(run.written[0])} steps with a budget of {run.budget} nothing was "
        "forced. Compare with the start, end and stop that you are given: here they "
        "come from a made-up vocabulary.",
    )


def _where(run: probe.Run, row: int, step: int) -> str:
    """Say which moment is meant, in the numbers of the row itself."""
    one = "" if len(run.prompts) == 1 else f"row {row} of a batch, "
    return (
        f"Budget {run.budget}, {one}prompt of {len(run.prompts[0])} tokens, written so "
        f"far {step} (with <think>): "
    )


def _misstep(
    run: probe.Run, row: int, step: int, same: bool, scores: list[list[Any]]
) -> tuple[str, str]:
    """Name what a processor did at the first step where it went wrong."""
    token = _forced_at(run, row, step)
    if run.name == "batch" and token is None:
        if all(
            now != before
            for now, before in zip(scores, probe.scores_at(run, step), strict=True)
        ):
            return "touches-other-rows", (
                "every row was changed, but only row 1 has to close. The rows are at "
                "different places: read each row's own ids, change scores[row] only."
            )
        return _not_thinking(run, row)
    if token is None:
        return _too_early_or_late(run, step)
    if same:
        return _nothing_forced(run, step)
    allowed = _allowed(scores[row])
    if len(allowed) != 1:
        return "nudges", (
            f"{len(allowed)} tokens are still possible. With sampling any of them may "
            "come: set all scores of the row to minus infinity but one."
        )
    since = step - 1 - run.budget
    if since and allowed == [run.stop[0]]:
        return "repeats-first", (
            "the first token of `stop` was forced again. The block never closes: each "
            "step forces the next token of `stop`."
        )
    if allowed == [run.end]:
        return "skips-early-stop", (
            "</think> was forced at once. Force the tokens of `stop` in their order: "
            "the model learnt to see them before and after the end."
        )
    return (
        "other-token",
        f"token {allowed[0]} was forced; `stop` goes on with {token}.",
    )


def _not_thinking(run: probe.Run, row: int) -> tuple[str, str]:
    if run.start not in run.written[row]:
        return "forces-without-thinking", (
            "a closing token was forced in a row that never opened a block. It answers "
            "at once, and an answer has no budget."
        )
    return "forgets-closed", (
        "a closing token was forced in a row that closed its block by itself. What it "
        "writes now is the answer."
    )


def _too_early_or_late(run: probe.Run, step: int) -> tuple[str, str]:
    """Name a change of the only row at a step where the model is free."""
    if step > run.budget:
        return "after-the-end", (
            "the scores were changed although `stop` had been written. The block is "
            "closed, so the model is free again."
        )
    if step == run.budget:
        return "counts-the-marker", (
            f"the block was closed after {step - 1} tokens of thinking. You counted "
            "<think>, which opens the block and is no thought."
        )
    return "counts-the-prompt", (
        "the scores were changed too early. The prompt's tokens are no thinking: count "
        "from prompt_tokens on."
    )


def _nothing_forced(run: probe.Run, step: int) -> tuple[str, str]:
    """Name why no token was forced where one had to be."""
    since = step - 1 - run.budget
    if run.name == "batch":
        return "first-row-only", (
            "nothing was forced. Did you look at row 0 only? Each row has its own "
            "budget to spend."
        )
    if run.name == "history":
        return "reads-the-prompt", (
            "nothing was forced. The </think> you found stands in the prompt, from a "
            "turn before. Look at what was written after the prompt."
        )
    if since == 0:
        return "one-too-many", (
            "nothing was forced yet, so the model thinks on. When as many tokens as "
            "the budget have been thought, the next one is the first of `stop`."
        )
    if run.end in run.stop[:since]:
        return "stops-at-the-end", (
            "</think> is written, the rest of `stop` was not forced. The model was "
            "trained with the empty line after the block."
        )
    return "forgets-to-close", (
        "only the first token of `stop` was forced. The block stays open: go on with "
        "the next one, a step each, until </think> is out."
    )


def _generated(outcome: dict[str, Any]) -> Mistake | None:
    """Look whether the pocket model, under the processor, closed its block in time."""
    if wrong := mistakes.of_call(outcome, "model.generate with your processor"):
        return wrong
    tokenizer = pocket()[1]
    parts = split_thinking(outcome["value"], tokenizer)
    before_end = tokenizer(EARLY_STOP.split("</think>")[0])["input_ids"]
    if parts.closed and len(parts.thinking) <= probe.SMALL_BUDGET + len(before_end):
        return None
    return Mistake(
        "generates-past-the-budget",
        f"With a budget of {probe.SMALL_BUDGET} the pocket model wrote "
        f"{tokenizer.decode(outcome['value'])!r}. Does your processor keep something "
        "from an earlier call? Read all it needs from input_ids.",
    )


# Question 4


@functools.cache
def share(budget: int) -> float:
    """Return the share of right answers that the pocket model gets with a budget."""
    model, tokenizer = pocket()
    return evaluate(
        model, tokenizer, probe.fives(), thinking_budget=budget,
        max_new_tokens=budget + 24, progress=False,
    ).accuracy  # fmt: skip


def q4(seen: Any, seed: int) -> Mistake | None:
    """Measure the budget that was answered, and the next smaller one."""
    if seen is None:
        return Mistake(
            "none-reaches",
            "You found no budget that reaches 90%. Was it measured without thinking, "
            "or with max_new_tokens below the budget? And accuracy is a share, from 0 "
            "to 1: compare it with 0.9, not 90.",
        )
    if isinstance(seen, list | dict):
        return Mistake(
            "several", "You returned several values. Of the budgets that reach 90%, "
            "return one: the smallest."
        )  # fmt: skip
    if not mistakes.is_number(seen):
        return Mistake(
            "no-number", f"{seen!r} is no number. Return one of the budgets."
        )
    if seen not in probe.BUDGETS:
        return _no_budget(seen)
    if share(seen) < probe.TARGET:
        return Mistake(
            "too-small",
            f"With a budget of {seen} only {share(seen):.0%} of the sums are right: it "
            "does not cover all the lines, and the rest is a guess.",
        )
    smaller = [budget for budget in probe.BUDGETS if budget < seen]
    if smaller and share(smaller[-1]) >= probe.TARGET:
        return Mistake(
            "too-large",
            f"{seen} reaches it, but so does {smaller[-1]} ({share(smaller[-1]):.0%}). "
            "More room than the steps need buys no accuracy.",
        )
    return None


def _no_budget(value: float) -> Mistake:
    if 0 <= value <= 1:
        return Mistake(
            "share-not-budget",
            f"{value:g} is a share of right answers. Return the budget that gave it.",
        )
    return Mistake(
        "not-in-the-list",
        f"{value:g} is not one of {probe.BUDGETS}. Return a budget, not a count of "
        "tokens or problems.",
    )


# Question 5


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare both counts with those of the template."""
    wrong = mistakes.of_calls(
        seen, [f"history_tokens(tokenizer, talk {i})" for i in range(len(seen))]
    )
    if wrong:
        return wrong
    for number, (talk, outcome) in enumerate(zip(probe.talks(seed), seen, strict=True)):
        value = outcome["value"]
        if not mistakes.is_pair(value):
            return Mistake(
                "no-pair", f"You returned {str(value)[:60]}. Return two numbers: "
                "(sent, kept)."
            )  # fmt: skip
        if wrong := _counts(number, talk, *value):
            return wrong
    return None


def _tokens(text: str) -> int:
    return len(pocket()[1](text)["input_ids"])


def _block(message: dict[str, Any]) -> str:
    thinking = message.get("reasoning_content")
    return f"<think>\n{thinking}\n</think>\n\n" if thinking else ""


def _sent(talk: Talk, generation: bool = True) -> str:
    text = pocket()[1].apply_chat_template(
        talk, tokenize=False, add_generation_prompt=generation
    )
    return str(text)


def _counts(
    number: int, talk: Talk, given_sent: float, given_kept: float
) -> Mistake | None:
    """Compare one pair of counts, and name what leads to a wrong one."""
    text = _sent(talk)
    lost = [block for block in map(_block, talk) if block not in text]
    sent = _tokens(text)
    kept = sent + sum(map(_tokens, lost))
    # Where a block ends, a tokenizer may join what follows: one token more or less.
    if given_sent == sent and abs(given_kept - kept) <= 2:
        return None
    said = (
        f"Talk {number} ({len(talk)} messages): you counted sent {given_sent:,}, kept "
        f"{given_kept:,}. "
    )
    if given_sent == sent:
        name, why = _wrong_kept(talk, lost, given_kept - sent)
        return Mistake(name, said + why)
    if (given_sent, given_kept) == (kept, sent):
        return Mistake("swapped", said + "Return the shorter one first: (sent, kept).")
    name, why = _wrong_sent(talk, text, given_sent)
    return Mistake(name, said + why)


def _wrong_sent(talk: Talk, text: str, given: float) -> tuple[str, str]:
    """Name what was counted in place of the prompt."""
    bare = [{k: one[k] for k in one if k != "reasoning_content"} for one in talk]
    words = sum(_tokens(one["content"]) for one in talk)
    thoughts = sum(_tokens(one.get("reasoning_content", "")) for one in talk)
    if given == len(text):
        return "characters", (
            "Those are characters. A model reads, and you pay for, tokens."
        )
    if given in (1, 2):
        return "counts-keys", (
            "apply_chat_template returns a dict of two entries, and you took its "
            'length. Count its "input_ids", or tokenize the text.'
        )
    if given == _tokens(_sent(talk, generation=False)):
        return "no-generation-prompt", (
            "The header of the next turn is missing: the model reads it as well. Pass "
            "add_generation_prompt=True."
        )
    if given == _tokens(_sent(bare)):
        return "drops-work-under-way", (
            "You took out all the thinking. After the last question of the user (here "
            "a tool is at work) the template keeps it: the model must go on from there."
        )
    if given in (words, words + thoughts):
        return "no-template", (
            "You counted the contents alone. The template adds tokens around every "
            "message, and the model reads those too."
        )
    return "sent", (
        f"As sent it has {_tokens(text):,} tokens: render it with the template, then "
        "count the ids."
    )


def _wrong_kept(talk: Talk, lost: list[str], more: float) -> tuple[str, str]:
    """Name which blocks `more` tokens are, where `lost` were dropped."""
    thoughts = sum(_tokens(one.get("reasoning_content", "")) for one in talk)
    if more == 0:
        return "the-same-twice", (
            "The two are equal. You handed reasoning_content to the template both "
            "times, and Qwen3's template drops it both times."
        )
    if more == sum(_tokens(_block(message)) for message in talk):
        return "counts-a-block-twice", (
            "The thinking after the last question of the user is in `sent` already. "
            "Add only the blocks that the template has dropped."
        )
    if more == sum(map(_tokens, lost[-1:])):
        return "last-turn-only", (
            "Only the last turn's thinking was added. The thinking of every turn "
            "before the last question is dropped."
        )
    if abs(more - thoughts) <= 2:
        return "no-markers", (
            "The markers of the blocks are missing: <think>, </think> and the lines "
            "around them are tokens too."
        )
    return "kept", f"`sent` is right; `kept` is {sum(map(_tokens, lost)):,} more."


# Question 6

Problems = list[dict[str, Any]]


def winner(problem: dict[str, Any]) -> str | None:
    """Return the answer with the most votes, the first of equals, None if no sample."""
    counts = Counter(answer for answer in problem["samples"] if answer is not None)
    return counts.most_common(1)[0][0] if counts else None


def price(
    problems: Problems,
    right: Callable[[dict[str, Any]], float] | None = None,
    tokens: Callable[[dict[str, Any]], float] | None = None,
) -> float:
    """Return the tokens for each right problem; other ways to count show mistakes."""
    right = right or _won
    tokens = tokens or (lambda problem: sum(problem["tokens"]))
    total = sum(map(right, problems))
    return sum(map(tokens, problems)) / total if total else math.inf


def _won(problem: dict[str, Any]) -> bool:
    return winner(problem) == problem["expected"]


def _won_with_none(problem: dict[str, Any]) -> bool:
    return Counter(problem["samples"]).most_common(1)[0][0] == problem["expected"]


def _won_if_last(problem: dict[str, Any]) -> bool:
    """Give a tie to the answer that came last."""
    backwards = {**problem, "samples": problem["samples"][::-1]}
    return winner(backwards) == problem["expected"]


def _tied(problem: dict[str, Any]) -> bool:
    counts = Counter(problem["samples"]).most_common(2)
    return len(counts) == 2 and counts[0][1] == counts[1][1]


def _hits(problem: dict[str, Any]) -> int:
    return problem["samples"].count(problem["expected"])


WAYS: tuple[tuple[str, Callable[[Problems], float], str], ...] = (
    ("none-votes", lambda p: price(p, _won_with_none),
     "None was counted as an answer. It is a sample that was cut off: it costs tokens "
     "and has no vote."),
    ("any-right", lambda p: price(p, lambda one: _hits(one) > 0),
     "You took a problem as right when any sample is. You don't know which one that "
     "is: only the majority is handed out."),
    ("share-of-samples", lambda p: price(p, _hits),
     "You counted right samples. A vote hands out one answer a problem, so a problem "
     "is right once or not at all."),
    ("first-sample", lambda p: price(
        p, lambda one: one["samples"][0] == one["expected"]),
     "You looked at the first sample only; the answer with most votes counts."),
    ("wrong-ones-free", lambda p: price(
        p, tokens=lambda one: sum(one["tokens"]) * _won(one)),
     "You paid only for the problems that came out right. The wrong ones cost tokens "
     "as well."),
    ("one-sample-paid", lambda p: price(p, tokens=lambda one: one["tokens"][0]),
     "You paid for one sample a problem. A vote needs all of them, and all are paid "
     "for."),
    ("average-sample-paid", lambda p: price(
        p, tokens=lambda one: sum(one["tokens"]) / len(one["tokens"])),
     "You took the average of the samples. A vote needs all of them, and all are paid "
     "for."),
    ("winners-paid", lambda p: price(p, tokens=lambda one: sum(
        n for n, a in zip(one["tokens"], one["samples"], strict=True)
        if a == winner(one))),
     "You paid only for the samples that voted for the winner. Those that were "
     "outvoted or cut off cost tokens as well."),
    ("per-problem", lambda p: price(p, lambda one: 1),
     "That is the price of a problem, right or wrong. Divide by the right ones."),
    ("upside-down", lambda p: 1 / price(p),
     "That is right answers for each token. Divide the other way round."),
    ("tie-order", lambda p: price(p, _won_if_last),
     "Where two answers have as many votes, the one that came first wins. `set` keeps "
     "no order; dict and Counter do."),
)  # fmt: skip


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each price; a wrong one is compared with what mistakes would give."""
    cases = probe.votes(seed)
    for problems, outcome in zip(cases, seen, strict=True):
        if wrong := _failed(problems, outcome):
            return wrong
        value, right = outcome["value"], price(problems)
        if value == "inf":  # plain data has no infinity
            value = math.inf
        if not mistakes.is_number(value):
            return Mistake("no-number", f"You returned {value!r}. Return a number.")
        if mistakes.close(value, right):
            continue
        return _mispriced(problems, value, right)
    return None


def _failed(problems: Problems, outcome: dict[str, Any]) -> Mistake | None:
    if outcome["error"].startswith("ZeroDivisionError"):
        return Mistake(
            "divides-by-zero",
            f"Of {len(problems)} problems none was right, and you divided by 0. No "
            "price buys a right answer here: return math.inf.",
        )
    unanswered = any(winner(problem) is None for problem in problems)
    if outcome["error"] and unanswered:
        return Mistake(
            "nobody-votes",
            f"It failed with {outcome['error']}. All samples of one problem were cut "
            "off, so nobody votes: the problem is wrong, and paid for.",
        )
    return mistakes.of_call(outcome, f"cost_per_right({len(problems)} problems)")


def _mispriced(problems: Problems, value: float, right: float) -> Mistake:
    said = f"{_described(problems)}: you returned {value:,.2f}, it is {right:,.2f}. "
    if math.isinf(right) and value == 0:
        return Mistake(
            "nothing-right",
            said + "Where nothing is right, no price buys an answer: math.inf.",
        )
    for name, way, text in WAYS:
        if mistakes.close(value, way(problems)):
            return Mistake(name, said + text)
    if all(map(_tied, problems)):  # set and sort break ties in ways of their own
        name, _, text = WAYS[-1]
        return Mistake(name, said + text)
    return Mistake(
        "price", said + "Count the problems whose majority is right, then divide all "
        "tokens by that."
    )  # fmt: skip


def _described(problems: Problems) -> str:
    votes = "; ".join(str(problem["samples"]) for problem in problems)
    return f"Samples {votes}" if len(votes) < 160 else f"{len(problems)} problems"


QUESTIONS = (
    Question(
        id="03.q1",
        title="Switch thinking off, and know when you cannot",
        outcome=3,
        difficulty="warm-up",
        minutes=8,
        judge=q1,
        hints=(
            "What a checkpoint can do stands in checkpoint.thinking: hybrid, only, or "
            "none. Which of the six combinations with a wish are impossible?",
            "Raise ValueError for the two impossible ones first. For all others one "
            "call of apply_chat_template does it, with three arguments beside the "
            "messages: text instead of ids, the assistant's header, and the switch.",
        ),
        look=(
            "What changed after Qwen3",
            "03_thinking_mode.ipynb#What-changed-after-Qwen3",
        ),
        why="A template ignores what it does not know, so a switch that does nothing "
        "is found by looking at the prompt, never by an error.",
    ),
    Question(
        id="03.q2",
        title="Repair the published parser (errata)",
        outcome=3,
        difficulty="core",
        minutes=15,
        judge=q2,
        hints=(
            "Ask the tokenizer for the ids of <think> and </think> by name, and walk "
            "through the reply once, noting whether you are inside a block.",
            "You are inside from the first token on when </think> comes before any "
            "<think>. Collect ids in two lists, leave out the markers that switch, and "
            "decode each list with skip_special_tokens=True.",
        ),
        look=(
            "Replies come in several shapes",
            "03_thinking_mode.ipynb#Replies-come-in-several-shapes",
        ),
        why="A parser that looks markers up by name and reads ids works for every Qwen "
        "that thinks; one with 151668 in it fails silently on the next vocabulary.",
    ),
    Question(
        id="03.q3",
        title="A thinking budget for a whole batch",
        outcome=3,
        difficulty="core",
        minutes=20,
        judge=q3,
        hints=(
            "Go through the rows one by one, and look only at what a row has written "
            "after the prompt. Three kinds of row are left alone: without <think>, "
            "with a block that it closed itself, with budget left.",
            "With `thought` the ids after <think> and over = len(thought) - budget: "
            "force stop[over] when over is from 0 to len(stop) - 1, unless </think> is "
            "among the first `budget` ids of thought.",
        ),
        look=(
            "In one call: force the closing tokens",
            "03_thinking_mode.ipynb#In-one-call:-force-the-closing-tokens",
        ),
        why="A limit that closes the block gives an answer within a known number of "
        "tokens; max_new_tokens alone gives half a thought.",
    ),
    Question(
        id="03.q4",
        title="The smallest budget for sums of five",
        outcome=4,
        difficulty="core",
        minutes=10,
        judge=q4,
        hints=(
            "Measure every budget of the list on the same problems. accuracy is a "
            "share from 0 to 1.",
            "Collect the budgets whose qc.evaluate(..., thinking_budget=budget) has an "
            "accuracy of at least 0.9, and take min of them. Leave max_new_tokens "
            "above the largest budget.",
        ),
        look=(
            "5. What does thinking buy?",
            "03_thinking_mode.ipynb#5.-What-does-thinking-buy?",
        ),
        why="A budget is chosen by measuring your own kind of problem: below the work "
        "it wastes tokens, above it buys nothing.",
    ),
    Question(
        id="03.q5",
        title="What a history costs with its thinking",
        outcome=5,
        difficulty="core",
        minutes=15,
        judge=q5,
        hints=(
            "Render the conversation with tokenize=False and the header of the next "
            "turn, and count its ids. Then find out which blocks are missing in it.",
            "A dropped block is <think>, a line break, the reasoning_content, a line "
            "break, </think> and an empty line. If that text does not occur in the "
            "rendered prompt, count its tokens on top.",
        ),
        look=(
            "Old thinking is dropped",
            "03_thinking_mode.ipynb#Old-thinking-is-dropped",
        ),
        why="Each turn reads the whole history again: what the template drops is saved "
        "at every turn after it, in memory and in waiting.",
    ),
    Question(
        id="03.q6",
        title="A vote or a thought: the price of a right answer",
        outcome=5,
        difficulty="stretch",
        minutes=20,
        judge=q6,
        hints=(
            "Two sums: the tokens of all samples of all problems, and the problems "
            "whose majority is right. None is no vote, but was paid for.",
            "Counter over the samples that are not None; most_common(1) gives the "
            "first of equals. Two cases need care: a problem where nobody votes, and "
            "no problem right at all.",
        ),
        look=(
            "7. Self-consistency: ask often, take the majority",
            "03_thinking_mode.ipynb#7.-Self-consistency:-ask-often,-take-the-majority",
        ),
        why="The price of a right answer puts accuracy and tokens into one number, so "
        "that ways as different as a vote and a thought can be compared.",
    ),
)
