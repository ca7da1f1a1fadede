"""The load programs in a few seconds: a real socket, a model that only sleeps, ratios with room for a busy machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.reliability import fairness, overload
from tests.reliability.driver import Target, closed_loop, get, separation, throughput
from tests.reliability.report import Report, percentile
from tests.service.conftest import Running, launch
from tests.service.sounds import encode, noise

WINDOW_S = 0.1  # so long that what the rest costs, even on a busy machine, hides behind it
RATE = 8_000
CLIP = encode(noise(RATE, seed=1), RATE)
LONG = encode(noise(60 * RATE, seed=2), RATE)


@pytest.fixture
def slow() -> Iterator[Callable[..., Running]]:
    """Start services whose model takes ``WINDOW_S`` for a window."""
    stops: list[Callable[[], None]] = []

    def start_one(**settings: object) -> Running:
        running, stop = launch(**settings)
        running.network.take_turn = lambda: time.sleep(WINDOW_S)
        stops.append(stop)
        return running

    yield start_one
    for stop in stops:
        stop()


def target(running: Running) -> Target:
    return Target(int(running.url.rsplit(":", 1)[1]))


def test_eight_clients_get_what_the_engine_alone_would_give(slow: Callable[..., Running]) -> None:
    replies = asyncio.run(closed_loop(target(slow()).asks(separation(CLIP)), 8, 20 * WINDOW_S))
    assert {(reply.status, reply.wrong) for reply in replies} == {(200, "")}
    assert throughput(replies) * WINDOW_S >= 0.7


def test_four_times_too_much_costs_those_who_are_served_little(slow: Callable[..., Running]) -> None:
    service = target(slow(waiting=4))
    once, health = service.asks(separation(CLIP)), service.asks(get("/healthz"))
    seen = asyncio.run(overload.measure(once, health, seconds=4.0, saturate_s=2.0, clients=4))
    assert seen.unexpected == 0 and len(seen.refusals_s) > len(seen.replies) / 3
    assert seen.ratio >= 0.7
    assert {reply.status for reply in seen.health} == {200}
    assert all(1 <= int(reply.headers["retry-after"]) <= 120 for reply in seen.replies if reply.status == 503)


def test_a_short_clip_does_not_wait_for_a_long_one(slow: Callable[..., Running]) -> None:
    service = target(slow())
    seen = asyncio.run(fairness.measure(service.asks(separation(CLIP)), service.asks(separation(LONG)), samples=3))
    assert seen.ratio <= 3
    assert min(reply.end_s for reply in seen.long) > max(seen.beside), "the long one was under way all the time"


def test_percentiles_are_values_by_nearest_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0], 0.99) == 3.0


def test_a_missed_bar_is_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("a program")
    report.at_least("ratio", 0.95, 0.9)
    assert report.exit_code == 0
    report.at_most("errors", float("nan"), 0)
    assert report.exit_code == 1, "what was not measured is not kept"
    assert "MISSED" in capsys.readouterr().out
