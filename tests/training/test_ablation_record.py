"""Records: what was made with one config is not gone on with under another; configs written are configs read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import checkpoint
from training.ablation_record import claim, differences, write_toml
from training.config import TrainConfig, read_config

_values = st.one_of(
    st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)  # fmt: skip
_tables = st.recursive(
    st.dictionaries(st.text(max_size=5), st.one_of(_values, st.lists(st.integers(0, 9), max_size=3)), max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=5), st.one_of(_values, inner), max_size=3),
    max_leaves=8,
)


@settings(deadline=None)  # a shared machine pauses for longer than any example takes
@given(_tables)
def test_what_is_written_as_toml_is_read_again(table: dict[str, Any]) -> None:
    assert tomllib.loads(write_toml(table)) == table


def test_a_config_survives_the_file(tmp_path: Path) -> None:
    values = {
        "mode": "weak",
        "weak_losses": {"url": 1.0, "cnt": 4},
        "mixing": {"shares": None, "source_counts": [0, 1]},
    }
    (tmp_path / "config.toml").write_text(write_toml(values))
    assert read_config(TrainConfig, tmp_path / "config.toml") == read_config(TrainConfig, None, values)
    with pytest.raises(ValueError, match="TOML"):
        write_toml({"a": object()})


def test_differences_are_of_what_matters() -> None:
    usual = {"config": {"steps": 10, "rate": 1.0, "new": 3}}
    old = {"config": {"steps": 10, "rate": 1.0, "out": "a", "threads": 2}}
    assert differences(old, {"config": {"steps": 10, "rate": 1.0, "out": "b", "threads": 4, "new": 3}}, usual) == []
    assert differences(old, {"config": {"steps": 10, "rate": 2.0, "new": 4}}, usual) == [
        "config.new: 3 -> 4",
        "config.rate: 1.0 -> 2.0",
    ]


def test_a_folder_is_claimed_once_and_emptied_when_told(tmp_path: Path) -> None:
    usual = {"config": checkpoint.plain(TrainConfig())}
    folder = tmp_path / "arm"
    claim(folder, usual, usual, redo=False)
    (folder / "kept").touch()
    claim(folder, usual, usual, redo=True)
    assert (folder / "kept").exists()
    changed = {"config": checkpoint.plain(TrainConfig(steps=7))}
    with pytest.raises(ValueError, match=r"config\.steps: 6000 -> 7"):
        claim(folder, changed, usual, redo=False)
    claim(folder, changed, usual, redo=True)
    assert not (folder / "kept").exists()
    claim(folder, changed, usual, redo=False)
