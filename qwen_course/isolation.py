"""What every run of foreign code starts from: namespaces, and an empty environment.

`exercises.sandbox` runs whole notebooks of learners with it, `sandbox` functions that
a model wrote.
"""

import functools
import os
import shutil
import subprocess
import sys

# Of the environment, only where the system and its libraries are: no token, no key.
KEPT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT")


@functools.cache
def namespaces() -> tuple[str, ...]:
    """Return the command that gives a process namespaces of its own, or ().

    In them it has no network, sees no other process, and all that it starts ends with
    it. Only Linux has them, and not for everybody.
    """
    if sys.platform != "linux" or not shutil.which("unshare"):
        return ()
    for options in ("-rnmp", "-nmp"):  # as any user where that is allowed; as root
        command = ("unshare", options, "--fork", "--kill-child", "--mount-proc")
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return ()


def bare_environment(folder: str, also: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the variables of a process whose home and temporary folder is `folder`.

    `also` names variables that it may see besides KEPT.
    """
    kept = {name: os.environ[name] for name in (*KEPT, *also) if name in os.environ}
    return kept | dict.fromkeys(
        ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), folder
    )
