"""Builds notebooks/06_inference.ipynb from cells: python drafts/nb06.py OUT.ipynb"""
import sys
from pathlib import Path
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
cells = []
def md(id, text): cells.append(new_markdown_cell(text.strip("\n"), id=id))
def code(id, text, tags=None, alt=None):
    meta = {}
    if tags: meta["tags"] = tags
    if alt: meta["alt"] = alt
    cells.append(new_code_cell(text.strip("\n"), id=id, metadata=meta))

md("part-phases", """
## 1. Two phases: reading and writing

A model answers in two phases. In **prefill** it reads the whole prompt in one pass. In **decode** it
writes one token for each pass. Both are the same computation, and they cost very differently. Run
both by hand.
""")
code("load", '''
import time

import torch

from qwen_course import inference, meters

model, tokenizer = qc.load()
repeats = 3  # of every measurement; raise it for steadier numbers
limit = 64  # tokens of an answer, at most
torch.set_grad_enabled(False)  # nothing is trained here


def prompt(text):
    talk = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(talk, add_generation_prompt=True,
                                         return_dict=True)["input_ids"]  # fmt: skip
''')
md("by-hand-text", """
The template and the tokenizer give the ids of a prompt (lesson 02). Now the two phases.
""")
code("by-hand", '''
from transformers import DynamicCache

ids = prompt("What is 38 + 47 + 59 + 86 + 24?")
cache = DynamicCache(config=model.config)

inputs = torch.tensor([ids], device=model.device)
logits = model(inputs, past_key_values=cache).logits  # prefill
print(f"{len(ids)} tokens in, logits of shape {tuple(logits.shape)}")
''')
code("by-hand-decode", '''
token = logits[:, -1:].argmax(-1)
logits = model(token, past_key_values=cache).logits  # one step of decode
print(f"{token.numel()} token in, logits of shape {tuple(logits.shape)}")
print("tokens in the cache:", cache.get_seq_length())
''')
md("by-hand-read", """
The second pass got a single token. Everything before it is in the **cache**, which the next section
opens. `inference.write` is this as a loop, and notes when each token was there.
""")
code("moments", '''
import statistics

inference.write(model, ids, 8, stop=False)  # the first run of anything is slower
written = inference.write(model, ids, 48, stop=False)
gap = statistics.median(written.gaps)
print(f"first token after {1000 * written.time_to_first_token:.1f} ms")
print(f"then one every {1000 * gap:.1f} ms: {written.tokens_per_second:.0f} tokens/s")
''')
md("moments-read", """
The first token waits for the prefill. Does a longer prompt take longer? Measure reading and writing for
prompts of several lengths.
""")
code("prefill-speed", '''
rows = []
for length in (16, 64, 256, 512):
    long = (ids * 40)[:length]
    runs = [inference.write(model, long, 17, stop=False) for _ in range(repeats)]
    read = length / min(run.time_to_first_token for run in runs)
    wrote = max(run.tokens_per_second for run in runs)
    rows.append((length, read, wrote))
    print(f"{length:4} tokens: reading {read:7.0f}, writing {wrote:5.0f} tokens/s")
''')
code("prefill-plot", '''
import matplotlib.pyplot as plt

lengths, read, wrote = zip(*rows)
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.plot(lengths, read, "o-", color="#0072B2", label="reading (prefill)")
ax.plot(lengths, wrote, "s-", color="#D55E00", label="writing (decode)")
ax.set_xscale("log", base=2)
ax.set_xticks(lengths, [f"{length}" for length in lengths])
ax.set(yscale="log", xlabel="prompt (tokens)", ylabel="tokens a second",
       title=f"reading is up to {max(read) / max(wrote):.0f} times faster than writing")
ax.legend()
plt.show()
''', alt="Two lines over the length of the prompt, both axes logarithmic: tokens a second while reading climb with the length, tokens a second while writing stay far below and fall a little")
md("prefill-read", """
Reading ⟦up to N⟧ tokens at once takes hardly longer than reading one: each pass must bring **all weights**
from memory to the processor, and a prompt shares that among its tokens. Decode pays it for every
token. So two numbers describe a model's speed, and one alone says little: **time to first token** and
**tokens per second** of decode. The published measurements of this text's time mix them.
""")
md("part-cache", """
## 2. The KV cache, built by hand

Why is one token enough for the second pass? In attention, a new token asks its **query** of the **keys**
of all tokens before it, and mixes their **values** (lesson 01). Those do not change any more. So keep
them: a dictionary with two tensors for each layer.
""")
code("attend", '''
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb


def attend(layer, states, angles, cache, number):
    shape = (*states.shape[:2], -1, layer.head_dim)
    queries = layer.q_norm(layer.q_proj(states).view(shape)).transpose(1, 2)
    keys = layer.k_norm(layer.k_proj(states).view(shape)).transpose(1, 2)
    values = layer.v_proj(states).view(shape).transpose(1, 2)
    queries, keys = apply_rotary_pos_emb(queries, keys, *angles)
    if number in cache:  # put the new ones behind those we have
        keys = torch.cat([cache[number][0], keys], dim=2)
        values = torch.cat([cache[number][1], values], dim=2)
    cache[number] = keys, values
    new, total = queries.shape[2], keys.shape[2]
    mask = torch.ones(new, total, dtype=torch.bool, device=keys.device)
    mask = mask.tril(total - new)  # nobody looks ahead
    mixed = scaled_dot_product_attention(queries, keys, values, mask, enable_gqa=True)
    return layer.o_proj(mixed.transpose(1, 2).flatten(2))
''')
md("forward-text", """
Queries, keys and values are computed for the *new* tokens only; the cache supplies the rest. Around it
stands the whole model: embedding, layers, output.
""")
code("forward", '''
def forward(ids, cache):
    body = model.model
    start = cache[0][0].shape[2] if cache else 0
    positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
    states = body.embed_tokens(ids)
    angles = body.rotary_emb(states, positions)
    for number, layer in enumerate(body.layers):
        normed = layer.input_layernorm(states)
        states = states + attend(layer.self_attn, normed, angles, cache, number)
        states = states + layer.mlp(layer.post_attention_layernorm(states))
    return model.lm_head(body.norm(states))
''')
md("loop-text", """
That is a model in some forty lines. Let it write, and compare with the library.
""")
code("loop", '''
ours, new = {}, torch.tensor([ids], device=model.device)
output = []
while len(output) < limit and output[-1:] != [tokenizer.eos_token_id]:
    new = forward(new, ours)[:, -1:].argmax(-1)
    output.append(new.item())
print(tokenizer.decode(output))
''')
code("equal", '''
greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
expected = model.generate(inputs, max_new_tokens=limit, **greedy)[0, len(ids) :]
print("the same tokens as generate:", output == expected.tolist())
''')
md("equal-read", """
Token for token what the library writes. Now look into the dictionary.
""")
code("inside", '''
keys, values = ours[0]
print("layers:", len(ours), "  keys of layer 0:", tuple(keys.shape))
size = qc.memory.dimensions(model.config)
each = qc.memory.kv_cache_bytes(size, 1, keys.element_size())
print("bytes for one token by the formula:", each)
whole = meters.cache_bytes(ours)
print("bytes in the dictionary, by token: ", whole // keys.shape[2])
''')
md("inside-read", """
The shape is (sequences, key heads, tokens, head size). Two of those a layer, and the formula of lesson
01 gives the bytes. What does it save? Write with the cache and without it, and time every token.
""")
code("saving", '''
length = 160
times = {}
for name, use in (("with the cache", True), ("without", False)):
    options = {"use_cache": use, "stop": False}
    runs = [inference.write(model, ids, length, **options) for _ in range(repeats)]
    times[name] = [1000 * min(each) for each in zip(*(run.gaps for run in runs))]
    last, total = times[name][-1], sum(times[name])
    print(f"{name:15} last token {last:5.1f} ms, all {total:6.0f} ms")
''')
code("saving-plot", '''
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for (name, each), colour in zip(times.items(), ("#0072B2", "#D55E00")):
    ax.plot(range(2, length + 1), each, color=colour, label=name)
ratio = sum(times["without"]) / sum(times["with the cache"])
ax.set(xlabel="token", ylabel="milliseconds for it", ylim=(0, None),
       title=f"{length} tokens without a cache take {ratio:.1f} times as long")
ax.legend()
plt.show()
''', alt="Two lines over the number of the token: the time of a token with the cache stays flat, without it climbs steadily")
md("saving-read", """
Without the cache each token reads the whole text again, so its time grows with the text. With it the
line is nearly flat. The price is memory, and that grows with every token of every user.
""")
code("growth", '''
users, estimate = (1, 8, 32), qc.memory.estimate
print("KV cache of Qwen3-8B in bf16, GiB")
print("tokens   ", *(f"{batch:3} users" for batch in users))
for context in (1024, 8192, 32768):
    sizes = [estimate("Qwen3-8B", context=context, batch=n).kv_cache for n in users]
    print(f"{context:9,}", *(f"{size / 2**30:9.1f}" for size in sizes))
print(f"its weights: {estimate('Qwen3-8B').weights / 2**30:.1f} GiB")
''', ["nbval-check-output"])
md("growth-read", """
With many users or long texts the cache is larger than the model. That is why there are grouped-query
attention (lesson 01), caches in 8 bits (lesson 05), and engines that keep the cache in pages.
""")
md("part-batch", """
## 3. Many requests at once

A pass that reads all weights for one row may as well serve sixteen. The rows must be filled up to one
length, with **padding**. On which side? Try both.
""")
code("padding", '''
questions = ("What is 12 + 30?", "What is 38 + 47 + 59 + 86 + 24?")
rows = [prompt(question) for question in questions]
width, pad = max(map(len, rows)), tokenizer.pad_token_id
fill = [[pad] * (width - len(row)) for row in rows]
sides = {
    "left": [f + row for f, row in zip(fill, rows)],
    "right": [row + f for f, row in zip(fill, rows)],
}
''')
code("padding-sides", '''
for side, both in sides.items():
    batch = torch.tensor(both, device=model.device)
    mask = (batch != pad).long()
    output = model.generate(batch, attention_mask=mask, pad_token_id=pad,
                            max_new_tokens=24, **greedy)  # fmt: skip
    print(f"{side:6} {tokenizer.decode(output[0, width:], skip_special_tokens=True)!r}")
''')
md("padding-read", """
Generation goes on at the right end. With padding there, the short row continues after its padding, not
after its prompt. Nothing crashes, and transformers only warns. Qwen's tokenizers pad left by themselves.

Now the gain: tokens per second of a batch, by its size.
""")
code("batch-speed", '''
def batch_speed(size):
    batch = torch.tensor([ids] * size, device=model.device)
    best = 0.0
    for _ in range(repeats):
        begun = time.perf_counter()
        model.generate(batch, min_new_tokens=24, max_new_tokens=24, pad_token_id=pad,
                       attention_mask=torch.ones_like(batch), **greedy)  # fmt: skip
        best = max(best, 24 * size / (time.perf_counter() - begun))
    return best


sizes = (1, 2, 4, 8, 16, 32)
speeds = [batch_speed(size) for size in sizes]
print({size: round(speed) for size, speed in zip(sizes, speeds)})
''')
code("batch-plot", '''
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.plot(sizes, speeds, "o-", color="#0072B2", label="measured")
ax.plot(sizes, [speeds[0] * size for size in sizes], ":", color="grey",
        label="if a batch took no longer than one row")  # fmt: skip
ax.set_xscale("log", base=2)
ax.set_xticks(sizes, [f"{size}" for size in sizes])
ax.set(yscale="log", xlabel="rows in the batch", ylabel="tokens a second, all rows",
       title=f"{sizes[-1]} rows: {speeds[-1] / speeds[0]:.1f} times the tokens of one")
ax.legend()
plt.show()
''', alt="Tokens a second of all rows over the number of rows, both axes logarithmic: the measured line climbs, at first along the dotted ideal, then below it")
md("batch-read", """
A batch of 16 gives ⟦N⟧ times the tokens of one row. The gain ends where computing, no longer memory, is
the limit.

### Nobody waits for the longest

A plain batch is done when its *longest* answer is. Short ones hold their place and write nothing. With
**continuous batching** a request that ends leaves at once, and the next in the queue takes its place.
`inference.serve` does both.
""")
code("serve", '''
problems = qc.tasks.sums.problems(16, seed=8)
queue = [prompt(problem.question) for problem in problems]

waiting = inference.serve(model, queue, limit, places=4, continuous=False)
flowing = inference.serve(model, queue, limit, places=4)
for name, served in (("plain batches", waiting), ("continuous", flowing)):
    print(f"{name:14} {served.passes} passes, {served.used:4.0%} of the places used")
print("the same answers:", waiting.outputs == flowing.outputs)
''')
code("serve-plot", '''
from IPython.display import display

display(waiting.plot())
display(flowing.plot())
''', alt="Two charts, one above the other. Each has four rows, the places of a batch, with one bar for each request. Above, in plain batches, grey gaps follow the short bars until the longest of the four ends. Below, in continuous batches, bars follow each other without gaps until the queue is empty")
md("serve-read", """
Grey is waste: a place that waits for its neighbours. How does a new request get into a running batch?
Its prompt is read alone, and its keys and values are put beside the others, padded at the left. That
is allowed because RoPE has already turned each key to *its* position: in which column it is kept does
not matter. Read `inference.serve`; it is short.

transformers has it too, with the cache in pages. Its defaults are made for a large GPU and take most
of the memory there is, so say how much it may have.
""")
code("generate-batch", '''
from transformers import ContinuousBatchingConfig, GenerationConfig

ends = sorted(inference.end_ids(model))
config = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=ends,
                          pad_token_id=pad)  # fmt: skip
pages = ContinuousBatchingConfig(num_blocks=256, page_size=32, max_batch_tokens=512)
second, _ = qc.load()  # this call changes a model's attention for good
found = second.generate_batch(
    inputs=queue, generation_config=config, continuous_batching_config=pages
)
outputs = [list(one.generated_tokens) for one in found.values()]
print("the same answers:", outputs == flowing.outputs)
''')
md("part-stream", """
## 4. Show it while it is written

A reader sees the first word after the prefill, if you pass tokens on as they come. One trap: a
character may need several tokens, and half a character is no text.
""")
code("half", '''
word = "千问 🙂"
pieces = tokenizer(word)["input_ids"]
print("one by one: ", [tokenizer.decode([piece]) for piece in pieces])
print("as a whole: ", repr(tokenizer.decode(pieces)))
''')
code("stream", '''
for piece in inference.stream(model, tokenizer, prompt("谁创造了Qwen？"), 64):
    print(piece, end="|", flush=True)
''')
md("stream-read", """
`inference.stream` decodes everything written so far and holds a piece back while its last character is
incomplete. The streamers of transformers wait for the end of the word instead.
""")
md("part-settings", """
## 5. Settings that promise speed

This is in a published text, as "optimized inference". Take it line by line. The import first.
""")
code("source-import", '''
try:
    from torch.nn.attention import SDPABackend
except ImportError as error:
    print("ImportError:", str(error).partition(" (")[0])
''', ["nbval-check-output"])
md("source-import-read", """
The name is `SDPBackend`. With that mended, the rest can be measured.
""")
code("source-settings", '''
from transformers import logging


def fusion():
    torch.jit.set_fusion_strategy([("STATIC", 3), ("DYNAMIC", 20)])


def switches():
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)


logging.set_verbosity_error()  # it would say that early_stopping is ignored
tries = {
    "as it is": (None, {}),
    "jit fusion": (fusion, {}),
    "cuda switches": (switches, {}),
    "use_cache": (None, {"use_cache": True}),
    "early_stopping": (None, {"early_stopping": True}),
}
''')
code("source-measured", '''
import warnings

warnings.simplefilter("ignore")  # the fusion strategy is deprecated
for name, (change, options) in tries.items():
    if change:
        change()
    speeds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        output = model.generate(inputs, max_new_tokens=limit, **options, **greedy)
        speeds.append(len(expected) / (time.perf_counter() - begun))
    same = torch.equal(output[0, len(ids) :], expected)
    print(f"{name:14} same tokens: {same}   {statistics.median(speeds):4.0f} tokens/s")
''')
md("source-measured-read", """
Nothing happens, and it cannot. `set_fusion_strategy` is about TorchScript, which nothing here uses. The
three switches are on from the start, and are about CUDA. `use_cache` is the default. `early_stopping`
belongs to beam search; with one beam transformers ignores it, and a model stops at its end token
anyway.

### Forcing a kernel

`sdpa_kernel(SDPBackend.FLASH_ATTENTION)` says: this way to compute attention, *or none*. Which
kernels does this machine have, without a mask and with one, as a padded batch needs it?
""")
code("kernels", '''
from torch.nn.attention import SDPBackend, sdpa_kernel

query = torch.randn(2, 4, 8, 64, device=model.device)
mask = torch.ones(2, 1, 8, 8, dtype=torch.bool, device=model.device).tril()
for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
    results = []
    for given in ({"is_causal": True}, {"attn_mask": mask}):
        try:
            with sdpa_kernel(getattr(SDPBackend, name)):
                scaled_dot_product_attention(query, query, query, **given)
            results.append("runs")
        except RuntimeError as error:
            results.append(f"RuntimeError: {str(error)[:42].strip()}...")
    print(f"{name:20} causal: {results[0]:18} mask: {results[1]}")
''')
md("kernels-read", """
On a CPU two kernels exist, and its flash kernel accepts a mask. On a GPU the flash kernel refuses **any**
mask: the same line that passes a test on a laptop raises `RuntimeError: No available kernel` for the
first padded batch on the server. PyTorch chooses the best kernel for each call by itself. Leave it to
that, and choose the *implementation* instead:
""")
code("implementations", '''
for name in ("eager", "sdpa", "flex_attention", "flash_attention_2"):
    other, _ = qc.load()
    try:
        other.set_attn_implementation(name)
        logits = other(inputs).logits
        weights = other(inputs, output_attentions=True).attentions
        seen = bool(weights) and weights[0] is not None
        away = (logits - model(inputs).logits).abs().max().item()
        print(f"{name:18} differs by {away:.0e}, shows its weights: {seen}")
    except (ImportError, RuntimeError, NotImplementedError) as error:
        print(f"{name:18} {type(error).__name__}: {str(error)[:60]}...")
''')
md("implementations-read", """
`sdpa` is the default and the right one nearly always. `eager` is slower and the only one that shows the
attention weights. `flash_attention_2` needs its package and a GPU.

### Threads

The published text sets four threads, for every machine. Measure yours.
""")
code("threads", '''
import os

cores, by_threads = os.cpu_count(), {}
for number in sorted({1, 2, cores, 2 * cores}):
    with inference.threads(number):
        runs = [inference.write(model, ids, 33, stop=False) for _ in range(repeats)]
    by_threads[number] = max(run.tokens_per_second for run in runs)
    print(f"{number:3} threads on {cores} cores: {by_threads[number]:5.0f} tokens/s")
''')
code("threads-plot", '''
fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
bars = ax.bar([f"{n}" for n in by_threads], by_threads.values(), color="#0072B2")
ax.bar_label(bars, fmt="%.0f")
best = max(by_threads, key=by_threads.get)
ax.set(xlabel=f"threads (this machine has {cores} cores)", ylabel="tokens a second",
       title=f"best here: {best} thread{'s' if best > 1 else ''}")  # fmt: skip
plt.show()
''', alt="Bars: tokens a second of the model for one thread, two threads and more; more threads than cores are slowest")
md("threads-read", """
So small a model does not gain from threads: they wait for each other longer than they work. A model of
full size gains up to the number of *cores* (section 8). More threads than cores are always a loss,
and four on a two-core machine are that.
""")
md("compile", """
### Static cache and torch.compile

A cache that grows has a new shape for every token. A **static cache** takes its full size at once, so
that a compiled program can be used again and again. On a GPU transformers then compiles by itself. On
a CPU it does not, even when you ask for it.
""")
code("static", '''
from transformers import CompileConfig

logging.set_verbosity_warning()
options = {"max_new_tokens": limit, "cache_implementation": "static", **greedy}
begun = time.perf_counter()
output = model.generate(inputs, compile_config=CompileConfig(), **options)
print(f"{time.perf_counter() - begun:.2f} s: too quick for a compiler")
print("same tokens:", torch.equal(output[0, len(ids) :], expected))
''')
md("compile-by-hand", """
By hand it can be done. The whole model takes more than a minute to compile. The feed-forward blocks have
the same code in every layer, so one compilation serves them all. It needs a C++ compiler.
""")
code("compile-blocks", '''
plain = inference.write(model, ids, 33, stop=False)
try:
    with inference.compiled_feed_forward(model, dynamic=True):
        begun = time.perf_counter()
        inference.write(model, ids, 9, stop=False)
        warm = time.perf_counter() - begun
        quick = inference.write(model, ids, 33, stop=False)
    gain = statistics.median(plain.gaps) - statistics.median(quick.gaps)
    print(f"compiled in {warm:.0f} s, same tokens: {quick.ids == plain.ids}")
    print(f"{plain.tokens_per_second:.0f} -> {quick.tokens_per_second:.0f} tokens/s")
    print(f"pays after {warm / gain:,.0f} tokens" if gain > 0 else "never pays here")
except RuntimeError as error:  # no C++ compiler, for instance
    print("not on this machine:", str(error).strip().splitlines()[0][:80])
''')
md("compile-read", """
⟦compiled in N s, from A to B tokens/s⟧. Compiling is a price paid once by each process. It suits a server
that runs for days, and a notebook seldom.
""")
md("part-drafts", """
## 6. Drafts: several tokens in one pass

A pass over five tokens costs hardly more than over one (section 1). So let something cheap *guess* the
next four tokens, and have the model check them all in one pass. What it would have written itself is
kept, so the text does not change. By hand, one round:
""")
code("draft-round", '''
start = tokenizer.decode(ids) + "<think>\\n38 + 47 = 85\\n"
text = tokenizer(start)["input_ids"]
guess = tokenizer("85 + 59 = 140")["input_ids"]  # the last digits are wrong

both = torch.tensor([text + guess], device=model.device)
logits = model(both).logits[0]
own = logits[len(text) - 1 :].argmax(-1).tolist()
for number, (drafted, wrote) in enumerate(zip(guess, own)):
    mark = "accepted" if guess[: number + 1] == own[: number + 1] else "-"
    print(f"{tokenizer.decode([drafted])!r:6} {tokenizer.decode([wrote])!r:6} {mark}")
''')
md("draft-round-read", """
Left what was guessed, right what the model writes at that place. Everything up to the first difference
is accepted, and the model's own token comes free on top. Who guesses? The simplest: **prompt
lookup**. If the last tokens stood somewhere before, guess that the same follows again.
""")
code("lookup", '''
found = inference.speculate(model, ids, inference.lookup, drafted=4)
print(found.marked(tokenizer))
print(f"{found.tokens_per_pass:.2f} tokens for each pass, "
      f"{found.acceptance:.0%} of the drafted ones accepted")  # fmt: skip
print("the same tokens:", found.ids == expected.tolist())
''')
md("lookup-read", """
In [brackets] stands what came from drafts. The running sum stands twice in the text, so it can be copied.
Summaries, code edits and quotations copy far more.

**Speculative decoding** lets a smaller model guess. It must have the same vocabulary. Take a coarse copy
of the same model, in 4 bits.
""")
code("speculative", '''
import logging as python_logging

# bitsandbytes tells that faster kernels could be installed.
python_logging.getLogger("bitsandbytes").setLevel(python_logging.ERROR)
coarse, _ = qc.load(precision="nf4")
draft = inference.Draft(coarse)
''')
code("speculative-measured", '''
many = [prompt(p.question) for p in qc.tasks.sums.problems(6, seed=11)]
for name, propose in (("prompt lookup", inference.lookup),
                      ("4-bit copy", draft)):  # fmt: skip
    for drafted in (1, 2, 4, 8):
        runs = [inference.speculate(model, row, propose, drafted) for row in many]
        passes = statistics.mean(run.tokens_per_pass for run in runs)
        right = statistics.mean(run.acceptance for run in runs)
        print(f"{name:13} {drafted} drafted: {passes:.2f} a pass, {right:4.0%} right")
''')
md("speculative-read", """
The 4-bit copy is nearly always right, so a pass yields nearly as many tokens as can be: the drafted ones
and one more. Is it faster? That depends on what a guess *costs*, measured in passes of the model. Here is
the formula of Leviathan et al. (2023), and the stopwatch.
""")
code("speculative-time", '''
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
drafts = range(1, 13)
colours = ("#0072B2", "#009E73", "#E69F00", "#D55E00")
for cost, colour in zip((0, 0.1, 0.3, 1), colours):
    gain = [inference.expected_speedup(0.9, drafted, cost) for drafted in drafts]
    ax.plot(drafts, gain, color=colour, label=f"{cost:g} passes")
ax.axhline(1, color="grey", linewidth=0.8)
ax.legend(title="a guess costs")
ax.set(xlabel="tokens drafted", ylabel="times as fast", ylim=(0, None),
       title="9 of 10 guesses right: it pays if guessing is cheap")  # fmt: skip
plt.show()
''', alt="Four curves of the speed gained over the number of tokens drafted, for guesses that cost nothing, a tenth, three tenths and a whole pass of the model. The cheap ones climb above one, the dearest stays below one")
code("speculative-clock", '''
def clock(run):
    begun = time.perf_counter()
    tokens = sum(len(run(row).ids) for row in many)
    return tokens / (time.perf_counter() - begun)


ways = {
    "plain": lambda row: inference.write(model, row, limit),
    "prompt lookup": lambda row: inference.speculate(model, row, inference.lookup),
    "4-bit copy": lambda row: inference.speculate(model, row, draft),
}
for name, run in ways.items():
    print(f"{name:14} {max(clock(run) for _ in range(repeats)):5.0f} tokens/s")
''')
md("speculative-clock-read", """
⟦Lookup gains, the copy loses⟧: lookup costs nothing, while the 4-bit copy has as many layers as the model
and takes as long. On large models the guesser is ten or fifty times smaller, for instance Qwen3-0.6B
for Qwen3-32B. `generate` has both built in, and the text stays the same:
""")
code("generate-drafts", '''
logging.set_verbosity_error()  # of sampling values, which greedy does not use
for options in ({"prompt_lookup_num_tokens": 4}, {"assistant_model": coarse}):
    output = model.generate(inputs, max_new_tokens=limit, **options, **greedy)
    print(list(options)[0], torch.equal(output[0, len(ids) :], expected))
''')
md("part-long", """
## 7. Long texts

How long may a prompt be? The configuration says one thing. Ask the model: a long conversation of small
sums, and a question at its end. The **loss** says how badly the model expects the right answer: 0 is
certainty.
""")
code("long-talk", '''
from qwen_course.messages import encode


def conversation(turns, seed):
    talk = []
    for problem in qc.tasks.sums.problems(turns, seed=seed, count=3):
        talk.append({"role": "user", "content": problem.question})
        talk.append({"role": "assistant", "content": problem.answer})
    last = qc.tasks.sums.problems(1, seed=seed, count=4)[0]
    ids = encode(tokenizer, [*talk, {"role": "user", "content": last.question}])
    answer = f"<think>\\n{last.thinking}\\n</think>\\n\\n{last.answer}<|im_end|>"
    return ids, tokenizer(answer)["input_ids"]


turns = (0, 4, 8, 10, 12, 16, 24, 32)
seeds = range(100, 100 + 2 * repeats)
talks = {n: [conversation(n, seed) for seed in seeds] for n in turns}
lengths = [statistics.mean(len(a) + len(b) for a, b in talks[n]) for n in turns]
''')
md("losses-text", """
Two conversations or more of each length, with new numbers each time. The loss of the right answer is
averaged over them.
""")
code("losses", '''
def losses(model):
    return [
        statistics.mean(inference.loss_after(model, *talk) for talk in talks[n])
        for n in turns
    ]
''')
code("long-measured", '''
curves = {"as trained": losses(model)}
print("the configuration says:", model.config.max_position_embeddings, "tokens")
for length, loss in zip(lengths, curves["as trained"]):
    print(f"{length:5.0f} tokens: loss {loss:.2f}")
''')
md("long-plain-read", """
The configuration allows 1,024 tokens. The pocket model was trained on at most 416 in a row, and beyond that
it gets lost: the number in the configuration is a limit of the tables, no promise. A context must be
*measured*.

**YaRN** stretches it without training (Peng et al., 2023). RoPE turns queries and keys by angles that grow with
the position, some quickly, some slowly. The slow ones reach angles that training never showed. YaRN slows
them down by a factor and leaves the quick ones, which tell neighbours apart.
""")
code("yarn-config", '''
longer = inference.with_yarn(model, factor=2.0, trained=416)
print(longer.config.rope_parameters)
slow = model.model.rotary_emb.inv_freq / longer.model.rotary_emb.inv_freq
print("each angle slowed by:", [round(value, 1) for value in slow.tolist()])
''')
md("yarn-config-read", """
For a real Qwen3 the same dictionary is published with `factor` 4.0 and the trained 32,768 tokens, for 131,072.
Which factor is right? Try several.
""")
code("yarn-measured", '''
for factor in (1.5, 2.0, 4.0):
    stretched = inference.with_yarn(model, factor, trained=416)
    curves[f"factor {factor:g}"] = losses(stretched)
wrong = inference.with_yarn(model, 2.0)  # the 1,024 of the configuration
curves["factor 2, of 1,024"] = losses(wrong)
for name, curve in curves.items():
    print(f"{name:19}", *(f"{loss:5.2f}" for loss in curve))
''')
code("yarn-plot", '''
fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
colours = ("#000000", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
for (name, curve), colour, mark in zip(curves.items(), colours, "osD^v"):
    ax.plot(lengths, curve, color=colour, marker=mark, label=name)
ax.axvline(416, color="grey", linestyle=":", label="longest text of the training")
ax.set(xlabel="tokens in the text", ylabel="loss of the right answer",
       title="a small factor helps beyond the training; a large one costs everywhere")
ax.legend(fontsize=8)
plt.show()
''', alt="Loss of the right answer over the length of the text, five lines. As trained it is near zero up to some 350 tokens and climbs after. With factor 2 it starts a little higher and climbs much later. With factor 4 it is high everywhere")
md("yarn-read", """
⟦Factor 2 keeps the loss low to about N tokens, factor 4 is bad everywhere⟧. Three rules follow, and Qwen's own
documentation gives the first two: use YaRN only when you need long texts, because short ones lose; take
the *smallest* factor that covers yours; and count from the length of the **training**. A model of billions
of parameters bears factor 4 better than one of seven million, and a little training with the new angles
mends most of the loss. That is how the long versions of Qwen2.5 were made.
""")
md("part-engines", """
## 8. Engines

transformers is made to be read and changed. An **engine** is made for nothing but running a model: the
graph is fixed, kernels are fused, weights stay packed in 4 bits while they are used. This one is ONNX
Runtime GenAI. Where its packages are missing, the next cell says so and the rest goes on without it.
""")
code("engine", '''
from qwen_course import engines

small = None
if why := engines.why_not():
    print(why)
else:
    small = engines.Engine(engines.export(qc.settings.model_name(), "int4"))
    megabytes = engines.bytes_on_disk(small.folder) / 1e6
    whole = 4 * model.num_parameters() / 1e6
    print(f"{megabytes:.1f} MB; the weights in fp32 take {whole:.1f} MB")
''')
code("engine-compare", '''
if small:
    plain = [inference.write(model, row, limit).ids for row in queue]
    coarse = [small.write(row, limit).ids for row in queue]
    found = engines.compare(plain, coarse, tokenizer)
    print(found)
    print(found.equal, "of", len(found), "answers are the same to the last token")
''')
md("engine-compare-read", """
The engine computes with the same weights, rounded to 4 bits. ⟦15 of 16⟧ answers are the same; where they
part, the table shows the two tokens. Fast is worth nothing before this is checked.
""")
code("engine-speed", '''
alone = {"transformers": lambda row: inference.write(model, row, limit)}
at_once = {"transformers": lambda: inference.serve(model, queue, limit, 16)}
if small:
    alone["engine, 4 bits"] = lambda row: small.write(row, limit)
    at_once["engine, 4 bits"] = lambda: small.serve(queue, limit)
''')
code("engine-clock", '''
for name, run in alone.items():
    print(f"{name:16} {max(clock(run) for _ in range(repeats)):5.0f} tokens/s alone")
for name, run in at_once.items():
    speed = max(run().tokens_per_second for _ in range(repeats))
    print(f"{name:16} {speed:5.0f} tokens/s, 16 at once")
''')
md("engine-full", """
The pocket model fits into the processor's caches, so all of this is about overhead. What about a model of
full size? The course's authors measured Qwen3-0.6B, with random weights, for speed does not depend on
their values. The black mark is the **roofline**: no step can end before its weights were read once.
""")
code("roofline", '''
from qwen_course import benchmark

try:
    measured = benchmark.stored("engines")
    there = measured[0].machine["bandwidth_gb_per_second"]
    print(f"their machine reads {there:.0f} GB a second")
    for row in measured:
        share = f"{row.share(1e9 * there):4.0%} of the limit"
        way = f"{row.precision}, {row.threads} threads"
        print(f"{way:36} {row.decode:6.1f} tokens/s, {share}")
    display(measured.plot(1e9 * there))
except ValueError as error:
    print(error)
''', alt="Bars: tokens a second of Qwen3-0.6B with generate in bf16 and fp32 and with the engine in 32, 8 and 4 bits, each with a mark where the memory sets its limit; beside it the memory of each")
md("roofline-read", """
⟦The engine in 4 bits writes N tokens/s, M times as many as `generate` in bf16, and reaches P% of its limit⟧.
Fewer bits raise the limit, because fewer bytes must be read. What holds the rest: unpacking 4 bits is
work, the output layer of 152 thousand tokens is computed for every token, and attention reads the cache.
""")
md("fast-generate", """
### What is left of the published function

The right things to do are few: the chat template, the default attention, slicing by tokens, threads no
more than cores, a batch where there are many requests, an engine where speed matters.
""")
code("fast-generate-code", '''
def fast_generate(model, tokenizer, text, max_new_tokens=64):
    talk = [{"role": "user", "content": text}]
    inputs = tokenizer.apply_chat_template(
        talk, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    ).to(model.device)
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=max_new_tokens)
    new = output[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()


print(fast_generate(model, tokenizer, "What is 12 + 30?"))
''')
md("take-aways", """
## What you have learnt

- Prefill reads all of a prompt in one pass, decode takes a pass for each token. Report time to first
  token and tokens per second apart.
- A pass must read all weights. So a batch, a draft and fewer bits are what makes decoding faster.
- The KV cache is two tensors a layer. It saves reading the text again, and grows with every token.
- Pad left. Let requests leave and join: continuous batching.
- PyTorch chooses attention kernels well. Forcing one can only take away.
- As many threads as cores at most, and one for a tiny model. Measure.
- A draft never changes the text. It pays if guessing is cheap.
- The configuration's context is no promise. YaRN stretches it: smallest factor, counted from the training.
- An engine can be several times faster. Compare its answers first, token by token.
""")
md("mistakes", """
## Common mistakes

| I get ... | Why | What to do |
|---|---|---|
| a slow first answer and quick ones after | the first run loads and warms up | one run before you measure |
| fewer tokens per second for long prompts | prefill was counted in | measure the first token and the rest apart |
| other answers in a batch than alone | padding on the right | `padding_side="left"` |
| `ImportError: cannot import name 'SDPABackend'` | it is called `SDPBackend` | better: do not force a kernel |
| `RuntimeError: No available kernel` | a kernel was forced that cannot do this call, for instance flash with a mask on a GPU | take the forcing out |
| all cores busy and fewer tokens | more threads than cores | `torch.set_num_threads` |
| 14 GB taken by `generate_batch` | its cache takes most of the memory | `ContinuousBatchingConfig(num_blocks=...)`, section 3 |
| nothing faster with a static cache | no compilation on a CPU | compile by hand, section 5 |
| nonsense after a few hundred tokens | longer than the training | shorten, or YaRN, section 7 |
| other answers from an engine than from transformers | it samples by default, with the values of the generation config | `do_sample=False` while you compare |
""")
md("real-model", """
## The same cells with a real Qwen

Stop Jupyter, set one variable, start again: every cell above runs unchanged.

    QWEN_COURSE_MODEL=Qwen/Qwen3-0.6B python course.py

On a CPU it needs patience: some ten tokens a second. Section 7 then wants longer texts: a real Qwen3 was
trained on 32,768 tokens. With a GPU, look at section 5 again: there the forced kernel breaks, and the
static cache compiles by itself.
""")
md("exercises", """
## Exercises

[Questions](../exercises/06_inference.ipynb) on all of this: `qc.check` says at once what is wrong and why,
`qc.hint` helps.
""")

notebook = new_notebook(cells=cells)
notebook.metadata["qwen_course"] = {
    "title": "Inference: what happens between prompt and answer",
    "goals": [
        "Tell prefill from decode, and measure both",
        "Build a KV cache, and foresee its size",
        "Serve many requests in one batch, without waiting for the longest",
        "Tell settings that help from settings that only look so",
        "Write several tokens in one pass with drafts",
        "Read texts longer than the training, and see what it costs",
        "Run the same weights in an engine, and compare the answers",
    ],
    "reading": "90 minutes",
    "download": "nothing",
    "gpu": "not needed",
}
notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
notebook.metadata["language_info"] = {"name": "python"}
nbformat.write(notebook, Path(sys.argv[1]))
