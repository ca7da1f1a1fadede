"""Jobs in Redis, where replicas share them; each step is one script there, so that no two see half of it.

What a request waits for has the cache's few milliseconds and no retry, and a breaker that stops asking; workers, who
have time, wait longer. Values are JSON or decimal numbers, times Redis's own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.exceptions import RedisError
from redis.retry import Retry

from service.breaker import Breaker
from service.errors import JobsUnavailable
from service.job import EXPIRED, FAILED, QUEUED, SUCCEEDED, Claim, Counts, Draft, Event, Job, Submission
from service.job_limits import JobLimits, lost_problem, mismatch, too_large, too_many

T = TypeVar("T")
log = logging.getLogger("winnow.jobs")
SCRIPT = Path(__file__).with_name("redis_jobs.lua")
PREFIX = "{winnow-jobs-1}:"
_WORKERS_TIMEOUT_S = 2.0


class RedisJobs:
    """A store as :class:`service.job_store.JobStore` has it."""

    shared = True

    def __init__(self, url: str, timeout_s: float, breaker: Breaker, limits: JobLimits) -> None:
        """Connect when first asked.

        Args:
            url: of Redis.
            timeout_s: seconds Redis may take to connect or to answer when a request waits.
            breaker: stops asking for requests after failures.
            limits: of the jobs; all replicas should have the same.

        Raises:
            ValueError: the address is none.
        """
        self._limits = limits
        self._breaker = breaker
        self._said = json.dumps(
            {
                "max_waiting": limits.max_waiting,
                "max_bytes": limits.max_bytes,
                "max_losses": limits.max_losses,
                "lease_ms": round(1_000 * limits.lease_s),
                "keep_ms": round(1_000 * limits.keep_s),
                "remember_ms": max(1, round(1_000 * limits.remember_s)),
            }
        )
        self._clients = [_client(url, timeout_s), _client(url, max(timeout_s, _WORKERS_TIMEOUT_S))]
        source = SCRIPT.read_text()
        self._script, self._workers_script = (client.register_script(source) for client in self._clients)

    def _ask(self, step: str, *arguments: str | int | float) -> Any:
        """For a request."""
        if not self._breaker.allows():
            raise JobsUnavailable("the jobs' store does not answer")
        try:
            answer = self._run(self._script, step, *arguments)
        except BaseException:
            self._breaker.failure()
            raise
        self._breaker.success()
        return answer

    def _work(self, step: str, *arguments: str | int | float) -> Any:
        """For a worker."""
        return self._run(self._workers_script, step, *arguments)

    def _run(self, script: Script, step: str, *arguments: str | int | float) -> Any:
        try:
            return script(keys=[PREFIX], args=[step, self._said, *arguments])
        except (RedisError, OSError) as error:
            log.warning("redis: %s in %s", type(error).__name__, step)
            raise JobsUnavailable("the jobs' store does not answer") from error

    def submit(self, draft: Draft) -> Submission:
        """Queue a job, or find the one with its key."""
        fields = {"ask": json.dumps(draft.ask), "owner": draft.owner, "trace": draft.traceparent}
        given = [item for name, value in fields.items() if value is not None for item in (name, value)]
        how, *answer = self._ask("submit", draft.id, draft.digest, draft.n_bytes, draft.key or "", *given)
        if how == "mismatch":
            raise mismatch()
        if how == "many":
            raise too_many(answer[0], self._limits)
        if how == "large":
            raise too_large(self._limits)
        return Submission(_job(answer[0]), created=how == "created")

    def get(self, job_id: str) -> Job | None:
        """A job as it is now."""
        return _maybe(_job, self._ask("get", job_id))

    def events(self, job_id: str, after: int) -> list[Event] | None:
        """Its events from number ``after + 1`` on."""
        return _maybe(lambda found: [_event(*entry) for entry in found], self._ask("events", job_id, max(after, 0)))

    def cancel(self, job_id: str) -> Job | None:
        """End it, or forget its results."""
        return _maybe(_job, self._ask("cancel", job_id))

    def counts(self) -> Counts:
        """How many there are."""
        return Counts(*map(int, self._ask("counts")))

    def claim(self, worker: str) -> Claim | None:
        """The next in the queue."""
        found = self._work("claim", worker, json.dumps(lost_problem(self._limits)))
        if found is None:
            return None
        job_id, attempt, ask, trace = found
        return Claim(job_id, attempt, json.loads(ask), trace or None)

    def report(self, progress: list[tuple[Claim, float]]) -> list[bool]:
        """Renew leases; which are good."""
        told = [item for claim, done in progress for item in (claim.id, claim.attempt, f"{done:.4f}")]
        return [bool(good) for good in self._work("report", *told)]

    def succeed(self, claim: Claim, result: dict[str, Any], n_bytes: int) -> bool:
        """End it well."""
        return bool(self._work("succeed", claim.id, claim.attempt, json.dumps(result), n_bytes))

    def fail(self, claim: Claim, problem: dict[str, Any]) -> bool:
        """End it with a problem."""
        return bool(self._work("fail", claim.id, claim.attempt, json.dumps(problem)))

    def release(self, claim: Claim) -> bool:
        """Back into the queue."""
        return bool(self._work("release", claim.id, claim.attempt))

    def expire(self) -> list[str]:
        """Forget what is over."""
        return list(self._work("expire"))

    def with_files(self, job_ids: list[str]) -> set[str]:
        """Those whose files are needed."""
        return set(self._work("with_files", *job_ids))

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()


def _client(url: str, timeout_s: float) -> Redis:
    # A retry by the client would send a step twice that was done and not answered.
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        decode_responses=True,
    )


def _maybe(make: Callable[[Any], T], answer: Any) -> T | None:
    return None if answer is None else make(answer)


def _event(name: str, pairs: list[str]) -> Event:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return Event(int(name.partition("-")[0]), fields["name"], int(fields["at"]) / 1_000, float(fields["progress"]))


def _job(answer: Any) -> Job:
    pairs, ahead, now_ms = answer
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    status, expires_s = fields["status"], _time(fields, "expires")
    if status in (SUCCEEDED, FAILED) and expires_s is not None and expires_s <= int(now_ms) / 1_000:
        status = EXPIRED
    return Job(
        fields["id"],
        fields.get("owner"),
        status,
        int(fields["created"]) / 1_000,
        _time(fields, "started"),
        _time(fields, "finished"),
        expires_s,
        float(fields["progress"]),
        int(ahead) if status == QUEUED else None,
        int(fields.get("attempt", 0)),
        json.loads(fields["result"]) if "result" in fields and status == SUCCEEDED else None,
        json.loads(fields["problem"]) if "problem" in fields and status == FAILED else None,
    )


def _time(fields: dict[str, str], name: str) -> float | None:
    return int(fields[name]) / 1_000 if name in fields else None
