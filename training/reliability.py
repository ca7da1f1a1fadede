"""How far a probability can be believed: one definition a figure, all of them of probabilities and of what was true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

BINS = 10


def auc(*, probability: np.ndarray, present: np.ndarray) -> float:
    """Area under the curve: the share of (present, absent) pairs in which the present one scores higher, ties half."""
    ranks, n = rankdata(probability), int(present.sum())
    return float((ranks[present].sum() - n * (n + 1) / 2) / (n * (len(present) - n)))


def brier(*, probability: np.ndarray, present: np.ndarray) -> float:
    """Mean squared error of the probability; 0.25 for who always says a half."""
    return float(np.square(probability - present).mean())


@dataclass(frozen=True)
class Bin:
    """Prompts whose probability lies in ``low`` to ``low + 1 / BINS``: how many, the mean said, and the share true."""

    low: float
    count: int
    said: float
    true: float


def reliability(*, probability: np.ndarray, present: np.ndarray) -> list[Bin]:
    """The reliability table: equal bins of probability, those with nothing in them left out."""
    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = [(row, index == row) for row in range(BINS) if (index == row).any()]
    return [
        Bin(row / BINS, int(inside.sum()), float(probability[inside].mean()), float(present[inside].mean()))
        for row, inside in rows
    ]


def calibration_error(*, probability: np.ndarray, present: np.ndarray) -> float:
    """Expected calibration error: the mean, over prompts, of what their bin says less what is true of it."""
    table = reliability(probability=probability, present=present)
    return sum(item.count * abs(item.said - item.true) for item in table) / len(probability)


def figures(probability: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """AUC, Brier score and expected calibration error, rounded."""
    return {
        "auc": round(auc(probability=probability, present=present), 4),
        "brier": round(brier(probability=probability, present=present), 4),
        "ece": round(calibration_error(probability=probability, present=present), 4),
    }
