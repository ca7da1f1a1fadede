"""What the text tower says of one prompt, and its form as bytes in a cache."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

_MAGIC = b"WNTE"
_VERSION = 1
_HEADER = struct.Struct("<4sHHHH")  # magic, version, L, D, E


@dataclass(frozen=True)
class Embedding:
    """One prompt's features.

    Shape:
        tokens [L, D] float32, without padding; pooled [E] float32.
    """

    tokens: np.ndarray
    pooled: np.ndarray

    def to_bytes(self) -> bytes:
        """Header with version and lengths, then raw little-endian float32. Never pickle: a cache is not trusted."""
        length, features = self.tokens.shape
        return (
            _HEADER.pack(_MAGIC, _VERSION, length, features, len(self.pooled))
            + self.tokens.astype("<f4").tobytes()
            + self.pooled.astype("<f4").tobytes()
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Embedding:
        """Read :meth:`to_bytes`.

        Raises:
            ValueError: another version, a wrong length, or numbers that are not finite.
        """
        if len(data) < _HEADER.size:
            raise ValueError(f"an embedding needs at least {_HEADER.size} bytes, got {len(data)}")
        magic, version, length, features, pooled = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"unknown embedding version {magic!r} {version}")
        expected = _HEADER.size + 4 * (length * features + pooled)
        if len(data) != expected:
            raise ValueError(f"an embedding of these shapes has {expected} bytes, got {len(data)}")
        numbers = np.frombuffer(data, "<f4", offset=_HEADER.size).astype(np.float32)
        if not np.isfinite(numbers).all():
            raise ValueError("an embedding's numbers must be finite")
        return cls(numbers[: length * features].reshape(length, features), numbers[length * features :])


def join(embeddings: list[Embedding]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stack prompts, the shorter ones padded with zeros.

    Shape:
        returns tokens [P, L, D], padding [P, L] bool (True where padded), pooled [P, E].
    """
    longest = max(len(item.tokens) for item in embeddings)
    tokens = np.stack([np.pad(item.tokens, ((0, longest - len(item.tokens)), (0, 0))) for item in embeddings])
    padding = np.stack([np.arange(longest) >= len(item.tokens) for item in embeddings])
    return tokens, padding, np.stack([item.pooled for item in embeddings])
