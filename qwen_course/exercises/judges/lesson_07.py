"""What is right in the exercises of lesson 07."""

import functools
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from qwen_course import training_memory
from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_07 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import (
    Outcomes,
    Way,
    compared,
    compared_half,
    short,
)

IGNORE = -100


def _is_two(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _no_two(seen: Outcomes, shown: Sequence[str], what: str) -> Mistake | None:
    """Return the mistake of a value that is no pair of lists."""
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        if not _is_two(value) or not all(isinstance(part, list) for part in value):
            return Mistake("no-pair", f"{text} gave {short(value)}. Return {what}.")
    return None


def _equal(value: Any, expected: Any) -> bool:
    return bool(value == expected)


# Question 1

Ids = list[int]


def padded(ids: Ids, fill: int, length: int) -> Ids:
    """Return ids filled up on the right."""
    return ids + [fill] * (length - len(ids))


def row_of(
    prompt: Ids, answer: Ids, end: int, pad: int, length: int
) -> tuple[Ids, Ids]:
    """Return the ids of a row, and their labels."""
    labels = [IGNORE] * len(prompt) + answer + [end]
    return padded([*prompt, *answer, end], pad, length), padded(labels, IGNORE, length)


def _ids(*row: Any) -> Ids:
    return row_of(*row)[0]


def _labels(*row: Any) -> Ids:
    return row_of(*row)[1]


NO_END = (
    "No row holds the end token. The model writes it after an answer only if it has "
    "learnt to: put it behind every answer."
)
IDS = (
    Way("no-end", lambda prompt, answer, end, pad, length: padded(
            prompt + answer, pad, length), NO_END),
    Way("no-end", lambda prompt, answer, end, pad, length: prompt + answer, NO_END),
    Way("no-padding", lambda prompt, answer, end, pad, length:
        [*prompt, *answer, end],
        "The rows of a batch must have one length: fill up with `pad`."),
    Way("pads-left", lambda prompt, answer, end, pad, length:
        [pad] * (length - len(prompt) - len(answer) - 1) + [*prompt, *answer, end],
        "You filled up on the left. That is for generation, where the text goes on at "
        "its right end; here a row is filled up on the right."),
    Way("pads-with-end", lambda prompt, answer, end, pad, length: padded(
            [*prompt, *answer, end], end, length),
        "You filled up with the end token. Qwen has a token of its own for it: `pad`."),
    Way("end-after-the-padding", lambda prompt, answer, end, pad, length:
        [*padded(prompt + answer, pad, length - 1), end],
        "The end token stands behind the padding. It ends the answer: it comes right "
        "after it."),
    Way("too-long", lambda prompt, answer, end, pad, length: padded(
            [*prompt, *answer, end], pad, length + 1),
        "The row is too long by one: the end token counts too."),
    Way("answer-alone", lambda prompt, answer, end, pad, length: padded(
            [*answer, end], pad, length),
        "The prompt is missing. It is not learnt, but the model has to read it."),
)  # fmt: skip
LABELS = (
    Way("learns-the-prompt", lambda prompt, answer, end, pad, length: padded(
            [*prompt, *answer, end], IGNORE, length),
        "The labels keep the prompt: the model is trained to write the question too."),
    Way("learns-all", lambda *row: _ids(*row),
        "The labels are the ids. Then the question is learnt, and the padding as well: "
        "most of the loss is about what the model never has to write."),
    Way("masks-by-id", lambda prompt, answer, end, pad, length: [
            IGNORE if label == pad else label
            for label in _labels(prompt, answer, end, pad, length)],
        "Here `pad` is the end token, and you hid every token that equals `pad`: the "
        "end is not learnt any more. Hide by place, not by id."),
    Way("masks-by-id", lambda prompt, answer, end, pad, length: [
            IGNORE if label == pad else label for label in padded(
                [*prompt, *answer, end], IGNORE, length)],
        "You hid what equals `pad`, and nothing else. The prompt is learnt, and the "
        "end is not where it is the pad token. Hide by place, not by id."),
    Way("end-not-learnt", lambda prompt, answer, end, pad, length: padded(
            [IGNORE] * len(prompt) + answer, IGNORE, length),
        "The end token is hidden. A model that is not trained on it never stops."),
    Way("end-not-learnt", lambda prompt, answer, end, pad, length: [
            IGNORE if label == end else label
            for label in _labels(prompt, answer, end, pad, length)],
        "The end token is hidden. A model that is not trained on it never stops."),
    Way("learns-padding", lambda prompt, answer, end, pad, length: padded(
            [IGNORE] * len(prompt) + [*answer, end], pad, length),
        "The padding is learnt. It only fills up: its label is -100."),
    Way("shifted", lambda *row: [*_labels(*row)[1:], IGNORE],
        "The labels are shifted by one. transformers shifts them itself: the label of "
        "a place is the token *at* this place."),
    Way("shifted", lambda *row: [IGNORE, *_labels(*row)[:-1]],
        "The labels are shifted by one. transformers shifts them itself: the label of "
        "a place is the token *at* this place."),
    *(Way("other-number", lambda prompt, answer, end, pad, length, hide=hide: padded(
          [hide] * len(prompt) + [*answer, end], hide, length),
          f"You hid with {hide}, which is a token as any other. What PyTorch leaves "
          "out of the loss is -100.") for hide in (0, -1, 1)),
    Way("other-number", lambda prompt, answer, end, pad, length: padded(
            [pad] * len(prompt) + [*answer, end], pad, length),
        "You hid with `pad`, which is a token as any other. What PyTorch leaves out of "
        "the loss is -100."),
    Way("inverted", lambda prompt, answer, end, pad, length: padded(
            prompt + [IGNORE] * (len(answer) + 1), IGNORE, length),
        "It is the other way round: the prompt is learnt, and the answer is hidden."),
    Way("attention-mask", lambda prompt, answer, end, pad, length: padded(
            [1] * (len(prompt) + len(answer) + 1), 0, length),
        "That is an attention mask: what is read. Labels say what is learnt."),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare ids and labels of each row."""
    cases = probe.rows(seed)
    shown = [f"row({short(one.prompt, 12)}, {short(one.answer)}, {one.end}, "
             f"{one.pad}, {one.length})" for one in cases]  # fmt: skip
    right = [row_of(*case) for case in cases]
    one = "Prompt, answer, end token, then padding up to `length`."
    two = "As long as the ids: -100 for the prompt and the padding, else the id itself."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_two(seen, shown, "two lists: the ids, and the labels"),
        lambda: compared_half(0, cases, seen, shown, right, IDS, one, _equal),
        lambda: compared_half(1, cases, seen, shown, right, LABELS, two, _equal),
    )


# Question 2

Matrix = list[list[float]]


def product(left: Matrix, right: Matrix) -> Matrix:
    """Return the product of two matrices."""
    columns = list(zip(*right, strict=True))
    return [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in columns]
        for row in left
    ]


def turned(matrix: Matrix) -> Matrix:
    """Return a matrix with rows and columns exchanged."""
    return [list(column) for column in zip(*matrix, strict=True)]


def summed(left: Matrix, right: Matrix, factor: float = 1.0) -> Matrix:
    """Return the sum of two matrices, the second times a factor."""
    return [
        [a + factor * b for a, b in zip(one, two, strict=True)]
        for one, two in zip(left, right, strict=True)
    ]


def merged(layer: probe.Layer, scale: float | None = None, own: float = 1.0) -> Matrix:
    """Return W with the adapter added; changes make mistakes."""
    scale = layer.alpha / len(layer.a) if scale is None else scale
    weight = [[own * number for number in row] for row in layer.weight]
    return summed(weight, product(layer.b, layer.a), scale)


def output(layer: probe.Layer, scale: float | None = None, own: float = 1.0) -> Matrix:
    """Return what a layer gives with its adapter; changes make mistakes."""
    return product(layer.x, turned(merged(layer, scale, own)))


def _scaled_whole(layer: probe.Layer) -> Matrix:
    """Return the weight when the scale is taken of the frozen part too."""
    scale = layer.alpha / len(layer.a)
    return merged(layer, scale, scale)


SCALES: tuple[tuple[str, Callable[[probe.Layer], float], str], ...] = (
    ("no-scale", lambda layer: 1.0,
     "The scale is missing: the change counts alpha / rank times."),
    ("alpha-alone", lambda layer: layer.alpha,
     "You scaled by alpha. It is alpha / rank: so another rank needs no other learning "
     "rate."),
    ("one-over-rank", lambda layer: 1 / len(layer.a),
     "You scaled by 1 / rank. It is alpha / rank."),
    ("rank-over-alpha", lambda layer: len(layer.a) / layer.alpha,
     "The scale is upside down: alpha / rank."),
    ("root-of-rank", lambda layer: layer.alpha / math.sqrt(len(layer.a)),
     "That is the scale of rsLoRA. Plain LoRA takes alpha / rank."),
    ("rank-of-the-wrong-side", lambda layer: layer.alpha / len(layer.a[0]),
     "You divided by the number of inputs. The rank is the narrow side: the rows of A, "
     "the columns of B."),
    ("rank-of-the-wrong-side", lambda layer: layer.alpha / len(layer.b),
     "You divided by the number of outputs. The rank is the narrow side: the rows of "
     "A, the columns of B."),
    ("frozen-alone", lambda layer: 0.0,
     "The adapter changes nothing. Its part is x through A, then through B."),
)  # fmt: skip
OUTPUTS = (
    *(Way(name, lambda layer, scale=scale: output(layer, scale(layer)), text)
      for name, scale, text in SCALES),
    Way("forgets-the-layer", lambda layer: output(layer, own=0.0),
        "The frozen layer is missing. LoRA adds to what it gives."),
    Way("scales-the-layer", lambda layer: product(
            layer.x, turned(_scaled_whole(layer))),
        "You scaled the whole sum. The frozen layer counts once; only the change is "
        "scaled."),
)  # fmt: skip
WEIGHTS = (
    *(Way(name, lambda layer, scale=scale: merged(layer, scale(layer)), text)
      for name, scale, text in SCALES),
    Way("change-alone", lambda layer: merged(layer, own=0.0),
        "That is the change alone. Merged is W with it."),
    Way("scales-the-layer", _scaled_whole,
        "You scaled the whole sum. W counts once; only the change is scaled."),
    Way("turned", lambda layer: turned(merged(layer)),
        "Rows and columns are exchanged. A weight of PyTorch is (outputs, inputs), as "
        "W is: the change is B @ A."),
    Way("added-twice", lambda layer: merged(
            layer, 2 * layer.alpha / len(layer.a)),
        "The change is in it twice. Did you add it to W for the output already?"),
)  # fmt: skip


def _is_matrix(value: Any, height: int, width: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == height
        and all(
            isinstance(row, list)
            and len(row) == width
            and all(map(mistakes.is_number, row))
            for row in value
        )
    )


def _rounded(value: Any) -> Any:
    """Return a number, or nested lists of them, with three places."""
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 3) if isinstance(value, float) else value


def _short(seen: Outcomes) -> Outcomes:
    return [{"value": _rounded(outcome["value"])} for outcome in seen]


def _near(value: Any, expected: Matrix) -> bool:
    return _is_matrix(value, len(expected), len(expected[0])) and all(
        abs(a - b) < 0.002 * (1 + abs(b))
        for one, two in zip(value, expected, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the output and the merged weight of each layer."""
    layers = probe.layers(seed)
    cases = [(layer,) for layer in layers]
    shown = [
        f"With {len(one.x)} tokens, {len(one.weight[0])} inputs, {len(one.weight)} "
        f"outputs, rank {len(one.a)}, alpha {one.alpha:g}: adapted"
        for one in layers
    ]
    right = [(_rounded(output(layer)), _rounded(merged(layer))) for layer in layers]
    one = "x through W, plus alpha / rank times x through A and then through B."
    two = "W plus alpha / rank times B @ A."
    what = "two tensors: the output, and the merged weight"
    return mistakes.first(
        lambda: _wrong_shapes(layers, seen, shown),
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_two(seen, shown, what),
        lambda: compared_half(
            0, cases, _short(seen), shown, right, OUTPUTS, one, _near
        ),
        lambda: compared_half(
            1, cases, _short(seen), shown, right, WEIGHTS, two, _near
        ),
    )


def _wrong_shapes(
    layers: Sequence[probe.Layer], seen: Outcomes, shown: Sequence[str]
) -> Mistake | None:
    """Name what fails because matrices stand the wrong way round."""
    for outcome, text in zip(seen, shown, strict=True):
        error = outcome["error"]
        if "mat1 and mat2" in error or "must match the size" in error:
            return Mistake(
                "shapes",
                f"{text} failed with {error}. A row of x is a token: it goes through W "
                "as x @ W.T, through A as x @ A.T, and from there through B.",
            )
    return None


# Questions 3 and 7: what a trained model replies


class Said(NamedTuple):
    """One reply of a trained model, with the number that is right."""

    question: str
    right: int
    thinking: str
    answer: str
    ended: bool

    @property
    def number(self) -> int | None:
        """The last number of the answer."""
        found = re.findall(r"\d+", self.answer)
        return int(found[-1][:9]) if found else None

    @property
    def holds_the_number(self) -> bool:
        """Whether the right number stands anywhere in the answer."""
        return str(self.right) in re.findall(r"\d+", self.answer)

    @property
    def sentence(self) -> bool:
        """Whether the answer is a sentence as was asked for, with any number."""
        return re.fullmatch(r"It is \d+\.", self.answer.strip()) is not None

    @property
    def bare(self) -> bool:
        """Whether the answer is a number alone."""
        return re.fullmatch(r"\d+", self.answer.strip()) is not None


class Group(NamedTuple):
    """All replies in one talk; `before` are those of the model as it was."""

    name: str
    said: list[Said]
    before: list[Said]

    def count(self, test: Callable[[Said], bool]) -> int:
        """Return how many replies pass a test."""
        return sum(map(test, self.said))

    def most(self, test: Callable[[Said], bool], share: float = 0.85) -> bool:
        """Return whether nearly all replies pass a test."""
        return self.count(test) >= share * len(self.said)

    def shown(self, test: Callable[[Said], bool]) -> str:
        """Show the first reply that fails a test."""
        one = next((one for one in self.said if not test(one)), self.said[0])
        return f"{one.question!r} was answered {short(one.answer)}"

    def lost(self) -> int:
        """Return how many fewer answers are right than before, below 0 for more."""
        before = sum(one.number == one.right for one in self.before)
        return before - self.count(lambda one: one.number == one.right)


Talks = Callable[[int], list[probe.Talk]]


@functools.cache
def _before(talks: Talks, seed: int) -> list[list[tuple[str, str, bool]]]:
    """Return what the pocket model replies before any training."""
    from qwen_course import loading

    model, _ = loading.load(probe.MODEL)
    return [probe.replies(model, talk) for talk in talks(seed)]


def _groups(talks: Talks, seen: Outcomes, seed: int) -> list[Group]:
    groups = []
    for talk, outcome, before in zip(
        talks(seed), seen, _before(talks, seed), strict=True
    ):
        both = [
            [
                Said(problem.question, int(problem.expected), *reply)
                for problem, reply in zip(talk.problems, replies, strict=True)
            ]
            for replies in (outcome["value"], before)
        ]
        groups.append(Group(talk.name, *both))
    return groups


def _no_model(seen: Any) -> Mistake | None:
    if isinstance(seen, list):
        return None
    kind = seen["kind"]
    text = f"That is a {kind}, not a model. Give the trained model itself"
    text += ", without the tokenizer." if kind in ("tuple", "list") else "."
    if kind == "Training":
        text = (
            "That is what `train` returns: loss and tokens. It trains the model that "
            "you gave it, in place: give this model."
        )
    return Mistake("no-model", text)


def _noise(group: Group) -> Mistake | None:
    """Return the mistake of answers that are neither a sentence nor right."""
    holds = group.count(lambda one: one.holds_the_number)
    if holds >= 0.3 * len(group.said) or group.most(lambda one: one.sentence, 0.5):
        return None
    return Mistake(
        "noise",
        f"{len(group.said) - holds} of {len(group.said)} answers are neither a "
        f"sentence nor right; {group.shown(lambda one: one.holds_the_number)}. A "
        "learning rate that is too high ends in noise: did the loss jump?",
    )


def _never_stops(group: Group) -> Mistake | None:
    if group.most(lambda one: one.ended, 0.7):
        return None
    ended, count = group.count(lambda one: one.ended), len(group.said)
    return Mistake(
        "never-stops",
        f"{ended} of {count} answers came to an end; {group.shown(_ended)}. Was the "
        "end token learnt, right behind the answer? Without it in the labels a model "
        "does not know when to stop.",
    )


def _ended(one: Said) -> bool:
    return one.ended


def _thinks_no_more(group: Group) -> Mistake | None:
    thought, count = group.count(lambda one: bool(one.thinking)), len(group.said)
    if thought >= 0.85 * count:
        return None
    return Mistake(
        "thinks-no-more",
        f"With thinking on, your model thought about {thought} of {count} sums. Either "
        "the labels hold the empty think block, which it then learns to write, or no "
        "row shows it how to think.",
    )


def _forgot(group: Group, where: str) -> Mistake | None:
    """Return the mistake of clearly fewer right answers than before."""
    lost = group.lost()
    if lost <= max(2, round(0.15 * len(group.said))):
        return None
    numbers = {one.number for one in group.said}
    if len(numbers) == 1:
        text = f"The number is always {numbers.pop()}. Is it in all of your rows?"
        return Mistake("always-the-same", f"{where}: {text}")
    return Mistake(
        "forgot-the-sums",
        f"{where}: the form is right, but {lost} of {len(group.said)} sums fewer are "
        f"right than before the training; {group.shown(_is_right)}. Are the numbers in "
        "your rows right? Fewer steps or a lower learning rate change less.",
    )


def _is_right(one: Said) -> bool:
    return one.number == one.right


def _failed(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    """Return what went wrong when the model was asked."""
    for outcome, text in zip(seen, shown, strict=True):
        if outcome["error"]:
            return Mistake(
                "cannot-answer", f"{text}: the model failed with {outcome['error']}"
            )
        if outcome["late"]:
            return mistakes.of_call(outcome, text)
    return None


def _form_not_learnt(group: Group, asked: str) -> Mistake | None:
    """Return the mistake of answers that are no sentences."""
    if group.most(lambda one: one.sentence):
        return None
    count = group.count(lambda one: one.sentence)
    said = f"{asked}: {count} of {len(group.said)} answers are a sentence"
    shown = group.shown(lambda one: one.sentence)
    if group.said == group.before:
        return Mistake(
            "not-trained",
            f"{said}. The model answers exactly as before; {shown}. Did the training "
            "run on the model that you give here, and for more than a few steps?",
        )
    return Mistake(
        "form-not-learnt",
        f'{said} like "It is 42."; {shown}. Do your rows ask in this way, and is the '
        "loss below 0.1 at the end? Otherwise take more steps.",
    )


class Form(NamedTuple):
    """A form that nearly all replies must have, and what is said when they do not."""

    mistake: str
    test: Callable[[Said], bool]
    said: str
    advice: str


AFTER_THINKING = Form(
    "changes-after-thinking",
    lambda one: one.bare,
    "With thinking on, {} answers are the number alone, as before",
    "Training changes also what is in no row: mix in rows with thinking that end as "
    "before.",
)
UNTOLD = Form(
    "sentence-everywhere",
    lambda one: one.bare,
    "Without the system message {} answers are the number alone",
    "A model learns a condition from rows of both kinds: with the message, and without "
    "it.",
)
TOLD_AFTER_THINKING = Form(
    "no-sentence-after-thinking",
    lambda one: one.sentence,
    "With the system message and thinking, {} answers are a sentence",
    "Which of your rows have both?",
)


def _form_lost(group: Group, form: Form) -> Mistake | None:
    """Return the mistake of replies in another form."""
    if group.most(form.test):
        return None
    said = form.said.format(f"{group.count(form.test)} of {len(group.said)}")
    return Mistake(form.mistake, f"{said}; {group.shown(form.test)}. {form.advice}")


def q3(seen: Any, seed: int) -> Mistake | None:
    """Look at form, end, thinking and numbers of a trained model's replies."""
    shown = ("Asked at once", "Asked with thinking")
    if wrong := _no_model(seen) or _failed(seen, shown):
        return wrong
    once, thinking = _groups(probe.short_talks, seen, seed)
    return mistakes.first(
        lambda: _noise(once),
        lambda: _never_stops(once),
        lambda: _form_not_learnt(once, shown[0]),
        lambda: _forgot(once, shown[0]),
        lambda: _thinks_no_more(thinking),
        lambda: _form_lost(thinking, AFTER_THINKING),
        lambda: _forgot(thinking, shown[1]),
    )


def q7(seen: Any, seed: int) -> Mistake | None:
    """Look at the replies in all four ways."""
    shown = (
        "With the system message, asked at once",
        "With the system message, asked with thinking",
        "Without it, asked at once",
        "Without it, asked with thinking",
    )
    if wrong := _no_model(seen) or _failed(seen, shown):
        return wrong
    told, told_thinking, once, thinking = _groups(probe.both_talks, seen, seed)
    return mistakes.first(
        lambda: _noise(told),
        lambda: _never_stops(told),
        lambda: _form_not_learnt(told, shown[0]),
        lambda: _form_lost(once, UNTOLD),
        lambda: _thinks_no_more(told_thinking),
        lambda: _thinks_no_more(thinking),
        lambda: _form_lost(told_thinking, TOLD_AFTER_THINKING),
        lambda: _form_lost(thinking, AFTER_THINKING),
        lambda: _forgot(told, shown[0]),
        lambda: _forgot(once, shown[2]),
        lambda: _forgot(told_thinking, shown[1]),
        lambda: _forgot(thinking, shown[3]),
    )


# Question 4

Choice = list[str]  # name of the offer, method
Room = Callable[[str, str, probe.Offer], bool]


def fits(model: str, method: str, offer: probe.Offer) -> bool:
    """Return whether each GPU of an offer holds what it has to."""
    total = training_memory.need(model, method, offer.gpus).total
    return total <= offer.gib * 2**30


def choices(
    model: str,
    offers: Sequence[probe.Offer],
    room: Room = fits,
    methods: Sequence[str] = training_memory.METHODS,
    price: Callable[[probe.Offer], float] = lambda offer: offer.gpus * offer.price,
) -> list[Choice]:
    """Return what each offer is good for, the cheapest first; changes are mistakes."""
    found = []
    for offer in sorted(offers, key=price):
        method = next((one for one in methods if room(model, one, offer)), None)
        if method:
            found.append([offer.name, method])
    return found


def _room(size: Callable[[str, str, probe.Offer], float]) -> Room:
    return lambda model, method, offer: size(model, method, offer) <= offer.gib * 2**30


def _need(model: str, method: str, gpus: int) -> training_memory.Need:
    return training_memory.need(model, method, gpus)


def _with(room: Room) -> Callable[..., list[Choice]]:
    return lambda model, offers: choices(model, offers, room)


def _in_order(methods: Sequence[str]) -> Callable[..., list[Choice]]:
    return lambda model, offers: choices(model, offers, methods=methods)


def _by(price: Callable[[probe.Offer], float]) -> Callable[..., list[Choice]]:
    return lambda model, offers: choices(model, offers, price=price)


WEAKEST = (
    "You took the method that needs least. Where there is room for more, QLoRA only "
    "costs time and a little quality: full comes before LoRA, LoRA before QLoRA."
)
PARTS = (
    "Something of the need is missing. It is weights, optimizer and activations "
    "together: `total`."
)
CHOICES = (
    Way("billions", _with(lambda model, method, offer:
            _need(model, method, offer.gpus).total <= offer.gib * 10**9),
        "You counted a GiB as 1e9 bytes. It is 2**30, 7% more."),
    Way("all-memory-together", _with(_room(lambda model, method, offer:
            _need(model, method, offer.gpus).total / offer.gpus)),
        "You compared with the memory of all GPUs together. `total` is what *each* "
        "must hold when so many share the work."),
    Way("all-memory-together", _with(_room(lambda model, method, offer:
            _need(model, method, 1).total / offer.gpus)),
        "You dealt the need of one GPU out evenly. The activations are not dealt out: "
        "ask `need` with the number of GPUs, and compare with one."),
    Way("as-if-alone", _with(_room(lambda model, method, offer:
            _need(model, method, 1).total)),
        "That is the need of a single GPU. Several share weights and optimizer: give "
        "`need` their number."),
    Way("weights-alone", _with(_room(lambda model, method, offer:
            _need(model, method, offer.gpus).weights)), PARTS),
    Way("weights-alone", _with(_room(lambda model, method, offer:
            _need(model, method, offer.gpus).total
            - _need(model, method, offer.gpus).activations)), PARTS),
    Way("weakest-method", _in_order(training_memory.METHODS[::-1]), WEAKEST),
    Way("weakest-method", _in_order(["lora", "full", "qlora"]), WEAKEST),
    Way("one-method", _in_order(["full"]),
        "Only full fine-tuning is in it. Where that is too large, LoRA or QLoRA may "
        "fit."),
    Way("one-method", _in_order(["qlora"]),
        "Only QLoRA is in it. Take the first of full, LoRA and QLoRA that fits."),
    Way("one-method", _in_order(["lora"]),
        "Only LoRA is in it. Take the first of full, LoRA and QLoRA that fits."),
    Way("price-of-one-gpu", _by(lambda offer: offer.price),
        "You sorted by the price of one GPU. You pay for all of them."),
    Way("not-sorted", _by(lambda offer: 0.0),
        "They stand in the order in which they came. The cheapest comes first."),
    Way("dearest-first", _by(lambda offer: -offer.gpus * offer.price),
        "The dearest is first. Turn it around."),
    Way("cheapest-alone", lambda model, offers: choices(model, offers)[:1],
        "That is the cheapest alone. Return all that fit: it may be taken."),
    Way("keeps-what-is-too-small", lambda model, offers: choices(
            model, offers, lambda model, method, offer: method == "qlora"
            or fits(model, method, offer)),
        "An offer is in it on which nothing fits. Leave it out."),
)  # fmt: skip


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the choices of each market."""
    cases = probe.markets(seed)
    shown = [f'choices("{model}", ...)' for model, _ in cases]
    right = [choices(*case) for case in cases]
    advice = (
        "For each offer: the first of full, LoRA and QLoRA whose total on each GPU "
        "fits. Then sort by the price of all its GPUs."
    )
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_choices(seen, shown),
        lambda: compared(cases, seen, shown, right, CHOICES, _equal, advice),
    )


def _no_choices(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        if not isinstance(value, list) or not all(map(_is_two, value)):
            return Mistake(
                "no-list",
                f"{text} gave {short(value)}. Return a list of pairs, the name of an "
                'offer and "full", "lora" or "qlora"; an empty one where nothing fits.',
            )
    return None


# Question 5


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Look at every pair: what is in it, and what it differs in."""
    lists = probe.samples(seed)
    shown = [f"pairs, for {len(sampled)} questions," for sampled in lists]
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_pairs(seen, shown),
        *(
            functools.partial(_pairs_wrong, sampled, outcome["value"])
            for sampled, outcome in zip(lists, seen, strict=True)
        ),
    )


def _text_of(messages: Any, role: str) -> str | None:
    """Return the text of the one message of a list, None if it is something else."""
    if not isinstance(messages, list) or len(messages) != 1:
        return None
    message = messages[0]
    if not isinstance(message, dict) or message.get("role") != role:
        return None
    content = message.get("content")
    return content if isinstance(content, str) else None


PAIR = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))


