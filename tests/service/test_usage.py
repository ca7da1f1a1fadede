"""Quotas, by a clock of the test's own."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import QuotaExceeded
from service.quota import Quota
from service.usage import Usage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now_s[0])
    return now_s


def use(usage: Usage, quota: Quota, caller: str = "a") -> int:
    """Come and go; returns 0, or the seconds to wait."""
    try:
        usage.enter(caller, quota)
    except QuotaExceeded as refusal:
        return refusal.retry_after_s
    usage.leave(caller)
    return 0


@pytest.mark.parametrize("text", ["", "60", "60/10", "0/1/1", "60/10/-4", "6e1/1/1", "60/10/4/1", "٣/1/1"])
def test_what_is_no_quota(text: str) -> None:
    with pytest.raises(ValueError, match="quota"):
        Quota.parse(text)


def test_reads_a_quota() -> None:
    assert Quota.parse("60/10/4") == Quota(per_minute=60, burst=10, at_once=4)
    assert Quota.parse("none") is None


def test_requests_a_minute(clock: list[float]) -> None:
    usage, quota = Usage(), Quota(3, 3, 3)
    assert [use(usage, quota) for _ in range(3)] == [0, 0, 0]
    wait_s = use(usage, quota)
    assert 59 <= wait_s <= 61
    assert use(usage, quota, "another") == 0
    clock[0] += wait_s
    assert use(usage, quota) == 0


def test_requests_in_a_second(clock: list[float]) -> None:
    usage, quota = Usage(), Quota(100, 2, 3)
    assert [use(usage, quota) for _ in range(3)] == [0, 0, 1]
    clock[0] += 1.1
    assert use(usage, quota) == 0


def test_requests_at_once(clock: list[float]) -> None:
    usage, quota = Usage(), Quota(100, 100, 2)
    usage.enter("a", quota)
    usage.enter("a", quota)
    with pytest.raises(QuotaExceeded, match="2 requests at once"):
        usage.enter("a", quota)
    usage.leave("a")
    assert use(usage, quota) == 0


def test_a_refused_request_does_not_count(clock: list[float]) -> None:
    usage, quota = Usage(), Quota(5, 2, 9)
    for _ in range(50):
        use(usage, quota)
    clock[0] += 1.1
    assert [use(usage, quota) for _ in range(2)] == [0, 0]


def test_a_clock_that_is_set_back_locks_nobody_out(clock: list[float]) -> None:
    usage, quota = Usage(), Quota(1, 1, 1)
    assert use(usage, quota) == 0
    clock[0] -= 3_600
    assert use(usage, quota) == 0


def test_memory_is_bounded(clock: list[float]) -> None:
    usage, quota = Usage(), Quota(1, 1, 1)
    for number in range(25_000):
        assert use(usage, quota, f"address {number}") == 0
    assert len(usage._counted) <= 10_000


@given(st.lists(st.floats(0, 20), max_size=60))
def test_no_minute_has_more_than_the_quota_and_waiting_as_told_helps(gaps_s: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now_s = 5_000.0
        patch.setattr(time, "time", lambda: now_s)
        usage, quota, taken = Usage(), Quota(5, 5, 5), []
        for gap_s in gaps_s:
            now_s += gap_s
            wait_s = use(usage, quota)
            if wait_s:
                now_s += wait_s + 0.01
                assert use(usage, quota) == 0
            taken.append(now_s)
            assert sum(now_s - 60 < moment <= now_s for moment in taken) <= 5
