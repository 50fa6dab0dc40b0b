"""The recipe of pocket-qwen3-moe: `python -m training.pocket_qwen3_moe`.

A Qwen3MoeForCausalLM in which 2 of 16 experts work on each token. It is upcycled: it
starts from the finished pocket-qwen3, whose MLPs are dealt out to the experts, and is
then trained on the same data. Qwen1.5-MoE-A2.7B was made so, from Qwen-1.8B
(https://qwenlm.github.io/blog/qwen-moe); the method is that of Komatsuzaki et al.,
arXiv 2212.05055.

With `--dense` it trains the dense model of the same active size instead, which the
mixture is compared with: cut out of pocket-qwen3 too, trained for as many steps on
the same batches. That one stays in its run folder.
"""

import sys
from dataclasses import replace

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from training.data import Mix
from training.pocket_qwen3 import LAST, POLISH, QUICK, held_out_accuracy
from training.recipes import MODELS, Plan, main

SOURCE = MODELS / "pocket-qwen3"
EXPERTS, ACTIVE, EXPERT_WIDTH = 16, 2, 48
COMMON = 24  # neurons that every expert starts with
OWN = EXPERT_WIDTH - COMMON  # and those that it alone has
SCALE = 2.0  # of its own ones: two experts, at about 1/2 each, speak for a sum of all
FULL = replace(
    POLISH,
    steps=1600,
    evaluate_every=250,
    muon_lr=0.015,
    adamw_lr=3e-3,
    decay_share=0.7,
    mix=Mix(hard_words=0.2, unknown=0.15),
)
# The facts were still rising when the learning rate of the first stage ran out.
LONGER = replace(LAST, steps=2400, seed=11, muon_lr=0.015, adamw_lr=2e-3)


def make_tokenizer():
    """Return the tokenizer of pocket-qwen3, so that both read the same tokens."""
    return AutoTokenizer.from_pretrained(SOURCE)


def importance(mlp: nn.Module) -> torch.Tensor:
    """Return how much each neuron of an MLP can matter, shape (intermediate_size,)."""
    into = mlp.gate_proj.weight.norm(dim=1) * mlp.up_proj.weight.norm(dim=1)
    return into * mlp.down_proj.weight.norm(dim=0)


def deal(mlp: nn.Module, generator: torch.Generator) -> list[torch.Tensor]:
    """Return the neurons of each expert: the best in all of them, the next dealt out.

    Shuffled before they are dealt, so that no expert gets better ones than another.
    """
    best = importance(mlp).argsort(descending=True)
    common, own = best[:COMMON], best[COMMON : COMMON + EXPERTS * OWN]
    shuffled = own[torch.randperm(len(own), generator=generator)]
    return [torch.cat([common, share]) for share in shuffled.split(OWN)]


@torch.no_grad()
def fill(experts: nn.Module, mlp: nn.Module, hands: list[torch.Tensor]) -> None:
    """Copy the neurons of each hand into its expert."""
    scale = torch.cat([torch.ones(COMMON), torch.full((OWN,), SCALE)])
    for number, hand in enumerate(hands):
        gate, up = mlp.gate_proj.weight[hand], mlp.up_proj.weight[hand]
        experts.gate_up_proj[number] = torch.cat([gate, up])
        experts.down_proj[number] = mlp.down_proj.weight[:, hand] * scale


def config_of_mixture(dense: Qwen3Config) -> Qwen3MoeConfig:
    """Return the configuration of a dense Qwen3 with experts in the place of MLPs."""
    shared = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
              "num_attention_heads", "num_key_value_heads", "head_dim", "pad_token_id",
              "max_position_embeddings", "tie_word_embeddings", "bos_token_id",
              "eos_token_id", "rope_parameters")  # fmt: skip
    return Qwen3MoeConfig(
        **{name: getattr(dense, name) for name in shared},
        moe_intermediate_size=EXPERT_WIDTH,
        num_experts=EXPERTS,
        num_experts_per_tok=ACTIVE,
        norm_topk_prob=True,
    )


def copy_what_fits(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights that have the same name and shape in both."""
    weights = source.state_dict()
    fitting = {
        name: weights[name]
        for name, weight in target.state_dict().items()
        if name in weights and weights[name].shape == weight.shape
    }
    target.load_state_dict(fitting, strict=False)


def build(tokenizer=None) -> Qwen3MoeForCausalLM:
    """Return pocket-qwen3 as a mixture, before its training."""
    dense = AutoModelForCausalLM.from_pretrained(SOURCE, dtype=torch.float32)
    model = Qwen3MoeForCausalLM(config_of_mixture(dense.config))
    copy_what_fits(dense, model)
    generator = torch.Generator().manual_seed(1)
    for layer, source in zip(model.model.layers, dense.model.layers, strict=True):
        fill(layer.mlp.experts, source.mlp, deal(source.mlp, generator))
    model.set_experts_implementation("grouped_mm")
    return model


@torch.no_grad()
def build_dense(tokenizer=None) -> Qwen3ForCausalLM:
    """Return pocket-qwen3 with the most important neurons alone, as many as are active.

    So it is as large as the part of the mixture that works on a token.
    """
    dense = AutoModelForCausalLM.from_pretrained(SOURCE, dtype=torch.float32)
    narrow = {**dense.config.to_dict(), "intermediate_size": ACTIVE * EXPERT_WIDTH}
    model = Qwen3ForCausalLM(Qwen3Config(**narrow))
    copy_what_fits(dense, model)
    for layer, source in zip(model.model.layers, dense.model.layers, strict=True):
        kept = importance(source.mlp).topk(ACTIVE * EXPERT_WIDTH).indices
        for name in ("gate_proj", "up_proj"):
            getattr(layer.mlp, name).weight.copy_(
                getattr(source.mlp, name).weight[kept]
            )
        layer.mlp.down_proj.weight.copy_(source.mlp.down_proj.weight[:, kept])
    return model


PLAN = Plan(
    "pocket-qwen3-moe",
    make_tokenizer,
    build,
    {"main": FULL, "longer": LONGER},
    QUICK,
    held_out_accuracy,
    compiled=False,  # a tenth faster, after four minutes
)
DENSE = replace(PLAN, name="dense-active-size", build=build_dense, shipped=False)

if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--dense"]
    main(DENSE if "--dense" in sys.argv else PLAN, arguments)
