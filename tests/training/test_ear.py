"""The ear: gradients pass through it to the mask and stop at none of its weights."""

from __future__ import annotations

import pytest
import torch

from model.embedder.audio import AudioConfig
from model.embedder.compact import CompactEmbedder
from model.embedder.text import TextConfig, TextTokenizer
from model.layers import BandAnalysis
from tests.training.toy_parts import RATE, SIGNAL, TONES, ToneEar, tone
from training.ear import Ear, Heard


def embedder() -> CompactEmbedder:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(TONES, vocabulary=60, max_tokens=12)
    text = TextConfig(
        vocabulary=len(tokenizer), table_features=8, features=8, layers=1, heads=2, max_tokens=12, embedding_features=16
    )
    audio = AudioConfig(n_bands=64, channels=(4, 4, 8, 8, 8), hidden=16, pooling_heads=2, embedding_features=16)
    made = CompactEmbedder(tokenizer, text, audio, SIGNAL)
    with torch.no_grad():  # a tower whose output depends on its input, as a trained one's does
        for parameter in made.audio_tower.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return made.train()


def heard() -> tuple[BandAnalysis, Heard, torch.Tensor]:
    analysis = BandAnalysis(SIGNAL, RATE)
    torch.manual_seed(1)
    waveforms = torch.stack([torch.from_numpy(tone(3)), torch.from_numpy(tone(7))]) + 0.05 * torch.randn(2, 12_800)
    spectrum, bands = analysis(waveforms)
    slopes = torch.stack([torch.linspace(0.1, 0.9, 64), torch.linspace(0.9, 0.1, 64), 0.5 + torch.zeros(64)])
    return analysis, Heard(spectrum, bands, 12_800), slopes[None, :, :, None].expand(2, -1, -1, bands.shape[-1])


@pytest.mark.parametrize("kind", ["compact", "waveform"])
def test_the_gradient_reaches_the_mask_and_no_weight(kind: str) -> None:
    analysis, sounds, mask = heard()
    made = embedder()
    ear = Ear(made if kind == "compact" else ToneEar(), analysis, bf16=False)
    mask = mask.clone().requires_grad_(True)
    vectors = ear.listen(sounds, mask)
    assert vectors.shape[:2] == (2, 3) and torch.allclose(vectors.norm(dim=-1), torch.ones(2, 3), atol=1e-5)
    vectors[..., 0].sum().backward()
    assert mask.grad is not None and torch.isfinite(mask.grad).all()
    assert (mask.grad.abs().sum(dim=(2, 3)) > 0).all()
    assert all(parameter.grad is None for parameter in made.parameters())
    if kind == "compact":
        assert not any(parameter.requires_grad for parameter in made.parameters())


def test_it_listens_in_evaluation_mode_and_gives_the_same_twice() -> None:
    analysis, sounds, mask = heard()
    made = embedder()
    ear = Ear(made, analysis, bf16=False)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    assert not any(module.training for module in made.modules())
    assert torch.equal(ear.listen(sounds, mask), ear.listen(sounds, mask))
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in before.items())


def test_masked_bands_are_heard_as_the_synthesised_sound_is() -> None:
    analysis, sounds, mask = heard()
    made = embedder()
    vectors = Ear(made, analysis, bf16=False).listen(sounds, mask)
    spectra = sounds.spectrum.repeat_interleave(3, dim=0)
    with torch.no_grad():
        waveforms = analysis.synthesise(spectra, mask.flatten(0, 1), sounds.n_samples)
        direct = made.audio(waveforms, RATE).unflatten(0, (2, 3))
    assert float((vectors * direct).sum(dim=-1).min()) > 0.95


def test_predictions_are_told_apart_and_rows_stay_in_order() -> None:
    analysis, sounds, mask = heard()
    ear = Ear(embedder(), analysis, bf16=False)
    together = ear.listen(sounds, mask)
    for row in range(2):
        alone = Heard(sounds.spectrum[row : row + 1], sounds.bands[row : row + 1], sounds.n_samples)
        for place in range(3):
            own = ear.listen(alone, mask[row : row + 1, place : place + 1])
            assert torch.allclose(own[0, 0], together[row, place], atol=1e-5)


def test_colour_is_a_gain_within_its_limit_and_new_each_time() -> None:
    analysis, _, _ = heard()
    ear = Ear(embedder(), analysis, bf16=False, colour_db=6.0)
    torch.manual_seed(0)
    curves = 20 * torch.log10(torch.cat([ear._colour(torch.ones(5, 64, 3)) for _ in range(20)]))
    assert curves.shape[1:] == (64, 1) and float(curves.abs().max()) <= 6.0
    assert float(curves.std(dim=0).min()) > 1.0
    assert float((curves[:, 1:] - curves[:, :-1]).abs().max()) < 1.0, "smooth over the bands"
