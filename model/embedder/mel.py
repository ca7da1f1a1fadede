"""The log-mel spectrogram that LAION-CLAP's audio tower was trained on, in torch, differentiable to the waveform.

Source: ``torchlibrosa`` as called by ``laion_clap`` (HTSAT), and ``ClapFeatureExtractor`` of transformers with
``truncation="rand_trunc"``, which agree: power spectrum of a periodic Hann window, frames centred with reflected edges,
Slaney's mel scale and area normalisation, decibels with a floor at -100 dB. (The extractor's other filterbank, HTK
without normalisation, belongs to the fused models alone.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

_FLOOR = 1e-10  # power, -100 dB


@dataclass(frozen=True)
class MelConfig:
    """Numbers of the front end; those of every published unfused checkpoint are the defaults."""

    sample_rate: int = 48_000
    window_length: int = 1024
    hop: int = 480
    n_mels: int = 64
    min_hz: float = 50.0
    max_hz: float = 14_000.0
    seconds: float = 10.0

    @property
    def n_samples(self) -> int:
        """Samples of the one length that the audio tower takes."""
        return round(self.seconds * self.sample_rate)


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels.

    Shape:
        waveform ``[B, T]`` at ``config.sample_rate`` -> ``[B, N, n_mels]`` with ``N = T // hop + 1``
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.window_length), persistent=False)
        self.register_buffer("filters", torch.from_numpy(slaney_filters(config)).float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Analyse."""
        spectrum = torch.stft(
            waveform,
            self.config.window_length,
            self.config.hop,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        parts = torch.view_as_real(spectrum)
        power = parts.square().sum(dim=-1).transpose(1, 2)
        return 10.0 * torch.log10(torch.matmul(power, self.filters).clamp_min(_FLOOR))


def slaney_filters(config: MelConfig) -> np.ndarray:
    """Triangles ``[F, n_mels]`` of area one (in hertz), evenly spaced on Slaney's mel scale."""
    edges = _to_hertz(np.linspace(_to_mel(config.min_hz), _to_mel(config.max_hz), config.n_mels + 2))
    bins = np.linspace(0.0, config.sample_rate / 2, config.window_length // 2 + 1)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(min=0.0)
    filters: np.ndarray = triangles * (2.0 / (high - low))
    return filters


# Slaney's Auditory Toolbox: linear below 1 kHz, 200/3 Hz a mel, then 27 mels for each factor of 6.4.
_HZ_A_MEL, _KNEE_HZ, _LOG_STEP = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0
_KNEE_MEL = _KNEE_HZ / _HZ_A_MEL


def _to_mel(hertz: float) -> float:
    if hertz < _KNEE_HZ:
        return hertz / _HZ_A_MEL
    return float(_KNEE_MEL + np.log(hertz / _KNEE_HZ) / _LOG_STEP)


def _to_hertz(mels: np.ndarray) -> np.ndarray:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (mels - _KNEE_MEL))
    return np.where(mels < _KNEE_MEL, mels * _HZ_A_MEL, above)
