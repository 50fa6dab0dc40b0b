"""Continuous batching by transformers, with what a service needs beside it.

The manager of transformers keeps the batch and the cache: requests join and leave it
between two passes of the model. It samples all of them alike and hands every answer to
one event loop. Here each request gets its own sampling, seed and logits processors, and
each answer goes where it is awaited.
"""

import random
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_course import memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PAGE = 32  # tokens in a block of the cache
PASS = 512  # tokens that one pass reads at most, all requests together
CACHE_BYTES = 2**30
# Seconds that a thread keeps the interpreter when another one wants it. With Python's
# 5 ms a model whose pass takes 10 would wait half a pass after many of its operations.
SWITCH = 0.0005
TOO_OLD = (
    "the service needs the continuous batching of transformers 5.23, and transformers "
    'here is older. Type: python -m pip install "qwen-course[serve]"'
)


@dataclass(eq=False)
class Request:
    """A request as the batch knows it: prompt ids, limits, how to choose a token.

    Temperature 0 takes the most likely token. `processors` are logits processors of
    transformers; they are called with the ids written so far, (1, tokens).
    """

    id: str
    ids: list[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    processors: Sequence[Callable[..., Any]] = ()
    stream: bool = False
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)


class Batch:
    """The manager of transformers for one model, in a thread of its own.

    `deliver` is called in that thread, after a pass, with the outputs that are new: one
    a token for a request that streams, else one at its end. A request has at most
    `longest` tokens, prompt and answer together.

    Raises ImportError for a transformers that is too old, ValueError for a model that
    it cannot batch.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        ends: set[int],
        deliver: Callable[[list[Any]], None],
        places: int = 16,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        check_model(model)
        self.places, self._deliver = places, deliver
        context, blocks = cache_size(model, places, cache_bytes)
        self.longest = min(context, (blocks - 1) * PAGE)
        self._model: Any = model
        self._ends, self._blocks = sorted(ends), blocks
        self._chooser, self._lock = make_chooser(), threading.Lock()
        self._manager: Any = None
        self._switch_before = sys.getswitchinterval()

    @property
    def alive(self) -> bool:
        """Whether the thread that computes is running."""
        return self._manager is not None and self._manager.is_running()

    @property
    def running(self) -> int:
        """How many requests are in the batch now; the others wait."""
        processor = getattr(self._manager, "batch_processor", None)
        return len(processor.scheduler.active_requests) if processor else 0

    def add(self, request: Request) -> None:
        """Put a request in the queue; a batch that has died is started again."""
        with self._lock:
            self._chooser.requests[request.id] = request
            for _ in range(2):
                if not self.alive:
                    self._start()
                if self._add(request) is not None:
                    return
                self._manager.destroy()  # it is dying: the next one takes the request
        raise RuntimeError("the model failed twice. Start a new service.")

    def _add(self, request: Request) -> str | None:
        return self._manager.add_request(
            request.ids,
            request_id=request.id,
            max_new_tokens=request.max_new_tokens,
            streaming=request.stream,
            record_timestamps=not request.stream,
            eos_token_id=self._ends,
        )

    def cancel(self, request_id: str) -> None:
        """Take a request out, wherever it is; nothing is delivered for it."""
        self.forget(request_id)
        if self.alive:
            self._manager.cancel_request(request_id)

    def forget(self, request_id: str) -> None:
        """Drop what is kept for a request that has ended."""
        self._chooser.requests.pop(request_id, None)

    def so_far(self, request_id: str) -> Any:
        """Return the unfinished output of a request that is in the batch, or None."""
        processor = getattr(self._manager, "batch_processor", None)
        active = processor.scheduler.active_requests if processor else {}
        state = active.get(request_id)
        return state.to_generation_output() if state else None

    def stop(self) -> None:
        """Finish every request that was added, then end the thread."""
        with self._lock:
            if self._manager is not None:
                self._manager.stop(block=True)
                self._manager.destroy()
                self._manager = None
                sys.setswitchinterval(self._switch_before)

    def _start(self) -> None:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        # A greedy manager: the chooser leaves one token in the rows that are sampled.
        greedy = GenerationConfig(do_sample=False, eos_token_id=self._ends)
        settings = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=self._blocks,
            max_batch_tokens=PASS,
            max_requests_per_batch=self.places,
            # One prompt must not be answered sooner because somebody else sent it.
            allow_block_sharing=False,
            # The chooser reads what was written so far, so passes cannot overlap.
            use_async_batching=False,
            use_cuda_graph=False,
        )
        self._manager = self._model.init_continuous_batching(
            generation_config=greedy, continuous_batching_config=settings
        )
        self._manager.output_router = make_router(self._deliver)
        processors = self._manager.logit_processor
        processors.logits_processor.append(self._chooser)
        processors.tensors_required += 1
        processors.do_processing = True
        sys.setswitchinterval(min(SWITCH, self._switch_before))
        # subtle: a thread is a daemon if the one that starts it is. A service that
        # nobody closed must not keep Python from ending.
        starter = threading.Thread(target=self._manager.start, daemon=True)
        starter.start()
        starter.join()


def check_model(model: Any) -> None:
    """Raise ValueError unless transformers can batch this model's requests.

    Raises ImportError for a transformers that is too old.
    """
    if not callable(getattr(type(model), "init_continuous_batching", None)):
        raise ValueError(
            f"a service needs a language model of transformers, not "
            f'{type(model).__name__}. Load one: qc.load("pocket-qwen3").'
        )
    from transformers.generation import configuration_utils

    config = getattr(configuration_utils, "ContinuousBatchingConfig", None)
    if "page_size" not in getattr(config, "__dataclass_fields__", ()):
        raise ImportError(TOO_OLD)
    if model.config.get_text_config() is not model.config:
        raise ValueError(
            f"{type(model).__name__} sees or hears, and a service reads text alone. "
            'Load a language model: qc.load("pocket-qwen3").'
        )


def cache_size(model: "PreTrainedModel", places: int, bytes: int) -> tuple[int, int]:
    """Return the model's context in tokens, and how many blocks its cache gets.

    Enough for all places at full length, or what fits into `bytes`.
    """
    config: Any = model.config.get_text_config()
    context = config.max_position_embeddings
    token = memory.kv_cache_bytes(
        memory.dimensions(model.config), 1, model.dtype.itemsize
    )
    tokens = min(places * context, max(PASS, int(bytes // token)))
    return context, -(-tokens // PAGE) + 1


def make_router(deliver: Callable[[list[Any]], None]) -> Any:
    """Return a router that hands the outputs of a pass over as they are.

    The one of transformers sends all of them to the event loop of the last.
    """
    from transformers.generation.continuous_batching.continuous_api import OutputRouter

    class Router(OutputRouter):
        def deliver(self, output: Any) -> None:
            deliver([output])

        def deliver_batch(self, outputs: list[Any]) -> None:
            deliver(outputs)

    return Router()


def make_chooser() -> Any:
    """Return the logits processor that treats each row as its request wants it."""
    import torch
    from transformers.generation.continuous_batching.cb_logits_processors import (
        ContinuousBatchingLogitsProcessor,
    )

    class Chooser(ContinuousBatchingLogitsProcessor):
        supported_kwargs = {}
        ignored_kwargs = ()

        def __init__(self) -> None:
            self.requests: dict[str, Request] = {}
            self.rows: list[tuple[Request, list[int]]] = []

        def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
            int32_tensor.zero_()

        def prepare_tensor_args(self, requests_with_new_token: list) -> torch.Tensor:
            """Note which request each row of the coming pass belongs to."""
            states = [row.state for row in requests_with_new_token]
            self.rows = [
                (self.requests.get(state.request_id, _GONE), written(state))
                for state in states
            ]
            return torch.zeros(len(states), dtype=torch.int32)

        def __call__(self, scores: torch.Tensor, arg: torch.Tensor) -> torch.Tensor:
            return choose(scores, self.rows)

    return Chooser()


_GONE = Request("", [], 1)  # was cancelled: its row is computed once more, for nobody


def written(state: Any) -> list[int]:
    """Return the ids that a request has written, also after it was put off once."""
    before = state.initial_tokens[state._true_initial_tokens :]
    return (before if state._true_initial_tokens else []) + state.generated_tokens


def choose(
    scores: "torch.Tensor", rows: Sequence[tuple[Request, list[int]]]
) -> "torch.Tensor":
    """Apply each row's processors and sampling to `scores`, (rows, vocabulary).

    A row that is sampled keeps one token; a greedy row is left to the manager.
    """
    import torch

    for number, (request, ids) in enumerate(rows):
        for process in request.processors:
            so_far = torch.tensor([ids], dtype=torch.long, device=scores.device)
            scores[number] = process(so_far, scores[number : number + 1])[0]
    chosen = [n for n, (request, _) in enumerate(rows) if request.temperature > 0]
    if chosen:
        tokens = sample(scores[chosen], [rows[number][0] for number in chosen])
        scores[chosen] = -torch.inf
        scores[chosen, tokens] = 0.0
    return scores


def sample(scores: "torch.Tensor", requests: Sequence[Request]) -> "torch.Tensor":
    """Draw a token for each row of `scores`, (rows, vocabulary), as its request wants.

    Temperature, then the `top_k` best, then the fewest that reach `top_p`, as
    `generate` does it. A row takes one random number, its own, so that a seed gives the
    same answer whoever else is in the batch.
    """
    import torch

    def column(values: list) -> torch.Tensor:
        return torch.tensor(values, device=scores.device)[:, None]

    size = scores.shape[-1]
    limits = [min(request.top_k or size, size) for request in requests]
    heat = column([request.temperature for request in requests])
    values, tokens = (scores / heat).topk(max(limits))
    place = torch.arange(max(limits), device=scores.device)
    values = values.masked_fill(place >= column(limits), -torch.inf)
    chances = values.softmax(-1)
    better = chances.cumsum(-1) - chances
    top_p = column([request.top_p for request in requests])
    chances = chances.masked_fill((better >= top_p) & (place > 0), 0.0)
    reached = chances.cumsum(-1)
    # subtle: in fp32 a number just below 1 becomes 1, which no token would reach.
    drawn = column([min(r.dice.random(), 1 - 1e-7) for r in requests])
    index = (reached <= drawn * reached[:, -1:]).sum(-1, keepdim=True)
    return tokens.gather(1, index.clamp(max=max(limits) - 1))[:, 0]
