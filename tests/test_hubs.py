"""Fetching: what the network does to a file is found, and what is there stays."""

import json
from pathlib import Path

import numpy as np
import pytest
from hub_server import COMMIT, LATER, Fault, Hub
from safetensors.numpy import save

from qwen_course.loading import locate
from qwen_course.platforms import hub_sources, hubs
from qwen_course.platforms.hubs import fetch, verify
from qwen_course.safe_files import unsafe_files

NAME, WEIGHTS = "course/pocket-qwen3", "model.safetensors"
POCKET = Path(locate("pocket-qwen3")[0])
# Some bytes come, and after them none any more.
DRIES_UP = {"breaks_after": 0, "times": 100}
missing = hubs.why_missing("ModelScope's hub", hubs.PACKAGES, "hubs")
modelscope = pytest.param(
    "modelscope", marks=pytest.mark.skipif(bool(missing), reason=str(missing))
)
both_hubs = pytest.mark.parametrize("hub", ["huggingface", modelscope])
needs_modelscope = pytest.mark.skipif(bool(missing), reason=str(missing))


@pytest.fixture(scope="module")
def files():
    """The pocket model's files, the weights cut to the first 3 MB, and a program."""
    found = {path.name: path.read_bytes() for path in POCKET.iterdir()}
    found[WEIGHTS] = found[WEIGHTS][:3_000_000]
    return found | {"modeling_pocket.py": b"print('I run')", "pytorch_model.bin": b"\0"}


