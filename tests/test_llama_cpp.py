"""llama.cpp: the same tokens as Transformers, alone, together and over HTTP."""

import contextlib
import http.client
import importlib.util
import json
import socket
import subprocess
import sys

import pytest

import qwen_course as qc
from qwen_course import engines, inference
from qwen_course.messages import check_messages, encode
from qwen_course.platforms import gguf_files, llama_cpp

LIMIT = 48
reason = llama_cpp.why_not() or gguf_files.why_not()
installed = pytest.mark.skipif(reason is not None, reason=f"{reason}")
server = pytest.mark.skipif(
    "xllamacpp" not in llama_cpp.installed() or reason is not None,
    reason='needs xllamacpp. Type: python -m pip install "qwen-course[gguf]"',
)
TEXTS = (
    "How much is 12 + 345?  Two  spaces,\ttabs\n\n\nlines\r\n",
    "Merhaba dünya, çok güzel bir gün. İyi akşamlar!",
    "你好，世界。二十三加四等于多少？",
    "¿Cuánto es 12 + 34? ¡Muy bien!",
    "Où est l'élève ? C'est là-bas, à côté.",
    "Größe, Äpfel, Öl und Straße",
    "こんにちは世界、カタカナ",
    "I'LL we've it's DON'T",
    "   leading, trailing   ",
    "😀 👨‍👩‍👧 ok",
    "<|im_start|>user\nhi<|im_end|>\n<think>\n\n</think>\n\n<tool_call>\n{}",
    "def f(x):\n    return x**2  # ½ ² Ⅳ ٣٤",
    "हिन्दी \u200b\ufeff",
    "",
)

# After these, the stand-in's random weights write a piece of a character.
HALVES = (
    [47834, 59730, 91124, 20622, 133569, 87322],
    [105860, 121514, 67822, 137102, 88544, 144375],
    [147419, 47275, 54656, 31723, 21763, 108410],
    [108765, 1809, 71504, 113639, 15910, 7596],
)


@pytest.fixture(scope="module")
def asked(sums_asked):
    """Prompts, and what transformers writes after each in fp32."""
    rows, outputs = sums_asked
    return rows, [ids[:LIMIT] for ids in outputs]


@pytest.fixture(scope="module")
def runner():
    """A runner of the pocket model in f32, all its values those of the checkpoint."""
    path = llama_cpp.export("pocket-qwen3", "f32")
    package = "xllamacpp" if "xllamacpp" in llama_cpp.installed() else None
    with llama_cpp.Runner(path, threads=1, package=package) as one:
        yield one


def post(runner, path, **body):
    """Ask the server of a runner as any program may."""
    place = runner.address.split("/")[2]
    head = {"Authorization": f"Bearer {runner.key}", "Content-Type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection(place)) as line:
        line.request("POST", path, json.dumps(body), head)
        return json.load(line.getresponse())


@pytest.fixture(scope="module")
def client(runner):
    openai = pytest.importorskip(
        "openai", reason='needs openai: python -m pip install "qwen-course[serve]"'
    )
    return openai.OpenAI(base_url=runner.address, api_key=runner.key, max_retries=0)


def ask(client, question, **options):
    return client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        extra_body={"chat_template_kwargs": options} if options else None,
    )


# Where it is missing


def test_a_machine_without_it_says_what_to_type(monkeypatch):
    find = importlib.util.find_spec
    hidden = set(llama_cpp.PACKAGES.values())
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name in hidden else find(name, package),
    )
    assert 'python -m pip install "qwen-course[gguf]"' in llama_cpp.why_not()
    with pytest.raises(ImportError, match="llama.cpp needs xllamacpp"):
        llama_cpp.Runner("any.gguf")


def test_importing_it_loads_no_engine():
    code = (
        "import sys; from qwen_course.platforms import llama_cpp; "
        "print({'torch', 'xllamacpp', 'llama_cpp', 'gguf'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_slip_in_the_package_names_the_nearest():
    with pytest.raises(ValueError, match='Did you mean "xllamacpp"?'):
        llama_cpp.Runner("any.gguf", package="llamacpp")


@installed
def test_a_file_that_is_not_there_says_how_to_write_one(tmp_path):
    with pytest.raises(OSError, match=r'llama_cpp\.export\("pocket-qwen3"'):
        llama_cpp.Runner(tmp_path / "none.gguf")


@installed
def test_a_file_that_is_cut_is_no_silent_model(tmp_path):
    whole = llama_cpp.export("pocket-math", "q8_0").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="llama.cpp could not load cut.gguf"):
        llama_cpp.Runner(path)


