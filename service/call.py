"""One caller's work: until when it is wanted, how much it counts, how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from service.errors import Abandoned, DeadlinePassed
from service.timings import Timings


class Call:
    """What a worker asks between two steps; ``abandon`` it and its next ``check`` unwinds the thread that does it.

    Attributes:
        patience_s: seconds after its beginning in which it is wanted; None when there is no such limit.
        deadline_s: the same on the clock.
        weight: share of the engine beside other calls; 1 for a request that somebody waits for.
        done: the share that is done, 0 to 1, as last told.
        timings: takes what its work costs, from whoever does it.
    """

    def __init__(
        self,
        *,
        patience_s: float | None = None,
        weight: float = 1.0,
        progress: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            patience_s: seconds from now after which nobody wants the answer.
            weight: see above.
            progress: told the share that is done, 0 to 1, from the worker's thread.
            clock: seconds that never go back.
        """
        self._clock = clock
        self.patience_s = patience_s
        self.deadline_s = None if patience_s is None else clock() + patience_s
        self.weight = weight
        self.done = 0.0
        self.timings = Timings()
        self._progress = progress
        self._abandoned = threading.Event()

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative after it; None when there is none."""
        return None if self.deadline_s is None else self.deadline_s - self._clock()

    @property
    def abandoned(self) -> bool:
        """Whether the caller has gone."""
        return self._abandoned.is_set()

    def abandon(self) -> None:
        """The caller has gone."""
        self._abandoned.set()

    def check(self) -> None:
        """Return while the work is wanted.

        Raises:
            Abandoned: the caller has gone.
            DeadlinePassed: it is too late.
        """
        if self._abandoned.is_set():
            raise Abandoned
        if self.deadline_s is not None and self._clock() > self.deadline_s:
            raise DeadlinePassed(f"not done within {self.patience_s:g} s", limit=self.patience_s)

    def tell(self, done: float) -> None:
        """Report the share that is done, 0 to 1."""
        self.done = done
        if self._progress is not None:
            self._progress(done)
