"""A bundle's audio tower at work: embeddings of bands, several at once where that pays, and of waveforms."""

from __future__ import annotations

import numpy as np

from model.batch import BUCKETS, bucket, pad_rows
from model.device import Graph
from model.spec import EmbedderSpec
from model.windows import repeats, window_starts

_MIN_FRAMES = 16


class AudioGraph:
    """The graph and what it takes."""

    def __init__(self, graph: Graph, spec: EmbedderSpec) -> None:
        """Take a loaded graph and what the manifest says of it."""
        self._graph, self._spec = graph, spec

    def hear(self, sound: np.ndarray) -> np.ndarray:
        """The embedding ``[E]`` of bands ``[K, N]`` or of a waveform ``[T]``, whichever the tower takes.

        Raises:
            ValueError: it is the other one, or a waveform of no samples.
        """
        rate = self._spec.audio_sample_rate
        if sound.ndim != (1 if rate else 2):
            wanted = f"a waveform [T] at {rate} Hz" if rate else "bands [K, N]"
            raise ValueError(f"the audio tower takes {wanted}, got an array of {list(sound.shape)}")
        return self._hear_waveform(sound) if rate else self._hear_some(sound[None])[0]

    def hear_bands(self, bands: np.ndarray) -> np.ndarray:
        """Embeddings ``[B, E]`` of bands ``[B, K, N]``, a bucket of them at a time."""
        most = BUCKETS[-1]
        return np.concatenate(
            [
                self._hear_some(pad_rows(part, bucket(len(part))))[: len(part)]
                for part in (bands[at : at + most] for at in range(0, len(bands), most))
            ]
        )

    def _hear_some(self, bands: np.ndarray) -> np.ndarray:
        short = _MIN_FRAMES - bands.shape[2]
        if short > 0:
            bands = np.pad(bands, ((0, 0), (0, 0), (0, short)))
        return self._graph.run(["embedding"], {"bands": np.asarray(bands, np.float32)})[0]

    def _hear_waveform(self, waveform: np.ndarray) -> np.ndarray:
        """As the embedder does: short ones repeated, of long ones the mean over windows that cover them."""
        length = self._spec.audio_samples
        repeated = np.tile(np.asarray(waveform, np.float32), repeats(len(waveform), length))
        padded = np.pad(repeated, (0, max(0, length - len(repeated))))
        windows = (padded[start : start + length] for start in window_starts(len(padded), length))
        # One at a time: an hour's windows would not fit into memory.
        mean = np.mean([self._graph.run(["embedding"], {"waveform": part[None]})[0][0] for part in windows], axis=0)
        heard: np.ndarray = mean / np.linalg.norm(mean)
        return heard
