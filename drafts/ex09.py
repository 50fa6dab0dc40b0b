"""Builds solutions/09_monitoring.ipynb from cells: python drafts/ex09.py OUT.ipynb"""

import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from qwen_course.exercises import question

cells = []


def md(id, text, tags=None):
    meta = {"tags": tags} if tags else {}
    cells.append(new_markdown_cell(text.strip("\n"), id=id, metadata=meta))


def code(id, text, meta=None):
    cells.append(new_code_cell(text.strip("\n"), id=id, metadata=meta or {}))


def ask(number, task, answer, name, why):
    asked = question.get(f"09.q{number}")
    line = f"*{asked.difficulty} · {asked.minutes} minutes · outcome {asked.outcome}*"
    md(f"q{number}", f"## Question {number} · {asked.title}\n{line}\n\n{task.strip()}")
    code(f"q{number}-answer", answer, {"qwen_course": {
        "question": asked.id, "difficulty": asked.difficulty,
        "minutes": asked.minutes, "outcome": asked.outcome}})  # fmt: skip
    code(f"q{number}-check", f'qc.check("09.q{number}", {name})')
    md(f"q{number}-why", f"**Why.** {why.strip()}", ["solution"])


md("intro", """
In this notebook you time requests, count who counts, estimate from buckets, tell a leak from a warm-up, find
faults by their numbers, and judge a checkpoint. Your functions work on numbers, so no model is loaded.
""")
code("imports", """
import math
import statistics
""")
ask(1, """
A request came at the time `queued`, the model began with it at `started`, its `first_token` was there,
and it `ended`. All are seconds of one clock. It wrote `tokens`, two or more. Write
`clocks(queued, started, first_token, ended, tokens)`, which returns four numbers, in seconds:

1. the wait in the queue;
2. the time to first token, as the user feels it;
3. the time per output token, after the first one;
4. the whole request.

For example, `clocks(10.0, 10.5, 11.0, 13.0, 5)` returns `(0.5, 1.0, 0.5, 3.0)`.
""", '''
def clocks(queued, started, first_token, ended, tokens):
    """Return queue, first token, each further token and whole request, in seconds."""
    ### STUB: return ...
    ### BEGIN SOLUTION
    each = (ended - first_token) / (tokens - 1)
    return started - queued, first_token - queued, each, ended - queued
    ### END SOLUTION
''', "clocks", """
The user came at `queued`, so three clocks begin there. Five tokens have four gaps. A queue asks for more
places, a late first token without one for shorter prompts, slow tokens for a faster model.
""")
ask(2, """
`users` is a list of pairs `[reason, seconds]`: how a request ended, and the seconds to its first token. Of a request that ran
out of time or was turned away, they are the seconds to its end. The reasons are `"stop"` (answered), `"length"` (answered,
and cut off), `"timeout"` (gave no token in time), `"refused"` (turned away at once) and `"cancelled"` (its user went away).

Write `p95(users)`. It returns the 95th percentile of the wait for the first token, by the nearest rank: the smallest wait that
95% of those who count did not exceed. Answered ones count. Of the others, those count whose seconds say how long the
service let people wait. Somebody who counts is always there.

For example, `p95([["stop", 0.5], ["refused", 0.01], ["length", 2.0], ["timeout", 60.0]])` returns `60.0`.
""", '''
def p95(users):
    """Return the wait that 95% of those who count did not exceed."""
    ### STUB: return ...
    ### BEGIN SOLUTION
    counted = ("stop", "length", "timeout")
    waits = sorted(seconds for reason, seconds in users if reason in counted)
    return waits[math.ceil(0.95 * len(waits)) - 1]
    ### END SOLUTION
''', "p95", """
Who ran out of time waited at least that long, so leaving them out praises a service that answers nobody. Refusals
are over at once, and when somebody cancels is up to them. Count both apart.
""")
md("q2-then", "The same users, with those who gave up and without them:")
code("q2-use", """
users = [["stop", 0.2 + number / 100] for number in range(40)]
gave_up = [["timeout", 60.0] for _ in range(10)]
print(p95(users), p95(users + gave_up))
""")
ask(3, """
Prometheus keeps no single waits. It has **buckets**: pairs `[limit, count]`, in rising order, where `count` is how many requests
took at most `limit` seconds. The last limit is `math.inf`, so the last count is that of all requests.

Write `from_buckets(buckets, share)`. It estimates the wait that a `share` of all requests did not exceed:

- the bucket is the first one whose count reaches `share` times all requests;
- within it the requests are taken to lie evenly between the limit before (0 for the first bucket) and its own;
- if it is the last one, beyond which nothing is known, the answer is the largest finite limit.

For example, `from_buckets([[1.0, 10], [2.0, 30], [math.inf, 40]], 0.5)` returns `1.5`: the 20th request is the tenth of the
twenty between 1 and 2.
""", '''
def from_buckets(buckets, share):
    """Return the estimate of a percentile, as Prometheus makes it."""
    ### STUB: return ...
    ### BEGIN SOLUTION
    wanted, low, below = share * buckets[-1][1], 0.0, 0
    for limit, count in buckets:
        if count >= wanted:
            if limit == math.inf:
                return low
            return low + (limit - low) * (wanted - below) / (count - below)
        low, below = limit, count
    ### END SOLUTION
''', "from_buckets", """
`histogram_quantile` does the same. Whatever lies in a bucket is taken to lie evenly, so the estimate may be wrong by its whole width: put
limits close together where you would act. Counts of several replicas may be added, percentiles may not be averaged.
""")
ask(4, """
`sizes` is what a process held, in MiB, at equal steps of time; there are at least 12 of them. Write `leaks(sizes)`. It returns `True`
if memory grew after the warm-up, and `False` otherwise.

Cut the time into quarters of `len(sizes) // 4` values. The first quarter is the warm-up. Compare the median of the *second* quarter with the
median of the *last* one (the end of the list). More than 5% more is a leak.

For example, `leaks([500] * 12 + [505] * 4)` returns `False`.
""", '''
def leaks(sizes):
    """Return whether memory grew by over 5% after the warm-up."""
    ### STUB: return ...
    ### BEGIN SOLUTION
    quarter = len(sizes) // 4
    before = statistics.median(sizes[quarter : 2 * quarter])
    after = statistics.median(sizes[-quarter:])
    return after > 1.05 * before
    ### END SOLUTION
''', "leaks", """
A warm-up grows and ends, one large request is a peak that comes back, and a leak does neither. The median does not
care about a single peak, the missing first quarter not about the warm-up.
""")
ask(5, """
A service in its good time, and six others (p95 where there are many values):

| | in queue, s | first token, s | each token, ms | prompt, tokens | answer, tokens | cut off | memory after warm-up | canaries right |
|---|---|---|---|---|---|---|---|---|
| good | 0.02 | 0.08 | 9 | 41 | 42 | 1% | +0.3% | 19 of 19 |
| A | 0.02 | 0.09 | 9 | 41 | 43 | 1% | +0.4% | 11 of 19 |
| B | 4.10 | 4.17 | 11 | 41 | 42 | 1% | +0.5% | 19 of 19 |
| C | 0.03 | 0.08 | 9 | 40 | 42 | 1% | +31% | 19 of 19 |
| D | 0.02 | 0.09 | 9 | 38 | 171 | 38% | +0.2% | 2 of 19 |
| E | 0.05 | 0.41 | 48 | 41 | 42 | 1% | +0.1% | 19 of 19 |
| F | 0.02 | 0.92 | 9 | 1,610 | 41 | 1% | +0.3% | 19 of 19 |

Which fault has each? Choose from `"load"` (more users than it can serve), `"slow"` (each pass takes longer), `"prompts"` (people paste long
texts), `"leak"`, `"template"` (one of another family) and `"checkpoint"` (weights a little worse). Each occurs once. Put a dict into
`faults`, such as `{"A": "leak", ...}`.
""", """
### STUB: faults = ...
### BEGIN SOLUTION
faults = {
    "A": "checkpoint",
    "B": "load",
    "C": "leak",
    "D": "template",
    "E": "slow",
    "F": "prompts",
}
### END SOLUTION
""", "faults", """
B, E and F all begin late: B in the queue, F while reading, E with every pass. A and D are both wrong: a
worse checkpoint still ends its answers, a model with a wrong template often does not.
""")
ask(6, """
Two checkpoints answered the same questions. `before` and `after` are lists of `True` (right) and `False`, question by question. A question is
**lost** if it was right before and is wrong after, and **won** the other way round.

Write `chance(before, after)`. It returns how likely so many losses *or more* are by chance: as if each question that changed, and only
those, were lost or won by the throw of a coin. Without changes it is 1.

For example, with 5 lost and none won it is 1/32, which is `0.03125`. With 1 lost and 1 won it is `0.75`.
""", '''
def chance(before, after):
    """Return how likely so many losses or more are, if both are equally good."""
    ### STUB: return ...
    ### BEGIN SOLUTION
    pairs = list(zip(before, after))
    lost = sum(old and not new for old, new in pairs)
    changes = sum(old != new for old, new in pairs)
    ways = sum(math.comb(changes, number) for number in range(lost, changes + 1))
    return ways / 2**changes
    ### END SOLUTION
''', "chance", """
Of `2 ** changes` equally likely ways to throw the coins, `comb(changes, k)` have k losses. What both got right, or both
wrong, cancels out: that is why comparing question by question needs fewer questions than comparing two scores.
""")
md("q6-then", "Three points less in a hundred. Is it worse?")
code("q6-use", """
before = [True] * 90 + [False] * 10
few = [True] * 87 + [False] * 13  # three lost
many = [True] * 75 + [False] * 15 + [True] * 10  # fifteen lost, ten won
for after in (few, many):
    print(sum(before) - sum(after), "points less, chance", chance(before, after))
""")
md("done", """
You can now read a service by its numbers, and know which of them not to trust. See how far you are:
""")
code("progress", "qc.progress()")

notebook = new_notebook(cells=cells)
notebook.metadata["qwen_course"] = {"title": "Exercises: monitoring"}
notebook.metadata["kernelspec"] = {
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "name": "python3",
}
notebook.metadata["language_info"] = {"name": "python"}
if __name__ == "__main__":
    nbformat.write(notebook, Path(sys.argv[1]))
