"""vLLM: the server of the field for GPUs, from one to several machines of eight.

It keeps the KV cache in pages, batches without waiting, and divides a model among GPUs.
`command` is the line for one machine, `for_gpus` the lines for many, held against what
the model allows. Its build for a CPU runs here, for trying the same wire.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_course import catalog, memory
from qwen_course.checkpoint import Checkpoint
from qwen_course.errors import suggest
from qwen_course.inference import Written
from qwen_course.loading import locate
from qwen_course.platforms import common, wire
from qwen_course.tables import Row, Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPTIONS = "vllm_options"
INSTALL = (
    "In an environment of its own, for it wants an older transformers than the course: "
    'python -m pip install "qwen-course[vllm]"'
)
ELSEWHERE = {
    "win32": "vLLM does not run on Windows. It does in WSL, the Linux inside Windows: "
    "type wsl --install, then set the course up in there.",
    "darwin": "vLLM has no package for macOS: it is built from source, for the "
    "processor alone. On a Mac take the platform mlx, or the plugin vllm-metal.",
}
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
STORED = {"bf16": "", "fp8": "-FP8"}  # what follows the id of such a checkpoint
# The tool calls of these are XML; of all others, JSON inside <tool_call>.
XML_CALLS = ("Qwen3-Coder", "Qwen3.5", "Qwen3.6", "Qwen3.8")
SHARE = 0.92  # of a GPU's memory that vLLM takes unless told otherwise
STEP_TOKENS = 8192  # of prompts that it reads at once
FP8_BLOCK = 128  # weights that share a scale
PORT, MEET = 8000, 13345  # of the server; where the nodes meet
# Room for the KV cache in GiB; no figures are sent to vLLM's authors.
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}


def why_not() -> str | None:
    """Return why vLLM cannot run in this Python, and what to do; None if it can."""
    if importlib.util.find_spec("vllm") is not None:
        return None
    if sys.platform in ELSEWHERE:
        return ELSEWHERE[sys.platform]
    return f"vLLM is not installed here. {INSTALL}"


# One machine


def command(
    model: str,
    port: int = PORT,
    precision: str = "auto",
    context: int | None = None,
    parsers: bool = True,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the words of `vllm serve` for one machine.

    `context` is the most tokens of prompt and answer together: vLLM keeps room for one
    such text, so that a shorter one fits a smaller GPU. `parsers` lets the server take
    thinking and tool calls out of the text. Raises ValueError for an unknown model or
    precision, and for an option in `extra` that vLLM does not have.

    >>> " ".join(command("Qwen/Qwen3-8B", context=8192, parsers=False))
    'vllm serve Qwen/Qwen3-8B --port 8000 --dtype auto --max-model-len 8192'
    """
    if precision not in DTYPES:
        raise ValueError(
            f'precision "{precision}" is not one of {", ".join(DTYPES)}.'
            + suggest(precision, DTYPES)
        )
    words = ["vllm", "serve", locate(model)[0], "--port", str(port)]
    words += ["--dtype", DTYPES[precision]]
    words += ["--max-model-len", str(context)] if context else []
    words += [*(parsers_for(model) if parsers else ()), *extra]
    wire.check_options(words, OPTIONS)
    return words


def parsers_for(model: str) -> list[str]:
    """Return the options that let vLLM read a model's thinking and its tool calls."""
    known = {one.id: one for one in catalog.models()}.get(_plain(model))
    series = known.series if known else ""
    calls = "qwen3_coder" if series.startswith(XML_CALLS) else "hermes"
    thinks = known.thinking != "none" if known else "qwen3" in model.lower()
    words = ["--reasoning-parser", "qwen3"] if thinks else []
    if known and (known.is_base or known.kind == "embedding"):
        return words
    return [*words, "--enable-auto-tool-choice", "--tool-call-parser", calls]


def _plain(model: str) -> str:
    """Return the id without what names its precision."""
    return model.removesuffix("-FP8").removesuffix("-AWQ")


def here(words: Sequence[str], python: str = sys.executable) -> list[str]:
    """Return a command for a Python that has vLLM.

    The script `vllm` of the build for a CPU ends with PackageNotFoundError: it asks for
    the version of a package named vllm, and the build is named vllm-cpu.
    """
    module = "vllm.entrypoints.openai.api_server"
    return [python, "-m", module, "--model", *words[2:]]


