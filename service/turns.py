"""A lock that is first come, first served: threads that ask again and again cannot keep out one that asked once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """One thread at a time, in the order of asking. ``threading.Lock`` promises no order, and has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """Threads that wait for their turn."""
        return max(0, len(self._queue) - 1)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn; it ends with the block."""
        mine = threading.Event()
        with self._lock:
            self._queue.append(mine)
            first = self._queue[0] is mine
        if not first:
            mine.wait()
        try:
            yield
        finally:
            with self._lock:
                self._queue.popleft()
                if self._queue:
                    self._queue[0].set()
