"""What is right in the exercises of lesson 02.

Where a typical mistake has a result of its own, the judge makes the mistake too and
compares: so it can name it.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_02 as given
from qwen_course.exercises.probes import pocket
from qwen_course.exercises.question import Mistake, Question
from qwen_course.messages import Message

Outcomes = list[dict[str, Any]]
# From the name of a mistake to (the values that it gives, what to say).
Known = Mapping[str, tuple[list[Any], str]]


def _values(seen: Outcomes) -> list[Any]:
    return [outcome["value"] for outcome in seen]


def _known(values: list[Any], known: Known) -> Mistake | None:
    """Return the mistake that gives just these values, in every case."""
    for name, (wrong, text) in known.items():
        if values == wrong:
            return Mistake(name, text)
    return None


def _excerpt(value: Any, length: int = 60) -> str:
    """Show the beginning of a value."""
    if isinstance(value, str):
        return repr(value if len(value) <= length else f"{value[:length]} ...")
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[:length]} ..."


# q1: what the template adds


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the counts with those of the template's text."""
    cases = given.conversations(seed)
    wrong = mistakes.of_calls(seen, [f"overhead on {_of(*case)}" for case in cases])
    if wrong:
        return wrong
    values, expected = _values(seen), _overheads(seed)
    if values == expected:
        return None
    for case, value, right in zip(cases, values, expected, strict=True):
        if not mistakes.is_number(value):
            return Mistake(
                "no-number", f"You returned {_excerpt(value)}. Return one number."
            )
        if value != right:
            at = f"For {_of(*case)} you counted {value:g}, the template adds {right}. "
            break
    named = _known(values, _miscounts(seed))
    if named is None and values[:2] == expected[:2]:
        named = Mistake(
            "fixed-formula",
            "Your count holds for Qwen3 only. Qwen2.5's template writes a system "
            "message of its own if you give none. Render with the tokenizer you get.",
        )
    if named is None:
        named = Mistake("count", "Print the rendered text, and see what is no content.")
    return Mistake(named.name, at + named.text)


def _of(template: str, messages: list[Message]) -> str:
    generation = {"qwen3": "Qwen3", "qwen2_5": "Qwen2.5"}[template]
    messages_ = "1 message" if len(messages) == 1 else f"{len(messages)} messages"
    return f"{messages_} with the template of {generation}"


def _overheads(seed: int) -> list[int]:
    return [
        given.prompt_tokens(given.with_template(name), messages)
        - sum(_content_tokens(messages))
        for name, messages in given.conversations(seed)
    ]


def _content_tokens(messages: list[Message]) -> list[int]:
    tokenizer = pocket()[1]
    return [len(tokenizer(one["content"])["input_ids"]) for one in messages]


def _miscounts(seed: int) -> Known:
    """Return what typical mistakes count."""
    cases, right = given.conversations(seed), _overheads(seed)
    contents = [_content_tokens(messages) for _, messages in cases]
    whole = [n + sum(tokens) for n, tokens in zip(right, contents, strict=True)]
    texts = [
        given.with_template(name).apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        for name, messages in cases
    ]
    letters = [
        len(text) - sum(len(one["content"]) for one in messages)
        for text, (_, messages) in zip(texts, cases, strict=True)
    ]
    controls = [text.count("<|im_") for text in texts]
    keys = (
        "len(...) counted the keys of a dict: apply_chat_template returns input_ids "
        "and attention_mask. Count the list under input_ids."
    )
    return {
        "counts-keys": ([2 - sum(tokens) for tokens in contents], keys),
        "counts-keys-only": ([2] * len(cases), keys),
        "no-generation-prompt": (
            [n - 3 for n in right],
            "Three are missing: <|im_start|>, assistant and a new line open the "
            "model's turn. That is add_generation_prompt=True.",
        ),
        "whole-prompt": (whole, "That is the whole prompt. Subtract the contents."),
        "one-content": (
            [n - tokens[-1] for n, tokens in zip(whole, contents, strict=True)],
            "You subtracted one message only. All contents are the user's own text.",
        ),
        "characters": (letters, "You counted characters. A price is for tokens."),
        "control-tokens-only": (
            controls,
            "You counted the control tokens only. The names of the roles and the new "
            "lines are tokens as well, and the model reads them all.",
        ),
        "thinking-off": (
            [n + 4 * (name == "qwen3")
             for n, (name, _) in zip(right, cases, strict=True)],
            "You switched thinking off, which adds an empty think block of four "
            "tokens. Leave enable_thinking as it is.",
        ),
    }  # fmt: skip


