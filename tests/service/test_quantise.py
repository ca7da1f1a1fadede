from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.quantise import to_steps, with_residual

SAMPLES = st.floats(-3, 3, width=32)


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(np.float32, (3, 2, 5), elements=SAMPLES),
    arrays.arrays(np.float32, (2, 5), elements=SAMPLES),
    st.sampled_from([16, 24]),
)
def test_parts_add_up_exactly_and_stay_in_range(stems: np.ndarray, mixture: np.ndarray, bits: int) -> None:
    steps, residual = with_residual(stems, mixture, bits)
    assert np.array_equal(steps.sum(axis=0) + residual, to_steps(mixture, bits))
    for part in (*steps, residual):
        assert part.min() >= -(2 ** (bits - 1))
        assert part.max() <= 2 ** (bits - 1) - 1


def test_stems_within_scale_are_only_rounded() -> None:
    stems = np.array([[[0.25, -0.1]], [[0.1, 0.2]]], np.float32)
    steps, _ = with_residual(stems, np.array([[0.5, 0.0]], np.float32), 16)
    assert np.array_equal(steps, to_steps(stems, 16))


@pytest.mark.parametrize("bits", [16, 24])
def test_every_step_survives(bits: int) -> None:
    steps = np.array([-(2 ** (bits - 1)), -12_345, -1, 0, 1, 12_345, 2 ** (bits - 1) - 1])
    assert np.array_equal(to_steps((steps / 2 ** (bits - 1)).astype(np.float32), bits), steps)
