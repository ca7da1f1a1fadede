"""Distillation of the text tower: its pooled vectors are drawn to those of a sentence encoder.

After "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation" (arXiv 2004.09813), which
regresses a student on a teacher's sentence vectors; here the vectors have unit norm, and the similarities within a
batch are matched as well, since ranking is what the tower is for. No weight of the teacher enters the student.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model.embedder.text import TextTokenizer, TextTower
from training import checkpoint


@dataclass(frozen=True)
class DistillConfig:
    """How long and how fast; a batch holds about ``batch_tokens`` tokens of texts of like length."""

    steps: int = 6000
    batch_tokens: int = 3072
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    similarity: float = 1.0
    checkpoint_every: int = 500


class Encoder(Protocol):
    """What is distilled: texts to vectors ``[n, E]`` of unit norm."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encode."""
        ...


class SentenceEncoder:
    """A Hugging Face encoder, mean-pooled over its tokens, unit norm; bfloat16 inside.

    Raises:
        ValueError: ``name`` is neither a folder nor a name that can be loaded.
    """

    def __init__(self, name: str, *, device: str = "cpu", batch: int = 256, max_tokens: int = 64) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model: Any = AutoModel.from_pretrained(name, dtype=torch.bfloat16).eval().to(device)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot load the sentence encoder {name!r}: {error}") from error
        self.device, self.batch, self.max_tokens = device, batch, max_tokens

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts, sorted by length so that little is padded."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors: np.ndarray | None = None
        starts = range(0, len(order), self.batch)
        for start in tqdm(starts, desc="encoding", unit="batch", mininterval=5, disable=len(starts) < 20):
            rows = order[start : start + self.batch]
            inputs = self.tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.device)
            hidden = self.model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][..., None].float()
            pooled = functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).cpu().numpy()
            if vectors is None:
                vectors = np.zeros((len(texts), pooled.shape[1]), dtype=np.float32)
            vectors[rows] = pooled
        return np.zeros((0, 0), dtype=np.float32) if vectors is None else vectors


def teach(encoder: Callable[[], Encoder], name: str, texts: Sequence[str], cache: Path, *, part: int = 16384) -> Tensor:
    """Vectors ``[n, E]`` of ``texts``, read from ``cache`` where they were computed before.

    Parts of ``part`` texts are kept as float16, keyed by the encoder's name and their texts: a kill costs one part.
    ``encoder`` makes the encoder and is not called when all parts are there.
    """
    made: Encoder | None = None
    parts = []
    for start in range(0, len(texts), part):
        rows = texts[start : start + part]
        digest = hashlib.sha256("\n".join([name, *rows]).encode()).hexdigest()[:16]
        path = cache / f"taught-{digest}.npy"
        if not path.exists():
            made = made or encoder()
            vectors = made(rows).astype(np.float16)
            cache.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, vectors)
            partial.replace(path)
        parts.append(torch.from_numpy(np.load(path)).float())
    return functional.normalize(torch.cat(parts), dim=-1)


def distillation_loss(student: Tensor, teacher: Tensor, similarity: float) -> Tensor:
    """``1 - cos`` to the teacher, plus ``similarity`` times the squared error of the batch's similarities, times B.

    Shape:
        student, teacher ``[B, E]``, unit norm -> scalar, zero when they are equal
    """
    cosine = 1.0 - (student * teacher).sum(-1).mean()
    gap = student @ student.t() - teacher @ teacher.t()
    return cosine + similarity * 4.0 * gap.square().mean()


