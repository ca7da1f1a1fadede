from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.recorded import write_noise
from training.decoding import Recent, Span, decode, find_span


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 32_000), (48_000, 32_000), (16_000, 32_000), (32_000, 32_000)])
def test_a_part_is_that_part_of_the_whole(tmp_path: Path, rate: int, wanted: int) -> None:
    path = write_noise(tmp_path / "a.wav", seconds=1.5, rate=rate)
    span = find_span(lambda: path, "a", 0.1, 1.2)
    whole = decode(lambda: path, "a", span, wanted)
    assert len(whole) == span.n_samples(wanted) == round(1.2 * wanted)
    for start, length in [(0, 100), (1, 1), (333, 9_000), (20_000, None), (len(whole) - 1, 5), (len(whole), 5)]:
        part = decode(lambda: path, "a", span, wanted, start, length)
        expected = whole[start:] if length is None else whole[start : start + length]
        assert len(part) == len(expected)
        np.testing.assert_allclose(part, expected, atol=2e-6)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_compressed_files_are_cut_where_plain_ones_are(tmp_path: Path, suffix: str) -> None:
    path = write_noise(tmp_path / f"a{suffix}", seconds=1.5, rate=44_100)
    span = find_span(lambda: path, "a")
    whole = decode(lambda: path, "a", span, 32_000)
    part = decode(lambda: path, "a", span, 32_000, 17_000, 4_000)
    # An MP3's frames lean on those before them: what is left of that after a seek is 60 dB below.
    np.testing.assert_allclose(part, whole[17_000:21_000], atol=1e-3 if suffix == ".mp3" else 2e-6)


def test_a_tone_keeps_its_place_and_pitch(tmp_path: Path) -> None:
    time = np.arange(48_000) / 48_000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * time), 48_000, subtype="FLOAT")
    span = find_span(lambda: tmp_path / "a.wav", "a")
    part = decode(lambda: tmp_path / "a.wav", "a", span, 32_000, 8_000, 16_000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * (np.arange(16_000) + 8_000) / 32_000)
    np.testing.assert_allclose(part, expected, atol=1e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", channels=2, rate=32_000)
    stereo, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(
        decode(lambda: path, "a", find_span(lambda: path, "a"), 32_000), stereo.mean(axis=1), atol=1e-7
    )


@given(
    st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    st.integers(1, 10_000_000),
    st.sampled_from([16_000, 32_000]),
)
@settings(max_examples=50, deadline=None)
def test_lengths_are_rounded_to_the_nearest_sample(rate: int, frames: int, wanted: int) -> None:
    assert abs(Span(rate, 7, 7 + frames).n_samples(wanted) - frames * wanted / rate) <= 0.5


def test_nothing_left_and_no_sound_are_named(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"a\.wav has 1\.00 s, nothing is left after 1\.5 s"):
        find_span(lambda: path, "a.wav", 1.5)
    with pytest.raises(ValueError, match=r"cannot read b\.wav"):
        find_span(lambda: tmp_path / "b.wav", "b.wav")
    with pytest.raises(ValueError, match=r"cannot read c\.wav"):
        find_span(lambda: tmp_path / "c.wav", "c.wav")
    with pytest.raises(ValueError, match="at least 0, got -1"):
        decode(lambda: path, "a.wav", Span(44_100, 0, 10), 32_000, -1)


def test_recent_parts_are_made_once_and_cannot_be_spoilt() -> None:
    made: list[int] = []

    def make(value: int) -> np.ndarray:
        made.append(value)
        return np.full(2, value, dtype=np.float32)

    recent = Recent(limit=2)
    recent.get(1, lambda: make(1))[:] = 9
    assert recent.get(1, lambda: make(1)).tolist() == [1, 1]
    recent.get(2, lambda: make(2))
    recent.get(3, lambda: make(3))
    recent.get(1, lambda: make(1))
    assert made == [1, 2, 3, 1]
    assert pickle.loads(pickle.dumps(recent)).limit == 2
