"""Who asks a service, and how much of it a key may use."""

import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_course.cleaning import Refused
from qwen_course.messages import ROLES

_KEY = re.compile(r"qc-([a-z0-9_]{1,32})-[0-9a-f]{64}")
_NOBODY = "0" * 64  # what the key of an unknown name is compared with


@dataclass(frozen=True)
class Key:
    """What is kept of an API key: a hash, and what its owner may do.

    `roles` are those that its owner may speak as: a person at a browser as "user"
    alone, a program of yours as all of `messages.ROLES`. `requests` and `tokens` are
    rates in the words of the package limits; `at_once` counts open requests, those of
    one process; `expires` is a time of `time.time()`.
    """

    id: str
    sha256: str
    roles: tuple[str, ...] = ("user",)
    requests: str = "60/minute"
    tokens: str = "100000/hour"
    at_once: int = 4
    expires: float | None = None

    def __post_init__(self) -> None:
        for role in self.roles:
            if role not in ROLES:
                raise ValueError(f'"{role}" is no role; there are {", ".join(ROLES)}.')
        rates(self.requests), rates(self.tokens)


class ApiKeys:
    """The keys of a service. A key itself is shown once, and only its hash is kept.

    A hash without salt is enough: nobody guesses 256 random bits. (A password would
    need a slow one.)

    >>> keys = ApiKeys()
    >>> secret = keys.add("ada")
    >>> keys.find(secret).id, keys.find(secret[:-1])
    ('ada', None)
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = {key.id: key for key in keys}

    def add(self, id: str, **settings: Any) -> str:
        """Make a key and return it; `settings` are fields of `Key`.

        Raises ValueError for a name that is taken or cannot stand in a key, and for an
        unknown role or rate.
        """
        secret = f"qc-{id}-{secrets.token_hex(32)}"
        if not _KEY.fullmatch(secret):
            raise ValueError(f"{id!r} is no name for a key: use a to z, 0 to 9 and _.")
        if id in self._keys:
            raise ValueError(f'there is a key "{id}". Remove it first: remove("{id}").')
        self._keys[id] = Key(id, _sha256(secret), **settings)
        return secret

    def remove(self, id: str) -> None:
        """Forget a key: it opens nothing from now on."""
        self._keys.pop(id, None)

    def get(self, id: str) -> Key:
        """Return what is kept of a key, or refuse: it was removed a moment ago."""
        if id not in self._keys:
            raise Refused("The key was removed.", "Ask for a new one.", 401, "no-key")
        return self._keys[id]

    def find(self, presented: str) -> Key | None:
        """Return the key that was presented, None if it is none of ours, or expired.

        The comparison takes as long for a key that is nearly right, and for a name that
        does not exist, as for any other.
        """
        match = _KEY.fullmatch(presented) if len(presented) < 200 else None
        key = self._keys.get(match[1]) if match else None
        stored = key.sha256 if key else _NOBODY
        right = hmac.compare_digest(_sha256(presented), stored)
        valid = key is not None and (key.expires is None or time.time() < key.expires)
        return key if right and valid else None

    def save(self, path: str | Path) -> None:
        """Write hashes and settings as JSON into a file that only you may read."""
        rows = [dataclasses.asdict(key) for key in self._keys.values()]
        # subtle: a file that is made first and closed to others later was open once.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            os.chmod(path, 0o600)  # it may have been there before, open to all
            json.dump(rows, file, indent=1)

    @classmethod
    def read(cls, path: str | Path) -> "ApiKeys":
        """Read what `save` wrote; raise ValueError for any other file."""
        try:
            rows = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(Key(**{**row, "roles": tuple(row["roles"])}) for row in rows)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} holds no API keys ({error}). Write it with ApiKeys.save."
            ) from error


def _sha256(text: str) -> str:
    # subtle: a header may hold half of a character; it must not crash the comparison.
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


class Meter:
    """Counts what each key uses, against its rates.

    `store` is "memory://", or "redis://host" where several processes count together.
    Raises ImportError when the package limits is missing.
    """

    def __init__(self, store: str = "memory://") -> None:
        need()
        from limits.storage import storage_from_string
        from limits.strategies import SlidingWindowCounterRateLimiter

        # Counters: a moving window would keep an entry for each single token.
        self._limiter = SlidingWindowCounterRateLimiter(storage_from_string(store))
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def use(self, rate: str, what: str, whose: str, cost: int = 1) -> int:
        """Count a use; return 0, or how many seconds to wait where it was too much."""
        for one in rates(rate):
            if not self._limiter.hit(one, what, whose, cost=cost):
                stats = self._limiter.get_window_stats(one, what, whose)
                return max(1, round(stats.reset_time - time.time()))
        return 0

    @contextlib.contextmanager
    def place(self, key: Key) -> Iterator[None]:
        """Hold one of a key's places while a request runs, or refuse with 429."""
        with self._lock:
            if self._open[key.id] >= key.at_once:
                raise Refused(
                    f"The key has {key.at_once} requests open, and may not have more.",
                    "Wait until one has ended.", 429, "at-once", 1,
                )  # fmt: skip
            self._open[key.id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[key.id] -= 1


def need() -> None:
    """Raise ImportError, with what to type, when the package limits is missing."""
    try:
        import limits  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "keys and rates need the package limits, not installed here. "
            "Type: python -m pip install limits"
        ) from error


def rates(text: str) -> list[Any]:
    """Return the rates in a text such as "60/minute; 1000/day".

    Raises ValueError when it holds none.
    """
    need()
    from limits import parse_many

    try:
        return parse_many(text)
    except ValueError as error:
        raise ValueError(
            f'"{text}" is no rate. Write "60/minute", or "60/minute; 1000/day".'
        ) from error
