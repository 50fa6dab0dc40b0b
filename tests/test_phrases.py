"""The phrasebook: sentences that a native would write, and splits that never meet."""

import random
import re
from collections import defaultdict

import pytest

from qwen_course.tasks import phrases
from qwen_course.tasks.phrases import Phrase
from qwen_course.tasks.problem import split_of

# Each checked by hand; the comment says what it is an example of.
CHECKED = [
    # articles and the accusative: einen, eine, ein
    (
        "order of two",
        {"a": (1, "coffee"), "b": (2, "egg")},
        "A coffee and two eggs, please.",
        "Bir kahve ve iki yumurta, lütfen.",
        "Einen Kaffee und zwei Eier, bitte.",
        "Un café et deux œufs, s'il vous plaît.",
        "Un café y dos huevos, por favor.",
    ),
    # "an", a Turkish capital with its dot, elision after de
    (
        "by the kilo",
        {"n": (2, "kilo"), "a": "orange"},
        "Two kilos of oranges, please.",
        "İki kilo portakal, lütfen.",
        "Zwei Kilo Orangen, bitte.",
        "Deux kilos d'oranges, s'il vous plaît.",
        "Dos kilos de naranjas, por favor.",
    ),
    (
        "order",
        {"a": (1, "umbrella")},
        "An umbrella, please.",
        "Bir şemsiye, lütfen.",
        "Einen Regenschirm, bitte.",
        "Un parapluie, s'il vous plaît.",
        "Un paraguas, por favor.",
    ),
    # irregular plurals; the Turkish plural follows the last vowel
    (
        "what they cost",
        {"a": "newspaper"},
        "How much are the newspapers?",
        "Gazeteler ne kadar?",
        "Was kosten die Zeitungen?",
        "Combien coûtent les journaux ?",
        "¿Cuánto cuestan los periódicos?",
    ),
    # l' before a vowel
    (
        "price",
        {"a": "egg", "price": 35},
        "The egg costs 35 euros.",
        "Yumurta 35 avro.",
        "Das Ei kostet 35 Euro.",
        "L'œuf coûte 35 euros.",
        "El huevo cuesta 35 euros.",
    ),
    # half hours: German counts towards the next one; one o'clock is singular
    (
        "leaving",
        {"a": "train", "when": (1, True, "monday")},
        "The train leaves at half past one on Monday.",
        "Tren pazartesi günü saat bir buçukta kalkıyor.",
        "Der Zug fährt am Montag um halb zwei ab.",
        "Le train part lundi à une heure et demie.",
        "El tren sale el lunes a la una y media.",
    ),
    # the suffix of the hour, the compound of city and vehicle
    (
        "leaving for",
        {"a": "plane", "city": "Istanbul", "when": (3, False, None)},
        "The plane to Istanbul leaves at three.",
        "İstanbul uçağı saat üçte kalkıyor.",
        "Das Flugzeug nach Istanbul fliegt um drei Uhr ab.",
        "L'avion pour Istanbul part à trois heures.",
        "El avión a Estambul sale a las tres.",
    ),
    # the Turkish dative and locative of names
    (
        "tickets",
        {"n": (2, "ticket"), "city": "London"},
        "Two tickets to London, please.",
        "Londra'ya iki bilet, lütfen.",
        "Zwei Fahrkarten nach London, bitte.",
        "Deux billets pour Londres, s'il vous plaît.",
        "Dos billetes a Londres, por favor.",
    ),
    (
        "staying",
        {"n": (1, "week"), "city": "Paris"},
        "I am staying in Paris for a week.",
        "Paris'te bir hafta kalıyorum.",
        "Ich bleibe eine Woche in Paris.",
        "Je reste une semaine à Paris.",
        "Me quedo una semana en París.",
    ),
    # definite and indefinite: Turkish marks only the first with a case
    (
        "looking for the",
        {"a": "library"},
        "I am looking for the library.",
        "Kütüphaneyi arıyorum.",
        "Ich suche die Bibliothek.",
        "Je cherche la bibliothèque.",
        "Busco la biblioteca.",
    ),
    (
        "looking for a",
        {"a": "supermarket"},
        "I am looking for a supermarket.",
        "Bir süpermarket arıyorum.",
        "Ich suche einen Supermarkt.",
        "Je cherche un supermarché.",
        "Busco un supermercado.",
    ),
    # the genitive, the dative, du and del
    (
        "standing",
        {"a": "bank", "where": "next_to", "b": "restaurant"},
        "The bank is next to the restaurant.",
        "Banka restoranın yanında.",
        "Die Bank ist neben dem Restaurant.",
        "La banque est à côté du restaurant.",
        "El banco está al lado del restaurante.",
    ),
    (
        "standing",
        {"a": "museum", "where": "opposite", "b": "station"},
        "The museum is opposite the station.",
        "Müze istasyonun karşısında.",
        "Das Museum ist gegenüber dem Bahnhof.",
        "Le musée est en face de la gare.",
        "El museo está enfrente de la estación.",
    ),
    # the participle agrees in French and Spanish
    (
        "closed",
        {"a": "pharmacy", "day": "wednesday"},
        "The pharmacy is closed on Wednesday.",
        "Eczane çarşamba günü kapalı.",
        "Die Apotheke ist am Mittwoch geschlossen.",
        "La pharmacie est fermée mercredi.",
        "La farmacia está cerrada el miércoles.",
    ),
]


