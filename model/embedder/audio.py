"""The audio tower: a small strided convolutional network over band amplitudes, pooled over time to a unit vector.

Plain 3x3 convolutions in the manner of PANNs' CNN6 (arXiv 1912.10211) with every layer strided, and its sum of two
poolings over time: a softmax-weighted one, which finds the moment, beside the mean, which knows the texture. Depthwise
convolutions would need fewer operations and more time on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_FRAMES = 16


@dataclass(frozen=True)
class AudioConfig:
    """Sizes: channels of the five strided levels, extra convolutions at the third, hidden features before pooling."""

    n_bands: int = 128
    channels: tuple[int, ...] = (24, 48, 96, 160, 192)
    hidden: int = 256
    pooling_heads: int = 8
    dropout: float = 0.2
    embedding_features: int = 384


class AudioTower(nn.Module):
    """Bands to a unit vector, whatever their level: they are divided by their RMS over the window first.

    Shape:
        bands ``[B, K, N]`` amplitudes, N at least 16 -> ``[B, E]``
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        c0, c1, c2, c3, c4 = config.channels
        self.levels = nn.Sequential(
            *_level(1, c0, kernel=5, stride=(2, 2)),
            *_level(c0, c1, stride=(2, 2)),
            *_level(c1, c2, stride=(2, 2)),
            *_level(c2, c2, stride=(1, 1)),
            *_level(c2, c3, stride=(2, 2)),
            *_level(c3, c4, stride=(2, 1)),
        )
        rows = -(-config.n_bands // 32)
        self.mix = nn.Linear(c4 * rows, config.hidden)
        self.attend = nn.Linear(config.hidden, config.pooling_heads)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(2 * config.hidden, config.embedding_features)

    def forward(self, bands: Tensor) -> Tensor:
        """Embed; the gradient reaches the bands."""
        # The floor is 100 dB below full scale: silence stays silence and is not blown up.
        rms = bands.square().mean(dim=(1, 2), keepdim=True).clamp_min(1e-10).sqrt()
        x = torch.log1p(100.0 * bands / rms)[:, None]
        x = self.levels(x.contiguous(memory_format=torch.channels_last) if not torch.compiler.is_exporting() else x)
        x = self.dropout(functional.relu(self.mix(x.flatten(1, 2).transpose(1, 2))))
        # Each head weighs the moments for its own share of the features.
        weights = torch.softmax(self.attend(x).float(), dim=1)[..., None]
        shares = x.unflatten(2, (self.config.pooling_heads, -1))
        pooled = torch.cat([(weights * shares).sum(dim=1).flatten(1), x.mean(dim=1)], dim=1)
        return functional.normalize(self.out(pooled).float(), dim=-1)


def _level(inputs: int, outputs: int, *, stride: tuple[int, int], kernel: int = 3) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def operations(config: AudioConfig, seconds: float, *, frames_per_s: float = 100.0) -> float:
    """Floating-point operations (two a multiplication) of one forward pass over ``seconds`` of audio."""
    total = 0.0
    tower = AudioTower(config).eval()

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += 2.0 * output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += 2.0 * output.numel() * module.in_features

    for module in tower.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        tower(torch.rand(1, config.n_bands, round(seconds * frames_per_s)))
    return total
