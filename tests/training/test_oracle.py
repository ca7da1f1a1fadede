"""Oracle masks."""

from __future__ import annotations

import numpy as np
import pytest

from model.spec import SignalSpec
from training import oracle

RATE = 32_000


def tones(*pitches: float, seconds: float = 0.5, channels: int = 1) -> np.ndarray:
    time = np.arange(int(RATE * seconds)) / RATE
    return np.stack([np.tile(0.1 * np.sin(2 * np.pi * pitch * time), (channels, 1)) for pitch in pitches]).astype(
        np.float32
    )


@pytest.mark.parametrize("kind", oracle.KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_sounds_in_different_bands_come_back(kind: str, channels: int) -> None:
    sources = tones(500.0, 6000.0, channels=channels)
    stems = oracle.separate(SignalSpec(), sources.sum(0), sources, RATE)[kind]
    assert stems.shape == sources.shape
    error = np.square(stems - sources).sum() / np.square(sources).sum()
    assert error < 1e-2


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_the_only_sound_is_kept_and_silence_stays_silent(kind: str) -> None:
    sources = np.concatenate([tones(500.0), np.zeros((1, 1, RATE // 2), np.float32)])
    stems = oracle.separate(SignalSpec(), sources.sum(0), sources, RATE)[kind]
    np.testing.assert_allclose(stems[0], sources[0], atol=1e-4)
    np.testing.assert_allclose(stems[1], 0.0, atol=1e-6)


def test_phase_counts_for_one_and_not_for_the_other() -> None:
    """A sound against one of twice its level: the best mask of 0..1 gives silence, amplitudes alone say a third."""
    loud = tones(500.0)[0]
    sources = np.stack([-0.5 * loud, loud])
    stems = oracle.separate(SignalSpec(), sources.sum(0), sources, RATE)
    middle = slice(RATE // 10, -RATE // 10)
    np.testing.assert_allclose(stems["phase_sensitive"][0][:, middle], 0.0, atol=1e-3)
    np.testing.assert_allclose(stems["ratio"][0][:, middle], sources.sum(0)[:, middle] / 3, atol=1e-3)
