"""The recipe of pocket-vl: `python -m training.pocket_vl`.

Trains a Qwen2_5_VLForConditionalGeneration from nothing on charts and printed words,
drawn as it goes. First the vision tower learns to see: as we draw the pictures, we know
what each image token shows, a label, a value, a colour or a letter. Then the language
model learns to answer from it.

    python -m training.pocket_vl                 # the full run
    python -m training.pocket_vl --quick         # a worse model in minutes
"""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from qwen_course.evaluation import evaluate
from qwen_course.processors import images_only_processor
from qwen_course.tasks import charts, printed_words
from qwen_course.tasks.charts import SIZES, make, questions
from training import pictures
from training import tokenizer as tokenizers
from training.data import Rows
from training.pictures import Seen
from training.recipes import Plan, main, vocabulary_rows
from training.trainer import Log, Material, Recipe

CONTEXT = 1024
VOCABULARY = 1024


@dataclass(frozen=True)
class Pictures:
    """What the batches are made of."""

    words: float = 0.35  # of the pictures; the others are charts
    questions: int = 4  # about a chart, beside "Read the chart."
    growing: float = 0.0  # share of the steps until charts have all their points
    seeing: bool = False  # no text: the vision tower learns what its tokens stand for
    often: dict[str, float] = field(default_factory=dict)  # kinds asked more, or less


# First to see, without a text: what stands in each of the image tokens.
SEEING = Recipe(
    steps=3200,
    rows=(Rows(24, 63),),
    muon_lr=0.02,
    adamw_lr=3e-3,
    evaluate_every=800,
    decay_share=0.3,
    mix=Pictures(seeing=True),
)
# Then to answer.
FULL = Recipe(
    steps=4200,
    seed=2,
    rows=(Rows(18, 224),),
    muon_lr=0.015,
    adamw_lr=2e-3,
    decay_share=0.5,
    evaluate_every=700,
    mix=Pictures(growing=0.1),
)
# More questions about each, with a falling rate.
PRACTICE = replace(
    FULL,
    steps=3500,
    seed=3,
    rows=(Rows(16, 288),),
    muon_lr=0.014,
    adamw_lr=1.8e-3,
    decay_share=0.85,
    evaluate_every=500,
    mix=Pictures(words=0.3, questions=8),
)
# Last what takes two points of a chart, and what came out weak.
COMPARING = replace(
    PRACTICE,
    steps=1400,
    seed=10,
    muon_lr=0.009,
    adamw_lr=1.2e-3,
    decay_share=1.0,
    mix=Pictures(
        words=0.2,
        questions=8,
        often={
            "value": 2.0, "some values": 5.0, "highest": 3.0, "lowest": 3.0,
            "trend": 6.0, "season": 1.5, "compare": 8.0, "colour": 3.0, "colours": 6.0,
            "by colour": 5.0, "title": 1.0, "count": 0.5,
        },
    ),
)  # fmt: skip
QUICK = replace(FULL, steps=60, rows=(Rows(8, 128),), warm_up=10, evaluate_every=60)


def _points(step: int, recipe: Recipe) -> int:
    """Return how many points a chart may have: few at first, where it is `growing`."""
    grown = recipe.mix.growing * recipe.steps
    return 8 if step >= grown else 3 + int(5 * step / grown)


def picture_batch(step: int, recipe: Recipe, processor) -> list[dict]:
    """Return a batch of charts and one of words, drawn from seed and step alone.

    The pictures of a step are of one size. Words have short answers: in a batch of
    their own, little of it is padding.
    """
    rng = random.Random(f"{recipe.seed}/{step}")
    mix, count = recipe.mix, recipe.rows[0].number
    size = rng.choice(SIZES)
    words = round(mix.words * count)
    most = _points(step, recipe)
    charts = [
        Seen.of(questions(rng, mix.questions, size, most=most, often=mix.often))
        for _ in range(count - words)
    ]
    read = [Seen.of(printed_words.questions(rng, size)) for _ in range(words)]
    if mix.seeing:
        return [pictures.pack_things(charts + read)]
    return [pictures.pack(part, processor.tokenizer) for part in (charts, read) if part]


