"""What callers may count on, wherever the windows run: the same tests for the engine of this process and for Ray's."""

from __future__ import annotations

import gc
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle
from model.runtime import Runtime
from service.call import Call
from service.embedding import join
from service.engine import Engine
from service.errors import Abandoned, ModelError, StartError
from service.loading import load_engine
from service.settings import SHIPPED_BUNDLE, Settings

PROMPTS = ("dog barking", "rain")
HAS_RAY = importlib.util.find_spec("ray") is not None
NO_RAY = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'winnow[ray]'")
pytestmark = [
    pytest.mark.skipif(not (SHIPPED_BUNDLE / "manifest.json").is_file(), reason="no bundle ships with this checkout"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=NO_RAY)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = load_engine(Settings(engine=request.param, threads=1, ray_min_replicas=2, ray_max_replicas=2))
        try:
            yield engine
        finally:
            engine.close()
            gc.collect()
    assert replicas() == []


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(Bundle.open(SHIPPED_BUNDLE), threads=1, device="cpu")


def replicas() -> list[int]:
    """Processes that are replicas of Ray Serve."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica:winnow-"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def window(engine: Engine, seed: int) -> np.ndarray:
    shape = (engine.signal.n_bands, engine.signal.window_frames)
    return np.random.default_rng(seed).gamma(0.3, 0.1, shape).astype(np.float32)


def test_masks_and_presence_are_those_of_the_model_to_the_bit(engine: Engine, runtime: Runtime) -> None:
    embedding = join(engine.embed(PROMPTS)[0])
    for row, prompt in enumerate(PROMPTS):
        assert np.array_equal(embedding[2][row], runtime.embed([prompt])[2][0])
    with engine.line(Call()) as line:
        for seed in range(3):
            bands = window(engine, seed)
            masks, heard = engine.infer(bands, embedding, line)
            assert np.array_equal(masks, runtime.mask(bands, embedding))
            assert np.array_equal(heard, runtime.presence(bands, embedding, masks))


def test_many_at_once_get_each_their_own(engine: Engine, runtime: Runtime) -> None:
    embedding = join(engine.embed(PROMPTS)[0])

    def one(seed: int) -> np.ndarray:
        with engine.line(Call()) as line:
            return engine.infer(window(engine, seed), embedding, line)[0]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(16)))
    for seed, masks in enumerate(answers):
        assert np.array_equal(masks, runtime.mask(window(engine, seed), embedding))


def test_windows_of_one_recording_are_answered_in_their_order(engine: Engine, runtime: Runtime) -> None:
    embedding = join(engine.embed(PROMPTS)[0])
    with engine.line(Call()) as line:
        asked = []
        for seed in range(12):
            asked.append(engine.ask(window(engine, seed), embedding, line))
        for seed, each in enumerate(asked):
            assert np.array_equal(each.result()[0], runtime.mask(window(engine, seed), embedding))


def test_a_poisoned_window_fails_alone(engine: Engine) -> None:
    embedding = join(engine.embed(PROMPTS)[0])
    poisoned = np.full_like(window(engine, 0), np.nan)
    with engine.line(Call()) as line, engine.line(Call()) as other:
        bad, good = engine.ask(poisoned, embedding, line), engine.ask(window(engine, 0), embedding, other)
        with pytest.raises(ModelError, match="not finite"):
            bad.result()
        assert np.isfinite(good.result()[0]).all()


def test_who_has_gone_gets_nothing_more(engine: Engine) -> None:
    embedding = join(engine.embed(PROMPTS)[0])
    call = Call()
    with engine.line(call) as line:
        engine.infer(window(engine, 0), embedding, line)
        call.abandon()
        with pytest.raises(Abandoned):
            engine.infer(window(engine, 1), embedding, line)
    assert engine.scheduler.pending == 0 and not engine.stuck


@NO_RAY
def test_what_ray_cannot_do_is_said_at_the_start() -> None:
    with pytest.raises(StartError, match="at most WINNOW_RAY_MAX_REPLICAS, got 3 and 2"):
        load_engine(Settings(engine="ray", ray_min_replicas=3, ray_max_replicas=2))


def test_without_ray_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "service.ray_network", None)  # as when its import fails
    with pytest.raises(StartError, match=r"pip install 'winnow\[ray\]'"):
        load_engine(Settings(engine="ray"))
