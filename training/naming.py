"""How well sounds and phrases find each other: zero-shot accuracy and retrieval, one definition each.

All vectors have unit norm; all figures are shares in 0..1, higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def zero_shot(*, audio: Tensor, labels: Tensor, text: Tensor, groups: Sequence[str]) -> dict[str, float]:
    """Share of sounds whose nearest label is their own, over all and for each group.

    Shape:
        audio ``[n, E]``, labels ``[n]`` rows of text, text ``[m, E]``; groups: n names
    """
    right = (audio @ text.t()).argmax(dim=1) == labels
    figures = {"all": float(right.float().mean())}
    for group in sorted(set(groups)):
        members = torch.tensor([name == group for name in groups])
        figures[group] = float(right[members].float().mean())
    return figures


def retrieval(*, queries: Tensor, labels: Tensor, candidates: Tensor) -> float:
    """Share of queries whose nearest candidate is their label's.

    Shape:
        queries ``[q, E]``, labels ``[q]`` rows of candidates, candidates ``[m, E]``
    """
    return float(((queries @ candidates.t()).argmax(dim=1) == labels).float().mean())


def centroids(vectors: Mapping[str, Tensor], phrases: Mapping[str, Sequence[str]]) -> Tensor:
    """Unit mean ``[m, E]`` of the vectors of each label's phrases, in the order of ``phrases``."""
    means = [torch.stack([vectors[phrase] for phrase in group]).mean(0) for group in phrases.values()]
    return functional.normalize(torch.stack(means), dim=-1)


def cosine(*, one: Tensor, other: Tensor) -> float:
    """Mean cosine of two lists of vectors ``[n, E]``."""
    return float((one * other).sum(-1).mean())
