"""Sounds made for the tests, and files of them."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile


def noise(n_samples: int, n_channels: int = 1, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """Gaussian noise. Shape: [C, T] float32."""
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((n_channels, n_samples))).astype(np.float32)


def silence(n_samples: int, n_channels: int = 1) -> np.ndarray:
    """Zeros, which take no memory however many. Shape: [C, T] float32."""
    return np.broadcast_to(np.float32(0), (n_channels, n_samples))


def encode(samples: np.ndarray, sample_rate: int = 16_000, format: str = "WAV", subtype: str | None = None) -> bytes:
    """A file of samples [C, T]."""
    out = io.BytesIO()
    out.name = "sound"  # soundfile asks file objects for one
    with soundfile.SoundFile(out, "w", sample_rate, len(samples), format=format, subtype=subtype) as file:
        for start in range(0, max(samples.shape[1], 1), 8_192):
            file.write(samples[:, start : start + 8_192].T)
    return out.getvalue()


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Samples [C, T] float64 of a file, and their rate."""
    samples, sample_rate = soundfile.read(io.BytesIO(data), always_2d=True)
    return samples.T, sample_rate


def raw_wav(n_channels: int, sample_rate: int, body: bytes, codec: int = 1, stated: int | None = None) -> bytes:
    """A 16-bit WAV written by hand, so that its header may say anything."""
    stated = len(body) if stated is None else stated
    layout = struct.pack("<HHIIHH", codec, n_channels, sample_rate, sample_rate * n_channels * 2, n_channels * 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", (36 + stated) & 0xFFFF_FFFF)
        + b"WAVEfmt "
        + struct.pack("<I", len(layout))
        + layout
        + b"data"
        + struct.pack("<I", stated)
        + body
    )
