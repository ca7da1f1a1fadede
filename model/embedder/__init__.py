"""Joint audio-text embedders behind one protocol: the separator never knows which one it has.

Nothing is imported here but torch's types: the towers live in :mod:`model.embedder.compact` and its neighbours.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Embedder(Protocol):
    """What makes vectors of phrases and of sounds in one space."""

    @property
    def logit_scale(self) -> Tensor:
        """Scalar that multiplies cosines into logits."""
        ...

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Embed phrases: tokens ``[B, L, D]``, padding ``[B, L]`` (True where padded), pooled ``[B, E]``, unit norm."""
        ...

    def audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Embed ``[B, T]``: ``[B, E]`` of unit norm, differentiable to the waveform."""
        ...