@pytest.fixture(autouse=True)
def network(monkeypatch, tmp_path_factory):
    """Let the packages use the network, without Xet, waits, or the user's folders."""
    from huggingface_hub import constants

    caches = tmp_path_factory.mktemp("caches")
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(caches / "hf"),
        "HF_HUB_DOWNLOAD_TIMEOUT": 1,
        "DOWNLOAD_CHUNK_SIZE": 2**16,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hub_sources, "WAITS", (0, 0, 0))
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(caches / "ms"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(caches / "ms-home"))
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(caches / "course"))
    if not missing:
        from modelscope_hub import _download, _legacy_api

        monkeypatch.setattr(_download, "DOWNLOAD_CHUNK_SIZE", 2**16)
        monkeypatch.setattr(_download, "DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
        monkeypatch.setattr(_download, "DOWNLOAD_RETRY_MAX_DELAY_SECONDS", 0)
        monkeypatch.setattr(_legacy_api, "DOWNLOAD_TIMEOUT", 1)


@pytest.fixture
def hub_with(files):
    with Hub(files) as hub:
        yield hub


def whole(folder, files):
    """Whether every file of a folder is right, and each of the model's is there."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    right = {n for n in names & set(files) if (folder / n).read_bytes() == files[n]}
    return right == {path.name for path in POCKET.iterdir()}


@both_hubs
def test_the_safe_files_come_and_the_programs_stay_away(hub, hub_with, files, tmp_path):
    fetched = fetch(NAME, hub, COMMIT, tmp_path / "m", hub_with.address)
    assert whole(fetched.folder, files)
    assert set(fetched.left_out) == {"modeling_pocket.py", "pytorch_model.bin"}
    assert not hub_with.sent["modeling_pocket.py"]
    assert all(file.sha256 for file in fetched.files)
    assert "modeling_pocket.py" in fetched.notes[0]


@both_hubs
@pytest.mark.parametrize(
    "fault",
    [
        Fault(breaks_after=1_000_000),
        Fault(stalls_after=1_000_000, seconds=1.5),
        Fault(status=503, times=2),
        Fault(wrong_byte=2_000_000),
    ],
    ids=["breaks off", "stalls", "answers 503 twice", "sends a wrong byte"],
)
def test_after_a_fault_the_files_are_right(hub, fault, hub_with, files, tmp_path):
    hub_with.faults[WEIGHTS] = fault
    fetched = fetch(NAME, hub, COMMIT, tmp_path / "m", hub_with.address)
    assert whole(fetched.folder, files)
    again = fault.wrong_byte is not None
    assert hub_with.sent[WEIGHTS] < (2 if again else 1.2) * len(files[WEIGHTS]) + 2**17
    assert {path.name for path in fetched.folder.iterdir() if path.is_file()} == {
        path.name for path in POCKET.iterdir()
    } | {hubs.RECORD}


@both_hubs
def test_a_second_call_goes_on_inside_the_file(hub, hub_with, files, tmp_path):
    folder = tmp_path / "m"
    hub_with.faults[WEIGHTS] = Fault(breaks_after=1_000_000, then=Fault(**DRIES_UP))
    with pytest.raises(OSError, match="type the same command again: it goes on"):
        fetch(NAME, hub, COMMIT, folder, hub_with.address)
    assert not (folder / WEIGHTS).exists()
    assert not (folder / hubs.RECORD).exists()
    hub_with.faults.clear()
    before = hub_with.sent.copy()
    assert whole(fetch(NAME, hub, COMMIT, folder, hub_with.address).folder, files)
    loaded = hub_with.sent - before
    assert 0 < loaded[WEIGHTS] < len(files[WEIGHTS]) - 900_000
    assert not loaded["tokenizer.json"]


@both_hubs
@pytest.mark.parametrize("where", ["a folder", "the cache"])
def test_what_is_there_is_not_loaded_again(hub, where, hub_with, files, tmp_path):
    folder = tmp_path / "m" if where == "a folder" else None
    place = fetch(NAME, hub, COMMIT, folder, hub_with.address).folder
    before = hub_with.sent.total()
    assert fetch(NAME, hub, COMMIT, folder, hub_with.address).folder == place
    assert whole(place, files)
    assert hub_with.sent.total() == before


@both_hubs
def test_a_byte_that_is_always_wrong_is_an_error_and_no_file(hub, hub_with, tmp_path):
    hub_with.faults[WEIGHTS] = Fault(wrong_byte=5, times=100)
    with pytest.raises(OSError, match=r"model.safetensors came with other bytes"):
        fetch(NAME, hub, COMMIT, tmp_path / "m", hub_with.address)
    assert not (tmp_path / "m" / WEIGHTS).exists()
    assert not (tmp_path / "m" / hubs.RECORD).exists()


def test_a_wrong_byte_does_not_stay_in_the_hubs_cache(hub_with, files):
    """Its own download compares sizes alone, and would keep the file for ever."""
    from huggingface_hub import snapshot_download

    hub_with.faults[WEIGHTS] = Fault(wrong_byte=5)
    place = snapshot_download(NAME, revision=COMMIT, endpoint=hub_with.address)
    assert Path(place, WEIGHTS).read_bytes() != files[WEIGHTS]
    assert verify(place) == [f"{WEIGHTS} is not the file that was stated (SHA-256)."]
    fetched = fetch(NAME, revision=COMMIT, mirror=hub_with.address)
    assert fetched.folder == Path(place)
    assert (fetched.folder / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert "model.safetensors had wrong bytes and was loaded again." in fetched.notes
    assert verify(place) == []


def test_a_wrong_byte_in_a_small_file_is_found_too(hub_with, files, tmp_path):
    """The Hub states no SHA-256 of it, but git's SHA-1."""
    hub_with.faults["config.json"] = Fault(wrong_byte=40)
    fetched = fetch(NAME, "huggingface", COMMIT, tmp_path, hub_with.address)
    assert (tmp_path / "config.json").read_bytes() == files["config.json"]
    assert "config.json had wrong bytes and was loaded again." in fetched.notes


def test_the_hubs_own_download_begins_a_broken_file_again(hub_with, files, tmp_path):
    """What `_to_folder` is for: inside a call it goes on, from call to call not."""
    from huggingface_hub import snapshot_download

    hub_with.faults[WEIGHTS] = Fault(breaks_after=1_000_000, then=Fault(**DRIES_UP))
    options = {"revision": COMMIT, "local_dir": tmp_path, "endpoint": hub_with.address}
    with pytest.raises(Exception, match="peer closed|disconnected"):
        snapshot_download(NAME, **options)
    assert hub_with.ranges
    assert not list(tmp_path.rglob("*.incomplete"))
    hub_with.faults.clear()
    before = hub_with.sent[WEIGHTS]
    snapshot_download(NAME, **options)
    assert hub_with.sent[WEIGHTS] - before == len(files[WEIGHTS])


@both_hubs
def test_a_branch_can_move_so_its_commit_is_noted(hub, hub_with, files, tmp_path):
    fetched = fetch(NAME, hub, folder=tmp_path, mirror=hub_with.address)
    assert fetched.commit == COMMIT
    assert any(COMMIT in note and "can move" in note for note in fetched.notes)
    record = json.loads((tmp_path / hubs.RECORD).read_text())
    assert (record["commit"], record["hub"]) == (COMMIT, hub)
    assert "revision" not in record


@both_hubs
def test_a_moved_branch_brings_its_new_files_alone(hub, files, tmp_path):
    with Hub(files) as before:
        fetch(NAME, hub, folder=tmp_path, mirror=before.address)
    moved = files | {"config.json": files["config.json"] + b"\n"}
    with Hub(moved, commit=LATER) as after:
        fetched = fetch(NAME, hub, folder=tmp_path, mirror=after.address)
        assert (fetched.commit, after.sent[WEIGHTS]) == (LATER, 0)
    assert (tmp_path / "config.json").read_bytes() == moved["config.json"]


def test_a_file_that_is_no_more_goes_too_and_the_users_stay(files, tmp_path):
    """An old model.safetensors would be loaded in place of the new parts."""
    with Hub(files) as before:
        fetch(NAME, folder=tmp_path, mirror=before.address)
    (tmp_path / "notes.txt").write_text("mine")
    parts = {name: content for name, content in files.items() if name != WEIGHTS}
    parts["model-00001-of-00001.safetensors"] = files[WEIGHTS]
    with Hub(parts, commit=LATER) as after:
        fetch(NAME, folder=tmp_path, mirror=after.address)
    assert not (tmp_path / WEIGHTS).exists()
    assert (tmp_path / "notes.txt").exists()
    assert verify(tmp_path) == []


def test_an_update_that_stops_leaves_no_record(files, tmp_path):
    with Hub(files) as before:
        fetch(NAME, folder=tmp_path, mirror=before.address)
    moved = files | {WEIGHTS: files[WEIGHTS][::-1]}
    with Hub(moved, commit=LATER) as after:
        after.faults[WEIGHTS] = Fault(**DRIES_UP)
        with pytest.raises(OSError, match="it goes on where it stopped"):
            fetch(NAME, folder=tmp_path, mirror=after.address)
    assert not (tmp_path / hubs.RECORD).exists()


@both_hubs
def test_a_revision_that_is_not_there_is_said(hub, hub_with, tmp_path):
    with pytest.raises(OSError, match=f"revision.* {LATER}") as caught:
        fetch(NAME, hub, LATER, tmp_path / "m", hub_with.address)
    assert "Files and versions" in str(caught.value) or "master" in str(caught.value)
    assert not (tmp_path / "m").exists()


@needs_modelscope
def test_modelscopes_own_download_of_a_wrong_revision_is_an_empty_success(
    hub_with, tmp_path
):
    """What `listing` is for: the hub answers with a list of nothing."""
    from modelscope_hub.compat.snapshot_download import snapshot_download

    place = snapshot_download(
        NAME, revision="no-such", local_dir=str(tmp_path), endpoint=hub_with.address
    )
    assert list(Path(place).iterdir()) == []


@both_hubs
def test_a_gated_model_says_where_to_accept_its_terms(hub, files, tmp_path):
    with Hub(files, gated=True) as closed, pytest.raises(OSError, match="accept") as it:
        fetch(NAME, hub, COMMIT, tmp_path / "m", closed.address)
    assert "auth login" in str(it.value) or "modelscope login" in str(it.value)


@both_hubs
def test_a_wrong_name_is_one_sentence_with_the_near_one(hub, hub_with, tmp_path):
    with pytest.raises(OSError, match=r'Did you mean "Qwen/Qwen3-8B"') as caught:
        fetch("Qwen/Qwen3-8BB", hub, None, tmp_path / "m", hub_with.address)
    assert "has no Qwen/Qwen3-8BB, or it is private" in str(caught.value)


@both_hubs
def test_a_server_that_is_not_there_is_a_sentence(hub, files, tmp_path):
    with Hub(files) as gone:
        address = gone.address
    with pytest.raises(OSError, match="Check the network"):
        fetch(NAME, hub, COMMIT, tmp_path / "m", address)


def test_an_unknown_hub_is_named():
    with pytest.raises(ValueError, match='Did you mean "modelscope"'):
        fetch(NAME, "model-scope")


def test_without_the_package_the_install_line_is_given(monkeypatch):
    monkeypatch.setattr(hubs, "PACKAGES", {"no_such_module": "modelscope-hub"})
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[hubs\]"'):
        fetch(NAME, sources=("huggingface", "modelscope"))


@needs_modelscope
def test_a_second_source_gives_the_same_files(files, tmp_path):
    """The documents and what only the second has do not count."""
    other = files | {"README.md": b"another page", "configuration.json": b"{}"}
    with Hub(files) as first, Hub(other) as second:
        first.faults[WEIGHTS] = Fault(breaks_after=0, times=100)
        fetched = fetch(
            NAME, revision=COMMIT, folder=tmp_path,
            mirror={"huggingface": first.address, "modelscope": second.address},
            sources=("huggingface", "modelscope"),
        )  # fmt: skip
    assert fetched.hub == "modelscope"
    assert any(note.startswith("Another source was taken") for note in fetched.notes)
    assert (tmp_path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (tmp_path / "README.md").read_bytes() == b"another page"
    assert not (tmp_path / "configuration.json").exists()
    assert verify(tmp_path) == []


@needs_modelscope
@pytest.mark.parametrize("path", [WEIGHTS, "config.json"])
def test_a_second_source_with_other_files_is_refused(path, files, tmp_path):
    """Of the config the first states no SHA-256: it is compared after loading."""
    other = files | {path: files[path][:-1] + b" "}
    with Hub(files) as first, Hub(other) as second:
        first.faults[WEIGHTS] = Fault(breaks_after=0, times=100)
        with pytest.raises(OSError, match=path):
            fetch(
                NAME, revision=COMMIT, folder=tmp_path,
                mirror={"huggingface": first.address, "modelscope": second.address},
                sources=("huggingface", "modelscope"),
            )  # fmt: skip
    assert not (tmp_path / hubs.RECORD).exists()


@needs_modelscope
def test_a_second_source_needs_something_to_compare_with(files, tmp_path):
    with Hub(files) as second:
        mirrors = {"huggingface": "http://127.0.0.1:9", "modelscope": second.address}
        order = {"sources": ("huggingface", "modelscope"), "mirror": mirrors}
        with pytest.raises(OSError, match="nothing says which files are the right"):
            fetch(NAME, folder=tmp_path / "m", **order)
        assert not second.sent
        record = fetch(NAME, "modelscope", folder=tmp_path / "a", mirror=second.address)
        kept = record.save(tmp_path / "lock.json")
        assert fetch(NAME, folder=tmp_path / "m", expect=kept, **order).hub == (
            "modelscope"
        )


@both_hubs
def test_a_record_from_elsewhere_finds_a_hub_that_lies(hub, files, tmp_path):
    """A hub's own hashes find damage, not a hub that offers other files."""
    with Hub(files) as honest:
        kept = fetch(NAME, hub, COMMIT, tmp_path / "a", honest.address)
    record = kept.save(tmp_path / "lock.json")
    with Hub(files | {WEIGHTS: b"others"}) as liar:
        fetch(NAME, hub, COMMIT, tmp_path / "b", liar.address)
        with pytest.raises(OSError, match="has other files than expected: model"):
            fetch(NAME, hub, COMMIT, tmp_path / "c", liar.address, expect=record)
    assert not (tmp_path / "c").exists()


@both_hubs
def test_a_hash_that_fits_no_bytes_is_an_error(hub, files, tmp_path):
    with (
        Hub(files, lies_about=WEIGHTS) as liar,
        pytest.raises(OSError, match="other bytes"),
    ):
        fetch(NAME, hub, COMMIT, tmp_path, liar.address)


def test_a_path_that_leaves_the_folder_is_refused(files, tmp_path):
    with (
        Hub(files | {"../outside.json": b"{}"}) as evil,
        pytest.raises(ValueError, match="outside of the folder"),
    ):
        fetch(NAME, "huggingface", COMMIT, tmp_path / "m", evil.address)


def test_verify_finds_a_changed_a_cut_and_a_lost_file_offline(hub_with, tmp_path):
    fetch(NAME, "huggingface", COMMIT, tmp_path, hub_with.address)
    assert verify(tmp_path) == []
    config = tmp_path / "config.json"
    config.write_bytes(config.read_bytes().replace(b"true", b"True", 1))
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-1])
    (tmp_path / "tokenizer.json").unlink()
    assert sorted(verify(tmp_path)) == [
        "config.json is not the file that was stated (SHA-256).",
        "model.safetensors has 2999999 bytes, not 3000000.",
        "tokenizer.json is missing.",
    ]


