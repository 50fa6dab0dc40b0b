"""`training/finetune.py` and its configuration files: one script, any machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qwen_course import chat_data
from qwen_course.tasks import sums

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "training" / "accelerate").glob("*.yaml"))


def parsed(path, *more):
    """The arguments of a launch, as accelerate itself reads them."""
    from accelerate.commands import launch

    parser = launch.launch_command_parser()
    given = ["--config_file", str(path), *more, "training/finetune.py", "--steps", "1"]
    return launch._validate_launch_command(parser.parse_args(given))[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration_and_knows_every_key(path):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(path))
    read = parsed(path)
    written = yaml.safe_load(path.read_text("utf-8"))
    assert read.num_processes == config.num_processes == written["num_processes"]
    known = {action.dest for action in launch_command_parser()._actions}
    for part in ("fsdp_config", "deepspeed_config"):
        assert set(written.get(part, {})) <= known


@pytest.mark.parametrize(
    ("name", "processes", "expected"),
    [
        ("cpu_1", 1, {"use_fsdp": False, "multi_gpu": False}),
        ("gpu_1", 1, {"use_fsdp": False, "multi_gpu": False}),
        ("gpu_2", 2, {"use_fsdp": True, "fsdp_version": 2}),
        ("gpu_8", 8, {"use_fsdp": True, "fsdp_reshard_after_forward": True}),
        ("nodes_2", 16, {"use_fsdp": True, "num_machines": 2}),
        ("zero3", 8, {"use_deepspeed": True, "zero_stage": 3}),
    ],
)
def test_a_configuration_starts_what_its_name_says(name, processes, expected):
    read = parsed(ROOT / "training" / "accelerate" / f"{name}.yaml")
    assert read.num_processes == processes
    for key, value in expected.items():
        assert getattr(read, key) == value, key


def test_the_second_machine_differs_in_one_word():
    path = ROOT / "training" / "accelerate" / "nodes_2.yaml"
    assert parsed(path).machine_rank == 0
    assert parsed(path, "--machine_rank", "1").machine_rank == 1


@pytest.mark.parametrize("version", [2])
def test_the_fully_sharded_plugin_accepts_these_settings(version, monkeypatch):
    from accelerate.utils import FullyShardedDataParallelPlugin

    config = yaml.safe_load((ROOT / "training/accelerate/gpu_8.yaml").read_text())
    for key, value in config["fsdp_config"].items():
        monkeypatch.setenv(key.upper(), str(value))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == version
    assert plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)


# Started for true, on the CPU


@pytest.fixture(scope="module")
def material(tmp_path_factory, pocket, make_speaker):
    """A tiny checkpoint and a file of rows."""
    folder = tmp_path_factory.mktemp("material")
    model = make_speaker()
    model.save_pretrained(folder / "tiny")
    pocket[1].save_pretrained(folder / "tiny")
    rows = chat_data.from_problems(sums.problems(40, split="train", count=2))
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    return folder


def launch(material, name, run, *more, rows):
    """Start the script with a configuration; return what it wrote."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", f"training/accelerate/{name}.yaml",
        "training/finetune.py", "--cpu", "--model", str(material / "tiny"),
        "--data", str(material / "rows.jsonl"), "--run", str(run),
        "--steps", "4", "--rows", str(rows), "--row-length", "40", "--rank", "4",
        "--precision", "fp32", "--compute", "fp32", "--learning-rate", "0.05", *more,
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((run / "losses.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def one(material, tmp_path_factory):
    run = tmp_path_factory.mktemp("one")
    return launch(material, "cpu_1", run, "--save-every", "2", rows=8), run


def test_one_process_learns_and_leaves_an_adapter(one):
    told, run = one
    assert told["processes"] == 1
    assert min(told["losses"][1:]) < told["losses"][0]
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "checkpoint-4" / "trainer_state.json").is_file()


def test_two_processes_learn_the_same_as_one_with_the_same_batch(
    one, material, tmp_path
):
    told = launch(material, "cpu_2", tmp_path, rows=4)
    assert told["processes"] == 2
    assert told["rows_a_step"] == one[0]["rows_a_step"] == 8
    assert told["losses"] == pytest.approx(one[0]["losses"], abs=2e-4)
