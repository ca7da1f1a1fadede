"""Short-time Fourier transform in seconds, exact at every sample rate, be the hop a whole number of samples or not.

Frame n is centred at sample round(n * hop_s * rate); at 22.05 kHz the steps are 220 and 221 by turns. Synthesis divides
by the sum of the squared windows that were really laid, so an unchanged spectrum gives its samples back whatever the
steps are. (Resampling such rates to a neighbour and back was the first plan: it costs a filter at each end and rings.)
Where the hop is whole this is `torch.stft(..., center=True, pad_mode="constant")` with a periodic Hann window, times
2 / sum(window).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from model.spec import SignalSpec

_SILENT_WEIGHT = 1e-8  # squared windows may add up to zero only outside the signal


class Frames:
    """Frames of one sample rate.

    Attributes:
        window_length: of analysis and synthesis, in samples.
        n_bins: bins of a native spectrum, F; they are ``1 / window_s`` apart.
    """

    def __init__(self, signal: SignalSpec, sample_rate: int) -> None:
        """Prepare the windows.

        Raises:
            ValueError: the sample rate is outside what the signal allows.
        """
        if not signal.min_rate <= sample_rate <= signal.max_rate:
            raise ValueError(f"sample rate must be {signal.min_rate} to {signal.max_rate} Hz, got {sample_rate}")
        # As a fraction, so that the frames of the tenth hour sit as exactly as the first.
        self._hop = Fraction(signal.hop_s).limit_denominator(1_000_000) * sample_rate
        self.window_length = signal.window_length(sample_rate)
        self.n_bins = self.window_length // 2 + 1
        phase = 2.0 * np.pi * np.arange(self.window_length) / self.window_length
        window = 0.5 - 0.5 * np.cos(phase)
        scale = window.sum() / 2.0  # a sine of amplitude 1 has a bin of magnitude 1, whatever the rate
        self._analysis = (window / scale).astype(np.float32)
        self._synthesis = (window * scale).astype(np.float32)
        self._weight = (window * window).astype(np.float32)

    def start(self, frame: int) -> int:
        """First sample of a frame; half a window before its centre, so negative for the first ones."""
        twice, denominator = 2 * frame * self._hop.numerator, self._hop.denominator
        return (twice + denominator) // (2 * denominator) - self.window_length // 2

    def n_frames(self, n_samples: int) -> int:
        """Frames that cover ``n_samples``: the first is centred on the first sample, the last past the last one."""
        return 0 if n_samples == 0 else -(-n_samples * self._hop.denominator // self._hop.numerator) + 1

    def analyse(self, samples: np.ndarray, first: int, n_frames: int) -> np.ndarray:
        """Spectra of frames ``first`` and on.

        Shape:
            samples ``[C, T]``, the first of them sample ``start(first)`` -> complex64 ``[C, N, F]``
        """
        origin = self.start(first)
        cut = np.empty((samples.shape[0], n_frames, self.window_length), np.float32)
        for index in range(n_frames):
            at = self.start(first + index) - origin
            np.multiply(samples[:, at : at + self.window_length], self._analysis, out=cut[:, index])
        return np.fft.rfft(cut, axis=-1)

    def overlap_add(self, spectra: np.ndarray, first: int, out: np.ndarray) -> None:
        """Add the waveforms of frames ``first`` and on to ``out``, unnormalised.

        Shape:
            spectra ``[C, N, F]``; out ``[C, T]``, the first of it sample ``start(first)``
        """
        origin = self.start(first)
        cut = np.fft.irfft(spectra, self.window_length, axis=-1)
        cut *= self._synthesis
        for index in range(cut.shape[1]):
            at = self.start(first + index) - origin
            out[:, at : at + self.window_length] += cut[:, index]

    def add_weights(self, first: int, n_frames: int, out: np.ndarray) -> None:
        """Add the squared windows of frames ``first`` and on to ``out [T]``, which begins at ``start(first)``."""
        origin = self.start(first)
        for index in range(n_frames):
            at = self.start(first + index) - origin
            out[at : at + self.window_length] += self._weight

    @staticmethod
    def normalise(summed: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Samples from overlap-added frames ``[..., T]`` and their weights ``[T]``."""
        return summed / np.maximum(weights, _SILENT_WEIGHT)

    def forward(self, waveform: np.ndarray) -> np.ndarray:
        """Spectrum of a whole waveform.

        Shape:
            ``[C, T]`` -> complex64 ``[C, F, N]``
        """
        n_channels, n_samples = waveform.shape
        n_frames = self.n_frames(n_samples)
        if n_frames == 0:
            return np.zeros((n_channels, self.n_bins, 0), np.complex64)
        before = self.window_length // 2
        after = self.start(n_frames - 1) + self.window_length - n_samples
        padded = np.pad(np.asarray(waveform, np.float32), ((0, 0), (before, after)))
        return self.analyse(padded, 0, n_frames).transpose(0, 2, 1)

    def inverse(self, spectrum: np.ndarray, n_samples: int) -> np.ndarray:
        """Waveform of a whole spectrum.

        Shape:
            complex ``[C, F, N]``, N = ``n_frames(n_samples)`` -> ``[C, T]``
        """
        n_frames = spectrum.shape[2]
        if n_frames != self.n_frames(n_samples):
            raise ValueError(f"{n_samples} samples have {self.n_frames(n_samples)} frames, got {n_frames}")
        before = self.window_length // 2
        length = self.start(max(n_frames - 1, 0)) + self.window_length + before
        summed, weights = np.zeros((spectrum.shape[0], length), np.float32), np.zeros(length, np.float32)
        if n_frames:
            self.overlap_add(spectrum.transpose(0, 2, 1), 0, summed)
            self.add_weights(0, n_frames, weights)
        return self.normalise(summed, weights)[:, before : before + n_samples]
