"""The true vocabulary of Qwen2, Qwen2.5 and Qwen3, and the course's chat templates.

Qwen cuts text into tokens with a byte-level BPE: 151,643 byte strings, each with a
rank, and 26 added tokens that structure a conversation. The ranks ship inside the PyPI
package `dashscope`, so the true tokenizer can be built with no network.
"""

import base64
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.errors import suggest

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

HUB_ID = "Qwen/Qwen3-0.6B"
MODEL_MAX_LENGTH = 131072
CACHE_VARIABLE = "QWEN_COURSE_CACHE"
TEMPLATES = Path(__file__).parent / "templates"

# Text is cut into these pieces first; merges never cross a border. Two choices show
# up in every lesson: \p{N} takes one digit at a time, and a space belongs to the word
# after it.
PRETOKENIZE_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

# (text, special) in the order of their ids, 151643 to 151668. Special tokens vanish
# with skip_special_tokens=True; <think> and <tool_call> are not special, so they stay.
ADDED_TOKENS = [
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True),
    ("<|box_start|>", True),
    ("<|box_end|>", True),
    ("<|quad_start|>", True),
    ("<|quad_end|>", True),
    ("<|vision_start|>", True),
    ("<|vision_end|>", True),
    ("<|vision_pad|>", True),
    ("<|image_pad|>", True),
    ("<|video_pad|>", True),
    ("<tool_call>", False),
    ("</tool_call>", False),
    ("<|fim_prefix|>", False),
    ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False),
    ("<|fim_pad|>", False),
    ("<|repo_name|>", False),
    ("<|file_sep|>", False),
    ("<tool_response>", False),
    ("</tool_response>", False),
    ("<think>", False),
    ("</think>", False),
]

# Anything else under that name is not Qwen's vocabulary.
RANKS_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"


def qwen3_tokenizer() -> Any:
    """Return the true tokenizer of Qwen3, without the network wherever possible.

    Looks in the Hub cache, then in the installed package `dashscope`, then asks the
    Hub. Raises OSError, with what to type, when all three have nothing.

    >>> qwen3_tokenizer().encode("/no_think")
    [33100, 5854, 766]
    """
    if _in_hub_cache():
        return _from_hub(local_files_only=True)
    if ranks := ranks_file():
        return tokenizer_from_ranks(ranks)
    try:
        return _from_hub()
    except OSError as error:
        raise OSError(
            "the Qwen vocabulary is not on this computer, and the Hub did not send it. "
            "Type: python -m pip install dashscope   (the package contains the "
            "vocabulary), or connect to the network and run this again."
        ) from error


def read_template(name: str) -> str:
    """Return the text of one of the course's chat templates.

    They are "qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5" and "qwen3_8"; raises
    ValueError for any other name.

    >>> read_template("qwen3").count("<|im_start|>")
    3
    """
    names = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
    if name not in names:
        raise ValueError(
            f'chat template "{name}" is not one of {", ".join(names)}.'
            f"{suggest(name, names)}"
        )
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def byte_level_tokenizer(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    added_tokens: list[tuple[str, bool]] = ADDED_TOKENS,
    template: str = "qwen3",
    model_max_length: int = MODEL_MAX_LENGTH,
) -> "Qwen2Tokenizer":
    """Return a Qwen tokenizer over any byte-level BPE: Qwen's own, or one you trained.

    `vocabulary` and `merges` are written in byte characters (see `byte_characters`).
    The added tokens get the ids after the vocabulary, in order.

    >>> vocabulary = {char: id for id, char in enumerate(byte_characters().values())}
    >>> byte_level_tokenizer(vocabulary, []).encode("Hi<|im_end|>")
    [39, 72, 258]
    """
    from transformers import AddedToken, Qwen2Tokenizer

    added = {
        len(vocabulary) + index: AddedToken(text, special=special, normalized=False)
        for index, (text, special) in enumerate(added_tokens)
    }
    # Qwen2Tokenizer adds NFC, PRETOKENIZE_REGEX and the byte characters by itself.
    settings: dict[str, Any] = {
        "merges": merges,
        "added_tokens_decoder": added,
        "unk_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "extra_special_tokens": [text for text, special in added_tokens if special],
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": read_template(template),
    }
    return Qwen2Tokenizer(vocab=vocabulary, **settings)


