"""`qc.share`: tell the teacher's page in the room how a check went, when asked to.

Nothing is sent before `share` is called, and only for this session. A message holds the
six fields of `message`, never an answer or code. A thread sends it: a check waits for
nobody, and a teacher's machine that is off costs a learner one sentence.
"""

import contextlib
import ipaddress
import json
import queue
import socket
import sys
import threading
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qwen_course.exercises.feedback import Feedback
from qwen_course.safe_text import for_terminal

if TYPE_CHECKING:
    import http.client

PORT = 8700
PATH = "/say"
HERE = "qwen-course room"  # how a room answers, so that nothing else is told a name
SECONDS = 3.0  # for the room to take a message
HELLO_SECONDS = 5.0  # that `share` itself waits, for a name to be looked up too
MOST_WAITING = 50  # messages; the oldest makes room
MAX_NAME = 40  # characters
# This machine, and what is kept for local networks (RFC 1918, 3927, 4193, 4291).
LOCAL = tuple(
    ipaddress.ip_network(one)
    for one in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
                "169.254.0.0/16", "::1/128", "fc00::/7", "fe80::/10")
)  # fmt: skip
_session: "Session | None" = None


# What a learner calls


def share(
    address: str | None, name: str = "", code: str = "", anywhere: bool = False
) -> None:
    """Send the verdict of each `qc.check` to your teacher's page from now on.

    `address`, and the `code` of the room, stand on that page; `name` is what it calls
    you. Each message holds your name, the question's number, to do / not yet / right,
    and the name of the misconception; never your answer or your code. `None` stops it.
    Only addresses of a local network are told anything, unless `anywhere` is true.

    Raises ValueError for an address, a name or a code that cannot be right. A room that
    does not answer is no error: each check tries again.

    Example:
        qc.share("http://192.168.1.5:8700", name="Ada", code="K7QM2P")
    """
    global _session
    if _is_graded():
        return
    if _session:
        _session.stop()
        _session = None
    if address is None:
        print("Nothing is sent any more.")
        return
    place, name = Place.read(address, anywhere), _checked_name(name)
    print(
        f"From now on each qc.check sends to {place}: your name ({name}), the code of "
        "the room, the question's number, to do / not yet / right, and the name of the "
        "misconception, if there is one. Never your answer or your code. "
        "qc.share(None) stops it."
    )
    session = Session(place, name, str(code).strip())
    try:
        session.greet()
    except BaseException:
        session.stop()
        raise
    _session = session
    session.warn()


def raise_hand(question: str | None = "") -> None:
    """Tell your teacher that you need help, with a question or in general.

    `None` takes the hand down, and so does the check that says *right*. Needs
    `qc.share` before; raises ValueError without it, or for an unknown question.

    Example:
        qc.raise_hand("03.q2")
    """
    from qwen_course.exercises import question as questions

    if _is_graded():
        return
    if _session is None:
        raise ValueError(
            'nobody would see it: call qc.share("http://...", name="...") first. The '
            "whole line stands on your teacher's page."
        )
    if question:
        questions.get(question)
    tried = _session.send(question=question or "", hand=question is not None)
    if not tried.wait(HELLO_SECONDS) or _session.error:
        print("Your teacher's page does not hear you. Raise your hand in the room.")
    elif question is None:
        print("Your hand is down again.")
    else:
        print("Your teacher's page shows your hand.")


def tell(feedback: Feedback) -> None:
    """Send what a check said, if the learner shares it; never waits, never raises."""
    from qwen_course.exercises import question

    if _session is None:
        return
    try:
        question.get(feedback.id)
    except Exception:  # no question of the course, or its checks are broken
        return
    _session.send(feedback.id, feedback.status, feedback.mistake)
    _session.warn()


def _is_graded() -> bool:
    """Return whether this is a submission that is being graded: it tells nobody."""
    from qwen_course.exercises import checking

    return checking.recorder is not None


def clean_name(text: Any) -> str:
    r"""Return a name of at most 40 characters that no page and no terminal obeys.

    >>> clean_name("  Ada\n\u202eLovelace ")
    'Ada Lovelace'
    """
    joiners = "\u200c\u200d"  # invisible, and needed by several scripts
    text = " ".join(unicodedata.normalize("NFC", str(text)).split())
    kept = (one for one in text if one.isprintable() or one in joiners)
    return "".join(kept)[:MAX_NAME].strip()


def _checked_name(name: Any) -> str:
    cleaned = clean_name(name)
    if not cleaned.strip("\u200c\u200d"):
        raise ValueError(
            'your teacher needs a name: qc.share("http://...", name="Ada"). Any name '
            "will do that you both know."
        )
    return cleaned


# Where to


class NotLocal(ValueError):
    """An address outside the local network."""


def is_local(address: str) -> bool:
    """Return whether a numeric address is this machine or of a local network.

    >>> is_local("192.168.1.5"), is_local("8.8.8.8")
    (True, False)
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # An IPv4 address in the clothes of IPv6 is judged as what it is.
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in LOCAL)


def own_address() -> str:
    """Return the address from which this machine talks to others, "" without a network.

    A UDP socket that is "connected" sends nothing; it only chooses a way out.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # kept for documentation: nobody has it
        except OSError:
            return ""
        return str(one.getsockname()[0])


