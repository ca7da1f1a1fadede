"""Which phrases of a vocabulary are heard in a recording.

Twice through the recording. First every window is heard as it is, which costs one run of the audio tower however many
phrases there are, and the phrases that come closest anywhere go on a short list. Then each of these is separated from
the one window where it came closest; what is left of that window without the surest of them is heard again, for a sound
under a louder one is heard only when that is gone, and the phrases that come closest now are separated from it. So an
hour costs no more than ten windows' masks, and memory holds a window and two numbers a phrase.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from model.calibration import Calibration
from model.presence import at_prior, over_windows
from model.spectral import MaskStream
from service.backlog import work_of
from service.call import Call
from service.embedding import Embedding
from service.engine import Engine
from service.errors import InvalidField
from service.hearing import Hearing
from service.recording import Recording
from service.separation import Separator
from service.timings import Timings
from service.window import Line

MOST = 20
DEFAULT_LIMIT = 5
_LISTED = 10
_SOUNDS = 3  # that a recording has, roughly: of a long vocabulary, any one phrase is unlikely before it is heard


@dataclass(frozen=True)
class Suggestion:
    """A phrase, and the probability that its sound is in the recording.

    It is lower than what presence says to who asks for that phrase: it was not picked by a caller who may know that it
    is there, but found among many.
    """

    phrase: str
    probability: float


@dataclass(frozen=True)
class Suggestions:
    """Phrases, the likeliest first, and the recording they were heard in."""

    items: list[Suggestion]
    recording: Recording


def read_limit(values: list[str]) -> int:
    """The form's ``limit``: how many phrases to answer with.

    Raises:
        InvalidField: repeated, or no whole number from 1 to ``MOST``.
    """
    if len(values) > 1:
        raise InvalidField("limit may be given once", field="limit", limit=1)
    text = values[0].strip() if values else str(DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MOST):
        raise InvalidField(f"limit must be 1 to {MOST}", field="limit", limit=MOST)
    return int(text)


class Suggester:
    """A separator's engine, asked what there is instead of for what somebody names."""

    def __init__(self, separator: Separator, phrases: tuple[str, ...]) -> None:
        """``phrases`` are the vocabulary of requests without one; they are embedded when the first of these comes."""
        self.separator, self.phrases = separator, phrases
        self._lock = threading.Lock()
        self._embeddings: list[Embedding] | None = None

    def run(
        self, file: BinaryIO, phrases: tuple[str, ...], limit: int, folder: Path, call: Call, timings: Timings
    ) -> Suggestions:
        """Hear ``file`` for phrases, those of the vocabulary where there are none.

        Raises:
            WinnowError: one of its kinds.
        """
        separator = self.separator
        call.timings = timings
        with timings.measure("decode"):
            recording = separator.decoder.decode(file, folder, call.check)
        timings.audio_in_s = recording.duration_s
        with timings.measure("embed"):
            embeddings = separator.engine.embed(phrases)[0] if phrases else self._vocabulary(call.check)
        work = work_of(recording.duration_s, 0)
        with timings.measure("separate"), separator.backlog.share(work, call):
            items = suggest(separator.engine, recording, phrases or self.phrases, embeddings, limit, call)
        recording.path.unlink()
        return Suggestions(items, recording)

    def _vocabulary(self, check: Callable[[], None]) -> list[Embedding]:
        with self._lock:
            if self._embeddings is None:
                found = []
                for phrase in self.phrases:  # one at a time, so that a caller who leaves is not waited for
                    check()
                    found += self.separator.engine.embed((phrase,))[0]
                self._embeddings = found
            return self._embeddings


def suggest(
    engine: Engine, recording: Recording, phrases: tuple[str, ...], embeddings: list[Embedding], limit: int, call: Call
) -> list[Suggestion]:
    """The ``limit`` likeliest phrases of those given, with their embeddings."""
    with engine.line(call) as line:
        return _suggest(engine, recording, phrases, embeddings, limit, line)


