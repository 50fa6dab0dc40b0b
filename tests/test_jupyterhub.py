"""The workshop's JupyterHub: its settings, and a real hub with two learners."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

pytest.importorskip("jupyterhub", reason="jupyterhub is not installed.")
pytest.importorskip("nbgitpuller", reason="nbgitpuller is not installed.")
pytest.importorskip(
    "configurable_http_proxy", reason="configurable-http-proxy is not installed."
)

from traitlets.config.loader import PyFileConfigLoader

from qwen_course import notebook_rules, notebooks
from qwen_course.datafiles import data_file
from workshop import hub, simulate
from workshop.jupyterhub import handout, settings
from workshop.jupyterhub.learner import Learner

HERE = settings.ROOT / "workshop" / "jupyterhub"
PASSWORD = "tuvo-nabe-diku"
LESSON = "course/notebooks/00_start_here.ipynb"

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


def write(folder: Path, **chosen) -> Path:
    """Write the settings of a room; return its folder."""
    said = {"password": PASSWORD, "address": "127.0.0.1"} | chosen
    (folder / settings.FILE).write_text(json.dumps(said), encoding="utf-8")
    return folder


def configuration(folder: Path, monkeypatch):
    """Return what JupyterHub reads from its configuration file."""
    monkeypatch.setenv(settings.FOLDER_VARIABLE, str(folder))
    return PyFileConfigLoader("jupyterhub_config.py", str(HERE)).load_config()


# The settings


def test_the_first_settings_can_be_used_and_have_a_password_of_their_own(tmp_path):
    settings.write_first(tmp_path / "room")
    room = settings.read(tmp_path / "room")
    assert (room.login, room.spawner, room.port) == ("shared", "simple", 8000)
    assert re.fullmatch(r"([bdfgkmnprstvz][aeiou]){2}(-([a-z]{4})){2}", room.password)
    assert settings.new_password() != room.password


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"login": "share"}, 'login "share" is not one of .* Did you mean "shared"'),
        ({"pasword": "x"}, 'no setting "pasword". Did you mean "password"'),
        ({"password": "short"}, "password has 5 letters: give 8 or more"),
        ({"password": 12345678}, "password is 12345678, and must be text"),
        ({"teachers": ["t"]}, "teacher_password has 0 letters: give 32"),
        ({"teachers": "t"}, "teachers is 't', and must be a list"),
        ({"login": "names"}, "there are no learners: type .* passwords NAME"),
        ({"spawner": "docker"}, 'spawner "docker" is not one of simple, systemd'),
        ({"memory_gb": 0}, "memory_gb is 0: give more than 0"),
        ({"memory_gb": "2G"}, "memory_gb is '2G', and must be a number"),
        ({"port": 22}, "port is 22: give 80, 443, or one from 1024"),
        ({"key": "room.key"}, "certificate and key belong together"),
        ({"certificate": "a", "key": "b"}, "certificate: there is no file"),
        ({"hand_out": ["lessons"]}, 'the course has no folder "lessons"'),
        ({"lesson": "notebooks/99.ipynb"}, 'the course has no file "notebooks/99'),
    ],
)
def test_a_wrong_setting_is_a_sentence(tmp_path, chosen, sentence):
    with pytest.raises(settings.SettingsError, match=sentence):
        settings.read(write(tmp_path, **chosen))


def test_a_file_that_is_no_yaml_is_a_sentence(tmp_path, capsys):
    (tmp_path / settings.FILE).write_text("login: [shared", encoding="utf-8")
    assert hub.main(["--folder", str(tmp_path), "publish"]) == 1
    assert "workshop.yaml is no YAML" in capsys.readouterr().err


def test_https_without_the_proxy_that_knows_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(settings.SettingsError, match="npm install -g"):
        settings.node_proxy()


# The configuration


def test_one_password_lets_any_name_in(tmp_path, monkeypatch):
    c = configuration(write(tmp_path), monkeypatch)
    assert c.JupyterHub.authenticator_class == "shared-password"
    assert c.SharedPasswordAuthenticator.user_password == PASSWORD
    assert c.Authenticator.allow_all is True
    assert c.JupyterHub.bind_url == "http://127.0.0.1:8000"


def test_named_learners_come_in_with_their_own_password_alone(
    tmp_path, monkeypatch, capsys
):
    from workshop.jupyterhub.names import NamesAuthenticator

    folder = write(tmp_path, login="names", teachers=["grace"])
    assert hub.main(["--folder", str(folder), "passwords", "Ada", "grace"]) == 0
    slips = dict(line.split() for line in capsys.readouterr().out.splitlines()[:2])
    c = configuration(folder, monkeypatch)
    assert c.Authenticator.allowed_users == {"ada", "grace"}
    assert c.Authenticator.admin_users == {"grace"}
    assert slips["ada"] not in (folder / settings.LEARNERS_FILE).read_text("utf-8")

    names = NamesAuthenticator(passwords=c.NamesAuthenticator.passwords)

    def come(name: str, password: str):
        data = {"username": name, "password": password}
        return asyncio.run(names.authenticate(None, data))

    assert come("ADA", slips["ada"]) == "ada"
    assert come("ada", slips["grace"]) is None
    assert come("eve", slips["ada"]) is None


def test_the_model_server_of_the_room_reaches_every_learner(tmp_path, monkeypatch):
    server = "http://192.168.1.7:8000/v1"
    folder = write(tmp_path, model=server, environment={"QWEN_COURSE_API_KEY": "k"})
    c = configuration(folder, monkeypatch)
    assert c.Spawner.environment["QWEN_COURSE_MODEL"] == server
    assert c.Spawner.environment["QWEN_COURSE_API_KEY"] == "k"


def test_systemd_gives_every_learner_an_account_and_hard_limits(tmp_path, monkeypatch):
    c = configuration(write(tmp_path, spawner="systemd", cpus=0.5), monkeypatch)
    assert c.JupyterHub.spawner_class == "systemdspawner.SystemdSpawner"
    assert c.SystemdSpawner.username_template == "qwen-{USERNAME}"
    assert (c.Spawner.mem_limit, c.Spawner.cpu_limit) == (2 * 2**30, 0.5)
    # Kernels of one process would all be the account that it runs as.
    assert [one["name"] for one in c.JupyterHub.services] == ["idle-culler"]


def test_an_idle_server_is_stopped_by_a_service_that_may(tmp_path, monkeypatch):
    c = configuration(write(tmp_path, idle_minutes=5), monkeypatch)
    culler = next(o for o in c.JupyterHub.services if o["name"] == "idle-culler")
    assert "--timeout=300" in culler["command"]
    assert set(c.JupyterHub.load_roles[0]["scopes"]) == {
        *("list:users", "read:users:activity", "read:servers", "delete:servers")
    }


def test_jupyterlab_asks_no_learner_about_news():
    said = json.loads(
        (HERE / "config/labconfig/default_setting_overrides.json").read_text("utf-8")
    )
    notifications = said["@jupyterlab/apputils-extension:notification"]
    assert notifications == {"fetchNews": "false", "checkForUpdates": False}


@pytest.fixture(scope="module")
def kernel():
    """What starts a kernel: it is a file beside kernel.json, in no package."""
    path = HERE / "config" / "kernels" / "python3" / "kernel.py"
    spec = importlib.util.spec_from_file_location("kernel", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_kernel_ends_with_its_server_and_tells_it_when_it_was_killed(kernel):
    here, there = socket.socketpair()
    with here, there:
        assert kernel.wait(here, server=-1) == 1  # another process is our parent now
        there.sendall(b".")
        assert kernel.wait(here, os.getppid()) == 0
        there.close()
        assert kernel.wait(here, os.getppid()) == 1


def test_without_warm_kernels_a_kernel_starts_as_usual(kernel, monkeypatch):
    monkeypatch.delenv(kernel.WARM_VARIABLE, raising=False)
    assert kernel.connect() is None
    monkeypatch.setenv(kernel.WARM_VARIABLE, "/nowhere/warm")
    assert kernel.connect() is None


# A real hub


@dataclass
class Room:
    """A hub that runs, and the event loop that its learners live in."""

    settings: settings.Settings
    address: str
    loop: asyncio.Runner

    def learner(self, name: str) -> Learner:
        """Return a learner who has logged in and has the course's folder."""

        async def come() -> Learner:
            learner = Learner(self.address, name, self.settings.password)
            await learner.log_in()
            await learner.wait_for_server()
            await learner.pull(await learner.default_path())
            return learner

        return self.loop.run(come())


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    with simulate.own_hub(folder) as (address, _), asyncio.Runner() as loop:
        yield Room(settings.read(folder), address, loop)


