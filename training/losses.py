"""Losses, each with its equation and where it comes from; all return a scalar to minimise.

Those in decibels take energies (:class:`training.energies.MaskEnergies`), the paper's take amplitudes. The contrastive
ones have a file of their own, :mod:`training.contrastive`.
"""

from __future__ import annotations

import torch
from torch import Tensor

RELEASED_GAIN = 1022 / 4  # the release's STFT is not scaled: half the sum of its Hann window
FLOOR_DB = 30.0  # below the mixture: an estimate better than this is good enough


def negative_sdr(*, error: Tensor, target: Tensor, mixture: Tensor, weight: Tensor | None = None) -> Tensor:
    """Negative SDR with a floor below the mixture, averaged over the estimates whose target sounds.

    ``10 log10((|s - e|^2 + f |x|^2) / (|s|^2 + f |x|^2))``: the thresholded SDR of Wisdom et al. (2006.12701, eq. 2),
    its threshold relative to the mixture instead of the target. Targets of no energy are left to :func:`silence`.

    Shape:
        error, target ``[B, S]`` energies; mixture ``[B]``; weight ``[B, S]`` of each estimate in the mean
    """
    floor = _floor(mixture)
    value = 10.0 * (torch.log10(error + floor) - torch.log10(target + floor))
    counts = (target > 0).float() if weight is None else (target > 0) * weight
    return (value * counts).sum() / counts.sum().clamp_min(1e-6)


def silence(*, estimate: Tensor, absent: Tensor, mixture: Tensor) -> Tensor:
    """Energy left for prompts whose sound is absent, in dB over the floor, averaged over those prompts.

    ``10 log10((|e|^2 + f |x|^2) / (f |x|^2))``: the loss above for ``s = 0``. It is a term of its own because it spans
    30 dB where the other starts within 1 dB of zero: with equal weights the network learns silence first and for good.
    The paper has no such term.

    Shape:
        estimate ``[B, P]`` energies, absent ``[B, P]`` bool, mixture ``[B]``
    """
    floor = _floor(mixture)
    value = 10.0 * torch.log10((estimate + floor) / floor)
    return (value * absent).sum() / absent.sum().clamp_min(1)


def _floor(mixture: Tensor) -> Tensor:
    return 10 ** (-FLOOR_DB / 10) * mixture[:, None] + 1e-8


def weighted_l1(*, estimate: Tensor, target: Tensor, loudness: Tensor) -> Tensor:
    """The release's reconstruction loss: ``mean(w(Z) |Y - R|)`` on linear amplitudes, ``w = clip(log1p(Z), 1e-3, 10)``.

    Source: the public code of arXiv 2404.01740 (L_URL takes ``Z`` from the mixture of mixtures, L_CRL from the target).
    It differs in that amplitudes are those of the signal's bands; with the ``paper`` preset a band is a bin.
    They are brought to the release's scale, since the weight is about linear in the amplitude.

    Shape:
        ``[B, S, K, N]`` amplitudes, loudness broadcasts to them
    """
    estimate, target, loudness = (RELEASED_GAIN * value for value in (estimate, target, loudness))
    weight = torch.log1p(loudness).clamp(1e-3, 10.0)
    return (weight * (estimate - target).abs()).mean(dim=(-2, -1)).sum(dim=1).mean()
