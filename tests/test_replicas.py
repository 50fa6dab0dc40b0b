"""Replicas: two servers share the requests, and one that dies loses none of them."""

import os
import signal
import threading
import time

import pytest

import qwen_course as qc
from qwen_course import replicas
from qwen_course.platforms.wire import free_port

QUESTIONS = [problem.question for problem in qc.tasks.sums.problems(24, seed=41)]


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(replicas.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "qwen-course\[replicas\]"'):
        replicas.application()


@pytest.mark.skipif(bool(replicas.why_not()), reason=str(replicas.why_not()))
@pytest.mark.timeout(600)
def test_a_replica_is_killed_and_every_request_gets_its_greedy_answer(pocket):
    import openai

    alone = qc.chat_batch(*pocket, QUESTIONS, sampling="greedy")
    answers = {}
    with replicas.running(replicas=2, port=free_port()) as address:
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=20)

        def ask(number):
            talk = [{"role": "user", "content": QUESTIONS[number]}]
            answer = client.chat.completions.create(
                model="pocket-qwen3", messages=talk, temperature=0
            )
            answers[number] = answer.choices[0].message

        users = [threading.Thread(target=ask, args=(n,)) for n in range(len(QUESTIONS))]
        for user in users:
            user.start()
        before = replicas.processes()
        assert len(before) == 2
        while not answers:
            time.sleep(0.01)
        os.kill(before[0], signal.SIGKILL)
        for user in users:
            user.join()
    found = [answers[n] for n in range(len(QUESTIONS))]
    assert [one.content for one in found] == [reply.answer for reply in alone]
    thought = [getattr(one, "reasoning_content", "") for one in found]
    assert thought == [reply.thinking for reply in alone]