@pytest.fixture(scope="module")
def ada(room):
    learner = room.learner("ada")
    yield learner
    room.loop.run(learner.close())


@pytest.fixture(scope="module")
def grace(room):
    learner = room.learner("grace")
    yield learner
    room.loop.run(learner.close())


@needs_git
def test_two_learners_log_in_at_once_and_run_the_first_lesson(room):
    coming = simulate.attend_all(
        room.address, ["ada", "grace"], room.settings.password, "00_start_here"
    )
    for seat in room.loop.run(coming):
        assert seat.errors == []
        assert seat.cells > 10
        assert list(seat.seconds) == list(simulate.STEPS)


@needs_git
def test_a_wrong_password_lets_nobody_in(room):
    eve = Learner(room.address, "eve", "not-the-password")
    with pytest.raises(RuntimeError, match="let eve not in"):
        room.loop.run(eve.log_in())
    room.loop.run(eve.close())


@needs_git
def test_the_culler_is_at_work(room):
    log = (room.settings.folder / "hub.log").read_text("utf-8")
    assert re.search(r"200 GET /hub/api/users\?state=.* \(idle-culler@", log)


@needs_git
def test_a_kernel_is_warm_at_home_and_draws_numbers_of_its_own(room, ada, grace):
    code = """
import random, sys
print("torch" in sys.modules, "transformers" in sys.modules)
import numpy, qwen_course.settings
print(qwen_course.settings.progress_file())
print(random.random(), numpy.random.random())
"""

    async def run(learner: Learner) -> list[str]:
        kernel = await learner.start_kernel(LESSON)
        printed, error = await kernel.run(code)
        assert error == ""
        return printed.splitlines()

    hers, others = room.loop.run(run(ada)), room.loop.run(run(grace))
    assert hers[0] == "True True"
    home = room.settings.homes / "ada"
    assert hers[1] == str(home / ".qwen-course" / "progress.json")
    assert hers[2] != others[2]


