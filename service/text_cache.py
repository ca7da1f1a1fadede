"""Prompts already read by the text tower: in this process first, then in Redis, then computed, once."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from service.embedding import Embedding
from service.redis_tier import RedisTier

log = logging.getLogger("winnow.cache")


class TextCache:
    """Embeddings by prompt, for one text tower.

    ``tower`` is the tower's hash: it is part of the key, so that another model's values in the same Redis are never
    taken for this one's. Safe to use from several threads; the same new prompt asked by many is computed once.
    """

    def __init__(self, tower: str, entries: int, remote: RedisTier | None = None) -> None:
        self._tower = tower
        self._entries = entries
        self._remote = remote
        self._lock = threading.Lock()
        self._local: OrderedDict[str, Embedding] = OrderedDict()
        self._flights: dict[str, Future[Embedding]] = {}

    def key(self, prompt: str) -> str:
        """The key in Redis."""
        return f"winnow:text:{self._tower}:{hashlib.sha256(prompt.encode()).hexdigest()}"

    def embed(self, prompt: str, compute: Callable[[str], Embedding]) -> tuple[Embedding, str]:
        """Return the prompt's embedding and where it came from: ``hit-local``, ``hit-redis`` or ``miss``.

        Raises:
            whatever ``compute`` raises; nothing is kept then, and callers that waited for it compute for themselves.
        """
        with self._lock:
            if prompt in self._local:
                self._local.move_to_end(prompt)
                return self._local[prompt], "hit-local"
            flight = self._flights.get(prompt)
            leads = flight is None
            if flight is None:
                flight = self._flights[prompt] = Future()
        if not leads:
            try:
                return flight.result(), "hit-local"
            except Exception:
                return compute(prompt), "miss"
        try:
            embedding, state = self._find(prompt, compute)
        except BaseException as error:
            with self._lock:
                del self._flights[prompt]
            flight.set_exception(error)
            raise
        with self._lock:
            del self._flights[prompt]
            if self._entries:
                self._local[prompt] = embedding
                while len(self._local) > self._entries:
                    self._local.popitem(last=False)
        flight.set_result(embedding)
        return embedding, state

    def _find(self, prompt: str, compute: Callable[[str], Embedding]) -> tuple[Embedding, str]:
        if self._remote is None:
            return compute(prompt), "miss"
        key = self.key(prompt)
        data = self._remote.get(key)
        if data is not None:
            try:
                return Embedding.from_bytes(data), "hit-redis"
            except ValueError as error:
                log.warning("redis: a value was dropped: %s", error)
                self._remote.drop(key)
        embedding = compute(prompt)
        self._remote.put(key, embedding.to_bytes())
        return embedding, "miss"

    def info(self) -> dict[str, Any]:
        """Prompts kept here, and the state of the way to Redis."""
        redis = "off" if self._remote is None else self._remote.breaker.state
        return {"entries": len(self._local), "max_entries": self._entries, "redis": redis}

    def close(self) -> None:
        """Let go of Redis."""
        if self._remote is not None:
            self._remote.close()
