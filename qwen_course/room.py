"""`qwen-course room`: where everybody is, live, from what learners choose to send.

A page on the teacher's machine, for the local network. Learners join with `qc.share`;
a message holds the six fields of `exercises.sharing.message`. All is kept in memory,
and nothing is written unless --save names a folder.
"""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qwen_course.cleaning import Refused, read_body
from qwen_course.datafiles import data_file
from qwen_course.exercises import keeping, question
from qwen_course.exercises.classroom import Classroom, Learner
from qwen_course.exercises.feedback import Feedback
from qwen_course.exercises.meanings import meaning
from qwen_course.exercises.question import Status
from qwen_course.exercises.sharing import (
    HERE,
    PATH,
    PORT,
    clean_name,
    is_local,
    own_address,
)
from qwen_course.server import in_background

try:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response
    from limits import parse
    from limits.storage import MemoryStorage
    from limits.strategies import MovingWindowRateLimiter
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
except ImportError as error:
    raise ImportError(
        f"the room needs {error.name}, which is not installed here. "
        'Type: python -m pip install "qwen-course[serve]"'
    ) from error

LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # no 0 and O, no 1, I and L
MAX_BODY, BODY_SECONDS = 1_000, 10  # in bytes; a message has some 150
MOST_LEARNERS = 60
# A learner who runs a whole exercise sends seven messages at once; behind a JupyterHub
# a whole class has one address.
RATE, RATE_OF_ADDRESS = parse("40/10 second"), parse("800/10 second")
SAVE_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Message(BaseModel):
    """What a learner's session sends: these fields, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=40)
    code: str = Field(max_length=40)
    question: str = Field(pattern=r"^(\d\d\.q\d{1,2})?$")
    state: Literal["", "to do", "not yet", "right"]
    mistake: str = Field(pattern=r"^[a-z0-9-]{0,60}$")
    hand: bool | None


@dataclass
class Present:
    """One learner who shares: where, since when, and what went before.

    `since` is the moment they came to the question or its state changed, `heard` that
    of the last message, in seconds of the room's clock.
    """

    number: int
    name: str
    since: float
    heard: float
    question: str = ""
    state: Status = "to do"
    mistake: str = ""
    hand: float | None = None  # since when
    hand_for: str = ""
    book: keeping.Book = field(default_factory=dict)


class Room:
    """Who is where. `code` lets learners in, `key` opens the teacher's page.

    Raises ValueError for a code that nobody could type, and for less than one learner.

    Example:
        app = create_app(Room())
    """

    def __init__(
        self,
        code: str = "",
        most: int = MOST_LEARNERS,
        anywhere: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9-]{4,40}|", code):
            raise ValueError(
                f'the code "{code}" has to be 4 to 40 letters and digits of ASCII. '
                "Leave it out, and one is made."
            )
        if most < 1:
            raise ValueError(f"a room for {most} learners is empty: give at least one.")
        self.code = code or "".join(secrets.choice(LETTERS) for _ in range(6))
        self.key = secrets.token_urlsafe(12)
        self.most, self.anywhere, self.clock = most, anywhere, clock
        self.addresses: list[str] = []  # where learners reach it
        self.present: dict[tuple[str, str], Present] = {}
        self.heard = 0  # messages that were taken
        self._asked = {one.id: one for one in question.questions()}
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    # What comes in

    def admit(self, address: str) -> None:
        """Let a request from an address in, or raise Refused."""
        if not self.anywhere and not is_local(address):
            text = "This room is for the local network only."
            raise Refused(text, status=403, code="not-local")
        if not self._limiter.hit(RATE_OF_ADDRESS, "address", address):
            raise Refused("Too many messages.", "Wait a moment.", 429, "too-many")

    def hear(self, body: bytes, address: str) -> None:
        """Take a message, or raise Refused with the reason."""
        said = _read(body)
        if not _same(said.code.upper(), self.code.upper()):
            raise Refused(
                f"The code {said.code[:12]!r} is not that of this room.",
                "It stands on your teacher's page.", 403, "wrong-code",
            )  # fmt: skip
        name = clean_name(said.name)
        if not name:
            raise Refused("The name is empty.", 'Give one: name="Ada".')
        if said.question and said.question not in self._asked:
            raise Refused(f"This room knows no question {said.question}.")
        one = self._learner(name, address)
        if not self._limiter.hit(RATE, "learner", f"{one.number}"):
            raise Refused("Too many messages.", "Wait a moment.", 429, "too-many")
        self._note(one, said)

    def _learner(self, name: str, address: str) -> Present:
        """Return who says so; the same name on another machine is another learner."""
        key = (name.casefold(), address)
        if key not in self.present:
            if len(self.present) >= self.most:
                raise Refused(
                    f"The room is full: it has {self.most} learners.",
                    "Ask your teacher to start it with a larger --learners.",
                    429, "full",
                )  # fmt: skip
            now = self.clock()
            number = max((one.number + 1 for one in self.present.values()), default=1)
            twins = sum(other == key[0] for other, _ in self.present)
            shown = f"{name} ({twins + 1})" if twins else name
            self.present[key] = Present(number, shown, now, now)
        return self.present[key]

    def _note(self, one: Present, said: Message) -> None:
        now = self.clock()
        self.heard, one.heard = self.heard + 1, now
        if said.hand is not None:
            one.hand = (one.hand or now) if said.hand else None
            one.hand_for = said.question if said.hand else ""
        if not said.state:
            return
        if said.state == "to do" and one.question:
            return  # who runs a whole notebook is not at its last question
        if (said.question, said.state) != (one.question, one.state):
            one.since = now
        one.question, one.state, one.mistake = said.question, said.state, said.mistake
        if said.state != "to do":
            fed = Feedback(said.question, "", said.state, "", said.mistake)
            keeping.note(one.book, fed)
        if said.state == "right" and one.hand_for in ("", said.question):
            one.hand, one.hand_for = None, ""

    def lower(self, number: int) -> None:
        """Take the hand of a learner down."""
        for one in self.present.values():
            if one.number == number:
                one.hand, one.hand_for = None, ""

    def remove(self, number: int) -> None:
        """Forget a learner; the next message brings them back, with nothing before."""
        for key, one in list(self.present.items()):
            if one.number == number:
                del self.present[key]

    # What the page shows

    def classroom(self) -> Classroom:
        """Return the class, of the questions that anybody has tried."""
        tried = {id for one in self.present.values() for id in one.book}
        questions = [asked for id, asked in self._asked.items() if id in tried]
        learners = [Learner(one.name, one.book) for one in self.present.values()]
        return Classroom(learners, questions)

    def state(self) -> dict[str, Any]:
        """Return all that the page shows, as JSON has it; times in seconds ago."""
        now = self.clock()
        people = sorted(self.present.values(), key=_urgency)
        topics = self.classroom().topics()
        return {
            "code": self.code,
            "addresses": self.addresses,
            "learners": [self._shown(one, now) for one in people],
            "questions": [
                {"id": topic.question.id, "title": topic.question.title,
                 "right": topic.right, "not_yet": topic.not_yet,
                 "mistake": topic.mistakes[0] if topic.mistakes else None}
                for topic in topics
            ],
            "now": self._common_now(),
        }  # fmt: skip

    def _shown(self, one: Present, now: float) -> dict[str, Any]:
        title = self._asked[one.question].title if one.question else ""
        kept = one.book.get(one.question, keeping.Kept())
        hand = None if one.hand is None else now - one.hand
        return {
            "number": one.number, "name": one.name, "question": one.question,
            "title": title, "state": one.state,
            "mistake": one.mistake, "tries": kept.tries,
            "right": sum(kept.status == "right" for kept in one.book.values()),
            "since": now - one.since, "silent": now - one.heard,
            "hand": hand, "hand_for": one.hand_for,
        }  # fmt: skip

    def _common_now(self) -> dict[str, Any] | None:
        """Return the misconception in which most learners are at this moment."""
        stuck = [one for one in self.present.values() if one.state == "not yet"]
        met = Counter((one.question, one.mistake) for one in stuck if one.mistake)
        if not met:
            return None
        (id, mistake), learners = met.most_common(1)[0]
        return {"question": id, "title": self._asked[id].title, "mistake": mistake,
                "learners": learners, "meaning": meaning(id, mistake)}  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write a file of progress a learner, for `qwen-course class`."""
        folder.mkdir(parents=True, exist_ok=True)
        for one in list(self.present.values()):  # others may come meanwhile
            text = keeping.as_json(one.book, one.name)
            (folder / f"learner-{one.number:03}.json").write_text(text, "utf-8")


