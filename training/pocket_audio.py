"""The recipe of pocket-audio: `python -m training.pocket_audio`.

A Qwen2AudioForConditionalGeneration from nothing: an encoder like Whisper's hears the
mel frames, and a Qwen2 reads what it heard as tokens among the words. It needs the
speech synthesizers of `training/speech.py`; `--quick` does without.

    python -m training.pocket_audio                 # the full run
    python -m training.pocket_audio --quick         # a worse model in minutes
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import (
    AutoProcessor,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from qwen_course import media
from qwen_course.audio import RATE
from qwen_course.tasks import spoken_digits, tones
from qwen_course.tasks.problem import Problem, draw
from qwen_course.tasks.spoken_digits import SECONDS, add_noise, compose
from qwen_course.vocabulary import read_template
from training import measure_audio, speech
from training import tokenizer as tokenizers
from training.data import IGNORE, Example, Rows, encode, pack
from training.muon import fast_precision
from training.recipes import Curves, Log, Plan, main
from training.trainer import BALANCE, Material, Packed, Recipe

CONTEXT = 1024
VOCABULARY = 640
MEL_BINS = 128
FRAMES = int(SECONDS * 100)  # one mel frame every 10 ms
# Qwen2-Audio's, by name; its ids follow the vocabulary of the text as here.
ADDED_TOKENS = [
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<|AUDIO|>", True),
    ("<|audio_bos|>", True),
    ("<|audio_eos|>", True),
]
NOTHING = "I hear no digits and no tones."
CTC = 1.0  # weight of the loss on what the encoder hears
# What an audio token may stand for; the first one means: nothing, or as before.
SOUNDS = ["<|AUDIO|>", *"0123456789", *tones.HERTZ]


@dataclass(frozen=True)
class Mix:
    """What the clips are made of: weights of the kinds, shares of the forms."""

    transcribe: float = 0.5
    count: float = 0.13
    sum: float = 0.17
    tones: float = 0.17
    nothing: float = 0.03  # noise alone
    strings: float = 0.25  # of the digits: said in one go, not put together
    many_voices: float = 0.25  # of the others: each digit by another voice
    follow_up: float = 0.4  # a second question about the same clip
    longest: int = spoken_digits.LONGEST  # digits
    hearing: bool = False  # no questions: the encoder alone learns
    noise_db: tuple[float, float] = (8.0, 40.0)
    augment: bool = True  # other throats, microphones and gaps: see `disguise`
    course_bank: bool = False  # the course's recordings; no synthesizer is needed


# First to hear, on short clips and with no text; a step takes a third of the time.
HEARING = Recipe(
    steps=750,
    rows=(Rows(24, 32), Rows(24, 64)),
    evaluate_every=150,
    muon_lr=0.02,
    adamw_lr=3e-3,
    warm_up=30,
    decay_share=0.3,
    mix=Mix(longest=3, hearing=True, nothing=0.01),
)
# Then to answer.
FULL = replace(
    HEARING,
    steps=700,
    rows=(Rows(16, 96), Rows(16, 192)),
    evaluate_every=175,
    seed=2,
    decay_share=0.6,
    mix=Mix(),
)
# Half-way through the stage before, digits were heard, but sums were added up wrong,
# and a question of one kind was taken for another.
PRACTICE = replace(
    FULL,
    steps=800,
    evaluate_every=200,
    seed=3,
    muon_lr=0.012,
    adamw_lr=1.8e-3,
    decay_share=1.0,
    mix=Mix(transcribe=0.35, count=0.13, sum=0.3, tones=0.18, nothing=0.04,
            strings=0.3, follow_up=0.5),
)  # fmt: skip
QUICK = replace(
    FULL,
    steps=60,
    rows=(Rows(8, 96), Rows(8, 192)),
    evaluate_every=60,
    warm_up=10,
    mix=Mix(course_bank=True, strings=0.0),
)
CURVES: Curves = {
    "seen_voices": ("digits, known voices", "#0072B2"),
    "unseen_voices": ("digits, unseen voices", "#D55E00"),
    "sums": ("sums", "#CC79A7"),
    "tones": ("tones", "#009E73"),
}


def corpus(examples: int = 4000) -> list[str]:
    """Return the texts that the tokenizer learns from: questions and answers."""
    rng = random.Random("tokenizer")
    texts = ["system\nYou are a helpful assistant.", "user\nAudio 1: ", "assistant\n"]
    for task in (spoken_digits, tones):
        for _ in range(examples):
            problem = task.make(rng)
            texts += [problem.question, problem.answer]
    return [*texts, NOTHING]


def make_processor() -> Qwen2AudioProcessor:
    """Return tokenizer and feature extractor together, as Qwen2-Audio has them."""
    tokenizer = tokenizers.build(
        corpus(), VOCABULARY, CONTEXT, "qwen2_audio", ADDED_TOKENS
    )
    extractor = WhisperFeatureExtractor(
        feature_size=MEL_BINS, sampling_rate=RATE, chunk_length=int(SECONDS),
        return_attention_mask=True,
    )  # fmt: skip
    template = read_template("qwen2_audio")
    return Qwen2AudioProcessor(extractor, tokenizer, chat_template=template)


def shape(processor) -> Qwen2AudioConfig:
    """Return the architecture: an encoder of 4 layers, a Qwen2 of 4 layers."""
    tokenizer = processor.tokenizer
    text = {
        "model_type": "qwen2",
        "vocab_size": 64 * -(-len(tokenizer) // 64),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    audio = {
        "num_mel_bins": MEL_BINS,
        "d_model": 160,
        "encoder_layers": 4,
        "encoder_attention_heads": 5,
        "encoder_ffn_dim": 640,
        "max_source_positions": FRAMES // 2,  # the second convolution halves
    }
    token = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    return Qwen2AudioConfig(
        audio_config=audio, text_config=text, audio_token_index=token
    )


def build(processor) -> Qwen2AudioForConditionalGeneration:
    """Return the untrained model; the places of the frames are sines, as in Whisper."""
    model = Qwen2AudioForConditionalGeneration(shape(processor))
    tower = model.model.audio_tower
    with torch.no_grad():
        tower.embed_positions.weight.copy_(
            sinusoids(*tower.embed_positions.weight.shape)
        )
    # With the usual small weights the sound would be a thirtieth as large as its places
    # (root mean square 0.023 against 0.71); so it is 0.44.
    for convolution in (tower.conv1, tower.conv2):
        torch.nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return model


def sinusoids(length: int, width: int) -> torch.Tensor:
    """Return sines and cosines of wavelengths up to 10,000, shape (length, width)."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _bank(mix: Mix) -> speech.Bank:
    return speech.course_bank() if mix.course_bank else speech.bank()


