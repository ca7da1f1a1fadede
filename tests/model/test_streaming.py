from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.spec import SignalSpec
from model.spectral import MaskStream, separate

SIGNAL = SignalSpec()
SHORT = SignalSpec(window_frames=64, overlap_frames=16)  # windows of 0.64 s: a second crosses several
RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000)
Mask = Callable[[np.ndarray], np.ndarray]


def constant(*values: float) -> Mask:
    return lambda bands: np.stack([np.full(bands.shape, value, np.float32) for value in values])


def by_level(bands: np.ndarray) -> np.ndarray:
    """Two masks that depend on time, band and window."""
    share = bands / (bands + bands.mean() + 1e-9)
    return np.stack([share, 1 - share])


def noise(n_channels: int, n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_samples).uniform(-1, 1, (n_channels, n_samples)).astype(np.float32)


def in_blocks(stream: MaskStream, waveform: np.ndarray, sizes: list[int]) -> np.ndarray:
    parts, position, turn = [], 0, 0
    while position < waveform.shape[1]:
        size = sizes[turn % len(sizes)]
        parts.append(stream.push(waveform[:, position : position + size]))
        position, turn = position + size, turn + 1
    return np.concatenate([*parts, stream.finish()], axis=2)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_the_identity_mask_gives_the_input_back(sample_rate: int, n_channels: int) -> None:
    hop = sample_rate // 100
    lengths = (1, 2, 3, hop - 1, hop, hop + 1, 4 * hop, 79, 80, 81, 31 * hop, 32 * hop, 33 * hop + 1, sample_rate)
    for n_samples in lengths:
        waveform = noise(n_channels, n_samples)
        [stem] = separate(SIGNAL, sample_rate, waveform, 1, constant(1.0))
        assert stem.shape == waveform.shape
        np.testing.assert_allclose(stem, waveform, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    sample_rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 12_345]),
    n_samples=st.integers(1, 30_000),
    n_channels=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=4),
)
def test_streamed_identity_of_any_length_in_any_blocks(
    sample_rate: int, n_samples: int, n_channels: int, sizes: list[int]
) -> None:
    waveform = noise(n_channels, n_samples)
    sizes = [max(size, n_samples // 50 + 1) for size in sizes]
    [stem] = in_blocks(MaskStream(SHORT, sample_rate, n_channels, 1, constant(1.0)), waveform, sizes)
    np.testing.assert_allclose(stem, waveform, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100])
@pytest.mark.parametrize("sizes", [[1], [7, 1_000, 3], [480], [4_096], [1_000_000]])
def test_streamed_equals_whole_to_the_bit(sample_rate: int, sizes: list[int]) -> None:
    waveform = noise(2, (3 if sizes != [1] else 1) * sample_rate + 17)
    whole = separate(SHORT, sample_rate, waveform, 2, by_level)
    streamed = in_blocks(MaskStream(SHORT, sample_rate, 2, 2, by_level), waveform, sizes)
    np.testing.assert_array_equal(streamed, whole)


@pytest.mark.parametrize("seconds", [0.01, 0.63, 0.64, 0.65, 1.0, 1.11, 1.12, 1.13, 2.5])
@pytest.mark.parametrize("signal", [SHORT, SignalSpec(window_frames=96, overlap_frames=0)])
def test_windows_tile_whatever_the_length(signal: SignalSpec, seconds: float) -> None:
    """Each prompt's stem is the input times its gain, wherever windows begin and end; gains that add up to 1 add up."""
    waveform = noise(1, round(seconds * 16_000))
    stems = separate(signal, 16_000, waveform, 2, constant(0.25, 0.75))
    np.testing.assert_allclose(stems[0], 0.25 * waveform, atol=1e-6)
    np.testing.assert_allclose(stems.sum(axis=0), waveform, atol=1e-6)


def test_windows_sit_at_multiples_and_are_padded_with_silence() -> None:
    asked: list[np.ndarray] = []

    def mask(bands: np.ndarray) -> np.ndarray:
        asked.append(bands)
        return np.ones((1, *bands.shape), np.float32)

    n_samples = 16_000 + 160 * 5  # 106 frames: 0..63, 48..105
    separate(SHORT, 16_000, noise(1, n_samples), 1, mask)
    assert [window.shape for window in asked] == [(128, 64), (128, 64)]
    np.testing.assert_array_equal(asked[0][:, 48:], asked[1][:, :16])
    assert asked[1][:, 57].max() > 0
    assert np.all(asked[1][:, 58:] == 0)


def test_masks_fade_from_one_window_to_the_next() -> None:
    turns = iter([0.0, 1.0])
    gain_of = lambda bands: np.full((1, *bands.shape), next(turns), np.float32)  # noqa: E731
    waveform = np.ones((1, 16_000), np.float32)
    gain = separate(SHORT, 16_000, waveform, 1, gain_of)[0, 0]
    begin, end = 48 * 160, 64 * 160
    assert np.abs(gain[: begin - 640]).max() < 1e-6
    assert np.abs(gain[end + 640 :] - 1).max() < 1e-6
    # An even slope, no step: 17 steps of a hop each.
    assert np.diff(gain[begin - 640 : end + 640]).max() < 1.5 / 17 / 160
    assert np.diff(gain).min() > -1e-6


def test_silence_in_silence_out() -> None:
    for sample_rate in (8_000, 22_050, 48_000):
        stems = separate(SIGNAL, sample_rate, np.zeros((2, sample_rate), np.float32), 2, constant(1.0, 0.3))
        assert np.all(stems == 0)


def test_a_tone_in_masked_bands_vanishes_and_one_in_open_bands_stays() -> None:
    time = np.arange(48_000) / 48_000
    low, high = np.sin(2 * np.pi * 500 * time), np.sin(2 * np.pi * 6_000 * time)

    def low_pass(bands: np.ndarray) -> np.ndarray:
        mask = np.zeros((1, *bands.shape), np.float32)
        mask[:, :50] = 1.0  # the 50th of 128 bands lies near 1.5 kHz
        return mask

    [stem] = separate(SIGNAL, 48_000, (low + high)[None].astype(np.float32), 1, low_pass)
    np.testing.assert_allclose(stem[0, 4_800:-4_800], low[4_800:-4_800], atol=1e-3)


def test_channels_share_one_mask_made_of_their_mean() -> None:
    left = noise(1, 20_000)[0]
    stems = separate(SHORT, 16_000, np.stack([left, 0.25 * left]), 2, by_level)
    np.testing.assert_allclose(stems[:, 1], 0.25 * stems[:, 0], atol=1e-6)
    mono = separate(SHORT, 16_000, 0.625 * left[None], 2, by_level)
    np.testing.assert_allclose(stems[:, 0] * 0.625, mono[:, 0], atol=1e-5)


def test_no_samples_ask_nothing() -> None:
    def never(bands: np.ndarray) -> np.ndarray:
        raise AssertionError("asked for a mask of nothing")

    stream = MaskStream(SIGNAL, 48_000, 2, 3, never)
    assert stream.push(np.zeros((2, 0), np.float32)).shape == (3, 2, 0)
    assert stream.finish().shape == (3, 2, 0)


def test_memory_does_not_grow_with_length() -> None:
    def peak(seconds: int) -> int:
        stream = MaskStream(SIGNAL, 8_000, 1, 1, constant(1.0))
        block = noise(1, 8_000)
        tracemalloc.start()
        for _ in range(seconds):
            stream.push(block)
        stream.finish()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(60) < 1.1 * peak(12)


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="one channel and one prompt"):
        MaskStream(SIGNAL, 48_000, 0, 1, constant(1.0))
    with pytest.raises(ValueError, match="8000 to 192000"):
        MaskStream(SIGNAL, 4_000, 1, 1, constant(1.0))
    stream = MaskStream(SIGNAL, 48_000, 2, 1, constant(1.0))
    with pytest.raises(ValueError, match=r"\[2, T\], got \[1, 5\]"):
        stream.push(np.zeros((1, 5), np.float32))
    stream.finish()
    with pytest.raises(ValueError, match="ended"):
        stream.push(np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match=r"mask must be \[1, 128, 32\]"):
        separate(SIGNAL, 8_000, noise(1, 80), 1, constant(1.0, 1.0))
