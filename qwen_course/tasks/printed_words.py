"""Pictures of one to four printed words, to be read."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course.errors import suggest
from qwen_course.tasks.charts import drawing
from qwen_course.tasks.charts.drawing import SIZES, THEMES
from qwen_course.tasks.problem import Problem, distinct, split_of

if TYPE_CHECKING:
    from PIL.Image import Image

SKILL = "printed_words"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VOWELS = "AEIOU"
CONSONANTS = "BCDFGHJKLMNPRSTVWZ"
# Real words of 3 to 7 letters; the others are made of syllables or of any letters.
_LIST = """
    ABOUT ABOVE AFTER AGAIN AIR ALARM ANIMAL ANSWER APPLE APRIL ARROW AUGUST AUTUMN BABY
    BACK BAG BAKER BALL BANANA BANK BASKET BEACH BEAR BED BEE BELL BICYCLE BIRD BLACK
    BLUE BOAT BODY BOOK BOTTLE BOX BOY BREAD BRIDGE BRIGHT BROWN BUS BUTTER CAKE CAMERA
    CANDLE CAR CARD CASTLE CAT CHAIR CHEESE CHILD CIRCLE CITY CLEAN CLOCK CLOUD COAT
    COFFEE COLD CORN COUNTRY COURSE COW CUP DANCE DARK DAY DEER DESERT DESK DINNER
    DOCTOR DOG DOOR DOWN DREAM DRESS DRIVER DUCK EAGLE EARTH EAST EGG ENGINE EVENING EYE
    FACE FAMILY FARMER FATHER FIELD FIRE FISH FLAG FLOWER FOOD FOOT FOREST FOX FRIDAY
    FRIEND FRUIT GAME GARDEN GATE GIRL GLASS GOLD GRASS GREEN GUITAR HAIR HAND HAPPY
    HARBOUR HAT HEART HILL HONEY HORSE HOTEL HOUR HOUSE ICE INK ISLAND JACKET JUICE JULY
    JUNE KEY KING KITCHEN KITE KNIFE LAKE LAMP LEAF LEMON LETTER LIBRARY LIGHT LION LOCK
    LONG LUNCH MAP MARCH MARKET MEADOW MEAL METAL MILK MIRROR MONDAY MONEY MONKEY MONTH
    MOON MORNING MOTHER MOUSE MOUTH MUSEUM MUSIC NAIL NAME NIGHT NOISE NORTH NOSE NUMBER
    OAK OCEAN OFFICE OIL OPEN ORANGE OVEN OWL PAGE PAINT PAPER PARK PEACE PEAR PENCIL
    PEOPLE PEPPER PHONE PIANO PICTURE PILOT PLANE PLATE POCKET POND POTATO PRICE QUEEN
    QUESTION QUIET RABBIT RADIO RAIN READ RED RICE RING RIVER ROAD ROBOT ROCK ROOF ROOM
    ROSE SALT SAND SCHOOL SEA SEED SHEEP SHIP SHIRT SHOE SHOP SILVER SISTER SKY SLEEP
    SMALL SNOW SOUP SOUTH SPOON SPRING STAR STATION STONE STORM STREET STUDENT SUGAR
    SUMMER SUN SUNDAY TABLE TAXI TEA TEACHER TENT TEST TICKET TIGER TIME TOMATO TOWER
    TOWN TOY TRAIN TREE TRUCK TULIP UNCLE VALLEY VILLAGE VIOLIN VOICE WALL WATCH WATER
    WAVE WEST WHEEL WHITE WIND WINDOW WINTER WOLF WOMAN WOOD WORD WORK WORLD YARD YEAR
    YELLOW YOUNG ZEBRA ZERO ZOO