def started(
    model: str,
    precision: str = "auto",
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
    patience: float = 2 * wire.PATIENCE,
    **options: Any,
) -> wire.Started:
    """Start the server of a model on a free port; `options` are those of `command`.

    `python` is the interpreter of an environment that has vLLM; None is this one.
    Raises ImportError where vLLM is missing, OSError where the server does not start.

    Example:
        with started("pocket-qwen3", "fp32") as server:
            model, tokenizer = qc.load(server.address)
    """
    if python is None:
        common.need(why_not())
    offline = {"HF_HUB_OFFLINE": "1"} if Path(locate(model)[0]).is_dir() else {}
    return wire.Started(
        lambda port: here(
            command(model, port, precision, **options), python or sys.executable
        ),
        QUIET | offline | dict(environment or {}),
        patience,
        remedy="Less context or fewer users at once (--max-num-seqs) take less memory.",
    )


class Server(wire.Runner):
    """A model behind a vLLM server of its own, which ends with it.

    Raises what `started` and `wire.Runner` raise.

    Example:
        with Server("pocket-qwen3", "fp32", python="vllm-env/bin/python") as runner:
            runner.write(ids).ids
    """

    def __init__(
        self,
        model: str = "pocket-qwen3",
        precision: str = "auto",
        python: str | None = None,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        **options: Any,
    ) -> None:
        from qwen_course.remote import tokenizer_for

        server = started(model, precision, python, parsers=False, **options)
        super().__init__(
            server.address, locate(model)[0], tokenizer or tokenizer_for(model),
            form="ids", extra={"return_token_ids": True},
            no_stop={"ignore_eos": True}, started=server,
        )  # fmt: skip


class Runner(common.Runner):
    """A model in vLLM without a server, in this program and a child process of it.

    A script that makes one must have its code under `if __name__ == "__main__":`, for
    the child imports it. Raises ImportError where vLLM is missing.

    Example:
        with Runner("pocket-qwen3", "fp32") as runner:
            runner.answers(rows)
    """

    def __init__(
        self, model: str = "pocket-qwen3", precision: str = "auto", **options: Any
    ) -> None:
        common.need(why_not())
        os.environ.update({name: os.environ.get(name, QUIET[name]) for name in QUIET})
        import vllm

        options = {"max_num_seqs": 16, "disable_log_stats": True} | options
        self._llm = vllm.LLM(locate(model)[0], dtype=DTYPES[precision], **options)

    def write(
        self, ids: Sequence[int], max_new_tokens: int = 64, stop: bool = True
    ) -> Written:
        """Write after a prompt of token ids, step by step."""
        from vllm.sampling_params import RequestOutputKind

        engine, begun = self._llm.llm_engine, time.perf_counter()
        sampling = self._greedy(max_new_tokens, stop, RequestOutputKind.DELTA)
        engine.add_request(f"{begun}", {"prompt_token_ids": list(ids)}, sampling)
        new, moments = list[int](), list[float]()
        while engine.has_unfinished_requests():
            for output in engine.step():
                new += output.outputs[0].token_ids
                gone = time.perf_counter() - begun
                moments += [gone] * (len(new) - len(moments))
        return Written(new, tuple(moments))

    def answers(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int = 64
    ) -> list[list[int]]:
        """Answer all prompts in one batch, which rows leave as they end."""
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        found = self._llm.generate(
            prompts,
            self._greedy(max_new_tokens),
            use_tqdm=False,
        )
        return [list(one.outputs[0].token_ids) for one in found]

    def _greedy(self, limit: int, stop: bool = True, kind: Any = None) -> Any:
        import vllm

        more = {} if kind is None else {"output_kind": kind}
        return vllm.SamplingParams(
            temperature=0, max_tokens=limit, ignore_eos=not stop, detokenize=False,
            **more,
        )  # fmt: skip

    def close(self) -> None:
        """End the child process."""
        self._llm.llm_engine.engine_core.shutdown()


# Several GPUs, several machines


