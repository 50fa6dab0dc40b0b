"""The recipe of pocket-coder: `python -m training.pocket_coder`.

A Qwen2ForCausalLM, as Qwen2.5-Coder is one, that writes short Python functions, fills
in their middle and fixes them. Kill it whenever you like: the same command goes on.

    python -m training.pocket_coder                 # the full run
    python -m training.pocket_coder --quick         # a worse model in minutes
"""

import random
from dataclasses import dataclass, replace

from transformers import Qwen2ForCausalLM

from qwen_course.evaluation import evaluate
from qwen_course.tasks import coding
from qwen_course.tasks.coding.families import draw_task, invented
from qwen_course.vocabulary import ADDED_TOKENS
from training import tokenizer as tokenizers
from training.data import Example, Parts, Rows, encode, fill_rows
from training.recipes import Log, Measure, Plan, main, small_qwen2
from training.trainer import Material, Packed, Recipe, capped_losses

CONTEXT = 1024
TOKENS = ADDED_TOKENS[:-4]  # Qwen2.5 has neither <think> nor <tool_response>
VOCABULARY = 1536  # entries at most

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are an expert Python programmer.",
    "You are a helpful coding assistant.",
    "You write short Python functions.",
    "Answer with code only.",
)


@dataclass(frozen=True)
class CodeMix:
    """Shares of the kinds of problems."""

    write: float = 0.5
    fill_in: float = 0.22
    fix: float = 0.13
    retry: float = 0.15
    drill: float = 0.0  # of all examples: to copy what stands above, nothing else


# Most examples are short, and attention over short rows is cheap; the few long ones,
# mostly retries, have rows of their own.
ROWS = (Rows(15, 192), Rows(3, 368))
# Copying comes first, in short rows and nothing else: in whole programs the names are
# a small part of the loss, and were not learnt in 600 steps.
COPYING = Recipe(
    steps=400, rows=(Rows(24, 96),), warm_up=40, decay_share=0.02, evaluate_every=400,
    mix=CodeMix(drill=1.0),
)  # fmt: skip
FULL = Recipe(
    steps=1800, rows=ROWS, seed=2, warm_up=40, decay_share=0.3, evaluate_every=300,
    mix=CodeMix(drill=0.05),
)  # fmt: skip
# Filling in comes slowest: two places have to be found, the end of what stands before
# and the beginning of what stands behind.
PRACTICE = replace(
    FULL, steps=3600, seed=3, muon_lr=0.016, adamw_lr=2.4e-3, decay_share=1.0,
    evaluate_every=400,
    mix=CodeMix(write=0.38, fill_in=0.36, fix=0.10, retry=0.16),
)  # fmt: skip
QUICK = Recipe(
    steps=120, rows=(Rows(10, 192), Rows(2, 336)), warm_up=10, evaluate_every=120,
    mix=CodeMix(),
)  # fmt: skip
CURVES = {
    "write": ("write a function", "#0072B2"),
    "fill_in": ("fill in the middle", "#D55E00"),
    "fix": ("fix, alone or after a failure", "#009E73"),
}


def build(tokenizer) -> Qwen2ForCausalLM:
    """Return the untrained model."""
    return Qwen2ForCausalLM(small_qwen2(tokenizer, CONTEXT, intermediate_size=704))


def write(problem: coding.CodingProblem, tokenizer, system: str = "") -> Parts:
    """Return the parts of one example: what is read, and the answer, which is learnt.

    `system` stands in the place of Qwen2.5's default system prompt.

    Filling in has no chat template and ends with <|endoftext|>, as in Qwen2.5-Coder.
    """
    if problem.kind == "fill in":
        return [(problem.question, False), (f"{problem.answer}<|endoftext|>", True)]
    first = [{"role": "system", "content": system}] if system else []
    prompt = tokenizer.apply_chat_template(
        [*first, *problem.prompt], tokenize=False, add_generation_prompt=True
    )
    return [(prompt, False), (f"{problem.answer}<|im_end|>", True)]


def draw_problem(rng: random.Random, mix: CodeMix) -> coding.CodingProblem:
    """Draw one training problem; a test content is never returned."""
    shares = (mix.write, mix.fill_in, mix.fix, mix.retry)
    return coding.make(rng, rng.choices(coding.KINDS, shares)[0], "train")


