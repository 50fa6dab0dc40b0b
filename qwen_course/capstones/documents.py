"""Questions over a folder of documents: search, read, cite, or refuse.

A text is split into passages, each with its source. The most similar to a question, of
those that the user may see, are numbered and given to a model; what it answers is
checked against the passage that it cites. With real models only the names change:

    embedder = SentenceEmbedder("Qwen/Qwen3-Embedding-0.6B")
    model, tokenizer = qc.load("Qwen/Qwen3-8B")
    assistant = DocumentAssistant("handbook", model, tokenizer, embedder)
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qwen_course.chat import chat_batch
from qwen_course.errors import suggest
from qwen_course.messages import Message
from qwen_course.models import checksums
from qwen_course.platforms.common import need, why_missing
from qwen_course.safe_text import control_strings, neutralise
from qwen_course.tables import Row, Table
from qwen_course.tasks.handbook import REFUSAL, Question

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FOLDER = Path(__file__).parent.parent / "models" / "capstones"
ENDINGS = (".md", ".txt")
LONGEST = 100  # words of a passage; a longer paragraph is cut between sentences
SYSTEM = (
    "Answer from the passages and cite one, as in [1]. If they do not say, write: "
    f"{REFUSAL}"
)
_CITATION = re.compile(r"\[(\d{1,3})\]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


# Documents


@dataclass(frozen=True)
class Passage:
    """A piece of a document, with its file, its heading and its number in the file.

    `groups` may see it; none named means everybody.
    """

    text: str
    file: str
    heading: str
    number: int
    groups: frozenset[str] = frozenset()

    @property
    def source(self) -> str:
        """Return where it stands, for a reader: "rooms.md, Ground floor"."""
        return f"{self.file}, {self.heading}" if self.heading else self.file

    @property
    def shown(self) -> str:
        """Return it as the model sees it: the heading belongs to what is said."""
        return f"{self.heading}: {self.text}" if self.heading else self.text

    def visible_to(self, groups: Collection[str]) -> bool:
        """Return whether somebody of these groups may see it."""
        return not self.groups or bool(self.groups & set(groups))


def read_folder(
    folder: str | Path, permissions: Mapping[str, Collection[str]] | None = None
) -> list[Passage]:
    """Return the passages of all .md and .txt files of a folder, by name.

    `permissions` maps a file's name to the groups that may see it. Raises OSError for
    a folder that is not there or holds no document, ValueError for a file that is not
    UTF-8 and for permissions of a file that is not there.

    Example:
        read_folder("handbook", {"teams.md": ["staff"]})
    """
    folder, allowed = Path(folder), dict(permissions or {})
    if not folder.is_dir():
        raise OSError(f"{folder} is no folder. Name the folder of your documents.")
    files = sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS)
    names = [path.relative_to(folder).as_posix() for path in files]
    if not files:
        raise OSError(
            f"{folder} holds no document: no file ends in {' or '.join(ENDINGS)}. "
            "Other forms (PDF, Word) must be turned into text first."
        )
    for name in allowed:
        if name not in names:
            raise ValueError(
                f'permissions name "{name}", which is not in {folder}.'
                + suggest(name, names)
            )
    return [
        passage
        for path, name in zip(files, names, strict=True)
        for passage in split(_read(path), name, allowed.get(name, ()))
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is not UTF-8 (byte {error.start}). Save it again as UTF-8, "
            "or take it out of the folder."
        ) from error


def split(text: str, file: str, groups: Iterable[str] = ()) -> list[Passage]:
    """Split a document at its headings and empty lines.

    >>> [p.shown for p in split("# Rooms\\n\\nA is red.\\n\\n## Old\\nB is.", "a.md")]
    ['Rooms: A is red.', 'Old: B is.']
    """
    heading, found, lines = "", list[Passage](), list[str]()
    allowed = frozenset(groups)

    def close() -> None:
        for piece in _pieces(" ".join(lines)):
            found.append(Passage(piece, file, heading, len(found) + 1, allowed))
        lines.clear()

    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            close()
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif line:
            lines.append(line)
    close()
    return found


def _pieces(text: str) -> list[str]:
    """Cut a paragraph between sentences where it is too long."""
    pieces: list[list[str]] = []
    for sentence in _SENTENCE.split(text) if text else []:
        words = sum(len(part.split()) for part in pieces[-1]) if pieces else LONGEST
        if words + len(sentence.split()) > LONGEST:
            pieces.append([])
        pieces[-1].append(sentence)
    return [" ".join(piece) for piece in pieces]


# Embedders


class Embedder(Protocol):
    """Turns texts into rows of length 1, so that a product is a cosine."""

    def passages(self, texts: Sequence[str]) -> "np.ndarray":
        """Return one row a passage: (texts, dimensions)."""

    def questions(self, texts: Sequence[str]) -> "np.ndarray":
        """Return one row a question: (texts, dimensions)."""


class WordCounts:
    """TF-IDF: rare words that both have count most. Nothing is learnt."""

    def __init__(self) -> None:
        need(why_missing("TF-IDF", {"sklearn": "scikit-learn"}, "capstones"))
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(sublinear_tf=True)

    def passages(self, texts: Sequence[str]) -> "np.ndarray":
        """Learn which words are rare in these passages, and return their rows."""
        return self.vectorizer.fit_transform(texts).toarray()

    def questions(self, texts: Sequence[str]) -> "np.ndarray":
        """Return rows in the words of the passages; unknown words count nothing."""
        return self.vectorizer.transform(texts).toarray()


class SentenceEmbedder:
    """A model of sentence-transformers; None takes the pocket embedder.

    A query and a passage have prompts of their own where the model has them: with
    Qwen/Qwen3-Embedding-0.6B the instruction before a query, and pooling of the last
    token. `options` go to SentenceTransformer. Raises ImportError without the package.
    """

    def __init__(self, name: str | Path | None = None, **options: Any) -> None:
        packages = {"sentence_transformers": "sentence-transformers"}
        need(why_missing("an embedder", packages, "capstones"))
        from sentence_transformers import SentenceTransformer

        if name is None:
            _check_files(FOLDER / "pocket-embedder")
        source = str(name or FOLDER / "pocket-embedder")
        self.model: Any = SentenceTransformer(source, **options)
        self.options: dict[str, Any] = {
            "normalize_embeddings": True,
            "show_progress_bar": False,
        }

    def passages(self, texts: Sequence[str]) -> "np.ndarray":
        """Return one row a passage."""
        return self.model.encode_document(list(texts), **self.options)

    def questions(self, texts: Sequence[str]) -> "np.ndarray":
        """Return one row a question, with the model's own instruction in front."""
        return self.model.encode_query(list(texts), **self.options)


