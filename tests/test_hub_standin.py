"""The Hub stand-in behaves like the Hub's own cache, with no network."""

import os

import hub_standin
import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import qwen_course as qc

OTHER_IDS = ["Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"]
HUB_IDS = sorted(set(hub_standin.CHECKPOINTS) - set(OTHER_IDS))  # of text alone


@pytest.fixture(scope="module", params=HUB_IDS)
def checkpoint(request):
    """(id, model, tokenizer), loaded as a learner loads them."""
    hub_id = request.param
    model = AutoModelForCausalLM.from_pretrained(hub_id)
    return hub_id, model, AutoTokenizer.from_pretrained(hub_id)


def test_the_hub_is_offline_and_its_cache_is_the_standin(hub_home):
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    assert str(hub_home / "hub") == constants.HF_HUB_CACHE
    assert os.environ["QWEN_COURSE_TEST"] == "1"


def test_an_id_outside_the_standin_fails_without_a_download():
    with pytest.raises(OSError, match="couldn't find them in the cached files"):
        AutoConfig.from_pretrained("Qwen/Qwen3-8B")


def test_every_value_of_the_config_is_true_where_it_was_not_cut(checkpoint):
    hub_id, model, _ = checkpoint
    true = hub_standin.CHECKPOINTS[hub_id]["config"]
    # transformers 5 keeps these under other names, or drops them when unused.
    renamed = {"rope_theta", "rope_scaling", "torch_dtype", "transformers_version"}
    names = set(true) - set(hub_standin.SMALL) - renamed - {"sliding_window"}
    loaded = {name: getattr(model.config, name) for name in names}
    assert loaded == {name: true[name] for name in names}
    assert model.config.rope_parameters["rope_theta"] == true["rope_theta"]


# The catalogue has no checked numbers of Qwen2-Audio.
@pytest.mark.parametrize("hub_id", [*HUB_IDS, "Qwen/Qwen2.5-VL-3B-Instruct"])
def test_the_true_config_is_what_the_catalogue_says(hub_id):
    from qwen_course import catalog

    config, shape = hub_standin.CHECKPOINTS[hub_id]["config"], catalog.get(hub_id).shape
    for name in set(config) & set(vars(shape)):
        assert config[name] == getattr(shape, name), name
    cut = hub_standin.true_or_cut_config(hub_id)
    assert cut.get("head_dim", shape.head_dim) == shape.head_dim


def test_cutting_nothing_gives_the_true_config():
    for hub_id, checkpoint in hub_standin.CHECKPOINTS.items():
        assert hub_standin.true_or_cut_config(hub_id, {}) == checkpoint["config"]


def test_the_size_of_a_head_survives_the_cut(checkpoint):
    hub_id, model, _ = checkpoint
    true = hub_standin.CHECKPOINTS[hub_id]["config"]
    keys = model.model.layers[0].self_attn.k_proj.out_features
    head_dim = 64 if "0.5B" in hub_id else 128
    assert keys == true["num_key_value_heads"] * head_dim


def test_all_embedding_rows_are_there_and_tied_where_they_are(checkpoint):
    hub_id, model, _ = checkpoint
    true = hub_standin.CHECKPOINTS[hub_id]["config"]
    rows = model.get_input_embeddings().weight
    assert rows.shape == (true["vocab_size"], hub_standin.SMALL["hidden_size"])
    tied = model.get_output_embeddings().weight is rows
    assert tied == true["tie_word_embeddings"] == ("7B" not in hub_id)


def test_the_weights_are_stored_in_bf16(checkpoint):
    import torch

    assert {p.dtype for p in checkpoint[1].parameters()} == {torch.bfloat16}


def test_the_generation_settings_are_the_published_ones(checkpoint):
    hub_id, model, _ = checkpoint
    settings = model.generation_config
    if "Math" in hub_id:  # its authors measured pass@1 greedily
        assert settings.do_sample is False
    else:
        thinking = hub_id == "Qwen/Qwen3-0.6B"
        expected = (0.6, 0.95, 20) if thinking else (0.7, 0.8, 20)
        assert settings.do_sample is True
        assert (settings.temperature, settings.top_p, settings.top_k) == expected
    assert settings.eos_token_id == [151645, 151643]
    assert settings.pad_token_id == 151643


def test_the_tokenizer_has_the_true_ids(checkpoint):
    hub_id, _, tokenizer = checkpoint
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert tokenizer.encode("/no_think") == [33100, 5854, 766]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (151645, 151643)
    assert (tokenizer.bos_token, tokenizer.unk_token) == (None, None)
    assert len(tokenizer) == (151669 if hub_id == "Qwen/Qwen3-0.6B" else 151665)


def test_only_qwen3_has_a_token_for_thinking():
    qwen3 = AutoTokenizer.from_pretrained("Qwen/Qwen3-0.6B")
    qwen2_5 = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct")
    assert qwen3.encode("<think>") == [151667]
    assert len(qwen2_5.encode("<think>")) > 1


def test_the_chat_template_is_the_official_one(checkpoint):
    hub_id, _, tokenizer = checkpoint
    name = hub_standin.CHECKPOINTS[hub_id]["template"]
    assert tokenizer.chat_template == hub_standin.official_template(name)


def test_a_chat_gives_tokens(checkpoint):
    _, model, tokenizer = checkpoint
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    out = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4)
    new = out[0, inputs["input_ids"].shape[1] :]
    assert len(new) == 4
    assert isinstance(tokenizer.decode(new), str)


def test_building_twice_gives_the_same_weights(tmp_path, hub_home):
    hub_id = "Qwen/Qwen3-0.6B"
    folder = hub_standin.snapshot_folder(tmp_path, hub_id)
    hub_standin.build_checkpoint(hub_id, folder)
    kept = hub_home / folder.relative_to(tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (kept / name).read_bytes()


def test_an_outdated_standin_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_standin, "build_hub", lambda home: home.mkdir() or home)
    monkeypatch.setattr(hub_standin, "standin_key", lambda: "first")
    first = hub_standin.ensure_hub(tmp_path)
    monkeypatch.setattr(hub_standin, "standin_key", lambda: "second")
    second = hub_standin.ensure_hub(tmp_path)
    assert second.is_dir()
    assert not first.exists()


@pytest.mark.parametrize("hub_id", OTHER_IDS)
def test_what_sees_and_hears_loads_with_its_processor_and_answers(hub_id):
    model, processor = qc.load(hub_id)
    tone = np.sin(np.arange(16_000, dtype=np.float32) / 5)
    things = {"image": Image.new("RGB", (224, 168), "red"), "audio": tone}
    kind = "audio" if "Audio" in hub_id else "image"
    parts = [
        {"type": kind, kind: things[kind]},
        {"type": "text", "text": "What is it?"},
    ]
    reply = qc.chat(
        model, processor, [{"role": "user", "content": parts}], max_new_tokens=4
    )
    assert reply.usage.answer_tokens == 4
    assert reply.usage.prompt_tokens > {"image": 48, "audio": 24}[kind]


@pytest.mark.parametrize("hub_id", OTHER_IDS)
def test_nothing_of_a_stand_in_is_made_up_when_it_is_loaded(hub_id):
    from transformers import AutoModelForMultimodalLM

    _, info = AutoModelForMultimodalLM.from_pretrained(hub_id, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