def drill(rng: random.Random, tokenizer) -> Example:
    """Return something to copy: tokens said twice, or signatures to define in order."""
    if rng.random() < 0.5:
        known = range(300, len(tokenizer) - len(TOKENS))
        said = rng.choices(known, k=rng.choice((3, 4, 5, 6, 8, 10, 14)))
        ids = [*said, *tokenizer("\n")["input_ids"], *said]
        return Example(ids, [False] * (len(said) + 1) + [True] * len(said))
    names = [_signature(rng) for _ in range(rng.randint(1, 4))]
    before, after = rng.choice((("`", "`"), ("", ""), ("function ", "")))
    prompt = "".join(f"{before}{name}{after}\n" for name in names)
    answer = "".join(f"def {name}:\n" for name in names)
    return encode([(prompt, False), (answer, True)], tokenizer)


def _signature(rng: random.Random) -> str:
    """Draw the signature of a task, or one that nobody would write."""
    if rng.random() < 0.7:
        return draw_task(rng, "train").signature()
    arguments = [invented(rng) for _ in range(rng.randint(1, 3))]
    return f"{invented(rng)}({', '.join(arguments)})"


def batch(step: int, recipe: Recipe, tokenizer) -> list[Packed]:
    """Return the packed batches of one step, drawn from seed and step alone."""
    rng = random.Random(f"{recipe.seed}/{step}")

    def draw() -> Example:
        if recipe.mix.drill and rng.random() < recipe.mix.drill:
            return drill(rng, tokenizer)
        problem = draw_problem(rng, recipe.mix)
        system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.12 else ""
        return encode(write(problem, tokenizer, system), tokenizer)

    return fill_rows(draw, recipe.rows, tokenizer.pad_token_id)


def corpus(mix: CodeMix, seed: int, examples: int = 20_000) -> list[str]:
    """Return the texts that the tokenizer learns from, rendered as for training."""
    plain = tokenizers.build([], 300, CONTEXT, "qwen2_5", TOKENS)
    rng = random.Random(f"tokenizer/{seed}")
    problems = (draw_problem(rng, mix) for _ in range(examples))
    return ["".join(text for text, _ in write(one, plain)) for one in problems]


def make_tokenizer():
    """Train the tokenizer on the data of the first stage."""
    texts = corpus(FULL.mix, FULL.seed)
    return tokenizers.build(texts, VOCABULARY, CONTEXT, "qwen2_5", TOKENS)


def answers(
    model, tokenizer, problems: list[coding.CodingProblem], batch_size: int = 64
) -> list[str]:
    """Return the model's greedy answers, each in the form that its kind asks for."""
    result = evaluate(
        model, tokenizer, problems, thinking=False, batch_size=batch_size,
        max_new_tokens=200, progress=False,
    )  # fmt: skip
    return [reply.answer for reply in result.replies]


def held_out_accuracy(tokenizer, per_kind: int = 24) -> Measure:
    """Return a function that measures a model on unseen tasks, by running its code."""
    asked = {
        kind: coding.problems(per_kind, seed=12345, kind=kind) for kind in coding.KINDS
    }

    def measure(model) -> Log:
        model.eval()
        shares = {}
        for kind, problems in asked.items():
            grades = coding.grade_all(problems, answers(model, tokenizer, problems))
            shares[kind] = sum(grade.right for grade in grades) / len(grades)
        model.train()
        return {
            "write": round(shares["write"], 4),
            "fill_in": round(shares["fill in"], 4),
            "fix": round((shares["fix"] + shares["retry"]) / 2, 4),
        }

    return measure


# No repetition penalty, unlike Qwen2.5-Coder's: code repeats names.
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
PLAN = Plan(
    "pocket-coder",
    make_tokenizer,
    build,
    {"copying": COPYING, "main": FULL, "practice": PRACTICE},
    QUICK,
    held_out_accuracy,
    material=Material(batch, capped_losses, tuple(CURVES)),
    curves=CURVES,
    generation=SAMPLING,
)

if __name__ == "__main__":
    main(PLAN)