@needs_git
def test_a_cell_that_takes_too_much_memory_ends_with_a_message_and_the_rest_goes_on(
    room, ada, grace
):
    async def greedy() -> None:
        kernel = await ada.start_kernel(LESSON)
        neighbour = await grace.start_kernel(LESSON)
        _, error = await kernel.run("data = bytearray(3 * 2**30)")
        assert error.startswith("MemoryError")
        _, error = await kernel.run("import torch; torch.zeros(3 * 2**28)")
        assert "can't allocate memory" in error
        assert await kernel.run("print(6 * 7)") == ("42\n", "")
        assert await neighbour.run("print(6 * 7)") == ("42\n", "")

    room.loop.run(greedy())


@needs_git
def test_an_update_brings_what_is_new_and_leaves_a_learners_edit(room, ada, tmp_path):
    mine = "print('my own answer')"
    course = tmp_path / "course"
    for name in room.settings.hand_out:
        shutil.copytree(settings.ROOT / name, course / name)

    async def edit() -> None:
        notebook = await ada.read(LESSON)
        notebook["cells"][1]["source"] = mine
        await ada.write(LESSON, notebook)

    def correct(path: Path) -> None:
        notebook = json.loads(path.read_text("utf-8"))
        notebook["cells"][1]["source"] = ["# the teacher's correction\n"]
        path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")

    room.loop.run(edit())
    correct(course / "notebooks" / "00_start_here.ipynb")
    (course / "notebooks" / "today.txt").write_text("The room is 2.14.", "utf-8")
    (course / "notebooks" / "old.ipynb").write_text('{"nbformat": 3}', "utf-8")
    assert handout.publish(room.settings, course)
    assert not handout.publish(room.settings, course)
    room.loop.run(ada.pull(handout.pull_path(room.settings)))

    folder = room.settings.homes / "ada" / "course" / "notebooks"
    assert (folder / "today.txt").read_text("utf-8") == "The room is 2.14."
    assert (folder / "old.ipynb").is_file()
    kept = json.loads((folder / "00_start_here.ipynb").read_text("utf-8"))
    assert "".join(kept["cells"][1]["source"]) == mine


