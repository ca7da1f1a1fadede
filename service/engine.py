"""The loaded model behind the service: text through the cache, windows in turns of calls, warmed before it is used."""

from __future__ import annotations

import time
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from model.calibration import Calibration
from model.spec import SignalSpec
from service.call import Call
from service.embedding import Embedding, join
from service.engine_thread import EngineThread
from service.errors import ModelError
from service.listening import Listening
from service.scheduler import Scheduler
from service.text_cache import TextCache
from service.window import Line

_LOOK_S = 0.1  # how often a call that waits for its window looks whether it is wanted still
_LEAVE_S = 5.0  # what a closing engine waits for the window that runs


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


@dataclass
class _Ask:
    """A window as the engine's thread gets it, and when it ran (:func:`time.perf_counter`).

    ``masked`` asks for masks and what is heard, else only for what is heard.
    """

    sound: np.ndarray
    embedding: tuple[np.ndarray, np.ndarray, np.ndarray]
    masked: bool
    began_s: float = 0.0
    ended_s: float = 0.0


class Asked:
    """An answer of the engine's that may not be there yet."""

    def __init__(self, ask: _Ask, line: Line, answer: Future[Any], asked_s: float) -> None:
        self._ask, self._line, self._answer, self._asked_s = ask, line, answer, asked_s

    def result(self) -> Any:
        """Wait for it; once.

        Raises:
            As :meth:`Engine.infer`.
        """
        call, ask = self._line.call, self._ask
        while True:
            try:
                result = self._answer.result(_LOOK_S)
                break
            except TimeoutError:
                call.check()  # leaves the window that runs to end by itself
        call.timings.add("turn", self._asked_s, ask.began_s)
        call.timings.add("infer", ask.began_s, ask.ended_s)
        return result


class Engine:
    """A model in service.

    One window is inferred at a time, on all the threads the model has: several at once on the same cores gain nothing
    (measured in the reference), and taking turns by window lets a short request pass a long one. Safe to use from
    several threads.

    Attributes:
        signal: the model's signal.
        version: of the bundle.
        about: what ``/v1/models`` says of it.
        scheduler: whose turn it is.
    """

    def __init__(
        self,
        network: Network,
        signal: SignalSpec,
        version: str,
        about: dict[str, Any],
        cache: TextCache,
    ) -> None:
        self.network = network
        self.signal = signal
        self.version = version
        self.about = about
        self._cache = cache
        self.scheduler = Scheduler()
        self._thread = EngineThread(self.scheduler, self._infer)
        self.ready = False

    @property
    def stuck(self) -> bool:
        """Whether the engine will never answer again; only a new process helps."""
        return self._thread.stuck

    def line(self, call: Call) -> AbstractContextManager[Line]:
        """A call's place among the others, while the block lasts."""
        return self.scheduler.line(call)

    def warm_up(self) -> None:
        """Run every graph once at the shapes that requests use, past the cache, so that the first one is no slower."""
        embedding = join([self._compute("a sound")])
        with self.line(Call()) as line:
            self.infer(np.ones((self.signal.n_bands, self.signal.window_frames), np.float32), embedding, line)
            if self.network.audio_rate:
                self.hear(np.ones(self.network.audio_samples, np.float32), embedding, line)
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
        self, bands: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray], line: Line
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks of one window and each prompt's presence in it, when the line's turn comes.

        Presence is zero from a model that hears waveforms, for which :meth:`hear` is there.

        Shape:
            bands [K, N]; returns [P, K, N] and [P].

        Raises:
            ModelError: a number is not finite.
            Abandoned, DeadlinePassed: the line's call is not wanted any more.
        """
        mask, heard = self.ask(bands, embedding, line).result()
        return mask, heard

    def ask(self, bands: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray], line: Line) -> Asked:
        """As :meth:`infer`, but does not wait for the answer, only for room in the line."""
        return self._ask(_Ask(bands, embedding, masked=True), line)

    def hear(self, sound: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray], line: Line) -> np.ndarray:
        """Each prompt's presence in bands, or in a waveform at the model's ``audio_rate``, when the line's turn comes.

        Shape:
            sound [K, N] or [T]; returns [P].

        Raises:
            As :meth:`infer`.
        """
        heard: np.ndarray = self._ask(_Ask(sound, embedding, masked=False), line).result()
        return heard

    def _ask(self, ask: _Ask, line: Line) -> Asked:
        asked_s = time.perf_counter()
        return Asked(ask, line, self.scheduler.submit(line, ask), asked_s)

    def _infer(self, asks: list[_Ask]) -> list[Any]:
        """On the engine's thread."""
        answers = []
        for ask in asks:
            ask.began_s = time.perf_counter()
            answers.append(self._masks(ask) if ask.masked else self._presence(ask.sound, ask.embedding))
            ask.ended_s = time.perf_counter()
        return answers

    def _masks(self, ask: _Ask) -> tuple[np.ndarray, np.ndarray]:
        try:
            mask = self.network.mask(ask.sound, ask.embedding)
        except FloatingPointError as error:
            raise ModelError("the model's answer is not finite") from error
        if not np.isfinite(mask).all():
            raise ModelError("the model's answer is not finite")
        if self.network.audio_rate:
            return mask, np.zeros(len(mask))
        return mask, self._presence(ask.sound, ask.embedding, mask)

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
        self, embeddings: list[Embedding], line: Line, sample_rate: int, n_wanted: int | None = None
    ) -> Listening:
        """Begin a recording, whose windows take the turns of ``line``.

        Embeddings after the first ``n_wanted`` are of negatives: they lower the masks of the rest, and have none.
        """
        return Listening(self, embeddings, line, sample_rate, len(embeddings) if n_wanted is None else n_wanted)

    def close(self) -> None:
        """Let go of connections; what waits for a window is cancelled."""
        self.ready = False
        self.scheduler.close()
        self._thread.join(_LEAVE_S)
        self._cache.close()