def test_a_folder_without_a_record_cannot_be_verified(tmp_path):
    with pytest.raises(FileNotFoundError, match="qwen-course download"):
        verify(tmp_path)


def test_a_fetched_folder_counts_as_data_alone(files, tmp_path):
    """The record and what is left of the loading are no programs."""
    weights = save({"weight": np.zeros(4, np.float32)})
    with Hub(files | {WEIGHTS: weights}) as full:
        fetched = fetch(NAME, "huggingface", COMMIT, tmp_path, full.address)
    assert unsafe_files(fetched.folder) == []


def test_a_disk_that_is_too_small_is_said_before_loading(
    hub_with, tmp_path, monkeypatch
):
    usage = hubs.shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(hubs.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(OSError, match="Make room, or name a folder on another disk"):
        fetch(NAME, "huggingface", COMMIT, tmp_path / "m", hub_with.address)
    assert not hub_with.sent


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_disk_that_becomes_full_is_said(hub_with, files, tmp_path):
    part = tmp_path / f"{WEIGHTS}.{hub_with.sha256(WEIGHTS)[:12]}.part"
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match="The disk is full. Make room, then type"):
        fetch(NAME, "huggingface", COMMIT, tmp_path, hub_with.address)
    part.unlink()
    fetched = fetch(NAME, "huggingface", COMMIT, tmp_path, hub_with.address)
    assert whole(fetched.folder, files)


