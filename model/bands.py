"""The filterbank between STFT bins and bands: triangles, linear below ``linear_hz`` and logarithmic above."""

from __future__ import annotations

import numpy as np

from model.spec import SignalSpec


def band_centres(signal: SignalSpec) -> np.ndarray:
    """Centres ``[K]`` of the bands in bins, strictly increasing from 0 to ``n_bins - 1``.

    A warped frequency, linear up to ``linear_hz`` and continuing with the same slope as a logarithm, is cut in even
    steps; where a step is narrower than a bin the centres are pushed one bin apart.
    """
    knee = signal.linear_hz / signal.bin_hz
    top = signal.n_bins - 1
    warped_top = knee * (1.0 + np.log(top / knee)) if top > knee else float(top)
    warped = np.linspace(0.0, warped_top, signal.n_bands)
    centres = np.where(warped <= knee, warped, knee * np.exp(warped / knee - 1.0))
    for index in range(1, signal.n_bands):
        centres[index] = max(centres[index], centres[index - 1] + 1.0)
    excess = centres[-1] - top
    for index in range(signal.n_bands - 1, -1, -1):
        if excess <= 0:
            break
        centres[index] = min(centres[index], top - (signal.n_bands - 1 - index))
    centres[-1] = top
    return centres


def filterbank(signal: SignalSpec) -> np.ndarray:
    """Weights ``[K, F]`` of each bin in each band, float32; every bin's weights add up to one.

    Energies are pooled by the weights as they are, and a band mask is spread over bins by their transpose.
    """
    centres = band_centres(signal)
    bins = np.arange(signal.n_bins, dtype=np.float64)
    below = np.clip(np.searchsorted(centres, bins, side="right") - 1, 0, signal.n_bands - 2)
    share = np.clip((bins - centres[below]) / (centres[below + 1] - centres[below]), 0.0, 1.0)
    weights = np.zeros((signal.n_bands, signal.n_bins))
    weights[below, np.arange(signal.n_bins)] += 1.0 - share
    weights[below + 1, np.arange(signal.n_bins)] += share
    return weights.astype(np.float32)
