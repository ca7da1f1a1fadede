"""The one table from what went wrong to what HTTP says (RFC 9457), and the answers built from it.

OpenAPI's error responses are generated from the same rows, so neither can promise what the other does not keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from service import errors
from service.errors import CapacityError, WinnowError

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Problem:
    """A row: the last part of the ``type`` URI, the title, the status, and an example detail with field and limit."""

    kind: str
    title: str
    status: int
    detail: str
    field: str | None = None
    limit: Any = None
    retry_after_s: int | None = None

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON object; members that do not apply are left out."""
        members = {
            "type": f"/problems/{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": request_id,
            "field": self.field,
            "limit": self.limit,
            "retry_after": self.retry_after_s,
        }
        return {name: value for name, value in members.items() if value is not None}


PROBLEMS: dict[type[WinnowError], Problem] = {
    errors.MalformedRequest: Problem(
        "malformed-request", "Malformed request", 400, "the form ends before its boundary"
    ),
    errors.TooManyFiles: Problem("too-many-files", "Too many files", 400, "send one file", "audio", 1),
    errors.NotAcceptable: Problem(
        "not-acceptable", "Not acceptable", 406, "nothing in the Accept header can be sent", "Accept", ["audio/wav"]
    ),
    errors.Unauthorized: Problem("unauthorized", "Unauthorized", 401, "send a key", "Authorization"),
    errors.RequestStalled: Problem("request-stalled", "Request stalled", 408, "nothing came for 15 s", limit=15),
    errors.HeadTooLarge: Problem("head-too-large", "Head too large", 431, "at most 256 header lines", limit=256),
    errors.UploadTooLarge: Problem(
        "upload-too-large", "Upload too large", 413, "at most 1073741824 bytes", "audio", 1_073_741_824
    ),
    errors.AudioTooLong: Problem(
        "audio-too-long", "Audio too long", 413, "at most 3600 seconds of audio", "audio", 3_600
    ),
    errors.TooLongToWait: Problem(
        "too-long-to-wait", "Too long to wait for", 413, "would take about 300 s: make it a job", "audio", 120
    ),
    errors.NotMultipart: Problem(
        "not-multipart", "Not a form", 415, "send multipart/form-data", "Content-Type", "multipart/form-data"
    ),
    errors.UnsupportedAudio: Problem(
        "unsupported-audio",
        "Unsupported audio",
        415,
        "the file is not audio of a kind that is read here",
        "audio",
        ["WAV", "FLAC"],
    ),
    errors.CorruptAudio: Problem(
        "corrupt-audio", "Corrupt audio", 415, "the decoder stopped after 4096 samples", "audio"
    ),
    errors.MissingField: Problem("missing-field", "Missing field", 422, "send a recording", "audio", 1),
    errors.InvalidField: Problem("invalid-field", "Invalid field", 422, "at most 256 characters", "prompt", 256),
    errors.EmptyAudio: Problem(
        "empty-audio", "Empty audio", 422, "the file has no samples", "audio", "at least one sample"
    ),
    errors.TruncatedAudio: Problem(
        "truncated-audio",
        "Truncated audio",
        422,
        "the WAV file ends early: its header says 882000 bytes of samples, 44100 are there",
        "audio",
        882_000,
    ),
    errors.NotFinite: Problem(
        "not-finite", "Samples that are not finite", 422, "a sample is not a finite number", "audio", 1e6
    ),
    errors.RateOutOfRange: Problem(
        "sample-rate", "Sample rate out of range", 422, "the sample rate must be 8000 to 192000 Hz", "audio", 8_000
    ),
    errors.TooManyChannels: Problem("too-many-channels", "Too many channels", 422, "at most 8 channels", "audio", 8),
    errors.JobNotFound: Problem("job-not-found", "No such job", 404, "there is no such job, or none any more"),
    errors.JobUnfinished: Problem("job-unfinished", "Not finished", 409, "the job is running", retry_after_s=2),
    errors.JobGone: Problem("job-gone", "Gone", 410, "the job's results have expired"),
    errors.RangeNotSatisfiable: Problem(
        "range-not-satisfiable", "Range not satisfiable", 416, "there are 160044 bytes", "Range", 160_044
    ),
    errors.IdempotencyMismatch: Problem(
        "idempotency-mismatch",
        "Key used before",
        422,
        "the same key came with another recording or other fields",
        "Idempotency-Key",
    ),
    errors.Busy: Problem("busy", "Busy", 503, "24 requests are waiting already", limit=24, retry_after_s=5),
    errors.QuotaExceeded: Problem(
        "quota-exceeded", "Quota exceeded", 429, "at most 60 requests a minute", limit=60, retry_after_s=7
    ),
    errors.Draining: Problem("draining", "Draining", 503, "the service is about to stop", retry_after_s=5),
    errors.NotReady: Problem("not-ready", "Not ready", 503, "the model is loading", retry_after_s=5),
    errors.EngineStuck: Problem("engine-stuck", "Engine stuck", 503, "the engine does not answer", retry_after_s=30),
    errors.StorageFull: Problem(
        "storage-full", "No room", 503, "no room for the request's temporary files", retry_after_s=30
    ),
    errors.JobsUnavailable: Problem(
        "jobs-unavailable", "Jobs unavailable", 503, "the jobs' store does not answer", retry_after_s=5
    ),
    errors.DeadlinePassed: Problem(
        "deadline-passed", "Too late", 504, "not done within 120 s", limit=120, retry_after_s=5
    ),
    errors.ModelError: Problem("model-error", "Model error", 500, "the model's answer is not finite"),
    errors.JobLost: Problem("job-lost", "Job lost", 500, "3 replicas were lost while they worked on the job", limit=3),
    errors.ChildError: Problem("child-lost", "Process lost", 500, "the process that writes the file was lost"),
}

