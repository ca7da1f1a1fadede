"""What the OpenAPI document says of the paths of jobs: parameters, answers, an example of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from service import errors, openapi
from service.events import MEDIA_TYPE, encode
from service.idempotency import HEADER, MAX_CHARS
from service.job import EVENTS, Event, Job
from service.problems import openapi_responses

_ID = "0f3a1b2c4d5e6f708192a3b4c5d6e7f8"
_STEM = {
    "prompt": "dog barking",
    "file": "1_dog_barking.wav",
    "presence": 0.931,
    "spans": [[1.2, 3.4]],
    "bytes": 882_044,
}
_WAITING = Job(_ID, None, "queued", 1_763_900_000.0, queue_position=3)
_RUNNING = Job(_ID, None, "running", 1_763_900_000.0, 1_763_900_004.0, progress=0.42)
_DONE = Job(
    _ID,
    None,
    "succeeded",
    1_763_900_000.0,
    1_763_900_004.0,
    1_763_900_061.5,
    1_763_903_661.5,
    1.0,
    result={"stems": [_STEM]},
)
_EVENTS = b"retry: 2000\n\n" + b"".join(
    encode(Event(number, name, 1_763_900_000.0 + 4 * number, progress))
    for number, (name, progress) in enumerate(
        (("queued", 0.0), ("started", 0.0), ("progress", 0.42), ("completed", 1.0)), 1
    )
)
_STATE: tuple[type[errors.WinnowError], ...] = (errors.JobNotFound, errors.JobsUnavailable)
_RESULT: tuple[type[errors.WinnowError], ...] = (errors.JobUnfinished, errors.JobGone, errors.RangeNotSatisfiable)


def job_response(job: Job, headers: dict[str, str]) -> Response:
    """A job as JSON."""
    return JSONResponse(job.body(), 200, headers)


def _header(name: str, text: str, example: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": text,
        "schema": {"type": "string", **schema},
        "example": example,
    }


PREFER = _header("Prefer", "`respond-async`: answer at once with a job (RFC 7240)", "respond-async")
IDEMPOTENCY = _header(
    HEADER,
    "the same key with the same form is the same job; with another form it is 422",
    "4f1c9a7e-2b0d",
    pattern="^[!-~]([ -~]*[!-~])?$",
    minLength=1,
    maxLength=MAX_CHARS,
)
_RANGE = [
    _header("Range", "one range of bytes", "bytes=0-65535"),
    _header("If-Range", "an ETag: the range holds if it is still that", '"9f86d081884c7d659a2feaa0c55ad015"'),
    _header("If-None-Match", "ETags that the client has", '"9f86d081884c7d659a2feaa0c55ad015"'),
]
_PATH = {
    name: {"name": name, "in": "path", "required": True, "description": text, "schema": schema, "example": example}
    for name, text, schema, example in (
        ("job_id", "of the job", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, _ID),
        ("stem", "`file` of one of the job's stems", {"type": "string"}, _STEM["file"]),
    )
}
_LAST_EVENT = [_header("Last-Event-ID", "number of the last event that the client has", "3")]


def _json(description: str, jobs: dict[str, Job]) -> dict[str, Any]:
    examples = {name: {"value": job.body()} for name, job in jobs.items()}
    schema = {"$ref": "#/components/schemas/Job"}
    return {"description": description, "content": {"application/json": {"schema": schema, "examples": examples}}}


def accepted() -> dict[str, Any]:
    """The answer to a form that became a job."""
    headers = {
        "Location": ("path of the job", f"/v1/jobs/{_ID}"),
        "Retry-After": ("seconds after which to look", "3"),
        "Preference-Applied": ("where Prefer asked for it", "respond-async"),
    }
    stated = {
        name: {"description": text, "schema": {"type": "string"}, "example": value}
        for name, (text, value) in headers.items()
    }
    return {**_json("The job, which waits for its turn", {"queued": _WAITING}), "headers": stated}


JOB_KINDS: tuple[type[errors.WinnowError], ...] = (errors.IdempotencyMismatch, errors.JobsUnavailable)


# What is told when the recording is decoded and worked on, so of the job and not of the form.
_LATER = (errors.AudioError, errors.ModelError, errors.ChildError)
_AT_ONCE = (errors.UnsupportedAudio, errors.EmptyAudio, errors.TruncatedAudio)
_NEVER = (errors.NotAcceptable, errors.DeadlinePassed, errors.TooLongToWait)
_FORM = tuple(
    kind for kind in openapi.SEPARATE_KINDS if kind in _AT_ONCE or not (kind in _NEVER or issubclass(kind, _LATER))
)
_FAILURES = (
    *(kind for kind in openapi.SEPARATE_KINDS if issubclass(kind, _LATER) and kind not in _NEVER),
    errors.InvalidField,
    errors.StorageFull,
    errors.JobLost,
)


def _bytes_responses(*kinds: type[errors.WinnowError]) -> dict[int | str, dict[str, Any]]:
    whole = openapi.separate_responses()[200]
    shown = {"Accept-Ranges": ("always", "bytes"), "ETag": ("of these bytes", '"9f86d081884c7d659a2feaa0c55ad015"')}
    headers = {
        **whole["headers"],
        **{n: {"description": t, "schema": {"type": "string"}, "example": v} for n, (t, v) in shown.items()},
    }
    part = {
        "description": "The range that was asked for",
        "content": whole["content"],
        "headers": {
            **headers,
            "Content-Range": {
                "description": "which bytes of how many",
                "schema": {"type": "string"},
                "example": "bytes 0-65535/882044",
            },
        },
    }
    return {
        200: {**whole, "headers": headers},
        206: part,
        304: {"description": "The client has these bytes already"},
        **openapi_responses(*openapi.GATE, *_STATE, *_RESULT, *kinds),
    }


def describe(router: APIRouter, **endpoints: Callable[..., Any]) -> None:
    """Put the endpoints at their paths, each with all its answers."""
    events: dict[int | str, dict[str, Any]] = {
        200: {
            "description": f"Events, each with its number: {', '.join(EVENTS)}; a comment now and then between them",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EVENTS.decode()}},
        },
        204: {"description": "Nothing comes after the event that the client has"},
        **openapi_responses(*openapi.GATE, *_STATE, errors.Busy),
    }
    look: dict[int | str, dict[str, Any]] = {
        200: _json("The job", {"queued": _WAITING, "running": _RUNNING, "succeeded": _DONE}),
        **openapi_responses(*openapi.GATE, *_STATE),
    }
    rows: list[tuple[str, str, str, dict[int | str, dict[str, Any]], list[dict[str, Any]]]] = [
        ("", "POST", "create", {202: accepted(), **openapi_responses(*_FORM, *JOB_KINDS)}, [IDEMPOTENCY]),
        ("/{job_id}", "GET", "look", look, []),
        ("/{job_id}/events", "GET", "listen", events, _LAST_EVENT),
        ("/{job_id}/result", "GET", "result", _bytes_responses(*_FAILURES), _RANGE),
        ("/{job_id}/result/{stem}", "GET", "stem", _bytes_responses(), _RANGE),
        (
            "/{job_id}",
            "DELETE",
            "delete",
            {204: {"description": "It is"}, **openapi_responses(*openapi.GATE, *_STATE)},
            [],
        ),
    ]
    for path, method, name, responses, parameters in rows:
        extra: dict[str, Any] = dict(openapi.SEPARATE_BODY) if method == "POST" else {}
        parameters = [_PATH[part] for part in _PATH if f"{{{part}}}" in path] + parameters
        status = next(iter(responses))
        router.add_api_route(
            path,
            endpoints[name],
            methods=[method],
            operation_id=f"v1_jobs_{name}",
            status_code=int(status),
            response_class=Response,
            responses=responses,
            openapi_extra={**extra, "parameters": parameters} if parameters else extra,
        )
        if name in ("result", "stem"):
            router.add_api_route(path, endpoints[name], methods=["HEAD"], include_in_schema=False)


JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A separation that its caller does not wait for",
    "required": list(_WAITING.body()),
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "status": {"enum": ["queued", "running", "succeeded", "failed", "canceled", "expired"]},
        "progress": {"type": "number", "minimum": 0, "maximum": 1, "description": "never goes back"},
        "queue_position": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "jobs that came earlier and have not ended; null unless queued",
        },
        **{
            f"{name}_at": {"type": ["string", "null"], "format": "date-time"}
            for name in ("created", "started", "finished", "expires")
        },
        "stems": {
            "type": "array",
            "description": "the sounds, once it has succeeded; prompt, presence and spans of the residual are null",
            "items": {"type": "object", "required": [*_STEM, "href"]},
        },
        "error": {"anyOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "null"}]},
        "result": {"type": ["string", "null"], "description": "path of all sounds together"},
        "events": {"type": "string", "description": "path of its events"},
    },
}
