"""Right and wrong answers to the exercises of lesson 01."""

import copy
import math
from typing import Any

import numpy
import torch

from qwen_course import architecture, catalog, memory

# Question 1: parameters


def count_parameters(config: Any) -> int:
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = 2 * config.hidden_size * (queries + keys) + 2 * config.head_dim
    feed_forward = 3 * config.hidden_size * config.intermediate_size
    layer = attention + feed_forward + 2 * config.hidden_size
    tables = (1 if config.tie_word_embeddings else 2) * config.vocab_size
    last_norm = config.hidden_size
    layers = config.num_hidden_layers * layer
    return tables * config.hidden_size + layers + last_norm


def count_built(config: Any) -> int:
    return architecture.build(config).num_parameters()


def count_matrices(config: Any) -> torch.Tensor:
    width, place = config.hidden_size, config.head_dim
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    shapes = [(width, heads * place)] * 2 + [(width, groups * place)] * 2
    shapes += [(width, config.intermediate_size)] * 3
    shapes += [(width,), (width,), (place,), (place,)]
    shapes *= config.num_hidden_layers
    shapes += [(config.vocab_size, width)] * (2 - config.tie_word_embeddings)
    return torch.tensor([math.prod(shape) for shape in [*shapes, (width,)]]).sum()


def count_off(**change: Any) -> Any:
    """Return a count that is wrong by a number made of the configuration."""

    def count(config: Any) -> int:
        return count_parameters(config) + sum(f(config) for f in change.values())

    return count


def count_every_head(config: Any) -> int:
    config = copy.deepcopy(config)
    config.num_key_value_heads = config.num_attention_heads
    return count_parameters(config)


def count_square(config: Any) -> int:
    config = copy.deepcopy(config)
    config.head_dim = config.hidden_size // config.num_attention_heads
    return count_parameters(config)


def count_one_layer(config: Any) -> int:
    config = copy.deepcopy(config)
    config.num_hidden_layers = 1
    return count_parameters(config)


def qk_norm(config: Any) -> int:
    return -2 * config.head_dim * config.num_hidden_layers


def norms(config: Any) -> int:
    return -config.hidden_size * (2 * config.num_hidden_layers + 1)


def two_matrices(config: Any) -> int:
    return -config.hidden_size * config.intermediate_size * config.num_hidden_layers


def once(config: Any) -> int:
    size = config.vocab_size * config.hidden_size
    return 0 if config.tie_word_embeddings else -size


def twice(config: Any) -> int:
    return config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0


# Question 2: a search in the catalogue


def laptop_models(memory_gib: float) -> list[str]:
    found = []
    for item in catalog.models(licence="Apache-2.0"):
        if item.kind in ("instruct", "hybrid") and not item.is_moe:
            size = memory.estimate(item, "nf4", context=4096)
            if size.total <= memory_gib * 2**30:
                found.append(item.name)
    return found


def laptop_entries(memory_gib: float) -> Any:
    return {item for item in catalog.models() if item.name in laptop_models(memory_gib)}


def laptop_ids(memory_gib: float) -> Any:
    found = catalog.models(kind="hybrid") + catalog.models(kind="instruct")
    found = [item for item in found if item.licence == "Apache-2.0"]
    found = [item for item in found if item.published_active_billions is None]
    return tuple(
        item.id
        for item in found
        if memory.estimate(item.id, "nf4").total / memory.GIB <= memory_gib
    )


def search(
    keep: Any = lambda item: True,
    kinds: tuple[str, ...] = ("instruct", "hybrid"),
    licences: tuple[Any, ...] = ("Apache-2.0",),
    mixtures: bool = False,
    precision: str = "nf4",
    part: str = "total",
) -> Any:
    """Return a search that goes wrong in one of its conditions."""

    def found(memory_gib: float) -> list[str]:
        names = []
        for item in catalog.models():
            suits = item.kind in kinds and item.licence in licences and keep(item)
            if suits and (mixtures or not item.is_moe):
                try:
                    size = memory.estimate(item, precision, context=4096)
                except ValueError:
                    continue
                if getattr(size, part) <= memory_gib * 2**30:
                    names.append(item.name)
        return names

    return found


def recommended(memory_gib: float) -> list[str]:
    found = catalog.recommend("chat", memory_gib, licence="Apache-2.0")
    return [c.checkpoint.name for c in found if not c.checkpoint.is_moe]


# Question 3: the KV cache


def kv_cache(config: Any, tokens: int) -> tuple[int, int]:
    each = 2 * config.num_hidden_layers * config.head_dim * 2 * tokens
    return each * config.num_key_value_heads, each * config.num_attention_heads


