"""The recipe of pocket-qwen3: `python -m training.pocket_qwen3`.

Trains the tokenizer and a Qwen3ForCausalLM from nothing and writes a checkpoint that
`AutoModelForCausalLM.from_pretrained` loads with no code of ours. Kill it whenever
you like: the same command goes on from the last checkpoint.

    python -m training.pocket_qwen3                 # the full run
    python -m training.pocket_qwen3 --quick         # a worse model in minutes
"""

import random
from dataclasses import replace

from transformers import Qwen3Config, Qwen3ForCausalLM

from qwen_course import tasks
from qwen_course.evaluation import evaluate
from training import tokenizer as tokenizers
from training.data import SYSTEM_PROMPTS, Mix, Rows, draw_problem, write
from training.recipes import Log, Plan, main, vocabulary_rows
from training.trainer import Recipe

CONTEXT = 1024
VOCABULARY = 5120  # entries at most; seven languages share them
FULL = Recipe(steps=7000, evaluate_every=500)
SMALL_ROWS = (Rows(16, 128), Rows(2, 416))
# What the first stage leaves weak: a division in one go, long subtractions, and
# questions that are none of the course's.
POLISH = replace(
    FULL,
    steps=1000,
    rows=SMALL_ROWS,
    evaluate_every=250,
    seed=2,
    muon_lr=0.008,
    adamw_lr=1.2e-3,
    decay_share=1.0,
    mix=Mix(sums=0.09, products=0.10, word_problems=0.26, course_questions=0.36,
            hard_words=0.5, unknown=0.3),
)  # fmt: skip
# Sums of single digits, which are rare above and the first thing that people type.
SMALL_NUMBERS = replace(
    POLISH,
    steps=240,
    evaluate_every=120,
    seed=3,
    muon_lr=0.006,
    adamw_lr=1e-3,
    mix=Mix(sums=0.16, products=0.07, word_problems=0.24, course_questions=0.40,
            dialogues=0.06, small_sums=0.5, hard_words=0.6),
)  # fmt: skip
# Divisions and long subtractions are thought through in steps since; six more wordings
# a fact, and an even share of what the model must not forget.
LAST = replace(
    FULL,
    steps=3600,
    evaluate_every=400,
    seed=4,
    muon_lr=0.012,
    adamw_lr=1.8e-3,
    decay_share=1.0,
    mix=Mix(sums=0.11, products=0.13, word_problems=0.26, course_questions=0.35,
            instructions=0.035, new_questions=0.06, small_sums=0.15, hard_words=0.35,
            unknown=0.12, thinking=0.7),
)  # fmt: skip
# "Hello" was answered as if it held a name, or in French, whose data greeted so too.
GREETINGS = replace(
    LAST,
    steps=240,
    rows=SMALL_ROWS,
    evaluate_every=120,
    seed=5,
    muon_lr=0.004,
    adamw_lr=6e-4,
    mix=replace(LAST.mix, dialogues=0.12, hello=0.6),
)
# 12 of 14 wrong sums were a hundred too much: 137 + 62 = 299.
HUNDREDS = replace(
    GREETINGS,
    seed=6,
    mix=replace(LAST.mix, sums=0.2, near_hundreds=0.6, dialogues=0.06, hello=0.5),
)
QUICK = replace(FULL, steps=120, evaluate_every=120, rows=SMALL_ROWS, warm_up=10)


def shape(vocab_size: int, tokenizer) -> Qwen3Config:
    """Return the architecture: Qwen3's, 8 layers of width 256."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build(tokenizer) -> Qwen3ForCausalLM:
    """Return the untrained model."""
    return Qwen3ForCausalLM(shape(vocabulary_rows(tokenizer), tokenizer))


def corpus(mix: Mix, seed: int, examples: int = 30_000) -> list[str]:
    """Return the texts that the tokenizer learns from: rendered like the training data.

    Rendered, so that the words of the template, "assistant" for one, are words of the
    vocabulary too.
    """
    plain = tokenizers.build([], 300, CONTEXT)  # bytes and added tokens
    rng = random.Random(f"tokenizer/{seed}")
    texts = list(SYSTEM_PROMPTS)
    for _ in range(examples):
        problem = draw_problem(rng, mix)
        parts, _ = write(problem, plain, rng, mix)
        texts += [parts[0][0], problem.thinking, problem.answer]
    return texts


def make_tokenizer():
    """Train the tokenizer on the data of the full run."""
    return tokenizers.build(corpus(FULL.mix, FULL.seed), VOCABULARY, CONTEXT)


def held_out_accuracy(tokenizer, per_skill: int = 32):
    """Return a function that measures a model on unseen problems and course questions.

    The problems are solved in both modes, the course questions with thinking.
    """
    problems = [
        problem
        for skill in (tasks.sums, tasks.products, tasks.word_problems)
        for problem in skill.problems(per_skill, seed=12345)
    ]
    facts = tasks.course_questions.problems(2 * per_skill, seed=12345)
    measured = {
        "with_thinking": (problems, True),
        "without_thinking": (problems, False),
        "facts": (facts, True),
    }

    def measure(model) -> Log:
        model.eval()
        accuracy = {
            name: round(
                evaluate(model, tokenizer, asked, thinking, batch_size=96,
                         max_new_tokens=160, progress=False).accuracy, 4)
            for name, (asked, thinking) in measured.items()
        }  # fmt: skip
        model.train()
        return accuracy

    return measure


PLAN = Plan(
    "pocket-qwen3",
    make_tokenizer,
    build,
    {
        "main": FULL,
        "polish": POLISH,
        "small": SMALL_NUMBERS,
        "last": LAST,
        "greetings": GREETINGS,
        "hundreds": HUNDREDS,
    },
    QUICK,
    held_out_accuracy,
)

if __name__ == "__main__":
    main(PLAN)
