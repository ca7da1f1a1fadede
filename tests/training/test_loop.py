"""The loop: learns, resumes exactly after a kill, and refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training import checkpoint
from training.config import OptimiserConfig
from training.loop import Average, learning_rate
from training.train import main

CONFIG = """
sounds = "{sounds}"
cache = "{cache}"
embedder = "{table}"
steps = {steps}
checkpoint_every = 2
validate_every = 4
validation_limit = 2
threads = 1
bf16 = false

[network]
channels = [4, 6, 8]
head_levels = 2
decoder_channels = [4, 6]
mask_maps = 2
attention_heads = 2
embedding_features = 8

[signal]
frame_multiple = 8

[mixing]
seconds = 0.63
batch = 2
source_counts = [0, 1]
absent = 0.0

[optimiser]
warmup_steps = 2
learning_rate = 0.02
"""


def configure(folder: Path, sounds: Path, steps: int) -> Path:
    phrases = [p for group in json.loads((sounds / "phrases.json").read_text()).values() for p in group]
    vectors = np.random.default_rng(0).normal(size=(len(phrases), 8)).astype(np.float32)
    np.savez(folder / "table.npz", phrases=np.array(phrases), pooled=vectors)
    path = folder / f"config-{steps}.toml"
    path.write_text(CONFIG.format(sounds=sounds, cache=folder / "cache", table=folder / "table.npz", steps=steps))
    return path


def test_a_killed_run_goes_on_as_if_nothing_had_been(toy_sounds: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    config = configure(tmp_path, toy_sounds, 6)
    assert main([str(config), "--out", str(whole)]) == 0

    class Killed(Exception):
        pass

    calls = 0

    def die(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Killed

    from training import loop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        step = loop.Loop._step

        def stepped(self: loop.Loop, batch: object) -> object:
            die()
            return step(self, batch)

        patch.setattr(loop.Loop, "_step", stepped)
        main([str(config), "--out", str(cut)])
    assert checkpoint.load(cut / "checkpoint.pt")["step"] == 4
    assert main([str(config), "--out", str(cut)]) == 0
    first, second = (checkpoint.load(run / "checkpoint.pt") for run in (whole, cut))
    assert first["step"] == second["step"] == 6
    for name, value in first["model"].items():
        assert torch.allclose(value, second["model"][name], atol=1e-6), name
    for name, value in first["ema"].items():
        assert torch.allclose(value, second["ema"][name], atol=1e-6), name


def test_a_checkpoint_loads_for_inference_and_a_stray_file_is_refused(toy_sounds: Path, tmp_path: Path) -> None:
    assert main([str(configure(tmp_path, toy_sounds, 2)), "--out", str(tmp_path / "run")]) == 0
    network, spec, signal = checkpoint.load_separator(tmp_path / "run" / "checkpoint.pt")
    assert not network.training and spec.channels == (4, 6, 8) and signal.frame_multiple == 8
    with torch.no_grad():
        mask = network(torch.rand(1, 128, 16), torch.randn(1, 2, 8))
    assert mask.shape == (1, 2, 128, 16) and 0 <= float(mask.min()) <= float(mask.max()) <= 1
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoint.load_separator(tmp_path / "missing.pt")
    torch.save({"format": 99}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match="99"):
        checkpoint.load_separator(tmp_path / "old.pt")


def test_another_network_does_not_resume_the_run(
    toy_sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, toy_sounds, 2)
    assert main([str(config), "--out", str(tmp_path / "run")]) == 0
    config.write_text(config.read_text().replace("mask_maps = 2", "mask_maps = 3"))
    assert main([str(config), "--out", str(tmp_path / "run")]) == 2
    assert "another network" in capsys.readouterr().err


def test_learning_raises_the_validation_figure(toy_sounds: Path, tmp_path: Path) -> None:
    config = configure(tmp_path, toy_sounds, 60)
    config.write_text(config.read_text().replace("batch = 2", "batch = 8").replace("= 4\n", "= 20\n"))
    assert main([str(config), "--out", str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    heard = [row["sdri_toys"] for row in rows if "sdri_toys" in row]
    assert len(heard) == 3 and heard[-1] > heard[0] + 0.1
    assert all(row["negative_sdr"] > -30 for row in rows if "negative_sdr" in row)


def test_the_learning_rate_is_a_trapezoid() -> None:
    config = OptimiserConfig(learning_rate=1.0, warmup_steps=10, cooldown=0.5)
    assert learning_rate(0, 100, config) == pytest.approx(0.1)
    assert learning_rate(20, 100, config) == 1.0
    assert learning_rate(75, 100, config) == pytest.approx(0.5)
    assert learning_rate(100, 100, config) == 0.0


def test_the_average_of_a_constant_is_the_constant() -> None:
    module = torch.nn.Linear(2, 2)
    average = Average(module, 0.99)
    for step in range(5):
        average.update(module, step)
    assert torch.allclose(average.state["weight"], module.weight, atol=1e-6)
