"""What is right in the exercises of lesson 11: a case, decided step by step.

The case: a hospital's reception, one Linux machine with a GPU of 24 GiB, eight people
at once with 8,192 tokens each, an open licence, thinking that can be switched, and a
colleague with some time.
"""

import math
import operator
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from qwen_course import catalog, deployment, memory
from qwen_course.checkpoint import Checkpoint
from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_11 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import (
    Outcomes,
    Way,
    compared,
    no_bool,
    no_numbers,
    same_truth,
    short,
)
from qwen_course.quality import sign_test

GPU_GIB, USERS, CONTEXT = 24, 8, 8192
ROOM_GIB = 0.9 * GPU_GIB  # the rest is for CUDA and buffers
LICENCE = "Apache-2.0"
SERVING = {"use": "server", "users": USERS, "hardware": "nvidia", "operations": "some"}
CHANCE = 0.05


def _place(number: int = 5) -> tuple[str, str]:
    headings = {
        1: "1. Enterprise: answers from your own documents",
        2: "2. Edge: a translator under a ceiling",
        5: "5. Your capstone",
    }
    return section("11_capstones", headings[number])


# Question 1

Config = dict[str, Any]


def _full_layers(config: Config) -> int:
    kinds = config.get("layer_types")
    return kinds.count("full_attention") if kinds else config["num_hidden_layers"]


def _head_dim(config: Config) -> int:
    even = config["hidden_size"] // config["num_attention_heads"]
    return config.get("head_dim", even)


def cache_bytes(config: Config, users: int, context: int) -> int:
    """Return the bytes of the KV caches of all users, in 16 bits."""
    heads, size = config["num_key_value_heads"], _head_dim(config)
    return 2 * 2 * _full_layers(config) * heads * size * users * context


def _times(factor: Callable[[Config, int, int], float]) -> Callable[..., float]:
    """Return the count times what a mistake makes of it."""
    return lambda config, users, context: (
        cache_bytes(config, users, context) * factor(config, users, context)
    )


