"""A decoded recording on disk: raw float32, interleaved; an hour costs a block of memory, and any part can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_SAMPLES = 65_536


@dataclass(frozen=True)
class Recording:
    """What was decoded: ``n_samples`` of ``n_channels`` at ``sample_rate`` hertz, in the raw file ``path``."""

    path: Path
    sample_rate: int
    n_channels: int
    n_samples: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate

    def read(self, start: int, n_samples: int) -> np.ndarray:
        """Return samples ``start`` up to ``start + n_samples``. Shape: [C, T] float32."""
        flat = np.fromfile(
            self.path, dtype=np.float32, count=n_samples * self.n_channels, offset=start * self.n_channels * 4
        )
        return np.ascontiguousarray(flat.reshape(-1, self.n_channels).T)

    def blocks(self, block_samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
        """Yield the whole in order. Shape of each: [C, T'] float32, T' at most ``block_samples``."""
        for start in range(0, self.n_samples, block_samples):
            yield self.read(start, min(block_samples, self.n_samples - start))
