"""What the course says of real checkpoints, held against the files of a hub.

Each function returns the differences, a sentence each: a hub's file has changed, or the
course was wrong. The tier `downloads` calls them with the real hubs,
`test_upstream.py` with stand-ins.
"""

import json
from pathlib import Path
from typing import Any

from qwen_course import catalog
from qwen_course.platforms import hubs
from qwen_course.platforms.hub_sources import SOURCES, FetchError
from qwen_course.vocabulary import ADDED_TOKENS, qwen3_tokenizer, read_template

MODEL = "Qwen/Qwen3-0.6B"
# The Hub's commit of July 2025; ModelScope numbers its commits itself, so there the
# weights are known by their hash.
COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "f47f71177f32bcd101b7573ec9171e6a57f4f4d31148d38e382306f42996874b"
SMALL = 2e9  # parameters
QUESTION = "What is 12 + 30? End with the number alone."
NO_HUB = (
    "{name} was not reached, so nothing was compared: {error} This tier needs a "
    "network. To take the files from a mirror set QWEN_COURSE_DOWNLOADS_FROM to its "
    "address."
)


class Unreachable(Exception):
    """A hub was not reached; the text says what to do."""


def fetch(hub: str, folder: Path, address: str | None = None) -> hubs.Fetched:
    """Fetch the smallest checkpoint, every file checked; goes on where it stopped.

    Raises Unreachable where the hub, the network or the disk fails.
    """
    revision = COMMIT if hub == "huggingface" else None
    try:
        return hubs.fetch(MODEL, hub, revision, folder, address)
    except FetchError as error:
        name = SOURCES[hub].name
        raise Unreachable(NO_HUB.format(name=name, error=error)) from error


def small_checkpoints() -> list[str]:
    """Return the ids whose `config.json` is to be compared: under 2 billion parameters.

    The first generation's names its dimensions otherwise, and is left out.
    """
    return [
        one.id
        for one in catalog.models()
        if one.total_parameters < SMALL and one.architecture != "qwen"
    ]


def fetch_config(id: str, folder: Path, address: str | None = None) -> dict[str, Any]:
    """Return a checkpoint's `config.json` as its main branch has it today."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            id, "config.json", local_dir=folder, endpoint=address, force_download=True
        )
    except Exception as error:  # of httpx, of huggingface_hub, or an OSError
        name = SOURCES["huggingface"].name
        reason = f"{str(error).strip().splitlines()[0]}."
        raise Unreachable(NO_HUB.format(name=name, error=reason)) from error
    return json.loads(Path(path).read_text(encoding="utf-8"))


def config_differences(id: str, config: dict[str, Any]) -> list[str]:
    """Compare a `config.json` with the catalogue: kind, dimensions, context."""
    checkpoint = catalog.get(id)
    text = config | config.get("text_config", {})  # nested where a model sees
    found = text | {"architecture": config["model_type"]}
    found.setdefault("head_dim", text["hidden_size"] // text["num_attention_heads"])
    wanted = vars(checkpoint.shape) | {"architecture": checkpoint.architecture}
    differences = [
        f"{id}: {name} is {found[name]}, the catalogue says {value}."
        for name, value in wanted.items()
        if value is not None and name in found and found[name] != value
    ]
    positions, native = (
        found["max_position_embeddings"],
        checkpoint.native_context_tokens,
    )
    if native and positions < native:
        differences.append(f"{id}: {positions} positions, the catalogue says {native}.")
    return differences


def sampling_differences(id: str, settings: dict[str, Any]) -> list[str]:
    """Compare a `generation_config.json` with the values that the catalogue gives."""
    thinks = catalog.get(id).thinking != "none"
    return [
        f"{id}: {name} is {settings.get(name)}, the catalogue says {value}."
        for name, value in catalog.sampling(id, thinking=thinks).items()
        if name in settings and settings[name] != value
    ]


def tokenizer_differences(tokenizer: Any) -> list[str]:
    """Compare Qwen3's tokenizer with the vocabulary and the added tokens we know."""
    ours = qwen3_tokenizer()
    added = [
        (str(token), token.special)
        for _, token in sorted(tokenizer.added_tokens_decoder.items())
    ]
    facts = {
        "entries": (len(tokenizer), 151_669),
        "entries without the added tokens": (tokenizer.vocab_size, 151_643),
        "the added tokens": (added, ADDED_TOKENS),
        "ids of the vocabulary": (tokenizer.get_vocab(), ours.get_vocab()),
        "the end of a turn": (tokenizer.eos_token, "<|im_end|>"),
        "the padding": (tokenizer.pad_token, "<|endoftext|>"),
    }
    return [
        f"{what}: not as known." for what, (is_, was) in facts.items() if is_ != was
    ]


def template_differences(template: str, transcripts: list[dict[str, Any]]) -> list[str]:
    """Compare what a hub's chat template renders with the course's, and as it was read.

    `transcripts` are conversations of `data/transcripts.jsonl`.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    differences = []
    for one in (one for one in transcripts if one["template"] == "qwen3"):
        for text in (template, read_template("qwen3")):
            (rendered,), _ = render_jinja_template(
                [one["messages"]], chat_template=text, **one["arguments"]
            )
            if rendered != one["rendered"]:
                whose = "the hub's" if text is template else "the course's"
                differences.append(
                    f"{one['about']}: {whose} template renders otherwise."
                )
    return differences


def ask(folder: Path, max_new_tokens: int = 1024) -> list[Any]:
    """Load a fetched checkpoint and ask it once with thinking and once without."""
    import qwen_course as qc

    model, tokenizer = qc.load(str(folder))
    return [
        qc.chat(model, tokenizer, QUESTION, thinking=thinking, seed=0,
                max_new_tokens=max_new_tokens)
        for thinking in (True, False)
    ]  # fmt: skip
