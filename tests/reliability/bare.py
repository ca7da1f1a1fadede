"""The model without a service around it, for ratios: one thread, sounds in memory, one after another."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from model.spectral import MaskStream
from service.ask import PromptLimits, read_ask
from service.call import Call
from service.embedding import join
from service.loading import load_engine
from service.separation import Separator
from service.settings import Settings

RATE = 48_000
PROMPT = "dog barking"


def clip(duration_s: float, seed: int = 0) -> bytes:
    """A 16-bit mono WAV at 48 kHz: tones in noise."""
    clock = np.arange(int(duration_s * RATE)) / RATE
    rng = np.random.default_rng(seed)
    sound = 0.05 * rng.standard_normal(len(clock)) + 0.2 * np.sin(2 * np.pi * 440 * clock * (1 + 0.1 * np.sin(clock)))
    out = io.BytesIO()
    soundfile.write(out, sound, RATE, "PCM_16", format="WAV")
    return out.getvalue()


class Bare:
    """The engine of some settings in this process."""

    def __init__(self, settings: Settings) -> None:
        self._engine = load_engine(settings)
        self._settings = settings
        self._separator = Separator.of(self._engine, settings)

    def engine_rate(self, audio: bytes, seconds: float) -> float:
        """Clips a second through spectra, masks and presence: what the service would do if all else cost nothing."""
        samples, rate = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
        network, signal = self._engine.network, self._engine.signal
        embeddings, _ = self._engine.embed((PROMPT,))
        embedding = join(embeddings)

        def infer(bands: np.ndarray) -> np.ndarray:
            mask = network.mask(bands, embedding)
            network.presence(bands, embedding, mask)
            return mask

        def once() -> None:
            stream = MaskStream(signal, rate, samples.shape[1], 1, infer)
            stream.push(samples.T)
            stream.finish()

        return _rate(once, seconds)

    def path_rate(self, audio: bytes, seconds: float) -> float:
        """Clips a second from file to file: decoding and encoding too, but no HTTP and nothing side by side."""
        ask = read_ask({"prompt": [PROMPT]}, None, PromptLimits(8, 256))

        def once() -> None:
            with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
                file.write(audio)
                self._separator.run(file, ask, Path(folder), Call())

        return _rate(once, seconds)

    def close(self) -> None:
        """Let go of it."""
        self._engine.close()


def _rate(once: object, seconds: float) -> float:
    assert callable(once)
    once()
    began_s, n = time.perf_counter(), 0
    while time.perf_counter() - began_s < seconds:
        once()
        n += 1
    return n / (time.perf_counter() - began_s)
