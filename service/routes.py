"""The paths: separation, and what the service says of itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from service import job_openapi, openapi
from service.admission import Admission
from service.answer import headers_of
from service.ask import FIELDS, OUTPUTS, PromptLimits, read_ask
from service.call import Call
from service.errors import Draining, EngineStuck, NotReady
from service.formats import FORMATS, SUBTYPES
from service.idempotency import read_key
from service.job_submission import prefers_job, submit_job
from service.jobs import Jobs
from service.keys import KeyRing
from service.sending import AnswerResponse
from service.separation import Separator
from service.settings import Settings
from service.suggest import Suggester
from service.timings import Timings
from service.upload import read_upload
from service.workspace import Workspace


@dataclass
class Service:
    """What the routes share: made by ``create_app``, filled in when the model is loaded."""

    settings: Settings
    admission: Admission
    keys: KeyRing | None = None
    separator: Separator | None = None
    jobs: Jobs | None = None
    vocabulary: tuple[str, ...] = ()
    _suggester: Suggester | None = None

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and warm, and answers."""
        return self.separator is not None and self.separator.engine.ready and not self.separator.engine.stuck

    def require_ready(self) -> Separator:
        """The separator, or NotReady, or EngineStuck."""
        if self.separator is None or not self.separator.engine.ready:
            raise NotReady("the model is loading", retry_after_s=2)
        self.require_alive()
        return self.separator

    def require_alive(self) -> None:
        """Return unless the engine will never answer again, which is EngineStuck."""
        if self.separator is not None and self.separator.engine.stuck:
            raise EngineStuck("the engine does not answer", retry_after_s=30)

    def require_suggester(self) -> Suggester:
        """What hears for the vocabulary, or NotReady; to be called on the event loop."""
        separator = self.require_ready()
        if self._suggester is None:
            self._suggester = Suggester(separator, self.vocabulary)
        return self._suggester


router = APIRouter()


def service_of(request: Request) -> Service:
    """What the routes of this application share."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def separate(request: Request) -> Response:
    """Take a recording and the names of sounds; give those sounds alone.

    One sound comes back as itself, several as a zip in the order of the prompts with a manifest, the residual last.
    With `Prefer: respond-async` the answer is a job instead, as from POST /v1/jobs.
    Sounds and residual add up to the recording, sample by sample, within one step of a lossless format.
    """
    service = service_of(request)
    separator = service.require_ready()
    if service.jobs is not None and prefers_job(request.headers):
        return await submit_job(request, service.jobs, preferred=True)
    read_key(request.headers, None)  # of no use here, but a wrong one is wrong all the same
    timings = request.state.timings = Timings()
    started = time.perf_counter()
    async with read_upload(request, service.settings.min_free_bytes) as (file, fields):
        timings.add("upload", started)
        ask = read_ask(
            fields,
            request.headers.get("accept"),
            PromptLimits(service.settings.max_prompts, service.settings.max_prompt_chars),
        )
        call = Call(patience_s=request.state.patience_s)
        gone = asyncio.ensure_future(until_gone(request))
        workspace = await asyncio.to_thread(Workspace, service.settings.min_free_bytes)
        try:
            queued = time.perf_counter()

            def work() -> AnswerResponse:
                timings.add("queue", queued)
                answer = separator.run(file, ask, workspace.path, call, timings)
                headers = headers_of(answer, separator.engine.version, timings)
                return AnswerResponse(answer, workspace, headers)

            return await service.admission.run(work, call, gone)
        except BaseException:
            workspace.close()
            raise
        finally:
            gone.cancel()


async def until_gone(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def healthz(request: Request) -> Response:
    """Whether the process answers, and its engine has not come to a standstill; whether there is a model is /readyz."""
    service_of(request).require_alive()
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Whether a separation would be taken: the model is loaded and warm, and the service is not about to stop."""
    service = service_of(request)
    if service.admission.leaving:
        raise Draining("the service is about to stop", retry_after_s=1)
    service.require_ready()
    return JSONResponse({"status": "ready"})


async def info(request: Request) -> Response:
    """The limits in force, the formats, and what runs the model."""
    service = service_of(request)
    engine = service.require_ready().engine
    settings = service.settings
    return JSONResponse(
        {
            "model": engine.about.get("name"),
            "model_version": engine.version,
            "provider": engine.network.provider,
            "engine": settings.engine,
            "fields": list(FIELDS),
            "formats": {name: list(item.subtypes) for name, item in FORMATS.items()},
            "subtypes": list(SUBTYPES),
            "outputs": list(OUTPUTS),
            "reads": service.require_ready().decoder.kinds,
            "presence": "uncalibrated" if engine.network.calibration is None else "calibrated",
            "cache": engine.cache_info(),
            "jobs": service.jobs.kind if service.jobs else "off",
            "limits": {
                "max_upload_bytes": settings.max_upload_bytes,
                "max_audio_s": settings.max_audio_s,
                "max_decoded_bytes": settings.max_decoded_bytes,
                "max_channels": settings.max_channels,
                "max_prompts": settings.max_prompts,
                "max_prompt_chars": settings.max_prompt_chars,
                "min_sample_rate": engine.signal.min_rate,
                "max_sample_rate": engine.signal.max_rate,
                "running": settings.running,
                "waiting": settings.waiting,
                "deadline_s": settings.deadline_s,
                "stall_s": settings.stall_s,
                "min_rate": settings.min_rate,
                "max_job_audio_s": settings.max_job_audio_s,
                "max_jobs_waiting": settings.max_jobs_waiting,
                "job_workers": settings.job_workers,
                "job_keep_s": settings.job_keep_s,
            },
        }
    )


async def models(request: Request) -> Response:
    """The model in service: its name, version, files with their hashes, training data and evaluation."""
    return JSONResponse({"models": [service_of(request).require_ready().engine.about]})


for _path in ("/separate", "/v1/separate"):
    router.add_api_route(
        _path,
        separate,
        methods=["POST"],
        operation_id=_path.strip("/").replace("/", "_"),
        response_class=Response,
        responses={**openapi.separate_responses(*job_openapi.JOB_KINDS), 202: job_openapi.accepted()},
        openapi_extra={**openapi.SEPARATE_BODY, "parameters": [job_openapi.PREFER, job_openapi.IDEMPOTENCY]},
    )
for _path, _endpoint, _example, _kinds in (
    ("/healthz", healthz, openapi.HEALTH, (EngineStuck,)),
    ("/readyz", readyz, openapi.READY, (NotReady, EngineStuck, Draining)),
    ("/v1/info", info, openapi.INFO, (*openapi.GATE, NotReady, EngineStuck)),
    ("/v1/models", models, openapi.MODELS, (*openapi.GATE, NotReady, EngineStuck)),
):
    router.add_api_route(_path, _endpoint, methods=["GET"], responses=openapi.json_responses(_example, *_kinds))
