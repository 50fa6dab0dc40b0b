"""The router: pictures and sounds by what they are, text by rules or by neighbours."""

import numpy as np
import pytest
import torch
from PIL import Image

import qwen_course as qc
from qwen_course import routing, settings
from qwen_course.datafiles import read_yaml

REQUESTS = read_yaml("requests")


@pytest.fixture(scope="module")
def nearest():
    model, tokenizer = qc.load("pocket-qwen3")
    return routing.Router.from_examples(model, tokenizer, REQUESTS["examples"])


def carrying(kind, thing, text="Write a Python function for it."):
    parts = [{"type": kind, kind: thing}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def accuracy(router):
    counts = routing.confusion(router, REQUESTS["unseen"])
    right = sum(n for (task, sent), n in counts.items() if task == sent)
    return right / sum(counts.values())


def test_no_unseen_request_is_an_example():
    examples = {text for texts in REQUESTS["examples"].values() for text in texts}
    unseen = {text for texts in REQUESTS["unseen"].values() for text in texts}
    assert not examples & unseen
    assert {len(texts) for texts in REQUESTS["unseen"].values()} == {16}


def test_what_a_message_carries_decides_before_what_it_says(nearest):
    for router in (routing.by_rules, nearest):
        assert router(carrying("image", Image.new("RGB", (56, 56)))) == "vl"
        assert router(carrying("audio", np.zeros(16_000))) == "audio"


def test_only_the_last_question_counts(nearest):
    talk = [
        *carrying("image", Image.new("RGB", (56, 56))),
        {"role": "assistant", "content": "A chart."},
        {"role": "user", "content": "Solve 3x + 5 = 20."},
    ]
    assert routing.by_rules(talk) == nearest(talk) == "math"


def test_the_clear_cases_are_clear(nearest):
    for router in (routing.by_rules, nearest):
        assert router("Write a Python function that sorts a list.") == "coder"
        assert router("Find the derivative of 3x^2 + 2x.") == "math"
        assert router("What is Qwen?") == "general"


def test_both_routers_do_much_better_than_guessing(nearest):
    """A third would be guessed; lesson 04 prints the figures."""
    assert accuracy(routing.by_rules) > 0.75
    assert accuracy(nearest) > 0.6


def test_vectors_have_length_one_and_do_not_depend_on_their_batch():
    model, tokenizer = qc.load("pocket-qwen3")
    texts = ["What is Qwen?", "Write a function that adds two numbers."]
    together = routing.embed(model, tokenizer, texts)
    alone = torch.cat([routing.embed(model, tokenizer, [text]) for text in texts])
    assert together.shape == (2, model.config.hidden_size)
    assert torch.allclose(together.norm(dim=1), torch.ones(2))
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_router_needs_texts_and_a_choice():
    model, tokenizer = qc.load("pocket-qwen3")
    with pytest.raises(ValueError, match="at least one"):
        routing.embed(model, tokenizer, [])
    with pytest.raises(ValueError, match="two tasks"):
        routing.Router.from_examples(model, tokenizer, {"coder": ["a"]})


def test_the_setting_chooses_pocket_or_real_specialists(monkeypatch):
    assert settings.specialist("vl") == "pocket-vl"
    monkeypatch.setenv("QWEN_COURSE_MODEL", "Qwen/Qwen3-0.6B")
    assert settings.specialist("vl") == "Qwen/Qwen2.5-VL-3B-Instruct"
    monkeypatch.setenv("QWEN_COURSE_VL", "pocket-vl")
    assert settings.specialist("vl") == "pocket-vl"
    with pytest.raises(ValueError, match='Did you mean "coder"'):
        settings.specialist("code")
