"""Mixtures that keep their books: a mixture is the sum of its sources, sample by sample.

Levels follow the pack's rule: a cut is scaled to an RMS of ``0.05 * 10 ** (level_db / 20)`` over its own samples, and
if the sum's peak passes 1 the mixture and its sources are scaled alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from training.dataset import Pack, read_mono
from training.manifest import Mixture

REFERENCE_RMS = 0.05


@dataclass(frozen=True)
class Batch:
    """Mixtures and what is asked of them.

    ``mixture [B, T]``, ``targets [B, P, T]`` (silence where the asked sound is absent), ``rest [B, T]`` (the sources
    not asked for), ``prompts [B][P]``. Always ``mixture = targets.sum(1) + rest``.
    """

    mixture: np.ndarray
    targets: np.ndarray
    rest: np.ndarray
    prompts: list[list[str]]


Made = TypeVar("Made", covariant=True)


class Sampler(Protocol[Made]):
    """Makes the batch of a step; the same step gives the same batch, so that a resumed run goes on as it was."""

    def sample(self, step: int) -> Made:
        """Make the batch of a step."""
        ...


def scale_to_level(cut: np.ndarray, level_db: float) -> np.ndarray:
    """Scale ``cut [T]`` to its level; silence stays silence."""
    rms = float(np.sqrt(np.mean(np.square(cut, dtype=np.float64)))) if len(cut) else 0.0
    return cut if rms < 1e-8 else (cut * (REFERENCE_RMS * 10 ** (level_db / 20) / rms)).astype(np.float32)


def limit_peak(sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum ``sources [S, T]``; if the peak passes 1 scale all alike. Returns mixture ``[T]``, sources ``[S, T]``."""
    mixture = sources.sum(axis=0)
    peak = float(np.abs(mixture).max(initial=0.0))
    if peak > 1.0:
        sources = sources / np.float32(peak)
        mixture = sources.sum(axis=0)
    return mixture, sources


