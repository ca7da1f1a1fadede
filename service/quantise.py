"""Rounding to a format's steps such that the parts still add up to the whole.

Rounding each part by itself would leave a sum that is off by a step for every two parts. Here the stems are rounded,
the mixture is rounded, and the residual is their difference as integers: exact. No dither, for the same request gives
the same bytes.
"""

from __future__ import annotations

import numpy as np


def to_steps(samples: np.ndarray, bits: int) -> np.ndarray:
    """Round float samples to integers of ``bits``, clipped at full scale. Shape: any; int32."""
    full = 2 ** (bits - 1)
    # float64 because full scale minus one step is no float32 at 24 bits and more.
    return np.clip(np.rint(samples * np.float64(full)), -full, full - 1).astype(np.int32)


def with_residual(stems: np.ndarray, mixture: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the stems in steps and the residual that completes them.

    ``sum(stems) + residual == to_steps(mixture)`` holds for every sample. Where the residual would leave full scale
    (stems of overlapping prompts can add up to several times the mixture) it is clipped, and what is cut off is taken
    from the stems, first to last.

    Shape:
        stems [P, C, T] and mixture [C, T] float32; returns [P, C, T] and [C, T] int32.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    steps = to_steps(stems, bits)
    exact = to_steps(mixture, bits) - steps.sum(axis=0, dtype=np.int32)
    residual = np.clip(exact, low, high)
    left_over = exact - residual
    if left_over.any():
        for stem in steps:
            adjusted = np.clip(stem + left_over, low, high)
            left_over -= adjusted - stem
            stem[...] = adjusted
    return steps, residual
