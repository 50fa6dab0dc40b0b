"""The service: many users at once, each answered as if alone; limits, and an end."""

import asyncio
import logging
import subprocess
import sys
import threading

import pytest
import torch

import qwen_course as qc
from qwen_course import memory
from qwen_course.continuous import Request, choose, sample
from qwen_course.growing import Growing, _before
from qwen_course.service import QwenService, Sampling, ServiceClosed, ServiceFull

GREEDY = Sampling(temperature=0)
PATIENT = {"timeout": 600}  # the machine of a test may be slow


@pytest.fixture(scope="module")
def asked(pocket):
    """Questions of several lengths, and the greedy reply to each alone."""
    problems = [
        *qc.tasks.sums.problems(4, seed=31),
        *qc.tasks.word_problems.problems(3, seed=31),
        *qc.tasks.products.problems(2, seed=31),
    ]
    questions = [problem.question for problem in problems]
    alone = [qc.chat(*pocket, question, sampling="greedy") for question in questions]
    return questions, alone


@pytest.fixture(scope="module")
def service(pocket):
    with QwenService(*pocket, **PATIENT) as service:
        yield service


@pytest.fixture
def told(service):
    """What the observers are told while a test runs."""
    heard = []
    service.observers.append(heard.append)
    yield heard
    service.observers.remove(heard.append)


def same(reply, expected) -> bool:
    texts = (reply.thinking, reply.answer, reply.stopped)
    tokens = (reply.usage.thinking_tokens, reply.usage.answer_tokens)
    used = expected.usage
    wanted = (expected.thinking, expected.answer, expected.stopped)
    return texts == wanted and tokens == (used.thinking_tokens, used.answer_tokens)


def gather(service, questions, sampling=GREEDY):
    async def all_of_them():
        jobs = [service.generate_async(q, sampling) for q in questions]
        return await asyncio.gather(*jobs, return_exceptions=True)

    return asyncio.run(all_of_them())


# Answers


def test_every_answer_among_many_is_the_greedy_one_alone(service, asked):
    questions, alone = asked
    replies = gather(service, questions)
    assert all(map(same, replies, alone))


def test_more_requests_than_places_are_all_answered(pocket, asked):
    questions, alone = asked
    with QwenService(*pocket, **PATIENT, max_batch=2) as service:
        assert all(map(same, gather(service, questions), alone))


def test_a_batch_in_ordinary_code_gives_each_row_its_single_answer(service, asked):
    questions, alone = asked
    assert all(map(same, service.generate_batch(questions, GREEDY), alone))


def test_a_batch_works_inside_a_notebook_whose_loop_is_running(service, asked):
    async def cell():
        return service.generate_batch(asked[0][:2], GREEDY)

    assert all(map(same, asyncio.run(cell()), asked[1]))


def test_a_long_batch_does_not_fill_the_queue(pocket, asked):
    with QwenService(*pocket, **PATIENT, max_batch=2, max_waiting=0) as service:
        assert all(map(same, service.generate_batch(asked[0], GREEDY), asked[1]))


def test_each_row_of_a_batch_may_have_its_own_sampling(service, asked):
    short = Sampling(temperature=0, max_new_tokens=3)
    first, second = service.generate_batch(asked[0][:2], [short, GREEDY])
    assert (first.stopped, same(second, asked[1][1])) == ("length", True)
    with pytest.raises(ValueError, match="2 entries for 1 conversations"):
        service.generate_batch(asked[0][:1], [GREEDY, GREEDY])


def test_a_conversation_goes_on_from_the_messages_of_a_reply(service):
    first = service.generate_batch(["My name is Ada."], GREEDY)[0]
    talk = [*first.messages, {"role": "user", "content": "What is my name?"}]
    assert "Ada" in service.generate_batch([talk], GREEDY)[0].answer


def test_two_event_loops_at_once_get_their_own_answers(service, asked):
    questions, alone = asked
    found = {}

    def ask(name, chosen):
        found[name] = gather(service, chosen)

    threads = [threading.Thread(target=ask, args=(n, questions[n::2])) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(same, found[0] + found[1], alone[0::2] + alone[1::2]))


def test_requests_that_do_not_fit_into_the_cache_wait_and_end_right(pocket):
    problems = qc.tasks.sums.problems(16, seed=8, count=7)
    questions = [problem.question for problem in problems]
    alone = qc.chat_batch(*pocket, questions, sampling="greedy")
    room = 1100 * memory.kv_cache_bytes(memory.dimensions(pocket[0].config), 1, 4)
    with QwenService(*pocket, **PATIENT, cache_bytes=room) as service:
        replies = gather(service, questions)
    used = [reply.usage for reply in replies]
    assert sum(u.prompt_tokens + u.thinking_tokens for u in used) > service.context
    assert all(map(same, replies, alone))


