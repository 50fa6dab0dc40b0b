"""Platforms: what is said of them, the choice, the files, the stored runs."""

import pytest

from qwen_course import cli, deployment
from qwen_course.deployment import Run, Runs, choose, platform, platforms, stored

NAMED_BY_THE_COURSE = (
    *("Transformers", "transformers serve", "vLLM", "SGLang", "llama.cpp", "Ollama"),
    *("ONNX Runtime GenAI", "Olive", "Foundry Local", "OpenVINO GenAI", "MLX"),
)


def test_every_platform_says_what_it_is_for_and_names_a_real_checkpoint():
    assert {one.name for one in platforms()} >= set(NAMED_BY_THE_COURSE)
    for one in platforms():
        assert one.purpose
        assert one.trap.endswith(".")
        assert one.source
        assert set(one.uses) <= set(deployment.USES)
        assert {*one.hardware, *one.best_on} <= set(deployment.HARDWARE)
        assert set(one.systems) <= set(deployment.SYSTEMS)
        assert one.leaves or any("wen" in line for line in one.commands), one.name


@pytest.mark.parametrize("one", platforms(), ids=lambda one: one.id)
def test_a_platform_runs_here_or_says_why_not_and_what_to_type(one):
    reason = one.why_not()
    remedies = (f"qwen-course[{one.extra}]", "Type:", "ollama serve")
    if reason and one.extra:
        assert any(remedy in reason for remedy in remedies), reason
    elif reason:
        assert len(reason.split()) > 5


def test_an_extra_of_a_platform_is_one_that_the_package_has():
    import importlib.metadata

    have = importlib.metadata.metadata("qwen-course").get_all("Provides-Extra")
    assert {one.extra for one in platforms() if one.extra} <= set(have)


def test_a_wrong_platform_gets_the_nearest_name():
    with pytest.raises(ValueError, match='Did you mean "Ollama"'):
        platform("olama")
    with pytest.raises(ValueError, match="no runner for Transformers"):
        platform("transformers").module()


CROWD = {"use": "server", "users": 99, "hardware": "nvidia"}
NEEDS = [
    (CROWD | {"operations": "team"}, "vllm"),
    ({"use": "server", "users": 8, "hardware": "cpu"}, "llama_cpp"),
    ({"use": "chat", "operations": "none"}, "ollama"),
    ({"use": "app", "hardware": "npu", "system": "windows"}, "foundry"),
    ({"use": "app", "hardware": "intel"}, "openvino"),
    ({"use": "python", "hardware": "apple", "system": "macos"}, "mlx"),
    ({"use": "python", "hardware": "cpu", "operations": "none"}, "transformers"),
    ({"use": "chat", "hardware": "none", "private": False}, "hosted"),
]  # fmt: skip


@pytest.mark.parametrize(("needs", "best"), NEEDS)
def test_needs_lead_to_a_platform(needs, best):
    found = choose(**needs)
    assert found[0].platform.id == best
    assert found[0].platform.purpose in found[0].reasons


def test_every_platform_is_chosen_or_ruled_out_with_a_reason():
    found = choose("server", users=200, hardware="nvidia", operations="some")
    assert len(found) + len(found.ruled_out) == len(platforms())
    reasons = {one.platform.id: one.reason for one in found.ruled_out}
    assert reasons["vllm"] == "a team must look after it"
    assert reasons["llama_cpp"] == "made for some 16 users at once"
    assert reasons["hosted"] == "every text leaves your machines"
    assert reasons["mlx"] == "computes on apple, cpu"
    assert reasons["transformers"] == "made for python, not for server"
    assert "runs on linux" in str(
        choose("server", hardware="nvidia", system="windows").ruled_out
    )


def test_more_users_or_less_help_never_add_a_platform():
    def ids(**needs):
        return {fit.platform.id for fit in choose("server", hardware="cpu", **needs)}

    crowds = [ids(users=users, operations="team") for users in (1, 16, 17, 1000)]
    helpers = [ids(operations=word) for word in ("team", "some", "none")]
    for row in (crowds, helpers):
        assert all(less <= more for more, less in zip(row, row[1:], strict=False))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"use": "sever"}, 'Did you mean "server"'),
        ({"use": "chat", "hardware": "gpu"}, '"gpu" is not one of none, cpu'),
        ({"use": "chat", "users": 0}, "0 users cannot ask"),
        ({"use": "chat", "operations": "me"}, "none, some, team"),
    ],
)
def test_a_need_that_nobody_has_is_refused(needs, message):
    with pytest.raises(ValueError, match=message):
        choose(**needs)


def test_a_form_that_nobody_reads_is_refused_with_the_nearest(capsys):
    with pytest.raises(ValueError, match='Did you mean "gguf"'):
        deployment.export("pocket-qwen3", "ggml")
    assert cli.main(["export", "--to", "onyx"]) == 1
    assert 'Did you mean "onnx"' in capsys.readouterr().err


@pytest.mark.parametrize("form", list(deployment.FORMS))
def test_the_command_writes_each_form_and_says_where(form, tmp_path, capsys):
    target = tmp_path / "out"
    arguments = ["export", "pocket-qwen3", "--to", form, "--out", str(target)]
    assert cli.main(arguments) == 0
    written = capsys.readouterr().out.strip().splitlines()[-1]
    assert written.startswith(str(target))
    assert target.exists()


def test_stored_runs_answer_as_transformers_does():
    runs = stored()
    full = {"fp32", "f32", "IR f32"}
    for run in runs:
        if not run.not_run:
            assert run.questions == 16
            assert run.same == 16 or run.form not in full, run
            assert run.one > 0
            assert run.memory > 0
    assert {run.platform for run in runs} >= {
        one.id for one in platforms() if one.run and one.id != "hosted"
    }
    assert runs.machine["cores"]


def test_runs_show_who_did_not_run_and_why():
    runs = Runs([Run("sglang", "bf16", "-", not_run="it needs a GPU")], {"cores": 2})
    assert "not run here" in str(runs)
    assert runs.why_not == {"SGLang": "it needs a GPU"}
    assert runs.of("sglang").machine == runs[:1].machine == {"cores": 2}
    assert not runs.of("vllm")
