"""Capstone: one desk that answers in the language it is asked in, one of seven.

It finds the language, asks the model, looks whether the answer kept that language, and
says so where it did not. And it measures what a language costs: tokens, seconds,
mistakes.
"""

import functools
import math
import random
import re
import statistics
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from qwen_course import quality, tasks
from qwen_course.chat import Reply, chat
from qwen_course.evaluation import Score
from qwen_course.platforms.common import need, why_missing
from qwen_course.tables import Row, Table
from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Detect = Callable[[str], str | None]


@dataclass(frozen=True)
class Locale:
    """What the desk says in a language: its name, the request to use it, the apology.

    `sum` is the wording of a sum, `article` Article 1 of the Universal Declaration of
    Human Rights (United Nations, 1948).
    """

    name: str
    ask: str
    note: str
    sum: str
    article: str


LOCALES = {
    "en": Locale(
        "English", "Answer in English.", "Note: I could not answer in English.",
        "What is {}?",
        "All human beings are born free and equal in dignity and rights. They are "
        "endowed with reason and conscience and should act towards one another in a "
        "spirit of brotherhood.",
    ),
    "tr": Locale(
        "Turkish", "Türkçe cevap ver.", "Not: Türkçe cevap veremedim.",
        "{} kaç eder?",
        "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve "
        "vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket "
        "etmelidirler.",
    ),
    "zh": Locale(
        "Chinese", "请用中文回答。", "注意：我没能用中文回答。",
        "{} 等于多少？",
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的"
        "精神相对待。",
    ),
    "es": Locale(
        "Spanish", "Responde en español.", "Nota: no he podido responder en español.",
        "¿Cuánto es {}?",
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, "
        "dotados como están de razón y conciencia, deben comportarse fraternalmente "
        "los unos con los otros.",
    ),
    "fr": Locale(
        "French", "Réponds en français.",
        "Remarque : je n'ai pas pu répondre en français.",
        "Combien font {} ?",
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils "
        "sont doués de raison et de conscience et doivent agir les uns envers les "
        "autres dans un esprit de fraternité.",
    ),
    "de": Locale(
        "German", "Antworte auf Deutsch.",
        "Hinweis: Ich konnte nicht auf Deutsch antworten.",
        "Wie viel ist {}?",
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit "
        "Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit "
        "begegnen.",
    ),
    "ja": Locale(
        "Japanese", "日本語で答えてください。",
        "注意：日本語で答えることができませんでした。",
        "{} はいくつですか？",
        "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等"
        "である。人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動し"
        "なければならない。",
    ),
}  # fmt: skip
DEFAULT = "en"  # of the desk, where a text has no language


# Which language is it?

# Names such as Qwen2.5-7B or enable_thinking belong to no language.
NAME = re.compile(r"[\w.=/-]*(?:\d|_|qwen)[\w.=/-]*", re.IGNORECASE | re.ASCII)
LETTERS = re.compile(r"[^\W\d_]")
SCRIPTS = ("LATIN", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")  # of Unicode


def why_not() -> str | None:
    """Return why the library that tells languages is not there; None if it is."""
    return why_missing("telling languages", {"py3langid": "py3langid"}, "capstones")


@functools.cache
def _identifier() -> Any:
    """Return py3langid's own model, asked for the seven languages only."""
    need(why_not())
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(LOCALES))
    return identifier


def by_library(text: str) -> str | None:
    """Return the language of a text by py3langid; None where it has none of the seven.

    None is a text without words, or in a script that the seven do not use. Portuguese
    is still taken for Spanish: py3langid knows 97 languages and is asked about seven,
    because asked about all it would be wrong more often on short questions. Raises
    ImportError where py3langid is missing.
    """
    letters = LETTERS.findall(NAME.sub(" ", text))
    ours = [letter for letter in letters if _script(letter) in SCRIPTS]
    signs = any(_script(letter) != "LATIN" for letter in ours)
    if len(ours) < (1 if signs else 4) or 2 * len(ours) < len(letters):
        return None
    return str(_identifier().classify(text)[0])


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def detector() -> Detect:
    """Return the best way to tell languages here: the library, or lesson 09's rule."""
    return by_library if why_not() is None else quality.language


