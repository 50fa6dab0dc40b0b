"""What training takes: sums that follow from the dimensions."""

import pytest

from qwen_course import training_memory
from qwen_course.training_memory import need


def test_a_lora_counts_what_peft_counts(pocket):
    """By hand from the shape, and from the matrices that PEFT attaches."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from qwen_course import catalog, fine_tuning

    shape = catalog.get("Qwen3-0.6B").shape
    with torch.device("meta"):
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=shape.vocab_size, hidden_size=shape.hidden_size,
                intermediate_size=shape.intermediate_size, head_dim=shape.head_dim,
                num_hidden_layers=shape.num_hidden_layers,
                num_attention_heads=shape.num_attention_heads,
                num_key_value_heads=shape.num_key_value_heads,
            )
        )  # fmt: skip
        adapted = fine_tuning.attach_lora(model, rank=16)
    count = fine_tuning.trained_parameters(adapted)
    assert count == training_memory.lora_parameters("Qwen3-0.6B", rank=16)


def test_full_training_takes_sixteen_bytes_a_weight():
    whole = need("Qwen3-8B", "full")
    assert whole.optimizer == 16 * whole.trained
    assert whole.weights == 0  # they are among the sixteen


def test_the_methods_are_ordered_and_gpus_share():
    totals = [need("Qwen3-8B", method).total for method in ("full", "lora", "qlora")]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 120e9 > 24e9 > totals[1]  # no single GPU; a 24 GB one
    one, eight = need("Qwen3-32B", "lora"), need("Qwen3-32B", "lora", gpus=8)
    assert eight.weights == one.weights // 8
    assert eight.total > one.total / 8  # activations and one gathered layer stay


def test_a_mixture_adapts_its_attention_alone():
    moe = training_memory.lora_parameters("Qwen3-235B-A22B")
    assert moe < 100e6
    rows = training_memory.table(["Qwen3-0.6B", "Qwen3-235B-A22B"], gpus=(1, 8))
    assert len(rows) == 12
    assert "each GPU" in repr(rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: need("Qwen3-8B", "qlara"), 'Did you mean "qlora"'),
        (lambda: need("Qwen3-8B", gpus=0), "gpus is 0"),
        (lambda: need("Qwen3-8B", rank=0), "rank is 0"),
    ],
)
def test_wrong_numbers_name_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
