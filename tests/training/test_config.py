"""Configs are strict: a wrong key or type is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import TrainConfig, read_config
from training.modes import MODES

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.toml"))


def test_the_shipped_recipe_reads() -> None:
    base = next(path for path in CONFIGS if path.stem == "base")
    config = read_config(TrainConfig, base)
    assert config.network.kind == "base" and config.mixing.shares is not None
    assert sum(config.mixing.shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stepps = 3", "stepps"),
        ("steps = 'many'", "steps"),
        ("[network]\nkind = 'other'", "other"),
        ("[mixing]\nx = 1", "x"),
        ("[weak]\nreconstruction = 'l2'", r"weak\.reconstruction .* 'l2'"),
        ("[weak]\ncontrastive = 'triplet'", r"weak\.contrastive .* 'triplet'"),
        ("[weak_mixing]\nsources = 2", "sources"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=named):
        read_config(TrainConfig, path)


def test_overrides_win_and_none_is_no_override(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("steps = 5")
    assert read_config(TrainConfig, path, {"steps": 9, "seed": None}).steps == 9
    assert read_config(TrainConfig, path, {"steps": None}).steps == 5
    with pytest.raises(ValueError, match="no config file"):
        read_config(TrainConfig, tmp_path / "missing.toml")


def test_the_losses_and_the_weak_sections_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("mode = 'weak'\n[weak_losses]\nurl = 1\ncnt = 0.1\n[weak]\ngain = true\n[weak_mixing]\nheld = 4\n")
    config = read_config(TrainConfig, path)
    assert config.weak_losses == {"url": 1.0, "cnt": 0.1} and config.weak.gain and config.weak_mixing.held == 4
    assert TrainConfig().weak_losses == {"url": 1.0}


@pytest.mark.parametrize("name", ["base", "weak", "student", "semi", "losses", "paper", "laion"])
def test_every_shipped_config_is_read(name: str) -> None:
    config = read_config(TrainConfig, Path(__file__).parents[2] / "training" / "configs" / f"{name}.toml")
    assert config.mode in MODES
    assert (config.mode == "supervised") == (not config.recordings)
