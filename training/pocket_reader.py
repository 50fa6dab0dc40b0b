"""Make pocket-reader: `python -m training.pocket_reader`.

A Qwen3ForCausalLM that reads: from numbered passages and a question to a value with its
citation, or to "The documents do not say." Kill it whenever you like: the same command
goes on.

    python -m training.pocket_reader               # the full run
    python -m training.pocket_reader --quick       # a worse model in minutes
"""

import random
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from qwen_course.capstones.documents import prompt
from qwen_course.tasks import handbook
from training import tokenizer as tokenizers
from training.data import IGNORE, Rows
from training.muon import fast_precision
from training.recipes import Plan, main, vocabulary_rows
from training.trainer import Log, Material, Recipe

CONTEXT = 1024
# What counts more in the loss than the other tokens of an answer: the first, which
# decides between a value and a refusal, and the number of the passage.
FIRST, CITATION = 2.0, 4.0
VOCABULARY = 1536


@dataclass(frozen=True)
class Reading:
    """What the training data is made of."""

    refusals: float = 0.4  # of the questions: what the passages do not say
    passages: tuple[int, ...] = (1, 2, 2, 3, 3, 3, 4)
    attributes: float = 0.5  # of those: another thing about a subject; else another one
    everything: bool = False  # learn the passages and the questions too
    more: bool = False  # the further wordings too
    twins: float = 0.0  # of the passages: the same is said of two subjects


# Language and copying first: a subject that is named again is the first thing to copy.
WORDS = Recipe(
    steps=300, rows=(Rows(10, 224),), seed=1, warm_up=30, decay_share=0.02,
    evaluate_every=300, mix=Reading(refusals=0.1, passages=(1, 1, 2), everything=True),
)  # fmt: skip
# With refusals from the start it learnt to refuse: four in ten questions were right so,
# and reading never began. What is left of that first attempt are 400 steps.
MIXED = replace(
    WORDS, steps=400, rows=(Rows(9, 256),), seed=2, evaluate_every=200, mix=Reading(),
)  # fmt: skip
# Every question is answered by the passages: to read is all there is to learn.
READING = replace(
    MIXED, steps=600, seed=3, evaluate_every=150,
    mix=Reading(refusals=0.0, passages=(1, 1, 2, 2, 3)),
)  # fmt: skip
# Values were right by then, in two of three questions, and numbers of passages guessed.
REFUSING = replace(
    READING, steps=170, seed=4, evaluate_every=170,
    mix=Reading(refusals=0.3, passages=(1, 2, 3, 3, 3)),
)  # fmt: skip
# Several passages at once are too much for so small a model in so few steps: it found
# the kind of value that was asked for, not whose. One passage at a time is learnt.
SINGLE = replace(
    READING, steps=320, seed=5, evaluate_every=160,
    mix=Reading(refusals=0.5, passages=(1,)),
)  # fmt: skip
# Whether a passage is about this subject the search tells better: 250 steps with mostly
# such questions gave nothing. What it must tell is whether the passage says this of it.
PRACTICE = replace(
    SINGLE, steps=400, seed=7, decay_share=0.9, evaluate_every=200,
    mix=replace(SINGLE.mix, refusals=0.4, attributes=0.8),
)  # fmt: skip
# Three times the wordings, more steps than all before, and subjects to be told apart.
WORDINGS = replace(
    PRACTICE, steps=2400, seed=8, warm_up=50, decay_share=0.8, evaluate_every=600,
    mix=Reading(
        refusals=0.3, passages=(1, 1, 1, 2), attributes=0.7, more=True, twins=0.3
    ),
)  # fmt: skip
QUICK = replace(WORDS, steps=60, evaluate_every=60, rows=(Rows(2, 256),))


