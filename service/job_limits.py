"""How many jobs there may be and how long they last, and what is said when that is passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import Busy, IdempotencyMismatch, JobLost, StorageFull
from service.job import problem_to_json
from service.problems import problem_of

_FULL_RETRY_S = 30


@dataclass(frozen=True)
class JobLimits:
    """How many jobs a store takes, and how long things last.

    Attributes:
        max_waiting: jobs that wait.
        max_bytes: of all jobs' files together.
        lease_s: a worker that says nothing for so many seconds has lost its jobs.
        keep_s: seconds that results are kept after the job has ended.
        remember_s: seconds that it is known after that that there was such a job.
        max_losses: workers that a job may lose before it is the one to blame.
    """

    max_waiting: int = 1_000
    max_bytes: int = 2**36
    lease_s: float = 15.0
    keep_s: float = 3_600.0
    remember_s: float = 3_600.0
    max_losses: int = 3


def mismatch() -> IdempotencyMismatch:
    """The same key came with something else."""
    return IdempotencyMismatch("the same key came with another recording or other fields", field="Idempotency-Key")


def too_many(n_waiting: int, limits: JobLimits) -> Busy:
    """The queue is full."""
    return Busy(f"{n_waiting} jobs are waiting already", limit=limits.max_waiting, retry_after_s=_FULL_RETRY_S)


def too_large(limits: JobLimits) -> StorageFull:
    """The spool is full."""
    return StorageFull("no room for the job's files", limit=limits.max_bytes, retry_after_s=_FULL_RETRY_S)


def lost_problem(limits: JobLimits) -> dict[str, Any]:
    """What a job ends with that takes its workers with it."""
    detail = f"{limits.max_losses} replicas were lost while they worked on the job"
    return problem_to_json(problem_of(JobLost(detail, limit=limits.max_losses)))
