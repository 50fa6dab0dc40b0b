"""Every message has one entry, every entry a message, and an error finds its own."""

import argparse
import asyncio
import builtins
import io
import re
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import course
import qwen_course as qc
from qwen_course import (
    api_keys,
    audio,
    chat_data,
    choosing,
    cleaning,
    cli,
    datafiles,
    deployment,
    expressions,
    fine_tuning,
    inference,
    media,
    messages,
    monitoring,
    prompts,
    quality,
    quantization,
    raised,
    routing,
    safe_files,
    sandbox,
    service,
    specialists,
    thinking,
    tools,
    training_memory,
    troubleshooting,
    widgets,
)
from qwen_course.capstones import documents, languages, tutor
from qwen_course.exercises import build, grade, keeping, question
from qwen_course.platforms import gguf_files, hubs, modelfile, vllm, wire

ROOT = Path(__file__).resolve().parent.parent

# Where an error is made whose words come from somewhere else, and from where.
SPOKEN_ELSEWHERE = {
    "course": "stop_at and failure: the sentences of the *_problem functions",
    "qwen_course.__main__": "the exit status",
    "qwen_course.benchmark": "what the process that measured said",
    "qwen_course.bundle": "disk_full",
    "qwen_course.bundle.checkpoints": "the sentence of a source of the hubs",
    "qwen_course.bundle.wheels": "_refusal",
    "qwen_course.capstones.edge_worker": "what llama.cpp's server said",
    "qwen_course.engines": "why_not",
    "qwen_course.exercises.build": "the sentences of build.parts, with the cell's name",
    "qwen_course.exercises.classroom": "the sentences of keeping, with the file's name",
    "qwen_course.exercises.grade": "the sentence of code_cells",
    "qwen_course.exercises.keeping": "a field and its value, inside a sentence",
    "qwen_course.exercises.question": "the name of a type, inside a sentence",
    "qwen_course.exercises.sharing": "what the teacher's page answered",
    "qwen_course.loading": "_why_not",
    "qwen_course.notebooks": "the findings of notebook_rules, and failure",
    "qwen_course.platforms.common": "why_missing",
    "qwen_course.platforms.hubs": "wrong_bytes and _fault",
    "qwen_course.platforms.modelfile": "_unknown, and the values that are refused",
    "qwen_course.platforms.wire": "_why",
    "qwen_course.remote": "an attribute's name, for Python itself",
    "qwen_course.replicas": "why_not",
    "qwen_course.service": "in_one_sentence: the words of pydantic",
    "qwen_course.slides": "the findings of notebooks.read",
    "qwen_course.traffic": "what the server answered, counted and not shown",
    "workshop.jupyterhub.settings": "_problems",
}


@pytest.fixture(scope="module")
def project() -> list[raised.Message]:
    """All messages of the project; reading them takes seconds."""
    return raised.messages()


# The pairing


def test_every_message_has_an_entry(project):
    known = troubleshooting.entry_of()
    bare = {one.text: one.module for one in project if one.text not in known}
    bare.pop("", None)
    stubs = "\n".join(raised.stub(text, [module]) for text, module in bare.items())
    assert not bare, f"add to qwen_course/data/troubleshooting/:\n{stubs}"


def test_every_entry_has_messages_that_can_be_raised(project):
    raisable = {one.text for one in project}
    gone = {
        text: entry.title
        for text, entry in troubleshooting.entry_of().items()
        if text not in raisable
    }
    assert not gone, "take these out of qwen_course/data/troubleshooting/"


def test_no_message_stands_in_two_entries():
    every = troubleshooting.entries()
    times = Counter(text for one in every for text in (*one.messages, *one.signs))
    assert [text for text, count in times.items() if count > 1] == []


def test_errors_without_words_of_their_own_are_known(project):
    found = {one.module for one in project if not one.text}
    assert found - set(SPOKEN_ELSEWHERE) == set(), "say where their words come from"
    assert set(SPOKEN_ELSEWHERE) - found == set(), "these are no longer needed"


def test_all_entries_are_filled_in():
    every = troubleshooting.entries()
    for one in every:
        assert all((one.when, one.why, one.do, one.topic)), one.title
        assert one.messages or one.signs, one.title
    others = [one for one in every if not one.messages]
    assert len(others) >= 25


