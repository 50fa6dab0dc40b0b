"""Answers to the exercises of lesson 02: right ones, and typical wrong ones."""

import html
import json
import re
from collections.abc import Callable
from typing import Any

import torch

import qwen_course as qc

GREEDY: dict[str, Any] = {
    "do_sample": False, "temperature": None, "top_p": None, "top_k": None,
}  # fmt: skip

# q1: what the template adds


def prompt_text(tokenizer, messages, **options):
    options = {"add_generation_prompt": True, **options}
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def count(tokenizer, text):
    return len(tokenizer(text)["input_ids"])


def overhead(tokenizer, messages):
    contents = sum(count(tokenizer, message["content"]) for message in messages)
    return count(tokenizer, prompt_text(tokenizer, messages)) - contents


def overhead_from_ids(tokenizer, messages):
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt"
    )
    total = torch.tensor(prompt["input_ids"].shape[1])
    for message in messages:
        total = total - len(tokenizer.tokenize(message["content"]))
    return total


def overhead_of_nothing(tokenizer, messages):
    empty = [{**message, "content": ""} for message in messages]
    return count(tokenizer, prompt_text(tokenizer, empty))


def overhead_in_keys(tokenizer, messages):
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return len(prompt) - sum(count(tokenizer, one["content"]) for one in messages)


def overhead_unopened(tokenizer, messages):
    text = prompt_text(tokenizer, messages, add_generation_prompt=False)
    return count(tokenizer, text) - sum(
        count(tokenizer, m["content"]) for m in messages
    )


def overhead_in_characters(tokenizer, messages):
    text = prompt_text(tokenizer, messages)
    return len(text) - len("".join(message["content"] for message in messages))


def overhead_without_thinking(tokenizer, messages):
    text = prompt_text(tokenizer, messages, enable_thinking=False)
    return count(tokenizer, text) - sum(
        count(tokenizer, m["content"]) for m in messages
    )


# q2: the published quick start


def published(model, tokenizer, question):
    inputs = tokenizer(question, return_tensors="pt")
    outputs = model.generate(inputs.input_ids, max_length=50)
    return tokenizer.decode(outputs[0], skip_special_tokens=True)


def ask(model, tokenizer, question):
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True,
        enable_thinking=False, return_dict=True, return_tensors="pt",
    ).to(model.device)  # fmt: skip
    output = model.generate(**inputs, max_new_tokens=64, **GREEDY)
    new = output[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True)


def ask_with_course(model, tokenizer, question):
    reply = qc.chat(model, tokenizer, question, thinking=False, sampling="greedy")
    return reply.answer


def ask_in_a_loop(model, tokenizer, question):
    messages = [{"role": "user", "content": question}]
    text = prompt_text(tokenizer, messages, enable_thinking=False)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    for _ in range(64):
        with torch.no_grad():
            best = model(ids).logits[0, -1].argmax()
        if best == tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, best.view(1, 1)], dim=1)
    return tokenizer.decode(ids[0, length:])


def asking(
    template: bool = True,
    cut: bool = True,
    limit: dict[str, int] | None = None,
    sampling: dict[str, Any] = GREEDY,
    skip: bool = True,
    **switches: bool,
) -> Callable[..., str]:
    """Return a quick start that is repaired but for what the arguments say."""

    def ask(model, tokenizer, question):
        text = question
        if template:
            messages = [{"role": "user", "content": question}]
            text = prompt_text(
                tokenizer, messages, **{"enable_thinking": False, **switches}
            )
        inputs = tokenizer(text, return_tensors="pt")
        limits = limit or {"max_new_tokens": 64}
        output = model.generate(**inputs, **limits, **sampling)
        start = inputs["input_ids"].shape[1] if cut else 0
        return tokenizer.decode(output[0, start:], skip_special_tokens=skip)

    return ask


