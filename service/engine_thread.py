"""A thread that runs the network: it takes batches from the scheduler and gives answers back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from service.scheduler import Scheduler

_LEAST_PATIENCE_S = 60.0
_TIMES_USUAL = 20.0
_WEIGHT = 0.05  # of the latest batch in the mean


class EngineThread:
    """Runs until it is stopped, or until the scheduler is closed.

    Several threads on one device gain nothing: on a CPU every window has all cores already, and a CUDA session has one
    stream.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        infer: Callable[[list[Any]], list[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start; ``infer`` is as :meth:`service.scheduler.Scheduler.run` wants it."""
        self._scheduler, self._infer, self._clock = scheduler, infer, clock
        self._began_s: float | None = None
        self._usual_s = 0.0
        # A daemon: an engine that nobody closed must not keep the process.
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def stuck(self) -> bool:
        """Whether a batch has run for so long that it will never end, or the thread is dead."""
        began_s = self._began_s
        patience_s = max(_LEAST_PATIENCE_S, _TIMES_USUAL * self._usual_s)
        return not self._thread.is_alive() or (began_s is not None and self._clock() - began_s > patience_s)

    def _work(self) -> None:
        while batch := self._scheduler.take():
            self._began_s = began_s = self._clock()
            try:
                self._scheduler.run(batch, self._infer)
            finally:
                self._began_s = None
            self._usual_s += _WEIGHT * (self._clock() - began_s - self._usual_s)

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended, once the scheduler is closed."""
        self._thread.join(timeout_s)
