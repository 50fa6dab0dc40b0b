"""Model-written code runs apart: what it may not do is reported, the caller lives."""

import os
import time
from pathlib import Path

import pytest

from qwen_course import sandbox
from qwen_course.sandbox import limited_here, run_code, run_many

ADD = "def add(a, b):\n    return a + b"
needs_fork = pytest.mark.skipif(not sandbox.can_fork(), reason="nothing forks here")
needs_namespaces = pytest.mark.skipif(
    not sandbox.namespaces(), reason="unshare is missing, or not allowed here"
)


@pytest.fixture(params=["forked", "alone"])
def way(request, monkeypatch):
    """Both ways: a warm worker that forks, and one process a job as on Windows."""
    if request.param == "alone":
        monkeypatch.setattr(sandbox, "can_fork", lambda: False)
    elif not sandbox.can_fork():
        pytest.skip("nothing forks here")
    return request.param


def test_right_code_passes(way):
    result = run_code(ADD, ["assert add(2, 3) == 5", "assert add('a', 'b') == 'ab'"])
    assert result.passed
    assert (result.error, result.limit) == ("", "")


@pytest.mark.parametrize(
    ("code", "test", "error"),
    [
        ("def f(x): return x + 1", "assert f(2) == 2", "f(2) returned 3, expected 2."),
        (
            "def f(x): return x[5]",
            "assert f([]) == 2",
            "f([]) raised IndexError: list index out of range, expected 2.",
        ),
        ("def f(x): return 0", "assert f(2)", "assert f(2) failed."),
        ("def f(x): return 0", "assert f(2), 'why'", "assert f(2), 'why' failed: why."),
        ("def f(:", "assert f(2) == 1", "SyntaxError: invalid syntax (line 1)."),
        ("x = 1 / 0", "", "The code raised ZeroDivisionError: division by zero."),
        ("raise SystemExit(0)", "", "The code raised SystemExit: 0."),
        (
            "",
            "assert f(2) == 1",
            "f(2) raised NameError: name 'f' is not defined, expe",
        ),
        (
            "def f(n): return f(n)",
            "assert f(1) == 2",
            "f(1) raised RecursionError: maximum recursion depth exceeded",
        ),
    ],
)
def test_the_error_says_in_a_sentence_what_went_wrong(code, test, error):
    """It goes into the prompt that asks the model to try again."""
    result = run_code(code, test)
    assert not result.passed
    assert result.error.startswith(error)
    assert len(result.error) < 300


def test_long_values_are_cut_in_the_error():
    result = run_code("def f(n): return [n] * 5000", ["assert f(7) == 1"])
    assert len(result.error) < 200
    assert result.error.startswith("f(7) returned [7, 7,")


def test_the_first_failing_test_is_reported():
    tests = "assert add(1, 2) == 3\nassert add(1, 1) == 3\nassert add(0, 0) == 9"
    assert run_code(ADD, tests).error == "add(1, 1) returned 2, expected 3."


def test_floats_are_equal_up_to_rounding():
    assert run_code("def f(): return 0.1 + 0.2", ["assert f() == 0.3"]).passed


@pytest.mark.parametrize(
    ("code", "tests", "error"),
    [
        ("while True: pass", (), "The code took longer than 0.5 seconds."),
        (
            "def f(x):\n    while True: pass",
            ["assert f(1) == 2"],
            "f(1) took longer than 0.5 seconds.",
        ),
        ("import time; time.sleep(60)", (), "The code took longer than 0.5 seconds."),
    ],
)
def test_a_loop_is_ended_in_time(code, tests, error, way):
    began = time.monotonic()
    result = run_code(code, tests, seconds=0.5)
    assert (result.passed, result.limit, result.error) == (False, "time", error)
    assert time.monotonic() - began < 15


@needs_fork
def test_a_loop_that_catches_everything_is_ended_too():
    code = """
while True:
    try:
        while True: pass
    except BaseException: pass
"""
    assert run_code(code, seconds=0.5).limit == "time"


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux",
                    reason="only Linux limits the memory")  # fmt: skip
