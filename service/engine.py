"""The loaded model behind the service: text through the cache, windows one at a time, warmed before anyone waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from model.calibration import Calibration
from model.negatives import lower
from model.presence import Presence, PresenceMeter
from model.spec import SignalSpec
from service.embedding import Embedding, join
from service.errors import ModelError
from service.hearing import Hearing
from service.text_cache import TextCache
from service.turns import Turns


class Network(Protocol):
    """What the engine needs of a model; :class:`model.runtime.Runtime` is one, tests have smaller ones."""

    @property
    def provider(self) -> str:
        """Name of what runs the graphs."""

    def embed(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [P, L, D], padding [P, L] bool, pooled [P, E] of prompts."""

    def mask(self, bands: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Masks [P, K, N] of a window's bands [K, N]."""

    @property
    def audio_rate(self) -> int | None:
        """Sample rate of the waveforms that :meth:`presence` takes; None where it takes a window's bands."""

    @property
    def audio_samples(self) -> int:
        """Samples of the longest waveform that it takes at once."""

    @property
    def calibration(self) -> Calibration | None:
        """How presence was calibrated; None where it is a raw score."""

    def presence(
        self,
        sound: np.ndarray,
        embedding: tuple[np.ndarray, np.ndarray, np.ndarray],
        masks: np.ndarray | None = None,
    ) -> np.ndarray:
        """How surely each prompt is in a window (bands [K, N], its masks) or a waveform [T]: [P] in 0..1."""


class Engine:
    """A model in service.

    One window is inferred at a time, on all the threads the model has: several at once on the same cores gain nothing
    (measured in the reference), and taking turns by window lets a short request pass a long one. Safe to use from
    several threads.

    Attributes:
        signal: the model's signal.
        version: of the bundle.
        about: what ``/v1/models`` says of it.
    """

    def __init__(
        self, network: Network, signal: SignalSpec, version: str, about: dict[str, Any], cache: TextCache
    ) -> None:
        self.network = network
        self.signal = signal
        self.version = version
        self.about = about
        self._cache = cache
        self.turns = Turns()
        self.ready = False

    def warm_up(self) -> None:
        """Run every graph once at the shapes that requests use, past the cache, so that the first one is no slower."""
        embedding = join([self._compute("a sound")])
        self.infer(np.ones((self.signal.n_bands, self.signal.window_frames), np.float32), embedding)
        if self.network.audio_rate:
            self.hear(np.ones(self.network.audio_samples, np.float32), embedding)
        self.ready = True

    def embed(self, prompts: tuple[str, ...]) -> tuple[list[Embedding], list[str]]:
        """Each prompt's embedding, and where it came from."""
        pairs = [self._cache.embed(prompt, self._compute) for prompt in prompts]
        return [embedding for embedding, _ in pairs], [state for _, state in pairs]

    def _compute(self, prompt: str) -> Embedding:
        # One prompt at a time: what it is beside must not change a bit of it, cached or not.
        tokens, padding, pooled = self.network.embed([prompt])
        return Embedding(np.asarray(tokens[0][~padding[0]], np.float32), np.asarray(pooled[0], np.float32))

    def infer(
        self, bands: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks of one window and each prompt's presence in it, when its turn comes.

        Presence is zero from a model that hears waveforms, for which :meth:`hear` is there.

        Shape:
            bands [K, N]; returns [P, K, N] and [P].

        Raises:
            ModelError: a number is not finite.
        """
        with self.turns.take():
            try:
                mask = self.network.mask(bands, embedding)
            except FloatingPointError as error:
                raise ModelError("the model's answer is not finite") from error
            if not np.isfinite(mask).all():
                raise ModelError("the model's answer is not finite")
            heard = np.zeros(len(mask)) if self.network.audio_rate else self._presence(bands, embedding, mask)
        return mask, heard

    def hear(self, waveform: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Each prompt's presence in a waveform at the model's ``audio_rate``, when its turn comes.

        Shape:
            waveform [T]; returns [P].

        Raises:
            ModelError: a number is not finite.
        """
        with self.turns.take():
            return self._presence(waveform, embedding)

    def _presence(
        self,
        sound: np.ndarray,
        embedding: tuple[np.ndarray, np.ndarray, np.ndarray],
        masks: np.ndarray | None = None,
    ) -> np.ndarray:
        # Nothing is heard in silence, and an audio tower asked all the same divides nothing by nothing.
        if not sound.any():
            return np.zeros(len(embedding[2]))
        heard = self.network.presence(sound, embedding, masks)
        if not np.isfinite(heard).all():
            raise ModelError("the model's answer is not finite")
        return heard

    def cache_info(self) -> dict[str, Any]:
        """The text cache's tiers and how they fare."""
        return self._cache.info()

    def listen(
        self,
        embeddings: list[Embedding],
        check: Callable[[], None],
        sample_rate: int,
        n_wanted: int | None = None,
    ) -> Listening:
        """Begin a recording. ``check`` is called before each window; whatever it raises ends the work.

        Embeddings after the first ``n_wanted`` are of negatives: they lower the masks of the rest, and have none.
        """
        return Listening(self, embeddings, check, sample_rate, len(embeddings) if n_wanted is None else n_wanted)

    def close(self) -> None:
        """Let go of connections."""
        self.ready = False
        self._cache.close()


class Listening:
    """The model at work on one recording: a mask for each window, and what was heard in all of them."""

    def __init__(
        self,
        engine: Engine,
        embeddings: list[Embedding],
        check: Callable[[], None],
        sample_rate: int,
        n_wanted: int,
    ) -> None:
        self._engine = engine
        self._n_wanted = n_wanted
        self._embedding = join(embeddings)
        self._check = check
        self._meter = PresenceMeter(engine.signal, n_wanted, engine.network.calibration)
        audio_rate, audio_samples = engine.network.audio_rate, engine.network.audio_samples
        self._hearing = Hearing(sample_rate, audio_rate, audio_samples, self._hear) if audio_rate else None

    def take(self, block: np.ndarray) -> None:
        """Hear the recording's next samples [C, T], where the model hears waveforms; bands come by :meth:`mask`."""
        if self._hearing:
            self._hearing.push(block)

    def _hear(self, waveform: np.ndarray) -> None:
        self._check()
        self._meter.hear(self._engine.hear(waveform, self._embedding)[: self._n_wanted])

    def mask(self, bands: np.ndarray) -> np.ndarray:
        """Masks of the next window, of the wanted prompts. Shape: bands [K, N]; returns [P, K, N]."""
        self._check()
        masks, heard = self._engine.infer(bands, self._embedding)
        # What is heard of a waveform comes by windows of its own, too late to weigh negatives with.
        known = None if self._hearing else heard
        self._meter.add(bands, masks[: self._n_wanted], None if known is None else known[: self._n_wanted])
        calibrated = known is not None and self._engine.network.calibration is not None
        return lower(masks, self._n_wanted, heard[self._n_wanted :] if calibrated else None)

    def finish(self) -> list[Presence]:
        """End the recording: how surely each wanted prompt's sound is in it, and when."""
        if self._hearing:
            self._hearing.finish()
        return self._meter.finish()
