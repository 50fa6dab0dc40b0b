"""Right and wrong answers to the exercises of lesson 11."""

import math
import re
import statistics
from typing import Any

import numpy

from qwen_course.exercises.judges import lesson_11 as judge
from qwen_course.exercises.probes.lesson_11 import REFUSAL
from qwen_course.quality import sign_test

# Question 1


def cache_bytes(config, users, context):
    kinds = config.get("layer_types", ["full_attention"] * config["num_hidden_layers"])
    even = config["hidden_size"] // config["num_attention_heads"]
    size = config.get("head_dim", even)
    each = 2 * 2 * config["num_key_value_heads"] * size
    return kinds.count("full_attention") * each * users * context


def cache_bytes_layer_by_layer(config, users, context):
    total = 0
    for layer in range(config["num_hidden_layers"]):
        if (
            config.get("layer_types", {layer: "full_attention"})[layer]
            != "full_attention"
        ):
            continue
        size = config.get("head_dim") or (
            config["hidden_size"] / config["num_attention_heads"]
        )
        total += 4 * config["num_key_value_heads"] * size * users * context
    return total


def cache_bytes_with_numpy(config, users, context):
    layers = config["num_hidden_layers"]
    if "layer_types" in config:
        layers = (numpy.array(config["layer_types"]) == "full_attention").sum()
    size = config.get(
        "head_dim", config["hidden_size"] // config["num_attention_heads"]
    )
    shape = (2, layers, config["num_key_value_heads"], size, users, context, 2)
    return numpy.prod(numpy.array(shape, dtype="int64"))


def cache_that(change):
    def answer(config, users, context):
        return change(cache_bytes(config, users, context), config, users, context)

    return answer


# Question 4


def changes(before, after):
    pairs = list(zip(before, after, strict=True))
    return pairs.count((True, False)), pairs.count((False, True))


def ships(new, before, after):
    for skill in before:
        lost, won = changes(before[skill], after[skill])
        if skill == new and sign_test(won, lost) >= 0.05:
            return False
        if skill != new and sign_test(lost, won) < 0.05:
            return False
    return True


def ships_in_one_expression(new, before, after):
    counts = {skill: changes(before[skill], after[skill]) for skill in before}
    return sign_test(*counts.pop(new)[::-1]) < 0.05 and all(
        sign_test(*count) >= 0.05 for count in counts.values()
    )


def ships_by_counting_coins(new, before, after):
    def chance(more, less):
        number = more + less
        return sum(math.comb(number, k) for k in range(more, number + 1)) / 2**number

    lost, won = changes(before[new], after[new])
    harm = [
        chance(*changes(before[skill], after[skill]))
        for skill in before
        if skill != new
    ]
    return int(chance(won, lost) < 0.05 and min(harm, default=1) >= 0.05)


def ships_that(gained, worse):
    def answer(new, before, after):
        old = [skill for skill in before if skill != new]
        harm = any(worse(*changes(before[one], after[one])) for one in old)
        return gained(*changes(before[new], after[new])) and not harm

    return answer


def gains(lost, won):
    return sign_test(won, lost) < 0.05


def loses(lost, won):
    return sign_test(lost, won) < 0.05


# Question 5


def grounded(answer, passages):
    if answer == REFUSAL:
        return True
    cited = [int(number) for number in re.findall(r"\[(\d+)\]", answer)]
    if not cited or max(cited) > len(passages) or min(cited) < 1:
        return False
    text = " ".join(passages[number - 1] for number in cited)
    claimed = re.findall(r"\d+", re.sub(r"\[\d+\]", "", answer))
    return set(claimed) <= set(re.findall(r"\d+", text))


def grounded_word_by_word(answer, passages):
    if answer.strip() == REFUSAL:
        return 1
    there = {str(number): text for number, text in enumerate(passages, start=1)}
    cited = set(re.findall(r"\[(\d+)\]", answer))
    if not cited or cited - set(there):
        return 0
    rest = re.sub(r"\[\d+\]", " ", answer)
    return int(
        all(
            any(re.search(rf"\b{one}\b", there[number]) for number in cited)
            for one in re.findall(r"\d+", rest)
        )
    )


