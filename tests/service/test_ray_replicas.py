"""Replicas of Ray Serve that die: nobody notices, and nothing is left."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import numpy as np
import pytest

from model.bundle import Bundle
from model.runtime import Runtime
from service.call import Call
from service.embedding import join
from service.loading import load_engine
from service.settings import SHIPPED_BUNDLE, Settings
from tests.service.test_engine_contract import NO_RAY, PROMPTS, replicas, window
from tests.service.wire import until

pytestmark = [NO_RAY, pytest.mark.filterwarnings("ignore")]


def test_kill_9_of_replicas_in_flight_is_not_noticed() -> None:
    runtime = Runtime(Bundle.open(SHIPPED_BUNDLE), threads=1, device="cpu")
    engine = load_engine(Settings(engine="ray", threads=1, ray_min_replicas=2, ray_max_replicas=2))
    try:
        embedding = join(engine.embed(PROMPTS)[0])
        answers: dict[int, np.ndarray] = {}

        def work(first: int) -> None:
            with engine.line(Call()) as line:
                for seed in range(first, first + 40):
                    answers[seed] = engine.infer(window(engine, seed), embedding, line)[0]

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 10)
        killed = replicas()[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(answers) > 60)
        os.kill(next(pid for pid in replicas() if pid != killed), signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert len(answers) == 120
        for seed, masks in answers.items():
            assert np.array_equal(masks, runtime.mask(window(engine, seed), embedding))
    finally:
        engine.close()
        gc.collect()
    deadline_s = time.monotonic() + 60
    while replicas():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