@pytest.mark.parametrize(
    ("pattern", "slots", "en", "tr", "de", "fr", "es"),
    CHECKED,
    ids=[sentence[2] for sentence in CHECKED],
)
def test_a_sentence_is_what_a_native_would_write(pattern, slots, en, tr, de, fr, es):
    phrase = Phrase(pattern, tuple(slots.items()))

    written = [phrase.text(language) for language in ("en", "tr", "de", "fr", "es")]

    assert written == [en, tr, de, fr, es]


def drawn(number: int) -> list[Phrase]:
    rng = random.Random(5)
    return [phrases.draw_phrase(rng) for _ in range(number)]


def test_no_sentence_has_two_meanings_so_that_each_has_one_translation():
    meanings = defaultdict(set)
    for phrase in drawn(8000):
        for language in phrases.book()["languages"]:
            meanings[language, phrase.text(language)].add(phrase)

    assert [text for text, found in meanings.items() if len(found) > 1] == []


def test_every_sentence_is_whole_in_every_language():
    for phrase in drawn(2000):
        for language in phrases.book()["languages"]:
            text = phrase.text(language)
            assert re.fullmatch(r"¿?[A-ZÀ-ÖÜİÇŞŒÉ][^{}]*[.?]", text), text
            assert "  " not in text
            assert " de le " not in text
            assert " de el " not in text


VOWELS = "aıouâeiöü"
FRONT, ROUND, HARD = "eiöü", "ouöü", "fstkçşhp"


def suffix(word: str, wide: bool, buffer: str, hard: bool = False) -> str:
    """Return a Turkish suffix by the rules of harmony, independent of the book."""
    last = [letter for letter in word.lower() if letter in VOWELS][-1]
    front = last in FRONT
    if wide:
        vowel = "e" if front else "a"
    else:
        vowel = {(1, 1): "ü", (1, 0): "i", (0, 1): "u", (0, 0): "ı"}[
            (int(front), int(last in ROUND))
        ]
    if hard:
        return ("t" if word[-1] in HARD else "d") + vowel
    return (buffer if word[-1] in VOWELS else "") + vowel


def test_turkish_suffixes_follow_the_rules_of_harmony():
    book = phrases.book()
    for group in ("places", "landmarks"):
        for entry in book[group].values():
            one, many, acc, gen = re.split("[/ ]", entry["tr"])
            assert acc == one + suffix(one, False, "y")
            assert gen == one + suffix(one, False, "n") + "n"
            assert many == one + "l" + suffix(one, True, "") + "r"
    for entry in book["cities"].values():
        city, to, inside = entry["tr"].split(" ")
        assert to == f"{city}'{suffix(city, True, 'y')}"
        assert inside == f"{city}'{suffix(city, True, '', hard=True)}"


def test_turkish_hours_and_plurals_follow_them_too():
    book = phrases.book()
    numbers = book["languages"]["tr"]["numbers"]
    hours = [number + suffix(number, True, "", hard=True) for number in numbers]
    assert hours[3] == "dörtte"
    assert book["turkish_hours"] == hours
    for group in phrases.NOUNS:
        for entry in book[group].values():
            one, many = re.split("[/ ]", entry["tr"])[:2]
            assert many == one + "l" + suffix(one, True, "") + "r"


def test_training_and_test_never_share_a_phrase_in_any_direction():
    train = phrases.problems(3000, seed=1, split="train")
    test = phrases.problems(800, seed=2, split="test")

    assert not {p.content for p in train} & {p.content for p in test}
    texts = {p.question.partition(": ")[2] for p in train} | {p.answer for p in train}
    asked = {p.question.partition(": ")[2] for p in test} | {p.answer for p in test}
    assert not texts & asked
    assert {split_of(p.content) for p in test} == {"test"}


def test_a_pair_can_be_chosen_and_a_wrong_one_is_told():
    assert {p.kind for p in phrases.problems(20, pair="tr-en")} == {"tr-en"}
    with pytest.raises(ValueError, match='"en-tr"?'):
        phrases.problems(1, pair="en-rt")
    with pytest.raises(ValueError, match="not one of en, tr, de, fr, es"):
        phrases.question("Hello.", "it")


def test_a_translation_is_right_only_to_the_letter():
    problem = phrases.problems(1, pair="en-de")[0]

    assert problem.grade(problem.answer)
    assert not problem.grade(problem.answer.lower())
