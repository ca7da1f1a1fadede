"""Where the state of jobs is: one protocol, kept in this process's memory or in Redis, where replicas share it.

A job is queued, claimed by a worker under a lease, and ended by whoever holds its last claim. A lease that is not
renewed lapses and the job is queued again, in its old place; the claim's attempt is a fencing token, so a worker that
was only slow and comes back ends nothing. What a claim has done it may ask for again, when the answer was lost. Every
method is one atomic step, safe from several threads and processes.
"""

from __future__ import annotations

from typing import Any, Protocol

from service.job import Claim, Counts, Draft, Event, Job, Submission


class JobStore(Protocol):
    """What is asked of a store. Whatever a caller waits for answers within a fraction of a second, or raises.

    Every method may raise JobsUnavailable: nothing is known then, also not whether it was done.
    """

    @property
    def shared(self) -> bool:
        """Whether other replicas see the same jobs, so that they outlive this process."""

    def submit(self, draft: Draft) -> Submission:
        """Queue a job, or find the one that the same caller sent with the same key.

        Raises:
            IdempotencyMismatch: the key came with something else before.
            Busy: too many jobs wait.
            StorageFull: their files take too much room.
        """

    def get(self, job_id: str) -> Job | None:
        """A job, or None when there is none, or none any more."""

    def events(self, job_id: str, after: int) -> list[Event] | None:
        """What happened to it after event number ``after``, in order; None when there is no such job."""

    def cancel(self, job_id: str) -> Job | None:
        """End it as canceled, or forget the results of one that has ended; returns it as it was, None if unknown."""

    def counts(self) -> Counts:
        """How many there are."""

    def claim(self, worker: str) -> Claim | None:
        """The next job, for a worker; jobs whose lease has lapsed are queued again before one is chosen."""

    def report(self, progress: list[tuple[Claim, float]]) -> list[bool]:
        """Renew the leases of claims and tell how far each is, 0 to 1; returns which of them are still good."""

    def succeed(self, claim: Claim, result: dict[str, Any], n_bytes: int) -> bool:
        """End a job well, its files now taking ``n_bytes``; False when the claim is not good any more."""

    def fail(self, claim: Claim, problem: dict[str, Any]) -> bool:
        """End a job with a problem; False when the claim is not good any more."""

    def release(self, claim: Claim) -> bool:
        """Put a job back in its place in the queue; False when the claim is not good any more."""

    def expire(self) -> list[str]:
        """Forget results whose time has come; returns the ids of jobs whose files must go."""

    def with_files(self, job_ids: list[str]) -> set[str]:
        """Those of the ids whose files are still needed."""

    def close(self) -> None:
        """Let go of connections."""
