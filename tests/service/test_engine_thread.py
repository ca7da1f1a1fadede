"""The engine's thread: answers in order, lives through failures, ends when it is told, and is known to be stuck."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from service.call import Call
from service.embedding import join
from service.engine_thread import EngineThread
from service.errors import Abandoned, ModelError
from service.scheduler import Scheduler
from tests.service.conftest import PATIENCE_S
from tests.service.fakes import FakeNetwork, fake_engine


def test_answers_come_and_a_failure_ends_nothing() -> None:
    scheduler = Scheduler()

    def infer(works: list[Any]) -> list[Any]:
        if works == ["bad"]:
            raise ValueError("bad")
        return [work.upper() for work in works]

    thread = EngineThread(scheduler, infer)
    with scheduler.line(Call()) as line:
        assert scheduler.submit(line, "a").result(PATIENCE_S) == "A"
        with pytest.raises(ValueError, match="bad"):
            scheduler.submit(line, "bad").result(PATIENCE_S)
        assert scheduler.submit(line, "b").result(PATIENCE_S) == "B"
        assert not thread.stuck
    scheduler.close()
    thread.join(PATIENCE_S)
    assert thread.stuck  # nobody works any more


def test_a_batch_that_never_ends_is_known() -> None:
    now = [0.0]
    entered, leave = threading.Event(), threading.Event()

    def infer(works: list[Any]) -> list[Any]:
        entered.set()
        leave.wait(PATIENCE_S)
        return works

    scheduler = Scheduler()
    thread = EngineThread(scheduler, infer, clock=lambda: now[0])
    with scheduler.line(Call()) as line:
        answer = scheduler.submit(line, 0)
        assert entered.wait(PATIENCE_S)
        now[0] = 59.0
        assert not thread.stuck
        now[0] = 61.0
        assert thread.stuck
        leave.set()
        assert answer.result(PATIENCE_S) == 0
    scheduler.close()


def test_who_is_abandoned_while_its_window_runs_leaves_at_once() -> None:
    network = FakeNetwork()
    engine = fake_engine(network)
    embedding = join(engine.embed(("dog",))[0])
    bands = np.ones((engine.signal.n_bands, engine.signal.window_frames), np.float32)
    network.gate.clear()
    network.entered.clear()
    call, left = Call(), threading.Event()

    def work() -> None:
        with engine.line(call) as line:
            try:
                engine.infer(bands, embedding, line)
            except Abandoned:
                left.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert network.entered.wait(PATIENCE_S)
    call.abandon()
    assert left.wait(PATIENCE_S)
    network.gate.set()
    thread.join(PATIENCE_S)
    with engine.line(Call()) as line:
        assert engine.infer(bands, embedding, line)[0].shape == (1, *bands.shape)
    engine.close()


def test_what_is_not_finite_fails_its_own_call() -> None:
    network = FakeNetwork()
    engine = fake_engine(network)
    embedding = join(engine.embed(("dog",))[0])
    bands = np.ones((engine.signal.n_bands, engine.signal.window_frames), np.float32)
    with engine.line(Call()) as line:
        network.not_a_number = True
        with pytest.raises(ModelError, match="not finite"):
            engine.infer(bands, embedding, line)
        network.not_a_number = False
        assert np.isfinite(engine.infer(bands, embedding, line)[0]).all()
    engine.close()
