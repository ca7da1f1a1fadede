"""Mixtures of mixtures (arXiv 2404.01740, section 3): sums of captioned recordings, which are the targets themselves.

The sampler hears :class:`training.recordings.Recordings`, which have no sources to give. Sums are exact: nothing is
scaled after the addition, where the release divides its targets once more than their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.prompts import PromptTable
from training.recordings import Recordings

_TRIES = 20


@dataclass(frozen=True)
class WeakBatch:
    """Mixtures of mixtures and what is asked of them.

    ``mixture [B, T]`` is the sum of ``parts [B, N, T]``; ``captions [B][N]`` names each part, ``phrases [B][N][*]``
    names its sounds (all of them where ``complete [B][N]``), ``absent [B][up to A]`` names sounds that no caption of
    the row speaks of, none where every phrase of the recordings may name one that it does.
    """

    mixture: np.ndarray
    parts: np.ndarray
    captions: list[list[str]]
    phrases: list[list[list[str]]]
    complete: list[list[bool]]
    absent: list[list[str]]


@dataclass(frozen=True)
class WeakMixingConfig:
    """How recordings are drawn and added.

    ``mixtures`` is N, ``phrases`` the most phrases asked of one recording (K), ``absent`` how many prompts for absent
    sounds are added; recordings are moved by up to ``level_db``. ``alike`` is the cosine of two prompts' vectors above
    which they may name one sound: recordings with such phrases are not added up, nor is such a prompt called absent.
    The last ``held`` recordings are kept from training, to see what it learns by heart.
    """

    seconds: float = 5.11
    batch: int = 4
    mixtures: int = 2
    phrases: int = 5
    absent: int = 0
    level_db: float = 3.0
    alike: float = 0.7
    held: int = 0


class WeakSampler:
    """Mixtures of mixtures of recordings; ``held`` draws what training is kept from.

    Deterministic: row ``r`` of step ``n`` is the same whatever came before and whoever makes the others. ``share`` are
    the rows of the batch to make, by default all.

    Raises:
        ValueError: fewer recordings than are added up.
    """

    def __init__(
        self,
        recordings: Recordings,
        prompts: PromptTable,
        config: WeakMixingConfig,
        *,
        seed: int,
        held: bool = False,
        share: range | None = None,
    ) -> None:
        self.recordings, self.prompts, self.config, self.seed = recordings, prompts, config, seed
        self.share = range(config.batch) if share is None else share
        border = len(recordings) - config.held
        self.rows = range(border, len(recordings)) if held else range(border)
        if len(self.rows) < config.mixtures:
            raise ValueError(f"a mixture of {config.mixtures} needs as many recordings, got {len(self.rows)}")
        self.n_samples = round(config.seconds * recordings.sample_rate)
        self.bank = sorted({phrase for row in self.rows for phrase in recordings.phrases(row)})

    def sample(self, step: int) -> WeakBatch:
        """Make the batch of a step."""
        rows = [self._row(np.random.default_rng([self.seed, step, 2, row])) for row in self.share]
        parts, captions, phrases, complete, absent = zip(*rows, strict=True)
        stacked = np.stack(parts)
        return WeakBatch(stacked.sum(axis=1), stacked, list(captions), list(phrases), list(complete), list(absent))

    def _row(self, rng: np.random.Generator) -> tuple[np.ndarray, list[str], list[list[str]], list[bool], list[str]]:
        chosen = self._choose(rng)
        phrases = [self._phrases(index, rng) for index in chosen]
        captions = [self.recordings.caption(index) for index in chosen]
        parts = np.stack([self._audio(index, rng) for index in chosen])
        present = [phrase for index in chosen for phrase in self.recordings.phrases(index)]
        complete = [
            len(asked) == len(set(self.recordings.phrases(i))) for asked, i in zip(phrases, chosen, strict=True)
        ]
        return parts, captions, phrases, complete, self._absent(present, rng)

    def _choose(self, rng: np.random.Generator) -> list[int]:
        """Recordings that share no sound, as far as a few tries find them."""
        chosen = [int(rng.choice(self.rows))]
        while len(chosen) < self.config.mixtures:
            heard = [phrase for index in chosen for phrase in self.recordings.phrases(index)]
            drawn = rng.choice(len(self.rows), size=min(len(self.rows), _TRIES + len(chosen)), replace=False)
            others = [row for row in (self.rows[place] for place in drawn.tolist()) if row not in chosen]
            unlike = (row for row in others if not self._alike(heard, self.recordings.phrases(row)))
            chosen.append(next(unlike, others[0]))
        return chosen

    def _phrases(self, index: int, rng: np.random.Generator) -> list[str]:
        phrases = list(dict.fromkeys(self.recordings.phrases(index)))
        if len(phrases) <= self.config.phrases:
            return phrases
        kept = sorted(rng.choice(len(phrases), size=self.config.phrases, replace=False))
        return [phrases[place] for place in kept]

    def _absent(self, present: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Phrases that name nothing of what is there; fewer than asked where every phrase may."""
        absent: list[str] = []
        for _ in range(self.config.absent):
            drawn = (self.bank[int(rng.integers(len(self.bank)))] for _ in range(_TRIES))
            unlike = next((phrase for phrase in drawn if not self._alike(present, [phrase])), None)
            if unlike is None:  # the phrase that is farthest from what is there
                farthest = self.bank[int(self.prompts.similarity(present, self.bank).amax(dim=0).argmin())]
                if self._alike(present, [farthest]):
                    break
                unlike = farthest
            absent.append(unlike)
        return absent

    def _alike(self, one: Sequence[str], other: Sequence[str]) -> bool:
        return bool(self.prompts.similarity(one, other).max() > self.config.alike)

    def _audio(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A cut of the recording, somewhere in silence where it is short."""
        length = self.recordings.n_samples(index)
        start = int(rng.integers(max(1, length - self.n_samples + 1)))
        cut = self.recordings.audio(index, start, self.n_samples)
        row = np.zeros(self.n_samples, dtype=np.float32)
        at = int(rng.integers(self.n_samples - len(cut) + 1))
        row[at : at + len(cut)] = cut * np.float32(10 ** (rng.uniform(-1, 1) * self.config.level_db / 20))
        return row
