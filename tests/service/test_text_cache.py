from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.embedding import Embedding
from service.text_cache import TextCache


def made(prompt: str) -> Embedding:
    return Embedding(np.full((2, 3), len(prompt), np.float32), np.full(4, len(prompt), np.float32))


def test_second_time_is_a_hit() -> None:
    cache = TextCache("tower", 8)
    assert cache.embed("dog", made)[1] == "miss"
    embedding, state = cache.embed("dog", pytest.fail)
    assert state == "hit-local"
    assert embedding.pooled[0] == 3


def test_least_recently_used_goes_first() -> None:
    cache = TextCache("tower", 2)
    for prompt in ("a", "b", "a", "c"):
        cache.embed(prompt, made)
    assert [cache.embed(prompt, made)[1] for prompt in ("a", "c", "b")] == ["hit-local", "hit-local", "miss"]


def test_without_entries_everything_is_a_miss() -> None:
    cache = TextCache("tower", 0)
    assert [cache.embed("dog", made)[1] for _ in range(2)] == ["miss", "miss"]


def test_a_hundred_at_once_compute_once() -> None:
    cache, started, calls = TextCache("tower", 8), threading.Barrier(100), []

    def slow(prompt: str) -> Embedding:
        calls.append(prompt)
        threading.Event().wait(0.2)
        return made(prompt)

    def ask(_: int) -> str:
        started.wait()
        return cache.embed("dog", slow)[1]

    with ThreadPoolExecutor(100) as threads:
        states = list(threads.map(ask, range(100)))
    assert len(calls) == 1
    assert sorted(set(states)) == ["hit-local", "miss"]


def test_a_failed_leader_does_not_fail_the_others_for_good() -> None:
    cache = TextCache("tower", 8)
    with pytest.raises(RuntimeError):
        cache.embed("dog", lambda prompt: (_ for _ in ()).throw(RuntimeError()))
    assert cache.embed("dog", made)[1] == "miss"


def test_keys_carry_the_tower_and_not_the_prompt() -> None:
    key = TextCache("tower-1", 8).key("a secret sound")
    assert "tower-1" in key
    assert "secret" not in key
    assert key != TextCache("tower-2", 8).key("a secret sound")