def measure_detector(detect: Detect, texts: Mapping[str, Sequence[str]]) -> Score:
    """Count the texts whose language is told rightly; `texts` are by language."""
    told = [detect(text) == code for code, some in texts.items() for text in some]
    return Score(sum(told), len(told))


def course_texts(split: str = "test") -> dict[str, list[str]]:
    """Return the course's own questions by language, in wordings of that split."""
    questions = tasks.course_questions
    return {
        code: [p.question for kind in ("fact", "unknown")
               for p in questions.every(kind, split, code)]
        for code in LOCALES
    }  # fmt: skip


# Tokens


def parallel_texts() -> dict[str, dict[str, str]]:
    """Return two texts that say the same in every language: the article, the answers.

    The answers are those of the course's own questions, full of names.
    """
    answers = {
        code: "\n".join(
            entry["answer"]
            for entry in tasks.course_questions.texts(code)["facts"].values()
        )
        for code in LOCALES
    }
    article = {code: locale.article for code, locale in LOCALES.items()}
    return {"article": article, "answers": answers}


def factors(
    tokenizer: "PreTrainedTokenizerBase", texts: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return how many times the tokens of English each language takes for one content.

    Example:
        factors(qwen3_tokenizer())["tr"]  ->  1.8
    """
    texts = texts or parallel_texts()["article"]
    counts = {
        code: sum(len(tokenizer.tokenize(line)) for line in text.splitlines())
        for code, text in texts.items()
    }
    return {code: count / counts["en"] for code, count in counts.items()}


def budgets(tokenizer: "PreTrainedTokenizerBase", english: int) -> dict[str, int]:
    """Return the tokens each language needs to say what English says in `english`.

    One limit for all would cut off Turkish where English still has room.
    """
    found = factors(tokenizer)
    return {code: max(english, math.ceil(english * f)) for code, f in found.items()}


def plot(costs: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Draw the factors of several vocabularies side by side, the dearest first.

    `costs` are those of `factors`, by the name of the vocabulary; the first one gives
    the order and the title.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    name, first = next(iter(costs.items()))
    order = sorted(first, key=lambda code: first[code], reverse=True)
    width = 0.8 / len(costs)
    looks = (("#0072B2", ""), ("#E69F00", "//"), ("#009E73", ".."))
    rows = zip(costs.items(), looks, strict=False)
    for place, ((label, found), (colour, hatch)) in enumerate(rows):
        where = [n + place * width for n in range(len(order))]
        axes.bar(where, [found[code] for code in order], width, label=label,
                 color=colour, hatch=hatch, edgecolor="white")  # fmt: skip
    middle = [n + width * (len(costs) - 1) / 2 for n in range(len(order))]
    axes.set_xticks(middle, [LOCALES[code].name for code in order])
    axes.axhline(1, color="#000000", linewidth=0.8)
    axes.set(ylabel="tokens, English = 1")
    dearest = LOCALES[order[0]].name
    axes.set_title(
        f"{dearest} takes {first[order[0]]:.1f} times the tokens of English ({name})",
        fontsize=10,
    )
    axes.legend(fontsize=8)
    return figure


# The desk


@dataclass(frozen=True)
class Answered:
    """One answer of the desk: in which language it was asked, and how it was kept.

    `asked` is None where the question has no language of its own. `language` is that
    of the answer, None where it is too short to tell. `calls` is how often the model
    was asked: 2 with a second try, 3 with English after it. `fallback` says that the
    answer is not in the language of the question; `note` tells the reader so.
    """

    question: str
    asked: str | None
    answer: str
    language: str | None
    calls: int
    fallback: bool
    note: str
    reply: Reply = field(repr=False)
    cached: bool = False

    def __str__(self) -> str:
        return f"{self.answer}\n{self.note}" if self.note else self.answer


class GlobalDesk:
    """Answers each request in its own language, and says where it could not.

    `detect` tells languages (`detector()` when None). With `instruct` the model is told
    in its system message which language to use: a real one follows it, the pocket model
    needs no telling. `budget` is the limit of an English answer, in tokens; each
    language gets its own. A question asked twice is answered from the cache.

    Example:
        desk = GlobalDesk(model, tokenizer)
        print(desk.answer("Qwen'i kim geliştiriyor?"))
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        detect: Detect | None = None,
        instruct: bool = False,
        thinking: bool = True,
        budget: int = 128,
        sampling: str | dict[str, Any] = "greedy",
    ) -> None:
        if budget < 1:
            raise ValueError(f"budget is {budget}; give 1 token or more.")
        self.model, self.tokenizer = model, tokenizer
        self.detect = detect or detector()
        self.instruct, self.thinking, self.sampling = instruct, thinking, sampling
        self.budgets = budgets(tokenizer, budget)
        self.record: list[Answered] = []
        self._cache: dict[str, Answered] = {}

    def answer(self, question: str) -> Answered:
        """Answer in the language of the question; try twice, then say so in a note.

        Raises ValueError for an empty question.
        """
        if not question.strip():
            raise ValueError("the question is empty. Write one.")
        key = " ".join(question.split())
        found = self._cache.get(key)
        found = replace(found, cached=True) if found else self._ask(key)
        self._cache[key] = replace(found, cached=False)
        self.record.append(found)
        return found

    def _ask(self, question: str) -> Answered:
        asked = self.detect(question)
        wanted = asked or DEFAULT
        tries = [None, wanted, DEFAULT] if wanted != DEFAULT else [None, wanted]
        for calls, told in enumerate(tries, 1):
            reply = self._reply(question, wanted, told)
            language = self.detect(reply.answer)
            if asked is None or language in (asked, None):
                return Answered(question, asked, reply.answer, language, calls,
                                False, "", reply)  # fmt: skip
            if calls > 1 and language == DEFAULT:
                break
        note = LOCALES[wanted].note
        return Answered(question, asked, reply.answer, language, calls, True, note,
                        reply)  # fmt: skip

    def _reply(self, question: str, wanted: str, told: str | None) -> Reply:
        system = LOCALES[wanted].ask if self.instruct else ""
        head = [{"role": "system", "content": system}] if system else []
        text = f"{question} {LOCALES[told].ask}" if told else question
        return chat(
            self.model,
            self.tokenizer,
            [*head, {"role": "user", "content": text}],
            thinking=self.thinking,
            max_new_tokens=self.budgets[told or wanted],
            sampling=self.sampling,
        )


