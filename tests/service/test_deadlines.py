"""Who waits too long, and who is refused for want of a place or of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.service.conftest import PATIENCE_S, Running
from tests.service.sounds import encode, noise, silence
from tests.service.wire import connect, form, head, inside, post, read, service_of, until

SOUND = encode(noise(16_000))


def ask(service: Running, headers: dict[str, str] | None = None) -> httpx.Response:
    return service.client.post("/separate", files={"audio": SOUND}, data={"prompt": "dog"}, headers=headers)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "1, 2", ""])
def test_a_timeout_that_is_none(service: Running, text: str) -> None:
    refused = ask(service, {"X-Request-Timeout": text})
    assert (refused.status_code, refused.json()["field"]) == (422, "X-Request-Timeout")


def test_a_deadline_that_passes_in_the_queue_or_mid_run(start) -> None:
    service = start(running=1)
    service.network.take_turn = lambda: time.sleep(0.3)
    long = encode(silence(120 * 8_000), 8_000)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(
            service.client.post,
            "/separate",
            files={"audio": long},
            data={"prompt": "dog"},
            headers={"X-Request-Timeout": "2"},
        )
        until(lambda: service_of(service).admission.at_work == 1)
        queued = threads.submit(ask, service, {"X-Request-Timeout": "1"})
        for answer in (queued.result(), first.result()):
            assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline-passed")
            assert int(answer.headers["retry-after"]) >= 1
    until(lambda: inside(service) == 0)
    service.network.reset()
    assert ask(service).status_code == 200


def test_a_wait_that_is_known_to_be_longer_than_the_deadline_is_refused_at_once(start) -> None:
    service = start(running=1)
    service_of(service).admission._mean_s = 60.0
    service.network.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, service)
        until(lambda: service_of(service).admission.at_work == 1)
        refused = httpx.post(
            f"{service.url}/separate",
            files={"audio": SOUND},
            data={"prompt": "dog"},
            headers={"X-Request-Timeout": "5"},
            timeout=PATIENCE_S,
        )
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/busy")
        service.network.gate.set()
        assert first.result().status_code == 200


def test_more_work_than_fits_the_deadline_is_told_to_be_a_job(start) -> None:
    service = start()
    backlog = service_of(service).separator.backlog  # type: ignore[union-attr]
    backlog._busy_s, backlog._done = 20.0, 20.0  # as fast as the sound plays
    backlog._best = None
    until(lambda: backlog.speed)
    refused = ask(service, {"X-Request-Timeout": "0.9"})
    assert (refused.status_code, refused.json()["type"]) == (413, "/problems/too-long-to-wait")
    assert "/v1/jobs" in refused.json()["detail"]
    assert ask(service).status_code == 200


def test_refusals_come_at_once_while_all_are_busy(start) -> None:
    """The ninety-ninth of a hundred refusals, beside what a probe takes that does nothing: no more than a little."""
    service = start(running=1, waiting=0)
    service.network.gate.clear()
    body, content_type = form(SOUND)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, service)
        until(lambda: inside(service) == 1)

        def timed(act: Callable[[], int], expected: int) -> float:
            began = time.perf_counter()
            assert act() == expected
            return time.perf_counter() - began

        def refuse() -> int:
            connection = post(service, body, content_type)
            answer = read(connection)
            connection.close()
            assert int(answer.headers["retry-after"]) >= 1
            return answer.status

        def probe() -> int:
            connection = connect(service)
            connection.sendall(head("GET", "/healthz"))
            answer = read(connection)
            connection.close()
            return answer.status

        refusals, probes = [], []
        for _ in range(100):
            refusals.append(timed(refuse, 503))
            probes.append(timed(probe, 200))
        service.network.gate.set()
        assert first.result().status_code == 200
    assert sorted(refusals)[98] < 0.05 + 3 * sorted(probes)[98]
