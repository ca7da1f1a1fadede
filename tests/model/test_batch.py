"""A batch gives each window what it gets alone, whatever is beside it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import BUCKETS, bucket, pad_rows, stack
from model.bundle import Bundle
from model.calibration import Calibration
from model.device import CudaOptions
from model.runtime import Embedding, Runtime
from tests.toy import PHRASES

Window = tuple[np.ndarray, Embedding]


def some_windows(runtime: Runtime, n_windows: int, n_prompts: int, n_frames: int, seed: int) -> list[Window]:
    rng = np.random.default_rng(seed)
    n_bands = runtime.bundle.signal.n_bands
    return [
        (
            (10.0 ** -rng.uniform(0, 3) * rng.uniform(size=(n_bands, n_frames))).astype(np.float32),
            runtime.embed([str(phrase) for phrase in rng.choice(PHRASES, n_prompts)]),
        )
        for _ in range(n_windows)
    ]


def test_buckets_hold_what_is_asked() -> None:
    assert [bucket(count) for count in range(1, 17)] == [1, 2, 4, 4, 8, 8, 8, 8] + [16] * 8
    assert all(bucket(size) == size for size in BUCKETS)
    with pytest.raises(ValueError, match="at most 16 windows, got 17"):
        bucket(17)
    rows = np.arange(3)
    np.testing.assert_array_equal(pad_rows(rows, 5), [0, 1, 2, 2, 2])
    assert pad_rows(rows, 3) is rows


@pytest.mark.parametrize("conditioning", ["film", "attention"])
def test_a_batch_equals_its_windows(bundle: Bundle, attention_bundle: Bundle, conditioning: str) -> None:
    runtime = Runtime(bundle if conditioning == "film" else attention_bundle, threads=1, device="cpu")

    @settings(deadline=None, max_examples=12)
    @given(
        n_windows=st.integers(1, 16), n_prompts=st.integers(1, 3), steps=st.integers(1, 4), seed=st.integers(0, 2**32)
    )
    def equal(n_windows: int, n_prompts: int, steps: int, seed: int) -> None:
        windows = some_windows(runtime, n_windows, n_prompts, steps * runtime.bundle.signal.frame_multiple, seed)
        for mask, window in zip(runtime.masks(windows), windows, strict=True):
            np.testing.assert_allclose(mask, runtime.mask(*window), atol=1e-5)

    equal()


@pytest.mark.parametrize("calibrated", ["raw", "heard", "separated"])
def test_presence_of_a_batch_equals_its_windows(bundle: Bundle, calibrated: str) -> None:
    weights = {"intercept": -1.0, "cosine": 3.0}
    separated = {**weights, "stem_cosine": 2.0, "energy_db": 0.05} if calibrated == "separated" else {}
    calibration = None if calibrated == "raw" else Calibration(heard=weights, separated=separated)
    runtime = Runtime(dataclasses.replace(bundle, calibration=calibration), threads=1, device="cpu")
    windows = some_windows(runtime, 5, 2, 64, 1)
    masks = runtime.masks(windows)
    masks[3][1] = 0.0  # a silent stem is no sound
    batch = [(*window, mask) for window, mask in zip(windows, masks, strict=True)]
    for together, (bands, embedding, mask) in zip(runtime.presences(batch), batch, strict=True):
        np.testing.assert_allclose(together, runtime.presence(bands, embedding, mask), atol=1e-5)


def test_a_poisoned_window_stays_its_own(runtime: Runtime) -> None:
    windows = some_windows(runtime, 4, 1, 64, 0)
    poisoned = [(bands.copy(), embedding) for bands, embedding in windows]
    poisoned[1][0][5, 7] = np.nan
    masks = runtime.masks(poisoned)
    assert not np.isfinite(masks[1]).all()
    for at in (0, 2, 3):
        np.testing.assert_allclose(masks[at], runtime.mask(*windows[at]), atol=1e-5)


def test_what_is_not_alike_is_refused(runtime: Runtime) -> None:
    [one], [two] = some_windows(runtime, 1, 1, 32, 0), some_windows(runtime, 1, 2, 32, 0)
    with pytest.raises(ValueError, match="alike"):
        runtime.masks([one, two])
    with pytest.raises(ValueError, match="alike"):
        stack([], ["bands"])


def test_bound_buffers_give_the_same(bundle: Bundle, runtime: Runtime) -> None:
    bound = Runtime(bundle, threads=1, device="cpu", cuda=CudaOptions(io_binding=True))
    for n_windows, n_frames in ((1, 32), (3, 64), (1, 32), (3, 64), *((1, 32 * step) for step in range(1, 20))):
        windows = some_windows(bound, n_windows, 2, n_frames, n_frames)
        for first, second in zip(bound.masks(windows), runtime.masks(windows), strict=True):
            np.testing.assert_array_equal(first, second)
