"""From what is measured of a prompt to the probability that its sound is there. Standard library only.

A logistic function of a few measures, fitted to a bundle's own weights by `python -m training.calibrate` and kept in
its manifest under ``presence``; a bundle without has only the embedder's raw score. "Probability" is for prompts of
which half are there: whoever asks for what is rarely there reads too much, and :attr:`Calibration.PRIOR` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Calibration:
    """Weights of the measures.

    Attributes:
        heard: of ``intercept`` and ``cosine``, that of the recording and the prompt: no separation needed.
        separated: of ``intercept``, ``cosine``, ``stem_cosine``, that of the stem and the prompt, and ``energy_db``,
            the stem's energy relative to the mixture's; empty where the audio tower cannot hear stems.
        windows: added to the largest logit for each doubling of the windows it is the largest of.
        fitted: on what, and the figures of the fit: for people.
    """

    PRIOR: ClassVar[float] = 0.5
    HEARD: ClassVar[tuple[str, ...]] = ("intercept", "cosine")
    SEPARATED: ClassVar[tuple[str, ...]] = ("intercept", "cosine", "stem_cosine", "energy_db")

    heard: Mapping[str, float]
    separated: Mapping[str, float]
    windows: float = 0.0
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weights, wanted in (
            ("heard", self.heard, [self.HEARD]),
            ("separated", self.separated, [self.SEPARATED, ()]),
        ):
            if not any(set(weights) == set(names) for names in wanted):
                raise ValueError(f"presence: {name} must weigh {' or '.join(map(str, wanted))}, got {sorted(weights)}")
        numbers = [self.windows, *self.heard.values(), *self.separated.values()]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"presence: weights must be finite numbers, got {numbers}")

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of JSON values."""
        return {
            "heard": dict(self.heard),
            "separated": dict(self.separated),
            "windows": self.windows,
            "fitted": dict(self.fitted),
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Build from :meth:`to_json`'s dictionary.

        Raises:
            ValueError: a key or weight is unknown or missing, or a weight is no finite number.
        """
        keys = {"heard", "separated", "windows", "fitted"}
        if not isinstance(data, dict) or set(data) != keys:
            raise ValueError(f"presence must have {sorted(keys)}, got {sorted(data) if data else data!r}")
        if not all(isinstance(data[key], dict) for key in ("heard", "separated", "fitted")):
            raise ValueError("presence: heard, separated and fitted must be objects")
        return cls(**data)
