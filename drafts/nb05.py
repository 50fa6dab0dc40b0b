"""Builds notebooks/05_quantization.ipynb from cells; run by the course's own tool later."""
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


md("part-why", """
## 1. Why fewer bits?

A model is a great many numbers, the **weights**. In bf16 each takes 16 bits. **Quantization**
stores them in fewer: 8, 4, even less. By hand, for a model of 8 billion weights:
""")
code("why-by-hand", '''
weights = 8e9
for bits in (32, 16, 8, 4):
    print(f"{bits:2} bits: {weights * bits / 8 / 1e9:4.0f} GB")
''', ["nbval-check-output"])
md("why-by-hand-read", """
At 16 bits it needs a large GPU; at 4 bits it fits where games run. The real sums are a little
higher: tables stay in 16 bits, scales come on top, and there is a KV cache. Lesson 01 built the
estimate. Here is the family against machines that people have.
""")
code("family", '''
machines = {"laptop, 8 GB": 5, "T4 (Colab)": 15, "24 GB GPU": 23, "80 GB GPU": 79}
precisions = ("bf16", "int8", "nf4")


def smallest_machine(gibibytes):
    fitting = [name for name, room in machines.items() if gibibytes <= room]
    return fitting[0] if fitting else "more than one GPU"


print(f"{'':11}", *(f"{precision:26}" for precision in precisions))
for name in ("0.6B", "1.7B", "4B", "8B", "14B", "32B", "30B-A3B"):
    row = []
    for precision in precisions:
        total = qc.memory.estimate(f"Qwen3-{name}", precision, context=4096).total
        size = total / qc.memory.GIB
        row.append(f"{size:5.1f} GiB {smallest_machine(size):16}")
    print(f"{name:11}", *row)
''', ["nbval-check-output"])
md("family-read", """
The limits are what such a machine has *left* for a model, in GiB. From 4B up, every model runs on
a smaller machine in 4 bits than in 16. That is the whole reason: **quantization decides what
you can run at all**. What it costs is the rest of this lesson.
""")
code("family-plot", '''
import matplotlib.pyplot as plt

names = ("0.6B", "1.7B", "4B", "8B", "14B", "32B")
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for number, (precision, colour) in enumerate(
    zip(precisions, ("#0072B2", "#E69F00", "#D55E00"))
):
    sizes = [qc.memory.estimate(f"Qwen3-{n}", precision).total for n in names]
    places = [place + 0.27 * (number - 1) for place in range(len(names))]
    ax.bar(places, [s / qc.memory.GIB for s in sizes], 0.25, color=colour,
           label=precision)  # fmt: skip
for name, room in machines.items():
    ax.axhline(room, color="grey", lw=0.8, ls=":")
    ax.text(-0.75, room, name, fontsize=8, va="bottom")
ax.set_xticks(range(len(names)), names)
ax.set(yscale="log", ylabel="memory at 4,096 tokens (GiB)", xlabel="Qwen3",
       xlim=(-0.8, 5.6), ylim=(0.8, 120),
       title="From 4B up, four bits move a model down by a machine")  # fmt: skip
ax.legend()
plt.show()
''', alt="Bars of the memory that six sizes of Qwen3 need in bf16, int8 and nf4, on a logarithmic "
     "scale, with dotted lines at what four machines have: an 8 GB laptop, a T4, a 24 GB and an 80 GB GPU.")
md("family-plot-read", """
Note the smallest: its step from bf16 to nf4 is short. A large part of the 0.6B's weights is its
table of tokens, and the table keeps its 16 bits.
""")

