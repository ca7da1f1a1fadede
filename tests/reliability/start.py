"""How soon the service is ready, and what its first request takes beside its tenth.

``python -m tests.reliability.start`` starts the shipped model five times. Every request has a prompt of its own, so
that none finds its embedding in the cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.service.fake_server import PATIENCE_S, FakeServer
from tests.service.sounds import encode, noise


@dataclass
class Result:
    """Medians over the starts; the ratio is of the first request to the tenth."""

    n_starts: int
    ready_s: float
    slowest_ready_s: float
    first_ms: float
    tenth_ms: float
    first_to_tenth: float


def run(folder: Path, n_starts: int) -> Result:
    """Start, ask ten times, end; so often."""
    sound = encode(noise(5 * 44_100, 2), 44_100)
    ready_s, first_s, tenth_s = [], [], []
    for _ in range(n_starts):
        began_s = time.perf_counter()
        server = FakeServer(folder, shipped=True)
        try:
            server.wait_until_ready()
            ready_s.append(time.perf_counter() - began_s)
            times_s = [_ask(server.url, sound, f"sound number {number}") for number in range(12)]
        finally:
            server.end()
        first_s.append(times_s[0])
        tenth_s.append(statistics.median(times_s[8:]))  # the tenth and its neighbours, for one alone is chance
    first, tenth = statistics.median(first_s), statistics.median(tenth_s)
    return Result(
        n_starts,
        round(statistics.median(ready_s), 2),
        round(max(ready_s), 2),
        round(1_000 * first, 1),
        round(1_000 * tenth, 1),
        round(statistics.median(a / b for a, b in zip(first_s, tenth_s, strict=True)), 2),
    )


def _ask(url: str, sound: bytes, prompt: str) -> float:
    began_s = time.perf_counter()
    answer = httpx.post(f"{url}/separate", files={"audio": sound}, data={"prompt": prompt}, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - began_s


def main() -> None:
    """Print the figures; fails when it is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "temporary"
        folder.mkdir()
        result = run(folder, options.starts)
    print(json.dumps(asdict(result), indent=2))
    raise SystemExit(result.ready_s > 5 or result.first_to_tenth > 1.3)


if __name__ == "__main__":
    main()
