"""A replica is killed while it works on jobs: another finishes all of them, and none is finished twice.

``python -m tests.reliability.job_takeover`` starts two replicas around the tests' model, on one Redis and one spool.
``--how stop`` freezes the first instead of killing it, and lets it go on when the jobs are another's.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.reliability.report import Report
from tests.service.conftest import RedisServer, required
from tests.service.fake_server import PATIENCE_S, FakeServer
from tests.service.job_calls import events
from tests.service.sounds import encode, noise
from tests.service.wire import until

LEASE_S = 2.0


@dataclass
class Result:
    """What became of the jobs."""

    n_jobs: int
    n_succeeded: int = 0
    n_equal: int = 0
    n_ended_twice: int = 0
    n_taken_over: int = 0
    n_files_too_many: int = 0
    first_s: float = 0.0
    all_s: float = 0.0
    exit_codes: list[int] = field(default_factory=list)


class Replicas:
    """Replicas of one service: they share Redis and a spool.

    Attributes:
        redis: the server.
        spool: the folder.
    """

    def __init__(self, folder: Path) -> None:
        """Start Redis, and no replica yet."""
        self._folder = folder
        self.spool = folder / "spool"
        self.redis = RedisServer(required("redis-server"), folder)
        self.all: list[FakeServer] = []

    def start(self, *, delay_s: float, **settings: object) -> FakeServer:
        """One more, ready."""
        temporary = self._folder / f"replica-{len(self.all)}"
        temporary.mkdir()
        shared = {"redis_url": self.redis.url, "spool": self.spool, "redis_timeout_s": 5, "job_lease_s": LEASE_S}
        replica = FakeServer(temporary, delay_s=delay_s, waiting=500, **{**shared, **settings})
        self.all.append(replica)
        replica.wait_until_ready()
        return replica

    def end(self) -> list[int]:
        """End them all; returns their exit codes."""
        codes = []
        for replica in self.all:
            if replica.process.poll() is None:
                replica.signal(signal.SIGCONT)
            codes.append(replica.end())
        self.redis.kill()
        return codes


@contextlib.contextmanager
def replicas(folder: Path) -> Iterator[Replicas]:
    """Replicas that are ended with the block."""
    group = Replicas(folder)
    try:
        yield group
    finally:
        group.end()


def submit(replica: FakeServer, sound: bytes, prompt: str = "dog", **headers: str) -> str:
    """Make a job; returns its path."""
    answer = httpx.post(
        f"{replica.url}/v1/jobs", files={"audio": sound}, data={"prompt": prompt}, headers=headers, timeout=PATIENCE_S
    )
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def look(replica: FakeServer, path: str) -> dict[str, Any]:
    """How a job is, asked again while the store does not answer."""
    while True:
        answer = httpx.get(f"{replica.url}{path}", timeout=PATIENCE_S)
        if answer.status_code != 503:
            assert answer.status_code == 200, answer.text
            return dict(answer.json())
        time.sleep(0.1)


def take_over(folder: Path, n_jobs: int, delay_s: float, how: signal.Signals = signal.SIGKILL) -> Result:
    """Let a first replica work on jobs, send it a signal, and see what a second one makes of them.

    The second sleeps until then, so that all jobs are the first's.
    """
    result = Result(n_jobs)
    sounds = [encode(noise(15 * 16_000, seed=number)) for number in range(n_jobs)]
    with replicas(folder) as group:
        first = group.start(delay_s=delay_s, job_workers=n_jobs)
        second = group.start(delay_s=0.0, job_workers=2)
        second.signal(signal.SIGSTOP)
        paths = [submit(first, sound) for sound in sounds]
        until(lambda: all(look(first, path)["status"] == "running" for path in paths))
        began_s = time.monotonic()
        first.signal(how)
        second.signal(signal.SIGCONT)
        until(lambda: any(look(second, path)["status"] == "succeeded" for path in paths))
        result.first_s = time.monotonic() - began_s
        until(lambda: all(look(second, path)["status"] in ("succeeded", "failed") for path in paths))
        result.all_s = time.monotonic() - began_s
        if how == signal.SIGSTOP:
            first.signal(signal.SIGCONT)
            until(lambda: not _works(first))
        for path, sound in zip(paths, sounds, strict=True):
            _judge(result, second, group.spool, path, sound)
        result.exit_codes = group.end()
    return result


def _works(replica: FakeServer) -> bool:
    """Whether it still has a folder for some work."""
    return any(replica.folder.iterdir())


def _judge(result: Result, replica: FakeServer, spool: Path, path: str, sound: bytes) -> None:
    """Count what became of one job."""
    told = [name for _, name, _ in events(httpx.get(f"{replica.url}{path}/events", timeout=PATIENCE_S).text)]
    got = httpx.get(f"{replica.url}{path}/result", timeout=PATIENCE_S).content
    expected = httpx.post(
        f"{replica.url}/separate", files={"audio": sound}, data={"prompt": "dog"}, timeout=PATIENCE_S
    ).content
    result.n_succeeded += look(replica, path)["status"] == "succeeded"
    result.n_equal += got == expected
    result.n_ended_twice += sum(name in ("completed", "failed", "canceled") for name in told) != 1
    result.n_taken_over += told.count("started") > 1
    result.n_files_too_many += len(list((spool / path.rpartition("/")[2]).iterdir())) != 1


def main() -> int:
    """Print the figures; fails when a job was lost or was finished twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds of a window in the first (default: 1)")
    parser.add_argument("--how", choices=("kill", "stop", "term"), default="kill")
    options = parser.parse_args()
    report = Report(f"A replica with {options.jobs} jobs at work gets SIG{options.how.upper()}")
    with tempfile.TemporaryDirectory() as folder:
        how = signal.Signals[f"SIG{options.how.upper()}"]
        result = take_over(Path(folder), options.jobs, options.delay, how)
    report.at_least("jobs that succeeded", result.n_succeeded, options.jobs)
    report.at_least("results equal to /separate's, byte by byte", result.n_equal, options.jobs)
    report.at_most("jobs that ended more than once", result.n_ended_twice, 0)
    report.at_most("jobs with more than one result file", result.n_files_too_many, 0)
    report.at_least("jobs begun by the first, ended by the second", result.n_taken_over, options.jobs)
    report.figure("lease", LEASE_S, "s")
    report.figure("from the signal to the first result", result.first_s, "s")
    report.figure("from the signal to the last result", result.all_s, "s")
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