def kv_cache_array(config: Any, tokens: int) -> Any:
    heads = numpy.array([config.num_key_value_heads, config.num_attention_heads])
    return heads * numpy.int64(4 * tokens) * config.head_dim * config.num_hidden_layers


def kv_cache_summed(config: Any, tokens: int) -> list[float]:
    totals = [0.0, 0.0]
    for _ in range(config.num_hidden_layers):
        for _row in ("key", "value"):
            for place, name in enumerate(
                ("num_key_value_heads", "num_attention_heads")
            ):
                totals[place] += (
                    getattr(config, name) * config.head_dim * tokens * 16 / 8
                )
    return totals


def kv_times(factor: Any) -> Any:
    """Return a cache that is wrong by a factor made of configuration and tokens."""
    return lambda c, tokens: [size * factor(c, tokens) for size in kv_cache(c, tokens)]


# Question 4: mixtures


def idle(config: Any) -> int:
    waiting = config.num_experts - config.num_experts_per_tok
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    return config.num_hidden_layers * waiting * expert


def mixture(config: Any, total: int) -> tuple[int, int]:
    return 2 * total, total - idle(config)


def mixture_counted(config: Any, total: int) -> Any:
    parts = architecture.count(config)
    return [parts.total * 16 / 8, float(parts.active)]


def mixture_built(config: Any, total: int) -> Any:
    small = architecture.configuration("Qwen3-30B-A3B")
    for name in vars(config):
        setattr(small, name, getattr(config, name))
    small.num_experts = config.num_experts_per_tok
    # The router keeps a row for each expert.
    rows = config.num_experts - config.num_experts_per_tok
    router = rows * config.hidden_size * config.num_hidden_layers
    active = architecture.build(small).num_parameters() + router
    return numpy.array([total * 2, active])


def active(config: Any, total: int) -> int:
    return total - idle(config)


# Question 5: four briefs


def gib_needed(model: str, precision: str, context: int) -> float:
    prompt = min(context, 8192)
    return memory.estimate(model, precision, context, prompt=prompt).total / 2**30


CONTEXT = {"kiosk": 4096, "contracts": 100_000, "proofs": 32_768, "receipts": 8192}


def choices(number: Any = gib_needed, **models: tuple[str, str]) -> dict[str, Any]:
    """Return right choices, but for those given."""
    chosen = {
        "kiosk": ("Qwen3-4B", "nf4"),
        "contracts": ("Qwen3.5-9B", "int8"),
        "proofs": ("Qwen3-30B-A3B", "nf4"),
        "receipts": ("Qwen3.5-4B", "bf16"),
    } | models
    return {
        brief: (model, precision, number(model, precision, CONTEXT[brief]))
        for brief, (model, precision) in chosen.items()
    }


def without(brief: str) -> dict[str, Any]:
    return {name: choice for name, choice in choices().items() if name != brief}


# Question 6: a published table


def true_row(series: str, base: bool = False) -> dict[str, Any]:
    found = [item for item in catalog.models(series=series) if base or not item.is_base]
    found = sorted(found, key=lambda item: item.total_parameters)
    return {
        "smallest": found[0].size_label,
        "largest": found[-1].size_label,
        "context": max(item.native_context_tokens or 0 for item in found),
        "licence": ", ".join(sorted({item.licence or "unknown" for item in found})),
        "thinking": ", ".join(sorted({item.thinking for item in found})),
    }


def wrong_cells(claims: Any) -> list[tuple[str, str, Any]]:
    return [
        (series, column, true_row(series)[column])
        for series, row in claims.items()
        for column, claimed in row.items()
        if claimed != true_row(series)[column]
    ]