INTERNAL = Problem("internal", "Internal error", 500, "something went wrong here; quote the instance when reporting it")
_BY_STATUS = {
    404: Problem("not-found", "Not found", 404, "there is nothing at this path"),
    405: Problem("method-not-allowed", "Method not allowed", 405, "this path does not answer to this method"),
}


def problem_of(error: WinnowError) -> Problem:
    """The row of an error, filled in with what the error says."""
    row = next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), INTERNAL)
    if row is INTERNAL:
        return row
    retry_after_s = error.retry_after_s if isinstance(error, CapacityError) else None
    return Problem(row.kind, row.title, row.status, error.detail, error.field, error.limit, retry_after_s)


def problem_of_status(status: int, detail: str = "") -> Problem:
    """The row of an error that the framework raised by its status."""
    return _BY_STATUS.get(status) or Problem("http-error", "HTTP error", status, detail or "the request failed")


def response(problem: Problem, request_id: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Build the HTTP answer."""
    extra = dict(headers or {})
    if problem.retry_after_s is not None:
        extra["Retry-After"] = str(problem.retry_after_s)
    if problem.status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.body(request_id), problem.status, extra, PROBLEM_TYPE)


def openapi_responses(*kinds: type[WinnowError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of the given errors and of the internal one: one entry a status, one example a row."""
    rows = [PROBLEMS[kind] for kind in kinds] + [INTERNAL]
    responses: dict[int | str, dict[str, Any]] = {}
    for row in rows:
        entry = responses.setdefault(
            row.status,
            {
                "description": "",
                "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        titles = [text for text in (entry["description"], row.title) if text]
        entry["description"] = "; ".join(titles)
        examples = entry["content"][PROBLEM_TYPE]["examples"]
        examples[row.kind] = {"summary": row.title, "value": row.body("4f1c9a7e2b")}
        if row.status == 401:
            entry["headers"] = {
                "WWW-Authenticate": {"description": "how", "schema": {"type": "string"}, "example": "Bearer"}
            }
        if row.retry_after_s is not None:
            entry["headers"] = {
                "Retry-After": {"description": "seconds", "schema": {"type": "integer"}, "example": row.retry_after_s}
            }
    return responses


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "description": "names the kind of problem; stable"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "the request's id, as in X-Request-ID"},
        "field": {"type": "string", "description": "form field or header at fault"},
        "limit": {"description": "the bound that was passed, or the values that are accepted"},
        "retry_after": {"type": "integer", "description": "seconds after which to try again"},
    },
}