def test_two_processes_do_not_fetch_into_one_folder(hub_with, tmp_path):
    with hubs._alone(tmp_path), pytest.raises(OSError, match="Another process fetches"):
        fetch(NAME, "huggingface", COMMIT, tmp_path, hub_with.address)


@both_hubs
def test_a_mirror_gets_the_token_only_when_it_is_given(
    hub, hub_with, tmp_path, monkeypatch
):
    """And never the other host, on which the large files lie."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    fetch(NAME, hub, COMMIT, tmp_path / "a", hub_with.address)
    assert not any(token for _, token in hub_with.tokens)
    fetch(NAME, hub, COMMIT, tmp_path / "b", hub_with.address, token="mine")
    shown = {path.split("/")[1] for path, token in hub_with.tokens if token}
    assert shown
    assert "cdn" not in shown


def test_offline_the_cache_answers_if_it_is_whole(hub_with, monkeypatch):
    from huggingface_hub import constants

    cached = fetch(NAME, mirror=hub_with.address).folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = fetch(NAME)
    assert again.folder == cached
    assert "HF_HUB_OFFLINE is set" in again.notes[0]
    blob = (cached / WEIGHTS).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(OSError, match=f"{WEIGHTS} is not the file"):
        fetch(NAME)
    (cached / WEIGHTS).unlink()
    with pytest.raises(OSError, match="Unset it to fetch"):
        fetch(NAME)


def test_offline_a_checkpoint_in_the_cache_is_found_as_before(monkeypatch, hub_home):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_home / "hub"))
    fetched = fetch("Qwen/Qwen3-0.6B")
    assert (fetched.folder / "config.json").exists()
    assert any(file.path == WEIGHTS for file in fetched.files)


def test_the_command_prints_the_folder_and_notes_what_can_move(
    hub_with, tmp_path, capsys
):
    from argparse import Namespace

    options = Namespace(
        id=NAME, revision=None, hub="huggingface", mirror=hub_with.address,
        folder=tmp_path,
    )  # fmt: skip
    assert hubs.download(options) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path)
    assert f"main can move: today it is {COMMIT}" in printed.err


def missing_options(command, shown):
    options = [word for word in command.split() if word.startswith("--")]
    return [option for option in options if option not in shown]


@pytest.mark.parametrize("what", ["huggingface", "huggingface, check"])
def test_the_hubs_own_command_has_the_options_that_are_shown(what, capsys):
    from huggingface_hub.cli.hf import app

    command = hubs.commands("Qwen/Qwen3-8B", COMMIT)[what]
    verbs = command.removeprefix("hf ").split(" Qwen/")[0].split()
    app.main([*verbs, "--help"], standalone_mode=False)
    assert missing_options(command, capsys.readouterr().out) == []


@needs_modelscope
def test_modelscopes_command_has_the_options_that_are_shown(capsys, monkeypatch):
    from modelscope_hub.cli import main

    monkeypatch.setattr(main, "_discover_plugins", lambda _: None)  # they are heavy
    with pytest.raises(SystemExit):
        main.run_cmd(["download", "--help"])
    command = hubs.commands("Qwen/Qwen3-8B")["modelscope"]
    assert missing_options(command, capsys.readouterr().out) == []