def wrong_nested(claims: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for series, column, right in wrong_cells(claims):
        found.setdefault(series, {})[column] = right
    return found


def wrong_as_sets(claims: Any) -> Any:
    rows = []
    for series, column, right in reversed(wrong_cells(claims)):
        several = column in ("licence", "thinking")
        rows.append([series, column, set(right.split(", ")) if several else right])
    return tuple(rows)


def table_with(row: Any) -> Any:
    """Return a check whose true rows are wrong."""
    return lambda claims: [
        (series, column, row(series)[column])
        for series, cells in claims.items()
        for column, claimed in cells.items()
        if claimed != row(series)[column]
    ]


def first_only(series: str) -> dict[str, Any]:
    return true_row(series) | {"licence": catalog.models(series=series)[0].licence}


def text_order(series: str) -> dict[str, Any]:
    labels = [item.size_label for item in catalog.models(series=series)]
    return true_row(series) | {"smallest": min(labels), "largest": max(labels)}


def extended(series: str) -> dict[str, Any]:
    found = catalog.models(series=series)
    spans = [c.extended_context_tokens or c.native_context_tokens or 0 for c in found]
    return true_row(series) | {"context": max(spans)}


def one_thinking(series: str) -> dict[str, Any]:
    row = true_row(series)
    return row | {"thinking": row["thinking"].replace("none, only", "hybrid")}


def published_errors(claims: Any) -> list[tuple[str, str, Any]]:
    return [
        ("Qwen2.5", "licence", "Apache-2.0, Qwen, Qwen-Research"),
        ("Qwen2.5-Math", "context", 4096),
        ("Qwen3-2507", "thinking", "none, only"),
    ]


def every_cell(claims: Any) -> list[tuple[str, str, Any]]:
    return [(s, column, true_row(s)[column]) for s in claims for column in claims[s]]


def corrected_in_place(claims: Any) -> Any:
    found = wrong_cells(claims)
    for series, column, right in found:
        claims[series][column] = right
    return found


# Question 7: attention


def attend(
    q: Any,
    k: Any,
    v: Any,
    repeat: Any = lambda heads, group: heads.repeat_interleave(group, dim=1),
    scale: Any = lambda q: q.shape[-1] ** 0.5,
    hide: Any = lambda future: future,
    axis: int = -1,
) -> Any:
    group = q.shape[1] // k.shape[1]
    k, v = repeat(k, group), repeat(v, group)
    future = torch.ones(q.shape[2], q.shape[2]).triu(1).bool()
    scores = q @ k.transpose(2, 3) / scale(q)
    return scores.masked_fill(hide(future), float("-inf")).softmax(dim=axis) @ v


def attend_by_torch(q: Any, k: Any, v: Any) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )


def attend_in_loops(q: Any, k: Any, v: Any) -> Any:
    q, k, v = (numpy.asarray(heads, dtype=float) for heads in (q, k, v))
    mixed = numpy.zeros_like(q)
    for b, h, t in numpy.ndindex(*q.shape[:3]):
        g = h // (q.shape[1] // k.shape[1])
        shares = numpy.exp(k[b, g, : t + 1] @ q[b, h, t] / math.sqrt(q.shape[3]))
        mixed[b, h, t] = shares @ v[b, g, : t + 1] / shares.sum()
    return mixed


def attend_in_groups(q: Any, k: Any, v: Any) -> Any:
    batch, heads, tokens, place = q.shape
    q = q.reshape(batch, k.shape[1], -1, tokens, place).clone().requires_grad_()
    scores = torch.einsum("bghtd,bgsd->bghts", q, k) * place**-0.5
    scores = scores + torch.full((tokens, tokens), -1e9).triu(1)
    mixed = torch.einsum("bghts,bgsd->bghtd", torch.softmax(scores, -1), v)
    return mixed.reshape(batch, heads, tokens, place)


def attend_changing(q: Any, k: Any, v: Any) -> Any:
    q *= q.shape[-1] ** -0.5
    return attend(q, k, v, scale=lambda q: 1)


def attend_masked_after(q: Any, k: Any, v: Any) -> Any:
    group = q.shape[1] // k.shape[1]
    k, v = (heads.repeat_interleave(group, dim=1) for heads in (k, v))
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril() @ v


def attend_masked_with_zero(q: Any, k: Any, v: Any) -> Any:
    group = q.shape[1] // k.shape[1]
    k, v = (heads.repeat_interleave(group, dim=1) for heads in (k, v))
    return (q @ k.mT / q.shape[-1] ** 0.5).tril().softmax(-1) @ v


def tile(heads: Any, group: int) -> Any:
    return heads.repeat(1, group, 1, 1)


RIGHT: dict[str, list[Any]] = {
    "01.q1": [count_parameters, count_built, count_matrices],
    "01.q2": [laptop_models, laptop_entries, laptop_ids],
    "01.q3": [kv_cache, kv_cache_array, kv_cache_summed],
    "01.q4": [mixture, mixture_counted, mixture_built],
    "01.q5": [
        choices(),
        choices(
            kiosk=("qwen/qwen3-4b-instruct-2507", "nf4"),
            contracts=("Qwen2.5-7B-Instruct-1M", "bf16"),
            proofs=("Qwen/Qwen3-30B-A3B-Thinking-2507", "nf4"),
            receipts=("Qwen2-VL-7B-Instruct", "int8"),
        ),
        choices(
            lambda *needs: round(gib_needed(*needs), 1),
            kiosk=("Qwen3.5-4B", "nf4"),
            contracts=("Qwen3-4B", "int8"),
            proofs=("Qwen3.6-35B-A3B", "nf4"),
            receipts=("Qwen3.5-9B", "nf4"),
        ),
    ],
    "01.q6": [wrong_cells, wrong_nested, wrong_as_sets],
    "01.q7": [attend, attend_by_torch, attend_in_loops, attend_in_groups],
}

