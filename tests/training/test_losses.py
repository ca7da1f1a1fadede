"""Losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import negative_sdr, relative_l1, silence


def waves() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    target = torch.randn(2, 3, 800)
    return target, target.sum(dim=1)


def test_a_perfect_estimate_reaches_the_floor() -> None:
    target, mixture = waves()
    power = target.square().sum(-1)
    floor = 1e-3 * mixture.square().sum(-1, keepdim=True)
    expected = (10 * (torch.log10(floor) - torch.log10(power + floor))).mean()
    assert negative_sdr(estimate=target, target=target, mixture=mixture) == pytest.approx(float(expected), abs=1e-4)


def test_far_above_the_floor_it_is_the_negative_sdr() -> None:
    target, mixture = waves()
    loss = negative_sdr(estimate=1.5 * target, target=target, mixture=mixture, floor_db=90.0)
    assert float(loss) == pytest.approx(10 * math.log10(0.25), abs=1e-3)


def test_for_a_silent_target_it_is_the_energy_left_over_the_floor() -> None:
    _, mixture = waves()
    nothing = torch.zeros(2, 1, 800)
    left = mixture.unsqueeze(1) * 10 ** (-20 / 20)
    loss = silence(estimate=left, target=nothing, mixture=mixture, floor_db=30.0)
    assert float(loss) == pytest.approx(10 * math.log10(1 + 10 ** (10 / 10)), abs=1e-3)
    assert float(silence(estimate=nothing, target=nothing, mixture=mixture)) == pytest.approx(0.0, abs=1e-6)


def test_each_term_leaves_the_others_targets_alone() -> None:
    target, mixture = waves()
    half = torch.cat([target[:, :1], torch.zeros(2, 1, 800)], dim=1)
    estimate = 0.5 * torch.cat([target[:, :1], target[:, 1:2]], dim=1)
    alone = negative_sdr(estimate=estimate[:, :1], target=half[:, :1], mixture=mixture)
    assert float(negative_sdr(estimate=estimate, target=half, mixture=mixture)) == pytest.approx(float(alone), abs=1e-5)
    quiet = silence(estimate=estimate[:, 1:], target=half[:, 1:], mixture=mixture)
    assert float(silence(estimate=estimate, target=half, mixture=mixture)) == pytest.approx(float(quiet), abs=1e-5)


def test_gradients_are_finite_at_silence() -> None:
    mixture = torch.zeros(1, 64)
    estimate = torch.zeros(1, 1, 64, requires_grad=True)
    nothing = torch.zeros(1, 1, 64)
    terms = [loss(estimate=estimate, target=nothing, mixture=mixture) for loss in (negative_sdr, silence)]
    sum(terms, torch.zeros(())).backward()
    assert estimate.grad is not None and torch.isfinite(estimate.grad).all()


def test_relative_l1_does_not_depend_on_the_level() -> None:
    target, mixture = waves()
    loss = relative_l1(estimate=0.5 * target, target=target, mixture=mixture)
    quiet = relative_l1(estimate=0.05 * target, target=0.1 * target, mixture=0.1 * mixture)
    assert float(loss) == pytest.approx(float(quiet), rel=1e-4)