@dataclass(frozen=True)
class Check:
    """What the division of a model needs, whether it has it, and why it needs it."""

    needed: str
    holds: bool
    why: str


class Checks(Table[Check]):
    """What a division needs, a row each."""

    columns = ("needed", "holds", "why")
    noun = "checks"

    def cells(self, item: Check) -> Row:
        """Return a check as texts."""
        return item.needed, "yes" if item.holds else "no", item.why


@dataclass(frozen=True)
class Plan:
    """How a model is divided, and the command of each node, the first one's first.

    Each layer is cut into `tensor` parts within a node, the layers into `pipeline`
    groups across nodes, and there are `replicas` of the whole.
    """

    model: str
    tensor: int
    pipeline: int
    replicas: int
    checks: Checks
    commands: list[list[str]]

    def __str__(self) -> str:
        return "\n".join(" ".join(words) for words in self.commands)


def for_gpus(
    model: str,
    gpus: int,
    nodes: int = 1,
    gpu_gib: float = 80,
    precision: str = "bf16",
    context: int = 32768,
    texts: int = 4,
    backend: str = "mp",
    head: str = "10.0.0.1",
) -> Plan:
    """Return how vLLM runs a model of the catalogue on `nodes` of so many GPUs each.

    The fewest GPUs that hold the model and `texts` of `context` tokens make a replica;
    as many replicas as there is room for share the users. A model that no node holds is
    cut across all of them. `backend` is "mp", which starts a process on each node, or
    "ray", which starts them itself in a cluster of Ray. `head` is the address of the
    first node.

    Raises ValueError when it fits nowhere, or the model cannot be divided so.

    >>> plan = for_gpus("Qwen3-32B", gpus=4)
    >>> plan.tensor, plan.pipeline, plan.replicas
    (2, 1, 2)
    """
    checkpoint = catalog.get(model)
    if backend not in ("mp", "ray"):
        raise ValueError(f'backend "{backend}" is not mp or ray.')
    if precision not in STORED:
        raise ValueError(f'precision "{precision}" is not one of {", ".join(STORED)}.')
    tried = []
    for tensor, pipeline in _divisions(gpus, nodes):
        replicas = gpus * nodes // (tensor * pipeline)
        found = checks(
            checkpoint, tensor, pipeline, replicas, gpu_gib, precision, context, texts
        )
        if all(one.holds for one in found):
            id = checkpoint.id + STORED[precision]
            words = ["vllm", "serve", id, "--port", str(PORT)]
            words += ["--max-model-len", str(context), *parsers_for(checkpoint.id)]
            words += _sizes(checkpoint, tensor, pipeline, replicas)
            lines = _per_node(words, nodes, pipeline, replicas, backend, head)
            for line in lines:
                wire.check_options(line, OPTIONS)
            return Plan(id, tensor, pipeline, replicas, found, lines)
        tried = [one for one in found if not one.holds]
    raise ValueError(
        f"{checkpoint.name} in {precision} cannot be divided among {nodes} x {gpus} "
        f"GPUs of {gpu_gib:g} GiB: {'; '.join(one.needed for one in tried)}. Take more "
        'or larger GPUs, a shorter context, or precision="fp8".'
    )


def _divisions(gpus: int, nodes: int) -> list[tuple[int, int]]:
    """Return ways to divide, least first: within a node, then across all of them."""
    if gpus < 1 or nodes < 1:
        raise ValueError(f"gpus is {gpus} and nodes {nodes}; give 1 or more of each.")
    within = [(size, 1) for size in range(1, gpus + 1) if gpus % size == 0]
    return within + ([(gpus, nodes)] if nodes > 1 else [])


