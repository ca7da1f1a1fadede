"""How much work is under way, how fast it goes, and whether one more recording would be done in time.

Work is counted in seconds of audio as one prompt costs. Requests take turns window by window, so while a recording is
worked on, each other one costs it no more time than its own share: a short one is not told to wait for a long one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.call import Call
from service.errors import Busy, TooLongToWait

# The shipped model takes 2.33 times as long for four prompts as for one (docs/performance.md): the Head runs once.
_COST_OF_HEAD = 0.56
_COST_OF_PROMPT = 0.44
# Speed is forgotten over this much time, and trusted after a little of it with work under way.
_MEMORY_S = 60.0
_TRUST_S = 5.0


def work_of(duration_s: float, n_prompts: int) -> float:
    """Work of a recording, in seconds of audio as one prompt costs."""
    return duration_s * (_COST_OF_HEAD + _COST_OF_PROMPT * n_prompts)


class _Share:
    def __init__(self, work: float, call: Call) -> None:
        self.work = work
        self.call = call
        self.counted = 0.0

    @property
    def remaining(self) -> float:
        return self.work * (1 - self.call.done)


class Backlog:
    """Recordings that are worked on. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none; ``clock`` in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: set[_Share] = set()
        self._busy_s = 0.0
        self._done = 0.0
        self._best: float | None = None
        self._at_s = clock()

    @property
    def speed(self) -> float | None:
        """Work done in a second of late; None until that is known."""
        with self._lock:
            self._advance()
            return self._speed()

    @property
    def pending(self) -> float:
        """Work that is still to do."""
        with self._lock:
            return sum(share.remaining for share in self._shares)

    @contextmanager
    def share(self, work: float, call: Call) -> Iterator[None]:
        """Count ``work`` in while the block does it and tells ``call`` how far it is.

        Raises:
            TooLongToWait: it would not be done by the call's deadline even alone.
            Busy: it would not, beside the others.
        """
        share = _Share(work, call)
        with self._lock:
            self._advance()
            self._require_time(share)
            self._shares.add(share)
        try:
            yield
        finally:
            with self._lock:
                self._advance()
                self._shares.discard(share)

    def _advance(self) -> None:
        now_s = self._clock()
        passed_s, self._at_s = now_s - self._at_s, now_s
        kept = math.exp(-passed_s / _MEMORY_S)
        self._busy_s *= kept
        self._done *= kept
        if self._shares:
            self._busy_s += passed_s
        for share in self._shares:
            done = share.work * share.call.done
            self._done += done - share.counted
            share.counted = done
        speed = self._speed()
        if speed is not None:
            self._best = max(self._best or 0.0, speed)

    def _speed(self) -> float | None:
        return self._done / self._busy_s if self._busy_s >= _TRUST_S and self._done > 0 else None

    def _require_time(self, mine: _Share) -> None:
        speed, remaining_s = self._speed(), mine.call.remaining_s
        if speed is None or remaining_s is None:
            return
        # By the best speed ever, for that answer is for good: a stall of a moment must not send anybody away with it.
        alone_s = mine.work / (self._best or speed)
        if alone_s > remaining_s:
            raise TooLongToWait(
                f"would take about {math.ceil(alone_s)} s: send it to /v1/jobs", limit=round(max(remaining_s, 0), 1)
            )
        if not self._shares:
            return  # nobody is in the way, and a speed that was low is measured anew
        others = sum(min(share.remaining, mine.work * share.call.weight / mine.call.weight) for share in self._shares)
        wait_s = (mine.work + others) / speed
        if wait_s > remaining_s:
            retry_s = min(max(math.ceil(wait_s - remaining_s), 1), 120)
            raise Busy("would not be done in time beside the others", limit=remaining_s, retry_after_s=retry_s)
