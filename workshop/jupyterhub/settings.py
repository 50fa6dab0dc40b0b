"""The settings of a workshop: `workshop.yaml`, read and checked.

Everything that a hub keeps lies in one folder: the settings, the passwords of named
learners, the learners' homes, what they are handed, and the hub's own database.
"""

import os
import secrets
import shutil
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from qwen_course.errors import suggest

FOLDER_VARIABLE = "QWEN_COURSE_WORKSHOP"  # tells the configuration which folder it is
FILE, LEARNERS_FILE = "workshop.yaml", "learners.yaml"
LOGINS, SPAWNERS = ("shared", "names"), ("simple", "systemd")
SHORTEST, SHORTEST_OF_TEACHER = 8, 32  # JupyterHub's own demands, in letters
PREFIX = "qwen-"  # of the accounts that systemd's learners get: root is qwen-root
ROOT = Path(__file__).resolve().parents[2]

FIRST = """\
# The settings of a workshop. workshop/jupyterhub/README.md explains each.
login: shared              # any name with this password; or "names": see the README
password: {password}
# teachers: [teacher]      # these may stop servers, at /hub/admin
# teacher_password: at-least-32-letters

address: 0.0.0.0           # 127.0.0.1: for this computer alone
port: 8000                 # the next two ports are used too, on this computer alone
# certificate: room.pem    # https; see the README
# key: room.key

spawner: simple            # or "systemd": an account and hard limits for each learner
memory_gb: 2               # for each process of a learner
cpus: 1                    # for each learner
idle_minutes: 60           # after this a server that nobody uses is stopped

hand_out: [notebooks, exercises, workshop/monitoring]
lesson: notebooks/00_start_here.ipynb
model: pocket-qwen3        # or the address of one server: http://that-machine:8000/v1
environment: {{}}            # more variables for every learner
"""


class SettingsError(ValueError):
    """What is wrong in the settings and what to write, in a sentence."""


@dataclass(frozen=True)
class Settings:
    """What `workshop.yaml` says; `folder` is where it lies."""

    folder: Path
    login: str = "shared"
    password: str = ""
    teachers: tuple[str, ...] = ()
    teacher_password: str = ""
    address: str = "0.0.0.0"
    port: int = 8000
    certificate: str = ""
    key: str = ""
    spawner: str = "simple"
    memory_gb: float = 2.0
    cpus: float = 1.0
    idle_minutes: float = 60.0
    hand_out: tuple[str, ...] = ("notebooks", "exercises", "workshop/monitoring")
    lesson: str = "notebooks/00_start_here.ipynb"
    model: str = "pocket-qwen3"
    environment: dict[str, str] = field(default_factory=dict)
    learners: dict[str, str] = field(default_factory=dict)  # name: hashed password

    @property
    def homes(self) -> Path:
        """The folder of the learners' homes."""
        return self.folder / "homes"

    def homes_now(self) -> dict[str, Path]:
        """Return the home of each learner who has been here."""
        if self.spawner == "systemd":
            accounts = Path("/home").glob(f"{PREFIX}*")
            return {one.name.removeprefix(PREFIX): one for one in sorted(accounts)}
        return {one.name: one for one in sorted(self.homes.iterdir())}

    @property
    def handed_out(self) -> Path:
        """The git repository that every learner's course folder is pulled from."""
        return self.folder / "handout"

    def path(self, name: str) -> str:
        """Return the path of a file that the settings name relative to the folder."""
        return str(self.folder / Path(name).expanduser()) if name else ""


def read(folder: Path) -> Settings:
    """Return the settings of a folder.

    Raises SettingsError when there are none, or when one of them cannot be used.
    """
    folder = folder.expanduser().resolve()
    path = folder / FILE
    if not path.is_file():
        raise SettingsError(
            f"there is no {FILE} in {folder}: "
            'type "python -m workshop.hub" to make one.'
        )
    said = _mapping(path)
    names = {one.name for one in fields(Settings)} - {"folder", "learners"}
    for name in said:
        if name not in names:
            raise SettingsError(
                f'{path}: there is no setting "{name}".{suggest(str(name), names)}'
            )
    typed = {name: _typed(path, name, value) for name, value in said.items()}
    settings = Settings(folder=folder, learners=read_learners(folder), **typed)
    for problem in _problems(settings):
        raise SettingsError(f"{path}: {problem}")
    return settings


