"""Proxies in front of replicas: one as small as can be, and HAProxy with the configuration that is shipped.

What one replica refuses, or whose port is closed, the small one asks another. As nginx has it with
``proxy_next_upstream error http_503 non_idempotent``, but stricter: a connection that breaks off without an answer is a
failure (502).
"""

from __future__ import annotations

import http.client
import itertools
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.service.conftest import required
from tests.service.fake_server import ROOT, free_port
from tests.service.wire import until

HAPROXY_CONFIG = ROOT / "docker" / "proxy" / "haproxy.cfg"


class Front:
    """Listens on a free port while the block lasts."""

    def __init__(self, ports: list[int], patience_s: float = 30.0) -> None:
        """In front of replicas on these ports of loopback; a request is tried anew for ``patience_s``."""
        self._ports = itertools.cycle(ports)
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self.n_repeated = 0
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, answer = front.ask(self.path, dict(self.headers.items()), body)
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("connection", "content-length", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def ask(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The first answer that is no refusal: status, headers, body."""
        until_s = time.monotonic() + self._patience_s
        status: int = 502
        while time.monotonic() < until_s:
            with self._lock:
                port = next(self._ports)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.connect()
            except OSError:
                self._repeat()
                continue
            try:
                connection.request("POST", path, body, {**headers, "Connection": "close"})
                response = connection.getresponse()
                status, answer = response.status, response.read()
                if status != 503:
                    return status, response.getheaders(), answer
            except (OSError, http.client.HTTPException) as error:
                return 502, [], f"an answer broke off: {error!r}".encode()
            finally:
                connection.close()
            self._repeat()
        return status, [], b"no replica took it"

    def _repeat(self) -> None:
        with self._lock:
            self.n_repeated += 1
        time.sleep(0.02)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Haproxy:
    """HAProxy on a free port while the block lasts, in front of two replicas on these ports of loopback."""

    n_repeated = 0  # it does not say

    def __init__(self, ports: list[int]) -> None:
        one, two = ports
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        addresses = {"BIND": self._port, "ONE": one, "TWO": two}
        self._environment = {f"WINNOW_{name}": f"127.0.0.1:{port}" for name, port in addresses.items()}

    def __enter__(self) -> Self:
        command = [required("haproxy"), "-db", "-f", str(HAPROXY_CONFIG)]
        self._process = subprocess.Popen(
            command, env={**os.environ, **self._environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._listens, 30)
        return self

    def _listens(self) -> bool:
        assert self._process.poll() is None, "haproxy has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
