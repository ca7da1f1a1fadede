"""The path that answers what is heard in a recording."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from service import openapi
from service.ask import PromptLimits, read_phrases, refuse_unknown
from service.call import Call
from service.routes import service_of, until_gone
from service.suggest import read_limit
from service.timings import Timings
from service.upload import read_upload
from service.workspace import Workspace

FIELDS = ("audio", "vocabulary", "limit")

router = APIRouter()


async def suggest(request: Request) -> Response:
    """Take a recording; answer which phrases are heard in it, the likeliest first.

    The phrases are those of the form's vocabulary, or a list of everyday sounds. Of a long list any one phrase is
    unlikely before it is heard, so a probability is lower than what `X-Presence` says to who asks for that phrase.
    """
    service = service_of(request)
    suggester = service.require_suggester()
    timings = request.state.timings = Timings()
    started = time.perf_counter()
    async with read_upload(request, service.settings.min_free_bytes) as (file, fields):
        timings.add("upload", started)
        refuse_unknown(fields, FIELDS)
        settings = service.settings
        limits = PromptLimits(settings.max_vocabulary, settings.max_prompt_chars)
        phrases = tuple(dict.fromkeys(read_phrases(fields.get("vocabulary", []), "vocabulary", limits)))
        limit = read_limit(fields.get("limit", []))
        call = Call(patience_s=request.state.patience_s)
        gone = asyncio.ensure_future(until_gone(request))
        workspace = await asyncio.to_thread(Workspace)
        try:
            queued = time.perf_counter()

            def work() -> Response:
                timings.add("queue", queued)
                found = suggester.run(file, phrases, limit, workspace.path, call, timings)
                engine = suggester.separator.engine
                answer = {
                    "model_version": engine.version,
                    "presence": "uncalibrated" if engine.network.calibration is None else "calibrated",
                    "duration_s": round(found.recording.duration_s, 6),
                    "suggestions": [{"phrase": item.phrase, "probability": item.probability} for item in found.items],
                }
                return JSONResponse(answer, headers={"Server-Timing": timings.header()})

            return await service.admission.run(work, call, gone)
        finally:
            workspace.close()
            gone.cancel()


router.add_api_route(
    "/v1/suggest",
    suggest,
    methods=["POST"],
    operation_id="v1_suggest",
    response_class=JSONResponse,
    responses=openapi.suggest_responses(),
    openapi_extra=openapi.SUGGEST_BODY,
)