def ask_by_replacing(model, tokenizer, question):
    messages = [{"role": "user", "content": question}]
    text = prompt_text(tokenizer, messages, enable_thinking=False)
    response = asking(cut=False)(model, tokenizer, question)
    return response.replace(text, "")


def ask_with_a_dict(model, tokenizer, question):
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True,
        enable_thinking=False, return_tensors="pt",
    )  # fmt: skip
    output = model.generate(inputs, max_new_tokens=64, **GREEDY)
    return tokenizer.decode(output[0, inputs.shape[1] :], skip_special_tokens=True)


def ask_thoughtfully(model, tokenizer, question):
    return qc.chat(model, tokenizer, question, sampling="greedy").answer


# q3: a batch


def answer_batch(model, tokenizer, prompts):
    inputs = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    output = model.generate(**inputs.to(model.device), max_new_tokens=64, **GREEDY)
    new = output[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(new, skip_special_tokens=True)


def answer_batch_by_hand(model, tokenizer, prompts):
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    width = max(map(len, rows))
    pads = [width - len(row) for row in rows]
    ids = [
        [tokenizer.pad_token_id] * n + row for n, row in zip(pads, rows, strict=True)
    ]
    mask = [[0] * n + [1] * (width - n) for n in pads]
    output = model.generate(
        input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask),
        max_new_tokens=64, do_sample=False,
    )  # fmt: skip
    answers = []
    for row in output.tolist():
        answer = row[width:]
        if tokenizer.eos_token_id in answer:
            answer = answer[: answer.index(tokenizer.eos_token_id)]
        answers.append(tokenizer.decode(answer))
    return tuple(answers)


def answer_batch_sorted(model, tokenizer, prompts):
    tokenizer.padding_side = "left"
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    answers = answer_batch(model, tokenizer, [prompts[n] for n in order])
    by_place = dict(zip(order, answers, strict=True))
    return [by_place[n] for n in range(len(prompts))]


def answering(
    side: str = "left",
    mask: bool = True,
    pad_is_eos: bool = False,
    own_length: bool = False,
    skip: bool = True,
    new: int = 64,
) -> Callable[..., list[str]]:
    """Return a batch that is right but for what the arguments say."""

    def answer_batch(model, tokenizer, prompts):
        if pad_is_eos:
            tokenizer.pad_token = tokenizer.eos_token
        inputs = tokenizer(
            prompts, padding=True, padding_side=side, return_tensors="pt"
        )
        given = inputs if mask else {"input_ids": inputs["input_ids"]}
        output = model.generate(**given, max_new_tokens=new, **GREEDY)
        width = inputs["input_ids"].shape[1]
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        cuts = lengths if own_length else [width] * len(prompts)
        return [
            tokenizer.decode(row[cut:], skip_special_tokens=skip)
            for row, cut in zip(output, cuts, strict=True)
        ]

    return answer_batch


def answer_one_by_one(model, tokenizer, prompts):
    return [answer_batch(model, tokenizer, [prompt])[0] for prompt in prompts]


def answer_in_order_of_length(model, tokenizer, prompts):
    return answer_batch(model, tokenizer, sorted(prompts, key=len))


def answer_first_row(model, tokenizer, prompts):
    return answer_batch(model, tokenizer, prompts)[:1]


# q4: a tool call by hand


def turn(role, text):
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def written_call(call):
    arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    body = f'{{"name": "{call["function"]["name"]}", "arguments": {arguments}}}'
    return f"<tool_call>\n{body}\n</tool_call>"


def render(messages):
    text = ""
    results = []
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            results.append(f"<tool_response>\n{message['content']}\n</tool_response>")
            following = messages[number + 1 :]
            if not following or following[0]["role"] != "tool":
                text += turn("user", "\n".join(results))
                results = []
            continue
        calls = map(written_call, message.get("tool_calls", []))
        text += turn(
            message["role"], "\n".join(filter(None, [message["content"], *calls]))
        )
    return text + "<|im_start|>assistant\n"


