"""What nbval leaves out: a check that says "not yet" raises nothing, and must fail.

Registered as a plugin by conftest.py, so that it sees the cells which nbval runs in
`solutions/` (each check says *right*) and in `exercises/` (each says *to do*).
"""

from pathlib import Path

import pytest

from qwen_course.exercises import rules


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    result = yield
    if type(item).__name__ == "IPyNbCell":
        said = rules.unexpected(Path(item.path), item.cell, item.test_outputs or [])
        assert not said, said
    return result
