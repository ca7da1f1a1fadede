"""Losses, each with its equation. All take waveforms and return a scalar to minimise."""

from __future__ import annotations

import torch
from torch import Tensor


def negative_sdr(*, estimate: Tensor, target: Tensor, mixture: Tensor, floor_db: float = 30.0) -> Tensor:
    """Negative SDR with a floor at ``floor_db`` below the mixture, averaged over the estimates whose target sounds.

    ``10 log10((|s - e|^2 + f |x|^2) / (|s|^2 + f |x|^2))`` with ``f = 10^(-floor_db / 10)``: the thresholded SDR of
    Wisdom et al. (2006.12701, eq. 2), its threshold relative to the mixture instead of the target.

    Args:
        estimate: ``[B, P, T]``.
        target: ``[B, P, T]``; silent ones are left to :func:`silence`.
        mixture: ``[B, T]``.
        floor_db: below the mixture, in dB.
    """
    floor = _floor(mixture, floor_db)
    error = (target - estimate).square().sum(dim=-1)
    power = target.square().sum(dim=-1)
    sounds = power > 0
    value = 10.0 * (torch.log10(error + floor) - torch.log10(power + floor))
    return (value * sounds).sum() / sounds.sum().clamp_min(1)


def silence(*, estimate: Tensor, target: Tensor, mixture: Tensor, floor_db: float = 30.0) -> Tensor:
    """Energy left for prompts whose sound is absent, in dB over the floor, averaged over the silent targets.

    ``10 log10((|e|^2 + f |x|^2) / (f |x|^2))``: the loss above for ``s = 0``. It is a term of its own because it spans
    30 dB where the other starts within 1 dB of zero: with equal weights the network learns silence first and for good.
    """
    floor = _floor(mixture, floor_db)
    absent = target.square().sum(dim=-1) == 0
    value = 10.0 * torch.log10((estimate.square().sum(dim=-1) + floor) / floor)
    return (value * absent).sum() / absent.sum().clamp_min(1)


def _floor(mixture: Tensor, floor_db: float) -> Tensor:
    return 10 ** (-floor_db / 10) * mixture.square().sum(dim=-1, keepdim=True) + 1e-8


def relative_l1(*, estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """Mean absolute error of the waveforms over the mixture's mean absolute value."""
    scale = mixture.abs().mean(dim=-1, keepdim=True).unsqueeze(1) + 1e-6
    return ((estimate - target).abs() / scale).mean()


LOSSES = {"negative_sdr": negative_sdr, "silence": silence, "relative_l1": relative_l1}
