"""Logistic regression of a few measures, classes weighed alike, by Newton's steps."""

from __future__ import annotations

import numpy as np

_RIDGE = 1.0  # in standardised measures; keeps weights finite where the classes can be told apart without error
_STEPS = 50


def fit(measures: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Weights ``[1 + M]``, the intercept first, of measures ``[n, M]`` as they are, for ``present [n]`` bool.

    Both classes weigh the same whatever their numbers, so the probabilities are for a prior of a half.

    Raises:
        ValueError: one class is missing.
    """
    if present.all() or not present.any():
        raise ValueError("a calibration needs prompts that are there and prompts that are not")
    mean, spread = measures.mean(axis=0), measures.std(axis=0) + 1e-9
    rows = np.column_stack([np.ones(len(measures)), (measures - mean) / spread])
    importance = np.where(present, 0.5 / present.mean(), 0.5 / (1.0 - present.mean()))
    ridge = _RIDGE * np.diag(np.r_[0.0, np.ones(measures.shape[1])])
    weights = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        probability = 0.5 + 0.5 * np.tanh(0.5 * rows @ weights)
        slope = rows.T @ (importance * (probability - present)) + ridge @ weights
        curvature = (rows * (importance * probability * (1.0 - probability))[:, None]).T @ rows + ridge
        step = np.linalg.solve(curvature, slope)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    scaled = weights[1:] / spread
    return np.concatenate([[weights[0] - scaled @ mean], scaled])
