"""MPEG audio (MP1, MP2, MP3) by its frames' headers: how long a file is, without decoding it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

# Kilobits a second by index, for layers 1, 2, 3 of MPEG-1, then of MPEG-2 and 2.5 (ISO/IEC 11172-3 and 13818-3).
_RATES_1 = {
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_2 = {1: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256), 2: _LOW, 3: _LOW}
_SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version
_CHUNK_BYTES = 1024 * 1024
_HEADER_BYTES = 4


@dataclass(frozen=True)
class Frame:
    """What a frame's header says; ``n_bytes`` is 0 where it does not say (free format)."""

    n_bytes: int
    n_samples: int
    sample_rate: int

    @classmethod
    def read(cls, head: bytes) -> Frame | None:
        """Read a frame's first four bytes; None when they are none: sync, layer, bit rate and rate must be legal."""
        if len(head) < _HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
            return None
        version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
        rate_index, sample_rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
        if version == 1 or layer == 4 or rate_index == 15 or sample_rate_index == 3:
            return None
        sample_rate = _SAMPLE_RATES[version][sample_rate_index]
        bit_rate = 1_000 * (_RATES_1 if version == 3 else _RATES_2)[layer][rate_index]
        n_samples = {1: 384, 2: 1_152, 3: 1_152 if version == 3 else 576}[layer]
        if layer == 1:
            n_bytes = 4 * (12 * bit_rate // sample_rate + padding)
        else:
            n_bytes = n_samples // 8 * bit_rate // sample_rate + padding
        return cls(n_bytes if bit_rate else 0, n_samples, sample_rate)


def lasts_longer(file: BinaryIO, seconds: float) -> bool:
    """Whether frames follow each other without a gap for more than ``seconds``. Stops as soon as it knows.

    ``file`` has a descriptor, whose position stays where it is, for a decoder may be using it.
    """
    start = _start(os.pread(file.fileno(), 10, 0))
    chunk, at, heard_s = b"", 0, 0.0
    while True:
        if at + _HEADER_BYTES > len(chunk):
            start, at = start + at, 0
            chunk = os.pread(file.fileno(), _CHUNK_BYTES, start)
        frame = Frame.read(chunk[at : at + _HEADER_BYTES])
        if frame is None or not frame.n_bytes:
            return False
        heard_s += frame.n_samples / frame.sample_rate
        if heard_s > seconds:
            return True
        at += frame.n_bytes


def _start(head: bytes) -> int:
    """Where the first frame should be: behind an ID3v2 tag, where there is one."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
