"""The separator: a conditional U-Net on band amplitudes, with Head and Modulator as in arXiv 2404.01740, section 3.

What differs from the paper in the ``base`` network: 128 bands instead of 256 linear bins; the decoder reduces channels
before it convolves; batch normalisation that serving folds away; the Head runs once a window however many prompts are
asked; a key-padding mask; FiLM (1709.07871) of the pooled prompt as an alternative to attention over its tokens.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.layers import CrossAttention, ResidualBlock, SelfAttention, convolution
from model.spec import NetworkSpec, SignalSpec

_GAIN = 3.0  # log1p(gain * a / rms): bends near the window's level; 3 keeps 20 dB below it visible


def build(network: NetworkSpec, signal: SignalSpec) -> nn.Module:
    """Build the network of a spec, randomly initialised."""
    if network.kind == "paper":
        from model.paper import PaperUNet

        return PaperUNet(network, signal)
    return ConditionalUNet(network, signal)


def compress(bands: Tensor) -> Tensor:
    """Divide ``bands [B, K, N]`` by their RMS over the window and compress: scale in is scale out.

    Shape:
        ``[B, K, N]`` -> ``[B, 1, K, N]``
    """
    level = bands.square().mean(dim=(1, 2), keepdim=True).clamp_min(1e-12).sqrt()
    return torch.log1p(_GAIN * bands / level).unsqueeze(1)


class Conditioner(nn.Module):
    """How a prompt enters one level: FiLM parameters, attention to tokens, concatenation, or nothing.

    Shape:
        features ``[B, C, H, W]``, prompt ``[B, H']``, tokens ``[B, L, D]``, padding ``[B, L]`` -> features, film
    """

    def __init__(self, spec: NetworkSpec, channels: int, hidden: int, *, deep: bool) -> None:
        super().__init__()
        self.how = spec.conditioning
        if self.how in ("film", "attention"):
            self.film = nn.Linear(hidden, 2 * channels)
            nn.init.normal_(self.film.weight, std=0.02)
            nn.init.zeros_(self.film.bias)
        self.attend = self.how == "attention" and deep
        if self.attend:
            self.cross = CrossAttention(channels, spec.token_features, spec.attention_heads)
        if self.how == "concatenation" and deep:
            self.merge = nn.Conv2d(channels + hidden, channels, 1)

    def forward(
        self, x: Tensor, prompt: Tensor, tokens: Tensor | None, padding: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Let the prompt in; returns the features and, where FiLM is used, its scale and shift ``[B, C]``."""
        if self.attend:
            assert tokens is not None and padding is not None
            x = self.cross(x, tokens, padding)
        if self.how == "concatenation" and hasattr(self, "merge"):
            spread = prompt[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3])
            x = self.merge(torch.cat([x, spread], dim=1))
        if self.how in ("film", "attention"):
            scale, shift = self.film(prompt).chunk(2, dim=1)
            return x, (scale, shift)
        return x, None


class EncoderLevel(nn.Module):
    """Halve both axes, then a residual block; ``[B, C, H, W] -> [B, C', H / 2, W / 2]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = convolution(inputs, outputs, stride=2)
        self.block = ResidualBlock(outputs)

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Encode one level."""
        return self.block(functional.relu_(self.down(x)), film)


class ModulatorLevel(nn.Module):
    """A deep encoder level with self-attention and the prompt."""

    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.down = convolution(inputs, outputs, stride=2)
        self.condition = Conditioner(spec, outputs, hidden, deep=True)
        self.block = ResidualBlock(outputs)
        self.attention = SelfAttention(outputs, spec.attention_heads)

    def forward(self, x: Tensor, prompt: Tensor, tokens: Tensor | None, padding: Tensor | None) -> Tensor:
        """Encode one level under the prompt."""
        x = functional.relu_(self.down(x))
        x, film = self.condition(x, prompt, tokens, padding)
        return self.attention(self.block(x, film))


