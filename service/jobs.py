"""Jobs as the application has them: a store, a spool, threads that do them, and a way to ask from the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from service.breaker import Breaker
from service.errors import Busy, JobsUnavailable, StartError
from service.job import Counts
from service.job_limits import JobLimits, too_many
from service.job_runner import Ended, JobRunner
from service.job_store import JobStore
from service.memory_jobs import MemoryJobs
from service.redis_jobs import RedisJobs
from service.separation import Separator
from service.settings import Settings
from service.spool import Spool

log = logging.getLogger("winnow.jobs")
T = TypeVar("T")
_ASKING = 8
_LISTENERS = 256
# What connecting, saying hello and asking take at most; a name that does not resolve would take longer.
_PATIENCE = 8
_SWEEP_S = 5.0
# Folders that no store knows: of uploads that were cut off, or of a store that was emptied.
_ORPHAN_S = 3_600.0
_LAST_LOOK_S = 3.0


class Jobs:
    """Everything about jobs of one application.

    Attributes:
        settings: of the application.
        store: their state.
        spool: their files.
        runner: their threads.
        counts: how many there were at the last look.
    """

    def __init__(
        self, settings: Settings, separator: Callable[[], Separator], draining: Callable[[], bool], on_end: Ended
    ) -> None:
        """Make them; nothing runs yet.

        Args:
            settings: of the application.
            separator: does jobs; asked when there is one.
            draining: whether the service is about to stop.
            on_end: told of each job that this process has ended.

        Raises:
            StartError: the address of Redis is none.
        """
        self.settings = settings
        limits = limits_of(settings)
        self.store = make_store(settings, limits)
        self.spool = Spool(settings.spool, settings.min_free_bytes)
        self.runner = JobRunner(
            self.store,
            self.spool,
            lambda: _for_jobs(separator(), settings),
            workers=settings.job_workers,
            weight=settings.job_weight,
            lease_s=limits.lease_s,
            on_end=on_end,
        )
        self.counts = Counts()
        self._draining = draining
        self._threads = ThreadPoolExecutor(_ASKING, thread_name_prefix="jobs")
        self._patience_s = max(1.0, _PATIENCE * settings.redis_timeout_s) if self.store.shared else None
        self._n_listeners = 0
        self._busy_s = -_LAST_LOOK_S
        self._closing = threading.Event()
        self._janitor = threading.Thread(target=self._sweep, name="job-janitor", daemon=True)

    @property
    def kind(self) -> str:
        """``shared`` by replicas, or ``volatile``: gone when this process ends."""
        return "shared" if self.store.shared else "volatile"

    async def ask(self, question: Callable[[], T]) -> T:
        """Ask the store, off the event loop.

        Raises:
            JobsUnavailable: there is no answer in time.
        """
        future = asyncio.wrap_future(self._threads.submit(question))
        try:
            return await asyncio.wait_for(future, self._patience_s)
        except TimeoutError:
            raise JobsUnavailable("the jobs' store does not answer") from None

    def require_room(self) -> None:
        """Refuse before an upload what would be refused after it.

        Raises:
            Busy: too many jobs wait.
            StorageFull: the disk is nearly full.
            JobsUnavailable: the store does not answer.
        """
        counts = self.store.counts()
        if counts.queued >= self.settings.max_jobs_waiting:
            raise too_many(counts.queued, limits_of(self.settings))
        self.spool.require_room()

    def retry_s(self, queue_position: int | None) -> int:
        """Whole seconds after which to look again."""
        ahead = (queue_position or 0) / max(self.settings.job_workers, 1)
        return min(max(round(self.runner.mean_s * (1 + ahead) / 2), 1), 60)

    def listen(self) -> Callable[[], None]:
        """Count a stream of events in; returns what counts it out.

        Raises:
            Busy: there are too many.
        """
        if self._n_listeners >= _LISTENERS:
            raise Busy(f"{_LISTENERS} streams of events are open", limit=_LISTENERS, retry_after_s=5)
        self._n_listeners += 1

        def leave() -> None:
            self._n_listeners -= 1

        return leave

    def holding(self) -> bool:
        """Whether jobs would be lost if the process ended now: without other replicas it waits for those it has."""
        if self.store.shared:
            return False
        counts = self.store.counts()
        if counts.queued or counts.running:
            self._busy_s = time.monotonic()
        # Whoever waited for the last one may fetch it.
        return time.monotonic() - self._busy_s < _LAST_LOOK_S

    def streams_end(self) -> bool:
        """Whether streams of events should end now, for the server is about to."""
        return self._draining() and not self.holding()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do jobs while the block lasts."""
        self.runner.start()
        self._janitor.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Give jobs back, end all threads, let go of the store and of a private spool."""
        self._closing.set()
        self.runner.close()
        if self._janitor.ident is not None:
            self._janitor.join()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.store.close()
        self.spool.close()

    def _sweep(self) -> None:
        """Now and then: forget what has expired, delete what belongs to no job."""
        began_s = -_ORPHAN_S
        given_back = False
        while not self._closing.wait(0.2):
            if self._draining() and self.store.shared and not given_back:
                given_back = True
                self.runner.give_back()
            if time.monotonic() - began_s < min(_SWEEP_S, self.settings.job_keep_s):
                continue
            began_s = time.monotonic()
            try:
                self.sweep(_ORPHAN_S)
            except JobsUnavailable:
                continue
            except Exception:
                log.exception("the spool was not cleared up")

    def sweep(self, orphan_s: float) -> None:
        """Do it once; folders of no job go when they are older than ``orphan_s``."""
        for job_id in self.store.expire():
            self.spool.remove(job_id)
        found = list(self.spool.jobs(orphan_s))
        for first in range(0, len(found), 500):
            batch = found[first : first + 500]
            for job_id in set(batch) - self.store.with_files(batch):
                self.spool.remove(job_id)
        self.counts = self.store.counts()


def limits_of(settings: Settings) -> JobLimits:
    """The limits that the settings ask for."""
    return JobLimits(
        settings.max_jobs_waiting,
        settings.max_spool_bytes,
        settings.job_lease_s,
        settings.job_keep_s,
        settings.job_remember_s,
    )


def make_store(settings: Settings, limits: JobLimits) -> JobStore:
    """Redis where replicas can share the files too, else memory.

    Raises:
        StartError: the address of Redis is none.
    """
    if settings.redis_url is None or settings.spool is None:
        if settings.redis_url is not None:
            log.info("jobs stay in this process: replicas share them when WINNOW_SPOOL is set beside WINNOW_REDIS_URL")
        return MemoryJobs(limits)
    try:
        breaker = Breaker(settings.redis_failures, settings.redis_pause_s)
        return RedisJobs(settings.redis_url.get_secret_value(), settings.redis_timeout_s, breaker, limits)
    except ValueError as error:
        raise StartError(f"WINNOW_REDIS_URL: {error}") from error


def _for_jobs(separator: Separator, settings: Settings) -> Separator:
    """The same with the length that jobs may have."""
    limits: Any = replace(separator.decoder.limits, max_audio_s=settings.max_job_audio_s)
    return replace(separator, decoder=replace(separator.decoder, limits=limits))
