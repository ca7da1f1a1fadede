"""Redis absent, dying, hanging, lying: no request fails, and none waits long. Real processes."""

from __future__ import annotations

import signal
import socket
import time

import pytest
from redis import Redis

from service.breaker import Breaker
from service.redis_tier import RedisTier
from service.text_cache import TextCache
from tests.service.conftest import RedisServer, Running
from tests.service.fakes import FakeNetwork, fake_engine
from tests.service.sounds import encode, noise

SOUND = encode(noise(1_600))
PAUSE_S = 0.5


@pytest.fixture
def tiers():
    made: list[RedisTier] = []

    def make(url: str, pause_s: float = PAUSE_S) -> RedisTier:
        made.append(RedisTier(url, 0.05, 60, Breaker(5, pause_s)))
        return made[-1]

    yield make
    for tier in made:
        tier.close()


def state(service: Running, prompt: str) -> str:
    response = service.separate(SOUND, prompt)
    assert response.status_code == 200
    return response.headers["x-embedding-cache"]


def soon(check, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_process_finds_what_the_first_computed(redis_server: RedisServer, tiers, start) -> None:
    first = start(fake_engine(cache=TextCache("tower", 8, tiers(redis_server.url))))
    assert state(first, "dog") == "miss"
    reader = tiers(redis_server.url)
    soon(lambda: reader.get(TextCache("tower", 8).key("dog")) is not None)
    network = FakeNetwork()
    second = start(fake_engine(network, TextCache("tower", 8, reader)))
    before = network.n_embeds
    assert state(second, "dog") == "hit-redis"
    assert network.n_embeds == before
    assert second.separate(SOUND, "dog").content == first.separate(SOUND, "dog").content


def test_another_tower_does_not_read_them(redis_server: RedisServer, tiers, start) -> None:
    assert state(start(fake_engine(cache=TextCache("one", 8, tiers(redis_server.url)))), "dog") == "miss"
    time.sleep(0.1)
    assert state(start(fake_engine(cache=TextCache("two", 8, tiers(redis_server.url)))), "dog") == "miss"


@pytest.mark.parametrize("value", [b"", b"nonsense", b"\x80\x04K\x01.", b"WNTE\1\0\xff\xff\xff\xff\xff\xff"])
def test_corrupt_values_are_dropped(redis_server: RedisServer, tiers, start, value: bytes) -> None:
    cache = TextCache("tower", 8, tiers(redis_server.url))
    with Redis.from_url(redis_server.url) as redis:
        redis.set(cache.key("dog"), value)
        assert state(start(fake_engine(cache=cache)), "dog") == "miss"
        soon(lambda: (redis.get(cache.key("dog")) or b"").startswith(b"WNTE\1\0\2"))


def test_a_value_of_another_type(redis_server: RedisServer, tiers, start) -> None:
    cache = TextCache("tower", 8, tiers(redis_server.url))
    with Redis.from_url(redis_server.url) as redis:
        redis.lpush(cache.key("dog"), "a list")
    assert state(start(fake_engine(cache=cache)), "dog") == "miss"


def test_full(redis_server: RedisServer, tiers, start) -> None:
    with Redis.from_url(redis_server.url) as redis:
        redis.config_set("maxmemory", 1)
        redis.config_set("maxmemory-policy", "noeviction")
    assert state(start(fake_engine(cache=TextCache("tower", 8, tiers(redis_server.url)))), "dog") == "miss"


def test_absent(tiers, start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    tier = tiers(f"redis://127.0.0.1:{port}/0")
    service = start(fake_engine(cache=TextCache("tower", 64, tier)))
    assert {state(service, f"sound {number}") for number in range(8)} == {"miss"}
    soon(lambda: tier.breaker.state != "closed")


def test_a_name_that_does_not_resolve(tiers) -> None:
    tier = tiers("redis://no-such-host.invalid:6379/0")
    started = time.monotonic()
    assert [tier.get("key") for _ in range(10)] == [None] * 10
    assert time.monotonic() - started < 10  # ten of redis-py's own tries would take half a minute and more


def test_stopped_then_continued(redis_server: RedisServer, tiers, start) -> None:
    """SIGSTOP: connections are accepted and nothing is ever answered."""
    tier = tiers(redis_server.url)
    service = start(fake_engine(cache=TextCache("tower", 64, tier)))
    assert state(service, "before") == "miss"
    redis_server.signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert tier.get("key") is None
        assert time.monotonic() - started < 5  # 50 ms, and what a busy machine adds; by itself redis-py waits a minute
        assert {state(service, f"sound {number}") for number in range(6)} == {"miss"}
        soon(lambda: tier.breaker.state != "closed")
        started = time.monotonic()
        assert [tier.get("key") for _ in range(100)] == [None] * 100
        assert time.monotonic() - started < PAUSE_S + 0.3
    finally:
        redis_server.signal(signal.SIGCONT)
    numbers = iter(range(1_000))
    soon(lambda: state(service, f"after {next(numbers)}") and tier.breaker.state == "closed")


def test_killed_then_restarted(redis_server: RedisServer, tiers, start) -> None:
    tier = tiers(redis_server.url)
    service = start(fake_engine(cache=TextCache("tower", 64, tier)))
    assert state(service, "before") == "miss"
    redis_server.kill()
    assert {state(service, f"sound {number}") for number in range(8)} == {"miss"}
    redis_server.start()
    numbers = iter(range(1_000))
    soon(lambda: state(service, f"after {next(numbers)}") and tier.breaker.state == "closed")
    assert tier.ping()