def byte_characters() -> dict[int, str]:
    """Return the printable character that stands for each of the 256 bytes.

    A vocabulary file is text, so bytes without a shape of their own borrow a letter
    from U+0100 on. The order is that of the first 256 ids.

    >>> byte_characters()[ord("A")], byte_characters()[ord(" ")]
    ('A', 'Ġ')
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable}
    return shown | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


def read_ranks(path: Path) -> dict[bytes, int]:
    """Return the rank (which is the id) of every byte string in a `.tiktoken` file.

    Raises ValueError when the file is not Qwen's, or was altered.

    >>> read_ranks(ranks_file())[b" the"]
    279
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != RANKS_SHA256:
        raise ValueError(
            f"{path} is not Qwen's vocabulary, or it is damaged (its sha256 differs). "
            "Type: python -m pip install --force-reinstall --no-deps dashscope"
        )
    lines = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def recover_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return the pair that each longer token was merged from, in rank order.

    The ranks file lists results only. Merging a token's own bytes, lowest rank first,
    and stopping at two pieces gives back the last step of its making.

    >>> recover_merges({b"a": 0, b"b": 1, b"ab": 2, b"abb": 3})
    [(b'a', b'b'), (b'ab', b'b')]
    """
    return [_last_merge(token, ranks) for token in ranks if len(token) > 1]


def tokenizer_from_ranks(
    path: Path, added_tokens: list[tuple[str, bool]] = ADDED_TOKENS
) -> "Qwen2Tokenizer":
    """Return the true tokenizer of Qwen3, built from a ranks file.

    Qwen2.5's is the same without its last four added tokens. Recovering the merges
    takes a second or two, so they are kept in `cache_folder`, under the hash of the
    file they came from. Raises ValueError when that file is not Qwen's.
    """
    ranks = read_ranks(path)
    chars = byte_characters()

    def in_characters(token: bytes) -> str:
        return "".join(chars[byte] for byte in token)

    vocabulary = {in_characters(token): rank for token, rank in ranks.items()}
    merges = _cached_merges(vocabulary)
    if merges is None:
        merges = [
            (in_characters(left), in_characters(right))
            for left, right in recover_merges(ranks)
        ]
        _keep_merges(merges)
    return byte_level_tokenizer(vocabulary, merges, added_tokens)


def ranks_file() -> Path | None:
    """Return the ranks file inside the package `dashscope`, or None if there is none.

    The package is found without importing it: its import is slow, and not needed.
    """
    spec = importlib.util.find_spec("dashscope")
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder) / "resources" / "qwen.tiktoken"
        if path.is_file():
            return path
    return None


def cache_folder() -> Path:
    """Return the folder for files that the course may build again at any time.

    `QWEN_COURSE_CACHE` overrides the operating system's usual place.
    """
    if override := os.environ.get(CACHE_VARIABLE, "").strip():
        return Path(override).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(local) / "qwen-course" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "qwen-course"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "qwen-course"


def _in_hub_cache() -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("tokenizer.json", "tokenizer_config.json")
    found = (try_to_load_from_cache(HUB_ID, file) for file in files)
    return all(isinstance(path, str) for path in found)


def _from_hub(local_files_only: bool = False) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(HUB_ID, local_files_only=local_files_only)


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    parts = [token[index : index + 1] for index in range(len(token))]
    unknown = len(ranks)
    while len(parts) > 2:
        pairs = [left + right for left, right in zip(parts, parts[1:], strict=False)]
        best = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], unknown))
        parts[best : best + 2] = [pairs[best]]
    return parts[0], parts[1]


def _merges_path() -> Path:
    return cache_folder() / f"qwen-merges-{RANKS_SHA256[:16]}.json"


def _cached_merges(vocabulary: dict[str, int]) -> list[tuple[str, str]] | None:
    """Return the kept merges; None when there are none, or they are damaged."""
    try:
        kept = json.loads(_merges_path().read_text(encoding="utf-8"))
        merges = [(left, right) for left, right in kept]
        made = [left + right for left, right in merges]
    except (OSError, ValueError, TypeError):
        return None
    # Each merge makes one token, in order; the single bytes come first, unmerged.
    return merges if made == [token for token in vocabulary if len(token) > 1] else None


def _keep_merges(merges: list[tuple[str, str]]) -> None:
    """Write the merges in one step, so that no reader ever sees half a file."""
    path = _merges_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.write_text(json.dumps(merges, ensure_ascii=False), encoding="utf-8")
            draft.replace(path)
    except OSError as error:
        warnings.warn(
            f"the vocabulary could not be kept in {path.parent} ({error}); it will be "
            f"built again next time. {CACHE_VARIABLE} may name another folder.",
            stacklevel=2,
        )
