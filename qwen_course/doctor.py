"""A look at this machine: what the course needs, what is there, what to do about it."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qwen_course import environment
from qwen_course.tables import as_html, as_text

GB = 1e9
OLDEST, NEWEST = (3, 11), (3, 13)
LEAST_MEMORY_GB = 1.0  # a lesson with a pocket model
LEAST_DISK_GB = 0.2
REAL_MODEL_GB = 2.0  # Qwen3-0.6B: 0.6 billion parameters of 2 bytes, and some room
LEAST_CORES = 2
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
COLUMNS = ("check", "status", "what was found", "what to do")
INSTALL = "Type: python course.py"
REINSTALL = "Type: python course.py --fresh"
FETCH_AGAIN = "Fetch the course again: its copy is not complete."

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `remedy` is empty when nothing is to be done."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True, repr=False)
class Report:
    """All checks; shows itself as a table in a notebook and as text elsewhere."""

    checks: list[Check]

    @property
    def summary(self) -> str:
        """Count what is wrong, as in "11 checks: 1 problem, 0 warnings"."""
        problems, warnings = (
            sum(check.status == status for check in self.checks)
            for status in ("problem", "warning")
        )
        return (
            f"{len(self.checks)} checks: {problems} problem{'s' * (problems != 1)}, "
            f"{warnings} warning{'s' * (warnings != 1)}"
        )

    def __str__(self) -> str:
        found = as_text(
            COLUMNS[:3], ((one.name, one.status, one.detail) for one in self.checks)
        )
        remedies = [f"{one.name}: {one.remedy}" for one in self.checks if one.remedy]
        return "\n".join([found, "", self.summary, *remedies])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(one.name, one.status, one.detail, one.remedy) for one in self.checks]
        return as_html(self.summary, COLUMNS, rows)


def doctor() -> Report:
    """Look at this machine and return what was found. Changes nothing.

    Example:
        doctor()  ->  a table: check, status, what was found, what to do
    """
    return Report(run_checks())


def run_checks() -> list[Check]:
    """Run every check; one that fails itself is a problem in the list, not an error."""
    return [guarded(name, check) for name, check in CHECKS.items()]


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """Return what a check found, or that the check itself failed."""
    try:
        return check()
    except Exception as error:
        reason = str(error).partition("\n")[0]
        detail = f"The check failed: {type(error).__name__}: {reason}"
        return Check(name, "problem", detail, REINSTALL)


# The checks


def python() -> Check:
    """Check the version of Python."""
    version = platform.python_version()
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return Check("Python", "ok", version)
    remedy = "Install Python 3.12, then type: python course.py"
    return Check("Python", "problem", f"{version}; the course needs 3.11-3.13", remedy)


def packages() -> Check:
    """Compare the installed packages with the tested versions."""
    wrong = environment.differences()
    if not wrong:
        return Check("packages", "ok", f"{len(environment.wanted())} as tested")
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    missing = any(phrase.endswith("is missing") for phrase in wrong)
    status: Status = "problem" if missing else "warning"
    return Check("packages", status, ", ".join(wrong[:3]) + more, INSTALL)


def device() -> Check:
    """Name what torch computes on, and whether it computes in bf16 there."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        memory_gb = torch.cuda.get_device_properties(0).total_memory / GB
        what = f"{name}, {memory_gb:.0f} GB"
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif torch.backends.mps.is_available():
        what, fast = "GPU of this Mac (mps)", True
    else:
        what, fast = "CPU, no GPU", cpu_has_bf16()
    words = "bf16 in hardware" if fast else "bf16 is emulated, fp32 is faster"
    return Check("device", "ok", f"torch {torch.__version__}: {what}; {words}")


def cpu_has_bf16() -> bool:
    """Say whether this CPU multiplies in bf16, as far as torch knows."""
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return torch.cpu._is_avx512_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16")
    return any(capabilities.get(name, False) for name in names)


def memory() -> Check:
    """Check the memory that programs can still have."""
    free, total = ram_gb()
    detail = f"{free:.1f} of {total:.1f} GB free"
    if free >= LEAST_MEMORY_GB:
        return Check("memory", "ok", detail)
    remedy = f"Close other programs: a lesson needs {LEAST_MEMORY_GB:.0f} GB."
    return Check("memory", "warning", detail, remedy)


