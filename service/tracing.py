"""OpenTelemetry spans of requests and of what was done for them; needs the extra ``otel``, where it is asked for.

Spans are made when a request has ended, from the account of its separation: nothing is traced while it runs, so a
service without a collector pays nothing, and one with a collector pays after the answer has gone. A stage of many
pieces (windows that wait and are inferred) is one span from first to last that says how long it was busy.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from service.errors import StartError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor

    from service.envelope import Record
    from service.timings import Timings


class Tracing:
    """Makes spans and hands them to a processor."""

    def __init__(self, processor: SpanProcessor, version: str = "0") -> None:
        """Begin; the usual ``OTEL_`` variables say which traces are kept and what the service is called."""
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = Resource({"service.name": "winnow", "service.version": version}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("winnow", version)
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to_collector(cls, endpoint: str, version: str = "0") -> Tracing:
        """Send spans to an OTLP collector over HTTP, from a thread; when it is not there they are dropped.

        Raises:
            StartError: the extra is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise StartError("WINNOW_OTLP_ENDPOINT needs: pip install 'winnow[otel]'") from error
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")), version)

    def ended(self, record: Record, route: str) -> str | None:
        """Trace a request that has just ended, under its caller's span where it named one; returns the trace's id."""
        attributes: dict[str, Any] = {
            "http.request.method": record.method,
            "http.route": route,
            "http.response.status_code": record.status,
            "http.request.body.size": record.n_in,
            "http.response.body.size": record.n_out,
            "winnow.request_id": record.request_id,
        }
        if record.caller is not None:
            attributes["winnow.key"] = record.caller
        if record.problem is not None:
            attributes["error.type"] = record.problem
        duration_s = record.duration_ms / 1_000
        return self.work(
            f"{record.method} {route}",
            record.timings,
            duration_s,
            attributes,
            record.traceparent,
            failed=record.status >= 500,
        )

    def work(
        self,
        name: str,
        timings: Timings | None,
        duration_s: float,
        attributes: dict[str, Any],
        traceparent: str | None = None,
        *,
        failed: bool = False,
    ) -> str | None:
        """Trace a piece of work that has just ended and began ``duration_s`` before, with its stages inside.

        Args:
            name: of the span; never made of what a caller wrote.
            timings: its account.
            duration_s: seconds.
            attributes: of the span.
            traceparent: the header of W3C Trace Context that names the span above.
            failed: whether it is to be marked as an error.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        # Stages are measured on a clock that only runs forward; spans tell the time of day.
        to_epoch_ns = time.time_ns() - time.perf_counter_ns()
        ended_ns = time.perf_counter_ns() + to_epoch_ns
        span = self._tracer.start_span(
            name,
            self._above(traceparent),
            SpanKind.SERVER,
            attributes,
            start_time=ended_ns - int(duration_s * 1e9),
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        if timings is not None and span.is_recording():
            if timings.audio_in_s:
                span.set_attribute("winnow.audio_in_s", timings.audio_in_s)
            span.set_attribute("winnow.cache", timings.cache_states)
            inside = set_span_in_context(span)
            for stage_name, stage in timings.spans.items():
                began_ns = int(stage.began_s * 1e9) + to_epoch_ns
                said = {"winnow.busy_ms": 1_000 * stage.busy_s, "winnow.pieces": stage.pieces}
                part = self._tracer.start_span(stage_name, inside, attributes=said, start_time=began_ns)
                part.end(int(stage.ended_s * 1e9) + to_epoch_ns)
        span.end(ended_ns)
        context = span.get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None

    def _above(self, traceparent: str | None) -> Context:
        from opentelemetry.context import Context

        return self._propagator.extract({"traceparent": traceparent or ""}, Context())

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.force_flush(3_000)
        self._provider.shutdown()
