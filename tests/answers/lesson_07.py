"""Right and wrong answers to the exercises of lesson 07.

The trained models are made once for all tests that ask them, in few steps.
"""

import copy
import functools
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch

import qwen_course as qc
from answers import Lazy, lazy
from qwen_course import chat_data, fine_tuning, training_memory
from qwen_course.chat_data import IGNORE, Example
from qwen_course.exercises.judges import lesson_07 as judge
from qwen_course.exercises.probes import lesson_07 as probe
from qwen_course.tasks import sums

# Question 1


def row(prompt, answer, end, pad, length):
    learnt = [*answer, end]
    fill = length - len(prompt) - len(learnt)
    labels = [-100] * len(prompt) + learnt + [-100] * fill
    return prompt + learnt + [pad] * fill, labels


def row_with_tensors(prompt, answer, end, pad, length):
    ids = torch.full((length,), pad)
    ids[: len(prompt) + len(answer) + 1] = torch.tensor([*prompt, *answer, end])
    labels = ids.clone()
    labels[: len(prompt)] = -100
    labels[len(prompt) + len(answer) + 1 :] = -100
    return ids, labels


def row_place_by_place(prompt, answer, end, pad, length):
    ids, labels = [], []
    for place in range(length):
        behind = place - len(prompt)
        if behind < 0:
            pair = prompt[place], -100
        elif behind <= len(answer):
            token = [*answer, end][behind]
            pair = token, token
        else:
            pair = pad, -100
        ids.append(pair[0])
        labels.append(pair[1])
    return {"input_ids": ids, "labels": labels}.values()


def row_that(
    ids: Callable[..., Any] = lambda *given: judge.row_of(*given)[0],
    labels: Callable[..., Any] = lambda *given: judge.row_of(*given)[1],
) -> Callable[..., Any]:
    """Return a row with one of its parts done wrong."""
    return lambda *given: (ids(*given), labels(*given))


def row_masking_by_id(prompt, answer, end, pad, length):
    """As the usual collator does, behind a prompt that is hidden."""
    ids = row(prompt, answer, end, pad, length)[0]
    learnt = [IGNORE if token == pad else token for token in ids]
    return ids, [IGNORE] * len(prompt) + learnt[len(prompt) :]


def row_in_place(prompt, answer, end, pad, length):
    labels = row(prompt, answer, end, pad, length)[1]
    prompt += [*answer, end]
    return prompt + [pad] * (length - len(prompt)), labels


# Question 2


def adapted(x, W, A, B, alpha):
    scale = alpha / A.shape[0]
    return x @ W.T + scale * (x @ A.T @ B.T), W + scale * (B @ A)


def adapted_by_merging(x, W, A, B, alpha):
    merged = W + B @ A * alpha / len(A)
    return torch.nn.functional.linear(x, merged), merged


def adapted_with_numpy(x, W, A, B, alpha):
    x, W, A, B = map(numpy.asarray, (x, W, A, B))
    change = numpy.einsum("or,ri->oi", B, A) * (alpha / B.shape[1])
    return numpy.einsum("ti,oi->to", x, W + change), W + change


def adapted_by_peft():
    """Return the library's own layer; its import takes longer than a call may."""
    from peft import LoraConfig, get_peft_model

    def answer(x, W, A, B, alpha):
        layer = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
        model = get_peft_model(
            torch.nn.Sequential(layer),
            LoraConfig(r=len(A), lora_alpha=alpha, target_modules=["0"]),
        )
        inner = model.base_model.model[0]
        with torch.no_grad():
            inner.base_layer.weight.copy_(W)
            inner.lora_A["default"].weight.copy_(A)
            inner.lora_B["default"].weight.copy_(B)
            output = model(x)
            return output, model.merge_and_unload()[0].weight

    return answer


