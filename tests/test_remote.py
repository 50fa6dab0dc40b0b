"""A model behind a server: the same calls, the same answers, and errors that help."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import qwen_course as qc
from qwen_course import settings
from qwen_course.chat import complete_batch
from qwen_course.remote import RemoteModel
from qwen_course.server import create_app, in_background
from qwen_course.service import QwenService
from qwen_course.tools import ToolCall, calculator, parse_tool_calls

QUESTION = "What is 12 + 30 + 55?"
PATIENT = {"timeout": 600}  # the machine of a test may be slow


@pytest.fixture(scope="module")
def address(pocket):
    with (
        QwenService(*pocket, **PATIENT) as service,
        in_background(create_app(service)) as address,
    ):
        yield address


@pytest.fixture(scope="module")
def remote(address):
    return qc.load(address)


class Foreign(BaseHTTPRequestHandler):
    """A server of another kind: what it answers is set by the test."""

    models = {"data": [{"id": "qwen3:0.6b", "owned_by": "library"}, {"id": "other"}]}
    answer: dict = {}
    status = 200
    missing = 0  # bytes that are announced and never come
    asked: list = []

    def do_GET(self):
        self.reply(self.models)

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        type(self).asked.append(json.loads(self.rfile.read(length)))
        self.reply(self.answer)

    def reply(self, data):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body) + self.missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def foreign(monkeypatch):
    """Its address, and the class whose attributes decide what it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Foreign, "asked", [])
    yield f"http://127.0.0.1:{server.server_port}/v1", monkeypatch
    server.shutdown()
    server.server_close()


def said(content, **more):
    message = {"role": "assistant", "content": content, **more}
    usage = {"prompt_tokens": 5, "completion_tokens": 10}
    choice = {"message": message, "finish_reason": "stop"}
    return {"choices": [choice], "usage": usage}


# The course's own server


def test_an_answer_is_the_one_of_the_model_itself(remote, pocket):
    here = qc.chat(*pocket, QUESTION, sampling="greedy")
    there = qc.chat(*remote, QUESTION, sampling="greedy")
    assert (there.thinking, there.answer) == (here.thinking, here.answer)
    assert there.stopped == here.stopped
    for tokens in ("prompt_tokens", "thinking_tokens", "answer_tokens"):
        assert getattr(there.usage, tokens) == getattr(here.usage, tokens)


def test_an_evaluation_gives_the_same_scores(remote, pocket):
    problems = qc.tasks.sums.problems(8, seed=12)
    options = {"progress": False, "thinking": False}
    here = qc.evaluate(*pocket, problems, **options)
    there = qc.evaluate(*remote, problems, **options)
    assert [r.answer for r in there.replies] == [r.answer for r in here.replies]
    assert there.accuracy == here.accuracy


def test_a_stream_calls_back_with_the_text_so_far(remote):
    calls = []
    reply = qc.chat(
        *remote, QUESTION, sampling="greedy", stream=lambda *text: calls.append(text)
    )
    assert calls[-1] == (reply.thinking, reply.answer)
    assert len(calls) > 3
    assert reply.usage.time_to_first_token <= reply.usage.seconds


def test_budget_seed_and_conversation_reach_the_server(remote, pocket):
    options = {"sampling": "greedy", "thinking_budget": 6}
    there, here = (qc.chat(*who, QUESTION, **options) for who in (remote, pocket))
    assert there.thinking == here.thinking
    wild = {"sampling": {"temperature": 1.5, "top_k": 50}, "seed": 3}
    assert len({qc.chat(*remote, QUESTION, **wild).thinking for _ in range(3)}) == 1
    first = qc.chat(*remote, "My name is Ada.", sampling="greedy")
    talk = [*first.messages, {"role": "user", "content": "What is my name?"}]
    assert "Ada" in qc.chat(*remote, talk, sampling="greedy").answer


def test_tools_are_called_through_the_server(remote):
    question = "Use the calculator: what is 123 * 45?"
    reply = qc.chat_with_tools(*remote, question, [calculator], sampling="greedy")
    assert "5535" in reply.answer


def test_the_setting_takes_an_address(address, monkeypatch):
    monkeypatch.setenv(settings.MODEL_VARIABLE, address)
    model, tokenizer = qc.load()
    assert model.name == "pocket-qwen3"
    assert tokenizer.eos_token == "<|im_end|>"
    assert settings.specialist("coder") == "pocket-coder"


def test_what_looks_inside_the_model_says_that_it_is_elsewhere(remote):
    with pytest.raises(AttributeError, match='qc.load\\("pocket-qwen3"\\)'):
        remote[0].generate([1])
    with pytest.raises(ValueError, match="no bare texts"):
        complete_batch(*remote, ["def add("])


# Other servers


@pytest.mark.parametrize(
    ("answer", "thinking", "text"),
    [
        (said("42", reasoning_content="12 + 30"), "12 + 30", "42"),
        (said("42", reasoning="12 + 30"), "12 + 30", "42"),
        (said("<think>\n12 + 30\n</think>\n\n42"), "12 + 30", "42"),
        (said("12 + 30\n</think>\n42"), "12 + 30", "42"),
        (said("<think>\n12 +"), "12 +", ""),
        (said("42"), "", "42"),
    ],
)
def test_thinking_is_found_wherever_a_server_puts_it(foreign, answer, thinking, text):
    address, patch = foreign
    patch.setattr(Foreign, "answer", answer)
    reply = qc.chat(*qc.load(address), QUESTION)
    assert (reply.thinking, reply.answer) == (thinking, text)
    assert reply.usage.thinking_tokens + reply.usage.answer_tokens == 10


