"""More than one machine: the same server as replicas of Ray Serve.

Ray starts the replicas, on this machine or on all of a cluster, shares the requests out
among them, and starts one again that has died. A request that was in it is answered by
another when its client sends it again, which the official client does by itself.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

INSTALL = 'Type: python -m pip install "qwen-course[replicas]"'


def why_not() -> str | None:
    """Return why replicas cannot run here, and what to type; None if they can."""
    if importlib.util.find_spec("ray") is None:
        return f"replicas need the package ray, which is not installed here. {INSTALL}"
    return None


def application(model: str = "pocket-qwen3", replicas: int = 2, **limits: Any) -> Any:
    """Return the deployment: `replicas` servers, each with the model of that name.

    `limits` are those of `QwenService`. Raises ImportError where Ray is missing.
    """
    if reason := why_not():
        raise ImportError(reason)
    from ray import serve

    @serve.deployment(
        name="qwen",
        num_replicas=replicas,
        max_ongoing_requests=limits.get("max_waiting", 64)
        + limits.get("max_batch", 16),
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=2,
    )
    @serve.ingress()
    class Replica:
        def __init__(self) -> None:
            import qwen_course as qc
            from qwen_course.service import QwenService

            self.service = QwenService(*qc.load(model), **limits)

        def __serve_build_asgi_app__(self) -> Any:
            from qwen_course.server import create_app

            return create_app(self.service)

        def check_health(self) -> None:
            if self.service.closed:
                raise RuntimeError(
                    "the service is closed. "
                    "Start a new one: QwenService(model, tokenizer)."
                )

        def __del__(self) -> None:  # Ray calls it when no request is left
            self.service.close()

    return Replica.bind()  # type: ignore[attr-defined]


@contextlib.contextmanager
def running(
    model: str = "pocket-qwen3", replicas: int = 2, port: int = 8000, **limits: Any
) -> Iterator[str]:
    """Run replicas on this machine while the block runs; yields the address.

    Example:
        with replicas.running(replicas=2) as address:
            model, tokenizer = qc.load(address)
    """
    deployment = application(model, replicas, **limits)
    import ray
    from ray import serve

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent
    ray.init(
        num_cpus=replicas, include_dashboard=False, log_to_driver=False,
        object_store_memory=10**8,
    )  # fmt: skip
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(deployment, name="qwen-course", route_prefix="/")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        serve.shutdown()
        ray.shutdown()


def processes() -> list[int]:
    """Return the process ids of the replicas that run on this machine."""
    import psutil

    names = {one.info["pid"]: " ".join(one.info["cmdline"] or ())
             for one in psutil.process_iter(["pid", "cmdline"])}  # fmt: skip
    return [pid for pid, name in names.items() if name.startswith("ray::ServeReplica")]