def grounded_by_refusing_first(answer, passages):
    cited = [int(number) - 1 for number in re.findall(r"\[(\d+)\]", answer)]
    claimed = set(re.split(r"\D+", re.sub(r"\[\d+\]", "", answer))) - {""}
    known = [set(re.split(r"\D+", text)) for text in passages]
    refuses = answer == REFUSAL
    exists = bool(cited) and all(0 <= number < len(passages) for number in cited)
    return refuses or (
        exists and claimed <= set().union(*(known[number] for number in cited))
    )


def grounded_without_range(answer, passages):
    kept = re.sub(
        r"\[(\d+)\]",
        lambda found: found[0] if 1 <= int(found[1]) <= len(passages) else "",
        answer,
    )
    return grounded(kept, passages)


# Question 6


def p95(values):
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def alarms(good, now):
    found = []
    for name, values in good.items():
        if name not in now:
            found.append(name)
        elif name.startswith("right_"):
            if statistics.mean(now[name]) < statistics.mean(values) - 0.1:
                found.append(name)
        elif p95(now[name]) > 1.5 * p95(values):
            found.append(name)
    return found


def alarms_with_numpy(good, now):
    def high(values):
        return numpy.percentile(values, 95, method="inverted_cdf")

    def rings(name):
        if name not in now:
            return True
        if name[:6] == "right_":
            return numpy.mean(good[name]) - numpy.mean(now[name]) > 0.1
        return high(now[name]) / high(good[name]) > 1.5

    return [name for name in good if rings(name)]


def alarms_rule_by_rule(good, now):
    missing = {name for name in good if name not in now}
    shares = {name for name in now if name.startswith("right_")}
    low = {
        n
        for n in shares
        if sum(now[n]) / len(now[n]) + 0.1 < sum(good[n]) / len(good[n])
    }
    late = {n for n in set(now) - shares if p95(now[n]) > p95(good[n]) * 1.5}
    return tuple(name for name in good if name in missing | low | late)


# Question 7

NEED = {
    (model, precision): round(judge.needs_gib(judge.catalog.get(model), precision), 1)
    for model, precision in (
        ("Qwen3-8B", "nf4"),
        ("Qwen3.5-9B", "nf4"),
        ("Qwen3-4B", "bf16"),
    )
}


def record(model="Qwen3-8B", precision="nf4", platform="llama.cpp", **changed):
    """A record that passes, with some parts changed."""
    made = {
        "context": "Reception of a hospital: 8 at once, 8,192 tokens, 24 GiB.",
        "options": [
            {"model": "Qwen3-1.7B", "for": "quick", "against": "half as many right"},
            {"model": "Qwen3-8B", "for": "answers well", "against": "21 GiB in nf4"},
            {"model": "Qwen3-14B", "for": "better still", "against": "28 GiB in nf4"},
            {"model": "Qwen3-4B", "for": "fits in bf16", "against": "fewer right"},
        ],
        "decision": {"model": model, "precision": precision, "platform": platform},
        "evidence": [
            {"figure": "quality", "value": 92.5, "unit": "% of 200 questions",
             "source": "our own evaluation, 2026-11-20"},
            {"figure": "speed", "value": 31, "unit": "tokens/s for each of 8",
             "source": "load test, llama-bench"},
            {"figure": "memory", "value": NEED[model, precision], "unit": "GiB",
             "source": "qc.memory.estimate"},
        ],
        "risks": [
            {"risk": "a wrong room number", "metric": "right_canaries",
             "limit": "below 90%", "remedy": "show the passage, ask a person"},
            {"risk": "late answers at noon", "metric": "p95 of the first token",
             "limit": "2 seconds", "remedy": "a second machine"},
        ],
        "revisit": "in 6 months, or when 12 people ask at once",
    }  # fmt: skip
    return made | changed


