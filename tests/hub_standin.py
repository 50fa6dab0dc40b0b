"""A Hub cache for tests: `Qwen/...` checkpoints that load with no network.

True: the config (but for the sizes that were cut), the vocabulary, the chat template,
the generation settings, the shape of a Hub cache. Not true: the weights, which are
random, so any text that these checkpoints generate is noise.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

from qwen_course import vocabulary

# Two layers of width 64 load and answer in a moment (24 MB on disk). Heads, their
# size, the MLP and the 151,936 embedding rows stay true. An empty dict cuts nothing:
# 1.2 GB for Qwen3-0.6B, for measuring memory and speed.
SMALL: dict[str, int] = {"num_hidden_layers": 2, "hidden_size": 64}

SHARED_CONFIG = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_CONFIG = SHARED_CONFIG | {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "sliding_window": None,
    "transformers_version": "4.51.0",
}
QWEN2_5_CONFIG = SHARED_CONFIG | {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "sliding_window": 32768,
    "transformers_version": "4.43.1",
}
SAMPLING_TOKENS = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "top_k": 20,
}

# "added_tokens": Qwen2.5 has no tokens for tool responses and thinking yet.
# Qwen2.5's own generation config also has a repetition penalty; its value for this
# size is not confirmed, so it is left out.
CHECKPOINTS = {
    "Qwen/Qwen3-0.6B": {
        "config": QWEN3_CONFIG,
        "generation": SAMPLING_TOKENS | {"temperature": 0.6, "top_p": 0.95},
        "template": "qwen3",
        "added_tokens": 26,
    },
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "config": QWEN2_5_CONFIG,
        "generation": SAMPLING_TOKENS | {"temperature": 0.7, "top_p": 0.8},
        "template": "qwen2_5",
        "added_tokens": 22,
    },
}


def official_template(name: str) -> str:
    """Return Qwen's own chat template ("qwen3", "qwen2_5"), as TRL ships it."""
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the tests compare with Qwen's own chat templates, which the package trl "
            "contains. Type: python -m pip install -c constraints.txt trl"
        )
    path = Path(spec.origin).parent / "chat_templates" / f"{name}.jinja"
    return path.read_text(encoding="utf-8")


def standin_key() -> str:
    """Return a hash of everything that decides what the stand-in contains."""
    parts = [Path(__file__).read_bytes(), Path(vocabulary.__file__).read_bytes()]
    parts += [official_template(c["template"]).encode() for c in CHECKPOINTS.values()]
    parts += [importlib.metadata.version(p).encode() for p in ("transformers", "torch")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def ensure_hub(parent: Path) -> Path:
    """Return an `HF_HOME` with the small stand-ins under `parent`, built if need be.

    Safe when several test runs start at once: each builds aside, one wins. Stand-ins
    that no longer match the code are removed.
    """
    home = parent / standin_key()
    if not home.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="building-") as folder:
            draft = build_hub(Path(folder) / "home")
            try:
                draft.rename(home)
            except OSError:
                if not home.is_dir():  # another run has not finished it either
                    raise
        for other in parent.iterdir():
            if other != home and not other.name.startswith("building-"):
                shutil.rmtree(other, ignore_errors=True)
    return home


def build_hub(home: Path, cut: dict[str, int] = SMALL) -> Path:
    """Write every checkpoint into a Hub cache under `home`, and return `home`.

    `cut` replaces values of the true config; `{}` writes full-size checkpoints.
    """
    for hub_id in CHECKPOINTS:
        build_checkpoint(hub_id, snapshot_folder(home, hub_id), cut)
    return home


def snapshot_folder(home: Path, hub_id: str) -> Path:
    """Make the folders of one repository in a Hub cache; return its snapshot's."""
    repository = home / "hub" / f"models--{hub_id.replace('/', '--')}"
    commit = hashlib.sha1(hub_id.encode()).hexdigest()
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def build_checkpoint(hub_id: str, folder: Path, cut: dict[str, int] = SMALL) -> None:
    """Write the files of one checkpoint: weights, config, tokenizer, generation."""
    checkpoint = CHECKPOINTS[hub_id]
    _write_weights(folder, true_or_cut_config(hub_id, cut))
    _write_tokenizer(folder, checkpoint["template"], checkpoint["added_tokens"])
    _write_json(folder / "config.json", true_or_cut_config(hub_id, cut))
    _write_json(folder / "generation_config.json", checkpoint["generation"])


def true_or_cut_config(hub_id: str, cut: dict[str, int]) -> dict:
    """Return the true config with the cut values, its attention heads unchanged."""
    config = CHECKPOINTS[hub_id]["config"]
    # Qwen2.5 leaves head_dim out: width over heads. A cut width must not change it.
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    return config | cut | ({"head_dim": head_dim} if cut else {})


def _write_weights(folder: Path, config: dict) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config.pop("model_type"), **config),
            dtype=torch.bfloat16,
        )
    tensors = model.state_dict()
    del tensors["lm_head.weight"]  # the same as the embedding: tied
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path, template: str, added_tokens: int) -> None:
    tokens = vocabulary.ADDED_TOKENS[:added_tokens]
    ranks = vocabulary.ranks_file()
    if ranks is None:
        raise ModuleNotFoundError(
            "the tests need Qwen's vocabulary, which the package dashscope contains. "
            "Type: python -m pip install -c constraints.txt dashscope"
        )
    tokenizer = vocabulary.tokenizer_from_ranks(ranks, tokens)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(151643 + index): {"content": text, "special": special, **flags}
                for index, (text, special) in enumerate(tokens)
            },
            "additional_special_tokens": [t for t, special in tokens[1:] if special],
            "bos_token": None,
            "chat_template": official_template(template),
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": vocabulary.MODEL_MAX_LENGTH,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def _write_json(path: Path, content: dict) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
