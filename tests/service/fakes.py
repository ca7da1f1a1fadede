"""A model small enough to reason about: its mask is a constant for each prompt, its text is a hash."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence

import numpy as np

from model.spec import SignalSpec
from service.engine import Engine
from service.network import Features
from service.text_cache import TextCache

FEATURES = 8


class FakeNetwork:
    """``mask`` is ``gain`` everywhere, or silence for the prompt "nothing"; counts its calls."""

    provider = "FakeExecutionProvider"
    audio_rate: int | None = None
    audio_samples = 0
    calibration = None

    def __init__(self, gain: float = 0.25) -> None:
        self.gain = gain
        self.n_embeds = 0
        self.n_masks = 0
        self.reset()

    def reset(self) -> None:
        """Behave well again."""
        self.fail: BaseException | None = None
        self.not_a_number = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.take_turn: Callable[[], object] = lambda: None

    def embed(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.n_embeds += 1
        tokens = np.zeros((len(prompts), 4, FEATURES), np.float32)
        padding = np.ones((len(prompts), 4), bool)
        pooled = np.zeros((len(prompts), FEATURES), np.float32)
        for row, prompt in enumerate(prompts):
            length = min(4, 1 + len(prompt.split()))
            padding[row, :length] = False
            digest = hashlib.sha256(prompt.encode()).digest()[:FEATURES]
            pooled[row] = np.frombuffer(digest, np.uint8) / 255
            pooled[row, 0] = 0.0 if prompt == "nothing" else 1.0
            tokens[row, :length] = pooled[row]
        return tokens, padding, pooled

    def mask(self, bands: np.ndarray, embedding: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        self.n_masks += 1
        self.entered.set()
        assert self.gate.wait(300)
        self.take_turn()
        if self.fail is not None:
            raise self.fail
        pooled = embedding[2]
        gains = np.where(pooled[:, 0] == 0, 0.0, np.nan if self.not_a_number else self.gain)
        return np.broadcast_to(gains[:, None, None], (len(pooled), *bands.shape)).astype(np.float32)

    def masks(self, windows: Sequence[tuple[np.ndarray, Features]]) -> list[np.ndarray]:
        return [self.mask(bands, embedding) for bands, embedding in windows]

    def presences(self, windows: Sequence[tuple[np.ndarray, Features, np.ndarray]]) -> list[np.ndarray]:
        return [self.presence(*window) for window in windows]

    def presence(
        self,
        sound: np.ndarray,
        embedding: tuple[np.ndarray, np.ndarray, np.ndarray],
        masks: np.ndarray | None = None,
    ) -> np.ndarray:
        return embedding[2][:, 0] * 0.9


def fake_engine(network: FakeNetwork | None = None, cache: TextCache | None = None) -> Engine:
    engine = Engine(network or FakeNetwork(), SignalSpec(), "fake", {"name": "fake"}, cache or TextCache("fake", 64))
    engine.warm_up()
    return engine
