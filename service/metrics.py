"""What Prometheus is told: counted by an application's own registry, read when it is scraped.

Labels are taken from short fixed lists (route templates, kinds of problems, stages); a prompt, a key, a path or an
address never is one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.timings import Timings

STAGES = ("upload", "queue", "decode", "embed", "turn", "infer", "encode", "separate", "pack")
BREAKER_STATES = ("off", "closed", "half-open", "open")
JOB_STATES = ("queued", "running")
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Seconds: a stage may take a millisecond or, for an hour of audio, minutes.
_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Ended(Protocol):
    """What the metrics need of a request that has ended; :class:`service.envelope.Record` is one."""

    @property
    def method(self) -> str:
        """As sent."""

    @property
    def status(self) -> int:
        """As answered; 499 when the client left before."""

    @property
    def duration_ms(self) -> float:
        """From the head to the end of the answer."""

    @property
    def problem(self) -> str | None:
        """Kind of the problem that was answered."""

    @property
    def n_in(self) -> int:
        """Bytes of the body that were read."""

    @property
    def n_out(self) -> int:
        """Bytes of the answer's body."""

    @property
    def timings(self) -> Timings | None:
        """The account of its separation, where there was one."""


class Metrics:
    """One application's metrics. Safe to use from several threads.

    Attributes:
        registry: what is served.
        gauges: callables that are asked at each scrape, by name; see :class:`Now`.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = registry = CollectorRegistry()
        self.gauges = Now()
        for collector in (ProcessCollector(registry=None), PlatformCollector(registry=None), self.gauges):
            registry.register(collector)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"winnow_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(f"winnow_{name}", text, labels, registry=registry, buckets=tuple(buckets))

        self._requests = counter("requests", "Requests that have ended.", "route", "method", "status")
        self._refusals = counter("refusals", "Requests answered with a problem, by its kind.", "reason")
        self._seconds = histogram("request_seconds", "Head to end of answer.", _REQUEST_BUCKETS, "route")
        self._stages = histogram("stage_seconds", "A separation's time in a stage.", _STAGE_BUCKETS, "stage")
        self._audio = counter("audio_seconds", "Audio decoded (in) and written (out).", "direction")
        self._bytes = counter("bytes", "Bodies of requests (in) and answers (out).", "direction")
        self._cache = counter("cache", "Prompts looked up in the text cache.", "tier", "result")
        self._jobs = counter("jobs_ended", "Jobs that this process has ended.", "state")
        self._batches = histogram("batch_size", "Windows inferred at once.", (1, 2, 4, 8, 16, 32))
        self._waits = histogram("window_wait_seconds", "From asking for a window to its turn.", _STAGE_BUCKETS)
        self._dropped = counter("windows_dropped", "Windows that were not run, for nobody wanted them any more.", "why")
        self._failed = counter("windows_failed", "Windows that the model failed at.")
        self._lag = histogram("event_loop_lag_seconds", "How late the event loop wakes up.", _LAG_BUCKETS)
        for direction in ("in", "out"):
            self._audio.labels(direction)
            self._bytes.labels(direction)
        for stage in STAGES:
            self._stages.labels(stage)
        for why in ("abandoned", "late"):
            self._dropped.labels(why)

    def ended(self, request: Ended, route: str) -> None:
        """Count a request; ``route`` is a template of the application's, or ``other``."""
        method = request.method if request.method in _METHODS else OTHER
        self._requests.labels(route, method, str(request.status)).inc()
        self._seconds.labels(route).observe(request.duration_ms / 1_000)
        self._bytes.labels("in").inc(request.n_in)
        self._bytes.labels("out").inc(request.n_out)
        if request.problem is not None:
            self._refusals.labels(request.problem).inc()
        if request.timings is not None:
            self.separated(request.timings)

    def separated(self, timings: Timings) -> None:
        """Count the work of a separation, a job's too, whether it came to its end or not."""
        for name, stage in timings.spans.items():
            self._stages.labels(name if name in STAGES else OTHER).observe(stage.busy_s)
        self._audio.labels("in").inc(timings.audio_in_s)
        self._audio.labels("out").inc(timings.audio_out_s)
        for state in timings.cache_states:
            self._looked_up(state)

    def job_ended(self, timings: Timings, state: str) -> None:
        """Count a job and its work; ``state`` is its last."""
        self._jobs.labels(state).inc()
        self.separated(timings)

    def _looked_up(self, state: str) -> None:
        self._cache.labels("local", "hit" if state == "hit-local" else "miss").inc()
        if state == "hit-redis":
            self._cache.labels("redis", "hit").inc()
        elif state == "miss" and self.gauges.breaker() != "off":
            self._cache.labels("redis", "miss").inc()

    def batched(self, size: int, waited_s: list[float]) -> None:
        """Count an inference of ``size`` windows; see :class:`service.scheduler.Observer`."""
        self._batches.observe(size)
        for wait_s in waited_s:
            self._waits.observe(wait_s)

    def dropped(self, why: str) -> None:
        """Count a window that nobody wants any more, ``abandoned`` or ``late``."""
        self._dropped.labels(why).inc()

    def failed(self) -> None:
        """Count a window that the model failed at."""
        self._failed.inc()

    def lagged(self, seconds: float) -> None:
        """Count a waking of the event loop."""
        self._lag.observe(seconds)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """All of them as text, in the format that ``accept`` names, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def serve(self, host: str, port: int) -> MetricsServer:
        """Listen for scrapers, on a thread.

        Raises:
            OSError: the port cannot be had.
        """
        return MetricsServer(*start_http_server(port, host, self.registry))


class MetricsServer:
    """A port of its own, which answers while the event loop does not. ``port`` is the one it got."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Now(Collector):
    """What is asked at a scrape, for it is known already: nothing has to be told of each change.

    Attributes:
        inside: requests that arrive, wait, are worked on or whose answer is on its way.
        at_work: requests that have or wait for a thread.
        pending: windows that wait for the engine.
        max_batch: windows that it takes at once.
        breaker: state of the way to Redis.
        ready: whether a separation would be taken.
        jobs: jobs that have not ended, by state.
        killed: how many children gave no answer, by what they were for and why.
        model: name, version and provider; empty until it is loaded.
        scratch_free: bytes free where temporary files go.
    """

    def __init__(self) -> None:
        self.inside: Callable[[], float] = lambda: 0
        self.at_work: Callable[[], float] = lambda: 0
        self.pending: Callable[[], float] = lambda: 0
        self.max_batch: Callable[[], float] = lambda: 0
        self.breaker: Callable[[], str] = lambda: "off"
        self.ready: Callable[[], bool] = lambda: False
        self.jobs: Callable[[], Mapping[str, int]] = dict
        self.killed: Callable[[], Mapping[tuple[str, str], int]] = dict
        self.model: Callable[[], Mapping[str, str]] = dict
        self.scratch_free: Callable[[], float] = lambda: 0

    def collect(self) -> Iterator[Metric]:
        """One family each."""
        yield _gauge("requests_inside", "Requests inside: uploading, waiting, worked on, being answered.", self.inside)
        yield _gauge("requests_at_work", "Requests that have a thread or wait for one.", self.at_work)
        yield _gauge("windows_pending", "Windows that wait for the engine.", self.pending)
        yield _gauge(
            "max_batch", "Windows that the engine takes at once; fewer after memory was short.", self.max_batch
        )
        yield _gauge("ready", "1 when a separation would be taken.", lambda: float(self.ready()))
        yield _gauge("scratch_free_bytes", "Free bytes where temporary files go.", self.scratch_free)
        state = self.breaker()
        yield _states("redis_breaker_state", "1 for the state of the way to Redis.", {state: 1}, BREAKER_STATES)
        yield _states("jobs", "Jobs that have not ended.", self.jobs(), JOB_STATES)
        about = self.model()
        info = GaugeMetricFamily("winnow_model_info", "The model in service.", labels=("name", "version"))
        provider = GaugeMetricFamily("winnow_provider", "What runs the model.", labels=("provider",))
        if about:
            info.add_metric((about["name"], about["version"]), 1)
            provider.add_metric((about["provider"],), 1)
        killed = CounterMetricFamily(
            "winnow_decoder_killed", "Decoding and encoding children that gave no answer.", labels=("work", "why")
        )
        for labels, count in dict(self.killed()).items():
            killed.add_metric(labels, count)
        yield from (info, provider, killed)


def _gauge(name: str, text: str, value: Callable[[], float]) -> Metric:
    return GaugeMetricFamily(f"winnow_{name}", text, value=value())


def _states(name: str, text: str, counts: Mapping[str, Any], states: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(f"winnow_{name}", text, labels=("state",))
    for state in states:
        family.add_metric((state,), counts.get(state, 0))
    return family
