"""A ``winnow serve`` process of our own, driven over its socket: what the benchmarks measure."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from service.errors import StartError
from service.settings import Settings

_START_TIMEOUT_S = 60.0
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Trip:
    """One request's times in seconds, from its first byte sent."""

    first_byte_s: float
    last_byte_s: float
    n_bytes: int


class ServerProcess:
    """Started on a free port when entered, ended when left.

    Attributes:
        start_s: seconds from the start of the process until it said that it is ready.
        port: where it listens.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.start_s = 0.0
        self.port = 0

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "WINNOW_MODEL": str(self._settings.model),
            "WINNOW_THREADS": str(self._settings.threads),
            "WINNOW_DEVICE": self._settings.device,
        }
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve", "--host", "127.0.0.1", "--port", str(self.port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not self._ready():
            if self._process.poll() is not None or time.perf_counter() - started > _START_TIMEOUT_S:
                self._end()
                raise StartError("the service did not start; see: winnow doctor")
            time.sleep(0.01)
        self.start_s = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def separate(self, path: Path, prompt: str) -> Trip:
        """Send a file, read the answer to its end, keep neither.

        Raises:
            StartError: the answer is not a sound.
        """
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{prompt}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="audio"; filename="mix.wav"\r\n\r\n'
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()

        def body() -> Iterator[bytes]:
            yield head
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
            yield tail

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3_600)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
        }
        try:
            started = time.perf_counter()
            connection.request("POST", "/separate", body(), headers)
            response = connection.getresponse()
            n_bytes = len(response.read(1))
            first_byte_s = time.perf_counter() - started
            while chunk := response.read(_CHUNK_BYTES):
                n_bytes += len(chunk)
            if response.status != 200:
                raise StartError(f"the service answered {response.status}")
            return Trip(first_byte_s, time.perf_counter() - started, n_bytes)
        finally:
            connection.close()

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Exit code of the process, once it ends."""
        return self._process.wait(timeout_s)

    def memory_bytes(self) -> int:
        """Resident memory now."""
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """Highest resident memory since :meth:`reset_peak`."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        """Begin anew with the peak (Linux)."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        return 1024 * int(found[1]) if found else 0
