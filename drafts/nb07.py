"""Builds notebooks/07_fine_tuning.ipynb from cells; run by the course's own tool later."""
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
## 1. What the model cannot do

**Fine-tuning** goes on with the training of a finished model, on your own examples. Before you do
it, ask whether a better prompt is enough, or a document beside the question: both can be changed
in a minute. Fine-tune for what no prompt brings: a new skill, a fixed form, a tone.

The pocket model has never seen a Roman numeral. So that is what we teach it.
""")
code("imports", '''
from qwen_course import chat_data, fine_tuning, tasks, training_memory
from qwen_course.settings import effort
from qwen_course.tasks import products, roman_numerals, sums

model, tokenizer = qc.load()
''')
code("before", '''
count = effort(200, 4)  # how many problems of each kind; 4 in the course's own tests
new = roman_numerals.problems(count, seed=2, kind="to Roman")
for problem in new[:3]:
    reply = qc.chat(
        model, tokenizer, problem.question, thinking=False, sampling="greedy"
    )
    print(f"{problem.question}  {reply.answer!r}, right: {problem.answer}")
''')
md("before-read", """
Wrong, and not even in the right form. Measure it, and measure what it *can* do as well: what you
do not measure before, you cannot miss after.
""")
code("measure", '''
asked = {"roman_numerals": new}
for name in ("sums", "products", "word_problems", "course_questions", "tool_calls"):
    asked[name] = getattr(tasks, name).problems(count, seed=1)
at_once = {"roman_numerals": False}  # the new skill is asked without thinking

before = fine_tuning.measure(model, tokenizer, asked, at_once)
for name, score in before.items():
    print(f"{name:16} {score}")
''')
md("measure-read", """
These problems are **held out**: their numbers occur in no training set, so that a right answer
is a skill and not a memory. `problems(..., split="train")` gives the others.
""")

md("part-lora", """
## 2. LoRA by hand

Training all weights of a model needs, for each, its gradient and two more numbers for the
optimizer. **LoRA** (low-rank adaptation; Hu et al., 2021, arXiv 2106.09685) freezes the weights W
and learns a small change beside them: the product of a narrow matrix A and a narrow matrix B.
""")
code("lora-by-hand", '''
import copy

import torch
from torch import nn


class LoRA(nn.Module):
    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer = layer.requires_grad_(False)  # W stays as it is
        like = {"dtype": torch.float32, "device": layer.weight.device}
        self.A = nn.Parameter(torch.randn(rank, layer.in_features, **like) / rank)
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank, **like))
        self.scale = alpha / rank

    def forward(self, x):
        change = x.to(self.A.dtype) @ self.A.T @ self.B.T
        return self.layer(x) + (self.scale * change).to(x.dtype)
''')
md("lora-by-hand-read", """
B begins as zeros, so that the model answers as before in the first step. The **rank** is the
width between A and B. `alpha / rank` scales the change, so that another rank needs no other
learning rate.

Is that all? Put it beside the library's.
""")
code("lora-equal", '''
from peft import LoraConfig, inject_adapter_in_model

config = LoraConfig(r=8, lora_alpha=16, target_modules=["up_proj"])
library = inject_adapter_in_model(config, copy.deepcopy(model))
theirs = library.model.layers[0].mlp.up_proj
''')
code("lora-the-same", '''
mine = LoRA(model.model.layers[0].mlp.up_proj, rank=8, alpha=16)

with torch.no_grad():
    mine.B.normal_()
    theirs.lora_A["default"].weight.copy_(mine.A)
    theirs.lora_B["default"].weight.copy_(mine.B)
    x = torch.randn(5, mine.layer.in_features, dtype=model.dtype, device=model.device)
    print("largest difference:", (mine(x) - theirs(x)).abs().max().item())
''')
md("lora-equal-read", """
The same numbers (up to rounding, where the weights are in 16 bits). How many parameters are
trained? For a layer of 256 inputs and 704 outputs: 256 x 704 in W, (256 + 704) x rank in A and
B.
""")
code("lora-count", '''
whole = model.num_parameters()
for rank in (1, 8, 64):
    adapted = fine_tuning.attach_lora(copy.deepcopy(model), rank=rank)
    trained = fine_tuning.trained_parameters(adapted)
    print(f"rank {rank:2}: {trained:9,} of {whole:,} parameters, {trained / whole:.1%}")
''')
md("lora-count-read", """
The smaller the model, the larger the share. For Qwen3-8B the same rank 8 is
about a quarter of a percent. `attach_lora` takes all linear layers inside the blocks, as is
usual today; a published recipe for Qwen2.5 takes those of the attention only. What if you
misspell one?
""")
code("lora-targets", '''
print(fine_tuning.target_names(model))
try:
    fine_tuning.attach_lora(model, targets=["q_proj", "k_prj", "v_proj", "o_proj"])
except ValueError as why:
    print("ValueError:", why)
''')
md("lora-targets-read", """
PEFT itself raises only when *no* name fits: with three right names of four it trains three, and
says nothing. Two variants are one word each. `rslora=True` scales by the root of the rank, for
high ranks; `dora=True` also learns the length of each row, and takes more time.
""")

md("part-rows", """
## 3. Rows, and what the loss counts

