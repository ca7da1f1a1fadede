"""Row 1: eight clients who each send a 5 s clip as soon as they have their last one's answer.

The engine alone is measured in the same run, before, between and after rounds of load, for a shared machine's speed
changes from minute to minute: only the ratio is worth anything. ``python -m tests.reliability.load [seconds]``
"""

from __future__ import annotations

import asyncio
import statistics
import sys

from service.server_process import ServerProcess
from service.settings import Settings
from tests.reliability.bare import Bare, clip
from tests.reliability.driver import Reply, Target, closed_loop, separation, throughput
from tests.reliability.report import Report, percentile

CLIENTS = 8
CLIP_S = 5.0
ROUNDS = 4
LEAST = 0.9


def run(seconds: float = 60.0) -> int:
    """Measure for so long; returns the exit code."""
    report = Report(f"load: {CLIENTS} clients, clips of {CLIP_S:g} s, {seconds:g} s")
    settings = Settings(threads=2)
    audio = clip(CLIP_S)
    bare = Bare(settings)
    engine, path, served = [], [], []
    replies: list[Reply] = []
    alone_s = seconds / ROUNDS / 3
    with ServerProcess(settings) as server:
        once = Target(server.port).asks(separation(audio))
        asyncio.run(closed_loop(once, CLIENTS, 2.0))
        for _ in range(ROUNDS):
            engine.append(bare.engine_rate(audio, alone_s))
            path.append(bare.path_rate(audio, alone_s))
            got = asyncio.run(closed_loop(once, CLIENTS, seconds / ROUNDS))
            served.append(throughput(got))
            replies += got
    bare.close()
    for row, values in (("engine alone, one thread", engine), ("file to file, one thread", path), ("served", served)):
        report.figure(f"{row}, mean of {ROUNDS} rounds", statistics.mean(values), "clips/s")
    latencies = [reply.end_s for reply in replies if reply.status == 200]
    for share in (0.5, 0.95, 0.99):
        report.figure(f"latency, {share:.0%}", 1_000 * percentile(latencies, share), "ms")
    report.figure("served over file to file", statistics.mean(served) / statistics.mean(path))
    report.at_least("served over the engine alone", statistics.mean(served) / statistics.mean(engine), LEAST)
    report.at_most("errors", sum(reply.status != 200 or reply.wrong != "" for reply in replies), 0)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(run(*map(float, sys.argv[1:2])))
