"""Row 3: a short clip's latency while a long file is worked on, over its latency when nothing is.

``python -m tests.reliability.fairness [seconds of the long file]``
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from dataclasses import dataclass

from service.server_process import ServerProcess
from service.settings import Settings
from tests.reliability.bare import clip
from tests.reliability.driver import Once, Reply, Target, separation
from tests.reliability.report import Report, percentile

SHORT_S = 3.0
LONG_S = 600.0
SAMPLES = 20
MOST = 3.0


@dataclass(frozen=True)
class Fairness:
    """Latencies of the short one in seconds: alone, and beside the long one; and what became of the long ones."""

    idle: list[float]
    beside: list[float]
    long: list[Reply]

    @property
    def ratio(self) -> float:
        """Median over median."""
        return statistics.median(self.beside) / statistics.median(self.idle)


async def measure(short: Once, long: Once, samples: int) -> Fairness:
    """Ask for the short one alone, then beside the long one, again and again until there are so many of each."""

    async def latency() -> float:
        reply = await short(None)
        if reply.status != 200 or reply.wrong:
            raise RuntimeError(f"the short one got {reply.status} {reply.wrong}")
        return reply.end_s

    await latency()
    idle = [await latency() for _ in range(samples)]
    beside: list[float] = []
    replies: list[Reply] = []
    while len(beside) < samples:
        under_way = asyncio.ensure_future(long(None))
        await asyncio.sleep(0.2)
        while not under_way.done():
            taken = await latency()
            if not under_way.done():
                beside.append(taken)
        replies.append(await under_way)
        if replies[-1].status != 200:
            raise RuntimeError(f"the long one got {replies[-1].status} {replies[-1].wrong}")
    return Fairness(idle, beside, replies)


def run(long_s: float = LONG_S) -> int:
    """Measure with a long file of so many seconds; returns the exit code."""
    report = Report(f"fairness: {SHORT_S:g} s clip while a {long_s:g} s file runs")
    with ServerProcess(Settings(threads=2)) as server:
        target = Target(server.port)
        seen = asyncio.run(
            measure(target.asks(separation(clip(SHORT_S))), target.asks(separation(clip(long_s))), SAMPLES)
        )
    for name, values in (("alone", seen.idle), ("beside", seen.beside)):
        report.figure(f"{name}, 50% of {len(values)}", 1_000 * statistics.median(values), "ms")
        report.figure(f"{name}, 95%", 1_000 * percentile(values, 0.95), "ms")
    report.figure("the long file", statistics.mean(reply.end_s for reply in seen.long), "s")
    report.at_most("beside over alone, medians", seen.ratio, MOST)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(run(*map(float, sys.argv[1:2])))
