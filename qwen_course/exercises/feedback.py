"""What a check answers: HTML in a notebook, text elsewhere."""

from dataclasses import dataclass
from html import escape
from typing import Any

from qwen_course.display import in_notebook
from qwen_course.exercises.question import Status

# A colour, a sign and a word each: nobody needs to tell colours apart. White text on
# them can be read in a light and in a dark JupyterLab.
LOOK = {
    "to do": ("#6b6b6b", "○"),
    "not yet": ("#b35900", "✗"),
    "right": ("#00694d", "✓"),
}


@dataclass(frozen=True)
class Feedback:
    """The answer of a check; `mistake` names the misconception, "" if there is none."""

    id: str
    title: str
    status: Status
    text: str
    mistake: str = ""

    def __str__(self) -> str:
        sign = LOOK[self.status][1]
        return f"{sign} {self.id} {self.title}: {self.status}. {self.text}".rstrip()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        colour, sign = LOOK[self.status]
        head = f"{sign} {escape(self.id)} · {escape(self.status)}"
        text = escape(self.text).replace("\n", "<br>")
        return (
            f'<div role="status" style="border-left:4px solid {colour};'
            f'padding:4px 12px;margin:4px 0">'
            f'<b style="background:{colour};color:#fff;padding:1px 6px">{head}</b> '
            f"<i>{escape(self.title)}</i><br>{text}</div>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def show(thing: Any) -> None:
    """Display in a notebook, print elsewhere."""
    if in_notebook():
        from IPython.display import display

        display(thing)
    else:
        print(thing)