CACHES = (
    Way("query-heads", _times(
            lambda c, u, n: c["num_attention_heads"] / c["num_key_value_heads"]),
        "You count the query heads. Keys and values have heads of their own, "
        "num_key_value_heads, shared by several query heads."),
    Way("keys-only", _times(lambda c, u, n: 1 / 2),
        "Half is missing: a key and a value are kept, each in 2 bytes."),
    Way("one-user", _times(lambda c, u, n: 1 / u),
        "That is one user's cache. Each user at the same moment has one."),
    Way("one-token", _times(lambda c, u, n: 1 / n),
        "That is for one token. Every token of the context keeps its key and value."),
    Way("all-layers", _times(lambda c, u, n: c["num_hidden_layers"] / _full_layers(c)),
        "Layers of linear attention keep a state of fixed size, no cache that grows. "
        'Count the layers that layer_types calls "full_attention".'),
    Way("even-heads", _times(lambda c, u, n: (
            c["hidden_size"] / c["num_attention_heads"] / _head_dim(c))),
        "head_dim is in the configuration and need not be hidden_size by heads. Use it "
        "where it is given."),
    Way("bits", _times(lambda c, u, n: 8), "Those are bits. Return bytes."),
    Way("hidden-size", _times(lambda c, u, n: (
            c["hidden_size"] / c["num_key_value_heads"] / _head_dim(c))),
        "You take the whole hidden size for each key. A key is head_dim wide, and a "
        "layer has num_key_value_heads of them."),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the bytes of each cache."""
    cases: list[Any] = [tuple(one) for one in probe.loads(seed)]
    shown = [f"cache_bytes({short(c)}, {u}, {n})" for c, u, n in cases]
    right = [cache_bytes(*case) for case in cases]
    advice = "2 (key and value) * 2 bytes * layers * heads * head_dim * users * tokens."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, CACHES, mistakes.close, advice),
    )


# Question 2


def q2(seen: Any, seed: int) -> Mistake | None:
    """Hold the model and its precision against the case."""
    if not isinstance(seen, dict):
        said = f'Your answer is {short(seen)}. Give {{"model": ..., "precision": ...}}.'
        return Mistake("no-dict", said)
    if missing := [name for name in ("model", "precision") if not seen.get(name)]:
        return Mistake("missing", f"{' and '.join(missing)} is missing.")
    return of_variant(seen)


def of_variant(chosen: Mapping[str, Any]) -> Mistake | None:
    """Return which need of the case a variant fails, or None."""
    try:
        checkpoint = catalog.get(str(chosen["model"]))
        if found := _kind(checkpoint) or _licence(checkpoint):
            return found
        need = needs_gib(checkpoint, str(chosen["precision"]))
    except ValueError as error:
        return Mistake("unknown", f"{error}")
    return mistakes.first(
        lambda: _too_large(checkpoint, chosen, need),
        lambda: _much_smaller(checkpoint),
    )


def needs_gib(checkpoint: Checkpoint, precision: str) -> float:
    """Return the GiB of a checkpoint with the caches of all users."""
    needed = memory.estimate(checkpoint, precision, context=CONTEXT, batch=USERS)
    return needed.total / 2**30


def _kind(checkpoint: Checkpoint) -> Mistake | None:
    if checkpoint.kind == "hybrid":
        return None
    return Mistake(
        "no-switch",
        f"{checkpoint.name} is of the kind {checkpoint.kind}. The reception wants to "
        "switch thinking on and off, as hybrid models can.",
    )


def _licence(checkpoint: Checkpoint) -> Mistake | None:
    if checkpoint.licence == LICENCE:
        return None
    return Mistake(
        "licence",
        f"{checkpoint.name} has the licence {checkpoint.licence}, and the house wants "
        f"{LICENCE}.",
    )


def _too_large(
    checkpoint: Checkpoint, chosen: Mapping[str, Any], need: float
) -> Mistake | None:
    if need <= ROOM_GIB:
        return None
    said = f"{checkpoint.name} in {chosen['precision']} takes {need:.1f} GiB with the "
    alone = memory.estimate(checkpoint, str(chosen["precision"])).total / 2**30
    if alone <= ROOM_GIB:
        why = f"It would fit for one user ({alone:.1f} GiB): each has a cache."
        name = "one-user-fits"
    else:
        why, name = "Fewer bits, or a smaller one.", "too-large"
    return Mistake(name, f"{said}caches, and {ROOM_GIB:.1f} may be used. {why}")


def fitting() -> Iterator[Checkpoint]:
    """Yield the checkpoints that meet the case, in some precision."""
    for one in catalog.models():
        if one.kind != "hybrid" or one.licence != LICENCE or not one.shape.parameters:
            continue
        if any(needs_gib(one, name) <= ROOM_GIB for name in ("bf16", "int8", "nf4")):
            yield one


def _much_smaller(checkpoint: Checkpoint) -> Mistake | None:
    own = checkpoint.shape.parameters or 0
    same = [one for one in fitting() if one.generation == checkpoint.generation]
    best = max(same, key=lambda one: one.shape.parameters or 0)
    if (best.shape.parameters or 0) < 3 * own:
        return None
    return Mistake(
        "much-smaller",
        f"{checkpoint.name} fits, but so does {best.name} of the same generation, with "
        f"{(best.shape.parameters or 0) / own:.0f} times its parameters. Quality is "
        "what the memory is for.",
    )


# Question 3

MODEL = "Qwen3-8B"
SETTINGS = ("temperature", "top_p", "top_k", "min_p")
MOST = 40960  # tokens that Qwen3-8B was made for, prompt and answer


def q3(seen: Any, seed: int) -> Mistake | None:
    """Hold the platform and its settings against the case."""
    if not isinstance(seen, dict):
        said = f"Your answer is {short(seen)}. Give a dict with platform and settings."
        return Mistake("no-dict", said)
    named = ("platform", *SETTINGS, "context")
    if missing := [name for name in named if seen.get(name) is None]:
        return Mistake("missing", f"{', '.join(missing)}: missing.")
    if wrong := [name for name in named[1:] if not mistakes.is_number(seen[name])]:
        return Mistake(
            "no-number", f"{wrong[0]} is {short(seen[wrong[0]])}, no number."
        )
    return mistakes.first(
        lambda: of_platform(str(seen["platform"])),
        lambda: _settings(seen),
        lambda: _context(seen["context"]),
    )


def of_platform(name: str) -> Mistake | None:
    """Return which need of the case a platform fails, or None."""
    given = deployment.find(name)
    if given is None:
        ids = ", ".join(one.id for one in deployment.platforms())
        return Mistake("unknown-platform", f'"{name}" is not one of {ids}.')
    found = deployment.choose(**SERVING)  # type: ignore[arg-type]
    if reason := found.why_not(given):
        said = f"{given.name} does not suit the case: {reason}."
        return Mistake("misfit", said)
    return None


def _settings(seen: Mapping[str, Any]) -> Mistake | None:
    quick, slow = (catalog.sampling(MODEL, thinking) for thinking in (False, True))
    given = {name: float(seen[name]) for name in SETTINGS}
    if all(math.isclose(given[name], quick[name]) for name in SETTINGS):
        return None
    if all(math.isclose(given[name], slow[name]) for name in SETTINGS):
        return Mistake(
            "thinking-values",
            "Those are Qwen3's values with thinking. The reception answers without: "
            "Qwen recommends others there.",
        )
    if given["temperature"] == 0:
        said = "Temperature 0 is greedy, which Qwen3's card does not recommend."
        return Mistake("greedy", said)
    name = next(n for n in SETTINGS if not math.isclose(given[n], quick[n]))
    return Mistake(
        "settings",
        f"{name} is {given[name]:g}. qc.catalog.sampling tells what Qwen recommends "
        f"for {MODEL} without thinking.",
    )


def _context(context: float) -> Mistake | None:
    if context < CONTEXT:
        said = f"A context of {context:,} is too short: {CONTEXT:,} tokens are needed."
        return Mistake("short-context", said)
    if context > MOST:
        said = f"A context of {context:,} is more than {MODEL} was made for, {MOST:,}."
        return Mistake("long-context", f"{said} Each user would also pay for it.")
    return None


# Question 4

Runs = probe.Runs


def _changes(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int]:
    pairs = list(zip(before, after, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _gained(before: Sequence[bool], after: Sequence[bool]) -> bool:
    lost, won = _changes(before, after)
    return sign_test(won, lost) < CHANCE


def _worse(before: Sequence[bool], after: Sequence[bool]) -> bool:
    lost, won = _changes(before, after)
    return sign_test(lost, won) < CHANCE


def ships(new: str, before: Runs, after: Runs) -> bool:
    """Say whether the new skill gained and no old one lost, beyond chance."""
    return _gained(before[new], after[new]) and _kept(new, before, after)


def _kept(new: str, before: Runs, after: Runs, worse: Callable = _worse) -> bool:
    return not any(worse(before[n], after[n]) for n in before if n != new)


def _more_in_all(new: str, before: Runs, after: Runs) -> bool:
    return sum(map(sum, after.values())) > sum(map(sum, before.values()))


SHIPS = (
    Way("ignores-old-skills", lambda n, b, a: _gained(b[n], a[n]),
        "Only the new skill decides here. An adapter that forgot what the model could "
        "do before does not ship."),
    Way("ignores-new-skill", lambda n, b, a: _kept(n, b, a),
        "Nothing is lost, but nothing is gained: what would it ship for?"),
    Way("sums-skills", _more_in_all,
        "All skills are added up, so a large gain hides a loss. Judge each skill."),
    Way("every-loss", lambda n, b, a: _gained(b[n], a[n]) and _kept(
            n, b, a, lambda old, new: _changes(old, new)[0] > 0),
        "A single lost question stops it here. Some are lost and won by chance: stop "
        "it only where the sign test says that it is no chance."),
    Way("any-fall", lambda n, b, a: _gained(b[n], a[n]) and _kept(
            n, b, a, lambda old, new: sum(new) < sum(old)),
        "Each fall stops it here, also one that chance explains. Use the sign test."),
    Way("any-gain", lambda n, b, a: sum(a[n]) > sum(b[n]) and _kept(n, b, a),
        "A few more right ones may be luck. The gain, too, has to pass the sign test."),
    Way("wrong-way-round", lambda n, b, a: _worse(b[n], a[n]) and _kept(n, b, a),
        "The new skill has to get better: sign_test(won, lost) asks for that side."),
    Way("opposite", lambda n, b, a: not ships(n, b, a),
        "It is the other way round: True ships."),
    Way("always-the-same", lambda n, b, a: True, "Every adapter ships."),
    Way("always-the-same", lambda n, b, a: False, "No adapter ever ships."),
)  # fmt: skip
ADAPTERS = ("one that gains and keeps", "one that gains and forgets sums",
            "one that gains a little", "one that changes without a gain",
            "one that gains and loses two", "one that unlearns its own skill",
            "one that gains and loses five of twenty",
            "one that gains everywhere")  # fmt: skip


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what is said of each adapter."""
    cases: list[Any] = [tuple(one) for one in probe.adapters(seed)]
    shown = [f"ships(...) for {kind}" for kind in ADAPTERS]
    right = [ships(*case) for case in cases]
    advice = "sign_test(won, lost) for the new skill, sign_test(lost, won) for the old."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_bool(seen, shown),
        lambda: compared(cases, seen, shown, right, SHIPS, same_truth, advice),
    )