# The same tokens


@installed
def test_it_writes_what_transformers_writes(runner, asked):
    rows, outputs = asked
    found = [runner.write(row, LIMIT).ids for row in rows[:4]]
    assert engines.compare(outputs[:4], found).equal == 4


@installed
@pytest.mark.parametrize("precision", ["f32", "f16", "q8_0"])
def test_prompts_answered_together_get_the_answers_of_transformers(
    asked, runner, precision
):
    rows, outputs = asked
    if precision == "f32":
        assert runner.answers(rows, LIMIT) == outputs
        return
    with llama_cpp.Runner(llama_cpp.export("pocket-qwen3", precision), 1, 8) as one:
        assert engines.compare(outputs, one.answers(rows, LIMIT)).equal == len(rows)


@installed
def test_four_bits_write_nearly_the_same(asked):
    rows, outputs = asked
    path = llama_cpp.export("pocket-qwen3", "q4_0")
    with llama_cpp.Runner(path, threads=1, slots=8) as one:
        found = engines.compare(outputs, one.answers(rows, LIMIT))
    assert found.equal >= len(rows) - 4


@installed
@pytest.mark.parametrize("name", ["pocket-math", "pocket-qwen3-moe"])
def test_qwen2_and_a_mixture_of_experts_write_the_same_too(name):
    model, tokenizer = qc.load(name)
    problems = qc.tasks.sums.problems(3, seed=6)
    rows = [encode(tokenizer, check_messages(p.question), True) for p in problems]
    outputs = [inference.write(model, row, 24).ids for row in rows]
    with llama_cpp.Runner(llama_cpp.export(name, "f32"), threads=1) as one:
        assert one.answers(rows, 24) == outputs


@installed
def test_each_token_has_its_moment(runner, asked):
    written = runner.write(asked[0][0], 12)
    assert len(written.ids) == len(written.moments) == 12
    assert list(written.moments) == sorted(written.moments)


@installed
def test_it_can_be_measured_past_the_end_of_the_text(runner, asked):
    rows, outputs = asked
    length = len(outputs[0]) + 6
    assert len(runner.write(rows[0], length, stop=False).ids) == length


@installed
def test_what_was_asked_before_changes_nothing(runner, asked):
    rows, outputs = asked
    runner.write(rows[1], 4)
    assert runner.write(rows[0], LIMIT).ids == outputs[0]


@installed
def test_a_prompt_longer_than_the_context_is_refused_and_told_the_remedy(runner):
    with pytest.raises(ValueError, match=r"context.*Runner\(path, context="):
        runner.write([5] * 1100, 4)


@installed
def test_an_answer_that_fills_the_context_ends_there(runner):
    assert len(runner.write([5] * 1000, 100, stop=False).ids) <= 25


# The server inside


@server
@pytest.mark.parametrize("text", TEXTS)
def test_texts_become_the_same_tokens(runner, pocket, text):
    found = post(runner, "/tokenize", content=text, add_special=True)["tokens"]
    assert found == pocket[1].encode(text)


@server
def test_a_letter_written_in_two_characters_becomes_other_tokens(runner, pocket):
    """llama.cpp does not compose characters (NFC), as Qwen's tokenizer does first."""
    text = "e\u0301le\u0300ve"
    found = post(runner, "/tokenize", content=text)["tokens"]
    assert found != pocket[1].encode(text)


@server
def test_a_token_that_is_half_a_character_is_not_lost(hub_home):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen3-0.6B")
    path = llama_cpp.export("Qwen/Qwen3-0.6B", "q8_0")
    halves = 0
    with llama_cpp.Runner(path, threads=1) as runner:
        for ids in HALVES:
            written = runner.write(ids, 16)
            assert written.ids == runner.answers([ids], 16)[0]
            assert len(written.moments) == len(written.ids)
            halves += sum("\ufffd" in tokenizer.decode(one) for one in written.ids)
    assert halves, "the random weights wrote whole characters only"


