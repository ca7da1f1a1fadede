"""From native bins to bands and from a mask of bands back, at any sample rate."""

from __future__ import annotations

import numpy as np

from model.bands import filterbank
from model.spec import SignalSpec

_CARRY_HZ = 1_000.0  # above what the network sees, the mean mask of the uppermost kilohertz carries on


def bands(signal: SignalSpec, spectrum: np.ndarray) -> np.ndarray:
    """Amplitudes of the bands of a native spectrum.

    Shape:
        complex ``[F, N]`` -> ``[K, N]``; what lies above a low rate's Nyquist frequency counts as silent
    """
    return Pooling(signal, spectrum.shape[0]).pool(spectrum.T).T


def spread(signal: SignalSpec, band_mask: np.ndarray, n_native_bins: int) -> np.ndarray:
    """A mask of bands as a mask of native bins.

    Shape:
        ``[K, N]`` -> ``[n_native_bins, N]``; each bin's mask is a mean of bands, so a mask in 0..1 stays there
    """
    return Pooling(signal, n_native_bins).spread(np.asarray(band_mask, np.float32).T).T


class Pooling:
    """The filterbank cut to a rate's bins, frames first: ``[N, F]`` and ``[N, K]``."""

    def __init__(self, signal: SignalSpec, n_native_bins: int) -> None:
        self._n_seen = min(signal.n_bins, n_native_bins)
        seen = filterbank(signal)[:, : self._n_seen]
        n_carried = 1 + round(_CARRY_HZ / signal.bin_hz)
        above = np.repeat(seen[:, -n_carried:].mean(axis=1, keepdims=True), n_native_bins - self._n_seen, axis=1)
        self._to_bands = np.ascontiguousarray(seen.T)
        self._to_bins = np.concatenate([seen, above], axis=1)

    def pool(self, *channels: np.ndarray) -> np.ndarray:
        """Band amplitudes ``[N, K]`` of the mean of spectra ``[N, F]``."""
        mid = channels[0][:, : self._n_seen]
        for channel in channels[1:]:
            mid = mid + channel[:, : self._n_seen]
        return np.sqrt((np.square(mid.real) + np.square(mid.imag)) @ self._to_bands) / np.float32(len(channels))

    def spread(self, band_mask: np.ndarray) -> np.ndarray:
        """A mask ``[N, F]`` of native bins."""
        return band_mask @ self._to_bins
