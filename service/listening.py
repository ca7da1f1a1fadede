"""The model at work on one recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.negatives import lower
from model.presence import Presence, PresenceMeter
from model.sharing import share_out
from model.spectral import LaterMask
from service.embedding import Embedding, join
from service.hearing import Hearing
from service.window import Line

if TYPE_CHECKING:
    from service.engine import Asked, Engine


class Listening:
    """The model at work on one recording: a mask for each window, and what was heard in all of them."""

    def __init__(
        self,
        engine: Engine,
        embeddings: list[Embedding],
        line: Line,
        sample_rate: int,
        n_wanted: int,
        *,
        exhaustive: bool = False,
    ) -> None:
        self._engine = engine
        self._n_wanted = n_wanted
        self._exhaustive = exhaustive
        self._embedding = join(embeddings)
        self._line = line
        self._meter = PresenceMeter(engine.signal, n_wanted, engine.network.calibration)
        audio_rate, audio_samples = engine.network.audio_rate, engine.network.audio_samples
        self._hearing = Hearing(sample_rate, audio_rate, audio_samples, self._hear) if audio_rate else None

    def take(self, block: np.ndarray) -> None:
        """Hear the recording's next samples [C, T], where the model hears waveforms; bands come by :meth:`mask`."""
        if self._hearing:
            self._hearing.push(block)

    def _hear(self, waveform: np.ndarray) -> None:
        self._meter.hear(self._engine.hear(waveform, self._embedding, self._line)[: self._n_wanted])

    def ask(self, bands: np.ndarray) -> LaterMask:
        """Ask for the next window's masks, of the wanted prompts; results are taken in the order of the windows.

        Waits while the line has as many without an answer as its scheduler allows. Shape: bands [K, N].
        """
        return _Later(self, bands, self._engine.ask(bands, self._embedding, self._line))

    def mask(self, bands: np.ndarray) -> np.ndarray:
        """Masks of the next window. Shape: bands [K, N]; returns [P, K, N]."""
        return self.ask(bands).result()

    def _masked(self, bands: np.ndarray, masks: np.ndarray, heard: np.ndarray) -> np.ndarray:
        # What is heard of a waveform comes by windows of its own, too late to weigh masks with.
        known = None if self._hearing else heard
        self._meter.add(bands, masks[: self._n_wanted], None if known is None else known[: self._n_wanted])
        calibrated = known is not None and self._engine.network.calibration is not None
        if self._exhaustive:
            return share_out(masks, self._n_wanted, heard if calibrated else None)
        return lower(masks, self._n_wanted, heard[self._n_wanted :] if calibrated else None)

    def finish(self) -> list[Presence]:
        """End the recording: how surely each wanted prompt's sound is in it, and when."""
        if self._hearing:
            self._hearing.finish()
        return self._meter.finish()


class _Later:
    """A window that the engine was asked for."""

    def __init__(self, listening: Listening, bands: np.ndarray, asked: Asked) -> None:
        self._listening, self._bands, self._asked = listening, bands, asked

    def result(self) -> np.ndarray:
        """The masks [P, K, N] of the wanted prompts; what was heard is told, so each is taken once and in order."""
        return self._listening._masked(self._bands, *self._asked.result())
