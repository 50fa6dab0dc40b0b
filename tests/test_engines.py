"""The engine: same weights, same answers, or one sentence on what is missing."""

import importlib.util
import json
import subprocess
import sys

import pytest

import qwen_course as qc
from qwen_course import engines, inference
from qwen_course.messages import check_messages, encode

installed = pytest.mark.skipif(
    engines.why_not() is not None, reason=f"{engines.why_not()}"
)
LIMIT = 48


@pytest.fixture
def without_it(monkeypatch):
    """A machine where the engine's packages are not installed."""
    find = importlib.util.find_spec
    hidden = {"onnxruntime_genai", "onnx_ir"}

    def missing(name, package=None):
        return None if name in hidden else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", missing)


@pytest.fixture(scope="module")
def asked(pocket):
    """Prompts, and what transformers writes after each in fp32."""
    model, tokenizer = pocket
    problems = [*qc.tasks.sums.problems(4, seed=4), *qc.tasks.word_problems.problems(2)]
    rows = [encode(tokenizer, check_messages(p.question), True) for p in problems]
    return rows, [inference.write(model, row, LIMIT).ids for row in rows]


@pytest.fixture(scope="module")
def engine():
    return engines.Engine(engines.export("pocket-qwen3", "fp32"), threads=1)


# Where it is missing


def test_a_machine_without_the_engine_says_what_to_type(without_it):
    line = "python -m pip install onnxruntime-genai onnx-ir"
    assert line in engines.why_not()
    for use in (
        lambda: engines.export("pocket-qwen3"),
        lambda: engines.Engine("anywhere"),
        lambda: engines.measure("anywhere"),
    ):
        with pytest.raises(ImportError, match="not installed here"):
            use()


def test_importing_it_needs_none_of_its_packages():
    code = (
        "import sys; from qwen_course import engines; "
        "print({'torch', 'onnxruntime_genai', 'onnx_ir'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# Wrong input


def test_a_slip_in_the_precision_names_the_nearest():
    with pytest.raises(ValueError, match='"int3" is not one of fp32, int8, int4'):
        engines.export("pocket-qwen3", "int3")


@installed
def test_a_mixture_of_experts_is_refused_before_the_builder_starts():
    with pytest.raises(ValueError, match="not tried with Qwen3MoeForCausalLM"):
        engines.export("pocket-qwen3-moe")


@installed
def test_a_folder_without_an_exported_model_says_how_to_write_one(tmp_path):
    with pytest.raises(OSError, match=r'engines.export\("pocket-qwen3"\)'):
        engines.Engine(tmp_path)


@installed
def test_a_builder_that_fails_is_quoted(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"})
    )
    with pytest.raises(RuntimeError, match="could not write .* in int4; it ended with"):
        engines.export(tmp_path, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_of_different_numbers_are_not_compared():
    with pytest.raises(ValueError, match="2 answers cannot be compared with 1"):
        engines.compare([[1], [2]], [[1]])


# The same weights


@installed
def test_the_engine_writes_what_transformers_writes(engine, asked):
    for row, output in zip(*asked, strict=True):
        assert engine.write(row, LIMIT).ids == output


@installed
def test_a_batch_of_the_engine_gives_each_row_what_it_gets_alone(engine, asked):
    rows, outputs = asked
    served = engine.serve(rows, LIMIT)
    assert served.outputs == outputs
    assert served.passes == max(map(len, outputs))


@installed
def test_the_engine_can_be_measured_past_the_end_of_the_text(engine, asked):
    rows, outputs = asked
    written = engine.write(rows[0], len(outputs[0]) + 4, stop=False)
    assert len(written.ids) == len(written.moments) == len(outputs[0]) + 4


@installed
def test_four_bits_are_smaller_and_write_nearly_the_same(asked):
    small, whole = (
        engines.export("pocket-qwen3", precision) for precision in ("int4", "fp32")
    )
    assert engines.bytes_on_disk(small) < engines.bytes_on_disk(whole) / 4
    assert engines.step_bytes(small) < engines.step_bytes(whole) / 4
    rows, outputs = asked
    found = [engines.Engine(small).write(row, LIMIT).ids for row in rows]
    assert engines.compare(outputs, found).equal >= len(rows) - 2


@installed
def test_an_export_is_made_once(monkeypatch):
    folder = engines.export("pocket-qwen3", "fp32")
    monkeypatch.setattr(engines, "_build", None)
    assert engines.export("pocket-qwen3", "fp32") == folder
    assert engines.export(engines.source_folder("pocket-qwen3"), "fp32") == folder


@installed
def test_an_exported_model_does_not_sample_unless_asked():
    folder = engines.export("pocket-qwen3", "fp32")
    search = json.loads((folder / engines.CONFIG).read_text())["search"]
    assert search["do_sample"] is False


@installed
def test_a_step_reads_the_weights_and_not_the_tables():
    folder = engines.export("pocket-qwen3", "fp32")
    model, _ = qc.load("pocket-qwen3")
    assert engines.step_bytes(folder) == pytest.approx(
        4 * model.num_parameters(), rel=0.01
    )


@installed
def test_a_measurement_has_the_form_of_every_other():
    folder = engines.export("pocket-qwen3", "fp32")
    found = engines.measure(
        folder, "pocket-qwen3", "fp32", prompt_tokens=4, new_tokens=3, repeats=2
    )
    assert len(found.tokens_per_second) == len(found.first_token_seconds) == 2
    assert found.step_bytes <= found.weights_bytes
    assert found.share(1e12) < 1
    assert found.machine["onnxruntime-genai"]


@installed
def test_a_checkpoint_of_the_hub_can_be_exported(hub_home, tmp_path):
    folder = engines.export("Qwen/Qwen3-0.6B", "int4", folder=tmp_path / "out")
    assert folder == tmp_path / "out"
    assert engines.Engine(folder).write([1, 2, 3], 2, stop=False).ids


# Side by side


def test_answers_are_compared_token_by_token(pocket):
    found = engines.compare([[1, 2, 3], [4, 5]], [[1, 2, 3], [4]], pocket[1])
    assert (found.equal, [pair.same for pair in found]) == (1, [3, 1])
    assert str(found).splitlines()[1].split() == ["0", "3", "3", "-"]
    second = str(found).splitlines()[2]
    assert second.split()[:3] == ["1", "2", "1"]
    assert second.endswith("against nothing")
    assert found._repr_html_().count("<tr>") == 3
