"""Turns by call on a clock of the test's own: nobody starves, nothing is lost or done twice, nobody gone costs any."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.call import Call
from service.errors import Abandoned, DeadlinePassed, ModelError
from service.scheduler import Scheduler
from service.window import Line


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.waits: list[float] = []
        self.gone: list[str] = []
        self.failures = 0

    def batched(self, size: int, waited_s: list[float]) -> None:
        self.sizes.append(size)
        self.waits += waited_s

    def dropped(self, why: str) -> None:
        self.gone.append(why)

    def failed(self) -> None:
        self.failures += 1


def echo(works: list[Any]) -> list[Any]:
    return works


class Bench:
    """A scheduler whose lines put windows in without waiting for room, and which runs when it is told to."""

    def __init__(self, stack: ExitStack, max_batch: int = 1) -> None:
        self.clock, self.seen = Clock(), Seen()
        self.scheduler = Scheduler(max_batch=max_batch, clock=self.clock, observer=self.seen)
        self.stack = stack

    def line(self, **call: Any) -> Line:
        return self.stack.enter_context(self.scheduler.line(Call(clock=self.clock, **call)))

    def put(self, line: Line, *works: Any, alike: Any = None) -> list[Any]:
        futures = []
        for work in works:
            line.in_flight = 0  # the bound has a test of its own
            futures.append(self.scheduler.submit(line, work, alike))
        line.in_flight = len(line.waiting)
        return futures

    def served(self, batches: int) -> list[list[Any]]:
        rounds = []
        for _ in range(batches):
            batch = self.scheduler.take(0.0)
            rounds.append([window.work for window in batch])
            self.scheduler.run(batch, echo)
        return rounds


@pytest.fixture
def stack() -> Any:
    with ExitStack() as stack:
        yield stack


def test_calls_take_turns_and_each_keeps_its_order(stack: ExitStack) -> None:
    bench = Bench(stack)
    long, short = bench.line(), bench.line()
    bench.put(long, *(f"long {number}" for number in range(6)))
    bench.put(short, "short 0", "short 1")
    order = [work for (work,) in bench.served(8)]
    assert order == ["long 0", "short 0", "long 1", "short 1", "long 2", "long 3", "long 4", "long 5"]


def test_who_comes_late_has_not_saved_up_turns_and_is_not_behind(stack: ExitStack) -> None:
    bench = Bench(stack)
    long, late = bench.line(), bench.line()
    bench.put(long, *range(100))
    bench.served(50)
    bench.put(late, "a", "b", "c")
    assert [work for (work,) in bench.served(6)] == ["a", 50, "b", 51, "c", 52]
    bench.served(20)
    bench.put(late, "d", "e")
    assert [work for (work,) in bench.served(4)] == ["d", 73, "e", 74]


def test_weights_are_shares(stack: ExitStack) -> None:
    bench = Bench(stack)
    request, job = bench.line(), bench.line(weight=0.25)
    bench.put(request, *["request"] * 100)
    bench.put(job, *["job"] * 100)
    assert Counter(work for (work,) in bench.served(50)) == {"request": 40, "job": 10}


def test_batches_are_of_what_is_there_and_alike(stack: ExitStack) -> None:
    bench = Bench(stack, max_batch=4)
    one, two = bench.line(), bench.line()
    bench.put(one, 1, 2, alike="long")
    bench.put(two, 3, alike="long")
    bench.put(two, 4, alike="short")
    assert bench.served(3) == [[1, 3, 2], [4], []]
    assert bench.seen.sizes == [3, 1]


def test_the_engine_never_waits_for_a_batch_to_fill(stack: ExitStack) -> None:
    bench = Bench(stack, max_batch=8)
    bench.put(bench.line(), "alone")
    assert bench.served(1) == [["alone"]]


def test_what_is_abandoned_or_late_never_runs(stack: ExitStack) -> None:
    bench = Bench(stack)
    gone, late, here = bench.line(), bench.line(patience_s=5.0), bench.line()
    (first,), (second,), (third,) = bench.put(gone, "gone"), bench.put(late, "late"), bench.put(here, "here")
    gone.call.abandon()
    bench.clock.now = 6.0
    assert bench.served(2) == [["here"], []]
    assert third.result(0) == "here"
    assert isinstance(first.exception(0), Abandoned)
    assert isinstance(second.exception(0), DeadlinePassed)
    assert bench.seen.gone == ["abandoned", "late"]
    assert bench.seen.waits == [6.0]


def test_what_is_left_of_a_call_that_ends_is_cancelled(stack: ExitStack) -> None:
    scheduler = Scheduler()
    with scheduler.line(Call()) as line:
        future = scheduler.submit(line, "left")
    with pytest.raises(CancelledError):
        future.result(0)
    assert scheduler.take(0.0) == []


def test_one_poisoned_window_fails_alone(stack: ExitStack) -> None:
    bench = Bench(stack, max_batch=4)
    futures = [bench.put(bench.line(), work)[0] for work in ("a", "poison", "b")]
    runs = []

    def infer(works: list[Any]) -> list[Any]:
        runs.append(works)
        if "poison" in works:
            raise ModelError("the model's answer is not finite")
        return works

    bench.scheduler.run(bench.scheduler.take(0.0), infer)
    assert [futures[0].result(0), futures[2].result(0)] == ["a", "b"]
    assert isinstance(futures[1].exception(0), ModelError)
    assert runs == [["a", "poison", "b"], ["a"], ["poison"], ["b"]]
    assert bench.seen.failures == 1


def test_an_answer_may_be_a_failure_of_its_own(stack: ExitStack) -> None:
    bench = Bench(stack, max_batch=2)
    good, bad = (bench.put(bench.line(), work)[0] for work in ("good", "bad"))
    bench.scheduler.run(bench.scheduler.take(0.0), lambda works: [works[0], ModelError("not finite")])
    assert good.result(0) == "good" and isinstance(bad.exception(0), ModelError)


def test_too_few_answers_are_nobodys(stack: ExitStack) -> None:
    bench = Bench(stack, max_batch=2)
    futures = [bench.put(bench.line(), work)[0] for work in range(2)]
    bench.scheduler.run(bench.scheduler.take(0.0), lambda works: works[:1])
    assert all("2 windows got 1 answers" in str(future.exception(0)) for future in futures)


@pytest.mark.parametrize(("max_batch", "depth"), [(1, 2), (4, 8)])
def test_a_call_waits_while_enough_of_its_windows_are_in_flight(max_batch: int, depth: int) -> None:
    scheduler = Scheduler(max_batch=max_batch)
    put: list[int] = []
    with scheduler.line(Call()) as line:

        def produce() -> None:
            for number in range(3 * depth):
                scheduler.submit(line, number)
                put.append(number)

        thread = threading.Thread(target=produce)
        thread.start()
        served = 0
        while served < 3 * depth:
            batch = scheduler.take(10.0)
            assert line.in_flight <= depth
            assert len(put) <= served + depth + 1
            scheduler.run(batch, echo)
            served += len(batch)
        thread.join(10.0)
    assert put == list(range(3 * depth))


def test_who_waits_for_room_leaves_when_it_is_abandoned() -> None:
    scheduler, left = Scheduler(), threading.Event()
    call = Call()
    with scheduler.line(call) as line:
        for number in range(scheduler.depth):
            scheduler.submit(line, number)

        def wait() -> None:
            try:
                scheduler.submit(line, scheduler.depth)
            except Abandoned:
                left.set()

        thread = threading.Thread(target=wait)
        thread.start()
        call.abandon()
        assert left.wait(10.0)
        thread.join(10.0)


def test_a_closed_scheduler_lets_everybody_go() -> None:
    scheduler = Scheduler()
    with scheduler.line(Call()) as line:
        waiting = scheduler.submit(line, 0)
        scheduler.close()
        assert waiting.cancelled() and scheduler.take() == []
        with pytest.raises(RuntimeError, match="closed"):
            scheduler.submit(line, 1)


@settings(deadline=None, max_examples=300)
@given(
    max_batch=st.integers(1, 4),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 4), st.integers(0, 1)),
            st.tuples(st.just("abandon"), st.integers(0, 4), st.just(0)),
            st.tuples(st.just("serve"), st.just(0), st.just(0)),
            st.tuples(st.just("fail"), st.just(0), st.just(0)),
            st.tuples(st.just("later"), st.integers(0, 4), st.just(0)),
        ),
        max_size=60,
    ),
)
def test_every_window_has_one_end_whatever_happens(max_batch: int, steps: list[tuple[str, int, int]]) -> None:
    with ExitStack() as stack:
        bench = Bench(stack, max_batch)
        lines = [bench.line(weight=weight, patience_s=20.0) for weight in (1.0, 1.0, 0.25, 1.0, 0.5)]
        futures: dict[int, Any] = {}
        owners: dict[int, int] = {}
        ran: Counter[int] = Counter()

        def infer(works: list[int], *, fail: bool) -> list[Any]:
            if fail and len(works) > 1:
                raise RuntimeError("the batch")
            ran.update(works)
            return works

        for what, which, alike in steps:
            if what == "put":
                line = lines[which]
                if not line.call.abandoned and bench.clock.now <= 20.0:
                    (futures[len(futures)],) = bench.put(line, len(futures), alike=alike)
                    owners[len(owners)] = which
            elif what == "abandon":
                lines[which].call.abandon()
            elif what == "later":
                bench.clock.now += which
            else:
                batch = bench.scheduler.take(0.0)
                assert len(batch) <= max_batch and len({window.alike for window in batch}) <= 1
                assert not any(window.line.call.abandoned for window in batch)
                bench.scheduler.run(batch, lambda works, fail=what == "fail": infer(works, fail=fail))
        while batch := bench.scheduler.take(0.0):
            bench.scheduler.run(batch, lambda works: infer(works, fail=False))
        assert all(count == 1 for count in ran.values())
        for number, future in futures.items():
            assert future.done()
            if number in ran:
                assert future.result(0) == number
            else:
                assert isinstance(future.exception(0), (Abandoned, DeadlinePassed))
        assert bench.scheduler.pending == 0


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_nobody_waits_longer_than_one_window_of_each_other_call(lengths: list[int]) -> None:
    with ExitStack() as stack:
        bench = Bench(stack)
        lines = [bench.line() for _ in lengths]
        for number, (line, length) in enumerate(zip(lines, lengths, strict=True)):
            bench.put(line, *[number] * length)
        order = [work for (work,) in bench.served(sum(lengths))]
        for number in range(len(lengths)):
            places = [-1, *(place for place, who in enumerate(order) if who == number)]
            assert max(b - a for a, b in pairwise(places)) <= len(lengths)
