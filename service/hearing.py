"""What an audio tower hears that takes waveforms: a recording's mid signal at the tower's rate, cut into its windows.

The windows of the masks are of no use to it: they are shorter than its own, and come as bands.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import soxr


class Hearing:
    """Takes a recording's blocks and hands out windows; memory holds two of them, however long the recording is."""

    def __init__(
        self, sample_rate: int, window_rate: int, window_samples: int, hear: Callable[[np.ndarray], None]
    ) -> None:
        """Begin a recording.

        Args:
            sample_rate: of the recording.
            window_rate: of the windows.
            window_samples: samples of a window.
            hear: called with each window [T] in turn. The last one ends with the recording, and so overlaps the one
                before; it is shorter where the whole recording is.
        """
        self._window_samples, self._hear = window_samples, hear
        self._resampler = soxr.ResampleStream(sample_rate, window_rate, 1, dtype="float32")
        self._waiting = np.zeros(0, np.float32)
        self._heard = np.zeros(0, np.float32)  # the last window

    def push(self, block: np.ndarray) -> None:
        """Take the next samples. Shape: [C, T]."""
        self._take(self._resampler.resample_chunk(np.ascontiguousarray(block.mean(axis=0, dtype=np.float32))))

    def finish(self) -> None:
        """End the recording."""
        self._take(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        if len(self._waiting):
            self._hear(np.concatenate([self._heard, self._waiting])[-self._window_samples :])

    def _take(self, samples: np.ndarray) -> None:
        self._waiting = np.concatenate([self._waiting, samples])
        while len(self._waiting) >= self._window_samples:
            self._heard, self._waiting = np.split(self._waiting, [self._window_samples])
            self._hear(self._heard)
