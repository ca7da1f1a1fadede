"""What the engine needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from model.calibration import Calibration

Features = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens [P, L, D], padding [P, L] bool, pooled [P, E]


class Front(Protocol):
    """What the engine asks of a model, wherever its windows run; :class:`service.ray_network.RayNetwork` is one."""

    @property
    def provider(self) -> str:
        """Name of what runs the graphs."""

    def embed(self, prompts: list[str]) -> Features:
        """Tokens [P, L, D], padding [P, L] bool, pooled [P, E] of prompts."""

    @property
    def audio_rate(self) -> int | None:
        """Sample rate of the waveforms that presence takes; None where it takes a window's bands."""

    @property
    def audio_samples(self) -> int:
        """Samples of the longest waveform that it takes at once."""

    @property
    def calibration(self) -> Calibration | None:
        """How presence was calibrated; None where it is a raw score."""


class Network(Front, Protocol):
    """A model that runs windows here: :class:`model.runtime.Runtime` is one, tests have smaller ones."""

    def mask(self, bands: np.ndarray, embedding: Features) -> np.ndarray:
        """Masks [P, K, N] of a window's bands [K, N]."""

    def masks(self, windows: Sequence[tuple[np.ndarray, Features]]) -> list[np.ndarray]:
        """As :meth:`mask`, of several windows at once, alike in frames and prompts; asked for where batches pay."""

    def presence(self, sound: np.ndarray, embedding: Features, masks: np.ndarray | None = None) -> np.ndarray:
        """How surely each prompt is in a window (bands [K, N], its masks) or a waveform [T]: [P] in 0..1."""

    def presences(self, windows: Sequence[tuple[np.ndarray, Features, np.ndarray]]) -> list[np.ndarray]:
        """As :meth:`presence`, of several windows of bands and their masks at once, alike in frames and prompts."""
