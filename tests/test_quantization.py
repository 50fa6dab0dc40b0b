"""Quantization: by hand equal to the libraries, and what it costs measured honestly."""

import pytest
import torch

import qwen_course as qc
from qwen_course import loading, quantization
from qwen_course.meters import cache_bytes, storage_bytes
from qwen_course.precision_costs import perplexity
from qwen_course.quantization import absmax, affine, nf4


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return 0.02 * torch.randn(64, 256, generator=generator)


@pytest.fixture(scope="module")
def tiny():
    """A Qwen3 of two small layers, with random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=256, hidden_size=64, intermediate_size=128,
                num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                head_dim=32, max_position_embeddings=512,
            )
        ).eval()  # fmt: skip


PADDED = {
    "input_ids": torch.arange(40).reshape(2, 20),
    "attention_mask": torch.tensor([[0] * 5 + [1] * 15, [1] * 20]),
    "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0,
}  # fmt: skip


# By hand


def test_absmax_of_a_row_is_the_int8_of_bitsandbytes(weights):
    functional = pytest.importorskip("bitsandbytes.functional")
    by_hand = absmax(weights.half(), bits=8)
    codes, peaks, _ = functional.int8_vectorwise_quant(weights.half())
    assert torch.equal(by_hand.codes.view(64, 256), codes)
    assert torch.allclose(127 * by_hand.scales.flatten(), peaks)


def test_nf4_is_the_nf4_of_bitsandbytes_to_the_last_bit(weights):
    functional = pytest.importorskip("bitsandbytes.functional")
    by_hand = nf4(weights)
    packed, state = functional.quantize_4bit(weights, blocksize=64, quant_type="nf4")
    assert torch.equal(quantization.pack(by_hand.codes.flatten()), packed.flatten())
    assert torch.equal(by_hand.scales.flatten(), state.absmax)
    restored = functional.dequantize_4bit(packed, state)
    assert torch.equal(by_hand.dequantize(), restored)


def test_the_levels_of_nf4_follow_from_the_normal_distribution():
    functional = pytest.importorskip("bitsandbytes.functional")
    levels = quantization.nf4_levels()
    published = functional.get_4bit_type("nf4", device="cpu")
    assert torch.allclose(levels, published, atol=1e-6)
    assert levels[7] == 0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_affine_groups_are_what_pytorch_rounds_to(weights, bits):
    by_hand = affine(weights, bits, group=64)
    rows = quantization.in_groups(weights, 64).reshape(-1, 64)
    expected = torch.fake_quantize_per_channel_affine(
        rows, by_hand.scales.flatten(), by_hand.zeros.flatten().int(), 0, 0, 2**bits - 1
    )
    assert torch.allclose(by_hand.dequantize(), expected.view(64, 256), atol=1e-7)


@pytest.mark.parametrize("method", [absmax, affine])
def test_no_weight_moves_by_more_than_half_a_step(weights, method):
    found = method(weights, bits=4, group=32)
    step = found.scales.expand_as(found.codes).reshape(weights.shape)
    moved = (found.dequantize() - weights).abs()
    edge = 1 if method is affine else 0  # a rounded zero point moves the ends
    assert (moved <= (0.5 + edge) * step * 1.001).all()


@pytest.mark.parametrize("method", [absmax, affine])
def test_fewer_bits_and_larger_groups_cost_accuracy(weights, method):
    def error(bits, group):
        return quantization.relative_error(
            weights, method(weights, bits, group).dequantize()
        )

    assert error(8, 64) < error(4, 64) < error(3, 64) < error(2, 64)
    assert error(4, 16) < error(4, 64) < error(4, 256)


def test_one_outlier_spoils_its_group_only(weights):
    spoilt = weights.clone()
    spoilt[0, 0] = 100 * weights.abs().max()
    rest = (slice(0, 1), slice(64, 256))
    for group, spared in ((64, True), (None, False)):
        restored = affine(spoilt, 4, group).dequantize()[rest]
        error = quantization.relative_error(weights[rest], restored)
        assert (error < 0.2) is spared


def test_zeros_stay_zeros():
    """A group of zeros has no scale; a group above zero needs its 0 exact."""
    for method in (absmax, affine):
        assert not method(torch.zeros(2, 64), 4, 64).dequantize().any()
    above = torch.tensor([[0.0, 5.0, 6.0, 7.0]])
    assert affine(above, 4, group=None).dequantize()[0, 0] == 0


def test_the_bits_of_a_weight_include_its_scale():
    weights = torch.randn(4, 128)
    assert absmax(weights, 8).bits_per_weight == 8 + 16 / 128
    assert affine(weights, 4, 64).bits_per_weight == 4 + (16 + 4) / 64


def test_packed_codes_come_back():
    codes = torch.arange(16, dtype=torch.uint8).repeat(3, 2)
    packed = quantization.pack(codes)
    assert packed.nbytes == codes.nbytes / 2
    assert torch.equal(quantization.unpack(packed), codes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: affine(w, 4, 100), "cannot be cut into groups of 100.*64, 128, 256"),
        (lambda w: absmax(w, 1), "bits is 1; give a whole number from 2 to 8"),
        (lambda w: quantization.quantized_cache(3), "this cache knows 4 and 8"),
    ],
)
def test_wrong_numbers_name_the_remedy(weights, call, message):
    with pytest.raises(ValueError, match=message):
        call(weights)


# A whole model


def test_a_rounded_copy_leaves_model_and_tables_alone(tiny):
    before = {name: p.clone() for name, p in tiny.named_parameters()}
    copy = quantization.rounded(tiny, bits=3, group=32)
    for name, parameter in tiny.named_parameters():
        assert torch.equal(parameter, before[name])
    changed = {
        name
        for name, parameter in copy.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert changed == {f"{name}.weight" for name in quantization.linear_layers(tiny)}
    assert len(changed) == 2 * 7


def test_rounding_by_hand_answers_as_the_library_does(pocket):
    """NF4 in the copy, and NF4 of bitsandbytes: the same numbers in the same places."""
    pytest.importorskip("bitsandbytes")
    model, tokenizer = pocket
    copy = quantization.rounded(model, 4, 64, lambda w, bits, group: nf4(w, group))
    library, _ = qc.load("pocket-qwen3", "nf4-single", device="cpu")
    layer = "model.layers.3.mlp.up_proj"
    state = library.get_submodule(layer).weight
    from bitsandbytes.functional import dequantize_4bit

    restored = dequantize_4bit(state.data, state.quant_state).float()
    assert torch.allclose(restored, copy.get_submodule(layer).weight, atol=2e-3)
    problems = qc.tasks.sums.problems(4, seed=1, count=3)
    near = perplexity(copy, tokenizer, problems)
    assert perplexity(library, tokenizer, problems) == pytest.approx(near, rel=0.05)


def test_double_quantization_stores_less_than_single(pocket):
    """Before the first use: some CPUs then unpack the scales again."""
    pytest.importorskip("bitsandbytes")
    sizes = {
        precision: storage_bytes(qc.load("pocket-qwen3", precision, "cpu")[0])
        for precision in ("nf4", "nf4-single", "int8")
    }
    assert sizes["nf4"] < sizes["nf4-single"] < sizes["int8"] < storage_bytes(pocket[0])


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_an_exported_model_is_read_again_and_answers_the_same(tmp_path, precision):
    pytest.importorskip("bitsandbytes")
    model, tokenizer = qc.load("pocket-qwen3", precision, device="cpu")
    size = quantization.export(model, tokenizer, tmp_path)
    again, its_tokenizer = qc.load(tmp_path, device="cpu")
    assert size < 13_900_000  # what the file in bf16 has
    assert again.config.quantization_config.load_in_4bit is (precision == "nf4")
    options = {"sampling": "greedy", "max_new_tokens": 24}
    texts = [qc.chat(*pair, "What is 38 + 47?", **options).answer
             for pair in ((model, tokenizer), (again, its_tokenizer))]  # fmt: skip
    assert texts[0] == texts[1] == "85"


def test_a_model_that_would_be_saved_wrong_is_refused(tmp_path):
    """bitsandbytes repacks at first use, and saved the scales in the wrong order."""
    functional = pytest.importorskip("bitsandbytes.functional")
    if not functional.has_avx512bf16():
        pytest.skip("this CPU has no bf16 instructions, so nothing is repacked")
    model, tokenizer = qc.load("pocket-qwen3", "nf4-single", device="cpu")
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))
    with pytest.raises(ValueError, match="export it before it generates"):
        quantization.export(model, tokenizer, tmp_path)


# What this machine can do


def test_what_runs_everywhere_has_no_reason_not_to():
    assert loading.why_not("bf16") is None
    assert "Did you mean" in loading.why_not("nf4-singel")


def test_a_precision_without_its_package_says_what_to_type(monkeypatch):
    """Find nothing, whatever is installed here."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for precision, package in (
        ("torchao-int8", "torchao"), ("nf4-single", "bitsandbytes"), ("int8", "bits"),
    ):  # fmt: skip
        reason = loading.why_not(precision)
        assert f"python -m pip install {package}" in reason


