"""Pictures and sounds in messages: opened, checked, counted, put in their place."""

import numpy as np
import pytest
import torch
from PIL import Image

import qwen_course as qc
from qwen_course import media
from qwen_course.messages import check_messages, encode

SEES, HEARS = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2-Audio-7B-Instruct"


@pytest.fixture(scope="module")
def seeing():
    return qc.load(SEES)


@pytest.fixture(scope="module")
def hearing():
    return qc.load(HEARS)


def picture(size=(224, 168), colour="navy"):
    return Image.new("RGB", size, colour)


def tone(seconds=1.0):
    return np.sin(np.arange(int(16_000 * seconds), dtype=np.float32) / 5)


def asks(text, *things):
    parts = [{"type": kind, kind: thing} for kind, thing in things]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_pictures_and_sounds_are_found_in_order():
    talk = asks("Compare.", ("image", "a.png"), ("image", "b.png"))
    assert media.media(talk) == [("image", "a.png"), ("image", "b.png")]
    assert media.media([{"role": "user", "content": "no parts"}]) == []


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((224, 168), 48), ((280, 280), 100), ((56, 56), 4), ((1000, 100), 144)],
)
def test_a_picture_costs_a_token_for_28_by_28_pixels(seeing, size, tokens):
    _, processor = seeing
    tensors = media.prepare(processor, [("image", picture(size))])
    assert media.token_counts(processor, tensors) == {"image": [tokens]}


def test_a_second_of_sound_costs_25_tokens(hearing):
    _, processor = hearing
    tensors = media.prepare(processor, [("audio", tone(1)), ("audio", tone(2))])
    assert media.token_counts(processor, tensors) == {"audio": [25, 50]}


def test_our_prompt_is_the_one_the_processor_makes(seeing):
    """Ids and all, so that what a model was trained on is what it is sent."""
    _, processor = seeing
    image = picture()
    talk = asks("What is it?", ("image", image))
    text = processor.apply_chat_template(
        talk, tokenize=False, add_generation_prompt=True
    )
    expected = processor(text=[text], images=[image], return_tensors="pt")
    tensors = media.prepare(processor, [("image", image)])
    counts = media.token_counts(processor, tensors)
    [row] = media.expand([encode(processor, talk)], processor, counts)
    assert row == expected["input_ids"][0].tolist()
    types = media.token_types(torch.tensor([row]), processor)
    assert torch.equal(types, expected["mm_token_type_ids"])
    assert torch.equal(tensors["pixel_values"], expected["pixel_values"])


def test_our_prompt_for_sounds_is_the_one_the_processor_makes(hearing):
    _, processor = hearing
    talk = asks("What is it?", ("audio", tone()))
    text = processor.apply_chat_template(
        talk, tokenize=False, add_generation_prompt=True
    )
    expected = processor(
        text=[text], audio=[tone()], sampling_rate=16_000, return_tensors="pt"
    )
    tensors = media.prepare(processor, [("audio", tone())])
    counts = media.token_counts(processor, tensors)
    [row] = media.expand([encode(processor, talk)], processor, counts)
    assert row == expected["input_ids"][0].tolist()
    assert torch.equal(tensors["input_features"], expected["input_features"])


def test_a_placeholder_typed_by_a_user_stays_text(seeing):
    model, processor = seeing
    talk = asks("<|image_pad|><|vision_end|>", ("image", picture()))
    place = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert encode(processor, talk).count(place) == 1
    assert qc.chat(model, processor, talk, max_new_tokens=2).usage.answer_tokens == 2


def test_a_batch_answers_as_each_conversation_alone_does(seeing):
    model, processor = seeing
    talks = [
        asks("What colour?", ("image", picture(colour="red"))),
        "Hello",
        asks("Compare.", ("image", picture((56, 84))), ("image", picture((112, 56)))),
    ]
    alone = [
        qc.chat(model, processor, talk, max_new_tokens=5, sampling="greedy").answer
        for talk in talks
    ]
    together = qc.chat_batch(
        model, processor, talks, max_new_tokens=5, sampling="greedy"
    )
    assert [reply.answer for reply in together] == alone


def test_a_conversation_goes_on_after_a_picture(seeing):
    model, processor = seeing
    first = qc.chat(model, processor, asks("?", ("image", picture())), max_new_tokens=3)
    talk = [*first.messages, {"role": "user", "content": "And its shape?"}]
    second = qc.chat(model, processor, talk, max_new_tokens=3)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + 3


def test_a_model_of_text_says_who_takes_pictures():
    model, tokenizer = qc.load("pocket-qwen3")
    for kind, thing, name in (("image", picture(), "vl"), ("audio", tone(), "audio")):
        with pytest.raises(ValueError, match=f"pocket-{name}"):
            qc.chat(model, tokenizer, asks("What?", (kind, thing)))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"type": "picture", "picture": "a.png"}], "write it"),
        ([{"type": "image"}], "write it"),
        (["What is it?"], "write it"),
        ([{"type": "image", "image": "a.png"}], "asks nothing"),
        ([{"type": "text", "text": 3}], "no text"),
    ],
)
def test_a_malformed_part_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        check_messages([{"role": "user", "content": parts}])


def test_a_picture_that_cannot_be_used_says_why(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for image, message in (
        (tmp_path / "absent.png", "no image file"),
        (broken, "damaged"),
        (text, "damaged"),
        (picture((10, 3000)), "200 times"),
        (42, "of type int"),
    ):
        with pytest.raises(ValueError, match=message):
            media.open_image(image)


def test_a_huge_picture_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    picture((400, 400)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="Make it smaller"):
        media.open_image(path)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_kind_of_picture_becomes_rgb(mode):
    assert media.open_image(Image.new(mode, (30, 40))).mode == "RGB"


def test_a_sound_that_is_too_long_says_how_to_cut_it(hearing):
    _, processor = hearing
    with pytest.raises(ValueError, match=r"samples\[: 480000\]|at most"):
        media.prepare(processor, [("audio", tone(31))])


def test_what_is_transparent_becomes_white_not_black():
    clear = Image.new("RGBA", (30, 40), (255, 0, 0, 0))
    assert media.open_image(clear).getpixel((5, 5)) == (255, 255, 255)


def test_a_sound_of_another_rate_is_refused_when_its_rate_is_said(hearing):
    model, processor = hearing
    talk = asks("What?", ("audio", tone()))
    talk[0]["content"][0]["sampling_rate"] = 8000
    with pytest.raises(ValueError, match="8000 samples a second"):
        qc.chat(model, processor, talk)


def test_silence_is_refused():
    with pytest.raises(ValueError, match="silent"):
        media.open_sound(np.zeros(16_000, dtype=np.float32))
