"""What 500 requests leave behind: memory by the request, file descriptors, temporary files.

``python -m tests.reliability.leaks`` asks the shipped model; ``--fake`` the tests' one.
Requests go well and badly, by turns: one stem, several, several formats, no audio, no form, a client that leaves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import httpx

from tests.service.fake_server import PATIENCE_S, FakeServer
from tests.service.sounds import encode, noise
from tests.service.wire import form, leave, post

SOUND = encode(noise(3 * 44_100, 2), 44_100)


@dataclass
class Result:
    """What was left. ``slope`` is in bytes of resident memory a request, over the last three fifths of them."""

    n_requests: int
    slope_bytes_a_request: float
    memory_mb: list[float]
    open_files_before: int
    open_files_after: int
    temporary_files_after: list[str]


def run(server: FakeServer, n_requests: int) -> Result:
    """Ask a service that is ready."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        kinds = _kinds(server, client)
        for kind in kinds:
            kind()
        open_files = _settled(server)
        points: list[tuple[int, int]] = []
        for number in range(n_requests):
            kinds[number % len(kinds)]()
            points.append((number, server.memory_bytes()))
        open_files_after = _settled(server, open_files)
    left = [path.name for path in server.folder.iterdir()]
    return Result(
        n_requests,
        round(slope(points[len(points) * 2 // 5 :]), 1),
        [round(points[share * (n_requests - 1) // 4][1] / 2**20, 1) for share in range(5)],
        open_files,
        open_files_after,
        left,
    )


def slope(points: list[tuple[int, int]]) -> float:
    """The median of the slopes between any two of sixty points (Theil and Sen): no step of the allocator bends it."""
    thinned = points[:: max(len(points) // 60, 1)]
    return statistics.median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(thinned, 2))


def _settled(server: FakeServer, wanted: int = 0) -> int:
    """File descriptors once connections have been closed and folders removed."""
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s and (list(server.folder.iterdir()) or not 0 < server.open_files() <= wanted):
        time.sleep(0.05)
    return server.open_files()


def _kinds(server: FakeServer, client: httpx.Client) -> list[Callable[[], None]]:
    body, content_type = form(SOUND)

    def ask(status: int, sound: bytes = SOUND, **fields: object) -> Callable[[], None]:
        def act() -> None:
            answer = client.post("/separate", files={"audio": sound}, data={"prompt": "dog", **fields})
            assert answer.status_code == status, answer.text

        return act

    def depart() -> None:
        leave(post(server, body[: len(body) // 2], content_type, length=len(body)))

    def no_form() -> None:
        assert client.post("/separate", content=b"x").status_code in (400, 415, 422)

    return [
        ask(200),
        ask(200, prompt=["dog", "rain"], output="both", format="flac"),
        ask(200, format="ogg"),
        ask(200, format="mp3"),
        ask(415, b"no sound at all"),
        ask(422, prompt=""),
        depart,
        no_form,
        ask(200),
        ask(415, SOUND[: len(SOUND) // 2].replace(b"WAVE", b"WAVX")),
    ]


def main() -> None:
    """Print the figures; fails when something is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--fake", action="store_true", help="the tests' model instead of the shipped one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "temporary"
        folder.mkdir()
        server = FakeServer(folder, shipped=not options.fake)
        try:
            server.wait_until_ready()
            result = run(server, options.requests)
        finally:
            server.end()
    print(json.dumps(asdict(result), indent=2))
    raise SystemExit(
        result.slope_bytes_a_request >= 20_000
        or result.open_files_after > result.open_files_before
        or result.temporary_files_after != []
    )


if __name__ == "__main__":
    main()
