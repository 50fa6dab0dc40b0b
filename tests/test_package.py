"""The package as a whole: cheap to import, and every public name is there."""

import subprocess
import sys

import qwen_course as qc


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
