"""The voices that pocket-audio learns from: synthesized, cut, kept in the cache folder.

    apt-get install espeak-ng flite      # Debian, Ubuntu; macOS: brew install the same
    python -m training.speech            # makes the bank and the files of the course

espeak-ng computes a voice from a few dozen numbers, so it has hundreds of voices, which
sound like machines. flite puts together pieces of recorded people (kal), or learnt from
them (awb, rms, slt). A model that had heard espeak-ng and kal alone, early in its
training, got half of the digits of the other three wrong.
"""

import functools
import hashlib
import itertools
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qwen_course.audio import RATE, read_clip, write_clip
from qwen_course.tasks import spoken_digits, tones
from qwen_course.tasks.problem import split_of
from qwen_course.tasks.spoken_digits import SKILL, WORDS, compress
from qwen_course.vocabulary import cache_folder

DATA = Path(__file__).parent.parent / "qwen_course" / "data"
REMEDY = (
    'the speech synthesizer "{}" is not installed. Type: apt-get install espeak-ng '
    "flite (Debian, Ubuntu) or brew install espeak-ng flite (macOS); or train with "
    "--quick, which uses the recordings of the course."
)
ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
VARIANTS = """
    m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f4 Alex Andrea Andy Annie Denis Diogo Gene Henrique
    Jacky Lee Marco Mario Michael Mike adam anika antonio belinda benjamin boris caleb
    ed edward grandma grandpa iven john kaukovalta klatt klatt2 klatt3 klatt5 klatt6
    marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby
    steph travis victor whisper zac
""".split()  # noqa: SIM905
FLITE = ("kal", "kal16", "awb")
# Never in training: two accents, six variants, and the two flite voices of other
# speakers, one of them a woman.
UNSEEN_ACCENTS = ("en-gb-scotland", "en-us-nyc")
UNSEEN_VARIANTS = ("m7", "f5", "Hugo", "Alicia", "linda", "david")
UNSEEN_FLITE = ("rms", "slt")
SPEEDS, PITCHES = (140, 160, 185, 210), (30, 45, 60, 75)


@dataclass(frozen=True)
class Voice:
    """A voice and how it speaks: words a minute, and pitch from 0 to 99."""

    name: str
    speed: int = 170
    pitch: int = 50

    @property
    def program(self) -> str:
        """The synthesizer it belongs to."""
        flite = (*FLITE, *UNSEEN_FLITE)
        return "flite" if self.name in flite else "espeak-ng"

    def command(self, text: str, path: Path) -> list[str]:
        """Return the command that speaks `text` into a wave file."""
        if self.program == "flite":
            stretch = f"duration_stretch={170 / self.speed:.3f}"
            mean = f"int_f0_target_mean={60 + self.pitch * 0.9:.0f}"
            settings = ["--setf", stretch]
            if self.name.startswith("kal"):  # the others keep their speaker's pitch
                settings += ["--setf", mean]
            return [
                "flite",
                "-voice",
                self.name,
                *settings,
                "-t",
                text,
                "-o",
                str(path),
            ]
        numbers = ["-s", str(self.speed), "-p", str(self.pitch), "-g", "0"]
        return ["espeak-ng", "-v", self.name, *numbers, "-w", str(path), text]


def speak(voice: Voice, text: str) -> np.ndarray:
    """Return what a voice says, cut to the sound: float32 samples (n,), 16 kHz.

    Raises RuntimeError, with the remedy, where the synthesizer is missing.
    """
    if not shutil.which(voice.program):
        raise RuntimeError(REMEDY.format(voice.program))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        command = voice.command(text, path)
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        samples, _ = read_clip(path)
    return trim(samples)


def trim(samples: np.ndarray, floor_db: float = 40, margin: float = 0.015):
    """Return the samples without the silence around them, at even loudness."""
    frame = RATE // 100
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    power = (frames**2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() / 10 ** (floor_db / 10))
    edge = int(margin * RATE)
    first, last = loud[0] * frame - edge, (loud[-1] + 1) * frame + edge
    cut = samples[max(0, first) : last]
    return (0.1 * cut / np.sqrt(np.mean(cut**2))).astype(np.float32).clip(-1, 1)


def training_voices() -> list[Voice]:
    """Return every voice of the training, each variant in two accents and ways."""
    rng = random.Random("voices")
    espeak = [
        Voice(f"{accent}+{variant}", rng.choice(SPEEDS), rng.choice(PITCHES))
        for variant in VARIANTS
        for accent in rng.sample(ACCENTS, 2)
        for _ in range(2)
    ]
    kal = itertools.product(FLITE[:2], SPEEDS, PITCHES)
    others = itertools.product(FLITE[2:], (125, 140, 150, 160, 185, 195, 210, 230))
    return espeak + [Voice(*settings) for settings in (*kal, *others)]


