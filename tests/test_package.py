"""The package as a whole: cheap to import, and every public name is there."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import qwen_course as qc
from qwen_course.datafiles import data_file


def test_importing_the_course_imports_neither_torch_nor_transformers():
    """A learner who types `import qwen_course` should not wait for torch."""
    code = (
        "import sys, qwen_course; "
        "print(sorted({'torch', 'transformers', 'matplotlib', 'ipywidgets'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there_and_documented():
    for name in qc.__all__:
        assert getattr(qc, name).__doc__, name


def test_chat_is_the_function_even_after_its_module_is_imported():
    import qwen_course.chat

    assert callable(qwen_course.chat)


def test_about_says_what_the_lesson_runs_on(capsys, monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_MODEL", "Qwen/Qwen3-0.6B")
    qc.about()
    text = capsys.readouterr().out
    assert "Qwen/Qwen3-0.6B (a real checkpoint" in text
    assert "torch" in text


def test_every_data_file_is_part_of_an_installed_course():
    """Colab installs a wheel; folders below data/ were once left out of it."""
    root = Path(qc.__file__).parent
    told = tomllib.loads((root.parent / "pyproject.toml").read_text("utf-8"))
    patterns = told["tool"]["setuptools"]["package-data"]["qwen_course"]
    shipped = {path for pattern in patterns for path in root.glob(pattern)}
    code = (".py", ".pyc")
    there = {p for p in root.rglob("*") if p.is_file() and p.suffix not in code}
    assert there <= shipped


def test_a_data_file_is_found_by_its_name_and_a_wrong_name_shows_what_is_there():
    assert data_file("charts/sales.png").stat().st_size > 500
    with pytest.raises(ValueError, match="sales.png"):
        data_file("charts/sale.png")


def test_the_service_and_its_kin_come_when_they_are_asked_for():
    from qwen_course import monitoring, security, service

    assert qc.QwenService is service.QwenService
    assert qc.SecureQwenService is security.SecureQwenService
    assert qc.QwenMonitor is monitoring.QwenMonitor
    assert qc.PerformanceMetrics is monitoring.PerformanceMetrics
    with pytest.raises(AttributeError, match="QwenServer"):
        qc.QwenServer  # noqa: B018
