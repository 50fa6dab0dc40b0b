"""Capstone "edge": a translator and assistant for a small device without a network.

The model is pocket-qwen3 with the phrases adapter merged in, as a GGUF file, run by
llama.cpp in a process of its own. That process has a memory ceiling which is enforced,
no network where the system allows it, and a time limit for each answer. When it breaks
the ceiling it ends, and the application goes on.
"""

import collections
import contextlib
import json
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from qwen_course import adapters, memory
from qwen_course.datafiles import data_file
from qwen_course.errors import suggest
from qwen_course.isolation import bare_environment, namespaces
from qwen_course.platforms import gguf_files, llama_cpp
from qwen_course.platforms.common import cached, need, why_missing
from qwen_course.tables import Row, Table
from qwen_course.tasks import phrases
from qwen_course.tasks.problem import Problem

WORKER = Path(__file__).with_name("edge_worker.py")
ENGINES = ("llama.cpp", "torch")
LOOK_EVERY = 0.02  # seconds between two looks at the memory
OWN_MB = 95  # that Python and llama.cpp reserve; about half of it is ever held


# The model


def adapter_folder() -> Path:
    """Return the folder of the phrases adapter that comes with the course."""
    return data_file("adapters/phrases/adapter_config.json").parent


def merged_folder() -> Path:
    """Merge the adapter into pocket-qwen3, once, and return the checkpoint's folder.

    Merging and exporting need torch; they are done on a large machine, and the file is
    what goes to the device.
    """
    source = adapter_folder()
    folder = cached(source, "merged", package="transformers")
    if not (folder / "config.json").is_file():
        model, tokenizer = adapters.load_adapter(source, "fp32", "cpu")
        adapters.save_checkpoint(adapters.merge(model), tokenizer, folder)
    return folder


def model_file(precision: str = "q8_0") -> Path:
    """Return the GGUF file of the translator, written when it is not there yet.

    Raises ImportError without the library for it, ValueError for an unknown precision.

    Example:
        EdgeAssistant(model_file("q8_0"))
    """
    return gguf_files.write_gguf(merged_folder(), precision)


# Checks of a translation


@dataclass(frozen=True)
class Translation:
    """A translation, the way back, and what speaks against trusting it.

    `back` is the translation put into the first language again by the same model.
    """

    source: str
    text: str
    back: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.text, *(f"Careful: {one}" for one in self.warnings)])


def numbers_in(text: str, language: str) -> list[float]:
    """Return the numbers above 1 in a sentence, sorted; half past nine is 9.5.

    One is left out: in most of these languages it is also the article. "halb zehn" is
    9.5: German counts towards the next hour.

    >>> numbers_in("Das Museum öffnet um halb zehn.", "de")
    [9.5]
    """
    values = _number_words(language)
    longest_first = sorted(values, key=len, reverse=True)
    word = r"\b(" + "|".join(map(re.escape, longest_first)) + r")\b"
    before, after, shift = {
        "en": ("half past ", "", 0.5), "de": ("halb ", "", -0.5),
        "tr": ("", r" buçuk\w*", 0.5), "fr": ("", r" heures? et demie", 0.5),
        "es": ("", " y media", 0.5),
    }[language]  # fmt: skip
    found: list[float] = []

    def take(shift: float) -> Any:
        def taken(match: re.Match) -> str:
            found.append(values[match[1]] + shift)
            return " "

        return taken

    rest = re.sub(before + word + after, take(shift), _small(text, language))
    rest = re.sub(word, take(0), rest)
    found += [float(digits) for digits in re.findall(r"\d+", rest)]
    return sorted(number for number in found if number > 1)


def _small(text: str, language: str) -> str:
    return (text.replace("İ", "i") if language == "tr" else text).lower()


def _number_words(language: str) -> dict[str, int]:
    book = phrases.book()
    words = {
        word: n for n, word in enumerate(book["languages"][language]["numbers"], 1)
    }
    if language == "tr":
        words |= {word: n for n, word in enumerate(book["turkish_hours"], 1)}
    ones = {"de": ("eins", "eine", "einen"), "fr": ("une",), "es": ("una",)}
    return words | dict.fromkeys(ones.get(language, ()), 1)


def numbers_agree(text: str, translation: str, source: str, target: str) -> bool:
    """Return whether two sentences hold the same numbers, as words or as digits.

    >>> numbers_agree("Two coffees, please.", "Üç kahve, lütfen.", "en", "tr")
    False
    """
    return numbers_in(text, source) == numbers_in(translation, target)


