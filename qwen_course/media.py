"""Pictures and sounds inside messages: open them, check them, make them input.

A message that holds more than text has a list of parts as its content:
[{"type": "image", "image": "chart.png"}, {"type": "text", "text": "Read the chart."}]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course.processors import text_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

KINDS = ("image", "audio")
PLACES = {"image": "<|image_pad|>", "audio": "<|AUDIO|>"}  # one for each, in the prompt
MAX_RATIO = 200  # long side to short side, as Qwen's own image processor has it
READERS = {"image": "pocket-vl", "audio": "pocket-audio"}


def question(kind: str, thing: Any, text: str) -> dict[str, Any]:
    """Return the user's message that asks about an "image" or an "audio".

    >>> question("image", "a.png", "Read the chart.")["content"][1]["text"]
    'Read the chart.'
    """
    parts = [{"type": kind, kind: thing}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts}


def media(messages: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return the pictures and sounds of a conversation in order, as ("image", it).

    >>> media([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}])
    [('image', 'a.png')]
    """
    contents = [message.get("content") for message in messages]
    parts = [part for one in contents if isinstance(one, list) for part in one]
    return [(part["type"], _thing(part)) for part in parts if part["type"] in KINDS]


def _thing(part: dict[str, Any]) -> Any:
    """Return the picture or sound of a part; a sound with its rate, if that is said."""
    thing, rate = part[part["type"]], part.get("sampling_rate")
    return thing if rate is None else (thing, rate)


def check_readable(processor: Any, found: Sequence[tuple[str, Any]]) -> None:
    """Raise ValueError when a model cannot take what the messages hold."""
    for kind, _ in found:
        if not reads(processor, kind):
            what = {"image": "an image", "audio": "a sound"}[kind]
            raise ValueError(
                f"the messages hold {what}, but this model does not take any. Load one "
                f'that does: qc.load("{READERS[kind]}").'
            )


def reads(processor: Any, kind: str) -> bool:
    """Return whether a tokenizer or processor takes "image" or "audio"."""
    part = {"image": "image_processor", "audio": "feature_extractor"}[kind]
    return getattr(processor, part, None) is not None


def open_image(image: Any) -> "Image":
    """Return a picture in RGB, from a file or a PIL image.

    Raises ValueError, with what to do, for what is no picture, is damaged, or has a
    shape that no Qwen takes.
    """
    from PIL import Image

    if isinstance(image, str | Path):
        image = _read_image(Path(image).expanduser())
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"the image is of type {type(image).__name__}; give the path of a file or "
            "a picture that PIL.Image.open returned."
        )
    wide, high = image.size
    if min(wide, high) == 0 or max(wide, high) / min(wide, high) > MAX_RATIO:
        raise ValueError(
            f"the image is {wide} by {high} pixels; Qwen takes images at most "
            f"{MAX_RATIO} times as long as wide. Cut out the part that matters: "
            "image.crop((left, top, right, bottom))."
        )
    return _on_white(image)


def _on_white(image: "Image") -> "Image":
    """Return a picture in RGB; what is transparent becomes white, as on paper."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(paper, layer).convert("RGB")


def _read_image(path: Path) -> "Image":
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise ValueError(f"there is no image file {path}. Check the path.")
    try:
        image = Image.open(path)
        image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"the image {path} is too large to be opened safely: {error} Make it "
            "smaller first, with any picture viewer."
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} is damaged or no image that Pillow reads ({error}). Save it as "
            "PNG or JPEG."
        ) from error
    return image


def open_sound(sound: Any) -> "np.ndarray":
    """Return a sound as float32 samples at 16 kHz, from a wave file or an array.

    With `(samples, rate)` the rate is checked too; samples alone are taken as 16 kHz.
    Raises ValueError, with what to do, for what is silent, too long or no sound.
    """
    from qwen_course import audio

    if isinstance(sound, str | Path):
        sound = audio.read_clip(sound)
    samples, rate = sound if isinstance(sound, tuple) else (sound, audio.RATE)
    return audio.check_clip(samples, rate)


def prepare(processor: Any, found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the tensors that a model reads pictures and sounds from.

    `pixel_values` (patches, channels * time * height * width) and `image_grid_thw`
    (images, 3), or `input_features` (sounds, mel bins, frames) and
    `feature_attention_mask` (sounds, frames).
    """
    images = [open_image(one) for kind, one in found if kind == "image"]
    sounds = [open_sound(one) for kind, one in found if kind == "audio"]
    tensors: dict[str, Any] = {}
    if images:
        tensors |= processor.image_processor(images=images, return_tensors="pt")
    if sounds:
        tensors |= _features(processor.feature_extractor, sounds)
    return tensors


def _features(extractor: Any, sounds: list["np.ndarray"]) -> dict[str, Any]:
    longest = extractor.n_samples / extractor.sampling_rate
    for sound in sounds:
        seconds = len(sound) / extractor.sampling_rate
        if seconds > longest:
            raise ValueError(
                f"the sound lasts {seconds:.1f} seconds; this model hears at most "
                f"{longest:.0f}. Cut it: samples[: {extractor.n_samples}]."
            )
    features = extractor(
        sounds,
        sampling_rate=extractor.sampling_rate,
        return_attention_mask=True,
        padding="max_length",
        return_tensors="pt",
    )
    return {
        "input_features": features["input_features"],
        "feature_attention_mask": features["attention_mask"],
    }


def token_counts(processor: Any, tensors: dict[str, Any]) -> dict[str, list[int]]:
    """Return how many tokens each picture and each sound becomes.

    A picture: its patches over the merged square. A sound: a frame of 10 ms is halved
    twice, by a convolution and by pooling, as Qwen2-Audio's encoder does it.
    """
    counts: dict[str, list[int]] = {}
    if "image_grid_thw" in tensors:
        merged = processor.image_processor.merge_size**2
        patches = tensors["image_grid_thw"].prod(dim=-1)
        counts["image"] = (patches // merged).tolist()
    if "feature_attention_mask" in tensors:
        frames = tensors["feature_attention_mask"].sum(-1).tolist()
        counts["audio"] = [((n - 1) // 2 + 1 - 2) // 2 + 1 for n in frames]
    return counts


def expand(
    rows: Sequence[list[int]], processor: Any, counts: dict[str, list[int]]
) -> list[list[int]]:
    """Return the token ids with each placeholder repeated as often as it has tokens."""
    tokenizer = text_tokenizer(processor)
    left = {
        tokenizer.convert_tokens_to_ids(PLACES[kind]): iter(numbers)
        for kind, numbers in counts.items()
    }
    return [
        [
            token
            for id in row
            for token in ([id] * next(left[id]) if id in left else [id])
        ]
        for row in rows
    ]


def token_types(ids: Any, processor: Any) -> Any:
    """Return `mm_token_type_ids`, (batch, tokens): 1 where a token is of an image.

    The position ids of Qwen's vision models (M-RoPE) are made from it.
    """
    place = text_tokenizer(processor).convert_tokens_to_ids(PLACES["image"])
    return (ids == place).long()
