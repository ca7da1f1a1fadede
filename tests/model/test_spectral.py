from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.layers import BandAnalysis
from model.spec import SignalSpec
from model.spectral import Frames, bands, filterbank, spread

SIGNAL = SignalSpec()
RATES = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000)


def scene(sample_rate: int, seconds: float = 2.0) -> np.ndarray:
    """The same sound at any rate [1, T]: 200 partials up to 9 kHz, each with its own slow swell."""
    rng = np.random.default_rng(5)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = np.zeros_like(time)
    for hz, phase, swell in zip(
        rng.uniform(60.0, 9_000.0, 200), rng.uniform(0, 2 * np.pi, 200), rng.uniform(0.5, 4.0, 200), strict=True
    ):
        sound += np.cos(2 * np.pi * swell * time + phase) ** 2 * np.cos(2 * np.pi * hz * time + 7 * phase)
    return (0.02 * sound).astype(np.float32)[None]


def heard(sample_rate: int, waveform: np.ndarray) -> np.ndarray:
    return bands(SIGNAL, Frames(SIGNAL, sample_rate).forward(waveform)[0])


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_inverse_gives_the_waveform_back(sample_rate: int, n_channels: int) -> None:
    frames, rng = Frames(SIGNAL, sample_rate), np.random.default_rng(0)
    hop = sample_rate // 100
    for n_samples in (1, 2, 3, hop - 1, hop, hop + 1, 2 * hop, 3 * hop + 1, frames.window_length, sample_rate // 3):
        waveform = rng.uniform(-1, 1, (n_channels, n_samples)).astype(np.float32)
        again = frames.inverse(frames.forward(waveform), n_samples)
        assert again.shape == waveform.shape
        np.testing.assert_allclose(again, waveform, atol=1e-6)


def test_frames_equal_torch_where_the_hop_is_whole() -> None:
    waveform = scene(32_000)
    window = torch.hann_window(1280)
    expected = torch.stft(
        torch.from_numpy(waveform), 1280, 320, window=window, center=True, pad_mode="constant", return_complex=True
    )
    found = Frames(SIGNAL, 32_000).forward(waveform)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, (expected * 2.0 / window.sum()).numpy(), atol=1e-6)


def test_bands_equal_the_torch_front_end_of_training() -> None:
    waveform = scene(32_000)
    _, expected = BandAnalysis(SIGNAL)(torch.from_numpy(waveform))
    # Training adds 1e-12 under the root, so that its slope is finite.
    np.testing.assert_allclose(heard(32_000, waveform), expected[0].numpy(), atol=1.5e-6)


@pytest.mark.parametrize("sample_rate", [22_050, 44_100, 48_000, 96_000])
def test_one_scene_has_the_same_bands_at_every_rate(sample_rate: int) -> None:
    reference, found = heard(32_000, scene(32_000)), heard(sample_rate, scene(sample_rate))
    inner = slice(4, -4)  # the sound begins and ends abruptly, and every rate ends it at another moment
    error = np.sqrt(np.mean((found[:, inner] - reference[:, inner]) ** 2) / np.mean(reference[:, inner] ** 2))
    assert error < (0.01 if sample_rate % 100 == 0 else 0.03)  # frames at 22.05 kHz sit half a sample off


@pytest.mark.parametrize("sample_rate", RATES)
def test_a_sine_of_amplitude_one_has_a_bin_of_magnitude_one(sample_rate: int) -> None:
    sine = np.sin(2 * np.pi * 1_000.0 * np.arange(sample_rate) / sample_rate)[None]
    spectrum = Frames(SIGNAL, sample_rate).forward(sine)
    assert np.abs(spectrum[0, 40, 50]) == pytest.approx(1.0, abs=2e-3)


def test_frames_do_not_drift() -> None:
    frames = Frames(SIGNAL, 11_025)
    hour = 360_000
    assert frames.start(hour) - frames.start(0) == 3_600 * 11_025
    assert {frames.start(n + 1) - frames.start(n) for n in range(400)} == {110, 111}