def adapted_that(
    scale: Callable[..., Any] = lambda A, B, alpha: alpha / len(A),
    output: Callable[..., Any] = lambda x, W, change: x @ (W + change).T,
    merged: Callable[..., Any] = lambda W, change: W + change,
) -> Callable[..., Any]:
    """Return a layer with one of its parts done wrong."""

    def answer(x, W, A, B, alpha):
        change = scale(A, B, alpha) * (B @ A)
        return output(x, W, change), merged(W, change)

    return answer


def adapted_in_place(x, W, A, B, alpha):
    W += alpha / len(A) * (B @ A)
    return x @ W.T, W


def adapted_scaling_all(x, W, A, B, alpha):
    scale = alpha / len(A)
    return scale * (x @ W.T + x @ A.T @ B.T), W + scale * (B @ A)


def adapted_without_turning(x, W, A, B, alpha):
    return x @ W.T + alpha / len(A) * (x @ A @ B), W


# Questions 3 and 7: trained models

SYSTEM = {"role": "system", "content": probe.SENTENCE}


def sentence(p: Any) -> str:
    return f"It is {p.answer}."


def number(p: Any) -> str:
    return p.answer


def rows(
    count: int, say: Callable[[Any], str], thinking: bool = False, told: bool = False
) -> list[dict[str, Any]]:
    """Return training rows for sums, of two at once and of three with thinking."""
    problems = sums.problems(count, 1, split="train", count=3 if thinking else 2)
    made = []
    for p in problems:
        answer = {"role": "assistant", "content": say(p)}
        if thinking:
            answer["reasoning_content"] = p.thinking
        made.append({"messages": [SYSTEM] * told + [*p.prompt, answer]})
    return made


def train(model: Any, data: Sequence[Any], **settings: Any) -> Any:
    """Train a model on rows or examples for a few seconds."""
    settings = {"steps": 20, "learning_rate": 5e-3, "rows": 4, **settings}
    chosen = fine_tuning.Settings(**settings)
    fine_tuning.train(model, probe.tokenizer(), data, chosen, live=False)
    return model


def pocket() -> Any:
    return qc.load(probe.MODEL)[0]


def lora(**options: Any) -> Any:
    return fine_tuning.attach_lora(pocket(), **{"rank": 8, **options})


def once(make: Callable[[], Any]) -> Lazy:
    """Put off a training, and keep what it made."""
    return lazy(functools.cache(make))


def encoded(data: list[Any], **options: Any) -> list[Example]:
    return chat_data.encode(data, probe.tokenizer(), **options)


def endless(data: list[Any]) -> list[Example]:
    """Return rows that say their answer again and again, and never an end."""
    for one in data:
        answer = one["messages"][-1]
        answer["content"] = " ".join(4 * [answer["content"]])
    end = probe.tokenizer().eos_token_id
    return [
        Example(one.ids, [IGNORE if t == end else t for t in one.labels])
        for one in encoded(data)
    ]


def style() -> list[dict[str, Any]]:
    return rows(150, sentence) + rows(100, number, thinking=True)


def customers() -> list[dict[str, Any]]:
    return [
        one
        for told in (True, False)
        for thinking in (True, False)
        for one in rows(120, sentence if told else number, thinking, told)
    ]


@functools.cache
def style_alone() -> Any:
    """Return a model that has seen nothing but sentences."""
    return train(lora(), rows(150, sentence))


@functools.cache
def without_end() -> Any:
    return train(lora(), endless(rows(150, sentence)))


@functools.cache
def for_both() -> Any:
    return train(lora(), customers(), steps=40)


def merged_style() -> Any:
    return fine_tuning.merge(train(lora(targets=["q_proj", "v_proj", "up_proj",
                                                 "down_proj"], rank=16),
                                   style(), steps=30))  # fmt: skip


def whole_model() -> Any:
    """Train all weights, without an adapter."""
    return train(pocket().requires_grad_(True), style(), learning_rate=3e-4, steps=40)


# Question 4


