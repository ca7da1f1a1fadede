"""Training with LAION-CLAP: its phrases ask the separator, and as an ear it sends a gradient to the mask."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from model.layers import BandAnalysis
from model.spec import SignalSpec
from tests.toy_laion import TEXTS, some_sound, toy_folder, toy_laion
from training import checkpoint
from training.config import TrainConfig, read_config
from training.dataset import Pack
from training.ear import Ear, Heard
from training.prompts import PromptTable
from training.rendered import render_list
from training.train import train
from training.weak import WeakConfig
from training.weak_mixing import WeakMixingConfig

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "laion.toml"


def small(sounds: Path, folder: Path) -> TrainConfig:
    """The config as it is but for its sizes."""
    config = read_config(TrainConfig, CONFIG)
    assert (config.network.token_features, config.network.embedding_features) == (768, 512)
    return dataclasses.replace(
        config,
        sounds=str(sounds),
        cache=str(folder / "cache"),
        embedder=str(toy_folder()),
        out=str(folder / "run"),
        steps=3,
        checkpoint_every=1,
        validate_every=3,
        validation_limit=1,
        threads=1,
        device="cpu",
        bf16=False,
        signal=dataclasses.replace(config.signal, frame_multiple=8),
        network=dataclasses.replace(
            config.network, channels=(4, 6, 8), head_levels=2, decoder_channels=(4, 6), mask_maps=2, attention_heads=2
        ),
        mixing=dataclasses.replace(config.mixing, batch=2, seconds=0.63, source_counts=(0.0, 1.0), shares={}),
    )


def test_the_config_trains_end_to_end(toy_sounds: Path, tmp_path: Path) -> None:
    train(small(toy_sounds, tmp_path))
    separator, network, _ = checkpoint.load_separator(tmp_path / "run" / "checkpoint.pt")
    assert network.conditioning == "attention"
    tokens, padding, pooled = (part[None] for part in toy_laion().text(["low tone", "hiss"]))
    with torch.no_grad():
        mask = separator(torch.rand(1, 128, 16), pooled, tokens, padding)
    assert mask.shape == (1, 2, 128, 16) and torch.isfinite(mask).all()


def test_weak_training_listens_with_it(toy_sounds: Path, toy_pack: Pack, tmp_path: Path) -> None:
    render_list(toy_sounds / "mixtures-valid-2.jsonl", toy_pack, tmp_path / "mixtures")
    config = dataclasses.replace(
        small(toy_sounds, tmp_path),
        mode="weak",
        recordings=str(tmp_path / "mixtures"),
        weak_losses={"url": 1.0, "cnt": 1.0, "crl": 1.0},
        weak=WeakConfig(warmup=0.0, ramp=0.0, same=1.0, alike=1.0),
        weak_mixing=WeakMixingConfig(seconds=0.63, batch=1, phrases=2, alike=1.1),
    )
    train(config)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    told = [row["cnt"] for row in log if "cnt" in row]
    assert len(told) == 2 and all(value > 0 for value in told)  # it ramps in from nothing


def test_the_table_holds_what_the_embedder_says() -> None:
    table, laion = PromptTable.build(toy_folder(), TEXTS), toy_laion()
    pooled, tokens, padding = table.lookup([[TEXTS[0]], [TEXTS[3]]])
    wanted_tokens, wanted_padding, wanted = laion.text([TEXTS[0], TEXTS[3]])
    torch.testing.assert_close(pooled[:, 0], wanted, atol=1e-5, rtol=0)
    assert tokens is not None and padding is not None
    seen, wanted_seen = ~padding[:, 0], ~wanted_padding
    torch.testing.assert_close(tokens[:, 0][seen], wanted_tokens[wanted_seen], atol=1e-4, rtol=0)


def test_as_an_ear_it_hears_the_masked_waveform() -> None:
    laion, signal = toy_laion(), SignalSpec()
    analysis = BandAnalysis(signal, 32_000)
    mixture = some_sound(32_000, rate=32_000)
    spectrum, bands = analysis(mixture)
    mask = torch.ones(2, 1, *bands.shape[1:], requires_grad=True)
    ear = Ear(laion, analysis, bf16=False)
    heard = ear.listen(Heard(spectrum, bands, 32_000), mask)
    torch.testing.assert_close(heard[:, 0], laion.audio(mixture, 32_000), atol=1e-3, rtol=0)
    heard[:, 0, 0].sum().backward()
    assert mask.grad is not None and torch.isfinite(mask.grad).all()
    assert (mask.grad != 0).float().mean() > 0.9
    assert float(ear.logit_scale) == pytest.approx(1 / 0.07, rel=1e-5)