# q2: the published quick start


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Find what is still broken in a quick start, the most visible thing first."""
    questions = given.asked(seed)
    failed = [outcome for outcome in seen if "max_length" in outcome["error"]]
    done = [pair for pair in zip(seen, questions, strict=True) if pair[0] not in failed]
    return mistakes.first(
        lambda: _took_a_dict(seen),
        lambda: mistakes.of_calls(
            [outcome for outcome, _ in done], [f'ask("{text}")' for _, text in done]
        ),
        lambda: mistakes.first(
            *(
                functools.partial(_not_only_the_answer, outcome["value"], question)
                for outcome, question in done
            )
        ),
        lambda: _too_short_a_limit() if failed else None,
        lambda: _sampled(_values(seen)[3:]),
        lambda: _other_answers([value.strip() for value in _values(seen)], questions),
    )


def _took_a_dict(seen: Outcomes) -> Mistake | None:
    # This error of transformers has no text: a BatchEncoding was taken for a tensor.
    if all(outcome["error"] != "AttributeError" for outcome in seen):
        return None
    return Mistake(
        "passes-dict",
        "What the tokenizer gives is a dict of input_ids and attention_mask, no "
        "tensor. Unpack it, generate(**inputs, ...), and take shape from "
        'inputs["input_ids"].',
    )


def _too_short_a_limit() -> Mistake:
    return Mistake(
        "max-length",
        "A long question fails: max_length counts the prompt too, and nothing was left "
        "for the answer. Limit what is new: max_new_tokens.",
    )


def _not_only_the_answer(value: Any, question: str) -> Mistake | None:
    """Find what stands in an answer and does not belong there."""
    shown = f'For "{_short(question)}" you returned {_excerpt(value)}. '
    if not isinstance(value, str):
        return Mistake("no-text", f"{shown}Decode the ids of one answer to one text.")
    if question in value:
        return Mistake(
            "prompt-in-answer",
            f"{shown}generate returns the prompt and the answer. Cut by token count, "
            "before decoding; a replace finds nothing once control tokens are gone.",
        )
    if "<|" in value:
        return Mistake(
            "control-tokens",
            f"{shown}The end of the turn was decoded with it. "
            "skip_special_tokens=True leaves such tokens out.",
        )
    return None


def _short(text: str) -> str:
    return text if len(text) < 40 else f"{text[:36]} ..."


def _sampled(repeated: list[str]) -> Mistake | None:
    if len(set(repeated)) == 1:
        return None
    return Mistake(
        "samples",
        f"The same question gave {' and '.join(map(repr, sorted(set(repeated))))}. The "
        "model's own settings sample. The task says greedy: do_sample=False.",
    )


def _other_answers(values: list[str], questions: list[str]) -> Mistake | None:
    """Compare with the right answers and with those of typical mistakes."""
    right = [_answer(_written(question)) for question in questions]
    if values == right:
        return None
    unopened = [
        _answer(_written(one, add_generation_prompt=False)) for one in questions
    ]
    named = _known(values, {
        "no-template": (
            [_answer(question) for question in questions],
            "You gave the model the bare question. It was trained on chats: messages "
            "that the chat template has written.",
        ),
        "no-generation-prompt": (
            unopened,
            "The assistant's turn was not opened, so the model had to guess whose turn "
            "it is. Add add_generation_prompt=True.",
        ),
    })  # fmt: skip
    if named:
        return named
    pairs = zip(values, right, questions, strict=True)
    return next(_other_answer(*one) for one in pairs if one[0] != one[1])


def _other_answer(value: str, right: str, question: str) -> Mistake:
    shown = f'For "{_short(question)}" you returned {_excerpt(value)}. '
    thought = _answer(_written(question, enable_thinking=True), new=256)
    if "<think>" in value:
        return Mistake(
            "thinking-in-answer",
            f"{shown}The model thinks, and decoding keeps <think>. Switch it off when "
            "the template is applied: enable_thinking=False.",
        )
    if value and right.startswith(value):
        return Mistake(
            "cut-off",
            f"{shown}The answer breaks off. max_length counts the prompt too; leave "
            "room with max_new_tokens=64.",
        )
    if value == thought.partition("</think>")[2].strip():
        return Mistake(
            "thinks",
            f"{shown}That is the answer after thinking, and the task says without: "
            "enable_thinking=False, when the template is applied.",
        )
    return Mistake(
        "other-answer",
        f"{shown}The model's greedy answer is another one. Print your prompt with all "
        "its tokens: does it look as in section 3?",
    )


def _written(question: str, **options: bool) -> str:
    """Return a question as the chat template writes it, thinking off."""
    switches = {"add_generation_prompt": True, "enable_thinking": False, **options}
    messages = [{"role": "user", "content": question}]
    tokenizer = pocket()[1]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **switches))


@functools.cache
def _answer(prompt: str, new: int = 64) -> str:
    """Return the model's greedy answer to a rendered prompt."""
    return _answers((prompt,), "left", masked=True, new=new)[0]


