"""Redis absent, killed, restarted, stopped with SIGSTOP, full, or full of nonsense: what requests then take more.

``python -m tests.reliability.redis_faults`` starts the shipped model twice, once with Redis and once without, and
asks them in turn, each time with a prompt that neither has read: the difference of a pair is what Redis costs. *At
first* are the requests in which the breaker counts to its limit, *then* those that follow.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from redis import Redis

from tests.reliability.report import Report
from tests.service.conftest import RedisServer, required
from tests.service.fake_server import PATIENCE_S, FakeServer, free_port
from tests.service.sounds import encode, noise
from tests.service.wire import until

FAILURES = 5  # as many open the breaker, as the service ships
AT_FIRST_MS, THEN_MS, RECOVERED_S = 60.0, 5.0, 10.0
FAULTS = ("absent", "killed", "restarted", "stopped", "full", "corrupt")


@dataclass
class Result:
    """What one fault did; times in seconds.

    Attributes:
        at_first_s, then_s: what Redis added to each request.
        recovered_s: from the end of the fault until a new prompt's embedding was in Redis; None for one without end.
        statuses: of all requests beside it.
    """

    at_first_s: list[float] = field(default_factory=list)
    then_s: list[float] = field(default_factory=list)
    recovered_s: float | None = None
    statuses: set[int] = field(default_factory=set)


class Pair:
    """A service with Redis, and one without to compare it with."""

    def __init__(self, folder: Path, redis_url: str, *, shipped: bool, **settings: object) -> None:
        """Start both, with no cache of their own, so that every prompt is asked of Redis."""
        folders = [folder / name for name in ("with", "without")]
        for path in folders:
            path.mkdir()
        common = {"shipped": shipped, "cache_entries": 0, **settings}
        self.subject = FakeServer(folders[0], redis_url=redis_url, **common)
        self.control = FakeServer(folders[1], **common)
        for server in (self.subject, self.control):
            server.wait_until_ready()
        self._sound = encode(noise(16_000))
        self._clients = {server.url: httpx.Client(timeout=PATIENCE_S) for server in (self.subject, self.control)}
        self.result = Result()

    def end(self) -> None:
        """End both."""
        for client in self._clients.values():
            client.close()
        for server in (self.subject, self.control):
            server.end()

    def ask(self, server: FakeServer, prompt: str) -> float:
        """One separation; returns its seconds."""
        began_s = time.perf_counter()
        answer = self._clients[server.url].post(
            f"{server.url}/separate", files={"audio": self._sound}, data={"prompt": prompt}
        )
        self.result.statuses.add(answer.status_code)
        return time.perf_counter() - began_s

    def added(self, prompt: str) -> float:
        """Seconds that the one with Redis takes more; which of the two is asked first changes with the prompt."""
        servers = [self.subject, self.control]
        if prompt.endswith("again"):
            servers.reverse()
        taken = {server.url: self.ask(server, prompt) for server in servers}
        return taken[self.subject.url] - taken[self.control.url]

    def during(self, prompts: list[str]) -> None:
        """Ask during the fault."""
        added_s = [self.added(prompt) for prompt in prompts]
        self.result.at_first_s += added_s[:FAILURES]
        self.result.then_s += added_s[FAILURES:]


def run(folder: Path, fault: str, n_requests: int, *, shipped: bool, **settings: object) -> Result:
    """Measure one of ``FAULTS`` with so many requests."""
    server = RedisServer(required("redis-server"), folder)
    url = f"redis://127.0.0.1:{free_port()}/0" if fault == "absent" else server.url
    pair = Pair(folder, url, shipped=shipped, **settings)
    try:
        numbers = itertools.count()

        def prompts(n: int) -> list[str]:
            return [_phrase(next(numbers)) for _ in range(n)]

        for prompt in prompts(5):
            pair.added(prompt)
        asked = prompts(n_requests)
        if fault == "corrupt":
            for prompt in asked:
                pair.ask(pair.subject, prompt)
            pair.during(_corrupted(url, asked))
            pair.result.recovered_s = until(lambda: _n_sound(url) >= len(asked))
        elif fault == "absent":
            pair.during(asked)
        else:
            with _faulty(server, fault):
                pair.during(asked)
            pair.result.recovered_s = _recovery(pair, url, numbers)
    finally:
        pair.end()
        server.kill()
    return pair.result


def _phrase(number: int) -> str:
    return f"sound number {number}" + " again" * (number % 2)


@contextlib.contextmanager
def _faulty(server: RedisServer, fault: str) -> Iterator[None]:
    """Redis in trouble, and out of it at the end."""
    if fault == "killed":
        server.kill()
        yield
        server.start()
    elif fault == "restarted":
        server.kill()
        server.start()
        yield
    elif fault == "stopped":
        server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.signal(signal.SIGCONT)
    else:
        with Redis.from_url(server.url) as redis:
            redis.config_set("maxmemory-policy", "noeviction")
            redis.config_set("maxmemory", 1)
            yield
            redis.config_set("maxmemory", 0)


def _recovery(pair: Pair, url: str, numbers: Iterator[int]) -> float:
    """Seconds until a new prompt's embedding is in Redis."""
    began_s = time.monotonic()

    def kept() -> bool:
        before = _n_values(url)
        pair.ask(pair.subject, _phrase(next(numbers)))
        with contextlib.suppress(AssertionError):
            until(lambda: _n_values(url) > before, 0.2)
            return True
        return False

    until(kept)
    return time.monotonic() - began_s


def _values(url: str, change: Callable[[Redis, bytes], object]) -> list[object]:
    with Redis.from_url(url) as redis:
        return [change(redis, key) for key in redis.scan_iter("winnow:text:*")]


def _n_values(url: str) -> int:
    return len(_values(url, lambda redis, key: key))


def _n_sound(url: str) -> int:
    return sum(bytes(value or b"").startswith(b"WNTE") for value in _values(url, lambda redis, key: redis.get(key)))


def _corrupted(url: str, prompts: list[str]) -> list[str]:
    """The same prompts, when all that Redis holds has been made nonsense of."""
    until(lambda: _n_values(url) >= len(prompts), PATIENCE_S / 4)
    _values(url, lambda redis, key: redis.set(key, b"\x80\x04nonsense"))
    assert _n_sound(url) == 0
    return prompts


def main() -> int:
    """Print the figures of each fault; fails when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", default=FAULTS, metavar="fault", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--requests", type=int, default=60)
    options = parser.parse_args()
    report = Report(f"Redis in trouble, {options.requests} requests each")
    for fault in options.faults:
        with tempfile.TemporaryDirectory() as folder:
            result = run(Path(folder), fault, options.requests, shipped=True)
        report.at_most(f"{fault}: requests without 200", len(result.statuses - {200}), 0)
        report.at_most(f"{fault}: added at first, p50", 1_000 * statistics.median(result.at_first_s), AT_FIRST_MS, "ms")
        report.at_most(f"{fault}: added then, p50", 1_000 * statistics.median(result.then_s), THEN_MS, "ms")
        if result.recovered_s is not None:
            report.at_most(f"{fault}: recovered after", result.recovered_s, RECOVERED_S, "s")
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