def checks(
    model: Checkpoint | str,
    tensor: int = 1,
    pipeline: int = 1,
    replicas: int = 1,
    gpu_gib: float = 80,
    precision: str = "bf16",
    context: int = 32768,
    texts: int = 4,
) -> Checks:
    """Check whether a model of the catalogue can be divided so, and fits.

    >>> [one.needed for one in checks("Qwen3-32B", tensor=3) if not one.holds][0]
    '64 heads divide by 3'
    """
    checkpoint = catalog.get(model) if isinstance(model, str) else model
    shape = checkpoint.shape
    heads, kv = shape.num_attention_heads or 0, shape.num_key_value_heads or 1
    layers, experts = shape.num_hidden_layers or 0, shape.num_experts
    shared = kv % tensor == 0 or tensor % kv == 0
    found = [
        Check(f"{heads} heads divide by {tensor}", heads % tensor == 0,
              "each GPU computes whole heads of attention"),
        Check(f"{kv} KV heads and {tensor} GPUs divide", shared,
              "each GPU keeps whole KV heads, or all of a few keep the same one"),
        Check(f"{layers} layers for {pipeline} groups", layers >= pipeline,
              "each group of GPUs has layers of its own"),
    ]  # fmt: skip
    if experts:
        among = tensor * replicas
        found.append(
            Check(f"{experts} experts divide by {among}", experts % among == 0,
                  "each GPU keeps whole experts of every layer")
        )  # fmt: skip
    elif precision == "fp8":
        width = (shape.intermediate_size or 0) // tensor
        found.append(
            Check(f"{width} divides by {FP8_BLOCK}", width % FP8_BLOCK == 0,
                  "a scale stands for a block of weights, which is not cut")
        )  # fmt: skip
    needs = memory_each(checkpoint, tensor, pipeline, precision, context, texts)
    room = SHARE * gpu_gib * memory.GIB
    text = f"{memory.gib(needs)} of {memory.gib(room)} a GPU"
    why = f"weights, {texts} texts of {context:,} tokens, and what a step computes"
    return Checks([*found, Check(text, needs <= room, why)])


def memory_each(
    checkpoint: Checkpoint,
    tensor: int,
    pipeline: int,
    precision: str = "bf16",
    context: int = 32768,
    texts: int = 4,
) -> int:
    """Return the bytes that each GPU must have: `memory.estimate`, divided.

    More GPUs than KV heads keep each of these several times. Replicas of a mixture of
    experts share its experts; that is left out, so that it is the most it can be.
    """
    whole = memory.estimate(
        checkpoint, precision, context, prompt=min(context, STEP_TOKENS)
    )
    kv = checkpoint.shape.num_key_value_heads or 1
    cache = texts * whole.kv_cache / (min(tensor, kv) * pipeline)
    return round(whole.weights / (tensor * pipeline) + cache + whole.activations)


def _sizes(
    checkpoint: Checkpoint, tensor: int, pipeline: int, replicas: int
) -> list[str]:
    words = ["--tensor-parallel-size", str(tensor)]
    words += ["--pipeline-parallel-size", str(pipeline)] if pipeline > 1 else []
    words += ["--data-parallel-size", str(replicas)] if replicas > 1 else []
    several = checkpoint.shape.num_experts and tensor * replicas > 1
    return words + (["--enable-expert-parallel"] if several else [])


def _per_node(
    words: list[str], nodes: int, pipeline: int, replicas: int, backend: str, head: str
) -> list[list[str]]:
    """Return the command of each node; Ray needs one, on the first."""
    if nodes == 1:
        return [words]
    local = ["--data-parallel-size-local", str(replicas // nodes)]
    if backend == "ray":
        if pipeline > 1:
            return [[*words, "--distributed-executor-backend", "ray"]]
        return [[*words, *local, "--data-parallel-backend", "ray"]]
    lines = []
    for node in range(nodes):
        if pipeline > 1:
            where = ["--nnodes", str(nodes), "--node-rank", str(node)]
            where += ["--master-addr", head]
        else:
            where = [*local, "--data-parallel-address", head]
            where += ["--data-parallel-rpc-port", str(MEET)]
            first = str(node * (replicas // nodes))
            where += ["--data-parallel-start-rank", first] if node else []
        lines.append([*words, *where, *(["--headless"] if node else [])])
    return lines


def cluster(nodes: int, head: str = "10.0.0.1") -> list[list[str]]:
    """Return what makes a cluster of Ray of the nodes, a command for each.

    >>> cluster(2)[1]
    ['ray', 'start', '--address', '10.0.0.1:6379']
    """
    first = ["ray", "start", "--head", "--port", "6379"]
    return [first, *[["ray", "start", "--address", f"{head}:6379"]] * (nodes - 1)]