WRONG: dict[str, dict[str, Any]] = {
    "01.q1": {
        "every-head": count_every_head,
        "tied": count_off(a=twice),
        "untied": count_off(a=once),
        "qk-norm": count_off(a=qk_norm),
        "norms": count_off(a=norms, b=qk_norm),
        "last-norm": count_off(a=lambda c: -c.hidden_size, b=two_matrices),
        "two-matrices": count_off(a=two_matrices),
        "hidden-size": count_square,
        "one-layer": count_one_layer,
        "one-model": lambda config: 8_190_735_361,
        "billions": lambda config: round(count_parameters(config) / 1e9, 2),
        "no-number": lambda config: f"{count_parameters(config):,}",
        "count": count_off(a=lambda c: 17),
        "raises": lambda config: config.number_of_layers,
        "returns-none": lambda config: None,
    },
    "01.q2": {
        "other-licence": search(licences=("Apache-2.0", "Qwen-Research", "Qwen")),
        "unknown-licence": search(licences=("Apache-2.0", None)),
        "counts-base": search(kinds=("instruct", "hybrid", "base")),
        "other-kind": search(kinds=("instruct", "hybrid", "coder", "vl")),
        "counts-mixtures": search(mixtures=True),
        "forgets-hybrids": search(kinds=("instruct",)),
        "weights-only": search(part="weights"),
        "gigabytes": recommended,
        "other-precision": search(precision="bf16"),
        "too-large": search(part="kv_cache"),
        "misses": search(lambda item: item.generation == "3"),
        "empty": lambda gib: [],
        "unknown-name": lambda gib: ["Qwen3-9B"],
        "no-list": lambda gib: "Qwen3-8B",
    },
    "01.q3": {
        "query-heads": lambda c, tokens: [kv_cache(c, tokens)[1]] * 2,
        "same-heads": lambda c, tokens: [kv_cache(c, tokens)[0]] * 2,
        "swapped": lambda c, tokens: kv_cache(c, tokens)[::-1],
        "half": kv_times(lambda c, tokens: 1 / 2),
        "quarter": kv_times(lambda c, tokens: 1 / 4),
        "one-layer": kv_times(lambda c, tokens: 1 / c.num_hidden_layers),
        "bits": kv_times(lambda c, tokens: 8),
        "twice": kv_times(lambda c, tokens: 2),
        "one-token": kv_times(lambda c, tokens: 1 / tokens),
        "unit": kv_times(lambda c, tokens: 2**-30),
        "hidden-size": kv_times(
            lambda c, tokens: c.hidden_size / c.num_attention_heads / c.head_dim
        ),
        "product": kv_times(lambda c, tokens: 3),
        "no-pair": lambda c, tokens: kv_cache(c, tokens)[0],
    },
    "01.q4": {
        "loads-active": lambda c, total: (2 * active(c, total), active(c, total)),
        "no-bytes": lambda c, total: (total, active(c, total)),
        "unit": lambda c, total: (2 * total / 1e9, active(c, total)),
        "four-bytes": lambda c, total: (4 * total, active(c, total)),
        "all-active": lambda c, total: (2 * total, total),
        "share-of-all": lambda c, total: (2 * total, total * 8 / c.num_experts),
        "idle": lambda c, total: (2 * total, idle(c)),
        "one-layer": lambda c, total: (
            2 * total,
            total - idle(c) / c.num_hidden_layers,
        ),
        "two-matrices": lambda c, total: (2 * total, total - idle(c) * 2 // 3),
        "dense-width": lambda c, total: (
            2 * total,
            total - idle(c) * c.intermediate_size // c.moe_intermediate_size,
        ),
        "experts-only": lambda c, total: (
            2 * total,
            idle(c) * c.num_experts_per_tok // (c.num_experts - c.num_experts_per_tok),
        ),
        "bytes": lambda c, total: (2 * total, 2 * active(c, total)),
        "billions": lambda c, total: (2 * total, active(c, total) / 1e9),
        "swapped": lambda c, total: mixture(c, total)[::-1],
        "no-pair": lambda c, total: 2 * total,
    },
    "01.q5": {
        "licence": choices(kiosk=("Qwen2.5-3B-Instruct", "nf4")),
        "unknown-licence": choices(receipts=("Qwen3-VL-8B-Instruct", "nf4")),
        "base": choices(kiosk=("Qwen3-4B-Base", "nf4")),
        "kind": choices(contracts=("Qwen2.5-Coder-7B-Instruct", "nf4")),
        "never-thinks": choices(proofs=("Qwen3-30B-A3B-Instruct-2507", "nf4")),
        "always-thinks": choices(kiosk=("Qwen3-4B-Thinking-2507", "nf4")),
        "modality": choices(receipts=("Qwen3-8B", "nf4")),
        "context": choices(contracts=("Qwen2.5-Math-7B-Instruct", "nf4"))
        | choices(contracts=("Qwen2-57B-A14B-Instruct", "nf4")),
        "too-small": choices(kiosk=("Qwen3-1.7B", "nf4")),
        "too-slow": choices(proofs=("QwQ-32B", "nf4")),
        "memory": choices(kiosk=("Qwen3-4B", "bf16")),
        "memory-active": choices(proofs=("Qwen3-30B-A3B", "bf16")),
        "memory-cache": choices(contracts=("Qwen3-8B", "bf16")),
        "weights-only": choices(
            lambda m, p, context: memory.estimate(m, p).weights / 2**30
        ),
        "gigabytes": choices(lambda *needs: gib_needed(*needs) * 2**30 / 1e9),
        "not-defended": choices(lambda *needs: 3),
        "unknown-model": choices() | {"kiosk": ("Qwen3-5B", "nf4", 3.0)},
        "odd-choice": choices() | {"proofs": "Qwen3-30B-A3B"},
        "missing-brief": without("receipts") | {"kiosk": ...},
        "no-dict": ["Qwen3-4B"],
    },
    "01.q6": {
        "first-only": table_with(first_only),
        "misses-licence": lambda claims: [
            cell for cell in wrong_cells(claims) if cell[1] != "licence"
        ],
        "misses-thinking": table_with(one_thinking),
        "misses-context": lambda claims: [
            c for c in wrong_cells(claims) if c[2] != 4096
        ],
        "counts-base": table_with(lambda series: true_row(series, base=True)),
        "text-order": table_with(text_order),
        "extended": table_with(extended),
        "lists-all": every_cell,
        "hard-coded": published_errors,
        "changes-input": corrected_in_place,
        "no-such-cell": lambda claims: [("Qwen2.5", "license", "Apache-2.0")],
        "form": lambda claims: {("Qwen2.5", "licence"): "Apache-2.0"},
        "wrong-licence": lambda claims: [("Qwen2.5", "licence", "MIT")],
        "wrong-context": lambda claims: [("Qwen2.5-Math", "context", 8192)],
        "wrong-size": lambda claims: [("Qwen2.5", "largest", 72)],
    },
    "01.q7": {
        "tiled": lambda q, k, v: attend(q, k, v, tile),
        "tiled-values": lambda q, k, v: attend(
            q,
            k,
            tile(v, q.shape[1] // k.shape[1]),
            lambda h, group: (
                h if h.shape[1] == q.shape[1] else h.repeat_interleave(group, dim=1)
            ),
        ),
        "no-scale": lambda q, k, v: attend(q, k, v, scale=lambda q: 1),
        "no-root": lambda q, k, v: attend(q, k, v, scale=lambda q: q.shape[-1]),
        "wrong-width": lambda q, k, v: attend(
            q, k, v, scale=lambda q: (q.shape[1] * q.shape[-1]) ** 0.5
        ),
        "no-mask": lambda q, k, v: attend(q, k, v, hide=lambda future: future & False),
        "past-masked": lambda q, k, v: attend(q, k, v, hide=lambda future: future.T),
        "nan": lambda q, k, v: attend(
            q, k, v, hide=lambda future: future | torch.eye(len(future)).bool()
        ),
        "wrong-axis": lambda q, k, v: attend(q, k, v, axis=-2),
        "mask-after": attend_masked_after,
        "zero-mask": attend_masked_with_zero,
        "changes-input": attend_changing,
        "transposed": lambda q, k, v: attend(q, k, v).transpose(1, 2),
        "shape": lambda q, k, v: attend(q, k, v)[:, :, -1],
        "no-tensor": lambda q, k, v: "attention",
        "attention": lambda q, k, v: attend(q, k, v) + 0.1,
        "raises": lambda q, k, v: attend(q, k, v, lambda heads, group: heads),
    },
}