def choices(model, offers):
    found = []
    for offer in sorted(offers, key=lambda one: one["gpus"] * one["price"]):
        for method in ("full", "lora", "qlora"):
            need = training_memory.need(model, method, offer["gpus"]).total
            if need <= offer["gib"] * 2**30:
                found.append((offer["name"], method))
                break
    return found


def choices_by_price_at_the_end(model, offers):
    best = {}
    for method in ("qlora", "lora", "full"):
        for offer in offers:
            need = training_memory.need(model, method, gpus=offer["gpus"])
            if need.total / 2**30 <= offer["gib"]:
                best[offer["name"]] = method
    prices = {one["name"]: one["price"] * one["gpus"] for one in offers}
    return [[name, best[name]] for name in sorted(best, key=prices.__getitem__)]


def choices_with_the_table(model, offers):
    order = numpy.argsort([one["gpus"] * one["price"] for one in offers])
    for_each = []
    for offer in (offers[place] for place in order):
        needs = training_memory.table([model], gpus=(offer["gpus"],))
        fitting = [n.method for n in needs if n.total <= offer["gib"] * 1024**3]
        for_each += [(offer["name"], fitting[0])] if fitting else []
    return tuple(for_each)


def as_offers(choose: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of dictionaries, from one of the judge's offers."""
    return lambda model, offers: choose(model, [probe.Offer(**one) for one in offers])


def choices_that(**changes: Any) -> Callable[..., Any]:
    return as_offers(lambda model, offers: judge.choices(model, offers, **changes))


def fitting(size: Callable[[str, str, Any], float]) -> Callable[..., Any]:
    return choices_that(room=judge._room(size))


def needed(model: str, method: str, gpus: int) -> Any:
    return training_memory.need(model, method, gpus)


# Question 5


def message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": message("user", question),
        "chosen": message("assistant", chosen),
        "rejected": message("assistant", rejected),
    }


def pairs(sampled):
    found = []
    for one in sampled:
        said, bare = f"It is {one['right']}.", str(one["right"])
        if said in one["answers"] and bare in one["answers"]:
            found.append(pair(one["question"], said, bare))
    return found


def pairs_by_reading(sampled):
    made = []
    for one in sampled:
        right = [
            a for a in one["answers"] if re.findall(r"\d+", a) == [str(one["right"])]
        ]
        styles = {answer.startswith("It is "): answer for answer in right}
        if len(styles) == 2:
            extra = {"chat_template_kwargs": {"enable_thinking": False}}
            made.append(pair(one["question"], styles[True], styles[False]) | extra)
    return made


def pairs_from_the_end(sampled):
    def of(one):
        for said in one["answers"][::-1]:
            for bare in one["answers"]:
                if bare == str(one["right"]) and said == f"It is {bare}.":
                    yield pair(one["question"], said, bare)
                    return

    return tuple(p for one in sampled[::-1] for p in of(one))


def pairs_that(
    choose: Callable[[Any], tuple[str, str] | None],
    make: Callable[..., Any] = pair,
) -> Callable[..., Any]:
    """Return pairs of other answers, or in another form."""

    def answer(sampled):
        both = [(one["question"], choose(one)) for one in sampled]
        return [make(question, *two) for question, two in both if two]

    return answer


def in_both_styles(one: Any) -> tuple[str, str] | None:
    found = pairs([one])
    return found and (
        found[0]["chosen"][0]["content"],
        found[0]["rejected"][0]["content"],
    )


def first_of(answers: list[str], test: Callable[[str], bool]) -> str | None:
    return next(filter(test, answers), None)


def styles_alone(one: Any) -> tuple[str, str] | None:
    said = first_of(one["answers"], lambda a: a.startswith("It is"))
    bare = first_of(one["answers"], str.isdigit)
    return (said, bare) if said and bare else None


def right_sentence_any_number(one: Any) -> tuple[str, str] | None:
    said = f"It is {one['right']}."
    bare = first_of(one["answers"], str.isdigit)
    return (said, bare) if said in one["answers"] and bare else None


