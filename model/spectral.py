"""From a spectrum to bands, from a mask of bands back, and a whole recording through both in bounded memory.

A recording flows through :class:`MaskStream` in blocks of any size: frames are analysed a few at a time, a mask is
asked for once a window of frames, and samples leave as soon as no later frame reaches them. Every cut sits at a frame
number that does not depend on the blocks, so streamed and whole agree to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Protocol

import numpy as np

from model.bands import filterbank
from model.frames import Frames
from model.pooling import Pooling, bands, spread
from model.spec import SignalSpec

__all__ = ["Frames", "LaterMask", "MaskStream", "bands", "filterbank", "separate", "spread"]

_FRAMES_AT_ONCE = 32  # of 48 kHz stereo these are 0.5 MB: what is done to them stays in a core's cache


class LaterMask(Protocol):
    """A mask that was asked for and may not be there yet."""

    def result(self) -> np.ndarray:
        """The masks ``[P, K, N]``; waits for them, and is called once, in the order of the windows."""


class MaskStream:
    """A recording separated as it comes.

    Windows of ``window_frames`` frames begin every ``window_frames - overlap_frames`` frames; where two overlap, the
    later one's mask fades in as the former's fades out. The last window is as long as what is left, filled with silent
    frames to a multiple of ``frame_multiple``. Masks come from the mid signal and serve every channel.
    """

    def __init__(
        self,
        signal: SignalSpec,
        sample_rate: int,
        n_channels: int,
        n_prompts: int,
        mask: Callable[[np.ndarray], np.ndarray | LaterMask],
        depth: int = 1,
    ) -> None:
        """Begin a recording.

        Args:
            signal: of the network.
            sample_rate: in hertz.
            n_channels: C.
            n_prompts: P.
            mask: called with the bands ``[K, N]`` of each window in turn, gives the masks ``[P, K, N]`` or what will.
            depth: windows that are asked for before the first of them has to be answered; the output is the same to
                the bit, and comes later by all but one of them, whose spectra are kept.

        Raises:
            ValueError: the rate is outside the signal's range, or there is no channel, no prompt or no depth.
        """
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        if n_channels < 1 or n_prompts < 1:
            raise ValueError(f"at least one channel and one prompt are needed, got {n_channels} and {n_prompts}")
        self.signal, self.n_channels, self.n_prompts = signal, n_channels, n_prompts
        self._mask, self._depth = mask, depth
        self._frames = Frames(signal, sample_rate)
        self._pooling = Pooling(signal, self._frames.n_bins)
        self._step = signal.window_frames - signal.overlap_frames
        fade = (np.arange(signal.overlap_frames, dtype=np.float32) + 1.0) / (signal.overlap_frames + 1.0)
        self._fade_in = fade[:, None]

        self._n_received = 0
        self._finished = False
        self._samples = np.zeros((n_channels, self._span(0, _FRAMES_AT_ONCE) + 1), np.float32)
        self._n_filled = -self._frames.start(0)  # silence before the first sample
        self._n_analysed = 0
        self._spectra: list[np.ndarray] = []  # [C, N, F] of frames from _n_synthesised on
        self._bands = np.zeros((0, signal.n_bands), np.float32)  # of frames from _next_window on
        self._next_window = 0
        self._n_asked = 0  # frames that windows asked for reach over
        self._asked: deque[tuple[int, np.ndarray | LaterMask]] = deque()  # frames of a window, and its mask to come
        self._tail = np.zeros((n_prompts, 0, signal.n_bands), np.float32)  # the last window's mask beyond its step
        self._n_synthesised = 0
        self._n_emitted = 0
        self._origin = self._frames.start(0)  # of the two sums below
        self._summed = np.zeros((n_prompts, n_channels, self._samples.shape[1]), np.float32)
        self._weights = np.zeros(self._samples.shape[1], np.float32)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take samples in, give out those that are done.

        Shape:
            ``[C, T]`` -> ``[P, C, T']``, float32; T' may be 0
        """
        return self._joined(self._feed(block))

    def finish(self) -> np.ndarray:
        """End the recording and give out the rest ``[P, C, T]``; in all as many samples as went in."""
        return self._joined(self._drain())

    def _joined(self, parts: Iterator[np.ndarray]) -> np.ndarray:
        empty = np.zeros((self.n_prompts, self.n_channels, 0), np.float32)
        return np.concatenate([empty, *parts], axis=2)

    def _feed(self, block: np.ndarray) -> Iterator[np.ndarray]:
        if self._finished:
            raise ValueError("the recording has ended")
        if block.ndim != 2 or block.shape[0] != self.n_channels:
            raise ValueError(f"a block must be [{self.n_channels}, T], got {list(block.shape)}")
        self._n_received += block.shape[1]
        while block.shape[1]:
            taken = min(block.shape[1], self._samples.shape[1] - self._n_filled)
            self._samples[:, self._n_filled : self._n_filled + taken] = block[:, :taken]
            self._n_filled += taken
            block = block[:, taken:]
            if self._n_filled >= self._span(self._n_analysed, _FRAMES_AT_ONCE):
                self._analyse(_FRAMES_AT_ONCE)
            yield from self._separate_full_windows()

    def _drain(self) -> Iterator[np.ndarray]:
        if self._finished:
            raise ValueError("the recording has ended")
        self._finished = True
        n_frames = self._frames.n_frames(self._n_received)
        while self._n_analysed < n_frames:
            self._samples[:, self._n_filled :] = 0.0
            self._n_filled = self._samples.shape[1]
            self._analyse(min(_FRAMES_AT_ONCE, n_frames - self._n_analysed))
            yield from self._separate_full_windows()
        if n_frames > self._n_asked:
            yield from self._separate_window(n_frames - self._next_window)
        while self._asked:
            yield from self._fade_and_synthesise()
        if n_frames > self._n_synthesised:
            yield from self._synthesise(self._tail[:, : n_frames - self._n_synthesised])
        yield self._emit(self._n_received)

    def _span(self, first: int, n_frames: int) -> int:
        """Samples that ``n_frames`` frames from ``first`` on reach over."""
        return self._frames.start(first + n_frames - 1) + self._frames.window_length - self._frames.start(first)

    def _analyse(self, n_frames: int) -> None:
        spectra = self._frames.analyse(self._samples, self._n_analysed, n_frames)
        self._spectra.append(spectra)
        self._bands = np.concatenate([self._bands, self._pooling.pool(*spectra)])
        advance = self._frames.start(self._n_analysed + n_frames) - self._frames.start(self._n_analysed)
        self._n_analysed += n_frames
        self._n_filled -= advance
        self._samples[:, : self._n_filled] = self._samples[:, advance : advance + self._n_filled].copy()

    def _separate_full_windows(self) -> Iterator[np.ndarray]:
        while self._n_analysed >= self._next_window + self.signal.window_frames:
            yield from self._separate_window(self.signal.window_frames)

    def _separate_window(self, n_frames: int) -> Iterator[np.ndarray]:
        """Ask for a window's mask, and go on with the masks of those before that have to be there now."""
        multiple = self.signal.frame_multiple
        window = np.zeros((-(-n_frames // multiple) * multiple, self.signal.n_bands), np.float32)
        window[:n_frames] = self._bands[:n_frames]
        self._asked.append((n_frames, self._mask(np.ascontiguousarray(window.T))))
        self._n_asked = self._next_window + n_frames
        n_done = min(self._step, n_frames)
        self._bands = self._bands[n_done:].copy()
        self._next_window += n_done
        while len(self._asked) >= self._depth:
            yield from self._fade_and_synthesise()

    def _fade_and_synthesise(self) -> Iterator[np.ndarray]:
        """Take the next mask, fade it in, and synthesise the frames that no later window will touch."""
        n_frames, mask = self._answered()
        n_faded = min(self._tail.shape[1], n_frames)
        fade_in = self._fade_in[:n_faded]
        mask[:, :n_faded] = fade_in * mask[:, :n_faded] + (1.0 - fade_in) * self._tail[:, :n_faded]
        n_done = min(self._step, n_frames)
        self._tail = mask[:, n_done:]
        yield from self._synthesise(mask[:, :n_done])

    def _answered(self) -> tuple[int, np.ndarray]:
        """Frames of the window that was asked for first, and its mask ``[P, N, K]``, our own copy."""
        n_frames, answer = self._asked.popleft()
        mask = answer if isinstance(answer, np.ndarray) else answer.result()
        multiple = self.signal.frame_multiple
        expected = (self.n_prompts, self.signal.n_bands, -(-n_frames // multiple) * multiple)
        if mask.shape != expected:
            raise ValueError(f"a mask must be {list(expected)}, got {list(mask.shape)}")
        return n_frames, np.array(mask.transpose(0, 2, 1), np.float32, order="C")[:, :n_frames]

    def _synthesise(self, mask: np.ndarray) -> Iterator[np.ndarray]:
        """Apply the next frames' masks ``[P, N, K]`` and give out the samples that are done."""
        while mask.shape[1]:
            spectra = self._spectra.pop(0)
            n_frames = min(spectra.shape[1], mask.shape[1])
            if n_frames < spectra.shape[1]:  # only where a step is no multiple of the frames at once
                self._spectra.insert(0, spectra[:, n_frames:])
                spectra = spectra[:, :n_frames]
            for prompt in range(self.n_prompts):
                bin_mask = self._pooling.spread(mask[prompt, :n_frames])
                self._frames.overlap_add(spectra * bin_mask, self._n_synthesised, self._summed[prompt])
            self._frames.add_weights(self._n_synthesised, n_frames, self._weights)
            self._n_synthesised += n_frames
            mask = mask[:, n_frames:]
            yield self._emit(min(self._frames.start(self._n_synthesised), self._n_received))

    def _emit(self, end: int) -> np.ndarray:
        """Normalise and give out the samples before ``end``, and move the sums on to the next frame's start."""
        begin, end = self._n_emitted - self._origin, max(end - self._origin, 0)
        done = Frames.normalise(self._summed[:, :, begin:end], self._weights[begin:end])
        self._n_emitted += done.shape[2]
        move = self._frames.start(self._n_synthesised) - self._origin
        for sums in (self._summed, self._weights):
            kept = sums[..., move : move + self._frames.window_length].copy()  # no laid frame reaches further
            sums[..., : kept.shape[-1]] = kept
            sums[..., kept.shape[-1] :] = 0.0
        self._origin += move
        return done


def separate(
    signal: SignalSpec,
    sample_rate: int,
    waveform: np.ndarray,
    n_prompts: int,
    mask: Callable[[np.ndarray], np.ndarray | LaterMask],
    depth: int = 1,
) -> np.ndarray:
    """Separate a whole waveform; beside the answer itself, memory does not grow with its length.

    Shape:
        waveform ``[C, T]`` -> ``[P, C, T]``; ``mask`` and ``depth`` as in :class:`MaskStream`
    """
    stream = MaskStream(signal, sample_rate, waveform.shape[0], n_prompts, mask, depth)
    stems = np.empty((n_prompts, *waveform.shape), np.float32)
    position = 0
    for part in chain(stream._feed(waveform), stream._drain()):
        stems[:, :, position : position + part.shape[2]] = part
        position += part.shape[2]
    return stems