md("part-matrix", """
## 2. One matrix, by hand

Take one weight matrix out of the model and look at its numbers.
""")
code("load", '''
import torch

from qwen_course import loading, quantization

device = "cuda" if torch.cuda.is_available() else "cpu"  # no quantizing on a Mac's GPU
model, tokenizer = qc.load(device=device)
layer = model.model.layers[1].self_attn.o_proj
weights = layer.weight.detach().float().cpu()

print("shape:", tuple(weights.shape))
spread, largest = weights.std(), weights.abs().max()
print(f"spread (standard deviation): {spread:.4f}")
print(f"largest: {largest:.4f}, {largest / spread:.0f} times that")
''')
md("load-read", """
Most weights lie close to zero, a few lie far out. Remember the second number: those few decide
what all others cost.

The simplest way to fewer bits is **round to nearest**: choose a step, the **scale**, and store
how many steps each weight is from zero. With 4 bits there are whole numbers from -7 to 7.
""")
code("one-scale", '''
def round_to_nearest(weights, bits):
    largest = 2 ** (bits - 1) - 1
    scale = weights.abs().max() / largest
    return (weights / scale).round().to(torch.int8), scale


codes, scale = round_to_nearest(weights, bits=4)
print("weights: ", [round(w, 3) for w in weights[0, :8].tolist()])
print("stored:  ", codes[0, :8].tolist(), f"and the scale {scale:.4f}")
print("restored:", [round(w, 3) for w in (codes[0, :8] * scale).tolist()])
print(f"codes that are 0: {(codes == 0).float().mean():.0%}")
''')
md("one-scale-read", """
The scale must reach the largest weight of the whole matrix, so the steps are wide, and many
weights fall to zero: they are gone. How bad is that? Compare the error with the weights
themselves, both as root mean square, for several numbers of bits.
""")
code("error-of-bits", '''
def error(restored):
    return ((weights - restored).norm() / weights.norm()).item()


for bits in (8, 6, 4, 3, 2):
    codes, scale = round_to_nearest(weights, bits)
    print(f"{bits} bits: error {error(codes * scale):6.1%}")
''')
md("error-of-bits-read", """
Each bit less doubles the step, and so the error, roughly. At 8 bits one scale for a whole
matrix may do; at 4 it does not. The picture shows why: where the 15 steps lie, and where the
weights lie.
""")
code("histogram", '''
codes, scale = round_to_nearest(weights, bits=4)
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.hist(weights.flatten(), bins=200, color="#56B4E9")
for step in range(-7, 8):
    ax.axvline(step * scale, color="#D55E00", lw=1, ls="--")
most = codes.unique(return_counts=True)[1].max() / codes.numel()
ax.set(xlabel="weight", ylabel="how many", yscale="log",
       title=f"{most:.0%} of the weights share one of 15 steps")  # fmt: skip
plt.show()
''', alt="Histogram of the weights of one matrix on a logarithmic scale, a bell around zero; fifteen "
     "dashed lines mark the steps of 4-bit rounding, the outer ones where hardly a weight is.")
md("histogram-read", """
The outer steps serve a handful of **outliers**, the middle ones serve everybody else. Two
remedies: give each part of the matrix a scale of its own, or put the steps where the weights
are.
""")
md("groups", """
### A scale for each row, or for each group

One scale a row is what bitsandbytes calls int8. It is called **absmax**, for the largest
absolute value sets the scale. Written for a row, and held against the library:
""")
code("absmax", '''
from bitsandbytes import functional as library

rows = weights.half()
peaks = rows.abs().amax(dim=1).float()
codes = torch.round(rows * (127 / peaks[:, None])).to(torch.int8)

its_codes, its_peaks, _ = library.int8_vectorwise_quant(rows)
print("same codes: ", torch.equal(codes, its_codes))
print("same scales:", torch.equal(peaks, its_peaks))
print(f"error: {error(codes.float() * peaks[:, None] / 127):.2%}")
''')
md("absmax-read", """
Three lines are the library, to the last bit. For 4 bits a row is still too long. **Group-wise**
quantization cuts each row into groups of 32, 64 or 128. `quantization.absmax` and
`quantization.affine` do this; affine adds a **zero point**, so that a group whose weights lie
to one side wastes no codes.
""")
code("group-size", '''
print("group   bits a weight   absmax   affine")
for group in (None, 128, 64, 32, 16):
    if group and weights.shape[1] % group:
        continue
    found = [
        method(weights, bits=4, group=group)
        for method in (quantization.absmax, quantization.affine)
    ]
    errors = [error(one.dequantize()) for one in found]
    size = f"{group or 'row':>5}   {found[1].bits_per_weight:13.2f}"
    print(size, *(f"{e:8.1%}" for e in errors))
''')
md("group-size-read", """
Smaller groups, smaller errors, and more bits: each group brings a scale of 16 bits (affine a
zero too). 64 or 128 is what most checkpoints with "4 bits" use; the true cost is then 4.2 to
4.5 bits a weight.

Groups also keep an outlier where it is. Plant one:
""")
code("outlier", '''
spoilt = weights.clone()
spoilt[0, 0] = 20 * weights.abs().max()  # one weight, far out

for group in (None, 64):
    restored = quantization.affine(spoilt, 4, group).dequantize()
    lost = (restored[0, 1:] == 0).float().mean()
    print(f"group {group or 'row'}: {lost:.0%} of its row became 0")
''')
md("outlier-read", """
With one scale a row, one weight wipes out its whole row; with groups, its group, and what was
near zero anyway. Large models do grow such outliers
(Dettmers et al., 2022, arXiv 2208.07339), mostly in what flows *through* the layers. That is
why LLM.int8 keeps the columns with large inputs in 16 bits: `llm_int8_threshold=6.0`.
""")
md("nf4", """
### Steps where the weights are: NF4

Weights look like a bell curve. **NF4** (NormalFloat, 4 bits) takes the 16 levels from that
curve, so that each is used about equally often, and 64 weights share a scale. By hand:
""")
code("nf4-by-hand", '''
levels = quantization.nf4_levels()
groups = weights.reshape(-1, 64)
peaks = groups.abs().amax(dim=1, keepdim=True)
between = (levels[1:] + levels[:-1]) / 2  # above it, the next level is nearer
codes = torch.bucketize(groups / peaks, between)
restored = (levels[codes] * peaks).reshape(weights.shape)

packed, state = library.quantize_4bit(weights, blocksize=64, quant_type="nf4")
same = torch.isclose(restored, library.dequantize_4bit(packed, state), atol=1e-6)
print("levels:", [round(level, 2) for level in levels.tolist()])
print(f"equal to the library: {same.float().mean():.2%} of the weights")
print(f"error: {error(restored):.1%}")
''')
code("nf4-plot", '''
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
even = quantization.affine(weights, 4, 64).codes.flatten()
for ax, used, name in ((axes[0], even, "affine"), (axes[1], codes.flatten(), "NF4")):
    share = torch.bincount(used.int(), minlength=16) / used.numel()
    ax.bar(range(16), 100 * share, color="#0072B2")
    ax.axhline(100 / 16, color="grey", ls=":")
    ax.set(xlabel="code", title=f"{name}: the busiest code serves {share.max():.0%}")
axes[0].set_ylabel("weights with this code (%)")
plt.show()
''', alt="Two bar charts of how often each of the 16 codes is used: affine rounding favours the middle "
     "codes, NF4 spreads the weights more evenly; a dotted line marks an even use.")
