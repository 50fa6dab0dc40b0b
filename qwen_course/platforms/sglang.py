"""SGLang: the other server of the field for GPUs, and for tools that branch.

Its prefix cache is a tree (RadixAttention): requests that begin alike, as those of
agents, few-shot prompts and structured output do, share what was read. Take it where
many requests share long beginnings, for constrained output at speed, and for large
mixtures of experts on many GPUs; take vLLM for the widest choice of models and
hardware. Measure both: on plain chats they are close, and their order changes.

Its package brings torch and CUDA of its own, so that it is not run in this course.
`command` is held against the options that its own parser names.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from qwen_course.loading import locate
from qwen_course.platforms import vllm, wire

OPTIONS = "sglang_options"
PORT, MEET = 30000, 20000  # of the server; where the nodes meet
ELSEWHERE = {
    "win32": "SGLang does not run on Windows; its Docker image does in WSL, with an "
    "NVIDIA GPU.",
    "darwin": "SGLang has no package for macOS; its build for Apple silicon is made "
    "from source. On a Mac take the platform mlx.",
}
INSTALL = (
    "Install it into an environment of its own, some GB with CUDA: "
    "python -m pip install sglang"
)


def why_not() -> str | None:
    """Return why SGLang cannot run here, and what to do; None if it can."""
    if sys.platform in ELSEWHERE:
        return ELSEWHERE[sys.platform]
    if not (has_gpu() or has_amx()):
        return (
            "SGLang needs a GPU of NVIDIA or AMD, or a Xeon with AMX (from the 4th "
            "generation on), and there is none here. Rent one, or take vLLM's build "
            "for a CPU."
        )
    if importlib.util.find_spec("sglang") is not None:
        return None
    if has_gpu():
        return f"SGLang is not installed here. {INSTALL}"
    return (
        "SGLang is not installed here. For a CPU it is built from source, or with its "
        "Dockerfile for Xeon, and started with --device cpu."
    )


def has_gpu() -> bool:
    """Return whether torch sees a GPU of NVIDIA or AMD."""
    import torch

    return torch.cuda.is_available()


def has_amx() -> bool:
    """Return whether the processor multiplies matrices in hardware (Intel AMX)."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and "amx_tile" in info.read_text(encoding="utf-8")


def command(
    model: str,
    port: int = PORT,
    context: int | None = None,
    gpus: int = 1,
    nodes: int = 1,
    node: int = 0,
    head: str = "10.0.0.1",
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the words that serve a model, on one node or as one of several.

    Layers are cut among the `gpus` of a node (tensor parallel), and given to the nodes
    in groups (pipeline parallel); each node gets a line of its own, with its number.
    `python -m sglang.launch_server` is the older spelling of `sglang serve`.

    Raises ValueError for an unknown model, a node that is not among them, and for an
    option in `extra` that SGLang does not have.

    >>> " ".join(command("Qwen/Qwen3-8B")[:6])
    'sglang serve --model-path Qwen/Qwen3-8B --port 30000'
    """
    if not 0 <= node < nodes:
        raise ValueError(f"node is {node}; {nodes} nodes count from 0 to {nodes - 1}.")
    words = ["sglang", "serve", "--model-path", locate(model)[0], "--port", str(port)]
    words += parsers_for(model)
    words += ["--context-length", str(context)] if context else []
    words += ["--tp-size", str(gpus)] if gpus > 1 else []
    if nodes > 1:
        words += ["--pp-size", str(nodes), "--nnodes", str(nodes)]
        words += ["--node-rank", str(node), "--dist-init-addr", f"{head}:{MEET}"]
    words += extra
    wire.check_options(words, OPTIONS)
    return words


def parsers_for(model: str) -> list[str]:
    """Return the options that take thinking and tool calls out of the text.

    >>> parsers_for("Qwen/Qwen3-8B")
    ['--reasoning-parser', 'qwen3', '--tool-call-parser', 'qwen']
    """
    own = {"hermes": "qwen", "--enable-auto-tool-choice": None}
    words = [own.get(word, word) for word in vllm.parsers_for(model)]
    return [word for word in words if word]
