"""What one separation took: the time of each stage, the audio, the cache; the one account that every reader shares.

Server-Timing, the metrics, the request's line in the log and its spans are all read from here, so they cannot disagree.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One kind of work within a request, which may come in many pieces (a window is one).

    Attributes:
        began_s: when the first piece began, on the clock of :func:`time.perf_counter`.
        ended_s: when the last one ended.
        busy_s: all pieces together; more than the time between where pieces ran beside each other.
        pieces: how many there were.
    """

    began_s: float
    ended_s: float
    busy_s: float
    pieces: int = 1

    def joined(self, other: Stage) -> Stage:
        """Both as one."""
        return Stage(
            min(self.began_s, other.began_s),
            max(self.ended_s, other.ended_s),
            self.busy_s + other.busy_s,
            self.pieces + other.pieces,
        )


class Timings:
    """The account of one separation. Safe to write from several threads.

    Attributes:
        audio_in_s: seconds of the recording; 0 until it is decoded.
        audio_out_s: seconds of all files that were made of it.
        prompts: as asked; never a label, and in a log only when the operator wants it.
        cache_states: where each prompt's embedding came from.
    """

    def __init__(self) -> None:
        """Begin with nothing measured."""
        self._lock = threading.Lock()
        self._stages: dict[str, Stage] = {}
        self.audio_in_s = 0.0
        self.audio_out_s = 0.0
        self.prompts: tuple[str, ...] = ()
        self.cache_states: tuple[str, ...] = ()

    @property
    def spans(self) -> dict[str, Stage]:
        """The stages by name, in the order they were first measured."""
        with self._lock:
            return dict(self._stages)

    @property
    def stages(self) -> dict[str, float]:
        """Milliseconds by stage, in the order they were first measured."""
        return {name: 1_000 * stage.busy_s for name, stage in self.spans.items()}

    def add(self, stage: str, began_s: float, ended_s: float | None = None) -> None:
        """Account for a piece of work, until now unless it ended before (:func:`time.perf_counter`)."""
        ended_s = time.perf_counter() if ended_s is None else ended_s
        piece = Stage(began_s, ended_s, ended_s - began_s)
        with self._lock:
            known = self._stages.get(stage)
            self._stages[stage] = piece if known is None else known.joined(piece)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Account for the block, also when it fails."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, began_s)

    def header(self) -> str:
        """As a Server-Timing header."""
        return ", ".join(f"{stage};dur={duration:.1f}" for stage, duration in self.stages.items())
