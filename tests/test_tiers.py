"""What a usual run leaves out, and the scripts that run it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("expression", "left_out"),
    [
        ("", ["weekly", "downloads"]),
        ("not browser", ["weekly", "downloads"]),
        ("weekly", ["downloads"]),
        ("weekly or downloads", []),
    ],
)
def test_a_tier_runs_only_where_it_is_named(expression, left_out):
    assert conftest.tiers_left_out(expression) == left_out


def test_a_usual_run_collects_neither_tier_and_says_so():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    folders = ["tests/weekly", "tests/downloads"]
    ran = subprocess.run(
        [*command, "--collect-only", *folders], cwd=ROOT,
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert ran.returncode == 5, ran.stdout  # pytest's word for: no test
    assert "python course.py test -m weekly" in ran.stdout
    assert "python course.py test -m downloads" in ran.stdout
    assert "no tests collected" in ran.stdout


def test_every_tier_has_its_folder_and_its_marker(pytestconfig):
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    for tier in conftest.TIERS:
        assert tier in markers
        for path in (ROOT / "tests" / tier).glob("test_*.py"):
            assert f"pytest.mark.{tier}" in path.read_text(encoding="utf-8"), path


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_matrix_says_which_pythons_are_not_there():
    ran = subprocess.run(
        ["bash", ".ci/matrix", "3.999"], cwd=ROOT, env=dict(os.environ),
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "not on this machine: 3.999" in ran.stdout
    assert "passed: none; failed: none" in ran.stdout
