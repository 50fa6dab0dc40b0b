"""GGUF: weights, settings, tokenizer and chat template of a model in one file.

It is the form that llama.cpp, Ollama, LM Studio and others read. The file is written
here from a checkpoint folder, one tensor after another, by the library `gguf` that
llama.cpp itself keeps.
"""

import contextlib
import ctypes
import importlib.util
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.engines import source_folder
from qwen_course.errors import suggest
from qwen_course.platforms.common import cached, need, why_missing
from qwen_course.tables import Row, Table

if TYPE_CHECKING:
    import numpy
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

PACKAGES = {"gguf": "gguf"}
PRECISIONS = ("f32", "f16", "bf16", "q8_0", "q4_0")
KINDS = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q3_k_m", "q2_k")
ARCHITECTURES = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
}
ROWS = 8192  # of a table in memory at once while it is written
# What llama.cpp takes for granted for these architectures, and reads no setting for.
GRANTED: dict[str, Any] = {
    "use_sliding_window": False,
    "hidden_act": "silu",
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
# How Qwen cuts a text before merging bytes: in llama.cpp it has the name "qwen2".
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# The library logs every key at the level of a warning's neighbour; its errors stay.
logging.getLogger("gguf").setLevel(logging.ERROR)


def why_not() -> str | None:
    """Return why no GGUF can be written here, and what to type; None if it can."""
    return why_missing("writing a GGUF file", PACKAGES, "gguf")


# Writing


def write_gguf(
    model: str | Path, precision: str = "f16", folder: str | Path | None = None
) -> Path:
    """Write a model as one GGUF file, once, and return the file.

    `model` is a pocket model, a Hub id or a folder of a Qwen2, Qwen3 or Qwen3 MoE;
    `precision` "f32", "f16", "bf16", or "q8_0" and "q4_0", which keep a scale for each
    32 weights of a row. Norms and biases stay f32, a table whose rows 32 does not
    divide stays f16, and with "q4_0" the output layer is q8_0. Without `folder` the
    file goes to the course's cache folder, and is written again only when something
    changed.

    Raises ImportError when the library is missing, ValueError for an unknown precision
    and for a model that llama.cpp would read wrongly.

    Example:
        write_gguf("pocket-qwen3", "q8_0")
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(PRECISIONS)}.'
            f"{suggest(str(precision), PRECISIONS)} Others, such as q4_k_m, are made "
            "from a written file: gguf_files.quantize(path, kind)."
        )
    need(why_not())
    source, name = source_folder(model), Path(str(model)).name
    place = (
        Path(folder) if folder else cached(source, "gguf", precision, package="gguf")
    )
    target = place / f"{name}-{precision}.gguf"
    if folder or not target.is_file():
        checkpoint = Checkpoint(source)
        with _draft(target) as draft:
            _write(checkpoint, name, precision, draft)
    return target


export = write_gguf


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Give a file beside the target, which becomes the target when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        draft = Path(place) / target.name
        yield draft
        draft.replace(target)


def _write(checkpoint: "Checkpoint", name: str, precision: str, path: Path) -> None:
    """Write the head of the file, then one tensor after another."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, checkpoint.architecture)
    try:
        _add_settings(writer, checkpoint, name, precision)
        _add_tokenizer(writer, checkpoint)
        planned = list(_plan(checkpoint, precision))
        for one in planned:
            one.announce(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in planned:
            writer.write_tensor_data(one.values(checkpoint))
    finally:
        writer.close()


# Reading a checkpoint folder


class Checkpoint:
    """A checkpoint folder, its tensors read one at a time.

    Raises ValueError for an architecture or setting that llama.cpp would not follow.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _json(folder / "config.json")
        self.generation = _json(folder / "generation_config.json")
        self.tokenizer = _json(folder / "tokenizer.json")
        found = (self.config.get("architectures") or ["unknown"])[0]
        if found not in ARCHITECTURES:
            raise ValueError(
                f"{folder.name} is a {found}. A GGUF is written here for "
                f"{', '.join(ARCHITECTURES)}.{suggest(found, ARCHITECTURES)} "
                "For others use convert_hf_to_gguf.py of llama.cpp."
            )
        self.architecture = ARCHITECTURES[found]
        self._check()
        self.files = _files(folder)

    def _check(self) -> None:
        for key, value in GRANTED.items():
            if self.config.get(key, value) != value:
                raise ValueError(
                    f"{self.folder.name} has {key} {self.config[key]}; llama.cpp takes "
                    f"{value} for granted, so that its answers would be wrong."
                )
        if (split := _split(self.tokenizer)) != SPLIT:
            raise ValueError(
                f"the tokenizer of {self.folder.name} cuts texts by {split!r}, not by "
                'the rule that llama.cpp calls "qwen2": the tokens would differ.'
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        from safetensors import safe_open

        with safe_open(self.files[name], "pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def tensor(self, name: str, kind: "GGMLQuantizationType") -> "numpy.ndarray":
        """Read one tensor as a type stores it, some rows at a time."""
        import numpy
        from gguf.quants import quantize
        from safetensors import safe_open

        with safe_open(self.files[name], "pt") as file:
            rows = file.get_slice(name)
            pieces = [
                quantize(rows[start : start + ROWS].float().numpy(), kind)
                for start in range(0, rows.get_shape()[0], ROWS)
            ]
        return pieces[0] if len(pieces) == 1 else numpy.concatenate(pieces)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        if path.name == "generation_config.json":
            return {}
        raise OSError(
            f"the folder {path.parent.name} holds no {path.name}: it is no complete "
            "checkpoint. Save model and tokenizer into it with save_pretrained."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _split(tokenizer: Mapping[str, Any]) -> str | None:
    """Return the pattern by which a tokenizer cuts texts, if it has one."""
    first = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    return (first[0].get("pattern") or {}).get("Regex")


def _files(folder: Path) -> dict[str, Path]:
    """Return in which file of a folder each tensor is."""
    from safetensors import safe_open

    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            files |= dict.fromkeys(file.keys(), path)
    if not files:
        raise OSError(
            f"the folder {folder.name} holds no *.safetensors file. Save the model "
            "into it with save_pretrained."
        )
    return files


# Tensors


@dataclass(frozen=True)
class _Planned:
    """A tensor of the file to be written: its name, where it comes from, its type."""

    name: str
    sources: tuple[str, ...]  # several are the experts of a layer, stacked
    shape: tuple[int, ...]
    type: "GGMLQuantizationType"

    def announce(self, writer: "GGUFWriter") -> None:
        """Put name, shape and type into the head of the file."""
        import numpy
        from gguf.quants import quant_shape_to_byte_shape

        stored = quant_shape_to_byte_shape(self.shape, self.type)
        size = int(numpy.prod(stored))
        kind = numpy.dtype(numpy.float32)
        writer.add_tensor_info(self.name, self.shape, kind, size, self.type)

    def values(self, checkpoint: Checkpoint) -> "numpy.ndarray":
        """Read the tensor from the checkpoint and return it as it is stored."""
        import numpy

        parts = [checkpoint.tensor(name, self.type) for name in self.sources]
        return parts[0] if len(parts) == 1 else numpy.stack(parts)


def _plan(checkpoint: Checkpoint, precision: str) -> Iterator[_Planned]:
    """Yield the tensors of the file, in the order in which they are written."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    arch = MODEL_ARCH[checkpoint.architecture.upper()]
    names = get_tensor_name_map(arch, checkpoint.config["num_hidden_layers"])
    tied = checkpoint.config.get("tie_word_embeddings", False)
    for name, sources in _grouped(checkpoint).items():
        if tied and name == "lm_head.weight":
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ValueError(f"llama.cpp has no place for the tensor {name}.")
        experts = (len(sources),) if len(sources) > 1 else ()
        shape = (*experts, *checkpoint.shape(sources[0]))
        yield _Planned(new, sources, shape, _type(new, shape, precision, tied))


def _grouped(checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """Return which tensors of the checkpoint make one of the file.

    Only experts do: those of a layer are stacked, in the order of their numbers.
    """
    groups: dict[str, list[str]] = {}
    for name in checkpoint.files:
        before, experts, after = name.partition(".experts.")
        whole = f"{before}.experts.{after.partition('.')[2]}" if experts else name
        groups.setdefault(whole, []).append(name)
    number = lambda name: int(name.partition(".experts.")[2].partition(".")[0] or 0)  # noqa: E731
    return {
        whole: tuple(sorted(names, key=number) if len(names) > 1 else names)
        for whole, names in groups.items()
    }


def _type(
    name: str, shape: Sequence[int], precision: str, tied: bool
) -> "GGMLQuantizationType":
    """Choose the type of a tensor: what is small or delicate keeps more bits."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) == 1 or "ffn_gate_inp" in name:
        return GGMLQuantizationType.F32
    head = "token_embd.weight" if tied else "output.weight"
    if precision == "q4_0" and name == head:
        precision = "q8_0"
    chosen = GGMLQuantizationType[precision.upper()]
    block, _ = GGML_QUANT_SIZES[chosen]
    return chosen if shape[-1] % block == 0 else GGMLQuantizationType.F16


# Settings


def _add_settings(
    writer: "GGUFWriter", checkpoint: Checkpoint, name: str, precision: str
) -> None:
    """Write what llama.cpp must know of the architecture."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    config = checkpoint.config
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    kind = "ALL_F32" if precision == "f32" else f"MOSTLY_{precision.upper()}"
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(LlamaFileType[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _add_rope(writer, config)
    if checkpoint.architecture == "qwen3moe":
        writer.add_expert_count(
            config.get("num_experts") or config["num_local_experts"]
        )
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    _add_sampling(writer, checkpoint.generation)


def _add_rope(writer: "GGUFWriter", config: Mapping[str, Any]) -> None:
    """Write how positions turn queries and keys, YaRN for long texts included."""
    from gguf import RopeScalingType

    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    writer.add_rope_freq_base(rope.get("rope_theta") or config["rope_theta"])
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "yarn":
        first = rope.get("original_max_position_embeddings")
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(first or config["max_position_embeddings"])
    elif kind != "default":
        raise ValueError(
            f'the rope type "{kind}" is not written; default and yarn are.'
        )


def _add_sampling(writer: "GGUFWriter", generation: Mapping[str, Any]) -> None:
    """Write the checkpoint's sampling, which llama.cpp takes where nothing is asked.

    Without it, it would sample with its own values, min_p 0.05 among them.
    """
    if not generation.get("do_sample"):
        return
    writer.add_sampling_temp(generation.get("temperature", 1.0))
    writer.add_sampling_top_k(generation.get("top_k", 50))
    writer.add_sampling_top_p(generation.get("top_p", 1.0))
    writer.add_sampling_min_p(generation.get("min_p", 0.0))
    writer.add_sampling_penalty_repeat(generation.get("repetition_penalty", 1.0))


# The tokenizer


def _add_tokenizer(writer: "GGUFWriter", checkpoint: Checkpoint) -> None:
    """Write tokens, merges, special ids and the chat template.

    No token is put before a text. The id of a beginning is written all the same, as in
    Qwen's own files, because llama.cpp would else take token 11 for it.
    """
    from gguf import SpecialVocab

    size = checkpoint.config["vocab_size"]
    tokens, types = _tokens(checkpoint.tokenizer, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = SpecialVocab(checkpoint.folder, load_merges=True, n_vocab=size)
    ids = special.special_token_ids
    if "bos" not in ids and "pad" in ids:
        ids["bos"] = ids["pad"]
    special.add_special_token["bos"] = False
    special.add_to_gguf(writer, quiet=True)


def _tokens(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of every id, places that no token has included."""
    from gguf import TokenType

    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [TokenType.UNUSED] * size
    for text, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = text, TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    return tokens, [int(one) for one in types]


# What a file says of itself


@dataclass(frozen=True)
class Tensors:
    """The tensors of one type in a file: how many, of how many values and bytes."""

    type: str
    number: int
    values: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * self.bytes / self.values


@dataclass(frozen=True)
class Facts:
    """What a GGUF file says of itself: its settings and its tensors by type.

    `settings` holds every key of the head but the lists of the vocabulary, of which it
    holds the lengths; `types` the type of each tensor by its name.
    """

    path: Path
    settings: dict[str, Any] = field(repr=False)
    types: dict[str, str] = field(repr=False)
    tensors: "TensorTable" = field(repr=False)

    @property
    def architecture(self) -> str:
        """The name by which llama.cpp knows the architecture."""
        return self.settings["general.architecture"]

    @property
    def context(self) -> int:
        """How many tokens the model was made for."""
        return self.settings[f"{self.architecture}.context_length"]

    @property
    def chat_template(self) -> str | None:
        """The chat template, a text in Jinja, if there is one."""
        return self.settings.get("tokenizer.chat_template")

    @property
    def bytes(self) -> int:
        """The bytes of the whole file."""
        return self.path.stat().st_size

    @property
    def bits(self) -> float:
        """Bits a weight, over all tensors."""
        values = sum(one.values for one in self.tensors)
        return 8 * sum(one.bytes for one in self.tensors) / values

    def __str__(self) -> str:
        lines = [
            f"{self.path.name}, {self.bytes:,} bytes, {self.bits:.2f} bits a weight"
        ]
        for key, value in self.settings.items():
            text = " ".join(str(value).split())
            lines.append(f"{key} = {text if len(text) <= 48 else text[:45] + '...'}")
        return "\n".join([*lines, str(self.tensors)])


class TensorTable(Table[Tensors]):
    """The tensors of a file by their type, those with most bytes first."""

    columns = ("type", "tensors", "values", "bytes", "bits a weight")
    noun = "types"

    def cells(self, item: Tensors) -> Row:
        """Return one text a column."""
        numbers = (item.number, item.values, item.bytes)
        return (item.type, *(f"{one:,}" for one in numbers), f"{item.bits:.2f}")


def read_gguf(path: str | Path) -> Facts:
    """Read the head of a GGUF file: what the model is, and how its weights are kept.

    Raises ImportError when the library is missing, OSError for a file that is none.

    Example:
        read_gguf(write_gguf("pocket-qwen3", "q8_0")).tensors
    """
    need(why_not())
    reader = _reader(Path(path))
    settings = {
        key: len(one.data) if len(one.data) > 64 else one.contents()
        for key, one in reader.fields.items()
        if not key.startswith("GGUF.")
    }
    types = {one.name: one.tensor_type.name.lower() for one in reader.tensors}
    return Facts(Path(path), settings, types, _by_type(reader))


def _reader(path: Path) -> "GGUFReader":
    from gguf import GGUFReader

    if not path.is_file():
        raise OSError(
            f"there is no file {path}. Write one: "
            'gguf_files.write_gguf("pocket-qwen3", "q8_0").'
        )
    try:
        return GGUFReader(path)
    except (ValueError, IndexError) as error:
        raise OSError(f"{path.name} is no whole GGUF file: {error}") from error


def _by_type(reader: "GGUFReader") -> TensorTable:
    number: Counter[str] = Counter()
    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for one in reader.tensors:
        kind = one.tensor_type.name.lower()
        number[kind] += 1
        values[kind] += int(one.n_elements)
        sizes[kind] += int(one.n_bytes)
    return TensorTable(
        Tensors(kind, number[kind], values[kind], size)
        for kind, size in sizes.most_common()
    )


def read_tensor(path: str | Path, name: str) -> "numpy.ndarray":
    """Read one tensor of a GGUF file, in f32, scales multiplied in.

    Raises KeyError for a name that the file does not have.

    Example:
        read_tensor(path, "blk.0.attn_q.weight").shape
    """
    from gguf.quants import dequantize

    for one in _reader(Path(path)).tensors:
        if one.name == name:
            return dequantize(one.data, one.tensor_type)
    raise KeyError(f"{Path(path).name} has no tensor {name}")


# Types that only llama.cpp itself writes


def why_not_quantize() -> str | None:
    """Return why `quantize` cannot run here, and what to type; None if it can."""
    if importlib.util.find_spec("llama_cpp"):
        return None
    return (
        "types such as q4_k_m are made by llama.cpp itself, and its package "
        "llama-cpp-python is not installed here. It is built while it is installed, "
        "with cmake and a C++ compiler, in some 15 minutes. "
        "Type: python -m pip install llama-cpp-python"
    )


def quantize(
    path: str | Path, kind: str = "q4_k_m", folder: str | Path | None = None
) -> Path:
    """Write a GGUF file anew with fewer bits, by llama.cpp's own program.

    `path` is best an f32, bf16 or f16 file; `kind` one of `KINDS`. A k-quant takes 256
    weights of a row at a time: a tensor whose rows 256 does not divide gets another
    type with more bits. The new file lies beside the first, or in `folder`.

    Raises ImportError without llama-cpp-python, ValueError for an unknown kind, OSError
    for a file that is none, RuntimeError when llama.cpp refuses.

    Example:
        quantize(write_gguf("pocket-qwen3", "f32"), "q4_k_m")
    """
    if kind not in KINDS:
        raise ValueError(
            f'"{kind}" is not one of {", ".join(KINDS)}.{suggest(kind, KINDS)}'
        )
    need(why_not_quantize())
    source = Path(path)
    _reader(source)
    name = source.stem.rpartition("-")[0] or source.stem
    target = Path(folder or source.parent) / f"{name}-{kind}.gguf"
    with _draft(target) as draft:
        _run_llama_quantize(source, draft, kind)
    return target


def _run_llama_quantize(source: Path, target: Path, kind: str) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    failed = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if failed:
        raise RuntimeError(
            f"llama.cpp could not write {source.name} as {kind}. Check the room on the "
            "disk, and that the file is whole."
        )