def shape(processor) -> Qwen2_5_VLConfig:
    """Return the architecture: Qwen2.5-VL's, vision 128 wide, language 192."""
    tokenizer = processor.tokenizer
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    width = 192
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary_rows(tokenizer),
            "hidden_size": width,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT,
            "rope_parameters": {
                "rope_type": "default",
                # Rows and columns are few here: slow rotations would not tell them
                # apart, so the rotations are fast, and columns have most of them.
                "rope_theta": 100.0,
                "mrope_section": [2, 4, 10],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": pictures.PATCH,
            "spatial_merge_size": pictures.MERGE,
            "window_size": 112,
            "fullatt_block_indexes": [1, 2, 3],
            "out_hidden_size": width,
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )


def build(processor) -> Qwen2_5_VLForConditionalGeneration:
    """Return the untrained model."""
    model = Qwen2_5_VLForConditionalGeneration(shape(processor))
    pictures.add_thing_embeddings(model, processor.tokenizer)
    model.set_attn_implementation("eager")  # the only one that shows where it looks
    return model


def corpus(examples: int = 6000) -> list[str]:
    """Return the texts that the tokenizer learns from: questions, answers, template.

    Printed words are not among them: they stay single letters, so that a word never
    seen is written like any other.
    """
    rng = random.Random("tokenizer")
    texts = [text for words in printed_words.WORDINGS.values() for text in words]
    texts += [f"the {nth} word" for nth in printed_words.NTH]
    for _ in range(examples):
        problem = make(rng)
        texts += [problem.question, problem.answer]
    return [*texts, "You are a helpful assistant.", "system\nuser\nassistant\n"]


def make_processor():
    """Train the tokenizer and join it with the image processor."""
    tokenizer = tokenizers.build(corpus(), VOCABULARY, CONTEXT, "qwen2_5_vl")
    return images_only_processor(pictures.image_processor(), tokenizer)


def load_kept(folder: Path):
    """Return the processor that a run keeps, with or without torchvision."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return images_only_processor(pictures.image_processor(), tokenizer)


CURVES = {
    "seen": ("image tokens", "#999999"),
    "read": ("all values", "#0072B2"),
    "questions": ("questions about charts", "#D55E00"),
    "words": ("printed words", "#009E73"),
}


def held_out_accuracy(processor, count: int = 48):
    """Return a function that measures a model on unseen charts and words."""
    asked = {
        "read": charts.problems(count, seed=12345, kind="read"),
        "questions": charts.problems(2 * count, seed=54321),
        "words": printed_words.problems(count, seed=12345, kind="word"),
    }
    shown = [Seen.of([problem]) for problem in (*asked["read"], *asked["words"])]
    packs = [
        pictures.pack_things([seen for seen in shown if seen.image.size == size])
        for size in SIZES
    ]

    def measure(model) -> Log:
        model.eval()
        right, total = (
            sum(counts)
            for counts in zip(
                *(pictures.count_seen(model, packed) for packed in packs), strict=True
            )
        )
        accuracy = {"seen": round(right / total, 4)} | {
            name: round(
                evaluate(model, processor, problems, thinking=False, batch_size=48,
                         max_new_tokens=64, progress=False).accuracy, 4)
            for name, problems in asked.items()
        }  # fmt: skip
        model.train()
        return accuracy

    return measure


PLAN = Plan(
    "pocket-vl",
    make_processor,
    build,
    {"seeing": SEEING, "main": FULL, "practice": PRACTICE, "comparing": COMPARING},
    QUICK,
    held_out_accuracy,
    compiled=False,  # the pictures of a step have one of two sizes
    material=Material(picture_batch, pictures.losses, tuple(CURVES)),
    curves=CURVES,
    # The values of Qwen2.5-VL's own generation config: as good as greedy.
    generation={"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.0},
    load=load_kept,
)

if __name__ == "__main__":
    main(PLAN)
