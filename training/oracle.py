"""Masks that know the answer: what the best mask of this shape could reach, through the same bands and synthesis.

The phase-sensitive mask of Erdogan and others (2015), here the least-squares one of a band: real part of source times
conjugate mixture, summed over the band's bins by the filterbank, over the mixture's energy in the band. The ratio mask
is the source's band amplitude over the sum of its own and that of everything else. Both stay in 0..1, like a sigmoid.
"""

from __future__ import annotations

import numpy as np

from model import spectral
from model.spec import SignalSpec

KINDS = ("phase_sensitive", "ratio")
_EMPTY = 1e-20


def separate(signal: SignalSpec, mixture: np.ndarray, sources: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
    """Separate with each kind of oracle mask; all channels share the mask, as they do when serving.

    Shape:
        mixture ``[C, T]``, sources ``[S, C, T]`` -> ``[S, C, T]`` for each of ``KINDS``
    """
    frames = spectral.Frames(signal, sample_rate)
    heard = frames.forward(mixture)
    stems: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for source in sources:
        alone = frames.forward(source)
        for kind, mask in _masks(signal, heard, alone).items():
            masked = heard * spectral.spread(signal, mask, heard.shape[1])
            stems[kind].append(frames.inverse(masked, mixture.shape[1]))
    return {kind: np.stack(parts) for kind, parts in stems.items()}


def _masks(signal: SignalSpec, heard: np.ndarray, alone: np.ndarray) -> dict[str, np.ndarray]:
    """Band masks ``[K, N]`` from the spectra ``[C, F, N]`` of a mixture and one of its sources."""
    agreement = _pool(signal, (alone * heard.conj()).real.sum(axis=0))
    whole, own, rest = (_pool(signal, np.square(np.abs(part)).sum(axis=0)) for part in (heard, alone, heard - alone))
    own, rest = np.sqrt(own), np.sqrt(rest)
    return {
        "phase_sensitive": np.clip(agreement / np.maximum(whole, _EMPTY), 0.0, 1.0).astype(np.float32),
        "ratio": (own / np.maximum(own + rest, _EMPTY)).astype(np.float32),
    }


def _pool(signal: SignalSpec, energy: np.ndarray) -> np.ndarray:
    """Sum ``[F, N]``, which may be negative, over the bands' bins: ``[K, N]``."""
    seen = energy[: signal.n_bins]
    pooled: np.ndarray = spectral.filterbank(signal)[:, : len(seen)] @ seen
    return pooled
