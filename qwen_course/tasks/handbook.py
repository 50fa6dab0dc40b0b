"""Handbooks of companies that do not exist: passages, questions, what is not said.

A subject ("the red room") belongs to one part by its hash: train, development or test.
So no sentence and no question of the shipped handbook can occur in training. The last
wording of each list of the grammar, and some words, are kept out of training too; the
further wordings (`more`) are for training alone.
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qwen_course.datafiles import read_yaml
from qwen_course.tasks.problem import split_of

SKILL = "handbook"
REFUSAL = "The documents do not say."
PARTS = ("train", "development", "test")
# Hours of a company that makes sense. Training has any, so that none gives a hint.
HOURS = {"opens": (6, 11), "closes": (14, 21), "begins": (6, 10), "start": (8, 19)}


@dataclass(frozen=True)
class Fact:
    """One fact: what is said (`attribute`) of a subject, and its value."""

    kind: str
    attribute: str
    subject: str
    value: str
    text: str = ""

    @property
    def about(self) -> tuple[str, str]:
        """Return the subject and the attribute: what a question can ask for."""
        return self.subject, self.attribute


@dataclass(frozen=True)
class Paragraph:
    """Some facts as a text, under a heading."""

    heading: str
    facts: tuple[Fact, ...]

    @property
    def text(self) -> str:
        """Return the sentences, one after the other."""
        return " ".join(fact.text for fact in self.facts)


@dataclass(frozen=True)
class Question:
    """A question, with the fact that answers it; None when nothing does.

    `why` is "answered", or what is missing: "other subject", "other attribute",
    "elsewhere".
    `new` is whether it is asked in a wording that training never has.
    """

    text: str
    fact: Fact | None
    why: str
    new: bool = False

    @property
    def expected(self) -> str:
        """Return the value, or the refusal."""
        return self.fact.value if self.fact else REFUSAL


@functools.cache
def grammar() -> dict[str, Any]:
    """Return the words and wordings of `data/handbook/grammar.yaml`."""
    return read_yaml("handbook/grammar")


def part_of(subject: str) -> str:
    """Return the part that a subject belongs to, from a hash of its words.

    >>> part_of("the red room") in PARTS
    True
    """
    if split_of((SKILL, subject)) == "train":
        return "train"
    letters = sum(map(ord, subject))
    return PARTS[1 + letters % 2]


def attributes(kind: str) -> list[str]:
    """Return what can be said of a kind of subject."""
    return list(grammar()["kinds"][kind]["facts"])


# Words


def invented(rng: random.Random) -> str:
    """Return an invented name such as "Belomer": only reading tells it."""
    words = grammar()
    middle = "".join(rng.choices(words["syllables"], k=rng.choice((1, 2, 2))))
    return (middle + rng.choice(words["endings"])).capitalize()


def person(rng: random.Random, part: str) -> str:
    """Return a first name and an invented last name."""
    pool = grammar()["first_names"]
    if part != "train":
        pool = pool + grammar()["new_first_names"]
    return f"{rng.choice(pool)} {invented(rng)}"


def value(rng: random.Random, kind: str, part: str = "train") -> str:
    """Return a value, such as "8:30" for "time" and "12 days" for "days"."""
    if kind == "person":
        return person(rng, part)
    return {
        "time": lambda: f"{rng.randint(6, 21)}:{rng.choice(('00', '15', '30', '45'))}",
        "day": lambda: rng.choice(grammar()["days"]),
        "month": lambda: rng.choice(grammar()["months"]),
        "days": lambda: f"{rng.randint(2, 99)} days",
        "dollars": lambda: (
            f"{rng.choice((rng.randint(2, 99), rng.randint(2, 99) * 10))} dollars"
        ),
        "seats": lambda: f"{rng.randint(4, 99)} seats",
        "people": lambda: f"{rng.randint(3, 60)} people",
        "floor": lambda: f"floor {rng.randint(1, 12)}",
        "place": lambda: f"room {rng.choice('ABCDEFGH')}{rng.randint(1, 99)}",
        "extension": lambda: str(rng.randint(1000, 9999)),
    }[kind]()


def _modifier(rng: random.Random, part: str) -> str:
    words = grammar()
    if rng.random() < 0.3:
        return invented(rng)
    if part != "train" and rng.random() < 0.5:
        return rng.choice(words["new_modifiers"])
    return rng.choice(words["modifiers"])


def _noun(rng: random.Random, kind: str, part: str) -> str:
    words = grammar()["kinds"][kind]
    if part != "train" and rng.random() < 0.2:
        return rng.choice(words["new_nouns"])
    return rng.choice(words["nouns"])


def subjects(rng: random.Random, kind: str, n: int, part: str) -> list[str]:
    """Return `n` different subjects of a part, many of which share a word."""
    found: list[str] = []
    while len(found) < n:
        words = [_modifier(rng, part), _noun(rng, kind, part)]
        if found and rng.random() < 0.5:  # near misses: one word is another's
            place = rng.randrange(2)
            words[place] = rng.choice(found).split()[1 + place]
        subject = f"the {' '.join(words)}"
        if part_of(subject) == part and subject not in found:
            found.append(subject)
    return found


# Facts and questions


def wordings(kind: str, attribute: str, what: str, more: bool = False) -> list[str]:
    """Return how a fact is said (`what` is "says") or asked for ("asks").

    `more` adds the further ones; of the others the last is kept for tests.
    """
    words = grammar()
    further = words["more"][kind][attribute][what] if more else []
    return [*further, *words["kinds"][kind]["facts"][attribute][what]]


def _wording(rng: random.Random, listed: Sequence[str], new: bool) -> str:
    return listed[-1] if new else rng.choice(listed[:-1])


def make_fact(
    rng: random.Random,
    kind: str,
    attribute: str,
    subject: str,
    part: str,
    new: bool,
    more: bool = False,
) -> Fact:
    """Return one fact with a drawn value; `new` says it in the kept wording."""
    about = grammar()["kinds"][kind]["facts"][attribute]
    drawn = value(rng, about["value"], part)
    if part != "train" and attribute in HOURS:
        drawn = f"{rng.randint(*HOURS[attribute])}:{rng.choice(('00', '30'))}"
    listed = wordings(kind, attribute, "says", more)
    text = _wording(rng, listed, new).format(s=subject, v=drawn)
    return Fact(kind, attribute, subject, drawn, text[0].upper() + text[1:])


def ask(
    rng: random.Random, fact: Fact, why: str, new: bool, more: bool = False
) -> Question:
    """Return a question for what a fact says; the fact answers it if `why` says so."""
    listed = wordings(fact.kind, fact.attribute, "asks", more)
    text = _wording(rng, listed, new).format(s=fact.subject)
    return Question(text, fact if why == "answered" else None, why, new)


def unanswered(
    rng: random.Random,
    facts: Sequence[Fact],
    part: str,
    new: bool,
    attribute_share: float = 0.5,
    more: bool = False,
) -> Question:
    """Return a question that none of the facts answers, near to one that they do."""
    said = {fact.about for fact in facts}
    while True:
        fact = rng.choice(facts)
        if rng.random() < attribute_share:
            attribute = rng.choice(attributes(fact.kind))
            asked, why = replace(fact, attribute=attribute), "other attribute"
        else:
            words = fact.subject.split()
            place = rng.randrange(2)
            words[1 + place] = (
                _noun(rng, fact.kind, part) if place else _modifier(rng, part)
            )
            asked, why = replace(fact, subject=" ".join(words)), "other subject"
        if asked.about not in said and part_of(asked.subject) == part:
            return ask(rng, asked, why, new, more)


def scene(
    rng: random.Random,
    passages: int,
    part: str = "train",
    new: float = 0.0,
    more: bool = False,
    twins: float = 0.0,
) -> list[Paragraph]:
    """Return paragraphs as a search would find them: most are about one kind.

    `new` is the share of sentences in a wording that training never has, `twins` that
    of paragraphs that say the same of two subjects; `more` takes the further wordings.
    """
    kinds = list(grammar()["kinds"])
    kind = rng.choice(kinds)
    pool = subjects(rng, kind, rng.randint(1, 2 * passages), part)
    said: set[tuple[str, str]] = set()
    found = []
    for _ in range(passages):
        mine, here = pool, kind
        if rng.random() < 0.2:
            here = rng.choice(kinds)
            mine = subjects(rng, here, 2, part)
        if twins and rng.random() < twins:
            facts = _twins(rng, here, said, part, more)
        else:
            facts = _facts(rng, here, mine, said, part, new, more)
        if facts:
            found.append(Paragraph(heading(rng, part), facts))
    return found or scene(rng, passages, part, new, more, twins)


def _twins(rng, kind: str, said: set, part: str, more: bool):
    """Return the same fact about two subjects, and now and then another of one."""
    first, second = subjects(rng, kind, 2, part)
    same, other = rng.sample(attributes(kind), 2)
    abouts = [(first, same), (second, same), (first, other)][: rng.choice((2, 2, 3))]
    rng.shuffle(abouts)
    fresh = [about for about in abouts if about not in said]
    said.update(fresh)
    return tuple(
        make_fact(rng, kind, attribute, subject, part, False, more)
        for subject, attribute in fresh
    )


def _facts(
    rng, kind: str, pool: list[str], said: set, part: str, new: float, more: bool
):
    """Return one to three facts that were not said before."""
    mine = rng.sample(pool, min(len(pool), rng.choice((1, 1, 2))))
    facts = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        subject, attribute = rng.choice(mine), rng.choice(attributes(kind))
        if (subject, attribute) not in said:
            said.add((subject, attribute))
            kept = rng.random() < new
            facts.append(make_fact(rng, kind, attribute, subject, part, kept, more))
    return tuple(facts)


def heading(rng: random.Random, part: str) -> str:
    """Return a heading."""
    words = grammar()
    return rng.choice(words["headings" if part == "train" else "new_headings"])


# A whole company


@dataclass(frozen=True)
class Company:
    """The documents of a company, file by file, and questions about them."""

    files: dict[str, str]
    questions: tuple[Question, ...]

    def write(self, folder: str | Path) -> Path:
        """Write the files into a folder, which is made, and return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        return folder