"""
WORDS = tuple(word for word in _LIST.split() if 3 <= len(word) <= 7)
WORDINGS = {
    "word": (
        "What is written here?", "Read the word.", "Which word do you see?",
        "What does the picture say?",
    ),
    "words": (
        "What is written here?", "Read the words.", "Which words do you see?",
        "What does the picture say?",
    ),
    "nth word": ("What is the {nth} word?", "Read the {nth} word.", "{nth} word?"),
}  # fmt: skip
KINDS = tuple(WORDINGS)
NTH = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class Print:
    """How words look: theme, font, pixels, and `case` ("upper", "lower" or "title")."""

    theme: str = "paper"
    font: str = "default"
    size: tuple[int, int] = SIZES[0]
    case: str = "upper"
    jitter: int = 1  # seed of the places, the font sizes and the colours


def draw_print(
    rng: random.Random, size: tuple[int, int] | None = None, looks: str = "trained"
) -> Print:
    """Draw a look: "trained", "unseen" or "new", as that of a chart."""
    style = drawing.draw_style(rng, size, looks)
    return Print(
        theme=style.theme,
        font=style.font,
        size=style.size,
        case=rng.choice(("upper", "upper", "lower", "title")),
        jitter=rng.randrange(1, 1_000_000),
    )


def draw(words: tuple[str, ...], look: Print | None = None) -> "Image":
    """Return one to four words as a PIL image, one below the other.

    >>> draw(("SUN",)).size
    (224, 168)
    """
    from PIL import Image, ImageDraw

    look = look or Print()
    theme, rng = THEMES[look.theme], random.Random(look.jitter)
    image = Image.new("RGB", look.size, drawing.shade(theme.background, rng, 5))
    pen = ImageDraw.Draw(image)
    width, height = look.size
    line = height / len(words)
    for n, word in enumerate(words):
        text = getattr(word, look.case)()
        font = drawing.fitting_font(look.font, rng.randint(12, 28), (text,), width - 12)
        long = font.getlength(text)
        tall = font.size
        x = rng.uniform(5, max(5, width - 5 - long))
        y = rng.uniform(n * line + tall, (n + 1) * line - 0.3 * tall)
        coloured = rng.random() < 0.5
        ink = rng.choice(list(theme.shades.values())) if coloured else theme.ink
        pen.text((x, y), text, drawing.shade(ink, rng), font, anchor="ls")
    return image


def draw_word(rng: random.Random, split: str) -> str:
    """Draw a word of `split`: real, of syllables, or of any letters; in capitals.

    In training some are of one or two letters, which are the easiest to learn from.
    """
    shortest = 1 if split == "train" else 3
    while True:
        kind = rng.choice(("real", "syllables", "letters"))
        length = rng.randint(shortest, 7)
        if kind == "real":
            word = rng.choice(WORDS)
        elif kind == "letters":
            word = "".join(rng.choice(LETTERS) for _ in range(length))
        else:
            sounds = (CONSONANTS, VOWELS)
            start = rng.randrange(2)
            word = "".join(rng.choice(sounds[(n + start) % 2]) for n in range(length))
        if split_of((SKILL, word)) == split:
            return word


@dataclass(frozen=True)
class WordProblem(Problem):
    """Words in a picture, to be read; the model answers in capitals."""

    words: tuple[str, ...] = ()
    look: Print = Print()

    @property
    def image(self) -> "Image":
        """The words as a picture, drawn anew each time."""
        return draw(self.words, self.look)

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The messages to send: one user turn, the picture and then the question."""
        content = [
            {"type": "image", "image": self.image},
            {"type": "text", "text": self.question},
        ]
        return [{"role": "user", "content": content}]

    def grade(self, answer: str) -> bool:
        """Return whether every letter is right; capitals do not matter."""
        return answer.strip().rstrip(".").upper() == self.expected


def ask(
    rng: random.Random,
    words: tuple[str, ...],
    look: Print,
    split: str,
    nth: bool = False,
) -> WordProblem:
    """Ask for all words, or for one of several (`nth`)."""
    kind = "nth word" if nth else "word" if len(words) == 1 else "words"
    n = rng.randrange(len(words))
    answer = words[n] if nth else ", ".join(words)
    return WordProblem(
        skill=SKILL,
        kind=kind,
        content=(SKILL, *words),
        question=rng.choice(WORDINGS[kind]).format(nth=NTH[n]),
        thinking="",
        answer=answer,
        expected=answer,
        split=split,
        words=words,
        look=look,
    )


def questions(
    rng: random.Random, size: tuple[int, int] | None = None, split: str = "train"
) -> list[WordProblem]:
    """Return the questions about one picture: all its words, then one of several."""
    words = tuple(draw_word(rng, split) for _ in range(rng.randint(1, 4)))
    look = draw_print(rng, size)
    asked = [ask(rng, words, look, split)]
    return asked + [ask(rng, words, look, split, nth=True)] * (len(words) > 1)


def make(
    rng: random.Random,
    kind: str | None = None,
    looks: str = "trained",
    split: str = "test",
) -> WordProblem:
    """Make one picture of words of `split`, and one question about it."""
    kind = kind or rng.choice(KINDS)
    count = 1 if kind == "word" else rng.randint(2, 4)
    words = tuple(draw_word(rng, split) for _ in range(count))
    look = draw_print(rng, looks=looks)
    return ask(rng, words, look, split, nth=kind == "nth word")


def problems(
    n: int,
    seed: int = 0,
    split: str = "test",
    kind: str | None = None,
    looks: str = "trained",
) -> list[Problem]:
    """Return `n` pictures with one question each; no test word occurs in training.

    `kind` is "word", "words" (two to four, all to be read) or "nth word"; `looks` is
    "trained", "unseen" or "new", see `charts`. Raises ValueError for any other.

    >>> problems(1, kind="word")[0].prompt[0]["content"][1]["type"]
    'text'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(
            f'kind "{kind}" is not one of {", ".join(KINDS)}.{suggest(kind, KINDS)}'
        )
    return distinct(lambda rng: make(rng, kind, looks, split), n, seed, split)
