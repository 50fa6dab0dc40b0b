"""What a benchmark reads off: every byte of a model once, and true peaks."""

import sys

import pytest
import torch

from qwen_course import architecture, memory, meters


def test_a_tensor_that_is_used_twice_is_stored_once(tiny):
    assert tiny.lm_head.weight is tiny.model.embed_tokens.weight
    plain = sum(p.nbytes for p in tiny.parameters())
    buffers = sum(b.nbytes for b in {b.data_ptr(): b for b in tiny.buffers()}.values())
    assert meters.storage_bytes(tiny) == plain + buffers


def test_scales_of_bitsandbytes_are_counted():
    nn = pytest.importorskip("bitsandbytes.nn")
    weight = nn.Params4bit(
        torch.randn(64, 64), requires_grad=False, quant_type="nf4",
        compress_statistics=False,
    ).to("cpu")  # fmt: skip
    layer = torch.nn.Module()
    layer.weight = weight
    codes, scales, levels = 64 * 64 / 2, 4 * 64, 4 * 16
    assert meters.storage_bytes(layer) == codes + scales + levels


def test_a_step_reads_the_weights_and_the_cache_of_every_row(tiny, tiny_config):
    weights = meters.storage_bytes(tiny)
    assert meters.step_bytes(tiny) == weights  # tied: the table is the output
    cache = memory.kv_cache_bytes(memory.dimensions(tiny_config), 10, bytes_each=4)
    assert meters.step_bytes(tiny, 10, batch=3) == weights + 3 * cache


def test_a_step_reads_one_row_of_an_input_table_of_its_own(tiny_config):
    untied = type(tiny_config)(
        **{**tiny_config.to_dict(), "tie_word_embeddings": False}
    )
    model = architecture.random_model(untied, torch.float32)
    table = model.model.embed_tokens.weight.nbytes
    assert meters.step_bytes(model) == meters.storage_bytes(model) - table


def test_a_step_of_a_mixture_reads_the_experts_it_visits():
    from transformers import Qwen3MoeConfig

    config = Qwen3MoeConfig(
        vocab_size=512, hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, num_experts=8, num_experts_per_tok=2,
        moe_intermediate_size=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = architecture.random_model(config, torch.float32)
    idle = 6 * 3 * 64 * 32 * 4
    assert meters.step_bytes(model) == meters.storage_bytes(model) - idle


def test_the_peak_of_the_process_sees_what_was_freed_again():
    meters.reset_peaks()
    before = meters.process_peak()
    torch.ones(2**26)  # 256 MiB, gone at once
    assert meters.process_peak() - before > 200 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak")
def test_the_peak_begins_again():
    torch.ones(2**26)
    high = meters.process_peak()
    meters.reset_peaks()
    assert meters.process_peak() < high
