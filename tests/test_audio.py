"""Clips: read from any wave file, checked before they are sent, seen as a picture."""

import struct
import wave

import numpy as np
import pytest

from qwen_course.audio import (
    RATE,
    check_clip,
    log_mel,
    mel_picture,
    read_clip,
    resample,
    write_clip,
)


def sine(hertz: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write_wave(path, samples: np.ndarray, rate: int, width: int, channels: int = 1):
    """Write samples, already scaled to whole numbers, in `width` bytes each."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            data = (samples + 128).astype(np.uint8).tobytes()
        else:
            whole = (int(value) for value in samples)
            data = b"".join(
                struct.pack("<i", v << 8 * (4 - width))[-width:] for v in whole
            )
        file.writeframes(data)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_of_sample_is_read_as_numbers_from_minus_one_to_one(
    width, tmp_path
):
    sound = sine(440, 0.1, RATE)
    largest = 2 ** (8 * width - 1) - 1
    write_wave(tmp_path / "a.wav", np.round(sound * largest), RATE, width)
    samples, rate = read_clip(tmp_path / "a.wav")
    assert (rate, samples.dtype, samples.shape) == (RATE, np.float32, sound.shape)
    assert np.abs(samples - sound).max() < 2 / largest + 1e-6


def test_what_is_written_is_read_again(tmp_path):
    sound = sine(300, 0.2, RATE)
    write_clip(tmp_path / "a.wav", sound)
    assert np.abs(read_clip(tmp_path / "a.wav")[0] - sound).max() < 1e-4


def test_stereo_is_averaged(tmp_path):
    both = np.stack([np.full(800, 8000), np.full(800, 4000)], axis=1)
    write_wave(tmp_path / "a.wav", both.ravel(), RATE, 2, channels=2)
    samples, _ = read_clip(tmp_path / "a.wav")
    assert samples.shape == (800,)
    assert samples == pytest.approx(6000 / 32768)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_another_rate_keeps_length_and_pitch(rate):
    samples = resample(sine(440, 0.5, rate), rate)
    expected = sine(440, 0.5, RATE)
    assert abs(len(samples) - len(expected)) <= 1
    middle = slice(400, 7600)  # the sound begins and ends with a step
    assert np.abs(samples[middle] - expected[middle]).max() < 0.02


def test_frequencies_too_high_for_the_new_rate_vanish_and_do_not_fold_back():
    samples = resample(sine(10_000, 0.5, 44_100), 44_100)
    assert np.abs(samples[400:-400]).max() < 0.01


def test_a_rate_of_fewer_samples_than_one_gives_an_empty_clip():
    assert len(resample(np.zeros(1), 48_000)) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"RIFF", "no PCM wave file"), (b"ID3 an mp3", "no PCM wave file")],
)
def test_another_kind_of_file_says_what_to_save(content, said, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_clip(tmp_path / "a.wav")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.wav"):
        read_clip(tmp_path / "missing.wav")


def test_a_good_clip_passes_unchanged():
    sound = sine(440, 1, RATE).astype(np.float32)
    assert np.array_equal(check_clip(sound, RATE), sound)


@pytest.mark.parametrize("axis", [0, 1])
def test_two_channels_are_averaged_whichever_axis_they_are(axis):
    sound = sine(440, 0.1, RATE)
    clip = check_clip(np.stack([sound, sound / 2], axis=axis), RATE)
    assert clip == pytest.approx(0.75 * sound, abs=1e-6)


@pytest.mark.parametrize(
    ("samples", "rate", "said"),
    [
        (sine(440, 1, 44_100), 44_100, r"resample\(samples, 44100\)"),
        (np.zeros(0), RATE, "empty"),
        (np.zeros(RATE), RATE, "silent"),
        (np.array([0.1, np.nan]), RATE, "no numbers"),
        (np.array([0.1, np.inf]), RATE, "no numbers"),
        (np.array([1200, -800]), RATE, "Divide 16-bit samples by 32768"),
        (np.array([1200.0, -800.0]), RATE, "Divide 16-bit samples by 32768"),
        (np.zeros((2, 30, 40)), RATE, "shape"),
        (np.full(31 * RATE, 0.1), RATE, "31.0 seconds"),
    ],
)
def test_a_bad_clip_says_what_is_wrong_and_what_to_do(samples, rate, said):
    with pytest.raises(ValueError, match=said):
        check_clip(samples, rate)


def test_the_longest_clip_is_the_models_own():
    sound = np.full(5 * RATE, 0.1)
    assert len(check_clip(sound, RATE)) == 5 * RATE
    with pytest.raises(ValueError, match=r"samples\[:64000\]"):
        check_clip(sound, RATE, longest_seconds=4)


def test_a_frame_comes_every_ten_milliseconds():
    assert log_mel(sine(440, 1, RATE)).shape == (128, 100)


def test_a_tone_is_loudest_in_its_own_mel_bin():
    """The scale of the picture must fit the bins of the extractor."""
    from qwen_course.audio import _mel_bin

    for hertz in (500, 1000, 3000):
        mel = log_mel(sine(hertz, 0.5, RATE))
        assert abs(mel[:, 20].argmax() + 0.5 - _mel_bin(hertz)) < 2


def test_the_picture_has_units_and_a_title():
    figure = mel_picture(sine(440, 1, RATE), title="One tone of 440 Hz")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "time (seconds)"
    assert axes.get_ylabel() == "frequency (Hz)"
    assert axes.get_title() == "One tone of 440 Hz"
    assert axes.images[0].get_extent()[:2] == [0, 1]
