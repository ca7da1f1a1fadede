"""Two hundred uploads at a byte a second, and honest requests in between.

``python -m tests.reliability.slow_uploads`` goes on for half a minute, so that the service also ends some.
With ``--come-back`` those that are sent away connect again within a second, as an attacker's would.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.service.fake_server import PATIENCE_S, FakeServer
from tests.service.sounds import encode, noise
from tests.service.wire import form, post


@dataclass
class Result:
    """Times of the honest requests in milliseconds, and the statuses of all."""

    n_slow: int
    n_honest: int
    alone_ms: float
    median_ms: float
    slowest_ms: float
    honest: dict[int, int]


def run(server: FakeServer, n_slow: int, seconds: float, come_back: bool = False) -> Result:
    """Drip and ask; a slow upload that is sent away may come back."""
    sound = encode(noise(5 * 16_000))
    body, content_type = form(sound)
    stop = threading.Event()

    def drip() -> None:
        connections = [post(server, body[:200], content_type, length=len(body)) for _ in range(n_slow)]
        while not stop.wait(1.0):
            for number, connection in enumerate(connections):
                try:
                    connection.sendall(b"x")
                except OSError:
                    connection.close()
                    if not come_back:
                        continue
                    with contextlib.suppress(OSError):
                        connections[number] = post(server, body[:200], content_type, length=len(body))
        for connection in connections:
            connection.close()

    def ask() -> tuple[int, float]:
        began_s = time.perf_counter()
        answer = httpx.post(
            f"{server.url}/separate", files={"audio": sound}, data={"prompt": "dog"}, timeout=PATIENCE_S
        )
        return answer.status_code, 1_000 * (time.perf_counter() - began_s)

    alone_ms = statistics.median(ask()[1] for _ in range(5))
    dripping = threading.Thread(target=drip)
    dripping.start()
    outcomes = []
    try:
        time.sleep(2.5)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            outcomes.append(ask())
            time.sleep(0.25)
    finally:
        stop.set()
        dripping.join()
    times = [time_ms for _, time_ms in outcomes]
    return Result(
        n_slow,
        len(outcomes),
        round(alone_ms, 1),
        round(statistics.median(times), 1),
        round(max(times), 1),
        dict(Counter(status for status, _ in outcomes)),
    )


def main() -> None:
    """Print the figures; fails when an honest request was not served."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--come-back", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "temporary"
        folder.mkdir()
        server = FakeServer(folder, delay_s=0.02)
        try:
            server.wait_until_ready()
            result = run(server, options.slow, options.seconds, options.come_back)
        finally:
            server.end()
    print(json.dumps(asdict(result), indent=2))
    raise SystemExit(set(result.honest) != {200})


if __name__ == "__main__":
    main()