def kestrel_mill() -> Company:
    """Return the company whose documents are in `data/handbook/kestrel_mill/`.

    None of its subjects is known to training, and nothing was chosen by it.
    """
    return company(1, "test", "Kestrel Mill")


def elsewhere(part: str) -> list[Question]:
    """Return questions that no handbook answers, for "development" or "test".

    >>> elsewhere("test")[0].expected
    'The documents do not say.'
    """
    return [Question(text, None, "elsewhere") for text in grammar()["elsewhere"][part]]


def company(
    seed: int, part: str, name: str, subjects_each: int = 8, new: float = 0.25
) -> Company:
    """Make a handbook of one file a kind, and its questions.

    Every fact is asked for once, in a known wording and in a new one by turns, and
    half as many questions are not answered. `new` is the share of sentences in a
    wording that training never has.

    Example:
        company(1, "development", "Alder Works").files["rooms.md"]
    """
    rng = random.Random(f"company/{seed}/{part}")
    files, facts = {}, []
    for kind, about in grammar()["kinds"].items():
        paragraphs = _document(rng, kind, subjects_each, part, new)
        facts += [fact for paragraph in paragraphs for fact in paragraph.facts]
        title = f"# {about['title']} of {name}"
        files[f"{about['title'].lower()}.md"] = _markdown(title, paragraphs)
    asked = [ask(rng, f, "answered", bool(n % 2)) for n, f in enumerate(facts)]
    more = [unanswered(rng, facts, part, bool(n % 2)) for n in range(len(facts) // 2)]
    return Company(files, tuple(asked + more))


def _document(rng, kind: str, n: int, part: str, new: float) -> list[Paragraph]:
    """Return the paragraphs of a file: a subject each, and some of leftover facts."""
    found, left = [], []
    for subject in subjects(rng, kind, n, part):
        chosen = rng.sample(attributes(kind), rng.choice((2, 3, 3)))
        facts = [
            make_fact(rng, kind, attribute, subject, part, rng.random() < new)
            for attribute in chosen
        ]
        if len(facts) == 3 and rng.random() < 0.5:
            left.append(facts.pop())
        found.append(tuple(facts))
    found += [tuple(left[at : at + 2]) for at in range(0, len(left), 2)]
    rng.shuffle(found)
    words = grammar()
    names = rng.sample(words["headings"] + words["new_headings"], len(found))
    return [Paragraph(names[number // 3], facts) for number, facts in enumerate(found)]


def _markdown(title: str, paragraphs: Sequence[Paragraph]) -> str:
    """Return a file: a heading stands once above its paragraphs."""
    lines, last = [title], ""
    for paragraph in paragraphs:
        if paragraph.heading != last:
            lines.append(f"## {paragraph.heading}")
            last = paragraph.heading
        lines.append(paragraph.text)
    return "\n\n".join(lines) + "\n"
