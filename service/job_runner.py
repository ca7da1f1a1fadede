"""Doing jobs: threads that claim them, one that keeps their leases, one that clears up.

A job that this process cannot end is another's: at a shutdown it is put back at once, after a crash its lease lapses.
Without other replicas nobody would take it, so there the process waits for its jobs as long as it may.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service import problems
from service.answer import headers_of
from service.call import Call
from service.errors import Abandoned, JobsUnavailable, WinnowError
from service.job import FAILED, SUCCEEDED, Claim, ask_of_json, problem_to_json
from service.job_result import describe
from service.job_store import JobStore
from service.separation import Separator
from service.spool import Spool
from service.timings import Timings
from service.workspace import Workspace

log = logging.getLogger("winnow.jobs")
_POLL_S = 0.5
_RETRY_S = 1.0
_STOP_S = 30.0
Ended = Callable[[Timings, float, str, str | None], None]


@dataclass
class _Work:
    claim: Claim
    call: Call
    lost: bool = False
    settling: bool = False


class JobRunner:
    """Threads that do the jobs of a store."""

    def __init__(
        self,
        store: JobStore,
        spool: Spool,
        separator: Callable[[], Separator],
        *,
        workers: int,
        weight: float,
        lease_s: float,
        on_end: Ended = lambda timings, duration_s, state, traceparent: None,
    ) -> None:
        """Make it; nothing runs before :meth:`start`.

        Args:
            store: where the jobs are.
            spool: where their files are.
            separator: does them.
            workers: jobs done at once.
            weight: share of the engine of each, beside a request that somebody waits for.
            lease_s: of the store; renewed several times in it.
            on_end: told of every job that this process ended: its account, seconds, state, and traceparent.
        """
        self._store = store
        self._spool = spool
        self._separator = separator
        self._weight = weight
        self._report_s = min(0.5, lease_s / 5)
        self._on_end = on_end
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._wake = threading.Condition()
        self._giving_back = False
        self._stopped = threading.Event()
        self._works: dict[str, _Work] = {}
        self._mean_s = 2.0
        self._workers = [threading.Thread(target=self._do_jobs, name=f"job-{n}", daemon=True) for n in range(workers)]
        self._keeper = threading.Thread(target=self._keep_leases, name="job-leases", daemon=True)

    @property
    def mean_s(self) -> float:
        """Seconds that a job took of late."""
        return self._mean_s

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in [*self._workers, self._keeper]:
            thread.start()

    def wake(self) -> None:
        """There is a new job."""
        with self._wake:
            self._wake.notify()

    def drop(self, job_id: str) -> None:
        """The job was canceled: none of its windows may run any more."""
        work = self._works.get(job_id)
        if work is not None:
            work.lost = True
            work.call.abandon()

    def give_back(self) -> None:
        """Take no further jobs, and put those at work back into the queue."""
        self._giving_back = True
        for work in list(self._works.values()):
            work.call.abandon()
        with self._wake:
            self._wake.notify_all()

    def close(self, timeout_s: float = _STOP_S) -> None:
        """Give back what is at work and end the threads, those that end within ``timeout_s``."""
        self.give_back()
        until_s = time.monotonic() + timeout_s
        for thread in self._workers:
            if thread.ident is not None:
                thread.join(max(until_s - time.monotonic(), 0))
        self._stopped.set()
        if self._keeper.ident is not None:
            self._keeper.join(max(until_s - time.monotonic(), 0))
        if any(thread.is_alive() for thread in self._workers):
            log.warning("a job does not stop and is left behind")

    def _do_jobs(self) -> None:
        while not self._giving_back:
            try:
                claim = self._store.claim(self._name)
            except JobsUnavailable:
                self._pause(_RETRY_S)
                continue
            except Exception:
                log.exception("no job could be claimed")
                self._pause(_RETRY_S)
                continue
            if claim is None:
                self._pause(_POLL_S)
            else:
                self._do(claim)

    def _pause(self, seconds: float) -> None:
        with self._wake:
            if not self._giving_back:
                self._wake.wait(seconds)

    def _do(self, claim: Claim) -> None:
        began_s = time.monotonic()
        work = _Work(claim, Call(weight=self._weight))
        self._works[claim.id] = work
        timings = Timings()
        state = None
        try:
            if not self._giving_back:
                state = self._separate(work, timings)
        except Abandoned:
            log.info("job %s is not ours any more", claim.id)
        except WinnowError as error:
            state = self._fail(work, problems.problem_of(error))
        except FileNotFoundError:
            # Its folder went with a cancellation; or somebody cleared the spool, and the job cannot be done.
            log.warning("job %s has lost its files", claim.id)
            state = self._fail(work, problems.INTERNAL)
        except Exception:
            log.exception("job %s failed", claim.id, extra={"hide": timings.prompts})
            state = self._fail(work, problems.INTERNAL)
        finally:
            if state is None and not work.lost and self._giving_back:
                self._settle(work, lambda: self._store.release(claim), patient=False)
            self._works.pop(claim.id, None)
        if state is not None:
            duration_s = time.monotonic() - began_s
            self._mean_s += 0.2 * (duration_s - self._mean_s)
            self._on_end(timings, duration_s, state, claim.traceparent)

    def _separate(self, work: _Work, timings: Timings) -> str | None:
        """Do the job; returns the state it has ended in, or None when it was not ours to end."""
        claim, separator = work.claim, self._separator()
        ask = ask_of_json(claim.ask)
        with Workspace() as workspace, self._spool.upload(claim.id) as file:
            answer = separator.run(file, ask, workspace.path, work.call, timings)
            work.call.check()
            name = f"result-{claim.attempt}{answer.path.suffix}"
            path = self._spool.deliver(claim.id, answer.path, name)
            result = describe(answer, ask, path, headers_of(answer, separator.engine.version, timings))
        if not self._settle(work, lambda: self._store.succeed(claim, result, result["bytes"])):
            self._spool.drop(claim.id, name)
            return None
        self._spool.drop(claim.id)
        return SUCCEEDED

    def _fail(self, work: _Work, problem: problems.Problem) -> str | None:
        record = problem_to_json(problem)
        if not self._settle(work, lambda: self._store.fail(work.claim, record)):
            return None
        self._spool.remove(work.claim.id)
        return FAILED

    def _settle(self, work: _Work, tell: Callable[[], bool], *, patient: bool = True) -> bool:
        """Tell the store; while it does not answer, again: the work is done, and its lease may still be good."""
        work.settling = True
        while not work.lost:
            try:
                return tell()
            except JobsUnavailable:
                if not patient or self._giving_back:
                    return False
                self._stopped.wait(_RETRY_S)
        return False

    def _keep_leases(self) -> None:
        while not self._stopped.wait(self._report_s):
            works = list(self._works.values())
            if not works:
                continue
            try:
                good = self._store.report([(work.claim, work.call.done) for work in works])
            except JobsUnavailable:
                continue  # whether the lease has lapsed, the store knows; the work goes on
            for work, is_good in zip(works, good, strict=True):
                if not is_good and not work.settling:  # one that is being ended asks for itself
                    work.lost = True
                    work.call.abandon()