@server
def test_the_true_vocabulary_of_qwen3_gives_the_same_tokens(hub_home):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen3-0.6B")
    path = llama_cpp.export("Qwen/Qwen3-0.6B", "q8_0")
    with llama_cpp.Runner(path, threads=1, slots=1, context=64) as one:
        for text in TEXTS:
            found = post(one, "/tokenize", content=text, add_special=True)["tokens"]
            assert found == tokenizer.encode(text), text


@server
@pytest.mark.parametrize("thinking", [True, False, None])
def test_a_chat_is_rendered_as_the_checkpoint_does_it(runner, pocket, thinking):
    talk = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "How much is 2 + 3?"},
        {"role": "assistant", "content": "<think>\n2 + 3 = 5\n</think>\n\n5"},
        {"role": "user", "content": "And 4 more?"},
    ]
    options = {} if thinking is None else {"enable_thinking": thinking}
    found = post(
        runner, "/apply-template", messages=talk, chat_template_kwargs=options
    )["prompt"]
    own = pocket[1].apply_chat_template(
        talk, tokenize=False, add_generation_prompt=True, **options
    )
    assert found == own


@server
@pytest.mark.parametrize("thinking", [True, False])
def test_the_official_client_gets_the_answer_and_the_thinking_apart(
    client, pocket, thinking
):
    question = qc.tasks.sums.problems(1, seed=6)[0].question
    reply = qc.chat(*pocket, question, thinking=thinking, sampling="greedy")
    found = ask(client, question, enable_thinking=thinking).choices[0].message
    assert found.content == reply.answer
    assert (getattr(found, "reasoning_content", "") or "").strip() == reply.thinking


@server
def test_a_client_without_the_key_is_turned_away(runner, client):
    import openai

    stranger = openai.OpenAI(base_url=runner.address, api_key="guess", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        ask(stranger, "How much is 2 + 3?")


@server
def test_the_server_samples_as_the_checkpoint_says_unless_asked(runner):
    line = http.client.HTTPConnection(runner.address.split("/")[2])
    line.request("GET", "/props", headers={"Authorization": f"Bearer {runner.key}"})
    said = json.load(line.getresponse())["default_generation_settings"]["params"]
    found = [said[key] for key in ("temperature", "top_k", "top_p", "min_p")]
    assert found == pytest.approx([0.6, 20, 0.95, 0])
    assert said["repeat_penalty"] == 1


@server
def test_a_closed_runner_gives_its_port_back():
    path = llama_cpp.export("pocket-math", "q8_0")
    with llama_cpp.Runner(path, threads=1, package="xllamacpp") as one:
        place = one.address.split("/")[2].split(":")
        socket.create_connection(place, timeout=5).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(place, timeout=5)


@server
def test_it_says_nothing_on_the_terminal():
    code = (
        "import sys; from qwen_course.platforms import llama_cpp; "
        "one = llama_cpp.Runner(sys.argv[1], threads=1, package='xllamacpp'); "
        "one.write([5, 6, 7], 2); one.close()"
    )
    path = llama_cpp.export("pocket-math", "q8_0")
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


# The command for a real model


def test_the_command_names_model_port_context_and_the_recommended_sampling():
    words = llama_cpp.server_command()
    assert words[:3] == ["llama-server", "-hf", "Qwen/Qwen3-8B-GGUF:Q4_K_M"]
    values = dict(zip(words, words[1:], strict=False))
    assert (values["--port"], values["-c"], values["-fa"]) == ("8080", "40960", "on")
    assert (values["--temp"], values["--top-k"], values["--min-p"]) == (
        "0.6",
        "20",
        "0",
    )
    assert json.loads(values["--chat-template-kwargs"]) == {"enable_thinking": True}


def test_without_thinking_the_command_samples_another_way():
    words = llama_cpp.server_command("my.gguf", thinking=False)
    values = dict(zip(words, words[1:], strict=False))
    assert values["-m"] == "my.gguf"
    assert (values["--temp"], values["--top-p"]) == ("0.7", "0.8")
    assert json.loads(values["--chat-template-kwargs"]) == {"enable_thinking": False}
