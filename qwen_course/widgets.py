"""Small panels to touch: their logic is plain functions, so that tests can call it."""

import asyncio
import base64
import functools
import html
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course import catalog, choosing, deployment, media, memory, tasks
from qwen_course.chat import Reply, chat, reply_html
from qwen_course.doctor import model_memory_gb
from qwen_course.messages import Message
from qwen_course.tasks import charts
from qwen_course.tasks.charts.examples import EXAMPLES
from qwen_course.vision import image_cost

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from qwen_course.precision_costs import Cost

_STYLE = (
    "max-height:24em;overflow:auto;border:1px solid #888;border-radius:4px;padding:8px"
)


class ChatSession:
    """A conversation without a screen: what the chat panel does when you press Send."""

    def __init__(
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.messages: list[Message] = []
        self.turns: list[tuple[str, Reply]] = []

    def send(
        self,
        text: str,
        thinking: bool = True,
        thinking_budget: int | None = None,
        on_text: Callable[[str, str], None] | None = None,
    ) -> Reply:
        """Ask, keep question and reply in the history, and return the reply.

        Raises ValueError for an empty text; a failed call leaves the history as it was.
        """
        if not text.strip():
            raise ValueError("there is nothing to send. Write a question first.")
        question: Message = {"role": "user", "content": text.strip()}
        reply = chat(
            self.model,
            self.tokenizer,
            [*self.messages, question],
            thinking=thinking,
            thinking_budget=thinking_budget if thinking else None,
            stream=on_text or False,
        )
        self.messages = reply.messages
        self.turns.append((text.strip(), reply))
        return reply

    def clear(self) -> None:
        """Forget the conversation."""
        self.messages, self.turns = [], []

    def to_html(self, pending: tuple[str, str, str] | None = None) -> str:
        """Return the transcript; `pending` is a question with thinking and answer."""
        rows = [
            _turn_html(text, reply_html(reply.thinking, reply.answer, str(reply.usage),
                                        reply.stopped))
            for text, reply in self.turns
        ]  # fmt: skip
        if pending:
            question, thinking, answer = pending
            rows.append(_turn_html(question, reply_html(thinking, answer, opened=True)))
        inside = "".join(rows) or "<em>Nothing said yet.</em>"
        return (
            f'<div class="qwen-course-chat" role="log" tabindex="0" '
            f'aria-label="Conversation" style="{_STYLE}">{inside}</div>'
        )


def _turn_html(question: str, reply: str) -> str:
    return f"<p><strong>You:</strong> {html.escape(question)}</p>{reply}"


def on_enter(box: Any, act: Callable[[], None]) -> None:
    """Call `act` when Enter is pressed in a text box, with the whole text in it.

    subtle: the browser reports Enter first and the text after it, and the text only
    if it changed. So the text is awaited, for a third of a second at most.
    """
    waiting = False

    def go(_: Any = None) -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            act()

    def entered(_: Any) -> None:
        nonlocal waiting
        waiting = True
        try:
            asyncio.get_running_loop().call_later(0.3, go)
        except RuntimeError:  # no loop, so no browser whose text could be late
            go()

    box.observe(go, names="value")
    with warnings.catch_warnings():
        # Deprecated, and still the only event for Enter: `value` also changes on Tab.
        warnings.simplefilter("ignore", DeprecationWarning)
        box.on_submit(entered)


def panel(inputs: dict[str, Any], show: Callable[..., Any]) -> Any:
    """Return a panel: inputs, and below them what `show` makes of their values.

    `inputs` are widgets by the argument of `show` each stands for. `show` returns
    something with `_repr_html_`; a ValueError of it is shown as text. Where no front
    end shows widgets, the panel is what `show` makes of the first values.
    """
    import ipywidgets as widgets

    def shown() -> Any:
        return show(**{name: box.value for name, box in inputs.items()})

    def as_html() -> str:
        try:
            return shown()._repr_html_()
        except ValueError as error:
            return f"<p><strong>{html.escape(str(error))}</strong></p>"

    class Panel(widgets.VBox):
        def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
            view = super()._repr_mimebundle_(**kwargs) or {}
            return {**view, "text/plain": str(shown()), "text/html": as_html()}

    screen = widgets.HTML(as_html())

    def update(_: Any) -> None:
        screen.value = as_html()

    for box in inputs.values():
        box.observe(update, names="value")
    return Panel([widgets.HBox([*inputs.values()], layout={"flex_flow": "row wrap"}),
                  screen])  # fmt: skip


def memory_calculator(model: str = "Qwen3-8B", precision: str = "bf16") -> Any:
    """Return a panel that estimates memory as you change model, precision, context.

    The rows are those of `qc.memory.estimate`.
    """
    import ipywidgets as widgets

    known = [c.name for c in catalog.models() if choosing.has_dimensions(c)]
    sizes = [2**power for power in range(9, 21)]
    inputs = {
        "model": widgets.Dropdown(options=known, value=model, description="Model"),
        "precision": widgets.Dropdown(
            options=list(memory.PRECISIONS), value=precision, description="Precision"
        ),
        "context": widgets.SelectionSlider(
            options=[(f"{size:,}", size) for size in sizes],
            value=4096,
            description="Context",
        ),
        "batch": widgets.IntSlider(value=1, min=1, max=64, description="Batch"),
    }
    return panel(inputs, memory.estimate)


@dataclass(frozen=True)
class Trial:
    """One problem with the reply it got, and whether that was right."""

    question: str
    expected: str
    reply: Reply
    right: bool

    def _verdict(self) -> str:
        return "right" if self.right else f"wrong: it is {self.expected}"

    def __str__(self) -> str:
        return f"{self.question}\n{self.reply}\n{self._verdict()}"

    def _repr_html_(self) -> str:
        colour = "#00755A" if self.right else "#B34700"
        mark = f'<strong style="color:{colour}">{self._verdict()}</strong>'
        reply = reply_html(self.reply.thinking, self.reply.answer,
                           str(self.reply.usage), self.reply.stopped,
                           opened=True)  # fmt: skip
        return f"<p>{html.escape(self.question)}</p>{reply}<p>{mark}</p>"


def try_sum(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    numbers: int = 5,
    problem: int = 1,
    thinking: bool = True,
    budget: int = 128,
) -> Trial:
    """Ask for the sum of so many numbers, greedily; `problem` chooses which sum."""
    asked = tasks.sums.problems(1, seed=problem, count=numbers)[0]
    reply = chat(
        model, tokenizer, asked.prompt, thinking=thinking, sampling="greedy",
        thinking_budget=budget if thinking else None,
    )  # fmt: skip
    return Trial(asked.question, asked.expected, reply, asked.grade(reply.answer))


def thinking_lab(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> Any:
    """Return a panel that answers a sum as you change its length and the budget."""
    import ipywidgets as widgets

    def slider(value: int, low: int, high: int, name: str) -> Any:
        return widgets.IntSlider(
            value=value, min=low, max=high, description=name, continuous_update=False
        )

    inputs = {
        "thinking": widgets.Checkbox(value=True, description="Thinking", indent=False),
        "budget": slider(128, 1, 128, "Budget"),
        "numbers": slider(5, 2, 7, "Numbers"),
        "problem": slider(1, 1, 20, "Problem"),
    }
    return panel(inputs, functools.partial(try_sum, model, tokenizer))


LABELS = {
    "months": "Jan Feb Mar Apr May Jun Jul Aug",
    "quarters": "Q1 Q2 Q3 Q4 Q1 Q2 Q3 Q4",
    "days": "Mon Tue Wed Thu Fri Sat Sun",
    "letters": "A B C D E F G H",
}
DRAWN = "drawn from the values"
QUESTIONS = ("Read the chart.", "Which one is the highest?", "Which one is the lowest?",
             "What is the trend?", "How many values are there?")  # fmt: skip


@dataclass(frozen=True)
class ChartTrial:
    """A drawn chart with a question, the answer to it, and the tokens it cost."""

    image: Any
    question: str
    reply: Reply
    image_tokens: int

    def _cost(self) -> str:
        tokens = self.reply.usage.prompt_tokens
        return f"{tokens} prompt tokens, {self.image_tokens} of them for the picture"

    def __str__(self) -> str:
        return f"{self.question}\n{self.reply.answer}\n[{self._cost()}]"

    def _repr_html_(self) -> str:
        data = io.BytesIO()
        self.image.save(data, "PNG")
        source = base64.b64encode(data.getvalue()).decode()
        picture = (
            '<img alt="the chart that is asked about" width="336" '
            f'src="data:image/png;base64,{source}">'
        )
        answer = reply_html("", self.reply.answer, self._cost(), self.reply.stopped)
        return f"{picture}<p>{html.escape(self.question)}</p>{answer}"


def try_chart(
    model: "PreTrainedModel",
    processor: Any,
    values: str = "20, 35, 50, 40",
    labels: str = "months",
    form: str = "bar",
    colour: str = "blue",
    question: str = QUESTIONS[0],
    picture: str = DRAWN,
) -> ChartTrial:
    """Draw a chart of 2 to 8 values (0 to 100, with commas) and ask about it.

    `picture` asks about one of the course's charts in its place: "sales", "two_years",
    "energy", "votes" or "rain". Raises ValueError for values that are no whole numbers
    or too many, and for pictures, labels, forms and colours that are not known.
    """
    if picture == DRAWN:
        image = _drawn(values, labels, form, colour)
    elif picture in EXAMPLES:
        image = charts.draw(*EXAMPLES[picture])
    else:
        known = ", ".join((DRAWN, *EXAMPLES))
        raise ValueError(f'picture "{picture}" is not one of {known}.')
    asked = [media.question("image", image, question)]
    reply = chat(model, processor, asked, sampling="greedy", max_new_tokens=64)
    return ChartTrial(image, question, reply, image_cost(processor, image).tokens)


def _drawn(values: str, labels: str, form: str, colour: str) -> Any:
    numbers = _whole_numbers(values)
    if labels not in LABELS:
        raise ValueError(f'labels "{labels}" is not one of {", ".join(LABELS)}.')
    names = tuple(LABELS[labels].split()[: len(numbers)])
    return charts.draw(charts.Chart(form, names, numbers, (colour,)))


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f'"{text}" is no list of whole numbers; write it as 20, 35, 50.'
        ) from None


def chart_reader(model: "PreTrainedModel", processor: Any) -> Any:
    """Return a panel: pick a chart or draw one from your numbers, and ask about it."""
    import ipywidgets as widgets

    inputs = {
        "picture": widgets.Dropdown(options=[DRAWN, *EXAMPLES], description="Picture"),
        "values": widgets.Text(
            value="20, 35, 50, 40", description="Values", continuous_update=False
        ),
        "labels": widgets.Dropdown(options=list(LABELS), description="Labels"),
        "form": widgets.Dropdown(options=["bar", "line"], description="Chart"),
        "colour": widgets.Dropdown(
            options=list(charts.COLOURS), value="blue", description="Colour"
        ),
        "question": widgets.Combobox(
            value=QUESTIONS[0], options=list(QUESTIONS),
            description="Question", continuous_update=False,
        ),
    }  # fmt: skip
    return panel(inputs, functools.partial(try_chart, model, processor))


ANY = "any"


def choices(
    task: str, memory_gb: int, licence: str, context: int, thinking: str
) -> choosing.Recommendation:
    """Return the five best checkpoints for what the chooser's inputs say."""
    found = choosing.recommend(
        task,
        memory_gb=memory_gb,
        licence=None if licence == ANY else licence,
        context=context,
        thinking={ANY: None, "yes": True, "no": False}[thinking],
    )
    return found[:5]


def model_chooser(task: str = "chat", memory_gb: int = 8) -> Any:
    """Return a panel that recommends checkpoints as you change what you need."""
    import ipywidgets as widgets

    licences = sorted({c.licence for c in catalog.models() if c.licence})
    contexts = [4096, 8192, 32768, 131072, 262144, 1_000_000]
    inputs = {
        "task": widgets.Dropdown(
            options=list(choosing.TASKS), value=task, description="Task"
        ),
        "memory_gb": widgets.SelectionSlider(
            options=[(f"{size} GiB", size) for size in GIBS],
            value=memory_gb,
            description="Memory",
        ),
        "licence": widgets.Dropdown(options=[ANY, *licences], description="Licence"),
        "context": widgets.Dropdown(
            options=[(f"{size:,} tokens", size) for size in contexts],
            description="Context",
        ),
        "thinking": widgets.Dropdown(
            options=[ANY, "yes", "no"], description="Thinking"
        ),
    }
    return panel(inputs, choices)


def platform_choices(
    use: str, users: int, hardware: str, system: str, operations: str, private: str
) -> deployment.Choices:
    """Return the platforms for what the chooser's inputs say."""
    return deployment.choose(
        use, users, hardware, system, operations, private=private == "yes"
    )


def platform_chooser(use: str = "chat") -> Any:
    """Return a panel that recommends platforms as you change what you need."""
    import ipywidgets as widgets

    def options(name: str, values: Sequence[Any], value: Any = None) -> Any:
        return widgets.Dropdown(options=values, value=value, description=name)

    inputs = {
        "use": options("Use", deployment.USES, use),
        "users": options("Users", [1, 4, 16, 50, 200], 1),
        "hardware": options("Hardware", deployment.HARDWARE, "cpu"),
        "system": options("System", deployment.SYSTEMS, "linux"),
        "operations": options("Help", tuple(deployment.OPERATIONS), "some"),
        "private": options("Private", ["yes", "no"], "yes"),
    }
    return panel(inputs, platform_choices)


def lesson_model_chooser(memory_gb: float | None = None) -> Any:
    """Return a panel that shows which real checkpoints the lessons can run on here.

    It begins with the memory that is free now, and a network of 100 megabits.
    """
    import ipywidgets as widgets

    free = memory_gb or model_memory_gb() * 1e9 / memory.GIB
    inputs = {
        "memory_gb": widgets.BoundedFloatText(
            value=round(free, 1), min=0.5, max=2000, step=0.5, description="GiB"
        ),
        "connection_mbit": widgets.SelectionSlider(
            options=[
                (f"{speed} Mbit/s", speed) for speed in (5, 20, 50, 100, 250, 1000)
            ],
            value=100,
            description="Network",
        ),
    }
    return panel(inputs, choosing.lesson_models)


GIBS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 80, 160, 320, 640, 1280)