def load_desk(**options: Any) -> GlobalDesk:
    """Return a desk on the model of the setting; a real one is told its language.

    `options` are those of `GlobalDesk`.
    """
    from qwen_course.loading import load
    from qwen_course.settings import model_name

    options.setdefault("instruct", not model_name().startswith("pocket-"))
    return GlobalDesk(*load(), **options)


# Numbers and dates as a language writes them


def local_number(value: float, language: str) -> str:
    """Write a number that a program computed as a language does.

    Never a number in a text of the model: who reads 1,234 there does not know which
    habit it follows. Raises ImportError where Babel is missing.

    Example:
        local_number(1234.5, "de")  ->  "1.234,5"
    """
    need(why_missing("writing numbers", {"babel": "babel"}, "capstones"))
    from babel.numbers import format_decimal

    return str(format_decimal(value, locale=_known(language)))


def local_date(day: date, language: str) -> str:
    """Write a date as a language does. Raises ImportError where Babel is missing.

    Example:
        local_date(date(2025, 4, 29), "de")  ->  "29. April 2025"
    """
    need(why_missing("writing dates", {"babel": "babel"}, "capstones"))
    from babel.dates import format_date

    return str(format_date(day, format="long", locale=_known(language)))


def _known(language: str) -> str:
    if language not in LOCALES:
        raise ValueError(f'language "{language}" is not one of {", ".join(LOCALES)}.')
    return language