def _no_pairs(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            return Mistake(
                "no-list",
                f"{text} gave {short(value)}. Return a list with a dictionary for each "
                "pair.",
            )
        for pair in value:
            if wrong := _no_pair(pair):
                return wrong
    return None


def _no_pair(pair: dict[str, Any]) -> Mistake | None:
    """Return what is wrong with the form of one pair."""
    missing = [name for name, _ in PAIR if name not in pair]
    if missing:
        keys = ", ".join(pair) or "nothing"
        return Mistake(
            "other-keys",
            f"A pair has {keys}. TRL looks for prompt, chosen and rejected.",
        )
    for name, role in PAIR:
        if isinstance(pair[name], str):
            return Mistake(
                "no-messages",
                f'"{name}" is the text {short(pair[name])}. Then no chat template is '
                "put around it, and the model learns in a form in which it is never "
                f'asked. Give a list with one message of the role "{role}".',
            )
        if _text_of(pair[name], role) is None:
            return Mistake(
                "wrong-messages",
                f'"{name}" is {short(pair[name])}. It is a list with one message: '
                f'{{"role": "{role}", "content": ...}}.',
            )
    return None


def _is_sentence(answer: str, right: int) -> bool:
    return answer == f"It is {right}."


def _pairs_wrong(sampled: list[probe.Sampled], pairs: Any) -> Mistake | None:
    """Return what is wrong with the pairs of one list."""
    asked = {one.question: one for one in sampled}
    done = []
    for pair in pairs:
        prompt, chosen, rejected = (str(_text_of(pair[n], role)) for n, role in PAIR)
        if prompt not in asked:
            return Mistake(
                "wrong-prompt",
                f"The prompt {short(prompt)} is none of the questions. It is the "
                "question as it was asked.",
            )
        if wrong := _pair_wrong(asked[prompt], chosen, rejected):
            return wrong
        if prompt in done:
            return Mistake(
                "several-pairs",
                f"There are several pairs for {prompt!r}. One for each question: else "
                "a question that was sampled often counts more.",
            )
        done.append(prompt)
    for one in sampled:
        good = {f"It is {one.right}.", str(one.right)} <= set(one.answers)
        if good and one.question not in done:
            return Mistake(
                "misses-a-pair",
                f"{one.question!r} was answered {one.answers}: both forms with the "
                "right number are there, and no pair was made. Look at all answers, "
                "in any order.",
            )
    return None


def _pair_wrong(one: probe.Sampled, chosen: str, rejected: str) -> Mistake | None:
    """Return what is wrong with the answers of one pair."""
    said = f"For {one.question!r}, {chosen!r} was chosen and {rejected!r} rejected. "
    right = str(one.right)
    if _is_sentence(rejected, one.right) and chosen == right:
        return Mistake(
            "turned-round", f"{said}The sentence is the style that is wanted."
        )
    if chosen == rejected:
        return Mistake(
            "no-difference",
            f"{said}They are the same: there is nothing to prefer in it.",
        )
    for answer in (chosen, rejected):
        if answer not in one.answers:
            return Mistake(
                "not-sampled",
                f"{said}The model never wrote {answer!r}. DPO moves weight between "
                "what the model does write: take both from `answers`.",
            )
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        number = re.findall(r"\d+", answer)
        if number == [right]:
            continue
        if number and right in number[0]:
            return Mistake(
                "part-of-a-number",
                f"{said}{right} stands in {number[0]} only as a part of it. Compare "
                "the whole number.",
            )
        if name == "chosen":
            return Mistake(
                "chooses-a-wrong-answer",
                f"{said}The right number is {right}: this teaches to be wrong in a "
                "fine style.",
            )
        return Mistake(
            "rejects-a-wrong-answer",
            f"{said}The rejected number is wrong as well, so the pair differs in two "
            "things, and the style is not what is learnt. Both must be right.",
        )
    if not _is_sentence(chosen, one.right):
        return Mistake("other-style", f"{said}The chosen one is no sentence.")
    return (
        Mistake(
            "other-style",
            f"{said}Both are sentences. The rejected one is the bare number.",
        )
        if _is_sentence(rejected, one.right)
        else None
    )


# Question 6

TRICKS = {
    "wrong number": (
        "pays-the-form", "The form is right and the number wrong. If the form alone is "
        "paid, any number will do."),
    "number alone": (
        "pays-another-form", "The number is right, the form is not JSON. Then nothing "
        "teaches the form."),
    "sentence": (
        "pays-another-form", "The number is right, the form is not JSON. Then nothing "
        "teaches the form."),
    "text before": (
        "pays-text-around", "There is text around the object. A program that reads the "
        "answer fails there: the *whole* completion must be the object."),
    "text after": (
        "pays-text-around", "There is text behind the object. A program that reads the "
        "answer fails there: the *whole* completion must be the object."),
    "several objects": (
        "pays-several-guesses", "Two answers in one completion, one of them right: who "
        "may guess often enough is always right."),
    "list of guesses": (
        "pays-several-guesses", "Three guesses in one list, one of them right: who may "
        "guess often enough is always right."),
    "guesses beside it": (
        "pays-more-keys", "There is a second key, with another guess. The object has "
        "the key `answer` and no other."),
    "guess in another key": (
        "pays-several-guesses", "The right number stands in another key, and `answer` "
        "is wrong. Look at its value alone."),
    "number as text": (
        "pays-text", "The answer is a text in quotes and no number. Whoever computes "
        "with it gets an error."),
    "guesses as text": (
        "pays-several-guesses", "Two guesses in one text, one of them right: who may "
        "guess often enough is always right."),
    "digits around it": (
        "pays-part-of-a-number", "The right digits are only a part of a longer number. "
        "Compare numbers, do not search in texts."),
    "another key": (
        "pays-another-key", "The key is `result`. Asked for was `answer`."),
    "bare string": (
        "pays-another-form", "That is JSON, but a text and no object."),
    "no end": (
        "pays-half-an-object", "The object is not closed: it is no JSON."),
    "nothing": (
        "pays-nothing", "An empty completion was paid."),
    "list": (
        "pays-another-form", "That is JSON, but a list and no object."),
    "null": (
        "pays-nothing", "null is no answer."),
    "true for 1": (
        "pays-true", "In Python True equals 1, and JSON has a true. Ask whether the "
        "value is an int, by its type."),
}  # fmt: skip


def honest(completion: str, expected: str) -> float:
    """Return 1 for an object whose one key holds the right number, else 0."""
    try:
        said = json.loads(completion)
    except (ValueError, RecursionError):
        return 0.0
    right = isinstance(said, dict) and list(said) == ["answer"]
    return float(
        right and type(said["answer"]) is int and said["answer"] == int(expected)
    )


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Look at the reward of every completion."""
    cases = probe.completions(seed)
    alone = seen[: len(cases)]
    shown = [f"For {text!r}, {number} expected: reward" for _, text, number in cases]
    return mistakes.first(
        lambda: _of_rewards(alone, shown[: len(alone)]),
        lambda: _no_rewards(alone, shown),
        lambda: _refuses(cases, alone, shown),
        lambda: _pays(cases, alone, shown),
        lambda: _all_at_once(cases, seen[-1]),
    )


def _of_rewards(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    """Name what stops a training: an error, most of all."""
    for outcome, text in zip(seen, shown, strict=True):
        error = outcome["error"]
        if "unexpected keyword argument" in error:
            return Mistake(
                "no-others",
                f"{text} failed with {error}. TRL passes more than you use: take the "
                "rest with **others.",
            )
        if error.startswith(("JSONDecodeError", "KeyError", "ValueError")) or (
            error.startswith(("TypeError", "AttributeError", "IndexError"))
            and seen[0] is not outcome
        ):
            return Mistake(
                "ends-the-training",
                f"{text} failed with {error}. In a training this would be the end of "
                "it. A model writes anything: what is no answer gets 0.",
            )
        if wrong := mistakes.of_call(outcome, text):
            return wrong
    return None


def _no_rewards(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        value = outcome["value"]
        if isinstance(value, list) and len(value) == 1 and _is_reward(value[0]):
            continue
        more = " One number for each completion, in a list."
        if isinstance(value, list) and value and not _is_reward(value[0]):
            more = " A reward is a number: 1.0 or 0.0."
        return Mistake("no-rewards", f"{text} gave {short(value)}.{more}")
    return None


def _is_reward(value: Any) -> bool:
    return isinstance(value, bool) or mistakes.is_number(value)


def _refuses(
    cases: Sequence[tuple[str, str, str]], seen: Outcomes, shown: Sequence[str]
) -> Mistake | None:
    """Name a right answer that gets less than 1."""
    for (name, text, number), outcome, said in zip(cases, seen, shown, strict=True):
        value = outcome["value"][0]
        if not honest(text, number) or value == 1:
            continue
        if name == "right":
            gave = f"{said} gave {short(value)}. "
            return Mistake("refuses-the-right", f"{gave}This is the right answer: 1.0.")
        return Mistake(
            "refuses-spaces",
            f"{said} gave {short(value)}. Spaces and line breaks mean nothing in JSON. "
            "Read it with json.loads and do not compare letters.",
        )
    return None


def _pays(
    cases: Sequence[tuple[str, str, str]], seen: Outcomes, shown: Sequence[str]
) -> Mistake | None:
    """Name the first trick that is paid."""
    for (name, text, number), outcome, said in zip(cases, seen, shown, strict=True):
        value = outcome["value"][0]
        if value == 0 or honest(text, number):
            continue
        mistake, why = TRICKS[name]
        return Mistake(mistake, f"{said} gave {short(value)}. {why}")
    return None


def _all_at_once(
    cases: Sequence[tuple[str, str, str]], outcome: dict[str, Any]
) -> Mistake | None:
    """Look at the rewards of a whole group."""
    shown = f"For {len(cases)} completions at once, reward"
    if wrong := mistakes.of_call(outcome, shown):
        return wrong
    right = [honest(text, number) for _, text, number in cases]
    if outcome["value"] != right:
        return Mistake(
            "one-for-all",
            f"{shown} gave {short(outcome['value'])}. Each completion has its own "
            "right number, at the same place of `expected`.",
        )
    return None


_place = functools.partial(section, "07_fine_tuning")

QUESTIONS = (
    Question(
        id="07.q1",
        title="What is learnt",
        outcome=3,
        difficulty="warm-up",
        minutes=8,
        judge=q1,
        hints=(
            "Which tokens of the row shall the model write by itself, when it is asked "
            "later? All others are only read.",
            "Make both lists of the same pieces: prompt, answer, end, padding. In the "
            "labels, the first and the last piece are [-100] times their length.",
        ),
        look=_place("What is learnt, token by token"),
        why="The answer and its end are learnt, by their place in the row: a rule by "
        "id hides the end wherever the pad token is the same.",
    ),
    Question(
        id="07.q2",
        title="A layer with its adapter",
        outcome=1,
        difficulty="core",
        minutes=12,
        judge=q2,
        hints=(
            "Follow one token, a row of x: how long is it before A, between A and B, "
            "and after B? That says which matrices have to be turned.",
            "The rank is A.shape[0]. What A and B add for x is x @ A.T @ B.T; what "
            "they add to W is B @ A. Both times alpha / rank.",
        ),
        look=_place("2. LoRA by hand"),
        why="The change of LoRA is a matrix like W, so it can be added to it: a merged "
        "layer costs nothing more, and answers the same.",
    ),
    Question(
        id="07.q3",
        title="A style in a minute",
        outcome=4,
        difficulty="core",
        minutes=20,
        judge=q3,
        hints=(
            "You need two kinds of rows: what the model shall do now, and what it "
            "shall go on doing. How does a row of the second kind look?",
            "Kind one: p.prompt and an answer such as f'It is {p.answer}.', for sums "
            "of two. Kind two: chat_data.from_problems(problems, thinking=True), for "
            "sums of three. A hundred of each, Settings(steps=30, learning_rate=5e-3, "
            "rows=4).",
        ),
        look=_place("4. Teach it"),
        why="A form is learnt in a few dozen steps, and spreads to where nobody asked "
        "for it: rows that show what shall stay keep it there.",
    ),
    Question(
        id="07.q4",
        title="What to rent",
        outcome=2,
        difficulty="core",
        minutes=12,
        judge=q4,
        hints=(
            "For one offer: try the three methods in the order in which you would like "
            "to use them. What must be compared with the memory of one GPU?",
            "training_memory.need(model, method, gpus).total <= gib * 2**30, for "
            '"full", then "lora", then "qlora"; the first that holds is the method. '
            "Sort the offers by gpus * price.",
        ),
        look=_place("12. The same with a real Qwen"),
        why="The method decides what a training costs before the first step: each "
        "trained weight takes 16 bytes, a frozen one 2, or half a byte.",
    ),
    Question(
        id="07.q5",
        title="Pairs for style",
        outcome=4,
        difficulty="core",
        minutes=12,
        judge=q5,
        hints=(
            "If the chosen answer is right and the rejected one wrong, what does the "
            "model learn from the pair: the style, or the sum?",
            "For each question, look whether f'It is {right}.' is among the answers, "
            "and whether str(right) is. If both are, that is the pair.",
        ),
        look=_place("8. Preferences: style"),
        why="What both answers have in common cannot be learnt from a pair: both are "
        "right, so only the style is left.",
    ),
    Question(
        id="07.q6",
        title="A reward without a loophole",
        outcome=4,
        difficulty="core",
        minutes=15,
        judge=q6,
        hints=(
            "Do not look for the number in the text. Read the text as the program does "
            "that will use it, and look at what comes out.",
            "json.loads inside try; then: is it a dict, is its only key answer, is "
            "type(value) is int, is it int(expected)? Whatever fails is 0.0.",
        ),
        look=_place("Reward hacking"),
        why="A reward pays for exactly what it checks, so it reads the whole answer "
        "strictly, and says 0 to all that it does not know.",
    ),
    Question(
        id="07.q7",
        title="Two customers, one adapter",
        outcome=5,
        difficulty="stretch",
        minutes=25,
        judge=q7,
        hints=(
            "There are two switches: the system message, and thinking. How many kinds "
            "of rows does that make, and does your data hold each of them?",
            "Write a function of a problem, told or not, thinking or not, that returns "
            "a row; call it four times for every problem. Then some 40 steps of 4 rows "
            "at a learning rate of 5e-3.",
        ),
        look=_place("7. Thinking: kept or lost"),
        why="A model learns a condition from rows on both sides of it; what no row "
        "shows is decided by the nearest row.",
    ),
)