def doubts(text: str, translation: str, back: str, source: str, target: str) -> list:
    """Return what speaks against a translation, as sentences; nothing proves it right.

    A word that the model never saw is translated into one that it knows, with no sign
    of doubt. The way back then comes to another sentence.
    """
    found = []
    if not numbers_agree(text, translation, source, target):
        found.append("the numbers of the two sentences differ.")
    if _plain(text) != _plain(back):
        found.append(f'translated back it says "{back}"')
    return found


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


# The device


class CeilingTooLow(MemoryError):
    """The process needed more memory than it may have; it was ended.

    `held_mb` is what it held then.
    """

    def __init__(self, message: str, held_mb: float) -> None:
        super().__init__(message)
        self.held_mb = held_mb


class Child:
    """The process that holds the model, under its limits. Used by EdgeAssistant."""

    def __init__(self, task: Mapping[str, Any], seconds: float) -> None:
        self.memory_mb = float(task["memory_mb"])
        self.peak_mb = 0.0
        self.broke_ceiling = False
        self._folder = tempfile.TemporaryDirectory(
            prefix="qwen-course-edge-", ignore_cleanup_errors=True
        )
        apart = namespaces()
        self.process = subprocess.Popen(
            [*apart, sys.executable, "-I", str(WORKER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", cwd=self._folder.name,
            env=bare_environment(self._folder.name) | _frugal(task["threads"]),
        )  # fmt: skip
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: collections.deque[str] = collections.deque(maxlen=20)
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._read, self._read_errors, self._watch)
        ]
        for thread in self._threads:
            thread.start()
        self.ready = self.ask({**task, "apart": bool(apart)}, seconds)

    def ask(self, what: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send one line, and return what comes back.

        Raises CeilingTooLow, TimeoutError, and OSError when the process ended for
        another reason; it is then gone.
        """
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone: the line read says so
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
        try:
            line = self._said.get(timeout=seconds)
        except queue.Empty:
            self.end()
            raise TimeoutError(
                f"there was no answer within {seconds:g} seconds, and the process was "
                "ended. Give more (seconds=), or ask for a shorter answer."
            ) from None
        if line is None:
            self.end()
            raise self._why_ended()
        said = json.loads(line)
        self.peak_mb = max(self.peak_mb, said["peak_mb"])
        return said

    def end(self) -> None:
        """End the process, whatever it does, and close what led to it."""
        self._kill()
        self.process.wait()
        for thread in self._threads:  # what it said last must be read
            thread.join(timeout=2)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError, AttributeError):
                pipe.close()  # type: ignore[union-attr]
        self._folder.cleanup()

    def _kill(self) -> None:
        for one in _family(self.process.pid):
            with contextlib.suppress(psutil.Error):
                one.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line)
        self._said.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    def _watch(self) -> None:
        """Look at the memory of the process until it ends; end it above the ceiling.

        The only limit where the kernel keeps none (Windows, macOS), and everywhere the
        one for pages that the kernel does not count, such as those of the file.
        """
        while self.process.poll() is None:
            held = sum(map(_resident_mb, _family(self.process.pid)))
            self.peak_mb = max(self.peak_mb, held)
            if held > self.memory_mb:
                self.broke_ceiling = True
                self._kill()
                return
            time.sleep(LOOK_EVERY)

    def _why_ended(self) -> Exception:
        said = " ".join(self._errors).strip()
        refused = re.search(
            r"MemoryError|bad_alloc|[Cc]annot allocate|failed to (map|allocate)|"
            r"temporarily unavailable|can't start new thread|not enough memory|"
            r"ctx->mem_buffer != NULL",
            said,
        )
        if self.broke_ceiling or refused:
            how = "was ended at" if self.broke_ceiling else "was refused more, at"
            return CeilingTooLow(
                f"the ceiling of {self.memory_mb:g} MB is too low: the process {how} "
                f"{self.peak_mb:.0f} MB.",
                self.peak_mb,
            )
        last = said.splitlines()[-1] if said else f"status {self.process.returncode}"
        return OSError(f"the process ended: {last}. Ask again: a new one is started.")


def _frugal(threads: int) -> dict[str, str]:
    """Return variables that keep libraries from setting memory aside for threads."""
    return {
        "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": str(threads),
        "GGML_NO_BACKTRACE": "1",  # else it starts a debugger when it is refused memory
        "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1",
    }  # fmt: skip


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.Error:
        return []


def _resident_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.Error:
        return 0.0


class EdgeAssistant:
    """Translates phrases and answers questions, inside a memory ceiling.

    `model_path` is a GGUF file (None: the course's translator), or a checkpoint folder
    with `engine="torch"`, for comparison. `memory_mb` is all that the process may hold,
    Python included; `seconds` the limit for the start and for each answer. Close it, or
    use `with`.

    Raises CeilingTooLow, a MemoryError, when the ceiling is too low: the process is
    ended, this one goes on. Raises TimeoutError for an answer that takes too long; the
    next question then starts a new process.

    Example:
        with EdgeAssistant(memory_mb=128) as device:
            print(device.translate("Two coffees, please.", to="tr"))
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        memory_mb: float = 128,
        threads: int = 1,
        seconds: float = 60,
        context: int = 512,
        engine: str = "llama.cpp",
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(
                f'engine "{engine}" is not one of {", ".join(ENGINES)}.'
                f"{suggest(engine, ENGINES)}"
            )
        if memory_mb <= 0 or seconds <= 0 or threads < 1:
            raise ValueError("memory_mb, seconds and threads must be above 0.")
        if engine == "llama.cpp":
            need(llama_cpp.why_not())
        self.path = Path(model_path) if model_path else model_file()
        if not self.path.exists():
            raise OSError(f"there is no model {self.path}. Write one: model_file().")
        self.seconds = seconds
        self._task = {
            "model": str(self.path.resolve()), "memory_mb": memory_mb,
            "threads": threads, "context": context, "engine": engine,
        }  # fmt: skip
        self._child: Child | None = None
        self._start()

    def _start(self) -> "Child":
        if self._child is None or self._child.process.poll() is not None:
            self.close()
            try:
                self._child = Child(self._task, self.seconds)
            except CeilingTooLow as error:
                raise self._advised(error) from None
        return self._child

    def _advised(self, error: CeilingTooLow) -> CeilingTooLow:
        remedy = "torch and Transformers take some hundred MB before any weights."
        if self._task["engine"] == "llama.cpp":
            weights = self.path.stat().st_size / 2**20
            remedy = (
                f"The file has {weights:.0f} MB, Python and llama.cpp reserve about "
                f"{OWN_MB}: give memory_mb={weights + OWN_MB:.0f} or more."
            )
        return CeilingTooLow(f"{error} {remedy}", error.held_mb)

    def _ask(self, question: str, budget: int, most: int) -> dict[str, Any]:
        what = {
            "messages": [{"role": "user", "content": question}],
            "thinking_budget": budget, "max_new_tokens": most,
        }  # fmt: skip
        try:
            said = self._start().ask(what, self.seconds)
        except CeilingTooLow as error:
            raise self._advised(error) from None
        if "error" in said:
            raise ValueError(f"the question was refused: {said['error']}")
        return said

    def answer(
        self, question: str, thinking_budget: int = 128, max_new_tokens: int = 64
    ) -> str:
        """Answer a question; `thinking_budget` 0 answers at once.

        Example:
            device.answer("What is 12 + 47 + 85?")  ->  "144"
        """
        return self._ask(question, thinking_budget, max_new_tokens)["answer"]

    def translate(self, text: str, to: str, source: str = "en") -> Translation:
        """Translate a phrase, and say what speaks against the result.

        One of the two languages is English. Raises ValueError for a pair that the model
        was not taught.

        Example:
            device.translate("The train leaves at nine.", to="de").text
        """
        if f"{source}-{to}" not in phrases.PAIRS:
            raise ValueError(
                f'"{source}-{to}" is not one of {", ".join(phrases.PAIRS)}. Other '
                "pairs go through English, in two steps."
            )
        translated = self._ask(phrases.question(text, to), 0, 48)["answer"]
        back = self._ask(phrases.question(translated, source), 0, 48)["answer"]
        found = doubts(text, translated, back, source, to)
        return Translation(text, translated, back, tuple(found))

    @property
    def start_seconds(self) -> float:
        """The seconds that the present process took to load the model."""
        return self._start().ready["seconds"]

    @property
    def peak_mb(self) -> float:
        """The most memory that the present process has held so far."""
        return self._start().peak_mb

    def limits(self) -> list[str]:
        """Say what is enforced here; a sentence with NOT says what isn't."""
        ready = self._start().ready
        kernel = "The kernel refuses what goes beyond the ceiling."
        network = "The process has no network."
        return [
            f"At most {self._task['memory_mb']:g} MB, looked at from outside: above it "
            "the process is ended.",
            kernel if ready["limited"] else f"NOT here (only on Linux): {kernel}",
            f"NOT here: {network}" if ready["network"] else network,
            f"At most {self.seconds:g} seconds for an answer.",
        ]

    def close(self) -> None:
        """End the process and give its memory back."""
        if self._child is not None:
            self._child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# A real phone


@dataclass(frozen=True)
class Phone:
    """What a model as q4_k_m takes on a phone, in bytes: the file and the KV cache."""

    model: str
    file: int
    kv_cache: int


class Phones(Table[Phone]):
    """One row for each model."""

    columns = ("model", "file", "KV cache", "together")
    noun = "models"

    def cells(self, item: Phone) -> Row:
        """Return one text a column."""
        sizes = (item.file, item.kv_cache, item.file + item.kv_cache)
        return (item.model, *(f"{size / 1e9:.2f} GB" for size in sizes))


def on_a_phone(
    models: Sequence[str] = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"),
    context: int = 2048,
) -> Phones:
    """Estimate what real models take on a phone as q4_k_m, llama.cpp's usual choice.

    Its layers have 4.83 bits a weight on average, its tables 6.56. Some files hold a
    tied output layer a second time, and are that much larger.

    Example:
        on_a_phone(["Qwen3-0.6B"])
    """
    rows = []
    for model in models:
        size = memory.dimensions(model)
        bits = 4.83 * (size.parameters - size.tables) + 6.5625 * size.tables
        cache = memory.kv_cache_bytes(size, context)
        rows.append(Phone(model, round(bits / 8), cache))
    return Phones(rows)


# What fits, and how well it translates


@dataclass(frozen=True)
class Fit:
    """One engine under a ceiling: whether it answered, and the memory it held."""

    engine: str
    memory_mb: float
    answer: str
    peak_mb: float
    seconds: float
    why_not: str = ""


class Fits(Table[Fit]):
    """Engines under ceilings, one row each."""

    columns = ("engine", "ceiling", "most held", "start", "answer")
    noun = "engines"

    def cells(self, item: Fit) -> Row:
        """Return one text a column."""
        return (
            item.engine,
            f"{item.memory_mb:g} MB",
            f"{item.peak_mb:.0f} MB",
            f"{item.seconds:.1f} s" if item.answer else "",
            item.answer or item.why_not,
        )


def fit(
    engine: str,
    memory_mb: float,
    question: str = "Translate into German: Two coffees, please.",
    model: str | Path | None = None,
    seconds: float = 120,
) -> Fit:
    """Ask one question in a process under a ceiling, and say how it went.

    `model` None is the course's translator, in the form that the engine reads.

    Example:
        Fits([fit("llama.cpp", 300), fit("torch", 300), fit("torch", 4000)])
    """
    path = model or (merged_folder() if engine == "torch" else model_file())
    try:
        with EdgeAssistant(path, memory_mb, seconds=seconds, engine=engine) as device:
            text = device.answer(question, 0)
            return Fit(engine, memory_mb, text, device.peak_mb, device.start_seconds)
    except CeilingTooLow as error:
        return Fit(engine, memory_mb, "", error.held_mb, 0.0, "ended")


@dataclass(frozen=True)
class PairScore:
    """Translations of one language pair: how many are exact, and their chrF."""

    pair: str
    number: int
    exact: int
    chrf: float  # 0 to 100


class PairScores(Table[PairScore]):
    """One row for each language pair."""

    columns = ("pair", "number", "exact", "chrF")
    noun = "pairs"

    def cells(self, item: PairScore) -> Row:
        """Return one text a column."""
        share = item.exact / item.number
        return (item.pair, str(item.number), f"{share:.1%}", f"{item.chrf:.1f}")


def score(problems: Sequence[Problem], answers: Sequence[str]) -> PairScores:
    """Score translations by pair: to the letter, and by chrF, which counts pieces.

    chrF (Popović 2015) compares letters in groups of one to six, by sacrebleu. Raises
    ImportError without it.

    Example:
        score(problems, [device.answer(p.question, 0) for p in problems])
    """
    need(why_missing("chrF", {"sacrebleu": "sacrebleu"}, "capstones"))
    from sacrebleu.metrics import CHRF

    pairs: dict[str, list[tuple[Problem, str]]] = {}
    for problem, answer in zip(problems, answers, strict=True):
        pairs.setdefault(problem.kind, []).append((problem, answer.strip()))
    rows = []
    for pair, items in sorted(pairs.items()):
        expected = [problem.expected for problem, _ in items]
        written = [answer for _, answer in items]
        exact = sum(problem.grade(answer) for problem, answer in items)
        chrf = CHRF().corpus_score(written, [expected]).score
        rows.append(PairScore(pair, len(items), exact, chrf))
    return PairScores(rows)