class DecoderLevel(nn.Module):
    """Double both axes after reducing the channels, add the skip, then a residual block with the prompt."""

    def __init__(self, spec: NetworkSpec, inputs: int, skip: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.skip = convolution(skip, outputs, kernel=1)
        self.condition = Conditioner(spec, outputs, hidden, deep=False)
        self.block = ResidualBlock(outputs)

    def forward(self, x: Tensor, skip: Tensor, prompt: Tensor) -> Tensor:
        """Decode one level; ``skip`` has been through ``self.skip``."""
        x = functional.interpolate(self.reduce(x), scale_factor=2.0, mode="nearest")
        x, film = self.condition(functional.relu_(x + skip), prompt, None, None)
        return self.block(x, film)


class Head(nn.Module):
    """The text-free upper encoder; ``[B, K, N] ->`` skips from fine to coarse."""

    def __init__(self, spec: NetworkSpec, signal: SignalSpec) -> None:
        super().__init__()
        first = spec.channels[0]
        self.stem = convolution(1, first, kernel=5, stride=2)
        self.place = nn.Parameter(torch.zeros(1, first, signal.n_bands // 2, 1))  # what is low and what is high
        levels = pairwise(spec.channels[: spec.head_levels])
        self.levels = nn.ModuleList(EncoderLevel(inputs, outputs) for inputs, outputs in levels)

    def forward(self, bands: Tensor) -> list[Tensor]:
        """Encode what no prompt changes."""
        x = functional.relu_(self.stem(compress(bands)) + self.place)
        skips = [x]
        for level in self.levels:
            x = level(x)
            skips.append(x)
        return skips


class ConditionalUNet(nn.Module):
    """Head, Modulator, decoder and the gated output of the ``base`` network.

    Shape:
        bands ``[B, K, N]`` (``N`` a multiple of ``signal.frame_multiple``), pooled ``[B, P, E]``; with attention
        conditioning also tokens ``[B, P, L, D]`` and padding ``[B, P, L]`` -> mask ``[B, P, K, N]`` in 0..1
    """

    def __init__(self, spec: NetworkSpec, signal: SignalSpec) -> None:
        super().__init__()
        self.spec = spec
        hidden = 2 * spec.channels[-1]
        self.head = Head(spec, signal)
        self.prompt = nn.Sequential(
            nn.Linear(spec.embedding_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        deep = spec.channels[spec.head_levels - 1 :]
        self.modulator = nn.ModuleList(
            ModulatorLevel(spec, inputs, outputs, hidden) for inputs, outputs in pairwise(deep)
        )
        widths = [*spec.decoder_channels, spec.channels[-1]]
        self.decoder = nn.ModuleList(
            DecoderLevel(spec, widths[level + 1], spec.channels[level], widths[level], hidden)
            for level in reversed(range(len(spec.decoder_channels)))
        )
        # Four sub-pixels a map: the last doubling is a rearrangement, and the gate acts before it.
        self.maps = nn.Conv2d(spec.decoder_channels[0], 4 * spec.mask_maps, 1)
        self.gate = nn.Linear(hidden, spec.mask_maps)

    def forward(
        self, bands: Tensor, pooled: Tensor, tokens: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Estimate the mask of each prompt."""
        n_batch, n_prompts = pooled.shape[0], pooled.shape[1]
        prompt = self.prompt(functional.normalize(pooled, dim=-1).flatten(0, 1) * pooled.shape[-1] ** 0.5)
        if tokens is not None and padding is not None:
            tokens, padding = tokens.flatten(0, 1), padding.flatten(0, 1)

        skips = self.head(bands)
        x = _repeat(skips[-1], n_prompts)
        deep_skips: list[Tensor] = []
        for level in self.modulator:
            x = level(x, prompt, tokens, padding)
            deep_skips.append(x)
        sources = [*skips, *deep_skips[:-1]]
        for decoder, source in zip(self.decoder, reversed(sources), strict=True):
            assert isinstance(decoder, DecoderLevel)
            skip = decoder.skip(source)  # once a window, not once a prompt, for the Head's levels
            if skip.shape[0] != x.shape[0]:
                skip = _repeat(skip, n_prompts)
            x = decoder(x, skip, prompt)

        logits = self._gated_maps(x, self.gate(prompt) / self.spec.mask_maps**0.5)
        mask = torch.sigmoid(functional.pixel_shuffle(logits, 2).squeeze(1))
        return mask.unflatten(0, (n_batch, n_prompts))

    def _gated_maps(self, x: Tensor, gate: Tensor) -> Tensor:
        """Sum of the maps weighed by ``gate [B, M]``: ``[B, C, H, W] -> [B, 4, H, W]``.

        The gate is applied to the maps' weights, not to the maps: the same sums, a sixteenth of the memory traffic
        (the maps themselves took a third of a training step).
        """
        weights = gate @ self.maps.weight.flatten(1).unflatten(0, (self.spec.mask_maps, -1)).flatten(1)
        assert self.maps.bias is not None
        bias = gate @ self.maps.bias.unflatten(0, (self.spec.mask_maps, -1))
        summed = torch.matmul(weights.unflatten(1, (4, -1)), x.flatten(2)) + bias.unsqueeze(-1)
        return summed.unflatten(2, (x.shape[2], x.shape[3]))


def _repeat(x: Tensor, n_prompts: int) -> Tensor:
    """``[B, C, H, W] -> [B * P, C, H, W]``, each window's features once a prompt."""
    if n_prompts == 1 and not torch.compiler.is_exporting():
        return x
    return x.unsqueeze(1).expand(-1, n_prompts, -1, -1, -1).flatten(0, 1)