def _vary(piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a piece a little faster or slower (and so higher or lower), or louder."""
    return spoken_digits.faster(piece, rng.uniform(0.8, 1.25)) * rng.uniform(0.6, 1.5)


def _spoken(digits: str, mix: Mix, rng: np.random.Generator) -> np.ndarray:
    """Return a clip of the digits: by one voice, or by many."""
    banked = _bank(mix).digits
    voices = rng.integers(len(banked), size=len(digits))
    if rng.random() >= mix.many_voices:
        voices[:] = voices[0]
    pieces = [
        _vary(banked[voice][int(digit)], rng)
        for voice, digit in zip(voices, digits, strict=True)
    ]
    return compose(pieces, rng, rng.uniform(*mix.noise_db), pauses=(0.0, 0.35))


def _string(mix: Mix, rng: random.Random) -> tuple[str, np.ndarray]:
    """Return a string that was said in one go, and its clip."""
    short = [said for said in _bank(mix).strings if len(said[0]) <= mix.longest]
    digits, sound = rng.choice(short)
    noise = np.random.default_rng(rng.getrandbits(32))
    piece = _vary(sound, noise)
    return digits, compose([piece], noise, noise.uniform(*mix.noise_db))


Clip = tuple[list[Problem], np.ndarray, list[str]]  # questions, samples, what sounds


def draw_clip(rng: random.Random, mix: Mix) -> Clip:
    """Draw a clip, one or two questions about it, and what sounds in it."""
    kinds = ("transcribe", "count", "sum", "tones", "nothing")
    kind = rng.choices(kinds, [getattr(mix, name) for name in kinds])[0]
    if kind == "nothing":
        return _nothing(rng, mix)
    if kind == "tones":
        return _tones(rng, mix)

    def make(source: random.Random) -> Problem:
        return spoken_digits.make(source, kind, source.randint(1, mix.longest), ("",))

    problem = draw(make, rng, "train")
    digits = problem.content[1]
    if rng.random() < mix.strings:
        digits, samples = _string(mix, rng)
    else:
        samples = _spoken(digits, mix, np.random.default_rng(rng.getrandbits(32)))
    asked = [kind, rng.choice([k for k in spoken_digits.KINDS if k != kind])]
    questions = [
        replace(
            problem,
            kind=kind,
            content=(spoken_digits.SKILL, digits),
            question=rng.choice(spoken_digits.WORDINGS[kind]),
            answer=spoken_digits.work(kind, digits),
        )
        for kind in asked
    ]
    return questions[: 1 + (rng.random() < mix.follow_up)], samples, list(digits)


def _tones(rng: random.Random, mix: Mix) -> Clip:
    def make(source: random.Random) -> Problem:
        return tones.make(source, noise_db=source.uniform(*mix.noise_db))

    problem = draw(make, rng, "train")
    return [problem], problem.samples, list(problem.content[1:])


def _nothing(rng: random.Random, mix: Mix) -> Clip:
    """Return a clip of noise alone, with a question about what is not there."""
    kind = rng.choice(spoken_digits.KINDS)
    problem = spoken_digits.make(rng, kind, among=("",))
    length = int(rng.uniform(0.4, SECONDS) * RATE)
    noise = np.random.default_rng(rng.getrandbits(32))
    samples = add_noise(np.zeros(length), noise, 0.0)
    return [replace(problem, answer=NOTHING)], samples, []


def parts_of(
    questions: Sequence[Problem], samples: np.ndarray, processor
) -> list[tuple[str, bool]]:
    """Return the texts of an example, each learnt or only read.

    <|AUDIO|> stands there once for every audio token, as the processor repeats it.
    """
    first = [media.question("audio", samples, questions[0].question)]
    talk: list[dict[str, Any]] = []
    parts, rendered = [], ""
    for number, problem in enumerate(questions):
        turn = {"role": "user", "content": problem.question} if number else first[0]
        talk.append(turn)
        text = processor.apply_chat_template(
            talk, add_generation_prompt=True, tokenize=False
        )
        parts += [(text[len(rendered) :], False), (f"{problem.answer}<|im_end|>", True)]
        rendered = text + parts[-1][0]
        talk.append({"role": "assistant", "content": problem.answer})
    token = processor.audio_token
    repeated = token * audio_tokens(len(samples))
    return [(text.replace(token, repeated), learnt) for text, learnt in parts]


def audio_tokens(samples: int) -> int:
    """Return how many tokens a clip of so many samples becomes: one for each 40 ms.

    >>> audio_tokens(16_000)
    25
    """
    frames = -(-samples // 160)
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def disguise(mels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return the mel frames (clips, bins, frames) as of other throats and microphones.

    Frequencies are stretched (Jaitly and Hinton, 2013: other lengths of the vocal
    tract) and blurred, so that the pitch of the voice is lost; some are made louder;
    a band and a few moments are blotted out (SpecAugment, arXiv 1904.08779).
    """
    _, bins, frames = mels.shape
    changed = []
    for mel in mels:
        floor = mel.min()
        places = np.arange(bins) * rng.uniform(0.86, 1.16)
        low = np.clip(np.floor(places), 0, bins - 2).astype(int)
        share = torch.tensor(np.clip(places - low, 0, 1), dtype=mel.dtype)[:, None]
        mel = mel[low] * (1 - share) + mel[low + 1] * share
        mel = _blur(mel, int(rng.choice([1, 1, 3, 5, 9])))
        louder = np.interp(
            np.arange(bins), np.linspace(0, bins, 7), rng.normal(0, 0.15, 7)
        )
        mel = (mel + torch.tensor(louder, dtype=mel.dtype)[:, None]).clamp(min=floor)
        band, moment = rng.integers(0, bins - 20), rng.integers(0, frames - 8)
        mel[band : band + rng.integers(0, 20)] = mel.mean()
        mel[:, moment : moment + rng.integers(0, 8)] = mel.mean()
        changed.append(mel)
    return torch.stack(changed)


def _blur(mel: torch.Tensor, width: int) -> torch.Tensor:
    """Return (bins, frames) with each bin the mean of `width` neighbours (odd)."""
    rows = mel.T[:, None]
    return F.avg_pool1d(rows, width, 1, width // 2, count_include_pad=False)[:, 0].T


def batch(step: int, recipe: Recipe, processor) -> list[Packed]:
    """Return the clips of one step with their texts, drawn from the seed and the step.

    The short texts and the long ones are packed apart, so that little is padding.
    """
    rng = random.Random(f"{recipe.seed}/{step}")
    number = sum(rows.number for rows in recipe.rows)
    drawn = [draw_clip(rng, recipe.mix) for _ in range(number)]
    examples = [_example(clip, recipe.mix, processor) for clip in drawn]
    size = [(len(e.ids), len(c[1])) for e, c in zip(examples, drawn, strict=True)]
    order = iter(sorted(range(number), key=lambda n: size[n]))
    groups = [list(itertools.islice(order, rows.number)) for rows in recipe.rows]
    noise = np.random.default_rng(rng.getrandbits(32)) if recipe.mix.augment else None
    return [
        _pack([examples[n] for n in group], [drawn[n] for n in group], processor, noise)
        for group in groups
    ]


def _example(clip: Clip, mix: Mix, processor) -> Example:
    """Return the text of a clip; in the hearing stage what sounds, and no more."""
    questions, samples, sounds = clip
    if not mix.hearing:
        return encode(parts_of(questions, samples, processor), processor.tokenizer)
    ids = processor.tokenizer.convert_tokens_to_ids(["<|im_start|>", *sounds])
    return Example(ids, [True] * len(ids))


def _pack(
    examples: list[Example],
    drawn: list[Clip],
    processor,
    noise: np.random.Generator | None,
) -> Packed:
    """Return one batch, one example a row.

    `input_ids`, `labels`, `real` (clips, tokens); `input_features` (clips, bins,
    frames) and their mask; `sounds`, what is said or played in all clips, as places in
    SOUNDS, `sound_counts` (clips,), and `sound_ids`, the tokens of SOUNDS.
    """
    length = max(len(example.ids) for example in examples)
    rows = [pack([e], 1, length, processor.tokenizer.pad_token_id) for e in examples]
    names = ("input_ids", "labels", "real")
    heard = processor.feature_extractor(
        [samples for _, samples, _ in drawn], sampling_rate=RATE,
        return_attention_mask=True, return_tensors="pt",
    )  # fmt: skip
    sounds = [SOUNDS.index(sound) for _, _, row in drawn for sound in row]
    mels, real = heard["input_features"], heard["attention_mask"]
    frames = min(
        FRAMES, 4 * -(-(int(real.sum(-1).max()) + 8) // 4)
    )  # the rest is still
    mels, real = mels[:, :, :frames], real[:, :frames]
    return {name: torch.cat([row[name] for row in rows]) for name in names} | {
        "input_features": mels if noise is None else disguise(mels, noise),
        "feature_attention_mask": real,
        "sounds": torch.tensor(sounds, dtype=torch.long),
        "sound_counts": torch.tensor([len(row) for _, _, row in drawn]),
        "sound_ids": torch.tensor(processor.tokenizer.convert_tokens_to_ids(SOUNDS)),
    }


def hear(
    model: Qwen2AudioForConditionalGeneration, packed: Packed
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the audio tokens (clips, tokens, width) and how many of them are real.

    What the model itself computes, but for as many frames as the longest clip has, in
    the place of all 400; a test compares the two.
    """
    tower = model.model.audio_tower
    sound = F.gelu(tower.conv1(packed["input_features"]))
    sound = F.gelu(tower.conv2(sound)).transpose(1, 2)
    sound = sound + tower.embed_positions.weight[: sound.shape[1]]
    frames = packed["feature_attention_mask"].sum(-1)
    lengths, tokens = tower._get_feat_extract_output_lengths(frames)
    blind = torch.arange(sound.shape[1], device=sound.device) >= lengths[:, None]
    mask = torch.where(blind, torch.finfo(sound.dtype).min, 0.0)[:, None, None]
    for layer in tower.layers:
        sound = layer(sound, mask.to(sound.dtype))
    pooled = tower.avg_pooler(sound.transpose(1, 2)).transpose(1, 2)
    return model.model.multi_modal_projector(tower.layer_norm(pooled)), tokens


def losses(
    model: Qwen2AudioForConditionalGeneration, forward, packed: Packed
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the cross-entropies of the text, and what the encoder adds.

    The second is trained with the first but not logged: CTC (Graves et al., 2006) on
    the audio tokens alone, each of which is compared with the embeddings of the digits
    and tones. So a token where "seven" is heard comes to look like the word 7, which
    the language model can read from the first step on. In the hearing stage it is all.
    """
    precision = fast_precision(model.device)
    halved = precision != torch.float32
    audio = packed["input_ids"] == model.config.audio_token_id
    labels = packed["labels"][:, 1:]
    learnt = labels != IGNORE
    with torch.autocast(model.device.type, precision, enabled=halved):
        heard, lengths = hear(model, packed)
        hearing = ctc(model, heard.float(), lengths, packed)
        if not audio.any():
            return hearing, hearing.new_zeros(())
        output = read(model, heard, lengths, packed, audio)
        logits = model.lm_head(output[:, :-1][learnt])
    loss = F.cross_entropy(logits.float(), labels[learnt], reduction="sum")
    # subtle: the trainer divides the first by the learnt tokens, and takes BALANCE
    # times the second.
    return loss, CTC * hearing / learnt.sum() / BALANCE


def read(model, heard, lengths, packed: Packed, audio: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states of the text, with the audio tokens in their places.

    `audio` marks the places, (clips, tokens); the shape is (clips, tokens, width).
    """
    real = torch.arange(heard.shape[1], device=heard.device) < lengths[:, None]
    embeddings = model.get_input_embeddings()(packed["input_ids"])
    tokens = heard[real].to(embeddings.dtype)
    mixed = embeddings.masked_scatter(audio[..., None], tokens)
    mask = packed["real"].long()
    return model.model.language_model(
        inputs_embeds=mixed, attention_mask=mask, use_cache=False
    ).last_hidden_state


def ctc(model, heard: torch.Tensor, lengths, packed: Packed) -> torch.Tensor:
    """Return the CTC loss of audio tokens (clips, tokens, width), summed over clips."""
    embeddings = model.get_input_embeddings().weight[packed["sound_ids"]]
    scores = (heard @ embeddings.T).float().log_softmax(-1)
    return F.ctc_loss(
        scores.transpose(0, 1), packed["sounds"], lengths, packed["sound_counts"],
        reduction="sum", zero_infinity=True,
    )  # fmt: skip


def held_out(processor, clips: int = 32):
    """Return a function that measures digits, sums and tones on unseen items."""
    asked = {
        "seen_voices": spoken_digits.problems(clips, 7, kind="transcribe"),
        "unseen_voices": spoken_digits.problems(
            clips, 7, kind="transcribe", voices="unseen"
        ),
        "sums": spoken_digits.problems(clips, 7, kind="sum"),
        "tones": tones.problems(clips, 7, kind="transcribe"),
    }

    def measure(model) -> Log:
        model.eval()
        shares: Log = {}
        for name, problems in asked.items():
            answers = measure_audio.answers(model, processor, problems)
            if name.endswith("voices"):
                wrong = spoken_digits.digit_error_rate(problems, answers)
                shares[name] = round(max(0.0, 1 - wrong), 4)
            else:
                right = [p.grade(a) for p, a in zip(problems, answers, strict=True)]
                shares[name] = round(sum(right) / len(right), 4)
        model.train()
        return shares

    return measure


PLAN = Plan(
    "pocket-audio",
    make_processor,
    build,
    {"hearing": HEARING, "main": FULL, "practice": PRACTICE},
    QUICK,
    held_out,
    compiled=False,
    material=Material(batch, losses, tuple(CURVES)),
    curves=CURVES,
    generation={"do_sample": False},
    load=AutoProcessor.from_pretrained,
)

if __name__ == "__main__":
    main(PLAN)
