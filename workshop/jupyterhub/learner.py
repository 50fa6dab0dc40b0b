"""A learner without a browser: the same requests, cookies and messages, and no picture.

`workshop.simulate` lets many of them come at once; the tests, two.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

PATIENCE = 600  # seconds for one request


class Learner:
    """A browser's cookies and what it does with them.

    Raises httpx.HTTPError where the hub does not answer, RuntimeError where it says no.
    """

    def __init__(self, hub: str, name: str, password: str) -> None:
        self.hub, self.name, self.password = hub.rstrip("/"), name, password
        self.server = f"{self.hub}/user/{name}"
        self._kernels: list[Kernel] = []
        self.web = httpx.AsyncClient(
            follow_redirects=True, timeout=PATIENCE, trust_env=False,
            headers={"Sec-Fetch-Mode": "navigate"},
        )  # fmt: skip

    async def log_in(self) -> None:
        """Fill in the form; the hub begins to start the server at once."""
        page = await self.web.get(f"{self.hub}/hub/login")
        form = {
            "username": self.name,
            "password": self.password,
            "_xsrf": self._xsrf("/hub/"),
        }
        page = await self.web.post(f"{self.hub}/hub/login", data=form)
        if "login" in page.url.path or page.is_error:
            raise RuntimeError(f"the hub let {self.name} not in: {page.status_code}")

    async def wait_for_server(self) -> None:
        """Follow the waiting page's progress until the server is there."""
        address = f"{self.hub}/hub/api/users/{self.name}/server/progress"
        fetch = {"Sec-Fetch-Mode": "cors", "X-XSRFToken": self._xsrf("/hub/")}
        async with self.web.stream("GET", address, headers=fetch) as events:
            async for event in _events(events):
                if event.get("failed"):
                    raise RuntimeError(f"no server for {self.name}: {event['message']}")
                if event.get("ready"):
                    return
        raise RuntimeError(f"no server for {self.name}: {events.status_code}")

    async def default_path(self) -> str:
        """Return where the server sends who opens it, as a path behind its own."""
        page = await self.web.get(self.server + "/")
        page.raise_for_status()
        return str(page.url).removeprefix(self.server)

    async def pull(self, address: str) -> None:
        """Open a link of nbgitpuller and wait until the folder is up to date."""
        page = await self.web.get(self.server + address)
        page.raise_for_status()
        query = httpx.URL(address).params.remove("urlpath")
        pulled = f"{self.server}/git-pull/api?{query}"
        async with self.web.stream("GET", pulled, headers=self._fetch()) as events:
            async for event in _events(events):
                if event["phase"] == "error":
                    raise RuntimeError(f"the folder was not pulled: {event['message']}")

    async def read(self, path: str) -> dict[str, Any]:
        """Open JupyterLab's page at a notebook of the home; return the notebook."""
        page = await self.web.get(f"{self.server}/lab/tree/{path}")
        page.raise_for_status()
        return (await self._ask("GET", f"contents/{path}"))["content"]

    async def write(self, path: str, notebook: dict[str, Any]) -> None:
        """Save a notebook."""
        body = {"type": "notebook", "content": notebook}
        await self._ask("PUT", f"contents/{path}", body)

    async def start_kernel(self, path: str) -> "Kernel":
        """Start the notebook's kernel and connect to it."""
        body = {
            "path": path, "type": "notebook", "name": Path(path).name,
            "kernel": {"name": "python3"},
        }  # fmt: skip
        session = await self._ask("POST", "sessions", body)
        kernel = session["kernel"]["id"]
        address = (
            f"{self.server}/api/kernels/{kernel}/channels?session_id={uuid.uuid4()}"
        )
        request = HTTPRequest(
            "ws" + address.removeprefix("http"),
            headers={"Cookie": self._cookies(), "Origin": self.hub},
            request_timeout=PATIENCE, connect_timeout=PATIENCE,
        )  # fmt: skip
        socket = await websocket_connect(request, max_message_size=2**30)
        kernel = Kernel(socket)
        self._kernels.append(kernel)
        return kernel

    async def stop_server(self) -> None:
        """Stop the learner's server, as the hub's control panel does."""
        address = f"{self.hub}/hub/api/users/{self.name}/server"
        fetch = {"Sec-Fetch-Mode": "cors", "X-XSRFToken": self._xsrf("/hub/")}
        await self.web.delete(address, headers=fetch)

    async def close(self) -> None:
        """Close the browser; the server goes on, as a learner's does."""
        for kernel in self._kernels:
            kernel.socket.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):  # until the other side agrees
                    while await kernel.socket.read_message() is not None:
                        pass
        await self.web.aclose()

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self.web.request(
            method, f"{self.server}/api/{path}", json=body, headers=self._fetch()
        )
        answer.raise_for_status()
        return answer.json()

    def _fetch(self) -> dict[str, str]:
        xsrf = self._xsrf(f"/user/{self.name}/")
        return {"Sec-Fetch-Mode": "cors", "X-XSRFToken": xsrf}

    def _xsrf(self, path: str) -> str:
        """Return the token that goes with a change; hub and server have their own."""
        found = [
            cookie.value
            for cookie in self.web.cookies.jar
            if cookie.name == "_xsrf" and cookie.path == path
        ]
        return found[0] or "" if found else ""

    def _cookies(self) -> str:
        """Return the header that a browser sends to the learner's own server."""
        path = f"/user/{self.name}/"
        return "; ".join(
            f"{one.name}={one.value}"
            for one in self.web.cookies.jar
            if path.startswith(one.path)
        )


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the data of a stream of events."""
    response.raise_for_status()
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


class Kernel:
    """A notebook's kernel, at the other end of its websocket."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def run(self, code: str) -> tuple[str, str]:
        """Run a cell; return what it printed, and its error or ""."""
        asked = uuid.uuid4().hex
        header = {
            "msg_id": asked, "msg_type": "execute_request", "username": "",
            "session": asked, "date": "", "version": "5.3",
        }  # fmt: skip
        content = {
            "code": code, "silent": False, "store_history": True,
            "user_expressions": {}, "allow_stdin": False, "stop_on_error": False,
        }  # fmt: skip
        await self.socket.write_message(
            json.dumps(
                {
                    "header": header,
                    "parent_header": {},
                    "metadata": {},
                    "content": content,
                    "channel": "shell",
                }
            )  # fmt: skip
        )
        printed, error, idle, replied = [], "", False, False
        while not (idle and replied):
            message = await self._receive(asked)
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream":
                printed.append(content["text"])
            elif kind == "error":
                error = f"{content['ename']}: {content['evalue']}"
            idle |= kind == "status" and content["execution_state"] == "idle"
            replied |= kind == "execute_reply"
        return "".join(printed), error

    async def _receive(self, asked: str) -> dict[str, Any]:
        """Return the next message that answers a request.

        Raises ConnectionError when the kernel died or the connection closed.
        """
        while True:
            text = await self.socket.read_message()
            if text is None:
                raise ConnectionError("the connection to the kernel was closed")
            message = json.loads(text)
            content = message.get("content", {})
            if content.get("execution_state") in ("restarting", "dead"):
                raise ConnectionError("the kernel died")
            if message["parent_header"].get("msg_id") == asked:
                return message
