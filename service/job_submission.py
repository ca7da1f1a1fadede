"""From a form to a job: the same reading and the same limits as a separation that is waited for."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.ask import Ask, PromptLimits, read_ask
from service.container import READ_HERE, identify
from service.errors import JobsUnavailable, NotAcceptable, UnsupportedAudio
from service.idempotency import digest_of, read_key
from service.job import Draft, Submission, ask_to_json, new_id
from service.jobs import Jobs
from service.settings import Settings
from service.upload import read_upload

_RESPOND_ASYNC = re.compile(r"\s*respond-async\s*(?:;|$)", re.IGNORECASE)
_TRACEPARENT = re.compile(r"[0-9a-f-]{1,128}")


def prefers_job(headers: Headers) -> bool:
    """Whether a Prefer header asks for an answer later (RFC 7240)."""
    return any(_RESPOND_ASYNC.match(item) for line in headers.getlist("prefer") for item in line.split(","))


async def submit_job(request: Request, jobs: Jobs, *, preferred: bool = False) -> Response:
    """Take a form as a job: 202, where the job is, and when to look.

    Args:
        request: of the form.
        jobs: take it.
        preferred: it came by a Prefer header.
    """
    owner: str | None = request.state.caller
    key = read_key(request.headers, owner)
    await jobs.ask(jobs.require_room)
    async with read_upload(request, jobs.settings.min_free_bytes) as (file, fields):
        ask = _read_ask(fields, request.headers.get("accept"), jobs.settings)
        await asyncio.to_thread(_require_audio, file, jobs.settings.ffmpeg)
        job_id = new_id()
        n_bytes, upload_digest = await asyncio.to_thread(jobs.spool.take, job_id, file)
    record = ask_to_json(ask)
    trace = request.headers.get("traceparent", "")
    draft = Draft(
        job_id,
        owner,
        record,
        n_bytes,
        digest_of(upload_digest, record),
        key,
        trace if _TRACEPARENT.fullmatch(trace) else None,
    )
    submission = await _submit(jobs, draft)
    headers = {
        "Location": f"/v1/jobs/{submission.job.id}",
        "Retry-After": str(jobs.retry_s(submission.job.queue_position)),
    }
    if preferred:
        headers["Preference-Applied"] = "respond-async"
    return JSONResponse(submission.job.body(), 202, headers)


async def _submit(jobs: Jobs, draft: Draft) -> Submission:
    try:
        submission = await jobs.ask(lambda: jobs.store.submit(draft))
    except JobsUnavailable:
        # It may have been taken all the same, and then needs its files; else they are cleared up as orphans.
        raise
    except BaseException:
        await asyncio.to_thread(jobs.spool.remove, draft.id)
        raise
    if submission.created:
        jobs.runner.wake()
    else:
        await asyncio.to_thread(jobs.spool.remove, draft.id)
    return submission


def _read_ask(fields: Mapping[str, list[str]], accept: str | None, settings: Settings) -> Ask:
    """An Accept header may speak of the result or of this answer, which is JSON: what fits no sound is not held to."""
    limits = PromptLimits(settings.max_prompts, settings.max_prompt_chars)
    try:
        return read_ask(fields, accept, limits)
    except NotAcceptable:
        return read_ask(fields, None, limits)


def _require_audio(file: BinaryIO, ffmpeg: str) -> None:
    """Refuse at once what can be told from a file's first bytes; the rest is told when it is decoded."""
    container = identify(file)
    if container.needs_ffmpeg and shutil.which(ffmpeg) is None:
        raise UnsupportedAudio("M4A and WebM need ffmpeg, which this service does not have", limit=list(READ_HERE))
