"""Both towers: what padding, level, batch and length may not change.

tests/model/test_export.py exports them and runs the graphs at other sizes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.embedder import Embedder
from model.embedder.audio import AudioConfig, AudioTower, operations
from model.embedder.compact import CompactEmbedder
from model.embedder.text import TextConfig, TextTokenizer
from model.spec import SignalSpec

TEXTS = ["a dog barks", "the sound of rain falling on a roof", "piano", "someone plays the piano in the rain"]
TEXT = TextConfig(vocabulary=80, table_features=8, features=16, layers=2, heads=2, max_tokens=12, embedding_features=8)
AUDIO = AudioConfig(channels=(4, 6, 8, 8, 8), hidden=16, pooling_heads=4, embedding_features=8)


@pytest.fixture(scope="module")
def embedder() -> CompactEmbedder:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(TEXTS, vocabulary=TEXT.vocabulary, max_tokens=TEXT.max_tokens)
    made = CompactEmbedder(tokenizer, TEXT, AUDIO, SignalSpec()).eval()
    for module in made.audio_tower.modules():  # as if trained, so that normalisation is no identity
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return made


def test_is_an_embedder(embedder: CompactEmbedder) -> None:
    assert isinstance(embedder, Embedder)


def test_padding_does_not_change_a_sentence(embedder: CompactEmbedder) -> None:
    _, _, alone = embedder.text(["piano"])
    tokens, padding, together = embedder.text(["piano", TEXTS[1]])
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=0)
    assert padding[0].sum() > 0 and padding[1].sum() == 0
    assert tokens.shape == (2, padding.shape[1], 8)


def test_text_batch_of_three_equals_batch_of_one(embedder: CompactEmbedder) -> None:
    _, _, together = embedder.text(TEXTS[:3])
    alone = torch.cat([embedder.text([text])[2] for text in TEXTS[:3]])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_case_and_blanks_do_not_matter_and_unknown_or_empty_text_embeds(embedder: CompactEmbedder) -> None:
    _, _, pooled = embedder.text(["Piano", " piano ", "\u9ede", ""])
    torch.testing.assert_close(pooled[0], pooled[1])
    assert torch.isfinite(pooled).all()


def test_a_long_text_is_cut_at_max_tokens(embedder: CompactEmbedder) -> None:
    tokens, _, _ = embedder.text(["rain " * 100])
    assert tokens.shape[1] == TEXT.max_tokens


def test_no_prompt_is_refused(embedder: CompactEmbedder) -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        embedder.text([])


def test_audio_ignores_the_level(embedder: CompactEmbedder) -> None:
    sound = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(1)) * 0.1
    loud, quiet = embedder.audio(sound, 32_000), embedder.audio(sound * 0.05, 32_000)
    torch.testing.assert_close(loud, quiet, atol=2e-3, rtol=0)
    torch.testing.assert_close(loud.norm(dim=1), torch.ones(2))


def test_audio_batch_of_three_equals_batch_of_one(embedder: CompactEmbedder) -> None:
    sounds = torch.randn(3, 9_000, generator=torch.Generator().manual_seed(2)) * 0.1
    alone = torch.cat([embedder.audio(sound[None], 32_000) for sound in sounds])
    torch.testing.assert_close(embedder.audio(sounds, 32_000), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_samples", [1, 1_000, 40_000])
def test_audio_takes_any_length_and_silence(embedder: CompactEmbedder, n_samples: int) -> None:
    vector = embedder.audio(torch.zeros(1, n_samples), 32_000)
    assert torch.isfinite(vector).all()
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(1))


def test_audio_at_other_rates_is_alike(embedder: CompactEmbedder) -> None:
    vectors = []
    for rate in (32_000, 48_000):
        time = torch.arange(rate) / rate
        vectors.append(embedder.audio((0.3 * torch.sin(2 * torch.pi * 440 * time))[None], rate))
    assert (vectors[0] * vectors[1]).sum() > 0.999


def test_gradient_reaches_the_waveform(embedder: CompactEmbedder) -> None:
    sound = (torch.randn(1, 9_000, generator=torch.Generator().manual_seed(3)) * 0.1).requires_grad_()
    (embedder.audio(sound, 32_000) @ embedder.text(["piano"])[2].t()).sum().backward()
    assert sound.grad is not None and torch.isfinite(sound.grad).all()
    assert (sound.grad.abs() > 0).float().mean() > 0.9


def test_saved_equals_loaded(embedder: CompactEmbedder, tmp_path: Path) -> None:
    embedder.save(tmp_path)
    loaded = CompactEmbedder.load(tmp_path)
    torch.testing.assert_close(loaded.text(TEXTS)[2], embedder.text(TEXTS)[2], atol=0, rtol=0)
    bands = torch.rand(1, 128, 40)
    torch.testing.assert_close(loaded.audio_tower(bands), embedder.audio_tower(bands), atol=0, rtol=0)
    assert loaded.spec == embedder.spec
    assert loaded.spec.logit_scale == pytest.approx(20.0, abs=1e-3)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks embedder\.json"):
        CompactEmbedder.load(tmp_path)


def test_towers_must_agree_in_size(embedder: CompactEmbedder) -> None:
    with pytest.raises(ValueError, match="got 8 and 16"):
        CompactEmbedder(embedder.tokenizer, TEXT, AudioConfig(embedding_features=16), SignalSpec())


def test_the_audio_tower_costs_a_third_of_the_separator() -> None:
    # The separator takes 0.31 GFLOP a second of audio.
    assert operations(AudioConfig(), 5.12) / 5.12 <= 0.11e9
    assert sum(weight.numel() for weight in AudioTower(AudioConfig()).parameters()) < 1_000_000
