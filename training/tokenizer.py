"""The pocket models' tokenizer: a small byte-level BPE, built the way Qwen's is.

Same normalizer, same pre-tokenization, same added tokens by name and flag as Qwen3;
only the vocabulary is learnt from our own data, so its size and ids differ.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from qwen_course.vocabulary import ADDED_TOKENS, PRETOKENIZE_REGEX, read_template


def train_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a byte-level BPE of `size` entries, added tokens included.

    Every byte is an entry, so any text can be written and nothing is ever unknown.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size - len(ADDED_TOKENS),
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens(
        [AddedToken(text, special=special, normalized=False)
         for text, special in ADDED_TOKENS]
    )  # fmt: skip
    return bpe


def build(texts: Iterable[str], size: int, context: int) -> PreTrainedTokenizerFast:
    """Return the tokenizer with Qwen3's special tokens and our chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(texts, size),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=context,
        chat_template=read_template("qwen3"),
        clean_up_tokenization_spaces=False,
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
