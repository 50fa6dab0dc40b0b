"""What a precision costs: measured, kept, chosen by; a missing one says why."""

import pytest
import torch

import qwen_course as qc
from qwen_course import loading, quantization
from qwen_course.evaluation import Score
from qwen_course.precision_costs import (
    Cost,
    Costs,
    choose,
    compare,
    fitting,
    perplexity,
    worked,
)


def test_a_worked_solution_is_what_the_model_would_write(pocket):
    model, tokenizer = pocket
    problem = qc.tasks.sums.problems(1, seed=3, count=2)[0]
    prompt, solution = worked(tokenizer, problem)
    output = model.generate(
        torch.tensor([prompt]), max_new_tokens=len(solution), do_sample=False,
        temperature=None, top_p=None, top_k=None,
    )  # fmt: skip
    assert output[0, len(prompt) :].tolist() == solution


def test_perplexity_is_one_where_nothing_surprises_and_rises_with_fewer_bits(pocket):
    model, tokenizer = pocket
    problems = qc.tasks.sums.problems(6, seed=3)
    full = perplexity(model, tokenizer, problems)
    coarse = perplexity(quantization.rounded(model, bits=2), tokenizer, problems)
    assert 1 <= full < coarse


def test_perplexity_does_not_depend_on_the_batch(pocket):
    model, tokenizer = pocket
    problems = qc.tasks.sums.problems(4, seed=4)
    alone = perplexity(model, tokenizer, problems, batch_size=1)
    together = perplexity(model, tokenizer, problems, batch_size=4)
    assert together == pytest.approx(alone, rel=1e-4)
    with pytest.raises(ValueError, match="no problems to read"):
        perplexity(model, tokenizer, [])


def rows() -> Costs:
    def cost(precision, mib, speed, right):
        score = {"sums": Score(right, 100), "products": Score(100, 100)}
        return Cost("m", precision, mib * 2**20, speed, 1.01, score)

    missing = Cost("m", "torchao-int8", missing="needs the package torchao")
    return Costs(
        [cost("fp32", 27, 300, 100), cost("int8", 11, 80, 98), missing,
         cost("nf4", 8, 200, 80)]
    )  # fmt: skip


def test_a_precision_that_is_missing_stays_in_the_table_with_its_reason():
    costs = rows()
    assert "not here: needs the package torchao" in str(costs)
    assert [row.precision for row in costs.measured] == ["fp32", "int8", "nf4"]
    assert str(costs.skills()).splitlines()[0].split() == [
        *("precision", "sums", "products")
    ]


def test_the_picture_says_in_its_title_what_the_smallest_costs():
    axes = rows().plot().axes[0]
    assert axes.get_title() == "nf4 against fp32: 70% less memory, 10.0 points lost"
    assert "%" in axes.get_ylabel()


def test_the_fastest_precision_that_fits_is_chosen():
    costs = rows()
    assert choose(costs, memory_mib=100).precision == "fp32"
    assert choose(costs, memory_mib=20).precision == "nf4"
    assert choose(costs, 20, least_right=0.95).precision == "int8"
    assert choose(costs, 5) is None


def test_every_precision_gets_a_verdict():
    verdicts = {
        cost.precision: verdict
        for cost, verdict in fitting(rows(), 12, least_right=0.95)
    }
    assert verdicts == {
        "fp32": "too large", "int8": "fits, and is the fastest",
        "torchao-int8": "not here", "nf4": "wrong too often",
    }  # fmt: skip


def test_costs_are_kept_and_come_back(tmp_path):
    rows().save(tmp_path / "costs.json")
    again = Costs.read(tmp_path / "costs.json")
    assert str(again) == str(rows())
    assert again[0].score == Score(200, 200)


def test_comparing_goes_on_where_a_precision_is_missing(monkeypatch):
    monkeypatch.setattr(
        loading, "why_not",
        lambda precision: "not on this machine" if precision == "nf4" else None,
    )  # fmt: skip
    problems = {"sums": qc.tasks.sums.problems(2, seed=1, count=2)}
    costs = compare("pocket-qwen3", problems, ("nf4", "fp32"), new_tokens=2)
    assert [row.missing for row in costs] == ["not on this machine", ""]
    assert costs[1].score.total == 2


def test_a_library_that_gives_up_is_a_reason_too(monkeypatch):
    """HQQ through transformers 5.23 raises this; a GPU may also run out of memory."""

    def give_up(name, precision):
        raise NotImplementedError("no such product on a CPU\nand more")

    monkeypatch.setattr(loading, "load", give_up)
    (row,) = compare("pocket-qwen3", {}, ("bf16",))
    assert row.missing == "no such product on a CPU"


def test_the_panel_marks_what_fits():
    from qwen_course.widgets import precision_comparer

    panel = precision_comparer(rows())
    (memory_slider, percent), screen = panel.children[0].children, panel.children[1]
    assert memory_slider.max == 27
    memory_slider.value, percent.value = 20, 95
    assert screen.value.count("fits, and is the fastest") == 1
    assert "too large" in panel._repr_mimebundle_()["text/plain"]
