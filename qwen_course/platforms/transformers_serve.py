"""`transformers serve`: the library of the lessons as a server, nothing to convert.

For trying a model behind an address before there is a faster server. Its wire has four
traps: the name of the model is the folder or the Hub id that it was started with; it
refuses fields that OpenAI has not defined, so that `top_k` is a 422; with continuous
batching the first request decides for all whether, and how, tokens are sampled; and
/v1/models lists the Hub's cache folder, not what is served.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_course.errors import suggest
from qwen_course.loading import locate
from qwen_course.platforms import common, wire

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGES = {"fastapi": "fastapi", "openai": "openai", "uvicorn": "uvicorn"}
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
BLOCK_TOKENS, STEP_TOKENS = 32, 512
# What the console script runs; a script need not be on the PATH, this Python is.
MAIN = "from transformers.cli.transformers import main; main()"
REMEDY = "Is the model whole? Load it here first: qc.load(...)."


def why_not() -> str | None:
    """Return why `transformers serve` cannot run here, and what to type, or None."""
    return common.why_missing("transformers serve", PACKAGES, "serve")


def command(
    model: str,
    port: int = 8000,
    precision: str = "auto",
    continuous: bool = True,
    cache_tokens: int | None = 16384,
) -> list[str]:
    """Return the words of the command that serves a model.

    `continuous` answers all users in one batch, else one after the other. Its KV cache
    has room for `cache_tokens` of all users together: without a number (None) it takes
    most of the memory that is free. "auto" is the precision in which the weights are
    stored. Raises ValueError for a precision or a name that it cannot have.

    >>> command("Qwen/Qwen3-8B", continuous=False)
    ['transformers', 'serve', 'Qwen/Qwen3-8B', '--port', '8000', '--dtype', 'auto']
    """
    if precision not in DTYPES:
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(DTYPES)}.'
            + suggest(precision, DTYPES)
        )
    source, _ = locate(model)
    if "@" in source:
        raise ValueError(
            f"transformers serve takes what follows @ in {source} for a revision. Put "
            "the model into a folder without @."
        )
    words = ["transformers", "serve", source, "--port", str(port)]
    words += ["--dtype", DTYPES[precision]]
    if not continuous:
        return words
    words += ["--continuous-batching", "--attn-implementation", "sdpa"]
    if cache_tokens is None:
        return words
    blocks = -(-cache_tokens // BLOCK_TOKENS)
    return [
        *words, "--cb-block-size", str(BLOCK_TOKENS), "--cb-num-blocks", str(blocks),
        "--cb-max-batch-tokens", str(STEP_TOKENS),
    ]  # fmt: skip


def here(words: list[str]) -> list[str]:
    """Return a command with this Python in the place of the console script."""
    return [sys.executable, "-c", MAIN, *words[1:]]


def started(
    model: str, precision: str = "auto", continuous: bool = True, **options: int | None
) -> wire.Started:
    """Start the server of a model on a free port; `options` are those of `command`.

    Raises ImportError where its packages are missing, OSError where it does not start.

    Example:
        with started("pocket-qwen3") as server:
            model, tokenizer = qc.load(f"{server.address}#{server.command[4]}")
    """
    common.need(why_not())
    from huggingface_hub import constants

    # Without it, /v1/models answers 500.
    Path(constants.HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)
    offline = {"HF_HUB_OFFLINE": "1"} if Path(locate(model)[0]).is_dir() else {}
    return wire.Started(
        lambda port: here(command(model, port, precision, continuous, **options)),
        offline,
        remedy=REMEDY,
    )


class Runner(wire.Runner):
    """A model behind a `transformers serve` of its own, which ends with it.

    Greedy, and so is then every other answer of this server. Raises what `started` and
    `wire.Runner` raise.

    Example:
        with Runner("pocket-qwen3", "fp32") as runner:
            runner.write(ids).ids
    """

    def __init__(
        self,
        model: str = "pocket-qwen3",
        precision: str = "auto",
        continuous: bool = True,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        **options: int | None,
    ) -> None:
        from qwen_course.remote import tokenizer_for

        server = started(model, precision, continuous, **options)
        super().__init__(
            server.address, locate(model)[0], tokenizer or tokenizer_for(model),
            form="text", started=server,
        )  # fmt: skip
        self._whole(self.tokenizer("1").input_ids, 1)  # the first request decides