class Distillation:
    """Trains a tower on a corpus; ``run`` goes on from ``out/text-checkpoint.pt`` where it is there.

    Batches depend on the step alone, so that a resumed run is the run that was not killed.
    """

    def __init__(
        self,
        config: DistillConfig,
        tower: TextTower,
        tokenizer: TextTokenizer,
        texts: Sequence[str],
        repeats: Sequence[int],
        taught: Tensor,
        out: Path,
        *,
        seed: int,
        bf16: bool,
        device: torch.device,
    ) -> None:
        self.config, self.tower, self.out, self.seed = config, tower.to(device), out, seed
        self.bf16, self.device = bf16, device
        self.encoded = tokenizer.encode_rows(list(texts))
        self.lengths = np.array([len(row) for row in self.encoded])
        self.taught = taught
        self.rows = np.repeat(np.arange(len(texts)), repeats)
        weights = [p for name, p in tower.named_parameters() if p.ndim >= 2 and "table" not in name]
        others = [p for name, p in tower.named_parameters() if p.ndim < 2 or "table" in name]
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.step = 0
        self.curve: list[float] = []
        self._batches: tuple[int, list[np.ndarray]] = (-1, [])
        self.per_epoch = len(self._epoch(0))
        path = out / "text-checkpoint.pt"
        if path.exists():
            state = checkpoint.load(path)
            if state.get("texts", len(texts)) != len(texts):
                raise ValueError(
                    f"{path} learned from {state['texts']} texts and there are {len(texts)}; give another out"
                )
            tower.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.curve = state["step"], state["curve"]

    def run(self) -> None:
        """Train to ``config.steps``, one cycle of the learning rate."""
        steps = self.config.steps
        with tqdm(total=steps, initial=self.step, desc="distilling", unit="step", mininterval=5) as bar:
            while self.step < steps:
                self.curve.append(self._step())
                self.step += 1
                bar.update()
                if self.step % 50 == 0:
                    bar.set_postfix(loss=f"{np.mean(self.curve[-50:]):.4f}")
                if self.step % self.config.checkpoint_every == 0 or self.step == steps:
                    self._save()

    def _step(self) -> float:
        rows = self._batch(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * one_cycle(self.step, self.config.steps)
        ids, padding = pad([self.encoded[row] for row in rows])
        self.tower.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            _, pooled = self.tower(ids.to(self.device), padding.to(self.device))
        loss = distillation_loss(pooled.float(), self.taught[rows].to(self.device), self.config.similarity)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.tower.parameters(), 1.0)
        self.optimiser.step()
        return float(loss.detach())

    def _batch(self, step: int) -> np.ndarray:
        epoch, index = divmod(step, self.per_epoch)
        if self._batches[0] != epoch:
            self._batches = (epoch, self._epoch(epoch))
        return self._batches[1][index % len(self._batches[1])]

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """All texts in batches of like length: shuffled, sorted by length within pools, cut, shuffled."""
        rng = np.random.default_rng([self.seed, epoch])
        rows = rng.permutation(self.rows)
        batches = []
        for pool in np.array_split(rows, max(1, len(rows) // 20_000)):
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            start = 0
            while start < len(pool):
                count = max(1, self.config.batch_tokens // int(self.lengths[pool[start]]))
                batches.append(pool[start : start + count])
                start += count
        if epoch:  # every epoch has as many batches, so that a step knows its own
            batches = (batches * 2)[: self.per_epoch]
        return [batches[index] for index in rng.permutation(len(batches))]

    def _save(self) -> None:
        checkpoint.save(
            self.out / "text-checkpoint.pt",
            {
                "step": self.step,
                "texts": len(self.encoded),
                "curve": self.curve,
                "config": checkpoint.plain(self.config),
                "model": self.tower.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            },
        )


def one_cycle(step: int, steps: int, *, warmup: float = 0.06) -> float:
    """Share of the learning rate: linear up over ``warmup`` of the steps, a cosine down to zero at ``steps``."""
    position = (step + 1) / (steps + 1)
    if position < warmup:
        return position / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (position - warmup) / (1.0 - warmup)))


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad rows of token ids with zeros: ids ``[B, L]`` int64, padding ``[B, L]`` (True where padded)."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    padding = torch.ones(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        padding[index, : len(row)] = False
    return ids, padding