def but(part, number, **changed):
    """A record of which one row has other fields."""
    rows = [dict(row) for row in record()[part]]
    rows[number] |= changed
    return record(**{part: rows})


def decided(**changed):
    return record(decision=record()["decision"] | changed)


SERVED = {"platform": "llama.cpp", "temperature": 0.7, "top_p": 0.8, "top_k": 20,
          "min_p": 0, "context": 8192}  # fmt: skip

RIGHT: dict[str, list[Any]] = {
    "11.q1": [cache_bytes, cache_bytes_layer_by_layer, cache_bytes_with_numpy],
    "11.q2": [
        {"model": "Qwen3-8B", "precision": "nf4"},
        {"model": "Qwen/Qwen3.5-9B", "precision": "nf4"},
        {"model": "Qwen/Qwen3-4B", "precision": "bf16"},
    ],
    "11.q3": [
        SERVED,
        SERVED | {"platform": "ollama", "context": 16384, "min_p": 0.0},
        SERVED | {"platform": "transformers serve", "context": 40960.0},
    ],
    "11.q4": [ships, ships_in_one_expression, ships_by_counting_coins],
    "11.q5": [grounded, grounded_word_by_word, grounded_by_refusing_first],
    "11.q6": [alarms, alarms_with_numpy, alarms_rule_by_rule],
    "11.q7": [
        record(),
        record("Qwen3.5-9B", platform="Ollama"),
        record("Qwen3-4B", "bf16", "transformers_serve", revisit="on 2027-05-01"),
    ],
}

