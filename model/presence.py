"""How surely a prompt's sound is in a recording, and when.

A window of bands is heard as it is and through each prompt's mask; the two cosines with the prompt and the share of
the energy that the mask lets through are the measures of :class:`model.calibration.Calibration`. Over a recording the
window in which the sound is surest decides; :mod:`model.spans` says when it sounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from model.calibration import Calibration
from model.spans import SpanFinder
from model.spec import SignalSpec

FLOOR_DB = -60.0
LIKELY = 0.5  # spans are told of sounds that are rather there than not
_EDGE = 1e-6  # probabilities are kept off 0 and 1, where there is no logit


@dataclass(frozen=True)
class Presence:
    """A prompt's sound in a recording.

    Attributes:
        probability: 0 to 1, that the sound is there.
        spans: (begin, end) in seconds, in order and apart, where it is heard; none where it rather is not.
    """

    probability: float
    spans: tuple[tuple[float, float], ...] = ()


def within(presence: Presence, duration_s: float) -> Presence:
    """With spans cut to the recording: the last frame reaches past its end."""
    end = round(duration_s, 3)
    spans = tuple((begin, min(last, end)) for begin, last in presence.spans if begin < end)
    return Presence(presence.probability, spans)


def energies(bands: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy of the window and of its stems, frame by frame.

    Shape:
        bands [K, N], masks [P, K, N] -> [N] and [P, N]
    """
    squared = np.square(bands)
    return squared.sum(axis=0), (np.square(masks) * squared).sum(axis=1)


def energy_db(bands: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Energy of each stem relative to the window's, in decibels from ``FLOOR_DB`` to 0. Shape: [P]."""
    mixture, stems = energies(bands, masks)
    share = stems.sum(axis=1) / max(float(mixture.sum()), 1e-20)
    return 10.0 * np.log10(np.clip(share, 10 ** (FLOOR_DB / 10), 1.0))


def probabilities(
    calibration: Calibration,
    cosine: np.ndarray,
    stem_cosine: np.ndarray | None = None,
    stem_energy_db: np.ndarray | None = None,
) -> np.ndarray:
    """Probabilities of prompts in one window: of what was heard and, if given, of what was separated. All [P]."""
    if stem_cosine is None or stem_energy_db is None:
        weights = calibration.heard
        return logistic(weights["intercept"] + weights["cosine"] * cosine)
    weights = calibration.separated
    return logistic(
        weights["intercept"]
        + weights["cosine"] * cosine
        + weights["stem_cosine"] * stem_cosine
        + weights["energy_db"] * stem_energy_db
    )


def logistic(logits: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``, which never overflows."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits)


def logit(probability: np.ndarray) -> np.ndarray:
    """The inverse of :func:`logistic`, of what is not quite 0 or 1."""
    kept = np.clip(probability, _EDGE, 1.0 - _EDGE)
    return np.log(kept) - np.log1p(-kept)


def over_windows(surest: np.ndarray, n_windows: int, calibration: Calibration | None) -> np.ndarray:
    """Probabilities of prompts in a recording, from those [P] in the window where each is surest."""
    if calibration is None or calibration.windows == 0.0 or n_windows <= 1:
        return surest  # as it was found, to the last digit
    logits = logit(surest) + calibration.windows * math.log2(n_windows)
    return np.where(surest > 0, logistic(logits), 0.0)


def at_prior(probability: np.ndarray, prior: float) -> np.ndarray:
    """Probabilities that hold for a prior of a half, for another one. What is 0 stays so."""
    shift = math.log(prior) - math.log1p(-prior)
    return probability if shift == 0.0 else np.where(probability > 0, logistic(logit(probability) + shift), 0.0)


class PresenceMeter:
    """Follows a recording window by window; what it keeps grows by two numbers a span and by nothing else."""

    def __init__(self, signal: SignalSpec, n_prompts: int, calibration: Calibration | None = None) -> None:
        self._calibration = calibration
        self._spans = SpanFinder(signal, n_prompts)
        self._surest = np.zeros(n_prompts)
        self._n_heard = 0

    def add(self, bands: np.ndarray, masks: np.ndarray, heard: np.ndarray | None) -> None:
        """Take the next window of the masks: bands [K, N], masks [P, K, N] and the prompts' probabilities [P] in it.

        ``heard`` is None where what is heard comes by windows of its own, through :meth:`hear`.
        """
        self._spans.push(*energies(bands, masks), None if heard is None else heard >= LIKELY)
        if heard is not None and bands.any():
            self.hear(heard)

    def hear(self, heard: np.ndarray) -> None:
        """Take the prompts' probabilities [P] in another window of sound."""
        self._surest = np.maximum(self._surest, heard)
        self._n_heard += 1

    def finish(self) -> list[Presence]:
        """End the recording."""
        found = self._spans.finish()
        whole = over_windows(self._surest, self._n_heard, self._calibration)
        return [
            Presence(round(float(value), 3), spans if value >= LIKELY else ())
            for value, spans in zip(whole, found, strict=True)
        ]
