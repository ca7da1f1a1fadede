"""A job: a separation that its caller does not wait for, as the stores keep it and as HTTP shows it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.ask import Ask
from service.formats import FORMATS, Encoding
from service.problems import Problem

QUEUED, RUNNING = "queued", "running"
SUCCEEDED, FAILED, CANCELED, EXPIRED = "succeeded", "failed", "canceled", "expired"
STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELED, EXPIRED)
UNFINISHED = frozenset({QUEUED, RUNNING})
# Events that are the last of their job.
LAST_EVENTS = frozenset({"completed", "failed", "canceled"})
EVENTS = ("queued", "started", "progress", *sorted(LAST_EVENTS))


@dataclass(frozen=True)
class Draft:
    """A job before a store has taken it.

    Attributes:
        id: 128 random bits in hexadecimal digits: who was not told cannot guess it.
        owner: id of the key that sent it, None where there are no keys.
        ask: what to do, as :func:`ask_to_json` has it.
        n_bytes: of the upload, which is in the spool already.
        digest: of all that was sent, in the sense of :mod:`service.idempotency`.
        key: the caller's idempotency key and the caller as one name, None without one.
        traceparent: the request's header of that name.
    """

    id: str
    owner: str | None
    ask: dict[str, Any]
    n_bytes: int
    digest: str
    key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job.

    The attempt is its fencing token: it grows with each claim, and only the last counts.
    """

    id: str
    attempt: int
    ask: dict[str, Any]
    traceparent: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; numbered from 1, and the same whenever it is asked for.

    Attributes:
        at_s: seconds since 1970.
        progress: 0 to 1, as it was then.
    """

    number: int
    name: str
    at_s: float
    progress: float


@dataclass(frozen=True)
class Job:
    """A job as a store knows it. Times are seconds since 1970, by the store's clock.

    Attributes:
        progress: 0 to 1; never goes back.
        queue_position: jobs that came earlier and have not ended; None unless queued. Never grows.
        result: as the runner put it there (:mod:`service.job_result`), None unless succeeded.
        problem: why it failed, as :func:`problem_to_json` has it.
    """

    id: str
    owner: str | None
    status: str
    created_s: float
    started_s: float | None = None
    finished_s: float | None = None
    expires_s: float | None = None
    progress: float = 0.0
    queue_position: int | None = None
    attempt: int = 0
    result: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """What HTTP shows of it."""
        path = f"/v1/jobs/{self.id}"
        return {
            "id": self.id,
            "status": self.status,
            "progress": round(self.progress, 4),
            "queue_position": self.queue_position,
            "created_at": stamp(self.created_s),
            "started_at": stamp(self.started_s),
            "finished_at": stamp(self.finished_s),
            "expires_at": stamp(self.expires_s),
            "stems": [
                {**{name: stem[name] for name in _SHOWN}, "href": f"{path}/result/{stem['file']}"}
                for stem in (self.result or {}).get("stems", [])
            ],
            "error": None if self.problem is None else problem_of_json(self.problem).body(self.id),
            "result": f"{path}/result" if self.status == SUCCEEDED else None,
            "events": f"{path}/events",
        }


_SHOWN = ("prompt", "file", "presence", "spans", "bytes")


@dataclass(frozen=True)
class Counts:
    """What a store holds."""

    queued: int = 0
    running: int = 0
    n_bytes: int = 0


@dataclass(frozen=True)
class Submission:
    """What became of a draft: the job that has its id, or an earlier one with the same idempotency key."""

    job: Job
    created: bool


def new_id() -> str:
    """One that nobody guesses."""
    return secrets.token_hex(16)


def is_id(text: str) -> bool:
    """Whether it could be one."""
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


def stamp(time_s: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if time_s is None:
        return None
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ask_to_json(ask: Ask) -> dict[str, Any]:
    """An ask as JSON can hold it."""
    return {
        "prompts": list(ask.prompts),
        "negatives": list(ask.negatives),
        "exhaustive": ask.exhaustive,
        "output": ask.output,
        "format": ask.encoding.format.name,
        "subtype": ask.encoding.subtype,
        "zip": ask.zip_wanted,
    }


def ask_of_json(record: dict[str, Any]) -> Ask:
    """The ask again."""
    encoding = Encoding(FORMATS[record["format"]], record["subtype"])
    return Ask(
        tuple(record["prompts"]),
        record["output"],
        encoding,
        record["zip"],
        tuple(record["negatives"]),
        record.get("exhaustive", False),  # a job of an earlier version has none
    )


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """A problem as JSON can hold it; when to come back is not kept, for the job has ended."""
    return {
        "kind": problem.kind,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "field": problem.field,
        "limit": problem.limit,
    }


def problem_of_json(record: dict[str, Any]) -> Problem:
    """The problem again."""
    return Problem(**record)