WRONG: dict[str, dict[str, Any]] = {
    "11.q1": {
        "query-heads": cache_that(
            lambda n, c, u, t: n * c["num_attention_heads"] / c["num_key_value_heads"]
        ),
        "keys-only": cache_that(lambda n, c, u, t: n / 2),
        "one-user": cache_that(lambda n, c, u, t: n // u),
        "one-token": cache_that(lambda n, c, u, t: n // t),
        "all-layers": lambda c, u, t: cache_bytes(
            {name: value for name, value in c.items() if name != "layer_types"}, u, t
        ),
        "even-heads": lambda c, u, t: cache_bytes(
            {name: value for name, value in c.items() if name != "head_dim"}, u, t
        ),
        "bits": cache_that(lambda n, c, u, t: 8 * n),
        "hidden-size": lambda c, u, t: (
            4
            * c.get("layer_types", ["full_attention"] * c["num_hidden_layers"]).count(
                "full_attention"
            )
            * c["hidden_size"]
            * u
            * t
        ),
        "no-number": cache_that(lambda n, c, u, t: f"{n / 2**30} GiB"),
    },
    "11.q2": {
        "no-dict": "Qwen3-8B in nf4",
        "missing": {"model": "Qwen3-8B"},
        "unknown": {"model": "Qwen3-9B", "precision": "nf4"},
        "no-switch": {"model": "Qwen2.5-7B-Instruct", "precision": "int8"},
        "licence": {"model": "Qwen3.8-Flash-Next", "precision": "nf4"},
        "too-large": {"model": "Qwen3-32B", "precision": "bf16"},
        "one-user-fits": {"model": "Qwen3-8B", "precision": "bf16"},
        "much-smaller": {"model": "Qwen3-0.6B", "precision": "bf16"},
    },
    "11.q3": {
        "no-dict": "llama.cpp",
        "missing": {"platform": "llama.cpp", "temperature": 0.7},
        "no-number": SERVED | {"top_k": "twenty"},
        "unknown-platform": SERVED | {"platform": "llama"},
        "misfit": SERVED | {"platform": "MLX"},
        "thinking-values": SERVED | {"temperature": 0.6, "top_p": 0.95},
        "greedy": SERVED | {"temperature": 0},
        "settings": SERVED | {"top_k": 40},
        "short-context": SERVED | {"context": 4096},
        "long-context": SERVED | {"context": 131072},
    },
    "11.q4": {
        "ignores-old-skills": lambda n, b, a: gains(*changes(b[n], a[n])),
        "ignores-new-skill": ships_that(lambda lost, won: True, loses),
        "sums-skills": lambda n, b, a: (
            sum(map(sum, a.values())) > sum(map(sum, b.values()))
        ),
        "every-loss": ships_that(gains, lambda lost, won: lost > 0),
        "any-fall": ships_that(gains, lambda lost, won: lost > won),
        "any-gain": ships_that(lambda lost, won: won > lost, loses),
        "wrong-way-round": ships_that(loses, loses),
        "opposite": lambda *case: not ships(*case),
        "always-the-same": lambda *case: True,
        "no-bool": lambda n, b, a: sum(a[n]) - sum(b[n]),
    },
    "11.q5": {
        "any-passage": lambda a, p: judge.grounded(a, p, everywhere=True),
        "inside-a-number": lambda a, p: judge.grounded(a, p, whole=False),
        "from-zero": lambda a, p: grounded(
            re.sub(r"\[(\d+)\]", lambda found: f"[{int(found[1]) + 1}]", a), p
        ),
        "no-citation-needed": lambda a, p: grounded(a, p) or "[" not in a,
        "no-such-passage": grounded_without_range,
        "citation-as-number": lambda a, p: judge.grounded(a, p, markers=True),
        "refusal": lambda a, p: a != REFUSAL and grounded(a, p),
        "only-exists": lambda a, p: (
            a == REFUSAL
            or ("[" in a and all(int(n) <= len(p) for n in re.findall(r"\[(\d+)\]", a)))
        ),
        "always-the-same": lambda a, p: True,
        "no-bool": lambda a, p: re.findall(r"\[(\d+)\]", a),
    },
    "11.q6": {
        "missing-is-fine": lambda good, now: [n for n in alarms(good, now) if n in now],
        "more-right-is-worse": lambda good, now: [
            n for n in good if n not in now or p95(now[n]) > 1.5 * p95(good[n])
        ],
        "mean": lambda good, now: judge.alarms(good, now, statistics.mean),
        "largest": lambda good, now: judge.alarms(good, now, max),
        "median": lambda good, now: judge.alarms(good, now, statistics.median),
        "no-factor": lambda good, now: judge.alarms(good, now, factor=1),
        "low-factor": lambda good, now: judge.alarms(good, now, factor=1.1),
        "other-order": lambda good, now: sorted(alarms(good, now)),
        "nothing": lambda good, now: [],
        "no-list": lambda good, now: len(alarms(good, now)),
    },
    "11.q7": {
        "no-dict": "We take Qwen3-8B in nf4.",
        "missing": record(risks=[]),
        "decision-form": record(decision="Qwen3-8B"),
        "decision-one-user-fits": decided(precision="bf16"),
        "decision-licence": decided(model="Qwen3.8-Flash-Next"),
        "decision-misfit": decided(platform="MLX"),
        "options-form": record(options=["Qwen3-1.7B", "Qwen3-8B", "Qwen3-14B"]),
        "option-unknown": but("options", 0, model="Qwen3-2B"),
        "few-options": record(options=record()["options"][:2]),
        "evidence-form": but("evidence", 1, source=""),
        "evidence-missing": record(evidence=record()["evidence"][1:]),
        "no-figure": but("evidence", 1, value="fast"),
        "memory-unit": but("evidence", 2, unit="chips"),
        "memory-figure": but("evidence", 2, value=6.4),
        "risk-form": but("risks", 0, remedy=""),
        "few-risks": record(risks=record()["risks"][:1]),
        "vague-limit": but("risks", 1, limit="too slow"),
        "vague-revisit": record(revisit="when things change"),
    },
}
