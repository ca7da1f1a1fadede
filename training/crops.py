"""Crops of clips as bands, for the audio tower: every clip analysed once, then cut, mixed and masked as amplitudes.

Mixing adds energies, which forgets the phases: that is what two independent sounds give on average, and it spares the
transform of each crop, which cost as much as the tower itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.layers import BandAnalysis
from model.spec import SignalSpec
from training.dataset import Pack
from training.mixing import known_clips


@dataclass(frozen=True)
class CropConfig:
    """How crops are made. ``seconds`` is the range of their length, one length a batch; ``speeds`` the speeds clips are
    analysed at; ``mixed`` the share with another clip ``mixed_db`` below; ``colour_db`` the largest gain of a random
    equaliser; ``noisy`` the share with noise ``noise_db`` below; ``masked`` the share with bands and frames blanked.

    ``leaky`` is the share that sounds like what a separator gives: one to three other clips within ``leaky_db``, the
    clip's ratio mask among them moved by up to ``leak`` toward its opposite. ``paired`` makes every crop a mixture of
    two clips with both labels, so that the tower never hears one alone. ``part`` leaves only that part of the pack's
    training clips, ``known`` that share of them, chosen by their paths."""

    batch: int = 48
    seconds: tuple[float, ...] = (3.0, 5.0)
    speeds: tuple[float, ...] = (0.91, 1.0, 1.1)
    mixed: float = 0.5
    mixed_db: tuple[float, ...] = (3.0, 30.0)
    colour_db: float = 6.0
    noisy: float = 0.3
    noise_db: tuple[float, ...] = (15.0, 50.0)
    masked: float = 0.5
    leaky: float = 0.0
    leaky_db: float = 5.0
    leak: float = 0.6
    paired: bool = False
    part: str = ""
    known: float = 1.0

    def __post_init__(self) -> None:
        if 1.0 not in self.speeds:
            raise ValueError(f"speeds must hold 1.0, which validation hears, got {self.speeds}")


@dataclass(frozen=True)
class BandPack:
    """Bands of all clips at each speed: ``frames[speed]`` is ``[frames of all clips, K]`` float16, memory-mapped."""

    pack: Pack
    frames: tuple[np.ndarray, ...]
    offsets: tuple[np.ndarray, ...]
    speeds: tuple[float, ...]
    frames_per_s: float

    @classmethod
    def open(cls, pack: Pack, signal: SignalSpec, cache: Path, speeds: Sequence[float]) -> BandPack:
        """Open the analysed pack, making it in ``cache`` the first time (0.4 GB and half a minute a speed)."""
        frames, offsets = [], []
        for speed in speeds:
            key = json.dumps([signal.to_json(), speed, pack.sample_rate, [clip.path for clip in pack.clips]])
            key += hashlib.sha256(pack.offsets.tobytes()).hexdigest()
            stem = cache / f"bands-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
            if not stem.with_suffix(".offsets.npy").exists():
                _analyse(pack, signal, stem, speed)
            offsets.append(np.load(stem.with_suffix(".offsets.npy")))
            flat = np.memmap(stem.with_suffix(".bands"), dtype=np.float16, mode="r")
            frames.append(flat.reshape(-1, signal.n_bands))
        return cls(pack, tuple(frames), tuple(offsets), tuple(speeds), 1.0 / signal.hop_s)

    def n_frames(self, clip: int, speed: int) -> int:
        """Frames of a clip at the speed of that index."""
        return int(self.offsets[speed][clip + 1] - self.offsets[speed][clip])

    def energy(self, clip: int, speed: int, start: int, count: int) -> np.ndarray:
        """Band energies ``[n, K]`` float32 of frames ``start:start + count``, cut at the clip's end."""
        first, last = (int(value) for value in self.offsets[speed][clip : clip + 2])
        return np.square(self.frames[speed][first + start : min(last, first + start + count)].astype(np.float32))


def _analyse(pack: Pack, signal: SignalSpec, stem: Path, speed: float) -> None:
    analysis = BandAnalysis(signal, pack.sample_rate)
    offsets = [0]
    partial = stem.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file, torch.inference_mode():
        for clip in tqdm(range(len(pack.clips)), desc=f"analysing at speed {speed}", unit="clip", mininterval=5):
            audio = pack.audio(clip)
            if speed != 1.0:
                points = np.arange(0, max(1, len(audio) - 1), speed, dtype=np.float32)
                audio = np.interp(points, np.arange(len(audio), dtype=np.float32), audio).astype(np.float32)
            _, bands = analysis(torch.from_numpy(audio)[None])
            file.write(bands[0].t().contiguous().numpy().astype(np.float16).tobytes())
            offsets.append(offsets[-1] + bands.shape[2])
    partial.replace(stem.with_suffix(".bands"))
    index = stem.with_suffix(".partial.npy")
    np.save(index, np.array(offsets, dtype=np.int64))
    index.replace(stem.with_suffix(".offsets.npy"))


