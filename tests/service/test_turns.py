from __future__ import annotations

import threading
import time

import pytest

from service.turns import Turns


def test_first_come_first_served() -> None:
    turns, order, threads = Turns(), [], []

    def ask(name: str) -> None:
        with turns.take():
            order.append(name)

    with turns.take():
        for number, name in enumerate("abcde"):
            threads.append(threading.Thread(target=ask, args=(name,)))
            threads[-1].start()
            while turns.waiting <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list("abcde")


def test_one_that_asks_again_and_again_lets_others_in() -> None:
    turns, done = Turns(), threading.Event()

    def greedy() -> None:
        while not done.is_set():
            with turns.take():
                time.sleep(0.001)

    thread = threading.Thread(target=greedy)
    thread.start()
    for _ in range(20):
        with turns.take():
            pass
    done.set()
    thread.join()


def test_a_failure_ends_the_turn() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), turns.take():
        raise RuntimeError
    with turns.take():
        assert turns.waiting == 0
