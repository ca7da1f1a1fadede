"""The audio tower's training: symmetric multi-positive InfoNCE against the frozen text tower.

CLAP's loss (arXiv 2206.04769) with SupCon's many positives (arXiv 2004.11362, its outer sum). One thing differs: the
text tower is frozen and cheap, so the texts are one random phrase of every label and not of the batch's labels alone;
with 175 labels and a batch of 48 that is four times as many negatives for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model.embedder.compact import CompactEmbedder
from training import checkpoint
from training.corpus import split_phrases
from training.crops import BandPack, CropConfig, CropSampler
from training.distill import one_cycle
from training.loop import Average
from training.naming import centroids, retrieval, zero_shot


@dataclass(frozen=True)
class ContrastConfig:
    """How long and how fast. Validation embeds ``crops`` crops of ``seconds`` a clip and adds them up."""

    steps: int = 2400
    learning_rate: float = 2e-3
    weight_decay: float = 0.03
    clip_norm: float = 2.0
    ema: float = 0.996
    checkpoint_every: int = 100
    validate_every: int = 400
    crops: int = 3
    seconds: float = 5.0


def multi_positive_infonce(audio: Tensor, text: Tensor, positive: Tensor, scale: Tensor | float) -> Tensor:
    """Mean of both directions' cross-entropy, spread evenly over the positives.

    Rows and columns without a positive are left out of their own direction's mean, and stay negatives in the other's.

    Shape:
        audio ``[B, E]``, text ``[M, E]``, unit norm; positive ``[B, M]`` bool -> scalar
    """
    logits = scale * audio @ text.t()
    return 0.5 * (_direction(logits, positive) + _direction(logits.t(), positive.t()))


def _direction(logits: Tensor, positive: Tensor) -> Tensor:
    weights = positive.float()
    count = weights.sum(dim=1)
    log_odds = functional.log_softmax(logits.float(), dim=1)
    losses = -(weights * log_odds).sum(dim=1) / count.clamp(min=1.0)
    return losses.sum() / (count > 0).sum().clamp(min=1)


class AudioTraining:
    """Trains ``embedder``'s audio tower; goes on from ``out/audio-checkpoint.pt`` where it is there.

    A step's batch, phrases and dropout depend on the step alone, so that a resumed run is the run that was not killed.
    """

    def __init__(
        self,
        config: ContrastConfig,
        crops: CropConfig,
        embedder: CompactEmbedder,
        bands: BandPack,
        phrases: Mapping[str, Sequence[str]],
        out: Path,
        *,
        seed: int,
        bf16: bool,
        device: torch.device,
    ) -> None:
        self.config, self.embedder, self.bands, self.out = config, embedder, bands, out
        self.seed, self.bf16, self.device = seed, bf16, device
        self.kept, self.held = split_phrases(phrases)
        self.labels = list(self.kept)
        self.sampler = CropSampler(bands, crops, self.labels, seed=seed)
        self.vectors = self._embed_phrases()
        self.tower = embedder.audio_tower.to(device)
        self.log_scale = embedder.log_scale
        weights = [p for p in self.tower.parameters() if p.ndim >= 2]
        others = [*(p for p in self.tower.parameters() if p.ndim < 2), self.log_scale]
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.average = Average(self.tower, config.ema)
        self.step = 0
        self.curve: list[float] = []
        self._resume()

    def run(self) -> dict[str, float]:
        """Train to ``config.steps``, leave the averaged weights in the embedder and return their figures."""
        config = self.config
        with (
            ThreadPoolExecutor(1) as mixer,
            tqdm(total=config.steps, initial=self.step, desc="audio tower", unit="step", mininterval=5) as bar,
        ):
            pending = mixer.submit(self.sampler.sample, self.step)
            while self.step < config.steps:
                batch = pending.result()
                pending = mixer.submit(self.sampler.sample, self.step + 1)
                self.curve.append(self._step(*batch))
                self.step += 1
                bar.update()
                if self.step % 20 == 0:
                    bar.set_postfix(loss=f"{np.mean(self.curve[-20:]):.3f}", scale=f"{float(self.log_scale.exp()):.1f}")
                if self.step % config.checkpoint_every == 0 or self.step == config.steps:
                    self._save()
                if self.step % config.validate_every == 0 and self.step < config.steps:
                    tqdm.write(f"step {self.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in self.validate().items()))
        self.tower.load_state_dict(self.average.state)
        self.embedder.cpu().eval()
        return self.validate()

    def _embed_phrases(self) -> dict[str, Tensor]:
        texts = sorted({p for group in (*self.kept.values(), *self.held.values()) for p in group} | set(self.labels))
        with torch.no_grad():
            return dict(zip(texts, self.embedder.cpu().eval().text(texts)[2], strict=True))

    def _step(self, bands: Tensor, labels: Tensor) -> float:
        rng = np.random.default_rng([self.seed, self.step, 1])
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # dropout
        text = torch.stack([self.vectors[group[int(rng.integers(len(group)))]] for group in self.kept.values()])
        positive = (labels[:, :, None] == torch.arange(len(self.labels))).any(dim=1)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * one_cycle(self.step, self.config.steps)
        self.tower.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            audio = self.tower(bands.to(self.device))
        scale = self.log_scale.exp().clamp(max=100.0).to(self.device)
        loss = multi_positive_infonce(audio.float(), text.to(self.device), positive.to(self.device), scale)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.tower.parameters(), self.config.clip_norm)
        self.optimiser.step()
        self.average.update(self.tower, self.step)
        return float(loss.detach())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on split valid, among the labels that occur there."""
        mine = {name: value.clone() for name, value in self.tower.state_dict().items()}
        self.tower.load_state_dict(self.average.state)
        self.tower.eval()
        pack = self.bands.pack
        clips = pack.indices(split="valid")
        audio = torch.stack([self._embed_clip(clip) for clip in clips])
        self.tower.load_state_dict(mine)
        present = sorted({pack.clips[clip].label for clip in clips})
        rows = torch.tensor([present.index(pack.clips[clip].label) for clip in clips])
        names = torch.stack([self.vectors[label] for label in present])
        by_phrases = centroids(self.vectors, {label: self.kept[label] for label in present})
        sources = [pack.clips[clip].source for clip in clips]
        figures = {}
        for how, text in (("name", names), ("mean of phrases", by_phrases)):
            scores = zero_shot(audio=audio, labels=rows, text=text, groups=sources)
            figures.update({f"zero-shot by {how}, {source}": score for source, score in scores.items()})
        means = functional.normalize(torch.stack([audio[rows == row].mean(0) for row in range(len(present))]), dim=-1)
        asked = [(present.index(label), p) for label in present for p in self.held.get(label, ())]
        if asked:
            queries = torch.stack([self.vectors[phrase] for _, phrase in asked])
            query_rows = torch.tensor([row for row, _ in asked])
            figures["unseen phrase finds its label's sounds"] = retrieval(
                queries=queries, labels=query_rows, candidates=means
            )
            first = rows[(queries @ audio.t()).argmax(dim=1)]
            figures["unseen phrase, first clip found is its label's"] = float((first == query_rows).float().mean())
        return figures

    def _embed_clip(self, clip: int) -> Tensor:
        """Sum of the vectors of evenly spread crops, at unit norm; a short clip is one crop, padded with silence."""
        speed = self.bands.speeds.index(1.0)
        count = round(self.config.seconds * self.bands.frames_per_s)
        last = max(0, self.bands.n_frames(clip, speed) - count)
        starts = sorted({round(last * share) for share in np.linspace(0, 1, self.config.crops)})
        crops = np.zeros((len(starts), count, self.embedder.signal.n_bands), dtype=np.float32)
        for row, start in zip(crops, starts, strict=True):
            energy = self.bands.energy(clip, speed, start, count)
            row[: len(energy)] = np.sqrt(energy)
        # In single precision, as it is served.
        vectors = self.tower(torch.from_numpy(crops.transpose(0, 2, 1).copy()).to(next(self.tower.parameters()).device))
        return functional.normalize(vectors.float().sum(0), dim=0).cpu()

    def _save(self) -> None:
        checkpoint.save(
            self.out / "audio-checkpoint.pt",
            {
                "step": self.step,
                "curve": self.curve,
                "config": checkpoint.plain(self.config),
                "model": self.tower.state_dict(),
                "ema": self.average.state,
                "log_scale": self.log_scale.detach().cpu(),
                "optimiser": self.optimiser.state_dict(),
            },
        )

    def _resume(self) -> None:
        path = self.out / "audio-checkpoint.pt"
        if not path.exists():
            return
        state = checkpoint.load(path)
        self.tower.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.state = {name: value.to(self.device) for name, value in state["ema"].items()}
        self.log_scale.data.copy_(state["log_scale"])
        self.step, self.curve = state["step"], state["curve"]
