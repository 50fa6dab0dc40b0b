"""Pictures of one to three printed words, to be read."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course import media
from qwen_course.errors import suggest
from qwen_course.tasks.charts import drawing
from qwen_course.tasks.charts.drawing import CELL, LINE, SIZES, THEMES, Text
from qwen_course.tasks.problem import Problem, distinct, split_of

if TYPE_CHECKING:
    from PIL.Image import Image

SKILL = "printed_words"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VOWELS = "AEIOU"
CONSONANTS = "BCDFGHJKLMNPRSTVWZ"
LONGEST, MOST = 6, 3  # letters of a word, words of a picture
# Real words of 3 to 6 letters; the others are made of syllables or of any letters.
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
WORDS = tuple(word for word in _LIST.split() if 3 <= len(word) <= LONGEST)
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
NTH = ("first", "second", "third")


PITCHES = {14: (13, 15), 28: (20, 26)}  # pixels a letter: the sizes of its font


@dataclass(frozen=True)
class Print:
    """How words look: like those of a typewriter, each letter as wide as the others.

    `pitch` is the width of a letter: 14 pixels, a patch of the model, or 28.
    """

    theme: str = "paper"
    font: str = "default"
    size: tuple[int, int] = SIZES[0]
    pitch: int = 14
    jitter: int = 1  # seed of the places, the sizes and the colours


def draw_print(
    rng: random.Random, size: tuple[int, int] | None = None, looks: str = "trained"
) -> Print:
    """Draw a look: "trained", "unseen" or "new", as that of a chart."""
    style = drawing.draw_style(rng, size, looks)
    return Print(
        theme=style.theme,
        font=style.font,
        size=style.size,
        pitch=rng.choice(tuple(PITCHES)),
        jitter=rng.randrange(1, 1_000_000),
    )


def letters(words: tuple[str, ...], look: Print) -> list[list[Text]]:
    """Return the letters of each word, with their places; a word is a line.

    A line is as high as an image token of the model, and every second one is used.
    Small letters stand in its upper or in its lower half: in one row of patches.
    """
    rng = random.Random(look.jitter)
    width, height = look.size
    longest = max(map(len, words)) * look.pitch
    margin = CELL * rng.randint(0, (width - longest) // CELL)
    first = rng.randint(0, height // CELL - 2 * len(words) + 1)
    right, down = rng.randint(-2, 2), rng.randint(-2, 2)
    line = CELL / 2 if look.pitch == CELL else rng.choice((LINE / 2, 3 * LINE / 2))
    font = drawing.font(look.font, rng.randint(*PITCHES[look.pitch]))
    lines = []
    for n, word in enumerate(words):
        middle = (first + 2 * n) * CELL + line + down
        foot = middle + 0.36 * font.size  # capitals are 0.72 of the size
        left = margin + look.pitch / 2 + right
        lines.append(
            [
                Text(letter, (left + look.pitch * place, foot), "ms", font)
                for place, letter in enumerate(word)
            ]
        )
    return lines


def draw(words: tuple[str, ...], look: Print | None = None) -> "Image":
    """Return one to three words as a PIL image, one below the other.

    >>> draw(("SUN",)).size
    (252, 168)
    """
    from PIL import Image, ImageDraw

    look = look or Print()
    theme, rng = THEMES[look.theme], random.Random(f"colours/{look.jitter}")
    image = Image.new("RGB", look.size, drawing.shade(theme.background, rng, 5))
    pen = ImageDraw.Draw(image)
    for line in letters(words, look):
        coloured = rng.random() < 0.5
        ink = rng.choice(list(theme.shades.values())) if coloured else theme.ink
        ink = drawing.shade(ink, rng)
        for letter in line:
            pen.text(letter.place, letter.text, ink, letter.font, letter.anchor)
    return image


def draw_word(rng: random.Random, split: str) -> str:
    """Draw a word of `split`: real, of syllables, or of any letters; in capitals.

    In training some are of one or two letters, which are the easiest to learn from.
    """
    shortest = 1 if split == "train" else 3
    while True:
        kind = rng.choice(("real", "syllables", "letters"))
        length = rng.randint(shortest, LONGEST)
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
        return [media.question("image", self.image, self.question)]

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
    words = tuple(draw_word(rng, split) for _ in range(rng.randint(1, MOST)))
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
    count = 1 if kind == "word" else rng.randint(2, MOST)
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

    `kind` is "word", "words" (two or three, all to be read) or "nth word"; `looks` is
    "trained", "unseen" or "new", see `charts`. Raises ValueError for any other.

    >>> problems(1, kind="word")[0].prompt[0]["content"][1]["type"]
    'text'
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(
            f'kind "{kind}" is not one of {", ".join(KINDS)}.{suggest(kind, KINDS)}'
        )
    return distinct(lambda rng: make(rng, kind, looks, split), n, seed, split)