md("nf4-plot-read", """
NF4 spreads the use more evenly, as it was made to (not quite: the scale follows the largest
weight of a group, which differs from group to group). Its error is that of affine in groups of
64, with no zero point to store, and lower than that of absmax. The level 0 is there on purpose:
padding and dead weights stay exact.
""")
md("packing", """
### Where the memory really goes down

A code of 4 bits in a tensor of bytes has saved nothing against 8 bits. Two must share a byte.
""")
code("packing-bytes", '''
two = codes.reshape(-1, 2).to(torch.uint8)
bytes_by_hand = (two[:, 0] << 4) | two[:, 1]
print("same bytes as the library:", torch.equal(bytes_by_hand, packed.flatten()))

whole = weights.bfloat16()
for name, tensor in (("bf16", whole), ("packed", packed), ("scales", state.absmax)):
    print(f"{name:7} {tensor.nbytes / 1024:7.1f} KiB, {tensor.dtype}")

single, double = 4 + 32 / 64, 4 + 8 / 64 + 32 / (64 * 256)
print(f"bits a weight: {single:.2f}, with double quantization {double:.2f}")
''')
md("packing-read", """
A scale of 32 bits for 64 weights is half a bit a weight. **Double quantization** stores the
scales in 8 bits, with one scale for 256 of them: the last line.
""")

md("part-library", """
## 3. The whole model, with a library

You have seen all that happens. Now a library does it to every linear layer while loading.
This call is in many texts:
""")
code("published-load", '''
from transformers import AutoModelForCausalLM

try:
    AutoModelForCausalLM.from_pretrained(model.config.name_or_path, load_in_8bit=True)
except TypeError as why:
    print("TypeError:", why)
''')
md("published-load-read", """
`load_in_8bit=True` was taken out in transformers 5. Today the settings are an object, and its
fields say what section 2 did by hand.
""")
code("bitsandbytes", '''
from transformers import BitsAndBytesConfig
from transformers.utils import logging

logging.disable_progress_bar()
config = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=model.dtype,
)
quantized = AutoModelForCausalLM.from_pretrained(
    model.config.name_or_path, quantization_config=config, device_map=device
)
for name, parameter in list(quantized.named_parameters())[:5]:
    print(f"{name:40} {str(parameter.dtype):15} {tuple(parameter.shape)}")
''')
md("bitsandbytes-read", """
The linear layers became rows of bytes (`uint8`, two weights in each). The table `embed_tokens`
did not, and neither did the norms. `compute_dtype` is what the weights are turned back into for
each product: stored in 4 bits, computed in 16 or 32.

`qc.load` packs this. How large is the model now?
""")
code("sizes", '''
from qwen_course import meters

linear = sum(part.weight.numel() for part in quantization.linear_layers(model).values())
print(f"in linear layers: {linear / model.num_parameters():.0%} of the weights")
for precision in ("fp32", "bf16", "int8", "nf4-single", "nf4"):
    if reason := loading.why_not(precision, device):
        print(f"{precision:10} not here: {reason}")
        continue
    loaded, _ = qc.load(precision=precision, device=device)
    print(f"{precision:10} {qc.memory.gib(meters.storage_bytes(loaded))}")
''')
md("sizes-read", """
From bf16 to 4 bits is a quarter only for what is quantized. A small model is mostly table, so it
gains least: the same that you saw for the 0.6B. (`meters.storage_bytes` counts the memory behind every
tensor, scales too. `get_memory_footprint` of transformers does not see the scales of some
libraries.)
""")
code("more-precisions", '''
for precision in loading.PRECISIONS:
    print(f"{precision:13} {loading.why_not(precision, device) or 'runs here'}")
''')
md("more-precisions-read", """
What your machine lacks says why. The lesson goes on without it, here and below.
""")

