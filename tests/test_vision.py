"""What a picture costs, and where the model looks."""

import pytest
import torch
from PIL import Image

import qwen_course as qc
from qwen_course import vision


def chart():
    return Image.new("RGB", (224, 168), "white")


def asked(*images):
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "Read it."}]}]


def test_four_patches_make_a_token(seeing):
    cost = vision.image_cost(seeing[1], chart())
    assert (cost.wide, cost.high, cost.grid) == (224, 168, (6, 8))
    assert (cost.patches, cost.tokens) == (192, 48)


def test_bounds_scale_the_picture_and_so_its_tokens(seeing):
    few = vision.image_cost(seeing[1], chart(), max_pixels=28 * 28 * 16)
    many = vision.image_cost(seeing[1], chart(), min_pixels=28 * 28 * 100)
    assert few.tokens <= 16
    assert many.tokens >= 100


def test_what_is_counted_is_what_the_prompt_grows_by(seeing):
    model, processor = seeing
    talk = asked(chart())
    with_it = qc.chat(model, processor, talk, max_new_tokens=1).usage.prompt_tokens
    without = qc.chat(model, processor, "Read it.", max_new_tokens=1).usage
    tokens = vision.image_cost(processor, chart()).tokens
    assert with_it == without.prompt_tokens + tokens + 2  # vision_start, vision_end


def test_bounds_in_the_wrong_order_are_refused(seeing):
    with pytest.raises(ValueError, match="above max_pixels"):
        vision.image_cost(seeing[1], chart(), min_pixels=100_000, max_pixels=10_000)


def test_a_model_of_text_has_no_patches():
    with pytest.raises(ValueError, match="pocket-vl"):
        vision.image_cost(qc.load("pocket-qwen3")[1], chart())


def test_attention_over_the_picture_is_shared_out_whole(seeing):
    model, processor = seeing
    before = model.config._attn_implementation
    looked = vision.image_attention(model, processor, asked(chart()), "40 May")
    assert looked.maps.shape == (len(looked.tokens), 6, 8)
    assert "".join(looked.tokens) == "40 May"
    assert torch.allclose(looked.maps.sum((1, 2)), torch.ones(len(looked.tokens)))
    assert model.config._attn_implementation == before


def test_attention_is_drawn_for_one_picture_and_tokens_that_are_there(seeing):
    model, processor = seeing
    for talk in (asked(), asked(chart(), chart())):
        with pytest.raises(ValueError, match="drawn for one"):
            vision.image_attention(model, processor, talk, "40")
    with pytest.raises(ValueError, match="empty"):
        vision.image_attention(model, processor, asked(chart()), "")
    looked = vision.image_attention(model, processor, asked(chart()), "40")
    with pytest.raises(ValueError, match="tokens 0 to 1"):
        looked.plot([2])


def test_the_pictures_have_what_they_promise(seeing):
    model, processor = seeing
    patches = vision.show_patches(processor, chart())
    assert "192 patches, merged into 48 tokens" in patches.axes[0].get_title()
    looked = vision.image_attention(model, processor, asked(chart()), "40")
    assert len(looked.plot([0, 1]).axes) == 2
