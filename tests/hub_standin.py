"""A Hub cache for tests: `Qwen/...` checkpoints that load with no network.

True: the config (but for the sizes that were cut), the vocabulary, the chat template,
the generation settings (but for `ENDS`), the shape of a Hub cache. Not true: the
weights, which are random, so any text that these checkpoints generate is noise.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from qwen_course import vocabulary
from qwen_course.vocabulary import ADDED_TOKENS

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
QWEN2_5_7B_CONFIG = QWEN2_5_CONFIG | {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}
QWEN2_5_MATH_CONFIG = QWEN2_5_CONFIG | {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "max_position_embeddings": 4096,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "rope_theta": 10000,
}
# The numbers of text are flat, as in the published file; those of the eye are nested.
QWEN2_5_VL_CONFIG = SHARED_CONFIG | {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "hidden_size": 2048,
    "image_token_id": 151655,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rope_scaling": {"mrope_section": [16, 24, 24], "type": "mrope"},
    "sliding_window": 32768,
    "transformers_version": "4.41.2",
    "video_token_id": 151656,
    "vision_config": {
        "depth": 32,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "hidden_act": "silu",
        "hidden_size": 1280,
        "in_chans": 3,
        "intermediate_size": 3420,
        "model_type": "qwen2_5_vl",
        "num_heads": 16,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "window_size": 112,
    },
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}
# What transformers gives a Qwen2Audio by default, with the vocabulary of Qwen's.
QWEN2_AUDIO_CONFIG = {
    "architectures": ["Qwen2AudioForConditionalGeneration"],
    "audio_config": {
        "activation_function": "gelu",
        "d_model": 1280,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "encoder_layers": 32,
        "max_source_positions": 1500,
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": 128,
    },
    "audio_token_index": 151646,
    "model_type": "qwen2_audio",
    "text_config": {
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "max_position_embeddings": 8192,
        "model_type": "qwen2",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "vocab_size": 156032,
    },
    "tie_word_embeddings": False,
}
QWEN2_AUDIO_TOKENS = [
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<|AUDIO|>", True),
    ("<|audio_bos|>", True),
    ("<|audio_eos|>", True),
]
# M-RoPE needs heads of 128, so one head stays.
SMALL_VL = {
    "hidden_size": 128,
    "num_attention_heads": 1,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "vision_config": {
        "depth": 2,
        "fullatt_block_indexes": [1],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 128,
    },
}
SMALL_AUDIO = {
    "audio_config": {
        "d_model": 64,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 128,
        "encoder_layers": 2,
    },
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
    },
}
QWEN2_5_VL_IMAGES = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_pixels": 12845056,
    "merge_size": 2,
    "min_pixels": 3136,
    "patch_size": 14,
    "processor_class": "Qwen2_5_VLProcessor",
    "temporal_patch_size": 2,
}
QWEN2_AUDIO_SOUNDS = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "Qwen2AudioProcessor",
    "return_attention_mask": True,
    "sampling_rate": 16000,
}
# Random weights end no answer; a trained model does, mostly long before its limit:
# from 16 tokens on, `generate` makes the end of the turn likelier with each token.
ENDS = {"exponential_decay_length_penalty": [16, 1.5]}
SAMPLING_TOKENS = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "top_k": 20,
}

GREEDY_TOKENS = {
    "bos_token_id": 151643,
    "do_sample": False,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
}

# "added_tokens": Qwen2.5 has no tokens for tool responses and thinking yet.
# Qwen2.5's own generation config also has a repetition penalty; its value for this
# size is not confirmed, so it is left out.
CHECKPOINTS = {
    "Qwen/Qwen3-0.6B": {
        "config": QWEN3_CONFIG,
        "generation": SAMPLING_TOKENS | {"temperature": 0.6, "top_p": 0.95},
        "template": "qwen3",
        "added_tokens": ADDED_TOKENS,
    },
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "config": QWEN2_5_CONFIG,
        "generation": SAMPLING_TOKENS | {"temperature": 0.7, "top_p": 0.8},
        "template": "qwen2_5",
        "added_tokens": ADDED_TOKENS[:22],
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        "config": QWEN2_5_7B_CONFIG,
        "generation": SAMPLING_TOKENS | {"temperature": 0.7, "top_p": 0.8},
        "template": "qwen2_5",
        "added_tokens": ADDED_TOKENS[:22],
    },
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": {
        "config": QWEN2_5_CONFIG,
        "generation": SAMPLING_TOKENS | {"temperature": 0.7, "top_p": 0.8},
        "template": "qwen2_5",
        "added_tokens": ADDED_TOKENS[:22],
    },
    "Qwen/Qwen2.5-Math-1.5B-Instruct": {
        "config": QWEN2_5_MATH_CONFIG,
        "generation": GREEDY_TOKENS,
        "template": "qwen2_5",
        "added_tokens": ADDED_TOKENS[:22],
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "config": QWEN2_5_VL_CONFIG,
        "cut": SMALL_VL,
        "generation": GREEDY_TOKENS,
        "preprocessor": QWEN2_5_VL_IMAGES,
        "template": "qwen2_5_vl",
        "added_tokens": ADDED_TOKENS[:22],
    },
    "Qwen/Qwen2-Audio-7B-Instruct": {
        "config": QWEN2_AUDIO_CONFIG,
        "cut": SMALL_AUDIO,
        "generation": GREEDY_TOKENS,
        "preprocessor": QWEN2_AUDIO_SOUNDS,
        "template": None,  # the processor's class brings it
        "added_tokens": QWEN2_AUDIO_TOKENS,
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
    names = {c["template"] for c in CHECKPOINTS.values()} - {None}
    parts += [official_template(name).encode() for name in sorted(names)]
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


def build_hub(home: Path) -> Path:
    """Write every checkpoint, cut small, into the Hub cache `home`, and return it."""
    for hub_id in CHECKPOINTS:
        build_checkpoint(hub_id, snapshot_folder(home, hub_id))
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


def build_checkpoint(
    hub_id: str, folder: Path, cut: dict[str, Any] | None = None
) -> None:
    """Write the files of one checkpoint: weights, config, tokenizer, generation.

    `cut` replaces values of the true config; None takes those of the small stand-in,
    `{}` writes a checkpoint of full size, for measuring: its answers do not end early.
    """
    checkpoint = CHECKPOINTS[hub_id]
    config = true_or_cut_config(hub_id, cut)
    _write_weights(folder, config)
    _write_tokenizer(folder, checkpoint["template"], checkpoint["added_tokens"])
    _write_json(folder / "config.json", config)
    settings = checkpoint["generation"] | ({} if cut == {} else ENDS)
    _write_json(folder / "generation_config.json", settings)
    if "preprocessor" in checkpoint:
        _write_json(folder / "preprocessor_config.json", checkpoint["preprocessor"])


def true_or_cut_config(hub_id: str, cut: dict[str, Any] | None = None) -> dict:
    """Return the true config with the cut values, its attention heads unchanged."""
    checkpoint = CHECKPOINTS[hub_id]
    config = checkpoint["config"]
    if cut is None:
        cut = checkpoint.get("cut", SMALL)
    if cut is not SMALL:
        return _merged(config, cut)
    # Qwen2.5 leaves head_dim out: width over heads. A cut width must not change it.
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    return config | cut | {"head_dim": head_dim}


def _merged(config: dict, cut: dict) -> dict:
    """Return `config` with the values of `cut`, nested ones in their places."""
    nested = {
        key: _merged(config[key], value)
        for key, value in cut.items()
        if isinstance(value, dict)
    }
    return config | cut | nested


def _write_weights(folder: Path, config: dict) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers.utils import logging

    config = dict(config)
    kind = config.pop("model_type")
    many = {"vision_config", "audio_config"} & set(config)
    auto = AutoModelForMultimodalLM if many else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(
            AutoConfig.for_model(kind, **config), dtype=torch.bfloat16
        )
    if many:  # its names on disk are not those of its modules
        logging.disable_progress_bar()
        model.save_pretrained(folder)
        logging.enable_progress_bar()
        return
    tensors = model.state_dict()
    if config["tie_word_embeddings"]:  # the same as the embedding
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(
    folder: Path, template: str | None, tokens: list[tuple[str, bool]]
) -> None:
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
            **({"chat_template": official_template(template)} if template else {}),
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
