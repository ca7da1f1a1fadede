"""Everything that watches an application, made once for it: metrics, the log of requests, spans, the loop's lag."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import cached_property

from service.envelope import Record
from service.errors import StartError
from service.lag import watch_lag
from service.logs import RequestLog
from service.metrics import OTHER, Metrics
from service.routes import Service
from service.settings import Settings
from service.timings import Timings
from service.tracing import Tracing

log = logging.getLogger("winnow.telemetry")


class Telemetry:
    """What a request, a job and the process tell, and to whom.

    Attributes:
        metrics: the application's.
        metrics_port: where they are served, 0 where they are not.
    """

    def __init__(self, settings: Settings, version: str, templates: Callable[[], Iterable[str]]) -> None:
        """Begin.

        Args:
            settings: what is wanted, and where.
            version: of this program.
            templates: the application's paths, such as ``/v1/jobs/{id}``; asked when the first request has ended.

        Raises:
            StartError: spans are wanted and the extra is not installed.
        """
        self.metrics = Metrics()
        self.metrics.gauges.scratch_free = lambda: shutil.disk_usage(tempfile.gettempdir()).free
        self.metrics_port = 0
        self._settings = settings
        self._templates = templates
        self._requests = RequestLog(settings.log_prompts)
        self._tracing = Tracing.to_collector(settings.otlp_endpoint, version) if settings.otlp_endpoint else None

    def watch(self, service: Service) -> None:
        """Read at each scrape what the application's parts know."""
        gauges, admission = self.metrics.gauges, service.admission
        gauges.inside = lambda: admission.inside
        gauges.at_work = lambda: admission.at_work
        gauges.ready = lambda: service.ready and not admission.leaving

        def breaker() -> str:
            return str(service.separator.engine.cache_info()["redis"]) if service.separator else "off"

        def model() -> dict[str, str]:
            if service.separator is None:
                return {}
            engine = service.separator.engine
            name = str(engine.about.get("name"))
            return {"name": name, "version": engine.version, "provider": engine.network.provider}

        def pending() -> int:
            return service.separator.engine.scheduler.pending if service.separator else 0

        gauges.pending = pending
        gauges.max_batch = lambda: service.separator.engine.scheduler.max_batch if service.separator else 0
        gauges.killed = lambda: service.separator.nursery.killed if service.separator else {}
        gauges.breaker = breaker
        gauges.model = model

    def ended(self, record: Record) -> None:
        """A request has: count it, trace it, write its line."""
        trace_id = None
        route = self.route(record)
        self.metrics.ended(record, route)
        if self._tracing is not None:
            try:
                trace_id = self._tracing.ended(record, route)
            except Exception:
                log.exception("a request was not traced")
        self._requests.write(record, route, trace_id)

    def job_ended(self, timings: Timings, duration_s: float, state: str, traceparent: str | None = None) -> None:
        """A job has: count its work and trace it. ``state`` is its last."""
        self.metrics.job_ended(timings, state)
        if self._tracing is not None:
            failed = state == "failed"
            self._tracing.work("job", timings, duration_s, {"winnow.job": state}, traceparent, failed=failed)

    def route(self, record: Record) -> str:
        """The template of a request's path; ``other`` where the application has none for it."""
        if record.route is not None:
            return record.route
        return next((template for template, pattern in self._patterns if pattern.fullmatch(record.path)), OTHER)

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        return [
            (template, re.compile(re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(template))))
            for template in self._templates()
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the application runs: its metrics' port, and the watch over its event loop.

        Raises:
            StartError: the port cannot be had.
        """
        server = None
        if self._settings.metrics_port is not None:
            try:
                server = self.metrics.serve(self._settings.metrics_host, self._settings.metrics_port)
            except OSError as error:
                raise StartError(f"WINNOW_METRICS_PORT: {error.strerror}") from error
            self.metrics_port = server.port
            log.info("metrics on %s port %d", self._settings.metrics_host, server.port)
        lag = asyncio.create_task(watch_lag(self.metrics.lagged))
        try:
            yield
        finally:
            lag.cancel()
            with suppress(asyncio.CancelledError):
                await lag
            if server is not None:
                await asyncio.to_thread(server.close)
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
