"""A frozen embedder that listens to predictions; the gradient passes through it and stops at no weight of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.embedder import Embedder
from model.embedder.compact import CompactEmbedder
from model.layers import BandAnalysis
from training.parallel import ALONE, Ranks


@dataclass(frozen=True)
class Heard:
    """A batch of mixtures as an ear meets them: spectrum ``[B, F, N]`` and amplitudes ``[B, K, N]`` of its bands."""

    spectrum: Tensor
    bands: Tensor
    n_samples: int


class Ear:
    """Embeds masked mixtures.

    The compact embedder reads bands, so it is given the masked amplitudes themselves: ``m a`` instead of the analysis
    of the synthesised waveform, which differs where a mask changes within a frame's reach and costs two transforms.
    Any other embedder is given the waveform.

    ``colour_db`` is the augmentation in front of it: a random smooth gain over the bands of each prediction, so that a
    mask that pleases the embedder by one peculiar colour does not please it twice.
    """

    def __init__(
        self,
        embedder: Embedder,
        analysis: BandAnalysis,
        *,
        bf16: bool,
        colour_db: float = 0.0,
        ranks: Ranks = ALONE,
    ) -> None:
        self.embedder, self.analysis, self.bf16, self.colour_db = embedder, analysis, bf16, colour_db
        self.ranks = ranks
        if isinstance(embedder, CompactEmbedder) and embedder.signal.n_bands != analysis.signal.n_bands:
            raise ValueError(
                f"the ear must read the signal's {analysis.signal.n_bands} bands, got {embedder.signal.n_bands}"
            )
        if isinstance(embedder, nn.Module):
            embedder.eval().requires_grad_(False)

    @property
    def logit_scale(self) -> Tensor:
        """The embedder's own scale of cosines."""
        return self.embedder.logit_scale.detach()

    def listen(self, heard: Heard, mask: Tensor) -> Tensor:
        """Embed each masked mixture; ``[B, P, K, N] -> [B, P, E]`` of unit norm."""
        shape = mask.shape[:2]
        if isinstance(self.embedder, CompactEmbedder):
            masked = (mask * heard.bands[:, None]).flatten(0, 1)
            if self.colour_db:
                masked = masked * self._colour(masked)
            with torch.autocast(masked.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                vectors = self.embedder.audio_tower(masked)
        else:
            spectra = heard.spectrum.repeat_interleave(shape[1], dim=0)
            waveforms = self.analysis.synthesise(spectra, mask.flatten(0, 1), heard.n_samples)
            rate = round(self.analysis.hop / self.analysis.signal.hop_s)
            vectors = self.embedder.audio(waveforms, rate)
        return vectors.float().unflatten(0, shape)

    def _colour(self, bands: Tensor) -> Tensor:
        points = (2.0 * self.ranks.draw(torch.rand, bands.shape[0], 1, 6, device=bands.device) - 1.0) * self.colour_db
        curve = nn.functional.interpolate(points, size=bands.shape[1], mode="linear", align_corners=True)
        return torch.pow(10.0, curve / 20.0).transpose(1, 2)