def build(tokenizer) -> Qwen3ForCausalLM:
    """Return the untrained model; its heads are few and wide: attention is costly."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary_rows(tokenizer),
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def corpus(examples: int = 5000) -> list[str]:
    """Return the texts that the tokenizer learns from."""
    plain = tokenizers.build([], 300, CONTEXT)
    rng = random.Random("tokenizer/reader")
    texts = []
    for _ in range(examples):
        paragraphs = handbook.scene(rng, 3)
        facts = [fact for paragraph in paragraphs for fact in paragraph.facts]
        texts += [shown(paragraph) for paragraph in paragraphs]
        texts += [draw_question(rng, facts, REFUSING.mix).text for _ in range(4)]
    head, tail = shared_start(paragraphs[:1], plain)
    return texts + [head, tail, handbook.REFUSAL] * 100


def make_tokenizer():
    """Train the tokenizer on the data of the full run."""
    return tokenizers.build(corpus(), VOCABULARY, CONTEXT)


# Batches


def shared_start(paragraphs, tokenizer) -> tuple[str, str]:
    """Return the rendered prompt up to the question, and what follows it."""
    mark = "\ufdd0"
    messages = prompt(mark, [shown(paragraph) for paragraph in paragraphs])
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    head, _, tail = text.partition(f" {mark}")
    return head, tail


def shown(paragraph: handbook.Paragraph) -> str:
    """Return a paragraph as the reader sees it: its heading in front."""
    return f"{paragraph.heading}: {paragraph.text}"


def answer(question: handbook.Question, paragraphs) -> str:
    """Return what the reader is to write: the value and the number, or the refusal."""
    if question.fact is None:
        return handbook.REFUSAL
    place = next(n for n, p in enumerate(paragraphs, 1) if question.fact in p.facts)
    return f"{question.fact.value} [{place}]"


def draw_question(rng: random.Random, facts, mix: Reading, part: str = "train"):
    """Return a question about the facts, now and then one that they do not answer."""
    new = part != "train" and rng.random() < 0.5
    if rng.random() < mix.refusals:
        return handbook.unanswered(rng, facts, part, new, mix.attributes, mix.more)
    return handbook.ask(rng, rng.choice(facts), "answered", new, mix.more)


def fill(row: int, packed: dict, rng: random.Random, mix: Reading, tokenizer) -> None:
    """Write one row: passages once, and beside each other questions about them.

    Each question sees the passages and itself, not its neighbours, and its positions
    begin where the passages end: for the model it is alone.
    """
    number = rng.choice(mix.passages)
    paragraphs = handbook.scene(rng, number, more=mix.more, twins=mix.twins)
    facts = [fact for paragraph in paragraphs for fact in paragraph.facts]
    head, tail = shared_start(paragraphs, tokenizer)
    ids = tokenizer(head)["input_ids"]
    start = end = len(ids)
    packed["input_ids"][row, :end] = torch.tensor(ids)
    packed["position_ids"][row, :end] = torch.arange(end)
    packed["attention_mask"][row, 0, :, :start] = True
    if mix.everything:
        packed["labels"][row, 1:end] = torch.tensor(ids[1:])
    while True:
        question = draw_question(rng, facts, mix)
        asked = tokenizer(f" {question.text}{tail}")["input_ids"]
        said = tokenizer(f"{answer(question, paragraphs)}<|im_end|>")["input_ids"]
        size = len(asked) + len(said)
        if end + size > packed["input_ids"].size(1):
            break
        place = slice(end, end + size)
        packed["input_ids"][row, place] = torch.tensor(asked + said)
        # subtle: nothing in the row comes before the first word of a question.
        unlearnt = 1 if mix.everything else len(asked)
        learnt = torch.tensor((asked + said)[unlearnt:])
        packed["labels"][row, end + unlearnt : end + size] = learnt
        packed["weights"][row, end + len(asked)] = FIRST
        if question.fact:
            packed["weights"][row, end + size - 3] = CITATION
        packed["position_ids"][row, place] = torch.arange(start, start + size)
        packed["attention_mask"][row, 0, place, place] = True
        end += size
    packed["real"][row, :end] = True


def batch(step: int, recipe: Recipe, tokenizer) -> list[dict]:
    """Return the packed batch of one training step."""
    rng = random.Random(f"reader/{recipe.seed}/{step}")
    rows, length = recipe.rows[0].number, recipe.rows[0].length
    packed = {
        "input_ids": torch.full((rows, length), tokenizer.pad_token_id),
        "labels": torch.full((rows, length), IGNORE),
        "weights": torch.ones((rows, length)),
        "position_ids": torch.zeros((rows, length), dtype=torch.long),
        "attention_mask": torch.zeros((rows, 1, length, length), dtype=torch.bool),
        "real": torch.zeros((rows, length), dtype=torch.bool),
    }
    for row in range(rows):
        fill(row, packed, rng, recipe.mix, tokenizer)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    packed["attention_mask"] &= causal
    # What fills a row up sees itself: a row of nothing has no softmax.
    packed["attention_mask"] |= torch.eye(length, dtype=torch.bool)
    return [packed]


def weighed_losses(model, forward, packed) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighed sum of the cross-entropies; see `trainer.losses`."""
    labels = packed["labels"][:, 1:]
    learnt = labels != IGNORE
    precision = fast_precision(model.device)
    blind = torch.finfo(precision).min
    mask = torch.where(packed["attention_mask"], 0.0, blind).to(precision)
    halved = precision != torch.float32
    with torch.autocast(model.device.type, precision, enabled=halved):
        output = forward(
            input_ids=packed["input_ids"],
            attention_mask=mask,
            position_ids=packed["position_ids"],
            use_cache=False,
        )
        logits = model.lm_head(output.last_hidden_state[:, :-1][learnt])
    each = F.cross_entropy(logits.float(), labels[learnt], reduction="none")
    weighed = each * packed["weights"][:, 1:][learnt]
    return weighed.sum(), weighed.new_zeros(())


