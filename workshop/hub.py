"""Start the workshop's JupyterHub, or do what a teacher needs beside it.

    python -m workshop.hub                       start it, with first settings if needed
    python -m workshop.hub publish               hand out what changed in the course
    python -m workshop.hub passwords ada grace   a password for each name, for slips
    python -m workshop.hub collect handed-in     copy everybody's exercises, to grade

Everything it keeps is in one folder, ~/qwen-workshop, or the one that --folder names.
"""

import argparse
import compileall
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from qwen_course.exercises.sharing import own_address
from workshop.jupyterhub import handout, settings

CONFIG = settings.ROOT / "workshop" / "jupyterhub" / "jupyterhub_config.py"
HOSTS = ("", "127.0.0.1", "127.0.0.1")  # of its ports: as the settings say, and here


def main(words: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("~/qwen-workshop"))
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("start", help="start the hub (also without a word)")
    commands.add_parser("publish", help="hand out what changed in the course")
    passwords = commands.add_parser("passwords", help="a password for each name")
    passwords.add_argument("names", nargs="+", metavar="NAME")
    collected = commands.add_parser("collect", help="copy everybody's exercises")
    collected.add_argument("out", type=Path, metavar="FOLDER")
    options = parser.parse_args(words)
    folder = options.folder.expanduser().resolve()
    try:
        if options.command == "passwords":
            return give(folder, options.names)
        if options.command == "publish":
            return publish(settings.read(folder))
        if options.command == "collect":
            return collect(settings.read(folder), options.out)
        return start(folder)
    except (settings.SettingsError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1


def give(folder: Path, names: list[str]) -> int:
    """Print a new password for each name."""
    from workshop.jupyterhub.names import give_passwords

    folder.mkdir(parents=True, exist_ok=True)
    for name, password in give_passwords(folder, names).items():
        print(f"{name:20} {password}")
    print("Passwords are kept hashed: print these slips now. Then start the hub again.")
    return 0


def publish(room: settings.Settings) -> int:
    """Bring the handout up to date, and say how it reaches those who are at work."""
    if not handout.publish(room):
        print("Nothing has changed since the last time.")
        return 0
    print(
        "Handed out. Who logs in gets it; who is at work opens\n"
        f"    {address(room)}/hub/user-redirect{handout.pull_path(room)}"
    )
    return 0


def collect(room: settings.Settings, out: Path) -> int:
    """Copy each learner's exercises to a folder of that name, as the grader asks."""
    number = 0
    for name, home in room.homes_now().items():
        exercises = home / handout.TARGET / "exercises"
        if exercises.is_dir():
            shutil.copytree(
                exercises, out / name, dirs_exist_ok=True, ignore=handout.NEVER
            )
            number += 1
    print(f"{number} learners. Now type: qwen-course grade {out}")
    return 0


def check_ports(room: settings.Settings) -> None:
    """Raise SettingsError when another program listens on a port of the hub's."""
    for port, host in zip(range(room.port, room.port + 3), HOSTS, strict=True):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host or room.address, port))
            except PermissionError as error:
                raise settings.SettingsError(
                    f"port {port} is kept for root: take 8000, or type sudo."
                ) from error
            except OSError as error:
                raise settings.SettingsError(
                    f"port {port} of {host or room.address} cannot be had "
                    f"({error.strerror}): wait 15 seconds if a hub has just stopped, "
                    "else change address or port in the settings. The hub needs three "
                    "ports in a row."
                ) from error


def start(folder: Path) -> int:
    """Prepare the folder and run the hub until Ctrl-C."""
    if not (folder / settings.FILE).is_file():
        print(f"Wrote first settings: {settings.write_first(folder)}")
    room = settings.read(folder)
    check_ports(room)
    prepare(room)
    print(f"Learners open {address(room)}")
    if room.login == "shared":
        print(f"Any first name, and the password {room.password}", flush=True)
    os.environ[settings.FOLDER_VARIABLE] = str(folder)
    os.chdir(folder)
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # see seat.py
    from jupyterhub.app import main as run

    run(["--config", str(CONFIG)])
    return 0


def prepare(room: settings.Settings) -> None:
    """Do once what every learner's server would else do for itself."""
    handout.publish(room)
    room.homes.mkdir(exist_ok=True)
    (room.folder / "jupyterhub.sqlite").touch(mode=0o600)  # it knows who is logged in
    compileall.compile_dir(settings.ROOT / "qwen_course", quiet=2)
    if not (room.folder / "fonts").is_dir():
        environment = {**os.environ, "MPLCONFIGDIR": str(room.folder / "fonts")}
        command = [sys.executable, "-c", "import matplotlib.font_manager"]
        subprocess.run(command, env=environment, check=True)


def address(room: settings.Settings) -> str:
    """Return the address that learners type."""
    scheme, usual = ("https", 443) if room.certificate else ("http", 80)
    host = room.address
    if host in ("0.0.0.0", ""):
        host = own_address() or "127.0.0.1"
    return f"{scheme}://{host}" + (f":{room.port}" if room.port != usual else "")


if __name__ == "__main__":
    sys.exit(main())