def _urgency(one: Present) -> tuple[Any, ...]:
    """Sort hands first, then who is stuck, each from the longest on, then by name."""
    stuck = one.state == "not yet"
    waiting = one.since if stuck else 0.0
    hand = one.hand if one.hand is not None else 0.0
    return (one.hand is None, hand, not stuck, waiting, one.name.casefold())


def _read(body: bytes) -> Message:
    try:
        return Message.model_validate(read_body(body, MAX_BODY))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(f"The message is malformed: {where}: {first['msg']}.") from error


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode(), expected.encode())


# The application


def create_app(room: Room) -> FastAPI:
    """Return the application: the page, what it asks for, and the learners' door."""
    app = FastAPI(title=HERE, docs_url=None, redoc_url=None, openapi_url=None)
    page = data_file("room_page.html").read_text("utf-8")
    headers = _headers(page)

    @app.get("/")
    async def show(request: Request) -> Response:
        """Return the page, which holds nobody's data; its key stands behind the #."""
        return _guarded(room, request, lambda: Response(page, 200, headers))

    @app.get("/state")
    async def state(request: Request) -> Response:
        """Return who is where, to whoever has the key."""
        return _guarded(room, request, lambda: JSONResponse(room.state()), True)

    @app.post("/learners/{number}/{action}")
    async def change(
        request: Request, number: int, action: Literal["lower", "remove"]
    ) -> Response:
        """Lower a hand, or forget a learner."""
        work = room.lower if action == "lower" else room.remove
        return _guarded(room, request, lambda: _answer(work(number) or "done"), True)

    @app.post(PATH)
    async def say(request: Request) -> Response:
        """Take one message of a learner."""
        try:
            room.admit(_address(request))
            room.hear(await _body(request), _address(request))
            return _answer("heard")
        except Refused as refused:
            return _answer(str(refused), refused.status)

    return app