# The assistant


@dataclass(frozen=True)
class Found:
    """A passage and its similarity to the question, -1 to 1."""

    passage: Passage
    similarity: float


@dataclass(frozen=True)
class Cited:
    """An answer with the passages it cites, all that were found, and what was written.

    `why` is "answered", or why it was refused: "nothing similar", "model" (it wrote
    that the documents do not say), "no citation", or "not in the passage".
    """

    answer: str
    citations: tuple[Passage, ...]
    passages: tuple[Passage, ...]
    why: str = "answered"
    written: str = ""

    @property
    def refused(self) -> bool:
        """Return whether there is no answer."""
        return self.why != "answered"

    def __str__(self) -> str:
        sources = "; ".join(passage.source for passage in self.citations)
        return f"{self.answer}  ({sources})" if sources else self.answer


class DocumentAssistant:
    """Answers from a folder of documents, with a citation that was checked.

    `k` passages are read for a question, `together` in one prompt, or else one after
    the other, the most similar first, until one holds the answer: what a small model
    can do. Below the similarity `threshold` of the best one the model is not asked.
    `permissions` maps a file to the groups that see it.
    Raises what `read_folder` raises.

    Example:
        model, tokenizer = pocket_reader()
        assistant = DocumentAssistant(
            folder, model, tokenizer, WordCounts(), together=False
        )
        print(assistant.ask("When does the red room open?"))
    """

    def __init__(
        self,
        folder: str | Path,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        embedder: Embedder,
        *,
        k: int = 3,
        together: bool = True,
        threshold: float = 0.0,
        permissions: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; give 1 or more passages to read.")
        self.documents = read_folder(folder, permissions)
        self.model, self.tokenizer, self.embedder = model, tokenizer, embedder
        self.k, self.together, self.threshold = k, together, threshold
        self.control = control_strings(tokenizer)
        self.rows = embedder.passages([passage.shown for passage in self.documents])

    def search(
        self, question: str, groups: Collection[str] = (), k: int | None = None
    ) -> list[Found]:
        """Return the `k` most similar passages that these groups may see, best first.

        What they may not see is left out before the search: it cannot be found, and
        cannot push a passage out.
        """
        visible = [n for n, p in enumerate(self.documents) if p.visible_to(groups)]
        if not visible:
            return []
        similar = self.rows[visible] @ self.embedder.questions([question])[0]
        best = similar.argsort(kind="stable")[::-1][: k or self.k]
        return [Found(self.documents[visible[n]], float(similar[n])) for n in best]

    def ask(self, question: str, groups: Collection[str] = ()) -> Cited:
        """Answer one question of somebody in these groups, or refuse."""
        return self.ask_all([question], groups)[0]

    def ask_all(
        self, questions: Sequence[str], groups: Collection[str] = (), batch: int = 16
    ) -> list[Cited]:
        """Answer several questions; those that are read are read in batches."""
        found = [self.search(question, groups) for question in questions]
        results = {n: checked(None, _read_of(best)) for n, best in enumerate(found)}
        waiting = [n for n, best in enumerate(found) if self._similar(best)]
        for turn in range(1 if self.together else self.k):
            shown = {n: self._shown(found[n], turn) for n in waiting}
            talks = [self.messages(questions[n], shown[n]) for n in waiting]
            for n, written in zip(waiting, self._written(talks, batch), strict=True):
                reply = checked(written, _read_of(shown[n]))
                results[n] = replace(reply, passages=_read_of(found[n]))
            waiting = [
                n for n in waiting if results[n].refused and len(found[n]) > turn + 1
            ]
        return [results[n] for n in range(len(questions))]

    def _shown(self, found: Sequence[Found], turn: int) -> Sequence[Found]:
        return found if self.together else found[turn : turn + 1]

    def _written(self, talks: Sequence[list[Message]], batch: int) -> list[str]:
        """Return what the model writes to each conversation, in batches."""
        written: list[str] = []
        for start in range(0, len(talks), batch):
            replies = chat_batch(
                self.model, self.tokenizer, talks[start : start + batch],
                thinking=False, max_new_tokens=64, sampling="greedy",
            )  # fmt: skip
            written += [reply.answer for reply in replies]
        return written

    def _similar(self, found: Sequence[Found]) -> bool:
        return bool(found) and found[0].similarity >= self.threshold

    def messages(self, question: str, found: Sequence[Found]) -> list[Message]:
        """Return the conversation that asks the model, its texts made harmless."""
        texts = [neutralise(item.passage.shown, self.control) for item in found]
        return prompt(neutralise(question, self.control), texts)


def _read_of(found: Iterable[Found]) -> tuple[Passage, ...]:
    return tuple(item.passage for item in found)


def prompt(question: str, passages: Sequence[str]) -> list[Message]:
    """Return the conversation that asks a model to read and to cite.

    A number in brackets inside a passage would pass for a citation; it loses them.

    >>> print(prompt("Who?", ["Ann did it [2]."])[1]["content"])
    [1] Ann did it (2).
    <BLANKLINE>
    Question: Who?
    """
    harmless = [_CITATION.sub(r"(\1)", text) for text in passages]
    numbered = "\n".join(f"[{n}] {text}" for n, text in enumerate(harmless, 1))
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{numbered}\n\nQuestion: {question}"},
    ]