md("part-cost", """
## 4. What it costs: right answers

An error of some percent in a matrix, is that much? Only answers tell. Ask problems of five
skills at each precision. `many` is small, so that the lesson is quick; set it to 100 for
narrower intervals.
""")
code("cost", '''
from qwen_course.precision_costs import compare, skill_problems

many = 12
problems = skill_problems(many, seed=5)
costs = compare(None, problems, max_new_tokens=128)
costs
''')
md("cost-read", """
**Perplexity** says how surprised the model is by the worked solutions, 1 being not at all. It
moves before the answers do. The intervals are wide: with so few problems, differences of a few
points mean nothing. (nf4 and nf4-single may show one size: some processors unpack the second
scales at the first use.) ⟦one sentence: which precisions differ by more than the interval⟧
""")
code("cost-skills", '''
print(costs.skills())
costs.plot()
''', alt="Points with error bars: the share of right answers in five skills at each precision, the "
     "precisions ordered from fp32 to nf4 with the size of their weights below.")
md("cost-skills-read", """
⟦which skill loses first⟧ Long chains of exact steps lose first: one wrong digit anywhere spoils
the answer. The authors of the course measured the same with many more problems:
""")
code("cost-stored", '''
from qwen_course.precision_costs import stored_costs

many_problems = stored_costs()
print(f"{many_problems[0].score.total:,} problems for each precision")
print(many_problems)
print(many_problems.skills())
''', ["nbval-check-output"])
md("cost-stored-read", """
⟦finding from the stored table: bf16 and int8 within the interval of fp32, nf4 x points below⟧

### How low can you go?

With the methods of section 2 you can try *any* number of bits, on any machine: round the
weights and put them back (`quantization.rounded`). The model then answers as if it were stored
in so few bits.
""")
code("bits", '''
asked = [problem for part in problems.values() for problem in part]
options = {"progress": False, "batch_size": 64, "max_new_tokens": 96}
curves = {}
for group in (None, 32):
    curves[group] = {}
    for bits in (8, 4, 3, 2):
        coarse = quantization.rounded(model, bits, group)
        curves[group][bits] = qc.evaluate(coarse, tokenizer, asked, **options).score
        print(f"{bits} bits, group {group or 'row'}: {curves[group][bits]}")
''')
code("bits-plot", '''
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (group, curve), colour, mark in zip(curves.items(), ("#0072B2", "#D55E00"), "os"):
    bits = list(curve)
    share = [100 * score.accuracy for score in curve.values()]
    bars = [[100 * abs(s.interval[side] - s.accuracy) for s in curve.values()]
            for side in (0, 1)]  # fmt: skip
    ax.errorbar(bits, share, bars, color=colour, marker=mark, capsize=3,
                label=f"a scale for each {group or 'row'}")  # fmt: skip
ax.set(xlabel="bits a weight, scales not counted", ylabel="right (%)", ylim=(-3, 103),
       title="The answers hold for a while, then break down")  # fmt: skip
ax.legend(title="affine, round to nearest")
plt.show()
''', alt="Two falling curves: right answers over the bits of a weight, with one scale a row and "
     "with one for 32 weights; both are flat from 8 bits down and then drop.")
