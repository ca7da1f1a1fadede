"""Redis as the second tier of the text cache: it may be absent, die or hang, and no request fails or waits for it.

redis-py's own defaults retry for seconds when the port is closed and for a minute when the server accepts and says
nothing. Here a call has 50 ms and no retry, a name that does not resolve blocks one thread and no request, and a
breaker stops asking after a few failures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from service.breaker import Breaker

log = logging.getLogger("winnow.cache")
T = TypeVar("T")


class RedisTier:
    """Bytes by key in Redis. Every method returns soon and raises nothing of Redis."""

    def __init__(self, url: str, timeout_s: float, keep_s: int, breaker: Breaker) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._timeout_s = timeout_s
        self._keep_s = keep_s
        self.breaker = breaker
        # One thread: resolving a name has no timeout of its own, and must not take a request's thread with it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="redis")

    def get(self, key: str) -> bytes | None:
        """The value, or None when there is none or Redis does not answer."""
        value = self._call(lambda: self._redis.get(key))
        return value if isinstance(value, bytes) else None

    def put(self, key: str, value: bytes) -> None:
        """Store the value for a while, or not; does not wait to see."""
        self._submit(lambda: self._redis.set(key, value, ex=self._keep_s))

    def drop(self, key: str) -> None:
        """Forget the value, or not; does not wait to see."""
        self._submit(lambda: self._redis.delete(key))

    def ping(self) -> bool:
        """Whether Redis answers now; the breaker is not asked."""
        future = self._thread.submit(self._redis.ping)
        try:
            return bool(future.result(timeout=4 * self._timeout_s))
        except (RedisError, OSError, FutureTimeout):
            return False

    def close(self) -> None:
        """Close the connections."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._redis.close()

    def _call(self, ask: Callable[[], T]) -> T | None:
        """Ask and wait, a little."""
        future = self._submit(ask)
        if future is None:
            return None
        try:
            # A new connection says hello before it asks, so a call may take the timeout a few times over.
            return future.result(timeout=4 * self._timeout_s)
        except FutureTimeout:
            future.cancel()
            self._failed("no answer in time")
            return None

    def _submit(self, ask: Callable[[], T]) -> Future[T | None] | None:
        """Ask on the thread, which tells the breaker how it went; None when the breaker is open."""
        if not self.breaker.allows():
            return None

        def run() -> T | None:
            try:
                value = ask()
            except (RedisError, OSError) as error:
                self._failed(type(error).__name__)
                return None
            self.breaker.success()
            return value

        return self._thread.submit(run)

    def _failed(self, why: str) -> None:
        self.breaker.failure()
        log.warning("redis: %s; breaker %s", why, self.breaker.state)
