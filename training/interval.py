"""Means with 95 % confidence intervals over mixtures.

Sources of one mixture rise and fall together (what leaks into one is missing in the other), so a mixture counts as one
observation however many of its sources are averaged. The mean is over sources; its standard error is that of a ratio of
sums over mixtures (the cluster-robust error with its small-sample factor), its quantile Student's t with one degree of
freedom less than there are mixtures. With one source a mixture this is the textbook interval of a mean. A bootstrap was
the other choice: it needs a seed, and for labels with three mixtures its intervals are far too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Mean and median of ``values`` numbers from ``mixtures`` mixtures.

    ``low`` and ``high`` bound the mean; they are None with fewer than two mixtures.
    """

    mean: float
    low: float | None
    high: float | None
    values: int
    mixtures: int
    median: float

    @classmethod
    def of(cls, values: Sequence[float], mixtures: Sequence[str]) -> Interval | None:
        """Average ``values``, the i-th from the mixture ``mixtures[i]``; NaN is left out, and nothing left is None."""
        pairs = [(value, name) for value, name in zip(values, mixtures, strict=True) if not math.isnan(value)]
        if not pairs:
            return None
        numbers = np.array([value for value, _ in pairs])
        mean, median = float(numbers.mean()), float(np.median(numbers))
        names = sorted({name for _, name in pairs})
        if len(names) < 2:
            return cls(mean, None, None, len(pairs), len(names), median)
        rows = {name: row for row, name in enumerate(names)}
        residuals = np.zeros(len(names))
        np.add.at(residuals, [rows[name] for _, name in pairs], numbers - mean)
        variance = float(np.square(residuals).sum()) * len(names) / (len(names) - 1)
        half = float(student.ppf(0.5 + CONFIDENCE / 2, len(names) - 1)) * math.sqrt(variance) / len(pairs)
        return cls(mean, mean - half, mean + half, len(pairs), len(names), median)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ±{(self.high - self.low) / 2:.2f}"
