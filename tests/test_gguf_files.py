"""A GGUF file holds the checkpoint: the same values, settings, tokens and template."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tracemalloc

import numpy
import pytest
import torch
from safetensors import safe_open

from qwen_course.loading import BUNDLED
from qwen_course.platforms import gguf_files

MODELS = ("pocket-qwen3", "pocket-math", "pocket-qwen3-moe")
needs_gguf = pytest.mark.skipif(
    gguf_files.why_not() is not None, reason=f"{gguf_files.why_not()}"
)
needs_quantize = pytest.mark.skipif(
    gguf_files.why_not_quantize() is not None,
    reason=f"{gguf_files.why_not_quantize()}",
)


@pytest.fixture
def without(monkeypatch):
    """Hides a package from this machine."""
    find = importlib.util.find_spec

    def hide(hidden):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, package=None: None if name == hidden else find(name, package),
        )

    return hide


@pytest.fixture
def copy(tmp_path):
    """A copy of the pocket model whose JSON files a test may change."""
    folder = tmp_path / "my-model"
    shutil.copytree(BUNDLED / "pocket-qwen3", folder)

    def change(file="config.json", **values):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    return change


def of_checkpoint(model, name):
    with safe_open(BUNDLED / model / "model.safetensors", "pt") as file:
        return file.get_tensor(name).float().numpy()


# Where the library is missing


def test_a_machine_without_the_library_says_what_to_type(without):
    without("gguf")
    for use in (
        lambda: gguf_files.write_gguf("pocket-qwen3"),
        lambda: gguf_files.read_gguf("any.gguf"),
    ):
        with pytest.raises(ImportError, match=r'pip install "qwen-course\[gguf\]"'):
            use()


def test_without_llama_cpp_python_a_k_quant_says_what_it_takes(without):
    without("llama_cpp")
    with pytest.raises(ImportError, match=r"compiler.*pip install llama-cpp-python"):
        gguf_files.quantize("any.gguf", "q4_k_m")


def test_importing_it_needs_neither_torch_nor_the_library():
    code = (
        "import sys; from qwen_course.platforms import gguf_files; "
        "print({'torch', 'gguf', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# Wrong input


def test_a_slip_in_the_precision_names_the_nearest():
    with pytest.raises(ValueError, match='"q8" is not one of .* Did you mean "q8_0"?'):
        gguf_files.write_gguf("pocket-qwen3", "q8")
    with pytest.raises(ValueError, match='Did you mean "q4_k_m"?'):
        gguf_files.quantize("any.gguf", "q4_km")


@needs_gguf
def test_another_architecture_is_refused_and_told_where_to_go():
    with pytest.raises(ValueError, match=r"is a Qwen2_5_VL.*convert_hf_to_gguf\.py"):
        gguf_files.write_gguf("pocket-vl")


@needs_gguf
def test_a_setting_that_llama_cpp_would_not_follow_is_refused(copy, tmp_path):
    with pytest.raises(ValueError, match="use_sliding_window True; llama.cpp takes"):
        gguf_files.write_gguf(copy(use_sliding_window=True), folder=tmp_path)
    rope = {"rope_type": "longrope", "rope_theta": 10000.0}
    folder = copy(use_sliding_window=False, rope_parameters=rope)
    with pytest.raises(ValueError, match='rope type "longrope" is not written'):
        gguf_files.write_gguf(folder, folder=tmp_path)
    assert not list(tmp_path.glob("*gguf*"))


@needs_gguf
def test_a_tokenizer_that_cuts_texts_another_way_is_refused(copy, tmp_path):
    whole = json.loads((BUNDLED / "pocket-qwen3/tokenizer.json").read_text())
    whole["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+"
    folder = copy("tokenizer.json", **whole)
    with pytest.raises(ValueError, match="the tokens would differ"):
        gguf_files.write_gguf(folder, folder=tmp_path)


@needs_gguf
def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(tmp_path):
    with pytest.raises(OSError, match="holds no config.json"):
        gguf_files.write_gguf(tmp_path)


@needs_gguf
def test_a_file_that_is_no_gguf_is_named(tmp_path):
    with pytest.raises(OSError, match=r"there is no file .*write_gguf\("):
        gguf_files.read_gguf(tmp_path / "none.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_files.write_gguf("pocket-math", "q8_0").read_bytes()[:9000])
    with pytest.raises(OSError, match="cut.gguf is no whole GGUF file"):
        gguf_files.read_gguf(cut)


# The same values


@needs_gguf
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_every_value_of_the_checkpoint_is_in_the_file(precision):
    path = gguf_files.write_gguf("pocket-qwen3", precision)
    pairs = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
        "blk.3.attn_k_norm.weight": "model.layers.3.self_attn.k_norm.weight",
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    assert len(gguf_files.read_gguf(path).types) == 2 + 8 * 11
    for name, source in pairs.items():
        found = gguf_files.read_tensor(path, name)
        assert numpy.array_equal(found, of_checkpoint("pocket-qwen3", source)), name


@needs_gguf
def test_eight_bits_are_within_half_a_step_of_every_value():
    path = gguf_files.write_gguf("pocket-qwen3", "q8_0")
    name, source = "blk.2.ffn_up.weight", "model.layers.2.mlp.up_proj.weight"
    whole = of_checkpoint("pocket-qwen3", source).reshape(-1, 32)
    found = gguf_files.read_tensor(path, name).reshape(-1, 32)
    step = numpy.abs(whole).max(axis=1, keepdims=True) / 127
    assert (numpy.abs(found - whole) <= 0.57 * step).all()  # the step is kept in fp16
    assert not numpy.array_equal(found, whole)


@needs_gguf
def test_experts_are_stacked_in_the_order_of_their_numbers():
    path = gguf_files.write_gguf("pocket-qwen3-moe", "f32")
    stacked = gguf_files.read_tensor(path, "blk.1.ffn_gate_exps.weight")
    assert stacked.shape == (16, 48, 256)
    for number in (0, 2, 10):
        name = f"model.layers.1.mlp.experts.{number}.gate_proj.weight"
        assert numpy.array_equal(stacked[number], of_checkpoint(path.stem[:-4], name))


@needs_gguf
def test_the_biases_of_qwen2_are_in_the_file():
    path = gguf_files.write_gguf("pocket-math", "q8_0")
    found = gguf_files.read_tensor(path, "blk.0.attn_q.bias")
    name = "model.layers.0.self_attn.q_proj.bias"
    assert numpy.array_equal(found, of_checkpoint("pocket-math", name))


@needs_gguf
def test_small_and_delicate_tensors_keep_more_bits():
    types = gguf_files.read_gguf(gguf_files.write_gguf("pocket-qwen3", "q4_0")).types
    assert types["blk.0.attn_norm.weight"] == "f32"
    assert types["token_embd.weight"] == "q8_0"  # it is the output layer too
    assert types["blk.0.attn_q.weight"] == "q4_0"
    types = gguf_files.read_gguf(
        gguf_files.write_gguf("pocket-qwen3-moe", "q8_0")
    ).types
    assert types["blk.0.ffn_gate_inp.weight"] == "f32"
    assert types["blk.0.ffn_down_exps.weight"] == "f16"  # rows of 48: not blocks of 32
    assert types["blk.0.ffn_up_exps.weight"] == "q8_0"


@needs_gguf
def test_transformers_reads_the_file_back():
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    path = gguf_files.write_gguf("pocket-qwen3", "f32")
    # It passes over the head size that stands in the file, and takes 128.
    config = AutoConfig.from_pretrained(BUNDLED / "pocket-qwen3")
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, config=config, dtype=torch.float32
    )
    name = "model.layers.5.self_attn.q_proj.weight"
    found = model.state_dict()[name].numpy()
    assert numpy.array_equal(found, of_checkpoint("pocket-qwen3", name))
    read = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    own = AutoTokenizer.from_pretrained(BUNDLED / "pocket-qwen3")
    text = "<|im_start|>user\nNe kadar? 12 + 34, 你好<|im_end|>"
    assert read.encode(text) == own.encode(text)
    assert read.chat_template == own.chat_template


# Settings, tokens, template


@needs_gguf
@pytest.mark.parametrize("model", MODELS)
def test_the_head_says_what_the_checkpoint_says(model):
    facts = gguf_files.read_gguf(gguf_files.write_gguf(model, "q8_0"))
    config = json.loads((BUNDLED / model / "config.json").read_text())
    architecture = gguf_files.ARCHITECTURES[config["architectures"][0]]
    said = {
        key.removeprefix(f"{architecture}."): value
        for key, value in facts.settings.items()
    }
    assert facts.architecture == architecture
    assert facts.context == config["max_position_embeddings"]
    assert said["block_count"] == config["num_hidden_layers"]
    assert said["attention.head_count_kv"] == config["num_key_value_heads"]
    assert said["attention.key_length"] == 32
    assert said["rope.freq_base"] == config["rope_parameters"]["rope_theta"]
    assert said["attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    if architecture == "qwen3moe":
        assert (said["expert_count"], said["expert_used_count"]) == (16, 2)


@needs_gguf
def test_the_file_ends_answers_and_begins_texts_as_the_checkpoint_does():
    facts = gguf_files.read_gguf(gguf_files.write_gguf("pocket-qwen3", "q8_0"))
    assert facts.settings["tokenizer.ggml.eos_token_id"] == 5096
    assert facts.settings["tokenizer.ggml.padding_token_id"] == 5094
    assert facts.settings["tokenizer.ggml.add_bos_token"] is False
    assert facts.settings["tokenizer.ggml.pre"] == "qwen2"
    assert facts.settings["tokenizer.ggml.tokens"] == 5120
    template = (BUNDLED / "pocket-qwen3/chat_template.jinja").read_text()
    assert facts.chat_template == template


@needs_gguf
def test_the_file_carries_the_sampling_of_the_checkpoint():
    settings = gguf_files.read_gguf(gguf_files.write_gguf("pocket-qwen3")).settings
    found = [settings[f"general.sampling.{key}"] for key in ("temp", "top_k", "top_p")]
    assert found == pytest.approx([0.6, 20, 0.95])
    assert settings["general.sampling.min_p"] == 0  # llama.cpp's own would be 0.05
    plain = gguf_files.read_gguf(gguf_files.write_gguf("pocket-math")).settings
    assert not any("sampling" in key for key in plain)


@needs_gguf
def test_long_texts_by_yarn_are_written(copy, tmp_path):
    rope = {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0,
            "original_max_position_embeddings": 1024}  # fmt: skip
    folder = copy(rope_parameters=rope, max_position_embeddings=4096)
    facts = gguf_files.read_gguf(gguf_files.write_gguf(folder, "q8_0", tmp_path))
    assert facts.settings["qwen3.rope.scaling.type"] == "yarn"
    assert facts.settings["qwen3.rope.scaling.original_context_length"] == 1024
    assert facts.context == 4096


@needs_gguf
def test_the_facts_show_themselves():
    facts = gguf_files.read_gguf(gguf_files.write_gguf("pocket-qwen3", "q8_0"))
    first, *lines = str(facts).splitlines()
    assert first.startswith("pocket-qwen3-q8_0.gguf, 7,5")
    assert "qwen3.context_length = 1024" in lines
    assert lines[-4].split()[:3] == ["type", "tensors", "values"]
    assert [one.type for one in facts.tensors] == ["q8_0", "f32"]
    assert facts.tensors[0].bits == 8.5  # a scale of 16 bits for each 32 weights
    assert 8.5 < facts.bits < 8.6


# The file


@needs_gguf
def test_a_file_in_the_cache_is_written_once_and_one_in_a_folder_anew(tmp_path):
    path = gguf_files.export("pocket-math", "q8_0")
    before = path.stat().st_mtime_ns
    assert gguf_files.export("pocket-math", "q8_0") == path
    assert path.stat().st_mtime_ns == before
    own = gguf_files.export("pocket-math", "q8_0", tmp_path)
    assert own == tmp_path / "pocket-math-q8_0.gguf"
    assert own.read_bytes() == path.read_bytes()


@needs_gguf
def test_what_fails_on_the_way_leaves_no_file(monkeypatch, tmp_path):
    def fail(self, name, kind):
        raise OSError("the disk is full")

    monkeypatch.setattr(gguf_files.Checkpoint, "tensor", fail)
    with pytest.raises(OSError, match="the disk is full"):
        gguf_files.write_gguf("pocket-math", "f32", tmp_path)
    assert not list(tmp_path.iterdir())


@needs_gguf
def test_only_one_tensor_at_a_time_is_in_memory(tmp_path):
    size = gguf_files.write_gguf("pocket-qwen3", "f32", tmp_path).stat().st_size
    tracemalloc.start()
    gguf_files.write_gguf("pocket-qwen3", "f32", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2


@needs_gguf
def test_a_checkpoint_of_the_hub_is_written_under_its_own_name(hub_home):
    path = gguf_files.write_gguf("Qwen/Qwen3-0.6B", "q8_0")
    assert path.name == "Qwen3-0.6B-q8_0.gguf"
    assert path.read_bytes()[:4] == b"GGUF"


@needs_gguf
@needs_quantize
def test_a_k_quant_gives_other_types_to_rows_that_256_does_not_divide(tmp_path):
    source = gguf_files.write_gguf("pocket-qwen3", "f32")
    facts = gguf_files.read_gguf(gguf_files.quantize(source, "q4_k_m", tmp_path))
    assert facts.path == tmp_path / "pocket-qwen3-q4_k_m.gguf"
    assert facts.types["blk.0.attn_q.weight"] == "q4_k"
    assert not facts.types["blk.0.ffn_down.weight"].endswith("k")  # rows of 704
    assert facts.bits < 7
