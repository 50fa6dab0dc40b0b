"""The catalogue says what its sources say, and answers a learner's slips."""

import re
import subprocess
import sys
from datetime import date
from importlib.resources import files
from types import SimpleNamespace

import pytest
import yaml

from qwen_course import catalog
from qwen_course.catalog import get, models, sampling
from qwen_course.checkpoint import Checkpoint, Shape
from qwen_course.tables import Table

EVERY = models()
COUNTED = [c for c in EVERY if c.shape.parameters]
DENSE = [c for c in COUNTED if c.architecture in {"qwen2", "qwen3"}]


def data(name):
    return yaml.safe_load(
        files("qwen_course").joinpath(f"data/{name}.yaml").read_text("utf-8")
    )


def by_name(checkpoint):
    return checkpoint.name


# What is in it


def test_the_catalogue_holds_147_checkpoints_under_unique_ids():
    assert len(EVERY) == len({c.id for c in EVERY}) == 147
    assert all(re.fullmatch(r"Qwen/[\w.-]+", c.id) for c in EVERY)


def test_every_checkpoint_names_at_least_one_source():
    assert all(c.sources and all(c.sources) for c in EVERY)


def test_every_text_in_the_file_is_used_by_some_entry():
    text = data("catalog")
    for key in ("sources", "notes"):
        owners = [*text["series"].values(), *text["models"]]
        used = {name for owner in owners for name in owner.get(key, [])}
        assert used == set(text[key])
    assert {m["shape"] for m in text["models"]} - {None} == set(text["shapes"])
    assert {c.licence for c in EVERY} - {None} == set(text["licences"])


def test_dates_are_months_or_days_and_come_in_order_with_the_unknown_last():
    dates = [c.released for c in EVERY]
    known = [d for d in dates if d]
    for d in known:
        date.fromisoformat(d if len(d) == 10 else f"{d}-01")
    assert dates == sorted(known) + [None] * (len(dates) - len(known))
    assert min(known) == "2023-08"
    assert max(known) == "2026-08-26"


def test_a_context_can_only_grow_when_it_is_extended():
    spans = [(c.native_context_tokens, c.extended_context_tokens) for c in EVERY]
    assert all(native < extended for native, extended in spans if extended)


def test_thinking_is_only_hybrid_or_absent_as_the_names_say():
    assert {c.thinking for c in EVERY} == {"none", "hybrid", "only"}
    named = [c for c in EVERY if "Thinking" in c.name or c.series in {"QwQ", "QVQ"}]
    assert named == models(thinking="only")
    assert all(c.thinking == "none" for c in EVERY if c.is_base)


# Dimensions and parameter counts


def test_query_heads_share_key_value_heads_evenly():
    shapes = [c.shape for c in EVERY if c.shape.num_key_value_heads]
    assert len(shapes) == 127
    assert all(s.num_attention_heads % s.num_key_value_heads == 0 for s in shapes)


def test_heads_side_by_side_are_as_wide_as_the_model_before_qwen3():
    early = [c.shape for c in COUNTED if "qwen3" not in c.architecture]
    assert all(s.hidden_size == s.num_attention_heads * s.head_dim for s in early)


def test_a_model_with_experts_counts_as_a_mixture_and_uses_few_of_them():
    mixtures = [c for c in EVERY if c.shape.num_experts]
    assert all(c.is_moe for c in mixtures)
    known = [c.shape for c in mixtures if c.shape.num_experts_per_tok]
    assert all(s.num_experts_per_tok * 7 < s.num_experts for s in known)


def dense_parameters(shape, architecture):
    """Count a dense Qwen2 or Qwen3 by hand, from its dimensions alone."""
    hidden, head = shape.hidden_size, shape.head_dim
    queries = shape.num_attention_heads * head
    keys = shape.num_key_value_heads * head
    attention = 2 * hidden * queries + 2 * hidden * keys
    # Qwen2 has biases on q, k and v; Qwen3 has a norm on each query and key head.
    attention += 2 * head if architecture == "qwen3" else queries + 2 * keys
    layer = attention + 3 * hidden * shape.intermediate_size + 2 * hidden
    embeddings = shape.vocab_size * hidden * (1 if shape.tie_word_embeddings else 2)
    return shape.num_hidden_layers * layer + hidden + embeddings


