"""What a mode of training works with: the network, the front end, the prompts' vectors and a frozen ear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.layers import BandAnalysis
from model.spec import NetworkSpec
from training.ear import Ear
from training.parallel import ALONE, Ranks
from training.prompts import PromptTable


@dataclass
class Parts:
    """The network under training, the signal front end, the prompts' vectors and, where a loss listens, an embedder.

    ``prompt_noise`` is the length of a random vector added to each prompt's in training; ``ranks`` are the processes
    that share a batch.
    """

    separator: nn.Module
    analysis: BandAnalysis
    prompts: PromptTable
    device: torch.device
    bf16: bool
    prompt_noise: float = 0.0
    ear: Ear | None = None
    ranks: Ranks = ALONE

    def mask(self, bands: Tensor, prompts: list[list[str]]) -> Tensor:
        """Masks ``[B, P, K, N]`` of ``prompts [B][P]`` for ``bands [B, K, N]`` of any number of frames."""
        pooled, tokens, padding = (
            None if value is None else value.to(self.device) for value in self.prompts.lookup(prompts)
        )
        assert pooled is not None
        if self.prompt_noise and self.separator.training:
            noise = self.ranks.draw(torch.randn, *pooled.shape, device=self.device)
            length = self.ranks.draw(torch.rand, *pooled.shape[:2], 1, device=self.device)
            pooled = pooled + self.prompt_noise * length * torch.nn.functional.normalize(noise, dim=-1)
        n_frames = bands.shape[-1]
        bands = torch.nn.functional.pad(bands, (0, -n_frames % self.analysis.signal.frame_multiple))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            spec = self.separator.spec
            assert isinstance(spec, NetworkSpec)
            attends = spec.conditioning == "attention"
            mask = self.separator(bands, pooled, *((tokens, padding) if attends else ()))
        return mask.float()[..., :n_frames]

    def separate(self, mixture: Tensor, prompts: list[list[str]]) -> Tensor:
        """Estimate the sounds of ``prompts [B][P]`` in ``mixture [B, T]``: ``[B, P, T]``."""
        with torch.no_grad():
            spectrum, bands = self.analysis(mixture)
        mask = self.mask(bands, prompts)
        n_prompts = mask.shape[1]
        spectra = spectrum.repeat_interleave(n_prompts, dim=0)
        estimate = self.analysis.synthesise(spectra, mask.flatten(0, 1), mixture.shape[-1])
        return estimate.unflatten(0, (-1, n_prompts))
