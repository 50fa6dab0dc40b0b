"""The vocabulary is Qwen's own: same ids, same cuts, nothing lost on the way back."""

import doctest
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from qwen_course import vocabulary

SENTENCES = {
    "en": "The quick brown fox doesn't jump; it's 3.14 metres away!",
    "tr": "Pijamalı hasta yağız şoföre çabucak güvendi. İıĞğ",
    "zh": "敏捷的棕色狐狸跳过了懒狗。",
    "ja": "いろはにほへと ちりぬるを、カタカナ。",
    "ko": "다람쥐 헌 쳇바퀴에 타고파",
    "ar": "نص حكيم له سر قاطع وذو شأن عظيم",
    "he": "דג סקרן שט בים מאוכזב",
    "hi": "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "th": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "ru": "Съешь ещё этих мягких французских булок",
    "el": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "ka": "გთხოვთ ახლავე გაიაროთ რეგისტრაცია",
    "am": "ሰማይ አይታረስ ንጉሥ አይከሰስ።",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1f9\U0001f1f7",
    "rare": "\U00010330\U00010331 \U0001d518 \U00020000 \u0000 \ufeff \u202e",
    "code": "def f(x):\n\tif x <= 10:\n\t\treturn {'a': [x]}\r\n\r\n    # done   ",
    "spaces": " \n  \t \r\n\n   ",
}


@pytest.fixture(scope="module")
def tokenizer():
    """Built from the ranks file, so that nothing of the stand-in is involved."""
    return vocabulary.tokenizer_from_ranks(vocabulary.ranks_file())


@pytest.fixture(scope="module")
def ranks():
    return vocabulary.read_ranks(vocabulary.ranks_file())


def random_text(source: random.Random) -> str:
    """Pieces of many scripts, digits, spaces, contractions and any character at all."""
    ranges = [(32, 127), (0xA0, 0x250), (0x370, 0x600), (0x900, 0xE7F)]
    ranges += [(0x2000, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3)]
    ranges += [(0x1F300, 0x1F9FF), (0x0, 0xD7FF), (0x10000, 0x3FFFF)]
    pieces = []
    for _ in range(source.randint(1, 12)):
        first, last = source.choice(ranges)
        word = [chr(source.randint(first, last)) for _ in range(source.randint(1, 6))]
        words = [*SENTENCES.values(), "".join(word), str(source.getrandbits(40))]
        words += [" ", "\n", "\r\n", "\t", "   ", "'s", "'LL", "I'm", " (", "!?\n"]
        pieces.append(source.choice(words))
    # A newer Unicode table than Python's may compose characters unknown to it.
    text = "".join(c for c in "".join(pieces) if unicodedata.category(c) != "Cn")
    return unicodedata.normalize("NFC", text)


def test_the_sizes_are_the_published_ones(tokenizer, ranks):
    assert len(ranks) == 151643
    assert len(tokenizer) == 151669
    assert len(vocabulary.recover_merges(ranks)) == 151643 - 256


def test_the_tokenizer_is_of_the_class_the_hub_names(tokenizer):
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert tokenizer.model_max_length == 131072
    assert tokenizer.padding_side == "right"


def test_the_added_tokens_have_their_true_ids(tokenizer):
    ids = {
        "<|endoftext|>": 151643,
        "<|im_start|>": 151644,
        "<|im_end|>": 151645,
        "<|vision_start|>": 151652,
        "<|vision_end|>": 151653,
        "<|image_pad|>": 151655,
        "<tool_call>": 151657,
        "</tool_call>": 151658,
        "<|fim_prefix|>": 151659,
        "<|fim_middle|>": 151660,
        "<|fim_suffix|>": 151661,
        "<|fim_pad|>": 151662,
        "<|repo_name|>": 151663,
        "<|file_sep|>": 151664,
        "<tool_response>": 151665,
        "</tool_response>": 151666,
        "<think>": 151667,
        "</think>": 151668,
    }
    assert {text: tokenizer.encode(text) for text in ids} == {
        text: [id] for text, id in ids.items()
    }
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (151645, 151643)
    assert (tokenizer.bos_token, tokenizer.unk_token) == (None, None)


def test_the_added_tokens_are_those_of_the_course_data(tokenizer):
    data = Path(vocabulary.__file__).parent / "data" / "tokens.yaml"
    known = yaml.safe_load(data.read_text("utf-8"))["qwen3"]["tokens"]
    added = tokenizer.added_tokens_decoder
    assert {id: (token.content, token.special) for id, token in added.items()} == {
        token["id"]: (token["text"], token["special"]) for token in known
    }


def test_special_tokens_vanish_from_decoded_text_and_the_others_stay(tokenizer):
    for text, special in vocabulary.ADDED_TOKENS:
        ids = tokenizer.encode(f"a{text}b")
        assert tokenizer.decode(ids) == f"a{text}b"
        shown = "ab" if special else f"a{text}b"
        assert tokenizer.decode(ids, skip_special_tokens=True) == shown


