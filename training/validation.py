"""Validation during training: SDR improvement on a fixed mixture list, by the averaged weights."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.dataset import Pack
from training.manifest import Mixture, read_mixtures
from training.metrics import sdr
from training.mixing import render
from training.modes import Parts


class Validation:
    """The first ``limit`` mixtures of a list, rendered once and kept."""

    def __init__(self, pack: Pack, path: Path, limit: int) -> None:
        self.lines: list[Mixture] = read_mixtures(path)[:limit]
        self.rendered = [render(line, pack, pack.sample_rate) for line in self.lines]
        self.source_of = {clip.path: clip.source for clip in pack.clips}

    @torch.no_grad()
    def score(self, parts: Parts, weights: dict[str, Tensor]) -> dict[str, float]:
        """Mean SDRi in dB over all sources (``sdri``) and over those of each of the pack's sources."""
        judged = copy.copy(parts)
        judged.separator = copy.deepcopy(parts.separator).eval()
        judged.separator.load_state_dict(weights)
        gains: dict[str, list[float]] = {}
        for line, (mixture, sources) in zip(self.lines, self.rendered, strict=True):
            heard, truth = torch.from_numpy(mixture), torch.from_numpy(sources)
            prompts = [[source.prompt for source in line.sources]]
            estimate = judged.separate(heard[None].to(parts.device), prompts)[0].cpu()
            gain = sdr(target=truth, estimate=estimate) - sdr(target=truth, estimate=heard.expand_as(truth))
            for source, value in zip(line.sources, gain.tolist(), strict=True):
                gains.setdefault("sdri", []).append(value)
                gains.setdefault(f"sdri_{self.source_of[source.path]}", []).append(value)
        return {name: float(np.mean(values)) for name, values in sorted(gains.items())}