def render_in_groups(messages):
    from itertools import groupby

    parts = []
    for role, group in groupby(messages, key=lambda message: message["role"]):
        if role == "tool":
            inside = [
                f"\n<tool_response>\n{m['content']}\n</tool_response>" for m in group
            ]
            parts += ["<|im_start|>user", *inside, "<|im_end|>\n"]
            continue
        for message in group:
            blocks = [message["content"]] if message["content"] else []
            for call in message.get("tool_calls") or []:
                function = call["function"]
                wanted = {"name": function["name"], "arguments": function["arguments"]}
                line = json.dumps(wanted, ensure_ascii=False)
                blocks += ["<tool_call>", line, "</tool_call>"]
            parts += ["<|im_start|>", role, "\n", "\n".join(blocks), "<|im_end|>\n"]
    return "".join([*parts, "<|im_start|>assistant\n"])


def render_with_template(messages):
    from qwen_course.exercises.probes import pocket

    return prompt_text(pocket()[1], messages)


def rendering(
    write: Callable[[Any], str] = written_call,
    turn: Callable[[str, str], str] = turn,
    results: Callable[[list[str]], str] | None = None,
    end: str = "<|im_start|>assistant\n",
    text: bool = True,
) -> Callable[[Any], str]:
    """Return a renderer that is right but for what the arguments say."""
    from itertools import groupby

    def in_one_turn(contents):
        inside = [f"<tool_response>\n{one}\n</tool_response>" for one in contents]
        return turn("user", "\n".join(inside))

    def render(messages):
        parts = []
        for role, group in groupby(messages, key=lambda message: message["role"]):
            if role == "tool":
                parts.append((results or in_one_turn)([m["content"] for m in group]))
                continue
            for message in group:
                calls = list(map(write, message.get("tool_calls", [])))
                content = [message["content"]] if text or not calls else []
                parts.append(turn(role, "\n".join(filter(None, content + calls))))
        return "".join(parts) + end

    return render


def _body(call, **options):
    inside = json.dumps(call["function"], **{"ensure_ascii": False, **options})
    return f"<tool_call>\n{inside}\n</tool_call>"


def _in_own_turns(role, tagged=True):
    def results(contents):
        form = "<tool_response>\n{}\n</tool_response>" if tagged else "{}"
        return "".join(turn(role, form.format(one)) for one in contents)

    return results


def _doubled(call):
    text = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    inside = {"name": call["function"]["name"], "arguments": text}
    return f"<tool_call>\n{json.dumps(inside, ensure_ascii=False)}\n</tool_call>"


# q5: control tokens in a user's text


def text_ids(tokenizer, text):
    pattern = "|".join(map(re.escape, tokenizer.get_added_vocab()))
    cuts = [0, *(found.start() + 1 for found in re.finditer(pattern, text)), len(text)]
    ids = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        ids += tokenizer(text[start:end])["input_ids"]
    return ids


def text_ids_with_course(tokenizer, text):
    from qwen_course.messages import encode

    ids = encode(tokenizer, [{"role": "user", "content": text}])
    end = len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids("<|im_end|>")) - 1
    mine = ids[3:end]
    # A text that begins with a new line would melt into the role's.
    return torch.tensor(mine)


def text_ids_in_letters(tokenizer, text):
    control = tokenizer.get_added_vocab()
    ids = tokenizer(text)["input_ids"]
    if set(ids).isdisjoint(control.values()):
        return ids
    by_letter = [tokenizer(letter)["input_ids"] for letter in text]
    return [id for letter in by_letter for id in letter]


def text_ids_bare(tokenizer, text):
    return tokenizer(text)["input_ids"]


def text_ids_special_only(tokenizer, text):
    return tokenizer(text, split_special_tokens=True)["input_ids"]


def text_ids_of_two(tokenizer, text):
    for token in ("<|im_start|>", "<|im_end|>"):
        text = text.replace(token, f"{token[0]}\0{token[1:]}")
    return [id for part in text.split("\0") for id in tokenizer(part)["input_ids"]]


