"""Windows asked for before the one before is answered: the same output to the bit, so many in flight and no more."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.spec import SignalSpec
from model.spectral import MaskStream, separate

SHORT = SignalSpec(window_frames=64, overlap_frames=16)  # windows of 0.64 s: a second crosses several


def by_level(bands: np.ndarray) -> np.ndarray:
    """Two masks that depend on time, band and window."""
    share = bands / (bands + bands.mean() + 1e-9)
    return np.stack([share, 1 - share])


def noise(n_channels: int, n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_samples).uniform(-1, 1, (n_channels, n_samples)).astype(np.float32)


class Later:
    """Masks that are made when they are taken; counts how many are asked for and not taken, and in what order."""

    def __init__(self) -> None:
        self.asked = self.taken = self.most = 0

    def __call__(self, bands: np.ndarray) -> Taken:
        self.asked += 1
        self.most = max(self.most, self.asked - self.taken)
        return Taken(self, self.asked, bands)


class Taken:
    def __init__(self, later: Later, number: int, bands: np.ndarray) -> None:
        self._later, self._number, self._bands = later, number, bands

    def result(self) -> np.ndarray:
        self._later.taken += 1
        assert self._later.taken == self._number, "out of order"
        return by_level(self._bands)


@settings(deadline=None, max_examples=60)
@given(
    sample_rate=st.sampled_from([8_000, 11_025, 22_050]),
    n_samples=st.integers(1, 60_000),
    depth=st.integers(1, 9),
    block=st.integers(1_000, 30_000),
)
def test_any_depth_gives_the_same_bits(sample_rate: int, n_samples: int, depth: int, block: int) -> None:
    waveform, later = noise(2, n_samples), Later()
    stream = MaskStream(SHORT, sample_rate, 2, 2, later, depth)
    parts = [stream.push(waveform[:, at : at + block]) for at in range(0, n_samples, block)]
    streamed = np.concatenate([*parts, stream.finish()], axis=2)
    np.testing.assert_array_equal(streamed, separate(SHORT, sample_rate, waveform, 2, by_level))
    assert later.taken == later.asked
    assert later.most == min(depth, later.asked)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_answers_of_other_threads_are_waited_for(depth: int) -> None:
    waveform = noise(1, 40_000)
    with ThreadPoolExecutor(3) as pool:

        def ask(bands: np.ndarray) -> Future[np.ndarray]:
            return pool.submit(by_level, bands)

        np.testing.assert_array_equal(
            separate(SHORT, 8_000, waveform, 2, ask, depth), separate(SHORT, 8_000, waveform, 2, by_level)
        )


def test_memory_is_bounded_at_any_depth() -> None:
    def peak(seconds: int) -> int:
        stream = MaskStream(SHORT, 8_000, 1, 2, Later(), 8)
        block = noise(1, 8_000)
        tracemalloc.start()
        for _ in range(seconds):
            stream.push(block)
        stream.finish()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(60) < 1.1 * peak(12)


def test_a_failure_comes_out_where_its_answer_is_taken() -> None:
    class Broken:
        def result(self) -> np.ndarray:
            raise ArithmeticError("broken")

    stream = MaskStream(SHORT, 8_000, 1, 1, lambda bands: Broken(), 4)
    stream.push(noise(1, 8_000))  # one window: nobody has to know yet
    with pytest.raises(ArithmeticError, match="broken"):
        stream.finish()
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        MaskStream(SHORT, 8_000, 1, 1, by_level, 0)
