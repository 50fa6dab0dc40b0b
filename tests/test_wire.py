"""Servers in the OpenAI form: started, waited for, asked, ended to the last child."""

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

import qwen_course as qc
from qwen_course import engines, inference
from qwen_course.messages import check_messages, encode
from qwen_course.platforms import common, wire

missing = common.why_missing("a server", {"fastapi": "fastapi"}, "serve")
missing = missing or common.why_missing("a client", {"openai": "openai"}, "serve")
needs_server = pytest.mark.skipif(bool(missing), reason=str(missing))
# A server that loads for a while, says so, and has a child.
LOADS = """
import http.server, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("loading the model", flush=True)
asked = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        found = self.path == sys.argv[2]
        self.send_response(404 if not found else 503 if len(asked) < 3 else 200)
        self.end_headers()
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def loads(path):
    return lambda port: [sys.executable, "-c", LOADS, str(port), path]


def lives(process):
    """Whether a process runs; where nobody collects them, dead ones are listed on."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Starting


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_a_server_is_up_when_it_answers_and_ends_with_its_children(path):
    with wire.Started(loads(path)) as server:
        processes = server.processes()
        assert server.address == f"http://127.0.0.1:{server.port}/v1"
        assert server.memory() > 1e6
    assert len(processes) == 2
    assert not any(map(lives, processes))
    assert server.log.read_text() == "loading the model\n"


def test_a_child_does_not_outlive_a_server_that_died():
    with wire.Started(loads("/health")) as server:
        parent, child = sorted(server.processes(), key=lambda one: one.pid)
        if child.ppid() != parent.pid:
            parent, child = child, parent
        parent.kill()
        psutil.wait_procs([parent])
    assert not lives(child)


def test_a_server_that_ends_is_quoted_with_the_remedy():
    words = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with pytest.raises(OSError, match=r"code 3\. Load it\. It said:\nno such model"):
        wire.Started(lambda port: words, remedy="Load it.")


def test_a_program_that_is_not_there_says_so():
    with pytest.raises(OSError, match="no-such-server could not start"):
        wire.Started(lambda port: ["no-such-server"])


def test_a_server_that_never_answers_is_ended():
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    before = set(psutil.Process().children())
    with pytest.raises(TimeoutError, match="did not answer within 0.5 seconds"):
        wire.Started(lambda port: words, patience=0.5)
    assert set(psutil.Process().children()) <= before


def test_a_server_ends_with_the_program_that_started_it():
    code = f"""
import sys
from qwen_course.platforms import wire
words = [sys.executable, "-c", {LOADS!r}]
server = wire.Started(lambda port: [*words, str(port), "/health"])
print(*[one.pid for one in server.processes()])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert not any(
        psutil.pid_exists(pid) and lives(psutil.Process(pid)) for pid in pids
    )


# Asking


@pytest.fixture(scope="module")
def asked(pocket):
    """Prompts with thinking and without, and what the model writes after each."""
    model, tokenizer = pocket
    rows = [
        encode(tokenizer, check_messages(one.question), number % 2 == 0)
        for number, one in enumerate(qc.tasks.sums.problems(6, seed=6))
    ]
    return rows, [inference.write(model, row, 64).ids for row in rows]


@pytest.fixture(scope="module")
def runner(pocket):
    from qwen_course.server import create_app, in_background
    from qwen_course.service import QwenService

    with (
        QwenService(*pocket, timeout=600) as service,
        in_background(create_app(service)) as address,
        wire.Runner(address, "pocket-qwen3", pocket[1]) as runner,
    ):
        yield runner


@needs_server
def test_a_server_that_takes_messages_only_gives_the_models_own_tokens(runner, asked):
    rows, plain = asked
    assert runner.form == "chat"
    found = [runner.write(row, 64) for row in rows]
    assert engines.compare(plain, [one.ids for one in found]).equal == len(rows)
    assert all(sorted(one.moments) == list(one.moments) for one in found)
    assert engines.compare(plain, runner.answers(rows, 64)).equal == len(rows)
    assert runner.answers([]) == []


@needs_server
def test_a_server_that_always_stops_says_so(runner, asked):
    with pytest.raises(ValueError, match="always stops at the end token"):
        runner.write(asked[0][0], stop=False)


@needs_server
def test_a_model_that_is_not_served_is_refused_in_the_servers_words(runner):
    with pytest.raises(ValueError, match='"another" is not served here'):
        wire.Runner(runner.address, "another", runner.tokenizer)


@needs_server
def test_nobody_at_the_address_is_an_error_that_asks(pocket):
    address = f"http://127.0.0.1:{wire.free_port()}/v1"
    with pytest.raises(OSError, match="Is it running"):
        wire.Runner(address, "pocket-qwen3", pocket[1])


def test_a_slip_in_the_form_names_the_nearest(pocket):
    with pytest.raises(ValueError, match='"chats" is not one of ids, text, chat'):
        wire.Runner("http://127.0.0.1:1/v1", "pocket-qwen3", pocket[1], form="chats")


def test_messages_come_back_from_a_prompt_or_it_is_refused(pocket):
    tokenizer = pocket[1]
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+2?\nAnd 3+3?"},
    ]
    for thinking in (True, False):
        found = wire.conversation(tokenizer, encode(tokenizer, talk, thinking))
        assert found == (talk, thinking)
    with pytest.raises(ValueError, match="takes messages only"):
        wire.conversation(tokenizer, tokenizer("Once upon a time").input_ids)


@pytest.mark.parametrize(
    "part",
    [
        {"content": "<think>\n1 + 1 = 2\n</think>\n\n2"},
        {"content": "2", "reasoning_content": "1 + 1 = 2"},
        {"content": "\n\n2", "reasoning": "\n1 + 1 = 2\n"},
        {"text": "<think>\n1 + 1 = 2\n</think>\n\n2"},
    ],
)
def test_all_servers_words_are_the_same_tokens(pocket, part):
    tokenizer = pocket[1]
    said = wire.Said()
    choice = SimpleNamespace(finish_reason="stop", **part)
    assert said.hear(choice, choice) == 2
    text = "<think>\n1 + 1 = 2\n</think>\n\n2<|im_end|>"
    assert said.ids(tokenizer, 64) == tokenizer(text).input_ids
    assert said.ids(tokenizer, 3) == tokenizer(text).input_ids[:3]


def test_an_answer_that_was_cut_off_while_thinking_stays_open(pocket):
    choice = SimpleNamespace(finish_reason="length", content="", reasoning="1 + 1")
    said = wire.Said()
    said.hear(choice, choice)
    assert said.text() == "<think>\n1 + 1"
    assert said.ids(pocket[1], 64)[-1] != pocket[1].eos_token_id


def test_a_server_that_sends_token_ids_is_taken_at_its_word(pocket):
    end = pocket[1].eos_token_id
    said = wire.Said()
    first = SimpleNamespace(finish_reason=None, text="a", token_ids=[5, 6])
    last = SimpleNamespace(finish_reason="stop", text="", token_ids=[end])
    assert [said.hear(one, one) for one in (first, last)] == [2, 1]
    assert said.ids(pocket[1], 64) == [5, 6, end]


# The words of a command


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tensor-paralel-size", "2"], r"no option .*Did you mean"),
        (["--port", "--headless"], "--port takes a value"),
        (["--port"], "--port takes a value"),
        (["--tool-call-parser", "hermess"], r'not one of .*Did you mean "hermes"'),
    ],
)
def test_an_option_that_is_not_documented_is_refused(words, why):
    with pytest.raises(ValueError, match=why):
        wire.check_options(["vllm", "serve", "model", *words], "vllm_options")