# The course carries these. Their speeds and pitches are not those of the training, so
# a "seen" voice is one the model knows, saying something in a way it never heard.
SEEN = (
    Voice("en-us+m1", 172, 50),
    Voice("en-us+f2", 172, 55),
    Voice("en-gb+m3", 172, 40),
    Voice("en-gb+f4", 172, 50),
    Voice("en-gb-x-rp+Andy", 172, 50),
    Voice("en-029+Annie", 172, 50),
    Voice("kal16", 172, 52),
    Voice("awb", 172, 50),
)
UNSEEN = (
    Voice("en-gb-scotland+m7", 172, 50),
    Voice("en-us-nyc+f5", 172, 50),
    Voice("en-us-nyc+Hugo", 172, 50),
    Voice("en-gb-scotland+linda", 172, 50),
    Voice("en-us-nyc+Alicia", 172, 50),
    Voice("rms", 172, 50),
    Voice("slt", 172, 50),
)


@dataclass(frozen=True)
class Bank:
    """Recordings: `digits[voice]` are the ten digits, `strings` whole strings."""

    digits: list[list[np.ndarray]]
    strings: list[tuple[str, np.ndarray]]


def course_bank() -> Bank:
    """Return the course's own recordings of the seen voices, for --quick."""
    known = spoken_digits.recordings()
    return Bank([known[name] for name in spoken_digits.voices("seen")], [])


def _whole_strings(number: int) -> Iterator[tuple[Voice, str]]:
    """Yield strings of the training split, each with a voice that says all of it."""
    rng, voices = random.Random("strings"), training_voices()
    while number:
        digits = "".join(rng.choices("0123456789", k=rng.randint(2, 5)))
        if split_of((SKILL, digits)) == "train":
            number -= 1
            yield rng.choice(voices), digits


def _plan(number: int) -> list[tuple[Voice, str]]:
    """Return everything to be said: ten digits of each voice, then the strings."""
    voices = training_voices()
    digits = [(voice, digit) for voice in voices for digit in "0123456789"]
    return digits + list(_whole_strings(number))


@functools.cache
def bank(strings: int = 3000) -> Bank:
    """Return the training bank; make it (minutes) where the cache does not hold it."""
    plan = _plan(strings)
    key = repr([(asdict(voice), digits) for voice, digits in plan])
    name = f"speech-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    path = cache_folder() / name
    if not path.exists():
        _make(plan, path)
    with np.load(path) as kept:
        ends = np.cumsum(kept["lengths"])[:-1]
        sounds = np.split(kept["sound"].astype(np.float32) / 32768, ends)
    known = len(training_voices()) * 10
    voices = [sounds[start : start + 10] for start in range(0, known, 10)]
    said = [digits for _, digits in plan[known:]]
    # flite's are drawn more often: there are few, and they are nearest to people.
    names = [voice.name for voice in training_voices()]
    often = {name: 6 if name == "awb" else 2 for name in FLITE}
    weighted = [
        v for v, n in zip(voices, names, strict=True) for _ in range(often.get(n, 1))
    ]
    return Bank(weighted, list(zip(said, sounds[known:], strict=True)))


def _make(plan: list[tuple[Voice, str]], path: Path) -> None:
    from tqdm.auto import tqdm

    sounds = [
        speak(voice, " ".join(WORDS[int(digit)] for digit in digits))
        for voice, digits in tqdm(plan, desc="speaking")
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = (np.concatenate(sounds) * 32767).astype(np.int16)
    new = path.with_suffix(".new.npz")
    np.savez(new, sound=whole, lengths=np.array([len(sound) for sound in sounds]))
    new.replace(path)


def write_recordings(path: Path = DATA / "digits.npz") -> None:
    """Write the recordings that the course carries: one byte a sample, zipped."""
    voices = (*SEEN, *UNSEEN)
    sounds = [speak(voice, word) for voice in voices for word in WORDS]
    np.savez_compressed(
        path,
        sound=compress(np.concatenate(sounds)),
        lengths=np.array([len(sound) for sound in sounds]),
        voices=np.array([voice.name for voice in voices]),
        unseen=np.array([voice.name for voice in UNSEEN]),
    )


def write_clips(folder: Path = DATA / "clips") -> None:
    """Write the clips of the lesson: seen and unseen voices, noise alone, tones."""
    folder.mkdir(exist_ok=True)
    for voice, digits in CLIPS.items():
        rng = np.random.default_rng(int(digits))
        pieces = [speak(voice, " ".join(WORDS[int(digit)] for digit in digits))]
        sound = spoken_digits.compose(pieces, rng, noise_db=30, pauses=(0.1, 0.15))
        accent = voice.name.replace("+", "_")
        write_clip(folder / f"digits_{digits}_{accent}.wav", sound)
    rng = np.random.default_rng(0)
    names = ("low", "high", "middle", "low")
    write_clip(folder / "tones_low_high_middle_low.wav", tones.play(names, 30, seed=0))
    silence = np.zeros(int(1.5 * RATE))
    write_clip(folder / "noise.wav", spoken_digits.add_noise(silence, rng, 0))


# Whole strings of the test split, each under 60 kB.
CLIPS = {
    Voice("en-us+f2", 172, 55): "417",
    Voice("en-gb+m3", 172, 40): "1839",
    Voice("en-gb-scotland+linda", 172, 50): "628",
    Voice("rms", 190, 50): "1950",
    Voice("slt", 172, 50): "304",
}

if __name__ == "__main__":
    write_recordings()
    write_clips()
    print(f"{len(bank().digits)} voices and ways of speaking are in {cache_folder()}.")
