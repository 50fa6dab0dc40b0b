"""JupyterHub's configuration for one machine: `python -m workshop.hub` starts it.

What a teacher chooses is in workshop.yaml (settings.py); here it becomes JupyterHub's.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from workshop.jupyterhub import accounts, handout, settings  # noqa: E402

HERE = ROOT / "workshop" / "jupyterhub"
MINUTE, GIB = 60, 2**30

room = settings.read(Path(os.environ[settings.FOLDER_VARIABLE]))
c = get_config()  # type: ignore[name-defined]  # noqa: F821 (JupyterHub gives it)

# Where it listens. Learners see one port; the two after it are for this computer alone.
scheme = "https" if room.certificate else "http"
c.JupyterHub.bind_url = f"{scheme}://{room.address}:{room.port}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{room.port + 2}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{room.port + 1}"
c.ConfigurableHTTPProxy.command = [sys.executable, "-P", str(HERE / "proxy.py")]
if room.certificate:  # the proxy in Python has no TLS, the one in Node.js has
    c.ConfigurableHTTPProxy.command = [settings.node_proxy()]
    c.JupyterHub.ssl_cert = room.path(room.certificate)
    c.JupyterHub.ssl_key = room.path(room.key)
c.JupyterHub.db_url = f"sqlite:///{room.folder / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(room.folder / "cookie_secret")

# Who may come in. A name becomes a folder, so it holds nothing that a path would.
c.Authenticator.username_pattern = r"[a-z0-9][a-z0-9_.-]{0,23}"
c.Authenticator.admin_users = set(room.teachers)
if room.login == "shared":
    c.JupyterHub.authenticator_class = "shared-password"
    c.SharedPasswordAuthenticator.user_password = room.password
    c.SharedPasswordAuthenticator.admin_password = room.teacher_password
    c.Authenticator.allow_all = True
    hint = "Type your first name, and the password on the board."
else:
    c.JupyterHub.authenticator_class = "workshop.jupyterhub.names.NamesAuthenticator"
    c.NamesAuthenticator.passwords = room.learners
    c.Authenticator.allowed_users = set(room.learners)
    hint = "Type the name and the password on your slip of paper."
c.JupyterHub.template_vars = {"announcement_login": hint}

# What a learner gets: the course's own Python, a home, the lessons pulled and opened.
c.Spawner.cmd = [sys.executable, "-P", str(HERE / "seat.py")]
c.Spawner.args = ["--ServerApp.root_dir=~"]
c.Spawner.default_url = handout.pull_path(room)
c.Spawner.environment = {
    "JUPYTER_CONFIG_PATH": str(HERE / "config"),
    "GIT_CONFIG_SYSTEM": str(HERE / "config" / "gitconfig"),
    "QWEN_COURSE_FONTS": str(room.folder / "fonts"),
    "JUPYTER_PATH": str(HERE / "config"),
    "QWEN_COURSE_WARM": str(room.folder / "warm"),
    "QWEN_COURSE_MODEL": room.model,
    "OMP_NUM_THREADS": str(max(1, int(room.cpus))),
    "TOKENIZERS_PARALLELISM": "false",
    **room.environment,
}

# Thirty who start at once on two cores wait for each other, and that is no failure.
c.Spawner.start_timeout = c.Spawner.http_timeout = 5 * MINUTE
c.Spawner.mem_limit = int(room.memory_gb * GIB)
c.Spawner.cpu_limit = room.cpus
if room.spawner == "simple":
    c.JupyterHub.spawner_class = "simple"
    c.SimpleLocalProcessSpawner.home_dir_template = str(room.homes / "{username}")
    # One account, so one place for models: what the teacher downloads is there for all.
    models = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    c.Spawner.environment.setdefault("HF_HOME", models)
    if os.geteuid() == 0:
        c.Spawner.args += ["--allow-root"]
else:
    c.JupyterHub.spawner_class = "systemdspawner.SystemdSpawner"
    c.SystemdSpawner.username_template = settings.PREFIX + "{USERNAME}"
    c.SystemdSpawner.isolate_tmp = True
    c.SystemdSpawner.isolate_devices = True
    c.Spawner.pre_spawn_hook = accounts.ensure_account

# A server that nobody uses gives its memory back.
c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [
            *(sys.executable, "-m", "jupyterhub_idle_culler"),
            f"--timeout={int(room.idle_minutes * MINUTE)}",
        ],
    }
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "services": ["idle-culler"],
        "scopes": [
            *("list:users", "read:users:activity", "read:servers", "delete:servers"),
        ],
    }
]

# Kernels that are ready before they are asked for: where all share one account.
if room.spawner == "simple":
    c.JupyterHub.services += [
        {
            "name": "warm-kernels",
            "command": [
                *(sys.executable, "-P", str(HERE / "seat.py"), str(HERE / "warm.py")),
                str(room.folder / "warm"),
            ],
            "environment": {
                **c.Spawner.environment,
                "MEM_LIMIT": str(c.Spawner.mem_limit),
                "MPLCONFIGDIR": str(room.folder / "fonts"),
            },
        }
    ]
