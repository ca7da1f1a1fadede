"""Several processes on one port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.errors import StartError
from service.settings import Settings
from service.workers import require_sense
from tests.service.conftest import PATIENCE_S, RedisServer
from tests.service.fake_server import ROOT, free_port
from tests.service.sounds import encode, noise
from tests.service.wire import until

REDIS = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("settings", "n_workers", "said"),
    [
        ({"device": "cuda", "redis_url": REDIS}, 2, "one process serves one GPU"),
        ({}, 2, "WINNOW_REDIS_URL"),
        ({"redis_url": REDIS}, 9, "take turns"),
        ({"redis_url": REDIS}, 0, "at least 1"),
    ],
)
def test_where_they_make_no_sense(settings: dict[str, str], n_workers: int, said: str) -> None:
    with pytest.raises(StartError, match=said):
        require_sense(Settings(**settings), n_workers, 8)
    require_sense(Settings(redis_url=REDIS), 8, 8)


def children(pid: int) -> list[int]:
    """Workers of a process; any of them may end while it is asked."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in map(int, found) if b"--fd" in command_of(child)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_two_share_a_port_and_one_that_is_killed_is_replaced(
    bundle: Path, redis_server: RedisServer, temp_folder: Path
) -> None:
    port = free_port()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    mine = {"WINNOW_MODEL": str(bundle), "WINNOW_REDIS_URL": redis_server.url, "TMPDIR": str(temp_folder)}
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--workers", "2"]
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=PATIENCE_S).status_code == 200
        except httpx.TransportError:
            return False

    def separate() -> int:
        files = {"audio": encode(noise(800))}
        return httpx.post(f"{url}/separate", files=files, data={"prompt": "dog"}, timeout=PATIENCE_S).status_code

    with subprocess.Popen(command, cwd=ROOT, env={**plain, **mine}, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: len(children(process.pid)) == 2 and ready())
            first = children(process.pid)
            assert separate() == 200
            os.kill(first[0], signal.SIGKILL)
            until(lambda: len(children(process.pid)) == 2 and first[0] not in children(process.pid))
            assert first[1] in children(process.pid)
            until(ready)
            assert separate() == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")