def test_an_exception_class_of_the_project_is_seen():
    wordless = {"BadData", "TooMany"}  # the one is made of faults, the other is bare
    for path in raised.sources():
        for name, base in re.findall(
            r"^class (\w+)\((\w+)\)", path.read_text("utf-8"), re.MULTILINE
        ):
            parent = getattr(builtins, base, None)
            is_error = isinstance(parent, type) and issubclass(parent, Exception)
            if is_error and name not in wordless:
                texts = [one.text for one in raised.read(f"{name}('one word two')")]
                assert texts == ["one word two"], f"{path.name}: {name}"


# Reading the source


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("raise ValueError('it is ' f'{n} now')", {"it is … now"}),
        ("raise OSError(errno.ENOSPC, 'the disk is full')", {"the disk is full"}),
        ("raise Refused('No key.', 'Send one.', 401)", {"No key. Send one."}),
        ("A = 'say it so'\nraise KeyError(A)", {"say it so"}),
        ("A = 'again'\nraise KeyError(f'try {A}')", {"try again"}),
        ("raise ValueError('it is' + (' odd' if x else ' even'))",
         {"it is odd", "it is even"}),
        ("A = 'from {hub} there'\nraise OSError(A.format(hub=1))", {"from … there"}),
        ("def why_not():\n return 'it is missing'", {"it is missing"}),
        ("def other():\n return 'it is missing'", set()),
        ("def f():\n m = 'not so good'\n raise OSError(m)", {"not so good"}),
        ("def f():\n m = 'not so'\n raise OSError(f'{a}; {m}')", {"…; not so"}),
        ("warnings.warn('take care of it')", {"take care of it"}),
        ("Check('disk', 'warning', found, 'Delete some.')", {"disk: Delete some."}),
        ("(ValueError if a else OSError)(f'it said: {b}')", {"it said: …"}),
        ("raise ValueError(f'{a} is no{suggest(b)}.{near}')", {"… is no…."}),
        ("raise ValueError(sentence)", {""}),
        ("raise ValueError", set()),
    ],
)  # fmt: skip
def test_messages_are_read_from_the_source(source, texts):
    assert {one.text for one in raised.read(source)} == texts


def test_a_stub_can_be_pasted_into_a_file():
    import yaml

    text = 'it\'s "…": no. #1'
    (entry,) = yaml.safe_load(raised.stub(text, ["course"]))
    assert entry["messages"] == [text]
    assert set(entry) == {"title", "messages", "when", "why", "do"}


# Finding