def test_four_bits_of_torchao_name_another_way_on_a_cpu(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert 'Use precision="nf4"' in loading.why_not("torchao-int4", "cpu")


# The KV cache


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_cache_is_small_and_reads_the_prompt_exactly(tiny, bits):
    from transformers import DynamicCache

    plain, small = DynamicCache(), quantization.quantized_cache(bits)
    whole = tiny.generate(**PADDED, past_key_values=plain)
    written = tiny.generate(**PADDED, past_key_values=small)
    assert torch.equal(whole[:, :21], written[:, :21])  # the first new token
    assert small.get_seq_length() == plain.get_seq_length() == 31
    share = cache_bytes(small) / cache_bytes(plain)
    assert share == pytest.approx((bits + (16 + 8) / 32) / 32)


def test_what_a_quantized_cache_restores_is_near(tiny):
    with torch.no_grad():
        for bits, most in ((8, 0.01), (4, 0.15)):
            cache = quantization.quantized_cache(bits, group=16)
            tiny(PADDED["input_ids"], past_key_values=cache)
            exact = tiny(PADDED["input_ids"], use_cache=True).past_key_values
            new = torch.zeros(2, 2, 1, 32)
            restored = cache.layers[0].update(new, new)[0][:, :, :-1]
            error = quantization.relative_error(exact.layers[0].keys, restored)
            assert error < most


def test_inside_the_block_every_call_has_a_cache_of_its_own(pocket):
    made = []

    def make():
        made.append(quantization.quantized_cache(bits=8))
        return made[-1]

    model, tokenizer = pocket
    problems = qc.tasks.sums.problems(3, seed=2, count=3)
    with quantization.cached_in(model, make):
        result = qc.evaluate(model, tokenizer, problems, progress=False, batch_size=2)
    assert result.score.total == 3
    assert len(made) == 2
    assert "generate" not in vars(model)


# On a small device


def test_a_short_question_is_read_whole(pocket):
    reply = quantization.mobile_inference(
        *pocket, "What is 12 + 30?", sampling="greedy"
    )
    assert reply.answer == "42"
    assert (reply.question_tokens, reply.dropped_tokens) == (10, 0)


def test_a_long_question_loses_its_middle_and_keeps_its_end(pocket):
    text = "word " * 2000 + "What is 12 + 30?"
    reply = quantization.mobile_inference(
        *pocket, text, max_prompt_tokens=20, sampling="greedy"
    )
    assert reply.dropped_tokens == reply.question_tokens - 20
    assert "42" in reply.answer
    with pytest.raises(ValueError, match="max_prompt_tokens is 0"):
        quantization.mobile_inference(*pocket, text, max_prompt_tokens=0)