def render(mixture: Mixture, pack: Pack, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Render a line of a mixture list from the pack's files at ``sample_rate``.

    Returns:
        mixture ``[T]`` and its sources ``[S, T]`` in the line's order.

    Raises:
        ValueError: a source's file cannot be read or its cut is empty; the message names the mixture.
    """
    n_samples = round(mixture.seconds * sample_rate)
    sources = np.zeros((len(mixture.sources), n_samples), dtype=np.float32)
    for row, source in zip(sources, mixture.sources, strict=True):
        audio = read_mono(pack.sounds / source.path, sample_rate)
        at = round(source.at * sample_rate)
        start = round(source.start * sample_rate)
        cut = audio[start : start + n_samples - at]
        if not len(cut):
            raise ValueError(f"mixture {mixture.id}: nothing of {source.path} is left after {source.start} s")
        row[at : at + len(cut)] = scale_to_level(cut, source.level_db)
    return limit_peak(sources)


@dataclass(frozen=True)
class MixingConfig:
    """How single sources are drawn and mixed.

    ``source_counts`` are the odds of 1, 2, 3, ... sources; ``prompts`` how many are asked of a mixture;
    ``absent`` the share of prompts whose sound is not in the mixture; ``shares`` the odds of each of the pack's sources
    (a label within it is drawn by the square root of its clips); ``speed`` the largest change of speed and pitch;
    ``tilt_db`` the largest gain of a random equaliser; ``repeat`` the odds that a short clip is followed by another of
    its label; ``part`` leaves only that part of the pack, and ``known`` that share of its clips, chosen by their paths.
    """

    seconds: float = 5.11
    batch: int = 8
    prompts: int = 2
    source_counts: Sequence[float] = (0.03, 0.57, 0.28, 0.12)
    absent: float = 0.1
    level_db: float = 5.0
    speed: float = 0.12
    tilt_db: float = 6.0
    repeat: float = 0.25
    shares: dict[str, float] | None = None
    part: str = ""
    known: float = 1.0


def known_clips(pack: Pack, part: str, share: float) -> list[int]:
    """Training clips of a part, and of them the share whose hash is lowest: the same ones in every run."""
    indices = pack.indices(split="train", part=part or None)
    ordered = sorted(indices, key=lambda index: hashlib.sha256(pack.clips[index].path.encode()).digest())
    return sorted(ordered[: round(share * len(ordered))])


class SingleSourceSampler:
    """Supervised mixtures of the pack's single sources; interferers never share the target's label.

    Deterministic: row ``r`` of step ``n`` is the same whatever came before and whoever makes the others. ``share`` are
    the rows of the batch to make, by default all.

    Raises:
        ValueError: no clip of the split and part, or fewer labels than sources in a mixture.
    """

    def __init__(
        self,
        pack: Pack,
        phrases: dict[str, tuple[str, ...]],
        config: MixingConfig,
        *,
        seed: int,
        share: range | None = None,
    ) -> None:
        self.pack, self.phrases, self.config, self.seed = pack, phrases, config, seed
        self.share = range(config.batch) if share is None else share
        indices = known_clips(pack, config.part, config.known)
        self.by_label: dict[str, list[int]] = {}
        for index in indices:
            self.by_label.setdefault(pack.clips[index].label, []).append(index)
        self.labels = sorted(self.by_label)
        needed = len(config.source_counts) + 1
        if len(self.labels) < needed:
            raise ValueError(
                f"mixtures of {needed - 1} sources and absent prompts need {needed} labels, got {self.labels}"
            )
        self.odds = self._label_odds()
        self.n_samples = round(config.seconds * pack.sample_rate)

    def _label_odds(self) -> np.ndarray:
        clips = self.pack.clips
        source = {label: clips[self.by_label[label][0]].source for label in self.labels}
        odds = np.array([len(self.by_label[label]) ** 0.5 for label in self.labels])
        shares = self.config.shares
        if shares:
            for name in set(source.values()):
                inside = np.array([source[label] == name for label in self.labels])
                odds[inside] *= shares.get(name, 0.0) / odds[inside].sum()
        return odds / odds.sum()

    def sample(self, step: int) -> Batch:
        """Make the batch of a step."""
        rows = [self._mixture(np.random.default_rng([self.seed, step, 1, row])) for row in self.share]
        mixture, targets, rest, prompts = zip(*rows, strict=True)
        return Batch(np.stack(mixture), np.stack(targets), np.stack(rest), list(prompts))

    def _mixture(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        config = self.config
        counts = np.asarray(config.source_counts) / np.sum(config.source_counts)
        n_sources = 1 + int(rng.choice(len(counts), p=counts))
        drawn = rng.choice(len(self.labels), size=n_sources + config.prompts, replace=False, p=self.odds)
        labels = [self.labels[index] for index in drawn]
        present, absent = labels[:n_sources], labels[n_sources:]
        level = rng.uniform(-config.level_db, config.level_db, size=n_sources)
        mixture, sources = limit_peak(
            np.stack([self._source(label, db, rng) for label, db in zip(present, level, strict=True)])
        )
        targets = np.zeros((config.prompts, self.n_samples), dtype=np.float32)
        asked: list[str] = []
        used = 0
        for row, stranger in zip(targets, absent, strict=True):
            if used < n_sources and rng.random() >= config.absent:
                row[:] = sources[used]
                asked.append(self._phrase(present[used], rng))
                used += 1
            else:
                asked.append(self._phrase(stranger, rng))
        return mixture, targets, sources[used:].sum(axis=0), asked

    def _phrase(self, label: str, rng: np.random.Generator) -> str:
        phrases = self.phrases[label]
        return phrases[int(rng.integers(len(phrases)))]

    def _source(self, label: str, level_db: float, rng: np.random.Generator) -> np.ndarray:
        """A cut of a clip of ``label``, changed in speed and colour, somewhere in a silent ``[T]``."""
        row = np.zeros(self.n_samples, dtype=np.float32)
        cut = self._cut(label, rng)
        while len(cut) < self.n_samples // 2 and rng.random() < self.config.repeat:
            gap = np.zeros(int(rng.integers(1 + self.pack.sample_rate // 2)), dtype=np.float32)
            cut = np.concatenate([cut, gap, self._cut(label, rng)])
        cut = cut[: self.n_samples]
        at = int(rng.integers(self.n_samples - len(cut) + 1))
        if at == 0 and rng.random() < 0.3:  # some cuts end at the window's edge instead of filling it
            at = int(rng.integers(self.n_samples // 2))
            cut = cut[: self.n_samples - at]
        row[at : at + len(cut)] = scale_to_level(cut, level_db)
        return row

    def _cut(self, label: str, rng: np.random.Generator) -> np.ndarray:
        clips = self.by_label[label]
        index = clips[int(rng.integers(len(clips)))]
        speed = float(rng.uniform(1 - self.config.speed, 1 + self.config.speed))
        wanted = int(self.n_samples * speed) + 2
        start = int(rng.integers(max(1, self.pack.n_samples(index) - wanted + 1)))
        cut = self.pack.audio(index, start, wanted)
        # Linear interpolation: its roll-off near 16 kHz is one more colour, and a resampler costs ten times as much.
        points = np.arange(0, len(cut) - 1, speed, dtype=np.float32)
        cut = np.interp(points, np.arange(len(cut), dtype=np.float32), cut).astype(np.float32) if len(cut) > 2 else cut
        return _tilt(cut, float(rng.uniform(-1, 1)) * self.config.tilt_db)


def _tilt(cut: np.ndarray, tilt_db: float) -> np.ndarray:
    """A first-order shelf: ``tilt_db`` more (or less) above about 2.5 kHz at 32 kHz, by mixing in the difference."""
    gain = 10 ** (tilt_db / 20) - 1
    if abs(gain) < 1e-3 or len(cut) < 4:
        return cut
    smooth = cut.copy()
    smooth[2:-2] = 0.25 * (cut[:-4] + cut[1:-3] + cut[3:-1] + cut[4:])
    return cut + np.float32(gain) * (cut - smooth)
