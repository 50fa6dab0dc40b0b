"""Sound as a model takes it: read a clip, check it, see its mel picture.

A clip is mono: float32 samples from -1 to 1, shape (samples,), 16,000 a second, which
is what Qwen2-Audio was trained on. Nothing here needs ffmpeg.
"""

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel

RATE = 16_000  # samples a second
LONGEST_SECONDS = 30.0  # what the real Qwen2-Audio takes; pocket-audio takes 4
SILENT = 1e-4  # a loudest sample below this (-80 dB) is no sound
MEL_BINS = 128


def read_clip(path: str | Path) -> tuple[np.ndarray, int]:
    """Read a wave file; return float32 samples of shape (n,) and their rate, 16000.

    Several channels are averaged, another rate is converted. Raises FileNotFoundError
    for a missing file and ValueError for one that is no PCM wave file.

    Example:
        samples, rate = read_clip("four_seven_one.wav")
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}. Check the path.")
    try:
        with wave.open(str(path), "rb") as file:
            rate, width = file.getframerate(), file.getsampwidth()
            channels = file.getnchannels()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"{path.name} is no PCM wave file ({error}). Save the sound as a .wav of "
            '16-bit PCM; Audacity calls it "Signed 16-bit PCM".'
        ) from error
    samples = _as_float(data, width)
    frames = len(samples) // channels
    samples = samples[: frames * channels].reshape(frames, channels).mean(axis=1)
    return resample(samples, rate, RATE), RATE


def write_clip(path: str | Path, samples: np.ndarray) -> None:
    """Write samples (n,) as a wave file: mono, 16,000 samples a second, 16-bit PCM."""
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(whole.tobytes())


def _as_float(data: bytes, width: int) -> np.ndarray:
    """Return PCM bytes of 8, 16, 24 or 32 bits a sample as numbers from -1 to 1."""
    if width == 1:  # subtle: 8-bit wave files are unsigned, all wider ones signed
        return np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    whole = len(data) // width * width
    padded = np.zeros((whole // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(data[:whole], np.uint8).reshape(-1, width)
    return (padded.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def resample(samples: np.ndarray, rate: int, new_rate: int = RATE) -> np.ndarray:
    """Return the same sound at another rate: the spectrum cut, or filled with zeros.

    Frequencies above half the new rate cannot be kept and are removed; simply dropping
    samples would fold them back as false tones. `samples` has the shape (n,).

    >>> len(resample(np.zeros(44_100), 44_100, 16_000))
    16000
    """
    samples = np.asarray(samples)
    length = round(len(samples) * new_rate / rate)
    if rate == new_rate or length == 0:
        return samples[:length].astype(np.float32)
    # Silence at the end, so that end and beginning do not run into each other, of a
    # length that both rates divide: then no sample is shifted.
    unit = rate // np.gcd(rate, new_rate)
    padded = unit * -(-(len(samples) + rate // 10) // unit)
    spectrum = np.fft.rfft(samples, padded)
    new_padded = padded * new_rate // rate
    kept = np.zeros(new_padded // 2 + 1, complex)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return (np.fft.irfft(kept, new_padded)[:length] * new_rate / rate).astype(
        np.float32
    )


def check_clip(
    samples: np.ndarray, rate: int, longest_seconds: float = LONGEST_SECONDS
) -> np.ndarray:
    """Return the clip as float32 samples (n,), or say what is wrong with it.

    Two channels, (n, 2) or (2, n), are averaged. Raises ValueError, with a remedy, for
    a clip that is empty, silent, too long, not finite, louder than 1, or of another
    rate than 16,000.

    >>> check_clip(np.ones((8, 2)), 16_000).shape
    (8,)
    """
    if rate != RATE:
        raise ValueError(
            f"the clip has {rate} samples a second, the model hears {RATE}. Played at "
            "that rate it would be too slow or too fast. "
            f"Convert it: resample(samples, {rate})."
        )
    mono = _mono(np.asarray(samples))
    if mono.size == 0:
        raise ValueError("the clip is empty: it holds no samples. Record it again.")
    if not np.isfinite(mono).all():
        raise ValueError(
            "the clip holds values that are no numbers (NaN or infinite). "
            "Read the file again; look for a division by zero where it was made."
        )
    loudest = float(np.abs(mono).max())
    if loudest > 1.0 + 1e-3:
        raise ValueError(
            f"the loudest sample is {loudest:g}; samples go from -1 to 1. "
            "Divide 16-bit samples by 32768."
        )
    if loudest < SILENT:
        raise ValueError(
            "the clip is silent. Check the microphone, and that the file is not muted."
        )
    if len(mono) > longest_seconds * RATE:
        raise ValueError(
            f"the clip lasts {len(mono) / RATE:.1f} seconds, the model hears "
            f"{longest_seconds:g} at most and would drop the rest. Cut it: "
            f"samples[:{int(longest_seconds * RATE)}]."
        )
    return mono


def _mono(samples: np.ndarray) -> np.ndarray:
    if samples.ndim == 2 and min(samples.shape) <= 8:  # the shorter side: channels
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1:
        raise ValueError(
            f"the clip has the shape {samples.shape}; give (samples,), or (samples, 2)."
        )
    if samples.dtype.kind in "iu" and samples.size:
        raise ValueError(
            f"the samples are whole numbers ({samples.dtype}); give floats from -1 to "
            "1. Divide 16-bit samples by 32768."
        )
    return samples.astype(np.float32)


def log_mel(samples: np.ndarray, bins: int = MEL_BINS) -> np.ndarray:
    """Return what the model hears: the log-mel spectrogram, shape (bins, frames).

    One frame covers 25 ms and comes every 10 ms. It is that of Whisper's feature
    extractor, which Qwen2-Audio uses too: log10 of the power, the quietest 80 dB below
    the loudest, brought to about -1 to 1.
    """
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=bins)
    features = extractor(samples, sampling_rate=RATE, padding="do_not_pad")
    return np.asarray(features["input_features"][0])


def mel_picture(samples: np.ndarray, title: str = "") -> "Figure":
    """Draw the log-mel spectrogram of samples (n,): time to the right, pitch upwards.

    Example:
        mel_picture(read_clip("four_seven_one.wav")[0])
    """
    from matplotlib.figure import Figure

    mel = log_mel(samples)
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        mel, origin="lower", aspect="auto", cmap="viridis", interpolation="nearest",
        extent=(0, mel.shape[1] / 100, 0, len(mel)),
    )  # fmt: skip
    ticks = [250, 500, 1000, 2000, 4000]
    axes.set_yticks([_mel_bin(hertz) for hertz in ticks], [f"{t:,}" for t in ticks])
    axes.set(xlabel="time (seconds)", ylabel="frequency (Hz)", title=title)
    figure.colorbar(image, label="log power (scaled)")
    return figure


def heard(
    model: "PreTrainedModel",
    processor: Any,
    samples: np.ndarray,
    words: Sequence[str] = (*"0123456789", "low", "middle", "high"),
) -> list[str]:
    """Return what each audio token of a clip (n,) is most like, "" for nothing.

    An audio token is a vector among those of the words, one for each 40 ms. It is
    compared with the embeddings of `words` and with that of <|AUDIO|>, which stands for
    nothing; pocket-audio was trained to make them alike, other models were not.

    Example:
        heard(model, processor, samples)  ->  ["", "", "4", "", "", "", "7", ...]
    """
    import torch

    # In earlier versions of transformers the parts belong to the model itself.
    parts: Any = model if hasattr(model, "audio_tower") else model.model
    inputs = processor.feature_extractor(
        samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True
    ).to(model.device)
    tower = parts.audio_tower
    frames = inputs["attention_mask"].sum(-1)
    lengths, tokens = tower._get_feat_extract_output_lengths(frames)
    places = torch.arange(tower.config.max_source_positions, device=model.device)
    silent = torch.finfo(model.dtype).min
    mask = torch.where(places < lengths, 0.0, silent).to(model.dtype)[None, None, None]
    with torch.no_grad():
        sound = tower(inputs["input_features"], attention_mask=mask).last_hidden_state
        vectors = parts.multi_modal_projector(sound)[0, : int(tokens)]
    names = ["<|AUDIO|>", *words]
    ids = torch.tensor(processor.tokenizer.convert_tokens_to_ids(names))
    embeddings: Any = model.get_input_embeddings()
    likeness = vectors @ embeddings.weight[ids.to(model.device)].T
    return [names[n] if n else "" for n in likeness.argmax(-1).tolist()]


def _mel_bin(hertz: float, bins: int = MEL_BINS) -> float:
    """Return the bin of a frequency; the bins are equal steps of the mel scale."""
    from transformers.audio_utils import hertz_to_mel

    top = float(hertz_to_mel(RATE / 2, mel_scale="slaney"))
    return bins * float(hertz_to_mel(hertz, mel_scale="slaney")) / top
