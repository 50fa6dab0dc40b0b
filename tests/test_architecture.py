"""The formulas by hand give what transformers builds, and what Qwen published."""

import subprocess
import sys

import pytest

from qwen_course import architecture, catalog
from qwen_course.architecture import build, compare, configuration, count
from qwen_course.datafiles import read_yaml

KNOWN = [c for c in catalog.models() if architecture.is_known(c)]
SHAPES = list({(c.shape, c.architecture): c for c in KNOWN}.values())


def by_name(checkpoint):
    return checkpoint.name


# Counting


@pytest.mark.parametrize("checkpoint", SHAPES, ids=by_name)
def test_the_formulas_count_what_transformers_builds(checkpoint):
    config = configuration(checkpoint)
    assert count(config).total == build(config).num_parameters()


@pytest.mark.parametrize("checkpoint", KNOWN, ids=by_name)
def test_the_formulas_give_the_counts_of_the_catalogue(checkpoint):
    parts, shape = count(configuration(checkpoint)), checkpoint.shape
    assert parts.total == shape.parameters
    assert parts.active == (shape.active_parameters or shape.parameters)
    tables = parts.embedding + parts.output
    assert shape.non_embedding_parameters == parts.total - tables


@pytest.mark.parametrize(
    "name",
    [
        "Qwen2.5-7B",
        "Qwen3-8B",
        "Qwen3-30B-A3B",
        "Qwen3-Next-80B-A3B-Instruct",
        "Qwen3.5-9B",
    ],
)
def test_each_part_is_that_of_the_modules(name):
    config = configuration(name)
    parts, found = count(config), dict.fromkeys(("attn", "mlp", "layernorm"), 0)
    for key, weights in build(config).named_parameters():
        for word in found:
            if f"{word}." in key:
                found[word] += weights.numel()
                break
    assert found["attn"] == parts.attention
    assert found["mlp"] == parts.feed_forward
    assert (
        found["layernorm"] == parts.norms - config.hidden_size
    )  # the last has no layer


def test_a_tied_output_layer_is_counted_once():
    small, large = (count(configuration(f"Qwen3-{size}")) for size in ("0.6B", "8B"))
    assert small.output == 0
    assert large.output == large.embedding == 151_936 * 4096


def test_a_token_visits_everything_in_a_dense_model_and_few_experts_in_a_mixture():
    dense, mixture = (
        count(configuration("Qwen3-8B")),
        count(configuration("Qwen3-30B-A3B")),
    )
    assert dense.idle == 0
    assert dense.active == dense.total
    one_expert = 3 * 2048 * 768
    assert mixture.idle == 48 * (128 - 8) * one_expert


def test_a_model_type_without_a_formula_says_how_to_count_it():
    from transformers import GPT2Config

    with pytest.raises(
        ValueError, match=r'"gpt2" is not one of qwen2.*build\(config\)'
    ):
        count(GPT2Config())


# Configurations


def test_every_fourth_layer_of_a_hybrid_has_full_attention_as_the_catalogue_says():
    for checkpoint in KNOWN:
        if full := checkpoint.shape.full_attention_layers:
            kinds = configuration(checkpoint).layer_types
            assert kinds.count("full_attention") == full
            assert kinds[3::4] == ["full_attention"] * full


def test_a_checkpoint_with_unknown_dimensions_says_where_they_are():
    with pytest.raises(ValueError, match="config.json has them: AutoConfig"):
        configuration("Qwen3-Coder-Next")


def test_a_slip_in_a_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match='Did you mean "Qwen3-8B"'):
        configuration("Qwen3-8")


def test_a_model_on_the_meta_device_takes_no_memory():
    model = build(configuration("Qwen3-235B-A22B"))
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_random_model_is_tied_finite_and_answers():
    import torch

    config = configuration("Qwen3-0.6B")
    config.num_hidden_layers, config.layer_types = 2, config.layer_types[:2]
    config.vocab_size = 300
    model = architecture.random_model(config, torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.num_parameters() == count(config).total
    ids = torch.arange(5)[None]
    with torch.no_grad():
        logits = model(ids).logits
        apart = model(ids, position_ids=torch.tensor([[0, 9, 11, 40, 41]])).logits
    assert logits.isfinite().all()
    assert not torch.equal(logits, apart)  # the angles of RoPE were not left empty


def test_its_weights_have_the_type_asked_for():
    import torch

    config = configuration("Qwen3-0.6B")
    config.num_hidden_layers, config.vocab_size = 1, 300
    model = architecture.random_model(config, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


# What Qwen published


def test_the_comparison_holds_every_checkpoint_with_known_dimensions():
    compared = compare()
    assert [item.checkpoint for item in compared] == KNOWN
    assert len(compared) == 122


def test_text_models_are_as_large_as_published_but_for_rounded_names():
    far = {
        item.checkpoint.name.removesuffix("-Chat").removesuffix("-Instruct")
        for item in compare()
        if item.is_text and abs(item.deviation) > 0.06
    }
    assert far == {"Qwen-7B", "Qwen1.5-7B", "Qwen1.5-0.5B", "Qwen2-7B"}


def test_published_speed_follows_the_active_parameters_and_not_the_total():
    speed = read_yaml("published")["speed"]["tokens_per_second"]
    active = {name: catalog.get(name).active_parameters for name in speed}
    dense = {name: speed[name] for name in speed if "A3B" not in name}
    assert sorted(dense, key=dense.get) == sorted(dense, key=active.get, reverse=True)
    assert speed["Qwen3-30B-A3B"] > speed["Qwen3-4B"] > 6 * speed["Qwen3-32B"]


def test_the_rivals_have_a_score_on_each_benchmark_they_are_compared_on():
    published = read_yaml("published")
    benchmarks = published["thinking_pays"]["benchmarks"]
    for name, scores in published["rivals"]["models"].items():
        assert catalog.get(name).thinking in ("only", "none")
        assert len(scores) == len(benchmarks)
        assert all(0 < score <= 100 for score in scores)


def test_a_part_table_shows_shares_and_active_only_for_a_mixture():
    dense, mixture = (
        str(count(configuration(name))) for name in ("Qwen3-8B", "Qwen3-30B-A3B")
    )
    assert "feed forward  5,435,817,984  66.4%" in dense
    assert "active" not in dense
    assert mixture.splitlines()[-1].split() == ["active", "3,353,032,704", "11.0%"]


def test_a_comparison_shows_itself_as_a_table_and_a_picture():
    compared = compare()
    assert str(compared[:1]).splitlines()[1].split() == [
        *("Qwen/Qwen-7B", "7B", "7.721B", "+10.3%")
    ]
    axes = compared.plot(named=["Qwen-7B"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["Qwen-7B"]
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 122
    assert "within 3%" in axes.get_title()


def test_importing_it_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from qwen_course import architecture; "
        "print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