def _array(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _row(**message: str):
    return chat_data.check([{"messages": [message]}])


BY_CALL = {
    "The model's name is not known": lambda: qc.load("pocket-qwen33"),
    "The device is not there": lambda: qc.load(device="tpu"),
    "The precision does not exist": lambda: qc.load(precision="nf5"),
    "There is no such data file": lambda: datafiles.data_file("sales.png"),
    "The revision can move": lambda: safe_files.load_safely("Qwen/Q", revision="main"),
    "There is no record of the fetch": lambda: hubs.verify("here/there"),
    "The messages do not have the right form": lambda: messages.check_messages([]),
    "A role is not known or stands in the wrong place": lambda: messages.check_messages(
        [{"role": "human", "content": "Hello"}]
    ),
    "The sampling is not known": lambda: qc.chat(*_pair(), "Hi", sampling="warm"),
    "The number of new tokens is not usable": lambda: qc.chat(
        *_pair(), "Hi", max_new_tokens=0
    ),
    "A thinking budget without thinking": lambda: qc.chat(
        *_pair(), "Hi", thinking=False, thinking_budget=9
    ),
    "split_thinking got a text": lambda: thinking.split_thinking("hm", None),
    "A call of the model cannot be read": lambda: tools.split_tool_calls(
        '<tool_call>{"name": 1}</tool_call>'
    ),
    "The answer is no text": lambda: tools.split_tool_calls(7),
    "There is no JSON in the answer": lambda: prompts.parse_json("Sure!"),
    "The schema is no JSON schema": lambda: prompts.parse_json("{}", {"type": "int"}),
    "A word is not one of the known ones": lambda: qc.specialist("poetry"),
    "A need is no usable number": lambda: choosing.recommend("chat", memory_gb=-1),
    "The prompt is larger than the context": lambda: qc.memory.estimate(
        "Qwen3-0.6B", context=10, prompt=20
    ),
    "The glossary does not have the word": lambda: qc.glossary.lookup("zzz"),
    "The name is not in the package": lambda: qc.loda,
    "The picture cannot be read": lambda: media.open_image("no.png"),
    "The sound file cannot be read": lambda: audio.read_clip("no.wav"),
    "The samples are not as the model hears them": lambda: audio.check_clip(
        _array(9), 44100
    ),
    "The sound is empty or too long": lambda: audio.check_clip(_array(0), 16000),
    "The picture has an impossible size": lambda: media.open_image(
        Image.new("RGB", (4000, 2))
    ),
    "There is no code to complete": lambda: specialists.complete_middle(
        *_pair(), "", ""
    ),
    "The code was stopped by the sandbox": lambda: sandbox.run_code("1", seconds=0),
    "A formula cannot be read": lambda: expressions._tokens("#"),
    "There is nothing to route": lambda: routing.embed(*_pair(), []),
    "A list of numbers cannot be read": lambda: widgets._whole_numbers("a, b"),
    "The number of bits is not possible": lambda: quantization.affine(
        torch.ones(2, 32), bits=1
    ),
    "Nothing to evaluate": lambda: qc.evaluate(*_pair(), []),
    "The two results cannot be compared": lambda: quality.compare([1], [], 0.1),
    "The factor of YaRN is too small": lambda: inference.with_yarn(None, 0.5),
    "A row of the data has the wrong form": lambda: _row(role="human", content="Hi"),
    "A conversation of the data teaches nothing": lambda: _row(
        role="user", content="Hi"
    ),
    "LoRA cannot be attached like this": lambda: training_memory.lora_parameters(
        "Qwen3-0.6B", rank=0
    ),
    "A setting of the training is not usable": lambda: fine_tuning.Settings(steps=0),
    "The model cannot be served": lambda: service.QwenService(None, None),
    "A limit of the service is not usable": lambda: service.Sampling(temperature=-1),
    "The request is malformed": lambda: cleaning.read_body(b"[]", 99),
    "The request is too large": lambda: cleaning.read_body(b"[1, 2]", 2),
    "A key or a rate cannot be made": lambda: api_keys.rates("often"),
    "A share or a window is not usable": lambda: monitoring.percentile([1], 95),
    "The course has no runner for this platform": lambda: _only_described().module(),
    "The GGUF file is not there or not whole": lambda: gguf_files.read_gguf("no.gguf"),
    "The Modelfile is wrong": lambda: modelfile.parse("PARAMETER num_ctx 4096"),
    "The server does not know this option": lambda: wire.check_options(
        ["vllm", "--prot", "1"], "vllm_options"
    ),
    "The GPUs cannot hold this model": lambda: vllm.for_gpus("Qwen3-8B", 0),
    "The documents cannot be read": lambda: documents.read_folder("no folder"),
    "A number for the assistant is not usable": lambda: tutor.Tutor(
        None, None, target=3
    ),
    "A language is not known": lambda: languages.local_number(1.5, "xx"),
    "The question does not exist": lambda: question.get("99.q9"),
    "The answer is no plain value": lambda: question.plain("a" * 10**7),
    "The progress file cannot be read": lambda: keeping.parse("{}"),
    "There is nothing to grade": lambda: grade.find(Path("no folder")),
    "An exercise cannot be built": lambda: build.learner_source(
        "### BEGIN SOLUTION\nx = 1"
    ),
    "A number of problems is not possible": lambda: qc.tasks.sums.problems(-1),
    "A count or number is out of range": lambda: qc.tasks.sums.problems(1, count=99),
    "The port is taken": lambda: course.stop_at(course.port_problem(99999)),
    "PyTorch is not built for this Mac": lambda: course.stop_at(
        course.machine_problem("Darwin", "x86_64", 64)
    ),
    # What others say
    "A name is not defined": lambda: exec("total + 1", {}),
    "No module named ...": lambda: __import__("no_such_module"),
    "torch and the GPU do not fit together": lambda: torch.ones(1).to("cuda"),
    "await is missing, or one too many": lambda: asyncio.run(_nested()),
}


async def _nested() -> None:
    nothing = asyncio.sleep(0)
    try:
        asyncio.run(nothing)
    finally:
        nothing.close()


def _only_described() -> deployment.Platform:
    return next(one for one in deployment.platforms() if not one.run)


def _pair():
    return qc.load("pocket-qwen3")


@pytest.mark.parametrize("title", BY_CALL)
def test_an_error_that_is_raised_finds_its_entry(title):
    if title == "torch and the GPU do not fit together" and torch.cuda.is_available():
        pytest.skip("here they do: the GPU works")
    with pytest.raises(BaseException) as caught:  # noqa: B017, PT011  any of them
        BY_CALL[title]()
    assert troubleshooting.explain(caught.value).title == title
    lines = traceback.format_exception(caught.value)
    assert troubleshooting.explain("".join(lines)).title == title


def test_each_message_finds_its_own_entry_and_no_other():
    for one in troubleshooting.entries():
        for text in (*one.messages, *one.signs):
            said = text.replace("…", "x 1")
            assert troubleshooting.find(said) is one, said
            trace = f"Traceback:\n  raise ValueError(\nValueError: {said}\n"
            assert troubleshooting.find(trace) is one, said


def test_a_message_is_found_in_colours_in_lines_and_with_a_suggestion():
    text = (
        '\x1b[31mValueError\x1b[0m: precision "nf5" is not one of auto, fp32,\n'
        '  bf16. Did you mean "nf4"?'
    )
    assert troubleshooting.find(text).anchor == "the-precision-does-not-exist"


def test_the_last_error_of_a_chain_counts():
    text = (
        "KeyError: 'qwen3'\n\nDuring handling of the above exception, another "
        "exception occurred:\n\nValueError: max_new_tokens is 0; give 1 or more."
    )
    assert "new tokens" in troubleshooting.find(text).title


def test_a_command_with_wrong_words_is_explained(capsys):
    with pytest.raises(SystemExit):
        cli.main(["export"])
    said = troubleshooting.find(capsys.readouterr().err)
    assert said.title == "A command's words are wrong"


def test_an_unknown_text_gets_the_way_to_go_on():
    assert troubleshooting.find("the moon is made of cheese") is None
    assert troubleshooting.explain("cheese") is troubleshooting.UNKNOWN


def test_the_last_error_of_the_session_is_explained(monkeypatch):
    error = ValueError("max_new_tokens is 0; give 1 or more.")
    monkeypatch.setattr(sys, "last_value", error, raising=False)
    assert "new tokens" in qc.troubleshooting.explain().title


def test_an_entry_shows_itself_in_a_notebook():
    one = troubleshooting.explain("[Errno 28] No space left on device")
    shown = one._repr_mimebundle_()
    assert "<code>qwen-course doctor</code>" in shown["text/html"]
    assert repr(one) == shown["text/plain"]


# The command


def test_the_command_explains_words_and_standard_input(capsys, monkeypatch):
    assert cli.main(["explain", "No", "space", "left", "on", "device"]) == 0
    assert "The disk is full" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("ValueError: n is -1; ask for 0\n"))
    assert cli.main(["explain"]) == 1
    assert "No entry fits" in capsys.readouterr().out


