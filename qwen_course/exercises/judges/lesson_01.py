"""What is right in the exercises of lesson 01."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from qwen_course import architecture, catalog, memory
from qwen_course.checkpoint import Checkpoint
from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_01 as probes
from qwen_course.exercises.question import Mistake, Question

Seen = list[dict[str, Any]]
Words = dict[str, str]  # what a learner is told, by the name of the mistake
Found = tuple[str, dict[str, Any]] | None  # a mistake's name, and what its words need


# Question 1: parameters

COUNT: Words = {
    "tied": "You counted the output matrix of a model that ties it to the embedding: "
    "it is the same matrix.",
    "untied": "You left the output matrix out. Here tie_word_embeddings is false: it "
    "has one of its own.",
    "every-head": "You gave every query head its own key and value. In grouped-query "
    "attention num_key_value_heads counts those.",
    "no-keys": "You left out the matrices of keys and values.",
    "no-way-back": "You left out o_proj, the matrix that leads the heads back to "
    "hidden_size.",
    "hidden-size": "You took hidden_size for the width of all heads together. Qwen3 "
    "states head_dim, and heads * head_dim need not be hidden_size.",
    "norms": "You left out norms: each layer has two RMSNorms of hidden_size weights, "
    "and one stands at the end.",
    "qk-norm": "You left out QK-norm: in each layer one weight of head_dim for "
    "queries, one for keys.",
    "last-norm": "You left out the norm after the last layer.",
    "two-matrices": "SwiGLU has three matrices: gate, up and down. You counted two.",
    "biases": "You counted biases of q, k and v. Qwen2 has them, Qwen3 has not.",
    "one-layer": "You counted one layer. There are num_hidden_layers of them.",
    "count": "Compare part by part with section 3 of the lesson.",
}


def q1(seen: Seen, seed: int) -> Mistake | None:
    """Compare the counts with those of the course's own formulas."""
    ids = probes.counted(seed)
    wrong = mistakes.of_calls(seen, [f"count_parameters({id})" for id in ids])
    if wrong:
        return wrong
    values = [outcome["value"] for outcome in seen]
    for id, value in zip(ids, values, strict=True):
        config = architecture.configuration(id)
        total = architecture.count(config).total
        if not mistakes.is_number(value):
            text = f"For {id} you returned {value!r}, no number."
            return Mistake("no-number", text)
        if value == total:
            continue
        if len(set(values)) == 1:
            text = f"You return {value:,} for every configuration. Use the dimensions "
            return Mistake("one-model", text + "of the config that you are given.")
        if mistakes.close(value * 1e9, total, 0.05):
            text = f"{id}: you returned {value:g}. Return the number, not billions."
            return Mistake("billions", text)
        return _miscounted(id, config, total, value)
    return None


def _miscounted(id: str, config: Any, total: int, value: float) -> Mistake:
    """Name the one or two parts that a wrong count leaves out or counts twice."""
    off = value - total
    said = f"{id}: you counted {value:,}, it has {total:,}, so you are {off:+,} off. "
    slips = _slips_of_count(config)
    for number in (1, 2):
        for chosen in combinations(slips, number):
            if sum(size for size, _ in chosen) == off:
                words = dict.fromkeys(COUNT[name] for _, name in chosen)
                return Mistake(chosen[0][1], said + " ".join(words))
    return Mistake("count", said + COUNT["count"])


