"""What is right in the exercises of lesson 04."""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from textwrap import dedent
from typing import Any

from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_04 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import Outcomes, Same, Way, compared, no_numbers, short
from qwen_course.steps import boxed, same_value

# Question 1

SIDE = 28  # pixels of a token: two patches of 14


def tokens(wide: int, high: int) -> int:
    """Return what a picture costs."""
    return _along(wide) * _along(high)


def _along(pixels: int) -> int:
    return max(1, round(pixels / SIDE))


ROUNDED = "Round each side to the *nearest* multiple of 28. "
COSTS = (
    Way("patches", lambda w, h: 4 * tokens(w, h),
        "You counted patches. The merger makes one token of 2 by 2 patches."),
    Way("merged-one-way", lambda w, h: 2 * tokens(w, h),
        "Patches are merged in both directions: 2 by 2, four patches a token."),
    Way("pixels", lambda w, h: SIDE * SIDE * tokens(w, h),
        "Those are pixels. A token covers 28 by 28 of them."),
    Way("no-minimum", lambda w, h: round(w / SIDE) * round(h / SIDE),
        "A side under 14 pixels was rounded to 0, and the picture is gone. It is "
        "enlarged to 28 pixels: one token."),
    Way("rounds-down", lambda w, h: (w // SIDE) * (h // SIDE),
        ROUNDED + "// always rounds down."),
    Way("rounds-down", lambda w, h: max(1, w // SIDE) * max(1, h // SIDE),
        ROUNDED + "// always rounds down."),
    Way("rounds-down", lambda w, h: (w // 14) * (h // 14) // 4,
        ROUNDED + "// always rounds down."),
    Way("rounds-up", lambda w, h: math.ceil(w / SIDE) * math.ceil(h / SIDE),
        ROUNDED + "You rounded up."),
    Way("rounds-patches", lambda w, h: round(w / 14) * round(h / 14) / 4,
        "You rounded to whole patches, and a token would get part of its four."),
    Way("rounds-patches", lambda w, h: round(w / 14) * round(h / 14) // 4,
        "You rounded to whole patches, and some are left without a token."),
    Way("rounds-patches", lambda w, h: (round(w / 14) // 2) * (round(h / 14) // 2),
        "You rounded to whole patches, then dropped one. Round to 28 at once."),
    *(Way("rounds-the-area", lambda w, h, by=by: by(w * h / SIDE**2),
          "You divided the area. Each side is rounded by itself, before that.")
      for by in (float, int, round, math.ceil)),
    Way("one-side", lambda w, h: _along(w),
        "That is one row of tokens. Multiply by the number of rows."),
    Way("one-side", lambda w, h: _along(h),
        "That is one column of tokens. Multiply by the number of columns."),
    Way("one-side", lambda w, h: _along(w) * h / SIDE,
        "You rounded the width only. Both sides are."),
    Way("one-side", lambda w, h: w / SIDE * _along(h),
        "You rounded the height only. Both sides are."),
    Way("adds-the-sides", lambda w, h: _along(w) + _along(h),
        "You added rows and columns. A grid has rows times columns."),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each count."""
    cases = probe.sizes(seed)
    shown = [f"image_tokens({wide}, {high})" for wide, high in cases]
    right = [tokens(*case) for case in cases]
    advice = "Draw the grid: how many squares of 28 pixels along each side?"
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, COSTS, mistakes.close, advice),
    )


# Question 2

FENCE = r"```(?:python|py)?[ ]*\n(.*?)(?:\n?```|\Z)"
CLOSED, GREEDY = r"```\w*\n(.*?)```", r"```\w*\n(.*)```"


def code_of(reply: str, pattern: str = FENCE, otherwise: str | None = None) -> str:
    """Return the code of a reply; another pattern makes a mistake."""
    found = re.search(pattern, reply, re.DOTALL)
    return found[1] if found else (reply if otherwise is None else otherwise)


def _all_codes(reply: str) -> list[str]:
    return re.findall(FENCE, reply, re.DOTALL) or [reply]


def _between(reply: str) -> str:
    """Return what stands between two fences, with the language."""
    parts = reply.split("```")
    return parts[1] if len(parts) > 1 else reply


SECOND = (
    "needs-second-fence",
    "A reply that was cut off has no second fence: the end of the text ends it.",
)
LANGUAGE = (
    "needs-language",
    "Models write ```python, ```py or only ```. The language may be missing.",
)
BARE = (
    "needs-a-fence",
    "A reply without a fence may be all code: return it as it is.",
)
READINGS = (
    Way("whole-reply", lambda reply: reply,
        "The fences and the text around them are no Python. Return what is between. "
        "(A pattern that finds nothing? A dot is no line break without re.DOTALL.)"),
    Way("language-left", _between,
        "The word behind the fence is still there. It names the language, and Python "
        "would look for a variable of that name."),
    Way("language-left", lambda reply: code_of(_between(reply), r"py\n(.*)"),
        "The word behind the fence is still there: it may also be another one."),
    *(Way(LANGUAGE[0], lambda reply, p=p, o=o: code_of(reply, p, o), LANGUAGE[1])
      for p in (r"```python\n(.*?)(?:```|\Z)", r"```python\n(.*?)```",
                r"```(?:python|py)\n(.*?)(?:```|\Z)") for o in (None, "")),
    *(Way(SECOND[0], lambda reply, o=o: code_of(reply, CLOSED, o), SECOND[1])
      for o in (None, "")),
    Way(SECOND[0], lambda reply: code_of(reply, r"```\w*\n(.*?).?(?:```|\Z)"),
        "The last character of a reply that was cut off is lost: look whether a second "
        "fence was found."),
    Way(BARE[0], lambda reply: code_of(reply, otherwise=""), BARE[1]),
    *(Way("to-the-last-fence", lambda reply, p=p: code_of(reply, p),
          "You took all up to the last fence, or to the end of the text. In a pattern "
          ".* takes as much as it can, .*? as little.")
      for p in (GREEDY, r"```\w*\n(.*)(?:```|\Z)")),
    Way("last-fence", lambda reply: _all_codes(reply)[-1],
        "You took the last block. The first is the answer; what follows are tests, "
        "examples, or how to call it."),
    *(Way("joins-fences", lambda reply, by=by: by.join(_all_codes(reply)),
          "You joined both blocks. The first is the answer; the second is an example, "
          "and would be run as well.") for by in ("\n", "\n\n", "")),
    Way("strips-indentation", lambda reply: code_of(reply).strip(),
        "The blanks before the first line are lost. In Python they mean something: "
        "this is an IndentationError. Strip line breaks only."),
    *(Way("loses-indentation", lambda reply, by=by: by(code_of(reply)),
          "The blanks before the lines are lost. In Python they mean something.")
      for by in (lambda code: "\n".join(map(str.strip, code.splitlines())), dedent)),
    *(Way("strips-letters", lambda reply, by=by: by(_between(reply)),
          'strip("python") takes away letters, not a word: every p, y, t, h, o and n '
          "at the end of the text. removeprefix takes a word.")
      for by in (lambda code: code.lstrip("python").strip("\n"),
                 lambda code: code.strip("`python\n"),
                 lambda code: code.strip("python"))),
    Way("replaces-the-word", lambda reply: _between(reply).replace("python", ""),
        'replace("python", "") also changes the program: it holds this word itself.'),
)  # fmt: skip


def _same_code(value: Any, expected: str) -> bool:
    """Compare code without blank lines at its ends; its first indentation counts."""
    return isinstance(value, str) and _trimmed(value) == _trimmed(expected)


def _trimmed(code: str) -> str:
    return code.strip("\n").rstrip()


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the code of each reply."""
    cases = probe.replies(seed)
    special = {"cut off": SECOND, "bare": LANGUAGE, "py": LANGUAGE, "no fence": BARE}
    shown = [f"extract_code({short(one.reply)})" for one in cases]
    for said, outcome, text in zip(cases, seen, shown, strict=True):
        failed = outcome["error"] or (outcome["value"] is None and seen[0]["value"])
        if failed and said.name in special:
            name, why = special[said.name]
            return Mistake(name, f"{text} gave {outcome['error'] or None}. {why}")
        if wrong := mistakes.of_call(outcome, text):
            return wrong
        if not isinstance(outcome["value"], str):
            value = short(outcome["value"])
            return Mistake("no-text", f"{text} gave {value}. Return one text.")
    right = [code_of(one.reply) for one in cases]
    given = [(one.reply,) for one in cases]
    advice = "All that is between the fences belongs to it, and nothing else."
    return compared(given, seen, shown, right, READINGS, _same_code, advice)


# Question 3

NAME = r"<\|\w+\|>"  # of a control token
CONTROL = re.compile(NAME)


def prompt_of(hole: probe.Hole) -> str:
    """Return the prompt that Qwen's coders are trained on."""
    return f"<|fim_prefix|>{hole.prefix}<|fim_suffix|>{hole.suffix}<|fim_middle|>"


def middle_of(written: str) -> str:
    """Return a text up to its first control token."""
    return CONTROL.split(written)[0]


MIDDLES = (
    Way("keeps-control-token", lambda hole: hole.written,
        "A control token is still in it, and would stand in the program. What the "
        "model writes is cut at the first one."),
    *(Way("one-control-token", lambda hole, end=end: hole.written.split(end)[0],
          f"You looked for {end} only. A middle may end with any control token; what "
          "comes after it belongs to another file or turn.")
      for end in ("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|file_sep|>")),
    Way("one-control-token", lambda hole: hole.written.removesuffix("<|endoftext|>"),
        "You took away <|endoftext|> at the end only. A middle may end with any "
        "control token; what comes after it belongs to another file or turn."),
    Way("last-control-token", lambda hole: re.sub(
            rf"(?s)(.*){NAME}.*", r"\1", hole.written),
        "You cut at the last control token. After the first one the middle is over."),
    Way("removes-tokens", lambda hole: CONTROL.sub("", hole.written),
        "You took the tokens out and kept what follows them. After the first one the "
        "middle is over: what follows belongs to another file or turn."),
    Way("loses-a-character",
        lambda hole: hole.written[: hole.written.find("<|")],
        "find gives -1 where there is no control token (the model was cut off), and "
        "text[:-1] loses the last character."),
    *(Way("strips-blanks", lambda hole, by=by: by(middle_of(hole.written)),
          "Blanks and line breaks at its ends are lost. They are part of the code: "
          "the suffix goes on right behind them.")
      for by in (str.strip, str.lstrip, str.rstrip, lambda text: text.strip("\n"),
                 lambda text: text.rstrip("\n"))),
    Way("first-line", lambda hole: middle_of(hole.written).split("\n")[0],
        "You took the first line only. A middle may have many."),
    *(Way("whole-program", lambda hole, by=by: by(hole, middle_of(hole.written)),
          "Return the middle alone; the editor has the rest already.")
      for by in (lambda hole, middle: hole.prefix + middle + hole.suffix,
                 lambda hole, middle: hole.prefix + middle)),
)  # fmt: skip


def q3(seen: Outcomes, seed: int) -> Mistake | None:
    """Look at the prompt of each hole first, then at its middle."""
    cases = probe.holes(seed)
    for hole, outcome in zip(cases, seen, strict=True):
        if wrong := _prompted(hole, outcome):
            return wrong
    shown = [f"The model wrote {short(hole.written)}: fill_middle" for hole in cases]
    right = [middle_of(hole.written) for hole in cases]
    given = [(hole,) for hole in cases]
    advice = "Cut at the first control token, and change nothing else."
    return compared(given, seen, shown, right, MIDDLES, _equal, advice)


def _equal(value: Any, expected: Any) -> bool:
    return type(value) is type(expected) and value == expected


def _prompted(hole: probe.Hole, outcome: dict[str, Any]) -> Mistake | None:
    """Return what is wrong with the prompt of a hole."""
    sent = outcome["prompts"]
    if len(sent) > 1:
        return Mistake(
            "asks-twice", "You called write more than once for one hole: each call "
            "costs a run of the model. Keep what it returned."
        )  # fmt: skip
    # A wrong prompt is named even where what follows failed.
    if sent and (wrong := _misprompted(hole, sent[0])):
        return wrong
    shown = f"fill_middle({short(hole.prefix)}, {short(hole.suffix)}, write)"
    if wrong := mistakes.of_call(outcome, shown):
        return wrong
    if not sent:
        return Mistake(
            "never-asks", "write was never called. It is the model: give it the "
            "prompt, and it returns what it writes after it."
        )  # fmt: skip
    return None


def _misprompted(hole: probe.Hole, prompt: Any) -> Mistake | None:
    right = prompt_of(hole)
    if prompt == right:
        return None
    said = f"Your prompt was {short(prompt)}. "
    if not isinstance(prompt, str) or "<|im_start|>" in prompt:
        return Mistake(
            "chat-template",
            said + "Filling a middle is no chat: no messages, no template, no turns. "
            "The prompt is one text with three control tokens.",
        )
    found = CONTROL.findall(prompt)
    if not found:
        return Mistake(
            "other-tokens",
            said + "Qwen's three tokens are not in it: <|fim_prefix|>, <|fim_suffix|>, "
            "<|fim_middle|>. Other families have others, as <PRE> or <fim_prefix>.",
        )
    if "<|fim_middle|>" not in found:
        return Mistake(
            "no-middle-token",
            said + "Without <|fim_middle|> at its end the model goes on writing the "
            "suffix: this token says that the middle comes now.",
        )
    if found != CONTROL.findall(right) or not prompt.endswith("<|fim_middle|>"):
        return Mistake(
            "wrong-order",
            said + "The order is prefix, suffix, middle: the model only ever goes on "
            "at the end, so the middle has to come last.",
        )
    if prompt == prompt_of(hole._replace(prefix=hole.suffix, suffix=hole.prefix)):
        return Mistake(
            "swapped", said + "Prefix and suffix have changed places."
        )  # fmt: skip
    if _bare(prompt) == _bare(right):
        return Mistake(
            "changes-blanks",
            said + f"It should be {short(right)}. Blanks and line breaks are "
            "code: add none around the tokens, and strip none.",
        )
    return Mistake("prompt", f"{said}It should be {short(right)}: add nothing.")


def _bare(text: str) -> str:
    return "".join(text.split())


# Question 4


def estimate(n: int, c: int, k: int) -> float:
    """Return pass@k, 1 - C(n - c, k) / C(n, k)."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


ESTIMATES = (
    Way("with-replacement", lambda n, c, k: 1 - (1 - c / n) ** k,
        "That is 1 - (1 - c/n)**k: it draws one sample, puts it back and draws again. "
        "You hand out k *different* samples, so it is too low."),
    Way("one-try", lambda n, c, k: c / n, "That is pass@1. k tries find more."),
    Way("adds-up", lambda n, c, k: k * c / n,
        "k times the chance of one try counts twice what two tries both solve, and can "
        "be above 1."),
    Way("adds-up", lambda n, c, k: min(1, k * c / n),
        "k times the chance of one try counts twice what two tries both solve."),
    Way("chance-to-fail", lambda n, c, k: 1 - estimate(n, c, k),
        "That is the chance that all k fail. One minus that."),
    Way("all-pass", lambda n, c, k: math.comb(c, k) / math.comb(n, k),
        "That is the chance that all k pass. One that passes is enough."),
    Way("any-of-all", lambda n, c, k: float(c > 0),
        "That says whether any of the n samples passes. The user gets only k of them."),
    Way("percent", lambda n, c, k: 100 * estimate(n, c, k), "Return a share, 0 to 1."),
    *(Way("rounds", lambda n, c, k, d=d: round(estimate(n, c, k), d),
          "Don't round: the mean over many tasks is still to come.") for d in range(5)),
)  # fmt: skip


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each estimate."""
    cases = probe.samples(seed)
    shown = [f"pass_at_k({n}, {c}, {k})" for n, c, k in cases]
    for (n, c, k), outcome, text in zip(cases, seen, shown, strict=True):
        value = outcome["value"]
        below = mistakes.is_number(value) and value < 0
        if n - c < k and (outcome["error"] or below):
            return Mistake(
                "few-wrong",
                f"{text} {'is below 0' if below else 'failed: ' + outcome['error']}. "
                f"Only {n - c} samples are wrong, so {k} of them can't all be wrong: "
                "it is 1.",
            )
        if wrong := mistakes.of_call(outcome, text):
            return wrong
    right = [estimate(*case) for case in cases]
    advice = "Count the draws of k in which none passes."
    return mistakes.first(
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, ESTIMATES, _near, advice),
    )


def _near(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-5, abs_tol=1e-7)


# Question 5


def winner(
    replies: list[str],
    read: Callable[[str], str | None] = boxed,
    same: Same = same_value,
    best: Callable[[list[list[str]]], list[str] | None] = lambda groups: max(
        groups, key=len, default=None
    ),
) -> str | None:
    """Return the answer with most votes; other ways to count make mistakes."""
    groups: list[list[str]] = []
    for answer in map(read, replies):
        if answer is None:
            continue
        for group in groups:
            if group[0] == answer or same(group[0], answer):
                group.append(answer)
                break
        else:
            groups.append([answer])
    chosen = best(groups)
    return chosen[0] if chosen else None


def _last_of_most(groups: list[list[str]]) -> list[str] | None:
    return max(reversed(groups), key=len, default=None)


def _more_than_half(groups: list[list[str]]) -> list[str] | None:
    votes = sum(map(len, groups))
    return next((group for group in groups if 2 * len(group) > votes), None)


def _first_box(reply: str) -> str | None:
    return boxed(reply[: reply.find("}") + 1])


def _equal_text(one: Any, other: Any) -> bool:
    return bool(one == other)


TIE = "Of two answers with equally many votes, the one that came first wins. "
VOTES = (
    Way("by-letters", lambda replies: winner(replies, same=_equal_text),
        "You counted letters: 1/2, \\frac{1}{2} and 0.5 are one answer, written in "
        "three ways. same_value compares values."),
    *(Way("unboxed-votes", way,
          "A reply without a box has no vote: it was cut off, or has no result.")
      for way in (lambda replies: winner(replies, lambda one: boxed(one) or one),
                  lambda replies: winner(replies, lambda one: boxed(one) or ""),
                  lambda replies: winner(replies, lambda one: boxed(one) or "")
                  or None)),
    Way("first-box", lambda replies: winner(replies, _first_box),
        "Where a reply has two boxes, the last is its answer: the model went on "
        "working. boxed reads that one."),
    Way("first-reply", lambda replies: next(filter(None, map(boxed, replies)), None),
        "You returned the first answer. Count all votes."),
    Way("more-than-half", lambda replies: winner(replies, best=_more_than_half),
        "No answer has more than half of the votes, and none is needed: most votes "
        "win."),
    Way("tie-order", lambda replies: winner(replies, best=_last_of_most),
        TIE + "You took the last one."),
    *(Way("tie-order", lambda replies, pick=pick: winner(
          replies, best=lambda groups: pick(
              [g for g in groups if len(g) == max(map(len, groups))], default=None)),
          TIE + "set and sorted lose that order; a dict and a Counter keep it.")
      for pick in (max, min)),
    Way("whole-reply", lambda replies: next(
            (one for one in replies if boxed(one) == winner(replies)), None),
        "Return what stands in the box, not the whole reply."),
)  # fmt: skip


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each winner by its value."""
    cases = probe.ballots(seed)
    shown = [f"vote({_votes(replies)})" for replies in cases]
    right = [winner(replies) for replies in cases]
    for replies, outcome, text in zip(cases, seen, shown, strict=True):
        if wrong := _no_vote(replies, outcome, text, any(one["value"] for one in seen)):
            return wrong
    given = [(replies,) for replies in cases]
    advice = "Group the boxes by value; the largest group wins."
    return compared(given, seen, shown, right, VOTES, _same_vote, advice)


def _no_vote(
    replies: list[str], outcome: dict[str, Any], shown: str, answered: bool
) -> Mistake | None:
    """Return what is wrong with a call whoever won; None is right if nobody votes."""
    value, failed = outcome["value"], outcome["error"]
    nobody = not any(map(boxed, replies))
    if nobody and (failed or value == ""):
        return Mistake(
            "nobody-votes",
            f"{shown} gave {failed or repr(value)}. Nobody votes here: return None.",
        )
    if failed and not all(map(boxed, replies)):
        return Mistake(
            "no-box",
            f"{shown} failed with {failed}. boxed gives None for a reply without a "
            "box: leave such replies out before you compare.",
        )
    stopped = failed or outcome["late"] or outcome["changed"] or outcome["printed"]
    if value is None and answered and not stopped:
        return None  # compared later: the name of the mistake may be seen there
    if wrong := mistakes.of_call(outcome, shown):
        return wrong
    if not isinstance(value, str):
        return Mistake(
            "no-text", f"{shown} gave {short(value)}. Return the text in a box, alone."
        )
    return None


def _same_vote(value: Any, expected: Any) -> bool:
    if value is None or expected is None:
        return value is expected
    return value == expected or same_value(value, expected)


def _votes(replies: list[str]) -> str:
    """Show the boxes of some replies, and those without one."""
    shown = [boxed(one) or "no box" for one in replies]
    return f"replies: {' | '.join(shown)}" if shown else "[]"


# Question 6


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Follow each job: what was asked, what was run, what came back."""
    for job, outcome in zip(probe.jobs(seed), seen, strict=True):
        if wrong := _worked(job, outcome):
            return wrong
    return None


def _worked(job: probe.Job, outcome: dict[str, Any]) -> Mistake | None:
    needed = _tries(job)
    where = f"{_described(job)}: "
    asked, ran = outcome["asked"], outcome["ran"]
    tests = [
        lambda: _talked(job, asked, where),
        lambda: _ran_other(job, ran, where),
        lambda: _tried(job, asked, where),
        lambda: _ran(job, ran, where),
        lambda: _returned(job.drafts[needed - 1], outcome["value"], where),
    ]
    stopped = outcome["error"].startswith("TooMany")
    if not stopped and (outcome["error"] or outcome["value"] is None):
        # What was sent says more than an error that came of it.
        tests[2:] = [lambda: mistakes.of_call(outcome, f"{where}repair(...)")]
    return mistakes.first(*tests)


def _tries(job: probe.Job) -> int:
    """Return how often a job has to ask."""
    passing = [n for n, (_, error) in enumerate(job.drafts, 1) if not error]
    return min([job.tries, *passing])


def _described(job: probe.Job) -> str:
    needed = _tries(job)
    fate = "no draft passes" if job.drafts[needed - 1][1] else f"draft {needed} passes"
    return f"Up to {job.tries} tries, {fate}"


def _talked(job: probe.Job, asked: list[Any], where: str) -> Mistake | None:
    """Look at the messages of every request, the first wrong one first."""
    for number, messages in enumerate(asked[: _tries(job)]):
        said = f"{where}request {number + 1} "
        if not _are_messages(messages):
            return Mistake(
                "no-messages",
                f"{said}was {short(messages)}. A model in a chat gets a list of "
                'messages: [{"role": "user", "content": task}].',
            )
        if wrong := _misled(job, messages, number, said):
            return wrong
    return None


def _are_messages(given: Any) -> bool:
    return isinstance(given, list) and all(
        isinstance(one, dict) and {"role", "content"} <= set(one) and
        all(isinstance(one[key], str) for key in ("role", "content"))
        for one in given
    )  # fmt: skip


def _misled(
    job: probe.Job, messages: list[dict[str, str]], number: int, said: str
) -> Mistake | None:
    """Name what request `number`, from 0, lacks of the talk so far."""
    roles = [one["role"] for one in messages if one["role"] != "system"]
    first = next((one["content"] for one in messages if one["role"] == "user"), "")
    if job.task not in first:
        if number == 0 and len(roles) > 1:
            return Mistake(
                "keeps-old-talk",
                f"{said}begins with {short(first)}, the task of an earlier call. A "
                "list made in the line of `def`, or outside, is kept: make a new one "
                "in every call.",
            )
        return Mistake(
            "task-lost",
            f"{said}does not hold the task. A model remembers nothing: send the whole "
            "talk each time.",
        )
    for draft in job.drafts[:number]:
        if wrong := _untold(draft, messages, said):
            return wrong
    if number and roles[-1] != "user":
        return Mistake(
            "wrong-order",
            f'{said}ends with the role "{roles[-1]}". The error comes after the code: '
            "the last word is the user's.",
        )
    if len(roles) > 1 + 2 * number:
        return Mistake(
            "says-twice",
            f"{said}has {len(roles)} messages, it should have {1 + 2 * number}: the "
            "task, and two for each failed try, its code and its error.",
        )
    return None


def _untold(
    draft: tuple[str, str], messages: list[dict[str, str]], said: str
) -> Mistake | None:
    """Name what is missing of a failed draft, or said in another's name."""
    code, error = draft
    code_as = {one["role"] for one in messages if code in one["content"]}
    error_as = {one["role"] for one in messages if error in one["content"]}
    if code_as and "assistant" not in code_as:
        return Mistake(
            "wrong-roles",
            f'{said}holds the model\'s code in a message of the role "{min(code_as)}". '
            'The model knows its own answers by the role "assistant".',
        )
    if error_as and "user" not in error_as:
        return Mistake(
            "wrong-roles",
            f'{said}holds the error in a message of the role "{min(error_as)}". What '
            'you tell the model has the role "user".',
        )
    if not code_as:
        return Mistake(
            "own-answer-missing",
            f"{said}has no message with the model's code {short(code)}. It sees an "
            "error, and not what it belongs to.",
        )
    if not error_as:
        return Mistake(
            "error-not-sent",
            f"{said}does not hold the error {error!r}. Without it the model knows no "
            "more than before, and greedily it writes the same again.",
        )
    return None


def _tried(job: probe.Job, asked: list[Any], where: str) -> Mistake | None:
    needed, done = _tries(job), len(asked)
    if done == needed:
        return None
    if done == 0:
        return Mistake("never-asks", f"{where}ask was never called.")
    if done > needed:
        return _too_many(job.drafts[needed - 1], done, where)
    return Mistake(
        "stops-early",
        f"{where}you asked {done} times. Go on until the error is empty or the tries "
        "are used up. The first request is a try as well.",
    )


def _too_many(draft: tuple[str, str], done: int, where: str) -> Mistake:
    """Name what went on for too long; `draft` should have been the last."""
    if draft[1]:
        return Mistake(
            "too-many-tries",
            f"{where}you asked {done} times or more. A model may never find it: the "
            "first request is try 1, and after the last allowed one you stop.",
        )
    return Mistake(
        "goes-on-after-success",
        f'{where}you asked {done} times. An empty error, "", says that all tests '
        "pass: stop there.",
    )


def _ran_other(job: probe.Job, ran: list[Any], where: str) -> Mistake | None:
    drafts = [code for code, _ in job.drafts]
    strange = [one for one in ran if one not in drafts]
    if not strange:
        return None
    return Mistake(
        "runs-other-code",
        f"{where}you ran {short(strange[0])}. Run what ask returned, as it is.",
    )


def _ran(job: probe.Job, ran: list[Any], where: str) -> Mistake | None:
    """Look at what was run: each draft, once."""
    expected = [code for code, _ in job.drafts[: _tries(job)]]
    if ran == expected:
        return None
    if len(ran) > len(expected):
        return Mistake(
            "runs-twice",
            f"{where}drafts asked for: {len(expected)}, runs: {len(ran)}. Each run "
            "starts a process: keep its error in a variable.",
        )
    return Mistake(
        "not-all-run",
        f"{where}drafts asked for: {len(expected)}, runs: {len(ran)}. Nobody knows "
        "whether a draft is right that was never tested: run the last one, too.",
    )


def _returned(draft: tuple[str, str], value: Any, where: str) -> Mistake | None:
    code, error = draft
    if value == [code, error]:
        return None
    if not (isinstance(value, list) and len(value) == 2):
        return Mistake(
            "no-pair", f"{where}you returned {short(value)}. Return the code of the "
            "last try and its error."
        )  # fmt: skip
    if value == [error, code]:
        return Mistake("swapped", f"{where}return the code first, then the error.")
    return Mistake(
        "not-the-last",
        f"{where}you returned {short(value)}. The last try is {short([code, error])}.",
    )


# Question 7


def edits(said: str, heard: str, swap: int = 1, add: int = 1, lose: int = 1) -> int:
    """Return the cheapest way to turn `said` into `heard`; prices make mistakes."""
    row = [add * j for j in range(len(heard) + 1)]
    for i, left in enumerate(said, 1):
        new = [lose * i]
        for j, right in enumerate(heard, 1):
            same = row[j - 1] + (left != right) * swap
            new.append(min(same, row[j] + lose, new[-1] + add))
        row = new
    return row[-1]


def rate(
    said: list[str],
    heard: list[str],
    count: Callable[[str, str], float] = edits,
    digits: Callable[[str, str], int] = lambda said, heard: len(said),
) -> float:
    """Return all errors through all digits; other counts make mistakes."""
    pairs = list(zip(said, heard, strict=True))
    total = sum(digits(*pair) for pair in pairs)
    return sum(count(*pair) for pair in pairs) / total if total else math.inf


def _in_place(said: str, heard: str) -> int:
    return sum(a != b for a, b in zip(said, heard, strict=False))


def _lengths(said: str, heard: str) -> int:
    return abs(len(said) - len(heard))


def _bag(said: str, heard: str) -> int:
    return (Counter(said) - Counter(heard)).total()


def _longest_first(said: str, heard: str) -> int:
    found = SequenceMatcher(None, said, heard, autojunk=False).get_opcodes()
    return sum(max(j - i, n - m) for how, i, j, m, n in found if how != "equal")


def _mean(said: list[str], heard: list[str]) -> float:
    rates = [edits(a, b) / (len(a) or 1) for a, b in zip(said, heard, strict=True)]
    return sum(rates) / len(rates)


PLACES = (
    "You compared place by place. One digit that is lost or added moves all that "
    "follow, and each would count as wrong. Find the cheapest edits."
)
ORDER = (
    "You counted which digits occur. Where they stand counts as well: 41 is not 14, "
    "and 411 is not 41."
)
RATES = (
    Way("place-by-place", lambda s, h: rate(
        s, h, lambda a, b: _in_place(a, b) + _lengths(a, b)), PLACES),
    Way("place-by-place", lambda s, h: rate(s, h, _in_place), PLACES),
    Way("lengths-only", lambda s, h: rate(s, h, _lengths),
        "You compared lengths. A digit may be replaced by another one."),
    *(Way("no-order", lambda s, h, by=by: rate(s, h, by), ORDER)
      for by in (_bag, lambda a, b: max(_bag(a, b), _bag(b, a)),
                 lambda a, b: _bag(a, b) + _bag(b, a),
                 lambda a, b: len(set(a) ^ set(b)), lambda a, b: len(set(a) - set(b)))),
    Way("mean-of-rates", _mean,
        "That is the mean of the clips' rates: a clip of one digit counts as much as "
        "one of eight. All errors, divided by all digits."),
    *(Way("divides-by-heard", lambda s, h, by=by: rate(s, h, digits=by),
          "You divided by the digits that were heard. Divide by those that were said: "
          "that number is the same for every model.")
      for by in (lambda a, b: len(b), lambda a, b: max(len(a), len(b)),
                 lambda a, b: len(a) + len(b))),
    Way("at-most-1", lambda s, h: min(1, rate(s, h)),
        "You cut it at 1. Digits that nobody said are errors as well, and there may be "
        "more of them than digits: a rate can be above 1."),
    Way("at-most-1", lambda s, h: rate(s, h, lambda a, b: min(edits(a, b), len(a))),
        "You counted at most as many errors as a clip has digits. Added digits are "
        "errors, too: a rate can be above 1."),
    Way("accuracy", lambda s, h: 1 - rate(s, h), "That is the share of right digits."),
    Way("number", lambda s, h: sum(map(edits, s, h)),
        "That is the number of errors. Divide by the digits that were said."),
    Way("wrong-clips", lambda s, h: sum(map(str.__ne__, s, h)) / len(s),
        "That is the share of clips with an error. Count digits."),
    Way("added-free", lambda s, h: rate(s, h, lambda a, b: edits(a, b, add=0)),
        "Digits that were added cost nothing here. They are errors as well."),
    Way("lost-free", lambda s, h: rate(s, h, lambda a, b: edits(a, b, lose=0)),
        "Digits that were lost cost nothing here. They are errors as well."),
    Way("replaced-costs-two", lambda s, h: rate(s, h, lambda a, b: edits(a, b, 2)),
        "A replaced digit is one error. You counted it as one lost and one added."),
    Way("joins-clips", lambda s, h: rate(["".join(s)], ["".join(h)]),
        "You joined all clips into one. An error at the end of one must not be made "
        "good at the beginning of the next."),
    Way("not-the-cheapest", lambda s, h: rate(s, h, _longest_first),
        "difflib looks for the longest common piece first. That is easy to read, and "
        "not always the smallest number of edits."),
    Way("percent", lambda s, h: 100 * rate(s, h), "Return a share, not percent."),
)  # fmt: skip


def q7(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each rate."""
    cases = probe.clips(seed)
    shown = [f"digit_error_rate({group.said}, {group.heard})" for group in cases]
    for group, outcome, text in zip(cases, seen, shown, strict=True):
        if outcome["error"].startswith("ZeroDivisionError") and "" in group.said:
            return Mistake(
                "rate-of-silence",
                f"{text} divided by 0. In one clip nothing was said, and it has no "
                "rate of its own. Divide once: all errors by all digits.",
            )
        if wrong := mistakes.of_call(outcome, text):
            return wrong
    right = [rate(*group) for group in cases]
    advice = "Of three, take the cheapest: replace or keep, lose, add."
    return mistakes.first(
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, RATES, _near, advice),
    )


_place = functools.partial(section, "04_specialists")

QUESTIONS = (
    Question(
        id="04.q1",
        title="What a picture costs",
        outcome=5,
        difficulty="warm-up",
        minutes=8,
        judge=q1,
        hints=(
            "Patches have 14 pixels a side, and 2 by 2 of them become one token. How "
            "many pixels has the side of a token?",
            "Divide each side by 28, round to the nearest whole number, and take at "
            "least 1. Then count the squares of that grid.",
        ),
        look=_place("From pixels to tokens"),
        why="The price of a picture is its area: half as wide and half as high costs a "
        "quarter, as long as the model can still read it.",
    ),
    Question(
        id="04.q2",
        title="Take the code out of a reply",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q2,
        hints=(
            "Three things are optional: the fence as a whole, the language behind it, "
            "and the second fence. Which part of your code insists on one of them?",
            "One pattern does it: three backticks, an optional python or py, a line "
            "break, then as little as possible up to three backticks or the end, \\Z, "
            "with re.DOTALL. No match: the reply itself.",
        ),
        look=_place("2. Code"),
        why="What stands between a model and its tests is this function: a reply lost "
        "here is counted as wrong, though its code was right.",
    ),
    Question(
        id="04.q3",
        title="Fill in the middle",
        outcome=3,
        difficulty="core",
        minutes=10,
        judge=q3,
        hints=(
            "A model goes on at the end of its prompt. Which of the three pieces is "
            "missing there, and what must it have read before?",
            "The token of the prefix, the prefix, the token of the suffix, the suffix, "
            "the token of the middle: nothing between. What comes back is cut at the "
            "first <|...|>, which re.split finds, and is not stripped.",
        ),
        look=_place("Fill in the middle"),
        why="A format that the model was trained on is exact to the blank: a wrong "
        "order or an extra line break raises no error and costs quality.",
    ),
    Question(
        id="04.q4",
        title="pass@k from n samples",
        outcome=5,
        difficulty="core",
        minutes=10,
        judge=q4,
        hints=(
            "It is easier to count failures: in how many ways can k samples be drawn "
            "from the wrong ones alone, and in how many from all?",
            "math.comb(a, b) counts the ways to draw b of a, and is 0 where b is more "
            "than a. One minus the quotient of two of them.",
        ),
        look=_place("2. Code"),
        why="pass@k says what k tries are worth where tests choose among them; without "
        "tests the user gets pass@1.",
    ),
    Question(
        id="04.q5",
        title="A vote by value",
        outcome=4,
        difficulty="core",
        minutes=15,
        judge=q5,
        hints=(
            "A Counter compares letters. You need groups: each new answer joins the "
            "first group that it has the same value as, or opens one.",
            "Read the boxes, leave out None. Keep a list of [answer, votes]; go "
            "through it with same_value. max with a key keeps the first of equals, and "
            "default=None is for an empty list.",
        ),
        look=_place("3. Mathematics"),
        why="Votes that are the same value in other letters must not split: else a "
        "wrong answer that is always written alike wins.",
    ),
    Question(
        id="04.q6",
        title="Ask, run, ask again",
        outcome=3,
        difficulty="core",
        minutes=15,
        judge=q6,
        hints=(
            "A model remembers nothing between two calls of ask. Which messages does "
            "it need to see for its second try?",
            "A for loop over range(tries): ask, run, return when the error is empty. "
            "Otherwise add two messages: the code as the assistant's, the error as the "
            "user's. After the loop return the last pair.",
        ),
        look=_place("Ask again, with the error"),
        why="An error message is the cheapest teacher there is, and a fixed number of "
        "tries keeps a model that never gets there from running for ever.",
    ),
    Question(
        id="04.q7",
        title="How many digits were heard wrong",
        outcome=4,
        difficulty="stretch",
        minutes=20,
        judge=q7,
        hints=(
            "Look at the first digit of both texts. There are three ways to go on: "
            "keep or replace it, count it as lost, count the heard one as added.",
            "A table does it: cost[i][j] for the first i said and j heard digits is "
            "the least of cost[i-1][j-1] + (0 if equal else 1), cost[i-1][j] + 1 and "
            "cost[i][j-1] + 1. Sum over the clips, and divide once.",
        ),
        look=_place("5. Sound"),
        why="With words in the place of digits this is the word error rate, the number "
        "in which every speech model is compared.",
    ),
)
