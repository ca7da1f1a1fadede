"""Two replicas behind a proxy, restarted one after the other under load: no request fails.

``python -m tests.reliability.rolling_restart`` sends 500 requests and restarts each replica in between; with
``--proxy haproxy`` through HAProxy and the configuration that is shipped, which never sends a body twice.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.reliability.front import Front, Haproxy
from tests.service.fake_server import PATIENCE_S, FakeServer
from tests.service.sounds import encode, noise


@dataclass
class Result:
    """What became of the requests."""

    n_requests: int
    failures: list[str]
    n_repeated_by_the_proxy: int
    n_restarts: int
    exit_codes: list[int]
    left_behind: list[str]
    seconds: float


PROXIES: dict[str, type[Front] | type[Haproxy]] = {"small": Front, "haproxy": Haproxy}


def restart_under_load(
    folder: Path, n_requests: int, n_clients: int, delay_s: float, pre_stop_s: float = 0.5, proxy: str = "small"
) -> Result:
    """Start two replicas, ask until each was restarted and ``n_requests`` have been answered."""
    sound = encode(noise(5 * 16_000))
    replicas = [_replica(folder / str(number), delay_s, pre_stop_s) for number in range(2)]
    answers: list[str] = []
    lock = threading.Lock()
    restarted = threading.Event()
    exit_codes: list[int] = []
    began_s = time.monotonic()

    def client(url: str) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as session:
            while len(answers) < n_requests or not restarted.is_set():
                try:
                    failure = _failure(
                        session.post("/separate", files={"audio": sound}, data={"prompt": "dog"}), len(sound)
                    )
                except httpx.HTTPError as error:
                    failure = repr(error)
                with lock:
                    answers.append(failure)

    def restart() -> None:
        for number, replica in enumerate(replicas):
            while len(answers) < (number + 1) * n_requests // 4:
                time.sleep(0.01)
            exit_codes.append(replica.end())
            replicas[number] = _replica(replica.folder, delay_s, pre_stop_s, replica.port)
            time.sleep(pre_stop_s)  # the proxy has to hear of the new one before the other may leave

    try:
        for replica in replicas:
            replica.wait_until_ready()
        with (
            PROXIES[proxy]([replica.port for replica in replicas]) as front,
            ThreadPoolExecutor(n_clients + 1) as threads,
        ):
            work = [threads.submit(client, front.url) for _ in range(n_clients)]
            try:
                threads.submit(restart).result()
            finally:
                restarted.set()
            for each in work:
                each.result()
            n_repeated = front.n_repeated
    finally:
        last = [replica.end() for replica in replicas]
    return Result(
        n_requests=len(answers),
        failures=[failure for failure in answers if failure],
        n_repeated_by_the_proxy=n_repeated,
        n_restarts=len(exit_codes),
        exit_codes=exit_codes + last,
        left_behind=[path.name for replica in replicas for path in replica.folder.iterdir()],
        seconds=round(time.monotonic() - began_s, 1),
    )


def _failure(answer: httpx.Response, n_bytes: int) -> str:
    if answer.status_code != 200:
        return f"{answer.status_code}: {answer.text[:200]}"
    return "" if len(answer.content) == n_bytes else f"{len(answer.content)} bytes of {n_bytes}"


def _replica(folder: Path, delay_s: float, pre_stop_s: float, port: int = 0) -> FakeServer:
    folder.mkdir(exist_ok=True)
    replica = FakeServer(folder, port=port, delay_s=delay_s, pre_stop_s=pre_stop_s)
    if port:
        replica.wait_until_ready()
    return replica


def main() -> None:
    """Print the figures; fails when a request did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds of a window in the model (default: 0.02)")
    parser.add_argument("--pre-stop", type=float, default=0.5, help="seconds from SIGTERM to the closed port")
    parser.add_argument("--proxy", choices=sorted(PROXIES), default="small")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = restart_under_load(
            Path(folder), options.requests, options.clients, options.delay, options.pre_stop, options.proxy
        )
    print(json.dumps(asdict(result), indent=2))
    raise SystemExit(result.failures != [] or result.left_behind != [])


if __name__ == "__main__":
    main()
