"""Send a request to the model that is made for it.

What a message carries decides first: a picture goes to the model that sees. For text
there are two routers here, to be compared: rules, and the nearest of some examples,
measured between embeddings.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course.media import media
from qwen_course.messages import Message, check_messages

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERAL = "general"
BY_MEDIA = {"image": "vl", "audio": "audio"}
# Looked for in this order; the first that occurs decides.
WORDS = {
    "coder": r"\b(function|python|code|bug|def |class|return|list of|program|script)",
    "math": r"(derivative|differentiate|solve|equation|critical point|x\^?[2-4²³⁴]"
    r"|\bf\(x\)|\broots?\b|percent|doubles?\b)",
}


def text_of(messages: Sequence[Message]) -> str:
    """Return what the last user message says, without its pictures and sounds."""
    asked = [message for message in messages if message["role"] == "user"]
    content = asked[-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def by_media(messages: Sequence[Message]) -> str | None:
    """Return "vl" or "audio" if the last user message holds a picture or a sound."""
    asked = [message for message in messages if message["role"] == "user"]
    kinds = [kind for kind, _ in media(asked[-1:])]
    return BY_MEDIA[kinds[0]] if kinds else None


def by_rules(messages: str | Sequence[Message]) -> str:
    """Return "coder", "math", "vl", "audio" or "general", by keywords.

    >>> by_rules("Write a Python function that reverses a text.")
    'coder'
    >>> by_rules("What is Qwen?")
    'general'
    """
    talk = check_messages(messages)
    seen = by_media(talk)
    if seen:
        return seen
    text = text_of(talk)
    found = (task for task, words in WORDS.items() if re.search(words, text, re.I))
    return next(found, GENERAL)


def embed(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    layer: int | None = None,
    batch_size: int = 32,
) -> "torch.Tensor":
    """Return a vector of length 1 for each text, (texts, hidden size).

    The mean of its tokens' hidden states after a layer, by default after half of them:
    the last ones turn towards the next token. (Qwen3-Embedding was trained for this and
    takes the last state of the last token.) Raises ValueError without texts.
    """
    import torch

    if not texts:
        raise ValueError("there are no texts to embed; give at least one.")
    chosen = model.config.num_hidden_layers // 2 if layer is None else layer
    rows = []
    for start in range(0, len(texts), batch_size):
        inputs = tokenizer(
            list(texts[start : start + batch_size]), padding=True, return_tensors="pt"
        ).to(model.device)
        with torch.no_grad():
            output = model.base_model(**inputs, output_hidden_states=True)
        states = output.hidden_states[chosen].float()
        mask = inputs["attention_mask"].unsqueeze(-1)
        rows.append((states * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1).cpu()


@dataclass
class Router:
    """Chooses the task whose examples are nearest, by `embed`.

    `centres` has a row a task: the mean of its examples' vectors, (tasks, hidden size).
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    tasks: tuple[str, ...]
    centres: "torch.Tensor"

    @classmethod
    def from_examples(
        cls,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        examples: Mapping[str, Sequence[str]],
    ) -> "Router":
        """Make a router from some requests of each task.

        Raises ValueError when there are fewer than two tasks.

        Example:
            Router.from_examples(model, tokenizer, {"coder": [...], "general": [...]})
        """
        import torch

        if len(examples) < 2:
            raise ValueError("give examples of at least two tasks to choose from.")
        centres = [
            embed(model, tokenizer, texts).mean(0) for texts in examples.values()
        ]
        rows = torch.nn.functional.normalize(torch.stack(centres), dim=-1)
        return cls(model, tokenizer, tuple(examples), rows)

    def scores(self, messages: str | Sequence[Message]) -> dict[str, float]:
        """Return the cosine of the request with each task, from -1 to 1."""
        text = text_of(check_messages(messages))
        cosines = self.centres @ embed(self.model, self.tokenizer, [text])[0]
        return dict(zip(self.tasks, cosines.tolist(), strict=True))

    def __call__(self, messages: str | Sequence[Message]) -> str:
        """Return the task for a request."""
        talk = check_messages(messages)
        seen = by_media(talk)
        if seen:
            return seen
        scores = self.scores(talk)
        return max(scores, key=lambda task: scores[task])


def confusion(
    router: Any, requests: Mapping[str, Sequence[str | Sequence[Message]]]
) -> dict[tuple[str, str], int]:
    """Count how often a request of a task was sent where: {(task, sent to): number}."""
    counts: dict[tuple[str, str], int] = {}
    for task, asked in requests.items():
        for request in asked:
            pair = (task, router(request))
            counts[pair] = counts.get(pair, 0) + 1
    return counts
