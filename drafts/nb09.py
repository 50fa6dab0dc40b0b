"""Builds notebooks/09_monitoring.ipynb from cells: python drafts/nb09.py OUT.ipynb"""

import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

cells = []


def md(id, text):
    cells.append(new_markdown_cell(text.strip("\n"), id=id))


def code(id, text, tags=None, alt=None):
    meta = {}
    if tags:
        meta["tags"] = tags
    if alt:
        meta["alt"] = alt
    cells.append(new_code_cell(text.strip("\n"), id=id, metadata=meta))


md("part-clocks", """
## 1. One request, four clocks

Lesson 08 built a service. Is it well? Begin with one request. Stream it, and note when each piece came.
""")
code("load", """
import math
import time

from qwen_course import monitoring, quality, traffic
from qwen_course.service import QwenService, Sampling
from qwen_course.settings import effort

model, tokenizer = qc.load()
limit = effort(96, 32)  # tokens of an answer, at most
greedy = Sampling(temperature=0, max_new_tokens=limit)
service = QwenService(model, tokenizer, timeout=300)
await service.generate_async("What is 12 + 30?", greedy)  # the first one is slower
print("ready:", service.name)
""")
code("by-hand", """
sent, moments = time.perf_counter(), []
async for piece in service.stream("What is 38 + 47 + 59?", greedy):
    moments.append(time.perf_counter() - sent)
    usage = piece.reply and piece.reply.usage  # the last piece has the reply

written = usage.thinking_tokens + usage.answer_tokens
print(f"{written} tokens in {len(moments)} pieces")
print(f"time to first token   {1000 * moments[0]:7.1f} ms")
each = (moments[-1] - moments[0]) / (written - 1)
print(f"time per output token {1000 * each:7.1f} ms")
print(f"whole request         {1000 * moments[-1]:7.1f} ms")
""")
md("by-hand-read", """
Fewer pieces than tokens: the service sends at most fifty a second. Who reads along cares about the first two clocks. A
program that needs the whole answer cares about the third, which grows with the answer. The fourth is not seen from outside: the
wait before the model began. The service tells it to its **observers**.
""")
code("observer", """
seen = []
service.observers.append(seen.append)
await service.generate_async("What is 38 + 47 + 59?", greedy)

one = seen[0]
clocks = ("queue_seconds", "time_to_first_token", "time_per_output_token", "seconds")
for name in clocks:
    print(f"{name:22} {1000 * getattr(one, name):7.1f} ms")
print(f"{'prefill_rate':22} {one.prefill_rate:7.0f} tokens/s")
print(f"{'decode_rate':22} {one.decode_rate:7.0f} tokens/s")
""")
md("observer-read", """
An observer is a function that gets a `Served`: moments and counts, no prompt and no answer. Its first token comes before your
first piece, for it is `<think>`, which is no text. Prefill and decode have rates of their own, as in lesson 06.
""")
md("part-misleading", """
## 2. Numbers that mislead

The published monitor measures "tokens per second": new tokens divided by the whole time. Try it on one model with
three prompts.
""")
code("published-rate", """
from qwen_course import inference
from qwen_course.messages import encode

second, _ = qc.load()  # a service changes the attention of its own model
ids = encode(tokenizer, [{"role": "user", "content": "What is 12 + 30?"}], True)
inference.write(second, ids, 8, stop=False)
for length in (16, 128, 512):
    run = inference.write(second, (ids * 40)[:length], 16, stop=False)
    published = len(run.ids) / run.moments[-1]
    print(f"{length:3} prompt tokens: published {published:5.0f} tokens/s, "
          f"decode {run.tokens_per_second:5.0f}")  # fmt: skip
""")
md("published-rate-read", """
The published number falls with every longer question, though the model writes nearly as before. An alarm on it tells
you that people paste longer texts. Next, its averages.
""")
code("mean", """
waits = [0.2] * 97 + [30.0] * 3  # seconds of a hundred users
ranked = sorted(waits)
print(f"mean    {sum(waits) / len(waits):6.2f} s")
for share in (0.5, 0.95, 0.99):
    place = math.ceil(share * len(ranked))  # the nearest rank
    print(f"p{100 * share:<6.0f} {ranked[place - 1]:6.2f} s")
""", ["nbval-check-output"])
md("mean-read", """
Nobody waited 1.09 seconds. A **percentile** is a wait that somebody had: 95% of the users waited no longer than
p95. Three of a hundred are seen from p98 on. The published monitor averages ten requests, so one in thirty
is mostly not among them.

Who is counted matters as much. Here half of the users give up.
""")
code("survivors", """
from dataclasses import replace

quick = replace(one, queued=0.0, started=0.1, first_token=0.2, ended=0.5)
late = replace(quick, started=None, first_token=None, ended=60.0,
               finish_reason="timeout")  # fmt: skip
everybody = monitoring.summarize([quick] * 50 + [late] * 50, window=60)
only_answered = monitoring.summarize([quick] * 50, window=60)
for name, found in (("answered", only_answered), ("everybody", everybody)):
    print(f"{name:10} p95 of the first token: {found.time_to_first_token.p95:5.1f} s")
""", ["nbval-check-output"])
md("survivors-read", """
Statistics over the survivors praise a service that answers half of its users. A request that ran out of time counts
with the time it waited. Refused ones are counted apart: they are quick, and that is no merit.

Last, memory. The published monitor subtracts what the process holds before from what it holds after.
""")
code("memory", """
from qwen_course import meters, telemetry

meters.reset_peaks()
before = meters.process_bytes()
inference.write(second, (ids * 200)[:900], 1, stop=False)
after = meters.process_bytes()
print(f"after minus before {(after - before) / 2**20:6.1f} MiB")
print(f"at most            {(meters.process_peak() - before) / 2**20:6.1f} MiB")
print(telemetry.current_device() or "no GPU here")
""")
md("memory-read", """
What was taken and given back in between, a difference does not see; a **peak** does. On a GPU the published monitor
calls `torch.cuda.memory_allocated` "GPU usage". That counts tensors only: the free blocks that PyTorch keeps and the CUDA
context are missing. The driver counts them (`nvidia-smi`; in Python **NVML**), and the last line asks it.
""")
md("part-many", """
## 3. Many requests

`QwenMonitor` is an observer that keeps the latest requests and sums up a window of them, five minutes by default. (Here the
window has no end, so that you can read in peace.) Put users on the service, at random moments, as in lesson 08.
""")
code("monitor", """
monitor = monitoring.QwenMonitor(window=math.inf, service=service)
service.observers[:] = [monitor]

rate, seconds = effort(5, 2), effort(12, 3)
problems = qc.tasks.sums.problems(40, seed=9)
questions = [problem.question for problem in problems]
way = traffic.through(service, limit)
await traffic.open_loop("normal", way, questions, rate, seconds)
normal = monitor.metrics()
normal
""")
md("monitor-read", """
One row for each clock and rate. A dash stands where there are too few requests for that percentile: of thirty, the
99th would be the slowest one. Check one number by hand.
""")
code("percentile", """
waits = sorted(one.time_to_first_token for one in monitor.served())
place = math.ceil(0.95 * len(waits))
print(f"by hand      {1000 * waits[place - 1]:.1f} ms, place {place} of {len(waits)}")
print(f"the monitor  {1000 * normal.time_to_first_token.p95:.1f} ms")
""")
code("monitor-plot", """
%matplotlib inline
import matplotlib.pyplot as plt

plt.rcParams["figure.dpi"] = 72  # small pictures, a small file
monitor.plot()
""", alt="Two charts over the same seconds. Above, one dot for each request, by the moment of its end and its seconds. Below, a line for the memory of the process, flat after its beginning")
md("monitor-plot-read", """
Each dot is a request, the line is memory. Now the numbers need limits. Where do limits come from? From what users
can stand, and from a good time: what was normal must not raise an alarm. Here, three times the normal.
""")
code("limits", """
limits = monitoring.Limits(
    time_to_first_token=max(0.1, 3 * normal.time_to_first_token.p95),
    time_per_output_token=3 * normal.time_per_output_token.p95,
)
monitor.limits = limits
monitor.health()
""")
md("limits-read", """
The published health check sends a request of its own and compares with fixed numbers: over ten seconds is slow, for
any model on any machine. This one looks at what users got, and every check names a reason. `/health` of the
server answers with it.

The same as a panel. Users come in the background for some seconds: press Play meanwhile. For more of them, run the cell
again.
""")
code("live", """
import asyncio

background = traffic.open_loop("live", way, questions, rate, seconds)
users = asyncio.create_task(background)
await asyncio.sleep(effort(3, 1))
qc.widgets.live_monitor(monitor)
""")
code("live-end", """
load = await users
print(f"{len(load.answered)} of {len(load.visits)} users answered")
then = monitor.served()  # a good time, kept for later
""")
md("part-export", """
## 4. Out of the process: Prometheus and traces

A process that dies takes its memory with it. **Prometheus** is a program that asks every replica for its numbers, every
few seconds, and keeps them. Here is what it reads.
""")
code("exposition", """
text, kind = monitor.exposition()
name = "gen_ai_server_time_to_first_token_seconds"
print(kind.partition(";")[0], len(text) // 1000, "kB")
buckets = []
for line in text.decode().splitlines():
    if line.startswith(f"{name}_bucket"):
        label, _, count = line.rpartition(" ")
        buckets.append((float(label.rpartition('le="')[2][:-2]), float(count)))
print(*(f"{upper:g} s: {count:.0f}" for upper, count in buckets), sep=", ")
""")
md("exposition-read", """
The name is the one of the **OpenTelemetry** conventions, so that other servers' dashboards fit. Waits are not kept
one by one. They are counted into **buckets**, each holding everything up to its limit: that is small, and
the buckets of ten replicas can be added. The price is precision. Estimate p95 as Prometheus does.
""")
code("quantile", """
def from_buckets(buckets, share):
    wanted, low, below = share * buckets[-1][1], 0.0, 0.0
    for upper, count in buckets:
        if count >= wanted:
            break
        low, below = upper, count
    part = (wanted - below) / (count - below)
    return low if upper == math.inf else low + part * (upper - low)


waits = [one.time_to_first_token for one in monitor.served()]
print(f"from the buckets {1000 * from_buckets(buckets, 0.95):6.1f} ms")
print(f"exactly          {1000 * monitoring.percentile(waits, 0.95):6.1f} ms")
""")
md("quantile-read", """
Within a bucket it draws a straight line. So an estimate is as good as the bucket is narrow: choose limits around the
numbers that you would act on. (The conventions' buckets for the time per output token begin at 10 ms. A pocket model
writes several tokens in that time, so ours are finer.)

The folder [workshop/monitoring](../workshop/monitoring/README.md) has a configuration, alerts with remedies, and a
dashboard for Grafana.
""")
md("trace-text", """
### A trace: where one request spent its time

A metric says that something is slow. A **trace** says where, for one request.
""")
code("trace", """
try:
    from opentelemetry.sdk.trace import TracerProvider, export
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    telemetry.Traces(provider)(monitor.served()[-1])
    for span in spans.get_finished_spans():
        took = (span.end_time - span.start_time) / 1e6
        print(f"{span.name:20} {took:7.1f} ms")
    shown = ("gen_ai.usage.output_tokens", "gen_ai.response.finish_reasons")
    print({name: span.attributes[name] for name in shown})
except ImportError as error:
    print(error)
""")
md("trace-read", """
Queue, prefill and decode add up to the request. A span holds numbers and names, never the text: what people ask
does not belong into a system that half of a company can read.
""")
md("part-quality", """
## 5. What no clock sees

A service may be quick, healthy, and wrong. **Canary questions** have known answers, and are asked again and again. Ask
them now, while all is well.
""")
code("canaries", """
service.observers.clear()  # canaries are no users
asked = quality.canaries(effort(12, 2))
canaries = quality.Canaries(lambda talks: service.generate_batch(talks, greedy),
                            asked, monitor)  # fmt: skip
monitor.sources.append(canaries.checks)
good = canaries.run()
print("canaries:", good.score)
for problem, reply in list(zip(asked, good.replies))[:3]:
    print(f"{problem.expected:>6} {reply.answer!r}")
""")
md("canaries-read", """
The interval beside the share says how little so few questions can tell. They catch a model that has become much worse, at once;
for small differences see section 7.

**Drift** compares what is written now with a good time: how long, how much thinking, in which language. Counts are
enough for the first two, so no text must be kept.
""")
code("drift", """
half = len(then) // 2
print(quality.drift(then[:half], then[half:]))
""")
md("drift-read", """
Nothing drifted: the users and the model are the same. `p` says how often chance alone makes both means differ as much: the
requests are shuffled between the halves again and again (a **permutation test**). Keep these requests as the reference.

The language needs a text. The canaries have one, and four of them are in four languages.
""")
code("language", """
for reply in good.replies[-4:]:
    question = reply.messages[0]["content"]
    asked_in, answered_in = map(quality.language, (question, reply.answer))
    print(f"{asked_in} -> {answered_in}: {question}")
""")
md("language-read", """
`language` counts frequent words and letters, and says None where they decide nothing. An answer in another language than its
question is a classic of a changed system prompt: `quality.drift` of replies watches it as "language kept".
""")
md("part-break", """
## 6. Break it, four times

Now the same load on services that are broken, each in its own way. For each one you get its monitor.
""")
code("trial", """
await service.aclose()


async def trial(model, tokenizer, *observers):
    watch = monitoring.QwenMonitor(window=math.inf, limits=limits)
    async with QwenService(model, tokenizer, timeout=300) as service:
        watch.service = service

        def ask(talks):
            return service.generate_batch(talks, greedy)

        canaries = quality.Canaries(ask, asked, watch)
        canaries.runs.append(good)  # what later runs are held against
        canaries.run()
        service.observers[:] = [watch, *observers]
        way = traffic.through(service, limit)
        await traffic.open_loop("trial", way, questions, rate, seconds)
    drift = quality.watch_drift(watch.served, then)
    watch.sources += [canaries.checks, drift]
    return watch


trials = {}
""")
md("slow-text", """
**Slow.** Something else needs the processor; here each pass of the model sleeps a moment. Loads are repeatable, so what
differs comes from the fault.
""")
code("slow", """
nap = max(0.05, 2 * limits.time_per_output_token)  # seconds
slow, _ = qc.load()
slow.model.layers[0].register_forward_pre_hook(lambda *_: time.sleep(nap))

trials["slow"] = await trial(slow, tokenizer)
trials["slow"].health()
""")
md("slow-read", """
Writing is slow, and the first token late with it: each pass takes longer, for everybody. The answers are the same, as the canaries say.
If only the first token were late, it would be the queue or the prompts.
""")
code("leak", """
kept = []
part = meters.process_bytes() // 100  # 1% of what the process holds


def keep(served):
    kept.append(b"x" * part)  # for each request, for ever


trials["leak"] = await trial(second, tokenizer, keep)
trials["leak"].plot()
""", alt="The dots of the requests are as low as before, but the line of the memory climbs steadily from the first request to the last")
md("leak-read", """
No user notices, until the machine has no memory left. (What falls at the very end is the service: it closes.) The monitor compares the second quarter of the window with the last one; the
first is the warm-up. Which line keeps it? `tracemalloc` knows.
""")
code("tracemalloc", """
import linecache
import tracemalloc

checks = trials["leak"].health().checks
print(next(check.detail for check in checks if check.name == "memory"))
tracemalloc.start()
before = tracemalloc.take_snapshot()
for served in trials["leak"].served()[:5]:
    keep(served)
top = tracemalloc.take_snapshot().compare_to(before, "lineno")[0]
tracemalloc.stop()
frame = top.traceback[0]
line = linecache.getline(frame.filename, frame.lineno).strip()
print(f"{top.size_diff / 2**20:.0f} MiB: {line}")
kept.clear()
""")
md("template-text", """
It sees what Python takes, so tensors need other means. A finished request, five times, and the line is found.

**A wrong template.** Somebody deploys a model with the template of another family. Nothing fails: every text is a prompt.
""")
code("template", """
import copy

other = copy.deepcopy(tokenizer)
turn = "[INST] {{ m.content }} [/INST]"
other.chat_template = "{% for m in messages %}" + turn + "{% endfor %}"

third, _ = qc.load()
trials["template"] = await trial(third, other)
trials["template"].health()
""")
md("template-read", """
The clocks see nothing (where yours do, the machine is busy with something else). The canaries are wrong, and the drift shows long answers without thinking. With a large model the
signs are weaker: it often answers well *in spite of* a wrong template, and a little worse each time.
""")
md("checkpoint-text", """
**A worse checkpoint.** The new version was quantized one step too far: absmax in 3 bits, a scale for each row (lesson 05).
""")
code("checkpoint", """
import torch


def rounded(weight, bits=3):
    scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


worse, _ = qc.load()
with torch.no_grad():
    for weight in worse.model.layers.parameters():
        if weight.dim() > 1:
            weight.copy_(rounded(weight))
trials["checkpoint"] = await trial(worse, tokenizer)
trials["checkpoint"].health()
""")
md("checkpoint-read", """
As quick as ever. Only the canaries know. Now all four beside the good time: which number gives which fault away?
""")
code("matrix", """
print(f"{'':11} first ms  token ms  memory  cut off  answer tokens  canaries")
for name, watch in {"normal": monitor, **trials}.items():
    found, last = watch.metrics(), watch.served()[-1].ended
    first, each = found.time_to_first_token.p95, found.time_per_output_token.p95
    grown = monitoring.growth([one for one in watch.samples() if one[0] <= last])
    memory = f"{grown.share:+.1%}" if grown else "-"
    length = found.answer_tokens / found.requests
    canary = watch.sources[0]()[0].detail.partition(",")[0]
    print(f"{name:11} {1000 * first:8.0f} {1000 * each:9.1f} {memory:>7} "
          f"{found.share('length'):8.0%} {length:14.1f}  {canary}")  # fmt: skip
""")
md("matrix-read", """
Each fault moves other numbers, and no single one moves for all. That is why a monitor watches waits, memory, lengths *and*
answers.
""")
md("part-gate", """
## 7. Is the new checkpoint worse, or unlucky?

Before a version goes out, ask both the same questions. But how large a difference means something? Let one and the
same model, right in 90 of 100, be compared with itself.
""")
code("chance", """
import random

rng = random.Random(0)
drops = []
for _ in range(2000):
    first, again = (sum(rng.random() < 0.9 for _ in range(100)) for _ in range(2))
    drops.append(first - again)
print(f"at least 5 points worse, by chance: {sum(d >= 5 for d in drops) / 2000:.0%}")
print(f"at least 10:                        {sum(d >= 10 for d in drops) / 2000:.0%}")
""", ["nbval-check-output"])
md("chance-read", """
A gate that refuses five points less would refuse one good version in seven. Better: compare question by question. What
both get right or both get wrong tells nothing; count those that were **lost** and **won**. If both versions are equally
good, each change is the throw of a coin.
""")
code("gate", """
questions_for_both = qc.tasks.word_problems.problems(effort(80, 6), seed=9)
options = {"max_new_tokens": effort(160, 32), "progress": False}
old_model, _ = qc.load()
new_model, _ = qc.load()
new_model.load_state_dict(worse.state_dict())
old = qc.evaluate(old_model, tokenizer, questions_for_both, **options)
new = qc.evaluate(new_model, tokenizer, questions_for_both, **options)
lost = sum(a and not b for a, b in zip(old.right, new.right))
won = sum(b and not a for a, b in zip(old.right, new.right))
print(f"{lost} lost, {won} won; by chance: {quality.sign_test(lost, won):.4f}")
print(quality.gate(old, new, allowed=0.02))
""")
md("gate-read", """
`gate` has three verdicts. *pass*: even the low end of the interval is within what you allow. *worse*: chance is ruled out. *unclear*: too few
questions, and it says how many would do. "No significant difference" on twenty questions is no proof that both are equal.
""")
code("gate-small", """
for number in (10, 40, 160, 640):
    same = [True] * number
    one_lost_in_ten = [place % 10 != 0 for place in range(number)]
    found = quality.compare(same, one_lost_in_ten, allowed=0.02)
    low, high = found.interval
    print(f"{number:4} questions: {low:+.1%} to {high:+.1%} {found.verdict}")
""", ["nbval-check-output"])
md("harness", """
The same loss, one question in ten, each time. With few questions chance could have done it; with hundreds it could not.

### The field's own tool

Most published scores come from **lm-evaluation-harness**. It takes tasks as files. The course's problems are such files
too, made on the spot, so they run offline.
""")
code("harness-run", """
try:
    found = quality.harness(old_model, tokenizer, ["sums"], limit=effort(24, 4))
    print(found)
except ImportError as error:
    print(error)
""")
md("harness-read", """
It renders the template, generates, and hands each answer to the task's grader. In a terminal the same is one `lm-eval run`
(see `quality.harness_tasks`). Say which version, which template and whether with thinking, or your score means little.
""")
md("take-aways", """
## What you have learnt

- Queue, first token, each further token, whole request: four clocks. Prefill and decode have rates of their own.
- A percentile is a wait that somebody had. A mean belongs to nobody.
- Count those who gave up. Statistics of survivors praise what is broken.
- Peaks, not differences, tell memory; growth after the warm-up tells a leak.
- Limits come from users and from a good time. A check without a remedy is a light without a label.
- Buckets can be added over replicas, and are as exact as they are narrow.
- Clocks see no wrong answer. Canaries do, and drift says where to look.
- Compare checkpoints question by question, and ask enough questions.
""")
md("mistakes", """
## Common mistakes

| I get ... | Why | What to do |
|---|---|---|
| a model that is "slower" since Monday | tokens/s with the prefill in it, and longer prompts | time to first token and time per output token apart |
| fine latencies and angry users | timeouts and refusals are left out | count them; let a timeout count with its wait |
| p99 that jumps all the time | too few requests in the window | a longer window, or p95 |
| p95 of replicas averaged, and wrong | percentiles cannot be averaged | add the buckets, then estimate |
| p95 that is exactly 10 s, or 0.0095 | all values lie in one bucket | buckets around your limits |
| a Prometheus that eats its memory | a label with free text: user, prompt, model of the client | few, known values |
| GPU "busy 100%" and few tokens | utilization says that something ran, not how much | tokens/s against the roofline (lesson 05) |
| an alarm each night | limits from the sky | limits from a good time; alert on what users feel |
| `ImportError: the export to Prometheus needs ...` | an optional package | type what the message says |
""")
md("real-model", """
## The same cells with a real Qwen

Stop Jupyter, set one variable, start again: every cell above runs unchanged.

    QWEN_COURSE_MODEL=Qwen/Qwen3-0.6B python course.py

Its canaries will not be all right: it was not trained on the course's own questions. What counts is the comparison
with its first run. The limits adapt, for they come from its own good time.
""")
md("exercises", """
## Exercises

[Six questions](../exercises/09_monitoring.ipynb): the clocks of a request, who counts, a percentile from buckets, a leak
or a warm-up, which fault it is, lost and won. `qc.check` says at once what is wrong and
why, `qc.hint` helps.
""")

notebook = new_notebook(cells=cells)
notebook.metadata["qwen_course"] = {
    "title": "Monitoring: numbers that tell the truth",
    "goals": [
        "Tell the four clocks of a request apart",
        "Know which published numbers mislead, and why",
        "Sum up many requests by percentiles, and count those who gave up",
        "Take metrics to Prometheus and requests to traces",
        "Watch answers, not only clocks: canaries and drift",
        "Break a service in four ways and find each by its numbers",
        "Decide whether a new checkpoint is worse, or unlucky",
    ],
    "reading": "80 minutes",
    "download": "nothing",
    "gpu": "not needed",
    "extra": "serve,monitor",
}
notebook.metadata["kernelspec"] = {
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "name": "python3",
}
notebook.metadata["language_info"] = {"name": "python"}
if __name__ == "__main__":
    nbformat.write(notebook, Path(sys.argv[1]))
