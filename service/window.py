"""A window on its way to the engine, and the line of those of one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from service.call import Call


@dataclass(eq=False)
class Window:
    """One piece of work.

    Attributes:
        line: of the call that it belongs to.
        work: what the engine is given.
        alike: windows whose value is the same may be in one batch.
        asked_s: when it was asked for, on the scheduler's clock.
        answer: what comes of it; cancelled where nobody wants it any more.
    """

    line: Line
    work: Any
    alike: Hashable
    asked_s: float
    answer: Future[Any] = field(default_factory=Future)


@dataclass(eq=False)
class Line:
    """The windows of one call that wait, in order.

    Attributes:
        call: says whether they are wanted still, and how much they count.
        waiting: windows that no batch has taken.
        in_flight: windows without an answer, waiting or not.
        passed: virtual time: work done for this line over its weight, from where the others were when it came.
    """

    call: Call
    waiting: deque[Window] = field(default_factory=deque)
    in_flight: int = 0
    passed: float = 0.0
