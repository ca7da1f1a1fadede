"""Recordings that tests write: noise, so that no two parts of one are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def write_noise(path: Path, *, seconds: float = 1.0, rate: int = 44_100, channels: int = 1, seed: int = 0) -> Path:
    """Write noise; the format is the suffix's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = np.random.default_rng(seed).uniform(-0.3, 0.3, (round(seconds * rate), channels))
    subtype = "FLOAT" if path.suffix == ".wav" else None
    soundfile.write(path, audio, rate, subtype=subtype)
    return path
