"""Foundry Local: Microsoft's runtime of models for applications on one computer.

It brings models of its own catalogue, and runs any folder that ONNX Runtime GenAI runs
(`onnx.export`) as a model of yours, in this process and without a network. It talks in
conversations: it puts them into the model's chat form itself and gives back text.
"""

import atexit
import functools
import itertools
import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qwen_course.engines import CONFIG
from qwen_course.inference import Written
from qwen_course.messages import check_messages
from qwen_course.platforms import common

PACKAGES = {"foundry_local_sdk": "foundry-local-sdk"}
TURN = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)<\|im_end\|>\n", re.S)
OPENINGS = {  # how the answer begins, and whether the model may then think
    "<|im_start|>assistant\n": True,
    "<|im_start|>assistant\n<think>\n\n</think>\n\n": False,
}
_numbers = itertools.count(1)


def why_not() -> str | None:
    """Return why the platform cannot be used here, what to type; None if it can."""
    return common.why_missing("Foundry Local", PACKAGES, "foundry")


class Runner(common.Runner):
    """A folder of `onnx.export`, registered as a model of your own and loaded.

    Raises ImportError when the package is missing, OSError for a folder that holds no
    exported model.

    Example:
        with Runner(onnx.export("pocket-qwen3", "int4")) as runner:
            runner.chat("How much is 12 + 30?")
    """

    def __init__(self, folder: str | Path) -> None:
        common.need(why_not())
        self.folder = Path(folder)
        if not (self.folder / CONFIG).is_file():
            raise OSError(
                f"the folder {folder} holds no exported model. Write one: "
                'onnx.export("pocket-qwen3").'
            )
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        text = (self.folder / CONFIG).read_text(encoding="utf-8")
        ends = json.loads(text)["model"]["eos_token_id"]
        self.end = ends[0] if isinstance(ends, list) else ends
        self._name = f"qwen-course-{next(_numbers)}:1"
        self._model: Any = self._register()
        self._model.load()

    def _register(self) -> Any:
        import foundry_local_sdk as sdk

        with sdk.ModelInfoBuilder() as metadata:
            metadata.set_string_property("task", "chat-completion")
            metadata.set_string_property("display_name", self.folder.name)
            return _catalog().register_model(str(self.folder), self._name, metadata)

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        max_new_tokens: int = 64,
        thinking: bool = True,
    ) -> str:
        """Answer a conversation greedily: the whole text, the thinking in it."""
        return self._ask(check_messages(messages), thinking, max_new_tokens)[0]

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write greedily after a prompt of token ids, which must be a conversation.

        The ids are those of the text that came back, and of the end token where it
        ended. It cannot go on after that, so `stop` changes nothing. Raises ValueError
        for a prompt that Foundry Local would not put to the model token by token so.
        """
        text, moments, read, ended = self._ask(*self._talk(ids), limit=max_new_tokens)
        if read != len(ids):
            raise ValueError(
                f"Foundry Local gave the model {read} tokens in place of these "
                f"{len(ids)}. Ask it with runner.chat(messages)."
            )
        new = self._tokenizer.encode(text, add_special_tokens=False).ids
        return Written(new + [self.end] * ended, moments)

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer several prompts at once, each in a session and thread of its own."""
        with ThreadPoolExecutor(min(16, len(rows))) as pool:
            return list(pool.map(lambda row: self.write(row, max_new_tokens).ids, rows))

    def _talk(self, ids: Sequence[int]) -> tuple[list[Any], bool]:
        """Read a conversation back from its tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        turns = [{"role": role, "content": said} for role, said in TURN.findall(text)]
        opening = TURN.sub("", text)
        if not turns or opening not in OPENINGS:
            raise ValueError(
                "Foundry Local answers conversations, and these tokens are none. Make "
                "them with messages.encode(tokenizer, messages, thinking)."
            )
        return turns, OPENINGS[opening]

    def _ask(
        self, messages: Sequence[Any], thinking: bool, limit: int
    ) -> tuple[str, tuple[float, ...], int, bool]:
        """Return the text, the seconds to each piece, tokens read, whether it ended."""
        import foundry_local_sdk as sdk

        if self._model is None:
            raise ValueError("the runner is closed. Make another one: Runner(folder).")
        started, pieces, moments = time.perf_counter(), list[str](), list[float]()
        search = sdk.SearchOptions(max_output_tokens=limit, do_sample=False)
        template = {"chat_template_kwargs": json.dumps({"enable_thinking": thinking})}
        with sdk.ChatSession(self._model) as session, sdk.Request() as request:
            session.set_options(sdk.RequestOptions(search, additional_options=template))
            session.set_streaming(True)
            for message in messages:
                role = sdk.MessageRole[message["role"].upper()]
                request.add_item(sdk.MessageItem(role, message["content"]))
            with session.process_streaming_request(request) as stream:
                for item in stream:
                    if text := _text(item):
                        pieces.append(text)
                        moments.append(time.perf_counter() - started)
                last = stream.final_response
                read = last.get_usage().prompt_tokens
                ended = last.finish_reason == sdk.FinishReason.STOP
        return "".join(pieces), tuple(moments), read, ended

    def close(self) -> None:
        """Unload the model and take it off the list of models."""
        if self._model is not None:
            self._model.unload()
            _catalog().unregister_model(self._name)
            self._model = None


def _text(item: Any) -> str:
    """Return the text of what came: a piece of text, or a message of such pieces."""
    parts = item.parts if hasattr(item, "parts") else [item]
    return "".join(getattr(part, "text", "") for part in parts)


def _catalog() -> Any:
    from foundry_local_sdk import CatalogType

    return _manager().get_catalog(CatalogType.LOCAL)


@functools.cache
def _manager() -> Any:
    """Start Foundry Local, of which a process has one; its files go when it ends."""
    import foundry_local_sdk as sdk

    place = Path(tempfile.mkdtemp(prefix="foundry-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    settings = sdk.Configuration(
        app_name="qwen-course",
        app_data_dir=str(place / "data"),
        model_cache_dir=str(place / "models"),
        logs_dir=str(place / "logs"),
        disable_nonessential_telemetry=True,
    )
    sdk.FoundryLocalManager.initialize(settings)
    return sdk.FoundryLocalManager.instance
