"""A text tower drawn to the phrases that the separator was trained on: other words for a known sound mean that sound.

A separator knows a few hundred phrases, as points; between them it was never asked. So what is asked is put among them:
``normalise(sum_a softmax_a(<p, a> / t) a)`` over the phrases' vectors ``a``, attention with the phrases as keys and
values. A known phrase stays where it is but for its own neighbours; a phrase for a sound that none of them names
becomes the nearest of what is known, which is all that the separator could have answered with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AnchoredText(nn.Module):
    """A tower's tokens as they are, its pooled vector drawn to the anchors."""

    def __init__(self, tower: nn.Module, anchors: Tensor, temperature: float) -> None:
        """Wrap a tower.

        Args:
            tower: ids ``[B, L]``, padding ``[B, L]`` -> tokens ``[B, L, D]``, pooled ``[B, E]`` of unit norm.
            anchors: vectors of the known phrases ``[A, E]``, unit norm.
            temperature: of the cosines; near 0 the nearest phrase is taken, large ones blur all into one.

        Raises:
            ValueError: there is no anchor, or the temperature is not above 0.
        """
        super().__init__()
        if anchors.ndim != 2 or not len(anchors):
            raise ValueError(f"anchors must be [A, E] with A at least 1, got {list(anchors.shape)}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.tower = tower
        self.anchors = nn.Parameter(anchors.detach().clone(), requires_grad=False)
        self.temperature = temperature

    def forward(self, ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and padding ``[B, L]`` -> tokens ``[B, L, D]``, pooled ``[B, E]`` of unit norm."""
        tokens, pooled = self.tower(ids, padding)
        weights = torch.softmax(pooled @ self.anchors.t() / self.temperature, dim=-1)
        return tokens, nn.functional.normalize(weights @ self.anchors, dim=-1)
