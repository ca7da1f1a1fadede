"""The bi-modal contrastive loss (CNT): predicted sounds should say, to a frozen embedder, what they were asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_NEVER = -1e4  # a logit that no softmax sees, finite so that zero times it is zero


def released_contrastive(audio: Tensor, text: Tensor, *, scale: Tensor | float) -> Tensor:
    """CNT as the public code of arXiv 2404.01740 has it: ``sum_n CE(s A_n E_n', identity)``.

    One matrix for each place ``n`` of a mixture in its mixture of mixtures, one direction (which text is this sound),
    the own prompt the one positive. So interferers from the other mixture are no negatives, and equal prompts are.

    Shape:
        audio, text ``[N, M, E]`` of unit norm, M the predictions of a batch for the n-th mixtures -> scalar
    """
    logits = scale * torch.matmul(audio, text.transpose(1, 2))
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[0], -1)
    return functional.cross_entropy(logits.flatten(0, 1), own.flatten()) * logits.shape[0]


def bimodal_contrastive(
    audio: Tensor,
    text: Tensor,
    *,
    positive: Tensor,
    ignored: Tensor,
    scale: Tensor | float,
    heard: Tensor | None = None,
) -> Tensor:
    """CNT, ours: both directions, any number of positives, every prediction of every mixture in one matrix.

    Differs from the release in that interferers are negatives, equal and near-equal prompts are positives or left out,
    texts need not belong to a prediction (a bank of prompts gives further negatives), and, with ``heard``, a prompt's
    logit is its *gain* in similarity over the mixture that the prediction was taken from: an embedder that hears rain
    everywhere then favours no one.

    Shape:
        audio ``[M, E]``, text ``[T, E]`` of unit norm; positive, ignored ``[M, T]`` bool; heard ``[M, E]`` -> scalar
    """
    logits = _logits(audio, text, ignored=ignored, scale=scale, heard=heard)
    return 0.5 * (_direction(logits, positive) + _direction(logits.t(), positive.t()))


def accuracy(audio: Tensor, text: Tensor, *, positive: Tensor, ignored: Tensor, heard: Tensor | None = None) -> Tensor:
    """Share of predictions whose nearest text is one of their own."""
    nearest = _logits(audio, text, ignored=ignored, scale=1.0, heard=heard).argmax(dim=1)
    return positive.gather(1, nearest[:, None]).float().mean()


def _logits(audio: Tensor, text: Tensor, *, ignored: Tensor, scale: Tensor | float, heard: Tensor | None) -> Tensor:
    similarity = audio @ text.t()
    if heard is not None:
        similarity = similarity - heard @ text.t()
    return (scale * similarity).masked_fill(ignored, _NEVER)


def _direction(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of each row, spread evenly over its positives; rows without one are left out."""
    weights = positive.float()
    count = weights.sum(dim=1)
    losses = -(weights * functional.log_softmax(logits.float(), dim=1)).sum(dim=1) / count.clamp_min(1.0)
    return losses.sum() / (count > 0).sum().clamp_min(1)
