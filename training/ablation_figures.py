"""Figures of an ablation: means, paired differences and shares of a gap, each with a 95 % interval over mixtures.

Seeds are averaged sound by sound before anything else, so an interval is of the mixtures and says nothing of the seeds;
their standard deviation stands beside it. Differences are paired: how hard a mixture is cancels out of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.interval import CONFIDENCE, Interval

Rows = list[dict[str, Any]]
DRAWS = 10_000


@dataclass(frozen=True)
class Sounds:
    """A figure of every sound of a list, seeds averaged: ``values[i]`` of the mixture ``mixtures[i]``."""

    mixtures: tuple[str, ...]
    sources: tuple[str, ...]
    values: np.ndarray

    @classmethod
    def of(cls, seeds: Sequence[Rows], figure: str) -> Sounds:
        """Average the seeds' rows; sounds without the figure are NaN.

        Raises:
            ValueError: no seed, or seeds scored on different mixtures.
        """
        if not seeds:
            raise ValueError("a figure needs the rows of at least one seed, got none")
        keys = [[(row["id"], sound["source"]) for row in rows for sound in row["present"]] for rows in seeds]
        if any(other != keys[0] for other in keys):
            raise ValueError(f"seeds must be scored on the same mixtures, got {[len(rows) for rows in seeds]} of them")
        columns = np.array([[_number(sound, figure) for row in rows for sound in row["present"]] for rows in seeds])
        names, sources = zip(*keys[0], strict=True) if keys[0] else ((), ())
        return cls(names, sources, columns.mean(axis=0))

    def interval(self, source: str = "") -> Interval | None:
        """Mean over all sounds, or those of one of the pack's sources."""
        kept = [row for row, name in enumerate(self.sources) if source in ("", name)]
        return Interval.of([float(self.values[row]) for row in kept], [self.mixtures[row] for row in kept])

    def less(self, other: Sounds) -> Sounds:
        """Sound by sound, this less the other.

        Raises:
            ValueError: they are of different mixtures.
        """
        if (self.mixtures, self.sources) != (other.mixtures, other.sources):
            raise ValueError(
                f"only the same mixtures can be paired, got {len(self.mixtures)}, {len(other.mixtures)} sounds"
            )
        return Sounds(self.mixtures, self.sources, self.values - other.values)


@dataclass(frozen=True)
class Share:
    """A share of a gap: 1 closes it; ``low`` and ``high`` are None where the gap itself may be nothing."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return "gap not clear of zero"
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"


def share_closed(*, supervised: Sounds, unsupervised: Sounds, weak: Sounds, seed: int = 0) -> Share:
    """``(weak - unsupervised) / (supervised - unsupervised)`` of the means; percentiles of a bootstrap over mixtures.

    Mixtures are drawn with all three arms' figures at once, so that what they share cancels in every draw.
    """
    gain, gap = weak.less(unsupervised), supervised.less(unsupervised)
    names, rows = np.unique(np.array(gain.mixtures), return_inverse=True)
    kept = ~(np.isnan(gain.values) | np.isnan(gap.values))
    above, below = (np.bincount(rows[kept], side.values[kept], len(names)) for side in (gain, gap))
    value = float(above.sum() / below.sum()) if below.sum() else math.nan
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    gaps = weights @ below
    tail = (1 - CONFIDENCE) / 2
    if (gaps <= 0).mean() > tail:
        return Share(value, None, None)
    low, high = np.quantile((weights @ above)[gaps > 0] / gaps[gaps > 0], [tail, 1 - tail])
    return Share(value, float(low), float(high))


def spread(seeds: Sequence[Rows], figure: str) -> float | None:
    """Standard deviation of the seeds' means; None for one seed."""
    means = [float(np.nanmean(Sounds.of([rows], figure).values)) for rows in seeds]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def _number(sound: dict[str, Any], figure: str) -> float:
    value = sound.get(figure)
    return math.nan if value is None else float(value)