def read_learners(folder: Path) -> dict[str, str]:
    """Return the hashed password of each named learner."""
    path = folder / LEARNERS_FILE
    return _mapping(path) if path.is_file() else {}


def write_first(folder: Path) -> Path:
    """Write the settings that a workshop starts with, with a password of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_text(FIRST.format(password=new_password()), encoding="utf-8")
    path.chmod(0o600)
    return path


def node_proxy() -> str:
    """Return the path of the proxy in Node.js, which knows TLS.

    subtle: the Python package has a command of the same name, beside this Python.
    Raises SettingsError when there is none.
    """
    here = str(Path(sys.executable).parent)
    places = os.environ.get("PATH", "").split(os.pathsep)
    path = os.pathsep.join(one for one in places if one != here)
    if found := shutil.which("configurable-http-proxy", path=path):
        return found
    raise SettingsError(
        "certificate: https needs the proxy in Node.js, and it is not installed: type "
        '"npm install -g configurable-http-proxy", or leave certificate and key out.'
    )


def new_password() -> str:
    """Return a password that can be read aloud: no letter looks like another.

    Example:
        new_password()      # 'tuvo-nabe-diku'
    """

    def syllable() -> str:
        return secrets.choice("bdfgkmnprstvz") + secrets.choice("aeiou")

    return "-".join(syllable() + syllable() for _ in range(3))


def _mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds names and values."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML: {error}") from error
    if said is not None and not isinstance(said, dict):
        raise SettingsError(f'{path}: write one "name: value" a line.')
    return said or {}


def _typed(path: Path, name: str, value: Any) -> Any:
    """Return a value in the type of its setting."""
    kind = type(getattr(Settings, name, {}))
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list):
        return tuple(map(str, value))
    if kind is dict and isinstance(value, dict):
        return {str(key): str(one) for key, one in value.items()}
    if type(value) is kind:
        return value
    wanted = {
        float: "a number", int: "a whole number",
        str: "text, in quotes if it is digits",
        tuple: "a list such as [one, two]", dict: "names and values",
    }[kind]  # fmt: skip
    raise SettingsError(f"{path}: {name} is {value!r}, and must be {wanted}.")


def _problems(settings: Settings):
    """Yield a sentence for each setting that cannot be used."""
    for name, options in (("login", LOGINS), ("spawner", SPAWNERS)):
        value = getattr(settings, name)
        if value not in options:
            near = suggest(value, options)
            yield f'{name} "{value}" is not one of {", ".join(options)}.{near}'
    yield from _login_problems(settings)
    for name in ("memory_gb", "cpus", "idle_minutes"):
        if (value := getattr(settings, name)) <= 0:
            yield f"{name} is {value:g}: give more than 0."
    if not 1024 <= settings.port <= 65533 and settings.port not in (80, 443):
        yield f"port is {settings.port}: give 80, 443, or one from 1024 to 65533."
    if bool(settings.certificate) != bool(settings.key):
        yield "certificate and key belong together: give both, or none."
    for name in ("certificate", "key"):
        file = settings.path(getattr(settings, name))
        if file and not Path(file).is_file():
            yield f"{name}: there is no file {file}."
    for name in settings.hand_out:
        if not (ROOT / name).is_dir():
            yield f'hand_out: the course has no folder "{name}".'
    if not (ROOT / settings.lesson).is_file():
        yield f'lesson: the course has no file "{settings.lesson}".'


def _login_problems(settings: Settings):
    """Yield what is wrong with names and passwords."""
    if settings.login == "names":
        command = 'type "python -m workshop.hub passwords NAME ..."'
        if not settings.learners:
            yield f"login is names, and there are no learners: {command}."
        for name in settings.teachers:
            if name not in settings.learners:
                yield f'the teacher "{name}" has no password: {command}.'
        return
    if len(settings.password) < SHORTEST:
        yield f"password has {len(settings.password)} letters: give {SHORTEST} or more."
    length = len(settings.teacher_password)
    if settings.teachers and length < SHORTEST_OF_TEACHER:
        yield (
            f"teacher_password has {length} letters: give {SHORTEST_OF_TEACHER} or "
            "more, since it opens everybody's server."
        )
