"""The conditional U-Net of arXiv 2404.01740 as its authors released it, for comparison: built and timed, not trained.

Source: ``cond_unet_attn.py`` of the release with its published settings, re-written from its description. Seven levels;
the upper four encoder levels are the Head, the lower three the Modulator; 87.7 M parameters and 230 G multiply-adds for
one prompt on 8.19 s, nine tenths of them in decoder blocks that convolve the concatenated maps before reducing them.

What differs: padded prompt tokens are hidden from the cross-attention (the release attends to them); the Head runs once
a window however many prompts are asked; a norm that the release defines and never uses is left out; any number of
frames that seven halvings divide is taken, where the release knows 512 alone.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from model.paper_layers import PaperDecoderLevel, PaperEncoderLevel, PaperModulatorLevel
from model.spec import NetworkSpec, SignalSpec

_SAMPLE_RATE = 16_000  # hertz
_WINDOW_LENGTH = 1022  # samples, so that there are exactly 512 bins
_HOP = 256  # samples


def paper_spec(width: int = 64) -> tuple[NetworkSpec, SignalSpec]:
    """Return the paper's network and the signal that is its own: 512 linear bins of 15.7 Hz, frames 16 ms apart.

    At 16 kHz that is a window of 1022 and a hop of 256 samples. There are as many bands as bins, and the knee lies at
    the top, so the filterbank is the identity. The overlap of windows is ours: the release joins 8.19 s cuts hard.

    Args:
        width: channels of the outermost level, 64 in the paper; a small one makes a network for tests.

    Raises:
        ValueError: ``width`` is below one.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    signal = SignalSpec(
        window_s=_WINDOW_LENGTH / _SAMPLE_RATE,
        hop_s=_HOP / _SAMPLE_RATE,
        n_bins=_WINDOW_LENGTH // 2 + 1,
        n_bands=_WINDOW_LENGTH // 2 + 1,
        linear_hz=_SAMPLE_RATE / 2,
        window_frames=512,
        overlap_frames=64,
        frame_multiple=128,
    )
    network = NetworkSpec(
        kind="paper",
        channels=(width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width, 8 * width),
        head_levels=4,
        decoder_channels=(),  # the decoder mirrors the encoder
        mask_maps=max(1, width // 2),
        attention_heads=8,
        conditioning="attention",
        token_features=768,
        embedding_features=512,
    )
    return network, signal


class PaperUNet(nn.Module):
    """Head, Modulator, decoder and the gated maps, with the paper's widths when built from :func:`paper_spec`.

    Unlike the ``base`` network it does not divide by the window's level: as released, it reads ``log1p`` of the STFT's
    magnitude, so a quieter recording gives another mask.

    Shape:
        bands ``[B, K, N]`` (``N`` a multiple of ``signal.frame_multiple``), pooled ``[B, P, E]``, tokens
        ``[B, P, L, D]``, padding ``[B, P, L]`` (True where padded) -> mask ``[B, P, K, N]`` in 0..1

    Raises:
        ValueError: the conditioning is not attention, a head does not divide its channels, or the levels do not halve
            the bands and ``frame_multiple`` into whole numbers.
    """

    def __init__(self, spec: NetworkSpec, signal: SignalSpec) -> None:
        super().__init__()
        _check(spec, signal)
        self.spec = spec
        self.gain = (signal.n_bins - 1) / 2.0  # bands are amplitudes; the paper's STFT is not scaled: sum(window) / 2
        self.norm = nn.BatchNorm2d(1)
        upper = [1, *spec.channels[: spec.head_levels]]
        deep = spec.channels[spec.head_levels - 1 :]
        self.head = nn.ModuleList(PaperEncoderLevel(inputs, outputs) for inputs, outputs in pairwise(upper))
        self.modulator = nn.ModuleList(
            PaperModulatorLevel(inputs, outputs, spec.token_features, spec.attention_heads)
            for inputs, outputs in pairwise(deep)
        )
        widths = [spec.mask_maps, *spec.channels]
        innermost = len(spec.channels) - 1
        self.decoder = nn.ModuleList(
            # All but the innermost level read the encoder's map beside what comes from below.
            PaperDecoderLevel(widths[level + 1] * (1 if level == innermost else 2), widths[level], last=level == 0)
            for level in reversed(range(len(spec.channels)))
        )
        self.gate = nn.Linear(spec.embedding_features, spec.mask_maps)
        self.map_weight = nn.Parameter(torch.ones(spec.mask_maps))
        self.map_bias = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.gate.weight, std=1e-4)
        nn.init.zeros_(self.gate.bias)

    def forward(
        self, bands: Tensor, pooled: Tensor, tokens: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Return the mask; raises ``ValueError`` without tokens and padding."""
        if tokens is None or padding is None:
            raise ValueError("tokens and padding must be given: the paper's network attends to the prompt's tokens")
        n_batch, n_prompts = pooled.shape[0], pooled.shape[1]
        prompt, tokens, padding = pooled.flatten(0, 1), tokens.flatten(0, 1), padding.flatten(0, 1)

        x = self.norm(torch.log1p(self.gain * bands).unsqueeze(1))
        skips: list[Tensor] = []
        for level in self.head:
            x = level(x)
            skips.append(x)
        # Every prompt has maps of its own from here on, and each decoder level reads the Head's beside them.
        skips = [_for_each_prompt(skip, n_prompts) for skip in skips]
        x = skips[-1]
        for level in self.modulator:
            x = level(x, tokens, padding)
            skips.append(x)

        x = self.decoder[0](skips.pop())
        for level in self.decoder[1:]:
            x = level(torch.cat([skips.pop(), x], dim=1))

        weight = self.map_weight * torch.sigmoid(self.gate(prompt))
        logits = torch.matmul(weight.unsqueeze(1), x.flatten(2)).squeeze(1) + self.map_bias
        mask = torch.sigmoid(logits.unflatten(1, (x.shape[2], x.shape[3])))
        return mask.unflatten(0, (n_batch, n_prompts))


def _check(spec: NetworkSpec, signal: SignalSpec) -> None:
    """Raise ``ValueError`` where a spec cannot be built."""
    if spec.conditioning != "attention":
        raise ValueError(f"conditioning must be 'attention' for kind 'paper', got {spec.conditioning!r}")
    uneven = [width for width in spec.channels[spec.head_levels :] if width % spec.attention_heads]
    if uneven:
        raise ValueError(f"attention_heads must divide the deep channels, got {spec.attention_heads} for {uneven}")
    halvings = 2 ** len(spec.channels)
    if signal.n_bands % halvings or signal.frame_multiple % halvings:
        raise ValueError(
            f"n_bands and frame_multiple must be multiples of {halvings} for {len(spec.channels)} levels, "
            f"got {signal.n_bands} and {signal.frame_multiple}"
        )


def _for_each_prompt(x: Tensor, n_prompts: int) -> Tensor:
    """``[B, C, H, W] -> [B * P, C, H, W]``, each window's features once a prompt."""
    return x.unsqueeze(1).expand(-1, n_prompts, -1, -1, -1).flatten(0, 1)