def test_every_sample_is_covered() -> None:
    for sample_rate in (8_000, 11_025, 44_056, 48_000):
        frames = Frames(SIGNAL, sample_rate)
        for n_samples in (1, 79, 80, 81, 12_345):
            last_centre = frames.start(frames.n_frames(n_samples) - 1) + frames.window_length // 2
            assert last_centre >= n_samples - 1


@pytest.mark.parametrize("sample_rate", [7_999, 192_001, 0, -8_000])
def test_rates_outside_the_signal_are_refused(sample_rate: int) -> None:
    with pytest.raises(ValueError, match=f"8000 to 192000 Hz, got {sample_rate}"):
        Frames(SIGNAL, sample_rate)


def test_no_samples_no_frames() -> None:
    frames = Frames(SIGNAL, 8_000)
    spectrum = frames.forward(np.zeros((2, 0), np.float32))
    assert spectrum.shape == (2, 161, 0)
    assert frames.inverse(spectrum, 0).shape == (2, 0)


def test_inverse_refuses_another_length() -> None:
    frames = Frames(SIGNAL, 8_000)
    with pytest.raises(ValueError, match="frames"):
        frames.inverse(np.zeros((1, 161, 3), np.complex64), 8_000)


def test_energy_is_neither_lost_nor_made_by_pooling() -> None:
    rng = np.random.default_rng(1)
    spectrum = rng.standard_normal((SIGNAL.n_bins, 5)) + 1j * rng.standard_normal((SIGNAL.n_bins, 5))
    pooled = bands(SIGNAL, spectrum.astype(np.complex64))
    np.testing.assert_allclose((pooled**2).sum(axis=0), (np.abs(spectrum) ** 2).sum(axis=0), rtol=1e-4)


def test_bands_above_a_low_nyquist_are_silent() -> None:
    found = heard(8_000, np.random.default_rng(2).standard_normal((1, 8_000)))
    above = filterbank(SIGNAL)[:, :161].sum(axis=1) == 0
    assert above.sum() > 20
    assert np.all(found[above] == 0)
    assert np.all(found[~above].max(axis=1) > 0)


@pytest.mark.parametrize("n_bins", [161, 640, 641, 961, 3841])
def test_a_spread_mask_is_a_mean_of_bands(n_bins: int) -> None:
    mask = np.random.default_rng(3).uniform(0, 1, (SIGNAL.n_bands, 7)).astype(np.float32)
    found = spread(SIGNAL, mask, n_bins)
    assert found.shape == (n_bins, 7)
    assert found.min() >= mask.min() - 1e-6
    assert found.max() <= mask.max() + 1e-6
    np.testing.assert_allclose(spread(SIGNAL, np.ones_like(mask), n_bins), 1.0, atol=1e-6)
    if n_bins > SIGNAL.n_bins:
        carried = np.broadcast_to(found[599:640].mean(axis=0), (n_bins - 640, 7))
        np.testing.assert_allclose(found[640:], carried, atol=1e-6)


@pytest.mark.parametrize("what", ["model.spectral", "model.bundle", "model.runtime"])
def test_serving_needs_no_torch(what: str) -> None:
    code = f"import sys, {what}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_masks_of_one_scene_agree_between_rates() -> None:
    """Masks by a plain rule: what a network does with the same bands is not in question here."""
    rule: Callable[[np.ndarray], np.ndarray] = lambda b: b / (b + 0.05)  # noqa: E731
    at_32, at_44, at_48 = (rule(heard(rate, scene(rate))) for rate in (32_000, 44_100, 48_000))
    inner = slice(4, -4)
    assert np.abs(at_44 - at_32)[:, inner].mean() < 0.002
    assert np.abs(at_48 - at_32)[:, inner].mean() < 0.002
