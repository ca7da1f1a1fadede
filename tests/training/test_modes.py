"""Modes: supervised by closed form, and semi-supervised as the sum of its two halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.toy_parts import FEATURES, SIGNAL, TONES, batch_of, tone, touched, toy_parts
from training.mixing import Batch
from training.modes import Semi, SemiBatch, SemiSampler, Supervised
from training.weak import Weak, WeakConfig

LOSSES = {"negative_sdr": 1.0, "silence": 0.1}


def singles() -> Batch:
    """Tones 0 and 1, asked for tone 0 and for tone 2, which is absent."""
    one, other = tone(0), tone(1)
    silence = np.zeros_like(one)
    return Batch((one + other)[None], np.stack([one, silence])[None], other[None], [[TONES[0], TONES[2]]])


def test_the_oracle_gets_the_least_and_each_term_has_its_own_prompts() -> None:
    parts = toy_parts()
    good = Supervised(LOSSES)(parts, singles(), 0.0)
    assert float(good.figures["negative_sdr"]) < -15 and float(good.figures["silence"]) < 1.5
    table = torch.full((FEATURES, SIGNAL.n_bands), 0.5)
    half = Supervised(LOSSES)(parts := toy_parts(table=table), singles(), 0.0)
    # Half of two equal tones is off by half of each.
    assert float(half.figures["negative_sdr"]) == pytest.approx(10 * np.log10(0.5), abs=0.1)
    assert float(half.figures["silence"]) == pytest.approx(10 * np.log10(1 + 250), abs=0.1)
    assert touched(parts, half.terms["negative_sdr"][0]) == {TONES[0]}
    assert touched(parts, half.terms["silence"][0]) == {TONES[2]}


def test_semi_is_the_sum_of_both() -> None:
    mixtures = batch_of((((3, 4), (5, 6)),), absent=((7,),))
    table = torch.rand(FEATURES, SIGNAL.n_bands, generator=torch.Generator().manual_seed(0))
    parts = toy_parts(mixtures, table=table)
    supervised = Supervised(LOSSES)
    weak = Weak(WeakConfig(bank=0), {"url": 1.0, "crl": 1.0, "silence": 0.1})
    both = Semi(supervised, weak)(parts, SemiBatch(singles(), mixtures), 0.5)
    one, other = supervised(parts, singles(), 0.5), weak(parts, mixtures, 0.5)
    assert float(both.loss.detach()) == pytest.approx(float((one.loss + other.loss).detach()), abs=1e-4)
    assert set(both.terms) == {"negative_sdr", "silence", "url", "crl", "weak_silence"}
    assert touched(parts, both.loss) == touched(parts, one.loss) | touched(parts, other.loss)
    assert float(sum(both.gradient_shares().values(), torch.zeros(()))) == pytest.approx(1.0)


def test_a_semi_batch_has_each_samplers_batch_of_the_step() -> None:
    class Steps:
        def __init__(self, name: str) -> None:
            self.name = name

        def sample(self, step: int) -> str:
            return f"{self.name} {step}"

    batch = SemiSampler(Steps("singles"), Steps("mixtures")).sample(7)  # type: ignore[arg-type]
    assert (batch.singles, batch.mixtures) == ("singles 7", "mixtures 7")


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="pit"):
        Supervised({"pit": 1.0})
