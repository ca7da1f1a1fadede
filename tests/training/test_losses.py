"""Losses against closed forms, from energies and from amplitudes."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import FLOOR_DB, RELEASED_GAIN, negative_sdr, silence, weighted_l1

FLOOR = 10 ** (-FLOOR_DB / 10)


def test_a_perfect_estimate_reaches_the_floor() -> None:
    target, mixture = torch.tensor([[3.0, 5.0], [1.0, 2.0]]), torch.tensor([8.0, 3.0])
    floor = FLOOR * mixture[:, None]
    expected = (10 * (torch.log10(floor) - torch.log10(target + floor))).mean()
    loss = negative_sdr(error=torch.zeros(2, 2), target=target, mixture=mixture)
    assert float(loss) == pytest.approx(float(expected), abs=1e-4)
    assert float(loss) > -FLOOR_DB


def test_far_above_the_floor_it_is_the_negative_sdr() -> None:
    target = torch.tensor([[100.0, 50.0]])
    loss = negative_sdr(error=0.25 * target, target=target, mixture=torch.tensor([1.0]))
    assert float(loss) == pytest.approx(10 * math.log10(0.25), abs=1e-3)


def test_it_does_not_depend_on_the_level() -> None:
    torch.manual_seed(0)
    error, target, mixture = torch.rand(2, 3), torch.rand(2, 3), torch.rand(2)
    loud = negative_sdr(error=error, target=target, mixture=mixture)
    quiet = negative_sdr(error=1e-2 * error, target=1e-2 * target, mixture=1e-2 * mixture)
    assert float(loud) == pytest.approx(float(quiet), abs=1e-2)


def test_an_estimate_of_no_weight_counts_for_nothing() -> None:
    error, target, mixture = torch.tensor([[1.0, 9.0]]), torch.tensor([[4.0, 4.0]]), torch.tensor([8.0])
    alone = negative_sdr(error=error[:, :1], target=target[:, :1], mixture=mixture)
    weighed = negative_sdr(error=error, target=target, mixture=mixture, weight=torch.tensor([[1.0, 0.0]]))
    assert float(weighed) == pytest.approx(float(alone), abs=1e-6)
    nothing = negative_sdr(error=error, target=target, mixture=mixture, weight=torch.zeros(1, 2))
    assert float(nothing) == 0.0


def test_for_an_absent_sound_it_is_the_energy_left_over_the_floor() -> None:
    mixture, absent = torch.tensor([7.0, 2.0]), torch.ones(2, 1, dtype=torch.bool)
    left = mixture[:, None] * 10 ** (-20 / 10)
    loss = silence(estimate=left, absent=absent, mixture=mixture)
    assert float(loss) == pytest.approx(10 * math.log10(1 + 10 ** ((FLOOR_DB - 20) / 10)), abs=1e-3)
    assert float(silence(estimate=torch.zeros(2, 1), absent=absent, mixture=mixture)) == pytest.approx(0.0, abs=1e-5)


def test_each_term_leaves_the_others_targets_alone() -> None:
    error, target, mixture = torch.tensor([[1.0, 6.0]]), torch.tensor([[4.0, 0.0]]), torch.tensor([9.0])
    alone = negative_sdr(error=error[:, :1], target=target[:, :1], mixture=mixture)
    assert float(negative_sdr(error=error, target=target, mixture=mixture)) == pytest.approx(float(alone), abs=1e-6)
    quiet = silence(estimate=error[:, 1:], absent=torch.tensor([[True]]), mixture=mixture)
    both = silence(estimate=error, absent=torch.tensor([[False, True]]), mixture=mixture)
    assert float(both) == pytest.approx(float(quiet), abs=1e-6)


def test_gradients_are_finite_at_silence() -> None:
    nothing, mixture = torch.zeros(1, 2, requires_grad=True), torch.zeros(1)
    loss = negative_sdr(error=nothing, target=torch.zeros(1, 2), mixture=mixture)
    loss = loss + silence(estimate=nothing, absent=torch.ones(1, 2, dtype=torch.bool), mixture=mixture)
    loss.backward()
    assert nothing.grad is not None and torch.isfinite(nothing.grad).all()


def test_weighted_l1_is_the_releases_sum_over_parts_of_means() -> None:
    torch.manual_seed(1)
    estimate, target, loudness = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5), 3.0 * torch.rand(3, 1, 4, 5)
    expected = 0.0
    for part in range(2):
        weight = torch.log1p(RELEASED_GAIN * loudness[:, 0]).clip(1e-3, 10.0)
        expected += float((weight * RELEASED_GAIN * (estimate[:, part] - target[:, part]).abs()).mean())
    loss = weighted_l1(estimate=estimate, target=target, loudness=loudness)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(weighted_l1(estimate=target, target=target, loudness=loudness)) == 0.0


@pytest.mark.parametrize(("loudness", "weight"), [(0.0, 1e-3), (math.e - 1.0, 1.0), (1e9, 10.0)])
def test_the_weight_of_l1_is_clipped_on_both_sides(loudness: float, weight: float) -> None:
    one = torch.ones(1, 1, 2, 2)
    loss = weighted_l1(estimate=2.0 * one, target=one, loudness=loudness / RELEASED_GAIN * one)
    assert float(loss) == pytest.approx(RELEASED_GAIN * weight, rel=1e-5)
