"""A bundle at work: phrases to embeddings, bands to masks, recordings to stems. ONNX Runtime and numpy, no torch.

Service, command line and evaluation all separate through here, so what is measured is what is served.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from model.bundle import Bundle
from model.calibration import Calibration
from model.presence import energy_db, logistic, probabilities
from model.spectral import MaskStream, separate
from model.windows import repeats, window_starts

DEVICES = ("auto", "cpu", "cuda")
Embedding = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens [P, L, D], padding [P, L] (True = pad), pooled [P, E]

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_MIN_AUDIO_FRAMES = 16
_log = logging.getLogger(__name__)


class Runtime:
    """The three graphs of a bundle, loaded. Safe to use from several threads.

    Attributes:
        bundle: what is loaded.
        provider: what runs the graphs, in ONNX Runtime's words, such as ``CPUExecutionProvider``.
    """

    def __init__(self, bundle: Bundle, threads: int = 2, device: str = "auto") -> None:
        """Load the graphs.

        Args:
            bundle: an opened bundle.
            threads: CPU threads of one inference.
            device: ``cpu``, ``cuda``, or ``auto``: CUDA where it works, else the CPU, with a warning if the GPU build
                of ONNX Runtime is installed and finds no GPU.

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
        open_session = _Opener(threads, device).open
        self._separator = open_session(bundle.file("separator.onnx"))
        self._text = open_session(bundle.file("text.onnx"))
        self._audio = open_session(bundle.file("audio.onnx"))
        self.provider: str = self._separator.get_providers()[0]
        inputs = {tensor.name for tensor in self._separator.get_inputs()}
        expected = set(separator_inputs(bundle.network.conditioning))
        if inputs != expected:
            raise ValueError(
                f"{bundle.file('separator.onnx')}: inputs must be {sorted(expected)}, got {sorted(inputs)}"
            )
        heard = [tensor.name for tensor in self._audio.get_inputs()]
        if heard != [bundle.embedder.audio_input]:
            raise ValueError(
                f"{bundle.file('audio.onnx')}: its input must be {bundle.embedder.audio_input}, got {heard}"
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
        tokens, padding, pooled = embedding
        inputs = {"bands": bands[None], "pooled": pooled[None]}
        if self.bundle.network.conditioning == "attention":
            inputs |= {"tokens": tokens[None], "padding": padding[None]}
        mask: np.ndarray = self._separator.run(["mask"], inputs)[0][0]
        return mask

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
        if sound.ndim != (1 if self.audio_rate else 2):
            wanted = f"a waveform [T] at {self.audio_rate} Hz" if self.audio_rate else "bands [K, N]"
            raise ValueError(f"the audio tower takes {wanted}, got an array of {list(sound.shape)}")
        return pooled @ (self._hear_waveform(sound) if self.audio_rate else self._hear_bands(sound))

    def _hear_bands(self, bands: np.ndarray) -> np.ndarray:
        short = _MIN_AUDIO_FRAMES - bands.shape[1]
        if short > 0:
            bands = np.pad(bands, ((0, 0), (0, short)))
        heard: np.ndarray = self._audio.run(["embedding"], {"bands": np.asarray(bands, np.float32)[None]})[0][0]
        return heard

    def _hear_waveform(self, waveform: np.ndarray) -> np.ndarray:
        """As the embedder does: short ones repeated, of long ones the mean over windows that cover them."""
        length = self.bundle.embedder.audio_samples
        repeated = np.tile(np.asarray(waveform, np.float32), repeats(len(waveform), length))
        padded = np.pad(repeated, (0, max(0, length - len(repeated))))
        windows = (padded[start : start + length] for start in window_starts(len(padded), length))
        # One at a time: an hour's windows would not fit into memory.
        mean = np.mean([self._audio.run(["embedding"], {"waveform": part[None]})[0][0] for part in windows], axis=0)
        heard: np.ndarray = mean / np.linalg.norm(mean)
        return heard

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
        calibration = self.calibration
        if calibration is None:
            return logistic(self.bundle.embedder.logit_scale * cosine)
        if masks is None or not calibration.separated:
            return probabilities(calibration, cosine)
        stem_cosine = self.stem_similarity(sound, masks, embedding[2])
        return probabilities(calibration, cosine, stem_cosine, energy_db(sound, masks))

    def stem_similarity(self, bands: np.ndarray, masks: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        """Cosines ``[P]`` of each stem of a window with its own prompt; 0 for a silent one.

        Shape:
            bands ``[K, N]``, masks ``[P, K, N]``, pooled ``[P, E]``
        """
        return np.array(
            [
                float(prompt @ self._hear_bands(mask * bands)) if mask.any() else 0.0
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

    def separate(self, waveform: np.ndarray, sample_rate: int, prompts: Sequence[str] | Embedding) -> np.ndarray:
        """Separate a whole waveform.

        Shape:
            ``[C, T]`` -> ``[P, C, T]``

        Raises:
            ValueError: as :meth:`stream`.
            FloatingPointError: a mask is not finite.
        """
        mask, n_prompts = self._masker(prompts)
        return separate(self.bundle.signal, sample_rate, waveform, n_prompts, mask)

    def _masker(self, prompts: Sequence[str] | Embedding) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
        is_embedding = isinstance(prompts, tuple) and len(prompts) == 3 and isinstance(prompts[2], np.ndarray)
        embedding: Any = prompts if is_embedding else self.embed([str(prompt) for prompt in prompts])

        def mask(bands: np.ndarray) -> np.ndarray:
            answer = self.mask(bands, embedding)
            if not np.isfinite(answer.sum()):  # a sum is finite only if all it adds up is
                raise FloatingPointError("the model's mask is not finite")
            return answer

        return mask, len(embedding[2])


def separator_inputs(conditioning: str) -> tuple[str, ...]:
    """Names of the separator's inputs; token features are there only for a network that attends to them."""
    return ("bands", "pooled", "tokens", "padding") if conditioning == "attention" else ("bands", "pooled")


class _Opener:
    """What every session is opened with."""

    def __init__(self, threads: int, device: str) -> None:
        self._onnxruntime = _import_onnxruntime()
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that spin for work between two windows take the cores from whoever does the transforms.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; what matters of the providers is checked below
        self._options, self._device = options, device
        self._providers: list[Any] = [_CPU]
        offered = _CUDA in self._onnxruntime.get_available_providers()
        if device == "cuda" and not offered:
            raise RuntimeError(
                f"device 'cuda' needs the GPU build of ONNX Runtime, this one offers only "
                f"{', '.join(self._onnxruntime.get_available_providers())}; "
                f"mend it with: pip uninstall -y onnxruntime && pip install 'winnow[gpu]'"
            )
        if device != "cpu" and offered:
            self._load_cuda_libraries()
            # Full precision, so that a GPU answers as a CPU does; an exhaustive search of convolutions would stall at
            # the first window of each new length.
            self._providers.insert(0, (_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}))

    def open(self, path: Path) -> Any:
        """Load a graph, and see that the device is really the one meant: ONNX Runtime falls back without a word."""
        try:
            session = self._onnxruntime.InferenceSession(str(path), self._options, providers=self._providers)
        except Exception as error:  # its exceptions have no common base but this
            raise ValueError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        if len(self._providers) > 1 and session.get_providers()[0] != _CUDA:
            if self._device == "cuda":
                raise RuntimeError(
                    "device 'cuda' was asked for and CUDA cannot be used: no GPU, driver or CUDA library"
                )
            _log.warning("the GPU build of ONNX Runtime is installed and CUDA cannot be used; running on the CPU")
            self._providers = [_CPU]  # say it once
        return session

    def _load_cuda_libraries(self) -> None:
        """Load CUDA and cuDNN from their Python packages, where they are; it prints what it does not find."""
        if hasattr(self._onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                self._onnxruntime.preload_dlls()


def _import_onnxruntime() -> Any:
    """ONNX Runtime, if exactly one build of it is installed; the two share one folder and break each other."""
    builds = ("onnxruntime", "onnxruntime-gpu")
    installed = []
    for build in builds:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(build)
            installed.append(build)
    if len(installed) > 1:
        raise RuntimeError(
            "onnxruntime and onnxruntime-gpu are both installed and hide each other; mend it with: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'winnow[cpu]'   (or 'winnow[gpu]')"
        )
    # Its Linux builds report to their maker unless told not to, before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(
            "ONNX Runtime is not installed; mend it with: pip install winnow[cpu]   (or winnow[gpu])"
        ) from error
    return onnxruntime