def checked(written: str | None, passages: Sequence[Passage]) -> Cited:
    """Return an answer whose citations hold, or a refusal that says why.

    `written` is what the model wrote, None when it was not asked.

    >>> room = Passage("The red room opens at 8:30.", "rooms.md", "Rooms", 1)
    >>> checked("8:30 [1]", [room]).answer
    '8:30'
    >>> checked("9:30 [1]", [room]).why
    'not in the passage'
    """
    found = tuple(passages)
    if written is None:
        return Cited(REFUSAL, (), found, "nothing similar")
    if REFUSAL.lower().rstrip(".") in written.lower():
        return Cited(REFUSAL, (), found, "model", written)
    numbers = list(dict.fromkeys(int(n) for n in _CITATION.findall(written)))
    if not numbers or not all(1 <= n <= len(found) for n in numbers):
        return Cited(REFUSAL, (), found, "no citation", written)
    cited = tuple(found[n - 1] for n in numbers)
    answer = " ".join(_CITATION.sub(" ", written).split())
    if not supports(answer, " ".join(passage.text for passage in cited)):
        return Cited(REFUSAL, (), found, "not in the passage", written)
    return Cited(answer, cited, found, "answered", written)


def supports(answer: str, text: str) -> bool:
    """Return whether a text holds what an answer quotes.

    A short answer (up to four words) must stand there as a whole; of a sentence all
    numbers, and all names after its first word. It tells a wrong value from a right
    one, not a wrong sentence around it.

    >>> supports("4", "It has 40 seats."), supports("The room has 40 seats", "40 seats")
    (False, True)
    """
    quoted = answer.strip(" .")
    pieces = [quoted]
    if len(quoted.split()) > 4:
        words = [word.strip(".,;:!?()\"'") for word in quoted.split()]
        pieces = [word for word in words if any(map(str.isdigit, word))]
        pieces += [word for word in words[1:] if word[:1].isupper()]
    return bool(quoted) and all(_stands_in(piece, text) for piece in pieces)


