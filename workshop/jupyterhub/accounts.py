"""An account of the operating system for each learner, for the spawner "systemd"."""

import pwd
import subprocess
from typing import Any

from workshop.jupyterhub.settings import PREFIX


def ensure_account(spawner: Any) -> None:
    """Make the learner's account and home where there is none: a `pre_spawn_hook`.

    Raises RuntimeError, with what useradd said, when that fails.
    """
    name = PREFIX + spawner.user.name
    if name in {one.pw_name for one in pwd.getpwall()}:
        return
    words = ["useradd", "--create-home", "--key", "HOME_MODE=0700", name]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"useradd made no account {name} ({done.stderr.strip()}): "
            "the spawner systemd needs a hub that runs as root."
        )