@dataclass(frozen=True)
class Place:
    """Where messages go."""

    scheme: str
    host: str
    port: int
    anywhere: bool = False

    @classmethod
    def read(cls, address: str, anywhere: bool = False) -> "Place":
        """Return what an address says; "192.168.1.5" alone will do.

        Raises ValueError when it says nothing of use, NotLocal where it is numeric and
        public.
        """
        text = address.strip() if isinstance(address, str) else ""
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            usual = {"http": PORT, "https": 443}[parts.scheme]
            host, port = parts.hostname or "", parts.port or usual
        except (ValueError, KeyError):  # such as a port that is no number
            host = ""
        if not host or parts.username:
            raise ValueError(
                f'"{address}" is no address of a room. It looks like '
                '"http://192.168.1.5:8700", and stands on your teacher\'s page.'
            )
        place = cls(parts.scheme, host, port, anywhere)
        with contextlib.suppress(OSError):  # a name: it is looked up when it is needed
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            place.allowed([host])
        if not place.anywhere and "google.colab" in sys.modules:
            raise NotLocal(
                "Colab's machine is not in this room and cannot reach a local address. "
                'Write your progress to a file, qc.progress().export("ada.json"), and '
                "hand that in."
            )
        return place

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def allowed(self, found: list[str]) -> list[str]:
        """Return those of some numeric addresses that may be told anything.

        Raises NotLocal when there is none.
        """
        good = [one for one in found if self.anywhere or is_local(one)]
        if found and not good:
            raise NotLocal(
                f"{self} is not in your local network ({found[0]}), so nothing is sent "
                "there. If it is your teacher's address all the same, add "
                "anywhere=True."
            )
        return good

    def connect(self) -> "http.client.HTTPConnection":
        """Return a connection to an address that was looked up and judged just now.

        Neither a proxy nor a redirect is followed. Raises OSError or NotLocal.
        """
        import http.client

        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        where = {str(place[0]): place for *_, place in found}
        first = where[self.allowed(list(where))[0]]
        secure = self.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=SECONDS)
        family = socket.AF_INET6 if ":" in str(first[0]) else socket.AF_INET
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(SECONDS)
            connected.connect(first)
            if secure:
                import ssl

                context = ssl.create_default_context()
                connected = context.wrap_socket(connected, server_hostname=self.host)
        except BaseException:
            connected.close()
            raise
        connection.sock = connected
        return connection


# What is sent


def message(
    name: str,
    code: str,
    question: str = "",
    state: str = "",
    mistake: str = "",
    hand: bool | None = None,
) -> bytes:
    """Return the body of a message: these six fields, and there are no others.

    `hand` is true for a hand that goes up, false for one that goes down, else null.

    >>> message("Ada", "K7QM2P", "01.q3", "not yet", "gigabytes")[:46]
    b'{"name": "Ada", "code": "K7QM2P", "question": '
    """
    fields = {"name": name, "code": code, "question": question, "state": state,
              "mistake": mistake, "hand": hand}  # fmt: skip
    return json.dumps(fields).encode()


class Refusal(ValueError):
    """A message that the room did not take, in the room's words."""


def post(place: Place, body: bytes) -> None:
    """Hand one message over.

    Raises Refusal, NotLocal, or OSError when no room answers there in time.
    """
    import http.client

    with contextlib.closing(place.connect()) as connection:
        headers = {"Content-Type": "application/json"}
        try:
            connection.request("POST", PATH, body, headers)
            response = connection.getresponse()
            said = json.loads(response.read(2000))
            answer = str(said["answer"]) if said["room"] == HERE else None
        except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise OSError("something else answers there") from error
    if answer is None:
        raise OSError("something else answers there")
    if response.status != 200:
        raise Refusal(for_terminal(answer))


class Session:
    """A thread that sends a learner's messages one by one, for as long as it may."""

    def __init__(self, place: Place, name: str, code: str) -> None:
        self.place, self.name, self.code = place, name, code
        self.error: Exception | None = None  # of the last message
        self._warned = False
        self._stopped = threading.Event()
        self._waiting: queue.Queue[tuple[bytes, threading.Event]]
        self._waiting = queue.Queue(MOST_WAITING)
        threading.Thread(target=self._work, name="qc.share", daemon=True).start()

    def send(
        self,
        question: str = "",
        state: str = "",
        mistake: str = "",
        hand: bool | None = None,
    ) -> threading.Event:
        """Put a message into the queue; return what is set once it was tried."""
        body = message(self.name, self.code, question, state, mistake, hand)
        tried = threading.Event()
        while not self._stopped.is_set():
            try:
                self._waiting.put_nowait((body, tried))
                break
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()
        return tried

    def greet(self) -> None:
        """Send a name alone, wait a moment, and raise what the learner must mend."""
        if not self.send().wait(HELLO_SECONDS):
            self.error = TimeoutError("timed out")
        if isinstance(self.error, NotLocal | Refusal):
            raise self.error

    def warn(self) -> None:
        """Say once that the room does not hear."""
        error = self.error
        if error is None or self._warned:
            return
        self._warned = True
        reason = getattr(error, "strerror", None) or error
        print(
            f"Your teacher's page does not hear you ({reason}). Your work is not "
            "affected, each check tries again, and this is not said again."
        )

    def stop(self) -> None:
        """Send nothing more, not even what waits."""
        self._stopped.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait((b"", threading.Event()))  # wakes the thread

    def _work(self) -> None:
        while True:
            body, tried = self._waiting.get()
            if self._stopped.is_set():
                return
            try:
                post(self.place, body)
                self.error = None
            except Exception as error:  # whatever it is, the learner's work goes on
                self.error = error
            tried.set()
