"""What the course chooses on a T4, Colab's free GPU: fp16, for it has no bf16.

No GPU is needed: torch is told to answer as on a T4, and only choices are looked at.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments  # noqa: F401  before torch is told

from qwen_course import fine_tuning, loading

T4 = (7, 5)  # its compute capability


@pytest.fixture(autouse=True)
def _t4(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: T4)
    # As on a T4: torch can emulate bf16 there, slowly.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation,
    )


def test_the_gpu_is_taken():
    assert loading.choose_device() == "cuda"


@pytest.mark.parametrize("bundled", [True, False])
def test_weights_are_in_fp16(bundled):
    assert loading.precision_settings("auto", "cuda", bundled) == {
        "dtype": torch.float16
    }


@pytest.mark.parametrize("precision", ["nf4", "nf4-single"])
def test_four_bits_compute_in_fp16(precision):
    settings = loading.precision_settings(precision, "cuda", bundled=False)
    assert settings["dtype"] is torch.float16
    assert settings["quantization_config"].bnb_4bit_compute_dtype is torch.float16


@pytest.mark.parametrize(("precision", "fp16"), [("auto", True), ("fp32", False)])
def test_training_is_in_fp16_with_every_trainer(precision, fp16, tmp_path):
    model = SimpleNamespace(device=torch.device("cuda"))
    options = fine_tuning.shared_options(model, tmp_path, precision=precision)
    assert (options["fp16"], options["bf16"]) == (fp16, False)


def test_a_newer_gpu_has_bf16(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    model = SimpleNamespace(device=torch.device("cuda"))
    options = fine_tuning.shared_options(model, tmp_path)
    assert (options["fp16"], options["bf16"]) == (False, True)
    assert loading.fast_dtype("cuda") is torch.bfloat16
