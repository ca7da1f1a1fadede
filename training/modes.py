"""Modes of training: from a batch to a loss. A mode sees the batch and the parts, and nothing of the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from training.energies import MaskEnergies
from training.losses import negative_sdr, silence
from training.mixing import Batch, Sampler
from training.outcome import Outcome
from training.parts import Parts
from training.weak import Weak
from training.weak_mixing import WeakBatch

MODES = ("supervised", "unsupervised", "weak", "semi")


class Mode(Protocol):
    """Turns a batch into a scalar to minimise and figures for the log."""

    def __call__(self, parts: Parts, batch: Any, progress: float) -> Outcome:
        """Learn from one batch, ``progress`` of the run done (0 to 1)."""
        ...


class Supervised:
    """Single sources are known: each estimate is compared with its source."""

    LOSSES = ("negative_sdr", "silence")

    def __init__(self, weights: dict[str, float]) -> None:
        unknown = sorted(set(weights) - set(self.LOSSES))
        if unknown:
            raise ValueError(f"losses of the supervised mode must be among {self.LOSSES}, got {unknown}")
        self.weights = weights

    def __call__(self, parts: Parts, batch: Batch, progress: float) -> Outcome:
        """Learn from single sources."""
        mixture = torch.from_numpy(batch.mixture).to(parts.device)
        targets = torch.from_numpy(batch.targets).to(parts.device)
        with torch.no_grad():
            spectrum, bands = parts.analysis(mixture)
            energies = MaskEnergies(parts.analysis, spectrum, parts.analysis.transform(targets), parts.ranks)
        mask = parts.mask(bands, batch.prompts)
        terms = {
            "negative_sdr": negative_sdr(error=energies.error(mask), target=energies.target, mixture=energies.mixture),
            "silence": silence(estimate=energies.estimate(mask), absent=energies.target == 0, mixture=energies.mixture),
        }
        return Outcome.of({name: terms[name] for name in self.weights}, self.weights, mask)


@dataclass(frozen=True)
class SemiBatch:
    """A step's single sources and its mixtures of mixtures."""

    singles: Batch
    mixtures: WeakBatch


class SemiSampler:
    """Batches of both kinds, each from its own sampler."""

    def __init__(self, singles: Sampler[Batch], mixtures: Sampler[WeakBatch]) -> None:
        self.singles, self.mixtures = singles, mixtures

    def sample(self, step: int) -> SemiBatch:
        """Make the batch of a step."""
        return SemiBatch(self.singles.sample(step), self.mixtures.sample(step))


class Semi:
    """Semi-supervision: the supervised loss of what single sources there are beside the weak loss of the mixtures."""

    def __init__(self, supervised: Supervised, weak: Weak) -> None:
        self.supervised, self.weak = supervised, weak

    def __call__(self, parts: Parts, batch: SemiBatch, progress: float) -> Outcome:
        """Learn from both; figures that both have are told apart by ``weak_``."""
        known = self.supervised(parts, batch.singles, progress)
        return known.beside(self.weak(parts, batch.mixtures, progress), prefix="weak_")