class CropSampler:
    """Batches of augmented crops, the same for the same step; labels are drawn by the square root of their clips.

    Raises:
        ValueError: no clip of split train and the config's part.
    """

    def __init__(self, bands: BandPack, config: CropConfig, labels: Sequence[str], *, seed: int) -> None:
        self.bands, self.config, self.seed = bands, config, seed
        row = {label: index for index, label in enumerate(labels)}
        self.by_label: dict[int, list[int]] = {}
        for clip in known_clips(bands.pack, config.part, config.known):
            self.by_label.setdefault(row[bands.pack.clips[clip].label], []).append(clip)
        if not self.by_label:
            raise ValueError(f"no training clip of part {config.part!r}")
        self.rows = np.array(sorted(self.by_label))
        odds = np.sqrt([len(self.by_label[label]) for label in self.rows])
        self.odds = odds / odds.sum()

    def sample(self, step: int) -> tuple[Tensor, Tensor]:
        """Bands ``[B, K, N]`` amplitudes and label rows ``[B, S]`` of a step, S sounds a crop."""
        rng = np.random.default_rng([self.seed, step])
        count = round(_between(self.config.seconds, rng) * self.bands.frames_per_s)
        size = (self.config.batch, 2 if self.config.paired else 1)
        labels = rng.choice(self.rows, size=size, p=self.odds)
        crops = np.stack([self._crop(row, count, rng) for row in labels])
        return torch.from_numpy(np.sqrt(crops).transpose(0, 2, 1).copy()), torch.from_numpy(labels)

    def _crop(self, labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        config = self.config
        energy = self._colour(self._cut(int(labels[0]), count, rng), rng)
        mean = energy.mean() + 1e-12
        for label in labels[1:]:
            energy = energy + self._beside(int(label), mean, count, rng.uniform(-5.0, 5.0), rng)
        if rng.random() < config.leaky:
            energy = self._leak(energy, mean, count, rng)
        elif rng.random() < config.mixed:
            label = int(rng.choice(self.rows, p=self.odds))
            energy = energy + self._beside(label, mean, count, -_between(config.mixed_db, rng), rng)
        if rng.random() < config.noisy:
            noise = rng.exponential(size=energy.shape).astype(np.float32)
            noise *= np.linspace(1.0, rng.uniform(0.02, 1.0), energy.shape[1], dtype=np.float32)
            energy = energy + noise * (mean * 10 ** (-_between(config.noise_db, rng) / 10))
        if rng.random() < config.masked:
            for axis, widest in ((1, 20), (1, 20), (0, count // 6), (0, count // 6)):
                width = int(rng.integers(widest + 1))
                at = int(rng.integers(energy.shape[axis] - width + 1))
                energy[(slice(None),) * axis + (slice(at, at + width),)] = 0.0
        return energy * np.float32(10 ** (rng.uniform(-20, 6) / 10) / (mean * 1e3))

    def _beside(self, label: int, mean: float, count: int, level_db: float, rng: np.random.Generator) -> np.ndarray:
        """A cut of the label, ``level_db`` over a mean energy."""
        other = self._colour(self._cut(label, count, rng), rng)
        return other * np.float32(mean / (other.mean() + 1e-12) * 10 ** (level_db / 10))

    def _leak(self, energy: np.ndarray, mean: float, count: int, rng: np.random.Generator) -> np.ndarray:
        """What a separator that is not sure gives of ``energy`` among others."""
        config = self.config
        rest = np.zeros_like(energy)
        for _ in range(int(rng.integers(1, 4))):
            label = int(rng.choice(self.rows, p=self.odds))
            rest = rest + self._beside(label, mean, count, rng.uniform(-1, 1) * config.leaky_db, rng)
        ratio = np.sqrt(energy / (energy + rest + 1e-12))
        mask = ratio + rng.uniform(0.0, config.leak) * (1.0 - 2.0 * ratio)
        if rng.random() < 0.5:  # and blurred, as masks of coarse maps are
            coarse = rng.uniform(0.3, 1.0, size=(-(-count // 16), -(-energy.shape[1] // 8)))
            mask = mask * np.kron(coarse, np.ones((16, 8)))[: mask.shape[0], : mask.shape[1]]
        return ((energy + rest) * np.square(mask)).astype(np.float32)

    def _cut(self, label: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Energies ``[count, K]``: a cut of a clip of the label, somewhere in silence or repeated where it is short."""
        clips = self.by_label[label]
        clip, speed = clips[int(rng.integers(len(clips)))], int(rng.integers(len(self.bands.speeds)))
        length = self.bands.n_frames(clip, speed)
        cut = self.bands.energy(clip, speed, int(rng.integers(max(1, length - count + 1))), count)
        row = np.zeros((count, cut.shape[1]), dtype=np.float32)
        at = int(rng.integers(count - len(cut) + 1))
        row[at : at + len(cut)] = cut
        while at + 2 * len(cut) < count and rng.random() < 0.5:
            at += len(cut)
            row[at : at + len(cut)] = cut
        return row

    def _colour(self, energy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        points = rng.uniform(-1, 1, size=6) * self.config.colour_db * rng.random()
        curve = np.interp(np.linspace(0, 5, energy.shape[1]), np.arange(6), points)
        return energy * (10 ** (curve / 10)).astype(np.float32)


def _between(limits: tuple[float, ...], rng: np.random.Generator) -> float:
    return float(rng.uniform(limits[0], limits[-1]))