# Question 5

CITED = re.compile(r"\[(\d+)\]")


def grounded(
    answer: str,
    passages: list[str],
    everywhere: bool = False,
    whole: bool = True,
    markers: bool = False,
) -> bool:
    """Say whether citations exist, and hold every number of the answer.

    The switches make typical mistakes: to look in every passage, to find a number
    inside another one, to take the citations' own numbers for the answer's.
    """
    if answer == probe.REFUSAL:
        return True
    cited = [int(number) for number in CITED.findall(answer)]
    if not cited or not all(1 <= number <= len(passages) for number in cited):
        return False
    chosen = passages if everywhere else [passages[number - 1] for number in cited]
    text = " ".join(chosen)
    claimed = _numbers(answer if markers else CITED.sub("", answer))
    return all(one in (_numbers(text) if whole else text) for one in claimed)


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+", text))


def _from_zero(answer: str, passages: list[str]) -> bool:
    moved = CITED.sub(lambda found: f"[{int(found[1]) + 1}]", answer)
    return grounded(moved, passages)


def _uncited_too(answer: str, passages: list[str]) -> bool:
    if CITED.search(answer):
        return grounded(answer, passages)
    return _numbers(answer) <= _numbers(" ".join(passages))


def _without_a_citation(answer: str, passages: list[str]) -> bool:
    return grounded(answer, passages) or not CITED.search(answer)


