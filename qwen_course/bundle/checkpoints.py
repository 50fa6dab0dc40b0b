"""The real checkpoints in a bundle: a Hub cache, for a set-up without a network."""

import json
from pathlib import Path

from qwen_course.bundle.folder import HUB, Bundle, BundleError, files_in, replace_text
from qwen_course.platforms.hub_sources import COMMIT, HuggingFace
from qwen_course.platforms.hubs import RECORD
from qwen_course.platforms.hubs import fetch as fetch_checkpoint


def add_checkpoints(made: Bundle, named: list[str], mirror: str | None) -> None:
    """Fetch the named checkpoints, and remove those that are no longer named."""
    models = [add_checkpoint(made, one, mirror) for one in named]
    pins = made.about["checkpoints"]
    made.about["checkpoints"] = {model: pins[model] for model in models}
    homes = {_home(model) for model in models}
    kept = {path for path in made.under(HUB) if path.split("/")[1] in homes}
    made.keep_only(HUB, kept)
    made.save()


def add_checkpoint(made: Bundle, named: str, mirror: str | None) -> str:
    """Fetch ID or ID@COMMIT into a Hub cache that needs no links; return the ID.

    A stick knows no links; the Hub's packages read a cache of plain files as well.
    """
    model, _, commit = named.partition("@")
    commit = commit or made.about["checkpoints"].get(model, "")
    if not COMMIT.fullmatch(commit):
        source = HuggingFace(model, commit or None, mirror, None)
        try:
            commit = source.listing().commit
        except source.errors() as error:
            raise BundleError(source.sentence(error)) from error
        print(f"{model} is at commit {commit} today.", flush=True)
    home = f"{HUB}/{_home(model)}"
    snapshot = made.folder / home / "snapshots" / commit
    made.about["checkpoints"][model] = commit
    made.save()
    if not _is_whole(made, snapshot):
        print(f"Fetching {model} ...", flush=True)
        print(fetch_checkpoint(model, revision=commit, folder=snapshot, mirror=mirror))
    reference = made.folder / home / "refs" / "main"
    reference.parent.mkdir(parents=True, exist_ok=True)
    replace_text(reference, commit)
    for file in files_in(made.folder / home):
        made.add(file.relative_to(made.folder).as_posix())
    made.save()
    return model


def _home(model: str) -> str:
    """Return the folder of a model in a Hub cache.

    >>> _home("Qwen/Qwen3-0.6B")
    'models--Qwen--Qwen3-0.6B'
    """
    return f"models--{model.replace('/', '--')}"


def _is_whole(made: Bundle, snapshot: Path) -> bool:
    """Say whether every file of a fetched checkpoint is among the finished ones."""
    record = snapshot / RECORD
    if not record.exists():
        return False
    files = json.loads(record.read_text("utf-8"))["files"]
    paths = [snapshot / file["path"] for file in files]
    return all(path.relative_to(made.folder).as_posix() in made.sums for path in paths)
