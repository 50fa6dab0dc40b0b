"""Processors: what turns pictures and sounds, beside text, into a model's input."""

from typing import Any


def text_tokenizer(tokenizer: Any) -> Any:
    """Return the tokenizer inside a processor; a tokenizer is returned as it is."""
    return getattr(tokenizer, "tokenizer", tokenizer)


def load_processor(source: str) -> Any:
    """Return the processor of a folder or a Hub id.

    That of Qwen's vision models wants torchvision, for videos. Where torchvision is not
    installed, the same processor is put together without videos; images then go
    through Pillow.
    """
    from transformers import AutoConfig, AutoProcessor
    from transformers.utils import is_torchvision_available

    kind = AutoConfig.from_pretrained(source).model_type
    if kind == "qwen2_5_vl" and not is_torchvision_available():
        return _images_only(source)
    return AutoProcessor.from_pretrained(source)


def _images_only(source: str) -> Any:
    from transformers import AutoTokenizer, Qwen2VLImageProcessorPil

    tokenizer = AutoTokenizer.from_pretrained(source)
    images = Qwen2VLImageProcessorPil.from_pretrained(source)
    return images_only_processor(images, tokenizer)


def images_only_processor(images: Any, tokenizer: Any) -> Any:
    """Return a Qwen2_5_VLProcessor that reads images and no videos.

    `images` is an image processor. Called, saved and loaded as the whole one is.
    """
    from transformers import ProcessorMixin, Qwen2_5_VLProcessor

    class ImagesOnly(Qwen2_5_VLProcessor):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

        def __init__(self, image_processor, tokenizer, chat_template=None) -> None:
            for name in ("image", "video"):
                token = f"<|{name}_pad|>"
                setattr(self, f"{name}_token", token)
                number = tokenizer.convert_tokens_to_ids(token)
                setattr(self, f"{name}_token_id", number)
            ProcessorMixin.__init__(
                self, image_processor, tokenizer, chat_template=chat_template
            )

    # The name that a checkpoint keeps: where torchvision is, the whole one is loaded.
    ImagesOnly.__name__ = ImagesOnly.__qualname__ = "Qwen2_5_VLProcessor"
    return ImagesOnly(images, tokenizer, chat_template=tokenizer.chat_template)