def test_a_request_carries_what_chat_was_told(foreign):
    address, patch = foreign
    patch.setattr(Foreign, "answer", said("42"))
    model, tokenizer = qc.load(f"{address}#other")
    qc.chat(model, tokenizer, QUESTION, thinking=False, max_new_tokens=9, seed=4,
            sampling="greedy")  # fmt: skip
    assert Foreign.asked[0] == {
        "model": "other",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 9,
        "chat_template_kwargs": {"enable_thinking": False},
        "temperature": 0,
        "seed": 4,
    }


def test_recommended_sampling_is_sent_to_a_server_that_may_not_know_it(foreign):
    address, patch = foreign
    patch.setattr(Foreign, "answer", said("42"))
    qc.chat(*qc.load(address), QUESTION)
    assert Foreign.asked[0]["temperature"] == 0.6


def test_a_key_goes_along(foreign, monkeypatch):
    address, patch = foreign
    heads = []
    patch.setattr(Foreign, "answer", said("42"))
    patch.setattr(Foreign, "log_message", lambda self, *a: heads.append(self.headers))
    monkeypatch.setenv("QWEN_COURSE_API_KEY", "secret")
    qc.chat(*qc.load(address), QUESTION)
    assert {head["Authorization"] for head in heads} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, OSError, "QWEN_COURSE_API_KEY"),
        (404, OSError, "The address ends in /v1"),
        (429, OSError, "Try again in"),
        (400, ValueError, "answers 400: too hot"),
        (500, OSError, "answers 500: too hot"),
    ],
)
def test_a_refusal_becomes_a_sentence_with_a_remedy(foreign, status, kind, message):
    address, patch = foreign
    model, tokenizer = qc.load(address)
    patch.setattr(Foreign, "status", status)
    patch.setattr(Foreign, "answer", {"error": {"message": "too hot"}})
    with pytest.raises(kind, match=message):
        qc.chat(model, tokenizer, QUESTION)


@pytest.mark.parametrize("stream", [None, lambda *text: None])
def test_an_answer_that_breaks_off_says_so(foreign, stream):
    address, patch = foreign
    patch.setattr(Foreign, "answer", said("42"))
    model, tokenizer = qc.load(address)
    patch.setattr(Foreign, "missing", 10)
    patch.setattr(Foreign, "answer", b"data: {}\n" if stream else b'{"choices": [')
    with pytest.raises(OSError, match="Is it running"):
        qc.chat(model, tokenizer, QUESTION, stream=stream)


def test_a_call_that_comes_in_pieces_is_put_together(foreign):
    """vLLM and others cut the arguments of a call up, one piece a token."""
    address, patch = foreign
    texts = ['{"expression": ', '"123 *', ' 45"}']
    pieces = [{"index": 0, "id": "c", "function": {"name": "calculator"}}]
    pieces += [{"index": 0, "function": {"arguments": text}} for text in texts]
    pieces.insert(2, {"index": 1, "function": {"name": "clock", "arguments": "{}"}})
    deltas = [{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in pieces]
    deltas.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    events = [f"data: {json.dumps(delta)}\n\n" for delta in deltas]
    patch.setattr(Foreign, "answer", "".join([*events, "data: [DONE]\n\n"]).encode())
    model, tokenizer = qc.load(address)
    reply = qc.chat(model, tokenizer, QUESTION, tools=[calculator],
                    stream=lambda *text: None)  # fmt: skip
    assert parse_tool_calls(reply.answer) == [
        ToolCall("calculator", {"expression": "123 * 45"}),
        ToolCall("clock", {}),
    ]


def test_what_is_no_model_server_is_told_apart(foreign):
    address, patch = foreign
    with pytest.raises(ValueError, match="It has qwen3:0.6b, other"):
        qc.load(f"{address}#qwen9")
    patch.setattr(Foreign, "models", {"data": []})
    with pytest.raises(OSError, match="no model loaded"):
        qc.load(address)
    patch.setattr(Foreign, "models", b"<html>")
    with pytest.raises(OSError, match="sent no JSON"):
        qc.load(address)


def test_where_nothing_listens_the_error_says_how_to_start_a_server():
    with pytest.raises(OSError, match="qwen-course serve"):
        qc.load("http://127.0.0.1:9/v1")


def test_a_budget_is_refused_where_the_server_would_ignore_it():
    model = RemoteModel("http://x/v1", "qwen3")
    with pytest.raises(ValueError, match="knows no thinking_budget"):
        qc.chat(model, None, QUESTION, thinking_budget=5)
    with pytest.raises(ValueError, match="is not recommended or greedy"):
        qc.chat(model, None, QUESTION, sampling="hot")
    with pytest.raises(ValueError, match="not min_p"):
        qc.chat(model, None, QUESTION, sampling={"min_p": 0.1})