md("bits-plot-read", """
A cliff, not a slope: nothing happens for several bits, then everything. ⟦where the two curves
break⟧ Small groups move the cliff to the left. That is what the many methods with names (GPTQ,
AWQ, ...) compete for: the same bits, with the cliff further away.
""")
md("thinking", """
### Does thinking still help?

A budget curve (lesson 03) at each precision, and at 3 bits by hand. Sums of five, so that there
is something to think about.
""")
code("budget", '''
fives = qc.tasks.sums.problems(3 * many, seed=6, count=5)
budgets = (32, 48, 64, 96)
versions = {"full": model, "3 bits": quantization.rounded(model, bits=3)}
for precision in ("int8", "nf4"):
    if loading.why_not(precision, device) is None:
        versions[precision], _ = qc.load(precision=precision, device=device)
curves = {}
for name, version in versions.items():
    curves[name] = [
        qc.evaluate(version, tokenizer, fives, thinking_budget=b, **options).score
        for b in budgets
    ]
    print(f"{name:7}", *(f"{score.accuracy:6.0%}" for score in curves[name]))
''')
code("budget-plot", '''
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
looks = zip(("#0072B2", "#D55E00", "#E69F00", "#009E73"), "o^sD")
for (name, scores), (colour, mark) in zip(curves.items(), looks):
    share = [100 * score.accuracy for score in scores]
    bars = [[100 * abs(score.interval[side] - score.accuracy) for score in scores]
            for side in (0, 1)]  # fmt: skip
    ax.errorbar(budgets, share, bars, color=colour, marker=mark, capsize=3, label=name)
ax.set(xlabel="thinking budget (tokens)", ylabel="right (%)", ylim=(-3, 103),
       title="Quantization lowers the top of the curve, not its steps")  # fmt: skip
ax.legend()
plt.show()
''', alt="Curves of right answers over the thinking budget, for full precision, int8, nf4 and 3 bits: "
     "all rise at the same budget, to different heights.")
md("budget-plot-read", """
⟦read: same step, lower plateau⟧ Each thought is a chain of steps, and each step may now go
wrong. A larger budget does not repair that.
""")
md("published-quality", """
### The same for real models

Qwen published such a table for Qwen2: the mean of MMLU, C-Eval and IFEval.
""")
code("published-quality-table", '''
from qwen_course.datafiles import read_yaml

published = read_yaml("quantized")["quality"]
print(published["source"])
print(f"{'':22}", *(f"{column:>10}" for column in published["columns"]))
for name, (full, *others) in published["models"].items():
    lost = " ".join(f"{other - full:+10.1f}" for other in others)
    print(f"{name:22} {full:10.1f} {lost}")
''', ["nbval-check-output"])
md("published-quality-read", """
The columns after bf16 show the change, in points. At 72B four bits cost less than one point, at
0.5B three to five: **the smaller the model, the more 4 bits cost**. Eight bits cost at most two
points anywhere. For Qwen3 the page says that the table is still to come.
""")

md("part-speed", """
## 5. What it does to speed

Fewer bytes, so faster? Decoding reads every weight once for each token. How fast can this
machine read?
""")
code("bandwidth", '''
from qwen_course.benchmark import Measurements, benchmark, memory_bandwidth

bandwidth = memory_bandwidth(device)
print(f"reads {bandwidth / 1e9:.0f} GB a second")
for bits in (16, 8, 4):
    size = 596e6 * bits / 8  # the weights of Qwen3-0.6B
    print(f"{bits:2} bits: at most {bandwidth / size:4.0f} tokens a second")
''')
md("bandwidth-read", """
This limit is the flat part of the **roofline** model: no program can be faster than its memory.
By it, 4 bits should give four times the speed of 16. Measure. `benchmark` loads a model in a
fresh process, warms up, repeats, and keeps prefill and decoding apart.
""")
code("speed-pocket", '''
for cost in costs.measured:
    speed = cost.tokens_per_second
    share = speed * cost.weights_bytes / bandwidth
    print(f"{cost.precision:10} {speed:4.0f} tokens/s, {share:3.0%} of its limit")

Measurements([benchmark(None, "nf4", new_tokens=48, repeats=3, device=device)])
''')
md("speed-pocket-read", """
Far from any limit, and fewer bits are no faster: ⟦order⟧. So small a model fits into the
processor's cache and each of its products is tiny: what you see is the *overhead* of each method.
int8 in bitsandbytes looks for outliers before every product, casts, and puts the parts together
again. (The table is what `benchmark` tells of one precision.)
""")
md("speed-true", """
So measure on true widths. `random_checkpoint` writes a Qwen3-0.6B with random weights, here with
4 of its 28 layers. Speed does not depend on the values. (The text would be noise.)
""")
code("speed-true-width", '''
from qwen_course.benchmark import random_checkpoint

layers = 4  # None: all of them, as in the real checkpoint (1.2 GB on the disk)
folder = random_checkpoint("Qwen3-0.6B", layers=layers)

rows = Measurements()
for precision in ("bf16", "int8", "nf4"):
    if loading.why_not(precision, device) is None:
        rows.append(
            benchmark(folder, precision, new_tokens=16, repeats=3, device=device)
        )
rows
''')
code("speed-plot", '''
for row in rows:
    print(f"{row.precision:5} {row.share(bandwidth):4.0%} of the limit")
rows.plot(bandwidth)
''', alt="Left: bars of decoding speed for bf16, int8 and nf4, each with a mark where the memory "
     "bandwidth sets the limit. Right: bars of their peak memory.")
