"""Validation during training, by the averaged weights: what separation has come to, and what is going wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import fast_bss_eval
import numpy as np
import torch

from training.dataset import Pack
from training.manifest import Mixture, read_mixtures
from training.metrics import sdr
from training.mixing import render
from training.parts import Parts
from training.weak import Weak, WeakConfig
from training.weak_mixing import WeakSampler

_APART = 1 << 30  # steps that no run reaches


class Validation(Protocol):
    """Scores parts whose separator is in evaluation mode."""

    def score(self, parts: Parts) -> dict[str, float]:
        """Figures by name."""
        ...


class ListValidation:
    """The first ``limit`` mixtures of a list, rendered once and kept.

    ``sdri`` and one for each of the pack's sources; ``sir`` and ``sar`` (scale-invariant) say what a low figure is made
    of: a high SIR with a low SAR is a mask that removes too much, the contrastive loss's way of pleasing its embedder.
    """

    def __init__(self, pack: Pack, path: Path, limit: int) -> None:
        self.lines: list[Mixture] = read_mixtures(path)[:limit]
        self.rendered = [render(line, pack, pack.sample_rate) for line in self.lines]
        self.source_of = {clip.path: clip.source for clip in pack.clips}

    @torch.no_grad()
    def score(self, parts: Parts) -> dict[str, float]:
        """Means in dB over all sources."""
        values: dict[str, list[float]] = {}
        for line, (mixture, sources) in zip(self.lines, self.rendered, strict=True):
            heard, truth = torch.from_numpy(mixture), torch.from_numpy(sources)
            prompts = [[source.prompt for source in line.sources]]
            estimate = parts.separate(heard[None].to(parts.device), prompts)[0].cpu()
            gain = sdr(target=truth, estimate=estimate) - sdr(target=truth, estimate=heard.expand_as(truth))
            for source, value in zip(line.sources, gain.tolist(), strict=True):
                values.setdefault("sdri", []).append(value)
                values.setdefault(f"sdri_{self.source_of[source.path]}", []).append(value)
            _, sir, sar = fast_bss_eval.si_bss_eval_sources(
                truth.double(), estimate.double(), compute_permutation=False, clamp_db=60.0
            )
            values.setdefault("sir", []).extend(sir.tolist())
            values.setdefault("sar", []).extend(sar.tolist())
        return {name: float(np.mean(column)) for name, column in sorted(values.items())}


class CombinationsValidation:
    """URL on recordings that training knows and on recordings kept from it, in dB, lower is better.

    When ``url_known`` goes on falling and ``url_held`` does not, the network learns by heart what shares a recording.
    """

    def __init__(self, known: WeakSampler, held: WeakSampler, *, batches: int) -> None:
        self.batches = {
            name: [sampler.sample(_APART + number) for number in range(batches)]
            for name, sampler in (("url_known", known), ("url_held", held))
        }
        self.mode = Weak(WeakConfig(), {"url": 1.0})

    @torch.no_grad()
    def score(self, parts: Parts) -> dict[str, float]:
        """Mean loss of each kind."""
        return {
            name: float(np.mean([float(self.mode(parts, batch, 1.0).loss) for batch in batches]))
            for name, batches in self.batches.items()
        }