def text_ids_removed(tokenizer, text):
    for token in tokenizer.get_added_vocab():
        text = text.replace(token, "")
    return tokenizer(text)["input_ids"]


def text_ids_removed_at_once(tokenizer, text):
    pattern = "|".join(map(re.escape, tokenizer.get_added_vocab()))
    return tokenizer(re.sub(pattern, "", text))["input_ids"]


def text_ids_removed_wholly(tokenizer, text):
    pattern = "|".join(map(re.escape, tokenizer.get_added_vocab()))
    while re.search(pattern, text):
        text = re.sub(pattern, "", text)
    return tokenizer(text)["input_ids"]


def text_ids_escaped(tokenizer, text):
    return tokenizer(html.escape(text))["input_ids"]


def text_ids_all_letters(tokenizer, text):
    return [id for letter in text for id in tokenizer(letter)["input_ids"]]


def text_ids_as_text(tokenizer, text):
    return text.replace("<|", "< |")


# q6: temperature and top_p


def choices(logits, temperature, top_p):
    p, ids = (logits / temperature).softmax(dim=-1).sort(descending=True)
    keep = p.cumsum(dim=-1) - p < top_p
    kept = p[keep] / p[keep].sum()
    return dict(zip(ids[keep].tolist(), kept.tolist(), strict=True))


def choices_in_python(logits, temperature, top_p):
    import math

    scores = [value / temperature for value in logits.tolist()]
    highest = max(scores)
    weights = {id: math.exp(score - highest) for id, score in enumerate(scores)}
    total = sum(weights.values())
    kept: dict[int, float] = {}
    for id in sorted(weights, key=weights.__getitem__, reverse=True):
        if sum(kept.values()) / total >= top_p:
            break
        kept[id] = weights[id]
    return {id: weight / sum(kept.values()) for id, weight in kept.items()}


def choices_of_transformers(logits, temperature, top_p):
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    scores = TemperatureLogitsWarper(temperature)(None, logits[None])
    scores = TopPLogitsWarper(top_p)(None, scores)[0]
    p = scores.softmax(dim=-1)
    return {id: p[id] for id in p.nonzero().flatten()}


def choosing(
    heat: Callable[..., Any] = lambda logits, t: (logits / t).softmax(-1),
    keep: Callable[..., Any] = lambda p, top_p: p.cumsum(-1) - p < top_p,
    scale: bool = True,
    ranks: bool = False,
) -> Callable[..., dict[int, float]]:
    """Return a choice that is right but for what the arguments say."""

    def choices(logits, temperature, top_p):
        p, ids = heat(logits, temperature).sort(descending=True)
        kept, ids = p[keep(p, top_p)], ids[keep(p, top_p)]
        names = range(len(ids)) if ranks else ids.tolist()
        shares = kept / kept.sum() if scale else kept
        return dict(zip(names, shares.tolist(), strict=True))

    return choices


def below_or_first(p, top_p):
    keep = p.cumsum(-1) <= top_p
    keep[0] = True
    return keep


def choices_cut_first(logits, temperature, top_p):
    p, ids = logits.softmax(-1).sort(descending=True)
    ids = ids[p.cumsum(-1) - p < top_p]
    kept = (logits[ids] / temperature).softmax(-1)
    return dict(zip(ids.tolist(), kept.tolist(), strict=True))


# q7: a conversation that fits


def size(tokenizer, messages):
    return count(tokenizer, prompt_text(tokenizer, messages))


def fit(tokenizer, messages, budget):
    head = [one for one in messages[:1] if one["role"] == "system"]
    for place, message in enumerate(messages):
        kept = head + messages[place:]
        if message["role"] == "user" and size(tokenizer, kept) <= budget:
            return kept
    raise ValueError(f"the last turn needs more than {budget} tokens")


