"""The pocket models' tokenizer: a small byte-level BPE, built the way Qwen's is.

Same class, normalizer, pre-tokenization, added tokens and template as Qwen3; only the
vocabulary is learnt from our own data, so its size and its ids differ.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.trainers import BpeTrainer

from qwen_course.vocabulary import (
    ADDED_TOKENS,
    PRETOKENIZE_REGEX,
    byte_level_tokenizer,
)

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer


def train_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a byte-level BPE of at most `size` entries; all 256 bytes are among them.

    Merging stops earlier when every word of the texts is one token.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def build(
    texts: Iterable[str],
    size: int,
    context: int,
    template: str = "qwen3",
    added_tokens: list[tuple[str, bool]] = ADDED_TOKENS,
) -> "Qwen2Tokenizer":
    """Return a tokenizer of at most `size` entries with Qwen's added tokens."""
    bpe = json.loads(train_bpe(texts, size - len(added_tokens)).to_str())["model"]
    merges = [(left, right) for left, right in bpe["merges"]]
    return byte_level_tokenizer(
        bpe["vocab"], merges, added_tokens, template, model_max_length=context
    )
