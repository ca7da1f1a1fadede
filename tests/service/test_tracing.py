from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from service.errors import StartError
from service.settings import Settings
from service.telemetry import Telemetry
from service.timings import Timings
from service.tracing import Tracing
from tests.service.conftest import PATIENCE_S, Running
from tests.service.sounds import encode, noise

export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def traced(start: Callable[..., Running]) -> tuple[Running, Callable[[int], list]]:
    """A service whose spans stay in memory, and what waits for so many of them."""
    running = start()
    exporter = memory.InMemorySpanExporter()
    running.app.state.telemetry._tracing = Tracing(export.SimpleSpanProcessor(exporter))

    def spans(n: int) -> list:
        deadline = time.monotonic() + PATIENCE_S
        while len(found := exporter.get_finished_spans()) < n:
            assert time.monotonic() < deadline, [span.name for span in found]
            time.sleep(0.02)
        return list(found)

    return running, spans


def test_a_separation_is_a_span_with_its_stages_inside(start: Callable[..., Running]) -> None:
    running, spans = traced(start)
    began_ns = time.time_ns()
    answer = running.separate(encode(noise(4_000), 16_000), "a dog")
    stages = [item.partition(";")[0] for item in answer.headers["server-timing"].split(", ")]
    found = {span.name: span for span in spans(len(stages) + 1)}
    ended_ns = time.time_ns()
    request = found.pop("POST /separate")
    assert {"upload", "queue", "decode", "embed"} <= set(stages) == set(found)
    assert request.parent is None and request.kind.name == "SERVER"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["winnow.request_id"] == answer.headers["x-request-id"]
    slack_ns = 50_000_000  # two clocks
    assert began_ns - slack_ns <= request.start_time <= request.end_time <= ended_ns + slack_ns
    for span in found.values():
        assert span.parent.span_id == request.context.span_id
        assert request.start_time - slack_ns <= span.start_time <= span.end_time <= request.end_time + slack_ns
        assert span.attributes["winnow.pieces"] >= 1
    assert "dog" not in "".join(str(span.attributes) for span in [request, *found.values()])


def test_the_callers_trace_is_taken_up(start: Callable[..., Running]) -> None:
    running, spans = traced(start)
    running.client.get("/healthz", headers={"traceparent": f"00-{TRACE}-{ABOVE}-01"})
    (span,) = spans(1)
    assert f"{span.context.trace_id:032x}" == TRACE and f"{span.parent.span_id:016x}" == ABOVE


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{TRACE}", f"00-{'0' * 32}-{ABOVE}-01", "00-" + "x" * 500])
def test_a_trace_that_is_none_is_not_taken_up(header: str, start: Callable[..., Running]) -> None:
    running, spans = traced(start)
    running.client.get("/healthz", headers={"traceparent": header})
    (span,) = spans(1)
    assert span.parent is None and f"{span.context.trace_id:032x}" != TRACE


def test_a_caller_that_does_not_sample_is_not_traced(start: Callable[..., Running]) -> None:
    running, spans = traced(start)
    running.client.get("/healthz", headers={"traceparent": f"00-{TRACE}-{ABOVE}-00"})
    running.client.get("/healthz")
    (span,) = spans(1)
    assert span.parent is None


def test_failures_are_marked(start: Callable[..., Running]) -> None:
    running, spans = traced(start)
    running.network.fail = RuntimeError("broken")
    assert running.separate(encode(noise(1_000), 16_000)).status_code == 500
    request = next(span for span in spans(2) if span.kind.name == "SERVER")
    assert request.status.status_code.name == "ERROR" and request.attributes["error.type"] == "internal"


def test_a_jobs_work_is_traced_under_the_request_that_asked_for_it() -> None:
    exporter = memory.InMemorySpanExporter()
    telemetry = Telemetry(Settings(), "0", lambda: ())
    telemetry._tracing = Tracing(export.SimpleSpanProcessor(exporter))
    timings = Timings()
    now_s = time.perf_counter()
    for piece in range(3):
        timings.add("infer", now_s - 3 + piece, now_s - 2.5 + piece)
    telemetry.job_ended(timings, 3.0, "succeeded", f"00-{TRACE}-{ABOVE}-01")
    infer, job = exporter.get_finished_spans()
    assert (job.name, f"{job.parent.span_id:016x}") == ("job", ABOVE)
    assert infer.attributes["winnow.pieces"] == 3 and infer.attributes["winnow.busy_ms"] == pytest.approx(1_500)
    assert infer.end_time - infer.start_time == pytest.approx(2.5e9, rel=1e-6)


def test_a_tracer_that_fails_costs_no_request(start: Callable[..., Running]) -> None:
    running = start()

    class Broken:
        def ended(self, *_: object) -> str:
            raise RuntimeError("no tracer")

        def close(self) -> None: ...

    running.app.state.telemetry._tracing = Broken()
    assert running.separate(encode(noise(1_000), 16_000)).status_code == 200
    assert running.client.get("/healthz").status_code == 200


def test_nothing_that_makes_spans_is_imported_unless_it_is_configured() -> None:
    code = (
        "import sys; from service.app import create_app; from tests.service.fakes import fake_engine;"
        "app = create_app(engine=fake_engine()); assert app.state.telemetry._tracing is None;"
        "sys.exit(str([n for n in sys.modules if n.startswith('opentelemetry.sdk.trace')] or '') or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_the_extra_the_service_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartError, match=r"winnow\[otel\]"):
        Telemetry(Settings(otlp_endpoint="http://127.0.0.1:4318"), "0", lambda: ())
