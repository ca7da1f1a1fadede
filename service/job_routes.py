"""The paths of jobs: make one, look at it, listen to it, fetch what came of it, end it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service import job_openapi, problems
from service.byte_range import FileResponse
from service.errors import JobGone, JobNotFound, JobUnfinished, RangeNotSatisfiable
from service.events import HEARTBEAT_S, EventStream, last_event_id
from service.job import CANCELED, EXPIRED, FAILED, LAST_EVENTS, UNFINISHED, Job, is_id, problem_of_json
from service.job_submission import submit_job
from service.jobs import Jobs

router = APIRouter(prefix="/v1/jobs")


def jobs_of(request: Request) -> Jobs:
    """The application's jobs."""
    jobs = request.app.state.service.jobs
    assert isinstance(jobs, Jobs)
    return jobs


async def _find(request: Request) -> Job:
    """A job of the request's own key. Raises JobNotFound also for somebody else's: its id is nobody's business."""
    jobs, job_id = jobs_of(request), request.path_params["job_id"]
    job = await jobs.ask(lambda: jobs.store.get(job_id)) if is_id(job_id) else None
    if job is None or job.owner != request.state.caller:
        raise JobNotFound("there is no such job, or none any more")
    return job


async def create(request: Request) -> Response:
    """Take a form as POST /separate does, and answer at once with a job that does it.

    Its sender looks at it, or listens to its events, until it has ended.
    """
    request.app.state.service.require_ready()
    return await submit_job(request, jobs_of(request))


async def look(request: Request) -> Response:
    """How a job is: waiting, running, or how it ended."""
    job = await _find(request)
    headers = {}
    if job.status in UNFINISHED:
        headers["Retry-After"] = str(jobs_of(request).retry_s(job.queue_position))
    return job_openapi.job_response(job, headers)


async def listen(request: Request) -> Response:
    """What happens to a job, as server-sent events; `Last-Event-ID` names the last that the client has.

    The stream ends with the job's last event. Asked for what comes after that, the answer is 204, which tells an
    EventSource to stop.
    """
    job = await _find(request)
    jobs = jobs_of(request)
    after = last_event_id(request.headers.get("last-event-id"))
    known = await jobs.ask(lambda: jobs.store.events(job.id, max(after - 1, 0))) or []
    if job.status not in UNFINISHED and after and known and known[-1].number <= after and known[-1].name in LAST_EVENTS:
        return Response(None, 204)
    leave = jobs.listen()
    return EventStream(
        lambda number: jobs.ask(lambda: jobs.store.events(job.id, number)), after, jobs.streams_end, leave, HEARTBEAT_S
    )


async def result(request: Request) -> Response:
    """What POST /separate would have answered: the sound, a zip of several, or the problem it ended with."""
    job = await _find(request)
    if job.status == FAILED and job.problem is not None:
        problem = problem_of_json(job.problem)
        request.state.problem = problem.kind
        return problems.response(problem, job.id)
    found = _require_result(request, job)
    return await _send(request, job, found, found["filename"], 0)


async def stem(request: Request) -> Response:
    """One sound of a job, by its `file` in the job's `stems`."""
    job = await _find(request)
    for found in _require_result(request, job)["stems"]:
        if found["file"] == request.path_params["stem"]:
            return await _send(request, job, found, found["file"], found["offset"])
    raise JobNotFound("the job has no such stem")


def _require_result(request: Request, job: Job) -> dict[str, Any]:
    if job.status in UNFINISHED:
        raise JobUnfinished(f"the job is {job.status}", retry_after_s=jobs_of(request).retry_s(job.queue_position))
    if job.status in (CANCELED, EXPIRED):
        raise JobGone("the job was canceled" if job.status == CANCELED else "the job's results are gone")
    if job.result is None:
        raise JobNotFound("the job failed: it has no stems")
    return job.result


async def _send(request: Request, job: Job, found: dict[str, Any], filename: str, offset: int) -> Response:
    """Answer with a stretch of a job's file."""
    assert job.result is not None
    name = job.result["file"]
    try:
        file = await asyncio.to_thread(jobs_of(request).spool.open, job.id, name)
    except FileNotFoundError:
        raise JobGone("the job's results are gone") from None
    headers = {
        **job.result["headers"],
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Cache-Control": "private, no-cache",
    }
    try:
        return FileResponse(file, offset, found["bytes"], found["etag"], request.headers, headers, found["media_type"])
    except RangeNotSatisfiable as error:
        file.close()
        problem = problems.problem_of(error)
        request.state.problem = problem.kind
        headers = {"Content-Range": f"bytes */{found['bytes']}", "Accept-Ranges": "bytes"}
        return problems.response(problem, request.state.request_id, headers)


async def delete(request: Request) -> Response:
    """End a job that has not ended, and delete what it has; again is no error while the job is remembered."""
    job = await _find(request)
    jobs = jobs_of(request)
    await jobs.ask(lambda: jobs.store.cancel(job.id))
    jobs.runner.drop(job.id)
    await asyncio.to_thread(jobs.spool.remove, job.id)
    return Response(None, 204)


job_openapi.describe(router, create=create, look=look, listen=listen, result=result, stem=stem, delete=delete)
