"""Row 2: four times as many requests as can be served, each sent when it is due whatever becomes of the others.

Saturation is measured in the same run, before and after. ``python -m tests.reliability.overload [seconds]``; with
``--expect`` clients wait to be asked for their body, as curl does with more than a megabyte.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass

from service.server_process import ServerProcess
from service.settings import Settings
from tests.reliability.bare import clip
from tests.reliability.driver import (
    Once,
    Reply,
    Target,
    closed_loop,
    every,
    get,
    measure_lag,
    open_loop,
    separation,
    throughput,
)
from tests.reliability.report import Report, percentile

CLIENTS = 8
CLIP_S = 5.0
TIMES = 4.0
LEAST_GOODPUT = 0.9
MOST_REFUSAL_MS = 50.0
MOST_HEALTH_MS = 100.0


@dataclass(frozen=True)
class Overload:
    """What was seen.

    Attributes:
        saturation: answers a second before and after.
        replies: to the requests that were too many.
        health: of a probe every 50 ms meanwhile.
        lags: seconds by which the client itself was late.
        client_cpu: seconds of a core that the client took in a second, at saturation and in overload: where it shares
            the service's cores, that is work which the service could not do.
    """

    saturation: tuple[float, float]
    replies: list[Reply]
    health: list[Reply]
    lags: list[float]
    seconds: float
    client_cpu: tuple[float, float]

    @property
    def goodput(self) -> float:
        """Answers a second, while there was more to do than can be done."""
        until_s = min(reply.began_s for reply in self.replies) + self.seconds
        return sum(reply.status == 200 and reply.ended_s <= until_s for reply in self.replies) / self.seconds

    @property
    def ratio(self) -> float:
        """Goodput over saturation."""
        return self.goodput / statistics.mean(self.saturation)

    @property
    def refusals_s(self) -> list[float]:
        """Seconds from a request's first byte to the head of its 503."""
        return [reply.head_s - reply.late_s for reply in self.replies if reply.status == 503]

    @property
    def unexpected(self) -> int:
        """Answers that are neither whole nor a 503 that says when to come back."""
        return sum(
            reply.wrong != "" or not (reply.status == 200 or (reply.status == 503 and "retry-after" in reply.headers))
            for reply in self.replies
        )


async def measure(once: Once, health: Once, seconds: float, saturate_s: float, clients: int = CLIENTS) -> Overload:
    """Saturate, overload, saturate."""
    cpu_s = time.process_time()
    before = throughput(await closed_loop(once, clients, saturate_s))
    saturated_cpu = (time.process_time() - cpu_s) / saturate_s
    stop = asyncio.Event()
    probes = asyncio.ensure_future(every(health, 0.05, stop))
    lags = asyncio.ensure_future(measure_lag(stop))
    cpu_s = time.process_time()
    replies = await open_loop(once, TIMES * before, seconds)
    overloaded_cpu = (time.process_time() - cpu_s) / seconds
    stop.set()
    seen_health, seen_lags = await probes, await lags
    after = throughput(await closed_loop(once, clients, saturate_s))
    return Overload((before, after), replies, seen_health, seen_lags, seconds, (saturated_cpu, overloaded_cpu))


def run(seconds: float = 60.0, *, expect: bool = False) -> int:
    """Measure for so long; returns the exit code."""
    report = Report(f"overload: {TIMES:g} times what can be served, clips of {CLIP_S:g} s, {seconds:g} s")
    settings = Settings(threads=2)
    with ServerProcess(settings) as server:
        target = Target(server.port)
        once = target.asks(separation(clip(CLIP_S), **({"Expect": "100-continue"} if expect else {})))
        asyncio.run(closed_loop(once, CLIENTS, 2.0))
        seen = asyncio.run(measure(once, target.asks(get("/healthz")), seconds, seconds / 4))
    tell(report, seen, settings.deadline_s)
    return report.exit_code


def tell(report: Report, seen: Overload, deadline_s: float) -> None:
    """Print it."""
    served = [reply.end_s for reply in seen.replies if reply.status == 200]
    probes = [reply.end_s for reply in seen.health]
    report.figure("saturation before", seen.saturation[0], "clips/s")
    report.figure("saturation after", seen.saturation[1], "clips/s")
    report.figure("goodput", seen.goodput, "clips/s")
    report.figure("requests", len(seen.replies))
    report.figure("refused", len(seen.refusals_s))
    report.figure("latency of those served, 50%", 1_000 * percentile(served, 0.5), "ms")
    report.figure("this client's own lag, 99%", 1_000 * percentile(seen.lags, 0.99), "ms")
    report.figure("this client's share of a core, saturation", seen.client_cpu[0])
    report.figure("this client's share of a core, overload", seen.client_cpu[1])
    report.figure("time to a 503, 50%", 1_000 * percentile(seen.refusals_s, 0.5), "ms")
    report.at_least("goodput over saturation", seen.ratio, LEAST_GOODPUT)
    report.at_most("answers that are neither 200 nor 503 with Retry-After", seen.unexpected, 0)
    report.at_most("time to a 503, 99%", 1_000 * percentile(seen.refusals_s, 0.99), MOST_REFUSAL_MS, "ms")
    report.at_most("time of /healthz, 99%", 1_000 * percentile(probes, 0.99), MOST_HEALTH_MS, "ms")
    report.at_most("probes that failed", sum(reply.status != 200 for reply in seen.health), 0)
    report.at_most("latency of those served, slowest", max(served, default=0.0), deadline_s, "s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument("--expect", action="store_true", help="clients wait to be asked for their body")
    options = parser.parse_args()
    sys.exit(run(options.seconds, expect=options.expect))