# Measuring


@torch.no_grad()
def write(model, tokenizer, rows: list[list[int]], limit: int = 24) -> list[str]:
    """Return the greedy answers to prompts of token ids, one batch."""
    padded = tokenizer.pad(
        {"input_ids": rows}, padding_side="left", return_tensors="pt"
    )
    width = padded["input_ids"].size(1)
    out = model.generate(
        **padded.to(model.device), max_new_tokens=limit, do_sample=False
    )
    return tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)


CURVES = {
    "answered": ("right, with the right citation", "#0072B2"),
    "refused": ("refused, where nothing answers", "#D55E00"),
}


def held_out(tokenizer, each: int = 96):
    """Return a function that measures on development subjects, half in new wordings."""
    rng = random.Random("reader/development")
    cases: dict[str, list[tuple[list[int], str]]] = {name: [] for name in CURVES}
    for number in range(2 * each):
        paragraphs = handbook.scene(rng, 1, "development", new=0.25)
        facts = [fact for paragraph in paragraphs for fact in paragraph.facts]
        refusals = Reading(refusals=float(number % 2))
        question = draw_question(rng, facts, refusals, "development")
        head, tail = shared_start(paragraphs, tokenizer)
        ids = tokenizer(f"{head} {question.text}{tail}")["input_ids"]
        name = "refused" if number % 2 else "answered"
        cases[name].append((ids, answer(question, paragraphs)))

    def measure(model) -> Log:
        model.eval()
        found: Log = {}
        for name, asked in cases.items():
            said = write(model, tokenizer, [ids for ids, _ in asked])
            right = sum(s == e for s, (_, e) in zip(said, asked, strict=True))
            found[name] = round(right / len(asked), 4)
        model.train()
        return found

    return measure


PLAN = Plan(
    "capstones/pocket-reader",  # below the models that `qc.load` knows by name
    make_tokenizer,
    build,
    {
        "words": WORDS,
        "mixed": MIXED,
        "reading": READING,
        "refusing": REFUSING,
        "single": SINGLE,
        "practice": PRACTICE,
        "wordings": WORDINGS,
    },
    QUICK,
    held_out,
    material=Material(batch, weighed_losses, tuple(CURVES)),
    curves=CURVES,
    generation={"do_sample": False},
)

if __name__ == "__main__":
    main(PLAN)
