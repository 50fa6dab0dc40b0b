"""The small device: one process that holds the model, and answers line by line.

`edge.EdgeAssistant` starts it as a file, so that nothing of the course is loaded: the
standard library and llama.cpp alone (or torch and Transformers, to compare). It reads
one JSON object a line from stdin: first its task, then questions.
"""

import contextlib
import http.client
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Task = dict[str, Any]
Answer = Callable[[Task], tuple[str, str]]  # a question; its thinking and its answer
THINKING_ENDS = "\n</think>\n\n"


def limit_memory(memory_mb: float) -> bool:
    """Have the kernel refuse what goes beyond a ceiling; return whether it will.

    RLIMIT_DATA counts what a process may write to, reserved or used. RLIMIT_AS would
    also count addresses that are only set aside: some hundred MB for a few threads.
    """
    if sys.platform != "linux":
        return False
    import resource

    most = int(memory_mb * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return True


def raise_loopback() -> None:
    """Switch on 127.0.0.1, all that a network namespace of one's own has."""
    import fcntl
    import socket
    import struct

    with socket.socket() as any_socket, contextlib.suppress(OSError):
        up = struct.pack("16sh14x", b"lo", 1)
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS, IFF_UP


def peak_mb() -> float:
    """Return the most memory that this process held at once; 0.0 where unknown."""
    try:
        import resource
    except ImportError:
        return 0.0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def reaches_network(timeout: float = 1.0) -> bool:
    """Return whether this process finds a way out of the machine.

    Connecting a datagram socket sends nothing; it asks the kernel for a route.
    """
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.settimeout(timeout)
        try:
            any_socket.connect(("192.0.2.1", 9))  # an address kept for documentation
        except OSError:
            return False
    return True


# The two engines


def llama_cpp(task: Task) -> Answer:
    """Load a GGUF with llama.cpp's server, for one text at a time."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = task["model"]
    params.n_parallel, params.n_ctx = 1, task["context"]
    params.n_batch = params.n_ubatch = 128  # a smaller buffer; prompts are short
    params.n_threads_http = 1
    for cores in (params.cpuparams, params.cpuparams_batch):
        cores.n_threads = task["threads"]
    params.verbosity, params.offline, params.ui = 0, True, False
    params.cache_ram_mib = 0
    key = secrets.token_urlsafe(16)
    params.api_keys = [key]
    server = xllamacpp.Server(params)

    def ask(place: str, body: Task) -> Task:
        # subtle: naming the server here keeps it; it ends when nothing holds it
        line = http.client.HTTPConnection(server.listening_address.rpartition("/")[2])
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        line.request("POST", place, json.dumps(body), head)
        answer = line.getresponse()
        said = json.load(answer)
        if answer.status != http.client.OK:
            raise ValueError(said["error"]["message"])
        return said

    def write(prompt: str, most: int, stop: list[str]) -> str:
        body = {"prompt": prompt, "n_predict": most, "temperature": 0, "stop": stop}
        return ask("/completion", body)["content"]

    def answer(question: Task) -> tuple[str, str]:
        budget = question["thinking_budget"]
        template = {"enable_thinking": budget > 0}
        prompt = ask(
            "/apply-template",
            {"messages": question["messages"], "chat_template_kwargs": template},
        )["prompt"]
        thinking = ""
        if budget > 0:
            thinking = write(prompt, budget, ["</think>"])
            prompt += thinking.rstrip("\n") + THINKING_ENDS
        answered = write(prompt, question["max_new_tokens"], [])
        return thinking.replace("<think>", "").strip(), answered.strip()

    return answer


def torch(task: Task) -> Answer:
    """Load a checkpoint folder with Transformers, the way of the other lessons."""
    import torch as library
    from transformers import AutoModelForCausalLM, AutoTokenizer

    library.set_num_threads(task["threads"])
    tokenizer: Any = AutoTokenizer.from_pretrained(task["model"])
    model: Any = AutoModelForCausalLM.from_pretrained(task["model"], dtype="bfloat16")

    def write(prompt: str, most: int) -> str:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        whole = model.generate(**ids, max_new_tokens=most, do_sample=False)
        new = whole[0, ids["input_ids"].shape[1] :]
        return tokenizer.decode(new, skip_special_tokens=True)

    def answer(question: Task) -> tuple[str, str]:
        budget = question["thinking_budget"]
        prompt = tokenizer.apply_chat_template(
            question["messages"], add_generation_prompt=True, tokenize=False,
            enable_thinking=budget > 0,
        )  # fmt: skip
        thinking = ""
        if budget > 0:
            thinking = write(prompt, budget).partition("</think>")[0]
            prompt += thinking.rstrip("\n") + THINKING_ENDS
        answered = write(prompt, question["max_new_tokens"])
        return thinking.replace("<think>", "").strip(), answered.strip()

    return answer


ENGINES = {"llama.cpp": llama_cpp, "torch": torch}


# The conversation with the parent


def lines() -> Iterator[Task]:
    """Yield what the parent sends."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Limit the memory, load the model, answer until stdin ends."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes where it disturbs nobody

    def say(**what: Any) -> None:
        said.write(json.dumps(what | {"peak_mb": round(peak_mb(), 1)}) + "\n")
        said.flush()

    questions = lines()
    task = next(questions)
    if task["apart"]:
        raise_loopback()
    limited = limit_memory(task["memory_mb"])
    started = time.perf_counter()
    answer = ENGINES[task["engine"]](task)
    say(ready=True, seconds=time.perf_counter() - started, limited=limited,
        network=reaches_network())  # fmt: skip
    for question in questions:
        started = time.perf_counter()
        try:
            thinking, text = answer(question)
        except ValueError as error:
            say(error=str(error))
            continue
        say(thinking=thinking, answer=text, seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
