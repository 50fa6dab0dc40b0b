"""Log in as a named learner, with a password of your own."""

from pathlib import Path

import yaml
from jupyter_server.auth.security import passwd, passwd_check
from jupyterhub.auth import Authenticator
from traitlets import Dict

from workshop.jupyterhub.settings import LEARNERS_FILE, new_password, read_learners


class NamesAuthenticator(Authenticator):
    """Let in who is in `passwords`: names, and passwords hashed by Jupyter Server."""

    passwords = Dict(config=True, help="The hashed password of each name.")

    async def authenticate(self, handler, data) -> str | None:
        """Return the learner's name, or None when name and password do not fit."""
        name = self.normalize_username(data["username"])
        hashed = self.passwords.get(name)
        return name if hashed and passwd_check(hashed, data["password"]) else None


def give_passwords(folder: Path, names: list[str]) -> dict[str, str]:
    """Give each name a new password; return them, and keep only their hashes."""
    given = {name.lower(): new_password() for name in names}
    hashes = read_learners(folder) | {
        name: passwd(password) for name, password in given.items()
    }
    path = folder / LEARNERS_FILE
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(hashes), encoding="utf-8")
    return given