def test_a_small_cache_limits_the_length_of_a_request(pocket):
    service = QwenService(*pocket, cache_bytes=1)
    assert service.context == 512
    error = gather(service, ["word " * 600])[0]
    assert "takes at most 512" in str(error)


def test_a_mixture_of_experts_is_served_as_well():
    model, tokenizer = qc.load("pocket-qwen3-moe")
    question = "What is 12 + 30 + 5?"
    with QwenService(model, tokenizer, **PATIENT) as service:
        reply = service.generate_batch([question, "What is 7 + 8?"], GREEDY)[0]
    assert same(reply, qc.chat(model, tokenizer, question, sampling="greedy"))


# Streams


def pieces_of(service, question, sampling=GREEDY):
    async def read():
        return [piece async for piece in service.stream(question, sampling)]

    return asyncio.run(read())


def test_the_pieces_of_a_stream_add_up_to_the_reply(service, asked):
    *pieces, last = pieces_of(service, asked[0][0])
    assert len(pieces) > 2
    assert same(last.reply, asked[1][0])
    assert "".join(piece.thinking for piece in pieces) == last.reply.thinking
    assert "".join(piece.answer for piece in pieces) == last.reply.answer


def test_a_stream_never_cuts_a_character(service):
    *pieces, last = pieces_of(service, "谁创造了Qwen？")
    assert "".join(piece.answer for piece in pieces) == last.reply.answer
    assert any(ord(letter) > 0x4E00 for letter in last.reply.answer)
    assert not any("\ufffd" in piece.answer for piece in pieces)


def test_a_slow_reader_gets_larger_pieces_and_holds_nobody_up(service, asked):
    questions, alone = asked

    async def both():
        stream = service.stream(questions[0], GREEDY)
        first = await anext(stream)  # and now it does not read for a while
        others = [service.generate_async(q, GREEDY) for q in questions[1:]]
        replies = await asyncio.gather(*others)
        return first, replies, [piece async for piece in stream]

    first, replies, (*rest, last) = asyncio.run(both())
    assert all(map(same, replies, alone[1:]))
    assert len(rest[0].thinking) > 10 * len(first.thinking)
    thought = "".join(piece.thinking for piece in [first, *rest])
    assert thought == alone[0].thinking
    assert same(last.reply, alone[0])


def test_a_reader_that_leaves_frees_its_place(service, told):
    async def leave():
        stream = service.stream("What is 12 + 30 + 55 + 7 + 8?", GREEDY)
        await anext(stream)
        await stream.aclose()
        return service.running + service.waiting

    assert asyncio.run(leave()) == 0
    assert told[0].finish_reason == "cancelled"
    assert told[0].output_tokens > 0


# Sampling


def test_a_seed_gives_the_same_answer_alone_and_in_company(service, asked):
    wish = Sampling(seed=5, temperature=1.5, top_p=1.0, top_k=50)
    alone = gather(service, asked[0][:1], wish)[0]
    company = [asked[0][0], *asked[0]]

    async def mixed():
        jobs = [service.generate_async(q, wish if n == 0 else Sampling())
                for n, q in enumerate(company)]  # fmt: skip
        return await asyncio.gather(*jobs)

    assert same(asyncio.run(mixed())[0], alone)


def test_a_greedy_request_is_not_disturbed_by_sampled_neighbours(service, asked):
    async def mixed():
        hot = [service.generate_async(q, Sampling(temperature=2.0)) for q in asked[0]]
        replies = await asyncio.gather(
            service.generate_async(asked[0][2], GREEDY), *hot
        )
        return replies[0]

    assert same(asyncio.run(mixed()), asked[1][2])


def test_the_thinking_budget_is_that_of_chat(service, pocket, asked):
    wish = Sampling(temperature=0, thinking_budget=8)
    expected = qc.chat(*pocket, asked[0][0], sampling="greedy", thinking_budget=8)
    assert same(gather(service, asked[0][:1], wish)[0], expected)


def test_without_thinking_it_answers_at_once(service, pocket, asked):
    wish = Sampling(temperature=0, thinking=False)
    expected = qc.chat(*pocket, asked[0][0], sampling="greedy", thinking=False)
    assert same(gather(service, asked[0][:1], wish)[0], expected)


def test_a_stop_text_ends_the_answer_before_it(service, pocket, told):
    question = "Who created Qwen?"
    whole = qc.chat(*pocket, question, sampling="greedy").answer
    stop = whole.split()[2]
    *pieces, last = pieces_of(service, question, Sampling(temperature=0, stop=(stop,)))
    assert last.reply.answer == whole.partition(stop)[0].strip()
    assert "".join(piece.answer for piece in pieces) == last.reply.answer
    assert told[0].finish_reason == "stop"