def fit_by_dropping(tokenizer, messages, budget):
    kept = list(messages)
    first = 1 if kept[0]["role"] == "system" else 0
    while size(tokenizer, kept) > budget:
        del kept[first]
        while first < len(kept) and kept[first]["role"] != "user":
            del kept[first]
        if first == len(kept):
            raise ValueError("too long")
    return kept


def fit_backwards(tokenizer, messages, budget):
    system = tuple(one for one in messages if one["role"] == "system")
    best = None
    for place in range(len(messages) - 1, -1, -1):
        if messages[place]["role"] != "user":
            continue
        tried = system + tuple(messages[place:])
        ids = tokenizer.apply_chat_template(list(tried), add_generation_prompt=True)
        if len(ids["input_ids"]) > budget:
            break
        best = tried
    if best is None:
        raise ValueError("no turn fits")
    return best


def fitting(
    size: Callable[..., int] = size,
    role: str | None = "user",
    system: bool = True,
    error: bool = True,
) -> Callable[..., Any]:
    """Return a function that is right but for what the arguments say."""

    def fit(tokenizer, messages, budget):
        head = [one for one in messages[:1] if one["role"] == "system" and system]
        for place, message in enumerate(messages):
            kept = head + messages[place:]
            if message["role"] == "system" or role not in (None, message["role"]):
                continue
            if size(tokenizer, kept) <= budget:
                return kept
        if error:
            raise ValueError("too long")
        return kept

    return fit


def fit_in_place(tokenizer, messages, budget):
    while size(tokenizer, messages) > budget:
        messages.pop(1)
    return messages


def fit_from_the_front(tokenizer, messages, budget):
    kept = list(messages)
    while kept and size(tokenizer, kept) > budget:
        kept.pop()
    if not kept:
        raise ValueError("too long")
    return kept


def fit_last_turn_only(tokenizer, messages, budget):
    if size(tokenizer, messages) <= budget:
        return messages
    return fit(tokenizer, messages[:1] + messages[-1:], budget)


def _contents(tokenizer, messages):
    return sum(count(tokenizer, message["content"]) for message in messages)


RIGHT: dict[str, list[Any]] = {
    "02.q1": [overhead, overhead_from_ids, overhead_of_nothing],
    "02.q2": [ask, ask_with_course, ask_in_a_loop],
    "02.q3": [answer_batch, answer_batch_by_hand, answer_batch_sorted],
    "02.q4": [render, render_in_groups, render_with_template],
    "02.q5": [text_ids, text_ids_with_course, text_ids_in_letters],
    "02.q6": [choices, choices_in_python, choices_of_transformers],
    "02.q7": [fit, fit_by_dropping, fit_backwards],
}