md("speed-plot-read", """
⟦read: who is nearest to its limit⟧ The mark moves right with fewer bits, the bar need not
follow: the weights must be turned back into 16 bits before each product, and that takes
time. Whether 4 bits are *fast* is a question of the program, not of the bits. Lesson 06 runs
an engine that computes in 4 bits directly.
""")
code("speed-stored", '''
from qwen_course.benchmark import stored

whole = stored("precisions")
Measurements(
    row
    for row in whole
    if row.tokens_per_second and row.model != "pocket-qwen3" and row.device == "cpu"
)
''')
md("speed-stored-read", """
The same with all layers, as the course's authors measured it on the machine named below the
table. ⟦read⟧ And as Qwen measured it, on a GPU:
""")
code("speed-published", '''
for block in read_yaml("quantized")["speed"]:
    print(f"{block['engine']}, {block['hardware']}")
    for size in ("0.5B", "7B", "32B"):
        full, *others = block["models"][f"Qwen2.5-{size}-Instruct"]
        ratios = zip(block["columns"][1:], others)
        times = ", ".join(f"{column} {other / full:.2f} x" for column, other in ratios)
        print(f"  Qwen2.5-{size:4} bf16 {full:6.2f} tokens/s, {times}")
''', ["nbval-check-output"])
md("speed-published-read", """
With transformers, int8 *slowed every size*, and so did AWQ on these three. With vLLM, whose
kernels are made for it, 4 bits gave the 7B 1.8 times and the 32B more than twice the speed; the 0.5B
was slower with any quantization. So: **quantize for memory; for speed, measure.**
""")

md("memory-check", """
Memory, at last: does the estimate of lesson 01 hold? The peaks below were measured in fresh
processes, with short and with long contexts, and hold weights, cache and activations.
""")
code("memory-check-table", '''
from qwen_course.benchmark import against_estimate

against_estimate(whole)
''')
md("memory-check-table-read", """
⟦read: at most x% off⟧ The estimate is a product of numbers that you know before you download
anything. Trust it, and leave a tenth of room.
""")

md("part-cache", """
## 6. The KV cache in few bits

The weights are not all. Each token leaves a key and a value in every layer, in 16 or 32 bits.
For long texts that is more than the weights. The call in many texts:
""")
code("cache-published", '''
greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
asked_once = [{"role": "user", "content": "What is 38 + 47 + 59?"}]
inputs = tokenizer.apply_chat_template(
    asked_once, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(model.device)
published = {"cache_implementation": "quantized", "max_new_tokens": 8}
try:
    model.generate(**inputs, **published, **greedy)
    print("it ran: the package optimum-quanto is installed here")
except ImportError as why:
    print("ImportError:", str(why).strip().splitlines()[-1])
''')
md("cache-published-read", """
Its default needs one more package. transformers can also keep the cache in 8-bit floating point
(`"fp8"`) with none. And by hand it is section 2 again: quantize each key when it comes.
""")
code("cache-by-hand", '''
from transformers import DynamicCache
from transformers.cache_utils import QuantizedCache

caches = {
    "as computed": DynamicCache,
    "fp8 (transformers)": lambda: QuantizedCache("fp8", model.config),
    "8 bits, by hand": lambda: quantization.quantized_cache(bits=8),
    "4 bits, by hand": lambda: quantization.quantized_cache(bits=4),
}
for name, make in list(caches.items()):
    try:
        cache = make()
    except ValueError as why:  # an older transformers
        print(f"{name:19} not here: {why}")
        del caches[name]
        continue
    ids = model.generate(**inputs, past_key_values=cache, max_new_tokens=64, **greedy)
    size = meters.cache_bytes(cache) / cache.get_seq_length()
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    print(f"{name:19} {size:6.0f} bytes a token  ...{text[-20:]!r}")
''')
md("cache-by-hand-read", """
Bytes really kept, scales included: from 32 bits to about a quarter with 8, and a seventh with 4.
The answer is still there. One answer proves nothing: ask the problems.
""")
code("cache-cost", '''
for name, make in caches.items():
    with quantization.cached_in(model, make):
        result = qc.evaluate(model, tokenizer, asked, **options)
    print(f"{name:19} {result.score}, {result.seconds:.1f} s")
''')
md("cache-cost-read", """
⟦read: accuracy within the interval or not; time⟧ It saves memory and costs time: every step
turns the whole cache back. Use it when the *text* is long, not when the model is large. How
long? Where the cache outgrows the weights:
""")
code("cache-when", '''
pairs = (("Qwen3-0.6B", "bf16"), ("Qwen3-8B", "bf16"), ("Qwen3-8B", "nf4"))
for name, precision in pairs:
    size = qc.memory.dimensions(name)
    weights_size = qc.memory.estimate(name, precision, context=1).weights
    tokens = weights_size / qc.memory.kv_cache_bytes(size, 1)
    print(f"{name:10} {precision:4} from {tokens:7,.0f} tokens on")
''', ["nbval-check-output"])
md("cache-when-read", """
Beyond that the cache is the larger part. Count all sequences of a batch together: 16 requests
of 1,000 tokens are 16,000 tokens of cache.
""")