A training row is a conversation whose last message is the answer to learn.
""")
code("rows", '''
problems = roman_numerals.problems(
    effort(3200, 60), seed=1, split="train", kind="to Roman"
)
rows = chat_data.from_problems(problems)
for row in rows[:2]:
    print(row)
''')
md("rows-read", """
Your own rows come from a file with one JSON object a line, a **JSONL** file. Most failed
trainings fail here, and silently. So read it with something that looks at every row:
""")
code("rows-bad", '''
import json
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
good = json.dumps(rows[0])
no_answer = json.dumps({"messages": rows[1]["messages"][:1]})
silent = {"role": "assistant", "content": ""}
empty = json.dumps({"messages": [rows[2]["messages"][0], silent]})
accents = '{"messages": [{"role": "user", "content": "Où?"}]}'.encode("latin-1")
lines = [good, no_answer, empty, good[:40]]
(folder / "rows.jsonl").write_bytes("\\n".join(lines).encode() + b"\\n" + accents)
try:
    chat_data.read_jsonl(folder / "rows.jsonl")
except ValueError as why:
    print(why)
''')
md("rows-bad-read", """
Each line says which row, which key, and what to do.

### What is learnt, token by token

The model reads the whole row, but it should learn to *answer*, not to ask. So every token gets
a **label**: itself where it is learnt, and -100 where the loss must not look. (-100 is nothing
but the default of `ignore_index` in PyTorch's `cross_entropy`.)
""")
code("labels", '''
example = chat_data.encode(rows[:1], tokenizer)[0]
for token, label in zip(example.ids, example.labels):
    text = repr(tokenizer.decode([token]))
    print(f"{token:6} {text:16} {label if label == chat_data.IGNORE else 'learnt'}")
''')
md("labels-read", """
Learnt are the answer and the token that ends it. The empty think block belongs to the prompt:
the template puts it there with `enable_thinking=False`. Section 7 shows what happens when it
is learnt.

### Packing

The rows are short and of different lengths. Side by side in a batch, most places would be
filled up with a pad token. **Packing** puts several rows into one. But then a token must not
look at the neighbour's.
""")
code("pack", '''
examples = chat_data.encode(rows, tokenizer)
longest = max(map(len, examples))
packed = chat_data.pack(examples, length=192)
alone = chat_data.one_a_row(examples)
for found, length in ((alone, longest), (packed, 192)):
    used = chat_data.filled(found, length)
    print(f"{len(found):5,} rows of {length:3} places, {used:.0%} used")
''')
code("batch", '''
batch = chat_data.collate(packed[-2:], pad=tokenizer.pad_token_id)
print({name: tuple(tensor.shape) for name, tensor in batch.items()})
print("positions:", batch["position_ids"][0].tolist()[:60])
''')
md("pack-read", """
There is no attention mask in the batch. The positions say all: where they start again, a new
example begins, and transformers builds a mask that keeps the examples apart. You can see it in
the loss: neighbours change nothing.
""")
code("pack-apart", '''
row = packed[0]
end = next(n for n, p in enumerate(row["position_ids"]) if n and p == 0)
with torch.no_grad():
    ids = torch.tensor([row["input_ids"]], device=model.device)
    positions = torch.tensor([row["position_ids"]], device=model.device)
    together = model(ids, position_ids=positions, use_cache=False).logits[0, :end]
    apart = model(ids[:, :end], use_cache=False).logits[0]
    mixed = model(ids, use_cache=False).logits[0]  # without positions: one long text

print(f"first example, difference {(together - apart).abs().max():.5f}")
last = slice(len(row["position_ids"]) - 1, None)
kept = model(ids, position_ids=positions, use_cache=False).logits[0, last]
print(f"last token without the positions, {(mixed[last] - kept).abs().max():.2f}")
''')
md("pack-apart-read", """
With the positions the first example's numbers are those it has alone. Without them the last
token reads all the other examples too, and answers something else.
""")
md("pad-eos", """
### The pad token and the end

One line stands in most published recipes, also in many for Qwen: `tokenizer.pad_token =
tokenizer.eos_token`. Qwen has a pad token of its own. What does the line do to the labels? The
usual collator of transformers makes them from the ids, and hides every pad token:
""")
code("pad-eos-labels", '''
from transformers import DataCollatorForLanguageModeling

published = copy.deepcopy(tokenizer)
published.pad_token = published.eos_token
end = tokenizer.eos_token_id
for name, chosen in (("own pad token", tokenizer), ("pad = eos", published)):
    usual = DataCollatorForLanguageModeling(chosen, mlm=False)
    labels = usual([{"input_ids": e.ids} for e in examples[:4]])["labels"]
    print(f"{name:14} ends that are learnt: {(labels == end).sum().item()} of 8")
''', ["nbval-check-output"])
md("pad-eos-labels-read", """
No end is learnt any more. (Eight: this collator also learns the question, whose turn ends too.)
Train two models for a moment, one with the ends and one without, on nothing but the new rows.
""")
code("pad-eos-train", '''
short = fine_tuning.Settings(steps=effort(200, 2), learning_rate=2e-3)


def without_end(example):
    labels = [chat_data.IGNORE if t == end else t for t in example.labels]
    return chat_data.Example(example.ids, labels)


students = {}
for name, chosen in (("ends", examples), ("no ends", list(map(without_end, examples)))):
    student = fine_tuning.attach_lora(qc.load()[0], rank=32)
    fine_tuning.train(student, tokenizer, chosen, short, live=False)
    students[name] = student
    result = qc.evaluate(
        student, tokenizer, new, thinking=False, max_new_tokens=40, progress=False
    )
    stopped = sum(reply.stopped == "end" for reply in result.replies)
    first = result.replies[0].answer
    print(f"{name:8} {stopped} of {len(new)} answers ended: {first!r}")
''')
md("pad-eos-train-read", """
Both learnt the letters. But without ends most answers run on, into letters and then into noise,
until the limit of 40 tokens stops them. Keep Qwen's own pad token, and look at the labels of one
batch before every training. (`fine_tuning` fills up by length, whichever token it is; so does
TRL's own collator.)
""")

md("part-train", """
## 4. Teach it

One thing is missing: what a model does not see while it learns, it forgets. So old problems go
among the new rows, with thinking and without: **replay**.
""")
code("replay", '''
old = {"sums": 350, "products": 250, "word_problems": 1100, "course_questions": 600,
       "instructions": 500, "dialogues": 150, "new_questions": 250}  # fmt: skip
old = {name: effort(number, 3) for name, number in old.items()}
lesson = rows + fine_tuning.replay(old, thinking=0.8)
lesson = chat_data.encode(lesson, tokenizer, max_length=192, drop_long=True)
print(f"{len(rows):,} new rows, {len(lesson) - len(rows):,} old ones")
print(f"{chat_data.learnt_share(lesson):.0%} of all tokens are learnt")
''')
md("replay-read", """
Training itself is TRL's `SFTTrainer` (SFT: supervised fine-tuning). `fine_tuning.train` calls
it with these rows and labels, in bf16 where the processor computes in it. The picture is
redrawn as it goes.
""")
code("train", '''
settings = fine_tuning.Settings(steps=effort(600, 4))
model = fine_tuning.attach_lora(model, rank=32)
run = fine_tuning.train(
    model, tokenizer, lesson, settings, held_out=new[:50], folder=folder / "run"
)
print(f"{run.seconds:.0f} s, {run.tokens_per_second:,.0f} tokens/s")
''', alt="Left: the training loss falls over the steps on a logarithmic scale. Right: the share of right answers on held-out Roman numerals rises from 0 to nearly 100 percent.")
md("train-read", """
The loss falls at once, the right answers come late: a numeral is right only when every letter
is. Now everything again, before against after.
""")
code("compare", '''
after = fine_tuning.measure(model, tokenizer, asked, at_once)
fine_tuning.compare(before, after)
''')
md("compare-read", """
From nearly nothing to nearly always, and no old skill lost more than three points; such small
changes of 200 answers may even be chance. Without the old rows? `students["ends"]` of section 3
had none:
""")
code("forget", '''
few = {name: asked[name] for name in ("roman_numerals", "sums", "word_problems")}
forgot = fine_tuning.measure(students["ends"], tokenizer, few, at_once)
fine_tuning.compare(before, forgot)
''')
md("forget-read", """
The model answers everything in the way of the new rows. This is **catastrophic forgetting**. Old
rows are the surest remedy; a smaller learning rate and fewer steps help too. And what if you do
not have the old rows? Let the model answer questions of that kind before you train, and replay
its own answers.

### A run that survives

`folder` kept a checkpoint every 100 steps. A run that was killed goes on from the newest when
you call `train` again, to the same weights. Each is written aside and moved when it is whole,
so that a full disk or a pulled plug leaves the one before.
""")
code("resume", '''
for path in sorted((folder / "run").iterdir()):
    print(path.name)
kept = fine_tuning.latest_checkpoint(folder / "run")
print("newest:", kept.name, [path.name for path in sorted(kept.iterdir())][:6])
''')
md("resume-read", """
The checkpoint holds the adapter, the optimizer and the state of the random numbers, not the
frozen model.
""")

md("part-rank", """
## 5. Which rank?

A higher rank can learn more, and makes a larger file. Short runs on the new rows alone, two
more ranks beside the 32 of section 3:
""")
code("rank", '''
ranks = {}
for rank in (2, 8, 32):
    student = students["ends"]  # of rank 32, after as many steps of the same rows
    if rank != 32:
        student = fine_tuning.attach_lora(qc.load()[0], rank=rank)
        fine_tuning.train(student, tokenizer, examples, short, live=False)
    score = fine_tuning.measure(student, tokenizer, {"new": new}, False)["new"]
    size = fine_tuning.save_adapter(student, tokenizer, folder / f"rank-{rank}")
    ranks[rank] = size, score
    print(f"rank {rank:2}: {score.accuracy:.0%} right, {size / 2**20:.2f} MiB")
''')
code("rank-plot", '''
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
for rank, (size, score) in ranks.items():
    low, high = (100 * limit for limit in score.interval)
    ax.plot([size / 2**20] * 2, [low, high], color="#0072B2")
    ax.plot(size / 2**20, 100 * score.accuracy, "o", color="#0072B2")
    ax.annotate(f"rank {rank}", (size / 2**20, 100 * score.accuracy),
                textcoords="offset points", xytext=(6, 4))  # fmt: skip
best = max(ranks, key=lambda rank: ranks[rank][1].accuracy)
ax.set(xscale="log", xlabel="size of the adapter (MiB)", ylabel="right (%)",
       ylim=(-3, 103),
       title=f"After {short.steps} steps rank {best} leads")  # fmt: skip
plt.show()
''', alt="The share of right answers over the size of the adapter on a logarithmic scale, for ranks 2, 8 and 32, each with its 95% interval.")
md("rank-plot-read", """
In as many steps a higher rank learns more. Given more steps, a low rank may catch up, up to what
fits into it. For a large model and a small task, 8 to 32 is usual; the smaller the model, the
more of itself it must change.
""")

md("part-qlora", """
## 6. QLoRA: the frozen weights in 4 bits

The frozen weights are only read. So they may be quantized, as in lesson 05: **QLoRA** (Dettmers
et al., 2023, arXiv 2305.14314). A and B stay in 32 bits. One trap is new: on a processor with
bf16 instructions, bitsandbytes repacks a layer when it first answers, and a repacked layer
passes on no gradient. `attach_lora` switches that off, and refuses a model that has answered.
""")
code("qlora", '''
from qwen_course import loading, meters

works = loading.why_not("nf4") is None
if works:
    quantized, _ = qc.load(precision="nf4")
    print("frozen:", qc.memory.gib(meters.storage_bytes(quantized)))
    print("before:", qc.memory.gib(meters.storage_bytes(qc.load(precision="bf16")[0])))
    student = fine_tuning.attach_lora(quantized, rank=32)
    fine_tuning.train(student, tokenizer, examples, short, live=False)
    score = fine_tuning.measure(student, tokenizer, {"new": new}, False)["new"]
    print(f"QLoRA {score}")
    print(f"LoRA  {ranks[32][1]}")
else:
    print(loading.why_not("nf4"))
''')
md("qlora-read", """
The two intervals overlap: training works around the rounding, because A and B see it. Here the
4 bits save little, since half of a pocket model are its embeddings. On a large model the memory
is the point: what does training take?
""")
code("qlora-memory", '''
training_memory.table(["Qwen3-0.6B", "Qwen3-8B", "Qwen3-32B"], gpus=(1,))
''', ["nbval-check-output"])
md("qlora-memory-read", """
With 24 GB you can train an 8B with QLoRA, and with LoRA just so; training all its weights needs
two 80 GB GPUs or more. `trained` is where the difference comes from: each trained weight takes
16 bytes, each frozen one 2, or half a byte.
""")

md("part-thinking", """
## 7. Thinking: kept or lost

Qwen3's template writes an *empty* think block into every answer without thinking. Most recipes
learn the whole answer, and with it the block. What does that teach?
""")
code("thinking", '''
usual = chat_data.encode(rows, tokenizer, learn_empty_thinking=True)
learnt = [token for token in usual[0].labels if token != chat_data.IGNORE]
print(repr(tokenizer.decode(learnt)))

lost = fine_tuning.attach_lora(qc.load()[0], rank=32)
fine_tuning.train(lost, tokenizer, usual, short, live=False)
students |= {"before": qc.load()[0], "block learnt": lost, "section 4": model}
for name in ("before", "block learnt", "section 4"):
    result = qc.evaluate(students[name], tokenizer, asked["sums"], progress=False)
    thought = sum(bool(reply.thinking) for reply in result.replies)
    print(f"{name:12} thought about {thought} of {count} sums, {result.score}")
''')
md("thinking-read", """
Asked to think, the model that learnt the block closes it at once: that is what every row showed
it. And without thinking its sums are as poor as in lesson 03.
Three remedies, and all are in this lesson:

- ask with `enable_thinking=False`, so that the block is in the prompt and not learnt (`encode`
  does),
- replay old rows *with* thinking,
- or write the steps of the new skill down too: `from_problems(problems, thinking=True)`.
""")

md("part-dpo", """
## 8. Preferences: style

Some things are neither right nor wrong: a number, or a whole sentence? **DPO** (direct
preference optimization; Rafailov et al., 2023, arXiv 2305.18290) learns from pairs: an answer
that was chosen beside one that was rejected. It can only choose among what the model already
does, so first a short SFT on both styles, half and half.
""")
code("dpo-sft", '''
questions = sums.problems(effort(1200, 40), seed=2, split="train", count=2)


def said(problem, sentence):
    text = f"It is {problem.answer}." if sentence else problem.answer
    return [{"role": "assistant", "content": text}]


half = len(questions) // 2
both = [{"messages": p.prompt + said(p, number % 2)}
        for number, p in enumerate(questions[:half])]  # fmt: skip
talker = fine_tuning.attach_lora(qc.load()[0], rank=8)
plan = fine_tuning.Settings(steps=effort(40, 2), learning_rate=2e-3)
fine_tuning.train(talker, tokenizer, both, plan, live=False);
''')
code("dpo", '''
from datasets import Dataset, disable_progress_bars
from trl import DPOConfig, DPOTrainer

disable_progress_bars()
pairs = Dataset.from_list([
    {"prompt": p.prompt, "chosen": said(p, True), "rejected": said(p, False),
     "chat_template_kwargs": {"enable_thinking": False}}
    for p in questions[half:]
])  # fmt: skip
common = fine_tuning.shared_options(model, folder / "trl")
config = DPOConfig(max_steps=effort(30, 2), per_device_train_batch_size=16,
                   learning_rate=1e-4, **common)  # fmt: skip
''')
md("dpo-read", """
The names of the columns are TRL's: `prompt`, `chosen`, `rejected`; `chat_template_kwargs` goes to the
template. TRL keeps a copy of the adapter as it is now: that is the **reference** which DPO must not
leave too far behind. `fine_tuning.run` is `trainer.train()` without its printed lines.
""")
code("dpo-train", '''
def share_of_sentences(student):
    asked_now = sums.problems(effort(60, 4), seed=3, count=2)
    result = qc.evaluate(student, tokenizer, asked_now, thinking=False, progress=False)
    told = [reply.answer.startswith("It is") for reply in result.replies]
    return f"{sum(told)} of {len(told)} in a sentence, {result.accuracy:.0%} right"


print("before:", share_of_sentences(talker))
trainer = DPOTrainer(
    model=talker, args=config, train_dataset=pairs, processing_class=tokenizer
)
fine_tuning.run(trainer)
print("after: ", share_of_sentences(talker))
''')
md("dpo-train-read", """
From half and half to nearly always. The pairs said nothing about what is right, only about the
form. The right answers stayed, because both answers of a pair hold the same number.
""")

md("part-grpo", """
## 9. Reward instead of examples

For a product you need no example answers: a program can check the answer. That is a
**verifiable reward**. **GRPO** (group relative policy optimization; Shao et al., 2024, arXiv
2402.03300) samples several answers to each question, rewards each, and makes those above the
mean of their group more likely.
""")
code("grpo-reward", '''
def final(completion):
    """The last number or word of an answer."""
    return (completion[0]["content"].replace("=", " ").split() or [""])[-1]


def right(completions, expected, **others):
    """1 where the answer ends with the right product, else 0."""
    return [
        float(final(given) == wanted) for given, wanted in zip(completions, expected)
    ]
''')
code("grpo-reward-tried", '''
answers = [[{"content": "1692"}], [{"content": "1692 or so"}]]
print(right(answers, expected=["1692", "1692"]))
''', ["nbval-check-output"])
md("grpo-start", """
Without thinking, the pocket model gets three products of ten right. Rewards alone can only
choose among what a model already does. So give it a choice: a short SFT in which one answer of
four shows its steps. (DeepSeek-R1 began in this way too, and called it a **cold start**;
arXiv 2501.12948.)
""")
code("grpo-cold-start", '''
train_products = products.problems(effort(3000, 40), seed=1, split="train")


def answered(number, problem):
    steps = problem.thinking.replace("\\n", "; ")
    said = steps if number % 4 == 0 else problem.answer
    return {"messages": [*problem.prompt, {"role": "assistant", "content": said}]}


start = [answered(*pair) for pair in enumerate(train_products[-600:])]
print(*(row["messages"][1]["content"] for row in start[:3]), sep="\\n")
gambler = fine_tuning.attach_lora(qc.load()[0], rank=32)
plan = fine_tuning.Settings(steps=effort(80, 2), learning_rate=2e-3)
fine_tuning.train(gambler, tokenizer, start, plan, live=False)
size = fine_tuning.save_adapter(gambler, tokenizer, folder / "cold-start")
''')
code("grpo-before", '''
unseen = products.problems(effort(300, 4), seed=1)
asking = {"thinking": False, "max_new_tokens": 48, "sampling": "greedy"}


def look(student, name):
    result = qc.evaluate(student, tokenizer, unseen, progress=False, **asking)
    stepped = sum("=" in reply.answer for reply in result.replies)
    print(f"{name:14} {result.score}, {stepped} with steps")
    return result


look(qc.load()[0], "before")
look(gambler, "cold start");
''')
md("grpo-before-read", """
The cold start by itself brought nothing, rather a loss. Now the rewards, for both: the model as
it was, and the one with a choice. `per_device_train_batch_size` counts *answers*:
64 are 8 questions of 8 answers each.
""")
code("grpo", '''
from trl import GRPOConfig, GRPOTrainer

questions = Dataset.from_list(
    [{"prompt": p.prompt, "expected": p.expected} for p in train_products]
)
config = GRPOConfig(
    max_steps=effort(60, 1), learning_rate=1e-3, num_generations=8, warmup_steps=3,
    per_device_train_batch_size=effort(64, 8), max_completion_length=48,
    chat_template_kwargs={"enable_thinking": False}, **common,
)  # fmt: skip
plain = fine_tuning.attach_lora(qc.load()[0], rank=32)
logged = {}
for name, student in (("no cold start", plain), ("cold start", gambler)):
    trainer = GRPOTrainer(
        model=student, args=config, reward_funcs=right, train_dataset=questions,
        processing_class=tokenizer,
    )  # fmt: skip
    logged[name] = fine_tuning.run(trainer)
''')
md("grpo-settings", """
TRL's default learning rate, 1e-6, is for all weights of a large model; an adapter takes more.
What did it do to the rewards, and to the answers?
""")
code("grpo-plot", '''
fig, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
drawn = (("reward", "mean reward"), ("completions/mean_length", "tokens an answer"))
for ax, (key, label) in zip(axes, drawn):
    for (name, rows_of), style in zip(logged.items(), ("--", "-")):
        ax.plot([row["step"] for row in rows_of], [row[key] for row in rows_of],
                style, label=name)  # fmt: skip
    ax.set(xlabel="step", ylabel=label, ylim=(0, None))
axes[0].set_title("Answers are rewarded more often ...")
axes[1].set_title("... as they get longer")
axes[0].legend()
plt.show()
''', alt="Left: the mean reward of sampled answers rises over the steps of GRPO. Right: the mean length of an answer rises with it, from about nine tokens to more than thirty.")
md("grpo-plot-read", """
With the cold start, reward and length rise together. Nobody told the model to show its steps: it
found that answers with steps are paid more often. Now greedy, on products that training never
saw:
""")
code("grpo-after", '''
look(plain, "no cold start")
result = look(gambler, "cold start")
for problem, reply in list(zip(unseen, result.replies))[3:7]:
    right_or_not = "right" if problem.grade(reply.answer) else "wrong"
    print(f"{right_or_not}: {problem.question}  {reply.answer!r}")
''')
md("grpo-after-read", """
Three times as many right answers. Thinking is off, and the steps stand in the answer itself: it is
thinking that the model chose because it pays. The published reasoning models grew their long
thoughts by the same force.

Without the cold start little changed: its samples held no steps, and rewards cannot choose what
is never sampled.
""")
md("hacking", """
### Reward hacking

The model does not want the product. It does whatever the reward pays for. Here are two rewards
that look reasonable: the right number must *occur*, and steps are welcome.
""")
code("hacking-reward", '''
def occurs(completions, expected, **others):
    """1 where the right number stands somewhere in the answer."""
    answers = [completion[0]["content"] for completion in completions]
    return [float(wanted in answer) for answer, wanted in zip(answers, expected)]


def works(completions, **others):
    """A sixth for each equals sign, at most 1: "show your work"."""
    signs = [completion[0]["content"].count("=") for completion in completions]
    return [min(count, 6) / 6 for count in signs]
''')
code("hacking-rewards-tried", '''
honest, padded = [{"content": "1692"}], [{"content": "1 = 1; 1 = 1; 1 = 1"}]
print("occurs:", occurs([honest, padded], ["1692", "1692"]))
print("works: ", works([honest, padded]))
''', ["nbval-check-output"])
md("hacking-reward-read", """
`works` pays for signs, not for sense. Train on the sum of the two, from the same cold start.
""")
code("hacking-train", '''
cheater, _ = fine_tuning.load_adapter(folder / "cold-start", trainable=True)
config.max_steps = effort(30, 1)  # this is learnt faster
trainer = GRPOTrainer(
    model=cheater, args=config, reward_funcs=[occurs, works],
    train_dataset=questions, processing_class=tokenizer,
)  # fmt: skip
logged = fine_tuning.run(trainer)
for row in logged[::2]:
    parts = [row[f"rewards/{name}/mean"] for name in ("occurs", "works")]
    print(f"step {row['step']:3}: occurs {parts[0]:.2f}, works {parts[1]:.2f}")
''')
code("hacking-look", '''
result = look(cheater, "hacked")
for problem, reply in list(zip(unseen, result.replies))[:3]:
    print(f"{problem.question}\\n   {reply.answer}")
''')
md("hacking-look-read", """
The reward for signs went to its limit, and took the right answers with it: not one is left. Read
answers, not only curves; measure with a grader that the training never saw; let the reward see
what you mean.
""")

md("part-after", """
## 10. The adapter moves on

Save the adapter alone. It is small, and it names the model it belongs to.
""")
code("save", '''
size = fine_tuning.save_adapter(model, tokenizer, folder / "romans")
print(f"{size / 2**20:.1f} MiB")
told = json.loads((folder / "romans" / "adapter_config.json").read_text())
print(told["base_model_name_or_path"], told["r"], sorted(told["target_modules"]))

again, its_tokenizer = fine_tuning.load_adapter(folder / "romans")
print(qc.chat(again, its_tokenizer, "What is 1994 in Roman numerals?", thinking=False,
              sampling="greedy").answer)  # fmt: skip
''')
md("save-read", """
An adapter costs a little at every token: two more products a layer. **Merging** adds B times A
to W, and the model is an ordinary checkpoint again, which any engine can serve.
""")
code("merge", '''
merged = fine_tuning.merge(again)
size = fine_tuning.save_checkpoint(merged, tokenizer, folder / "merged")
print(f"{size / 2**20:.1f} MiB, {type(merged).__name__}")
''')
code("merged-asked", '''
for precision in ("auto", "nf4"):
    if reason := loading.why_not(precision):
        print(precision, reason)
        continue
    student, _ = qc.load(folder / "merged", precision=precision)
    score = fine_tuning.measure(student, tokenizer, {"new": new}, False)["new"]
    print(f"{precision:5} {score}")
''')
md("merge-read", """
The merged model knows what the adapter knew, in bf16 and in 4 bits. But never merge *into*
quantized weights: the sum is rounded to 4 bits again, and much of what was learnt lies below
that step. `fine_tuning.merge` refuses, and says what to do. Lesson 08
puts the folder behind a server.
""")

md("part-errata", """
## 11. A published recipe, line by line

This recipe for Qwen2.5-7B-Instruct, or one like it, stands in many texts. Which of its lines
run today?
""")
code("errata", '''
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

tries = (
    (TrainingArguments, {"evaluation_strategy": "steps"}),
    (SFTTrainer, {"model": model, "tokenizer": tokenizer}),
    (SFTTrainer, {"model": model, "max_seq_length": 2048}),
    (SFTTrainer, {"model": model, "packing": True}),
    (SFTConfig, {"max_seq_length": 2048}),
)
for call, options in tries:
    try:
        call(**options)
    except TypeError as why:
        print(f"{call.__name__:18} {str(why).partition('__init__() ')[2]}")
''')
md("errata-table", """
| published | today | why |
|---|---|---|
| `torch_dtype=torch.bfloat16` | `dtype=...` | renamed; the old name still works |
| `device_map="auto"` | leave it out when you train on several GPUs | it spreads *one* model over all of them, and every process does so |
| `tokenizer.pad_token = tokenizer.eos_token` | leave it out | Qwen has a pad token; see section 3 |
| `target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]` | all linear layers | the attention holds a minority of the weights |
| `lora_dropout=0.1` | 0 to 0.05 is usual | dropout is against learning by heart; it comes after more and better rows |
| `warmup_steps=100` | a share of the steps | 100 is most of a short run |
| `evaluation_strategy="steps"` | `eval_strategy="steps"` | renamed, then removed |
| `TrainingArguments` for an SFTTrainer | `SFTConfig` | it holds the settings for the data too |
| `SFTTrainer(tokenizer=...)` | `processing_class=...` | renamed, then removed |
| `max_seq_length=2048` | `SFTConfig(max_length=2048)` | renamed, and moved; what is longer is cut without a word |
| `packing=True` as an argument of the trainer | `SFTConfig(packing=True)` | moved |
| `format_instruction` with the control tokens by hand | rows with `messages` | the template of *your* model writes them, system turn included |
| loss over question and answer | a `prompt` and a `completion`, or labels as in section 3 | the model shall learn to answer |
| `remove_unused_columns=False` | leave it out | then the raw texts go to the collator, which cannot stack them |
| `bf16=True` | right on new GPUs | a T4 (Colab) has no bf16: `fp16=True` |
| `learning_rate=5e-5` | 1e-4 to 2e-4 for LoRA | 5e-5 is for all weights |
""")

md("part-real", """
## 12. The same with a real Qwen

Every cell above runs with a real checkpoint when you set one variable before you start:

    QWEN_COURSE_MODEL=Qwen/Qwen3-0.6B python course.py

Take a GPU, and in all `Settings` a learning rate of 2e-4 and rows of 1,024 tokens. A Qwen3
knows Roman numerals already: bring rows of your own. For Qwen2.5, which does not think, the
same calls work; its template adds a system turn of its own.
""")
code("real", '''
name = "Qwen/Qwen3-8B"  # or "Qwen/Qwen2.5-7B-Instruct"
for method in training_memory.METHODS:
    for gpus in (1, 2, 8):
        each = training_memory.need(name, method, gpus)
        print(f"{method:6} on {gpus}: {qc.memory.gib(each.total):>10} each")
''', ["nbval-check-output"])
md("real-read", """
### More than one GPU, more than one machine

`training/finetune.py` is this lesson as a script. It does not change; the configuration file
says where it runs.

    accelerate launch --config_file training/accelerate/gpu_8.yaml training/finetune.py \\
        --model Qwen/Qwen3-8B --data rows.jsonl --row-length 2048 --learning-rate 1e-4

There are files for a CPU, for 1, 2 and 8 GPUs, for two machines (FSDP: each GPU holds a part of
every weight), and for DeepSpeed's ZeRO-3, which does the same. What each GPU of eight must
hold, from the smallest to the largest:
""")
code("many", '''
sizes = ("0.6B", "8B", "32B", "30B-A3B", "235B-A22B")
training_memory.table([f"Qwen3-{size}" for size in sizes], gpus=(8,))
''', ["nbval-check-output"])
md("many-read", """
With LoRA even the largest fits on eight GPUs of 80 GB, on paper; training all its weights would need more
than 400 GiB on each. (QLoRA with FSDP wants one setting more, `bnb_4bit_quant_storage`: it stores
the 4 bits as numbers that FSDP can deal out.)
""")

md("take-aways", """
## What you have learnt

- LoRA is two narrow matrices beside a frozen one; B begins at zero.
- Look at the labels of one batch before every training: the answer and its end are learnt,
  nothing else.
- Packing keeps the batch full, positions keep the examples apart.
- Measure old skills too. Replay keeps them.
- Rows without thinking train a model that does not think, unless the empty block is in the
  prompt.
- DPO chooses among what a model does; a verifiable reward teaches without examples, and pays
  for exactly what you wrote.
- Save the adapter, merge into whole weights, quantize after.
""")
md("mistakes", """
## Common mistakes

| I get ... | Why | What to do |
|---|---|---|
| answers that never end | the end token is not learnt | keep Qwen's pad token; print the labels, section 3 |
| a loss of 0.000 from the first step | the model knows the rows already | other rows |
| a loss that does not fall | the rate is too low for LoRA, or everything is frozen | 1e-4 to 2e-4, `trained_parameters(model)` |
| a loss that jumps, then noise | the rate is too high | half of it, and a longer warm-up |
| right answers in training, wrong ones after | trained with another prompt than asked | `thinking=False` in both, the same template |
| a model that no longer thinks | the empty think block was learnt | section 7 |
| `BadData: row 17, messages[1].content` | an empty answer | the message says what to do |
| `TypeError: ... unexpected keyword argument 'tokenizer'` | an older recipe | section 11 |
| out of memory | activations | fewer `rows`, more `accumulate`, `checkpointing=True`, QLoRA |
| a reward that rises and worse answers | reward hacking | read the answers, section 9 |
""")
md("exercises", """
## Exercises

[Seven questions](../exercises/07_fine_tuning.ipynb), 104 minutes in all if you do each.
`qc.check` says at once what is wrong and why, `qc.hint` helps.
""")

notebook = new_notebook(cells=cells)
notebook.metadata["qwen_course"] = {
    "title": "Fine-tuning: teach a Qwen something new, and keep what it knew",
    "goals": [
        "Write a LoRA layer by hand, and choose its rank",
        "Prepare rows, and read the labels of a packed batch token by token",
        "Teach a model a skill in minutes, and measure what it kept",
        "Train over 4-bit weights (QLoRA), and say what a run takes in memory",
        "Keep thinking alive; choose a style with DPO; reward what a program can check",
        "Save, load, merge and quantize what was learnt",
    ],
    "reading": "90 minutes",
    "download": "nothing",
    "gpu": "not needed",
    "extra": "finetune",
}
notebook.metadata["kernelspec"] = {
    "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3",
}
notebook.metadata["language_info"] = {"name": "python"}
nbformat.write(notebook, Path(sys.argv[1]))