def _whoever_exists(answer: str, passages: list[str]) -> bool:
    """Leave out citations that do not exist, and judge by the others."""
    kept = CITED.sub(
        lambda found: found[0] if 1 <= int(found[1]) <= len(passages) else "", answer
    )
    return grounded(kept, passages)


GROUNDS = (
    Way("any-passage", lambda a, p: grounded(a, p, everywhere=True),
        "The number stands in a passage that is not cited. Whoever follows the "
        "citation does not find it: look in the cited passages only."),
    Way("inside-a-number", lambda a, p: grounded(a, p, whole=False),
        "A number is found inside another one: 2 is no support for 25. Compare whole "
        "numbers."),
    Way("from-zero", _from_zero,
        "[1] is the first passage, passages[0]."),
    Way("no-citation-needed", _uncited_too,
        "An answer without a citation is not grounded, even if it is right."),
    Way("no-citation-needed", _without_a_citation,
        "An answer without a citation is not grounded."),
    Way("no-such-passage", _whoever_exists,
        "A citation of a passage that does not exist makes the answer ungrounded."),
    Way("citation-as-number", lambda a, p: grounded(a, p, markers=True),
        "The digits in [1] belong to the citation, not to the answer. Take the "
        "citations out before you look for numbers."),
    Way("refusal", lambda answer, passages: (
            answer != probe.REFUSAL and grounded(answer, passages)),
        "The refusal claims nothing, so it needs no citation: it is grounded."),
    Way("only-exists", lambda answer, passages: answer == probe.REFUSAL or (
            bool(CITED.search(answer)) and all(
                1 <= int(n) <= len(passages) for n in CITED.findall(answer))),
        "You look whether the passages exist, not whether they say it."),
    Way("always-the-same", lambda answer, passages: True, "Every answer is grounded."),
)  # fmt: skip


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare what is said of each reply."""
    cases: list[Any] = [tuple(one) for one in probe.replies(seed)]
    shown = [f'grounded("{answer}", ...)' for answer, _ in cases]
    right = [grounded(*case) for case in cases]
    advice = "Citations out, numbers of the rest, each in a cited passage."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_bool(seen, shown),
        lambda: compared(cases, seen, shown, right, GROUNDS, same_truth, advice),
    )


# Question 6

Week = probe.Week


def p95(values: Sequence[float]) -> float:
    """Return the nearest rank of 95%."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def alarms(
    good: Week,
    now: Week,
    over: Callable[[Sequence[float]], float] = p95,
    factor: float = 1.5,
) -> list[str]:
    """Return the metrics that are missing, over the limit, or right less often."""
    found = []
    for name, values in good.items():
        if name not in now:
            found.append(name)
        elif name.startswith("right_"):
            fall = statistics.mean(values) - statistics.mean(now[name])
            found += [name] if fall > 0.1 else []
        elif over(now[name]) > factor * over(values):
            found.append(name)
    return found


