"""Energies from masks alone against sums over the masked transform, and against waveforms."""

from __future__ import annotations

import pytest
import torch

from model.layers import BandAnalysis
from model.paper import paper_spec
from model.spec import SignalSpec
from training.energies import MaskEnergies

SIGNALS = {
    "shipped": (SignalSpec(), 32_000),
    "low rate": (SignalSpec(), 16_000),
    "few bands": (SignalSpec(n_bands=24), 32_000),
    "paper": (paper_spec()[1], 16_000),
}


def case(name: str, *, n_frames: int = 20) -> tuple[BandAnalysis, torch.Tensor, torch.Tensor, torch.Tensor]:
    """An analysis, random spectra ``[B, F, N]`` and ``[B, S, F, N]``, and random masks ``[B, S, K, N]``."""
    torch.manual_seed(0)
    signal, rate = SIGNALS[name]
    analysis = BandAnalysis(signal, rate)
    n_bins = analysis.n_fft // 2 + 1
    targets = torch.randn(2, 3, n_bins, n_frames, dtype=torch.complex64)
    return analysis, targets.sum(dim=1), targets, torch.rand(2, 3, signal.n_bands, n_frames)


def masked(analysis: BandAnalysis, spectrum: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The masked spectra ``[B, P, F', N]``, bin by bin, of the bins that the network sees."""
    n_bins = min(analysis.signal.n_bins, spectrum.shape[-2])
    spread = torch.einsum("kf,bpkn->bpfn", analysis.filters[:, :n_bins], mask)
    return spectrum[:, None, :n_bins] * spread


@pytest.mark.parametrize("name", SIGNALS)
def test_energies_are_those_of_the_masked_transform(name: str) -> None:
    analysis, spectrum, targets, mask = case(name)
    energies = MaskEnergies(analysis, spectrum, targets)
    estimates = masked(analysis, spectrum, mask)
    torch.testing.assert_close(energies.estimate(mask), estimates.abs().square().sum(dim=(-2, -1)), rtol=1e-4, atol=0.0)
    left = (estimates - targets[:, :, : estimates.shape[-2]]).abs().square().sum(dim=(-2, -1))
    torch.testing.assert_close(energies.error(mask), left, rtol=1e-4, atol=0.0)


def test_a_mask_of_ones_keeps_everything_and_one_of_zeros_nothing() -> None:
    analysis, spectrum, targets, mask = case("shipped")
    energies = MaskEnergies(analysis, spectrum, targets)
    whole = energies.estimate(torch.ones_like(mask))
    torch.testing.assert_close(whole, energies.mixture[:, None].expand_as(whole), rtol=1e-5, atol=0.0)
    assert not energies.estimate(torch.zeros_like(mask)).any()
    torch.testing.assert_close(energies.error(torch.zeros_like(mask)), energies.target)


def test_the_mixture_itself_is_reached_without_error_and_never_below() -> None:
    analysis, spectrum, _, mask = case("shipped")
    energies = MaskEnergies(analysis, spectrum, spectrum[:, None])
    error = energies.error(torch.ones_like(mask[:, :1]))
    assert (error >= 0).all() and (error <= 1e-5 * energies.mixture[:, None]).all()


def test_a_part_of_the_targets_weighs_for_itself() -> None:
    analysis, spectrum, targets, mask = case("few bands")
    both = MaskEnergies(analysis, spectrum, targets).error(mask)
    one = MaskEnergies(analysis, spectrum, targets[:, 1:2]).error(mask[:, 1:2])
    torch.testing.assert_close(both[:, 1:2], one)


@pytest.mark.parametrize("name", ["shipped", "paper"])
def test_they_are_close_to_those_of_the_synthesised_waveforms(name: str) -> None:
    torch.manual_seed(2)
    signal, rate = SIGNALS[name]
    analysis = BandAnalysis(signal, rate)
    time = torch.arange(rate) / rate
    sweep = torch.sin(2 * torch.pi * (200.0 + 900.0 * time) * time)
    hiss = 0.3 * torch.randn(rate)
    sounds = torch.stack([sweep, hiss])[None]
    mixture = sounds.sum(dim=1)
    spectrum, _ = analysis(mixture)
    targets = analysis.transform(sounds)
    n_bins = min(signal.n_bins, spectrum.shape[-2])
    ratio = targets.abs()[..., :n_bins, :] / targets.abs()[..., :n_bins, :].sum(dim=1, keepdim=True)
    mask = torch.einsum("kf,bpfn->bpkn", analysis.filters[:, :n_bins], ratio) / analysis.filters.sum(dim=1)[:, None]
    # As smooth in time as networks give; for a mask that jumps with every frame of a hiss it is 1 dB.
    mask = torch.nn.functional.avg_pool2d(mask, (1, 9), stride=1, padding=(0, 4), count_include_pad=False)
    estimate = analysis.synthesise(spectrum.repeat_interleave(2, dim=0), mask[0], rate)
    error = (estimate - sounds[0]).square().sum(dim=-1)
    energies = MaskEnergies(analysis, spectrum, targets)
    relative = 10 * torch.log10(energies.error(mask)[0] / energies.target[0])
    heard = 10 * torch.log10(error / sounds[0].square().sum(dim=-1))
    assert (relative - heard).abs().max() < 0.5


def test_gradients_are_finite_and_are_the_quadratic_forms_own() -> None:
    analysis, spectrum, targets, mask = case("few bands")
    mask.requires_grad_(True)
    energies = MaskEnergies(analysis, spectrum, targets)
    (gradient,) = torch.autograd.grad(energies.error(mask).sum(), mask)
    (direct,) = torch.autograd.grad((masked(analysis, spectrum, mask) - targets[:, :, :640]).abs().square().sum(), mask)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(gradient, direct, rtol=1e-3, atol=1e-3 * float(direct.abs().max()))


def test_silence_gives_no_energy_and_a_finite_gradient() -> None:
    analysis, spectrum, targets, mask = case("few bands")
    mask.requires_grad_(True)
    energies = MaskEnergies(analysis, torch.zeros_like(spectrum), torch.zeros_like(targets))
    energies.error(mask).sum().backward()
    assert not energies.error(mask).any() and mask.grad is not None and torch.isfinite(mask.grad).all()
