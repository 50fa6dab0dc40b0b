"""Beside a torchao that PEFT refuses, as Colab has one, adapters still attach."""

import importlib.metadata
import importlib.util
import sys

import pytest

from qwen_course import adapters


@pytest.fixture
def torchao(monkeypatch):
    """Make this Python believe that a version of torchao is installed, or none."""
    real = importlib.metadata.version
    monkeypatch.setitem(sys.modules, "torchao", sys)  # restored at the end

    def install(version: str) -> None:
        answer = {"torchao": version}
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: answer.get(name) or real(name)
        )

    return install


@pytest.mark.parametrize("version", ["0.10.0", "0.15.0+cpu"])
def test_an_old_one_counts_as_not_installed(version, torchao):
    torchao(version)
    assert adapters.hide_old_torchao()
    assert importlib.util.find_spec("torchao") is None


@pytest.mark.parametrize("version", ["0.16.0", "0.17.1.dev2", "1.0"])
def test_one_that_peft_works_with_stays(version, torchao):
    torchao(version)
    assert not adapters.hide_old_torchao()
    assert sys.modules["torchao"] is sys


def test_a_lora_attaches_beside_an_old_one(torchao, make_speaker):
    torchao("0.10.0")
    adapters.hide_old_torchao()
    assert adapters.attach_lora(make_speaker(), rank=2).peft_config


def test_none_is_no_problem(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert not adapters.hide_old_torchao()