def _suggest(
    engine: Engine, recording: Recording, phrases: tuple[str, ...], embeddings: list[Embedding], limit: int, line: Line
) -> list[Suggestion]:
    call = line.call
    closest = _Closest(engine, np.stack([item.pooled for item in embeddings]), line, recording.sample_rate)
    _pass(engine, recording, closest.take, closest.mask, call, tell=call.tell)
    closest.finish()
    if closest.n_windows == 0:
        return []  # silence
    listed = np.argsort(-closest.surest, kind="stable")
    calibration = engine.network.calibration
    surest = closest.surest.copy()
    if calibration is not None and calibration.separated and not engine.network.audio_rate:
        second = _Separated(engine, embeddings, listed[:_LISTED], closest, line, recording.sample_rate)
        _pass(engine, recording, lambda block: None, second.mask, call)
        surest = second.surest
    probability = over_windows(surest, closest.n_windows, calibration)
    if calibration is not None:
        probability = at_prior(probability, min(Calibration.PRIOR, _SOUNDS / len(phrases)))
    order = np.argsort(-probability, kind="stable")[:limit]
    return [Suggestion(phrases[row], round(float(probability[row]), 3)) for row in order if probability[row] > 0]


class _Closest:
    """The first pass: how sure each phrase is where it is surest, and which of the masks' windows that is."""

    def __init__(self, engine: Engine, pooled: np.ndarray, line: Line, sample_rate: int) -> None:
        # To hear takes the pooled vectors alone.
        self._engine, self._line = engine, line
        self.phrases = np.zeros((len(pooled), 0, 0), np.float32), np.zeros((len(pooled), 0), bool), pooled
        self.surest = np.zeros(len(pooled))
        self.window = np.zeros(len(pooled), int)
        self.n_windows = self._n_asked = 0
        rate = engine.network.audio_rate
        self._hearing = Hearing(sample_rate, rate, engine.network.audio_samples, self._hear) if rate else None

    def take(self, block: np.ndarray) -> None:
        if self._hearing:
            self._hearing.push(block)

    def mask(self, bands: np.ndarray) -> np.ndarray:
        if not self._hearing:
            self._hear(bands)
        self._n_asked += 1
        return np.zeros((1, *bands.shape), np.float32)

    def finish(self) -> None:
        if self._hearing:
            self._hearing.finish()

    def _hear(self, sound: np.ndarray) -> None:
        self._line.call.check()
        if not sound.any():
            return
        heard = self._engine.hear(sound, self.phrases, self._line)
        surer = heard > self.surest
        self.surest[surer], self.window[surer] = heard[surer], self._n_asked
        self.n_windows += 1


class _Separated:
    """The second pass: the listed phrases, each in its window, and those that come closest in what is left of it."""

    def __init__(
        self,
        engine: Engine,
        embeddings: list[Embedding],
        listed: np.ndarray,
        closest: _Closest,
        line: Line,
        sample_rate: int,
    ) -> None:
        self._engine, self._embeddings, self._line, self._sample_rate = engine, embeddings, line, sample_rate
        self._listed, self._closest = listed, closest
        self._n_asked = 0
        self.surest = np.zeros(len(embeddings))

    def mask(self, bands: np.ndarray) -> np.ndarray:
        rows = self._listed[self._closest.window[self._listed] == self._n_asked]
        self._n_asked += 1
        if len(rows):
            masks, probability = self._separate(bands, rows)
            rest = (1.0 - masks[int(np.argmax(probability))]) * bands
            heard = self._engine.hear(rest, self._closest.phrases, self._line)
            self._separate(rest, np.argsort(-heard, kind="stable")[:_LISTED])
        return np.zeros((1, *bands.shape), np.float32)

    def _separate(self, bands: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        listening = self._engine.listen([self._embeddings[row] for row in rows], self._line, self._sample_rate)
        masks = listening.mask(bands)
        probability = np.array([item.probability for item in listening.finish()])
        self.surest[rows] = np.maximum(self.surest[rows], probability)
        return masks, probability


def _pass(
    engine: Engine,
    recording: Recording,
    take: Callable[[np.ndarray], None],
    mask: Callable[[np.ndarray], np.ndarray],
    call: Call,
    tell: Callable[[float], None] = lambda done: None,
) -> None:
    """Once through a recording, window by window; what it would sound like is let go."""
    stream = MaskStream(engine.signal, recording.sample_rate, recording.n_channels, 1, mask)
    n_taken = 0
    for block in recording.blocks():
        call.check()
        take(block)
        stream.push(block)
        n_taken += block.shape[1]
        tell(n_taken / recording.n_samples)
    stream.finish()
