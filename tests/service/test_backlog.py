"""Admission by decoded length, on a virtual clock."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backlog import Backlog, work_of
from service.call import Call
from service.errors import Busy, TooLongToWait


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def measured(clock: Clock, speed: float, busy_s: float = 20.0) -> Backlog:
    """A backlog that has seen this much work a second."""
    backlog = Backlog(clock)
    call = Call(clock=clock)
    with backlog.share(speed * busy_s, call):
        clock.now_s += busy_s
        call.tell(1.0)
    return backlog


def test_the_cost_is_that_of_the_measured_model() -> None:
    assert work_of(10, 1) == pytest.approx(10)
    assert work_of(10, 4) == pytest.approx(23.2)


@given(st.floats(0.1, 1_000), st.lists(st.floats(0.5, 50), min_size=1, max_size=8))
def test_speed_is_that_of_the_work_whatever_its_pieces(speed: float, pieces_s: list[float]) -> None:
    clock = Clock()
    backlog = Backlog(clock)
    for piece_s in [10.0, *pieces_s]:
        call = Call(clock=clock)
        with backlog.share(speed * piece_s, call):
            for step in (0.25, 0.5, 1.0):
                clock.now_s += piece_s * (0.25 if step < 1 else 0.5)
                call.tell(step)
                assert backlog.speed is None or backlog.speed == pytest.approx(speed)
    assert backlog.speed == pytest.approx(speed)
    assert backlog.pending == 0


def test_two_at_once_add_up_to_one_speed() -> None:
    clock = Clock()
    backlog = Backlog(clock)
    first, second = Call(clock=clock), Call(clock=clock)
    with backlog.share(100, first), backlog.share(300, second):
        clock.now_s += 10
        first.tell(0.5)
        second.tell(0.5)
        assert backlog.speed == pytest.approx(20)
        assert backlog.pending == pytest.approx(200)


def test_what_cannot_be_done_in_time_even_alone_is_too_long() -> None:
    clock = Clock()
    backlog = measured(clock, speed=2)
    with backlog.share(19, Call(patience_s=10, clock=clock)):
        pass
    with (
        pytest.raises(TooLongToWait, match="about 11 s") as caught,
        backlog.share(21, Call(patience_s=10, clock=clock)),
    ):
        pass
    assert caught.value.limit == 10
    with backlog.share(1e9, Call(clock=clock)):  # nobody waits for it
        pass


def test_what_cannot_be_done_in_time_beside_others_is_told_to_come_back() -> None:
    clock = Clock()
    backlog = measured(clock, speed=2)
    with backlog.share(40, Call(clock=clock)):
        with backlog.share(9, Call(patience_s=10, clock=clock)):  # 9 of the other's 40 come between
            pass
        with pytest.raises(Busy) as caught, backlog.share(11, Call(patience_s=10, clock=clock)):
            pass
    assert caught.value.retry_after_s == 1
    assert backlog.pending == 0


def test_a_job_in_the_background_is_in_the_way_by_its_weight() -> None:
    clock = Clock()
    backlog = measured(clock, speed=2)
    with backlog.share(1_000, Call(weight=0.25, clock=clock)), backlog.share(15, Call(patience_s=10, clock=clock)):
        pass


def test_before_anything_is_measured_nobody_is_refused() -> None:
    clock = Clock()
    backlog = Backlog(clock)
    with backlog.share(1e6, Call(patience_s=1, clock=clock)):
        clock.now_s += 0.5
        with backlog.share(1e6, Call(patience_s=1, clock=clock)):
            pass


def test_a_stall_is_no_verdict_for_good() -> None:
    """After a minute in which nothing moved the speed is low: one alone is tried all the same, and heals it."""
    clock = Clock()
    backlog = measured(clock, speed=10)
    stalled = Call(clock=clock)
    with backlog.share(10, stalled):
        clock.now_s += 60
        with pytest.raises(Busy), backlog.share(50, Call(patience_s=10, clock=clock)):
            pass
    healing = Call(patience_s=10, clock=clock)
    with backlog.share(50, healing):
        clock.now_s += 5
        healing.tell(1.0)
    assert backlog.speed is not None and backlog.speed > 1


@given(st.data())
def test_nothing_is_left_behind(data: st.DataObject) -> None:
    clock = Clock()
    backlog = measured(clock, speed=5)
    for _ in range(data.draw(st.integers(1, 5))):
        with ExitStack() as stack:
            for work in data.draw(st.lists(st.floats(0.1, 100), max_size=5)):
                try:
                    stack.enter_context(backlog.share(work, Call(patience_s=20, clock=clock)))
                except (Busy, TooLongToWait):
                    continue
                clock.now_s += data.draw(st.floats(0, 3))
    assert backlog.pending == 0
