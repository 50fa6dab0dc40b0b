"""Builds notebooks/08_production.ipynb from cells: python drafts/nb08.py OUT.ipynb"""
import sys
from pathlib import Path
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
sys.path.insert(0, str(Path(__file__).parent))
import nb08_security as security
cells = []
def md(id, text): cells.append(new_markdown_cell(text.strip("\n"), id=id))
def code(id, text, tags=None, alt=None):
    meta = {}
    if tags: meta["tags"] = tags
    if alt: meta["alt"] = alt
    cells.append(new_code_cell(text.strip("\n"), id=id, metadata=meta))

md("part-published", """
## 1. The published service, and sixteen users

A service answers many users at once. The published one gives each request to a thread of a pool, so that
the event loop stays free, and each thread calls `generate`. Here it is, in few lines.
""")
code("load", '''
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from qwen_course.settings import effort

model, tokenizer = qc.load()
if model.num_parameters() < 1e8:
    torch.set_num_threads(1)  # steps so small gain nothing from more
users = effort(16, 4)
kinds = (qc.tasks.sums, qc.tasks.word_problems, qc.tasks.products)
rows = zip(*(kind.problems(users, seed=8) for kind in kinds))
questions = [problem.question for row in rows for problem in row]
print(questions[:3])
''')
code("published", '''
def answer(question, limit=96):
    talk = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(
        talk, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    ).to(model.device)
    output = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


pool = ThreadPoolExecutor(16)


async def published(question):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, answer, question)
''')
md("published-text", """
`await` gives the event loop back until the answer is there. Send all users at once; then let the same questions be
answered one after the other, with no service at all.
""")
code("published-clock", '''
async def clock(ask):
    begun = time.perf_counter()
    answers = await asyncio.gather(*(ask(text) for text in questions[:users]))
    return sum(map(len, answers)) / (time.perf_counter() - begun)


answer(questions[0])  # the first run of anything is slower
begun = time.perf_counter()
tokens = sum(len(answer(text)) for text in questions[:users])
print(f"one after the other: {tokens / (time.perf_counter() - begun):5.0f} tokens/s")
print(f"{users:2} threads at once:  {await clock(published):5.0f} tokens/s")
''')
md("published-read", """
The threads are *slower* than no service at all. Each of them starts the same small programs on the same cores and waits for
Python's lock in between. Worse: nothing says how many users may come, how long one may take, or what
happens to the work of one who left. An executor keeps a loop free; it makes nothing faster. (A lock around the model
would make them wait in a row, which is at least no slower.)
""")
md("part-load", """
## 2. A load, and what users feel

"It is fast" is no measurement. Real users come at random moments and do not wait for each other. That is
an **open loop**: the gaps between two arrivals are exponential, a *Poisson process*. Build one.
""")
code("arrivals", '''
import random

chance = random.Random(1)
moment, moments = 0.0, []
while moment < 4:
    moment += chance.expovariate(5)  # five a second, in the mean
    moments.append(moment)
gaps = [after - before for before, after in zip(moments, moments[1:])]
print(f"{len(moments)} users; gaps of {min(gaps):.3f} to {max(gaps):.2f} s")
''')
md("arrivals-read", """
Some come nearly together, then nobody comes for long: that is what fills queues. Two things are measured: the **throughput**
in tokens a second, and for each user the wait, from the moment of arrival. Not from the moment in which
the service noticed: a service that blocks its own door would look fast.
""")
code("percentiles", '''
from qwen_course import traffic
from qwen_course.monitoring import percentile


async def threads(question, first):  # a way to answer; it tells of its first token
    tokens = await published(question)
    first()  # its users see nothing before all is done
    return len(tokens)


seconds, rates = effort(6, 1), (effort(2, 4), 4, 8, 16)[: effort(4, 1)]
load = await traffic.open_loop("threads", threads, questions, rates[0], seconds)
waits = sorted(visit.latency for visit in load.visits)
print(f"mean {sum(waits) / len(waits):.2f} s, longest {waits[-1]:.2f} s")
print(f"p50 {percentile(waits, 0.5):.2f} s, p95 {percentile(waits, 0.95):.2f} s")
''')
md("percentiles-read", """
**p95** is the wait that 95 of 100 users do not exceed. It is what a promise is made of; a mean hides
the users who had it worst. From here on every step gets the same load.
""")
md("part-steps", """
## 3. Three steps that everybody takes

**Step one**: a loop that answers one after the other, in the event loop itself. What does everything else feel?
A heart that should beat every 10 ms.
""")
code("blocked", '''
async def heart(beats):
    while True:
        beats.append(time.perf_counter())
        await asyncio.sleep(0.01)


async def longest_pause(work):
    beats = []
    task = asyncio.create_task(heart(beats))
    await asyncio.sleep(0.05)
    await work
    await asyncio.sleep(0.05)
    task.cancel()
    return max(after - before for before, after in zip(beats, beats[1:]))


async def naive(question):
    return answer(question)


pause = await longest_pause(naive(questions[0]))
print(f"naive loop: no beat for {1000 * pause:.0f} ms")
''')
md("blocked-read", """
While the model writes, nobody is let in, no health check is answered, nothing can be cancelled. **Step two**: one
thread that computes, with a queue before it. That is what a pool of *one* thread is.
""")
code("one-thread", '''
single = ThreadPoolExecutor(1)


async def queued(question):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(single, answer, question)


pause = await longest_pause(queued(questions[0]))
print(f"one thread: no beat for {1000 * pause:.0f} ms")
print(f"{await clock(queued):.0f} tokens/s")
''')
md("one-thread-read", """
The loop beats on, and the throughput is that of no service. Still one user waits for another. **Step three**: all
who wait are answered in one **batch**, padded on the left (lesson 06).
""")
code("batch", '''
def answer_all(texts, limit=96):
    talks = [[{"role": "user", "content": text}] for text in texts]
    inputs = tokenizer.apply_chat_template(
        talks, add_generation_prompt=True, return_dict=True, return_tensors="pt",
        padding=True, tokenizer_kwargs={"padding_side": "left"},
    ).to(model.device)  # fmt: skip
    output = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
    return output[:, inputs["input_ids"].shape[1] :].tolist()


together = answer_all(questions[:users])
end = tokenizer.eos_token_id
alone = [answer(text) for text in questions[:users]]
cut = [row[: row.index(end) + 1] if end in row else row for row in together]
print(sum(a == b for a, b in zip(alone, cut)), "of", users, "answers are those alone")
''')
md("batch-read", """
All rows equal their single answers. The published method pads on the *right*, the default of Qwen's tokenizers:
there the model goes on after filler, and answers change (lesson 06). And whoever comes just after a batch began
waits for its longest answer.
""")
code("batch-clock", '''
ways = {
    "one after the other": traffic.one_by_one(model, tokenizer),
    "threads": threads,
    "batches": traffic.in_batches(model, tokenizer),
}
closed = traffic.Loads()
for name, way in ways.items():
    closed.append(await traffic.closed_loop(name, way, questions, users, each=1))
closed
''')
md("batch-clock-read", """
This is a **closed loop**: a fixed number of users, each asking again when answered. It shows the most a way can
do. Batches write several times the tokens. See the first token, though: nobody gets one before all are done.
""")
md("part-continuous", """
## 4. Continuous batching, by transformers

Requests should join the batch when they come and leave it when they end, between two passes of the model. Lesson 06
built that by hand. transformers has it, too: a **manager** with a thread of its own.
""")
code("manager", '''
from transformers import ContinuousBatchingConfig, GenerationConfig

settings = ContinuousBatchingConfig(
    page_size=32, num_blocks=256, max_batch_tokens=512, max_requests_per_batch=16
)
greedy = GenerationConfig(do_sample=False, eos_token_id=tokenizer.eos_token_id)
manager = model.init_continuous_batching(greedy, settings)
manager.start()
''')
code("manager-ask", '''
def ids_of(question):
    talk = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(talk, add_generation_prompt=True)["input_ids"]


begun, found = time.perf_counter(), {}
names = [manager.add_request(ids_of(text), max_new_tokens=96)
         for text in questions[:users]]  # fmt: skip
while len(found) < users:
    if result := manager.get_result(timeout=1):
        found[result.request_id] = result.generated_tokens
speed = sum(map(len, found.values())) / (time.perf_counter() - begun)
same = sum(found[name] == row for name, row in zip(names, alone))
print(f"{speed:.0f} tokens/s, {same} of {users} answers are those alone")
manager.stop()
''')
md("manager-read", """
The cache is cut into **blocks** of 32 tokens; a request takes one more when it needs it, so that no place is kept for an
answer that stays short. (By default the cache takes most of the memory: say `num_blocks`.) The answers are the same, token by token.

What does a service need beyond that? Its own sampling, seed and budget for each request, a limit on who waits, a time limit,
cancelling, an end that loses nothing. `QwenService` adds these around the manager.
""")
code("service", '''
from qwen_course.service import QwenService, Sampling

service = QwenService(model, tokenizer)
reply = await service.generate_async("What is 12 + 30 + 55?", Sampling(temperature=0))
reply
''')
code("service-stream", '''
wish = Sampling(temperature=0, thinking_budget=12)
async for piece in service.stream("What is 12 + 30 + 55?", wish):
    print(piece.thinking or piece.answer, end="|")
''')
md("service-stream-read", """
Each request chooses for itself: this one streams and may think for 12 tokens only, too few for a right answer (lesson 03). How does a row of a shared batch get its own
sampling? By a **logits processor**: it leaves one token in the row. Every request draws with its own random numbers.
""")
code("service-seed", '''
hot = Sampling(temperature=1.5, top_p=1.0, top_k=50, seed=7)
first = await service.generate_async(questions[0], hot)
crowd = [service.generate_async(text) for text in questions[:users]]
again, *_ = await asyncio.gather(service.generate_async(questions[0], hot), *crowd)
print(first.answer, "|", again.answer, "|", first.thinking == again.thinking)
''')
md("service-seed-read", """
The same seed gives the same answer, alone and in a crowd. In a batch that shares one random generator it would depend on the
neighbours.
""")
md("part-measured", """
## 5. Every step under the same load

Now the four ways, each with more and more users a second, until they do not keep up.
""")
code("loads", '''
ways["continuous"] = traffic.through(service)
loads = traffic.Loads()
for name, way in ways.items():
    for rate in rates:
        loads.append(await traffic.open_loop(name, way, questions, rate, seconds))
loads
''')
code("loads-plot", '''
%matplotlib inline
import matplotlib.pyplot as plt

plt.rcParams["figure.dpi"] = 72  # small pictures, a small file

figure = loads.plot()
best = max(loads, key=lambda load: load.tokens_per_second)
figure.suptitle(f"most tokens: {best.way}, {best.tokens_per_second:.0f} a second")
figure
''', alt="Two panels over the requests a second, a line for each way to serve. Left: tokens a second; the continuous batch climbs with the load, the threads stay flat at the bottom. Right: the 95% wait on a logarithmic axis; it explodes first for the threads and for one after the other, then for batches, and stays low for the continuous batch")
md("loads-read", """
At a low load all are alike. Then the threads reach their end, then one after the other: from there on the queue grows as long as
users come, and p95 with it. Both kinds of batches keep up here; in the continuous one nobody waits for somebody else's end, and the first token comes at once. The elbow of
each curve is the **capacity**. Plan to stay well below it.

The course's authors measured the same ways with 16 users in a closed loop, on two cores, with servers beside them:
""")
code("measured", '''
full = [row for row in traffic.stored() if row["users"]]
alone = full[0]["tokens_per_second"]
print(f"{'':56}tokens/s          first token, p95")
for row in full:
    speed, wait = row["tokens_per_second"], row["first_token_p95"]
    print(f"{row['way']:56}{speed:8.0f} {speed / alone:5.1f}x {wait:8.2f} s")
''')
md("measured-read", """
The continuous batch writes 5.5 times the tokens of one after the other, and 6.3 times in bf16; the published threads write
0.4 times. "Whole answers" are not streamed. `transformers serve` has the same engine inside. **vLLM** compiles the model and has
kernels of its own: for a machine that only serves, take it. Users, limits and safety are the same everywhere.
""")
md("part-limits", """
## 6. Limits

A service that takes everything fails everybody. So the queue has an end, and who comes then is told at once.
`ServiceFull` costs nothing, and "come back in a second" is an answer.
""")
code("full", '''
small = QwenService(model, tokenizer, max_batch=1, max_waiting=2, timeout=30)
tries = [small.generate_async(text) for text in questions[:5]]
for result in await asyncio.gather(*tries, return_exceptions=True):
    print(type(result).__name__, "|", str(result).splitlines()[-1][:60])
''')
md("full-read", """
Three were taken, two were refused. Next: a user who leaves. Cancelling the task takes the request out of the batch, and its
place is free after the pass that is running.
""")
code("cancel", '''
task = asyncio.create_task(service.generate_async(questions[0]))
while not service.running and not task.done():
    await asyncio.sleep(0.001)
task.cancel()
await asyncio.sleep(0)
print("in work or waiting:", service.running + service.waiting)
''', tags=["nbval-check-output"])
md("cancel-read", """
The published service goes on to the last token, for nobody. A third limit is time, and a fourth is what one request may ask for:
""")
code("refused", '''
hasty = QwenService(model, tokenizer, timeout=0.01)
for ask in (
    lambda: hasty.generate_async("What is 12 + 30 + 55 + 7?"),
    lambda: service.generate_async("word " * 100_000),
    lambda: service.generate_async("Hi", Sampling(temperature=9)),
):
    try:
        await ask()
    except (TimeoutError, ValueError) as error:
        print(type(error).__name__, "|", str(error)[:75])
''')
md("refused-read", """
Every refusal says what to do. The published code cuts a prompt at 4,096 tokens without a word: the *end* goes first, and with it the
question. At last, the end of a service: it takes nobody new and finishes what it took.
""")
code("close", '''
wish = Sampling(temperature=0)
last = asyncio.create_task(small.generate_async(questions[0], wish))
await asyncio.sleep(0)
await small.aclose()
print("finished:", last.done() and bool(last.result().answer))
try:
    await small.generate_async("Hi")
except RuntimeError as error:
    print(error)
await hasty.aclose()
''', tags=["nbval-check-output"])
security.cells(md, code, 7)
md("part-http", """
## 8. A server that every program can talk to

Programs talk HTTP. The form of OpenAI's interface is what all servers speak: vLLM, SGLang, llama.cpp, Ollama, and ours, with
FastAPI around the service. In a terminal it is `qwen-course serve`; here it runs in the background.
""")
code("http", '''
from qwen_course.service import why_no_server

address = None
if why := why_no_server():
    print(why)
else:
    from qwen_course import server

    app = server.create_app(service)
    background = server.in_background(app)
    address = background.__enter__()  # in a program: with in_background(app) as address
    print(address.rpartition(":")[0], "and a free port")
''')
code("http-raw", '''
import json
import urllib.request

body = {
    "messages": [{"role": "user", "content": "What is 12 + 30 + 55?"}],
    "temperature": 0,
}
if address:
    url = f"{address}/chat/completions"
    work = asyncio.to_thread(urllib.request.urlopen, url, json.dumps(body).encode())
    said = json.load(await work)
    print(json.dumps(said["choices"][0], indent=1))
    print(said["usage"])
''')
md("http-raw-read", """
The thinking stands apart, in `reasoning_content`, and `finish_reason` says why it ended. Why `to_thread`? `urlopen` blocks,
and this notebook's loop is the one that must stay free. The official client is nicer:
""")
code("http-client", '''
import importlib.util

if address and importlib.util.find_spec("openai"):
    import openai

    client = openai.AsyncOpenAI(base_url=address, api_key="none")
    stream = await client.chat.completions.create(
        model=service.name, messages=body["messages"], temperature=0, stream=True,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )  # fmt: skip
    async for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="|")
''')
md("http-client-read", """
What is no part of OpenAI's interface, such as Qwen's switch of thinking, goes into `extra_body`. (Without thinking the
pocket model is wrong here.) And the course itself is a
client, too: an address in the place of a model's name.
""")
code("remote", '''
def through_the_server():
    far = qc.load(address)
    reply = qc.chat(*far, "What is 12 + 30 + 55?", sampling="greedy")
    problems = qc.tasks.sums.problems(effort(16, 4), seed=3)
    return reply, qc.evaluate(*far, problems, progress=False)


if address:
    reply, score = await asyncio.to_thread(through_the_server)
    print(reply.answer, "|", score.score)
''')
md("remote-read", """
So thirty people can share one GPU. On the machine that has it: `qwen-course serve --model Qwen/Qwen3-8B --host 0.0.0.0 --keys keys.json`, and
everywhere else, before Jupyter starts:

    QWEN_COURSE_MODEL=http://that-machine:8000/v1 QWEN_COURSE_API_KEY=... python course.py

Cells that look inside a model say that they need one here.
""")
code("http-refused", '''
def send(data):
    try:
        urllib.request.urlopen(url, data)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["message"][:70]


if address:
    for data in (b"{", b" " * 2_000_000, json.dumps({**body, "n": 2}).encode()):
        print(*await asyncio.to_thread(send, data))
''')
md("http-refused-read", """
Bodies that are broken or far too large, wishes that cannot be met: each gets a status of the 400s, which says "your side". A server that
answers 500 to a bad request wakes somebody up at night for nothing.
""")
md("part-replicas", """
## 9. When one process is not enough

A small model keeps one core busy. `qwen-course serve --workers 2` starts a process for each of two cores on one port; whoever is free
takes the next user, and one that dies is started again.

On several machines they are **replicas**: Ray Serve starts them, shares requests out, and replaces the dead. It needs some 2 GB
for two, so switch it on by hand.
""")
code("replicas", '''
from qwen_course import replicas

try_it = False  # True: two replicas on this machine
if why := replicas.why_not():
    print(why)
elif try_it:
    def two():
        with replicas.running(qc.settings.model_name(), replicas=2) as place:
            return qc.chat(*qc.load(place), "What is 12 + 30?").answer

    print(await asyncio.to_thread(two))
else:
    print("set try_it to True")
''')
md("replicas-read", """
In the course's tests two replicas run, one is killed in the middle of 24 requests, and all get their answer: the client sends again
what met a dead one. That is safe, because an answer changes nothing.

A model that does not *fit* on one GPU must be cut apart, which is what vLLM is for. Four GPUs of one machine share each
layer (`--tensor-parallel-size`), two machines share the layers (`--pipeline-parallel-size`):

    vllm serve Qwen/Qwen3-32B --tensor-parallel-size 4 --reasoning-parser qwen3
    ray start --head                              # on the first machine
    ray start --address=FIRST-MACHINE:6379        # on the second
    vllm serve Qwen/Qwen3-235B-A22B --tensor-parallel-size 8 --pipeline-parallel-size 2

(From vLLM's documentation; the course's tests have no such machines.) The address of either works as `QWEN_COURSE_MODEL`.
""")
code("the-end", '''
if address:
    background.__exit__(None, None, None)
await service.aclose()
print("closed:", service.closed)
''', tags=["nbval-check-output"])
md("take-aways", """
## What you have learnt

- Threads around one model make nothing faster. One thread computes, everything else waits without blocking.
- Measure under an open loop, from the moment a user came, and report p95 beside the throughput.
- In a continuous batch requests join and leave between two passes, and each answer is the one it gets alone.
- A queue has an end, a request a time, a user who leaves frees the place, and closing loses nothing.
- Every refusal says what to do, and is no 500.
- Speak the OpenAI form: one address then stands for any server.
- More cores: workers. More machines: replicas for more users, vLLM's parallel sizes for larger models.
""" + security.TAKE_AWAYS.strip("\n"))
md("mistakes", """
## Common mistakes

| I get ... | Why | What to do |
|---|---|---|
| more threads and fewer tokens | all compute at once, on the same cores | one thread and a batch |
| the server answers nobody for seconds | `generate` runs in the event loop | an executor, or a service |
| great averages and angry users | a mean hides the tail | p95, under an open loop |
| other answers in a batch than alone | padding on the right | `padding_side="left"`, or continuous batching |
| 14 GB taken by the manager | its cache takes most of the memory by default | `num_blocks` |
| a model that slows down when the event loop is busy | a thread keeps Python's interpreter for 5 ms | `sys.setswitchinterval(0.0005)`, as `QwenService` does |
| `ServiceFull` | more users than places and queue | come back later; more `max_waiting`; replicas |
| `close() would wait for requests of this event loop` | it blocks the loop that must finish them | `await service.aclose()` |
| `RuntimeError: asyncio.run() cannot be called from a running event loop` | a notebook has one already | `await` at the top of a cell |
| `no server answers at ...` | it is not running, or the address lacks /v1 | `qwen-course serve`, and copy what it prints |
""" + security.MISTAKES.strip("\n"))
md("real-model", """
## The same cells with a real Qwen

Stop Jupyter, set one variable, start again:

    QWEN_COURSE_MODEL=Qwen/Qwen3-0.6B python course.py

On a CPU lower `users`, `seconds` and `rates` first. On a GPU raise them: on an H200, a model with the shape of Qwen3-8B wrote 17 tokens
a second for one after the other and 140 for 16 users at once (random weights in bf16; the course's `benchmarks/results.json`,
"serving_gpu"). The pocket model's 16 answers there were those that it gives alone.
""")
md("exercises", """
## Exercises

[The questions of this lesson](../exercises/08_production.ipynb): what the slowest feel, waiting in an open loop, so many at
once, text that stays text, charged before it is written, a history that was not rewritten. `qc.check` says at once what is wrong and why,
`qc.hint` helps.
""")

notebook = new_notebook(cells=cells)
notebook.metadata["qwen_course"] = {
    "title": "Production: a service that holds",
    "goals": [
        "See why threads around a model do not make a service",
        "Measure under load: throughput, p50 and p95, from the user's side",
        "Serve in continuous batches, each request with its own wishes",
        "Set limits, refuse clearly, cancel, and end without losing anything",
        *security.GOALS,
        "Serve over HTTP in the OpenAI form, and use any such server",
        "Know what to do when one machine is not enough",
    ],
    "reading": "90 minutes",
    "download": "nothing",
    "gpu": "not needed",
    "extra": "serve",
}
notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
notebook.metadata["language_info"] = {"name": "python"}
nbformat.write(notebook, Path(sys.argv[1]))
