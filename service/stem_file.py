"""A file of one stem, written block by block by libsndfile."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from service.formats import Encoding
from service.ogg import fix_serial

_WAV_BYTES = 2**32 - 4096  # a WAV's lengths are 32 bits; longer ones are written as RF64
_ENCODER_SAMPLES = 8_192  # libsndfile's Vorbis writer keeps a block on its stack


def frames_of(block: np.ndarray, encoding: Encoding) -> np.ndarray:
    """A block as the file takes it.

    Shape:
        block [C, T], integers in steps of the encoding where it has ``pcm_bits``, else float32; returns [T, C] int16,
        int32 or float32.
    """
    match encoding.pcm_bits:
        case None:
            return np.ascontiguousarray(block.T, dtype=np.float32)
        case 16:
            return np.ascontiguousarray(block.T, dtype=np.int16)
        case bits:
            return np.ascontiguousarray(block.T << (32 - bits), dtype=np.int32)


def frame_type(encoding: Encoding) -> np.dtype:
    """Type of the samples that :func:`frames_of` gives."""
    return np.dtype({None: "f4", 16: "i2"}.get(encoding.pcm_bits, "i4"))


class _Sound(soundfile.SoundFile):
    """A sound file whose end does not wait for the disk: nobody asks a temporary file to outlive the machine."""

    def flush(self) -> None:
        """Nothing: soundfile does it before it closes, as an fsync, and closing writes the header in any case."""


class StemFile:
    """A file of one stem.

    ``sample_rate`` in hertz is that of the blocks. A format that cannot carry it (MP3 above 48 kHz, or at an odd rate)
    is written at the next rate it can, resampled with soxr; then the length is the recording's in seconds, rounded to
    a sample, and at least one.
    """

    def __init__(self, file: BinaryIO, encoding: Encoding, sample_rate: int, n_channels: int, n_samples: int) -> None:
        """Begin a file; ``file`` has a descriptor, open for reading and writing, and is left open."""
        self.encoding = encoding
        kind = encoding.format
        self.sample_rate = kind.carried_rate(sample_rate)
        self._out = file
        self._left = max(1, round(n_samples * self.sample_rate / sample_rate))
        self._resampler = None
        if self.sample_rate != sample_rate:
            self._resampler = soxr.ResampleStream(sample_rate, self.sample_rate, n_channels, dtype="float32")
        bytes_a_sample = {"pcm16": 2, "pcm24": 3}.get(encoding.subtype or "", 4)
        too_long = n_samples * n_channels * bytes_a_sample > _WAV_BYTES
        self._file = _Sound(
            os.dup(file.fileno()),  # closes what it is given, also when it fails
            "w",
            self.sample_rate,
            n_channels,
            format="RF64" if kind.major == "WAV" and too_long else kind.major,
            subtype=kind.subtypes[encoding.subtype] if encoding.subtype else kind.lossy_subtype,
        )

    def append(self, frames: np.ndarray) -> None:
        """Append what :func:`frames_of` gave. Shape: [T, C]."""
        if not len(frames):
            return
        if self.encoding.subtype is None:
            self._write_lossy(frames, last=False)
        else:
            self._file.write(frames)

    def _write_lossy(self, block: np.ndarray, last: bool) -> None:
        """Append [T, C]: at the file's rate, clipped at full scale, never more than the stated length."""
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last)
        if last:
            block = np.pad(block, ((0, max(0, self._left - len(block))), (0, 0)))
        block = np.clip(block[: self._left], -1.0, 1.0)
        self._left -= len(block)
        for start in range(0, len(block), _ENCODER_SAMPLES):
            self._file.write(block[start : start + _ENCODER_SAMPLES])

    def finish(self) -> None:
        """Write what is left. What a library writes from the clock is overwritten, so that bytes repeat."""
        if self._resampler is not None:
            self._write_lossy(np.zeros((0, self._file.channels), np.float32), last=True)
        self._file.close()
        if self.encoding.format.name == "ogg":
            fix_serial(self._out)
        elif self.encoding.subtype == "float32":
            _clear_peak_time(self._out)

    def abandon(self) -> None:
        """Close without finishing."""
        self._file.close()


def _clear_peak_time(file: BinaryIO) -> None:
    """Zero the time of writing in a float WAV's PEAK chunk: name, length, version, then the time, four bytes each."""
    file.seek(0)
    at = file.read(256).find(b"PEAK")
    if at >= 0:
        file.seek(at + 12)
        file.write(bytes(4))
        file.flush()
