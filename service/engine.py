"""The loaded model behind the service: text through the cache, windows one at a time, warmed before anyone waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from model.spec import SignalSpec
from service.embedding import Embedding, join
from service.errors import ModelError
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

    def presence(self, bands: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """How surely each prompt's sound is in a window, [P] in 0..1."""


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
            # Nothing is heard in silence, and an audio tower asked all the same divides nothing by nothing.
            heard = self.network.presence(bands, embedding) if bands.any() else np.zeros(len(mask))
        if not (np.isfinite(mask).all() and np.isfinite(heard).all()):
            raise ModelError("the model's answer is not finite")
        return mask, heard

    def cache_info(self) -> dict[str, Any]:
        """The text cache's tiers and how they fare."""
        return self._cache.info()

    def listen(self, embeddings: list[Embedding], check: Callable[[], None]) -> Listening:
        """Begin a recording. ``check`` is called before each window; whatever it raises ends the work."""
        return Listening(self, embeddings, check)

    def close(self) -> None:
        """Let go of connections."""
        self.ready = False
        self._cache.close()


class Listening:
    """The model at work on one recording: a mask for each window, and what was heard in all of them."""

    def __init__(self, engine: Engine, embeddings: list[Embedding], check: Callable[[], None]) -> None:
        self._engine = engine
        self._embedding = join(embeddings)
        self._check = check
        self._heard = np.zeros(len(embeddings))

    def mask(self, bands: np.ndarray) -> np.ndarray:
        """Masks of the next window. Shape: bands [K, N]; returns [P, K, N]."""
        self._check()
        mask, heard = self._engine.infer(bands, self._embedding)
        self._heard = np.maximum(self._heard, heard)
        return mask

    def presence(self) -> list[float]:
        """How surely each prompt's sound was heard in any window, 0 to 1; not calibrated."""
        return [round(float(value), 3) for value in self._heard]