def test_what_may_be_the_beginning_of_a_stop_text_is_held_back():
    assert _before("one EN", ["END"], whole=False) == "one "
    assert _before("one EN", ["END"], whole=True) == "one EN"
    assert _before("one END two", ["END"], whole=False) == "one "


def test_sampling_draws_from_the_tokens_that_generate_would_keep():
    from transformers import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(1)) * 3
    kept = scores
    for warp in (
        TemperatureLogitsWarper(0.8),
        TopKLogitsWarper(9),
        TopPLogitsWarper(0.9),
    ):
        kept = warp(None, kept)
    request = Request("", [], 1, temperature=0.8, top_k=9, top_p=0.9, seed=2)
    drawn = [int(sample(scores, [request])) for _ in range(4000)]
    share = torch.bincount(torch.tensor(drawn), minlength=40) / len(drawn)
    assert (share > 0).tolist() == (kept[0] > -torch.inf).tolist()
    assert torch.allclose(share, kept[0].softmax(-1), atol=0.03)


def test_only_the_rows_that_are_sampled_are_changed():
    scores = torch.arange(12.0).reshape(2, 6)
    rows = [(Request("a", [], 1), []), (Request("b", [], 1, temperature=1.0), [])]
    found = choose(scores.clone(), rows)
    assert torch.equal(found[0], scores[0])
    assert (found[1] > -torch.inf).sum() == 1


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"temperature": 3}, "0 is greedy"),
        ({"top_p": 1.5}, "0.95 is usual"),
        ({"top_k": -1}, "0 takes all tokens"),
        ({"max_new_tokens": 0}, "from 1 up"),
        ({"thinking_budget": 0}, "thinking=False"),
        ({"thinking_budget": 5, "thinking": False}, "needs thinking=True"),
        ({"stop": ["a"] * 5}, "at most 4"),
        ({"stop": ""}, "1 to 64 characters"),
        ({"seed": 2**70}, "64 bits"),
        ({"temperatur": 1}, 'Did you mean "temperature"'),
    ],
)
def test_a_wish_that_cannot_be_met_says_what_can(wish, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**wish)


# What is told


def test_the_observers_hear_of_every_request_once_and_in_numbers(service, told, asked):
    questions, alone = asked
    gather(service, questions)
    pieces_of(service, questions[0])
    assert len(told) == len(questions) + 1
    assert {one.finish_reason for one in told} == {"stop"}
    assert [one.stream for one in told].count(True) == 1
    assert {one.model for one in told} == {"pocket-qwen3"}
    for one in told:
        assert one.queued <= one.started <= one.first_token <= one.ended
        assert one.seconds >= one.time_to_first_token >= one.queue_seconds >= 0
        assert one.prefill_rate > 0
        assert one.decode_rate > 0
    heard = sorted((one.thinking_tokens, one.answer_tokens) for one in told[:-1])
    used = [reply.usage for reply in alone]
    assert heard == sorted((u.thinking_tokens, u.answer_tokens) for u in used)


def test_an_observer_that_fails_is_logged_and_harms_nobody(service, asked, caplog):
    def broken(served):
        raise KeyError("oh")

    service.observers.append(broken)
    try:
        with caplog.at_level(logging.ERROR):
            assert same(gather(service, asked[0][:1])[0], asked[1][0])
    finally:
        service.observers.remove(broken)
    assert "an observer of the service failed" in caplog.text


# Limits


def test_the_event_loop_is_free_while_the_model_computes(service, asked):
    async def count():
        work = asyncio.create_task(service.generate_async(asked[0][0], GREEDY))
        turns = 0
        while not work.done():
            await asyncio.sleep(0.001)
            turns += 1
        return turns

    assert asyncio.run(count()) > 10


def test_a_full_queue_refuses_and_answers_what_it_took(pocket, asked):
    heard = []
    with QwenService(*pocket, **PATIENT, max_batch=1, max_waiting=2,
                     observers=[heard.append]) as service:  # fmt: skip
        replies = gather(service, asked[0][:5])
    assert all(map(same, replies[:3], asked[1]))
    for refused in replies[3:]:
        assert isinstance(refused, ServiceFull)
        assert "raise max_waiting" in str(refused)
    assert [one.finish_reason for one in heard].count("refused") == 2


