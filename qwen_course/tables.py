"""Tables without a library: HTML in a notebook, aligned columns in a terminal."""

from collections.abc import Iterable
from html import escape
from typing import Any, ClassVar, Generic, TypeVar

Item = TypeVar("Item")
Row = tuple[str, ...]


class Table(list[Item], Generic[Item]):
    """A list that shows itself as a table; a slice of it does so too.

    A subclass names its `columns` and gives the texts of one row in `cells`.
    """

    columns: ClassVar[Row] = ()
    noun: ClassVar[str] = "rows"

    def cells(self, item: Item) -> Row:
        """Return one text a column."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Any:
        chosen = super().__getitem__(index)
        return type(self)(chosen) if isinstance(index, slice) else chosen

    def __repr__(self) -> str:
        rows = as_text(self.columns, map(self.cells, self))
        return f"{rows}\n{len(self)} {self.noun}"

    def _repr_html_(self) -> str:
        title = f"{len(self)} {self.noun}"
        return as_html(title, self.columns, map(self.cells, self))


def as_text(header: Row, rows: Iterable[Row]) -> str:
    """Align columns with spaces, two between them.

    >>> print(as_text(("id", "size"), [("Qwen3-8B", "8B")]))
    id        size
    Qwen3-8B  8B
    """
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _side(column: Row) -> str:
    """Return where a column is aligned: numbers at the right, text at the left."""
    numbers = all(text[:1].isdigit() or text[:1] in "-+." for text in column)
    return "right" if numbers else "left"


def as_html(title: str, header: Row, rows: Iterable[Row]) -> str:
    """Write a table, every text escaped; a long one scrolls, with the keyboard too."""
    lines = list(rows)
    columns = zip(*lines, strict=True) if lines else [("",)] * len(header)
    sides = [_side(column) for column in columns]

    def line(opening: str, texts: Row) -> str:
        return "".join(
            f'<{opening} style="text-align: {side}">{escape(text)}</{opening[:2]}>'
            for text, side in zip(texts, sides, strict=True)
        )

    head = line('th scope="col"', header)
    body = "".join(f"<tr>{line('td', texts)}</tr>" for texts in lines)
    return (
        '<div tabindex="0" style="max-height: 34em; overflow: auto">'
        f"<table><caption>{escape(title)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
