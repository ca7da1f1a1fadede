"""Modes of training: from a batch to a loss. A mode sees the batch and the network, and nothing of the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from model.layers import BandAnalysis
from model.spec import NetworkSpec
from training.losses import LOSSES
from training.mixing import Batch
from training.prompts import PromptTable


@dataclass
class Parts:
    """What a mode works with: the network under training, the signal front end and the prompts' vectors."""

    separator: nn.Module
    analysis: BandAnalysis
    prompts: PromptTable
    device: torch.device
    bf16: bool
    prompt_noise: float = 0.0

    def separate(self, mixture: Tensor, prompts: list[list[str]]) -> Tensor:
        """Estimate the sounds of ``prompts [B][P]`` in ``mixture [B, T]``: ``[B, P, T]``."""
        pooled, tokens, padding = (
            None if value is None else value.to(self.device) for value in self.prompts.lookup(prompts)
        )
        assert pooled is not None
        if self.prompt_noise and self.separator.training:
            noise = torch.nn.functional.normalize(torch.randn_like(pooled), dim=-1)
            pooled = pooled + self.prompt_noise * noise * torch.rand_like(pooled[..., :1])
        with torch.no_grad():
            spectrum, bands = self.analysis(mixture)
        n_frames = bands.shape[-1]
        multiple = self.analysis.signal.frame_multiple
        bands = torch.nn.functional.pad(bands, (0, -n_frames % multiple))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            spec = self.separator.spec
            assert isinstance(spec, NetworkSpec)
            attends = spec.conditioning == "attention"
            mask = self.separator(bands, pooled, *((tokens, padding) if attends else ()))
        mask = mask.float()[..., :n_frames]
        n_prompts = mask.shape[1]
        spectra = spectrum.repeat_interleave(n_prompts, dim=0)
        estimate = self.analysis.synthesise(spectra, mask.flatten(0, 1), mixture.shape[-1])
        return estimate.unflatten(0, (-1, n_prompts))


class Mode(Protocol):
    """Turns a batch into a scalar to minimise and figures for the log."""

    def __call__(self, parts: Parts, batch: Batch, weights: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
        """Learn from one batch; ``weights`` names the losses."""
        ...


def supervised(parts: Parts, batch: Batch, weights: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
    """Single sources are known: each estimate is compared with its source in the waveform domain."""
    mixture = torch.from_numpy(batch.mixture).to(parts.device)
    target = torch.from_numpy(batch.targets).to(parts.device)
    estimate = parts.separate(mixture, batch.prompts)
    total = torch.zeros((), device=parts.device)
    figures: dict[str, float] = {}
    for name, weight in weights.items():
        value = LOSSES[name](estimate=estimate, target=target, mixture=mixture)
        figures[name] = float(value.detach())
        total = total + weight * value
    return total, figures


MODES: dict[str, Mode] = {"supervised": supervised}
