"""vLLM: its commands hold against its documentation, its tokens against the model's."""

import pytest

from qwen_course import catalog, engines, memory
from qwen_course.datafiles import read_yaml
from qwen_course.platforms import vllm, wire

installed = pytest.mark.skipif(bool(vllm.why_not()), reason=str(vllm.why_not()))
SIZES = "Qwen3-0.6B", "Qwen3-8B", "Qwen3-32B", "Qwen3-30B-A3B", "Qwen3-235B-A22B"


@pytest.fixture(scope="module")
def asked(sums_asked):
    """Prompts, and what transformers writes after each in fp32."""
    rows, outputs = sums_asked
    return rows, [ids[:64] for ids in outputs]


def every_command():
    """Commands of every kind that the module writes."""
    yield from ([vllm.command(f"Qwen/{name}", context=8192)] for name in SIZES)
    for name, gpus, nodes in (
        ("Qwen3-8B", 1, 1), ("Qwen3-32B", 4, 1), ("Qwen3-30B-A3B", 4, 1),
        ("Qwen3-32B", 8, 2), ("Qwen3-235B-A22B", 8, 2), ("Qwen3-235B-A22B", 4, 2),
    ):  # fmt: skip
        for backend in ("mp", "ray"):
            yield vllm.for_gpus(name, gpus, nodes, backend=backend, texts=1).commands


