"""The torch front end against torch's own STFT, and the blocks against what they must leave alone."""

import math

import pytest
import torch

from model.layers import BandAnalysis, CrossAttention, ResidualBlock, SelfAttention
from model.spec import SignalSpec

SIGNAL = SignalSpec()


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_sine_reads_as_its_amplitude_at_every_rate() -> None:
    for sample_rate in (16_000, 32_000, 48_000):
        time_s = torch.arange(sample_rate) / sample_rate
        waveform = 0.25 * torch.sin(2.0 * math.pi * 1000.0 * time_s)
        spectrum, _ = BandAnalysis(SIGNAL, sample_rate)(waveform[None])
        assert spectrum[0, 40, 50].abs() == pytest.approx(0.25, rel=1e-4)


def test_the_spectrum_is_torchs_scaled_by_the_window() -> None:
    waveform = noise(2, 10_000)
    spectrum, bands = BandAnalysis(SIGNAL, 32_000)(waveform)
    window = torch.hann_window(1280)
    expected = torch.stft(waveform, 1280, 320, window=window, pad_mode="constant", return_complex=True)
    torch.testing.assert_close(spectrum, expected * 2.0 / window.sum())
    assert spectrum.shape == (2, 641, 10_000 // 320 + 1)
    assert bands.shape == (2, 128, 10_000 // 320 + 1)


def test_bands_keep_the_energy_of_the_bins() -> None:
    spectrum, bands = BandAnalysis(SIGNAL)(noise(1, 16_000))
    torch.testing.assert_close(bands.square().sum(1), spectrum[:, :640].abs().square().sum(1), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 32_000, 48_000])
@pytest.mark.parametrize("n_samples", [1, 1_279, 9_999])
def test_a_mask_of_ones_returns_the_waveform(sample_rate: int, n_samples: int) -> None:
    analysis = BandAnalysis(SIGNAL, sample_rate)
    waveform = noise(2, n_samples)
    spectrum, bands = analysis(waveform)
    restored = analysis.synthesise(spectrum, torch.ones_like(bands), n_samples)
    torch.testing.assert_close(restored, waveform, atol=1e-6, rtol=0)


def test_below_the_bandwidth_the_missing_bands_are_silent() -> None:
    _, bands = BandAnalysis(SIGNAL, 8_000)(noise(1, 8_000))
    assert bands[:, :80].mean() > 1e-4
    assert bands[:, -10:].max() <= 1.1e-6


def test_a_rate_without_a_whole_hop_is_refused() -> None:
    with pytest.raises(ValueError, match="22050"):
        BandAnalysis(SIGNAL, 22_050)


def test_silence_has_a_finite_slope() -> None:
    waveform = torch.zeros(1, 3_200, requires_grad=True)
    BandAnalysis(SIGNAL)(waveform)[1].sum().backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()


def test_a_new_residual_block_is_a_rectifier() -> None:
    x = noise(2, 8, 6, 4)
    torch.testing.assert_close(ResidualBlock(8).eval()(x), x.relu())


@torch.no_grad()
def test_film_of_zeros_changes_nothing() -> None:
    block = ResidualBlock(8).eval()
    torch.nn.init.ones_(block.second[1].weight)
    x = noise(2, 8, 6, 4)
    zeros = torch.zeros(2, 8)
    torch.testing.assert_close(block(x, (zeros, zeros)), block(x))


@torch.no_grad()
def test_attention_follows_its_positions() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(8, 2)
    torch.nn.init.normal_(attention.out.weight)
    x = noise(1, 8, 3, 5)
    torch.testing.assert_close(attention(x.flip(3)), attention(x).flip(3), atol=1e-5, rtol=0)
    assert (attention(x) - x).abs().max() > 1e-2


@torch.no_grad()
def test_attention_to_one_token_adds_the_same_everywhere() -> None:
    torch.manual_seed(0)
    cross = CrossAttention(8, 6, 2)
    x = noise(1, 8, 3, 5)
    added = cross(x, noise(1, 1, 6), torch.zeros(1, 1, dtype=torch.bool)) - x
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), atol=1e-5, rtol=0)