def _slips_of_count(config: Any) -> list[tuple[int, str]]:
    """List by how much each slip is off, and its name."""
    parts = architecture.count(config)
    width, layers, place = config.hidden_size, config.num_hidden_layers, config.head_dim
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    tied, qk_norm = config.tie_word_embeddings, 2 * place * layers
    of_layers = parts.total - parts.embedding - parts.output - width
    narrower = 2 * width * (width // heads - place) * layers
    slips = [
        (parts.embedding, "tied") if tied else (-parts.output, "untied"),
        (2 * width * place * (heads - groups) * layers, "every-head"),
        (-2 * width * place * groups * layers, "no-keys"),
        (-width * place * heads * layers, "no-way-back"),
        (narrower * (heads + groups), "hidden-size"),
        (narrower * heads, "hidden-size"),
        (
            narrower * (heads + groups) + 2 * (width // heads - place) * layers,
            "hidden-size",
        ),
        (-parts.norms, "norms"),
        (-parts.norms + width, "norms"),
        (-qk_norm, "qk-norm"),
        (-width, "last-norm"),
        (-parts.feed_forward // 3, "two-matrices"),
        ((heads + 2 * groups) * place * layers, "biases"),
        (-of_layers // layers * (layers - 1), "one-layer"),
    ]
    return [slip for slip in slips if slip[0]]


# Question 2: a search in the catalogue

SEARCH: Words = {
    "unknown-licence": "No source shows its licence, and unknown is no permission.",
    "other-licence": "Its licence is {licence}. Not the whole family is Apache-2.0.",
    "counts-base": "A base checkpoint was trained to continue text, not to answer.",
    "other-kind": 'It is made for something else: its kind is "{kind}".',
    "counts-mixtures": "It is a mixture of experts, not dense: see is_moe.",
    "weights-only": "It needs {needed:.2f} GiB. Its weights alone would fit; the KV "
    "cache and the activations come on top.",
    "too-large": "It needs {needed:.2f} GiB in nf4. Compare bytes with bytes.",
    "forgets-hybrids": 'Its kind is "hybrid": it chats too, with thinking and without.',
    "empty": "Your list is empty. Which of your conditions is never met?",
    "gigabytes": "It needs {needed:.2f} GiB. A GiB has 2**30 bytes, not 10**9, and "
    "here no part of the memory is kept free.",
    "other-precision": "It needs {needed:.2f} GiB in nf4. You reckoned with more bits "
    "a weight.",
    "misses": "It needs {needed:.2f} GiB in nf4. Which of your conditions does it "
    "fail?",
}


def q2(seen: Seen, seed: int) -> Mistake | None:
    """Compare what was found with what fits, and say why one of them differs."""
    sizes = probes.memories(seed)
    calls = [f"laptop_models({gib})" for gib in sizes]
    if wrong := mistakes.of_calls(seen, calls):
        return wrong
    known = {c.name: c for c in catalog.models()}
    for gib, shown, outcome in zip(sizes, calls, seen, strict=True):
        names = outcome["value"]
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            return Mistake("no-list", f"{shown} returned {names!r}, no list of names.")
        found = {name.removeprefix("Qwen/") for name in names}
        if strange := sorted(found - set(known)):
            text = f"{shown} has {strange[0]!r}, which is no name in the catalogue."
            return Mistake("unknown-name", text)
        right = {name for name, c in known.items() if _suits(c) and _nf4(c) <= gib}
        if surplus := [known[name] for name in known if name in found - right]:
            return _too_many(surplus, gib, shown)
        if missing := [known[name] for name in known if name in right - found]:
            return _too_few(missing, [known[name] for name in found], gib, shown)
    return None


def _suits(item: Checkpoint) -> bool:
    chats = item.kind in ("instruct", "hybrid")
    return item.licence == "Apache-2.0" and chats and not item.is_moe


def _nf4(item: Checkpoint) -> float:
    return memory.estimate(item, "nf4", 4096).total / memory.GIB


def _too_many(surplus: list[Checkpoint], gib: int, shown: str) -> Mistake:
    """Say why a checkpoint does not belong to the list."""
    odd = next((c for c in surplus if not _suits(c)), surplus[0])
    if odd.licence is None:
        name = "unknown-licence"
    elif odd.licence != "Apache-2.0":
        name = "other-licence"
    elif odd.is_base:
        name = "counts-base"
    elif odd.kind not in ("instruct", "hybrid"):
        name = "other-kind"
    elif odd.is_moe:
        name = "counts-mixtures"
    else:
        fits = memory.estimate(odd, "nf4", 4096).weights <= gib * memory.GIB
        name = "weights-only" if fits else "too-large"
    needed = _nf4(odd) if _suits(odd) else 0
    words = SEARCH[name].format(licence=odd.licence_name, kind=odd.kind, needed=needed)
    return Mistake(name, f"{shown} has {odd.name}. {words}")


def _too_few(
    missing: list[Checkpoint], found: list[Checkpoint], gib: int, shown: str
) -> Mistake:
    """Say why checkpoints that fit may have been left out."""
    last = missing[-1]
    if not found:
        name = "empty"
    elif last.kind == "hybrid" and not any(c.kind == "hybrid" for c in found):
        name = "forgets-hybrids"
    elif min(map(_nf4, missing)) > 0.9 * gib:
        name = "gigabytes"
    elif any(
        all(memory.estimate(c, more).total > gib * memory.GIB for c in missing)
        for more in ("int8", "bf16")
    ):
        name = "other-precision"
    else:
        name = "misses"
    words = SEARCH[name].format(needed=_nf4(last))
    return Mistake(name, f"{shown} lacks {last.name}. {words}")


# Question 3: the KV cache

CACHE: Words = {
    "half": "Half is missing: a key *and* a value are kept, and each of their numbers "
    "takes two bytes in bf16.",
    "quarter": "Three quarters are missing: a key *and* a value are kept, and each of "
    "their numbers takes two bytes in bf16.",
    "one-layer": "That is one layer. Each of the num_hidden_layers layers keeps keys "
    "and values of its own.",
    "bits": "That is bits. Eight bits are one byte.",
    "twice": "That is twice as much. In bf16 a number takes two bytes.",
    "one-token": "That is one token. Every token of the context is kept.",
    "unit": "Return bytes, not GB or GiB.",
    "hidden-size": "hidden_size does not tell how wide the heads are: each has "
    "head_dim places, whatever hidden_size is.",
    "product": "Which of the six factors is missing, or too many?",
}


def q3(seen: Seen, seed: int) -> Mistake | None:
    """Compare both caches with the product of six numbers."""
    texts = probes.contexts(seed)
    calls = [f"kv_cache({text.id}, {text.tokens})" for text in texts]
    if wrong := mistakes.of_calls(seen, calls):
        return wrong
    for text, shown, outcome in zip(texts, calls, seen, strict=True):
        pair = outcome["value"]
        if not mistakes.is_pair(pair):
            said = f"{shown} returned {pair!r}. Return two numbers of bytes: grouped, "
            return Mistake("no-pair", said + "ungrouped.")
        config = architecture.configuration(text.id)
        if wrong := _wrong_cache(config, text.tokens, pair, shown):
            return wrong
    return None


def _wrong_cache(
    config: Any, tokens: int, pair: list[float], shown: str
) -> Mistake | None:
    groups, heads = config.num_key_value_heads, config.num_attention_heads
    each = 2 * config.num_hidden_layers * config.head_dim * 2 * tokens
    right = [each * groups, each * heads]
    if pair == right:
        return None
    if pair == right[::-1]:
        text = "both numbers are right and in the wrong order: grouping keeps less."
        return Mistake("swapped", f"{shown}: {text}")
    if pair[0] == pair[1] == right[1]:
        text = "you counted the query heads for both. Queries are not kept; keys and "
        text += "values are, and num_key_value_heads counts them."
        return Mistake("query-heads", f"{shown}: {text}")
    if pair[0] == pair[1] == right[0]:
        text = "your second number is the first. Without grouping each query head has "
        text += "a key and a value of its own."
        return Mistake("same-heads", f"{shown}: {text}")
    which = int(pair[0] == right[0])
    value, expected = pair[which], right[which]
    said = f"{shown}: you have {value:,} where {expected:,} bytes are kept. "
    name = _factor(config, tokens, value / expected)
    return Mistake(name, said + CACHE[name])


def _factor(config: Any, tokens: int, ratio: float) -> str:
    """Return the name of the slip that makes the cache so many times as large."""
    hidden, place = config.hidden_size, config.head_dim
    factors = (
        (1 / 2, "half"),
        (1 / 4, "quarter"),
        (1 / config.num_hidden_layers, "one-layer"),
        (8, "bits"),
        (2, "twice"),
        (1 / tokens, "one-token"),
        (1 / memory.GIB, "unit"),
        (1e-9, "unit"),
        (hidden // config.num_attention_heads / place, "hidden-size"),
        (hidden / config.num_key_value_heads / place, "hidden-size"),
        (hidden / config.num_attention_heads / place, "hidden-size"),
    )
    named = (name for factor, name in factors if mistakes.close(ratio, factor))
    return next(named, "product")


# Question 4: mixtures

LOAD: Words = {
    "loads-active": "You load only what one token visits. The next token may go to "
    "other experts, so all of them must lie in memory.",
    "no-bytes": "That is the number of parameters; in bf16 each takes two bytes.",
    "bits": "That is bits. Eight bits are one byte.",
    "four-bytes": "In bf16 a parameter takes two bytes, not four.",
    "unit": "Return bytes, not GB or GiB.",
    "load": "Memory follows the total.",
}
WORK: Words = {
    "all-active": "You let every expert compute. The router sends a token to "
    "num_experts_per_tok of them.",
    "share-of-all": "You took the same share of all parameters. Only the experts take "
    "turns: attention and embeddings work for every token.",
    "idle": "Those are the parameters that wait, not those that work.",
    "one-layer": "You let experts wait in one layer. Each of the num_hidden_layers "
    "layers has experts of its own.",
    "experts-only": "Those are the experts alone. Attention, router, norms and "
    "embeddings work too.",
    "two-matrices": "An expert is a SwiGLU: three matrices, gate, up and down.",
    "dense-width": "An expert is moe_intermediate_size wide; intermediate_size is the "
    "width of a dense block.",
    "no-experts": "You let all experts wait. num_experts_per_tok of them work.",
    "bytes": "That is bytes, or operations. Return the number of parameters.",
    "billions": "Return the number itself, not billions.",
    "work": "Take from the total what the waiting experts have.",
}


def q4(seen: Seen, seed: int) -> Mistake | None:
    """Compare what is loaded and what is computed with."""
    calls = [f"mixture({id}, total)" for id in probes.MIXTURES]
    if wrong := mistakes.of_calls(seen, calls):
        return wrong
    for id, shown, outcome in zip(probes.MIXTURES, calls, seen, strict=True):
        pair = outcome["value"]
        if not mistakes.is_pair(pair):
            said = f"{shown} returned {pair!r}. Return two numbers: bytes to load, "
            return Mistake("no-pair", said + "parameters to compute with.")
        config = architecture.configuration(id)
        parts = architecture.count(config)
        loaded, active = pair
        if (active, loaded) == (2 * parts.total, parts.active):
            text = f"{shown}: both numbers are right and in the wrong order."
            return Mistake("swapped", text)
        if loaded != 2 * parts.total:
            said = f"{shown}: you load {loaded:,}; it is {2 * parts.total:,} bytes. "
            name = _nearest(loaded, _slips_of_load(parts)) or "load"
            return Mistake(name, said + LOAD[name])
        if active != parts.active:
            said = f"{shown}: you compute with {active:,} parameters; "
            said += f"it is {parts.active:,}. "
            name = _nearest(active, _slips_of_work(config, parts)) or "work"
            return Mistake(name, said + WORK[name])
    return None


def _nearest(value: float, slips: list[tuple[float, str]]) -> str | None:
    """Return the name of the slip that gives a value, within the rounding of it."""
    named = (name for wrong, name in slips if mistakes.close(value, wrong, 1e-3))
    return next(named, None)


def _slips_of_load(parts: architecture.Parts) -> list[tuple[float, str]]:
    return [
        (2 * parts.active, "loads-active"),
        (parts.active, "loads-active"),
        (parts.total, "no-bytes"),
        (16 * parts.total, "bits"),
        (4 * parts.total, "four-bytes"),
        (2 * parts.total / 1e9, "unit"),
        (2 * parts.total / memory.GIB, "unit"),
    ]


def _slips_of_work(config: Any, parts: architecture.Parts) -> list[tuple[float, str]]:
    layers, every = config.num_hidden_layers, config.num_experts
    visited = config.num_experts_per_tok
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    dense = 3 * config.hidden_size * config.intermediate_size
    return [
        (parts.total, "all-active"),
        (parts.total * visited / every, "share-of-all"),
        (parts.idle, "idle"),
        (parts.total - parts.idle / layers, "one-layer"),
        (layers * visited * expert, "experts-only"),
        (parts.total - parts.idle * 2 / 3, "two-matrices"),
        (parts.total - layers * (every - visited) * dense, "dense-width"),
        (parts.total - layers * every * expert, "no-experts"),
        (2 * parts.active, "bytes"),
        (parts.active / 1e9, "billions"),
    ]


# Question 5: four briefs


@dataclass(frozen=True)
class Brief:
    """What a customer needs; the exercise says the same in words."""

    memory_gib: int
    context: int
    least_billions: float
    most_active_billions: float = float("inf")
    licence: str | None = None
    thinking: bool | None = None
    modality: str | None = None

    @property
    def free_gib(self) -> float:
        """The GiB that the model may take; a tenth stays free."""
        return 0.9 * self.memory_gib


BRIEFS = {
    "kiosk": Brief(4, 4_096, 3, licence="Apache-2.0", thinking=False),
    "contracts": Brief(24, 100_000, 4),
    "proofs": Brief(24, 32_768, 30, most_active_billions=5, thinking=True),
    "receipts": Brief(16, 8_192, 4, licence="Apache-2.0", modality="image"),
}
CHATS = ("instruct", "hybrid", "thinking", "vl", "omni")
CHOICE: Words = {
    "unknown-licence": "has a licence that no source shows, and unknown is no "
    "permission.",
    "licence": "has the licence {licence}. It belongs to the checkpoint, not to the "
    "family, and what is sold needs one that allows it.",
    "base": "is a base checkpoint: it was not taught to answer.",
    "kind": 'is made for something else: its kind is "{kind}".',
    "never-thinks": "never thinks, and the brief wants thinking: look at the fact "
    "thinking.",
    "always-thinks": "always thinks first, and the visitor would wait for it.",
    "modality": "takes only {modalities}: it cannot see a photo.",
    "context": "reads at most {longest} tokens, even extended; the brief needs "
    "{context:,}.",
    "too-small": "has {billions:.1f} billion parameters; the brief asks for "
    "{least:g} at least.",
    "too-slow": "computes with {active:.1f} billion parameters a token, more than "
    "{most:g}. A mixture of experts is quicker.",
    "memory": "in {precision} needs {needed:.1f} GiB, and {room:.1f} are free. Take "
    "fewer bits, or fewer parameters.",
    "memory-active": "in {precision} needs {needed:.1f} GiB, and {room:.1f} are free. "
    "All {billions:.0f} billion parameters are loaded, however few compute.",
    "memory-cache": "in {precision} needs {needed:.1f} GiB, and {room:.1f} are free. "
    "The weights would fit; the KV cache of {context:,} tokens does not.",
    "weights-only": "needs {needed:.2f} GiB in {precision}, and you defend it with "
    "{said}. You left out KV cache and activations.",
    "gigabytes": "needs {needed:.2f} GiB in {precision}, and you defend it with "
    "{said}. A GiB has 2**30 bytes, not 10**9.",
    "not-defended": "needs {needed:.2f} GiB in {precision}, and you defend it with "
    "{said}. Compute it for the context of the brief.",
}


def q5(seen: Any, seed: int) -> Mistake | None:
    """Judge each choice by its properties; the first that fails gives the name."""
    if not isinstance(seen, dict):
        text = f"Your answer is {seen!r}. Give a dict: brief -> (model, precision, GiB)"
        return Mistake("no-dict", f"{text}.")
    failed = {name: _failing(brief, seen.get(name)) for name, brief in BRIEFS.items()}
    found = {name: mistake for name, mistake in failed.items() if mistake}
    if not found:
        return None
    lines = [f"{name}: {mistake.text}" for name, mistake in found.items()]
    return Mistake(next(iter(found.values())).name, "\n".join(lines))


def _failing(brief: Brief, choice: Any) -> Mistake | None:
    """Return the first need of a brief that a choice does not meet."""
    if choice is None:
        return Mistake("missing-brief", "there is no choice for this brief yet.")
    if not isinstance(choice, list) or len(choice) != 3:
        return Mistake("odd-choice", f"give (model, precision, GiB), not {choice!r}.")
    model, precision, said = choice
    try:
        item = catalog.get(model)
        prompt = min(brief.context, 8_192)
        size = memory.estimate(item, precision, brief.context, prompt=prompt)
    except ValueError as error:
        return Mistake("unknown-model", str(error))
    name = (
        _wrong_kind(brief, item)
        or _wrong_size(brief, item)
        or _wrong_fit(brief, item, size)
        or _wrong_number(size, said)
    )
    if name is None:
        return None
    longest = _longest(item)
    words = CHOICE[name].format(
        licence=item.licence_name,
        kind=item.kind,
        modalities=", ".join(item.modalities),
        longest=f"{longest:,}" if longest else "an unknown number of",
        context=brief.context,
        billions=item.total_parameters / 1e9,
        least=brief.least_billions,
        active=item.active_parameters / 1e9,
        most=brief.most_active_billions,
        precision=precision,
        needed=size.total / memory.GIB,
        room=brief.free_gib,
        said=f"{said:.3g}" if mistakes.is_number(said) else repr(said),
    )
    return Mistake(name, f"{item.name} {words}")


def _longest(item: Checkpoint) -> int:
    return item.extended_context_tokens or item.native_context_tokens or 0


def _wrong_kind(brief: Brief, item: Checkpoint) -> str | None:
    """Return the mistake in licence, kind, thinking or modality."""
    if brief.licence and item.licence != brief.licence:
        return "licence" if item.licence else "unknown-licence"
    if item.is_base:
        return "base"
    if item.kind not in CHATS:
        return "kind"
    if brief.thinking is True and item.thinking == "none":
        return "never-thinks"
    if brief.thinking is False and item.thinking == "only":
        return "always-thinks"
    if brief.modality and brief.modality not in item.modalities:
        return "modality"
    return None


def _wrong_size(brief: Brief, item: Checkpoint) -> str | None:
    """Return the mistake in the context or in the number of parameters."""
    if _longest(item) < brief.context:
        return "context"
    if item.total_parameters < brief.least_billions * 1e9:
        return "too-small"
    if item.active_parameters > brief.most_active_billions * 1e9:
        return "too-slow"
    return None


def _wrong_fit(brief: Brief, item: Checkpoint, size: memory.Estimate) -> str | None:
    """Return why it does not fit into the memory."""
    room = brief.free_gib * memory.GIB
    if size.total <= room:
        return None
    if size.weights <= room:
        return "memory-cache"
    return "memory-active" if item.is_moe else "memory"


def _wrong_number(size: memory.Estimate, said: Any) -> str | None:
    """Return what is wrong with the GiB that shall defend a choice."""
    if mistakes.close(said, size.total / memory.GIB, 0.02):
        return None
    if mistakes.close(said, size.weights / memory.GIB, 0.02):
        return "weights-only"
    if mistakes.close(said, size.total / 1e9, 0.02):
        return "gigabytes"
    return "not-defended"


# Question 6: a published table

TABLE: Words = {
    "no-such-cell": "the table has no such cell.",
    "lists-all": "you list it, and the table is right. List the wrong cells only.",
    "extended": "you say {value!r}. That length needs an extension such as YaRN; the "
    "column says what a model reads as it comes.",
    "wrong-context": "you say {value!r}. Take the largest native_context_tokens.",
    "text-order": "you say {value!r}. Sizes are numbers; as texts they are sorted by "
    'letters, and "7B" comes after "72B".',
    "wrong-size": "you say {value!r}. Take size_label of the smallest and the largest.",
    "counts-base": "you say {value!r}. That counts base checkpoints, which do not "
    "answer: leave out those with is_base.",
    "first-only": "you say {value!r}, and that holds for some of its checkpoints only: "
    "look at every one, not at the first.",
    "wrong-licence": "you say {value!r}. Join the licences of all its checkpoints.",
    "wrong-thinking": "you say {value!r}. Join the facts of all that answer.",
    "misses-licence": "{value!r} is wrong, and you do not list it. A licence belongs "
    "to a checkpoint: look at every one, not at the first.",
    "misses-thinking": "{value!r} is wrong, and you do not list it. A hybrid is *one* "
    "model that can do both; here some never think and others always do.",
    "misses-context": "{value!r} is wrong, and you do not list it. What a model reads "
    "as it comes is native_context_tokens.",
    "misses-smallest": "{value!r} is wrong, and you do not list it. Order the "
    "checkpoints by total_parameters.",
    "misses-largest": "{value!r} is wrong, and you do not list it. The largest is the "
    "one with the most parameters in total, mixtures too.",
    "hard-coded": "Right for the table shown, and you return the same cells for "
    "another table. Compute each cell from the catalogue, so that the check works for "
    "the next table too.",
}


def q6(seen: Seen, seed: int) -> Mistake | None:
    """Compare each cell with the catalogue."""
    tables = probes.tables(seed)
    calls = ["wrong_cells(claims)", *["wrong_cells(another table)"] * 2]
    if wrong := mistakes.of_calls(seen, calls):
        return wrong
    reports = [_report(outcome["value"]) for outcome in seen]
    for claims, report, shown in zip(tables, reports, calls, strict=True):
        if report is None:
            text = f"{shown} must return a list of (series, column, right value)."
            return Mistake("form", text)
        wrong = _wrong_report(claims, report, shown)
        if wrong and claims is not tables[0] and report and report == reports[0]:
            return Mistake("hard-coded", TABLE["hard-coded"])
        if wrong:
            return wrong
    return None


def _report(value: Any) -> dict[tuple[str, str], Any] | None:
    """Read what was returned as (series, column) -> value; None if that can't be."""
    if isinstance(value, dict):  # series -> column -> value
        if not all(isinstance(row, dict) for row in value.values()):
            return None
        return {(s, c): cell for s, row in value.items() for c, cell in row.items()}
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, list) and len(row) == 3 for row in rows):
        return None
    return {(str(series), str(column)): cell for series, column, cell in rows}


def _answering(series: str) -> list[Checkpoint]:
    """Return the checkpoints of a series that answer, the smallest first."""
    found = [c for c in catalog.models(series=series) if not c.is_base]
    return sorted(found, key=lambda c: c.total_parameters)


def _values(items: list[Checkpoint], column: str) -> list[str]:
    return sorted({getattr(item, column) or "unknown" for item in items})


def _truth(series: str, column: str) -> Any:
    """Return what the catalogue has for a cell of a comparison table."""
    found = _answering(series)
    if column in ("smallest", "largest"):
        return found[0 if column == "smallest" else -1].size_label
    if column == "context":
        return max(c.native_context_tokens or 0 for c in found)
    return ", ".join(_values(found, column))


def _same(value: Any, expected: Any) -> bool:
    """Return whether a cell says the same: in any order, in any letter case."""
    if mistakes.is_number(expected) or mistakes.is_number(value):
        return value == expected
    texts = [one if isinstance(one, list) else [one] for one in (value, expected)]
    words, wanted = (
        {part.strip().lower() for one in text for part in str(one).split(",")}
        for text in texts
    )
    return words == wanted


def _wrong_report(
    claims: probes.Claims, report: dict[tuple[str, str], Any], shown: str
) -> Mistake | None:
    """Look at the cells called wrong first, then for those that were missed."""
    for (series, column), value in report.items():
        if column not in claims.get(series, {}):
            name = "no-such-cell"
        elif not _same(value, _truth(series, column)):
            name = _wrong_cell(series, column, value)
        elif _same(claims[series][column], value):
            name = "lists-all"
        else:
            continue
        return _about_cell(name, series, column, value, shown)
    for series, row in claims.items():
        for column, claimed in row.items():
            found = (series, column) in report
            if not found and not _same(claimed, _truth(series, column)):
                name = f"misses-{column}"
                return _about_cell(name, series, column, claimed, shown)
    return None


def _wrong_cell(series: str, column: str, value: Any) -> str:
    """Name what led to a wrong value."""
    found = _answering(series)
    if column == "context":
        extended = value in [c.extended_context_tokens for c in found]
        return "extended" if extended else "wrong-context"
    if column in ("smallest", "largest"):
        exists = any(_same(value, c.size_label) for c in found)
        return "text-order" if exists else "wrong-size"
    everyone = _values(list(catalog.models(series=series)), column)
    if everyone != _values(found, column) and _same(value, everyone):
        return "counts-base"
    if value in _values(found, column):
        return "first-only"
    return f"wrong-{column}"


def _about_cell(name: str, series: str, column: str, value: Any, shown: str) -> Mistake:
    """Put a mistake in words, with the source of the right value."""
    text = f"{shown}, {series}, {column}: {TABLE[name].format(value=value)}"
    if name == "no-such-cell":
        return Mistake(name, text)
    found = _answering(series)
    item = found[-1] if column == "largest" else found[0]
    if column in ("licence", "thinking"):  # the one that a hasty look overlooks
        first = getattr(item, column)
        item = next((c for c in found if getattr(c, column) != first), item)
    return Mistake(name, f"{text} (Source for {item.name}: {item.sources[0]}.)")


# Question 7: attention

ATTENTION: Words = {
    "changes-input": "changed a tensor it was given. Whoever calls it still needs it: "
    "write q = q / 2, not q /= 2.",
    "nan": "has nan in it: a row where all is masked has nothing to share out. A token "
    "looks at itself too, so mask only what comes after it.",
    "no-tensor": "returned no tensor of numbers.",
    "transposed": "has the right numbers, with tokens and heads in each other's place. "
    "Return (batch, heads, tokens, head_dim).",
    "shape": "returned the shape {shape}, and {due} is due: a row for each query.",
    "tiled": "lets query heads meet the wrong keys. `repeat` lays all key heads one "
    "after the other (0 1 0 1), a group wants neighbours (0 0 1 1): repeat_interleave.",
    "tiled-values": "repeats keys and values in different orders.",
    "no-scale": "does not divide the scores by the root of head_dim, so softmax gives "
    "nearly all to one token.",
    "no-root": "divides the scores by head_dim, not by its root.",
    "wrong-width": "divides by the root of the width of all heads. Each head works "
    "alone: take head_dim.",
    "no-mask": "lets a token look ahead. Mask what comes after it, before softmax.",
    "past-masked": "has its mask upside down: a token sees only itself and what comes "
    "after it.",
    "wrong-axis": "lets softmax run over the queries. The shares of each row, over the "
    "keys, must sum to 1.",
    "mask-after": "masks the future after softmax, so the shares of a row no longer "
    "sum to 1. Mask the scores, with -inf.",
    "zero-mask": "sets masked scores to 0, and 0 gets its share in a softmax like any "
    "other score. Use -inf.",
    "attention": "is off by up to {off:.2g}. Compare step by step: repeat, scores, "
    "scale, mask, softmax, values.",
}


def q7(seen: Seen, seed: int) -> Mistake | None:
    """Compare with PyTorch's own attention, and else with the usual slips."""
    for sizes, outcome in zip(probes.SIZES, seen, strict=True):
        shown = f"attend with {sizes.heads} query and {sizes.groups} key heads"
        if outcome["changed"] and not outcome["error"]:
            text = f"{shown} {ATTENTION['changes-input']}"
            return Mistake("changes-input", text)
        if wrong := mistakes.of_call(outcome, shown):
            return wrong
        given = probes.heads(sizes, seed)
        if found := _wrong_attention(outcome["value"], given):
            name, facts = found
            text = f"{shown} {ATTENTION[name].format(**facts)}"
            return Mistake(name, text)
    return None


def _wrong_attention(value: Any, given: probes.Heads) -> Found:
    import torch

    right = torch.nn.functional.scaled_dot_product_attention(
        *given, is_causal=True, enable_gqa=True
    )
    if "nan" in str(value):
        return "nan", {}
    try:
        mixed = torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError):
        return "no-tensor", {}
    if _alike(mixed, right):
        return None
    if _alike(mixed, right.transpose(1, 2)):
        return "transposed", {}
    if mixed.shape != right.shape:
        return "shape", {"shape": tuple(mixed.shape), "due": tuple(right.shape)}
    for name, wrong in _slips_of_attention(*given):
        if _alike(mixed, wrong):
            return name, {}
    return "attention", {"off": (mixed - right).abs().max().item()}


def _alike(one: Any, other: Any) -> bool:
    import torch

    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4)


def _slips_of_attention(q: Any, k: Any, v: Any) -> Iterator[tuple[str, Any]]:
    """Yield what comes out of the usual slips, each with its name."""
    group, root = q.shape[1] // k.shape[1], q.shape[-1] ** 0.5
    future = q.new_ones(q.shape[2], q.shape[2]).triu(1).bool()
    keys, values = (one.repeat_interleave(group, dim=1) for one in (k, v))
    tiled_keys, tiled_values = (one.repeat(1, group, 1, 1) for one in (k, v))

    def share(keys: Any, scale: float, hidden: Any = future, axis: int = -1) -> Any:
        scores = q @ keys.transpose(2, 3) / scale
        return scores.masked_fill(hidden, float("-inf")).softmax(dim=axis)

    if group > 1:
        yield "tiled", share(tiled_keys, root) @ tiled_values
        yield "tiled-values", share(keys, root) @ tiled_values
        yield "tiled-values", share(tiled_keys, root) @ values
    yield "no-scale", share(keys, 1) @ values
    yield "no-root", share(keys, root**2) @ values
    yield "wrong-width", share(keys, root * q.shape[1] ** 0.5) @ values
    open_shares = share(keys, root, future & False)
    yield "no-mask", open_shares @ values
    yield "past-masked", share(keys, root, future.T) @ values
    yield "wrong-axis", share(keys, root, axis=-2) @ values
    yield "mask-after", open_shares.masked_fill(future, 0) @ values
    scores = (q @ keys.transpose(2, 3) / root).masked_fill(future, 0)
    yield "zero-mask", scores.softmax(dim=-1) @ values


def _look(heading: str) -> tuple[str, str]:
    return heading, "01_family.ipynb#" + heading.replace(" ", "-")


QUESTIONS = (
    Question(
        id="01.q1",
        title="Count the parameters of Qwen3-8B",
        outcome=1,
        difficulty="warm-up",
        minutes=10,
        judge=q1,
        hints=(
            "Count one layer first: four matrices of the attention, three of SwiGLU, "
            "and its norms. Then multiply by the number of layers.",
            "Queries have num_attention_heads * head_dim columns, keys and values "
            "num_key_value_heads * head_dim. With tied embeddings there is one "
            "vocabulary matrix, without there are two.",
        ),
        look=_look("3. Counting parameters"),
        why="Whoever can count a model from its configuration knows what it needs "
        "before downloading a byte.",
    ),
    Question(
        id="01.q2",
        title="Find what fits your laptop",
        outcome=2,
        difficulty="warm-up",
        minutes=8,
        judge=q2,
        hints=(
            'Print one entry, qc.catalog.get("Qwen3-8B"): which of its facts tell the '
            "licence, the kind, and whether it is a mixture?",
            'Loop over qc.catalog.models(licence="Apache-2.0"), keep the two kinds '
            "that chat, leave out is_moe, and compare the total of "
            "qc.memory.estimate with memory_gib * 2**30.",
        ),
        look=_look("8. Choosing a model"),
        why="A list made by a program from dated facts can be made again when the next "
        "model appears; one kept in the head cannot.",
    ),
    Question(
        id="01.q3",
        title="The KV cache, grouped and ungrouped",
        outcome=1,
        difficulty="core",
        minutes=10,
        judge=q3,
        hints=(
            "What does one layer keep of one token? Two rows for each of a few heads.",
            "Six factors: two for key and value, layers, heads, places in a head, "
            "bytes of a number, tokens. Only the heads differ between the two results.",
        ),
        look=_look("7. How much memory?"),
        why="In a long context the cache, not the weights, decides how many users a "
        "GPU serves; grouping divides it by the size of a group.",
    ),
    Question(
        id="01.q4",
        title="What a mixture loads and what it computes with",
        outcome=5,
        difficulty="core",
        minutes=10,
        judge=q4,
        hints=(
            "Which parameters wait while a token passes? Count those; all others work.",
            "An expert has three matrices of hidden_size times moe_intermediate_size. "
            "In every layer num_experts - num_experts_per_tok experts wait.",
        ),
        look=_look("4. Mixture of experts"),
        why="Memory follows the total, speed the active parameters: a mixture buys "
        "speed with memory.",
    ),
    Question(
        id="01.q5",
        title="Choose for four briefs, and defend it",
        outcome=2,
        difficulty="core",
        minutes=15,
        judge=q5,
        hints=(
            "Turn each brief into needs first: licence, context, thinking, modality, "
            "sizes. qc.catalog.recommend takes most of them, and its ruled_out says "
            "what a candidate fails.",
            "Try a candidate in bf16, int8 and nf4 with gib_needed and the context of "
            "the brief, and take one that stays below nine tenths of the memory.",
        ),
        look=_look("8. Choosing a model"),
        why="A choice with its numbers can be checked by somebody else, and made again "
        "when the needs change.",
    ),
    Question(
        id="01.q6",
        title="Find the errors in a published table",
        outcome=1,
        difficulty="stretch",
        minutes=20,
        judge=q6,
        hints=(
            "Make the true row of one series first, from those of its checkpoints that "
            "are no base ones, and print it beside the claim.",
            "Sort by total_parameters and take size_label of the first and the last; "
            "for licence and thinking join the sorted set of all values. Then compare "
            "column by column.",
        ),
        look=_look("9. Find the errors"),
        why="Tables are copied, and grow old. A check against dated facts finds their "
        "errors, and those of the next table too.",
    ),
    Question(
        id="01.q7",
        title="Grouped-query attention by hand",
        outcome=1,
        difficulty="stretch",
        minutes=15,
        judge=q7,
        hints=(
            "Give each query head the key head of its group first: then all three have "
            "the same shape, and it is ordinary attention.",
            "repeat_interleave over the heads; q times k transposed, divided by the "
            "root of head_dim; -inf above the diagonal; softmax over the last "
            "dimension; times v.",
        ),
        look=_look("The scores, and the sum"),
        why="Every Qwen since Qwen2 runs these lines for each token; fast kernels "
        "compute the same, only quicker.",
    ),
)
