"""The doctor reports what is there, and never breaks down itself."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwen_course import environment
from qwen_course.doctor import Check, Report, guarded
from qwen_course.models import checksums

doctor = sys.modules["qwen_course.doctor"]
GB = 1e9


@pytest.fixture(scope="module")
def report():
    return doctor.doctor()


def test_everything_is_looked_at_once(report):
    assert [check.name for check in report.checks] == list(doctor.CHECKS)


def test_every_check_has_a_status_and_says_what_it_found(report):
    for check in report.checks:
        assert check.status in {"ok", "warning", "problem"}
        assert check.detail


def test_whatever_is_wrong_comes_with_a_remedy(report):
    assert all(check.remedy for check in report.checks if check.status != "ok")


def test_a_check_that_fails_is_a_problem_and_not_an_error():
    def fail():
        raise RuntimeError("no driver\nmore lines")

    check = guarded("device", fail)
    assert check.status == "problem"
    assert check.detail == "The check failed: RuntimeError: no driver"
    assert check.remedy


def test_the_text_lists_the_remedies_below_the_table():
    report = Report([Check("disk", "problem", "0.1 GB free", "Delete something.")])
    lines = str(report).splitlines()
    assert lines[0].split() == ["check", "status", "what", "was", "found"]
    assert lines[-2:] == ["1 checks: 1 problem, 0 warnings", "disk: Delete something."]


def test_the_notebook_shows_a_table_with_headers_and_escaped_text():
    html = Report([Check("disk", "ok", "<b>1 GB</b> free")])._repr_html_()
    assert '<th scope="col" style="text-align: left">status</th>' in html
    assert "<caption>1 checks: 0 problems, 0 warnings</caption>" in html
    assert "&lt;b&gt;1 GB&lt;/b&gt; free" in html


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ([], "ok"),
        (["peft 0.1 (the course needs ==0.21.2)"], "warning"),
        (["peft is missing"], "problem"),
    ],
)
def test_packages_are_compared_with_the_tested_versions(monkeypatch, wrong, status):
    monkeypatch.setattr(environment, "differences", lambda: wrong)
    assert doctor.packages().status == status


def test_a_long_list_of_packages_is_cut_short(monkeypatch):
    monkeypatch.setattr(environment, "differences", lambda: ["a is missing"] * 9)
    assert doctor.packages().detail.endswith(", and 6 more")


def test_the_device_is_named_with_its_precision():
    check = doctor.device()
    assert check.status == "ok"
    assert "torch 2." in check.detail
    assert "bf16" in check.detail


def test_little_free_memory_is_a_warning(monkeypatch):
    import psutil

    state = SimpleNamespace(total=8 * GB, available=0.3 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: state)
    monkeypatch.setattr(doctor, "container_limit_gb", lambda: None)
    check = doctor.memory()
    assert check.status == "warning"
    assert "0.3 of 8.0 GB free" in check.detail


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "CONTAINER_LIMIT", limit)
    assert doctor.container_limit_gb() is None
    limit.write_text("max\n")
    assert doctor.container_limit_gb() is None
    limit.write_text("500000000\n")
    assert doctor.container_limit_gb() == 0.5
    assert doctor.memory().status == "warning"


@pytest.mark.parametrize(
    ("free_gb", "status"), [(50, "ok"), (1, "warning"), (0.05, "problem")]
)
def test_a_full_disk_is_seen(monkeypatch, free_gb, status):
    usage = SimpleNamespace(free=free_gb * GB)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert doctor.disk().status == status


@pytest.fixture
def pocket_folder(monkeypatch, tmp_path):
    folder = tmp_path / "pocket-test"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    checksums.write(folder)
    monkeypatch.setattr(doctor, "pocket_folders", lambda: [folder])
    return folder


def test_whole_models_are_named(pocket_folder):
    assert doctor.pocket_models().detail == "pocket-test: whole"


def test_a_truncated_model_file_is_named(pocket_folder):
    (pocket_folder / "model.safetensors").write_bytes(b"weight")
    check = doctor.pocket_models()
    assert check.status == "problem"
    assert "pocket-test: model.safetensors is not the file" in check.detail


def test_no_model_at_all_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "pocket_folders", list)
    assert doctor.pocket_models().status == "problem"


def test_a_hub_cache_that_cannot_be_written_is_a_warning(monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = doctor.hub()
    assert check.status == "warning"
    assert "Permission denied" in check.detail
    assert "HF_HOME" in check.remedy


def test_a_cache_that_is_not_there_yet_is_judged_by_the_folder_above(tmp_path):
    assert doctor.existing(tmp_path / "a" / "b") == tmp_path


def test_a_missing_vocabulary_is_a_warning(monkeypatch):
    monkeypatch.setattr("qwen_course.vocabulary.ranks_file", lambda: None)
    check = doctor.true_vocabulary()
    assert check.status == "warning"
    assert "dashscope" in check.remedy


def test_chromium_is_never_asked_of_a_learner(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert doctor.chromium().status == "ok"


def test_chromium_is_named_without_its_folder(monkeypatch):
    """The table stands in lesson 00, which must not show one machine's folders."""
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/opt/{name}")
    assert doctor.chromium().detail.startswith("chromium; ")


def test_the_pocket_models_are_looked_for_in_the_package():
    home = Path(doctor.__file__).parent / "models"
    assert all(folder.parent == home for folder in doctor.pocket_folders())
