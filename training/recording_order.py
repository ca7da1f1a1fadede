"""Recordings in another order, so that what is kept from training is not one corner of a sorted list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.recordings import Recordings


class ShuffledRecordings:
    """The same recordings in an order that ``seed`` gives, a :class:`training.recordings.Recordings`."""

    def __init__(self, recordings: Recordings, seed: int) -> None:
        self.recordings, self.sample_rate = recordings, recordings.sample_rate
        self.order = [int(index) for index in np.random.default_rng(seed).permutation(len(recordings))]

    def __len__(self) -> int:
        return len(self.order)

    def caption(self, index: int) -> str:
        """What is said of the whole recording."""
        return self.recordings.caption(self.order[index])

    def phrases(self, index: int) -> Sequence[str]:
        """One phrase for each sound that the caption names."""
        return self.recordings.phrases(self.order[index])

    def n_samples(self, index: int) -> int:
        """Length in samples."""
        return self.recordings.n_samples(self.order[index])

    def audio(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Samples ``start:start + length``, mono float32 ``[T]``; raises ValueError where they cannot be read."""
        return self.recordings.audio(self.order[index], start, length)
