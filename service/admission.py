"""Who may come in: a few requests are worked on, some more wait, the rest are told at once to come back later."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.call import Call
from service.errors import Busy

T = TypeVar("T")
_LONGEST_RETRY_S = 120


class Admission:
    """Threads for ``running`` requests and places for ``waiting`` more."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running = running
        self.waiting = waiting
        self._inside = 0
        self._mean_s = 1.0
        self._threads = ThreadPoolExecutor(running, thread_name_prefix="request")

    @property
    def inside(self) -> int:
        """Requests that wait or are worked on."""
        return self._inside

    def require_room(self) -> None:
        """Raise Busy when all places are taken."""
        if self._inside >= self.running + self.waiting:
            rounds = self._inside / self.running
            raise Busy(
                f"{self._inside} requests are inside already",
                limit=self.running + self.waiting,
                retry_after_s=min(max(math.ceil(rounds * self._mean_s), 1), _LONGEST_RETRY_S),
            )

    async def run(self, work: Callable[[], T], call: Call) -> T:
        """Do ``work`` on a thread; when this task is cancelled, abandon the work and wait until it has stopped.

        Raises:
            Busy: there is no place.
        """
        self.require_room()
        self._inside += 1
        started = time.monotonic()

        def checked() -> T:
            call.check()
            return work()

        future = asyncio.get_running_loop().run_in_executor(self._threads, checked)
        try:
            try:
                result = await asyncio.shield(future)
            except asyncio.CancelledError:
                call.abandon()
                await asyncio.wait([future])
                future.exception()
                raise
            self._mean_s += 0.2 * (time.monotonic() - started - self._mean_s)
            return result
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