@pytest.mark.parametrize("checkpoint", DENSE, ids=by_name)
def test_the_parameters_of_a_dense_model_follow_from_its_dimensions(checkpoint):
    counted = dense_parameters(checkpoint.shape, checkpoint.architecture)
    assert checkpoint.shape.parameters == counted
    assert checkpoint.total_parameters == checkpoint.active_parameters == counted


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("Qwen3-0.6B", "Qwen3"), ("Qwen2.5-7B", "Qwen2"), ("Qwen3-30B-A3B", "Qwen3Moe")],
)
def test_transformers_builds_a_model_of_exactly_that_many_parameters(name, prefix):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    checkpoint = get(name)
    config_class = getattr(transformers, f"{prefix}Config")
    counts = {"parameters", "active_parameters", "non_embedding_parameters"}
    known = {k: v for k, v in vars(checkpoint.shape).items() if v is not None}
    config = config_class(**{k: v for k, v in known.items() if k not in counts})
    with torch.device("meta"):
        model = getattr(transformers, f"{prefix}ForCausalLM")(config)
    model.tie_weights()
    assert model.num_parameters() == checkpoint.total_parameters


def test_the_smallest_qwen3_has_596049920_parameters():
    assert get("Qwen3-0.6B").total_parameters == 596_049_920


def test_a_token_in_a_mixture_of_experts_visits_few_of_the_parameters():
    checkpoint = get("Qwen3-30B-A3B")
    shape = checkpoint.shape
    idle = shape.num_experts - shape.num_experts_per_tok
    expert = 3 * shape.hidden_size * shape.moe_intermediate_size
    unused = shape.num_hidden_layers * idle * expert
    assert checkpoint.is_moe
    assert checkpoint.active_parameters == checkpoint.total_parameters - unused


def test_computed_and_published_sizes_agree_but_for_known_names():
    text_only = [c for c in COUNTED if c.modalities == ("text",)]
    ratio = {c.name: c.total_parameters / c.published_billions / 1e9 for c in text_only}
    far = {n.removesuffix("-Chat") for n, r in ratio.items() if abs(r - 1) > 0.06}
    # 7.72B is sold as 7B and 0.46B as 0.5B; the blog gave 7.07B for the 7.62B of Qwen2.
    assert {n.removesuffix("-Instruct") for n in far} == {
        *("Qwen-7B", "Qwen1.5-7B", "Qwen1.5-0.5B", "Qwen2-7B")
    }


def test_a_vision_model_is_priced_as_published_for_its_shape_lacks_the_tower():
    checkpoint = get("Qwen3-VL-2B-Instruct")
    assert checkpoint.total_parameters == 2_000_000_000
    assert checkpoint.shape.parameters == 1_720_574_976


def test_size_labels_read_like_the_names():
    names = [
        "Qwen-1_8B",
        "Qwen2.5-7B-Instruct-1M",
        "Qwen3-30B-A3B",
        "Qwen3.8-2.4T-A95B",
    ]
    assert [get(n).size_label for n in names] == ["1.8B", "7B", "30B-A3B", "2.4T-A95B"]
    assert get("Qwen3.8-Flash-Next").size_label == "125B-A6B"
    assert get("Qwen1.5-MoE-A2.7B").size_label == "14.3B-A2.7B"


# Licences


