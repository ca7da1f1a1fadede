"""Captioned recordings: all that weakly-supervised training may hear. Mixtures and what is said of them, no source.

Whatever the data lies in (mixtures rendered from a list, a folder, a manifest, WebDataset shards), training sees it
through the one protocol here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Recordings(Protocol):
    """A set of recordings, each with its caption and the phrases that name its sounds.

    Implementations are safe to read from several threads, and may be pickled or opened again by another process.
    """

    sample_rate: int

    def __len__(self) -> int: ...

    def caption(self, index: int) -> str:
        """What is said of the whole recording."""
        ...

    def phrases(self, index: int) -> Sequence[str]:
        """One phrase for each sound that the caption names; at least one."""
        ...

    def n_samples(self, index: int) -> int:
        """Length of a recording at :attr:`sample_rate`."""
        ...

    def audio(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Samples ``start:start + length`` of a recording, mono float32 ``[T]`` in -1..1, cut at its end.

        Raises:
            ValueError: the recording cannot be read; the message names it.
        """
        ...