def chat_panel(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> Any:
    """Return a chat panel: a text box, a Send button, a thinking switch and a budget.

    Works from the keyboard (Tab, Enter). Where no front end shows widgets, use
    `qc.chat`; a stored notebook shows the panel only while its kernel runs.
    """
    import ipywidgets as widgets

    session = ChatSession(model, tokenizer)
    screen = widgets.HTML(session.to_html())
    box = widgets.Text(
        placeholder="Ask the model",
        description="Question",
        continuous_update=False,
        layout={"width": "70%"},
    )
    send = widgets.Button(description="Send", button_style="primary")
    clear = widgets.Button(description="Clear")
    thinking = widgets.Checkbox(value=True, description="Thinking", indent=False)
    budget = widgets.IntSlider(value=128, min=1, max=256, description="Budget")

    def ask(_: Any = None) -> None:
        question = box.value
        if not question.strip() or send.disabled:
            return
        send.disabled, box.value = True, ""

        def show(thought: str, answer: str) -> None:
            screen.value = session.to_html((question, thought, answer))

        try:
            session.send(question, thinking.value, budget.value, show)
            screen.value = session.to_html()
        except ValueError as error:
            note = f"<p><strong>{html.escape(str(error))}</strong></p>"
            screen.value = session.to_html() + note
        finally:
            send.disabled = False

    def forget(_: Any = None) -> None:
        session.clear()
        screen.value = session.to_html()

    send.on_click(ask)
    on_enter(box, ask)
    clear.on_click(forget)
    switches = widgets.HBox([thinking, budget])
    return widgets.VBox([screen, widgets.HBox([box, send, clear]), switches])


def precision_comparer(costs: Sequence["Cost"]) -> Any:
    """Return a panel that marks the precisions that fit what you ask for.

    `costs` are those of `precision_costs.compare`; the rows are those of `fitting`.
    """
    import ipywidgets as widgets

    from qwen_course.precision_costs import Fitting, fitting

    largest = max((item.weights_bytes for item in costs), default=0)
    most = max(1, math.ceil(largest / 2**20))

    def show(memory_mib: int, percent: int) -> Fitting:
        return fitting(costs, memory_mib, percent / 100)

    inputs = {
        "memory_mib": widgets.IntSlider(
            value=most, min=1, max=most, description="Weights, MiB"
        ),
        "percent": widgets.IntSlider(value=0, min=0, max=100, description="Right, %"),
    }
    return panel(inputs, show)


@dataclass(frozen=True)
class MonitorView:
    """What a monitor shows at one moment: the metrics, the health, who waits."""

    metrics: Any
    health: Any
    waiting: int
    running: int

    def _state(self) -> str:
        return f"{self.health.status}: {self.running} in work, {self.waiting} waiting"

    def __str__(self) -> str:
        wrong = [f"{one.name}: {one.detail}. {one.remedy}" for one in self.health.wrong]
        return "\n".join([self._state(), str(self.metrics), *wrong])

    def _repr_html_(self) -> str:
        colour = {"healthy": "#009E73", "degraded": "#E69F00"}.get(
            self.health.status, "#D55E00"
        )
        wrong = "".join(
            f"<li><strong>{html.escape(one.name)}</strong>: {html.escape(one.detail)}. "
            f"{html.escape(one.remedy)}</li>"
            for one in self.health.wrong
        )
        return (
            f'<p style="border-left:6px solid {colour};padding-left:8px">'
            f"<strong>{html.escape(self._state())}</strong></p>"
            f"{self.metrics._repr_html_()}<ul>{wrong}</ul>"
        )


def monitor_view(monitor: Any, window: int = 60, tick: int = 0) -> MonitorView:
    """Return what a monitor shows now of its last `window` seconds.

    `tick` only counts how often it was looked at.
    """
    service = monitor.service
    return MonitorView(
        monitor.metrics(window),
        monitor.health(window),
        getattr(service, "waiting", 0),
        getattr(service, "running", 0),
    )


def live_monitor(monitor: Any, window: int = 60) -> Any:
    """Return a panel that shows a monitor anew each second while Play is pressed.

    The beat comes from the browser: nothing goes on in the kernel when nobody looks.
    """
    import ipywidgets as widgets

    inputs = {
        "tick": widgets.Play(
            min=0, max=86_400, interval=1000, description="Look each second"
        ),
        "window": widgets.IntSlider(
            value=window, min=5, max=300, step=5, description="Seconds"
        ),
    }
    return panel(inputs, functools.partial(monitor_view, monitor))
