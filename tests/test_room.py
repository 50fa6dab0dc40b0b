"""The live view: learners choose to be seen, six fields cross the wire, no check waits.

Most tests have a true server on this machine's own address.
"""

import http.client
import json
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

import qwen_course as qc
from qwen_course import cli, room, settings
from qwen_course.exercises import checking, classroom, keeping, question, sharing
from qwen_course.exercises.feedback import Feedback
from qwen_course.exercises.sharing import Place, message
from qwen_course.room import Room, create_app
from qwen_course.server import in_background

CODE = "K7QM2P"
FIELDS = {"name", "code", "question", "state", "mistake", "hand"}
ADDRESS = "127.0.0.1"


@pytest.fixture(autouse=True)
def _nobody_shares(tmp_path, monkeypatch):
    monkeypatch.setenv(settings.PROGRESS_VARIABLE, str(tmp_path / "progress.json"))
    yield
    if sharing._session:
        qc.share(None)


@pytest.fixture
def here():
    return Room(CODE)


@pytest.fixture
def address(here):
    with in_background(create_app(here)) as address:
        yield address.removesuffix("/v1")


def send(address, body=b"", path="/say", method="POST", headers=None):
    """Send bytes and return (status, headers, body)."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    try:
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def heard(here, number):
    """Wait until the room has taken so many messages."""
    end = time.monotonic() + 60
    while here.heard < number and time.monotonic() < end:
        time.sleep(0.01)
    assert here.heard == number


def only(here):
    (one,) = here.present.values()
    return one


class Listener:
    """Takes connections as a room would, keeps every byte, and answers as told."""

    def __init__(self, answer=None):
        self.answer = answer or json.dumps({"room": sharing.HERE, "answer": "heard"})
        self.requests: list[bytes] = []
        self.free = threading.Event()  # until then nobody is answered
        self.free.set()
        self.server = socket.create_server((ADDRESS, 0))
        self.address = "http://{}:{}".format(*self.server.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                got = b""
                while not _is_whole(got) and (piece := connection.recv(4096)):
                    got += piece
                self.requests.append(got)
                self.free.wait(60)
                answer = self.answer.encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
                connection.sendall(head.encode() + answer)


def _is_whole(request: bytes) -> bool:
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    return bool(length) and len(body) >= int(length[1])


@pytest.fixture
def listener():
    one = Listener()
    yield one
    one.free.set()
    one.server.close()


# What a learner says, and what the room makes of it


def test_thirty_learners_are_seen_where_they_are(here, address):
    questions = question.questions("01")

    def learn(number):
        place = Place.read(address)
        for asked in questions[: number % 5 + 1]:
            sharing.post(place, message(f"Learner {number}", CODE, asked.id, "right"))
        state = ("not yet", "gigabytes") if number % 2 else ("right", "")
        sharing.post(place, message(f"Learner {number}", CODE, "01.q6", *state))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(learn, range(30)))
    state = here.state()
    assert len(state["learners"]) == 30
    assert {one["question"] for one in state["learners"]} == {"01.q6"}
    counts = {one["id"]: (one["right"], one["not_yet"]) for one in state["questions"]}
    assert counts["01.q1"] == (30, 0)
    assert counts["01.q5"] == (6, 0)
    assert counts["01.q6"] == (15, 15)
    assert state["now"]["mistake"] == "gigabytes"
    assert state["now"]["learners"] == 15
    stuck = [one["state"] for one in state["learners"]]
    assert stuck == ["not yet"] * 15 + ["right"] * 15  # who needs somebody comes first


def test_a_check_is_seen_once_it_is_shared_and_no_more_after(here, address, capsys):
    qc.check("01.q2", lambda gib: ["Qwen3-8B"])
    assert not here.present
    qc.share(address, name="Ada", code=CODE.lower())
    heard(here, 1)
    qc.check("01.q2", lambda gib: ["Qwen3-8B"])
    heard(here, 2)
    one = only(here)
    assert (one.name, one.question, one.state) == ("Ada", "01.q2", "not yet")
    assert one.mistake == keeping.load()["01.q2"].mistakes.popitem()[0]
    qc.share(None)
    qc.check("01.q2", lambda gib: ["Qwen3-8B"])
    assert sharing._session is None
    assert here.heard == 2
    assert "Nothing is sent any more." in capsys.readouterr().out


def test_before_it_sends_anything_it_says_what(listener, capsys):
    listener.free.clear()
    threading.Timer(0.2, listener.free.set).start()
    qc.share(listener.address, name="Ada", code=CODE)
    said = capsys.readouterr().out
    assert listener.address in said
    for words in ("your name (Ada)", "code of the room", "question's number",
                  "to do / not yet / right", "misconception", "Never your answer",
                  "qc.share(None)"):  # fmt: skip
        assert words in said


def test_exactly_six_fields_cross_the_wire_and_no_answer_does(listener):
    qc.share(listener.address, name="Ada", code=CODE)

    def my_private_answer(gib):
        return ["Qwen3-8B", "secret-value"]

    qc.check("01.q2", my_private_answer)
    qc.check("01.q2", ...)
    qc.raise_hand("01.q2")
    assert len(listener.requests) == 4
    for request in listener.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        assert set(json.loads(body)) == FIELDS
        line, *headers = head.decode().split("\r\n")
        assert line == "POST /say HTTP/1.1"
        assert {header.partition(":")[0] for header in headers} == {
            "Host", "Accept-Encoding", "Content-Length", "Content-Type"
        }  # fmt: skip
        assert b"secret-value" not in request
        assert b"my_private_answer" not in request
    bodies = [json.loads(one.partition(b"\r\n\r\n")[2]) for one in listener.requests]
    assert [one["state"] for one in bodies] == ["", "not yet", "to do", ""]
    assert [one["hand"] for one in bodies] == [None, None, None, True]


def test_nothing_is_sent_without_a_call(monkeypatch):
    monkeypatch.setattr(sharing, "post", lambda *any: pytest.fail("it was sent"))
    monkeypatch.setattr(sharing, "Session", lambda *any: pytest.fail("it was begun"))
    qc.check("01.q2", lambda gib: [])
    qc.hint("01.q2")
    assert "qc.share" not in [one.name for one in threading.enumerate()]


def test_a_submission_that_is_graded_tells_nobody(monkeypatch, listener):
    monkeypatch.setattr(checking, "recorder", lambda id, seen: None)
    qc.share(listener.address, name="Ada")
    qc.raise_hand("01.q1")
    assert not listener.requests


def test_a_check_that_the_course_has_not_is_kept_to_oneself(listener):
    qc.share(listener.address, name="Ada")
    qc.check("01.q99", 1)
    qc.check(7, 1)
    qc.raise_hand()
    assert len(listener.requests) == 2  # the greeting and the hand


def test_a_lesson_whose_checks_are_broken_raises_nothing(listener, monkeypatch):
    qc.share(listener.address, name="Ada")

    def broken(lesson=None):
        raise ImportError("judges")

    monkeypatch.setattr(question, "questions", broken)
    qc.check("01.q2", 1)
    assert len(listener.requests) == 1  # the greeting


def test_who_runs_a_whole_notebook_is_not_at_its_end(here):
    here.hear(message("Ada", CODE, "01.q2", "right"), ADDRESS)
    for asked in question.questions("01"):
        here.hear(message("Ada", CODE, asked.id, "to do"), ADDRESS)
    assert only(here).question == "01.q2"


def test_the_time_counts_from_the_last_change(here):
    moments = iter([0, 0, 100, 100, 250, 300])
    here.clock = lambda: next(moments)
    for _ in range(2):
        here.hear(message("Ada", CODE, "01.q2", "not yet", "gigabytes"), ADDRESS)
    (shown,) = here.state()["learners"]
    assert (shown["since"], shown["silent"], shown["tries"]) == (100, 0, 2)


def test_a_hand_goes_up_and_down_again(here, address, capsys):
    with pytest.raises(ValueError, match="call qc.share"):
        qc.raise_hand()
    qc.share(address, name="Ada", code=CODE)
    with pytest.raises(ValueError, match="no question"):
        qc.raise_hand("01.q99")
    qc.raise_hand("01.q2")
    assert only(here).hand is not None
    here.hear(message("Ada", CODE, "01.q1", "right"), ADDRESS)
    assert only(here).hand_for == "01.q2"  # that was another question
    qc.raise_hand(None)
    assert only(here).hand is None
    qc.raise_hand("01.q2")
    here.hear(message("Ada", CODE, "01.q2", "right"), ADDRESS)
    assert only(here).hand is None
    said = capsys.readouterr().out
    assert "shows your hand" in said
    assert "down again" in said


def test_two_of_one_name_are_told_apart_by_their_machines(here):
    for machine in ("192.168.1.2", "192.168.1.3", "192.168.1.2"):
        here.hear(message("Ada", CODE, "01.q1", "right"), machine)
    here.hear(message("ADA", CODE, "01.q1", "right"), "192.168.1.2")
    assert [one.name for one in here.present.values()] == ["Ada", "Ada (2)"]


# A room that is off, slow, or no room


def test_no_check_waits_for_a_room_that_is_slow(listener, monkeypatch):
    """Two checks end while the message of the first is still in the air."""
    qc.share(listener.address, name="Ada")
    listener.free.clear()
    monkeypatch.setattr(sharing, "SECONDS", 60)
    senders = []
    post = sharing.post

    def watched(place, body):
        senders.append(threading.current_thread())
        post(place, body)

    monkeypatch.setattr(sharing, "post", watched)
    qc.check("01.q2", ...)
    qc.check("01.q2", ...)
    assert sharing._session._waiting.qsize() >= 1  # nobody has answered yet
    assert not listener.free.is_set()
    listener.free.set()
    end = time.monotonic() + 60
    while len(listener.requests) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert {one.name for one in senders} == {"qc.share"}
    assert threading.main_thread() not in senders


def test_what_waits_is_bounded_and_the_oldest_goes_first(listener, monkeypatch):
    qc.share(listener.address, name="Ada")
    stuck, sent = threading.Event(), []
    monkeypatch.setattr(
        sharing, "post", lambda p, body: (stuck.wait(60), sent.append(body))
    )
    for number in range(200):
        sharing._session.send("01.q1", "not yet", f"number-{number}")
    assert sharing._session._waiting.qsize() == sharing.MOST_WAITING
    last = sharing._session.send("01.q2", "right")
    stuck.set()
    assert last.wait(60)
    assert b"number-199" in sent[-2]
    assert len(sent) <= sharing.MOST_WAITING + 1


def test_a_room_that_is_off_costs_one_sentence(capsys):
    with socket.create_server((ADDRESS, 0)) as one:
        port = one.getsockname()[1]
    qc.share(f"{ADDRESS}:{port}", name="Ada", code=CODE)
    for _ in range(3):
        sharing.tell(Feedback("01.q2", "", "right", ""))
    assert not qc.raise_hand()
    said = capsys.readouterr().out
    assert said.count("does not hear you (") == 1
    assert "Your work is not affected" in said
    assert "Raise your hand in the room" in said


def test_a_room_that_starts_later_hears_the_next_check(here, monkeypatch):
    with socket.create_server((ADDRESS, 0)) as one:
        port = one.getsockname()[1]
    qc.share(f"http://{ADDRESS}:{port}", name="Ada", code=CODE)
    with in_background(create_app(here), port=port):
        sharing.tell(Feedback("01.q2", "", "right", ""))
        heard(here, 1)
    assert only(here).question == "01.q2"


@pytest.mark.parametrize(
    "answer", ["<html>a router", "[]", '{"room": "another"}', "7", '{"room": 1}']
)
def test_a_server_that_is_no_room_is_not_taken_for_one(answer, capsys):
    other = Listener(answer)
    qc.share(other.address, name="Ada")
    assert "something else answers there" in capsys.readouterr().out
    other.server.close()


def test_a_broken_way_of_sending_breaks_no_check(monkeypatch, listener, capsys):
    qc.share(listener.address, name="Ada")
    monkeypatch.setattr(sharing, "post", lambda *any: 1 / 0)
    tried = sharing._session.send("01.q1", "right")
    assert tried.wait(60)
    qc.check("01.q2", ...)
    assert "division by zero" in capsys.readouterr().out


def test_stopping_leaves_nothing_in_the_queue(listener, monkeypatch):
    qc.share(listener.address, name="Ada")
    gate, sent = threading.Event(), []
    monkeypatch.setattr(sharing, "post", lambda *any: (gate.wait(60), sent.append(any)))
    for _ in range(5):
        tried = sharing._session.send("01.q1", "right")
    qc.share(None)
    gate.set()
    assert not tried.wait(0.2)
    assert len(sent) <= 1  # the one that was under way


def test_no_proxy_is_asked(monkeypatch, capsys, listener):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    qc.share(listener.address, name="Ada")
    assert len(listener.requests) == 1
    assert "does not hear" not in capsys.readouterr().out


# Where to


@pytest.mark.parametrize(
    "address",
    ["http://8.8.8.8:8700", "172.32.0.1", "https://192.169.0.1/", "[2001:4860::1]",
     "http://[::ffff:8.8.8.8]:8700", "100.64.0.1", "0.0.0.0"],
)  # fmt: skip
def test_a_public_address_is_told_nothing(address, monkeypatch):
    monkeypatch.setattr(sharing, "post", lambda *any: pytest.fail("it was sent"))
    with pytest.raises(ValueError, match="not in your local network"):
        qc.share(address, name="Ada", code=CODE)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.5", "169.254.7.7", "::1",
     "fe80::1%eth0", "fd00::7", "::ffff:192.168.1.5"],
)  # fmt: skip
def test_addresses_of_a_room_are_local(address):
    assert sharing.is_local(address)


def test_a_name_is_judged_by_what_it_leads_to(monkeypatch):
    def leads_to(number):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, 8700))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *any, **more: found)

    leads_to("93.184.216.34")
    with pytest.raises(ValueError, match="93.184.216.34"):
        qc.share("http://teacher.example", name="Ada")
    assert sharing._session is None
    place = Place.read("http://teacher.local")
    assert place.allowed(["93.184.216.34", "192.168.1.5"]) == ["192.168.1.5"]
    assert Place.read("8.8.8.8", anywhere=True).allowed(["8.8.8.8"]) == ["8.8.8.8"]


@pytest.mark.parametrize(
    "address", ["", "ftp://192.168.1.5", "http://", "http://a:b", "http://u:p@10.0.0.1",
                "http://[::1", 7],
)  # fmt: skip
def test_what_is_no_address_is_said_with_an_example(address):
    with pytest.raises(ValueError, match="http://192.168.1.5:8700"):
        qc.share(address, name="Ada")


def test_an_address_may_be_short():
    assert str(Place.read("192.168.1.5")) == "http://192.168.1.5:8700"
    assert str(Place.read("https://lab.local")) == "https://lab.local:443"
    assert str(Place.read("[::1]:9000")) == "http://[::1]:9000"


def test_colab_is_told_that_it_is_not_in_the_room(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    with pytest.raises(ValueError, match="export"):
        qc.share("http://192.168.1.5:8700", name="Ada")


@pytest.mark.parametrize("name", ["", "  ", "\u202e", "\u200d", "\n"])
def test_a_learner_needs_a_name(name):
    with pytest.raises(ValueError, match="needs a name"):
        qc.share("http://127.0.0.1:9", name=name)


# What the room refuses


def test_a_wrong_code_is_refused_and_nothing_is_shared(here, address):
    with pytest.raises(ValueError, match="not that of this room"):
        qc.share(address, name="Ada", code="K7QM2Q")
    assert sharing._session is None
    assert not here.present


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": "42"}, "answer"),
        ({"question": "01.q1; drop"}, "question"),
        ({"question": "01.q99"}, "no question"),
        ({"state": "wrong"}, "state"),
        ({"mistake": "<script>"}, "mistake"),
        ({"mistake": "x" * 61}, "mistake"),
        ({"name": "x" * 41}, "name"),
        ({"name": ""}, "name"),
        ({"name": "\u202e"}, "name"),
        ({"name": 7}, "name"),
        ({"hand": 1}, "hand"),
        ({"code": None}, "code"),
    ],
)
def test_anything_but_a_message_is_refused(here, address, change, words):
    fields = json.loads(message("Ada", CODE, "01.q1", "not yet", "tied")) | change
    status, _, body = send(address, json.dumps(fields))
    assert (status, here.present) == (400, {})
    assert words in body.decode()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"\xff", 400), (b"[]", 400), (b'{"name": NaN}', 400),
     (b'{"name": "a", "name": "b"}', 400), (b"[" * 900, 400), (b"x" * 2000, 413)],
)  # fmt: skip
def test_rubbish_is_refused_in_a_sentence(address, body, status):
    got, _, said = send(address, body)
    assert got == status
    assert json.loads(said)["answer"]


def test_a_field_that_is_missing_is_named(address):
    fields = json.loads(message("Ada", CODE))
    del fields["hand"]
    status, _, body = send(address, json.dumps(fields))
    assert (status, "hand" in body.decode()) == (400, True)


def test_a_flood_of_messages_is_stopped_and_others_are_heard(here, address):
    body = message("Mallory", CODE, "01.q1", "not yet", "tied")
    statuses = [send(address, body)[0] for _ in range(60)]
    assert statuses.count(200) == room.RATE.amount
    assert set(statuses) == {200, 429}
    assert send(address, message("Ada", CODE, "01.q1", "right"))[0] == 200


def test_an_address_may_send_only_so_much(here):
    for _ in range(room.RATE_OF_ADDRESS.amount):
        here.admit("192.168.1.9")
    with pytest.raises(room.Refused, match="Too many messages"):
        here.admit("192.168.1.9")
    here.admit("192.168.1.10")


def test_a_flood_of_names_fills_a_room_and_no_more():
    small = Room(CODE, most=3)
    for number in range(3):
        small.hear(message(f"n{number}", CODE), ADDRESS)
    with pytest.raises(room.Refused, match="room is full") as refused:
        small.hear(message("one more", CODE), ADDRESS)
    assert refused.value.status == 429
    small.hear(message("n1", CODE, "01.q1", "right"), ADDRESS)
    small.remove(1)
    small.hear(message("one more", CODE), ADDRESS)
    assert [one.number for one in small.present.values()] == [2, 3, 4]


def test_another_network_is_refused_unless_it_is_let_in(here):
    with pytest.raises(room.Refused, match="local network only"):
        here.admit("8.8.8.8")
    Room(CODE, anywhere=True).admit("8.8.8.8")


@pytest.mark.parametrize("code", ["abc", "a b c d", "Ünicode", "x" * 41, "a'b\"c"])
def test_a_code_can_be_typed(code):
    with pytest.raises(ValueError, match="4 to 40"):
        Room(code)


def test_a_room_has_a_code_and_a_key_of_its_own():
    rooms = [Room() for _ in range(20)]
    assert len({one.code for one in rooms}) == len({one.key for one in rooms}) == 20
    assert all(re.fullmatch("[2-9A-HJKMNP-Z]{6}", one.code) for one in rooms)
    with pytest.raises(ValueError, match="at least one"):
        Room(most=0)


def test_secrets_are_compared_in_constant_time(here, monkeypatch):
    pairs = []
    true = room.hmac.compare_digest
    watched = lambda a, b: pairs.append((a, b)) or true(a, b)  # noqa: E731
    monkeypatch.setattr(room.hmac, "compare_digest", watched)
    here.hear(message("Ada", CODE), ADDRESS)
    with pytest.raises(room.Refused):
        here.hear(message("Ada", "Ü"), ADDRESS)
    assert pairs == [(CODE.encode(), CODE.encode()), ("Ü".encode(), CODE.encode())]


# What the teacher's page gets


def test_who_is_where_is_for_the_key_alone(here, address):
    here.hear(message("Ada", CODE, hand=True), ADDRESS)
    key = {"Authorization": f"Bearer {here.key}"}
    for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": here.code}):
        assert send(address, path="/state", method="GET", headers=wrong)[0] == 401
        assert send(address, path="/learners/1/remove", headers=wrong)[0] == 401
    status, _, body = send(address, path="/state", method="GET", headers=key)
    assert (status, json.loads(body)["learners"][0]["name"]) == (200, "Ada")
    assert send(address, path="/learners/1/lower", headers=key)[0] == 200
    assert only(here).hand is None
    assert send(address, path="/learners/1/burn", headers=key)[0] == 422
    assert send(address, path="/learners/1/remove", headers=key)[0] == 200
    assert not here.present


def test_the_page_holds_no_data_and_runs_nothing_but_its_own(here, address):
    here.hear(message("Ada", CODE), ADDRESS)
    status, headers, body = send(address, path="/", method="GET")
    page = body.decode()
    assert status == 200
    for secret in ("Ada", here.code, here.key):
        assert secret not in page
    assert not re.search(r"(src|href)\s*=|https?://(?!www\.w3\.org)", page)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "innerHTML" not in page


def test_saved_progress_is_what_a_class_report_reads(here, tmp_path):
    here.hear(message("Ada/../x", CODE, "01.q2", "not yet", "gigabytes"), ADDRESS)
    here.hear(message("李明", CODE, "01.q2", "right"), ADDRESS)
    here.save(tmp_path / "saved")
    found = classroom.read(tmp_path / "saved")
    assert {one.name for one in found.learners} == {"Ada/../x", "李明"}
    assert found.take_up()[0].mistakes == (("gigabytes", 1),)


def test_the_terminal_says_how_to_join_and_who_may(here, monkeypatch, capsys, tmp_path):
    def interrupted(seconds):
        here.hear(message("Ada", CODE, "01.q1", "right"), ADDRESS)
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "Room", lambda *any: here)
    monkeypatch.setattr(room.time, "sleep", interrupted)
    assert cli.main(["room", "--port", "0", "--save", str(tmp_path)]) == 130
    said = capsys.readouterr().out
    assert re.search(rf"Your page: http://127\.0\.0\.1:\d+/#{here.key}", said)
    assert f'name="...", code="{CODE}")' in said
    assert "The local network only may send." in said
    assert "--host 0.0.0.0 opens it to all" in said
    assert (tmp_path / "learner-001.json").exists()


def test_a_room_writes_nothing_unless_it_is_told_to(here, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        room.time, "sleep", lambda s: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    here.hear(message("Ada", CODE, "01.q1", "right"), ADDRESS)
    with pytest.raises(KeyboardInterrupt):
        room.run(here, port=0)
    assert not list(tmp_path.iterdir())


def test_the_addresses_of_this_machine_are_local_ones():
    assert room.reachable("127.0.0.1") == []
    assert room.reachable("192.168.1.5") == ["192.168.1.5"]
    assert all(map(sharing.is_local, room.reachable("0.0.0.0")))


def test_the_terminal_names_every_address_and_misses_none(here):
    assert "is the network on?" in room.welcome(here, 8700, "0.0.0.0", None)
    here.addresses = ["http://192.168.1.5:8700", "http://172.17.0.1:8700"]
    said = room.welcome(here, 8700, "0.0.0.0", None)
    assert f"on your phone: http://192.168.1.5:8700/#{here.key}" in said
    assert 'qc.share("http://192.168.1.5:8700"' in said
    assert "other addresses too: http://172.17.0.1:8700" in said
    assert "Nothing is written to disk." in said


def test_a_port_that_is_taken_is_one_sentence(capsys):
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["room", "--port", f"{port}"]) == 1
    assert "--port" in capsys.readouterr().err