def test_the_licences_that_are_not_apache_are_known_as_such():
    other = {
        c.name: c.licence for c in EVERY if c.licence and c.licence != "Apache-2.0"
    }
    assert other.pop("Qwen1.5-7B-Chat") == "Tongyi-Qianwen"
    assert all(other.pop(c.name) for c in models(series="Qwen"))
    assert other == {
        "Qwen2-72B": "Qianwen",
        "Qwen2-72B-Instruct": "Qianwen",
        "Qwen2-VL-72B-Instruct": "Qwen",
        "Qwen2.5-3B": "Qwen-Research",
        "Qwen2.5-3B-Instruct": "Qwen-Research",
        "Qwen2.5-72B": "Qwen",
        "Qwen2.5-72B-Instruct": "Qwen",
        "Qwen2.5-Coder-3B": "Qwen-Research",
        "Qwen2.5-Coder-3B-Instruct": "Qwen-Research",
        "Qwen2.5-Math-72B": "Qwen",
        "Qwen2.5-Math-72B-Instruct": "Qwen",
        "Qwen2.5-VL-3B-Instruct": "Qwen-Research",
        "Qwen3.8-2.4T-A95B": "Qwen3.8-Max",
        "Qwen3.8-Flash-Next": "qwen-community-1.0",
    }


def test_a_verified_entry_has_a_licence_and_a_date():
    assert all(c.licence and c.released for c in EVERY if c.verified)
    assert len(models(licence="unknown")) == 48


# Looking up


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-0.6B", "Qwen3-0.6B", "qwen/QWEN3-0.6b", " Qwen3-0.6B "]
)
def test_a_checkpoint_is_found_with_or_without_its_owner_in_any_case(name):
    checkpoint = get(name)
    assert checkpoint.id == "Qwen/Qwen3-0.6B"
    assert checkpoint.url == "https://huggingface.co/Qwen/Qwen3-0.6B"


@pytest.mark.parametrize(
    ("slip", "nearest"),
    [
        ("Qwen3-0.6", "Qwen3-0.6B"),
        ("Qwen/Qwen3-4B-Instruct-2508", "Qwen3-4B-Instruct-2507"),
        ("qwen2.5-7b-instuct", "Qwen2.5-7B-Instruct"),
    ],
)
def test_a_slip_in_a_name_is_answered_with_the_nearest_one(slip, nearest):
    with pytest.raises(ValueError, match="not in the catalogue") as caught:
        get(slip)
    assert f'Did you mean "{nearest}"?' in str(caught.value)
    assert f'"{slip}"' in str(caught.value)


@pytest.mark.parametrize("nonsense", ["", "zzzz", None, 7, "meta-llama/Llama-3"])
def test_nonsense_is_refused_in_words(nonsense):
    with pytest.raises(ValueError, match="lists all of them"):
        get(nonsense)


def test_a_pocket_model_is_said_to_live_elsewhere():
    with pytest.raises(ValueError, match=r"see qc\.load"):
        get("pocket-qwen3")