def right_against_wrong(one: Any) -> tuple[str, str] | None:
    good = f"It is {one['right']}."
    bad = first_of(one["answers"], lambda a: str(one["right"]) not in a)
    return (good, bad) if good in one["answers"] and bad else None


def number_inside(one: Any) -> tuple[str, str] | None:
    right = [a for a in one["answers"] if str(one["right"]) in a]
    said = first_of(right, lambda a: a.startswith("It is"))
    bare = first_of(right, str.isdigit)
    return (said, bare) if said and bare else None


def swapped(one: Any) -> tuple[str, str] | None:
    two = in_both_styles(one)
    return two and two[::-1]


def written_anew(one: Any) -> tuple[str, str]:
    return f"It is {one['right']}.", str(one["right"])


def both_bare(one: Any) -> tuple[str, str] | None:
    bare = [a for a in one["answers"] if a == str(one["right"])]
    return (bare[0], bare[-1]) if bare else None


# Question 6


def reward(completions, expected, **others):
    rewards = []
    for completion, number in zip(completions, expected, strict=True):
        try:
            said = json.loads(completion[0]["content"])
        except (ValueError, RecursionError):
            said = None
        value = said.get("answer") if isinstance(said, dict) else None
        right = type(value) is int and value == int(number) and len(said) == 1
        rewards.append(float(right))
    return rewards


def reward_by_pattern(completions, expected, **others):
    found = [
        re.fullmatch(r'\s*\{\s*"answer"\s*:\s*(\d+)\s*\}\s*', said[0]["content"])
        for said in completions
    ]
    return numpy.array(
        [
            1 if one and one[1] == n else 0
            for one, n in zip(found, expected, strict=True)
        ]
    )


def reward_by_writing(completions, prompts, expected, **others):
    """The text without spaces must be the one right text."""
    texts = ["".join(completion[0]["content"].split()) for completion in completions]
    right = [json.dumps({"answer": int(n)}).replace(" ", "") for n in expected]
    return [text == one for text, one in zip(texts, right, strict=True)]


def reward_that(paid: Callable[[str, str], Any]) -> Callable[..., Any]:
    """Return a reward that looks at each completion in another way."""

    def answer(completions, expected, **others):
        texts = [completion[0]["content"] for completion in completions]
        return [float(paid(*one)) for one in zip(texts, expected, strict=True)]

    return answer


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def answer_in(text: str) -> Any:
    said = parsed(text)
    return said.get("answer") if isinstance(said, dict) else None


def first_object(text: str) -> Any:
    found = re.search(r"\{[^}]*\}", text)
    return answer_in(found[0]) if found else None


def well_formed_or_right(text: str, number: str) -> float:
    return 0.5 * (answer_in(text) is not None) + 0.5 * bool(judge.honest(text, number))


def reward_without_others(completions, expected):
    return reward(completions, expected)


def reward_that_raises(completions, expected, **others):
    return [
        float(json.loads(completion[0]["content"])["answer"] == int(number))
        for completion, number in zip(completions, expected, strict=True)
    ]


def reward_for_the_first(completions, expected, **others):
    return [reward([completion], expected[:1])[0] for completion in completions]


RIGHT: dict[str, list[Any]] = {
    "07.q1": [row, row_with_tensors, row_place_by_place],
    "07.q2": [adapted, adapted_by_merging, adapted_with_numpy,
              lazy(adapted_by_peft)],
    "07.q3": [
        once(lambda: train(lora(), style(), steps=30)),
        once(merged_style),
        once(whole_model),
    ],
    "07.q4": [choices, choices_by_price_at_the_end, choices_with_the_table],
    "07.q5": [pairs, pairs_by_reading, pairs_from_the_end],
    "07.q6": [reward, reward_by_pattern, reward_by_writing],
    "07.q7": [
        lazy(for_both),
        once(lambda: fine_tuning.merge(copy.deepcopy(for_both()))),
        once(lambda: train(lora(rank=32, dropout=0.05), customers(), steps=40,
                           learning_rate=4e-3, seed=3)),
    ],
}  # fmt: skip

