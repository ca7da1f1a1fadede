"""Decode the part of a recording that is needed, and no more: mono, at the rate that is asked for, to the sample."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

# Native frames around a part that the resampler must see, times the ratio where it lowers the rate. Measured on noise
# between 8 and 48 kHz: with 32 a part differs from the whole by 1e-2 of full scale, with 64 by 5e-4, with 128 by 6e-7.
_MARGIN = 128

Opener = Callable[[], Path | BinaryIO]


@dataclass(frozen=True)
class Span:
    """Frames ``first:last`` of a file at its own ``rate``."""

    rate: int
    first: int
    last: int

    def n_samples(self, sample_rate: int) -> int:
        """Length at another rate, rounded to the nearest sample."""
        return (2 * (self.last - self.first) * sample_rate + self.rate) // (2 * self.rate)


def find_span(opener: Opener, name: str, start_s: float = 0.0, seconds: float | None = None) -> Span:
    """Frames of a file from ``start_s`` seconds on, for ``seconds`` or to its end, cut at its end; reads the header.

    Raises:
        ValueError: the file cannot be read, or nothing of it is left after ``start_s``; the message has ``name``.
    """
    try:
        info = soundfile.info(opener())
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"cannot read {name}: {error}") from error
    first = round(start_s * info.samplerate)
    last = info.frames if seconds is None else min(info.frames, first + round(seconds * info.samplerate))
    if first >= last:
        raise ValueError(f"{name} has {info.frames / info.samplerate:.2f} s, nothing is left after {start_s} s")
    return Span(info.samplerate, first, last)


def decode(
    opener: Opener, name: str, span: Span, sample_rate: int, start: int = 0, length: int | None = None
) -> np.ndarray:
    """Samples ``start:start + length`` of a span at ``sample_rate``, mono float32 ``[T]``, cut at its end.

    Only these samples and a margin for the resampler are decoded; the cut begins where both rates have a sample, so a
    part is the same as that part of the whole, to 1e-6 of full scale.

    Raises:
        ValueError: ``start`` is negative, or the file cannot be decoded; the message has ``name``.
    """
    if start < 0:
        raise ValueError(f"{name}: start must be at least 0, got {start}")
    total = span.n_samples(sample_rate)
    stop = total if length is None else min(total, start + length)
    if start >= stop:
        return np.zeros(0, dtype=np.float32)
    common = math.gcd(span.rate, sample_rate)
    native_block, block = span.rate // common, sample_rate // common
    margin = 0 if span.rate == sample_rate else math.ceil(_MARGIN * max(1.0, span.rate / sample_rate))
    first_block = max(0, start // block - math.ceil(margin / native_block))
    begin = span.first + first_block * native_block
    end = min(span.last, span.first + math.ceil(stop * span.rate / sample_rate) + margin)
    try:
        audio, rate = soundfile.read(opener(), frames=end - begin, start=begin, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"cannot decode {name}: {error}") from error
    mono = audio.mean(axis=1, dtype=np.float32)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    part = np.zeros(stop - start, dtype=np.float32)
    found = mono[start - first_block * block :][: len(part)]
    part[: len(found)] = found  # the resampler may end a sample early
    return part


class Recent:
    """The last parts that were decoded, at most ``limit`` of them: validation asks for the same ones again and again.

    Safe to use from several threads; a copy for another process begins empty.
    """

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self._parts: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The part of ``key``, made if it is not there; a copy, which the caller may change."""
        with self._lock:
            part = self._parts.get(key)
            if part is not None:
                self._parts.move_to_end(key)
        if part is None:
            part = make()
            with self._lock:
                self._parts[key] = part
                while len(self._parts) > self.limit:
                    self._parts.popitem(last=False)
        return part.copy()

    def __getstate__(self) -> int:
        return self.limit

    def __setstate__(self, limit: int) -> None:
        self.__init__(limit)  # type: ignore[misc]
