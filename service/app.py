"""The composition root: settings and an engine become an application."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from service import job_openapi, job_routes, openapi, problems, scrape, suggest_routes
from service.admission import Admission
from service.cors import cors_options
from service.engine import Engine
from service.envelope import Envelope
from service.errors import InvalidField, WinnowError
from service.gate import Gate
from service.jobs import Jobs
from service.keys import KeyRing
from service.quota import Quota
from service.routes import Service, router
from service.separation import Separator
from service.settings import Settings
from service.telemetry import Telemetry
from service.vocabulary import SHIPPED, read_vocabulary
from service.workspace import remove_leftovers

# What a form has beside its file: boundaries, headers, text fields.
_FORM_BYTES = 1024 * 1024


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: read from the environment when None.
        engine: served when given, and its owner closes it; else one is loaded before the first request is taken.
    """
    settings = settings or Settings()
    keys = KeyRing(settings.api_keys_file, Quota.parse(settings.key_quota)) if settings.api_keys_file else None
    service = Service(settings, Admission(settings.running, settings.waiting, settings.min_rate), keys)
    service.vocabulary = read_vocabulary(settings.vocabulary or SHIPPED, settings.max_prompt_chars)
    if engine is not None:
        service.separator = Separator.of(engine, settings)
    telemetry = Telemetry(settings, _version(), lambda: [*app.openapi()["paths"], scrape.PATH])
    telemetry.watch(service)
    jobs = service.jobs = Jobs(settings, service.require_ready, lambda: service.admission.draining, telemetry.job_ended)
    telemetry.metrics.gauges.jobs = lambda: {"queued": jobs.counts.queued, "running": jobs.counts.running}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        own = None
        await asyncio.to_thread(remove_leftovers)
        if service.separator is None:
            # Imported here, so that an application around somebody else's engine needs no ONNX Runtime.
            from service.loading import load_engine

            own = await asyncio.to_thread(load_engine, settings)
            service.separator = Separator.of(own, settings)
        service.separator.engine.scheduler.observer = telemetry.metrics
        await asyncio.to_thread(service.separator.warm_up)
        async with telemetry.running(), jobs.running():
            yield
        service.admission.close()
        service.separator.close()
        if own is not None:
            own.close()

    app = FastAPI(
        title="Winnow",
        summary="Takes a recording and a phrase, gives back that sound alone.",
        version=_version(),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # a redirected upload would be sent twice
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is service.telemetry
        exception_handlers={
            WinnowError: _on_winnow_error,
            HTTPException: _on_http_error,
            RequestValidationError: _on_validation_error,
        },
    )
    app.state.service = service
    app.state.telemetry = telemetry
    app.include_router(router)
    app.include_router(suggest_routes.router)
    app.include_router(scrape.router)
    app.include_router(job_routes.router)
    # The last added is the outermost.
    app.add_middleware(Gate, settings=settings, admission=service.admission, keys=keys, form_bytes=_FORM_BYTES)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors_options(settings))
    app.add_middleware(Envelope, on_end=telemetry.ended, leaving=lambda: service.admission.leaving)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _version() -> str:
    try:
        return importlib.metadata.version("winnow")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        app.openapi_schema = openapi.add_schemas(document, Job=job_openapi.JOB_SCHEMA)
    return app.openapi_schema


async def _on_winnow_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, WinnowError)
    return _answer(request, problems.problem_of(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = problems.problem_of_status(error.status_code, str(error.detail))
    return _answer(request, problem, dict(error.headers or {}))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    # The framework's own answer quotes the caller's input; this one does not.
    return _answer(request, problems.problem_of(InvalidField("a parameter is not what it should be")))


def _answer(request: Request, problem: problems.Problem, headers: dict[str, str] | None = None) -> Response:
    request.state.problem = problem.kind
    return problems.response(problem, request.state.request_id, headers)