def _guarded(
    room: Room, request: Request, work: Callable[[], Response], keyed: bool = False
) -> Response:
    """Return what `work` does, for a local request, and one with the key if `keyed`."""
    try:
        room.admit(_address(request))
    except Refused as refused:
        return _answer(str(refused), refused.status)
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if keyed and not _same(given, room.key):
        return _answer("The key is wrong: open the address of the terminal.", 401)
    return work()


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _answer(text: str, status: int = 200) -> JSONResponse:
    return JSONResponse({"room": HERE, "answer": text}, status)


async def _body(request: Request) -> bytes:
    """Return a body; refuse one that is too large or too slow."""
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise Refused("The message is too long.", "", 413, "too-large")
    except TimeoutError as error:
        raise Refused("The message came too slowly.", "", 408, "too-slow") from error
    return body


def _headers(page: str) -> dict[str, str]:
    """Return headers that let the page's own script and style work, and no others."""
    allowed = {}
    for tag in ("script", "style"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = (hashlib.sha256(one.encode()).digest() for one in inside)
        allowed[tag] = " ".join(
            f"'sha256-{base64.b64encode(one).decode()}'" for one in hashes
        )
    policy = (
        f"default-src 'none'; script-src {allowed['script']}; style-src "
        f"{allowed['style']}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


# Running it


def run(
    room: Room, host: str = "127.0.0.1", port: int = PORT, save: Path | None = None
) -> None:
    """Serve until Ctrl+C; with `save`, write everybody's progress there as it grows.

    Raises OSError when it cannot have the port.
    """
    with in_background(create_app(room), host, port) as address:
        port = int(address.removesuffix("/v1").rpartition(":")[2])
        room.addresses = [f"http://{one}:{port}" for one in reachable(host)]
        print(welcome(room, port, host, save), flush=True)
        written, last = 0, time.monotonic()
        try:
            while True:  # a wait without an end ignores Ctrl+C on Windows
                time.sleep(0.5)
                if save and room.heard > written:
                    if time.monotonic() - last < SAVE_SECONDS:
                        continue
                    written, last = room.heard, time.monotonic()
                    room.save(save)
        finally:
            if save:
                room.save(save)


def welcome(room: Room, port: int, host: str, save: Path | None) -> str:
    """Return what the teacher reads in the terminal."""
    own = f"http://127.0.0.1:{port}"
    first, *others = room.addresses or [own]
    lines = [f"Your page: {own}/#{room.key}"]
    if first != own:
        lines.append(f"The same on your phone: {first}/#{room.key}")
    lines.append(f'Learners: qc.share("{first}", name="...", code="{room.code}")')
    if host not in LOOPBACK and not room.addresses:
        lines.append("No address of a local network was found: is the network on?")
    if others:
        lines.append(f"This machine has other addresses too: {', '.join(others)}")
    if host in LOOPBACK:
        lines.append("Only this machine reaches it; --host 0.0.0.0 opens it to all.")
    kept = f"Progress is kept in {save}." if save else "Nothing is written to disk."
    reach = "Anybody with the code" if room.anywhere else "The local network only"
    lines.append(f"{reach} may send. {kept} Ctrl+C ends it.")
    return "\n".join(lines)


def reachable(host: str) -> list[str]:
    """Return the addresses at which others reach a server, the likeliest first.

    >>> reachable("192.168.1.5")
    ['192.168.1.5']
    """
    if host not in ("0.0.0.0", "::", ""):
        return [] if host in LOOPBACK else [host]
    import psutil

    found = [
        one.address
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
    first = own_address()
    local = [one for one in found if is_local(one)]
    return sorted(local, key=lambda one: (one != first, one.startswith("169.254.")))
