"""A hub on this machine that speaks like two real ones, and fails as it is told.

`Hub` answers in the form of the Hugging Face Hub and in that of ModelScope: the lists
of files with their hashes, the files, ranges of them. Its faults are those of networks.
"""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"
LATER = "decade" + 34 * "0"
LARGE = (".safetensors",)  # kept outside of git: its SHA-256 is stated, it redirects


@dataclass
class Fault:
    """What happens to the next `times` answers with a file."""

    breaks_after: int | None = None  # bytes, then the connection is closed
    stalls_after: int | None = None  # bytes, then nothing for `seconds`
    seconds: float = 1.0
    wrong_byte: int | None = None  # this byte of the file is another one
    status: int | None = None
    times: int = 1
    then: "Fault | None" = None


@dataclass
class Hub:
    """Serve a model's files; use it with `with`. Counts the bytes that it sent."""

    files: Mapping[str, bytes]
    model: str = "course/pocket-qwen3"
    commit: str = COMMIT
    gated: bool = False
    lies_about: str | None = None  # a file whose stated hash is of other bytes
    faults: dict[str, Fault] = field(default_factory=dict)
    listing_fault: Fault | None = None
    sent: Counter[str] = field(default_factory=Counter)
    ranges: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[tuple[str, str | None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, args=(0.01,), daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def sha256(self, path: str) -> str:
        content = b"others" if path == self.lies_about else self.files[path]
        return hashlib.sha256(content).hexdigest()

    def git_sha1(self, path: str) -> str:
        content = self.files[path]
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        self.hub.tokens.append((path, self.headers.get("Authorization")))
        model = self.hub.model
        if path.startswith("/cdn/"):
            self._file(path.removeprefix("/cdn/"))
        elif path.startswith("/api/v1/"):
            self._modelscope(path.removeprefix(f"/api/v1/models/{model}/"), query)
        elif path.startswith(f"/api/models/{model}"):
            self._hf_list(path.removeprefix(f"/api/models/{model}"))
        elif path.startswith(f"/{model}/resolve/"):
            self._hf_file(*path.removeprefix(f"/{model}/resolve/").split("/", 1))
        else:
            self._error(401 if path.startswith("/api/models/") else 404, "RepoNotFound")

    def _hf_list(self, rest: str) -> None:
        if self._listing_fails():
            return
        if self.hub.gated:
            self._error(403, "GatedRepo")
            return
        kind, _, revision = rest.strip("/").partition("/")
        if (revision or "main") not in ("main", self.hub.commit):
            self._error(404, "RevisionNotFound")
            return
        entries = [self._hf_entry(path) for path in self.hub.files]
        if kind == "tree":
            self._json(entries)
            return
        siblings = [
            {"rfilename": entry["path"], "blobId": entry["oid"]} | entry
            for entry in entries
        ]
        for sibling in siblings:
            if large := sibling.get("lfs"):
                sibling["lfs"] = large | {"sha256": large["oid"]}
        self._json({"id": self.hub.model, "sha": self.hub.commit, "siblings": siblings})

    def _hf_entry(self, path: str) -> dict:
        size = len(self.hub.files[path])
        entry = {"type": "file", "path": path, "size": size}
        entry["oid"] = self.hub.git_sha1(path)
        if path.endswith(LARGE):
            sha256 = self.hub.sha256(path)
            entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 130}
        return entry

    def _hf_file(self, revision: str, path: str) -> None:
        if path not in self.hub.files:
            self._error(404, "EntryNotFound")
            return
        entry = self._hf_entry(path)
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            self._file(path, headers)
            return
        headers["X-Linked-Etag"] = f'"{entry["lfs"]["oid"]}"'
        headers["X-Linked-Size"] = str(entry["size"])
        # As in reality large files lie on another host, which must not get the token.
        port = self.server.server_address[1]
        headers["Location"] = f"http://localhost:{port}/cdn/{path}"
        self._answer(302, b"", headers)

    def _modelscope(self, rest: str, query: dict[str, list[str]]) -> None:
        if rest == "repo/files":
            if not self._listing_fails():
                self._ms_list(query["Revision"][0])
        elif rest == "repo":
            path = query["FilePath"][0]
            if path in self.hub.files:
                self._file(path)
            else:
                self._error(404, "EntryNotFound")
        elif rest == "revisions":
            branches = [{"Revision": "master"}]
            self._json({"Data": {"RevisionMap": {"Branches": branches, "Tags": []}}})
        else:
            self._error(404, "RepoNotFound")

    def _ms_list(self, revision: str) -> None:
        if self.hub.gated:
            self._error(403, "GatedRepo")
            return
        if revision not in ("master", self.hub.commit):
            # An unknown revision is no error there: it is a list of nothing.
            self._json({"Code": 200, "Data": {"Files": None}, "Success": True})
            return
        entries = [
            {
                "Path": path,
                "Name": path.rpartition("/")[2],
                "Type": "blob",
                "Size": len(content),
                "Sha256": self.hub.sha256(path),
                "Revision": self.hub.commit,
                "CommittedDate": 1753546348,
                "IsLFS": path.endswith(LARGE),
            }
            for path, content in self.hub.files.items()
        ]
        self._json({"Code": 200, "Data": {"Files": entries}, "Success": True})

    def _listing_fails(self) -> bool:
        fault = self.hub.listing_fault
        if fault and fault.times:
            fault.times -= 1
            self._error(fault.status or 503, "")
            return True
        return False

    def _file(self, path: str, headers: Mapping[str, str] | None = None) -> None:
        content = self.hub.files[path]
        fault = self.hub.faults.get(path) if self.command == "GET" else None
        while fault and not fault.times:
            fault = fault.then
        fault = fault or Fault()
        fault.times -= 1
        if fault.status:
            self._error(fault.status, "")
            return
        if fault.wrong_byte is not None:
            place = fault.wrong_byte % len(content)
            wrong = bytes([content[place] ^ 1])
            content = content[:place] + wrong + content[place + 1 :]
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if asked:
            self.hub.ranges.append((path, asked))
        self.send_response(206 if asked else 200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command == "GET":
            self._send(path, content[start:], fault)

    def _send(self, path: str, content: bytes, fault: Fault) -> None:
        if fault.breaks_after is not None:
            self._write(path, content[: fault.breaks_after])
            self.close_connection = True
            self.connection.shutdown(2)
        elif fault.stalls_after is not None:
            self._write(path, content[: fault.stalls_after])
            time.sleep(fault.seconds)
            self.close_connection = True
        else:
            self._write(path, content)

    def _write(self, path: str, content: bytes) -> None:
        try:
            self.wfile.write(content)
            self.wfile.flush()
        except OSError:  # the client has gone
            self.close_connection = True
        self.hub.sent[path] += len(content)

    def _json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "text/json"})

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code} if code else {})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
