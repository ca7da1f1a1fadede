"""Building blocks of the separators: the torch front end, residual blocks, attention and the ways a prompt gets in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.bands import filterbank
from model.spec import SignalSpec


class BandAnalysis(nn.Module):
    """STFT and band amplitudes of a waveform, differentiable; the torch twin of :mod:`model.spectral`.

    Shape:
        waveform ``[B, T]`` at ``sample_rate`` -> spectrum ``[B, F, N]`` complex, bands ``[B, K, N]``, with
        ``N = T // hop + 1``. The rate must have a whole hop (32 kHz: 320).
    """

    filters: Tensor
    window: Tensor

    def __init__(self, signal: SignalSpec, sample_rate: int = 32_000) -> None:
        super().__init__()
        self.signal = signal
        self.hop = round(signal.hop_s * sample_rate)
        if abs(self.hop - signal.hop_s * sample_rate) > 1e-6:
            raise ValueError(f"sample_rate must give a whole hop of {signal.hop_s} s, got {sample_rate}")
        self.n_fft = signal.window_length(sample_rate)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filterbank(signal)).float(), persistent=False)

    def transform(self, waveform: Tensor) -> Tensor:
        """STFT ``[..., T] -> [..., F, N]``, scaled so that amplitudes do not depend on the sample rate."""
        spectrum = torch.stft(
            waveform.flatten(0, -2),
            self.n_fft,
            self.hop,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return (spectrum * (2.0 / self.window.sum())).unflatten(0, waveform.shape[:-1])

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Analyse."""
        spectrum = self.transform(waveform)
        n_bins = self.signal.n_bins
        seen = spectrum[:, :n_bins]
        energy = seen.real.square() + seen.imag.square()
        if energy.shape[1] < n_bins:
            energy = functional.pad(energy, (0, 0, 0, n_bins - energy.shape[1]))
        # The square root's slope is infinite at zero; 1e-12 is 120 dB below full scale.
        bands = torch.sqrt(torch.matmul(self.filters, energy) + 1e-12)
        return spectrum, bands

    def synthesise(self, spectrum: Tensor, band_mask: Tensor, n_samples: int) -> Tensor:
        """Apply a band mask ``[B, K, N]`` to a spectrum ``[B, F, N]`` and return the waveform ``[B, T]``."""
        mask = torch.matmul(self.filters.t(), band_mask)
        extra = spectrum.shape[1] - mask.shape[1]
        if extra > 0:
            top = mask[:, -41:].mean(dim=1, keepdim=True)
            mask = torch.cat([mask, top.expand(-1, extra, -1)], dim=1)
        masked = spectrum * mask[:, : spectrum.shape[1]] * (self.window.sum() / 2.0)
        return torch.istft(masked, self.n_fft, self.hop, window=self.window, center=True, length=n_samples)


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution with 'same' padding, no bias, and batch normalisation (which serving folds into it)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity; a FiLM of the prompt may act on the first one's output.

    Shape:
        ``[B, C, H, W]`` (and scale, shift ``[B, C]``) -> ``[B, C, H, W]``
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = convolution(channels, channels)
        last = self.second[1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.zeros_(last.weight)  # a block begins as the identity

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Refine ``x``."""
        hidden = self.first(x)
        if film is not None:
            scale, shift = film
            hidden = torch.addcmul(shift[:, :, None, None], hidden, 1.0 + scale[:, :, None, None])
        return functional.relu_(x + self.second(functional.relu_(hidden)))


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention over all positions of a feature map, with a residual.

    Shape:
        ``[B, C, H, W]`` -> the same
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.heads = heads
        self.project = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Let every position see every other."""
        sequence = self.norm(x.flatten(2).transpose(1, 2))
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.project(sequence).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return x + self.out(attended).transpose(1, 2).unflatten(2, (x.shape[2], x.shape[3]))


class CrossAttention(nn.Module):
    """Pre-norm multi-head attention of a feature map to the prompt's tokens, padding masked, with a residual.

    Shape:
        ``[B, C, H, W]``, tokens ``[B, L, D]``, padding ``[B, L]`` (True where padded) -> ``[B, C, H, W]``
    """

    def __init__(self, channels: int, token_features: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(token_features, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """Let every position see the prompt's words."""
        sequence = self.norm(x.flatten(2).transpose(1, 2))
        query = self.query(sequence).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.key_value(tokens).chunk(2, dim=-1)
        )
        visible = ~padding[:, None, None, :]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        attended = attended.transpose(1, 2).flatten(2)
        return x + self.out(attended).transpose(1, 2).unflatten(2, (x.shape[2], x.shape[3]))