def ram_gb() -> tuple[float, float]:
    """Return free and total main memory in GB, as far as a container may have it."""
    import psutil

    state = psutil.virtual_memory()
    total, free = state.total / GB, state.available / GB
    limit = container_limit_gb()
    if limit is not None and limit < total:
        used = psutil.Process().memory_info().rss / GB
        total, free = limit, min(free, limit - used)
    return free, total


def model_memory_gb() -> float:
    """Return the free GB that a model can have: of the GPU, or without one of RAM."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / GB
    return ram_gb()[0]


def container_limit_gb() -> float | None:
    """Return the memory this container may use, in GB, or None without a limit."""
    if not CONTAINER_LIMIT.exists():
        return None
    text = CONTAINER_LIMIT.read_text(encoding="ascii").strip()
    return None if text == "max" else int(text) / GB


def disk() -> Check:
    """Check the disk on which downloads of real checkpoints are kept."""
    free = shutil.disk_usage(existing(hub_cache())).free / GB
    detail = f"{free:.1f} GB free"
    if free >= REAL_MODEL_GB:
        return Check("disk", "ok", detail)
    remedy = f"Delete files: Qwen3-0.6B needs {REAL_MODEL_GB:.0f} GB free."
    status: Status = "warning" if free >= LEAST_DISK_GB else "problem"
    return Check("disk", status, detail, remedy)


def hub_cache() -> Path:
    """Return the folder in which huggingface_hub keeps downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE).expanduser()


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists.

    >>> existing(Path("/no/such/folder"))
    PosixPath('/')
    """
    return next(place for place in (folder, *folder.parents) if place.exists())


def cores() -> Check:
    """Count the CPU cores that this program may use."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    detail = f"{count} CPU core{'s' * (count != 1)}"
    if count >= LEAST_CORES:
        return Check("cores", "ok", detail)
    remedy = "Nothing to do: the lessons run, and take about twice their stated time."
    return Check("cores", "warning", detail, remedy)


def pocket_models() -> Check:
    """Check that the pocket models are there, and every byte as it was published."""
    from qwen_course.models import checksums

    folders = pocket_folders()
    if not folders:
        return Check("pocket models", "problem", "none found", FETCH_AGAIN)
    wrong = [f"{one.name}: {text}" for one in folders for text in checksums.verify(one)]
    if wrong:
        return Check("pocket models", "problem", " ".join(wrong), FETCH_AGAIN)
    names = ", ".join(folder.name for folder in folders)
    return Check("pocket models", "ok", f"{names}: whole")


def pocket_folders() -> list[Path]:
    """Return the folders of the pocket models, by name."""
    home = Path(__file__).parent / "models"
    return sorted(path for path in home.glob("pocket-*") if path.is_dir())


def hub() -> Check:
    """Check that downloads of real checkpoints can be written."""
    folder = hub_cache()
    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            pass
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        remedy = "Set HF_HOME to a folder of yours. The pocket models work without it."
        return Check("Hub cache", "warning", detail, remedy)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    words = "; HF_HUB_OFFLINE is set: nothing is downloaded" if offline else ""
    return Check("Hub cache", "ok", f"{folder} can be written{words}")


def true_vocabulary() -> Check:
    """Check for the true Qwen vocabulary, which the package dashscope carries."""
    from qwen_course.vocabulary import ranks_file

    if ranks_file() is not None:
        return Check("vocabulary", "ok", "the true Qwen vocabulary is here")
    detail = "qwen.tiktoken is not here; it is downloaded when a lesson needs it"
    remedy = "To have it offline type: pip install dashscope"
    return Check("vocabulary", "warning", detail, remedy)


def jupyterlab() -> Check:
    """Name the version of JupyterLab; in Colab there is none, and none is needed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check("JupyterLab", "ok", version("jupyterlab"))
    except PackageNotFoundError:
        if "google.colab" in sys.modules:
            return Check("JupyterLab", "ok", "not needed in Colab")
        return Check("JupyterLab", "warning", "not installed", INSTALL)


def chromium() -> Check:
    """Look for Chromium, which only the course's own browser test needs."""
    found = next(filter(shutil.which, CHROMIUM_NAMES), "not found")
    return Check("Chromium", "ok", f"{found}; used by the course's browser test only")


CHECKS: dict[str, Callable[[], Check]] = {
    "Python": python,
    "packages": packages,
    "device": device,
    "memory": memory,
    "disk": disk,
    "cores": cores,
    "pocket models": pocket_models,
    "Hub cache": hub,
    "vocabulary": true_vocabulary,
    "JupyterLab": jupyterlab,
    "Chromium": chromium,
}