WRONG: dict[str, dict[str, Any]] = {
    "02.q1": {
        "counts-keys": overhead_in_keys,
        "counts-keys-only": lambda tokenizer, messages: len(
            tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ),
        "no-generation-prompt": overhead_unopened,
        "whole-prompt": size,
        "one-content": lambda tokenizer, messages: (
            size(tokenizer, messages) - count(tokenizer, messages[-1]["content"])
        ),
        "characters": overhead_in_characters,
        "control-tokens-only": lambda tokenizer, messages: prompt_text(
            tokenizer, messages
        ).count("<|im_"),
        "thinking-off": overhead_without_thinking,
        "fixed-formula": lambda tokenizer, messages: 5 * len(messages) + 3,
        "no-number": lambda tokenizer, messages: prompt_text(tokenizer, messages),
    },
    "02.q2": {
        "max-length": asking(limit={"max_length": 60}),
        "passes-dict": ask_with_a_dict,
        "prompt-in-answer": published,
        "no-template": asking(template=False),
        "no-generation-prompt": asking(add_generation_prompt=False),
        "control-tokens": asking(skip=False),
        "thinking-in-answer": asking(enable_thinking=True),
        "thinks": ask_thoughtfully,
        "samples": asking(sampling={"do_sample": True, "temperature": 1.5}),
        "cut-off": asking(limit={"max_new_tokens": 3}),
    },
    "02.q3": {
        "pads-right": answering(side="right"),
        "pads-right-no-mask": answering(side="right", mask=False, pad_is_eos=True),
        "no-mask": answering(mask=False, pad_is_eos=True),
        "one-by-one": answer_one_by_one,
        "cuts-by-own-length": answering(own_length=True),
        "control-tokens": answering(skip=False),
        "cut-off": answering(new=3),
        "wrong-order": answer_in_order_of_length,
        "row-count": answer_first_row,
    },
    "02.q4": {
        "tool-role": rendering(results=_in_own_turns("tool", tagged=False)),
        "no-response-tags": rendering(results=_in_own_turns("user", tagged=False)),
        "turn-for-each-result": rendering(results=_in_own_turns("user")),
        "no-call-tags": rendering(write=lambda call: json.dumps(call["function"])),
        "python-dict": rendering(
            write=lambda call: f"<tool_call>\n{call['function']}\n</tool_call>"
        ),
        "arguments-as-text": rendering(write=_doubled),
        "wrapped-call": rendering(
            write=lambda call: f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
        ),
        "escapes-unicode": rendering(write=lambda call: _body(call, ensure_ascii=True)),
        "json-spacing": rendering(
            write=lambda call: _body(call, separators=(",", ":"))
        ),
        "think-block": rendering(end="<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        "not-opened": rendering(end=""),
        "no-last-new-line": rendering(end="<|im_start|>assistant"),
        "not-closed": rendering(
            turn=lambda role, text: f"<|im_start|>{role}\n{text}\n"
        ),
        "text-lost": rendering(text=False),
        "new-line-before-end": rendering(
            turn=lambda role, text: f"<|im_start|>{role}\n{text}\n<|im_end|>\n"
        ),
        "new-lines": rendering(
            write=lambda call: _body(call).replace(">\n", ">").replace("\n<", "<")
        ),
    },
    "02.q5": {
        "control-tokens": text_ids_bare,
        "only-special": text_ids_special_only,
        "short-list": text_ids_of_two,
        "removed-once": text_ids_removed_at_once,
        "text-lost": text_ids_removed_wholly,
        "text-changed": text_ids_escaped,
        "honest-changed": text_ids_all_letters,
        "no-ids": text_ids_as_text,
    },
    "02.q6": {
        "not-renormalized": choosing(scale=False),
        "drops-crossing": choosing(keep=below_or_first),
        "keeps-the-worst": choosing(
            keep=lambda p, top_p: p.flip(0).cumsum(-1).flip(0) - p < top_p
        ),
        "multiplies": choosing(heat=lambda logits, t: (logits * t).softmax(-1)),
        "temperature-after-softmax": choosing(
            heat=lambda logits, t: logits.softmax(-1) / t
        ),
        "no-temperature": choosing(heat=lambda logits, t: logits.softmax(-1)),
        "cuts-first": choices_cut_first,
        "threshold": choosing(keep=lambda p, top_p: p >= top_p),
        "threshold-of-rest": choosing(keep=lambda p, top_p: p >= 1 - top_p),
        "keeps-all": choosing(keep=lambda p, top_p: p >= 0),
        "ranks": choosing(ranks=True),
        "no-dict": lambda logits, temperature, top_p: (logits / temperature).softmax(
            -1
        ),
    },
    "02.q7": {
        "off-by-one": fitting(size=lambda *given: size(*given) + 1),
        "no-generation-prompt": fitting(size=lambda *given: size(*given) - 3),
        "counts-contents": fitting(size=_contents),
        "counts-characters": fitting(size=lambda *given: len(prompt_text(*given))),
        "counts-keys": lambda tokenizer, messages, budget: messages,
        "changes-input": fit_in_place,
        "drops-system": fitting(system=False),
        "drops-question": fit_from_the_front,
        "half-turn": fitting(role=None),
        "drops-too-much": fit_last_turn_only,
        "no-error": fitting(error=False),
    },
}