@functools.cache
def _answers(
    prompts: tuple[str, ...], side: str, masked: bool, new: int = 64
) -> list[str]:
    """Answer in one batch, padded on a side, its padding masked or not."""
    import torch

    model, tokenizer = pocket()
    inputs = tokenizer(
        list(prompts), padding=True, padding_side=side, return_tensors="pt"
    ).to(model.device)
    if not masked:  # and the end of a turn is taken for padding, as is often published
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        ids = inputs["input_ids"]
        inputs = {
            "input_ids": torch.where(ids == pad, end, ids),
            "attention_mask": torch.ones_like(ids),
        }
    output = model.generate(**inputs, max_new_tokens=new, **given.GREEDY)
    answers = output[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [text.strip() for text in texts]


# q3: a batch


def q3(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each row with the answer that its prompt gets alone."""
    prompts, outcome = given.prompts(seed), seen[0]
    wrong = mistakes.of_call(outcome, f"answer_batch on {len(prompts)} prompts")
    if wrong:
        return wrong
    values = outcome["value"]
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        return Mistake(
            "no-texts",
            f"You returned {_excerpt(values)}. Return a list of texts: "
            "tokenizer.batch_decode decodes all rows.",
        )
    if len(values) != len(prompts):
        return Mistake(
            "row-count",
            f"{len(prompts)} prompts gave {len(values)} answers. Keep every row of the "
            "output: output[:, ...], not output[0, ...].",
        )
    expected = [_answer(prompt) for prompt in prompts]
    stripped = [value.strip() for value in values]
    if stripped == expected:
        return _right_by_another_way(outcome["rows"], outcome["masked"])
    return _misread_rows(stripped, expected, prompts)


def _right_by_another_way(rows: int, masked: int) -> Mistake | None:
    """Look at how right answers came about."""
    if rows <= 1:
        return Mistake(
            "one-by-one",
            "All answers are right, but the model got one row at a time. A batch reads "
            "the weights once for all rows, and that is what makes it fast.",
        )
    if not masked:
        return Mistake(
            "no-mask",
            f"These {rows} answers are right by luck: no padding is masked, so the "
            f"model reads it as text. {_MASK}",
        )
    return None


_MASK = (
    "With pad_token = eos_token a missing attention_mask cannot be guessed. Keep "
    "Qwen's own pad token, and pass generate(**inputs)."
)


def _misread_rows(
    values: list[str], expected: list[str], prompts: list[str]
) -> Mistake:
    """Name what went wrong in a batch."""
    bad = sum(a != b for a, b in zip(values, expected, strict=True))
    said = f"{bad} of {len(values)} rows differ from the answers they get alone. "
    named = _known(values, _mispadded(tuple(prompts)))
    if named:
        return Mistake(named.name, said + named.text)
    if sorted(values) == sorted(expected):
        return Mistake(
            "wrong-order",
            "The answers are right, in another order than the prompts. If you sort "
            "rows by length, sort the answers back.",
        )
    pairs = zip(values, expected, strict=True)
    return next(_misread_row(*pair, said) for pair in pairs if pair[0] != pair[1])


def _mispadded(prompts: tuple[str, ...]) -> Known:
    """Return the answers of wrongly padded batches."""
    return {
        "pads-right": (
            _answers(prompts, "right", masked=True),
            "You pad on the right: between a short prompt and its answer then stand "
            "padding tokens. Generation goes on at the right end, so fill up on the "
            "left.",
        ),
        "pads-right-no-mask": (
            _answers(prompts, "right", masked=False),
            "You pad on the right, and the model reads the padding as text. Fill up on "
            "the left, keep Qwen's own pad token, and pass the attention_mask.",
        ),
        "no-mask": (
            _answers(prompts, "left", masked=False),
            f"The side is right, but the model reads the padding as text. {_MASK}",
        ),
    }


def _misread_row(value: str, right: str, said: str) -> Mistake:
    shown = f"A row is {_excerpt(value)}"
    if "<|" in value:
        return Mistake(
            "control-tokens",
            f"{shown}. Rows that end early are filled up with padding tokens; "
            "skip_special_tokens=True leaves them out.",
        )
    if value.endswith(f"\n{right}"):
        return Mistake(
            "cuts-by-own-length",
            f"{shown}: a piece of the prompt stands in front. On the left every row is "
            "filled up to the same width, so every answer begins there, at "
            "input_ids.shape[1].",
        )
    if right.startswith(value):
        return Mistake(
            "cut-off",
            f"{shown}; alone, this prompt gets a longer answer. The longest row "
            "decides when to stop: max_new_tokens=64.",
        )
    return Mistake(
        "other-answers",
        f"{said}Does each prompt reach the model as it was given, filled up on the "
        "left?",
    )


# q4: a tool call by hand


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the texts with the template's."""
    talks = given.tool_talks(seed)
    for talk, outcome in zip(talks, seen, strict=True):
        roles = " ".join(message["role"] for message in talk)
        wrong = mistakes.of_call(outcome, f"render on the roles {roles}")
        if wrong:
            return wrong
        value, expected = outcome["value"], _rendered(talk)
        if value == expected:
            continue
        if not isinstance(value, str):
            return Mistake(
                "no-text", f"You returned {_excerpt(value)}. Return one text."
            )
        named = next(_slips(value, expected, talk), None) or Mistake(
            "differs", "Compare the two places."
        )
        return Mistake(
            named.name, f"{named.text} (Roles: {roles}. {_difference(value, expected)})"
        )
    return None


def _rendered(talk: list[Message]) -> str:
    return str(pocket()[1].apply_chat_template(
        talk, tokenize=False, add_generation_prompt=True
    ))  # fmt: skip


def _difference(value: str, expected: str) -> str:
    """Show the first place where two texts differ."""
    pairs = enumerate(zip(value, expected, strict=False))
    at = next((n for n, (a, b) in pairs if a != b), min(len(value), len(expected)))
    ours, theirs = (text[max(at - 12, 0) : at + 18] for text in (value, expected))
    return f"You wrote {ours!r}, the template {theirs!r}."


def _slips(value: str, expected: str, talk: list[Message]) -> Iterator[Mistake]:
    """Yield the mistakes that a text shows, the gravest first."""

    def more(text: str) -> bool:
        return value.count(text) > expected.count(text)

    def fewer(text: str) -> bool:
        return value.count(text) < expected.count(text)

    def same_without(text: str) -> bool:
        return value.replace(text, "") == expected.replace(text, "")

    opened = "<|im_start|>assistant\n"
    texts = [one["content"] for one in talk if one["content"]]
    rules = [
        ("tool-role", "<|im_start|>tool" in value,
         "Qwen3 has no turn for tools. A result stands in a user turn, between "
         "<tool_response> tags."),
        ("no-call-tags", fewer("<tool_call>") or fewer("</tool_call>"),
         "A call stands between <tool_call> and </tool_call>: by these tokens a "
         "program finds it. There is one pair for each call."),
        ("no-response-tags", fewer("<tool_response>") or fewer("</tool_response>"),
         "Each result stands between <tool_response> and </tool_response>. Without "
         "them it reads as if the user had typed it."),
        ("turn-for-each-result", more("<|im_start|>user"),
         "Results in a row share one user turn: it opens before the first and closes "
         "after the last."),
        ("python-dict", "{'" in value,
         "A dict printed by Python has single quotes, and True for true. That is no "
         "JSON: json.dumps writes it."),
        ("arguments-as-text", '"arguments": "' in value,
         "The arguments are an object here, and you wrote a text of it, quotes and "
         "all. Dump name and arguments once, not twice."),
        ("wrapped-call", more('"type": "function"') or more('"function":'),
         "The wrapper with type and function belongs to the message. The model "
         "writes name and arguments only."),
        ("escapes-unicode", re.search(r"\\u[0-9a-f]{4}", value),
         "json.dumps turned letters such as ü into \\u00fc: other tokens than the "
         "model knows. ensure_ascii=False keeps them."),
        ("json-spacing", same_without(" "),
         "The JSON has other spaces than json.dumps writes: one after each colon and "
         "each comma. They are tokens, too."),
        ("think-block", "<think>" in value,
         "No think block belongs here: thinking of earlier turns is dropped, and the "
         "model opens its own block."),
        ("not-opened", value.rstrip("\n") == expected.removesuffix(opened).rstrip("\n"),
         "The model's turn is not opened: the prompt ends with "
         "<|im_start|>assistant and a new line."),
        ("no-last-new-line", value == expected[:-1],
         "The new line after the last assistant is missing. The model would have to "
         "write it first."),
        ("not-closed", fewer("<|im_end|>"),
         "A turn is not closed. Every turn but the last ends with <|im_end|> and a "
         "new line."),
        ("text-lost", any(text not in value for text in texts),
         "The text of a message is missing. A call can have text in front of it."),
        ("new-line-before-end", more("\n<|im_end|>"),
         "There is a new line before <|im_end|>. The content is closed at once; the "
         "new line comes behind."),
        ("new-lines", same_without("\n"),
         "Only new lines differ. One stands after the role, one after <|im_end|>, and "
         "one between a tag and what it holds or follows."),
    ]  # fmt: skip
    for name, found, text in rules:
        if found:
            yield Mistake(name, text)


# q5: control tokens in a user's text


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Look for control tokens among the ids, and for the text that they spell."""
    tokenizer = pocket()[1]
    texts = given.honest(seed) + given.attacks(seed)
    control = {id: token for token, id in tokenizer.get_added_vocab().items()}
    wrong = mistakes.of_calls(seen, [f"text_ids({_excerpt(text)})" for text in texts])
    if wrong:
        return wrong
    values = _values(seen)
    for value in values:
        if not _are_ids(value, len(tokenizer)):
            return Mistake(
                "no-ids",
                f"You returned {_excerpt(value)}. Return the list of token ids.",
            )
    found = [[control[id] for id in ids if id in control] for ids in values]
    return mistakes.first(
        lambda: _let_through(found, texts, tokenizer),
        lambda: _altered(values, texts, tokenizer),
        lambda: _cut_otherwise(values, given.honest(seed), tokenizer),
    )


def _are_ids(value: Any, size: int) -> bool:
    return isinstance(value, list) and all(
        type(id) is int and 0 <= id < size for id in value
    )


def _let_through(
    found: list[list[str]], texts: list[str], tokenizer: Any
) -> Mistake | None:
    """Name the gap through which control tokens came."""
    through = {token for tokens in found for token in tokens}
    if not through:
        return None
    first = next(n for n, tokens in enumerate(found) if tokens)
    told = f"{_excerpt(texts[first])} still holds {found[first][0]} as one token: "
    special = set(tokenizer.all_special_tokens)
    every = set(tokenizer.get_added_vocab())
    if through == every:
        return Mistake(
            "control-tokens",
            f"{told}the user ends the turn, and opens another. The tokenizer turns "
            "every such string into its token, wherever it stands.",
        )
    if not through & special:
        return Mistake(
            "only-special",
            f"{told}<think> or <tool_call> are added tokens, but not special, and "
            "split_special_tokens=True leaves those alone. get_added_vocab() has all.",
        )
    if first == len(texts) - 1:
        return Mistake(
            "removed-once",
            f"{told}what you took out was in the middle of another, and the two halves "
            "met. Cut the text into pieces instead of deleting.",
        )
    return Mistake(
        "short-list",
        f"{told}your list of control tokens is too short. Do not write it by hand: "
        f"tokenizer.get_added_vocab() has all {len(every)}.",
    )


def _altered(values: list[Any], texts: list[str], tokenizer: Any) -> Mistake | None:
    for ids, text in zip(values, texts, strict=True):
        read = tokenizer.decode(ids)
        if read == text:
            continue
        shown = f"{_excerpt(text)} became {_excerpt(read)}. "
        if len(read) < len(text):
            return Mistake(
                "text-lost",
                f"{shown}A part of the text is gone. Whoever asks what <|im_end|> "
                "means deserves an answer, so keep every character.",
            )
        return Mistake(
            "text-changed",
            f"{shown}The text was changed, and so was the question. Escaping is for "
            "web pages; here only the way it is cut into tokens must change.",
        )
    return None


def _cut_otherwise(
    values: list[Any], honest: list[str], tokenizer: Any
) -> Mistake | None:
    for ids, text in zip(values, honest, strict=False):
        usual = tokenizer(text)["input_ids"]
        if ids != usual:
            return Mistake(
                "honest-changed",
                f"{_excerpt(text)} holds no control token, and has {len(ids)} tokens "
                f"instead of {len(usual)}. The model knows words, not their letters: "
                "cut only inside control tokens.",
            )
    return None


# q6: temperature and top_p


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the kept tokens and their probabilities."""
    cases = given.settings(seed)
    shown = [f"choices(logits, {heat}, {top_p})" for _, heat, top_p in cases]
    wrong = mistakes.of_calls(seen, shown)
    if wrong:
        return wrong
    choices = []
    for value, text in zip(_values(seen), shown, strict=True):
        if not isinstance(value, dict) or not all(map(_number_in, value)):
            return Mistake(
                "no-dict",
                f"{text} gave {_excerpt(value)}. Return a dict from token id to "
                "probability.",
            )
        choices.append({_number_in(key): one for key, one in value.items()})
    right = [_choices(case) for case in cases]
    wrong_at = [n for n, pair in enumerate(zip(choices, right, strict=True))
                if not _alike(*pair)]  # fmt: skip
    if not wrong_at:
        return None
    number = wrong_at[0]
    told = f"{shown[number]}: you keep {len(choices[number])} tokens with "
    told += f"{_total(choices[number]):.3f} in all. "
    for name, (ways, text) in _MISCHOSEN.items():
        for options in ways:
            made = [_choices(case, **options) for case in cases]
            if all(map(_alike, choices, made)):
                return Mistake(name, told + text)
    return Mistake(
        "choices",
        f"{told}There are {len(right[number])}, with 1 in all. Work in this order: "
        "divide, softmax, sort, cut, divide by the sum.",
    )


def _number_in(key: str) -> str:
    """Return the id in a key; it may be the text of a tensor."""
    found = re.fullmatch(r"(?:tensor\()?(\d+)\)?", key)
    return found[1] if found else ""


def _total(choices: dict[str, Any]) -> float:
    return math.fsum(one for one in choices.values() if mistakes.is_number(one))


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        mistakes.is_number(p) and math.isclose(p, other[id], rel_tol=1e-3, abs_tol=1e-6)
        for id, p in one.items()
    )


def _choices(
    case: tuple[str, float, float],
    heat: str = "divide",
    cut: str = "reach",
    scale: bool = True,
    ranks: bool = False,
) -> dict[str, float]:
    """Return the kept tokens; the options make typical mistakes."""
    question, temperature, top_p = case
    logits = given.second_logits(question).double()
    plain = logits.softmax(-1)
    p = {
        "divide": lambda: (logits / temperature).softmax(-1),
        "multiply": lambda: (logits * temperature).softmax(-1),
        "after": lambda: plain / temperature,
        "none": lambda: plain,
        "late": lambda: (logits / temperature).softmax(-1),
    }[heat]()
    decides = plain if heat == "late" else p
    ordered, ids = decides.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    keep = {
        "reach": lambda: before < top_p,
        "below": lambda: before + ordered <= top_p,
        "below or first": lambda: (before + ordered <= top_p) | (before == 0),
        "worst": lambda: 1 - before - ordered < top_p,
        "each": lambda: ordered >= top_p,
        "tail": lambda: ordered >= 1 - top_p,
        "all": lambda: before >= 0,
    }[cut]()
    kept = ids[keep]
    shares = p[kept] / p[kept].sum() if scale else p[kept]
    names = range(len(kept)) if ranks else kept.tolist()
    return {str(n): share for n, share in zip(names, shares.tolist(), strict=True)}


_MISCHOSEN: dict[str, tuple[list[dict[str, Any]], str]] = {
    "not-renormalized": (
        [{"scale": False}],
        "The right tokens, but what was cut off is missing: divide the rest by its "
        "sum, so that it is 1 again.",
    ),
    "drops-crossing": (
        [
            {"cut": "below"},
            {"cut": "below", "scale": False},
            {"cut": "below or first"},
        ],
        "You leave out the token that crosses top_p. It belongs to the set: the kept "
        "ones must add up to at least top_p.",
    ),
    "multiplies": (
        [{"heat": "multiply"}],
        "You multiply by the temperature, so a high one sharpens the choice. Divide "
        "the logits by it.",
    ),
    "temperature-after-softmax": (
        [{"heat": "after"}, {"heat": "after", "scale": False}],
        "You divide probabilities by the temperature, which the last division undoes. "
        "It works on logits, before softmax.",
    ),
    "no-temperature": ([{"heat": "none"}], "Your temperature changes nothing."),
    "cuts-first": (
        [{"heat": "late"}],
        "You cut with the probabilities at temperature 1, and apply the temperature "
        "afterwards. generate does it the other way round.",
    ),
    "threshold": (
        [{"cut": "each"}],
        "You ask every token alone whether it reaches top_p. It is the sum of the best "
        "ones that must reach it.",
    ),
    "threshold-of-rest": (
        [{"cut": "tail"}],
        "You ask every token alone whether it reaches 1 - top_p. It is the sum of the "
        "best ones that counts.",
    ),
    "keeps-all": ([{"cut": "all"}], "You keep every token: top_p cuts nothing off."),
    "keeps-the-worst": (
        [{"cut": "worst"}],
        "You add up from the least likely token. Sort with descending=True, so that "
        "the best come first.",
    ),
    "ranks": (
        [{"ranks": True}],
        "Your keys are places in the sorted list. The ids come from sort as well, as "
        "its second result.",
    ),
}  # fmt: skip


# q7: a conversation that fits


def q7(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what is kept of each conversation; a ValueError keeps nothing."""
    cases = given.histories(seed)
    shown = [f"fit on {len(talk)} messages, budget {budget}" for talk, budget in cases]
    right = [_fitting(*case) for case in cases]
    for outcome, text, expected in zip(seen, shown, right, strict=True):
        wrong = mistakes.of_call(outcome, text)
        if wrong and not _refused(outcome) and not (
            expected is None and wrong.name == "returns-none"
        ):  # fmt: skip
            return wrong
    named = _known(_values(seen), {
        name: ([_fitting(*case, size) for case in cases], text)
        for name, (size, text) in _MISMEASURED.items()
    })  # fmt: skip
    if named:
        return named
    for case, outcome, text, expected in zip(cases, seen, shown, right, strict=True):
        wrong = _unfit(outcome, *case, expected)
        if wrong:
            return Mistake(wrong.name, f"{text}: {wrong.text}")
    return None


def _refused(outcome: dict[str, Any]) -> bool:
    return outcome["error"].startswith("ValueError")


def _size(talk: list[Message]) -> int:
    return given.prompt_tokens(pocket()[1], talk)


def _fitting(
    talk: list[Message], budget: int, size: Callable[[list[Message]], int] = _size
) -> list[Message] | None:
    """Return the conversation without its oldest turns, or None if nothing fits."""
    head = talk[:1] if talk[0]["role"] == "system" else []
    for start, message in enumerate(talk):
        if message["role"] == "user" and size(head + talk[start:]) <= budget:
            return head + talk[start:]
    return None


_MISMEASURED: dict[str, tuple[Callable[[list[Message]], int], str]] = {
    "off-by-one": (
        lambda talk: _size(talk) + 1,
        "A prompt of exactly the budget is not too long: ask for at most, not less.",
    ),
    "no-generation-prompt": (
        lambda talk: _size(talk) - 3,
        "Some of your prompts are up to three tokens too long. The model's own turn "
        "has to be opened as well: add_generation_prompt=True.",
    ),
    "counts-contents": (
        lambda talk: sum(_content_tokens(talk)),
        "You count the tokens of the contents. The template adds five for every "
        "message, and more for a tool call: measure what it writes.",
    ),
    "counts-characters": (
        lambda talk: len(_rendered(talk)),
        "You count characters, so you drop turns that would fit. Budgets are in "
        "tokens: tokenize what the template writes.",
    ),
    "counts-keys": (
        lambda talk: 2,
        "You never drop a turn. Did you take len of a dict? apply_chat_template "
        "returns one; the list to count is under input_ids.",
    ),
}


def _unfit(
    outcome: dict[str, Any],
    talk: list[Message],
    budget: int,
    expected: list[Message] | None,
) -> Mistake | None:
    """Name what is wrong with a shortened conversation, or return None."""
    value = outcome["value"]
    if expected is None:
        return None if _refused(outcome) else Mistake(
            "no-error",
            f"the last turn alone is longer, and you returned {_excerpt(value)}. Raise "
            "a ValueError: what is cut off in silence is found by a user.",
        )  # fmt: skip
    if _refused(outcome):
        return Mistake(
            "refuses",
            f"you raised {outcome['error']}, but {len(expected)} messages fit.",
        )
    if value == expected:
        return None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return Mistake(
            "no-messages", f"you returned {_excerpt(value)}. Return a list of messages."
        )
    return mistakes.first(
        lambda: _torn(value, talk),
        lambda: _badly_sized(_size(value), _size(expected), budget),
    )


def _torn(value: list[Message], talk: list[Message]) -> Mistake | None:
    """Name what makes the kept messages no conversation."""
    if any(one not in talk for one in value):
        return Mistake("rewrites", "a message is not as it was. Keep it or drop it.")
    if talk[0]["role"] == "system" and talk[0] not in value:
        return Mistake(
            "drops-system",
            "the system message is gone, and with it the rules of every answer. It is "
            "the oldest message, and the one that must stay.",
        )
    if talk[-1] not in value:
        return Mistake(
            "drops-question",
            "the last question is gone. Drop from the front: what was said first "
            "matters least.",
        )
    places = [talk.index(one) for one in value if one["role"] != "system"]
    if places != list(range(places[0], len(talk))):
        return Mistake(
            "gap",
            f"you kept the messages {places}. What stays must be one piece up to the "
            "end, or answers stand below questions that they do not belong to.",
        )
    if talk[places[0]]["role"] != "user":
        return Mistake(
            "half-turn",
            f"what is left begins with the role {talk[places[0]]['role']}. An answer "
            "without its question, or a result without its call, misleads the model: "
            "drop whole turns.",
        )
    return None


def _badly_sized(size: int, right: int, budget: int) -> Mistake:
    if size > budget:
        return Mistake(
            "too-long",
            f"you kept {size} tokens. What counts is the whole prompt, as the template "
            "writes it.",
        )
    return Mistake(
        "drops-too-much",
        f"you kept {size} tokens, and {right} would fit. Drop one turn, measure, and "
        "go on only if it is still too long.",
    )


_TEMPLATE = (
    "2. Messages become one text",
    "02_chat.ipynb#2.-Messages-become-one-text",
)

QUESTIONS = (
    Question(
        id="02.q1",
        title="What the template adds",
        outcome=1,
        difficulty="warm-up",
        minutes=8,
        judge=q1,
        hints=(
            "Count twice: the whole prompt, and the contents. What is left was added.",
            "apply_chat_template(messages, tokenize=False, add_generation_prompt=True) "
            'gives a text; tokenizer(text)["input_ids"] gives its ids. Subtract the '
            "ids of every content.",
        ),
        look=_TEMPLATE,
        why="Every call pays for these tokens, in every turn again, and Qwen2.5 also "
        "for a system message that you never wrote.",
    ),
    Question(
        id="02.q2",
        title="Repair the published quick start",
        outcome=3,
        difficulty="core",
        minutes=15,
        judge=q2,
        hints=(
            "Print what the model is given and what it gives back, both decoded with "
            "all their tokens. Compare with section 3 of the lesson.",
            "Five things: messages through the template (with its two switches), "
            "**inputs, max_new_tokens, do_sample=False, and only the ids after the "
            "prompt are decoded.",
        ),
        look=("3. The model writes", "02_chat.ipynb#3.-The-model-writes"),
        why="Each of these slips gives some text and no error, so it is taken for a "
        "weak model.",
    ),
    Question(
        id="02.q3",
        title="Make the batch right",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q3,
        hints=(
            "Print the attention_mask of a batch. Where does generate go on writing, "
            "and what stands just before that place?",
            'tokenizer(..., padding=True, padding_side="left") makes ids and mask. '
            "generate needs both, and no other pad token than Qwen's own.",
        ),
        look=("9. Written by hand, and what that costs",
              "02_chat.ipynb#9.-Written-by-hand,-and-what-that-costs"),
        why="A batch that is padded wrongly answers the longest prompt well and the "
        "others badly, so a quick look at one row finds nothing.",
    ),
    Question(
        id="02.q4",
        title="A tool call by hand",
        outcome=3,
        difficulty="core",
        minutes=20,
        judge=q4,
        hints=(
            "Begin with plain turns: <|im_start|>, role, new line, content, "
            "<|im_end|>, new line. Then let tokenizer.apply_chat_template show you a "
            "call and two results in a row.",
            "Calls are blocks of three lines, joined with new lines to the text "
            "before them. Results in a row are gathered until another role comes, "
            "then written as one user turn.",
        ),
        look=("11. Tools: let the model use a calculator",
              "02_chat.ipynb#11.-Tools:-let-the-model-use-a-calculator"),
        why="Whoever can write the format by hand can read a log, and sees at once "
        "why a model ignores a result.",
    ),
    Question(
        id="02.q5",
        title="Stop a forged turn",
        outcome=3,
        difficulty="core",
        minutes=15,
        judge=q5,
        hints=(
            "A tokenizer finds a control token only if its whole string stands in one "
            "piece of text. You may give it several pieces.",
            "Find every string of tokenizer.get_added_vocab() in the text, end a piece "
            "after its first character, and put the ids of all pieces together.",
        ),
        look=("What users type stays text", "02_chat.ipynb#What-users-type-stays-text"),
        why="A filter of words changes what users say; tokens decide what the model "
        "takes for the structure of the chat.",
    ),
    Question(
        id="02.q6",
        title="Temperature and top_p by hand",
        outcome=3,
        difficulty="core",
        minutes=15,
        judge=q6,
        hints=(
            "The order matters: temperature, softmax, sort, cut, and a last division. "
            "Try it with three logits on paper.",
            "A token is kept if the sum of the better ones before it is still below "
            "top_p. sort(descending=True) returns values and ids, cumsum adds up.",
        ),
        look=("5. Sampling: how the next token is chosen",
              "02_chat.ipynb#5.-Sampling:-how-the-next-token-is-chosen"),
        why="The two numbers of a model card now have a meaning: a sure model keeps "
        "one token, an unsure one many, at the same top_p.",
    ),
    Question(
        id="02.q7",
        title="A conversation that fits",
        outcome=5,
        difficulty="stretch",
        minutes=20,
        judge=q7,
        hints=(
            "Write one function that measures a list of messages in tokens. Then try "
            "the conversation from its first user message on, from the second, ...",
            "head = the system message, if there is one; for each place where a user "
            "message stands, measure head + messages[place:] and return the first that "
            "is not over the budget.",
        ),
        look=("6. A conversation", "02_chat.ipynb#6.-A-conversation"),
        why="A context that is full costs the most and fails in the middle of a "
        "talk. What to forget is your decision, not the server's.",
    ),
)  # fmt: skip
