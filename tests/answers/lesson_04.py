"""Right and wrong answers to the exercises of lesson 04."""

import difflib
import functools
import itertools
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy
import torch

from qwen_course.exercises.judges import lesson_04 as judge
from qwen_course.steps import boxed, same_value

# Question 1


def image_tokens(wide, high):
    columns, rows = (max(1, round(side / 28)) for side in (wide, high))
    return columns * rows


def image_tokens_of_patches(wide, high):
    def fitted(side):
        return max(28, 28 * ((side + 14) // 28))

    patches = (fitted(wide) // 14) * (fitted(high) // 14)
    return patches / 4


def image_tokens_with_arrays(wide, high):
    return numpy.rint(numpy.array([wide, high]) / 28).clip(1).prod()


def image_tokens_that(side=lambda n: max(1, round(n / 28)), times=1):
    return lambda wide, high: side(wide) * side(high) * times


# Question 2


def extract_code(answer):
    found = re.search(r"```(?:python|py)?[ ]*\n(.*?)(?:\n?```|\Z)", answer, re.DOTALL)
    return found[1] if found else answer


def extract_code_by_cutting(answer):
    if "```" not in answer:
        return answer
    fenced = answer.split("```")[1]
    return fenced.partition("\n")[2]


def extract_code_by_lines(answer):
    code, inside, fences = [], False, 0
    for line in answer.splitlines():
        if line.startswith("```"):
            inside, fences = not inside, fences + 1
        elif inside and fences == 1:
            code.append(line + "\n")
    return "".join(code) if fences else answer


def extract_code_that(pattern=judge.FENCE, otherwise=None, flags=re.DOTALL, number=0):
    def answer(reply):
        found = re.findall(pattern, reply, flags)
        return found[number] if found else (reply if otherwise is None else otherwise)

    return answer


def between(answer):
    return answer.split("```")[1] if "```" in answer else answer


def extract_with_index(answer):
    start = answer.index("\n", answer.index("```")) + 1
    return answer[start : answer.index("```", start)]


# Question 3

END = re.compile(r"<\|\w+\|>")


def fill_middle(prefix, suffix, write):
    prompt = f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
    return END.split(write(prompt))[0]


def fill_middle_with_partition(prefix, suffix, write):
    pieces = {"prefix": prefix, "suffix": suffix, "middle": ""}
    prompt = "".join(f"<|fim_{name}|>{text}" for name, text in pieces.items())
    return write(prompt).partition("<|")[0]


def fill_middle_with_a_loop(prefix, suffix, write):
    written = write("<|fim_prefix|>" + prefix + "<|fim_suffix|>" + suffix
                    + "<|fim_middle|>")  # fmt: skip
    ends = ["<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|file_sep|>"]
    places = [written.find(end) for end in ends if end in written]
    return written[: min(places, default=len(written))]


def fill_middle_that(
    prompt: Callable[[str, str], Any] = lambda prefix, suffix: (
        f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
    ),
    cut: Callable[[str], Any] = lambda written: END.split(written)[0],
) -> Callable[..., Any]:
    return lambda prefix, suffix, write: cut(write(prompt(prefix, suffix)))


def fill_middle_asking_twice(prefix, suffix, write):
    fill_middle(prefix, suffix, write)
    return fill_middle(prefix, suffix, write)


# Question 4


def pass_at_k(n, c, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_at_k_published(n, c, k):
    """As in the paper's own code."""
    if n - c < k:
        return 1.0
    return 1.0 - numpy.prod(1.0 - k / numpy.arange(n - c + 1, n + 1))


def pass_at_k_by_draws(n, c, k):
    fail = torch.tensor(1.0, dtype=torch.float64)
    for drawn in range(k):
        fail *= max(0, n - c - drawn) / (n - drawn)
    return 1 - fail


def pass_at_k_with_factorials(n, c, k):
    def ways(a):
        return math.factorial(a) // math.factorial(k) // math.factorial(a - k)

    return 1 - ways(n - c) / ways(n)


# Question 5


def vote(answers):
    groups = []
    for answer in answers:
        box = boxed(answer)
        if box is None:
            continue
        for group in groups:
            if same_value(group[0], box):
                group.append(box)
                break
        else:
            groups.append([box])
    return max(groups, key=len, default=[None])[0]


def vote_by_counting(answers):
    boxes = [box for box in map(boxed, answers) if box is not None]

    def votes(box):
        return sum(same_value(box, other) for other in boxes)

    return max(boxes, key=votes) if boxes else None


def vote_with_counter(answers):
    names: list[str] = []
    counts = Counter()
    for box in filter(None, map(boxed, answers)):
        name = next((one for one in names if same_value(one, box)), box)
        names.append(name)
        counts[name] += 1
    return counts.most_common(1)[0][0] if counts else None


def vote_that(**changed: Any) -> Callable[[list[str]], Any]:
    return lambda answers: judge.winner(answers, **changed)


def vote_by_letters(answers):
    counts = Counter(box for box in map(boxed, answers) if box)
    return counts.most_common(1)[0][0] if counts else None


def vote_by_half(answers):
    boxes = list(filter(None, map(boxed, answers)))
    for box in boxes:
        if 2 * sum(same_value(box, other) for other in boxes) > len(boxes):
            return box
    return None


def vote_for_the_last(answers):
    return vote_by_counting(answers[::-1])


def vote_for_the_smallest(answers):
    return vote_by_counting(sorted(answers, key=lambda one: boxed(one) or ""))


def vote_with_first_box(answers):
    return vote([re.sub(r"(?s)(\\boxed\{\d+\}).*", r"\1", one) for one in answers])


def vote_without_default(answers):
    groups = itertools.groupby(filter(None, map(boxed, answers)))
    return vote(answers) if groups and list(groups) else max([])


def vote_comparing_none(answers):
    boxes = list(map(boxed, answers))
    return max(boxes, key=lambda box: sum(same_value(box, one) for one in boxes),
               default=None)  # fmt: skip


# Question 6


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def repair(ask, run, task, tries):
    messages = [user(task)]
    for _ in range(tries):
        code = ask(messages)
        error = run(code)
        if not error:
            break
        messages += [assistant(code), user(error)]
    return code, error


def repair_by_calling_itself(ask, run, task, tries, before=()):
    messages = [{"role": "system", "content": "You write Python."}, *before]
    messages += [] if before else [user(task)]
    code = ask(messages)
    error = run(code)
    if error == "" or tries == 1:
        return [code, error]
    told = user(f"A test fails: {error} Please fix it.")
    fenced = assistant(f"```python\n{code}\n```")
    return repair_by_calling_itself(
        ask, run, task, tries - 1, (*messages[1:], fenced, told)
    )


def repair_with_while(ask, run, task, tries):
    done, talk = 0, (user(task),)
    while True:
        done += 1
        code = ask(list(talk))
        if not (error := run(code)) or done == tries:
            return code, error
        talk = (*talk, assistant(code), user("It fails: " + error))


def repair_that(
    said: Callable[[str, str, str], list[dict[str, str]]] = lambda task, code, error: [
        assistant(code),
        user(error),
    ],
    first: Callable[[str], list[Any]] = lambda task: [user(task)],
    sent: Callable[[list[Any]], Any] = list,
    more: int = 0,
    stop: Callable[[str], bool] = lambda error: not error,
    returned: Callable[..., Any] = lambda codes, errors: (codes[-1], errors[-1]),
    ran: Callable[[str], str] = str,
) -> Callable[..., Any]:
    """Return a repair with one of its parts done wrong."""

    def answer(ask, run, task, tries):
        messages, codes, errors = first(task), [], []
        for _ in range(tries + more):
            codes.append(ask(sent(messages)))
            errors.append(run(ran(codes[-1])))
            if stop(errors[-1]):
                break
            messages = messages + said(task, codes[-1], errors[-1])
        return returned(codes, errors)

    return answer  # fmt: skip


OLD: list[dict[str, str]] = []


def repair_with_a_kept_list(ask, run, task, tries):
    OLD.append(user(task))
    for _ in range(tries):
        code = ask(OLD)
        error = run(code)
        OLD.append(assistant(code))
        if not error:
            break
        OLD.append(user(error))
    return code, error


def repair_running_again(ask, run, task, tries):
    code, error = repair(ask, run, task, tries)
    return code, run(code)


def repair_without_the_last_run(ask, run, task, tries):
    messages, error = [user(task)], ""
    for number in range(tries):
        code = ask(messages)
        if number == tries - 1:
            break
        error = run(code)
        if not error:
            break
        messages += [assistant(code), user(error)]
    return code, error


def repair_for_ever(ask, run, task, tries):
    messages, error = [user(task)], "no code yet"
    while error:
        code = ask(messages)
        error = run(code)
        messages += [assistant(code), user(error)]
    return code, error


# Question 7


def digit_error_rate(said, heard):
    errors = 0
    for one, other in zip(said, heard, strict=True):
        costs = list(range(len(other) + 1))
        for i, left in enumerate(one, 1):
            before, costs[0] = costs[0], i
            for j, right in enumerate(other, 1):
                best = min(before + (left != right), costs[j] + 1, costs[j - 1] + 1)
                before, costs[j] = costs[j], best
        errors += costs[-1]
    return errors / sum(map(len, said))


def digit_error_rate_by_calling_itself(said, heard):
    @functools.cache
    def edits(one, other):
        if not one or not other:
            return len(one + other)
        if one[0] == other[0]:
            return edits(one[1:], other[1:])
        return 1 + min(edits(one[1:], other[1:]), edits(one[1:], other),
                       edits(one, other[1:]))  # fmt: skip

    total = sum(edits(*pair) for pair in zip(said, heard, strict=True))
    return Fraction(total, sum(len(text) for text in said)).__float__()


def digit_error_rate_without_memory(said, heard):
    def edits(a, b):
        if not a or not b:
            return max(len(a), len(b))
        return min(edits(a[:-1], b[:-1]) + (a[-1] != b[-1]), edits(a[:-1], b) + 1,
                   edits(a, b[:-1]) + 1)  # fmt: skip

    return numpy.float32(sum(map(edits, said, heard)) / len("".join(said)))


def error_rate_that(
    count: Callable[[str, str], float] = judge.edits,
    digits: Callable[[str, str], int] = lambda one, other: len(one),
) -> Callable[[list[str], list[str]], float]:
    def answer(said, heard):
        pairs = list(zip(said, heard, strict=True))
        return sum(count(*p) for p in pairs) / sum(digits(*p) for p in pairs)

    return answer


def places(one, other):
    return sum(a != b for a, b in itertools.zip_longest(one, other))


def longest_first(one, other):
    steps = difflib.SequenceMatcher(None, one, other).get_opcodes()
    return sum(max(j - i, n - m) for name, i, j, m, n in steps if name != "equal")


def mean_of_rates(said, heard):
    rates = [
        digit_error_rate([one], [other]) if one else float(bool(other))
        for one, other in zip(said, heard, strict=True)
    ]
    return statistics.mean(rates)


RIGHT: dict[str, list[Any]] = {
    "04.q1": [image_tokens, image_tokens_of_patches, image_tokens_with_arrays],
    "04.q2": [extract_code, extract_code_by_cutting, extract_code_by_lines],
    "04.q3": [fill_middle, fill_middle_with_partition, fill_middle_with_a_loop],
    "04.q4": [pass_at_k, pass_at_k_published, pass_at_k_by_draws],
    "04.q5": [vote, vote_by_counting, vote_with_counter],
    "04.q6": [repair, repair_by_calling_itself, repair_with_while],
    "04.q7": [
        digit_error_rate,
        digit_error_rate_by_calling_itself,
        digit_error_rate_without_memory,
    ],
}

WRONG: dict[str, dict[str, Any]] = {
    "04.q1": {
        "patches": image_tokens_that(times=4),
        "merged-one-way": image_tokens_that(times=2),
        "pixels": image_tokens_that(lambda n: 28 * max(1, round(n / 28))),
        "no-minimum": image_tokens_that(lambda n: round(n / 28)),
        "rounds-down": image_tokens_that(lambda n: max(1, n // 28)),
        "rounds-up": image_tokens_that(lambda n: -(-n // 28)),
        "rounds-patches": image_tokens_that(lambda n: round(n / 14), 0.25),
        "rounds-the-area": lambda wide, high: wide * high / 784,
        "one-side": lambda wide, high: round(wide / 28) * high / 28,
        "adds-the-sides": lambda wide, high: (
            image_tokens(wide, 28) + image_tokens(28, high)
        ),
        "no-number": lambda wide, high: (wide // 28, high // 28),
        "prints": lambda wide, high: print(image_tokens(wide, high)),
    },
    "04.q2": {
        "whole-reply": lambda answer: answer,
        "language-left": between,
        "needs-language": extract_code_that(r"```python\n(.*?)(?:```|\Z)"),
        "needs-second-fence": extract_code_that(r"```\w*\n(.*?)```"),
        "needs-a-fence": extract_code_that(otherwise=""),
        "to-the-last-fence": extract_code_that(r"```\w*\n(.*)(?:```|\Z)"),
        "last-fence": extract_code_that(number=-1),
        "joins-fences": lambda answer: (
            "\n".join(re.findall(judge.FENCE, answer, re.DOTALL)) or answer
        ),
        "strips-indentation": lambda answer: extract_code(answer).strip(),
        "loses-indentation": lambda answer: "\n".join(
            line.strip() for line in extract_code(answer).split("\n")
        ),
        "strips-letters": lambda answer: between(answer).strip("`python\n"),
        "replaces-the-word": lambda answer: (
            between(answer).replace("python", "").removeprefix("py\n")
        ),
        "other": lambda answer: extract_code(answer) + "\nprint('done')",
        "no-text": lambda answer: extract_code(answer).splitlines(),
    },
    "04.q3": {
        "wrong-order": fill_middle_that(
            lambda prefix, suffix: (
                f"<|fim_prefix|>{prefix}<|fim_middle|><|fim_suffix|>{suffix}"
            )
        ),
        "swapped": lambda prefix, suffix, write: fill_middle(suffix, prefix, write),
        "changes-blanks": fill_middle_that(
            lambda prefix, suffix: (
                f"<|fim_prefix|> {prefix} <|fim_suffix|> {suffix} <|fim_middle|>"
            )
        ),
        "chat-template": fill_middle_that(
            lambda prefix, suffix: [user(f"Fill in: {prefix} ... {suffix}")]
        ),
        "other-tokens": fill_middle_that(
            lambda prefix, suffix: f"<PRE> {prefix} <SUF>{suffix} <MID>"
        ),
        "no-middle-token": fill_middle_that(
            lambda prefix, suffix: f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}"
        ),
        "prompt": fill_middle_that(
            lambda prefix, suffix: (
                f"<|fim_prefix|># code\n{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
            )
        ),
        "keeps-control-token": fill_middle_that(cut=str),
        "one-control-token": fill_middle_that(
            cut=lambda written: written.split("<|endoftext|>")[0]
        ),
        "last-control-token": fill_middle_that(
            cut=lambda written: written.rsplit("<|", 1)[0]
        ),
        "removes-tokens": fill_middle_that(cut=lambda written: END.sub("", written)),
        "loses-a-character": fill_middle_that(
            cut=lambda written: written[: written.find("<|")]
        ),
        "strips-blanks": fill_middle_that(
            cut=lambda written: written.split("<|")[0].strip()
        ),
        "first-line": fill_middle_that(
            cut=lambda written: END.split(written)[0].splitlines()[0]
        ),
        "whole-program": lambda prefix, suffix, write: (
            prefix + fill_middle(prefix, suffix, write) + suffix
        ),
        "asks-twice": fill_middle_asking_twice,
        "never-asks": lambda prefix, suffix, write: (
            f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
        ),
        "prints": lambda *given: print(fill_middle(*given)),
    },
    "04.q4": {
        "with-replacement": lambda n, c, k: 1 - (1 - c / n) ** k,
        "one-try": lambda n, c, k: c / n,
        "adds-up": lambda n, c, k: min(1, k * c / n),
        "chance-to-fail": lambda n, c, k: math.comb(n - c, k) / math.comb(n, k),
        "all-pass": lambda n, c, k: math.comb(c, k) / math.comb(n, k),
        "any-of-all": lambda n, c, k: int(c > 0),
        "percent": lambda n, c, k: 100 * pass_at_k(n, c, k),
        "rounds": lambda n, c, k: round(pass_at_k(n, c, k), 2),
        "few-wrong": pass_at_k_with_factorials,
        "other": lambda n, c, k: pass_at_k(n, c, k) ** 2,
        "no-number": lambda n, c, k: f"{pass_at_k(n, c, k):.0%}",
    },
    "04.q5": {
        "by-letters": vote_by_letters,
        "unboxed-votes": vote_that(read=lambda one: boxed(one) or one),
        "first-box": vote_with_first_box,
        "first-reply": lambda answers: next(filter(None, map(boxed, answers)), None),
        "more-than-half": vote_by_half,
        "tie-order": vote_for_the_last,
        "whole-reply": lambda answers: next(
            (one for one in answers if boxed(one) == vote(answers)), None
        ),
        "nobody-votes": vote_without_default,
        "no-box": vote_comparing_none,
        "no-text": lambda answers: [vote(answers), len(answers)],
        "returns-none": lambda answers: None,
    },
    "04.q6": {
        "error-not-sent": repair_that(
            lambda task, code, error: [assistant(code), user("That is wrong.")]
        ),
        "own-answer-missing": repair_that(lambda task, code, error: [user(error)]),
        "task-lost": repair_that(sent=lambda messages: messages[-2:]),
        "wrong-roles": repair_that(
            lambda task, code, error: [user(f"{code}\nfails: {error}")]
        ),
        "wrong-order": repair_that(
            lambda task, code, error: [user(error), assistant(code)]
        ),
        "says-twice": repair_that(
            lambda task, code, error: [assistant(code), user(error), user(task)]
        ),
        "no-messages": repair_that(sent=lambda messages: messages[-1]["content"]),
        "keeps-old-talk": repair_with_a_kept_list,
        "too-many-tries": repair_that(more=1),
        "stops-early": repair_that(more=-1),
        "goes-on-after-success": repair_that(stop=lambda error: False),
        "runs-other-code": repair_that(ran=lambda code: f"{code}\nassert True"),
        "runs-twice": repair_running_again,
        "not-all-run": repair_without_the_last_run,
        "not-the-last": repair_that(returned=lambda codes, errors: (codes[0], "")),
        "swapped": repair_that(returned=lambda codes, errors: (errors[-1], codes[-1])),
        "no-pair": repair_that(returned=lambda codes, errors: codes[-1]),
        "never-asks": lambda ask, run, task, tries: (task, ""),
        "returns-none": repair_that(returned=lambda *lists: None),
    },
    "04.q7": {
        "place-by-place": error_rate_that(places),
        "no-order": error_rate_that(
            lambda one, other: (Counter(one) - Counter(other)).total()
        ),
        "lengths-only": error_rate_that(
            lambda one, other: abs(len(one) - len(other))
        ),
        "mean-of-rates": mean_of_rates,
        "divides-by-heard": error_rate_that(digits=lambda one, other: len(other)),
        "at-most-1": lambda said, heard: min(1.0, digit_error_rate(said, heard)),
        "accuracy": lambda said, heard: 1 - digit_error_rate(said, heard),
        "number": lambda said, heard: sum(map(judge.edits, said, heard)),
        "wrong-clips": lambda said, heard: numpy.mean(
            [one != other for one, other in zip(said, heard, strict=True)]
        ),
        "added-free": error_rate_that(functools.partial(judge.edits, add=0)),
        "lost-free": error_rate_that(functools.partial(judge.edits, lose=0)),
        "replaced-costs-two": error_rate_that(functools.partial(judge.edits, swap=2)),
        "joins-clips": lambda said, heard: digit_error_rate(
            ["".join(said)], ["".join(heard)]
        ),
        "not-the-cheapest": error_rate_that(longest_first),
        "percent": lambda said, heard: 100 * digit_error_rate(said, heard),
        "rate-of-silence": lambda said, heard: statistics.mean(
            digit_error_rate([one], [other])
            for one, other in zip(said, heard, strict=True)
        ),
        "other": error_rate_that(lambda one, other: 2 * judge.edits(one, other) + 1),
        "no-number": lambda said, heard: str(digit_error_rate(said, heard)),
    },
}  # fmt: skip
