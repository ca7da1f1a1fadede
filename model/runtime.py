"""A bundle at work: phrases to embeddings, bands to masks, recordings to stems. ONNX Runtime and numpy, no torch.

Service, command line and evaluation all separate through here, so what is measured is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from model.audio_graph import AudioGraph
from model.batch import Features as Embedding
from model.batch import stack
from model.bundle import Bundle
from model.calibration import Calibration
from model.device import DEVICES, CudaOptions, Opener
from model.presence import energy_db, logistic, probabilities
from model.sharing import share_out
from model.spectral import MaskStream, separate

__all__ = ["DEVICES", "Embedding", "Runtime", "separator_inputs"]


class Runtime:
    """The three graphs of a bundle, loaded. Safe to use from several threads.

    Attributes:
        bundle: what is loaded.
        provider: what runs the graphs, in ONNX Runtime's words, such as ``CPUExecutionProvider``.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 2,
        device: str = "auto",
        cuda: CudaOptions | None = None,
        separator: Path | None = None,
    ) -> None:
        """Load the graphs.

        Args:
            bundle: an opened bundle.
            threads: CPU threads of one inference.
            device: ``cpu``, ``cuda``, or ``auto``: CUDA where it works, else the CPU, with a warning if the GPU build
                of ONNX Runtime is installed and finds no GPU.
            cuda: what CUDA is told, where it is used.
            separator: a graph to run in the place of the bundle's, such as one of another precision.

        Raises:
            ValueError: an argument is out of range, or a graph cannot be loaded or is not what the manifest says.
            RuntimeError: no runtime is installed, or two, or ``cuda`` is asked for and is not to be had.
        """
        if device not in DEVICES:
            raise ValueError(f"device must be one of {DEVICES}, got {device!r}")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.bundle = bundle
        self._tokenizer = Tokenizer.from_file(str(bundle.file("tokenizer.json")))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(bundle.embedder.max_tokens)
        open_graph = Opener(threads, device, cuda or CudaOptions()).open
        self._separator = open_graph(separator or bundle.file("separator.onnx"))
        self._text = open_graph(bundle.file("text.onnx"))
        audio = open_graph(bundle.file("audio.onnx"))
        self._audio = AudioGraph(audio, bundle.embedder)
        self.provider: str = self._separator.provider
        self._inputs = separator_inputs(bundle.network.conditioning)
        if set(self._separator.inputs) != set(self._inputs):
            raise ValueError(
                f"{bundle.file('separator.onnx')}: inputs must be {sorted(self._inputs)}, "
                f"got {sorted(self._separator.inputs)}"
            )
        if audio.inputs != [bundle.embedder.audio_input]:
            raise ValueError(
                f"{bundle.file('audio.onnx')}: its input must be {bundle.embedder.audio_input}, got {audio.inputs}"
            )

    def embed(self, prompts: Sequence[str]) -> Embedding:
        """Embed phrases: tokens ``[P, L, D]``, padding ``[P, L]`` bool (True where padded), pooled ``[P, E]``.

        Raises:
            ValueError: there is no prompt.
        """
        if not prompts:
            raise ValueError("at least one prompt is needed, got none")
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(prompts))]
        ids = np.zeros((len(rows), max(1, *map(len, rows))), np.int64)
        padding = np.ones(ids.shape, bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            padding[index, : len(row)] = False
        tokens, pooled = self._text.run(["tokens", "pooled"], {"ids": ids, "padding": padding})
        return tokens, padding, pooled

    def mask(self, bands: np.ndarray, embedding: Embedding) -> np.ndarray:
        """Masks of one window.

        Shape:
            bands ``[K, N]``, N a multiple of ``frame_multiple`` -> ``[P, K, N]`` in 0..1, as the graph gives it:
            whoever serves it checks that it is finite
        """
        return self.masks([(bands, embedding)])[0]

    def masks(self, windows: Sequence[tuple[np.ndarray, Embedding]]) -> list[np.ndarray]:
        """Masks of several windows in one run, as :meth:`mask` gives each; a batch is filled up to a bucket.

        Raises:
            ValueError: there is none, there are more than the largest bucket, or they differ in frames or prompts.
        """
        mask = self._separator.run(["mask"], stack(windows, self._inputs))[0]
        return list(mask[: len(windows)])

    @property
    def audio_rate(self) -> int | None:
        """Sample rate of the waveforms that the audio tower takes; None where it takes a window's bands."""
        return self.bundle.embedder.audio_sample_rate or None

    @property
    def audio_samples(self) -> int:
        """Samples of a waveform that are heard at once; longer ones cost one run of the graph for each as many."""
        return self.bundle.embedder.audio_samples

    def similarity(self, sound: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        """Cosines ``[P]`` of what is heard and of pooled prompts ``[P, E]``.

        Args:
            sound: bands ``[K, N]`` of any length; or, where there is an ``audio_rate``, a waveform ``[T]`` at it.
            pooled: as :meth:`embed` gives it.

        Raises:
            ValueError: ``sound`` is not what the audio tower takes, or is a waveform of no samples.
        """
        return pooled @ self._audio.hear(sound)

    @property
    def calibration(self) -> Calibration | None:
        """How presence was calibrated; None where :meth:`presence` gives a raw score."""
        return self.bundle.calibration

    def presence(self, sound: np.ndarray, embedding: Embedding, masks: np.ndarray | None = None) -> np.ndarray:
        """How surely each prompt's sound is in what :meth:`similarity` takes: ``[P]``, 0 to 1.

        Args:
            sound: bands ``[K, N]`` or a waveform ``[T]``.
            embedding: as :meth:`embed` gives it.
            masks: ``[P, K, N]`` of a window of bands: what they let through is heard as well, which is surer.

        Without a calibration it is the logistic function of ``logit_scale`` times the cosine, whatever the masks.
        """
        cosine = self.similarity(sound, embedding[2])
        if masks is None or not self._hears_stems:
            return self._probabilities(cosine)
        return self._probabilities(cosine, self.stem_similarity(sound, masks, embedding[2]), energy_db(sound, masks))

    def presences(self, windows: Sequence[tuple[np.ndarray, Embedding, np.ndarray]]) -> list[np.ndarray]:
        """As :meth:`presence`, of several windows of bands and their masks, alike in frames, in few runs."""
        heard = self._audio.hear_bands(np.stack([bands for bands, _, _ in windows]))
        cosines = [pooled @ row for (_, (_, _, pooled), _), row in zip(windows, heard, strict=True)]
        if not self._hears_stems:
            return [self._probabilities(cosine) for cosine in cosines]
        rows = [
            (prompt, mask * bands)
            for bands, (_, _, pooled), masks in windows
            for prompt, mask in zip(pooled, masks, strict=True)
        ]
        embedded = self._audio.hear_bands(np.stack([stem for _, stem in rows]))
        of_stems = np.array(
            [float(prompt @ row) if stem.any() else 0.0 for (prompt, stem), row in zip(rows, embedded, strict=True)]
        )
        ends = np.cumsum([len(masks) for _, _, masks in windows])
        return [
            self._probabilities(cosine, stem_cosine, energy_db(bands, masks))
            for cosine, stem_cosine, (bands, _, masks) in zip(
                cosines, np.split(of_stems, ends[:-1]), windows, strict=True
            )
        ]

    @property
    def _hears_stems(self) -> bool:
        return self.calibration is not None and bool(self.calibration.separated)

    def _probabilities(
        self, cosine: np.ndarray, stem_cosine: np.ndarray | None = None, stem_energy_db: np.ndarray | None = None
    ) -> np.ndarray:
        if self.calibration is None:
            return logistic(self.bundle.embedder.logit_scale * cosine)
        return probabilities(self.calibration, cosine, stem_cosine, stem_energy_db)

    def stem_similarity(self, bands: np.ndarray, masks: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        """Cosines ``[P]`` of each stem of a window with its own prompt; 0 for a silent one.

        Shape:
            bands ``[K, N]``, masks ``[P, K, N]``, pooled ``[P, E]``
        """
        return np.array(
            [
                float(prompt @ self._audio.hear(mask * bands)) if mask.any() else 0.0
                for mask, prompt in zip(masks, pooled, strict=True)
            ]
        )

    def stream(self, sample_rate: int, n_channels: int, prompts: Sequence[str] | Embedding) -> MaskStream:
        """Begin a recording; ``prompts`` are phrases or what :meth:`embed` made of them.

        Raises:
            ValueError: the rate is outside the signal's range, or there is no channel or no prompt.
        """
        mask, n_prompts = self._masker(prompts)
        return MaskStream(self.bundle.signal, sample_rate, n_channels, n_prompts, mask)

    def separate(
        self, waveform: np.ndarray, sample_rate: int, prompts: Sequence[str] | Embedding, *, exhaustive: bool = False
    ) -> np.ndarray:
        """Separate a whole waveform; ``exhaustive`` says that the prompts name every sound in it.

        Shape:
            ``[C, T]`` -> ``[P, C, T]``

        Raises:
            ValueError: as :meth:`stream`.
            FloatingPointError: a mask is not finite.
        """
        mask, n_prompts = self._masker(prompts, exhaustive)
        return separate(self.bundle.signal, sample_rate, waveform, n_prompts, mask)

    def _masker(
        self, prompts: Sequence[str] | Embedding, exhaustive: bool = False
    ) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
        is_embedding = isinstance(prompts, tuple) and len(prompts) == 3 and isinstance(prompts[2], np.ndarray)
        embedding: Any = prompts if is_embedding else self.embed([str(prompt) for prompt in prompts])

        def mask(bands: np.ndarray) -> np.ndarray:
            answer = self.mask(bands, embedding)
            if not np.isfinite(answer.sum()):  # a sum is finite only if all it adds up is
                raise FloatingPointError("the model's mask is not finite")
            return self._shared(bands, embedding, answer) if exhaustive else answer

        return mask, len(embedding[2])

    def _shared(self, bands: np.ndarray, embedding: Embedding, masks: np.ndarray) -> np.ndarray:
        weighs = self.calibration is not None and not self.audio_rate
        return share_out(masks, len(masks), self.presence(bands, embedding, masks) if weighs else None)


def separator_inputs(conditioning: str) -> tuple[str, ...]:
    """Names of the separator's inputs; token features are there only for a network that attends to them."""
    return ("bands", "pooled", "tokens", "padding") if conditioning == "attention" else ("bands", "pooled")
