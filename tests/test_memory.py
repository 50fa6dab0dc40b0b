"""What a model needs: computed by hand, and held against what Qwen published."""

import pytest

from qwen_course import catalog, memory
from qwen_course.datafiles import read_yaml

UNITS = {"GiB": 2**30, "MiB": 2**20}


def published_rows():
    """Yield model, precision, published bytes and the arguments that go with them."""
    for block in read_yaml("published")["memory"]:
        context = block["prompt"] + block["generated"]
        for model, row in block["rows"].items():
            apart = block.get("separate_head", {}).get(model, [])
            for precision, size in row.items():
                yield pytest.param(
                    model, precision, size * UNITS[block["unit"]],
                    {"context": context, "prompt": block["prompt"],
                     "separate_head": precision in apart},
                    id=f"{model}-{precision}-{block['prompt']}",
                )  # fmt: skip


@pytest.mark.parametrize(("model", "precision", "size", "given"), [*published_rows()])
def test_it_comes_within_a_tenth_of_every_figure_that_qwen_published(
    model, precision, size, given
):
    total = memory.estimate(model, precision, **given).total
    assert total == pytest.approx(size, rel=0.07)


def test_the_parts_are_what_one_computes_by_hand():
    """Qwen3-8B, from the numbers of its config.json."""
    found = memory.estimate("Qwen3-8B", "bf16", context=1000, batch=3, prompt=10)
    assert found.weights == 2 * 8_190_735_360
    assert found.kv_cache == 3 * 1000 * (2 * 36 * 8 * 128 * 2)
    assert found.activations == 3 * 10 * (3 * 12288 + 4 * 4096) * 2
    assert found.total == found.weights + found.kv_cache + found.activations


def test_quantization_leaves_the_tables_alone():
    size = memory.dimensions("Qwen3-8B")
    tables = 2 * 151936 * 4096
    assert size.tables == tables
    nf4 = memory.estimate("Qwen3-8B", "nf4").weights
    assert nf4 - 2 * tables == pytest.approx(
        (size.parameters - tables) * 0.516, rel=1e-3
    )


def test_the_cache_grows_with_every_token_and_sequence_and_the_weights_do_not():
    one = memory.estimate("Qwen3-0.6B", context=1000)
    two = memory.estimate("Qwen3-0.6B", context=2000)
    many = memory.estimate("Qwen3-0.6B", context=1000, batch=8)
    assert two.kv_cache == 2 * one.kv_cache
    assert many.kv_cache == 8 * one.kv_cache
    assert one.weights == two.weights == many.weights


def test_linear_attention_keeps_most_of_the_cache_away():
    """Qwen3-Next has 12 layers of 48 with a cache; the others hold one state."""
    size = memory.dimensions("Qwen3-Next-80B-A3B-Instruct")
    assert (size.attention_layers, size.linear_layers) == (12, 36)
    short = memory.kv_cache_bytes(size, 1)
    per_token = memory.kv_cache_bytes(size, 2) - short
    assert per_token == 2 * 12 * 2 * 256 * 2
    assert short - per_token == 36 * 32 * 128 * 128 * 4


def test_a_token_of_a_mixture_passes_only_the_experts_it_visits():
    assert memory.dimensions("Qwen3-30B-A3B").feed_forward == 8 * 768
    shared = memory.dimensions("Qwen2-57B-A14B-Instruct").feed_forward
    assert shared == 8 * 2560 + 20480


def test_a_pocket_model_is_counted_from_its_configuration():
    found = memory.estimate("pocket-qwen3", "bf16")
    assert found.weights == 2 * memory.dimensions("pocket-qwen3").parameters
    assert found.model == "pocket-qwen3"


def test_a_configuration_gives_what_the_catalogue_gives():
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=151936, hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
        head_dim=128, tie_word_embeddings=True,
    )  # fmt: skip
    by_config = memory.estimate(config, "int8", context=512)
    by_id = memory.estimate("Qwen/Qwen3-0.6B", "int8", context=512)
    assert by_config.total == by_id.total
    assert by_config.model == "qwen3"


@pytest.mark.parametrize("checkpoint", catalog.models(), ids=lambda c: c.name)
def test_every_checkpoint_is_estimated_or_says_what_is_unknown(checkpoint):
    unknown = None in (checkpoint.shape.head_dim, checkpoint.shape.tie_word_embeddings)
    if unknown:
        with pytest.raises(ValueError, match="does not know .* AutoConfig"):
            memory.estimate(checkpoint)
    else:
        found = memory.estimate(checkpoint)
        assert found.weights >= 2 * 0.9 * checkpoint.total_parameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "int4"}, 'precision "int4" is not one of fp32'),
        ({"precision": "nf"}, 'Did you mean "nf4"'),
        ({"context": 0}, "context is 0; give a whole number from 1 up"),
        ({"context": 10.5}, "context is 10.5"),
        ({"batch": True}, "batch is True"),
        ({"context": 10, "prompt": 20}, "the prompt is a part of the context"),
    ],
)
def test_wrong_input_names_the_remedy(given, message):
    with pytest.raises(ValueError, match=message):
        memory.estimate("Qwen3-0.6B", **given)


def test_a_slip_in_a_precision_keeps_its_number_of_bits():
    """ "int4" looks like int8, and means 4 bits."""
    with pytest.raises(ValueError, match='Did you mean "gptq-int4"'):
        memory.estimate("Qwen3-8B", "int4")
    with pytest.raises(ValueError, match='Did you mean "fp16"'):
        memory.estimate("Qwen3-8B", "float16")


def test_the_published_rows_are_estimated_the_way_they_were_measured():
    rows = memory.published()
    assert len(rows) == len([*published_rows()])
    for row, expected in zip(rows, published_rows(), strict=True):
        model, precision, size, given = expected.values
        assert (row.model, row.precision, row.measured) == (model, precision, size)
        assert row.estimate.total == memory.estimate(model, precision, **given).total
        assert row.error == pytest.approx(row.estimate.total / size - 1)


def test_the_published_rows_show_themselves_as_a_table_and_a_picture():
    rows = memory.published()
    assert str(rows[:1]).splitlines()[1].split()[:3] == [
        *("Qwen2.5-0.5B-Instruct", "bf16", "2,049")
    ]
    axes = rows.plot().axes[0]
    shown = sum(len(dots.get_offsets()) for dots in axes.collections)
    assert shown == len(rows)
    assert "within 10%" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ValueError, match="Qwen3-0.6B"):
        memory.estimate("Qwen3-0.6")


def test_it_shows_itself_as_a_table_in_binary_units():
    found = memory.estimate("Qwen3-0.6B", context=32768)
    assert str(found).splitlines()[0] == "Qwen3-0.6B, bf16, 32,768 tokens"
    assert "KV cache     3.50 GiB" in str(found)
    assert found._repr_html_().count("<tr>") == 5
    assert "x 4" in str(memory.estimate("Qwen3-0.6B", batch=4))
