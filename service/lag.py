"""How late the event loop wakes up: whatever blocks it delays every request and every probe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

EVERY_S = 0.05


async def watch_lag(tell: Callable[[float], None], every_s: float = EVERY_S) -> None:
    """Sleep again and again, and tell by how many seconds each sleep was too long; until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + every_s
        await asyncio.sleep(every_s)
        tell(max(loop.time() - due_s, 0.0))
