"""What every test, and every notebook kernel started by a test, runs in.

No network, no file of the user's: the Hub is the stand-in of `hub_standin.py`, and
Jupyter's folders are temporary. Kernels and xdist workers inherit the environment, so
it is set once, before any of them starts and before anything imports huggingface_hub.
"""

import copy
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).parent))

import hub_standin
import verdicts

ISOLATED = pytest.StashKey[Path]()
# Any of these would win over HF_HOME.
OVERRIDES = (
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "TRANSFORMERS_CACHE",
)


# Markers of tests that run only where `-m` names them: long ones, or on a network.
TIERS = ("weekly", "downloads")
# What takes minutes.
LONGEST = (
    *("tests/test_lessons.py", "notebooks/", "tests/test_training.py"),
    *("tests/test_exercise_answers.py", "tests/test_pocket_coder.py"),
    "tests/test_grade.py",
)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(verdicts)
    if hasattr(config, "workerinput"):  # an xdist worker: its parent has done this
        return
    try:
        _isolate(config)
    except ModuleNotFoundError as error:
        raise pytest.UsageError(str(error)) from error


def _isolate(config: pytest.Config) -> None:
    kept = _kept_folder(config)
    isolated = Path(tempfile.mkdtemp(prefix="qwen-course-tests-"))
    config.stash[ISOLATED] = isolated
    for name in OVERRIDES:
        os.environ.pop(name, None)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(kept / "hub-standin" / hub_standin.standin_key()),
        "QWEN_COURSE_TEST": "1",
        "QWEN_COURSE_CACHE": str(kept / "qwen-course"),
        "TOKENIZERS_PARALLELISM": "false",
        "QWEN_COURSE_PROGRESS": str(isolated / "progress.json"),
        "IPYTHONDIR": str(isolated / "ipython"),
        "JUPYTER_CONFIG_DIR": str(isolated / "jupyter-config"),
        "JUPYTER_DATA_DIR": str(isolated / "jupyter-data"),
        "JUPYTER_RUNTIME_DIR": str(isolated / "jupyter-runtime"),
    }
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(config)))
    hub_standin.ensure_hub(kept / "hub-standin")


def tiers_left_out(expression: str) -> list[str]:
    """Return the tiers that an expression behind `-m` does not name.

    >>> tiers_left_out("weekly and not browser")
    ['downloads']
    """
    named = re.findall(r"\w+", expression)
    return [tier for tier in TIERS if tier not in named]


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say at the top which tiers are left out, and how to run them."""
    return [
        f"left out: the tier {tier} (to run it: python course.py test -m {tier})"
        for tier in tiers_left_out(config.option.markexpr)
    ]


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave tiers out, and begin with what takes minutes: no worker is left alone."""
    absent = tiers_left_out(config.option.markexpr)
    apart = [one for one in items if any(map(one.get_closest_marker, absent))]
    if apart:
        config.hook.pytest_deselected(items=apart)
        items[:] = [one for one in items if one not in apart]
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


class Scheduler(LoadScopeScheduling):
    """Gives a module's tests to one worker, but tests that run a lesson one by one."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(("tests/test_lessons.py", "tests/weekly/")):
            return nodeid
        return super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Scheduler | None:
    """Share the tests out so that no worker is left alone with minutes of work."""
    return Scheduler(config, log) if config.option.dist == "loadscope" else None


def pytest_unconfigure(config: pytest.Config) -> None:
    if isolated := config.stash.get(ISOLATED, None):
        shutil.rmtree(isolated, ignore_errors=True)


def _kept_folder(config: pytest.Config) -> Path:
    """Return a folder that outlives the run: pytest's cache, or a temporary one."""
    if cache := getattr(config, "cache", None):
        return Path(cache.mkdir("qwen-course"))
    return Path(tempfile.gettempdir()) / "qwen-course-tests"


def _threads(config: pytest.Config) -> int:
    """Return how many threads each process may use, so that workers do not crowd."""
    workers = len(getattr(config.option, "tx", None) or [1])
    return max(1, (os.cpu_count() or 1) // workers)


@pytest.fixture(scope="session")
def hub_home() -> Path:
    """The `HF_HOME` of the stand-in: its cache is the folder `hub` inside."""
    return Path(os.environ["HF_HOME"])


@pytest.fixture(scope="session")
def pocket():
    """The pocket model and its tokenizer, loaded once."""
    import qwen_course as qc

    return qc.load("pocket-qwen3")


@pytest.fixture(scope="session")
def sums_asked(pocket):
    """Sixteen prompts as token ids, and what Transformers writes after each in fp32.

    At most 96 tokens; the longest answer has 85. Platforms are held against it.
    """
    import qwen_course as qc
    from qwen_course import inference
    from qwen_course.messages import check_messages, encode

    model, tokenizer = pocket
    problems = qc.tasks.sums.problems(16, seed=6)
    rows = [encode(tokenizer, check_messages(p.question), True) for p in problems]
    return rows, [inference.write(model, row, 96).ids for row in rows]


@pytest.fixture(scope="session")
def tiny_config():
    """The configuration of a Qwen3 of three small layers, its table tied."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tiny_config):
    """A model of that configuration with random weights."""
    import torch

    from qwen_course import architecture

    return architecture.random_model(tiny_config, torch.float32)


@pytest.fixture(scope="session")
def make_speaker():
    """Makes a Qwen3 of two small layers, random weights, the pocket vocabulary."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=5120, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, max_position_embeddings=256, eos_token_id=5096,
        pad_token_id=5094, bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Qwen3ForCausalLM(copy.deepcopy(config)).eval()

    return make


@pytest.fixture(scope="session")
def seeing():
    """A model that sees and its processor, loaded once: the stand-in of a real one."""
    import qwen_course as qc

    return qc.load("Qwen/Qwen2.5-VL-3B-Instruct", precision="fp32")