def test_filters_narrow_together_and_ignore_letter_case():
    found = models(series="qwen3", kind="HYBRID", licence="apache-2.0")
    assert [c.size_label for c in found if not c.is_moe] == [
        *("0.6B", "1.7B", "4B", "8B", "14B", "32B")
    ]
    assert {c.series for c in models(modality="audio")} == {
        *("Qwen2-Audio", "Qwen2.5-Omni", "Qwen3-Omni")
    }
    assert models(series="Qwen", thinking="hybrid") == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"series": "Qwen33"}, 'series "Qwen33" is not one of Qwen, Qwen1.5'),
        ({"kind": "visoin"}, 'kind "visoin" is not one of base, instruct'),
        ({"thinking": "hybird"}, 'thinking "hybird" is not one of none, only, hybrid'),
        ({"thinking": True}, 'thinking "True" is not one of'),
        ({"modality": "vidoe"}, 'Did you mean "video"?'),
        ({"licence": "Apache"}, 'Did you mean "Apache-2.0"?'),
    ],
)
def test_a_bad_filter_names_the_values_there_are(wrong, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        models(**wrong)


def test_changing_a_result_does_not_change_the_catalogue():
    models().clear()
    sampling("Qwen3", thinking=True)["temperature"] = 9
    assert len(models()) == 147
    assert sampling("Qwen3", thinking=True)["temperature"] == 0.6


# Display


def test_a_terminal_shows_aligned_columns_and_a_count():
    lines = repr(models(series="QwQ")).splitlines()
    assert lines[0].split() == [
        *("id", "released", "parameters", "context", "licence", "thinking")
    ]
    assert lines[1].split() == [
        *("Qwen/QwQ-32B-Preview", "2024-11", "32.5B", "32K", "unknown", "only")
    ]
    assert lines[-1] == "2 checkpoints"
    assert len({line.index("20") for line in lines[1:3]}) == 1


def test_a_slice_and_an_empty_result_show_themselves_too():
    assert "3 checkpoints" in repr(EVERY[:3])
    nothing = models(series="Qwen", thinking="hybrid")
    assert repr(nothing).endswith("0 checkpoints")
    assert "0 checkpoints" in nothing._repr_html_()


def test_html_escapes_what_it_shows():
    hostile = vars(EVERY[0]) | {"id": 'Qwen/<script>&"', "languages": "<b>"}
    checkpoint = Checkpoint(**hostile)
    for html in (catalog.Catalog([checkpoint])._repr_html_(), checkpoint._repr_html_()):
        assert "<script>" not in html
        assert "&lt;script&gt;&amp;&quot;" in html
    assert "&lt;b&gt;" in checkpoint._repr_html_()


def test_the_table_of_all_checkpoints_has_one_row_each_and_scrolls():
    html = EVERY._repr_html_()
    assert html.count("<tr>") == 148
    assert "overflow: auto" in html
    assert 'tabindex="0"' in html


def test_a_checkpoint_shows_what_is_known_and_leaves_the_unknown_out():
    shown = repr(get("Qwen3-Coder-Next"))
    assert "80" in shown
    assert "released" not in shown
    assert "hidden_size" not in shown
    assert get("Qwen3-Coder-Next").shape == Shape()
    assert "596,049,920" in repr(get("Qwen3-0.6B"))


def test_a_table_asks_its_subclass_for_cells():
    with pytest.raises(NotImplementedError):
        repr(Table([1]))


# The timeline


def test_the_timeline_covers_every_series_once_and_runs_forward():
    timeline = catalog.generations()
    assert [s.name for s in timeline][:3] == ["Qwen", "Qwen1.5", "Qwen2"]
    assert {s.name for s in timeline} == {c.series for c in EVERY}
    dates = [s.first_released for s in timeline if s.first_released]
    assert dates == sorted(dates)
    assert all(s.new and s.sizes and s.sources for s in timeline)
    assert "<th" in timeline._repr_html_()


def test_the_timeline_lists_the_sizes_from_small_to_large():
    [qwen3] = [s for s in catalog.generations() if s.name == "Qwen3"]
    assert qwen3.first_released == "2025-04"
    assert qwen3.sizes == (
        *("0.6B", "1.7B", "4B", "8B", "14B", "30B-A3B", "32B", "235B-A22B"),
    )


def test_the_timeline_picture_has_a_dot_for_each_dated_checkpoint_and_names_some():
    axes = EVERY.plot(named=["Qwen-7B", "Qwen3-Next-80B-A3B-Instruct"]).axes[0]
    dots = sum(len(group.get_offsets()) for group in axes.collections)
    assert dots == len([c for c in EVERY if c.released])
    named = [text.get_text() for text in axes.texts]
    assert named == ["Qwen-7B", "Qwen3-Next-80B-A3B"]


def test_a_checkpoint_without_a_date_cannot_be_named_in_the_picture():
    with pytest.raises(ValueError, match="release of Qwen3-Coder-Next is not known"):
        EVERY.plot(named=["Qwen3-Coder-Next"])


# Sampling values


def test_qwen3_is_sampled_differently_with_and_without_thinking():
    thinking = sampling("Qwen/Qwen3-0.6B", thinking=True)
    plain = sampling("qwen3", thinking=False)
    common = {"do_sample": True, "top_k": 20, "min_p": 0.0}
    assert thinking == common | {"temperature": 0.6, "top_p": 0.95}
    assert plain == common | {"temperature": 0.7, "top_p": 0.8}
    assert thinking.presence_penalty is None
    assert plain.presence_penalty == 1.5
    assert thinking.status == plain.status == "verified"
    assert "Qwen documentation" in plain.source


def test_sampling_values_are_arguments_that_generate_accepts():
    transformers = pytest.importorskip("transformers")
    for entry in data("sampling"):
        config = transformers.GenerationConfig(**entry["generate"])
        assert vars(config).items() >= entry["generate"].items()


@pytest.mark.parametrize("entry", data("sampling"))
def test_every_sampling_entry_names_a_series_a_source_and_a_status(entry):
    known = SimpleNamespace(**{"models": [], **entry})
    assert known.series in {c.series for c in EVERY}
    assert all(get(id).series == known.series for id in known.models)
    assert known.source
    assert known.status in {"verified", "card copy", "secondary"}
    assert sampling(known.series, known.thinking, known.task) == known.generate


def test_values_seen_for_some_sizes_are_not_lent_to_others():
    assert sampling("Qwen2.5-7B-Instruct", thinking=False)["repetition_penalty"] == 1.05
    with pytest.raises(ValueError, match="no recommended sampling values are known"):
        sampling("Qwen2.5-0.5B-Instruct", thinking=False)


def test_qwen3_5_has_values_of_its_own_for_precise_coding():
    values = sampling("Qwen3.5-4B", thinking=True, task="precise-coding")
    assert (values["temperature"], values.presence_penalty) == (0.6, 0.0)
    assert sampling("Qwen3.5-4B", thinking=True)["temperature"] == 1.0


@pytest.mark.parametrize(
    ("name", "thinking", "said"),
    [
        ("Qwen3-4B-Instruct-2507", True, "never thinks: use thinking=False"),
        ("Qwen3-4B-Thinking-2507", False, "always thinks: use thinking=True"),
        ("Qwen3-0.6B-Base", True, "is a base checkpoint"),
        ("Qwen2.5-Math-7B", False, "is a base checkpoint"),
        ("Qwen2-Math", False, 'task "general" is not one of several-answers'),
        ("Qwen3-0.6", True, 'Did you mean "Qwen3-0.6B"?'),
    ],
)
def test_a_mode_or_task_that_does_not_exist_is_refused(name, thinking, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        sampling(name, thinking)


# Control tokens


def test_the_26_control_tokens_of_qwen3_have_consecutive_ids():
    tokens = data("tokens")["qwen3"]["tokens"]
    assert [t["id"] for t in tokens] == list(range(151_643, 151_669))
    assert len({t["text"] for t in tokens}) == 26
    assert data("tokens")["qwen3"]["entries"] == 151_669


@pytest.mark.parametrize(
    ("vocabulary", "text", "id", "special"),
    [
        ("qwen3", "<|endoftext|>", 151_643, True),
        ("qwen3", "<|im_end|>", 151_645, True),
        ("qwen3", "<|image_pad|>", 151_655, True),
        ("qwen3", "<tool_call>", 151_657, False),
        ("qwen3", "</think>", 151_668, False),
        ("qwen3.5", "<|im_end|>", 248_046, True),
        ("qwen3.5", "</think>", 248_069, False),
    ],
)
def test_a_control_token_has_its_id_and_its_flag(vocabulary, text, id, special):
    [token] = [t for t in data("tokens")[vocabulary]["tokens"] if t["text"] == text]
    assert (token["id"], token["special"]) == (id, special)


@pytest.mark.parametrize(
    ("vocabulary", "config_class"),
    [("qwen3", "Qwen3VLConfig"), ("qwen3.5", "Qwen3_5Config")],
)
def test_the_vision_ids_are_those_of_transformers(vocabulary, config_class):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, config_class)()
    ids = {t["text"]: t["id"] for t in data("tokens")[vocabulary]["tokens"]}
    assert ids["<|image_pad|>"] == config.image_token_id
    assert ids["<|video_pad|>"] == config.video_token_id
    assert ids["<|vision_start|>"] == config.vision_start_token_id
    assert ids["<|vision_end|>"] == config.vision_end_token_id


# Cost


def test_reading_the_catalogue_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from qwen_course import catalog; catalog.models(); "
        "print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