def test_known_texts_have_their_published_ids(tokenizer):
    assert tokenizer.encode("/no_think") == [33100, 5854, 766]
    assert tokenizer.encode("\n") == [198]
    assert tokenizer.encode("\n\n") == [271]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}],
        add_generation_prompt=True,
        enable_thinking=False,
        return_dict=False,
    )
    start, end, newline, blank = 151644, 151645, 198, 271
    user = [start, 872, newline, 13048, end, newline]
    assert prompt == [*user, start, 77091, newline, 151667, blank, 151668, blank]


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_text_of_every_script_comes_back_unchanged(tokenizer, text):
    text = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_byte_has_a_token_and_its_id_follows_the_byte_characters(tokenizer):
    characters = vocabulary.byte_characters()
    assert sorted(characters) == list(range(256))
    assert len(set(characters.values())) == 256
    ids = tokenizer.convert_tokens_to_ids(list(characters.values()))
    assert ids == list(range(256))


def test_every_single_character_below_the_surrogates_comes_back(tokenizer):
    text = "".join(map(chr, range(0xD800)))
    text = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_composed_and_decomposed_letters_are_one_and_the_same(tokenizer):
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")


def test_digits_stand_one_by_one(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("20451 + 7"))
    assert tokens == ["2", "0", "4", "5", "1", "Ġ+", "Ġ", "7"]


def test_the_regex_is_the_one_that_transformers_cuts_with(tokenizer):
    from transformers.models.qwen2 import tokenization_qwen2

    assert tokenization_qwen2.PRETOKENIZE_REGEX == vocabulary.PRETOKENIZE_REGEX


def test_tiktoken_gives_the_same_ids_for_2000_random_texts(tokenizer, ranks):
    """Qwen's first tokenizer was tiktoken over the same ranks: an independent proof."""
    tiktoken = pytest.importorskip("tiktoken")
    reference = tiktoken.Encoding(
        "qwen",
        pat_str=vocabulary.PRETOKENIZE_REGEX,
        mergeable_ranks=ranks,
        special_tokens={},
    )
    source = random.Random(0)
    for _ in range(2000):
        text = random_text(source)
        assert tokenizer.encode(text) == reference.encode_ordinary(text), repr(text)


def test_the_second_build_reads_the_kept_merges(tokenizer, monkeypatch):
    monkeypatch.delattr(vocabulary, "recover_merges")
    again = vocabulary.tokenizer_from_ranks(vocabulary.ranks_file())
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize("damage", ["", "[]", '[["a", "b"]]', "[1]", "\x00"])
def test_damaged_kept_merges_are_made_again(ranks, damage, monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(tmp_path))
    vocabulary._merges_path().write_text(damage)
    assert vocabulary._cached_merges({"a": 0, "b": 1, "ba": 2}) is None


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="QWEN_COURSE_CACHE may name another folder"):
        vocabulary._keep_merges([("a", "b")])


def test_an_altered_ranks_file_is_refused(tmp_path):
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(vocabulary.ranks_file().read_bytes()[:-20])
    with pytest.raises(ValueError, match="qwen.tiktoken is not Qwen's vocabulary"):
        vocabulary.read_ranks(path)


def test_the_hub_cache_comes_first(monkeypatch):
    """The stand-in holds Qwen3-0.6B, so the ranks file is not even looked for."""
    monkeypatch.delattr(vocabulary, "ranks_file")
    assert len(vocabulary.qwen3_tokenizer()) == 151669


def test_without_a_hub_cache_the_ranks_file_is_used(monkeypatch):
    monkeypatch.setattr(vocabulary, "_in_hub_cache", lambda: False)
    monkeypatch.delattr(vocabulary, "_from_hub")
    assert len(vocabulary.qwen3_tokenizer()) == 151669


def test_without_any_source_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setattr(vocabulary, "_in_hub_cache", lambda: False)
    monkeypatch.setattr(vocabulary, "ranks_file", lambda: None)
    monkeypatch.setattr(vocabulary, "HUB_ID", "Qwen/not-in-any-cache")
    with pytest.raises(OSError, match="Type: python -m pip install dashscope"):
        vocabulary.qwen3_tokenizer()


def test_a_wrong_template_name_is_answered_with_the_right_one():
    with pytest.raises(ValueError, match='not one of .* Did you mean "qwen3"'):
        vocabulary.read_template("qwen-3")


def test_the_examples_in_the_docstrings_are_true():
    failed, tried = doctest.testmod(vocabulary)
    assert (failed, tried > 5) == (0, True)


def test_importing_the_module_imports_no_heavy_library():
    code = (
        "import sys, qwen_course.vocabulary\n"
        "print({'torch', 'transformers', 'dashscope', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
