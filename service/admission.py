"""Who may come in: a bounded number of requests is inside, uploads among them; the rest are told at once to come back.

A place is taken before the body is read and given back when the answer has gone, or as soon as the client has. Of those
inside a few are worked on, each on a thread of its own; the others wait for one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from service.call import Call
from service.errors import Abandoned, Busy, DeadlinePassed, Draining, RequestStalled
from service.transfer import Transfer

T = TypeVar("T")
_LONGEST_RETRY_S = 120


class Visit:
    """A request inside. Leaving twice is leaving once."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.transfer: Transfer | None = None

    def leave(self) -> None:
        """Give the place back."""
        self._admission._visits.discard(self)


class Admission:
    """Places for ``running + waiting`` requests, threads for ``running``. Used from the event loop's thread.

    Attributes:
        leaving: whoever asks is told to send nothing more here; what comes all the same is taken.
        draining: nobody else is let in.
    """

    def __init__(self, running: int, waiting: int, min_rate: float = 0.0) -> None:
        """Begin with nobody inside; an upload slower than ``min_rate`` bytes a second makes place when it is full."""
        self.running = running
        self.waiting = waiting
        self.leaving = False
        self.draining = False
        self._min_rate = min_rate
        self._visits: set[Visit] = set()
        self._work: set[concurrent.futures.Future[Any]] = set()
        self._mean_s = 1.0
        self._given_up = asyncio.Event()
        self._threads = ThreadPoolExecutor(running, thread_name_prefix="request")

    @property
    def inside(self) -> int:
        """Requests that arrive, wait, are worked on or whose answer is on its way."""
        return len(self._visits)

    @property
    def at_work(self) -> int:
        """Requests that have or wait for a thread."""
        return len(self._work)

    def enter(self, patience_s: float = math.inf) -> Visit:
        """Take a place.

        Raises:
            Draining: the service is about to stop.
            Busy: there is no place, or the wait for a thread is longer than ``patience_s``.
        """
        if self.draining:
            raise Draining("the service is about to stop", retry_after_s=1)
        places = self.running + self.waiting
        if len(self._visits) >= places and not self._evict():
            raise Busy(f"{len(self._visits)} requests are inside already", limit=places, retry_after_s=self.retry_s())
        wait_s = self._mean_s * (len(self._work) // self.running)
        if wait_s > patience_s:
            raise Busy("the wait is longer than you have", limit=patience_s, retry_after_s=self.retry_s())
        visit = Visit(self)
        self._visits.add(visit)
        return visit

    def _evict(self) -> bool:
        """Send the slowest upload away, if it is slower than one may be when others wait."""
        uploads = [(rate, visit) for visit in self._visits if (rate := _rate(visit)) is not None]
        if not uploads:
            return False
        rate, visit = min(uploads, key=lambda upload: upload[0])
        if rate >= self._min_rate:
            return False
        visit.leave()
        assert visit.transfer is not None
        visit.transfer.dismiss(RequestStalled("others waited behind this slow upload", limit=self._min_rate))
        return True

    def retry_s(self) -> int:
        """Whole seconds after which a place may be free; spread, so that the refused do not come back together."""
        rounds = max(len(self._work), 1) / self.running
        wait_s = rounds * self._mean_s * random.uniform(0.8, 1.2)
        return min(max(math.ceil(wait_s), 1), _LONGEST_RETRY_S)

    async def run(self, work: Callable[[], T], call: Call, gone: asyncio.Future[None] | None = None) -> T:
        """Do ``work`` on a thread; returns when it has, or has stopped because nobody wants it any more.

        Args:
            work: asks ``call`` often.
            call: abandoned here when the client leaves, when this task is cancelled, or when all are given up.
            gone: done when the client leaves.

        Raises:
            Abandoned: the client has left.
            DeadlinePassed: the call's deadline has.
            Draining: the service stops.
        """

        def checked() -> T:
            call.check()
            started = time.monotonic()
            result = work()
            self._mean_s += 0.2 * (time.monotonic() - started - self._mean_s)
            return result

        task = self._threads.submit(checked)
        self._work.add(task)
        future = asyncio.wrap_future(task)
        given_up = asyncio.ensure_future(self._given_up.wait())
        ends: set[asyncio.Future[Any]] = {future, given_up}
        if gone is not None:
            ends.add(gone)
        try:
            await asyncio.wait(ends, timeout=call.remaining_s, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            call.abandon()
            await self._stopped(task, future)
            if given_up.done():
                raise Draining("the service stops", retry_after_s=1)
            if gone is not None and gone.done():
                raise Abandoned
            raise DeadlinePassed(f"not done within {call.patience_s:g} s", limit=call.patience_s)
        except asyncio.CancelledError:
            call.abandon()
            await self._stopped(task, future)
            raise
        finally:
            given_up.cancel()
            self._work.discard(task)

    async def _stopped(self, task: concurrent.futures.Future[T], future: asyncio.Future[T]) -> None:
        """Wait until the work has ended or will never begin; what came of it is dropped."""
        if task.cancel():
            return
        await asyncio.wait([future])
        if future.cancelled() or future.exception() is not None:
            return
        result = future.result()
        if hasattr(result, "discard"):
            result.discard()

    def give_up(self) -> None:
        """End everything inside with Draining."""
        self.draining = True
        self._given_up.set()
        for visit in list(self._visits):
            if visit.transfer is not None:
                visit.transfer.dismiss(Draining("the service stops", retry_after_s=1))

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wait(self, timeout_s: float) -> bool:
        """Whether all work has ended, within that time."""
        return not concurrent.futures.wait(list(self._work), timeout_s).not_done


def _rate(visit: Visit) -> float | None:
    return None if visit.transfer is None else visit.transfer.rate()
