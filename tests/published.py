"""Small stand-ins for the services as they are published: what they do, in our words.

No model is behind them: what would reach it is written down in `prompts`, as the ids of
the prompt and the number of tokens to write at most.
"""

import functools
import hashlib
import html
import json
import time
import unicodedata
from typing import Any, NamedTuple

from qwen_course.loading import BUNDLED

FILTERED = ("<script>", "</script>", "javascript:", "data:", "<iframe>", "</iframe>")
FIELDS = ("messages", "tools", "chat_template_kwargs", "max_tokens")


class Prompt(NamedTuple):
    """What a model would have been asked."""

    ids: list[int]
    max_new_tokens: int


@functools.cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BUNDLED / "pocket-qwen3")


def rendered(messages: list, tools: list | None = None, **options: Any) -> list[int]:
    """Return the ids of a conversation as a server makes them: template, then ids."""
    text = tokenizer().apply_chat_template(
        messages, tools=tools, tokenize=False,
        **{"add_generation_prompt": True, **options},
    )  # fmt: skip
    return tokenizer()(text)["input_ids"]


class Server:
    """The class without a filter, and a server that hands on what it is sent."""

    def __init__(self, answer: str = "ok") -> None:
        self.answer = answer
        self.prompts: list[Prompt] = []
        self.printed: list[str] = []

    def generate(
        self,
        messages,
        user="ada",
        max_tokens=512,
        tools=None,
        chat_template_kwargs=None,
    ) -> str:
        ids = rendered(messages, tools, **(chat_template_kwargs or {}))[:4096]
        self.prompts.append(Prompt(ids, max_tokens))
        return self.answer

    def post(self, body: bytes) -> str:
        """Read a body, and hand on the fields that a server knows."""
        request = json.loads(body)
        known = {name: request[name] for name in FIELDS if name in request}
        return self.generate(**known)


class Published(Server):
    """The class that is published as secure: a filter, a rate, a log."""

    def __init__(self, answer: str = "ok", fails: bool = False) -> None:
        super().__init__(answer)
        self.calls: dict[str, list[float]] = {}
        self.fails = fails

    def filtered(self, text: str) -> str:
        for bad in FILTERED:
            text = text.replace(bad, "")
        return text

    def _within_rate(self, user: str) -> bool:
        now = time.time()
        recent = [one for one in self.calls.get(user, []) if now - one < 3600]
        self.calls[user] = recent
        if len(recent) >= 100:
            return False
        recent.append(now)
        return True

    def generate(
        self,
        messages,
        user="ada",
        max_tokens=512,
        tools=None,
        chat_template_kwargs=None,
    ) -> str:
        if not self._within_rate(user):
            return "Too many requests."
        clean = [
            {"role": message.get("role", "user"),
             "content": self.filtered(message.get("content", ""))}
            for message in messages
        ]  # fmt: skip
        if sum(len(message["content"]) for message in clean) > 8192:
            return "Too long."
        digest = hashlib.sha256(str(clean).encode()).hexdigest()[:16]
        self.printed.append(f"request of {user[:8]}... hash {digest}")
        try:
            if self.fails:
                raise RuntimeError(f"no memory for {clean}")
            ids = rendered(clean, **(chat_template_kwargs or {}))
            self.prompts.append(Prompt(ids, min(max_tokens, 1024)))
        except Exception as error:
            self.printed.append(f"error for {user[:8]}...: {error}")
            return "An error occurred."
        return self.answer


class Patched(Published):
    """The same with the usual repair: remove control tokens, then tidy the text up."""

    def filtered(self, text: str) -> str:
        for token in tokenizer().get_added_vocab():
            text = text.replace(token, "")
        text = unicodedata.normalize("NFKC", html.unescape(text))
        return "".join(one for one in text if unicodedata.category(one) != "Cf")


SERVICES = {"published": Published, "patched": Patched, "server": Server}


def page(answer: str, where: str = "text") -> str:
    """Put an answer into a page, as a chat that was written in an hour does."""
    if where == "attribute":
        return f'<p title="{answer}">answer</p>'
    return f"<p>{answer}</p>"


def equal(given: str, stored: str) -> tuple[bool, int]:
    """Compare as == does, and count the letters that were looked at: its time."""
    for number, (one, other) in enumerate(zip(given, stored, strict=False), 1):
        if one != other:
            return False, number
    return given == stored, min(len(given), len(stored))