@needs_git
def test_exercises_are_collected_under_the_learners_names(room, ada, grace, tmp_path):
    assert hub.collect(room.settings, tmp_path / "in") == 0
    assert {one.name for one in (tmp_path / "in").iterdir()} >= {"ada", "grace"}
    assert (tmp_path / "in" / "ada" / "01_family.ipynb").is_file()


@needs_git
def test_a_second_hub_on_the_same_ports_is_told_so(room):
    with pytest.raises(settings.SettingsError, match=r"port \d+ .* cannot be had"):
        hub.check_ports(room.settings)


@needs_git
def test_solutions_are_handed_out_only_where_the_settings_say_so(room):
    def handed_out() -> set[str]:
        return {one.name for one in room.settings.handed_out.iterdir()} - {".git"}

    handout.publish(room.settings)
    assert handed_out() == {"notebooks", "exercises", "qwen_course", "workshop"}
    more = replace(room.settings, hand_out=("notebooks", "solutions"))
    handout.publish(more)
    assert handed_out() == {"notebooks", "solutions", "qwen_course", "workshop"}


@needs_git
def test_no_link_of_a_handed_notebook_leads_nowhere(room, tmp_path):
    handout.publish(replace(room.settings, folder=tmp_path))
    folder = replace(room.settings, folder=tmp_path).handed_out
    assert (folder / "workshop/monitoring/dashboard.json").is_file()
    assert len(list(folder.glob("qwen_course/**/*.*"))) < 5  # what is linked, no more
    for path in folder.glob("*/*.ipynb"):
        notebook = notebooks.read(path)
        problems = notebook_rules.has_links_that_lead_somewhere(path, notebook)
        assert not [one for one in problems if "solutions/" not in one]


# Figures and values


def test_the_readme_shows_the_measured_figures():
    figures = json.loads(data_file("measured/workshop.json").read_text("utf-8"))
    readme = (HERE / "README.md").read_text("utf-8")
    for room in figures["rooms"].values():
        assert room["errors"] == []
        assert simulate.table_row(room) in readme
    base = figures["rooms"][simulate.BASE]
    assert simulate.seats_table(base) in readme
    assert figures["machine"]["processor"] in readme


KNOWN = {  # what zero-to-jupyterhub's schema calls them
    "hub": {"config", "concurrentSpawnLimit"},
    "proxy": {"service"},
    "singleuser": {
        *("image", "defaultUrl", "startTimeout", "memory", "cpu", "storage"),
        *("extraEnv", "extraFiles", "networkPolicy"),
    },
    "cull": {"enabled", "timeout", "every"},
    "scheduling": {"userScheduler", "userPlaceholder"},
    "prePuller": {"hook"},
}


def test_the_values_for_kubernetes_use_known_keys_and_fit_their_node():
    text = (HERE / "z2jh.yaml").read_text("utf-8")
    values = yaml.safe_load(text)
    assert {name: set(part) for name, part in values.items()} == KNOWN
    said = re.search(r"a node with (\d+) GB and (\d+) cores", text)
    memory, cores = map(int, said.groups())
    seat = values["singleuser"]
    assert 30 * int(seat["memory"]["guarantee"].removesuffix("G")) < 0.9 * memory
    assert 30 * seat["cpu"]["guarantee"] < 0.9 * cores
    assert "NOT RUN" in text
    server = urlsplit(seat["extraEnv"]["QWEN_COURSE_MODEL"])
    (allowed,) = seat["networkPolicy"]["egress"]  # none by default
    assert allowed["to"][0]["podSelector"]["matchLabels"] == {"app": server.hostname}
    assert [port["port"] for port in allowed["ports"]] == [server.port]
