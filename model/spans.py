"""When a prompt's sound is heard: runs of frames in which its stem holds a part of the mixture worth naming.

A run reaches as far as the stem is above a low threshold and counts if it passes a high one somewhere (hysteresis), so
that begin and end are where the sound rises and dies, and a sound near one threshold does not flicker. Two things must
pass: the stem's share of the mixture, and its level under the loudest it has been so far. Both are smoothed over a few
frames. Memory holds a window's energies and two numbers a span.
"""

from __future__ import annotations

import numpy as np

from model.spec import SignalSpec

SMOOTH_S = 0.05
SHARE_DB = (-8.0, -14.0)  # of the mixture: to count, to go on
LEVEL_DB = (-20.0, -30.0)  # under the loudest so far: to count, to go on
SHORTEST_S = 0.10
GAP_S = 0.40  # what is closer together is one span: ticks, syllables, barks of one dog
_TINY = 1e-12

Span = tuple[float, float]


class SpanFinder:
    """Finds the spans of several prompts in a recording that comes window by window."""

    def __init__(self, signal: SignalSpec, n_prompts: int) -> None:
        self._hop_s = signal.hop_s
        self._half = max(0, round(SMOOTH_S / signal.hop_s / 2))
        self._step = signal.window_frames - signal.overlap_frames
        self._mixture = np.zeros(self._half)
        self._stems = np.zeros((n_prompts, self._half))
        self._likely = np.zeros((n_prompts, self._half), bool)
        self._first = 0  # frame that the smoothed buffer begins with
        self._tail: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._loudest = np.zeros(n_prompts)
        self._runs = [_Runs(round(SHORTEST_S / self._hop_s), round(GAP_S / self._hop_s)) for _ in range(n_prompts)]

    def push(self, mixture: np.ndarray, stems: np.ndarray, likely: np.ndarray | None = None) -> None:
        """Take the next window's energies; only prompts that are ``likely`` in it, by default all, have spans there.

        Shape:
            mixture [N], stems [P, N], likely [P] bool
        """
        marked = np.repeat((np.ones(len(stems), bool) if likely is None else likely)[:, None], stems.shape[1], axis=1)
        if self._tail is not None and len(self._tail[0]):
            # The two windows share these frames, and either may have found the sound in them.
            shared = min(len(self._tail[0]), stems.shape[1])
            stems = stems.copy()
            stems[:, :shared] = np.maximum(stems[:, :shared], self._tail[1][:, :shared])
            marked[:, :shared] |= self._tail[2][:, :shared]
        step = min(self._step, len(mixture))
        self._take(mixture[:step], stems[:, :step], marked[:, :step])
        self._tail = mixture[step:].copy(), stems[:, step:].copy(), marked[:, step:].copy()

    def finish(self) -> list[tuple[Span, ...]]:
        """End the recording and return each prompt's spans in seconds."""
        if self._tail is not None:
            self._take(*self._tail)
        hop_s, ends = self._hop_s, np.zeros((len(self._stems), self._half))
        self._take(np.zeros(self._half), ends, ends.astype(bool))
        return [
            tuple((round(begin * hop_s, 3), round(end * hop_s, 3)) for begin, end in runs.finish(self._first))
            for runs in self._runs
        ]

    def _take(self, mixture: np.ndarray, stems: np.ndarray, likely: np.ndarray) -> None:
        self._mixture = np.concatenate([self._mixture, mixture])
        self._stems = np.concatenate([self._stems, stems], axis=1)
        self._likely = np.concatenate([self._likely, likely], axis=1)
        n_done = len(self._mixture) - 2 * self._half
        if n_done <= 0:
            return
        around, found = self._smooth(self._mixture[None])[0], self._smooth(self._stems)
        self._loudest = np.maximum(self._loudest, found.max(axis=1))
        share_db = 10.0 * np.log10((found + _TINY) / (around + _TINY))
        level_db = 10.0 * np.log10((found + _TINY) / (self._loudest[:, None] + _TINY))
        heard = self._likely[:, self._half : self._half + n_done] & (found > _TINY)
        counts = heard & (share_db >= SHARE_DB[0]) & (level_db >= LEVEL_DB[0])
        goes_on = heard & (share_db >= SHARE_DB[1]) & (level_db >= LEVEL_DB[1])
        for runs, strong, weak in zip(self._runs, counts, goes_on, strict=True):
            runs.push(self._first, strong, weak)
        self._first += n_done
        self._mixture = self._mixture[n_done:]
        self._stems, self._likely = self._stems[:, n_done:], self._likely[:, n_done:]

    def _smooth(self, rows: np.ndarray) -> np.ndarray:
        width = 2 * self._half + 1
        summed = np.cumsum(np.pad(rows, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
        return np.maximum(summed[:, width:] - summed[:, :-width], 0.0) / width


class _Runs:
    """One prompt's runs of frames, those that are close together joined; the last one may still grow."""

    def __init__(self, shortest: int, gap: int) -> None:
        self._shortest, self._gap = shortest, gap
        self._done: list[tuple[int, int]] = []
        self._begin: int | None = None  # of the run that the last block ended in
        self._strong = False

    def push(self, first: int, strong: np.ndarray, weak: np.ndarray) -> None:
        """Take the next frames, ``first`` and on: where the sound counts, and where it goes on. Shape: [N] bool."""
        edges = np.flatnonzero(np.diff(np.concatenate([[self._begin is not None], weak])))
        position = 0
        for edge in [*edges.tolist(), len(weak)]:
            if self._begin is not None:
                self._strong = self._strong or bool(strong[position:edge].any())
            if edge == len(weak):
                break
            if self._begin is None:
                self._begin = first + edge
            else:
                self._close(first + edge)
            position = edge

    def finish(self, end: int) -> list[tuple[int, int]]:
        """End at a frame; the runs that are long enough, as (first frame, frame after the last)."""
        self._close(end)
        return [(begin, end) for begin, end in self._done if end - begin >= self._shortest]

    def _close(self, end: int) -> None:
        begin, strong = self._begin, self._strong
        self._begin, self._strong = None, False
        if begin is None or not strong:
            return
        if self._done and begin - self._done[-1][1] <= self._gap:
            self._done[-1] = (self._done[-1][0], end)
        else:
            self._forget_short()
            self._done.append((begin, end))

    def _forget_short(self) -> None:
        if self._done and self._done[-1][1] - self._done[-1][0] < self._shortest:
            self._done.pop()