def test_a_cancelled_task_leaves_the_batch_and_the_others_go_on(service, told, asked):
    questions, alone = asked

    async def cancel_one():
        tasks = [asyncio.create_task(service.generate_async(q, GREEDY))
                 for q in questions[:3]]  # fmt: skip
        while not service.running:
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = asyncio.run(cancel_one())
    assert isinstance(first, asyncio.CancelledError)
    assert all(map(same, others, alone[1:]))
    assert told[0].finish_reason == "cancelled"
    assert service.running + service.waiting == 0


def test_a_request_that_takes_too_long_ends_and_says_so(pocket):
    heard = []
    with QwenService(*pocket, timeout=0.01, observers=[heard.append]) as service:
        late = gather(service, ["What is 12 + 30 + 55 + 7 + 8?"])[0]
    assert isinstance(late, TimeoutError)
    assert "raise timeout" in str(late)
    assert (heard[0].finish_reason, heard[0].error) == ("timeout", "TimeoutError")


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(pocket, asked):
    questions, alone = asked

    async def close_early():
        service = QwenService(*pocket, **PATIENT, max_batch=2)
        tasks = [asyncio.create_task(service.generate_async(q, GREEDY))
                 for q in questions]  # fmt: skip
        await asyncio.sleep(0)
        closing = asyncio.create_task(service.aclose())
        await asyncio.sleep(0)
        with pytest.raises(ServiceClosed, match="Start a new one"):
            await service.generate_async(questions[0])
        await closing
        return await asyncio.gather(*tasks)

    assert all(map(same, asyncio.run(close_early()), alone))


def test_closing_in_the_loop_that_waits_is_refused_instead_of_hanging(pocket, asked):
    async def cell():
        async with QwenService(*pocket, **PATIENT) as service:
            task = asyncio.create_task(service.generate_async(asked[0][0], GREEDY))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="await service.aclose"):
                service.close()
            return await task

    assert same(asyncio.run(cell()), asked[1][0])


def test_when_the_model_fails_its_requests_hear_of_it_and_the_next_is_answered(
    pocket, asked, monkeypatch
):
    model, tokenizer = pocket
    forward, calls = type(model).forward, []

    def fails_once(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise ArithmeticError("a pass went wrong")
        return forward(self, *args, **kwargs)

    with QwenService(model, tokenizer, **PATIENT) as service:
        monkeypatch.setattr(type(model), "forward", fails_once)
        failed = gather(service, asked[0][:2])
        assert all("a pass went wrong" in str(error) for error in failed)
        assert same(gather(service, asked[0][:1])[0], asked[1][0])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty"),
        ([{"role": "usr", "content": "Hi"}], 'Did you mean "user"'),
        ("word " * 3000, "takes at most 1024"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(service, told, messages, message):
    error = gather(service, [messages])[0]
    assert isinstance(error, ValueError)
    assert message in str(error)
    assert (told[0].finish_reason, told[0].error) == ("refused", "ValueError")
    assert service.waiting == 0


def test_an_answer_ends_at_the_end_of_the_context(service):
    long = " ".join(["one"] * 2000)
    tokens = service.prompt_tokens(long)
    keep = int(2000 * (service.context - 40) / tokens)
    reply = gather(service, [" ".join(["one"] * keep)])[0]
    used = reply.usage
    written = used.thinking_tokens + used.answer_tokens
    assert used.prompt_tokens + written <= service.context


def test_a_model_that_is_no_language_model_is_refused(seeing):
    with pytest.raises(ValueError, match="reads text alone"):
        QwenService(*seeing)
    with pytest.raises(ValueError, match="needs a language model of transformers"):
        QwenService(torch.nn.Linear(2, 2), None)


def test_limits_that_make_no_sense_are_refused(pocket):
    with pytest.raises(ValueError, match="1 or more places"):
        QwenService(*pocket, **PATIENT, max_batch=0)


def test_a_prompt_that_opens_the_block_itself_is_thinking_from_the_start(pocket):
    tokenizer = pocket[1]
    ids = tokenizer("12 + 30 = 42</think>42")["input_ids"]
    growing = Growing(tokenizer, opened=True, stop=())
    growing.add(ids)
    assert (growing.text(True), growing.text(False)) == ("12 + 30 = 42", "42")


def test_a_service_that_nobody_closed_lets_python_end():
    code = """
import qwen_course as qc
from qwen_course.service import QwenService, Sampling
service = QwenService(*qc.load("pocket-qwen3"))
wish = Sampling(temperature=0, max_new_tokens=2)
print(len(service.generate_batch(["Hi"], wish)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n")


def test_without_pydantic_the_error_says_what_to_install():
    code = "import sys; sys.modules['pydantic'] = None; import qwen_course.service"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "qwen-course[serve]"' in done.stderr