def test_memory_is_limited():
    result = run_code("def f(n): return [0] * n", ["assert f(10**9) == 1"])
    assert result.limit == "memory"
    assert "MemoryError" in result.error


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("open({path!r}, 'w').write('x')", "files"),
        ("import pathlib; pathlib.Path({path!r}).write_text('x')", "files"),
        ("import os; os.open({path!r}, os.O_CREAT | os.O_RDWR)", "files"),
        ("import os; os.mkdir({path!r})", "files"),
        ("import os; os.remove({kept!r})", "files"),
        ("import shutil; shutil.move({kept!r}, {path!r})", "files"),
        ("import sqlite3; sqlite3.connect({path!r})", "files"),
        ("print(open({kept!r}).read())", "files"),
        ("import socket; socket.socket()", "network"),
        ("import urllib.request as u; u.urlopen('http://localhost:1')", "network"),
        ("import os; os.system('echo')", "processes"),
        ("import subprocess; subprocess.run(['echo'])", "processes"),
        ("import os; os.kill(1, 0)", "processes"),
    ],
)
def test_what_reaches_out_of_the_process_is_refused(code, limit, way, tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("a secret")
    result = run_code(code.format(path=str(tmp_path / "new"), kept=str(kept)))
    assert (result.passed, result.limit) == (False, limit)
    assert "may not" in result.error
    assert "secret" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert kept.read_text() == "a secret"


def test_a_refusal_that_the_code_hides_is_reported_all_the_same(tmp_path, way):
    path = str(tmp_path / "x")
    code = f"""
def f():
    try: open({path!r}, "w")
    except Exception: pass
    return 1
"""
    result = run_code(code, ["assert f() == 1"])
    assert not result.passed
    assert result.error == "The code tried to use files, which it may not."


def test_a_missing_file_is_simply_not_found():
    error = run_code("open('data.csv')").error
    assert error.startswith("The code raised FileNotFoundError")


def test_the_environment_keeps_its_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = run_code("import os; print(dict(os.environ))")
    assert "PATH" in result.output
    assert "secret" not in result.output


def test_what_is_printed_is_kept_and_cut(way):
    assert run_code("print('hello')").output == "hello\n"
    assert len(run_code("print('x' * 10**6)").output) == 10_000


def test_the_standard_library_is_there_and_packages_on_demand():
    code = "import re, math, collections, statistics, datetime, itertools, json, random"
    assert run_code(code).passed
    assert "No module named" in run_code("import yaml").error
    assert run_code("import yaml", packages=True, memory_mb=512).passed


@needs_fork
def test_many_runs_do_not_disturb_each_other():
    """One loops, one exits, one spoils the built-ins: the others do not notice."""
    spoiled = "import builtins\nbuiltins.len = lambda x: 0\nwhile False: pass"
    jobs = [
        (ADD, ["assert add(1, 2) == 3"]),
        ("while True: pass", ()),
        ("import os; os._exit(0)", ()),
        (spoiled, ()),
        ("", ["assert len([1]) == 1"]),
        (ADD, ["assert add(1, 2) == 4"]),
    ]
    results = run_many(jobs, seconds=0.5)
    assert [one.passed for one in results] == [True, False, False, True, True, False]
    assert [one.limit for one in results[:3]] == ["", "time", "processes"]


@needs_fork
def test_many_runs_are_quick():
    began = time.monotonic()
    assert all(one.passed for one in run_many([(ADD, ["assert add(1, 2) == 3"])] * 100))
    assert time.monotonic() - began < 30  # 2 seconds on an idle machine


@needs_namespaces
def test_a_process_that_got_away_is_ended(tmp_path):
    """Past Python's own calls, by the C library: the namespace ends with the worker."""
    path = tmp_path / "alive"
    code = (
        "import ctypes, time\nif ctypes.PyDLL(None).fork() == 0:\n"
        f"    time.sleep(3)\n    ctypes.PyDLL(None).creat({os.fsencode(path)!r}, 0o600)"
    )
    run_code(code, seconds=1)
    time.sleep(3.5)
    assert not path.exists()


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_code(ADD)
    run_code("while True: pass", seconds=0.3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: run_code("1", seconds=0), ValueError, "seconds is 0"),
        (lambda: run_code("1", memory_mb=-1), ValueError, "memory_mb is -1"),
        (lambda: run_code("1", seconds="2"), ValueError, "number above 0"),
        (lambda: run_code(None), TypeError, "NoneType"),
    ],
)
def test_a_request_that_makes_no_sense_says_so(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_jobs_give_no_results():
    assert run_many([]) == []


def test_it_says_what_is_limited_and_what_is_not(monkeypatch):
    assert "no security boundary" in limited_here()[-1]
    monkeypatch.setattr(sandbox, "namespaces", tuple)
    monkeypatch.setattr(sandbox, "can_fork", lambda: False)
    monkeypatch.setattr("sys.platform", "win32")
    said = " ".join(limited_here())
    assert said.count("NOT limited here") == 2
    assert "memory" in said
    assert "network" in said


def test_the_worker_needs_nothing_but_the_standard_library():
    """It runs as a file under -I -S: an import of this package would fail."""
    text = Path(sandbox.WORKER).read_text("utf-8")
    assert "import qwen_course" not in text
    assert "from qwen_course" not in text
