"""The curve of a training run: loss and held-out accuracy, drawn while it goes on."""

import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_course.display import in_notebook
from qwen_course.evaluation import evaluate
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One moment of a run: the mean loss since the last one; accuracy if measured."""

    step: int
    tokens: int
    seconds: float
    loss: float
    accuracy: float | None = None


@dataclass
class Training:
    """What a run gave: a loss every few steps, the accuracy on held-out problems.

    `seconds` and `tokens` count this call alone; a resumed run brings its old points.
    """

    points: list[Point] = field(default_factory=list)
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    total_steps: int = 0

    @property
    def loss(self) -> float:
        """The last loss, a mean over `log_every` steps."""
        return self.points[-1].loss if self.points else math.nan

    @property
    def accuracy(self) -> float | None:
        """The last accuracy on held-out problems, None if none were given."""
        measured = [p.accuracy for p in self.points if p.accuracy is not None]
        return measured[-1] if measured else None

    @property
    def tokens_per_second(self) -> float:
        """Tokens read a second, the measuring left out."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f", {self.accuracy:.0%} right"
        return f"step {self.steps} of {self.total_steps}: loss {self.loss:.3f}{right}"

    def plot(self) -> "Figure":
        """Draw the loss and, where it was measured, the accuracy over the steps."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = [p.step for p in self.points]
        left.plot(steps, [p.loss for p in self.points], color="#0072B2")
        left.set(xlabel="step", ylabel="loss (nats a token)", yscale="log",
                 title=f"Training loss, now {self.loss:.3f}")  # fmt: skip
        measured = [p for p in self.points if p.accuracy is not None]
        shares = [100 * (p.accuracy or 0) for p in measured]
        right.plot([p.step for p in measured], shares, "o-", color="#D55E00")
        title = f"Held out, now {shares[-1]:.0f}%" if shares else "Held out"
        right.set(xlabel="step", ylabel="right answers (%)", ylim=(-3, 103),
                  title=title)  # fmt: skip
        for axes in (left, right):
            axes.set_xlim(0, max(1, self.total_steps))
        return figure


def watch(
    result: Training,
    model: Any,
    tokenizer: Any,
    held_out: Sequence[Problem],
    evaluate_every: int,
    live: bool,
    options: Mapping[str, Any],
) -> Any:
    """Return the callback that keeps the points of a run and shows them.

    `held_out` problems are asked every `evaluate_every` steps and after the last one,
    with the options of `evaluate`; the time that takes is not counted.
    """
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        """Keeps the points of a run, measures, and shows both as it goes."""

        tokens_a_step = 0  # without what only fills up

        def on_train_begin(self, args, state, control, **others):
            self.view = _View() if live else None
            self.started = time.perf_counter()
            self.first, self.measuring = state.global_step, 0.0
            result.steps = self.first
            old = [row for row in state.log_history if "qwen_course" in row]
            result.points = [Point(**row["qwen_course"]) for row in old]

        def on_step_end(self, args, state, control, **others):
            if self._due(state.global_step):
                control.should_log = True

        def on_log(self, args, state, control, logs=None, **others):
            if "loss" not in (logs or {}):
                return
            step, seconds = state.global_step, self._seconds()
            each = self.tokens_a_step * args.world_size
            result.steps, result.seconds = step, seconds
            result.tokens = (step - self.first) * each
            point = Point(step, step * each, round(seconds, 2), float(logs["loss"]),
                          self._accuracy(step))  # fmt: skip
            result.points.append(point)
            state.log_history.append({"step": step, "qwen_course": vars(point)})
            if self.view and state.is_world_process_zero:
                self.view.show(result)

        def _seconds(self) -> float:
            return time.perf_counter() - self.started - self.measuring

        def _due(self, step: int) -> bool:
            return step % evaluate_every == 0 or step == result.total_steps

        def _accuracy(self, step: int) -> float | None:
            if not held_out or not self._due(step):
                return None
            before = time.perf_counter()
            model.eval()
            chosen = {"thinking": False, "progress": False, **options}
            accuracy = evaluate(model, tokenizer, held_out, **chosen).accuracy
            model.train()
            self.measuring += time.perf_counter() - before
            return accuracy

        def on_train_end(self, args, state, control, **others):
            if self.view and state.is_world_process_zero:
                self.view.close(result)

    return Watcher()


class _View:
    """A plot redrawn in place in a notebook; a line for each point elsewhere."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.notebook = in_notebook()

    def show(self, result: Training) -> None:
        if not self.notebook:
            print(result, flush=True)
            return
        from IPython.display import Image, display

        # a picture of our own: figures show only after "%matplotlib inline"
        file = io.BytesIO()
        result.plot().savefig(file, format="png", dpi=72)
        picture = Image(data=file.getvalue())
        if self.handle is None:
            self.handle = display(picture, display_id=True)
        else:
            self.handle.update(picture)

    def close(self, result: Training) -> None:
        if self.notebook:
            print(result)
