"""The hubs as sources: what each offers, loads, and says when it fails."""

import errno
import fnmatch
import functools
import re
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qwen_course.safe_files import SAFE_FILES

WAITS = (1.0, 3.0, 9.0)  # seconds before a request is repeated that the server refused
COMMIT = re.compile(r"[0-9a-f]{40}")
_AGAIN = "type the same command again: it goes on where it stopped."


class FetchError(OSError):
    """A checkpoint was not fetched; the text says why and what to do."""


@dataclass(frozen=True)
class HubFile:
    """A file as a hub states it: its path, bytes and hashes.

    The Hugging Face Hub states a SHA-256 of large files alone; of the others, what git
    calls them: a SHA-1 of their length and content.
    """

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a hub offers at one commit: the files to fetch, and those left out."""

    commit: str
    files: tuple[HubFile, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class HuggingFace:
    """A checkpoint on the Hugging Face Hub, or on a mirror that speaks like it."""

    name = "the Hugging Face Hub"
    log_in = "hf auth login"

    def __init__(
        self, model: str, revision: str | None, mirror: str | None, token: str | None
    ) -> None:
        self.model, self.revision, self.mirror = model, revision, mirror
        # A mirror is somebody else's computer: the stored token is not for it.
        self.token: str | bool | None = token or (False if mirror else None)

    def errors(self) -> tuple[type[Exception], ...]:
        """Return what its package raises when a hub, a network or a disk fails."""
        from huggingface_hub.errors import HfHubHTTPError

        client = HfHubHTTPError.__mro__[1]  # HTTPError of httpx, or of httpx2
        return (OSError, client)

    def listing(self) -> Listing:
        """Ask what the files are at the revision, and which commit that is."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.mirror, token=self.token)
        info = _patiently(
            lambda: api.model_info(
                self.model, revision=self.revision, files_metadata=True
            )
        )
        pinned = COMMIT.fullmatch(self.revision or "")
        if pinned and info.sha != self.revision:
            raise FetchError(
                f"{self.mirror or self.name} answers with commit {info.sha} where "
                f"{self.revision} was asked for. Take another mirror."
            )
        files = [
            HubFile(
                entry.rfilename,
                entry.lfs.size if entry.lfs else entry.size,
                sha256=entry.lfs.sha256 if entry.lfs else None,
                git_sha1=None if entry.lfs else entry.blob_id,
            )
            for entry in info.siblings
        ]
        moves = _moves(self.revision or "main", info.sha)
        return _listing(info.sha, files, () if pinned else (moves,))

    def load(self, listing: Listing, folder: Path | None) -> Path:
        """Load the files that are not there; return the folder that has them."""
        if folder is None:
            return self._to_cache(listing)
        for file in listing.files:
            if not (folder / file.path).exists():
                _patiently(functools.partial(self._to_folder, listing, file, folder))
        return folder

    def _to_cache(self, listing: Listing) -> Path:
        from huggingface_hub import snapshot_download

        path = _patiently(
            lambda: snapshot_download(
                self.model,
                revision=self.revision,  # its name too is kept, for offline use
                allow_patterns=[file.path for file in listing.files],
                endpoint=self.mirror,
                token=self.token,
            )
        )
        if Path(path).name != listing.commit:
            raise FetchError(f"{self.model} changed while it was fetched. Try again.")
        return Path(path)

    def _to_folder(self, listing: Listing, file: HubFile, folder: Path) -> None:
        """Load one file, from where an earlier call stopped.

        `snapshot_download` would begin the file again: what it has of it when it stops
        is deleted, so that two processes never write into one file.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        goal = folder / file.path
        part = goal.with_name(f"{goal.name}.{short(file)}.part")
        goal.parent.mkdir(parents=True, exist_ok=True)
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        url = hf_hub_url(
            self.model, file.path, revision=listing.commit, endpoint=self.mirror
        )
        headers = build_hf_headers(token=self.token)
        with part.open("ab") as out:
            http_get(
                url, out, resume_size=out.tell(), headers=headers,
                expected_size=file.size, displayed_filename=file.path,
            )  # fmt: skip
        part.replace(goal)

    def in_cache(self, error: Exception) -> Path | None:
        """Return where an earlier fetch left its files, if the hub cannot be asked."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        refused = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
        if refused or isinstance(error, FetchError):
            return None
        try:
            return Path(
                snapshot_download(
                    self.model,
                    revision=self.revision,
                    allow_patterns=list(SAFE_FILES),
                    local_files_only=True,
                )
            )
        except LocalEntryNotFoundError:
            return None

    def sentence(self, error: Exception) -> str:
        """Say what failed and what to do about it."""
        from huggingface_hub import errors

        if isinstance(error, FetchError):
            return str(error)
        if isinstance(error, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so nothing is asked for. Unset it to fetch."
        if isinstance(error, errors.GatedRepoError):
            return _gated(self, "huggingface.co/" + self.model)
        if isinstance(error, errors.RevisionNotFoundError):
            return _no_revision(self)
        if isinstance(error, errors.RepositoryNotFoundError):
            return _no_model(self)
        return _broken(self, error)


class ModelScope:
    """A checkpoint on ModelScope. Its package goes on inside files and checks them."""

    name = "ModelScope"
    log_in = "modelscope login"

    def __init__(
        self, model: str, revision: str | None, mirror: str | None, token: str | None
    ) -> None:
        self.model, self.revision, self.mirror = model, revision, mirror
        self.token = token or ("" if mirror else None)
        self._entries: list[dict[str, Any]] = []

    def errors(self) -> tuple[type[Exception], ...]:
        """Return what its package raises when a hub, a network or a disk fails."""
        from modelscope_hub.errors import HubError

        return (OSError, HubError)

    @functools.cached_property
    def _api(self) -> Any:
        from modelscope_hub import HubApi

        api = HubApi(endpoint=self.mirror, token=self.token)
        if self.mirror:
            return api
        # There are two sites, .cn and .ai: the one that has the model.
        address = api.resolve_endpoint_for_read(self.model)
        return HubApi(endpoint=address, token=self.token)

    def listing(self) -> Listing:
        """Ask what the files are at the revision; a wrong one is told by no files."""
        revision = self.revision or "master"
        found = self._api.legacy.list_repo_files(self.model, "model", revision)
        entries = [entry for entry in found if entry.get("Type") != "tree"]
        if not entries:
            revisions = self._api.list_repo_revisions(self.model, "model")
            names = [one.get("Revision") for one in revisions]
            raise FetchError(
                f"{self.name} shows no files of {self.model} at revision {revision}. "
                f"It has: {', '.join(map(str, names)) or 'none'}."
            )
        files = [
            HubFile(entry["Path"], entry["Size"], entry.get("Sha256") or None)
            for entry in entries
        ]
        if bare := [file.path for file in files if not file.sha256]:
            raise FetchError(f"{self.name} states no SHA-256 of {', '.join(bare)}.")
        self._entries = entries
        newest = max(entries, key=lambda entry: entry.get("CommittedDate") or 0)
        commit = newest.get("Revision") or revision
        pinned = COMMIT.fullmatch(revision)
        notes = () if pinned else (_moves(revision, commit),)
        return _listing(revision if pinned else commit, files, notes)

    def load(self, listing: Listing, folder: Path | None) -> Path:
        """Load the files that are not there; return the folder that has them."""
        wanted = {file.path for file in listing.files}
        return self._api.download_repo(
            self.model,
            "model",
            revision=self.revision or "master",
            local_dir=folder,
            file_list=[entry for entry in self._entries if entry["Path"] in wanted],
        )

    def in_cache(self, error: Exception) -> Path | None:
        """Return None: the names in ModelScope's cache do not say what a file is."""
        return None

    def sentence(self, error: Exception) -> str:
        """Say what failed and what to do about it."""
        from modelscope_hub import errors

        if isinstance(error, FetchError):
            return str(error)
        failed = getattr(error, "failed_files", None)
        if failed:
            path, error = next(iter(failed.items()))
            if isinstance(error, errors.FileIntegrityError):
                return wrong_bytes(self, [path])
        if isinstance(error, errors.PermissionDeniedError):
            return _gated(self, "modelscope.cn/models/" + self.model)
        if isinstance(error, errors.NotExistError | errors.AuthenticationError):
            return _no_model(self)
        return _broken(self, error)


Source = HuggingFace | ModelScope
SOURCES: dict[str, type[HuggingFace] | type[ModelScope]] = {
    "huggingface": HuggingFace,
    "modelscope": ModelScope,
}


def _listing(
    commit: str, offered: Sequence[HubFile], notes: tuple[str, ...]
) -> Listing:
    """Keep the files that are data; raise for a path that leaves the folder."""
    files = [file for file in offered if _is_safe(file.path)]
    left_out = tuple(file.path for file in offered if file not in files)
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\\" in file.path:
            raise ValueError(f"The hub offers {file.path}, outside of the folder.")
    if left_out:
        notes += (f"Not fetched, as they are not known to be data: {left_out}.",)
    return Listing(commit, tuple(files), left_out, notes)


def _is_safe(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in SAFE_FILES)


def short(file: HubFile) -> str:
    return (file.sha256 or file.git_sha1 or "")[:12]


def _patiently(call: Callable[[], Any]) -> Any:
    """Call again where the server refuses for the moment (status 500 and over)."""
    from huggingface_hub.errors import HfHubHTTPError

    for wait in WAITS:
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
        time.sleep(wait)
    return call()


def _moves(revision: str, commit: str) -> str:
    return (
        f"{revision} can move: today it is {commit}. To get these same files again, "
        f"give that as the revision."
    )


def _gated(source: "Source", page: str) -> str:
    return (
        f"{source.model} is given only to those who accept its terms: do so at {page}, "
        f"then type {source.log_in}."
    )


def _no_model(source: "Source") -> str:
    return (
        f"{source.mirror or source.name} has no {source.model}, or it is private. "
        f"Check the name; for a private one type {source.log_in} first."
    )


def _no_revision(source: "Source") -> str:
    return (
        f"{source.mirror or source.name} has no revision {source.revision} of "
        f'{source.model}. Its page lists them under "Files and versions".'
    )


def wrong_bytes(source: "Source", paths: Sequence[str]) -> str:
    return (
        f"{', '.join(paths)} came with other bytes than {source.mirror or source.name} "
        "states, each time, and was removed. Something on the way changes files: try "
        "another network or another mirror."
    )


def _broken(source: "Source", error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full. Make room, then {_AGAIN}"
    why = str(error).partition("\n")[0].strip() or type(error).__name__
    return (
        f"{source.mirror or source.name} did not give all files. Check the network, "
        f"then {_AGAIN} ({textwrap.shorten(why, 120)})"
    )
