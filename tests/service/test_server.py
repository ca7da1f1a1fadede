"""How the service stops, in real processes: what is inside ends, nobody new comes in, nothing is left."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.reliability.front import Front
from tests.reliability.rolling_restart import restart_under_load
from tests.service.fake_server import PATIENCE_S, FakeServer, fake_server
from tests.service.sounds import encode, noise, silence
from tests.service.wire import closed, form, head, read, until

SOUND = encode(noise(16_000))
BODY, CONTENT_TYPE = form(SOUND)


def separate(server: FakeServer, sound: bytes = SOUND) -> httpx.Response:
    return httpx.post(
        f"{server.url}/separate", files={"audio": sound}, data={"prompt": "dog"}, timeout=httpx.Timeout(PATIENCE_S)
    )


def windows(count: int) -> bytes:
    """A recording of about so many windows."""
    return encode(silence(count * 5 * 8_000), 8_000)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "of-the-process"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


def at_work(server: FakeServer) -> bool:
    """Whether a request's folder is there."""
    return any(server.folder.iterdir())


def test_sigterm_lets_what_is_inside_end_and_takes_others_until_the_proxy_knows(folder: Path) -> None:
    with fake_server(folder, delay_s=0.2, pre_stop_s=3) as server, ThreadPoolExecutor(1) as threads:
        kept = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        kept.sendall(head("GET", "/readyz"))
        assert read(kept).status == 200
        inside = threads.submit(separate, server, windows(15))
        until(lambda: at_work(server))
        server.signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        taken = separate(server)
        assert (taken.status_code, taken.headers["connection"]) == (200, "close")
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        kept.sendall(head("GET", "/readyz"))
        answer = read(kept)
        assert (answer.status, answer.problem, answer.headers["connection"]) == (503, "draining", "close")
        assert closed(kept)
        assert inside.result().status_code == 200
        assert server.process.wait(PATIENCE_S) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz")


def test_what_does_not_end_in_its_grace_is_told_503(folder: Path) -> None:
    with fake_server(folder, delay_s=0.5, grace_s=1) as server, ThreadPoolExecutor(1) as threads:
        inside = threads.submit(separate, server, windows(200))
        until(lambda: at_work(server))
        upload = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        stated = {"Content-Type": CONTENT_TYPE, "Content-Length": len(BODY)}
        upload.sendall(head("POST", "/separate", stated) + BODY[:1_000])
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        assert read(upload).problem == "draining"
        upload.close()
        answer = inside.result()
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/draining")
        assert server.process.wait(PATIENCE_S) == 0


def test_a_second_signal_is_at_once(folder: Path) -> None:
    with fake_server(folder, delay_s=0.5, pre_stop_s=300, grace_s=300) as server, ThreadPoolExecutor(1) as threads:
        inside = threads.submit(separate, server, windows(200))
        until(lambda: at_work(server))
        server.signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        server.signal(signal.SIGTERM)
        answer = inside.result()
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/draining")
        assert server.process.wait(PATIENCE_S / 2) == 0


def test_ctrl_c_waits_for_no_proxy(folder: Path) -> None:
    with fake_server(folder, pre_stop_s=300) as server:
        server.signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0


def test_sigterm_under_load_fails_nobody_who_asks_again(folder: Path) -> None:
    """Clients that repeat what was refused: with the port closed, with 503, never with an answer cut short."""
    outcomes: list[int] = []
    stop = threading.Event()

    def client(server: FakeServer) -> None:
        while not stop.is_set():
            try:
                outcomes.append(separate(server).status_code)
            except httpx.ConnectError:
                outcomes.append(0)
                stop.wait(0.05)

    with fake_server(folder, delay_s=0.02, pre_stop_s=0.5) as server, ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(client, server) for _ in range(8)]
        until(lambda: outcomes.count(200) >= 20)
        server.signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        stop.set()
        for each in clients:
            each.result()  # a connection that breaks in the middle would be raised here
    assert set(outcomes) <= {200, 503, 0} and outcomes.count(0) > 0


def test_rolling_restart_of_two_replicas_fails_nobody(tmp_path: Path) -> None:
    result = restart_under_load(tmp_path, n_requests=80, n_clients=4, delay_s=0.01)
    assert (result.failures, result.n_restarts) == ([], 2) and result.n_requests >= 80
    assert result.left_behind == []


def test_the_front_of_that_test_reports_failures(tmp_path: Path) -> None:
    """It does not hide what it cannot repeat: with no replica there, a request fails."""
    with Front([1], patience_s=0.2) as front:
        answer = httpx.post(f"{front.url}/separate", content=b"x", timeout=PATIENCE_S)
    assert answer.status_code == 502


def test_sighup_reads_the_keys_again(folder: Path, tmp_path: Path) -> None:
    from service.keys import digest_of

    keys = tmp_path / "keys"
    keys.write_text(f"a {digest_of('wk_a')}\n")
    with fake_server(folder, api_keys_file=keys) as server:
        server.signal(signal.SIGHUP)
        until(lambda: "keys read again" in server.said())
        assert httpx.get(f"{server.url}/v1/info", headers={"X-API-Key": "wk_a"}).status_code == 200


def test_a_device_that_is_lost_is_told_and_ends_the_process(folder: Path) -> None:
    with fake_server(folder) as server:
        assert separate(server).status_code == 200
        server.signal(signal.SIGUSR1)
        until(lambda: separate(server).status_code == 503)
        assert httpx.get(f"{server.url}/healthz").json()["type"] == "/problems/engine-stuck"
        assert server.process.wait(PATIENCE_S) == 1
        assert "the device is lost" in server.said()