def _stands_in(piece: str, text: str) -> bool:
    pattern = rf"(?<![\w:]){re.escape(piece)}(?![\w:]|[.,]\d)"
    return re.search(pattern, text, re.IGNORECASE) is not None


# Measuring


@dataclass(frozen=True)
class Case:
    """A question, what came back, and the place of the right passage in the search.

    `place` is 1 for the most similar passage, 0 where no passage answers.
    """

    question: Question
    cited: Cited
    place: int

    @property
    def right(self) -> bool:
        """Return whether the value is the right one, or the refusal was."""
        return self.cited.answer.strip(" .") == self.question.expected.strip(" .")

    @property
    def cited_right(self) -> bool:
        """Return whether the passages cited are the one that holds the fact."""
        fact, cited = self.question.fact, self.cited.citations
        return fact is not None and [fact.text in p.text for p in cited] == [True]


class Shares(Table[tuple[str, int, int]]):
    """What was measured: how many, of how many."""

    columns = ("measured", "of", "share")
    noun = "shares"

    def cells(self, item: tuple[str, int, int]) -> Row:
        """Return one row."""
        name, part, whole = item
        return name, str(whole), f"{part / whole:.1%}" if whole else "-"

    def share(self, name: str) -> float:
        """Return one share, 0 to 1."""
        return next(part / whole for found, part, whole in self if found == name)


def evaluate(
    assistant: DocumentAssistant,
    questions: Sequence[Question],
    groups: Collection[str] = (),
) -> list[Case]:
    """Ask all questions, and note where the right passage stood in the search."""
    replies = assistant.ask_all([question.text for question in questions], groups)
    return [
        Case(question, cited, _place(assistant, question, groups))
        for question, cited in zip(questions, replies, strict=True)
    ]


def _place(assistant, question: Question, groups: Collection[str]) -> int:
    if question.fact is None:
        return 0
    found = assistant.search(question.text, groups, k=len(assistant.documents))
    holds = [question.fact.text in item.passage.text for item in found]
    return 1 + holds.index(True) if True in holds else 0


def shares(cases: Sequence[Case]) -> Shares:
    """Return the table of an evaluation: search, answers, citations, refusals."""
    answered = [case for case in cases if case.question.fact]
    rows = [
        ("right passage first", [c.place == 1 for c in answered]),
        ("right passage among the three first", [0 < c.place <= 3 for c in answered]),
        ("right value", [c.right for c in answered]),
        ("right value, right citation", [c.right and c.cited_right for c in answered]),
        ("wrong value", [not c.right and not c.cited.refused for c in answered]),
        ("refused, though answered", [c.cited.refused for c in answered]),
    ]
    for new, name in ((False, "known"), (True, "new")):
        some = [c for c in answered if c.question.new == new]
        hits = [c.right and c.cited_right for c in some]
        rows.append((f"right and cited, {name} wording", hits))
    unanswered = [case for case in cases if case.question.fact is None]
    rows.append(("refused, not answered", [c.right for c in unanswered]))
    for why in dict.fromkeys(case.question.why for case in unanswered):
        hits = [c.right for c in unanswered if c.question.why == why]
        rows.append((f"refused, {why}", hits))
    return Shares((name, sum(hits), len(hits)) for name, hits in rows)


def choose_threshold(
    assistant: DocumentAssistant, questions: Sequence[Question], lose: float = 0.02
) -> float:
    """Return the similarity that all but a share `lose` of answered questions reach.

    Take questions of a development set: chosen on the test set, a threshold flatters.
    Raises ValueError when no question is answered.
    """
    best = sorted(
        assistant.search(question.text, k=1)[0].similarity
        for question in questions
        if question.fact
    )
    if not best:
        raise ValueError(
            "no question here has an answer, and a threshold needs some. Give "
            "questions with their answers."
        )
    return best[int(lose * len(best))]


def pocket_reader() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load the small model that was trained to read and to cite, for this lesson.

    Raises OSError when its files are damaged.
    """
    from qwen_course import loading

    folder = FOLDER / "pocket-reader"
    _check_files(folder)
    return loading.load(str(folder), "fp32")


def _check_files(folder: Path) -> None:
    if wrong := checksums.verify(folder):
        raise OSError(
            f"the files of {folder.name} are damaged: {' '.join(wrong)} Bring them "
            "back: git checkout -- qwen_course/models/capstones"
        )
