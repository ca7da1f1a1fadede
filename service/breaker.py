"""A circuit breaker: after some failures in a row, leave the other side alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Closed, then open for ``pause_s`` seconds after ``failures`` in a row, then half open: one call tries.

    Safe to use from several threads. ``clock`` counts seconds and never goes back.
    """

    def __init__(self, failures: int, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: float | None = None
        self._trying = False

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        with self._lock:
            if self._open_until is None:
                return "closed"
            return "open" if self._clock() < self._open_until else "half-open"

    def allows(self) -> bool:
        """Whether to call now. A caller that is allowed must report with success or failure."""
        with self._lock:
            if self._open_until is None:
                return True
            if self._trying or self._clock() < self._open_until:
                return False
            self._trying = True
            return True

    def success(self) -> None:
        """The call worked: close."""
        with self._lock:
            self._failures = 0
            self._open_until = None
            self._trying = False

    def failure(self) -> None:
        """The call failed: open after enough of them, or at once when half open."""
        with self._lock:
            self._failures += 1
            if self._trying or self._failures >= self._limit:
                self._open_until = self._clock() + self._pause_s
            self._trying = False