md("part-device", """
## 7. On a small device

A published "mobile" function, as it stands in many texts (the loading failed in section 3):
""")
code("mobile-published", '''
def mobile_inference(prompt):
    inputs = tokenizer(prompt, return_tensors="pt", max_length=512, truncation=True)
    with torch.no_grad():
        outputs = model.generate(**inputs.to(model.device), max_new_tokens=40,
                                 do_sample=True, temperature=0.7,
                                 pad_token_id=tokenizer.eos_token_id)  # fmt: skip
    response = tokenizer.decode(outputs[0], skip_special_tokens=True)
    return response.replace(prompt, "").strip()


torch.manual_seed(0)
print(repr(mobile_inference("What is 38 + 47?")))
print(repr(mobile_inference(" word" * 600 + " What is 38 + 47?")[-60:]))
''')
md("mobile-published-read", """
What goes wrong, in its order: no chat template, so the model continues a text instead of
answering. `truncation=True` cuts the *end* of a long prompt: the question itself is gone. And
the prompt is removed as text: where decoding changed a single character of it, it stays in the
answer. Cut tokens, not text:
""")
code("mobile-right", '''
def answer_briefly(prompt, max_prompt_tokens=512, max_new_tokens=40):
    ids = tokenizer(prompt)["input_ids"]
    if len(ids) > max_prompt_tokens:  # keep the end: there is the question
        prompt = tokenizer.decode(ids[-max_prompt_tokens:])
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True,
        enable_thinking=False, return_dict=True, return_tensors="pt",
    ).to(model.device)  # fmt: skip
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, **greedy)
    new = output[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True)


print(repr(answer_briefly("What is 38 + 47?")))
print(repr(answer_briefly(" word" * 600 + " What is 38 + 47?", max_prompt_tokens=12)))
''')
md("mobile-right-read", """
The text is cut *before* the template is laid around it, so no control token is lost. `torch_dtype`,
`device_map="auto"` and `pad_token_id` are gone: they were dead or wrong here. The helper
`quantization.mobile_inference` also keeps the beginning, and says what it dropped.
""")
code("mobile-helper", '''
long = "The price list. " + "word " * 600 + "What is 38 + 47?"
quantization.mobile_inference(
    model, tokenizer, long, max_prompt_tokens=32, sampling="greedy"
)
''')
md("mobile-helper-read", """
And bitsandbytes runs on no phone: it needs Python and PyTorch. On phones and small boards the
same weights run as GGUF, ONNX or OpenVINO files. Lesson 06 runs such engines, lesson 10 brings
them to devices.
""")