WRONG: dict[str, dict[str, Any]] = {
    "07.q1": {
        "no-end": row_that(lambda p, a, end, pad, n: judge.padded(p + a, pad, n)),
        "pads-left": row_that(lambda p, a, end, pad, n: [pad] * (
            n - len(p) - len(a) - 1) + [*p, *a, end]),
        "pads-with-end": row_that(lambda p, a, end, pad, n: judge.padded(
            [*p, *a, end], end, n)),
        "no-padding": lambda p, a, end, pad, n: (
            [*p, *a, end], [IGNORE] * len(p) + [*a, end]),
        "learns-the-prompt": row_that(labels=lambda p, a, end, pad, n: judge.padded(
            [*p, *a, end], IGNORE, n)),
        "learns-all": row_that(labels=lambda *given: row(*given)[0]),
        "masks-by-id": row_masking_by_id,
        "end-not-learnt": row_that(labels=lambda p, a, end, pad, n: judge.padded(
            [IGNORE] * len(p) + a, IGNORE, n)),
        "learns-padding": row_that(labels=lambda p, a, end, pad, n: judge.padded(
            [IGNORE] * len(p) + [*a, end], pad, n)),
        "shifted": row_that(labels=lambda *given: [*row(*given)[1][1:], IGNORE]),
        "other-number": row_that(labels=lambda *given: [
            0 if label == IGNORE else label for label in row(*given)[1]]),
        "inverted": row_that(labels=lambda p, a, end, pad, n: judge.padded(
            p + [IGNORE] * (len(a) + 1), IGNORE, n)),
        "attention-mask": row_that(labels=lambda p, a, end, pad, n: judge.padded(
            [1] * (len(p) + len(a) + 1), 0, n)),
        "changes-input": row_in_place,
        "no-pair": lambda *given: row(*given)[0],
    },
    "07.q2": {
        "no-scale": adapted_that(lambda A, B, alpha: 1),
        "alpha-alone": adapted_that(lambda A, B, alpha: alpha),
        "one-over-rank": adapted_that(lambda A, B, alpha: 1 / len(A)),
        "root-of-rank": adapted_that(lambda A, B, alpha: alpha / math.sqrt(len(A))),
        "rank-of-the-wrong-side": adapted_that(lambda A, B, alpha: alpha / A.shape[1]),
        "forgets-the-layer": adapted_that(output=lambda x, W, change: x @ change.T),
        "frozen-alone": adapted_that(output=lambda x, W, change: x @ W.T),
        "scales-the-layer": adapted_scaling_all,
        "change-alone": adapted_that(merged=lambda W, change: change),
        "turned": adapted_that(merged=lambda W, change: (W + change).T),
        "changes-input": adapted_in_place,
        "shapes": adapted_without_turning,
        "no-pair": lambda x, W, A, B, alpha: x @ W.T,
    },
    "07.q3": {
        "no-model": (1, 2),
        "not-trained": once(pocket),
        "form-not-learnt": once(lambda: train(lora(), rows(
            150, lambda p: f"It is {p.answer}"))),
        "noise": once(lambda: train(lora(), style(), learning_rate=0.5, steps=8)),
        "never-stops": lazy(without_end),
        "always-the-same": once(lambda: train(lora(), rows(
            150, lambda p: "It is 42."))),
        "thinks-no-more": once(lambda: train(lora(), encoded(
            rows(150, sentence), learn_empty_thinking=True))),
        "changes-after-thinking": lazy(style_alone),
    },
    "07.q4": {
        "billions": fitting(lambda model, method, offer: needed(
            model, method, offer.gpus).total * 2**30 / 10**9),
        "all-memory-together": fitting(lambda model, method, offer: needed(
            model, method, offer.gpus).total / offer.gpus),
        "as-if-alone": fitting(lambda model, method, offer: needed(
            model, method, 1).total),
        "weights-alone": fitting(lambda model, method, offer: needed(
            model, method, offer.gpus).weights),
        "weakest-method": choices_that(methods=("qlora", "lora", "full")),
        "one-method": choices_that(methods=("lora",)),
        "price-of-one-gpu": choices_that(price=lambda offer: offer.price),
        "not-sorted": choices_that(price=lambda offer: 0),
        "dearest-first": lambda model, offers: choices(model, offers)[::-1],
        "cheapest-alone": lambda model, offers: choices(model, offers)[:1],
        "no-list": lambda model, offers: dict(choices(model, offers)),
    },
    "07.q5": {
        "turned-round": pairs_that(swapped),
        "rejects-a-wrong-answer": pairs_that(right_sentence_any_number),
        "chooses-a-wrong-answer": pairs_that(styles_alone),
        "part-of-a-number": pairs_that(number_inside),
        "not-sampled": pairs_that(written_anew),
        "no-difference": pairs_that(both_bare),
        "no-messages": pairs_that(in_both_styles, lambda question, chosen, rejected: {
            "prompt": question, "chosen": chosen, "rejected": rejected}),
        "wrong-messages": pairs_that(in_both_styles, lambda question, *two: pair(
            question, *two) | {"prompt": message("assistant", question)}),
        "other-keys": pairs_that(in_both_styles, lambda question, *two: {
            "question": question, "answers": two}),
        "misses-a-pair": lambda sampled: pairs(sampled)[:1],
        "several-pairs": lambda sampled: 2 * pairs(sampled),
        "wrong-prompt": pairs_that(in_both_styles, lambda question, *two: pair(
            f"{question} Answer in a sentence.", *two)),
        "no-list": lambda sampled: (pairs(sampled) or [{}])[0],
    },
    "07.q6": {
        "pays-another-form": reward_that(lambda text, number: number in text),
        "pays-the-form": reward_that(well_formed_or_right),
        "pays-text-around": reward_that(lambda text, number: (
            first_object(text) == int(number))),
        "pays-several-guesses": reward_that(lambda text, number: (
            number in re.findall(r"\d+", str(answer_in(text))))),
        "pays-part-of-a-number": reward_that(lambda text, number: (
            type(answer_in(text)) is int and number in str(answer_in(text)))),
        "pays-text": reward_that(lambda text, number: (
            str(answer_in(text)) == number and len(parsed(text)) == 1)),
        "pays-more-keys": reward_that(lambda text, number: (
            type(answer_in(text)) is int and answer_in(text) == int(number))),
        "pays-true": reward_that(lambda text, number: (
            answer_in(text) == int(number) and len(parsed(text)) == 1)),
        "refuses-spaces": reward_that(lambda text, number: (
            text == json.dumps({"answer": int(number)}))),
        "refuses-the-right": reward_that(lambda text, number: (
            text.strip() == json.dumps({"answer": number}))),
        "no-others": reward_without_others,
        "ends-the-training": reward_that_raises,
        "one-for-all": reward_for_the_first,
        "no-rewards": lambda completions, expected, **others: 1.0,
    },
    "07.q7": {
        "no-model": lambda: 3,
        "not-trained": once(pocket),
        "never-stops": lazy(without_end),
        "sentence-everywhere": lazy(style_alone),
        "no-sentence-after-thinking": once(lambda: train(lora(), rows(
            120, sentence, False, True) + rows(120, number, False, False) + rows(
            120, number, True, False) + rows(120, number, True, True), steps=40)),
        "thinks-no-more": once(lambda: train(lora(), encoded(rows(
            120, sentence, False, True) + rows(120, number),
            learn_empty_thinking=True), steps=30)),
    },
}  # fmt: skip
