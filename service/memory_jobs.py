"""Jobs in this process's memory: gone when it ends, and ``/v1/info`` says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from service.job import (
    CANCELED,
    EXPIRED,
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    UNFINISHED,
    Claim,
    Counts,
    Draft,
    Event,
    Job,
    Submission,
)
from service.job_limits import JobLimits, lost_problem, mismatch, too_large, too_many

PROGRESS_STEP = 0.01  # progress that is worth an event


@dataclass
class _Entry:
    job: Job
    draft: Draft
    turn: int
    n_bytes: int
    losses: int = 0
    lease_until_s: float = 0.0
    forget_s: float | None = None
    events: list[Event] = field(default_factory=list)


class MemoryJobs:
    """A store as :class:`service.job_store.JobStore` has it. ``clock`` in seconds since 1970."""

    shared = False

    def __init__(self, limits: JobLimits, clock: Callable[[], float] = time.time) -> None:
        """Begin with no jobs."""
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}  # in the order of their turns
        self._keys: dict[str, str] = {}
        self._n_turns = 0

    def submit(self, draft: Draft) -> Submission:
        """Queue a job, or find the one with its key."""
        with self._lock:
            earlier = self._entries.get(self._keys.get(draft.key, "")) if draft.key else None
            if earlier is not None and not self._forgotten(earlier):
                if earlier.draft.digest != draft.digest:
                    raise mismatch()
                return Submission(self._seen(earlier), created=False)
            self._require_room(draft)
            now_s = self._clock()
            self._n_turns += 1
            entry = _Entry(Job(draft.id, draft.owner, QUEUED, now_s), draft, self._n_turns, draft.n_bytes)
            self._entries[draft.id] = entry
            if draft.key:
                self._keys[draft.key] = draft.id
            self._tell(entry, "queued")
            return Submission(self._seen(entry), created=True)

    def _require_room(self, draft: Draft) -> None:
        counts = self._counts()
        if counts.queued >= self._limits.max_waiting:
            raise too_many(counts.queued, self._limits)
        if counts.n_bytes + draft.n_bytes > self._limits.max_bytes:
            raise too_large(self._limits)

    def get(self, job_id: str) -> Job | None:
        """A job as it is now."""
        with self._lock:
            entry = self._entries.get(job_id)
            return None if entry is None or self._forgotten(entry) else self._seen(entry)

    def _forgotten(self, entry: _Entry) -> bool:
        return entry.forget_s is not None and entry.forget_s <= self._clock()

    def _seen(self, entry: _Entry) -> Job:
        job = entry.job
        if job.status == QUEUED:
            ahead = sum(e.turn < entry.turn and e.job.status in UNFINISHED for e in self._entries.values())
            return replace(job, queue_position=ahead)
        if job.status in (SUCCEEDED, FAILED) and job.expires_s is not None and job.expires_s <= self._clock():
            return replace(job, status=EXPIRED, result=None, problem=None)
        return job

    def events(self, job_id: str, after: int) -> list[Event] | None:
        """Its events from number ``after + 1`` on."""
        with self._lock:
            entry = self._entries.get(job_id)
            return None if entry is None or self._forgotten(entry) else entry.events[max(after, 0) :]

    def cancel(self, job_id: str) -> Job | None:
        """End it, or forget its results."""
        with self._lock:
            entry = self._entries.get(job_id)
            if entry is None or self._forgotten(entry):
                return None
            before = self._seen(entry)
            if before.status in UNFINISHED:
                self._end(entry, CANCELED, "canceled", keep_s=0)
            if before.status in UNFINISHED or entry.job.status in (SUCCEEDED, FAILED):
                self._bury(entry)
            return before

    def counts(self) -> Counts:
        """How many there are."""
        with self._lock:
            return self._counts()

    def _counts(self) -> Counts:
        states = [entry.job.status for entry in self._entries.values()]
        n_bytes = sum(entry.n_bytes for entry in self._entries.values())
        return Counts(states.count(QUEUED), states.count(RUNNING), n_bytes)

    def claim(self, worker: str) -> Claim | None:
        """The next in the queue."""
        with self._lock:
            now_s = self._clock()
            for entry in self._entries.values():
                if entry.job.status == RUNNING and entry.lease_until_s <= now_s:
                    self._lose(entry)
            waiting = [entry for entry in self._entries.values() if entry.job.status == QUEUED]
            if not waiting:
                return None
            entry = waiting[0]
            job = entry.job
            entry.lease_until_s = now_s + self._limits.lease_s
            entry.job = replace(job, status=RUNNING, attempt=job.attempt + 1, started_s=job.started_s or now_s)
            self._tell(entry, "started")
            return Claim(job.id, entry.job.attempt, entry.draft.ask, entry.draft.traceparent)

    def _lose(self, entry: _Entry) -> None:
        entry.losses += 1
        if entry.losses < self._limits.max_losses:
            self._requeue(entry)
            return
        entry.job = replace(entry.job, problem=lost_problem(self._limits))
        self._end(entry, FAILED, "failed", self._limits.keep_s)

    def _requeue(self, entry: _Entry) -> None:
        entry.job = replace(entry.job, status=QUEUED)
        self._tell(entry, "queued")

    def _held(self, claim: Claim) -> _Entry | None:
        entry = self._entries.get(claim.id)
        good = entry is not None and entry.job.status == RUNNING and entry.job.attempt == claim.attempt
        return entry if good else None

    def _is_done(self, claim: Claim, status: str) -> bool:
        """Whether this very claim has done it already: a step may be asked for again when its answer was lost."""
        entry = self._entries.get(claim.id)
        return entry is not None and (entry.job.status, entry.job.attempt) == (status, claim.attempt)

    def report(self, progress: list[tuple[Claim, float]]) -> list[bool]:
        """Renew leases; which are good."""
        with self._lock:
            return [self._renew(claim, done) for claim, done in progress]

    def _renew(self, claim: Claim, done: float) -> bool:
        entry = self._held(claim)
        if entry is None:
            return False
        entry.lease_until_s = self._clock() + self._limits.lease_s
        if done >= entry.job.progress + PROGRESS_STEP:
            entry.job = replace(entry.job, progress=min(done, 1.0))
            self._tell(entry, "progress")
        return True

    def succeed(self, claim: Claim, result: dict[str, Any], n_bytes: int) -> bool:
        """End it well."""
        with self._lock:
            entry = self._held(claim)
            if entry is None:
                return self._is_done(claim, SUCCEEDED)
            entry.job = replace(entry.job, result=result, progress=1.0)
            entry.n_bytes = n_bytes
            self._end(entry, SUCCEEDED, "completed", self._limits.keep_s)
            return True

    def fail(self, claim: Claim, problem: dict[str, Any]) -> bool:
        """End it with a problem."""
        with self._lock:
            entry = self._held(claim)
            if entry is None:
                return self._is_done(claim, FAILED)
            entry.job = replace(entry.job, problem=problem)
            self._end(entry, FAILED, "failed", self._limits.keep_s)
            return True

    def release(self, claim: Claim) -> bool:
        """Back into the queue."""
        with self._lock:
            entry = self._held(claim)
            if entry is None:
                return self._is_done(claim, QUEUED)
            self._requeue(entry)
            return True

    def _end(self, entry: _Entry, status: str, event: str, keep_s: float) -> None:
        now_s = self._clock()
        entry.job = replace(entry.job, status=status, finished_s=now_s, expires_s=now_s + keep_s)
        if status == FAILED:
            entry.n_bytes = 0
        self._tell(entry, event)

    def _bury(self, entry: _Entry) -> None:
        """Keep that it was, and nothing of what it was."""
        now_s = self._clock()
        status = entry.job.status if entry.job.status == CANCELED else EXPIRED
        entry.job = replace(entry.job, status=status, expires_s=now_s, result=None, problem=None)
        entry.draft = replace(entry.draft, ask={})
        entry.n_bytes = 0
        entry.forget_s = now_s + self._limits.remember_s

    def _tell(self, entry: _Entry, name: str) -> None:
        entry.events.append(Event(len(entry.events) + 1, name, self._clock(), entry.job.progress))

    def expire(self) -> list[str]:
        """Forget what is over."""
        with self._lock:
            over = [e for e in self._entries.values() if self._seen(e).status == EXPIRED and e.forget_s is None]
            for entry in over:
                self._bury(entry)
            for entry in [e for e in self._entries.values() if self._forgotten(e)]:
                del self._entries[entry.job.id]
                if entry.draft.key:
                    self._keys.pop(entry.draft.key, None)
            return [entry.job.id for entry in over]

    def with_files(self, job_ids: list[str]) -> set[str]:
        """Those whose files are needed."""
        with self._lock:
            entries = [self._entries[job_id] for job_id in job_ids if job_id in self._entries]
            return {e.job.id for e in entries if e.job.status in UNFINISHED or self._seen(e).status == SUCCEEDED}

    def close(self) -> None:
        """Nothing to let go of."""
