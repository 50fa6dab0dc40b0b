"""Make pocket-math: `python -m training.pocket_math`.

A Qwen2ForCausalLM that works mathematics step by step, or writes a program for it, the
two ways of Qwen2.5-Math. Kill it whenever you like: the same command goes on.

    python -m training.pocket_math                 # the full run
    python -m training.pocket_math --quick         # a worse model in minutes
"""

import random
from dataclasses import dataclass, field, replace

from transformers import Qwen2ForCausalLM

from qwen_course.evaluation import evaluate
from qwen_course.tasks import mathematics
from qwen_course.tasks.mathematics import OUTPUT, MathProblem
from qwen_course.tasks.problem import draw
from qwen_course.vocabulary import ADDED_TOKENS
from training import tokenizer as tokenizers
from training.data import Example, Rows, encode, fill_rows
from training.recipes import Log, Plan, main, small_qwen2
from training.trainer import Material, Recipe, capped_losses

CONTEXT = 1024
VOCABULARY = 832  # entries at most; the digits and signs stay single
# Qwen2.5 has no tokens for thinking and for tool responses, the last four.
TOKENS = ADDED_TOKENS[:-4]
ROWS = (Rows(8, 448),)  # the longest example has 448 tokens; the others share a row


@dataclass(frozen=True)
class MathMix:
    """What the training data is made of: weights of the kinds, share of programs."""

    kinds: dict[str, float] = field(
        default_factory=lambda: {
            "derivative": 0.13,
            "critical points, quadratic": 0.10,
            "critical points, cubic": 0.26,
            "linear equation": 0.17,
            "quadratic equation": 0.19,
            "growth": 0.15,
        }
    )
    tools: float = 0.2
    drills: float = 0.0  # single computations, a dozen in an example


# Arithmetic first: a worked problem holds few computations for its length, and in a run
# without these the steps had the right form and the wrong numbers.
ARITHMETIC = Recipe(
    steps=700, rows=(Rows(8, 392),), decay_share=0.02, evaluate_every=700,
    mix=MathMix(drills=1.0),
)  # fmt: skip
FULL = replace(
    ARITHMETIC, steps=3000, rows=ROWS, seed=2, decay_share=0.7, evaluate_every=200,
    mix=MathMix(tools=0.15, drills=0.15),
)  # fmt: skip
# Then 80% of the unseen problems were right: all cubics in known words, hardly two of
# three growth problems, and new words were taken for another kind of problem.
PRACTICE = replace(
    FULL, steps=3000, seed=3, muon_lr=0.014, adamw_lr=2e-3, decay_share=1.0,
    evaluate_every=500,
    mix=MathMix(
        kinds={
            "derivative": 0.16,
            "critical points, quadratic": 0.10,
            "critical points, cubic": 0.20,
            "linear equation": 0.20,
            "quadratic equation": 0.15,
            "growth": 0.19,
        },
        tools=0.12,
        drills=0.2,
    ),
)  # fmt: skip
# Then 88%: 95% in known words, 85% in new ones. Now half of the questions have wordings
# put together of parts, and equations and growth, where sums go wrong, are asked more.
WORDINGS = replace(
    PRACTICE, steps=2400, rows=(Rows(8, 480),), seed=4, muon_lr=0.012, adamw_lr=1.6e-3,
    evaluate_every=400,
    mix=replace(
        PRACTICE.mix,
        kinds={
            "derivative": 0.16,
            "critical points, quadratic": 0.11,
            "critical points, cubic": 0.17,
            "linear equation": 0.22,
            "quadratic equation": 0.12,
            "growth": 0.22,
        },
    ),
)  # fmt: skip
QUICK = replace(
    FULL, steps=80, rows=(Rows(2, 448),), evaluate_every=80, warm_up=10, mix=MathMix()
)


def build(tokenizer) -> Qwen2ForCausalLM:
    """Return the untrained model."""
    return Qwen2ForCausalLM(small_qwen2(tokenizer, CONTEXT, intermediate_size=512))


def draw_problem(rng: random.Random, mix: MathMix) -> MathProblem:
    """Draw one training problem; a test content is never returned."""
    if rng.random() < mix.drills:
        return mathematics.make_drill(rng)
    kind = rng.choices(tuple(mix.kinds), tuple(mix.kinds.values()))[0]
    tools = rng.random() < mix.tools
    return draw(lambda rng: mathematics.make(rng, kind, tools), rng, "train")


def render(problem: MathProblem, tokenizer) -> Example:
    """Return one example; what the interpreter prints is read, not learnt."""
    prompt = tokenizer.apply_chat_template(
        problem.prompt, tokenize=False, add_generation_prompt=True
    )
    return encode([(prompt, False), *written(problem.answer)], tokenizer)


def written(answer: str) -> list[tuple[str, bool]]:
    """Return the parts of an answer: the model's own, and the output of its program.

    >>> written("4 = 4")
    [('4 = 4<|im_end|>', True)]
    """
    head, opened, rest = answer.partition(OUTPUT)
    if not opened:
        return [(f"{answer}<|im_end|>", True)]
    output, _, tail = rest.partition("\n```\n")
    return [
        (head + opened, True),
        (f"{output}\n```\n", False),
        (f"{tail}<|im_end|>", True),
    ]


def batch(step: int, recipe: Recipe, tokenizer) -> list[dict]:
    """Return the packed batches of one training step, one for each length of row."""
    rng = random.Random(f"{recipe.seed}/{step}")
    return fill_rows(
        lambda: render(draw_problem(rng, recipe.mix), tokenizer),
        recipe.rows,
        tokenizer.pad_token_id,
    )


def corpus(mix: MathMix, seed: int, examples: int = 12_000) -> list[str]:
    """Return the texts that the tokenizer learns from."""
    plain = tokenizers.build([], 300, CONTEXT, "qwen2_5", TOKENS)
    rng = random.Random(f"tokenizer/{seed}")
    texts = []
    for _ in range(examples):
        problem = draw_problem(rng, mix)
        texts += [
            plain.apply_chat_template(
                problem.prompt, tokenize=False, add_generation_prompt=True
            ),
            problem.answer,
        ]
    return texts


def make_tokenizer():
    """Train the tokenizer on the data of the full run."""
    texts = corpus(FULL.mix, FULL.seed)
    return tokenizers.build(texts, VOCABULARY, CONTEXT, "qwen2_5", TOKENS)


CURVES = {
    "steps": ("worked step by step", "#0072B2"),
    "critical": ("critical points of cubics", "#D55E00"),
}


def held_out_accuracy(tokenizer, each: int = 64):
    """Return a function that measures a model on unseen problems, step by step."""
    cubic = "critical points, cubic"
    measured = {
        "steps": mathematics.problems(each, seed=12345),
        "critical": mathematics.problems(each // 2, seed=12345, kind=cubic),
    }

    def measure(model) -> Log:
        model.eval()
        accuracy = {
            name: round(
                evaluate(model, tokenizer, problems, batch_size=96,
                         max_new_tokens=420, progress=False).accuracy, 4)
            for name, problems in measured.items()
        }  # fmt: skip
        model.train()
        return accuracy

    return measure


PLAN = Plan(
    "pocket-math",
    make_tokenizer,
    build,
    {
        "arithmetic": ARITHMETIC,
        "main": FULL,
        "practice": PRACTICE,
        "wordings": WORDINGS,
    },
    QUICK,
    held_out_accuracy,
    material=Material(batch, capped_losses, tuple(CURVES)),
    curves=CURVES,
    # Qwen2.5-Math answers greedily when it answers once.
    generation={"do_sample": False},
)

if __name__ == "__main__":
    main(PLAN)
