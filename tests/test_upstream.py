"""The tier `downloads`, tried on stand-ins: what it compares, and what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import upstream
from hub_server import COMMIT as ITS_COMMIT
from hub_server import Hub

from qwen_course.platforms import common, hub_sources

ROOT = Path(__file__).resolve().parent.parent
TRANSCRIPTS = Path(__file__).parent / "data" / "transcripts.jsonl"
NOWHERE = "http://127.0.0.1:9"  # the port of "discard": nothing listens there


@pytest.fixture(scope="module")
def standin(hub_home):
    name = "models--" + upstream.MODEL.replace("/", "--")
    (folder,) = (hub_home / "hub" / name / "snapshots").iterdir()
    return folder


@pytest.fixture
def config(standin):
    return json.loads((standin / "config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def transcripts():
    lines = TRANSCRIPTS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def tokenizer(standin):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(standin)


@pytest.fixture(scope="module")
def online(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.setattr(hub_sources, "WAITS", ())
        home = str(tmp_path_factory.mktemp("modelscope"))
        patch.setenv("MODELSCOPE_CACHE", home)
        patch.setenv("MODELSCOPE_HOME", home)
        yield


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_a_checkpoint_of_either_hub_is_fetched_and_answers(
    hub, standin, online, tmp_path
):
    if hub == "modelscope" and (reason := _missing()):
        pytest.skip(reason)
    files = {path.name: path.read_bytes() for path in standin.iterdir()}
    with Hub(files, upstream.MODEL, upstream.COMMIT) as server:
        fetched = upstream.fetch(hub, tmp_path / "model", server.address)
        settings = upstream.fetch_config(upstream.MODEL, tmp_path, server.address)
    assert {file.path for file in fetched.files} >= {"config.json", upstream.WEIGHTS}
    assert settings["model_type"] == "qwen3"
    replies = upstream.ask(fetched.folder, max_new_tokens=4)
    assert [reply.usage.prompt_tokens for reply in replies] == [24, 28]


def _missing() -> str | None:
    return common.why_missing(
        "ModelScope", {"modelscope_hub": "modelscope-hub"}, "hubs"
    )


def test_a_hub_that_moved_on_from_the_pinned_commit_is_not_taken(
    standin, online, tmp_path
):
    files = {"config.json": (standin / "config.json").read_bytes()}
    with (
        Hub(files, upstream.MODEL, ITS_COMMIT) as server,
        pytest.raises(upstream.Unreachable, match="was not reached"),
    ):
        upstream.fetch("huggingface", tmp_path / "model", server.address)


def test_the_true_config_is_as_the_catalogue_says(config):
    true = config | {"hidden_size": 1024, "num_hidden_layers": 28}
    assert upstream.config_differences(upstream.MODEL, true) == []


def test_each_dimension_that_changed_is_named(config):
    changed = config | {"model_type": "qwen9", "max_position_embeddings": 2048}
    said = " ".join(upstream.config_differences(upstream.MODEL, changed))
    assert "hidden_size is 64, the catalogue says 1024" in said
    assert "num_hidden_layers is 2, the catalogue says 28" in said
    assert "architecture is qwen9, the catalogue says qwen3" in said
    assert "2048 positions" in said


def test_the_dimensions_of_a_model_that_sees_lie_deeper():
    text = {"hidden_size": 8, "num_attention_heads": 2, "max_position_embeddings": 9}
    config = {"model_type": "qwen3_5", "text_config": text}
    said = " ".join(upstream.config_differences("Qwen/Qwen3.5-0.8B", config))
    assert "hidden_size is 8, the catalogue says 1024" in said


def test_most_small_checkpoints_are_compared():
    small = upstream.small_checkpoints()
    assert upstream.MODEL in small
    assert len(small) >= 20


def test_the_sampling_values_are_compared(standin):
    settings = json.loads((standin / "generation_config.json").read_text("utf-8"))
    assert upstream.sampling_differences(upstream.MODEL, settings) == []
    (said,) = upstream.sampling_differences(upstream.MODEL, settings | {"top_k": 50})
    assert said == f"{upstream.MODEL}: top_k is 50, the catalogue says 20."


def test_the_tokenizer_is_compared_token_by_token(tokenizer):
    assert upstream.tokenizer_differences(tokenizer) == []


def test_another_tokenizer_is_told_from_it(pocket):
    said = upstream.tokenizer_differences(pocket[1])
    assert "entries: not as known." in said
    assert "ids of the vocabulary: not as known." in said


def test_a_template_that_renders_otherwise_is_named(tokenizer, transcripts):
    template = tokenizer.chat_template
    assert upstream.template_differences(template, transcripts) == []
    changed = template.replace("<|im_start|>assistant", "<|im_start|>model")
    said = upstream.template_differences(changed, transcripts)
    assert said
    assert all(one.endswith("the hub's template renders otherwise.") for one in said)


def run_pytest(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **more}, capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip


def test_without_a_network_the_tier_fails_with_one_clear_sentence():
    chosen = "tests/downloads/test_real_checkpoints.py"
    ran = run_pytest(
        "-m", "downloads", "-k", "published_ones or (config and Qwen3-1.7B-Base)",
        chosen, QWEN_COURSE_DOWNLOADS_FROM=NOWHERE,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stdout
    assert "the Hugging Face Hub was not reached, so nothing was compared" in ran.stdout
    assert "ModelScope was not reached" in ran.stdout
    assert "Traceback" not in ran.stdout
