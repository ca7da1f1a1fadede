"""Load and departures, on real sockets: refusals come at once, the work of those who left stops."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from service.routes import Service
from tests.service.conftest import PATIENCE_S, Running
from tests.service.sounds import encode, noise, silence

SOUND = encode(noise(16_000))


def inside(running: Running) -> int:
    service: Service = running.app.state.service
    return service.admission.inside


def until(condition, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def form(sound: bytes) -> bytes:
    return httpx.Request("POST", "http://x/separate", files={"audio": ("a.wav", sound)}, data={"prompt": "dog"}).read()


def send(running: Running, body: bytes, length: int | None = None, boundary: bytes | None = None) -> socket.socket:
    """Send a request by hand and leave the connection to the test."""
    host, port = running.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), PATIENCE_S)
    boundary = boundary or body.split(b"\r\n", 1)[0][2:]
    connection.sendall(
        b"POST /separate HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary="
        + boundary
        + b"\r\nContent-Length: %d\r\n\r\n" % (len(body) if length is None else length)
        + body
    )
    return connection


def test_too_many_are_told_at_once_to_come_back(start) -> None:
    service = start(running=1, waiting=1)
    service.network.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        accepted = [threads.submit(service.separate, SOUND) for _ in range(2)]
        until(lambda: inside(service) == 2)
        refused = httpx.post(
            f"{service.url}/separate", files={"audio": ("a.wav", SOUND)}, data={"prompt": "dog"}, timeout=PATIENCE_S
        )
        assert not any(future.done() for future in accepted)
        service.network.gate.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/busy")
    assert 1 <= int(refused.headers["retry-after"]) == refused.json()["retry_after"] <= 120
    assert service.separate(SOUND).status_code == 200


def test_health_answers_while_the_model_works(start) -> None:
    service = start(running=1)
    service.network.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(service.separate, SOUND)
        until(lambda: inside(service) == 1)
        assert httpx.get(f"{service.url}/healthz").json() == {"status": "alive"}
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        service.network.gate.set()
        assert work.result().status_code == 200


def test_a_client_that_leaves_during_inference_is_forgotten(start, temp_folder: Path) -> None:
    service = start(running=1)
    service.network.gate.clear()
    service.network.entered.clear()
    connection = send(service, form(encode(silence(60 * 8_000), 8_000)))  # a dozen windows
    until(service.network.entered.is_set)
    before = service.network.n_masks
    connection.close()
    time.sleep(0.2)
    service.network.gate.set()
    until(lambda: inside(service) == 0)
    assert service.network.n_masks == before
    until(lambda: not list(temp_folder.iterdir()))
    assert service.separate(SOUND).status_code == 200


def test_a_client_that_leaves_while_waiting_is_never_worked_on(start) -> None:
    service = start(running=1)
    service.network.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(service.separate, SOUND)
        until(lambda: inside(service) == 1)
        connection = send(service, form(SOUND))
        until(lambda: inside(service) == 2)
        connection.close()
        time.sleep(0.2)
        service.network.gate.set()
        assert first.result().status_code == 200
        until(lambda: inside(service) == 0)
    assert service.network.n_masks == 2  # the warm-up's and the first request's


def test_a_client_that_leaves_during_upload(start, temp_folder: Path) -> None:
    service = start()
    body = form(encode(silence(2_000_000)))
    connection = send(service, body[:2_500_000], length=len(body), boundary=body.split(b"\r\n", 1)[0][2:])
    time.sleep(0.2)
    connection.close()
    assert service.separate(SOUND).status_code == 200
    until(lambda: inside(service) == 0)


def test_a_client_that_leaves_during_download(start, temp_folder: Path) -> None:
    service = start()
    connection = send(service, form(encode(silence(4_000_000, 2), 192_000)))  # 16 MB: more than sockets hold
    connection.settimeout(PATIENCE_S)
    assert connection.recv(1_024).startswith(b"HTTP/1.1 200")
    connection.close()
    until(lambda: not list(temp_folder.iterdir()))
    assert service.separate(SOUND).status_code == 200


def test_a_short_request_is_not_stuck_behind_a_long_one(start) -> None:
    """Windows take turns: with a slow model the short request is done while the long one has most of its way to go."""
    service = start(running=2)
    turns = threading.Semaphore(0)
    service.network.take_turn = lambda: turns.acquire(timeout=PATIENCE_S)
    with ThreadPoolExecutor(2) as threads:
        long = threads.submit(service.separate, encode(silence(60 * 8_000), 8_000))
        until(lambda: inside(service) == 1)
        short = threads.submit(service.separate, SOUND)
        until(lambda: inside(service) == 2)
        until(lambda: service.engine.scheduler.pending >= 2)  # the long one's next, and the short one's
        for _ in range(4):
            turns.release()
            time.sleep(0.2)
        until(short.done)
        assert not long.done()
        for _ in range(40):
            turns.release()
        assert long.result().status_code == short.result().status_code == 200
