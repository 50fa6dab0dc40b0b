"""The recipe of pocket-qwen3-moe: `python -m training.pocket_qwen3_moe`.

The same data, tokenizer and number of steps as pocket-qwen3; a Qwen3MoeForCausalLM in
which 2 of 16 experts work on each token. With `--dense` it trains the dense model of
the same active size instead, which the mixture is compared with; that one stays in
its run folder.
"""

import sys
from dataclasses import replace

from transformers import (
    AutoTokenizer,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from training import pocket_qwen3
from training.pocket_qwen3 import CONTEXT, FULL, QUICK, held_out_accuracy
from training.recipes import MODELS, Plan, main, vocabulary_rows

LAYERS, WIDTH, EXPERT_WIDTH = 6, 256, 72
EXPERTS, ACTIVE = 16, 2


def make_tokenizer():
    """Return the tokenizer of pocket-qwen3, so that both read the same tokens."""
    return AutoTokenizer.from_pretrained(MODELS / "pocket-qwen3")


def build(tokenizer) -> Qwen3MoeForCausalLM:
    """Return the untrained mixture: 6 layers with 16 experts of width 72 each."""
    model = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=vocabulary_rows(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=704,  # of a dense layer; there is none
            moe_intermediate_size=EXPERT_WIDTH,
            num_experts=EXPERTS,
            num_experts_per_tok=ACTIVE,
            norm_topk_prob=True,
            num_hidden_layers=LAYERS,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_experts_implementation("grouped_mm")
    return model


def build_dense(tokenizer) -> Qwen3ForCausalLM:
    """Return a dense model as large as the part of the mixture that is active."""
    config = pocket_qwen3.shape(vocabulary_rows(tokenizer), tokenizer)
    config.update(
        {"num_hidden_layers": LAYERS, "intermediate_size": ACTIVE * EXPERT_WIDTH}
    )
    config.layer_types = config.layer_types[:LAYERS]
    return Qwen3ForCausalLM(config)


PLAN = Plan(
    "pocket-qwen3-moe",
    make_tokenizer,
    build,
    {"main": FULL},
    QUICK,
    held_out_accuracy,
)
DENSE = replace(PLAN, name="dense-active-size", build=build_dense, shipped=False)

if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--dense"]
    main(DENSE if "--dense" in sys.argv else PLAN, arguments)
