"""Every caller's use of its quota.

Counted in this process: behind a proxy, each replica grants the whole quota.
"""

from __future__ import annotations

import math
import time
from collections import Counter

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from service.errors import QuotaExceeded
from service.quota import Quota

# The library's memory keeps an entry for every caller it ever saw: beyond so many it starts anew.
_MAX_CALLERS = 10_000


class Usage:
    """Requests of each caller in the last minute, in the last second, and inside. For one thread."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self._forget()

    def enter(self, caller: str, quota: Quota | None) -> None:
        """Count a request in; :meth:`leave` must follow when it ends.

        Raises:
            QuotaExceeded: the caller has to wait; nothing is counted.
        """
        if quota is not None:
            if self._inside[caller] >= quota.at_once:
                raise QuotaExceeded(f"at most {quota.at_once} requests at once", limit=quota.at_once, retry_after_s=1)
            minute, second = RateLimitItemPerMinute(quota.per_minute), RateLimitItemPerSecond(quota.burst)
            self._require(caller, minute, f"at most {quota.per_minute} requests a minute")
            self._require(caller, second, f"at most {quota.burst} requests in a second")
            self._remember(caller)
            self._limiter.hit(minute, caller)
            self._limiter.hit(second, caller)
        self._inside[caller] += 1

    def _require(self, caller: str, item: RateLimitItem, detail: str) -> None:
        if self._limiter.test(item, caller):
            return
        wait_s = self._limiter.get_window_stats(item, caller).reset_time - time.time()
        if wait_s > item.get_expiry() + 1:
            # The library counts by the wall clock: that went back, and the caller would wait until it has caught up.
            self._forget()
            return
        raise QuotaExceeded(detail, limit=item.amount, retry_after_s=max(1, math.ceil(wait_s)))

    def _remember(self, caller: str) -> None:
        if len(self._counted) >= _MAX_CALLERS:
            self._forget()
        self._counted.add(caller)

    def _forget(self) -> None:
        # A new storage: the library's thread may go over the old one for a moment yet, and breaks if that is reset.
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._counted: set[str] = set()

    def leave(self, caller: str) -> None:
        """A request of the caller has ended."""
        self._inside[caller] -= 1
        if not self._inside[caller]:
            del self._inside[caller]
