"""Tones with names, a separator that is a table of masks, and an ear that knows the tones: weak training in small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.layers import BandAnalysis
from model.spec import NetworkSpec, SignalSpec
from training.ear import Ear
from training.parts import Parts
from training.prompts import PromptTable
from training.weak_mixing import WeakBatch

RATE = 32_000
SECONDS = 0.4
BINS = (16, 22, 31, 44, 61, 86, 120, 169, 236, 330, 463)  # of 25 Hz: a factor of 1.4 apart
SIGNAL = SignalSpec(n_bands=64, frame_multiple=8)
TONES = tuple(f"tone {number}" for number in range(len(BINS)))
FEATURES = 32


def tone(number: int, *, seconds: float = SECONDS) -> np.ndarray:
    """A tone ``[T]`` of amplitude 0.1."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * np.sin(2 * np.pi * 25.0 * BINS[number] * time)).astype(np.float32)


def caption(tones: Sequence[int]) -> str:
    """All of a recording's tones."""
    return "a recording of " + " and ".join(TONES[number] for number in tones)


def batch_of(
    rows: Sequence[Sequence[Sequence[int]]], *, absent: Sequence[Sequence[int]] = (), complete: bool = True
) -> WeakBatch:
    """Mixtures of recordings of tones: ``rows[b][n]`` are the tones of the n-th recording of a row."""
    parts = np.stack([np.stack([np.sum([tone(i) for i in tones], axis=0) for tones in row]) for row in rows])
    return WeakBatch(
        parts.sum(axis=1),
        parts,
        [[caption(tones) for tones in row] for row in rows],
        [[[TONES[i] for i in tones] for tones in row] for row in rows],
        [[complete for _ in row] for row in rows],
        [[TONES[i] for i in row] for row in absent] if absent else [[] for _ in rows],
    )


class TableSeparator(nn.Module):
    """One mask for each prompt, whatever is heard; prompts' vectors are unit vectors, so a row's gradient is theirs."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.spec = NetworkSpec(embedding_features=FEATURES)
        self.table = nn.Parameter(table)

    def forward(self, bands: Tensor, pooled: Tensor) -> Tensor:
        return (pooled @ self.table)[..., None].expand(-1, -1, -1, bands.shape[-1])


class ToneEar:
    """An embedder that hears how much of each tone there is."""

    logit_scale = torch.tensor(20.0)

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        raise AssertionError("no loss asks an ear for texts")

    def audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        time = torch.arange(waveform.shape[-1]) / sample_rate
        turns = torch.exp(-2j * torch.pi * 25.0 * torch.tensor(BINS)[:, None] * time)
        amount = (waveform.to(torch.complex64) @ turns.t()).abs() / waveform.shape[-1]
        amount = nn.functional.pad(amount, (0, FEATURES - len(BINS))) + 1e-6
        return nn.functional.normalize(amount, dim=-1)


def oracle(analysis: BandAnalysis, phrases: Sequence[str]) -> Tensor:
    """Masks ``[E, K]``: the bands in which the tones that a phrase names lie."""
    table = torch.zeros(FEATURES, analysis.signal.n_bands)
    for row, phrase in enumerate(phrases):
        for name, place in zip(TONES, BINS, strict=True):
            if name in phrase.split(" of ")[-1].split(" and "):
                table[row] += (analysis.filters[:, place - 2 : place + 3].sum(dim=1) > 0).float()
    return table.clamp(max=1.0)


def toy_parts(*batches: WeakBatch, table: Tensor | None = None, ear: bool = True) -> Parts:
    """Parts that can answer the batches' prompts; the separator is the oracle where no table is given."""
    captions = dict.fromkeys(name for batch in batches for row in batch.captions for name in row)
    phrases = [*TONES, *captions]
    analysis = BandAnalysis(SIGNAL, RATE)
    separator = TableSeparator(oracle(analysis, phrases) if table is None else table)
    prompts = PromptTable(phrases, torch.eye(FEATURES)[: len(phrases)])
    parts = Parts(separator, analysis, prompts, torch.device("cpu"), bf16=False)
    if ear:
        parts.ear = Ear(ToneEar(), analysis, bf16=False)
    return parts


def touched(parts: Parts, loss: Tensor) -> set[str]:
    """Prompts whose masks the loss would move."""
    separator = parts.separator
    assert isinstance(separator, TableSeparator)
    if not loss.requires_grad:
        return set()
    (gradient,) = torch.autograd.grad(loss, separator.table, retain_graph=True)
    rows = gradient.abs().sum(dim=1)
    return {phrase for phrase, row in parts.prompts.rows.items() if rows[row] > 1e-9}