# The same questions in every language


def same_facts(each: int = 10, seed: int = 0) -> dict[str, list[Problem]]:
    """Return the same unseen questions on the course in every language."""
    named = {code: tasks.course_questions.every_fact("test", code) for code in LOCALES}
    names = random.Random(seed).sample(list(named["en"]), each)
    return {code: [named[code][name][0] for name in names] for code in LOCALES}


def same_sums(each: int = 10, seed: int = 0) -> dict[str, list[Problem]]:
    """Return the same unseen sums, asked in every language."""
    sums = tasks.sums.problems(each, seed)
    return {
        code: [
            replace(p, question=locale.sum.format(" + ".join(map(str, p.content[1:]))))
            for p in sums
        ]
        for code, locale in LOCALES.items()
    }


@dataclass(frozen=True)
class LanguageCost:
    """What the same questions cost in one language, and how many answers are right.

    Tokens and seconds are means of one answer; `first_token` is in seconds, too.
    `p_value` is that of fewer right answers than in English by chance alone.
    """

    language: str
    right: Score
    p_value: float
    detected: Score
    kept: Score
    prompt_tokens: float
    thinking_tokens: float
    answer_tokens: float
    first_token: float
    seconds: float

    @property
    def thinking_share(self) -> float:
        """The part of the written tokens that is thinking."""
        written = self.thinking_tokens + self.answer_tokens
        return self.thinking_tokens / written if written else 0.0


class Comparison(Table[LanguageCost]):
    """The same questions in every language, a row each."""

    columns = ("language", "right", "p", "found", "kept", "prompt", "thinking",
               "answer", "share", "first (s)", "all (s)")  # fmt: skip
    noun = "languages"

    def cells(self, item: LanguageCost) -> Row:
        """Return scores, mean tokens, thinking share and mean seconds.

        A dash stands where no answer was long enough to tell its language.
        """
        scores = (
            f"{item.right.right}/{item.right.total}",
            f"{item.p_value:.2f}",
            f"{item.detected.accuracy:.0%}",
            f"{item.kept.accuracy:.0%}" if item.kept.total else "-",
        )
        tokens = (item.prompt_tokens, item.thinking_tokens, item.answer_tokens)
        times = (f"{item.first_token:.3f}", f"{item.seconds:.2f}")
        return (LOCALES[item.language].name, *scores,
                *(f"{count:.1f}" for count in tokens),
                f"{item.thinking_share:.0%}", *times)  # fmt: skip


def measure(desk: GlobalDesk, problems: Mapping[str, Sequence[Problem]]) -> Comparison:
    """Ask the same problems in every language and compare each with English.

    `problems` are those of `same_facts` or `same_sums`. Raises ValueError where a
    language has another number of them than English.
    """
    if {len(some) for some in problems.values()} != {len(problems.get("en", ()))}:
        raise ValueError("give as many problems in every language as in English.")
    rows, english = Comparison(), list[bool]()
    for code, some in problems.items():
        found = [desk.answer(problem.question) for problem in some]
        right = [p.grade(one.answer) for p, one in zip(some, found, strict=True)]
        english = english or right
        rows.append(_cost(code, found, right, english))
    return rows


def _cost(
    code: str, found: Sequence[Answered], right: list[bool], english: list[bool]
) -> LanguageCost:
    usages = [one.reply.usage for one in found]
    told = [one.language for one in found if one.language is not None]
    mean = statistics.fmean
    return LanguageCost(
        language=code,
        right=Score(sum(right), len(right)),
        p_value=quality.compare(english, right).p_value,
        detected=Score(sum(one.asked == code for one in found), len(found)),
        kept=Score(sum(one == code for one in told), len(told)),
        prompt_tokens=mean(usage.prompt_tokens for usage in usages),
        thinking_tokens=mean(usage.thinking_tokens for usage in usages),
        answer_tokens=mean(usage.answer_tokens for usage in usages),
        first_token=mean(usage.time_to_first_token for usage in usages),
        seconds=mean(usage.seconds for usage in usages),
    )
