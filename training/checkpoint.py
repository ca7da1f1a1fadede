"""Checkpoints: everything a run needs to go on after a kill, written so that a half-written file is never seen."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.network import build
from model.spec import NetworkSpec, SignalSpec

FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: to a neighbour, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, "git_commit": git_commit(), **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; plain tensors and values only, no code is unpickled.

    Raises:
        ValueError: the file is missing or of another format.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format") != FORMAT:
        raise ValueError(f"{path}: checkpoint format must be {FORMAT}, got {state.get('format')}")
    return state


def load_separator(path: Path, *, ema: bool = True) -> tuple[nn.Module, NetworkSpec, SignalSpec]:
    """Load a separator for inference, by default with its averaged weights.

    Raises:
        ValueError: the file is missing, of another format, or its weights do not fit its spec.
    """
    state = load(path)
    network, signal = NetworkSpec.from_json(state["network"]), SignalSpec.from_json(state["signal"])
    separator = build(network, signal)
    try:
        separator.load_state_dict(state["ema" if ema else "model"])
    except RuntimeError as error:
        raise ValueError(f"{path}: weights do not fit the network of its spec: {error}") from error
    return separator.eval(), network, signal


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON values."""
    return {key: _plain_value(value) for key, value in dataclasses.asdict(config).items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_value(item) for key, item in value.items()}
    return [_plain_value(item) for item in value] if isinstance(value, list | tuple) else value


def git_commit() -> str:
    """The checkout's commit, or ``unknown`` outside one."""
    here = Path(__file__).resolve().parent
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"
