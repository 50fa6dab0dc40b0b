"""Loading: what is asked for, in the precision asked for, or a sentence that helps."""

import shutil

import pytest
import torch

import qwen_course as qc
from qwen_course import loading
from qwen_course.models import checksums

POCKET = loading.BUNDLED / "pocket-qwen3"


@pytest.fixture
def copied_pocket(tmp_path, monkeypatch):
    """A copy of the pocket model's folder that the loader takes for the bundled one."""
    folder = tmp_path / "pocket-qwen3"
    shutil.copytree(POCKET, folder)
    monkeypatch.setattr(loading, "BUNDLED", tmp_path)
    return folder


ARCHITECTURES = {
    "pocket-audio": "Qwen2AudioForConditionalGeneration",
    "pocket-coder": "Qwen2ForCausalLM",
    "pocket-math": "Qwen2ForCausalLM",
    "pocket-qwen3": "Qwen3ForCausalLM",
    "pocket-qwen3-moe": "Qwen3MoeForCausalLM",
    "pocket-vl": "Qwen2_5_VLForConditionalGeneration",
}


@pytest.mark.parametrize("name", loading.bundled_models())
def test_a_pocket_model_is_a_true_qwen_and_loads_without_the_course(name):
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
        AutoTokenizer,
    )

    many = loading.is_multimodal(str(loading.BUNDLED / name))
    auto = AutoModelForMultimodalLM if many else AutoModelForCausalLM
    model = auto.from_pretrained(loading.BUNDLED / name)
    tokenizer = AutoTokenizer.from_pretrained(loading.BUNDLED / name)
    assert type(model).__name__ == ARCHITECTURES[name]
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("name", loading.bundled_models())
def test_a_pocket_model_is_small_whole_and_free_of_pickle(name):
    folder = loading.BUNDLED / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16e6
    assert checksums.verify(folder) == []
    assert not [p for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pkl"}]


def test_the_pocket_tokenizer_has_every_special_token_of_qwen_by_name(pocket):
    added = pocket[1].added_tokens_decoder.values()
    assert [(str(t), t.special) for t in added] == qc.vocabulary.ADDED_TOKENS


def test_on_a_cpu_the_pocket_model_computes_in_fp32(pocket):
    assert pocket[0].dtype == torch.float32
    assert not pocket[0].training


def test_the_setting_decides_when_no_name_is_given(monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_MODEL", "Qwen/Qwen3-0.6B")
    model, tokenizer = qc.load()
    assert len(tokenizer) == 151_669


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "nf4"])
def test_every_precision_answers_on_this_machine(precision):
    model, tokenizer = qc.load("pocket-qwen3", precision=precision)
    reply = qc.chat(model, tokenizer, "What is 12 + 30?", sampling="greedy")
    assert reply.answer == "42"


def test_four_bits_store_less_than_eight_and_eight_less_than_sixteen():
    sizes = [
        qc.load("pocket-qwen3", precision=name)[0].get_memory_footprint()
        for name in ("nf4", "int8", "bf16", "fp32")
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] < sizes[3]


def test_a_folder_loads_like_a_name(tmp_path):
    shutil.copytree(POCKET, tmp_path / "mine")
    model, _ = qc.load(tmp_path / "mine", precision="fp32")
    assert model.num_parameters() == qc.load("pocket-qwen3")[0].num_parameters()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "pocket-qwen"}, 'Did you mean "pocket-qwen3"'),
        ({"name": "Qwen3-0.6B"}, 'Did you mean "Qwen/Qwen3-0.6B"'),
        ({"precision": "int4"}, 'not one of auto, .*Did you mean "int8"'),
        ({"device": "cuda:0"}, "not available here"),
    ],
)
def test_a_wrong_name_precision_or_device_is_answered_with_the_nearest(
    arguments, message
):
    if "device" in arguments and torch.cuda.is_available():
        arguments = {"device": "tpu"}
    with pytest.raises(ValueError, match=message):
        qc.load(**{"name": "pocket-qwen3", **arguments})


def test_a_checkpoint_that_was_never_downloaded_says_how_and_what_works_now():
    with pytest.raises(OSError, match="qwen-course download Qwen/Qwen3-8B") as caught:
        qc.load("Qwen/Qwen3-8B")
    assert 'qc.load("pocket-qwen3")' in str(caught.value)


def test_a_misspelt_hub_id_is_answered_with_the_nearest_checkpoint():
    with pytest.raises(OSError, match='Did you mean "Qwen/Qwen3-8B"'):
        qc.load("Qwen/Qwen3-8BB")


def test_a_folder_without_a_model_says_which_files_it_lacks(tmp_path):
    with pytest.raises(OSError, match=r"lacks config\.json, tokenizer_config"):
        qc.load(tmp_path)


def test_altered_weights_are_found_before_they_are_used(copied_pocket):
    weights = copied_pocket / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(OSError, match=r"model\.safetensors is not the file.*checkout"):
        qc.load("pocket-qwen3")


def test_truncated_weights_are_found_and_named(copied_pocket):
    weights = copied_pocket / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(OSError, match=r"model\.safetensors"):
        qc.load("pocket-qwen3")


def test_a_missing_file_is_named(copied_pocket):
    (copied_pocket / "tokenizer.json").unlink()
    with pytest.raises(OSError, match=r"tokenizer\.json is missing"):
        qc.load("pocket-qwen3")


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_quantization_without_its_package_names_the_package(monkeypatch, precision):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        loading.precision_settings(precision, "cpu", bundled=True)


def test_quantization_on_a_macs_gpu_names_what_works_there():
    with pytest.raises(ValueError, match='device="cpu"'):
        loading.precision_settings("nf4", "mps", bundled=True)
