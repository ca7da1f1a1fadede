"""Change of sample rate in torch, differentiable: what soxr does elsewhere, for where a gradient must pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_ZERO_CROSSINGS = 32  # of the sinc on each side
_ROLLOFF = 0.95  # cutoff as a share of the lower rate's Nyquist frequency


class Resampler(nn.Module):
    """Windowed-sinc interpolation, one short filter for each phase of the output.

    With the rates divided by their greatest common divisor, output sample ``k * new + p`` lies at input sample
    ``k * old + p * old / new``: a convolution of stride ``old`` with ``new`` filters gives all of them.

    Shape:
        ``[B, T]`` -> ``[B, ceil(T * new / old)]``; samples outside the signal count as silence
    """

    filters: Tensor

    def __init__(self, old_rate: int, new_rate: int) -> None:
        """Design the filters.

        Raises:
            ValueError: a rate is below 1.
        """
        super().__init__()
        if old_rate < 1 or new_rate < 1:
            raise ValueError(f"sample rates must be at least 1, got {old_rate} and {new_rate}")
        divisor = math.gcd(old_rate, new_rate)
        self.old, self.new = old_rate // divisor, new_rate // divisor
        cutoff = _ROLLOFF * min(1.0, self.new / self.old)  # 1 is the input's Nyquist frequency
        self.reach = math.ceil(_ZERO_CROSSINGS / cutoff)
        phases = torch.arange(self.new, dtype=torch.float64)[:, None] * self.old / self.new
        time = (torch.arange(-self.reach, self.reach + self.old, dtype=torch.float64) - phases) * cutoff
        window = torch.cos(0.5 * math.pi * (time / _ZERO_CROSSINGS).clamp(-1.0, 1.0)).square()
        filters = torch.sinc(time) * window
        # Each phase passes a constant unchanged; else the phases' small differences would be heard as a tone.
        filters = filters / filters.sum(dim=1, keepdim=True)
        self.register_buffer("filters", filters[:, None].float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Resample; the same rate gives the input itself."""
        if self.old == self.new:
            return waveform
        n_samples = -(-waveform.shape[-1] * self.new // self.old)
        padded = functional.pad(waveform[:, None], (self.reach, self.reach + self.old))
        phases = functional.conv1d(padded, self.filters.to(waveform.dtype), stride=self.old)
        return phases.transpose(1, 2).flatten(1)[:, :n_samples]
