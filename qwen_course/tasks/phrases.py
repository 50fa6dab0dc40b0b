"""A phrasebook in five languages: sentences put together from words, and translated.

A sentence is a pattern with its slots filled, both from `data/phrases.yaml`; the
grammar below picks the forms that each language needs. English is on one side of every
translation: English to Turkish, German, French and Spanish, and back.
"""

import functools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from qwen_course.datafiles import read_yaml
from qwen_course.errors import suggest
from qwen_course.tasks.problem import Problem, distinct

SKILL = "phrases"
OTHERS = ("tr", "de", "fr", "es")
PAIRS = tuple(pair for code in OTHERS for pair in (f"en-{code}", f"{code}-en"))
GROUPS = {  # names for several of the book's groups of words
    "goods": ("drinks", "produce", "things"),
    "countable": ("produce", "things"),
    "sights": ("places", "landmarks"),
}
NOUNS = ("drinks", "produce", "things", "others", "stays", "places", "landmarks",
         "vehicles", "events")  # fmt: skip
GERMAN = {  # the (nominative, accusative, dative), a (accusative)
    "m": ("der", "den", "dem", "einen"),
    "f": ("die", "die", "der", "eine"),
    "n": ("das", "das", "dem", "ein"),
}
Forms = SimpleNamespace  # the forms of one filling, such as `the` and `counted`
Slots = tuple[tuple[str, Any], ...]  # the name of each slot, and what fills it


@functools.cache
def book() -> dict[str, Any]:
    """Return the phrasebook: languages, words and patterns, as in its YAML file."""
    return read_yaml("phrases")


def language_name(code: str) -> str:
    """Return the English name of a language; ValueError for one that is not here.

    >>> language_name("tr")
    'Turkish'
    """
    known = book()["languages"]
    if code not in known:
        raise ValueError(
            f'language "{code}" is not one of {", ".join(known)}.{suggest(code, known)}'
        )
    return known[code]["name"]


@dataclass(frozen=True)
class Phrase:
    """One meaning, in no language yet: a pattern and what fills its slots."""

    pattern: str
    slots: Slots

    def text(self, language: str) -> str:
        """Return the sentence in a language: en, tr, de, fr or es.

        >>> Phrase("order", (("a", (2, "coffee")),)).text("de")
        'Zwei Kaffee, bitte.'
        """
        language_name(language)
        pattern = book()["patterns"][self.pattern]
        filled = {
            name: _fill(pattern["slots"][name], value, language)
            for name, value in self.slots
        }
        return _capital(_join(pattern[language].format(**filled), language), language)


# The forms of words


def _capital(text: str, language: str) -> str:
    """Write the first letter large; a Turkish i keeps its dot."""
    place = 1 if text[0] == "¿" else 0
    first = text[place]
    large = "İ" if (language, first) == ("tr", "i") else first.upper()
    return text[:place] + large + text[place + 1 :]


def _join(text: str, language: str) -> str:
    """Contract as French and Spanish do: du, d'oranges, del."""
    if language == "es":
        return text.replace(" de el ", " del ")
    if language == "fr":
        return re.sub(r" de (?=[aeiouœ])", " d'", text.replace(" de le ", " du "))
    return text


def _number(count: int, language: str) -> str:
    return book()["languages"][language]["numbers"][count - 1]


@functools.cache
def _noun(word: str, language: str) -> Forms:
    """Return the forms of a noun: one, many, a, the, the_many, and its cases."""
    group = next(group for group in NOUNS if word in book()[group])
    forms = _FORMS[language](book()[group][word][language])
    forms.closed = {
        ("fr", "m"): "fermé", ("fr", "f"): "fermée",
        ("es", "m"): "cerrado", ("es", "f"): "cerrada",
    }.get((language, forms.gender))  # fmt: skip
    return forms


def _english(entry: str) -> Forms:
    one, many = entry.split("/")
    article = "an" if one[0] in "aeio" or one == "umbrella" else "a"
    return Forms(
        gender="", one=one, many=many, a=f"{article} {one}",
        the=f"the {one}", the_many=f"the {many}",
    )  # fmt: skip


def _turkish(entry: str) -> Forms:
    one, many, *cases = re.split("[/ ]", entry)
    acc, gen = cases if len(cases) == 2 else ("", "")
    of = cases[0] if len(cases) == 1 else ""
    return Forms(
        gender="", one=one, many=many, a=f"bir {one}",
        the=one, the_many=many, acc=acc, gen=gen, of=of,
    )  # fmt: skip


def _german(entry: str) -> Forms:
    gender, words = entry.split(" ", 1)
    words, _, verb = words.partition(" ")
    one, many = words.split("/")
    nominative, accusative, dative, a = GERMAN[gender]
    return Forms(
        gender=gender, one=one, many=many, a=f"{a} {one}",
        the=f"{nominative} {one}", the_many=f"die {many}",
        acc=f"{accusative} {one}", dat=f"{dative} {one}", verb=verb,
    )  # fmt: skip


def _french(entry: str) -> Forms:
    gender, words = entry.split(" ", 1)
    one, many = words.split("/")
    article = "le " if gender == "m" else "la "
    if one[0] in "aeiouhœ":
        article = "l'"
    return Forms(
        gender=gender, one=one, many=many,
        a=f"{'un' if gender == 'm' else 'une'} {one}",
        the=article + one, the_many=f"les {many}",
    )  # fmt: skip


