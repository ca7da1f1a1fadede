"""Levels of the paper's conditional U-Net: encoder, encoder with self- and cross-attention, decoder.

Source: the public release of arXiv 2404.01740, re-written from its description; see :mod:`model.paper`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from model.layers import CrossAttention, SelfAttention, convolution

_SLOPE = 0.2  # of the leaky rectifiers


class PaperResidualBlock(nn.Module):
    """One 3x3 convolution with batch normalisation around an identity; ``[B, C, H, W]`` -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Add the convolved map and rectify."""
        return functional.leaky_relu(x + self.inner(x), _SLOPE)


class PaperEncoderLevel(nn.Module):
    """A 4x4 convolution that halves both axes, then a residual block; ``[B, C, H, W] -> [B, C', H / 2, W / 2]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Paired so that serving can fold the normalisation in; padding 1 with kernel 4 gives exactly half.
        self.down = nn.Sequential(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.block = PaperResidualBlock(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Halve, then refine."""
        return self.block(functional.leaky_relu(self.down(x), _SLOPE))


class PaperModulatorLevel(nn.Module):
    """An encoder level, self-attention over its positions, cross-attention to the prompt, each with a feed-forward.

    Shape:
        ``[B, C, H, W]``, tokens ``[B, L, D]``, padding ``[B, L]`` (True where padded) -> ``[B, C', H / 2, W / 2]``
    """

    def __init__(self, inputs: int, outputs: int, token_features: int, heads: int) -> None:
        super().__init__()
        self.level = PaperEncoderLevel(inputs, outputs)
        self.attention = SelfAttention(outputs, heads)
        self.attention.out.reset_parameters()  # starts at zero in our own networks, as any linear layer in the paper's
        self.first = FeedForward(outputs)
        self.cross = CrossAttention(outputs, token_features, heads)
        self.second = FeedForward(outputs)

    def forward(self, x: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """Halve, attend to itself, attend to the prompt."""
        x = self.first(self.attention(self.level(x)))
        return self.second(self.cross(x, tokens, padding))


class FeedForward(nn.Module):
    """Pre-norm feed-forward of twice the width at every position, with a residual; ``[B, C, H, W]`` -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.layers = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Add the feed-forward's output."""
        return x + self.layers(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class PaperDecoderLevel(nn.Module):
    """Double both axes, a residual block on all the maps, then a 3x3 convolution that reduces them.

    The residual block works at full width and full resolution: nine tenths of the network's arithmetic is here.

    Shape:
        ``[B, C, H, W] -> [B, C', 2 * H, 2 * W]``; the last level's convolution is plain, with a bias
    """

    def __init__(self, inputs: int, outputs: int, *, last: bool) -> None:
        super().__init__()
        self.block = PaperResidualBlock(inputs)
        self.reduce = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=last))
        if not last:
            self.reduce.extend([nn.BatchNorm2d(outputs), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        """Double, refine, reduce."""
        # A size, not a factor: whole numbers stay whole when the exporter follows a symbolic length.
        size = (2 * x.shape[2], 2 * x.shape[3])
        x = functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
        return self.reduce(self.block(x))
