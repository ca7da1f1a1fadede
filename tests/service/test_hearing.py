"""A model that hears waveforms: its windows cover the recording, and a bundle of LAION-CLAP's kind is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.hearing import Hearing
from service.loading import load_engine
from service.settings import Settings
from tests.service.conftest import Running
from tests.service.fakes import FakeNetwork, fake_engine
from tests.service.sounds import decode, encode, noise


def heard(blocks: list[np.ndarray], rate: int, window: int = 100) -> list[np.ndarray]:
    windows: list[np.ndarray] = []
    hearing = Hearing(rate, 48_000, window, windows.append)
    for block in blocks:
        hearing.push(block)
    hearing.finish()
    return windows


@pytest.mark.parametrize("n_samples", [1, 99, 100, 101, 250, 300])
def test_windows_cover_the_recording_and_the_last_ends_with_it(n_samples: int) -> None:
    sound = noise(n_samples, 2)
    windows = heard([sound], 48_000)
    mid = sound.mean(axis=0)
    assert len(windows) == max(1, -(-n_samples // 100))
    for index, window in enumerate(windows[:-1]):
        np.testing.assert_allclose(window, mid[100 * index : 100 * index + 100], atol=1e-6)
    np.testing.assert_allclose(windows[-1], mid[-100:], atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_blocks_do_not_matter_and_the_length_is_that_of_the_recording(rate: int) -> None:
    sound = noise(rate // 2, 1)
    whole = heard([sound], rate, window=100_000)
    cut = heard(np.array_split(sound, 13, axis=1), rate, window=100_000)
    assert [len(window) for window in whole] == [len(window) for window in cut] == [24_000]
    np.testing.assert_allclose(cut[0], whole[0], atol=1e-6)


class Listener(FakeNetwork):
    """Hears in a waveform how loud it is, and refuses bands."""

    audio_rate = 48_000
    audio_samples = 24_000

    def presence(
        self,
        sound: np.ndarray,
        embedding: tuple[np.ndarray, np.ndarray, np.ndarray],
        masks: np.ndarray | None = None,
    ) -> np.ndarray:
        assert sound.ndim == 1 and len(sound) <= self.audio_samples
        return np.full(len(embedding[2]), min(1.0, float(np.abs(sound).max())))


def test_presence_is_that_of_the_window_where_most_was_heard(start: Callable[..., Running]) -> None:
    service = start(fake_engine(Listener()))
    sound = noise(48_000, 2, level=0.01)
    sound[:, 30_000:31_000] = 0.5
    response = service.separate(encode(sound, 32_000))
    assert response.status_code == 200
    assert float(response.headers["x-presence"]) == pytest.approx(0.5, abs=0.1)  # the resampler rings at the edges
    silence = service.separate(encode(noise(48_000, level=0.0), 32_000))
    assert silence.headers["x-presence"] == "0.000"


@pytest.fixture(scope="module")
def laion_bundle() -> Path:
    """Made before a test's own temporary folder is, for it outlives the test."""
    toy: Any = pytest.importorskip("tests.toy_laion", reason="making a bundle needs the training extra")
    path: Path = toy.toy_bundle()
    return path


def test_a_bundle_that_hears_waveforms_is_served(start: Callable[..., Running], laion_bundle: Path) -> None:
    settings = {"model": laion_bundle, "device": "cpu", "threads": 1}
    service = start(load_engine(Settings(**settings)), **settings)
    mixture = noise(11 * 44_100, 2)
    response = service.separate(encode(mixture, 44_100), ["dog barking", "rain on a roof"], output="both")
    assert response.status_code == 200
    presence = [float(value) for value in response.headers["x-presence"].split(", ")]
    assert len(presence) == 2 and all(0 < value < 1 for value in presence) and presence[0] != presence[1]
    one = service.separate(encode(mixture, 44_100), "dog barking")
    assert decode(one.content)[0].shape == mixture.shape
