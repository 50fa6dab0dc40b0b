"""Workers: several servers on one port, one answer for all of them."""

import contextlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import openai
import psutil
import pytest

import qwen_course as qc
from qwen_course import workers

UNIX = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGKILL, SIGTERM"
)
QUESTIONS = [problem.question for problem in qc.tasks.sums.problems(12, seed=43)]


@pytest.fixture(scope="module")
def running():
    """Two workers, their address and the process that started them."""
    command = [sys.executable, "-m", "qwen_course", "serve", "--port", "0",
               "--workers", "2", "--timeout", "600"]  # fmt: skip
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    )
    line = server.stdout.readline()
    assert line.startswith("listening on http://127.0.0.1:"), line
    yield line.split()[-1], server
    server.kill()
    server.wait()
    server.stdout.close()


def ask_all(address, at_half=None):
    """Ask all questions at once; the official client sends again what broke off."""
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=20)
    answers = {}

    def ask(number):
        talk = [{"role": "user", "content": QUESTIONS[number]}]
        answer = client.chat.completions.create(
            model="pocket-qwen3", messages=talk, temperature=0
        )
        answers[number] = answer.choices[0].message.content

    users = [threading.Thread(target=ask, args=(n,)) for n in range(len(QUESTIONS))]
    for user in users:
        user.start()
    while at_half and not answers:
        time.sleep(0.01)
    if at_half:
        at_half()
    for user in users:
        user.join()
    return [answers[number] for number in range(len(QUESTIONS))]


def finished(address):
    """Return how many requests `/metrics` says have ended."""
    url = address.removesuffix("/v1") + "/metrics"
    text = urllib.request.urlopen(url).read().decode()
    found = re.findall(r"^qwen_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def servers(parent):
    """Return the workers: other children are helpers of multiprocessing."""
    found = []
    for child in psutil.Process(parent.pid).children():
        with contextlib.suppress(psutil.Error):  # it has just died
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
    return found


@UNIX
def test_two_workers_answer_tell_of_all_and_survive_a_death(running, pocket):
    address, parent = running
    replies = qc.chat_batch(*pocket, QUESTIONS, sampling="greedy")
    alone = [reply.answer for reply in replies]
    assert ask_all(address) == alone
    for _ in range(500):
        if {finished(address) for _ in range(8)} == {float(len(QUESTIONS))}:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the workers do not tell each other of their requests")

    before = servers(parent)
    assert len(before) == 2
    assert ask_all(address, at_half=before[0].kill) == alone
    for _ in range(1500):
        if len(servers(parent)) == 2:
            break
        time.sleep(0.02)
    assert {one.pid for one in servers(parent)} != {one.pid for one in before}
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(120) == 0


STARTING = """
import sys
import time
from qwen_course import workers

def build():
    if sys.argv[1] == "fails":
        raise RuntimeError("no model here")
    print("building", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    try:
        workers.serve(build, 2, port=0)
    except OSError as error:
        print(error)
"""


@contextlib.contextmanager
def starting(folder, how):
    """Run workers that never get ready, or whose start fails."""
    script = folder / "starting.py"
    script.write_text(STARTING)
    process = subprocess.Popen(
        [sys.executable, script, how], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@UNIX
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_workers_that_are_told_to_end_while_they_start_end(tmp_path, name):
    with starting(tmp_path, "slowly") as parent:
        for _ in range(2):
            assert parent.stdout.readline() == "building\n"
        children = servers(parent)
        parent.send_signal(getattr(signal, name))
        assert parent.wait(30) == 0
        assert parent.stdout.read() == ""
        assert not any(child.is_running() for child in children)


def test_a_worker_that_cannot_start_ends_them_all_and_says_so(tmp_path):
    with starting(tmp_path, "fails") as parent:
        assert parent.wait(60) == 0
        assert parent.stdout.read().startswith("a worker did not start")


@UNIX
def test_workers_do_not_stay_behind_when_their_parent_is_killed(tmp_path):
    with starting(tmp_path, "slowly") as parent:
        for _ in range(2):
            parent.stdout.readline()
        children = servers(parent)
        parent.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
    assert len(children) == 2
    assert not alive


def test_what_is_told_arrives_as_it_was(monkeypatch):
    from qwen_course.service import Served

    served = Served("a", "m", False, 1.0, 2.0, 3.0, 4.0, 5, 6, 7, "stop")
    posts = [workers._post() for _ in range(2)]
    heard = []
    hearing = (posts[1], heard.append)
    threading.Thread(target=workers.hear, args=hearing, daemon=True).start()
    posts[0].sendto(b"no JSON", posts[1].getsockname())
    posts[0].sendto(json.dumps({"x": 1}).encode(), posts[1].getsockname())
    workers.tell(posts[0], [posts[1].getsockname()], served)
    for _ in range(500):
        if heard:
            break
        time.sleep(0.01)
    assert heard == [served]


def test_workers_with_keys_share_their_store_and_the_secret_of_their_seals(
    tmp_path, monkeypatch, capsys
):
    from qwen_course.cli import main
    from qwen_course.security import ApiKeys

    built = []
    monkeypatch.setattr(workers, "serve", lambda build, *_: built.append(build))
    keys = tmp_path / "keys.json"
    ApiKeys().save(keys)
    words = ["serve", "--model", "pocket-qwen3", "--workers", "2", "--keys", str(keys)]
    assert main(words) == 1
    assert "--store redis://HOST" in capsys.readouterr().err
    assert main([*words, "--store", "redis://localhost"]) == 0
    options = pickle.loads(pickle.dumps(built[0])).args[0]
    assert len(options.secret) == 32


def test_fewer_than_one_worker_is_refused():
    with pytest.raises(ValueError, match="give 1 or more"):
        workers.serve(lambda: (None, None), 0)
