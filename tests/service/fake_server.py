"""A service in a process of its own around the tests' model: ``python -m tests.service.fake_server PORT DELAY_S``.

Everything but the model is as ``winnow serve`` has it; a window takes DELAY_S, and after SIGUSR1 the device is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0


class FakeServer:
    """The process, from outside. Started when made; :meth:`end` it."""

    def __init__(
        self, folder: Path, *, port: int = 0, delay_s: float = 0.0, shipped: bool = False, **settings: object
    ) -> None:
        """Start it, with its temporary files in ``folder`` and ``WINNOW_`` settings by their names.

        With ``shipped`` it is ``winnow serve`` itself, with the model that ships.
        """
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = ["-m", "service.cli", "serve", "--port", str(self.port)]
        fake = ["-m", "tests.service.fake_server", str(self.port), str(delay_s)]
        self._command = [sys.executable, *(own if shipped else fake)]
        self._settings = {f"WINNOW_{name.upper()}": str(value) for name, value in settings.items()}
        self._log = (folder.parent / f"server-{self.port}.log").open("a")
        self.start()

    def start(self) -> None:
        """Start the process (again)."""
        self._told = False
        plain = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        self.process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env={**plain, **self._settings, "TMPDIR": str(self.folder)},
            stdout=self._log,
            stderr=self._log,
        )

    def wait_until_ready(self) -> None:
        """Until it takes requests."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            time.sleep(0.02)

    def said(self) -> str:
        """Its log."""
        return Path(self._log.name).read_text()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._told = self._told or number == signal.SIGTERM
        self.process.send_signal(number)

    def end(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM, if it still runs and has had none, for a second one is another order; returns its exit code."""
        if self.process.poll() is None and not self._told:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._log.close()

    def open_files(self) -> int:
        """File descriptors it holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def memory_bytes(self) -> int:
        """Resident memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
        raise ProcessLookupError


@contextlib.contextmanager
def fake_server(folder: Path, *, delay_s: float = 0.0, **settings: object) -> Iterator[FakeServer]:
    """A ready one, ended with the block."""
    server = FakeServer(folder, delay_s=delay_s, **settings)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.end()


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main(port: int, delay_s: float) -> int:
    """Serve until a signal; returns the exit code."""
    from model.device import DeviceLost
    from service.loading import redis_tier
    from service.logs import configure_logging
    from service.server import serve
    from service.settings import Settings
    from service.text_cache import TextCache
    from tests.service.fakes import FakeNetwork, fake_engine

    settings = Settings(port=port)
    configure_logging(settings)
    network = FakeNetwork()
    network.take_turn = lambda: time.sleep(delay_s)
    engine = fake_engine(network, TextCache("fake", settings.cache_entries, redis_tier(settings)))

    def lose(*_: object) -> None:
        network.fail = DeviceLost("CUDA failure 700: an illegal memory access was encountered")

    signal.signal(signal.SIGUSR1, lose)
    try:
        return serve(settings, engine)
    finally:
        engine.close()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