def options(words):
    """Return the options of a command and their values."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {name: value for name, value in pairs if name.startswith("--")}


# Where it is missing


@pytest.mark.parametrize(
    ("system", "way"), [("win32", "WSL"), ("darwin", "mlx"), ("linux", "pip install")]
)
def test_a_machine_without_it_is_told_the_way_of_its_system(monkeypatch, system, way):
    monkeypatch.setattr(vllm.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(vllm.sys, "platform", system)
    assert way in vllm.why_not()
    for use in (vllm.Runner, vllm.Server):
        with pytest.raises(ImportError, match=way):
            use("pocket-qwen3")


# Commands


def test_a_real_models_command_parses_its_thinking_and_its_tools():
    found = options(vllm.command("Qwen/Qwen3-8B", context=32768))
    assert found["--reasoning-parser"] == "qwen3"
    assert found["--tool-call-parser"] == "hermes"
    assert found["--max-model-len"] == "32768"
    assert "--enable-auto-tool-choice" in found


def test_models_that_differ_get_their_own_parsers():
    assert vllm.parsers_for("Qwen/Qwen3-8B-FP8") == vllm.parsers_for("Qwen/Qwen3-8B")
    coder = vllm.parsers_for("Qwen/Qwen3-Coder-30B-A3B-Instruct")
    assert coder[-1] == "qwen3_coder"
    assert "--reasoning-parser" not in coder
    assert vllm.parsers_for("Qwen/Qwen3-0.6B-Base") == []


def test_an_option_that_vllm_does_not_have_is_refused():
    with pytest.raises(ValueError, match="no option --enable-reasoning"):
        vllm.command("Qwen/Qwen3-8B", extra=["--enable-reasoning"])
    with pytest.raises(ValueError, match='"int4" is not one of auto, fp32'):
        vllm.command("Qwen/Qwen3-8B", precision="int4")


@pytest.mark.parametrize("lines", list(every_command()), ids=str)
def test_every_option_is_documented(lines):
    for words in lines:
        wire.check_options(words, "vllm_options")


@installed
@pytest.mark.parametrize("lines", list(every_command()), ids=str)
def test_the_installed_version_parses_every_command(lines):
    parser = its_parser()
    for words in lines:
        assert parser.parse_args(words[2:]).port == 8000


@installed
def test_the_course_knows_the_options_of_the_version_that_it_names():
    import vllm as engine

    known = read_yaml("vllm_options")
    if engine.__version__.partition("+")[0] != known["version"]:
        pytest.skip(f"vLLM is {engine.__version__}, the list of {known['version']}")
    named = {
        name: action.nargs == 0
        for action in its_parser()._actions
        for name in action.option_strings
        if name.startswith("--") and "eprecated" not in (action.help or "")
    }
    flags = {name for name, alone in named.items() if alone}
    assert set(known["flags"]) == flags
    assert set(known["takes_a_value"]) == set(named) - flags


def its_parser():
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


# Several GPUs


def test_a_small_model_has_a_replica_on_each_gpu():
    plan = vllm.for_gpus("Qwen3-8B", gpus=8)
    assert (plan.tensor, plan.pipeline, plan.replicas) == (1, 1, 8)
    assert options(plan.commands[0])["--data-parallel-size"] == "8"


def test_layers_are_cut_only_as_often_as_memory_asks():
    plan = vllm.for_gpus("Qwen3-32B", gpus=8)
    assert (plan.tensor, plan.replicas) == (2, 4)
    assert vllm.for_gpus("Qwen3-32B", gpus=8, precision="fp8").tensor == 1


def test_experts_are_shared_among_all_gpus():
    plan = vllm.for_gpus("Qwen3-235B-A22B", gpus=8)
    assert "--enable-expert-parallel" in plan.commands[0]
    assert "128 experts divide by 8" in str(plan.checks)
    dense = vllm.for_gpus("Qwen3-32B", gpus=8).commands[0]
    assert "--enable-expert-parallel" not in dense


def test_a_model_that_no_node_holds_is_a_pipeline_of_nodes():
    plan = vllm.for_gpus("Qwen3-235B-A22B", gpus=4, nodes=2, texts=1, head="10.0.0.7")
    assert (plan.tensor, plan.pipeline, plan.replicas) == (4, 2, 1)
    first, second = map(options, plan.commands)
    assert (first["--node-rank"], second["--node-rank"]) == ("0", "1")
    assert first["--nnodes"] == second["--nnodes"] == "2"
    assert second["--master-addr"] == "10.0.0.7"
    assert "--headless" in second
    assert "--headless" not in first


def test_ray_is_told_once_after_its_cluster_is_up():
    plan = vllm.for_gpus("Qwen3-235B-A22B", 4, 2, texts=1, backend="ray")
    assert len(plan.commands) == 1
    assert options(plan.commands[0])["--distributed-executor-backend"] == "ray"
    assert [words[2] for words in vllm.cluster(3)] == ["--head"] + ["--address"] * 2


def test_replicas_on_two_nodes_count_on_from_the_first():
    plan = vllm.for_gpus("Qwen3-32B", gpus=4, nodes=2)
    first, second = map(options, plan.commands)
    assert first["--data-parallel-size"] == "4"
    assert first["--data-parallel-size-local"] == "2"
    assert second["--data-parallel-start-rank"] == "2"


@pytest.mark.parametrize(
    ("name", "division", "failed"),
    [
        ("Qwen3-32B", {"tensor": 3}, ["64 heads divide by 3", "8 KV heads and 3"]),
        ("Qwen3-30B-A3B", {"tensor": 1, "replicas": 3}, ["128 experts divide by 3"]),
        ("Qwen3-8B", {"pipeline": 64}, ["36 layers for 64 groups"]),
        ("Qwen3-4B", {"tensor": 8, "precision": "fp8"}, ["1216 divides by 128"]),
        ("Qwen3-32B", {"tensor": 1, "gpu_gib": 48}, ["of 44.16 GiB a GPU"]),
    ],
)
def test_a_division_that_the_model_does_not_allow_is_named(name, division, failed):
    found = [one.needed for one in vllm.checks(name, **division) if not one.holds]
    for part in failed:
        assert any(part in one for one in found), found


def test_gpus_beyond_the_kv_heads_do_not_shrink_the_cache():
    model = catalog.get("Qwen3-235B-A22B")
    four, eight = (vllm.memory_each(model, tensor, 1) for tensor in (4, 8))
    whole = memory.estimate(model, "bf16", 32768)
    assert four - eight == pytest.approx(whole.weights / 8, rel=1e-3)


def test_a_model_that_fits_nowhere_says_what_would_help():
    with pytest.raises(ValueError, match=r'1 x 2 GPUs of 80 GiB.*precision="fp8"'):
        vllm.for_gpus("Qwen3-235B-A22B", gpus=2)
    with pytest.raises(ValueError, match="gpus is 0"):
        vllm.for_gpus("Qwen3-8B", gpus=0)


# The same tokens


@installed
@pytest.mark.timeout(900)
def test_it_writes_what_the_model_writes(asked):
    rows, plain = asked
    with vllm.Runner("pocket-qwen3", "fp32", enforce_eager=True) as runner:
        assert engines.compare(plain, runner.answers(rows, 64)).equal == 16
        one = runner.write(rows[0], 64)
        assert one.ids == plain[0]
        assert len(one.moments) == len(one.ids)
        further = runner.write(rows[0], len(one.ids) + 4, stop=False)
        assert len(further.ids) == len(one.ids) + 4


@installed
@pytest.mark.timeout(900)
def test_its_server_sends_what_the_model_writes(asked):
    rows, plain = asked
    eager = ["--enforce-eager", "--max-num-seqs", "16"]
    with vllm.Server("pocket-qwen3", "fp32", extra=eager) as runner:
        assert engines.compare(plain, runner.answers(rows, 64)).equal == 16
        one = runner.write(rows[0], 64)
        assert one.ids == plain[0]
        assert len(one.moments) == len(one.ids)
        runner.form, runner.extra = "chat", {}
        assert runner.write(rows[0], 64).ids == plain[0]
        server = runner.started
    assert server.processes() == []
