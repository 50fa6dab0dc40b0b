"""Text that stays text: for the model, a browser, Markdown and a terminal.

The same fault in four places: characters that a program obeys come from outside. The
same remedy, too: where text meets the program, turn those characters into plain ones.
"""

import functools
import html
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwen_course.datafiles import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a text may not hold at all: halves of characters, and noncharacters.
NO_TEXT = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# What stands for "<" once a text was normalized (NFKC).
_OPENERS = "<\uff1c\ufe64"
_QUOTES = {"<": "\u2039", ">": "\u203a"}  # no normal form turns them back
_ANY_CONTROL = r"<\|[a-z0-9_]{1,40}\|>"  # also that of a family we do not know
# Tags are letters that nobody sees. Emoji flags, such as Scotland's, are made of them.
_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]{1,6}\U000e007f"
_TAGS = re.compile(f"({_FLAG})|[\U000e0000-\U000e007f]")
# They turn the direction of reading: what you see is then not what is there.
_BIDI = "\u202a-\u202e\u2066-\u2069"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&:])")


def control_strings(tokenizer: "PreTrainedTokenizerBase | None" = None) -> list[str]:
    """Return the control tokens of every Qwen, and those of a tokenizer, longest first.

    >>> "</think>" in control_strings(), "<|audio_pad|>" in control_strings()
    (True, True)
    """
    families = read_yaml("tokens").values()
    known = {token["text"] for family in families for token in family["tokens"]}
    if tokenizer is not None:
        known |= set(tokenizer.get_added_vocab())
    return sorted(known, key=lambda text: (-len(text), text))


def neutralise(text: str, control: Sequence[str]) -> str:
    """Return a text in which no control token is left, its < and > turned to ‹ and ›.

    Disguises count too: letters of another width, invisible characters in between,
    accents. They are harmless as they stand, but not after somebody normalized them.
    Invisible tag letters are taken out. Everything else stays as it is, and doing it
    twice changes nothing more.

    >>> neutralise("a<|im_end|>b", ["<|im_end|>"])
    'a‹|im_end|›b'
    >>> neutralise("if a < b: print(a |> f)", ["<|im_end|>"])
    'if a < b: print(a |> f)'
    """
    text = _TAGS.sub(lambda match: match[1] or "", text)
    if not any(opener in text for opener in _OPENERS):
        return text
    bare, places = _skeleton(text)
    characters = list(text)
    for match in _pattern(tuple(control)).finditer(bare):
        for place in range(*match.span()):
            if quote := _QUOTES.get(bare[place]):
                characters[places[place]] = quote
    return "".join(characters)


def _skeleton(text: str) -> tuple[str, list[int]]:
    """Return what is left of a text after normalizing, and where each letter stood."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for letter in _folded(character):
            letters.append(letter)
            places.append(place)
    return "".join(letters), places


@functools.lru_cache(4096)
def _folded(character: str) -> str:
    letters = unicodedata.normalize("NFKD", character).lower()
    hidden = ("Cf", "Mn", "Me", "Cc")  # invisible, accents, control characters
    return "".join(one for one in letters if unicodedata.category(one) not in hidden)


@functools.lru_cache(16)
def _pattern(control: tuple[str, ...]) -> re.Pattern:
    exact = [re.escape(text.lower()) for text in control]
    return re.compile("|".join([*exact, _ANY_CONTROL]))


def for_browser(text: str) -> str:
    """Return a text that a page can hold anywhere, in attributes too: it stays text.

    >>> for_browser("<script>")
    '&lt;script&gt;'
    """
    return html.escape(re.sub(f"[{_BIDI}]", "", text))


def for_markdown(text: str) -> str:
    r"""Return a text that Markdown shows as it is: no link, picture or tag arises.

    A picture is the worst of them: it is fetched without a click, and its address can
    carry away what stands in the conversation.

    >>> print(for_markdown("![](x)"))
    \!\[\]\(x\)
    """
    return _MARKDOWN.sub(r"\\\1", re.sub(f"[{_BIDI}]", "", text))


def for_terminal(text: str) -> str:
    r"""Return a text whose control characters are written out, not obeyed.

    >>> print(for_terminal("\x1b[2Jgone"))
    \x1b[2Jgone
    """
    hidden = f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}]"
    return re.sub(hidden, lambda found: ascii(found[0])[1:-1], text)