def _of_those_there(good: Week, now: Week) -> list[str]:
    return [name for name in alarms(good, now) if name in now]


def _all_alike(good: Week, now: Week) -> list[str]:
    """Treat a share of right answers as a time: more is worse."""
    return [name for name in good
            if name not in now or p95(now[name]) > 1.5 * p95(good[name])]  # fmt: skip


ALARMS = (
    Way("missing-is-fine", _of_those_there,
        "A metric that is no longer measured is no good news: it is an alarm."),
    Way("more-right-is-worse", _all_alike,
        "Fewer right answers are worse, not more: metrics that begin with right_ have "
        "a rule of their own."),
    Way("mean", lambda good, now: alarms(good, now, statistics.mean),
        "The mean hides two late requests in twenty. Compare the p95."),
    Way("largest", lambda good, now: alarms(good, now, max),
        "The largest value rings at a single one of twenty. Compare the p95."),
    Way("median", lambda good, now: alarms(good, now, statistics.median),
        "The median does not see two late ones in twenty. Compare the p95."),
    Way("no-factor", lambda good, now: alarms(good, now, factor=1.0),
        "Any rise rings here. Half as much again is allowed."),
    Way("low-factor", lambda good, now: alarms(good, now, factor=1.1),
        "A quarter more rings here. Half as much again is allowed: 1.5 times."),
    Way("other-order", lambda good, now: sorted(alarms(good, now)),
        "The names are right, in another order: keep that of `good`."),
    Way("other-order", lambda good, now: alarms(good, now)[::-1],
        "The names are right, in another order: keep that of `good`."),
    Way("nothing", lambda good, now: [], "No alarm ever rings."),
)  # fmt: skip


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the alarms of each week."""
    cases: list[Any] = probe.weeks(seed)
    kinds = ("a week like the good one", "late first tokens", "two late ones in twenty",
             "four long waits in twenty", "one peak of memory", "fewer right canaries",
             "a quarter more memory", "several, and one not measured")  # fmt: skip
    shown = [f"alarms(...) for {kind}" for kind in kinds]
    right = [alarms(*case) for case in cases]
    advice = "Go through good: missing, then right_, then p95 over 1.5 times."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_list(seen, shown),
        lambda: compared(cases, seen, shown, right, ALARMS, operator.eq, advice),
    )


def _no_list(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        if not isinstance(outcome["value"], list):
            value = short(outcome["value"])
            return Mistake("no-list", f"{text} gave {value}. Return a list of names.")
    return None


# Question 7

PARTS = ("context", "options", "decision", "evidence", "risks", "revisit")
FIGURES = ("quality", "speed", "memory")
RISK = ("risk", "metric", "limit", "remedy")


def q7(seen: Any, seed: int) -> Mistake | None:
    """Go through the rubric, line by line."""
    if not isinstance(seen, dict):
        said = f"Your record is {short(seen)}. Give a dict with {', '.join(PARTS)}."
        return Mistake("no-dict", said)
    if missing := [name for name in PARTS if not seen.get(name)]:
        said = f"Line 1 of the rubric: {', '.join(missing)} is missing or empty."
        return Mistake("missing", said)
    return mistakes.first(
        lambda: _decision(seen["decision"]),
        lambda: _options(seen["options"], seen["decision"]),
        lambda: _evidence(seen["evidence"], seen["decision"]),
        lambda: _risks(seen["risks"]),
        lambda: _revisit(str(seen["revisit"])),
    )


def _decision(decision: Any) -> Mistake | None:
    named = ("model", "precision", "platform")
    if not isinstance(decision, dict) or not all(map(decision.get, named)):
        said = f"Line 2: the decision names {', '.join(named)}."
        return Mistake("decision-form", said)
    found = of_variant(decision) or of_platform(str(decision["platform"]))
    return found and Mistake(f"decision-{found.name}", f"Line 2: {found.text}")


def _rows(rows: Any, named: Sequence[str]) -> bool:
    """Say whether these are dicts with all these fields filled."""
    return isinstance(rows, list) and all(
        isinstance(row, dict) and all(row.get(name) not in (None, "") for name in named)
        for row in rows
    )


def _options(options: Any, decision: Mapping[str, Any]) -> Mistake | None:
    if not _rows(options, ("model", "for", "against")):
        said = "Line 3: each option is a dict with model, for and against, all filled."
        return Mistake("options-form", said)
    try:
        sizes = [_size(option["model"]) for option in options]
        own = _size(decision["model"])
    except ValueError as error:
        return Mistake("option-unknown", f"Line 3: {error}")
    if len(set(sizes)) < 3 or not min(sizes) < own < max(sizes):
        return Mistake(
            "few-options",
            "Line 3: weigh at least three sizes, one of them smaller and one larger "
            "than what you chose. Else the record cannot say what either would cost.",
        )
    return None


def _size(name: Any) -> int:
    found = catalog.get(str(name)).shape.parameters
    if not found:
        raise ValueError(f"the parameters of {name} are not known: take another one.")
    return found


def _evidence(evidence: Any, decision: Mapping[str, Any]) -> Mistake | None:
    if not _rows(evidence, ("figure", "value", "unit", "source")):
        said = "Line 4: each piece of evidence has figure, value, unit and source."
        return Mistake("evidence-form", said)
    named = {str(row["figure"]).lower(): row for row in evidence}
    if missing := [name for name in FIGURES if name not in named]:
        said = f"Line 4: no figure for {', '.join(missing)}. A decision weighs all "
        return Mistake("evidence-missing", f"{said}three: {', '.join(FIGURES)}.")
    if wrong := [n for n in FIGURES if not mistakes.is_number(named[n]["value"])]:
        said = f"Line 4: {wrong[0]} has the value {short(named[wrong[0]]['value'])}."
        return Mistake("no-figure", f"{said} Give a number; its unit stands beside.")
    return _memory(named["memory"], decision)


def _memory(row: Mapping[str, Any], decision: Mapping[str, Any]) -> Mistake | None:
    need = needs_gib(catalog.get(decision["model"]), str(decision["precision"]))
    scale = {"gib": 1.0, "gb": 1e9 / 2**30, "mib": 1 / 1024}
    unit = str(row["unit"]).strip().lower()
    if unit not in scale:
        return Mistake("memory-unit", f"Line 4: give memory in GiB, not in {unit}.")
    given = row["value"] * scale[unit]
    if abs(given - need) <= need / 10:
        return None
    return Mistake(
        "memory-figure",
        f"Line 4: you write {given:.1f} GiB, and the estimate for {USERS} users of "
        f"{CONTEXT:,} tokens is {need:.1f} GiB. Did you count every user's cache?",
    )


def _risks(risks: Any) -> Mistake | None:
    if not _rows(risks, RISK):
        return Mistake("risk-form", f"Line 5: each risk has {', '.join(RISK)}.")
    if len(risks) < 2:
        said = "Line 5: one risk is not all that can go wrong. Name at least two."
        return Mistake("few-risks", said)
    if vague := [row for row in risks if not re.search(r"\d", str(row["limit"]))]:
        said = f"Line 5: the limit {short(vague[0]['limit'])} has no number: who would "
        return Mistake("vague-limit", f"{said}notice that it is passed?")
    return None


def _revisit(text: str) -> Mistake | None:
    if re.search(r"\d", text):
        return None
    return Mistake(
        "vague-revisit",
        "Line 6: say when to decide anew, with a date or a number that can be checked.",
    )


QUESTIONS = (
    Question(
        id="11.q1",
        title="What eight users cost",
        outcome=1,
        difficulty="warm-up",
        minutes=12,
        judge=q1,
        hints=(
            "Which layers keep something for every token, how many heads of keys do "
            "they have, and how wide is one?",
            'Layers: layer_types.count("full_attention") if it is there. Width: '
            'config.get("head_dim", hidden_size // num_attention_heads).',
        ),
        look=_place(),
        why="Fewer key-value heads, and few layers that keep them: that is how the "
        "family lets many users share one GPU.",
    ),
    Question(
        id="11.q2",
        title="The variant",
        outcome=2,
        difficulty="core",
        minutes=12,
        judge=q2,
        hints=(
            "qc.catalog.recommend lists what meets licence and task. Its memory is for "
            "one user: what do eight need?",
            "qc.memory.estimate(model, precision, context=8192, batch=8).total / 2**30 "
            "must stay below 21.6, and a far larger one that fits is better.",
        ),
        look=_place(),
        why="It meets every need, and nothing three times its size would.",
    ),
    Question(
        id="11.q3",
        title="The platform and its settings",
        outcome=3,
        difficulty="core",
        minutes=12,
        judge=q3,
        hints=(
            "deployment.choose knows which platforms serve eight on such a machine; "
            "the catalogue knows what Qwen recommends without thinking.",
            'deployment.choose("server", users=8, hardware="nvidia") and '
            'qc.catalog.sampling("Qwen3-8B", thinking=False).',
        ),
        look=_place(),
        why="A platform's own defaults belong to no model: these belong to Qwen3-8B.",
    ),
    Question(
        id="11.q4",
        title="Does the adapter ship?",
        outcome=4,
        difficulty="core",
        minutes=15,
        judge=q4,
        hints=(
            "For each skill count what was lost and what was won. Which of the two "
            "tests do you need for the new skill, which for the old ones?",
            "sign_test(won, lost) < 0.05 for the new one; for every other skill not "
            "sign_test(lost, won) < 0.05.",
        ),
        look=_place(2),
        why="A gain that luck explains is none, and a forgotten skill is a price.",
    ),
    Question(
        id="11.q5",
        title="Grounded, or only fluent",
        outcome=3,
        difficulty="core",
        minutes=15,
        judge=q5,
        hints=(
            r"re.findall(r'\[(\d+)\]', answer) finds the citations. What is left "
            "when you take them out?",
            "All cited numbers from 1 to len(passages), and each number of the rest "
            "among re.findall(r'\\d+', text) of the cited passages.",
        ),
        look=_place(1),
        why="A citation that exists proves nothing yet. The figure must stand there.",
    ),
    Question(
        id="11.q6",
        title="Which alarms ring",
        outcome=4,
        difficulty="core",
        minutes=12,
        judge=q6,
        hints=(
            "Go through the metrics of the good week. Which three cases are there for "
            "each of them?",
            "Missing: an alarm. right_...: mean more than 0.1 lower. Else: p95 of now "
            "over 1.5 times that of good, by the nearest rank.",
        ),
        look=_place(),
        why="The limits come from your own good week, and silence is an alarm, too.",
    ),
    Question(
        id="11.q7",
        title="The decision record",
        outcome=5,
        difficulty="stretch",
        minutes=30,
        judge=q7,
        hints=(
            "Write it line by line along the rubric. Your answers to the questions "
            "before this one are its decision.",
            "Three sizes as options, one smaller and one larger than yours; memory as "
            "qc.memory.estimate for eight users; a number in limits and in revisit.",
        ),
        look=_place(),
        why="Whoever reads it in a year knows what was chosen, against what, on which "
        "figures, and when to think again.",
    ),
)
