"""Pictures of text, tokens as coloured boxes; and whether pictures can be seen."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Okabe-Ito, which colour-blind readers can tell apart; light, so that text stays dark.
_PLAIN = ("#dbeaf6", "#f3f3f3")
_CONTROL = "#ffd9b3"


@dataclass(frozen=True)
class Tokens:
    """Token ids with their texts; shows itself as boxes, or as text in a terminal."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    control: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        return "|".join(map(_visible, self.texts))

    def _repr_html_(self) -> str:
        boxes = []
        rows = zip(self.ids, self.texts, self.control, strict=True)
        for number, (id, text, control) in enumerate(rows):
            colour = _CONTROL if control else _PLAIN[number % 2]
            weight = "bold" if control else "normal"
            boxes.append(
                f'<span title="id {id}" style="background:{colour};color:#000;'
                f"font-weight:{weight};border-radius:3px;padding:1px 2px;margin:1px;"
                f'display:inline-block;white-space:pre">'
                f"{html.escape(_visible(text))}</span>" + "<br>" * text.count("\n")
            )
        return f'<div style="font-family:monospace">{"".join(boxes)}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def show_tokens(
    tokenizer: "PreTrainedTokenizerBase", text: str | Sequence[int]
) -> Tokens:
    """Return the tokens of a text, or of ids, ready to be shown.

    Control tokens are orange and bold; a space is shown as ␣ and a newline as ↵. In a
    notebook, pointing at a box tells its id.

    Example:
        show_tokens(tokenizer, "Hi there")  ->  Hi|␣there
    """
    ids = tokenizer(text)["input_ids"] if isinstance(text, str) else list(text)
    added = set(tokenizer.get_added_vocab().values())
    return Tokens(
        ids=tuple(ids),
        texts=tuple(str(tokenizer.decode([id])) for id in ids),
        control=tuple(id in added for id in ids),
    )


def _visible(text: str) -> str:
    return text.replace(" ", "␣").replace("\n", "↵")


def in_notebook() -> bool:
    """Return whether a front end shows what is displayed: Jupyter, Colab, VS Code."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")
