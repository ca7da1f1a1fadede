"""Metrics against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from training.metrics import bss_eval, energy_left, sdr, sdr_improvement, si_sdr, si_sdr_improvement


def orthogonal(n_samples: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sounds of equal power, without mean, that do not correlate."""
    phase = 2 * math.pi * torch.arange(n_samples, dtype=torch.float64) / n_samples
    return torch.sin(5 * phase), torch.cos(5 * phase)


def test_sdr_is_the_ratio_of_the_powers_of_target_and_error() -> None:
    target, noise = orthogonal()
    assert float(sdr(target=target, estimate=target + 0.1 * noise)) == pytest.approx(20.0, abs=1e-6)
    assert float(sdr(target=target, estimate=0.5 * target)) == pytest.approx(
        20 * math.log10(2), abs=1e-6
    )  # not forgiven
    assert float(sdr(target=target, estimate=target + 0.1)) == pytest.approx(10 * math.log10(0.5 / 0.01), abs=1e-6)


def test_sdr_epsilon_bounds_silence_and_perfection() -> None:
    target, _ = orthogonal()
    silence = torch.zeros_like(target)
    assert float(sdr(target=silence, estimate=silence)) == 0.0
    assert float(sdr(target=target, estimate=target)) == pytest.approx(10 * math.log10(0.5 / 1e-12), abs=1e-6)
    assert float(sdr(target=target, estimate=silence)) == pytest.approx(0.0, abs=1e-9)
    assert float(sdr(target=silence, estimate=target)) == pytest.approx(-10 * math.log10(0.5 / 1e-12), abs=1e-6)


def test_the_mixture_improves_by_nothing() -> None:
    target, noise = orthogonal()
    mixture = target + 2 * noise
    assert float(sdr_improvement(target=target, estimate=mixture, mixture=mixture)) == 0.0
    assert float(si_sdr_improvement(target=target, estimate=mixture, mixture=mixture)) == 0.0
    better = target + 0.2 * noise
    assert float(sdr_improvement(target=target, estimate=better, mixture=mixture)) == pytest.approx(20.0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 0.5, 1.0, -3.0, 1e3])
def test_si_sdr_knows_no_scale(scale: float) -> None:
    target, noise = orthogonal()
    estimate = scale * (target + 0.1 * noise)
    assert float(si_sdr(target=target, estimate=estimate)) == pytest.approx(20.0, abs=1e-4)
    assert float(si_sdr(target=scale * target, estimate=target + 0.1 * noise)) == pytest.approx(20.0, abs=1e-4)


def test_si_sdr_is_bounded_by_its_epsilon() -> None:
    target, noise = orthogonal()
    silence = torch.zeros_like(target)
    assert float(si_sdr(target=target, estimate=2 * target)) == pytest.approx(100.0, abs=1e-3)
    for poor in (noise, silence):
        assert float(si_sdr(target=target, estimate=poor)) == pytest.approx(-100.0, abs=1e-3)
    assert float(si_sdr(target=silence, estimate=target)) == pytest.approx(-100.0, abs=1e-3)


def test_the_mean_counts_unless_told_otherwise() -> None:
    target, _ = orthogonal()
    estimate = target + 0.1
    assert float(si_sdr(target=target, estimate=estimate)) == pytest.approx(10 * math.log10(0.5 / 0.01), abs=1e-6)
    assert float(si_sdr(target=target, estimate=estimate, zero_mean=True)) == pytest.approx(100.0, abs=1e-3)


def test_energy_left_is_relative_to_the_mixture() -> None:
    mixture, noise = orthogonal()
    assert float(energy_left(estimate=mixture, mixture=mixture)) == 0.0
    assert float(energy_left(estimate=0.01 * noise, mixture=mixture)) == pytest.approx(-40.0, abs=1e-4)
    assert float(energy_left(estimate=0 * noise, mixture=mixture)) == pytest.approx(-10 * math.log10(0.5e12), abs=1e-6)


def test_a_batch_is_its_rows_and_float32_is_computed_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 3, 500, generator=generator)
    estimate = target + 0.3 * noise
    for metric in (sdr, si_sdr):
        rows = torch.stack([metric(target=target[i], estimate=estimate[i]) for i in range(3)])
        assert rows.dtype == torch.float64
        torch.testing.assert_close(metric(target=target, estimate=estimate), rows)


def test_bss_eval_parts_interference_from_artefacts() -> None:
    generator = torch.Generator().manual_seed(1)
    targets, noise = torch.randn(2, 2, 8000, generator=generator, dtype=torch.float64)
    leak = targets + 0.1 * targets.flip(0)
    noisy = targets + 0.1 * noise
    leaking = bss_eval(targets=targets, estimates=leak, filter_length=16)
    torch.testing.assert_close(leaking.sir, torch.full((2,), 20.0, dtype=torch.float64), atol=0.3, rtol=0)
    assert (leaking.sar > 60).all()
    noised = bss_eval(targets=targets, estimates=noisy, filter_length=16)
    torch.testing.assert_close(noised.sar, torch.full((2,), 20.0, dtype=torch.float64), atol=0.3, rtol=0)
    assert (noised.sir > 30).all()


def test_bss_eval_forgives_a_filter_but_not_an_exchange() -> None:
    generator = torch.Generator().manual_seed(2)
    targets = torch.randn(2, 8000, generator=generator, dtype=torch.float64)
    delayed = 0.5 * torch.roll(targets, 3, dims=1)
    delayed[:, :3] = 0
    assert (bss_eval(targets=targets, estimates=delayed, filter_length=16).sdr > 30).all()
    assert (sdr(target=targets, estimate=delayed) < 1).all()
    assert (bss_eval(targets=targets, estimates=targets.flip(0), filter_length=16).sdr < -10).all()


def test_bss_eval_is_not_defined_for_silence() -> None:
    generator = torch.Generator().manual_seed(3)
    sounds = torch.randn(2, 4000, generator=generator)
    gone = sounds * torch.tensor([[1.0], [0.0]])
    for scores in (
        bss_eval(targets=gone, estimates=sounds, filter_length=16),
        bss_eval(targets=sounds, estimates=gone, filter_length=16),
    ):
        for values in scores:
            assert values.isnan().tolist() == [False, True]


def test_bss_eval_holds_on_two_threads_and_leaves_their_number_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tone, noise = (
            orthogonal()[0],
            torch.randn(4000, generator=torch.Generator().manual_seed(4), dtype=torch.float64),
        )
        targets = torch.stack([tone, noise])
        assert (bss_eval(targets=targets, estimates=targets + 0.1 * targets.flip(0)).sar > 40).all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_bss_eval_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"\[S, T\] alike, got \[2, 10\] and \[1, 10\]"):
        bss_eval(targets=torch.ones(2, 10), estimates=torch.ones(1, 10))
