"""Validation: figures of a perfect separator, of one that takes too much away, and of one that learned by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.layers import BandAnalysis
from model.spec import NetworkSpec
from tests.training.toy_parts import FEATURES, RATE, SIGNAL, TONES, caption, oracle, tone, toy_parts
from training.dataset import Pack
from training.manifest import read_mixtures
from training.mixing import render
from training.parts import Parts
from training.prompts import PromptTable
from training.validation import CombinationsValidation, ListValidation
from training.weak_mixing import WeakMixingConfig, WeakSampler


class Known(nn.Module):
    """Answers a list's mixtures by the ratio of their sources' bands, raised to a power that removes more."""

    def __init__(self, pack: Pack, path: Path, *, power: float = 1.0, swapped: bool = False) -> None:
        super().__init__()
        self.spec = NetworkSpec(embedding_features=2)
        self.power, self.swapped = power, swapped
        self.lines = read_mixtures(path)
        analysis = BandAnalysis(SIGNAL, pack.sample_rate)
        self.masks: list[Tensor] = []
        for line in self.lines:
            _, sources = render(line, pack, pack.sample_rate)
            energy = analysis(torch.from_numpy(sources))[1].square()
            self.masks.append(energy / energy.sum(dim=0, keepdim=True))
        self.asked = 0

    def forward(self, bands: Tensor, pooled: Tensor) -> Tensor:
        mask = self.masks[self.asked % len(self.masks)]
        self.asked += 1
        mask = (mask.flip(0) if self.swapped else mask) ** self.power
        return nn.functional.pad(mask, (0, bands.shape[-1] - mask.shape[-1]))[None]


def figures(pack: Pack, sounds: Path, **how: float) -> dict[str, float]:
    path = sounds / "mixtures-valid-2.jsonl"
    judge = ListValidation(pack, path, 3)
    phrases = sorted({source.prompt for line in judge.lines for source in line.sources})
    table = PromptTable(phrases, torch.eye(len(phrases)))
    separator = Known(pack, path, **how)  # type: ignore[arg-type]
    return judge.score(Parts(separator, BandAnalysis(SIGNAL, pack.sample_rate), table, torch.device("cpu"), False))


def test_a_perfect_separator_gains_and_a_swapped_one_loses(toy_pack: Pack, toy_sounds: Path) -> None:
    good, bad = figures(toy_pack, toy_sounds), figures(toy_pack, toy_sounds, swapped=True)
    assert set(good) == {"sdri", "sdri_toys", "sir", "sar"}
    assert good["sdri"] == pytest.approx(good["sdri_toys"]) and good["sdri"] > 8
    assert good["sir"] > 15 > 0 > bad["sir"] and bad["sdri"] < 0


def test_a_mask_that_removes_too_much_shows_as_high_sir_with_low_sar(toy_pack: Pack, toy_sounds: Path) -> None:
    fair, greedy = figures(toy_pack, toy_sounds), figures(toy_pack, toy_sounds, power=12.0)
    assert greedy["sir"] > fair["sir"] - 1
    assert greedy["sar"] < fair["sar"] - 1 and greedy["sdri"] < fair["sdri"] - 1


def test_the_limit_takes_the_first_lines(toy_pack: Pack, toy_sounds: Path) -> None:
    judge = ListValidation(toy_pack, toy_sounds / "mixtures-valid-2.jsonl", 2)
    assert [line.id for line in judge.lines] == ["toy-0", "toy-1"] and len(judge.rendered) == 2


class Tones:
    """Recordings of single tones."""

    sample_rate = RATE

    def __len__(self) -> int:
        return 10

    def caption(self, index: int) -> str:
        return caption((index,))

    def phrases(self, index: int) -> Sequence[str]:
        return [TONES[index]]

    def n_samples(self, index: int) -> int:
        return len(tone(index))

    def audio(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        return tone(index)[start : None if length is None else start + length]


def test_learning_known_recordings_by_heart_shows_on_the_held_ones() -> None:
    recordings = Tones()
    phrases = [*TONES, *(recordings.caption(index) for index in range(10))]
    table = oracle(BandAnalysis(SIGNAL, RATE), phrases)
    table[[phrases.index(recordings.caption(index)) for index in (7, 8, 9)]] = 0.5  # never seen, never learned
    parts = toy_parts(table=table)
    parts.prompts = PromptTable(phrases, torch.eye(FEATURES)[: len(phrases)])
    config = WeakMixingConfig(seconds=0.3, batch=2, held=3)
    known, held = (WeakSampler(recordings, parts.prompts, config, seed=1, held=kept) for kept in (False, True))
    judge = CombinationsValidation(known, held, batches=3)
    scored = judge.score(parts)
    assert set(scored) == {"url_known", "url_held"}
    assert scored["url_known"] < -15 and scored["url_held"] > -6
    assert judge.score(parts) == scored
    learned = toy_parts(table=oracle(BandAnalysis(SIGNAL, RATE), phrases))
    learned.prompts = parts.prompts
    both = judge.score(learned)
    assert both["url_held"] == pytest.approx(both["url_known"], abs=4.0) and both["url_held"] < -15
