"""Real checkpoints from the real hubs, held against what the course says of them.

    python course.py test -m downloads

It needs a network: 1.5 GB from the Hugging Face Hub and as much from ModelScope.
QWEN_COURSE_DOWNLOADS names a folder that keeps the files for the next run (it goes on
where one stopped); QWEN_COURSE_DOWNLOADS_FROM is the address of a mirror.
"""

import json
import os
import warnings
from pathlib import Path

import pytest
import upstream

from qwen_course.platforms import hubs

HUBS = ("huggingface", "modelscope")
ADDRESS = os.environ.get("QWEN_COURSE_DOWNLOADS_FROM")
TRANSCRIPTS = Path(__file__).parent.parent / "data" / "transcripts.jsonl"

pytestmark = [pytest.mark.downloads, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the files, and the hubs' packages allowed to use the network."""
    named = os.environ.get("QWEN_COURSE_DOWNLOADS")
    folder = Path(named).expanduser() if named else tmp_path_factory.mktemp("downloads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        yield folder


@pytest.fixture(scope="module")
def fetch(place):
    """Fetch from a hub once; where that fails, fail with the reason alone."""
    kept: dict[str, hubs.Fetched | str] = {}

    def fetch(hub: str) -> hubs.Fetched:
        if hub not in kept:
            try:
                kept[hub] = upstream.fetch(hub, place / hub, ADDRESS)
            except upstream.Unreachable as error:
                kept[hub] = str(error)
        found = kept[hub]
        if isinstance(found, str):
            pytest.fail(found, pytrace=False)
        return found

    return fetch


@pytest.fixture(scope="module")
def tokenizer(fetch):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(fetch("huggingface").folder)


@pytest.mark.parametrize("hub", HUBS)
def test_every_file_is_the_one_that_was_stated(hub, fetch):
    fetched = fetch(hub)
    assert hubs.verify(fetched.folder) == []
    assert fetched.commit == upstream.COMMIT or hub != "huggingface"


@pytest.mark.parametrize("hub", HUBS)
def test_the_weights_are_the_published_ones(hub, fetch):
    files = {file.path: file for file in fetch(hub).files}
    assert files[upstream.WEIGHTS].sha256 == upstream.WEIGHTS_SHA256


def test_both_hubs_have_the_same_files(fetch):
    first, second = ({f.path: f.sha256 for f in fetch(hub).files} for hub in HUBS)
    names = [name for name in first if name.endswith((".json", ".safetensors", ".txt"))]
    both = [name for name in names if name in second and name != "configuration.json"]
    assert {"config.json", "tokenizer.json", upstream.WEIGHTS} <= set(both)
    assert {name: first[name] for name in both} == {name: second[name] for name in both}


def test_the_model_answers_with_thinking_and_without(fetch):
    with_thinking, without = upstream.ask(fetch("huggingface").folder)
    assert with_thinking.thinking.strip()
    assert not without.thinking
    assert "42" in with_thinking.answer
    assert "42" in without.answer


def test_the_tokenizer_is_as_the_course_says(tokenizer):
    assert upstream.tokenizer_differences(tokenizer) == []


def test_the_chat_template_renders_what_the_course_s_own_renders(tokenizer):
    lines = TRANSCRIPTS.read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    assert upstream.template_differences(tokenizer.chat_template, read) == []


def test_the_sampling_values_are_those_of_the_catalogue(fetch):
    path = fetch("huggingface").folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    assert upstream.sampling_differences(upstream.MODEL, settings) == []


@pytest.mark.parametrize("id", upstream.small_checkpoints())
def test_a_config_is_as_the_catalogue_says(id, place):
    folder = place / "configs" / id.replace("/", "--")
    try:
        config = upstream.fetch_config(id, folder, ADDRESS)
    except upstream.Unreachable as error:
        pytest.fail(str(error), pytrace=False)
    assert upstream.config_differences(id, config) == []


def test_the_hub_s_newest_commit_is_the_pinned_one(place):
    """A newer commit is no fault: what is in it is compared above. It is said."""
    from huggingface_hub import HfApi

    try:
        newest = HfApi(endpoint=ADDRESS, token=False).model_info(upstream.MODEL).sha
    except Exception as error:
        pytest.fail(f"the Hub was not reached: {error}", pytrace=False)
    if newest != upstream.COMMIT:
        warnings.warn(f"{upstream.MODEL} is at {newest} now", stacklevel=1)