md("part-export", """
## 8. Export and load again

Quantizing at each start costs time and the full memory, for a moment. Save the result instead.
""")
code("export", '''
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
quantized, _ = qc.load(precision="nf4", device=device)
size = quantization.export(quantized, tokenizer, folder)  # before its first use
print(f"{size / 2**20:.1f} MiB of weights")
method = quantized.config.quantization_config.quant_method.value
print(f"config.json says: {method}")

again, its_tokenizer = qc.load(folder, device=device)
reply = qc.chat(again, its_tokenizer, "What is 38 + 47?", sampling="greedy")
print(reply.answer)
''')
md("export-read", """
Inside are `save_pretrained` twice, and one check. On processors with bf16 instructions,
bitsandbytes *repacks* 4-bit weights when they are first used. Saved after that without double
quantization, the scales come out in the wrong order, and no error says so. So: load, save,
then use. What would the check say?
""")
code("export-check", '''
used, _ = qc.load(precision="nf4-single", device=device)
qc.chat(used, tokenizer, "What is 38 + 47?", sampling="greedy")
try:
    quantization.export(used, tokenizer, folder / "again")
    print("saved: this processor repacks nothing")
except ValueError as why:
    print("ValueError:", why)
''')
md("export-check-read", """
Such files are for bitsandbytes alone. Other engines have their own forms, and published
checkpoints are mostly GPTQ, AWQ, FP8 (for GPUs) or GGUF. The first two were made with example
texts, to put the errors where they matter least: loading alone cannot do that.
""")

md("part-lab", """
## 9. Now you

How much memory may the weights take, how many answers must be right? The panel marks the
fastest precision that does both. Tab moves between the fields, the arrow keys move a slider.
""")
code("lab", '''
qc.widgets.precision_comparer(costs)
''')
md("lab-read", """
The panel needs a running kernel. In a plain Python session the same is
`print(precision_costs.fitting(costs, memory_mib=12, least_right=0.9))`.
""")
md("take-aways", """
## What you have learnt

- Fewer bits decide what you can run at all: 4 bits are about a quarter of bf16, for all but
  the tables.
- A scale for each group of weights makes 4 bits work; one outlier spoils only its group.
- NF4 puts its 16 levels where the weights are. Two codes share a byte.
- Answers hold, then break down: look for the cliff with *your* problems, and with intervals.
- The smaller the model, the more 4 bits cost.
- Fewer bits are not faster by themselves. The roofline says what is possible, a measurement
  says what is.
- The KV cache can be quantized too; it pays for long texts.
- Export before the first use, reload, and compare.
""")
md("mistakes", """
## Common mistakes

| I get ... | Why | What to do |
|---|---|---|
| `TypeError: ... unexpected keyword argument 'load_in_8bit'` | removed in transformers 5 | `quantization_config=BitsAndBytesConfig(load_in_8bit=True)`, or `qc.load(..., precision="int8")` |
| a quantized model as large as before | `llm_int8_has_fp16_weight=True` keeps 16-bit weights, for training | leave it out |
| a model hardly smaller in 4 bits | it is mostly table, which stays in 16 bits | count first: `qc.memory.estimate` |
| 4 bits slower than 16 | the weights are turned back before each product | an engine that computes in 4 bits, lesson 06 |
| a thousand lines "inputs will be cast" | bitsandbytes int8 warns at each product | `qc.load` silences it |
| `ImportError: ... optimum-quanto` | `cache_implementation="quantized"` takes it by default | `QuantizedCache("fp8", config)`, section 6 |
| nonsense after saving and loading 4 bits | saved after the first use, without double quantization | save first, section 8 |
| an answer that repeats my question | the prompt was removed as text | slice by tokens, section 7 |
""")
md("real-model", """
## The same cells with a real Qwen

Stop Jupyter, set one variable, start again: every cell above runs unchanged.

    QWEN_COURSE_MODEL=Qwen/Qwen3-0.6B python course.py

Its thinking takes hundreds of tokens: raise `max_new_tokens` to 2,000 in section 4, and use a
GPU. Without one, skip the cells of section 4.
""")
md("exercises", """
## Exercises

[⟦n⟧ questions](../exercises/05_quantization.ipynb), ⟦m⟧ minutes in all if you do each.
`qc.check` says at once what is wrong and why, `qc.hint` helps.
""")

notebook = new_notebook(cells=cells)
notebook.metadata["qwen_course"] = {
    "title": "Quantization: fewer bits, and what they cost",
    "goals": [
        "Say which model fits into which machine, at which precision",
        "Quantize a matrix by hand: absmax, groups, zero points, NF4",
        "Load a model in 8 and 4 bits, and know what stays in 16",
        "Measure what it costs: perplexity and right answers, with intervals",
        "Measure speed and memory, and hold them against the limit of the machine",
        "Quantize the KV cache; export a quantized model and load it again",
    ],
    "reading": "75 minutes",
    "download": "nothing",
    "gpu": "not needed",
}
notebook.metadata["kernelspec"] = {
    "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3",
}
notebook.metadata["language_info"] = {"name": "python"}
nbformat.write(notebook, Path(sys.argv[1]))