def test_the_tool_for_authors_prints_what_is_missing(capsys):
    assert raised.main() == 0
    assert capsys.readouterr().out.strip() == ""


# The page


def test_the_page_has_each_entry_once_under_an_anchor_of_its_own():
    page = troubleshooting.page()
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    anchors = re.findall(r"^\((.+)\)=$", page, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#(.+?)\)", page)) == set(anchors)
    assert len(anchors) == len(troubleshooting.entries()) + len(
        troubleshooting.topics()
    )


def test_the_page_shows_messages_as_code():
    page = troubleshooting.page()
    for text in troubleshooting.entry_of():
        assert f"- `` {text} ``\n" in page
        assert "``" not in text


def test_the_list_for_teachers_is_short():
    listed = troubleshooting.for_teachers().count("\n- **")
    assert 10 <= listed <= 30


def _commands(parser: argparse.ArgumentParser) -> dict[str, str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {name: one.format_help() for name, one in action.choices.items()}
    raise AssertionError("the parser has no commands")


def test_remedies_name_commands_and_options_that_exist():
    known = _commands(cli._parser())
    for one in troubleshooting.entries():
        for command in re.findall(r"`(?:!|%)?qwen-course ([^`]+)`", one.do):
            words = command.split()
            if words[0].startswith("--"):
                continue
            assert words[0] in known, one.title
            for option in filter(lambda word: word.startswith("--"), words):
                assert option in known[words[0]], f"{one.title}: {option}"
        for command in re.findall(r"course\.py([^`]*)`", one.do):
            ours = command.partition(" -k")[0]  # pytest's own words stand behind
            words = {word for word in ours.split() if word.islower()}
            assert words <= {*course.COMMANDS, *_options_of_course()}, one.title


def _options_of_course() -> list[str]:
    text = (ROOT / "course.py").read_text("utf-8")
    return ["--help", *re.findall(r'add_argument\(\s*"(--[\w-]+)"', text)]


def test_remedies_name_what_the_package_has():
    for one in troubleshooting.entries():
        for name in re.findall(r"\bqc((?:\.\w+)+)", f"{one.do} {one.why}"):
            thing = qc
            for part in name.strip(".").split("."):
                thing = getattr(thing, part)
