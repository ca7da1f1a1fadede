"""Captioned recordings in files of their own, named by a manifest; decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from training.decoding import Recent, Span, decode, find_span
from training.recording_manifest import Recording, read_recordings

Splitter = Callable[[str], Sequence[str]]


def split_caption(caption: str) -> Sequence[str]:
    """The phrases of a caption by :mod:`training.captions`, imported only where a recording comes without phrases."""
    from training.captions import phrases

    return phrases(caption)


class FileRecordings:
    """A list of :class:`Recording`, a :class:`training.recordings.Recordings`.

    ``splitter`` makes phrases of the captions that come without; a caption of which it makes none is its own phrase.
    Where two recordings of one source must not meet, :meth:`source` tells.
    """

    def __init__(self, recordings: Sequence[Recording], sample_rate: int, splitter: Splitter = split_caption) -> None:
        self.recordings, self.sample_rate, self.splitter = recordings, sample_rate, splitter
        self._spans: dict[int, Span] = {}
        self._phrases: dict[int, tuple[str, ...]] = {}
        self._recent = Recent()

    def __len__(self) -> int:
        return len(self.recordings)

    def caption(self, index: int) -> str:
        """What is said of the whole recording."""
        return self.recordings[index].caption

    def phrases(self, index: int) -> Sequence[str]:
        """The line's own phrases, else what the splitter makes of the caption."""
        if index not in self._phrases:
            recording = self.recordings[index]
            found = recording.phrases or tuple(self.splitter(recording.caption))
            self._phrases[index] = found or (recording.caption,)
        return self._phrases[index]

    def source(self, index: int) -> str:
        """The recording that this one was cut from, with its site."""
        return self.recordings[index].source

    def n_samples(self, index: int) -> int:
        """Length at :attr:`sample_rate`; the first time the file's header is read.

        Raises:
            ValueError: the file cannot be read, or is empty; the message names it.
        """
        return self._span(index).n_samples(self.sample_rate)

    def audio(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Samples ``start:start + length``, mono float32 ``[T]``.

        Raises:
            ValueError: the file cannot be decoded; the message names it.
        """

        def make() -> np.ndarray:
            opener = self._opener(index)
            return decode(opener, self._name(index), self._span(index), self.sample_rate, start, length)

        return self._recent.get((index, start, length), make)

    def _span(self, index: int) -> Span:
        if index not in self._spans:
            recording = self.recordings[index]
            opener, name = self._opener(index), self._name(index)
            self._spans[index] = find_span(opener, name, recording.start, recording.seconds)
        return self._spans[index]

    def _opener(self, index: int) -> Callable[[], Path | BinaryIO]:
        return lambda: self.recordings[index].path

    def _name(self, index: int) -> str:
        return str(self.recordings[index].path)


class ManifestRecordings(FileRecordings):
    """The recordings of a manifest; ``path`` may end in ``#train`` to choose a split.

    Raises:
        ValueError: as :func:`training.recording_manifest.read_recordings`.
    """

    def __init__(self, path: Path, sample_rate: int, splitter: Splitter = split_caption) -> None:
        super().__init__(read_recordings(path), sample_rate, splitter)