def _spanish(entry: str) -> Forms:
    gender, words = entry.split(" ", 1)
    one, many = words.split("/")
    the, the_many, a = ("el", "los", "un") if gender == "m" else ("la", "las", "una")
    return Forms(
        gender=gender, one=one, many=many, a=f"{a} {one}",
        the=f"{the} {one}", the_many=f"{the_many} {many}",
    )  # fmt: skip


_FORMS: dict[str, Callable[[str], Forms]] = {
    "en": _english, "tr": _turkish, "de": _german, "fr": _french, "es": _spanish,
}  # fmt: skip


# What fills a slot


def _counted(count: int, word: str, language: str) -> Forms:
    """Return a noun with its number; one is an article, and Turkish has no plural."""
    forms = _noun(word, language)
    if count == 1:
        return Forms(counted=forms.a)
    noun = forms.one if language == "tr" else forms.many
    return Forms(counted=f"{_number(count, language)} {noun}")


def _city(name: str, language: str) -> Forms:
    city, *cases = book()["cities"][name][language].split(" ")
    to, inside = cases or ("", "")
    return Forms(name=city, to=to, inside=inside)


def _day(day: str, language: str) -> str:
    name = book()["days"][day][language]
    wordings = {
        "en": "on {}",
        "tr": "{} günü",
        "de": "am {}",
        "fr": "{}",
        "es": "el {}",
    }
    return wordings[language].format(name)


def _hour(hour: int, half: bool, language: str) -> str:
    """Return "at nine" or "at half past nine"; German counts towards the next hour."""
    word = _number(hour, language)
    if language == "en":
        return f"at half past {word}" if half else f"at {word}"
    if language == "tr":
        at = book()["turkish_hours"][hour - 1]
        return f"saat {word} buçukta" if half else f"saat {at}"
    if language == "de":
        if not half:
            return f"um {word} Uhr"
        return "um halb " + _number(hour + 1, language)
    if language == "fr":
        hours = "une heure" if hour == 1 else f"{word} heures"
        return f"à {hours} et demie" if half else f"à {hours}"
    hours = "a la una" if hour == 1 else f"a las {word}"
    return f"{hours} y media" if half else hours


def _time(value: tuple[int, bool, str | None], language: str) -> str:
    hour, half, day = value
    at = _hour(hour, half, language)
    if day is None:
        return at
    first, last = (at, _day(day, language))
    return f"{first} {last}" if language == "en" else f"{last} {first}"


def _fill(slot: str, value: Any, language: str) -> Any:
    """Return a filling in a language: the forms of a noun, or a text."""
    if slot.startswith("counted "):
        count, word = value
        return _counted(count, word, language)
    if slot == "time":
        return _time(value, language)
    if slot == "price":
        return value
    if slot == "days":
        return _day(value, language)
    if slot == "relations":
        return book()["relations"][value][language]
    return _city(value, language) if slot == "cities" else _noun(value, language)


# Drawing


def _words(group: str) -> list[str]:
    """Return the words of a group of the book, of several, or the word itself."""
    groups = GROUPS.get(group, (group,))
    return [word for name in groups for word in book().get(name, (group,))]


def _draw(slot: str, rng: random.Random) -> Any:
    if slot.startswith("counted "):
        return rng.randint(1, 12), rng.choice(_words(slot.removeprefix("counted ")))
    if slot == "price":
        return rng.randint(2, 99)
    if slot == "time":
        day = rng.choice(_words("days")) if rng.random() < 0.65 else None
        half = rng.random() < 0.35
        return rng.randint(1, 11 if half else 12), half, day
    return rng.choice(_words(slot))


def draw_phrase(rng: random.Random) -> Phrase:
    """Draw a phrase: a pattern by its weight, then its slots."""
    patterns = book()["patterns"]
    weights = [pattern.get("weight", 1) for pattern in patterns.values()]
    name = rng.choices(list(patterns), weights)[0]
    while True:
        slots = tuple(
            (slot, _draw(kind, rng)) for slot, kind in patterns[name]["slots"].items()
        )
        words = [value[1] if isinstance(value, tuple) else value for _, value in slots]
        if len(set(words)) == len(words):  # no "a tea and two teas"
            return Phrase(name, slots)


def question(text: str, language: str) -> str:
    """Return what asks the model for a translation into a language.

    >>> question("Two coffees, please.", "de")
    'Translate into German: Two coffees, please.'
    """
    return f"Translate into {language_name(language)}: {text}"


def make(rng: random.Random, pair: str | None = None) -> Problem:
    """Make one translation of a language pair, such as "en-tr" (drawn when None).

    A phrase is of one split in all languages: who has learnt it in one direction would
    know it in another.
    """
    phrase = draw_phrase(rng)
    pair = pair or rng.choice(PAIRS)
    source, target = pair.split("-")
    answer = phrase.text(target)
    return Problem(
        skill=SKILL,
        kind=pair,
        content=(SKILL, phrase.pattern, *phrase.slots),
        question=question(phrase.text(source), target),
        thinking="",
        answer=answer,
        expected=answer,
        exact=True,
    )


def problems(
    n: int, seed: int = 0, split: str = "test", pair: str | None = None
) -> list[Problem]:
    """Return `n` translations of a language pair (all mixed when None).

    Raises ValueError for an unknown pair.

    >>> problems(1, pair="en-fr")[0].kind
    'en-fr'
    """
    if pair is not None and pair not in PAIRS:
        raise ValueError(
            f'pair "{pair}" is not one of {", ".join(PAIRS)}.{suggest(pair, PAIRS)}'
        )
    return distinct(lambda rng: make(rng, pair), n, seed, split)
