from __future__ import annotations

from service.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(3, 5.0, Clock())
    for _ in range(2):
        breaker.failure()
    breaker.success()
    for _ in range(2):
        breaker.failure()
    assert breaker.allows()
    breaker.failure()
    assert breaker.state == "open"
    assert not breaker.allows()


def test_half_open_lets_one_call_through() -> None:
    clock = Clock()
    breaker = Breaker(1, 5.0, clock)
    breaker.failure()
    clock.now = 5.0
    assert breaker.state == "half-open"
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.success()
    assert breaker.state == "closed"
    assert breaker.allows()


def test_a_failed_try_opens_it_again() -> None:
    clock = Clock()
    breaker = Breaker(5, 5.0, clock)
    for _ in range(5):
        breaker.failure()
    clock.now = 5.0
    assert breaker.allows()
    breaker.failure()
    assert not breaker.allows()
    clock.now = 9.9
    assert not breaker.allows()
    clock.now = 10.0
    assert breaker.allows()
