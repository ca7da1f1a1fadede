from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.engine import Engine
from service.keys import digest_of
from service.metrics import Metrics
from service.settings import Settings
from service.timings import Timings
from tests.service.conftest import PATIENCE_S, Running
from tests.service.fakes import fake_engine
from tests.service.sounds import encode, noise
from tests.service.wire import until

SECRET = "wk_the-secret-of-a-test"


def sample(text: str, name: str, /, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = [
        item.value
        for family in text_string_to_metric_families(text)
        for item in family.samples
        if item.name == name and labels.items() <= item.labels.items()
    ]
    assert found, (name, labels)
    return sum(found)


def scraped(running: Running, done: Callable[[str], bool]) -> str:
    """The metrics' page once a request's record is in, which is written after its answer has gone."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        text = running.client.get("/metrics").text
        if done(text):
            return text
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


def separations(text: str) -> float:
    return sum(
        item.value
        for family in text_string_to_metric_families(text)
        for item in family.samples
        if item.name == "winnow_requests_total" and item.labels["route"] == "/separate"
    )


def test_a_separation_is_counted_once_in_each_of_its_aspects(start: Callable[..., Running]) -> None:
    running = start()
    sound = encode(noise(8_000), 16_000)
    for _ in range(2):
        assert running.separate(sound, ["a dog", "rain"], output="both").status_code == 200
    assert running.separate(b"no sound at all", "a dog").status_code == 415
    text = scraped(running, lambda text: separations(text) == 3)
    assert sample(text, "winnow_requests_total", route="/separate", method="POST", status="200") == 2
    assert sample(text, "winnow_requests_total", route="/separate", method="POST", status="415") == 1
    assert sample(text, "winnow_refusals_total", reason="unsupported-audio") == 1
    assert sample(text, "winnow_audio_seconds_total", direction="in") == pytest.approx(1.0)
    assert sample(text, "winnow_audio_seconds_total", direction="out") == pytest.approx(3.0)
    assert sample(text, "winnow_cache_total", tier="local", result="miss") == 2
    assert sample(text, "winnow_cache_total", tier="local", result="hit") == 2
    assert sample(text, "winnow_bytes_total", direction="in") > 2 * len(sound)
    for stage in ("upload", "queue", "decode"):
        assert sample(text, "winnow_stage_seconds_count", stage=stage) == 3
    for stage in ("embed", "encode", "separate", "pack"):
        assert sample(text, "winnow_stage_seconds_count", stage=stage) == 2
    assert sample(text, "winnow_request_seconds_count", route="/separate") == 3


def test_what_a_scrape_asks_for_is_what_is(start: Callable[..., Running]) -> None:
    running = start()
    text = running.client.get("/metrics").text
    assert sample(text, "winnow_ready") == 1
    assert sample(text, "winnow_provider", provider="FakeExecutionProvider") == 1
    assert sample(text, "winnow_model_info", name="fake", version="fake") == 1
    assert sample(text, "winnow_redis_breaker_state", state="off") == 1
    assert sample(text, "winnow_redis_breaker_state") == 1, "one state at a time"
    assert sample(text, "winnow_scratch_free_bytes") > 0
    assert sample(text, "process_open_fds") > 0
    assert "winnow_event_loop_lag_seconds_count" in text
    running.engine.ready = False
    assert sample(running.client.get("/metrics").text, "winnow_ready") == 0


def test_requests_inside_are_seen_while_they_are(start: Callable[..., Running]) -> None:
    running = start()
    running.network.reset()
    running.network.gate.clear()
    thread = threading.Thread(target=running.separate, args=(encode(noise(4_000), 16_000),))
    thread.start()
    assert running.network.entered.wait(PATIENCE_S)
    text = running.client.get("/metrics").text
    assert sample(text, "winnow_requests_inside") == 1 and sample(text, "winnow_requests_at_work") == 1
    running.network.gate.set()
    thread.join(PATIENCE_S)
    scraped(running, lambda text: sample(text, "winnow_requests_inside") == 0)


def test_windows_are_counted_by_what_becomes_of_them(start: Callable[..., Running]) -> None:
    running = start(running=2)
    network, scheduler, sound = running.network, running.engine.scheduler, encode(noise(4_000), 16_000)
    network.reset()
    network.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(running.separate, sound)
        assert network.entered.wait(PATIENCE_S)
        second = pool.submit(running.separate, sound)
        until(lambda: scheduler.pending == 1)
        assert sample(running.client.get("/metrics").text, "winnow_windows_pending") == 1
        network.gate.set()
        assert [each.result(PATIENCE_S).status_code for each in (first, second)] == [200, 200]
    network.fail = RuntimeError("broken")
    assert running.separate(sound).status_code == 500
    text = running.client.get("/metrics").text
    assert sample(text, "winnow_batch_size_sum") == sample(text, "winnow_batch_size_count") >= 2
    assert sample(text, "winnow_window_wait_seconds_count") == sample(text, "winnow_batch_size_sum")
    assert sample(text, "winnow_windows_failed_total") == 1


def test_an_engine_that_is_stuck_is_not_alive(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    running = start()
    monkeypatch.setattr("service.server._STUCK_S", float("inf"))  # else it ends by itself
    monkeypatch.setattr(Engine, "stuck", True)
    for path in ("/healthz", "/readyz", "/v1/info"):
        answer = running.client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/engine-stuck")
    assert running.separate(encode(noise(4_000), 16_000)).json()["type"] == "/problems/engine-stuck"
    assert sample(running.client.get("/metrics").text, "winnow_ready") == 0


def test_labels_are_of_few_kinds_whatever_is_asked(start: Callable[..., Running]) -> None:
    running = start()
    sound = encode(noise(1_000), 16_000)
    for number, verb in enumerate(("PURGE", "LOCK", "MKCOL", "REPORT", "SEARCH")):
        running.client.get(f"/secret-{number}")
        running.client.request(verb, "/separate")
        running.separate(sound, f"phrase number {number}")
    text = scraped(running, lambda text: separations(text) == 10)
    assert "phrase" not in text and "secret" not in text and "PURGE" not in text
    routes = set(re.findall(r'route="([^"]*)"', text))
    assert routes <= {"/separate", "/metrics", "other"}
    assert sample(text, "winnow_requests_total", route="other", status="404") == 5


def test_a_refusal_before_routing_still_has_its_route(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(api_keys_file=key_file(tmp_path))
    assert running.separate(encode(noise(1_000))).status_code == 401
    assert running.client.get("/v1/info").status_code == 401
    text = scraped(running, lambda text: separations(text) == 1)
    assert sample(text, "winnow_requests_total", route="/separate", status="401") == 1
    assert sample(text, "winnow_requests_total", route="/v1/info", status="401") == 1
    assert sample(text, "winnow_refusals_total", reason="unauthorized") == 2


def key_file(folder: Path) -> Path:
    path = folder / "keys"
    path.write_text(f"tester {digest_of(SECRET)}\n")
    return path


@pytest.mark.parametrize(
    ("peer", "header", "keys", "status"),
    [
        ("127.0.0.1", {}, False, 200),
        ("127.0.0.1", {}, True, 200),
        ("::1", {}, False, 200),
        ("10.1.2.3", {}, False, 404),
        ("10.1.2.3", {}, True, 401),
        ("10.1.2.3", {"X-API-Key": "wrong"}, True, 401),
        ("10.1.2.3", {"X-API-Key": SECRET}, True, 200),
        ("127.0.0.1", {"X-Forwarded-For": "10.1.2.3"}, False, 404),
        ("127.0.0.1", {"Forwarded": "for=10.1.2.3"}, True, 401),
    ],
)
def test_on_the_services_port_they_are_for_those_next_to_it_and_for_keys(
    peer: str, header: dict[str, str], keys: bool, status: int, tmp_path: Path
) -> None:
    settings = Settings(api_keys_file=key_file(tmp_path) if keys else None)
    assert asyncio.run(ask_metrics(peer, header, settings)) == status


async def ask_metrics(peer: str, header: dict[str, str], settings: Settings) -> int:
    app = create_app(settings, fake_engine())
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return (await client.get("/metrics", headers=header)).status_code


def test_the_metrics_have_a_port_of_their_own_when_that_is_wanted(start: Callable[..., Running]) -> None:
    running = start(metrics_port=0)
    port = running.app.state.telemetry.metrics_port
    assert port != int(running.url.rsplit(":", 1)[1])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        assert sample(answer.read().decode(), "winnow_ready") == 1
    assert running.client.get("/metrics").status_code == 404


def test_the_port_is_free_again_afterwards() -> None:
    server = Metrics().serve("127.0.0.1", 0)
    server.close()
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_applications_count_for_themselves() -> None:
    first, second = Metrics(), Metrics()
    first.batched(3, [0.1, 0.1, 0.2])
    assert sample(first.page()[0].decode(), "winnow_batch_size_count") == 1
    assert sample(second.page()[0].decode(), "winnow_batch_size_count") == 0


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    body, content_type = Metrics().page("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and body.endswith(b"# EOF\n")


def test_a_miss_counts_against_redis_only_where_there_is_one() -> None:
    metrics = Metrics()
    timings = Timings()
    timings.cache_states = ("miss", "hit-redis", "hit-local")
    metrics.separated(timings)
    assert 'tier="redis",result="miss"' not in metrics.page()[0].decode()
    metrics.gauges.breaker = lambda: "closed"
    metrics.separated(timings)
    text = metrics.page()[0].decode()
    assert sample(text, "winnow_cache_total", tier="redis", result="miss") == 1
    assert sample(text, "winnow_cache_total", tier="redis", result="hit") == 2
    assert sample(text, "winnow_cache_total", tier="local", result="miss") == 4


def test_children_that_gave_no_answer_are_counted_by_why(start: Callable[..., Running]) -> None:
    running = start()
    assert "winnow_decoder_killed_total{" not in running.client.get("/metrics").text
    nursery = running.app.state.service.separator.nursery
    for _ in range(2):
        nursery._count("decode", "cpu")
    assert sample(running.client.get("/metrics").text, "winnow_decoder_killed_total", work="decode", why="cpu") == 2
